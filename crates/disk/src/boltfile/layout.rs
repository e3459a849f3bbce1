//! Which pair goes into which page: decided from lengths alone, in one pass, so that a plan made from the lengths and
//! the writing of the pairs come to the same pages.
//!
//! Pages are numbered in the order in which they are complete: a leaf before the branch above it. What is kept is the
//! leaf being filled and, for each level of branches, the one being filled and perhaps the one before it.

use std::ops::Range;

use super::Error;
use super::format::{ELEMENT_LEN, HEADER_LEN};

/// A leaf ends when the next pair does not fit into the pages that it takes already and at most this part of them is
/// left empty; else it takes further pages. So at most 1/16 of the leaves is empty, whatever the sizes of the pairs.
const UNUSED_PART: u64 = 16;

/// A branch has at least that many children before another one is begun, however long the keys. One of them can then
/// go to the last branch of a level: bbolt panics over a branch with a single child when something is deleted below.
const CHILDREN_MIN: usize = 4;

/// A key, or in a plan only its length.
pub(super) trait Key {
    fn len(&self) -> usize;
}

/// The length of a key, bytes.
pub(super) struct KeyLen(pub usize);

impl Key for KeyLen {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key for Vec<u8> {
    fn len(&self) -> usize {
        self.len()
    }
}

/// Where complete pages go, in ascending order of their numbers and without gaps.
pub(super) trait Pages<K> {
    /// All pairs added since the last leaf.
    fn leaf(&mut self, run: Range<u64>) -> Result<(), Error>;

    /// Children by their first keys.
    fn branch(&mut self, run: Range<u64>, children: &[(K, u64)]) -> Result<(), Error>;
}

/// A tree of pages that grows at its end.
pub(super) struct Tree<K> {
    page_size: u64,
    next_page: u64,
    leaf: Leaf,
    /// The first key of the leaf being filled, unless that is empty.
    first: Option<K>,
    /// From the leaves' parents up.
    levels: Vec<Level<K>>,
}

/// Count and bytes of a leaf, its header included.
struct Leaf {
    count: usize,
    bytes: u64,
}

/// One level of branches.
struct Level<K> {
    open: Branch<K>,
    /// The one before, until `open` has two children of its own.
    held: Option<Branch<K>>,
}

struct Branch<K> {
    children: Vec<(K, u64)>,
    bytes: u64,
}

impl<K: Key> Tree<K> {
    /// An empty tree, whose pages are to begin at `next_page`.
    pub fn new(page_size: u32, next_page: u64) -> Tree<K> {
        let leaf = Leaf { count: 0, bytes: HEADER_LEN as u64 };
        Tree { page_size: page_size.into(), next_page, leaf, first: None, levels: Vec::new() }
    }

    /// Makes room for a pair, whose bytes `pages` gets after this returns and before the next leaf.
    pub fn add(
        &mut self,
        key_len: usize,
        value_len: usize,
        key: impl FnOnce() -> K,
        pages: &mut impl Pages<K>,
    ) -> Result<(), Error> {
        let bytes = (ELEMENT_LEN + key_len + value_len) as u64;
        if !self.leaf.takes(bytes, self.page_size) {
            self.close_leaf(pages)?;
        }
        if self.leaf.count == 0 {
            self.first = Some(key());
        }
        self.leaf.count += 1;
        self.leaf.bytes += bytes;
        Ok(())
    }

    /// Completes all pages, and answers the root's and the first number that is not used.
    pub fn finish(mut self, pages: &mut impl Pages<K>) -> Result<(u64, u64), Error> {
        if self.levels.is_empty() {
            let run = self.take_run(self.leaf.bytes);
            pages.leaf(run.clone())?;
            return Ok((run.start, self.next_page));
        }
        self.close_leaf(pages)?;
        let mut at = 0;
        loop {
            let level = &mut self.levels[at];
            let mut open = std::mem::take(&mut level.open);
            if let Some(mut held) = level.held.take() {
                if let [_] = open.children[..] {
                    let (key, page) = held.pop();
                    open.insert_first(key, page);
                }
                self.close_branch(at, held, pages)?;
            }
            if at + 1 == self.levels.len() {
                let run = self.take_run(open.bytes);
                pages.branch(run.clone(), &open.children)?;
                return Ok((run.start, self.next_page));
            }
            self.close_branch(at, open, pages)?;
            at += 1;
        }
    }

    fn close_leaf(&mut self, pages: &mut impl Pages<K>) -> Result<(), Error> {
        let run = self.take_run(self.leaf.bytes);
        let first = self.first.take().expect("a leaf that is closed has a pair");
        pages.leaf(run.clone())?;
        self.leaf = Leaf { count: 0, bytes: HEADER_LEN as u64 };
        self.push(0, first, run.start, pages)
    }

    /// Adds a child to a level of branches, and completes what this makes complete.
    fn push(&mut self, at: usize, key: K, page: u64, pages: &mut impl Pages<K>) -> Result<(), Error> {
        if at == self.levels.len() {
            self.levels.push(Level { open: Branch::default(), held: None });
        }
        let level = &mut self.levels[at];
        if !level.open.takes(key.len(), self.page_size) {
            assert!(level.held.is_none(), "a branch of {} is held", level.open.children.len());
            level.held = Some(std::mem::take(&mut level.open));
        }
        level.open.add(key, page);
        match level.held.take_if(|_| level.open.children.len() == 2) {
            Some(held) => self.close_branch(at, held, pages),
            None => Ok(()),
        }
    }

    fn close_branch(&mut self, at: usize, branch: Branch<K>, pages: &mut impl Pages<K>) -> Result<(), Error> {
        assert!(branch.children.len() > 1, "a branch with {} children", branch.children.len());
        let run = self.take_run(branch.bytes);
        pages.branch(run.clone(), &branch.children)?;
        let (first, _) = branch.children.into_iter().next().expect("it has two");
        self.push(at + 1, first, run.start, pages)
    }

    fn take_run(&mut self, bytes: u64) -> Range<u64> {
        let run = self.next_page..self.next_page + bytes.div_ceil(self.page_size);
        self.next_page = run.end;
        run
    }
}

impl Leaf {
    fn takes(&self, bytes: u64, page_size: u64) -> bool {
        let room = self.bytes.next_multiple_of(page_size);
        let unused = room - self.bytes;
        self.count == 0 || bytes <= unused || unused * UNUSED_PART > room
    }
}

impl<K: Key> Branch<K> {
    fn takes(&self, key_len: usize, page_size: u64) -> bool {
        let bytes = self.bytes + (ELEMENT_LEN + key_len) as u64;
        self.children.len() < CHILDREN_MIN || bytes <= self.bytes.next_multiple_of(page_size)
    }

    fn add(&mut self, key: K, page: u64) {
        self.bytes += (ELEMENT_LEN + key.len()) as u64;
        self.children.push((key, page));
    }

    fn insert_first(&mut self, key: K, page: u64) {
        self.bytes += (ELEMENT_LEN + key.len()) as u64;
        self.children.insert(0, (key, page));
    }

    fn pop(&mut self) -> (K, u64) {
        let child = self.children.pop().expect("a branch that is held has children");
        self.bytes -= (ELEMENT_LEN + child.0.len()) as u64;
        child
    }
}

impl<K> Default for Branch<K> {
    fn default() -> Self {
        Branch { children: Vec::new(), bytes: HEADER_LEN as u64 }
    }
}
