//! Puts together what arrives in pieces.

use bytes::{Buf as _, Bytes};

/// Memory is set aside for this much more at least, as long as there is more to come.
const GROWTH_BYTES: usize = 64 << 10;

/// Eight bytes, big endian.
#[derive(Debug, Default)]
pub(super) struct Number {
    bytes: [u8; 8],
    have: usize,
}

impl Number {
    /// The number, once it is complete; then the next one begins.
    pub(super) fn take(&mut self, input: &mut Bytes) -> Option<u64> {
        let came = input.len().min(8 - self.have);
        self.bytes[self.have..self.have + came].copy_from_slice(&input[..came]);
        input.advance(came);
        self.have += came;
        if self.have < 8 {
            return None;
        }
        self.have = 0;
        Some(u64::from_be_bytes(self.bytes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.have == 0
    }
}

/// Bytes whose number is known before they come.
#[derive(Debug, Default)]
pub(super) struct Gather {
    bytes: Vec<u8>,
    missing: usize,
}

impl Gather {
    /// Waits for this many more.
    pub(super) fn expect(&mut self, count: usize) {
        self.missing = count;
    }

    /// How many are here.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes what is missing from `input`; whether all is here.
    pub(super) fn fill(&mut self, input: &mut Bytes) -> bool {
        let came = input.len().min(self.missing);
        if self.bytes.capacity() - self.bytes.len() < came {
            let growth = self.bytes.len().max(GROWTH_BYTES).min(self.missing);
            self.bytes.reserve_exact(growth.max(came));
        }
        self.bytes.extend_from_slice(&input[..came]);
        input.advance(came);
        self.missing -= came;
        self.missing == 0
    }

    /// All of them, in memory of their own size: what is kept of them keeps nothing else.
    pub(super) fn take(&mut self) -> Bytes {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.shrink_to_fit();
        Bytes::from(bytes)
    }
}
