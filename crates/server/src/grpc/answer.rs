//! Response messages: gRPC's length prefix, etcd's header, the body.
//!
//! Protobuf messages concatenate, so the header is encoded in front of a body that others have made. A body is
//! begun with room for what comes before it, and so an answer takes one allocation.

use std::cell::Cell;
use std::rc::Rc;

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use wire::etcdserverpb::ResponseHeader;
use wire::{Code, Status};

/// gRPC's prefix: a flag and the length.
pub const PREFIX_BYTES: usize = 5;

/// Room for the prefix and the longest header.
const HEADROOM_BYTES: usize = 64;

/// Longest message that gRPC sends, as etcd limits it.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// A longer body that somebody else has allocated is sent as it is, behind a piece of its own for the header.
const COPY_BYTES_MAX: usize = 4096;

/// Every response message has its header in field 1.
const HEADER_FIELD: u32 = 1;

/// `RangeStreamResponse.range_response`.
const RANGE_RESPONSE_FIELD: u32 = 1;

const _: () = assert!(PREFIX_BYTES + 2 + 4 * 11 <= HEADROOM_BYTES);

/// An empty body with room in front, to append the answer to.
pub fn new_body() -> Vec<u8> {
    let mut body = Vec::with_capacity(HEADROOM_BYTES + 448);
    body.resize(HEADROOM_BYTES, 0);
    body
}

/// Completes a body that was begun with [`new_body`] into a message with its prefix.
pub fn finish(mut body: Vec<u8>, header: &ResponseHeader) -> Result<Bytes, Status> {
    let front = front(header, body.len() - HEADROOM_BYTES)?;
    let start = HEADROOM_BYTES - front.len();
    body[start..HEADROOM_BYTES].copy_from_slice(front.bytes());
    let mut message = Bytes::from(body);
    message.advance(start);
    Ok(message)
}

/// A message around a body of another's making: one piece, or two when it is long.
pub fn wrap(body: Vec<u8>, header: &ResponseHeader) -> Result<(Bytes, Option<Bytes>), Status> {
    let front = front(header, body.len())?;
    if body.len() > COPY_BYTES_MAX {
        return Ok((Bytes::copy_from_slice(front.bytes()), Some(Bytes::from(body))));
    }
    let mut message = Vec::with_capacity(front.len() + body.len());
    message.extend_from_slice(front.bytes());
    message.extend_from_slice(&body);
    Ok((Bytes::from(message), None))
}

/// A `RangeStreamResponse` around the fields of its `RangeResponse` but the header, in two pieces.
pub fn wrap_chunk(body: Vec<u8>, header: Option<&ResponseHeader>) -> Result<(Bytes, Bytes), Status> {
    let mut inner = Vec::with_capacity(HEADROOM_BYTES);
    if let Some(header) = header {
        encode_key(HEADER_FIELD, WireType::LengthDelimited, &mut inner);
        encode_varint(header.encoded_len() as u64, &mut inner);
        header.encode_raw(&mut inner);
    }
    let range_len = inner.len() + body.len();
    let mut front = vec![0; PREFIX_BYTES];
    encode_key(RANGE_RESPONSE_FIELD, WireType::LengthDelimited, &mut front);
    encode_varint(range_len as u64, &mut front);
    let message_len = front.len() - PREFIX_BYTES + range_len;
    front[1..PREFIX_BYTES].copy_from_slice(&checked_len(message_len)?.to_be_bytes());
    front.extend_from_slice(&inner);
    Ok((Bytes::from(front), Bytes::from(body)))
}

/// Appends a message with its prefix. For messages that are made here: none is as long as gRPC's limit.
pub fn push(message: &impl Message, into: &mut Vec<u8>) {
    let length = message.encoded_len();
    into.reserve(PREFIX_BYTES + length);
    into.push(0);
    into.extend_from_slice(&(length as u32).to_be_bytes());
    message.encode_raw(into);
}

