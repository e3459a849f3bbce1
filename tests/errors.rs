//! Every error that this surface can produce, over the network: its code and text, and that it changed nothing.

use blackbox::{Member, patience, run};
use bytes::Bytes;
use client::{Client, Error};
use wire::etcdserverpb::compare::{CompareResult, CompareTarget};
use wire::etcdserverpb::request_op::Request;
use wire::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use wire::{ApiError, Code, Status};

fn key() -> Bytes {
    Bytes::from_static(b"k")
}

fn put_op(key: &'static str) -> RequestOp {
    RequestOp { request: Some(Request::RequestPut(PutRequest { key: key.into(), ..Default::default() })) }
}

fn txn(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..Default::default() }
}

enum Call {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
}

/// What each request is refused with.
fn refusals() -> Vec<(&'static str, Call, Status)> {
    let range = || RangeRequest { key: key(), ..Default::default() };
    let put = || PutRequest { key: key(), ..Default::default() };
    let not_yet = |option: &str| Status::new(Code::Unimplemented, option.to_owned());
    let range_op = |revision| RequestOp {
        request: Some(Request::RequestRange(RangeRequest { key: key(), revision, ..Default::default() })),
    };
    vec![
        ("range without a key", Call::Range(RangeRequest::default()), ApiError::EmptyKey.into()),
        ("put without a key", Call::Put(PutRequest::default()), ApiError::EmptyKey.into()),
        ("delete without a key", Call::Delete(DeleteRangeRequest::default()), ApiError::EmptyKey.into()),
        (
            "compare without a key",
            Call::Txn(TxnRequest { compare: vec![Compare::default()], ..Default::default() }),
            ApiError::EmptyKey.into(),
        ),
        ("op with nothing set", Call::Txn(txn(vec![RequestOp::default()])), ApiError::KeyNotFound.into()),
        (
            "unknown sort order",
            Call::Range(RangeRequest { sort_order: 7, ..range() }),
            ApiError::InvalidSortOption.into(),
        ),
        (
            "unknown sort target",
            Call::Range(RangeRequest { sort_target: 9, ..range() }),
            ApiError::InvalidSortOption.into(),
        ),
        (
            "a revision to come",
            Call::Range(RangeRequest { revision: 1000, ..range() }),
            ApiError::FutureRev.into(),
        ),
        (
            "a revision to come, in a read-only txn",
            Call::Txn(txn(vec![range_op(1000)])),
            ApiError::FutureRev.into(),
        ),
        (
            "a revision to come, in a writing txn",
            Call::Txn(txn(vec![put_op("k"), range_op(1000)])),
            ApiError::FutureRev.into(),
        ),
        ("revision -2 in a txn", Call::Txn(txn(vec![range_op(-2)])), ApiError::Compacted.into()),
        (
            "ignore_value with a value",
            Call::Put(PutRequest { value: key(), ignore_value: true, ..put() }),
            ApiError::ValueProvided.into(),
        ),
        (
            "ignore_value of a missing key",
            Call::Put(PutRequest { key: "none".into(), ignore_value: true, ..Default::default() }),
            ApiError::KeyNotFound.into(),
        ),
        (
            "ignore_lease with a lease",
            Call::Put(PutRequest { lease: 1, ignore_lease: true, ..put() }),
            ApiError::LeaseProvided.into(),
        ),
        ("a key put twice", Call::Txn(txn(vec![put_op("a"), put_op("a")])), ApiError::DuplicateKey.into()),
        (
            "too many ops",
            Call::Txn(txn((0..129).map(|_| range_op(0)).collect())),
            ApiError::TooManyOps.into(),
        ),
        (
            "a put above --max-request-bytes",
            Call::Put(PutRequest { value: vec![0; 1_572_864].into(), ..put() }),
            ApiError::RequestTooLarge.into(),
        ),
        ("a put with a lease", Call::Put(PutRequest { lease: 7, ..put() }), not_yet("lease")),
        (
            "a put that keeps its lease",
            Call::Put(PutRequest { ignore_lease: true, ..put() }),
            not_yet("lease"),
        ),
    ]
}

async fn fingerprint(client: &Client) -> (i64, u32, u64) {
    let hash = client.hash_kv(0, patience()).await.expect("a hash");
    let status = client.status(patience()).await.expect("a status");
    (hash.hash_revision, hash.hash, status.raft_applied_index)
}

#[test]
fn every_refusal_has_its_code_and_text_and_changes_nothing() {
    let member = Member::start(&[]);
    run(async {
        let client = member.client();
        client
            .put(PutRequest { key: key(), value: key(), ..Default::default() }, patience())
            .await
            .expect("a put");
        for (name, call, expected) in refusals() {
            let (revision, hash, index) = fingerprint(&client).await;
            let is_in_log = matches!(&call, Call::Put(put) if put.ignore_value && put.value.is_empty())
                || matches!(&call, Call::Txn(txn) if expected == ApiError::FutureRev.into() && txn.success.len() > 1);
            let error = match call {
                Call::Range(request) => client.range(request, patience()).await.err(),
                Call::Put(request) => client.put(request, patience()).await.err(),
                Call::Delete(request) => client.delete_range(request, patience()).await.err(),
                Call::Txn(request) => client.txn(request, patience()).await.err(),
            };
            let Some(Error::Status(status)) = error else { panic!("{name}: {error:?}") };
            assert_eq!(status.code, expected.code, "{name}: {status}");
            match expected.code {
                Code::Unimplemented => {
                    assert!(status.message.contains(&*expected.message), "{name}: {status}")
                }
                _ => assert_eq!(status.message, expected.message, "{name}"),
            }
            let (revision_after, hash_after, index_after) = fingerprint(&client).await;
            assert_eq!((revision_after, hash_after), (revision, hash), "{name} changed something");
            // What only apply can find is in the log, as in etcd; the rest never gets there.
            assert_eq!(index_after, index + u64::from(is_in_log), "{name}");
        }
    });
}

#[test]
fn a_compare_that_does_not_hold_is_no_error() {
    let member = Member::start(&[]);
    run(async {
        let compare = Compare {
            key: key(),
            target: CompareTarget::Version.into(),
            result: CompareResult::Greater.into(),
            ..Default::default()
        };
        let request = TxnRequest { compare: vec![compare], success: vec![put_op("k")], failure: Vec::new() };
        let answer = member.client().txn(request, patience()).await.expect("an answer");
        assert!(!answer.succeeded);
        assert_eq!(answer.header.expect("a header").revision, 1, "nothing was written");
    });
}
