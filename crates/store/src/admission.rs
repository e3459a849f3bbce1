//! What is checked of a request before it is proposed or read, from the request alone.
//!
//! Pure functions for the threads that serve connections. They check what etcd's gRPC layer does, in its order;
//! what depends on the state is checked when the entry is applied.

use std::collections::BTreeSet;

use wire::etcdserverpb::range_request::{SortOrder, SortTarget};
use wire::{ApiError, Code, RequestLimits, Status};

use crate::auth::Caller;
use crate::encoding::{Field, Fields, put_bytes, put_length, put_number, put_varint, varint_len};
use crate::mvcc::{Span, SpanSet};
use crate::request::{DeleteRange, Op, Put, Range, Txn, TxnNode};

/// Checks a range.
pub fn check_range(range: &Range<'_>) -> Result<(), Status> {
    Ok(range_error(range)?)
}

/// Checks a range that is to be streamed: in key order, and without revision filters, as in etcd.
pub fn check_range_stream(range: &Range<'_>) -> Result<(), Status> {
    range_error(range)?;
    let refuse = |text| Err(Status::new(Code::Unimplemented, text));
    if !range.has_default_order() {
        return refuse("RangeStream does not support custom sort orders");
    }
    if range.has_filters() {
        return refuse("RangeStream does not support revision filters");
    }
    Ok(())
}

/// Checks a put.
pub fn check_put(put: &Put<'_>) -> Result<(), Status> {
    Ok(put_error(put)?)
}

/// Checks a delete.
pub fn check_delete_range(delete: &DeleteRange<'_>) -> Result<(), Status> {
    Ok(delete_error(delete)?)
}

/// Checks a transaction and everything in it: the number of operations, each operation by itself, keys that would
/// be changed twice.
pub fn check_txn(txn: &Txn<'_>, limits: &RequestLimits) -> Result<(), Status> {
    ops_error(txn, limits.txn_ops_max as usize)?;
    Ok(overlap_error(txn)?)
}

/// Checks the length of an encoded proposal.
pub fn check_size(proposal: &[u8], limits: &RequestLimits) -> Result<(), Status> {
    if proposal.len() > limits.request_bytes_max as usize {
        return Err(ApiError::RequestTooLarge.into());
    }
    Ok(())
}

/// Encodes an `InternalRaftRequest` around an encoded `PutRequest`. The id is not 0.
pub fn encode_put(id: u64, caller: Caller<'_>, request: &[u8]) -> Vec<u8> {
    encode(id, caller, 4, request)
}

/// Encodes an `InternalRaftRequest` around an encoded `DeleteRangeRequest`. The id is not 0.
pub fn encode_delete_range(id: u64, caller: Caller<'_>, request: &[u8]) -> Vec<u8> {
    encode(id, caller, 5, request)
}

/// Encodes an `InternalRaftRequest` around an encoded `TxnRequest`. The id is not 0.
pub fn encode_txn(id: u64, caller: Caller<'_>, request: &[u8]) -> Vec<u8> {
    encode(id, caller, 6, request)
}

/// Encodes an `InternalRaftRequest` around an encoded `CompactionRequest`. The id is not 0.
pub fn encode_compaction(id: u64, caller: Caller<'_>, request: &[u8]) -> Vec<u8> {
    encode(id, caller, 7, request)
}

/// Encodes an `InternalRaftRequest` around an encoded `LeaseGrantRequest`. The id is not 0.
pub fn encode_lease_grant(id: u64, caller: Caller<'_>, request: &[u8]) -> Vec<u8> {
    encode(id, caller, 8, request)
}

/// Encodes an `InternalRaftRequest` around an encoded `LeaseRevokeRequest`. The id is not 0.
pub fn encode_lease_revoke(id: u64, caller: Caller<'_>, request: &[u8]) -> Vec<u8> {
    encode(id, caller, 9, request)
}

/// Encodes an `InternalRaftRequest` around an encoded `LeaseCheckpointRequest`. The id is not 0.
pub fn encode_lease_checkpoint(id: u64, caller: Caller<'_>, request: &[u8]) -> Vec<u8> {
    encode(id, caller, 11, request)
}

/// Encodes an `InternalRaftRequest` around an `AlarmRequest`. The id is not 0.
pub fn encode_alarm(id: u64, request: &wire::etcdserverpb::AlarmRequest) -> Vec<u8> {
    encode(id, Caller::NOBODY, 10, &prost::Message::encode_to_vec(request))
}

