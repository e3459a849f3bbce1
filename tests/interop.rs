//! Our write-ahead log under a real etcd, and a real etcd's under ours: each replays the other's to the same pairs
//! at every revision, the same hashes, and goes on writing where the other ended.
//!
//! A mirror that `etcdctl make-mirror` keeps from each to the other.
//!
//! And our snapshot file under an etcd 3.6, the last one that starts from such a file.
//!
//! Needs an etcd 3.7, and for the last part a 3.6: `cargo xtask interop --etcd PATH [--etcd-3.6 PATH]` runs it.
//! `QUORATE_SEED` gives the workload of an earlier run, `QUORATE_OPS` its length.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use blackbox::{Member, Random, binary, patience, run};
use bytes::Bytes;
use client::{Client, Error};
use wire::Code;
use wire::etcdserverpb::{PutRequest, RangeRequest, RangeResponse, WatchCreateRequest};

/// Values of this size make the log roll over to its next segment of 64 MB.
const LARGE_VALUE_BYTES: usize = 1_500_000;
const LARGE_VALUES: usize = 45;

/// Sends random writes, one after the other.
async fn write(client: &Client, random: &mut Random, ops: u64) {
    for _ in 0..ops {
        let result = match random.below(10) {
            0..5 => client.put(random.put(), patience()).await.map(drop),
            5..7 => client.delete_range(random.delete(), patience()).await.map(drop),
            _ => client.txn(random.txn(0), patience()).await.map(drop),
        };
        match result {
            Ok(()) | Err(Error::Status(wire::Status { code: Code::InvalidArgument, .. })) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// What two members that have applied the same log must agree on.
struct State {
    revision: i64,
    /// Revision and HashKV there.
    hashes: Vec<(i64, u32)>,
    /// All pairs, now and at earlier revisions, without the header.
    pairs: Vec<RangeResponse>,
    /// The versions of server and cluster. (That of the storage follows in etcd after seconds.)
    versions: String,
}

impl State {
    /// Each part by itself, so that a difference is readable.
    fn assert_is(&self, expected: &State, when: &str) {
        assert_eq!(self.revision, expected.revision, "{when}");
        assert_eq!(self.versions, expected.versions, "{when}");
        assert_eq!(self.hashes, expected.hashes, "{when}");
        for (found, expected) in self.pairs.iter().zip(&expected.pairs) {
            assert!(found == expected, "{when}: pairs of {} and {}", found.count, expected.count);
        }
    }
}

async fn state(member: &Member) -> State {
    let client = member.client();
    let everything = |revision| RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        revision,
        ..Default::default()
    };
    let newest = client.range(everything(0), patience()).await.expect("a range");
    let revision = newest.header.expect("a header").revision;
    let (mut hashes, mut pairs) = (Vec::new(), Vec::new());
    for at in (2..=revision).step_by((revision as usize / 50).max(1)).chain([revision]) {
        let hash = client.hash_kv(at, patience()).await.expect("a hash");
        hashes.push((at, hash.hash));
    }
    for at in (2..=revision).step_by((revision as usize / 10).max(1)).chain([revision]) {
        let answer = client.range(everything(at), patience()).await.expect("a range of the past");
        pairs.push(RangeResponse { header: None, ..answer });
    }
    let version = member.http_get("/version");
    let (versions, _) = version.split_once(",\"storage\"").expect("three versions");
    State { revision, hashes, pairs, versions: versions.to_owned() }
}

/// A new member of `program` that has nothing but the log of `from`, which is killed.
fn take_over(program: &Path, from: &mut Member) -> Member {
    from.kill();
    let mut member = Member::of(program, &[]);
    let (source, target) = (from.data_dir().join("member/wal"), member.data_dir().join("member/wal"));
    for folder in [&target, &member.data_dir().join("member/snap")] {
        DirBuilder::new().mode(0o700).recursive(true).create(folder).expect("a folder");
    }
    let mut segments = 0;
    for entry in std::fs::read_dir(source).expect("a folder").map(|entry| entry.expect("an entry")) {
        if entry.path().extension().is_some_and(|extension| extension == "wal") {
            std::fs::copy(entry.path(), target.join(entry.file_name())).expect("a copy");
            segments += 1;
        }
    }
    assert!(segments > 0, "no segment to take over");
    member.restart();
    member
}

#[test]
#[ignore = "needs a real etcd: cargo xtask interop --etcd PATH"]
fn each_goes_on_with_the_others_log() {
    let theirs =
        PathBuf::from(std::env::var_os("QUORATE_ETCD").expect("QUORATE_ETCD is the path of an etcd"));
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect(name));
    let (seed, ops) = (number("QUORATE_SEED", 1), number("QUORATE_OPS", 600));
    println!("seed {seed}, {ops} writes a turn");
    let ours = binary("etcd");
    for (first, second, order) in [(&ours, &theirs, "ours first"), (&theirs, &ours, "etcd first")] {
        let mut random = Random::new(seed);
        let mut member = Member::of(first, &[]);
        member.restart();
        run(write(&member.client(), &mut random, ops));
        for turn in 1..=3 {
            let expected = run(state(&member));
            member = take_over(if turn % 2 == 1 { second } else { first }, &mut member);
            let found = run(state(&member));
            found.assert_is(&expected, &format!("{order}, turn {turn}"));
            println!("{order}, turn {turn}: equal at revision {}", found.revision);
            run(write(&member.client(), &mut random, ops));
        }
    }
}

/// All pairs without what only their own store knows of them.
async fn keys_and_values(client: &Client) -> Vec<(Bytes, Bytes)> {
    let all = Bytes::from_static(b"\0");
    let request = RangeRequest { key: all.clone(), range_end: all, ..Default::default() };
    let answer = client.range(request, patience()).await.expect("a range");
    answer.kvs.into_iter().map(|pair| (pair.key, pair.value)).collect()
}

/// `etcdctl make-mirror` of ours: what was there, and random changes while it runs.
#[test]
#[ignore = "needs a real etcd: cargo xtask interop --etcd PATH"]
fn a_mirror_from_each_to_the_other() {
    let theirs =
        PathBuf::from(std::env::var_os("QUORATE_ETCD").expect("QUORATE_ETCD is the path of an etcd"));
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect(name));
    let (seed, ops) = (number("QUORATE_SEED", 1), number("QUORATE_OPS", 600));
    let ours = binary("etcd");
    for (source, destination, order) in [(&ours, &theirs, "to etcd"), (&theirs, &ours, "from etcd")] {
        let mut random = Random::new(seed);
        let (mut source, mut destination) = (Member::of(source, &[]), Member::of(destination, &[]));
        source.restart();
        destination.restart();
        let (from, to) = (source.client(), destination.client());
        run(write(&from, &mut random, ops));
        let mut mirror = std::process::Command::new(binary("etcdctl"))
            .args(["--endpoints", &source.endpoint(), "make-mirror", &destination.endpoint()])
            .spawn()
            .expect("etcdctl runs");
        run(async {
            write(&from, &mut random, ops).await;
            let last = Bytes::from_static(b"\xff the last change");
            let put = PutRequest { key: last.clone(), value: last.clone(), ..Default::default() };
            from.put(put, patience()).await.expect("a put");
            let mut watcher = to.watcher(false);
            let watch = WatchCreateRequest { key: last, start_revision: 1, ..Default::default() };
            watcher.watch(watch).expect("a short request");
            loop {
                let next = tokio::time::timeout(blackbox::PATIENCE, watcher.next()).await.expect("it copies");
                if !next.expect("a watch").response.events.is_empty() {
                    break;
                }
            }
            let (expected, found) = (keys_and_values(&from).await, keys_and_values(&to).await);
            assert!(found == expected, "{order}: {} pairs of {}", found.len(), expected.len());
            println!("mirror {order}: {} pairs are the same", found.len());
        });
        mirror.kill().expect("it still runs");
        mirror.wait().expect("it ends");
    }
}

