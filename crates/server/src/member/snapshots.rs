//! Snapshots between members: sent by a thread each, and received by one that may block.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use node::interchange::Cut;
use node::{ReceiveError, SnapshotReceiver};
use raft::{Index, Message, Term};
use tokio::sync::mpsc;

use super::mailbox::Sender;
use super::threads::RaftMail;
use crate::log;
use crate::metrics::Metrics;
use crate::peer::{Chunk, Database, Handle, IncomingSnapshot};
use crate::process::Events;

/// Bytes of a database that travel together.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait for the receiver.
const PIECES_WAITING: usize = 4;
/// How long a receiver may take at least, and for how many bytes it gets a second more: what it holds up meanwhile are
/// compactions.
const TIME_MIN: Duration = Duration::from_secs(600);
const BYTES_PER_SECOND_MIN: u64 = 128 << 10;

/// Sends snapshots to members that lag behind.
pub(super) struct SnapshotSender {
    peers: Handle,
    raft: Sender<RaftMail>,
    /// The term in which this member leads, 0 in none: what was begun in another one is of no use to the receiver.
    leads_in: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl SnapshotSender {
    pub(super) fn new(peers: Handle, raft: Sender<RaftMail>, metrics: Arc<Metrics>) -> Self {
        SnapshotSender { peers, raft, leads_in: Arc::default(), metrics }
    }

    /// In which term this member leads. What was begun in another one is given up.
    pub(super) fn leads_in(&self, term: Option<u64>) {
        self.leads_in.store(term.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Begins to send what was pinned for this message, whose sending has this name. How it ends is told to the raft
    /// thread, always.
    pub(super) fn begin(&self, message: Message, sent: (Term, Index), cut: Cut) {
        let (peers, raft, to) = (self.peers.clone(), self.raft.clone(), message.to);
        let (failed, leads_in, metrics) = (raft.clone(), self.leads_in.clone(), self.metrics.clone());
        let thread = std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || {
                let begun = Instant::now();
                send(&cut, (message, sent), &peers, &raft, &leads_in);
                metrics.member.snapshots.observe_time(begun.elapsed());
            })
            .inspect_err(
                |error| log::warn!("failed to start the sending of a snapshot", "error" => log::Text(error)),
            );
        if thread.is_err() {
            failed.send(RaftMail::SnapshotReported(to, sent, false));
        }
    }

    /// Gives up what is being sent. Nobody waits for it: a thread that still reads the store for the length of the file takes
    /// as long as that, and changes nothing.
    pub(super) fn stop(&self) {
        self.leads_in(None);
    }
}

fn send(
    cut: &Cut,
    (message, sent): (Message, (Term, Index)),
    peers: &Handle,
    raft: &Sender<RaftMail>,
    leads_in: &AtomicU64,
) {
    let (to, term) = (message.to, message.term.0);
    let plan = match cut.plan() {
        Ok(plan) => plan,
        Err(error) => {
            log::error!("failed to read the store for a snapshot", "error" => log::Text(error));
            return raft.send(RaftMail::SnapshotReported(to, sent, false));
        }
    };
    let bytes = plan.file_len();
    let (queue, chunks) = mpsc::channel(PIECES_WAITING);
    // From here on the transport tells how it ends.
    peers.send_snapshot(message, Database { bytes, chunks });
    let deadline = Instant::now() + TIME_MIN + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let hand_over = |piece: &mut Vec<u8>| {
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the receiver takes too long"));
        }
        if leads_in.load(Ordering::Relaxed) != term {
            return Err(io::Error::other("another member leads"));
        }
        let full = std::mem::replace(piece, Vec::with_capacity(PIECE_BYTES));
        let sent = queue.blocking_send(Ok(Bytes::from(full)));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the receiver is gone"))
    };
    let written = cut.write(plan, |mut bytes| {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - piece.len()));
            piece.extend_from_slice(now);
            bytes = later;
            if piece.len() == PIECE_BYTES {
                hand_over(&mut piece)?;
            }
        }
        Ok(())
    });
    let written = written.map_err(|error| error.to_string());
    let written = written.and_then(|()| match piece.is_empty() {
        true => Ok(()),
        false => hand_over(&mut piece).map_err(|error| error.to_string()),
    });
    if let Err(error) = written {
        // The transport cuts the connection: it never looks like an end.
        log::warn!("gave up a snapshot", "remote-peer-id" => to.to_string(), "error" => error);
    }
}

/// Takes a database in, on a thread that may block: when this returns, it is durable and checked. A failed disk ends the
/// member.
pub(super) fn receive(
    receiver: &SnapshotReceiver,
    incoming: IncomingSnapshot,
    log_id: u64,
    (events, metrics): (&Events, &Metrics),
) -> Result<(), String> {
    take(receiver, incoming, log_id, metrics).map_err(|error| match error {
        ReceiveError::Failed(error) => events.failed(&error.into()),
        other => other.to_string(),
    })
}

fn take(
    receiver: &SnapshotReceiver,
    incoming: IncomingSnapshot,
    log_id: u64,
    metrics: &Metrics,
) -> Result<(), ReceiveError> {
    let begun = Instant::now();
    let IncomingSnapshot { snapshot, database_bytes, mut chunks, .. } = incoming;
    let mut file = receiver.begin(database_bytes)?;
    loop {
        match chunks.blocking_recv() {
            Some(Chunk::Bytes(bytes)) => file.write(&bytes)?,
            Some(Chunk::End) => {
                let ended = Instant::now();
                receiver.finish(file, &snapshot, log_id)?;
                metrics.member.database_fsyncs.observe_time(ended.elapsed());
                metrics.member.database_saves.observe_time(begun.elapsed());
                return Ok(());
            }
            None => return Err(ReceiveError::Refused("the connection was cut".to_owned())),
        }
    }
}
