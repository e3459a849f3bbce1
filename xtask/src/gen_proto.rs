//! Compiles `crates/wire/proto` with a pure-Rust compiler, so that nobody needs `protoc`.
//!
//! Messages go to `crates/wire/src/gen`, service stubs to `crates/server/src/gen` and `crates/client/src/gen`:
//! `wire` has no gRPC runtime. The JSON gateway's tables go to the server's as well. The result is checked in; `--check`
//! fails when it is not what the files give.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const PROTOS: [&str; 12] = [
    "authpb/auth.proto",
    "etcdserverpb/etcdserver.proto",
    "etcdserverpb/raft_internal.proto",
    "etcdserverpb/rpc.proto",
    "health/health.proto",
    "leasepb/lease.proto",
    "membershippb/membership.proto",
    "mvccpb/kv.proto",
    "raftpb/raft.proto",
    "snappb/snap.proto",
    "v3electionpb/v3election.proto",
    "v3lockpb/v3lock.proto",
];
const WALPB: &str = "walpb/record.proto";

/// The packages of messages, as (proto package, path in `wire`).
const PACKAGES: [(&str, &str); 11] = [
    (".authpb", "::wire::authpb"),
    (".etcdserverpb", "::wire::etcdserverpb"),
    (".grpc.health.v1", "::wire::health"),
    (".leasepb", "::wire::leasepb"),
    (".membershippb", "::wire::membershippb"),
    (".mvccpb", "::wire::mvccpb"),
    (".raftpb", "::wire::raftpb"),
    (".snappb", "::wire::snappb"),
    (".v3electionpb", "::wire::v3electionpb"),
    (".v3lockpb", "::wire::v3lockpb"),
    (".walpb", "::wire::walpb"),
];

pub(crate) fn run(check: bool) -> Result<()> {
    let root = crate::root();
    let proto = root.join("crates/wire/proto");
    let files: Vec<&str> = PROTOS.into_iter().chain([WALPB]).collect();
    let set = protox::compile(&files, [&proto]).context("compile the proto files")?;

    let scratch = root.join("target/xtask-gen");
    let mut stale = Vec::new();

    let mut messages = prost_build::Config::new();
    messages.bytes(["."]).out_dir(fresh(&scratch.join("wire"))?);
    messages.compile_fds(set.clone()).context("generate messages")?;
    compare(&scratch.join("wire"), &root.join("crates/wire/src/gen"), check, &mut stale)?;

    for (crate_name, server) in [("server", true), ("client", false)] {
        let out = fresh(&scratch.join(crate_name))?;
        let mut config = prost_build::Config::new();
        config.bytes(["."]);
        let mut stubs = tonic_prost_build::configure()
            .build_server(server)
            .build_client(!server)
            .build_transport(false)
            .out_dir(&out);
        for (package, path) in PACKAGES {
            stubs = stubs.extern_path(package, path);
        }
        stubs.compile_fds_with_config(set.clone(), config).context("generate service stubs")?;
        drop_files_without_code(&out)?;
        if server {
            fs::write(out.join("gateway.rs"), crate::gen_json::tables(&set)?)
                .context("write the gateway's tables")?;
        }
        compare(&out, &root.join(format!("crates/{crate_name}/src/gen")), check, &mut stale)?;
    }
    if !stale.is_empty() {
        bail!("generated code is stale, run `cargo xtask gen`: {}", stale.join(", "));
    }
    Ok(())
}

fn fresh(dir: &Path) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("empty {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    Ok(dir.to_path_buf())
}

/// Packages without a service leave an empty file behind.
fn drop_files_without_code(dir: &Path) -> Result<()> {
    for (name, text) in read(dir)? {
        if !text.contains("pub mod") {
            fs::remove_file(dir.join(name))?;
        }
    }
    Ok(())
}

fn read(dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    if !dir.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path())?);
    }
    Ok(files)
}

/// Makes `to` hold what `from` holds; with `check` only notes what differs.
fn compare(from: &Path, to: &Path, check: bool, stale: &mut Vec<String>) -> Result<()> {
    let (new, old) = (read(from)?, read(to)?);
    if new == old {
        return Ok(());
    }
    if check {
        stale.push(to.strip_prefix(crate::root()).unwrap_or(to).display().to_string());
        return Ok(());
    }
    fresh(to)?;
    for (name, text) in &new {
        fs::write(to.join(name), text)?;
    }
    println!("wrote {}", to.display());
    Ok(())
}
