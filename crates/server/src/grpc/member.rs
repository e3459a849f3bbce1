//! What the front end sees of its member.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use disk::boltfile::schema::Version;
use node::lease::{Remaining, Renewal, SharedLessor, Wait};
use node::{Quota, RequestId};
use raft::Time;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::{ApiError, etcdserverpb as pb};

use super::hashes::Hashes;
use super::others::Others;
use super::snapshot::Cuts;
use super::turns::ReadTurns;
use crate::auth::{Access, Credentials, Who};
use crate::clock::Clock;
use crate::http::Versions;
use crate::metrics::Metrics;

/// What changes about a member while it runs; written by the member's threads.
#[derive(Debug, Default)]
pub struct SharedStatus {
    term: AtomicU64,
    leader: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    elected: AtomicU64,
    learner: AtomicBool,
}

macro_rules! cells {
    ($($(#[$doc:meta])* $name:ident, $set:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self) -> u64 {
            self.$name.load(Ordering::SeqCst)
        }

        #[doc = concat!("Publishes [`SharedStatus::", stringify!($name), "`].")]
        pub fn $set(&self, value: u64) {
            self.$name.store(value, Ordering::SeqCst);
        }
    )*};
}

impl SharedStatus {
    cells! {
        /// The term.
        term, set_term;
        /// The leader's member id; 0 while there is none.
        leader, set_leader;
        /// The commit index.
        committed, set_committed;
        /// When the present leader, or the last one, was heard of, by the member's clock.
        elected, set_elected;
        /// Everything through this index is applied and visible to reads.
        applied, set_applied;
    }

    /// Whether this member is a learner.
    pub fn is_learner(&self) -> bool {
        self.learner.load(Ordering::SeqCst)
    }

    /// Publishes [`SharedStatus::is_learner`].
    pub fn set_learner(&self, learner: bool) {
        self.learner.store(learner, Ordering::SeqCst);
    }
}

/// Hashes that are made at the same time, for clients and for comparisons each.
pub(super) const HASHES_MAX: usize = 2;
/// Reads of history for watches that are behind, at the same time.
const HISTORY_READS_MAX: usize = 4;

/// Snapshots that are sent to clients at the same time.
const SNAPSHOTS_MAX: usize = 2;

/// So many pieces of long work of one kind at a time, each on a thread made for it. Once begun one goes on when its
/// client is gone, unless it asks; the others wait, until their clients give up.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

impl Turns {
    /// For hashes, each of which reads everything that is stored.
    pub fn for_hashes() -> Self {
        Turns(Arc::new(Semaphore::new(HASHES_MAX)))
    }

    /// For watches that are behind.
    pub fn for_history() -> Self {
        Turns(Arc::new(Semaphore::new(HISTORY_READS_MAX)))
    }

    /// For snapshots, each of which holds up compactions.
    pub fn for_snapshots() -> Self {
        Turns(Arc::new(Semaphore::new(SNAPSHOTS_MAX)))
    }

    /// Waits for a turn, which is over when the answer is dropped; `None` where the process is about to end.
    pub async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().acquire_owned().await.ok()
    }

    /// Runs `work` when its turn comes; `None` where the process is about to end.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = self.wait().await?;
        let run = move || {
            let result = work();
            drop(turn);
            result
        };
        tokio::task::spawn_blocking(run).await.ok()
    }
}

/// Leases that are looked at in one turn at the lessor.
const LIST_CHUNK: usize = 1_000;

/// The time of a member's leases, on the member's own clock.
#[derive(Clone, Debug)]
pub struct Leases {
    lessor: SharedLessor,
    clock: Clock,
}

/// What came of a renewal, for who has confirmed that this member leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It lives for so many seconds from now on.
    Ttl(i64),
    /// There is no such lease.
    NotFound,
    /// It has ended; the waiter is answered when it is gone.
    Waiting,
    /// A checkpoint of 0 has to be applied first; then it is to be asked for again.
    Checkpointed,
    /// Another member leads, and has to be asked.
    NotPrimary,
    /// Too many wait already.
    TooMany,
}

