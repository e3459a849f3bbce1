//! `watch`: prints changes as they happen, and runs a command for each.

mod follow;
mod lines;
mod request;

use client::WatchKey;

use self::follow::Followers;
use self::lines::Lines;
use self::request::{Asked, Variables};
use super::session::Session;
use super::words::words;
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Flags, Kind};

pub(super) const COMMAND: Command = Command::new(
    "watch",
    "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    "Prints changes of keys as they happen",
    run,
)
.with_long(LONG)
.with_flags(FLAGS);

const LONG: &str = "Prints changes of a key, an interval or a prefix as they happen, also those since a revision.

The key and the range_end can also be given by the variables ETCDCTL_WATCH_KEY and ETCDCTL_WATCH_RANGE_END.

With a command after --, runs it for each change. It finds the change in ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE,
ETCD_WATCH_KEY and ETCD_WATCH_VALUE.

With -i, reads lines from standard input: watch and its arguments, which adds a watch, or progress, which asks how far
the watches are.";

static FLAGS: &[Flag] = &[
    Flag::new("interactive", Kind::Bool, "read commands from standard input").short('i'),
    Flag::new("prefix", Kind::Bool, "all keys that begin with the key"),
    Flag::new("rev", Kind::Int, "revision to begin at"),
    Flag::new("prev-kv", Kind::Bool, "also the pairs as they were before"),
    Flag::new("progress-notify", Kind::Bool, "ask for progress reports"),
];

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let variables = Variables::read(&call.world.variables)?;
    if call.flags.bool("interactive") {
        let session = Session::open(call)?;
        let followers = Followers::new(session.client()?, session.printer);
        return session.wait(interactive(call, followers, &variables));
    }
    let asked = Asked::read(&call.flags, &call.args, &variables, false)?;
    let session = Session::open(call)?;
    let request = asked.request(&call.flags).map_err(|text| Failure::new(exit::BAD_ARGS, text))?;
    let mut followers = Followers::new(session.client()?, session.printer);
    session.wait(async {
        followers.add(request, asked.command)?;
        while followers.step(&mut call.world).await? {}
        Err(Failure::new(exit::INTERRUPTED, "watch is canceled by the server"))
    })
}

/// Ends with the input, if nothing ends it before.
async fn interactive(
    call: &mut Invocation<'_>,
    mut followers: Followers,
    variables: &Variables,
) -> Result<(), Failure> {
    let mut lines = Lines::read(std::mem::replace(&mut call.world.input, Box::new(std::io::empty())))?;
    // etcdctl reads the next line when the watch of the last one is made.
    let mut awaited: Option<WatchKey> = None;
    loop {
        if awaited.is_some_and(|watch| followers.is_made(watch)) {
            awaited = None;
        }
        let line = tokio::select! {
            biased;
            more = followers.step(&mut call.world), if !followers.is_idle() => {
                more?;
                continue;
            }
            line = lines.next(), if awaited.is_none() => line?,
        };
        let words = words(&line)?;
        let mut complain = |what: &[u8], note: &str| -> Result<(), Failure> {
            call.world.err.write_all(&[what, b" ", &line, b" ", note.as_bytes(), b"\n"].concat())?;
            Ok(call.world.err.flush()?)
        };
        match words.first().map(Vec::as_slice) {
            None => complain(b"Invalid command:", "(watch and progress supported)")?,
            Some(b"watch") if words.len() < 2 && variables.key.is_empty() => {
                complain(b"Invalid command", "(command type or key is not provided)")?;
            }
            Some(b"watch") => {
                // Each line has its own flags; those of the command line do not count.
                let mut flags = Flags::new(FLAGS);
                let asked = Asked::parse(&mut flags, &words[1..], variables)?;
                match asked.request(&flags) {
                    Ok(request) => awaited = Some(followers.add(request, asked.command)?),
                    Err(text) => complain(b"Invalid command", &format!("({text})"))?,
                }
            }
            Some(b"progress") => followers.request_progress(),
            Some(_) => complain(b"Invalid command", "(only support watch)")?,
        }
    }
}
