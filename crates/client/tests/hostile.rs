//! What a hostile server sends: the function that cargo-fuzz feeds, fed with a fixed number of seeded inputs.

mod fuzz;

use fuzz::fuzz_answer;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[test]
fn no_answer_breaks_the_client() {
    // A range's answer: one pair, a and x.
    let message = [&[0, 0, 0, 0, 8, 0x12, 6, 0x0a, 1, b'a', 0x2a, 1, b'x'][..]].concat();
    let good = [
        frame(4, 0, 0, &[]),
        frame(1, 4, 1, &[&[0x88, 0x0f, 16, 16][..], b"application/grpc"].concat()),
        frame(0, 0, 1, &message),
        frame(1, 5, 1, &[&[0x40, 11][..], b"grpc-status", &[1, b'0']].concat()),
    ]
    .concat();
    let mut state = 0x5eed_u64;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let mut answered = 0;
    for round in 0..1500 {
        let mut input = good.clone();
        for _ in 0..if round == 0 { 0 } else { below(4) } {
            let at = below(input.len() as u64) as usize;
            match below(3) {
                0 => input.truncate(at + 1),
                1 => input[at] = below(256) as u8,
                _ => input[at] ^= 1 << below(8),
            }
        }
        answered += u64::from(fuzz_answer(&input));
    }
    assert!(answered > 0, "not even the good answer was understood");
}
