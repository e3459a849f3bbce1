//! The `msgapp` stream: etcd's msgappv2. Both ends remember the term and the index that the last frame led to. An append
//! whose term is the term of the entry before it, and which continues just there, is sent as its entries and the commit
//! index; any other as a whole message.

use std::ops::Range;

use bytes::{Buf as _, Bytes};
use raft::{Body, Index, Message, NodeId, Term};

use super::gather::{Gather, Number};
use super::message::{Append, Decoded, ENTRY_OVERHEAD, decode, entry};
use super::{DecodeError, MESSAGE_BYTES_MAX, Output};

const LINK_HEARTBEAT: u8 = 0;
const APP_ENTRIES: u8 = 1;
const APP: u8 = 2;

/// The writing end.
#[derive(Debug, Default)]
pub struct AppendEncoder {
    term: Term,
    index: Index,
}

impl AppendEncoder {
    /// Appends the frame that says only that the stream lives.
    pub fn heartbeat(&self, out: &mut Output) {
        out.byte(LINK_HEARTBEAT);
    }

    /// Appends an append's frame.
    pub fn encode(&mut self, append: &Append, out: &mut Output) {
        let Append { term, log_term, index, commit, ref entries, .. } = *append;
        if self.index == index && self.term == log_term && log_term == term {
            out.byte(APP_ENTRIES);
            out.number(entries.count as u64);
            out.push_shared(&entries.framed);
            out.number(commit.0);
            self.index = Index(index.0.wrapping_add(entries.count as u64));
        } else {
            out.byte(APP);
            out.number(append.encoded_len() as u64);
            append.write(out);
            self.term = term;
            self.index = entries.last.unwrap_or(index);
        }
    }
}

/// The reading end.
#[derive(Debug)]
pub struct AppendDecoder {
    local: NodeId,
    remote: NodeId,
    limit: u64,
    term: Term,
    index: Index,
    part: Part,
    number: Number,
    gather: Gather,
    /// Where each entry of this frame is in `gather`.
    spans: Vec<Range<usize>>,
    /// Entries of this frame that are still to come.
    left: u64,
    /// What this frame costs so far.
    size: u64,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Part {
    Kind,
    Count,
    EntryLength,
    Entry,
    Commit,
    MessageLength,
    Message,
}

impl AppendDecoder {
    /// For a stream from its beginning, of what `remote` sends to `local`.
    pub fn new(local: NodeId, remote: NodeId) -> Self {
        Self::with_limit(local, remote, MESSAGE_BYTES_MAX)
    }

    /// With another bound for a frame.
    pub fn with_limit(local: NodeId, remote: NodeId, limit: u64) -> Self {
        AppendDecoder {
            local,
            remote,
            limit,
            term: Term(0),
            index: Index::ZERO,
            part: Part::Kind,
            number: Number::default(),
            gather: Gather::default(),
            spans: Vec::new(),
            left: 0,
            size: 0,
        }
    }

    /// Takes bytes away from `input` until a frame is complete; `None` once all are taken.
    ///
    /// # Errors
    /// See [`DecodeError`]. The stream cannot be read further.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Decoded>, DecodeError> {
        loop {
            match self.part {
                Part::Kind => {
                    if !input.has_remaining() {
                        return Ok(None);
                    }
                    match input.get_u8() {
                        LINK_HEARTBEAT => return Ok(Some(Decoded::LinkHeartbeat)),
                        APP_ENTRIES => self.part = Part::Count,
                        APP => self.part = Part::MessageLength,
                        kind => return Err(DecodeError::UnknownFrame(kind)),
                    }
                    self.size = 0;
                }
                Part::Count => {
                    let Some(count) = self.number.take(input) else { return Ok(None) };
                    self.cost(count.saturating_mul(ENTRY_OVERHEAD))?;
                    self.left = count;
                    self.part = if count > 0 { Part::EntryLength } else { Part::Commit };
                }
                Part::EntryLength => {
                    let Some(length) = self.number.take(input) else { return Ok(None) };
                    self.cost(length)?;
                    self.gather.expect(length as usize);
                    let start = self.gather.len();
                    self.spans.push(start..start + length as usize);
                    self.part = Part::Entry;
                }
                Part::Entry => {
                    if !self.gather.fill(input) {
                        return Ok(None);
                    }
                    self.left -= 1;
                    self.part = if self.left > 0 { Part::EntryLength } else { Part::Commit };
                }
                Part::Commit => {
                    let Some(commit) = self.number.take(input) else { return Ok(None) };
                    self.part = Part::Kind;
                    return self.append(Index(commit)).map(|message| Some(Decoded::Message(message)));
                }
                Part::MessageLength => {
                    let Some(length) = self.number.take(input) else { return Ok(None) };
                    self.cost(length)?;
                    self.gather.expect(length as usize);
                    self.part = Part::Message;
                }
                Part::Message => {
                    if !self.gather.fill(input) {
                        return Ok(None);
                    }
                    self.part = Part::Kind;
                    return self.message().map(Some);
                }
            }
        }
    }

    fn cost(&mut self, bytes: u64) -> Result<(), DecodeError> {
        let length = self.size.saturating_add(bytes);
        if length > self.limit {
            return Err(DecodeError::TooLong { length, limit: self.limit });
        }
        self.size = length;
        Ok(())
    }

    fn append(&mut self, commit: Index) -> Result<Message, DecodeError> {
        let prev = (self.index, self.term);
        let bytes = self.gather.take();
        let entries =
            self.spans.drain(..).map(|span| entry(&bytes, span)).collect::<Result<Vec<_>, DecodeError>>()?;
        self.index = follow(self.index, entries.len())?;
        let body = Body::Append { prev, entries, commit };
        Ok(Message { from: self.remote, to: self.local, term: self.term, body })
    }

    fn message(&mut self) -> Result<Decoded, DecodeError> {
        let decoded = decode(&self.gather.take())?;
        let (term, index) = match &decoded {
            Decoded::Message(Message { term, body: Body::Append { prev, entries, .. }, .. }) => {
                (*term, entries.last().map_or(prev.0, |last| last.index))
            }
            Decoded::LinkHeartbeat => return Ok(decoded),
            // The frames after it could not be placed.
            _ => return Err(DecodeError::Malformed("no append in a stream of them")),
        };
        (self.term, self.index) = (term, index);
        Ok(decoded)
    }

    /// Whether the stream may end here.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.part, Part::Kind)
    }
}

/// The index `count` entries on; a sender may claim any.
fn follow(index: Index, count: usize) -> Result<Index, DecodeError> {
    let absurd = DecodeError::Malformed("an index beyond all numbers");
    index.0.checked_add(count as u64).map(Index).ok_or(absurd)
}
