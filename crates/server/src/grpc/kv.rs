//! The hot calls: Range, Put, DeleteRange and Txn, from message to what the member is asked.

use bytes::Bytes;
use node::RequestId;
use store::admission;
use store::request::{self, DecodeError, DeleteRange, Put, Range, Request, Txn};
use store::{ReadFailure, ReadMode, Reader};
use wire::{ApiError, Code, RequestLimits, Status};

use super::answer;
use super::head::Head;
use super::member::{MemberView, OverQuota};
use super::method::Hot;
use crate::auth::Who;
use crate::metrics::Own;

/// A longer message than this was put together by itself.
const DETACHED_BYTES_MAX: usize = 16 << 10;

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
    /// Propose this, an alarm, and refuse the call with NoSpace when that has come to its end, whatever it was.
    Raise {
        /// In the data's header.
        id: RequestId,
        /// An encoded `InternalRaftRequest`.
        data: Bytes,
    },
}

/// A read of this member's state that has passed admission; holds the message that asks for it.
#[derive(Debug)]
pub enum Read {
    /// `KV.Range`
    Range(Bytes),
    /// A read-only `KV.Txn`.
    Txn(Bytes),
}

impl Read {
    /// The message.
    pub fn message(&self) -> &Bytes {
        match self {
            Read::Range(message) | Read::Txn(message) => message,
        }
    }

    /// The same for a read that may wait for long: see [`detached`].
    #[must_use]
    pub fn detached(self) -> Read {
        match self {
            Read::Range(message) => Read::Range(detached(message)),
            Read::Txn(message) => Read::Txn(detached(message)),
        }
    }

    /// Whether the one who asks may read all of it.
    pub fn check(&self, who: &Who) -> Result<(), Status> {
        match self {
            Read::Range(message) => {
                let range = Range::decode(message).map_err(|error| undecodable(&error))?;
                Ok(who.check_range(range.key, range.range_end)?)
            }
            Read::Txn(message) => {
                let txn = Txn::decode(message).map_err(|error| undecodable(&error))?;
                Ok(who.auth().check_read_txn(who.caller(), &txn)?)
            }
        }
    }

    /// Runs it: the body with room in front, and the header's revision.
    pub fn run(&self, reader: &Reader, mode: ReadMode) -> Result<Result<Made, ReadFailure>, Status> {
        let mut body = answer::new_body();
        let made = match self {
            Read::Range(message) => {
                let range = Range::decode(message).map_err(|error| undecodable(&error))?;
                reader.range(&range, mode, &mut body).map(|revision| (revision, 1))
            }
            Read::Txn(message) => {
                reader.txn(&Txn::decode(message).map_err(|error| undecodable(&error))?, mode, &mut body)
            }
        };
        Ok(made.map(|(revision, ranges)| Made { body, revision, ranges }))
    }

    /// Whether it is of one range, which is measured by itself.
    pub fn is_range(&self) -> bool {
        matches!(self, Read::Range(_))
    }
}

/// A message as it is kept where it may have to wait for long. A short one is a part of what was read from the socket at
/// once, and would hold on to all of that.
pub fn detached(message: Bytes) -> Bytes {
    match message.len() {
        ..DETACHED_BYTES_MAX => Bytes::copy_from_slice(&message),
        _ => message,
    }
}

/// Counts a read that has come to its end, by what it has made if it has.
pub fn count_ranges(made: Option<&Made>, counts: &Own) {
    // One that fails has looked once at least.
    let ranges = made.map_or(1, |made| made.ranges);
    counts.ranges_read.add_alone(ranges);
    counts.txns_read.add_alone(u64::from(ranges > 1));
}

/// What a read has made.
#[derive(Debug)]
pub struct Made {
    /// The answer, with room in front.
    pub body: Vec<u8>,
    /// The header's revision.
    pub revision: i64,
    /// Ranges that were read, those of compares too.
    pub ranges: u64,
}

/// A failed read as its caller is told.
pub fn read_status(failure: &ReadFailure) -> Status {
    match failure {
        ReadFailure::Api(error) => (*error).into(),
        // Which file it is the log says.
        ReadFailure::Source(_) => Status::new(Code::DataLoss, "etcdserver: stored data cannot be read"),
        other => Status::new(Code::Unknown, other.to_string()),
    }
}

