//! When what is left of long leases is noted in the log (etcd: the gate LeaseCheckpoint).

use std::collections::{BTreeMap, BTreeSet};

/// How often it is noted for one lease; a lease with less left is left alone.
pub(super) const INTERVAL_US: u64 = 300_000_000;

/// The leases that are to be noted, by the time at which.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    queue: BTreeSet<(u64, i64)>,
    due: BTreeMap<i64, u64>,
    /// Proposed, and not known to be applied.
    proposed: BTreeSet<i64>,
}

impl Checkpoints {
    /// Notes the lease at this time of the lease clock, and not when it was to be before.
    pub(super) fn schedule(&mut self, id: i64, at_us: u64) {
        self.forget(id);
        self.due.insert(id, at_us);
        self.queue.insert((at_us, id));
    }

    /// Notes the lease no more.
    pub(super) fn forget(&mut self, id: i64) {
        if let Some(at_us) = self.due.remove(&id) {
            self.queue.remove(&(at_us, id));
        }
    }

    /// The next lease that is due.
    pub(super) fn pop(&mut self, now_us: u64) -> Option<i64> {
        let (_, id) = self.queue.first().copied().filter(|(at_us, _)| *at_us <= now_us)?;
        self.forget(id);
        Some(id)
    }

    /// When the next lease is due.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.queue.first().map(|(at_us, _)| *at_us)
    }

    /// A note of the lease may come into the log.
    pub(super) fn proposed(&mut self, id: i64) {
        self.proposed.insert(id);
    }

    /// None of them may any more, but those that are applied.
    pub(super) fn settled(&mut self, ids: &[i64]) {
        for id in ids {
            self.proposed.remove(id);
        }
    }

    /// Whether a note of the lease is on its way.
    pub(super) fn is_proposed(&self, id: i64) -> bool {
        self.proposed.contains(&id)
    }

    pub(super) fn check(&self) {
        assert_eq!(self.queue.len(), self.due.len(), "each lease is noted once");
        assert!(self.queue.iter().all(|(at_us, id)| self.due.get(id) == Some(at_us)), "a lease is due twice");
    }
}
