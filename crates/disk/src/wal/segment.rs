//! Segment files: their names, their first records, and how one comes into being without ever being half there.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Context;
use super::{Error, Result};
use crate::{Access, File, Fs};

/// Ends the names of files that are not yet, or no longer, part of the log.
pub(super) const UNFINISHED: &str = ".tmp";

/// The segment being prepared; etcd ignores the name.
const NEXT: &str = "next.tmp";

/// A segment's name: its number, and the index of the first entry that was to go into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentName {
    pub seq: u64,
    pub index: u64,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.seq, self.index)
    }
}

impl SegmentName {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (seq, index) = name.strip_suffix(".wal")?.split_once('-')?;
        let parsed = SegmentName {
            seq: u64::from_str_radix(seq, 16).ok()?,
            index: u64::from_str_radix(index, 16).ok()?,
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

/// The segments in a folder, oldest first.
///
/// # Errors
/// Damage if one in the middle is missing; a failed read.
pub(super) fn list(fs: &dyn Fs, dir: &Path) -> Result<Vec<SegmentName>> {
    let names = fs.list(dir).context("list wal folder", dir)?;
    let mut segments: Vec<SegmentName> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
    segments.sort();
    for pair in segments.windows(2) {
        if pair[0].seq.checked_add(1) != Some(pair[1].seq) {
            let reason = format!("it follows segment {}, so one or more are missing between", pair[0]);
            return Err(Error::Damaged { file: dir.join(pair[1].to_string()), offset: 0, reason });
        }
    }
    Ok(segments)
}

/// Removes what an interrupted run left unfinished.
pub(super) fn remove_unfinished(fs: &dyn Fs, dir: &Path) -> Result<()> {
    for name in fs.list(dir).context("list wal folder", dir)? {
        if name.ends_with(UNFINISHED) {
            let path = dir.join(name);
            fs.remove(&path).context("remove unfinished wal segment", &path)?;
        }
    }
    Ok(())
}

/// Takes etcd's own lock on a segment.
pub(super) fn lock(file: &dyn File, path: &Path) -> Result<()> {
    match file.lock() {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(Error::Locked(path.to_owned())),
        locked => locked.context("lock wal segment", path),
    }
}

/// The allocation of the next segment, to be run where it delays nobody: on any thread, once.
pub struct Preparation {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) bytes: u64,
}

impl Preparation {
    /// Allocates a file that reads as zero and makes that durable.
    ///
    /// # Errors
    /// [`Error::is_storage_full`] if there is no room, and then nothing is left behind; it may be tried again
    /// later. Any other error ends the member (rule 7).
    pub fn run(self) -> Result<Prepared> {
        let path = self.dir.join(NEXT);
        if self.fs.exists(&path).context("look for wal segment", &path)? {
            self.fs.remove(&path).context("remove unfinished wal segment", &path)?;
        }
        let file = self.fs.open(&path, Access::CreateNew).context("create wal segment", &path)?;
        let allocated = allocate(&*file, &path, self.bytes);
        if let Err(error) = allocated {
            self.fs.remove(&path).context("remove unfinished wal segment", &path)?;
            return Err(error);
        }
        Ok(Prepared { file, path, bytes: self.bytes })
    }
}

/// A segment that is allocated and has no name in the log yet; see [`super::Wal::adopt`].
pub struct Prepared {
    pub(super) file: Arc<dyn File>,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// The giving back of segments that nothing needs any more, to be run where it delays nobody: on any thread, once, and
/// before the next one. It holds the locks of those that were needed until now.
pub struct Release {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) segments: Vec<(PathBuf, Option<Arc<dyn File>>)>,
}

impl Release {
    /// Removes the segments, the oldest first, and answers their paths. Each removal is durable before the next: a power
    /// cut that undid an earlier one alone would leave a gap, which looks like damage.
    ///
    /// # Errors
    /// The failed operation; the member must stop (rule 7). What is left is a whole log.
    pub fn run(self) -> Result<Vec<PathBuf>> {
        let mut removed = Vec::with_capacity(self.segments.len());
        for (path, file) in self.segments {
            self.fs.remove(&path).context("remove wal segment", &path)?;
            self.fs.sync_dir(&self.dir).context("sync wal folder", &self.dir)?;
            drop(file);
            removed.push(path);
        }
        Ok(removed)
    }
}

/// Reserves a segment's space, durably, and locks it.
pub(super) fn allocate(file: &dyn File, path: &Path, bytes: u64) -> Result<()> {
    lock(file, path)?;
    file.allocate(bytes).context("allocate wal segment", path)?;
    file.sync_data().context("sync wal segment", path)
}
