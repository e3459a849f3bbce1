//! The lessor against a map with an end for each lease, worked out the slow and obvious way.
#![allow(missing_docs, reason = "tests")]

use std::collections::BTreeMap;

use node::lease::{LeaseEnd, Lessor, LessorSettings, Remaining, Renewal};
use proptest::collection::vec;
use proptest::prelude::*;
use raft::Time;
use store::LeaseChange;

const HEARTBEAT_MS: u64 = 100;
const ELECTION_MS: u64 = 1_000;

#[derive(Clone, Debug)]
enum Step {
    /// The process runs for so many ticks of so many milliseconds.
    Run(u64, u64),
    /// It is stopped for so many milliseconds.
    Pause(u64),
    Grant(i64, i64),
    Revoke(i64),
    Checkpoint(i64, i64),
    Renew(i64),
    Lead,
    Follow,
    /// The leader has applied an entry of its own term.
    ApplyOwn,
    Take(usize),
    /// The revoke of the first that was taken is proposed, and refused or not.
    Propose(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 1_i64..6;
    prop_oneof![
        6 => (1_u64..30, 1_u64..=300).prop_map(|(ticks, ms)| Step::Run(ticks, ms)),
        1 => (301_u64..100_000).prop_map(Step::Pause),
        4 => (id(), 1_i64..8).prop_map(|(id, ttl_s)| Step::Grant(id, ttl_s)),
        2 => id().prop_map(Step::Revoke),
        1 => (id(), 0_i64..5).prop_map(|(id, left_s)| Step::Checkpoint(id, left_s)),
        6 => id().prop_map(Step::Renew),
        1 => Just(Step::Lead),
        1 => Just(Step::Follow),
        2 => Just(Step::ApplyOwn),
        3 => (0_usize..4).prop_map(Step::Take),
        3 => any::<bool>().prop_map(Step::Propose),
    ]
}

#[derive(Clone, Copy, Debug)]
struct ModelLease {
    ttl_s: i64,
    remaining_s: i64,
    ends_ms: u64,
    handed_out: bool,
}

impl ModelLease {
    fn begin(&mut self, now_ms: u64) {
        let ttl_s = if self.remaining_s > 0 { self.remaining_s } else { self.ttl_s };
        self.ends_ms = now_ms + ttl_s as u64 * 1000 + ELECTION_MS;
        self.handed_out = false;
    }
}

/// Milliseconds in which the process ran, and all leases.
#[derive(Default)]
struct Model {
    now_ms: u64,
    leases: BTreeMap<i64, ModelLease>,
    leads: bool,
    counts: bool,
}

struct World {
    lessor: Lessor,
    model: Model,
    now: Time,
    term: u64,
    taken: Vec<LeaseEnd>,
}

impl World {
    fn new() -> World {
        let settings = LessorSettings {
            heartbeat_interval_ms: HEARTBEAT_MS,
            election_timeout_ms: ELECTION_MS,
            checkpoints: false,
        };
        let lessor = Lessor::new(settings, Time(0), []);
        World { lessor, model: Model::default(), now: Time(0), term: 1, taken: Vec::new() }
    }

