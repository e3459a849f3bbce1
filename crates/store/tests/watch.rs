//! Watches against a simple model: the list of all changes. Random watches over a random history with compactions and
//! restarts, streams that are read late or not at all, and history read at any moment in between.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use prost::bytes::Bytes;
use store::watch::{Answerer, Batch, Event, HistoryJob, HistoryResult, Hub, HubLimits, StreamId, Tail};
use store::{Reader, RecordKind};
use support::Member;
use wire::etcdserverpb as pb;
use wire::mvccpb::{self, KeyValue};

const STREAMS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Put(Bytes, Bytes),
    Delete(Bytes, Bytes),
    /// Puts one key and deletes others in one revision.
    Both(Bytes, Bytes),
    /// What was applied becomes visible, as one batch.
    Publish,
    /// Back from the newest revision.
    Compact(i64),
    Create(usize, pb::WatchCreateRequest, i64),
    Cancel(usize, i64),
    Progress(usize),
    Notify(usize),
    Pump,
    Take(usize),
    StartJob,
    RunJob,
    FinishJob,
    /// Whether reads that must not wait give up.
    Cold(bool),
    /// Everything is served to the end.
    Settle,
    Cut(usize),
    Restart,
    /// Another store takes the place of this one, with all that it has and more.
    Renew,
}

fn key() -> impl Strategy<Value = Bytes> + Clone {
    prop_oneof![Just("a"), Just("b"), Just("b\0"), Just("c"), Just("d")].prop_map(support::bytes)
}

fn end() -> impl Strategy<Value = Bytes> + Clone {
    prop_oneof![3 => Just(""), 3 => Just("\0"), 1 => Just("b"), 1 => Just("c"), 2 => Just("z")]
        .prop_map(support::bytes)
}

fn value() -> impl Strategy<Value = Bytes> + Clone {
    prop_oneof![Just(""), Just("x"), Just("a value that is somewhat longer than the others are")]
        .prop_map(support::bytes)
}

prop_compose! {
    fn create()(
        key in prop_oneof![4 => key(), 1 => Just(Bytes::new())], range_end in end(),
        watch_id in prop_oneof![4 => Just(0i64), 1 => 1i64..4], filters in vec(0i32..2, 0..2),
        flags in (any::<bool>(), any::<bool>(), any::<bool>()),
    ) -> pb::WatchCreateRequest {
        let (prev_kv, fragment, progress_notify) = flags;
        pb::WatchCreateRequest { key, range_end, watch_id, filters, prev_kv, fragment, progress_notify, start_revision: 0 }
    }
}

fn step() -> impl Strategy<Value = Step> {
    // From now, from some revision back, from one to come; and below all.
    let start = prop_oneof![4 => Just(0i64), 4 => -20i64..0, 1 => 1i64..6, 1 => Just(i64::MIN)];
    prop_oneof![
        10 => (key(), value()).prop_map(|(key, value)| Step::Put(key, value)),
        3 => (key(), end()).prop_map(|(key, end)| Step::Delete(key, end)),
        2 => (key(), value()).prop_map(|(key, value)| Step::Both(key, value)),
        6 => Just(Step::Publish),
        1 => (0i64..8).prop_map(Step::Compact),
        6 => (0..STREAMS, create(), start).prop_map(|(stream, create, start)| Step::Create(stream, create, start)),
        1 => (0..STREAMS, 0i64..5).prop_map(|(stream, id)| Step::Cancel(stream, id)),
        1 => (0..STREAMS).prop_map(Step::Progress),
        1 => (0..STREAMS).prop_map(Step::Notify),
        8 => Just(Step::Pump),
        4 => (0..STREAMS).prop_map(Step::Take),
        3 => Just(Step::StartJob),
        3 => Just(Step::RunJob),
        3 => Just(Step::FinishJob),
        1 => any::<bool>().prop_map(Step::Cold),
        1 => Just(Step::Settle),
        1 => (0..STREAMS).prop_map(Step::Cut),
        1 => Just(Step::Restart),
        1 => Just(Step::Renew),
    ]
}

/// A change, and the pair before it.
#[derive(Clone, Debug)]
struct Change {
    kind: RecordKind,
    pair: KeyValue,
    previous: Option<KeyValue>,
}

/// A watch as its client knows it.
#[derive(Clone, Debug)]
struct Client {
    request: pb::WatchCreateRequest,
    /// Changes below this are not for it.
    start: i64,
    /// How much of the history it has been told of, and how much of that by whole responses.
    seen: usize,
    seen_whole: usize,
    /// Everything below this revision it was certainly served.
    settled: i64,
    is_ended: bool,
}

