use std::ops::Range;

use super::Error;
use super::format::{BUCKET_LEN, FREELIST_PAGE, KEY_LEN_MAX, PAGE_SIZE_MIN, VALUE_LEN_MAX};
use super::layout::{KeyLen, Pages, Tree};

/// The page size of the files that bbolt writes on most machines, and that are written here, bytes.
pub const DEFAULT_PAGE_SIZE: u32 = 4096;

/// The largest page size that is written, bytes.
const PAGE_SIZE_MAX: u32 = 65_536;

/// The first pass over what is to be written: takes lengths only, and comes to where every page will be.
///
/// Call [`Planner::bucket`] and then [`Planner::pair`] for each of its pairs, buckets and pairs in ascending order;
/// then [`Planner::finish`]. It keeps the bucket's names and, for the tree at hand, a page's worth of lengths a level.
pub struct Planner {
    page_size: u32,
    buckets: Vec<PlannedBucket>,
    tree: Option<Tree<KeyLen>>,
    next_page: u64,
}

/// What a file will be, by lengths: [`super::Writer`] writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub(super) page_size: u32,
    pub(super) buckets: Vec<PlannedBucket>,
    /// The page that the root bucket begins with.
    pub(super) root: u64,
    /// All pages of the file.
    pub(super) pages: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedBucket {
    pub name: Vec<u8>,
    pub root: u64,
    /// The first page behind the bucket's.
    pub end: u64,
}

impl Planner {
    /// A plan for a file of pages of `page_size` bytes ([`DEFAULT_PAGE_SIZE`], unless there is a reason).
    ///
    /// # Errors
    /// [`Error::PageSize`].
    pub fn new(page_size: u32) -> Result<Planner, Error> {
        if !page_size.is_power_of_two() || !(PAGE_SIZE_MIN..=PAGE_SIZE_MAX).contains(&page_size) {
            return Err(Error::PageSize(page_size));
        }
        Ok(Planner { page_size, buckets: Vec::new(), tree: None, next_page: FREELIST_PAGE + 1 })
    }

    /// Begins a bucket, perhaps an empty one. Its name must be greater than that of the one before.
    ///
    /// # Errors
    /// [`Error::KeyOrder`], [`Error::PairSize`].
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        check_lengths(name.len(), BUCKET_LEN)?;
        if self.buckets.last().is_some_and(|last| last.name.as_slice() >= name) {
            return Err(Error::KeyOrder);
        }
        self.end_bucket();
        self.buckets.push(PlannedBucket { name: name.to_vec(), root: 0, end: 0 });
        self.tree = Some(Tree::new(self.page_size, self.next_page));
        Ok(())
    }

    /// Adds a pair to the bucket.
    ///
    /// # Errors
    /// [`Error::PairSize`], [`Error::NoBucket`].
    pub fn pair(&mut self, key_len: usize, value_len: usize) -> Result<(), Error> {
        check_lengths(key_len, value_len)?;
        let tree = self.tree.as_mut().ok_or(Error::NoBucket)?;
        tree.add(key_len, value_len, || KeyLen(key_len), &mut Nowhere)
    }

    /// The plan.
    pub fn finish(mut self) -> Plan {
        self.end_bucket();
        let mut tree = Tree::new(self.page_size, self.next_page);
        for PlannedBucket { name, .. } in &self.buckets {
            tree.add(name.len(), BUCKET_LEN, || KeyLen(name.len()), &mut Nowhere)
                .expect("nowhere never fails");
        }
        let (root, pages) = tree.finish(&mut Nowhere).expect("nowhere never fails");
        Plan { page_size: self.page_size, buckets: self.buckets, root, pages }
    }

    fn end_bucket(&mut self) {
        if let (Some(tree), Some(bucket)) = (self.tree.take(), self.buckets.last_mut()) {
            (bucket.root, bucket.end) = tree.finish(&mut Nowhere).expect("nowhere never fails");
            self.next_page = bucket.end;
        }
    }
}

impl Plan {
    /// The length of the file, bytes.
    pub fn file_len(&self) -> u64 {
        self.pages * u64::from(self.page_size)
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> u32 {
        self.page_size
    }
}

/// Whether the format has room for such a pair.
pub(super) fn check_lengths(key: usize, value: usize) -> Result<(), Error> {
    if key == 0 || key > KEY_LEN_MAX || value > VALUE_LEN_MAX {
        return Err(Error::PairSize { key, value });
    }
    Ok(())
}

/// Planned pages are counted and not written.
struct Nowhere;

impl Pages<KeyLen> for Nowhere {
    fn leaf(&mut self, _: Range<u64>) -> Result<(), Error> {
        Ok(())
    }

    fn branch(&mut self, _: Range<u64>, _: &[(KeyLen, u64)]) -> Result<(), Error> {
        Ok(())
    }
}
