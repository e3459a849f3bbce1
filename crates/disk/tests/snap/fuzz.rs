//! The fuzz target of the decoder, fed with seeded inputs; cargo-fuzz feeds it the rest.

use disk::snap::fuzz_snap;

use super::*;

/// The same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[test]
fn seeded_inputs() {
    let file = snapshot(2, 300).encode();
    let message = &file[file.iter().position(|byte| *byte == 0x0a).unwrap()..];
    assert!(fuzz_snap(&[&[0], &file[..]].concat()), "a whole file");
    assert!(fuzz_snap(&[&[1], message].concat()), "its message");
    let mut read = 0;
    for seed in 0..20_000 {
        let mut random = Random(seed);
        let choice = random.below(2);
        let mut input = vec![choice as u8];
        input.extend_from_slice(if choice == 1 { message } else { &file });
        for _ in 0..random.below(3) {
            let at = 1 + random.below(input.len() as u64 - 1) as usize;
            match random.below(4) {
                0 => input.truncate(at + 1),
                1 => input[at] = random.below(256) as u8,
                2 => input[at] ^= 1 << random.below(8),
                _ => input.insert(at, random.below(256) as u8),
            }
        }
        read += u64::from(fuzz_snap(&input));
    }
    assert!(read > 5_000, "only {read} inputs were snapshots");
}
