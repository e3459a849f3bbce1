//! The wire format's primitives: what reads fields out of borrowed bytes, and what writes them.
//!
//! Requests are decoded in place, without a message in between: a put's value is copied once, into the record.
//! Reading takes whatever any of Go's decoders takes, etcd 3.7's or 3.6's, since what they took is in the log: unknown
//! fields are skipped, and a known field with another wire type counts as unknown. What 3.7's would refuse is noted
//! ([`Form`]), so that none of it gets into the log here.

/// Bytes that are no protobuf message of the kind asked for, or one whose parts would have to be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Cut short, or against the wire format.
    #[error("malformed message")]
    Malformed,
    /// A part that may be there once is there several times. Legal, but its pieces lie apart: the message has to
    /// be brought into canonical form first (`request::canonical_txn`).
    #[error("message with a repeated part")]
    Repeated,
    /// There is something in it that nobody knows. Legal, but not every member of etcd's reads it again: it has to be
    /// left out first (`request::plain`).
    #[error("message with an unknown field")]
    NotPlain,
}

/// What the bytes of a message are like, the worst of all that was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// Fields that can be of use, and nothing else.
    #[default]
    Plain,
    /// There are others, which etcd 3.7's decoder skips.
    Odd,
    /// etcd 3.7's decoder refuses it. That of 3.6 may have taken it, and passed it on.
    Refused,
}

/// Nested groups that etcd 3.7's decoder (protobuf-go) skips. 3.6's has no limit.
const GROUPS_MAX: usize = 10_001;

/// One field's contents, by wire type. Fixed-width fields and groups occur in no message of ours: they are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Walks the fields of a message.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    form: Form,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Fields { rest: message, form: Form::Plain }
    }

    /// What was met so far.
    #[inline]
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Says that the last field is none of the message's.
    #[inline]
    pub(crate) fn note_unknown(&mut self) {
        self.note(Form::Odd);
    }

    #[inline]
    fn note(&mut self, form: Form) {
        self.form = self.form.max(form);
    }

    /// The next field with a number and contents that can be of use; `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, DecodeError> {
        while !self.rest.is_empty() {
            let (number, wire_type) = self.tag()?;
            match wire_type {
                0 => return Ok(Some((number, Field::Number(self.varint()?)))),
                2 => return Ok(Some((number, Field::Bytes(self.bytes()?)))),
                _ => self.skip(number, wire_type)?,
            }
        }
        Ok(None)
    }

    #[inline]
    fn tag(&mut self) -> Result<(u32, u8), DecodeError> {
        let tag = self.varint()?;
        let number = tag >> 3;
        // Field numbers end at 2^29 - 1.
        if number == 0 || number >= 1 << 29 {
            return self.tag_beyond(tag);
        }
        Ok((number as u32, (tag & 7) as u8))
    }

    /// A tag whose number no field can have: 3.6 makes an `int32` of it, and goes on if that is above 0.
    #[cold]
    fn tag_beyond(&mut self, tag: u64) -> Result<(u32, u8), DecodeError> {
        let number = u32::try_from((tag >> 3) as i32).map_err(|_| DecodeError::Malformed)?;
        if number == 0 {
            return Err(DecodeError::Malformed);
        }
        self.note(Form::Refused);
        Ok((number, (tag & 7) as u8))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, DecodeError> {
        if let [first, rest @ ..] = self.rest
            && *first < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*first));
        }
        self.varint_long()
    }

    fn varint_long(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().enumerate().take(10) {
            // The tenth byte holds the 64th bit alone. 3.6 does not look at the others.
            if i == 9 && byte > 1 {
                self.note(Form::Refused);
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed)
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Malformed)?;
        self.take(length)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Skips a field of a type that no message of ours has. Groups nest, so their ends are kept on a heap stack:
    /// what a client sends must not decide how deep our stack goes. 3.6 only counts beginnings and ends.
    #[cold]
    fn skip(&mut self, number: u32, wire_type: u8) -> Result<(), DecodeError> {
        self.note(Form::Odd);
        let mut open = Vec::new();
        let (mut number, mut wire_type) = (u64::from(number), wire_type);
        loop {
            match wire_type {
                0 => drop(self.varint()?),
                1 => drop(self.take(8)?),
                2 => drop(self.bytes()?),
                3 => {
                    open.push(number);
                    if open.len() > GROUPS_MAX {
                        self.note(Form::Refused);
                    }
                }
                4 => {
                    if open.pop().ok_or(DecodeError::Malformed)? != number {
                        self.note(Form::Refused);
                    }
                }
                5 => drop(self.take(4)?),
                _ => return Err(DecodeError::Malformed),
            }
            if open.is_empty() {
                return Ok(());
            }
            let tag = self.varint()?;
            (number, wire_type) = (tag >> 3, (tag & 7) as u8);
            // Within a group Go's own limit is that of an `int32`.
            if number == 0 || number > i32::MAX as u64 {
                self.note(Form::Refused);
            }
        }
    }
}

