//! The interval of the keys that begin with a prefix.

use bytes::Bytes;

/// The first key above all that begin with `prefix`; after 0xff bytes alone there is none, and the answer is `\0`, which
/// stands for no end.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(b"\0"),
    }
}

/// The key and range end of all keys that begin with `prefix`; an empty one means every key.
pub fn prefix_range(prefix: &[u8]) -> (Bytes, Bytes) {
    let key = if prefix.is_empty() { Bytes::from_static(b"\0") } else { Bytes::copy_from_slice(prefix) };
    (key, prefix_end(prefix))
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
            (b"", b"\0"),
        ] {
            assert_eq!(prefix_end(prefix), end);
        }
        assert_eq!(prefix_range(b""), ("\0".into(), "\0".into()));
        assert_eq!(prefix_range(b"a/"), ("a/".into(), "a0".into()));
    }
}
