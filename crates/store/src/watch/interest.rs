//! Which watches a key concerns: those of the key itself in an ordered map, those of ranges in an interval tree. A
//! look-up costs the logarithm of the number of spans, and the watches that it finds.

use std::collections::BTreeMap;

use super::spans::SpanTree;
use crate::mvcc::{End, Key, Span};

/// The keys that a watch is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// One key.
    One(Key),
    /// Every key at or after `from`, and before `to` if there is such an end. Never empty.
    Range { from: Key, to: Option<Key> },
}

impl Keys {
    /// By the API: an empty key is the first one there can be, an empty end means one key, `\0` none at all. `None` for
    /// a range that no key is in.
    pub(crate) fn of(key: &[u8], range_end: &[u8]) -> Option<Keys> {
        let key = if key.is_empty() { &[0] } else { key };
        let Span { from, to } = Span::of(key, range_end);
        Some(match to {
            End::One => Keys::One(from.into()),
            End::Open => Keys::Range { from: from.into(), to: None },
            End::Before(end) if from >= end => return None,
            End::Before(end) => Keys::Range { from: from.into(), to: Some(end.into()) },
        })
    }
}

/// The watches of one span, by their slots. Most have one.
#[derive(Clone, Debug)]
pub(super) enum Slots {
    One(u32),
    Many(Vec<u32>),
}

impl Slots {
    pub(super) fn as_slice(&self) -> &[u32] {
        match self {
            Slots::One(slot) => std::slice::from_ref(slot),
            Slots::Many(slots) => slots,
        }
    }

    pub(super) fn add(&mut self, slot: u32) {
        match self {
            Slots::One(first) => *self = Slots::Many(vec![*first, slot]),
            Slots::Many(slots) => slots.push(slot),
        }
    }

    /// Takes a watch out; true if none is left.
    pub(super) fn remove(&mut self, slot: u32) -> bool {
        match self {
            Slots::One(only) => {
                assert_eq!(*only, slot, "a watch is where its keys are");
                true
            }
            Slots::Many(slots) => {
                let at =
                    slots.iter().position(|known| *known == slot).expect("a watch is where its keys are");
                slots.swap_remove(at);
                slots.is_empty()
            }
        }
    }
}

/// A set of watches by their keys.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    points: BTreeMap<Key, Slots>,
    ranges: SpanTree,
    len: usize,
}

impl Interest {
    /// How many watches there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a watch.
    pub(crate) fn insert(&mut self, keys: &Keys, slot: u32) {
        self.len += 1;
        match keys {
            Keys::One(key) => match self.points.get_mut(key.as_slice()) {
                Some(slots) => slots.add(slot),
                None => drop(self.points.insert(key.clone(), Slots::One(slot))),
            },
            Keys::Range { from, to } => self.ranges.insert(from, to.as_ref(), slot),
        }
    }

    /// Takes a watch out. Panics if it is not there.
    pub(crate) fn remove(&mut self, keys: &Keys, slot: u32) {
        self.len -= 1;
        match keys {
            Keys::One(key) => {
                let slots = self.points.get_mut(key.as_slice()).expect("a watch is where its keys are");
                if slots.remove(slot) {
                    self.points.remove(key.as_slice());
                }
            }
            Keys::Range { from, to } => self.ranges.remove(from, to.as_ref(), slot),
        }
    }

    /// Visits every watch that `key` concerns, each once.
    pub(crate) fn visit(&self, key: &[u8], mut visit: impl FnMut(u32)) {
        if let Some(slots) = self.points.get(key) {
            slots.as_slice().iter().for_each(|slot| visit(*slot));
        }
        self.ranges.visit(key, &mut visit);
    }

    /// The lowest key that any watch is about, and the end of all that they are about. Of no watch: nothing.
    pub(crate) fn hull(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut from, mut to) = (None::<Vec<u8>>, Some(Vec::new()));
        if let (Some((first, _)), Some((last, _))) =
            (self.points.first_key_value(), self.points.last_key_value())
        {
            from = Some(first.as_slice().to_vec());
            to = Some([last.as_slice(), &[0]].concat());
        }
        if let Some((first, end)) = self.ranges.hull() {
            let first = first.as_slice().to_vec();
            from = Some(from.map_or(first.clone(), |from| from.min(first)));
            to = match (to, end) {
                (Some(to), Some(end)) => Some(to.max(end.as_slice().to_vec())),
                _ => None,
            };
        }
        (from.unwrap_or_default(), to)
    }

    /// Takes all watches out.
    pub(crate) fn drain(&mut self) -> Vec<u32> {
        let mut all = Vec::with_capacity(self.len);
        for slots in std::mem::take(&mut self.points).into_values() {
            all.extend_from_slice(slots.as_slice());
        }
        self.ranges.drain(&mut all);
        self.len = 0;
        all
    }

    /// Checks every invariant. Panics if one does not hold.
    pub(crate) fn check(&self) {
        let points: usize = self.points.values().map(|slots| slots.as_slice().len()).sum();
        assert_eq!(self.len, points + self.ranges.check(), "watches by their keys");
    }
}
