//! Clusters in which some members are run by Go's etcd and some by ours: every path between them, the swap there and
//! back under load, snapshots, disturbances, versions, and the answers of both compared.
//!
//! Each scenario is a test and says what it has checked. They need real etcds: `cargo xtask mixed --go-etcd PATH` runs
//! them, `--only NAME` some of them.

mod auth;
mod differential;
mod differential_auth;
mod disturbed;
mod guide;
mod histories;
mod load;
mod paths;
mod requests;
mod snapshots;
mod swap;
mod users;
mod versions;

use std::path::{Path, PathBuf};
use std::process::Command;

use blackbox::{Cluster, Random, binary, client_of, patience};
use client::Client;
use wire::etcdserverpb::{PutRequest, RangeRequest};

/// Ours.
fn ours() -> PathBuf {
    binary("etcd")
}

/// Go's etcd of our version.
fn go() -> PathBuf {
    named("QUORATE_GO_ETCD", "--go-etcd")
}

/// And of the version before.
fn go_36() -> PathBuf {
    named("QUORATE_GO_ETCD_36", "--go-etcd-36")
}

fn named(variable: &str, flag: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    path.unwrap_or_else(|| panic!("this scenario needs cargo xtask mixed {flag} PATH")).into()
}

/// A number that `cargo xtask mixed` was given.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

fn say(text: impl AsRef<str>) {
    println!("  {}", text.as_ref());
}

/// How a member is called in what is said.
fn kind(program: &Path) -> &'static str {
    if program == ours() { "ours" } else { "Go's" }
}

fn kinds(programs: &[PathBuf]) -> String {
    programs.iter().map(|program| kind(program)).collect::<Vec<_>>().join(", ")
}

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

fn everything() -> RangeRequest {
    RangeRequest { key: b"\0".as_slice().into(), range_end: b"\0".as_slice().into(), ..Default::default() }
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A client of all members, which begins with this one.
fn client_of_all(cluster: &Cluster, first: usize) -> Client {
    let count = cluster.members.len();
    let places = (first..first + count).map(|place| place % count);
    let endpoints: Vec<String> = places.map(|place| cluster.members[place].endpoint()).collect();
    client_of(&endpoints, cluster.token())
}

/// All but some.
fn others(cluster: &Cluster, some: &[usize]) -> Vec<usize> {
    (0..cluster.members.len()).filter(|place| !some.contains(place)).collect()
}

/// Waits until every one of these members has a write of its own done.
async fn all_write(cluster: &Cluster, places: &[usize]) {
    for place in places {
        cluster.put(*place, &format!("all {place}"), "v").await;
    }
}

/// Random values, so that they do not shrink.
fn value(random: &mut Random, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| random.below(256) as u8).collect()
}

/// What Go's etcd logs as errors, or outside of its log, in a cluster of its own as well.
const USUAL: [&str; 3] = [
    // Each stop by SIGTERM: its listeners are closed.
    "setting up serving from embedded etcd failed.",
    // A new cluster has agreed on its version before a member's file says of which term it is.
    "cannot detect storage schema version: missing term information",
    // gRPC's own: an answer to a client that is gone.
    " WARNING: [core] ",
];

/// Go's etcd, when it is stopped with authentication on while a lease is renewed through it, may look for the user in data
/// that it has closed.
const OF_A_STOP: &str = "go.etcd.io/etcd/server/v3/etcdserver.(*EtcdServer).checkLeaseRenew(";

/// Of a line of a log; Go's go on with a trace of the stack.
const SHOWN_CHARACTERS: usize = 400;

/// Fails if a log has a line worse than a warning, but those with one of these texts, or a Go program's last words.
fn check_logs(cluster: &Cluster, allowed: &[String]) {
    for member in &cluster.members {
        check_errors(member.name(), member.errors(), allowed);
    }
}

fn check_errors(name: &str, mut errors: Vec<String>, allowed: &[String]) {
    let count = |text: &str| errors.iter().filter(|line| line.starts_with(text)).count();
    // Its last words, each time.
    if count(OF_A_STOP) > 0 && count("panic: ") == count(OF_A_STOP) {
        errors.retain(|line| line.starts_with('{'));
    }
    errors.retain(|line| {
        let mut allowed = USUAL.into_iter().chain(allowed.iter().map(String::as_str));
        !allowed.any(|text| line.contains(text))
    });
    let shown: Vec<String> =
        errors.iter().map(|line| line.chars().take(SHOWN_CHARACTERS).collect()).collect();
    assert!(errors.is_empty(), "the log of {name}:\n{}", shown.join("\n"));
}

/// Runs a tool of ours, which must succeed.
fn tool(name: &str, args: &[&str]) -> String {
    let output = Command::new(binary(name)).args(args).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until a question is answered with yes.
async fn until<F: Future<Output = bool>>(what: &str, mut question: impl FnMut() -> F) {
    let deadline = patience();
    while !question().await {
        assert!(deadline.remaining().is_some_and(|left| !left.is_zero()), "never: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
