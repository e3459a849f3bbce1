//! Opening: everything is read and checked, nothing written, until [`Opened::into_parts`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::{Access, File, Fs, make_dir};

use super::builder::NextFrame;
use super::format::{FIRST_MERGED, SEGMENT_HEADER_LEN, SegmentHeader};
use super::format::{FRAME_HEADER_LEN, FrameScan, FrameView, HeaderFault, RecordHeader, Records, Rest};
use super::parse_segment_name;
use super::tail::{Marks, OpenFrame, Segment, Shared};
use super::writer::{Current, is_full};
use super::{Applied, Durable, Error, FrameBuilder, Limits, Location, Reader, Writer};

/// Why a caller's replay refuses a frame.
pub type ReplayError = Box<dyn std::error::Error + Send + Sync>;

/// Takes what the log holds when it is opened, in log order.
///
/// A frame's records come before its [`Replay::frame`]. What has been taken counts only once [`open`] has
/// succeeded: damage further on makes all of it void.
pub trait Replay {
    /// One record.
    ///
    /// # Errors
    /// If the payload makes no sense; the log is then refused with its place.
    fn record(&mut self, header: RecordHeader, at: Location, payload: &[u8]) -> Result<(), ReplayError>;

    /// The end of one frame, that is of one transaction. `full_state`: `state` is the whole small state, not
    /// only what changed. Frames of a merged segment have no state; a whole one always comes after them.
    ///
    /// # Errors
    /// If the state makes no sense; the log is then refused with its place.
    fn frame(&mut self, applied: Applied, state: &[u8], full_state: bool) -> Result<(), ReplayError>;

    /// `done` of `total` bytes have been read.
    fn progress(&mut self, done: u64, total: u64) {
        let _ = (done, total);
    }
}

/// A log that was read and checked, and not touched yet.
pub struct Opened {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    limits: Limits,
    log_id: u64,
    segments: Vec<Arc<Segment>>,
    marks: Marks,
    last_revision: (i64, i64),
    first_applied: Applied,
    first_wal_durable: u64,
    last: Durable,
    /// Where the first frame of the newest segment ends, or of the one before it if that has none.
    opening_end: u64,
    wal_durable: u64,
    log_durable: u64,
    torn: Option<Torn>,
    leftovers: Vec<String>,
    /// Of these, the segments that were merged into one that counts: what each covers, and its name.
    sources: Vec<((u32, u32), String)>,
}

/// Where bytes behind the last whole frame were found. They were never known durable and will be cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The newest segment.
    pub file: PathBuf,
    /// Where the first frame that does not verify begins, bytes from the file's start.
    pub offset: u64,
    /// What did not hold there.
    pub what: String,
}

/// Reads and checks the log in `dir`, gives its contents to `replay`, and writes nothing (rule 6). A folder
/// that is missing or holds no segment is an empty log; `new_log_id`, which must be random, becomes its id.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Unsupported`], [`Error::Replay`] with file and offset, or [`Error::Io`].
///
/// # Panics
/// If `limits` contradict each other or `new_log_id` is 0.
pub fn open(
    fs: Arc<dyn Fs>,
    dir: &Path,
    limits: Limits,
    new_log_id: u64,
    replay: &mut dyn Replay,
) -> Result<Opened, Error> {
    limits.check();
    assert_ne!(new_log_id, 0, "a log's id is random and not 0");
    let mut opened = Opened {
        fs,
        dir: dir.to_path_buf(),
        marks: Marks::new(&limits),
        last_revision: (0, -1),
        limits,
        log_id: new_log_id,
        segments: Vec::new(),
        first_applied: Applied::default(),
        first_wal_durable: 0,
        last: Durable::NOTHING,
        opening_end: 0,
        wal_durable: 0,
        log_durable: 0,
        torn: None,
        leftovers: Vec::new(),
        sources: Vec::new(),
    };
    let files = opened.list()?;
    if let Some(newest) = files.last() {
        // Older ones, and headers, were synced before the next segment got its name.
        newest.file.forget_cached().map_err(Error::io("read", &newest.path))?;
    }
    let mut progress = Progress { done: 0, total: files.iter().map(|file| file.len).sum() };
    for (at, file) in files.iter().enumerate() {
        if at == 0 {
            opened.log_id = file.header.log_id;
        }
        let replayed = opened.replay_segment(file, files.get(at + 1), replay, &mut progress);
        replayed.map_err(|error| opened.with_sources(error, file))?;
        progress.done += file.len;
        replay.progress(progress.done, progress.total);
    }
    Ok(opened)
}

