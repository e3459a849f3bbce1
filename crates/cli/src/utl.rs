//! etcdutl: the tool for files and data directories.

use crate::app::{Failure, Invocation};
use crate::command::{App, Command};
use crate::ctl::planned;
use crate::flag::{Flag, Kind};

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
    planned(
        "completion",
        "completion [bash|zsh|fish|powershell]",
        "Prints a script for the completion of a shell",
    ),
    planned("defrag", "defrag", "Compacts the file of a data directory").with_flags(&[Flag::new(
        "data-dir",
        Kind::Text,
        "data directory that no server uses; required",
    )]),
    planned("hashkv", "hashkv <filename>", "Prints the hash of the keys and values of a file")
        .with_flags(&[Flag::new("rev", Kind::Int, "hash up to this revision (0 means the newest)")]),
    planned("migrate", "migrate", "Changes a data directory for another version").with_flags(&[
        Flag::new("data-dir", Kind::Text, "data directory that no server uses; required"),
        Flag::new("target-version", Kind::Text, "version to change it for, as X.Y; required"),
        Flag::new("force", Kind::Bool, "change the version even if that fails"),
    ]),
    Command::group_of(
        "snapshot",
        "snapshot <subcommand>",
        "Snapshot related commands",
        "Snapshot related commands",
        &[
            planned(
                "restore",
                "restore <filename> --data-dir {output dir} [options]",
                "Makes a data directory from a snapshot",
            )
            .with_flags(RESTORE_FLAGS),
            planned("status", "status <filename>", "Prints what a snapshot holds"),
        ],
    ),
];

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