/// The length of a message as gRPC's prefix has it.
fn checked_len(message_len: usize) -> Result<u32, Status> {
    if message_len > MESSAGE_BYTES_MAX {
        return Err(Status::new(
            Code::ResourceExhausted,
            format!("grpc: trying to send message larger than max ({message_len} vs. {MESSAGE_BYTES_MAX})"),
        ));
    }
    Ok(message_len as u32)
}

struct Front {
    bytes: [u8; HEADROOM_BYTES],
    len: usize,
}

impl Front {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn len(&self) -> usize {
        self.len
    }
}

fn front(header: &ResponseHeader, body_len: usize) -> Result<Front, Status> {
    let header_len = header.encoded_len();
    let message_len = checked_len(2 + header_len + body_len)?;
    let mut front = Front { bytes: [0; HEADROOM_BYTES], len: PREFIX_BYTES + 2 + header_len };
    front.bytes[1..PREFIX_BYTES].copy_from_slice(&message_len.to_be_bytes());
    let mut rest = &mut front.bytes[PREFIX_BYTES..];
    encode_key(HEADER_FIELD, WireType::LengthDelimited, &mut rest);
    encode_varint(header_len as u64, &mut rest);
    header.encode_raw(&mut rest);
    Ok(front)
}

/// How many bytes of answers a connection holds that its client has not taken yet.
#[derive(Clone, Debug, Default)]
pub struct Held(Rc<Cell<usize>>);

impl Held {
    /// The bytes.
    pub fn bytes(&self) -> usize {
        self.0.get()
    }
}

/// A piece of an answer on its way out; counted until it is gone.
#[derive(Debug)]
pub struct Payload {
    bytes: Bytes,
    charged: usize,
    held: Held,
}

impl Payload {
    /// Charges `held` with `bytes`.
    pub fn new(bytes: Bytes, held: &Held) -> Self {
        held.0.set(held.0.get() + bytes.len());
        Payload { charged: bytes.len(), bytes, held: held.clone() }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.held.0.set(self.held.0.get() - self.charged);
    }
}

impl Buf for Payload {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// A status text as it stands in a header: what is not printable ASCII is percent-encoded.
pub fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::etcdserverpb::RangeResponse;

    const FULL: ResponseHeader =
        ResponseHeader { cluster_id: u64::MAX, member_id: u64::MAX, revision: i64::MIN, raft_term: u64::MAX };

    #[test]
    fn a_message_decodes_to_its_header_and_body() {
        for (header, count) in [(FULL, 7), (ResponseHeader::default(), 0), (FULL, i64::MAX)] {
            let want = RangeResponse { header: Some(header), count, ..RangeResponse::default() };
            let encoded = RangeResponse { header: None, ..want.clone() }.encode_to_vec();
            let mut body = new_body();
            body.extend_from_slice(&encoded);
            for message in [finish(body, &header).unwrap(), wrap(encoded, &header).unwrap().0] {
                assert_eq!(message[0], 0);
                assert_eq!(message[1..5], (message.len() as u32 - 5).to_be_bytes());
                assert_eq!(RangeResponse::decode(&message[5..]).unwrap(), want);
            }
        }
    }

    #[test]
    fn a_long_body_is_not_copied() {
        let body = vec![0; COPY_BYTES_MAX + 1];
        let at = body.as_ptr();
        let (front, tail) = wrap(body, &FULL).unwrap();
        let tail = tail.unwrap();
        assert_eq!(tail.as_ptr(), at);
        assert_eq!(front[1..5], ((front.len() + tail.len()) as u32 - 5).to_be_bytes());
    }

    #[test]
    fn held_bytes_end_with_the_payload() {
        let held = Held::default();
        let mut payload = Payload::new(Bytes::from_static(b"four"), &held);
        payload.advance(3);
        assert_eq!(held.bytes(), 4);
        drop(payload);
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn texts_are_percent_encoded() {
        assert_eq!(percent_encode("100% caf\u{e9}\n"), "100%25 caf%C3%A9%0A");
    }
}
