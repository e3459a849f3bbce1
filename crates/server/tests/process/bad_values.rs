//! Every flag with every kind of bad value: what etcd 3.7.1 says to it and exits with is recorded in `bad_values.tsv`, and
//! what ours does is compared.
//!
//! `cargo xtask bad-values --etcd PATH` records from a real etcd. A value that is taken ends with the last thing that is
//! wrong with the command line: a cluster without this member.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use server::config::settings::{SETTINGS, Setting, Status};
use server::config::value::Kind;

use crate::place::etcd;

const RECORDED: &str = include_str!("bad_values.tsv");
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/bad_values.tsv");

/// A process that goes on for so long has taken the value and found nothing wrong.
const RUNS: Duration = Duration::from_secs(20);
const THREADS: usize = 4;

/// Settings that are good but for the last one.
const BASE: [&str; 6] = [
    "--data-dir=data",
    "--listen-client-urls=http://127.0.0.1:0",
    "--advertise-client-urls=http://127.0.0.1:1",
    "--listen-peer-urls=http://127.0.0.1:0",
    "--initial-advertise-peer-urls=http://127.0.0.1:2",
    "--initial-cluster=nobody=http://127.0.0.1:2",
];

/// Where ours says something else on purpose: flag, value (`*` for any), why.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("max-txn-ops", "4294967296", "bounds above 4 GiB are refused"),
    ("max-request-bytes", "4294967296", "bounds above 4 GiB are refused"),
    ("discovery-endpoints", "", "an empty text is what it is without the flag, and that works"),
    ("auth-token", "x", "said before anything is bound; etcd says it once it knows its cluster"),
    ("listen-metrics-urls", "http://127.0.0.1:99999", "bound before the member is there; by etcd after"),
    ("listen-metrics-urls", "https://127.0.0.1:0", "checked before the member is there; by etcd after"),
    ("log-level", "x", "etcd panics"),
];

/// How a value is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Flag,
    /// Nothing follows the flag.
    Bare,
    Variable,
}

#[derive(Clone, Debug)]
struct Case {
    setting: &'static Setting,
    how: How,
    value: &'static str,
}

/// What a run said: its exit code, and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    code: String,
    text: String,
}

fn values(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Text => &["", "x"],
        Kind::Bool => &["", "x", "2", "yes"],
        Kind::Uint | Kind::Uint32 | Kind::Int => {
            &["", "x", "-1", "1.5", "0x", "1e3", "4294967296", "99999999999999999999", "0"]
        }
        Kind::Duration => &["", "x", "5", "-5s", "5 s", "1d", "99999999999999h", "0s"],
        Kind::Urls | Kind::Origins => &[
            "",
            "x",
            "127.0.0.1:1",
            "http://127.0.0.1",
            "http://127.0.0.1:x",
            "http://127.0.0.1:99999",
            "ftp://127.0.0.1:1",
            "http://127.0.0.1:1/x",
            "http://example.com:1",
            "http://:1",
            "http://[::1",
            "http://a b:1",
            "http://127.0.0.1:0,",
            "https://127.0.0.1:0",
        ],
        Kind::List => &["", ",", "x"],
        Kind::Choice(_) | Kind::Choices(_) => &["", "x", ","],
        Kind::Gates => &["x", "x=true", "AllAlpha", "AllAlpha=x", "=", ",", "AllAlpha=true,AllAlpha"],
        Kind::Ignored => &["", "x"],
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let theirs = |setting: &&Setting| !setting.name.starts_with("quorate-") && setting.name != "check-config";
    for setting in SETTINGS.iter().filter(theirs) {
        let mut add = |how, value| cases.push(Case { setting, how, value });
        for value in values(setting.kind) {
            add(How::Flag, *value);
        }
        if !setting.kind.is_bool() {
            add(How::Bare, "");
        }
        let by_variable = setting.is_known() && !matches!(setting.name, "version" | "config-file");
        if by_variable && !BASE.iter().any(|flag| flag.starts_with(&format!("--{}=", setting.name))) {
            add(How::Variable, if setting.kind == Kind::Gates { "x=true" } else { "x" });
        }
    }
    cases
}

impl Case {
    fn key(&self) -> String {
        format!("{}\t{:?}\t{:?}", self.setting.name, self.how, self.value)
    }

    fn run(&self, command: impl Fn(&Path, &[&str], &[(&str, &str)]) -> Command) -> Said {
        let dir = tempfile::tempdir().unwrap();
        let flag = format!("--{}", self.setting.name);
        let given = format!("{flag}={}", self.value);
        let variable = self.setting.variable();
        let mut args: Vec<&str> = BASE.to_vec();
        let mut variables = Vec::new();
        match self.how {
            How::Flag => args.push(&given),
            How::Bare => args.push(&flag),
            How::Variable => variables.push((&*variable, self.value)),
        }
        let err = dir.path().join("stderr");
        let mut command = command(dir.path(), &args, &variables);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&err).unwrap());
        let mut child = command.spawn().unwrap();
        let began = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if began.elapsed() > RUNS => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break None;
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let err = String::from_utf8_lossy(&std::fs::read(&err).unwrap()).into_owned();
        let code = status.map_or("runs".to_owned(), |status| {
            status.code().map_or("signal".to_owned(), |code| code.to_string())
        });
        Said { text: reason(&err).replace(['\t', '\n'], " "), code }
    }
}

