//! Frames: the length field, and the record behind it read by its own fields.
//!
//! The sum covers a record's data only, so the rest is held to the one way in which etcd and we write it: the
//! fields in order and at most once, the padding as short as can be and zero.

use super::window::{Window, varint};
use crate::wal::encode::varint_len;

/// Size of a frame's length field, bytes; records are padded to a multiple of it.
pub(super) const LENGTH_BYTES: u64 = 8;

/// What a disk writes whole or not at all, bytes.
pub(super) const SECTOR_BYTES: u64 = 512;

/// The types of `walpb.Record`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Snapshot = 5,
}

impl RecordKind {
    pub(super) fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => RecordKind::Metadata,
            2 => RecordKind::Entry,
            3 => RecordKind::State,
            4 => RecordKind::Crc,
            5 => RecordKind::Snapshot,
            _ => return None,
        })
    }
}

/// The length field of a record of `record_bytes`.
pub(super) fn length_field(record_bytes: u64) -> u64 {
    match padding(record_bytes) {
        0 => record_bytes,
        pad => record_bytes | (0x80 | pad) << 56,
    }
}

/// The whole frame's size, bytes.
pub(super) fn frame_bytes(record_bytes: u64) -> u64 {
    LENGTH_BYTES + record_bytes + padding(record_bytes)
}

/// How many bytes a length field claims for the frame; it may be nonsense.
pub(super) fn claimed_frame_bytes(field: u64) -> u64 {
    let pad = if field >> 63 == 1 { field >> 56 & 7 } else { 0 };
    LENGTH_BYTES + (field & 0x00ff_ffff_ffff_ffff) + pad
}

fn padding(record_bytes: u64) -> u64 {
    record_bytes.wrapping_neg() % LENGTH_BYTES
}

/// A record's envelope, as its own fields say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    /// The type's number, known or not.
    pub kind: u64,
    pub crc: u32,
    /// Where the data begins, from the record's first byte.
    pub data_at: u64,
    pub data_bytes: u64,
    /// The record's whole size.
    pub record_bytes: u64,
}

impl Envelope {
    /// Reads the envelope of a record at `at`. With `limit`, the record must end exactly there; without, it
    /// ends where its fields say. `None` if there is no record.
    ///
    /// A record of the sum has no data, and to look for it would be to look at the next frame.
    pub(super) fn read(window: &mut Window, at: u64, limit: Option<u64>) -> std::io::Result<Option<Self>> {
        const HEAD_BYTES_MAX: u64 = 1 + 10 + 1 + 10 + 1 + 10;
        let room = window.len().saturating_sub(at);
        let limit_or_room = limit.unwrap_or(room);
        if limit_or_room > room {
            return Ok(None);
        }
        let head = window.bytes(at, HEAD_BYTES_MAX.min(limit_or_room))?;
        Ok(Self::parse(head, limit).filter(|envelope| envelope.record_bytes <= room))
    }

    fn parse(head: &[u8], limit: Option<u64>) -> Option<Self> {
        let mut rest = head;
        let kind = field(&mut rest, 0x08)?;
        let crc = u32::try_from(field(&mut rest, 0x10)?).ok()?;
        let before = (head.len() - rest.len()) as u64;
        let bare = Envelope { kind, crc, data_at: before, data_bytes: 0, record_bytes: before };
        let may_have_data = match limit {
            Some(limit) if limit == before => return Some(bare),
            Some(_) => true,
            None => kind != RecordKind::Crc as u64 && rest.first() == Some(&0x1a),
        };
        if !may_have_data {
            return Some(bare);
        }
        let data_bytes = field(&mut rest, 0x1a)?;
        let data_at = (head.len() - rest.len()) as u64;
        let record_bytes = data_at.checked_add(data_bytes)?;
        if limit.is_some_and(|limit| limit != record_bytes) {
            return None;
        }
        Some(Envelope { kind, crc, data_at, data_bytes, record_bytes })
    }
}

/// Reads one tag and its number; numbers are written as short as can be.
fn field(rest: &mut &[u8], tag: u8) -> Option<u64> {
    let (&first, after) = rest.split_first()?;
    if first != tag {
        return None;
    }
    let (value, used) = varint(after)?;
    if used != varint_len(value) {
        return None;
    }
    *rest = &after[used..];
    Some(value)
}
