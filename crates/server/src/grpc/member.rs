//! What the front end sees of its member.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wire::etcdserverpb as pb;
use wire::{ApiError, Status};

/// Whether a read may wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// Give up with [`ReadFailure::WouldBlock`] where a disk would have to be waited for.
    NoWait,
    /// Wait as long as it takes; not on a network thread.
    MayBlock,
}

/// Why a read gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadFailure {
    /// The request is at fault.
    #[error("{0}")]
    Api(ApiError),
    /// A disk would have to be waited for.
    #[error("the read would wait for a disk")]
    WouldBlock,
    /// A record could not be read.
    #[error("{0}")]
    Source(store::ReadError),
}

impl From<ReadFailure> for Status {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Api(error) => error.into(),
            other => Status::new(wire::Code::Unknown, other.to_string()),
        }
    }
}

/// What HashKV answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    /// The hash.
    pub hash: u32,
    /// The revision that the store was at.
    pub revision: i64,
    /// The revision that the hash covers.
    pub hash_revision: i64,
    /// The compacted revision that it is based on; -1 before the first compaction.
    pub compact_revision: i64,
}

/// Reads of the member's state, from any thread.
pub trait Reads: Send + Sync + 'static {
    /// Appends all of the answer but its header to `body`; returns the header's revision.
    fn range(
        &self,
        request: &pb::RangeRequest,
        mode: ReadMode,
        body: &mut Vec<u8>,
    ) -> Result<i64, ReadFailure>;

    /// As [`Reads::range`], for a read-only transaction.
    fn txn(&self, request: &pb::TxnRequest, mode: ReadMode, body: &mut Vec<u8>) -> Result<i64, ReadFailure>;

    /// Hashes all key-values up to `revision`, 0 for the newest. May take long.
    fn hash_kv(&self, revision: i64) -> Result<KvHash, ReadFailure>;

    /// The newest revision.
    fn revision(&self) -> i64;

    /// All members, ascending by id.
    fn members(&self) -> Vec<pb::Member>;

    /// The cluster version, as `3.7.0`, once it is set.
    fn cluster_version(&self) -> Option<String>;
}

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

/// One member, as its front end sees it.
pub struct MemberView {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The member's id.
    pub member_id: u64,
    /// Its state.
    pub reader: Arc<dyn Reads>,
    /// Its raft state and sizes.
    pub status: Arc<SharedStatus>,
    /// `--quota-backend-bytes`, as Status reports it.
    pub quota_bytes: i64,
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
