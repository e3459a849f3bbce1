//! The numbered rules of ARCHITECTURE.md that one member can break, a test each. What only a cluster or another
//! part can break is held by the tests that ARCHITECTURE.md names.

#[path = "rules/leader.rs"]
mod leader;
#[path = "rules/merges.rs"]
mod merges;
#[path = "rules/rot.rs"]
mod rot;
#[path = "rules/snapshots.rs"]
mod snapshots;
#[path = "rules/space.rs"]
mod space;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use disk::wal::{self, Wal};
use disk::{Fault, FaultFs, Fs, MemFs, Operation};
use node::{Entropy, Error, LaneIds, Settings, Submission};
use prost::Message;
use raft::{Entry, EntryKind, Index, Term, Time};
use sim::member::{Running, Told, proposal, settings};
use store::ReadMode;
use store::request::Range;
use wire::ApiError;
use wire::etcdserverpb::{
    DeleteRangeRequest, InternalRaftRequest, Metadata, PutRequest, RangeResponse, RequestHeader,
};
use wire::raftpb::{ConfChange, ConfChangeType};

const NOW: Time = Time(1);

fn start(fs: &Arc<dyn Fs>) -> Running {
    start_with(fs, &settings(), 7).expect("a member starts")
}

fn start_with(fs: &Arc<dyn Fs>, settings: &Settings, seed: u64) -> Result<Running, Error> {
    Running::open(fs, settings, Entropy { ids: seed << 32, log: seed, raft: seed }, NOW)
}

/// A member that has come to rest after its start.
fn ready(fs: &Arc<dyn Fs>) -> Running {
    let mut member = start(fs);
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    assert!(member.is_ready);
    member
}

/// Runs everything once but compactions and merges, and syncs.
fn turn(member: &mut Running, told: &mut Told) {
    member.consensus(NOW, told);
    member.write_log(usize::MAX).expect("a healthy disk");
    member.apply(NOW, told).expect("applies");
    member.write_revisions().expect("a healthy disk");
    member.sync_revisions().expect("a healthy disk");
    member.work_on_files(told).expect("a healthy disk");
}

/// Runs everything but merges for long enough to come to rest.
fn settle_without_merges(member: &mut Running, told: &mut Told) {
    for _ in 0..30 {
        turn(member, told);
        member.compact();
    }
    assert!(member.inputs.is_empty() && member.entries.is_empty() && member.parts.compactor.is_idle());
}

fn put(ids: &mut LaneIds, key: &str, value: &str) -> Submission {
    let id = ids.next();
    let request = InternalRaftRequest {
        header: Some(RequestHeader { id: id.0, ..Default::default() }),
        put: Some(PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    proposal(id, request.encode_to_vec(), true)
}

fn delete(ids: &mut LaneIds, key: &str) -> Submission {
    let id = ids.next();
    let request = InternalRaftRequest {
        header: Some(RequestHeader { id: id.0, ..Default::default() }),
        delete_range: Some(DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() }),
        ..Default::default()
    };
    proposal(id, request.encode_to_vec(), false)
}

fn files(memory: &MemFs) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    memory.files().into_iter().map(|path| (path.clone(), memory.read(&path).expect("a file"))).collect()
}

fn value_of(member: &Running, key: &[u8], revision: i64) -> Option<Bytes> {
    let mut body = Vec::new();
    let request = Range { key, revision, ..Default::default() };
    member.parts.reader.range(&request, ReadMode::MayBlock, &mut body).expect("a read");
    RangeResponse::decode(body.as_slice()).expect("an answer").kvs.pop().map(|pair| pair.value)
}

