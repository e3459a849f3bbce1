use std::sync::Mutex;

use super::Error;
use super::check::Seen;
use super::page::Node;
use super::reader::{Bucket, Reader, Tree};

/// A tree is never deeper: with two children a branch, no file has as many leaves.
const DEPTH_MAX: usize = 64;

/// A place in a bucket, which moves forward.
///
/// It holds one page with its overflow for each level of the tree, and uses their buffers again.
///
/// Every key lies between what the pages above it say, so keys come in strictly ascending order; and a tree that leads
/// back to a page it has shown ends with an error at the latest when the order breaks, or at a depth of 64.
pub struct Cursor<'r> {
    reader: &'r Reader,
    tree: Tree,
    /// From the root down; the last is a leaf, once there is one.
    levels: Vec<Level>,
    spare: Vec<Node>,
    place: Place,
    depth_max: usize,
    /// Where the pages read are noted, if they are.
    seen: Option<&'r Mutex<Seen>>,
}

struct Level {
    node: Node,
    /// The element that this cursor is at or below.
    index: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first element, nothing is read yet.
    Start,
    /// The element that the levels name is the next to be shown.
    Before,
    /// It was shown.
    At,
    End,
    Failed,
}

/// What a cursor shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The key, or a bucket's name.
    pub key: &'a [u8],
    /// The value; `None` is a bucket ([`Cursor::bucket`]).
    pub value: Option<&'a [u8]>,
}

impl<'r> Cursor<'r> {
    pub(super) fn new(bucket: &Bucket<'r>) -> Cursor<'r> {
        Cursor {
            reader: bucket.reader,
            tree: bucket.tree.clone(),
            levels: Vec::new(),
            spare: Vec::new(),
            place: Place::Start,
            depth_max: 0,
            seen: None,
        }
    }

    /// As [`Cursor::new`], noting every page that it reads, and refusing one that was noted before.
    pub(super) fn noting(bucket: &Bucket<'r>, seen: &'r Mutex<Seen>) -> Cursor<'r> {
        Cursor { seen: Some(seen), ..Self::new(bucket) }
    }

    /// Moves to the next element and shows it; `None` behind the last one.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::Io`]; after one, always [`Error::CursorFailed`].
    #[allow(clippy::should_implement_trait, reason = "what it shows borrows from it")]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, Error> {
        self.guarded(Self::advance)?;
        let Some(Level { node, index }) = self.levels.last().filter(|_| self.place == Place::At) else {
            return Ok(None);
        };
        let value = (!node.is_bucket(*index)).then(|| node.value(*index));
        Ok(Some(Item { key: node.key(*index), value }))
    }

    /// Moves to before the first element whose key is not less than `key`, wherever the cursor was.
    ///
    /// # Errors
    /// As [`Cursor::next`].
    pub fn seek(&mut self, key: &[u8]) -> Result<(), Error> {
        self.guarded(|cursor| {
            cursor.spare.extend(cursor.levels.drain(..).map(|level| level.node));
            cursor.descend(Some(key))?;
            cursor.place = Place::Before;
            Ok(())
        })
    }

    /// The bucket that was shown last.
    ///
    /// # Errors
    /// [`Error::Damaged`] if what stands there is none.
    ///
    /// # Panics
    /// If the last call did not show a bucket.
    pub fn bucket(&self) -> Result<Bucket<'r>, Error> {
        let level = self.levels.last().filter(|_| self.place == Place::At).expect("an element was shown");
        assert!(level.node.is_bucket(level.index), "a pair was shown");
        Bucket::of_element(self.reader, &level.node, level.index)
    }

    /// The page of what was shown last, and the file offset of its value.
    pub(super) fn place(&self) -> (u64, u64) {
        self.levels
            .last()
            .map_or((0, 0), |level| (level.node.run().start, level.node.value_offset(level.index)))
    }

    /// The most levels of pages that it has read below one another.
    pub(super) fn depth_max(&self) -> usize {
        self.depth_max
    }

    fn guarded(&mut self, step: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if self.place == Place::Failed {
            return Err(Error::CursorFailed);
        }
        let result = step(self);
        if result.is_err() {
            self.place = Place::Failed;
        }
        result
    }

    fn advance(&mut self) -> Result<(), Error> {
        match self.place {
            Place::End | Place::Failed => return Ok(()),
            Place::Start => self.descend(None)?,
            Place::Before => {}
            Place::At => self.step(),
        }
        self.place = Place::End;
        while let Some(level) = self.levels.last() {
            if level.index == level.node.count() {
                self.spare.extend(self.levels.pop().map(|level| level.node));
                self.step();
            } else if level.node.is_leaf() {
                self.place = Place::At;
                break;
            } else {
                self.descend(None)?;
            }
        }
        Ok(())
    }

    fn step(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.index += 1;
        }
    }

    /// Goes down from where the cursor is to a leaf: to `key`, or to the first element.
    fn descend(&mut self, key: Option<&[u8]>) -> Result<(), Error> {
        loop {
            if self.levels.len() == DEPTH_MAX {
                let (page, at) = self.levels.last().map_or((0, 0), |l| (l.node.run().start, l.node.offset()));
                let what = format!("a tree of more than {DEPTH_MAX} levels");
                return Err(self.reader.source().damaged(page, at, what));
            }
            let mut node = self.spare.pop().unwrap_or_default();
            let source = self.reader.source();
            match (self.levels.last(), &self.tree) {
                (Some(parent), _) => {
                    node.load(source, parent.node.child(parent.index), false)?;
                    // The last key of a page has no upper bound but that of the page above.
                    let next = self.levels.iter().rev().find(|level| level.index + 1 < level.node.count());
                    let upper = next.map(|level| level.node.key(level.index + 1));
                    node.check_bounds(source, Some(parent.node.key(parent.index)), upper)?;
                }
                (None, Tree::Root(page)) => node.load(source, *page, true)?,
                (None, Tree::Inline(inline)) => node = inline.clone(),
            }
            if let Some(seen) = self.seen
                && !matches!(self.tree, Tree::Inline(_))
            {
                seen.lock().expect("nobody panics with it").note(source, &node)?;
            }
            let leaf = node.is_leaf();
            let index = match key {
                None => 0,
                Some(key) if leaf => node.lower_bound(key),
                Some(key) => {
                    let above = node.lower_bound(key);
                    let exact = above < node.count() && node.key(above) == key;
                    if exact { above } else { above.saturating_sub(1) }
                }
            };
            self.levels.push(Level { node, index });
            self.depth_max = self.depth_max.max(self.levels.len());
            if leaf {
                return Ok(());
            }
        }
    }
}
