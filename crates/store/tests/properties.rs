//! The store against the model: random requests, read and checked at every revision, restarted in between.

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use store::{RangeStream, ReadFailure, ReadMode, StreamChunk, admission, request};
use support::model::{self, Model};
use support::{Member, response};
use wire::etcdserverpb::{self as pb, compare::TargetUnion, request_op::Request};
use wire::{RequestLimits, Status};

#[derive(Clone, Debug)]
enum Step {
    Put(pb::PutRequest, bool),
    Delete(pb::DeleteRangeRequest, bool),
    Txn(pb::TxnRequest, bool),
    Range(pb::RangeRequest),
    Stream(pb::RangeRequest, usize),
    Hash(i64),
    Compact(i64),
    /// Background work of compactions: so many steps.
    CompactorSteps(usize),
    Grant(i64, i64),
    Revoke(i64),
    Checkpoint(i64, i64),
    Publish,
    Restart,
}

fn key() -> impl Strategy<Value = prost::bytes::Bytes> + Clone {
    prop_oneof![Just("a"), Just("b"), Just("b\0"), Just("c"), Just("d"), Just("\0")].prop_map(support::bytes)
}

fn end() -> impl Strategy<Value = prost::bytes::Bytes> + Clone {
    prop_oneof![4 => Just(""), 2 => Just("\0"), 1 => Just("b"), 1 => Just("c"), 1 => Just("z")]
        .prop_map(support::bytes)
}

fn value() -> impl Strategy<Value = prost::bytes::Bytes> + Clone {
    prop_oneof![Just(""), Just("x"), Just("y"), Just("a longer value")].prop_map(support::bytes)
}

prop_compose! {
    fn put()(
        key in key(), value in value(), prev_kv in any::<bool>(),
        keep in prop_oneof![6 => Just((false, false)), 1 => Just((true, false)), 1 => Just((false, true))],
        lease in prop_oneof![4 => Just(0), 2 => lease()],
    ) -> pb::PutRequest {
        let (ignore_value, ignore_lease) = keep;
        let value = if ignore_value { prost::bytes::Bytes::new() } else { value };
        let lease = if ignore_lease { 0 } else { lease };
        pb::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
    }
}

fn lease() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![Just(1i64), Just(2), Just(-7), Just(i64::MAX)]
}

prop_compose! {
    fn delete()(key in key(), range_end in end(), prev_kv in any::<bool>()) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key, range_end, prev_kv }
    }
}

fn bound() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![6 => Just(0i64), 1 => 1i64..12]
}

prop_compose! {
    fn range()(
        key in key(), range_end in end(),
        limit in prop_oneof![Just(0i64), Just(-1), 1i64..5],
        revision in prop_oneof![3 => Just(0i64), 1 => -2i64..15],
        sort_order in 0i32..3, sort_target in 0i32..5,
        forms in (any::<bool>(), prop::bool::weighted(0.1)),
        bounds in (bound(), bound(), bound(), bound()),
    ) -> pb::RangeRequest {
        let (keys_only, count_only) = forms;
        let (min_mod_revision, max_mod_revision, min_create_revision, max_create_revision) = bounds;
        pb::RangeRequest {
            key, range_end, limit, revision, sort_order, sort_target, serializable: false, keys_only, count_only,
            min_mod_revision, max_mod_revision, min_create_revision, max_create_revision,
        }
    }
}

fn operand() -> impl Strategy<Value = Option<TargetUnion>> {
    prop_oneof![
        Just(None),
        (0i64..4).prop_map(|n| Some(TargetUnion::Version(n))),
        (0i64..10).prop_map(|n| Some(TargetUnion::CreateRevision(n))),
        (0i64..10).prop_map(|n| Some(TargetUnion::ModRevision(n))),
        value().prop_map(|value| Some(TargetUnion::Value(value))),
        (0i64..2).prop_map(|n| Some(TargetUnion::Lease(n))),
    ]
}

prop_compose! {
    fn compare()(
        key in key(), range_end in end(), target in 0i32..6, result in 0i32..5, target_union in operand(),
    ) -> pb::Compare {
        pb::Compare { result, target, key, range_end, target_union }
    }
}

fn op(txn: BoxedStrategy<pb::TxnRequest>) -> impl Strategy<Value = pb::RequestOp> {
    prop_oneof![
        4 => put().prop_map(Request::RequestPut),
        2 => delete().prop_map(Request::RequestDeleteRange),
        2 => range().prop_map(Request::RequestRange),
        2 => txn.prop_map(Request::RequestTxn),
    ]
    .prop_map(|request| pb::RequestOp { request: Some(request) })
}

