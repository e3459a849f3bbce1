//! The revision log: every revision of the store, in an append-only checksummed segment log of our own.
//!
//! One *frame* holds one applied batch and is one atomic transaction: the batch's records, the applied index
//! and term, and a small state of the caller's (ConfState, small tables). This module knows neither keys nor
//! consensus: payloads and state are bytes. Records are addressed by [`Location`], known as soon as a record is
//! pushed; between that and its frame's way to the file, readers find it in memory.
//!
//! Four parts, each for one thread or more: the [`FrameBuilder`] (apply), the [`Writer`] (the log's own), the
//! [`Merger`] (long work), and the [`Reader`] (all that read). The life of a frame: `push`… → `finish` → the WAL syncs the entries in it →
//! [`Writer::write`] → [`Writer::sync`]. No frame reaches the file system before the WAL has synced what is in
//! it (rule 2); the caller sees to that.
//!
//! # Files
//! `<number, 8 hex digits>.seg`, numbered from 1 without gaps, merged ones from 80000000 on; `spare-<n>.tmp` are
//! segments allocated ahead, whose contents mean nothing, `merge-<n>.tmp` merged ones that are not finished. All integers are little-endian. A segment begins with its header:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `QRTEREVL` |
//! | 8 | 4 | format version, 1; another is refused |
//! | 12 | 4 | kind: 0 appended, 1 written by a merge; another is refused |
//! | 16 | 8 | log id, random, not 0; the same in all segments and frames |
//! | 24 | 4 | segment number, as in the name and in locations |
//! | 28 | 4 | generation: 0, and of a merged one higher than those of all that it was made of, in whose stead it counts |
//! | 32 | 4 | first segment number covered: for an appended one its own |
//! | 36 | 4 | last segment number covered: for an appended one its own |
//! | 40 | 8 | number of the first frame, or of the first one that it stands for |
//! | 48 | 12 | zero |
//! | 60 | 4 | CRC-32C of bytes 0..60 |
//!
//! Frames follow, each at a multiple of 8:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | log id |
//! | 8 | 8 | frame number, from 1 without gaps through all segments |
//! | 16 | 8 | applied index |
//! | 24 | 8 | applied term |
//! | 32 | 8 | WAL watermark: an index up to which the committed entries were known synced there when the frame was built |
//! | 40 | 8 | log watermark: number of a frame known synced here when this one was built |
//! | 48 | 4 | bytes of records |
//! | 52 | 4 | bytes of state |
//! | 56 | 4 | number of records |
//! | 60 | 4 | flags: 1 = the state is whole (set in the first frame of a segment, and only there) |
//! | 64 | 4 | CRC-32C of everything behind the header, padding included |
//! | 68 | 4 | CRC-32C of bytes 0..68 |
//! | 72 | … | records, state, zeros up to a multiple of 8 |
//!
//! A frame of a merged segment stands for all from the one before it on up to its number: it has applied index and term
//! of the last of them, the watermarks of the first, no state, and flag 1 not set.
//!
//! A record is: payload length (4), kind (1), main (8), sub (8), payload.
//!
//! Behind the last frame of the newest segment the file is zeros, allocated ahead; a sealed segment ends with
//! its last frame (bytes behind it are ignored: how many frames it has follows from the next one's header). The newest is
//! never a merged one.
//!
//! # What is durable when
//! A segment gets its name only after the one before it is synced whole and its own header is synced. So a
//! bad frame in any but the newest segment, and a bad header anywhere, is damage. In the newest segment a bad
//! frame is damage if a later whole frame has a log watermark at or above it, and otherwise a torn tail: it
//! and everything behind it is cut (zeroed and synced before the first append). **Stated limit**: the last
//! frames before a stop have no later frame to vouch for them, so damage in them looks torn and is cut. This
//! loses nothing that was acknowledged, since the WAL still holds those entries and replays them; what the
//! WAL has released is checked by [`Opened::require_applied`].
//!
//! Damage is refused with file and offset, and nothing is changed.

mod builder;
mod error;
mod format;
mod fuzz;
mod merge;
mod open;
mod reader;
mod tail;
mod writer;

use std::fmt;

pub use builder::{Frame, FrameBuilder};
pub use error::Error;
pub use format::RecordHeader;
pub use fuzz::fuzz_revlog;
pub use merge::{Fate, Keeper, MergePlan, MergeProgress, Merger, Stored, Worth};
pub use open::{Opened, Replay, ReplayError, Torn, open};
pub use reader::Reader;
pub use writer::Writer;

