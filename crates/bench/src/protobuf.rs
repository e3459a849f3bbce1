//! Protobuf by hand, where decoding a whole message would cost more than the server that is measured: a number out of
//! an answer, the events of a watch, the pairs of a range of hundreds of megabytes.

use prost::Message;

/// A message with gRPC's prefix.
pub fn framed(message: &impl Message) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    framed.extend_from_slice(&message.encode_to_vec());
    framed
}

/// The value of a field: a number, or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Of a field that is a number.
    Number(u64),
    /// Of a text, of bytes, or of a message.
    Bytes(&'a [u8]),
}

/// Visits the fields at the top of an encoded message, in their order, with their numbers; false if it is malformed
/// somewhere. Numbers of fixed length are passed over.
pub fn fields<'a>(message: &'a [u8], mut visit: impl FnMut(u64, Value<'a>)) -> bool {
    let mut rest = message;
    while !rest.is_empty() {
        let Some(key) = varint(&mut rest) else { return false };
        let skip = match key & 7 {
            0 => {
                let Some(value) = varint(&mut rest) else { return false };
                visit(key >> 3, Value::Number(value));
                continue;
            }
            1 => 8,
            5 => 4,
            2 => {
                let bytes = varint(&mut rest)
                    .and_then(|length| usize::try_from(length).ok())
                    .and_then(|length| rest.split_at_checked(length));
                let Some((bytes, after)) = bytes else { return false };
                visit(key >> 3, Value::Bytes(bytes));
                rest = after;
                continue;
            }
            _ => return false,
        };
        let Some(after) = rest.get(skip..) else { return false };
        rest = after;
    }
    true
}

/// The value of a number field at the top of an encoded message; zero when it is not there or the message is bad.
pub fn number_field(message: &[u8], wanted: u64) -> u64 {
    let mut found = 0;
    let is_whole = fields(message, |field, value| match value {
        Value::Number(number) if field == wanted => found = number,
        _ => {}
    });
    if is_whole { found } else { 0 }
}

/// The bytes of a field at the top of an encoded message; none when it is not there or the message is bad.
pub fn bytes_field(message: &[u8], wanted: u64) -> &[u8] {
    let mut found: &[u8] = &[];
    let is_whole = fields(message, |field, value| match value {
        Value::Bytes(bytes) if field == wanted => found = bytes,
        _ => {}
    });
    if is_whole { found } else { &[] }
}

/// The revision in the header of an encoded answer: `ResponseHeader.revision` of field 1.
pub fn header_revision(answer: &[u8]) -> i64 {
    number_field(bytes_field(answer, 1), 3) as i64
}

fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// What a [`Counter`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Bytes, gRPC's prefixes among them.
    pub bytes: u64,
    /// Whole messages.
    pub messages: u64,
    /// Fields with number 2: of `RangeResponse` the pairs.
    pub pairs: u64,
    /// The largest value of the number field 4: of `RangeResponse` the count.
    pub count: u64,
    /// Whether something could not be read.
    pub is_bad: bool,
}

/// Counts the pairs of answers as their bytes come, and keeps none of them.
#[derive(Debug)]
pub struct Counter {
    counted: Counted,
    /// Whether what counts is inside of field 1, as in `RangeStreamResponse`.
    inside: bool,
    state: Reading,
    /// Of the message that is being read.
    left: u64,
    entered: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Reading {
    /// So many bytes of gRPC's prefix are there, and the length so far.
    Prefix(u8, u32),
    /// A field's key, in part.
    Key(u64, u32),
    /// A number of this field, in part.
    Number(u64, u64, u32),
    /// The length of this field, in part.
    Length(u64, u64, u32),
    /// So many bytes of no interest.
    Skip(u64),
}

impl Counter {
    /// Counts `RangeResponse`s, or what field 1 of each message holds.
    pub fn new(inside: bool) -> Counter {
        Counter { counted: Counted::default(), inside, state: Reading::Prefix(0, 0), left: 0, entered: false }
    }

    /// What was seen. A message that is not whole is bad.
    pub fn counted(&self) -> Counted {
        let is_cut = !matches!(self.state, Reading::Prefix(0, _));
        Counted { is_bad: self.counted.is_bad || is_cut, ..self.counted }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.counted.bytes += bytes.len() as u64;
        while !bytes.is_empty() && !self.counted.is_bad {
            if let Reading::Skip(skip) = self.state {
                let taken = (bytes.len() as u64).min(skip);
                bytes = &bytes[taken as usize..];
                self.left -= taken;
                self.state = Reading::Skip(skip - taken);
                if skip == taken {
                    self.field_ended();
                }
                continue;
            }
            let byte = bytes[0];
            bytes = &bytes[1..];
            self.byte(byte);
        }
    }