/// The `error` of the last line of the log that has one, or else what the first line says.
fn reason(err: &str) -> String {
    let of_line = |line: &str, field: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(line.get(field)?.as_str()?.to_owned())
    };
    let first = err.lines().next().unwrap_or_default();
    let text = err.lines().rev().find_map(|line| of_line(line, "error")).or_else(|| of_line(first, "msg"));
    without_chosen_port(text.unwrap_or_else(|| first.to_owned()))
}

/// Port 0 is another one in each run.
fn without_chosen_port(text: String) -> String {
    const HOST: &str = "127.0.0.1:";
    let Some(at) = text.find(HOST).map(|at| at + HOST.len()) else { return text };
    let digits = text[at..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - at);
    if digits < 5 {
        return text;
    }
    format!("{}0{}", &text[..at], &text[at + digits..])
}

/// Runs all cases, some at a time; in their order.
fn run_all(cases: &[Case], command: impl Fn(&Path, &[&str], &[(&str, &str)]) -> Command + Sync) -> Vec<Said> {
    let next = Mutex::new(0..cases.len());
    let said = Mutex::new(vec![None; cases.len()]);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let at = next.lock().unwrap().next();
                    let Some(at) = at else { return };
                    let one = cases[at].run(&command);
                    said.lock().unwrap()[at] = Some(one);
                }
            });
        }
    });
    said.into_inner().unwrap().into_iter().map(Option::unwrap).collect()
}

/// Whether ours may say this: it is a flag of a later version, which etcd takes.
fn is_later(case: &Case, theirs: &Said, ours: &Said) -> bool {
    let refusal = format!("--{} is not yet supported by Quorate ", case.setting.name);
    let is_taken = theirs.code == "runs" || theirs.text.starts_with("couldn't find local name");
    case.setting.status == Status::Later && is_taken && ours.code == "1" && ours.text.starts_with(&refusal)
}

#[test]
fn every_flag_says_to_every_bad_value_what_etcds_says() {
    let cases = cases();
    let recorded: Vec<&str> = RECORDED.lines().skip(1).collect();
    assert_eq!(recorded.len(), cases.len(), "bad_values.tsv is of other cases: record it anew");
    let ours = run_all(&cases, etcd);
    let mut differences = String::new();
    let mut used = vec![false; DIFFERENT.len()];
    for ((case, line), ours) in cases.iter().zip(recorded).zip(ours) {
        let (key, theirs) = split(line);
        assert_eq!(key, case.key(), "bad_values.tsv is of other cases: record it anew");
        if ours == theirs || is_later(case, &theirs, &ours) {
            continue;
        }
        let fits = |(flag, value, _): &(&str, &str, &str)| {
            *flag == case.setting.name && (*value == "*" || *value == case.value)
        };
        match DIFFERENT.iter().position(fits) {
            Some(at) => used[at] = true,
            None => {
                let _ = writeln!(
                    differences,
                    "{key}\n  etcd {} {}\n  ours {} {}",
                    theirs.code, theirs.text, ours.code, ours.text
                );
            }
        }
    }
    assert!(differences.is_empty(), "{} cases differ:\n{differences}", differences.lines().count() / 3);
    let unused: Vec<_> = DIFFERENT.iter().zip(used).filter(|(_, used)| !used).map(|(one, _)| one).collect();
    assert!(unused.is_empty(), "these do not differ: {unused:?}");
}

fn split(line: &str) -> (String, Said) {
    let mut columns = line.splitn(5, '\t');
    let mut next = || columns.next().expect("five columns").to_owned();
    let key = [next(), next(), next()].join("\t");
    (key, Said { code: next(), text: next() })
}

/// Writes `bad_values.tsv` from the etcd that `QUORATE_ETCD` names.
#[test]
#[ignore = "needs a real etcd 3.7.1: cargo xtask bad-values"]
fn record() {
    let program = std::env::var("QUORATE_ETCD").expect("QUORATE_ETCD names an etcd");
    let cases = cases();
    let said = run_all(&cases, |dir, args, variables| {
        let mut command = Command::new(&program);
        command.env_clear().args(args).current_dir(dir).envs(variables.iter().copied());
        command
    });
    let mut out = String::from("flag\thow\tvalue\texit code\treason\n");
    for (case, Said { code, text }) in cases.iter().zip(said) {
        let _ = writeln!(out, "{}\t{code}\t{text}", case.key());
    }
    std::fs::write(FILE, out).unwrap();
}