#[test]
fn rule_1_nothing_is_answered_before_the_sync_that_covers_it() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    let mut told = Told::default();
    member.submit(vec![put(&mut member.lane(), "k", "v")]);
    member.consensus(NOW, &mut told);
    member.apply(NOW, &mut told).expect("nothing to apply");
    assert!(told.completions.answers.is_empty() && told.applied.is_empty(), "answered from memory alone");
    member.write_log(usize::MAX).expect("a healthy disk");
    let synced = memory.crashed(1);
    member.settle(NOW, &mut told).expect("a healthy disk");
    assert_eq!(told.completions.answers.len(), 1);
    drop(member);
    let fs: Arc<dyn Fs> = Arc::new(synced);
    assert_eq!(
        value_of(&ready(&fs), b"k", 0).as_deref(),
        Some(&b"v"[..]),
        "what was answered survives a power cut"
    );
}

#[test]
fn rule_1_term_and_vote_are_on_disk_before_the_vote_counts() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = start(&fs);
    let mut told = Told::default();
    for _ in 0..100 {
        member.consensus(NOW, &mut told);
        if member.parts.consensus.status().role == raft::Role::Leader {
            break;
        }
        if member.inputs.is_empty() {
            member.write_log(usize::MAX).expect("a healthy disk");
            member.apply(NOW, &mut told).expect("applies");
        }
    }
    assert_eq!(member.parts.consensus.status().role, raft::Role::Leader);
    let status = member.parts.consensus.status();
    drop(member);
    memory.power_cut(1);
    let log = Wal::open(fs, Path::new("/data/member/wal"), wal::Limits::tiny()).expect("a log");
    let state = log.hard_state().expect("a hard state");
    assert_eq!((state.term, state.vote), (status.term.0, status.id.0), "a vote that the disk does not know");
}

#[test]
fn rule_2_no_frame_is_written_before_the_log_has_its_entries() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    let status = member.parts.consensus.status();
    // A quorum has this entry, this member's own disk does not.
    let index = status.applied.next();
    let Submission::Propose { data, .. } = put(&mut member.lane(), "k", "v") else { panic!("a put") };
    let entry = Entry { term: Term(status.term.0), index, kind: EntryKind::Normal, data };
    let applied = member.parts.applier.apply(&mut VecDeque::from([entry]), status.commit.0);
    let batch = applied.expect("applies").expect("a batch");
    assert_eq!(value_of(&member, b"k", 0).as_deref(), Some(&b"v"[..]), "it may be read");
    member.parts.revision_writer.offer(batch.frame);
    memory.start_trace();
    member.write_revisions().expect("nothing to do");
    assert_eq!(memory.take_trace(), "", "a frame ran ahead of the log");
    member.parts.revision_writer.wal_durable(index.0);
    member.write_revisions().expect("a healthy disk");
    assert!(memory.take_trace().contains("write"), "the frame is written once it may be");
}

#[test]
fn rule_4_what_waits_is_bounded_and_the_rest_is_refused() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let mut tight = settings();
    tight.limits.raft.uncommitted_entries_max = 4;
    let mut member = start_with(&fs, &tight, 7).expect("a member starts");
    let mut told = Told::default();
    member.settle(NOW, &mut told).expect("a healthy disk");
    let mut ids = member.lane();
    member.submit((0..10).map(|n| put(&mut ids, "k", &n.to_string())).collect());
    member.settle(NOW, &mut told).expect("a healthy disk");
    let refused: Vec<_> =
        told.completions.answers.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    assert_eq!(refused.len(), 6);
    assert!(refused.iter().all(|status| status.message == ApiError::TooManyRequests.text()), "{refused:?}");
    assert_eq!(member.parts.reader.revision(), 1 + 4);
}

#[test]
fn rule_5_damage_is_refused_by_file_and_offset_and_nothing_is_changed() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    let mut ids = member.lane();
    for n in 0..40 {
        member.submit(vec![put(&mut ids, "k", &n.to_string())]);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    }
    drop(member);
    memory.kill();
    for folder in ["/data/member/wal", "/data/member/rev"] {
        let copy = memory.copy();
        let first = copy.files().into_iter().find(|path| path.starts_with(folder)).expect("a segment");
        copy.flip(&first, 300, 0x10).expect("a byte");
        let before = files(&copy);
        let fs: Arc<dyn Fs> = Arc::new(copy.clone());
        let error = start_with(&fs, &settings(), 8).err().expect("damage is refused").to_string();
        let name = first.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(error.contains(&name) && error.contains("offset"), "{error}");
        assert_eq!(files(&copy), before, "a refusal changes nothing");
    }
}