    fn field_ended(&mut self) {
        self.state = Reading::Key(0, 0);
        if self.left == 0 {
            self.counted.messages += 1;
            self.state = Reading::Prefix(0, 0);
        }
    }

    fn byte(&mut self, byte: u8) {
        if let Reading::Prefix(seen, length) = self.state {
            let length = length << 8 | u32::from(byte);
            if seen < 4 {
                // The first one is the flag: an answer that is compressed cannot be counted.
                self.counted.is_bad |= seen == 0 && byte != 0;
                self.state = Reading::Prefix(seen + 1, length);
                return;
            }
            (self.left, self.entered) = (u64::from(length), false);
            return self.field_ended();
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.counted.is_bad = true;
            return;
        };
        self.left = left;
        let part = |value: u64, shift: u32| value | u64::from(byte & 0x7f) << shift.min(63);
        let is_last = byte & 0x80 == 0;
        self.counted.is_bad |= left == 0 && !is_last;
        match self.state {
            Reading::Key(value, shift) => {
                let value = part(value, shift);
                self.state = match value & 7 {
                    _ if !is_last => Reading::Key(value, shift + 7),
                    0 => Reading::Number(value >> 3, 0, 0),
                    2 => Reading::Length(value >> 3, 0, 0),
                    _ => {
                        self.counted.is_bad = true;
                        Reading::Key(0, 0)
                    }
                };
            }
            Reading::Number(field, value, shift) => {
                let value = part(value, shift);
                if !is_last {
                    self.state = Reading::Number(field, value, shift + 7);
                    return;
                }
                if field == 4 && (self.entered || !self.inside) {
                    self.counted.count = self.counted.count.max(value);
                }
                self.field_ended();
            }
            Reading::Length(field, value, shift) => {
                let value = part(value, shift);
                if is_last {
                    self.begin(field, value);
                } else {
                    self.state = Reading::Length(field, value, shift + 7);
                }
            }
            Reading::Prefix(..) | Reading::Skip(_) => unreachable!("handled before"),
        }
    }

    /// A field of so many bytes begins.
    fn begin(&mut self, field: u64, length: u64) {
        if length > self.left {
            self.counted.is_bad = true;
        } else if self.inside && !self.entered {
            // Nothing but field 1 is in such a message.
            self.counted.is_bad |= field != 1 || length != self.left;
            self.entered = true;
            self.field_ended();
        } else {
            self.counted.pairs += u64::from(field == 2);
            self.state = Reading::Skip(length);
            if length == 0 {
                self.field_ended();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::etcdserverpb::{RangeResponse, RangeStreamResponse, ResponseHeader};
    use wire::mvccpb::KeyValue;

    use super::*;

    fn answer(pairs: usize) -> RangeResponse {
        let header =
            Some(ResponseHeader { revision: 300, raft_term: 4_000_000, ..ResponseHeader::default() });
        let kvs =
            (0..pairs).map(|n| KeyValue { value: vec![7; n * 50].into(), ..KeyValue::default() }).collect();
        RangeResponse { header, kvs, more: true, count: pairs as i64 }
    }

    #[test]
    fn pairs_are_counted_however_the_bytes_come() {
        let plain = [framed(&answer(200)), framed(&answer(0)), framed(&answer(3))].concat();
        let chunk = |pairs| framed(&RangeStreamResponse { range_response: Some(answer(pairs)) });
        let inside = [chunk(200), chunk(0), chunk(3), framed(&RangeStreamResponse::default())].concat();
        for (bytes, is_inside, messages) in [(plain, false, 3), (inside, true, 4)] {
            for size in [1, 2, 7, 1000, bytes.len()] {
                let mut counter = Counter::new(is_inside);
                bytes.chunks(size).for_each(|piece| counter.push(piece));
                let expected =
                    Counted { bytes: bytes.len() as u64, messages, pairs: 203, count: 200, is_bad: false };
                assert_eq!(counter.counted(), expected, "in pieces of {size}");
                let mut cut = Counter::new(is_inside);
                cut.push(&bytes[..bytes.len() - 1]);
                assert!(cut.counted().is_bad);
            }
        }
    }

    #[test]
    fn fields_are_found() {
        let message = answer(2).encode_to_vec();
        assert_eq!((number_field(&message, 4), header_revision(&message)), (2, 300));
        assert_eq!(number_field(&message[..message.len() - 1], 4), 0, "cut short");
        assert!(!fields(&[0x12, 0xff], |_, _| {}));
        assert_eq!(bytes_field(&[0x12, 1, 7], 2), [7]);
    }
}
