//! DeleteRange: a tombstone for each key of a span.

use super::index::{Cursor, Span, Version};
use super::{KeyValue, ReadFailure, Write, lock_read, lock_write};
use crate::encoding::{put_length, put_number};
use crate::record::RecordKind;
use crate::request::DeleteRange;

/// The keys of one chunk, one behind the other.
#[derive(Default)]
struct Doomed {
    keys: Vec<u8>,
    /// End of each key in `keys`, and its newest version; replaced by its tombstone.
    rows: Vec<(usize, Version)>,
}

impl Write<'_> {
    /// Deletes. Appends the response's fields but its header to `body`.
    ///
    /// Errors are reads that failed.
    pub(crate) fn delete_range(
        &mut self,
        delete: &DeleteRange<'_>,
        mut body: Option<&mut Vec<u8>>,
    ) -> Result<(), ReadFailure> {
        self.ops.deletes += 1;
        self.ops.ranges += u64::from(delete.prev_kv);
        let mut cursor = Cursor::new(Span::of(delete.key, delete.range_end));
        let mut doomed = Doomed::default();
        let mut deleted = 0;
        while !cursor.is_done() {
            doomed.keys.clear();
            doomed.rows.clear();
            lock_read(self.index).advance(&mut cursor, self.revision(), |key, version| {
                doomed.keys.extend_from_slice(key);
                doomed.rows.push((doomed.keys.len(), *version));
            });
            if let (Some(body), true) = (body.as_deref_mut(), delete.prev_kv) {
                for (_, old) in &doomed.rows {
                    put_length(body, 3, old.length as usize);
                    self.view().bytes.append(old.location, old.length, body)?;
                }
            }
            deleted += doomed.rows.len() as i64;
            self.bury(&mut doomed)?;
        }
        if let Some(body) = body {
            put_number(body, 2, deleted);
        }
        Ok(())
    }

    /// Deletes these keys, each once and in this order.
    ///
    /// Errors are reads that failed.
    pub(crate) fn delete_keys(&mut self, keys: &[Vec<u8>]) -> Result<(), ReadFailure> {
        for key in keys {
            self.delete_range(&DeleteRange { key, ..DeleteRange::default() }, None)?;
        }
        Ok(())
    }

    fn bury(&mut self, doomed: &mut Doomed) -> Result<(), ReadFailure> {
        let mut start = 0;
        for (end, row) in &mut doomed.rows {
            self.scratch.clear();
            KeyValue { key: &doomed.keys[start..*end], ..KeyValue::default() }.encode(self.scratch);
            let (location, length, sub) = self.push_scratch(RecordKind::Tombstone)?;
            self.move_lease(&doomed.keys[start..*end], row.lease, 0);
            *row = Version {
                mod_revision: self.revision(),
                create_revision: 0,
                version: 0,
                lease: 0,
                location,
                sub,
                length,
            };
            start = *end;
        }
        if doomed.rows.is_empty() {
            return Ok(());
        }
        let mut index = lock_write(self.index);
        start = 0;
        for (end, tombstone) in &doomed.rows {
            index.insert(&doomed.keys[start..*end], *tombstone);
            start = *end;
        }
        Ok(())
    }
}
