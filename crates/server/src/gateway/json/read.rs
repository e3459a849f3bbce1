//! From JSON to protobuf, as Go's `protojson` reads it with unknown fields discarded.
//!
//! The value is known to be JSON ([`super::scan`]), so what is left to go wrong is what it says. Nothing recurses: what
//! is open is a stack. Lengths of messages within messages are known when they are closed, and are put between the
//! pieces in one pass at the end.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::config::quote;
use crate::gateway::schema::{Enum, Field, Kind, Message};
use crate::grpc::answer::PREFIX_BYTES;

/// How much of a value is repeated in the error that it makes.
const SHOWN_BYTES_MAX: usize = 1024;

/// A message with gRPC's prefix. `bytes_max`: longest message; of a longer one more than that is made, and no matter what.
///
/// # Errors
/// In the words of `protojson`, whose first separator is a space or a no-break space, as a binary is built; here a space.
pub fn read(json: &[u8], schema: &'static Message, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut reader = Reader { lexer: Lexer { json, at: 0 }, out: Pieces::default(), open: Vec::new() };
    // Lengths within a message have 32 bits here, as its own has in gRPC's prefix.
    reader.run(schema, bytes_max.min(u32::MAX as usize)).map_err(|error| format!("proto: {error}"))?;
    Ok(reader.out.join())
}

struct Reader<'a> {
    lexer: Lexer<'a>,
    out: Pieces,
    open: Vec<Open>,
}

