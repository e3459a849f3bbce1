//! Applying entries: one replicated request to its effect and its answer.
//!
//! The hot request, a put, is decoded in place; everything rare goes through prost. An entry holds a client's message as
//! it came, if a member of etcd's has made it: what Go's decoder skipped there and prost refuses is left out here.

use prost::Message as _;
use wire::etcdserverpb::{
    AlarmRequest, CompactionRequest, InternalRaftRequest, LeaseCheckpointRequest, LeaseGrantRequest,
    LeaseRevokeRequest,
};
use wire::membershippb;

use crate::auth::{AuthRequest, Caller};
use crate::encoding::{Field, Fields};
use crate::plain;
use crate::record::ReadError;
use crate::request::{DecodeError, DeleteRange, Put, Range, Txn, canonical_txn};

/// Why this member cannot go on (rules 7 and 20). Nothing of the batch with the entry may become durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// The entry's data is no `InternalRaftRequest`.
    #[error("an entry cannot be decoded: {0}")]
    Undecodable(String),
    /// The request has no id to answer it by; Go's etcd ends there too.
    #[error("a request without a header")]
    NoHeader,
    /// The request is of a kind that nobody knows: it comes from a newer version.
    #[error("a request of an unknown kind")]
    UnknownRequest,
    /// The request is of a kind that this version cannot apply yet.
    #[error("a request that this version cannot apply: {0}")]
    UnsupportedRequest(&'static str),
    /// The request is one that Go's etcd would end on.
    #[error("an invalid request: {0}")]
    InvalidRequest(&'static str),
    /// The configuration change has an unknown type.
    #[error("a configuration change of unknown type {0}")]
    UnknownConfChange(i32),
    /// The configuration change cannot be understood.
    #[error("an invalid configuration change: {0}")]
    InvalidConfChange(String),
    /// A record that the request needs cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<DecodeError> for Fatal {
    fn from(error: DecodeError) -> Self {
        Fatal::Undecodable(error.to_string())
    }
}

/// One replicated request.
#[derive(Debug, PartialEq)]
pub(crate) struct Request<'a> {
    pub id: u64,
    /// Who has asked for it.
    pub caller: Caller<'a>,
    pub kind: Kind<'a>,
}

/// What a replicated request asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Kind<'a> {
    Range(Range<'a>),
    Put(Put<'a>),
    DeleteRange(DeleteRange<'a>),
    Txn(Txn<'a>),
    ClusterVersionSet(membershippb::ClusterVersionSetRequest),
    ClusterMemberAttrSet(membershippb::ClusterMemberAttrSetRequest),
    DowngradeInfoSet(membershippb::DowngradeInfoSetRequest),
    Compaction(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseRevokeRequest),
    LeaseCheckpoint(LeaseCheckpointRequest),
    DowngradeVersionTest,
    Alarm(AlarmRequest),
    Auth(Box<AuthRequest>),
}

impl Kind<'_> {
    /// Whether it adds to what is stored: what the quota is about. A transaction does with a put on either branch.
    pub(crate) fn grows(&self) -> bool {
        match self {
            Kind::Put(_) | Kind::LeaseGrant(_) => true,
            Kind::Txn(txn) => txn.has_put(),
            _ => false,
        }
    }
}

/// Decodes an entry's data and hands the request to `then`.
pub(crate) fn with_request<T>(
    data: &[u8],
    then: impl FnOnce(Request<'_>) -> Result<T, Fatal>,
) -> Result<T, Fatal> {
    if let Some(envelope) = Envelope::of(data)? {
        return envelope.with_request(then);
    }
    // Parts in several pieces, or a rare kind: prost joins and decodes.
    let message = match InternalRaftRequest::decode(data) {
        Ok(message) => message,
        Err(_) => {
            let (data, _) = plain::plain(data, &plain::INTERNAL_RAFT_REQUEST)?;
            if let Some(envelope) = Envelope::of(&data)? {
                return envelope.with_request(then);
            }
            InternalRaftRequest::decode(&data[..]).map_err(|error| Fatal::Undecodable(error.to_string()))?
        }
    };
    let id = match (message.id, &message.header) {
        (0, None) => return Err(Fatal::NoHeader),
        (0, Some(header)) => header.id,
        (id, _) => id,
    };
    let caller = message
        .header
        .as_ref()
        .map_or(Caller::NOBODY, |header| Caller { name: &header.username, revision: header.auth_revision });
    if let Some(kind) = rare_kind(&message)? {
        return then(Request { id, caller, kind });
    }
    let (number, body) = if let Some(range) = &message.range {
        (3, range.encode_to_vec())
    } else if let Some(put) = &message.put {
        (4, put.encode_to_vec())
    } else if let Some(delete) = &message.delete_range {
        (5, delete.encode_to_vec())
    } else if let Some(txn) = &message.txn {
        (6, txn.encode_to_vec())
    } else {
        return Err(Fatal::UnknownRequest);
    };
    Envelope { id, caller, number, body: &body }.with_request(then)
}

/// A request of the key-value service in its plainest form: an id, and one request in one piece.
struct Envelope<'a> {
    id: u64,
    caller: Caller<'a>,
    /// The request's field number in `InternalRaftRequest`.
    number: u32,
    body: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// `None` if there is anything else in it.
    fn of(data: &'a [u8]) -> Result<Option<Self>, Fatal> {
        let mut fields = Fields::new(data);
        let (mut id, mut header, mut request) = (0, None, None);
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Number(n)) => id = n,
                (100, Field::Bytes(bytes)) if header.is_none() => match header_of(bytes)? {
                    None => return Ok(None),
                    read => header = read,
                },
                (number @ 3..=6, Field::Bytes(body)) if request.is_none() => request = Some((number, body)),
                _ => return Ok(None),
            }
        }
        let Some((number, body)) = request else { return Ok(None) };
        let (id, caller) = match (id, header) {
            (0, None) => return Err(Fatal::NoHeader),
            (0, Some(header)) => header,
            (id, header) => (id, header.map_or(Caller::NOBODY, |(_, caller)| caller)),
        };
        Ok(Some(Envelope { id, caller, number, body }))
    }

    fn with_request<T>(&self, then: impl FnOnce(Request<'_>) -> Result<T, Fatal>) -> Result<T, Fatal> {
        let (id, caller, body) = (self.id, self.caller, self.body);
        let kind = match self.number {
            3 => Kind::Range(Range::decode(body)?),
            4 => Kind::Put(Put::decode(body)?),
            5 => Kind::DeleteRange(DeleteRange::decode(body)?),
            _ => match Txn::decode(body) {
                Err(DecodeError::Repeated) => {
                    let canonical = canonical_txn(body)?;
                    return then(Request { id, caller, kind: Kind::Txn(Txn::decode(&canonical)?) });
                }
                txn => Kind::Txn(txn?),
            },
        };
        then(Request { id, caller, kind })
    }
}

