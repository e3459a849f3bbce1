//! What network threads and the member hand each other. Always whole batches, never single completions.

use bytes::Bytes;
use store::Answer;
use wire::{ApiError, Status};

/// Names a request, or a round of reads, of this run; never reused (rule 19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl RequestId {
    /// Whether it was made before another of the same lane, or is the same.
    pub fn is_at_or_before(self, other: RequestId) -> bool {
        // A run makes far fewer than half of all numbers.
        other.0.wrapping_sub(self.0) < 1 << 63
    }
}

/// What a network thread asks of the member.
#[derive(Clone, Debug)]
pub enum Submission {
    /// Append this encoded `InternalRaftRequest`, whose header carries `id`.
    Propose {
        /// The id in the request's header.
        id: RequestId,
        /// The encoded `InternalRaftRequest`.
        data: Bytes,
        /// Whether it adds to the data (a put, or a transaction with a put on either branch): refused with
        /// NoSpace while the disk is full.
        grows: bool,
    },
    /// Append this change of membership ([`crate::Change::encode`]), which carries `id`. Its answer, when it is applied
    /// here, has no body: the members are those of the store's reader.
    Reconfigure {
        /// The id in the change.
        id: RequestId,
        /// The encoded `ConfChange`.
        data: Bytes,
        /// If it promotes a learner: only the leader takes that, and only if the learner has caught up.
        promotes: Option<Promotion>,
    },
    /// Confirm leadership, then tell the index that a linearizable read must wait for.
    ReadIndex {
        /// Names the round; one serves every read of the thread that waits for it.
        context: RequestId,
    },
    /// Nobody waits any more for the answer to what was to be appended. If it waits for a leader, it never will be: as in
    /// etcd, where a proposal that its client has given up is not made later.
    GiveUp {
        /// The id in the request's header, or in the change.
        id: RequestId,
    },
}

/// A learner that is to be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// Which.
    pub member: u64,
    /// What it comes to if it has caught up: [`crate::Situation::may_promote`].
    pub may: Result<(), ApiError>,
}

/// What the member tells one network thread, in one message a batch.
#[derive(Debug, Default)]
pub struct Completions {
    /// Everything up to this index is applied, and visible to reads.
    pub applied_index: u64,
    /// Proposals that were applied. An id that the thread does not know is ignored.
    pub answers: Vec<(RequestId, Result<Answer, Status>)>,
    /// Proposals that were not taken, and why.
    pub refused: Vec<(RequestId, Status)>,
    /// Ends of read-index rounds: the index to wait for.
    pub reads: Vec<(RequestId, Result<u64, Status>)>,
    /// Behind the answers: every proposal of the thread that was made up to this one and has no answer gets none. Whether
    /// it happens is unknown: `TimeoutDueToLeaderFail`.
    pub lost_upto: Option<RequestId>,
}
