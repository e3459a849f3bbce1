//! Responses on their way to one stream, encoded: what the stream's client takes is cut from the front of nothing, the
//! whole buffer leaves at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::encoding::{put_length, put_number, put_varint, varint_len};

/// gRPC's prefix of a message: a flag, and the length.
const PREFIX_BYTES: usize = 5;

/// Field numbers of `WatchResponse`.
const HEADER: u32 = 1;
const WATCH_ID: u32 = 2;
const CREATED: u32 = 3;
const CANCELED: u32 = 4;
const COMPACT_REVISION: u32 = 5;
const CANCEL_REASON: u32 = 6;
const FRAGMENT: u32 = 7;
/// Its events, encoded elsewhere.
pub(super) const EVENTS: u32 = 11;

/// Whose answers these are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answerer {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The member's id.
    pub member_id: u64,
    /// The raft term of this moment.
    pub raft_term: u64,
}

/// A `WatchResponse` but for its events.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Response<'a> {
    pub revision: i64,
    pub watch_id: i64,
    pub created: bool,
    pub canceled: bool,
    pub compact_revision: i64,
    pub cancel_reason: &'a str,
    pub fragment: bool,
}

impl Response<'_> {
    fn header_len(&self, answerer: &Answerer) -> usize {
        number_len(answerer.cluster_id as i64)
            + number_len(answerer.member_id as i64)
            + number_len(self.revision)
            + number_len(answerer.raft_term as i64)
    }

    /// Bytes of the response without events and reason.
    pub(super) fn len(&self, answerer: &Answerer) -> usize {
        let header_len = self.header_len(answerer);
        1 + varint_len(header_len as u64)
            + header_len
            + number_len(self.watch_id)
            + number_len(i64::from(self.created))
            + number_len(i64::from(self.canceled))
            + number_len(self.compact_revision)
            + number_len(i64::from(self.fragment))
    }
}

/// Bytes of a number field with a one-byte tag.
fn number_len(value: i64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value as u64) }
}

/// One stream's state.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Messages with gRPC's prefix, one behind the other.
    pub bytes: Vec<u8>,
    /// Events in them.
    pub events: u64,
    /// The stream's watches by their ids.
    pub ids: BTreeMap<i64, u32>,
    /// Where the search for a free id begins.
    pub next_id: i64,
    /// Watches that were set aside since the stream is full; they go on from history.
    pub parked: BTreeSet<u32>,
    /// Of the stream's watches, those that asked to be told of progress.
    pub progress_watches: usize,
    /// Whether it is among those with something new.
    pub is_noted: bool,
}

impl Outbox {
    /// The next id that is not in use, for a watch that asked for none.
    pub(super) fn free_id(&mut self) -> i64 {
        while self.ids.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Appends a response with encoded events, which are pieces of `buffer`. Returns how many bytes that took.
    pub(super) fn push(
        &mut self,
        answerer: &Answerer,
        response: &Response<'_>,
        pieces: &[Piece],
        buffer: &[u8],
    ) -> usize {
        let out = &mut self.bytes;
        let start = out.len();
        out.reserve(
            PREFIX_BYTES
                + 64
                + response.cancel_reason.len()
                + pieces.iter().map(|piece| piece.len()).sum::<usize>(),
        );
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        put_length(out, HEADER, response.header_len(answerer));
        put_number(out, 1, answerer.cluster_id as i64);
        put_number(out, 2, answerer.member_id as i64);
        put_number(out, 3, response.revision);
        put_number(out, 4, answerer.raft_term as i64);
        put_number(out, WATCH_ID, response.watch_id);
        put_number(out, CREATED, i64::from(response.created));
        put_number(out, CANCELED, i64::from(response.canceled));
        put_number(out, COMPACT_REVISION, response.compact_revision);
        if !response.cancel_reason.is_empty() {
            put_length(out, CANCEL_REASON, response.cancel_reason.len());
            out.extend_from_slice(response.cancel_reason.as_bytes());
        }
        put_number(out, FRAGMENT, i64::from(response.fragment));
        for piece in pieces {
            out.extend_from_slice(&buffer[piece.start..piece.end]);
        }
        self.events += pieces.len() as u64;
        let length = (out.len() - start - PREFIX_BYTES) as u32;
        out[start + 1..start + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        out.len() - start
    }
}

/// An encoded event: a part of a buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Piece {
    pub start: usize,
    pub end: usize,
}

impl Piece {
    pub(super) fn len(self) -> usize {
        self.end - self.start
    }
}

/// Appends an event with its tag, as it stands in a response: `kv`, and the pair before it if there is one.
pub(super) fn put_event(out: &mut Vec<u8>, is_delete: bool, kv: &[u8], previous: Option<&[u8]>) {
    const TYPE: u32 = 1;
    const KV: u32 = 2;
    const PREV_KV: u32 = 3;
    let field = |bytes: &[u8]| 1 + varint_len(bytes.len() as u64) + bytes.len();
    let length = if is_delete { 2 } else { 0 } + field(kv) + previous.map_or(0, field);
    put_length(out, EVENTS, length);
    put_number(out, TYPE, i64::from(is_delete));
    put_varint(out, u64::from(KV) << 3 | 2);
    put_varint(out, kv.len() as u64);
    out.extend_from_slice(kv);
    if let Some(previous) = previous {
        put_length(out, PREV_KV, previous.len());
        out.extend_from_slice(previous);
    }
}
