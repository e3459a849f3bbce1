//! `.snap` files, in etcd's own format, byte for byte and both ways.
//!
//! A file `<term>-<index>.snap`, each 16 hex digits, says what raft's state machine was at one applied index: a
//! `snappb.Snapshot` of a CRC-32C and the encoded `raftpb.Snapshot` that it covers, in which are the payload (in etcd
//! the membership, as the JSON of its v2 store; bytes here), index, term and ConfState.
//!
//! A member of ours does not recover from these files, and neither does etcd 3.7: what they say is in the revision log,
//! and index, term and ConfState are in the snapshot records of the write-ahead log. They are written since etcd up to
//! 3.6 starts from the newest one that its log names, and so that a directory is whole to etcd's tools. So a damaged
//! one is reported and set aside as `.broken`, which is what etcd does, and stops nobody: see [`Folder::check`].
//!
//! A file comes into being under another name (`tmp-…`, which etcd removes at its start), is synced, renamed, and its
//! name is synced: it is there whole or not at all.

mod folder;
mod format;
mod fuzz;

use std::io;
use std::path::{Path, PathBuf};

pub use folder::{Broken, Folder};
pub use format::{Name, Snapshot};
pub use fuzz::fuzz_snap;

use crate::wal::ConfState;

/// Why a call on `.snap` files failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as in "sync snapshot file".
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { operation, path: path.to_owned(), source }
}
