//! Members of 1, 3 and 5 voters under a seeded adversary: messages lost, repeated, reordered and delayed; links cut;
//! disks and state machines that lag; crashes that lose what was not durable; clocks that run on. After every step
//! each member's own invariants and the outside checks of `cluster/safety.rs` hold; in the end the faults stop, and
//! all members must have applied the same log.
//!
//! `QUORATE_SEED=n` runs that one seed, `QUORATE_SEEDS=n` as many.

mod cluster;

use bytes::Bytes;
use cluster::Cluster;
use raft::*;

const SEEDS: u64 = 400;
const STEPS: u64 = 3_000;

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

fn limits(chance: &mut Chance) -> Limits {
    let tiny = Limits { kept_entries_max: 100_000, kept_bytes_max: 1 << 30, ..Limits::tiny() };
    if chance.below(2) == 0 { tiny } else { Limits::default() }
}

fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "the test's own switch, not the crate's")]
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

/// One move of the adversary, who does harm in one of `calm` cases in which he could.
fn disturb(cluster: &mut Cluster, chance: &mut Chance, calm: u64, counter: &mut u64) {
    let ids = cluster.ids();
    let id = chance.pick(&ids).unwrap();
    let messages = cluster.network.len() as u64;
    *counter += 1;
    let faulty = chance.below(calm) == 0;
    match chance.below(100) {
        0..40 if messages > 0 => {
            // Mostly in order, sometimes not.
            let reach = if faulty && chance.below(4) == 0 { messages } else { 1 };
            cluster.deliver(chance.below(reach) as usize);
        }
        40..43 if faulty && messages > 0 => {
            cluster.network.remove(chance.below(messages) as usize);
        }
        43..46 if faulty && messages > 0 => {
            let copy = cluster.network[chance.below(messages) as usize].clone();
            cluster.network.push(copy);
        }
        46..59 => {
            cluster.finish_write(id);
        }
        59..72 => {
            cluster.finish_apply(id);
        }
        72..78 => {
            let until = cluster.now.plus_ms(1 + chance.below(200));
            while cluster.tick_next(until) {}
        }
        78..86 => {
            let count = 1 + chance.below(3);
            let payloads: Vec<String> = (0..count).map(|place| format!("{counter}.{place}")).collect();
            cluster.propose(id, &payloads);
        }
        86..92 if cluster.is_up(id) => cluster.read(id, *counter),
        92..95 if faulty && cluster.is_up(id) => {
            let applied = (chance.below(2) == 0).then(|| chance.below(20) as usize);
            // A disk may have finished more than it has said.
            let kept = if chance.below(2) == 0 { 0 } else { chance.below(8) as usize };
            cluster.crash(id, applied, kept);
        }
        95..98 if !cluster.is_up(id) => {
            let applied = cluster.members[&id].state.len() as u64;
            let offset = if ids.len() == 1 { chance.below(applied + 1) } else { 0 };
            cluster.start(id, Index(offset));
        }
        98 if faulty => {
            let other = chance.pick(&ids).unwrap();
            cluster.cuts.insert((id, other));
        }
        99 => cluster.cuts.clear(),
        _ => {}
    }
    assert!(cluster.network.len() < 10_000, "messages without end");
}

/// The faults stop; whatever state they left, the members must find together again.
fn recover(cluster: &mut Cluster) {
    cluster.cuts.clear();
    for id in cluster.ids() {
        if !cluster.is_up(id) {
            cluster.start(id, Index::ZERO);
        }
    }
    cluster.settle();
    cluster.advance(10_000);
    let leader = cluster.leader().expect("a leader within ten seconds without faults");
    cluster.propose(leader, &["last".to_owned()]);
    cluster.settle();
    cluster.advance(2_000);
    let state = cluster.members[&leader].state.clone();
    let last = state.last().expect("the last proposal is applied");
    assert_eq!(last.data, Bytes::from("last"));
    for (id, member) in &cluster.members {
        assert!(member.state == state, "{id} has applied something else than {leader}");
        assert_eq!(cluster.raft(*id).status().waiting_entries, 0, "{id} holds what nobody needs");
    }
    let ready = cluster.safety.reads_ready;
    for id in cluster.ids() {
        cluster.read(id, u64::MAX - id.0);
        cluster.settle();
    }
    assert_eq!(cluster.safety.reads_ready, ready + cluster.members.len(), "a read without an answer");
}

/// What the runs went through, to see that the adversary leaves something to happen and breaks something.
#[derive(Default, Debug)]
struct Seen {
    terms: u64,
    entries: u64,
    reads: usize,
}

fn run(seed: u64) -> Seen {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let voters = [1, 3, 5][(seed % 3) as usize];
    let limits = limits(&mut chance);
    let calm = [1, 4, 16][chance.below(3) as usize];
    let mut cluster = Cluster::new(voters, seed, &Cluster::settings(limits));
    cluster.ids().into_iter().for_each(|id| cluster.start(id, Index::ZERO));
    // With one seed asked for, the whole run is told.
    cluster.trace = setting("QUORATE_SEED").map(|_| String::new());
    let mut counter = 0;
    for _ in 0..STEPS {
        disturb(&mut cluster, &mut chance, calm, &mut counter);
    }
    recover(&mut cluster);
    let status = cluster.raft(cluster.ids()[0]).status();
    Seen { terms: status.term.0, entries: status.commit.0, reads: cluster.safety.reads_ready }
}

#[test]
fn safe_under_faults_and_live_after_them() {
    let seeds = match setting("QUORATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("QUORATE_SEEDS").unwrap_or(SEEDS),
    };
    let mut all = Seen::default();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(seen) => {
                all.terms += seen.terms;
                all.entries += seen.entries;
                all.reads += seen.reads;
            }
            Err(panic) => {
                eprintln!("failed: QUORATE_SEED={seed} cargo test -p quorate-raft --test random");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{count} seeds: {all:?}");
    if count >= SEEDS {
        assert!(all.terms > 5 * count, "too few elections: {all:?}");
        assert!(all.entries > 80 * count, "too few commits: {all:?}");
        assert!(all.reads as u64 > 20 * count, "too few reads: {all:?}");
    }
}
