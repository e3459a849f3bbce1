//! Users, roles and rights as replicated state: what each request changes and refuses, who may do what, and that a start
//! finds it all again (behaviours.md, "Auth").

mod support;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use store::{Auth, AuthChange, AuthRequest, Caller, Store, encode_tables};
use support::{Member, bytes};
use wire::authpb::permission::Type;
use wire::authpb::{Permission, UserAddOptions};
use wire::etcdserverpb as pb;
use wire::etcdserverpb::request_op::Request;
use wire::{ApiError, authpb};

const ROOT: &str = "root";

/// A permission: its kind, its key, and its range's end.
type Granted = (Type, &'static str, &'static str);

/// A member whose requests about users are numbered on.
struct Tested {
    member: Member,
    next_id: u64,
}

fn user_add(name: &str) -> AuthRequest {
    AuthRequest::UserAdd(pb::AuthUserAddRequest {
        name: name.into(),
        hashed_password: "aGFzaA==".into(),
        ..Default::default()
    })
}

fn role_add(name: &str) -> AuthRequest {
    AuthRequest::RoleAdd(pb::AuthRoleAddRequest { name: name.into() })
}

fn grant_role(user: &str, role: &str) -> AuthRequest {
    AuthRequest::UserGrantRole(pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() })
}

fn revoke_role(name: &str, role: &str) -> AuthRequest {
    AuthRequest::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name: name.into(), role: role.into() })
}

fn grant(name: &str, perm_type: Type, key: &str, end: &str) -> AuthRequest {
    let perm = Permission { perm_type: perm_type.into(), key: bytes(key), range_end: bytes(end) };
    AuthRequest::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
        name: name.into(),
        perm: Some(perm),
    })
}

fn revoke(role: &str, key: &str, end: &str) -> AuthRequest {
    let (key, range_end) = (bytes(key), bytes(end));
    AuthRequest::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest {
        role: role.into(),
        key,
        range_end,
    })
}

fn user_delete(name: &str) -> AuthRequest {
    AuthRequest::UserDelete(pb::AuthUserDeleteRequest { name: name.into() })
}

fn role_delete(role: &str) -> AuthRequest {
    AuthRequest::RoleDelete(pb::AuthRoleDeleteRequest { role: role.into() })
}

fn password(name: &str, hashed: &str) -> AuthRequest {
    AuthRequest::UserChangePassword(pb::AuthUserChangePasswordRequest {
        name: name.into(),
        hashed_password: hashed.into(),
        ..Default::default()
    })
}

fn login(name: &str) -> AuthRequest {
    AuthRequest::Authenticate(pb::InternalAuthenticateRequest {
        name: name.into(),
        simple_token: "abcdefghijklmnop".into(),
        ..Default::default()
    })
}

fn enable() -> AuthRequest {
    AuthRequest::Enable(pb::AuthEnableRequest {})
}

fn disable() -> AuthRequest {
    AuthRequest::Disable(pb::AuthDisableRequest {})
}

impl Tested {
    fn new() -> Tested {
        Tested { member: Member::new(), next_id: 1 << 40 }
    }

    /// With authentication on: root, and a user for each of these with a role of its name and these permissions.
    fn with_users(users: &[(&str, &[Granted])]) -> Tested {
        let mut tested = Tested::new();
        for (name, permissions) in users {
            tested.root(user_add(name)).unwrap();
            tested.root(role_add(name)).unwrap();
            tested.root(grant_role(name, name)).unwrap();
            for (kind, key, end) in *permissions {
                tested.root(grant(name, *kind, key, end)).unwrap();
            }
        }
        tested.root(user_add(ROOT)).unwrap();
        tested.root(grant_role(ROOT, ROOT)).unwrap();
        tested.root(enable()).unwrap();
        tested
    }

    fn revision(&self) -> u64 {
        self.member.store.auth().revision()
    }