/// What the next token is in.
enum Open {
    /// A message, with the fields and the groups that were set, and its place among the pieces unless it is the outermost.
    Message { schema: &'static Message, seen: u64, groups: u64, place: Option<usize> },
    /// A list, with its place if it is packed.
    List { field: &'static Field, place: Option<usize> },
}

impl Reader<'_> {
    fn run(&mut self, schema: &'static Message, bytes_max: usize) -> Result<(), String> {
        self.enter(schema, None)?;
        while let Some(open) = self.open.last_mut() {
            match open {
                Open::List { field, place } => {
                    let (field, place) = (*field, *place);
                    if self.lexer.peek() == Some(b']') {
                        self.lexer.token();
                        self.open.pop();
                        if let Some(place) = place {
                            self.out.close_list(field.number, place);
                        }
                    } else {
                        self.value(field, true)?;
                    }
                }
                Open::Message { place, .. } => {
                    let place = *place;
                    let token = self.lexer.token();
                    if token.is(b'}') {
                        self.open.pop();
                        if let Some(place) = place {
                            self.out.close(place);
                        }
                    } else {
                        self.member(token)?;
                    }
                }
            }
            if self.out.length() > bytes_max {
                return Ok(());
            }
        }
        Ok(())
    }

    fn enter(&mut self, schema: &'static Message, place: Option<usize>) -> Result<(), String> {
        let token = self.lexer.token();
        if !token.is(b'{') {
            return Err(self.unexpected(token));
        }
        self.open.push(Open::Message { schema, seen: 0, groups: 0, place });
        Ok(())
    }

    /// A name, and the beginning of its value.
    fn member(&mut self, name: Token) -> Result<(), String> {
        let text = self.lexer.text(name)?;
        let Some(Open::Message { schema, seen, groups, .. }) = self.open.last_mut() else { return Ok(()) };
        let schema: &'static Message = schema;
        let Some(index) = schema.field(&text) else { return self.lexer.skip() };
        let field = &schema.fields[index];
        let bit = 1 << index;
        if *seen & bit != 0 {
            let shown = self.lexer.shown(name);
            return Err(self.at(name, &format!("duplicate field {shown}")));
        }
        *seen |= bit;
        if self.lexer.peek() == Some(b'n') {
            self.lexer.token();
            return Ok(());
        }
        if field.repeated {
            let token = self.lexer.token();
            if !token.is(b'[') {
                return Err(self.unexpected(token));
            }
            let place = field.kind.is_packed().then(|| self.out.open(field.number));
            self.open.push(Open::List { field, place });
            return Ok(());
        }
        if let Some(group) = field.oneof {
            let bit = 1 << group;
            if *groups & bit != 0 {
                let (shown, full) = (self.lexer.shown(name), schema.oneofs[usize::from(group)]);
                return Err(self.at(name, &format!("error parsing {shown}, oneof {full} is already set")));
            }
            *groups |= bit;
        }
        self.value(field, false)
    }

    /// A value, or the beginning of a message.
    fn value(&mut self, field: &'static Field, is_element: bool) -> Result<(), String> {
        if let Kind::Message(schema) = field.kind {
            let place = self.out.open(field.number);
            return self.enter(schema, Some(place));
        }
        let token = self.lexer.token();
        let invalid = |reader: &Self| {
            let (kind, shown) = (field.kind.name(), reader.lexer.shown(token));
            reader.at(token, &format!("invalid value for {kind} field {}: {shown}", field.json))
        };
        // What is 0 or empty is not sent, but in a list, or where having been set says something.
        let is_shown = is_element || field.oneof.is_some();
        let raw = self.lexer.raw(token);
        match field.kind {
            Kind::String | Kind::Bytes => {
                if raw.first() != Some(&b'"') {
                    return Err(invalid(self));
                }
                let text = self.lexer.text(token)?;
                let bytes = match field.kind {
                    Kind::String => Cow::Borrowed(text.as_bytes()),
                    _ => Cow::Owned(from_base64(&text).ok_or_else(|| invalid(self))?),
                };
                if is_shown || !bytes.is_empty() {
                    self.out.bytes_field(field.number, &bytes);
                }
            }
            kind => {
                let number = match kind {
                    Kind::Bool => match raw {
                        b"true" => Some(1),
                        b"false" => Some(0),
                        _ => None,
                    },
                    Kind::Enum(values) => match self.enumerated(token, values)? {
                        Named::Number(number) => Some(number),
                        // As if it had not been there.
                        Named::Unknown => return Ok(()),
                        Named::Invalid => None,
                    },
                    kind => self.integer(token, kind)?,
                };
                let number = number.ok_or_else(|| invalid(self))?;
                if is_element {
                    encode_varint(number, &mut self.out.bytes);
                } else if is_shown || number != 0 {
                    encode_key(field.number, WireType::Varint, &mut self.out.bytes);
                    encode_varint(number, &mut self.out.bytes);
                }
            }
        }
        Ok(())
    }

    /// A whole number, bare or in a string, as a varint has it.
    fn integer(&self, token: Token, kind: Kind) -> Result<Option<u64>, String> {
        let raw = self.lexer.raw(token);
        let text;
        let number = match raw.first() {
            Some(b'"') => {
                text = self.lexer.text(token)?;
                text.as_bytes()
            }
            _ => raw,
        };
        Ok(whole(number).and_then(|(is_negative, magnitude)| {
            let signed = || match is_negative {
                true => 0_i64.checked_sub_unsigned(magnitude),
                false => i64::try_from(magnitude).ok(),
            };
            match kind {
                Kind::Int32 => signed().and_then(|n| i32::try_from(n).ok()).map(|n| i64::from(n) as u64),
                Kind::Int64 => signed().map(|n| n as u64),
                // Go's parser takes no sign here, not even before a 0.
                _ if is_negative => None,
                Kind::Uint32 => u32::try_from(magnitude).ok().map(u64::from),
                _ => Some(magnitude),
            }
        }))
    }

    fn enumerated(&self, token: Token, values: &Enum) -> Result<Named, String> {
        if self.lexer.raw(token).first() == Some(&b'"') {
            let name = self.lexer.text(token)?;
            let known = values.values.iter().find(|(known, _)| *known == name);
            return Ok(known.map_or(Named::Unknown, |(_, number)| Named::Number(i64::from(*number) as u64)));
        }
        Ok(self.integer(token, Kind::Int32)?.map_or(Named::Invalid, Named::Number))
    }

    fn at(&self, token: Token, text: &str) -> String {
        format!("({}): {text}", self.lexer.place(token.from))
    }

    fn unexpected(&self, token: Token) -> String {
        let (place, shown) = (self.lexer.place(token.from), self.lexer.shown(token));
        format!("syntax error ({place}): unexpected token {shown}")
    }
}

/// What an enum's value is.
enum Named {
    Number(u64),
    Unknown,
    Invalid,
}

/// Where a token is: a string with its quotes, a number, a word, a bracket or a brace.
#[derive(Clone, Copy)]
struct Token {
    from: usize,
    to: usize,
    first: u8,
}

impl Token {
    fn is(self, byte: u8) -> bool {
        self.first == byte
    }
}

struct Lexer<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    /// The first byte of the next token.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.json[self.at..];
        let blank = rest.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':'));
        self.at += blank.unwrap_or(rest.len());
        self.json.get(self.at).copied()
    }

    /// The next token; commas and colons are where they have to be.
    fn token(&mut self) -> Token {
        let first = self.peek().unwrap_or(b'}');
        let rest = &self.json[self.at..];
        let length = match first {
            b'{' | b'}' | b'[' | b']' => 1,
            b'"' => {
                let mut is_escaped = true;
                let end = rest.iter().position(|&byte| match std::mem::take(&mut is_escaped) {
                    true => false,
                    false if byte == b'\\' => {
                        is_escaped = true;
                        false
                    }
                    false => byte == b'"',
                });
                end.map_or(rest.len(), |end| end + 1)
            }
            _ => rest
                .iter()
                .position(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b',' | b']' | b'}'))
                .unwrap_or(rest.len()),
        };
        let from = self.at;
        self.at = (from + length).min(self.json.len());
        Token { from, to: self.at, first }
    }

    fn raw(&self, token: Token) -> &'a [u8] {
        &self.json[token.from..token.to]
    }

    /// A token in an error, cut where it is long.
    fn shown(&self, token: Token) -> Cow<'a, str> {
        let raw = self.raw(token);
        match raw.get(..SHOWN_BYTES_MAX) {
            Some(begin) if raw.len() > SHOWN_BYTES_MAX => {
                format!("{}...", String::from_utf8_lossy(begin)).into()
            }
            _ => String::from_utf8_lossy(raw),
        }
    }

    /// What a string says.
    fn text(&self, token: Token) -> Result<Cow<'a, str>, String> {
        let raw = self.raw(token);
        let inside = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
        let syntax = |text: &str| format!("syntax error ({}): {text}", self.place(token.from));
        let Ok(inside) = std::str::from_utf8(inside) else {
            return Err(syntax("invalid UTF-8 in string"));
        };
        if !inside.contains('\\') {
            return Ok(Cow::Borrowed(inside));
        }
        let mut text = String::with_capacity(inside.len());
        let mut rest = inside;
        while let Some((plain, escape)) = rest.split_once('\\') {
            text.push_str(plain);
            let mut letters = escape.chars();
            let letter = letters.next().unwrap_or('\\');
            rest = letters.as_str();
            text.push(match letter {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => match unicode(rest) {
                    Some((letter, length)) => {
                        rest = &rest[length..];
                        letter
                    }
                    // It takes six more bytes for the other half, whatever they are.
                    None => {
                        let at = token.to - 1 - rest.len() + 4;
                        let Some(half) = self.json.get(at..at + 6) else {
                            return Err("unexpected EOF".into());
                        };
                        return Err(syntax(&format!("invalid escape code {} in string", quoted(half))));
                    }
                },
                other => other,
            });
        }
        text.push_str(rest);
        Ok(Cow::Owned(text))
    }

    /// Passes over a value, which may be anything.
    fn skip(&mut self) -> Result<(), String> {
        let mut depth = 0_usize;
        loop {
            let token = self.token();
            match token.first {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                b'"' => drop(self.text(token)?),
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn place(&self, at: usize) -> String {
        let before = &self.json[..at.min(self.json.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        format!("line {line}:{column}")
    }
}

/// Bytes as Go quotes them.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let text = quote(chunk.valid());
        out.push_str(&text[1..text.len() - 1]);
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out.push('"');
    out
}

/// The character behind `\u`, and how many bytes it takes; `None` for half of a pair.
fn unicode(text: &str) -> Option<(char, usize)> {
    let unit = |text: &str| u16::from_str_radix(text.get(..4)?, 16).ok();
    let first = unit(text)?;
    if let Some(letter) = char::from_u32(first.into()) {
        return Some((letter, 4));
    }
    let second = unit(text.get(4..)?.strip_prefix("\\u")?)?;
    let letter = char::decode_utf16([first, second]).next()?.ok()?;
    Some((letter, 10))
}

/// Sign and magnitude of a JSON number that has no fraction, however it is written; `None` for others, and for those that no
/// field holds.
fn whole(number: &[u8]) -> Option<(bool, u64)> {
    let (is_negative, rest) = match number.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, number),
    };
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, rest) = rest.split_at(digits(rest));
    if before.is_empty() || (before.len() > 1 && before[0] == b'0') {
        return None;
    }
    let (mut behind, rest) = match rest.split_first() {
        Some((b'.', fraction)) if digits(fraction) > 0 => fraction.split_at(digits(fraction)),
        _ => (&[][..], rest),
    };
    let exponent = match rest.split_first() {
        None => "0",
        Some((b'e' | b'E', exponent)) => std::str::from_utf8(exponent).ok()?,
        Some(_) => return None,
    };
    let bare = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if bare.is_empty() || !bare.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    while let Some((b'0', shorter)) = behind.split_last() {
        behind = shorter;
    }
    let before = if before == b"0" { &[][..] } else { before };
    let all: Vec<u8> = before.iter().chain(behind).copied().collect();
    if all.is_empty() {
        return Some((false, 0));
    }
    let exponent = i64::from(exponent.parse::<i32>().ok()?);
    // Where the point is then, counted in digits.
    let point = i64::try_from(before.len()).ok()? + exponent;
    let length = i64::try_from(all.len()).ok()?;
    if exponent >= 0 && point > 20 {
        return None;
    }
    if exponent < 0 && !behind.is_empty() {
        return None;
    }
    let cut = usize::try_from(point).ok()?;
    if point < length && all[cut..].iter().any(|digit| *digit != b'0') {
        return None;
    }
    let mut magnitude = 0_u64;
    for place in 0..cut {
        let digit = all.get(place).map_or(0, |digit| u64::from(digit - b'0'));
        magnitude = magnitude.checked_mul(10)?.checked_add(digit)?;
    }
    Some((is_negative, magnitude))
}

