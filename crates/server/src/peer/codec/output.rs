//! Where encoded frames are put: small parts are copied together, large ones are handed on as they are.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::protobuf::varint;

/// A part of at least this size is not copied.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// Bytes on their way out, in order.
#[derive(Debug, Default)]
pub struct Output {
    ready: VecDeque<Bytes>,
    buffer: BytesMut,
    len: usize,
}

impl Output {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the next piece away, of at least a byte.
    pub fn pop(&mut self) -> Option<Bytes> {
        let piece = match self.ready.pop_front() {
            Some(piece) => piece,
            None if self.buffer.is_empty() => return None,
            None => self.buffer.split().freeze(),
        };
        self.len -= piece.len();
        Some(piece)
    }

    /// Copies bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Adds bytes that others hold as well.
    pub fn push_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARED_BYTES_MIN {
            return self.push(bytes);
        }
        if !self.buffer.is_empty() {
            self.ready.push_back(self.buffer.split().freeze());
        }
        self.ready.push_back(bytes.clone());
        self.len += bytes.len();
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.push(&[byte]);
    }

    /// A number as frames have it: 8 bytes, big endian.
    pub(super) fn number(&mut self, number: u64) {
        self.buffer.put_u64(number);
        self.len += 8;
    }

    /// A number as protobuf has it.
    pub(super) fn varint(&mut self, value: u64) {
        varint(value, |byte| self.byte(byte));
    }
}
