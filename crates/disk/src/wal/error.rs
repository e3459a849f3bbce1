//! What can go wrong with a write-ahead log.

use std::io;
use std::path::{Path, PathBuf};

/// Why a call on the write-ahead log failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "sync wal segment".
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What was read can be no torn write: something changed acknowledged bytes. Nothing was written.
    #[error("wal segment {} is damaged at offset {offset}: {reason}", file.display())]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where the frame in question begins, bytes.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder has no segments.
    #[error("no wal segment in {}", .0.display())]
    Missing(PathBuf),
    /// A log is there already.
    #[error("a wal exists in {}", .0.display())]
    Exists(PathBuf),
    /// Another process has the log.
    #[error("wal segment {} is locked by another process", .0.display())]
    Locked(PathBuf),
    /// An earlier write or sync failed; nothing is known about the disk since, and nothing more is acknowledged.
    #[error("the wal has failed before: {0}")]
    Failed(String),
}

impl Error {
    /// Whether the disk was full.
    pub fn is_storage_full(&self) -> bool {
        matches!(self, Error::Io { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ))
    }
}

/// Adds what was tried to an I/O error.
pub(super) trait Context<T> {
    fn context(self, operation: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, operation: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { operation, path: path.to_owned(), source })
    }
}
