//! The store as one would write it without a thought for speed: a whole map for every revision.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use wire::ApiError;
use wire::etcdserverpb::{self as pb, compare::TargetUnion, request_op, response_op};
use wire::mvccpb::KeyValue;

type Map = BTreeMap<Vec<u8>, KeyValue>;

/// A record as etcd's backend holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub main: i64,
    pub sub: i64,
    pub is_tombstone: bool,
    pub pair: KeyValue,
}

impl Row {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.main.to_be_bytes().to_vec();
        bytes.push(b'_');
        bytes.extend(self.sub.to_be_bytes());
        if self.is_tombstone {
            bytes.push(b't');
        }
        bytes.extend(self.pair.encode_to_vec());
        bytes
    }
}

/// A hash, with the compacted and the hashed revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    pub sum: u32,
    pub compacted: i64,
    pub revision: i64,
}

#[derive(Clone)]
pub struct Model {
    /// The keys at revision 1, 2, …
    pub revisions: Vec<Map>,
    /// What compactions have left, in order.
    pub rows: Vec<Row>,
    /// The compacted revision, -1 before the first.
    pub compacted: i64,
    /// Hashes made at compactions.
    pub hashes: Vec<Hash>,
    /// Granted and remaining TTL of each lease.
    pub leases: BTreeMap<i64, (i64, i64)>,
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

/// An entry being applied: the keys as they are by now, and how many changes made them so.
struct Writing {
    before: i64,
    map: Map,
    rows: Vec<Row>,
}

impl Writing {
    fn current(&self) -> i64 {
        self.before + i64::from(!self.rows.is_empty())
    }

    fn record(&mut self, is_tombstone: bool, pair: KeyValue) {
        let (main, sub) = (self.before + 1, self.rows.len() as i64);
        self.rows.push(Row { main, sub, is_tombstone, pair });
    }

    fn put(&mut self, put: &pb::PutRequest) -> pb::PutResponse {
        let old = self.map.get(&put.key[..]).cloned();
        let revision = self.before + 1;
        let pair = KeyValue {
            key: put.key.clone(),
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            value: if put.ignore_value { old.clone().unwrap().value } else { put.value.clone() },
            lease: if put.ignore_lease { old.as_ref().unwrap().lease } else { put.lease },
        };
        self.record(false, pair.clone());
        self.map.insert(put.key.to_vec(), pair);
        pb::PutResponse { header: header(self.current()), prev_kv: old.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let gone = in_range(&self.map, &delete.key, &delete.range_end);
        for pair in &gone {
            self.map.remove(&pair.key[..]);
            self.record(true, KeyValue { key: pair.key.clone(), ..Default::default() });
        }
        pb::DeleteRangeResponse {
            header: header(self.current()),
            deleted: gone.len() as i64,
            prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
        }
    }
}

fn in_range(map: &Map, key: &[u8], end: &[u8]) -> Vec<KeyValue> {
    let within = |k: &[u8]| match end {
        [] => k == key,
        [0] => k >= key,
        end => k >= key && k < end,
    };
    map.iter().filter(|(k, _)| within(k)).map(|(_, pair)| pair.clone()).collect()
}

impl Default for Model {
    fn default() -> Self {
        Model {
            revisions: vec![Map::new()],
            rows: Vec::new(),
            compacted: -1,
            hashes: Vec::new(),
            leases: BTreeMap::new(),
        }
    }
}

impl Model {
    pub fn current(&self) -> i64 {
        self.revisions.len() as i64
    }

    fn map_at(&self, revision: i64) -> &Map {
        &self.revisions[revision as usize - 1]
    }

    fn begin(&self) -> Writing {
        Writing { before: self.current(), map: self.revisions.last().unwrap().clone(), rows: Vec::new() }
    }

    fn end(&mut self, writing: Writing) {
        if !writing.rows.is_empty() {
            self.revisions.push(writing.map);
            self.rows.extend(writing.rows);
        }
    }

