//! The member's folder: what is there before the start, and making it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use disk::RealFs;
use thiserror::Error;

use crate::config::quote;
use crate::log;

/// What a data directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Nothing of ours, or it does not exist.
    Nothing,
    /// A member's files.
    Member,
}

impl Holds {
    /// etcd's word for it in the log.
    pub fn name(self) -> &'static str {
        match self {
            Holds::Nothing => "empty",
            Holds::Member => "member",
        }
    }
}

/// Why a folder can't be a member's.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// It can't be listed.
    #[error("readdirent {}: {}", dir.display(), crate::go_error(source))]
    List {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A member's and a v2 proxy's files side by side.
    #[error("invalid datadir; both member and proxy directories exist")]
    Both,
    /// A v2 proxy's files.
    #[error("v2 http proxy has already been deprecated in 3.6")]
    Proxy,
    /// It can't be made.
    #[error("mkdir {}: {}", dir.display(), crate::go_error(source))]
    Make {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It can't be written to.
    #[error("open {}: {}", file.display(), crate::go_error(source))]
    Write {
        /// The file that was tried.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Looks what a data directory holds; files that belong to nobody get a warning.
///
/// # Errors
/// See [`DataDirError`].
pub fn identify(dir: &Path) -> Result<Holds, DataDirError> {
    let list = |source| DataDirError::List { dir: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holds::Nothing),
        other => other.map_err(list)?,
    };
    let mut names =
        entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>().map_err(list)?;
    names.sort();
    let (mut member, mut proxy) = (false, false);
    for name in names {
        match name.to_str() {
            Some("member") => member = true,
            Some("proxy") => proxy = true,
            // Certificates that were made here.
            Some("fixtures") => {}
            _ => log::warn!(
                "found invalid file under data directory",
                "filename" => name.to_string_lossy(),
                "data-dir" => log::Text(dir.display()),
            ),
        }
    }
    match (member, proxy) {
        (true, true) => Err(DataDirError::Both),
        (false, true) => Err(DataDirError::Proxy),
        (true, false) => Ok(Holds::Member),
        (false, false) => Ok(Holds::Nothing),
    }
}

/// Whether the folder of a log holds one: then the member ignores the settings of a new cluster.
///
/// # Errors
/// [`DataDirError::List`] if nobody can tell.
pub fn has_log(dir: &Path) -> Result<bool, DataDirError> {
    let list = |source| DataDirError::List { dir: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(list)?,
    };
    for entry in entries {
        if entry.map_err(list)?.path().extension().is_some_and(|extension| extension == "wal") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes a folder for its owner alone (mode 0700), durably, or warns when one that exists is open to more; then tries to
/// write there.
///
/// # Errors
/// See [`DataDirError`].
pub fn make(dir: &Path) -> Result<(), DataDirError> {
    match fs::metadata(dir) {
        Ok(found) => {
            let mode = found.permissions().mode();
            if mode & 0o7777 != 0o700 {
                let error = format!(
                    "directory {} exist, but the permission is {}. The recommended permission is \"-rwx------\" to \
                     prevent possible unprivileged access to the data",
                    quote(&dir.to_string_lossy()),
                    quote(&describe(found.is_dir(), mode)),
                );
                log::warn!("check file permission", "error" => error);
            }
        }
        Err(_) => {
            let made = disk::make_dir(&RealFs, dir, 0o700);
            made.map_err(|source| DataDirError::Make { dir: dir.to_owned(), source })?;
        }
    }
    let file = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()).join(".touch");
    let touched = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&file);
    touched.and_then(|_| fs::remove_file(&file)).map_err(|source| DataDirError::Write { file, source })
}

/// A mode as Go prints it: `drwxr-xr-x`.
fn describe(is_dir: bool, mode: u32) -> String {
    let mut out = String::new();
    for (bit, letter) in [(0o4000, 'u'), (0o2000, 'g'), (0o1000, 't')] {
        if mode & bit != 0 {
            out.push(letter);
        }
    }
    if is_dir {
        out.insert(0, 'd');
    } else if out.is_empty() {
        out.push('-');
    }
    for position in (0..9).rev() {
        let letter = ['x', 'w', 'r'][position % 3];
        out.push(if mode & (1 << position) != 0 { letter } else { '-' });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_printed_as_gos() {
        assert_eq!(describe(true, 0o755), "drwxr-xr-x");
        assert_eq!(describe(false, 0o700), "-rwx------");
        assert_eq!(describe(true, 0o1777), "dtrwxrwxrwx");
    }

    #[test]
    fn a_new_folder_is_its_owners_alone() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("a/b");
        assert_eq!(identify(&dir).unwrap(), Holds::Nothing);
        make(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing is left behind");
        make(&dir.join("member")).unwrap();
        assert_eq!(identify(&dir).unwrap(), Holds::Member);
        make(&dir.join("proxy")).unwrap();
        assert!(matches!(identify(&dir), Err(DataDirError::Both)));
    }

    #[test]
    fn a_log_that_cannot_be_seen_is_not_taken_for_none() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("wal");
        assert!(!has_log(&dir).unwrap());
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("0.tmp"), "x").unwrap();
        assert!(!has_log(&dir).unwrap());
        fs::write(dir.join("0000000000000000-0000000000000000.wal"), "x").unwrap();
        assert!(has_log(&dir).unwrap());
        let below_a_file = dir.join("0.tmp/wal");
        assert!(has_log(&below_a_file).unwrap_err().to_string().ends_with("0.tmp/wal: not a directory"));
    }

    #[test]
    fn a_file_is_no_folder() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("f");
        fs::write(&file, "x").unwrap();
        assert!(identify(&file).unwrap_err().to_string().ends_with("f: not a directory"));
        assert!(make(&file.join("x")).unwrap_err().to_string().ends_with("not a directory"));
    }
}
