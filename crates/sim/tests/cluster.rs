//! Many seeds of a cluster. `QUORATE_SEED=N` runs that one with its trace, `QUORATE_SEEDS=N` that many.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::cluster::{ClusterOptions, ClusterReport, World, run};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

#[test]
fn a_cluster_keeps_its_promises() {
    if let Some(seed) = number("QUORATE_SEED") {
        run(seed, ClusterOptions { print_trace: true, ..ClusterOptions::default() });
        return;
    }
    let first = number("QUORATE_SEED_FIRST").unwrap_or(1);
    let count = number("QUORATE_SEEDS").unwrap_or(500);
    let (next, all, failed) = (AtomicU64::new(first), Mutex::default(), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(4) {
            scope.spawn(|| {
                while failed.lock().expect("no thread panics here").is_empty() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    match std::panic::catch_unwind(|| run(seed, ClusterOptions::default())) {
                        Ok(report) => add(&mut all.lock().expect("no thread panics here"), &report),
                        Err(_) => failed.lock().expect("no thread panics here").push(seed),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics here");
    if let Some(seed) = failed.first() {
        panic!(
            "seed {seed}: run it again with QUORATE_SEED={seed} cargo test -p quorate-sim --test cluster -- --nocapture"
        );
    }
    let all = all.into_inner().expect("no thread panics here");
    println!("{count} seeds: {all:?}");
    if count >= 100 {
        assert_is_wild(&all, count);
    }
}

/// A simulation in which nothing happens proves nothing.
fn assert_is_wild(all: &ClusterReport, seeds: u64) {
    let ClusterReport { answers, forwarded, reads, crashes, elections, changes, restored, .. } = *all;
    assert!(answers > 100 * seeds, "too tame: {answers} answers");
    assert!(forwarded > 10 * seeds, "too tame: {forwarded} answers at members that did not lead");
    assert!(reads > 10 * seeds, "too tame: {reads} reads");
    assert!(crashes > 2 * seeds, "too tame: {crashes} crashes");
    assert!(elections > 2 * seeds, "too tame: {elections} elections");
    assert!(changes > seeds / 2, "too tame: {changes} changes of membership");
    assert!(restored > seeds / 2, "too tame: {restored} snapshots taken over");
    assert!(all.lost > seeds, "too tame: {} were told that a fate is unknown", all.lost);
    assert!(all.leases_ended > seeds, "too tame: {} leases ended", all.leases_ended);
    assert!(all.events > 50 * seeds, "too tame: {} events", all.events);
    assert!(all.renewals > seeds, "too tame: {} renewals", all.renewals);
}

fn add(all: &mut ClusterReport, report: &ClusterReport) {
    all.answers += report.answers;
    all.forwarded += report.forwarded;
    all.reads += report.reads;
    all.crashes += report.crashes;
    all.elections += report.elections;
    all.lost += report.lost;
    all.changes += report.changes;
    all.restored += report.restored;
    all.leases_ended += report.leases_ended;
    all.renewals += report.renewals;
    all.events += report.events;
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..4 {
        let options = ClusterOptions::default();
        assert_eq!(run(seed, options), run(seed, options), "seed {seed}");
    }
}

/// The leader is stopped while a lease runs out, another one is elected and renews it, and the first one wakes: etcd 3.7.1
/// ends the lease then, since just after waking it does not ask whether it still leads.
#[test]
fn rule_14_a_leader_that_was_stopped_ends_no_lease_that_its_successor_renewed() {
    for seed in 1..=30 {
        let mut world = World::quiet(seed, 3);
        let old = world.leader().expect("somebody leads");
        world.grant(old, 1, 4);
        world.pass(3_000 + seed * 30);
        // Longer than the lease has left, and than an election takes.
        world.stop(old, 5_000);
        world.pass(3_500);
        let new = world.leader().unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
        assert_ne!(new, old, "seed {seed}: a stopped member does not lead");
        assert!(world.leases().contains_key(&1), "seed {seed}: not early by failover");
        for renewals in 1..=10 {
            world.keep_alive(new, 1);
            // The one that was stopped may still take itself for the leader when it is asked.
            world.keep_alive(old, 1);
            world.pass(1_000);
            assert!(world.leases().contains_key(&1), "seed {seed}: the renewed lease has ended");
            assert!(world.renewals() >= renewals, "seed {seed}: not renewed");
        }
        world.pass(10_000);
        assert!(!world.leases().contains_key(&1), "seed {seed}: it ends once nobody renews it");
    }
}

/// A disk that is slower than an election timeout costs no leader while the others' are no faster: whoever came next would
/// do no better, and each change stops all writes.
#[test]
fn rule_4_equally_slow_disks_cost_no_leader() {
    for seed in 1..=10 {
        let mut world = World::quiet(seed, 3);
        let leader = world.leader().expect("somebody leads");
        (0..3).for_each(|host| world.slow_disk(host, 2_500 + 40 * host as u64));
        for lease in 1..=100 {
            world.ask_for_lease(leader, lease, 600);
            world.pass(600);
            assert_eq!(world.leader(), Some(leader), "seed {seed}: handed over after {lease} writes");
        }
        assert!(world.leases().len() > 80, "seed {seed}: {} of 100 written", world.leases().len());
    }
}

#[test]
fn rule_4_writes_go_on_within_three_election_timeouts_where_the_leaders_disk_hangs() {
    const ELECTION_TIMEOUT_US: u64 = 1_000_000;
    for seed in 1..=30 {
        let mut world = World::quiet(seed, 3);
        let old = world.leader().expect("somebody leads");
        let hangs_since = world.now();
        world.hang_disk(old);
        // On two disks, and so acknowledged; the third is asked, and does not answer.
        world.grant(old, 1, 60);
        while world.leader().is_none_or(|leader| leader == old) {
            world.pass(10);
            assert!(world.now() < hangs_since + 3 * ELECTION_TIMEOUT_US, "seed {seed}: it goes on leading");
        }
        let new = world.leader().expect("somebody leads");
        world.grant(new, 2, 60);
        // Who hangs takes what the others have, and hands on what it is asked for.
        world.grant(old, 3, 60);
        assert!(world.now() < hangs_since + 3 * ELECTION_TIMEOUT_US, "seed {seed}: writes wait");
    }
}

/// Time passes until a member knows that another one leads than this.
fn wait_for_another_leader(world: &mut World, host: usize, gone: usize) {
    let since = world.now();
    while world.leader_known_to(host).is_none_or(|leader| leader == gone) {
        // Nothing that is sent at that moment has arrived yet.
        world.pass_us(50);
        assert!(world.now() < since + 8_000_000, "host {host} knows no other leader");
    }
}

/// A cluster whose leader is stopped for long, the leader, and another member, which knows that nobody leads.
fn leaderless(seed: u64, members: usize) -> (World, usize, usize) {
    let mut world = World::quiet(seed, members);
    let leader = world.leader().expect("somebody leads");
    let asked = (leader + 1) % members;
    world.stop(leader, 60_000);
    while world.leader_known_to(asked).is_some() {
        world.pass(1);
    }
    (world, leader, asked)
}

/// Time passes until a member has answered everything: its next leader is known, so that takes a few messages.
fn wait_for_answers(world: &mut World, host: usize, seed: u64) {
    let since = world.now();
    while world.unanswered(host) > 0 {
        world.pass(1);
        assert!(world.now() < since + 200_000, "seed {seed}: nobody is told");
    }
}

#[test]
fn rule_15_what_a_leader_had_that_died_is_said_to_be_unknown_when_the_next_one_is_known() {
    for seed in 1..=30 {
        let mut world = World::quiet(seed, 3);
        let old = world.leader().expect("somebody leads");
        let asked = (old + 1) % 3;
        world.ask_for_lease(asked, 1, 60);
        world.stop(old, 60_000);
        wait_for_another_leader(&mut world, asked, old);
        assert_eq!(world.unanswered(asked), 1, "seed {seed}: only the next leader's entry tells");
        wait_for_answers(&mut world, asked, seed);
        assert!(!world.leases().contains_key(&1), "seed {seed}: it never arrived");
        assert_eq!(world.report().lost, 1, "seed {seed}");
    }
}

#[test]
fn rule_15_what_its_client_has_given_up_is_not_made_later_if_it_waits_for_a_leader() {
    for seed in 1..=10 {
        let (mut world, old, asked) = leaderless(seed, 3);
        world.ask_for_lease(asked, 1, 60);
        world.give_up(asked);
        world.ask_for_lease(asked, 2, 60);
        wait_for_another_leader(&mut world, asked, old);
        wait_for_answers(&mut world, asked, seed);
        assert_eq!(world.leases(), BTreeMap::from([(2, 60)]), "seed {seed}");
    }
}

#[test]
fn rule_15_so_is_what_had_waited_for_a_leader_that_then_died_too() {
    let mut seen = 0;
    for seed in 1..=30 {
        let (mut world, first, asked) = leaderless(seed, 5);
        world.ask_for_lease(asked, 1, 60);
        wait_for_another_leader(&mut world, asked, first);
        let second = world.leader_known_to(asked).expect("somebody leads");
        if second == asked {
            continue;
        }
        // What waited is on its way to it.
        world.stop(second, 60_000);
        seen += 1;
        wait_for_another_leader(&mut world, asked, second);
        wait_for_answers(&mut world, asked, seed);
        assert_eq!(world.report().lost, 1, "seed {seed}");
    }
    assert!(seen > 10, "{seen} seeds in which another member led");
}
