//! Data directories of etcd's as they are found: ahead of their log, beside an older revision log of ours, held by someone,
//! of other versions and page sizes.

use disk::boltfile::schema::{self, Version};
use disk::boltfile::{Planner, Reader, Writer};

use super::*;

const DATABASE: &str = "/data/member/snap/db";

/// A pair of a bucket, on its way into another file.
type Edit<'a> = &'a dyn Fn(&[u8], &[u8], &[u8]) -> Option<Vec<u8>>;

/// The same pairs in pages of another size, but for those that `edit` changes, or leaves out.
fn rewritten(file: &[u8], page_size: u32, edit: Edit<'_>) -> Vec<u8> {
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
fn take(to: &MemFs, from: &MemFs, folder: &str) {
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

/// The directory of a member at three times, with its database at the second.
struct Times {
    early: MemFs,
    late: MemFs,
    database: Vec<u8>,
    /// Its state at the second and at the last.
    middle_state: Running,
    late_state: Running,
}

fn times(random: &mut Random) -> Times {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    live(&mut member, random, 25);
    let early = memory.copy();
    live(&mut member, random, 25);
    let file = database(&member);
    let middle_fs: Arc<dyn Fs> = Arc::new(memory.copy());
    live(&mut member, random, 25);
    drop(member);
    let late_fs: Arc<dyn Fs> = Arc::new(memory.copy());
    let late = memory.copy();
    let [middle_state, late_state] = [middle_fs, late_fs].map(|fs| ready(&fs));
    Times { early, late, database: file, middle_state, late_state }
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
        let mut member = open(&fs, &settings(), 9).expect("a member starts");
        let imported = member.parts.found.imported.clone().expect("taken over");
        assert_eq!(member.parts.found.snapshot_index, imported.applied.index);
        assert_eq!(member.parts.found.last_index, imported.applied.index);
        assert!(!fs.exists(Path::new(DATABASE)).expect("a look"));
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        assert!(member.is_ready);
        put(&mut member, "after", "1");
        let keys = all_keys(&member);
        drop(member);
        let again = ready(&fs);
        assert_eq!(again.parts.found.imported, None);
        assert_eq!(all_keys(&again), keys);
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

/// What Go's etcd removes at a start: of it nothing is left when its database has been taken over.
#[test]
fn leftovers_of_etcds_go_with_its_database() {
    let (_, file) = sample();
    let memory = with_file(&file);
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    restore(&fs, &restoring("/data")).expect("a sound snapshot");
    let snap = Path::new("/data/member/snap");
    let gone = ["tmp123456", "db.tmp.4711", "db.tmp.rewritten", "0000000000000001.snap.db"];
    // Ahead of the database, or nothing of etcd's.
    let kept = ["00000000000fffff.snap.db", "notes", "1.snap.db"];
    for name in gone.iter().chain(&kept) {
        memory.put(snap.join(name), b"old").expect("a file");
    }
    make_durable(&memory);
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
