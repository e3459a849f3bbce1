//! What does not hold in a file is an error that names file, page and offset, however it came there.

use std::path::Path;

use disk::MemFs;
use disk::boltfile::{Cursor, Error, Reader};

use crate::golden::{NESTED, SNAPSHOT_3_7};
use crate::harness::{dump, open, pages, small_buckets, write};
use crate::packed::unpack;

const SIZE: usize = 512;
const NO_FREELIST: u64 = u64::MAX;

fn u16_at(file: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(file[at..at + 2].try_into().unwrap())
}

fn u32_at(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(file[at..at + 4].try_into().unwrap())
}

fn u64_at(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap())
}

fn walk(mut cursor: Cursor<'_>) -> Result<(), Error> {
    while cursor.next()?.is_some() {}
    Ok(())
}

/// What a check says of this file, which must be damaged: page, offset and reason.
#[track_caller]
fn fault(file: &[u8]) -> (u64, u64, String) {
    match open(file).and_then(|reader| reader.check()) {
        Err(Error::Damaged { file, page, offset, what }) => {
            assert_eq!(file, Path::new("db"));
            (page, offset, what)
        }
        Err(other) => panic!("{other}"),
        Ok(summary) => panic!("nothing wrong: {summary:?}"),
    }
}

/// FNV-1a, written a second time.
fn sum(bytes: &[u8]) -> u64 {
    let mut sum: u64 = 14_695_981_039_346_656_037;
    for byte in bytes {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211);
    }
    sum
}

fn meta(id: u64, page_size: u32, [root, freelist, pages, txid]: [u64; 4]) -> Vec<u8> {
    let mut page = page_header(id, 4, 0, 0);
    page.extend(0xed0c_daed_u32.to_le_bytes());
    page.extend(2_u32.to_le_bytes());
    page.extend(page_size.to_le_bytes());
    page.extend(0_u32.to_le_bytes());
    page.extend([root, 0, freelist, pages, txid].iter().flat_map(|number| number.to_le_bytes()));
    page.extend(sum(&page[16..]).to_le_bytes());
    page
}

fn page_header(id: u64, flags: u16, count: u16, overflow: u32) -> Vec<u8> {
    let mut header = id.to_le_bytes().to_vec();
    header.extend(flags.to_le_bytes());
    header.extend(count.to_le_bytes());
    header.extend(overflow.to_le_bytes());
    header
}

fn leaf(id: u64, elements: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
    let mut page = page_header(id, 2, elements.len() as u16, 0);
    let (mut data, mut left) = (Vec::new(), elements.len());
    for (flags, key, value) in elements {
        let position = 16 * left + data.len();
        for number in [*flags, position as u32, key.len() as u32, value.len() as u32] {
            page.extend(number.to_le_bytes());
        }
        data.extend([*key, *value].concat());
        left -= 1;
    }
    page.extend(data);
    page
}

fn branch(id: u64, elements: &[(&[u8], u64)]) -> Vec<u8> {
    let mut page = page_header(id, 1, elements.len() as u16, 0);
    let (mut data, mut left) = (Vec::new(), elements.len());
    for (key, child) in elements {
        page.extend(((16 * left + data.len()) as u32).to_le_bytes());
        page.extend((key.len() as u32).to_le_bytes());
        page.extend(child.to_le_bytes());
        data.extend_from_slice(key);
        left -= 1;
    }
    page.extend(data);
    page
}

fn freelist(id: u64, free: &[u64]) -> Vec<u8> {
    let mut page = page_header(id, 16, free.len() as u16, 0);
    page.extend(free.iter().flat_map(|free| free.to_le_bytes()));
    page
}

/// A file of these pages from page 2 on, whose root is page `root`.
fn file_of(root: u64, freelist: u64, from_2: &[Vec<u8>]) -> Vec<u8> {
    let pages = 2 + from_2.len() as u64;
    let metas = [0, 1].map(|id| meta(id, SIZE as u32, [root, freelist, pages, 2 - id]));
    let mut file = Vec::new();
    for (page, at) in metas.iter().chain(from_2).zip(1..) {
        file.extend(page);
        assert!(file.len() <= at * SIZE);
        file.resize(at * SIZE, 0);
    }
    file
}

