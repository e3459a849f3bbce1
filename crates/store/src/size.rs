//! What the store would take as etcd's database file: the size that quota and status go by (rule 18).
//!
//! The file that a snapshot sends has its pairs packed into leaves of which at most a sixteenth is empty, whatever their
//! sizes (`disk::boltfile`), and branches above them. So the sum over the pairs, and a little, is within 5 % of it.

use crate::record::RecordKind;

/// Bytes that a page's table has for each pair.
const ELEMENT_BYTES: u64 = 16;
/// Pages that are there in any case: two meta pages, the list of free ones, the buckets' names, and one for each of ten
/// buckets.
const FIXED_BYTES: u64 = 14 * 4096;
/// A stored lease: table entry, id, and the encoded lease with its id once more and a TTL of two bytes.
const LEASE_BYTES: u64 = ELEMENT_BYTES + 8 + 13;
/// Empty parts of leaves, and branches: between 2 and 5 percent of what the leaves hold.
const OVERHEAD_PERCENT: u64 = 3;

/// Bytes that a stored pair takes in a leaf, its key being the revision.
pub(crate) fn stored_bytes(length: u32, kind: RecordKind) -> u64 {
    let key_bytes = match kind {
        RecordKind::Put => 17,
        RecordKind::Tombstone => 18,
    };
    ELEMENT_BYTES + key_bytes + u64::from(length)
}

/// Bytes that any other pair takes in a leaf.
pub(crate) fn pair_bytes(key_len: usize, value_len: usize) -> u64 {
    ELEMENT_BYTES + (key_len + value_len) as u64
}

/// The file's length, from the sum of [`stored_bytes`], and that of [`pair_bytes`] of users and roles.
pub(crate) fn snapshot_bytes(stored_bytes: u64, leases: u64, auth_bytes: u64) -> u64 {
    let pairs = stored_bytes + leases * LEASE_BYTES + auth_bytes;
    FIXED_BYTES + pairs + pairs * OVERHEAD_PERCENT / 100
}
