//! What `etcdutl` does with the data directory of a member that does not run: [`check`] it, give its space back
//! ([`defrag`]), [`migrate`] it, and write the one that Go's etcd starts from ([`export`]).
//!
//! A data directory is of one of two kinds. Ours has the store in a revision log; one that Go's etcd wrote, or that a
//! snapshot was restored to, has it in a database file until its first start here. All of it is done under the locks that
//! a member takes, so none of it goes on beside one.

mod check;
mod defrag;
mod export;
mod migrate;

use std::path::PathBuf;
use std::sync::Arc;

use disk::{DirLock, Fs, revlog, wal};

use crate::Error;
use crate::start::database::{has_segments, lock};
use crate::start::{Folders, io};

pub use check::{Fault, Part, Report, check};
pub use defrag::{Defragmented, defrag};
pub use export::{Export, Exported, export};
pub use migrate::{Migrated, Migration, migrate};

/// A data directory, and how its logs are read and written.
#[derive(Clone, Debug)]
pub struct DataDir {
    /// The folder.
    pub path: PathBuf,
    /// The write-ahead log's folder, if it is not in it.
    pub wal_dir: Option<PathBuf>,
    /// Of the write-ahead log.
    pub wal_limits: wal::Limits,
    /// Of the revision log.
    pub revlog_limits: revlog::Limits,
}

impl DataDir {
    /// With the limits of production.
    pub fn new(path: PathBuf, wal_dir: Option<PathBuf>) -> DataDir {
        DataDir {
            path,
            wal_dir,
            wal_limits: wal::Limits::default(),
            revlog_limits: revlog::Limits::default(),
        }
    }

    fn folders(&self) -> Folders {
        Folders::new(&self.path, self.wal_dir.as_deref())
    }
}

/// In what form a directory has its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// In a revision log.
    Ours,
    /// In etcd's database.
    Database,
}

/// A directory that is held: no member runs on it, and none starts.
struct Held {
    folders: Folders,
    kind: Kind,
    _locks: Vec<DirLock>,
}

impl Held {
    /// Finds the store of a directory and takes its locks. Nothing is made where there is nothing.
    fn take(fs: &Arc<dyn Fs>, data_dir: &DataDir) -> Result<Held, Error> {
        let folders = data_dir.folders();
        let database = folders.database();
        let has_database = fs.exists(&database).map_err(io("stat", &database))?;
        let is_ours = has_segments(&**fs, &folders.rev)?;
        folders.check_restored(&**fs)?;
        if !has_database && !is_ours {
            // In etcd's words, which look for nothing else.
            return Err(io("stat", &database)(std::io::ErrorKind::NotFound.into()));
        }
        let mut locks = vec![folders.lock(&**fs)?];
        if has_database {
            locks.push(lock(&**fs, &database)?);
        }
        if has_database && is_ours {
            return Err(Error::Refused(format!(
                "{} and {} are both there: a start decides which one counts, so start the member first",
                database.display(),
                folders.rev.display()
            )));
        }
        let kind = if is_ours { Kind::Ours } else { Kind::Database };
        Ok(Held { folders, kind, _locks: locks })
    }
}
