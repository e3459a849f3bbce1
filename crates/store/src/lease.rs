//! Leases as replicated state: which there are, their granted and remaining times, and the keys attached to them.
//!
//! Nothing here counts time. When a lease ends is the leader's business; it ends by a revoke in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use wire::{ApiError, leasepb};

use crate::mvcc::Key;

/// Longest TTL that a lease may be granted, seconds (etcd: lessor.go).
pub const TTL_MAX_S: i64 = 9_000_000_000;

/// One lease, as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// What was granted, seconds.
    pub granted_ttl_s: i64,
    /// What was left of it at the last checkpoint, seconds; 0 if there was none.
    pub remaining_ttl_s: i64,
}

impl LeaseTimes {
    /// How long the lease lives from when its time begins anew, seconds: what was left at the last checkpoint, else all
    /// that was granted.
    pub fn ttl_s(&self) -> i64 {
        if self.remaining_ttl_s > 0 { self.remaining_ttl_s } else { self.granted_ttl_s }
    }
}

/// What an entry did to a lease, for whoever counts its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// It is there from now on.
    Granted {
        /// The lease.
        id: i64,
        /// How long it lives, seconds.
        ttl_s: i64,
    },
    /// It is gone.
    Revoked {
        /// The lease.
        id: i64,
    },
    /// What is left of it was noted.
    Checkpointed {
        /// The lease.
        id: i64,
        /// Seconds; 0 takes an earlier note back.
        remaining_ttl_s: i64,
    },
}

#[derive(Clone, Debug)]
struct Lease {
    times: LeaseTimes,
    /// In key order, in which a revoke deletes them.
    keys: BTreeSet<Key>,
}

/// All leases. Ids are any number but 0, negative ones too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases {
    leases: BTreeMap<i64, Lease>,
    /// Leases that were granted, checkpointed or revoked since [`Leases::take_changes`].
    changed: BTreeSet<i64>,
}

impl Leases {
    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub(crate) fn times(&self, id: i64) -> Option<LeaseTimes> {
        self.leases.get(&id).map(|lease| lease.times)
    }

    /// All ids with their times, in ascending order of id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, LeaseTimes)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.times))
    }

    /// The attached keys, in order; none if there is no such lease.
    pub(crate) fn keys(&self, id: i64) -> impl Iterator<Item = &[u8]> {
        self.leases.get(&id).into_iter().flat_map(|lease| lease.keys.iter().map(Key::as_slice))
    }

    /// As [`Leases::keys`], but only those behind `after`.
    pub(crate) fn keys_after(&self, id: i64, after: Option<&[u8]>) -> impl Iterator<Item = &[u8]> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.leases.get(&id).map(|lease| lease.keys.range::<[u8], _>((from, Bound::Unbounded)));
        keys.into_iter().flatten().map(Key::as_slice)
    }

    pub(crate) fn key_count(&self, id: i64) -> usize {
        self.leases.get(&id).map_or(0, |lease| lease.keys.len())
    }

    /// Grants a lease, with a TTL of at least `ttl_min_s`; returns the TTL granted.
    pub(crate) fn grant(&mut self, id: i64, ttl_s: i64, ttl_min_s: i64) -> Result<i64, ApiError> {
        if id == 0 {
            return Err(ApiError::LeaseNotFound);
        }
        if ttl_s > TTL_MAX_S {
            return Err(ApiError::LeaseTtlTooLarge);
        }
        if self.contains(id) {
            return Err(ApiError::LeaseExist);
        }
        let granted_ttl_s = ttl_s.max(ttl_min_s);
        let times = LeaseTimes { granted_ttl_s, remaining_ttl_s: 0 };
        self.leases.insert(id, Lease { times, keys: BTreeSet::new() });
        self.changed.insert(id);
        Ok(granted_ttl_s)
    }

    /// Removes a lease. The caller has deleted its keys, or takes up the tables.
    pub(crate) fn remove(&mut self, id: i64) {
        if self.leases.remove(&id).is_some() {
            self.changed.insert(id);
        }
    }

    /// Notes what is left of a lease; one that is gone is left alone. Whether it was there.
    pub(crate) fn checkpoint(&mut self, id: i64, remaining_ttl_s: i64) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else { return false };
        lease.times.remaining_ttl_s = remaining_ttl_s;
        self.changed.insert(id);
        true
    }

    /// Attaches a key, if the lease is there.
    pub(crate) fn attach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key.into());
        }
    }

    pub(crate) fn detach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// Every lease as it is stored.
    pub(crate) fn all(&self) -> Vec<leasepb::Lease> {
        self.leases.iter().map(|(id, lease)| stored(*id, lease)).collect()
    }

    /// The leases that are new or have other times since this was last asked, and the ids of those that are gone.
    pub(crate) fn take_changes(&mut self) -> (Vec<leasepb::Lease>, Vec<i64>) {
        let mut gone = Vec::new();
        let mut kept = Vec::new();
        for id in std::mem::take(&mut self.changed) {
            match self.leases.get(&id) {
                Some(lease) => kept.push(stored(id, lease)),
                None => gone.push(id),
            }
        }
        (kept, gone)
    }

    /// Takes up a lease from the log. Its keys are attached when all records are known. As in etcd, one whose TTL is
    /// below the minimum of this run counts with that.
    pub(crate) fn restore(&mut self, lease: &leasepb::Lease, ttl_min_s: i64) {
        let times =
            LeaseTimes { granted_ttl_s: lease.ttl.max(ttl_min_s), remaining_ttl_s: lease.remaining_ttl };
        let keys = self.leases.remove(&lease.id).map(|lease| lease.keys).unwrap_or_default();
        self.leases.insert(lease.id, Lease { times, keys });
    }

    pub(crate) fn clear(&mut self) {
        *self = Leases::default();
    }

    /// Checks every invariant; `attached` says to which lease a key is attached by its newest version. Panics if one
    /// does not hold.
    pub(crate) fn check(&self, mut attached: impl FnMut(&[u8]) -> i64) {
        for (id, lease) in &self.leases {
            assert_ne!(*id, 0, "a lease without an id");
            for key in &lease.keys {
                assert_eq!(attached(key.as_slice()), *id, "{key:?} is attached to another lease");
            }
        }
    }
}

fn stored(id: i64, lease: &Lease) -> leasepb::Lease {
    leasepb::Lease { id, ttl: lease.times.granted_ttl_s, remaining_ttl: lease.times.remaining_ttl_s }
}
