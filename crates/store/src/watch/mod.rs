//! Watches: who is to be told of which change (rule 13).
//!
//! Each thread that serves connections has a [`Hub`] with the watches of its streams. The apply thread knows none of
//! them: it puts events into the [`Tail`] once, however many want them, and each hub takes them from there. A hub finds
//! the watches that an event concerns ([`interest`]), encodes the event once, and appends it to the outboxes of their
//! streams.
//!
//! A watch is *current* while it has everything below the hub's position. One that is not, since it begins in the past
//! or since its stream was full, is *behind*: it goes on from the tail, or from the store's history by way of
//! [`HistoryJob`]s, which run where they may wait for a disk. What one stream holds is bounded; beyond that its watches
//! are set aside, and nobody waits for them.

mod catch_up;
mod deliver;
mod interest;
mod outbox;
mod spans;
mod tail;

use std::sync::Arc;

use slab::Slab;
use wire::etcdserverpb::WatchCreateRequest;
use wire::etcdserverpb::watch_create_request::FilterType;

use crate::Reader;
use crate::record::RecordKind;
use catch_up::CatchUp;
use deliver::Scratch;
use interest::{Interest, Keys};
use outbox::{Outbox, Piece, Response};

pub use catch_up::{HistoryJob, HistoryResult};
pub use outbox::Answerer;
pub use tail::{Batch, Event, Tail};

/// The id of what is said of no watch, or of all.
const NO_WATCH: i64 = -1;

/// What etcd's gRPC layer says of a watch on a range that no key is in (etcd: watcher.go).
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
/// The same of an id that is in use on the stream.
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// How much a hub holds and does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubLimits {
    /// Bytes of responses that wait for one stream's client; beyond that its watches are set aside. One revision's
    /// events for one watch may go beyond it, since they are never parted.
    pub stream_bytes_max: usize,
    /// The same for all streams together: beyond that each gets one small response at a time.
    pub streams_bytes_max: usize,
    /// A response ends with the revision that makes it longer than this.
    pub response_bytes_target: usize,
    /// Revisions in one response.
    pub response_revisions_max: usize,
    /// A response that may be parted is, if it is this long (etcd: `--max-request-bytes` and 512 KiB).
    pub fragment_bytes: usize,
    /// Bytes of records read from history at a time, where they may concern a watch.
    pub history_bytes_max: usize,
    /// Records looked at in one go.
    pub records_max: usize,
    /// Events for watches in one go; one revision's may go beyond it.
    pub matches_max: usize,
    /// Bytes of encoded events in one go; one revision's may go beyond it.
    pub encoded_bytes_target: usize,
    /// The events of a revision that are longer together than this cannot be sent: a watch that wants them ends.
    pub revision_bytes_max: usize,
}

/// The length of a response, where it is to be a small one.
const SMALL_RESPONSE_BYTES: usize = 16 << 10;

impl HubLimits {
    /// For production.
    pub const DEFAULT: HubLimits = HubLimits {
        stream_bytes_max: 1 << 20,
        streams_bytes_max: 128 << 20,
        response_bytes_target: 2 << 20,
        response_revisions_max: 1000,
        fragment_bytes: (1536 + 512) << 10,
        history_bytes_max: 2 << 20,
        records_max: 8192,
        matches_max: 32 << 10,
        encoded_bytes_target: 4 << 20,
        revision_bytes_max: 256 << 20,
    };

    /// For tests: every bound is met soon.
    pub const fn tiny() -> HubLimits {
        HubLimits {
            stream_bytes_max: 150,
            streams_bytes_max: 200,
            response_bytes_target: 60,
            response_revisions_max: 3,
            fragment_bytes: 80,
            history_bytes_max: 60,
            records_max: 4,
            matches_max: 6,
            encoded_bytes_target: 100,
            revision_bytes_max: usize::MAX,
        }
    }
}

/// Names a stream of a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub usize);

/// How far a watch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It has everything below the hub's position.
    Current,
    /// It waits to catch up, or does.
    Behind,
    /// The same, as a member of this group.
    InGroup(u8),
    /// Its stream is full.
    Parked,
    /// It was told that what it wants is compacted. Its id stays in use until the client cancels it.
    Ended,
}

