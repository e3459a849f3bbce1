//! `move-leader`: has the leader, which must be among the endpoints, hand over.

use client::Config;

use super::session::{Session, call_failed, deadline, not_made};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::gotext;

pub(super) const COMMAND: Command =
    Command::new("move-leader", "move-leader <transferee-member-id>", "Makes another member the leader", run);

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let [text] = call.args.as_slice() else {
        return Err(Failure::new(exit::BAD_ARGS, "move-leader command needs 1 argument"));
    };
    let target = gotext::parse_uint(text, 16).map_err(|reason| Failure::new(exit::BAD_ARGS, reason))?;
    let session = Session::open(call)?;
    // It tells whether all of them can be read, and who asks.
    session.client()?;
    let deadline = deadline(call);
    for endpoint in session.config.endpoints.clone() {
        let config = Config { endpoints: vec![endpoint], ..session.config.clone() };
        let client = session.connect(config).map_err(not_made)?;
        let status = session.wait(client.status(deadline)).map_err(call_failed)?;
        let leader = status.header.map_or(0, |header| header.member_id);
        if status.leader == leader {
            let answer = session.wait(client.move_leader(target, deadline)).map_err(call_failed)?;
            return session.printer.move_leader(call.world.out, (leader, target), &answer);
        }
    }
    let given = call.flags.list("endpoints").join(" ");
    Err(Failure::new(exit::BAD_ARGS, format!("no leader endpoint given at [{given}]")))
}