impl Opened {
    /// Index and term of the last entry whose changes the log holds; zeros if it holds none.
    pub fn applied(&self) -> Applied {
        self.last.applied
    }

    /// Index and term at the end of the first frame; zeros if there is none.
    pub fn first_applied(&self) -> Applied {
        self.first_applied
    }

    /// Whether the log holds no frame.
    pub fn is_empty(&self) -> bool {
        self.last.frame == 0
    }

    /// Number of the last frame.
    pub fn last_frame(&self) -> u64 {
        self.last.frame
    }

    /// The index up to which the first frame says the write-ahead log had synced; 0 if there is none.
    pub fn first_wal_durable(&self) -> u64 {
        self.first_wal_durable
    }

    /// The highest index that a frame says the write-ahead log had synced.
    pub fn wal_durable(&self) -> u64 {
        self.wal_durable
    }

    /// The highest frame number that a frame says was durable in this log.
    pub fn log_durable(&self) -> u64 {
        self.log_durable
    }

    /// The tail that [`Opened::into_parts`] will cut off, if any.
    pub fn torn(&self) -> Option<&Torn> {
        self.torn.as_ref()
    }

    /// Checks that the log reaches `index`, which the caller knows from elsewhere to have been durable here
    /// (the newest snapshot record of the write-ahead log, or what its released entries prove; rule 5, ii).
    ///
    /// # Errors
    /// [`Error::Damaged`] at the place where the log ends too early.
    pub fn require_applied(&self, index: u64) -> Result<(), Error> {
        let applied = self.applied().index;
        if applied >= index {
            return Ok(());
        }
        let (file, offset) = self.end();
        let what = format!("the log ends at applied index {applied}, and {index} was durable");
        Err(Error::Damaged { file: file.to_owned(), offset, what })
    }

    /// The newest segment, and where in it the next frame goes, bytes; the folder if there is no segment.
    pub fn end(&self) -> (&Path, u64) {
        self.segments.last().map_or((&self.dir, 0), |last| (&last.path, u64::from(last.end())))
    }

    /// A reader of what was found, for who only reads: nothing is changed, and a torn tail stays where it is.
    pub fn into_reader(self) -> Reader {
        let end = self.segments.last();
        let end = end.map_or(Location::new(0, u32::MAX), |last| Location::new(last.number, last.end()));
        let next = NextFrame::after(end, self.last.frame + 1, self.opening_end, &self.limits);
        let open = OpenFrame::new(next.start, Vec::new(), self.last_revision);
        let parts = (self.segments, self.marks);
        Reader::new(Arc::new(Shared::new(self.log_id, &self.limits, parts, open, self.last.frame)))
    }

    /// Cuts the torn tail off, removes leftovers, makes what was read durable, and hands out the three parts.
    /// The caller has checked the log against the write-ahead log before: this is the first write.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn into_parts(mut self) -> Result<(FrameBuilder, Writer, Reader), Error> {
        make_dir(&*self.fs, &self.dir, 0o700).map_err(Error::io("create", &self.dir))?;
        let current = match self.segments.pop() {
            Some(last) => Some(self.reopen_last(&last)?),
            None => None,
        };
        self.fs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;

