//! The way out through a database file and back in: a member's cut, what etcdutl restores of it, and a member that starts
//! from that. Rule 17 as far as one member goes; etcd's own tools are `cargo xtask database`.

#[path = "databases/golden.rs"]
mod golden;
#[path = "databases/offline.rs"]
mod offline;
#[path = "../../disk/tests/boltfile/packed.rs"]
mod packed;
#[path = "databases/takeover.rs"]
mod takeover;
#[path = "databases/users.rs"]
mod users;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::{Fs, MemFs, wal};
use node::interchange::{Cut, Restore, restore};
use node::{Entropy, Error, InitialMember, Limits, Settings};
use prost::Message;
use raft::Time;
use sha2::{Digest, Sha256};
use sim::member::{Running, Told, proposal, settings};
use sim::random::Random;
use sim::workload;
use store::request::Range;
use store::{KvHash, ReadFailure, ReadMode};
use wire::ApiError;
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, InternalRaftRequest, LeaseGrantRequest, PutRequest,
    RequestHeader,
};
use wire::membershippb::DowngradeInfoSetRequest;

const NOW: Time = Time(1);
const SNAPSHOT: &str = "/saved/snapshot.db";

fn open(fs: &Arc<dyn Fs>, settings: &Settings, seed: u64) -> Result<Running, Error> {
    Running::open(fs, settings, Entropy { ids: seed << 32, log: seed, raft: seed }, NOW)
}

fn ready(fs: &Arc<dyn Fs>) -> Running {
    let mut member = open(fs, &settings(), 7).expect("a member starts");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    assert!(member.is_ready);
    member
}

fn send(member: &mut Running, request: impl FnOnce(&mut InternalRaftRequest)) {
    let id = member.lane().next();
    let mut sent = InternalRaftRequest {
        header: Some(RequestHeader { id: id.0, ..Default::default() }),
        ..Default::default()
    };
    request(&mut sent);
    users::as_root(member, &mut sent);
    member.submit(vec![proposal(id, sent.encode_to_vec(), true)]);
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
}

fn put(member: &mut Running, key: &str, value: &str) {
    send(member, |request| {
        request.put = Some(PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        });
    });
}

fn delete(member: &mut Running, key: &str) {
    send(member, |request| {
        request.delete_range = Some(DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() });
    });
}

fn compact(member: &mut Running, revision: i64) {
    send(member, |request| request.compaction = Some(CompactionRequest { revision, physical: false }));
}

fn downgrade(member: &mut Running, to: &str) {
    let set = DowngradeInfoSetRequest { enabled: true, ver: to.to_owned() };
    send(member, |request| request.downgrade_info_set = Some(set));
}

/// A life of a member: puts, deletes, transactions, leases, compactions.
fn live(member: &mut Running, random: &mut Random, requests: u64) {
    let mut ids = member.lane();
    for _ in 0..requests {
        let id = ids.next();
        let (mut request, grows) = workload::request(random, id.0, member.parts.reader.revision());
        users::as_root(member, &mut request);
        member.submit(vec![proposal(id, request.encode_to_vec(), grows)]);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    }
}

/// The file of a cut, with the sum that a saved snapshot has.
fn saved(cut: &Cut) -> Vec<u8> {
    let plan = cut.plan().expect("records can be read");
    let len = plan.file_len();
    let mut file = Vec::new();
    cut.write(plan, |bytes| {
        file.extend_from_slice(bytes);
        Ok(())
    })
    .expect("records can be read");
    assert_eq!(file.len() as u64, len, "the length is known in advance");
    let sum = Sha256::digest(&file);
    file.extend_from_slice(&sum);
    file
}

fn restoring(to: &str) -> Restore {
    let Settings { name, initial_cluster, token, .. } = settings();
    Restore {
        snapshot: PathBuf::from(SNAPSHOT),
        data_dir: PathBuf::from(to),
        wal_dir: None,
        name,
        initial_cluster,
        token,
        skip_hash_check: false,
        bump_revision: 0,
        wal_limits: wal::Limits::tiny(),
    }
}

