//! From events to responses: finds the watches that each event concerns, encodes it once, and appends it to the streams.

use std::collections::BTreeMap;

use super::interest::Interest;
use super::outbox::{Response, put_event};
use super::{Event, Hub};
use crate::mvcc::{KeyValue, ReadFailure, ReadMode};
use crate::record::RecordKind;

/// The end of a list of matches.
pub(super) const NONE: u32 = u32::MAX;

/// One event that concerns one watch; those of a watch are a list.
#[derive(Clone, Copy, Debug)]
struct Match {
    event: u32,
    next: u32,
}

/// A part of the buffer of encoded events.
#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    start: usize,
    end: usize,
}

/// An event that concerns some watch.
#[derive(Clone, Copy, Debug, Default)]
struct Encoded {
    /// Whether some watch wants it without, and with, the pair before it.
    wants: [bool; 2],
    /// The same, encoded; empty if nobody wants it.
    pieces: [Piece; 2],
    /// The pair before it lies on a disk that would have to be waited for.
    is_blocked: bool,
}

/// What a delivery needs and leaves empty, kept for its capacity.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    matches: Vec<Match>,
    /// The watches that have matches.
    touched: Vec<u32>,
    events: Vec<Encoded>,
    buffer: Vec<u8>,
    previous: Vec<u8>,
}

/// Pairs before events, by the events' places; what was read where it may wait for a disk.
pub(super) type Previous = BTreeMap<usize, Option<Vec<u8>>>;

/// How a delivery is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery<'a> {
    pub events: &'a [Event],
    /// Pairs that are known already.
    pub previous: &'a Previous,
    /// What headers show; `None`: the revision of the last event of each response.
    pub revision: Option<i64>,
}

impl Hub {
    /// Delivers events, in order, to the watches of `interest`. The events whose pair before them cannot be had without
    /// waiting are returned: nothing was delivered then, if `may_wait`; otherwise the watches that want them are set aside.
    pub(super) fn deliver(
        &mut self,
        interest: &mut Interest,
        delivery: Delivery<'_>,
        may_wait: bool,
    ) -> Vec<usize> {
        let mut scratch = std::mem::take(&mut self.scratch);
        self.collect(interest, delivery.events, &mut scratch);
        let blocked = self.encode(delivery, &mut scratch);
        let postponed = may_wait && !blocked.is_empty();
        for slot in std::mem::take(&mut scratch.touched) {
            let watch = &mut self.watches[slot as usize];
            let (first, _) = std::mem::replace(&mut watch.matches, (NONE, NONE));
            if !postponed {
                self.deliver_to(interest, slot, first, delivery, &scratch);
            }
        }
        scratch.matches.clear();
        scratch.events.clear();
        scratch.buffer.clear();
        self.scratch = scratch;
        if postponed { blocked } else { Vec::new() }
    }

