//! Feeds the fuzz targets seeded inputs.

use disk::boltfile::{fuzz_boltfile, fuzz_boltfile_pairs};

use crate::golden::{ETCD_3_4, NESTED, SNAPSHOT_3_7};
use crate::harness::{Rng, random_buckets, seeds, small_buckets, write};
use crate::packed::unpack;

#[test]
fn seeded_files() {
    // The first byte gives the size of the pages and says that the meta pages are to be set right.
    let mut valid: Vec<(u8, Vec<u8>)> = vec![
        (1, write(512, &small_buckets())),
        (3, unpack(NESTED)),
        (7, unpack(SNAPSHOT_3_7)),
        (7, unpack(ETCD_3_4)),
    ];
    for seed in 0..4 {
        let mut rng = Rng(seed);
        let mut buckets = random_buckets(&mut rng, 512);
        buckets.retain(|_, pairs| pairs.len() < 500);
        valid.push((1, write(512, &buckets)));
    }
    let (mut sound, mut unsound) = (0, 0);
    for seed in seeds(3000) {
        let mut rng = Rng(seed);
        let (how, file) = &valid[rng.below(valid.len() as u64) as usize];
        let mut data = [&[*how & if rng.below(8) > 0 { 0xff } else { 0xfe }][..], file].concat();
        if rng.below(20) == 0 {
            let len = rng.below(9000);
            data = rng.bytes(len);
        }
        for _ in 0..rng.below(4) {
            if data.len() < 2 {
                break;
            }
            let at = 1 + rng.below(data.len() as u64 - 1) as usize;
            // Most of a file is data; headers and tables are what is interesting.
            let page = 512 << (*how >> 1 & 7);
            let at =
                if rng.below(2) == 0 { at } else { 1 + (at - 1) / page * page + rng.below(120) as usize };
            if at >= data.len() {
                continue;
            }
            match rng.below(5) {
                0 => data[at] ^= 1 << rng.below(8),
                1 => data[at] = rng.next() as u8,
                2 if rng.below(4) == 0 => data.truncate(at),
                _ => {
                    let small = rng.below(40);
                    let value = [0, 1, small, small, u64::MAX, rng.below(5000)][rng.below(6) as usize];
                    let len = [2, 4, 8][rng.below(3) as usize];
                    for (byte, value) in data[at..].iter_mut().zip(value.to_le_bytes()).take(len) {
                        *byte = value;
                    }
                }
            }
        }
        if fuzz_boltfile(&data) {
            sound += 1;
        } else {
            unsound += 1;
        }
    }
    assert!(sound > 500 && unsound > 500 || std::env::var("BOLTFILE_SEEDS").is_ok(), "{sound} and {unsound}");
}

#[test]
fn seeded_pairs() {
    for seed in seeds(300) {
        let mut rng = Rng(seed);
        let mut data = Vec::new();
        for _ in 0..rng.below(300) {
            let key_len = if rng.below(60) == 0 { 0 } else { 1 + rng.below(255) as u8 };
            let longest = [10, 100, 3000][rng.below(3) as usize];
            let value_len = rng.below(longest) as u16;
            data.push(key_len);
            data.extend(value_len.to_le_bytes());
            data.push(rng.next() as u8);
            data.extend(rng.bytes(key_len.into()));
        }
        fuzz_boltfile_pairs(&data);
        let len = rng.below(300);
        fuzz_boltfile_pairs(&rng.bytes(len));
    }
}
