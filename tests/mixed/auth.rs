//! Clusters of both kinds with authentication on: who may come in, and may do what, is the same through each member,
//! whoever leads, however a member has come to know it.

use std::path::{Path, PathBuf};

use blackbox::{Cluster, Random, patience, run};
use client::Watcher;
use wire::ApiError;
use wire::authpb::permission::Type;
use wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcdserverpb::request_op;
use wire::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest,
};

use crate::disturbed::texts;
use crate::load::Load;
use crate::paths::one_of_each;
use crate::requests::Request;
use crate::snapshots::took_one;
use crate::swap::{by_export, by_replacing, in_place, pause};
use crate::users::{
    Auth, ROOT_PASSWORD, change_password, grant_permission, grant_role, log_in, login, revoke_permission,
    revoke_role, user, user_without_password,
};
use crate::{all_write, check_logs, get, go, kind, kinds, others, ours, path_text, put, say};

/// Hashes are cheap: nobody attacks them.
const FLAGS: [&str; 3] = ["--bcrypt-cost=4", "--snapshot-count=500", "--snapshot-catchup-entries=200"];
/// Ann has the keys from a to b, and may read what is shared; Bob has those from b to c, and what is shared; Eve has no
/// role; Ida has Ann's and comes without a password.
const USERS: [&str; 4] = ["ann", "bob", "eve", "ida"];
const ROLES: [&str; 3] = ["all-a", "all-b", "shared"];
const TTL_S: i64 = 120;

/// Requests that go to one member after the other.
struct Turns(usize);

impl Turns {
    /// Asks the next member, as root if authentication is on.
    async fn ask(&mut self, cluster: &Cluster, request: Auth) {
        self.0 = (self.0 + 1) % cluster.members.len();
        let token = match cluster.token() {
            // Each change makes the tokens of some kinds old.
            Some(_) => Some(token_at(cluster, self.0, "root", ROOT_PASSWORD).await),
            None => None,
        };
        let client = cluster.members[self.0].client_with(token.as_deref());
        let answer = request.clone().send(&client).await;
        answer.unwrap_or_else(|error| panic!("{request:?}: {error}"));
    }
}

/// What all members say to this, with this token or none: the same.
async fn alike(cluster: &Cluster, token: Option<&str>, request: impl Into<Request>) -> Result<(), String> {
    let request = request.into();
    let mut outcomes = Vec::new();
    for member in &cluster.members {
        // Others may write meanwhile.
        let said = request.outcome(&member.client_with(token)).await.map(|answer| answer.text);
        outcomes.push(said);
    }
    for other in &outcomes[1..] {
        assert_eq!(*other, outcomes[0], "what members say to {request:?}");
    }
    outcomes.swap_remove(0).map(drop)
}

/// All members refuse this with this error.
async fn refused(cluster: &Cluster, token: Option<&str>, request: impl Into<Request>, error: ApiError) {
    let request = request.into();
    let said = alike(cluster, token, request.clone()).await.expect_err("it is refused");
    assert!(said.ends_with(error.text()), "{request:?}: {said}");
}

/// The token of a user who logs in at this member.
async fn token_at(cluster: &Cluster, place: usize, name: &str, password: &str) -> String {
    log_in(&cluster.members[place].client_with(None), name, password).await.expect("a login")
}

/// As [`token_at`], and all members know of the token: one of Go's that has not applied the login yet refuses it.
async fn known_token(cluster: &Cluster, place: usize, name: &str, password: &str) -> String {
    let token = token_at(cluster, place, name, password).await;
    level(cluster).await;
    token
}

/// Root comes in anew, at this member, and all members let it in: they have all that was done before.
async fn as_root(cluster: &mut Cluster, place: usize) {
    let token = token_at(cluster, place, "root", ROOT_PASSWORD).await;
    cluster.set_token(Some(token));
    level(cluster).await;
}

/// All members have what is committed.
pub async fn level(cluster: &Cluster) {
    for member in &cluster.members {
        member.client().range(get("k"), patience()).await.expect("a linearizable read");
    }
}