    /// The newest row of a key at or below a revision.
    fn newest(&self, key: &[u8], revision: i64) -> Option<&Row> {
        self.rows.iter().rev().find(|row| row.pair.key == key && row.main <= revision)
    }

    /// HashKV by its definition, for a reader that sees `current`.
    pub fn hash(&self, revision: i64, compacted: i64, current: i64) -> Result<Hash, ApiError> {
        if let Some(kept) = self.hashes.iter().find(|hash| hash.revision == revision && revision != 0) {
            return Ok(*kept);
        }
        if revision > 0 && revision < compacted {
            return Err(ApiError::Compacted);
        }
        if revision > current {
            return Err(ApiError::FutureRev);
        }
        let revision = if revision == 0 { current } else { revision };
        let kept = |row: &Row| !row.is_tombstone && self.newest(&row.pair.key, revision) == Some(row);
        // etcd's index keeps nothing of a key that was deleted in this very revision, though it was put again in it.
        let is_deleted = |key: &[u8]| {
            self.rows.iter().any(|row| row.is_tombstone && row.main == revision && row.pair.key == key)
        };
        let keeps_any = self.rows.iter().any(|row| kept(row) && !is_deleted(&row.pair.key));
        let sum = self.sum((compacted, revision), keeps_any, kept);
        Ok(Hash { sum, compacted, revision })
    }

    fn sum(&self, (compacted, revision): (i64, i64), keeps_any: bool, kept: impl Fn(&Row) -> bool) -> u32 {
        let mut all = b"key".to_vec();
        for row in self.rows.iter().filter(|row| row.main <= revision) {
            let is_dead = row.main <= compacted && keeps_any && !kept(row);
            let is_last_trace = row.main == compacted && row.is_tombstone;
            if !is_dead && !is_last_trace {
                all.extend(row.bytes());
            }
        }
        crc32c::crc32c(&all)
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), ApiError> {
        if revision <= self.compacted {
            return Err(ApiError::Compacted);
        }
        if revision > self.current() {
            return Err(ApiError::FutureRev);
        }
        let kept = |row: &Row| {
            self.newest(&row.pair.key, revision) == Some(row) && (!row.is_tombstone || row.main == revision)
        };
        let keeps_any = self.rows.iter().any(kept);
        let sum = self.sum((self.compacted, revision), keeps_any, kept);
        let rows = self.rows.iter().filter(|row| row.main > revision || kept(row)).cloned().collect();
        self.hashes.push(Hash { sum, compacted: self.compacted, revision });
        let newest = self.hashes.len().saturating_sub(10);
        self.hashes.drain(..newest);
        self.rows = rows;
        self.compacted = revision;
        Ok(())
    }

    pub fn grant(&mut self, id: i64, ttl: i64) -> Result<pb::LeaseGrantResponse, ApiError> {
        match id {
            0 => return Err(ApiError::LeaseNotFound),
            _ if ttl > 9_000_000_000 => return Err(ApiError::LeaseTtlTooLarge),
            _ if self.leases.contains_key(&id) => return Err(ApiError::LeaseExist),
            _ => {}
        }
        self.leases.insert(id, (ttl.max(2), 0));
        Ok(pb::LeaseGrantResponse {
            header: header(self.current()),
            id,
            ttl: ttl.max(2),
            ..Default::default()
        })
    }

    pub fn revoke(&mut self, id: i64) -> Result<pb::LeaseRevokeResponse, ApiError> {
        let mut writing = self.begin();
        for key in self.lease_keys(id, self.current()) {
            writing.delete(&pb::DeleteRangeRequest { key: key.into(), ..Default::default() });
        }
        self.leases.remove(&id).ok_or(ApiError::LeaseNotFound)?;
        self.end(writing);
        Ok(pb::LeaseRevokeResponse { header: header(self.current()) })
    }

    pub fn checkpoint(&mut self, id: i64, remaining: i64) {
        self.leases.entry(id).and_modify(|times| times.1 = remaining);
    }

