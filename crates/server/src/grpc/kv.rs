//! The hot calls: Range, Put, DeleteRange and Txn, from message to what the member is asked.

use bytes::Bytes;
use node::RequestId;
use prost::Message;
use wire::etcdserverpb as pb;
use wire::{ApiError, Code, RequestLimits, Status};

use super::head::Head;
use super::member::{MemberView, ReadFailure, ReadMode, Reads};
use super::method::Hot;
use super::{admission, answer};

/// What a call needs next.
#[derive(Debug)]
pub enum Step {
    /// Run this read, after leadership was confirmed if it has to be linearizable.
    Read {
        /// The read.
        read: Read,
        /// Whether a confirmation comes first.
        linearizable: bool,
    },
    /// Propose this.
    Propose {
        /// In the data's header.
        id: RequestId,
        /// An encoded `InternalRaftRequest`.
        data: Bytes,
        /// Whether it adds to the data.
        grows: bool,
    },
}

/// A read of this member's state.
#[derive(Debug)]
pub enum Read {
    /// `KV.Range`
    Range(pb::RangeRequest),
    /// A read-only `KV.Txn`.
    Txn(pb::TxnRequest),
}

impl Read {
    /// Runs it: the body with room in front, and the header's revision.
    pub fn run(&self, reader: &dyn Reads, mode: ReadMode) -> Result<(Vec<u8>, i64), ReadFailure> {
        let mut body = answer::new_body();
        let revision = match self {
            Read::Range(request) => reader.range(request, mode, &mut body)?,
            Read::Txn(request) => reader.txn(request, mode, &mut body)?,
        };
        Ok((body, revision))
    }
}

/// What etcd's interceptors refuse, after the message was decoded and before anything looks at it.
pub fn intercept(head: &Head, member: &MemberView, learner_serves: bool) -> Result<(), Status> {
    if member.status.is_learner() && !learner_serves {
        return Err(ApiError::NotSupportedForLearner.into());
    }
    if !head.version_is_text {
        return Err(ApiError::InvalidClientApiVersion.into());
    }
    if head.leader_required && member.status.leader() == 0 {
        return Err(ApiError::NoLeader.into());
    }
    Ok(())
}

/// Judges a whole message; nothing has happened when it fails. Checks come in etcd's order: the request's own
/// faults, then the proposal's size.
pub fn begin(
    call: Hot,
    message: Bytes,
    head: &Head,
    member: &MemberView,
    limits: &RequestLimits,
    next_id: impl FnOnce() -> RequestId,
) -> Result<Step, Status> {
    match call {
        Hot::Range => {
            let request: pb::RangeRequest = decode(message)?;
            intercept(head, member, request.serializable)?;
            admission::check_range(&request)?;
            let linearizable = !request.serializable;
            Ok(Step::Read { read: Read::Range(request), linearizable })
        }
        Hot::Put => {
            let request: pb::PutRequest = decode(message.clone())?;
            intercept(head, member, false)?;
            admission::check_put(&request)?;
            let id = next_id();
            propose(id, admission::encode_put(id, &message), true, limits)
        }
        Hot::DeleteRange => {
            let request: pb::DeleteRangeRequest = decode(message.clone())?;
            intercept(head, member, false)?;
            admission::check_delete_range(&request)?;
            let id = next_id();
            propose(id, admission::encode_delete_range(id, &message), false, limits)
        }
        Hot::Txn => {
            let request: pb::TxnRequest = decode(message.clone())?;
            intercept(head, member, false)?;
            admission::check_txn(&request, limits.txn_ops_max)?;
            if admission::is_read_only(&request) {
                let linearizable = !admission::is_serializable(&request);
                return Ok(Step::Read { read: Read::Txn(request), linearizable });
            }
            let id = next_id();
            propose(id, admission::encode_txn(id, &message), has_put(&request), limits)
        }
    }
}

fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message)
        .map_err(|error| Status::new(Code::Internal, format!("grpc: error unmarshalling request: {error}")))
}

/// Whether a put stands on either branch, nested ones included: then it is refused while there is no space.
fn has_put(txn: &pb::TxnRequest) -> bool {
    let mut waiting = vec![txn];
    while let Some(txn) = waiting.pop() {
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(pb::request_op::Request::RequestPut(_)) => return true,
                Some(pb::request_op::Request::RequestTxn(nested)) => waiting.push(nested),
                _ => {}
            }
        }
    }
    false
}

fn propose(id: RequestId, data: Bytes, grows: bool, limits: &RequestLimits) -> Result<Step, Status> {
    if data.len() > limits.request_bytes_max as usize {
        return Err(ApiError::RequestTooLarge.into());
    }
    Ok(Step::Propose { id, data, grows })
}
