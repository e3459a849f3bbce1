//! What a merge of the stored records needs: which of them are still wanted, and that the index learns where they are now.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::compaction::lock;
use crate::mvcc::{KeyValue, lock_read, lock_write};
use crate::record::{Location, RecordKind, Revision};
use crate::store::Shared;

/// Records looked at under one hold of the index's lock. Lookups take a microsecond at most, so nobody feels it.
const RECORDS_PER_HOLD: usize = 64;

/// Knows what is wanted of the stored records, and moves them; for whoever merges what they are stored in.
///
/// What is not wanted was dropped from the index by a compaction, so its hash is made or given up (rule 12). Whoever leaves
/// it out durably must have the compacted revision durable before: at least [`Relocator::dropped`].
pub struct Relocator {
    shared: Arc<Shared>,
}

/// What came of moving a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relocated {
    /// The index has its new place.
    Moved,
    /// It is not wanted any more, and is of this kind.
    Gone(RecordKind),
}

impl Relocator {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Relocator { shared }
    }

    /// What was dead at this compacted revision is dropped, and [`forgotten`](crate::RecordSource::forget); -1 before
    /// the first compaction of this run.
    pub fn finished(&self) -> i64 {
        self.shared.finished.load(Ordering::Acquire)
    }

    /// Nothing that is visible at this compacted revision was ever dropped; below it there are gaps, or will be soon.
    pub fn dropped(&self) -> i64 {
        self.shared.dropped.load(Ordering::Acquire)
    }

    /// Says of each record whether it is wanted. A tombstone that is not may go only if nothing that it hides is stored
    /// any more: `tombstones_below` is the revision below which that is so, by the caller's knowledge. Others count as
    /// wanted.
    pub fn wanted<'a>(
        &self,
        records: impl Iterator<Item = (RecordKind, Revision, &'a [u8])>,
        tombstones_below: i64,
        wanted: &mut Vec<bool>,
    ) {
        let mut records = records.peekable();
        while records.peek().is_some() {
            let index = lock_read(&self.shared.index);
            for (kind, revision, encoded) in records.by_ref().take(RECORDS_PER_HOLD) {
                let must_stay = kind == RecordKind::Tombstone && revision.main >= tombstones_below;
                // What cannot be read is for others to find out.
                let key = KeyValue::decode(encoded).map(|pair| pair.key);
                wanted.push(must_stay || key.is_ok_and(|key| index.has(key, revision)));
            }
        }
    }

    /// Tells the index where records are now; what came of each. Their places before stay valid for whoever has found
    /// them, until it has left ([`Relocator::have_left`]).
    pub fn relocate<'a>(
        &self,
        records: impl Iterator<Item = (RecordKind, Revision, Location, &'a [u8])>,
        mut told: impl FnMut(Relocated),
    ) {
        let mut records = records.peekable();
        while records.peek().is_some() {
            let mut index = lock_write(&self.shared.index);
            for (kind, revision, to, encoded) in records.by_ref().take(RECORDS_PER_HOLD) {
                let key = KeyValue::decode(encoded).map(|pair| pair.key);
                let is_moved = key.is_ok_and(|key| index.relocate(key, revision, to));
                told(if is_moved { Relocated::Moved } else { Relocated::Gone(kind) });
            }
        }
    }

    /// All records that are to move have been: whoever begins to read now finds the new places only. The epoch for
    /// [`Relocator::have_left`].
    pub fn end_move(&self) -> u64 {
        let epoch = lock(&self.shared.pins).begin_epoch();
        self.shared.epoch.store(epoch, Ordering::Release);
        epoch
    }

    /// Whether nobody reads any more who began before [`Relocator::end_move`]. Reads of one key are not waited for: they
    /// begin anew.
    pub fn have_left(&self, epoch: u64) -> bool {
        lock(&self.shared.pins).have_left(epoch)
    }
}
