//! What builder, writer and readers share: the segment table, and the frames that are not in a file yet.
//!
//! A record moves one way: open frame → finished frame in memory → file. Each move happens under the lock of
//! the place that it leaves and of the place that it enters, so a reader that looks in that order, and looks
//! once more if it finds nothing, never misses it. Locks are held for a lookup or a copy out of the open
//! frame, never for a system call.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::fs::File;

use super::Location;
use super::format::{FIRST_MERGED, Records, SegmentHeader};

/// Frame buffers kept for the next frames.
const SPARE_BUFFERS_MAX: usize = 4;

/// One segment file. Whoever reads it holds an `Arc`, so it outlives its removal from the table (rule 10).
pub(super) struct Segment {
    pub number: u32,
    pub file: Arc<dyn File>,
    pub path: PathBuf,
    /// The appended segments that it stands for, first and last.
    pub covers: (u32, u32),
    pub generation: u32,
    /// Number of its first frame, or of the first that it stands for.
    pub first_frame: u64,
    /// Offset behind the last frame that may be read from the file.
    end: AtomicU32,
    /// Bytes of records, payloads and what is before each.
    record_bytes: AtomicU64,
    /// Of these, of records that nobody wants any more.
    dead_bytes: AtomicU64,
    /// Of those, of markers.
    dead_marker_bytes: AtomicU64,
}

impl Segment {
    pub fn new(header: &SegmentHeader, file: Arc<dyn File>, path: PathBuf, end: u32) -> Segment {
        Segment {
            number: header.number,
            file,
            path,
            covers: header.covers,
            generation: header.generation,
            first_frame: header.first_frame,
            end: AtomicU32::new(end),
            record_bytes: AtomicU64::new(0),
            dead_bytes: AtomicU64::new(0),
            dead_marker_bytes: AtomicU64::new(0),
        }
    }

    /// Offset behind the last frame that may be read from the file.
    pub fn end(&self) -> u32 {
        self.end.load(Ordering::Acquire)
    }

    /// One more frame may be read. The caller holds the tail's lock, if anybody reads already.
    pub fn extend(&self, end: u32, record_bytes: u64) {
        self.end.store(end, Ordering::Release);
        self.record_bytes.fetch_add(record_bytes, Ordering::Relaxed);
    }

    /// A record of so many bytes is not wanted any more.
    pub fn forget(&self, bytes: u64, is_marker: bool) {
        if is_marker {
            self.dead_marker_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        // Last, so that markers are never more than what is dead.
        self.dead_bytes.fetch_add(bytes, Ordering::Release);
    }

    /// What the file takes, and of that what is dead.
    pub fn space(&self) -> SegmentSpace {
        let dead_bytes = self.dead_bytes.load(Ordering::Acquire);
        SegmentSpace {
            bytes: self.end().into(),
            record_bytes: self.record_bytes.load(Ordering::Relaxed),
            dead_bytes,
            dead_marker_bytes: self.dead_marker_bytes.load(Ordering::Relaxed).min(dead_bytes),
        }
    }
}

/// Bytes of one segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SegmentSpace {
    pub bytes: u64,
    pub record_bytes: u64,
    pub dead_bytes: u64,
    pub dead_marker_bytes: u64,
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
    /// Main and sub revision of the last record of this frame and all before it.
    pub last_revision: (i64, i64),
}

/// Frames in memory and segments in files.
///
/// Invariants: segments follow each other without a gap in what they cover, and the last is an appended one; frames
/// ascend by start; every frame starts at or after the end of the last segment's written part, and before the open frame.
pub(super) struct Tail {
    /// In log order.
    segments: Vec<Arc<Segment>>,
    /// The same, and those that were merged away but may still be looked into, by number.
    places: Vec<(u32, Arc<Segment>)>,
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
            self.by_main.entry(first.header.main).or_insert(at);
        }
    }

    /// Puts `marks` in the place of those in the segments `gone`, whose main revisions lie in `mains`.
    fn replace(&mut self, gone: &[u32], marks: Vec<(i64, Location)>, mains: (i64, i64)) {
        if mains.0 <= mains.1 {
            let old: Vec<i64> = self.by_main.range(mains.0..=mains.1).map(|(main, _)| *main).collect();
            for main in old {
                if self.by_main.get(&main).is_some_and(|at| gone.contains(&at.segment())) {
                    self.by_main.remove(&main);
                }
            }
        }
        self.by_main.extend(marks);
    }

    fn check(&self, counts: impl Fn(u32) -> bool) {
        for (main, at) in &self.by_main {
            assert!(counts(at.segment()), "the mark of {main} is at {at}, which does not count");
        }
    }

    /// A frame before which no record has this main revision or a higher one. One that begins with this main revision may
    /// not be the first that has it: what is made of a database file, or merged, cuts frames where they are full.
    pub fn seek(&self, main: i64) -> Option<Location> {
        self.by_main.range(..main).next_back().map(|(_, at)| *at)
    }
}

impl Tail {
    pub fn new(segments: Vec<Arc<Segment>>, marks: Marks) -> Tail {
        let mut places: Vec<_> = segments.iter().map(|segment| (segment.number, segment.clone())).collect();
        places.sort_unstable_by_key(|(number, _)| *number);
        Tail { segments, places, frames: VecDeque::new(), frame_bytes: 0, marks }
    }