/// A bucket's value: its pages, or its inline page.
fn bucket(root: u64, inline: &[u8]) -> Vec<u8> {
    [&root.to_le_bytes()[..], &[0; 8], inline].concat()
}

#[test]
fn a_file_made_by_hand_is_sound() {
    let inline = bucket(0, &leaf(0, &[(0, b"a", b"1"), (0, b"b", b"")]));
    let paged = bucket(5, &[]);
    let pages = [
        freelist(2, &[3]),
        vec![],
        leaf(4, &[(1, b"in", &inline), (0, b"lone", b"value"), (1, b"pages", &paged)]),
        branch(5, &[(b"k", 6), (b"m", 7)]),
        leaf(6, &[(0, b"k", b"1"), (0, b"l", b"2")]),
        leaf(7, &[(0, b"n", b"3")]),
    ];
    let file = file_of(4, 2, &pages);
    let reader = open(&file).unwrap();
    let summary = reader.check().unwrap();
    assert_eq!((summary.buckets, summary.pairs, summary.free_pages, summary.depth), (2, 6, 1, 2));
    assert_eq!(reader.get(b"pages", b"n").unwrap().unwrap(), b"3");
    assert_eq!(reader.get(b"in", b"b").unwrap().unwrap(), b"");
    assert_eq!(reader.get(b"lone", b"x").unwrap(), None, "a pair is no bucket");
    // Without a stored freelist nothing says that page 3 should be free, nor that it should not.
    assert_eq!(open(&file_of(4, NO_FREELIST, &pages)).unwrap().check().unwrap().free_pages, 2);
}

/// One field after the other of a leaf, with what is said and where.
#[test]
fn fields_of_a_leaf() {
    let file = write(SIZE as u32, &small_buckets());
    let (page, _, count, _) = *pages(&file, SIZE)
        .iter()
        .find(|(_, flags, count, over)| (*flags, *over) == (2, 0) && *count > 4)
        .unwrap();
    let at = page as usize * SIZE;
    let last = at + 16 * usize::from(count);
    let end = last
        + u32_at(&file, last + 4) as usize
        + u32_at(&file, last + 8) as usize
        + u32_at(&file, last + 12) as usize;
    assert!(end < at + SIZE, "the page is not full");
    let second_key = at + 32 + u32_at(&file, at + 32 + 4) as usize;
    let cases: [(usize, &[u8], usize, &str); 17] = [
        (at, &[0xee], at, "the page has the number"),
        (at + 8, &[0], at + 8, "a leaf or branch page is expected"),
        (at + 8, &[3], at + 8, "a leaf or branch page is expected"),
        (at + 8, &[4], at + 8, "a leaf or branch page is expected"),
        (at + 10, &[0], at + 10, "a page without elements"),
        (at + 10, &[count as u8 - 1], at + 20, "the data of element 0 is not where"),
        (at + 10, &[count as u8 + 1], at + 20, "the data of element 0 is not where"),
        (at + 10, &[0xff, 0xff], at + 10, "65535 elements do not fit"),
        (at + 12, &[0xff; 4], at + 12, "4294967295 more pages, and the file has"),
        (at + 12, &[1], at + SIZE, "bytes behind the last element are not zero"),
        (at + 16, &[2], at + 16, "element 0 has the flags 0x2"),
        (at + 20, &[0], at + 20, "the data of element 0 is not where"),
        (at + 24, &[0], at + 24, "element 0 has an empty key"),
        (at + 28, &[0xff], at + 36, "the data of element 1 is not where"),
        (last + 12, &[0xff, 0xff, 0xff, 0xff], last + 8, "reaches past the page's end"),
        (end + 1, &[1], end + 1, "bytes behind the last element are not zero"),
        (second_key, &[0], second_key, "key 1 is not greater than the one before it"),
    ];
    for (patch, bytes, offset, what) in cases {
        let mut file = file.clone();
        file[patch..patch + bytes.len()].copy_from_slice(bytes);
        let found = fault(&file);
        assert!(found.2.contains(what), "{patch}: {found:?}, not {what}");
        assert_eq!((found.0, found.1), (page, offset as u64), "{what}");
    }
    let mut file = file;
    file[at + 10] = 0;
    let error = open(&file).unwrap().check().unwrap_err().to_string();
    assert_eq!(error, format!("db is damaged in page {page} at offset {}: a page without elements", at + 10));
}

