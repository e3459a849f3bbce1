//! Every byte of a file of ours, each of its bits: what can be seen is, and what can't is exactly this list.
//!
//! A page of pairs has no checksum. A flip shows unless it is
//! - in a value;
//! - in a key of a pair, if the key stays between its neighbours;
//! - in a length of the last pair of a page, if the value then ends in the zeros that fill the page, or loses zeros at
//!   its own end; or if key and value only share their bytes otherwise.
//!
//! The SHA-256 of a snapshot and HashKV catch these. Everything else is an error that names a page, or reads the same: a
//! meta page that is lost (both say the same in a file of ours), what tells of nothing (a bucket's sequence, zeros of
//! meta and freelist pages).

use std::collections::BTreeSet;

use disk::boltfile::Error;

use crate::golden::SNAPSHOT_3_7;
use crate::harness::{dump, open, pages, read, small_buckets, write};
use crate::packed::unpack;

const SIZE: usize = 512;

fn u32_at(file: &[u8], at: usize) -> usize {
    u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize
}

/// The offsets at which a flip may read as other pairs: found in the bytes, not by the code under test.
fn unprotected(file: &[u8]) -> BTreeSet<usize> {
    let mut offsets = BTreeSet::new();
    for (page, flags, count, _) in pages(file, SIZE) {
        if flags != 2 {
            continue;
        }
        for index in 0..usize::from(count) {
            let element = page as usize * SIZE + 16 + 16 * index;
            let data = element + u32_at(file, element + 4);
            let (key, value) = (u32_at(file, element + 8), u32_at(file, element + 12));
            if u32_at(file, element) == 0 {
                offsets.extend(data..data + key + value);
                if index + 1 == usize::from(count) {
                    offsets.extend(element + 8..element + 16);
                }
            } else {
                // A bucket's name. Where its pages are is told by the check that nothing is used twice or not at all.
                offsets.extend(data..data + key);
            }
        }
    }
    offsets
}

#[test]
fn every_bit() {
    let buckets = small_buckets();
    let file = write(SIZE as u32, &buckets);
    let unprotected = unprotected(&file);
    let (mut refused, mut same, mut other) = (0, 0, BTreeSet::new());
    for offset in 0..file.len() {
        for bit in 0..8 {
            let mut flipped = file.clone();
            flipped[offset] ^= 1 << bit;
            let found = open(&flipped).and_then(|reader| {
                reader.check()?;
                read(&reader)
            });
            match found {
                Ok(found) if found == buckets => same += 1,
                Ok(_) => {
                    other.insert(offset);
                }
                Err(Error::Damaged { page, offset: at, .. }) => {
                    assert!(page < (file.len() / SIZE) as u64 && at < file.len() as u64);
                    refused += 1;
                }
                Err(error) => panic!("flip of bit {bit} at {offset}: {error}"),
            }
        }
    }
    let wrong: Vec<_> = other.difference(&unprotected).collect();
    assert!(wrong.is_empty(), "other pairs after a flip at {wrong:?}");
    println!("{refused} refused, {same} the same, {} offsets of {} unseen", other.len(), unprotected.len());
    assert!(refused > 20_000 && same > 1000 && !other.is_empty());
}

/// Without the check of the whole file, reading may also end in another bucket's pages, but never in a panic, and never
/// in keys out of order.
#[test]
fn reading_alone() {
    let file = write(SIZE as u32, &small_buckets());
    for offset in 0..file.len() {
        let mut flipped = file.clone();
        flipped[offset] ^= 1 << (offset % 8);
        let Ok(reader) = open(&flipped) else { continue };
        for name in small_buckets().keys() {
            let Ok(Some(bucket)) = reader.bucket(name) else { continue };
            let mut cursor = bucket.cursor();
            let mut last = Vec::new();
            while let Ok(Some(item)) = cursor.next() {
                assert!(last.as_slice() < item.key, "flip at {offset}");
                last = item.key.to_vec();
            }
        }
    }
}

/// The headers and elements of a file that etcd wrote. It stores no freelist, so nothing tells that pages are missing:
/// a bucket in the root that becomes a pair goes unseen here, and is for the reader of the schema to miss.
#[test]
fn headers_and_elements_of_a_file_of_etcd() {
    let file = unpack(SNAPSHOT_3_7);
    let whole = dump(&open(&file).unwrap());
    let (page_size, mut unseen) = (4096, BTreeSet::new());
    let mut seen = 0;
    // The pages in use, as `bbolt pages` lists them; page 7 is the root bucket's.
    let used = [(2, 61), (4, 3), (7, 10), (10, 2), (13, 17)];
    for (page, count) in used {
        let at = page * page_size;
        assert_eq!((file[at], u16::from_le_bytes([file[at + 10], file[at + 11]])), (page as u8, count));
        for offset in at..at + 16 + 16 * usize::from(count) {
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[offset] ^= 1 << bit;
                match open(&flipped).and_then(|reader| reader.check().map(|_| dump(&reader))) {
                    Ok(found) if found == whole => {}
                    Ok(_) => drop(unseen.insert((page, offset - at))),
                    Err(Error::Damaged { page: 0..14, .. }) => seen += 1,
                    Err(error) => panic!("flip of bit {bit} at {offset}: {error}"),
                }
            }
        }
    }
    let last_lengths = used.into_iter().flat_map(|(page, count)| {
        let last = 16 * usize::from(count);
        (last + 8..last + 16).map(move |offset| (page, offset))
    });
    let root_flags = (1..=10).map(|element| (7, 16 * element));
    let expected: BTreeSet<_> = last_lengths.chain(root_flags).collect();
    assert!(unseen.is_subset(&expected), "{unseen:?}");
    assert!(seen > 12_000 && !unseen.is_empty(), "{seen} seen");
}
