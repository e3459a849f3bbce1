//! HTTP/2 frame boundaries, seen from outside the codec.
//!
//! The `h2` crate tells neither of inbound pings nor which stream a client has reset; both stand in the frame
//! headers. Payloads are skipped unread.

/// Length of a frame's header, bytes.
const HEADER_BYTES: usize = 9;
/// What a client sends before its first frame.
const PREFACE_BYTES: usize = 24;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const PING: u8 = 0x6;
const CONTINUATION: u8 = 0x9;
const FLAG_ACK: u8 = 0x1;

/// A frame that somebody outside the codec cares about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A frame of a call, DATA or headers, has come whole: only then the codec decodes it.
    Whole {
        /// The stream.
        stream: u32,
    },
    /// The beginning of a call.
    Headers {
        /// Where the frame's payload begins in the bytes that were given.
        at: usize,
        /// Bytes of the payload.
        length: usize,
        /// The frame's flags.
        flags: u8,
    },
    /// Headers of a stream that has begun, or can begin no more.
    Trailers,
    /// The end of a call, by its client.
    Reset {
        /// The stream.
        stream: u32,
    },
    /// A ping that is no answer to ours.
    Ping,
}

/// Follows the frames of one direction of a connection.
#[derive(Debug)]
pub struct FrameScanner {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    /// Bytes of the current frame's payload, or of the preface, still to come.
    skip: usize,
    /// The current frame's stream, if it is one of a call.
    call: Option<u32>,
    /// The newest stream.
    newest: u32,
}

impl FrameScanner {
    /// For what a client sends.
    pub fn inbound() -> Self {
        FrameScanner { skip: PREFACE_BYTES, ..FrameScanner::outbound() }
    }

    /// For what a server sends.
    pub fn outbound() -> Self {
        FrameScanner { header: [0; HEADER_BYTES], header_len: 0, skip: 0, call: None, newest: 0 }
    }

    /// Whether the next byte begins a frame.
    pub fn at_boundary(&self) -> bool {
        self.skip == 0 && self.header_len == 0
    }

    /// Takes the next bytes of the direction, reporting what begins in them, and which frames of calls end.
    pub fn scan(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Seen)) {
        let total = bytes.len();
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                if self.skip == 0
                    && let Some(stream) = self.call.take()
                {
                    seen(Seen::Whole { stream });
                }
                continue;
            }
            let taken = (HEADER_BYTES - self.header_len).min(bytes.len());
            self.header[self.header_len..self.header_len + taken].copy_from_slice(&bytes[..taken]);
            self.header_len += taken;
            bytes = &bytes[taken..];
            if self.header_len < HEADER_BYTES {
                return;
            }
            self.header_len = 0;
            let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.header;
            self.skip = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
            match kind {
                HEADERS if stream <= self.newest => seen(Seen::Trailers),
                HEADERS => {
                    self.newest = stream;
                    seen(Seen::Headers { at: total - bytes.len(), length: self.skip, flags });
                }
                RST_STREAM => seen(Seen::Reset { stream }),
                PING if flags & FLAG_ACK == 0 => seen(Seen::Ping),
                _ => {}
            }
            if matches!(kind, DATA | HEADERS | CONTINUATION) {
                match self.skip {
                    0 => seen(Seen::Whole { stream }),
                    _ => self.call = Some(stream),
                }
            }
        }
    }
}

