//! The thread for work on files that nothing may wait for: allocating segments of the log, snapshot files, and giving
//! back what is not needed any more.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use disk::wal;
use node::{ReceiveError, SnapshotOrder, SnapshotReceiver, SnapshotWriter};

use super::mailbox::{Receiver, Sender};
use super::slow::Line;
use super::threads::{ApplyMail, ROOM_RETRY_INTERVAL, RaftMail, WalMail};
use crate::log;
use crate::metrics::Metrics;

/// What is to be done.
pub(super) enum FileMail {
    /// A segment is to be allocated.
    Prepare(wal::Preparation),
    /// What a snapshot covers is durable in the revision log: its file is to be written.
    Save(SnapshotOrder),
    /// The log names a snapshot: the next one may be taken, and older files go.
    Named(u64),
    /// Files older than this snapshot go.
    Purge(u64),
    /// Segments go.
    Release(wal::Release),
    /// What was received of a leader's snapshot goes: consensus has no use for it.
    Discard,
    /// Something is to be said that apply must not wait for.
    SlowApply(Line),
}

/// Works on files.
pub(super) struct FileThread {
    pub snapshots: SnapshotWriter,
    pub receiver: SnapshotReceiver,
    pub mail: Receiver<FileMail>,
    pub raft: Sender<RaftMail>,
    pub wal: Sender<WalMail>,
    pub apply: Sender<ApplyMail>,
    /// A snapshot that a full disk has no room for, and when it is tried again.
    pub waiting: Option<(SnapshotOrder, Instant)>,
    pub metrics: Arc<Metrics>,
}

impl FileThread {
    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) -> Result<(), node::Error> {
        let mut mail = Vec::new();
        while self.mail.receive(&mut mail, self.waiting.as_ref().map(|(_, at)| *at)) {
            for item in mail.drain(..) {
                match item {
                    FileMail::Prepare(preparation) => self.wal.send(WalMail::Prepared(preparation.run())),
                    FileMail::Save(order) => {
                        let index = order.index;
                        self.save(order)?;
                        if self.waiting.is_some() {
                            log::warn!("disk is full: a snapshot waits until there is room", "snapshot-index" => index);
                        }
                    }
                    FileMail::Named(index) => {
                        log::info!("saved snapshot to disk", "snapshot-index" => index);
                        self.apply.send(ApplyMail::SnapshotTaken(index));
                        purged(&self.snapshots.purge(index)?);
                    }
                    FileMail::Purge(index) => purged(&self.snapshots.purge(index)?),
                    FileMail::Release(release) => purged(&release.run()?),
                    FileMail::Discard => match self.receiver.discard() {
                        Ok(()) => log::info!("removed a snapshot that came too late"),
                        Err(ReceiveError::Failed(error)) => return Err(error),
                        Err(other) => log::warn!("failed to remove a snapshot", "error" => log::Text(other)),
                    },
                    FileMail::SlowApply(line) => line.write(),
                }
            }
            if let Some((order, _)) = self.waiting.take_if(|(_, at)| *at <= Instant::now()) {
                self.save(order)?;
            }
        }
        Ok(())
    }

    fn save(&mut self, order: SnapshotOrder) -> Result<(), node::Error> {
        let (counts, begun) = (&self.metrics.member, Instant::now());
        let snapshot = self.snapshots.make(&order);
        let made = Instant::now();
        match self.snapshots.write(snapshot)? {
            Some(record) => {
                counts.snap_marshalling.observe_time(made - begun);
                counts.snap_fsyncs.observe_time(made.elapsed());
                counts.snap_saves.observe_time(begun.elapsed());
                self.raft.send(RaftMail::SnapshotSaved(record));
            }
            None => self.waiting = Some((order, Instant::now() + ROOM_RETRY_INTERVAL)),
        }
        Ok(())
    }
}

fn purged(paths: &[PathBuf]) {
    for path in paths {
        log::info!("purged", "path" => log::Text(path.display()));
    }
}
