//! `raftpb.Message` as bytes, both ways. What a message means is said in `raft::RawMessage`; here are field numbers.

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use raft::{
    Body, ConfState, Entry, EntryKind, Index, MeaninglessMessage, Message, MessageType, NodeId, Position,
    RawMessage, Snapshot, Term,
};
use wire::raftpb;

use super::protobuf::{Fields, Value};
use super::{DecodeError, Output};

/// What an entry costs beside its data, in all limits and bounds: what consensus counts for it as well.
pub(super) const ENTRY_OVERHEAD: u64 = 64;

/// A message that is encoded as far as it can be without knowing by which stream it leaves. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// To whom.
    pub to: NodeId,
    /// What it is.
    pub kind: MessageType,
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Append(Append),
    /// The whole `raftpb.Message`.
    Whole(Bytes),
}

/// `MsgApp`.
#[derive(Clone, Debug)]
pub struct Append {
    to: NodeId,
    from: NodeId,
    pub(super) term: Term,
    pub(super) log_term: Term,
    pub(super) index: Index,
    pub(super) commit: Index,
    pub(super) entries: Entries,
}

/// An append's entries, encoded: before each its length in 8 bytes, as msgapp streams have it.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    pub(super) count: usize,
    /// The last one's.
    pub(super) last: Option<Index>,
    pub(super) framed: Bytes,
}

impl Entries {
    fn encode(entries: &[Entry]) -> Self {
        let size = entries.iter().map(|entry| 8 + 40 + entry.data.len()).sum();
        let mut framed = BytesMut::with_capacity(size);
        for entry in entries {
            let entry = wire_entry(entry);
            framed.put_u64(entry.encoded_len() as u64);
            entry.encode_raw(&mut framed);
        }
        let last = entries.last().map(|entry| entry.index);
        Entries { count: entries.len(), last, framed: framed.freeze() }
    }

    /// The bytes that all followers share.
    pub fn framed(&self) -> &Bytes {
        &self.framed
    }

    /// Each entry's message.
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.framed[..];
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<8>()?;
            let (entry, after) = after.split_at(u64::from_be_bytes(*length) as usize);
            rest = after;
            Some(entry)
        })
    }
}

/// Encodes what consensus sends. Appends of the same entries, which a leader sends to one follower after the other, are
/// encoded once: what an entry holds follows from its index and term, and what is between two of them as well.
#[derive(Debug, Default)]
pub struct Encoder {
    last: Option<(Position, Position, Entries)>,
}

impl Encoder {
    /// The message in bytes.
    pub fn encode(&mut self, message: Message) -> Outgoing {
        let Message { to, from, term, body } = message;
        if let Body::Append { prev: (index, log_term), entries, commit } = body {
            let entries = self.entries(&entries);
            let content = Content::Append(Append { to, from, term, log_term, index, commit, entries });
            return Outgoing { to, kind: MessageType::App, content };
        }
        let raw = RawMessage::from(Message { to, from, term, body });
        let (kind, message) = (raw.kind, wire_message(raw));
        Outgoing { to, kind, content: Content::Whole(message.encode_to_vec().into()) }
    }

    fn entries(&mut self, entries: &[Entry]) -> Entries {
        let position = |entry: &Entry| (entry.index, entry.term);
        let (Some(first), Some(last)) = (entries.first().map(position), entries.last().map(position)) else {
            return Entries::default();
        };
        match &self.last {
            Some((from, to, encoded)) if (*from, *to) == (first, last) => encoded.clone(),
            _ => {
                let encoded = Entries::encode(entries);
                self.last = Some((first, last, encoded.clone()));
                encoded
            }
        }
    }

    /// Forgets the entries encoded last.
    pub fn clear(&mut self) {
        self.last = None;
    }
}

impl Outgoing {
    /// What it costs while it waits, bytes.
    pub fn size(&self) -> usize {
        let bytes = match &self.content {
            Content::Append(append) => append.entries.framed.len(),
            Content::Whole(bytes) => bytes.len(),
        };
        size_of::<Self>() + bytes
    }

    /// The append that it is.
    pub fn as_append(&self) -> Option<&Append> {
        match &self.content {
            Content::Append(append) => Some(append),
            Content::Whole(_) => None,
        }
    }

    /// Length of the `raftpb.Message`, bytes.
    pub(super) fn encoded_len(&self) -> usize {
        match &self.content {
            Content::Append(append) => append.encoded_len(),
            Content::Whole(bytes) => bytes.len(),
        }
    }

    /// Appends the `raftpb.Message`.
    pub(super) fn write(&self, out: &mut Output) {
        match &self.content {
            Content::Append(append) => append.write(out),
            Content::Whole(bytes) => out.push_shared(bytes),
        }
    }

    /// The `raftpb.Message`.
    pub fn to_bytes(&self) -> Bytes {
        match &self.content {
            Content::Whole(bytes) => bytes.clone(),
            Content::Append(append) => {
                let mut out = Output::default();
                append.write(&mut out);
                let mut bytes = Vec::with_capacity(append.encoded_len());
                while let Some(piece) = out.pop() {
                    bytes.extend_from_slice(&piece);
                }
                bytes.into()
            }
        }
    }
}

