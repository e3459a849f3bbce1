//! Many seeds of a cluster. `QUORATE_SEED=N` runs that one with its trace, `QUORATE_SEEDS=N` that many.

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
    let count = number("QUORATE_SEEDS").unwrap_or(200);
    let mut all = ClusterReport::default();
    for seed in first..first + count {
        let outcome = std::panic::catch_unwind(|| run(seed, ClusterOptions::default()));
        let Ok(report) = outcome else {
            panic!(
                "seed {seed}: run it again with QUORATE_SEED={seed} cargo test -p quorate-sim --test cluster -- \
                 --nocapture"
            );
        };
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
    println!("{count} seeds: {all:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..4 {
        let options = ClusterOptions::default();
        assert_eq!(run(seed, options), run(seed, options), "seed {seed}");
    }
}
