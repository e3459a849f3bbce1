//! The lowest level of the tree: keys and their versions.

use std::ops::{ControlFlow, Range};

use super::history::History;
use super::keys::Keys;
use super::node::{Summary, Walk};
use super::sparse::Sparse;
use super::{DropWalk, Version, check_step};
use crate::record::{Location, Revision};

/// Up to `N` keys with all their versions.
#[derive(Debug, Default)]
pub(super) struct Leaf<const N: usize> {
    pub(super) summary: Summary,
    pub(super) keys: Keys<N>,
    /// The newest version of each key.
    newest: Vec<Version>,
    /// The others. A key that has none pays nothing.
    older: Sparse<History>,
}

impl<const N: usize> Leaf<N> {
    pub(super) fn len(&self) -> usize {
        self.newest.len()
    }

    /// Whether the key may get this version next.
    pub(super) fn accepts(&self, slot: usize, version: &Version) -> bool {
        version.revision() > self.newest[slot].revision()
    }

    /// Whether the key has exactly this version.
    pub(super) fn has(&self, slot: usize, revision: Revision) -> bool {
        self.newest[slot].revision() == revision
            || self.older.get(slot).is_some_and(|older| older.has(revision))
    }

    /// The newest version at or below `at`, tombstones too.
    #[inline]
    pub(super) fn at(&self, slot: usize, at: i64) -> Option<Version> {
        let newest = &self.newest[slot];
        if newest.mod_revision <= at { Some(*newest) } else { self.older.get(slot)?.at(at) }
    }

    /// As [`Leaf::at`], without tombstones.
    #[inline]
    pub(super) fn live_at(&self, slot: usize, at: i64) -> Option<Version> {
        self.at(slot, at).filter(|version| !version.is_tombstone())
    }

    /// The slots whose keys are from `from` on and below `to`.
    pub(super) fn slots(&self, from: Option<&[u8]>, to: Option<&[u8]>) -> Range<usize> {
        from.map_or(0, |from| self.keys.below(from))..to.map_or(self.len(), |to| self.keys.below(to))
    }

    /// Adds a key, whose slot [`Keys::search`] has given. Panics if there is no room.
    pub(super) fn insert(&mut self, slot: usize, key: &[u8], version: &Version) {
        self.keys.insert(slot, key);
        if self.newest.len() == self.newest.capacity() {
            let more = if N < 8 { 1 } else { N / 8 };
            self.newest.reserve_exact(more.min(N - self.newest.len()));
        }
        self.newest.insert(slot, *version);
        self.older.open(slot);
        self.summary.add(&Summary::of(version));
    }

    /// Gives a key a newer version. Panics unless it accepts it.
    pub(super) fn replace(&mut self, slot: usize, version: &Version) {
        assert!(self.accepts(slot, version), "{version:?} after {:?}", self.newest[slot]);
        let before = std::mem::replace(&mut self.newest[slot], *version);
        match self.older.get_mut(slot) {
            // It is due when it was.
            Some(older) => older.push(&before),
            None => {
                self.older.insert(slot, History::new(&before));
                self.summary.due = self.summary.due.min(self.due(slot));
            }
        }
        self.summary.live += u64::from(!version.is_tombstone());
        self.summary.live -= u64::from(!before.is_tombstone());
        self.summary.newest = self.summary.newest.max(version.mod_revision);
    }

    /// The lowest horizon at which [`Leaf::drop_below`] would drop a version of this key.
    pub(super) fn due(&self, slot: usize) -> i64 {
        let newest = &self.newest[slot];
        let Some(older) = self.older.get(slot) else { return tombstone_due(newest) };
        let (first, second) = older.front();
        tombstone_due(&first).min(second.unwrap_or(newest.mod_revision))
    }

    /// What the summary has to be.
    pub(super) fn summarize(&self) -> Summary {
        let mut summary = Summary::default();
        self.newest.iter().for_each(|version| summary.add(&Summary::of(version)));
        // A key that has older versions is due for them before it is for its newest.
        for (slot, _) in self.older.iter() {
            summary.due = summary.due.min(self.due(slot));
        }
        summary
    }

    /// Splits: what is from `slot` on is returned.
    pub(super) fn split_off(&mut self, slot: usize) -> Self {
        let mut right = Leaf {
            summary: Summary::default(),
            keys: self.keys.split_off(slot),
            newest: self.newest.split_off(slot),
            older: self.older.split_off(slot),
        };
        self.newest.shrink_to_fit();
        self.summary = self.summarize();
        right.summary = right.summarize();
        right
    }

    /// Adds what `right` has; its keys are above all that are here, and have room.
    pub(super) fn append(&mut self, mut right: Self) {
        self.keys.append(right.keys);
        self.older.append(right.older, self.newest.len());
        self.newest.reserve_exact(right.newest.len());
        self.newest.append(&mut right.newest);
        self.summary.add(&right.summary);
    }

