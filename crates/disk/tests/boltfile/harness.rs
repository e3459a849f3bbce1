//! Files in memory, made of buckets and pairs, and taken apart again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use disk::MemFs;
use disk::boltfile::{Bucket, Error, Planner, Reader, Writer};

pub type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;
pub type Buckets = BTreeMap<Vec<u8>, Pairs>;

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// The seeds of a test: `BOLTFILE_SEEDS=from..to`, or the first `count`. Each is printed as it begins.
pub fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let given = std::env::var("BOLTFILE_SEEDS").unwrap_or_else(|_| format!("0..{count}"));
    let (from, to) = given.split_once("..").expect("BOLTFILE_SEEDS=from..to");
    let seeds = from.parse().expect("a number")..to.parse().expect("a number");
    seeds.inspect(|seed: &u64| println!("BOLTFILE_SEEDS={seed}..{}", seed + 1))
}

/// Buckets as etcd has them and as it has not: few or thousands of pairs, empty values, values of up to three pages.
pub fn random_buckets(rng: &mut Rng, page_size: u32) -> Buckets {
    let mut buckets = Buckets::new();
    for _ in 0..rng.below(6) {
        let mut pairs = Pairs::new();
        let count = match rng.below(4) {
            0 => rng.below(3),
            1 => rng.below(40),
            2 => rng.below(400),
            _ => rng.below(5000),
        };
        let (key_max, value_max) = (1 + rng.below(60), [0, 30, 300, 900][rng.below(4) as usize]);
        for _ in 0..count {
            let len = 1 + rng.below(key_max);
            let value_len = match rng.below(200) {
                0 => rng.below(3 * u64::from(page_size)),
                1 => 0,
                _ => rng.below(value_max + 1),
            };
            pairs.insert(rng.bytes(len), vec![rng.next() as u8; value_len as usize]);
        }
        let len = 1 + rng.below(10);
        buckets.insert(rng.bytes(len), pairs);
    }
    buckets
}

/// The file of these buckets; its length is the one that was planned.
pub fn write(page_size: u32, buckets: &Buckets) -> Vec<u8> {
    let mut planner = Planner::new(page_size).unwrap();
    for (name, pairs) in buckets {
        planner.bucket(name).unwrap();
        for (key, value) in pairs {
            planner.pair(key.len(), value.len()).unwrap();
        }
    }
    let plan = planner.finish();
    let len = plan.file_len();
    let mut file = Vec::new();
    let mut writer = Writer::new(plan, |bytes: &[u8]| {
        file.extend_from_slice(bytes);
        Ok(())
    })
    .unwrap();
    for (name, pairs) in buckets {
        writer.bucket(name).unwrap();
        for (key, value) in pairs {
            writer.pair(key, value).unwrap();
        }
    }
    let _sink = writer.finish().unwrap();
    assert_eq!(file.len() as u64, len);
    file
}

pub fn open(file: &[u8]) -> Result<Reader, Error> {
    let fs = MemFs::new();
    fs.put("db", file).unwrap();
    Reader::open(&fs, Path::new("db"))
}

/// All pairs of a file without buckets in buckets.
pub fn read(reader: &Reader) -> Result<Buckets, Error> {
    let mut buckets = Buckets::new();
    let mut names = reader.root().cursor();
    while let Some(item) = names.next()? {
        assert_eq!(item.value, None, "a pair beside the buckets");
        let name = item.key.to_vec();
        let mut pairs = Pairs::new();
        let mut cursor = names.bucket()?.cursor();
        while let Some(item) = cursor.next()? {
            pairs.insert(item.key.to_vec(), item.value.expect("no bucket in a bucket").to_vec());
        }
        buckets.insert(name, pairs);
    }
    Ok(buckets)
}

/// The whole file as the golden texts have it, which a program of bbolt wrote.
pub fn dump(reader: &Reader) -> String {
    let mut out = String::new();
    dump_bucket(&mut out, &reader.root(), 0);
    out
}

fn dump_bucket(out: &mut String, bucket: &Bucket<'_>, depth: usize) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut cursor = bucket.cursor();
    while let Some(item) = cursor.next().unwrap() {
        let key = hex(item.key);
        match item.value {
            Some(value) if value.len() > 200 => {
                let (len, crc) = (value.len(), crc32c::crc32c(value));
                writeln!(out, "{:1$}{key} = {len} bytes, crc32c {crc:08x}", "", depth * 2).unwrap();
            }
            Some(value) => writeln!(out, "{:1$}{key} = {2}", "", depth * 2, hex(value)).unwrap(),
            None => {
                let inner = cursor.bucket().unwrap();
                writeln!(out, "{:1$}bucket {key} sequence {2}", "", depth * 2, inner.sequence()).unwrap();
                dump_bucket(out, &inner, depth + 1);
            }
        }
    }
}

/// The pages of a file that begin something, read without the code under test: number, flags, count, overflow.
pub fn pages(file: &[u8], page_size: usize) -> Vec<(u64, u16, u16, u32)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let page = &file[at..];
        let number = u64::from_le_bytes(page[..8].try_into().unwrap());
        let [flags, count] = [8, 10].map(|at| u16::from_le_bytes([page[at], page[at + 1]]));
        let overflow = u32::from_le_bytes(page[12..16].try_into().unwrap());
        assert_eq!(number, (at / page_size) as u64, "page numbers ascend");
        found.push((number, flags, count, overflow));
        at += (overflow as usize + 1) * page_size;
    }
    found
}

/// Two buckets whose pages have every form: branches over branches, overflow, an empty value, an empty bucket.
pub fn small_buckets() -> Buckets {
    let mut one = Pairs::new();
    for n in 0..60_u8 {
        let value = match n {
            7 => Vec::new(),
            20 => vec![0xaa; 900],
            21 => vec![0xbb; 1300],
            _ => vec![n | 0x80; usize::from(n % 20)],
        };
        one.insert([b"a key ", &[n; 60][..]].concat(), value);
    }
    let two = Pairs::from([(b"k".to_vec(), b"value".to_vec()), (b"l".to_vec(), b"other".to_vec())]);
    Buckets::from([(b"empty".to_vec(), Pairs::new()), (b"one".to_vec(), one), (b"two".to_vec(), two)])
}