/// All members know the same users, roles and permissions, as root is told.
async fn same_users(cluster: &Cluster) {
    level(cluster).await;
    let token = cluster.token();
    for request in [Auth::Status, Auth::UserList, Auth::RoleList] {
        alike(cluster, token, request).await.expect("an answer");
    }
    for name in USERS.into_iter().chain(["root"]) {
        alike(cluster, token, Auth::UserGet(name.to_owned())).await.expect("a user");
    }
    for role in ROLES {
        alike(cluster, token, Auth::RoleGet(role.to_owned())).await.expect("a role");
    }
}

/// Who there is, made through one member after the other, while authentication is off.
async fn make_users(cluster: &Cluster, turns: &mut Turns) {
    refused(cluster, None, Auth::Enable, ApiError::RootUserNotExist).await;
    turns.ask(cluster, user("root", ROOT_PASSWORD)).await;
    level(cluster).await;
    refused(cluster, None, Auth::Enable, ApiError::RootRoleNotExist).await;
    refused(cluster, None, login("root", ROOT_PASSWORD), ApiError::AuthNotEnabled).await;
    turns.ask(cluster, grant_role("root", "root")).await;
    for role in ROLES {
        turns.ask(cluster, Auth::RoleAdd(role.to_owned())).await;
        refused(cluster, None, Auth::RoleAdd(role.to_owned()), ApiError::RoleAlreadyExist).await;
    }
    for name in &USERS[..3] {
        turns.ask(cluster, user(name, &format!("of {name}"))).await;
        refused(cluster, None, user(name, "p"), ApiError::UserAlreadyExist).await;
    }
    turns.ask(cluster, user_without_password("ida")).await;
    turns.ask(cluster, grant_permission("all-a", Type::Readwrite, "a", "b")).await;
    turns.ask(cluster, grant_permission("all-a", Type::Read, "shared", "")).await;
    turns.ask(cluster, grant_permission("all-b", Type::Readwrite, "b", "bm")).await;
    turns.ask(cluster, grant_permission("all-b", Type::Readwrite, "bm", "c")).await;
    turns.ask(cluster, grant_permission("shared", Type::Readwrite, "shared", "")).await;
    for (name, role) in [("ann", "all-a"), ("bob", "all-b"), ("bob", "shared"), ("ida", "all-a")] {
        turns.ask(cluster, grant_role(name, role)).await;
    }
    let nobodys = grant_role("ann", "nobody's");
    refused(cluster, None, nobodys, ApiError::RoleNotFound).await;
    same_users(cluster).await;
}

/// They are made, authentication is on, and the clients of all members are root's.
pub async fn make_users_and_enable(cluster: &mut Cluster) {
    let mut turns = Turns(0);
    make_users(cluster, &mut turns).await;
    turns.ask(cluster, Auth::Enable).await;
    as_root(cluster, 0).await;
}

fn range(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest { range_end: range_end.to_owned().into(), ..get(key) }
}

fn watch(key: &str, range_end: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..Default::default()
    }
}

fn delete(key: &str, range_end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..Default::default()
    }
}

/// Compares one key, and in one case puts another, else reads a third.
fn txn(compared: &str, written: &str, read: &str) -> TxnRequest {
    let compare = Compare {
        key: compared.to_owned().into(),
        target: CompareTarget::Version.into(),
        result: CompareResult::Greater.into(),
        target_union: Some(TargetUnion::Version(-1)),
        ..Compare::default()
    };
    let op = |request| RequestOp { request: Some(request) };
    TxnRequest {
        compare: vec![compare],
        success: vec![op(request_op::Request::RequestPut(put(written, "v")))],
        failure: vec![op(request_op::Request::RequestRange(get(read)))],
    }
}

