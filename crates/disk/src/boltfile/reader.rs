use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::cursor::Cursor;
use super::format::{BUCKET_LEN, META_LEN, Meta, NO_FREELIST, PAGE_SIZE_MAX, PAGE_SIZE_MIN, get_u64};
use super::page::Node;
use crate::fs::{Access, File, Fs};

/// A database file, read at positions and never changed.
///
/// Opening it reads the two meta pages; every other page is verified when it is read (see `docs/internals/boltfile.md`),
/// and [`Reader::check`] reads them all. All of it can be used from several threads at once. Nobody may write to the
/// file meanwhile.
pub struct Reader {
    source: Source,
    meta: Meta,
    /// Why the other meta page does not count, if it does not verify.
    lost_meta: Option<String>,
}

/// The file, and what every page of it is held against.
pub(super) struct Source {
    file: Arc<dyn File>,
    path: PathBuf,
    pub page_size: u32,
    /// How many pages the file uses. It is at least that long.
    pub pages: u64,
}

/// A row of key-value pairs, and of buckets inside it, in the order of their keys.
#[derive(Clone)]
pub struct Bucket<'r> {
    pub(super) reader: &'r Reader,
    pub(super) tree: Tree,
    sequence: u64,
}

/// Where the pages of a bucket are.
#[derive(Clone)]
pub(super) enum Tree {
    /// In pages of their own, from this one on.
    Root(u64),
    /// In the value that the bucket is.
    Inline(Node),
}

impl Reader {
    /// Opens the file at `path`, which may also be a snapshot that etcd saved (with a SHA-256 behind it, not looked at
    /// here).
    ///
    /// Of the two meta pages the one of the newer transaction counts; if it does not verify, as after a crash while it
    /// was being written, the older one does, as in bbolt: see [`Reader::lost_meta`].
    ///
    /// # Errors
    /// [`Error::NoMeta`] if neither meta page verifies, [`Error::Damaged`] if the one that counts contradicts the file,
    /// [`Error::Io`].
    pub fn open(fs: &dyn Fs, path: &Path) -> Result<Reader, Error> {
        let file = fs.open(path, Access::Read).map_err(Error::io("open", path))?;
        Self::of(file, path)
    }

    /// As [`Reader::open`], of a file that is open already; `path` is what errors name.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn of(file: Arc<dyn File>, path: &Path) -> Result<Reader, Error> {
        let len = file.len().map_err(Error::io("read the length of", path))?;
        let meta_at = |offset: u64| -> Result<Result<Meta, String>, Error> {
            let mut page = vec![0; len.saturating_sub(offset).min(META_LEN as u64) as usize];
            if !page.is_empty() {
                file.read_exact_at(&mut page, offset).map_err(Error::io("read", path))?;
            }
            Ok(Meta::decode(&page))
        };
        let first = meta_at(0)?;
        let second = match &first {
            Ok(meta) => meta_at(meta.page_size.into())?.and_then(|second| match second.page_size {
                size if size == meta.page_size => Ok(second),
                size => Err(format!("a page size of {size} bytes, and page 0 says {}", meta.page_size)),
            }),
            Err(_) => {
                // Its place depends on the page size, which it tells: it is where both agree.
                let mut found = Err("not found at any page size".to_owned());
                let mut size = PAGE_SIZE_MIN;
                while found.is_err() && size <= PAGE_SIZE_MAX && u64::from(size) < len {
                    found = match meta_at(size.into())? {
                        Ok(meta) if meta.page_size == size => Ok(meta),
                        _ => found,
                    };
                    size *= 2;
                }
                found
            }
        };
        let (page, meta, lost_meta) = match (first, second) {
            (Ok(first), Ok(second)) if second.txid > first.txid => (1, second, None),
            (Ok(first), Ok(_)) => (0, first, None),
            (Ok(first), Err(what)) => (0, first, Some(format!("meta page 1: {what}"))),
            (Err(what), Ok(second)) => (1, second, Some(format!("meta page 0: {what}"))),
            (Err(first), Err(second)) => {
                return Err(Error::NoMeta { file: path.to_owned(), first, second });
            }
        };
        let source = Source { file, path: path.to_owned(), page_size: meta.page_size, pages: meta.pages };
        source.check_meta(page, &meta, len)?;
        Ok(Reader { source, meta, lost_meta })
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> u32 {
        self.source.page_size
    }

