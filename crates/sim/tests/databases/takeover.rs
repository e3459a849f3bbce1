//! Data directories of etcd's as they are found: ahead of their log, beside an older revision log of ours, held by someone,
//! of other versions and page sizes.

use disk::boltfile::schema::{self, Version};
use disk::boltfile::{Planner, Reader, Writer};
use disk::revlog;
use disk::wal::{ConfState, HardState, SnapshotRecord, Wal};
use node::offline::{Report, check};
use wire::etcdserverpb::AuthUserAddRequest;

use super::*;

pub(super) const DATABASE: &str = "/data/member/snap/db";

/// A pair of a bucket, on its way into another file.
pub(super) type Edit<'a> = &'a dyn Fn(&[u8], &[u8], &[u8]) -> Option<Vec<u8>>;

/// The same pairs in pages of another size, but for those that `edit` changes, or leaves out.
fn rewritten(file: &[u8], page_size: u32, edit: Edit<'_>) -> Vec<u8> {
    rewritten_with(file, page_size, edit, &[])
}

/// The same with more pairs: bucket, key, value.
pub(super) fn rewritten_with(
    file: &[u8],
    page_size: u32,
    edit: Edit<'_>,
    more: &[(&[u8], &[u8], &[u8])],
) -> Vec<u8> {
    let fs = with_file(file);
    let reader = Reader::open(&fs, Path::new(SNAPSHOT)).expect("a database");
    type Pair = (Vec<u8>, Vec<u8>);
    let mut buckets: Vec<(Vec<u8>, Vec<Pair>)> = Vec::new();
    for name in schema::BUCKETS {
        let bucket = reader.bucket(name).expect("a sound file").expect("the bucket");
        let mut pairs = Vec::new();
        let mut cursor = bucket.cursor();
        while let Some(item) = cursor.next().expect("a sound file") {
            let value = item.value.expect("no bucket in it");
            pairs.extend(edit(name, item.key, value).map(|value| (item.key.to_vec(), value)));
        }
        let added = more.iter().filter(|(bucket, ..)| *bucket == name);
        pairs.extend(added.map(|(_, key, value)| (key.to_vec(), value.to_vec())));
        pairs.sort();
        buckets.push((name.to_vec(), pairs));
    }
    let mut planner = Planner::new(page_size).expect("a page size");
    for (name, pairs) in &buckets {
        planner.bucket(name).expect("in order");
        pairs.iter().for_each(|(key, value)| planner.pair(key.len(), value.len()).expect("in order"));
    }
    let mut out = Vec::new();
    let mut writer = Writer::new(planner.finish(), |bytes: &[u8]| {
        out.extend_from_slice(bytes);
        Ok(())
    })
    .expect("a plan");
    for (name, pairs) in &buckets {
        writer.bucket(name).expect("in order");
        pairs.iter().for_each(|(key, value)| writer.pair(key, value).expect("in order"));
    }
    let _sink = writer.finish().expect("as planned");
    out
}

/// The file of a cut, without the sum.
fn database(member: &Running) -> Vec<u8> {
    let mut file = saved(&member.parts.applier.cut());
    file.truncate(file.len() - 32);
    file
}

/// A disk with the files of another whose paths begin so.
pub(super) fn take(to: &MemFs, from: &MemFs, folder: &str) {
    for path in to.files().iter().filter(|path| path.starts_with(folder)) {
        to.remove(path).expect("a file");
    }
    for path in from.files().iter().filter(|path| path.starts_with(folder)) {
        disk::make_dir(to, path.parent().expect("a folder"), 0o700).expect("a folder");
        to.put(path, &from.read(path).expect("a file")).expect("a file");
    }
    make_durable(to);
}

/// What an operator did a while ago.
fn make_durable(memory: &MemFs) {
    for folder in ["/data/member/rev", "/data/member/snap", "/data/member"] {
        memory.sync_dir(Path::new(folder)).expect("a folder");
    }
}

/// The directory of a member at three times, with its database at the first two.
pub(super) struct Times {
    pub(super) early: MemFs,
    pub(super) late: MemFs,
    pub(super) early_database: Vec<u8>,
    early_index: u64,
    pub(super) database: Vec<u8>,
    /// The last entry of the second.
    applied: revlog::Applied,
    /// Its state at the second and at the last.
    middle_state: Running,
    late_state: Running,
}