/// What a user logs in with at one member is good at each of them.
async fn tokens_go_around(cluster: &Cluster) {
    for issuer in others(cluster, &[]) {
        let ann = known_token(cluster, issuer, "ann", "of ann").await;
        let bob = known_token(cluster, issuer, "bob", "of bob").await;
        for place in others(cluster, &[]) {
            let member = &cluster.members[place];
            let key = format!("a{issuer}{place}");
            let client = member.client_with(Some(&ann));
            client.put(put(&key, "v"), patience()).await.expect("a put");
            let found = client.range(range("a", "b"), patience()).await.expect("a read");
            assert!(found.kvs.iter().any(|kv| kv.key == key), "{key} is there");
            let client = member.client_with(Some(&bob));
            client.put(put("shared", &key), patience()).await.expect("a put of another's");
            client.txn(txn("bx", "by", "bz"), patience()).await.expect("a transaction");
            // Two permissions side by side are one.
            client.range(range("b", "c"), patience()).await.expect("a read of two ranges");
            let client = member.client_with(Some(&ann));
            let found = client.range(get("shared"), patience()).await.expect("a read of what is shared");
            assert_eq!(found.kvs[0].value, key, "read by another user through the same member");
            client.txn(txn("shared", "ax", "shared"), patience()).await.expect("a transaction");
        }
    }
}

/// Requests that Ann may not make, and who has no role even less.
fn not_for_ann() -> Vec<Request> {
    let put_with_old = PutRequest { prev_kv: true, ..put("shared", "v") };
    let mut requests = vec![
        Request::Put(put("b", "v")),
        Request::Put(put("shared", "v")),
        Request::Put(put_with_old),
        Request::Range(get("b")),
        Request::Range(range("a", "ba")),
        Request::Range(RangeRequest { serializable: true, ..range("a", "ba") }),
        Request::Range(range("a", "\0")),
        Request::RangeStream(range("\0", "\0")),
        Request::Delete(delete("b", "")),
        Request::Delete(delete("a", "c")),
        Request::Txn(txn("b", "a", "a")),
        Request::Txn(txn("a", "b", "a")),
        Request::Txn(txn("a", "a", "b")),
        Request::Compact(CompactionRequest { revision: 1, physical: false }),
        Request::HashKv(0),
        Request::Defragment,
    ];
    let not_here = ["root", "bob"].map(|name| Auth::UserGet(name.to_owned()));
    requests.extend(not_here.map(Request::Auth));
    let changes = [
        user("ann", "p"),
        Auth::UserDelete("bob".to_owned()),
        change_password("bob", "p"),
        grant_role("ann", "root"),
        revoke_role("bob", "all-b"),
        Auth::UserList,
        Auth::RoleAdd("mine".to_owned()),
        Auth::RoleGet("shared".to_owned()),
        Auth::RoleDelete("shared".to_owned()),
        Auth::RoleList,
        grant_permission("all-a", Type::Write, "shared", ""),
        revoke_permission("all-a", "shared", ""),
        Auth::Enable,
        Auth::Disable,
    ];
    requests.extend(changes.map(Request::Auth));
    requests
}

/// Who may not is refused by each member in the same words; and so is who is nobody.
async fn refusals(cluster: &Cluster) {
    let ann = known_token(cluster, 0, "ann", "of ann").await;
    let eve = known_token(cluster, 1, "eve", "of eve").await;
    for request in not_for_ann() {
        for token in [&ann, &eve] {
            refused(cluster, Some(token), request.clone(), ApiError::PermissionDenied).await;
        }
        refused(cluster, None, request.clone(), ApiError::UserEmpty).await;
        refused(cluster, Some("abcdefghijklmnop.17"), request, ApiError::InvalidAuthToken).await;
    }
    for token in [Some(&*ann), Some(&*eve), None, Some("made up")] {
        // Whether a watch is made is said in an answer.
        for request in [watch("b", ""), watch("a", "\0")].map(Request::Watch) {
            let _ = alike(cluster, token, request).await;
        }
        // Some of these need no login.
        for request in [Auth::Status, Auth::UserGet("ann".to_owned()), Auth::RoleGet("all-a".to_owned())] {
            let _ = alike(cluster, token, request).await;
        }
        let _ = alike(cluster, token, Request::Alarms).await;
    }
    for (name, password) in [("ann", "of bob"), ("ann", ""), ("nobody", "p"), ("", "")] {
        refused(cluster, None, login(name, password), ApiError::AuthFailed).await;
    }
    let without = alike(cluster, None, login("ida", "")).await;
    without.expect_err("who has no password cannot log in");
    let root = cluster.token();
    refused(cluster, root, Auth::UserDelete("root".to_owned()), ApiError::InvalidAuthMgmt).await;
    refused(cluster, root, Auth::RoleDelete("root".to_owned()), ApiError::InvalidAuthMgmt).await;
    refused(cluster, root, revoke_role("root", "root"), ApiError::InvalidAuthMgmt).await;
    refused(cluster, root, revoke_role("eve", "all-a"), ApiError::RoleNotGranted).await;
    let other = revoke_permission("all-a", "a", "aa");
    refused(cluster, root, other, ApiError::PermissionNotGranted).await;
}

