//! `compaction`: drops the history before a revision.

use wire::etcdserverpb::CompactionRequest;

use super::session::{Session, call_failed, deadline};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Kind};
use crate::gotext;

pub(super) const COMMAND: Command =
    Command::new("compaction", "compaction [options] <revision>", "Drops the history before a revision", run)
        .with_flags(&[Flag::new("physical", Kind::Bool, "wait until the history is gone from the files")]);

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let [revision] = call.args.as_slice() else {
        return Err(Failure::new(exit::BAD_ARGS, "compaction command needs 1 argument"));
    };
    let revision = gotext::parse_int(revision, 10).map_err(|reason| Failure::new(exit::ERROR, reason))?;
    let session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    let request = CompactionRequest { revision, physical: call.flags.bool("physical") };
    session.wait(client.compact(request, deadline)).map_err(call_failed)?;
    Ok(writeln!(call.world.out, "compacted revision {revision}")?)
}
