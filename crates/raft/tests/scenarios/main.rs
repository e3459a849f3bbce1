//! The scenario scripts of etcd's raft (its folder `testdata`), driven through our core: the resulting log, term, commit,
//! leader and roles must be those that the scripts expect. The scripts are not part of this repository:
//! `cargo xtask raft-scenarios --testdata DIR`. Not in CI, which has none.
//!
//! `script.rs` reads a script, `published.rs` what it expects, and `env.rs` does what it says and compares after each
//! command. What etcd prints of how it got there (single messages, its own log lines) is not compared.

mod env;
mod published;
mod script;

use std::collections::BTreeMap;
use std::path::PathBuf;

use env::{Counts, Env};
use script::Script;

/// Scripts that end differently here, and why. One that agrees must not be listed.
const DIFFERENT: [(&str, &str); 6] = [
    (
        "async_storage_writes_append_aba_race",
        "a candidate's requests for votes wait for its disk here (election.rs says why), and it delivers them before; what \
         it is about is in transcripts/stale_persisted.txt",
    ),
    (
        "confchange_v1_add_single",
        "it proposes a change before the leader has committed in its term, which takes an empty entry here (rule 16)",
    ),
    (
        "confchange_v1_remove_leader",
        "a leader that is removed hands over and steps down; this one goes on leading",
    ),
    (
        "confchange_v1_remove_leader_stepdown",
        "a leader that is removed leads until another does, for an election timeout at most; this one steps down at once",
    ),
    ("confchange_v2_add_single_auto", "as confchange_v1_add_single"),
    ("forget_leader_read_only_lease_based", "reads by lease are not built: clocks prove nothing"),
];

/// How many entries a leader keeps that everybody else has, where a script takes away the beginning of a log. Here a log
/// goes by its bounds and not by command, so the moment differs and what is left is the same.
const KEPT: [(&str, usize); 2] =
    [("slow_follower_after_compaction", 1), ("snapshot_succeed_via_app_resp", 0)];

fn scripts() -> Vec<(String, Script)> {
    #[expect(clippy::disallowed_methods, reason = "the test's own switch, not the crate's")]
    let folder = std::env::var("QUORATE_RAFT_TESTDATA").expect("QUORATE_RAFT_TESTDATA names the folder");
    let files = PathBuf::from(folder).read_dir().expect("the folder of scripts");
    let mut scripts = Vec::new();
    for file in files {
        let path = file.expect("a script").path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let text = read(&path);
            scripts.push((name, Script::parse(&text)));
        }
    }
    scripts.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!scripts.is_empty(), "no scripts");
    scripts
}

fn read(path: &std::path::Path) -> String {
    #[expect(clippy::disallowed_methods, reason = "the test's own input, not the crate's")]
    let bytes = std::fs::read(path).expect("read a script");
    String::from_utf8(bytes).expect("a script is text")
}

fn run(name: &str, script: &Script) -> Result<Counts, String> {
    let kept = KEPT.iter().find(|(listed, _)| *listed == name).map(|(_, kept)| *kept);
    let mut env = Env::new(kept);
    for step in &script.steps {
        env.run(step).map_err(|difference| format!("line {}: {difference}", step.line))?;
    }
    Ok(env.counts)
}

#[test]
#[ignore = "needs etcd's scripts: cargo xtask raft-scenarios --testdata DIR"]
fn scripts_end_as_they_say() {
    let different = BTreeMap::from(DIFFERENT);
    let (mut agree, mut aside, mut differ, mut wrong) = (0, 0, 0, Vec::new());
    for (name, script) in scripts() {
        if script.is_joint() {
            println!("{name}: aside, makes joint changes of membership");
            aside += 1;
            continue;
        }
        match (run(&name, &script), different.get(name.as_str())) {
            (Ok(counts), None) => {
                println!("{name}: agrees; compared {counts}");
                agree += 1;
                assert!(counts.total() > 0, "{name} compares nothing");
                check_sensitivity(&name, &script);
            }
            (Err(difference), Some(why)) => {
                println!("{name}: differs, {why} ({difference})");
                differ += 1;
            }
            (Ok(_), Some(_)) => wrong.push(format!("{name} agrees and is listed as different")),
            (Err(difference), None) => wrong.push(format!("{name}, {difference}")),
        }
    }
    println!("{agree} agree, {differ} differ for a reason, {aside} aside");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A script that expects one thing else must not agree any more, whatever that thing is.
fn check_sensitivity(name: &str, script: &Script) {
    for (place, step) in script.steps.iter().enumerate() {
        for wrong in published::distortions(&step.expected) {
            let mut distorted = script.clone();
            distorted.steps[place].expected = wrong;
            assert!(run(name, &distorted).is_err(), "{name}, line {}: a distortion passes", step.line);
        }
    }
}
