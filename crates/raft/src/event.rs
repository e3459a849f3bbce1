//! What goes into the state machine and what comes out: with [`Raft::step`](crate::Raft::step), the whole interface.

use bytes::Bytes;

use crate::{
    ConfState, Entry, EntryKind, HardState, Index, Message, NodeId, PersistSeq, Position, Snapshot, Term,
};

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
    /// What one [`Effect::Persist`] or [`Effect::Restore`] asked for, and all before it, is durable. The fields are those
    /// of the effect. One answer may stand for several effects: it names the last of them.
    Persisted {
        /// The effect's number.
        seq: PersistSeq,
        /// The term in which it was issued. In a later term its entries may have been replaced by others that are
        /// still on their way to the disk, so it counts for nothing then (design rule 1).
        term: Term,
        /// The last entry of the log when it was issued.
        last: Position,
    },
    /// The state machine has applied everything up to `index`: memory may be given back. After an [`Effect::Restore`],
    /// that it has gone over to the snapshot.
    Applied {
        /// At most the last entry of the last [`Effect::Apply`], or the entry of the last [`Effect::Restore`].
        index: Index,
    },
    /// The state machine has applied a change of membership, and this is what holds now. For a change that it
    /// refused, there is nothing to report. Comes before the `Applied` that covers the change. Between an
    /// [`Effect::Restore`] and the `Applied` that answers it, it is of a time before the snapshot, and ignored.
    ConfApplied {
        /// All members.
        conf: ConfState,
    },
    /// Stand for election now. Ignored by a leader, by who may not vote, by who has a committed change of membership
    /// still to apply (design rule 16), and until a snapshot is taken over.
    Campaign,
    /// The connections to the others are there: of the time after which this member campaigns, an election timeout but for
    /// two heartbeats counts as over, so that a cluster that starts has a leader sooner (etcd: server.go, `adjustTicks`).
    /// Ignored by who has heard of a leader.
    Hurry,
    /// Let `to` lead: etcd's `MsgTransferLeader`. The leader refuses proposals until `to` leads or an election timeout has
    /// passed, sends it what it lacks, and then asks it to stand. A follower hands the request on to the leader.
    /// Whoever is no voter is not made leader; to name the leader itself ends a transfer that is under way.
    TransferLeader {
        /// Who is to lead.
        to: NodeId,
    },
    /// A message to this member could not be sent: etcd's `MsgUnreachable`. What is under way to it counts as lost.
    Unreachable {
        /// Whom the message was for.
        id: NodeId,
    },
    /// The answer to [`Effect::SnapshotWanted`]: this can be sent, and is pinned until [`Event::SnapshotReported`]. If no
    /// [`Body::Snapshot`](crate::Body::Snapshot) to `to` is among the effects of this very step, it is not wanted any
    /// more.
    SnapshotReady {
        /// Who is to get it.
        to: NodeId,
        /// Of an index that is applied here, with the members as of it.
        snapshot: Snapshot,
    },
    /// How the sending of a snapshot ended, or of the attempt to make one: etcd's `MsgSnapStatus`. Each
    /// [`Effect::SnapshotWanted`] is answered so in the end, or the follower gets nothing any more.
    SnapshotReported {
        /// Who was to get it.
        to: NodeId,
        /// Which sending that was, as [`Message::sent_snapshot`] names it: one that came to its end after the follower got
        /// on by itself, or in an earlier term, says nothing of the next. `None`: none could be made.
        sent: Option<(Term, Index)>,
        /// Whether the follower has received all of it. If not, it is tried again after the next heartbeat.
        ok: bool,
    },
    /// Follow nobody until the leader is heard again: etcd's `MsgForgetLeader`, for a shell that knows better than the
    /// timers that the leader is gone. Ignored by a leader.
    ForgetLeader,
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
    /// A commit index alone causes no write, unless it commits a change of membership: it goes along with the next
    /// entries, term or vote, and on an idle log not at all. Who needs it on disk (to give back log segments, design
    /// rule 3) writes [`Raft::hard_state`](crate::Raft::hard_state) behind the last `Persist`, unasked. It needs no
    /// answer; one that repeats the number of that `Persist` says nothing new.
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
    /// A leader has sent a snapshot, which stands for the whole log up to its entry: what was written or handed out of
    /// the log before is void, and the log goes on behind it. Takes its place in the order of [`Effect::Persist`], and is
    /// answered like it; `last` is the snapshot's own position. On disk are, in this order, the store's contents,
    /// `hard_state` and the snapshot (design rule 17). Then the state machine goes over to it, answered with
    /// [`Event::Applied`]; before that answer nothing more is handed out to apply. What was handed out before may still be
    /// applied and reported, or left out.
    Restore {
        /// Names the effect, as in [`Effect::Persist`].
        seq: PersistSeq,
        /// For the answer: the term in which this is issued.
        term: Term,
        /// The state, whose commit index is the snapshot's index.
        hard_state: HardState,
        /// What the log and the state machine go on from.
        snapshot: Snapshot,
    },
    /// Deliver at most once.
    Send {
        /// To whom, and what.
        message: Message,
        /// What must be durable here first: it says so to the receiver, or lets it conclude so. `None`: at once; of a
        /// leader's appends and heartbeats this is always true.
        after: Option<PersistSeq>,
    },
    /// Committed: apply in order. Each entry comes at most once a run. Need not be on this member's disk: a quorum has
    /// it (so design rule 2 waits for the WAL before it writes the revision log).
    Apply {
        /// Without gaps, also between two effects, except that a [`Effect::Restore`] may stand for some.
        entries: Vec<Entry>,
    },
    /// This follower lacks entries that are not kept any more. Make a snapshot of what is applied by now, and answer with
    /// [`Event::SnapshotReady`], or with [`Event::SnapshotReported`] if that cannot be.
    SnapshotWanted {
        /// Who is to get it.
        to: NodeId,
    },
    /// Requests that another member handed on were not put into the log: to be counted and logged. Nobody else hears of
    /// it, as in etcd.
    ForwardRefused {
        /// Who handed them on.
        from: NodeId,
        /// How many.
        count: usize,
        /// Why the first of them was refused.
        reason: Refusal,
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
    /// Asks whether it could win an election, in the old term still.
    PreCandidate,
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
    /// This member does not lead, so it takes nothing that others hand on; only in [`Effect::ForwardRefused`].
    NotLeader,
    /// Leadership is being handed over. etcd's `ErrProposalDropped`.
    LeaderTransfer,
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
