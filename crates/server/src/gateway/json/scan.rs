//! Where JSON values end in what a client sends, found as it comes.
//!
//! A machine with a stack, a byte at a time, as Go's `encoding/json` has one: what is no JSON is refused with its
//! words, at the byte at which it would be.

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::gateway::cut;

/// Go's bound for values in values.
const DEPTH_MAX: usize = 10_000;

/// Values one behind the other, cut out of what has come.
#[derive(Debug)]
pub struct Values {
    bytes: BytesMut,
    /// How far the machine has looked.
    scanned: usize,
    scanner: Scanner,
    bytes_max: usize,
}

/// Why there is no next value.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// In the words of Go's decoder.
    Syntax(String),
    /// It is longer than any request.
    TooLong,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Syntax(text) => f.write_str(text),
            Broken::TooLong => f.write_str("too long"),
        }
    }
}

impl Values {
    /// `bytes_max`: longest value.
    pub fn new(bytes_max: usize) -> Self {
        Values { bytes: BytesMut::new(), scanned: 0, scanner: Scanner::default(), bytes_max }
    }

    /// Takes what has come.
    pub fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    /// How much is kept.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The next whole value, `None` if more has to come.
    ///
    /// # Errors
    /// If there can be none any more.
    pub fn value(&mut self) -> Result<Option<Bytes>, Broken> {
        while let Some(&byte) = self.bytes.get(self.scanned) {
            if self.scanner.is_in_string() {
                // The most of what clients send needs no machine.
                let rest = &self.bytes[self.scanned..];
                let plain = rest.iter().position(|&byte| byte < b' ' || byte == b'"' || byte == b'\\');
                self.scanned += plain.unwrap_or(rest.len());
                if plain != Some(0) {
                    continue;
                }
            }
            match self.scanner.step(byte).map_err(Broken::Syntax)? {
                Step::More => self.scanned += 1,
                Step::Skip => {
                    let _ = self.bytes.split_to(self.scanned + 1);
                    self.scanned = 0;
                }
                Step::Whole => return Ok(Some(self.take(self.scanned + 1))),
                Step::WholeBefore => return Ok(Some(self.take(self.scanned))),
            }
        }
        if self.bytes.len() > self.bytes_max { Err(Broken::TooLong) } else { Ok(None) }
    }

    /// The last value, once nothing comes any more: a number ends there too. `None` if there is none.
    ///
    /// # Errors
    /// If it is cut.
    pub fn end(&mut self) -> Result<Option<Bytes>, Broken> {
        if let Some(value) = self.value()? {
            return Ok(Some(value));
        }
        if self.bytes.is_empty() {
            return Ok(None);
        }
        match self.scanner.step(b' ') {
            Ok(Step::WholeBefore) => Ok(Some(self.take(self.scanned))),
            _ => Err(Broken::Syntax("unexpected EOF".into())),
        }
    }

    fn take(&mut self, length: usize) -> Bytes {
        (self.scanned, self.scanner) = (0, Scanner::default());
        cut(&mut self.bytes, length).freeze()
    }
}

/// What a byte was.
enum Step {
    /// Part of the value.
    More,
    /// Space before it.
    Skip,
    /// Its last one.
    Whole,
    /// The first one behind it.
    WholeBefore,
}

#[derive(Debug, Default)]
struct Scanner {
    state: State,
    open: Vec<Open>,
}

/// What a value is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Key,
    Value,
    Element,
}

/// What may come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    AfterValue,
    InString,
    Escape,
    /// So many hexadecimal digits.
    Hex(u8),
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    Sign,
    ExponentDigits,
    /// The rest of `true`, `false` or `null`, of which so many letters have come.
    Literal(&'static str, usize),
}

impl Scanner {
    fn is_in_string(&self) -> bool {
        self.state == State::InString
    }

