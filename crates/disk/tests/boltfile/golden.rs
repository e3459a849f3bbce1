//! Files that etcd and bbolt wrote. The texts beside them, with all buckets and pairs, were written by a program of
//! bbolt 1.5.0 from the same files.

use disk::boltfile::Summary;

use crate::harness::{dump, open};
use crate::packed::{pack, unpack};

/// Sixty puts, a deletion, a lease, a compaction.
pub const ETCD_3_4: &[u8] = include_bytes!("../golden/boltfile/etcd-3.4.23.db.packed");
/// Puts (an empty value and a large one among them), leases, deletions, a transaction, a compaction, a learner removed
/// and another added, a downgrade begun and cancelled, users and roles, NOSPACE.
pub const ETCD_3_6: &[u8] = include_bytes!("../golden/boltfile/etcd-3.6.9.db.packed");
/// The same by etcd 3.7.1.
pub const ETCD_3_7: &[u8] = include_bytes!("../golden/boltfile/etcd-3.7.1.db.packed");
/// A snapshot that etcdctl saved from that member, with its SHA-256 behind it.
pub const SNAPSHOT_3_7: &[u8] = include_bytes!("../golden/boltfile/etcd-3.7.1-snapshot.db.packed");
/// Written by bbolt 1.3.12 itself: pages of 1,024 bytes, a stored freelist, buckets in buckets, inline and not.
pub const NESTED: &[u8] = include_bytes!("../golden/boltfile/bbolt-1.3.12-nested.db.packed");

#[test]
fn etcd_files_read_as_bbolt_reads_them() {
    let texts = [
        (ETCD_3_4, include_str!("../golden/boltfile/etcd-3.4.23.txt")),
        (ETCD_3_6, include_str!("../golden/boltfile/etcd-3.6.9.txt")),
        (ETCD_3_7, include_str!("../golden/boltfile/etcd-3.7.1.txt")),
        (SNAPSHOT_3_7, include_str!("../golden/boltfile/etcd-3.7.1.txt")),
        (NESTED, include_str!("../golden/boltfile/bbolt-1.3.12-nested.txt")),
    ];
    for (packed, text) in texts {
        let reader = open(&unpack(packed)).unwrap();
        assert_eq!(reader.lost_meta(), None);
        let summary = reader.check().unwrap();
        assert_eq!(dump(&reader), text);
        let lines = text.lines().filter(|line| line.contains(" = ")).count();
        assert_eq!(summary.pairs, lines as u64);
        assert_eq!(summary.buckets as usize, text.lines().count() - lines);
    }
}

/// The numbers that `bbolt pages` and `bbolt check` told of the same files.
#[test]
fn every_page_is_accounted_for() {
    let reader = open(&unpack(ETCD_3_7)).unwrap();
    assert_eq!((reader.page_size(), reader.pages()), (4096, 14));
    let summary = reader.check().unwrap();
    let expected = Summary {
        leaf_pages: 4,
        branch_pages: 1,
        overflow_pages: 2,
        freelist_pages: 0,
        free_pages: 5,
        depth: 2,
        buckets: 10,
        inline_buckets: 9,
        ..summary
    };
    assert_eq!(summary, expected);

    let reader = open(&unpack(NESTED)).unwrap();
    assert_eq!(reader.page_size(), 1024);
    let summary = reader.check().unwrap();
    let found = (summary.leaf_pages, summary.branch_pages, summary.freelist_pages, summary.free_pages);
    assert_eq!(found, (34, 2, 1, 39));
    assert_eq!((summary.buckets, summary.inline_buckets), (7, 3));
}

/// Every key is found by itself, and what is not there is not.
#[test]
fn lookups() {
    let reader = open(&unpack(ETCD_3_7)).unwrap();
    let mut names = reader.root().cursor();
    while let Some(item) = names.next().unwrap() {
        let name = item.key.to_vec();
        let bucket = reader.bucket(&name).unwrap().unwrap();
        let mut cursor = bucket.cursor();
        while let Some(item) = cursor.next().unwrap() {
            assert_eq!(reader.get(&name, item.key).unwrap().as_deref(), item.value);
            let beside = [item.key, b"\0"].concat();
            assert_eq!(bucket.get(&beside).unwrap(), None);
            assert!(reader.bucket(&beside).unwrap().is_none());
        }
        assert_eq!(bucket.get(b"").unwrap(), None);
        assert_eq!(bucket.get(&[0xff; 40]).unwrap(), None);
    }
    assert_eq!(reader.get(b"no bucket", b"key").unwrap(), None);

    let reader = open(&unpack(NESTED)).unwrap();
    let outer = reader.bucket(b"outer").unwrap().unwrap();
    assert_eq!(outer.get(b"pair").unwrap().unwrap(), b"beside buckets");
    assert_eq!(outer.get(b"inline").unwrap(), None, "a bucket is no value");
    assert!(outer.bucket(b"pair").unwrap().is_none(), "a value is no bucket");
    let inline = outer.bucket(b"inline").unwrap().unwrap();
    assert_eq!((inline.sequence(), inline.get(b"b").unwrap()), (12, Some(Vec::new())));
}

/// A cursor begins anywhere, and as often as one likes.
#[test]
fn seeks() {
    let reader = open(&unpack(NESTED)).unwrap();
    let bucket = reader.bucket(b"flat").unwrap().unwrap();
    let mut keys = Vec::new();
    let mut cursor = bucket.cursor();
    while let Some(item) = cursor.next().unwrap() {
        keys.push(item.key.to_vec());
    }
    for (at, key) in keys.iter().enumerate() {
        let mut before = key.clone();
        *before.last_mut().unwrap() -= 1;
        before.push(0xff);
        for from in [key, &before] {
            cursor.seek(from).unwrap();
            for expected in keys[at..].iter().take(50) {
                assert_eq!(cursor.next().unwrap().unwrap().key, expected);
            }
        }
    }
    cursor.seek(b"zzz").unwrap();
    assert_eq!(cursor.next().unwrap(), None);
    assert_eq!(cursor.next().unwrap(), None);
}

/// Adds a golden file: `BOLTFILE_PACK=PATH cargo test -p quorate-disk --test boltfile pack_a_file -- --ignored` writes
/// `PATH.packed`.
#[test]
#[ignore = "a tool: BOLTFILE_PACK names a database file"]
fn pack_a_file() {
    let path = std::env::var("BOLTFILE_PACK").expect("BOLTFILE_PACK is the path of a database file");
    let file = std::fs::read(&path).unwrap();
    std::fs::write(format!("{path}.packed"), pack(&file)).unwrap();
}

#[test]
fn packing_loses_nothing() {
    for packed in [ETCD_3_4, ETCD_3_6, ETCD_3_7, SNAPSHOT_3_7, NESTED] {
        assert_eq!(pack(&unpack(packed)), packed);
    }
}
