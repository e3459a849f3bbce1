//! What a check does when it is done.

use std::time::Duration;

use client::{Client, Config, Deadline, Error, prefix_range};
use wire::etcdserverpb::{CompactionRequest, DeleteRangeRequest};

use super::super::session::{Session, call_failed};
use crate::app::{Failure, Invocation};
use crate::gotext;

/// etcdctl's, for each of the steps.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// Deletes the keys of a prefix; says at which revision.
pub(super) fn delete(
    session: &Session,
    client: &Client,
    prefix: &str,
    deadline: Deadline,
) -> Result<i64, Error> {
    let (key, range_end) = prefix_range(prefix.as_bytes());
    let request = DeleteRangeRequest { key, range_end, prev_kv: false };
    let answer = session.wait(client.delete_range(request, deadline))?;
    Ok(answer.header.map_or(0, |header| header.revision))
}

/// Compacts up to this revision, and waits until the space is given back.
pub(super) fn compact(
    call: &mut Invocation<'_>,
    session: &Session,
    client: &Client,
    revision: i64,
) -> Result<(), Failure> {
    writeln!(call.world.out, "Compacting with revision {revision}")?;
    call.world.out.flush()?;
    let request = CompactionRequest { revision, physical: true };
    session.wait(client.compact(request, Deadline::after(TIMEOUT))).map_err(call_failed)?;
    Ok(writeln!(call.world.out, "Compacted with revision {revision}")?)
}

/// Defragments each endpoint.
pub(super) fn defragment(call: &mut Invocation<'_>, session: &Session) -> Result<(), Failure> {
    for endpoint in session.config.endpoints.clone() {
        let shown = gotext::quote(endpoint.to_string().as_bytes());
        writeln!(call.world.out, "Defragmenting {shown}")?;
        call.world.out.flush()?;
        let config = Config { endpoints: vec![endpoint], ..session.config.clone() };
        let done =
            session.ask(Ok(config), async |client| client.defragment(Deadline::after(TIMEOUT)).await)?;
        done.map_err(call_failed)?;
        writeln!(call.world.out, "Defragmented {shown}")?;
    }
    Ok(())
}
