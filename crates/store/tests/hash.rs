//! HashKV against figures of a real etcd.

mod support;

use std::sync::atomic::Ordering;

use store::{ReadFailure, ReadMode, request};
use support::{Member, bytes};
use wire::ApiError;
use wire::etcdserverpb::{self as pb, request_op::Request};

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put(key: &str, value: &str) -> pb::RequestOp {
    op(Request::RequestPut(pb::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }))
}

/// What etcd 3.7.1 answered to `etcdctl endpoint hashkv --rev R` after the writes below, by `etcdctl`.
const ETCD_HASHES: [(i64, u32); 10] = [
    (1, 1084519789),
    (2, 269223840),
    (5, 1474325388),
    (6, 3441405716),
    (7, 2138668833),
    (8, 279248964),
    (100, 2329190641),
    (308, 2753381543),
    (309, 1325939941),
    (311, 3952627034),
];

fn written_like_etcd() -> Member {
    let mut member = Member::new();
    for (key, value) in [("name", "john"), ("name", "jane"), ("empty", ""), ("name", "doe")] {
        member.put(key, value);
    }
    member.delete("name", "");
    member.put("name", "back");
    let delete = pb::DeleteRangeRequest { key: bytes("empty"), ..Default::default() };
    let success = vec![put("x", "1"), put("y", "2"), op(Request::RequestDeleteRange(delete)), put("w", "3")];
    member.txn(&pb::TxnRequest { success, ..Default::default() }).unwrap();
    for i in 1..=300 {
        member.put(&format!("k{}", i % 7), &format!("v{i}"));
    }
    member.delete("k", "l");
    member.delete("\0", "\0");
    assert_eq!(member.put("last", ""), 311);
    member
}

#[test]
fn hashes_are_those_of_etcd() {
    let mut member = written_like_etcd();
    for restarted in [false, true] {
        for (revision, hash) in ETCD_HASHES {
            let (got, current) = member.reader.hash_kv(revision).unwrap();
            assert_eq!(got.hash, hash, "revision {revision}, restarted {restarted}");
            assert_eq!((got.compact_revision, got.hash_revision, current), (-1, revision, 311));
        }
        assert_eq!(member.reader.hash_kv(0).unwrap().0.hash_revision, 311);
        member.restart();
    }
    assert_eq!(member.reader.hash_kv(312), Err(ReadFailure::Api(ApiError::FutureRev)));
    assert_eq!(member.reader.hash_kv(-5).map(|(got, _)| (got.hash, got.hash_revision)), Ok((1084519789, -5)));
}

#[test]
fn a_read_that_may_not_wait_says_so_and_leaves_the_body_alone() {
    let member = written_like_etcd();
    let range = request::Range { key: b"last", ..Default::default() };
    let mut body = b"before".to_vec();
    member.log.is_cold.store(true, Ordering::Relaxed);
    assert_eq!(member.reader.range(&range, ReadMode::NoWait, &mut body), Err(ReadFailure::WouldBlock));
    assert_eq!(body, b"before");
    assert_eq!(member.reader.range(&range, ReadMode::MayBlock, &mut body), Ok(311));
    // What needs no record never waits.
    let keys_only = request::Range { keys_only: true, ..range };
    assert_eq!(member.reader.range(&keys_only, ReadMode::NoWait, &mut Vec::new()), Ok(311));
    member.log.is_broken.store(true, Ordering::Relaxed);
    let failure = member.reader.range(&range, ReadMode::MayBlock, &mut Vec::new());
    assert!(matches!(failure, Err(ReadFailure::Source(_))), "{failure:?}");
}

#[test]
fn a_long_range_is_whole_and_in_order_across_chunks() {
    let mut member = Member::new();
    for i in 0..1000 {
        member.put(&format!("k{i:04}"), &format!("v{i}"));
    }
    member.delete("k0100", "k0400");
    let mut range = pb::RangeRequest { key: bytes("k"), range_end: bytes("l"), ..Default::default() };
    let got = member.range(&range).unwrap();
    let keys: Vec<_> = got.kvs.iter().map(|pair| String::from_utf8(pair.key.to_vec()).unwrap()).collect();
    let want: Vec<_> = (0..100).chain(400..1000).map(|i| format!("k{i:04}")).collect();
    assert_eq!(keys, want);
    assert_eq!((got.count, got.more), (700, false));
    range.limit = 600;
    let got = member.range(&range).unwrap();
    assert_eq!((got.kvs.len(), got.count, got.more), (600, 700, true));
    assert_eq!(got.kvs[599].key, bytes("k0899"));
    range.keys_only = true;
    range.revision = 1001;
    let got = member.range(&range).unwrap();
    assert_eq!((got.kvs.len(), got.count, got.more), (600, 1000, true));
    assert_eq!(got.kvs[599].key, bytes("k0599"));
}
