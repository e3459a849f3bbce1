//! Requests from outside as plain functions over bytes: the property tests feed them, and cargo-fuzz.

use prost::Message as _;
use store::request::{self, DecodeError, Request};
use store::{Caller, admission, fuzz_apply};
use wire::RequestLimits;
use wire::etcdserverpb as pb;

use super::Member;

/// Decodes `bytes` as each request. What prost takes we take, and understand alike. (We take a little more: what Go
/// skips as unknown.)
///
/// # Panics
/// If the two differ.
pub fn fuzz_requests(bytes: &[u8]) {
    if let Ok(theirs) = pb::PutRequest::decode(bytes) {
        assert_eq!(request::Put::decode(bytes), Ok(request::Put::from(&theirs)));
    }
    if let Ok(theirs) = pb::RangeRequest::decode(bytes) {
        assert_eq!(request::Range::decode(bytes), Ok(request::Range::from(&theirs)));
    }
    if let Ok(theirs) = pb::DeleteRangeRequest::decode(bytes) {
        assert_eq!(request::DeleteRange::decode(bytes), Ok(request::DeleteRange::from(&theirs)));
    }
    if let Ok(theirs) = pb::TxnRequest::decode(bytes) {
        let canonical = match request::Txn::decode(bytes) {
            Err(DecodeError::Repeated) => request::canonical_txn(bytes).expect("prost has decoded it"),
            other => {
                other.expect("prost has decoded it");
                bytes.to_vec()
            }
        };
        let ours = request::Txn::decode(&canonical).expect("canonical form has nothing in pieces");
        same_txn(&ours, 0, &theirs);
    }
}

fn same_txn(ours: &request::Txn<'_>, node: usize, theirs: &pb::TxnRequest) {
    let request::TxnNode { compares, success, failure } = ours.nodes[node].clone();
    assert_eq!(compares.len(), theirs.compare.len());
    for (ours, theirs) in ours.compares[compares].iter().zip(&theirs.compare) {
        assert_eq!((ours.result, ours.target), (theirs.result, theirs.target));
        assert_eq!((ours.key, ours.range_end), (&theirs.key[..], &theirs.range_end[..]));
        use pb::compare::TargetUnion;
        let operand = match &theirs.target_union {
            None => request::Operand::None,
            Some(TargetUnion::Version(n)) => request::Operand::Version(*n),
            Some(TargetUnion::CreateRevision(n)) => request::Operand::CreateRevision(*n),
            Some(TargetUnion::ModRevision(n)) => request::Operand::ModRevision(*n),
            Some(TargetUnion::Value(bytes)) => request::Operand::Value(bytes),
            Some(TargetUnion::Lease(n)) => request::Operand::Lease(*n),
        };
        assert_eq!(ours.operand, operand);
    }
    for (places, theirs) in [(success, &theirs.success), (failure, &theirs.failure)] {
        assert_eq!(places.len(), theirs.len());
        for (op, theirs) in ours.ops[places].iter().zip(theirs) {
            use pb::request_op::Request;
            match (op, &theirs.request) {
                (request::Op::Empty, None) => {}
                (request::Op::Range(ours), Some(Request::RequestRange(t))) => assert_eq!(*ours, t.into()),
                (request::Op::Put(ours), Some(Request::RequestPut(t))) => assert_eq!(*ours, t.into()),
                (request::Op::DeleteRange(ours), Some(Request::RequestDeleteRange(t))) => {
                    assert_eq!(*ours, t.into());
                }
                (request::Op::Txn(node), Some(Request::RequestTxn(t))) => same_txn(ours, *node, t),
                (ours, theirs) => panic!("{ours:?} is not {theirs:?}"),
            }
        }
    }
}

/// A client's message as it is proposed.
fn admitted(
    request: Request,
    bytes: &[u8],
    is_admitted: impl Fn(&[u8]) -> Result<bool, DecodeError>,
) -> Option<Vec<u8>> {
    let plain = match is_admitted(bytes) {
        Err(DecodeError::NotPlain | DecodeError::Repeated) => request::plain(request, bytes).ok()?,
        Err(DecodeError::Malformed) => return None,
        Ok(_) => bytes.to_vec(),
    };
    match is_admitted(&plain) {
        // Nested too deep.
        Err(DecodeError::Malformed) => None,
        decided => decided.expect("it is plain").then_some(plain),
    }
}

/// Takes `bytes` as each write, and applies those that are admitted to a store that holds a few keys.
///
/// # Panics
/// If a request that is admitted stops the member that applies it (rule 20), or holds what not every member knows, or the
/// store contradicts itself.
pub fn fuzz_admitted(id: u64, bytes: &[u8]) {
    fuzz_apply(bytes);
    let limits = RequestLimits::DEFAULT;
    let mut entries = Vec::new();
    let is_put =
        |bytes: &[u8]| request::Put::decode_plain(bytes).map(|put| admission::check_put(&put).is_ok());
    if let Some(message) = admitted(Request::Put, bytes, is_put) {
        entries.push(admission::encode_put(id, Caller::NOBODY, &message));
    }
    let is_delete = |bytes: &[u8]| {
        request::DeleteRange::decode_plain(bytes).map(|delete| admission::check_delete_range(&delete).is_ok())
    };
    if let Some(message) = admitted(Request::DeleteRange, bytes, is_delete) {
        entries.push(admission::encode_delete_range(id, Caller::NOBODY, &message));
    }
    let is_txn = |bytes: &[u8]| {
        request::Txn::decode_plain(bytes).map(|txn| admission::check_txn(&txn, &limits).is_ok())
    };
    if let Some(message) = admitted(Request::Txn, bytes, is_txn) {
        entries.push(admission::encode_txn(id, Caller::NOBODY, &message));
    }
    for entry in entries {
        // The strictest decoder, but for its own limit.
        match pb::InternalRaftRequest::decode(&entry[..]) {
            Err(error) if !error.to_string().contains("recursion limit") => panic!("{error}"),
            _ => {}
        }
        let mut member = Member::new();
        for key in ["a", "b", "c"] {
            member.put(key, "before");
        }
        let applied = member.store.apply(&entry, true, &mut member.batch);
        assert_eq!(applied.map(|applied| applied.id), Ok(id));
        member.store.check();
    }
}

/// Applies `entry`, whatever it is: it has an effect, or it stops the member with an error.
///
/// # Panics
/// If the store contradicts itself.
pub fn fuzz_entry(entry: &[u8]) {
    fuzz_apply(entry);
    let mut member = Member::new();
    let _ = member.store.apply(entry, true, &mut member.batch);
    member.store.check();
}

/// Reads what is admitted as a range from a store that holds a few keys.
///
/// # Panics
/// If an answer can't be decoded.
pub fn fuzz_range(bytes: &[u8]) {
    let Ok(range) = request::Range::decode(bytes) else { return };
    if admission::check_range(&range).is_err() {
        return;
    }
    let mut member = Member::new();
    for key in ["a", "b", "c", "a"] {
        member.put(key, "value");
    }
    member.delete("b", "");
    let mut body = Vec::new();
    if let Ok(revision) = member.reader.range(&range, store::ReadMode::NoWait, &mut body) {
        let answer: pb::RangeResponse = super::response(&store::Answer { revision, body });
        assert!(answer.kvs.len() as i64 <= answer.count, "more pairs than it counts");
    }
}
