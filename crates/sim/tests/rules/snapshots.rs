//! Snapshots, and what is given back behind them: rule 3, and what rules 5 and 7 say of it.

use disk::snap;
use store::Membership;

use super::*;

/// Settings under which a snapshot comes each few entries, and hardly anything of the past is kept.
fn snapping() -> Settings {
    Settings { snapshot_count: 5, wals_max: 1, snapshots_max: 2, ..settings() }
}

fn snap_folder(fs: &Arc<dyn Fs>) -> snap::Folder {
    snap::Folder::new(fs.clone(), Path::new("/data/member/snap"))
}

fn open_log(fs: &Arc<dyn Fs>) -> wal::Opened {
    Wal::open(fs.clone(), Path::new("/data/member/wal"), wal::Limits::tiny()).expect("a log")
}

/// Puts 0, 1, 2… under one key until `count` or the disk's end; how many were answered.
fn puts(member: &mut Running, count: u64) -> u64 {
    let mut ids = member.lane();
    for n in 0..count {
        let mut told = Told::default();
        member.submit(vec![put(&mut ids, "k", &format!("{n:0200}"))]);
        let settled = member.settle(NOW, &mut told);
        if told.completions.answers.is_empty() {
            return n;
        }
        if settled.is_err() {
            return n + 1;
        }
    }
    count
}

/// A life with snapshots, stopped at every operation by a kill and by power cuts: what the log names is there whole, says
/// what was at its index, and a start from it has all that was acknowledged.
#[test]
fn rule_3_a_start_works_from_every_point_of_a_snapshot() {
    const PUTS: u64 = 14;
    let (mut named, mut released) = (0, 0);
    for operations in 0.. {
        let memory = MemFs::new();
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let mut member = start_with(&fs, &snapping(), 7).expect("a member starts");
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        memory.halt_after(Some(operations));
        let answered = puts(&mut member, PUTS);
        drop(member);
        for cut in 0..6 {
            let left = if cut == 0 { memory.copy() } else { memory.crashed(cut) };
            let fs: Arc<dyn Fs> = Arc::new(left.clone());
            let what = format!("{operations} operations, cut {cut}");
            let log = open_log(&fs);
            let record = log.newest_snapshot().clone();
            released += u64::from(log.first_index().is_some_and(|first| first > 1));
            assert!(log.first_index().is_none_or(|first| first <= record.index + 1), "{what}");
            drop(log);
            if record.index > 0 {
                named += 1;
                let name = snap::Name { term: record.term, index: record.index };
                let file = snap_folder(&fs).read(name).expect("it is there").expect("and whole");
                assert_eq!(Some(&file.conf_state), record.conf_state.as_ref(), "{what}");
                let membership = Membership::from_v2_store(&file.data).expect("etcd's JSON");
                assert_eq!(membership.members().len(), 1, "{what}");
            }
            let mut member =
                start_with(&fs, &snapping(), 8).unwrap_or_else(|error| panic!("{what}: {error}"));
            let found = member.parts.found.clone();
            assert!(found.applied_index >= record.index, "{what}: {found:?}");
            assert_eq!((&found.broken[..], &found.missing), (&[][..], &None), "{what}");
            member.settle(NOW, &mut Told::default()).expect("a healthy disk");
            if answered > 0 {
                let value = value_of(&member, b"k", 0).expect("a value");
                let value: u64 = std::str::from_utf8(&value).expect("digits").parse().expect("a number");
                assert!(
                    (answered - 1..=answered).contains(&value),
                    "{what}: {value} after {answered} answers"
                );
            }
            assert_eq!(puts(&mut member, 12), 12, "{what}");
            drop(member);
            // What one run leaves, the next gives back.
            let segments =
                left.files().iter().filter(|path| path.extension().is_some_and(|end| end == "wal")).count();
            assert!(segments <= 4, "{what}: {segments} segments");
            assert_eq!(snap_folder(&fs).list().expect("a folder").len(), 2, "{what}");
        }
        if answered == PUTS && !memory.has_halted() {
            break;
        }
    }
    assert!(named > 500 && released > 300, "{named} with a snapshot, {released} with a released log");
}