/// Where a record's payload begins: segment number in the high half, byte offset in the low half. Ascends in
/// log order among those that were not merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location(pub u64);

impl Location {
    /// The place `offset` bytes into a segment.
    pub const fn new(segment: u32, offset: u32) -> Location {
        Location((segment as u64) << 32 | offset as u64)
    }

    /// The segment's number.
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether it is in a segment that a merge wrote.
    pub const fn is_merged(self) -> bool {
        self.segment() >= format::FIRST_MERGED
    }

    /// Bytes from the segment file's start.
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", segment_name(self.segment()), self.offset())
    }
}

/// An entry that was applied, by its position in raft's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Raft index.
    pub index: u64,
    /// Raft term.
    pub term: u64,
}

/// How far the log reaches, in files or durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Number of the last frame, 0 if there is none.
    pub frame: u64,
    /// The last entry whose changes it holds.
    pub applied: Applied,
}

/// What the log takes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Segments that count.
    pub segments: u64,
    /// Bytes of all segment files without what is allocated ahead: also of those that were merged away, and are still
    /// there for who reads them.
    pub bytes: u64,
    /// Bytes of records in segments that count.
    pub record_bytes: u64,
    /// Of those, bytes of records that nobody wants any more.
    pub dead_bytes: u64,
}

/// Sizes that this member may choose; none of them is in the format.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes allocated for a segment. A frame that outgrows it makes the segment longer.
    pub segment_bytes: u32,
    /// What a frame usually stays below, bytes: a segment ends when less is left of it.
    pub frame_bytes_target: u32,
    /// Segments allocated ahead, so that a full disk is seen before it hurts.
    pub spare_segments: u32,
    /// Bytes written between two syncs; beyond that the writer syncs by itself.
    pub dirty_bytes_max: u64,
    /// Bytes read at a time when opening and scanning.
    pub read_chunk_bytes: u32,
    /// Bytes of a file between two places that a scan may begin at: what it reads in vain at most, beside one frame.
    pub mark_interval_bytes: u32,
    /// Bytes of a merged segment's frames; the one that goes beyond it is the last of its frame.
    pub merged_frame_bytes: u32,
    /// Bytes of the sources that a merge reads in one step.
    pub merge_step_bytes: u32,
    /// Bytes that a merge writes between two syncs.
    pub merge_dirty_bytes_max: u64,
}

impl Limits {
    /// For production: segments as large as the WAL's.
    pub const DEFAULT: Limits = Limits {
        segment_bytes: 64 << 20,
        frame_bytes_target: 4 << 20,
        spare_segments: 1,
        // At full speed one sync of an unbounded amount took 50–300 ms (evidence, lesson 8).
        dirty_bytes_max: 16 << 20,
        read_chunk_bytes: 1 << 20,
        mark_interval_bytes: 128 << 10,
        merged_frame_bytes: 256 << 10,
        merge_step_bytes: 256 << 10,
        merge_dirty_bytes_max: 2 << 20,
    };

    /// For tests: a roll every few frames.
    pub const fn tiny() -> Limits {
        Limits {
            segment_bytes: 2048,
            frame_bytes_target: 512,
            spare_segments: 2,
            dirty_bytes_max: 1024,
            read_chunk_bytes: 256,
            mark_interval_bytes: 200,
            merged_frame_bytes: 400,
            merge_step_bytes: 512,
            merge_dirty_bytes_max: 600,
        }
    }

    fn check(&self) {
        let header = format::SEGMENT_HEADER_LEN as u32;
        assert!(self.segment_bytes - header >= self.frame_bytes_target, "a segment takes a frame");
        assert!(self.frame_bytes_target >= 2 * format::FRAME_HEADER_LEN as u32, "a frame takes a record");
        assert!(self.read_chunk_bytes.is_multiple_of(8) && self.read_chunk_bytes >= 128, "read chunk");
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}

fn segment_name(number: u32) -> String {
    format!("{number:08x}.seg")
}

fn parse_segment_name(name: &str) -> Option<u32> {
    let number = u32::from_str_radix(name.strip_suffix(".seg")?, 16).ok()?;
    // Numbers from a corrupt name must leave room to count on.
    let sane = (1..1 << 30).contains(&(number & !format::FIRST_MERGED)) || number == format::FIRST_MERGED;
    (sane && segment_name(number) == name).then_some(number)
}
