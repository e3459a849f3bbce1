//! The folder of `.snap` files: reading, writing, setting aside, giving back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Error, Name, Snapshot, io_error};
use crate::{Access, Fs};

/// Begins the names of files that are not finished; etcd removes what is called so at its start.
const UNFINISHED: &str = "tmp-";

/// Ends the names of files that were found damaged, as in etcd.
const BROKEN: &str = "broken";

/// The folder `member/snap`.
pub struct Folder {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
}

/// A file that does not verify. It is as it was found until [`Folder::set_aside`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The file.
    pub file: PathBuf,
    /// Where the part begins that does not verify, bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Folder {
    /// A folder, which exists.
    pub fn new(fs: Arc<dyn Fs>, dir: &Path) -> Self {
        Folder { fs, dir: dir.to_owned() }
    }

    /// The path of a file in the folder.
    pub fn path(&self, name: Name) -> PathBuf {
        self.dir.join(name.to_string())
    }

    /// The files, the oldest first. What has no name of a snapshot is none.
    ///
    /// # Errors
    /// The failed operation.
    pub fn list(&self) -> Result<Vec<Name>, Error> {
        let names = self.fs.list(&self.dir).map_err(io_error("list snapshot folder", &self.dir))?;
        let mut names: Vec<Name> = names.iter().filter_map(|name| Name::parse(name)).collect();
        names.sort();
        Ok(names)
    }

    /// Reads one file; the inner error says what does not verify.
    ///
    /// # Errors
    /// The failed operation.
    pub fn read(&self, name: Name) -> Result<Result<Snapshot, Broken>, Error> {
        let path = self.path(name);
        let bytes = self.read_bytes(&path).map_err(io_error("read snapshot file", &path))?;
        let broken = |offset, reason| Broken { file: path.clone(), offset, reason };
        Ok(match Snapshot::decode(&bytes) {
            Err(fault) => Err(broken(fault.offset, fault.reason)),
            Ok(snapshot) if snapshot.name() != name => Err(broken(0, "its name is of another snapshot")),
            Ok(snapshot) => Ok(snapshot),
        })
    }

    fn read_bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.fs.open(path, Access::Read)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Reads every file and changes nothing; those that do not verify.
    ///
    /// They are no reason to refuse a start (rule 5 is about what acknowledged data depends on): all that such a file
    /// says is in the revision log too, and nothing is read from it. To refuse would keep a whole member from its data
    /// for the sake of a file that the next snapshot makes anew; to say nothing would let a rotting disk go unnoticed,
    /// and leave etcd without a file that it starts from.
    ///
    /// # Errors
    /// The failed operation: what a disk cannot read is not known to be damaged.
    pub fn check(&self) -> Result<Vec<Broken>, Error> {
        let mut broken = Vec::new();
        for name in self.list()? {
            broken.extend(self.read(name)?.err());
        }
        Ok(broken)
    }

    /// Renames a file that does not verify, so that nothing takes it for a snapshot and an operator can look at it; its
    /// new name. After a power cut it may have the old one, and is found again.
    ///
    /// # Errors
    /// The failed operation.
    pub fn set_aside(&self, broken: &Broken) -> Result<PathBuf, Error> {
        let mut aside = broken.file.as_os_str().to_owned();
        aside.push(".");
        aside.push(BROKEN);
        let aside = PathBuf::from(aside);
        self.fs.rename(&broken.file, &aside).map_err(io_error("rename snapshot file", &broken.file))?;
        Ok(aside)
    }

    /// Removes what an interrupted write left unfinished.
    ///
    /// # Errors
    /// The failed operation.
    pub fn tidy(&self) -> Result<(), Error> {
        for name in self.fs.list(&self.dir).map_err(io_error("list snapshot folder", &self.dir))? {
            if name.starts_with(UNFINISHED) {
                self.remove(&self.dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Writes a file durably, replacing one of the same name; its path. `None` if the disk has no room for it, and then
    /// nothing has changed: it may be tried again.
    ///
    /// # Errors
    /// Any other failed operation; the member must stop (rule 7).
    pub fn write(&self, snapshot: &Snapshot) -> Result<Option<PathBuf>, Error> {
        let path = self.path(snapshot.name());
        let Name { term, index } = snapshot.name();
        let unfinished = self.dir.join(format!("{UNFINISHED}{term:016x}-{index:016x}"));
        if self.fs.exists(&unfinished).map_err(io_error("look for snapshot file", &unfinished))? {
            self.remove(&unfinished)?;
        }
        let Some(()) = self.write_unfinished(&unfinished, &snapshot.encode())? else { return Ok(None) };
        match self.fs.rename(&unfinished, &path) {
            Err(error) if is_full(&error) => {
                self.remove(&unfinished)?;
                return Ok(None);
            }
            renamed => renamed.map_err(io_error("rename snapshot file", &path))?,
        }
        self.fs.sync_dir(&self.dir).map_err(io_error("sync snapshot folder", &self.dir))?;
        Ok(Some(path))
    }

    fn write_unfinished(&self, path: &Path, bytes: &[u8]) -> Result<Option<()>, Error> {
        let file = match self.fs.open(path, Access::CreateNew) {
            Err(error) if is_full(&error) => return Ok(None),
            opened => opened.map_err(io_error("create snapshot file", path))?,
        };
        // Reserved first, so that a full disk is not met in the midst of the file.
        match file.allocate(bytes.len() as u64) {
            Err(error) if is_full(&error) => {
                self.remove(path)?;
                return Ok(None);
            }
            allocated => allocated.map_err(io_error("allocate snapshot file", path))?,
        }
        file.write_all_at(bytes, 0).map_err(io_error("write snapshot file", path))?;
        file.sync_data().map_err(io_error("sync snapshot file", path))?;
        Ok(Some(()))
    }

    /// Removes the oldest files until `keep` are left (`--max-snapshots`; 0 keeps all), and none at or above the index
    /// `below`, the one that the write-ahead log names: a file that is newer than that has no record yet. What was
    /// removed. A power cut may bring some of it back, which does no harm.
    ///
    /// # Errors
    /// The failed operation.
    pub fn purge(&self, keep: usize, below: u64) -> Result<Vec<PathBuf>, Error> {
        if keep == 0 {
            return Ok(Vec::new());
        }
        let names = self.list()?;
        let too_many = names.len().saturating_sub(keep);
        let mut removed = Vec::new();
        for name in names.into_iter().take(too_many).take_while(|name| name.index < below) {
            let path = self.path(name);
            self.remove(&path)?;
            removed.push(path);
        }
        Ok(removed)
    }

    fn remove(&self, path: &Path) -> Result<(), Error> {
        self.fs.remove(path).map_err(io_error("remove snapshot file", path))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
