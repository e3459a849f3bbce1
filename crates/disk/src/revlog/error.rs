use std::io;
use std::path::{Path, PathBuf};

use super::Location;

/// Why the revision log could not be opened, read or written.
///
/// Everything but [`Error::NoSuchRecord`] is fatal to the member (rule 7 of ARCHITECTURE.md).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused an operation.
    #[error("{operation} {}: {source}", file.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file or folder it was tried on.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An earlier write or sync failed; nothing is tried after it, since nothing is known about the file.
    #[error("the revision log stopped after a failure: {cause}")]
    Stopped {
        /// The first failure, as it was reported then.
        cause: String,
    },
    /// Bytes that were durable do not read back as they were written. Nothing was changed on disk.
    #[error("{} is damaged at offset {offset}: {what}", file.display())]
    Damaged {
        /// The segment file.
        file: PathBuf,
        /// Where the bad frame or header begins, bytes from the file's start.
        offset: u64,
        /// What did not hold.
        what: String,
    },
    /// A segment of a format that this version does not read.
    #[error("{}: offset {offset}: {what}", file.display())]
    Unsupported {
        /// The segment file.
        file: PathBuf,
        /// Where the format is named, bytes from the file's start.
        offset: u64,
        /// What this version does not know.
        what: String,
    },
    /// The caller's replay refused a frame that is whole: its contents make no sense to their owner.
    #[error("{} at offset {offset}: {source}", file.display())]
    Replay {
        /// The segment file.
        file: PathBuf,
        /// Where the record's payload or the frame begins, bytes from the file's start.
        offset: u64,
        /// The caller's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A read at a location where the log holds no such bytes.
    #[error("the revision log has no {len} bytes at {at}")]
    NoSuchRecord {
        /// The location asked for.
        at: Location,
        /// The payload length asked for, bytes.
        len: usize,
    },
    /// A frame grew past what a segment can address (4 GiB from the segment's start).
    #[error("a frame of over {bytes} bytes does not fit a segment")]
    FrameTooLarge {
        /// The bytes of the frame that did fit.
        bytes: u64,
    },
}

impl Error {
    /// Whether something that is stored can't be read, or does not verify: no operation that changes the disk has failed.
    pub fn is_read_failure(&self) -> bool {
        match self {
            Error::Damaged { .. } => true,
            Error::Io { operation, .. } => *operation == "read",
            _ => false,
        }
    }

    pub(super) fn io(operation: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Error {
        let file = file.to_path_buf();
        move |source| Error::Io { operation, file, source }
    }

    pub(super) fn damaged(file: &Path, offset: u64, what: impl Into<String>) -> Error {
        Error::Damaged { file: file.to_path_buf(), offset, what: what.into() }
    }
}
