use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::fs::{Access, File, Fs};

use super::format::{FRAME_HEADER_LEN, SEGMENT_HEADER_LEN, SegmentHeader};
use super::tail::{Segment, Shared, Written};
use super::{Applied, Durable, Error, Frame, Limits, Location, segment_name};

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

    /// Hands the next frame to the file system; its memory is given back and readers go to the file. The
    /// caller sees to it that the write-ahead log has synced [`Frame::applied`] before (rule 2). Syncs first
    /// if more than [`Limits::dirty_bytes_max`] would be dirty, and what is written where a segment ends.
    ///
    /// # Errors
    /// Any failed operation, naming the file. The member has to stop.
    ///
    /// # Panics
    /// If frames come in another order than the builder finished them.
    pub fn write(&mut self, frame: Frame) -> Result<(), Error> {
        self.guard(|writer| writer.try_write(frame))
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

    fn guard(&mut self, operation: impl FnOnce(&mut Writer) -> Result<(), Error>) -> Result<(), Error> {
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
        self.ensure_allocated(end)?;
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
        tail.segments.last_mut().expect("the current segment").end = current.end;
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
        let (spare, allocated) = match self.spares.pop_front() {
            Some(spare) => (spare, u64::from(self.limits.segment_bytes)),
            // The disk is full and the reserve used up; a small frame may still fit.
            None => (self.create_spare()?, 0),
        };
        let header = SegmentHeader { log_id: self.shared.log_id, number: start.segment(), first_frame };
        spare.file.write_all_at(&header.encode(), 0).map_err(Error::io("write", &spare.path))?;
        spare.file.sync_data().map_err(Error::io("sync", &spare.path))?;
        let path = self.dir.join(segment_name(start.segment()));
        self.fs.rename(&spare.path, &path).map_err(Error::io("rename", &spare.path))?;
        self.fs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir))?;

        let end = SEGMENT_HEADER_LEN as u32;
        let segment = Arc::new(Segment { number: start.segment(), file: spare.file, path });
        self.shared.tail_mut().segments.push(Written { segment: segment.clone(), end });
        self.current = Some(Current { segment, end, allocated });
        self.allocate_ahead()
    }

    /// Reserves space for a frame that outgrows its segment, at the price of a spare if need be.
    fn ensure_allocated(&mut self, end: u64) -> Result<(), Error> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if end <= current.allocated || current.allocated == 0 {
            return Ok(());
        }
        let Segment { file, path, .. } = &*current.segment;
        loop {
            match file.allocate(end) {
                Ok(()) => {
                    current.allocated = end;
                    return Ok(());
                }
                Err(error) if is_full(&error) => {
                    let Some(spare) = self.spares.pop_back() else {
                        return Err(Error::io("allocate", path)(error));
                    };
                    remove_spare(&*self.fs, spare)?;
                }
                Err(error) => return Err(Error::io("allocate", path)(error)),
            }
        }
    }

    /// Brings the spares up to their number; a full disk is no error here, it shows in [`Writer::has_room`].
    fn allocate_ahead(&mut self) -> Result<(), Error> {
        while !self.has_room() {
            let spare = match self.create_spare() {
                Ok(spare) => spare,
                Err(Error::Io { source, .. }) if is_full(&source) => return Ok(()),
                Err(error) => return Err(error),
            };
            match spare.file.allocate(u64::from(self.limits.segment_bytes)) {
                Ok(()) => self.spares.push_back(spare),
                Err(error) if is_full(&error) => return remove_spare(&*self.fs, spare),
                Err(error) => return Err(Error::io("allocate", &spare.path)(error)),
            }
        }
        Ok(())
    }

    /// Keeps a spare of an earlier run, so that a full disk does not lose its reserve by a restart; at most a
    /// segment header was ever written to it. Anything else that is left over goes.
    fn take_leftover(&mut self, name: &str) -> Result<(), Error> {
        let path = self.dir.join(name);
        let number = parse_spare_name(name).filter(|_| !self.has_room());
        if let Some(number) = number {
            let file = self.fs.open(&path, Access::ReadWrite).map_err(Error::io("open", &path))?;
            let bytes = u64::from(self.limits.segment_bytes);
            if file.len().map_err(Error::io("measure", &path))? == bytes {
                self.spares_made = self.spares_made.max(number);
                self.spares.push_back(Spare { file, path });
                return Ok(());
            }
        }
        self.fs.remove(&path).map_err(Error::io("remove", &path))
    }

    fn create_spare(&mut self) -> Result<Spare, Error> {
        self.spares_made += 1;
        let path = self.dir.join(spare_name(self.spares_made));
        let file = self.fs.open(&path, Access::CreateNew).map_err(Error::io("create", &path))?;
        Ok(Spare { file, path })
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
    let Spare { file, path } = spare;
    drop(file);
    fs.remove(&path).map_err(Error::io("remove", &path))
}

/// Whether an operation failed for want of space, which is not a fault of the disk.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes the folder of the log if it is missing, and those above it, each durably in its parent.
pub(super) fn create_dir(fs: &dyn Fs, dir: &Path) -> Result<(), Error> {
    let mut missing = Vec::new();
    for folder in dir.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
        if fs.exists(folder).map_err(Error::io("find", folder))? {
            break;
        }
        missing.push(folder);
    }
    fs.create_dir_all(dir, 0o700).map_err(Error::io("create", dir))?;
    for folder in missing.into_iter().rev().chain([dir]) {
        let parent = match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) => Path::new("."),
            None => continue,
        };
        fs.sync_dir(parent).map_err(Error::io("sync", parent))?;
    }
    Ok(())
}