/// What etcd's interceptors refuse, after the message was decoded and before anything looks at it.
pub fn intercept(head: &Head, member: &MemberView, learner_serves: bool) -> Result<(), Status> {
    if member.status.is_learner() && !learner_serves {
        return Err(ApiError::NotSupportedForLearner.into());
    }
    if head.version.is_none() {
        return Err(ApiError::InvalidClientApiVersion.into());
    }
    if head.leader_required && member.status.leader() == 0 {
        return Err(ApiError::NoLeader.into());
    }
    Ok(())
}

/// Judges a whole message; nothing has happened when it fails. Checks come in etcd's order: the request's own
/// faults, then who asks, then the proposal's size; the quota comes before all of them. What a proposal may do is checked when
/// it is applied.
pub fn begin(
    call: Hot,
    message: Bytes,
    (head, who): (&Head, impl FnOnce() -> Result<Who, ApiError>),
    member: &MemberView,
    limits: &RequestLimits,
    next_id: impl FnOnce() -> RequestId,
) -> Result<Step, Status> {
    let mut plain = None;
    match call {
        Hot::Range => {
            let (_, request) = decode(Request::Range, &message, &mut plain, Range::decode_plain)?;
            intercept(head, member, request.serializable)?;
            admission::check_range(&request)?;
            let linearizable = !request.serializable;
            Ok(Step::Read { read: Read::Range(plain.unwrap_or(message)), linearizable })
        }
        Hot::Put => {
            let (message, request) = decode(Request::Put, &message, &mut plain, Put::decode_plain)?;
            intercept(head, member, false)?;
            if let Err(over) = member.check_quota(admission::put_cost(&request)) {
                return refuse(over, next_id);
            }
            admission::check_put(&request)?;
            let (who, id) = (who()?, next_id());
            propose(id, admission::encode_put(id.0, who.caller(), message), true, limits)
        }
        Hot::DeleteRange => {
            let (message, request) =
                decode(Request::DeleteRange, &message, &mut plain, DeleteRange::decode_plain)?;
            intercept(head, member, false)?;
            admission::check_delete_range(&request)?;
            let (who, id) = (who()?, next_id());
            propose(id, admission::encode_delete_range(id.0, who.caller(), message), false, limits)
        }
        Hot::Txn => {
            let (message, request) = decode(Request::Txn, &message, &mut plain, Txn::decode_plain)?;
            intercept(head, member, false)?;
            if let Err(over) = member.check_quota(admission::txn_cost(&request)) {
                return refuse(over, next_id);
            }
            admission::check_txn(&request, limits)?;
            if request.is_read_only() {
                let linearizable = !request.is_serializable();
                return Ok(Step::Read { read: Read::Txn(message.clone()), linearizable });
            }
            let (who, id) = (who()?, next_id());
            propose(id, admission::encode_txn(id.0, who.caller(), message), request.has_put(), limits)
        }
    }
}

/// A client's message and what it asks for. One with something in it that nobody knows is taken without that, as `plain`:
/// not every member of etcd's could read an entry that holds it.
fn decode<'a, T>(
    request: Request,
    message: &'a Bytes,
    plain: &'a mut Option<Bytes>,
    decode_plain: impl Fn(&'a [u8]) -> Result<T, DecodeError>,
) -> Result<(&'a Bytes, T), Status> {
    let decoded = match decode_plain(message) {
        Err(DecodeError::NotPlain | DecodeError::Repeated) => {
            let made = request::plain(request, message).map_err(|error| undecodable(&error))?;
            let message = &*plain.insert(Bytes::from(made));
            decode_plain(message).map(|decoded| (message, decoded))
        }
        decoded => decoded.map(|decoded| (message, decoded)),
    };
    decoded.map_err(|error| undecodable(&error))
}

pub(super) fn undecodable(error: &dyn std::fmt::Display) -> Status {
    Status::new(Code::Internal, format!("grpc: error unmarshalling request: {error}"))
}

fn refuse(over: OverQuota, next_id: impl FnOnce() -> RequestId) -> Result<Step, Status> {
    let Some(alarm) = over.raises else { return Err(OverQuota::ERROR.into()) };
    let id = next_id();
    Ok(Step::Raise { id, data: Bytes::from(admission::encode_alarm(id.0, &alarm)) })
}

fn propose(id: RequestId, data: Vec<u8>, grows: bool, limits: &RequestLimits) -> Result<Step, Status> {
    admission::check_size(&data, limits)?;
    Ok(Step::Propose { id, data: Bytes::from(data), grows })
}
