//! Saved snapshots: from a server through etcdctl and etcdutl to a server again, ours and, where they are at hand, etcd's.

#[path = "saved/users.rs"]
mod users;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use blackbox::{Cluster, Member, binary, patience, run};
use client::Client;
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest,
    MemberAddRequest, PutRequest, RangeRequest, RangeResponse,
};

const LEASE: i64 = 900;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a tool, ours or etcd's.
fn tool(program: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn succeeds(program: &Path, args: &[&str]) -> String {
    let output = tool(program, args);
    assert!(output.status.success(), "{} {args:?}: {}", program.display(), text(&output.stderr));
    text(&output.stdout)
}

/// The last line of what a tool says when it fails.
fn fails(program: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = tool(program, args);
    let said = text(&output.stderr);
    (output.status.code(), said.trim_end().lines().last().unwrap_or_default().to_owned())
}

/// A real program that `cargo xtask database` names.
fn real(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} names no program")).into()
}

/// Overwritten, deleted, leased and compacted keys.
async fn fill(client: &Client) {
    let grant = LeaseGrantRequest { id: LEASE, ttl: 900 };
    client.grant(grant, patience()).await.expect("a lease");
    for n in 0..300 {
        let (key, value) = (format!("sample/{:03}", n % 200), n.to_string().repeat(100));
        let request = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        client.put(request, patience()).await.expect("a put");
    }
    for key in ["sample/150", "sample/160"] {
        let request = DeleteRangeRequest { key: key.into(), ..Default::default() };
        client.delete_range(request, patience()).await.expect("a delete");
    }
    let request = PutRequest { key: "leased".into(), value: "v".into(), lease: LEASE, ..Default::default() };
    client.put(request, patience()).await.expect("a put");
    let request = CompactionRequest { revision: 250, physical: true };
    client.compact(request, patience()).await.expect("a compaction");
}

/// What must be the same on both sides: revision, HashKV there and in between, keys, the lease.
#[derive(Debug, PartialEq)]
struct State {
    hashes: Vec<(i64, u32, i64)>,
    all: RangeResponse,
    granted_ttl: i64,
    leased: Vec<bytes::Bytes>,
}

fn state(member: &Member) -> State {
    run(async {
        let client = member.client();
        let mut hashes = Vec::new();
        for revision in [0, 260, 290, 301] {
            let hash = client.hash_kv(revision, patience()).await.expect("a hash");
            hashes.push((hash.hash_revision, hash.hash, hash.compact_revision));
        }
        let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
        let all = client.range(all, patience()).await.expect("a range");
        let lease = client.time_to_live(LEASE, true, patience()).await.expect("a lease");
        State {
            hashes,
            all: RangeResponse { header: None, ..all },
            granted_ttl: lease.granted_ttl,
            leased: lease.keys,
        }
    })
}

