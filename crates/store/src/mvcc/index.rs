//! The key index: which versions of which keys there are, and where their records lie. Ordered by key, in memory.
//!
//! Nothing outside knows its layout. It is read under a lock that is held for a bounded chunk of keys at a time
//! and never while record bytes are read; a range goes on where the chunk before it ended, by key.
//!
//! Readers name the revision they read at, so versions above it may be here already: that is how a batch that is
//! being applied stays invisible until it is published (rules 9 and 10).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use super::key::Key;
use crate::record::{Location, Revision};

/// Keys visited under one hold of the index's lock.
pub(crate) const KEYS_PER_CHUNK: usize = 256;

/// One version of a key: a put, or a tombstone (whose `version` is 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub mod_revision: i64,
    pub create_revision: i64,
    pub version: i64,
    pub lease: i64,
    pub location: Location,
    /// Place of the change in its transaction.
    pub sub: u32,
    /// Length of the record's bytes.
    pub length: u32,
}

impl Version {
    pub(crate) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision { main: self.mod_revision, sub: i64::from(self.sub) }
    }
}

/// The keys that a request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span<'a> {
    pub from: &'a [u8],
    pub to: End<'a>,
}

/// Where a [`Span`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End<'a> {
    /// The one key.
    One,
    /// Every key at or after `from`.
    Open,
    /// Keys below this one.
    Before(&'a [u8]),
}

impl<'a> Span<'a> {
    /// By the API's `range_end`: empty means one key, `\0` no end.
    pub(crate) fn of(key: &'a [u8], range_end: &'a [u8]) -> Self {
        let to = match range_end {
            [] => End::One,
            [0] => End::Open,
            end => End::Before(end),
        };
        Span { from: key, to }
    }

    /// As [`Span::of`], but with `\0` an end like any other.
    pub(crate) fn literal(key: &'a [u8], range_end: &'a [u8]) -> Self {
        let to = if range_end.is_empty() { End::One } else { End::Before(range_end) };
        Span { from: key, to }
    }
}

/// How far a walk over a span has come.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    span: Span<'a>,
    state: CursorState,
    /// The last key visited, if `state` is `After`.
    after: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CursorState {
    Start,
    After,
    Done,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(span: Span<'a>) -> Self {
        Cursor { span, state: CursorState::Start, after: Vec::new() }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == CursorState::Done
    }
}

/// How far a walk that drops has come.
#[derive(Debug, Default)]
pub(crate) struct DropCursor {
    next: Option<Vec<u8>>,
    done: bool,
}

impl DropCursor {
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }
}

#[derive(Debug)]
struct KeyEntry {
    newest: Version,
    /// Older versions, oldest first. Boxed, since most keys have none and 24 bytes a key count.
    #[expect(clippy::box_collection, reason = "see above")]
    older: Option<Box<VecDeque<Version>>>,
}

impl KeyEntry {
    /// The newest version at or below `at`, tombstones too.
    #[inline]
    fn at(&self, at: i64) -> Option<&Version> {
        if self.newest.mod_revision <= at {
            return Some(&self.newest);
        }
        let older = self.older.as_ref()?;
        let above = older.partition_point(|version| version.mod_revision <= at);
        older.get(above.checked_sub(1)?)
    }

    #[inline]
    fn live_at(&self, at: i64) -> Option<&Version> {
        self.at(at).filter(|version| !version.is_tombstone())
    }
}

/// The index. One writer; see the module's text.
#[derive(Debug, Default)]
pub(crate) struct Index {
    keys: BTreeMap<Key, KeyEntry>,
}

impl Index {
    /// The key's version at a revision; `None` if it did not exist then. Allocates nothing.
    #[inline]
    pub(crate) fn get(&self, key: &[u8], at: i64) -> Option<Version> {
        self.keys.get(key)?.live_at(at).copied()
    }

    /// As [`Index::get`], tombstones too.
    pub(crate) fn at(&self, key: &[u8], at: i64) -> Option<Version> {
        self.keys.get(key)?.at(at).copied()
    }

