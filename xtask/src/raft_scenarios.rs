//! The scenario scripts of etcd's raft, driven through our consensus: runs `crates/raft/tests/scenarios`.
//!
//! `cargo xtask raft-scenarios --testdata DIR`: the folder `testdata` of etcd-io/raft 3.7. Not in CI, which has none.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let ["--testdata", folder] = args else { bail!("usage: cargo xtask raft-scenarios --testdata DIR") };
    let folder = fs::canonicalize(folder).with_context(|| format!("find {folder}"))?;
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "-p", "quorate-raft", "--test", "scenarios", "--"]);
    test.args(["--ignored", "--nocapture"]).current_dir(crate::root()).env("QUORATE_RAFT_TESTDATA", folder);
    if !test.status().context("run cargo test")?.success() {
        bail!("a scenario ends differently than it says");
    }
    Ok(())
}
