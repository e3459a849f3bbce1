//! What is refused before it is proposed, by tables; and that nothing admitted can stop a member.

mod support;

use proptest::prelude::*;
use prost::Message as _;
use store::request::{self, DecodeError};
use store::{Caller, admission};
use support::bytes;
use support::fuzz::{fuzz_admitted, fuzz_entry, fuzz_range, fuzz_requests};
use wire::etcdserverpb::{self as pb, request_op::Request};
use wire::{ApiError, RequestLimits, Status};

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put(key: &str) -> pb::RequestOp {
    op(Request::RequestPut(pb::PutRequest { key: bytes(key), value: bytes("1"), ..Default::default() }))
}

fn delete(key: &str, end: &str) -> pb::RequestOp {
    let request = pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(end), prev_kv: false };
    op(Request::RequestDeleteRange(request))
}

fn range(key: &str, end: &str) -> pb::RequestOp {
    op(Request::RequestRange(pb::RangeRequest {
        key: bytes(key),
        range_end: bytes(end),
        ..Default::default()
    }))
}

fn txn(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { compare: vec![], success, failure }
}

fn then(success: Vec<pb::RequestOp>) -> pb::RequestOp {
    op(Request::RequestTxn(txn(success, vec![])))
}

fn then_else(success: pb::RequestOp, failure: pb::RequestOp) -> pb::RequestOp {
    op(Request::RequestTxn(txn(vec![success], vec![failure])))
}

fn check(txn: &pb::TxnRequest, txn_ops_max: u32) -> Result<(), Status> {
    let limits = RequestLimits { txn_ops_max, ..RequestLimits::DEFAULT };
    let encoded = txn.encode_to_vec();
    admission::check_txn(&request::Txn::decode(&encoded).unwrap(), &limits)
}

#[test]
fn one_key_is_not_changed_twice() {
    let (k, l) = (|| put("k"), || put("l"));
    let (del_k, del_all) = (|| delete("k", ""), || delete("a", "z"));
    let cases: Vec<(&str, Vec<pb::RequestOp>, bool)> = vec![
        ("two puts of one key", vec![k(), k()], true),
        ("puts of two keys", vec![k(), l()], false),
        ("put, then delete of the key", vec![k(), del_k()], true),
        ("delete, then put of the key", vec![del_k(), k()], true),
        ("put in a deleted range", vec![del_all(), k()], true),
        ("put before its range is deleted", vec![k(), del_all()], true),
        ("put at the end of a deleted range", vec![delete("a", "k"), k()], false),
        ("put at the start of a deleted range", vec![delete("k", "l"), k()], true),
        ("put after a deleted key", vec![del_k(), put("k\0")], false),
        ("two deletes of one key", vec![del_k(), del_k()], false),
        ("overlapping deletes", vec![del_all(), del_k(), delete("b", "m")], false),
        ("put and range of one key", vec![k(), range("k", ""), range("a", "z")], false),
        ("a range whose end is below its start", vec![delete("z", "a"), k()], false),
        ("quirk: an open deleted range covers nothing", vec![delete("a", "\0"), k()], false),
        ("quirk: a delete of every key covers nothing", vec![delete("\0", "\0"), k()], false),
        ("put, and nested put of the key", vec![k(), then(vec![k()])], true),
        ("nested put, and put of the key", vec![then(vec![k()]), k()], true),
        ("put, and nested else put of the key", vec![k(), then_else(l(), k())], true),
        ("nested put in a deleted range", vec![del_all(), then(vec![k()])], true),
        ("nested put, and a delete after it", vec![then(vec![k()]), del_k()], true),
        ("nested else put in a deleted range", vec![then_else(put("0"), k()), del_all()], true),
        ("put, and nested delete of the key", vec![k(), then(vec![del_k()])], true),
        ("nested delete, and put of the key", vec![then(vec![del_k()]), k()], true),
        ("two puts of one key within", vec![then(vec![k(), k()])], true),
        ("put and delete of one key within", vec![then(vec![del_all(), k()])], true),
        ("puts in two nested transactions", vec![then(vec![k()]), then(vec![k()])], true),
        ("nested else put, and put in the next", vec![then_else(l(), k()), then(vec![k()])], true),
        ("then and else within put the same key", vec![then_else(k(), k())], false),
        ("then puts and else deletes the same key", vec![then_else(k(), del_k())], false),
        ("then deletes and else puts the same key", vec![then_else(del_k(), k())], false),
        ("nested delete, then put in the next", vec![then(vec![del_k()]), then(vec![k()])], true),
        ("quirk: nested put, then delete in the next", vec![then(vec![k()]), then(vec![del_k()])], false),
        ("put two levels down and at the top", vec![k(), then(vec![then(vec![k()])])], true),
        ("delete two levels down and put at the top", vec![then(vec![then(vec![del_all()])]), k()], true),
        ("put two levels down, delete one level down", vec![then(vec![del_k(), then(vec![k()])])], true),
        ("put two levels down in both branches", vec![then_else(then(vec![k()]), then(vec![k()]))], false),
    ];
    for (name, ops, refused) in cases {
        let want = if refused { Err(ApiError::DuplicateKey.into()) } else { Ok(()) };
        assert_eq!(check(&txn(ops.clone(), vec![]), 128), want, "{name}, then");
        assert_eq!(check(&txn(vec![], ops), 128), want, "{name}, else");
    }
    assert_eq!(check(&txn(vec![k()], vec![k()]), 128), Ok(()), "then and else may put the same key");
    let faults = txn(vec![k(), k(), range("", "")], vec![]);
    assert_eq!(check(&faults, 128), Err(ApiError::EmptyKey.into()), "other faults come first");
}

