//! Reads a whole database file and holds every page to account, as `bbolt check` does.

use std::ops::Range;
use std::sync::Mutex;

use super::Error;
use super::cursor::Cursor;
use super::format::{COUNT_IN_LIST, FREELIST, HEADER_LEN, META, NO_FREELIST, PageHeader, get_u64};
use super::page::Node;
use super::reader::{Bucket, Reader, Source};

/// Buckets may be inside one another this deep; etcd's are all in the root.
const BUCKET_DEPTH_MAX: u32 = 64;

/// How many page numbers of a freelist are read at once.
const FREELIST_CHUNK: u64 = 8192;

/// What a whole file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Pages that begin a leaf.
    pub leaf_pages: u64,
    /// Pages that begin a branch.
    pub branch_pages: u64,
    /// Further pages of leaves and branches.
    pub overflow_pages: u64,
    /// Pages of the freelist.
    pub freelist_pages: u64,
    /// Pages that hold nothing.
    pub free_pages: u64,
    /// Levels of the deepest tree.
    pub depth: usize,
    /// Buckets, the root bucket aside.
    pub buckets: u64,
    /// Buckets that are in the page of their parent.
    pub inline_buckets: u64,
    /// Key-value pairs.
    pub pairs: u64,
    /// Bytes of their keys.
    pub key_bytes: u64,
    /// Bytes of their values.
    pub value_bytes: u64,
}

/// The pages that were met, one bit each.
pub(super) struct Seen {
    words: Vec<u64>,
    summary: Summary,
}

impl Reader {
    /// Reads every page that can be reached, all buckets in buckets too, and the freelist: each page is used once or free
    /// once. Memory: a bit a page, and a cursor for each bucket that one is inside of.
    ///
    /// A file whose freelist is not stored (etcd's usual setting) may have pages that nothing refers to; they are free.
    ///
    /// # Errors
    /// [`Error::Damaged`] for the first thing that does not hold, [`Error::Io`].
    pub fn check(&self) -> Result<Summary, Error> {
        let source = self.source();
        self.check_meta_headers()?;
        let seen = Mutex::new(Seen::new(source.pages));
        seen.lock().expect("nobody panics with it").mark(source, 0..2)?;
        let mut totals = Summary::default();
        walk(&self.root(), &seen, &mut totals, 0)?;
        let mut seen = seen.into_inner().expect("nobody panics with it");
        if self.meta().freelist != NO_FREELIST {
            self.check_freelist(&mut seen)?;
            if let Some(page) = seen.first_unmarked(source.pages) {
                let at = page * u64::from(source.page_size);
                return Err(source.damaged(page, at, "the page is neither used nor free".to_owned()));
            }
        } else {
            seen.summary.free_pages = source.pages - seen.marked();
        }
        let Summary { leaf_pages, branch_pages, overflow_pages, freelist_pages, free_pages, .. } =
            seen.summary;
        Ok(Summary { leaf_pages, branch_pages, overflow_pages, freelist_pages, free_pages, ..totals })
    }

    /// Nothing reads these, but a changed one tells of damage.
    fn check_meta_headers(&self) -> Result<(), Error> {
        let source = self.source();
        for page in 0..2 {
            let at = page * u64::from(source.page_size);
            let mut bytes = [0; HEADER_LEN];
            source.read(&mut bytes, at)?;
            let header = PageHeader::decode(&bytes);
            if (header.id, header.flags) != (page, META) {
                let what =
                    format!("the meta page has the number {} and flags {:#06x}", header.id, header.flags);
                return Err(source.damaged(page, at, what));
            }
        }
        Ok(())
    }

