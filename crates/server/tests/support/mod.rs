//! A member without consensus or disk: a map behind the front end's interfaces.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each user takes its part")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use node::{Completions, RequestId, RequestIds, Submission};
use prost::Message;
use server::grpc::{KvHash, MemberView, ReadFailure, ReadMode, Reads, SharedStatus};
use server::lane::{AppliedGate, Lane, LaneDriver, LaneParts, MemberPort};
use store::Answer;
use tokio::sync::mpsc;
use wire::etcdserverpb as pb;
use wire::mvccpb::KeyValue;
use wire::{ApiError, Status};

/// etcd's: 5 s and two election timeouts.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// What the fake does with what it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Answers at once.
    #[default]
    Answers,
    /// Keeps everything until [`FakeMember::answer_held`].
    Holds,
    /// Has no room.
    Refuses,
}

#[derive(Default)]
struct State {
    kvs: BTreeMap<Vec<u8>, KeyValue>,
    revision: i64,
    mood: Mood,
    held: Vec<Submission>,
    batches: Vec<usize>,
    rounds: usize,
    cold: bool,
    ranges: usize,
}

/// A member that keeps its keys in a map and forgets its history.
#[derive(Clone)]
pub struct FakeMember {
    state: Arc<Mutex<State>>,
    pub status: Arc<SharedStatus>,
    pub gate: Arc<AppliedGate>,
    completions: Arc<Mutex<Option<mpsc::Sender<Completions>>>>,
}

impl FakeMember {
    /// A member, and a lane to it.
    pub fn new() -> (FakeMember, Lane, LaneDriver) {
        let (completions, receiver) = mpsc::channel(1024);
        let status = Arc::new(SharedStatus::default());
        status.set_term(2);
        status.set_leader(7);
        status.set_applied(4);
        status.set_committed(4);
        let member = FakeMember {
            state: Arc::new(Mutex::new(State { revision: 1, ..State::default() })),
            status: status.clone(),
            gate: Arc::default(),
            completions: Arc::new(Mutex::new(Some(completions))),
        };
        let view = MemberView {
            cluster_id: 9,
            member_id: 7,
            reader: Arc::new(member.clone()),
            status,
            quota_bytes: 2 << 30,
        };
        let parts = LaneParts {
            member: Arc::new(view),
            port: Box::new(member.clone()),
            ids: RequestIds::new(0x5eed_0000, 1).lane(0),
            gate: member.gate.clone(),
            request_timeout: REQUEST_TIMEOUT,
        };
        let (lane, driver) = Lane::new(parts, receiver);
        (member, lane, driver)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn set_mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Reads must wait for a disk.
    pub fn set_cold(&self, cold: bool) {
        self.state().cold = cold;
    }

    /// Sizes of the batches that were submitted.
    pub fn batches(&self) -> Vec<usize> {
        self.state().batches.clone()
    }

    /// Rounds of reads that were asked for.
    pub fn rounds(&self) -> usize {
        self.state().rounds
    }

    /// Ranges that were read.
    pub fn ranges(&self) -> usize {
        self.state().ranges
    }

    pub fn held(&self) -> Vec<Submission> {
        self.state().held.clone()
    }

    pub fn put_direct(&self, key: &[u8], value: Vec<u8>) {
        let put = pb::PutRequest { key: key.to_vec().into(), value: value.into(), ..Default::default() };
        self.state().put(put);
    }

    pub fn revision_now(&self) -> i64 {
        self.state().revision
    }

    /// Answers what was held.
    pub fn answer_held(&self) {
        let held = std::mem::take(&mut self.state().held);
        self.answer(held);
    }

    pub fn send(&self, completions: Completions) {
        let sender = self.completions.lock().unwrap();
        sender.as_ref().unwrap().try_send(completions).unwrap();
    }

    /// Ends the member.
    pub fn stop(&self) {
        self.completions.lock().unwrap().take();
    }

    fn answer(&self, batch: Vec<Submission>) {
        let mut completions = Completions { applied_index: self.status.applied(), ..Completions::default() };
        let mut state = self.state();
        for submission in batch {
            match submission {
                Submission::Propose { id, data, .. } => {
                    self.status.set_committed(self.status.committed() + 1);
                    let request = pb::InternalRaftRequest::decode(data).unwrap();
                    assert_eq!(request.header.as_ref().unwrap().id, id.0);
                    completions.answers.push((id, state.apply(request)));
                }
                Submission::ReadIndex { context } => {
                    completions.reads.push((context, Ok(self.status.committed())));
                }
            }
        }
        drop(state);
        self.status.set_applied(self.status.committed());
        completions.applied_index = self.status.applied();
        self.send(completions);
    }
}

impl State {
    fn apply(&mut self, request: pb::InternalRaftRequest) -> Result<Answer, Status> {
        if let Some(put) = request.put {
            self.put(put);
            return Ok(Answer { revision: self.revision, body: Vec::new() });
        }
        if let Some(delete) = request.delete_range {
            let gone: Vec<_> =
                self.within(&delete.key, &delete.range_end).map(|kv| kv.key.to_vec()).collect();
            for key in &gone {
                self.kvs.remove(key);
            }
            self.revision += i64::from(!gone.is_empty());
            let body = pb::DeleteRangeResponse { deleted: gone.len() as i64, ..Default::default() };
            return Ok(Answer { revision: self.revision, body: body.encode_to_vec() });
        }
        if let Some(txn) = request.txn {
            for op in txn.success {
                if let Some(pb::request_op::Request::RequestPut(put)) = op.request {
                    self.put(put);
                }
            }
            let body = pb::TxnResponse { succeeded: true, ..Default::default() };
            return Ok(Answer { revision: self.revision, body: body.encode_to_vec() });
        }
        Err(ApiError::UnknownMethod.into())
    }