    fn step(&mut self, byte: u8) -> Result<Step, String> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let next = match self.state {
            State::Value | State::ValueOrEnd | State::Key | State::KeyOrEnd if is_space => {
                return Ok(if self.open.is_empty() { Step::Skip } else { Step::More });
            }
            State::ValueOrEnd if byte == b']' => return self.after_value(byte),
            State::Value | State::ValueOrEnd => self.value(byte)?,
            State::KeyOrEnd if byte == b'}' => {
                if let Some(open) = self.open.last_mut() {
                    *open = Open::Value;
                }
                return self.after_value(byte);
            }
            State::Key | State::KeyOrEnd => match byte {
                b'"' => State::InString,
                _ => return Err(unexpected(byte, "looking for beginning of object key string")),
            },
            State::AfterValue => return self.after_value(byte),
            State::InString => match byte {
                b'"' => return Ok(self.end_literal()),
                b'\\' => State::Escape,
                ..b' ' => return Err(unexpected(byte, "in string literal")),
                _ => State::InString,
            },
            State::Escape => match byte {
                b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => State::InString,
                b'u' => State::Hex(4),
                _ => return Err(unexpected(byte, "in string escape code")),
            },
            State::Hex(left) => match byte.is_ascii_hexdigit() {
                true if left == 1 => State::InString,
                true => State::Hex(left - 1),
                false => return Err(unexpected(byte, "in \\u hexadecimal character escape")),
            },
            State::Literal(word, came) => match word.as_bytes()[came] {
                wanted if wanted == byte && came + 1 == word.len() => return Ok(self.end_literal()),
                wanted if wanted == byte => State::Literal(word, came + 1),
                wanted => {
                    let context = format!("in literal {word} (expecting {})", quoted(wanted));
                    return Err(unexpected(byte, &context));
                }
            },
            number => match in_number(number, byte)? {
                Some(next) => next,
                None => return self.after_value(byte),
            },
        };
        self.state = next;
        Ok(Step::More)
    }

    fn value(&mut self, byte: u8) -> Result<State, String> {
        Ok(match byte {
            b'{' => self.enter(byte, Open::Key, State::KeyOrEnd)?,
            b'[' => self.enter(byte, Open::Element, State::ValueOrEnd)?,
            b'"' => State::InString,
            b'-' => State::Minus,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Digits,
            b't' => State::Literal("true", 1),
            b'f' => State::Literal("false", 1),
            b'n' => State::Literal("null", 1),
            _ => return Err(unexpected(byte, "looking for beginning of value")),
        })
    }

    fn enter(&mut self, byte: u8, open: Open, state: State) -> Result<State, String> {
        if self.open.len() == DEPTH_MAX {
            return Err(unexpected(byte, "exceeded max depth"));
        }
        self.open.push(open);
        Ok(state)
    }

    /// A string or a word is over, and its last byte belongs to it.
    fn end_literal(&mut self) -> Step {
        self.state = State::AfterValue;
        if self.open.is_empty() { Step::Whole } else { Step::More }
    }

    fn after_value(&mut self, byte: u8) -> Result<Step, String> {
        self.state = State::AfterValue;
        let Some(open) = self.open.last_mut() else { return Ok(Step::WholeBefore) };
        match (*open, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') => {}
            (Open::Key, b':') => (*open, self.state) = (Open::Value, State::Value),
            (Open::Value, b',') => (*open, self.state) = (Open::Key, State::Key),
            (Open::Element, b',') => self.state = State::Value,
            (Open::Value, b'}') | (Open::Element, b']') => {
                self.open.pop();
                if self.open.is_empty() {
                    return Ok(Step::Whole);
                }
            }
            (Open::Key, _) => return Err(unexpected(byte, "after object key")),
            (Open::Value, _) => return Err(unexpected(byte, "after object key:value pair")),
            (Open::Element, _) => return Err(unexpected(byte, "after array element")),
        }
        Ok(Step::More)
    }
}

/// The next state of a number, `None` if it ended before this byte.
fn in_number(state: State, byte: u8) -> Result<Option<State>, String> {
    let is_digit = byte.is_ascii_digit();
    let is_exponent = matches!(byte, b'e' | b'E');
    Ok(match state {
        State::Minus if byte == b'0' => Some(State::Zero),
        State::Minus if is_digit => Some(State::Digits),
        State::Minus => return Err(unexpected(byte, "in numeric literal")),
        State::Digits if is_digit => Some(State::Digits),
        State::Zero | State::Digits if byte == b'.' => Some(State::Point),
        State::Zero | State::Digits | State::Fraction if is_exponent => Some(State::Exponent),
        State::Point | State::Fraction if is_digit => Some(State::Fraction),
        State::Point => return Err(unexpected(byte, "after decimal point in numeric literal")),
        State::Exponent if matches!(byte, b'+' | b'-') => Some(State::Sign),
        State::Exponent | State::Sign | State::ExponentDigits if is_digit => Some(State::ExponentDigits),
        State::Exponent | State::Sign => return Err(unexpected(byte, "in exponent of numeric literal")),
        _ => None,
    })
}

fn unexpected(byte: u8, context: &str) -> String {
    format!("invalid character {} {context}", quoted(byte))
}

