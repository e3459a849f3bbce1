//! When leases may end in a cluster (rule 14): never before their time since the last renewal that any member has
//! acknowledged was asked for, whoever led then, whoever was stopped, and whatever clocks show.

use std::collections::BTreeMap;

use prost::Message;
use raft::{Entry, EntryKind};
use wire::etcdserverpb::InternalRaftRequest;

/// Clocks run so much too fast at most, in thousandths.
pub const CLOCK_ERROR: u64 = 10;

/// What is known of leases, in microseconds of true time.
#[derive(Debug, Default)]
pub struct Leases {
    /// TTL in microseconds, and since when it runs at least.
    leases: BTreeMap<i64, (u64, u64)>,
    /// When each revoke that nobody asked for came into a log.
    proposed_at: BTreeMap<u64, u64>,
    /// Revokes of leases that had ended.
    pub ended: u64,
    /// Renewals that were acknowledged.
    pub renewed: u64,
}

impl Leases {
    /// A member wants these entries to be durable. `is_asked`: whether a client has asked for the request.
    pub fn proposed(&mut self, entries: &[Entry], now: u64, is_asked: impl Fn(u64) -> bool) {
        for request in entries.iter().filter_map(request) {
            let id = request.header.as_ref().map_or(0, |header| header.id);
            if request.lease_revoke.is_some() && !is_asked(id) {
                self.proposed_at.entry(id).or_insert(now);
            }
        }
    }

    /// An entry is applied for the first time anywhere, and these are the leases behind it, with their TTLs in seconds.
    pub fn applied(&mut self, entry: &Entry, now: u64, leases: &BTreeMap<i64, i64>) {
        let Some(request) = request(entry) else { return };
        if let Some(revoke) = request.lease_revoke {
            let id = request.header.as_ref().map_or(0, |header| header.id);
            if let Some(proposed_at) = self.proposed_at.get(&id) {
                self.ended(revoke.id, *proposed_at);
            }
            // It may have been refused.
            if !leases.contains_key(&revoke.id) {
                self.leases.remove(&revoke.id);
            }
        }
        if let Some(grant) = request.lease_grant
            && let Some(ttl_s) = leases.get(&grant.id)
        {
            self.leases.entry(grant.id).or_insert((*ttl_s as u64 * 1_000_000, now));
        }
    }

    fn ended(&mut self, id: i64, proposed_at: u64) {
        let Some((ttl_us, since)) = self.leases.get(&id) else { return };
        let least_us = ttl_us * (1000 - CLOCK_ERROR) / 1000;
        assert!(
            proposed_at >= since + least_us,
            "lease {id} ended early: its revoke was proposed at {proposed_at}, it ran since {since} for {ttl_us}"
        );
        self.ended += 1;
    }

    /// A renewal that was asked for at this time was acknowledged.
    pub fn renewed(&mut self, id: i64, asked_at: u64) {
        if let Some((_, since)) = self.leases.get_mut(&id) {
            *since = (*since).max(asked_at);
            self.renewed += 1;
        }
    }
}

fn request(entry: &Entry) -> Option<InternalRaftRequest> {
    let is_request = entry.kind == EntryKind::Normal && !entry.data.is_empty();
    is_request.then(|| InternalRaftRequest::decode(entry.data.clone()).expect("a request of ours"))
}

#[cfg(test)]
mod tests {
    use raft::{Index, Term};
    use wire::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, RequestHeader};

    use super::*;

    const S: u64 = 1_000_000;

    fn entry(id: u64, request: InternalRaftRequest) -> Entry {
        let header = Some(RequestHeader { id, ..RequestHeader::default() });
        let data = InternalRaftRequest { header, ..request }.encode_to_vec().into();
        Entry { index: Index(id), term: Term(1), kind: EntryKind::Normal, data }
    }

    fn grant(id: u64) -> Entry {
        let lease_grant = Some(LeaseGrantRequest { id: 1, ttl: 2 });
        entry(id, InternalRaftRequest { lease_grant, ..Default::default() })
    }

    fn revoke(id: u64) -> Entry {
        let lease_revoke = Some(LeaseRevokeRequest { id: 1 });
        entry(id, InternalRaftRequest { lease_revoke, ..Default::default() })
    }

    /// A lease of 2 s that runs since 0, whose revoke a client asked for at 1 s, and which was asked for again at 1.5 s: both
    /// changed nothing.
    fn kept() -> (Leases, BTreeMap<i64, i64>) {
        let there = BTreeMap::from([(1, 2)]);
        let mut leases = Leases::default();
        leases.applied(&grant(1), 0, &there);
        leases.applied(&revoke(2), S, &there);
        leases.applied(&grant(3), 3 * S / 2, &there);
        (leases, there)
    }

    #[test]
    fn the_time_of_a_lease_goes_on_where_its_revoke_was_refused() {
        let (mut leases, _) = kept();
        leases.proposed(&[revoke(4)], 2 * S, |_| false);
        leases.applied(&revoke(4), 2 * S, &BTreeMap::new());
        assert_eq!(leases.ended, 1);
    }

    #[test]
    #[should_panic(expected = "lease 1 ended early")]
    fn an_end_before_its_time_is_noticed() {
        let (mut leases, _) = kept();
        leases.proposed(&[revoke(4)], 19 * S / 10, |_| false);
        leases.applied(&revoke(4), 2 * S, &BTreeMap::new());
    }

    #[test]
    #[should_panic(expected = "lease 1 ended early")]
    fn a_lease_that_is_granted_again_runs_anew() {
        let (mut leases, there) = kept();
        leases.applied(&revoke(4), S, &BTreeMap::new());
        leases.applied(&grant(5), S, &there);
        leases.proposed(&[revoke(6)], 5 * S / 2, |_| false);
        leases.applied(&revoke(6), 3 * S, &BTreeMap::new());
    }
}
