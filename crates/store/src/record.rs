//! Stored records, and the two narrow traits through which the store reaches them.

use std::ops::ControlFlow;

/// A revision of the store: the main number of the transaction, and the place of a change within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The transaction's number; a new store is at 1.
    pub main: i64,
    /// The change's place in its transaction, from 0.
    pub sub: i64,
}

/// Where a record's bytes lie; opaque to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location(pub u64);

/// What a record says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// The bytes are an encoded `mvccpb.KeyValue`, exactly as etcd stores it.
    Put,
    /// The key is deleted; the bytes are an encoded `mvccpb.KeyValue` with only its key.
    Tombstone,
}

/// Why a record could not be read. The store never interprets it: a read fails, an apply stops the member.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("read of a stored record: {0}")]
pub struct ReadError(pub String);

/// Sees one record after the other: its kind, revision and bytes.
pub type RecordVisitor<'a> = dyn FnMut(RecordKind, Revision, &[u8]) -> ControlFlow<()> + 'a;

/// Reads records. Implemented over the revision log; shared by all reading threads.
pub trait RecordSource: Send + Sync + 'static {
    /// Fills `out`, whose length is the record's, with the record's bytes.
    fn read(&self, at: Location, out: &mut [u8]) -> Result<(), ReadError>;

    /// As [`RecordSource::read`], but `Ok(false)` where a disk would have to be waited for.
    fn read_nowait(&self, at: Location, out: &mut [u8]) -> Result<bool, ReadError>;

    /// Hears of records that are not wanted any more: place, length, whether each is a tombstone. They may still be read by
    /// who began before.
    fn forget(&self, records: &[(Location, u32, RecordKind)]) {
        let _ = records;
    }

    /// Visits every record whose main revision is `from` or above, in revision order, until the visitor breaks.
    fn scan(&self, from: i64, visitor: &mut RecordVisitor<'_>) -> Result<(), ReadError>;
}

/// Takes the records of the batch that is being applied. All of a batch become durable together or not at all.
pub trait RecordSink {
    /// Adds a record; its location is final.
    fn push(&mut self, kind: RecordKind, revision: Revision, encoded: &[u8]) -> Location;

    /// Reads a record, also one of this batch that no [`RecordSource`] has seen yet.
    fn read(&self, at: Location, out: &mut [u8]) -> Result<(), ReadError>;
}