#[test]
fn rule_6_a_start_writes_nothing_until_its_checks_hold_and_twice_is_as_once() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    drop(ready(&fs));
    memory.kill();
    drop(start(&fs));
    memory.kill();
    let once = files(&memory);
    drop(start(&fs));
    memory.kill();
    assert_eq!(files(&memory), once, "a second start changed something");

    let held = start(&fs);
    assert!(matches!(start_with(&fs, &settings(), 9), Err(Error::Locked(_))), "two members on one folder");
    drop(held);
}

#[test]
fn rule_6_a_member_is_ready_when_its_own_attributes_are_applied() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    for _ in 0..2 {
        let mut member = start(&fs);
        let mut told = Told::default();
        while !member.is_ready {
            let membership = member.parts.reader.membership();
            assert!(member.parts.consensus.status().applied == Index(0) || membership.members().len() == 1);
            member.consensus(NOW, &mut told);
            member.write_log(usize::MAX).expect("a healthy disk");
            member.apply(NOW, &mut told).expect("applies");
        }
        let membership = member.parts.reader.membership();
        let own = membership.members().next().expect("this member");
        assert_eq!(own.client_urls, settings().client_urls);
        member.settle(NOW, &mut told).expect("a healthy disk");
        assert_eq!(member.parts.reader.membership().cluster_version(), Some("3.7.0"));
        let index = member.parts.consensus.status().last;
        member.submit(Vec::new());
        member.settle(NOW, &mut told).expect("a healthy disk");
        assert_eq!(member.parts.consensus.status().last, index, "an idle log stays still");
    }
}

#[test]
fn rule_7_a_failed_sync_ends_the_member_and_is_never_tried_again() {
    let memory = MemFs::new();
    let faults = FaultFs::new(Arc::new(memory));
    let fs: Arc<dyn Fs> = Arc::new(faults.clone());
    let mut member = ready(&fs);
    let mut told = Told::default();
    member.submit(vec![put(&mut member.lane(), "k", "v")]);
    member.consensus(NOW, &mut told);
    faults.add(Fault::once(Operation::Sync));
    let error = member.write_log(usize::MAX).expect_err("the sync fails").to_string();
    assert!(error.contains(".wal"), "{error}");
    // The fault is over, the member is not well again.
    member.submit(vec![put(&mut member.lane(), "l", "v")]);
    member.consensus(NOW, &mut told);
    assert!(member.write_log(usize::MAX).is_err(), "written after a failed sync");
    while !member.inputs.is_empty() {
        member.consensus(NOW, &mut told);
    }
    member.apply(NOW, &mut told).expect("nothing to apply");
    assert!(told.completions.answers.is_empty(), "acknowledged after a failed sync");
}

#[test]
fn rule_7_a_full_disk_refuses_puts_and_lets_deletes_and_reads_go_on() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    let mut ids = member.lane();
    let mut told = Told::default();
    member.submit(vec![put(&mut ids, "k", "v")]);
    member.settle(NOW, &mut told).expect("a healthy disk");
    memory.set_capacity(Some(memory.used()));
    told = Told::default();
    let mut refused = 0;
    for n in 0..200 {
        member.submit(vec![put(&mut ids, "k", &n.to_string())]);
        member.prepare_log().expect("a full disk is no failure");
        member.settle(NOW, &mut told).expect("a full disk ends nothing while there is a reserve");
        refused = told.completions.answers.iter().filter(|(_, result)| result.is_err()).count();
        if refused > 0 {
            break;
        }
    }
    assert!(refused > 0, "puts were never refused");
    let revision = member.parts.reader.revision();
    member.submit(vec![delete(&mut ids, "k")]);
    member.settle(NOW, &mut told).expect("deletes go on");
    assert_eq!(member.parts.reader.revision(), revision + 1);
    assert_eq!(value_of(&member, b"k", 0), None, "reads go on");
    // Room comes back without a restart.
    memory.set_capacity(None);
    member.prepare_log().expect("room again");
    member.sync_revisions().expect("room again");
    member.submit(vec![put(&mut ids, "k", "after")]);
    member.settle(NOW, &mut told).expect("a healthy disk");
    assert_eq!(value_of(&member, b"k", 0).as_deref(), Some(&b"after"[..]));
}

