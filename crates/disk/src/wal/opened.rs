//! A log that was read and checked, and to which nothing was written yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::error::Context;
use super::frame::RecordKind;
use super::reader::{SegmentReader, Step};
use super::segment::{self, SegmentName};
use super::tail::{Place, Run, Tail};
use super::{Entry, Error, HardState, Limits, Position, Result, SnapshotRecord, Wal, decode};
use crate::{Access, File, Fs};

/// A log on disk, locked, read to its end and found whole; the disk is as it was.
pub struct Opened {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) limits: Limits,
    pub(super) segments: Vec<Segment>,
    pub(super) tail: Tail,
    /// The running sum after the last frame.
    pub(super) sum: u32,
    /// Where the next frame goes in the newest segment.
    pub(super) offset: u64,
    torn: bool,
    /// Whether anything but zeros follows `offset`.
    pub(super) dirty: bool,
    /// Length fields that read zero though the record behind them verifies.
    pub(super) lost_lengths: Vec<LostLength>,
}

/// An open segment file.
pub(super) struct Segment {
    pub name: SegmentName,
    pub path: PathBuf,
    pub file: Arc<dyn File>,
    /// Length of the file, bytes.
    pub len: u64,
}

/// A length field to write again.
pub(super) struct LostLength {
    pub segment: usize,
    pub offset: u64,
    pub field: u64,
}

/// Where a torn group was found. What it held was never acknowledged; [`Opened::into_writer`] zeroes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The newest segment.
    pub file: PathBuf,
    /// Where the first frame that does not verify begins, bytes.
    pub offset: u64,
}

impl Opened {
    /// See [`Wal::open`].
    pub(super) fn read(fs: Arc<dyn Fs>, dir: &Path, limits: Limits) -> Result<Self> {
        if !fs.exists(dir).context("look for wal folder", dir)? {
            return Err(Error::Missing(dir.to_owned()));
        }
        let mut segments = Vec::new();
        for name in segment::list(&*fs, dir)? {
            let path = dir.join(name.to_string());
            let file = fs.open(&path, Access::ReadWrite).context("open wal segment", &path)?;
            segment::lock(&*file, &path)?;
            segments.push(Segment { name, path, file, len: 0 });
        }
        let Some(newest) = segments.last() else { return Err(Error::Missing(dir.to_owned())) };
        // Older ones were synced whole before this one got its name.
        newest.file.forget_cached().context("read wal segment", &newest.path)?;
        let mut opened = Opened {
            fs,
            dir: dir.to_owned(),
            limits,
            segments,
            tail: Tail::default(),
            sum: 0,
            offset: 0,
            torn: false,
            dirty: false,
            lost_lengths: Vec::new(),
        };
        let mut sum = None;
        for segment in 0..opened.segments.len() {
            sum = opened.read_segment(segment, sum)?;
        }
        Ok(opened)
    }

    fn read_segment(&mut self, segment: usize, mut sum: Option<u32>) -> Result<Option<u32>> {
        let newest = segment + 1 == self.segments.len();
        let Segment { name, path, file, len } = &mut self.segments[segment];
        let mut reader = SegmentReader::new(path.clone(), file.clone(), newest)?;
        *len = reader.len();
        self.tail.begin_segment(name.seq == 0);
        let mut at = 0;
        let step = loop {
            let frame = match reader.step(at, sum)? {
                Step::Frame(frame) => frame,
                end => break end,
            };
            let place = Place { segment, offset: at, sum: sum.unwrap_or_default() };
            let pushed = self.tail.push(frame.kind, reader.data(&frame)?, place, frame.sum);
            pushed.map_err(|reason| reader.damaged(at, reason))?;
            if let Some(field) = frame.lost_length {
                self.lost_lengths.push(LostLength { segment, offset: at, field });
            }
            sum = Some(frame.sum);
            at = frame.next;
        };
        if !self.tail.header_is_complete() {
            // Synced before the segment got its name, so never torn.
            return Err(reader.damaged(at, "the segment's first records are missing"));
        }
        if newest {
            self.torn = matches!(step, Step::Torn);
            self.dirty = !reader.is_zero_from(at)?;
            self.offset = at;
            self.sum = sum.unwrap_or_default();
            self.tail.finish().map_err(|reason| reader.damaged(at, reason))?;
        }
        Ok(sum)
    }

    /// What the log was created with: etcd keeps the member's and the cluster's id here.
    pub fn metadata(&self) -> &[u8] {
        self.tail.metadata()
    }

    /// The last hard state, `None` if none was ever written.
    pub fn hard_state(&self) -> Option<HardState> {
        self.tail.state()
    }

