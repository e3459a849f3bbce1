//! The tree: inner nodes, and what goes through all levels.

use std::ops::{ControlFlow, RangeInclusive};

use super::cursor::Place;
use super::keys::{Keys, shared_length};
use super::leaf::Leaf;
use super::{DropWalk, Version};

/// What a subtree holds, so that counting and dropping need not look into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Keys whose newest version is no tombstone.
    pub(super) live: u64,
    /// The highest `mod_revision`.
    pub(super) newest: i64,
    /// The lowest horizon at which something would be dropped.
    pub(super) due: i64,
}

impl Default for Summary {
    fn default() -> Self {
        Summary { live: 0, newest: i64::MIN, due: i64::MAX }
    }
}

impl Summary {
    pub(super) fn add(&mut self, other: &Summary) {
        self.live += other.live;
        self.newest = self.newest.max(other.newest);
        self.due = self.due.min(other.due);
    }
}

/// A subtree. Leaves lie side by side in their parent, and not each in a box: a cache miss less a search.
#[derive(Debug)]
pub(super) enum Node<const N: usize> {
    Leaf(Leaf<N>),
    Inner(Box<Inner<N>>),
}

/// Up to `N` subtrees, all of one height.
#[derive(Debug, Default)]
pub(super) struct Inner<const N: usize> {
    summary: Summary,
    /// One less than there are children. Keys below the first are in the first child, those at or above it and below
    /// the second in the second, and so on.
    separators: Keys<N>,
    children: Vec<Node<N>>,
}

/// The upper part of a node that had to be split.
#[derive(Debug)]
pub(super) struct Split<const N: usize> {
    /// Above all keys that stayed, at or below all that are in `right`.
    pub(super) separator: Vec<u8>,
    pub(super) right: Node<N>,
}

/// A step of a reading walk.
pub(super) struct Walk<'a> {
    pub(super) at: i64,
    /// Keys that may still be looked at.
    pub(super) keys_left: usize,
    pub(super) place: &'a mut Place,
    pub(super) scratch: &'a mut Vec<u8>,
}

impl<const N: usize> Default for Node<N> {
    fn default() -> Self {
        Node::Leaf(Leaf::default())
    }
}

impl<const N: usize> Node<N> {
    pub(super) fn summary(&self) -> &Summary {
        match self {
            Node::Leaf(leaf) => &leaf.summary,
            Node::Inner(inner) => &inner.summary,
        }
    }

