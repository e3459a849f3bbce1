//! What can go wrong with a database file.

use std::io;
use std::path::{Path, PathBuf};

/// Why a database file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system failed.
    #[error("{operation} {}: {source}", file.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The database file.
        file: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file contradicts its own format. Nothing was written.
    #[error("{} is damaged in page {page} at offset {offset}: {what}", file.display())]
    Damaged {
        /// The database file.
        file: PathBuf,
        /// The page in which it shows, counted from 0; with an overflow, the first page of the run.
        page: u64,
        /// Where it shows, bytes from the file's start.
        offset: u64,
        /// What does not hold.
        what: String,
    },
    /// No meta page verifies: this is no database file, or one of another version.
    #[error("{} is no database file: meta page 0: {first}; meta page 1: {second}", file.display())]
    NoMeta {
        /// The file.
        file: PathBuf,
        /// What is wrong with page 0, at offset 0.
        first: String,
        /// What is wrong with page 1, wherever it was looked for.
        second: String,
    },
    /// An earlier call on this cursor failed; where it stands is not known.
    #[error("the cursor has failed before")]
    CursorFailed,
    /// The page size is not one that can be written: a power of two from 512 to 65,536.
    #[error("a page size of {0} bytes cannot be written")]
    PageSize(u32),
    /// A key is empty or longer than the format's 32,768 bytes, or a value longer than its 2,147,483,646.
    #[error("a key of {key} bytes with a value of {value} bytes cannot be stored")]
    PairSize {
        /// Length of the key, bytes.
        key: usize,
        /// Length of the value, bytes.
        value: usize,
    },
    /// A key or a bucket's name does not come after the one before it.
    #[error("a key is not greater than the one before it")]
    KeyOrder,
    /// A pair came before any bucket.
    #[error("a pair without a bucket")]
    NoBucket,
    /// What is written is not what was planned. The file is incomplete and has to be thrown away.
    #[error("bucket {bucket:?}: what is written differs from what was planned: {what}")]
    PlanDiffers {
        /// The bucket being written, or that was planned.
        bucket: String,
        /// The difference.
        what: String,
    },
    /// The sink refused bytes. The file is incomplete.
    #[error("write the database: {0}")]
    Sink(io::Error),
    /// An earlier write failed, and nothing follows it.
    #[error("the database's writer has failed before")]
    WriterFailed,
}

impl Error {
    pub(super) fn io(operation: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Error {
        let file = file.to_path_buf();
        move |source| Error::Io { operation, file, source }
    }
}
