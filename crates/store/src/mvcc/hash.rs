//! HashKV: CRC-32C over everything that is stored, in revision order, by etcd's algorithm (rule 11; etcd: hash.go).
//!
//! Of the records at or below the compacted revision only those count that are the newest of their keys at the
//! hashed revision. Which records a member still holds beside them never shows: what Go's etcd has after its last
//! compaction is finished decides.

use std::collections::BTreeSet;

use super::index::{Cursor, End, Span};
use super::{KeyValue, lock_read};
use crate::ReadError;
use crate::record::{RecordKind, Revision};
use crate::store::Shared;

/// A hash of all revisions up to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    /// CRC-32C.
    pub hash: u32,
    /// The compacted revision that the hash was made at; -1 before the first compaction.
    pub compact_revision: i64,
    /// The last revision in the hash.
    pub hash_revision: i64,
}

/// Makes one hash: fed with every record from the oldest on, in revision order.
pub(crate) struct Hasher {
    sum: u32,
    compacted: i64,
    /// Where the newest version of a key has to stand for it to count, of those at or below `compacted`.
    kept_at: i64,
}

impl Hasher {
    /// A hash of `revision`, made while `compacted` is the compacted revision; nothing that was visible at or above
    /// that may be dropped while it is made. `by_compaction`: as a compaction at `revision` makes it.
    pub(crate) fn new(
        shared: &Shared,
        compacted: i64,
        revision: i64,
        by_compaction: bool,
    ) -> Result<Hasher, ReadError> {
        let keeps_any =
            keeps_any(shared, revision)? || (by_compaction && !deleted_at(shared, revision)?.is_empty());
        // etcd skips nothing where it would keep nothing: all that the last compaction left counts then.
        let kept_at = if keeps_any { revision } else { compacted };
        Ok(Hasher { sum: crc32c::crc32c(b"key"), compacted, kept_at })
    }

    /// Adds the next record. Its revision is at or below the hashed one.
    pub(crate) fn record(&mut self, shared: &Shared, kind: RecordKind, at: Revision, encoded: &[u8]) {
        if at.main <= self.compacted && !self.is_kept(shared, kind, at, encoded) {
            return;
        }
        self.sum = crc32c::crc32c_append(self.sum, stored_key(&mut [0; 18], kind, at));
        self.sum = crc32c::crc32c_append(self.sum, encoded);
    }

    fn is_kept(&self, shared: &Shared, kind: RecordKind, at: Revision, encoded: &[u8]) -> bool {
        if kind == RecordKind::Tombstone {
            return false;
        }
        let Ok(pair) = KeyValue::decode(encoded) else { return false };
        let kept = lock_read(&shared.index).at(pair.key, self.kept_at);
        kept.is_some_and(|kept| kept.revision() == at)
    }

    pub(crate) fn finish(self, revision: i64) -> KvHash {
        KvHash { hash: self.sum, compact_revision: self.compacted, hash_revision: revision }
    }
}

/// Whether etcd's index keeps anything at a revision. Of a key that was deleted in it and then put again it keeps nothing:
/// a transaction may do that if the delete has the range end `\0`.
fn keeps_any(shared: &Shared, revision: i64) -> Result<bool, ReadError> {
    let mut cursor = Cursor::new(Span { from: &[], to: End::Open });
    let (mut any, mut created) = (false, Vec::new());
    while !cursor.is_done() && !any {
        lock_read(&shared.index).advance(&mut cursor, revision, |key, version| {
            any |= version.create_revision < revision;
            if !any {
                created.push(key.to_vec());
            }
        });
    }
    if any || created.is_empty() {
        return Ok(any);
    }
    let deleted = deleted_at(shared, revision)?;
    Ok(created.iter().any(|key| !deleted.contains(key)))
}

/// The keys that were deleted at exactly this revision.
fn deleted_at(shared: &Shared, revision: i64) -> Result<BTreeSet<Vec<u8>>, ReadError> {
    use std::ops::ControlFlow::{Break, Continue};
    let mut deleted = BTreeSet::new();
    shared.source.scan(revision, &mut |kind, at, encoded| {
        if at.main > revision {
            return Break(());
        }
        if at.main == revision && kind == RecordKind::Tombstone {
            deleted.extend(KeyValue::decode(encoded).map(|pair| pair.key.to_vec()));
        }
        Continue(())
    })?;
    Ok(deleted)
}

/// The key under which etcd's backend stores a record: both numbers big endian, and `t` on a tombstone.
fn stored_key(buffer: &mut [u8; 18], kind: RecordKind, at: Revision) -> &[u8] {
    buffer[..8].copy_from_slice(&at.main.to_be_bytes());
    buffer[8] = b'_';
    buffer[9..17].copy_from_slice(&at.sub.to_be_bytes());
    buffer[17] = b't';
    match kind {
        RecordKind::Put => &buffer[..17],
        RecordKind::Tombstone => buffer,
    }
}
