//! The key index: which versions of which keys there are, and where their records lie. Ordered by key, in memory.
//!
//! Nothing outside knows its layout. It is read under a lock that is held for a bounded chunk of keys at a time
//! and never while record bytes are read; a range goes on where the chunk before it ended, by key.
//!
//! Readers name the revision they read at, so versions above it may be here already: that is how a batch that is
//! being applied stays invisible until it is published (rules 9 and 10). Nor does it show when versions go that
//! nobody at or above a horizon sees, to whoever reads at or above it (rule 11).
//!
//! It is a B+tree. Each node knows of the subtree below it how many keys live, the newest revision, and when there is
//! something to drop: so counting and dropping pass by what they need not look into.

mod cursor;
mod history;
mod keys;
mod leaf;
mod node;
mod sparse;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

pub(crate) use cursor::DropCursor;
pub(crate) use cursor::{Cursor, End, Span};
use cursor::{Place, State};
use node::{Node, Walk};

use crate::record::{Location, Revision};

/// Keys visited under one hold of the index's lock.
pub(crate) const KEYS_PER_CHUNK: usize = 256;

/// Keys in a leaf, children of an inner node. Tests have less, to have more nodes.
const NODE_KEYS: usize = 64;

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
    #[inline]
    pub(crate) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision { main: self.mod_revision, sub: i64::from(self.sub) }
    }
}

/// The index. One writer; see the module's text.
pub(crate) type Index = IndexOf<NODE_KEYS>;

/// The index with nodes of a size.
#[derive(Debug)]
pub(crate) struct IndexOf<const N: usize> {
    root: Node<N>,
    /// The highest horizon that anything was dropped below.
    horizon: i64,
}

impl<const N: usize> Default for IndexOf<N> {
    fn default() -> Self {
        IndexOf { root: Node::default(), horizon: i64::MIN }
    }
}

/// A step of a walk that drops.
struct DropWalk<'a> {
    horizon: i64,
    /// Keys that may still be looked at, and versions dropped.
    steps_left: usize,
    place: &'a mut Place,
    scratch: Vec<u8>,
    dropped: &'a mut dyn FnMut(&[u8], &Version),
}

impl<const N: usize> IndexOf<N> {
    /// The key's version at a revision; `None` if it did not exist then. Allocates nothing.
    #[inline]
    pub(crate) fn get(&self, key: &[u8], at: i64) -> Option<Version> {
        self.at(key, at).filter(|version| !version.is_tombstone())
    }

    /// The key's newest version at or below a revision, tombstones too.
    #[inline]
    pub(crate) fn at(&self, key: &[u8], at: i64) -> Option<Version> {
        let leaf = self.root.leaf(key);
        leaf.at(leaf.keys.search(key).ok()?, at)
    }

    /// Visits the next keys of the cursor's span that exist at a revision, in order. At most [`KEYS_PER_CHUNK`]
    /// keys are looked at, dead ones too.
    pub(crate) fn advance(&self, cursor: &mut Cursor<'_>, at: i64, visit: impl FnMut(&[u8], &Version)) {
        self.advance_by(KEYS_PER_CHUNK, cursor, at, visit);
    }

    /// As [`IndexOf::advance`], but looks at no more than `keys_max` keys, which is not 0.
    pub(crate) fn advance_by(
        &self,
        keys_max: usize,
        cursor: &mut Cursor<'_>,
        at: i64,
        mut visit: impl FnMut(&[u8], &Version),
    ) {
        if cursor.span.to != End::One {
            return walk(cursor, at, keys_max, |from, to, walk| {
                self.root.walk(Some(from), to, walk, &mut visit)
            });
        }
        if !cursor.is_done()
            && let Some(version) = self.get(cursor.span.from, at)
        {
            visit(cursor.span.from, &version);
        }
        cursor.place.state = State::Done;
    }

    /// How many keys exist at the newest revision.
    pub(crate) fn live(&self) -> u64 {
        self.root.summary().live
    }

    /// Counts the next keys of the cursor's span that exist at a revision. At most [`KEYS_PER_CHUNK`] keys are looked
    /// at one by one: subtrees that lie in the span as a whole, and have nothing newer, are taken by their sums. The
    /// caller adds up until the cursor is done. The sum is exact whatever is added above `at`, or dropped below a horizon
    /// that is not above it, between the steps.
    pub(crate) fn count(&self, cursor: &mut Cursor<'_>, at: i64) -> u64 {
        self.count_by(KEYS_PER_CHUNK, cursor, at)
    }

