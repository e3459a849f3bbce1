//! A quiet cluster, for tests that disturb it in one way of their own.

use std::collections::BTreeMap;

use node::{RequestId, Submission};
use prost::Message as _;
use raft::Role;
use wire::etcdserverpb::{InternalRaftRequest, LeaseGrantRequest, RequestHeader};

use super::ClusterOptions;
use super::host::Purpose;
use super::world::World;
use crate::checker::Fate;
use crate::member::proposal;
use crate::random::Random;

impl World {
    /// So many members that serve.
    pub fn quiet(seed: u64, members: usize) -> World {
        let options = ClusterOptions {
            print_trace: std::env::var_os("QUORATE_SEED").is_some(),
            ..ClusterOptions::default()
        };
        let mut world = World::with(members, Random::new(seed), options);
        world.is_calm = true;
        world.wait("all members serve", 10_000, |world| world.live().all(|host| world.serves(host.place)));
        world
    }

    /// True time passes.
    pub fn pass(&mut self, ms: u64) {
        self.pass_us(ms * 1000);
    }

    /// Less of it: no message arrives so soon.
    pub fn pass_us(&mut self, us: u64) {
        let end = self.now + us;
        while self.next_at() <= end {
            self.step();
        }
        self.now = end;
    }

    /// The host whose member leads, of those that are not stopped.
    pub fn leader(&self) -> Option<usize> {
        let leads = |host: &usize| {
            let member = self.hosts[*host].member.as_ref();
            member.is_some_and(|(running, _)| running.parts.consensus.status().role == Role::Leader)
        };
        (0..self.hosts.len()).filter(|host| self.serves(*host)).find(leads)
    }

    /// The host whose member this one takes for the leader.
    pub fn leader_known_to(&self, host: usize) -> Option<usize> {
        let (running, _) = self.hosts[host].member.as_ref()?;
        let leader = running.parts.consensus.status().leader?;
        self.hosts.iter().position(|host| host.id == leader.0)
    }

    /// How many requests of a host's clients have no answer.
    pub fn unanswered(&self, host: usize) -> usize {
        self.hosts[host].open.len()
    }

    /// The process on a host is stopped, as by SIGSTOP.
    pub fn stop(&mut self, host: usize, ms: u64) {
        self.trace(format_args!("host {host}: stopped for {ms} ms"));
        self.hosts[host].stopped_until = self.now + ms * 1000;
    }

    /// No write to the disk of a host's log ever ends from now on.
    pub fn hang_disk(&mut self, host: usize) {
        self.trace(format_args!("host {host}: its disk hangs"));
        self.hosts[host].disk_us = u64::MAX / 4;
    }

    /// Each write to the disk of a host's log takes this much longer from now on.
    pub fn slow_disk(&mut self, host: usize, ms: u64) {
        self.trace(format_args!("host {host}: its disk takes {ms} ms"));
        self.hosts[host].disk_least_us = ms * 1000;
    }

    /// The time, microseconds of true time.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// A client asks a host for a lease.
    ///
    /// # Panics
    /// If it gets none.
    pub fn grant(&mut self, host: usize, lease: i64, ttl_s: i64) {
        self.ask_for_lease(host, lease, ttl_s);
        self.wait("a lease is granted", 2_000, |world| world.hosts[host].open.is_empty());
        assert!(self.checker.leases().contains_key(&lease), "no lease");
    }

    /// A client asks a host for a lease; what comes of it is heard later.
    pub fn ask_for_lease(&mut self, host: usize, lease: i64, ttl_s: i64) {
        let (running, lane) = self.hosts[host].member.as_mut().expect("the member runs");
        let id = lane.next();
        let request = InternalRaftRequest {
            header: Some(RequestHeader { id: id.0, ..Default::default() }),
            lease_grant: Some(LeaseGrantRequest { id: lease, ttl: ttl_s }),
            ..Default::default()
        };
        self.checker.submitted(id.0);
        running.submit(vec![proposal(id, request.encode_to_vec(), true)]);
        self.hosts[host].open.insert(id.0);
        self.schedule(host);
    }

    /// The clients of a host whose requests have no answer wait no longer.
    pub fn give_up(&mut self, host: usize) {
        let open = std::mem::take(&mut self.hosts[host].open);
        let Some((running, _)) = &mut self.hosts[host].member else { return };
        running.submit(open.iter().map(|id| Submission::GiveUp { id: RequestId(*id) }).collect());
        self.checker.requests.extend(open.iter().map(|id| (*id, Fate::Unknown)));
        self.schedule(host);
    }

    /// A client keeps a lease alive at a host; what comes of it is heard later.
    pub fn keep_alive(&mut self, host: usize, lease: i64) {
        let asked_at = self.now;
        self.ask(host, Purpose::Renew { lease, asked_at });
    }

    /// Renewals that were acknowledged so far.
    pub fn renewals(&self) -> u64 {
        self.leases.renewed
    }

    /// The leases that there are, with their TTLs in seconds.
    pub fn leases(&self) -> BTreeMap<i64, i64> {
        self.checker.leases()
    }
}
