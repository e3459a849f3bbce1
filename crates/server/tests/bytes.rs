//! The functions that cargo-fuzz feeds, fed with a fixed number of seeded inputs.
#![allow(missing_docs, reason = "tests")]

mod support;

use support::fuzz::{fuzz_http2, fuzz_port};

/// A small generator, so that a seed means the same run for years.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("QUORATE_SEED").map_or(0x5eed, |seed| seed.parse().expect("QUORATE_SEED"));
        println!("QUORATE_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }
}

#[test]
fn no_frames_break_the_connection() {
    let mut random = Random::new();
    for _ in 0..1500 {
        let mut input = vec![random.byte() | 1];
        for _ in 0..random.below(12) {
            let message = [0x0a, 1, b'a', 0x12, 1, b'b'];
            let payload = if random.below(2) == 0 {
                message[..random.below(7) as usize].to_vec()
            } else {
                (0..random.below(12)).map(|_| random.byte()).collect()
            };
            let kind = if random.below(2) == 0 { 16 + random.below(16) } else { random.below(11) };
            let flags = [0, 1, 4, 5, 8, 32, 255][random.below(7) as usize];
            let stream = [0, 1, 3, 5, 7, 2, 255][random.below(7) as usize];
            input.extend([kind as u8, flags, stream, payload.len() as u8]);
            input.extend(payload);
        }
        fuzz_http2(&input);
    }
}

#[test]
fn no_first_bytes_break_the_port() {
    const GOOD: [&[u8]; 4] = [
        b"GET /health?exclude=NOSPACE HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"POST /health HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let mut random = Random::new();
    let mut well = 0;
    for round in 0..3000 {
        let mut input = vec![random.byte()];
        input.extend_from_slice(GOOD[random.below(4) as usize]);
        for _ in 0..if round < 20 { 0 } else { random.below(4) } {
            let at = 1 + random.below(input.len() as u64 - 1) as usize;
            match random.below(3) {
                0 => input.truncate(at + 1),
                1 => input[at] = random.byte(),
                _ => input.insert(at, b"%? \r\n:&"[random.below(7) as usize]),
            }
        }
        well += u64::from(fuzz_port(&input).starts_with(b"HTTP/1.1 200"));
    }
    assert!(well > 0, "no request was answered");
}