    pub(super) fn relocate(&mut self, slot: usize, revision: Revision, to: Location) -> bool {
        let newest = &mut self.newest[slot];
        if newest.revision() != revision {
            return self.older.get_mut(slot).is_some_and(|older| older.relocate(revision, to));
        }
        newest.location = to;
        true
    }

    /// Visits the keys of these slots that exist at the walk's revision.
    pub(super) fn walk(
        &self,
        slots: Range<usize>,
        walk: &mut Walk<'_>,
        visit: &mut impl FnMut(&[u8], &Version),
    ) -> ControlFlow<()> {
        for slot in slots {
            if walk.keys_left == 0 {
                walk.place.stop(self.keys.get(slot, walk.scratch));
                return ControlFlow::Break(());
            }
            walk.keys_left -= 1;
            if let Some(version) = self.live_at(slot, walk.at) {
                visit(self.keys.get(slot, walk.scratch), &version);
            }
        }
        ControlFlow::Continue(())
    }

    /// Counts the keys of these slots that exist at the walk's revision.
    pub(super) fn count(&self, slots: Range<usize>, walk: &mut Walk<'_>, count: &mut u64) -> ControlFlow<()> {
        for slot in slots {
            if walk.keys_left == 0 {
                walk.place.stop(self.keys.get(slot, walk.scratch));
                return ControlFlow::Break(());
            }
            walk.keys_left -= 1;
            let newest = &self.newest[slot];
            let is_live = if newest.mod_revision <= walk.at {
                !newest.is_tombstone()
            } else {
                self.live_at(slot, walk.at).is_some()
            };
            *count += u64::from(is_live);
        }
        ControlFlow::Continue(())
    }

    /// Drops what nobody at or above the walk's horizon sees.
    pub(super) fn drop_below(&mut self, from: Option<&[u8]>, walk: &mut DropWalk<'_>) -> ControlFlow<()> {
        let mut slot = self.slots(from, None).start;
        let mut flow = ControlFlow::Continue(());
        while slot < self.len() {
            if walk.steps_left == 0 {
                walk.place.stop(self.keys.get(slot, &mut walk.scratch));
                flow = ControlFlow::Break(());
                break;
            }
            if self.due(slot) > walk.horizon {
                walk.steps_left -= 1;
                slot += 1;
                continue;
            }
            let before = walk.steps_left;
            if self.drop_versions(slot, walk) {
                self.keys.remove(slot);
                self.newest.remove(slot);
                self.older.close(slot);
            }
            // What remains of the key is looked at again: there may have been more versions than steps.
            assert!(walk.steps_left < before, "a key is due, and nothing of it is dead");
        }
        self.keys.trim();
        if self.newest.capacity() > self.newest.len() + N / 8 + 1 {
            self.newest.shrink_to_fit();
        }
        self.summary = self.summarize();
        flow
    }

    /// Drops dead versions of a key, as many as there are steps left. True if its last one has to go too.
    fn drop_versions(&mut self, slot: usize, walk: &mut DropWalk<'_>) -> bool {
        let newest = self.newest[slot];
        let key = self.keys.get(slot, &mut walk.scratch);
        if let Some(older) = self.older.get_mut(slot) {
            let dead = older.dead(walk.horizon, newest.mod_revision, walk.steps_left);
            walk.steps_left -= dead;
            if older.drop_front(dead, |version| (walk.dropped)(key, version)) {
                return false;
            }
            self.older.take(slot);
        }
        let is_dead = walk.steps_left > 0 && tombstone_due(&newest) <= walk.horizon;
        if is_dead {
            walk.steps_left -= 1;
            (walk.dropped)(key, &newest);
        }
        is_dead
    }

    /// Checks every invariant. See `Index::check`.
    pub(super) fn check(&self, last: i64, horizon: i64) {
        self.keys.check();
        assert_eq!(self.keys.len(), self.newest.len());
        assert_eq!(self.summary, self.summarize());
        for (slot, older) in self.older.iter() {
            assert!(slot < self.len(), "older versions of no key");
            older.check();
        }
        for slot in 0..self.len() {
            let mut before: Option<Version> = None;
            let older = self.older.get(slot).into_iter().flat_map(History::iter);
            for version in older.chain([self.newest[slot]]) {
                assert!(version.mod_revision <= last, "{version:?} above {last}");
                // What was before one at or below it may be gone.
                if version.mod_revision > horizon {
                    check_step(before.as_ref(), &version);
                } else {
                    let is_above = before.is_none_or(|before| before.revision() < version.revision());
                    assert!(is_above, "{before:?} then {version:?}");
                }
                before = Some(version);
            }
        }
    }
}

/// The lowest horizon at which a version that is the oldest of its key goes though none follows it.
fn tombstone_due(version: &Version) -> i64 {
    // One exactly at the horizon stays, as in etcd (key_index.go).
    if version.is_tombstone() { version.mod_revision.saturating_add(1) } else { i64::MAX }
}

impl Summary {
    /// Of a key that has this version alone.
    fn of(version: &Version) -> Summary {
        Summary {
            live: u64::from(!version.is_tombstone()),
            newest: version.mod_revision,
            due: tombstone_due(version),
        }
    }
}
