//! Whether all other members run this program, and so know that an alarm may end by itself: asked as long as this member's
//! NOSPACE is on.

use std::sync::Arc;

use tokio::sync::watch;

use super::mailbox::Sender;
use super::threads::RaftMail;
use super::versions::{INTERVAL, ask_all};
use crate::grpc::MemberView;
use crate::log;
use crate::peer::is_ours;

/// Asks as long as the member runs. One that does not answer may be anybody's. For a task of the peer thread.
pub(super) async fn monitor(
    view: Arc<MemberView>,
    raft: Sender<RaftMail>,
    mut no_space: watch::Receiver<bool>,
) {
    while no_space.wait_for(|is_on| *is_on).await.is_ok() {
        let mut said = Vec::new();
        while *no_space.borrow_and_update() {
            let replies = ask_all(&view).await.into_iter();
            let others = replies.filter(|(id, reply)| {
                !reply.as_ref().is_some_and(|reply| is_ours(reply, view.cluster_id, *id))
            });
            let others: Vec<String> = others.map(|(id, _)| format!("{id:x}")).collect();
            raft.send(RaftMail::OthersAreOurs(others.is_empty()));
            if said != others && !others.is_empty() {
                log::info!(
                    "the NOSPACE alarm of this member does not end by itself: these members do not answer, or run another \
                     program, or another member answers in their place",
                    "members" => others.clone(),
                );
            }
            said = others;
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                changed = no_space.changed() => if changed.is_err() { return },
            }
        }
        // Who joins until it is on again is not known.
        raft.send(RaftMail::OthersAreOurs(false));
    }
}
