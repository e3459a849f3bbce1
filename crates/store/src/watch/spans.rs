//! An interval tree over key ranges: an AVL tree, ordered by range, where each node knows the farthest end below it.
//! Balanced without chance: clients choose the ranges, and a drawn shape could be foreseen. So its depth, and with it
//! the recursion below, is at most 1.45 times the logarithm of its size.

use std::cmp::Ordering;

use super::interest::Slots;
use crate::mvcc::Key;

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    from: Key,
    /// No end where there is none.
    to: Option<Key>,
    slots: Slots,
    /// Nodes on the longest way down, this one included.
    height: u8,
    left: u32,
    right: u32,
    /// The node with the farthest end of this and all below.
    farthest: u32,
}

/// Ranges with their watches; equal ranges are one node.
#[derive(Debug)]
pub(super) struct SpanTree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
}

impl Default for SpanTree {
    fn default() -> Self {
        SpanTree { nodes: Vec::new(), free: Vec::new(), root: NONE }
    }
}

/// Orders ends: none is beyond all.
fn compare_ends(a: Option<&Key>, b: Option<&Key>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

impl SpanTree {
    pub(super) fn insert(&mut self, from: &Key, to: Option<&Key>, slot: u32) {
        self.root = self.insert_below(self.root, from, to, slot);
    }

    pub(super) fn remove(&mut self, from: &Key, to: Option<&Key>, slot: u32) {
        self.root = self.remove_below(self.root, from, to, slot);
    }

    /// Visits the watches of every range that `key` is in.
    pub(super) fn visit(&self, key: &[u8], visit: &mut impl FnMut(u32)) {
        self.visit_below(self.root, key, visit);
    }

    /// The lowest beginning and the farthest end; `None` if there is no range.
    pub(super) fn hull(&self) -> Option<(&Key, Option<&Key>)> {
        if self.root == NONE {
            return None;
        }
        let mut first = self.root;
        while self.node(first).left != NONE {
            first = self.node(first).left;
        }
        let farthest = self.node(self.root).farthest;
        Some((&self.node(first).from, self.node(farthest).to.as_ref()))
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self, into: &mut Vec<u32>) {
        self.drain_below(self.root, into);
        *self = SpanTree::default();
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn height(&self, at: u32) -> u8 {
        if at == NONE { 0 } else { self.node(at).height }
    }

    fn order(&self, at: u32, from: &Key, to: Option<&Key>) -> Ordering {
        let node = self.node(at);
        from.cmp(&node.from).then_with(|| compare_ends(to, node.to.as_ref()))
    }

    fn insert_below(&mut self, at: u32, from: &Key, to: Option<&Key>, slot: u32) -> u32 {
        if at == NONE {
            return self.make(from, to, slot);
        }
        match self.order(at, from, to) {
            Ordering::Equal => {
                self.nodes[at as usize].slots.add(slot);
                return at;
            }
            Ordering::Less => {
                let left = self.insert_below(self.node(at).left, from, to, slot);
                self.nodes[at as usize].left = left;
            }
            Ordering::Greater => {
                let right = self.insert_below(self.node(at).right, from, to, slot);
                self.nodes[at as usize].right = right;
            }
        }
        self.balance(at)
    }

    fn make(&mut self, from: &Key, to: Option<&Key>, slot: u32) -> u32 {
        let node = Node {
            from: from.clone(),
            to: to.cloned(),
            slots: Slots::One(slot),
            height: 1,
            left: NONE,
            right: NONE,
            farthest: NONE,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        };
        self.nodes[at as usize].farthest = at;
        at
    }

    fn remove_below(&mut self, at: u32, from: &Key, to: Option<&Key>, slot: u32) -> u32 {
        assert_ne!(at, NONE, "a watch is where its keys are");
        match self.order(at, from, to) {
            Ordering::Equal => {
                if !self.nodes[at as usize].slots.remove(slot) {
                    return at;
                }
                let (left, right) = (self.node(at).left, self.node(at).right);
                self.free.push(at);
                if left == NONE || right == NONE {
                    return if left == NONE { right } else { left };
                }
                let (first, rest) = self.take_first(right);
                self.nodes[first as usize].left = left;
                self.nodes[first as usize].right = rest;
                return self.balance(first);
            }
            Ordering::Less => {
                let left = self.remove_below(self.node(at).left, from, to, slot);
                self.nodes[at as usize].left = left;
            }
            Ordering::Greater => {
                let right = self.remove_below(self.node(at).right, from, to, slot);
                self.nodes[at as usize].right = right;
            }
        }
        self.balance(at)
    }

    /// Takes out the first node; returned with what is left.
    fn take_first(&mut self, at: u32) -> (u32, u32) {
        let left = self.node(at).left;
        if left == NONE {
            return (at, self.node(at).right);
        }
        let (first, rest) = self.take_first(left);
        self.nodes[at as usize].left = rest;
        (first, self.balance(at))
    }

    /// Makes a node right whose two sides are right, and differ in height by two at most; the node in its place.
    fn balance(&mut self, at: u32) -> u32 {
        let (left, right) = (self.node(at).left, self.node(at).right);
        let (left_height, right_height) = (self.height(left), self.height(right));
        if left_height > right_height + 1 {
            if self.height(self.node(left).left) < self.height(self.node(left).right) {
                self.nodes[at as usize].left = self.rotate_left(left);
            }
            return self.rotate_right(at);
        }
        if right_height > left_height + 1 {
            if self.height(self.node(right).right) < self.height(self.node(right).left) {
                self.nodes[at as usize].right = self.rotate_right(right);
            }
            return self.rotate_left(at);
        }
        self.update(at);
        at
    }

    fn rotate_right(&mut self, at: u32) -> u32 {
        let left = self.node(at).left;
        self.nodes[at as usize].left = self.node(left).right;
        self.nodes[left as usize].right = at;
        self.update(at);
        self.update(left);
        left
    }

    fn rotate_left(&mut self, at: u32) -> u32 {
        let right = self.node(at).right;
        self.nodes[at as usize].right = self.node(right).left;
        self.nodes[right as usize].left = at;
        self.update(at);
        self.update(right);
        right
    }

    fn update(&mut self, at: u32) {
        let mut farthest = at;
        let height = 1 + self.height(self.node(at).left).max(self.height(self.node(at).right));
        self.nodes[at as usize].height = height;
        for child in [self.node(at).left, self.node(at).right] {
            if child != NONE {
                let candidate = self.node(child).farthest;
                let (a, b) = (self.node(candidate).to.as_ref(), self.node(farthest).to.as_ref());
                if compare_ends(a, b) == Ordering::Greater {
                    farthest = candidate;
                }
            }
        }
        self.nodes[at as usize].farthest = farthest;
    }

    fn visit_below(&self, at: u32, key: &[u8], visit: &mut impl FnMut(u32)) {
        if at == NONE {
            return;
        }
        let node = self.node(at);
        let ends_behind = |node: &Node| node.to.as_ref().is_none_or(|to| key < to.as_slice());
        if !ends_behind(self.node(node.farthest)) {
            return;
        }
        self.visit_below(node.left, key, visit);
        if node.from.as_slice() <= key {
            if ends_behind(node) {
                node.slots.as_slice().iter().for_each(|slot| visit(*slot));
            }
            self.visit_below(node.right, key, visit);
        }
    }

    fn drain_below(&self, at: u32, into: &mut Vec<u32>) {
        if at != NONE {
            let node = self.node(at);
            self.drain_below(node.left, into);
            into.extend_from_slice(node.slots.as_slice());
            self.drain_below(node.right, into);
        }
    }

    /// Checks every invariant, and returns the number of watches. Panics if one does not hold.
    pub(super) fn check(&self) -> usize {
        self.check_below(self.root)
    }

    fn check_below(&self, at: u32) -> usize {
        if at == NONE {
            return 0;
        }
        let node = self.node(at);
        let (left, right) = (self.height(node.left), self.height(node.right));
        assert!(left.abs_diff(right) <= 1, "{left} and {right} deep at {:?}", node.from);
        assert_eq!(node.height, 1 + left.max(right), "height at {:?}", node.from);
        let mut count = node.slots.as_slice().len();
        assert!(count > 0, "a range that nobody watches");
        let mut farthest = node.to.as_ref();
        for (child, side) in [(node.left, Ordering::Less), (node.right, Ordering::Greater)] {
            if child != NONE {
                let below = self.node(child);
                assert_eq!(self.order(at, &below.from, below.to.as_ref()), side, "order at {:?}", node.from);
                count += self.check_below(child);
                let end = self.node(below.farthest).to.as_ref();
                if compare_ends(end, farthest) == Ordering::Greater {
                    farthest = end;
                }
            }
        }
        assert_eq!(self.node(node.farthest).to.as_ref(), farthest, "farthest end at {:?}", node.from);
        count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> Key {
        Key::from(&[byte][..])
    }

    proptest! {
        /// Against the plain list of ranges.
        #[test]
        fn finds_what_the_list_finds(
            steps in prop::collection::vec((any::<bool>(), 0u8..16, 0u8..20), 1..200),
        ) {
            let mut tree = SpanTree::default();
            let mut list: Vec<(u8, Option<u8>, u32)> = Vec::new();
            for (slot, (add, from, length)) in steps.into_iter().enumerate() {
                if add || list.is_empty() {
                    let to = (length < 16).then_some(from + 1 + length % 8);
                    tree.insert(&key(from), to.map(key).as_ref(), slot as u32);
                    list.push((from, to, slot as u32));
                } else {
                    let (from, to, slot) = list.swap_remove((usize::from(from) * 7) % list.len());
                    tree.remove(&key(from), to.map(key).as_ref(), slot);
                }
                prop_assert_eq!(tree.check(), list.len());
                for probe in 0..26 {
                    let mut found = BTreeSet::new();
                    tree.visit(&[probe], &mut |slot| assert!(found.insert(slot), "{slot} twice"));
                    let want: BTreeSet<u32> = list
                        .iter()
                        .filter(|(from, to, _)| *from <= probe && to.is_none_or(|to| probe < to))
                        .map(|(.., slot)| *slot)
                        .collect();
                    prop_assert_eq!(found, want, "at {}", probe);
                }
            }
            let mut all = Vec::new();
            tree.drain(&mut all);
            prop_assert_eq!(all.len(), list.len());
            prop_assert_eq!(tree.check(), 0);
        }
    }

    /// Orders that make other trees deep: clients choose them.
    #[test]
    fn no_order_makes_the_tree_deep() {
        const COUNT: u32 = 100_000;
        let orders: [fn(u32) -> u32; 4] = [
            |n| n,
            |n| COUNT - n,
            // From both sides by turns.
            |n| if n % 2 == 0 { n } else { 2 * COUNT - n },
            |n| n.wrapping_mul(0x9e37_79b9),
        ];
        for (place, order) in orders.into_iter().enumerate() {
            let mut tree = SpanTree::default();
            for n in 0..COUNT {
                tree.insert(&Key::from(&order(n).to_be_bytes()[..]), None, n);
            }
            // 1.45 times the logarithm.
            assert!(tree.height(tree.root) <= 24, "order {place}: {} deep", tree.height(tree.root));
            assert_eq!(tree.check(), COUNT as usize);
            for n in (0..COUNT).filter(|n| n % 3 != 0) {
                tree.remove(&Key::from(&order(n).to_be_bytes()[..]), None, n);
            }
            assert!(tree.height(tree.root) <= 22, "order {place}: {} deep", tree.height(tree.root));
            assert_eq!(tree.check(), (0..COUNT).filter(|n| n % 3 == 0).count());
        }
    }
}
