//! What etcdutl does with a data directory of a member that does not run.

use disk::boltfile::Reader;
use disk::boltfile::schema::{self, Version};
use node::Limits;
use node::offline::{DataDir, Export, Migrated, Migration, check, defrag, export, migrate};

use super::*;

pub(super) fn data_dir(path: &str) -> DataDir {
    let Limits { wal, revlog, .. } = settings().limits;
    DataDir { path: path.into(), wal_dir: None, wal_limits: wal, revlog_limits: revlog }
}

fn version(minor: u64) -> Version {
    Version { major: 3, minor, patch: 0 }
}

/// A directory of ours with much that is dead in it.
fn ours() -> (MemFs, Running) {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    users::give_users_that_count(&mut member);
    for n in 0..120 {
        put(&mut member, &format!("k{}", n % 9), &n.to_string().repeat(20));
    }
    delete(&mut member, "k1");
    let revision = member.parts.reader.revision();
    // Its frame is durable, and nothing of its work is done.
    let id = member.lane().next();
    let request = InternalRaftRequest {
        header: Some(RequestHeader { id: id.0, ..Default::default() }),
        compaction: Some(CompactionRequest { revision: revision - 5, physical: false }),
        ..Default::default()
    };
    let cut = member.parts.applier.cut();
    member.submit(vec![proposal(id, request.encode_to_vec(), false)]);
    let mut told = Told::default();
    for _ in 0..20 {
        member.consensus(NOW, &mut told);
        member.write_log(usize::MAX).expect("a healthy disk");
        member.apply(NOW, &mut told).expect("applies");
        member.write_revisions().expect("a healthy disk");
        member.sync_revisions().expect("a healthy disk");
    }
    drop(cut);
    drop(member);
    memory.kill();
    let state: Arc<dyn Fs> = Arc::new(memory.copy());
    (memory, ready(&state))
}

/// A directory that a snapshot was restored to, and what it holds.
fn restored_directory() -> (MemFs, Running) {
    let (_, file) = sample();
    let memory = with_file(&file);
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    restore(&fs, &restoring("/data")).expect("a sound snapshot");
    let state: Arc<dyn Fs> = Arc::new(memory.copy());
    (memory, open(&state, &settings(), 9).expect("a member starts"))
}

#[test]
fn a_directory_is_defragmented_from_every_operation() {
    let (memory, state) = ours();
    let done = defrag(&(Arc::new(memory.copy()) as Arc<dyn Fs>), &data_dir("/data")).expect("a sound one");
    assert!(done.after < done.before * 2 / 3, "{done:?}");
    assert!(done.in_use <= done.after, "{done:?}");
    let (database, of_database) = restored_directory();
    for (memory, state) in [(memory, state), (database, of_database)] {
        let mut operations = 0;
        loop {
            let stopped = memory.copy();
            stopped.halt_after(Some(operations));
            let ended = defrag(&(Arc::new(stopped.clone()) as Arc<dyn Fs>), &data_dir("/data"));
            for cut in 0..4 {
                let left = if cut == 0 { stopped.copy() } else { stopped.crashed(cut) };
                let what = format!("{operations} operations, cut {cut}");
                let fs: Arc<dyn Fs> = Arc::new(left);
                let report = check(&fs, &data_dir("/data")).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(report.faults, [], "{what}");
                let member = open(&fs, &settings(), 9).unwrap_or_else(|e| panic!("{what}: {e}"));
                same_state(&state, &member, &what);
            }
            if ended.is_ok() {
                break;
            }
            operations += 1;
        }
        assert!(operations > 3, "{operations} operations");
    }
}

#[test]
fn where_there_is_little_room_a_directory_is_defragmented_in_smaller_pieces() {
    let (memory, state) = ours();
    let mut in_pieces = 0;
    for room in (0..2400).step_by(200) {
        let full = memory.copy();
        full.set_capacity(Some(full.used() + room));
        let fs: Arc<dyn Fs> = Arc::new(full.clone());
        match defrag(&fs, &data_dir("/data")) {
            Ok(done) => {
                in_pieces += 1;
                assert!(done.after < done.before, "room for {room}: {done:?}");
            }
            Err(Error::Io { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "room for {room}");
                assert!(room < 1000, "no room for {room}");
            }
            Err(other) => panic!("room for {room}: {other}"),
        }
        full.set_capacity(None);
        same_state(&state, &open(&fs, &settings(), 9).expect("a member starts"), &format!("room for {room}"));
    }
    assert!(in_pieces > 5, "{in_pieces} had room");
}

