//! `lease`: grant, revoke, timetolive and list.

use client::Deadline;
use wire::etcdserverpb::LeaseGrantRequest;

use super::planned::planned;
use super::session::{Session, call_failed_as, deadline};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Kind};
use crate::gotext;

pub(super) const COMMAND: Command = Command::group_of(
    "lease",
    "lease <subcommand>",
    "Lease related commands",
    "Lease related commands",
    &[
        Command::new("grant", "grant <ttl>", "Makes a lease", grant),
        Command::new("revoke", "revoke <leaseID>", "Ends a lease", revoke),
        Command::new(
            "timetolive",
            "timetolive <leaseID> [options]",
            "Prints what is left of a lease",
            time_to_live,
        )
        .with_flags(&[Flag::new("keys", Kind::Bool, "also the keys that are attached")]),
        Command::new("list", "list", "Lists the leases", list),
        planned("keep-alive", "keep-alive [options] <leaseID>", "Renews a lease again and again")
            .with_flags(&[Flag::new("once", Kind::Bool, "renew once")]),
    ],
);

fn grant(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let text = only_argument(call, "lease grant command needs TTL argument")?;
    let ttl = gotext::parse_int(text, 10)
        .map_err(|reason| Failure::new(exit::BAD_ARGS, format!("bad TTL ({reason})")))?;
    let session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    let request = LeaseGrantRequest { ttl, id: 0 };
    let answer = session.wait(client.grant(request, deadline)).map_err(|error| {
        call_failed_as(exit::ERROR, format_args!("failed to grant lease ({error})"), &error)
    })?;
    session.printer.lease_grant(call.world.out, &answer)
}

fn revoke(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let id = lease_id(only_argument(call, "lease revoke command needs 1 argument")?)?;
    let session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    let answer = session.wait(client.revoke(id, deadline)).map_err(|error| {
        call_failed_as(exit::ERROR, format_args!("failed to revoke lease ({error})"), &error)
    })?;
    session.printer.lease_revoke(call.world.out, id, &answer)
}

// The next two have no deadline, and the exit code of a failed connection, as in etcdctl.

fn time_to_live(call: &mut Invocation<'_>) -> Result<(), Failure> {
    only_argument(call, "lease timetolive command needs lease ID as argument")?;
    // Before the id is read, as in etcdctl.
    let session = Session::open(call)?;
    let client = session.client()?;
    let (id, keys) = (lease_id(&call.args[0])?, call.flags.bool("keys"));
    let answer = session
        .wait(client.time_to_live(id, keys, Deadline::NEVER))
        .map_err(|error| call_failed_as(exit::BAD_CONNECTION, &error, &error))?;
    session.printer.lease_time_to_live(call.world.out, &answer, keys)
}

fn list(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let session = Session::open(call)?;
    let client = session.client()?;
    let answer = session
        .wait(client.leases(Deadline::NEVER))
        .map_err(|error| call_failed_as(exit::BAD_CONNECTION, &error, &error))?;
    session.printer.leases(call.world.out, &answer)
}

fn only_argument<'a>(call: &'a Invocation<'_>, otherwise: &str) -> Result<&'a [u8], Failure> {
    match call.args.as_slice() {
        [only] => Ok(only),
        _ => Err(Failure::new(exit::BAD_ARGS, otherwise)),
    }
}

fn lease_id(text: &[u8]) -> Result<i64, Failure> {
    gotext::parse_int(text, 16).map_err(|reason| {
        Failure::new(exit::BAD_ARGS, format!("bad lease ID arg ({reason}), expecting ID in Hex"))
    })
}
