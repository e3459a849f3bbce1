//! Who is in the cluster: members, removed ids, and the cluster's version. Replicated, so a function of the log.

use std::collections::{BTreeMap, BTreeSet};

use wire::membershippb;
use wire::raftpb::{ConfChange, ConfChangeType};
use wire::{ApiError, etcdserverpb as pb};

use crate::apply::Fatal;

mod v2_store;

pub use v2_store::{V2StoreError, fuzz_v2_store};

/// One member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started and said so.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where its clients reach it; empty until it has started and said so.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

impl From<&Member> for pb::Member {
    fn from(member: &Member) -> Self {
        pb::Member {
            id: member.id,
            name: member.name.clone(),
            peer_ur_ls: member.peer_urls.clone(),
            client_ur_ls: member.client_urls.clone(),
            is_learner: member.is_learner,
        }
    }
}

/// The membership at one applied index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    cluster_version: String,
    /// Empty while no downgrade is under way.
    downgrade_target: String,
}

/// What a configuration change came to when it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfChangeOutcome {
    /// It is in effect: raft is to apply it too.
    Applied,
    /// It is invalid, on every member alike: raft is to apply an empty change, and the caller is told this.
    Refused(ApiError),
}

/// The JSON in `ConfChange.context`: etcd's `Member`, and whether a learner is to be promoted.
#[derive(serde::Deserialize)]
struct Context {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner", default)]
    is_learner: bool,
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
    #[serde(rename = "isPromote", default)]
    is_promote: bool,
}

impl Membership {
    /// Members, ids that were removed, and the cluster's version, empty while there is none.
    pub fn new(
        members: impl IntoIterator<Item = Member>,
        removed: impl IntoIterator<Item = u64>,
        cluster_version: String,
    ) -> Membership {
        let members = members.into_iter().map(|member| (member.id, member)).collect();
        Membership {
            members,
            removed: removed.into_iter().collect(),
            cluster_version,
            downgrade_target: String::new(),
        }
    }

    /// The same with a downgrade to this version, as `3.6.0`, under way.
    pub fn with_downgrade(self, target: String) -> Membership {
        Membership { downgrade_target: target, ..self }
    }

