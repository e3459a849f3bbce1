//! etcdutl: the tool for files and data directories.

mod check;
mod defrag;
mod export;
mod hashkv;
mod held;
mod migrate;
mod snapshot;

use std::path::Path;

use crate::app::{Failure, Invocation, exit};
use crate::command::{App, Command};
use crate::completion;
use crate::flag::{Flag, Kind};
use crate::gotext;

/// The program.
pub static APP: App = App {
    name: "etcdutl",
    about: "",
    groups: &[],
    commands: COMMANDS,
    flags: &[
        Flag::new("timeout", Kind::Duration, "longest wait for the lock of a database (0 means forever)")
            .default("10s"),
        Flag::new("write-out", Kind::Text, "output format: simple, fields, json, protobuf or table")
            .short('w')
            .default("simple"),
    ],
    flags_hidden: false,
    trailer: "",
    errors_twice: true,
};

static COMMANDS: &[Command] = &[
    Command::new("version", "version", "Prints the version of etcdutl", version),
    completion::COMMAND,
    Command::new(
        "defrag",
        "defrag",
        "Gives back the space that nobody uses in a data directory",
        defrag::run,
    )
    .with_flags(&[DATA_DIR, held::WAL_DIR]),
    Command::new("hashkv", "hashkv <filename>", "Prints the KV history hash of a given file", hashkv::run)
        .with_flags(&[Flag::new("rev", Kind::Int, "hash up to this revision (0 means the newest)")]),
    Command::new("migrate", "migrate", "Changes a data directory for another version", migrate::run)
        .with_flags(&[
            DATA_DIR,
            held::WAL_DIR,
            Flag::new(
                "target-version",
                Kind::Text,
                "version to change it for, as X.Y; at least 3.5; required",
            ),
            Flag::new("force", Kind::Bool, "change the version even if that fails"),
        ]),
    Command::group_of(
        "snapshot",
        "snapshot <subcommand>",
        "Manages etcd node snapshots",
        "Manages etcd node snapshots",
        &[
            Command::new(
                "restore",
                "restore <filename> --data-dir {output dir} [options]",
                "Makes a data directory from a snapshot",
                snapshot::restore,
            )
            .with_flags(RESTORE_FLAGS),
            Command::new("status", "status <filename>", "Prints what a snapshot holds", snapshot::status),
        ],
    ),
    Command::new(
        "check",
        "check",
        "Reads a whole data directory, and says what is wrong with it",
        check::run,
    )
    .with_flags(&[DATA_DIR, held::WAL_DIR])
    .beyond_etcd(),
    Command::new(
        "export-go",
        "export-go",
        "Writes the data directory that Go's etcd starts from",
        export::run,
    )
    .with_flags(&[
        DATA_DIR,
        held::WAL_DIR,
        Flag::new("out", Kind::Text, "the data directory to write; required"),
        Flag::new(
            "target-version",
            Kind::Text,
            "write it for etcd 3.6 or 3.7, if not for the cluster's version",
        ),
    ])
    .beyond_etcd(),
];

const DATA_DIR: Flag =
    Flag::new("data-dir", Kind::Text, "data directory of a member that does not run; required");

static RESTORE_FLAGS: &[Flag] = &[
    Flag::new("data-dir", Kind::Text, "the data directory to make"),
    Flag::new("wal-dir", Kind::Text, "the WAL directory to make, if it is another"),
    Flag::new("initial-cluster", Kind::Text, "the members that begin")
        .default("default=http://localhost:2380"),
    Flag::new("initial-cluster-token", Kind::Text, "what tells this cluster from others")
        .default("etcd-cluster"),
    Flag::new("initial-advertise-peer-urls", Kind::Text, "this member's peer URLs")
        .default("http://localhost:2380"),
    Flag::new("name", Kind::Text, "this member's name").default("default"),
    Flag::new("skip-hash-check", Kind::Bool, "do not check the sum at the end of the file"),
    Flag::new("initial-memory-map-size", Kind::Uint, "bytes to map of the database").default("10737418240"),
    Flag::new("bump-revision", Kind::Uint, "how much to raise the revision"),
    Flag::new("mark-compacted", Kind::Bool, "mark the revision as compacted"),
];

fn version(call: &mut Invocation<'_>) -> Result<(), Failure> {
    crate::app::print_version(call)
}

/// Whether a file is there, in Go's words if it is not.
fn stat(path: &Path) -> Result<(), Failure> {
    std::fs::metadata(path).map(drop).map_err(|error| {
        Failure::new(exit::ERROR, format!("stat {}: {}", path.display(), gotext::os_error(&error)))
    })
}

fn node_failure(error: &node::Error) -> Failure {
    Failure::new(exit::ERROR, node_text(error))
}

/// What went wrong, with the system's errors in Go's words.
fn node_text(error: &node::Error) -> String {
    match error {
        node::Error::Io { operation, path, source } => {
            format!("{operation} {}: {}", path.display(), gotext::os_error(source))
        }
        other => other.to_string(),
    }
}

/// A line of the tool's log on standard error, in the form of etcdutl's.
fn log(call: &mut Invocation<'_>, text: &str, fields: &[(&str, &str)]) -> Result<(), Failure> {
    let fields: Vec<(&str, Value)> =
        fields.iter().map(|(name, value)| (*name, Value::Text((*value).to_owned()))).collect();
    line(call, "info", text, &fields)
}

/// The value of a field in a line of the log.
enum Value {
    Text(String),
    Number(u64),
}

fn line(call: &mut Invocation<'_>, level: &str, text: &str, fields: &[(&str, Value)]) -> Result<(), Failure> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| match value {
            Value::Text(text) => format!("\"{name}\": {}", gotext::quote(text.as_bytes())),
            Value::Number(number) => format!("\"{name}\": {number}"),
        })
        .collect();
    let fields = if pairs.is_empty() { String::new() } else { format!("\t{{{}}}", pairs.join(", ")) };
    Ok(writeln!(call.world.err, "{now}\t{level}\t{text}{fields}")?)
}
