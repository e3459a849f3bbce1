//! Merging: neighbouring segments are written again without what nobody wants any more (rule 12).
//!
//! One merge goes through these steps, and whoever drives it may stop between any two of them:
//!
//! 1. [`Merger::begin`]: the file is created, and all its space is allocated. A disk that has none is no error.
//! 2. [`Merger::copy`], again and again: what is wanted of the sources goes to the file, `merge-<n>.tmp`.
//! 3. [`Merger::publish`], once what makes the rest dead is durable in this log: sync, rename, sync of the folder. From
//!    then on the file counts, and its sources do not; both can be read.
//! 4. [`Merger::relocate`], again and again: the owner of the records hears where they are now, a few at a time.
//! 5. [`Merger::retire`], once nobody holds a place in a source any more: the sources are removed.
//!
//! A crash before the rename is durable leaves the sources, after it the merged segment; the next start removes the rest.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::fs::{Access, File, Fs};

use super::format::{
    FIRST_MERGED, FRAME_ALIGN, FRAME_HEADER_LEN, FrameHeader, FrameScan, RecordHeader, Records,
};
use super::format::{RECORD_HEADER_LEN, SEGMENT_HEADER_LEN, SegmentHeader, push_record};
use super::tail::{Segment, SegmentSpace, Shared};
use super::writer::is_full;
use super::{Error, Limits, Location, segment_name};

/// Records that are asked for, or told of, at once.
const RECORDS_PER_CALL: usize = 128;
/// Sources of one merge are together no longer than so many whole segments.
const SOURCE_SEGMENTS_MAX: u64 = 16;
/// A segment of which less than this part of a whole one is wanted is merged with a neighbour that is, so that many
/// small ones do not remain.
const SMALL_PART: u64 = 8;

/// A record as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Its header.
    pub header: RecordHeader,
    /// Where its payload is.
    pub at: Location,
    /// Its payload.
    pub payload: &'a [u8],
}

/// The owner of the records, as a merge sees it: who knows which are wanted, and where they are.
pub trait Keeper {
    /// Says of each record whether it is still wanted, in as many values of `wanted`, which is empty.
    fn wanted(&mut self, records: &[Stored<'_>], wanted: &mut Vec<bool>);

    /// Records are now at another place; says what became of each since it was asked for, in as many values of `fates`,
    /// which is empty. The place where they were can be read until [`Merger::retire`].
    fn moved(&mut self, records: &[Stored<'_>], fates: &mut Vec<Fate>);
}

/// What became of a record since it was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is wanted.
    Wanted,
    /// It is not wanted any more.
    Dead,
    /// It is not wanted any more, and is a marker (see [`Reader::forget`](super::Reader::forget)).
    DeadMarker,
}

/// What is worth a merge.
#[derive(Clone, Copy, Debug)]
pub struct Worth {
    /// A segment is merged if this part of it, percent, would be gained; and while this part of all is dead, others are
    /// too, the oldest first.
    pub share_percent: u64,
    /// Longest merged segment, bytes. Not more than a usual segment in any case.
    pub output_bytes_max: u64,
}

/// Segments that are worth a merge.
pub struct MergePlan {
    sources: Vec<Arc<Segment>>,
    /// Nothing is dead in any segment before them.
    is_clean_before: bool,
    output_bytes: u64,
}

impl MergePlan {
    /// Whether markers that are not wanted may go with the rest: nothing before them is dead, so nothing that they hide
    /// comes back.
    pub fn may_drop_markers(&self) -> bool {
        self.is_clean_before
    }

    /// Bytes of the segments.
    pub fn source_bytes(&self) -> u64 {
        self.sources.iter().map(|source| u64::from(source.end())).sum()
    }

    /// How many segments.
    pub fn source_count(&self) -> u64 {
        self.sources.len() as u64
    }

    /// Bytes of what they become, at most.
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }
}

/// How a step of a merge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeProgress {
    /// So many bytes were read and written; there is more to do.
    Working(u64),
    /// That was the last.
    Done(u64),
    /// The disk has no room: the merge was given up, and left nothing.
    NoRoom,
}

/// Merges segments, one merge at a time. A thread's of its own, beside the one that writes.
pub struct Merger {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    limits: Limits,
    shared: Arc<Shared>,
    next_number: u32,
    job: Job,
}

enum Job {
    Idle,
    Copying(Box<Copying>),
    Moving(Box<Moving>),
}

/// A merged segment that is being written.
struct Copying {
    sources: Vec<Arc<Segment>>,
    file: Arc<dyn File>,
    path: PathBuf,
    header: SegmentHeader,
    /// The source that is being read, and where in it.
    source: usize,
    offset: u32,
    frame: OutFrame,
    end: u32,
    unsynced_bytes: u64,
    record_bytes: u64,
    marks: Vec<(i64, Location)>,
    /// Lowest and highest main revision of the sources' records.
    mains: (i64, i64),
    wanted: Vec<bool>,
}

/// The merged frame that is being built. It stands for all frames of the sources since the one before it.
struct OutFrame {
    bytes: Vec<u8>,
    record_count: u32,
    /// The main revision of its first record.
    first_main: Option<i64>,
    /// Watermarks of the first frame that it stands for: what that one says was true then.
    watermarks: Option<(u64, u64)>,
    /// Header of the last frame that it stands for.
    last: Option<FrameHeader>,
}

/// A merged segment that counts, and whose records the owner does not have all moved yet.
struct Moving {
    sources: Vec<Arc<Segment>>,
    merged: Arc<Segment>,
    offset: u32,
    /// The records of the frame at `offset`, and how many bytes of them are done.
    records: Vec<u8>,
    done: usize,
    frame_len: u32,
    fates: Vec<Fate>,
}

impl Merger {
    pub(super) fn new(fs: Arc<dyn Fs>, dir: PathBuf, limits: Limits, shared: Arc<Shared>) -> Merger {
        let highest = shared.tail().files().map(|segment| segment.number).max();
        let next_number =
            highest.filter(|number| *number >= FIRST_MERGED).map_or(FIRST_MERGED, |last| last + 1);
        Merger { fs, dir, limits, shared, next_number, job: Job::Idle }
    }

