//! Keys as the index holds them: short ones in place.

use std::borrow::Borrow;
use std::cmp::Ordering;

/// Longest key that is held in place, bytes. With it a key is as large as a vector, 24 bytes.
const INLINE_MAX: usize = 22;

/// An owned key. A walk down the tree compares dozens of keys; each that lies elsewhere would cost a cache miss.
#[derive(Clone)]
pub(crate) enum Key {
    Inline(u8, [u8; INLINE_MAX]),
    Heap(Box<[u8]>),
}

impl Key {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Key::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Key::Heap(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        if key.len() > INLINE_MAX {
            return Key::Heap(key.into());
        }
        let mut bytes = [0; INLINE_MAX];
        bytes[..key.len()].copy_from_slice(key);
        Key::Inline(key.len() as u8, bytes)
    }
}

impl Borrow<[u8]> for Key {
    #[inline]
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.as_slice().escape_ascii())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

const _: () = assert!(size_of::<Key>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_both_kinds_are_ordered_as_bytes() {
        let lengths = [0, 1, INLINE_MAX - 1, INLINE_MAX, INLINE_MAX + 1, 100];
        let bytes = lengths.iter().flat_map(|n| [0u8, 1, 255].map(|byte| vec![byte; *n]));
        let all: Vec<Vec<u8>> = bytes.collect();
        for a in &all {
            assert_eq!(Key::from(&a[..]).as_slice(), a);
            for b in &all {
                assert_eq!(Key::from(&a[..]).cmp(&Key::from(&b[..])), a.cmp(b), "{a:?} {b:?}");
            }
        }
    }
}
