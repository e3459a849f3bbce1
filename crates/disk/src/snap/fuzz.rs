//! The decoder as a plain function over bytes, for tests and fuzzers.

use super::Snapshot;
use crate::wal::encode::push_field;

/// Reads `data` as a `.snap` file, or, if its first byte is odd, as the message in one whose sum and lengths are right.
/// What is read is written again and compared. Answers whether it is a snapshot.
///
/// # Panics
/// If a snapshot that was read is not written and read as the same again: that is the failure that a fuzzer looks for.
#[doc(hidden)]
pub fn fuzz_snap(data: &[u8]) -> bool {
    let Some((&choice, data)) = data.split_first() else { return false };
    let mut file = Vec::new();
    if choice % 2 == 1 {
        push_field(&mut file, 0x08, crc32c::crc32c(data).into());
        push_field(&mut file, 0x12, data.len() as u64);
    }
    file.extend_from_slice(data);
    let Ok(snapshot) = Snapshot::decode(&file) else { return false };
    let again = snapshot.encode();
    assert_eq!(Snapshot::decode(&again), Ok(snapshot), "written and read again");
    true
}
