//! Users, roles and their rights on every way that a store goes: they are among what the other tests compare, and here is
//! what is of them alone.

use std::collections::BTreeMap;

use disk::boltfile::{Reader, schema};
use wire::authpb::{Permission, Role, User, UserAddOptions};
use wire::etcdserverpb as pb;

use super::*;

/// As root, where somebody has to be.
pub(super) fn as_root(member: &Running, request: &mut InternalRaftRequest) {
    let auth = member.parts.reader.auth();
    if let Some(header) = request.header.as_mut().filter(|_| auth.is_enabled()) {
        header.username = "root".to_owned();
        header.auth_revision = auth.revision();
    }
}

/// Users of every kind with rights of every kind; authentication stays off.
pub(super) fn give_users(member: &mut Running) {
    for name in ["root", "alice", "clerk"] {
        add_user(member, name);
    }
    for name in ["root", "readers", "writers", "idle"] {
        send(member, |request| {
            request.auth_role_add = Some(pb::AuthRoleAddRequest { name: name.to_owned() })
        });
    }
    grant(member, "readers", (0, "a", "c"));
    grant(member, "readers", (0, "k", "\0"));
    grant(member, "writers", (1, "k1", ""));
    grant(member, "writers", (2, "k", "l"));
    for (user, role) in [("root", "root"), ("alice", "writers"), ("alice", "readers"), ("clerk", "idle")] {
        let granted = pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
        send(member, |request| request.auth_user_grant_role = Some(granted));
    }
}

/// And turns it on.
pub(super) fn give_users_that_count(member: &mut Running) {
    give_users(member);
    enable(member);
}

pub(super) fn enable(member: &mut Running) {
    send(member, |request| request.auth_enable = Some(pb::AuthEnableRequest::default()));
    assert!(member.parts.reader.auth().is_enabled());
}

/// For a user with a hash for a password.
pub(super) fn with_password(name: &str) -> pb::AuthUserAddRequest {
    let (name, hashed_password) = (name.to_owned(), "JDJhJDA0JGhhc2g=".to_owned());
    pb::AuthUserAddRequest { name, hashed_password, ..Default::default() }
}

/// Clerks have no password, but certificates.
pub(super) fn add_user(member: &mut Running, name: &str) {
    let options = Some(UserAddOptions { no_password: true });
    let add = match name.starts_with("clerk") {
        true => pb::AuthUserAddRequest { name: name.to_owned(), options, ..Default::default() },
        false => with_password(name),
    };
    send(member, |request| request.auth_user_add = Some(add));
    assert!(member.parts.reader.auth().user(name).is_some(), "{name}");
}

fn grant(member: &mut Running, role: &str, (perm_type, key, range_end): (i32, &str, &str)) {
    let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
    let perm = Some(Permission { perm_type, key, range_end });
    let granted = pb::AuthRoleGrantPermissionRequest { name: role.to_owned(), perm };
    send(member, |request| request.auth_role_grant_permission = Some(granted));
}

/// The pairs of a bucket of a file.
fn bucket(file: &[u8], name: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let fs = with_file(file);
    let reader = Reader::open(&fs, Path::new(SNAPSHOT)).expect("a database");
    let bucket = reader.bucket(name).expect("a sound file").expect("the bucket");
    let (mut pairs, mut cursor) = (BTreeMap::new(), bucket.cursor());
    while let Some(item) = cursor.next().expect("a sound file") {
        pairs.insert(item.key.to_vec(), item.value.expect("no bucket").to_vec());
    }
    pairs
}

/// The pairs are those that etcd reads: a byte, a number, and messages under their names.
#[test]
fn a_file_has_users_and_roles_as_etcd_stores_them() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let mut member = ready(&fs);
    let revision = |file: &[u8]| bucket(file, schema::BUCKET_AUTH)[schema::AUTH_REVISION].clone();
    let file = saved(&member.parts.applier.cut());
    assert_eq!(bucket(&file, schema::BUCKET_AUTH).len(), 1, "nobody was ever there");
    assert_eq!(revision(&file), schema::encode_u64(1));

    give_users_that_count(&mut member);
    let auth = member.parts.reader.auth();
    let file = saved(&member.parts.applier.cut());
    let state = bucket(&file, schema::BUCKET_AUTH);
    assert_eq!((state.len(), &*state[schema::AUTH_ENABLED]), (2, &[1][..]));
    assert_eq!(revision(&file), schema::encode_u64(auth.revision()));
    let users = bucket(&file, schema::BUCKET_AUTH_USERS);
    assert_eq!(users.keys().collect::<Vec<_>>(), [b"alice".as_slice(), b"clerk", b"root"]);
    assert_eq!(users[b"root".as_slice()], b"\x0a\x04root\x12\x0b$2a$04$hash\x1a\x04root\x22\x00");
    assert_eq!(users[b"clerk".as_slice()], b"\x0a\x05clerk\x1a\x04idle\x22\x02\x08\x01");
    let roles = bucket(&file, schema::BUCKET_AUTH_ROLES);
    assert_eq!(roles.keys().collect::<Vec<_>>(), [b"idle".as_slice(), b"readers", b"root", b"writers"]);
    assert_eq!(roles[b"idle".as_slice()], b"\x0a\x04idle");
    assert_eq!(
        roles[b"readers".as_slice()],
        b"\x0a\x07readers\x12\x06\x12\x01a\x1a\x01c\x12\x06\x12\x01k\x1a\x01\0"
    );

    // Turned off it is as if it had never been on, but for the revision.
    send(&mut member, |request| request.auth_disable = Some(pb::AuthDisableRequest::default()));
    let off = saved(&member.parts.applier.cut());
    assert_eq!(bucket(&off, schema::BUCKET_AUTH).len(), 1);
    assert_eq!(revision(&off), schema::encode_u64(auth.revision() + 1));
    assert_eq!(bucket(&off, schema::BUCKET_AUTH_USERS), users);
}

