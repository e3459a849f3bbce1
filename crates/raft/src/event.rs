//! What goes into the state machine and what comes out: with [`Raft::step`](crate::Raft::step), the whole interface.

use bytes::Bytes;

use crate::{ConfState, Entry, EntryKind, HardState, Index, Message, NodeId, PersistSeq, Position, Term};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed: due when [`Raft::deadline`](crate::Raft::deadline) is reached, harmless at any time.
    Tick,
    /// A member sent this. It is checked: what no correct member could have sent is counted and dropped.
    Receive(Message),
    /// Requests for the log, in order, made into one [`Effect::Persist`]. A leader takes as many as fit within
    /// [`Limits`](crate::Limits) and refuses the rest; a follower hands all on to the leader it knows, after which
    /// their fate is unknown here; without a leader all are refused.
    Propose {
        /// The requests.
        entries: Vec<Proposal>,
    },
    /// From which index on is a read linearizable that begins now? Answered once, by [`Effect::ReadReady`] or
    /// [`Effect::ReadRefused`], unless messages are lost: then the caller asks again, with the same context.
    ReadIndex {
        /// Never used before, by any member, in any run (design rule 19).
        context: u64,
    },
    /// What one [`Effect::Persist`] asked for, and all before it, is durable. The fields are those of the effect. One
    /// answer may stand for several effects: it names the last of them.
    Persisted {
        /// The effect's number.
        seq: PersistSeq,
        /// The term in which it was issued. In a later term its entries may have been replaced by others that are
        /// still on their way to the disk, so it counts for nothing then (design rule 1).
        term: Term,
        /// The last entry of the log when it was issued.
        last: Position,
    },
    /// The state machine has applied everything up to `index`: memory may be given back.
    Applied {
        /// At most the last entry of the last [`Effect::Apply`].
        index: Index,
    },
    /// The state machine has applied a change of membership, and this is what holds now. For a change that it
    /// refused, there is nothing to report. Comes before the `Applied` that covers the change.
    ConfApplied {
        /// All members.
        conf: ConfState,
    },
    /// Stand for election now: for tests, and for leadership transfer later. Ignored by a leader, by who may not
    /// vote, and by who has a committed change of membership still to apply (design rule 16).
    Campaign,
}

/// One request for the log.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Names the request in a refusal; never looked at here.
    pub token: u64,
    /// What the payload is.
    pub kind: EntryKind,
    /// The payload.
    pub data: Bytes,
}

/// Something to be done by the shell, in the order given, except where the variant says that it may overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write `entries`, then `hard_state`, sync, and answer with [`Event::Persisted`]. In order of `seq`; several may
    /// be written together and synced once. An entry replaces the one of the same index and all after it. May overlap
    /// any `Apply`, and any `Send` that does not wait for it.
    ///
    /// A commit index alone causes no write: it goes along with the next entries, term or vote, and on an idle log not
    /// at all. Who needs it on disk (to give back log segments, design rule 3) writes
    /// [`Raft::hard_state`](crate::Raft::hard_state) behind the last `Persist`, unasked. It needs no answer; one that
    /// repeats the number of that `Persist` says nothing new.
    Persist {
        /// Names the effect in the answer and in [`Effect::Send`]; one more than the last.
        seq: PersistSeq,
        /// For the answer: the term in which this is issued.
        term: Term,
        /// For the answer: the last entry of the log now, whether or not it is among `entries`.
        last: Position,
        /// The state, if it changed. Its commit index is never beyond the entries handed out so far.
        hard_state: Option<HardState>,
        /// Without gaps.
        entries: Vec<Entry>,
    },
    /// Deliver at most once.
    Send {
        /// To whom, and what.
        message: Message,
        /// What must be durable here first: it says so to the receiver, or lets it conclude so. `None`: at once; of a
        /// leader's appends and heartbeats this is always true.
        after: Option<PersistSeq>,
    },
    /// Committed: apply in order. Each entry comes exactly once a run. Need not be on this member's disk: a quorum has
    /// it (so design rule 2 waits for the WAL before it writes the revision log).
    Apply {
        /// Without gaps, also between two effects.
        entries: Vec<Entry>,
    },
    /// A read may be served as soon as everything up to `index` is applied here.
    ReadReady {
        /// The event's own.
        context: u64,
        /// From here on the read is linearizable.
        index: Index,
    },
    /// A read gets no index.
    ReadRefused {
        /// The event's own.
        context: u64,
        /// Why.
        reason: ReadRefusal,
    },
    /// A request was not put into the log, and never will be.
    ProposalRefused {
        /// The proposal's own.
        token: u64,
        /// Why.
        reason: Refusal,
    },
    /// Term, leader or role changed. Comes before everything else of its step.
    Leadership {
        /// The term.
        term: Term,
        /// Who leads in it, as far as known.
        leader: Option<NodeId>,
        /// What this member does.
        role: Role,
    },
}

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// Why a proposal was refused. Nothing was changed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody is known to lead.
    NoLeader,
    /// As much as [`Limits`](crate::Limits) allows is waiting for the disk, the quorum or the state machine.
    TooMany,
    /// Another change of membership is under way, or this leader has not yet committed in its term. The change's
    /// place in the log is taken by an empty entry, as in etcd (design rule 16).
    ConfChangePending,
}

/// Why a read gets no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRefusal {
    /// Nobody is known to lead.
    NoLeader,
    /// The leader that was to answer is not the leader any more, or not known to be.
    LeaderLost,
    /// As many reads wait as [`Limits::reads_max`](crate::Limits::reads_max) allows.
    TooMany,
}