/// What a put counts against the quota, bytes (etcd: storage/quota.go).
pub fn put_cost(put: &Put<'_>) -> u64 {
    const OVERHEAD_BYTES: u64 = 256;
    OVERHEAD_BYTES + (put.key.len() + put.value.len()) as u64
}

/// What a grant of a lease counts against the quota, bytes (etcd: storage/quota.go).
pub const LEASE_GRANT_COST: u64 = 64;

/// What a transaction counts against the quota, bytes: the puts of that branch that has more of them (etcd:
/// storage/quota.go). 0 if it has none.
pub fn txn_cost(txn: &Txn<'_>) -> u64 {
    if !txn.has_put() {
        return 0;
    }
    // Children stand behind their parents: backwards, each is known before it is asked for.
    let mut costs = vec![0; txn.nodes.len()];
    for (place, node) in txn.nodes.iter().enumerate().rev() {
        let branch = |ops: &[Op<'_>]| -> u64 {
            let cost = |op: &Op<'_>| match op {
                Op::Put(put) => put_cost(put),
                Op::Txn(node) => costs[*node],
                Op::Empty | Op::Range(_) | Op::DeleteRange(_) => 0,
            };
            ops.iter().map(cost).sum()
        };
        costs[place] = branch(&txn.ops[node.success.clone()]).max(branch(&txn.ops[node.failure.clone()]));
    }
    costs[0]
}

/// The id in the `LeaseGrantRequest` that an entry's data holds; `None` if it holds none.
pub fn granted_lease(entry_data: &[u8]) -> Option<i64> {
    let mut fields = Fields::new(entry_data);
    while let Ok(Some(field)) = fields.next() {
        let (8, Field::Bytes(grant)) = field else { continue };
        let mut fields = Fields::new(grant);
        let mut id = 0;
        while let Ok(Some(field)) = fields.next() {
            if let (2, Field::Number(number)) = field {
                id = number as i64;
            }
        }
        return Some(id);
    }
    None
}

/// Encodes an `InternalRaftRequest` that sets the cluster's version, as `3.7.0`. The id is not 0.
pub fn encode_cluster_version_set(id: u64, version: &str) -> Vec<u8> {
    let set = wire::membershippb::ClusterVersionSetRequest { ver: version.to_owned() };
    encode(id, Caller::NOBODY, 1300, &prost::Message::encode_to_vec(&set))
}

/// Encodes an `InternalRaftRequest` by which a member says its name and client URLs. The id is not 0.
pub fn encode_member_attributes(id: u64, member_id: u64, name: &str, client_urls: &[String]) -> Vec<u8> {
    let set = wire::membershippb::ClusterMemberAttrSetRequest {
        member_id,
        member_attributes: Some(wire::membershippb::Attributes {
            name: name.to_owned(),
            client_urls: client_urls.to_vec(),
        }),
    };
    encode(id, Caller::NOBODY, 1301, &prost::Message::encode_to_vec(&set))
}

/// `request` as field `field`, then the header with the id and who asks (rule 20).
fn encode(id: u64, caller: Caller<'_>, field: u32, request: &[u8]) -> Vec<u8> {
    const HEADER: u32 = 100;
    assert_ne!(id, 0, "a request without an id cannot be answered");
    let name = caller.name.as_bytes();
    let name_len = if name.is_empty() { 0 } else { 1 + varint_len(name.len() as u64) + name.len() };
    let revision_len = if caller.revision == 0 { 0 } else { 1 + varint_len(caller.revision) };
    let header_len = 1 + varint_len(id) + name_len + revision_len;
    let mut out = Vec::with_capacity(request.len() + header_len + 12);
    put_length(&mut out, field, request.len());
    out.extend_from_slice(request);
    put_length(&mut out, HEADER, header_len);
    put_varint(&mut out, 1 << 3);
    put_varint(&mut out, id);
    put_bytes(&mut out, 2, name);
    put_number(&mut out, 3, caller.revision as i64);
    out
}

fn range_error(range: &Range<'_>) -> Result<(), ApiError> {
    if range.key.is_empty() {
        Err(ApiError::EmptyKey)
    } else if SortOrder::try_from(range.sort_order).is_err()
        || SortTarget::try_from(range.sort_target).is_err()
    {
        Err(ApiError::InvalidSortOption)
    } else {
        Ok(())
    }
}

fn put_error(put: &Put<'_>) -> Result<(), ApiError> {
    if put.key.is_empty() {
        Err(ApiError::EmptyKey)
    } else if put.ignore_value && !put.value.is_empty() {
        Err(ApiError::ValueProvided)
    } else if put.ignore_lease && put.lease != 0 {
        Err(ApiError::LeaseProvided)
    } else {
        Ok(())
    }
}