#[test]
fn rule_7_a_full_disk_that_uses_up_its_reserve_makes_writes_wait_and_ends_nothing() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    let mut ids = member.lane();
    memory.set_capacity(Some(memory.used()));
    let mut told = Told::default();
    let mut submitted = 0;
    // Far more than two segments hold.
    while submitted < 200 {
        member.submit(vec![delete(&mut ids, "k")]);
        member.consensus(NOW, &mut told);
        member.write_log(usize::MAX).expect("a full disk is no failure");
        submitted += 1;
    }
    assert!(!member.persist.is_empty(), "the disk never filled");
    assert!(!member.parts.log_writer.has_room());
    memory.set_capacity(None);
    member.prepare_log().expect("room again");
    member.settle(NOW, &mut told).expect("a healthy disk");
    assert_eq!(told.completions.answers.iter().filter(|(_, result)| result.is_ok()).count(), submitted);
}

#[test]
fn rule_7_a_group_longer_than_what_is_allocated_waits_in_its_midst() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    member.prepare_log().expect("a healthy disk");
    let mut ids = member.lane();
    let mut told = Told::default();
    memory.set_capacity(Some(memory.used()));
    // One batch, so one request to the log: more than two segments hold, and one entry that none does.
    let long = "v".repeat(5000);
    let values = (0..20).map(|_| "v".repeat(300)).chain([long.clone()]).chain(["last".to_owned()]);
    member.submit(values.map(|value| put(&mut ids, "k", &value)).collect());
    member.consensus(NOW, &mut told);
    assert_eq!(member.persist.len(), 1);
    for _ in 0..3 {
        member.write_log(usize::MAX).expect("a full disk is no failure");
    }
    assert_eq!(member.persist.len(), 1, "not all of it fits");
    assert!(member.persist[0].entries.len() < 22, "what fits is written");
    assert!(!member.parts.log_writer.has_room());
    memory.set_capacity(None);
    for _ in 0..20 {
        member.prepare_log().expect("room again");
        member.settle(NOW, &mut told).expect("a healthy disk");
    }
    assert_eq!(told.completions.answers.iter().filter(|(_, result)| result.is_ok()).count(), 22);
    drop(member);
    memory.power_cut(3);
    let member = ready(&fs);
    assert_eq!(value_of(&member, b"k", 22), Some(Bytes::from(long)), "all of it is in the log");
    assert_eq!(value_of(&member, b"k", 0).as_deref(), Some(&b"last"[..]));
}