    fn apply(
        &mut self,
        caller: Caller<'_>,
        request: AuthRequest,
    ) -> Result<(Vec<u8>, Option<AuthChange>), ApiError> {
        self.next_id += 1;
        let entry = request.encode(self.next_id, caller);
        let applied = self.member.store.apply(&entry, true, &mut self.member.batch).unwrap();
        self.member.store.check();
        assert_eq!(applied.id, self.next_id);
        assert!(applied.result.is_ok() || applied.auth.is_none(), "an error changes nothing");
        applied.result.map(|answer| (answer.body, applied.auth))
    }

    fn by(&mut self, name: &str, request: AuthRequest) -> Result<Vec<u8>, ApiError> {
        let revision = self.revision();
        self.apply(Caller { name, revision }, request).map(|(body, _)| body)
    }

    fn root(&mut self, request: AuthRequest) -> Result<Vec<u8>, ApiError> {
        self.by(ROOT, request)
    }

    /// What a request of the key-value service by this user comes to.
    fn kv(&mut self, name: &str, request: pb::InternalRaftRequest) -> Result<(), ApiError> {
        let auth_revision = if name.is_empty() { 0 } else { self.revision() };
        self.kv_at(Caller { name, revision: auth_revision }, request)
    }

    fn kv_at(&mut self, caller: Caller<'_>, request: pb::InternalRaftRequest) -> Result<(), ApiError> {
        let (username, auth_revision) = (caller.name.to_owned(), caller.revision);
        let header = Some(pb::RequestHeader { id: 0, username, auth_revision });
        let before = self.member.store.revision();
        let result = self.member.apply(pb::InternalRaftRequest { header, ..request }, true).result;
        assert!(result.is_ok() || self.member.store.revision() == before, "what is refused changes nothing");
        self.member.publish();
        result.map(|_| ())
    }
}

fn put_of(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), ..Default::default() }
}

fn put(key: &str) -> pb::InternalRaftRequest {
    pb::InternalRaftRequest { put: Some(put_of(key)), ..Default::default() }
}

fn range(key: &str, end: &str) -> pb::InternalRaftRequest {
    let range = pb::RangeRequest { key: bytes(key), range_end: bytes(end), ..Default::default() };
    pb::InternalRaftRequest { range: Some(range), ..Default::default() }
}

fn delete_of(key: &str, end: &str, prev_kv: bool) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(end), prev_kv }
}

fn delete(key: &str, end: &str, prev_kv: bool) -> pb::InternalRaftRequest {
    let delete_range = Some(delete_of(key, end, prev_kv));
    pb::InternalRaftRequest { delete_range, ..Default::default() }
}

fn txn(compare: &[&str], success: Vec<Request>, failure: Vec<Request>) -> pb::InternalRaftRequest {
    let ops = |list: Vec<Request>| list.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect();
    let compare = compare.iter().map(|key| pb::Compare { key: bytes(key), ..Default::default() }).collect();
    let txn = pb::TxnRequest { compare, success: ops(success), failure: ops(failure) };
    pb::InternalRaftRequest { txn: Some(txn), ..Default::default() }
}

