//! One to seven members, and more that join, under a seeded adversary: messages lost, repeated, reordered and delayed;
//! links cut, partitions; disks that lag, and hang; state machines that lag; crashes that lose what was not durable; clocks
//! that run at different speeds; members added, promoted and removed; snapshots made late, lost, and reported late;
//! leadership handed over. After every step each member's own invariants and the outside checks of `cluster/safety.rs`
//! hold: election safety, log matching, leader completeness, state machine safety, no stale read, one change of membership
//! at a time. In the end the faults stop, and all members must have applied the same log.
//!
//! `QUORATE_SEED=n` runs that one seed, `QUORATE_SEEDS=n` as many, from `QUORATE_SEED_FIRST` on.

mod cluster;

use std::collections::BTreeSet;

use bytes::Bytes;
use cluster::{Cluster, Member};
use raft::*;

const SEEDS: u64 = 500;
const STEPS: u64 = 3_000;

/// Members never come back with another disk, so an id is used once.
const MEMBERS_MAX: u64 = 11;

/// The adversary's own generator, apart from the members'.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len() as u64) as usize])
    }
}

fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "the test's own switch, not the crate's")]
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

struct Run {
    cluster: Cluster,
    chance: Chance,
    settings: Config,
    seed: u64,
    /// Harm is done in one of so many cases in which it could be.
    calm: u64,
    /// Changes of membership are proposed in so many of a hundred steps.
    churn: u64,
    /// Whose disks hang.
    hung: BTreeSet<NodeId>,
    /// Makes payloads and contexts that were never used before.
    counter: u64,
    transfers: u64,
    /// Whether two voters may become one. Should both crash then, the one that is left may not know that it is alone, and
    /// need the vote of the one that is gone: nothing helps, in Raft, so such a run is only checked for what is safe.
    shrinks: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let limits = if chance.below(3) > 0 { Limits::tiny() } else { Limits::default() };
        let settings = Config {
            pre_vote: chance.below(2) == 0,
            check_quorum: chance.below(8) > 0,
            ..Cluster::settings(limits)
        };
        let mut cluster = Cluster::new(1 + seed % 7, seed, &settings);
        let skewed = chance.below(3) == 0;
        for member in cluster.members.values_mut() {
            member.clock = if skewed { 80 + chance.below(45) } else { 100 };
        }
        cluster.ids().into_iter().for_each(|id| cluster.start(id, Index::ZERO));
        // With one seed asked for, the whole run is told.
        cluster.trace = setting("QUORATE_SEED").map(|_| String::new());
        let calm = [2, 8, 32][chance.below(3) as usize];
        let shrinks = chance.below(6) == 0;
        let churn = [1, 2, 2, 12][chance.below(4) as usize];
        Self {
            churn,
            cluster,
            chance,
            settings,
            seed,
            calm,
            hung: BTreeSet::new(),
            counter: 0,
            transfers: 0,
            shrinks,
        }
    }

    fn faulty(&mut self) -> bool {
        self.chance.below(self.calm) == 0
    }

    /// One move of the adversary.
    fn disturb(&mut self) {
        self.counter += 1;
        let ids = self.cluster.ids();
        let id = self.chance.pick(&ids).unwrap();
        if self.chance.below(100) < self.churn {
            let leader = self.cluster.leader().filter(|_| self.chance.below(4) > 0);
            self.change(leader.unwrap_or(id));
        }
        match self.chance.below(98) {
            0..42 => self.network(),
            42..73 => self.work(),
            73..79 => {
                let until = self.cluster.now.plus_ms(1 + self.chance.below(200));
                while self.cluster.tick_next(until) {}
            }
            79..86 => self.propose(id),
            86..91 if self.cluster.is_up(id) => self.cluster.read(id, self.counter),
            91 => self.ask(id),
            92..98 => self.harm(id),
            _ => {}
        }
    }

    /// Some member's disk or state machine finishes something, or its shell.
    fn work(&mut self) {
        let (members, hung) = (&self.cluster.members, &self.hung);
        let ids = |busy: &dyn Fn(&Member) -> bool| -> Vec<NodeId> {
            members.iter().filter(|(_, member)| busy(member)).map(|(id, _)| *id).collect()
        };
        let disks = ids(&|member| !member.writes.is_empty() && !hung.contains(&member.config.id));
        let machines = ids(&|member| !member.applying.is_empty());
        let makers = ids(&|member| !member.wanted.is_empty());
        let reporters = ids(&|member| !member.reports.is_empty());
        let count = 1 + self.chance.below(3);
        match self.chance.below(31) {
            0..13 => {
                let Some(id) = self.chance.pick(&disks) else { return };
                (0..count).take_while(|_| self.cluster.finish_write(id)).for_each(drop);
            }
            13..26 => {
                let Some(id) = self.chance.pick(&machines) else { return };
                (0..count).take_while(|_| self.cluster.finish_apply(id)).for_each(drop);
            }
            26..29 => {
                let Some(id) = self.chance.pick(&makers) else { return };
                self.cluster.make_snapshot(id);
            }
            _ => {
                let Some(id) = self.chance.pick(&reporters) else { return };
                self.cluster.report_snapshot(id);
            }
        }
    }

    /// Mostly in order, sometimes not.
    fn network(&mut self) {
        for _ in 0..=self.cluster.network.len() / 40 {
            let messages = self.cluster.network.len() as u64;
            if messages == 0 {
                return;
            }
            let any = self.chance.below(messages) as usize;
            match self.chance.below(40) {
                0..3 if self.faulty() => self.cluster.lose(any),
                3..6 if self.faulty() => {
                    let copy = self.cluster.network[any].clone();
                    self.cluster.network.push(copy);
                }
                6..12 if self.faulty() => self.cluster.deliver(any),
                _ => self.cluster.deliver(0),
            }
        }
        assert!(self.cluster.network.len() < 10_000, "messages without end");
    }

    fn propose(&mut self, id: NodeId) {
        let count = 1 + self.chance.below(3);
        let counter = self.counter;
        let payload = |place| match self.chance.below(40) {
            0 => format!("{counter}.{place:.<300}"),
            _ => format!("{counter}.{place}"),
        };
        let payloads: Vec<String> = (0..count).map(payload).collect();
        self.cluster.propose(id, &payloads);
    }

    /// One move of an adversary who works with whole situations: who can hear whom, whose disk and state machine go on, who
    /// stands for election, what is proposed; then all that can happen happens, or the beginning of it. It gets further in
    /// a few moves than one message at a time does.
    fn arrange(&mut self) {
        self.counter += 1;
        let ids = self.cluster.ids();
        let id = self.chance.pick(&ids).unwrap();
        let leader = self.cluster.leader().filter(|_| self.chance.below(4) > 0).unwrap_or(id);
        match self.chance.below(16) {
            0..3 => {
                // Nobody remembers the leader.
                self.cluster.now = self.cluster.now.plus_ms(1_000 + self.chance.below(1_500));
                self.cluster.step(id, Event::Campaign);
            }
            3..6 => self.change(leader),
            6..8 => self.propose(leader),
            8 => self.cluster.cuts.clear(),
            9..11 => {
                let density = 1 + self.chance.below(4);
                let pairs = ids.iter().flat_map(|one| ids.iter().map(|other| (*one, *other)));
                self.cluster.cuts = pairs.filter(|_| self.chance.below(5) < density).collect();
            }
            11 if self.cluster.is_up(id) => {
                let kept = self.chance.below(6) as usize;
                let applied = (self.chance.below(2) == 0).then(|| self.chance.below(20) as usize);
                self.cluster.crash(id, applied, kept);
            }
            11 | 12 => {
                if !self.cluster.is_up(id) {
                    self.restart(id);
                }
            }
            13 => {
                let member = self.cluster.members.get_mut(&id).unwrap();
                member.disk_runs = self.chance.below(3) > 0;
                member.apply_runs = self.chance.below(3) > 0;
            }
            14 => self.ask(id),
            _ => {
                if self.cluster.is_up(id) {
                    self.cluster.read(id, self.counter);
                }
            }
        }
        match self.chance.below(8) {
            0 => {}
            1 => (0..10).for_each(|_| self.network()),
            2 => (0..10).for_each(|_| self.work()),
            3 => {
                let until = self.cluster.now.plus_ms(self.chance.below(400));
                while self.cluster.tick_next(until) {}
            }
            _ => self.cluster.settle(),
        }
    }

    /// A change of membership, as etcd makes them.
    fn change(&mut self, id: NodeId) {
        let others = self.cluster.members[&id].conf.clone();
        let learner = self.chance.pick(&others.learners);
        let voter = self.chance.pick(&others.voters);
        let newest = self.cluster.members.len() as u64;
        let payload = match (self.chance.below(6), learner, voter) {
            (0..3, ..) if newest < MEMBERS_MAX => {
                let new = newest + 1;
                self.cluster.join(new, self.seed, &self.settings);
                format!("{} {new}", if self.chance.below(2) == 0 { "learner" } else { "add" })
            }
            (3, Some(learner), _) => format!("add {}", learner.0),
            (4, _, Some(voter)) if self.shrinks => format!("strip {}", voter.0),
            (4, _, Some(voter)) => format!("remove {}", voter.0),
            (5, Some(learner), _) => format!("remove {}", learner.0),
            _ => return,
        };
        self.cluster.propose(id, &[payload]);
    }

    /// What a shell may ask for at any time.
    fn ask(&mut self, id: NodeId) {
        let other = self.chance.pick(&self.cluster.ids()).unwrap();
        let event = match self.chance.below(6) {
            0 => Event::Campaign,
            1 => Event::ForgetLeader,
            3 => Event::Hurry,
            2 => Event::Unreachable { id: other },
            _ => {
                self.transfers += 1;
                Event::TransferLeader { to: other }
            }
        };
        self.cluster.step(id, event);
    }

    fn harm(&mut self, id: NodeId) {
        match self.chance.below(14) {
            0..5 if self.cluster.is_up(id) && self.faulty() => {
                let applied = (self.chance.below(2) == 0).then(|| self.chance.below(20) as usize);
                // A disk may have finished more than it has said.
                let kept = if self.chance.below(2) == 0 { 0 } else { self.chance.below(8) as usize };
                self.cluster.crash(id, applied, kept);
                self.hung.remove(&id);
            }
            5..9 if !self.cluster.is_up(id) => self.restart(id),
            9 if self.faulty() => {
                let other = self.chance.pick(&self.cluster.ids()).unwrap();
                self.cluster.cuts.insert((id, other));
            }
            10 if self.faulty() => {
                let sides: Vec<(NodeId, u64)> =
                    self.cluster.ids().into_iter().map(|id| (id, self.chance.below(2))).collect();
                for (one, side) in &sides {
                    let cut =
                        sides.iter().filter(|(_, other)| other != side).map(|(other, _)| (*one, *other));
                    self.cluster.cuts.extend(cut);
                }
            }
            11 if self.faulty() => drop(self.hung.insert(id)),
            12 => drop(self.hung.remove(&id)),
            13 => self.cluster.cuts.clear(),
            _ => {}
        }
    }

    fn restart(&mut self, id: NodeId) {
        let member = &self.cluster.members[&id];
        let (start, applied) = (member.disk.log.start.0.0, member.state.len() as u64);
        let offset = start + self.chance.below(applied - start + 1);
        self.cluster.start(id, Index(offset));
    }

    /// The faults stop; whatever state they left, the members must find together again.
    fn recover(&mut self) {
        let cluster = &mut self.cluster;
        cluster.cuts.clear();
        for id in cluster.ids() {
            let member = cluster.members.get_mut(&id).unwrap();
            (member.disk_runs, member.apply_runs) = (true, true);
            if !cluster.is_up(id) {
                cluster.start(id, Index::ZERO);
            }
        }
        cluster.settle();
        cluster.advance(20_000);
        let patience = cluster.now.plus_ms(100_000);
        while cluster.leader().is_none() && cluster.now < patience {
            cluster.advance(300);
        }
        // Members that are removed are stopped, as etcd does: without the check of the quorum, they disturb the others.
        let leader = cluster.leader().expect("a leader within two minutes without faults");
        let conf = cluster.raft(leader).conf().clone();
        for id in cluster.ids() {
            if !self.settings.check_quorum && !conf.contains(id) {
                cluster.crash(id, None, 0);
            }
        }
        cluster.advance(10_000);
        let leader = cluster.leader().expect("a leader");
        cluster.propose(leader, &["last".to_owned()]);
        cluster.settle();
        cluster.advance(2_000);
        let state = cluster.members[&leader].state.clone();
        assert_eq!(state.last().expect("the last proposal is applied").data, Bytes::from("last"));
        let conf = cluster.raft(leader).conf().clone();
        let members: Vec<NodeId> = conf.voters.iter().chain(&conf.learners).copied().collect();
        for id in &members {
            assert!(cluster.members[id].state == state, "{id} has applied something else than {leader}");
            let status = cluster.raft(*id).status();
            assert_eq!(status.waiting_entries, 0, "{id} holds what nobody needs");
            assert!(!status.restoring, "{id} has not taken its snapshot over");
        }
        let ready = cluster.safety.reads_ready;
        for id in &members {
            cluster.read(*id, u64::MAX - id.0);
            cluster.settle();
        }
        assert_eq!(cluster.safety.reads_ready, ready + members.len(), "a read without an answer");
    }
}

