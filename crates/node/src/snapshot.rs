//! Snapshot files, and the giving back of the log behind them, in rule 3's order.
//!
//! ```text
//! Applier ─ SnapshotOrder ─► RevisionWriter   until what was applied is durable there
//!   ▲                            │
//!   │                            ▼
//!   │                     SnapshotWriter      `.snap`, durably
//!   │                            │ record
//!   │                            ▼
//!   │             Consensus ─► LogWriter      hard state and record, one fdatasync
//!   │                            │
//!   └── snapshot_taken ──────────┴──► segments and older `.snap` files go
//! ```
//!
//! One is under way at a time: what comes due meanwhile is seen when it is done. A crash anywhere on this way leaves a
//! log that names the last snapshot, with everything that it needs, and at most a file that the log does not name yet.

use std::path::PathBuf;
use std::sync::Arc;

use disk::{snap, wal};
use raft::{ConfState, NodeId};
use store::Membership;

use crate::Error;

/// A snapshot that is due: the member's state at one applied index, as far as `.snap` files have it.
#[derive(Clone, Debug)]
pub struct SnapshotOrder {
    /// The last entry that it covers.
    pub index: u64,
    /// The index of the one before it, 0 if there is none.
    pub previous_index: u64,
    /// Whether it is due though few entries have been applied since.
    pub is_forced: bool,
    pub(crate) term: u64,
    pub(crate) conf: ConfState,
    pub(crate) membership: Arc<Membership>,
}

/// When a snapshot is due.
#[derive(Debug)]
pub(crate) struct SnapshotSchedule {
    /// More entries than this must have been applied since the last one.
    pub count: u64,
    /// Where the last one was taken.
    pub last_index: u64,
    /// The next one is due with the next entry.
    pub is_forced: bool,
    /// One is under way.
    pub is_under_way: bool,
}

impl SnapshotSchedule {
    /// Whether one is due with everything applied up to `index`; it is under way then.
    pub(crate) fn begin(&mut self, index: u64) -> bool {
        let since = index.saturating_sub(self.last_index);
        let is_due = since > self.count || self.is_forced && since > 0;
        let begins = is_due && !self.is_under_way;
        self.is_under_way |= begins;
        begins
    }

    /// The one that was under way is in the log.
    pub(crate) fn taken(&mut self, index: u64) {
        self.last_index = index;
        self.is_under_way = false;
        self.is_forced = false;
    }
}

/// Writes `.snap` files and removes old ones.
pub struct SnapshotWriter {
    folder: snap::Folder,
    keep: usize,
}

impl SnapshotWriter {
    /// `keep`: how many files stay (`--max-snapshots`), 0 for all.
    pub(crate) fn new(folder: snap::Folder, keep: usize) -> Self {
        SnapshotWriter { folder, keep }
    }

    /// What the file of a snapshot is to have.
    pub fn make(&self, order: &SnapshotOrder) -> snap::Snapshot {
        let ids = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect();
        let conf_state = wal::ConfState {
            voters: ids(&order.conf.voters),
            learners: ids(&order.conf.learners),
            ..wal::ConfState::default()
        };
        let SnapshotOrder { index, term, .. } = *order;
        let data = order.membership.to_v2_store();
        snap::Snapshot { index, term, conf_state, data }
    }

    /// Writes the file of a snapshot, durably, and gives the record that is to go into the log. `None` if the disk has no
    /// room: it is to be tried again (rule 7).
    ///
    /// # Errors
    /// A failed operation; the member must stop.
    pub fn write(&self, snapshot: snap::Snapshot) -> Result<Option<wal::SnapshotRecord>, Error> {
        let written = self.folder.write(&snapshot)?;
        let snap::Snapshot { index, term, conf_state, .. } = snapshot;
        let conf_state = Some(conf_state);
        Ok(written.map(|_| wal::SnapshotRecord { index, term, conf_state }))
    }

    /// Removes the files that are too many, now that the log names the snapshot at `index`; which ones.
    ///
    /// # Errors
    /// A failed operation; the member must stop.
    pub fn purge(&self, index: u64) -> Result<Vec<PathBuf>, Error> {
        Ok(self.folder.purge(self.keep, index)?)
    }
}
