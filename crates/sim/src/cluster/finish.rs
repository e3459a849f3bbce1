//! The end of a run: nothing is disturbed any more, and a cluster that is well has to show it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::host::Host;
use super::world::{STOP_MAX_US, World};
use crate::checker::Fate;
use crate::workload;

/// Within this time after the last disturbance somebody leads, and everybody knows: an election timeout and up to another
/// one until somebody stands, once more if two stand at once, and some to spare.
const ELECTION_BOUND_MS: u64 = 8_000;
/// Within this time a cluster that is well answers everything and all members are level.
const SETTLE_BOUND_MS: u64 = 30_000;

impl World {
    /// Ends all disturbances: somebody leads soon, everything is answered, all members become level, and leases end.
    pub fn finish(&mut self) {
        self.calm_down();
        self.wait("somebody leads, and everybody knows", ELECTION_BOUND_MS, Self::has_leader);
        self.wait("all members serve", SETTLE_BOUND_MS, |world| {
            world.live().all(|host| world.serves(host.place))
        });
        // What waits for a process that was stopped comes when that would have gone on: late proposals would crowd out others.
        let arrived_at = self.now + STOP_MAX_US;
        self.wait("nothing is under way", SETTLE_BOUND_MS, |world| world.next_at() > arrived_at);
        self.wait("all members are level", SETTLE_BOUND_MS, Self::is_level);
        for host in 0..self.hosts.len() {
            self.check_fates(host);
            // What was lost on the way to a leader that lives ends by its client's own patience.
            for id in std::mem::take(&mut self.hosts[host].open) {
                self.checker.requests.insert(id, Fate::Unknown);
            }
            self.hosts[host].reads.clear();
        }
        let live: Vec<usize> = self.live().map(|host| host.place).collect();
        // One after the other: of what others hand on together, a leader with small bounds refuses some.
        for host in live {
            self.submit(host);
            self.read(host);
            self.wait("everything is answered", SETTLE_BOUND_MS, |world| {
                world.hosts[host].open.is_empty() && world.hosts[host].reads.is_empty()
            });
        }
        self.wait("all members are level", SETTLE_BOUND_MS, Self::is_level);
        self.compare();
        let ttl_ms = 1000 * workload::TTL_MAX_S;
        for _ in 0..200 {
            self.hear_watches();
        }
        assert!(self.watches_are_level(), "a watch did not hear of everything");
        self.wait("all leases end", ttl_ms + SETTLE_BOUND_MS, |world| world.checker.leases().is_empty());
        self.wait("all members are level", SETTLE_BOUND_MS, Self::is_level);
        self.compare();
    }

    fn calm_down(&mut self) {
        self.trace(format_args!("calm"));
        self.is_calm = true;
        self.network.calm();
        for host in 0..self.hosts.len() {
            self.hosts[host].empty_disk();
            self.hosts[host].faults.clear();
            self.hosts[host].stopped_until = 0;
            self.hosts[host].disk_us = 1_000;
            // What has begun to fail ends in any case.
            if self.hosts[host].is_faulty() || self.hosts[host].member.is_none() {
                self.crash(host);
            } else {
                self.hosts[host].memory.halt_after(None);
            }
        }
    }

    pub(super) fn wait(&mut self, what: &str, bound_ms: u64, until: impl Fn(&Self) -> bool) {
        let end = self.now + bound_ms * 1000;
        while !until(self) {
            assert!(self.now < end, "not within {bound_ms} ms: {what}; {}", self.describe());
            self.step();
        }
        self.trace(format_args!("{what}"));
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for host in &self.hosts {
            let _ = write!(text, "\nhost {} {:x}: ", host.place, host.id);
            let _ = match &host.member {
                Some((running, _)) => write!(
                    text,
                    "{:?} {:?} ready {} open {} reads {:?}",
                    running.parts.consensus.status(),
                    running.busy(),
                    running.is_ready,
                    host.open.len(),
                    host.reads
                ),
                None => write!(text, "member {} removed {}", host.is_member, host.is_removed),
            };
        }
        text
    }

    /// Hosts whose members are in the cluster.
    pub(super) fn live(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.is_member && !host.is_removed)
    }

    fn has_leader(&self) -> bool {
        let leader = |host: &Host| {
            host.member.as_ref().and_then(|(running, _)| {
                let status = running.parts.consensus.status();
                status.leader.map(|leader| (status.term, leader))
            })
        };
        let known: BTreeSet<_> = self.live().map(leader).collect();
        known.len() == 1 && known.iter().all(Option::is_some)
    }

    fn is_level(&self) -> bool {
        let last = self.checker.last_index();
        let is_level = |host: &Host| {
            host.applied_index == last
                && host.member.as_ref().is_some_and(|(running, _)| {
                    let status = running.parts.consensus.status();
                    status.commit.0 == last && status.last.0.0 == last && running.is_idle()
                })
        };
        self.live().all(is_level)
    }

    /// All members show the same, and what the model shows.
    fn compare(&mut self) {
        let last = self.checker.last_index();
        let members: Vec<(usize, store::Reader)> = self
            .live()
            .filter_map(|host| {
                host.member.as_ref().map(|(running, _)| (host.place, running.parts.reader.clone()))
            })
            .collect();
        let mut hash = None;
        for (place, reader) in members {
            assert!(self.checker.shows(&reader, last), "a read failed on a healthy disk");
            self.compare_membership(&reader, last);
            let (own, _) = reader.hash().expect("a healthy disk");
            let known = *hash.get_or_insert(own);
            assert_eq!(own, known, "the hash of host {place}");
        }
    }
}
