//! What the member's threads tell the transport, and the log, of the cluster's members.

use std::collections::BTreeMap;
use std::sync::Arc;

use raft::NodeId;
use store::Membership;

use crate::grpc::SharedStatus;
use crate::log;
use crate::peer::Handle;
use crate::process::Events;

/// Follows the membership as it is applied. Lives on the apply thread.
pub(super) struct Peers {
    pub handle: Handle,
    pub status: Arc<SharedStatus>,
    pub events: Events,
    pub cluster_id: u64,
    pub own: u64,
    /// The other members that the transport knows, with their URLs.
    pub known: BTreeMap<u64, Vec<String>>,
    /// This member was removed, and the process has heard of it.
    pub is_removed: bool,
}

impl Peers {
    /// Takes over the membership, as of now.
    pub(super) fn follow(&mut self, membership: &Membership) {
        let mut gone = std::mem::take(&mut self.known);
        for member in membership.members() {
            let before = gone.remove(&member.id);
            if member.id == self.own {
                self.status.set_learner(member.is_learner);
                continue;
            }
            match before {
                None => {
                    self.log("added member", member.id, &member.peer_urls);
                    self.handle.add_peer(NodeId(member.id), member.peer_urls.clone());
                }
                Some(urls) if urls != member.peer_urls => {
                    self.log("updated member", member.id, &member.peer_urls);
                    self.handle.update_peer(NodeId(member.id), member.peer_urls.clone());
                }
                Some(_) => {}
            }
            self.known.insert(member.id, member.peer_urls.clone());
        }
        for (id, urls) in gone {
            self.log("removed member", id, &urls);
            self.handle.remove_peer(NodeId(id));
        }
        if membership.is_removed(self.own) && !std::mem::replace(&mut self.is_removed, true) {
            self.events.removed();
        }
    }

    fn log(&self, what: &str, id: u64, urls: &[String]) {
        log::info!(
            what,
            "cluster-id" => format!("{:x}", self.cluster_id),
            "local-member-id" => format!("{:x}", self.own),
            "peer-id" => format!("{id:x}"),
            "peer-urls" => urls,
        );
    }
}
