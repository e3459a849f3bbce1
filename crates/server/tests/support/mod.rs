//! A member without consensus or disk: the real store on records in memory, behind the front end's interfaces.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each user takes its part")]

pub mod bed;
pub mod fuzz;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use node::lease::{Lessor, LessorSettings, SharedLessor};
use node::{Completions, RequestId, RequestIds, Submission};
use server::auth::{Access, SimpleTokens, Tokens};
use server::clock::Clock;
use server::grpc::{MemberView, SharedStatus};
use server::lane::{AppliedGate, Lane, LaneDriver, LaneParts, LaneSeed, MemberPort, WatchParts};
use store::watch::{self, Event, HubLimits, Tail};
use store::{
    AuthChange, AuthRequest, Caller, Location, ROOT, ReadError, RecordKind, RecordSink, RecordSource,
    RecordVisitor, Revision, Settings, Store, admission,
};
use tokio::sync::mpsc;
use wire::{ApiError, raftpb};

/// Newest events that are kept.
const TAIL_BYTES: usize = 1 << 20;

/// etcd's: 5 s and two election timeouts.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

const HEARTBEAT_MS: u64 = 100;
const BCRYPT_COST: u32 = 4;
/// Longer than any test: it is counted by the real clock.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

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
    /// Answers at once, and applies nothing: what is left is the front end's cost.
    Pretends,
}

type Record = (RecordKind, Revision, Vec<u8>);

/// Records in memory; locations are their places.
#[derive(Default)]
struct Records {
    records: RwLock<Vec<Record>>,
    is_cold: AtomicBool,
    reads: AtomicUsize,
    scans: Mutex<Option<Scans>>,
    held_reads: Mutex<Option<HeldReads>>,
}

/// Holds every read that may wait: it says of which record it is, and goes on for each permission.
struct HeldReads {
    begun: std::sync::mpsc::Sender<u64>,
    go_on: Arc<Mutex<std::sync::mpsc::Receiver<()>>>,
}

/// Holds every scan: it says that it has begun, and goes on for each permission.
struct Scans {
    begun: std::sync::mpsc::Sender<()>,
    go_on: Arc<Mutex<std::sync::mpsc::Receiver<()>>>,
}

impl RecordSource for Records {
    fn read(&self, at: Location, out: &mut [u8]) -> Result<(), ReadError> {
        let held =
            self.held_reads.lock().unwrap().as_ref().map(|held| (held.begun.clone(), held.go_on.clone()));
        if let Some((begun, go_on)) = held {
            // A test that is over lets all go on.
            let _ = begun.send(at.0);
            let _ = go_on.lock().unwrap().recv();
        }
        self.copy(at, out)
    }

    fn read_nowait(&self, at: Location, out: &mut [u8]) -> Result<bool, ReadError> {
        if self.is_cold.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.copy(at, out).map(|()| true)
    }

    fn scan(&self, from: i64, visitor: &mut RecordVisitor<'_>) -> Result<(), ReadError> {
        let held =
            self.scans.lock().unwrap().as_ref().map(|scans| (scans.begun.clone(), scans.go_on.clone()));
        if let Some((begun, go_on)) = held {
            begun.send(()).unwrap();
            go_on.lock().unwrap().recv().unwrap();
        }
        for (kind, revision, bytes) in self.records.read().unwrap().iter() {
            if revision.main < from {
                continue;
            }
            if let ControlFlow::Break(()) = visitor(*kind, *revision, bytes) {
                break;
            }
        }
        Ok(())
    }
}

impl Records {
    fn copy(&self, at: Location, out: &mut [u8]) -> Result<(), ReadError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        out.copy_from_slice(&self.records.read().unwrap()[at.0 as usize].2);
        Ok(())
    }
}

struct Sink<'a>(&'a Records);

impl RecordSink for Sink<'_> {
    fn push(&mut self, kind: RecordKind, revision: Revision, encoded: &[u8]) -> Location {
        let mut records = self.0.records.write().unwrap();
        records.push((kind, revision, encoded.to_vec()));
        Location(records.len() as u64 - 1)
    }

    fn read(&self, at: Location, out: &mut [u8]) -> Result<(), ReadError> {
        self.0.copy(at, out)
    }
}

struct State {
    store: Store,
    /// Records that are published.
    published: usize,
    lessor: SharedLessor,
    clock: Clock,
    mood: Mood,
    held: Vec<Submission>,
    batches: Vec<usize>,
    rounds: usize,
    proposals: usize,
    reads_fail_with: Option<ApiError>,
}