impl Leases {
    /// Asks `lessor` by `clock`, which must be that of the member's threads.
    pub fn new(lessor: SharedLessor, clock: Clock) -> Self {
        Leases { lessor, clock }
    }

    /// Renews a lease. The caller has confirmed, since it was asked, that this member leads (rule 14). `waiter` names who
    /// is answered if the lease has ended: with LeaseNotFound, or NotPrimaryLessor if another member leads by then.
    pub fn renew(&self, id: i64, waiter: impl FnOnce() -> RequestId) -> Renewed {
        let mut lessor = self.lessor.lock();
        match lessor.renew(self.clock.now(), id) {
            Renewal::Renewed { ttl_s } => Renewed::Ttl(ttl_s),
            Renewal::NotFound => Renewed::NotFound,
            Renewal::Checkpointed => Renewed::Checkpointed,
            Renewal::NotPrimary => Renewed::NotPrimary,
            Renewal::Ended => match lessor.wait_for_end(id, waiter()) {
                Wait::Waiting => Renewed::Waiting,
                Wait::Gone => Renewed::NotFound,
                Wait::NotPrimary => Renewed::NotPrimary,
                Wait::Full => Renewed::TooMany,
            },
        }
    }

    /// What is left of a lease.
    pub fn remaining(&self, id: i64) -> Remaining {
        self.lessor.lock().remaining(self.clock.now(), id)
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.lessor.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lessor.lock().is_empty()
    }

    /// All leases, those that end first first; on a member that does not lead, where none ends, by their ids. Takes long
    /// with many.
    pub fn by_remaining(&self) -> Vec<i64> {
        let mut ends = Vec::new();
        let mut from = Some(i64::MIN);
        while let Some(id) = from {
            from = self.lessor.lock().list(id, LIST_CHUNK, &mut ends);
        }
        ends.sort_unstable();
        ends.into_iter().map(|end| end.id).collect()
    }
}

/// A request goes beyond the quota: it is refused with NoSpace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverQuota {
    /// What is to be applied before.
    pub raises: Option<pb::AlarmRequest>,
}

impl OverQuota {
    /// What the caller is told.
    pub const ERROR: ApiError = ApiError::NoSpace;
}

/// One member, as its front end sees it.
pub struct MemberView {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The member's id.
    pub member_id: u64,
    /// Its state.
    pub reader: store::Reader,
    /// How it finds out who asks.
    pub access: Arc<Access>,
    /// The time of its leases.
    pub leases: Leases,
    /// Its raft state and sizes.
    pub status: Arc<SharedStatus>,
    /// `--quota-backend-bytes`, as Status reports it.
    pub quota_bytes: i64,
    /// The same, as it counts.
    pub quota: Quota,
    /// What the revision log takes.
    pub space: Box<dyn Fn() -> disk::revlog::Space + Send + Sync>,
    /// The last compaction whose background work is done.
    pub compaction_finished: tokio::sync::watch::Receiver<i64>,
    /// Asks for a merge of everything that is worth it, and waits for nothing.
    pub defragment: Box<dyn Fn() + Send + Sync>,
    /// Where hashes are made.
    pub hashes: Hashes,
    /// Turns for reads off the network threads.
    pub reads: ReadTurns,
    /// Turns for reads of history, for watches.
    pub history: Turns,
    /// Turns for snapshots.
    pub snapshots: Turns,
    /// Where snapshots are had from.
    pub cuts: Cuts,
    /// The other members.
    pub others: Others,
    /// Longest wait for the member or for another one: 5 s and two election timeouts in etcd.
    pub request_timeout: Duration,
    /// What is counted as long as the process runs.
    pub metrics: Arc<Metrics>,
}

impl MemberView {
    /// Whether it matters who asks.
    pub fn is_guarded(&self) -> bool {
        self.reader.auth_revision().is_some()
    }