    fn put(&mut self, put: pb::PutRequest) {
        self.revision += 1;
        let kv = self.kvs.entry(put.key.to_vec()).or_default();
        if kv.version == 0 {
            kv.create_revision = self.revision;
        }
        kv.version += 1;
        kv.mod_revision = self.revision;
        kv.key = put.key.to_vec().into();
        kv.value = put.value.to_vec().into();
    }

    fn within<'a>(&'a self, key: &[u8], end: &[u8]) -> impl Iterator<Item = &'a KeyValue> + use<'a> {
        let (first, end) = (key.to_vec(), end.to_vec());
        self.kvs
            .range(first.clone()..)
            .take_while(move |(key, _)| match end.as_slice() {
                [] => **key == first,
                [0] => true,
                end => key.as_slice() < end,
            })
            .map(|(_, kv)| kv)
    }
}

impl MemberPort for FakeMember {
    fn submit(&self, batch: Vec<Submission>) -> Result<(), Vec<Submission>> {
        let mut state = self.state();
        state.batches.push(batch.len());
        state.rounds += batch.iter().filter(|s| matches!(s, Submission::ReadIndex { .. })).count();
        match state.mood {
            Mood::Refuses => Err(batch),
            Mood::Holds => {
                state.held.extend(batch);
                Ok(())
            }
            Mood::Answers => {
                drop(state);
                self.answer(batch);
                Ok(())
            }
        }
    }
}

impl Reads for FakeMember {
    fn range(
        &self,
        request: &pb::RangeRequest,
        mode: ReadMode,
        body: &mut Vec<u8>,
    ) -> Result<i64, ReadFailure> {
        let mut state = self.state();
        if state.cold && mode == ReadMode::NoWait {
            return Err(ReadFailure::WouldBlock);
        }
        if request.revision > state.revision {
            return Err(ReadFailure::Api(ApiError::FutureRev));
        }
        state.ranges += 1;
        let kvs: Vec<_> = state.within(&request.key, &request.range_end).cloned().collect();
        let count = kvs.len() as i64;
        pb::RangeResponse { kvs, count, ..Default::default() }.encode(body).unwrap();
        Ok(state.revision)
    }

    fn txn(&self, request: &pb::TxnRequest, _: ReadMode, body: &mut Vec<u8>) -> Result<i64, ReadFailure> {
        pb::TxnResponse { succeeded: request.compare.is_empty(), ..Default::default() }.encode(body).unwrap();
        Ok(self.state().revision)
    }

    fn hash_kv(&self, revision: i64) -> Result<KvHash, ReadFailure> {
        let now = self.state().revision;
        if revision > now {
            return Err(ReadFailure::Api(ApiError::FutureRev));
        }
        Ok(KvHash {
            hash: 42,
            revision: now,
            hash_revision: if revision == 0 { now } else { revision },
            compact_revision: -1,
        })
    }

    fn revision(&self) -> i64 {
        self.state().revision
    }

    fn members(&self) -> Vec<pb::Member> {
        vec![pb::Member { id: 7, name: "fake".into(), ..Default::default() }]
    }

    fn cluster_version(&self) -> Option<String> {
        Some("3.7.0".into())
    }
}

/// The id of a held submission.
pub fn id_of(submission: &Submission) -> RequestId {
    match submission {
        Submission::Propose { id, .. } => *id,
        Submission::ReadIndex { context } => *context,
    }
}
