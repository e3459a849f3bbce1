use std::ops::ControlFlow;
use std::sync::Arc;

use super::format::SEGMENT_HEADER_LEN;
use super::format::{FIRST_MERGED, FRAME_HEADER_LEN, FrameScan, RECORD_HEADER_LEN, RecordHeader, Records};
use super::tail::{FrameBuf, Segment, Shared, Tail};
use super::{Error, Location, Space};

/// Reads records; shared by every thread that reads (cloning is one reference count).
///
/// A payload that is read alone is not checked against its frame's checksum: that was done when the log was
/// opened, and [`Reader::scan`] does it again.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// Where a payload was found. What has been copied under the lock needs nothing more.
enum Place {
    File(Arc<Segment>),
    Frame(Arc<FrameBuf>),
    Copied,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared }
    }

    /// Fills `out` with the payload at `at`, whose length the caller knows. To read
    /// nothing always succeeds.
    ///
    /// # Errors
    /// [`Error::NoSuchRecord`] if the log has no such bytes; [`Error::Io`] if the file can't be read.
    pub fn read(&self, at: Location, out: &mut [u8]) -> Result<(), Error> {
        match self.find(at, out)? {
            Place::File(segment) => segment
                .file
                .read_exact_at(out, u64::from(at.offset()))
                .map_err(Error::io("read", &segment.path)),
            Place::Frame(frame) => copy_from(&frame, at, out),
            Place::Copied => Ok(()),
        }
    }

    /// As [`Reader::read`], but `Ok(false)` (and `out` unspecified) where it would wait for a disk.
    pub fn read_nowait(&self, at: Location, out: &mut [u8]) -> Result<bool, Error> {
        match self.find(at, out)? {
            Place::File(segment) => segment
                .file
                .read_exact_at_nowait(out, u64::from(at.offset()))
                .map_err(Error::io("read", &segment.path)),
            Place::Frame(frame) => copy_from(&frame, at, out).map(|()| true),
            Place::Copied => Ok(true),
        }
    }

    /// Visits all records in log order, that is revision order, whose main revision is `from` or above and that were
    /// pushed before the call, until the visitor breaks. What a merge leaves out meanwhile may be shown or not. Frames that
    /// are in memory only are included. The file is read in large chunks, beginning shortly before the first record wanted;
    /// every frame's checksum is verified before its records are shown, and memory is bounded by the read chunk or the
    /// largest frame.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Damaged`] if a frame no longer verifies.
    pub fn scan(
        &self,
        from: i64,
        visit: impl FnMut(RecordHeader, Location, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut scan = Scan { next: (from, i64::MIN), until: self.shared.open().last_revision, visit };
        let Some(mut at) = self.first_frame(from) else { return Ok(()) };
        while scan.next <= scan.until {
            let flow = match self.stretch(at, scan.next.0) {
                Stretch::File(segment, offset) => {
                    let (flow, end) = self.scan_file(&mut scan, &segment, offset)?;
                    at = Location::new(segment.number, end);
                    flow
                }
                Stretch::Memory(frames) => scan_memory(&mut scan, &frames, &mut at),
                Stretch::Open(start, records) => {
                    let flow = scan.records(&records, Location(start.0 + FRAME_HEADER_LEN as u64));
                    let _stopped = flow.expect("records that this program pushed are whole");
                    return Ok(());
                }
            };
            if flow.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The records at these places, of so many bytes of payload each, are not wanted any more. A *marker* says that
    /// something before it is gone: a merge keeps it as long as there is something dead before it.
    pub fn forget(&self, records: impl IntoIterator<Item = (Location, u32, bool)>) {
        let tail = self.shared.tail();
        for (at, len, is_marker) in records {
            if let Some(segment) = tail.segment(at.segment()) {
                segment.forget(u64::from(len) + RECORD_HEADER_LEN as u64, is_marker);
            } else {
                self.shared.forget_early(at.segment(), u64::from(len) + RECORD_HEADER_LEN as u64, is_marker);
            }
        }
    }

    /// Bytes of finished frames that the writer has not written yet.
    pub fn unwritten_bytes(&self) -> u64 {
        self.shared.tail().frame_bytes
    }

    /// Bytes of the log in files, without what is allocated ahead.
    pub fn written_bytes(&self) -> u64 {
        self.space().bytes
    }

    /// What the log takes, and what of it is dead.
    pub fn space(&self) -> Space {
        let tail = self.shared.tail();
        let mut space = Space { segments: tail.segments().len() as u64, ..Space::default() };
        for segment in tail.segments() {
            let own = segment.space();
            space.record_bytes += own.record_bytes;
            space.dead_bytes += own.dead_bytes.min(own.record_bytes);
        }
        space.bytes = tail.files().map(|segment| u64::from(segment.end())).sum();
        space
    }

    /// Checks the invariants of what is shared.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&self) {
        let open = self.shared.open();
        let tail = self.shared.tail();
        tail.check();
        if let Some(last) = tail.frames.back() {
            assert!(last.end() <= open.start.0, "frame at {} reaches into the open one", last.start);
        }
    }

    fn find(&self, at: Location, out: &mut [u8]) -> Result<Place, Error> {
        // A record without payload may be located at the end of its frame, where the next one's bytes are.
        if out.is_empty() {
            return Ok(Place::Copied);
        }
        // What the second pass does not find does not exist: see the module's documentation.
        for _ in 0..2 {
            if let Some(place) = self.find_finished(at, out.len()) {
                return Ok(place);
            }
            let open = self.shared.open();
            if at >= open.start && !at.is_merged() {
                let from = (at.0 - open.start.0) as usize;
                let bytes = from.checked_add(out.len()).and_then(|end| open.bytes.get(from..end));
                if let Some(bytes) = bytes.filter(|_| from >= FRAME_HEADER_LEN) {
                    out.copy_from_slice(bytes);
                    return Ok(Place::Copied);
                }
                break;
            }
        }
        Err(Error::NoSuchRecord { at, len: out.len() })
    }

    fn find_finished(&self, at: Location, len: usize) -> Option<Place> {
        let tail = self.shared.tail();
        if !at.is_merged() && tail.frames.front().is_some_and(|first| first.start <= at) {
            let behind = tail.frames.partition_point(|frame| frame.start <= at);
            let frame = &tail.frames[behind - 1];
            let room = frame.bytes.len() as u64;
            let inside = (at.0 - frame.start.0).saturating_add(len as u64) <= room;
            return inside.then(|| Place::Frame(frame.clone()));
        }
        let segment = tail.segment(at.segment())?;
        let inside = at.offset() as usize >= SEGMENT_HEADER_LEN
            && u64::from(at.offset()) + len as u64 <= u64::from(segment.end());
        inside.then(|| Place::File(segment.clone()))
    }

    /// A frame before which no record has this main revision; the log's first one if nothing better is known.
    fn first_frame(&self, main: i64) -> Option<Location> {
        let open_start = self.shared.open().start;
        let tail = self.shared.tail();
        if let Some(marked) = tail.marks.seek(main) {
            return Some(marked);
        }
        let number = tail
            .segments()
            .iter()
            .map(|segment| segment.number)
            .chain(tail.frames.iter().map(|frame| frame.start.segment()))
            .chain([open_start.segment()])
            .next()?;
        Some(Location::new(number, SEGMENT_HEADER_LEN as u32))
    }

    /// What follows at the frame boundary `at`, where the next record wanted has `main` or a higher main revision.
    fn stretch(&self, at: Location, main: i64) -> Stretch {
        if let Some(stretch) = finished_stretch(&self.shared.tail(), at, main) {
            return stretch;
        }
        let open = self.shared.open();
        // A frame finished since is found now; while the open one is locked, none can be.
        let finished = finished_stretch(&self.shared.tail(), at, main);
        finished.unwrap_or_else(|| Stretch::Open(open.start, open.bytes[FRAME_HEADER_LEN..].to_vec()))
    }

    /// Shows what a file holds from a frame boundary on; where it stopped.
    fn scan_file(
        &self,
        scan: &mut Scan<impl FnMut(RecordHeader, Location, &[u8]) -> ControlFlow<()>>,
        segment: &Segment,
        mut offset: u32,
    ) -> Result<(ControlFlow<()>, u32), Error> {
        let Segment { number, file, path, .. } = segment;
        let end = segment.end();
        let mut frames =
            FrameScan::new(&**file, self.shared.log_id, end.into(), self.shared.read_chunk_bytes);
        while offset < end && scan.next <= scan.until {
            let at = u64::from(offset);
            let read = Error::io("read", path);
            let damaged = |what: &str| Error::damaged(path, at, what);
            let header = frames.header(at).map_err(Error::io("read", path))?.map_err(damaged)?;
            let frame = frames.frame(at, header.number).map_err(read)?.map_err(damaged)?;
            let records_at = Location::new(*number, offset + FRAME_HEADER_LEN as u32);
            match scan.records(frame.records, records_at) {
                Ok(ControlFlow::Continue(())) => (),
                Ok(ControlFlow::Break(())) => return Ok((ControlFlow::Break(()), offset)),
                Err(_) => return Err(damaged("a record runs past the end of its frame")),
            }
            offset += header.frame_len() as u32;
        }
        Ok((ControlFlow::Continue(()), offset))
    }
}

/// What follows at `at`, as far as it is finished. Where `at` was merged away meanwhile, the place to go on from is found
/// by revision: records ascend by it, and those that were seen are not shown again.
fn finished_stretch(tail: &Tail, at: Location, main: i64) -> Option<Stretch> {
    let segments = tail.segments();
    let newest = segments.last().map_or(0, |last| last.number);
    let is_ahead = (newest + 1..FIRST_MERGED).contains(&at.segment());
    match tail.position(at.segment()) {
        Some(place) if at.offset() < segments[place].end() => {
            return Some(Stretch::File(segments[place].clone(), at.offset()));
        }
        Some(place) if place + 1 < segments.len() => {
            return Some(Stretch::File(segments[place + 1].clone(), SEGMENT_HEADER_LEN as u32));
        }
        Some(_) => {}
        None if is_ahead => {}
        None => {
            let (place, offset) = match tail.marks.seek(main) {
                Some(mark) => (tail.position(mark.segment())?, mark.offset()),
                None => (0, SEGMENT_HEADER_LEN as u32),
            };
            return Some(Stretch::File(segments.get(place)?.clone(), offset));
        }
    }
    let behind = tail.frames.partition_point(|frame| frame.start < at);
    (behind < tail.frames.len()).then(|| Stretch::Memory(tail.frames.range(behind..).cloned().collect()))
}

/// One call of [`Reader::scan`].
struct Scan<V> {
    /// The lowest revision that was not shown and is wanted.
    next: (i64, i64),
    /// The last one that there was when the scan began.
    until: (i64, i64),
    visit: V,
}

impl<V: FnMut(RecordHeader, Location, &[u8]) -> ControlFlow<()>> Scan<V> {
    /// `Err` holds where in the frame a record is malformed.
    fn records(&mut self, records: &[u8], records_at: Location) -> Result<ControlFlow<()>, usize> {
        for record in Records::new(records) {
            let record = record?;
            let at = Location(records_at.0 + record.payload_at as u64);
            let revision = (record.header.main, record.header.sub);
            if revision > self.until {
                return Ok(ControlFlow::Break(()));
            }
            if revision < self.next {
                continue;
            }
            self.next = (revision.0, revision.1.saturating_add(1));
            if (self.visit)(record.header, at, record.payload).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// What a scan finds next.
enum Stretch {
    /// A file from an offset on, which may be its end.
    File(Arc<Segment>, u32),
    Memory(Vec<Arc<FrameBuf>>),
    /// The frame being built, with a copy of its records: the visitor runs without the lock.
    Open(Location, Vec<u8>),
}

fn scan_memory(
    scan: &mut Scan<impl FnMut(RecordHeader, Location, &[u8]) -> ControlFlow<()>>,
    frames: &[Arc<FrameBuf>],
    at: &mut Location,
) -> ControlFlow<()> {
    for frame in frames {
        let records = &frame.bytes[FRAME_HEADER_LEN..FRAME_HEADER_LEN + frame.records_len];
        let flow = scan.records(records, Location(frame.start.0 + FRAME_HEADER_LEN as u64));
        flow.expect("records that this program pushed are whole")?;
        *at = Location(frame.end());
    }
    ControlFlow::Continue(())
}

fn copy_from(frame: &FrameBuf, at: Location, out: &mut [u8]) -> Result<(), Error> {
    let from = (at.0 - frame.start.0) as usize;
    let bytes = frame.bytes.get(from..from + out.len()).filter(|_| from >= FRAME_HEADER_LEN);
    out.copy_from_slice(bytes.ok_or(Error::NoSuchRecord { at, len: out.len() })?);
    Ok(())
}