#[test]
fn rule_3_revision_log_then_file_then_record_then_release() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = start_with(&fs, &snapping(), 7).expect("a member starts");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    puts(&mut member, 30);
    let mut told = Told::default();
    let before = open_snapshot(&memory);
    memory.start_trace();
    while told.snapshots.is_empty() {
        member.submit(vec![put(&mut member.lane(), "k", &"v".repeat(400))]);
        while !member.inputs.is_empty() || !member.persist.is_empty() {
            member.consensus(NOW, &mut told);
            member.write_log(usize::MAX).expect("a healthy disk");
            member.apply(NOW, &mut told).expect("applies");
        }
        member.write_revisions().expect("a healthy disk");
        member.sync_revisions().expect("a healthy disk");
        member.settle(NOW, &mut told).expect("a healthy disk");
    }
    let trace = memory.take_trace();
    let index = told.snapshots[0];
    assert!(index > before);
    // The line that does each step; the next one is looked for behind it.
    let mut at = 0;
    for step in [
        ("sync /data/member/rev/", "the revision log is durable"),
        ("write /data/member/snap/tmp-", "the file is written"),
        ("sync /data/member/snap/tmp-", "synced"),
        ("rename /data/member/snap/tmp-", "named"),
        ("sync-dir /data/member/snap", "its name durable"),
        ("write /data/member/wal/", "the record is written"),
        ("sync /data/member/wal/", "and synced"),
        ("remove /data/member/", "and then something goes"),
    ] {
        let (line, what) = step;
        at += trace[at..].find(line).unwrap_or_else(|| panic!("{what}: {trace}"));
    }
    let first_removal = trace.find("remove /data/member/").expect("seen above");
    assert_eq!(first_removal, at, "something went before:\n{trace}");
}

/// The newest snapshot that the log names.
fn open_snapshot(memory: &MemFs) -> u64 {
    let fs: Arc<dyn Fs> = Arc::new(memory.copy());
    open_log(&fs).newest_snapshot().index
}

