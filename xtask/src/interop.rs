//! Our write-ahead log under a real etcd: it must replay it, without any `snap/db`, to the same HashKV.
//!
//! `cargo xtask interop --etcd PATH --etcdctl PATH`: of etcd 3.7. Not in CI, which has no such binary.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::server::{Server, build, output, scratch};

/// Rounds of a few writes each.
const ROUNDS: u32 = 200;

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let ["--etcd", etcd, "--etcdctl", etcdctl] = args else {
        bail!("usage: cargo xtask interop --etcd PATH --etcdctl PATH");
    };
    let (etcd, etcdctl) = (PathBuf::from(etcd), PathBuf::from(etcdctl));
    let binaries = build()?;
    let ours = scratch("interop-ours")?.join("data");
    let server = Server::start(&binaries.join("etcd"), &ours)?;
    let ctl = |server: &Server, args: &[&str]| {
        output(Command::new(&etcdctl).args(["--endpoints", &server.endpoint]).args(args))
    };
    for round in 0..ROUNDS {
        let (key, value) = (format!("k{}", round % 17), "x".repeat((round * 37 % 900) as usize));
        ctl(&server, &["put", &key, &format!("{round}{value}")])?;
        if round % 5 == 0 {
            ctl(&server, &["del", &format!("k{}", round % 7), &format!("k{}", round % 11)])?;
        }
    }
    // Serving address first, then hash and revision.
    let figures = |text: &str| text.split_once(", ").map(|(_, rest)| rest.trim().to_owned());
    let expected = figures(&ctl(&server, &["endpoint", "hashkv"])?).context("our hash")?;
    server.kill()?;

    let theirs = scratch("interop-etcd")?.join("data");
    fs::create_dir_all(theirs.join("member/snap"))?;
    fs::create_dir_all(theirs.join("member/wal"))?;
    for entry in fs::read_dir(ours.join("member/wal"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            fs::copy(&path, theirs.join("member/wal").join(path.file_name().context("a name")?))?;
        }
    }
    let server = Server::start(&etcd, &theirs)?;
    let found = figures(&ctl(&server, &["endpoint", "hashkv"])?).context("etcd's hash")?;
    if found != expected {
        bail!("etcd replays our log to hash and revision {found}, ours are {expected}");
    }
    println!("ok: etcd replays our log to the same hash and revision: {found}");
    Ok(())
}