/// One of the two meta pages does not verify: what is read may be the state before the newest transaction.
#[test]
fn what_may_have_lost_its_newest_transaction_is_not_made_anew() {
    const DATABASE: &str = "/data/member/snap/db";
    let (memory, state) = restored_directory();
    let (_, snapshot) = sample();
    for page in [0, 1] {
        // The transaction's number, behind the page's header.
        let offset = page * 4096 + 16 + 48;
        let mut bad = snapshot.clone();
        bad[offset as usize] ^= 4;
        let from = with_file(&bad);
        let fs: Arc<dyn Fs> = Arc::new(from.clone());
        let settings_of = Restore { skip_hash_check: true, ..restoring("/restored") };
        let error = restore(&fs, &settings_of).expect_err("what it would lose");
        assert!(error.to_string().contains(&format!("meta page {page}")), "{error}");
        assert!(!from.exists(Path::new("/restored")).expect("a look"), "{error}");

        let damaged = memory.copy();
        damaged.flip(DATABASE, offset, 4).expect("a byte");
        let before = damaged.read(DATABASE).expect("a file");
        let fs: Arc<dyn Fs> = Arc::new(damaged.clone());
        for error in [
            defrag(&fs, &data_dir("/data")).map(drop),
            migrate(&fs, &data_dir("/data"), Migration { target: version(6), force: false }).map(drop),
        ] {
            let error = error.expect_err("what it would lose").to_string();
            assert!(error.contains(&format!("meta page {page}")) && error.contains(DATABASE), "{error}");
        }
        assert_eq!(damaged.read(DATABASE).expect("a file"), before);
        // A power cut leaves this too, and then the write-ahead log has what is lost: a start takes it over.
        let report = check(&fs, &data_dir("/data")).expect("a look");
        assert_eq!(report.faults, []);
        let [note] = &report.notes[..] else { panic!("{report:?}") };
        assert!(note.contains(DATABASE) && note.contains(&format!("meta page {page}")), "{note}");
        same_state(&state, &open(&fs, &settings(), 9).expect("a member starts"), "of the other page");
    }
}

#[test]
fn nothing_is_done_beside_a_member_or_where_there_is_none() {
    let (memory, _) = ours();
    let fs: Arc<dyn Fs> = Arc::new(memory);
    let held = fs.lock_dir(Path::new("/data/member")).expect("it is free");
    let export_settings = Export { data_dir: data_dir("/data"), out: "/out".into(), version: None };
    let migration = Migration { target: version(7), force: false };
    let all = |path: &str| {
        let data_dir = data_dir(path);
        [
            defrag(&fs, &data_dir).err().map(|error| error.to_string()),
            migrate(&fs, &data_dir, migration).err().map(|error| error.to_string()),
            export(&fs, &Export { data_dir: data_dir.clone(), ..export_settings.clone() })
                .err()
                .map(|error| error.to_string()),
            check(&fs, &data_dir).err().map(|error| error.to_string()),
        ]
    };
    for error in all("/data") {
        assert_eq!(error.as_deref(), Some("data directory /data is in use by another process"));
    }
    for error in all("/nowhere") {
        assert!(error.is_some_and(|error| error.starts_with("stat /nowhere/member")));
    }
    assert!(!fs.exists(Path::new("/nowhere")).expect("a look"));
    drop(held);
    for error in all("/data") {
        assert_eq!(error, None);
    }
    // A log that is elsewhere, and is not named: nothing is begun there.
    let elsewhere = DataDir { wal_dir: Some("/elsewhere".into()), ..data_dir("/data") };
    let error = defrag(&fs, &elsewhere).expect_err("no log");
    assert_eq!(error.to_string(), "no wal segment in /elsewhere");
    assert!(!fs.exists(Path::new("/elsewhere")).expect("a look"));
}

