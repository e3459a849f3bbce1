//! Who asks, and what is checked before anything is told, on a member that can be held still.

mod support;

use std::time::Duration;

use bytes::Bytes;
use node::Submission;
use prost::Message as _;
use store::AuthRequest;
use support::bed::{Bed, Client, Stream, bed, ended, frame, settle};
use support::{FakeMember, Mood};
use wire::authpb::Permission;
use wire::authpb::permission::Type;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::watch_request::RequestUnion;
use wire::v3lockpb::LockRequest;
use wire::{ApiError, Code, Status};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

const ROOT: &str = "rootrootrootroot.2";
const USER: &str = "useruseruseruser.3";

fn role_add(name: &str) -> AuthRequest {
    AuthRequest::RoleAdd(pb::AuthRoleAddRequest { name: name.into() })
}

fn user_add(name: &str) -> AuthRequest {
    let options = Some(wire::authpb::UserAddOptions { no_password: true });
    AuthRequest::UserAdd(pb::AuthUserAddRequest { name: name.into(), options, ..Default::default() })
}

fn grant_role(user: &str, role: &str) -> AuthRequest {
    AuthRequest::UserGrantRole(pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() })
}

/// Users count from now on: root, and `u`, who may read and write `a` up to `c`, and read `r`. Both have logged in.
fn enable(member: &FakeMember) {
    let grant = |perm_type: Type, key: &'static str, range_end: &'static str| {
        let perm = Permission { perm_type: perm_type.into(), key: key.into(), range_end: range_end.into() };
        AuthRequest::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
            name: "role".into(),
            perm: Some(perm),
        })
    };
    member.users_direct(vec![
        role_add("role"),
        grant(Type::Readwrite, "a", "c"),
        grant(Type::Read, "r", ""),
        user_add("root"),
        user_add("u"),
        grant_role("root", "root"),
        grant_role("u", "role"),
        AuthRequest::Enable(pb::AuthEnableRequest {}),
    ]);
    member.log_in("root", ROOT);
    member.log_in("u", USER);
}

fn range(key: &'static str) -> Bytes {
    frame(&pb::RangeRequest { key: key.into(), ..Default::default() })
}

fn put(key: &'static str) -> Bytes {
    frame(&pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() })
}

async fn as_user(client: &mut Client, path: &str, token: &str, message: Bytes) -> Status {
    client.raw(path, &[("token", token.as_bytes())], message).await.status
}

#[test]
fn the_token_says_who_asks() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        // Nobody is asked for a name before users count, whatever token there is.
        assert_eq!(as_user(&mut client, PUT, "nonsense", put("a")).await.code, Code::Ok);
        // Nor is one waited for that names an index far ahead.
        let (begun, far) = (tokio::time::Instant::now(), "madeupmadeupmade.18446744073709551615");
        let grant = frame(&pb::LeaseGrantRequest { ttl: 60, id: 0 });
        assert_eq!(as_user(&mut client, "/etcdserverpb.Lease/LeaseGrant", far, grant).await.code, Code::Ok);
        assert_eq!(begun.elapsed().as_secs(), 0);
        enable(&bed.member);
        for path in [RANGE, PUT] {
            let of = |key| if path == PUT { put(key) } else { range(key) };
            assert_eq!(as_user(&mut client, path, USER, of("b")).await.code, Code::Ok);
            assert_eq!(as_user(&mut client, path, USER, of("x")).await, ApiError::PermissionDenied.into());
            assert_eq!(as_user(&mut client, path, ROOT, of("x")).await.code, Code::Ok);
            assert_eq!(as_user(&mut client, path, "n.1", of("b")).await, ApiError::InvalidAuthToken.into());
            let bearer = format!("Bearer {USER}");
            let ended = client.raw(path, &[("authorization", bearer.as_bytes())], of("b")).await;
            assert_eq!(ended.status.code, Code::Ok);
            assert_eq!(client.raw(path, &[], of("b")).await.status, ApiError::UserEmpty.into());
        }
        assert_eq!(as_user(&mut client, PUT, USER, put("r")).await, ApiError::PermissionDenied.into());
    });
}

