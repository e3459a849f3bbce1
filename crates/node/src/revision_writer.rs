//! The revision log thread's part: frames go to the file system once the write-ahead log has their entries, and
//! are synced in the background. Nothing that a client waits for depends on it.

use std::collections::VecDeque;

use disk::revlog::{Durable, Frame, Writer};

use crate::{Error, SnapshotOrder};

/// Holds frames back until they may be written, then writes and syncs them.
pub struct RevisionWriter {
    writer: Writer,
    waiting: VecDeque<Frame>,
    wal_durable: u64,
    unsynced: bool,
    /// The disk had no room for the frame that is next.
    is_full: bool,
    /// The snapshot that waits for what it covers to be durable.
    snapshot: Option<SnapshotOrder>,
}

impl RevisionWriter {
    /// Takes over an open log; for `wal_durable` see [`RevisionWriter::wal_durable`].
    pub fn new(writer: Writer, wal_durable: u64) -> Self {
        RevisionWriter {
            writer,
            waiting: VecDeque::new(),
            wal_durable,
            unsynced: false,
            is_full: false,
            snapshot: None,
        }
    }

    /// Queues a frame. Frames come in the order in which they were finished.
    pub fn offer(&mut self, frame: Frame) {
        self.waiting.push_back(frame);
    }

    /// Holds a snapshot back until the log is durable up to its index (rule 3), which its frames, offered before, make it.
    pub fn order(&mut self, snapshot: SnapshotOrder) {
        self.snapshot = Some(snapshot);
    }

    /// Whether a snapshot waits for the next [`RevisionWriter::sync`].
    pub fn snapshot_wants_sync(&self) -> bool {
        let written = self.writer.written().applied.index;
        self.unsynced && self.snapshot.as_ref().is_some_and(|snapshot| snapshot.index <= written)
    }

    /// The snapshot whose entries are durable here: its file may be written.
    pub fn take_snapshot(&mut self) -> Option<SnapshotOrder> {
        let durable = self.writer.durable().applied.index;
        self.snapshot.take_if(|snapshot| snapshot.index <= durable)
    }

    /// The write-ahead log has all committed entries up to `index`: [`Consensus::durable_index`](crate::Consensus).
    pub fn wal_durable(&mut self, index: u64) {
        self.wal_durable = self.wal_durable.max(index);
    }

    /// Whether a frame waits that may be written now.
    pub fn can_write(&self) -> bool {
        !self.is_full && self.waiting.front().is_some_and(|frame| frame.applied().index <= self.wal_durable)
    }

    /// Whether a frame waits, for the write-ahead log, for room on the disk, or for [`RevisionWriter::write`].
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether something written is not synced yet.
    pub fn needs_sync(&self) -> bool {
        self.unsynced
    }

    /// Writes the frames whose entries the write-ahead log has (rule 2) and for which the disk has room; what it has
    /// none for waits until a later [`RevisionWriter::sync`] finds some (rule 7). How many bytes were written.
    ///
    /// # Errors
    /// The failed operation; the member must stop (rule 7).
    pub fn write(&mut self) -> Result<u64, Error> {
        let mut bytes = 0;
        while self.can_write() {
            let Some(frame) = self.waiting.pop_front() else { break };
            if !self.writer.make_room(&frame)? {
                self.waiting.push_front(frame);
                self.is_full = true;
                break;
            }
            bytes += frame.len();
            self.writer.write(frame)?;
            self.unsynced = true;
        }
        Ok(bytes)
    }

    /// Makes what was written durable, and asks the disk again for room.
    ///
    /// # Errors
    /// The failed sync. It is never tried again; the member must stop (rule 7).
    pub fn sync(&mut self) -> Result<Durable, Error> {
        let durable = self.writer.sync()?;
        self.unsynced = false;
        if let Some(frame) = self.waiting.front().filter(|_| self.is_full) {
            self.is_full = !self.writer.make_room(frame)?;
        }
        Ok(durable)
    }

    /// Whether no frame waits for room and segments could be allocated ahead (rule 7). Asked again with each sync.
    pub fn has_room(&self) -> bool {
        !self.is_full && self.writer.has_room()
    }
}
