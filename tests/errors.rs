//! Every error that this surface can produce, over the network: its code and text, and that it changed nothing.
//! What it cannot produce yet is listed with the reason, so that every row of errors.tsv is accounted for.

use std::collections::BTreeSet;
use std::time::Duration;

use blackbox::{Member, patience, run};
use bytes::Bytes;
use client::{Client, Config, Error};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic_prost::ProstCodec;
use wire::authpb::UserAddOptions;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::compare::{CompareResult, CompareTarget};
use wire::etcdserverpb::downgrade_request::DowngradeAction;
use wire::etcdserverpb::request_op::Request;
use wire::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, DowngradeRequest, LeaseGrantRequest, MemberAddRequest,
    MemberUpdateRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use wire::v3electionpb::{LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest};
use wire::v3lockpb::LockRequest;
use wire::{ApiError, Code, Status};

/// Of a learner that never starts.
const PEER_URL: &str = "http://127.0.0.1:1";

fn key() -> Bytes {
    Bytes::from_static(b"k")
}

fn put_op(key: &'static str) -> RequestOp {
    RequestOp { request: Some(Request::RequestPut(PutRequest { key: key.into(), ..Default::default() })) }
}

fn txn(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..Default::default() }
}

enum Call {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Stream(RangeRequest),
    Compact(i64),
    Grant(i64, i64),
    Revoke(i64),
    Lock(i64),
    Proclaim(Option<LeaderKey>),
    Resign(Option<LeaderKey>),
    Leader,
    Add(&'static [&'static str], bool),
    Remove(Who),
    Update(Who),
    Promote(Who),
    MoveLeader(Who),
    Downgrade(DowngradeAction, &'static str),
}

/// A member.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Asked,
    Learner,
    Nobody,
}

impl Who {
    async fn id(self, client: &Client) -> u64 {
        match self {
            Who::Nobody => 0xdead,
            Who::Asked => {
                let status = client.status(patience()).await.expect("a status");
                status.header.expect("a header").member_id
            }
            Who::Learner => {
                let members = client.members(patience()).await.expect("members").members;
                members.iter().find(|member| member.is_learner).expect("a learner").id
            }
        }
    }
}

impl Call {
    /// Whether only apply can find the fault, so that the request is in the log.
    fn is_in_log(&self, expected: &Status) -> bool {
        match self {
            Call::Put(put) => {
                (put.ignore_value && put.value.is_empty()) || (put.lease != 0 && !put.ignore_lease)
            }
            Call::Txn(txn) => *expected == ApiError::FutureRev.into() && txn.success.len() > 1,
            Call::Compact(_) | Call::Grant(..) | Call::Revoke(_) | Call::Lock(_) => true,
            Call::Proclaim(leader) | Call::Resign(leader) => leader.is_some(),
            Call::Add(..) | Call::Update(_) => true,
            Call::Remove(who) => *who == Who::Nobody,
            Call::Promote(who) => *who == Who::Asked,
            Call::Range(_) | Call::Delete(_) | Call::Stream(_) | Call::Leader => false,
            Call::MoveLeader(_) | Call::Downgrade(..) => false,
        }
    }