/// The id in a `RequestHeader`, and who has asked; `None` if that is no text.
fn header_of(header: &[u8]) -> Result<Option<(u64, Caller<'_>)>, DecodeError> {
    let mut fields = Fields::new(header);
    let (mut id, mut caller) = (0, Caller::NOBODY);
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Number(n)) => id = n,
            (2, Field::Bytes(name)) => match std::str::from_utf8(name) {
                Ok(name) => caller.name = name,
                Err(_) => return Ok(None),
            },
            (3, Field::Number(n)) => caller.revision = n,
            _ => {}
        }
    }
    Ok(Some((id, caller)))
}

/// The requests beside those of the key-value service, in the order in which Go's etcd looks for them.
fn rare_kind(message: &InternalRaftRequest) -> Result<Option<Kind<'static>>, Fatal> {
    if let Some(set) = &message.cluster_version_set {
        return Ok(Some(Kind::ClusterVersionSet(set.clone())));
    }
    if let Some(set) = &message.cluster_member_attr_set {
        return Ok(Some(Kind::ClusterMemberAttrSet(set.clone())));
    }
    if let Some(set) = &message.downgrade_info_set {
        return Ok(Some(Kind::DowngradeInfoSet(set.clone())));
    }
    if message.downgrade_version_test.is_some() {
        return Ok(Some(Kind::DowngradeVersionTest));
    }
    let is_kv = message.range.is_some()
        || message.put.is_some()
        || message.delete_range.is_some()
        || message.txn.is_some();
    if is_kv {
        return Ok(None);
    }
    if let Some(compaction) = &message.compaction {
        return Ok(Some(Kind::Compaction(*compaction)));
    }
    if let Some(grant) = &message.lease_grant {
        return Ok(Some(Kind::LeaseGrant(*grant)));
    }
    if let Some(revoke) = &message.lease_revoke {
        return Ok(Some(Kind::LeaseRevoke(*revoke)));
    }
    if let Some(checkpoint) = &message.lease_checkpoint {
        return Ok(Some(Kind::LeaseCheckpoint(checkpoint.clone())));
    }
    if let Some(alarm) = &message.alarm {
        return Ok(Some(Kind::Alarm(*alarm)));
    }
    Ok(AuthRequest::in_entry(message)?.map(|request| Kind::Auth(Box::new(request))))
}

/// Whether an entry can be applied as far as that can be told from it alone; changes nothing.
///
/// # Errors
/// What would stop the member that applies it.
pub fn check_request(data: &[u8]) -> Result<(), Fatal> {
    with_request(data, |_| Ok(()))
}

/// Decodes `data` as apply does: the fuzz target over everything that an entry may hold. Never panics.
pub fn fuzz_apply(data: &[u8]) {
    let _ = with_request(data, |request| Ok(request.id));
}
