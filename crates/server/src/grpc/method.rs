//! All calls of the client interface, by path.

use wire::Status;

/// A call that the service loop answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hot {
    /// `KV.Range`
    Range,
    /// `KV.Put`
    Put,
    /// `KV.DeleteRange`
    DeleteRange,
    /// `KV.Txn`
    Txn,
}

/// A service that answers through its generated stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cold {
    /// `etcdserverpb.Auth`
    Auth,
    /// `etcdserverpb.Cluster`
    Cluster,
    /// `etcdserverpb.Lease`
    Lease,
    /// `etcdserverpb.Maintenance`
    Maintenance,
    /// `grpc.health.v1.Health`
    Health,
}

/// A call that a task of its own answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// `KV.Compact`
    Compact,
    /// `KV.RangeStream`
    RangeStream,
    /// `Lock.Lock`
    Lock,
    /// `Lock.Unlock`
    Unlock,
    /// `Election.Campaign`
    Campaign,
    /// `Election.Proclaim`
    Proclaim,
    /// `Election.Leader`
    Leader,
    /// `Election.Observe`
    Observe,
    /// `Election.Resign`
    Resign,
}

impl Task {
    /// The path of a call that has one answer.
    pub fn unary_path(self) -> Option<&'static str> {
        match self {
            Task::Compact => Some("/etcdserverpb.KV/Compact"),
            Task::Lock => Some("/v3lockpb.Lock/Lock"),
            Task::Unlock => Some("/v3lockpb.Lock/Unlock"),
            Task::Campaign => Some("/v3electionpb.Election/Campaign"),
            Task::Proclaim => Some("/v3electionpb.Election/Proclaim"),
            Task::Leader => Some("/v3electionpb.Election/Leader"),
            Task::Resign => Some("/v3electionpb.Election/Resign"),
            Task::RangeStream | Task::Observe => None,
        }
    }
}

/// Whether a call that a stub answers has one answer.
pub fn is_unary(path: &str) -> bool {
    !matches!(path, "/etcdserverpb.Maintenance/Snapshot" | "/grpc.health.v1.Health/Watch")
}

/// A call whose client may send messages without an end; a task of its own answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streaming {
    /// `Watch.Watch`
    Watch,
    /// `Lease.LeaseKeepAlive`
    LeaseKeepAlive,
}

/// Who answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The service loop.
    Hot(Hot),
    /// A task beside the loop, once the one request message is there; never on a learner.
    Task(Task),
    /// A task beside the loop, from the call's headers on; never on a learner.
    Stream(Streaming),
    /// A generated stub, once the one request message is there.
    Cold(Cold, ForLearner),
}

/// Whether a learner answers the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForLearner {
    /// It does.
    Served,
    /// It says that it does not.
    Refused,
}

use Cold::{Auth, Cluster, Health, Lease, Maintenance};
use ForLearner::{Refused, Served};