fn put(member: &Member, key: &'static str) -> i64 {
    run(async {
        let request = PutRequest { key: key.into(), value: "1".into(), ..Default::default() };
        let answer = member.client().put(request, patience()).await.expect("a put");
        answer.header.expect("a header").revision
    })
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Restores a snapshot for a member that has not been started.
fn restore(etcdutl: &Path, snapshot: &Path, member: &Member, flags: &[&str]) {
    let (data_dir, peer) = (member.data_dir(), member.peer_endpoint());
    let cluster = format!("m={peer}");
    let args =
        ["snapshot", "restore", path_text(snapshot), "--name", "m", "--data-dir", path_text(&data_dir)];
    let identity = ["--initial-cluster", &cluster, "--initial-advertise-peer-urls", &peer];
    let token = ["--initial-cluster-token", "restored"];
    succeeds(etcdutl, &[&args[..], &identity, &token, flags].concat());
}

/// A snapshot of a member with a life behind it.
fn saved(member: &Member, folder: &Path) -> PathBuf {
    run(async { fill(&member.client()).await });
    let path = folder.join("saved.db");
    let output = member.etcdctl(&["snapshot", "save", path_text(&path)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert_eq!(said, format!("Snapshot saved at {}\nServer version 3.7.0\n", path.display()));
    path
}

#[test]
fn what_is_saved_is_restored_and_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let member = Member::start(&[]);
    let path = saved(&member, folder.path());
    let names: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(names.len(), 1, "no part is left: {names:?}");
    let before = state(&member);
    let etcdutl = binary("etcdutl");

    let status = succeeds(&etcdutl, &["snapshot", "status", path_text(&path), "-w", "json"]);
    let len = std::fs::metadata(&path).expect("a file").len() - 32;
    assert!(status.contains("\"revision\":304,\"totalKey\":199,"), "{status}");
    assert!(status.contains(&format!("\"totalSize\":{len},\"version\":\"3.7.0\"")), "{status}");
    let (revision, hash, compacted) = before.hashes[0];
    let of_file = succeeds(&etcdutl, &["hashkv", path_text(&path)]);
    assert_eq!(of_file, format!("{hash}, {revision}, {compacted}\n"));

    let mut restored = Member::new(&[]);
    restore(&etcdutl, &path, &restored, &[]);
    let wal_and_snap: Vec<String> = std::fs::read_dir(restored.data_dir().join("member"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(wal_and_snap.len(), 2, "{wal_and_snap:?}");
    restored.restart();
    assert!(restored.log().contains("took over etcd's database"), "{}", restored.log());
    assert_eq!(state(&restored), before);
    assert_eq!(put(&restored, "after"), revision + 1);
    restored.restart();
    assert!(!restored.log().contains("took over etcd's database"));
    assert_eq!(put(&restored, "again"), revision + 2);

    let mut raised = Member::new(&[]);
    restore(&etcdutl, &path, &raised, &["--bump-revision", "1000000", "--mark-compacted"]);
    raised.restart();
    assert_eq!(put(&raised, "after"), revision + 1_000_001);
}

/// Neither a vote nor a quorum is needed.
#[test]
fn a_learner_whose_cluster_is_gone_saves_what_it_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(1, &[]);
    let place = cluster.joining();
    let peer_ur_ls = vec![cluster.members[place].peer_endpoint()];
    run(async {
        let client = cluster.members[0].client();
        let request = MemberAddRequest { peer_ur_ls, is_learner: true };
        client.member_add(request, patience()).await.expect("a learner is added");
    });
    cluster.restart(&[place]);
    let hash = run(async {
        let (voter, learner) = (cluster.members[0].client(), cluster.members[place].client());
        fill(&voter).await;
        let hash = voter.hash_kv(0, patience()).await.expect("a hash");
        let revision = async || {
            let status = learner.status(patience()).await.expect("a status");
            status.header.expect("a header").revision
        };
        let deadline = patience();
        while revision().await < hash.hash_revision {
            assert!(deadline.remaining().is_some_and(|left| !left.is_zero()), "the learner gets nothing");
        }
        hash
    });
    cluster.members[0].kill();
    let path = folder.path().join("saved.db");
    let output = cluster.members[place].etcdctl(&["snapshot", "save", path_text(&path)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let of_file = succeeds(&binary("etcdutl"), &["hashkv", path_text(&path)]);
    assert_eq!(of_file, format!("{}, {}, {}\n", hash.hash, hash.hash_revision, hash.compact_revision));
}

#[test]
fn a_snapshot_that_is_taken_while_puts_go_on_is_of_one_revision() {
    let folder = tempfile::tempdir().expect("a folder");
    let member = Member::start(&[]);
    let bytes = run(async {
        let client = member.client();
        fill(&client).await;
        let mut answers = client.snapshot();
        let first = answers.next().await.expect("an answer").expect("a piece");
        let mut bytes = first.blob.to_vec();
        let mut left = first.remaining_bytes;
        assert!(left > 0, "more than one piece");
        let mut puts = 0;
        loop {
            let request = PutRequest { key: "during".into(), value: "1".into(), ..Default::default() };
            client.put(request, patience()).await.expect("puts go on");
            puts += 1;
            let Some(piece) = answers.next().await.expect("an answer") else { break };
            assert_eq!((piece.header, piece.version.as_str()), (None, "3.7.0"));
            if left > 0 {
                left -= piece.blob.len() as u64;
            }
            assert_eq!(piece.remaining_bytes, left);
            bytes.extend_from_slice(&piece.blob);
        }
        assert!(puts > 2);
        bytes
    });
    let path = folder.path().join("taken.db");
    std::fs::write(&path, bytes).expect("a file");
    let status = succeeds(&binary("etcdutl"), &["snapshot", "status", path_text(&path), "-w", "json"]);
    assert!(status.contains("\"revision\":304,"), "{status}");
    let mut restored = Member::new(&[]);
    restore(&binary("etcdutl"), &path, &restored, &[]);
    restored.restart();
    assert_eq!(put(&restored, "after"), 305);
}

#[test]
fn what_cannot_be_saved_or_restored_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let member = Member::start(&[]);
    let path = saved(&member, folder.path());
    let (etcdctl, etcdutl) = (binary("etcdctl"), binary("etcdutl"));
    let nowhere = folder.path().join("nowhere/saved.db");
    let said = fails(&etcdctl, &["--endpoints", &member.endpoint(), "snapshot", "save", path_text(&nowhere)]);
    let part = format!("{}.part", nowhere.display());
    let expected = format!("Error: could not open {part} (open {part}: no such file or directory)");
    assert_eq!(said, (Some(5), expected));
    let two = format!("{},127.0.0.1:1", member.endpoint());
    let (code, said) = fails(&etcdctl, &["--endpoints", &two, "snapshot", "save", path_text(&nowhere)]);
    assert_eq!(code, Some(5));
    assert!(
        said.starts_with("Error: snapshot must be requested to one selected node, not multiple ["),
        "{said}"
    );
    let lost = folder.path().join("lost.db");
    let args =
        ["--endpoints", "127.0.0.1:1", "--dial-timeout", "100ms", "snapshot", "save", path_text(&lost)];
    assert_eq!(fails(&etcdctl, &args).0, Some(5), "nobody there");
    assert!(!lost.exists() && !folder.path().join("lost.db.part").exists());

    let good = std::fs::read(&path).expect("a file");
    let refused = |name: &str, bytes: &[u8], expected: &str| {
        let bad = folder.path().join(name);
        std::fs::write(&bad, bytes).expect("a file");
        let data_dir = folder.path().join("data");
        let args = ["snapshot", "restore", path_text(&bad), "--data-dir", path_text(&data_dir)];
        let (code, said) = fails(&etcdutl, &args);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(!data_dir.exists(), "{name}");
    };
    let mut changed = good.clone();
    changed[good.len() / 2] ^= 1;
    refused("changed.db", &changed, "expected sha256 [");
    refused("empty.db", b"", "seek ");
    refused("short.db", &good[..good.len() / 2 + 7], "snapshot missing hash but --skip-hash-check=false");
    let (code, said) = fails(&etcdutl, &["snapshot", "status", path_text(&folder.path().join("none.db"))]);
    assert_eq!(code, Some(1));
    assert!(
        said.starts_with("Error: stat ") && said.ends_with("none.db: no such file or directory"),
        "{said}"
    );
    let mut broken = good.clone();
    // The first leaf of the revisions.
    broken[3 * 4096 + 16 + 8] ^= 0x40;
    std::fs::write(folder.path().join("broken.db"), broken).expect("a file");
    let args = ["snapshot", "status", path_text(&folder.path().join("broken.db"))].map(str::to_owned);
    let output = tool(&etcdutl, &[&args[0], &args[1], &args[2]]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("snapshot file integrity check failed. 1 errors found."), "{said}");
    assert!(said.contains("broken.db is damaged in page"), "{said}");
}

/// etcdutl's own words for files of ours: the same as ours; and what it restores of them, etcd serves.
#[test]
#[ignore = "needs etcd and etcdutl: cargo xtask database"]
fn etcd_serves_what_we_have_saved() {
    let (etcd, etcdutl) = (real("QUORATE_ETCD"), real("QUORATE_ETCDUTL"));
    let folder = tempfile::tempdir().expect("a folder");
    let member = Member::start(&[]);
    let path = saved(&member, folder.path());
    let before = state(&member);
    same_words(&etcdutl, &path);
    for by in [&etcdutl, &binary("etcdutl")] {
        let mut restored = Member::of(&etcd, &[]);
        restore(by, &path, &restored, &[]);
        restored.restart();
        assert_eq!(state(&restored), before, "restored by {}", by.display());
        assert_eq!(put(&restored, "after"), before.hashes[0].0 + 1);
        restored.restart();
        assert_eq!(put(&restored, "again"), before.hashes[0].0 + 2);
    }
    let mut raised = Member::of(&etcd, &[]);
    restore(&binary("etcdutl"), &path, &raised, &["--bump-revision", "1000000", "--mark-compacted"]);
    let mut ours = Member::new(&[]);
    restore(&etcdutl, &path, &ours, &["--bump-revision", "1000000", "--mark-compacted"]);
    raised.restart();
    ours.restart();
    let hash = |member: &Member| {
        run(async {
            let hash = member.client().hash_kv(0, patience()).await.expect("a hash");
            (hash.hash, hash.hash_revision, hash.compact_revision)
        })
    };
    assert_eq!(hash(&ours), hash(&raised));
    assert_eq!(put(&ours, "after"), put(&raised, "after"));
}

/// The way from etcd: its snapshots, by its tools and by ours, restored by either, served by us.
#[test]
#[ignore = "needs etcd and etcdutl: cargo xtask database"]
fn we_serve_what_etcd_has_saved() {
    let (etcd, etcdutl) = (real("QUORATE_ETCD"), real("QUORATE_ETCDUTL"));
    let folder = tempfile::tempdir().expect("a folder");
    let mut member = Member::of(&etcd, &[]);
    member.restart();
    let path = saved(&member, folder.path());
    let before = state(&member);
    same_words(&etcdutl, &path);
    for by in [&etcdutl, &binary("etcdutl")] {
        let mut restored = Member::new(&[]);
        restore(by, &path, &restored, &[]);
        restored.restart();
        assert_eq!(state(&restored), before, "restored by {}", by.display());
        assert_eq!(put(&restored, "after"), before.hashes[0].0 + 1);
    }
    // Its data directory, as it is.
    let (revision, ..) = before.hashes[0];
    member.terminate();
    let mut taken = Member::new(&[]);
    copy(&member.data_dir(), &taken.data_dir());
    taken.restart();
    assert!(taken.log().contains("took over etcd's database"), "{}", taken.log());
    assert_eq!(state(&taken), before);
    assert_eq!(put(&taken, "after"), revision + 1);
}

/// A member's directory through the commands that need no server.
#[test]
fn a_directory_is_checked_defragmented_and_exported() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut member = Member::start(&[]);
    run(async { fill(&member.client()).await });
    let before = state(&member);
    let (etcdutl, data_dir) = (binary("etcdutl"), member.data_dir());
    let data = path_text(&data_dir);
    let out_dir = folder.path().join("out");
    let out = path_text(&out_dir);
    let in_use = "in use by another process";
    for line in [
        &["check", "--data-dir", data][..],
        &["defrag", "--data-dir", data],
        &["migrate", "--data-dir", data, "--target-version", "3.7"],
        &["export-go", "--data-dir", data, "--out", out],
    ] {
        let (code, said) = fails(&etcdutl, &[line, &["--timeout", "1ms"]].concat());
        assert!(code == Some(1) && said.contains(in_use), "{line:?}: {said}");
    }
    assert!(!out_dir.exists());
    member.terminate();

    let said = succeeds(&etcdutl, &["check", "--data-dir", data]);
    assert!(
        said.contains("member/wal: sound: ") && said.contains("member/rev: sound: revision 304,"),
        "{said}"
    );
    succeeds(&etcdutl, &["defrag", "--data-dir", data]);
    succeeds(&etcdutl, &["migrate", "--data-dir", data, "--target-version", "3.6"]);
    let (code, said) = fails(&etcdutl, &["migrate", "--data-dir", data, "--target-version", "3.8"]);
    let refused = "Error: cannot create migration plan: version \"3.8.0\" is not supported";
    assert_eq!((code, said.as_str()), (Some(1), refused));
    succeeds(&etcdutl, &["export-go", "--data-dir", data, "--out", out]);
    let (code, said) = fails(&etcdutl, &["export-go", "--data-dir", data, "--out", out]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.ends_with("not empty or could not be read"), "{said}");
    member.restart();
    assert_eq!(state(&member), before);

    // What was written for Go's etcd is a directory of its kind, and those we take.
    let mut taken = Member::new(&["--quorate-keep-imported-db"]);
    copy(&out_dir, &taken.data_dir());
    taken.restart();
    assert!(taken.log().contains("took over etcd's database"), "{}", taken.log());
    assert_eq!(state(&taken), before);
    assert_eq!(member_list(&taken), member_list(&member));
    taken.terminate();
    let said = succeeds(&etcdutl, &["check", "--data-dir", path_text(&taken.data_dir())]);
    assert!(said.contains("kept when it was taken over"), "{said}");

    // A flipped bit.
    let segment = data_dir.join("member/rev/00000001.seg");
    member.terminate();
    let mut bytes = std::fs::read(&segment).expect("a segment");
    bytes[200] ^= 1;
    std::fs::write(&segment, bytes).expect("a segment");
    let output = tool(&etcdutl, &["check", "--data-dir", data]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.contains("fault: ") && said.contains("00000001.seg is damaged at offset"), "{said}");
    assert!(text(&output.stderr).contains("Error: 1 fault in "), "{}", text(&output.stderr));
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success());
}

/// Sets the alarm CORRUPT for a member, or ends it.
fn set_alarm(member: &Member, action: AlarmAction) {
    run(async {
        let client = member.client();
        let id = client.members(patience()).await.expect("a list").members[0].id;
        let (action, alarm) = (action.into(), AlarmType::Corrupt.into());
        client.alarm(AlarmRequest { action, member_id: id, alarm }, patience()).await.expect("an alarm");
    });
}

fn alarms(member: &Member) -> Vec<AlarmMember> {
    run(async { member.client().alarms(patience()).await.expect("the alarms").alarms })
}

/// The ids and names of the members.
fn member_list(member: &Member) -> Vec<(u64, String, Vec<String>)> {
    run(async {
        let list = member.client().members(patience()).await.expect("a list");
        let members = list.members.into_iter();
        members.map(|member| (member.id, member.name, member.peer_ur_ls)).collect()
    })
}

/// The way back: what our etcdutl writes, Go's etcd of either version serves and goes on with; and then the way here again.
#[test]
#[ignore = "needs etcd 3.6 and 3.7: cargo xtask database"]
fn etcd_goes_on_with_what_we_export() {
    let etcdutl = binary("etcdutl");
    for (variable, target) in
        [("QUORATE_ETCD", None), ("QUORATE_ETCD", Some("3.7")), ("QUORATE_ETCD_3_6", Some("3.6"))]
    {
        let mut member = Member::start(&[]);
        member.announce("alarm");
        run(async { fill(&member.client()).await });
        set_alarm(&member, AlarmAction::Activate);
        let (before, raised) = (state(&member), alarms(&member));
        assert_eq!(raised.len(), 1);
        let (revision, ..) = before.hashes[0];
        member.terminate();
        let mut go = member.run_by(&real(variable));
        let out_dir = go.data_dir();
        let data_dir = member.data_dir();
        let args = ["export-go", "--data-dir", path_text(&data_dir), "--out", path_text(&out_dir)];
        let target = target.map_or(vec![], |target| vec!["--target-version", target]);
        succeeds(&etcdutl, &[&args[..], &target].concat());
        go.restart();
        assert_eq!(state(&go), before, "{variable}");
        assert_eq!(alarms(&go), raised, "{variable}");
        set_alarm(&go, AlarmAction::Deactivate);
        assert_eq!(put(&go, "after"), revision + 1);
        go.restart();
        assert_eq!(put(&go, "again"), revision + 2);
        set_alarm(&go, AlarmAction::Activate);
        let (after, members) = (state(&go), member_list(&go));

        // While it runs, nobody else opens what it has.
        let output = Command::new(binary("etcd")).arg("--data-dir").arg(&out_dir).output();
        let output = output.expect("etcd runs");
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains("db file is flocked by another process, or taking too long"), "{said}");
        go.terminate();

        let mut back = go.run_by(&binary("etcd"));
        back.announce("alarm");
        copy(&out_dir, &back.data_dir());
        back.restart();
        assert!(back.log().contains("took over etcd's database"), "{}", back.log());
        assert_eq!(state(&back), after, "{variable}");
        assert_eq!(member_list(&back), members);
        assert_eq!(alarms(&back), raised);
        set_alarm(&back, AlarmAction::Deactivate);
        assert_eq!(put(&back, "back"), revision + 3);
    }
}

/// Go's etcd runs on a directory that was ours for a while, and the store is what it made of it.
#[test]
#[ignore = "needs etcd: cargo xtask database"]
fn where_etcd_ran_since_we_go_on_from_what_it_has() {
    let mut go = Member::of(&real("QUORATE_ETCD"), &["--snapshot-count", "50"]);
    go.restart();
    run(async { fill(&go.client()).await });
    let (revision, ..) = state(&go).hashes[0];
    go.terminate();
    let mut ours = go.run_by(&binary("etcd"));
    copy(&go.data_dir(), &ours.data_dir());
    ours.restart();
    assert_eq!(put(&ours, "ours"), revision + 1);
    ours.terminate();
    // It went back to what it was, and on from there: our revision log is of another life.
    assert_eq!(
        {
            go.restart();
            put(&go, "theirs")
        },
        revision + 1
    );
    assert_eq!(put(&go, "theirs"), revision + 2);
    for _ in 0..60 {
        put(&go, "theirs");
    }
    let after = state(&go);
    go.terminate();
    copy(&ours.data_dir().join("member/rev"), &go.data_dir().join("member/rev"));
    let mut again = go.run_by(&binary("etcd"));
    copy(&go.data_dir(), &again.data_dir());
    again.restart();
    assert!(again.log().contains("took over etcd's database"), "{}", again.log());
    assert_eq!(state(&again), after);
}

/// What both tools say of a file, in every format.
fn same_words(etcdutl: &Path, path: &Path) {
    for format in ["simple", "fields", "json", "table"] {
        // It may change the file that it hashes.
        let copy = path.with_extension("copy");
        std::fs::copy(path, &copy).expect("a copy");
        let copy = path_text(&copy);
        for command in
            [&["snapshot", "status", copy][..], &["hashkv", copy], &["hashkv", copy, "--rev", "280"]]
        {
            let args = [command, &["-w", format]].concat();
            assert_eq!(succeeds(&binary("etcdutl"), &args), succeeds(etcdutl, &args), "{args:?}");
        }
    }
}
