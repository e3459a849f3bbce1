//! Data directories of every version of ours, and of Go's etcd: they open for ever. `crates/sim/tests/golden/README.md`
//! says how they were made.

use node::Limits;
use node::offline::{DataDir, check};
use wire::etcdserverpb::LeaseGrantRequest;

use super::*;

/// A directory, and what it holds.
struct Golden {
    name: &'static str,
    packed: &'static [u8],
    revision: i64,
    compacted: i64,
    hash: u32,
    leases: &'static [i64],
    members: usize,
    version: &'static str,
}

const ALL: [Golden; 3] = [
    Golden {
        name: "etcd-3.6",
        packed: include_bytes!("../golden/etcd-3.6.packed"),
        revision: 28,
        compacted: 8,
        hash: 3_586_228_442,
        leases: &[0x5843_a22b_42f6_6303],
        members: 1,
        version: "3.6.0",
    },
    Golden {
        name: "etcd-3.7",
        packed: include_bytes!("../golden/etcd-3.7.packed"),
        revision: 28,
        compacted: 8,
        hash: 712_452_446,
        leases: &[0x5843_a22b_4315_d003],
        members: 1,
        version: "3.7.0",
    },
    Golden {
        name: "quorate-0.1",
        packed: include_bytes!("../golden/quorate-0.1.packed"),
        revision: 104,
        compacted: 50,
        hash: 3_574_947_603,
        leases: &[900],
        members: 1,
        version: "3.7.0",
    },
];

#[test]
fn directories_of_every_version_open() {
    for golden in &ALL {
        let what = golden.name;
        let memory = unpack(golden.packed);
        let fs: Arc<dyn Fs> = Arc::new(memory);
        let Limits { wal, revlog, .. } = settings().limits;
        let data_dir =
            DataDir { path: "/data".into(), wal_dir: None, wal_limits: wal, revlog_limits: revlog };
        let report = check(&fs, &data_dir).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((report.faults, report.notes), (vec![], vec![]), "{what}");
        for run in 0..2 {
            let revision = golden.revision + run;
            let mut member = open(&fs, &settings(), 9).unwrap_or_else(|error| panic!("{what}: {error}"));
            if run == 0 {
                let membership = member.parts.reader.membership();
                assert_eq!(membership.cluster_version(), Some(golden.version), "{what}");
            }
            member.settle(NOW, &mut Told::default()).expect("a healthy disk");
            assert!(member.is_ready, "{what}");
            let reader = &member.parts.reader;
            assert_eq!((reader.revision(), reader.compacted()), (revision, golden.compacted), "{what}");
            let hash = reader.hash_kv(golden.revision).expect("a hash").0;
            assert_eq!(hash.hash, golden.hash, "{what}, run {run}");
            let leases: Vec<i64> = reader.leases().iter().map(|(id, _)| *id).collect();
            assert_eq!(leases, golden.leases, "{what}");
            assert!(leases.iter().all(|id| reader.lease_keys(*id).len() == 1));
            let membership = reader.membership();
            assert_eq!(membership.members().len(), golden.members, "{what}");
            assert_eq!(membership.cluster_version(), Some("3.7.0"), "{what}: it has gone up");
            put(&mut member, "after", "1");
            member.parts.applier.store().check();
        }
    }
}

/// A directory as one file: for each file its path, a zero, the packed length (8 bytes, little-endian), and the packed
/// file.
fn pack<'a>(files: impl Iterator<Item = (&'a str, Vec<u8>)>) -> Vec<u8> {
    let mut all = Vec::new();
    for (path, bytes) in files {
        let packed = packed::pack(&bytes);
        all.extend(path.as_bytes());
        all.push(0);
        all.extend((packed.len() as u64).to_le_bytes());
        all.extend(packed);
    }
    all
}

fn unpack(mut all: &[u8]) -> MemFs {
    let memory = MemFs::new();
    while let Some(end) = all.iter().position(|byte| *byte == 0) {
        let path = Path::new("/data").join(std::str::from_utf8(&all[..end]).expect("a path"));
        let (len, rest) = all[end + 1..].split_first_chunk().expect("a length");
        let (packed, rest) = rest.split_at(u64::from_le_bytes(*len) as usize);
        all = rest;
        let file = packed::unpack(packed);
        disk::make_dir(&memory, path.parent().expect("a folder"), 0o700).expect("a folder");
        memory.put(&path, &file).expect("a file");
    }
    memory
}

/// `QUORATE_PACK=DATA-DIR QUORATE_PACKED=FILE cargo test -p quorate-sim --test databases pack_a_directory -- --ignored`
#[test]
#[ignore = "makes a golden file of a real directory"]
fn pack_a_directory() {
    let data_dir =
        PathBuf::from(std::env::var_os("QUORATE_PACK").expect("QUORATE_PACK names a data directory"));
    let packed =
        PathBuf::from(std::env::var_os("QUORATE_PACKED").expect("QUORATE_PACKED names the file to write"));
    let mut files = Vec::new();
    for folder in ["member/snap", "member/wal", "member/rev"] {
        let Ok(names) = std::fs::read_dir(data_dir.join(folder)) else { continue };
        let mut names: Vec<String> =
            names.map(|name| name.expect("a name").file_name().into_string().expect("text")).collect();
        names.retain(|name| !name.ends_with(".tmp"));
        names.sort();
        for name in names {
            let path = format!("{folder}/{name}");
            let bytes = std::fs::read(data_dir.join(&path)).expect("a file");
            files.push((path, bytes));
        }
    }
    let all = pack(files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())));
    std::fs::write(packed, all).expect("a file");
}

/// `QUORATE_PACKED=FILE cargo test -p quorate-sim --test databases pack_one_of_ours -- --ignored --nocapture`: a life with
/// merged segments, a snapshot file, a log that has lost its beginning, and a lease with a key.
#[test]
#[ignore = "makes a golden file of this version"]
fn pack_one_of_ours() {
    let packed =
        PathBuf::from(std::env::var_os("QUORATE_PACKED").expect("QUORATE_PACKED names the file to write"));
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let settings = Settings { snapshot_count: 20, wals_max: 2, snapshots_max: 1, ..settings() };
    for run in 0..2 {
        let mut member = open(&fs, &settings, 5).expect("a member starts");
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        if run == 0 {
            send(&mut member, |request| {
                request.lease_grant = Some(LeaseGrantRequest { id: 900, ttl: 86_400 });
            });
            send(&mut member, |request| {
                request.put = Some(PutRequest { key: "leased".into(), lease: 900, ..Default::default() });
            });
        }
        for n in 0..50 {
            put(&mut member, &format!("k{}", n % 7), &"v".repeat(n * 13 % 90));
        }
        delete(&mut member, "k1");
        if run == 1 {
            compact(&mut member, 50);
        }
        let reader = &member.parts.reader;
        let hash = reader.hash_kv(0).expect("a hash").0;
        println!("revision {}, compacted {}, hash {}", reader.revision(), reader.compacted(), hash.hash);
    }
    memory.kill();
    let files = memory.files();
    let names = format!("{files:?}");
    assert!(names.contains(".snap") && names.contains("/rev/8000"), "{names}");
    let named = files.iter().filter(|path| path.extension().is_none_or(|end| end != "tmp"));
    let all = pack(named.map(|path| {
        let name = path.strip_prefix("/data").expect("all is in there").to_str().expect("text");
        (name, memory.read(path).expect("a file"))
    }));
    std::fs::write(packed, all).expect("a file");
}