    /// What is to be merged next, if anything is worth it. The newest segment is left alone, and what is before it until a
    /// frame of the newest is durable: that has the whole small state.
    pub fn plan(&self, worth: Worth) -> Option<MergePlan> {
        let tail = self.shared.tail();
        let durable = self.shared.durable.load(Ordering::Acquire);
        let segments = tail.segments();
        let count = segments.windows(2).take_while(|pair| pair[1].first_frame <= durable).count();
        let spaces: Vec<SegmentSpace> = segments[..count].iter().map(|segment| segment.space()).collect();
        let range = choose(&spaces, &self.limits, worth)?;
        let is_clean_before = spaces[..range.start].iter().all(|space| space.dead_bytes == 0);
        let outputs =
            spaces[range.clone()].iter().map(|space| output_bytes(space, is_clean_before, &self.limits));
        Some(MergePlan { output_bytes: outputs.sum(), sources: segments[range].to_vec(), is_clean_before })
    }

    /// Whether the next segment could not be allocated ahead: the disk is as good as full.
    pub fn lacks_room(&self) -> bool {
        self.shared.lacks_room.load(Ordering::Acquire)
    }

    /// Number of the last frame that is durable.
    pub fn durable_frame(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Creates the file and allocates what it may take at most; [`MergeProgress::NoRoom`] if the disk does not have that.
    ///
    /// # Errors
    /// Any other failed operation, naming the file. The member has to stop.
    ///
    /// # Panics
    /// If a merge is under way.
    pub fn begin(&mut self, plan: MergePlan) -> Result<MergeProgress, Error> {
        assert!(matches!(self.job, Job::Idle), "one merge at a time");
        let number = self.next_number;
        self.next_number = number.checked_add(1).expect("fewer than 2^31 merges");
        let path = self.dir.join(format!("merge-{number:08x}.tmp"));
        let (first, last) = (&plan.sources[0], &plan.sources[plan.sources.len() - 1]);
        let header = SegmentHeader {
            log_id: self.shared.log_id,
            number,
            generation: plan.sources.iter().map(|source| source.generation).max().unwrap_or(0) + 1,
            covers: (first.covers.0, last.covers.1),
            first_frame: first.first_frame,
        };
        let file = match self.fs.open(&path, Access::CreateNew) {
            Err(error) if is_full(&error) => return Ok(MergeProgress::NoRoom),
            opened => opened.map_err(Error::io("create", &path))?,
        };
        let prepared = file.allocate(plan.output_bytes).and_then(|()| file.write_all_at(&header.encode(), 0));
        self.job = Job::Copying(Box::new(Copying {
            sources: plan.sources,
            file,
            path: path.clone(),
            header,
            source: 0,
            offset: SEGMENT_HEADER_LEN as u32,
            frame: OutFrame::new(),
            end: SEGMENT_HEADER_LEN as u32,
            unsynced_bytes: 0,
            record_bytes: 0,
            marks: Vec::new(),
            mains: (i64::MAX, i64::MIN),
            wanted: Vec::new(),
        }));
        match prepared {
            Ok(()) => Ok(MergeProgress::Working(0)),
            Err(error) if is_full(&error) => self.give_up(),
            Err(error) => Err(Error::io("allocate", &path)(error)),
        }
    }

    /// Copies what is wanted of the next piece of the sources.
    ///
    /// # Errors
    /// [`Error::Damaged`], or [`Error::Io`] with `read`, if a source can't be read: the merge is to be given up
    /// ([`Merger::give_up`]), and nothing has changed. Any other failed operation: the member has to stop.
    ///
    /// # Panics
    /// If no merge is being copied.
    pub fn copy(&mut self, keeper: &mut dyn Keeper) -> Result<MergeProgress, Error> {
        let Job::Copying(copying) = &mut self.job else { panic!("no merge is being copied") };
        match copying.step(&self.shared, &self.limits, keeper) {
            Err(Error::Io { operation: "write", source, .. }) if is_full(&source) => self.give_up(),
            result => result,
        }
    }

    /// Removes the file that is being written; what was to be merged stays as it is.
    ///
    /// # Errors
    /// A failed operation; the member has to stop.
    pub fn give_up(&mut self) -> Result<MergeProgress, Error> {
        if let Job::Copying(copying) = std::mem::replace(&mut self.job, Job::Idle) {
            self.fs.remove(&copying.path).map_err(Error::io("remove", &copying.path))?;
        }
        Ok(MergeProgress::NoRoom)
    }

    /// Makes the merged segment count: durably on the disk first, then for readers. Everything that was not wanted must be
    /// so by what is durable in this log. The new segment's bytes.
    ///
    /// # Errors
    /// A failed operation, naming the file. The member has to stop.
    ///
    /// # Panics
    /// If no merge has been copied.
    pub fn publish(&mut self) -> Result<u64, Error> {
        let Job::Copying(copying) = std::mem::replace(&mut self.job, Job::Idle) else {
            panic!("no merge has been copied")
        };
        let Copying {
            sources, file, path: temporary, header, end, record_bytes, marks, mains, source, ..
        } = *copying;
        assert_eq!(source, sources.len(), "all sources are copied");
        file.set_len(end.into()).map_err(Error::io("cut", &temporary))?;
        file.sync_data().map_err(Error::io("sync", &temporary))?;
        // It is read back before its sources go: from the disk, not from memory.
        file.forget_cached().map_err(Error::io("read", &temporary))?;
        let path = self.dir.join(segment_name(header.number));
        self.fs.rename(&temporary, &path).map_err(Error::io("rename", &temporary))?;
        self.fs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;

        let merged = Segment::new(&header, file, path, SEGMENT_HEADER_LEN as u32);
        merged.extend(end, record_bytes);
        let merged = Arc::new(merged);
        self.shared.tail_mut().replace(merged.clone(), marks, mains);
        self.job = Job::Moving(Box::new(Moving {
            sources,
            merged,
            offset: SEGMENT_HEADER_LEN as u32,
            records: Vec::new(),
            done: 0,
            frame_len: 0,
            fates: Vec::new(),
        }));
        Ok(end.into())
    }

    /// Tells the owner of the next few records where they are now. They are read back from the merged segment, checked.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Io`] if it can't be read; the sources then stay, so what was not moved is there.
    ///
    /// # Panics
    /// If no merge was published.
    pub fn relocate(&mut self, keeper: &mut dyn Keeper) -> Result<MergeProgress, Error> {
        let Job::Moving(moving) = &mut self.job else { panic!("no merge was published") };
        moving.step(&self.shared, &self.limits, keeper)
    }

    /// Removes the sources. Nobody may hold a place in one of them any more.
    ///
    /// # Errors
    /// A failed operation; the member has to stop.
    ///
    /// # Panics
    /// If no merge was published.
    pub fn retire(&mut self) -> Result<(), Error> {
        let Job::Moving(moving) = std::mem::replace(&mut self.job, Job::Idle) else {
            panic!("no merge was published")
        };
        let mut tail = self.shared.tail_mut();
        moving.sources.iter().for_each(|source| tail.remove(source.number));
        drop(tail);
        for source in &moving.sources {
            self.fs.remove(&source.path).map_err(Error::io("remove", &source.path))?;
        }
        Ok(())
    }
}

impl Copying {
    fn step(
        &mut self,
        shared: &Shared,
        limits: &Limits,
        keeper: &mut dyn Keeper,
    ) -> Result<MergeProgress, Error> {
        let mut bytes = 0;
        let step_bytes = u64::from(limits.merge_step_bytes);
        while bytes < step_bytes && self.source < self.sources.len() {
            let source = self.sources[self.source].clone();
            let end = source.end();
            let mut scan = FrameScan::new(&*source.file, shared.log_id, end.into(), step_bytes as usize);
            while bytes < step_bytes && self.offset < end {
                let len = self.take_frame(&source, &mut scan, keeper)?;
                self.offset += len;
                bytes += u64::from(len);
                if self.frame.records_len() >= limits.merged_frame_bytes as usize {
                    bytes += self.write_frame(shared.log_id, limits)?;
                }
            }
            if self.offset >= end {
                self.source += 1;
                self.offset = SEGMENT_HEADER_LEN as u32;
            }
        }
        if self.source < self.sources.len() {
            return Ok(MergeProgress::Working(bytes));
        }
        bytes += self.write_frame(shared.log_id, limits)?;
        Ok(MergeProgress::Done(bytes))
    }