    /// All members, in ascending order of id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// The member with this id.
    pub fn member(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Whether a member with this id was there once, and may never be again.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// The cluster's version, as `3.7.0`; `None` until a leader has set it.
    pub fn cluster_version(&self) -> Option<&str> {
        (!self.cluster_version.is_empty()).then_some(&self.cluster_version)
    }

    /// The version, as `3.6.0`, that the cluster is to be downgraded to; `None` while no downgrade is under way.
    pub fn downgrade_target(&self) -> Option<&str> {
        (!self.downgrade_target.is_empty()).then_some(&self.downgrade_target)
    }

    /// Applies a configuration change.
    ///
    /// A change that is invalid is refused, on all members alike. Errors: a change that no etcd proposes (its
    /// context cannot be read, its type is unknown); the member has to stop.
    pub(crate) fn apply_conf_change(
        &mut self,
        change: &ConfChange,
        learners_max: usize,
    ) -> Result<ConfChangeOutcome, Fatal> {
        let id = change.node_id.unwrap_or(0);
        let number = change.r#type.unwrap_or(0);
        let kind = ConfChangeType::try_from(number).map_err(|_| Fatal::UnknownConfChange(number))?;
        let context = match kind {
            ConfChangeType::ConfChangeRemoveNode => None,
            _ => Some(context(change, id)?),
        };
        Ok(match self.change(kind, id, context, learners_max) {
            Ok(()) => ConfChangeOutcome::Applied,
            Err(error) => ConfChangeOutcome::Refused(error),
        })
    }

    fn change(
        &mut self,
        kind: ConfChangeType,
        id: u64,
        context: Option<Context>,
        learners_max: usize,
    ) -> Result<(), ApiError> {
        if self.removed.contains(&id) {
            return Err(ApiError::MemberNotFound);
        }
        match (kind, context) {
            (ConfChangeType::ConfChangeUpdateNode, Some(context)) => {
                let urls = context.peer_urls.unwrap_or_default();
                if !self.members.contains_key(&id) {
                    return Err(ApiError::MemberNotFound);
                }
                if self.uses_any_url(&urls, Some(id)) {
                    return Err(ApiError::PeerUrlExist);
                }
                self.members.entry(id).and_modify(|member| member.peer_urls = urls);
            }
            (_, Some(context)) if context.is_promote => {
                let member = self.members.get_mut(&id).ok_or(ApiError::MemberNotFound)?;
                if !member.is_learner {
                    return Err(ApiError::MemberNotLearner);
                }
                member.is_learner = false;
            }
            (_, Some(context)) => return self.add(kind, id, context, learners_max),
            (_, None) => {
                self.members.remove(&id).ok_or(ApiError::MemberNotFound)?;
                self.removed.insert(id);
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        kind: ConfChangeType,
        id: u64,
        context: Context,
        learners_max: usize,
    ) -> Result<(), ApiError> {
        let member = Member {
            id,
            name: context.name,
            peer_urls: context.peer_urls.unwrap_or_default(),
            client_urls: context.client_urls.unwrap_or_default(),
            is_learner: context.is_learner,
        };
        if self.members.contains_key(&id) {
            return Err(ApiError::MemberExist);
        }
        if self.uses_any_url(&member.peer_urls, None) {
            return Err(ApiError::PeerUrlExist);
        }
        let learners = self.members.values().filter(|member| member.is_learner).count();
        let adds_learner = member.is_learner && kind == ConfChangeType::ConfChangeAddLearnerNode;
        if adds_learner && learners + 1 > learners_max {
            return Err(ApiError::TooManyLearners);
        }
        self.members.insert(id, member);
        Ok(())
    }

    fn uses_any_url(&self, urls: &[String], except: Option<u64>) -> bool {
        let others = self.members.values().filter(|member| Some(member.id) != except);
        others.flat_map(|member| &member.peer_urls).any(|url| urls.contains(url))
    }

    /// Applies what a member says of itself once it has started. One that is removed by now is left alone.
    pub(crate) fn set_attributes(
        &mut self,
        set: membershippb::ClusterMemberAttrSetRequest,
    ) -> Result<(), Fatal> {
        let Some(attributes) = set.member_attributes else {
            return Err(Fatal::InvalidRequest("cluster_member_attr_set without attributes"));
        };
        match self.members.get_mut(&set.member_id) {
            Some(member) => {
                member.name = attributes.name;
                member.client_urls = attributes.client_urls;
            }
            None if self.removed.contains(&set.member_id) => {}
            None => return Err(Fatal::InvalidRequest("cluster_member_attr_set of an unknown member")),
        }
        Ok(())
    }

    /// Applies a new cluster version.
    pub(crate) fn set_cluster_version(&mut self, version: String) -> Result<(), Fatal> {
        if !is_version(&version) {
            return Err(Fatal::InvalidRequest("cluster_version_set without a version"));
        }
        self.cluster_version = version;
        Ok(())
    }

    /// Applies that a downgrade begins or ends.
    pub(crate) fn set_downgrade(&mut self, set: membershippb::DowngradeInfoSetRequest) -> Result<(), Fatal> {
        // Go's etcd applies it, and ends as soon as it looks at it.
        if set.enabled && !is_version(&set.ver) {
            return Err(Fatal::InvalidRequest("downgrade_info_set without a version"));
        }
        self.downgrade_target = if set.enabled { set.ver } else { String::new() };
        Ok(())
    }

    /// The members as they are stored, in ascending order of id.
    pub(crate) fn stored_members(&self) -> Vec<membershippb::Member> {
        let stored = self.members.values().map(|member| membershippb::Member {
            id: member.id,
            raft_attributes: Some(membershippb::RaftAttributes {
                peer_urls: member.peer_urls.clone(),
                is_learner: member.is_learner,
            }),
            member_attributes: Some(membershippb::Attributes {
                name: member.name.clone(),
                client_urls: member.client_urls.clone(),
            }),
        });
        stored.collect()
    }

    /// The ids of removed members, in ascending order.
    pub fn removed(&self) -> impl Iterator<Item = u64> {
        self.removed.iter().copied()
    }

    /// Takes up what was stored.
    pub(crate) fn restore(
        members: Vec<membershippb::Member>,
        removed: Vec<u64>,
        (cluster_version, downgrade_target): (String, String),
    ) -> Membership {
        let members = members.into_iter().map(|member| {
            let raft = member.raft_attributes.unwrap_or_default();
            let attributes = member.member_attributes.unwrap_or_default();
            let restored = Member {
                id: member.id,
                name: attributes.name,
                peer_urls: raft.peer_urls,
                client_urls: attributes.client_urls,
                is_learner: raft.is_learner,
            };
            (member.id, restored)
        });
        Membership {
            members: members.collect(),
            removed: removed.into_iter().collect(),
            cluster_version,
            downgrade_target,
        }
    }

    /// Checks every invariant. Panics if one does not hold.
    pub(crate) fn check(&self) {
        for (id, member) in &self.members {
            assert_eq!(*id, member.id);
            assert!(!self.removed.contains(id), "member {id:x} is there and removed");
        }
    }
}

fn context(change: &ConfChange, id: u64) -> Result<Context, Fatal> {
    let json = change.context.as_deref().unwrap_or_default();
    let context: Context =
        serde_json::from_slice(json).map_err(|error| Fatal::InvalidConfChange(error.to_string()))?;
    if context.id != id {
        let text = format!("the context is of member {:x}, the change of {id:x}", context.id);
        return Err(Fatal::InvalidConfChange(text));
    }
    Ok(context)
}

/// Whether it is a semantic version, as Go's etcd takes it: three numbers, then perhaps a suffix.
fn is_version(text: &str) -> bool {
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = numbers.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<i64>().is_ok_and(|n| n >= 0))
}
