//! Feeds the fuzz target seeded inputs.

use disk::MemFs;
use disk::revlog::{Limits, fuzz_revlog};

use crate::harness::{Log, Rng, seeds};

#[test]
fn seeded_inputs() {
    let valid: Vec<Vec<u8>> = (0..8)
        .map(|seed| {
            let fs = MemFs::new();
            let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
            let mut rng = Rng(seed);
            for _ in 0..=seed {
                log.random_frame(&mut rng);
                log.write_all().unwrap();
                log.sync().unwrap();
            }
            fs.read("member/rev/00000001.seg").unwrap()
        })
        .collect();
    for seed in seeds(4000) {
        let mut rng = Rng(seed);
        let mut data = vec![rng.below(8) as u8 & if rng.below(4) > 0 { 1 } else { 7 }];
        match rng.below(8) {
            0 => {
                let len = rng.below(3000) as usize;
                data.extend(rng.bytes(len));
            }
            _ => data.extend(&valid[rng.below(8) as usize]),
        }
        for _ in 0..rng.below(5) {
            let at = 1 + rng.below(data.len() as u64 - 1 + u64::from(data.len() == 1)) as usize;
            if at >= data.len() {
                continue;
            }
            match rng.below(4) {
                0 => data[at] ^= 1 << rng.below(8),
                1 => data[at] = rng.next() as u8,
                2 => data.truncate(at),
                _ => {
                    let value =
                        [0, 1, 7, u64::from(u32::MAX), u64::MAX, rng.below(4096)][rng.below(6) as usize];
                    for (byte, value) in data[at..].iter_mut().zip(value.to_le_bytes()) {
                        *byte = value;
                    }
                }
            }
        }
        fuzz_revlog(&data);
    }
}