pub(super) fn times(random: &mut Random) -> Times {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    live(&mut member, random, 15);
    users::give_users_that_count(&mut member);
    live(&mut member, random, 10);
    let early = memory.copy();
    let (early_database, early_index) = (database(&member), member.parts.applier.applied_index());
    live(&mut member, random, 25);
    users::add_user(&mut member, "clerk of the middle");
    let file = database(&member);
    let status = member.parts.consensus.status();
    let applied = revlog::Applied { index: member.parts.applier.applied_index(), term: status.term.0 };
    let middle_fs: Arc<dyn Fs> = Arc::new(memory.copy());
    live(&mut member, random, 25);
    users::add_user(&mut member, "late");
    drop(member);
    let late_fs: Arc<dyn Fs> = Arc::new(memory.copy());
    let late = memory.copy();
    let [middle_state, late_state] = [middle_fs, late_fs].map(|fs| ready(&fs));
    Times { early, late, early_database, early_index, database: file, applied, middle_state, late_state }
}

/// What a check says of the directory, which it leaves as it is.
fn checked(memory: &MemFs) -> Report {
    let files = || -> Vec<_> {
        memory.files().into_iter().map(|path| (path.clone(), memory.read(path).expect("a file"))).collect()
    };
    let before = files();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let report = check(&fs, &super::offline::data_dir("/data")).expect("a disk that can be read");
    assert!(files() == before, "a check changed something");
    report
}

/// A start refuses it, in the words of the one fault that a check finds; the advice.
pub(super) fn refused_alike(memory: &MemFs) -> (String, &'static str) {
    let report = checked(memory);
    let error =
        open(&(Arc::new(memory.copy()) as Arc<dyn Fs>), &settings(), 9).err().expect("refused").to_string();
    let [fault] = &report.faults[..] else { panic!("a start says {error}, a check {report:?}") };
    assert_eq!(fault.what, error);
    (error, fault.advice)
}

/// Starts on what every operation of a first start leaves, and expects the same state each time.
fn from_every_operation(memory: &MemFs, settings: &Settings, expected: &Running) -> u64 {
    make_durable(memory);
    let mut starts = 0;
    for operations in 0.. {
        let stopped = memory.copy();
        stopped.halt_after(Some(operations));
        let fs: Arc<dyn Fs> = Arc::new(stopped.clone());
        let ended = open(&fs, settings, 9).and_then(|mut member| member.settle(NOW, &mut Told::default()));
        for cut in 0..4 {
            let left = if cut == 0 { stopped.copy() } else { stopped.crashed(cut) };
            let what = format!("{operations} operations, cut {cut}");
            assert_eq!(checked(&left).faults, [], "{what}");
            let fs: Arc<dyn Fs> = Arc::new(left);
            let mut member = open(&fs, settings, 10).unwrap_or_else(|error| panic!("{what}: {error}"));
            member.settle(NOW, &mut Told::default()).expect("a healthy disk");
            same_state(expected, &member, &what);
            starts += 1;
        }
        if ended.is_ok() {
            break;
        }
    }
    starts
}

/// Go's etcd applies what is committed without waiting for its own log, and a power cut may then take the log's end.
#[test]
fn a_database_ahead_of_its_log_is_taken_as_a_snapshot() {
    let times = times(&mut Random::new(3));
    for keeps_revisions in [false, true] {
        let memory = times.early.copy();
        if !keeps_revisions {
            take(&memory, &MemFs::new(), "/data/member/rev");
        }
        memory.put(DATABASE, &times.database).expect("a file");
        let starts = from_every_operation(&memory, &settings(), &times.middle_state);
        assert!(starts > 100, "{starts} starts");

        let fs: Arc<dyn Fs> = Arc::new(memory);
        let member = open(&fs, &settings(), 9).expect("a member starts");
        let imported = member.parts.found.imported.clone().expect("taken over");
        assert_eq!(member.parts.found.snapshot_index, imported.applied.index);
        assert_eq!(member.parts.found.last_index, imported.applied.index);
        assert!(!fs.exists(Path::new(DATABASE)).expect("a look"));
        goes_on(&fs, member);
    }
}

