//! `check perf` and `check datascale`: load on a cluster, and what comes of it.

pub mod datascale;
pub mod perf;

mod after;
mod load;
mod progress;
mod report;

use client::{Client, Deadline, prefix_range};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use wire::etcdserverpb::RangeRequest;

use super::session::{Session, call_failed, not_made};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Kind};

const LOAD: Flag = Flag::new("load", Kind::Text, "size of the load: s, m, l or xl").default("s");
const PREFIX: Flag = Flag::new("prefix", Kind::Text, "prefix of the keys that are written");
const COMPACT: Flag = Flag::new("auto-compact", Kind::Bool, "compact when done");
const DEFRAG: Flag = Flag::new("auto-defrag", Kind::Bool, "defragment when done");

pub(super) const COMMAND: Command = Command::group_of(
    "check",
    "check <subcommand>",
    "commands for checking properties of the etcd cluster",
    "commands for checking properties of the etcd cluster",
    &[
        Command::new("perf", "perf [options]", "Checks how fast a cluster takes writes", perf::run)
            .with_long(perf::LONG)
            .with_flags(&[LOAD, PREFIX.default("/etcdctl-check-perf/"), COMPACT, DEFRAG]),
        Command::new(
            "datascale",
            "datascale [options]",
            "Checks how much memory a server takes for keys",
            datascale::run,
        )
        .with_long(datascale::LONG)
        .with_flags(&[LOAD, PREFIX.default("/etcdctl-check-datascale/"), COMPACT, DEFRAG]),
    ],
);

/// The load that `--load` names, of the four that there are.
///
/// # Errors
/// [`exit::BAD_FEATURE`] for a name that is none.
fn chosen<'a, T>(call: &Invocation<'_>, loads: &'a [T; 4]) -> Result<&'a T, Failure> {
    match call.flags.text("load") {
        "s" | "small" => Ok(&loads[0]),
        "m" | "medium" => Ok(&loads[1]),
        "l" | "large" => Ok(&loads[2]),
        "xl" | "xLarge" => Ok(&loads[3]),
        other => Err(Failure::new(exit::BAD_FEATURE, format!("unknown load option {other}"))),
    }
}

/// So many clients, each with a connection of its own.
///
/// # Errors
/// When one cannot be made or log in.
fn clients(session: &Session, count: usize) -> Result<Vec<Client>, Failure> {
    // A thousand connections are more than many a shell allows; Go's runtime raises the limit at each start.
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Where that is refused, connections that cannot be made say so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    (0..count).map(|_| session.connect(session.config.clone()).map_err(not_made)).collect()
}

/// Refuses a prefix that is in use. `command`: as the text shows how to delete its keys.
///
/// # Errors
/// [`exit::INVALID_INPUT`] then; [`exit::ERROR`] when it cannot be found out.
fn check_unused(
    session: &Session,
    client: &Client,
    prefix: &str,
    command: &str,
    deadline: Deadline,
) -> Result<(), Failure> {
    let (key, range_end) = prefix_range(prefix.as_bytes());
    let request = RangeRequest { key, range_end, limit: 1, ..RangeRequest::default() };
    let answer = session.wait(client.range(request, deadline)).map_err(call_failed)?;
    if answer.kvs.is_empty() {
        return Ok(());
    }
    let quoted = crate::gotext::quote(prefix.as_bytes());
    Err(Failure::new(exit::INVALID_INPUT, format!("prefix {quoted} has keys. Delete with {command} first")))
}
