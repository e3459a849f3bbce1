//! Watches that are behind: they go on from the tail or, further back, from the store's history.
//!
//! Those that are at about the same place are one group, which reads once for all of them and takes up others that it
//! comes to. Three groups at most are at work: one from the watch that is farthest behind, one from the nearest, which
//! gives way to nearer ones, and one only for those that are hardly behind at all. So the first goes on whatever comes,
//! and nobody waits for somebody else's long way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use slab::Slab;

use super::deliver::{Delivered, Delivery, Previous, Prior};
use super::interest::{Interest, Keys};
use super::{Event, Hub, HubLimits, Progress, Watch};
use crate::mvcc::{KeyValue, ReadMode};
use crate::{ReadError, Reader};

/// Groups at work.
const GROUPS: usize = 3;
/// The one that begins with the watch that is farthest behind.
const FAR: usize = 0;
/// The one for those that are hardly behind.
const NEAR: usize = 2;
/// How far behind that is, revisions.
const NEAR_REVISIONS: i64 = 1000;
/// Pieces of history that a group reads before it gives way to a watch that is nearer.
const TURN_PIECES: u32 = 8;
/// How far ahead of a group watches are taken up that wait there, revisions.
const TAKE_UP_AHEAD: i64 = 1000;

/// The watches that are behind.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    /// Those that no group has taken up, by the revision that they want next.
    waiting: BTreeMap<i64, BTreeSet<u32>>,
    groups: [Option<Group>; GROUPS],
}

#[derive(Debug, Default)]
struct Group {
    /// Its watches have everything below this.
    next: i64,
    interest: Interest,
    /// The job that is under way.
    job: JobState,
    /// Pieces that it has read.
    pieces: u32,
}

#[derive(Debug, Default)]
enum JobState {
    #[default]
    None,
    /// Handed out.
    Running,
    /// Read, but pairs before these events are still to be read.
    Needs(Chunk, Vec<usize>),
    /// Read, and to be delivered.
    Read(Chunk),
}

/// Events of some revisions, read from history.
#[derive(Debug, Default)]
struct Chunk {
    events: Vec<Event>,
    previous: Previous,
    /// Everything below this was looked at.
    next: i64,
}

/// A piece of history to be read; see [`Hub::next_job`].
#[derive(Debug)]
pub struct HistoryJob {
    group: usize,
    task: Task,
}

#[derive(Debug)]
enum Task {
    Read { from: i64, upto: i64, bytes_max: usize, records_max: usize, hull: (Vec<u8>, Option<Vec<u8>>) },
    Previous(Chunk, Vec<usize>, HubLimits),
}

/// What a [`HistoryJob`] has read.
#[derive(Debug)]
pub struct HistoryResult {
    group: usize,
    chunk: Result<Chunk, Failure>,
}

#[derive(Debug)]
enum Failure {
    /// What was wanted is below this compacted revision.
    Compacted(i64),
    Read(ReadError),
}

impl CatchUp {
    pub(super) fn wait(&mut self, next: i64, slot: u32) {
        self.waiting.entry(next).or_default().insert(slot);
    }

    pub(super) fn stop_waiting(&mut self, next: i64, slot: u32) {
        if let Some(slots) = self.waiting.get_mut(&next) {
            slots.remove(&slot);
            if slots.is_empty() {
                self.waiting.remove(&next);
            }
        }
    }

    pub(super) fn leave(&mut self, group: u8, keys: &Keys, slot: u32) {
        if let Some(group) = &mut self.groups[usize::from(group)] {
            group.interest.remove(keys, slot);
        }
    }

    /// Checks every invariant. Panics if one does not hold.
    pub(super) fn check(&self, watches: &Slab<Watch>) {
        for (next, slots) in &self.waiting {
            for slot in slots {
                let watch = &watches[*slot as usize];
                assert_eq!((watch.progress, watch.next), (Progress::Behind, *next), "watch {}", watch.id);
            }
        }
        for (place, group) in self.groups.iter().enumerate() {
            let members =
                watches.iter().filter(|(_, watch)| watch.progress == Progress::InGroup(place as u8)).count();
            assert_eq!(
                members,
                group.as_ref().map_or(0, |group| group.interest.len()),
                "members of group {place}"
            );
            if let Some(group) = group {
                group.interest.check();
            }
        }
        let waiting: usize = self.waiting.values().map(BTreeSet::len).sum();
        let behind = watches.iter().filter(|(_, watch)| watch.progress == Progress::Behind).count();
        assert_eq!(waiting, behind, "watches that wait to catch up");
    }
}