/// A revision log that has less than the database is of before Go's etcd ran here again.
#[test]
fn where_etcd_ran_since_its_database_is_taken_over_anew() {
    let times = times(&mut Random::new(4));
    for keep_imported in [false, true] {
        let memory = times.late.copy();
        take(&memory, &times.early, "/data/member/rev");
        memory.put(DATABASE, &times.database).expect("a file");
        let settings = Settings { keep_imported, ..settings() };
        let starts = from_every_operation(&memory, &settings, &times.late_state);
        assert!(starts > 100, "{starts} starts");

        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let member = open(&fs, &settings, 9).expect("a member starts");
        let imported = member.parts.found.imported.clone().expect("taken over");
        let kept = format!("/data/member/imported-{:016x}.db", imported.applied.index);
        match keep_imported {
            true => assert!(memory.read(&kept).expect("it is kept") == times.database),
            false => assert!(!fs.exists(Path::new(&kept)).expect("a look")),
        }
        assert!(!fs.exists(Path::new(DATABASE)).expect("a look"));
        drop(member);
        assert_eq!(open(&fs, &settings, 9).expect("a member starts").parts.found.imported, None, "once");
    }
}

/// One that has less than the revision log was taken over, and could not be removed before the run ended.
#[test]
fn a_database_that_was_taken_over_goes() {
    let times = times(&mut Random::new(5));
    let memory = times.late.copy();
    memory.put(DATABASE, &times.database).expect("a file");
    let fs: Arc<dyn Fs> = Arc::new(memory);
    let member = ready(&fs);
    assert_eq!(member.parts.found.imported, None);
    same_state(&times.late_state, &member, "nothing was taken from it");
    assert!(!fs.exists(Path::new(DATABASE)).expect("a look"));
}

#[test]
fn a_database_of_another_cluster_is_refused() {
    let times = times(&mut Random::new(6));
    let (_, file) = sample();
    let fs: Arc<dyn Fs> = Arc::new(with_file(&file));
    let other = Restore { token: "another".into(), ..restoring("/other") };
    let foreign = database(&restored(&fs, &other));
    let foreign = rewritten(&foreign, 4096, &|_, key, value| {
        let is_index = key == schema::META_CONSISTENT_INDEX;
        Some(if is_index { schema::encode_u64(1000).to_vec() } else { value.to_vec() })
    });
    let memory = times.early.copy();
    take(&memory, &MemFs::new(), "/data/member/rev");
    memory.put(DATABASE, &foreign).expect("a file");
    let before = memory.files();
    let error = open(&(Arc::new(memory.clone()) as Arc<dyn Fs>), &settings(), 9).err().expect("refused");
    assert!(error.to_string().contains("it has entry 1000 and no member"), "{error}");
    assert_eq!(memory.files(), before);
}

#[test]
fn a_database_that_somebody_holds_is_left_alone() {
    let times = times(&mut Random::new(7));
    let memory = times.late.copy();
    take(&memory, &MemFs::new(), "/data/member/rev");
    memory.put(DATABASE, &times.database).expect("a file");
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let held = fs.lock_dir(Path::new(DATABASE)).expect("it is free");
    let error = open(&fs, &settings(), 9).err().expect("refused");
    let text = "db file is flocked by another process, or taking too long: /data/member/snap/db";
    assert_eq!(error.to_string(), text);
    assert!(memory.read(DATABASE).is_ok());
    drop(held);
    same_state(&times.late_state, &ready(&fs), "free again");
}

#[test]
fn pages_of_every_size_are_read() {
    let times = times(&mut Random::new(8));
    for page_size in [512, 1024, 16 << 10, 64 << 10] {
        let memory = times.late.copy();
        take(&memory, &MemFs::new(), "/data/member/rev");
        let file = rewritten(&times.database, page_size, &|_, _, value| Some(value.to_vec()));
        memory.put(DATABASE, &file).expect("a file");
        let fs: Arc<dyn Fs> = Arc::new(memory);
        same_state(&times.late_state, &ready(&fs), &format!("pages of {page_size} bytes"));
    }
}