impl Client {
    fn wants(&self, change: &Change) -> bool {
        let (key, end) = (&self.request.key[..], &self.request.range_end[..]);
        let changed = &change.pair.key[..];
        let within = match end {
            [] => changed == key,
            [0] => changed >= key,
            end => changed >= key && changed < end,
        };
        let filter = if change.kind == RecordKind::Put { 0 } else { 1 };
        change.pair.mod_revision >= self.start && within && !self.request.filters.contains(&filter)
    }

    /// The first change that it wants and was not told of.
    fn missing<'a>(&self, history: &'a [Change]) -> Option<&'a Change> {
        history[self.seen..].iter().find(|change| self.wants(change))
    }

    /// It was sent everything up to a revision.
    fn has_all(&self, history: &[Change], revision: i64) {
        let missing = self.missing(history).filter(|change| change.pair.mod_revision <= revision);
        assert!(missing.is_none(), "{self:?} is told of progress to {revision} without {missing:?}");
    }
}

enum Job {
    Todo(HistoryJob),
    Done(HistoryResult),
}

#[derive(Default)]
struct Stream {
    id: Option<StreamId>,
    /// Created, and not answered yet; in order. The revision is the one published at the time.
    asked: std::collections::VecDeque<(pb::WatchCreateRequest, i64)>,
    watches: BTreeMap<i64, Client>,
    /// Cancelled, and not confirmed yet.
    leaving: Vec<i64>,
}

struct World {
    member: Member,
    tail: Arc<Tail>,
    hub: Hub,
    limits: HubLimits,
    history: Vec<Change>,
    streams: [Stream; STREAMS],
    jobs: Vec<Job>,
    longest_response: usize,
}

const TAIL_BYTES: usize = 600;

fn hub(reader: &Reader, limits: HubLimits) -> (Arc<Tail>, Hub) {
    let tail = Arc::new(Tail::new(reader.revision(), TAIL_BYTES));
    let answerer = Answerer { cluster_id: 11, member_id: 22, raft_term: 33 };
    let hub = Hub::new(reader.clone(), Arc::clone(&tail), answerer, limits);
    (tail, hub)
}

