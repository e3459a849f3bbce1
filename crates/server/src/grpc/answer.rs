//! Response messages: gRPC's length prefix, etcd's header, the body.
//!
//! Protobuf messages concatenate, so the header is encoded in front of a body that others have made. A body is
//! begun with room for what comes before it, and so an answer takes one allocation.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use wire::etcdserverpb::ResponseHeader;
use wire::{Code, Status};

use super::turns::Length;

/// gRPC's prefix: a flag and the length.
pub const PREFIX_BYTES: usize = 5;

/// Room for the prefix and the longest header.
const HEADROOM_BYTES: usize = 64;

/// Longest message that gRPC sends, as etcd limits it.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// A longer body that somebody else has allocated is sent as it is, behind a piece of its own for the header.
const COPY_BYTES_MAX: usize = 4096;

/// Bytes of answers to reads of one length that a client has not taken, or that are being made for it; above, the next
/// ones wait. Brief ones and long ones are counted apart, so that none waits for a long answer to be taken but another.
pub const HELD_BYTES_MAX: usize = 16 << 20;

/// The same bytes with which writes are refused: how long their answers are (`prev_kv`) nobody knows before they are made.
pub const WRITES_HELD_BYTES_MAX: usize = 256 << 20;

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

/// How many bytes of answers a connection holds that its client has not taken yet, or has room for.
#[derive(Clone, Debug, Default)]
pub struct Held(Rc<Accounts>);

#[derive(Debug, Default)]
struct Accounts {
    brief: Account,
    long: Account,
}

#[derive(Debug, Default)]
struct Account {
    /// Held and reserved.
    bytes: Cell<usize>,
    /// How many reservations there are.
    reserved: Cell<usize>,
    /// Who waits for room, in order.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next: Cell<u64>,
}

impl Held {
    /// All bytes.
    pub fn bytes(&self) -> usize {
        self.0.brief.bytes.get() + self.0.long.bytes.get()
    }

    /// Whether reads that would be made at once have to wait until the client has taken more.
    pub fn is_full(&self) -> bool {
        self.0.brief.bytes.get() > HELD_BYTES_MAX
    }

    /// Whether writes have to be refused until the client has taken more.
    pub fn refuses_writes(&self) -> bool {
        self.0.brief.bytes.get() > WRITES_HELD_BYTES_MAX
    }

    /// Waits for room for an answer of `bytes`, which only an estimate can say: [`Charge::settle`] is to follow. One
    /// answer may always be made while what is held is within the bound.
    pub async fn reserve(&self, length: Length, bytes: usize) -> Charge {
        let account = self.account(length);
        let number = account.next.replace(account.next.get() + 1);
        let _waiting = Waiting { account, number };
        poll_fn(|cx| account.poll_room(number, bytes, cx)).await;
        account.add(bytes);
        account.reserved.set(account.reserved.get() + 1);
        Charge { held: self.clone(), length, bytes, is_reserved: true }
    }

    fn account(&self, length: Length) -> &Account {
        match length {
            Length::Brief => &self.0.brief,
            Length::Long => &self.0.long,
        }
    }
}

impl Account {
    fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
    }

    fn poll_room(&self, number: u64, bytes: usize, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting.borrow_mut();
        let is_first = waiting.first_key_value().is_none_or(|(first, _)| *first >= number);
        let held = self.bytes.get();
        let has_room = held + bytes <= HELD_BYTES_MAX || (self.reserved.get() == 0 && held <= HELD_BYTES_MAX);
        if is_first && has_room {
            return Poll::Ready(());
        }
        waiting.insert(number, cx.waker().clone());
        Poll::Pending
    }

    fn wake_first(&self) {
        if let Some((_, waker)) = self.waiting.borrow().first_key_value() {
            waker.wake_by_ref();
        }
    }
}

/// A place among those that wait for room.
struct Waiting<'a> {
    account: &'a Account,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.account.waiting.borrow_mut().remove(&self.number).is_some() {
            self.account.wake_first();
        }
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub struct Charge {
    held: Held,
    length: Length,
    bytes: usize,
    is_reserved: bool,
}