    /// All segments that count, in log order.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    /// All files: those that count, and those that were merged away and not removed yet.
    pub fn files(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.places.iter().map(|(_, segment)| segment)
    }

    /// A segment by its number, one that was merged away too.
    pub fn segment(&self, number: u32) -> Option<&Arc<Segment>> {
        let at = self.places.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&self.places[at].1)
    }

    /// Where in log order a segment that counts is.
    pub fn position(&self, number: u32) -> Option<usize> {
        let first = self.segment(number)?.covers.0;
        let at = self.segments.binary_search_by_key(&first, |segment| segment.covers.0).ok()?;
        (self.segments[at].number == number).then_some(at)
    }

    /// Adds the newest segment.
    pub fn push(&mut self, segment: Arc<Segment>) {
        self.add_place(segment.clone());
        self.segments.push(segment);
    }

    /// Puts a merged segment in the place of those that it covers, which can still be looked into. `marks` are its
    /// own, `mains` the lowest and highest main revision of what was merged.
    pub fn replace(&mut self, merged: Arc<Segment>, marks: Vec<(i64, Location)>, mains: (i64, i64)) {
        let (first, last) = merged.covers;
        let from = self.segments.partition_point(|segment| segment.covers.0 < first);
        let to = self.segments.partition_point(|segment| segment.covers.1 <= last);
        let gone: Vec<u32> = self.segments[from..to].iter().map(|segment| segment.number).collect();
        self.marks.replace(&gone, marks, mains);
        self.add_place(merged.clone());
        self.segments.splice(from..to, [merged]);
    }

    /// Nobody looks into this segment, which was merged away, any more.
    pub fn remove(&mut self, number: u32) {
        assert!(self.position(number).is_none(), "segment {number} still counts");
        self.places.retain(|(other, _)| *other != number);
    }

    fn add_place(&mut self, segment: Arc<Segment>) {
        let number = segment.number;
        let at = self.places.partition_point(|(other, _)| *other < number);
        self.places.insert(at, (number, segment));
    }

    /// Checks the invariants.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&self) {
        for pair in self.segments.windows(2) {
            assert_eq!(pair[0].covers.1 + 1, pair[1].covers.0, "segments follow each other");
        }
        for segment in &self.segments {
            assert_eq!(
                self.position(segment.number),
                self.segments.iter().position(|s| Arc::ptr_eq(s, segment))
            );
            let space = segment.space();
            assert!(space.record_bytes <= space.bytes, "{space:?}");
        }
        assert!(self.places.is_sorted_by(|a, b| a.0 < b.0), "files ascend by number");
        let last = self.segments.last();
        assert!(last.is_none_or(|last| last.number < FIRST_MERGED), "the newest segment is no merged one");
        let mut end = last.map_or(0, |last| Location::new(last.number, last.end()).0);
        for frame in &self.frames {
            assert!(frame.start.0 >= end, "frame at {} begins before {}", frame.start, Location(end));
            end = frame.end();
        }
        let bytes: u64 = self.frames.iter().map(|frame| frame.bytes.len() as u64).sum();
        assert_eq!(bytes, self.frame_bytes, "bytes of the frames in memory");
        self.marks.check(|number| self.position(number).is_some());
    }
}

pub(super) struct Shared {
    pub log_id: u64,
    pub read_chunk_bytes: usize,
    open: RwLock<OpenFrame>,
    tail: RwLock<Tail>,
    /// Number of the last frame known to be durable.
    pub durable: AtomicU64,
    /// The next segment could not be allocated ahead: the disk is as good as full.
    pub lacks_room: AtomicBool,
    buffers: Mutex<Vec<Vec<u8>>>,
    buffer_bytes_max: usize,
    /// Records that were forgotten while their segment had no file: segment, bytes, whether each is a marker.
    early: Mutex<Vec<(u32, u64, bool)>>,
}

impl Shared {
    pub fn new(
        log_id: u64,
        limits: &super::Limits,
        (segments, marks): (Vec<Arc<Segment>>, Marks),
        open: OpenFrame,
        durable: u64,
    ) -> Shared {
        Shared {
            log_id,
            read_chunk_bytes: limits.read_chunk_bytes as usize,
            open: RwLock::new(open),
            tail: RwLock::new(Tail::new(segments, marks)),
            durable: AtomicU64::new(durable),
            lacks_room: AtomicBool::new(false),
            buffers: Mutex::new(Vec::new()),
            buffer_bytes_max: limits.frame_bytes_target as usize,
            early: Mutex::new(Vec::new()),
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

    /// Keeps in mind that a record is not wanted whose segment has no file yet. The caller holds the tail's lock.
    pub fn forget_early(&self, segment: u32, bytes: u64, is_marker: bool) {
        self.early().push((segment, bytes, is_marker));
    }

    /// Tells a new segment which of its records are not wanted. The caller holds the tail's lock for writing.
    pub fn tell_early(&self, segment: &Segment) {
        self.early().retain(|(number, bytes, is_marker)| {
            let is_other = *number != segment.number;
            if !is_other {
                segment.forget(*bytes, *is_marker);
            }
            is_other
        });
    }

    fn early(&self) -> MutexGuard<'_, Vec<(u32, u64, bool)>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
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
