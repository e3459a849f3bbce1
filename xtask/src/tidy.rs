//! The dependency rule and the truth of the documents, checked by machine.
//!
//! Clippy's `disallowed-*` lists (a `clippy.toml` in each pure crate) keep clocks, files, sockets, threads and
//! unseeded randomness out of the code; this keeps them from coming in as a dependency.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What each of our crates may depend on, of ours. `design`: server → node → {raft, store → wire, disk → wire}.
const EDGES: [(&str, &[&str]); 12] = [
    ("wire", &[]),
    ("tls", &[]),
    ("connect", &[]),
    ("raft", &[]),
    ("disk", &["wire"]),
    ("store", &["wire"]),
    ("node", &["wire", "raft", "disk", "store"]),
    ("server", &["wire", "raft", "disk", "store", "node", "client", "tls", "connect"]),
    ("client", &["wire", "tls", "connect"]),
    ("cli", &["wire", "client", "disk", "node", "tls"]),
    ("sim", &["wire", "raft", "disk", "store", "node"]),
    ("bench", &["wire", "client"]),
];

/// All that a pure crate may depend on besides ours: nothing here reaches a clock, a file, a socket or a thread.
const PURE: [(&str, &[&str]); 3] = [
    ("raft", &["bytes", "thiserror"]),
    ("store", &["base64", "bytes", "slab", "prost", "thiserror", "crc32c", "serde", "serde_json"]),
    ("node", &["bytes", "prost", "thiserror", "serde", "serde_json", "sha1", "sha2"]),
];

/// What a pure crate's `clippy.toml` must at least disallow.
const DISALLOWED: [&str; 8] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "std::thread::spawn",
    "std::thread::Builder",
    "std::fs::File",
    "std::net::TcpStream",
    "std::collections::HashMap",
    "std::collections::hash_map::RandomState",
];

pub(crate) fn run() -> Result<()> {
    let mut faults = Vec::new();
    edges(&mut faults)?;
    clippy_lists(&mut faults)?;
    documents(&mut faults)?;
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{} faults:\n  {}", faults.len(), faults.join("\n  "));
}

fn edges(faults: &mut Vec<String>) -> Result<()> {
    let ours: BTreeMap<String, &[&str]> =
        EDGES.iter().map(|(name, to)| (format!("quorate-{name}"), *to)).collect();
    let pure: BTreeMap<String, &[&str]> =
        PURE.iter().map(|(name, to)| (format!("quorate-{name}"), *to)).collect();
    for package in workspace_packages()? {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = ours.get(name) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // Test dependencies never ship; they may reach what they like.
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            let to = dependency["name"].as_str().unwrap_or_default();
            match to.strip_prefix("quorate-") {
                Some(short) if !allowed.contains(&short) => {
                    faults.push(format!(
                        "{name} must not depend on {to} (ARCHITECTURE.md, the dependency rule)"
                    ));
                }
                None if pure.get(name).is_some_and(|list| !list.contains(&to)) => {
                    faults.push(format!("{name} is pure and must not depend on {to}"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn workspace_packages() -> Result<Vec<Value>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(crate::root())
        .output()
        .context("run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("read cargo metadata")?;
    Ok(metadata["packages"].as_array().cloned().unwrap_or_default())
}

fn clippy_lists(faults: &mut Vec<String>) -> Result<()> {
    for (name, _) in PURE {
        let path = crate::root().join(format!("crates/{name}/clippy.toml"));
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for banned in DISALLOWED {
            if !text.contains(&format!("\"{banned}\"")) {
                faults.push(format!("crates/{name}/clippy.toml does not disallow {banned}"));
            }
        }
    }
    Ok(())
}

/// Every path in backquotes that begins like one of ours must exist; no document names this or that machine.
fn documents(faults: &mut Vec<String>) -> Result<()> {
    let root = crate::root();
    let mut files = vec![root.join("README.md"), root.join("ARCHITECTURE.md"), root.join("CHANGELOG.md")];
    collect(&root.join("docs"), &mut files)?;
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let shown = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
        let mut seen = BTreeSet::new();
        for quoted in text.split('`').skip(1).step_by(2) {
            let path = quoted.trim_end_matches('/');
            let ours = ["crates/", "docs/", "xtask/", "tests/", ".ci/"].iter().any(|p| path.starts_with(p));
            let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
            if ours && plain && seen.insert(path) && !root.join(path).exists() {
                faults.push(format!("{shown} names {path}, which does not exist"));
            }
        }
    }
    Ok(())
}

fn collect(dir: &Path, files: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "md") {
            files.push(path);
        }
    }
    Ok(())
}
