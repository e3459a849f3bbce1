//! What a member must answer, worked out the slow and obvious way: a map from key to pair, and a list of old maps.

use std::collections::BTreeMap;

use bytes::Bytes;
use wire::ApiError;
use wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcdserverpb::request_op::Request;
use wire::etcdserverpb::response_op::Response;
use wire::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, InternalRaftRequest, LeaseGrantRequest,
    LeaseGrantResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader,
    ResponseOp, TxnRequest, TxnResponse,
};
use wire::mvccpb::KeyValue;

use crate::users::Users;

/// The pairs at one revision.
pub type Pairs = BTreeMap<Bytes, KeyValue>;

/// The store as it must be.
#[derive(Clone, Debug)]
pub struct Model {
    revision: i64,
    pairs: Pairs,
    /// The pairs as they were at each revision.
    history: BTreeMap<i64, Pairs>,
    compacted: i64,
    leases: BTreeMap<i64, i64>,
    users: Users,
}

/// What a member shows beside its pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The current revision.
    pub revision: i64,
    /// The compacted revision, -1 before the first.
    pub compacted: i64,
    /// Id and granted TTL of each lease.
    pub leases: BTreeMap<i64, i64>,
    /// Users, roles, and whether they count.
    pub users: Users,
}

/// What a request must answer, without its header.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// A put's answer.
    Put(PutResponse),
    /// A delete's answer.
    Delete(DeleteRangeResponse),
    /// A transaction's answer.
    Txn(TxnResponse),
    /// A grant's answer.
    Grant(LeaseGrantResponse),
    /// Whether authentication is on, and the revision of users and roles.
    AuthStatus(bool, u64),
    /// An answer that is a header alone.
    Header,
    /// A request whose answer nobody waits for.
    None,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            revision: 1,
            pairs: Pairs::new(),
            history: BTreeMap::from([(1, Pairs::new())]),
            compacted: -1,
            leases: BTreeMap::new(),
            users: Users::default(),
        }
    }
}

/// One transaction under way.
struct Change {
    pairs: Pairs,
    main: i64,
    changed: bool,
}

impl Model {
    /// What is shown beside the pairs.
    pub fn tables(&self) -> Tables {
        Tables {
            revision: self.revision,
            compacted: self.compacted,
            leases: self.leases.clone(),
            users: self.users.clone(),
        }
    }

    fn compact(&mut self, revision: i64) -> Result<Expected, ApiError> {
        if revision <= self.compacted {
            return Err(ApiError::Compacted);
        }
        if revision > self.revision {
            return Err(ApiError::FutureRev);
        }
        self.compacted = revision;
        Ok(Expected::Header)
    }

    fn grant(&mut self, grant: &LeaseGrantRequest) -> Result<Expected, ApiError> {
        if self.leases.contains_key(&grant.id) {
            return Err(ApiError::LeaseExist);
        }
        let ttl = grant.ttl.max(2);
        self.leases.insert(grant.id, ttl);
        Ok(Expected::Grant(LeaseGrantResponse { id: grant.id, ttl, ..Default::default() }))
    }

    /// The pairs at a revision that exists.
    pub fn at(&self, revision: i64) -> Option<&Pairs> {
        self.history.get(&revision)
    }

    /// Applies a request: the revision that its answer's header must show, and the answer.
    pub fn apply(&mut self, request: &InternalRaftRequest) -> (i64, Result<Expected, ApiError>) {
        if self.users.refuse(request, &self.pairs) {
            return (self.revision, Err(ApiError::UserEmpty));
        }
        if let Some(result) = self.users.apply(request) {
            let (is_enabled, revision) = (self.users.is_enabled, self.users.revision);
            let expected = match request.auth_status {
                Some(_) => Expected::AuthStatus(is_enabled, revision),
                None => Expected::Header,
            };
            return (self.revision, result.map(|()| expected));
        }
        let mut change = Change { pairs: self.pairs.clone(), main: self.revision + 1, changed: false };
        let leases = &self.leases;
        let expected = if let Some(put) = &request.put {
            change.put(put, leases).map(Expected::Put)
        } else if let Some(delete) = &request.delete_range {
            Ok(Expected::Delete(change.delete(delete)))
        } else if let Some(txn) = &request.txn {
            change.txn(txn, &self.pairs, leases).map(Expected::Txn)
        } else if let Some(revoke) = &request.lease_revoke {
            change.revoke(revoke.id);
            self.leases.remove(&revoke.id).map(|_| Expected::Header).ok_or(ApiError::LeaseNotFound)
        } else if let Some(grant) = &request.lease_grant {
            return (self.revision, self.grant(grant));
        } else if let Some(compaction) = &request.compaction {
            return (self.revision, self.compact(compaction.revision));
        } else {
            return (self.revision, Ok(Expected::None));
        };
        if expected.is_ok() && change.changed {
            self.revision = change.main;
            self.pairs = change.pairs;
            self.history.insert(self.revision, self.pairs.clone());
        }
        (self.revision, expected)
    }
}