#[test]
fn children_of_a_branch() {
    let file = write(SIZE as u32, &small_buckets());
    let branches: Vec<_> = pages(&file, SIZE).into_iter().filter(|(_, flags, ..)| *flags == 1).collect();
    let (page, at) = (branches[0].0, branches[0].0 as usize * SIZE);
    let child = |index: usize| at + 16 + 16 * index + 8;
    let with = |patch: usize, value: u64| {
        let mut file = file.clone();
        file[patch..patch + 8].copy_from_slice(&value.to_le_bytes());
        file
    };
    for outside in [0, 1, page, file.len() as u64 / SIZE as u64, u64::MAX] {
        let found = fault(&with(child(1), outside));
        assert_eq!((found.0, found.1), (page, child(1) as u64));
        assert_eq!(found.2, format!("element 1 points to page {outside}"));
    }
    // Its neighbour again, what lies before and behind, what is above: each is out of order.
    let first = u64_at(&file, child(0));
    assert_eq!(fault(&with(child(1), first)).2, "the first key is less than the parent page says");
    let later = u64_at(&file, child(2));
    assert_eq!(fault(&with(child(1), later)).2, "the last key is not less than the next page's first");
    let above = branches.last().unwrap().0;
    assert!(above > page);
    assert_eq!(fault(&with(child(0), above)).2, "the last key is not less than the next page's first");
    // The freelist, and the middle of an overflow.
    assert_eq!(fault(&with(child(0), 2)).2, "flags 0x0010, a leaf or branch page is expected");
    let over = pages(&file, SIZE).iter().find(|(.., overflow)| *overflow > 0).unwrap().0;
    assert!(fault(&with(child(0), over + 1)).2.starts_with("the page has the number"));

    // No element at all; and a key that is in the way of the children's.
    let mut none = file.clone();
    none[at + 10..at + 12].fill(0);
    assert_eq!(fault(&none), (page, at as u64 + 10, "a page without elements".to_owned()));
    let mut higher = file.clone();
    let key = at + 32 + u32_at(&file, at + 32) as usize;
    higher[key + 6] += 1;
    assert_eq!(fault(&higher).2, "the first key is less than the parent page says");
    assert!(u16_at(&file, at + 10) > 2);
}

/// Two branches with one child each, the other: nothing is out of order, and it ends all the same.
#[test]
fn a_circle() {
    let file = file_of(2, NO_FREELIST, &[branch(2, &[(b"k", 3)]), branch(3, &[(b"k", 2)])]);
    let reader = open(&file).unwrap();
    for result in [walk(reader.root().cursor()), reader.root().get(b"k").map(drop)] {
        assert!(result.unwrap_err().to_string().contains("a tree of more than 64 levels"));
    }
    assert_eq!(fault(&file).2, "the page is used twice");

    // A bucket that is inside itself.
    let inside = bucket(2, &[]);
    let file = file_of(2, NO_FREELIST, &[leaf(2, &[(1, b"b", &inside)])]);
    assert_eq!(fault(&file), (2, 2 * SIZE as u64, "the page is used twice".to_owned()));
}

#[test]
fn pages_of_two_buckets() {
    let same = bucket(3, &[]);
    let pages = [leaf(2, &[(1, b"a", &same), (1, b"b", &same)]), leaf(3, &[(0, b"k", b"v")])];
    assert_eq!(
        fault(&file_of(2, NO_FREELIST, &pages)),
        (3, 3 * SIZE as u64, "the page is used twice".to_owned())
    );

    // An overflow that reaches into another's page.
    let (first, second) = (bucket(3, &[]), bucket(4, &[]));
    let mut long = leaf(3, &[(0, b"k", b"v")]);
    long[12] = 1;
    let pages = [leaf(2, &[(1, b"a", &second), (1, b"b", &first)]), long, leaf(4, &[(0, b"k", b"v")])];
    let found = fault(&file_of(2, NO_FREELIST, &pages));
    assert_eq!(found, (3, 4 * SIZE as u64, "bytes behind the last element are not zero".to_owned()));
}