        let end = match &current {
            Some(current) => Location::new(current.segment.number, current.end),
            // Behind any segment number 0: the first frame begins segment 1.
            None => Location::new(0, u32::MAX),
        };
        self.segments.extend(current.as_ref().map(|current| current.segment.clone()));
        let next = match &current {
            // A segment without frames takes the next one however small its limit is.
            Some(current) if current.end == SEGMENT_HEADER_LEN as u32 => {
                NextFrame { start: end, number: self.last.frame + 1, opening_end: 0 }
            }
            _ => NextFrame::after(end, self.last.frame + 1, self.opening_end, &self.limits),
        };
        let open = OpenFrame::new(next.start, Vec::new(), self.last_revision);
        let shared = Arc::new(Shared::new(
            self.log_id,
            &self.limits,
            (self.segments, self.marks),
            open,
            self.last.frame,
        ));
        let writer = Writer::new(
            self.fs,
            self.dir,
            self.limits.clone(),
            shared.clone(),
            current,
            self.last,
            &self.leftovers,
        )?;
        Ok((
            FrameBuilder::new(shared.clone(), self.limits, next, self.last.applied, self.last_revision),
            writer,
            Reader::new(shared),
        ))
    }

    /// Opens the newest segment for writing, with zeros from its last frame on. What was read may have been
    /// in the page cache only, and the next frame says that it is durable: so it is synced.
    fn reopen_last(&self, last: &Segment) -> Result<Current, Error> {
        let (path, end) = (&last.path, last.end());
        let file = self.fs.open(path, Access::ReadWrite).map_err(Error::io("open", path))?;
        if self.torn.is_some() {
            file.set_len(u64::from(end)).map_err(Error::io("cut", path))?;
        }
        let len = u64::from(self.limits.segment_bytes).max(u64::from(end));
        let allocated = match file.allocate(len) {
            Ok(()) => len,
            // There may still be room for smaller steps.
            Err(error) if is_full(&error) => u64::from(end),
            Err(error) => return Err(Error::io("allocate", path)(error)),
        };
        file.sync_data().map_err(Error::io("sync", path))?;
        let header = SegmentHeader::appended(self.log_id, last.number, last.first_frame);
        let segment = Segment::new(&header, file, path.clone(), SEGMENT_HEADER_LEN as u32);
        segment.extend(end, last.space().record_bytes);
        Ok(Current { segment: Arc::new(segment), end, allocated })
    }

    /// The segments in order with their headers checked, and the leftovers of an earlier run noted.
    fn list(&mut self) -> Result<Vec<SegmentFile>, Error> {
        let mut files: Vec<SegmentFile> = Vec::new();
        if !self.fs.exists(&self.dir).map_err(Error::io("find", &self.dir))? {
            return Ok(files);
        }
        for name in self.fs.list(&self.dir).map_err(Error::io("list", &self.dir))? {
            let path = self.dir.join(&name);
            if name.ends_with(".tmp") {
                self.leftovers.push(name);
            } else if name.ends_with(".seg") {
                let Some(number) = parse_segment_name(&name) else {
                    return Err(Error::damaged(&path, 0, "not the name of a segment"));
                };
                files.push(SegmentFile::open(&*self.fs, path, number)?);
            }
        }
        let mut files = self.without_merged(files)?;
        files.sort_by_key(|file| file.header.covers.0);
        for pair in files.windows(2) {
            let [before, after] = pair else { unreachable!("windows of two") };
            let what = if after.header.log_id != before.header.log_id {
                "the segment belongs to another log"
            } else if after.header.covers.0 != before.header.covers.1 + 1 {
                "the segment before this one is missing"
            } else if after.header.first_frame < before.header.first_frame {
                "the segment begins before the one before it"
            } else {
                continue;
            };
            return Err(Error::damaged(&after.path, 0, what));
        }
        // A merge leaves the newest out.
        if let Some(last) = files.last().filter(|last| last.header.is_merged()) {
            return Err(Error::damaged(&last.path, 0, "the segment after this one is missing"));
        }
        if let Some(first) = files.first().filter(|first| first.header.first_frame != 1) {
            return Err(Error::damaged(&first.path, 0, "the log's first segment is missing"));
        }
        Ok(files)
    }

    /// Sets those aside that were merged into another one: the run before this ended before it could remove them.
    fn without_merged(&mut self, mut files: Vec<SegmentFile>) -> Result<Vec<SegmentFile>, Error> {
        let mut merged: Vec<SegmentHeader> =
            files.iter().map(|file| file.header).filter(SegmentHeader::is_merged).collect();
        // What was merged again is covered by a later merge.
        merged.sort_unstable_by_key(|header| std::cmp::Reverse(header.generation));
        for by in merged {
            if !files.iter().any(|file| file.number == by.number) {
                continue;
            }
            let (first, last) = by.covers;
            let mut left = Vec::with_capacity(files.len());
            for file in files {
                let (own_first, own_last) = file.header.covers;
                let is_apart = own_last < first || last < own_first;
                let is_older = file.header.generation < by.generation;
                if is_apart || file.number == by.number {
                    left.push(file);
                } else if is_older && first <= own_first && own_last <= last {
                    let name = file.path.file_name().map(|name| name.to_string_lossy().into_owned());
                    self.leftovers.extend(name.clone());
                    self.sources.extend(name.map(|name| (file.header.covers, name)));
                } else if is_older || file.header.generation == by.generation {
                    let what = format!("what it covers and what segment {} covers overlap", by.number);
                    return Err(Error::damaged(&file.path, 32, what));
                } else {
                    left.push(file);
                }
            }
            files = left;
        }
        Ok(files)
    }

    /// Adds to what is wrong with a merged segment that all of its sources are still there: without it they count again.
    fn with_sources(&self, error: Error, segment: &SegmentFile) -> Error {
        let Error::Damaged { file, offset, what } = error else { return error };
        let (mut next, last) = segment.header.covers;
        let mut sources: Vec<_> =
            self.sources.iter().filter(|((first, _), _)| (next..=last).contains(first)).collect();
        sources.sort();
        let mut names = Vec::new();
        for ((first, last), name) in sources {
            if *first == next {
                next = last + 1;
                names.push(name.as_str());
            }
        }
        let what = match next > last && segment.header.is_merged() {
            true => format!(
                "{what}; what it was merged from is still there, and counts without it: {}",
                names.join(", ")
            ),
            false => what,
        };
        Error::Damaged { file, offset, what }
    }

    fn replay_segment(
        &mut self,
        file: &SegmentFile,
        next: Option<&SegmentFile>,
        replay: &mut dyn Replay,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let chunk_bytes = self.limits.read_chunk_bytes as usize;
        // Locations are 32 bits within a segment; what lies behind is no frame's.
        let end = file.len.min(u64::from(u32::MAX));
        let mut scan = FrameScan::new(&*file.file, self.log_id, end, chunk_bytes);
        let segment =
            Segment::new(&file.header, file.file.clone(), file.path.clone(), SEGMENT_HEADER_LEN as u32);
        let mut at = SEGMENT_HEADER_LEN as u64;
        let mut reported = 0;
        loop {
            let number = self.last.frame + 1;
            if next.is_some_and(|next| next.header.first_frame == number) {
                break;
            }
            let number = match next {
                // A frame of a merged segment stands for all up to its number.
                Some(next) if file.header.is_merged() => {
                    match scan.header(at).map_err(Error::io("read", &file.path))? {
                        Ok(header) if (number..next.header.first_frame).contains(&header.number) => {
                            header.number
                        }
                        Ok(_) => {
                            return Err(Error::damaged(&file.path, at, "the frame is not one that follows"));
                        }
                        Err(what) => return Err(Error::damaged(&file.path, at, what)),
                    }
                }
                _ => number,
            };
            match scan.frame(at, number).map_err(Error::io("read", &file.path))? {
                Ok(frame) => {
                    self.replay_frame(file, at, &frame, replay)?;
                    at += frame.header.frame_len();
                    segment.extend(at as u32, frame.records.len() as u64);
                }
                // The next segment's header was written after all of this one was durable.
                Err(what) if next.is_some() => return Err(Error::damaged(&file.path, at, what)),
                // What is before the newest segment is merged once a frame of that is durable, and has no state.
                Err(what)
                    if self.segments.last().is_some_and(|last| last.number >= FIRST_MERGED)
                        && is_first(at) =>
                {
                    let what =
                        format!("{what}, and the segment before this one was merged when it was durable");
                    return Err(Error::damaged(&file.path, at, what));
                }
                Err(what) => {
                    self.torn = find_torn(&mut scan, file, at, number, what)?;
                    break;
                }
            }
            if at - reported >= self.limits.read_chunk_bytes.into() {
                reported = at;
                replay.progress(progress.done + at, progress.total);
            }
        }
        self.segments.push(Arc::new(segment));
        Ok(())
    }

    fn replay_frame(
        &mut self,
        file: &SegmentFile,
        at: u64,
        frame: &FrameView<'_>,
        replay: &mut dyn Replay,
    ) -> Result<(), Error> {
        let FrameView { header, records, state } = frame;
        let applied = Applied { index: header.applied_index, term: header.applied_term };
        let damaged = |what: &str| Err(Error::damaged(&file.path, at, what));
        if header.log_durable >= header.number || header.log_durable < self.log_durable {
            return damaged("the frame's watermark of the revision log contradicts its place");
        }
        if applied.index < self.last.applied.index || applied.term < self.last.applied.term {
            return damaged("the applied index or term steps back");
        }
        let opens_segment = is_first(at);
        if header.full_state != (opens_segment && !file.header.is_merged()) {
            return damaged("the whole state is not where a segment begins");
        }
        if file.header.is_merged() && !state.is_empty() {
            return damaged("a merged frame has no state");
        }
        let records_at = at + FRAME_HEADER_LEN as u64;
        self.marks.note(Location::new(file.number, at as u32), records);
        let refused = |offset| {
            let file = file.path.clone();
            move |source| Error::Replay { file, offset, source }
        };
        let mut count = 0_u32;
        for record in Records::new(records) {
            let Ok(record) = record else { return damaged("a record runs past the end of its frame") };
            let offset = records_at + record.payload_at as u64;
            let location = Location::new(file.number, offset as u32);
            let revision = (record.header.main, record.header.sub);
            // Scans begin by revision, so they rely on this.
            if revision <= self.last_revision {
                return damaged("a record's revision is not above the one before it");
            }
            self.last_revision = revision;
            replay.record(record.header, location, record.payload).map_err(refused(offset))?;
            count += 1;
        }
        if count != header.record_count {
            return damaged("the frame holds another number of records than it says");
        }
        replay.frame(applied, state, header.full_state).map_err(refused(at))?;

        if self.last.frame == 0 {
            self.first_applied = applied;
            self.first_wal_durable = header.wal_durable;
        }
        if opens_segment {
            self.opening_end = at + header.frame_len();
        }
        self.last = Durable { frame: header.number, applied };
        self.wal_durable = self.wal_durable.max(header.wal_durable);
        self.log_durable = header.log_durable;
        Ok(())
    }
}