/// A member that commits what it is asked at once.
#[derive(Clone)]
pub struct FakeMember {
    state: Arc<Mutex<State>>,
    records: Arc<Records>,
    pub status: Arc<SharedStatus>,
    pub access: Arc<Access>,
    pub gate: Arc<AppliedGate>,
    tail: Arc<Tail>,
    completions: Arc<Mutex<Option<mpsc::Sender<Completions>>>>,
}

impl FakeMember {
    /// A member, and a lane to it.
    pub fn new() -> (FakeMember, Lane, LaneDriver) {
        let (member, view, receiver) = FakeMember::make();
        let (lane, driver) = Lane::new(member.parts(view), receiver);
        (member, lane, driver)
    }

    /// A member that is to follow another one, and what its lane goes on with.
    pub fn next() -> (FakeMember, LaneSeed) {
        let (member, view, receiver) = FakeMember::make();
        let made = member.clone();
        (member, Box::new(move || (made.parts(view), receiver)))
    }

    fn make() -> (FakeMember, Arc<MemberView>, mpsc::Receiver<Completions>) {
        let (completions, receiver) = mpsc::channel(1024);
        let status = Arc::new(SharedStatus::default());
        status.set_term(2);
        status.set_leader(7);
        status.set_applied(4);
        status.set_committed(4);
        let records = Arc::new(Records::default());
        let mut store = Store::new(records.clone(), Settings::default());
        let context = r#"{"id":7,"peerURLs":["http://peer:1"],"name":"fake"}"#;
        let change = raftpb::ConfChange {
            r#type: Some(raftpb::ConfChangeType::ConfChangeAddNode as i32),
            node_id: Some(7),
            context: Some(context.into()),
            ..Default::default()
        };
        store.apply_conf_change(&change).unwrap();
        store.apply(&admission::encode_cluster_version_set(1, "3.7.0"), false, &mut Sink(&records)).unwrap();
        store.publish();
        let settings = LessorSettings {
            heartbeat_interval_ms: HEARTBEAT_MS,
            election_timeout_ms: 1000,
            checkpoints: false,
        };
        let clock = Clock::start();
        let lessor = SharedLessor::new(Lessor::new(settings, clock.now(), []));
        lessor.lock().lead(2);
        lessor.lock().applied(clock.now(), 2, &[]);
        let tokens = Tokens::Simple(SimpleTokens::new(TOKEN_TTL));
        let access = Arc::new(Access::new(tokens, BCRYPT_COST, clock));
        let view = MemberView {
            cluster_id: 9,
            member_id: 7,
            reader: store.reader(),
            access: access.clone(),
            leases: server::grpc::member::Leases::new(lessor.clone(), clock),
            status: status.clone(),
            quota_bytes: 2 << 30,
            quota: node::Quota::of_setting(0),
            space: Box::new(Default::default),
            compaction_finished: tokio::sync::watch::channel(-1).1,
            defragment: Box::new(|| {}),
            hashes: server::grpc::hashes::Hashes::new(u64::MAX),
            reads: server::grpc::turns::ReadTurns::default(),
            history: server::grpc::member::Turns::for_history(),
            snapshots: server::grpc::member::Turns::for_snapshots(),
            cuts: server::grpc::snapshot::Cuts::none(),
            others: server::grpc::others::Others::none(clock),
            request_timeout: REQUEST_TIMEOUT,
            metrics: Arc::default(),
        };
        let tail = Arc::new(Tail::new(view.reader.revision(), TAIL_BYTES));
        let state = State {
            store,
            published: 0,
            lessor,
            clock,
            mood: Mood::default(),
            held: Vec::new(),
            batches: Vec::new(),
            rounds: 0,
            proposals: 0,
            reads_fail_with: None,
        };
        let member = FakeMember {
            state: Arc::new(Mutex::new(state)),
            records,
            status,
            access,
            gate: Arc::default(),
            tail,
            completions: Arc::new(Mutex::new(Some(completions))),
        };
        (member, Arc::new(view), receiver)
    }