#[test]
fn rule_7_a_full_disk_that_uses_up_the_revision_logs_spare_makes_frames_wait_and_ends_nothing() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut roomy = settings();
    roomy.limits.wal.segment_bytes = 1 << 20;
    let mut member = start_with(&fs, &roomy, 7).expect("a member starts");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    member.prepare_log().expect("a healthy disk");
    let mut ids = member.lane();
    memory.set_capacity(Some(memory.used()));
    let mut told = Told::default();
    let mut submitted = 0;
    // Each makes a frame; far more of them than the allocated segments hold.
    while submitted < 200 {
        member.submit(vec![delete(&mut ids, "k")]);
        // A merge would give room: such frames are hardly more than headers.
        settle_without_merges(&mut member, &mut told);
        submitted += 1;
    }
    assert_eq!(told.completions.answers.iter().filter(|(_, result)| result.is_ok()).count(), submitted);
    assert!(!member.parts.revision_writer.has_room());
    assert!(member.parts.revision_writer.has_waiting(), "the disk never filled");
    // What waits is what makes apply pause.
    let waiting = member.parts.applier.unwritten_bytes();
    assert!(waiting > 10_000 && member.is_apply_paused(), "{waiting} bytes");
    memory.set_capacity(None);
    member.sync_revisions().expect("room again");
    member.settle(NOW, &mut told).expect("a healthy disk");
    assert!(!member.parts.revision_writer.has_waiting());
    assert_eq!(member.parts.applier.unwritten_bytes(), 0);
    member.submit(vec![put(&mut member.lane(), "k", "after")]);
    member.settle(NOW, &mut told).expect("a healthy disk");
    assert_eq!(value_of(&member, b"k", 0).as_deref(), Some(&b"after"[..]));
}

#[test]
fn rule_7_a_member_starts_on_a_full_disk() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    let mut ids = member.lane();
    for n in 0..40 {
        member.submit(vec![put(&mut ids, "k", &n.to_string())]);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    }
    drop(member);
    // A start that was killed where it cuts a torn end leaves segments without the rest of their length.
    for newest in ["wal", "seg"] {
        let path = memory.files().into_iter().rfind(|path| path.extension().is_some_and(|end| end == newest));
        let path = path.expect("a segment");
        let bytes = memory.read(&path).expect("a segment");
        let written = bytes.iter().rposition(|byte| *byte != 0).expect("something").next_multiple_of(8);
        memory.put(&path, &bytes[..written]).expect("a segment");
    }
    memory.kill();
    memory.set_capacity(Some(0));
    let mut member = start_with(&fs, &settings(), 8).expect("a member starts on a full disk");
    let mut told = Told::default();
    for _ in 0..10 {
        member.consensus(NOW, &mut told);
        member.write_log(usize::MAX).expect("a full disk is no failure");
        member.apply(NOW, &mut told).expect("applies");
        member.write_revisions().expect("a full disk is no failure");
        member.sync_revisions().expect("a full disk is no failure");
    }
    assert_eq!(value_of(&member, b"k", 0).as_deref(), Some(&b"39"[..]));
    assert!(!member.is_ready, "there is no room for its attributes");
    memory.set_capacity(None);
    member.prepare_log().expect("room again");
    member.sync_revisions().expect("room again");
    member.settle(NOW, &mut told).expect("a healthy disk");
    assert!(member.is_ready);
}

#[test]
fn rule_5_a_revision_log_ahead_of_the_write_ahead_log_is_refused() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    let mut ids = member.lane();
    let wal = || {
        let all = files(&memory).into_iter();
        all.filter(|(path, _)| path.extension().is_some_and(|end| end == "wal")).collect::<Vec<_>>()
    };
    let before = wal();
    member.submit(vec![put(&mut ids, "k", "v")]);
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    drop(member);
    memory.kill();
    assert_eq!(before.len(), wal().len(), "the put stands in the segment that was there before");
    for (path, bytes) in before {
        let file = fs.open(&path, disk::Access::ReadWrite).expect("a segment");
        file.write_all_at(&bytes, 0).expect("an older state of the segment");
        file.sync_data().expect("a healthy disk");
    }
    let kept = files(&memory);
    let error = start_with(&fs, &settings(), 7).err().expect("entries that were applied are gone");
    assert!(matches!(error, Error::Contradiction(_)), "{error}");
    assert_eq!(files(&memory), kept, "and nothing was changed");
}

