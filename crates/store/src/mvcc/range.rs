//! Range: the response's bytes, copied together from stored records.

use std::cmp::Ordering;

use wire::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::index::{Cursor, End, KEYS_PER_CHUNK, Span, Version};
use super::put::stored_value;
use super::{Bytes, KeyValue, ReadFailure, ReadMode, View};
use crate::encoding::{put_length, put_number};
use crate::request::Range;

const KVS: u32 = 2;
const MORE: u32 = 3;
const COUNT: u32 = 4;

/// What a read may do on a thread that serves connections; a longer one is done elsewhere, from its beginning.
const STEPS_MAX: u32 = 16;
/// What a brief one may do elsewhere.
const BRIEF_STEPS_MAX: u32 = 256;
/// What either may collect.
const BYTES_MAX: usize = 512 << 10;

/// Keys looked at under one hold of the lock where a limit leaves less to show: some of them may be dead.
const KEYS_MIN: i64 = 16;

/// How much a read has done, if it may not do much.
pub(super) struct Effort<'a> {
    bytes: Bytes<'a>,
    steps: u32,
}

impl<'a> Effort<'a> {
    pub(super) fn new(view: &View<'a>) -> Self {
        Effort { bytes: view.bytes, steps: 0 }
    }

    /// Before each hold of the index's lock.
    ///
    /// Errors: [`ReadFailure::WouldBlock`] or [`ReadFailure::Long`] if this is too much for where the read runs,
    /// [`ReadFailure::Gone`] if nobody waits for it any more.
    pub(super) fn step(&mut self) -> Result<(), ReadFailure> {
        self.bytes.go_on(0)?;
        self.steps += 1;
        match self.bytes.mode() {
            // It may still be a short one: many keys with little in them.
            ReadMode::NoWait if self.steps > STEPS_MAX => Err(ReadFailure::WouldBlock),
            ReadMode::Brief if self.steps > BRIEF_STEPS_MAX => Err(ReadFailure::Long),
            ReadMode::NoWait | ReadMode::Brief | ReadMode::MayBlock => Ok(()),
        }
    }

    /// Before so many bytes are collected, all in all.
    ///
    /// Errors: [`ReadFailure::Long`] if this is too much for where the read runs.
    pub(super) fn bytes(&self, bytes: usize) -> Result<(), ReadFailure> {
        match self.bytes.mode() {
            ReadMode::NoWait | ReadMode::Brief if bytes > BYTES_MAX => Err(ReadFailure::Long),
            ReadMode::NoWait | ReadMode::Brief | ReadMode::MayBlock => Ok(()),
        }
    }
}

/// Bytes of the records of some rows.
pub(super) fn bytes_of<'a>(rows: impl Iterator<Item = &'a Version>) -> usize {
    // With tag and length of each.
    rows.map(|row| row.length as usize + 6).sum()
}

/// Appends all fields of the `RangeResponse` but its header to `body`.
///
/// On an error `body` has whatever was appended so far.
pub(crate) fn range(view: &View<'_>, range: &Range<'_>, body: &mut Vec<u8>) -> Result<(), ReadFailure> {
    let at = view.revision(range.revision)?;
    let span = Span::of(range.key, range.range_end);
    let (count, more) = if range.count_only {
        (count(view, span, at)?, false)
    } else if span.to == End::One {
        (one(view, range, at, body)?, false)
    } else if is_key_order(range) && !range.has_filters() {
        in_key_order(view, range, span, at, body)?
    } else {
        selected(view, range, span, at, body)?
    };
    put_number(body, MORE, i64::from(more));
    put_number(body, COUNT, count);
    Ok(())
}

/// Whether the rows come in the order that the index gives them.
fn is_key_order(range: &Range<'_>) -> bool {
    range.sort_target == SortTarget::Key as i32
        && (range.sort_order == SortOrder::None as i32 || range.sort_order == SortOrder::Ascend as i32)
}

fn passes_filters(range: &Range<'_>, row: &Version) -> bool {
    let within =
        |revision: i64, min: i64, max: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
    within(row.mod_revision, range.min_mod_revision, range.max_mod_revision)
        && within(row.create_revision, range.min_create_revision, range.max_create_revision)
}