    /// Keys or children.
    pub(super) fn len(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.len(),
            Node::Inner(inner) => inner.children.len(),
        }
    }

    /// The leaf that has a key, or would have it.
    #[inline]
    pub(super) fn leaf(&self, key: &[u8]) -> &Leaf<N> {
        let mut node = self;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf,
                Node::Inner(inner) => node = &inner.children[inner.separators.at_or_below(key)],
            }
        }
    }

    pub(super) fn leaf_mut(&mut self, key: &[u8]) -> &mut Leaf<N> {
        let mut node = self;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf,
                Node::Inner(inner) => node = &mut inner.children[inner.separators.at_or_below(key)],
            }
        }
    }

    /// Adds a version. Panics unless it may follow.
    pub(super) fn insert(&mut self, key: &[u8], version: &Version) -> Option<Box<Split<N>>> {
        match self {
            Node::Leaf(leaf) => match leaf.keys.search(key) {
                Ok(slot) => {
                    leaf.replace(slot, version);
                    None
                }
                Err(slot) => leaf.add(slot, key, version).map(Box::new),
            },
            Node::Inner(inner) => inner.insert(key, version),
        }
    }

    /// Replaces a root that has only one child, or none.
    pub(super) fn lower(&mut self) {
        while let Node::Inner(inner) = self
            && inner.children.len() <= 1
        {
            *self = inner.children.pop().unwrap_or_default();
        }
    }

    /// Puts a root above the two halves of the old one.
    pub(super) fn raise(&mut self, split: Split<N>) {
        let mut root = Inner { children: vec![std::mem::take(self)], ..Inner::default() };
        root.insert_child(1, split);
        root.summary = root.summarize();
        *self = Node::Inner(Box::new(root));
    }

    pub(super) fn walk(
        &self,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
        walk: &mut Walk<'_>,
        visit: &mut impl FnMut(&[u8], &Version),
    ) -> ControlFlow<()> {
        let inner = match self {
            Node::Leaf(leaf) => return leaf.walk(leaf.slots(from, to), walk, visit),
            Node::Inner(inner) => inner,
        };
        let places = inner.places(from, to);
        let (first, last) = (*places.start(), *places.end());
        for place in places {
            let from = from.filter(|_| place == first);
            let to = to.filter(|_| place == last);
            inner.children[place].walk(from, to, walk, visit)?;
        }
        ControlFlow::Continue(())
    }

    pub(super) fn count(
        &self,
        from: Option<&[u8]>,
        to: Option<&[u8]>,
        walk: &mut Walk<'_>,
        count: &mut u64,
    ) -> ControlFlow<()> {
        let summary = self.summary();
        if from.is_none() && to.is_none() && summary.newest <= walk.at {
            *count += summary.live;
            return ControlFlow::Continue(());
        }
        let inner = match self {
            Node::Leaf(leaf) => return leaf.count(leaf.slots(from, to), walk, count),
            Node::Inner(inner) => inner,
        };
        let places = inner.places(from, to);
        let (first, last) = (*places.start(), *places.end());
        for place in places {
            let from = from.filter(|_| place == first);
            let to = to.filter(|_| place == last);
            inner.children[place].count(from, to, walk, count)?;
        }
        ControlFlow::Continue(())
    }

    pub(super) fn drop_below(&mut self, from: Option<&[u8]>, walk: &mut DropWalk<'_>) -> ControlFlow<()> {
        match self {
            Node::Leaf(leaf) => leaf.drop_below(from, walk),
            Node::Inner(inner) => inner.drop_below(from, walk),
        }
    }

    /// Whether two neighbours become one: a tree that has shrunk must not keep the room that it once needed. Less
    /// than a whole node, so that they are not split again soon.
    fn is_small_with(&self, right: &Self) -> bool {
        self.len() + right.len() <= N * 3 / 4
    }

    #[cfg(test)]
    pub(super) fn leaves(&self) -> usize {
        match self {
            Node::Leaf(_) => 1,
            Node::Inner(inner) => inner.children.iter().map(Node::leaves).sum(),
        }
    }

    /// Checks every invariant of a subtree whose keys are from `from` on and below `to`. Returns its height.
    pub(super) fn check(&self, from: Option<&[u8]>, to: Option<&[u8]>, last: i64, horizon: i64) -> usize {
        match self {
            Node::Leaf(leaf) => {
                leaf.check(last, horizon);
                let slots = leaf.slots(from, to);
                assert_eq!(slots, 0..leaf.len(), "keys that do not belong here");
                0
            }
            Node::Inner(inner) => inner.check(from, to, last, horizon),
        }
    }
}

impl<const N: usize> Leaf<N> {
    /// Adds a new key, which may need a leaf more.
    fn add(&mut self, slot: usize, key: &[u8], version: &Version) -> Option<Split<N>> {
        let len = self.len();
        if len < N {
            self.insert(slot, key, version);
            return None;
        }
        // Behind all others it gets a leaf of its own, so that ascending keys leave full leaves behind.
        let mut right = if slot == len { Leaf::default() } else { self.split_off(len / 2) };
        if slot >= self.len() && (slot > self.len() || right.len() == 0) {
            right.insert(slot - self.len(), key, version);
        } else {
            self.insert(slot, key, version);
        }
        let (mut low, mut high) = (Vec::new(), Vec::new());
        let low = self.keys.get(self.len() - 1, &mut low);
        let high = right.keys.get(0, &mut high);
        // As short as can be: it only has to tell the two apart.
        let separator = high[..shared_length(low, high) + 1].to_vec();
        Some(Split { separator, right: Node::Leaf(right) })
    }
}

impl<const N: usize> Inner<N> {
    /// The children that keys from `from` on and below `to` can be in.
    fn places(&self, from: Option<&[u8]>, to: Option<&[u8]>) -> RangeInclusive<usize> {
        let first = from.map_or(0, |from| self.separators.at_or_below(from));
        first..=to.map_or(self.children.len() - 1, |to| self.separators.below(to))
    }

    fn insert(&mut self, key: &[u8], version: &Version) -> Option<Box<Split<N>>> {
        let place = self.separators.at_or_below(key);
        let before = *self.children[place].summary();
        let split = self.children[place].insert(key, version);
        let mut after = *self.children[place].summary();
        if let Some(split) = &split {
            after.add(split.right.summary());
        }
        self.summary.live = self.summary.live + after.live - before.live;
        self.summary.newest = self.summary.newest.max(after.newest);
        self.summary.due = self.summary.due.min(after.due);
        split.and_then(|split| self.add(place + 1, *split)).map(Box::new)
    }