impl Charge {
    /// Counts an answer that is there: by what was reserved for it, or anew.
    pub fn of(bytes: usize, reserved: Option<Charge>, held: &Held) -> Self {
        match reserved {
            Some(mut charge) => {
                charge.settle(bytes);
                charge
            }
            None => Charge::new(bytes, held),
        }
    }

    fn new(bytes: usize, held: &Held) -> Self {
        let length = Length::Brief;
        held.account(length).add(bytes);
        Charge { held: held.clone(), length, bytes, is_reserved: false }
    }

    fn account(&self) -> &Account {
        self.held.account(self.length)
    }

    /// The answer is there, and has so many bytes.
    pub fn settle(&mut self, bytes: usize) {
        let account = self.account();
        account.bytes.set(account.bytes.get() - self.bytes + bytes);
        if self.is_reserved {
            account.reserved.set(account.reserved.get() - 1);
        }
        account.wake_first();
        (self.bytes, self.is_reserved) = (bytes, false);
    }

    /// Takes a part of a settled charge out, as far as there is any.
    fn split(&mut self, bytes: usize) -> Charge {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Charge { held: self.held.clone(), length: self.length, bytes, is_reserved: false }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.settle(0);
    }
}

/// A piece of an answer on its way out; counted until it is gone.
#[derive(Debug)]
pub struct Payload {
    bytes: Bytes,
    _charge: Charge,
}

impl Payload {
    /// Charges `held` with `bytes`.
    pub fn new(bytes: Bytes, held: &Held) -> Self {
        Payload { _charge: Charge::new(bytes.len(), held), bytes }
    }

    /// Bytes that are counted already, as all or a part of `charge`; what that does not cover is counted too.
    pub fn charged(bytes: Bytes, charge: &mut Charge) -> Self {
        let mut part = charge.split(bytes.len());
        part.settle(bytes.len());
        Payload { _charge: part, bytes }
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
    fn answers_are_made_as_there_is_room() {
        use std::pin::pin;
        let held = Held::default();
        let mut cx = Context::from_waker(Waker::noop());
        let quarter = HELD_BYTES_MAX / 4;
        let mut first = pin!(held.reserve(Length::Long, HELD_BYTES_MAX));
        let Poll::Ready(mut charge) = first.as_mut().poll(&mut cx) else { panic!("there is room") };
        let mut second = pin!(held.reserve(Length::Long, quarter));
        let mut third = pin!(held.reserve(Length::Long, HELD_BYTES_MAX));
        assert!(second.as_mut().poll(&mut cx).is_pending() && third.as_mut().poll(&mut cx).is_pending());
        // Brief answers do not wait for long ones.
        let brief = pin!(held.reserve(Length::Brief, quarter));
        let Poll::Ready(brief) = brief.poll(&mut cx) else { panic!("a brief one waited for a long one") };
        charge.settle(2 * quarter);
        assert!(third.as_mut().poll(&mut cx).is_pending(), "first come, first served");
        let Poll::Ready(next) = second.as_mut().poll(&mut cx) else { panic!("there is room") };
        assert!(third.as_mut().poll(&mut cx).is_pending(), "another is being made");
        drop(next);
        let Poll::Ready(mut last) = third.as_mut().poll(&mut cx) else { panic!("one may always be made") };
        last.settle(100 * quarter);
        let piece = Payload::charged(Bytes::from(vec![0; quarter]), &mut last);
        assert_eq!(held.bytes(), 103 * quarter);
        drop((piece, charge, brief));
        assert_eq!(held.bytes(), 99 * quarter);
        assert!(!held.is_full(), "long answers are counted apart");
        let mut waits = pin!(held.reserve(Length::Long, 0));
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        drop(last);
        assert!(waits.as_mut().poll(&mut cx).is_ready());
        assert_eq!(held.bytes(), 0);
    }

    #[test]
    fn texts_are_percent_encoded() {
        assert_eq!(percent_encode("100% caf\u{e9}\n"), "100%25 caf%C3%A9%0A");
    }
}
