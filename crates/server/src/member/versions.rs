//! What other members run: the leader asks them now and then, and decides the cluster's version by it (etcd:
//! version/monitor.go).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use store::Member;
use tokio::task::JoinSet;

use super::mailbox::Sender;
use super::threads::RaftMail;
use crate::config::Url;
use crate::grpc::MemberView;
use crate::log;
use crate::peer::{Question, Reply, version_told};

/// How often others are asked; etcd's.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// And as long as the cluster has no version.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);
/// How long one may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks as long as the member runs, and only while it leads. For a task of the peer thread.
pub(super) async fn monitor(view: Arc<MemberView>, raft: Sender<RaftMail>) {
    let mut leadership = view.others.leadership();
    while leadership.wait_for(|leadership| leadership.is_leader).await.is_ok() {
        let replies = ask_all(&view).await.into_iter();
        let versions = replies.filter_map(|(id, reply)| Some((id, version_told(&reply?, "etcdserver")?)));
        raft.send(RaftMail::Versions(versions.collect()));
        let is_decided = view.reader.membership().cluster_version().is_some();
        let pause = if is_decided { INTERVAL } else { FIRST_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A new leader asks anew.
            _ = leadership.changed() => {}
        }
    }
}

/// What each of the others answers to the question for its version, if it does.
pub(super) async fn ask_all(view: &Arc<MemberView>) -> BTreeMap<u64, Option<Reply>> {
    let membership = view.reader.membership();
    let (mut asking, mut replies) = (JoinSet::new(), BTreeMap::new());
    for member in membership.members().filter(|member| member.id != view.member_id) {
        replies.insert(member.id, None);
        let (view, member) = (view.clone(), member.clone());
        asking.spawn_local(async move { (member.id, ask(&view, &member).await) });
    }
    while let Some(answer) = asking.join_next().await {
        replies.extend(answer);
    }
    replies
}

async fn ask(view: &MemberView, member: &Member) -> Option<Reply> {
    for url in member.peer_urls.iter().filter_map(|url| Url::parse(url).ok()) {
        match view.others.ask(url, Question::get("/version"), PATIENCE).await {
            Ok(reply) => return Some(reply),
            Err(error) => log::debug!(
                "failed to get version",
                "remote-member-id" => format!("{:x}", member.id),
                "error" => error,
            ),
        }
    }
    None
}
