//! What a server may send, as a plain function over bytes, for tests and fuzzers.

use std::collections::BTreeSet;

use crate::http2::{Connection, Received, Taking};

/// Lets a connection with a few calls open read `data` as a server's bytes, in pieces whose size its first byte tells.
///
/// # Panics
/// If a call is answered twice, or the connection holds or sends more than the bytes can have asked for.
#[doc(hidden)]
pub fn fuzz_answers(data: &[u8]) {
    const MESSAGE: &[u8] = &[0, 0, 0, 0, 3, 0x0a, 1, b'a'];
    let Some((&how, mut data)) = data.split_first() else { return };
    let mut connection = Connection::new("/etcdserverpb.KV/Range", "x", |message| message.len() > 2);
    let (mut answered, mut ended) = (BTreeSet::new(), BTreeSet::new());
    let mut streams = Vec::new();
    let (total, mut sent, mut written) = (data.len(), 0, Vec::new());
    while !data.is_empty() {
        let mut piece = &data[..data.len().min(usize::from(how) + 1)];
        let Ok(count) = connection.fill(&mut piece) else { return };
        data = &data[count..];
        let received = connection.receive(|received| match received {
            Received::Answer(answer) => assert!(answered.insert(answer.sent_at_ns), "answered twice"),
            Received::Message { stream, .. } => {
                assert_eq!(Some(stream), streams.first().copied(), "it is told")
            }
            Received::Ended { stream, .. } => assert!(ended.insert(stream), "ended twice"),
        });
        if received.is_err() {
            return;
        }
        // One stream that is told, and one that is counted.
        while streams.len() < 2 && connection.can_send(MESSAGE.len()) {
            let taking = if streams.is_empty() { Taking::Messages } else { Taking::Count };
            let stream = connection.open_stream("/etcdserverpb.Watch/Watch", taking);
            connection.write(stream, MESSAGE, false);
            streams.push(stream);
        }
        while sent < 20 && connection.can_send(MESSAGE.len()) {
            connection.send(sent, MESSAGE);
            sent += 1;
        }
        let open = sent as usize - answered.len() + streams.len() - ended.len();
        assert_eq!(connection.open(), open);
        connection.flush(&mut written).expect("a vector takes all");
    }
    // A frame has nine bytes and asks for at most as many as it has; what we say ourselves is below 500 a call.
    assert!(written.len() <= total + 500 * 23, "{} bytes for {total}", written.len());
}

#[cfg(test)]
mod tests {
    use super::fuzz_answers;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn seeded_inputs() {
        let good = [
            frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]),
            frame(1, 4, 1, &[0x88, 0x5f, 1, b'x']),
            frame(0, 0, 1, &[0, 0, 0, 0, 3, 0x0a, 1, b'a']),
            // grpc-status: 0, indexed.
            frame(1, 5, 1, &[[0x40, 11].as_slice(), b"grpc-status", &[1, b'0']].concat()),
            frame(6, 0, 0, &[7; 8]),
            frame(1, 5, 3, &[0xbe]),
            frame(3, 0, 5, &[0, 0, 0, 8]),
            frame(1, 1, 7, &[0xbe]),
            frame(9, 4, 7, &[0xbe]),
            frame(7, 0, 0, &[0; 12]),
        ];
        let mut state = 0x5eed_u64;
        let mut below = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        for _ in 0..20_000 {
            let mut input = vec![below(256) as u8];
            input.extend(good.iter().take(1 + below(10) as usize).flatten());
            for _ in 0..below(4) {
                let at = 1 + below(input.len() as u64 - 1) as usize;
                match below(3) {
                    0 => input.truncate(at + 1),
                    1 => input[at] = below(256) as u8,
                    _ => input[at] ^= 1 << below(8),
                }
            }
            fuzz_answers(&input);
        }
    }

    /// A frame size that no server may choose would cut a message into pieces of nothing, for ever.
    #[test]
    fn a_frame_size_of_zero_is_refused() {
        fuzz_answers(&[[255].as_slice(), &frame(4, 0, 0, &[0, 5, 0, 0, 0, 0])].concat());
    }
}
