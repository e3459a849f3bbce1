//! Changes of membership: what etcd checks before it proposes one, and the entries by which it proposes them. Pure
//! functions of the membership that is applied here, and of what the transport knows of its connections.
//!
//! The same change is checked again when it is applied, on all members alike (`store::Membership`).

use prost::Message as _;
use raft::Time;
use sha1::{Digest as _, Sha1};
use store::{Member, Membership};
use wire::ApiError;
use wire::raftpb::{ConfChange, ConfChangeType};

use crate::RequestId;
use crate::identity::{first_eight, hash_urls};

/// How long a member must have been connected to count as healthy (etcd: server.go, `HealthInterval`).
const HEALTH_INTERVAL_MS: u64 = 5_000;

/// How a member sees its cluster when a change is asked for.
pub struct Situation<'a> {
    /// The membership as applied here.
    pub membership: &'a Membership,
    /// This member.
    pub own: u64,
    /// `--strict-reconfig-check`.
    pub strict: bool,
    /// The time.
    pub now: Time,
    /// Since when another member is connected without a break; `None` if it is not.
    pub connected_since: &'a dyn Fn(u64) -> Option<Time>,
}

impl Situation<'_> {
    /// Whether a member may be added.
    ///
    /// # Errors
    /// `MemberNotEnoughStarted` or `Unhealthy`.
    pub fn may_add(&self, is_learner: bool) -> Result<(), ApiError> {
        if !self.strict {
            return Ok(());
        }
        let (voters, started) = self.count(|_| true);
        // One that started alone, as from a snapshot, has to begin somewhere.
        let is_first = (voters, started) == (1, 1);
        if !is_learner && !is_first && started < quorum(voters + 1) {
            return Err(ApiError::MemberNotEnoughStarted);
        }
        if voters > 1 && self.healthy() < quorum(voters + 1) {
            return Err(ApiError::Unhealthy);
        }
        Ok(())
    }

    /// Whether a member may be removed.
    ///
    /// # Errors
    /// `MemberNotEnoughStarted` or `Unhealthy`.
    pub fn may_remove(&self, id: u64) -> Result<(), ApiError> {
        let is_learner = self.membership.member(id).is_some_and(|member| member.is_learner);
        if !self.strict || is_learner {
            return Ok(());
        }
        let (voters, started) = self.count(|member| member.id != id);
        if started < quorum(voters) {
            return Err(ApiError::MemberNotEnoughStarted);
        }
        // One that is down is in no quorum now.
        if id != self.own && (self.connected_since)(id).is_none() {
            return Ok(());
        }
        let all = self.voters().count();
        if self.healthy() < 2 + all.saturating_sub(1) / 2 {
            return Err(ApiError::Unhealthy);
        }
        Ok(())
    }

    /// Whether a learner may be promoted, as far as others go; that it has caught up its leader knows.
    ///
    /// # Errors
    /// `MemberNotEnoughStarted`.
    pub fn may_promote(&self) -> Result<(), ApiError> {
        let (voters, started) = self.count(|_| true);
        if self.strict && started + 1 < quorum(voters + 1) {
            return Err(ApiError::MemberNotEnoughStarted);
        }
        Ok(())
    }

    /// Whether leadership may be moved to a member. To be asked on the leader.
    ///
    /// # Errors
    /// `BadLeaderTransferee`.
    pub fn may_lead(&self, id: u64) -> Result<(), ApiError> {
        match self.voters().any(|member| member.id == id) {
            true => Ok(()),
            false => Err(ApiError::BadLeaderTransferee),
        }
    }

    /// To whom a leader hands over when it stops: the voter that is connected longest. `None` if it is alone, or nobody
    /// is connected.
    pub fn heir(&self) -> Option<u64> {
        let others = self.voters().filter(|member| member.id != self.own);
        let connected =
            others.filter_map(|member| (self.connected_since)(member.id).map(|since| (since, member.id)));
        connected.min().map(|(_, id)| id)
    }

    /// Whether this member is connected to so many voters that, with it, they are a quorum.
    pub fn has_quorum(&self) -> bool {
        let is_there = |id: u64| id == self.own || (self.connected_since)(id).is_some();
        self.voters().filter(|member| is_there(member.id)).count() >= quorum(self.voters().count())
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.membership.members().filter(|member| !member.is_learner)
    }

    /// How many voters there are of some kind, and how many of them have started.
    fn count(&self, which: impl Fn(&Member) -> bool) -> (usize, usize) {
        let voters = || self.voters().filter(|member| which(member));
        (voters().count(), voters().filter(|member| !member.name.is_empty()).count())
    }

    /// How many voters have been connected long enough, this member among them.
    fn healthy(&self) -> usize {
        let since = self.now.minus_ms(HEALTH_INTERVAL_MS);
        let is_healthy = |id: u64| id == self.own || (self.connected_since)(id).is_some_and(|at| at < since);
        self.voters().filter(|member| is_healthy(member.id)).count()
    }
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// The id of a member that is added with these peer URLs at this time, seconds since 1970: as at bootstrap, with the time
/// in the place of the token (etcd: membership/member.go, v3rpc/member.go).
pub fn added_member_id(peer_urls: &[String], unix_s: i64) -> u64 {
    let mut hash = Sha1::new();
    hash_urls(&mut hash, peer_urls);
    hash.update(unix_s.to_string());
    first_eight(hash)
}

