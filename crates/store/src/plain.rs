//! Messages without what nobody knows: what etcd 3.7's decoder (protobuf-go) makes of them, written down again.
//!
//! It skips unknown fields and known ones with another wire type, but keeps them: a client's message goes into the log
//! with them. Other decoders are stricter: prost ends at a wrong wire type, and at 100 nested groups; etcd 3.6's at a
//! wrong wire type too. So an entry is brought into this form here where prost refuses it, and a client's message before
//! it is proposed. No field of these messages is a repeated number, so none comes packed.

use std::borrow::Cow;

use crate::encoding::{DecodeError, Field, Fields, Form, put_length, put_varint, varint_len};

/// What a field holds.
#[derive(Clone, Copy)]
enum Is {
    Number,
    Bytes,
    /// A `string`.
    Text,
    Message(&'static Shape),
}

use Is::{Bytes, Message, Number, Text};

/// The fields of a message by their numbers.
pub(crate) struct Shape(&'static [(u32, Is)]);

impl Shape {
    fn field(&self, number: u32) -> Option<Is> {
        self.0.iter().find(|(known, _)| *known == number).map(|(_, is)| *is)
    }
}

pub(crate) static INTERNAL_RAFT_REQUEST: Shape = Shape(&[
    (1, Number),
    (3, Message(&RANGE)),
    (4, Message(&PUT)),
    (5, Message(&DELETE_RANGE)),
    (6, Message(&TXN)),
    (7, Message(&Shape(&[(1, Number), (2, Number)]))), // compaction
    (8, Message(&Shape(&[(1, Number), (2, Number)]))), // lease_grant
    (9, Message(&Shape(&[(1, Number)]))),              // lease_revoke
    (10, Message(&Shape(&[(1, Number), (2, Number), (3, Number)]))), // alarm
    (11, Message(&Shape(&[(1, Message(&Shape(&[(1, Number), (2, Number)])))]))), // lease_checkpoint
    (100, Message(&Shape(&[(1, Number), (2, Text), (3, Number)]))), // header
    (1000, Message(&EMPTY)),                           // auth_enable
    (1011, Message(&EMPTY)),                           // auth_disable
    (1012, Message(&Shape(&[(1, Text), (2, Text), (3, Text)]))), // authenticate
    (1013, Message(&EMPTY)),                           // auth_status
    (1100, Message(&Shape(&[(1, Text), (2, Text), (3, Message(&Shape(&[(1, Number)]))), (4, Text)]))), // auth_user_add
    (1101, Message(&ONE_TEXT)),                                  // auth_user_delete
    (1102, Message(&ONE_TEXT)),                                  // auth_user_get
    (1103, Message(&Shape(&[(1, Text), (2, Text), (3, Text)]))), // auth_user_change_password
    (1104, Message(&TWO_TEXTS)),                                 // auth_user_grant_role
    (1105, Message(&TWO_TEXTS)),                                 // auth_user_revoke_role
    (1106, Message(&EMPTY)),                                     // auth_user_list
    (1107, Message(&EMPTY)),                                     // auth_role_list
    (1200, Message(&ONE_TEXT)),                                  // auth_role_add
    (1201, Message(&ONE_TEXT)),                                  // auth_role_delete
    (1202, Message(&ONE_TEXT)),                                  // auth_role_get
    (1203, Message(&Shape(&[(1, Text), (2, Message(&PERMISSION))]))), // auth_role_grant_permission
    (1204, Message(&Shape(&[(1, Text), (2, Bytes), (3, Bytes)]))), // auth_role_revoke_permission
    (1300, Message(&ONE_TEXT)),                                  // cluster_version_set
    (1301, Message(&Shape(&[(1, Number), (2, Message(&TWO_TEXTS))]))), // cluster_member_attr_set
    (1302, Message(&Shape(&[(1, Number), (2, Text)]))),          // downgrade_info_set
    (9900, Message(&ONE_TEXT)),                                  // downgrade_version_test
]);

static EMPTY: Shape = Shape(&[]);
static ONE_TEXT: Shape = Shape(&[(1, Text)]);
static TWO_TEXTS: Shape = Shape(&[(1, Text), (2, Text)]);
static PERMISSION: Shape = Shape(&[(1, Number), (2, Bytes), (3, Bytes)]);

pub(crate) static RANGE: Shape = Shape(&[
    (1, Bytes),
    (2, Bytes),
    (3, Number),
    (4, Number),
    (5, Number),
    (6, Number),
    (7, Number),
    (8, Number),
    (9, Number),
    (10, Number),
    (11, Number),
    (12, Number),
    (13, Number),
]);

pub(crate) static PUT: Shape =
    Shape(&[(1, Bytes), (2, Bytes), (3, Number), (4, Number), (5, Number), (6, Number)]);

pub(crate) static DELETE_RANGE: Shape = Shape(&[(1, Bytes), (2, Bytes), (3, Number)]);

pub(crate) static TXN: Shape =
    Shape(&[(1, Message(&COMPARE)), (2, Message(&REQUEST_OP)), (3, Message(&REQUEST_OP))]);

static COMPARE: Shape = Shape(&[
    (1, Number),
    (2, Number),
    (3, Bytes),
    (4, Number),
    (5, Number),
    (6, Number),
    (7, Bytes),
    (8, Number),
    (64, Bytes),
]);

static REQUEST_OP: Shape =
    Shape(&[(1, Message(&RANGE)), (2, Message(&PUT)), (3, Message(&DELETE_RANGE)), (4, Message(&TXN))]);

/// `message` with the fields that are in `shape`, in their order, and what all of its bytes are like.
///
/// # Errors
/// [`DecodeError::Malformed`].
pub(crate) fn plain(message: &[u8], shape: &'static Shape) -> Result<(Vec<u8>, Form), DecodeError> {
    // A message's length stands before it, so all are measured first: the outer one, then in the order of their tags.
    let mut lengths = vec![0];
    let mut open = vec![(0, 0)];
    let form = walk(message, shape, |part| {
        let length = match part {
            Part::Number(number, value) => tag_len(number) + varint_len(value),
            Part::Bytes(number, bytes) => field_len(number, bytes.len()),
            Part::Begin(number) => {
                open.push((number, lengths.len()));
                lengths.push(0);
                return;
            }
            Part::End => {
                let Some((number, place)) = open.pop() else { return };
                field_len(number, lengths[place])
            }
        };
        if let Some((_, place)) = open.last() {
            lengths[*place] += length;
        }
    })?;
    let mut out = Vec::with_capacity(lengths[0]);
    let mut inner = lengths[1..].iter();
    walk(message, shape, |part| match part {
        Part::Number(number, value) => {
            put_varint(&mut out, u64::from(number) << 3);
            put_varint(&mut out, value);
        }
        Part::Bytes(number, bytes) => {
            put_length(&mut out, number, bytes.len());
            out.extend_from_slice(&bytes);
        }
        Part::Begin(number) => put_length(&mut out, number, inner.next().copied().unwrap_or_default()),
        Part::End => {}
    })?;
    Ok((out, form))
}

fn tag_len(number: u32) -> usize {
    varint_len(u64::from(number) << 3)
}

fn field_len(number: u32, bytes: usize) -> usize {
    tag_len(number) + varint_len(bytes as u64) + bytes
}

/// What a walk meets.
enum Part<'a> {
    Number(u32, u64),
    Bytes(u32, Cow<'a, [u8]>),
    /// A message begins.
    Begin(u32),
    /// The last message that has begun ends; at last the outer one.
    End,
}

/// Meets all known fields of `message` and of those within; nothing here recurses.
fn walk<'a>(
    message: &'a [u8],
    shape: &'static Shape,
    mut meet: impl FnMut(Part<'a>),
) -> Result<Form, DecodeError> {
    let mut form = Form::Plain;
    let mut open = vec![(shape, Fields::new(message))];
    while let Some((shape, fields)) = open.last_mut() {
        let Some((number, field)) = fields.next()? else {
            form = form.max(fields.form());
            open.pop();
            meet(Part::End);
            continue;
        };
        match (shape.field(number), field) {
            (Some(Number), Field::Number(value)) => meet(Part::Number(number, value)),
            (Some(Bytes), Field::Bytes(bytes)) => meet(Part::Bytes(number, Cow::Borrowed(bytes))),
            (Some(Text), Field::Bytes(bytes)) => meet(Part::Bytes(number, text(bytes))),
            (Some(Message(inner)), Field::Bytes(bytes)) => {
                meet(Part::Begin(number));
                open.push((inner, Fields::new(bytes)));
            }
            _ => fields.note_unknown(),
        }
    }
    Ok(form)
}

/// A `string`'s bytes. etcd 3.6 takes any, 3.7 ends at an entry with those that are no UTF-8. Here each byte that is part
/// of no character stands as one of the last 256 code points: different names stay different, on every member alike.
fn text(bytes: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(bytes).is_ok() {
        return Cow::Borrowed(bytes);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|byte| char::from_u32(0x10_ff00 + u32::from(*byte))));
    }
    Cow::Owned(text.into_bytes())
}

#[cfg(test)]
mod tests;
