//! What the log holds, and what of consensus outlives a crash.

use bytes::Bytes;

use crate::{Index, NodeId, Term};

/// What an entry's payload is. The values are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A request to the state machine; empty in the entry with which a leader begins its term.
    Normal = 0,
    /// A change of membership, `raftpb.ConfChange`.
    ConfChange = 1,
    /// A change of membership, `raftpb.ConfChangeV2`.
    ConfChangeV2 = 2,
}

/// One entry of the log. Cloning shares the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: Term,
    /// Its place in the log.
    pub index: Index,
    /// How the state machine is to read `data`.
    pub kind: EntryKind,
    /// The payload, opaque to consensus.
    pub data: Bytes,
}

/// What an entry costs beside its payload. Counted, so that limits in bytes also bound empty entries.
const ENTRY_OVERHEAD: usize = 64;

impl Entry {
    /// What the entry costs in memory, in bytes: what all limits in bytes count.
    #[must_use]
    pub fn size(&self) -> usize {
        Self::size_of(&self.data)
    }

    /// The size of an entry with this payload.
    pub(crate) fn size_of(data: &Bytes) -> usize {
        ENTRY_OVERHEAD + data.len()
    }
}

impl EntryKind {
    /// Whether it is a change of membership.
    #[must_use]
    pub fn is_conf_change(self) -> bool {
        self != Self::Normal
    }
}

/// What stands for the log up to an entry: `raftpb.Snapshot`, with its metadata. The store's contents at that entry are
/// not in it; the shell moves and keeps them (design rule 17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry in it.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// The members as of that entry.
    pub conf: ConfState,
    /// Opaque to consensus; etcd's is the membership as JSON of its v2 store.
    pub data: Bytes,
}

/// What must be durable of consensus itself, beside the log: etcd's `raftpb.HardState`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The highest term seen.
    pub term: Term,
    /// Who got this member's vote in that term.
    pub vote: Option<NodeId>,
    /// Every entry up to here is committed. Written lazily: it may lag behind what was applied.
    pub commit: Index,
}

/// Who takes part, as of the last applied change: the part of `raftpb.ConfState` that etcd uses (no joint form).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Who votes and counts towards a quorum, ascending.
    pub voters: Vec<NodeId>,
    /// Who only follows, ascending, none of them a voter.
    pub learners: Vec<NodeId>,
}

impl ConfState {
    /// Whether both lists are ascending, without repeats, without 0, and have nobody in common.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let ascending = |ids: &[NodeId]| ids.windows(2).all(|pair| pair[0] < pair[1]);
        let nobody = |ids: &[NodeId]| ids.first() == Some(&NodeId(0));
        ascending(&self.voters)
            && ascending(&self.learners)
            && !nobody(&self.voters)
            && !nobody(&self.learners)
            && self.learners.iter().all(|id| !self.is_voter(*id))
    }

    /// Whether `id` takes part, with or without a vote.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.binary_search(&id).is_ok()
    }

    /// Whether `id` votes.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.binary_search(&id).is_ok()
    }
}
