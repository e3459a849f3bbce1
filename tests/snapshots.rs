//! Snapshot files and the log that is given back behind them, from outside: files, lines of the log, starts.

use std::path::{Path, PathBuf};

use blackbox::{Member, PATIENCE, patience, run};
use wire::etcdserverpb::{PutRequest, RangeRequest};

/// Values of this size fill a segment of 64 MB with 42 of them.
const LARGE_VALUE_BYTES: usize = 1_500_000;
const LARGE_VALUES: u64 = 100;

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == extension)).collect();
    files.sort();
    files
}

/// Puts large values until `count` of them are there.
fn fill(member: &Member, count: u64) {
    run(async {
        let client = member.client();
        for n in 0..count {
            let value = vec![n as u8; LARGE_VALUE_BYTES];
            let key = format!("k{}", n % 3).into();
            client
                .put(PutRequest { key, value: value.into(), ..Default::default() }, patience())
                .await
                .expect("a put");
        }
    });
}

fn revision_and_hash(member: &Member) -> (i64, u32) {
    run(async {
        let client = member.client();
        let hash = client.hash_kv(0, patience()).await.expect("a hash");
        let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
        assert_eq!(client.range(all, patience()).await.expect("a range").count, 3);
        (hash.hash_revision, hash.hash)
    })
}

/// Waits until the log says this so many times; the file work is not waited for by any answer.
fn await_lines(member: &Member, text: &str, count: usize) {
    let begun = std::time::Instant::now();
    while member.log().matches(text).count() < count {
        assert!(begun.elapsed() < PATIENCE, "{text}:\n{}", member.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn the_log_is_given_back_and_a_start_needs_no_more() {
    let flags = ["--snapshot-count", "5", "--max-wals", "1", "--max-snapshots", "2"];
    let mut member = Member::new(&flags);
    member.announce("--max-snapshots is deprecated");
    member.restart();
    fill(&member, LARGE_VALUES);
    let (wal, snap) = (member.data_dir().join("member/wal"), member.data_dir().join("member/snap"));
    // Two segments are full, and the third one has a snapshot record.
    await_lines(&member, "\"msg\":\"purged\",\"path\":\"", 3);
    await_lines(&member, ".wal\"}", 2);
    let log = member.log();
    let triggered = log.lines().find(|line| line.contains("\"triggering snapshot\"")).expect("etcd's line");
    for field in [
        "\"local-member-id\":\"",
        "\"local-member-applied-index\":6,",
        "\"local-member-snapshot-index\":0,",
        "\"local-member-snapshot-count\":5,",
        "\"snapshot-forced\":false}",
    ] {
        assert!(triggered.contains(field), "{field}: {triggered}");
    }
    assert!(log.contains("\"msg\":\"saved snapshot to disk\",\"snapshot-index\":6}"), "{log}");
    assert_eq!(files(&wal, "wal").len(), 1, "--max-wals");
    let expected = revision_and_hash(&member);
    for _ in 0..2 {
        member.kill();
        assert!((2..=3).contains(&files(&snap, "snap").len()), "--max-snapshots, and one under way");
        member.restart();
        assert_eq!(revision_and_hash(&member), expected, "after kill -9");
    }

    // The revision log cannot be made anew any more, and nothing pretends so.
    member.kill();
    let (rev, away) = (member.data_dir().join("member/rev"), member.data_dir().join("member/rev-away"));
    std::fs::rename(&rev, &away).expect("a folder");
    let output = member.command().output().expect("etcd runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("do not fit together: the revision log holds nothing"), "{text}");
    std::fs::rename(&away, &rev).expect("back again");
    member.restart();
    assert_eq!(revision_and_hash(&member), expected);
}

#[test]
fn a_damaged_snapshot_file_is_set_aside_as_etcd_does_and_stops_nobody() {
    let mut member = Member::start(&["--snapshot-count", "1"]);
    fill(&member, 3);
    await_lines(&member, "\"saved snapshot to disk\"", 1);
    let expected = revision_and_hash(&member);
    assert!(member.terminate().code().is_none());
    let snap = member.data_dir().join("member/snap");
    let newest = files(&snap, "snap").pop().expect("a file");
    let mut bytes = std::fs::read(&newest).expect("a file");
    bytes[50] ^= 1;
    std::fs::write(&newest, &bytes).expect("a file");
    for text in ["failed to read a snap file", "renamed to a broken snap file", "names is missing"] {
        member.announce(text);
    }
    member.restart();
    let name = newest.file_name().expect("a name").to_string_lossy().into_owned();
    let log = member.log();
    assert!(
        log.contains(&format!("{name}\",\"error\":\"damaged at offset 0: the sum does not match\"}}")),
        "{log}"
    );
    assert_eq!(std::fs::read(snap.join(format!("{name}.broken"))).expect("set aside"), bytes);
    await_lines(&member, "\"saved snapshot to disk\"", 1);
    assert_eq!(revision_and_hash(&member), expected);
    // Nothing to say any more.
    member.restart();
    assert!(!member.log().contains("snap file"), "{}", member.log());
    assert_eq!(revision_and_hash(&member), expected);
}