/// Who is restored goes on with the users of before, and what they may do.
#[test]
fn rights_count_in_what_is_restored() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let mut member = ready(&fs);
    put(&mut member, "k1", "before");
    give_users_that_count(&mut member);
    let other_fs: Arc<dyn Fs> = Arc::new(with_file(&saved(&member.parts.applier.cut())));
    let mut other = restored(&other_fs, &restoring("/restored"));
    other.settle(NOW, &mut Told::default()).expect("a healthy disk");
    same_state(&member, &other, "restored");
    let revision = other.parts.reader.revision();
    // Of nobody, of a user without the right, of an older revision of users; and of a user with it.
    let auth_revision = other.parts.reader.auth().revision();
    for (username, auth_revision, key, is_put) in [
        ("", 0, "k1", false),
        ("clerk", auth_revision, "k1", false),
        ("alice", auth_revision, "a", false),
        ("alice", auth_revision - 1, "k1", false),
        ("alice", auth_revision, "k1", true),
        ("root", auth_revision, "anything", true),
    ] {
        let before = other.parts.reader.revision();
        let id = other.lane().next();
        let header = RequestHeader { id: id.0, username: username.to_owned(), auth_revision };
        let put = Some(PutRequest { key: key.into(), value: "after".into(), ..Default::default() });
        let request = InternalRaftRequest { header: Some(header), put, ..Default::default() };
        other.submit(vec![proposal(id, request.encode_to_vec(), true)]);
        other.settle(NOW, &mut Told::default()).expect("a healthy disk");
        let after = other.parts.reader.revision();
        assert_eq!(after > before, is_put, "{username} at {auth_revision} puts {key}");
    }
    assert_eq!(other.parts.reader.revision(), revision + 2);
}

/// A name is who one is: nothing is found under another's.
#[test]
fn users_that_are_none_are_refused() {
    let times = takeover::times(&mut Random::new(10));
    let user = |name: &'static str| User { name: name.into(), ..User::default() }.encode_to_vec();
    let role = |name: &'static str| Role { name: name.into(), ..Role::default() }.encode_to_vec();
    for (bucket, key, value, said) in [
        (schema::BUCKET_AUTH_USERS, "eve", user("root"), r#"user: "root" under the key "eve""#),
        (schema::BUCKET_AUTH_ROLES, "all", role("root"), r#"role: "root" under the key "all""#),
        (schema::BUCKET_AUTH_USERS, "eve", b"\xff".to_vec(), "user: "),
        (schema::BUCKET_AUTH_ROLES, "all", b"\x0a\x09all".to_vec(), "role: "),
        (schema::BUCKET_AUTH, "authRevision", b"7".to_vec(), "number of 8 bytes"),
    ] {
        let keep = |of: &[u8], at: &[u8], kept: &[u8]| {
            let is_replaced = (of, at) == (bucket, key.as_bytes());
            (!is_replaced).then(|| kept.to_vec())
        };
        let memory = times.late.copy();
        takeover::take(&memory, &MemFs::new(), "/data/member/rev");
        let file =
            takeover::rewritten_with(&times.database, 4096, &keep, &[(bucket, key.as_bytes(), &value)]);
        memory.put(takeover::DATABASE, &file).expect("a file");
        let (error, _) = takeover::refused_alike(&memory);
        assert!(error.contains(said) && error.contains(takeover::DATABASE), "{error}");
        assert!(memory.read(takeover::DATABASE).expect("it stays") == file);
    }
}

/// As in etcd: a byte that is not 1 is off, and a store that has no revision of users is at the first.
#[test]
fn what_etcd_passes_over_is_passed_over() {
    let times = takeover::times(&mut Random::new(11));
    let without_revision = |bucket: &[u8], key: &[u8], value: &[u8]| match (bucket, key) {
        (schema::BUCKET_AUTH, schema::AUTH_ENABLED) => Some(vec![2]),
        (schema::BUCKET_AUTH, _) => None,
        _ => Some(value.to_vec()),
    };
    let memory = times.early.copy();
    takeover::take(&memory, &MemFs::new(), "/data/member/rev");
    let file = takeover::rewritten_with(&times.early_database, 4096, &without_revision, &[]);
    // The log goes on behind it, with what only counts where authentication is on.
    memory.put(takeover::DATABASE, &file).expect("a file");
    let fs: Arc<dyn Fs> = Arc::new(memory);
    let member = open(&fs, &settings(), 9).expect("a member starts");
    let auth = member.parts.reader.auth();
    assert_eq!((auth.is_enabled(), auth.revision()), (false, 1));
    assert!(auth.user("alice").is_some() && auth.role("writers").is_some());
}
