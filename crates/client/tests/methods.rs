//! Which RPC each method calls and what it makes of the answer: against a server that answers by a script.

mod script;

use std::fmt::Debug;
use std::time::Duration;

use client::{Client, Config, Deadline, Error};
use prost::Message;
use script::{DONE, Heard, Step, say};
use tokio::sync::mpsc::UnboundedReceiver;
use wire::Code;
use wire::authpb::{Permission, UserAddOptions};
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{
    AlarmRequest, AlarmResponse, AuthDisableRequest, AuthDisableResponse, AuthEnableRequest,
    AuthEnableResponse, AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest,
    AuthRoleDeleteResponse, AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse,
    AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
    AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
    AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, HashKvRequest,
    HashKvResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseLeasesRequest, LeaseLeasesResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    MemberListRequest, MemberListResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RangeStreamResponse, ResponseHeader, StatusRequest, StatusResponse, TxnRequest, TxnResponse,
};
use wire::mvccpb::KeyValue;

/// Long enough for a busy machine; nothing waits for it.
const LONG: Duration = Duration::from_secs(60);

/// A client of a server that answers every call by these steps, and the calls.
async fn server(steps: &[Step]) -> (Client, UnboundedReceiver<Heard>) {
    let (config, heard) = listen(steps).await;
    (Client::new(config).unwrap(), heard)
}

async fn listen(steps: &[Step]) -> (Config, UnboundedReceiver<Heard>) {
    let steps = steps.to_vec();
    script::listen(move |_| steps.clone()).await
}

/// The call reaches this RPC with this request, and gives back the answer.
async fn check<Q, A>(
    path: &str,
    request: Q,
    answer: A,
    call: impl AsyncFnOnce(&Client, Q, Deadline) -> Result<A, Error>,
) where
    Q: Message + Default + Clone + PartialEq + Debug,
    A: Message + Clone + PartialEq + Debug,
{
    let (client, mut heard) = server(&[say(answer.clone()), DONE]).await;
    let given = call(&client, request.clone(), Deadline::after(LONG)).await;
    assert_eq!(given.unwrap(), answer, "{path}");
    let heard = heard.recv().await.unwrap();
    assert_eq!(heard.path, path);
    assert!(heard.timed, "{path}");
    assert_eq!(Q::decode(heard.message).unwrap(), request, "{path}");
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: 1, member_id: 2, revision, raft_term: 3 })
}

fn pair(key: &'static str) -> KeyValue {
    KeyValue { key: key.into(), value: "v".into(), ..KeyValue::default() }
}

