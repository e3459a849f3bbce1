//! Records what a real etcd says to bad values of its flags: `crates/server/tests/process/bad_values.tsv`.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let ["--etcd", path] = args else { bail!("usage: cargo xtask bad-values --etcd PATH") };
    let path = fs::canonicalize(path).with_context(|| format!("find {path}"))?;
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "-p", "quorate-server", "--test", "process", "--"]);
    test.args(["--ignored", "--exact", "bad_values::record"])
        .current_dir(crate::root())
        .env("QUORATE_ETCD", path);
    if !test.status().context("run cargo test")?.success() {
        bail!("nothing was recorded");
    }
    Ok(())
}
