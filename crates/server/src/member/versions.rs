//! What other members run: the leader asks them now and then, and decides the cluster's version by it (etcd:
//! version/monitor.go).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use disk::boltfile::schema::Version;
use store::Member;
use tokio::task::JoinSet;

use super::mailbox::Sender;
use super::threads::RaftMail;
use crate::config::Url;
use crate::grpc::MemberView;
use crate::log;
use crate::peer::{Question, version_told};

/// How often others are asked; etcd's.
const INTERVAL: Duration = Duration::from_secs(5);
/// And as long as the cluster has no version.
const FIRST_INTERVAL: Duration = Duration::from_millis(500);
/// How long one may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks as long as the member runs, and only while it leads. For a task of the peer thread.
pub(super) async fn monitor(view: Arc<MemberView>, raft: Sender<RaftMail>) {
    let mut leadership = view.others.leadership();
    while leadership.wait_for(|leadership| leadership.is_leader).await.is_ok() {
        let versions = ask_all(&view).await;
        raft.send(RaftMail::Versions(versions));
        let is_decided = view.reader.membership().cluster_version().is_some();
        let pause = if is_decided { INTERVAL } else { FIRST_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A new leader asks anew.
            _ = leadership.changed() => {}
        }
    }
}

async fn ask_all(view: &Arc<MemberView>) -> BTreeMap<u64, Version> {
    let membership = view.reader.membership();
    let mut asking = JoinSet::new();
    for member in membership.members().filter(|member| member.id != view.member_id) {
        let (view, member) = (view.clone(), member.clone());
        asking.spawn_local(async move { (member.id, ask(&view, &member).await) });
    }
    let mut versions = BTreeMap::new();
    while let Some(answer) = asking.join_next().await {
        if let Ok((id, Some(version))) = answer {
            versions.insert(id, version);
        }
    }
    versions
}

async fn ask(view: &MemberView, member: &Member) -> Option<Version> {
    for url in member.peer_urls.iter().filter_map(|url| Url::parse(url).ok()) {
        match view.others.ask(url, Question::get("/version"), PATIENCE).await {
            Ok(reply) => return version_told(&reply, "etcdserver"),
            Err(error) => log::debug!(
                "failed to get version",
                "remote-member-id" => format!("{:x}", member.id),
                "error" => error,
            ),
        }
    }
    None
}
