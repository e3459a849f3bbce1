//! Our write-ahead log under a real etcd and the other way round: runs `tests/interop.rs`, which needs one.
//!
//! `cargo xtask interop --etcd PATH [--etcd-3.6 PATH] [--seed N] [--ops N]`: of etcd 3.7, and of 3.6 for our snapshot
//! files. Not in CI, which has no such binaries.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "-p", "quorate-tests", "--test", "interop", "--"]);
    test.args(["--ignored", "--nocapture", "--test-threads", "1"]).current_dir(crate::root());
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    test.env("QUORATE_SEED", seed.to_string());
    let (mut rest, mut found) = (args.chunks_exact(2), false);
    for option in rest.by_ref() {
        match option {
            ["--etcd", path] => {
                test.env("QUORATE_ETCD", fs::canonicalize(path).with_context(|| format!("find {path}"))?);
                found = true;
            }
            ["--etcd-3.6", path] => {
                test.env("QUORATE_ETCD_3_6", fs::canonicalize(path).with_context(|| format!("find {path}"))?);
            }
            ["--seed", seed] => drop(test.env("QUORATE_SEED", seed)),
            ["--ops", ops] => drop(test.env("QUORATE_OPS", ops)),
            _ => bail!("interop does not know {}", option[0]),
        }
    }
    if !found || !rest.remainder().is_empty() {
        bail!("usage: cargo xtask interop --etcd PATH [--etcd-3.6 PATH] [--seed N] [--ops N]");
    }
    if !test.status().context("run cargo test")?.success() {
        bail!("the logs are not the same to both; the seed is printed above");
    }
    Ok(())
}