    /// The snapshot records at or below the commit index, in the order they were written; never empty.
    pub fn snapshots(&self) -> &[SnapshotRecord] {
        self.tail.snapshots()
    }

    /// The newest of them.
    ///
    /// # Panics
    /// Never: opening refuses a log without one.
    pub fn newest_snapshot(&self) -> &SnapshotRecord {
        let newest = self.snapshots().iter().max_by_key(|snapshot| snapshot.index);
        newest.expect("checked when the log was read")
    }

    /// Index of the first entry that the log still has; it may be far below the newest snapshot.
    pub fn first_index(&self) -> Option<u64> {
        self.tail.first_index()
    }

    /// The last entry, or the newest snapshot if the log has no entry after it.
    pub fn last(&self) -> Position {
        self.tail.last()
    }

    /// The torn group at the end, if there is one.
    pub fn torn(&self) -> Option<Torn> {
        let (file, offset) = self.end();
        self.torn.then(|| Torn { file: file.to_owned(), offset })
    }

    /// The newest segment, and where in it the next record goes, bytes.
    ///
    /// # Panics
    /// Never: opening refuses a log without segments.
    pub fn end(&self) -> (&Path, u64) {
        let newest = self.segments.last().expect("checked when the log was read");
        (&newest.path, self.offset)
    }

    /// The entries with an index above `after`, in order, those that were replaced left out. They are read
    /// from disk again, in bounded memory.
    pub fn entries(&self, after: u64) -> Entries<'_> {
        let skip = self.tail.runs().iter().take_while(|run| run.first <= after).count().saturating_sub(1);
        Entries { opened: self, runs: &self.tail.runs()[skip..], after, at: None, failed: false }
    }
}

/// The entries of an [`Opened`] log, in order; it ends after the first error.
pub struct Entries<'a> {
    opened: &'a Opened,
    runs: &'a [Run],
    after: u64,
    at: Option<Cursor>,
    failed: bool,
}

/// Where reading stands within the first of `runs`.
struct Cursor {
    reader: SegmentReader,
    offset: u64,
    sum: u32,
    next_index: u64,
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        while !self.failed {
            let run = *self.runs.first()?;
            let end = self.runs.get(1).map_or(self.opened.last().index + 1, |next| next.first);
            match self.read(run, end) {
                Ok(Some(entry)) if entry.index > self.after => return Some(Ok(entry)),
                Ok(Some(_)) => {}
                Ok(None) => self.runs = &self.runs[1..],
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl Entries<'_> {
    /// The next entry of a run that ends before `end`.
    fn read(&mut self, run: Run, end: u64) -> Result<Option<Entry>> {
        if self.at.is_none() {
            self.at = Some(self.cursor(run)?);
        }
        let Some(cursor) = &mut self.at else { return Ok(None) };
        while cursor.next_index < end {
            let at = cursor.offset;
            let Step::Frame(frame) = cursor.reader.step(at, Some(cursor.sum))? else {
                return Err(cursor.reader.damaged(at, "it changed while it was being read"));
            };
            cursor.offset = frame.next;
            cursor.sum = frame.sum;
            if frame.kind != RecordKind::Entry {
                continue;
            }
            let decoded = decode::entry(cursor.reader.data(&frame)?)
                .map(|entry| Entry {
                    term: entry.term,
                    index: entry.index,
                    kind: entry.kind,
                    data: Bytes::copy_from_slice(entry.data),
                })
                .map_err(|reason| reason.to_owned());
            let entry = decoded.map_err(|reason| cursor.reader.damaged(at, reason))?;
            if entry.index != cursor.next_index {
                return Err(cursor.reader.damaged(at, "it changed while it was being read"));
            }
            cursor.next_index += 1;
            return Ok(Some(entry));
        }
        self.at = None;
        Ok(None)
    }

    fn cursor(&self, run: Run) -> Result<Cursor> {
        let Place { segment, offset, sum } = run.place;
        let Segment { path, file, .. } = &self.opened.segments[segment];
        let newest = segment + 1 == self.opened.segments.len();
        let reader = SegmentReader::new(path.clone(), file.clone(), newest)?;
        Ok(Cursor { reader, offset, sum, next_index: run.first })
    }
}

impl Opened {
    /// Repairs what a crash left and hands the log over for writing: a torn group and all after it becomes
    /// zero to the segment's end, a lost length field is written again, the newest segment gets its full
    /// length, unfinished files go; then all is synced. On a whole log it only syncs.
    ///
    /// # Errors
    /// A failed operation; the log can be opened again then.
    pub fn into_writer(self) -> Result<Wal> {
        Wal::take_over(self)
    }
}
