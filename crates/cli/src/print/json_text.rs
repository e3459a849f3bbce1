//! JSON as Go's `encoding/json` writes it: fields in the order of the struct, empty ones left out, bytes in base64,
//! characters that matter in HTML escaped.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One object that is being written.
pub(super) struct Object<'a> {
    out: &'a mut String,
    first: bool,
}

/// Writes an object.
pub(super) fn object(out: &mut String, fill: impl FnOnce(&mut Object<'_>)) {
    out.push('{');
    fill(&mut Object { out, first: true });
    out.push('}');
}

/// Writes a list, one item with each call of `item`.
pub(super) fn array<T>(
    out: &mut String,
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(&mut String, T),
) {
    out.push('[');
    for (n, value) in items.into_iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        item(out, value);
    }
    out.push(']');
}

/// Writes a string.
pub(super) fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Writes bytes, in base64.
pub(super) fn base64(out: &mut String, value: &[u8]) {
    out.push('"');
    STANDARD.encode_string(value, out);
    out.push('"');
}

impl Object<'_> {
    /// The name of a field; its value is to follow.
    pub fn name(&mut self, name: &str) -> &mut String {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
        string(self.out, name);
        self.out.push(':');
        self.out
    }

    /// A number, unless it is zero.
    pub fn number(&mut self, name: &str, value: impl Into<i128>) {
        let value = value.into();
        if value != 0 {
            let _ = write!(self.name(name), "{value}");
        }
    }

    /// A number, zero or not.
    pub fn number_always(&mut self, name: &str, value: i64) {
        let _ = write!(self.name(name), "{value}");
    }

    /// `true`, or nothing.
    pub fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.name(name).push_str("true");
        }
    }

    /// A string, unless it is empty.
    pub fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            string(self.name(name), value);
        }
    }

    /// Bytes, unless there are none.
    pub fn bytes(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            base64(self.name(name), value);
        }
    }

    /// An object, unless there is none.
    pub fn object<T>(&mut self, name: &str, value: Option<&T>, fill: impl FnOnce(&mut Object<'_>, &T)) {
        if let Some(value) = value {
            object(self.name(name), |inner| fill(inner, value));
        }
    }

    /// A list of objects, unless it is empty.
    pub fn objects<T>(&mut self, name: &str, list: &[T], mut fill: impl FnMut(&mut Object<'_>, &T)) {
        if !list.is_empty() {
            array(self.name(name), list, |out, value| object(out, |inner| fill(inner, value)));
        }
    }
}
