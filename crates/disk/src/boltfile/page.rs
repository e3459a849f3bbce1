//! A leaf or branch page in memory, verified by itself when it is read.
//!
//! bbolt lays the data of a page's elements out without gaps, in the order of the elements, and zeroes what is behind.
//! Both are required here: a page has no checksum, and that finds what flips in its counts, positions and lengths.

use std::ops::Range;

use super::Error;
use super::format::{BRANCH, ELEMENT_BUCKET, ELEMENT_LEN, HEADER_LEN, LEAF, PageHeader, get_u32, get_u64};
use super::reader::Source;

/// How much is read at once where bytes are looked at only, bytes.
const CHUNK_BYTES: u64 = 64 * 1024;

/// One page with its overflow.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    page: u64,
    /// Where `bytes` begin in the file.
    at: u64,
    leaf: bool,
    count: usize,
    overflow: u32,
    /// Header, elements and data, without the zeros behind. Every position and length in it was checked.
    bytes: Vec<u8>,
}

/// What does not hold, and where, bytes from the page's start.
struct Fault(u64, String);

impl Node {
    /// Reads page `page` with its overflow into this node, whose buffer is used again. Only the root of a tree may be
    /// without elements.
    pub fn load(&mut self, source: &Source, page: u64, is_root: bool) -> Result<(), Error> {
        assert!(source.has(page), "page {page} of {} was not checked", source.pages);
        self.page = page;
        self.at = page * u64::from(source.page_size);
        self.count = 0;
        self.bytes.clear();
        self.fill(source, u64::from(source.page_size))?;
        let header = PageHeader::decode(&self.bytes);
        let capacity =
            self.take_header(source, header, is_root).map_err(|fault| self.damaged(source, fault))?;
        let table = table_len(header.count);
        self.fill(source, table)?;
        let used = measure(&self.bytes, self.leaf, header.count, capacity, Kind::Page)
            .map_err(|fault| self.damaged(source, fault))?;
        self.fill(source, used)?;
        self.require_zeros(source, used, capacity)?;
        self.bytes.truncate(used as usize);
        self.count = header.count.into();
        self.check_elements(source).map_err(|fault| self.damaged(source, fault))
    }

    /// Takes a bucket's page out of the value that it is in, which begins at offset `at` of the file, in page `page`.
    pub fn inline(source: &Source, page: u64, at: u64, value: &[u8]) -> Result<Node, Error> {
        let bytes = value.to_vec();
        let mut node = Node { page, at, leaf: true, count: 0, overflow: 0, bytes };
        let header = if node.bytes.len() < HEADER_LEN { None } else { Some(PageHeader::decode(&node.bytes)) };
        let found = header
            .filter(|header| (header.id, header.flags, header.overflow) == (0, LEAF, 0))
            .ok_or_else(|| Fault(0, "no page of an inline bucket".to_owned()))
            .and_then(|header| {
                let len = node.bytes.len() as u64;
                if table_len(header.count) > len {
                    return Err(Fault(10, format!("{} elements do not fit", header.count)));
                }
                match measure(&node.bytes, true, header.count, len, Kind::Inline)? {
                    used if used == len => Ok(header.count),
                    used => Err(Fault(used, "the inline bucket goes on behind its last element".to_owned())),
                }
            });
        match found {
            Ok(count) => node.count = count.into(),
            Err(fault) => return Err(node.damaged(source, fault)),
        }
        node.check_elements(source).map_err(|fault| node.damaged(source, fault))?;
        Ok(node)
    }

    pub fn is_leaf(&self) -> bool {
        self.leaf
    }

    /// How many elements it has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The pages of the file that it takes.
    pub fn run(&self) -> Range<u64> {
        self.page..self.page + 1 + u64::from(self.overflow)
    }

    /// The file offset of its first byte.
    pub fn offset(&self) -> u64 {
        self.at
    }

    pub fn key(&self, index: usize) -> &[u8] {
        let (at, _) = self.data(index);
        &self.bytes[at..at + self.key_len(index)]
    }

    /// The value of a leaf's element; with a bucket, the bucket's header and inline page.
    pub fn value(&self, index: usize) -> &[u8] {
        let (at, end) = self.data(index);
        &self.bytes[at + self.key_len(index)..end]
    }

    /// The file offset of the value of a leaf's element.
    pub fn value_offset(&self, index: usize) -> u64 {
        self.at + (self.data(index).0 + self.key_len(index)) as u64
    }

    /// Whether the element of a leaf is a bucket.
    pub fn is_bucket(&self, index: usize) -> bool {
        self.leaf && get_u32(&self.bytes, element(index)) == ELEMENT_BUCKET
    }

    /// The child page of a branch's element, checked to be one of the file's.
    pub fn child(&self, index: usize) -> u64 {
        get_u64(&self.bytes, element(index) + 8)
    }

