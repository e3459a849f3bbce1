//! A cut: everything that is replicated, as of one moment, held fast while the store goes on (rule 17).

use std::ops::ControlFlow;
use std::sync::Arc;

use wire::leasepb;

use crate::ReadError;
use crate::alarm::Alarms;
use crate::auth::Auth;
use crate::compaction::Pin;
use crate::membership::Membership;
use crate::mvcc::{KeyValue, NOT_COMPACTED, lock_read};
use crate::record::{RecordKind, RecordVisitor, Revision};
use crate::store::Shared;

/// Everything that a snapshot holds of the store. Taken by the thread that applies, between two batches, and read by
/// any other.
///
/// Leases, members, alarms and users are copies. Records are read from where they lie, and nothing that belongs to the cut is dropped
/// as long as it is held: the background work of later compactions waits for it.
pub struct Cut {
    shared: Arc<Shared>,
    pin: Pin,
    revision: i64,
    leases: Vec<leasepb::Lease>,
    membership: Arc<Membership>,
    alarms: Arc<Alarms>,
    auth: Arc<Auth>,
}

impl Cut {
    /// To be made between two batches, by the thread that applies.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        revision: i64,
        (membership, alarms, auth): (Arc<Membership>, Arc<Alarms>, Arc<Auth>),
    ) -> Cut {
        let leases = shared.leases().all();
        Cut { pin: Pin::take(shared), shared: Arc::clone(shared), revision, leases, membership, alarms, auth }
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compacted revision; `None` before the first compaction.
    pub fn compacted(&self) -> Option<i64> {
        (self.pin.at > NOT_COMPACTED).then_some(self.pin.at)
    }

    /// All leases as they are stored, in ascending order of id.
    pub fn leases(&self) -> &[leasepb::Lease] {
        &self.leases
    }

    /// The membership.
    pub fn membership(&self) -> &Arc<Membership> {
        &self.membership
    }

    /// The alarms that are on.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Users, roles, and whether they count.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Visits, in revision order, exactly the records that etcd has once its last compaction is finished: all above the
    /// compacted revision, and of those at or below it the newest of each key, but for tombstones below it. Each call
    /// visits the same.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn records(&self, visit: &mut RecordVisitor<'_>) -> Result<(), ReadError> {
        let mut damaged = None;
        self.shared.source.scan(0, &mut |kind, at, encoded| {
            if at.main > self.revision {
                return ControlFlow::Break(());
            }
            match self.is_kept(kind, at, encoded) {
                Some(true) => visit(kind, at, encoded),
                Some(false) => ControlFlow::Continue(()),
                None => {
                    damaged = Some(at);
                    ControlFlow::Break(())
                }
            }
        })?;
        match damaged {
            Some(at) => Err(ReadError(format!("revision {}.{} is no encoded pair", at.main, at.sub))),
            None => Ok(()),
        }
    }

    /// `None` if the record is none.
    fn is_kept(&self, kind: RecordKind, at: Revision, encoded: &[u8]) -> Option<bool> {
        let compacted = self.pin.at;
        if at.main > compacted {
            return Some(true);
        }
        let key = KeyValue::decode(encoded).ok()?.key;
        let newest = lock_read(&self.shared.index).at(key, compacted);
        // A tombstone exactly there stays, as in etcd; all that it deleted may be gone, and the index not know it.
        let may_stay = kind == RecordKind::Put || at.main == compacted;
        Some(match newest {
            Some(newest) => may_stay && newest.revision() == at,
            None => may_stay && kind == RecordKind::Tombstone,
        })
    }
}