    fn parts(&self, member: Arc<MemberView>) -> LaneParts {
        LaneParts {
            counts: member.metrics.lane(0),
            member,
            port: Box::new(self.clone()),
            ids: RequestIds::new(0x5eed_0000, 1).lane(0),
            gate: self.gate.clone(),
            watches: WatchParts { tail: self.tail.clone(), limits: HubLimits::DEFAULT },
            request_timeout: REQUEST_TIMEOUT,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn set_mood(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Reads must wait for a disk.
    pub fn set_cold(&self, cold: bool) {
        self.records.is_cold.store(cold, Ordering::Relaxed);
    }

    /// Holds every scan of the records: what tells of each that begins, and what lets one go on.
    pub fn hold_scans(&self) -> (std::sync::mpsc::Receiver<()>, std::sync::mpsc::Sender<()>) {
        let (begun, beginnings) = std::sync::mpsc::channel();
        let (permissions, go_on) = std::sync::mpsc::channel();
        *self.records.scans.lock().unwrap() = Some(Scans { begun, go_on: Arc::new(Mutex::new(go_on)) });
        (beginnings, permissions)
    }

    /// Holds every read that may wait: what tells which record each is of, from 0 on in the order of their puts, and what
    /// lets one go on; all when that is dropped.
    pub fn hold_reads(&self) -> (std::sync::mpsc::Receiver<u64>, std::sync::mpsc::Sender<()>) {
        let (begun, beginnings) = std::sync::mpsc::channel();
        let (permissions, go_on) = std::sync::mpsc::channel();
        *self.records.held_reads.lock().unwrap() =
            Some(HeldReads { begun, go_on: Arc::new(Mutex::new(go_on)) });
        (beginnings, permissions)
    }

    /// Sizes of the batches that were submitted.
    pub fn batches(&self) -> Vec<usize> {
        self.state().batches.clone()
    }

    /// Rounds of reads that were asked for.
    pub fn rounds(&self) -> usize {
        self.state().rounds
    }

    /// Records that were read.
    pub fn reads(&self) -> usize {
        self.records.reads.load(Ordering::Relaxed)
    }

    /// Proposals that were asked for.
    pub fn proposals(&self) -> usize {
        self.state().proposals
    }

    /// Every round of reads fails with this from now on.
    pub fn fail_reads(&self, error: Option<ApiError>) {
        self.state().reads_fail_with = error;
    }

    /// Lets time pass for leases, as the raft thread does it. There must be some.
    pub fn pass(&self, time: Duration) {
        let state = self.state();
        let mut lessor = state.lessor.lock();
        for _ in 0..time.as_millis() / u128::from(HEARTBEAT_MS) {
            let at = lessor.tick_at();
            lessor.tick(at);
        }
    }

    /// What was proposed of leases is noted under this much shorter a time.
    pub fn checkpoint(&self, id: i64, remaining_ttl_s: i64) {
        let state = self.state();
        let change = store::LeaseChange::Checkpointed { id, remaining_ttl_s };
        state.lessor.lock().applied(state.clock.now(), 2, &[change]);
    }

    /// The member has no leader any more.
    pub fn lose_leader(&self) {
        self.status.set_leader(0);
        let waited = self.state().lessor.lock().follow();
        let answers = waited.into_iter().map(|id| (id, Err(ApiError::NotPrimaryLessor.into()))).collect();
        self.send(Completions { answers, applied_index: self.status.applied(), ..Completions::default() });
    }

    /// The member leads again.
    pub fn lead(&self) {
        let state = self.state();
        let mut lessor = state.lessor.lock();
        lessor.lead(2);
        lessor.applied(state.clock.now(), 2, &[]);
        self.status.set_leader(7);
    }

    pub fn held(&self) -> Vec<Submission> {
        self.state().held.clone()
    }

    pub fn put_direct(&self, key: &[u8], value: Vec<u8>) {
        let put = wire::etcdserverpb::PutRequest {
            key: key.to_vec().into(),
            value: value.into(),
            ..Default::default()
        };
        self.apply_direct(&admission::encode_put(1, Caller::NOBODY, &prost::Message::encode_to_vec(&put)));
    }

    pub fn grant_direct(&self, id: i64, ttl: i64) {
        let grant = wire::etcdserverpb::LeaseGrantRequest { id, ttl };
        let data = admission::encode_lease_grant(1, Caller::NOBODY, &prost::Message::encode_to_vec(&grant));
        let mut state = self.state();
        let applied = state.store.apply(&data, false, &mut Sink(&self.records)).unwrap();
        state.lessor.lock().applied(state.clock.now(), 2, &applied.leases);
        self.publish(&mut state);
    }

    pub fn delete_direct(&self, key: &[u8]) {
        let delete =
            wire::etcdserverpb::DeleteRangeRequest { key: key.to_vec().into(), ..Default::default() };
        self.apply_direct(&admission::encode_delete_range(
            1,
            Caller::NOBODY,
            &prost::Message::encode_to_vec(&delete),
        ));
    }

    /// Applies requests about users and roles, in nobody's name.
    pub fn users_direct(&self, requests: Vec<AuthRequest>) {
        for request in requests {
            self.apply_direct(&request.encode(1, Caller::NOBODY));
        }
    }

    /// As [`FakeMember::users_direct`], while users count.
    pub fn users_direct_as_root(&self, requests: Vec<AuthRequest>) {
        for request in requests {
            let revision = self.state().store.auth().revision();
            self.apply_direct(&request.encode(1, Caller { name: ROOT, revision }));
        }
    }

    /// Puts a key while users count.
    pub fn put_direct_as_root(&self, key: &[u8]) {
        self.attach_direct_as_root(std::str::from_utf8(key).unwrap(), 0);
    }

    /// Puts a key with a lease while users count.
    pub fn attach_direct_as_root(&self, key: &str, lease: i64) {
        let revision = self.state().store.auth().revision();
        let put = wire::etcdserverpb::PutRequest {
            key: key.as_bytes().to_vec().into(),
            value: "v".into(),
            lease,
            ..Default::default()
        };
        let put = prost::Message::encode_to_vec(&put);
        self.apply_direct(&admission::encode_put(1, Caller { name: ROOT, revision }, &put));
    }

    /// A user has logged in, by the entry at this index.
    pub fn log_in(&self, user: &str, token: &str) {
        let change = AuthChange::LoggedIn { user: user.to_owned(), token: token.to_owned() };
        self.access.applied(&[change]);
    }

    fn apply_direct(&self, data: &[u8]) {
        let mut state = self.state();
        let applied = state.store.apply(data, false, &mut Sink(&self.records)).unwrap();
        applied.result.unwrap();
        self.access.applied(applied.auth.as_slice());
        self.publish(&mut state);
        drop(state);
        if self.gate.take_watch() {
            self.send(Completions::default());
        }
    }

    /// As the apply thread does it.
    fn publish(&self, state: &mut State) {
        let records = self.records.records.read().unwrap();
        let events: Vec<Event> = records[state.published..]
            .iter()
            .map(|(kind, revision, record)| Event {
                kind: *kind,
                revision: *revision,
                record: record.clone().into(),
            })
            .collect();
        state.published = records.len();
        if let (Some(first), Some(last)) = (events.first(), events.last()) {
            let (first, last) = (first.revision.main, last.revision.main);
            match self.tail.is_wanted() {
                true => self.tail.push(watch::Batch { first, last, events }),
                false => self.tail.skip(last),
            }
        }
        state.store.publish();
    }

    pub fn revision_now(&self) -> i64 {
        self.state().store.revision()
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
        let pretends = state.mood == Mood::Pretends;
        for submission in batch {
            match submission {
                Submission::Propose { id, .. } if pretends => {
                    completions.answers.push((id, Ok(store::Answer { revision: 1, body: Vec::new() })));
                }
                Submission::Propose { id, data, .. } => {
                    self.status.set_committed(self.status.committed() + 1);
                    let applied = state.store.apply(&data, true, &mut Sink(&self.records)).unwrap();
                    assert_eq!(applied.id, id.0);
                    let gone = state.lessor.lock().applied(state.clock.now(), 2, &applied.leases);
                    completions.answers.push((id, applied.result.map_err(Into::into)));
                    let gone = gone.into_iter().map(|id| (id, Err(ApiError::LeaseNotFound.into())));
                    completions.answers.extend(gone);
                }
                Submission::Reconfigure { id, .. } => {
                    completions.answers.push((id, Ok(store::Answer::default())));
                }
                Submission::ReadIndex { context } => {
                    let result = match state.reads_fail_with {
                        None => Ok(self.status.committed()),
                        Some(error) => Err(error.into()),
                    };
                    completions.reads.push((context, result));
                }
                Submission::GiveUp { .. } => {}
            }
        }
        self.publish(&mut state);
        drop(state);
        // The completions tell that there is news too.
        let _ = self.gate.take_watch();
        self.status.set_applied(self.status.committed());
        completions.applied_index = self.status.applied();
        self.send(completions);
    }
}

impl MemberPort for FakeMember {
    fn submit(&self, batch: Vec<Submission>) -> Result<(), Vec<Submission>> {
        let mut state = self.state();
        state.batches.push(batch.len());
        let rounds = batch.iter().filter(|s| matches!(s, Submission::ReadIndex { .. })).count();
        state.rounds += rounds;
        state.proposals += batch.len() - rounds;
        match state.mood {
            Mood::Refuses => Err(batch),
            Mood::Holds => {
                state.held.extend(batch);
                Ok(())
            }
            Mood::Answers | Mood::Pretends => {
                drop(state);
                self.answer(batch);
                Ok(())
            }
        }
    }
}

/// The id of a held submission.
pub fn id_of(submission: &Submission) -> RequestId {
    match submission {
        Submission::Propose { id, .. } | Submission::Reconfigure { id, .. } | Submission::GiveUp { id } => {
            *id
        }
        Submission::ReadIndex { context } => *context,
    }
}
