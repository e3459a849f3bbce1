//! `endpoint health`, `status` and `hashkv`: each endpoint by itself.

use std::time::Instant;

use client::{Config, Deadline, Error};
use wire::ApiError;
use wire::etcdserverpb::{AlarmType, RangeRequest};

use super::session::{Session, call_failed_as, cause_line, connect, deadline, not_made};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Kind};
use crate::gotext;
use crate::print::{EndpointHash, EndpointHealth, EndpointStatus};

pub(super) const COMMAND: Command = Command::group_of(
    "endpoint",
    "endpoint <subcommand>",
    "Endpoint related commands",
    "Endpoint related commands",
    &[
        Command::new("health", "health", "Checks whether the endpoints serve", health),
        Command::new("status", "status", "Prints the status of the endpoints", status).with_long(STATUS),
        Command::new("hashkv", "hashkv", "Prints the hash of the endpoints' keys and values", hash_kv)
            .with_flags(&[Flag::new("rev", Kind::Int, "hash up to this revision (0 means the newest)")]),
    ],
)
.with_inherited(&[Flag::new(
    "cluster",
    Kind::Bool,
    "all endpoints of the cluster's members, not those given",
)]);

const STATUS: &str = "Prints the status of the endpoints.

With -w simple a line is: endpoint, id, version, storage version, size, size in use, share not in use, quota, whether
it leads, whether it is a learner, raft term, raft index, applied index, errors, version of a downgrade, whether one is
under way. -w table has the same with heads.";

fn health(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let session = Session::open(call)?;
    let configs = endpoint_configs(call, &session)?;
    let timeout = call.flags.duration("command-timeout");
    let list = session.wait(async {
        // All at once, so that one that does not answer costs one deadline and not one each.
        let mut checks = tokio::task::JoinSet::new();
        for (endpoint, config) in configs {
            checks.spawn(async move { check_health(endpoint, config, Deadline::after(timeout)).await });
        }
        checks.join_all().await
    });
    let (list, causes): (Vec<_>, Vec<_>) = list.into_iter().unzip();
    write!(call.world.err, "{}", causes.concat())?;
    session.printer.endpoint_health(call.world.out, call.world.err, &list)?;
    if list.iter().any(|h| !h.error.is_empty()) {
        return Err(Failure::new(exit::ERROR, "unhealthy cluster"));
    }
    Ok(())
}

/// A read of any key goes through the whole cluster; to be denied it is as good. Then no alarm may be on. Beside it
/// what the log says.
async fn check_health(
    endpoint: String,
    config: Result<Config, Error>,
    deadline: Deadline,
) -> (EndpointHealth, String) {
    let failed = |took: String, error: String| {
        (EndpointHealth { endpoint: endpoint.clone(), health: false, took, error }, String::new())
    };
    let client = match async { connect(config?).await }.await {
        Ok(client) => client,
        Err(error) => return (failed(String::new(), error.to_string()).0, cause_line(&error)),
    };
    let started = Instant::now();
    let request = RangeRequest { key: "health".into(), ..RangeRequest::default() };
    let read = client.range(request, deadline).await;
    let took = gotext::duration(i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX));
    match read {
        Err(error) if !error.is(ApiError::PermissionDenied) => {
            return (failed(took, error.to_string()).0, cause_line(&error));
        }
        _ => {}
    }
    match client.alarms(deadline).await {
        Err(_) => failed(took, "Unable to fetch the alarm list".to_owned()),
        Ok(answer) if answer.alarms.is_empty() => {
            (EndpointHealth { endpoint, health: true, took, error: String::new() }, String::new())
        }
        Ok(answer) => {
            let names = answer.alarms.iter().map(|alarm| match alarm.alarm() {
                AlarmType::Nospace => "NOSPACE ",
                AlarmType::Corrupt => "CORRUPT ",
                AlarmType::None => "UNKNOWN ",
            });
            failed(took, "Active Alarm(s): ".to_owned() + &names.collect::<String>())
        }
    }
}

fn status(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let session = Session::open(call)?;
    let mut list = Vec::new();
    let mut failure = Ok(());
    for (endpoint, config) in endpoint_configs(call, &session)? {
        match session.ask(config, async |client| client.status(deadline(call)).await)? {
            Ok(status) => list.push(EndpointStatus { endpoint, status }),
            Err(error) => {
                write!(call.world.err, "{}", cause_line(&error))?;
                writeln!(call.world.err, "Failed to get the status of endpoint {endpoint} ({error})")?;
                failure = Err(Failure::silent(exit::ERROR));
            }
        }
    }
    session.printer.endpoint_status(call.world.out, &list)?;
    failure
}

fn hash_kv(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let session = Session::open(call)?;
    let revision = call.flags.int("rev");
    let mut list = Vec::new();
    let mut failure = Ok(());
    for (endpoint, config) in endpoint_configs(call, &session)? {
        match session.ask(config, async |client| client.hash_kv(revision, deadline(call)).await)? {
            Ok(hash) => list.push(EndpointHash { endpoint, hash }),
            Err(error) => {
                write!(call.world.err, "{}", cause_line(&error))?;
                writeln!(call.world.err, "Failed to get the hash of endpoint {endpoint} ({error})")?;
                failure = Err(Failure::new(exit::ERROR, error));
            }
        }
    }
    session.printer.endpoint_hash(call.world.out, &list)?;
    failure
}

/// An endpoint as it is written, with a client's configuration of its own if it can be read.
pub(super) type Asked = (String, Result<Config, Error>);

/// The endpoints to ask. One that cannot be read fails by itself, as one that cannot be reached.
pub(super) fn endpoint_configs(call: &Invocation<'_>, session: &Session) -> Result<Vec<Asked>, Failure> {
    let names = if call.flags.bool("cluster") {
        let client = session.connect(session.config.clone()).map_err(|error| match error {
            error @ Error::Tls(_) => not_made(error),
            error => call_failed_as(exit::ERROR, &error, &error),
        })?;
        let members = session.wait(client.members(deadline(call))).map_err(|error: Error| {
            let text = format!("failed to fetch endpoints from etcd cluster member list: {error}");
            call_failed_as(exit::ERROR, text, &error)
        })?;
        members.members.into_iter().flat_map(|member| member.client_ur_ls).collect()
    } else {
        call.flags.list("endpoints").to_vec()
    };
    let configure = |name: String| {
        let endpoint = name.trim().parse();
        let config = endpoint.map(|one| Config { endpoints: vec![one], ..session.config.clone() });
        (name, config)
    };
    Ok(names.into_iter().map(configure).collect())
}