fn with_file(file: &[u8]) -> MemFs {
    let fs = MemFs::new();
    disk::make_dir(&fs, Path::new("/saved"), 0o700).expect("a folder");
    fs.put(SNAPSHOT, file).expect("a file");
    fs.sync_dir(Path::new("/saved")).expect("a folder");
    fs
}

fn restored(fs: &Arc<dyn Fs>, settings_of: &Restore) -> Running {
    restore(fs, settings_of).expect("a sound snapshot");
    start_restored(fs, settings_of).expect("a member starts")
}

fn start_restored(fs: &Arc<dyn Fs>, of: &Restore) -> Result<Running, Error> {
    let settings = Settings {
        data_dir: of.data_dir.clone(),
        wal_dir: of.wal_dir.clone(),
        name: of.name.clone(),
        initial_cluster: of.initial_cluster.clone(),
        ..settings()
    };
    open(fs, &settings, 9)
}

/// HashKV at every revision above the compacted one, whose hash a member remembers as it was before, and at the newest.
fn hashes(member: &Running) -> Vec<KvHash> {
    let reader = &member.parts.reader;
    let revisions = (reader.compacted().max(0) + 1)..=reader.revision();
    revisions.chain([0]).map(|revision| reader.hash_kv(revision).expect("a hash").0).collect()
}

fn all_keys(member: &Running) -> Vec<u8> {
    let mut body = Vec::new();
    let request = Range { key: b"\0", range_end: b"\0", ..Default::default() };
    member.parts.reader.range(&request, ReadMode::MayBlock, &mut body).expect("a read");
    body
}

fn same_state(one: &Running, other: &Running, what: &str) {
    let (a, b) = (&one.parts.reader, &other.parts.reader);
    let (memberships, expected) = (b.membership(), a.membership());
    assert_eq!(memberships.downgrade_target(), expected.downgrade_target(), "{what}");
    assert_eq!((a.revision(), a.compacted()), (b.revision(), b.compacted()), "{what}");
    assert_eq!(a.alarms(), b.alarms(), "{what}");
    assert_eq!(a.auth(), b.auth(), "{what}");
    assert_eq!(a.leases(), b.leases(), "{what}");
    for (id, _) in a.leases() {
        assert_eq!(a.lease_keys(id), b.lease_keys(id), "{what}: keys of lease {id:x}");
    }
    assert_eq!(all_keys(one), all_keys(other), "{what}");
    assert_eq!(hashes(one), hashes(other), "{what}");
    other.parts.applier.store().check();
}

#[test]
fn a_store_that_went_through_a_file_is_the_same() {
    for seed in 0..60 {
        let what = format!("seed {seed}");
        let mut random = Random::new(seed);
        let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
        let mut member = ready(&fs);
        live(&mut member, &mut random, 20 + seed * 3);
        if random.one_in(3) {
            // At the newest revision, perhaps that of a delete, and perhaps with nothing left.
            delete(&mut member, "k01");
            let revision = member.parts.reader.revision();
            compact(&mut member, revision);
        }
        if random.one_in(2) {
            downgrade(&mut member, "3.6.0");
        }
        match seed % 4 {
            0 => users::give_users(&mut member),
            1 => users::give_users_that_count(&mut member),
            _ => {}
        }
        for (member_id, kind) in [(seed, 1), (seed << 60, 2), (9, 7)].into_iter().take(seed as usize % 4) {
            send(&mut member, |request| {
                let action = AlarmAction::Activate as i32;
                request.alarm = Some(AlarmRequest { action, member_id, alarm: kind });
            });
        }
        let cut = member.parts.applier.cut();
        let file = saved(&cut);

        let memory = with_file(&file);
        let other_fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let settings = restoring("/restored");
        let other = restored(&other_fs, &settings);
        same_state(&member, &other, &what);
        let found = other.parts.found.imported.clone().expect("the database was taken over");
        assert_eq!(
            (found.revision, found.applied.index),
            (member.parts.reader.revision().max(found.compacted), 1)
        );
        assert!(!memory.exists(Path::new("/restored/member/snap/db")).expect("a look"), "{what}");
        for hash in hashes(&member) {
            let of_file = node::interchange::hash_kv(&*other_fs, Path::new(SNAPSHOT), hash.hash_revision);
            assert_eq!(of_file.expect("a sound file"), hash, "{what}");
        }
        // Once more: what the restored member gives out has the same revisions.
        let again = saved(&other.parts.applier.cut());
        let third_fs: Arc<dyn Fs> = Arc::new(with_file(&again));
        same_state(&member, &restored(&third_fs, &restoring("/again")), &what);
    }
}

