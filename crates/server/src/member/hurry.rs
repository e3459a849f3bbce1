//! `--initial-election-tick-advance`: a member that starts need not wait for its whole election timeout once it is
//! connected to a quorum (etcd: server.go, `adjustTicks`).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::mailbox::Sender;
use super::threads::RaftMail;
use crate::grpc::MemberView;
use crate::log;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_millis(50);
/// For how long; after it a shorter wait would change nothing any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells the raft thread once a quorum is connected and there is no leader yet. For a task of the peer thread.
pub(super) async fn hurry(view: Arc<MemberView>, raft: Sender<RaftMail>) {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && view.status.leader() == 0 {
        if view.others.situation(&view, |situation| situation.has_quorum()) {
            log::info!(
                "initialized peer connections; fast-forwarding election ticks",
                "local-member-id" => format!("{:x}", view.member_id),
            );
            raft.send(RaftMail::Hurry);
            return;
        }
        sleep(INTERVAL).await;
    }
}
