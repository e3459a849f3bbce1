//! The tree of intervals that etcd looks rights up in, as far as its shape shows (etcd: pkg/adt; the balancing is that of
//! "Introduction to Algorithms", 3rd edition, 13.3).
//!
//! For a range that has keys the answer does not depend on the tree. For one that ends where it begins, or before, it
//! does: which nodes are met is decided by what stands above them. Members of either kind have to agree on that too, since
//! an op with such a range refuses a whole transaction.

use super::permission::{Interval, is_above};

/// The place of the node that stands for none.
const NONE: usize = 0;

#[derive(Debug)]
struct Node {
    /// Its place among the intervals.
    interval: usize,
    /// Of those at or below, the one that ends farthest.
    farthest: usize,
    parent: usize,
    /// Left and right.
    below: [usize; 2],
    is_red: bool,
}

/// Intervals in the order of their beginnings, and of their ends where these are equal. They are kept elsewhere, and always
/// the same ones are given.
#[derive(Debug)]
pub(super) struct Tree {
    /// At [`NONE`] nothing is kept but the colour.
    nodes: Vec<Node>,
    root: usize,
}

const LEFT: usize = 0;
const RIGHT: usize = 1;

impl Tree {
    /// Adds them one after the other.
    pub(super) fn new(all: &[Interval]) -> Tree {
        let none = Node { interval: 0, farthest: 0, parent: NONE, below: [NONE; 2], is_red: false };
        let mut tree = Tree { nodes: vec![none], root: NONE };
        (0..all.len()).for_each(|interval| tree.insert(all, interval));
        if tree.root != NONE {
            tree.find_farthest(all, tree.root);
        }
        tree
    }

    fn insert(&mut self, all: &[Interval], interval: usize) {
        let (mut above, mut at, mut side) = (NONE, self.root, LEFT);
        while at != NONE {
            let (new, known) = (&all[interval], &all[self.nodes[at].interval]);
            let is_before = match new.from.cmp(&known.from) {
                std::cmp::Ordering::Equal => is_above(known.to(), new.to()),
                order => order.is_lt(),
            };
            side = if is_before { LEFT } else { RIGHT };
            above = at;
            at = self.nodes[at].below[side];
        }
        let new = self.nodes.len();
        let below = [NONE; 2];
        self.nodes.push(Node { interval, farthest: interval, parent: above, below, is_red: true });
        if above == NONE {
            self.root = new;
        } else {
            self.nodes[above].below[side] = new;
        }
        self.balance(new);
    }

    /// Says at each node how far those below it reach; no deeper than the tree is high.
    fn find_farthest(&mut self, all: &[Interval], at: usize) -> usize {
        let mut farthest = self.nodes[at].interval;
        for below in self.nodes[at].below {
            let other = if below == NONE { continue } else { self.find_farthest(all, below) };
            if is_above(all[other].to(), all[farthest].to()) {
                farthest = other;
            }
        }
        self.nodes[at].farthest = farthest;
        farthest
    }

    fn balance(&mut self, mut at: usize) {
        while self.nodes[self.nodes[at].parent].is_red {
            let parent = self.nodes[at].parent;
            let above = self.nodes[parent].parent;
            let side = if parent == self.nodes[above].below[LEFT] { LEFT } else { RIGHT };
            let uncle = self.nodes[above].below[1 - side];
            if self.nodes[uncle].is_red {
                self.nodes[uncle].is_red = false;
                self.nodes[parent].is_red = false;
                self.nodes[above].is_red = true;
                at = above;
                continue;
            }
            if at == self.nodes[parent].below[1 - side] {
                at = parent;
                self.rotate(at, side);
            }
            let parent = self.nodes[at].parent;
            self.nodes[parent].is_red = false;
            self.nodes[above].is_red = true;
            self.rotate(above, 1 - side);
        }
        let root = self.root;
        self.nodes[root].is_red = false;
    }

    /// Moves a node down to one side.
    fn rotate(&mut self, at: usize, side: usize) {
        let up = self.nodes[at].below[1 - side];
        if up == NONE {
            return;
        }
        let between = self.nodes[up].below[side];
        self.nodes[at].below[1 - side] = between;
        if between != NONE {
            self.nodes[between].parent = at;
        }
        let parent = self.nodes[at].parent;
        self.nodes[up].parent = parent;
        if parent == NONE {
            self.root = up;
        } else {
            let below = &mut self.nodes[parent].below;
            below[if below[LEFT] == at { LEFT } else { RIGHT }] = up;
        }
        self.nodes[up].below[side] = at;
        self.nodes[at].parent = up;
    }

    /// Whether the intervals that are met are one, which reaches from `from` to `to`.
    pub(super) fn cover(&self, all: &[Interval], from: &[u8], to: Option<&[u8]>) -> bool {
        let mut met: Option<(&[u8], Option<&[u8]>)> = None;
        let is_one = self.visit(all, self.root, (from, to), &mut |interval| match &mut met {
            None => {
                met = Some((&interval.from, interval.to()));
                true
            }
            Some((_, end)) => {
                if is_above(Some(&interval.from), *end) {
                    return false;
                }
                if is_above(interval.to(), *end) {
                    *end = interval.to();
                }
                true
            }
        });
        is_one && met.is_some_and(|(begin, end)| !is_above(to, end) && begin <= from)
    }

    /// No deeper than the tree is high: twice the logarithm of its size.
    fn visit<'a>(
        &self,
        all: &'a [Interval],
        at: usize,
        asked: (&[u8], Option<&[u8]>),
        see: &mut impl FnMut(&'a Interval) -> bool,
    ) -> bool {
        if at == NONE {
            return true;
        }
        let node = &self.nodes[at];
        let [left, right] = node.below;
        let interval = &all[node.interval];
        match beside(asked, (&interval.from, interval.to())) {
            Side::Left => self.visit(all, left, asked, see),
            Side::Right => {
                beside((&interval.from, all[node.farthest].to()), asked) != Side::Neither
                    || (self.visit(all, left, asked, see) && self.visit(all, right, asked, see))
            }
            Side::Neither => {
                self.visit(all, left, asked, see) && see(interval) && self.visit(all, right, asked, see)
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
    Neither,
}

/// On which side of another interval one is.
fn beside((from, to): (&[u8], Option<&[u8]>), (other_from, other_to): (&[u8], Option<&[u8]>)) -> Side {
    if from < other_from && !is_above(to, Some(other_from)) {
        Side::Left
    } else if !is_above(other_to, Some(from)) {
        Side::Right
    } else {
        Side::Neither
    }
}
