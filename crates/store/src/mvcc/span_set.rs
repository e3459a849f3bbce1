//! A set of keys, as disjoint spans: an insert and a question each cost the logarithm of the number of spans.
//!
//! What clients may put into one transaction is bounded only by the size of a request, so anything that looks at
//! pairs of ops has to be better than quadratic.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::index::{End, Span};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Upper {
    Before(Vec<u8>),
    Open,
}

impl Upper {
    fn is_above(&self, key: &[u8]) -> bool {
        match self {
            Upper::Before(end) => key < &end[..],
            Upper::Open => true,
        }
    }
}

/// A set of keys. Spans that touch or overlap are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpanSet {
    /// Where each span begins, and ends.
    spans: BTreeMap<Vec<u8>, Upper>,
}

impl SpanSet {
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let at_or_before = (Bound::Unbounded, Bound::Included(key));
        self.spans.range::<[u8], _>(at_or_before).next_back().is_some_and(|(_, end)| end.is_above(key))
    }

    /// Adds a span; an empty one (its end at or below its start) adds nothing.
    pub(crate) fn insert(&mut self, span: Span<'_>) {
        let end = match span.to {
            End::One => Upper::Before([span.from, &[0]].concat()),
            End::Open => Upper::Open,
            End::Before(end) => Upper::Before(end.to_vec()),
        };
        self.insert_owned(span.from.to_vec(), end);
    }

    fn insert_owned(&mut self, from: Vec<u8>, end: Upper) {
        if !end.is_above(&from) {
            return;
        }
        let (mut from, mut end) = (from, end);
        // The last span that begins at or before this one's end is the only one that can reach beyond it.
        loop {
            let touching = match &end {
                Upper::Before(end) => {
                    self.spans.range::<[u8], _>((Bound::Unbounded, Bound::Included(&end[..])))
                }
                Upper::Open => self.spans.range::<[u8], _>((Bound::Unbounded, Bound::Unbounded)),
            }
            .next_back();
            let Some((other_from, other_end)) = touching else { break };
            if !other_end.is_above(&from) && *other_end != Upper::Before(from.clone()) {
                break;
            }
            let other_from = other_from.clone();
            let other_end = self.spans.remove(&other_from).expect("it was just found");
            from = from.min(other_from);
            end = end.max(other_end);
        }
        self.spans.insert(from, end);
    }

    /// Adds all of `other`.
    pub(crate) fn absorb(&mut self, mut other: SpanSet) {
        if other.len() > self.len() {
            std::mem::swap(self, &mut other);
        }
        for (from, end) in other.spans {
            self.insert_owned(from, end);
        }
    }

    /// Whether any of `keys`, a sorted set, is in this one.
    pub(crate) fn contains_any_of(&self, keys: &std::collections::BTreeSet<&[u8]>) -> bool {
        if keys.len() <= self.len() {
            return keys.iter().any(|key| self.contains(key));
        }
        self.spans.iter().any(|(from, end)| {
            let first = keys.range::<[u8], _>((Bound::Included(&from[..]), Bound::Unbounded)).next();
            first.is_some_and(|key| end.is_above(key))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn is_in(span: &Span<'_>, key: &[u8]) -> bool {
        match span.to {
            End::One => key == span.from,
            End::Open => key >= span.from,
            End::Before(end) => key >= span.from && key < end,
        }
    }

    proptest! {
        /// Against the plain list of spans.
        #[test]
        fn holds_what_its_spans_hold(
            spans in prop::collection::vec((0u8..20, 0u8..20, 0u8..3), 0..12),
            split in 0usize..12,
            keys in prop::collection::btree_set(0u8..21, 0..6),
        ) {
            let bytes: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
            let all: Vec<Span<'_>> = spans
                .iter()
                .map(|&(from, to, kind)| {
                    let to = match kind {
                        0 => End::One,
                        1 if from > 15 => End::Open,
                        _ => End::Before(&bytes[usize::from(to)]),
                    };
                    Span { from: &bytes[usize::from(from)], to }
                })
                .collect();
            let split = split.min(all.len());
            let (mut set, mut other) = (SpanSet::default(), SpanSet::default());
            all[..split].iter().for_each(|span| set.insert(*span));
            all[split..].iter().for_each(|span| other.insert(*span));
            set.absorb(other);
            let held = |key: &[u8]| all.iter().any(|span| is_in(span, key));
            for key in &bytes[..40] {
                prop_assert_eq!(set.contains(key), held(key), "{:?} in {:?}", key, set);
            }
            let keys: BTreeSet<&[u8]> = keys.iter().map(|key| &bytes[usize::from(*key)][..]).collect();
            prop_assert_eq!(set.contains_any_of(&keys), keys.iter().any(|key| held(key)));
            for (from, end) in &set.spans {
                prop_assert!(end.is_above(from));
            }
        }
    }
}
