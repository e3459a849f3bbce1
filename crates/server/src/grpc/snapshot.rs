//! Maintenance.Snapshot: the store as etcd's database file, streamed to a client.
//!
//! A thread of its own reads the store and hands pieces through a short queue to the call, which sends each as its client
//! makes room. The cut that it reads holds up what compactions leave to be done, so the whole has a time limit, by the
//! length of the file: a client that hangs does not keep the past for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use node::interchange::Cut;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::codegen::tokio_stream::Stream;
use wire::etcdserverpb::SnapshotResponse;
use wire::{ApiError, Code};

use super::service::to_tonic;
use crate::log;
use crate::metrics::Metrics;

/// Bytes of the file in one message, as etcd's.
const PIECE_BYTES: usize = 32 << 10;
/// Pieces that wait for the client.
const PIECES_WAITING: usize = 4;
/// How long a client may take at least, and for how many bytes it gets a second more.
const TIME_MIN: Duration = Duration::from_secs(600);
const BYTES_PER_SECOND_MIN: u64 = 128 << 10;

/// Asks the thread that applies for a cut.
pub struct Cuts(Box<dyn Fn(oneshot::Sender<Cut>) + Send + Sync>);

impl Cuts {
    /// `ask` passes on where the cut is to be sent.
    pub fn new(ask: impl Fn(oneshot::Sender<Cut>) + Send + Sync + 'static) -> Self {
        Cuts(Box::new(ask))
    }

    /// Of a member without one.
    pub fn none() -> Self {
        Cuts::new(drop)
    }

    /// Everything that is applied by now; `None` where the process is about to end.
    pub async fn take(&self) -> Option<Cut> {
        let (sender, receiver) = oneshot::channel();
        (self.0)(sender);
        receiver.await.ok()
    }
}

/// The messages of one stream.
pub struct Pieces {
    queue: mpsc::Receiver<Piece>,
    is_over: bool,
}

enum Piece {
    Message(SnapshotResponse),
    End,
}

impl Pieces {
    /// Begins to read the cut. `turn` is held until it is read.
    pub fn begin(cut: Cut, turn: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Pieces {
        let (sender, queue) = mpsc::channel(PIECES_WAITING);
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let begun = std::time::Instant::now();
            send(&cut, &sender, &runtime);
            metrics.member.snapshots.observe_time(begun.elapsed());
        });
        Pieces { queue, is_over: false }
    }
}

impl Stream for Pieces {
    type Item = Result<SnapshotResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        self.queue.poll_recv(cx).map(|piece| match piece {
            Some(Piece::Message(message)) => Some(Ok(message)),
            Some(Piece::End) => None,
            // Never ended cleanly: what the client has is not whole.
            None => {
                self.is_over = true;
                let status =
                    wire::Status::new(Code::Unavailable, "etcdserver: snapshot ended before its end");
                Some(Err(to_tonic(status)))
            }
        })
    }
}

/// Where a thread's pieces go.
struct Outgoing<'a> {
    queue: &'a mpsc::Sender<Piece>,
    runtime: &'a Handle,
    deadline: Instant,
    version: String,
    piece: Vec<u8>,
    left: u64,
    sum: Sha256,
}

fn send(cut: &Cut, queue: &mpsc::Sender<Piece>, runtime: &Handle) {
    let started = std::time::Instant::now();
    let version = cut.storage_version().unwrap_or_default();
    let result = cut.plan().and_then(|plan| {
        let total = plan.file_len();
        log::info!(
            "sending database snapshot to client",
            "total-bytes" => total,
            "storage-version" => version.as_str(),
        );
        let time = TIME_MIN + Duration::from_secs(total / BYTES_PER_SECOND_MIN);
        let mut out = Outgoing {
            queue,
            runtime,
            deadline: Instant::now() + time,
            version: version.clone(),
            piece: Vec::with_capacity(PIECE_BYTES),
            left: total,
            sum: Sha256::new(),
        };
        cut.write(plan, |bytes| out.push(bytes))?;
        out.finish().map(|()| total).map_err(|error| disk::boltfile::Error::Sink(error).into())
    });
    match result {
        Ok(total) => log::info!(
            "successfully sent database snapshot to client",
            "total-bytes" => total,
            "storage-version" => version.as_str(),
            "took" => format!("{:?}", started.elapsed()),
        ),
        Err(error) => log::warn!("failed to send database snapshot to client", "error" => error.to_string()),
    }
}

impl Outgoing<'_> {
    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.piece.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == PIECE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES)));
        self.sum.update(&piece);
        self.left -= piece.len() as u64;
        self.message(self.left, piece)
    }

    fn finish(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.flush()?;
        }
        let sum = std::mem::take(&mut self.sum).finalize();
        self.message(0, Bytes::copy_from_slice(&sum))?;
        self.send(Piece::End)
    }

    fn message(&self, remaining_bytes: u64, blob: Bytes) -> io::Result<()> {
        let version = self.version.clone();
        self.send(Piece::Message(SnapshotResponse { header: None, remaining_bytes, blob, version }))
    }

    fn send(&self, piece: Piece) -> io::Result<()> {
        match self.runtime.block_on(timeout_at(self.deadline, self.queue.send(piece))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes too long")),
        }
    }
}

/// Where no cut is to be had.
pub fn stopped() -> Status {
    to_tonic(ApiError::Stopped.into())
}