    async fn ask(self, client: &Client) -> Option<Error> {
        match self {
            Call::Range(request) => client.range(request, patience()).await.err(),
            Call::Put(request) => client.put(request, patience()).await.err(),
            Call::Delete(request) => client.delete_range(request, patience()).await.err(),
            Call::Txn(request) => client.txn(request, patience()).await.err(),
            Call::Stream(request) => client.range_stream(request, patience()).await.err(),
            Call::Compact(revision) => {
                client.compact(CompactionRequest { revision, physical: false }, patience()).await.err()
            }
            Call::Grant(id, ttl) => client.grant(LeaseGrantRequest { id, ttl }, patience()).await.err(),
            Call::Revoke(id) => client.revoke(id, patience()).await.err(),
            Call::Lock(lease) => client.lock(LockRequest { name: key(), lease }, patience()).await.err(),
            Call::Proclaim(leader) => {
                client.proclaim(ProclaimRequest { leader, value: key() }, patience()).await.err()
            }
            Call::Resign(leader) => client.resign(ResignRequest { leader }, patience()).await.err(),
            Call::Leader => client.leader(LeaderRequest { name: key() }, patience()).await.err(),
            Call::Add(urls, is_learner) => {
                let peer_ur_ls = urls.iter().map(ToString::to_string).collect();
                let request = MemberAddRequest { peer_ur_ls, is_learner };
                client.member_add(request, patience()).await.err()
            }
            Call::Remove(who) => client.member_remove(who.id(client).await, patience()).await.err(),
            Call::Update(who) => {
                let peer_ur_ls = vec![PEER_URL.to_owned()];
                let request = MemberUpdateRequest { id: who.id(client).await, peer_ur_ls };
                client.member_update(request, patience()).await.err()
            }
            Call::Promote(who) => client.member_promote(who.id(client).await, patience()).await.err(),
            Call::MoveLeader(who) => client.move_leader(who.id(client).await, patience()).await.err(),
            Call::Downgrade(action, version) => {
                client.downgrade(action, version.to_owned(), patience()).await.err()
            }
        }
    }
}