/// What is applied while the file waits for the revision log is not in it.
#[test]
fn rule_3_a_snapshot_is_of_exactly_its_index() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member =
        start_with(&fs, &Settings { snapshot_count: 6, ..snapping() }, 7).expect("a member starts");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    let mut told = Told::default();
    let mut ids = member.lane();
    for n in 0..3 {
        member.submit(vec![put(&mut ids, "k", &n.to_string())]);
        while !member.inputs.is_empty() || !member.persist.is_empty() {
            member.consensus(NOW, &mut told);
            member.write_log(usize::MAX).expect("a healthy disk");
            member.apply(NOW, &mut told).expect("applies");
        }
    }
    let due = member.parts.applier.applied_index();
    // A quorum has this one, and it is applied before this member's own disk has it.
    let status = member.parts.consensus.status();
    let change = ConfChange {
        r#type: Some(ConfChangeType::ConfChangeAddLearnerNode.into()),
        node_id: Some(5),
        context: Some(Bytes::from_static(br#"{"id":5,"peerURLs":["http://a:1"],"isLearner":true}"#)),
        id: None,
    };
    let data = change.encode_to_vec().into();
    let entry = Entry { term: status.term, index: status.applied.next(), kind: EntryKind::ConfChange, data };
    let applied = member.parts.applier.apply(&mut VecDeque::from([entry]), status.commit.0);
    let batch = applied.expect("applies").expect("a batch");
    assert!(batch.snapshot.is_none(), "one at a time");
    assert_eq!(member.parts.applier.store().membership().members().len(), 2);
    member.write_revisions().expect("a healthy disk");
    member.sync_revisions().expect("a healthy disk");
    member.work_on_files(&mut told).expect("a healthy disk");
    member.work_on_files(&mut told).expect("a healthy disk");
    let folder = snap_folder(&fs);
    let names = folder.list().expect("a folder");
    assert_eq!(names.iter().map(|name| name.index).collect::<Vec<_>>(), [due]);
    let file = folder.read(names[0]).expect("a file").expect("a whole one");
    assert_eq!((file.conf_state.voters.len(), file.conf_state.learners.len()), (1, 0));
    let membership = Membership::from_v2_store(&file.data).expect("etcd's JSON");
    assert_eq!(membership.members().len(), 1);
    assert_eq!(membership.members().next().expect("one").client_urls, settings().client_urls);
    assert_eq!(membership.cluster_version(), Some("3.7.0"));
}

#[test]
fn rule_3_nothing_goes_before_that_many_entries_and_zero_keeps_all() {
    for (count, snapshots) in [(5, 0), (4, 1)] {
        let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
        let tight = Settings { snapshot_count: count, ..snapping() };
        let mut member = start_with(&fs, &tight, 7).expect("a member starts");
        let mut told = Told::default();
        member.settle(NOW, &mut told).expect("a healthy disk");
        // Its own entries: the first of the log and of the term, its attributes, the cluster's version.
        assert_eq!(member.parts.applier.applied_index(), 4);
        member.submit(vec![put(&mut member.lane(), "k", "v")]);
        member.settle(NOW, &mut told).expect("a healthy disk");
        assert_eq!(told.snapshots.len(), snapshots, "after 5 entries, --snapshot-count={count}");
    }
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let all = Settings { wals_max: 0, snapshots_max: 0, ..snapping() };
    let mut member = start_with(&fs, &all, 7).expect("a member starts");
    puts(&mut member, 60);
    drop(member);
    assert_eq!(open_log(&fs).first_index(), Some(1));
    assert_eq!(snap_folder(&fs).list().expect("a folder").len(), 10);
    memory.kill();
    // A run that keeps less gives back what the last one kept.
    let mut member = start_with(&fs, &snapping(), 8).expect("a member starts");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    drop(member);
    assert!(open_log(&fs).first_index() > Some(1));
    assert_eq!(snap_folder(&fs).list().expect("a folder").len(), 2);
}

/// A directory with snapshots, and what was put there.
fn directory(settings: &Settings, count: u64) -> MemFs {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = start_with(&fs, settings, 7).expect("a member starts");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    assert_eq!(puts(&mut member, count), count);
    drop(member);
    memory.kill();
    memory
}

fn take_away_revisions(memory: &MemFs) {
    for path in memory.files().into_iter().filter(|path| path.starts_with("/data/member/rev")) {
        memory.remove(&path).expect("a file");
    }
    memory.sync_dir(Path::new("/data/member/rev")).expect("a folder");
}

/// Refused with this text, and nothing changed.
fn assert_refused(memory: &MemFs, text: &str) {
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let before = files(memory);
    let error = start_with(&fs, &snapping(), 8).err().expect("is refused").to_string();
    assert!(error.contains(text), "{error}");
    assert_eq!(files(memory), before, "a refusal changed something");
}

#[test]
fn rule_5_a_revision_log_that_is_gone_is_not_made_anew_from_a_log_that_was_given_back() {
    let memory = directory(&snapping(), 30);
    take_away_revisions(&memory);
    assert_refused(&memory, "the revision log holds nothing, the newest snapshot record is at");
}

/// As long as nothing was given back it is, and a crash on the way is no obstacle.
#[test]
fn rule_5_a_revision_log_that_is_gone_is_made_anew_from_a_whole_log() {
    let all = Settings { wals_max: 0, ..snapping() };
    let memory = directory(&all, 30);
    let hash = |memory: &MemFs| {
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let mut member = start_with(&fs, &all, 8).expect("a member starts");
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        member.parts.reader.hash_kv(0).expect("a hash")
    };
    let expected = hash(&memory.copy());
    take_away_revisions(&memory);
    let mut begun = 0;
    for operations in 0.. {
        let memory = memory.copy();
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        memory.halt_after(Some(operations));
        // Whatever is given back must be covered by what is there, also on the way.
        let stopped = match start_with(&fs, &snapping(), 8) {
            Ok(mut member) => member.settle(NOW, &mut Told::default()).is_err(),
            Err(_) => true,
        };
        memory.halt_after(None);
        for cut in 0..4 {
            let left = if cut == 0 { memory.copy() } else { memory.crashed(cut) };
            begun +=
                u64::from(left.files().iter().any(|path| path.extension().is_some_and(|end| end == "seg")));
            assert_eq!(hash(&left), expected, "{operations} operations, cut {cut}");
        }
        if !stopped {
            break;
        }
    }
    assert!(begun > 20, "only {begun} were begun");
}

/// Frames below the newest snapshot were durable, so their loss is damage, though it looks torn.
#[test]
fn rule_5_a_revision_log_that_ends_before_the_newest_snapshot_is_damaged() {
    let memory = directory(&snapping(), 32);
    let log = open_log(&(Arc::new(memory.copy()) as Arc<dyn Fs>));
    assert_eq!(log.newest_snapshot().index, log.last().index, "the last entry made it due");
    let newest = memory.files().into_iter().rfind(|path| path.extension().is_some_and(|end| end == "seg"));
    let newest = newest.expect("a segment");
    let mut bytes = memory.read(&newest).expect("a segment");
    // Behind the segment's header.
    bytes[64..].fill(0);
    memory.put(&newest, &bytes).expect("a segment");
    let name = newest.file_name().expect("a name").to_string_lossy().into_owned();
    assert_refused(&memory, &name);
    assert_refused(&memory, "was durable");
}

/// The log of a member that etcdutl restored says nothing of the data; the same with the file that Go's etcd keeps it in.
#[test]
fn rule_5_a_log_that_does_not_say_everything_makes_no_revision_log() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    disk::make_dir(&*fs, Path::new("/data/member"), 0o700).expect("a folder");
    let metadata = Metadata { node_id: Some(7), cluster_id: Some(8) }.encode_to_vec();
    let wal_dir = Path::new("/data/member/wal");
    let mut wal = Wal::create(fs, wal_dir, &metadata, wal::Limits::tiny()).expect("a log");
    let entry =
        wal::EntryRef { term: 1, index: 1, kind: wal::EntryKind::ConfChange, data: b"\x10\0\x18\x07" };
    wal.append([entry], Some(wal::HardState { term: 1, vote: 0, commit: 1 })).expect("a healthy disk");
    let conf_state = Some(wal::ConfState { voters: vec![7], ..Default::default() });
    wal.append_snapshot(&wal::SnapshotRecord { index: 1, term: 1, conf_state }, None)
        .expect("a healthy disk");
    wal.sync().expect("a healthy disk");
    drop(wal);
    memory.kill();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    disk::make_dir(&*fs, Path::new("/data/member/snap"), 0o700).expect("a folder");
    assert_refused(&memory, "the newest snapshot record is at 1");

    let memory = directory(&Settings { wals_max: 0, ..snapping() }, 30);
    take_away_revisions(&memory);
    memory.put("/data/member/snap/db", b"pages").expect("a file");
    assert_refused(&memory, "/data/member/snap/db is no database file");
}

