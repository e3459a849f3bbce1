//! RangeStream: a range in chunks, each read when the one before has left.
//!
//! The first chunk pins the revision that all of them are read at, but not its records: a compaction beyond it ends
//! the stream with `Compacted`, as in etcd, so a client that stops reading holds nothing up.

use crate::Reader;
use crate::mvcc::{ReadFailure, ReadMode};
use crate::request::Range;

/// Rows of the first chunk (etcd: v3_server.go).
const FIRST_CHUNK_ROWS: i64 = 10;

/// What a chunk may take however small the target is: below, the rows go by etcd's rule alone.
const CHUNK_BYTES_MIN: usize = 2 << 20;

/// A range that is being streamed.
#[derive(Clone, Debug)]
pub struct RangeStream {
    key: Vec<u8>,
    range_end: Vec<u8>,
    sort_target: i32,
    keys_only: bool,
    count_only: bool,
    /// As asked for; after the first chunk the revision that is read at.
    revision: i64,
    /// What the last chunk's header shows; 0 before the first.
    header_revision: i64,
    /// Rows that may still be sent.
    left: i64,
    sent: i64,
    chunk_rows: i64,
    chunk_bytes_target: usize,
    is_done: bool,
}

/// What one chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamChunk {
    /// There are more; this one has no header.
    Next,
    /// The last one, with the revision for its header.
    Last(i64),
}

impl RangeStream {
    /// Begins a stream for a request that has passed [`crate::admission::check_range_stream`]. Chunks come to lie between half
    /// and twice `chunk_bytes_target` (etcd: `--max-request-bytes`); unlike in etcd none goes beyond
    /// [`RangeStream::chunk_bytes_max`].
    pub fn new(request: &Range<'_>, chunk_bytes_target: usize) -> Self {
        let left = if request.limit > 0 { request.limit } else { i64::MAX };
        RangeStream {
            key: request.key.to_vec(),
            range_end: request.range_end.to_vec(),
            sort_target: request.sort_target,
            keys_only: request.keys_only,
            count_only: request.count_only,
            revision: request.revision,
            header_revision: 0,
            left,
            sent: 0,
            chunk_rows: FIRST_CHUNK_ROWS.min(left),
            chunk_bytes_target,
            is_done: false,
        }
    }

    /// No chunk takes more, but with one row.
    pub fn chunk_bytes_max(&self) -> usize {
        self.chunk_bytes_target.saturating_mul(2).max(CHUNK_BYTES_MIN)
    }

    /// Whether the last chunk was made.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Appends the fields of the next chunk's `RangeResponse`, but its header, to `body`. On an error the stream is as
    /// it was.
    ///
    /// # Panics
    /// If the last chunk was made.
    pub fn next(
        &mut self,
        reader: &Reader,
        mode: ReadMode,
        body: &mut Vec<u8>,
    ) -> Result<StreamChunk, ReadFailure> {
        assert!(!self.is_done, "a stream ends with its last chunk");
        let start = body.len();
        let request = Range {
            key: &self.key,
            range_end: &self.range_end,
            sort_target: self.sort_target,
            keys_only: self.keys_only,
            revision: self.revision,
            ..Range::default()
        };
        if self.count_only {
            let header_revision = reader.range(&Range { count_only: true, ..request }, mode, body)?;
            self.is_done = true;
            return Ok(StreamChunk::Last(header_revision));
        }
        let chunk_max = (self.chunk_rows, self.chunk_bytes_max());
        let piece = reader.stream_chunk(&request, chunk_max, (self.sent, self.left), mode, body)?;
        if self.header_revision == 0 {
            self.header_revision = piece.current;
            if self.revision <= 0 {
                self.revision = piece.current;
            }
        }
        self.sent += piece.rows;
        self.left -= piece.rows;
        let Some(last) = piece.more_after.filter(|_| self.left > 0) else {
            self.is_done = true;
            return Ok(StreamChunk::Last(self.header_revision));
        };
        self.key = last;
        self.key.push(0);
        // What was cut by its bytes tells how many rows go into one.
        self.chunk_rows = next_rows(piece.rows, body.len() - start, self.chunk_bytes_target).min(self.left);
        Ok(StreamChunk::Next)
    }
}

/// Rows of the chunk after one of `rows` that took `bytes`.
fn next_rows(rows: i64, bytes: usize, bytes_target: usize) -> i64 {
    let next = if bytes < bytes_target / 2 {
        rows.saturating_mul(2)
    } else if bytes > bytes_target.saturating_mul(2) {
        rows / 2
    } else {
        rows
    };
    next.max(1)
}

/// One chunk as the reader made it.
pub(crate) struct Piece {
    /// The newest revision then.
    pub current: i64,
    pub rows: i64,
    pub more_after: Option<Vec<u8>>,
}