    fn count_by(&self, keys_max: usize, cursor: &mut Cursor<'_>, at: i64) -> u64 {
        let mut count = 0;
        if cursor.span.to == End::One {
            self.advance(cursor, at, |_, _| count += 1);
        } else {
            walk(cursor, at, keys_max, |from, to, walk| self.root.count(Some(from), to, walk, &mut count));
        }
        count
    }

    /// Adds a version, a tombstone too, above all that the key has.
    ///
    /// Panics if it is not above.
    pub(crate) fn insert(&mut self, key: &[u8], version: Version) {
        if let Some(split) = self.root.insert(key, &version) {
            self.root.raise(*split);
        }
    }

    /// Whether [`IndexOf::insert`] would take this version of the key. For replay, where damage is an error.
    pub(crate) fn accepts(&self, key: &[u8], version: &Version) -> bool {
        let leaf = self.root.leaf(key);
        leaf.keys.search(key).map_or(true, |slot| leaf.accepts(slot, version))
    }

    /// Whether this version of the key is a tombstone, and what it is to end is not there. That is so where a merge has
    /// left it out, and nowhere above what is compacted.
    pub(crate) fn ends_nothing(&self, key: &[u8], version: &Version) -> bool {
        version.is_tombstone() && self.get(key, i64::MAX).is_none()
    }

    /// Whether it has exactly this version of the key.
    pub(crate) fn has(&self, key: &[u8], revision: Revision) -> bool {
        let leaf = self.root.leaf(key);
        leaf.keys.search(key).is_ok_and(|slot| leaf.has(slot, revision))
    }

    /// Says up to which horizon versions may be missing already, before the first [`IndexOf::drop_below`].
    pub(crate) fn set_horizon(&mut self, horizon: i64) {
        self.horizon = self.horizon.max(horizon);
    }

    /// Drops a piece of what nobody at or above `horizon` sees, in order of keys: of each key all versions at or below
    /// it but the newest of these, and that one too if it is a tombstone below it (one exactly at it stays, as in
    /// etcd since 3.5.16). `steps_max`, which is not 0, bounds the keys that are looked at plus the versions that are
    /// dropped; subtrees with nothing to drop cost none. The caller repeats it until the cursor is done.
    ///
    /// The horizon is the same for all steps of a cursor, and no version at or below it is added meanwhile.
    pub(crate) fn drop_below(
        &mut self,
        cursor: &mut DropCursor,
        horizon: i64,
        steps_max: usize,
        mut dropped: impl FnMut(&[u8], &Version),
    ) {
        assert!(steps_max > 0, "a step that does nothing");
        if cursor.is_done() {
            return;
        }
        self.horizon = self.horizon.max(horizon);
        let next = std::mem::take(&mut cursor.place.next);
        let from = (cursor.place.state == State::Under).then_some(&next[..]);
        let mut walk = DropWalk {
            horizon,
            steps_left: steps_max,
            place: &mut cursor.place,
            scratch: Vec::new(),
            dropped: &mut dropped,
        };
        let mut flow = ControlFlow::Continue(());
        if self.root.summary().due <= horizon {
            flow = self.root.drop_below(from, &mut walk);
            self.root.lower();
        }
        if flow.is_continue() {
            cursor.place.state = State::Done;
        }
    }

    /// Gives a version another location, if it is there.
    pub(crate) fn relocate(&mut self, key: &[u8], revision: Revision, to: Location) -> bool {
        let leaf = self.root.leaf_mut(key);
        leaf.keys.search(key).is_ok_and(|slot| leaf.relocate(slot, revision, to))
    }

    /// Checks every invariant. `last` is the highest revision that anything may have.
    ///
    /// Panics if one does not hold.
    pub(crate) fn check(&self, last: i64) {
        self.root.check(None, None, last, self.horizon);
    }
}

/// Takes a cursor one step on.
fn walk(
    cursor: &mut Cursor<'_>,
    at: i64,
    keys_max: usize,
    step: impl FnOnce(&[u8], Option<&[u8]>, &mut Walk<'_>) -> ControlFlow<()>,
) {
    let next = std::mem::replace(&mut cursor.place.next, std::mem::take(&mut cursor.spare));
    let from = match cursor.place.state {
        State::Start => cursor.span.from,
        State::Under => &next,
        State::Done => return,
    };
    let to = if let End::Before(end) = cursor.span.to { Some(end) } else { None };
    let mut walk = Walk { at, keys_left: keys_max, place: &mut cursor.place, scratch: &mut cursor.scratch };
    if to.is_some_and(|to| from >= to) || step(from, to, &mut walk).is_continue() {
        cursor.place.state = State::Done;
    }
    cursor.spare = next;
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

const _: () = assert!(size_of::<Version>() == 48);
