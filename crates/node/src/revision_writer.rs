//! The revision log thread's part: frames go to the file system once the write-ahead log has their entries, and
//! are synced in the background. Nothing that a client waits for depends on it.

use std::collections::VecDeque;

use disk::revlog::{Durable, Frame, Writer};

use crate::Error;

/// Holds frames back until they may be written, then writes and syncs them.
pub struct RevisionWriter {
    writer: Writer,
    waiting: VecDeque<Frame>,
    wal_durable: u64,
    unsynced: bool,
}

impl RevisionWriter {
    /// Takes over an open log; the write-ahead log is durable up to `wal_durable`.
    pub fn new(writer: Writer, wal_durable: u64) -> Self {
        RevisionWriter { writer, waiting: VecDeque::new(), wal_durable, unsynced: false }
    }

    /// Queues a frame. Frames come in the order in which they were finished.
    pub fn offer(&mut self, frame: Frame) {
        self.waiting.push_back(frame);
    }

    /// The write-ahead log is durable up to `index`. It may fall back where a new leader replaced entries; a
    /// frame that was allowed before stays so, since what it holds was committed.
    pub fn wal_durable(&mut self, index: u64) {
        self.wal_durable = self.wal_durable.max(index);
    }

    /// Whether a frame waits that may be written now.
    pub fn can_write(&self) -> bool {
        self.waiting.front().is_some_and(|frame| frame.applied().index <= self.wal_durable)
    }

    /// Whether a frame waits, for the write-ahead log or for [`RevisionWriter::write`].
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether something written is not synced yet.
    pub fn needs_sync(&self) -> bool {
        self.unsynced
    }

    /// Writes the frames whose entries the write-ahead log has (rule 2).
    ///
    /// # Errors
    /// The failed operation; the member must stop (rule 7).
    pub fn write(&mut self) -> Result<(), Error> {
        while self.can_write() {
            if let Some(frame) = self.waiting.pop_front() {
                self.writer.write(frame)?;
                self.unsynced = true;
            }
        }
        Ok(())
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The failed sync. It is never tried again; the member must stop (rule 7).
    pub fn sync(&mut self) -> Result<Durable, Error> {
        let durable = self.writer.sync()?;
        self.unsynced = false;
        Ok(durable)
    }

    /// Whether segments could be allocated ahead (rule 7).
    pub fn has_room(&self) -> bool {
        self.writer.has_room()
    }
}
