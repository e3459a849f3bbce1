//! One flipped byte anywhere in a member's directory: the start names file and offset and changes nothing, or it
//! makes no difference at all. Every byte of every file: one bit of it, or, with `QUORATE_FLIPS=all`, each bit by
//! itself and all together.
//!
//! No value here holds a sector of zeros: a flip in such a record looks like a torn write (rule 5's stated limit).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::{Fs, MemFs};
use node::offline::DataDir;
use node::{Entropy, Error, Limits, Settings, Submission};
use prost::Message;
use raft::Time;
use sim::member::{Running, Told, proposal, settings};
use sim::random::Random;
use wire::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, RequestHeader,
};

const NOW: Time = Time(1);

/// Requests in each of the two runs.
const REQUESTS: u64 = 50;

const MASKS: [u8; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 255];

fn open(memory: &MemFs) -> Result<Running, Error> {
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    // So that there is a snapshot file, and the log has lost its beginning.
    let settings = Settings { snapshot_count: 20, wals_max: 2, snapshots_max: 1, ..settings() };
    Running::open(&fs, &settings, Entropy { ids: 1 << 40, log: 5, raft: 5 }, NOW)
}

fn request(id: u64, n: u64) -> Submission {
    let header = Some(RequestHeader { id, ..Default::default() });
    let mut request = InternalRaftRequest { header, ..Default::default() };
    if n == 80 {
        request.compaction = Some(CompactionRequest { revision: 50, physical: false });
    } else if n % 5 == 4 {
        request.delete_range =
            Some(DeleteRangeRequest { key: format!("k{}", n % 3).into(), ..Default::default() });
    } else {
        let value = "v".repeat((n * 13 % 90) as usize);
        request.put =
            Some(PutRequest { key: format!("k{}", n % 7).into(), value: value.into(), ..Default::default() });
    }
    proposal(node::RequestId(id), request.encode_to_vec(), n % 5 != 4)
}

/// What must survive: the hash of all revisions, and who is in the cluster.
type State = (u32, i64, usize, Option<String>);

fn state(mut member: Running) -> State {
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    let hash = member.parts.reader.hash_kv(0).expect("a hash");
    let membership = member.parts.reader.membership();
    let version = membership.cluster_version().map(str::to_owned);
    (hash.0.hash, hash.0.hash_revision, membership.members().len(), version)
}

fn files(memory: &MemFs) -> Vec<(PathBuf, Vec<u8>)> {
    memory.files().into_iter().map(|path| (path.clone(), memory.read(&path).expect("a file"))).collect()
}

/// A member's directory after an orderly life, with several segments of both logs.
fn directory() -> MemFs {
    let memory = MemFs::new();
    for run in 0..2 {
        let mut member = open(&memory).expect("a member starts");
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        let mut ids = member.lane();
        for n in 0..REQUESTS {
            member.submit(vec![request(ids.next().0, run * REQUESTS + n)]);
            member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        }
        drop(member);
        memory.kill();
    }
    let names: Vec<String> = memory.files().iter().map(|path| path.to_string_lossy().into_owned()).collect();
    assert!(names.iter().any(|name| name.ends_with(".snap")), "{names:?}");
    assert!(names.iter().any(|name| name.contains("/rev/8000")), "segments were merged: {names:?}");
    assert!(!names.iter().any(|name| name.ends_with("0000000000000000-0000000000000000.wal")), "{names:?}");
    memory
}

/// What `etcdutl check` finds wrong.
fn checked(memory: &MemFs, at: &str) -> Vec<String> {
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let Limits { wal, revlog, .. } = settings().limits;
    let data_dir =
        DataDir { path: settings().data_dir, wal_dir: None, wal_limits: wal, revlog_limits: revlog };
    let report = node::offline::check(&fs, &data_dir).unwrap_or_else(|error| panic!("{at}: {error}"));
    report.faults.into_iter().map(|fault| fault.what).collect()
}

/// Opens the directory with these bits of one byte turned; whether that was refused.
fn flip(memory: &MemFs, path: &Path, offset: u64, mask: u8, expected: &State) -> bool {
    let flipped = memory.copy();
    flipped.flip(path, offset, mask).expect("a byte of the file");
    let before = files(&flipped);
    let at = format!("{} byte {offset} mask {mask:#x}", path.display());
    let faults = checked(&flipped, &at);
    assert_eq!(files(&flipped), before, "a check changed something: {at}");
    match open(&flipped) {
        Ok(member) => {
            let is_snapshot = path.extension().is_some_and(|end| end == "snap");
            assert_eq!(!faults.is_empty(), is_snapshot, "what a start takes is sound: {at}: {faults:?}");
            // Nothing depends on such a file, but its damage is named.
            let broken = member.parts.found.broken.iter().map(|(broken, _)| &*broken.file);
            assert_eq!(broken.collect::<Vec<_>>(), if is_snapshot { vec![path] } else { vec![] }, "{at}");
            assert_eq!(state(member), *expected, "a silent difference: {at}");
            false
        }
        Err(error) => {
            let text = error.to_string();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(text.contains(&name) && text.contains("offset"), "{at}: {text}");
            assert_eq!(files(&flipped), before, "a refusal changed something: {at}");
            assert!(faults.contains(&text), "a start says {text}, the check {faults:?}");
            true
        }
    }
}

#[test]
fn one_flipped_byte_is_refused_by_name_or_makes_no_difference() {
    let memory = directory();
    let expected = state(open(&memory.copy()).expect("an undamaged directory opens"));
    let all = std::env::var("QUORATE_FLIPS").is_ok_and(|flips| flips == "all");
    let mut random = Random::new(11);
    let (mut refused, mut harmless) = (0, 0);
    for (path, bytes) in files(&memory) {
        for offset in 0..bytes.len() as u64 {
            let one = [1 << random.below(8)];
            for mask in if all { &MASKS[..] } else { &one[..] } {
                let counter =
                    if flip(&memory, &path, offset, *mask, &expected) { &mut refused } else { &mut harmless };
                *counter += 1;
            }
        }
    }
    println!("{refused} refused, {harmless} harmless");
    assert!(
        refused > 8_000 && harmless > 1_000,
        "{refused} refused, {harmless} harmless: the directory is too small"
    );
}
