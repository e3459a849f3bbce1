//! One step of reading: is there a frame, is this the end, is it torn, is it damage? (rule 5)
//!
//! Segments read as zero before use, one group is outstanding at a time, and nothing follows it before its
//! fdatasync. So of a group that a power cut caught, each sector holds either the group's bytes or zeros after
//! where the group began; whatever else does not verify was changed after it had been acknowledged. A flip
//! inside a record that itself holds an all-zero sector looks torn: the one known limit.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::Context;
use super::frame::{
    Envelope, LENGTH_BYTES, RecordKind, SECTOR_BYTES, claimed_frame_bytes, frame_bytes, length_field,
};
use super::window::Window;
use super::{Error, Result};
use crate::File;

/// Reads the frames of one segment.
pub(super) struct SegmentReader {
    path: PathBuf,
    window: Window,
    newest: bool,
}

/// What stands at an offset.
pub(super) enum Step {
    Frame(Frame),
    /// Nothing more was written in this segment, at least nothing that was acknowledged.
    End,
    /// A frame that was never acknowledged begins here. Only in the newest segment.
    Torn,
}

/// A frame that verifies.
pub(super) struct Frame {
    pub kind: RecordKind,
    data_at: u64,
    data_bytes: u64,
    /// Where the next frame begins.
    pub next: u64,
    /// The running sum with this record in it.
    pub sum: u32,
    /// The length field if it reads zero on the disk though the record behind it verifies.
    pub lost_length: Option<u64>,
}

impl SegmentReader {
    pub(super) fn new(path: PathBuf, file: Arc<dyn File>, newest: bool) -> Result<Self> {
        let window = Window::new(file).context("read wal segment", &path)?;
        Ok(SegmentReader { path, window, newest })
    }

    /// What stands at `at`. `sum` is the running sum before it, unknown at the first frame of the oldest segment.
    ///
    /// # Errors
    /// Damage, or a failed read.
    pub(super) fn step(&mut self, at: u64, sum: Option<u32>) -> Result<Step> {
        let field = self.read(|window| window.u64_le(at))?;
        if field == 0 {
            return self.step_zero_length(at, sum);
        }
        let record_bytes = field & 0x00ff_ffff_ffff_ffff;
        if let Some((envelope, sum)) = self.verified(at, Some(record_bytes), sum)? {
            let next = at + frame_bytes(envelope.record_bytes);
            if length_field(envelope.record_bytes) != field {
                return Err(self.damaged(at, "the length field disagrees with the record behind it"));
            }
            let padding_at = at + LENGTH_BYTES + envelope.record_bytes;
            if !self.read(|window| window.is_zero(padding_at, next))? {
                return Err(self.damaged(at, "the padding is not zero"));
            }
            return self.frame(at, envelope, sum, None);
        }
        if self.verified(at, None, sum)?.is_some() {
            return Err(self.damaged(at, "the length field disagrees with the record behind it"));
        }
        if self.newest && self.has_unwritten_sector(at, claimed_frame_bytes(field))? {
            return Ok(Step::Torn);
        }
        Err(self.damaged(at, "the record does not verify"))
    }

    /// Whether the segment is zero from `at` to its end.
    pub(super) fn is_zero_from(&mut self, at: u64) -> Result<bool> {
        self.read(|window| {
            let end = window.len();
            window.is_zero(at, end)
        })
    }

    /// The segment's length, bytes.
    pub(super) fn len(&self) -> u64 {
        self.window.len()
    }

    /// A frame's data.
    pub(super) fn data(&mut self, frame: &Frame) -> Result<&[u8]> {
        let path = &self.path;
        self.window.bytes(frame.data_at, frame.data_bytes).context("read wal segment", path)
    }

    /// The error that names this segment and the offset.
    pub(super) fn damaged(&self, offset: u64, reason: impl Into<String>) -> Error {
        Error::Damaged { file: self.path.clone(), offset, reason: reason.into() }
    }

    fn step_zero_length(&mut self, at: u64, sum: Option<u32>) -> Result<Step> {
        if let Some((envelope, sum)) = self.verified(at, None, sum)? {
            return self.frame(at, envelope, sum, Some(length_field(envelope.record_bytes)));
        }
        let sector_end = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
        if !self.read(|window| window.is_zero(at, sector_end))? {
            return Err(self.damaged(at, "a length of zero, but the rest of the sector is not zero"));
        }
        if !self.newest && !self.is_zero_from(at)? {
            return Err(self.damaged(at, "a length of zero, but the rest of an older segment is not zero"));
        }
        Ok(Step::End)
    }

    fn frame(&self, at: u64, envelope: Envelope, sum: u32, lost_length: Option<u64>) -> Result<Step> {
        let Some(kind) = RecordKind::from_number(envelope.kind) else {
            return Err(self.damaged(at, format!("unknown record type {}", envelope.kind)));
        };
        Ok(Step::Frame(Frame {
            kind,
            data_at: at + LENGTH_BYTES + envelope.data_at,
            data_bytes: envelope.data_bytes,
            next: at + frame_bytes(envelope.record_bytes),
            sum,
            lost_length,
        }))
    }

    /// The record of the frame at `at` and the sum after it, if its sum is right.
    fn verified(&mut self, at: u64, limit: Option<u64>, sum: Option<u32>) -> Result<Option<(Envelope, u32)>> {
        self.read(|window| {
            let record_at = at + LENGTH_BYTES;
            let Some(envelope) = Envelope::read(window, record_at, limit)? else { return Ok(None) };
            let right = if envelope.kind == RecordKind::Crc as u64 {
                (envelope.data_bytes == 0 && sum.is_none_or(|sum| sum == envelope.crc))
                    .then_some(envelope.crc)
            } else if let Some(sum) = sum {
                let data = window.bytes(record_at + envelope.data_at, envelope.data_bytes)?;
                Some(crc32c::crc32c_append(sum, data)).filter(|&sum| sum == envelope.crc)
            } else {
                None
            };
            Ok(right.map(|sum| (envelope, sum)))
        })
    }

    /// Whether a sector that the frame touches is zero from the frame's first byte in it to the sector's end.
    /// What is past the file's end was not written either.
    fn has_unwritten_sector(&mut self, at: u64, frame_bytes: u64) -> Result<bool> {
        let end = at.saturating_add(frame_bytes);
        let mut from = at;
        while from < end {
            let sector_end = (from / SECTOR_BYTES + 1) * SECTOR_BYTES;
            if self.read(|window| window.is_zero(from, sector_end))? {
                return Ok(true);
            }
            from = sector_end;
        }
        Ok(false)
    }

    fn read<T>(&mut self, f: impl FnOnce(&mut Window) -> std::io::Result<T>) -> Result<T> {
        f(&mut self.window).context("read wal segment", &self.path)
    }
}