/// A member that was killed with its revision log behind: what is written has the rest in its log.
#[test]
fn what_is_exported_is_the_same_member() {
    for seed in 0..30 {
        let mut random = Random::new(300 + seed);
        let memory = MemFs::new();
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let mut member = ready(&fs);
        live(&mut member, &mut random, 20 + seed * 2);
        let mut ids = member.lane();
        let mut told = Told::default();
        // The log goes on, and the revision log does not.
        for _ in 0..random.below(20) {
            let id = ids.next();
            let (request, grows) = workload::request(&mut random, id.0, member.parts.reader.revision());
            member.submit(vec![proposal(id, request.encode_to_vec(), grows)]);
            member.consensus(NOW, &mut told);
            member.write_log(usize::MAX).expect("a healthy disk");
            member.consensus(NOW, &mut told);
            member.apply(NOW, &mut told).expect("applies");
        }
        drop(member);
        let left = if random.one_in(2) { memory.crashed(seed) } else { memory.copy() };
        let source: Arc<dyn Fs> = Arc::new(left.copy());
        let before: Vec<_> = left.files().iter().map(|path| left.read(path).expect("a file")).collect();
        let fs: Arc<dyn Fs> = Arc::new(left.clone());
        let settings_of = Export { data_dir: data_dir("/data"), out: "/out".into(), version: None };
        let done = export(&fs, &settings_of).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let files = left.files();
        let data: Vec<_> = files.iter().filter(|path| path.starts_with("/data")).collect();
        let after: Vec<_> = data.iter().map(|path| left.read(path).expect("a file")).collect();
        assert!(before == after, "seed {seed}: the source was changed");

        let what = format!("seed {seed}");
        let original = ready(&source);
        let exported = Settings { data_dir: "/out".into(), ..settings() };
        let mut taken = open(&fs, &exported, 9).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(taken.parts.identity, original.parts.identity);
        assert_eq!(taken.parts.found.imported.clone().expect("a database").applied, done.applied);
        taken.settle(NOW, &mut Told::default()).expect("a healthy disk");
        same_state(&original, &taken, &what);
        let error = export(&fs, &settings_of).expect_err("it is there");
        assert_eq!(error.to_string(), "data-dir \"/out\" not empty or could not be read");
    }
}

#[test]
fn an_export_is_whole_or_no_member_from_every_operation() {
    let (memory, state) = ours();
    let (mut whole, mut nothing) = (0, 0);
    for operations in 0.. {
        let stopped = memory.copy();
        stopped.halt_after(Some(operations));
        let settings_of = Export { data_dir: data_dir("/data"), out: "/out".into(), version: None };
        let ended = export(&(Arc::new(stopped.clone()) as Arc<dyn Fs>), &settings_of);
        for cut in 0..4 {
            let left = if cut == 0 { stopped.copy() } else { stopped.crashed(cut) };
            let fs: Arc<dyn Fs> = Arc::new(left);
            let what = format!("{operations} operations, cut {cut}");
            if fs.exists(Path::new("/out/member")).unwrap_or(false) {
                whole += 1;
                let exported = Settings { data_dir: "/out".into(), ..settings() };
                let member = open(&fs, &exported, 9).unwrap_or_else(|error| panic!("{what}: {error}"));
                same_state(&state, &member, &what);
            } else {
                nothing += 1;
            }
        }
        if ended.is_ok() {
            break;
        }
    }
    assert!(whole > 3 && nothing > 20, "{whole} whole, {nothing} nothing");
}

#[test]
fn an_export_is_for_the_version_that_is_asked_for() {
    let (memory, _) = ours();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    for (target, cluster, storage) in
        [(None, "3.7.0", "3.7.0"), (Some(version(7)), "3.7.0", "3.7.0"), (Some(version(6)), "3.6.0", "3.6.0")]
    {
        let out = PathBuf::from(format!("/out-{target:?}"));
        let done = export(&fs, &Export { data_dir: data_dir("/data"), out: out.clone(), version: target });
        assert_eq!(done.expect("a sound one").version.as_deref(), Some(storage));
        let reader = Reader::open(&memory, &out.join("member/snap/db")).expect("a database");
        let stored = |bucket, key| reader.get(bucket, key).expect("a sound file").expect("the pair");
        assert_eq!(stored(schema::BUCKET_META, schema::META_STORAGE_VERSION), storage.as_bytes());
        assert_eq!(stored(schema::BUCKET_CLUSTER, schema::CLUSTER_VERSION), cluster.as_bytes());
    }
}