#[test]
fn buckets() {
    let at = |file: &[u8]| (2 * SIZE + 16 + 16 + file.len()) as u64;
    let cases: [(Vec<u8>, u64, &str); 12] = [
        (vec![], 0, "a bucket of 0 bytes"),
        (vec![0; 15], 0, "a bucket of 15 bytes"),
        (bucket(1, &[]), 0, "a bucket whose pages begin at 1"),
        (bucket(3, &[]), 0, "a bucket whose pages begin at 3"),
        (bucket(2, b"more"), 0, "a bucket in pages of its own, in 20 bytes"),
        (bucket(0, &[]), 16, "no page of an inline bucket"),
        (bucket(0, &leaf(1, &[])), 16, "no page of an inline bucket"),
        (bucket(0, &branch(0, &[])), 16, "no page of an inline bucket"),
        (bucket(0, &page_header(0, 2, 1, 0)), 16 + 10, "1 elements do not fit"),
        (
            bucket(0, &[leaf(0, &[(0, b"k", b"v")]), vec![0]].concat()),
            16 + 34,
            "goes on behind its last element",
        ),
        (bucket(0, &leaf(0, &[(1, b"k", &[0; 32])])), 16 + 16, "element 0 of an inline bucket has flags"),
        (bucket(0, &leaf(0, &[(0, b"l", b""), (0, b"k", b"")])), 16 + 49, "key 1 is not greater"),
    ];
    for (value, offset, what) in cases {
        let file = file_of(2, NO_FREELIST, &[leaf(2, &[(1, b"b", &value)])]);
        let found = fault(&file);
        assert!(found.2.contains(what), "{found:?}, not {what}");
        assert_eq!((found.0, found.1), (2, at(b"b") + offset), "{what}");
    }
}

/// A hundred buckets inside one another.
#[test]
fn deep_buckets() {
    let mut pages = Vec::new();
    for page in 2..101 {
        pages.push(leaf(page, &[(1, b"b", &bucket(page + 1, &[]))]));
    }
    pages.push(leaf(101, &[]));
    let found = fault(&file_of(2, NO_FREELIST, &pages));
    assert_eq!((found.0, &found.2[..]), (66, "more than 64 buckets inside one another"));
    assert!(open(&file_of(38, NO_FREELIST, &pages)).unwrap().check().is_ok());
}

#[test]
fn freelists() {
    let root = leaf(3, &[(0, b"k", b"v")]);
    let with = |list: Vec<u8>| file_of(3, 2, &[list, root.clone(), vec![], vec![]]);
    assert_eq!(open(&with(freelist(2, &[4, 5]))).unwrap().check().unwrap().free_pages, 2);
    let mut long = page_header(2, 16, 0xffff, 0);
    long.extend([2, 4, 5_u64].iter().flat_map(|number| number.to_le_bytes()));
    assert_eq!(open(&with(long)).unwrap().check().unwrap().free_pages, 2);
    let mut endless = page_header(2, 16, 0xffff, 0);
    endless.extend(u64::MAX.to_le_bytes());
    let at = 2 * SIZE as u64;
    let cases: [(Vec<u8>, u64, u64, &str); 11] = [
        (freelist(2, &[4]), 5, 5 * SIZE as u64, "the page is neither used nor free"),
        (freelist(2, &[5]), 4, 4 * SIZE as u64, "the page is neither used nor free"),
        (freelist(2, &[3, 4, 5]), 2, at + 16, "page 3 is free and used"),
        (freelist(2, &[2, 4, 5]), 2, at + 16, "page 2 is free and used"),
        (freelist(2, &[5, 4]), 2, at + 24, "page 4 in the freelist, behind 5"),
        (freelist(2, &[4, 4, 5]), 2, at + 24, "page 4 in the freelist, behind 4"),
        (freelist(2, &[4, 5, 6]), 2, at + 32, "page 6 in the freelist, behind 5"),
        (freelist(4, &[4, 5]), 2, at, "the page has the number 4"),
        (leaf(2, &[]), 2, at + 8, "flags 0x0002, a freelist is expected"),
        (page_header(2, 16, 0, 4), 2, at + 12, "4 more pages, and the file has 6 in all"),
        (endless, 2, at + 10, "a freelist of 18446744073709551615 pages in room for 61"),
    ];
    for (list, page, offset, what) in cases {
        assert_eq!(fault(&with(list)), (page, offset, what.to_owned()));
    }
    assert_eq!(fault(&with(page_header(2, 16, 100, 0))).2, "a freelist of 100 pages in room for 62");
}