/// Makes an `:authority` that is a URL or a path an ordinary `host`, in place: `payload` is that of a connection's
/// first HEADERS frame.
///
/// Clients of etcd 3.4 send such ones (a path for unix sockets), which Go's server takes and the `h2` crate resets.
/// Nothing here reads the authority. Those clients write it last of the pseudo-headers, so an ordinary field may stand
/// in its place. It is the first field of its kind and goes into the codec's dynamic table, so later requests that
/// refer to it find a `host` too. One byte changes: the index of the field's name in HPACK's static table. A block
/// that is cut, or that does not index the field, is left alone.
pub fn relabel_authority(payload: &mut [u8], flags: u8) {
    const PADDED: u8 = 0x8;
    const PRIORITY: u8 = 0x20;
    /// `http:` and `https:` in HPACK's Huffman code, as far as they fill whole bytes.
    const HTTP_HUFFMAN: &[u8] = &[0x9d, 0x29, 0xae];
    const HTTPS_HUFFMAN: &[u8] = &[0x9d, 0x29, 0xad, 0x17];
    const AUTHORITY_INDEXED: u8 = 0x41;
    const HOST_INDEXED: u8 = 0x66;
    let mut at = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    while let Some(&first) = payload.get(at) {
        if first == AUTHORITY_INDEXED {
            let Some((_, value)) = hpack_integer(payload, at + 1, 7) else { return };
            let is_huffman = payload[at + 1] & 0x80 != 0;
            let Some(rest) = payload.get(value..) else { return };
            let is_foreign = if is_huffman {
                // A slash is the six bits 011000.
                rest.first().is_some_and(|byte| byte >> 2 == 0b01_1000)
                    || rest.starts_with(HTTP_HUFFMAN)
                    || rest.starts_with(HTTPS_HUFFMAN)
            } else {
                [&b"/"[..], b"http:", b"https:"].iter().any(|start| rest.starts_with(start))
            };
            if is_foreign {
                payload[at] = HOST_INDEXED;
            }
            return;
        }
        // RFC 7541, section 6: an indexed field, a size update, or a literal with or without indexing.
        let (prefix_bits, is_literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let Some((name, next)) = hpack_integer(payload, at, prefix_bits) else { return };
        at = next;
        let strings = if is_literal { 1 + usize::from(name == 0) } else { 0 };
        for _ in 0..strings {
            let Some((length, next)) = hpack_integer(payload, at, 7) else { return };
            at = next.saturating_add(length);
        }
    }
}

/// An integer of RFC 7541, section 5.1, and where the next thing begins; `None` if it is cut or absurd.
fn hpack_integer(bytes: &[u8], at: usize, prefix_bits: u32) -> Option<(usize, usize)> {
    let limit = (1 << prefix_bits) - 1;
    let mut value = usize::from(*bytes.get(at)?) & limit;
    let mut next = at + 1;
    if value < limit {
        return Some((value, next));
    }
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*bytes.get(next)?);
        next += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, next));
        }
    }
    None
}

