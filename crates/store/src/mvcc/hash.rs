//! HashKV: CRC-32C over everything that is stored, in revision order, by etcd's algorithm (rule 11).

use std::ops::ControlFlow;

use wire::ApiError;

use super::{NOT_COMPACTED, ReadFailure};
use crate::record::{RecordKind, RecordSource, Revision};

/// A hash of all revisions up to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    /// CRC-32C.
    pub hash: u32,
    /// The compacted revision that the hash was made at; -1 before the first compaction.
    pub compact_revision: i64,
    /// The last revision in the hash.
    pub hash_revision: i64,
    /// The newest revision when it was made, for the answer's header.
    pub current_revision: i64,
}

/// Hashes all revisions up to `revision`; 0 means the current one. A negative one hashes no record.
pub(crate) fn hash_kv(source: &dyn RecordSource, revision: i64, current: i64) -> Result<KvHash, ReadFailure> {
    if revision > current {
        return Err(ApiError::FutureRev.into());
    }
    let wanted = if revision == 0 { current } else { revision };
    let mut hash = crc32c::crc32c(b"key");
    if wanted > 0 {
        source.scan(&mut |kind, at, encoded| {
            if at.main > wanted {
                return ControlFlow::Break(());
            }
            hash = crc32c::crc32c_append(hash, stored_key(&mut [0; 18], kind, at));
            hash = crc32c::crc32c_append(hash, encoded);
            ControlFlow::Continue(())
        })?;
    }
    Ok(KvHash { hash, compact_revision: NOT_COMPACTED, hash_revision: wanted, current_revision: current })
}

/// The key under which etcd's backend stores a record: both numbers big endian, and `t` on a tombstone.
fn stored_key(buffer: &mut [u8; 18], kind: RecordKind, at: Revision) -> &[u8] {
    buffer[..8].copy_from_slice(&at.main.to_be_bytes());
    buffer[8] = b'_';
    buffer[9..17].copy_from_slice(&at.sub.to_be_bytes());
    buffer[17] = b't';
    match kind {
        RecordKind::Put => &buffer[..17],
        RecordKind::Tombstone => buffer,
    }
}