/// What a lease holds decides who may end it, renew it and see its keys.
async fn leases(cluster: &Cluster) {
    let ann = known_token(cluster, 0, "ann", "of ann").await;
    let bob = known_token(cluster, 1, "bob", "of bob").await;
    for (place, member) in cluster.members.iter().enumerate() {
        let client = member.client_with(Some(&ann));
        let grant = LeaseGrantRequest { ttl: TTL_S, id: 0 };
        let id = client.grant(grant, patience()).await.expect("a lease").id;
        let leased = PutRequest { lease: id, ..put(&format!("al{place}"), "v") };
        client.put(leased, patience()).await.expect("a put");
        level(cluster).await;
        for other in &cluster.members {
            let client = other.client_with(Some(&ann));
            let renewed = client.keep_alive_once(id, patience()).await.expect("renewed through any member");
            assert_eq!(renewed.ttl, TTL_S);
            let left = client.time_to_live(id, true, patience()).await.expect("the time through any member");
            assert_eq!(left.keys.len(), 1);
            other
                .client_with(Some(&bob))
                .time_to_live(id, false, patience())
                .await
                .expect("without the keys");
        }
        for request in [Request::Revoke(id), Request::KeepAlive(id), Request::TimeToLive(id), Request::Leases]
        {
            refused(cluster, Some(&bob), request.clone(), ApiError::PermissionDenied).await;
            refused(cluster, None, request, ApiError::UserEmpty).await;
        }
        let put_by_another = Request::Put(PutRequest { lease: id, ..put("b", "v") });
        refused(cluster, Some(&bob), put_by_another, ApiError::PermissionDenied).await;
        let other = &cluster.members[(place + 1) % cluster.members.len()];
        other.client_with(Some(&ann)).revoke(id, patience()).await.expect("revoked through another member");
    }
}

/// What a watch has seen, until the last key comes.
async fn history(mut watcher: Watcher, last: &str) -> Vec<String> {
    let mut events = Vec::new();
    loop {
        let watched = watcher.next().await.expect("the watch goes on");
        assert!(watched.end.is_none(), "the watch ended: {:?}", watched.end);
        for event in watched.response.events {
            let is_last = event.kv.as_ref().is_some_and(|kv| kv.key == last);
            events.push(format!("{event:?}"));
            if is_last {
                return events;
            }
        }
    }
}

