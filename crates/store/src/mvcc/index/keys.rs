//! The sorted keys of one node.
//!
//! A search looks at the keys' hints first, 256 bytes that lie together, and as a rule then at one key. What all keys
//! begin with is held once.

use std::cmp::Ordering;
use std::ops::Range;

use super::sparse::Sparse;

/// Longest key that is held with the others. Longer ones are rare, and would be moved about.
pub(super) const SHORT_MAX: usize = 256;

/// The hint of a slot without a key: not below any.
const NO_HINT: i32 = i32::MAX;

/// Up to `N` keys in ascending order, each in its slot.
#[derive(Debug)]
pub(super) struct Keys<const N: usize> {
    /// The four bytes behind the prefix, ordered as the keys are; where a key is shorter, zeros.
    hints: [i32; N],
    /// Where the bytes of each key end.
    ends: [u16; N],
    len: u16,
    /// Length of the prefix, which every key begins with.
    prefix: u16,
    /// The prefix, then what each key has behind it.
    bytes: Vec<u8>,
    /// The keys above [`SHORT_MAX`], whole. They have nothing in `bytes`.
    long: Sparse<Box<[u8]>>,
}

impl<const N: usize> Default for Keys<N> {
    fn default() -> Self {
        const { assert!(N >= 2 && N <= 64, "a slot is a bit of a word") }
        Keys {
            hints: [NO_HINT; N],
            ends: [0; N],
            len: 0,
            prefix: 0,
            bytes: Vec::new(),
            long: Sparse::default(),
        }
    }
}

impl<const N: usize> Keys<N> {
    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// The slot of a key, or the one that it would get.
    #[inline]
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let Some(rest) = key.strip_prefix(prefix) else {
            return Err(if key < prefix { 0 } else { self.len() });
        };
        let hint = hint_of(rest);
        // No branches: the compiler makes vector code of it.
        let below: i32 = self.hints.iter().map(|other| i32::from(*other < hint)).sum();
        let mut low = below as usize;
        let mut high = low;
        while high < self.len() && self.hints[high] == hint {
            high += 1;
        }
        while low < high {
            let middle = (low + high) / 2;
            match self.rest(middle).cmp(rest) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// How many keys are below this one.
    #[inline]
    pub(super) fn below(&self, key: &[u8]) -> usize {
        self.search(key).unwrap_or_else(|slot| slot)
    }

    /// How many keys are at or below this one.
    #[inline]
    pub(super) fn at_or_below(&self, key: &[u8]) -> usize {
        self.search(key).map_or_else(|slot| slot, |slot| slot + 1)
    }

    /// A key. `scratch` is for one that has to be put together.
    pub(super) fn get<'a>(&'a self, slot: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if let Some(long) = self.long.get(slot) {
            return long;
        }
        scratch.clear();
        scratch.extend_from_slice(self.prefix());
        scratch.extend_from_slice(self.short_rest(slot));
        scratch
    }

    fn prefix(&self) -> &[u8] {
        &self.bytes[..usize::from(self.prefix)]
    }

    /// What a key has behind the prefix.
    #[inline]
    fn rest(&self, slot: usize) -> &[u8] {
        match self.long.get(slot) {
            Some(long) => &long[usize::from(self.prefix)..],
            None => self.short_rest(slot),
        }
    }

    #[inline]
    fn short_rest(&self, slot: usize) -> &[u8] {
        &self.bytes[self.start(slot)..usize::from(self.ends[slot])]
    }

    /// Where a slot's bytes start.
    #[inline]
    fn start(&self, slot: usize) -> usize {
        usize::from(if slot == 0 { self.prefix } else { self.ends[slot - 1] })
    }

    /// Adds a key, whose slot [`Keys::search`] has given. Panics if there is no room.
    pub(super) fn insert(&mut self, slot: usize, key: &[u8]) {
        assert!(self.len() < N, "no slot left");
        self.share_prefix(key);
        let (start, len) = (self.start(slot), self.len());
        let rest = &key[usize::from(self.prefix)..];
        self.hints.copy_within(slot..len, slot + 1);
        self.hints[slot] = hint_of(rest);
        self.ends.copy_within(slot..len, slot + 1);
        self.ends[slot] = start as u16;
        self.len += 1;
        self.long.open(slot);
        if key.len() > SHORT_MAX {
            return self.long.insert(slot, key.into());
        }
        self.ends[slot..=len].iter_mut().for_each(|end| *end += rest.len() as u16);
        let old = self.bytes.len();
        if self.bytes.capacity() < old + rest.len() {
            self.bytes.reserve_exact(rest.len() + old / 8);
        }
        self.bytes.resize(old + rest.len(), 0);
        self.bytes.copy_within(start..old, start + rest.len());
        self.bytes[start..start + rest.len()].copy_from_slice(rest);
    }

    /// Makes the prefix one that the key has too.
    fn share_prefix(&mut self, key: &[u8]) {
        if self.len == 0 {
            self.prefix = key.len().min(SHORT_MAX) as u16;
            self.bytes.clear();
            self.bytes.extend_from_slice(&key[..usize::from(self.prefix)]);
        } else if !key.starts_with(self.prefix()) {
            let shared = shared_length(self.prefix(), key);
            let mut keys = Self::collect(shared, &[(self, 0..self.len())]);
            keys.long = std::mem::take(&mut self.long);
            *self = keys;
        }
    }