    /// Drops what nobody at or above `horizon` sees, of at most `keys_max` keys.
    pub(crate) fn drop_below(
        &mut self,
        cursor: &mut DropCursor,
        horizon: i64,
        keys_max: usize,
        dropped: &mut dyn FnMut(&[u8], &Version),
    ) {
        let from = match &cursor.next {
            _ if cursor.done => return,
            None => Bound::Unbounded,
            Some(key) => Bound::Included(&key[..]),
        };
        let keys: Vec<Key> = self
            .keys
            .range::<[u8], _>((from, Bound::Unbounded))
            .take(keys_max + 1)
            .map(|(k, _)| k.clone())
            .collect();
        cursor.done = keys.len() <= keys_max;
        cursor.next = keys.get(keys_max).map(|key| key.as_slice().to_vec());
        for key in keys.iter().take(keys_max) {
            let Some(entry) = self.keys.get_mut(key.as_slice()) else { continue };
            let mut all: Vec<Version> =
                entry.older.take().map(|older| older.iter().copied().collect()).unwrap_or_default();
            all.push(entry.newest);
            let above = all.partition_point(|version| version.mod_revision <= horizon);
            let mut gone = above.saturating_sub(1);
            let kept = above.checked_sub(1).map(|at| all[at]);
            if kept.is_some_and(|kept| kept.is_tombstone() && kept.mod_revision < horizon) {
                gone += 1;
            }
            all.drain(..gone).for_each(|version| dropped(key.as_slice(), &version));
            match all.pop() {
                Some(newest) => {
                    entry.newest = newest;
                    entry.older = (!all.is_empty()).then(|| Box::new(all.into()));
                }
                None => drop(self.keys.remove(key.as_slice())),
            }
        }
    }

    /// Visits the next keys of the cursor's span that exist at a revision, in order. At most [`KEYS_PER_CHUNK`]
    /// keys are looked at, dead ones too.
    pub(crate) fn advance(&self, cursor: &mut Cursor<'_>, at: i64, mut visit: impl FnMut(&[u8], &Version)) {
        let from = match cursor.state {
            CursorState::Start => Bound::Included(cursor.span.from),
            CursorState::After => Bound::Excluded(&cursor.after[..]),
            CursorState::Done => return,
        };
        let to = match cursor.span.to {
            End::One => Bound::Included(cursor.span.from),
            End::Open => Bound::Unbounded,
            End::Before(end) => Bound::Excluded(end),
        };
        if is_empty(from, to) {
            cursor.state = CursorState::Done;
            return;
        }
        let mut keys = self.keys.range::<[u8], _>((from, to));
        let mut last = None;
        for (key, entry) in keys.by_ref().take(KEYS_PER_CHUNK) {
            if let Some(version) = entry.live_at(at) {
                visit(key.as_slice(), version);
            }
            last = Some(key);
        }
        match (keys.next(), last) {
            (Some(_), Some(last)) => {
                cursor.after.clear();
                cursor.after.extend_from_slice(last.as_slice());
                cursor.state = CursorState::After;
            }
            _ => cursor.state = CursorState::Done,
        }
    }

    /// Adds a version, a tombstone too, above all that the key has.
    ///
    /// Panics if it is not above, or if it is the tombstone of a key that does not exist.
    pub(crate) fn insert(&mut self, key: &[u8], version: Version) {
        if let Some(entry) = self.keys.get_mut(key) {
            let newest = entry.newest;
            assert!(version.revision() > newest.revision(), "{version:?} after {newest:?}");
            assert!(!(version.is_tombstone() && newest.is_tombstone()), "tombstone of a dead key");
            entry.older.get_or_insert_default().push_back(newest);
            entry.newest = version;
            return;
        }
        assert!(!version.is_tombstone(), "tombstone of an unknown key");
        self.keys.insert(key.into(), KeyEntry { newest: version, older: None });
    }

    /// Whether [`Index::insert`] would take this version of the key. For replay, where damage is an error.
    pub(crate) fn accepts(&self, key: &[u8], version: &Version) -> bool {
        match self.keys.get(key) {
            Some(entry) => {
                version.revision() > entry.newest.revision()
                    && !(version.is_tombstone() && entry.newest.is_tombstone())
            }
            None => !version.is_tombstone(),
        }
    }

    /// Checks every invariant. `last` is the highest revision that anything may have.
    ///
    /// Panics if one does not hold.
    pub(crate) fn check(&self, last: i64) {
        for (key, entry) in &self.keys {
            let mut before: Option<&Version> = None;
            for version in entry.older.iter().flat_map(|older| older.iter()).chain([&entry.newest]) {
                assert!(version.mod_revision <= last, "{key:?}: {version:?} above {last}");
                if before.is_some() {
                    check_step(before, version);
                }
                before = Some(version);
            }
        }
    }
}