impl World {
    fn new(limits: HubLimits) -> World {
        let member = Member::new();
        let (tail, hub) = hub(&member.reader, limits);
        let mut world = World {
            member,
            tail,
            hub,
            limits,
            history: Vec::new(),
            streams: Default::default(),
            jobs: Vec::new(),
            longest_response: 0,
        };
        world.streams.iter_mut().for_each(|stream| stream.id = Some(world.hub.open()));
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(key, value) => {
                self.apply(pb::InternalRaftRequest { put: Some(put(key, value)), ..Default::default() });
            }
            Step::Delete(key, range_end) => {
                let delete_range = Some(pb::DeleteRangeRequest { key, range_end, prev_kv: false });
                self.apply(pb::InternalRaftRequest { delete_range, ..Default::default() });
            }
            Step::Both(key, value) => self.both(key, value),
            Step::Publish => self.publish(),
            Step::Compact(back) => {
                self.publish();
                let _refused = self.member.compact(self.member.reader.revision() - back);
                // Whoever reads there now finds gaps.
                self.member.log.scans_from.store(self.member.reader.compacted(), Ordering::Relaxed);
            }
            Step::Create(stream, request, start) => self.create(stream, request, start),
            Step::Cancel(stream, id) => {
                self.hub.cancel(self.streams[stream].id.unwrap(), id);
                self.streams[stream].leaving.push(id);
            }
            Step::Progress(stream) => self.hub.progress(self.streams[stream].id.unwrap()),
            Step::Notify(stream) => self.hub.notify_progress(self.streams[stream].id.unwrap()),
            Step::Pump => drop(self.hub.pump()),
            Step::Take(stream) => drop(self.take(stream)),
            Step::StartJob => self.jobs.extend(self.hub.next_job().map(Job::Todo)),
            Step::RunJob => {
                self.jobs = std::mem::take(&mut self.jobs).into_iter().map(|job| self.run(job)).collect();
            }
            Step::FinishJob => {
                if let Some(place) = self.jobs.iter().position(|job| matches!(job, Job::Done(_)))
                    && let Job::Done(result) = self.jobs.remove(place)
                {
                    self.hub.finish(result);
                }
            }
            Step::Cold(is_cold) => self.member.log.is_cold.store(is_cold, Ordering::Relaxed),
            Step::Settle => self.settle(),
            Step::Cut(stream) => {
                self.hub.close(self.streams[stream].id.unwrap());
                self.streams[stream] = Stream { id: Some(self.hub.open()), ..Stream::default() };
            }
            Step::Restart => self.restart(),
            Step::Renew => self.renew(),
        }
        self.hub.check();
        assert_eq!(self.hub.is_subscribed(), self.tail.is_wanted());
    }

    fn apply(&mut self, request: pb::InternalRaftRequest) {
        self.member.apply(request, false);
    }

    fn apply_put(&mut self, key: &str) {
        let request = put(support::bytes(key), Bytes::new());
        self.apply(pb::InternalRaftRequest { put: Some(request), ..Default::default() });
    }

    fn both(&mut self, key: Bytes, value: Bytes) {
        let op = |request| pb::RequestOp { request: Some(request) };
        let delete = |key: Bytes, end: &[u8]| {
            let range_end = Bytes::copy_from_slice(end);
            op(pb::request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
                key,
                range_end,
                prev_kv: false,
            }))
        };
        let behind = [&key[..], &[0]].concat();
        let success =
            vec![op(pb::request_op::Request::RequestPut(put(key, value))), delete(behind.into(), b"\0")];
        let txn = Some(pb::TxnRequest { success, ..Default::default() });
        self.apply(pb::InternalRaftRequest { txn, ..Default::default() });
    }

    /// As the apply thread does it: first the tail, then the readers.
    fn publish(&mut self) {
        self.publish_with(true);
    }

    fn publish_with(&mut self, tells: bool) {
        let records = &self.member.batch.pending;
        let events: Vec<Event> = records
            .iter()
            .map(|(kind, revision, bytes)| Event {
                kind: *kind,
                revision: *revision,
                record: bytes.clone().into(),
            })
            .collect();
        for event in &events {
            let mut pair = KeyValue::decode(&event.record[..]).unwrap();
            pair.mod_revision = event.revision.main;
            let last = self.history.iter().rev().find(|change| change.pair.key == pair.key);
            let previous = last.filter(|last| last.kind == RecordKind::Put).map(|last| last.pair.clone());
            self.history.push(Change { kind: event.kind, pair, previous });
        }
        if let (Some(first), Some(last)) = (events.first(), events.last()) {
            let (first, last) = (first.revision.main, last.revision.main);
            match self.tail.is_wanted() {
                _ if !tells => {}
                true => self.tail.push(Batch { first, last, events }),
                false => self.tail.skip(last),
            }
        }
        self.member.publish();
    }

    fn create(&mut self, stream: usize, mut request: pb::WatchCreateRequest, start: i64) {
        let id = self.streams[stream].id.unwrap();
        // A server takes no more requests of such a client.
        if self.hub.is_full(id) {
            return;
        }
        let current = self.member.reader.revision();
        request.start_revision = match start {
            0 => 0,
            i64::MIN => -1,
            back => (current + 1 + back).max(1),
        };
        self.hub.create(id, &request);
        self.streams[stream].asked.push_back((request, current));
    }

    fn run(&self, job: Job) -> Job {
        match job {
            Job::Todo(job) => Job::Done(job.run(&self.member.reader)),
            done => done,
        }
    }

    fn settle(&mut self) {
        self.publish();
        for round in 0.. {
            assert!(round < 100_000, "no end of it");
            let mut more = self.hub.pump();
            for stream in 0..STREAMS {
                more |= self.take(stream);
            }
            self.jobs.extend(self.hub.next_job().map(Job::Todo));
            for job in std::mem::take(&mut self.jobs) {
                let Job::Done(result) = self.run(job) else { unreachable!() };
                self.hub.finish(result);
                more = true;
            }
            let mut noted = Vec::new();
            self.hub.take_noted(&mut noted);
            more |= !noted.is_empty();
            if !more {
                break;
            }
        }
        let current = self.member.reader.revision();
        for client in self.streams.iter_mut().flat_map(|stream| stream.watches.values_mut()) {
            if !client.is_ended {
                let missing = client.missing(&self.history);
                assert!(missing.is_none(), "{client:?} waits for {missing:?}");
                client.settled = client.settled.max(current + 1);
            }
        }
    }

    /// What was not published yet is only seen in the next store, as what a leader's snapshot has brought. Reads of history
    /// that are under way go on.
    fn renew(&mut self) {
        self.publish_with(false);
        self.member.restart();
        self.tail = Arc::new(Tail::new(self.member.reader.revision(), TAIL_BYTES));
        self.hub.renew(self.member.reader.clone(), Arc::clone(&self.tail));
    }

    /// Clients begin anew where they were, as real ones do.
    fn restart(&mut self) {
        self.publish();
        self.member.restart();
        self.jobs.clear();
        let (tail, hub) = hub(&self.member.reader, self.limits);
        (self.tail, self.hub) = (tail, hub);
        let streams = std::mem::take(&mut self.streams);
        for (place, stream) in streams.into_iter().enumerate() {
            self.streams[place].id = Some(self.hub.open());
            for (watch_id, client) in stream.watches.into_iter().filter(|(_, client)| !client.is_ended) {
                let last = self.history[..client.seen_whole].last();
                let start_revision = client.start.max(last.map_or(0, |last| last.pair.mod_revision + 1));
                let request = pb::WatchCreateRequest { watch_id, start_revision, ..client.request };
                self.hub.create(self.streams[place].id.unwrap(), &request);
                self.streams[place].asked.push_back((request, self.member.reader.revision()));
            }
        }
    }

    /// The client of a stream reads all that there is for it; true if there was anything.
    fn take(&mut self, stream: usize) -> bool {
        let bytes = self.hub.take(self.streams[stream].id.unwrap());
        for response in responses(&bytes) {
            let length = response.encoded_len();
            self.longest_response = self.longest_response.max(length + 5);
            self.received(stream, response, length);
        }
        // A few words to each watch, the longest response, and what the limit allows.
        let said = 100 * (self.streams[stream].watches.len() + 2);
        let bound = self.limits.stream_bytes_max + self.longest_response + said;
        assert!(bytes.len() <= bound, "{} bytes wait on one stream", bytes.len());
        !bytes.is_empty()
    }

    fn received(&mut self, place: usize, response: pb::WatchResponse, length: usize) {
        let header = response.header.unwrap();
        assert_eq!((header.cluster_id, header.member_id, header.raft_term), (11, 22, 33));
        if response.created {
            return self.created(place, &response, header.revision);
        }
        let stream = &mut self.streams[place];
        if response.watch_id == -1 {
            let mut live = stream.watches.values().filter(|client| !client.is_ended).peekable();
            assert!(live.peek().is_some(), "progress of no watch");
            live.for_each(|client| client.has_all(&self.history, header.revision));
            return;
        }
        if response.canceled && response.compact_revision == 0 {
            let place = stream.leaving.iter().position(|id| *id == response.watch_id);
            stream.leaving.remove(place.expect("somebody has cancelled it"));
            assert!(stream.watches.remove(&response.watch_id).is_some());
            return;
        }
        let client = stream.watches.get_mut(&response.watch_id).expect("a watch that was created");
        assert!(!client.is_ended, "it was told that it ends");
        if response.canceled {
            client.is_ended = true;
            let compacted = response.compact_revision;
            let is_behind = client.start < compacted && client.settled < compacted;
            let first_missing = client.missing(&self.history).map_or(i64::MAX, |c| c.pair.mod_revision);
            assert!(is_behind, "{client:?} ends at {compacted}, and lacks {first_missing}");
            assert_eq!(header.revision, 0);
            return;
        }
        if response.events.is_empty() {
            assert!(client.request.progress_notify && client.seen == client.seen_whole);
            return client.has_all(&self.history, header.revision);
        }
        self.events(place, &response, header.revision, length);
    }

    fn created(&mut self, place: usize, response: &pb::WatchResponse, revision: i64) {
        let stream = &mut self.streams[place];
        let (request, current) = stream.asked.pop_front().expect("somebody asked for it");
        assert_eq!(revision, current);
        let is_empty = !matches!(&request.range_end[..], [] | [0]) && request.key >= request.range_end;
        let refused = match request.start_revision {
            ..0 => "etcdserver: mvcc: required revision has been compacted",
            _ if is_empty => "mvcc: watcher range is empty",
            _ if request.watch_id != 0 && stream.watches.contains_key(&request.watch_id) => {
                "mvcc: duplicate watch ID provided on the WatchStream"
            }
            _ => "",
        };
        assert_eq!(response.cancel_reason, refused, "{request:?}");
        assert_eq!(response.canceled, !refused.is_empty());
        if response.canceled {
            assert_eq!(response.watch_id, -1);
            return;
        }
        if request.watch_id != 0 {
            assert_eq!(response.watch_id, request.watch_id);
        }
        let start = if request.start_revision == 0 { current + 1 } else { request.start_revision };
        let client = Client { request, start, seen: 0, seen_whole: 0, settled: 0, is_ended: false };
        assert!(stream.watches.insert(response.watch_id, client).is_none(), "an id that is in use");
    }

    fn events(&mut self, place: usize, response: &pb::WatchResponse, revision: i64, length: usize) {
        let compacted = self.member.reader.compacted();
        let client = self.streams[place].watches.get_mut(&response.watch_id).unwrap();
        let fragments = client.request.fragment;
        assert!(fragments || !response.fragment);
        assert!(!fragments || length < self.limits.fragment_bytes || response.events.len() == 1);
        for event in &response.events {
            let change = client.missing(&self.history).unwrap_or_else(|| panic!("{event:?} is of no change"));
            let want = if change.kind == RecordKind::Put { 0 } else { 1 };
            assert_eq!((event.r#type, event.kv.as_ref()), (want, Some(&change.pair)), "{client:?}");
            has_previous(event, change, client.request.prev_kv, compacted);
            let main = change.pair.mod_revision;
            assert!(main <= revision, "a header of {revision}");
            let left = &self.history[client.seen..];
            client.seen += left.iter().position(|change| client.wants(change)).unwrap() + 1;
        }
        if !response.fragment {
            let last = self.history[client.seen - 1].pair.mod_revision;
            client.has_all(&self.history, last);
            client.seen_whole = client.seen;
        }
    }
}

/// The messages in what a stream has to send.
fn responses(mut bytes: &[u8]) -> Vec<pb::WatchResponse> {
    let mut responses = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[0], 0, "not compressed");
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        responses.push(pb::WatchResponse::decode(&bytes[5..5 + length]).unwrap());
        bytes = &bytes[5 + length..];
    }
    responses
}

