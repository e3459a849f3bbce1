//! Clusters of four to seven of our members, killed, stopped and parted: runs the long tests of `tests/disturbed.rs`.
//!
//! `cargo xtask clusters`, some minutes. Not in CI, which runs those of three members.

use std::process::Command;

use anyhow::{Context, Result, bail};

pub(crate) fn run(args: &[&str]) -> Result<()> {
    if !args.is_empty() {
        bail!("usage: cargo xtask clusters");
    }
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "-p", "quorate-tests", "--test", "disturbed", "--"]);
    test.args(["--ignored", "--test-threads", "1"]).current_dir(crate::root());
    if !test.status().context("run cargo test")?.success() {
        bail!("a cluster lost something");
    }
    Ok(())
}
