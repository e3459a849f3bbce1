//! Rules 9 and 10: readers on threads of their own see whole revisions, and never an older one than before.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use store::{Answer, CompactionStep, ReadMode, request};
use support::{Member, bytes, response};
use wire::etcdserverpb::{self as pb, request_op::Request};

const KEYS: usize = 700;
const ROUNDS: usize = 60;

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// Every key gets the round's number, and one key more is deleted and put again: all in one revision.
fn round(n: usize) -> pb::TxnRequest {
    let put = |i: usize| {
        let (key, value) = (bytes(&format!("k{i:04}")), bytes(&n.to_string()));
        op(Request::RequestPut(pb::PutRequest { key, value, ..Default::default() }))
    };
    pb::TxnRequest { success: (0..KEYS).map(put).collect(), ..Default::default() }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the readers' threads belong to the test")]
fn readers_see_whole_revisions_while_batches_are_applied() {
    let mut member = Member::new();
    member.txn(&round(0)).unwrap();
    let done = AtomicBool::new(false);
    let reader = member.reader.clone();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|thread| {
                let (reader, done) = (reader.clone(), &done);
                scope.spawn(move || {
                    let (mut last, mut reads) = (0, 0);
                    while !done.load(Ordering::Acquire) || reads == 0 {
                        last = read_all(&reader, last, thread);
                        reads += 1;
                    }
                })
            })
            .collect();
        for n in 1..ROUNDS {
            member.txn(&round(n)).unwrap();
            if n % 5 == 0 {
                // Two revisions in one batch; the first one empties the store, so nobody may see it.
                member.delete_and_put_again(n);
            }
        }
        done.store(true, Ordering::Release);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

/// Every round is compacted away as soon as the next is there, while readers are in the midst of it.
#[test]
#[allow(clippy::disallowed_methods, reason = "the readers' threads belong to the test")]
fn readers_miss_nothing_while_compactions_drop_what_they_read() {
    let mut member = Member::new();
    member.txn(&round(0)).unwrap();
    let done = AtomicBool::new(false);
    let reader = member.reader.clone();
    std::thread::scope(|scope| {
        let spans: Vec<_> = (0..2)
            .map(|thread| {
                let (reader, done) = (reader.clone(), &done);
                scope.spawn(move || {
                    let mut last = 0;
                    while !done.load(Ordering::Acquire) {
                        last = read_all(&reader, last, thread);
                    }
                })
            })
            .collect();
        let point = {
            let (reader, done) = (reader.clone(), &done);
            scope.spawn(move || {
                let range = request::Range { key: b"k0350", ..Default::default() };
                while !done.load(Ordering::Acquire) {
                    let mut body = Vec::new();
                    let revision = reader.range(&range, ReadMode::NoWait, &mut body).unwrap();
                    let got: pb::RangeResponse = response(&Answer { revision, body });
                    assert_eq!(got.kvs.len(), 1, "at revision {revision}");
                }
            })
        };
        for n in 1..ROUNDS {
            member.txn(&round(n)).unwrap();
            member.compact(member.store.revision()).unwrap();
            while !member.compactor.is_idle() {
                if member.compactor.step().unwrap() == CompactionStep::Waiting {
                    std::thread::yield_now();
                }
            }
        }
        done.store(true, Ordering::Release);
        spans.into_iter().chain([point]).for_each(|reader| reader.join().unwrap());
    });
    member.store.check();
}

/// Reads all keys; they must all be of one round. Returns the revision.
fn read_all(reader: &store::Reader, last: i64, thread: usize) -> i64 {
    let span = request::Range { key: b"k", range_end: b"l", ..Default::default() };
    let mut body = Vec::new();
    let revision = reader.range(&span, ReadMode::NoWait, &mut body).unwrap();
    assert!(revision >= last, "thread {thread}: {revision} after {last}");
    let got: pb::RangeResponse = response(&Answer { revision, body });
    assert_eq!(got.kvs.len(), KEYS, "thread {thread} at {revision}");
    assert!(
        got.kvs.iter().all(|pair| pair.value == got.kvs[0].value),
        "thread {thread} at {revision}: half a write"
    );
    assert!(got.kvs.iter().all(|pair| pair.mod_revision == revision), "thread {thread} at {revision}");
    revision
}

impl Member {
    fn delete_and_put_again(&mut self, n: usize) {
        let delete = pb::DeleteRangeRequest { key: bytes("k"), range_end: bytes("l"), prev_kv: false };
        self.apply(pb::InternalRaftRequest { delete_range: Some(delete), ..Default::default() }, false)
            .result
            .unwrap();
        self.txn(&round(n)).unwrap();
    }
}