fn puts(n: usize, prefix: &str) -> Vec<pb::RequestOp> {
    (0..n).map(|i| put(&format!("{prefix}{i}"))).collect()
}

/// `n` levels with one op on each.
fn deep(n: usize, innermost: pb::RequestOp) -> pb::TxnRequest {
    (1..n).fold(txn(vec![innermost], vec![]), |inner, _| txn(vec![op(Request::RequestTxn(inner))], vec![]))
}

#[test]
fn a_transaction_has_a_limited_number_of_operations() {
    let compares = |n: usize| vec![pb::Compare { key: bytes("gone"), ..Default::default() }; n];
    let within =
        |compare, success| op(Request::RequestTxn(pb::TxnRequest { compare, success, failure: vec![] }));
    let parent = |n: usize, nested: pb::RequestOp| txn([puts(n - 1, "k"), vec![nested]].concat(), vec![]);
    for limit in [128, 5] {
        let cases = [
            ("then at the limit", txn(puts(limit, "k"), vec![]), false),
            ("then above", txn(puts(limit + 1, "k"), vec![]), true),
            ("else at the limit", txn(vec![], puts(limit, "k")), false),
            ("else above", txn(vec![], puts(limit + 1, "k")), true),
            (
                "compares at the limit",
                pb::TxnRequest { compare: compares(limit), ..Default::default() },
                false,
            ),
            ("compares above", pb::TxnRequest { compare: compares(limit + 1), ..Default::default() }, true),
            ("nested, sum at the limit", parent(3, within(vec![], puts(limit - 3, "n"))), false),
            ("nested, sum above", parent(3, within(vec![], puts(limit - 2, "n"))), true),
            ("an empty nested one in a full parent", parent(limit, within(vec![], vec![])), false),
            ("one nested op in a full parent", parent(limit, within(vec![], puts(1, "n"))), true),
            ("nested compares count", parent(limit, within(compares(1), vec![])), true),
            ("the other branch counts", txn(vec![then(puts(1, "n"))], puts(limit, "k")), true),
            (
                "siblings do not add up",
                txn(vec![within(vec![], puts(limit - 2, "n")), within(compares(limit - 2), vec![])], vec![]),
                false,
            ),
            ("one op per level at the limit", deep(limit, range("k", "")), false),
            ("one op per level above", deep(limit + 1, range("k", "")), true),
            ("too many comes before no key", txn(vec![range("", ""); limit + 1], vec![]), true),
        ];
        for (name, txn, refused) in cases {
            let want = if refused { Err(ApiError::TooManyOps.into()) } else { Ok(()) };
            assert_eq!(check(&txn, limit as u32), want, "limit {limit}, {name}");
        }
    }
}

