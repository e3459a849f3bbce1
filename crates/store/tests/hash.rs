//! HashKV against figures of a real etcd.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use store::{CompactionStep, KvHash, Pace, ReadFailure, ReadMode, request};
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

/// How often a read may still go on.
struct Steps(std::sync::atomic::AtomicUsize);

impl store::Pace for Steps {
    fn go_on(&self, _: usize) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

#[test]
fn a_read_is_brief_where_it_was_told_so_and_ends_when_nobody_waits() {
    let mut member = Member::new();
    for i in 0..6000 {
        member.put(&format!("small/{i:04}"), "v");
    }
    for i in 0..20 {
        member.put(&format!("large/{i:02}"), &"v".repeat(100_000));
    }
    let small = request::Range { key: b"small/", range_end: b"small0", ..Default::default() };
    let large = request::Range { key: b"large/", range_end: b"large0", ..Default::default() };
    let read = |range: &request::Range<'_>, mode| {
        let mut body = b"before".to_vec();
        let result = member.reader.range(range, mode, &mut body);
        assert!(result.is_ok() || body == b"before");
        result.map(|_| ())
    };
    // Many keys with little in them may be a short read, and are; many bytes never.
    assert_eq!(read(&small, ReadMode::NoWait), Err(ReadFailure::WouldBlock));
    assert_eq!(read(&small, ReadMode::Brief), Ok(()));
    for mode in [ReadMode::NoWait, ReadMode::Brief] {
        assert_eq!(read(&large, mode), Err(ReadFailure::Long));
    }
    member.log.is_cold.store(true, Ordering::Relaxed);
    let few = request::Range { limit: 3, ..large };
    assert_eq!(read(&few, ReadMode::NoWait), Err(ReadFailure::WouldBlock));
    assert_eq!(read(&few, ReadMode::Brief), Ok(()));
    assert_eq!(read(&large, ReadMode::MayBlock), Ok(()));
    // One look at the keys, 20 records.
    for (steps, want) in [(0, false), (10, false), (20, false), (21, true)] {
        let reader = member.reader.paced(std::sync::Arc::new(Steps(steps.into())));
        let result = reader.range(&large, ReadMode::MayBlock, &mut Vec::new()).map(|_| ());
        assert_eq!(result, if want { Ok(()) } else { Err(ReadFailure::Gone) }, "{steps} steps");
    }
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

/// What etcd 3.7.1 answered to `etcdctl endpoint hashkv` while the writes and physical compactions below were made by
/// `etcdctl`: the revision asked for, then hash, compacted revision and hashed revision of the answer.
type Answered = (i64, (u32, i64, i64));

fn compacted_like_etcd(member: &mut Member, background: bool, mut same: impl FnMut(&Member, &[Answered])) {
    let compact = |member: &mut Member, revision| {
        member.compact(revision).unwrap();
        if background {
            member.finish_compactions();
        }
    };
    for (key, value) in [("name", "john"), ("name", "jane"), ("empty", ""), ("name", "doe")] {
        member.put(key, value);
    }
    member.delete("name", "");
    member.put("name", "back");
    let delete = pb::DeleteRangeRequest { key: bytes("empty"), ..Default::default() };
    let success = vec![put("x", "1"), put("y", "2"), op(Request::RequestDeleteRange(delete)), put("w", "3")];
    member.txn(&pb::TxnRequest { success, ..Default::default() }).unwrap();
    for i in 1..=10 {
        member.put(&format!("k{}", i % 3), &format!("v{i}"));
    }
    member.delete("k0", "");
    member.delete("x", "");
    let at_compactions: [(i64, &[Answered]); 5] = [
        (6, &[(6, (3441405716, -1, 6)), (20, (2712590430, 6, 20)), (0, (2712590430, 6, 20))]),
        (8, &[(8, (1927324133, 6, 8)), (20, (2530182402, 8, 20))]),
        (15, &[(15, (3623208907, 8, 15)), (20, (2316494845, 15, 20))]),
        (19, &[(19, (4170097444, 15, 19)), (20, (4057347435, 19, 20))]),
        (20, &[(20, (4057347435, 19, 20)), (0, (1599598441, 20, 20))]),
    ];
    for (revision, answers) in at_compactions {
        compact(member, revision);
        same(member, answers);
    }
    // Nothing is kept: what the last compaction left counts.
    member.delete("\0", "\0");
    same(member, &[(21, (2066490215, 20, 21)), (0, (2066490215, 20, 21))]);
    member.put("last", "1");
    member.delete("last", "");
    same(member, &[(23, (2892847973, 20, 23))]);
    // Only the tombstone at the compacted revision is kept.
    compact(member, 23);
    same(member, &[(23, (3446260081, 20, 23)), (0, (1084519789, 23, 23))]);
    for key in ["again", "b"] {
        member.put(key, "1");
        member.delete(key, "");
    }
    compact(member, 25);
    same(member, &[(25, (3397734876, 23, 25)), (26, (2619108529, 25, 26)), (0, (3748501550, 25, 27))]);
}

#[test]
fn hashes_around_compactions_are_those_of_etcd() {
    let mut member = Member::new();
    compacted_like_etcd(&mut member, true, |member, answers| {
        for (revision, want) in answers {
            let (got, _) = member.reader.hash_kv(*revision).unwrap();
            assert_eq!((got.hash, got.compact_revision, got.hash_revision), *want, "revision {revision}");
        }
    });
}

/// Of a key that is deleted and put again in one revision etcd keeps nothing there, so what was compacted counts.
/// (etcd 3.7.1's answer.)
#[test]
fn a_key_that_is_deleted_and_put_in_one_revision_is_not_kept_there() {
    let mut member = Member::new();
    for (key, value) in [("a", "1"), ("a", "2"), ("b", "1")] {
        member.put(key, value);
    }
    member.compact(4).unwrap();
    member.finish_compactions();
    let delete = pb::DeleteRangeRequest { key: bytes("a"), range_end: bytes("\0"), ..Default::default() };
    let success = vec![op(Request::RequestDeleteRange(delete)), put("a", "3")];
    member.txn(&pb::TxnRequest { success, ..Default::default() }).unwrap();
    let (got, current) = member.reader.hash_kv(5).unwrap();
    assert_eq!((got.hash, got.compact_revision, got.hash_revision, current), (1746607079, 4, 5, 5));
}

/// While the background work waits, and after a restart, hashes are those of a finished compaction; only the
/// compaction's own, under its revision, is missing.
#[test]
fn hashes_do_not_show_how_far_a_compaction_has_come() {
    let compare = |member: &Member, answers: &[Answered]| {
        for (revision, want) in
            answers.iter().filter(|(_, (_, compacted, _))| *compacted == member.reader.compacted())
        {
            let (got, _) = member.reader.hash_kv(*revision).unwrap();
            assert_eq!((got.hash, got.compact_revision, got.hash_revision), *want, "revision {revision}");
        }
    };
    let mut member = Member::new();
    compacted_like_etcd(&mut member, false, compare);
    let last = [(26, (2619108529, 25, 26)), (0, (3748501550, 25, 27))];
    member.restart();
    compare(&member, &last);
    assert_eq!(member.reader.hash_kv(23), Err(ReadFailure::Api(ApiError::Compacted)), "a restart forgets");
    member.finish_compactions();
    compare(&member, &last);
    assert_eq!(member.reader.finished_compaction(), 25);
}

#[test]
fn a_compaction_whose_hash_cannot_be_made_goes_on_without() {
    let mut member = Member::new();
    for value in ["1", "2", "3"] {
        member.put("k", value);
    }
    member.compact(3).unwrap();
    member.log.is_broken.store(true, Ordering::Relaxed);
    let mut steps = Vec::new();
    while !member.compactor.is_idle() {
        steps.push(member.compactor.step());
    }
    assert_eq!(steps.iter().filter(|step| step.is_err()).count(), 1, "said once: {steps:?}");
    let Some(Ok(CompactionStep::Finished(finished))) = steps.last() else { panic!("{steps:?}") };
    assert_eq!((finished.revision, finished.hash, finished.dropped), (3, None, 1));
}

/// Compactions without end, one a revision: what waits is bounded, and only hashes are lost by it.
#[test]
fn compactions_that_pile_up_become_one() {
    let mut member = Member::new();
    for i in 0..60 {
        member.put("k", &i.to_string());
    }
    for revision in 2..=60 {
        member.compact(revision).unwrap();
    }
    member.finish_compactions();
    assert_eq!(member.reader.finished_compaction(), 60);
    let kept = |revision| member.reader.hash_kv(revision).map(|(hash, _)| hash.compact_revision);
    assert_eq!(kept(16), Ok(15), "the first ones are worked on one by one");
    assert_eq!(kept(59), Err(ReadFailure::Api(ApiError::Compacted)), "those behind are not");
    assert_eq!(kept(60), Ok(60), "so this one is computed");
}

/// Steps until one is not about reading for a hash: how the compaction at `revision` ended.
fn hash_of(member: &mut Member, revision: i64) -> Option<KvHash> {
    let mut given_up = Vec::new();
    loop {
        match member.compactor.step().unwrap() {
            CompactionStep::Finished(finished) => {
                assert_eq!(finished.revision, revision);
                assert_eq!(given_up.is_empty(), finished.hash.is_some(), "told: {given_up:?}");
                return finished.hash;
            }
            CompactionStep::HashGivenUp(given) => given_up.push(given),
            CompactionStep::Working | CompactionStep::Hashed(_) | CompactionStep::Waiting => {}
            CompactionStep::Idle => panic!("it does not end"),
        }
    }
}

/// Of a store whose hashes take long only the newest compaction's is made where they come fast; nothing is dropped late for
/// it, and each that is given up is told. Of a small one all are made.
#[test]
fn a_hash_is_given_up_when_the_next_compaction_is_there_before_it_is_made() {
    for (bytes, is_large) in [(1 << 10, false), (1 << 20, true)] {
        let mut member = Member::new();
        let value = "v".repeat(bytes);
        for n in 0..20 {
            member.put(&format!("k{n}"), &value);
        }
        member.put("k0", "w");
        for revision in [19, 20, 21] {
            member.compact(revision).unwrap();
        }
        assert_eq!(hash_of(&mut member, 19).is_none(), is_large);
        assert_eq!(hash_of(&mut member, 20).is_none(), is_large);
        let last = hash_of(&mut member, 21).expect("nothing comes after it");
        assert_eq!((last.hash_revision, last.compact_revision), (21, 20));
        let kept: Vec<i64> =
            member.reader.compaction_hashes().iter().map(|hash| hash.hash_revision).collect();
        let expected: &[i64] = if is_large { &[21] } else { &[19, 20, 21] };
        assert_eq!(kept, expected);
    }
}

/// Counts what is read, and ends it.
#[derive(Default)]
struct Patience {
    bytes: AtomicUsize,
    bytes_max: Option<usize>,
}

impl Pace for Patience {
    fn go_on(&self, bytes: usize) -> bool {
        let read = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes_max.is_none_or(|max| read < max)
    }
}

#[test]
fn a_hash_tells_what_it_reads_and_ends_when_nobody_waits_for_it() {
    let mut member = Member::new();
    for n in 0..64 {
        member.put(&format!("k{n}"), &"v".repeat(100_000));
    }
    let patience = Arc::new(Patience::default());
    let paced = member.reader.paced(patience.clone()).hash_kv(0);
    assert_eq!(paced, member.reader.hash_kv(0));
    let bytes = patience.bytes.load(Ordering::Relaxed);
    assert!((6_000_000..6_500_000).contains(&bytes), "{bytes}");

    let impatient = Arc::new(Patience { bytes_max: Some(1_000_000), ..Patience::default() });
    assert_eq!(member.reader.paced(impatient.clone()).hash_kv(0), Err(ReadFailure::Gone));
    assert!(impatient.bytes.load(Ordering::Relaxed) < 1_500_000, "soon");
}

#[test]
fn the_revision_does_not_fall_below_the_compacted_one() {
    let mut member = Member::new();
    member.put("k", "1");
    member.delete("k", "");
    member.compact(3).unwrap();
    // As after a merge that had nothing left to keep.
    member.log.records.write().unwrap().clear();
    member.restart();
    assert_eq!((member.reader.revision(), member.reader.compacted()), (3, 3));
    assert_eq!(member.put("k", "2"), 4);
}

#[test]
fn a_stream_comes_in_chunks_of_a_size() {
    use store::{RangeStream, StreamChunk};
    let mut member = Member::new();
    for i in 0..200 {
        member.put(&format!("small/{i:03}"), "v");
        member.put(&format!("large/{i:03}"), &"v".repeat(1000));
    }
    for i in 0..10 {
        member.put(&format!("huge/{i}"), &"v".repeat(500_000));
    }
    for (prefix, end, limit, want) in [
        ("small/", "small0", 0, vec![10, 20, 40, 80, 50]),
        ("small/", "small0", 45, vec![10, 20, 15]),
        ("small/", "small0", 5, vec![5]),
        ("large/", "large0", 0, vec![10, 5, 5, 5]),
        // Above 2 MiB no chunk goes beyond twice the target, the first one neither.
        ("huge/", "huge0", 0, vec![4, 4, 2]),
        ("none/", "none0", 0, vec![0]),
    ] {
        let range =
            request::Range { key: prefix.as_bytes(), range_end: end.as_bytes(), limit, ..Default::default() };
        let target = match prefix {
            "large/" => 4000,
            "huge/" => 1 << 20,
            _ => 64000,
        };
        let mut stream = RangeStream::new(&range, target);
        let mut sizes = Vec::new();
        let mut is_last = false;
        while !is_last && sizes.len() < 10 {
            let mut body = Vec::new();
            let chunk = stream.next(&member.reader, ReadMode::MayBlock, &mut body).unwrap();
            is_last = matches!(chunk, StreamChunk::Last(411));
            sizes
                .push(support::response::<pb::RangeResponse>(&store::Answer { revision: 0, body }).kvs.len());
        }
        assert_eq!(sizes[..want.len()], want, "{prefix} limit {limit}");
    }
}

/// Chunks are read one by one: one that lies behind a compaction ends the stream, and nothing is held for it.
#[test]
fn a_stream_ends_where_it_is_compacted() {
    use store::{RangeStream, StreamChunk};
    let mut member = Member::new();
    for i in 0..40 {
        member.put(&format!("k{i:02}"), "v");
    }
    let range = request::Range { key: b"k", range_end: b"l", ..Default::default() };
    let mut stream = RangeStream::new(&range, 1 << 20);
    let chunk = stream.next(&member.reader, ReadMode::NoWait, &mut Vec::new());
    assert_eq!(chunk, Ok(StreamChunk::Next));
    let newest = member.put("k05", "changed");
    member.compact(newest - 1).unwrap();
    member.finish_compactions();
    assert_eq!(stream.clone().next(&member.reader, ReadMode::NoWait, &mut Vec::new()), Ok(StreamChunk::Next));
    member.compact(newest).unwrap();
    let mut body = b"before".to_vec();
    let ended = stream.next(&member.reader, ReadMode::NoWait, &mut body);
    assert_eq!(ended, Err(ReadFailure::Api(ApiError::Compacted)));
    assert_eq!(body, b"before");
}