/// Bytes that a varint takes, 1 to 10.
#[inline]
pub(crate) fn varint_len(value: u64) -> usize {
    (63 - (value | 1).leading_zeros() as usize) / 7 + 1
}

/// Appends a varint.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a tag with wire type 0 and the number, or nothing if it is the default, 0.
#[inline]
pub(crate) fn put_number(out: &mut Vec<u8>, field: u32, value: i64) {
    if value != 0 {
        put_varint(out, u64::from(field) << 3);
        put_varint(out, value as u64);
    }
}

/// Appends a tag with wire type 2 and the length of what the caller appends next.
#[inline]
pub(crate) fn put_length(out: &mut Vec<u8>, field: u32, length: usize) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, length as u64);
}

/// Appends a bytes field, or nothing if it is empty.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    if !value.is_empty() {
        put_length(out, field, value.len());
        out.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u32, Field<'_>)>, DecodeError> {
        let mut fields = Fields::new(bytes);
        let mut list = Vec::new();
        while let Some(field) = fields.next()? {
            list.push(field);
        }
        Ok(list)
    }

    #[test]
    fn reads_what_it_writes() {
        for value in [1, 127, 128, 16383, 16384, i64::MAX, -1, i64::MIN] {
            let mut out = Vec::new();
            put_number(&mut out, 3, value);
            put_bytes(&mut out, 16, b"xy");
            assert_eq!(varint_len(value as u64) + 1 + 5, out.len());
            assert_eq!(all(&out), Ok(vec![(3, Field::Number(value as u64)), (16, Field::Bytes(b"xy"))]));
        }
    }

    /// The fields of use, and what the rest is like.
    fn form(bytes: &[u8]) -> Result<Form, DecodeError> {
        let mut fields = Fields::new(bytes);
        while fields.next()?.is_some() {}
        Ok(fields.form())
    }

    fn groups(depth: usize) -> Vec<u8> {
        [[0x1b].repeat(depth), vec![0x08, 0x05], [0x1c].repeat(depth)].concat()
    }

    #[test]
    fn skips_fixed_fields_and_groups_of_any_depth() {
        let mut bytes = vec![0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x15, 1, 2, 3, 4];
        bytes.extend(groups(200_000));
        bytes.extend([0x20, 0x07]);
        assert_eq!(all(&bytes), Ok(vec![(4, Field::Number(7))]));
    }

    /// The limits are protobuf-go's, as of etcd 3.7.1.
    #[test]
    fn what_one_of_go_s_decoders_refuses_is_told() {
        let group_with = |tag: &[u8]| [&[0x0b][..], tag, &[0, 0x0c]].concat();
        for (want, bytes) in [
            (Form::Plain, vec![0x08, 1, 0x12, 1, 0]),
            (Form::Plain, vec![0xf8, 0xff, 0xff, 0xff, 0x0f, 0]), // the largest number
            (Form::Odd, vec![0x0d, 0, 0, 0, 0, 0x08, 1]),
            (Form::Odd, groups(1)),
            (Form::Odd, groups(GROUPS_MAX)),
            (Form::Odd, group_with(&[0xf8, 0xff, 0xff, 0xff, 0x3f])),
            (Form::Refused, group_with(&[0x80, 0x80, 0x80, 0x80, 0x40])),
            (Form::Refused, group_with(&[0])),
            (Form::Refused, groups(GROUPS_MAX + 1)),
            (Form::Refused, vec![0x80, 0x80, 0x80, 0x80, 0x10, 0]), // number 2^29
            (Form::Refused, vec![0x0b, 0x14]),                      // another group's end
            // Above 64 bits.
            (Form::Refused, vec![0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
        ] {
            assert_eq!(form(&bytes), Ok(want), "{:x?}", &bytes[..bytes.len().min(20)]);
        }
    }

    #[test]
    fn refuses_what_is_no_message() {
        for bytes in [
            &[0x08][..],                                                            // no value
            &[0x80],                                                                // half a tag
            &[0x00, 0x00],                                                          // field 0
            &[0x80, 0x80, 0x80, 0x80, 0x40, 0],                                     // field -2^31 of an int32
            &[0x0a, 0x02, 0x01],                                                    // shorter than it says
            &[0x0c],                                                                // end of no group
            &[0x0b],                                                                // group without an end
            &[0x0e],                                                                // wire type 6
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], // no end
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],       // longer than any memory
        ] {
            assert_eq!(all(bytes), Err(DecodeError::Malformed), "{bytes:x?}");
        }
    }
}