    pub fn lease_keys(&self, id: i64, revision: i64) -> Vec<Vec<u8>> {
        self.map_at(revision).values().filter(|pair| pair.lease == id).map(|pair| pair.key.to_vec()).collect()
    }

    pub fn range(
        &self,
        range: &pb::RangeRequest,
        compacted: i64,
        current: i64,
    ) -> Result<pb::RangeResponse, ApiError> {
        self.read(range, (compacted, current), self.map_at(current))
    }

    fn read(
        &self,
        range: &pb::RangeRequest,
        (compacted, current): (i64, i64),
        newest: &Map,
    ) -> Result<pb::RangeResponse, ApiError> {
        let map = match range.revision {
            revision if revision > current => return Err(ApiError::FutureRev),
            revision if revision <= 0 || revision == current => newest,
            revision if revision < compacted => return Err(ApiError::Compacted),
            revision => self.map_at(revision),
        };
        let all = in_range(map, &range.key, &range.range_end);
        let mut response =
            pb::RangeResponse { header: header(current), count: all.len() as i64, ..Default::default() };
        if range.count_only {
            return Ok(response);
        }
        response.kvs = shown(range, all);
        if range.limit > 0 && response.kvs.len() as i64 > range.limit {
            response.kvs.truncate(range.limit as usize);
            response.more = true;
        }
        Ok(response)
    }

    pub fn put(&mut self, put: &pb::PutRequest) -> Result<pb::PutResponse, ApiError> {
        self.check_put(put)?;
        let mut writing = self.begin();
        let response = writing.put(put);
        self.end(writing);
        Ok(response)
    }

    pub fn delete(&mut self, delete: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let mut writing = self.begin();
        let response = writing.delete(delete);
        self.end(writing);
        response
    }

    fn check_put(&self, put: &pb::PutRequest) -> Result<(), ApiError> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(ApiError::LeaseNotFound);
        }
        let exists = self.revisions.last().unwrap().contains_key(&put.key[..]);
        if (put.ignore_value || put.ignore_lease) && !exists { Err(ApiError::KeyNotFound) } else { Ok(()) }
    }

    pub fn txn(&mut self, txn: &pb::TxnRequest) -> Result<pb::TxnResponse, ApiError> {
        let path = self.choose(txn, self.current());
        self.check(&path, self.compacted, self.current())?;
        let mut writing = self.begin();
        let mut response = self.run(&mut writing, self.compacted, &path)?;
        response.header = header(writing.current());
        self.end(writing);
        Ok(response)
    }

    /// A transaction of ranges, by a reader that sees `current`.
    pub fn read_txn(
        &self,
        txn: &pb::TxnRequest,
        compacted: i64,
        current: i64,
    ) -> Result<pb::TxnResponse, ApiError> {
        let path = self.choose(txn, current);
        self.check(&path, compacted, current)?;
        let mut writing = Writing { before: current, map: self.map_at(current).clone(), rows: Vec::new() };
        let mut response = self.run(&mut writing, compacted, &path)?;
        response.header = header(current);
        Ok(response)
    }