    /// Lists for each watch the events that it wants.
    fn collect(&mut self, interest: &Interest, events: &[Event], scratch: &mut Scratch) {
        let Scratch { matches, touched, events: encoded, .. } = scratch;
        encoded.resize(events.len(), Encoded::default());
        for (place, event) in events.iter().enumerate() {
            // What this member stored decodes; `KeyValue` was checked when the record was made or replayed.
            let Ok(pair) = KeyValue::decode(&event.record) else { continue };
            let has_previous =
                event.kind == RecordKind::Tombstone || pair.create_revision != event.revision.main;
            interest.visit(pair.key, |slot| {
                let watch = &mut self.watches[slot as usize];
                if event.revision.main < watch.next || !watch.flags.passes(event.kind) {
                    return;
                }
                encoded[place].wants[usize::from(watch.flags.prev_kv && has_previous)] = true;
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
        }
    }

    /// Encodes each event that is wanted, once in each form. Returns those that would have to be waited for.
    fn encode(&self, delivery: Delivery<'_>, scratch: &mut Scratch) -> Vec<usize> {
        let Scratch { events: encoded, buffer, previous, .. } = scratch;
        let mut blocked = Vec::new();
        let mut tombstone = Vec::new();
        for (place, (event, encoded)) in delivery.events.iter().zip(encoded).enumerate() {
            if encoded.wants == [false; 2] {
                continue;
            }
            let is_delete = event.kind == RecordKind::Tombstone;
            let kv = if is_delete {
                tombstone.clear();
                tombstone.extend_from_slice(&event.record);
                KeyValue { mod_revision: event.revision.main, ..KeyValue::default() }.encode(&mut tombstone);
                &tombstone[..]
            } else {
                &event.record[..]
            };
            if encoded.wants[0] {
                encoded.pieces[0] = appended(buffer, |buffer| put_event(buffer, is_delete, kv, None));
            }
            if !encoded.wants[1] {
                continue;
            }
            previous.clear();
            let found = match delivery.previous.get(&place) {
                Some(known) => {
                    previous.extend_from_slice(known.as_deref().unwrap_or_default());
                    Ok(known.is_some())
                }
                None => self.reader.previous(event, ReadMode::NoWait, previous),
            };
            match found {
                Ok(found) => {
                    let previous = found.then_some(&previous[..]);
                    encoded.pieces[1] = appended(buffer, |buffer| put_event(buffer, is_delete, kv, previous));
                }
                Err(_) => {
                    encoded.is_blocked = true;
                    blocked.push(place);
                }
            }
        }
        blocked
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
        while at != NONE {
            let watch = &self.watches[slot as usize];
            let (stream, with_previous) = (watch.stream as usize, watch.flags.prev_kv);
            let start = delivery.events[scratch.matches[at as usize].event as usize].revision.main;
            if self.streams[stream].bytes.len() >= self.limits.stream_bytes_max {
                interest.remove(&watch.keys, slot);
                return self.park(slot, start);
            }
            let run = self.run_of(at, with_previous, delivery.events, scratch);
            if run.pieces.is_empty() {
                // The revision that is next cannot be had at once.
                interest.remove(&self.watches[slot as usize].keys, slot);
                self.watches[slot as usize].next = start;
                return self.fall_behind(slot);
            }
            self.respond_with(slot, &run, delivery.revision, &scratch.buffer);
            at = run.behind;
        }
    }

    /// The events of whole revisions that make one response, from a place in a watch's list on.
    fn run_of(&self, from: u32, with_previous: bool, events: &[Event], scratch: &Scratch) -> Run {
        let mut run = Run { pieces: Vec::new(), bytes: 0, last: 0, behind: from };
        let (mut at, mut revisions) = (from, 0);
        while at != NONE {
            let revision = events[scratch.matches[at as usize].event as usize].revision.main;
            if revisions == self.limits.response_revisions_max
                || run.bytes >= self.limits.response_bytes_target
            {
                break;
            }
            let (kept, kept_bytes) = (run.pieces.len(), run.bytes);
            // All of one revision, or none.
            while at != NONE {
                let Match { event, next } = scratch.matches[at as usize];
                let (event, encoded) = (&events[event as usize], &scratch.events[event as usize]);
                if event.revision.main != revision {
                    break;
                }
                let form = usize::from(with_previous && encoded.wants[1]);
                if form == 1 && encoded.is_blocked {
                    run.pieces.truncate(kept);
                    run.bytes = kept_bytes;
                    return run;
                }
                let piece = encoded.pieces[form];
                run.bytes += piece.end - piece.start;
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
        let outbox = &mut self.streams[stream];
        if may_part && response.len(&self.answerer) + run.bytes >= self.limits.fragment_bytes {
            let response = Response { fragment: true, ..response };
            let events_max = self.limits.fragment_bytes.saturating_sub(response.len(&self.answerer));
            while let Some(count) = fragment(rest, events_max) {
                let (part, behind) = rest.split_at(count);
                let pieces = part.iter().map(|piece| &buffer[piece.start..piece.end]);
                outbox.push(&self.answerer, &response, bytes_of(part), pieces);
                rest = behind;
            }
        }
        let pieces = rest.iter().map(|piece| &buffer[piece.start..piece.end]);
        outbox.push(&self.answerer, &response, bytes_of(rest), pieces);
        self.note(stream);
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
}

/// How many events the next fragment has, if it is not the last one: as many as stay below the bound, and one at least.
fn fragment(pieces: &[Piece], bytes_max: usize) -> Option<usize> {
    let mut bytes = 0;
    for (place, piece) in pieces.iter().enumerate() {
        bytes += piece.end - piece.start;
        if place > 0 && bytes >= bytes_max {
            return Some(place);
        }
    }
    None
}

fn bytes_of(pieces: &[Piece]) -> usize {
    pieces.iter().map(|piece| piece.end - piece.start).sum()
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