    /// Takes what is wanted of one frame; its length, bytes.
    fn take_frame(
        &mut self,
        source: &Segment,
        scan: &mut FrameScan<'_>,
        keeper: &mut dyn Keeper,
    ) -> Result<u32, Error> {
        let (path, at) = (&source.path, u64::from(self.offset));
        let damaged = |what: &str| Error::damaged(path, at, what);
        let header = scan.header(at).map_err(Error::io("read", path))?.map_err(damaged)?;
        let frame = scan.frame(at, header.number).map_err(Error::io("read", path))?.map_err(damaged)?;
        let records_at = self.offset + FRAME_HEADER_LEN as u32;
        let mut records = Records::new(frame.records);
        let mut chunk: Vec<Stored<'_>> = Vec::with_capacity(RECORDS_PER_CALL);
        loop {
            chunk.clear();
            for record in records.by_ref().take(RECORDS_PER_CALL) {
                let record = record.map_err(|_| damaged("a record runs past the end of its frame"))?;
                let at = Location::new(source.number, records_at + record.payload_at as u32);
                chunk.push(Stored { header: record.header, at, payload: record.payload });
            }
            let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { break };
            self.mains = (self.mains.0.min(first.header.main), self.mains.1.max(last.header.main));
            self.wanted.clear();
            keeper.wanted(&chunk, &mut self.wanted);
            assert_eq!(self.wanted.len(), chunk.len(), "an answer for each record");
            for (record, _) in chunk.iter().zip(&self.wanted).filter(|(_, wanted)| **wanted) {
                self.frame.push(record);
            }
        }
        self.frame.watermarks.get_or_insert((header.wal_durable, header.log_durable));
        self.frame.last = Some(header);
        Ok(header.frame_len() as u32)
    }

