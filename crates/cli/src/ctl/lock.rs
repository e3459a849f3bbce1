//! `lock`: takes a lock and holds it, until a signal or for as long as a command runs.

use client::concurrency::{Mutex, Session as LeaseSession};
use client::{Client, Deadline};
use wire::etcdserverpb::RangeRequest;

use super::session::{Session, call_failed};
use super::signals::{Signals, canceled};
use super::{child, globals};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Kind};

pub(super) const COMMAND: Command =
    Command::new("lock", "lock <lockname> [exec-command arg1 arg2 ...]", "Takes a lock", run)
        .with_long(LONG)
        .with_flags(&[Flag::new("ttl", Kind::Int, "time to live of the session, seconds").default("10")]);

const LONG: &str = "Takes a lock and prints its key, then holds it until SIGINT or SIGTERM.

With a command, holds it while the command runs, and ends with its exit code. The command finds the key in
ETCD_LOCK_KEY and the revision in ETCD_LOCK_REV. A command with flags wants a -- before it.";

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    if call.args.is_empty() {
        let text = "lock takes a lock name argument and an optional command to execute";
        return Err(Failure::new(exit::BAD_ARGS, text));
    }
    let session = Session::open(call)?;
    let client = session.client()?;
    session.wait(hold(call, &session, &client))
}

async fn hold(call: &mut Invocation<'_>, session: &Session, client: &Client) -> Result<(), Failure> {
    let ttl_s = call.flags.int("ttl");
    if ttl_s <= 0 {
        let text = "WithTTL(): TTL should be > 0, preserving current TTL";
        let line = globals::log_line("warn", &[("logger", "etcd-client"), ("msg", text)]);
        call.world.err.write_all(line.as_bytes())?;
    }
    let lease = LeaseSession::new(client, ttl_s).await.map_err(call_failed)?;
    let mut signals = Signals::take()?;
    let mut mutex = Mutex::new(&lease, &call.args[0]);
    let locked = tokio::select! {
        locked = mutex.lock() => Some(locked),
        () = signals.next() => None,
    };
    match locked {
        Some(locked) => locked.map_err(call_failed)?,
        None => {
            // Without a place in the queue there is nothing to give up; otherwise it goes with the lease at the latest.
            let _ = mutex.unlock().await;
            return Err(canceled());
        }
    }
    let key = mutex.key().expect("a lock that is held has a key").clone();

    let command = &call.args[1..];
    if !command.is_empty() {
        let revision = mutex.header().revision.to_string().into_bytes();
        // The process's own variables win, as in etcdctl.
        let mut variables = vec![("ETCD_LOCK_KEY", key.to_vec()), ("ETCD_LOCK_REV", revision)];
        variables.retain(|(name, _)| !call.world.variables.iter().any(|(known, _)| known == name));
        let ended = child::run(command, variables).await;
        let unlocked = mutex.unlock().await;
        ended.map_err(|reason| Failure::new(reason.code(), &reason))?;
        return unlocked.map_err(call_failed);
    }

    let request = RangeRequest { key, ..RangeRequest::default() };
    let answer = client.range(request, Deadline::NEVER).await.map_err(call_failed)?;
    if answer.kvs.is_empty() {
        return Err(Failure::new(exit::ERROR, "lock lost on init"));
    }
    session.printer.range(call.world.out, &answer)?;
    call.world.out.flush()?;
    tokio::select! {
        () = signals.next() => mutex.unlock().await.map_err(call_failed),
        () = lease.done() => Err(Failure::new(exit::ERROR, "session expired")),
    }
}