#[test]
fn meta_pages() {
    let root = leaf(2, &[(0, b"k", b"v")]);
    let file = file_of(2, NO_FREELIST, &[root]);
    let with = |first: &[u8], second: &[u8]| {
        let mut file = file.clone();
        file[..first.len()].copy_from_slice(first);
        file[SIZE..SIZE + second.len()].copy_from_slice(second);
        file
    };
    let good = |txid| meta(0, SIZE as u32, [2, NO_FREELIST, 3, txid]);
    let mut bad_sum = good(1);
    bad_sum[79] ^= 1;
    let mut version = good(1);
    version[20] = 3;
    let (magic, odd) = (vec![0; 80], meta(0, 1000, [2, NO_FREELIST, 3, 1]));
    let reasons = [
        (&bad_sum, "the checksum does not match"),
        (&version, "format version 3, this program reads 2"),
        (&magic, "wrong magic"),
        (&odd, "a page size of 1000 bytes"),
    ];
    for (bad, why) in reasons {
        let reader = open(&with(bad, &good(1))).unwrap();
        assert_eq!(reader.lost_meta().unwrap(), format!("meta page 0: {why}"));
        assert_eq!(reader.root().get(b"k").unwrap().unwrap(), b"v");
        let reader = open(&with(&good(1), bad)).unwrap();
        assert_eq!(reader.lost_meta().unwrap(), format!("meta page 1: {why}"));
        let error = open(&with(bad, bad)).map(drop).unwrap_err().to_string();
        let expected =
            format!("db is no database file: meta page 0: {why}; meta page 1: not found at any page size");
        assert_eq!(error, expected);
    }
    // The newer one counts, wherever it is; of two alike, the first.
    for (first, second, txid) in [(7, 8, 8), (8, 7, 8), (7, 7, 7), (u64::MAX, 0, u64::MAX)] {
        assert_eq!(open(&with(&good(first), &good(second))).unwrap().txid(), txid);
    }
    let other = meta(1, 1024, [2, NO_FREELIST, 3, 9]);
    let reader = open(&with(&good(1), &other)).unwrap();
    assert_eq!(reader.lost_meta().unwrap(), "meta page 1: a page size of 1024 bytes, and page 0 says 512");

    let faults: [([u64; 4], u64, &str); 6] = [
        ([2, NO_FREELIST, 4, 9], 56, "4 pages of 512 bytes in a file of 1536"),
        ([2, NO_FREELIST, u64::MAX, 9], 56, "18446744073709551615 pages of 512 bytes in a file of 1536"),
        ([0, NO_FREELIST, 3, 9], 32, "the root bucket begins at page 0"),
        ([3, NO_FREELIST, 3, 9], 32, "the root bucket begins at page 3"),
        ([2, 1, 3, 9], 48, "the freelist is page 1"),
        ([2, 3, 3, 9], 48, "the freelist is page 3"),
    ];
    for (fields, offset, what) in faults {
        let second = meta(1, SIZE as u32, fields);
        assert_eq!(fault(&with(&good(1), &second)), (1, SIZE as u64 + offset, what.to_owned()));
        let first = meta(0, SIZE as u32, fields);
        assert_eq!(fault(&with(&first, &good(1))), (0, offset, what.to_owned()));
    }
    // What no reader needs is looked at by a check.
    let mut header = good(1);
    header[8] = 2;
    assert!(open(&with(&header, &good(1))).unwrap().root().get(b"k").unwrap().is_some());
    assert_eq!(fault(&with(&header, &good(1))).2, "the meta page has the number 0 and flags 0x0002");
}

