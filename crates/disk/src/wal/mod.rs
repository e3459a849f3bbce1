//! The write-ahead log, in etcd's own format, byte for byte and both ways.
//!
//! A log is a folder of segments `<seq>-<index>.wal`. A segment is a row of frames: a length field of eight
//! bytes (little-endian; the top byte tells the padding), a `walpb.Record`, zeros up to the next multiple of
//! eight. Each record carries the CRC-32C of all records' data up to and with its own, running through all
//! segments. Every segment begins with a record of the sum so far, the metadata and, but for the first, the
//! hard state; the first goes on with a snapshot record at 0. Segments are allocated (reading as zero) before
//! use, and zeros follow the last frame.
//!
//! Life: [`Wal::create`] once; then [`Wal::open`] reads and checks everything and writes nothing;
//! [`Opened::into_writer`] repairs a torn tail and gives a [`Wal`], on which [`Wal::append`] gathers records in
//! one buffer and [`Wal::sync`] makes them durable with one write and one fdatasync. One group is outstanding
//! at a time, and nothing follows it before its fdatasync: what rule 5 of ARCHITECTURE.md ("torn or rotten")
//! stands on. `reader.rs` keeps that rule, `tail.rs` says what makes a row of records a log.
//!
//! A log is given back from its beginning ([`Wal::release`]): a snapshot record that is durable says that the entries up
//! to its index are needed no more. A log whose first segments are gone begins with the sum, the metadata and the hard
//! state that the oldest one opens with.

pub(crate) mod decode;
pub(crate) mod encode;
mod error;
mod frame;
pub mod fuzz;
mod opened;
mod reader;
mod segment;
mod tail;
mod window;
mod writer;

use bytes::Bytes;

pub use error::Error;
pub use opened::{Entries, Opened, Torn};
pub use segment::{Preparation, Prepared, Release};
pub use writer::{Wal, WriteWatch};

/// What the write-ahead log's calls answer.
pub type Result<T> = std::result::Result<T, Error>;

/// Sizes that a log of one member may choose for itself; any reader copes with any choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length to which a segment is allocated, bytes. A frame longer than that gets a longer segment.
    pub segment_bytes: u64,
}

impl Limits {
    /// etcd's own: 64,000,000 bytes a segment.
    pub const DEFAULT: Limits = Limits { segment_bytes: 64_000_000 };

    /// Segments that roll after a handful of records, for tests.
    pub const fn tiny() -> Self {
        Limits { segment_bytes: 2048 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A place in raft's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The term of the entry.
    pub term: u64,
    /// Its index; the first entry of a log has 1, 0 is before it.
    pub index: u64,
}

/// What an entry's data is (`raftpb.EntryType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryKind {
    /// A request, or empty at the beginning of a term.
    #[default]
    Normal,
    /// A `raftpb.ConfChange`.
    ConfChange,
    /// A `raftpb.ConfChangeV2`.
    ConfChangeV2,
}

/// One entry of raft's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The term in which a leader made it.
    pub term: u64,
    /// Its place in the log, from 1.
    pub index: u64,
    /// What `data` is.
    pub kind: EntryKind,
    /// The payload; empty and absent are the same.
    pub data: Bytes,
}

impl Entry {
    /// The entry as [`Wal::append`] takes it.
    pub fn as_ref(&self) -> EntryRef<'_> {
        EntryRef { term: self.term, index: self.index, kind: self.kind, data: &self.data }
    }
}

/// One entry of raft's log, its data borrowed: appending copies it once, into the group's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The term in which a leader made it, from 1.
    pub term: u64,
    /// Its place in the log, from 1.
    pub index: u64,
    /// What `data` is.
    pub kind: EntryKind,
    /// The payload.
    pub data: &'a [u8],
}

/// What raft must not forget (`raftpb.HardState`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The current term; 0 only before the first.
    pub term: u64,
    /// The member voted for in this term; 0 is none.
    pub vote: u64,
    /// The commit index.
    pub commit: u64,
}

/// Says that everything up to `index` is in a snapshot (`walpb.Snapshot`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// The last index that the snapshot covers.
    pub index: u64,
    /// The term of the entry there.
    pub term: u64,
    /// The membership there; absent at index 0 and in what etcd before 3.5 wrote.
    pub conf_state: Option<ConfState>,
}

impl SnapshotRecord {
    /// What the record's frame takes in a segment, bytes.
    pub fn frame_bytes(&self) -> u64 {
        encode::frame_bytes_max(encode::snapshot(self).len())
    }
}

/// Who votes (`raftpb.ConfState`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in raftpb.ConfState; all but the flag are member ids")]
pub struct ConfState {
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    pub voters_outgoing: Vec<u64>,
    pub learners_next: Vec<u64>,
    pub auto_leave: bool,
}