/// A byte as Go shows a character of that number.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        b'\\' => r"'\\'".into(),
        7 => r"'\a'".into(),
        8 => r"'\b'".into(),
        9 => r"'\t'".into(),
        10 => r"'\n'".into(),
        11 => r"'\v'".into(),
        12 => r"'\f'".into(),
        13 => r"'\r'".into(),
        ..b' ' | 0x7f => format!(r"'\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!(r"'\u{:04x}'", byte),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All values, and how it ends; the bytes come in pieces of this size.
    fn cut(text: &[u8], piece: usize) -> (Vec<String>, Option<Broken>) {
        let mut values = Values::new(1 << 20);
        let mut got = Vec::new();
        let mut take = |value: Bytes| got.push(String::from_utf8_lossy(&value).into_owned());
        for chunk in text.chunks(piece) {
            values.push(chunk);
            loop {
                match values.value() {
                    Ok(Some(value)) => take(value),
                    Ok(None) => break,
                    Err(broken) => return (got, Some(broken)),
                }
            }
        }
        match values.end() {
            Ok(Some(value)) => take(value),
            Ok(None) => {}
            Err(broken) => return (got, Some(broken)),
        }
        (got, None)
    }

    #[test]
    fn values_are_cut_where_go_cuts_them() {
        let broken = |text: &str| Some(Broken::Syntax(text.into()));
        for (text, values, end) in [
            ("", &[][..], None),
            (" \r\n\t", &[], None),
            (
                r#"{"a":[1,-0.5e+3,{}],"b":"\u00e9\\\""} "#,
                &[r#"{"a":[1,-0.5e+3,{}],"b":"\u00e9\\\""}"#],
                None,
            ),
            ("{}{}\n[] \"x\" true", &["{}", "{}", "[]", "\"x\"", "true"], None),
            ("1 2", &["1", "2"], None),
            ("nullnull", &["null", "null"], None),
            ("01", &["0", "1"], None),
            ("{ }", &["{ }"], None),
            ("{bad", &[], broken("invalid character 'b' looking for beginning of object key string")),
            ("{\"a\"", &[], broken("unexpected EOF")),
            ("\"a", &[], broken("unexpected EOF")),
            ("tru", &[], broken("unexpected EOF")),
            ("-", &[], broken("unexpected EOF")),
            ("{} [1", &["{}"], broken("unexpected EOF")),
            ("trua", &[], broken("invalid character 'a' in literal true (expecting 'e')")),
            ("[1 2]", &[], broken("invalid character '2' after array element")),
            ("{\"a\" 1}", &[], broken("invalid character '1' after object key")),
            ("{\"a\":1 \"b\"}", &[], broken("invalid character '\"' after object key:value pair")),
            ("{\"a\":1,}", &[], broken("invalid character '}' looking for beginning of object key string")),
            ("[1,]", &[], broken("invalid character ']' looking for beginning of value")),
            ("[1}", &[], broken("invalid character '}' after array element")),
            ("{\"a\":\"\n\"}", &[], broken(r"invalid character '\n' in string literal")),
            (r#""\x""#, &[], broken("invalid character 'x' in string escape code")),
            (r#""\u12g4""#, &[], broken(r"invalid character 'g' in \u hexadecimal character escape")),
            ("-a", &[], broken("invalid character 'a' in numeric literal")),
            ("1.a", &[], broken("invalid character 'a' after decimal point in numeric literal")),
            ("1ea", &[], broken("invalid character 'a' in exponent of numeric literal")),
            ("\u{e9}", &[], broken("invalid character '\u{c3}' looking for beginning of value")),
            ("\0", &[], broken(r"invalid character '\x00' looking for beginning of value")),
        ] {
            for piece in [1, 2, 3, 1000] {
                let got = cut(text.as_bytes(), piece);
                assert_eq!(
                    (got.0.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), &got.1),
                    (values, &end),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let deep = vec![b'['; DEPTH_MAX + 1];
        assert_eq!(
            cut(&deep, 4096).1,
            Some(Broken::Syntax("invalid character '[' exceeded max depth".into()))
        );
        let mut deep = vec![b'['; DEPTH_MAX];
        deep.extend(vec![b']'; DEPTH_MAX]);
        assert_eq!(cut(&deep, 4096).0.len(), 1);

        let mut values = Values::new(10);
        values.push(b"      \"234567890");
        assert_eq!(values.value(), Ok(None), "space before a value is not kept");
        values.push(b"1");
        assert_eq!(values.value(), Err(Broken::TooLong));
    }
}