/// Every call but the four hot ones; sorted by service, as in `../shared/surface/rpcs.tsv`.
const CALLS: &[(&str, &[(&str, Route)])] = &[
    (
        "etcdserverpb.KV",
        &[
            ("RangeStream", Route::Task(Task::RangeStream)),
            ("Compact", Route::Task(Task::Compact)),
            ("Range", Route::Hot(Hot::Range)),
            ("Put", Route::Hot(Hot::Put)),
            ("DeleteRange", Route::Hot(Hot::DeleteRange)),
            ("Txn", Route::Hot(Hot::Txn)),
        ],
    ),
    ("etcdserverpb.Watch", &[("Watch", Route::Stream(Streaming::Watch))]),
    (
        "etcdserverpb.Lease",
        &[
            ("LeaseGrant", Route::Cold(Lease, Refused)),
            ("LeaseRevoke", Route::Cold(Lease, Refused)),
            ("LeaseKeepAlive", Route::Stream(Streaming::LeaseKeepAlive)),
            ("LeaseTimeToLive", Route::Cold(Lease, Refused)),
            ("LeaseLeases", Route::Cold(Lease, Refused)),
        ],
    ),
    (
        "etcdserverpb.Cluster",
        &[
            ("MemberAdd", Route::Cold(Cluster, Refused)),
            ("MemberRemove", Route::Cold(Cluster, Refused)),
            ("MemberUpdate", Route::Cold(Cluster, Refused)),
            ("MemberList", Route::Cold(Cluster, Refused)),
            ("MemberPromote", Route::Cold(Cluster, Refused)),
        ],
    ),
    (
        "etcdserverpb.Maintenance",
        &[
            ("Alarm", Route::Cold(Maintenance, Refused)),
            ("Status", Route::Cold(Maintenance, Served)),
            ("Defragment", Route::Cold(Maintenance, Refused)),
            ("Hash", Route::Cold(Maintenance, Refused)),
            ("HashKV", Route::Cold(Maintenance, Refused)),
            ("Snapshot", Route::Cold(Maintenance, Served)),
            ("MoveLeader", Route::Cold(Maintenance, Refused)),
            ("Downgrade", Route::Cold(Maintenance, Refused)),
        ],
    ),
    (
        "etcdserverpb.Auth",
        &[
            ("AuthEnable", Route::Cold(Auth, Refused)),
            ("AuthDisable", Route::Cold(Auth, Refused)),
            ("AuthStatus", Route::Cold(Auth, Refused)),
            ("Authenticate", Route::Cold(Auth, Refused)),
            ("UserAdd", Route::Cold(Auth, Refused)),
            ("UserGet", Route::Cold(Auth, Refused)),
            ("UserList", Route::Cold(Auth, Refused)),
            ("UserDelete", Route::Cold(Auth, Refused)),
            ("UserChangePassword", Route::Cold(Auth, Refused)),
            ("UserGrantRole", Route::Cold(Auth, Refused)),
            ("UserRevokeRole", Route::Cold(Auth, Refused)),
            ("RoleAdd", Route::Cold(Auth, Refused)),
            ("RoleGet", Route::Cold(Auth, Refused)),
            ("RoleList", Route::Cold(Auth, Refused)),
            ("RoleDelete", Route::Cold(Auth, Refused)),
            ("RoleGrantPermission", Route::Cold(Auth, Refused)),
            ("RoleRevokePermission", Route::Cold(Auth, Refused)),
        ],
    ),
    ("v3lockpb.Lock", &[("Lock", Route::Task(Task::Lock)), ("Unlock", Route::Task(Task::Unlock))]),
    (
        "v3electionpb.Election",
        &[
            ("Campaign", Route::Task(Task::Campaign)),
            ("Proclaim", Route::Task(Task::Proclaim)),
            ("Leader", Route::Task(Task::Leader)),
            ("Observe", Route::Task(Task::Observe)),
            ("Resign", Route::Task(Task::Resign)),
        ],
    ),
    (
        "grpc.health.v1.Health",
        &[
            ("Check", Route::Cold(Health, Refused)),
            ("List", Route::Cold(Health, Refused)),
            ("Watch", Route::Cold(Health, Refused)),
        ],
    ),
];

/// Finds who answers `path`, or gRPC's text for a path that leads nowhere.
pub fn route(path: &str) -> Result<Route, Status> {
    match path {
        "/etcdserverpb.KV/Put" => return Ok(Route::Hot(Hot::Put)),
        "/etcdserverpb.KV/Range" => return Ok(Route::Hot(Hot::Range)),
        "/etcdserverpb.KV/Txn" => return Ok(Route::Hot(Hot::Txn)),
        "/etcdserverpb.KV/DeleteRange" => return Ok(Route::Hot(Hot::DeleteRange)),
        _ => {}
    }
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
        return Err(Status::new(wire::Code::Unimplemented, format!("malformed method name: {path:?}")));
    };
    let Some((_, calls)) = CALLS.iter().find(|(name, _)| *name == service) else {
        return Err(Status::unknown_service(service));
    };
    match calls.iter().find(|(name, _)| *name == method) {
        Some((_, route)) => Ok(*route),
        None => Err(Status::unknown_method(method, service)),
    }
}

/// All paths, for tests and metrics.
pub fn paths() -> impl Iterator<Item = String> {
    CALLS.iter().flat_map(|(service, calls)| calls.iter().map(move |(name, _)| format!("/{service}/{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_somewhere() {
        assert_eq!(paths().count(), 52);
        for path in paths() {
            route(&path).unwrap();
        }
        assert_eq!(route("/etcdserverpb.KV/Txn"), Ok(Route::Hot(Hot::Txn)));
    }

    #[test]
    fn paths_that_lead_nowhere() {
        for (path, text) in [
            ("/etcdserverpb.KV/Nothing", "unknown method Nothing for service etcdserverpb.KV"),
            ("/etcdserverpb.Nothing/Range", "unknown service etcdserverpb.Nothing"),
            ("/a/b/c", "unknown service a/b"),
            ("/", "malformed method name: \"/\""),
            ("", "malformed method name: \"\""),
        ] {
            let status = route(path).unwrap_err();
            assert_eq!((status.code, &*status.message), (wire::Code::Unimplemented, text), "{path}");
        }
    }
}