fn has_previous(event: &mvccpb::Event, change: &Change, asked: bool, compacted: i64) {
    let is_kept = change.pair.mod_revision > compacted;
    match (&event.prev_kv, &change.previous) {
        (None, None) => {}
        (None, Some(_)) => assert!(!asked || !is_kept, "{change:?} lacks the pair before it"),
        (got, want) => {
            assert!(asked);
            assert_eq!(got, want);
        }
    }
}

#[test]
fn progress_is_told_only_where_all_watches_are_current() {
    let mut world = World::new(HubLimits::DEFAULT);
    let stream = world.streams[0].id.unwrap();
    let told = |world: &mut World| {
        world.hub.progress(stream);
        let told = responses(&world.hub.take(stream));
        told.iter().map(|told| (told.watch_id, told.header.as_ref().unwrap().revision)).collect::<Vec<_>>()
    };
    let create = |world: &mut World, key: &str, start_revision| {
        let key = support::bytes(key);
        world.hub.create(stream, &pb::WatchCreateRequest { key, start_revision, ..Default::default() });
        assert!(responses(&world.hub.take(stream))[0].created);
    };
    assert_eq!(told(&mut world), [], "of no watch");
    create(&mut world, "a", 0);
    assert_eq!(told(&mut world), [(-1, 1)]);
    create(&mut world, "b", 4);
    assert_eq!(told(&mut world), [], "one waits for a revision to come");
    for revision in 2..=4 {
        world.step(Step::Put(support::bytes("x"), Bytes::new()));
        world.publish();
        let want: &[(i64, i64)] = if revision == 4 { &[(-1, 4)] } else { &[] };
        assert_eq!(told(&mut world), want, "at {revision}");
    }
    world.hub.check();
}