/// Counts the keys of a span at a revision.
pub(crate) fn count(view: &View<'_>, span: Span<'_>, at: i64) -> Result<i64, ReadFailure> {
    if span.to == End::One {
        return Ok(i64::from(view.point(span.from, at)?.is_some()));
    }
    count_rest(view, &mut Cursor::new(span), at, &mut Effort::new(view))
}

/// Counts the keys that a walk has not come to yet, and ends it.
fn count_rest(
    view: &View<'_>,
    cursor: &mut Cursor<'_>,
    at: i64,
    effort: &mut Effort<'_>,
) -> Result<i64, ReadFailure> {
    let mut count = 0;
    while !cursor.is_done() {
        effort.step()?;
        count += view.index().count(cursor, at);
    }
    Ok(count as i64)
}

/// The keys to look at next, where so many rows are still wanted.
fn keys_max(rows_left: i64) -> usize {
    rows_left.clamp(KEYS_MIN, KEYS_PER_CHUNK as i64) as usize
}

/// One key: no walk, and nothing allocated but the answer's room.
fn one(view: &View<'_>, range: &Range<'_>, at: i64, body: &mut Vec<u8>) -> Result<i64, ReadFailure> {
    let Some(row) = view.point(range.key, at)? else { return Ok(0) };
    if passes_filters(range, &row) {
        if range.keys_only {
            append_key_only(range.key, &row, shows_lease(range), body);
        } else {
            append_pair(view, &row, body)?;
        }
    }
    Ok(1)
}

/// Streams the rows into the body, a chunk of keys at a time.
fn in_key_order(
    view: &View<'_>,
    range: &Range<'_>,
    span: Span<'_>,
    at: i64,
    body: &mut Vec<u8>,
) -> Result<(i64, bool), ReadFailure> {
    let limit = if range.limit > 0 { range.limit } else { i64::MAX };
    let mut cursor = Cursor::new(span);
    let mut rows: Vec<Version> = Vec::new();
    let mut keys_only = Vec::new();
    let mut count = 0;
    let (mut effort, start) = (Effort::new(view), body.len());
    while !cursor.is_done() && count < limit {
        effort.step()?;
        rows.clear();
        keys_only.clear();
        view.index().advance_by(keys_max(limit - count), &mut cursor, at, |key, row| {
            count += 1;
            if count > limit {
            } else if range.keys_only {
                append_key_only(key, row, false, &mut keys_only);
            } else {
                if rows.capacity() == 0 {
                    rows.reserve_exact(limit.min(KEYS_PER_CHUNK as i64) as usize);
                }
                rows.push(*row);
            }
        });
        let bytes = keys_only.len() + bytes_of(rows.iter());
        effort.bytes(body.len() - start + bytes)?;
        body.reserve(bytes);
        body.extend_from_slice(&keys_only);
        for row in &rows {
            append_pair(view, row, body)?;
        }
    }
    count += count_rest(view, &mut cursor, at, &mut effort)?;
    Ok((count, count > limit))
}

/// A row that may be shown, with what its order or its form needs beside the index's numbers.
pub(super) struct Row {
    pub version: Version,
    /// The key, where only keys are shown; the record, where values are the order. Else empty.
    pub bytes: Vec<u8>,
}

/// Collects the rows, then filters, sorts and cuts them.
fn selected(
    view: &View<'_>,
    range: &Range<'_>,
    span: Span<'_>,
    at: i64,
    body: &mut Vec<u8>,
) -> Result<(i64, bool), ReadFailure> {
    // With no order asked for etcd fetches `limit` rows and one more in key order, and sorts those alone.
    let fetch_all = range.sort_order != SortOrder::None as i32 || range.has_filters();
    let fetched_max = if range.limit > 0 && !fetch_all { range.limit.saturating_add(1) } else { i64::MAX };
    let by_value = range.sort_target == SortTarget::Value as i32;
    let mut rows: Vec<Row> = Vec::new();
    let mut cursor = Cursor::new(span);
    let mut effort = Effort::new(view);
    let mut count = 0;
    while !cursor.is_done() && count < fetched_max {
        effort.step()?;
        view.index().advance_by(keys_max(fetched_max - count), &mut cursor, at, |key, version| {
            count += 1;
            if count <= fetched_max && passes_filters(range, version) {
                let bytes = if range.keys_only && !by_value { key.to_vec() } else { Vec::new() };
                rows.push(Row { version: *version, bytes });
            }
        });
    }
    count += count_rest(view, &mut cursor, at, &mut effort)?;
    if by_value {
        effort.bytes(bytes_of(rows.iter().map(|row| &row.version)))?;
        read_all(view, &mut rows)?;
    }
    sort(range, &mut rows)?;
    let more = range.limit > 0 && rows.len() as i64 > range.limit;
    if more {
        rows.truncate(range.limit as usize);
    }
    effort.bytes(bytes_of(rows.iter().map(|row| &row.version)))?;
    append_rows(view, range, &rows, body)?;
    Ok((count, more))
}

