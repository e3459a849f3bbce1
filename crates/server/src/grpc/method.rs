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

/// A call by its number, among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    number: u8,
    shape: Shape,
}

/// How many messages either side of a call sends, in Prometheus' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One each.
    Unary,
    /// One, and answers without an end.
    ServerStream,
    /// Without an end on either side.
    BidiStream,
}

impl Shape {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Unary => "unary",
            Shape::ServerStream => "server_stream",
            Shape::BidiStream => "bidi_stream",
        }
    }
}

impl Method {
    /// How many there are.
    pub const COUNT: usize = {
        let (mut count, mut service) = (0, 0);
        while service < CALLS.len() {
            count += CALLS[service].1.len();
            service += 1;
        }
        count
    };

    /// All of them, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Method> {
        (0..Method::COUNT).map(Method::at)
    }

    /// Its number, below [`Method::COUNT`].
    pub fn number(self) -> usize {
        usize::from(self.number)
    }

    /// The names of its service and its own.
    pub fn names(self) -> (&'static str, &'static str) {
        let (service, name, _) = row(self.number());
        (service, name)
    }

    /// Where it is found.
    pub fn path(self) -> String {
        let (service, name) = self.names();
        format!("/{service}/{name}")
    }

    /// How many messages it has.
    pub fn shape(self) -> Shape {
        self.shape
    }

    /// By its number.
    fn at(number: usize) -> Method {
        let shape = match row(number) {
            (_, _, Route::Stream(_)) => Shape::BidiStream,
            (_, _, Route::Task(Task::RangeStream | Task::Observe))
            | ("etcdserverpb.Maintenance", "Snapshot", _)
            | ("grpc.health.v1.Health", "Watch", _) => Shape::ServerStream,
            _ => Shape::Unary,
        };
        Method { number: number as u8, shape }
    }
}

/// The names of a method's service and its own, and who answers it.
fn row(number: usize) -> (&'static str, &'static str, Route) {
    let mut place = number;
    for (service, calls) in CALLS {
        match calls.get(place) {
            Some((name, route)) => return (service, name, *route),
            None => place -= calls.len(),
        }
    }
    unreachable!("a method has a row: {number}")
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

/// The hot calls, as they stand in [`CALLS`].
const RANGE: Method = Method { number: 2, shape: Shape::Unary };
const PUT: Method = Method { number: 3, shape: Shape::Unary };
const DELETE_RANGE: Method = Method { number: 4, shape: Shape::Unary };
const TXN: Method = Method { number: 5, shape: Shape::Unary };

/// Every call; sorted by service, as in `../shared/surface/rpcs.tsv`.
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

/// Finds what `path` names and who answers it, or gRPC's text for a path that leads nowhere.
pub fn route(path: &str) -> Result<(Method, Route), Status> {
    match path {
        "/etcdserverpb.KV/Put" => return Ok((PUT, Route::Hot(Hot::Put))),
        "/etcdserverpb.KV/Range" => return Ok((RANGE, Route::Hot(Hot::Range))),
        "/etcdserverpb.KV/Txn" => return Ok((TXN, Route::Hot(Hot::Txn))),
        "/etcdserverpb.KV/DeleteRange" => return Ok((DELETE_RANGE, Route::Hot(Hot::DeleteRange))),
        _ => {}
    }
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
        return Err(Status::new(wire::Code::Unimplemented, format!("malformed method name: {path:?}")));
    };
    let mut before = 0;
    for (name, calls) in CALLS {
        if *name != service {
            before += calls.len();
            continue;
        }
        return match calls.iter().position(|(name, _)| *name == method) {
            Some(place) => Ok((Method::at(before + place), calls[place].1)),
            None => Err(Status::unknown_method(method, service)),
        };
    }
    Err(Status::unknown_service(service))
}

/// All paths, in the order of their methods' numbers.
pub fn paths() -> impl Iterator<Item = String> {
    CALLS.iter().flat_map(|(service, calls)| calls.iter().map(move |(name, _)| format!("/{service}/{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_somewhere() {
        assert_eq!((paths().count(), Method::COUNT), (52, 52));
        for (path, method) in paths().zip(Method::all()) {
            let (found, route) = route(&path).unwrap();
            let (service, name) = method.names();
            assert_eq!((found, &*path), (method, &*format!("/{service}/{name}")));
            assert_eq!(row(found.number()).2, route, "{path}");
        }
    }

    #[test]
    fn streams_are_those_of_the_services() {
        let of = |shape| {
            let all = Method::all().zip(paths()).filter(|(method, _)| method.shape() == shape);
            all.map(|(_, path)| path).collect::<Vec<_>>()
        };
        assert_eq!(
            of(Shape::BidiStream),
            ["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"]
        );
        let server = [
            "/etcdserverpb.KV/RangeStream",
            "/etcdserverpb.Maintenance/Snapshot",
            "/v3electionpb.Election/Observe",
            "/grpc.health.v1.Health/Watch",
        ];
        assert_eq!(of(Shape::ServerStream), server);
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
