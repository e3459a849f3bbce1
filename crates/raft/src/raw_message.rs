//! etcd's `raftpb.Message`, field by field, and its meaning both ways. A codec has only to put the fields into bytes and
//! back. What a field means in which type is here and nowhere else; what is not meaningful in a type is zero or empty when
//! we send it, and not looked at when we get it.

use bytes::Bytes;

use crate::{Body, Entry, EntryKind, Index, Message, NodeId, Snapshot, Term};

/// `raftpb.MessageType`, with etcd's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageType {
    /// Local: stand for election.
    Hup = 0,
    /// Local: send heartbeats.
    Beat = 1,
    /// Proposals, from a follower to its leader.
    Prop = 2,
    /// Entries.
    App = 3,
    /// The answer to entries or to a snapshot.
    AppResp = 4,
    /// A request for a vote.
    Vote = 5,
    /// The answer.
    VoteResp = 6,
    /// A snapshot.
    Snap = 7,
    /// A leader's heartbeat.
    Heartbeat = 8,
    /// The answer.
    HeartbeatResp = 9,
    /// Local: a message could not be sent.
    Unreachable = 10,
    /// Local: how the sending of a snapshot ended.
    SnapStatus = 11,
    /// Local: is there a quorum?
    CheckQuorum = 12,
    /// A follower asks that another member lead.
    TransferLeader = 13,
    /// The leader asks its successor to stand.
    TimeoutNow = 14,
    /// A follower asks for a read index.
    ReadIndex = 15,
    /// The answer.
    ReadIndexResp = 16,
    /// A question before a request for a vote.
    PreVote = 17,
    /// The answer.
    PreVoteResp = 18,
    /// Local: to the storage thread.
    StorageAppend = 19,
    /// Local: from the storage thread.
    StorageAppendResp = 20,
    /// Local: to the apply thread.
    StorageApply = 21,
    /// Local: from the apply thread.
    StorageApplyResp = 22,
    /// A follower is to forget its leader. etcd's server never sends it.
    ForgetLeader = 23,
}

impl MessageType {
    /// All of them, by number.
    pub const ALL: [Self; 24] = [
        Self::Hup,
        Self::Beat,
        Self::Prop,
        Self::App,
        Self::AppResp,
        Self::Vote,
        Self::VoteResp,
        Self::Snap,
        Self::Heartbeat,
        Self::HeartbeatResp,
        Self::Unreachable,
        Self::SnapStatus,
        Self::CheckQuorum,
        Self::TransferLeader,
        Self::TimeoutNow,
        Self::ReadIndex,
        Self::ReadIndexResp,
        Self::PreVote,
        Self::PreVoteResp,
        Self::StorageAppend,
        Self::StorageAppendResp,
        Self::StorageApply,
        Self::StorageApplyResp,
        Self::ForgetLeader,
    ];

    /// The type of this number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Whether a member only ever says it to itself, so that it is dropped when it comes from another. Our own members
    /// never make one; [`crate::Event`] has what they stand for.
    #[must_use]
    pub fn is_local(self) -> bool {
        matches!(
            self,
            Self::Hup
                | Self::Beat
                | Self::Unreachable
                | Self::SnapStatus
                | Self::CheckQuorum
                | Self::StorageAppend
                | Self::StorageAppendResp
                | Self::StorageApply
                | Self::StorageApplyResp
        )
    }
}

/// The fields of `raftpb.Message`, but `vote` and `responses`, which only local types use. A field that is not set on the
/// wire is as good as zero or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMessage {
    /// `type`.
    pub kind: MessageType,
    /// `to`.
    pub to: NodeId,
    /// `from`.
    pub from: NodeId,
    /// `term`.
    pub term: Term,
    /// `logTerm`.
    pub log_term: Term,
    /// `index`.
    pub index: Index,
    /// `entries`.
    pub entries: Vec<Entry>,
    /// `commit`.
    pub commit: Index,
    /// `snapshot`. An empty one, which older members set in any message, is `None`.
    pub snapshot: Option<Snapshot>,
    /// `reject`.
    pub reject: bool,
    /// `rejectHint`.
    pub reject_hint: Index,
    /// `context`.
    pub context: Bytes,
}

/// Why a message means nothing. Whoever gets one drops it, and counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeaninglessMessage {
    /// What a member says only to itself.
    #[error("{0:?} is a local message")]
    Local(MessageType),
    /// Not handled: `MsgForgetLeader`, which etcd's server never sends.
    #[error("{0:?} is not taken from other members")]
    Unsupported(MessageType),
    /// A context is 8 bytes (design rule 19).
    #[error("{kind:?} has a context of {length} bytes, not 8")]
    Context {
        /// The message.
        kind: MessageType,
        /// How long the context is.
        length: usize,
    },
    /// A request for a read index, or its answer, names one read.
    #[error("{kind:?} has {count} entries, not 1")]
    Entries {
        /// The message.
        kind: MessageType,
        /// How many there are.
        count: usize,
    },
    /// `MsgSnap` without a snapshot.
    #[error("a snapshot is missing")]
    NoSnapshot,
}

/// What `context` of a request for a vote says if the leader has asked the candidate to stand.
const TRANSFER: &[u8] = b"CampaignTransfer";

impl RawMessage {
    fn new(kind: MessageType, message: &Message) -> Self {
        let Message { from, to, term, .. } = *message;
        let (index, commit, reject_hint) = (Index::ZERO, Index::ZERO, Index::ZERO);
        Self {
            kind,
            to,
            from,
            term,
            log_term: Term(0),
            index,
            entries: Vec::new(),
            commit,
            snapshot: None,
            reject: false,
            reject_hint,
            context: Bytes::new(),
        }
    }