/// What looks torn in the write-ahead log was acknowledged, if a frame of the revision log says so, though it holds
/// less itself.
#[test]
fn rule_5_a_write_ahead_log_that_ends_before_what_a_frame_knows_durable_is_refused() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    let mut ids = member.lane();
    let mut told = Told::default();
    // Both are committed together; a frame takes one of them.
    member.submit(vec![put(&mut ids, "k", &"a".repeat(300)), put(&mut ids, "k", &"b".repeat(1500))]);
    for _ in 0..4 {
        while !member.inputs.is_empty() {
            member.consensus(NOW, &mut told);
        }
        member.write_log(usize::MAX).expect("a healthy disk");
    }
    member.apply(NOW, &mut told).expect("applies");
    member.write_revisions().expect("a healthy disk");
    member.sync_revisions().expect("a healthy disk");
    member.apply(NOW, &mut told).expect("applies");
    assert_eq!(told.completions.answers.len(), 2, "both are acknowledged");
    drop(member);
    memory.kill();
    let newest = memory.files().into_iter().rfind(|path| path.extension().is_some_and(|end| end == "wal"));
    let newest = newest.expect("a segment");
    let mut bytes = memory.read(&newest).expect("a segment");
    let second = bytes.windows(600).position(|part| part.iter().all(|byte| *byte == b'b')).expect("the put");
    let sector = second.next_multiple_of(512);
    bytes[sector..sector + 512].fill(0);
    memory.put(&newest, &bytes).expect("a segment");
    let log = Wal::open(fs.clone(), Path::new("/data/member/wal"), wal::Limits::tiny()).expect("a log");
    assert!(log.torn().is_some(), "by itself it looks torn");
    drop(log);
    let before = files(&memory);
    let error = start_with(&fs, &settings(), 8).err().expect("an acknowledged entry is gone").to_string();
    let name = newest.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(error.contains(&name) && error.contains("offset"), "{error}");
    assert_eq!(files(&memory), before, "a refusal changes nothing");
}

#[test]
fn rule_8_the_same_entries_make_the_same_state_on_any_member() {
    let mut states = Vec::new();
    for seed in [3, 4] {
        let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
        let mut local = settings();
        local.client_urls = vec![format!("http://localhost:{seed}")];
        let mut member = start_with(&fs, &local, seed).expect("a member starts");
        // Entries of another run: no id of theirs is this member's own.
        let mut ids = node::RequestIds::new(99, 1).lane(0);
        let change = ConfChange {
            r#type: Some(ConfChangeType::ConfChangeAddNode.into()),
            node_id: Some(5),
            context: Some(Bytes::from_static(br#"{"id":5,"peerURLs":["http://a:1"],"name":"a"}"#)),
            id: None,
        };
        let mut entries = VecDeque::from([Entry {
            term: Term(1),
            index: Index(1),
            kind: EntryKind::ConfChange,
            data: change.encode_to_vec().into(),
        }]);
        for n in 2..30 {
            let Submission::Propose { data, .. } = put(&mut ids, &format!("k{}", n % 5), "v") else {
                continue;
            };
            entries.push_back(Entry { term: Term(1), index: Index(n), kind: EntryKind::Normal, data });
        }
        while member.parts.applier.apply(&mut entries, 0).expect("applies").is_some() {}
        let store = member.parts.applier.store();
        states.push((store.tables(), store.reader().hash_kv(0).expect("a hash")));
    }
    assert_eq!(states[0], states[1]);
}

#[test]
fn rule_9_whoever_has_an_answer_reads_its_revision() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let mut member = ready(&fs);
    let mut ids = member.lane();
    for n in 0..20 {
        let mut told = Told::default();
        member.submit(vec![put(&mut ids, "k", &n.to_string()), put(&mut ids, "l", "x")]);
        while told.completions.answers.is_empty() {
            member.consensus(NOW, &mut told);
            member.write_log(usize::MAX).expect("a healthy disk");
            member.apply(NOW, &mut told).expect("applies");
        }
        for (_, answer) in &told.completions.answers {
            let answer = answer.as_ref().expect("a put");
            assert!(member.parts.reader.revision() >= answer.revision);
        }
        assert_eq!(value_of(&member, b"k", 0), Some(Bytes::from(n.to_string())));
    }
}

#[test]
fn rule_10_a_past_revision_reads_the_same_for_ever() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    let mut ids = member.lane();
    for n in 0..60 {
        member.submit(vec![put(&mut ids, "k", &n.to_string())]);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        for past in 0..=n {
            assert_eq!(value_of(&member, b"k", past + 2), Some(Bytes::from(past.to_string())));
        }
    }
}

