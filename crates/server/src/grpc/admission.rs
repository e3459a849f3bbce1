//! Stand-in for `store::admission` until it is merged.

use bytes::Bytes;
use node::RequestId;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use wire::etcdserverpb as pb;
use wire::{ApiError, Status};

pub fn check_range(request: &pb::RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() { Err(ApiError::EmptyKey.into()) } else { Ok(()) }
}

pub fn check_put(request: &pb::PutRequest) -> Result<(), Status> {
    if request.key.is_empty() { Err(ApiError::EmptyKey.into()) } else { Ok(()) }
}

pub fn check_delete_range(request: &pb::DeleteRangeRequest) -> Result<(), Status> {
    if request.key.is_empty() { Err(ApiError::EmptyKey.into()) } else { Ok(()) }
}

pub fn check_txn(request: &pb::TxnRequest, ops_max: u32) -> Result<(), Status> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    if longest > ops_max as usize { Err(ApiError::TooManyOps.into()) } else { Ok(()) }
}

pub fn is_read_only(request: &pb::TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|op| matches!(op.request, Some(pb::request_op::Request::RequestRange(_))))
}

pub fn is_serializable(request: &pb::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(
        |op| matches!(&op.request, Some(pb::request_op::Request::RequestRange(range)) if range.serializable),
    )
}

fn encode(id: RequestId, field: u32, raw: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(raw.len() + 32);
    let header = pb::RequestHeader { id: id.0, ..pb::RequestHeader::default() };
    prost::encoding::message::encode(100, &header, &mut out);
    encode_key(field, WireType::LengthDelimited, &mut out);
    encode_varint(raw.len() as u64, &mut out);
    out.extend_from_slice(raw);
    debug_assert!(pb::InternalRaftRequest::decode(&out[..]).is_ok());
    Bytes::from(out)
}

pub fn encode_put(id: RequestId, raw: &[u8]) -> Bytes {
    encode(id, 4, raw)
}

pub fn encode_delete_range(id: RequestId, raw: &[u8]) -> Bytes {
    encode(id, 5, raw)
}

pub fn encode_txn(id: RequestId, raw: &[u8]) -> Bytes {
    encode(id, 6, raw)
}