/// Nothing depends on a snapshot file, so none stops a start: it is named, set aside, and another one made.
#[test]
fn rule_5_a_damaged_snapshot_file_is_reported_and_loses_nothing() {
    let memory = directory(&snapping(), 30);
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let names = snap_folder(&fs).list().expect("a folder");
    assert_eq!(names.len(), 2);
    let newest = snap_folder(&fs).path(names[1]);
    let older = snap_folder(&fs).path(names[0]);
    for (damaged, is_gone) in [(&older, false), (&newest, false), (&newest, true)] {
        let memory = memory.copy();
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let before = memory.read(damaged).expect("a file");
        if is_gone {
            memory.remove(damaged).expect("a file");
        } else {
            memory.flip(damaged, 100, 1).expect("a byte");
        }
        let seldom = Settings { snapshot_count: 1000, ..snapping() };
        let mut member = start_with(&fs, &seldom, 8).expect("nothing depends on it");
        let found = member.parts.found.clone();
        assert_eq!(found.missing.as_ref(), (*damaged == newest).then_some(&newest));
        if !is_gone {
            let (broken, aside) = &found.broken[0];
            assert_eq!((&broken.file, broken.offset, broken.reason), (damaged, 0, "the sum does not match"));
            let mut flipped = before.clone();
            flipped[100] ^= 1;
            assert_eq!(memory.read(aside).expect("the file under another name"), flipped);
        }
        let mut told = Told::default();
        member.settle(NOW, &mut told).expect("a healthy disk");
        assert_eq!(value_of(&member, b"k", 0), Some(Bytes::from(format!("{:0200}", 29))));
        // One entry is enough where the log names no whole file.
        assert_eq!(told.snapshots.len(), usize::from(*damaged == newest));
        drop(member);
        let member = start_with(&fs, &snapping(), 9).expect("a member starts");
        assert_eq!((&member.parts.found.broken[..], &member.parts.found.missing), (&[][..], &None));
    }
}