    /// A read's context as the data of an entry, in the byte order of etcd's server.
    fn read(kind: MessageType, message: &Message, context: u64) -> Self {
        let data = Bytes::copy_from_slice(&context.to_be_bytes());
        let entry = Entry { term: Term(0), index: Index::ZERO, kind: EntryKind::Normal, data };
        Self { entries: vec![entry], ..Self::new(kind, message) }
    }

    fn read_context(&self) -> Result<u64, MeaninglessMessage> {
        let (kind, count) = (self.kind, self.entries.len());
        let [entry] = &self.entries[..] else { return Err(MeaninglessMessage::Entries { kind, count }) };
        let length = entry.data.len();
        let bytes = entry.data[..].try_into().map_err(|_| MeaninglessMessage::Context { kind, length })?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn heartbeat_context(&self) -> Result<Option<u64>, MeaninglessMessage> {
        let (kind, length) = (self.kind, self.context.len());
        if length == 0 {
            return Ok(None);
        }
        let bytes = self.context[..].try_into().map_err(|_| MeaninglessMessage::Context { kind, length })?;
        Ok(Some(u64::from_le_bytes(bytes)))
    }
}

fn round(context: Option<u64>) -> Bytes {
    context.map_or_else(Bytes::new, |number| Bytes::copy_from_slice(&number.to_le_bytes()))
}

impl From<Message> for RawMessage {
    fn from(mut message: Message) -> Self {
        let body = std::mem::replace(&mut message.body, Body::TimeoutNow);
        let raw = |kind| Self::new(kind, &message);
        match body {
            Body::Propose { entries } => {
                let (term, index) = (Term(0), Index::ZERO);
                let entries =
                    entries.into_iter().map(|(kind, data)| Entry { term, index, kind, data }).collect();
                Self { entries, ..raw(MessageType::Prop) }
            }
            Body::Append { prev: (index, log_term), entries, commit } => {
                Self { index, log_term, entries, commit, ..raw(MessageType::App) }
            }
            Body::AppendResponse { index, reject: None } => Self { index, ..raw(MessageType::AppResp) },
            Body::AppendResponse { index, reject: Some((reject_hint, log_term)) } => {
                Self { index, reject: true, reject_hint, log_term, ..raw(MessageType::AppResp) }
            }
            Body::Vote { last: (index, log_term), transfer } => {
                let context = Bytes::from_static(if transfer { TRANSFER } else { b"" });
                Self { index, log_term, context, ..raw(MessageType::Vote) }
            }
            Body::VoteResponse { reject } => Self { reject, ..raw(MessageType::VoteResp) },
            Body::PreVote { last: (index, log_term) } => {
                Self { index, log_term, ..raw(MessageType::PreVote) }
            }
            Body::PreVoteResponse { reject } => Self { reject, ..raw(MessageType::PreVoteResp) },
            Body::Snapshot { snapshot } => Self { snapshot: Some(snapshot), ..raw(MessageType::Snap) },
            Body::Heartbeat { commit, context } => {
                Self { commit, context: round(context), ..raw(MessageType::Heartbeat) }
            }
            Body::HeartbeatResponse { context } => {
                Self { context: round(context), ..raw(MessageType::HeartbeatResp) }
            }
            Body::ReadIndex { context } => Self::read(MessageType::ReadIndex, &message, context),
            Body::ReadIndexResponse { index, context } => {
                Self { index, ..Self::read(MessageType::ReadIndexResp, &message, context) }
            }
            Body::TransferLeader => raw(MessageType::TransferLeader),
            Body::TimeoutNow => raw(MessageType::TimeoutNow),
        }
    }
}

impl TryFrom<RawMessage> for Message {
    type Error = MeaninglessMessage;

    /// What the message says. Whether a correct member could have said it is found out by [`crate::Raft::step`].
    fn try_from(raw: RawMessage) -> Result<Self, MeaninglessMessage> {
        let RawMessage { kind, to, from, term, .. } = raw;
        let place = (raw.index, raw.log_term);
        let body = match kind {
            MessageType::Prop => {
                let entries = raw.entries.into_iter().map(|entry| (entry.kind, entry.data)).collect();
                Body::Propose { entries }
            }
            MessageType::App => Body::Append { prev: place, entries: raw.entries, commit: raw.commit },
            MessageType::AppResp => {
                let reject = raw.reject.then_some((raw.reject_hint, raw.log_term));
                Body::AppendResponse { index: raw.index, reject }
            }
            MessageType::Vote => Body::Vote { last: place, transfer: raw.context == TRANSFER },
            MessageType::VoteResp => Body::VoteResponse { reject: raw.reject },
            MessageType::PreVote => Body::PreVote { last: place },
            MessageType::PreVoteResp => Body::PreVoteResponse { reject: raw.reject },
            MessageType::Snap => {
                Body::Snapshot { snapshot: raw.snapshot.ok_or(MeaninglessMessage::NoSnapshot)? }
            }
            MessageType::Heartbeat => {
                Body::Heartbeat { commit: raw.commit, context: raw.heartbeat_context()? }
            }
            MessageType::HeartbeatResp => Body::HeartbeatResponse { context: raw.heartbeat_context()? },
            MessageType::ReadIndex => Body::ReadIndex { context: raw.read_context()? },
            MessageType::ReadIndexResp => {
                Body::ReadIndexResponse { index: raw.index, context: raw.read_context()? }
            }
            MessageType::TransferLeader => Body::TransferLeader,
            MessageType::TimeoutNow => Body::TimeoutNow,
            MessageType::ForgetLeader => return Err(MeaninglessMessage::Unsupported(kind)),
            _ => return Err(MeaninglessMessage::Local(kind)),
        };
        Ok(Self { from, to, term, body })
    }
}