/// A change of membership, as the entry's data that proposes it. Each carries the id of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A member is added.
    Add {
        /// It, without a name.
        member: NewMember,
    },
    /// A learner gets a vote.
    Promote {
        /// Which.
        id: u64,
    },
    /// A member is removed for ever.
    Remove {
        /// Which.
        id: u64,
    },
    /// A member has other peer URLs.
    Update {
        /// Which.
        id: u64,
        /// All of them.
        peer_urls: Vec<String>,
    },
}

/// A member that is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMember {
    /// Its id: [`added_member_id`].
    pub id: u64,
    /// Where its peers will reach it.
    pub peer_urls: Vec<String>,
    /// Whether it gets no vote.
    pub is_learner: bool,
}

/// etcd's JSON of a member in a change, with its field order.
#[derive(Default, serde::Serialize)]
pub(crate) struct Context<'a> {
    pub(crate) id: u64,
    #[serde(rename = "peerURLs")]
    pub(crate) peer_urls: Option<&'a [String]>,
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) name: &'a str,
    #[serde(rename = "isPromote", skip_serializing_if = "Option::is_none")]
    pub(crate) is_promote: Option<bool>,
}

impl Context<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers encode")
    }
}

impl Change {
    /// The data of an entry of the kind `ConfChange`.
    pub fn encode(&self, request: RequestId) -> Vec<u8> {
        let context = |context: Context<'_>| Some(context.encode().into());
        let (kind, id, context) = match self {
            Change::Add { member: NewMember { id, peer_urls, is_learner } } => {
                let kind = match is_learner {
                    true => ConfChangeType::ConfChangeAddLearnerNode,
                    false => ConfChangeType::ConfChangeAddNode,
                };
                let member = Context {
                    id: *id,
                    peer_urls: Some(peer_urls),
                    is_learner: *is_learner,
                    ..Context::default()
                };
                (kind, *id, context(member))
            }
            Change::Promote { id } => {
                let member = Context { id: *id, is_promote: Some(true), ..Context::default() };
                (ConfChangeType::ConfChangeAddNode, *id, context(member))
            }
            Change::Remove { id } => (ConfChangeType::ConfChangeRemoveNode, *id, None),
            Change::Update { id, peer_urls } => {
                let member = Context { id: *id, peer_urls: Some(peer_urls), ..Context::default() };
                (ConfChangeType::ConfChangeUpdateNode, *id, context(member))
            }
        };
        let change =
            ConfChange { id: Some(request.0), r#type: Some(kind.into()), node_id: Some(id), context };
        change.encode_to_vec()
    }
}