fn varint_len(value: usize) -> usize {
    prost::encoding::encoded_len_varint(value as u64)
}

impl Append {
    /// The fields before the entries and those after them.
    fn around(&self) -> (raftpb::Message, raftpb::Message) {
        let before = raftpb::Message {
            r#type: Some(MessageType::App as i32),
            to: Some(self.to.0),
            from: Some(self.from.0),
            term: Some(self.term.0),
            log_term: Some(self.log_term.0),
            index: Some(self.index.0),
            ..Default::default()
        };
        (before, raftpb::Message { commit: Some(self.commit.0), ..Default::default() })
    }

    pub(super) fn encoded_len(&self) -> usize {
        let (before, after) = self.around();
        let entries: usize = self.entries.iter().map(|entry| 1 + varint_len(entry.len()) + entry.len()).sum();
        before.encoded_len() + entries + after.encoded_len()
    }

    pub(super) fn write(&self, out: &mut Output) {
        let (before, after) = self.around();
        out.push(&before.encode_to_vec());
        for entry in self.entries.iter() {
            out.byte(7 << 3 | 2);
            out.varint(entry.len() as u64);
            out.push(entry);
        }
        out.push(&after.encode_to_vec());
    }
}

/// As etcd 3.7 has it: of a normal entry's type, empty data, and the term and index of what is not yet in a log, nothing
/// is written.
fn wire_entry(entry: &Entry) -> raftpb::Entry {
    raftpb::Entry {
        term: (entry.term != Term(0)).then_some(entry.term.0),
        index: (entry.index != Index::ZERO).then_some(entry.index.0),
        r#type: (entry.kind != EntryKind::Normal).then_some(entry.kind as i32),
        data: (!entry.data.is_empty()).then(|| entry.data.clone()),
    }
}

/// With the fields that etcd 3.7 sets in each kind of message, zero or not.
fn wire_message(raw: RawMessage) -> raftpb::Message {
    use MessageType as T;
    let kind = raw.kind;
    let has_log_term = matches!(kind, T::App | T::Vote | T::PreVote) || raw.reject && kind == T::AppResp;
    let has_index = matches!(kind, T::App | T::AppResp | T::Vote | T::PreVote | T::ReadIndexResp);
    raftpb::Message {
        r#type: Some(kind as i32),
        to: Some(raw.to.0),
        from: Some(raw.from.0),
        term: (!matches!(kind, T::Prop | T::ReadIndex)).then_some(raw.term.0),
        log_term: has_log_term.then_some(raw.log_term.0),
        index: has_index.then_some(raw.index.0),
        entries: raw.entries.iter().map(wire_entry).collect(),
        commit: matches!(kind, T::App | T::Heartbeat).then_some(raw.commit.0),
        snapshot: raw.snapshot.map(wire_snapshot),
        reject: raw.reject.then_some(true),
        reject_hint: (raw.reject && kind == T::AppResp).then_some(raw.reject_hint.0),
        context: (!raw.context.is_empty()).then_some(raw.context),
        ..Default::default()
    }
}

fn wire_snapshot(snapshot: Snapshot) -> raftpb::Snapshot {
    let ids = |ids: Vec<NodeId>| ids.into_iter().map(|NodeId(id)| id).collect();
    let ConfState { voters, learners } = snapshot.conf;
    let conf_state = raftpb::ConfState {
        voters: ids(voters),
        learners: ids(learners),
        auto_leave: Some(false),
        ..Default::default()
    };
    let metadata = raftpb::SnapshotMetadata {
        conf_state: Some(conf_state),
        index: Some(snapshot.index.0),
        term: Some(snapshot.term.0),
    };
    raftpb::Snapshot { data: Some(snapshot.data), metadata: Some(metadata) }
}

/// What a frame turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The stream lives.
    LinkHeartbeat,
    /// For consensus.
    Message(Message),
    /// To be counted, and nothing else.
    Dropped(Dropped),
}

/// Why a message is dropped although its bytes are right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// Of a later version.
    #[error("unknown message type {0}")]
    Unknown(u64),
    /// See there.
    #[error(transparent)]
    Meaningless(#[from] MeaninglessMessage),
}

/// Reads a `raftpb.Message`. What it holds of `bytes` it shares.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(bytes: &Bytes) -> Result<Decoded, DecodeError> {
    let Some(raw) = raw_message(bytes)? else { return Ok(Decoded::LinkHeartbeat) };
    let raw = match raw {
        Ok(raw) => raw,
        Err(kind) => return Ok(Decoded::Dropped(Dropped::Unknown(kind))),
    };
    Ok(match Message::try_from(raw) {
        Ok(message) => Decoded::Message(message),
        Err(meaningless) => Decoded::Dropped(meaningless.into()),
    })
}

