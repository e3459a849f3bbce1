//! Users, roles and authentication that is on, on the ways between a member's data and files.

use super::*;

const ROOT: &str = "root:the root's";
const ALICE: &str = "alice:wonder-land";

/// What `etcdctl` says where it succeeds.
fn says(member: &Member, user: Option<&str>, args: &[&str]) -> String {
    let user = user.map_or(vec![], |user| vec!["--user", user]);
    let output = member.etcdctl(&[&user[..], args].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What `etcdctl` says where it is refused.
fn refused(member: &Member, user: Option<&str>, args: &[&str]) -> String {
    let user = user.map_or(vec![], |user| vec!["--user", user]);
    let output = member.etcdctl(&[&user[..], args].concat());
    assert!(!output.status.success(), "{args:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

/// Users with passwords and one without, roles with rights of every kind, and authentication on.
fn give_users(member: &Member) {
    for args in [
        &["put", "a", "1"][..],
        &["put", "kept", "secret"],
        &["user", "add", ROOT],
        &["user", "add", ALICE],
        &["user", "add", "clerk", "--no-password"],
        &["role", "add", "root"],
        &["role", "add", "readers"],
        &["role", "add", "writers"],
        &["role", "grant-permission", "readers", "read", "a", "c"],
        &["role", "grant-permission", "readers", "readwrite", "both"],
        &["role", "grant-permission", "writers", "write", "w", "--prefix"],
        &["user", "grant-role", "root", "root"],
        &["user", "grant-role", "alice", "readers"],
        &["user", "grant-role", "alice", "writers"],
        &["user", "grant-role", "clerk", "writers"],
        &["auth", "enable"],
    ] {
        says(member, None, args);
    }
}

/// What root is told of users, roles and all that is stored.
fn seen(member: &Member) -> Vec<String> {
    let mut said: Vec<String> = [
        &["auth", "status"][..],
        &["user", "list"],
        &["user", "get", "alice"],
        &["user", "get", "clerk"],
        &["role", "list"],
        &["role", "get", "readers"],
        &["role", "get", "writers"],
        &["get", "", "--from-key"],
    ]
    .iter()
    .map(|args| says(member, Some(ROOT), args))
    .collect();
    let hash = says(member, Some(ROOT), &["endpoint", "hashkv"]);
    // Behind the endpoint.
    said.push(hash.split_once(", ").expect("a hash").1.to_owned());
    said
}

/// Who has which password, and may do what.
fn check_rights(member: &mut Member) {
    member.announce("invalid authentication was requested");
    assert_eq!(says(member, Some(ALICE), &["get", "a", "--print-value-only"]), "1\n");
    for (user, args, said) in [
        (Some(ALICE), &["put", "a", "2"][..], "permission denied"),
        (Some(ALICE), &["get", "kept"], "permission denied"),
        (Some(ALICE), &["user", "list"], "permission denied"),
        (Some("alice:other"), &["get", "a"], "authentication failed, invalid user ID or password"),
        (Some("clerk:any"), &["get", "a"], "password was given for no password user"),
        (None, &["get", "a"], "user name is empty"),
    ] {
        let told = refused(member, user, args);
        assert!(told.contains(said), "{user:?} {args:?}: {told}");
    }
    says(member, Some(ALICE), &["put", "w/by-alice", "3"]);
    says(member, Some(ROOT), &["del", "w/by-alice"]);
}

fn exported(member: &mut Member, program: &Path, flags: &[&str]) -> Member {
    member.terminate();
    let other = member.run_by(program);
    let (data_dir, out_dir) = (member.data_dir(), other.data_dir());
    let args = ["export-go", "--data-dir", path_text(&data_dir), "--out", path_text(&out_dir)];
    succeeds(&binary("etcdutl"), &[&args[..], flags].concat());
    other
}

/// Saved, restored, exported and taken over by ours alone.
#[test]
fn users_and_their_rights_go_with_the_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut member = Member::start(&[]);
    give_users(&member);
    check_rights(&mut member);
    let before = seen(&member);
    let path = folder.path().join("saved.db");
    let told = refused(&member, Some(ALICE), &["snapshot", "save", path_text(&path)]);
    assert!(told.contains("permission denied"), "{told}");
    says(&member, Some(ROOT), &["snapshot", "save", path_text(&path)]);
    let mut restored = Member::new(&[]);
    restore(&binary("etcdutl"), &path, &restored, &[]);
    restored.restart();
    assert_eq!(seen(&restored), before, "restored");
    check_rights(&mut restored);

    member.restart();
    assert_eq!(seen(&member), before, "started again");
    let mut taken = exported(&mut member, &binary("etcd"), &[]);
    taken.restart();
    assert!(taken.log().contains("took over etcd's database"), "{}", taken.log());
    assert_eq!(seen(&taken), before, "exported and taken over");
    check_rights(&mut taken);
    says(&taken, Some(ROOT), &["auth", "disable"]);
    assert_eq!(says(&taken, None, &["get", "kept", "--print-value-only"]), "secret\n");
}

/// The way from etcd of either version and back, with authentication on.
#[test]
#[ignore = "needs etcd 3.6 and 3.7: cargo xtask database"]
fn users_of_etcds_are_taken_over_and_go_back() {
    for (variable, target) in [("QUORATE_ETCD", None), ("QUORATE_ETCD_3_6", Some("3.6"))] {
        let mut go = Member::of(&real(variable), &[]);
        go.restart();
        give_users(&go);
        check_rights(&mut go);
        let before = seen(&go);
        go.terminate();
        let mut ours = go.run_by(&binary("etcd"));
        copy(&go.data_dir(), &ours.data_dir());
        let data_dir = ours.data_dir();
        succeeds(&binary("etcdutl"), &["check", "--data-dir", path_text(&data_dir)]);
        ours.restart();
        assert!(ours.log().contains("took over etcd's database"), "{}", ours.log());
        assert_eq!(seen(&ours), before, "{variable}");
        check_rights(&mut ours);
        says(&ours, Some(ROOT), &["user", "add", "bob:of ours"]);
        let changed = seen(&ours);
        let flags = target.map_or(vec![], |target| vec!["--target-version", target]);
        let mut back = exported(&mut ours, &real(variable), &flags);
        back.restart();
        assert_eq!(seen(&back), changed, "{variable}");
        check_rights(&mut back);
        let told = refused(&back, Some("bob:of ours"), &["get", "a"]);
        assert!(told.contains("permission denied"), "a password that we have hashed: {told}");
        assert_eq!(seen(&back)[0], changed[0], "reads and refusals change no users");
    }
}

/// Saved with users by either, restored by either's tool, served by the other.
#[test]
#[ignore = "needs etcd and etcdutl: cargo xtask database"]
fn users_are_in_saved_snapshots_of_both() {
    let (etcd, etcdutl) = (real("QUORATE_ETCD"), real("QUORATE_ETCDUTL"));
    let folder = tempfile::tempdir().expect("a folder");
    for (from, to) in [(&etcd, binary("etcd")), (&binary("etcd"), etcd.clone())] {
        let mut member = Member::of(from, &[]);
        member.restart();
        run(async { fill(&member.client()).await });
        give_users(&member);
        let before = seen(&member);
        let path = folder.path().join("saved.db");
        says(&member, Some(ROOT), &["snapshot", "save", path_text(&path)]);
        same_words(&etcdutl, &path);
        for by in [&etcdutl, &binary("etcdutl")] {
            let mut restored = Member::of(&to, &[]);
            restore(by, &path, &restored, &[]);
            restored.restart();
            assert_eq!(seen(&restored), before, "restored by {}", by.display());
            check_rights(&mut restored);
        }
        std::fs::remove_file(&path).expect("a file");
    }
}