/// Reads the records of rows that are ordered by their values.
pub(super) fn read_all(view: &View<'_>, rows: &mut [Row]) -> Result<(), ReadFailure> {
    for row in rows {
        row.bytes.clear();
        view.bytes.append(row.version.location, row.version.length, &mut row.bytes)?;
    }
    Ok(())
}

/// Appends collected rows in their order.
pub(super) fn append_rows(
    view: &View<'_>,
    range: &Range<'_>,
    rows: &[Row],
    body: &mut Vec<u8>,
) -> Result<(), ReadFailure> {
    let by_value = range.sort_target == SortTarget::Value as i32;
    for row in rows {
        if !by_value && range.keys_only {
            append_key_only(&row.bytes, &row.version, false, body);
        } else if !by_value {
            append_pair(view, &row.version, body)?;
        } else if range.keys_only {
            append_key_only(decode(&row.bytes)?.key, &row.version, true, body);
        } else {
            put_length(body, KVS, row.bytes.len());
            body.extend_from_slice(&row.bytes);
        }
    }
    Ok(())
}

pub(super) fn sort(range: &Range<'_>, rows: &mut [Row]) -> Result<(), ReadFailure> {
    let descending = range.sort_order == SortOrder::Descend as i32;
    let by_number: fn(&Version) -> i64 = match SortTarget::try_from(range.sort_target) {
        Ok(SortTarget::Version) => |row| row.version,
        Ok(SortTarget::Create) => |row| row.create_revision,
        Ok(SortTarget::Mod) => |row| row.mod_revision,
        Ok(SortTarget::Value) => return sort_by_value(rows, descending),
        // Rows are in key order already. Unknown targets were refused before.
        Ok(SortTarget::Key) | Err(_) => {
            if descending {
                rows.reverse();
            }
            return Ok(());
        }
    };
    rows.sort_by(|a, b| directed(by_number(&a.version).cmp(&by_number(&b.version)), descending));
    Ok(())
}

fn sort_by_value(rows: &mut [Row], descending: bool) -> Result<(), ReadFailure> {
    // First all are looked at, so that the comparison cannot fail.
    for row in rows.iter() {
        stored_value(&row.bytes)?;
    }
    rows.sort_by(|a, b| {
        let value_a = stored_value(&a.bytes).unwrap_or_default();
        let value_b = stored_value(&b.bytes).unwrap_or_default();
        directed(value_a.cmp(value_b), descending)
    });
    Ok(())
}

fn directed(ordering: Ordering, descending: bool) -> Ordering {
    if descending { ordering.reverse() } else { ordering }
}

fn decode(record: &[u8]) -> Result<KeyValue<'_>, ReadFailure> {
    KeyValue::decode(record).map_err(|error| crate::ReadError(format!("a stored pair: {error}")).into())
}

/// Keys alone come from the index, which is why etcd shows no lease in them; where it had to read the rows for
/// their values it does.
fn shows_lease(range: &Range<'_>) -> bool {
    range.sort_target == SortTarget::Value as i32
}

fn append_pair(view: &View<'_>, row: &Version, body: &mut Vec<u8>) -> Result<(), ReadFailure> {
    put_length(body, KVS, row.length as usize);
    view.bytes.append(row.location, row.length, body)
}

fn append_key_only(key: &[u8], row: &Version, with_lease: bool, body: &mut Vec<u8>) {
    let pair = KeyValue {
        key,
        create_revision: row.create_revision,
        mod_revision: row.mod_revision,
        version: row.version,
        value: &[],
        lease: if with_lease { row.lease } else { 0 },
    };
    put_length(body, KVS, pair.encoded_len());
    pair.encode(body);
}