/// What each request is refused with.
fn refusals() -> Vec<(&'static str, Call, Status)> {
    let range = || RangeRequest { key: key(), ..Default::default() };
    let put = || PutRequest { key: key(), ..Default::default() };
    let range_op = |revision| RequestOp {
        request: Some(Request::RequestRange(RangeRequest { key: key(), revision, ..Default::default() })),
    };
    vec![
        ("range without a key", Call::Range(RangeRequest::default()), ApiError::EmptyKey.into()),
        ("put without a key", Call::Put(PutRequest::default()), ApiError::EmptyKey.into()),
        ("delete without a key", Call::Delete(DeleteRangeRequest::default()), ApiError::EmptyKey.into()),
        (
            "compare without a key",
            Call::Txn(TxnRequest { compare: vec![Compare::default()], ..Default::default() }),
            ApiError::EmptyKey.into(),
        ),
        ("op with nothing set", Call::Txn(txn(vec![RequestOp::default()])), ApiError::KeyNotFound.into()),
        (
            "unknown sort order",
            Call::Range(RangeRequest { sort_order: 7, ..range() }),
            ApiError::InvalidSortOption.into(),
        ),
        (
            "unknown sort target",
            Call::Range(RangeRequest { sort_target: 9, ..range() }),
            ApiError::InvalidSortOption.into(),
        ),
        (
            "a revision to come",
            Call::Range(RangeRequest { revision: 1000, ..range() }),
            ApiError::FutureRev.into(),
        ),
        (
            "a revision to come, in a read-only txn",
            Call::Txn(txn(vec![range_op(1000)])),
            ApiError::FutureRev.into(),
        ),
        (
            "a revision to come, in a writing txn",
            Call::Txn(txn(vec![put_op("k"), range_op(1000)])),
            ApiError::FutureRev.into(),
        ),
        ("revision -2 in a txn", Call::Txn(txn(vec![range_op(-2)])), ApiError::Compacted.into()),
        (
            "ignore_value with a value",
            Call::Put(PutRequest { value: key(), ignore_value: true, ..put() }),
            ApiError::ValueProvided.into(),
        ),
        (
            "ignore_value of a missing key",
            Call::Put(PutRequest { key: "none".into(), ignore_value: true, ..Default::default() }),
            ApiError::KeyNotFound.into(),
        ),
        (
            "ignore_lease with a lease",
            Call::Put(PutRequest { lease: 1, ignore_lease: true, ..put() }),
            ApiError::LeaseProvided.into(),
        ),
        ("a key put twice", Call::Txn(txn(vec![put_op("a"), put_op("a")])), ApiError::DuplicateKey.into()),
        (
            "too many ops",
            Call::Txn(txn((0..129).map(|_| range_op(0)).collect())),
            ApiError::TooManyOps.into(),
        ),
        (
            "a put above --max-request-bytes",
            Call::Put(PutRequest { value: vec![0; 1_572_864].into(), ..put() }),
            ApiError::RequestTooLarge.into(),
        ),
        (
            "a put with a lease that is not there",
            Call::Put(PutRequest { lease: 8, ..put() }),
            ApiError::LeaseNotFound.into(),
        ),
        ("a compaction of what is compacted", Call::Compact(-1), ApiError::Compacted.into()),
        ("a compaction of the future", Call::Compact(1000), ApiError::FutureRev.into()),
        ("a lease that is there", Call::Grant(7, 60), ApiError::LeaseExist.into()),
        ("a lease for ever", Call::Grant(8, 9_000_000_001), ApiError::LeaseTtlTooLarge.into()),
        ("a lease that is not there", Call::Revoke(8), ApiError::LeaseNotFound.into()),
        (
            "a lock with a lease that is not there",
            Call::Lock(8),
            // Of these services etcd shows the text alone.
            Status { code: Code::Unknown, ..ApiError::LeaseNotFound.into() },
        ),
        ("a proclamation of nobody", Call::Proclaim(None), ApiError::MissingLeaderKey.into()),
        ("a resignation of nobody", Call::Resign(None), ApiError::MissingLeaderKey.into()),
        (
            "a proclamation by one that does not lead",
            Call::Proclaim(Some(LeaderKey { name: key(), key: "k/7".into(), rev: 1, lease: 7 })),
            ApiError::ElectionNotLeader.into(),
        ),
        ("the leader of nothing", Call::Leader, ApiError::ElectionNoLeader.into()),
        (
            "a member with another's URL",
            Call::Add(&[PEER_URL, "http://127.0.0.1:2"], false),
            ApiError::PeerUrlExist.into(),
        ),
        ("a second learner", Call::Add(&["http://127.0.0.1:2"], true), ApiError::TooManyLearners.into()),
        ("the removal of the only voter", Call::Remove(Who::Asked), ApiError::MemberNotEnoughStarted.into()),
        ("the removal of nobody", Call::Remove(Who::Nobody), ApiError::MemberNotFound.into()),
        ("another URL of nobody", Call::Update(Who::Nobody), ApiError::MemberNotFound.into()),
        ("another's URL", Call::Update(Who::Asked), ApiError::PeerUrlExist.into()),
        ("the promotion of nobody", Call::Promote(Who::Nobody), ApiError::MemberNotFound.into()),
        ("the promotion of a voter", Call::Promote(Who::Asked), ApiError::MemberNotLearner.into()),
        ("the promotion of who lags behind", Call::Promote(Who::Learner), ApiError::LearnerNotReady.into()),
        ("a learner as the leader", Call::MoveLeader(Who::Learner), ApiError::BadLeaderTransferee.into()),
        ("nobody as the leader", Call::MoveLeader(Who::Nobody), ApiError::BadLeaderTransferee.into()),
        (
            "a downgrade to no version",
            Call::Downgrade(DowngradeAction::Validate, "3"),
            ApiError::WrongDowngradeVersionFormat.into(),
        ),
        (
            "a downgrade by two versions",
            Call::Downgrade(DowngradeAction::Enable, "3.5"),
            ApiError::InvalidDowngradeTargetVersion.into(),
        ),
        (
            "a stream in another order",
            Call::Stream(RangeRequest { sort_order: 2, ..range() }),
            Status::new(Code::Unimplemented, "RangeStream does not support custom sort orders"),
        ),
        (
            "a stream with a filter",
            Call::Stream(RangeRequest { min_mod_revision: 1, ..range() }),
            Status::new(Code::Unimplemented, "RangeStream does not support revision filters"),
        ),
    ]
}

async fn fingerprint(client: &Client) -> (i64, u32, u64) {
    let hash = client.hash_kv(0, patience()).await.expect("a hash");
    let status = client.status(patience()).await.expect("a status");
    (hash.hash_revision, hash.hash, status.raft_applied_index)
}

