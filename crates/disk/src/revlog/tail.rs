//! What builder, writer and readers share: the segment table, and the frames that are not in a file yet.
//!
//! A record moves one way: open frame → finished frame in memory → file. Each move happens under the lock of
//! the place that it leaves and of the place that it enters, so a reader that looks in that order, and looks
//! once more if it finds nothing, never misses it. Locks are held for a lookup or a copy out of the open
//! frame, never for a system call.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::fs::File;

use super::Location;
use super::format::Records;

/// Frame buffers kept for the next frames.
const SPARE_BUFFERS_MAX: usize = 4;

/// One segment file. Whoever reads it holds an `Arc`, so it outlives its removal from the table (rule 10).
pub(super) struct Segment {
    pub number: u32,
    pub file: Arc<dyn File>,
    pub path: PathBuf,
}

/// A finished frame: its bytes as they go to the file.
pub(super) struct FrameBuf {
    pub start: Location,
    pub number: u64,
    pub records_len: usize,
    pub bytes: Vec<u8>,
}

impl FrameBuf {
    pub fn end(&self) -> u64 {
        self.start.0 + self.bytes.len() as u64
    }
}

/// The frame that records are being pushed to.
pub(super) struct OpenFrame {
    pub start: Location,
    /// Room for the frame's header, then records.
    pub bytes: Vec<u8>,
}

/// Frames in memory and segments in files.
///
/// Invariants: segments ascend by number; frames ascend by start; every frame starts at or after the end of
/// the last segment's written part, and before the open frame.
pub(super) struct Tail {
    pub segments: Vec<Written>,
    pub frames: VecDeque<Arc<FrameBuf>>,
    pub frame_bytes: u64,
    pub marks: Marks,
}

/// Where in the files to begin looking for a main revision: one frame every so many bytes, by the main revision of its
/// first record.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    by_main: BTreeMap<i64, Location>,
    interval_bytes: u32,
}

impl Marks {
    pub fn new(limits: &super::Limits) -> Marks {
        Marks { by_main: BTreeMap::new(), interval_bytes: limits.mark_interval_bytes }
    }

    /// Takes note of a frame that is in its file; frames come in log order. `records` are its records.
    pub fn note(&mut self, at: Location, records: &[u8]) {
        let is_due = self.by_main.last_key_value().is_none_or(|(_, last)| {
            last.segment() != at.segment() || at.offset() - last.offset() >= self.interval_bytes
        });
        if is_due && let Some(Ok(first)) = Records::new(records).next() {
            // All changes of one main revision are in one frame, so the next frame's number is higher.
            self.by_main.entry(first.header.main).or_insert(at);
        }
    }

    /// A frame before which no record has this main revision or a higher one.
    pub fn seek(&self, main: i64) -> Option<Location> {
        self.by_main.range(..=main).next_back().map(|(_, at)| *at)
    }
}

/// A segment and how far it is written.
#[derive(Clone)]
pub(super) struct Written {
    pub segment: Arc<Segment>,
    /// Offset behind the last frame that may be read from the file.
    pub end: u32,
}

impl Tail {
    pub fn segment(&self, number: u32) -> Option<&Written> {
        let at = self.segments.binary_search_by_key(&number, |written| written.segment.number).ok()?;
        Some(&self.segments[at])
    }

    /// Checks the invariants.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&self) {
        assert!(self.segments.is_sorted_by(|a, b| a.segment.number < b.segment.number), "segments ascend");
        let mut end = self.segments.last().map_or(0, |last| Location::new(last.segment.number, last.end).0);
        for frame in &self.frames {
            assert!(frame.start.0 >= end, "frame at {} begins before {}", frame.start, Location(end));
            end = frame.end();
        }
        let bytes: u64 = self.frames.iter().map(|frame| frame.bytes.len() as u64).sum();
        assert_eq!(bytes, self.frame_bytes, "bytes of the frames in memory");
    }
}

pub(super) struct Shared {
    pub log_id: u64,
    pub read_chunk_bytes: usize,
    open: RwLock<OpenFrame>,
    tail: RwLock<Tail>,
    /// Number of the last frame known to be durable.
    pub durable: AtomicU64,
    buffers: Mutex<Vec<Vec<u8>>>,
    buffer_bytes_max: usize,
}

impl Shared {
    pub fn new(
        log_id: u64,
        limits: &super::Limits,
        (segments, marks): (Vec<Written>, Marks),
        open: OpenFrame,
        durable: u64,
    ) -> Shared {
        Shared {
            log_id,
            read_chunk_bytes: limits.read_chunk_bytes as usize,
            open: RwLock::new(open),
            tail: RwLock::new(Tail { segments, frames: VecDeque::new(), frame_bytes: 0, marks }),
            durable: AtomicU64::new(durable),
            buffers: Mutex::new(Vec::new()),
            buffer_bytes_max: limits.frame_bytes_target as usize,
        }
    }

    // A panic elsewhere leaves these structures whole (each change is one push or pop), so poison says nothing.

    pub fn open(&self) -> RwLockReadGuard<'_, OpenFrame> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn open_mut(&self) -> RwLockWriteGuard<'_, OpenFrame> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn tail(&self) -> RwLockReadGuard<'_, Tail> {
        self.tail.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn tail_mut(&self) -> RwLockWriteGuard<'_, Tail> {
        self.tail.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty buffer, with the capacity of an earlier frame if one is at hand.
    pub fn take_buffer(&self) -> Vec<u8> {
        self.buffers().pop().unwrap_or_default()
    }

    /// Takes back a frame's buffer, unless a reader still holds it or it is out of proportion.
    pub fn recycle(&self, frame: Arc<FrameBuf>) {
        let Some(frame) = Arc::into_inner(frame) else { return };
        let mut bytes = frame.bytes;
        let mut buffers = self.buffers();
        if bytes.capacity() <= self.buffer_bytes_max && buffers.len() < SPARE_BUFFERS_MAX {
            bytes.clear();
            buffers.push(bytes);
        }
    }

    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