#[test]
fn what_is_etcds_already_is_not_exported() {
    let (memory, _) = restored_directory();
    let fs: Arc<dyn Fs> = Arc::new(memory);
    let settings_of = Export { data_dir: data_dir("/data"), out: "/out".into(), version: None };
    let error = export(&fs, &settings_of).expect_err("a database");
    assert!(error.to_string().contains("it is etcd's own already"), "{error}");
    assert!(!fs.exists(Path::new("/out")).expect("a look"));
}

#[test]
fn a_database_migrates_and_ours_has_nothing_to_migrate() {
    let (memory, state) = restored_directory();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let stored = || {
        let reader = Reader::open(&memory, Path::new("/data/member/snap/db")).expect("a database");
        let version = reader.get(schema::BUCKET_META, schema::META_STORAGE_VERSION).expect("a sound file");
        version.map(|version| String::from_utf8(version).expect("text"))
    };
    let to = |minor, force| migrate(&fs, &data_dir("/data"), Migration { target: version(minor), force });
    // Whoever runs the member reads it, whoever migrates it.
    memory.set_mode(Path::new("/data/member/snap/db"), 0o640).expect("a file");
    assert_eq!(stored().as_deref(), Some("3.7.0"));
    assert_eq!(to(7, false).expect("up to date"), Migrated::UpToDate);
    assert_eq!(to(5, false).expect("down"), Migrated::Through(vec![version(6), version(5)]));
    assert_eq!(stored(), None);
    assert_eq!(to(5, false).expect("up to date"), Migrated::UpToDate);
    assert_eq!(to(7, false).expect("up"), Migrated::Through(vec![version(6), version(7)]));
    let refused = "cannot create migration plan: version \"3.8.0\" is not supported";
    assert_eq!(to(8, false).expect_err("unknown").to_string(), refused);
    assert_eq!(stored().as_deref(), Some("3.7.0"));
    assert_eq!(to(8, true).expect("forced"), Migrated::Forced(refused.to_owned()));
    assert_eq!(stored().as_deref(), Some("3.8.0"));
    assert_eq!(to(7, true).expect("forced"), Migrated::Forced(refused.to_owned()));
    defrag(&fs, &data_dir("/data")).expect("a sound one");
    assert_eq!(memory.mode(Path::new("/data/member/snap/db")).expect("a file"), 0o640);
    same_state(&state, &open(&fs, &settings(), 9).expect("a member starts"), "after all that");

    let (memory, _) = ours();
    let before = memory.files();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let to = |minor, force| migrate(&fs, &data_dir("/data"), Migration { target: version(minor), force });
    assert_eq!(to(7, false).expect("up to date"), Migrated::UpToDate);
    assert_eq!(to(6, false).expect("nothing to do"), Migrated::Same);
    assert_eq!(to(8, false).expect_err("unknown").to_string(), refused);
    assert!(to(8, true).is_err());
    assert_eq!(memory.files(), before);
}

#[test]
fn a_check_names_what_a_start_would_take_and_what_it_would_refuse() {
    let (memory, _) = ours();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let report = check(&fs, &data_dir("/data")).expect("a look");
    assert_eq!((report.faults.len(), report.notes.len()), (0, 0), "{report:?}");
    let parts: Vec<String> = report.sound.iter().map(|part| part.path.display().to_string()).collect();
    assert_eq!(parts, ["/data/member/wal", "/data/member/rev"]);

    // Its revision log can be made anew, and then that is the advice.
    let segments: Vec<PathBuf> =
        memory.files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    let damaged = memory.copy();
    damaged.flip(&segments[0], 100, 1).expect("a byte");
    let fs: Arc<dyn Fs> = Arc::new(damaged);
    let report = check(&fs, &data_dir("/data")).expect("a look");
    let [fault] = &report.faults[..] else { panic!("{report:?}") };
    assert!(fault.what.contains("is damaged at offset"), "{fault:?}");
    assert!(fault.advice.contains("it is made anew"), "{fault:?}");

    // A database, page by page and pair by pair.
    let (memory, _) = restored_directory();
    let fs: Arc<dyn Fs> = Arc::new(memory.copy());
    let report = check(&fs, &data_dir("/data")).expect("a look");
    assert_eq!(report.faults, []);
    assert!(report.sound.iter().any(|part| part.path.ends_with("snap/db")), "{report:?}");
    let len = memory.read("/data/member/snap/db").expect("a file").len() as u64;
    let (mut seen, mut hidden) = (0, 0);
    for offset in (0..len).step_by(61) {
        let flipped = memory.copy();
        flipped.flip("/data/member/snap/db", offset, 0x20).expect("a byte");
        let fs: Arc<dyn Fs> = Arc::new(flipped.clone());
        let report = check(&fs, &data_dir("/data")).expect("a look");
        let started = open(&fs, &settings(), 9).map(drop);
        match started {
            Ok(()) => {
                hidden += 1;
                assert_eq!(report.faults, [], "offset {offset}");
            }
            Err(error) => {
                seen += 1;
                let found = report.faults.iter().any(|fault| fault.what == error.to_string());
                assert!(found, "offset {offset}: {error}: {report:?}");
            }
        }
    }
    assert!(seen > 100 && hidden > 10, "{seen} seen, {hidden} in values");

    // A restore that was interrupted.
    disk::make_dir(&memory, Path::new("/data/member.restoring"), 0o700).expect("a folder");
    let fs: Arc<dyn Fs> = Arc::new(memory);
    let report = check(&fs, &data_dir("/data")).expect("a look");
    assert!(report.faults[0].what.contains("interrupted restore"), "{report:?}");
}