#[test]
fn every_refusal_has_its_code_and_text_and_changes_nothing() {
    let mut member = Member::start(&[]);
    member.announce("rejecting member remove request");
    member.announce("reject downgrade request");
    run(async {
        let client = member.client();
        client
            .put(PutRequest { key: key(), value: key(), ..Default::default() }, patience())
            .await
            .expect("a put");
        client.grant(LeaseGrantRequest { id: 7, ttl: 60 }, patience()).await.expect("a lease");
        let learner = MemberAddRequest { peer_ur_ls: vec![PEER_URL.to_owned()], is_learner: true };
        client.member_add(learner, patience()).await.expect("a learner");
        for (name, call, expected) in refusals() {
            let (revision, hash, index) = fingerprint(&client).await;
            let is_in_log = call.is_in_log(&expected);
            let error = call.ask(&client).await;
            let Some(Error::Status(status)) = error else { panic!("{name}: {error:?}") };
            assert_eq!(status, expected, "{name}");
            let (revision_after, hash_after, index_after) = fingerprint(&client).await;
            assert_eq!((revision_after, hash_after), (revision, hash), "{name} changed something");
            // What only apply can find is in the log, as in etcd; the rest never gets there.
            assert_eq!(index_after, index + u64::from(is_in_log), "{name}");
        }
    });
}

/// A unary call by its path, as no client of ours would make it.
async fn call<Q: prost::Message + Default + 'static>(
    client: &Client,
    path: &str,
    request: tonic::Request<Q>,
) -> Status {
    let path: PathAndQuery = path.parse().expect("a path");
    let codec = ProstCodec::<Q, ()>::default();
    let ended = Grpc::new(client.channel()).unary(request, path, codec).await;
    let error = ended.map(|_: tonic::Response<()>| ()).expect_err("a refusal");
    Status::new(Code::from_number(error.code() as u32), error.message().to_owned())
}

fn message() -> tonic::Request<RangeRequest> {
    tonic::Request::new(RangeRequest::default())
}

#[test]
fn calls_that_are_refused_whatever_they_say_change_nothing() {
    let member = Member::start(&[]);
    run(async {
        let client = member.client();
        let before = fingerprint(&client).await;
        for (path, expected) in [
            ("/etcdserverpb.KV/Nothing", Status::unknown_method("Nothing", "etcdserverpb.KV")),
            ("/etcdserverpb.Nothing/Range", Status::unknown_service("etcdserverpb.Nothing")),
        ] {
            assert_eq!(call(&client, path, message()).await, expected);
        }
        // A client of ours would not have sent these.
        for url in [&[][..], &["nonsense"], &["http://127.0.0.1:1", "http://127.0.0.1"]] {
            let peer_ur_ls: Vec<String> = url.iter().map(ToString::to_string).collect();
            let add = MemberAddRequest { peer_ur_ls: peer_ur_ls.clone(), is_learner: false };
            let status = call(&client, "/etcdserverpb.Cluster/MemberAdd", tonic::Request::new(add)).await;
            assert_eq!(status, ApiError::MemberBadUrls.into(), "{url:?}");
            let update = tonic::Request::new(MemberUpdateRequest { id: 1, peer_ur_ls });
            let status = call(&client, "/etcdserverpb.Cluster/MemberUpdate", update).await;
            assert_eq!(status, ApiError::MemberBadUrls.into(), "{url:?}");
        }
        let downgrade = tonic::Request::new(DowngradeRequest { action: 99, version: "3.6".into() });
        let status = call(&client, "/etcdserverpb.Maintenance/Downgrade", downgrade).await;
        assert_eq!(status, ApiError::UnknownMethod.into());
        for method in ["Put", "Range", "DeleteRange", "Txn"] {
            let mut request = message();
            let version = MetadataValue::try_from(&b"3.7.\xc3"[..]).expect("a header's value");
            request.metadata_mut().insert("client-api-version", version);
            let status = call(&client, &format!("/etcdserverpb.KV/{method}"), request).await;
            assert_eq!(status, ApiError::InvalidClientApiVersion.into(), "{method}");
        }
        // The first field of a range is its key; of a health check, the service.
        let service = tonic::Request::new(RangeRequest { key: key(), ..Default::default() });
        let status = call(&client, "/grpc.health.v1.Health/Check", service).await;
        assert_eq!(status, ApiError::UnknownHealthService.into());
        let mut watch = message();
        watch.set_timeout(Duration::from_millis(1));
        let status = call(&client, "/grpc.health.v1.Health/Watch", watch).await;
        assert_eq!(status, ApiError::ContextDeadlineExceeded.into());
        assert_eq!(fingerprint(&client).await, before);
    });
}

