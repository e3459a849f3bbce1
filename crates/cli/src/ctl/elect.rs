//! `elect`: leads once elected, or watches who leads.

use bytes::Bytes;
use client::concurrency::{Election, Session as LeaseSession};
use client::{Client, Deadline};
use wire::etcdserverpb::RangeRequest;

use super::session::{Session, call_failed};
use super::signals::{Signals, canceled};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Kind};

pub(super) const COMMAND: Command = Command::new(
    "elect",
    "elect <election-name> [proposal]",
    "Takes part in an election, or watches one",
    run,
)
.with_long(LONG)
.with_flags(&[Flag::new("listen", Kind::Bool, "watch the election").short('l')]);

const LONG: &str =
    "With a proposal, waits to be elected, prints its key and proposal, and leads until SIGINT or SIGTERM.
With -l, prints the key and proposal of each leader until SIGINT or SIGTERM.";

/// The time to live of the session, seconds.
const TTL_S: i64 = 60;

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let bad = |text: &str| Err(Failure::new(exit::BAD_ARGS, text));
    if !matches!(call.args.len(), 1 | 2) {
        return bad("elect takes one election name argument and an optional proposal argument");
    }
    let session = Session::open(call)?;
    let client = session.client()?;
    let (proposal, listen) = (call.args.get(1).cloned(), call.flags.bool("listen"));
    match (proposal, listen) {
        (None, false) => bad("no proposal argument but -l not set"),
        (Some(_), true) => bad("proposal given but -l is set"),
        (None, true) => session.wait(observe(call, &session, &client)),
        (Some(proposal), false) => session.wait(campaign(call, &session, &client, proposal.into())),
    }
}

async fn observe(call: &mut Invocation<'_>, session: &Session, client: &Client) -> Result<(), Failure> {
    let lease = LeaseSession::new(client, TTL_S).await.map_err(call_failed)?;
    let mut signals = Signals::take()?;
    let mut observer = Election::new(&lease, &call.args[0]).observe();
    loop {
        let leader = tokio::select! {
            leader = observer.next() => leader,
            () = signals.next() => return Ok(()),
        };
        // Why is not told, as in etcdctl.
        let leader = leader.map_err(|_| Failure::new(exit::ERROR, "elect: observer lost"))?;
        session.printer.range(call.world.out, &leader)?;
        call.world.out.flush()?;
    }
}

async fn campaign(
    call: &mut Invocation<'_>,
    session: &Session,
    client: &Client,
    proposal: Bytes,
) -> Result<(), Failure> {
    let lease = LeaseSession::new(client, TTL_S).await.map_err(call_failed)?;
    let mut signals = Signals::take()?;
    let mut election = Election::new(&lease, &call.args[0]);
    let elected = tokio::select! {
        elected = election.campaign(proposal) => Some(elected),
        () = signals.next() => None,
    };
    match elected {
        Some(elected) => elected.map_err(call_failed)?,
        None => {
            // The candidacy ends with the lease at the latest.
            let _ = election.resign().await;
            return Err(canceled());
        }
    }
    let key = election.key().expect("a leader has a key").clone();
    let request = RangeRequest { key, ..RangeRequest::default() };
    let answer = client.range(request, Deadline::NEVER).await.map_err(call_failed)?;
    session.printer.range(call.world.out, &answer)?;
    call.world.out.flush()?;
    tokio::select! {
        () = signals.next() => election.resign().await.map_err(call_failed),
        () = lease.done() => Err(Failure::new(exit::ERROR, "elect: session expired")),
    }
}
