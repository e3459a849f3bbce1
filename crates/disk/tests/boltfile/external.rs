//! Our files before the real tools, and theirs beside ours: `cargo xtask boltfile --bbolt PATH --etcdutl PATH` runs
//! these. `BOLTFILE_SEEDS` chooses the random ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use disk::boltfile::{Bucket, DEFAULT_PAGE_SIZE};

use crate::golden::{ETCD_3_6, ETCD_3_7, SNAPSHOT_3_7};
use crate::harness::{Buckets, Pairs, Rng, open, random_buckets, read, seeds, small_buckets, write};
use crate::packed::unpack;

fn tool(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    PathBuf::from(path.unwrap_or_else(|| panic!("{variable} is the path of a real tool")))
}

/// Runs a tool, and answers what it printed; it must succeed.
fn run(program: &Path, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{program:?} {args:?}: {out}{err}");
    out
}

/// A file with a SHA-256 behind it, as etcd saves snapshots.
fn seal(path: &Path) {
    let sum = run(Path::new("sha256sum"), &[path.to_str().unwrap()]);
    let bytes = (0..32).map(|at| u8::from_str_radix(&sum[2 * at..2 * at + 2], 16).unwrap());
    let mut file = std::fs::read(path).unwrap();
    file.extend(bytes);
    std::fs::write(path, file).unwrap();
}

#[test]
#[ignore = "needs bbolt: cargo xtask boltfile --bbolt PATH --etcdutl PATH"]
fn bbolt_finds_nothing_wrong() {
    let bbolt = tool("QUORATE_BBOLT");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let text = path.to_str().unwrap();
    let check = |page_size, buckets: &Buckets| {
        std::fs::write(&path, write(page_size, buckets)).unwrap();
        assert_eq!(run(&bbolt, &["check", text]), "OK\n");
        let names: String =
            buckets.keys().map(|name| format!("{}\n", String::from_utf8_lossy(name))).collect();
        assert_eq!(run(&bbolt, &["buckets", text]), names);
    };
    check(512 * 8, &Buckets::new());
    check(1024, &small_buckets());
    // Each number of leaves around those where a level of branches begins.
    for count in (1..40).chain(300..330) {
        let pairs: Pairs = (0..count).map(|n| (format!("{n:0120}").into_bytes(), vec![b'v'; 200])).collect();
        check(1024, &Buckets::from([(b"b".to_vec(), pairs)]));
    }
    for seed in seeds(40) {
        let mut rng = Rng(seed);
        // bbolt reads 4,096 bytes for its first page.
        let page_size = 1024 << rng.below(7);
        let random = random_buckets(&mut rng, page_size);
        let named =
            random.into_values().enumerate().map(|(at, pairs)| (format!("bucket{at}").into_bytes(), pairs));
        check(page_size, &named.collect());
    }
    // And it reads what was written.
    check(4096, &small_buckets());
    let key: String = (0..60).map(|_| "29").collect();
    let args =
        ["get", "--parse-format", "hex", "--format", "hex", text, "one", &format!("61206b657920{key}")];
    assert_eq!(run(&bbolt, &args).trim(), "a9");
}

#[test]
#[ignore = "needs etcdutl: cargo xtask boltfile --bbolt PATH --etcdutl PATH"]
fn etcdutl_sees_the_same_in_our_file_as_in_etcds() {
    let etcdutl = tool("QUORATE_ETCDUTL");
    let dir = tempfile::tempdir().unwrap();
    let [theirs, ours] = ["theirs", "ours"].map(|name| dir.path().join(name));
    for packed in [ETCD_3_6, ETCD_3_7, SNAPSHOT_3_7] {
        let file = unpack(packed);
        std::fs::write(&theirs, &file).unwrap();
        let buckets = read(&open(&file).unwrap()).unwrap();
        std::fs::write(&ours, write(DEFAULT_PAGE_SIZE, &buckets)).unwrap();
        seal(&ours);
        // Hash of all buckets and pairs, revision, number of keys, length, version.
        let status = [&theirs, &ours].map(|path| {
            let text = run(&etcdutl, &["snapshot", "status", "-w", "json", path.to_str().unwrap()]);
            let fields: Vec<String> = text.trim().split(',').map(str::to_owned).collect();
            fields.into_iter().filter(|field| !field.contains("totalSize")).collect::<Vec<_>>()
        });
        assert!(status[0].iter().any(|field| field.contains("hash")), "{status:?}");
        assert_eq!(status[0], status[1]);
        let restored = dir.path().join("restored");
        run(
            &etcdutl,
            &["snapshot", "restore", ours.to_str().unwrap(), "--data-dir", restored.to_str().unwrap()],
        );

        // What bbolt makes of our file is a file that we read, with the same keys.
        let made = std::fs::read(restored.join("member/snap/db")).unwrap();
        let reader = open(&made).unwrap();
        reader.check().unwrap();
        let pairs = |bucket: Option<Bucket<'_>>| {
            let (mut cursor, mut pairs) = (bucket.unwrap().cursor(), Pairs::new());
            while let Some(item) = cursor.next().unwrap() {
                pairs.insert(item.key.to_vec(), item.value.unwrap().to_vec());
            }
            pairs
        };
        assert_eq!(pairs(reader.bucket(b"key").unwrap()), buckets[&b"key"[..]]);
        std::fs::remove_dir_all(restored).unwrap();
    }
}