#[test]
fn a_cut_stays_as_it_was_while_the_store_goes_on() {
    for seed in 0..20 {
        let mut random = Random::new(1000 + seed);
        let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
        let mut member = ready(&fs);
        live(&mut member, &mut random, 60);
        let cut = member.parts.applier.cut();
        let plan = cut.plan().expect("records can be read");
        let before = saved(&cut);
        for n in 0..20 {
            put(&mut member, &format!("k{}", n % 3), "later");
        }
        let revision = member.parts.reader.revision();
        let id = member.lane().next();
        let request = InternalRaftRequest {
            header: Some(RequestHeader { id: id.0, ..Default::default() }),
            compaction: Some(CompactionRequest { revision, physical: false }),
            ..Default::default()
        };
        member.submit(vec![proposal(id, request.encode_to_vec(), false)]);
        // The compaction's background work waits for the cut: the member does not come to rest.
        let mut told = Told::default();
        for _ in 0..50 {
            member.consensus(NOW, &mut told);
            member.write_log(usize::MAX).expect("a healthy disk");
            member.apply(NOW, &mut told).expect("applies");
            member.write_revisions().expect("a healthy disk");
            member.compact();
        }
        assert_eq!(member.parts.reader.compacted(), revision);
        assert!(!member.parts.compactor.is_idle());
        assert_eq!(saved(&cut), before, "seed {seed}");
        let mut late = Vec::new();
        cut.write(plan, |bytes| {
            late.extend_from_slice(bytes);
            Ok(())
        })
        .expect("the plan still holds");
        assert_eq!(late[..], before[..late.len()], "seed {seed}");
        drop(cut);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        assert!(member.parts.compactor.is_idle());
    }
}

#[test]
fn a_write_that_its_receiver_ends_is_an_error() {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let mut member = ready(&fs);
    put(&mut member, "a", "1");
    let cut = member.parts.applier.cut();
    let gone = |_: &[u8]| Err(std::io::ErrorKind::BrokenPipe.into());
    assert!(matches!(cut.write(cut.plan().expect("a plan"), gone), Err(Error::Boltfile(_))));
}

