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
    /// Where authentication is on: the revision of users and roles, and their names.
    auth: Option<(u64, &'static [&'static str], &'static [&'static str])>,
}

const ALL: [Golden; 5] = [
    Golden {
        name: "etcd-3.6",
        packed: include_bytes!("../golden/etcd-3.6.packed"),
        revision: 28,
        compacted: 8,
        hash: 3_586_228_442,
        leases: &[0x5843_a22b_42f6_6303],
        members: 1,
        version: "3.6.0",
        auth: None,
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
        auth: None,
    },
    Golden {
        name: "etcd-3.6-auth",
        packed: include_bytes!("../golden/etcd-3.6-auth.packed"),
        revision: 28,
        compacted: 8,
        hash: 805_646_901,
        leases: &[0x6e7f_a22c_9ce6_ee15],
        members: 1,
        version: "3.6.0",
        auth: Some((16, &["alice", "clerk", "root"], &["readers", "root", "writers"])),
    },
    Golden {
        name: "etcd-3.7-auth",
        packed: include_bytes!("../golden/etcd-3.7-auth.packed"),
        revision: 28,
        compacted: 8,
        hash: 4_190_032_756,
        leases: &[0x77d8_a22c_9cdd_1c15],
        members: 1,
        version: "3.7.0",
        auth: Some((16, &["alice", "clerk", "root"], &["readers", "root", "writers"])),
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
        auth: None,
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
            let auth = reader.auth();
            let (revision, users, roles) = golden.auth.unwrap_or((1, &[], &[]));
            assert_eq!((auth.is_enabled(), auth.revision()), (golden.auth.is_some(), revision), "{what}");
            assert!(
                auth.users().map(|user| &user.name).eq(users),
                "{what}: {:?}",
                auth.users().collect::<Vec<_>>()
            );
            assert!(
                auth.roles().map(|role| &role.name).eq(roles),
                "{what}: {:?}",
                auth.roles().collect::<Vec<_>>()
            );
            let membership = reader.membership();
            assert_eq!(membership.members().len(), golden.members, "{what}");
            assert_eq!(membership.cluster_version(), Some("3.7.0"), "{what}: it has gone up");
            put(&mut member, "after", "1");
            member.parts.applier.store().check();
        }
    }
}

/// Where the elements of the root bucket are in a database file: each bucket's name, the element's offset and the name's.
fn root_elements(file: &[u8]) -> Vec<(String, u64, u64)> {
    const PAGE: usize = 4096;
    const HEADER: usize = 16;
    let u64_at = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes")) as usize;
    let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes")) as usize;
    // Behind magic, version, page size and flags: the root's page; and the transaction behind three more numbers.
    let newest = [0, PAGE].into_iter().max_by_key(|meta| u64_at(meta + HEADER + 48)).expect("two");
    let page = u64_at(newest + HEADER + 16) * PAGE;
    let count = usize::from(u16::from_le_bytes([file[page + 10], file[page + 11]]));
    let elements = (0..count).map(|n| {
        let element = page + HEADER + 16 * n;
        let name = element + u32_at(element + 4);
        let text = String::from_utf8_lossy(&file[name..name + u32_at(element + 8)]).into_owned();
        (text, element as u64, name as u64)
    });
    elements.collect()
}

/// One bit, and a bucket is none or is called something else: what it had must not be taken for empty, and the file not
/// be removed.
#[test]
fn a_database_that_lacks_a_bucket_is_refused_and_stays() {
    const DATABASE: &str = "/data/member/snap/db";
    for golden in ALL.iter().filter(|golden| golden.name.starts_with("etcd")) {
        let memory = unpack(golden.packed);
        let elements = root_elements(&memory.read(DATABASE).expect("a database"));
        assert_eq!(elements.len(), 10, "{elements:?}");
        for (bucket, element, name) in elements {
            let last = name + bucket.len() as u64 - 1;
            for (what, offset) in [("its flag", element), ("its name", last)] {
                let what = format!("{}, {bucket}, {what}", golden.name);
                let damaged = memory.copy();
                damaged.flip(DATABASE, offset, 1).expect("a byte");
                let before = damaged.read(DATABASE).expect("a database");
                let fs: Arc<dyn Fs> = Arc::new(damaged.clone());
                let Limits { wal, revlog, .. } = settings().limits;
                let data_dir =
                    DataDir { path: "/data".into(), wal_dir: None, wal_limits: wal, revlog_limits: revlog };
                let report = check(&fs, &data_dir).unwrap_or_else(|error| panic!("{what}: {error}"));
                let error = open(&fs, &settings(), 9).err().unwrap_or_else(|| panic!("{what}: it started"));
                assert!(error.to_string().contains(DATABASE), "{what}: {error}");
                assert_eq!(report.faults.len(), 1, "{what}: {report:?}");
                assert_eq!(damaged.read(DATABASE).expect("it is still there"), before, "{what}");
            }
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
