//! From events to responses: finds the watches that each event concerns, encodes it once, and appends it to the streams.

use std::collections::BTreeMap;

use super::interest::Interest;
use super::outbox::{Piece, Response, put_event};
use super::{Event, Hub, SMALL_RESPONSE_BYTES, StreamId};
use crate::mvcc::{KeyValue, ReadFailure, ReadMode};
use crate::record::{RecordKind, Revision};

/// Bytes of the buffer of encoded events that are kept from one delivery to the next.
const SCRATCH_BYTES_KEPT: usize = 1 << 20;

/// The end of a list of matches.
pub(super) const NONE: u32 = u32::MAX;

/// One event that concerns one watch; those of a watch are a list.
#[derive(Clone, Copy, Debug)]
struct Match {
    event: u32,
    next: u32,
}

/// An event that concerns some watch.
#[derive(Clone, Copy, Debug, Default)]
struct Encoded {
    /// Whether some watch wants it without, and with, the pair before it.
    wants: [bool; 2],
    /// The same, encoded; empty if nobody wants it.
    pieces: [Piece; 2],
    /// Why not, for each.
    missing: [Missing; 2],
}

/// Why an event that is wanted is not encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Missing {
    /// It is.
    #[default]
    No,
    /// The pair before it lies on a disk that would have to be waited for.
    Blocked,
    /// Its revision is too long for a response already.
    TooLong,
}

/// What a delivery needs and leaves empty, kept for its capacity.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    matches: Vec<Match>,
    /// The watches that have matches.
    touched: Vec<u32>,
    events: Vec<Encoded>,
    buffer: Vec<u8>,
    tombstone: Vec<u8>,
    previous: Vec<u8>,
}

/// A pair before an event, as far as it was read where that may wait for a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prior {
    /// There is none, or history no longer has it.
    None,
    Pair(Vec<u8>),
    /// Those of its revision are too long together.
    TooLong,
}

/// Pairs before events, by the events' revisions.
pub(super) type Previous = BTreeMap<Revision, Prior>;

/// How a delivery is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery<'a> {
    pub events: &'a [Event],
    /// Pairs that are known already.
    pub previous: &'a Previous,
    /// What headers show; `None`: the revision of the last event of each response.
    pub revision: Option<i64>,
}

/// What came of a delivery.
#[derive(Debug)]
pub(super) enum Delivered {
    /// So many events from the front, whole revisions; as many as do in one go.
    Events(usize),
    /// None, since the pairs before these cannot be had without waiting. The first event is of the first one's revision.
    Blocked(Vec<usize>),
}

impl Hub {
    /// Delivers events, in order, to the watches of `interest`. Where the pair before an event cannot be had without
    /// waiting, delivery ends, if `may_wait`; otherwise the watches that want it are set aside.
    pub(super) fn deliver(
        &mut self,
        interest: &mut Interest,
        delivery: Delivery<'_>,
        may_wait: bool,
    ) -> Delivered {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut blocked = Vec::new();
        let mut count = self.collect(interest, delivery, &mut scratch, &mut blocked);
        if may_wait && let Some(first) = blocked.first() {
            let revision = delivery.events[*first].revision.main;
            count = delivery.events.partition_point(|event| event.revision.main < revision);
        }
        let delivery = Delivery { events: &delivery.events[..count], ..delivery };
        for slot in std::mem::take(&mut scratch.touched) {
            let watch = &mut self.watches[slot as usize];
            let (first, _) = std::mem::replace(&mut watch.matches, (NONE, NONE));
            self.deliver_to(interest, slot, first, delivery, &scratch);
        }
        scratch.matches.clear();
        scratch.events.clear();
        scratch.buffer.clear();
        scratch.buffer.shrink_to(SCRATCH_BYTES_KEPT);
        self.scratch = scratch;
        if count == 0 && !blocked.is_empty() { Delivered::Blocked(blocked) } else { Delivered::Events(count) }
    }