    /// Adds a child, which may need an inner node more.
    fn add(&mut self, place: usize, split: Split<N>) -> Option<Split<N>> {
        let len = self.children.len();
        if len < N {
            self.insert_child(place, split);
            return None;
        }
        let Split { separator, mut right } = if place == len {
            let alone =
                Inner { summary: *split.right.summary(), children: vec![split.right], ..Inner::default() };
            Split { separator: split.separator, right: Node::Inner(Box::new(alone)) }
        } else {
            let mut upper = self.split_off(len / 2);
            if place <= self.children.len() {
                self.insert_child(place, split);
            } else if let Node::Inner(right) = &mut upper.right {
                right.insert_child(place - self.children.len(), split);
            }
            upper
        };
        if let Node::Inner(right) = &mut right {
            right.summary = right.summarize();
        }
        self.summary = self.summarize();
        Some(Split { separator, right })
    }

    fn insert_child(&mut self, place: usize, split: Split<N>) {
        self.separators.insert(place - 1, &split.separator);
        if self.children.len() == self.children.capacity() {
            self.children.reserve_exact(if N < 8 { 1 } else { N / 8 });
        }
        self.children.insert(place, split.right);
    }

    /// Splits: the children from `place` on, which is not 0, are returned. Summaries are the caller's.
    fn split_off(&mut self, place: usize) -> Split<N> {
        let separators = self.separators.split_off(place);
        let separator = self.separators.get(place - 1, &mut Vec::new()).to_vec();
        self.separators.remove(place - 1);
        let children = self.children.split_off(place);
        self.children.shrink_to_fit();
        let right = Inner { summary: Summary::default(), separators, children };
        Split { separator, right: Node::Inner(Box::new(right)) }
    }

    fn summarize(&self) -> Summary {
        let mut summary = Summary::default();
        self.children.iter().for_each(|child| summary.add(child.summary()));
        summary
    }

    fn drop_below(&mut self, from: Option<&[u8]>, walk: &mut DropWalk<'_>) -> ControlFlow<()> {
        let mut place = from.map_or(0, |from| self.separators.at_or_below(from));
        let (mut from, mut flow, mut touched) = (from, ControlFlow::Continue(()), false);
        while place < self.children.len() && flow.is_continue() {
            let child = &mut self.children[place];
            if child.summary().due <= walk.horizon {
                touched = true;
                flow = child.drop_below(from, walk);
            }
            from = None;
            if self.children[place].len() == 0 {
                self.remove_child(place);
            } else {
                place += 1;
            }
        }
        if touched {
            self.merge_small();
            self.summary = self.summarize();
        }
        flow
    }

    fn remove_child(&mut self, place: usize) {
        self.children.remove(place);
        if self.separators.len() > 0 {
            self.separators.remove(place.saturating_sub(1));
        }
    }

    /// Makes one of neighbours that are small.
    fn merge_small(&mut self) {
        let mut place = 0;
        while place + 1 < self.children.len() {
            if !self.children[place].is_small_with(&self.children[place + 1]) {
                place += 1;
                continue;
            }
            let separator = self.separators.get(place, &mut Vec::new()).to_vec();
            self.separators.remove(place);
            let right = self.children.remove(place + 1);
            match (&mut self.children[place], right) {
                (Node::Leaf(left), Node::Leaf(right)) => left.append(right),
                (Node::Inner(left), Node::Inner(right)) => left.append(&separator, *right),
                _ => panic!("neighbours of two heights"),
            }
        }
        self.separators.trim();
        if self.children.capacity() > self.children.len() + N / 8 + 1 {
            self.children.shrink_to_fit();
        }
    }

    /// Adds what `right` has, which is from `separator` on.
    fn append(&mut self, separator: &[u8], mut right: Self) {
        self.separators.insert(self.separators.len(), separator);
        self.separators.append(right.separators);
        self.children.reserve_exact(right.children.len());
        self.children.append(&mut right.children);
        self.summary.add(&right.summary);
        // Where they meet there are new neighbours.
        self.merge_small();
    }

    fn check(&self, from: Option<&[u8]>, to: Option<&[u8]>, last: i64, horizon: i64) -> usize {
        self.separators.check();
        assert!((1..=N).contains(&self.children.len()), "{} children", self.children.len());
        assert_eq!(self.separators.len() + 1, self.children.len());
        assert_eq!(self.summary, self.summarize());
        let mut height = None;
        let (mut low, mut high) = (Vec::new(), Vec::new());
        for (place, child) in self.children.iter().enumerate() {
            let from =
                place.checked_sub(1).map_or(from, |before| Some(self.separators.get(before, &mut low)));
            let to =
                if place < self.separators.len() { Some(self.separators.get(place, &mut high)) } else { to };
            assert!(from.zip(to).is_none_or(|(from, to)| from < to), "{from:?} to {to:?}");
            assert!(child.len() > 0, "an empty node");
            let child_height = child.check(from, to, last, horizon);
            assert_eq!(*height.get_or_insert(child_height), child_height, "children of two heights");
        }
        height.map_or(0, |height| height + 1)
    }
}