    /// Writes the frame that is being built, and begins the next; bytes written.
    fn write_frame(&mut self, log_id: u64, limits: &Limits) -> Result<u64, Error> {
        let frame = std::mem::replace(&mut self.frame, OutFrame::new());
        let (Some(last), Some((wal_durable, log_durable))) = (frame.last, frame.watermarks) else {
            return Ok(0);
        };
        let mut bytes = frame.bytes;
        let records_len = bytes.len() - FRAME_HEADER_LEN;
        assert!(
            records_len <= u32::MAX as usize,
            "a merged frame is no longer than one frame and a little more"
        );
        bytes.resize(bytes.len().next_multiple_of(FRAME_ALIGN as usize), 0);
        let header = FrameHeader {
            log_id,
            number: last.number,
            applied_index: last.applied_index,
            applied_term: last.applied_term,
            wal_durable,
            log_durable,
            records_len: records_len as u32,
            state_len: 0,
            record_count: frame.record_count,
            full_state: false,
            body_crc: crc32c::crc32c(&bytes[FRAME_HEADER_LEN..]),
        };
        bytes[..FRAME_HEADER_LEN].copy_from_slice(&header.encode());
        self.file.write_all_at(&bytes, self.end.into()).map_err(Error::io("write", &self.path))?;
        let at = Location::new(self.header.number, self.end);
        let marks_last = self.marks.last().map(|(_, last)| last);
        let is_due = marks_last.is_none_or(|last| at.offset() - last.offset() >= limits.mark_interval_bytes);
        self.marks.extend(frame.first_main.filter(|_| is_due).map(|main| (main, at)));
        self.record_bytes += records_len as u64;
        self.end += bytes.len() as u32;
        self.unsynced_bytes += bytes.len() as u64;
        // One sync of all would hold up those of the log.
        if self.unsynced_bytes >= limits.merge_dirty_bytes_max {
            self.file.sync_data().map_err(Error::io("sync", &self.path))?;
            self.unsynced_bytes = 0;
        }
        let written = bytes.len() as u64;
        bytes.truncate(FRAME_HEADER_LEN);
        self.frame.bytes = bytes;
        Ok(written)
    }
}

impl OutFrame {
    fn new() -> OutFrame {
        OutFrame {
            bytes: vec![0; FRAME_HEADER_LEN],
            record_count: 0,
            first_main: None,
            watermarks: None,
            last: None,
        }
    }

