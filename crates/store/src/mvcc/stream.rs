//! One chunk of a RangeStream: the next rows of a span in key order.

use super::index::{Cursor, KEYS_PER_CHUNK, Span};
use super::range::{Effort, Row, append_rows, bytes_of, read_all, sort};
use super::{ReadFailure, View};
use crate::request::Range;
use wire::etcdserverpb::range_request::SortTarget;

/// About what a pair takes beside its key where only keys are shown.
const KEY_ONLY_BYTES: usize = 24;

/// What a chunk holds.
pub(crate) struct Chunk {
    /// Rows appended.
    pub rows: i64,
    /// The last key in it, if there are more keys behind.
    pub more_after: Option<Vec<u8>>,
}

/// Appends the first `limit` rows (at least 1) of the range to `body`, fewer if they would take more than `bytes_max`,
/// but always one. Of the request only key, end, target and keys_only count; a target other than the key sorts the chunk
/// by itself.
pub(crate) fn chunk(
    view: &View<'_>,
    range: &Range<'_>,
    at: i64,
    (limit, bytes_max): (i64, usize),
    body: &mut Vec<u8>,
) -> Result<Chunk, ReadFailure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let by_value = range.sort_target == SortTarget::Value as i32;
    let keeps_keys = range.keys_only && !by_value;
    let mut cursor = Cursor::new(Span::of(range.key, range.range_end));
    let mut rows: Vec<Row> = Vec::with_capacity(limit.min(KEYS_PER_CHUNK));
    let (mut last, mut more, mut bytes) = (Vec::new(), false, 0);
    let mut effort = Effort::new(view);
    while !cursor.is_done() && !more {
        effort.step()?;
        view.index().advance(&mut cursor, at, |key, version| {
            let cost = if keeps_keys { key.len() + KEY_ONLY_BYTES } else { bytes_of([version].into_iter()) };
            more |= rows.len() == limit || (!rows.is_empty() && bytes + cost > bytes_max);
            if more {
                return;
            }
            bytes += cost;
            last.clear();
            last.extend_from_slice(key);
            let kept = if keeps_keys { key.to_vec() } else { Vec::new() };
            rows.push(Row { version: *version, bytes: kept });
        });
    }
    effort.bytes(bytes_of(rows.iter().map(|row| &row.version)))?;
    if by_value {
        read_all(view, &mut rows)?;
    }
    if range.sort_target != SortTarget::Key as i32 {
        sort(range, &mut rows)?;
    }
    append_rows(view, range, &rows, body)?;
    Ok(Chunk { rows: rows.len() as i64, more_after: more.then_some(last) })
}
