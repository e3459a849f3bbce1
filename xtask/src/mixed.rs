//! Clusters of ours and Go's etcd, and the swap there and back: runs the scenarios of `tests/mixed`, which need real etcds.
//!
//! `cargo xtask mixed --go-etcd PATH [--go-etcd-36 PATH] [--only NAME] [--seconds N] [--sequences N] [--seed N]`: etcd 3.7,
//! and 3.6 for the scenarios with that version. Not in CI, which has no such binaries.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

const USAGE: &str =
    "usage: cargo xtask mixed --go-etcd PATH [--go-etcd-36 PATH] [--only NAME] [--seconds N] \
                     [--sequences N] [--seed N]

  --go-etcd     an etcd 3.7
  --go-etcd-36  an etcd 3.6; without it the scenarios that need one are left out
  --only        the scenarios whose name has this in it
  --seconds     how long the load goes on between two steps of a swap (3)
  --sequences   of requests in the differential runs (50)
  --seed        of the differential runs (1)";

/// The scenarios that need 3.6 are in this module.
const NEED_36: &str = "versions::";

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "-p", "quorate-tests", "--test", "mixed", "--"]);
    test.args(["--ignored", "--nocapture", "--test-threads", "1"]).current_dir(crate::root());
    // What a scenario awaits is large where nothing is optimised.
    test.env("RUST_MIN_STACK", (16 << 20).to_string());
    let (mut rest, mut has_37, mut has_36) = (args.chunks_exact(2), false, false);
    let path = |path: &str| fs::canonicalize(path).with_context(|| format!("find {path}"));
    for option in rest.by_ref() {
        match option {
            ["--go-etcd", etcd] => {
                test.env("QUORATE_GO_ETCD", path(etcd)?);
                has_37 = true;
            }
            ["--go-etcd-36", etcd] => {
                test.env("QUORATE_GO_ETCD_36", path(etcd)?);
                has_36 = true;
            }
            ["--only", name] => drop(test.arg(name)),
            ["--seconds", number] => drop(test.env("QUORATE_SECONDS", number)),
            ["--sequences", number] => drop(test.env("QUORATE_SEQUENCES", number)),
            ["--seed", number] => drop(test.env("QUORATE_SEED", number)),
            _ => bail!("{USAGE}"),
        }
    }
    if !has_37 || !rest.remainder().is_empty() {
        bail!("{USAGE}");
    }
    if !has_36 {
        println!("no --go-etcd-36: the scenarios with 3.6 are left out");
        test.args(["--skip", NEED_36]);
    }
    if !test.status().context("run cargo test")?.success() {
        bail!("a scenario failed; what it had checked, and why it failed, is printed above");
    }
    Ok(())
}
