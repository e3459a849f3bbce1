//! The fuzz targets: any bytes as a database file, and any pairs written as one.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fs::MemFs;

use super::format::seal_meta;
use super::{Bucket, Error, Planner, Reader, Writer};

const PATH: &str = "db";

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Reads arbitrary bytes as a database file: all buckets, every key by itself, and all pages. What can be read is then
/// written and read again.
///
/// The low bit of the first byte says whether the magic, page size and checksums of both meta pages are set right
/// first, so that what lies behind them is reached; the next three bits are the page size, 512 × 2ⁿ. Answers whether
/// the whole file was sound.
///
/// # Panics
/// If what is read contradicts itself; never because of what `data` is.
pub fn fuzz_boltfile(data: &[u8]) -> bool {
    let Some((&how, data)) = data.split_first() else { return false };
    let mut bytes = data.to_vec();
    if how & 1 == 1 {
        let page_size = 512_u32 << (how >> 1 & 7);
        seal_meta(&mut bytes, page_size);
        if let Some(second) = bytes.get_mut(page_size as usize..) {
            seal_meta(second, page_size);
        }
    }
    let Ok(reader) = open(&bytes) else { return false };
    let Ok(summary) = reader.check() else {
        // What does not hold somewhere may still be read elsewhere, without end or panic.
        let _damage = collect(&reader.root(), &mut Vec::new(), 0);
        return false;
    };
    let mut buckets = Vec::new();
    collect(&reader.root(), &mut buckets, 0).expect("what was checked is read");
    let pairs: usize = buckets.iter().map(|(_, pairs)| pairs.len()).sum();
    assert_eq!(pairs as u64, summary.pairs, "a cursor shows what the check counted");
    assert_eq!(buckets.len() as u64, summary.buckets + 1, "and as many buckets");
    // Buckets in buckets are not written here, and pairs beside buckets neither: numbers are names enough.
    let flat = buckets.into_iter().enumerate();
    write_and_read(512, &flat.map(|(at, (_, pairs))| (format!("{at:08}").into_bytes(), pairs)).collect());
    true
}

/// Writes buckets and pairs made of `data` and reads them again: each pair is a byte for the length of its key, two for
/// that of its value, a key and a byte that fills the value; a key of length 0 begins a bucket.
///
/// # Panics
/// If they differ, or the file is not sound.
pub fn fuzz_boltfile_pairs(mut data: &[u8]) {
    let mut buckets: BTreeMap<Vec<u8>, Pairs> = BTreeMap::new();
    let mut pairs = Pairs::new();
    while let [key_len, low, high, fill, rest @ ..] = data {
        let (key, rest) = rest.split_at(rest.len().min((*key_len).into()));
        data = rest;
        if key.is_empty() {
            buckets.insert([*low, *high].to_vec(), std::mem::take(&mut pairs));
        } else {
            pairs.insert(key.to_vec(), vec![*fill; u16::from_le_bytes([*low, *high]).into()]);
        }
    }
    buckets.insert(b"last".to_vec(), pairs);
    write_and_read(1024, &buckets);
}

fn open(bytes: &[u8]) -> Result<Reader, Error> {
    let fs = MemFs::new();
    fs.put(PATH, bytes).expect("a file in memory");
    Reader::open(&fs, Path::new(PATH))
}

/// All buckets of a tree, that with `prefix` first.
fn collect(bucket: &Bucket<'_>, found: &mut Vec<(Vec<u8>, Pairs)>, depth: u32) -> Result<(), Error> {
    let mut pairs = Pairs::new();
    let mut inner = Vec::new();
    let mut cursor = bucket.cursor();
    let mut failed = Ok(());
    loop {
        let (key, value) = match cursor.next() {
            Ok(Some(item)) => (item.key.to_vec(), item.value.map(<[u8]>::to_vec)),
            Ok(None) => break,
            Err(error) => {
                assert!(matches!(cursor.next(), Err(Error::CursorFailed)), "an error ends a cursor");
                failed = Err(error);
                break;
            }
        };
        assert!(pairs.last_key_value().is_none_or(|(last, _)| *last < key), "keys ascend");
        match value {
            Some(value) => {
                // A page that a cursor has passed is the same to a lookup, but it may lie behind a bad one.
                assert_eq!(
                    bucket.get(&key)?.as_deref(),
                    Some(&value[..]),
                    "a lookup finds what a cursor shows"
                );
                pairs.insert(key, value);
            }
            None => inner.push(cursor.bucket()),
        }
    }
    found.push((Vec::new(), pairs));
    failed?;
    for inner in inner {
        // Damaged buckets may lead to each other.
        if depth < 64 && found.len() < 10_000 {
            collect(&inner?, found, depth + 1)?;
        }
    }
    Ok(())
}

fn write_and_read(page_size: u32, buckets: &BTreeMap<Vec<u8>, Pairs>) {
    let mut planner = Planner::new(page_size).expect("a page size");
    for (name, pairs) in buckets {
        planner.bucket(name).expect("names ascend");
        for (key, value) in pairs {
            planner.pair(key.len(), value.len()).expect("short pairs");
        }
    }
    let plan = planner.finish();
    let len = plan.file_len();
    let mut written = Vec::new();
    let mut writer = Writer::new(plan, |bytes: &[u8]| {
        written.extend_from_slice(bytes);
        Ok(())
    })
    .expect("memory takes all");
    for (name, pairs) in buckets {
        writer.bucket(name).expect("as planned");
        for (key, value) in pairs {
            writer.pair(key, value).expect("as planned");
        }
    }
    let _sink = writer.finish().expect("as planned");
    assert_eq!(written.len() as u64, len, "the length that was planned");

    let reader = open(&written).expect("it opens");
    let summary = reader.check().expect("it is sound");
    assert_eq!(summary.buckets, buckets.len() as u64);
    for (name, pairs) in buckets {
        let bucket = reader.bucket(name).expect("it is sound").expect("the bucket is there");
        let mut cursor = bucket.cursor();
        for (key, value) in pairs {
            let item = cursor.next().expect("it is sound").expect("the pair is there");
            assert_eq!((item.key, item.value), (&key[..], Some(&value[..])));
        }
        assert!(cursor.next().expect("it is sound").is_none(), "nothing else");
    }
}
