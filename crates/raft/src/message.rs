//! What members say to each other: etcd's messages, with etcd's fields and meaning. `raw_message.rs` has them field by
//! field. What arrives is checked here before anything else looks at it: a peer may be old, slow or broken, and must not
//! be able to stop this member.

use bytes::Bytes;

use crate::{Entry, EntryKind, Index, NodeId, Position, Snapshot, Term};

/// One message, delivered at most once, in any order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it; in [`Body::TransferLeader`], who is to lead.
    pub from: NodeId,
    /// Who is to get it.
    pub to: NodeId,
    /// The sender's term; zero in what is forwarded to the leader ([`Body::Propose`], [`Body::ReadIndex`]), as in etcd.
    /// In [`Body::PreVote`] and in an answer that grants one, the term to come.
    pub term: Term,
    /// What is said.
    pub body: Body,
}

impl Message {
    /// The term and the index by which [`Event::SnapshotReported`](crate::Event::SnapshotReported) names the sending of a
    /// snapshot; none of another message.
    pub fn sent_snapshot(&self) -> Option<(Term, Index)> {
        match &self.body {
            Body::Snapshot { snapshot } => Some((self.term, snapshot.index)),
            _ => None,
        }
    }
}

/// What a message says. The names of etcd's message types are in the documentation of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// `MsgProp`: a follower hands proposals on to the leader. Lost without notice if the receiver does not lead.
    Propose {
        /// The proposals, in order.
        entries: Vec<(EntryKind, Bytes)>,
    },
    /// `MsgApp`: the leader's entries after `prev`.
    Append {
        /// Index (`index`) and term (`logTerm`) of the entry before the first of `entries`.
        prev: Position,
        /// Without gaps; none is fine (a probe, or news of a commit).
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
    },
    /// `MsgAppResp`: everything up to `index` is durable here and equals the leader's; or, with `reject`, `index` is
    /// the `prev` that did not fit. An index of zero at a higher term only tells an old leader of that term.
    AppendResponse {
        /// What is acknowledged or refused.
        index: Index,
        /// Where to try next: the last place (`rejectHint`, `logTerm`) at which the logs may agree. Its term is zero
        /// if unknown.
        reject: Option<Position>,
    },
    /// `MsgVote`: asks for a vote.
    Vote {
        /// The candidate's last entry (`index`, `logTerm`).
        last: Position,
        /// Whether the leader itself has asked the candidate to stand (`context` is `CampaignTransfer`): then even those
        /// vote who hear that leader.
        transfer: bool,
    },
    /// `MsgVoteResp`: the answer, durable if granted.
    VoteResponse {
        /// Whether the vote is refused.
        reject: bool,
    },
    /// `MsgPreVote`: asks whether a vote in the term to come would be granted. Promises nothing, and changes nothing.
    PreVote {
        /// The sender's last entry (`index`, `logTerm`).
        last: Position,
    },
    /// `MsgPreVoteResp`: the answer. Its term is that of the question if granted, else the sender's own.
    PreVoteResponse {
        /// Whether the vote would be refused.
        reject: bool,
    },
    /// `MsgSnap`: instead of entries that the leader gave back. The store's contents travel behind the message, and are
    /// on the receiver's disk before it reads this.
    Snapshot {
        /// What the store stands for, and what consensus goes on from.
        snapshot: Snapshot,
    },
    /// `MsgHeartbeat`: the leader is there.
    Heartbeat {
        /// What is committed, as far as the receiver is known to have it.
        commit: Index,
        /// To be sent back as it is. On the wire 8 bytes, little endian; empty if `None`.
        context: Option<u64>,
    },
    /// `MsgHeartbeatResp`: the receiver knows no later leader.
    HeartbeatResponse {
        /// The heartbeat's own.
        context: Option<u64>,
    },
    /// `MsgReadIndex`: a follower asks from which index on a read is linearizable. On the wire one entry with the
    /// context as its data.
    ReadIndex {
        /// Names the read; never reused (design rule 19). On the wire 8 bytes.
        context: u64,
    },
    /// `MsgReadIndexResp`: the leader's answer.
    ReadIndexResponse {
        /// The read may be served when this index is applied.
        index: Index,
        /// The request's own.
        context: u64,
    },
    /// `MsgTransferLeader`: a follower asks the leader to let `from`, which need not be the one who asks, lead.
    TransferLeader,
    /// `MsgTimeoutNow`: the leader asks the receiver, which has all that it has, to stand for election at once.
    TimeoutNow,
}

impl Body {
    /// Whether only a member of the configuration has reason to send it: the answers to our own messages.
    pub(crate) fn is_response(&self) -> bool {
        matches!(
            self,
            Self::AppendResponse { .. }
                | Self::VoteResponse { .. }
                | Self::PreVoteResponse { .. }
                | Self::HeartbeatResponse { .. }
                | Self::ReadIndexResponse { .. }
        )
    }

    /// Whether it is handed on to the leader whatever the term.
    pub(crate) fn is_forwarded(&self) -> bool {
        matches!(self, Self::Propose { .. } | Self::ReadIndex { .. })
    }

    /// Whether only the leader of the message's term sends it.
    pub(crate) fn is_leaders(&self) -> bool {
        matches!(
            self,
            Self::Append { .. }
                | Self::Heartbeat { .. }
                | Self::Snapshot { .. }
                | Self::ReadIndexResponse { .. }
                | Self::TimeoutNow
        )
    }
}

impl Message {
    /// Whether the message could have been sent by a correct member to `id`, as far as the message alone shows.
    pub(crate) fn is_sane(&self, id: NodeId) -> bool {
        let addressed = self.to == id && self.from != id && self.from != NodeId(0);
        let termed = self.body.is_forwarded() || self.term != Term(0);
        addressed && termed && !self.term.is_absurd() && self.is_body_sane()
    }

    fn is_body_sane(&self) -> bool {
        match &self.body {
            Body::Append { prev, entries, commit } => {
                !commit.is_absurd() && !prev.0.is_absurd() && is_continuation(*prev, entries, self.term)
            }
            Body::AppendResponse { index, reject } => {
                !index.is_absurd() && reject.is_none_or(|(hint, term)| !hint.is_absurd() && !term.is_absurd())
            }
            Body::Vote { last, .. } | Body::PreVote { last } => !last.0.is_absurd() && last.1 < self.term,
            Body::Snapshot { snapshot } => {
                let Snapshot { index, term, conf, .. } = snapshot;
                let placed =
                    *index > Index::ZERO && !index.is_absurd() && *term > Term(0) && *term <= self.term;
                placed && conf.is_valid() && !conf.voters.is_empty()
            }
            Body::Heartbeat { commit, .. } => !commit.is_absurd(),
            Body::ReadIndexResponse { index, .. } => !index.is_absurd(),
            Body::Propose { entries } => !entries.is_empty(),
            Body::VoteResponse { .. }
            | Body::PreVoteResponse { .. }
            | Body::HeartbeatResponse { .. }
            | Body::ReadIndex { .. }
            | Body::TransferLeader
            | Body::TimeoutNow => true,
        }
    }
}

/// Whether `entries` can follow `prev` in the log of a leader of `term`: no gaps, and terms that never step back.
fn is_continuation(prev: Position, entries: &[Entry], term: Term) -> bool {
    let (mut index, mut last_term) = prev;
    for entry in entries {
        if entry.index != index.next() || entry.term < last_term || entry.term == Term(0) {
            return false;
        }
        (index, last_term) = (entry.index, entry.term);
    }
    last_term <= term
}