    fn apply(&mut self, change: LeaseChange) {
        // Of the term before, so that a new leader counts nothing yet.
        assert_eq!(self.lessor.applied(self.now, self.term - 1, &[change]), []);
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Run(ticks, ms) => {
                for _ in 0..ticks {
                    self.now = self.now.plus_ms(ms);
                    self.model.now_ms += ms;
                    self.lessor.tick(self.now);
                }
            }
            Step::Pause(ms) => {
                self.now = self.now.plus_ms(ms);
                self.lessor.tick(self.now);
            }
            Step::Grant(id, ttl_s) if !self.model.leases.contains_key(&id) => {
                self.apply(LeaseChange::Granted { id, ttl_s });
                let ends_ms = self.model.now_ms + ttl_s as u64 * 1000;
                let lease = ModelLease { ttl_s, remaining_s: 0, ends_ms, handed_out: false };
                self.model.leases.insert(id, lease);
            }
            Step::Grant(..) => {}
            Step::Revoke(id) => {
                self.apply(LeaseChange::Revoked { id });
                self.model.leases.remove(&id);
            }
            Step::Checkpoint(id, remaining_ttl_s) => {
                self.apply(LeaseChange::Checkpointed { id, remaining_ttl_s });
                if let Some(lease) = self.model.leases.get_mut(&id) {
                    lease.remaining_s = remaining_ttl_s;
                }
            }
            Step::Renew(id) => self.renew(id),
            Step::Lead => {
                self.term += 1;
                self.lessor.lead(self.term);
                (self.model.leads, self.model.counts) = (true, false);
            }
            Step::Follow => {
                self.lessor.follow();
                (self.model.leads, self.model.counts) = (false, false);
            }
            Step::ApplyOwn if self.model.leads => {
                self.lessor.applied(self.now, self.term, &[]);
                if !std::mem::replace(&mut self.model.counts, true) {
                    let now_ms = self.model.now_ms;
                    self.model.leases.values_mut().for_each(|lease| lease.begin(now_ms));
                }
            }
            Step::ApplyOwn => {}
            Step::Take(count) => self.take(count),
            Step::Propose(refused) => self.propose(refused),
        }
    }

    fn renew(&mut self, id: i64) {
        let expected = match self.model.leases.get_mut(&id) {
            _ if !self.model.counts => Renewal::NotPrimary,
            None => Renewal::NotFound,
            Some(lease) if lease.ends_ms <= self.model.now_ms => Renewal::Ended,
            Some(lease) if lease.remaining_s > 0 => Renewal::Checkpointed,
            Some(lease) => {
                lease.ends_ms = self.model.now_ms + lease.ttl_s as u64 * 1000;
                Renewal::Renewed { ttl_s: lease.ttl_s }
            }
        };
        assert_eq!(self.lessor.renew(self.now, id), expected, "lease {id}");
    }

    fn take(&mut self, count: usize) {
        let before = self.taken.len();
        self.lessor.take_ended(count, &mut self.taken);
        let mut expected: Vec<(u64, i64)> = Vec::new();
        if self.model.counts {
            let now_ms = self.model.now_ms;
            let ended = |lease: &ModelLease| lease.ends_ms <= now_ms && !lease.handed_out;
            expected.extend(
                self.model.leases.iter().filter(|(_, l)| ended(l)).map(|(id, lease)| (lease.ends_ms, *id)),
            );
            expected.sort_unstable();
            expected.truncate(count);
        }
        for (_, id) in &expected {
            self.model.leases.get_mut(id).expect("a lease").handed_out = true;
        }
        let taken: Vec<(u64, i64)> =
            self.taken[before..].iter().map(|end| (end.at_us / 1000, end.id)).collect();
        assert_eq!(taken, expected);
    }

    /// Whatever has become of a lease since it was handed out, only one that still stands at that end is revoked.
    fn propose(&mut self, refused: bool) {
        if self.taken.is_empty() {
            return;
        }
        let end = self.taken.remove(0);
        let stands = |lease: &&mut ModelLease| lease.handed_out && lease.ends_ms * 1000 == end.at_us;
        let lease = self.model.leases.get_mut(&end.id).filter(stands).filter(|_| self.model.counts);
        assert_eq!(self.lessor.begin_revoke(end), lease.is_some(), "{end:?}");
        let Some(lease) = lease else { return };
        if refused {
            lease.handed_out = false;
            self.lessor.put_back(end);
        } else {
            self.model.leases.remove(&end.id);
            self.lessor.applied(self.now, self.term, &[LeaseChange::Revoked { id: end.id }]);
        }
    }

    fn compare(&mut self) {
        self.lessor.check();
        for id in 0..7 {
            let expected = match self.model.leases.get(&id) {
                _ if !self.model.counts => Remaining::NotPrimary,
                None => Remaining::NotFound,
                Some(lease) => Remaining::Left {
                    ttl_s: (lease.ends_ms.saturating_sub(self.model.now_ms) / 1000) as i64,
                    granted_ttl_s: lease.ttl_s,
                },
            };
            assert_eq!(self.lessor.remaining(self.now, id), expected, "lease {id}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn rule_14_leases_end_as_in_the_model(steps in vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
            world.compare();
        }
    }
}