/// What the runs went through, to see that the adversary leaves something to happen and breaks something.
#[derive(Default, Debug)]
struct Seen {
    terms: u64,
    entries: u64,
    reads: u64,
    changes: u64,
    snapshots: u64,
    transfers: u64,
}

fn run(seed: u64) -> Seen {
    let mut run = Run::new(seed);
    if run.chance.below(3) == 0 {
        (0..STEPS / 10).for_each(|_| run.arrange());
    } else {
        (0..STEPS).for_each(|_| run.disturb());
    }
    if !run.shrinks {
        run.recover();
    }
    let cluster = &run.cluster;
    let statuses: Vec<Status> =
        cluster.members.values().filter_map(|member| Some(member.raft.as_ref()?.status())).collect();
    Seen {
        terms: statuses.iter().map(|status| status.term.0).max().unwrap_or(0),
        entries: statuses.iter().map(|status| status.commit.0).max().unwrap_or(0),
        reads: cluster.safety.reads_ready as u64,
        changes: cluster.safety.changes as u64,
        snapshots: cluster.snapshots.len() as u64,
        transfers: run.transfers,
    }
}

#[test]
fn safe_under_faults_and_live_after_them() {
    let seeds = match setting("QUORATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = setting("QUORATE_SEED_FIRST").unwrap_or(0);
            first..first + setting("QUORATE_SEEDS").unwrap_or(SEEDS)
        }
    };
    let mut all = Seen::default();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(seen) => {
                all.terms += seen.terms;
                all.entries += seen.entries;
                all.reads += seen.reads;
                all.changes += seen.changes;
                all.snapshots += seen.snapshots;
                all.transfers += seen.transfers;
            }
            Err(panic) => {
                eprintln!("failed: QUORATE_SEED={seed} cargo test -p quorate-raft --test random");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{count} seeds of {STEPS} steps: {all:?}");
    if count >= SEEDS {
        let enough = |what: &str, seen: u64, least: u64| {
            assert!(seen > least * count, "too few {what} in {count} seeds: {all:?}");
        };
        enough("elections", all.terms, 5);
        enough("commits", all.entries, 40);
        enough("reads", all.reads, 10);
        enough("changes of membership", all.changes, 2);
        enough("snapshots", all.snapshots, 1);
        enough("hand-overs", all.transfers, 5);
    }
}