    fn records_len(&self) -> usize {
        self.bytes.len() - FRAME_HEADER_LEN
    }

    fn push(&mut self, record: &Stored<'_>) {
        push_record(&mut self.bytes, record.header, record.payload);
        self.first_main.get_or_insert(record.header.main);
        self.record_count += 1;
    }
}

impl Moving {
    fn step(
        &mut self,
        shared: &Shared,
        limits: &Limits,
        keeper: &mut dyn Keeper,
    ) -> Result<MergeProgress, Error> {
        let mut bytes = 0;
        if self.done == self.records.len() {
            self.offset += self.frame_len;
            if self.offset >= self.merged.end() {
                return Ok(MergeProgress::Done(0));
            }
            bytes += self.read_frame(shared, limits)?;
        }
        let records_at = self.offset + FRAME_HEADER_LEN as u32;
        let mut chunk: Vec<Stored<'_>> = Vec::with_capacity(RECORDS_PER_CALL);
        let mut done = self.done;
        for record in Records::new(&self.records[self.done..]).take(RECORDS_PER_CALL) {
            let damaged =
                || Error::damaged(&self.merged.path, self.offset.into(), "a record runs past its frame");
            let record = record.map_err(|_| damaged())?;
            let payload_at = self.done + record.payload_at;
            let at = Location::new(self.merged.number, records_at + payload_at as u32);
            done = payload_at + record.payload.len();
            chunk.push(Stored { header: record.header, at, payload: record.payload });
        }
        if !chunk.is_empty() {
            self.fates.clear();
            keeper.moved(&chunk, &mut self.fates);
            assert_eq!(self.fates.len(), chunk.len(), "an answer for each record");
            for (record, fate) in chunk.iter().zip(&self.fates).filter(|(_, fate)| **fate != Fate::Wanted) {
                let bytes = (RECORD_HEADER_LEN + record.payload.len()) as u64;
                self.merged.forget(bytes, *fate == Fate::DeadMarker);
            }
        }
        self.done = done;
        Ok(MergeProgress::Working(bytes))
    }