    pub(super) fn remove(&mut self, slot: usize) {
        let len = self.len();
        let bytes = self.start(slot)..usize::from(self.ends[slot]);
        let gone = bytes.len() as u16;
        self.bytes.drain(bytes);
        self.ends.copy_within(slot + 1..len, slot);
        self.ends[slot..len - 1].iter_mut().for_each(|end| *end -= gone);
        self.hints.copy_within(slot + 1..len, slot);
        self.hints[len - 1] = NO_HINT;
        self.long.close(slot);
        self.len -= 1;
    }

    /// Gives unused room back, if there is much.
    pub(super) fn trim(&mut self) {
        let room = self.bytes.len() + self.bytes.len() / 8;
        if self.bytes.capacity() > room + 64 {
            self.bytes.shrink_to(room);
        }
    }

    /// Splits: the keys from `slot` on are returned.
    pub(super) fn split_off(&mut self, slot: usize) -> Self {
        let mut right = self.part(slot..self.len());
        let mut left = self.part(0..slot);
        right.long = self.long.split_off(slot);
        left.long = std::mem::take(&mut self.long);
        *self = left;
        right
    }

    fn part(&self, slots: Range<usize>) -> Self {
        let mut prefix = 0;
        if !slots.is_empty() {
            let (mut first, mut last) = (Vec::new(), Vec::new());
            let first = self.get(slots.start, &mut first);
            let last = self.get(slots.end - 1, &mut last);
            prefix = shared_length(&first[..first.len().min(SHORT_MAX)], last);
        }
        Self::collect(prefix, &[(self, slots)])
    }

    /// Adds the keys of `right`, which are above all that are here, and have room.
    pub(super) fn append(&mut self, right: Self) {
        let prefix = match (self.len, right.len) {
            (0, _) => usize::from(right.prefix),
            (_, 0) => usize::from(self.prefix),
            _ => shared_length(self.prefix(), right.prefix()),
        };
        let mut keys = Self::collect(prefix, &[(self, 0..self.len()), (&right, 0..right.len())]);
        keys.long = std::mem::take(&mut self.long);
        keys.long.append(right.long, self.len());
        *self = keys;
    }

    /// Builds anew from slots of others, with a prefix of this length, which all of them share. The long keys
    /// themselves are left to the caller, who moves them: copies would hold up everybody.
    fn collect(prefix: usize, parts: &[(&Self, Range<usize>)]) -> Self {
        let mut keys = Self::default();
        let mut room = prefix;
        for (part, slots) in parts {
            let bytes: usize = slots.clone().map(|slot| part.short_rest(slot).len()).sum();
            room += bytes + slots.len() * usize::from(part.prefix).saturating_sub(prefix);
        }
        keys.bytes.reserve_exact(room + room / 16);
        keys.prefix = prefix as u16;
        if let Some((part, slots)) = parts.iter().find(|(_, slots)| !slots.is_empty()) {
            keys.bytes.extend_from_slice(&part.get(slots.start, &mut Vec::new())[..prefix]);
        }
        for (part, slots) in parts {
            let longer = usize::from(part.prefix);
            for slot in slots.clone() {
                let start = keys.bytes.len();
                if part.long.get(slot).is_none() {
                    keys.bytes.extend_from_slice(&part.prefix()[prefix.min(longer)..]);
                    keys.bytes.extend_from_slice(&part.short_rest(slot)[prefix.saturating_sub(longer)..]);
                }
                let rest = part.long.get(slot).map_or(&keys.bytes[start..], |long| &long[prefix..]);
                keys.hints[usize::from(keys.len)] = hint_of(rest);
                keys.ends[usize::from(keys.len)] = keys.bytes.len() as u16;
                keys.len += 1;
            }
        }
        keys
    }

    /// Panics if an invariant does not hold.
    pub(super) fn check(&self) {
        let (mut before, mut key) = (Vec::new(), Vec::new());
        for slot in 0..self.len() {
            let here = self.get(slot, &mut key);
            assert!(slot == 0 || *before < *here, "{before:?} then {here:?}");
            assert_eq!(here.len() > SHORT_MAX, self.long.get(slot).is_some(), "{here:?}");
            let rest = here.strip_prefix(self.prefix()).expect("the prefix is one");
            assert_eq!(self.hints[slot], hint_of(rest), "{here:?}");
            before.clear();
            before.extend_from_slice(here);
        }
        assert!(self.hints[self.len()..].iter().all(|hint| *hint == NO_HINT), "{:?}", self.hints);
        let end = if self.len == 0 { self.bytes.len() } else { usize::from(self.ends[self.len() - 1]) };
        assert_eq!(self.bytes.len(), end);
        assert!(self.long.iter().all(|(slot, _)| slot < self.len()));
    }
}

/// The first four bytes as a number that orders as they do.
#[inline]
fn hint_of(rest: &[u8]) -> i32 {
    let word = match rest.first_chunk::<4>() {
        Some(word) => *word,
        None => {
            let mut word = [0; 4];
            word[..rest.len()].copy_from_slice(rest);
            word
        }
    };
    // Signed, since the vector instructions that every machine has compare no others.
    (u32::from_be_bytes(word) ^ 1 << 31) as i32
}

/// How many bytes two keys begin with alike.
pub(super) fn shared_length(a: &[u8], b: &[u8]) -> usize {
    let whole = a.chunks_exact(16).zip(b.chunks_exact(16)).take_while(|(a, b)| a == b).count() * 16;
    whole + a[whole..].iter().zip(&b[whole..]).take_while(|(a, b)| a == b).count()
}