    /// The first element whose key is not less than `key`.
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut from, mut to) = (0, self.count);
        while from < to {
            let middle = from.midpoint(to);
            if self.key(middle) < key {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    /// Whether all keys are within what the pages above say: from `lower` on, and before `upper`.
    pub fn check_bounds(
        &self,
        source: &Source,
        lower: Option<&[u8]>,
        upper: Option<&[u8]>,
    ) -> Result<(), Error> {
        let Some(last) = self.count.checked_sub(1) else { return Ok(()) };
        let fault = |index: usize, what: &str| {
            Err(self.damaged(source, Fault(self.data(index).0 as u64, what.to_owned())))
        };
        if lower.is_some_and(|lower| self.key(0) < lower) {
            return fault(0, "the first key is less than the parent page says");
        }
        if upper.is_some_and(|upper| self.key(last) >= upper) {
            return fault(last, "the last key is not less than the next page's first");
        }
        Ok(())
    }

    /// Checks the header, and says how many bytes the run has.
    fn take_header(&mut self, source: &Source, header: PageHeader, is_root: bool) -> Result<u64, Fault> {
        if header.id != self.page {
            return Err(Fault(0, format!("the page has the number {}", header.id)));
        }
        self.leaf = match header.flags {
            LEAF => true,
            BRANCH => false,
            flags => return Err(Fault(8, format!("flags {flags:#06x}, a leaf or branch page is expected"))),
        };
        if header.count == 0 && !(self.leaf && is_root) {
            return Err(Fault(10, "a page without elements".to_owned()));
        }
        if u64::from(header.overflow) >= source.pages - self.page {
            let what = format!("{} more pages, and the file has {} in all", header.overflow, source.pages);
            return Err(Fault(12, what));
        }
        self.overflow = header.overflow;
        let capacity = (u64::from(header.overflow) + 1) * u64::from(source.page_size);
        if table_len(header.count) > capacity {
            return Err(Fault(10, format!("{} elements do not fit", header.count)));
        }
        Ok(capacity)
    }

    /// What a page's elements must hold beside their positions: known flags, keys in order, children in the file.
    fn check_elements(&self, source: &Source) -> Result<(), Fault> {
        for index in 0..self.count {
            let at = element(index) as u64;
            if self.leaf {
                let flags = get_u32(&self.bytes, element(index));
                if flags & !ELEMENT_BUCKET != 0 {
                    return Err(Fault(at, format!("element {index} has the flags {flags:#x}")));
                }
            } else {
                let child = self.child(index);
                if !source.has(child) || self.run().contains(&child) {
                    return Err(Fault(at + 8, format!("element {index} points to page {child}")));
                }
            }
            if index > 0 && self.key(index - 1) >= self.key(index) {
                let what = format!("key {index} is not greater than the one before it");
                return Err(Fault(self.data(index).0 as u64, what));
            }
        }
        Ok(())
    }

    /// Reads on until the first `len` bytes of the run are here.
    fn fill(&mut self, source: &Source, len: u64) -> Result<(), Error> {
        let have = self.bytes.len();
        let len = usize::try_from(len).expect("a run that is in memory has a length that fits");
        if len > have {
            self.bytes.resize(len, 0);
            source.read(&mut self.bytes[have..], self.at + have as u64)?;
        }
        Ok(())
    }

    fn require_zeros(&self, source: &Source, used: u64, capacity: u64) -> Result<(), Error> {
        let held = self.bytes.len() as u64;
        let fault = |at: u64| {
            let what = "bytes behind the last element are not zero".to_owned();
            Err(self.damaged(source, Fault(at, what)))
        };
        if let Some(at) = first_nonzero(&self.bytes[used as usize..]) {
            return fault(used + at);
        }
        let mut at = held;
        let mut chunk = Vec::new();
        while at < capacity {
            chunk.resize((capacity - at).min(CHUNK_BYTES) as usize, 0);
            source.read(&mut chunk, self.at + at)?;
            if let Some(offset) = first_nonzero(&chunk) {
                return fault(at + offset);
            }
            at += chunk.len() as u64;
        }
        Ok(())
    }

    fn damaged(&self, source: &Source, fault: Fault) -> Error {
        let Fault(offset, what) = fault;
        source.damaged(self.page, self.at + offset, what)
    }

    /// Where the data of an element begins and ends, bytes from the page's start.
    fn data(&self, index: usize) -> (usize, usize) {
        let at = element(index);
        let start = at + get_u32(&self.bytes, at + if self.leaf { 4 } else { 0 }) as usize;
        let value = if self.leaf { get_u32(&self.bytes, at + 12) as usize } else { 0 };
        (start, start + self.key_len(index) + value)
    }

    fn key_len(&self, index: usize) -> usize {
        get_u32(&self.bytes, element(index) + if self.leaf { 8 } else { 4 }) as usize
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Page,
    Inline,
}

/// Checks the positions and lengths of all elements, whose table is in `bytes`, and answers where the last datum ends.
fn measure(bytes: &[u8], leaf: bool, count: u16, capacity: u64, kind: Kind) -> Result<u64, Fault> {
    let mut end = table_len(count);
    for index in 0..usize::from(count) {
        let at = element(index);
        let (position, lengths) = if leaf { (at + 4, at + 8) } else { (at, at + 4) };
        let (key, value) = (get_u32(bytes, lengths), if leaf { get_u32(bytes, lengths + 4) } else { 0 });
        if at as u64 + u64::from(get_u32(bytes, position)) != end {
            let what = format!("the data of element {index} is not where the one before it ends");
            return Err(Fault(position as u64, what));
        }
        if key == 0 {
            return Err(Fault(lengths as u64, format!("element {index} has an empty key")));
        }
        if kind == Kind::Inline && get_u32(bytes, at) != 0 {
            return Err(Fault(at as u64, format!("element {index} of an inline bucket has flags")));
        }
        end += u64::from(key) + u64::from(value);
        if end > capacity {
            let what = format!("element {index} of {key} + {value} bytes reaches past the page's end");
            return Err(Fault(lengths as u64, what));
        }
    }
    Ok(end)
}

fn table_len(count: u16) -> u64 {
    element(count.into()) as u64
}

fn element(index: usize) -> usize {
    HEADER_LEN + ELEMENT_LEN * index
}

fn first_nonzero(bytes: &[u8]) -> Option<u64> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut at = 0;
    for chunk in bytes.chunks(ZEROS.len()) {
        if chunk != &ZEROS[..chunk.len()] {
            return chunk.iter().position(|byte| *byte != 0).map(|offset| at + offset as u64);
        }
        at += chunk.len() as u64;
    }
    None
}
