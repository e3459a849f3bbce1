//! Which keys a command means: one, an interval, a prefix, or all from a key on.

use bytes::Bytes;
use client::prefix_range;

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
    Ok(match (prefix || from_key, end) {
        // Every key is above the empty one, and begins with it.
        (true, _) if prefix || key.is_empty() => prefix_range(key),
        (true, _) => (Bytes::copy_from_slice(key), Bytes::from_static(b"\0")),
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