#[test]
fn versions_that_are_not_taken_over_are_named_with_the_way() {
    let times = times(&mut Random::new(9));
    let version_of = |cluster: &str, storage: Option<&str>| {
        rewritten(&times.database, 4096, &|_, key, value| match key {
            schema::CLUSTER_VERSION => Some(cluster.as_bytes().to_vec()),
            schema::META_STORAGE_VERSION => storage.map(|storage| storage.as_bytes().to_vec()),
            _ => Some(value.to_vec()),
        })
    };
    for (cluster, storage, said) in [
        ("3.4.0", None, "it is of etcd 3.4.0: upgrade to etcd 3.6 first, or restore a snapshot with etcdutl"),
        ("3.5.0", None, "it is of etcd 3.5.0: upgrade to etcd 3.6 first, or restore a snapshot with etcdutl"),
        ("3.8.0", Some("3.8.0"), "it is of etcd 3.8.0, which is newer than this version knows"),
    ] {
        let memory = times.late.copy();
        take(&memory, &MemFs::new(), "/data/member/rev");
        memory.put(DATABASE, &version_of(cluster, storage)).expect("a file");
        let before = memory.files();
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let error = open(&fs, &settings(), 9).err().expect("refused").to_string();
        assert!(error.contains(said) && error.contains(DATABASE), "{error}");
        assert_eq!(memory.files(), before);
        let (_, advice) = refused_alike(&memory);
        assert!(advice.contains("nothing has to be repaired"), "{advice}");
    }
    for minor in [6, 7] {
        let version = Version { major: 3, minor, patch: 0 }.to_string();
        let memory = times.late.copy();
        take(&memory, &MemFs::new(), "/data/member/rev");
        memory.put(DATABASE, &version_of(&version, Some(&version))).expect("a file");
        let fs: Arc<dyn Fs> = Arc::new(memory);
        let member = ready(&fs);
        assert_eq!(hashes(&member), hashes(&times.late_state), "{version}");
    }
}

/// Whichever counts is held against the write-ahead log.
#[test]
fn a_check_holds_a_database_and_a_revision_log_against_each_other_and_the_log() {
    let times = times(&mut Random::new(11));
    // It was taken over, and is still there.
    let memory = times.late.copy();
    memory.put(DATABASE, &times.database).expect("a file");
    let report = checked(&memory);
    assert_eq!(report.faults, []);
    let [note] = &report.notes[..] else { panic!("{report:?}") };
    assert!(note.contains("was taken over: /data/member/rev has all of it"), "{note}");

    // The revision log counts, and is of another time than the log.
    let memory = times.early.copy();
    take(&memory, &times.late, "/data/member/rev");
    memory.put(DATABASE, &times.database).expect("a file");
    let (error, advice) = refused_alike(&memory);
    assert!(error.contains("the revision log has applied entry"), "{error}");
    assert!(advice.contains("give the member its directory whole"), "{advice}");

    // It counts and is damaged; the database beside it has what the log does not.
    let memory = times.late.copy();
    memory.put(DATABASE, &times.database).expect("a file");
    let segment = memory.files().into_iter().find(|path| path.extension().is_some_and(|end| end == "seg"));
    let segment = segment.expect("a segment");
    memory.flip(&segment, 100, 1).expect("a byte");
    let (_, advice) = refused_alike(&memory);
    assert!(advice.contains("the database is taken over"), "{advice}");
    take(&memory, &MemFs::new(), "/data/member/rev");
    same_state(&times.late_state, &ready(&(Arc::new(memory) as Arc<dyn Fs>)), "as advised");
}

/// The log of a follower of Go's that was given a snapshot, and ended before it had put that in the place of its database.
fn with_received(times: &Times, keeps_revisions: bool) -> (MemFs, String) {
    let memory = times.early.copy();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    if !keeps_revisions {
        take(&memory, &MemFs::new(), "/data/member/rev");
        memory.put(DATABASE, &times.early_database).expect("a file");
    }
    let received = format!("/data/member/snap/{:016x}.snap.db", times.applied.index);
    memory.put(&received, &times.database).expect("a file");
    let log = Wal::open(fs, Path::new("/data/member/wal"), settings().limits.wal).expect("a sound log");
    let before = log.hard_state().unwrap_or_default();
    let mut log = log.into_writer().expect("a healthy disk");
    let revlog::Applied { index, term } = times.applied;
    let state = HardState { term: term.max(before.term), commit: index, ..before };
    let own = times.middle_state.parts.identity.member_id;
    let conf_state = Some(ConfState { voters: vec![own], ..ConfState::default() });
    let record = SnapshotRecord { index, term, conf_state };
    log.append_snapshot(&record, Some(state)).expect("a healthy disk");
    log.sync().expect("a healthy disk");
    (memory, received)
}