#[test]
fn a_proposal_carries_who_asks() {
    bed(|bed| async move {
        enable(&bed.member);
        bed.member.set_mood(Mood::Holds);
        let mut client = bed.client().await;
        let _call = client.start(PUT, &[("token", USER.as_bytes())], put("a"));
        settle().await;
        let held = bed.member.held();
        let [Submission::Propose { data, .. }] = &held[..] else { panic!("{held:?}") };
        let header = pb::InternalRaftRequest::decode(&data[..]).unwrap().header.unwrap();
        let revision = bed.lane.member().reader.auth().revision();
        assert_eq!((&*header.username, header.auth_revision), ("u", revision));
    });
}

/// Not even that of a user who is to have none.
#[test]
fn no_password_goes_into_the_log() {
    bed(|bed| async move {
        bed.member.set_mood(Mood::Holds);
        let mut client = bed.client().await;
        let options = Some(wire::authpb::UserAddOptions { no_password: true });
        let (name, password) = ("w".to_owned(), "secret".to_owned());
        let add = pb::AuthUserAddRequest { name, password, options, ..Default::default() };
        let _call = client.start("/etcdserverpb.Auth/UserAdd", &[], frame(&add));
        settle().await;
        let held = bed.member.held();
        let [Submission::Propose { data, .. }] = &held[..] else { panic!("{held:?}") };
        let add = pb::InternalRaftRequest::decode(&data[..]).unwrap().auth_user_add.unwrap();
        assert_eq!((&*add.password, &*add.hashed_password), ("", ""));
    });
}

#[test]
fn a_request_about_users_may_be_as_long_as_others() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let add = frame(&pb::AuthRoleAddRequest { name: "r".repeat(1_700_000) });
        let refused = as_user(&mut client, "/etcdserverpb.Auth/RoleAdd", "", add).await;
        assert_eq!(refused, ApiError::RequestTooLarge.into());
        assert_eq!(bed.member.proposals(), 0);
    });
}

#[test]
fn a_token_waits_until_this_member_has_applied_its_login() {
    for path in [RANGE, PUT, "/etcdserverpb.Lease/LeaseGrant", "/v3lockpb.Lock/Lock"] {
        bed(|bed| async move {
            enable(&bed.member);
            let mut client = bed.client().await;
            let message = match path {
                RANGE => {
                    frame(&pb::RangeRequest { key: "a".into(), serializable: true, ..Default::default() })
                }
                PUT => put("a"),
                "/v3lockpb.Lock/Lock" => frame(&LockRequest { name: "a".into(), lease: 0 }),
                _ => frame(&pb::LeaseGrantRequest { ttl: 60, id: 0 }),
            };
            let login = bed.member.status.applied() + 5;
            let token = format!("latelatelatelate.{}", login - 1);
            // The entry that the token names is there, and not yet the login after it.
            bed.member.status.set_committed(login - 1);
            bed.member.status.set_applied(login - 1);
            let call = client.start(path, &[("token", token.as_bytes())], message.clone());
            let mut call = tokio::task::spawn_local(ended(call));
            let waited = tokio::time::timeout(Duration::from_secs(3), &mut call).await;
            assert!(waited.is_err(), "{path}: {:?}", waited.unwrap());
            assert_eq!(bed.member.proposals(), 0, "{path}");
            bed.member.log_in("u", &token);
            bed.member.status.set_committed(login);
            bed.member.status.set_applied(login);
            assert_eq!(call.await.unwrap().status.code, Code::Ok, "{path}");
            // One that nobody gave out is waited for as long as an answer, and no longer.
            let made_up = "madeupmadeupmade.18446744073709551615";
            let begun = tokio::time::Instant::now();
            let refused = as_user(&mut client, path, made_up, message).await;
            assert_eq!(refused.message, ApiError::InvalidAuthToken.text(), "{path}");
            assert_eq!(begun.elapsed().as_secs(), 7, "{path}");
        });
    }
}

#[test]
fn what_was_read_while_users_changed_is_not_told() {
    bed(|bed| async move {
        enable(&bed.member);
        bed.member.put_direct_as_root(b"a");
        bed.member.set_cold(true);
        let (begun, permit) = bed.member.hold_reads();
        let mut client = bed.client().await;
        let call = client.start(RANGE, &[("token", USER.as_bytes())], range("a"));
        let call = tokio::task::spawn_local(ended(call));
        tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
        bed.member.users_direct_as_root(vec![role_add("more")]);
        drop(permit);
        assert_eq!(call.await.unwrap().status, ApiError::AuthOldRevision.into());
        bed.member.set_cold(false);
        assert_eq!(
            as_user(&mut client, RANGE, USER, range("a")).await.code,
            Code::Ok,
            "the token is as good"
        );
    });
}

