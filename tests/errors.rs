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
use wire::etcdserverpb::compare::{CompareResult, CompareTarget};
use wire::etcdserverpb::request_op::Request;
use wire::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest,
};
use wire::v3electionpb::{LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest};
use wire::v3lockpb::LockRequest;
use wire::{ApiError, Code, Status};

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
            Call::Range(_) | Call::Delete(_) | Call::Stream(_) | Call::Leader => false,
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
    let member = Member::start(&[]);
    run(async {
        let client = member.client();
        client
            .put(PutRequest { key: key(), value: key(), ..Default::default() }, patience())
            .await
            .expect("a put");
        client.grant(LeaseGrantRequest { id: 7, ttl: 60 }, patience()).await.expect("a lease");
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
async fn call(client: &Client, path: &str, request: tonic::Request<RangeRequest>) -> Status {
    let path: PathAndQuery = path.parse().expect("a path");
    let codec = ProstCodec::<RangeRequest, ()>::default();
    let ended = Grpc::new(client.channel()).unary(request, path, codec).await;
    let error = ended.map(|_: tonic::Response<()>| ()).expect_err("a refusal");
    Status::new(Code::from_number(error.code() as u32), error.message().to_owned())
}

fn message() -> tonic::Request<RangeRequest> {
    tonic::Request::new(RangeRequest::default())
}

/// The calls that answer Unimplemented so far, and say which they are.
const NOT_YET: &[(&str, &[&str])] = &[
    ("etcdserverpb.Cluster", &["MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"]),
    ("etcdserverpb.Maintenance", &["MoveLeader", "Downgrade"]),
    (
        "etcdserverpb.Auth",
        &[
            "AuthEnable",
            "AuthDisable",
            "AuthStatus",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
    ),
];

#[test]
fn calls_that_are_refused_whatever_they_say_change_nothing() {
    let member = Member::start(&[]);
    run(async {
        let client = member.client();
        let before = fingerprint(&client).await;
        for (service, methods) in NOT_YET {
            for method in *methods {
                let status = call(&client, &format!("/{service}/{method}"), message()).await;
                let short = service.rsplit_once('.').expect("a package").1;
                assert_eq!(status, Status::not_yet(&format!("{short}.{method}")));
            }
        }
        for (path, expected) in [
            ("/etcdserverpb.KV/Nothing", Status::unknown_method("Nothing", "etcdserverpb.KV")),
            ("/etcdserverpb.Nothing/Range", Status::unknown_service("etcdserverpb.Nothing")),
        ] {
            assert_eq!(call(&client, path, message()).await, expected);
        }
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
    (
        "users and roles",
        &[
            "RootUserNotExist",
            "RootRoleNotExist",
            "UserAlreadyExist",
            "UserEmpty",
            "UserNotFound",
            "RoleAlreadyExist",
            "RoleNotFound",
            "RoleEmpty",
            "AuthFailed",
            "PermissionNotGiven",
            "PermissionDenied",
            "RoleNotGranted",
            "PermissionNotGranted",
            "AuthNotEnabled",
            "InvalidAuthToken",
            "InvalidAuthMgmt",
            "AuthOldRevision",
            "auth: authentication failed, password was given for no password user",
            "bcrypt: password length exceeds 72 bytes",
        ],
    ),
    (
        "membership changes and other members",
        &[
            "MemberExist",
            "PeerURLExist",
            "MemberNotEnoughStarted",
            "MemberBadURLs",
            "MemberNotFound",
            "MemberNotLearner",
            "LearnerNotReady",
            "TooManyLearners",
            "ClusterIDMismatch",
            "NotSupportedForLearner",
            "NotLeader",
            "LeaderChanged",
            "BadLeaderTransferee",
            "TimeoutDueToLeaderFail",
            "TimeoutDueToConnectionLost",
            "etcdserver: request timed out, leader transfer took too long",
            "Unhealthy",
        ],
    ),
    ("capabilities", &["NotCapable"]),
    (
        "downgrades",
        &[
            "WrongDowngradeVersionFormat",
            "InvalidDowngradeTargetVersion",
            "ClusterVersionUnavailable",
            "DowngradeInProcess",
            "NoInflightDowngrade",
        ],
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
    (
        "a caller",
        &["Canceled", "DeadlineExceeded", "WatchCanceled", "context canceled", "etcdserver: unknown method"],
    ),
];

#[test]
fn every_error_of_etcds_is_produced_here_or_out_of_reach() {
    let mut produced: BTreeSet<String> =
        refusals().into_iter().map(|(_, _, status)| status.message.into_owned()).collect();
    // Of the other tests of this file, and the last of tests/locks.rs.
    for error in [
        ApiError::InvalidClientApiVersion,
        ApiError::UnknownHealthService,
        ApiError::ContextDeadlineExceeded,
        ApiError::SessionExpired,
    ] {
        produced.insert(error.text().to_owned());
    }
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