/// The second meta page is found without the first, whatever the page size.
#[test]
fn page_sizes_without_the_first_meta_page() {
    for shift in 9..25 {
        let size: usize = 1 << shift;
        let mut file = vec![0; 3 * size];
        file[..80].copy_from_slice(&meta(0, size as u32, [2, NO_FREELIST, 3, 2]));
        file[size..size + 80].copy_from_slice(&meta(1, size as u32, [2, NO_FREELIST, 3, 1]));
        let root = leaf(2, &[(0, b"k", b"v")]);
        file[2 * size..2 * size + root.len()].copy_from_slice(&root);
        for lost in [false, true] {
            file[16] ^= u8::from(lost);
            let reader = open(&file).unwrap();
            assert_eq!((reader.page_size() as usize, reader.lost_meta().is_some()), (size, lost));
            assert_eq!(reader.root().get(b"k").unwrap().unwrap(), b"v");
        }
    }
}

/// A crash while the newest meta page was written leaves the state before it, whole.
#[test]
fn the_state_before_the_last_transaction() {
    let file = unpack(NESTED);
    let reader = open(&file).unwrap();
    let (newest, txid) = (dump(&reader), reader.txid());
    let mut torn = file.clone();
    torn[(txid % 2) as usize * 1024 + 70] ^= 1;
    let reader = open(&torn).unwrap();
    assert_eq!(reader.txid(), txid - 1);
    assert!(reader.lost_meta().unwrap().ends_with("the checksum does not match"));
    assert_ne!(dump(&reader), newest);
    assert!(reader.check().unwrap().pairs > 0);
}

/// A file that ends early is refused when it is opened, at every length; what is behind the last page is not looked at.
#[test]
fn truncated() {
    for file in [write(SIZE as u32, &small_buckets()), unpack(SNAPSHOT_3_7)] {
        let reader = open(&file).unwrap();
        let whole = (reader.pages() * u64::from(reader.page_size())) as usize;
        let (page_size, pages) = (reader.page_size(), reader.pages());
        for len in (0..whole).step_by(if whole > 20_000 { 97 } else { 1 }) {
            let error = open(&file[..len]).map(drop).unwrap_err().to_string();
            let no_meta = "db is no database file: meta page 0: the file ends before it; meta page 1: ";
            let short = format!("{pages} pages of {page_size} bytes in a file of {len}");
            assert!(
                if len < 80 { error.starts_with(no_meta) } else { error.ends_with(&short) },
                "{len}: {error}"
            );
        }
        let mut longer = file[..whole].to_vec();
        for more in 1..40 {
            longer.push(more);
            assert_eq!(dump(&open(&longer).unwrap()), dump(&reader));
        }
    }
}

/// A file that is cut while it is open, and a cursor that has failed.
#[test]
fn reads_that_fail() {
    let fs = MemFs::new();
    let file = write(SIZE as u32, &small_buckets());
    fs.put("db", &file).unwrap();
    let reader = Reader::open(&fs, Path::new("db")).unwrap();
    fs.put("db", &file[..SIZE * 3]).unwrap();
    let mut cursor = reader.root().cursor();
    let error = cursor.next().unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().starts_with("read db: "), "{error}");
    assert!(matches!(cursor.next(), Err(Error::CursorFailed)));
    assert!(matches!(cursor.seek(b"one"), Err(Error::CursorFailed)));
    assert!(matches!(reader.check(), Err(Error::Io { .. })));
    assert!(matches!(reader.get(b"one", b"k"), Err(Error::Io { .. })));
    let error = Reader::open(&fs, Path::new("none")).map(drop).unwrap_err();
    assert!(error.to_string().starts_with("open none: "), "{error}");
}