#[test]
fn each_request_is_checked_by_itself() {
    let get = request::Range { key: b"k", ..Default::default() };
    let put = request::Put { key: b"k", value: b"v", ..Default::default() };
    let refused = |error: ApiError| Err(Status::from(error));
    assert_eq!(admission::check_range(&get), Ok(()));
    assert_eq!(admission::check_range(&request::Range { key: b"", ..get }), refused(ApiError::EmptyKey));
    for (sort_order, sort_target) in [(3, 0), (-1, 0), (0, 5), (0, -1)] {
        let range = request::Range { sort_order, sort_target, ..get };
        assert_eq!(admission::check_range(&range), refused(ApiError::InvalidSortOption));
    }
    assert_eq!(admission::check_put(&put), Ok(()));
    assert_eq!(admission::check_put(&request::Put { key: b"", ..put }), refused(ApiError::EmptyKey));
    let keeps_value = request::Put { ignore_value: true, ..put };
    assert_eq!(admission::check_put(&keeps_value), refused(ApiError::ValueProvided));
    assert_eq!(admission::check_put(&request::Put { value: b"", ..keeps_value }), Ok(()));
    let keeps_lease = request::Put { ignore_lease: true, ..put };
    assert_eq!(
        admission::check_put(&request::Put { lease: 7, ..keeps_lease }),
        refused(ApiError::LeaseProvided)
    );
    for lease in [7, -7] {
        assert_eq!(admission::check_put(&request::Put { lease, ..put }), Ok(()));
    }
    let streamed =
        |range: request::Range<'_>| admission::check_range_stream(&range).map_err(|status| status.message);
    let [sorts, filters] = ["custom sort orders", "revision filters"]
        .map(|what| Err(format!("RangeStream does not support {what}").into()));
    for (range, want) in [
        (get, Ok(())),
        (request::Range { sort_order: 1, ..get }, Ok(())),
        (request::Range { sort_target: 4, ..get }, Ok(())),
        (request::Range { sort_order: 2, min_mod_revision: 1, ..get }, sorts.clone()),
        (request::Range { sort_order: 1, sort_target: 4, ..get }, sorts),
        (request::Range { max_create_revision: 1, ..get }, filters),
    ] {
        assert_eq!(streamed(range), want, "{range:?}");
    }
    let delete = request::DeleteRange::default();
    assert_eq!(admission::check_delete_range(&delete), refused(ApiError::EmptyKey));
    assert_eq!(check(&txn(vec![pb::RequestOp { request: None }], vec![]), 9), refused(ApiError::KeyNotFound));
    let limits = RequestLimits { request_bytes_max: 10, ..RequestLimits::DEFAULT };
    assert_eq!(admission::check_size(&[0; 10], &limits), Ok(()));
    assert_eq!(admission::check_size(&[0; 11], &limits), refused(ApiError::RequestTooLarge));
}

#[test]
fn a_put_is_found_on_any_branch() {
    for (txn, want) in [
        (txn(vec![range("k", ""), delete("k", "")], vec![]), false),
        (txn(vec![], vec![put("k")]), true),
        (txn(vec![then(vec![then_else(range("k", ""), put("k"))])], vec![]), true),
    ] {
        assert_eq!(request::Txn::decode(&txn.encode_to_vec()).unwrap().has_put(), want, "{txn:?}");
    }
}

#[test]
fn what_only_reads_is_told_from_what_writes() {
    let serializable = pb::RangeRequest { key: bytes("k"), serializable: true, ..Default::default() };
    let local = || op(Request::RequestRange(serializable.clone()));
    for (name, txn, read_only, is_serializable) in [
        ("no ops", txn(vec![], vec![]), true, true),
        ("ranges", txn(vec![range("k", "")], vec![range("k", ""), local()]), true, false),
        ("serializable ranges", txn(vec![local()], vec![local()]), true, true),
        ("a put that is not chosen", txn(vec![], vec![put("k")]), false, false),
        ("a delete", txn(vec![delete("k", "")], vec![]), false, false),
        ("nested ranges", txn(vec![then(vec![local()])], vec![]), false, false),
        ("an empty nested one", txn(vec![then(vec![])], vec![]), false, false),
    ] {
        let encoded = txn.encode_to_vec();
        let decoded = request::Txn::decode(&encoded).unwrap();
        assert_eq!(
            (decoded.is_read_only(), decoded.is_serializable()),
            (read_only, is_serializable),
            "{name}"
        );
    }
}

