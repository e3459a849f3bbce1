//! When leases may end, worked out from what happened: never early, never renewed once they have ended, and gone in the
//! end (rule 14).

use std::collections::BTreeMap;

use prost::Message;
use raft::{Entry, EntryKind};
use wire::etcdserverpb::InternalRaftRequest;

/// What is known of leases, in microseconds of the member's running time: pauses do not count.
#[derive(Debug, Default)]
pub struct LeaseChecker {
    /// TTL in microseconds, and since when it runs: the grant, or the last acknowledged renewal.
    leases: BTreeMap<i64, (u64, u64)>,
    /// The member's last start, at which the time of every lease begins anew.
    started_at: u64,
    /// When each revoke that nobody asked for was proposed.
    proposed_at: BTreeMap<u64, u64>,
    /// Renewals that wait for their lease to be gone.
    waiting: BTreeMap<u64, i64>,
    /// Revokes of leases that had ended.
    pub ended: u64,
    /// Renewals that were acknowledged.
    pub renewed: u64,
}

impl LeaseChecker {
    /// The member has started.
    pub fn started(&mut self, ran_us: u64) {
        self.started_at = ran_us;
        self.waiting.clear();
    }

    /// Consensus wants these entries to be durable. `is_asked`: whether a client has asked for the request.
    pub fn proposed(&mut self, entries: &[Entry], ran_us: u64, is_asked: impl Fn(u64) -> bool) {
        for request in entries.iter().filter_map(request) {
            let id = id_of(&request);
            if request.lease_revoke.is_some() && !is_asked(id) {
                self.proposed_at.entry(id).or_insert(ran_us);
            }
        }
    }

    /// An entry is applied for the first time, and these are the leases behind it, with their TTLs in seconds.
    pub fn applied(&mut self, entry: &Entry, ran_us: u64, leases: &BTreeMap<i64, i64>) {
        let Some(request) = request(entry) else { return };
        if let Some(revoke) = request.lease_revoke {
            if let Some(proposed_at) = self.proposed_at.get(&id_of(&request)) {
                self.ended(revoke.id, *proposed_at);
            }
            self.leases.remove(&revoke.id);
        }
        if let Some(grant) = request.lease_grant
            && let Some(ttl_s) = leases.get(&grant.id)
        {
            self.leases.entry(grant.id).or_insert((*ttl_s as u64 * 1_000_000, ran_us));
        }
    }

    fn ended(&mut self, id: i64, proposed_at: u64) {
        let Some((ttl_us, since)) = self.leases.get(&id) else { return };
        // What an earlier run has proposed counts from what that run knew.
        let since = if proposed_at >= self.started_at { (*since).max(self.started_at) } else { *since };
        assert!(
            proposed_at >= since + ttl_us,
            "lease {id} ended early: its revoke was proposed at {proposed_at}, it ran since {since} for {ttl_us}"
        );
        self.ended += 1;
    }

    /// A renewal was acknowledged.
    pub fn renewed(&mut self, id: i64, ttl_s: i64, ran_us: u64) {
        let Some((ttl_us, since)) = self.leases.get_mut(&id) else {
            panic!("lease {id} is gone and renewed")
        };
        assert_eq!(*ttl_us, ttl_s as u64 * 1_000_000, "the TTL of lease {id}");
        *since = ran_us;
        self.renewed += 1;
    }

    /// A renewal found no lease.
    pub fn not_found(&self, id: i64) {
        assert!(!self.leases.contains_key(&id), "lease {id} is there and was not found");
    }

    /// A renewal waits for the lease to be gone.
    pub fn waits(&mut self, waiter: u64, id: i64) {
        self.waiting.insert(waiter, id);
    }

    /// A renewal that waited was told that its lease is gone.
    pub fn told_gone(&mut self, waiter: u64) {
        let id = self.waiting.remove(&waiter);
        assert!(id.is_some(), "{waiter:x} was told, and did not wait");
    }

    /// Time enough has passed for all leases.
    pub fn finish(&self) {
        assert!(self.leases.is_empty(), "leases that never end: {:?}", self.leases);
        assert!(self.waiting.is_empty(), "renewals without an answer: {:?}", self.waiting);
    }
}

fn request(entry: &Entry) -> Option<InternalRaftRequest> {
    let is_request = entry.kind == EntryKind::Normal && !entry.data.is_empty();
    is_request.then(|| InternalRaftRequest::decode(entry.data.clone()).expect("a request of ours"))
}

fn id_of(request: &InternalRaftRequest) -> u64 {
    request.header.as_ref().map_or(0, |header| header.id)
}
