//! Writing a database file in a folder: planned, reserved, written, synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use disk::boltfile::schema;
use disk::boltfile::{DEFAULT_PAGE_SIZE, Planner, Reader, Writer};
use disk::{Access, Fs};

use super::Pairs;
use super::import::{each, refuse, text};
use crate::Error;
use crate::start::io as failed;

/// Bytes written at a time.
const CHUNK: usize = 1 << 20;
/// The small things in `meta` never come near this, bytes.
const META_BYTES_MAX: usize = 1 << 20;

/// What can hand over the pairs of a database as often as it is asked, the same each time.
pub(crate) trait Contents {
    /// Hands over everything, bucket by bucket, in the order of a file.
    fn pairs(&self, out: &mut impl Pairs) -> Result<(), Error>;
}

/// Writes a new file durably (its name is the caller's to sync); its length, bytes.
pub(crate) fn write(fs: &dyn Fs, contents: &impl Contents, path: &Path) -> Result<u64, Error> {
    let mut planner = Planner::new(DEFAULT_PAGE_SIZE)?;
    contents.pairs(&mut planner)?;
    let plan = planner.finish();
    let len = plan.file_len();
    let file = fs.open(path, Access::CreateNew).map_err(failed("create", path))?;
    // Reserved first, so that a full disk is not met in the midst of the file.
    file.allocate(len).map_err(failed("allocate", path))?;
    let mut buf: Vec<u8> = Vec::with_capacity(CHUNK);
    let mut at = 0;
    let sink = |bytes: &[u8]| -> io::Result<()> {
        if buf.len() + bytes.len() > CHUNK {
            file.write_all_at(&buf, at)?;
            at += buf.len() as u64;
            buf.clear();
        }
        buf.extend_from_slice(bytes);
        Ok(())
    };
    let mut writer = Writer::new(plan, sink)?;
    contents.pairs(&mut writer)?;
    let _sink = writer.finish()?;
    file.write_all_at(&buf, at).map_err(failed("write", path))?;
    file.sync_data().map_err(failed("sync", path))?;
    Ok(len)
}

/// The names of all buckets of a file, and of those that etcd expects.
pub(super) fn buckets(reader: &Reader, path: &Path) -> Result<BTreeSet<Vec<u8>>, Error> {
    let mut names = own_buckets(reader, path)?;
    names.extend(schema::BUCKETS.iter().map(|name| name.to_vec()));
    Ok(names)
}

/// Refuses a file that lacks one of these buckets, or has anything but buckets beside them.
pub(super) fn check_buckets(reader: &Reader, path: &Path, required: &[&[u8]]) -> Result<(), Error> {
    let names = own_buckets(reader, path)?;
    match required.iter().find(|name| !names.contains(**name)) {
        Some(name) => Err(lacks(path, name)),
        None => Ok(()),
    }
}

pub(super) fn lacks(path: &Path, bucket: &[u8]) -> Error {
    refuse(path, format_args!("the bucket {} is missing", text(bucket)))
}

/// Refuses a file of which a meta page does not verify. What is read then may be the state before the newest transaction;
/// what would be made of it would not show that.
pub(super) fn check_meta(reader: &Reader, path: &Path) -> Result<(), Error> {
    match reader.lost_meta() {
        Some(lost) => Err(refuse(
            path,
            format_args!("{lost}: it may have been of the newest transaction, which is lost then"),
        )),
        None => Ok(()),
    }
}

fn own_buckets(reader: &Reader, path: &Path) -> Result<BTreeSet<Vec<u8>>, Error> {
    let mut names = BTreeSet::new();
    let root = reader.root();
    let mut cursor = root.cursor();
    while let Some(item) = cursor.next()? {
        if item.value.is_some() {
            return Err(refuse(path, format_args!("a pair outside of buckets, {:?}", text(item.key))));
        }
        names.insert(item.key.to_vec());
    }
    Ok(names)
}

/// The pairs of `meta`.
pub(super) fn meta(reader: &Reader, path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Error> {
    let mut pairs: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut bytes = 0;
    if let Some(bucket) = reader.bucket(schema::BUCKET_META)? {
        each(&bucket, path, |key, value| {
            bytes += key.len() + value.len();
            if bytes > META_BYTES_MAX {
                return Err(refuse(path, format_args!("more than {META_BYTES_MAX} bytes in meta")));
            }
            pairs.insert(key.to_vec(), value.to_vec());
            Ok(())
        })?;
    }
    Ok(pairs)
}

/// Hands over a bucket as it is, but for the pairs that are not wanted.
pub(super) fn copy(
    (reader, path): (&Reader, &Path),
    name: &[u8],
    out: &mut impl Pairs,
    keeps: impl Fn(&[u8], &[u8]) -> bool,
) -> Result<(), Error> {
    let Some(bucket) = reader.bucket(name)? else { return Ok(()) };
    each(&bucket, path, |key, value| match keeps(key, value) {
        true => Ok(out.pair(key, value)?),
        false => Ok(()),
    })
}

/// What is to become of a file's storage version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StorageVersion {
    /// It stays.
    Kept,
    /// It becomes this one.
    Set(schema::Version),
    /// It goes, as before etcd 3.6.
    Cleared,
}

/// A file's own contents, for a new file in its place.
struct Same<'a> {
    reader: &'a Reader,
    path: &'a Path,
    version: &'a StorageVersion,
}

impl Contents for Same<'_> {
    fn pairs(&self, out: &mut impl Pairs) -> Result<(), Error> {
        for name in buckets(self.reader, self.path)? {
            out.bucket(&name)?;
            if name != schema::BUCKET_META {
                copy((self.reader, self.path), &name, out, |_, _| true)?;
                continue;
            }
            let mut pairs = meta(self.reader, self.path)?;
            match self.version {
                StorageVersion::Kept => {}
                StorageVersion::Set(version) => {
                    pairs.insert(schema::META_STORAGE_VERSION.to_vec(), version.to_string().into_bytes());
                }
                StorageVersion::Cleared => {
                    pairs.remove(schema::META_STORAGE_VERSION);
                }
            }
            for (key, value) in &pairs {
                out.pair(key, value)?;
            }
        }
        Ok(())
    }
}

/// Writes a database anew, without what nobody refers to, and puts it in the place of the old one in one step; with its
/// owner and mode; the new length, bytes. The caller holds its lock, and every page is checked first.
pub(crate) fn rewrite(fs: &dyn Fs, path: &Path, version: &StorageVersion) -> Result<u64, Error> {
    let reader = Reader::open(fs, path)?;
    check_meta(&reader, path)?;
    reader.check()?;
    // etcd removes what is called so at its start.
    let unfinished = path.with_extension("tmp.rewritten");
    if fs.exists(&unfinished).map_err(failed("look for", &unfinished))? {
        fs.remove(&unfinished).map_err(failed("remove", &unfinished))?;
    }
    let len = write(fs, &Same { reader: &reader, path, version }, &unfinished)?;
    // Whoever runs this need not be who runs the member.
    fs.take_owner(&unfinished, path).map_err(failed("change the owner of", &unfinished))?;
    let mode = fs.mode(path).map_err(failed("stat", path))?;
    fs.set_mode(&unfinished, mode).map_err(failed("change the mode of", &unfinished))?;
    fs.rename(&unfinished, path).map_err(failed("rename", &unfinished))?;
    let folder = crate::start::parent_of(path).unwrap_or(path);
    fs.sync_dir(folder).map_err(failed("sync folder", folder))?;
    Ok(len)
}