/// A transaction as deep as its bytes allow is refused, or run, without recursion.
#[test]
fn the_depth_of_a_transaction_is_not_that_of_the_stack() {
    let levels = 100_000;
    let mut encoded = Vec::new();
    for _ in 0..levels {
        // A then-op with a transaction. Built from the inside: the lengths are prepended backwards.
        for field in [4u8, 2] {
            let mut frame = vec![field << 3 | 2];
            let mut length = encoded.len();
            while length >= 0x80 {
                frame.push(length as u8 | 0x80);
                length >>= 7;
            }
            frame.push(length as u8);
            frame.reverse();
            encoded.extend(frame);
        }
    }
    encoded.reverse();
    let decoded = request::Txn::decode(&encoded).unwrap();
    assert_eq!(decoded.nodes.len(), levels + 1);
    let limits = RequestLimits { txn_ops_max: 128, ..RequestLimits::DEFAULT };
    assert_eq!(admission::check_txn(&decoded, &limits), Err(ApiError::TooManyOps.into()));
    let limits = RequestLimits { txn_ops_max: u32::MAX, ..limits };
    assert_eq!(admission::check_txn(&decoded, &limits), Ok(()));
    let mut member = support::Member::new();
    let entry = admission::encode_txn(9, Caller::NOBODY, &encoded);
    let applied = member.store.apply(&entry, false, &mut member.batch).unwrap();
    assert_eq!((applied.id, applied.result.map(|answer| answer.revision)), (9, Ok(1)));
}

/// Deeper than prost's types can go, which etcd's clients may send.
#[test]
fn a_put_128_levels_down_is_applied_and_answered() {
    let mut member = support::Member::new();
    let deepest = deep(128, put("k"));
    assert_eq!(check(&deepest, 128), Ok(()));
    let entry = admission::encode_txn(7, Caller::NOBODY, &deepest.encode_to_vec());
    let applied = member.store.apply(&entry, true, &mut member.batch).unwrap();
    let answer = applied.result.unwrap();
    assert_eq!(answer.revision, 2);
    // The innermost response is the put's, with its revision.
    assert!(
        answer.body.ends_with(&[0x12, 4, 0x0a, 2, 0x18, 2]),
        "{:x?}",
        &answer.body[answer.body.len() - 20..]
    );
    member.publish();
    assert_eq!(member.reader.revision(), 2);
}

/// An op that comes in pieces means what protobuf says: the pieces are merged.
#[test]
fn a_request_in_pieces_is_joined() {
    let whole = pb::PutRequest { key: bytes("k"), value: bytes("v"), ..Default::default() };
    let first = op(Request::RequestPut(pb::PutRequest { key: whole.key.clone(), ..Default::default() }));
    let second = op(Request::RequestPut(pb::PutRequest { value: whole.value.clone(), ..Default::default() }));
    let pieces = [first.encode_to_vec(), second.encode_to_vec()].concat();
    let mut encoded = vec![2 << 3 | 2, pieces.len() as u8];
    encoded.extend(&pieces);
    assert_eq!(request::Txn::decode(&encoded), Err(DecodeError::Repeated));
    let canonical = request::canonical_txn(&encoded).unwrap();
    let txn = request::Txn::decode(&canonical).unwrap();
    assert_eq!(txn.ops, [request::Op::Put(request::Put::from(&whole))]);
    let mut member = support::Member::new();
    let entry = admission::encode_txn(3, Caller::NOBODY, &encoded);
    assert_eq!(member.store.apply(&entry, true, &mut member.batch).unwrap().result.unwrap().revision, 2);
    // The same for the request as a whole.
    let put = admission::encode_put(4, Caller::NOBODY, &whole.encode_to_vec());
    let twice = [&put[..], &put[..]].concat();
    let applied = member.store.apply(&twice, true, &mut member.batch).unwrap();
    assert_eq!((applied.id, applied.result.unwrap().revision), (4, 3));
}

/// A field with bytes.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