    /// Lists for each watch the events that it wants, and encodes them. Returns how many events were looked at: whole
    /// revisions, until it is enough for one go.
    fn collect(
        &mut self,
        interest: &Interest,
        delivery: Delivery<'_>,
        scratch: &mut Scratch,
        blocked: &mut Vec<usize>,
    ) -> usize {
        let (mut revision, mut revision_bytes) = (0, [0, 0]);
        for (place, event) in delivery.events.iter().enumerate() {
            if event.revision.main != revision {
                let is_enough = scratch.matches.len() >= self.limits.matches_max
                    || scratch.buffer.len() >= self.limits.encoded_bytes_target;
                if is_enough {
                    return place;
                }
                (revision, revision_bytes) = (event.revision.main, [0, 0]);
            }
            let mut encoded = self.match_event(interest, place, event, scratch);
            if encoded.wants != [false; 2] {
                self.encode(&mut encoded, event, delivery.previous, &mut revision_bytes, scratch);
            }
            if encoded.missing[1] == Missing::Blocked {
                blocked.push(place);
            }
            scratch.events.push(encoded);
        }
        delivery.events.len()
    }

    /// Adds an event to the lists of the watches that want it.
    fn match_event(
        &mut self,
        interest: &Interest,
        place: usize,
        event: &Event,
        scratch: &mut Scratch,
    ) -> Encoded {
        let Scratch { matches, touched, .. } = scratch;
        let mut encoded = Encoded::default();
        // What this member stored decodes; `KeyValue` was checked when the record was made or replayed.
        let Ok(pair) = KeyValue::decode(&event.record) else { return encoded };
        let has_previous = event.kind == RecordKind::Tombstone || pair.create_revision != event.revision.main;
        interest.visit(pair.key, |slot| {
            let watch = &mut self.watches[slot as usize];
            if event.revision.main < watch.next || !watch.flags.passes(event.kind) {
                return;
            }
            encoded.wants[usize::from(watch.flags.prev_kv && has_previous)] = true;
            let this = matches.len() as u32;
            matches.push(Match { event: place as u32, next: NONE });
            match watch.matches {
                (NONE, _) => {
                    watch.matches = (this, this);
                    touched.push(slot);
                }
                (first, last) => {
                    matches[last as usize].next = this;
                    watch.matches = (first, this);
                }
            }
        });
        encoded
    }

    /// Encodes an event, once in each form that is wanted. `revision_bytes`: what its revision takes in each.
    fn encode(
        &self,
        encoded: &mut Encoded,
        event: &Event,
        known: &Previous,
        revision_bytes: &mut [usize; 2],
        scratch: &mut Scratch,
    ) {
        let Scratch { buffer, tombstone, previous, .. } = scratch;
        let is_long = revision_bytes.map(|bytes| bytes > self.limits.revision_bytes_max);
        encoded.missing = is_long.map(|is_long| if is_long { Missing::TooLong } else { Missing::No });
        let is_delete = event.kind == RecordKind::Tombstone;
        let kv = if is_delete {
            tombstone.clear();
            tombstone.extend_from_slice(&event.record);
            KeyValue { mod_revision: event.revision.main, ..KeyValue::default() }.encode(tombstone);
            &tombstone[..]
        } else {
            &event.record[..]
        };
        if encoded.wants[0] && !is_long[0] {
            encoded.pieces[0] = appended(buffer, |buffer| put_event(buffer, is_delete, kv, None));
            revision_bytes[0] += encoded.pieces[0].len();
        }
        if !encoded.wants[1] || is_long[1] {
            return;
        }
        previous.clear();
        let prior = match known.get(&event.revision) {
            Some(Prior::None) => Ok(None),
            Some(Prior::Pair(pair)) => Ok(Some(&pair[..])),
            Some(Prior::TooLong) => Err(Missing::TooLong),
            None => match self.reader.previous(event, ReadMode::NoWait, previous) {
                Ok(found) => Ok(found.then_some(&previous[..])),
                // Whatever it is, the reading that may wait will say.
                Err(_) => Err(Missing::Blocked),
            },
        };
        match prior {
            Ok(prior) => {
                encoded.pieces[1] = appended(buffer, |buffer| put_event(buffer, is_delete, kv, prior));
                revision_bytes[1] += encoded.pieces[1].len();
            }
            Err(missing) => encoded.missing[1] = missing,
        }
    }

    /// Sends a watch its events, or sets it aside where its stream is full or an event has to be waited for.
    fn deliver_to(
        &mut self,
        interest: &mut Interest,
        slot: u32,
        first: u32,
        delivery: Delivery<'_>,
        scratch: &Scratch,
    ) {
        let mut at = first;
        while let Some(start) = scratch.revision_at(at, delivery.events) {
            let watch = &self.watches[slot as usize];
            let (stream, with_previous) = (watch.stream as usize, watch.flags.prev_kv);
            if self.is_full(StreamId(stream)) {
                interest.remove(&watch.keys, slot);
                return self.park(slot, start);
            }
            let run = self.run_of(at, with_previous, delivery.events, scratch);
            if run.pieces.is_empty() {
                // The revision that is next cannot be had at once, or not at all.
                interest.remove(&watch.keys, slot);
                if run.missing == Missing::TooLong {
                    return self.tell_end(slot, 0, &format!("the events of revision {start} are too long"));
                }
                self.watches[slot as usize].next = start;
                return self.fall_behind(slot);
            }
            self.respond_with(slot, &run, delivery.revision, &scratch.buffer);
            at = run.behind;
        }
    }