#[test]
fn management_refuses_what_etcd_refuses_and_counts_its_changes() {
    let mut tested = Tested::new();
    assert_eq!(tested.root(enable()), Err(ApiError::RootUserNotExist));
    assert_eq!(tested.root(user_add("")), Err(ApiError::UserEmpty));
    assert_eq!(tested.root(role_add("")), Err(ApiError::RoleEmpty));
    assert_eq!(tested.root(user_delete("u")), Err(ApiError::UserNotFound));
    assert_eq!(tested.root(role_delete("r")), Err(ApiError::RoleNotFound));
    assert_eq!(tested.root(grant_role("u", "r")), Err(ApiError::UserNotFound));
    assert_eq!(tested.root(password("u", "")), Err(ApiError::UserNotFound));
    assert_eq!(tested.root(revoke("r", "k", "")), Err(ApiError::RoleNotFound));
    assert_eq!(tested.root(grant("r", Type::Read, "k", "")), Err(ApiError::RoleNotFound));
    assert_eq!(tested.revision(), 1);

    let mut expected = 1;
    let mut counted = |tested: &mut Tested, request| {
        tested.root(request).unwrap();
        expected += 1;
        assert_eq!(tested.revision(), expected);
    };
    counted(&mut tested, user_add(ROOT));
    assert_eq!(tested.root(enable()), Err(ApiError::RootRoleNotExist));
    assert_eq!(tested.root(user_add(ROOT)), Err(ApiError::UserAlreadyExist));
    // The role root need not be there.
    counted(&mut tested, grant_role(ROOT, ROOT));
    counted(&mut tested, user_add("u"));
    counted(&mut tested, role_add("r"));
    assert_eq!(tested.root(role_add("r")), Err(ApiError::RoleAlreadyExist));
    assert_eq!(tested.root(grant_role("u", "x")), Err(ApiError::RoleNotFound));
    assert_eq!(tested.root(revoke_role("u", "r")), Err(ApiError::RoleNotGranted));
    counted(&mut tested, grant_role("u", "r"));
    let revision = tested.revision();
    assert_eq!(tested.root(grant_role("u", "r")), Ok(Vec::new()), "twice is accepted");
    assert_eq!(tested.revision(), revision, "and changes nothing");
    for (key, end) in [("", ""), ("", "z"), ("b", "a"), ("b", "b")] {
        assert_eq!(tested.root(grant("r", Type::Read, key, end)), Err(ApiError::InvalidAuthMgmt));
    }
    let none = pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm: None };
    assert_eq!(
        tested.root(AuthRequest::RoleGrantPermission(none)),
        Err(ApiError::PermissionNotGiven),
        "before the role is looked for"
    );
    counted(&mut tested, grant("r", Type::Read, "a", "c"));
    counted(&mut tested, grant("r", Type::Write, "a", "c"));
    counted(&mut tested, grant("r", Type::Read, "a", ""));
    counted(&mut tested, grant("r", Type::Read, "x", "\0"));
    let shown = |tested: &Tested| {
        let role = tested.member.store.auth().role("r").unwrap().clone();
        let shown = role.key_permission.into_iter().map(|p| (p.perm_type, p.key, p.range_end));
        shown.collect::<Vec<_>>()
    };
    let (read, write) = (Type::Read as i32, Type::Write as i32);
    assert_eq!(
        shown(&tested),
        [(write, bytes("a"), bytes("c")), (read, bytes("a"), bytes("")), (read, bytes("x"), bytes("\0"))]
    );
    assert_eq!(tested.root(revoke("r", "a", "d")), Err(ApiError::PermissionNotGranted));
    counted(&mut tested, revoke("r", "a", "c"));
    counted(&mut tested, password("u", "b3RoZXI="));
    assert_eq!(tested.member.store.auth().user("u").unwrap().password, &b"other"[..]);
    assert_eq!(tested.root(password("u", "not base64")), Err(ApiError::NoPasswordUser));
    let revision = tested.revision();
    tested.root(enable()).unwrap();
    tested.root(enable()).unwrap();
    assert_eq!(tested.revision(), revision, "to enable is no change");
    assert_eq!(tested.root(user_delete(ROOT)), Err(ApiError::InvalidAuthMgmt));
    assert_eq!(tested.root(role_delete(ROOT)), Err(ApiError::InvalidAuthMgmt));
    assert_eq!(tested.root(revoke_role(ROOT, ROOT)), Err(ApiError::InvalidAuthMgmt));
    counted(&mut tested, role_delete("r"));
    assert!(tested.member.store.auth().user("u").unwrap().roles.is_empty(), "taken from all");
    counted(&mut tested, disable());
    tested.root(disable()).unwrap();
    assert_eq!(tested.revision(), revision + 2, "off already");
    counted(&mut tested, user_delete(ROOT));
    assert_eq!(tested.member.store.revision(), 1, "none of this is a revision of the store");
}