impl Change {
    fn revision(&self) -> i64 {
        if self.changed { self.main } else { self.main - 1 }
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision(), ..Default::default() })
    }

    fn revoke(&mut self, lease: i64) {
        let before = self.pairs.len();
        self.pairs.retain(|_, pair| pair.lease != lease);
        self.changed |= self.pairs.len() < before;
    }

    fn put(&mut self, put: &PutRequest, leases: &BTreeMap<i64, i64>) -> Result<PutResponse, ApiError> {
        if put.lease != 0 && !leases.contains_key(&put.lease) {
            return Err(ApiError::LeaseNotFound);
        }
        let old = self.pairs.get(&put.key).cloned();
        let (create_revision, version) =
            old.as_ref().map_or((self.main, 1), |old| (old.create_revision, old.version + 1));
        let pair = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision,
            mod_revision: self.main,
            version,
            lease: put.lease,
        };
        self.pairs.insert(put.key.clone(), pair);
        self.changed = true;
        Ok(PutResponse { header: None, prev_kv: old.filter(|_| put.prev_kv) })
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let keys: Vec<Bytes> =
            self.pairs.keys().filter(|key| covers(&delete.key, &delete.range_end, key)).cloned().collect();
        let gone: Vec<KeyValue> = keys.iter().filter_map(|key| self.pairs.remove(key)).collect();
        self.changed |= !gone.is_empty();
        DeleteRangeResponse {
            header: None,
            deleted: gone.len() as i64,
            prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
        }
    }

    fn range(&self, range: &RangeRequest) -> RangeResponse {
        let all: Vec<KeyValue> = self
            .pairs
            .iter()
            .filter(|(key, _)| covers(&range.key, &range.range_end, key))
            .map(|(_, pair)| pair.clone())
            .collect();
        let count = all.len() as i64;
        let limit = if range.limit > 0 { range.limit as usize } else { usize::MAX };
        let more = all.len() > limit;
        RangeResponse { header: None, kvs: all.into_iter().take(limit).collect(), more, count }
    }

    fn txn(
        &mut self,
        txn: &TxnRequest,
        before: &Pairs,
        leases: &BTreeMap<i64, i64>,
    ) -> Result<TxnResponse, ApiError> {
        let succeeded = txn.compare.iter().all(|compare| holds(compare, before));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let mut responses = Vec::new();
        for RequestOp { request } in branch {
            let response = match request {
                Some(Request::RequestPut(put)) => {
                    let answer = self.put(put, leases)?;
                    Response::ResponsePut(PutResponse { header: self.header(), ..answer })
                }
                Some(Request::RequestDeleteRange(delete)) => {
                    let answer = self.delete(delete);
                    Response::ResponseDeleteRange(DeleteRangeResponse { header: self.header(), ..answer })
                }
                Some(Request::RequestRange(range)) => {
                    let answer = self.range(range);
                    Response::ResponseRange(RangeResponse { header: self.header(), ..answer })
                }
                Some(Request::RequestTxn(nested)) => {
                    let answer = self.txn(nested, before, leases)?;
                    Response::ResponseTxn(TxnResponse { header: Some(ResponseHeader::default()), ..answer })
                }
                None => continue,
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header: None, succeeded, responses })
    }
}

fn covers(key: &[u8], end: &[u8], candidate: &[u8]) -> bool {
    match end {
        [] => candidate == key,
        [0] => candidate >= key,
        end => candidate >= key && candidate < end,
    }
}

fn holds(compare: &Compare, pairs: &Pairs) -> bool {
    let missing = KeyValue::default();
    let found = pairs.get(&compare.key);
    let pair = found.unwrap_or(&missing);
    let order = match (compare.target(), &compare.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(v))) => pair.version.cmp(v),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(v))) => pair.create_revision.cmp(v),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(v))) => pair.mod_revision.cmp(v),
        (CompareTarget::Value, Some(TargetUnion::Value(_))) if found.is_none() => return false,
        (CompareTarget::Value, Some(TargetUnion::Value(v))) => pair.value.cmp(v),
        (target, operand) => panic!("the workload makes no compare of {target:?} with {operand:?}"),
    };
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}
