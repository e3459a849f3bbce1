//! From protobuf to JSON, as Go's `protojson` writes it with the proto files' names and without what is unset.
//!
//! The output is made in pieces as there is room for it, so that a long answer neither stops its thread nor is there
//! twice. Nothing recurses. Messages are those of our own services: bytes that are no protobuf end what they are in, and
//! of a field that is there more than once, and should not, the last one counts.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::encoding::decode_varint;

use crate::gateway::schema::{Field, Kind, Message};

/// Writes one message.
#[derive(Debug)]
pub struct Writer {
    message: Bytes,
    open: Vec<Open>,
    texts: Texts,
}

/// How texts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texts {
    /// As they are.
    Plain,
    /// Without what HTML minds: messages of streams go through another of Go's encoders.
    ForHtml,
}

/// A message that is being written; its brace is.
#[derive(Debug)]
struct Open {
    schema: &'static Message,
    /// Where it begins and ends.
    from: usize,
    to: usize,
    /// The field under way.
    field: usize,
    /// Where that is looked for, and what was found before.
    at: usize,
    last: Option<Found>,
    /// An element of it is written.
    is_in_list: bool,
    /// Any field is written.
    has_any: bool,
}

impl Open {
    fn new(schema: &'static Message, from: usize, to: usize) -> Open {
        Open { schema, from, to, field: 0, at: from, last: None, is_in_list: false, has_any: false }
    }

    fn next_field(&mut self) {
        (self.field, self.at, self.last, self.is_in_list) = (self.field + 1, self.from, None, false);
    }
}

/// What a field was found to hold.
#[derive(Clone, Copy, Debug)]
enum Found {
    Number(u64),
    /// From here to there.
    Bytes(usize, usize),
}

impl Writer {
    /// `message` is without gRPC's prefix. The brace that begins it is written to `out`.
    pub fn begin(message: Bytes, schema: &'static Message, texts: Texts, out: &mut Vec<u8>) -> Self {
        out.push(b'{');
        let open = vec![Open::new(schema, 0, message.len())];
        Writer { message, open, texts }
    }

    /// Appends what comes next, until `out` has so many bytes, or one value more, or so many fields were looked at (there may
    /// be nothing new then); true if that was all.
    pub fn write(&mut self, out: &mut Vec<u8>, bytes_max: usize, mut steps_max: usize) -> bool {
        while let Some(open) = self.open.last_mut() {
            if out.len() >= bytes_max {
                return false;
            }
            let Some(field) = open.schema.fields.get(open.field) else {
                out.push(b'}');
                self.open.pop();
                continue;
            };
            let Ok(found) = find(&self.message, open, field, &mut steps_max) else { return false };
            let Some(found) = found else {
                if open.is_in_list {
                    out.push(b']');
                }
                open.next_field();
                continue;
            };
            let has_presence = field.repeated || field.oneof.is_some();
            let is_unset = match (found, field.kind) {
                (_, Kind::Message(_)) => false,
                (Found::Number(number), _) => number == 0,
                (Found::Bytes(from, to), _) => from == to,
            };
            if is_unset && !has_presence {
                open.next_field();
                continue;
            }
            if open.is_in_list || open.has_any {
                out.push(b',');
            }
            if !open.is_in_list {
                out.push(b'"');
                out.extend_from_slice(field.name.as_bytes());
                out.extend_from_slice(if field.repeated { b"\":[" } else { b"\":" });
            }
            open.has_any = true;
            match field.repeated {
                true => open.is_in_list = true,
                false => open.next_field(),
            }
            match (field.kind, found) {
                (Kind::Message(schema), Found::Bytes(from, to)) => {
                    out.push(b'{');
                    self.open.push(Open::new(schema, from, to));
                }
                (kind, found) => self.value(kind, found, out),
            }
        }
        true
    }

    fn value(&self, kind: Kind, found: Found, out: &mut Vec<u8>) {
        match (kind, found) {
            (Kind::String, Found::Bytes(from, to)) => {
                text(&String::from_utf8_lossy(&self.message[from..to]), self.texts, out);
            }
            (_, Found::Bytes(from, to)) if kind.is_packed() => {
                let mut rest = &self.message[from..to];
                let mut is_first = true;
                while let Ok(number) = decode_varint(&mut rest) {
                    if !std::mem::take(&mut is_first) {
                        out.push(b',');
                    }
                    write_number(kind, number, out);
                }
            }
            (_, Found::Bytes(from, to)) => {
                let bytes = &self.message[from..to];
                out.push(b'"');
                let start = out.len();
                out.resize(start + base64::encoded_len(bytes.len(), true).unwrap_or(0), 0);
                let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
                out.truncate(start + written);
                out.push(b'"');
            }
            (_, Found::Number(number)) => write_number(kind, number, out),
        }
    }
}

/// The steps are used up.
struct Later;

/// The next occurrence of a list's element, or the last one of a field; where to look further is noted.
fn find(
    message: &[u8],
    open: &mut Open,
    field: &Field,
    steps_max: &mut usize,
) -> Result<Option<Found>, Later> {
    while open.at < open.to {
        *steps_max = steps_max.checked_sub(1).ok_or(Later)?;
        let Some((number, found, next)) = occurrence(message, open.at, open.to) else { return Ok(None) };
        open.at = next;
        if number == field.number {
            open.last = found;
            if field.repeated && found.is_some() {
                break;
            }
        }
    }
    Ok(open.last.take())
}

/// Number, value (of the kinds that are in use) and end of the occurrence of a field.
fn occurrence(message: &[u8], at: usize, to: usize) -> Option<(u32, Option<Found>, usize)> {
    let mut rest = message.get(at..to)?;
    let key = decode_varint(&mut rest).ok()?;
    let found = match key & 7 {
        0 => Some(Found::Number(decode_varint(&mut rest).ok()?)),
        2 => {
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let from = to - rest.len();
            rest = rest.get(length..)?;
            Some(Found::Bytes(from, from + length))
        }
        1 => {
            rest = rest.get(8..)?;
            None
        }
        5 => {
            rest = rest.get(4..)?;
            None
        }
        _ => return None,
    };
    Some((u32::try_from(key >> 3).ok()?, found, to - rest.len()))
}

fn write_number(kind: Kind, number: u64, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = match kind {
        Kind::Bool => out.write_all(if number == 0 { b"false" } else { b"true" }),
        Kind::Int32 => write!(out, "{}", number as i32),
        Kind::Uint32 => write!(out, "{}", number as u32),
        Kind::Int64 => write!(out, "\"{}\"", number as i64),
        Kind::Enum(values) => match values.values.iter().find(|(_, value)| *value == number as i32) {
            Some((name, _)) => write!(out, "\"{name}\""),
            None => write!(out, "{}", number as i32),
        },
        _ => write!(out, "\"{number}\""),
    };
}

/// Appends a text with its quotes.
pub fn text(text: &str, texts: Texts, out: &mut Vec<u8>) {
    out.push(b'"');
    for letter in text.chars() {
        let escaped = match letter {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            letter => {
                let is_bad = letter < ' '
                    || (texts == Texts::ForHtml
                        && matches!(letter, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'));
                if is_bad {
                    // Writing to memory does not fail.
                    let _ = write!(out, "\\u{:04x}", u32::from(letter));
                } else {
                    out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                }
                continue;
            }
        };
        out.extend_from_slice(escaped.as_bytes());
    }
    out.push(b'"');
}