/// The fields; `None` for a link's heartbeat, which is a heartbeat of nobody to nobody; the number of a type that is not
/// known.
fn raw_message(bytes: &Bytes) -> Result<Option<Result<RawMessage, u64>>, DecodeError> {
    let mut raw = RawMessage {
        kind: MessageType::Hup,
        to: NodeId(0),
        from: NodeId(0),
        term: Term(0),
        log_term: Term(0),
        index: Index::ZERO,
        entries: Vec::new(),
        commit: Index::ZERO,
        snapshot: None,
        reject: false,
        reject_hint: Index::ZERO,
        context: Bytes::new(),
    };
    let (mut kind, mut size) = (0, bytes.len() as u64);
    let mut fields = Fields::new(bytes, 0..bytes.len());
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => kind = value.number()?,
            2 => raw.to = NodeId(value.number()?),
            3 => raw.from = NodeId(value.number()?),
            4 => raw.term = Term(value.number()?),
            5 => raw.log_term = Term(value.number()?),
            6 => raw.index = Index(value.number()?),
            7 => {
                size += ENTRY_OVERHEAD;
                if size > super::MESSAGE_BYTES_MAX {
                    return Err(DecodeError::TooLong { length: size, limit: super::MESSAGE_BYTES_MAX });
                }
                raw.entries.push(entry(bytes, value.span()?)?);
            }
            8 => raw.commit = Index(value.number()?),
            9 => raw.snapshot = snapshot(bytes, value.span()?)?,
            10 => raw.reject = value.number()? != 0,
            11 => raw.reject_hint = Index(value.number()?),
            12 => raw.context = bytes.slice(value.span()?),
            _ => {}
        }
    }
    raw.kind = match MessageType::from_number(kind) {
        Some(kind) => kind,
        None => return Ok(Some(Err(kind))),
    };
    let nobody = NodeId(0);
    let is_link = raw.kind == MessageType::Heartbeat && raw.from == nobody && raw.to == nobody;
    Ok((!is_link).then_some(Ok(raw)))
}

/// A `raftpb.Entry` in a part of `bytes`.
pub(super) fn entry(bytes: &Bytes, span: Range<usize>) -> Result<Entry, DecodeError> {
    let mut entry = Entry { term: Term(0), index: Index::ZERO, kind: EntryKind::Normal, data: Bytes::new() };
    let mut fields = Fields::new(bytes, span);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => {
                entry.kind = match value.number()? {
                    0 => EntryKind::Normal,
                    1 => EntryKind::ConfChange,
                    2 => EntryKind::ConfChangeV2,
                    kind => return Err(DecodeError::EntryKind(kind)),
                }
            }
            2 => entry.term = Term(value.number()?),
            3 => entry.index = Index(value.number()?),
            4 => {
                let span = value.span()?;
                // An empty one must not keep the bytes around it.
                entry.data = if span.is_empty() { Bytes::new() } else { bytes.slice(span) };
            }
            _ => {}
        }
    }
    Ok(entry)
}

/// A `raftpb.Snapshot`; one of nothing, which older members set in every message, is none.
fn snapshot(bytes: &Bytes, span: Range<usize>) -> Result<Option<Snapshot>, DecodeError> {
    let mut snapshot =
        Snapshot { index: Index::ZERO, term: Term(0), conf: ConfState::default(), data: Bytes::new() };
    let mut fields = Fields::new(bytes, span);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => snapshot.data = bytes.slice(value.span()?),
            2 => metadata(bytes, value.span()?, &mut snapshot)?,
            _ => {}
        }
    }
    let is_empty =
        snapshot.index == Index::ZERO && snapshot.data.is_empty() && snapshot.conf == ConfState::default();
    Ok((!is_empty).then_some(snapshot))
}

fn metadata(bytes: &Bytes, span: Range<usize>, snapshot: &mut Snapshot) -> Result<(), DecodeError> {
    let mut fields = Fields::new(bytes, span);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => snapshot.conf = conf_state(bytes, value.span()?)?,
            2 => snapshot.index = Index(value.number()?),
            3 => snapshot.term = Term(value.number()?),
            _ => {}
        }
    }
    Ok(())
}

fn conf_state(bytes: &Bytes, span: Range<usize>) -> Result<ConfState, DecodeError> {
    let mut conf = ConfState::default();
    let mut fields = Fields::new(bytes, span);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => ids(bytes, value, &mut conf.voters)?,
            2 => ids(bytes, value, &mut conf.learners)?,
            3 | 4 => return Err(DecodeError::JointConfiguration),
            _ => {}
        }
    }
    // Ascending in etcd too, but by habit and not by contract.
    conf.voters.sort_unstable();
    conf.learners.sort_unstable();
    Ok(conf)
}

/// An id, or several in one field.
fn ids(bytes: &Bytes, value: Value, ids: &mut Vec<NodeId>) -> Result<(), DecodeError> {
    match value {
        Value::Number(id) => ids.push(NodeId(id)),
        Value::Span(span) => {
            let mut packed = Fields::new(bytes, span);
            while !packed.is_done() {
                ids.push(NodeId(packed.varint()?));
            }
        }
    }
    Ok(())
}
