//! The table of settings against etcd's own list (`server_flags.tsv`: flag, variable, default), and the document
//! made of it.

use std::fmt::Write as _;

use server::config::gates::{GATES, MEANINGS};
use server::config::notes::note;
use server::config::settings::{Group, SETTINGS, Status};

const ETCD: &str = include_str!("server_flags.tsv");

/// Defaults in the list carry remarks: `0s -> 100ms` is 0s in the parser, a bracket explains.
fn plain(default: &str) -> &str {
    let default = default.split(" -> ").next().unwrap_or_default();
    let default = default.split(" (").next().unwrap_or_default();
    if default == "\"\"" { "" } else { default }
}

#[test]
fn the_table_is_etcds() {
    let mut seen = Vec::new();
    for line in ETCD.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let name = columns[0].strip_prefix("--").expect("a flag");
        let setting =
            SETTINGS.iter().find(|s| s.name == name).unwrap_or_else(|| panic!("--{name} is missing"));
        seen.push(name);
        if columns[1] == "(none)" {
            assert_eq!(setting.status, Status::Removed, "--{name}");
            continue;
        }
        let variable = columns[1].split(' ').next().unwrap_or_default();
        assert_eq!(setting.variable(), variable, "--{name}");
        assert_eq!(setting.default, plain(columns[2]), "--{name}");
    }
    // Settings of our own are called so that no later etcd has one of the same name; this one does something instead of
    // a start, and is of the command line alone.
    let ours = SETTINGS.iter().map(|s| s.name).filter(|name| !seen.contains(name));
    let unmarked: Vec<&str> =
        ours.filter(|name| !name.starts_with("quorate-") && *name != "check-config").collect();
    assert!(unmarked.is_empty(), "not in etcd: {unmarked:?}");
}

/// `UPDATE=1 cargo test -p quorate-server --test settings` writes the document anew.
#[test]
fn the_document_is_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating/configuration.md");
    let made = document();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/operating/configuration.md is not of this table: run this test with UPDATE=1"
    );
}

fn document() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Made from the table of settings by `UPDATE=1 cargo test -p quorate-server --test settings`. -->\n\n\
         Settings have etcd's names, syntax and defaults. Each is a flag, with one dash or two \
         (`--name x`, `-name=x`), or a variable: `ETCD_` and the name in upper case with underscores (`ETCD_NAME=x`). \
         A flag and its variable together are refused, as in etcd; an `ETCD_` variable that belongs to no flag gets \
         a warning.\n\n\
         A flag marked *later* is known but does not work in this version: given with its default value it is \
         accepted, with any other value the server refuses to start and names it with the reason, all such settings at once. \
         One that has nothing to act on here is accepted with a warning. No flag is silently ignored. \
         `etcd grpc-proxy` is refused in the same way, and so is `--discovery-srv` of `etcd gateway`.\n\n\
         Exit codes: 0 for `--help`, `--version` and a member that was removed from its cluster; 1 for settings that \
         make no sense, a start that fails, and an error that ends the member; 2 for a command line that does not \
         parse and for a crash. SIGTERM and SIGINT end the process by that signal (as process 1: exit 0, or 2 \
         before it serves clients), during a start at once. Nobody has to read what is printed: \
         `etcd --check-config | head -1` has the same exit code.\n\n\
         ## Configuration file\n\n\
         `--config-file`, or `ETCD_CONFIG_FILE`, names a file in YAML or JSON. Its keys are the flags' names, with \
         etcd's types: URLs as one text with commas, durations as whole nanoseconds (`grpc-keepalive-interval: \
         10000000000`; `10s` is refused), `auto-compaction-retention` as a text; TLS under \
         `client-transport-security` and `peer-transport-security`, ports under `socket-options`. As in etcd, all \
         other flags and variables are then ignored, and so are keys that are none of etcd's. A key marked *later* \
         is refused unless it has its default.\n\n\
         ## Before a start\n\n\
         `etcd --check-config`, with the settings of the start, says what is wrong with them, with certificates, \
         addresses, outputs of the log and the data directory, and what the start would do: begin a cluster and with \
         which ids, join one, go on as the member that is there, take over a directory of etcd's, make certificates. It \
         makes and changes nothing, asks no other member, and is of the command line alone. Exit code 0 if the start would \
         succeed, as far as can be known, else 1. Beside a running member it finds that one's addresses and directory in \
         use. Warnings that a start would log are on stderr.\n",
    );
    out.push_str(
        "\n## Feature gates\n\n`--feature-gates` takes these, as `Name=true,Other=false`; those marked *later* are refused by \
         name if they are switched.\n\n| gate | default | stage | status | switches |\n|---|---|---|---|---|\n",
    );
    for (gate, (_, meaning)) in GATES.iter().zip(MEANINGS) {
        let status = if gate.works { "works" } else { "later" };
        let stage = format!("{:?}", gate.stage).to_lowercase();
        let _ = writeln!(out, "| `{}` | {} | {stage} | {status} | {meaning} |", gate.name, gate.default);
    }
    for group in Group::ALL {
        let mut lines = SETTINGS.iter().filter(|s| s.group == group).peekable();
        if lines.peek().is_none() {
            continue;
        }
        let title = if group == Group::Ignored { "Accepted without effect" } else { group.title() };
        let _ = write!(out, "\n## {title}\n\n| flag | default | status | meaning |\n|---|---|---|---|\n");
        for setting in lines {
            let status = match setting.status {
                Status::Works => "works".to_owned(),
                Status::Later => format!("later: {}", note(setting.name)),
                Status::Inert => format!("no effect, with a warning: {}", note(setting.name)),
                Status::Dropped | Status::Ignored => "no effect, as in etcd".to_owned(),
                Status::Removed => "unknown, as in etcd".to_owned(),
            };
            let default =
                if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
            let _ = writeln!(out, "| `--{}` | {default} | {status} | {} |", setting.name, setting.help);
        }
    }
    out
}