impl Hub {
    /// Takes a bounded piece of the tail; true if there is more.
    pub(super) fn follow(&mut self) -> bool {
        let published = self.reader.revision();
        if self.position > published {
            return false;
        }
        if self.current.is_empty() {
            // Nobody to tell: those that are behind read for themselves.
            self.position = published + 1;
            return false;
        }
        let Some(batches) = self.tail.since(self.position, 1) else {
            self.leave_behind(self.tail.from().min(published + 1));
            return self.position <= published;
        };
        let Some(batch) = batches.first().filter(|batch| batch.last <= published) else {
            // What is published and not here comes before the tail's first batch, or has no events at all.
            return false;
        };
        let events = from_revision(&batch.events, self.position);
        let (piece, next) = piece_of(events, self.limits.records_max, batch.last + 1);
        let mut interest = std::mem::take(&mut self.current);
        let delivery = Delivery { events: piece, previous: &Previous::new(), revision: None };
        let delivered = self.deliver(&mut interest, delivery, false);
        self.current = interest;
        self.position = match delivered {
            Delivered::Events(count) if count < piece.len() => piece[count].revision.main,
            _ => next,
        };
        self.position <= published
    }

    /// Lets groups begin, and go on from the tail where it reaches back to them. True if there is more to do at once.
    pub(super) fn advance_groups(&mut self) -> bool {
        let mut more = false;
        for place in 0..GROUPS {
            self.begin_group(place);
            more |= self.advance_group(place);
        }
        more
    }

    /// If this group is not at work, it takes up the watches that are its to begin with.
    fn begin_group(&mut self, place: usize) {
        if self.catch_up.groups[place].is_some() {
            return;
        }
        let waiting = &self.catch_up.waiting;
        let first = if place == FAR { waiting.first_key_value() } else { waiting.last_key_value() };
        let Some((&next, _)) = first else { return };
        if place == NEAR && next + NEAR_REVISIONS < self.position {
            return;
        }
        self.catch_up.groups[place] = Some(Group { next, ..Group::default() });
        self.take_up(place);
    }

    /// Takes up the watches that wait where a group is, or a little ahead of it.
    fn take_up(&mut self, place: usize) {
        let Some(group) = &mut self.catch_up.groups[place] else { return };
        let ahead = self.catch_up.waiting.range(group.next..group.next + TAKE_UP_AHEAD);
        let revisions: Vec<i64> = ahead.map(|(next, _)| *next).collect();
        for revision in revisions {
            for slot in self.catch_up.waiting.remove(&revision).unwrap_or_default() {
                let watch = &mut self.watches[slot as usize];
                watch.progress = Progress::InGroup(place as u8);
                group.interest.insert(&watch.keys, slot);
            }
        }
    }

    /// Goes on from the tail with a bounded piece, if the tail reaches back so far and no job is under way.
    fn advance_group(&mut self, place: usize) -> bool {
        self.take_up_if_idle(place);
        let Some(group) = &mut self.catch_up.groups[place] else { return false };
        match std::mem::take(&mut group.job) {
            JobState::None => {}
            JobState::Read(chunk) => {
                self.deliver_chunk(place, chunk);
                return true;
            }
            under_way => {
                group.job = under_way;
                return false;
            }
        }
        if group.interest.is_empty() {
            self.catch_up.groups[place] = None;
            return !self.catch_up.waiting.is_empty();
        }
        if self.gives_way(place) {
            self.put_back(place);
            return true;
        }
        let Some(group) = &self.catch_up.groups[place] else { return false };
        let compacted = self.reader.compacted();
        if group.next < compacted {
            self.end_compacted(place, compacted);
            return true;
        }
        if group.next >= self.position {
            self.join_current(place);
            return !self.catch_up.waiting.is_empty();
        }
        let next = group.next;
        let Some(chunk) = self.chunk_of_tail(next) else { return false };
        self.deliver_chunk(place, chunk);
        true
    }

    /// The events from a revision to the hub's position, as many as do in one go; `None` if the tail no longer has them.
    fn chunk_of_tail(&self, next: i64) -> Option<Chunk> {
        let batches_max = self.limits.records_max;
        let batches = self.tail.since(next, batches_max)?;
        // With fewer than were asked for, there are no more.
        let all = batches.last().filter(|_| batches.len() >= batches_max).map(|last| last.last + 1);
        let mut chunk = Chunk { next: all.unwrap_or(self.position).min(self.position), ..Chunk::default() };
        let mut bytes = 0;
        for batch in batches {
            let is_enough =
                chunk.events.len() >= self.limits.records_max || bytes >= self.limits.history_bytes_max;
            if is_enough || batch.first >= self.position {
                chunk.next = batch.first.min(self.position);
                break;
            }
            let events = from_revision(&batch.events, next);
            // What is at the hub's position or above is still to come for all.
            let events = &events[..events.partition_point(|event| event.revision.main < self.position)];
            bytes += events.iter().map(|event| event.record.len()).sum::<usize>();
            chunk.events.extend_from_slice(events);
        }
        Some(chunk)
    }

