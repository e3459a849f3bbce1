//! Our transport and a real etcd as the two members of a cluster: runs `crates/server/tests/peer_etcd.rs`.
//!
//! `cargo xtask peers --etcd PATH`: of etcd 3.4 or later. Not in CI.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let ["--etcd", path] = args else { bail!("usage: cargo xtask peers --etcd PATH") };
    let path = fs::canonicalize(path).with_context(|| format!("find {path}"))?;
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "-p", "quorate-server", "--test", "peer_etcd", "--"]);
    test.args(["--ignored", "--nocapture", "--test-threads", "1"]).current_dir(crate::root());
    if !test.env("QUORATE_ETCD", path).status().context("run cargo test")?.success() {
        bail!("etcd and our transport do not understand each other");
    }
    Ok(())
}