/// A directory whose log names a snapshot; with all of its entries, or without the first of them.
fn with_snapshots(wals_max: usize) -> (MemFs, Settings) {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let settings = Settings { snapshot_count: 20, wals_max, snapshots_max: 1, ..settings() };
    let mut member = open(&fs, &settings, 5).expect("a member starts");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    for n in 0..100 {
        put(&mut member, &format!("k{}", n % 7), &n.to_string().repeat(20));
    }
    drop(member);
    memory.kill();
    (memory, settings)
}

fn remove(memory: &MemFs, folder: &str) {
    for path in memory.files().iter().filter(|path| path.starts_with(folder)) {
        memory.remove(path).expect("a file");
    }
}

/// The one fault that a check finds is why a start refuses; the advice.
fn refused_alike(memory: &MemFs, settings: &Settings) -> (String, &'static str) {
    let before = memory.files();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let report = check(&fs, &data_dir("/data")).expect("a look");
    assert_eq!(memory.files(), before, "a check changed something");
    let error = open(&fs, settings, 9).err().expect("refused").to_string();
    let [fault] = &report.faults[..] else { panic!("a start says {error}, a check {report:?}") };
    assert_eq!(fault.what, error);
    (error, fault.advice)
}

#[test]
fn a_check_misses_a_revision_log_that_is_gone() {
    let (memory, settings) = with_snapshots(2);
    remove(&memory, "/data/member/rev");
    let (error, advice) = refused_alike(&memory, &settings);
    assert!(error.contains("the revision log holds nothing, the newest snapshot record is at"), "{error}");
    assert!(advice.starts_with("bring the folder member/rev back"), "{advice}");

    // The log has all of it.
    let (memory, settings) = with_snapshots(0);
    remove(&memory, "/data/member/rev");
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let report = check(&fs, &data_dir("/data")).expect("a look");
    assert_eq!(report.faults, []);
    let [note] = &report.notes[..] else { panic!("{report:?}") };
    assert!(note.contains("a start makes it anew from the write-ahead log"), "{note}");
    let mut member = open(&fs, &settings, 9).expect("a member starts");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    assert_eq!(member.parts.reader.revision(), 101);
}

#[test]
fn a_check_misses_a_write_ahead_log_that_is_gone() {
    let (memory, settings) = with_snapshots(2);
    remove(&memory, "/data/member/wal");
    let (error, advice) = refused_alike(&memory, &settings);
    assert!(error.contains("/data/member/rev holds revisions, but /data/member/wal holds no log"), "{error}");
    assert!(advice.contains("--wal-dir"), "{advice}");
    remove(&memory, "/data/member/rev");
    let (error, _) = refused_alike(&memory, &settings);
    assert!(error.contains("/data/member/snap holds snapshots, but"), "{error}");
    remove(&memory, "/data/member/snap");
    let fs: Arc<dyn Fs> = Arc::new(memory);
    let report = check(&fs, &data_dir("/data")).expect("a look");
    assert_eq!(report.faults, []);
    assert!(report.notes[0].contains("a start begins a new member"), "{report:?}");
}