/// A user's watches at each member see what the user writes through each.
async fn watches(cluster: &Cluster) {
    let ann = known_token(cluster, 1, "ann", "of ann").await;
    level(cluster).await;
    let mut histories = Vec::new();
    for member in &cluster.members {
        let mut watcher = member.client_with(Some(&ann)).watcher(false);
        watcher.watch(watch("a", "b")).expect("a small request");
        let made = watcher.next().await.expect("a watch");
        assert!(made.response.created && made.end.is_none(), "{:?}", made.end);
        histories.push(watcher);
    }
    for (place, member) in cluster.members.iter().enumerate() {
        let client = member.client_with(Some(&ann));
        client.put(put("aw", &format!("{place}")), patience()).await.expect("a put");
        client.delete_range(delete("aw", ""), patience()).await.expect("a delete");
    }
    cluster.put(0, "b", "not for ann").await;
    cluster.put(0, "az", "the last one").await;
    let mut first = None;
    for watcher in histories {
        let seen = history(watcher, "az").await;
        assert_eq!(seen.len(), 2 * cluster.members.len() + 1);
        assert_eq!(seen, *first.get_or_insert(seen.clone()), "watches at different members");
    }
}

/// Changes of what users may do, and their passwords: each through one member, seen through all.
async fn changes(cluster: &mut Cluster, turns: &mut Turns) {
    let ann = known_token(cluster, 0, "ann", "of ann").await;
    turns.ask(cluster, grant_permission("all-a", Type::Write, "shared", "")).await;
    as_root(cluster, 0).await;
    let (ann_before, ann) = (ann, known_token(cluster, 1, "ann", "of ann").await);
    refused(cluster, Some(&ann), Request::Range(get("shared")), ApiError::PermissionDenied).await;
    alike_done(cluster, &ann, "shared").await;
    turns.ask(cluster, revoke_permission("all-a", "shared", "")).await;
    turns.ask(cluster, revoke_role("bob", "all-b")).await;
    as_root(cluster, 1).await;
    let ann = known_token(cluster, 2, "ann", "of ann").await;
    refused(cluster, Some(&ann), Request::Put(put("shared", "v")), ApiError::PermissionDenied).await;
    let bob = known_token(cluster, 0, "bob", "of bob").await;
    refused(cluster, Some(&bob), Request::Put(put("b", "v")), ApiError::PermissionDenied).await;
    alike_done(cluster, &bob, "shared").await;

    turns.ask(cluster, change_password("ann", "new")).await;
    as_root(cluster, 2).await;
    for token in [&ann_before, &ann] {
        let said = alike(cluster, Some(token), Request::Put(put("a", "v"))).await;
        said.expect_err("a token of before the password was changed");
    }
    refused(cluster, None, login("ann", "of ann"), ApiError::AuthFailed).await;
    for place in others(cluster, &[]) {
        let ann = known_token(cluster, place, "ann", "new").await;
        alike_done(cluster, &ann, "a").await;
    }
    turns.ask(cluster, change_password("ann", "of ann")).await;
    turns.ask(cluster, Auth::UserDelete("eve".to_owned())).await;
    as_root(cluster, 0).await;
    refused(cluster, None, login("eve", "of eve"), ApiError::AuthFailed).await;
    turns.ask(cluster, Auth::RoleDelete("shared".to_owned())).await;
    as_root(cluster, 1).await;
    let bob = known_token(cluster, 1, "bob", "of bob").await;
    refused(cluster, Some(&bob), Request::Put(put("shared", "v")), ApiError::PermissionDenied).await;
    // As it was.
    turns.ask(cluster, Auth::RoleAdd("shared".to_owned())).await;
    as_root(cluster, 0).await;
    let to_make = [
        user("eve", "of eve"),
        grant_permission("all-a", Type::Read, "shared", ""),
        grant_permission("shared", Type::Readwrite, "shared", ""),
        grant_role("bob", "shared"),
        grant_role("bob", "all-b"),
    ];
    for request in to_make {
        turns.ask(cluster, request).await;
        as_root(cluster, turns.0).await;
    }
    same_users(cluster).await;
}

/// The user puts this key through each member.
async fn alike_done(cluster: &Cluster, token: &str, key: &str) {
    for member in &cluster.members {
        let client = member.client_with(Some(token));
        client.put(put(key, "v"), patience()).await.expect("a put that is permitted");
    }
}

