//! Commands and flags of both tools against those of etcd 3.7.1: none lacks, none has another kind or default, and none is
//! there that is not known to be ours.

use std::collections::BTreeSet;

use quorate_cli::app::{self, World};
use quorate_cli::command::{App, Command};
use quorate_cli::flag::{Flag, Kind};
use quorate_cli::{ctl, utl};

/// Command, flag, short form, kind, default; a line without a flag is a command.
const TABLE: &str = include_str!("flags.tsv");

/// What etcd's tools do not have.
const OURS: [&str; 8] = [
    "etcdutl defrag --wal-dir",
    "etcdutl migrate --wal-dir",
    "etcdutl check --data-dir",
    "etcdutl check --wal-dir",
    "etcdutl export-go --data-dir",
    "etcdutl export-go --wal-dir",
    "etcdutl export-go --out",
    "etcdutl export-go --target-version",
];

fn find(path: &[&str]) -> (&'static App, Option<&'static Command>) {
    let (program, names) = path.split_first().expect("a program");
    let app = if *program == "etcdctl" { &ctl::APP } else { &utl::APP };
    let mut commands = app.commands;
    let mut found = None;
    for name in names {
        let command = commands.iter().find(|c| c.name == *name).unwrap_or_else(|| panic!("{path:?}"));
        commands = command.commands;
        found = Some(command);
    }
    (app, found)
}

fn flags_of(app: &'static App, command: Option<&'static Command>) -> Vec<&'static Flag> {
    command.map_or(app.flags.iter().collect(), |c| c.flags.iter().chain(c.inherited).collect())
}

/// A value that the flag takes.
fn value(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "true",
        Kind::Text | Kind::List => "x",
        Kind::Int | Kind::Uint => "7",
        Kind::Duration => "1m0s",
    }
}

#[test]
fn every_flag_of_etcds_tools_is_taken() {
    for line in TABLE.lines() {
        let [path, name, short, kind, default] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let path: Vec<&str> = path.split(' ').collect();
        let (app, command) = find(&path);
        let Some(name) = name.strip_prefix("--") else { continue };
        let flags = flags_of(app, command);
        let flag = flags.iter().find(|flag| flag.name == name).unwrap_or_else(|| panic!("no {line}"));
        let short_here = flag.short.map(|short| format!("-{short}")).unwrap_or_default();
        assert_eq!(
            (&*format!("{:?}", flag.kind), flag.default, &*short_here),
            (kind, default, short),
            "{line}"
        );

        let given = format!("--{name}={}", value(flag.kind));
        let words = path[1..].iter().copied().chain([given.as_str(), "--help"]);
        let words: Vec<Vec<u8>> = words.map(|word| word.as_bytes().to_vec()).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let world = World::apart(&mut out, &mut err);
        app::run(app, &words, world).unwrap_or_else(|failure| panic!("{line}: {}", failure.message));
        let page = String::from_utf8(out).expect("text");
        let shows = page.contains(&format!("--{name} ")) || app.flags_hidden && command.is_none();
        assert!(shows, "the help names it: {line}\n{page}");
    }
}

#[test]
fn no_other_command_or_flag_is_there() {
    let known: BTreeSet<String> = TABLE
        .lines()
        .map(|line| line.split('\t').take(2).collect::<Vec<_>>().join(" ").trim().to_owned())
        .chain(OURS.map(str::to_owned))
        .collect();
    fn walk(path: &str, command: &'static Command, found: &mut Vec<String>) {
        let path = format!("{path} {}", command.name);
        if !command.is_beyond_etcd {
            found.push(path.clone());
        }
        found.extend(
            command.flags.iter().chain(command.inherited).map(|flag| format!("{path} --{}", flag.name)),
        );
        command.commands.iter().for_each(|inner| walk(&path, inner, found));
    }
    let mut found = Vec::new();
    for app in [&ctl::APP, &utl::APP] {
        found.extend(app.flags.iter().map(|flag| format!("{} --{}", app.name, flag.name)));
        app.commands.iter().for_each(|command| walk(app.name, command, &mut found));
    }
    let others: Vec<&String> = found.iter().filter(|name| !known.contains(*name)).collect();
    assert!(others.is_empty(), "{others:?}");
}