/// Recorded from etcd 3.7.1: of permissions with one key, Go's sort decides which stands first, and that one alone is
/// found again.
#[test]
fn permissions_with_one_key_stand_as_in_etcd() {
    let mut tested = Tested::new();
    tested.root(role_add("r")).unwrap();
    let keys = ["c", "a", "a", "c", "c", "a", "c", "c", "c", "b", "a", "c", "c", "a"];
    let ends = ["d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"];
    for (key, end) in keys.into_iter().zip(ends) {
        tested.root(grant("r", Type::Read, key, end)).unwrap();
    }
    let stand = |tested: &Tested| -> String {
        let auth = tested.member.store.auth();
        let role = auth.role("r").unwrap();
        let texts = role.key_permission.iter().flat_map(|p| [&p.key[..], &p.range_end[..]].concat());
        texts.map(char::from).collect()
    };
    assert_eq!(stand(&tested), "aeafaianaqbmcgchcjckclcocpcd");
    // The first of its key is changed; another one stays, and is there twice.
    tested.root(grant("r", Type::Write, "c", "g")).unwrap();
    assert_eq!(stand(&tested), "aeafaianaqbmcgchcjckclcocpcd");
    tested.root(grant("r", Type::Write, "c", "d")).unwrap();
    assert_eq!(stand(&tested).len(), 2 * 15);
}

/// A client may ask for it, and Go's members pass it on and keep it.
#[test]
fn a_permission_of_an_unknown_type_is_kept_and_permits_nothing() {
    let mut tested = Tested::with_users(&[("u", &[])]);
    let perm = Some(Permission { perm_type: 7, key: bytes("a"), range_end: bytes("") });
    let grant = pb::AuthRoleGrantPermissionRequest { name: "u".into(), perm };
    tested.root(AuthRequest::RoleGrantPermission(grant)).unwrap();
    assert_eq!(tested.member.store.auth().role("u").unwrap().key_permission[0].perm_type, 7);
    assert_eq!(tested.kv("u", put("a")), Err(ApiError::PermissionDenied));
    assert_eq!(tested.kv("u", range("a", "")), Err(ApiError::PermissionDenied));
}

/// Go's members pass on what such a client sends.
#[test]
fn a_user_without_a_password_may_come_with_one() {
    let mut tested = Tested::new();
    let add = AuthRequest::UserAdd(pb::AuthUserAddRequest {
        name: "u".into(),
        password: "p".into(),
        options: Some(UserAddOptions { no_password: true }),
        ..Default::default()
    });
    tested.root(add).unwrap();
    let user = tested.member.store.auth().user("u").unwrap().clone();
    assert_eq!((&*user.password, user.options), (&b""[..], Some(UserAddOptions { no_password: true })));
}

#[test]
fn what_ends_tokens_is_told() {
    let mut tested = Tested::with_users(&[("u", &[])]);
    let root = Caller { name: ROOT, revision: tested.revision() };
    let mut change = |request| tested.apply(root, request).unwrap().1;
    let (user, token) = ("u".to_owned(), "abcdefghijklmnop".to_owned());
    assert_eq!(change(login("u")), Some(AuthChange::LoggedIn { user: user.clone(), token }));
    assert_eq!(change(password("u", "aGFzaA==")), Some(AuthChange::UserChanged { user: user.clone() }));
    assert_eq!(change(enable()), None);
    assert_eq!(change(grant_role("u", ROOT)), None);
    assert_eq!(change(user_delete("u")), Some(AuthChange::UserChanged { user }));
    assert_eq!(change(disable()), Some(AuthChange::Disabled));
    assert_eq!(change(disable()), None);
    assert_eq!(change(enable()), Some(AuthChange::Enabled));
}

#[test]
fn logins() {
    let mut tested = Tested::new();
    assert_eq!(tested.by("", login("u")), Err(ApiError::AuthNotEnabled));
    let mut tested = Tested::with_users(&[("u", &[])]);
    let options = Some(UserAddOptions { no_password: true });
    let name = "by certificate".to_owned();
    let add = pb::AuthUserAddRequest { name: name.clone(), options, ..Default::default() };
    tested.root(AuthRequest::UserAdd(add)).unwrap();
    assert_eq!(tested.by("", login("nobody")), Err(ApiError::AuthFailed));
    assert_eq!(tested.by("", login(&name)), Err(ApiError::AuthFailed));
    tested.by("", login("u")).unwrap();
}