/// Rule 18: what is counted is the length of the file, within 5 %, whatever the pairs are like.
#[test]
fn rule_18_the_size_that_is_counted_is_that_of_the_file() {
    for (values, keys, leases, users) in [
        (0..1, 6_000, 0, 0),
        (0..40, 6_000, 3_000, 0),
        (0..300, 4_000, 0, 0),
        (900..1_200, 1_500, 0, 0),
        (0..5_000, 600, 0, 0),
        (30_000..90_000, 30, 0, 0),
        (0..40, 600, 0, 3_000),
    ] {
        let what = format!("{keys} keys with values of {values:?} bytes, {leases} leases, {users} users");
        let mut random = Random::new(18);
        let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
        let settings = Settings { limits: Limits::default(), compaction_batch_limit: 1_000, ..settings() };
        let mut member = open(&fs, &settings, 7).expect("a member starts");
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        let mut ids = member.lane();
        let mut batch = Vec::new();
        for n in 0..keys + leases + users {
            let id = ids.next();
            let header = Some(RequestHeader { id: id.0, ..Default::default() });
            let mut request = InternalRaftRequest { header, ..Default::default() };
            if n < keys {
                let value =
                    vec![b'v'; values.start + random.below((values.end - values.start) as u64) as usize]
                        .into();
                let key = format!("/registry/{n}").into();
                request.put = Some(PutRequest { key, value, ..Default::default() });
            } else if n < keys + leases {
                request.lease_grant = Some(LeaseGrantRequest { id: i64::from(n) << 40, ttl: 60 });
            } else {
                request.auth_user_add = Some(users::with_password(&format!("user {n}")));
            }
            batch.push(proposal(id, request.encode_to_vec(), true));
            if batch.len() == 200 {
                member.submit(std::mem::take(&mut batch));
                member.settle(NOW, &mut Told::default()).expect("a healthy disk");
            }
        }
        member.submit(batch);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        let holds = |member: &Running| {
            let counted = member.parts.reader.size_bytes();
            let length = member.parts.applier.cut().plan().expect("a plan").file_len();
            assert!(
                counted * 100 >= length * 95 && counted * 100 <= length * 105,
                "{what}: {counted}, not {length}"
            );
        };
        holds(&member);
        // Half of it is dropped.
        send(&mut member, |request| {
            let (key, range_end) = ("/registry/2".into(), "/registry/7".into());
            request.delete_range = Some(DeleteRangeRequest { key, range_end, ..Default::default() });
        });
        let revision = member.parts.reader.revision();
        compact(&mut member, revision);
        holds(&member);
    }
}

/// A small store with everything in it: dead, deleted, leased and compacted keys.
fn sample() -> (Running, Vec<u8>) {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let mut member = ready(&fs);
    for n in 0..12 {
        put(&mut member, &format!("k{}", n % 4), &n.to_string().repeat(30));
    }
    delete(&mut member, "k1");
    compact(&mut member, 10);
    users::give_users_that_count(&mut member);
    put(&mut member, "k2", "last");
    let file = saved(&member.parts.applier.cut());
    (member, file)
}

#[test]
fn a_restored_member_goes_on() {
    let (member, file) = sample();
    let fs: Arc<dyn Fs> = Arc::new(with_file(&file));
    let mut settings = restoring("/restored");
    settings.wal_dir = Some(PathBuf::from("/elsewhere/wal"));
    let mut other = restored(&fs, &settings);
    let revision = other.parts.reader.revision();
    other.settle(NOW, &mut Told::default()).expect("a healthy disk");
    assert!(other.is_ready);
    put(&mut other, "after", "restore");
    assert_eq!(other.parts.reader.revision(), revision + 1);
    let keys = all_keys(&other);
    assert_ne!(keys, all_keys(&member));
    drop(other);
    let mut again = start_restored(&fs, &settings).expect("a member starts");
    assert_eq!(again.parts.found.imported, None, "once");
    again.settle(NOW, &mut Told::default()).expect("a healthy disk");
    assert_eq!(all_keys(&again), keys);
    let refused = restore(&fs, &settings).expect_err("the folder is in use");
    assert_eq!(refused.to_string(), "data-dir \"/restored\" not empty or could not be read");
    let refused = restore(&fs, &Restore { data_dir: "/new".into(), ..settings }).expect_err("in use");
    assert_eq!(refused.to_string(), "wal-dir \"/elsewhere/wal\" exists");
}

