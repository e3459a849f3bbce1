//! `defrag`: asks endpoints to give space back, one after the other.

use std::time::Instant;

use super::endpoint::endpoint_configs;
use super::session::{Session, cause_line, deadline};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Kind};
use crate::gotext;

pub(super) const COMMAND: Command =
    Command::new("defrag", "defrag", "Compacts the files of the endpoints", run)
        .with_inherited(&[Flag::new("cluster", Kind::Bool, "all endpoints of the cluster's members")]);

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let session = Session::open(call)?;
    let mut failure = Ok(());
    for (endpoint, config) in endpoint_configs(call, &session)? {
        let mut started = Instant::now();
        let result = session.ask(config, async |client| {
            started = Instant::now();
            client.defragment(deadline(call)).await
        })?;
        let took = gotext::duration(i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX));
        match result {
            Ok(_) => {
                writeln!(call.world.out, "Finished defragmenting etcd member[{endpoint}]. took {took}")?;
            }
            Err(error) => {
                write!(call.world.err, "{}", cause_line(&error))?;
                writeln!(
                    call.world.err,
                    "Failed to defragment etcd member[{endpoint}]. took {took}. ({error})"
                )?;
                failure = Err(Failure::silent(exit::ERROR));
            }
        }
    }
    failure
}
