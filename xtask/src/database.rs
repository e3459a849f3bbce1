//! Saved snapshots between ours and etcd's: runs the tests of `tests/saved.rs` that need the real programs.
//!
//! `cargo xtask database --etcd PATH --etcdutl PATH`, both of 3.7. Not in CI, which has neither.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "-p", "quorate-tests", "--test", "saved", "--"]);
    test.args(["--ignored", "--nocapture", "--test-threads", "1"]).current_dir(crate::root());
    let ["--etcd", etcd, "--etcdutl", etcdutl] = args else {
        bail!("usage: cargo xtask database --etcd PATH --etcdutl PATH")
    };
    for (variable, path) in [("QUORATE_ETCD", etcd), ("QUORATE_ETCDUTL", etcdutl)] {
        test.env(variable, fs::canonicalize(path).with_context(|| format!("find {path}"))?);
    }
    if !test.status().context("run cargo test")?.success() {
        bail!("the real programs see another store than we do");
    }
    Ok(())
}
