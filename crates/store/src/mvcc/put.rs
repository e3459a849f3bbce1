//! Put: one new version of one key.

use wire::ApiError;

use super::index::Version;
use super::{KeyValue, ReadFailure, View, Write, lock_read, lock_write};
use crate::encoding::put_length;
use crate::record::RecordKind;
use crate::request::Put;

/// What the state has to allow before a put may run. `view` is the state before its transaction.
pub(super) fn check_put(view: &View<'_>, put: &Put<'_>) -> Result<(), ApiError> {
    if put.lease != 0 && !view.has_lease(put.lease) {
        return Err(ApiError::LeaseNotFound);
    }
    if (put.ignore_value || put.ignore_lease) && view.index().get(put.key, view.current).is_none() {
        return Err(ApiError::KeyNotFound);
    }
    Ok(())
}

impl Write<'_> {
    /// A put that stands alone: its checks, then itself. An [`ReadFailure::Api`] changed nothing.
    pub(crate) fn checked_put(
        &mut self,
        put: &Put<'_>,
        body: Option<&mut Vec<u8>>,
    ) -> Result<(), ReadFailure> {
        check_put(&self.view(), put)?;
        self.put(put, body)
    }

    /// Puts. Appends `prev_kv`, if the request asks for it, to `body`.
    ///
    /// The caller has run [`check_put`]. Errors are reads that failed.
    pub(crate) fn put(&mut self, put: &Put<'_>, body: Option<&mut Vec<u8>>) -> Result<(), ReadFailure> {
        // As in etcd the look at the pair before is a range.
        self.ops.ranges += u64::from(put.prev_kv || put.ignore_value || put.ignore_lease);
        let revision = self.revision();
        let old = lock_read(self.index).get(put.key, revision);
        if let (Some(old), Some(body), true) = (old, body, put.prev_kv) {
            put_length(body, 2, old.length as usize);
            self.view().bytes.append(old.location, old.length, body)?;
        }
        let mut stored = Vec::new();
        let mut value = put.value;
        if let (Some(old), true) = (old, put.ignore_value) {
            self.view().bytes.append(old.location, old.length, &mut stored)?;
            value = stored_value(&stored)?;
        }
        let pair = KeyValue {
            key: put.key,
            create_revision: old.map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.map_or(1, |old| old.version + 1),
            value,
            lease: if put.ignore_lease { old.map_or(0, |old| old.lease) } else { put.lease },
        };
        self.ops.puts += 1;
        self.ops.put_bytes += (pair.key.len() + pair.value.len()) as u64;
        self.scratch.clear();
        pair.encode(self.scratch);
        let (location, length, sub) = self.push_scratch(RecordKind::Put)?;
        let version = Version {
            mod_revision: revision,
            create_revision: pair.create_revision,
            version: pair.version,
            lease: pair.lease,
            location,
            sub,
            length,
        };
        lock_write(self.index).insert(put.key, version);
        self.move_lease(put.key, old.map_or(0, |old| old.lease), pair.lease);
        Ok(())
    }
}

/// The value of a stored pair.
pub(super) fn stored_value(record: &[u8]) -> Result<&[u8], ReadFailure> {
    let pair =
        KeyValue::decode(record).map_err(|error| crate::ReadError(format!("a stored pair: {error}")))?;
    Ok(pair.value)
}