#[test]
#[ignore = "needs a real etcd: cargo xtask interop --etcd PATH"]
fn a_log_of_several_segments_is_taken_over() {
    let theirs =
        PathBuf::from(std::env::var_os("QUORATE_ETCD").expect("QUORATE_ETCD is the path of an etcd"));
    let ours = binary("etcd");
    for (first, second) in [(&ours, &theirs), (&theirs, &ours)] {
        let mut member = Member::of(first, &[]);
        member.restart();
        let client = member.client();
        let expected = run(async {
            for n in 0..LARGE_VALUES {
                let value = vec![n as u8; LARGE_VALUE_BYTES];
                let key = Bytes::from(format!("large{}", n % 4));
                let put = PutRequest { key, value: value.into(), ..Default::default() };
                client.put(put, patience()).await.expect("a put");
            }
            state(&member).await
        });
        let folder = std::fs::read_dir(member.data_dir().join("member/wal")).expect("a folder");
        let segments = folder
            .filter(|entry| {
                entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|e| e == "wal"))
            })
            .count();
        assert!(segments > 1, "the log did not roll over");
        let member = take_over(second, &mut member);
        let found = run(state(&member));
        found.assert_is(&expected, "several segments");
    }
}

/// etcd 3.6 reads the file before it misses its own database, which only a real etcd has.
#[test]
#[ignore = "needs a real etcd 3.6: cargo xtask interop --etcd PATH --etcd-3.6 PATH"]
fn etcd_3_6_takes_our_snapshot_file_and_the_log_behind_it() {
    let Some(theirs) = std::env::var_os("QUORATE_ETCD_3_6") else {
        return println!("no --etcd-3.6: our snapshot file is not tried");
    };
    let mut member = Member::new(&["--snapshot-count", "5", "--max-wals", "1"]);
    member.restart();
    run(async {
        let client = member.client();
        for n in 0..2 * LARGE_VALUES {
            let (key, value) = (Bytes::from_static(b"k"), vec![n as u8; LARGE_VALUE_BYTES].into());
            client.put(PutRequest { key, value, ..Default::default() }, patience()).await.expect("a put");
        }
    });
    // Closing waits for the work on files.
    member.terminate();
    let folder = member.data_dir().join("member");
    let first = folder.join("wal/0000000000000000-0000000000000000.wal");
    assert!(!first.exists(), "the log was not given back");
    let snapshots = std::fs::read_dir(folder.join("snap")).expect("a folder");
    let newest =
        snapshots.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).max();
    let newest = newest.expect("a snapshot file");
    let index = newest.trim_end_matches(".snap").split_once('-').expect("term and index").1;
    let index = u64::from_str_radix(index, 16).expect("an index");

    let mut etcd = Member::of(Path::new(&theirs), &[]);
    let mut command = etcd.command();
    let output = command.arg("--data-dir").arg(member.data_dir()).output().expect("etcd runs");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let taken = format!("\"msg\":\"recovered v2 store from snapshot\",\"snapshot-index\":{index},");
    assert!(log.contains(&taken) && log.contains("snapshot file doesn't exist"), "{log}");
    println!("etcd 3.6 takes {newest}");
    etcd.kill();
}
