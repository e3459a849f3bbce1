//! What is made of files, made anew when they have changed.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Error;

/// A file that was younger than this when it was read may change again without a sign: clocks of file systems tick
/// some hundred times a second, and coarser on some.
const YOUNG: Duration = Duration::from_secs(3);

/// By these a changed file is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Stamp {
        Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether the file could have changed after `read` without another stamp.
    fn is_young(&self, read: SystemTime) -> bool {
        let seconds = u64::try_from(self.changed.0.max(self.modified.0)).unwrap_or(0);
        read < UNIX_EPOCH + Duration::from_secs(seconds) + YOUNG
    }
}

#[derive(Debug)]
struct Kept<T> {
    stamps: Vec<Stamp>,
    value: Arc<T>,
}

/// A value that is read from files whenever it is asked for; from memory while they are the same.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    paths: Vec<String>,
    load: fn(&[String]) -> Result<T, Error>,
    kept: Mutex<Option<Kept<T>>>,
}

impl<T> Watched<T> {
    /// Reads the files the first time.
    pub(crate) fn new(paths: Vec<String>, load: fn(&[String]) -> Result<T, Error>) -> Result<Self, Error> {
        let watched = Watched::lazy(paths, load);
        watched.get()?;
        Ok(watched)
    }

    /// Reads no file before it is asked.
    pub(crate) fn lazy(paths: Vec<String>, load: fn(&[String]) -> Result<T, Error>) -> Self {
        Watched { paths, load, kept: Mutex::new(None) }
    }

    /// What the files say now.
    pub(crate) fn get(&self) -> Result<Arc<T>, Error> {
        let stamps = self.paths.iter().map(|path| {
            fs::metadata(path).map(|meta| Stamp::of(&meta)).map_err(|error| Error::open(path, &error))
        });
        let stamps = stamps.collect::<Result<Vec<_>, _>>()?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.as_ref().filter(|kept| kept.stamps == stamps) {
            return Ok(Arc::clone(&kept.value));
        }
        let read = SystemTime::now();
        let value = Arc::new((self.load)(&self.paths)?);
        // The stamps are older than what was read: a change in between shows the next time.
        let is_young = stamps.iter().any(|stamp| stamp.is_young(read));
        *kept = (!is_young).then(|| Kept { stamps, value: Arc::clone(&value) });
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    static READ: AtomicUsize = AtomicUsize::new(0);

    fn load(paths: &[String]) -> Result<String, Error> {
        READ.fetch_add(1, Ordering::Relaxed);
        fs::read_to_string(&paths[0]).map_err(|error| Error::open(&paths[0], &error))
    }

    #[test]
    fn a_change_shows_at_once_and_an_old_file_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "1").unwrap();
        let watched = Watched::new(vec![path.display().to_string()], load).unwrap();
        for round in 0..100 {
            // Of one length, and within one tick of the file system's clock.
            let text = format!("{}", round % 10);
            fs::write(&path, &text).unwrap();
            assert_eq!(*watched.get().unwrap(), text);
        }
        fs::remove_file(&path).unwrap();
        let gone = watched.get().unwrap_err().to_string();
        assert_eq!(gone, format!("open {}: no such file or directory", path.display()));

        // One that nobody has touched for long.
        let old =
            Watched::new(vec!["/proc/self/exe".to_owned()], |_| Ok(READ.fetch_add(1000, Ordering::Relaxed)));
        let old = old.unwrap();
        let first = old.get().unwrap();
        let exe = Stamp::of(&fs::metadata("/proc/self/exe").unwrap());
        if !exe.is_young(SystemTime::now()) {
            assert_eq!(old.get().unwrap(), first);
        }
    }
}
