//! A member on a file system that fills up: runs the test of `tests/disk_space.rs` that needs a small one.
//!
//! `cargo xtask full-disk DIR` takes the file system of that folder, which should have some 450 MiB free and nothing that
//! minds. Without a folder it mounts a tmpfs of that size, which only root may. Not in CI.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::server::{build, scratch};

const SIZE: &str = "450m";

/// A tmpfs; gone when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new() -> Result<Self> {
        let at = scratch("full-disk")?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={SIZE},mode=0700"), "quorate-full-disk"]).arg(&at);
        let done = mount.output().context("run mount")?;
        if !done.status.success() {
            let why = String::from_utf8_lossy(&done.stderr);
            bail!(
                "no tmpfs can be mounted here: {}. Name a folder on a file system with 450 MiB free: cargo xtask full-disk DIR",
                why.trim()
            );
        }
        Ok(Mounted(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

pub(crate) fn run(args: &[&str]) -> Result<()> {
    match args {
        [] => {
            let mounted = Mounted::new()?;
            fill(&mounted.0)
        }
        [dir] if !dir.starts_with('-') => fill(Path::new(dir)),
        _ => bail!("usage: cargo xtask full-disk [DIR]"),
    }
}

fn fill(dir: &Path) -> Result<()> {
    let dir = std::fs::canonicalize(dir).with_context(|| format!("find {}", dir.display()))?;
    // All that is to be built is built before: a compiler's own temporary files would be in the way.
    build()?;
    test(&["--no-run"], None)?;
    test(&["--", "--ignored", "--nocapture", "a_full_file_system"], Some(&dir))
}

/// `dir`: where temporary folders are made, the member's among them.
fn test(args: &[&str], dir: Option<&Path>) -> Result<()> {
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "-p", "quorate-tests", "--test", "disk_space"]).args(args);
    test.current_dir(crate::root()).envs(dir.map(|dir| ("TMPDIR", dir)));
    if !test.status().context("run cargo test")?.success() {
        bail!("a full file system is not lived with");
    }
    Ok(())
}