    fn check_freelist(&self, seen: &mut Seen) -> Result<(), Error> {
        let source = self.source();
        let page = self.meta().freelist;
        let at = page * u64::from(source.page_size);
        let fault = |offset: u64, what: String| Err(source.damaged(page, at + offset, what));
        let mut bytes = [0; HEADER_LEN + 8];
        source.read(&mut bytes, at)?;
        let header = PageHeader::decode(&bytes);
        if header.id != page {
            return fault(0, format!("the page has the number {}", header.id));
        }
        if header.flags != FREELIST {
            return fault(8, format!("flags {:#06x}, a freelist is expected", header.flags));
        }
        if u64::from(header.overflow) >= source.pages - page {
            return fault(
                12,
                format!("{} more pages, and the file has {} in all", header.overflow, source.pages),
            );
        }
        let run = page..page + 1 + u64::from(header.overflow);
        let held = ((run.end - page) * u64::from(source.page_size) - HEADER_LEN as u64) / 8;
        let (from, count) = match header.count {
            COUNT_IN_LIST => (1, get_u64(&bytes, HEADER_LEN)),
            count => (0, count.into()),
        };
        if count > held - from {
            return fault(10, format!("a freelist of {count} pages in room for {}", held - from));
        }
        seen.mark(source, run.clone())?;
        let (mut done, mut last) = (0, 1);
        let mut chunk = Vec::new();
        while done < count {
            chunk.resize((count - done).min(FREELIST_CHUNK) as usize * 8, 0);
            let offset = HEADER_LEN as u64 + (from + done) * 8;
            source.read(&mut chunk, at + offset)?;
            for (index, free) in chunk.chunks_exact(8).map(|free| get_u64(free, 0)).enumerate() {
                let offset = offset + index as u64 * 8;
                if free <= last || !source.has(free) {
                    return fault(offset, format!("page {free} in the freelist, behind {last}"));
                }
                if seen.is_marked(free) {
                    return fault(offset, format!("page {free} is free and used"));
                }
                seen.mark(source, free..free + 1)?;
                last = free;
            }
            done += chunk.len() as u64 / 8;
        }
        seen.summary.freelist_pages = run.end - run.start;
        seen.summary.free_pages = count;
        Ok(())
    }
}

fn walk(bucket: &Bucket<'_>, seen: &Mutex<Seen>, totals: &mut Summary, depth: u32) -> Result<(), Error> {
    let mut cursor = Cursor::noting(bucket, seen);
    while let Some(item) = cursor.next()? {
        if let Some(value) = item.value {
            totals.pairs += 1;
            totals.key_bytes += item.key.len() as u64;
            totals.value_bytes += value.len() as u64;
            continue;
        }
        let inner = cursor.bucket()?;
        if depth == BUCKET_DEPTH_MAX {
            let (page, at) = cursor.place();
            let what = format!("more than {BUCKET_DEPTH_MAX} buckets inside one another");
            return Err(bucket.reader.source().damaged(page, at, what));
        }
        totals.buckets += 1;
        totals.inline_buckets += u64::from(inner.is_inline());
        walk(&inner, seen, totals, depth + 1)?;
    }
    totals.depth = totals.depth.max(cursor.depth_max());
    Ok(())
}

impl Seen {
    fn new(pages: u64) -> Seen {
        Seen { words: vec![0; pages.div_ceil(64) as usize], summary: Summary::default() }
    }

    /// Notes a leaf or branch page that a cursor has read.
    pub fn note(&mut self, source: &Source, node: &Node) -> Result<(), Error> {
        let run = node.run();
        self.summary.overflow_pages += run.end - run.start - 1;
        if node.is_leaf() {
            self.summary.leaf_pages += 1;
        } else {
            self.summary.branch_pages += 1;
        }
        self.mark(source, run)
    }

    fn mark(&mut self, source: &Source, run: Range<u64>) -> Result<(), Error> {
        for page in run {
            if self.is_marked(page) {
                let at = page * u64::from(source.page_size);
                return Err(source.damaged(page, at, "the page is used twice".to_owned()));
            }
            if let Some(word) = self.words.get_mut((page / 64) as usize) {
                *word |= 1 << (page % 64);
            }
        }
        Ok(())
    }

    fn is_marked(&self, page: u64) -> bool {
        self.words.get((page / 64) as usize).is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    fn marked(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    fn first_unmarked(&self, pages: u64) -> Option<u64> {
        let at = self.words.iter().position(|word| *word != u64::MAX)? as u64;
        (at * 64..pages).find(|page| !self.is_marked(*page))
    }
}
