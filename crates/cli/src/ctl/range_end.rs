//! Which keys a command means: one, an interval, a prefix, or all from a key on.

use bytes::Bytes;

use crate::app::{Failure, exit};
use crate::flag::Flags;

/// The key and range end of a request, from a key, perhaps an end, and the flags `--prefix` and `--from-key`.
///
/// # Errors
/// [`exit::BAD_ARGS`] for combinations that mean nothing.
pub(super) fn key_range(flags: &Flags, key: &[u8], end: Option<&[u8]>) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    if end.is_some() && (prefix || from_key) {
        let text = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
        return Err(Failure::new(exit::BAD_ARGS, text));
    }
    let open_end = || Bytes::from_static(b"\0");
    Ok(match (prefix || from_key, end) {
        // Every key is above the empty one.
        (true, _) if key.is_empty() => (open_end(), open_end()),
        (true, _) if from_key => (Bytes::copy_from_slice(key), open_end()),
        (true, _) => (Bytes::copy_from_slice(key), prefix_end(key)),
        (false, end) => (Bytes::copy_from_slice(key), Bytes::copy_from_slice(end.unwrap_or_default())),
    })
}

/// # Errors
/// [`exit::BAD_ARGS`] when both flags are given.
pub(super) fn one_of_prefix_and_from_key(flags: &Flags) -> Result<(), Failure> {
    if flags.bool("prefix") && flags.bool("from-key") {
        let text = "`--prefix` and `--from-key` cannot be set at the same time, choose one";
        return Err(Failure::new(exit::BAD_ARGS, text));
    }
    Ok(())
}

/// The first key above all that begin with `prefix`; after 0xff bytes alone there is none.
fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(b"\0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_prefixes() {
        for (prefix, end) in [
            (&b"/"[..], &b"0"[..]),
            (b"a/", b"a0"),
            (b"a\xff\xff", b"b"),
            (b"\xff", b"\0"),
            (b"a\xff\x01", b"a\xff\x02"),
        ] {
            assert_eq!(prefix_end(prefix), end);
        }
    }
}