    /// How many pages the file uses, free ones too; times the page size, what bbolt calls the size of the database.
    pub fn pages(&self) -> u64 {
        self.source.pages
    }

    /// The number of the transaction that wrote what is read.
    pub fn txid(&self) -> u64 {
        self.meta.txid
    }

    /// Why the other meta page does not count, if it does not verify: it may have been of a newer transaction, and what
    /// is read then is the state before that.
    pub fn lost_meta(&self) -> Option<&str> {
        self.lost_meta.as_deref()
    }

    /// The bucket that all others are in.
    pub fn root(&self) -> Bucket<'_> {
        Bucket { reader: self, tree: Tree::Root(self.meta.root), sequence: self.meta.sequence }
    }

    /// The bucket `name` of the root bucket, if there is one.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'_>>, Error> {
        self.root().bucket(name)
    }

    /// The value of `key` in the bucket `bucket`; `None` if either is not there.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn get(&self, bucket: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.bucket(bucket)? {
            Some(bucket) => bucket.get(key),
            None => Ok(None),
        }
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl<'r> Bucket<'r> {
    /// Reads the header that a bucket's value begins with.
    pub(super) fn of_element(reader: &'r Reader, node: &Node, index: usize) -> Result<Bucket<'r>, Error> {
        let (value, at, page) = (node.value(index), node.value_offset(index), node.run().start);
        let source = reader.source();
        if value.len() < BUCKET_LEN {
            let what = format!("a bucket of {} bytes", value.len());
            return Err(source.damaged(page, at, what));
        }
        let (root, sequence) = (get_u64(value, 0), get_u64(value, 8));
        let tree = if root == 0 {
            let inline = &value[BUCKET_LEN..];
            Tree::Inline(Node::inline(source, page, at + BUCKET_LEN as u64, inline)?)
        } else if !source.has(root) {
            return Err(source.damaged(page, at, format!("a bucket whose pages begin at {root}")));
        } else if value.len() > BUCKET_LEN {
            let what = format!("a bucket in pages of its own, in {} bytes", value.len());
            return Err(source.damaged(page, at, what));
        } else {
            Tree::Root(root)
        };
        Ok(Bucket { reader, tree, sequence })
    }

    /// The number that bbolt's `NextSequence` counts up; etcd does not use it.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn is_inline(&self) -> bool {
        matches!(self.tree, Tree::Inline(_))
    }

    /// Walks all pairs from the first one.
    pub fn cursor(&self) -> Cursor<'r> {
        Cursor::new(self)
    }

    /// The value of `key`; `None` if it is not there, or is a bucket.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut cursor = self.cursor();
        cursor.seek(key)?;
        Ok(cursor.next()?.filter(|item| item.key == key).and_then(|item| item.value).map(<[u8]>::to_vec))
    }

    /// The bucket `name` inside this one, if there is one.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'r>>, Error> {
        let mut cursor = self.cursor();
        cursor.seek(name)?;
        if !cursor.next()?.is_some_and(|item| item.key == name && item.value.is_none()) {
            return Ok(None);
        }
        cursor.bucket().map(Some)
    }
}

impl Source {
    /// Whether a tree's page may be there: it is one of the file's, and no meta page.
    pub fn has(&self, page: u64) -> bool {
        (2..self.pages).contains(&page)
    }

    pub fn read(&self, buf: &mut [u8], at: u64) -> Result<(), Error> {
        self.file.read_exact_at(buf, at).map_err(Error::io("read", &self.path))
    }

    pub fn damaged(&self, page: u64, offset: u64, what: String) -> Error {
        Error::Damaged { file: self.path.clone(), page, offset, what }
    }

    /// Holds the meta page that counts against the file's length.
    fn check_meta(&self, page: u64, meta: &Meta, len: u64) -> Result<(), Error> {
        let at = page * u64::from(meta.page_size);
        let held = len / u64::from(meta.page_size);
        if meta.pages > held {
            let what = format!("{} pages of {} bytes in a file of {len}", meta.pages, meta.page_size);
            return Err(self.damaged(page, at + 56, what));
        }
        if !self.has(meta.root) {
            return Err(self.damaged(page, at + 32, format!("the root bucket begins at page {}", meta.root)));
        }
        if meta.freelist != NO_FREELIST && !self.has(meta.freelist) {
            return Err(self.damaged(page, at + 48, format!("the freelist is page {}", meta.freelist)));
        }
        Ok(())
    }
}
