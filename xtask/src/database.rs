//! Saved snapshots and data directories between ours and etcd's: runs the tests of `tests/saved.rs` that need the real
//! programs.
//!
//! `cargo xtask database --etcd PATH --etcd-3.6 PATH --etcdutl PATH`: etcd 3.7 and 3.6, and etcdutl 3.7. Not in CI, which
//! has none of them.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

const PROGRAMS: [(&str, &str); 3] =
    [("--etcd", "QUORATE_ETCD"), ("--etcd-3.6", "QUORATE_ETCD_3_6"), ("--etcdutl", "QUORATE_ETCDUTL")];

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "-p", "quorate-tests", "--test", "saved", "--"]);
    test.args(["--ignored", "--nocapture", "--test-threads", "1"]).current_dir(crate::root());
    for (flag, variable) in PROGRAMS {
        let Some(at) = args.iter().position(|arg| *arg == flag) else {
            bail!("{flag} is missing: cargo xtask database --etcd PATH --etcd-3.6 PATH --etcdutl PATH")
        };
        let path = args.get(at + 1).with_context(|| format!("{flag} names no program"))?;
        test.env(variable, fs::canonicalize(path).with_context(|| format!("find {path}"))?);
    }
    if !test.status().context("run cargo test")?.success() {
        bail!("the real programs see another store than we do");
    }
    Ok(())
}
