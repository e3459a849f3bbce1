//! The fuzz target of the decoder, fed with seeded inputs; cargo-fuzz feeds it the rest.

use disk::wal::fuzz::fuzz_wal;

use super::*;

#[test]
fn seeded_inputs() {
    let fs = machine();
    let mut wal = create(&fs, b"meta");
    for index in 1..20 {
        append(
            &mut wal,
            &[entry(1, index, vec![index as u8; index as usize * 9])],
            Some(state(1, index - 1)),
        );
    }
    drop(wal);
    let files = fs.files();
    let valid = [fs.read(&files[0]).unwrap(), fs.read(&files[1]).unwrap()];
    for seed in 0..4000 {
        let mut random = Random(seed);
        let mut input = vec![[0, 127, 255][random.below(3) as usize]];
        match random.below(4) {
            0 => input.extend((0..random.below(600)).map(|_| random.next() as u8)),
            1 => input.extend_from_slice(&valid[0]),
            _ => input.extend_from_slice(&valid.concat()),
        }
        for _ in 0..random.below(5) {
            let at = 1 + random.below(input.len() as u64) as usize;
            match random.below(4) {
                0 => input.truncate(at),
                1 => input[at.min(1)..].iter_mut().step_by(at).for_each(|byte| *byte = random.next() as u8),
                2 if at < input.len() => input[at] ^= 1 << random.below(8),
                3 => {
                    let end = (at + random.below(1000) as usize).min(input.len());
                    input[at.min(end)..end].fill(0);
                }
                _ => {}
            }
        }
        fuzz_wal(&input);
    }
}