/// What calls about users and roles are refused with.
const USERS_REFUSED: &[&str] = &[
    "etcdserver: root user does not exist",
    "etcdserver: root user does not have root role",
    "etcdserver: user name already exists",
    "etcdserver: user name is empty",
    "etcdserver: user name not found",
    "etcdserver: role name already exists",
    "etcdserver: role name not found",
    "etcdserver: role name is empty",
    "etcdserver: authentication failed, invalid user ID or password",
    "etcdserver: permission not given",
    "etcdserver: permission denied",
    "etcdserver: role is not granted to the user",
    "etcdserver: permission is not granted to the role",
    "etcdserver: authentication is not enabled",
    "etcdserver: invalid auth token",
    "etcdserver: invalid auth management",
    "auth: authentication failed, password was given for no password user",
    "bcrypt: password length exceeds 72 bytes",
];

/// Calls about users and roles, one after the other, with a token where there is one.
struct Users {
    client: Client,
    token: Option<String>,
    refused: BTreeSet<String>,
}

impl Users {
    async fn ask<Q: prost::Message + Default + 'static, R: prost::Message + Default + 'static>(
        &self,
        method: &str,
        request: Q,
    ) -> Result<R, Status> {
        let mut request = tonic::Request::new(request);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.parse().expect("a header's value"));
        }
        let path: PathAndQuery = format!("/etcdserverpb.Auth/{method}").parse().expect("a path");
        let ended =
            Grpc::new(self.client.channel()).unary(request, path, ProstCodec::<Q, R>::default()).await;
        ended
            .map(tonic::Response::into_inner)
            .map_err(|error| Status::new(Code::from_number(error.code() as u32), error.message().to_owned()))
    }

    async fn done<Q: prost::Message + Default + 'static>(&self, method: &str, request: Q) {
        self.ask::<Q, ()>(method, request).await.unwrap_or_else(|status| panic!("{method}: {status:?}"));
    }

    async fn revision(&self) -> u64 {
        let asked: Result<pb::AuthStatusResponse, Status> =
            self.ask("AuthStatus", pb::AuthStatusRequest {}).await;
        asked.expect("a status").auth_revision
    }

    async fn refused<Q: prost::Message + Default + 'static>(
        &mut self,
        method: &str,
        request: Q,
        expected: impl Into<Status>,
    ) {
        let (expected, before) = (expected.into(), self.revision().await);
        let refusal = self.ask::<Q, ()>(method, request).await.expect_err(method);
        assert_eq!(refusal, expected, "{method}");
        assert_eq!(self.revision().await, before, "{method} has changed something");
        self.refused.insert(refusal.message.into_owned());
    }
}