#[test]
fn a_renewal_that_is_not_allowed_ends_the_stream_in_its_place() {
    bed(|bed| async move {
        enable(&bed.member);
        for (lease, key) in [(1, "a"), (2, "x"), (3, "b")] {
            bed.member.grant_direct(lease, 60);
            bed.member.attach_direct_as_root(key, lease);
        }
        let mut client = bed.client().await;
        let mut stream = Stream::open(&mut client, KEEP_ALIVE, &[("token", USER.as_bytes())]);
        for id in [1, 3, 2, 1] {
            stream.send(&pb::LeaseKeepAliveRequest { id });
        }
        for id in [1, 3] {
            let answer: pb::LeaseKeepAliveResponse = stream.next().await;
            assert_eq!((answer.id, answer.ttl), (id, 60));
        }
        assert_eq!(stream.end().await, ApiError::PermissionDenied.into());
    });
}

#[test]
fn a_watch_is_judged_when_it_is_created() {
    bed(|bed| async move {
        enable(&bed.member);
        let mut client = bed.client().await;
        let mut stream = Stream::open(&mut client, WATCH, &[("token", USER.as_bytes())]);
        let mut create = async |key: &'static str, start_revision: i64| -> pb::WatchResponse {
            let create = pb::WatchCreateRequest { key: key.into(), start_revision, ..Default::default() };
            stream.send(&pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
            stream.next().await
        };
        let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        for (key, start_revision, reason) in
            [("x", 0, denied), ("", 0, denied), ("x", -1, ApiError::Compacted.text()), ("a", 0, "")]
        {
            let told = create(key, start_revision).await;
            assert!(told.created, "{key}");
            assert_eq!((told.canceled, &*told.cancel_reason), (!reason.is_empty(), reason), "{key}");
            assert_eq!(told.watch_id, if reason.is_empty() { 0 } else { -1 }, "{key}");
        }
    });
}

#[test]
fn a_lock_is_its_callers() {
    bed(|bed| async move {
        enable(&bed.member);
        let mut client = bed.client().await;
        let lock = |name: &'static str| frame(&LockRequest { name: name.into(), lease: 0 });
        let refused = as_user(&mut client, "/v3lockpb.Lock/Lock", USER, lock("x")).await;
        assert_eq!(refused, Status::new(Code::Unknown, ApiError::PermissionDenied.text()));
        let refused = client.raw("/v3lockpb.Lock/Lock", &[], lock("a")).await.status;
        assert_eq!(refused, Status::new(Code::Unknown, ApiError::UserEmpty.text()));
        assert_eq!(as_user(&mut client, "/v3lockpb.Lock/Lock", USER, lock("a")).await.code, Code::Ok);
    });
}

#[test]
fn a_certificate_says_who_asks_where_there_is_no_token() {
    bed(|bed: Bed| async move {
        enable(&bed.member);
        let mut client = bed.client_certified("u").await;
        assert_eq!(client.raw(PUT, &[], put("a")).await.status.code, Code::Ok);
        assert_eq!(client.raw(PUT, &[], put("x")).await.status, ApiError::PermissionDenied.into());
        assert_eq!(client.raw(RANGE, &[], range("r")).await.status.code, Code::Ok);
        assert_eq!(as_user(&mut client, PUT, ROOT, put("x")).await.code, Code::Ok, "a token comes first");
        assert_eq!(as_user(&mut client, PUT, "n.1", put("a")).await, ApiError::InvalidAuthToken.into());
        // What comes by a gateway shows the gateway's certificate.
        let passed_on = client.raw(PUT, &[("grpcgateway-accept", b"x")], put("a")).await.status;
        assert_eq!(passed_on, ApiError::UserEmpty.into());
        let mut nameless = bed.client_certified("").await;
        assert_eq!(nameless.raw(PUT, &[], put("a")).await.status, ApiError::PermissionDenied.into());
    });
}
