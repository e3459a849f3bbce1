//! Why a member cannot start, or must stop.

use std::path::PathBuf;

/// Why a member cannot start, or must stop. Nothing is acknowledged after one of these (rule 7).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the data directory.
    #[error("data directory {0} is in use by another process")]
    Locked(PathBuf),
    /// Another process has the database file open: Go's etcd, or one of its tools.
    #[error("db file is flocked by another process, or taking too long: {}", .0.display())]
    DatabaseLocked(PathBuf),
    /// The file system failed outside the two logs.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The write-ahead log failed or is damaged.
    #[error(transparent)]
    Wal(#[from] disk::wal::Error),
    /// The revision log failed or is damaged.
    #[error(transparent)]
    Revlog(#[from] disk::revlog::Error),
    /// Snapshot files failed.
    #[error(transparent)]
    Snap(#[from] disk::snap::Error),
    /// A database file failed or is damaged.
    #[error(transparent)]
    Boltfile(#[from] disk::boltfile::Error),
    /// A database file holds what cannot be taken over.
    #[error("{}: {what}", file.display())]
    Database {
        /// The file.
        file: PathBuf,
        /// Why not.
        what: String,
    },
    /// A database file is sound, and this version does not take it over.
    #[error("{}: {what}", file.display())]
    NotTakenOver {
        /// The file.
        file: PathBuf,
        /// Why not.
        what: String,
    },
    /// A saved snapshot is not what was saved, in etcd's words.
    #[error("{0}")]
    Snapshot(String),
    /// What a tool refuses to do with a data directory, in etcd's words where it has some.
    #[error("{0}")]
    Refused(String),
    /// A stored record cannot be read.
    #[error(transparent)]
    Read(#[from] store::ReadError),
    /// A request that the store refuses.
    #[error(transparent)]
    Api(wire::ApiError),
    /// Consensus refuses what was found.
    #[error(transparent)]
    Raft(#[from] raft::Error),
    /// The two logs contradict each other (rule 5).
    #[error("write-ahead log and revision log do not fit together: {0}")]
    Contradiction(String),
    /// The write-ahead log belongs to another member or cluster than the configuration describes.
    #[error("{0}")]
    Identity(String),
    /// The cluster runs a version above this server's.
    #[error(
        "invalid downgrade; server version is lower than determined cluster version: {own} is lower than {cluster}"
    )]
    Downgrade {
        /// This server's.
        own: String,
        /// The cluster's.
        cluster: String,
    },
    /// There are more learners than `--max-learners` allows, in etcd's words.
    #[error("membership: too many learner members in cluster")]
    TooManyLearners,
    /// An entry cannot be applied: this member stops before it (rules 7, 20).
    #[error("apply entry {index}: {reason}")]
    Apply {
        /// Raft index of the entry.
        index: u64,
        /// Why.
        reason: String,
    },
    /// Something that this version does not do yet.
    #[error("{0} is not supported yet")]
    NotYet(&'static str),
}
