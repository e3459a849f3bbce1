//! Lines of standard input as words.

use crate::app::{Failure, exit};
use crate::gotext;

/// Cuts a line into words: bare ones up to a space, 'as they are', and "with Go's escapes". A quote that opens and is
/// never closed is passed over, as in etcdctl.
///
/// # Errors
/// [`exit::INVALID_INPUT`] for escapes that are none.
pub(super) fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while let Some(first) = rest.first() {
        let inside = &rest[1..];
        rest = match first {
            b'\'' => match inside.iter().position(|byte| *byte == b'\'') {
                Some(end) => {
                    words.push(inside[..end].to_vec());
                    &inside[end + 1..]
                }
                None => inside,
            },
            b'"' if is_closed(inside) => {
                let (word, after) = gotext::unquote_prefix(rest)
                    .ok_or_else(|| Failure::new(exit::INVALID_INPUT, "invalid syntax"))?;
                words.push(word);
                after
            }
            b'"' => inside,
            _ => {
                let (word, after) = split_word(rest);
                words.push(word.to_vec());
                after
            }
        };
        rest = rest.trim_ascii_start();
    }
    Ok(words)
}

/// Whether a double quote without a backslash before it is still to come.
fn is_closed(inside: &[u8]) -> bool {
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return true,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
    false
}

/// What stands before the first space, and the rest.
pub(super) fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len()))
}
