//! etcdctl: its commands, one file each, and what they share.

mod alarm;
mod auth;
pub mod check;
mod child;
mod compaction;
mod defrag;
mod del;
mod downgrade;
mod elect;
mod endpoint;
mod get;
mod globals;
mod lease;
mod lock;
mod make_mirror;
mod member;
mod move_leader;
mod options;
mod password;
mod put;
mod range_end;
mod role;
mod session;
mod signals;
mod snapshot;
mod txn;
mod user;
mod version;
mod watch;
mod words;

use crate::command::{App, Command};
use crate::completion;

const KEYS: &str = "Key-value commands";
const CLUSTER: &str = "Cluster maintenance commands";
const CONCURRENCY: &str = "Concurrency commands";
const AUTH: &str = "Authentication commands";
const UTILITY: &str = "Utility commands";

/// The program.
pub static APP: App = App {
    name: "etcdctl",
    about: "A simple command line client for etcd3.",
    groups: &[KEYS, CLUSTER, CONCURRENCY, AUTH, UTILITY],
    commands: COMMANDS,
    flags: globals::FLAGS,
    flags_hidden: true,
    trailer: "Use \"etcdctl options\" for a list of global command-line options (applies to all commands).",
    errors_twice: false,
};

/// In etcdctl's order, in which it also suggests names.
static COMMANDS: &[Command] = &[
    get::COMMAND.under(KEYS),
    put::COMMAND.under(KEYS),
    del::COMMAND.under(KEYS),
    txn::COMMAND.under(KEYS),
    compaction::COMMAND.under(KEYS),
    alarm::COMMAND.under(CLUSTER),
    defrag::COMMAND.under(CLUSTER),
    endpoint::COMMAND.under(CLUSTER),
    move_leader::COMMAND.under(CLUSTER),
    watch::COMMAND.under(KEYS),
    version::COMMAND.under(UTILITY),
    lease::COMMAND.under(KEYS),
    member::COMMAND.under(CLUSTER),
    snapshot::COMMAND.under(CLUSTER),
    make_mirror::COMMAND.under(UTILITY),
    lock::COMMAND.under(CONCURRENCY),
    elect::COMMAND.under(CONCURRENCY),
    auth::COMMAND.under(AUTH),
    user::COMMAND.under(AUTH),
    role::COMMAND.under(AUTH),
    check::COMMAND.under(UTILITY),
    completion::COMMAND.under(UTILITY),
    downgrade::COMMAND.under(CLUSTER),
    options::COMMAND.under(UTILITY),
];