fn txn_of(depth: u32) -> BoxedStrategy<pb::TxnRequest> {
    if depth == 0 {
        return vec(compare(), 0..2)
            .prop_map(|compare| pb::TxnRequest { compare, ..Default::default() })
            .boxed();
    }
    (vec(compare(), 0..2), vec(op(txn_of(depth - 1)), 0..4), vec(op(txn_of(depth - 1)), 0..3))
        .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
        .boxed()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (put(), any::<bool>()).prop_map(|(put, wanted)| Step::Put(put, wanted)),
        2 => (delete(), any::<bool>()).prop_map(|(delete, wanted)| Step::Delete(delete, wanted)),
        5 => (txn_of(3), any::<bool>()).prop_map(|(txn, wanted)| Step::Txn(txn, wanted)),
        5 => range().prop_map(Step::Range),
        2 => (range(), 1usize..60).prop_map(|(range, target)| Step::Stream(range, target)),
        2 => (-2i64..25).prop_map(Step::Hash),
        2 => (-1i64..25).prop_map(Step::Compact),
        3 => (1usize..6).prop_map(Step::CompactorSteps),
        2 => (lease(), -1i64..5).prop_map(|(id, ttl)| Step::Grant(id, ttl)),
        1 => (lease(), 0i64..5).prop_map(|(id, left)| Step::Checkpoint(id, left)),
        1 => prop_oneof![lease(), Just(0)].prop_map(Step::Revoke),
        4 => Just(Step::Publish),
        1 => Just(Step::Restart),
    ]
}

/// What a request becomes in the log.
fn entry(put: Option<pb::PutRequest>, delete: Option<pb::DeleteRangeRequest>) -> pb::InternalRaftRequest {
    pb::InternalRaftRequest { put, delete_range: delete, ..Default::default() }
}

/// One member and its model, side by side.
struct Twin {
    member: Member,
    model: Model,
    /// The revision and the compacted revision that readers see.
    published: i64,
    compacted: i64,
}

