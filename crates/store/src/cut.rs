//! Everything that is stored, at one moment: what a snapshot for another member is made of (rule 17).

use std::ops::ControlFlow;
use std::sync::Arc;

use prost::Message as _;
use wire::{leasepb, membershippb};

use crate::compaction::Pin;
use crate::membership::Membership;
use crate::mvcc::{KeyValue, NOT_COMPACTED, lock_read};
use crate::record::{ReadError, RecordKind, RecordVisitor, Revision};
use crate::store::Shared;
use crate::tables::Tables;

/// A cut through the state between two batches. Keeps what it needs readable until it is dropped; apply goes on meanwhile.
pub struct Cut {
    shared: Arc<Shared>,
    pin: Pin,
    revision: i64,
    leases: Vec<leasepb::Lease>,
    membership: Arc<Membership>,
}

impl Cut {
    /// To be made between batches, by the thread that applies.
    pub(crate) fn new(shared: &Arc<Shared>, revision: i64, membership: Arc<Membership>) -> Self {
        let leases = shared.leases().all();
        Cut { pin: Pin::take(shared), shared: Arc::clone(shared), revision, leases, membership }
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compacted revision; `None` before the first compaction.
    pub fn compacted(&self) -> Option<i64> {
        (self.pin.at > NOT_COMPACTED).then_some(self.pin.at)
    }

    /// All leases.
    pub fn leases(&self) -> &[leasepb::Lease] {
        &self.leases
    }

    /// The members.
    pub fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// Visits every record that somebody may still ask for, in the order of revisions, until the visitor breaks: all above
    /// the compacted revision, and what stands there. It visits the same ones each time.
    ///
    /// # Errors
    /// A failed read.
    pub fn records(&self, visitor: &mut RecordVisitor<'_>) -> Result<(), ReadError> {
        self.shared.source.scan(0, &mut |kind, at, encoded| {
            if at.main > self.revision {
                return ControlFlow::Break(());
            }
            if at.main <= self.pin.at && !self.is_kept(kind, at, encoded) {
                return ControlFlow::Continue(());
            }
            visitor(kind, at, encoded)
        })
    }

    /// What etcd's compaction keeps of the past: the newest of each key, and deletions at exactly that revision.
    fn is_kept(&self, kind: RecordKind, at: Revision, encoded: &[u8]) -> bool {
        if kind == RecordKind::Tombstone {
            return at.main == self.pin.at;
        }
        let Ok(pair) = KeyValue::decode(encoded) else { return false };
        let kept = lock_read(&self.shared.index).at(pair.key, self.pin.at);
        kept.is_some_and(|kept| kept.revision() == at)
    }
}

/// The small tables of a store, to be made anew from a snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SmallTables {
    /// The compacted revision, if there is one.
    pub compacted: Option<i64>,
    /// All leases.
    pub leases: Vec<leasepb::Lease>,
    /// All members.
    pub members: Vec<membershippb::Member>,
    /// Ids of members that are not any more.
    pub removed: Vec<u64>,
    /// The cluster's version, empty if it is not set.
    pub cluster_version: String,
}

impl SmallTables {
    /// As [`Store::tables`](crate::Store::tables) encodes them.
    pub fn encode(self) -> Vec<u8> {
        let SmallTables { compacted, leases, members, removed, cluster_version } = self;
        let tables = Tables { compacted, leases, members, removed, cluster_version, ..Tables::default() };
        tables.encode_to_vec()
    }
}