    fn choose<'a>(&self, txn: &'a pb::TxnRequest, current: i64) -> Path<'a> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare, current));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let ops = ops.iter().map(|op| match &op.request {
            Some(request_op::Request::RequestTxn(within)) => Step::Txn(self.choose(within, current)),
            request => Step::Op(request.as_ref()),
        });
        Path { succeeded, ops: ops.collect() }
    }

    fn holds(&self, compare: &pb::Compare, current: i64) -> bool {
        let pairs = in_range(self.map_at(current), &compare.key, &compare.range_end);
        if pairs.is_empty() {
            return compare.target != 3 && holds_for(compare, &KeyValue::default());
        }
        pairs.iter().all(|pair| holds_for(compare, pair))
    }

    fn check(&self, path: &Path<'_>, compacted: i64, current: i64) -> Result<(), ApiError> {
        for step in &path.ops {
            match step {
                Step::Op(Some(request_op::Request::RequestRange(range))) => match range.revision {
                    0 => {}
                    revision if revision > current => return Err(ApiError::FutureRev),
                    revision if revision < compacted => return Err(ApiError::Compacted),
                    _ => {}
                },
                Step::Op(Some(request_op::Request::RequestPut(put))) => self.check_put(put)?,
                Step::Op(_) => {}
                Step::Txn(within) => self.check(within, compacted, current)?,
            }
        }
        Ok(())
    }

    fn run(
        &self,
        writing: &mut Writing,
        compacted: i64,
        path: &Path<'_>,
    ) -> Result<pb::TxnResponse, ApiError> {
        use request_op::Request;
        use response_op::Response;
        let mut response =
            pb::TxnResponse { header: header(0), succeeded: path.succeeded, ..Default::default() };
        for step in &path.ops {
            let answer = match step {
                Step::Op(None) => None,
                Step::Op(Some(Request::RequestRange(range))) => {
                    let newest = writing.map.clone();
                    Some(Response::ResponseRange(self.read(
                        range,
                        (compacted, writing.current()),
                        &newest,
                    )?))
                }
                // The pair that it keeps is gone by now: the whole transaction is refused.
                Step::Op(Some(Request::RequestPut(put)))
                    if put.ignore_value | put.ignore_lease && !writing.map.contains_key(&put.key[..]) =>
                {
                    return Err(ApiError::KeyNotFound);
                }
                Step::Op(Some(Request::RequestPut(put))) => Some(Response::ResponsePut(writing.put(put))),
                Step::Op(Some(Request::RequestDeleteRange(delete))) => {
                    Some(Response::ResponseDeleteRange(writing.delete(delete)))
                }
                Step::Op(Some(Request::RequestTxn(_))) => unreachable!("a transaction is a step of its own"),
                Step::Txn(within) => Some(Response::ResponseTxn(self.run(writing, compacted, within)?)),
            };
            response.responses.push(pb::ResponseOp { response: answer });
        }
        Ok(response)
    }
}

struct Path<'a> {
    succeeded: bool,
    ops: Vec<Step<'a>>,
}

enum Step<'a> {
    Op(Option<&'a request_op::Request>),
    Txn(Path<'a>),
}

fn shown(range: &pb::RangeRequest, mut pairs: Vec<KeyValue>) -> Vec<KeyValue> {
    let filtered = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ] != [0; 4];
    let is_sorted = range.sort_order == 2 || (range.sort_order == 1 && range.sort_target != 0);
    if !filtered && !is_sorted && range.limit > 0 {
        pairs.truncate(range.limit as usize + 1);
    }
    let outside = |revision, min, max| (min != 0 && revision < min) || (max != 0 && revision > max);
    pairs.retain(|pair| {
        !outside(pair.mod_revision, range.min_mod_revision, range.max_mod_revision)
            && !outside(pair.create_revision, range.min_create_revision, range.max_create_revision)
    });
    pairs.sort_by(|a, b| {
        let order = match range.sort_target {
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            4 => a.value.cmp(&b.value),
            _ => a.key.cmp(&b.key),
        };
        if range.sort_order == 2 { order.reverse() } else { order }
    });
    if range.keys_only {
        for pair in &mut pairs {
            pair.value.clear();
            if range.sort_target != 4 {
                pair.lease = 0;
            }
        }
    }
    pairs
}

fn holds_for(compare: &pb::Compare, pair: &KeyValue) -> bool {
    let number = |stored: i64, operand: Option<i64>| stored.cmp(&operand.unwrap_or(0));
    let order = match (compare.target, &compare.target_union) {
        (0, Some(TargetUnion::Version(n))) => number(pair.version, Some(*n)),
        (0, _) => number(pair.version, None),
        (1, Some(TargetUnion::CreateRevision(n))) => number(pair.create_revision, Some(*n)),
        (1, _) => number(pair.create_revision, None),
        (2, Some(TargetUnion::ModRevision(n))) => number(pair.mod_revision, Some(*n)),
        (2, _) => number(pair.mod_revision, None),
        (3, Some(TargetUnion::Value(value))) => pair.value.cmp(value),
        (3, _) => pair.value[..].cmp(&[]),
        (4, Some(TargetUnion::Lease(n))) => number(pair.lease, Some(*n)),
        (4, _) => number(pair.lease, None),
        _ => std::cmp::Ordering::Equal,
    };
    match compare.result {
        0 => order.is_eq(),
        1 => order.is_gt(),
        2 => order.is_lt(),
        3 => order.is_ne(),
        _ => true,
    }
}

