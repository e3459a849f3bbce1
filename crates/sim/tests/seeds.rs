//! Many seeds of one member. `QUORATE_SEED=N` runs that one with its trace, `QUORATE_SEEDS=N` that many.

use sim::{Options, run};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect(variable))
}

#[test]
fn one_member_keeps_its_promises() {
    if let Some(seed) = number("QUORATE_SEED") {
        run(seed, Options { print_trace: true, ..Options::default() });
        return;
    }
    let first = number("QUORATE_SEED_FIRST").unwrap_or(1);
    let count = number("QUORATE_SEEDS").unwrap_or(300);
    let (mut answers, mut crashes, mut no_space) = (0, 0, 0);
    let (mut snapshots, mut removed, mut made_anew) = (0, 0, 0);
    let (mut ended, mut renewals) = (0, 0);
    let (mut merges, mut merged_away) = (0, 0);
    for seed in first..first + count {
        let outcome = std::panic::catch_unwind(|| run(seed, Options::default()));
        let Ok(report) = outcome else {
            panic!(
                "seed {seed}: run it again with QUORATE_SEED={seed} cargo test -p quorate-sim -- --nocapture"
            );
        };
        answers += report.answers;
        crashes += report.crashes;
        no_space += report.no_space;
        snapshots += report.snapshots;
        removed += report.removed;
        made_anew += report.made_anew;
        ended += report.leases_ended;
        renewals += report.renewals;
        merges += report.merges;
        merged_away += report.merged_away_bytes;
    }
    println!(
        "{count} seeds: {answers} answers checked, {crashes} crashes, {no_space} refused for want of space, {snapshots} \
         snapshots, {removed} files given back, {made_anew} revision logs made anew, {ended} leases ended, {renewals} \
         renewals, {merges} merges gave {merged_away} bytes back"
    );
    assert!(count < 100 || merges > 3 * count, "the runs are too tame: {merges} merges");
    assert!(answers > 50 * count, "the runs are too tame: {answers} answers");
    assert!(crashes > count, "the runs are too tame: {crashes} crashes");
    assert!(count < 100 || (ended > count && renewals > count), "the leases are too tame");
    assert!(count < 100 || no_space > 0, "no run filled the disk");
    assert!(snapshots > 2 * count, "the runs are too tame: {snapshots} snapshots");
    assert!(count < 100 || removed > 3 * count, "the runs are too tame: {removed} files given back");
    assert!(count < 100 || made_anew > 0, "no revision log was made anew");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..4 {
        assert_eq!(run(seed, Options::default()), run(seed, Options::default()), "seed {seed}");
    }
}