#[test]
fn a_leaders_snapshot_that_etcd_had_received_and_not_applied_is_taken_over() {
    let times = times(&mut Random::new(12));
    for (keeps_revisions, keep_imported) in [(false, false), (false, true), (true, false)] {
        let (memory, received) = with_received(&times, keeps_revisions);
        let orphan = "/data/member/snap/0000000000000001.snap.db";
        memory.put(orphan, b"of an earlier one").expect("a file");
        let settings = Settings { keep_imported, ..settings() };
        let starts = from_every_operation(&memory, &settings, &times.middle_state);
        assert!(starts > 100, "{starts} starts");

        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let member = open(&fs, &settings, 9).expect("a member starts");
        let imported = member.parts.found.imported.clone().expect("taken over");
        assert_eq!((imported.applied, imported.file), (times.applied, PathBuf::from(&received)));
        for gone in [DATABASE, &received, orphan] {
            assert!(!fs.exists(Path::new(gone)).expect("a look"), "{gone}");
        }
        let kept = |index| format!("/data/member/imported-{index:016x}.db");
        match keep_imported {
            true => {
                assert!(memory.read(kept(times.applied.index)).expect("it is kept") == times.database);
                assert!(
                    memory.read(kept(times.early_index)).expect("the older one too") == times.early_database
                );
            }
            false => assert!(!memory.files().iter().any(|path| path.starts_with("/data/member/imported"))),
        }
        goes_on(&fs, member);
    }

    // It is damaged: nothing else has what the log has given up.
    let (memory, received) = with_received(&times, false);
    let mut file = times.database.clone();
    file.truncate(9000);
    memory.put(&received, &file).expect("a file");
    let (error, _) = refused_alike(&memory);
    assert!(error.contains(&received), "{error}");
}

/// What a log of an older Go's may ask for, and no member can do alike, is found before a start comes to it.
#[test]
fn a_check_finds_an_entry_that_cannot_be_applied() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    let id = member.lane().next();
    let request = InternalRaftRequest {
        header: Some(RequestHeader { id: id.0, ..Default::default() }),
        auth_user_add: Some(AuthUserAddRequest {
            name: "root".into(),
            password: "not hashed".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    member.submit(vec![proposal(id, request.encode_to_vec(), false)]);
    member.consensus(NOW, &mut Told::default());
    member.write_log(usize::MAX).expect("a healthy disk");
    drop(member);
    let report = checked(&memory);
    let [fault] = &report.faults[..] else { panic!("{report:?}") };
    assert!(fault.advice.contains("nothing has to be repaired"), "{fault:?}");
    let mut member = open(&fs, &settings(), 9).expect("a member starts");
    let error = member.settle(NOW, &mut Told::default()).expect_err("it cannot be applied");
    assert_eq!(fault.what, error.to_string());
}

/// What Go's etcd removes at a start: of it nothing is left when its database has been taken over.
#[test]
fn leftovers_of_etcds_go_with_its_database() {
    let (_, file) = sample();
    let memory = with_file(&file);
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    restore(&fs, &restoring("/data")).expect("a sound snapshot");
    let snap = Path::new("/data/member/snap");
    let gone = ["tmp123456", "db.tmp.4711", "db.tmp.rewritten"];
    let kept = ["notes", "other.tmp"];
    for name in gone.iter().chain(&kept) {
        memory.put(snap.join(name), b"old").expect("a file");
    }
    memory.sync_dir(snap).expect("a folder");
    for operations in 0.. {
        let stopped = memory.copy();
        stopped.halt_after(Some(operations));
        let ended = open(&(Arc::new(stopped.clone()) as Arc<dyn Fs>), &settings(), 9).map(drop);
        for cut in 0..3 {
            let left = if cut == 0 { stopped.copy() } else { stopped.crashed(cut) };
            left.halt_after(None);
            let fs: Arc<dyn Fs> = Arc::new(left.clone());
            let member = open(&fs, &settings(), 9).unwrap_or_else(|e| panic!("{operations}, {cut}: {e}"));
            drop(member);
            for name in gone {
                assert!(!left.exists(&snap.join(name)).expect("a look"), "{operations}, {cut}: {name}");
            }
            for name in kept {
                assert!(left.exists(&snap.join(name)).expect("a look"), "{operations}, {cut}: {name}");
            }
        }
        if ended.is_ok() {
            break;
        }
    }
}

/// What was taken over serves, and is all that the next start looks at.
fn goes_on(fs: &Arc<dyn Fs>, mut member: Running) {
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    assert!(member.is_ready);
    put(&mut member, "after", "1");
    let keys = all_keys(&member);
    drop(member);
    let again = ready(fs);
    assert_eq!(again.parts.found.imported, None);
    assert_eq!(all_keys(&again), keys);
}