/// What etcd's checks before proposing say, by recursion and by lists.
pub fn admit(txn: &pb::TxnRequest, left: usize) -> Result<(), ApiError> {
    check(txn, left)?;
    overlaps(&txn.success)?;
    overlaps(&txn.failure)?;
    Ok(())
}

fn check(txn: &pb::TxnRequest, left: usize) -> Result<(), ApiError> {
    let longest = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    if longest > left {
        return Err(ApiError::TooManyOps);
    }
    if txn.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(ApiError::EmptyKey);
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            None => return Err(ApiError::KeyNotFound),
            Some(request_op::Request::RequestRange(range)) if range.key.is_empty() => {
                return Err(ApiError::EmptyKey);
            }
            Some(request_op::Request::RequestRange(range)) => {
                if !(0..3).contains(&range.sort_order) || !(0..5).contains(&range.sort_target) {
                    return Err(ApiError::InvalidSortOption);
                }
            }
            Some(request_op::Request::RequestPut(put)) if put.key.is_empty() => {
                return Err(ApiError::EmptyKey);
            }
            Some(request_op::Request::RequestPut(put)) if put.ignore_value && !put.value.is_empty() => {
                return Err(ApiError::ValueProvided);
            }
            Some(request_op::Request::RequestPut(put)) if put.ignore_lease && put.lease != 0 => {
                return Err(ApiError::LeaseProvided);
            }
            Some(request_op::Request::RequestPut(_)) => {}
            Some(request_op::Request::RequestDeleteRange(delete)) => {
                if delete.key.is_empty() {
                    return Err(ApiError::EmptyKey);
                }
            }
            Some(request_op::Request::RequestTxn(within)) => check(within, left - longest)?,
        }
    }
    Ok(())
}

type Keys = BTreeSet<Vec<u8>>;
type Deletes = Vec<(Vec<u8>, Vec<u8>)>;

fn overlaps(ops: &[pb::RequestOp]) -> Result<(Keys, Deletes), ApiError> {
    let (mut puts, mut deletes) = (Keys::new(), Deletes::new());
    for op in ops {
        if let Some(request_op::Request::RequestDeleteRange(delete)) = &op.request {
            let mut end = delete.range_end.to_vec();
            if end.is_empty() {
                end = [&delete.key[..], &[0]].concat();
            }
            deletes.push((delete.key.to_vec(), end));
        }
    }
    let clashes = |key: &Vec<u8>, puts: &Keys, deletes: &Deletes| {
        puts.contains(key) || deletes.iter().any(|(from, to)| from <= key && key < to)
    };
    for op in ops {
        if let Some(request_op::Request::RequestTxn(within)) = &op.request {
            let (mut inner, then) = overlaps(&within.success)?;
            let (other, otherwise) = overlaps(&within.failure)?;
            inner.extend(other);
            if inner.iter().any(|key| clashes(key, &puts, &deletes)) {
                return Err(ApiError::DuplicateKey);
            }
            puts.extend(inner);
            deletes.extend(then);
            deletes.extend(otherwise);
        }
    }
    for op in ops {
        if let Some(request_op::Request::RequestPut(put)) = &op.request {
            let key = put.key.to_vec();
            if clashes(&key, &puts, &deletes) {
                return Err(ApiError::DuplicateKey);
            }
            puts.insert(key);
        }
    }
    Ok((puts, deletes))
}