    fn read_frame(&mut self, shared: &Shared, limits: &Limits) -> Result<u64, Error> {
        let Segment { file, path, .. } = &*self.merged;
        let end = self.merged.end().into();
        let mut scan = FrameScan::new(&**file, shared.log_id, end, limits.merge_step_bytes as usize);
        let at = u64::from(self.offset);
        let damaged = |what: &str| Error::damaged(path, at, what);
        let header = scan.header(at).map_err(Error::io("read", path))?.map_err(damaged)?;
        let frame = scan.frame(at, header.number).map_err(Error::io("read", path))?.map_err(damaged)?;
        self.records.clear();
        self.records.extend_from_slice(frame.records);
        (self.done, self.frame_len) = (0, header.frame_len() as u32);
        Ok(header.frame_len())
    }
}

/// What a segment comes to when it is merged, bytes at most.
fn output_bytes(space: &SegmentSpace, may_drop_markers: bool, limits: &Limits) -> u64 {
    let kept_dead = if may_drop_markers { 0 } else { space.dead_marker_bytes };
    let dead = (space.dead_bytes - kept_dead).min(space.record_bytes);
    let records = space.record_bytes - dead;
    let frame_overhead = FRAME_HEADER_LEN as u64 + FRAME_ALIGN;
    let frames = records / u64::from(limits.merged_frame_bytes) + 1;
    SEGMENT_HEADER_LEN as u64 + records + frames * frame_overhead
}

/// Which neighbouring segments are worth a merge, of those that may be merged, in log order.
fn choose(spaces: &[SegmentSpace], limits: &Limits, worth: Worth) -> Option<Range<usize>> {
    let total: u64 = spaces.iter().map(|space| space.bytes).sum();
    let wanted: u64 = spaces.iter().map(|space| output_bytes(space, true, limits)).sum();
    if let Some(range) = choose_by(spaces, limits, worth, worth.share_percent) {
        return Some(range);
    }
    // What is dead may be spread thinly, or be markers that only what is dead before them keeps.
    let is_too_much = total.saturating_sub(wanted) * 100 >= total * worth.share_percent;
    let first = spaces.iter().position(|space| space.dead_bytes > 0).filter(|_| is_too_much && total > 0)?;
    let range = choose_by(&spaces[..=first], limits, worth, 0)?;
    (range.contains(&first)).then_some(range)
}

fn choose_by(
    spaces: &[SegmentSpace],
    limits: &Limits,
    worth: Worth,
    share_percent: u64,
) -> Option<Range<usize>> {
    let whole = u64::from(limits.segment_bytes);
    let output_max = whole.min(worth.output_bytes_max);
    let clean = spaces.iter().position(|space| space.dead_bytes > 0).unwrap_or(spaces.len());
    let outputs: Vec<u64> =
        spaces.iter().enumerate().map(|(at, space)| output_bytes(space, at <= clean, limits)).collect();
    let gains = |at: usize| {
        let gain = spaces[at].bytes.saturating_sub(outputs[at]);
        gain > 0 && gain * 100 >= spaces[at].bytes * share_percent
    };
    // One that is longer than a usual one was made so by a large frame, and is merged alone.
    let fits =
        |at: usize| outputs[at] <= output_max || outputs[at] > whole && worth.output_bytes_max >= outputs[at];
    let start = (0..spaces.len()).find(|at| gains(*at) && fits(*at))?;
    let (mut range, mut output, mut input) = (start..start + 1, outputs[start], spaces[start].bytes);
    let mut may_add = |at: usize| {
        let is_wanted = gains(at) || outputs[at] < whole / SMALL_PART;
        let adds = is_wanted
            && output + outputs[at] <= output_max
            && input + spaces[at].bytes <= whole * SOURCE_SEGMENTS_MAX;
        if adds {
            output += outputs[at];
            input += spaces[at].bytes;
        }
        adds
    };
    while range.end < spaces.len() && may_add(range.end) {
        range.end += 1;
    }
    while range.start > 0 && may_add(range.start - 1) {
        range.start -= 1;
    }
    Some(range)
}
