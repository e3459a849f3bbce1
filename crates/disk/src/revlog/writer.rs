use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::fs::{Access, File, Fs};

use super::format::{FRAME_HEADER_LEN, SEGMENT_HEADER_LEN, SegmentHeader};
use super::tail::{FrameBuf, Segment, Shared};
use super::{Applied, Durable, Error, Frame, Limits, Location, Merger, segment_name};

/// Puts frames into files and makes them durable; the revision log's own thread's.
///
/// After the first failure nothing is tried any more: every call answers [`Error::Stopped`] (rule 7).
pub struct Writer {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    limits: Limits,
    shared: Arc<Shared>,
    current: Option<Current>,
    /// Files allocated ahead, to become the next segments.
    spares: VecDeque<Spare>,
    spares_made: u64,
    /// What the last sync covers.
    durable: Durable,
    /// What the last write covers.
    written: Durable,
    /// Bytes written since the last sync.
    dirty_bytes: u64,
    failure: Option<String>,
}

/// The segment that frames go to.
pub(super) struct Current {
    pub segment: Arc<Segment>,
    /// Offset behind the last frame.
    pub end: u32,
    /// Bytes that the file system has promised to hold.
    pub allocated: u64,
}

struct Spare {
    file: Arc<dyn File>,
    path: PathBuf,
    /// Bytes that the file system has promised to hold.
    allocated: u64,
}

impl Writer {
    pub(super) fn new(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        limits: Limits,
        shared: Arc<Shared>,
        current: Option<Current>,
        durable: Durable,
        leftovers: &[String],
    ) -> Result<Writer, Error> {
        let mut writer = Writer {
            fs,
            dir,
            limits,
            shared,
            current,
            spares: VecDeque::new(),
            spares_made: 0,
            durable,
            written: durable,
            dirty_bytes: 0,
            failure: None,
        };
        for name in leftovers {
            writer.take_leftover(name)?;
        }
        writer.allocate_ahead()?;
        Ok(writer)
    }

    /// Reserves what the next frame takes, unless that is done, at the price of the spares if need be. Whether
    /// there is room: if not, the disk is full, nothing is written, and the frame has to wait until this says yes
    /// (rule 7).
    ///
    /// # Errors
    /// Any failed operation but for want of space, naming the file. The member has to stop.
    pub fn make_room(&mut self, frame: &Frame) -> Result<bool, Error> {
        self.guard(|writer| writer.try_make_room(&frame.buf))
    }

    /// Hands the next frame to the file system; its memory is given back and readers go to the file. The
    /// caller sees to it that the write-ahead log has synced [`Frame::applied`] before (rule 2), and that there is
    /// room ([`Writer::make_room`]). Syncs first if more than [`Limits::dirty_bytes_max`] would be dirty, and what is
    /// written where a segment ends.
    ///
    /// # Errors
    /// Any failed operation, naming the file; a full disk is one. The member has to stop.
    ///
    /// # Panics
    /// If frames come in another order than the builder finished them.
    pub fn write(&mut self, frame: Frame) -> Result<(), Error> {
        self.guard(|writer| {
            if !writer.try_make_room(&frame.buf)? {
                return Err(Error::io("allocate", &writer.dir)(io::ErrorKind::StorageFull.into()));
            }
            writer.try_write(frame)
        })
    }

    /// Makes everything written durable, and says how far that is. Nothing waits for this but memory of the
    /// write-ahead log and the next frames' watermarks.
    ///
    /// # Errors
    /// The failed sync, naming the file. It is never tried again; the member has to stop.
    pub fn sync(&mut self) -> Result<Durable, Error> {
        self.guard(|writer| {
            writer.try_sync()?;
            writer.allocate_ahead()
        })?;
        Ok(self.durable)
    }

    /// What the last sync covers.
    pub fn durable(&self) -> Durable {
        self.durable
    }

    /// What has been written, synced or not.
    pub fn written(&self) -> Durable {
        self.written
    }

    /// Whether the next segments could be allocated ahead. If not, the disk is as good as full: the caller
    /// refuses what grows the data, and what is left of the allocated segments is the reserve in which
    /// deletes, compaction and reads go on (rule 7). Asked again after each sync.
    pub fn has_room(&self) -> bool {
        self.spares.len() >= self.limits.spare_segments as usize
    }

    /// The part that merges segments; there is to be one.
    pub fn merger(&self) -> Merger {
        Merger::new(self.fs.clone(), self.dir.clone(), self.limits.clone(), self.shared.clone())
    }