#[test]
fn who_may_manage() {
    let mut tested = Tested::with_users(&[("u", &[(Type::Readwrite, "a", "b")]), ("v", &[])]);
    let requests = || {
        let list_users = AuthRequest::UserList(pb::AuthUserListRequest {});
        let list_roles = AuthRequest::RoleList(pb::AuthRoleListRequest {});
        [enable(), user_add("w"), password("u", ""), grant_role("u", "v"), revoke_role("v", "v")]
            .into_iter()
            .chain([list_users, list_roles, role_add("w"), grant("v", Type::Read, "k", "")])
            .chain([revoke("u", "a", "b"), role_delete("v"), user_delete("v"), disable()])
    };
    for request in requests() {
        assert_eq!(tested.by("", request.clone()), Err(ApiError::UserEmpty), "{request:?}");
        assert_eq!(tested.by("nobody", request.clone()), Err(ApiError::UserNotFound), "{request:?}");
        assert_eq!(tested.by("u", request.clone()), Err(ApiError::PermissionDenied), "{request:?}");
    }
    let user_get = |name: &str| AuthRequest::UserGet(pb::AuthUserGetRequest { name: name.into() });
    let role_get = |role: &str| AuthRequest::RoleGet(pb::AuthRoleGetRequest { role: role.into() });
    assert!(tested.by("u", user_get("u")).is_ok() && tested.by("u", role_get("u")).is_ok());
    assert_eq!(tested.by("u", user_get("v")), Err(ApiError::PermissionDenied));
    assert_eq!(tested.by("u", role_get("v")), Err(ApiError::PermissionDenied));
    assert_eq!(tested.by("", user_get("v")), Err(ApiError::UserEmpty));
    assert_eq!(tested.by(ROOT, user_get("w")), Err(ApiError::UserNotFound));
    assert!(tested.by("", AuthRequest::Status(pb::AuthStatusRequest {})).is_ok());
    for request in requests() {
        tested.root(request.clone()).unwrap_or_else(|error| panic!("{request:?}: {error:?}"));
        tested.root(enable()).unwrap();
    }
}

#[test]
fn rights_are_checked_where_an_entry_is_applied() {
    use ApiError::PermissionDenied as Denied;
    let (r, w, rw) = (Type::Read, Type::Write, Type::Readwrite);
    let mut tested = Tested::with_users(&[("u", &[(rw, "a", "c"), (r, "r", ""), (w, "w", "")])]);
    let old = Caller { name: "u", revision: tested.revision() - 1 };
    assert_eq!(tested.kv_at(old, put("a")), Err(ApiError::AuthOldRevision));
    assert_eq!(tested.kv("", put("a")), Err(ApiError::UserEmpty));
    assert_eq!(tested.kv("nobody", put("a")), Err(Denied));
    let prev_kv = |key| pb::InternalRaftRequest {
        put: Some(pb::PutRequest { prev_kv: true, ..put_of(key) }),
        ..Default::default()
    };
    let read = |key: &str, end: &str| {
        Request::RequestRange(pb::RangeRequest {
            key: bytes(key),
            range_end: bytes(end),
            ..Default::default()
        })
    };
    let write = |key: &str| Request::RequestPut(put_of(key));
    let remove = |key: &str, end: &str, prev_kv| Request::RequestDeleteRange(delete_of(key, end, prev_kv));
    let within = |inner: pb::InternalRaftRequest| Request::RequestTxn(inner.txn.unwrap());
    for (request, expected) in [
        (put("a"), Ok(())),
        (put("b\u{7f}"), Ok(())),
        (put("c"), Err(Denied)),
        (put("w"), Ok(())),
        (put("r"), Err(Denied)),
        (prev_kv("a"), Ok(())),
        (prev_kv("w"), Err(Denied)),
        (range("r", ""), Ok(())),
        (range("w", ""), Err(Denied)),
        (range("a", "c"), Ok(())),
        (range("a", "c\0"), Err(Denied)),
        (range("a", "\0"), Err(Denied)),
        (delete("w", "", false), Ok(())),
        (delete("w", "", true), Err(Denied)),
        (delete("a", "b", true), Ok(())),
        (txn(&["a"], vec![write("w")], vec![read("r", "")]), Ok(())),
        (txn(&["w"], Vec::new(), Vec::new()), Err(Denied)),
        (txn(&[], Vec::new(), vec![write("r")]), Err(Denied)),
        (txn(&[], Vec::new(), vec![remove("w", "", true)]), Err(Denied)),
        (txn(&[], vec![within(txn(&[], vec![read("w", "")], Vec::new()))], Vec::new()), Err(Denied)),
        (txn(&[], Vec::new(), Vec::new()), Ok(())),
    ] {
        assert_eq!(tested.kv("u", request.clone()), expected, "{request:?}");
        assert_eq!(tested.kv(ROOT, request), Ok(()));
    }
    assert_eq!(tested.kv("", txn(&[], Vec::new(), Vec::new())), Ok(()), "it asks for nothing");
    // What a role has gained or lost counts from the next entry on.
    tested.root(grant("u", rw, "w", "")).unwrap();
    assert_eq!(tested.kv("u", prev_kv("w")), Ok(()));
    tested.root(revoke("u", "a", "c")).unwrap();
    assert_eq!(tested.kv("u", put("a")), Err(Denied));
    tested.root(disable()).unwrap();
    assert_eq!(tested.kv("", put("a")), Ok(()));
}

