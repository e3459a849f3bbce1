//! What a member is started with: settings, bounds, and what an earlier run left behind.

use crate::{ConfState, Entry, HardState, Index, NodeId, Position, Term};

/// How much may pile up. What happens beyond each bound is said there; nothing in this crate grows without one
/// (design rule 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes ([`Entry::size`]) of entries that are not yet both durable and applied here. Beyond it a leader refuses
    /// proposals, and a follower treats appends as lost. One entry of any size is taken when nothing is waiting.
    pub uncommitted_bytes_max: usize,
    /// The same bound as a number of entries.
    pub uncommitted_entries_max: usize,
    /// Bytes of entries that are out in [`Effect::Apply`](crate::Effect::Apply) and not yet reported applied; one entry
    /// of any size may always be out. Beyond it, entries wait in the log.
    pub applying_bytes_max: usize,
    /// Bytes of entries in one append. An entry that is larger goes alone.
    pub append_bytes_max: usize,
    /// Appends with entries under way to one follower. Beyond it, the follower gets no more until it answers. etcd's is
    /// 512.
    pub inflight_messages_max: usize,
    /// Bytes of entries under way to one follower: one more append leaves as long as less is under way.
    pub inflight_bytes_max: usize,
    /// Bytes of entries kept, though durable and applied, for slow followers. Beyond it a follower needs a snapshot.
    pub kept_bytes_max: usize,
    /// The same bound as a number of entries; etcd's is 5,000.
    pub kept_entries_max: usize,
    /// Bytes of entries kept while a follower that is heard gets a snapshot: those after the snapshot, which it will need
    /// next. Takes the place of the two bounds above as long as that lasts, so that a follower catches up although much is
    /// written meanwhile; beyond it, it needs another snapshot, for which twice as much is kept, and four times for those after that.
    pub snapshot_kept_bytes_max: usize,
    /// Reads that wait for their index. On a leader further ones are refused; on a follower the oldest one is.
    pub reads_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            uncommitted_bytes_max: 256 << 20,
            uncommitted_entries_max: 65_536,
            applying_bytes_max: 64 << 20,
            append_bytes_max: 512 << 10,
            inflight_messages_max: 512,
            inflight_bytes_max: 32 << 20,
            kept_bytes_max: 64 << 20,
            kept_entries_max: 5_000,
            snapshot_kept_bytes_max: 256 << 20,
            reads_max: 4_096,
        }
    }
}

impl Limits {
    /// Bounds so small that tests and simulations meet every one of them.
    #[must_use]
    pub fn tiny() -> Self {
        Self {
            uncommitted_bytes_max: 8 * 80,
            uncommitted_entries_max: 6,
            applying_bytes_max: 3 * 80,
            append_bytes_max: 2 * 80,
            inflight_messages_max: 2,
            inflight_bytes_max: 3 * 80,
            kept_bytes_max: 5 * 80,
            kept_entries_max: 4,
            snapshot_kept_bytes_max: 8 * 80,
            reads_max: 3,
        }
    }
}

/// A member's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this member is; not zero.
    pub id: NodeId,
    /// A follower that hears no leader for this long, and up to half as long again, campaigns; a leader that hears no
    /// quorum for this long steps down.
    pub election_timeout_ms: u64,
    /// How often a leader reports to its followers; not zero and less than the election timeout.
    pub heartbeat_interval_ms: u64,
    /// Whether a member first asks if it could win before it enters a new term, so that one which was cut off does not
    /// disturb the others when it comes back (thesis, 9.6). etcd's `--pre-vote`, on by default there.
    pub pre_vote: bool,
    /// Whether a leader steps down that hears no quorum for an election timeout, and no vote is given while a leader is
    /// heard. Always on in etcd's server.
    pub check_quorum: bool,
    /// All randomness comes from here. Members must not share it, or their timers may run in step.
    pub seed: u64,
    /// How much may pile up.
    pub limits: Limits,
}

/// What an earlier run left behind, read back and verified by the shell. A member's first run starts from
/// `Restored::default()`, or from a new cluster's first entries (design rule 20).
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The last one that was persisted.
    pub hard_state: HardState,
    /// The configuration as of `applied` (design rule 16: of the same frame, never an older one).
    pub conf: ConfState,
    /// The entry just before the first of `entries`: everything up to it is applied and durable.
    pub offset: Position,
    /// All that the log holds after `offset`, durable.
    pub entries: Vec<Entry>,
    /// The state machine has applied everything up to here, and will not see it again. May lie above
    /// `hard_state.commit`, which is written lazily: what was applied was committed.
    pub applied: Index,
}

/// Why a member cannot start from what it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A setting that makes no sense.
    #[error("invalid raft configuration: {0}")]
    Config(&'static str),
    /// Voters or learners are repeated, out of order, or both at once.
    #[error("invalid membership: {0:?}")]
    Conf(ConfState),
    /// An entry does not follow the one before it.
    #[error("log entry {found} (term {found_term}) cannot follow entry {before} (term {before_term})")]
    Gap {
        /// Index of the entry before.
        before: Index,
        /// Its term.
        before_term: Term,
        /// Index of the entry in question.
        found: Index,
        /// Its term.
        found_term: Term,
    },
    /// More is committed than the log holds: entries were lost.
    #[error("commit index {commit} is beyond the last log entry {last}")]
    CommitBeyondLog {
        /// The commit index that was persisted.
        commit: Index,
        /// The last entry found.
        last: Index,
    },
    /// More is applied than the log holds, or less than was given back.
    #[error("applied index {applied} is outside the log, which reaches from {offset} to {last}")]
    AppliedOutsideLog {
        /// What the state machine has applied.
        applied: Index,
        /// The entry before the first.
        offset: Index,
        /// The last entry found.
        last: Index,
    },
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let fail = |what| Err(Error::Config(what));
        if self.id == NodeId(0) {
            return fail("a member's id is not zero");
        }
        if self.heartbeat_interval_ms == 0 || self.heartbeat_interval_ms >= self.election_timeout_ms {
            return fail("the election timeout must be longer than the heartbeat interval, and neither zero");
        }
        let Limits { inflight_messages_max, inflight_bytes_max, reads_max, .. } = self.limits;
        if inflight_messages_max == 0 || inflight_bytes_max == 0 || reads_max == 0 {
            return fail("neither what is in flight nor the reads may be limited to none");
        }
        Ok(())
    }
}

impl Restored {
    /// Checks what came from disk, which is an error and never a panic when wrong.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn check(&self) -> Result<(), Error> {
        if !self.conf.is_valid() {
            return Err(Error::Conf(self.conf.clone()));
        }
        let (mut before, mut before_term) = self.offset;
        for entry in &self.entries {
            if entry.index != before.next() || entry.term < before_term || entry.index.is_absurd() {
                let (found, found_term) = (entry.index, entry.term);
                return Err(Error::Gap { before, before_term, found, found_term });
            }
            (before, before_term) = (entry.index, entry.term);
        }
        if self.hard_state.commit > before {
            return Err(Error::CommitBeyondLog { commit: self.hard_state.commit, last: before });
        }
        if self.applied < self.offset.0 || self.applied > before {
            let (applied, offset) = (self.applied, self.offset.0);
            return Err(Error::AppliedOutsideLog { applied, offset, last: before });
        }
        Ok(())
    }
}
