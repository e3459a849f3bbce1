//! Records as bytes, appended to a buffer; nothing is allocated for a record.

use super::frame::{RecordKind, frame_bytes, length_field};
use super::{ConfState, EntryKind, EntryRef, HardState, SnapshotRecord};

/// Longest message without its payload: an entry's four fields, a hard state's three.
pub(super) const HEAD_BYTES_MAX: usize = 4 * 11;

/// A message's bytes up to its payload, on the stack: the sum is taken before anything is written.
pub(super) struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    len: usize,
}

impl Head {
    fn new() -> Self {
        Head { bytes: [0; HEAD_BYTES_MAX], len: 0 }
    }

    fn field(&mut self, tag: u8, value: u64) {
        self.bytes[self.len] = tag;
        self.len += 1 + write_varint(&mut self.bytes[self.len + 1..], value);
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// `raftpb.Entry` up to its data. As etcd 3.7 does, a normal entry's type and empty data are left out.
    pub(super) fn entry(entry: &EntryRef<'_>) -> Self {
        let mut head = Head::new();
        match entry.kind {
            EntryKind::Normal => {}
            EntryKind::ConfChange => head.field(0x08, 1),
            EntryKind::ConfChangeV2 => head.field(0x08, 2),
        }
        head.field(0x10, entry.term);
        head.field(0x18, entry.index);
        if !entry.data.is_empty() {
            head.field(0x22, entry.data.len() as u64);
        }
        head
    }

    /// `raftpb.HardState`; all fields are written, zero or not.
    pub(super) fn state(state: &HardState) -> Self {
        let mut head = Head::new();
        head.field(0x08, state.term);
        head.field(0x10, state.vote);
        head.field(0x18, state.commit);
        head
    }
}

/// `walpb.Snapshot`.
pub(super) fn snapshot(snapshot: &SnapshotRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_field(&mut bytes, 0x08, snapshot.index);
    push_field(&mut bytes, 0x10, snapshot.term);
    if let Some(conf_state) = &snapshot.conf_state {
        let inner = conf_state_bytes(conf_state);
        push_field(&mut bytes, 0x1a, inner.len() as u64);
        bytes.extend_from_slice(&inner);
    }
    bytes
}

/// As etcd writes it: the flag always, lists one field an element.
pub(crate) fn conf_state_bytes(conf_state: &ConfState) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = conf_state;
    for (tag, ids) in [(0x08, voters), (0x10, learners), (0x18, voters_outgoing), (0x20, learners_next)] {
        for &id in ids {
            push_field(&mut bytes, tag, id);
        }
    }
    push_field(&mut bytes, 0x28, u64::from(*auto_leave));
    bytes
}

pub(crate) fn push_field(bytes: &mut Vec<u8>, tag: u8, value: u64) {
    bytes.push(tag);
    push_varint(bytes, value);
}

/// How long the frame of a record with `data_bytes` of data is at most, bytes.
pub(super) fn frame_bytes_max(data_bytes: usize) -> u64 {
    let data_bytes = data_bytes as u64;
    frame_bytes(2 + 1 + 5 + 1 + varint_len(data_bytes) as u64 + data_bytes)
}

/// The size of an entry's message, bytes.
pub(super) fn message_bytes(head: &Head, payload: &[u8]) -> usize {
    head.len + payload.len()
}

/// Appends the frame of a record whose data is `head` and then `payload`, and answers the new running sum.
pub(super) fn push_record(buf: &mut Vec<u8>, kind: RecordKind, sum: u32, head: &Head, payload: &[u8]) -> u32 {
    push_parts(buf, kind, sum, head.as_slice(), payload)
}

/// Appends the frame of a record with this data; a record of the sum has none.
pub(super) fn push_plain(buf: &mut Vec<u8>, kind: RecordKind, sum: u32, data: &[u8]) -> u32 {
    push_parts(buf, kind, sum, &[], data)
}

fn push_parts(buf: &mut Vec<u8>, kind: RecordKind, sum: u32, head: &[u8], payload: &[u8]) -> u32 {
    let sum = crc32c::crc32c_append(crc32c::crc32c_append(sum, head), payload);
    let start = buf.len();
    buf.extend_from_slice(&[0; 8]);
    buf.extend_from_slice(&[0x08, kind as u8, 0x10]);
    push_varint(buf, u64::from(sum));
    if kind != RecordKind::Crc {
        buf.push(0x1a);
        push_varint(buf, (head.len() + payload.len()) as u64);
        buf.extend_from_slice(head);
        buf.extend_from_slice(payload);
    }
    let record_bytes = (buf.len() - start - 8) as u64;
    buf.resize(start + frame_bytes(record_bytes) as usize, 0);
    buf[start..start + 8].copy_from_slice(&length_field(record_bytes).to_le_bytes());
    sum
}

/// How many bytes a base-128 number takes.
pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn push_varint(buf: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; 10];
    let len = write_varint(&mut bytes, value);
    buf.extend_from_slice(&bytes[..len]);
}

fn write_varint(out: &mut [u8], mut value: u64) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}
