//! The fuzz target of the decoder, fed with seeded inputs; cargo-fuzz feeds it the rest.

use disk::wal::fuzz::{fuzz_wal, fuzz_wal_records};

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

/// Records that make a log, mostly, with fields at their edges.
#[test]
fn seeded_records() {
    let mut opened = 0;
    for seed in 0..4000 {
        let mut random = Random(seed);
        let number = |random: &mut Random| match random.below(8) {
            0 => u64::MAX - random.below(2),
            1 => random.next() >> random.below(64),
            _ => random.below(6),
        };
        let mut input = vec![4, 1, 1, b'm', 5, 4, 8, 0, 16, 0];
        let (mut index, mut term) = (0, 1);
        for _ in 0..random.below(12) {
            let mut data = Vec::new();
            let kind = match random.below(8) {
                0..4 => {
                    (index, term) = (index + 1, term + random.below(2));
                    if random.below(4) == 0 {
                        (index, term) = (number(&mut random), number(&mut random));
                    }
                    field(&mut data, 0x10, term);
                    field(&mut data, 0x18, index);
                    2
                }
                4 => {
                    field(&mut data, 0x08, term);
                    field(&mut data, 0x18, random.below(index.clamp(1, u64::MAX - 1) + 1));
                    3
                }
                5 => {
                    field(&mut data, 0x08, number(&mut random));
                    field(&mut data, 0x18, number(&mut random));
                    3
                }
                6 => {
                    let at = if random.below(2) == 0 { index } else { number(&mut random) };
                    field(&mut data, 0x08, at);
                    field(&mut data, 0x10, term);
                    5
                }
                _ => {
                    input.extend([0, 4]);
                    data.push(b'm');
                    1
                }
            };
            input.extend([kind, data.len() as u8]);
            input.extend(data);
            index = index.min(u64::MAX - 1);
            term = term.min(u64::MAX - 1);
        }
        if random.below(8) == 0 {
            let at = random.below(input.len() as u64) as usize;
            input[at] = random.next() as u8;
        }
        opened += u64::from(fuzz_wal_records(&input));
    }
    assert!(opened > 200, "only {opened} inputs were logs");
}

fn field(data: &mut Vec<u8>, tag: u8, mut value: u64) {
    data.push(tag);
    while value >= 0x80 {
        data.push(value as u8 | 0x80);
        value >>= 7;
    }
    data.push(value as u8);
}

/// The highest index there is, in every place where an index stands: sums of it must not overflow.
#[test]
fn the_highest_index() {
    let head = [4, 1, 1, b'm', 5, 4, 8, 0, 16, 0];
    let record = |kind: u8, fields: &[(u8, u64)]| {
        let mut data = Vec::new();
        fields.iter().for_each(|(tag, value)| field(&mut data, *tag, *value));
        [&[kind, data.len() as u8][..], &data].concat()
    };
    let entry = |index| record(2, &[(0x10, 1), (0x18, index)]);
    let state = |commit| record(3, &[(0x08, 1), (0x18, commit)]);
    let snapshot = |index| record(5, &[(0x08, index), (0x10, 1)]);
    let max = u64::MAX;
    for records in [
        vec![state(max), snapshot(max)],
        vec![entry(1), state(max), snapshot(max)],
        vec![state(max - 1), snapshot(max - 1), entry(max)],
        vec![state(max - 1), snapshot(max - 1), entry(max), state(max)],
        vec![state(max - 1), snapshot(max - 1), entry(max), entry(max)],
    ] {
        fuzz_wal_records(&[&head[..], &records.concat()].concat());
    }
}
