//! The file-system seam: what the member may do to a disk, and what it may rely on.
//!
//! The durability rules are those of POSIX, read pessimistically: written data is durable only after
//! [`File::sync_data`] of that file returned; a created, renamed or removed name is durable only after
//! [`Fs::sync_dir`] of its folder returned. A write that was not synced may be lost, kept, or torn at any
//! 512-byte boundary, independently of every other. After a failed sync nothing is known, and the caller must
//! stop (rule 7 of ARCHITECTURE.md). Nor does the next process know: what the disk did not take may stay in the
//! cache, be read as if it were there, and is not written by the next sync. [`File::forget_cached`] makes reads true.

mod fault;
mod memory;
mod real;
mod syscall;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use fault::{Fault, FaultFs, Operation};
pub use memory::MemFs;
pub use real::RealFs;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only; the file must exist.
    Read,
    /// Reading and writing; the file must exist.
    ReadWrite,
    /// Reading and writing; the file must not exist yet and is created empty with mode 0600.
    CreateNew,
}

/// One file system. Paths are as the caller gave them; nothing is resolved here.
pub trait Fs: Send + Sync + 'static {
    /// Opens or creates a file.
    ///
    /// # Errors
    /// `NotFound` where the file must exist and does not, `AlreadyExists` where it must not, else the cause.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;

    /// Creates a folder and those above it that are missing, with permission bits `mode` (0700 is etcd's).
    fn create_dir_all(&self, path: &Path, mode: u32) -> io::Result<()>;

    /// The names in a folder, sorted; neither `.` nor `..`.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Whether something stands at this path.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// The permission bits of what stands at this path (0o777 mask).
    fn mode(&self, path: &Path) -> io::Result<u32>;

    /// Sets the permission bits of what stands at this path.
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()>;

    /// Gives what stands at `path` the owner and group of what stands at `of`. Where this process may not do that, all stays
    /// as it is.
    fn take_owner(&self, path: &Path, of: &Path) -> io::Result<()>;

    /// Renames, replacing what stands at `to`. Durable after [`Fs::sync_dir`] of the folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Open handles stay readable until they are dropped.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes an exclusive advisory lock (`flock`) on a folder, held until the answer is dropped; or on a file, as bbolt
    /// does on its database, for which [`File::lock`] is another lock.
    ///
    /// # Errors
    /// `WouldBlock` if another process (or another holder in this one) has it.
    fn lock_dir(&self, path: &Path) -> io::Result<DirLock>;
}

/// Makes a folder that is missing, and those above it that are, each durably in the one above. The name of one that is
/// there already is made durable too: a run that was killed may have made it and not come to that, and without it a
/// power cut could take away all that the folder holds.
///
/// # Errors
/// The failed operation; what was made until then stays.
pub fn make_dir(fs: &dyn Fs, path: &Path, mode: u32) -> io::Result<()> {
    let above = path.parent().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
    if !fs.exists(path)? {
        // Where the one above may not be looked at, the system says so when the folder is made.
        if let Some(above) = above.filter(|above| !fs.exists(above).unwrap_or(true)) {
            make_dir(fs, above, mode)?;
        }
        fs.create_dir_all(path, mode)?;
    }
    match above.map(|above| fs.sync_dir(above)) {
        // A folder that an operator prepared in a place closed to us; its name is the operator's business.
        Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced.unwrap_or(Ok(())),
    }
}

/// A folder's lock; dropping it lets the folder go.
pub struct DirLock(#[allow(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl DirLock {
    /// Wraps whatever an implementation holds while the lock is taken.
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        DirLock(Box::new(guard))
    }
}

/// One open file, read and written at explicit offsets; there is no cursor.
pub trait File: Send + Sync + 'static {
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before the buffer is full.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// As [`File::read_exact_at`], but never waits for a disk: `Ok(false)` if the bytes are not all in memory
    /// (preadv2 with RWF_NOWAIT); `buf` is then unspecified.
    fn read_exact_at_nowait(&self, buf: &mut [u8], offset: u64) -> io::Result<bool>;

    /// Writes all of `data` at `offset`, growing the file if needed.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Drops from the system's cache what does not wait to be written, so that the next read shows what the disk has.
    /// To be called before a file is read whose last sync may have failed, in an earlier run perhaps.
    fn forget_cached(&self) -> io::Result<()>;

    /// Makes written data, and the length that is needed to read it, durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;

    /// Reserves disk space for `0..len` and grows the file to `len`; new bytes read as zero (fallocate).
    ///
    /// # Errors
    /// `StorageFull` if there is no room.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Sets the length; bytes past a shorter length are gone, new ones read as zero.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Takes an exclusive open-file-description lock (`F_OFD_SETLK`), as etcd does on its WAL segments; held
    /// until the last handle of this open file is dropped.
    ///
    /// # Errors
    /// `WouldBlock` if another open file has it.
    fn lock(&self) -> io::Result<()>;
}
