//! `snapshot save`: the store of one member, as a file that etcdutl restores.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use client::Client;
use wire::Status;

use super::globals::log_line;
use super::session::{Session, call_failed_as, cause_line, not_made};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::gotext;

pub(super) const COMMAND: Command = Command::group_of(
    "snapshot",
    "snapshot <subcommand>",
    "Manages etcd node snapshots",
    "Manages etcd node snapshots",
    &[Command::new("save", "save <filename>", "Saves the store of an endpoint to a file", save)],
);

/// What a database's length is a multiple of, and the length of the sum behind it.
const SECTOR: u64 = 512;
const SUM_LEN: u64 = 32;

fn save(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let [path] = call.args.as_slice() else {
        return Err(Failure::new(exit::BAD_ARGS, "snapshot save expects one argument <filename>"));
    };
    let path = String::from_utf8_lossy(path).into_owned();
    let session = Session::open(call)?;
    let endpoints = call.flags.list("endpoints").to_vec();
    let [endpoint] = endpoints.as_slice() else {
        let text = format!(
            "snapshot must be requested to one selected node, not multiple [{}]",
            endpoints.join(" ")
        );
        return Err(Failure::new(exit::INTERRUPTED, text));
    };
    let client = session.connect(session.config.clone()).map_err(|error| match error {
        error @ client::Error::Tls(_) => not_made(error),
        error => call_failed_as(exit::INTERRUPTED, &error, &error),
    })?;
    // Without the flag it may take as long as it takes.
    let limit = call.flags.changed("command-timeout").then(|| call.flags.duration("command-timeout"));
    let part = PartFile::create(&path)?;
    info(call, "created temporary db file", &[("path", &part.name)])?;
    info(call, "fetching snapshot", &[("endpoint", endpoint)])?;
    let begun = Instant::now();
    let (bytes, version) = session.wait(async {
        let fetched = fetch(&client, &part.file);
        match limit {
            None => fetched.await,
            Some(limit) => tokio::time::timeout(limit, fetched)
                .await
                .unwrap_or_else(|_| Err(failed(client::Error::DeadlineExceeded))),
        }
    })?;
    if bytes % SECTOR != SUM_LEN {
        return Err(failed(format!("sha256 checksum not found [bytes: {bytes}]")));
    }
    let took = gotext::duration(i64::try_from(begun.elapsed().as_nanos()).unwrap_or(i64::MAX));
    part.keep(&path)?;
    let size = gotext::size(bytes);
    let fields =
        [("endpoint", endpoint.as_str()), ("size", &size), ("took", &took), ("etcd-version", &version)];
    info(call, "fetched snapshot", &fields)?;
    info(call, "saved", &[("path", &path)])?;
    writeln!(call.world.out, "Snapshot saved at {path}")?;
    if !version.is_empty() {
        writeln!(call.world.out, "Server version {version}")?;
    }
    Ok(())
}

/// Writes everything that comes; how many bytes it was, and the version that the server named.
async fn fetch(client: &Client, mut file: &File) -> Result<(u64, String), Failure> {
    let refused = |error: client::Error| {
        let failure = failed(shown(&error));
        Failure { message: cause_line(&error) + &failure.message, ..failure }
    };
    let mut answers = client.snapshot();
    let first = answers.next().await.map_err(refused)?;
    let version = first.as_ref().map(|answer| answer.version.clone()).unwrap_or_default();
    let mut bytes = 0;
    let mut next = first;
    while let Some(answer) = next {
        file.write_all(&answer.blob)
            .map_err(|error| failed(format!("could not write snapshot: {}", gotext::os_error(&error))))?;
        bytes += answer.blob.len() as u64;
        next = answers
            .next()
            .await
            .map_err(|error| failed(format!("could not write snapshot: {}", shown(&error))))?;
    }
    Ok((bytes, version))
}

/// As gRPC has it: etcdctl does not look here whether an error is etcd's own.
fn shown(error: &client::Error) -> String {
    match error {
        client::Error::Status(Status { code, message }) => {
            format!("rpc error: code = {code:?} desc = {message}")
        }
        error => error.to_string(),
    }
}

fn failed(text: impl std::fmt::Display) -> Failure {
    Failure::new(exit::INTERRUPTED, text)
}

fn info(call: &mut Invocation<'_>, text: &str, fields: &[(&str, &str)]) -> Result<(), Failure> {
    let line = log_line("info", &[&[("msg", text)], fields].concat());
    Ok(call.world.err.write_all(line.as_bytes())?)
}

/// A file that is gone again unless it is kept.
struct PartFile {
    file: File,
    name: String,
    is_kept: bool,
}

impl PartFile {
    fn create(path: &str) -> Result<Self, Failure> {
        let name = format!("{path}.part");
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&name);
        let file = opened.map_err(|error| {
            failed(format!("could not open {name} (open {name}: {})", gotext::os_error(&error)))
        })?;
        Ok(PartFile { file, name, is_kept: false })
    }

    /// Gives it its name, durably.
    fn keep(mut self, path: &str) -> Result<(), Failure> {
        let wrong =
            |what: &str, error: &std::io::Error| failed(format!("{what}: {}", gotext::os_error(error)));
        self.file.sync_all().map_err(|error| wrong("could not fsync snapshot", &error))?;
        std::fs::rename(&self.name, path).map_err(|error| {
            failed(format!("could not rename {} to {path} ({})", self.name, gotext::os_error(&error)))
        })?;
        self.is_kept = true;
        let above = match Path::new(path).parent() {
            Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
            _ => PathBuf::from("."),
        };
        let synced = File::open(&above).and_then(|folder| folder.sync_all());
        synced.map_err(|error| wrong("could not fsync the folder of the snapshot", &error))
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nobody is left to tell; a part of a snapshot is worth nothing.
            let _ = std::fs::remove_file(&self.name);
        }
    }
}