/// The folder of the member is made under another name.
#[test]
fn a_log_may_be_anywhere_in_the_members_folder() {
    let (_, file) = sample();
    let fs: Arc<dyn Fs> = Arc::new(with_file(&file));
    let settings = Restore { wal_dir: Some("/restored/member/logs/other".into()), ..restoring("/restored") };
    let mut member = restored(&fs, &settings);
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    assert!(member.is_ready);
    put(&mut member, "after", "restore");
    let keys = all_keys(&member);
    drop(member);
    assert_eq!(all_keys(&start_restored(&fs, &settings).expect("a member starts")), keys);
    let names = fs.list(Path::new("/restored/member")).expect("a folder");
    assert!(!names.contains(&"wal".to_owned()), "{names:?}");
}

#[test]
fn each_member_of_a_cluster_has_its_own_ids_and_the_same_members() {
    let (member, file) = sample();
    let fs: Arc<dyn Fs> = Arc::new(with_file(&file));
    let initial_cluster: Vec<InitialMember> = ["a", "b", "c"]
        .map(|name| InitialMember { name: name.into(), peer_urls: vec![format!("http://{name}:2380")] })
        .to_vec();
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let settings = Restore {
            name: name.into(),
            initial_cluster: initial_cluster.clone(),
            token: "restored".into(),
            ..restoring(&format!("/{name}"))
        };
        let other = restored(&fs, &settings);
        let identity = other.parts.identity;
        assert_eq!(identity.member_id, node::member_id(&[format!("http://{name}:2380")], "restored"));
        ids.push(identity.member_id);
        let membership = other.parts.reader.membership();
        let names: Vec<&str> = membership.members().map(|member| member.name.as_str()).collect();
        assert_eq!(membership.members().len(), 3, "{names:?}");
        assert_eq!(membership.member(identity.member_id).expect("itself").name, name);
        assert_eq!(hashes(&other), hashes(&member));
    }
    let other = Restore { name: "x".into(), initial_cluster, ..restoring("/x") };
    assert_eq!(
        restore(&fs, &other).expect_err("no such name").to_string(),
        "couldn't find local name \"x\" in the initial cluster configuration"
    );
}

#[test]
fn a_raised_revision_is_compacted_and_goes_on_from_there() {
    let (member, file) = sample();
    let revision = member.parts.reader.revision();
    let fs: Arc<dyn Fs> = Arc::new(with_file(&file));
    let settings = Restore { bump_revision: 1_000, ..restoring("/restored") };
    let mut other = restored(&fs, &settings);
    let raised = revision + 1_000;
    assert_eq!((other.parts.reader.revision(), other.parts.reader.compacted()), (raised, raised));
    assert_eq!(all_keys(&other), all_keys(&member));
    let hash = other.parts.reader.hash_kv(0).expect("a hash").0;
    other.settle(NOW, &mut Told::default()).expect("a healthy disk");
    let mut body = Vec::new();
    let past = Range { key: b"k2", revision: revision - 1, ..Default::default() };
    let read = other.parts.reader.range(&past, ReadMode::MayBlock, &mut body);
    assert_eq!(read, Err(ReadFailure::Api(ApiError::Compacted)));
    assert_eq!(other.parts.reader.hash_kv(0).expect("a hash").0, hash, "compacted or not");

    // Raised again from what that one gives out.
    let again: Arc<dyn Fs> = Arc::new(with_file(&saved(&other.parts.applier.cut())));
    let mut third = restored(&again, &settings);
    assert_eq!(third.parts.reader.revision(), raised + 1_000);
    assert_eq!(all_keys(&third), all_keys(&member));
    third.settle(NOW, &mut Told::default()).expect("a healthy disk");
    put(&mut third, "after", "bump");
    assert_eq!(third.parts.reader.revision(), raised + 1_001);
    third.parts.applier.store().check();
    drop(third);
    let third = start_restored(&again, &settings).expect("a member starts");
    assert_eq!(third.parts.reader.revision(), raised + 1_001);
}