fn delete_error(delete: &DeleteRange<'_>) -> Result<(), ApiError> {
    if delete.key.is_empty() { Err(ApiError::EmptyKey) } else { Ok(()) }
}

/// Checks the numbers of operations and each one by itself, in the order in which they stand.
fn ops_error(txn: &Txn<'_>, txn_ops_max: usize) -> Result<(), ApiError> {
    // What is still to be looked at, the next one last.
    let mut pending = Vec::new();
    open_node(txn, 0, txn_ops_max, &mut pending)?;
    while let Some((op, left)) = pending.pop() {
        match &txn.ops[op] {
            Op::Empty => return Err(ApiError::KeyNotFound),
            Op::Range(range) => range_error(range)?,
            Op::Put(put) => put_error(put)?,
            Op::DeleteRange(delete) => delete_error(delete)?,
            Op::Txn(node) => open_node(txn, *node, left, &mut pending)?,
        }
    }
    Ok(())
}

/// Checks a transaction's own lists. What its longest one leaves of `left` is for each one within.
fn open_node(
    txn: &Txn<'_>,
    node: usize,
    left: usize,
    pending: &mut Vec<(usize, usize)>,
) -> Result<(), ApiError> {
    let TxnNode { compares, success, failure } = &txn.nodes[node];
    let longest = compares.len().max(success.len()).max(failure.len());
    let Some(left) = left.checked_sub(longest) else { return Err(ApiError::TooManyOps) };
    if txn.compares[compares.clone()].iter().any(|compare| compare.key.is_empty()) {
        return Err(ApiError::EmptyKey);
    }
    pending.extend(success.clone().chain(failure.clone()).rev().map(|op| (op, left)));
    Ok(())
}

/// The keys that one branch puts, and the spans that it deletes.
#[derive(Default)]
struct Changes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: SpanSet,
}

/// Refuses two puts of one key, and a put in a deleted span, where they could both run; with etcd's quirks (deletes
/// within count only for what comes later on the level above; an open-ended delete is taken literally and covers
/// nothing; behaviours.md, "Txn").
fn overlap_error(txn: &Txn<'_>) -> Result<(), ApiError> {
    let is_plain = |op: &Op<'_>| !matches!(op, Op::DeleteRange(_) | Op::Txn(_));
    if txn.ops.len() < 2 && txn.ops.iter().all(is_plain) {
        return Ok(());
    }
    // Children stand behind their parents: backwards, each is done before it is asked for.
    let mut changes: Vec<Option<Changes<'_>>> = txn.nodes.iter().map(|_| None).collect();
    for (place, node) in txn.nodes.iter().enumerate().rev() {
        let mut then = branch_changes(&txn.ops[node.success.clone()], &mut changes)?;
        let other = branch_changes(&txn.ops[node.failure.clone()], &mut changes)?;
        // Only one of the branches runs, so they may put the same key.
        then.deletes.absorb(other.deletes);
        absorb_keys(&mut then.puts, other.puts);
        changes[place] = Some(then);
    }
    Ok(())
}

fn branch_changes<'a>(ops: &[Op<'a>], within: &mut [Option<Changes<'a>>]) -> Result<Changes<'a>, ApiError> {
    let mut branch = Changes::default();
    for op in ops {
        if let Op::DeleteRange(delete) = op {
            branch.deletes.insert(Span::literal(delete.key, delete.range_end));
        }
    }
    for op in ops {
        if let Op::Txn(node) = op {
            let inner = within[*node].take().unwrap_or_default();
            if shares_a_key(&branch.puts, &inner.puts) || branch.deletes.contains_any_of(&inner.puts) {
                return Err(ApiError::DuplicateKey);
            }
            absorb_keys(&mut branch.puts, inner.puts);
            branch.deletes.absorb(inner.deletes);
        }
    }
    for op in ops {
        if let Op::Put(put) = op
            && (branch.deletes.contains(put.key) || !branch.puts.insert(put.key))
        {
            return Err(ApiError::DuplicateKey);
        }
    }
    Ok(branch)
}

fn absorb_keys<'a>(keys: &mut BTreeSet<&'a [u8]>, mut other: BTreeSet<&'a [u8]>) {
    if other.len() > keys.len() {
        std::mem::swap(keys, &mut other);
    }
    keys.extend(other);
}

fn shares_a_key(a: &BTreeSet<&[u8]>, b: &BTreeSet<&[u8]>) -> bool {
    let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
    few.iter().any(|key| many.contains(key))
}
