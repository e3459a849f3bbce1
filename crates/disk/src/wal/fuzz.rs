//! The decoder of the write-ahead log as a plain function over bytes, for tests and fuzzers.

use std::path::Path;
use std::sync::Arc;

use super::{Limits, Wal};
use crate::MemFs;

/// Opens `data` as a log of one segment or two (its first byte says where it is cut), and if it opens, takes
/// it over, opens it again and compares.
///
/// # Panics
/// If a log that was opened does not open again as the same: that is the failure that a fuzzer looks for.
#[doc(hidden)]
pub fn fuzz_wal(data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else { return };
    let (first, second) = data.split_at(data.len() * usize::from(cut) / 255);
    let fs = MemFs::new();
    let dir = Path::new("/wal");
    if crate::Fs::create_dir_all(&fs, dir, 0o700).is_err() {
        return;
    }
    for (name, bytes) in
        [("0000000000000000-0000000000000000.wal", first), ("0000000000000001-0000000000000001.wal", second)]
    {
        if !bytes.is_empty() && fs.put(dir.join(name), bytes).is_err() {
            return;
        }
    }
    let limits = Limits::tiny();
    let Ok(opened) = Wal::open(Arc::new(fs.clone()), dir, limits) else { return };
    let state = opened.hard_state();
    let entries: Vec<_> = opened.entries(0).map(|entry| entry.expect("was checked")).collect();
    drop(opened.into_writer().expect("nothing fails in memory"));
    let again = Wal::open(Arc::new(fs), dir, limits).expect("opens again");
    assert!(again.torn().is_none(), "torn after repair");
    assert_eq!(state, again.hard_state());
    assert_eq!(entries, again.entries(0).map(|entry| entry.expect("was checked")).collect::<Vec<_>>());
}