/// Checks one version of a key against the one before it.
fn check_step(before: Option<&Version>, version: &Version) {
    let live_before = before.filter(|before| !before.is_tombstone());
    if let Some(before) = before {
        assert!(before.revision() < version.revision(), "{before:?} then {version:?}");
    }
    match (live_before, version.is_tombstone()) {
        (None, true) => panic!("nothing to delete: {before:?} then {version:?}"),
        (None, false) => {
            assert_eq!((version.version, version.create_revision), (1, version.mod_revision), "{version:?}");
        }
        (Some(_), true) => assert_eq!(version.create_revision, 0, "{version:?}"),
        (Some(before), false) => {
            assert_eq!(version.version, before.version + 1, "{before:?} then {version:?}");
            assert_eq!(version.create_revision, before.create_revision, "{before:?} then {version:?}");
        }
    }
}

/// Whether no key can lie between (`BTreeMap::range` panics on some such bounds).
fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Excluded(to)) => from >= to,
        (Bound::Excluded(from), Bound::Excluded(to) | Bound::Included(to)) => from >= to,
        _ => false,
    }
}

const _: () = assert!(size_of::<Version>() == 48);

#[cfg(test)]
mod tests {
    use super::*;

    fn put(mod_revision: i64, create_revision: i64, version: i64) -> Version {
        Version { mod_revision, create_revision, version, lease: 0, location: Location(0), sub: 0, length: 0 }
    }

    fn tombstone(mod_revision: i64) -> Version {
        put(mod_revision, 0, 0)
    }

    fn keys(index: &Index, key: &[u8], end: &[u8], at: i64) -> Vec<Vec<u8>> {
        let mut cursor = Cursor::new(Span::of(key, end));
        let mut seen = Vec::new();
        while !cursor.is_done() {
            index.advance(&mut cursor, at, |key, _| seen.push(key.to_vec()));
        }
        seen
    }

    #[test]
    fn a_key_is_what_it_was_at_each_revision() {
        let mut index = Index::default();
        for version in [put(2, 2, 1), put(4, 2, 2), tombstone(5), put(7, 7, 1)] {
            assert!(index.accepts(b"k", &version));
            index.insert(b"k", version);
        }
        index.check(7);
        let versions =
            [(1, None), (2, Some(1)), (3, Some(1)), (4, Some(2)), (5, None), (6, None), (7, Some(1))];
        for (at, version) in versions {
            assert_eq!(index.get(b"k", at).map(|v| v.version), version, "at {at}");
        }
        assert_eq!(index.get(b"k", 9).map(|v| v.create_revision), Some(7));
        assert_eq!(index.get(b"l", 9), None);
    }

    #[test]
    fn replay_refuses_what_no_member_wrote() {
        let mut index = Index::default();
        assert!(!index.accepts(b"k", &tombstone(2)), "nothing to delete");
        index.insert(b"k", put(3, 3, 1));
        assert!(!index.accepts(b"k", &put(3, 3, 1)), "not above");
        index.insert(b"k", tombstone(4));
        assert!(!index.accepts(b"k", &tombstone(5)), "deleted twice");
    }

    #[test]
    fn spans_are_walked_in_chunks_without_a_gap_or_a_repeat() {
        let mut index = Index::default();
        let all: Vec<Vec<u8>> = (0..1000u32).map(|n| n.to_be_bytes().to_vec()).collect();
        for (n, key) in all.iter().enumerate() {
            index.insert(key, put(n as i64 + 2, n as i64 + 2, 1));
        }
        assert_eq!(keys(&index, &[0], &[0], 2000), all);
        assert_eq!(keys(&index, &all[3], &[0], 2000), all[3..]);
        assert_eq!(keys(&index, &all[3], &all[700], 2000), all[3..700]);
        assert_eq!(keys(&index, &all[3], &[], 2000), all[3..4]);
        assert_eq!(keys(&index, &[0], &[0], 512), all[..511], "keys above the revision are not there yet");
        assert_eq!(keys(&index, &all[9], &all[9], 2000), Vec::<Vec<u8>>::new());
        assert_eq!(keys(&index, &all[9], &all[3], 2000), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_walk_ends_at_a_bound_that_it_has_reached() {
        let mut index = Index::default();
        for n in 0..KEYS_PER_CHUNK as u16 + 1 {
            index.insert(&n.to_be_bytes(), put(2, 2, 1));
        }
        let end = (KEYS_PER_CHUNK as u16 - 1).to_be_bytes();
        assert_eq!(keys(&index, &[0], &end, 2).len(), KEYS_PER_CHUNK - 1);
        // The last key visited, then the key right after it as the end: bounds that touch.
        let mut end = end.to_vec();
        end.push(0);
        assert_eq!(keys(&index, &[0], &end, 2).len(), KEYS_PER_CHUNK);
    }
}
