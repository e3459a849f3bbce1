//! Random requests: the same for the same seed.

use bytes::Bytes;
use wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcdserverpb::range_request::{SortOrder, SortTarget};
use wire::etcdserverpb::request_op::Request;
use wire::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

/// A generator that gives the same numbers for the same seed (splitmix64).
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Keys of a small set, so that requests meet; some of them are no text.
    pub fn key(&mut self) -> Bytes {
        match self.below(8) {
            0 => Bytes::from(vec![0xff, self.below(3) as u8]),
            1 => Bytes::from(vec![0, self.below(3) as u8]),
            _ => Bytes::from(format!("k{:02}", self.below(30))),
        }
    }

    /// Often none.
    pub fn range_end(&mut self) -> Bytes {
        match self.below(6) {
            0 => Bytes::from_static(b"\0"),
            1 | 2 => self.key(),
            _ => Bytes::new(),
        }
    }

    /// A put without a lease.
    pub fn put(&mut self) -> PutRequest {
        let length = if self.one_in(20) { self.below(20_000) } else { self.below(60) };
        let value: Vec<u8> = (0..length).map(|_| self.below(256) as u8).collect();
        PutRequest { key: self.key(), value: value.into(), prev_kv: self.one_in(3), ..Default::default() }
    }

    /// A delete of a key or of several.
    pub fn delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest { key: self.key(), range_end: self.range_end(), prev_kv: self.one_in(3) }
    }

    /// A compare.
    pub fn compare(&mut self) -> Compare {
        let number = self.below(5) as i64;
        let (target, operand) = match self.below(4) {
            0 => (CompareTarget::Version, TargetUnion::Version(number)),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(number)),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(number * 20)),
            _ => (CompareTarget::Value, TargetUnion::Value(Bytes::from(vec![self.below(256) as u8]))),
        };
        let result = match self.below(4) {
            0 => CompareResult::Equal,
            1 => CompareResult::Greater,
            2 => CompareResult::Less,
            _ => CompareResult::NotEqual,
        };
        Compare {
            key: self.key(),
            range_end: self.range_end(),
            target: target.into(),
            result: result.into(),
            target_union: Some(operand),
        }
    }

    /// Some of these are refused for touching a key twice: by both servers, if by one.
    pub fn txn(&mut self, depth: u32) -> TxnRequest {
        let compare = (0..self.below(3)).map(|_| self.compare()).collect();
        TxnRequest { compare, success: self.ops(depth), failure: self.ops(depth) }
    }

    fn ops(&mut self, depth: u32) -> Vec<RequestOp> {
        let op = |random: &mut Random| match random.below(8) {
            0 => Request::RequestRange(RangeRequest {
                key: random.key(),
                range_end: random.range_end(),
                limit: random.below(4) as i64,
                ..Default::default()
            }),
            1 if depth < 2 => Request::RequestTxn(random.txn(depth + 1)),
            2 | 3 => Request::RequestDeleteRange(random.delete()),
            _ => Request::RequestPut(random.put()),
        };
        (0..self.below(4)).map(|_| RequestOp { request: Some(op(self)) }).collect()
    }

    /// A range with everything that one may have, at a revision from 0, for the newest, to a bit above `revision`.
    pub fn range(&mut self, revision: i64) -> RangeRequest {
        let bound = |random: &mut Random| {
            if random.one_in(6) { random.below(revision.max(1) as u64 + 2) as i64 } else { 0 }
        };
        let order = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend][self.below(3) as usize];
        let targets =
            [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value];
        RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            limit: if self.one_in(3) { self.below(6) as i64 } else { 0 },
            revision: if self.one_in(2) { self.below(revision as u64 + 3) as i64 } else { 0 },
            sort_order: order.into(),
            sort_target: targets[self.below(5) as usize].into(),
            serializable: self.one_in(2),
            keys_only: self.one_in(5),
            count_only: self.one_in(8),
            min_mod_revision: bound(self),
            max_mod_revision: bound(self),
            min_create_revision: bound(self),
            max_create_revision: bound(self),
        }
    }
}
