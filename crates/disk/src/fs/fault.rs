//! A file system whose operations fail by rule.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Access, DirLock, File, Fs};

/// What a [`Fault`] can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the operations of the seam")]
pub enum Operation {
    Open,
    Create,
    CreateDir,
    List,
    Rename,
    Remove,
    SyncDir,
    Lock,
    Read,
    Write,
    Sync,
    Allocate,
    SetLen,
}

/// One rule: which operation on which path fails, and how.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The operation that fails.
    pub operation: Operation,
    /// Strikes only where the path (of a rename: either one) contains this text; empty strikes everywhere.
    pub path_contains: String,
    /// How many matching operations succeed first.
    pub skip: u64,
    /// Whether every later matching operation fails as well.
    pub forever: bool,
    /// The error: `StorageFull` for a full disk; anything that has no kind of its own comes as EIO.
    pub error: io::ErrorKind,
    /// A failing write first writes this many bytes (at most all but one) of its data.
    pub partial_bytes: usize,
    /// Cuts `partial_bytes` down to where a 512-byte sector of the file ends: the kernel copies whole pages and a
    /// disk writes whole sectors, so this is what a real short write leaves.
    pub whole_sectors: bool,
}

impl Fault {
    /// The next `operation` anywhere fails once with EIO.
    pub fn once(operation: Operation) -> Self {
        Fault {
            operation,
            path_contains: String::new(),
            skip: 0,
            forever: false,
            error: io::ErrorKind::Other,
            partial_bytes: 0,
            whole_sectors: false,
        }
    }
}

/// Wraps a file system and fails what its rules say; a failed operation is not passed on.
///
/// Cloning shares the rules. With no rule it is the file system inside.
#[derive(Clone)]
pub struct FaultFs {
    inner: Arc<dyn Fs>,
    rules: Arc<Rules>,
}

impl FaultFs {
    /// A file system without faults, for now.
    pub fn new(inner: Arc<dyn Fs>) -> Self {
        FaultFs { inner, rules: Arc::default() }
    }

    /// Adds a rule, for files that are already open too. The first rule that strikes decides.
    pub fn add(&self, fault: Fault) {
        self.rules.lock().push(fault);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.rules.lock().clear();
    }

    /// How many operations have failed by a rule so far.
    pub fn strikes(&self) -> u64 {
        self.rules.1.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Rules(Mutex<Vec<Fault>>, AtomicU64);

impl Rules {
    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The fault that strikes this operation, if any.
    fn strike(&self, operation: Operation, path: &Path) -> Option<Fault> {
        let path = path.to_string_lossy();
        let mut rules = self.lock();
        for at in 0..rules.len() {
            let rule = &mut rules[at];
            if rule.operation != operation || !path.contains(&rule.path_contains) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            self.1.fetch_add(1, Ordering::Relaxed);
            return Some(if rule.forever { rule.clone() } else { rules.remove(at) });
        }
        None
    }

    fn check(&self, operation: Operation, path: &Path) -> io::Result<()> {
        match self.strike(operation, path) {
            Some(fault) => Err(error_of(&fault)),
            None => Ok(()),
        }
    }
}

fn error_of(fault: &Fault) -> io::Error {
    match fault.error {
        io::ErrorKind::Other => io::Error::from_raw_os_error(nix::libc::EIO),
        kind => kind.into(),
    }
}

impl Fs for FaultFs {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let operation = if access == Access::CreateNew { Operation::Create } else { Operation::Open };
        self.rules.check(operation, path)?;
        let inner = self.inner.open(path, access)?;
        Ok(Arc::new(FaultFile { inner, path: path.to_owned(), rules: self.rules.clone() }))
    }

    fn create_dir_all(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.rules.check(Operation::CreateDir, path)?;
        self.inner.create_dir_all(path, mode)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.rules.check(Operation::List, path)?;
        self.inner.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        self.inner.mode(path)
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.inner.set_mode(path, mode)
    }

    fn take_owner(&self, path: &Path, of: &Path) -> io::Result<()> {
        self.inner.take_owner(path, of)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let both = PathBuf::from(format!("{} {}", from.display(), to.display()));
        self.rules.check(Operation::Rename, &both)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.rules.check(Operation::Remove, path)?;
        self.inner.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.rules.check(Operation::SyncDir, path)?;
        self.inner.sync_dir(path)
    }

    fn lock_dir(&self, path: &Path) -> io::Result<DirLock> {
        self.rules.check(Operation::Lock, path)?;
        self.inner.lock_dir(path)
    }
}

/// Faults are matched by the path that the file was opened at, also after a rename.
struct FaultFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    rules: Arc<Rules>,
}

impl File for FaultFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.rules.check(Operation::Read, &self.path)?;
        self.inner.read_exact_at(buf, offset)
    }

    fn read_exact_at_nowait(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        self.rules.check(Operation::Read, &self.path)?;
        self.inner.read_exact_at_nowait(buf, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if let Some(fault) = self.rules.strike(Operation::Write, &self.path) {
            let mut part = fault.partial_bytes.min(data.len().saturating_sub(1));
            if fault.whole_sectors {
                part = part.saturating_sub(((offset + part as u64) % 512) as usize);
            }
            if part > 0 {
                self.inner.write_all_at(&data[..part], offset)?;
            }
            return Err(error_of(&fault));
        }
        self.inner.write_all_at(data, offset)
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.inner.forget_cached()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.rules.check(Operation::Sync, &self.path)?;
        self.inner.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.rules.check(Operation::Allocate, &self.path)?;
        self.inner.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.rules.check(Operation::SetLen, &self.path)?;
        self.inner.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn lock(&self) -> io::Result<()> {
        self.rules.check(Operation::Lock, &self.path)?;
        self.inner.lock()
    }
}