/// How deep it stands decides nothing: etcd's decoder goes deeper than any admitted transaction.
#[test]
fn a_request_in_pieces_is_joined_at_any_depth() {
    let whole = pb::PutRequest { key: bytes("k"), value: bytes("v"), ..Default::default() };
    let pieces = [field(2, &field(1, b"k")), field(2, &field(2, b"v"))].concat();
    let nested = |depth: usize, ops: &[u8]| {
        let mut ops = ops.to_vec();
        for level in 0..depth {
            // Of an earlier request of another kind nothing is left, and a transaction may come in pieces too.
            let replaced = field(1, &field(1, b"gone"));
            let rest = if level % 2 == 0 { field(4, b"") } else { Vec::new() };
            ops = field(2, &[replaced, field(4, &ops), rest].concat());
        }
        ops
    };
    for depth in [0, 1, 60, 5_000] {
        let encoded = nested(depth, &field(2, &pieces));
        assert_eq!(request::Txn::decode(&encoded), Err(DecodeError::Repeated));
        let canonical = request::canonical_txn(&encoded).unwrap();
        let txn = request::Txn::decode(&canonical).unwrap();
        assert_eq!(txn.nodes.len(), depth + 1);
        assert_eq!(txn.ops.last(), Some(&request::Op::Put(request::Put::from(&whole))), "{depth}");
        let admitted = admission::check_txn(&txn, &RequestLimits::DEFAULT);
        let want = if depth < 128 { Ok(()) } else { Err(ApiError::TooManyOps.into()) };
        assert_eq!(admitted, want, "{depth}");
    }
    let twice = nested(60, &[field(2, &pieces), field(2, &pieces)].concat());
    let canonical = request::canonical_txn(&twice).unwrap();
    let admitted = admission::check_txn(&request::Txn::decode(&canonical).unwrap(), &RequestLimits::DEFAULT);
    assert_eq!(admitted, Err(ApiError::DuplicateKey.into()));
}

fn encoded_request() -> impl Strategy<Value = Vec<u8>> {
    let put = (".{0,9}", ".{0,300}", any::<i64>(), any::<(bool, bool, bool)>()).prop_map(
        |(key, value, lease, (prev_kv, ignore_value, ignore_lease))| {
            let (key, value) = (bytes(&key), bytes(&value));
            pb::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }.encode_to_vec()
        },
    );
    let txn = ("[ab]", "[bc]", any::<i64>(), 0usize..3).prop_map(|(key, value, revision, nested)| {
        let (key, value) = (bytes(&key), bytes(&value));
        let put = pb::PutRequest { key: key.clone(), value, ..Default::default() };
        let range = pb::RangeRequest { key: key.clone(), revision, ..Default::default() };
        let compare = pb::Compare { key, target: 0, ..Default::default() };
        let mut txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![op(Request::RequestPut(put))],
            failure: vec![op(Request::RequestRange(range))],
        };
        for _ in 0..nested {
            txn = pb::TxnRequest { success: vec![op(Request::RequestTxn(txn))], ..Default::default() };
        }
        txn.encode_to_vec()
    });
    let garbage = prop::collection::vec(any::<u8>(), 0..64);
    let likely = prop::collection::vec(prop_oneof![0u8..16, any::<u8>(), Just(0x0a), Just(0x12)], 0..64);
    prop_oneof![put, txn, garbage, likely]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn requests_mean_what_prost_says(bytes in encoded_request()) {
        fuzz_requests(&bytes);
    }

    #[test]
    fn what_is_admitted_can_be_applied(bytes in encoded_request(), id in 1u64..) {
        fuzz_admitted(id, &bytes);
    }

    #[test]
    fn what_is_admitted_can_be_read(bytes in encoded_request()) {
        fuzz_range(&bytes);
    }

    #[test]
    fn any_entry_is_applied_or_refused(start in encoded_request(), field in 1u32..12, id in any::<u64>()) {
        let mut entry = vec![(field << 3 | 2) as u8, start.len().min(127) as u8];
        entry.extend(&start[..start.len().min(127)]);
        entry.extend(pb::InternalRaftRequest { id, ..Default::default() }.encode_to_vec());
        fuzz_entry(&entry);
    }
}
