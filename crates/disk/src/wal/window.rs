//! Reading a file through a bounded, reused buffer.

use std::io;
use std::sync::Arc;

use crate::File;

/// How much is read at once, bytes, unless a single record asks for more.
const CHUNK_BYTES: u64 = 256 * 1024;

/// A part of a file in memory, moved along as reading goes on.
pub(super) struct Window {
    file: Arc<dyn File>,
    len: u64,
    start: u64,
    buf: Vec<u8>,
}

impl Window {
    pub(super) fn new(file: Arc<dyn File>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Window { file, len, start: 0, buf: Vec::new() })
    }

    /// The file's length, bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes from `at` on, `count` of them or up to the file's end.
    pub(super) fn bytes(&mut self, at: u64, count: u64) -> io::Result<&[u8]> {
        let end = at.saturating_add(count).min(self.len);
        let at = at.min(end);
        if at < self.start || end > self.start + self.buf.len() as u64 {
            let read = CHUNK_BYTES.max(end - at).min(self.len - at);
            self.buf.resize(usize::try_from(read).map_err(io::Error::other)?, 0);
            self.start = at;
            if let Err(error) = self.file.read_exact_at(&mut self.buf, at) {
                self.buf.clear();
                return Err(error);
            }
        }
        Ok(&self.buf[(at - self.start) as usize..(end - self.start) as usize])
    }

    /// A number of eight bytes; what is past the file's end reads as zero.
    pub(super) fn u64_le(&mut self, at: u64) -> io::Result<u64> {
        let mut number = [0; 8];
        let bytes = self.bytes(at, 8)?;
        number[..bytes.len()].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(number))
    }

    /// Whether all of `at..end` is zero; what is past the file's end is.
    pub(super) fn is_zero(&mut self, mut at: u64, end: u64) -> io::Result<bool> {
        let end = end.min(self.len);
        while at < end {
            let part = self.bytes(at, CHUNK_BYTES.min(end - at))?;
            if part.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            at += part.len() as u64;
        }
        Ok(true)
    }
}

/// A base-128 number at the beginning of `bytes`, and how many bytes it takes.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().take(10).enumerate() {
        if at == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some((value, at + 1));
        }
    }
    None
}