    fn guard<T>(&mut self, operation: impl FnOnce(&mut Writer) -> Result<T, Error>) -> Result<T, Error> {
        if let Some(cause) = &self.failure {
            return Err(Error::Stopped { cause: cause.clone() });
        }
        let result = operation(self);
        if let Err(error) = &result {
            self.failure = Some(error.to_string());
        }
        result
    }

    fn try_write(&mut self, frame: Frame) -> Result<(), Error> {
        let Frame { buf, applied } = frame;
        assert_eq!(buf.number, self.written.frame + 1, "frames are written in order");
        let len = buf.bytes.len() as u64;
        if self.dirty_bytes > 0 && self.dirty_bytes + len > self.limits.dirty_bytes_max {
            self.try_sync()?;
        }
        if self.current.as_ref().is_none_or(|current| current.segment.number != buf.start.segment()) {
            self.roll(buf.start, buf.number)?;
        }
        let end = u64::from(buf.start.offset()) + len;
        let current = self.current.as_mut().expect("rolled to a segment");
        let at = Location::new(current.segment.number, current.end);
        assert_eq!(buf.start, at, "a frame begins where the last one ended");
        let segment = &current.segment;
        segment
            .file
            .write_all_at(&buf.bytes, u64::from(at.offset()))
            .map_err(Error::io("write", &segment.path))?;
        current.end = u32::try_from(end).expect("the builder bounds a segment to 4 GiB");
        self.dirty_bytes += len;
        self.written = Durable { frame: buf.number, applied };

        // One critical section: a reader finds the frame in memory before it, and in the file after it.
        let mut tail = self.shared.tail_mut();
        segment.extend(current.end, buf.records_len as u64);
        tail.marks.note(buf.start, &buf.bytes[FRAME_HEADER_LEN..FRAME_HEADER_LEN + buf.records_len]);
        let front = tail.frames.pop_front().expect("a frame stays in memory until it is written");
        tail.frame_bytes -= len;
        drop(tail);
        assert_eq!(front.number, buf.number, "the oldest frame in memory is the one written");
        drop(front);
        self.shared.recycle(buf);
        Ok(())
    }

    fn try_sync(&mut self) -> Result<(), Error> {
        if let Some(current) = self.current.as_ref().filter(|_| self.dirty_bytes > 0) {
            let segment = &current.segment;
            segment.file.sync_data().map_err(Error::io("sync", &segment.path))?;
        }
        self.dirty_bytes = 0;
        self.durable = self.written;
        self.shared.durable.store(self.durable.frame, Ordering::Release);
        Ok(())
    }

    /// Seals the current segment and begins the one that `start` is in. The order makes a segment's existence
    /// prove that all before it is whole: old segment durable, then the new header durable, then its name.
    fn roll(&mut self, start: Location, first_frame: u64) -> Result<(), Error> {
        if let Some(current) = &self.current {
            assert_eq!(start.segment(), current.segment.number + 1, "segments follow each other");
            let Segment { file, path, .. } = &*current.segment;
            if current.allocated > u64::from(current.end) {
                file.set_len(u64::from(current.end)).map_err(Error::io("cut", path))?;
            }
        }
        self.try_sync()?;
        let spare = self.spares.pop_front().expect("room was made");
        let header = SegmentHeader::appended(self.shared.log_id, start.segment(), first_frame);
        spare.file.write_all_at(&header.encode(), 0).map_err(Error::io("write", &spare.path))?;
        spare.file.sync_data().map_err(Error::io("sync", &spare.path))?;
        let path = self.dir.join(segment_name(start.segment()));
        self.fs.rename(&spare.path, &path).map_err(Error::io("rename", &spare.path))?;
        self.fs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;

        let end = SEGMENT_HEADER_LEN as u32;
        let segment = Arc::new(Segment::new(&header, spare.file, path, end));
        let mut tail = self.shared.tail_mut();
        tail.push(segment.clone());
        self.shared.tell_early(&segment);
        drop(tail);
        self.current = Some(Current { segment, end, allocated: spare.allocated });
        self.allocate_ahead()
    }

    /// See [`Writer::make_room`].
    fn try_make_room(&mut self, frame: &FrameBuf) -> Result<bool, Error> {
        let end = u64::from(frame.start.offset()) + frame.bytes.len() as u64;
        if let Some(current) = &self.current
            && current.segment.number == frame.start.segment()
        {
            let (segment, allocated) = (current.segment.clone(), current.allocated);
            let reserved = self.reserve(&*segment.file, &segment.path, allocated, end)?;
            if let Some(current) = &mut self.current {
                current.allocated = current.allocated.max(reserved);
            }
            return Ok(reserved >= end);
        }
        // With the reserve used up, a small frame may still fit.
        let whole = u64::from(self.limits.segment_bytes);
        if self.spares.is_empty() && !self.add_spare(whole)? && !self.add_spare(end)? {
            return Ok(false);
        }
        let mut spare = self.spares.pop_front().expect("there is one");
        let reserved = self.reserve(&*spare.file, &spare.path, spare.allocated, end);
        spare.allocated = spare.allocated.max(*reserved.as_ref().unwrap_or(&0));
        self.spares.push_front(spare);
        Ok(reserved? >= end)
    }

