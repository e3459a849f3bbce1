//! Keys, versions and revisions.
//!
//! A read pins a revision and works from the shared [`index`] and record bytes alone. Writes run on the apply
//! thread: they go to the record sink and into the index at a revision that no reader looks at before
//! `Store::publish` makes it current.

mod compare;
mod delete;
mod hash;
mod index;
mod key;
mod key_value;
mod put;
mod range;
mod span_set;
mod stream;
mod txn;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use hash::Hasher;
pub use hash::KvHash;
pub(crate) use index::{Cursor, DropCursor, End, Index, KEYS_PER_CHUNK, Span, Version};
pub(crate) use key::Key;
pub(crate) use key_value::KeyValue;
pub(crate) use range::{count, range};
pub(crate) use span_set::SpanSet;
pub(crate) use stream::{Chunk, chunk};
pub(crate) use txn::{run_read, run_write};

use wire::ApiError;

use crate::lease::Leases;
use crate::ops::Ops;
use crate::record::{Location, ReadError, RecordKind, RecordSink, RecordSource, Revision};
use crate::size::stored_bytes;

/// What "nothing is compacted" counts as; the first compaction may be at revision 0.
pub(crate) const NOT_COMPACTED: i64 = -1;

/// Why a read gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadFailure {
    /// The request's own fault; the caller is told.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A record is not in memory, or many keys have to be looked at, and it was told not to wait: repeat it where it may,
    /// with [`ReadMode::Brief`].
    #[error("the read would wait")]
    WouldBlock,
    /// The read is a long one, and it was told to be brief: repeat it where it may take its time.
    #[error("the read would take long")]
    Long,
    /// Whoever asked for it no longer waits ([`Pace`]).
    #[error("nobody waits for the read")]
    Gone,
    /// A record cannot be read.
    #[error(transparent)]
    Source(#[from] ReadError),
}

/// Whether a read may wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// On a thread that serves connections: gives up with [`ReadFailure::WouldBlock`] where it would wait for a disk or
    /// look at many keys, with [`ReadFailure::Long`] where it would collect much.
    NoWait,
    /// Where it may wait for a disk, but not keep others waiting: gives up with [`ReadFailure::Long`] where it would
    /// collect as much as that, or look at very many keys.
    Brief,
    /// On a thread made for it.
    MayBlock,
}

/// Whom a read that may block asks before each record and before each hold of the index's lock, with no lock held.
pub trait Pace: Send + Sync {
    /// Whether the read is still wanted; it ends with [`ReadFailure::Gone`] if not. May wait. `bytes`: what is read next;
    /// 0 before a hold of the lock. A hash asks after each piece, with the bytes that it has read.
    fn go_on(&self, bytes: usize) -> bool;
}

/// Where record bytes come from.
#[derive(Clone, Copy)]
pub(crate) enum Bytes<'a> {
    Source(&'a dyn RecordSource, ReadMode, Option<&'a dyn Pace>),
    /// The apply thread's way, which also sees the batch being written.
    Sink(&'a dyn RecordSink),
}

impl Bytes<'_> {
    /// What whoever reads may do.
    pub(crate) fn mode(&self) -> ReadMode {
        match self {
            Bytes::Source(_, mode, _) => *mode,
            Bytes::Sink(_) => ReadMode::MayBlock,
        }
    }

    /// Errors: [`ReadFailure::Gone`] if nobody waits for the read any more.
    #[inline]
    pub(crate) fn go_on(&self, bytes: usize) -> Result<(), ReadFailure> {
        match self {
            Bytes::Source(_, _, Some(pace)) if !pace.go_on(bytes) => Err(ReadFailure::Gone),
            Bytes::Source(..) | Bytes::Sink(_) => Ok(()),
        }
    }

    /// Appends a record's bytes.
    pub(crate) fn append(&self, at: Location, length: u32, out: &mut Vec<u8>) -> Result<(), ReadFailure> {
        self.go_on(length as usize)?;
        let start = out.len();
        out.resize(start + length as usize, 0);
        let place = &mut out[start..];
        match self {
            Bytes::Source(source, ReadMode::MayBlock | ReadMode::Brief, _) => source.read(at, place)?,
            Bytes::Source(source, ReadMode::NoWait, _) => {
                if !source.read_nowait(at, place)? {
                    return Err(ReadFailure::WouldBlock);
                }
            }
            Bytes::Sink(sink) => sink.read(at, place)?,
        }
        Ok(())
    }
}