#[test]
fn rule_15_a_refusal_changed_nothing() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let mut member = ready(&fs);
    let before = member.parts.consensus.status().last;
    let mut told = Told::default();
    member.inputs.push_back(node::Input::Room(false));
    member.submit(vec![put(&mut member.lane(), "k", "v")]);
    member.settle(NOW, &mut told).expect("a healthy disk");
    let (_, result) = told.completions.answers.pop().expect("an answer");
    assert_eq!(result.expect_err("no room").message, ApiError::NoSpace.text());
    assert_eq!(member.parts.consensus.status().last, before, "it is in the log after all");
}

/// The hard state behind a new log's first entries may stand in another sector, so that a power cut loses it alone.
#[test]
fn rule_20_a_first_start_that_was_torn_begins_again() {
    for length in (0..600).step_by(8) {
        let mut long = settings();
        long.peer_urls = vec![format!("http://peer-{}.example:2380", "x".repeat(length))];
        long.initial_cluster[0].peer_urls = long.peer_urls.clone();
        let memory = MemFs::new();
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        drop(start_with(&fs, &long, 7).expect("a member starts"));
        memory.kill();
        let segment = Path::new("/data/member/wal/0000000000000000-0000000000000000.wal");
        let bytes = memory.read(segment).expect("a segment");
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("something");
        for sector in (0..=end).step_by(512).skip(1) {
            let torn = memory.copy();
            torn.put(segment, &[&bytes[..sector], &vec![0; bytes.len() - sector]].concat())
                .expect("a segment");
            let fs: Arc<dyn Fs> = Arc::new(torn);
            let mut member = start_with(&fs, &long, 8).expect("a torn end is no damage");
            member.settle(NOW, &mut Told::default()).expect("a healthy disk");
            assert!(member.is_ready, "length {length}, sector {sector}: no member of its own cluster");
        }
    }
}

#[test]
fn rule_20_a_new_log_begins_as_etcds_and_every_request_has_an_id() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    member.submit(vec![put(&mut member.lane(), "k", "v")]);
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    let identity = member.parts.identity;
    drop(member);
    memory.kill();
    let log = Wal::open(fs, Path::new("/data/member/wal"), wal::Limits::tiny()).expect("a log");
    let metadata = Metadata::decode(log.metadata()).expect("metadata");
    assert_eq!((metadata.node_id(), metadata.cluster_id()), (identity.member_id, identity.cluster_id));
    let entries: Vec<wal::Entry> = log.entries(0).map(|entry| entry.expect("an entry")).collect();
    assert_eq!((entries[0].term, entries[0].index, entries[0].kind), (1, 1, wal::EntryKind::ConfChange));
    let change = ConfChange::decode(entries[0].data.clone()).expect("a change");
    assert_eq!(change.r#type(), ConfChangeType::ConfChangeAddNode);
    assert_eq!(change.node_id(), identity.member_id);
    let context = String::from_utf8(change.context().to_vec()).expect("JSON");
    let expected =
        format!(r#"{{"id":{},"peerURLs":["http://localhost:2380"],"name":"sim"}}"#, identity.member_id);
    assert_eq!(context, expected);
    let requests: Vec<_> = entries[1..].iter().filter(|entry| !entry.data.is_empty()).collect();
    assert!(requests.len() >= 3, "attributes, cluster version and the put");
    for entry in requests {
        let request = InternalRaftRequest::decode(entry.data.clone()).expect("a request");
        assert_ne!(request.header.expect("a header").id, 0, "Go panics without an id");
    }
}