    /// The events of whole revisions that make one response, from a place in a watch's list on.
    fn run_of(&self, from: u32, with_previous: bool, events: &[Event], scratch: &Scratch) -> Run {
        let mut run = Run { pieces: Vec::new(), bytes: 0, last: 0, behind: from, missing: Missing::No };
        let target = self.limits.response_bytes_target;
        let target = if self.is_crowded() { target.min(SMALL_RESPONSE_BYTES) } else { target };
        let (mut at, mut revisions) = (from, 0);
        while let Some(revision) = scratch.revision_at(at, events) {
            if revisions == self.limits.response_revisions_max || run.bytes >= target {
                break;
            }
            let (kept, kept_bytes) = (run.pieces.len(), run.bytes);
            // All of one revision, or none.
            while scratch.revision_at(at, events) == Some(revision) {
                let Match { event, next } = scratch.matches[at as usize];
                let encoded = &scratch.events[event as usize];
                let form = usize::from(with_previous && encoded.wants[1]);
                if encoded.missing[form] != Missing::No {
                    run.pieces.truncate(kept);
                    (run.bytes, run.missing) = (kept_bytes, encoded.missing[form]);
                    return run;
                }
                let piece = encoded.pieces[form];
                run.bytes += piece.len();
                run.pieces.push(piece);
                at = next;
            }
            revisions += 1;
            (run.last, run.behind) = (revision, at);
        }
        run
    }

    fn respond_with(&mut self, slot: u32, run: &Run, revision: Option<i64>, buffer: &[u8]) {
        let watch = &mut self.watches[slot as usize];
        watch.is_active = true;
        let (stream, watch_id, may_part) = (watch.stream as usize, watch.id, watch.flags.fragment);
        let response = Response { revision: revision.unwrap_or(run.last), watch_id, ..Response::default() };
        let mut rest = &run.pieces[..];
        if may_part && response.len(&self.answerer) + run.bytes >= self.limits.fragment_bytes {
            let response = Response { fragment: true, ..response };
            let events_max = self.limits.fragment_bytes.saturating_sub(response.len(&self.answerer));
            while let Some(count) = fragment(rest, events_max) {
                let (part, behind) = rest.split_at(count);
                self.push(stream, &response, part, buffer);
                rest = behind;
            }
        }
        self.push(stream, &response, rest, buffer);
    }
}

/// The events of one response.
struct Run {
    pieces: Vec<Piece>,
    bytes: usize,
    /// The revision of the last one.
    last: i64,
    /// Where in the watch's list the next response begins.
    behind: u32,
    /// Why the revision there is not in it, if it might have been.
    missing: Missing,
}

impl Scratch {
    /// The revision of the event at a place in a watch's list; `None` behind the end, or behind these events.
    fn revision_at(&self, at: u32, events: &[Event]) -> Option<i64> {
        let found = self.matches.get(at as usize)?;
        Some(events.get(found.event as usize)?.revision.main)
    }
}

/// How many events the next fragment has, if it is not the last one: as many as stay below the bound, and one at least.
fn fragment(pieces: &[Piece], bytes_max: usize) -> Option<usize> {
    let mut bytes = 0;
    for (place, piece) in pieces.iter().enumerate() {
        bytes += piece.len();
        if place > 0 && bytes >= bytes_max {
            return Some(place);
        }
    }
    None
}

fn appended(buffer: &mut Vec<u8>, append: impl FnOnce(&mut Vec<u8>)) -> Piece {
    let start = buffer.len();
    append(buffer);
    Piece { start, end: buffer.len() }
}

impl crate::Reader {
    /// Appends the stored pair that an event replaced or deleted, if history still has it; false if not.
    pub(super) fn previous(
        &self,
        event: &Event,
        mode: ReadMode,
        out: &mut Vec<u8>,
    ) -> Result<bool, ReadFailure> {
        let Ok(pair) = KeyValue::decode(&event.record) else { return Ok(false) };
        self.pair_at(pair.key, event.revision.main - 1, mode, out)
    }
}
