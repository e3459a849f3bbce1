//! Our database files before bbolt and etcdutl: runs the tests of `crates/disk/tests/boltfile/external.rs`.
//!
//! `cargo xtask boltfile --bbolt PATH --etcdutl PATH`: bbolt's command of 1.4 or later, etcdutl 3.6 or 3.7. Not in CI,
//! which has neither.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "-p", "quorate-disk", "--test", "boltfile", "--", "external::"]);
    test.args(["--ignored", "--nocapture", "--test-threads", "1"]).current_dir(crate::root());
    let [first, bbolt, second, etcdutl] = args else {
        bail!("usage: cargo xtask boltfile --bbolt PATH --etcdutl PATH")
    };
    for (flag, expected, variable, path) in
        [(first, "--bbolt", "QUORATE_BBOLT", bbolt), (second, "--etcdutl", "QUORATE_ETCDUTL", etcdutl)]
    {
        if *flag != expected {
            bail!("boltfile does not know {flag}");
        }
        test.env(variable, fs::canonicalize(path).with_context(|| format!("find {path}"))?);
    }
    if !test.status().context("run cargo test")?.success() {
        bail!("the real tools see another file than we do");
    }
    Ok(())
}