#[test]
fn a_watch_ends_at_a_revision_too_long_to_send() {
    let limits = HubLimits { revision_bytes_max: 500, ..HubLimits::DEFAULT };
    for is_cold in [false, true] {
        let mut world = World::new(limits);
        let stream = world.streams[0].id.unwrap();
        let watch = |prev_kv| pb::WatchCreateRequest {
            key: support::bytes("k"),
            range_end: support::bytes("l"),
            prev_kv,
            ..Default::default()
        };
        world.hub.create(stream, &watch(true));
        world.hub.create(stream, &watch(false));
        for key in ["k1", "k2", "k3", "k4"] {
            world.step(Step::Put(support::bytes(key), vec![b'x'; 300].into()));
        }
        world.step(Step::Delete(support::bytes("k"), support::bytes("l")));
        world.step(Step::Cold(is_cold));
        world.publish();
        while world.hub.pump() {}
        while let Some(job) = world.hub.next_job() {
            let result = job.run(&world.member.reader);
            world.hub.finish(result);
            while world.hub.pump() {}
        }
        let got = responses(&world.hub.take(stream));
        let of = |id| got.iter().filter(move |response| response.watch_id == id && !response.created);
        let events: usize = of(1).map(|response| response.events.len()).sum();
        assert_eq!(events, 8, "one that does not ask for pairs is told of all");
        let ended = of(0).next_back().unwrap();
        assert!(ended.canceled && ended.events.is_empty(), "{ended:?}");
        assert_eq!(ended.cancel_reason, "the events of revision 6 are too long");
        assert_eq!(of(0).map(|response| response.events.len()).sum::<usize>(), 4, "what came before");
        world.hub.check();
    }
}