/// In either alphabet; padded if it is as long as padded text is.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    const fn engine(alphabet: &base64::alphabet::Alphabet, padding: DecodePaddingMode) -> GeneralPurpose {
        // Go lets bits that belong to no byte be anything.
        let config = GeneralPurposeConfig::new()
            .with_decode_padding_mode(padding)
            .with_decode_allow_trailing_bits(true);
        GeneralPurpose::new(alphabet, config)
    }
    use DecodePaddingMode::{RequireCanonical, RequireNone};
    const ENGINES: [[GeneralPurpose; 2]; 2] = [
        [engine(&STANDARD, RequireNone), engine(&STANDARD, RequireCanonical)],
        [engine(&URL_SAFE, RequireNone), engine(&URL_SAFE, RequireCanonical)],
    ];
    // Go passes over line ends.
    let stripped: Cow<'_, str> = match text.contains(['\r', '\n']) {
        true => text.replace(['\r', '\n'], "").into(),
        false => text.into(),
    };
    let is_url = text.contains(['-', '_']);
    let is_padded = text.len().is_multiple_of(4);
    ENGINES[usize::from(is_url)][usize::from(is_padded)].decode(stripped.as_bytes()).ok()
}

/// A message whose lengths are still missing.
#[derive(Default)]
struct Pieces {
    bytes: Vec<u8>,
    /// What has a length of its own, in the order in which they begin.
    parts: Vec<Part>,
    /// Those that are open, the innermost last.
    open: Vec<usize>,
}