#[test]
fn refusals_about_users_and_roles() {
    let mut member = Member::start(&["--bcrypt-cost", "4"]);
    member.announce("invalid authentication was requested");
    member.announce("invalid auth token");
    run(async {
        let mut users = Users { client: member.client(), token: None, refused: BTreeSet::new() };
        let user = |name: &str, password: &str| pb::AuthUserAddRequest {
            name: name.into(),
            password: password.into(),
            ..Default::default()
        };
        let login = |name: &str, password: &str| pb::AuthenticateRequest {
            name: name.into(),
            password: password.into(),
        };
        let role = |name: &str| pb::AuthRoleAddRequest { name: name.into() };
        let grant =
            |user: &str, role: &str| pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        let too_long = Status::new(Code::Unknown, "bcrypt: password length exceeds 72 bytes");
        users.refused("AuthEnable", pb::AuthEnableRequest {}, ApiError::RootUserNotExist).await;
        users.refused("Authenticate", login("root", "root"), ApiError::AuthNotEnabled).await;
        users.done("UserAdd", user("root", "root")).await;
        users.refused("AuthEnable", pb::AuthEnableRequest {}, ApiError::RootRoleNotExist).await;
        users.refused("UserAdd", user("root", "x"), ApiError::UserAlreadyExist).await;
        users.refused("UserAdd", user("", "x"), ApiError::UserEmpty).await;
        users.refused("UserAdd", user("long", &"p".repeat(73)), too_long.clone()).await;
        users.refused("UserGet", pb::AuthUserGetRequest { name: "no".into() }, ApiError::UserNotFound).await;
        users.done("RoleAdd", role("r")).await;
        users.refused("RoleAdd", role("r"), ApiError::RoleAlreadyExist).await;
        users.refused("RoleAdd", role(""), ApiError::RoleEmpty).await;
        users.refused("UserGrantRole", grant("root", "no"), ApiError::RoleNotFound).await;
        let revoke = pb::AuthUserRevokeRoleRequest { name: "root".into(), role: "r".into() };
        users.refused("UserRevokeRole", revoke, ApiError::RoleNotGranted).await;
        let nothing = pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm: None };
        users.refused("RoleGrantPermission", nothing, ApiError::PermissionNotGiven).await;
        let revoke =
            pb::AuthRoleRevokePermissionRequest { role: "r".into(), key: key(), ..Default::default() };
        users.refused("RoleRevokePermission", revoke, ApiError::PermissionNotGranted).await;
        let options = Some(UserAddOptions { no_password: true });
        let without = pb::AuthUserAddRequest { name: "cert".into(), options, ..Default::default() };
        users.done("UserAdd", without).await;
        users.done("UserAdd", user("u", "u")).await;
        users.done("UserGrantRole", grant("root", "root")).await;
        users.done("AuthEnable", pb::AuthEnableRequest {}).await;
        users.refused("UserList", pb::AuthUserListRequest {}, ApiError::UserEmpty).await;
        users.refused("Authenticate", login("root", "no"), ApiError::AuthFailed).await;
        users.refused("Authenticate", login("nobody", ""), ApiError::AuthFailed).await;
        users.refused("Authenticate", login("cert", "x"), ApiError::NoPasswordUser).await;
        let asked: pb::AuthenticateResponse =
            users.ask("Authenticate", login("u", "u")).await.expect("a token");
        users.token = Some(asked.token);
        users.refused("UserList", pb::AuthUserListRequest {}, ApiError::PermissionDenied).await;
        users.refused("UserAdd", user("x", "x"), ApiError::PermissionDenied).await;
        // As in etcd, before anybody is asked who they are.
        users.refused("UserAdd", user("long", &"p".repeat(73)), too_long).await;
        let asked: pb::AuthenticateResponse =
            users.ask("Authenticate", login("root", "root")).await.expect("a token");
        users.token = Some(asked.token);
        let delete = pb::AuthUserDeleteRequest { name: "root".into() };
        users.refused("UserDelete", delete, ApiError::InvalidAuthMgmt).await;
        users.token = Some("abcdefghijklmnop.1".into());
        let refusal =
            users.ask::<_, ()>("UserList", pb::AuthUserListRequest {}).await.expect_err("a refusal");
        assert_eq!(refusal, ApiError::InvalidAuthToken.into());
        users.refused.insert(refusal.message.into_owned());
        let listed: BTreeSet<String> = USERS_REFUSED.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(users.refused, listed);
    });
}

#[test]
fn a_message_above_what_grpc_takes_is_refused_unread() {
    let member = Member::start(&["--max-request-bytes", "10000"]);
    run(async {
        let mut config = Config::new(vec![member.endpoint().parse().expect("an endpoint")]);
        config.request_bytes_max = u32::MAX;
        let client = Client::new(config).expect("an endpoint is given");
        let before = fingerprint(&client).await;
        let limit = 10_000 + (512 << 10);
        for (bytes, expected) in [
            (limit, ApiError::RequestTooLarge.into()),
            (limit + 1, Status::message_too_large(limit as u64 + 1, limit as u64)),
        ] {
            // Beside the value: tag and length of the key and of the value.
            let value = Bytes::from(vec![0; bytes - 3 - 4]);
            let put = PutRequest { key: key(), value, ..Default::default() };
            assert_eq!(prost::Message::encoded_len(&put), bytes);
            let ended = client.put(put, patience()).await;
            let Err(Error::Status(status)) = ended else { panic!("{ended:?}") };
            assert_eq!(status, expected);
        }
        assert_eq!(fingerprint(&client).await, before);
    });
}