    /// Whether a group has had its turn, and one that is nearer waits.
    fn gives_way(&self, place: usize) -> bool {
        let turn = match place {
            FAR => return false,
            NEAR => 1,
            _ => TURN_PIECES,
        };
        let Some(group) = &self.catch_up.groups[place] else { return false };
        let nearest = self.catch_up.waiting.last_key_value();
        group.pieces >= turn && matches!(nearest, Some((next, _)) if *next > group.next + TAKE_UP_AHEAD)
    }

    /// Ends a group whose watches are to wait again.
    fn put_back(&mut self, place: usize) {
        let Some(mut group) = self.catch_up.groups[place].take() else { return };
        for slot in group.interest.drain() {
            let watch = &mut self.watches[slot as usize];
            watch.next = watch.next.max(group.next);
            self.fall_behind(slot);
        }
    }

    fn take_up_if_idle(&mut self, place: usize) {
        // While a job runs, what it reads is fixed: a watch taken up now might want what it leaves out.
        if matches!(&self.catch_up.groups[place], Some(group) if matches!(group.job, JobState::None)) {
            self.take_up(place);
        }
    }

    /// All of a group have what the current ones have.
    fn join_current(&mut self, place: usize) {
        let Some(mut group) = self.catch_up.groups[place].take() else { return };
        for slot in group.interest.drain() {
            let watch = &mut self.watches[slot as usize];
            watch.next = watch.next.max(group.next);
            if watch.next >= self.position {
                self.make_current(slot);
            } else {
                self.fall_behind(slot);
            }
        }
    }

    /// Ends the watches of a group, and those that wait, which want what is compacted.
    fn end_compacted(&mut self, place: usize, compacted: i64) {
        self.put_back(place);
        let below = self.catch_up.waiting.range(..compacted);
        let ended: Vec<u32> = below.flat_map(|(_, slots)| slots.iter().copied()).collect();
        ended.into_iter().for_each(|slot| self.end(slot, compacted));
    }

    fn deliver_chunk(&mut self, place: usize, mut chunk: Chunk) {
        let Some(mut group) = self.catch_up.groups[place].take() else { return };
        // As in etcd the header shows the newest revision, since these events are old.
        let revision = Some(self.position - 1);
        let delivery = Delivery { events: &chunk.events, previous: &chunk.previous, revision };
        match self.deliver(&mut group.interest, delivery, true) {
            Delivered::Blocked(needed) => group.job = JobState::Needs(chunk, needed),
            Delivered::Events(count) if count < chunk.events.len() => {
                chunk.events.drain(..count);
                chunk.previous = chunk.previous.split_off(&chunk.events[0].revision);
                group.next = chunk.events[0].revision.main;
                group.job = JobState::Read(chunk);
            }
            Delivered::Events(_) => group.next = chunk.next,
        }
        self.catch_up.groups[place] = Some(group);
    }

    pub(super) fn next_history_job(&mut self) -> Option<HistoryJob> {
        for place in 0..GROUPS {
            self.begin_group(place);
            self.take_up_if_idle(place);
            let published = self.reader.revision();
            let upto = (self.position - 1).min(published);
            let Some(group) = &mut self.catch_up.groups[place] else { continue };
            let task = match std::mem::take(&mut group.job) {
                under_way @ (JobState::Running | JobState::Read(_)) => {
                    group.job = under_way;
                    continue;
                }
                JobState::Needs(chunk, needed) => Task::Previous(chunk, needed, self.limits),
                JobState::None if group.interest.is_empty() || group.next > upto => continue,
                JobState::None if self.tail.from() <= group.next => continue,
                JobState::None => Task::Read {
                    from: group.next,
                    upto,
                    bytes_max: self.limits.history_bytes_max,
                    records_max: self.limits.records_max,
                    hull: group.interest.hull(),
                },
            };
            group.job = JobState::Running;
            group.pieces += 1;
            return Some(HistoryJob { group: place, task });
        }
        None
    }

    /// Takes what a job has read. [`Hub::pump`] is due then.
    pub fn finish(&mut self, result: HistoryResult) {
        let place = result.group;
        let Some(group) = &mut self.catch_up.groups[place] else { return };
        group.job = JobState::None;
        match result.chunk {
            Ok(chunk) => self.deliver_chunk(place, chunk),
            Err(Failure::Compacted(compacted)) => self.end_compacted(place, compacted),
            Err(Failure::Read(error)) => self.end_unreadable(place, &error),
        }
    }