    /// Reserves a file's space up to `end`, where that is more than the `allocated` bytes, and takes the spares for it,
    /// the newest first, rather than fail. How much is reserved then.
    fn reserve(&mut self, file: &dyn File, path: &Path, allocated: u64, end: u64) -> Result<u64, Error> {
        if end <= allocated {
            return Ok(allocated);
        }
        // What a full disk has kept from a segment is asked for as a whole, and if there is too little, as it is needed.
        let mut wanted = end.max(u64::from(self.limits.segment_bytes));
        loop {
            match file.allocate(wanted) {
                Ok(()) => return Ok(wanted),
                Err(error) if !is_full(&error) => return Err(Error::io("allocate", path)(error)),
                Err(_) if wanted > end => wanted = end,
                Err(_) => match self.spares.pop_back() {
                    Some(spare) => remove_spare(&*self.fs, spare)?,
                    None => return Ok(allocated),
                },
            }
        }
    }

    /// Brings the spares up to their number; a full disk is no error here, it shows in [`Writer::has_room`].
    fn allocate_ahead(&mut self) -> Result<(), Error> {
        while !self.has_room() && self.add_spare(u64::from(self.limits.segment_bytes))? {}
        self.shared.lacks_room.store(!self.has_room(), Ordering::Release);
        Ok(())
    }

    /// Allocates one more spare of this length; whether there was room.
    fn add_spare(&mut self, allocated: u64) -> Result<bool, Error> {
        let number = self.spares_made + 1;
        let path = self.dir.join(spare_name(number));
        let file = match self.fs.open(&path, Access::CreateNew) {
            Err(error) if is_full(&error) => return Ok(false),
            opened => opened.map_err(Error::io("create", &path))?,
        };
        let outcome = file.allocate(allocated);
        let spare = Spare { file, path, allocated };
        match outcome {
            Ok(()) => {
                self.spares_made = number;
                self.spares.push_back(spare);
                Ok(true)
            }
            Err(error) if is_full(&error) => remove_spare(&*self.fs, spare).map(|()| false),
            Err(error) => Err(Error::io("allocate", &spare.path)(error)),
        }
    }

    /// Keeps a spare of an earlier run, so that a full disk does not lose its reserve by a restart; at most a
    /// segment header was ever written to it. Anything else that is left over goes.
    fn take_leftover(&mut self, name: &str) -> Result<(), Error> {
        let path = self.dir.join(name);
        let number = parse_spare_name(name).filter(|_| !self.has_room());
        if let Some(number) = number {
            let file = self.fs.open(&path, Access::ReadWrite).map_err(Error::io("open", &path))?;
            let allocated = u64::from(self.limits.segment_bytes);
            let is_whole = file.len().map_err(Error::io("measure", &path))? == allocated;
            // A crash may have kept the length and lost the space that was reserved for it.
            match is_whole.then(|| file.allocate(allocated)) {
                Some(Ok(())) => {
                    self.spares_made = self.spares_made.max(number);
                    self.spares.push_back(Spare { file, path, allocated });
                    return Ok(());
                }
                Some(Err(error)) if !is_full(&error) => return Err(Error::io("allocate", &path)(error)),
                _ => {}
            }
        }
        self.fs.remove(&path).map_err(Error::io("remove", &path))
    }
}

impl Durable {
    pub(super) const NOTHING: Durable = Durable { frame: 0, applied: Applied { index: 0, term: 0 } };
}

fn spare_name(number: u64) -> String {
    format!("spare-{number}.tmp")
}

fn parse_spare_name(name: &str) -> Option<u64> {
    let number = name.strip_prefix("spare-")?.strip_suffix(".tmp")?.parse().ok()?;
    // Names of its own making only: room to count on.
    (number < u64::MAX / 2 && spare_name(number) == name).then_some(number)
}

fn remove_spare(fs: &dyn Fs, spare: Spare) -> Result<(), Error> {
    let Spare { file, path, .. } = spare;
    drop(file);
    fs.remove(&path).map_err(Error::io("remove", &path))
}

/// Whether an operation failed for want of space, which is not a fault of the disk.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