struct Part {
    /// Where it begins in the bytes.
    from: u32,
    /// Its length with the lengths that are written within it; while it is open, what those take alone.
    length: u32,
}

impl Part {
    fn from(&self) -> usize {
        self.from as usize
    }
}

impl Pieces {
    /// How long the message is at least: each part's own length takes a byte or more.
    fn length(&self) -> usize {
        self.bytes.len() + self.parts.len()
    }

    /// Begins a part of this field.
    fn open(&mut self, field: u32) -> usize {
        encode_key(field, WireType::LengthDelimited, &mut self.bytes);
        self.parts.push(Part { from: self.bytes.len() as u32, length: 0 });
        self.open.push(self.parts.len() - 1);
        self.parts.len() - 1
    }

    fn close(&mut self, place: usize) {
        self.open.pop();
        let part = &mut self.parts[place];
        let own = self.bytes.len() - part.from();
        let inserted = part.length as usize;
        part.length = (own + inserted) as u32;
        let inserted = inserted + encoded_len_varint(part.length.into());
        if let Some(outer) = self.open.last() {
            self.parts[*outer].length += inserted as u32;
        }
    }

    /// Of a list without elements nothing is left.
    fn close_list(&mut self, field: u32, place: usize) {
        match self.parts.pop_if(|part| part.from() == self.bytes.len()) {
            Some(part) => {
                self.open.pop();
                self.bytes.truncate(part.from() - key_len(field));
            }
            None => self.close(place),
        }
    }

    fn bytes_field(&mut self, field: u32, bytes: &[u8]) {
        encode_key(field, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(bytes.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(bytes);
    }

    /// All of it, behind gRPC's prefix.
    fn join(self) -> Vec<u8> {
        let mut message = Vec::with_capacity(PREFIX_BYTES + self.bytes.len() + 4 * self.parts.len());
        message.resize(PREFIX_BYTES, 0);
        let mut done = 0;
        for part in self.parts {
            message.extend_from_slice(&self.bytes[done..part.from()]);
            encode_varint(part.length.into(), &mut message);
            done = part.from();
        }
        message.extend_from_slice(&self.bytes[done..]);
        let length = u32::try_from(message.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
        message[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        message
    }
}