/// Who may not write all keys of a lease may neither end it nor add a key that would end with it.
#[test]
fn leases_go_with_their_keys() {
    let mut tested = Tested::with_users(&[("u", &[(Type::Readwrite, "a", "b")])]);
    let grant = |id| pb::InternalRaftRequest {
        lease_grant: Some(pb::LeaseGrantRequest { ttl: 60, id }),
        ..Default::default()
    };
    let leased = |key, lease| pb::InternalRaftRequest {
        put: Some(pb::PutRequest { lease, ..put_of(key) }),
        ..Default::default()
    };
    let revoke = |id| pb::InternalRaftRequest {
        lease_revoke: Some(pb::LeaseRevokeRequest { id }),
        ..Default::default()
    };
    tested.kv("u", grant(1)).unwrap();
    tested.kv("u", grant(2)).unwrap();
    tested.kv("u", leased("a", 1)).unwrap();
    tested.kv(ROOT, leased("x", 1)).unwrap();
    assert_eq!(tested.kv("u", leased("a2", 1)), Err(ApiError::PermissionDenied));
    assert_eq!(tested.kv("u", revoke(1)), Err(ApiError::PermissionDenied));
    assert_eq!(tested.kv("u", leased("a", 2)), Ok(()));
    assert_eq!(tested.kv("u", revoke(2)), Ok(()));
    assert_eq!(tested.kv("u", revoke(2)), Err(ApiError::LeaseNotFound));
    // By nobody, as an expiry was proposed before authentication was on.
    assert_eq!(tested.kv("", revoke(1)), Err(ApiError::UserEmpty));
    assert_eq!(tested.kv(ROOT, revoke(1)), Ok(()));
}

#[test]
fn nothing_is_seen_before_it_is_published() {
    let mut tested = Tested::with_users(&[("u", &[(Type::Readwrite, "a", "b")])]);
    assert_eq!(
        (tested.member.reader.auth_revision(), &*tested.member.reader.auth()),
        (None, &Auth::default())
    );
    let empty = tested.member.store.size_bytes();
    tested.member.publish();
    assert_eq!(tested.member.reader.auth_revision(), Some(tested.revision()));
    assert_eq!(&*tested.member.reader.auth(), tested.member.store.auth());
    assert_eq!(tested.member.store.cut().auth(), tested.member.store.auth());
    assert!(tested.member.store.size_bytes() > empty);
    let hash = tested.member.reader.hash().unwrap().0;
    tested.root(disable()).unwrap();
    tested.member.publish();
    assert_eq!(tested.member.reader.auth_revision(), None);
    assert_ne!(tested.member.reader.hash().unwrap().0, hash);
}