    /// History cannot be read: the watches of a group end with the reason.
    fn end_unreadable(&mut self, place: usize, error: &ReadError) {
        let Some(mut group) = self.catch_up.groups[place].take() else { return };
        for slot in group.interest.drain() {
            self.tell_end(slot, 0, &error.to_string());
        }
    }
}

impl HistoryJob {
    /// Reads, and may wait for a disk.
    pub fn run(self, reader: &Reader) -> HistoryResult {
        let chunk = match self.task {
            Task::Read { from, upto, bytes_max, records_max, hull } => {
                read_history(reader, (from, upto), (bytes_max, records_max), &hull)
            }
            Task::Previous(chunk, needed, limits) => read_previous(reader, chunk, &needed, &limits),
        };
        HistoryResult { group: self.group, chunk }
    }
}

/// Reads the pairs before events: those of the first event's revision, and more until it is enough.
fn read_previous(
    reader: &Reader,
    mut chunk: Chunk,
    needed: &[usize],
    limits: &HubLimits,
) -> Result<Chunk, Failure> {
    let (mut bytes, mut revision, mut revision_bytes) = (0, 0, 0);
    for place in needed {
        let event = &chunk.events[*place];
        if event.revision.main != revision {
            if bytes >= limits.history_bytes_max {
                break;
            }
            (revision, revision_bytes) = (event.revision.main, 0);
        }
        let mut pair = Vec::new();
        let prior = if revision_bytes > limits.revision_bytes_max {
            Prior::TooLong
        } else {
            let found = reader.previous(event, ReadMode::MayBlock, &mut pair);
            let found = found.map_err(|error| Failure::Read(ReadError(error.to_string())))?;
            bytes += pair.len();
            revision_bytes += pair.len();
            if found { Prior::Pair(pair) } else { Prior::None }
        };
        chunk.previous.insert(event.revision, prior);
    }
    Ok(chunk)
}

fn read_history(
    reader: &Reader,
    (from, upto): (i64, i64),
    (bytes_max, records_max): (usize, usize),
    (lowest, end): &(Vec<u8>, Option<Vec<u8>>),
) -> Result<Chunk, Failure> {
    /// Records that are passed over count less: they are not copied.
    const PASSED_OVER_FACTOR: usize = 8;
    let mut bytes: Vec<u8> = Vec::new();
    let mut found = Vec::new();
    let (mut last, mut next, mut seen) = (0, upto + 1, 0);
    let scanned = reader.scan(from, &mut |kind, revision, encoded| {
        if revision.main > upto {
            return ControlFlow::Break(());
        }
        // Only between revisions.
        let is_enough = bytes.len() >= bytes_max
            || found.len() >= records_max
            || seen >= records_max.saturating_mul(PASSED_OVER_FACTOR);
        if is_enough && revision.main > last {
            next = revision.main;
            return ControlFlow::Break(());
        }
        (last, seen) = (revision.main, seen + 1);
        let key = KeyValue::decode(encoded).map(|pair| pair.key).unwrap_or_default();
        if key >= &lowest[..] && end.as_ref().is_none_or(|end| key < &end[..]) {
            found.push((kind, revision, bytes.len()..bytes.len() + encoded.len()));
            bytes.extend_from_slice(encoded);
        }
        ControlFlow::Continue(())
    });
    // What was compacted meanwhile may have been missing already.
    let compacted = reader.compacted();
    if from < compacted {
        return Err(Failure::Compacted(compacted));
    }
    scanned.map_err(Failure::Read)?;
    let bytes = Bytes::from(bytes);
    let event = |(kind, revision, range)| Event { kind, revision, record: bytes.slice(range) };
    Ok(Chunk { events: found.into_iter().map(event).collect(), previous: Previous::new(), next })
}

/// The events at or above a revision.
fn from_revision(events: &[Event], revision: i64) -> &[Event] {
    &events[events.partition_point(|event| event.revision.main < revision)..]
}

/// Whole revisions from the front, about `records_max` records; and the revision behind them, `end` if that is all.
fn piece_of(events: &[Event], records_max: usize, end: i64) -> (&[Event], i64) {
    let Some(last) = events.get(records_max.saturating_sub(1)) else { return (events, end) };
    let count = events.partition_point(|event| event.revision.main <= last.revision.main);
    match events.get(count) {
        Some(behind) => (&events[..count], behind.revision.main),
        None => (events, end),
    }
}