impl Twin {
    fn new() -> Self {
        Twin { member: Member::new(), model: Model::default(), published: 1, compacted: -1 }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(put, wanted) => {
                let want = self.model.put(&put);
                self.same(entry(Some(put), None), wanted, want);
            }
            Step::Delete(delete, wanted) => {
                let want = Ok(self.model.delete(&delete));
                self.same(entry(None, Some(delete)), wanted, want);
            }
            Step::Txn(txn, wanted) => self.txn(&txn, wanted),
            Step::Range(range) => self.range(&range),
            Step::Stream(range, target) => self.stream(&range, target),
            Step::Hash(revision) => self.hash(revision),
            Step::Compact(revision) => {
                // The model has a compaction's hash at once: whoever asks for it must find it made.
                let compaction = Some(pb::CompactionRequest { revision, physical: false });
                let request = pb::InternalRaftRequest { compaction, ..Default::default() };
                let want = self.model.compact(revision);
                let header =
                    Some(pb::ResponseHeader { revision: self.model.current(), ..Default::default() });
                self.same(request, true, want.map(|()| pb::CompactionResponse { header }));
            }
            Step::CompactorSteps(count) => {
                for _ in 0..count {
                    self.member.compactor.step().unwrap();
                    self.member.store.check();
                }
            }
            Step::Grant(id, ttl) => {
                let lease_grant = Some(pb::LeaseGrantRequest { id, ttl });
                let want = self.model.grant(id, ttl);
                self.same(pb::InternalRaftRequest { lease_grant, ..Default::default() }, true, want);
            }
            Step::Revoke(id) => {
                let lease_revoke = Some(pb::LeaseRevokeRequest { id });
                let want = self.model.revoke(id);
                self.same(pb::InternalRaftRequest { lease_revoke, ..Default::default() }, true, want);
            }
            Step::Checkpoint(id, remaining_ttl) => {
                let checkpoints = vec![pb::LeaseCheckpoint { id, remaining_ttl }];
                let lease_checkpoint = Some(pb::LeaseCheckpointRequest { checkpoints });
                self.model.checkpoint(id, remaining_ttl);
                let request = pb::InternalRaftRequest { lease_checkpoint, ..Default::default() };
                self.member.apply(request, true);
            }
            Step::Publish => self.publish(),
            Step::Restart => {
                self.publish();
                self.member.restart();
                self.model.hashes.clear();
            }
        }
        self.leases();
        assert_eq!(self.member.store.revision(), self.model.current());
        assert_eq!(self.member.reader.revision(), self.published);
    }

    fn publish(&mut self) {
        self.member.publish();
        self.published = self.model.current();
        self.compacted = self.model.compacted;
    }

    /// Leases are seen as soon as they are applied; their keys too.
    fn leases(&self) {
        let reader = &self.member.reader;
        let got: Vec<_> =
            reader.leases().iter().map(|(id, t)| (*id, (t.granted_ttl_s, t.remaining_ttl_s))).collect();
        let want: Vec<_> = self.model.leases.iter().map(|(id, times)| (*id, *times)).collect();
        assert_eq!(got, want);
        for (id, _) in want {
            assert_eq!(reader.lease_keys(id), self.model.lease_keys(id, self.model.current()), "lease {id}");
        }
    }

    fn stream(&mut self, range: &pb::RangeRequest, target: usize) {
        let range = pb::RangeRequest {
            sort_order: 0,
            sort_target: 0,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
            ..range.clone()
        };
        let want = self.model.range(&range, self.compacted, self.published).map_err(ReadFailure::Api);
        let mut stream = RangeStream::new(&request::Range::from(&range), target);
        let mut chunks: Vec<pb::RangeResponse> = Vec::new();
        let got = loop {
            let mut body = Vec::new();
            match stream.next(&self.member.reader, ReadMode::MayBlock, &mut body) {
                Ok(StreamChunk::Next) => {
                    let chunk: pb::RangeResponse = response(&store::Answer { revision: 0, body });
                    assert!(!chunk.kvs.is_empty() && chunk.count == 0 && !chunk.more, "{chunk:?}");
                    chunks.push(chunk);
                }
                Ok(StreamChunk::Last(revision)) => {
                    let mut last: pb::RangeResponse = response(&store::Answer { revision, body });
                    last.kvs = chunks.into_iter().flat_map(|chunk| chunk.kvs).chain(last.kvs).collect();
                    break Ok(last);
                }
                Err(failure) => break Err(failure),
            }
        };
        assert_eq!(got, want);
        assert!(want.is_err() || stream.is_done());
    }

    fn same<T: prost::Message + Default + PartialEq + std::fmt::Debug>(
        &mut self,
        request: pb::InternalRaftRequest,
        wanted: bool,
        want: Result<T, wire::ApiError>,
    ) {
        let got = self.member.apply(request, wanted).result;
        match (got, want) {
            (Ok(answer), Ok(want)) if wanted => assert_eq!(response::<T>(&answer), want),
            (Ok(answer), Ok(_)) => assert!(answer.body.is_empty()),
            (got, want) => assert_eq!(got.map(|_| ()), want.map(|_| ())),
        }
    }

    fn txn(&mut self, txn: &pb::TxnRequest, wanted: bool) {
        let encoded = txn.encode_to_vec();
        let decoded = request::Txn::decode(&encoded).unwrap();
        let limits = RequestLimits { txn_ops_max: 6, ..RequestLimits::DEFAULT };
        let admitted = admission::check_txn(&decoded, &limits);
        let want = model::admit(txn, 6);
        assert_eq!(admitted, want.map_err(Status::from), "{txn:?}");
        if want.is_err() {
            return;
        }
        if decoded.is_read_only() {
            let mut body = Vec::new();
            let got = self.member.reader.txn(&decoded, ReadMode::MayBlock, &mut body);
            let got = got.map(|(revision, _)| response::<pb::TxnResponse>(&store::Answer { revision, body }));
            let want = self.model.read_txn(txn, self.compacted, self.published);
            assert_eq!(got, want.map_err(ReadFailure::Api));
        }
        let want = self.model.txn(txn);
        let request = pb::InternalRaftRequest { txn: Some(txn.clone()), ..Default::default() };
        self.same(request, wanted, want);
    }

    fn range(&mut self, range: &pb::RangeRequest) {
        let want = self.model.range(range, self.compacted, self.published).map_err(ReadFailure::Api);
        assert_eq!(self.member.range(range), want);
        // Through the log, as other versions of etcd may send it, everything applied is seen.
        let want = self.model.range(range, self.model.compacted, self.model.current());
        let request = pb::InternalRaftRequest { range: Some(range.clone()), ..Default::default() };
        self.same(request, true, want);
    }

    fn hash(&mut self, revision: i64) {
        // A compaction's hash is there when its work is done; the model's is there at once.
        if self.model.hashes.iter().any(|hash| hash.revision == revision) {
            self.publish();
            self.member.finish_compactions();
        }
        let got = self.member.reader.hash_kv(revision);
        let got = got.map(|(hash, current)| {
            assert_eq!(current, self.published);
            let (compacted, revision) = (hash.compact_revision, hash.hash_revision);
            model::Hash { sum: hash.hash, compacted, revision }
        });
        // What is applied and not published yet has already left the model's rows.
        if self.compacted == self.model.compacted {
            let want = self.model.hash(revision, self.compacted, self.published).map_err(ReadFailure::Api);
            assert_eq!(got, want);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn answers_as_the_model_does(steps in vec(step(), 1..40)) {
        let mut twin = Twin::new();
        for step in steps {
            twin.step(step);
        }
        twin.step(Step::Restart);
        twin.hash(0);
        twin.member.finish_compactions();
        let all = pb::RangeRequest { key: support::bytes("\0"), range_end: support::bytes("\0"), ..Default::default() };
        for revision in 0..=twin.published {
            twin.range(&pb::RangeRequest { revision, ..all.clone() });
            twin.hash(revision);
        }
    }
}