fn any_request() -> impl Strategy<Value = AuthRequest> {
    let user = || prop_oneof![Just("root"), Just("u"), Just("v"), Just("")];
    let role = || prop_oneof![Just("root"), Just("r"), Just("s"), Just("")];
    let key = || prop_oneof![Just("a"), Just("b"), Just("c"), Just("")];
    let kind = prop_oneof![Just(Type::Read), Just(Type::Write), Just(Type::Readwrite)];
    prop_oneof![
        user().prop_map(user_add),
        role().prop_map(role_add),
        (user(), role()).prop_map(|(user, role)| grant_role(user, role)),
        (user(), role()).prop_map(|(user, role)| grant_role(user, role)),
        (user(), role()).prop_map(|(user, role)| revoke_role(user, role)),
        (role(), kind, key(), key()).prop_map(|(role, kind, key, end)| grant(role, kind, key, end)),
        (role(), key(), key()).prop_map(|(role, key, end)| revoke(role, key, end)),
        user().prop_map(user_delete),
        role().prop_map(role_delete),
        user().prop_map(|user| password(user, "aGFzaA==")),
        Just(enable()),
        Just(disable()),
    ]
}

proptest! {
    /// Whatever was asked for: a start finds it again, from the changes in frames or from whole tables; an error changes
    /// nothing; and what a user may do is what its roles say now.
    #[test]
    fn a_start_finds_it_all(requests in prop::collection::vec((any_request(), any::<bool>()), 1..60)) {
        let mut tested = Tested::new();
        for (request, ends_batch) in requests {
            let before = tested.member.store.auth().clone();
            if tested.root(request).is_err() {
                assert_eq!(*tested.member.store.auth(), before);
            }
            if ends_batch {
                let _ = tested.kv(ROOT, put("k"));
            }
        }
        tested.member.publish();
        let auth = tested.member.store.auth().clone();
        let again = Auth::restore(
            auth.is_enabled(),
            auth.revision(),
            auth.users().cloned().collect(),
            auth.roles().cloned().collect(),
        );
        let mut other = Member::new().store;
        restore(&mut other, &auth);
        tested.member.restart();
        assert_eq!(*tested.member.store.auth(), auth);
        assert_eq!((&again, other.auth()), (&auth, &auth));
        for (name, key) in [("u", "a"), ("u", "b"), ("v", "a"), ("root", "a")] {
            let caller = Caller { name, revision: auth.revision() };
            for other in [&again, other.auth(), tested.member.store.auth()] {
                assert_eq!(auth.check_put(caller, bytes(key).as_ref()), other.check_put(caller, bytes(key).as_ref()));
            }
            assert_eq!(auth.check_put(caller, bytes(key).as_ref()).is_ok(), may_write(&auth, name, key.as_bytes()));
        }
    }
}

fn restore(store: &mut Store, auth: &Auth) {
    let tables = encode_tables(store.membership(), -1, Vec::new(), store.alarms(), auth);
    store.restore_tables(&tables, true).unwrap();
}

/// By looking at everything.
fn may_write(auth: &Auth, name: &str, key: &[u8]) -> bool {
    let grants = |permission: &authpb::Permission| {
        let is_within = match &permission.range_end[..] {
            [] => permission.key == key,
            [0] => permission.key <= key,
            end => permission.key <= key && key < end,
        };
        permission.perm_type != Type::Read as i32 && is_within
    };
    let Some(user) = auth.user(name) else { return !auth.is_enabled() };
    let roles = user.roles.iter().filter_map(|role| auth.role(role));
    !auth.is_enabled()
        || user.roles.iter().any(|role| role == ROOT)
        || roles.flat_map(|role| &role.key_permission).any(grants)
}