/// A restore and the first start after it, stopped at every operation by a kill and by power cuts. What is left is a whole
/// member, or nothing of one, or refused; it never passes for an empty member.
#[test]
fn rule_17_a_restore_is_whole_or_refused_from_every_operation() {
    let (member, file) = sample();
    let expected = hashes(&member);
    let settings = restoring("/restored");
    let (mut whole, mut refused, mut nothing) = (0, 0, 0);
    for operations in 0.. {
        let memory = with_file(&file);
        memory.halt_after(Some(operations));
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let ended = restore(&fs, &settings).and_then(|_| {
            let mut other = start_restored(&fs, &settings)?;
            other.settle(NOW, &mut Told::default())
        });
        for cut in 0..5 {
            let left = if cut == 0 { memory.copy() } else { memory.crashed(cut) };
            let what = format!("{operations} operations, cut {cut}");
            let fs: Arc<dyn Fs> = Arc::new(left.clone());
            let names = fs.list(Path::new("/restored")).unwrap_or_default();
            if names.is_empty() {
                nothing += 1;
                restore(&fs, &settings).unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            match start_restored(&fs, &settings) {
                Ok(mut other) => {
                    whole += 1;
                    assert_eq!(hashes(&other), expected, "{what}");
                    other.settle(NOW, &mut Told::default()).expect("a healthy disk");
                    assert!(other.is_ready, "{what}");
                }
                Err(error) => {
                    refused += 1;
                    assert!(names.contains(&"member.restoring".to_owned()), "{what}: {error}");
                    assert!(error.to_string().contains("restore"), "{what}: {error}");
                }
            }
        }
        if ended.is_ok() {
            break;
        }
    }
    assert!(whole > 20 && refused > 20 && nothing > 0, "{whole} whole, {refused} refused, {nothing} nothing");
}

#[test]
fn a_damaged_snapshot_is_refused_and_nothing_is_made() {
    let (_, file) = sample();
    let digest = "expected sha256 [";
    let refused = |file: &[u8], skip: bool| {
        let memory = with_file(file);
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let settings = Restore { skip_hash_check: skip, ..restoring("/restored") };
        let error = restore(&fs, &settings).err().map(|error| error.to_string());
        if error.is_some() {
            assert!(!memory.exists(Path::new("/restored")).expect("a look"), "{error:?}");
        }
        error
    };
    for at in (0..file.len()).step_by(97) {
        let mut bad = file.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(refused(&bad, false).is_some_and(|text| text.starts_with(digest)), "byte {at}");
        // Without the sum the pages are looked at; what is wrong in a value cannot show.
        if let Some(text) = refused(&bad, true) {
            assert!(text.contains(SNAPSHOT), "byte {at}: {text}");
        }
    }
    let missing = "snapshot missing hash but --skip-hash-check=false";
    assert_eq!(refused(&file[..file.len() - 32], false).as_deref(), Some(missing));
    assert_eq!(refused(&file[..file.len() - 32], true), None);
    for len in [0, 1, 31, 32, 511, 544, 4096, file.len() / 2] {
        assert!(refused(&file[..len], false).is_some(), "{len} bytes");
        assert!(refused(&file[..len], true).is_some_and(|text| text.contains(SNAPSHOT)), "{len} bytes");
    }
}

#[test]
fn a_database_without_its_log_is_refused() {
    let (_, file) = sample();
    let memory = with_file(&file);
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let settings = restoring("/restored");
    restore(&fs, &settings).expect("a sound snapshot");
    let database = memory.read("/restored/member/snap/db").expect("a file");

    let orphan = MemFs::new();
    orphan.create_dir_all(Path::new("/restored/member/snap"), 0o700).expect("a folder");
    orphan.put("/restored/member/snap/db", &database).expect("a file");
    let fs_of_orphan: Arc<dyn Fs> = Arc::new(orphan);
    let error = start_restored(&fs_of_orphan, &settings).err().expect("no log").to_string();
    assert!(error.contains("holds a database") && error.contains("/restored/member/snap"), "{error}");
}