/// Everything that one read needs: it sees the store as it was, or will be, at one revision.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub index: &'a RwLock<Index>,
    pub bytes: Bytes<'a>,
    /// The newest revision that this reader sees.
    pub current: i64,
    pub compacted: i64,
    pub leases: &'a RwLock<Leases>,
    /// What the index no longer has, for a view that pins nothing; see [`View::point`].
    pub dropped: Option<&'a AtomicI64>,
}

impl View<'_> {
    /// The version of one key that is there at a revision.
    ///
    /// Errors: [`ApiError::Compacted`] if the view pins nothing, and what it reads is being dropped.
    pub(crate) fn point(&self, key: &[u8], at: i64) -> Result<Option<Version>, ApiError> {
        let index = self.index();
        let row = index.get(key, at);
        // Under the index's lock: what is dropped is announced before it goes.
        match self.dropped {
            Some(dropped) if dropped.load(Ordering::Acquire) > at => Err(ApiError::Compacted),
            _ => Ok(row),
        }
    }

    /// The revision that a request for `revision` reads at: 0 and below mean the current one.
    pub(crate) fn revision(&self, revision: i64) -> Result<i64, ApiError> {
        let at = if revision <= 0 { self.current } else { revision };
        if at > self.current {
            Err(ApiError::FutureRev)
        } else if at < self.compacted {
            Err(ApiError::Compacted)
        } else {
            Ok(at)
        }
    }

    fn has_lease(&self, id: i64) -> bool {
        self.leases.read().expect("no thread panics while it holds this lock").contains(id)
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        lock_read(self.index)
    }
}

pub(crate) fn lock_read(index: &RwLock<Index>) -> RwLockReadGuard<'_, Index> {
    index.read().expect("the apply thread panicked while it changed the index")
}

pub(crate) fn lock_write(index: &RwLock<Index>) -> RwLockWriteGuard<'_, Index> {
    index.write().expect("the apply thread panicked while it changed the index")
}

/// The changes of one entry: all at one new revision, which exists only if there is a change.
///
/// The index's lock is taken for writing once a put, and once a chunk of deletes; never while a record is encoded
/// or handed over.
pub(crate) struct Write<'a> {
    pub index: &'a RwLock<Index>,
    pub sink: &'a mut dyn RecordSink,
    /// For encoding records; keeps its capacity from entry to entry.
    pub scratch: &'a mut Vec<u8>,
    /// The revision before this entry.
    pub before: i64,
    pub compacted: i64,
    pub changes: u32,
    /// What the changes so far take in a snapshot ([`stored_bytes`]).
    pub bytes: u64,
    pub leases: &'a RwLock<Leases>,
    /// What was done, but for what was compared before it.
    pub ops: Ops,
    pub compares: u64,
}

impl Write<'_> {
    /// The revision that this entry's changes get.
    pub(crate) fn revision(&self) -> i64 {
        self.before + 1
    }

    /// The revision of this moment: the new one as soon as there is a change.
    pub(crate) fn current(&self) -> i64 {
        if self.changes > 0 { self.revision() } else { self.before }
    }

    /// What a read at this moment sees: the changes so far too.
    pub(crate) fn view(&self) -> View<'_> {
        View {
            index: self.index,
            bytes: Bytes::Sink(&*self.sink),
            current: self.current(),
            compacted: self.compacted,
            leases: self.leases,
            dropped: None,
        }
    }

    /// Moves a key from one lease to another; 0 is none.
    fn move_lease(&self, key: &[u8], from: i64, to: i64) {
        if from != to {
            let mut leases = self.leases.write().expect("no thread panics while it holds this lock");
            leases.detach(from, key);
            leases.attach(to, key);
        }
    }

    /// Hands the record in `scratch` over as the next change.
    fn push_scratch(&mut self, kind: RecordKind) -> Result<(Location, u32, u32), ReadFailure> {
        let length = u32::try_from(self.scratch.len())
            .map_err(|_| ReadError(format!("a record of {} bytes", self.scratch.len())))?;
        let sub = self.changes;
        let revision = Revision { main: self.revision(), sub: i64::from(sub) };
        let location = self.sink.push(kind, revision, self.scratch);
        self.changes += 1;
        self.bytes += stored_bytes(length, kind);
        Ok((location, length, sub))
    }
}