/// A whole GOAWAY frame: ENHANCE_YOUR_CALM with gRPC's text for a client that pings too often. The last stream
/// is given as the highest possible one, as gRPC's Go server does when it cuts a connection.
pub fn too_many_pings() -> Vec<u8> {
    const TEXT: &[u8] = b"too_many_pings";
    const GOAWAY: u8 = 0x7;
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    let length = (8 + TEXT.len()) as u8;
    let mut frame = vec![0, 0, length, GOAWAY, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&0x7fff_ffff_u32.to_be_bytes());
    frame.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend_from_slice(TEXT);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same frames are seen however the bytes are cut.
    #[test]
    fn any_cut_of_the_bytes_shows_the_same_frames() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
            bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
            bytes.extend_from_slice(&[kind, flags]);
            bytes.extend_from_slice(&stream.to_be_bytes());
            bytes.extend_from_slice(payload);
        };
        frame(4, 0, 0, b"");
        frame(HEADERS, 4, 1, b"headers");
        frame(DATA, 1, 0x8000_0001, &[0; 300]);
        frame(DATA, 1, 5, b"");
        frame(PING, 0, 0, &[0; 8]);
        frame(PING, FLAG_ACK, 0, &[0; 8]);
        frame(RST_STREAM, 0, 0x8000_0003, &[0; 4]);
        let want = [
            Seen::Headers { at: 0, length: 7, flags: 4 },
            Seen::Whole { stream: 1 },
            Seen::Whole { stream: 1 },
            Seen::Whole { stream: 5 },
            Seen::Ping,
            Seen::Reset { stream: 3 },
        ];
        for chunk in 1..bytes.len() {
            let mut scanner = FrameScanner::inbound();
            let mut got = Vec::new();
            for part in bytes.chunks(chunk) {
                // Where the payload begins depends on the cut.
                scanner.scan(part, |seen| {
                    got.push(match seen {
                        Seen::Headers { length, flags, .. } => Seen::Headers { at: 0, length, flags },
                        other => other,
                    });
                });
            }
            assert_eq!(got, want, "in chunks of {chunk}");
            assert!(scanner.at_boundary());
        }
    }

    #[test]
    fn a_frame_is_whole_with_its_last_byte() {
        let mut scanner = FrameScanner::outbound();
        let mut seen = Vec::new();
        for (bytes, whole) in [(&[0, 0, 2, DATA, 0, 0, 0, 0, 7][..], 0), (b"a", 0), (b"b", 1), (b"\0", 1)] {
            scanner.scan(bytes, |frame| seen.push(frame));
            assert_eq!(seen.len(), whole);
        }
        assert_eq!(seen, [Seen::Whole { stream: 7 }]);
    }

    #[test]
    fn headers_of_a_stream_that_has_begun_are_trailers() {
        let mut scanner = FrameScanner::outbound();
        let mut seen = Vec::new();
        for stream in [1, 5, 3, 5, 7] {
            scanner.scan(&[0, 0, 0, HEADERS, 4, 0, 0, 0, stream], |frame| seen.push(frame == Seen::Trailers));
        }
        let with_end_of_frame = |trailers| [trailers, false];
        assert_eq!(seen, [false, false, true, true, false].map(with_end_of_frame).concat());
    }

    #[test]
    fn the_first_authority_becomes_a_host_and_nothing_else_changes() {
        // :method POST, :scheme http, :path literal with indexing, :authority literal with indexing, te literal.
        let mut block = vec![0x83, 0x86, 0x45, 3, b'/', b'a', b'b', 0x41, 8];
        block.extend_from_slice(b"http://x");
        block.extend_from_slice(&[0x40, 2, b't', b'e', 1, b'q']);
        for (flags, front) in [(4, &[][..]), (4 | 8, &[0][..]), (4 | 0x20, &[0; 5][..])] {
            let mut payload = [front, &block].concat();
            let before = payload.clone();
            relabel_authority(&mut payload, flags);
            let changed: Vec<usize> = (0..payload.len()).filter(|at| payload[*at] != before[*at]).collect();
            assert_eq!(changed, [front.len() + 7]);
            assert_eq!(
                payload[front.len() + 7],
                0x66,
                "literal with indexing, name 38 of the static table: host"
            );
        }
    }

    #[test]
    fn paths_are_foreign_in_either_coding_and_addresses_are_not() {
        let relabels = |value: &[u8], huffman: u8| {
            let mut block = vec![0x83, 0x41, value.len() as u8 | huffman];
            block.extend_from_slice(value);
            relabel_authority(&mut block, 4);
            block[1] == 0x66
        };
        assert!(relabels(b"/tmp/x/sock", 0));
        // "/t" is 011000 01001, "ab" is 00011 100011; the rest is padding.
        assert!(relabels(&[0b0110_0001, 0b0011_1111], 0x80));
        assert!(!relabels(&[0b0001_1100, 0b0111_1111], 0x80));
        assert!(!relabels(b"127.0.0.1:2379", 0));
        assert!(!relabels(b"", 0));
    }

    #[test]
    fn no_block_makes_the_walk_panic() {
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut block = Vec::new();
            for _ in 0..state % 40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                block.push((state >> 56) as u8 & if state & 1 == 0 { 0xff } else { 0x4f });
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let before = block.clone();
            relabel_authority(&mut block, (state >> 48) as u8);
            let changed = block.iter().zip(&before).filter(|(a, b)| a != b).count();
            assert!(changed <= 1, "{before:x?} became {block:x?}");
        }
    }
}