    /// Who asks, and what users may do now.
    ///
    /// # Errors
    /// `InvalidAuthToken`.
    pub fn who(&self, credentials: &Credentials) -> Result<Who, ApiError> {
        self.access.who(self.reader.auth(), credentials)
    }

    /// Whether what was read may be told: nothing has changed for users since it was known who asks (etcd: doSerialize).
    /// `revision`: that of the one who asks, 0 for nobody.
    ///
    /// # Errors
    /// `AuthOldRevision`.
    pub fn check_unchanged(&self, revision: u64) -> Result<(), ApiError> {
        match revision != 0 && self.reader.auth_revision() != Some(revision) {
            true => Err(ApiError::AuthOldRevision),
            false => Ok(()),
        }
    }

    /// Whether a request of this cost may be proposed as far as the quota goes; else why it is refused, and the alarm that
    /// is to be on before that is told, if it is not (etcd: v3rpc/quota.go).
    pub fn check_quota(&self, cost: u64) -> Result<(), OverQuota> {
        if self.quota.has_room(self.reader.size_bytes(), cost) {
            return Ok(());
        }
        let kind = pb::AlarmType::Nospace;
        let is_on = self.reader.alarms().contains(kind, self.member_id);
        let (action, alarm) = (AlarmAction::Activate as i32, kind as i32);
        let raises = (!is_on).then_some(pb::AlarmRequest { action, member_id: self.member_id, alarm });
        Err(OverQuota { raises })
    }

    /// Why a proposal that was made so long ago has no answer yet (etcd: server.go, `parseProposeCtxErr`).
    pub fn proposal_timeout(&self, waited: Duration) -> ApiError {
        let started = self.others.now().minus_ms(waited.as_millis() as u64);
        let elected = Time(self.status.elected());
        let lost = elected.minus_ms(2 * self.others.election_timeout_ms());
        if lost < started && started < elected {
            return ApiError::TimeoutDueToLeaderFail;
        }
        let connected_since = self.others.connections();
        let is_connected = |id| connected_since(id).is_some_and(|since| since < started);
        let is_well = match self.status.leader() {
            0 => true,
            leader if leader == self.member_id => {
                let membership = self.reader.membership();
                let connected =
                    membership.members().filter(|member| member.id == leader || is_connected(member.id));
                connected.count() > membership.members().len() / 2
            }
            leader => is_connected(leader),
        };
        if is_well { ApiError::Timeout } else { ApiError::TimeoutDueToConnectionLost }
    }

    /// What `/version` shows.
    pub fn versions(&self) -> Versions {
        let cluster = self.reader.membership().cluster_version().map(str::to_owned);
        let storage = (self.status.applied() > 0).then(|| storage_version(cluster.as_deref()));
        Versions { cluster, storage }
    }

    /// A complete response header with `revision`.
    pub fn header(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            raft_term: self.status.term(),
        }
    }
}

/// The storage's version where the cluster has this one: the same, but none below the first that a storage can be found
/// to have (etcd: schema.go, `UnsafeDetectSchemaVersion`; monitor.go, `UpdateStorageVersionIfNeeded`).
fn storage_version(cluster: Option<&str>) -> String {
    let lowest = Version { major: 3, minor: 5, patch: 0 };
    let cluster = cluster.and_then(|version| version.parse().ok());
    cluster.map_or(lowest, |version: Version| version.max(lowest)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_has_the_clusters_version_but_none_below_3_5() {
        for (cluster, storage) in [
            (None, "3.5.0"),
            (Some("3.0.0"), "3.5.0"),
            (Some("3.4.0"), "3.5.0"),
            (Some("3.5.0"), "3.5.0"),
            (Some("3.6.0"), "3.6.0"),
            (Some("3.7.0"), "3.7.0"),
        ] {
            assert_eq!(storage_version(cluster), storage, "{cluster:?}");
        }
    }
}