#[tokio::test]
async fn methods_of_keys() {
    check(
        "/etcdserverpb.KV/Range",
        RangeRequest { key: "a".into(), limit: 3, ..RangeRequest::default() },
        RangeResponse { header: header(4), kvs: vec![pair("a")], more: true, count: 9 },
        async |client, request, deadline| client.range(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.KV/Put",
        PutRequest { key: "a".into(), lease: 7, ignore_value: true, ..PutRequest::default() },
        PutResponse { header: header(4), prev_kv: Some(pair("a")) },
        async |client, request, deadline| client.put(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.KV/DeleteRange",
        DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true },
        DeleteRangeResponse { header: header(4), deleted: 1, prev_kvs: vec![pair("a")] },
        async |client, request, deadline| client.delete_range(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.KV/Txn",
        TxnRequest { compare: vec![Default::default()], ..TxnRequest::default() },
        TxnResponse { header: header(4), succeeded: true, responses: Vec::new() },
        async |client, request, deadline| client.txn(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.KV/Compact",
        CompactionRequest { revision: 5, physical: true },
        CompactionResponse { header: header(8) },
        async |client, request, deadline| client.compact(request, deadline).await,
    )
    .await;
}

#[tokio::test]
async fn methods_of_leases() {
    check(
        "/etcdserverpb.Lease/LeaseGrant",
        LeaseGrantRequest { ttl: 10, id: 7 },
        LeaseGrantResponse { header: header(4), id: 7, ttl: 10, error: String::new() },
        async |client, request, deadline| client.grant(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Lease/LeaseRevoke",
        LeaseRevokeRequest { id: -7 },
        LeaseRevokeResponse { header: header(4) },
        async |client, request, deadline| client.revoke(request.id, deadline).await,
    )
    .await;
    for keys in [false, true] {
        check(
            "/etcdserverpb.Lease/LeaseTimeToLive",
            LeaseTimeToLiveRequest { id: 7, keys },
            LeaseTimeToLiveResponse {
                header: header(4),
                id: 7,
                ttl: -1,
                granted_ttl: 10,
                keys: vec!["a".into()],
            },
            async |client, request, deadline| client.time_to_live(request.id, request.keys, deadline).await,
        )
        .await;
    }
    check(
        "/etcdserverpb.Lease/LeaseLeases",
        LeaseLeasesRequest::default(),
        LeaseLeasesResponse { header: header(4), leases: vec![LeaseStatus { id: 7 }] },
        async |client, _, deadline| client.leases(deadline).await,
    )
    .await;
}

#[tokio::test]
async fn methods_of_maintenance_and_cluster() {
    check(
        "/etcdserverpb.Maintenance/Status",
        StatusRequest::default(),
        StatusResponse { header: header(4), version: "3.7.1".to_owned(), ..StatusResponse::default() },
        async |client, _, deadline| client.status(deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Maintenance/HashKV",
        HashKvRequest { revision: 3 },
        HashKvResponse { header: header(4), hash: 5, compact_revision: -1, hash_revision: 3 },
        async |client, request, deadline| client.hash_kv(request.revision, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Maintenance/Alarm",
        AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() },
        AlarmResponse { header: header(4), alarms: vec![Default::default()] },
        async |client, _, deadline| client.alarms(deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Cluster/MemberList",
        MemberListRequest { linearizable: true },
        MemberListResponse { header: header(0), members: vec![Default::default()] },
        async |client, _, deadline| client.members(deadline).await,
    )
    .await;
}

#[tokio::test]
async fn methods_of_authentication() {
    check(
        "/etcdserverpb.Auth/Authenticate",
        AuthenticateRequest { name: "a".into(), password: "pw".into() },
        AuthenticateResponse { header: header(4), token: "t".into() },
        async |client, request, deadline| client.authenticate(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/AuthEnable",
        AuthEnableRequest {},
        AuthEnableResponse { header: header(4) },
        async |client, _, deadline| client.auth_enable(deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/AuthDisable",
        AuthDisableRequest {},
        AuthDisableResponse { header: header(4) },
        async |client, _, deadline| client.auth_disable(deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/AuthStatus",
        AuthStatusRequest {},
        AuthStatusResponse { header: header(4), enabled: true, auth_revision: 3 },
        async |client, _, deadline| client.auth_status(deadline).await,
    )
    .await;
}

#[tokio::test]
async fn methods_of_users() {
    check(
        "/etcdserverpb.Auth/UserAdd",
        AuthUserAddRequest {
            name: "a".into(),
            options: Some(UserAddOptions { no_password: true }),
            ..AuthUserAddRequest::default()
        },
        AuthUserAddResponse { header: header(4) },
        async |client, request, deadline| client.user_add(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/UserGet",
        AuthUserGetRequest { name: "a".into() },
        AuthUserGetResponse { header: header(4), roles: vec!["r".into()] },
        async |client, request, deadline| client.user_get(request.name, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/UserList",
        AuthUserListRequest {},
        AuthUserListResponse { header: header(4), users: vec!["a".into()] },
        async |client, _, deadline| client.user_list(deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/UserDelete",
        AuthUserDeleteRequest { name: "a".into() },
        AuthUserDeleteResponse { header: header(4) },
        async |client, request, deadline| client.user_delete(request.name, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/UserChangePassword",
        AuthUserChangePasswordRequest {
            name: "a".into(),
            password: "pw".into(),
            ..AuthUserChangePasswordRequest::default()
        },
        AuthUserChangePasswordResponse { header: header(4) },
        async |client, request, deadline| client.user_change_password(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/UserGrantRole",
        AuthUserGrantRoleRequest { user: "a".into(), role: "r".into() },
        AuthUserGrantRoleResponse { header: header(4) },
        async |client, request, deadline| client.user_grant_role(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/UserRevokeRole",
        AuthUserRevokeRoleRequest { name: "a".into(), role: "r".into() },
        AuthUserRevokeRoleResponse { header: header(4) },
        async |client, request, deadline| client.user_revoke_role(request, deadline).await,
    )
    .await;
}

#[tokio::test]
async fn methods_of_roles() {
    let permission = Permission { perm_type: 2, key: "k".into(), range_end: "l".into() };
    check(
        "/etcdserverpb.Auth/RoleAdd",
        AuthRoleAddRequest { name: "r".into() },
        AuthRoleAddResponse { header: header(4) },
        async |client, request, deadline| client.role_add(request.name, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/RoleGet",
        AuthRoleGetRequest { role: "r".into() },
        AuthRoleGetResponse { header: header(4), perm: vec![permission.clone()] },
        async |client, request, deadline| client.role_get(request.role, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/RoleList",
        AuthRoleListRequest {},
        AuthRoleListResponse { header: header(4), roles: vec!["r".into()] },
        async |client, _, deadline| client.role_list(deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/RoleDelete",
        AuthRoleDeleteRequest { role: "r".into() },
        AuthRoleDeleteResponse { header: header(4) },
        async |client, request, deadline| client.role_delete(request.role, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/RoleGrantPermission",
        AuthRoleGrantPermissionRequest { name: "r".into(), perm: Some(permission) },
        AuthRoleGrantPermissionResponse { header: header(4) },
        async |client, request, deadline| client.role_grant_permission(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Auth/RoleRevokePermission",
        AuthRoleRevokePermissionRequest { role: "r".into(), key: "k".into(), range_end: "l".into() },
        AuthRoleRevokePermissionResponse { header: header(4) },
        async |client, request, deadline| client.role_revoke_permission(request, deadline).await,
    )
    .await;
}

#[tokio::test]
async fn a_call_without_a_deadline_says_none() {
    let (client, mut heard) = server(&[say(LeaseLeasesResponse::default()), DONE]).await;
    client.leases(Deadline::NEVER).await.unwrap();
    assert!(!heard.recv().await.unwrap().timed);
    // The server's own deadline is not this call's.
    let (client, _heard) =
        server(&[Step::End(Code::DeadlineExceeded, "etcdserver: request timed out")]).await;
    let error = client.leases(Deadline::NEVER).await.unwrap_err();
    assert!(matches!(error, Error::Status(_)), "{error:?}");
}

fn all() -> RangeRequest {
    RangeRequest { key: "a".into(), range_end: "\0".into(), limit: 3, ..RangeRequest::default() }
}

fn chunk(response: RangeResponse) -> Step {
    say(RangeStreamResponse { range_response: Some(response) })
}

fn pairs(keys: &[&'static str]) -> Step {
    chunk(RangeResponse { kvs: keys.iter().copied().map(pair).collect(), ..RangeResponse::default() })
}

#[tokio::test]
async fn a_stream_of_chunks_becomes_one_answer() {
    let last = RangeResponse { header: header(4), kvs: vec![pair("c")], more: true, count: 9 };
    let nothing = say(RangeStreamResponse { range_response: None });
    let (client, mut heard) =
        server(&[pairs(&["a"]), nothing, pairs(&["b"]), chunk(last.clone()), DONE]).await;
    let answer = client.range_stream(all(), Deadline::after(LONG)).await.unwrap();
    assert_eq!(answer, RangeResponse { kvs: vec![pair("a"), pair("b"), pair("c")], ..last });
    let heard = heard.recv().await.unwrap();
    assert_eq!(heard.path, "/etcdserverpb.KV/RangeStream");
    assert_eq!(RangeRequest::decode(heard.message).unwrap(), all());

    let (client, _heard) = server(&[DONE]).await;
    let answer = client.range_stream(all(), Deadline::after(LONG)).await.unwrap();
    assert_eq!(answer, RangeResponse::default());
}

/// What came before is not given out: it is not the range.
#[tokio::test]
async fn a_stream_that_fails_is_no_answer() {
    let text = "etcdserver: mvcc: required revision has been compacted";
    let compacted = Step::End(Code::OutOfRange, text);
    for steps in [vec![compacted.clone()], vec![pairs(&["a", "b"]), compacted]] {
        let (client, _heard) = server(&steps).await;
        let error = client.range_stream(all(), Deadline::after(LONG)).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.code()), (text, Some(Code::OutOfRange)));
    }

    let (client, _heard) = server(&[pairs(&["a"]), Step::Wait]).await;
    let error = client.range_stream(all(), Deadline::after(Duration::from_millis(50))).await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded), "{error:?}");

    let (client, _heard) = server(&[pairs(&["a"]), Step::Break]).await;
    let error = client.range_stream(all(), Deadline::after(LONG)).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unavailable), "{error}");
}

#[tokio::test]
async fn the_limit_of_an_answer_holds_for_each_chunk() {
    let (a, b) = (pairs(&["a"]), pairs(&["b", "c"]));
    let (Step::Say(small), Step::Say(large)) = (&a, &b) else { unreachable!("chunks are messages") };
    let (small, large) = (small.len(), large.len());
    let (config, _heard) = listen(&[a.clone(), b, a, DONE]).await;
    let limited = |bytes: usize| {
        Client::new(Config { answer_bytes_max: bytes.try_into().unwrap(), ..config.clone() }).unwrap()
    };
    let answer = limited(large).range_stream(all(), Deadline::after(LONG)).await.unwrap();
    assert_eq!(answer.kvs.len(), 4);
    let error = limited(small).range_stream(all(), Deadline::after(LONG)).await.unwrap_err();
    let text = format!("grpc: received message larger than max ({large} vs. {small})");
    assert_eq!(error.to_string(), format!("rpc error: code = ResourceExhausted desc = {text}"));
}