#[test]
fn many_batches_of_the_tail_are_told_in_pieces() {
    let watch = pb::WatchCreateRequest { key: support::bytes("k"), ..Default::default() };
    for puts in 1..=9 {
        let mut world = World::new(HubLimits { records_max: 2, ..HubLimits::DEFAULT });
        world.step(Step::Create(0, watch.clone(), 0));
        for _ in 0..puts {
            world.step(Step::Put(support::bytes("k"), Bytes::new()));
            world.step(Step::Publish);
        }
        world.step(Step::Create(0, watch.clone(), -puts));
        world.step(Step::Settle);
    }
}

/// What is far behind has a long way to read, piece by piece; the others do not wait for it.
#[test]
fn nobody_waits_for_those_that_are_far_behind() {
    const PUTS: i64 = 6_000;
    let mut world = World::new(HubLimits { history_bytes_max: 2_000, ..HubLimits::DEFAULT });
    let stream = world.streams[0].id.unwrap();
    let watch = |key: &str, start_revision| pb::WatchCreateRequest {
        key: support::bytes(key),
        start_revision,
        ..Default::default()
    };
    world.hub.create(stream, &watch("other", 0));
    for _ in 0..PUTS {
        world.apply_put("k");
        world.publish();
    }
    let revision = world.member.reader.revision();
    let mut jobs = Vec::new();
    for start in [2, 1_500] {
        world.hub.create(stream, &watch("k", start));
        while world.hub.pump() {}
        jobs.push(world.hub.next_job().expect("it is far behind"));
    }
    let _told = world.hub.take(stream);
    // Two of them read; now one that has a little to catch up, and one between.
    world.hub.create(stream, &watch("k", revision));
    world.hub.create(stream, &watch("k", 4_000));
    let mut told = [None; 5];
    for round in 0.. {
        assert!(round < 100_000, "they never get there");
        for response in responses(&world.hub.take(stream)) {
            let last = response.events.last().map(|event| event.kv.as_ref().unwrap().mod_revision);
            if last == Some(revision) {
                told[response.watch_id as usize].get_or_insert(round);
            }
        }
        if told[1..].iter().all(Option::is_some) {
            break;
        }
        for job in std::mem::take(&mut jobs) {
            let result = job.run(&world.member.reader);
            world.hub.finish(result);
        }
        while world.hub.pump() {}
        while let Some(job) = world.hub.next_job() {
            jobs.push(job);
            while world.hub.pump() {}
        }
        world.hub.check();
    }
    let [_, far, next, near, middle] = told.map(Option::unwrap_or_default);
    assert!(near <= 3, "{near} rounds for the one that is hardly behind");
    // It has 2,000 of the 6,000 revisions to read, the one before it 4,500.
    assert!(
        middle < next && middle < far,
        "{middle} rounds for the one between, {next} and {far} for the others"
    );
}

fn put(key: Bytes, value: Bytes) -> pb::PutRequest {
    pb::PutRequest { key, value, ..Default::default() }
}

fn limits() -> impl Strategy<Value = HubLimits> {
    prop_oneof![3 => Just(HubLimits::tiny()), 1 => Just(HubLimits::DEFAULT)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn watches_get_what_the_history_has(limits in limits(), steps in vec(step(), 1..80)) {
        let mut world = World::new(limits);
        for step in steps {
            world.step(step);
        }
        world.step(Step::Settle);
    }
}