/// Off through one member, and on again through another: tokens of before are good for nothing.
async fn off_and_on(cluster: &mut Cluster, turns: &mut Turns) {
    let ann = known_token(cluster, 0, "ann", "of ann").await;
    turns.ask(cluster, Auth::Disable).await;
    cluster.set_token(None);
    level(cluster).await;
    refused(cluster, None, login("ann", "of ann"), ApiError::AuthNotEnabled).await;
    for member in &cluster.members {
        // Tokens are not looked at.
        member.client_with(Some(&ann)).put(put("b", "v"), patience()).await.expect("anybody may do anything");
        member.client().put(put("c", "v"), patience()).await.expect("anybody may do anything");
    }
    same_users(cluster).await;
    turns.ask(cluster, Auth::Enable).await;
    as_root(cluster, 1).await;
    alike(cluster, Some(&ann), Request::Range(get("a"))).await.expect_err("a token of before");
    same_users(cluster).await;
    cluster.check_hashes().await;
}

/// All that users may and may not, with each kind leading.
fn scenario(programs: &[PathBuf], tokens: &str) -> Cluster {
    let mut cluster = Cluster::of(programs, &FLAGS);
    cluster.add_flags(&["--auth-token", tokens]);
    cluster.restart(&others(&cluster, &[]));
    let leaders = if programs.contains(&ours()) { one_of_each(programs).to_vec() } else { vec![0] };
    run(async {
        make_users_and_enable(&mut cluster).await;
        let mut turns = Turns(0);
        for leader in leaders {
            as_root(&mut cluster, leader).await;
            cluster.let_lead(leader).await;
            tokens_go_around(&cluster).await;
            refusals(&cluster).await;
            leases(&cluster).await;
            watches(&cluster).await;
            changes(&mut cluster, &mut turns).await;
            off_and_on(&mut cluster, &mut turns).await;
            cluster.let_lead(leader).await;
            say(format!("[{}], {} leads: users, tokens, refusals", kinds(programs), kind(&programs[leader])));
        }
        for place in others(&cluster, &[]) {
            cluster.members[place].terminate();
            cluster.restart(&[place]);
            as_root(&mut cluster, place).await;
            same_users(&cluster).await;
        }
        tokens_go_around(&cluster).await;
        cluster.check_hashes().await;
        say("  the same after each was started again; HashKV equal");
    });
    cluster
}

/// What is expected is what members of Go's do among themselves, and what they log there they may log here.
fn scenarios(tokens: &str) {
    let allowed: Vec<String> = texts(&scenario(&[go(), go(), go()], tokens)).into_iter().collect();
    say(format!("  errors in the logs: {allowed:?}"));
    for programs in [[go(), ours(), go()], [ours(), go(), ours()]] {
        check_logs(&scenario(&programs, tokens), &allowed);
    }
}

#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn auth_on() {
    scenarios("simple");
}

/// A key with which members sign tokens and check them, in two files.
pub fn jwt(folder: &Path) -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let (private, public) = (folder.join("private.pem"), folder.join("public.pem"));
    std::fs::write(&private, key.serialize_pem()).expect("a file");
    std::fs::write(&public, key.public_key_pem()).expect("a file");
    let (private, public) = (path_text(&private), path_text(&public));
    format!("jwt,pub-key={public},priv-key={private},sign-method=ES256,ttl=1h")
}

#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn auth_on_with_jwt() {
    let folder = tempfile::tempdir().expect("a folder");
    scenarios(&jwt(folder.path()));
}

/// Users are there, come in and are held back at this member, whatever way it has come to know them.
pub async fn users_at(cluster: &Cluster, place: usize) {
    same_users(cluster).await;
    let ann = known_token(cluster, place, "ann", "of ann").await;
    alike_done(cluster, &ann, "a").await;
    refused(cluster, Some(&ann), Request::Put(put("b", "v")), ApiError::PermissionDenied).await;
    refused(cluster, None, Request::Range(get("a")), ApiError::UserEmpty).await;
}

