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
const FLAG_ACK: u8 = 0x1;

/// A frame that somebody outside the codec cares about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Part of a message.
    Data,
    /// The beginning of a call, or of its trailers.
    Headers,
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
}

impl FrameScanner {
    /// For what a client sends.
    pub fn inbound() -> Self {
        FrameScanner { header: [0; HEADER_BYTES], header_len: 0, skip: PREFACE_BYTES }
    }

    /// For what a server sends.
    pub fn outbound() -> Self {
        FrameScanner { header: [0; HEADER_BYTES], header_len: 0, skip: 0 }
    }

    /// Whether the next byte begins a frame.
    pub fn at_boundary(&self) -> bool {
        self.skip == 0 && self.header_len == 0
    }

    /// Takes the next bytes of the direction, reporting what begins in them.
    pub fn scan(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Seen)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
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
            match kind {
                DATA => seen(Seen::Data),
                HEADERS => seen(Seen::Headers),
                RST_STREAM => seen(Seen::Reset { stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]) }),
                PING if flags & FLAG_ACK == 0 => seen(Seen::Ping),
                _ => {}
            }
        }
    }
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
        frame(DATA, 1, 1, &[0; 300]);
        frame(PING, 0, 0, &[0; 8]);
        frame(PING, FLAG_ACK, 0, &[0; 8]);
        frame(RST_STREAM, 0, 0x8000_0003, &[0; 4]);
        let want = [Seen::Headers, Seen::Data, Seen::Ping, Seen::Reset { stream: 3 }];
        for chunk in 1..bytes.len() {
            let mut scanner = FrameScanner::inbound();
            let mut got = Vec::new();
            for part in bytes.chunks(chunk) {
                scanner.scan(part, |seen| got.push(seen));
            }
            assert_eq!(got, want, "in chunks of {chunk}");
            assert!(scanner.at_boundary());
        }
    }
}