/// Rows of errors.tsv that nothing here can produce, by what is missing: names without `ErrGRPC`, or texts.
const OUT_OF_REACH: &[(&str, &[&str])] = &[
    // Ids are drawn; two members of different clusters do not speak to each other.
    ("other members that do what none does", &["MemberExist", "ClusterIDMismatch"]),
    // crates/server/tests has the first two, on a member that it can hold still.
    (
        "a learner that serves, and changes of leader at the right moment",
        &["NotSupportedForLearner", "LeaderChanged", "TimeoutDueToConnectionLost"],
    ),
    ("capabilities", &["NotCapable"]),
    (
        // While it is going on, and of a cluster that has agreed on nothing; the last is told to nobody.
        "downgrades",
        &["ClusterVersionUnavailable", "DowngradeInProcess", "NoInflightDowngrade"],
    ),
    ("the gRPC proxy", &["RangeStream is not supported by the gRPC proxy"]),
    ("alarms: tests/space.rs", &["Corrupt", "NoSpace"]),
    // crates/server/tests has these, on a member that it can hold still.
    (
        "a disk that hangs, a member without a leader, or one that is at its end",
        &[
            "RequestTooManyRequests",
            "NoLeader",
            "Stopped",
            "Timeout",
            "TimeoutWaitAppliedIndex",
            "raft proposal dropped",
            "not a primary lessor",
        ],
    ),
    // A client that cancels is not told; the others are texts of etcd's that no call of this surface ends with.
    ("a caller", &["Canceled", "DeadlineExceeded", "WatchCanceled", "context canceled"]),
];

#[test]
fn every_error_of_etcds_is_produced_here_or_out_of_reach() {
    let mut produced: BTreeSet<String> =
        refusals().into_iter().map(|(_, _, status)| status.message.into_owned()).collect();
    // Of the other tests of this file, of tests/cluster.rs, tests/locks.rs and tests/auth.rs.
    for error in [
        ApiError::InvalidClientApiVersion,
        ApiError::UnknownHealthService,
        ApiError::ContextDeadlineExceeded,
        ApiError::SessionExpired,
        ApiError::MemberBadUrls,
        ApiError::UnknownMethod,
        ApiError::AuthOldRevision,
        ApiError::TimeoutDueToLeaderFail,
        ApiError::TimeoutLeaderTransfer,
        ApiError::NotLeader,
        ApiError::Unhealthy,
    ] {
        produced.insert(error.text().to_owned());
    }
    produced.extend(USERS_REFUSED.iter().map(|text| (*text).to_owned()));
    let mut out_of_reach: BTreeSet<&str> = BTreeSet::new();
    for word in OUT_OF_REACH.iter().flat_map(|(_, words)| *words) {
        assert!(out_of_reach.insert(word), "{word} is listed twice");
    }
    for line in include_str!("../crates/wire/tests/errors.tsv").lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, _, text] = columns[..] else { panic!("{line}") };
        let word = name.strip_prefix("ErrGRPC").unwrap_or(text);
        assert!(out_of_reach.remove(word) != produced.remove(text), "{word}: produced, or out of reach?");
    }
    assert!(out_of_reach.is_empty() && produced.is_empty(), "not etcd's: {out_of_reach:?}, {produced:?}");
}

#[test]
fn a_compare_that_does_not_hold_is_no_error() {
    let member = Member::start(&[]);
    run(async {
        let compare = Compare {
            key: key(),
            target: CompareTarget::Version.into(),
            result: CompareResult::Greater.into(),
            ..Default::default()
        };
        let request = TxnRequest { compare: vec![compare], success: vec![put_op("k")], failure: Vec::new() };
        let answer = member.client().txn(request, patience()).await.expect("an answer");
        assert!(!answer.succeeded);
        assert_eq!(answer.header.expect("a header").revision, 1, "nothing was written");
    });
}