#[test]
fn rule_5_snapshot_files_without_a_log_are_no_new_member() {
    let memory = directory(&snapping(), 30);
    take_away_revisions(&memory);
    for path in memory.files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "wal")) {
        memory.remove(&path).expect("a segment");
    }
    assert_refused(&memory, "/data/member/snap holds snapshots, but /data/member/wal holds no log");
}

#[test]
fn rule_7_a_snapshot_waits_for_room_on_a_full_disk_and_ends_nothing() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut roomy = snapping();
    (roomy.limits.wal.segment_bytes, roomy.limits.revlog.segment_bytes) = (1 << 20, 1 << 20);
    let mut member = start_with(&fs, &roomy, 7).expect("a member starts");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    member.prepare_log().expect("a healthy disk");
    memory.set_capacity(Some(memory.used() + 100));
    let mut told = Told::default();
    for _ in 0..10 {
        member.submit(vec![delete(&mut member.lane(), "k")]);
        while !member.inputs.is_empty() || !member.persist.is_empty() {
            member.consensus(NOW, &mut told);
            member.write_log(usize::MAX).expect("a healthy disk");
            member.apply(NOW, &mut told).expect("applies");
        }
        member.write_revisions().expect("a healthy disk");
        member.sync_revisions().expect("a healthy disk");
        member.work_on_files(&mut told).expect("a full disk is no failure");
    }
    assert_eq!(told.completions.answers.iter().filter(|(_, result)| result.is_ok()).count(), 10);
    assert!(told.snapshots.is_empty());
    assert_eq!(snap_folder(&fs).list().expect("a folder"), []);
    memory.set_capacity(None);
    member.settle(NOW, &mut told).expect("a healthy disk");
    assert_eq!(told.snapshots.len(), 2, "the one that waited, and the next");
}

#[test]
fn rule_7_a_failed_write_of_a_snapshot_file_or_a_failed_release_ends_the_member() {
    for operation in
        [Operation::Sync, Operation::Write, Operation::Rename, Operation::SyncDir, Operation::Remove]
    {
        let faults = FaultFs::new(Arc::new(MemFs::new()));
        let fs: Arc<dyn Fs> = Arc::new(faults.clone());
        let mut member = start_with(&fs, &snapping(), 7).expect("a member starts");
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        puts(&mut member, 20);
        let path = if operation == Operation::Remove { "member/wal/0" } else { "member/snap" };
        faults.add(Fault { path_contains: path.into(), ..Fault::once(operation) });
        let mut error = None;
        for _ in 0..30 {
            let mut told = Told::default();
            member.submit(vec![put(&mut member.lane(), "k", &"v".repeat(300))]);
            error = error.or(member.settle(NOW, &mut told).err());
        }
        let error = error.unwrap_or_else(|| panic!("{operation:?} went unnoticed")).to_string();
        assert!(error.contains("/data/member/"), "{error}");
    }
}

/// As in etcd: a server of the older version that goes on from here finds a snapshot without what it does not know.
#[test]
fn rule_3_a_lowered_cluster_version_takes_a_snapshot_at_once() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let settings = Settings { snapshot_count: 1_000_000, ..settings() };
    let mut member = start_with(&fs, &settings, 7).expect("a member starts");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    let set = |member: &mut Running, version: &str| {
        let id = member.lane().next();
        let data = store::admission::encode_cluster_version_set(id.0, version);
        member.submit(vec![proposal(id, data, false)]);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    };
    set(&mut member, "3.8.0");
    assert_eq!(puts(&mut member, 3), 3);
    assert!(snap_folder(&fs).list().unwrap().is_empty(), "a raised one takes none");
    set(&mut member, "3.7.0");
    assert_eq!(puts(&mut member, 1), 1);
    assert_eq!(snap_folder(&fs).list().unwrap().len(), 1);
}
