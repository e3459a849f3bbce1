//! Protobuf as far as raft's messages need it. Written by hand because a generated decoder would make a list of a
//! hundred times the bytes out of a message of empty entries before anybody could look at it.

use std::ops::Range;

use super::DecodeError;

const CUT: DecodeError = DecodeError::Malformed("it ends too early");

/// A field's value.
pub(super) enum Value {
    /// A number.
    Number(u64),
    /// Bytes, by where they are.
    Span(Range<usize>),
}

impl Value {
    pub(super) fn number(self) -> Result<u64, DecodeError> {
        match self {
            Value::Number(number) => Ok(number),
            Value::Span(_) => Err(DecodeError::Malformed("bytes in the place of a number")),
        }
    }

    pub(super) fn span(self) -> Result<Range<usize>, DecodeError> {
        match self {
            Value::Span(span) => Ok(span),
            Value::Number(_) => Err(DecodeError::Malformed("a number in the place of bytes")),
        }
    }
}

/// The fields in a part of `bytes`, in their order. Fixed-size ones, of which there are none, are passed over.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8], span: Range<usize>) -> Self {
        Fields { bytes, at: span.start, end: span.end }
    }

    /// The next field's number and value.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value)>, DecodeError> {
        while self.at < self.end {
            let key = self.varint()?;
            let value = match key & 7 {
                0 => Value::Number(self.varint()?),
                2 => {
                    let length = self.varint()?;
                    Value::Span(self.skip(length)?)
                }
                1 => {
                    self.skip(8)?;
                    continue;
                }
                5 => {
                    self.skip(4)?;
                    continue;
                }
                _ => return Err(DecodeError::Malformed("a wire type that is none")),
            };
            return match key >> 3 {
                0 => Err(DecodeError::Malformed("a field without a number")),
                field => Ok(Some((field, value))),
            };
        }
        Ok(None)
    }

    fn skip(&mut self, length: u64) -> Result<Range<usize>, DecodeError> {
        let left = (self.end - self.at) as u64;
        if length > left {
            return Err(CUT);
        }
        let start = self.at;
        self.at += length as usize;
        Ok(start..self.at)
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes[..self.end].get(self.at).ok_or(CUT)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed("a number of more than 64 bits"))
    }

    pub(super) fn is_done(&self) -> bool {
        self.at >= self.end
    }
}

pub(super) fn varint(mut value: u64, mut push: impl FnMut(u8)) {
    while value >= 0x80 {
        push(value as u8 | 0x80);
        value >>= 7;
    }
    push(value as u8);
}