/// One segment file with a header that holds.
struct SegmentFile {
    number: u32,
    path: PathBuf,
    file: Arc<dyn File>,
    len: u64,
    header: SegmentHeader,
}

impl SegmentFile {
    fn open(fs: &dyn Fs, path: PathBuf, number: u32) -> Result<SegmentFile, Error> {
        let file = fs.open(&path, Access::Read).map_err(Error::io("open", &path))?;
        let len = file.len().map_err(Error::io("measure", &path))?;
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        let held = &mut bytes[..len.min(SEGMENT_HEADER_LEN as u64) as usize];
        file.read_exact_at(held, 0).map_err(Error::io("read", &path))?;
        // The header was durable before the file had its name: it is never torn.
        let header = SegmentHeader::decode(held).map_err(|fault| match fault {
            HeaderFault::Damaged(offset, what) => Error::Damaged { file: path.clone(), offset, what },
            HeaderFault::Unsupported(offset, what) => Error::Unsupported { file: path.clone(), offset, what },
        })?;
        if header.number != number {
            return Err(Error::damaged(&path, 0, format!("the header is that of segment {}", header.number)));
        }
        Ok(SegmentFile { number, path, file, len, header })
    }
}

/// Whether a frame at this offset is its segment's first.
fn is_first(at: u64) -> bool {
    at == SEGMENT_HEADER_LEN as u64
}

struct Progress {
    done: u64,
    total: u64,
}

/// Judges the place at which the newest segment stops verifying (rule 5): damage if a later frame vouches
/// that this one was durable, else torn, or simply the end if only zeros follow.
fn find_torn(
    scan: &mut FrameScan<'_>,
    file: &SegmentFile,
    at: u64,
    number: u64,
    what: &str,
) -> Result<Option<Torn>, Error> {
    match scan.survey(at, number).map_err(Error::io("read", &file.path))? {
        Rest::Zero => Ok(None),
        Rest::Unvouched => Ok(Some(Torn { file: file.path.clone(), offset: at, what: what.to_owned() })),
        Rest::Vouched { by } => {
            let what = format!("{what}, and the frame at offset {by} says that it was durable");
            Err(Error::Damaged { file: file.path.clone(), offset: at, what })
        }
    }
}