/// One watch.
#[derive(Debug)]
struct Watch {
    stream: u32,
    id: i64,
    keys: Keys,
    /// Changes below this revision are not for it.
    next: i64,
    progress: Progress,
    flags: Flags,
    /// Whether something was sent since the last look at who is to be told of progress.
    is_active: bool,
    /// Its first and last place in the list of matches being delivered.
    matches: (u32, u32),
}

/// What a watch asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    fragment: bool,
    progress_notify: bool,
    /// It asked for a revision that was still to come, and that has not come.
    is_early: bool,
}

impl Watch {
    /// Whether the revision from which on it was asked for has come; as in etcd it is told of no progress before.
    fn has_begun(&mut self, position: i64) -> bool {
        self.flags.is_early &= self.next >= position;
        !self.flags.is_early
    }
}

impl Flags {
    fn of(request: &WatchCreateRequest, current: i64) -> Flags {
        let filters = |filter: FilterType| request.filters.contains(&(filter as i32));
        Flags {
            no_put: filters(FilterType::Noput),
            no_delete: filters(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            is_early: request.start_revision > current,
        }
    }

    fn passes(self, kind: RecordKind) -> bool {
        match kind {
            RecordKind::Put => !self.no_put,
            RecordKind::Tombstone => !self.no_delete,
        }
    }
}

/// The watches of one thread's streams.
pub struct Hub {
    reader: Reader,
    tail: Arc<Tail>,
    limits: HubLimits,
    answerer: Answerer,
    streams: Slab<Outbox>,
    /// What waits on all streams together, bytes.
    waiting_bytes: usize,
    /// Events that wait on all streams together, and those that were taken.
    waiting_events: u64,
    taken_events: u64,
    watches: Slab<Watch>,
    /// Watches that were told of their end, and not cancelled yet.
    ended: usize,
    current: Interest,
    /// Current watches have all events below this.
    position: i64,
    catch_up: CatchUp,
    /// Streams with something new to send, or that are to be told of their end.
    noted: Vec<StreamId>,
    scratch: Scratch,
}

impl Hub {
    /// A hub without streams.
    pub fn new(reader: Reader, tail: Arc<Tail>, answerer: Answerer, limits: HubLimits) -> Hub {
        let position = reader.revision() + 1;
        Hub {
            reader,
            tail,
            limits,
            answerer,
            streams: Slab::new(),
            waiting_bytes: 0,
            waiting_events: 0,
            taken_events: 0,
            watches: Slab::new(),
            ended: 0,
            current: Interest::default(),
            position,
            catch_up: CatchUp::default(),
            noted: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// The raft term that headers show from now on.
    pub fn set_term(&mut self, raft_term: u64) {
        self.answerer.raft_term = raft_term;
    }

    /// Whether there is any watch: only then the hub wants to hear of new events.
    pub fn is_subscribed(&self) -> bool {
        !self.watches.is_empty()
    }

    /// How many watches there are.
    pub fn watches(&self) -> usize {
        self.watches.len()
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// How many watches have not had everything that is published.
    pub fn watches_behind(&self) -> usize {
        self.watches.len() - self.current.len() - self.ended
    }

    /// How many events wait for the clients of all streams.
    pub fn waiting_events(&self) -> u64 {
        self.waiting_events
    }

    /// How many events wait for the client of a stream.
    pub fn events_of(&self, stream: StreamId) -> u64 {
        self.streams[stream.0].events
    }

    /// How many events were taken for clients.
    pub fn taken_events(&self) -> u64 {
        self.taken_events
    }

    /// A new stream.
    pub fn open(&mut self) -> StreamId {
        StreamId(self.streams.insert(Outbox::default()))
    }

    /// Ends a stream and its watches. What it had to send is dropped.
    pub fn close(&mut self, stream: StreamId) {
        let ids = std::mem::take(&mut self.streams[stream.0].ids);
        for slot in ids.into_values() {
            self.forget(slot);
        }
        let outbox = self.streams.remove(stream.0);
        self.waiting_bytes -= outbox.bytes.len();
        self.waiting_events -= outbox.events;
        self.noted.retain(|noted| *noted != stream);
    }

    /// Whether a stream has more to send than it should: its client's requests wait then.
    pub fn is_full(&self, stream: StreamId) -> bool {
        let bytes = self.streams[stream.0].bytes.len();
        bytes >= self.limits.stream_bytes_max || (bytes > 0 && self.is_crowded())
    }

    /// Whether the clients together leave more untaken than they should.
    fn is_crowded(&self) -> bool {
        self.waiting_bytes >= self.limits.streams_bytes_max
    }

    /// What waits for the clients of all streams, bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Takes all that a stream has to send: responses with gRPC's prefix, one behind the other. Watches that were set
    /// aside since it was full catch up from now on: [`Hub::pump`] is due.
    pub fn take(&mut self, stream: StreamId) -> Vec<u8> {
        let outbox = &mut self.streams[stream.0];
        outbox.is_noted = false;
        let bytes = std::mem::take(&mut outbox.bytes);
        let events = std::mem::take(&mut outbox.events);
        self.waiting_bytes -= bytes.len();
        self.waiting_events -= events;
        self.taken_events += events;
        for slot in std::mem::take(&mut outbox.parked) {
            self.fall_behind(slot);
        }
        bytes
    }

    /// Whether a stream has anything to send.
    pub fn has_response(&self, stream: StreamId) -> bool {
        !self.streams[stream.0].bytes.is_empty()
    }

    /// Whether watches of a stream are set aside until it has room.
    pub fn has_parked(&self, stream: StreamId) -> bool {
        !self.streams[stream.0].parked.is_empty()
    }

    /// Whether something was published that no watch was told of yet.
    pub fn has_news(&self) -> bool {
        self.position <= self.reader.revision()
    }

    /// Takes the streams that have something to send since this was last asked, each once.
    pub fn take_noted(&mut self, into: &mut Vec<StreamId>) {
        into.append(&mut self.noted);
    }

    /// Creates a watch, or tells the stream why not.
    pub fn create(&mut self, stream: StreamId, request: &WatchCreateRequest) {
        if self.watches.is_empty() {
            self.tail.subscribe();
            self.position = self.reader.revision() + 1;
        }
        // From now on means: behind everything that is published now.
        while self.follow() {}
        let current = self.position - 1;
        let keys = match Keys::of(&request.key, &request.range_end) {
            _ if request.start_revision < 0 => Err(wire::ApiError::Compacted.text()),
            None => Err(EMPTY_RANGE),
            Some(keys) => Ok(keys),
        };
        let outbox = &mut self.streams[stream.0];
        let taken = request.watch_id != 0 && outbox.ids.contains_key(&request.watch_id);
        let refused = match keys {
            Ok(_) if taken => DUPLICATE_ID,
            Err(reason) => reason,
            Ok(keys) => {
                let id = if request.watch_id == 0 { outbox.free_id() } else { request.watch_id };
                self.respond(
                    stream,
                    &Response { revision: current, watch_id: id, created: true, ..Response::default() },
                );
                self.add(stream, id, keys, request, current);
                return;
            }
        };
        self.tell_refused(stream, current, refused);
        if self.watches.is_empty() {
            self.tail.unsubscribe();
        }
    }

    /// Tells a stream why a watch is not created, which whoever serves it has found.
    pub fn refuse(&mut self, stream: StreamId, reason: &str) {
        let current = if self.watches.is_empty() {
            self.reader.revision()
        } else {
            while self.follow() {}
            self.position - 1
        };
        self.tell_refused(stream, current, reason);
    }

    fn tell_refused(&mut self, stream: StreamId, revision: i64, cancel_reason: &str) {
        let (created, canceled) = (true, true);
        let response = Response {
            revision,
            watch_id: NO_WATCH,
            created,
            canceled,
            cancel_reason,
            ..Response::default()
        };
        self.respond(stream, &response);
    }

    fn add(&mut self, stream: StreamId, id: i64, keys: Keys, request: &WatchCreateRequest, current: i64) {
        let start = request.start_revision;
        let next = if start == 0 { current + 1 } else { start };
        let watch = Watch {
            stream: stream.0 as u32,
            id,
            keys,
            next,
            progress: Progress::Behind,
            flags: Flags::of(request, current),
            is_active: false,
            matches: (deliver::NONE, deliver::NONE),
        };
        let slot = self.watches.insert(watch) as u32;
        let outbox = &mut self.streams[stream.0];
        outbox.ids.insert(id, slot);
        outbox.progress_watches += usize::from(request.progress_notify);
        if next >= self.position {
            self.make_current(slot);
        } else {
            self.fall_behind(slot);
        }
    }

    /// Cancels a watch; one that is not there is none of anybody's business.
    pub fn cancel(&mut self, stream: StreamId, id: i64) {
        let Some(slot) = self.streams[stream.0].ids.remove(&id) else { return };
        let outbox = &mut self.streams[stream.0];
        outbox.parked.remove(&slot);
        outbox.progress_watches -= usize::from(self.watches[slot as usize].flags.progress_notify);
        self.forget(slot);
        let revision = self.reader.revision();
        self.respond(stream, &Response { revision, watch_id: id, canceled: true, ..Response::default() });
    }

    /// Answers a request for progress: if the stream has watches, and all of them have everything up to the revision
    /// that is told.
    pub fn progress(&mut self, stream: StreamId) {
        while self.follow() {}
        let revision = self.position - 1;
        let mut live = 0;
        for slot in self.streams[stream.0].ids.values() {
            let watch = &mut self.watches[*slot as usize];
            let has_begun = watch.has_begun(self.position);
            match watch.progress {
                Progress::Ended => {}
                Progress::Current if has_begun => live += 1,
                _ => return,
            }
        }
        if live > 0 {
            self.respond(stream, &Response { revision, watch_id: NO_WATCH, ..Response::default() });
        }
    }

    /// Tells the watches of a stream that asked for it how far they are, unless they were sent something since this was
    /// last done. To be done at an interval.
    pub fn notify_progress(&mut self, stream: StreamId) {
        let revision = self.position - 1;
        let slots: Vec<u32> = self.streams[stream.0].ids.values().copied().collect();
        for slot in slots {
            let position = self.position;
            let watch = &mut self.watches[slot as usize];
            let is_due = watch.progress == Progress::Current && watch.has_begun(position);
            if !watch.flags.progress_notify || std::mem::take(&mut watch.is_active) || !is_due {
                continue;
            }
            let watch_id = watch.id;
            self.respond(stream, &Response { revision, watch_id, ..Response::default() });
        }
    }

    /// Whether any watch of a stream asked to be told of progress.
    pub fn wants_progress(&self, stream: StreamId) -> bool {
        self.streams[stream.0].progress_watches > 0
    }

    /// Takes a piece of what is new from the tail, and helps those that are behind. True if there is more to do at once.
    pub fn pump(&mut self) -> bool {
        let more = self.follow();
        self.advance_groups() || more
    }

    /// A read of history that is to be done next, where it may wait for a disk; its result goes to [`Hub::finish`].
    pub fn next_job(&mut self) -> Option<HistoryJob> {
        self.next_history_job()
    }

    /// Everything was replaced by a leader's snapshot, and is read here from now on: all watches read again from where they
    /// were.
    pub fn renew(&mut self, reader: Reader, tail: Arc<Tail>) {
        if self.is_subscribed() {
            tail.subscribe();
            self.tail.unsubscribe();
        }
        (self.reader, self.tail) = (reader, tail);
        self.leave_behind(self.reader.revision() + 1);
    }

    /// All that are current fall behind, and the hub goes on at `position`.
    fn leave_behind(&mut self, position: i64) {
        for slot in self.current.drain() {
            let watch = &mut self.watches[slot as usize];
            watch.next = watch.next.max(self.position);
            // One that waits for what is still to come has missed nothing.
            if watch.next >= position {
                self.current.insert(&watch.keys, slot);
            } else {
                self.fall_behind(slot);
            }
        }
        self.position = position;
    }

    fn respond(&mut self, stream: StreamId, response: &Response<'_>) {
        self.push(stream.0, response, &[], &[]);
    }

    /// Appends a response with events, which are pieces of `buffer`.
    fn push(&mut self, stream: usize, response: &Response<'_>, pieces: &[Piece], buffer: &[u8]) {
        self.waiting_bytes += self.streams[stream].push(&self.answerer, response, pieces, buffer);
        self.waiting_events += pieces.len() as u64;
        self.note(stream);
    }

    fn note(&mut self, stream: usize) {
        if !std::mem::replace(&mut self.streams[stream].is_noted, true) {
            self.noted.push(StreamId(stream));
        }
    }

    fn make_current(&mut self, slot: u32) {
        let watch = &mut self.watches[slot as usize];
        watch.progress = Progress::Current;
        self.current.insert(&watch.keys, slot);
    }

    /// The watch is in no set; it waits to catch up.
    fn fall_behind(&mut self, slot: u32) {
        let watch = &mut self.watches[slot as usize];
        watch.progress = Progress::Behind;
        self.catch_up.wait(watch.next, slot);
    }

    /// The watch is in no set but its stream's; it goes on at `next` when the stream has room.
    fn park(&mut self, slot: u32, next: i64) {
        let watch = &mut self.watches[slot as usize];
        (watch.progress, watch.next) = (Progress::Parked, next);
        self.streams[watch.stream as usize].parked.insert(slot);
    }

    /// Takes a watch out of the set that it is in.
    fn take_out(&mut self, slot: u32) {
        let watch = &self.watches[slot as usize];
        match watch.progress {
            Progress::Current => self.current.remove(&watch.keys, slot),
            Progress::Behind => self.catch_up.stop_waiting(watch.next, slot),
            Progress::InGroup(group) => self.catch_up.leave(group, &watch.keys, slot),
            Progress::Parked | Progress::Ended => {}
        }
    }

    /// The watch is gone; it is in none of its stream's lists any more.
    fn forget(&mut self, slot: u32) {
        self.take_out(slot);
        let watch = self.watches.remove(slot as usize);
        self.ended -= usize::from(watch.progress == Progress::Ended);
        if self.watches.is_empty() {
            self.tail.unsubscribe();
        }
    }

    /// What a watch wants next is compacted.
    fn end(&mut self, slot: u32, compacted: i64) {
        self.take_out(slot);
        self.tell_end(slot, compacted, "");
    }

    /// Ends a watch that is in no set.
    fn tell_end(&mut self, slot: u32, compact_revision: i64, cancel_reason: &str) {
        let watch = &mut self.watches[slot as usize];
        self.ended += usize::from(std::mem::replace(&mut watch.progress, Progress::Ended) != Progress::Ended);
        let (stream, watch_id) = (watch.stream as usize, watch.id);
        let response =
            Response { watch_id, canceled: true, compact_revision, cancel_reason, ..Response::default() };
        self.respond(StreamId(stream), &response);
    }

    /// Checks every invariant. Panics if one does not hold.
    pub fn check(&self) {
        self.current.check();
        self.catch_up.check(&self.watches);
        let ids: usize = self.streams.iter().map(|(_, outbox)| outbox.ids.len()).sum();
        assert_eq!(ids, self.watches.len(), "watches by their ids");
        let waiting: usize = self.streams.iter().map(|(_, outbox)| outbox.bytes.len()).sum();
        assert_eq!(waiting, self.waiting_bytes, "bytes that wait");
        let events: u64 = self.streams.iter().map(|(_, outbox)| outbox.events).sum();
        assert_eq!(events, self.waiting_events, "events that wait");
        let ended = self.watches.iter().filter(|(_, watch)| watch.progress == Progress::Ended).count();
        assert_eq!(ended, self.ended, "watches that have ended");
        for (id, outbox) in &self.streams {
            let asked =
                |(_, watch): &(usize, &Watch)| watch.stream as usize == id && watch.flags.progress_notify;
            assert_eq!(
                outbox.progress_watches,
                self.watches.iter().filter(asked).count(),
                "who asked for progress"
            );
        }
        let mut current = 0;
        for (slot, watch) in &self.watches {
            let outbox = &self.streams[watch.stream as usize];
            assert_eq!(outbox.ids.get(&watch.id), Some(&(slot as u32)), "watch {}", watch.id);
            assert_eq!(watch.matches, (deliver::NONE, deliver::NONE), "nothing is being delivered");
            current += usize::from(watch.progress == Progress::Current);
            let is_parked = outbox.parked.contains(&(slot as u32));
            assert_eq!(is_parked, watch.progress == Progress::Parked, "watch {} is set aside", watch.id);
        }
        assert_eq!(current, self.current.len(), "watches that are current");
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if !self.watches.is_empty() {
            self.tail.unsubscribe();
        }
    }
}
