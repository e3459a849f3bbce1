//! What the front end sees of its member.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Semaphore;
use wire::etcdserverpb as pb;

/// What changes about a member while it runs; written by the member's threads.
#[derive(Debug, Default)]
pub struct SharedStatus {
    term: AtomicU64,
    leader: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    db_size_bytes: AtomicU64,
    db_size_in_use_bytes: AtomicU64,
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
        /// Everything through this index is applied and visible to reads.
        applied, set_applied;
        /// What a snapshot taken now would take, bytes (rule 18).
        db_size_bytes, set_db_size_bytes;
        /// Of that, what is in use, bytes.
        db_size_in_use_bytes, set_db_size_in_use_bytes;
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

/// Hashes that are made at the same time.
const HASHES_MAX: usize = 2;

/// Turns for hashes. Each reads everything that is stored and, once begun, goes on when its client is gone; the others
/// wait, until their clients give up.
pub fn hash_turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(HASHES_MAX))
}

/// One member, as its front end sees it.
pub struct MemberView {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The member's id.
    pub member_id: u64,
    /// Its state.
    pub reader: store::Reader,
    /// Its raft state and sizes.
    pub status: Arc<SharedStatus>,
    /// `--quota-backend-bytes`, as Status reports it.
    pub quota_bytes: i64,
    /// The last compaction whose background work is done.
    pub compaction_finished: tokio::sync::watch::Receiver<i64>,
    /// See [`hash_turns`].
    pub hashes: Arc<Semaphore>,
}

impl MemberView {
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
