//! The decoder of the write-ahead log as plain functions over bytes, for tests and fuzzers.

use std::path::Path;
use std::sync::Arc;

use super::encode::push_plain;
use super::frame::RecordKind;
use super::{Limits, Wal};
use crate::{Fs, MemFs};

const DIR: &str = "/wal";

/// Opens `data` as a log of one segment or two (its first byte says where it is cut), and if it opens, takes
/// it over, opens it again and compares.
///
/// # Panics
/// If a log that was opened does not open again as the same: that is the failure that a fuzzer looks for.
#[doc(hidden)]
pub fn fuzz_wal(data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else { return };
    let (first, second) = data.split_at(data.len() * usize::from(cut) / 255);
    open_twice(&[first, second]);
}

/// As [`fuzz_wal`], but framing and sums are right, so that what lies behind them is reached: `data` is a row of
/// records, each a byte for the type (1 to 5; any other begins a segment), one for the length, and the record's data.
/// Answers whether it is a log.
///
/// # Panics
/// As [`fuzz_wal`].
#[doc(hidden)]
pub fn fuzz_wal_records(mut data: &[u8]) -> bool {
    let mut segments = vec![Vec::new()];
    let mut sum = 0;
    while let [kind, rest @ ..] = data {
        data = rest;
        let Some(kind) = RecordKind::from_number((*kind).into()) else {
            segments.push(Vec::new());
            continue;
        };
        let segment = segments.last_mut().expect("there is always one");
        if kind == RecordKind::Crc {
            sum = push_plain(segment, kind, sum, &[]);
            continue;
        }
        let Some((&length, rest)) = data.split_first() else { break };
        let (payload, rest) = rest.split_at(rest.len().min(length.into()));
        sum = push_plain(segment, kind, sum, payload);
        data = rest;
    }
    open_twice(&segments)
}

fn open_twice(segments: &[impl AsRef<[u8]>]) -> bool {
    let fs = MemFs::new();
    let dir = Path::new(DIR);
    fs.create_dir_all(dir, 0o700).expect("a folder in memory");
    for (at, bytes) in segments.iter().enumerate() {
        let bytes = bytes.as_ref();
        // The name of a segment tells its first index; entries from 1 in one segment each are the likely case.
        if !bytes.is_empty() {
            fs.put(dir.join(format!("{at:016x}-{at:016x}.wal")), bytes).expect("a file in memory");
        }
    }
    let limits = Limits::tiny();
    let Ok(opened) = Wal::open(Arc::new(fs.clone()), dir, limits) else { return false };
    let state = opened.hard_state();
    let snapshots = opened.snapshots().to_vec();
    let entries: Vec<_> = opened.entries(0).map(|entry| entry.expect("was checked")).collect();
    drop(opened.into_writer().expect("nothing fails in memory"));
    let again = Wal::open(Arc::new(fs), dir, limits).expect("opens again");
    assert!(again.torn().is_none(), "torn after repair");
    assert_eq!(state, again.hard_state());
    assert_eq!(snapshots, again.snapshots());
    assert_eq!(entries, again.entries(0).map(|entry| entry.expect("was checked")).collect::<Vec<_>>());
    true
}
