//! The decoders as plain functions over bytes, for tests and fuzzers.

use bytes::Bytes;
use raft::NodeId;

use super::{
    AppendDecoder, AppendEncoder, DecodeError, Decoded, Encoder, MessageDecoder, Output, decode,
    encode_heartbeat, encode_message,
};

/// Small enough to be met.
const LIMIT: u64 = 1 << 20;

/// Reads `data` as a stream: the first byte says, by its lowest bit, of which kind (1: msgapp), and by the rest in pieces
/// of which size it comes. What is read whole must be the same, and what was read is written and read again. Answers how
/// many frames there were.
///
/// # Panics
/// If a frame reads differently the second time.
#[doc(hidden)]
pub fn fuzz_peer_stream(data: &[u8]) -> usize {
    let Some((&how, data)) = data.split_first() else { return 0 };
    let data = Bytes::copy_from_slice(data);
    let piece = match usize::from(how >> 1) {
        0 => data.len().max(1),
        size => size,
    };
    let is_append = how & 1 == 1;
    let whole = read(is_append, &data, data.len().max(1));
    let pieces = read(is_append, &data, piece);
    assert_eq!(whole.frames, pieces.frames, "in pieces of {piece}");
    assert_eq!(whole.failed, pieces.failed, "in pieces of {piece}");

    let frames: Vec<Decoded> =
        whole.frames.into_iter().filter(|frame| !matches!(frame, Decoded::Dropped(_))).collect();
    let again = read(is_append, &write(is_append, &frames), 7);
    assert_eq!(again.failed, None);
    assert_eq!(again.frames, frames, "written and read again");
    frames.len()
}

/// Reads `data` as one message, and if it is one, writes it and reads it again. Answers whether it is.
///
/// # Panics
/// If it reads differently the second time.
#[doc(hidden)]
pub fn fuzz_peer_message(data: &[u8]) -> bool {
    let Ok(Decoded::Message(message)) = decode(&Bytes::copy_from_slice(data)) else { return false };
    let bytes = Encoder::default().encode(message.clone()).to_bytes();
    match decode(&bytes) {
        Ok(Decoded::Message(again)) => assert_eq!(again, canonical(message)),
        other => panic!("{message:?} was written and read again as {other:?}"),
    }
    true
}

/// What is forwarded to a leader has no term, whatever the sender wrote there.
fn canonical(mut message: raft::Message) -> raft::Message {
    if matches!(message.body, raft::Body::Propose { .. } | raft::Body::ReadIndex { .. }) {
        message.term = raft::Term(0);
    }
    message
}

struct Read {
    frames: Vec<Decoded>,
    failed: Option<String>,
}

fn read(is_append: bool, data: &Bytes, piece: usize) -> Read {
    let mut messages = MessageDecoder::with_limit(LIMIT);
    let mut appends = AppendDecoder::with_limit(NodeId(1), NodeId(2), LIMIT);
    let mut read = Read { frames: Vec::new(), failed: None };
    let mut rest = data.clone();
    while !rest.is_empty() {
        let mut input = rest.split_to(piece.min(rest.len()));
        loop {
            let next: Result<Option<Decoded>, DecodeError> =
                if is_append { appends.next(&mut input) } else { messages.next(&mut input) };
            match next {
                Ok(Some(Decoded::Message(message))) => {
                    let mut message = canonical(message);
                    if is_append {
                        // In most frames they are not written.
                        (message.from, message.to) = (NodeId(2), NodeId(1));
                    }
                    read.frames.push(Decoded::Message(message));
                }
                Ok(Some(frame)) => read.frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    read.failed = Some(error.to_string());
                    return read;
                }
            }
        }
    }
    read
}

fn write(is_append: bool, frames: &[Decoded]) -> Bytes {
    let mut out = Output::default();
    let mut encoder = Encoder::default();
    let mut appends = AppendEncoder::default();
    for frame in frames {
        match frame {
            Decoded::LinkHeartbeat if is_append => appends.heartbeat(&mut out),
            Decoded::LinkHeartbeat => encode_heartbeat(&mut out),
            Decoded::Message(message) => {
                // Any two appends may claim the same positions here, which no correct member's do.
                encoder.clear();
                let outgoing = encoder.encode(message.clone());
                match outgoing.as_append().filter(|_| is_append) {
                    Some(append) => appends.encode(append, &mut out),
                    None => encode_message(&outgoing, &mut out),
                }
            }
            Decoded::Dropped(_) => {}
        }
    }
    let mut bytes = Vec::new();
    while let Some(piece) = out.pop() {
        bytes.extend_from_slice(&piece);
    }
    bytes.into()
}
