//! Many seeds of a cluster. `QUORATE_SEED=N` runs that one with its trace, `QUORATE_SEEDS=N` that many.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::cluster::{ClusterOptions, ClusterReport, run};

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
    let count = number("QUORATE_SEEDS").unwrap_or(150);
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
    assert!(all.lost > 0, "nobody was told that a fate is unknown");
    assert!(all.leases_ended > seeds, "too tame: {} leases ended", all.leases_ended);
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
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..4 {
        let options = ClusterOptions::default();
        assert_eq!(run(seed, options), run(seed, options), "seed {seed}");
    }
}