/// A running cluster goes over to ours and back with authentication on, under load: in each of the ways.
#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn auth_swap() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::of(&[go(), go(), go()], &FLAGS);
    // The members are stopped under the load: tokens shall outlive them.
    let tokens = jwt(folder.path());
    cluster.add_flags(&["--auth-token", &tokens]);
    cluster.restart(&[0, 1, 2]);
    run(async {
        make_users_and_enable(&mut cluster).await;
        let load = Load::start(&cluster, true);
        load.go_on(pause()).await;
        in_place(&mut cluster, 0, &ours());
        settled(&cluster, 0, &load).await;
        by_replacing(&mut cluster, 1, &ours()).await;
        settled(&cluster, 1, &load).await;
        in_place(&mut cluster, 2, &ours());
        settled(&cluster, 2, &load).await;
        by_replacing(&mut cluster, 0, &go()).await;
        settled(&cluster, 0, &load).await;
        by_export(&mut cluster, 1, &go());
        settled(&cluster, 1, &load).await;
        by_export(&mut cluster, 2, &go());
        settled(&cluster, 2, &load).await;
        load.check(&cluster).await;
    });
    check_logs(&cluster, &[]);
}

/// The member is back, its users are those of the others, and the load goes on.
async fn settled(cluster: &Cluster, place: usize, load: &Load) {
    cluster.put(place, "settled", "v").await;
    users_at(cluster, place).await;
    load.check_hashes(cluster).await;
    load.go_on(pause()).await;
}

/// A snapshot brings users and roles, over those that the member had.
#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn auth_snapshots() {
    const FLAGS: [&str; 3] = ["--bcrypt-cost=4", "--snapshot-count=100", "--snapshot-catchup-entries=50"];
    for (leader, follower) in [(go(), ours()), (ours(), go())] {
        let mut cluster = Cluster::of(&[leader.clone(), follower.clone(), leader.clone()], &FLAGS);
        cluster.restart(&[0, 1, 2]);
        run(async {
            make_users_and_enable(&mut cluster).await;
            cluster.let_lead(0).await;
            cluster.members[1].kill();
            let client = cluster.members[0].client();
            for request in [
                change_password("ann", "newer"),
                revoke_role("bob", "shared"),
                Auth::RoleDelete("shared".to_owned()),
                Auth::RoleAdd("shared".to_owned()),
                Auth::UserDelete("eve".to_owned()),
                user("eve", "of eve"),
            ] {
                request.send(&client).await.expect("a change");
            }
            let mut random = Random::new(1);
            let mut revision = 0;
            for n in 0..400 {
                let value = crate::value(&mut random, 1_000).into();
                let put = PutRequest { key: format!("k{}", n % 300).into(), value, ..Default::default() };
                let answer = client.put(put, patience()).await.expect("a put");
                revision = answer.header.expect("a header").revision;
            }
            let compaction = CompactionRequest { revision: revision - 10, physical: true };
            client.compact(compaction, patience()).await.expect("a compaction");
            cluster.restart(&[1]);
            as_root(&mut cluster, 1).await;
            assert!(took_one(&follower, &cluster.members[1].log()), "{}", cluster.members[1].log());
            refused(&cluster, None, login("ann", "of ann"), ApiError::AuthFailed).await;
            let ann = known_token(&cluster, 1, "ann", "newer").await;
            alike_done(&cluster, &ann, "a").await;
            let bob = known_token(&cluster, 1, "bob", "of bob").await;
            refused(&cluster, Some(&bob), Request::Put(put("shared", "v")), ApiError::PermissionDenied).await;
            same_users(&cluster).await;
            // It goes on alone on what it got.
            cluster.members[1].terminate();
            cluster.restart(&[1]);
            as_root(&mut cluster, 1).await;
            same_users(&cluster).await;
            cluster.let_lead(1).await;
            all_write(&cluster, &[0, 1, 2]).await;
            same_users(&cluster).await;
            cluster.check_hashes().await;
        });
        check_logs(&cluster, &[]);
        say(format!(
            "a follower ({}) got a snapshot with users of its leader ({}), started again on it, and led",
            kind(&follower),
            kind(&leader)
        ));
    }
}
