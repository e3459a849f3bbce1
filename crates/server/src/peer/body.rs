//! The bodies that leave: whole ones, streams of messages, snapshots.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use raft::MessageType;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::codec::{AppendEncoder, Output, encode_heartbeat, encode_message};
use super::link::{Link, StreamKind};

/// A stream hands out messages in pieces of this size, or of one message.
const FRAME_BYTES: usize = 64 << 10;

/// What a request or an answer carries.
pub(super) enum PeerBody {
    Full(Full<Bytes>),
    Stream(Box<StreamBody>),
    Snapshot(Box<SnapshotBody>),
}

impl From<Bytes> for PeerBody {
    fn from(bytes: Bytes) -> Self {
        PeerBody::Full(Full::new(bytes))
    }
}

impl Body for PeerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            PeerBody::Full(full) => Pin::new(full)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            PeerBody::Stream(stream) => {
                stream.poll(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
            PeerBody::Snapshot(snapshot) => {
                snapshot.poll(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            PeerBody::Full(full) => full.is_end_stream(),
            PeerBody::Stream(_) | PeerBody::Snapshot(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            PeerBody::Full(full) => full.size_hint(),
            PeerBody::Stream(_) => SizeHint::default(),
            PeerBody::Snapshot(snapshot) => SizeHint::with_exact(snapshot.left),
        }
    }
}

/// The writing end of a stream: what waits in the link's queue, and a sign of life when nothing does.
pub(super) struct StreamBody {
    link: Rc<Link>,
    kind: StreamKind,
    /// Which of the streams of this kind it is; a later one takes its place.
    generation: u64,
    appends: AppendEncoder,
    out: Output,
    heartbeat: Interval,
    /// Something was sent since the last beat.
    busy: bool,
}

impl StreamBody {
    pub(super) fn new(link: Rc<Link>, kind: StreamKind) -> Self {
        let generation = link.attach(kind);
        let mut heartbeat = interval(link.limits().heartbeat_interval());
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (appends, out) = (AppendEncoder::default(), Output::default());
        // The first beat is due at once: the reader knows then that it has a stream.
        StreamBody { link, kind, generation, appends, out, heartbeat, busy: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(piece) = self.out.pop() {
            return Poll::Ready(Some(piece));
        }
        if !self.link.is_attached(self.kind, self.generation) {
            return Poll::Ready(None);
        }
        while self.out.len() < FRAME_BYTES
            && let Some(message) = self.link.pop(self.kind)
        {
            let before = self.out.len();
            match message.as_append().filter(|_| self.kind == StreamKind::Append) {
                Some(append) => self.appends.encode(append, &mut self.out),
                None => encode_message(&message, &mut self.out),
            }
            let stats = self.link.stats();
            stats.sent_bytes.add((self.out.len() - before) as u64);
            if message.kind == MessageType::ReadIndex {
                stats.read_indexes_sent.add(1);
            }
        }
        self.busy |= !self.out.is_empty();
        while self.out.is_empty() && self.heartbeat.poll_tick(cx).is_ready() {
            if !std::mem::take(&mut self.busy) {
                match self.kind {
                    StreamKind::Append => self.appends.heartbeat(&mut self.out),
                    StreamKind::Message => encode_heartbeat(&mut self.out),
                }
            }
        }
        match self.out.pop() {
            Some(piece) => Poll::Ready(Some(piece)),
            None => {
                self.link.wait(self.kind, cx.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        self.link.detach(self.kind, self.generation);
    }
}

/// A database to be sent, whose length is known before its first byte is (design rule 17).
#[derive(Debug)]
pub struct Database {
    /// How many bytes there are.
    pub bytes: u64,
    /// They come in order, and no more are made than are taken. A channel that closes before all have come, or an error
    /// in it, cuts the connection: it never looks like an end. If this end is dropped, nobody wants the rest.
    pub chunks: mpsc::Receiver<io::Result<Bytes>>,
}

/// A snapshot's message, and the database behind it.
pub(super) struct SnapshotBody {
    head: Option<Bytes>,
    /// Bytes of both that are still to be sent.
    left: u64,
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    /// Told when all has been handed out.
    all_left: Rc<Notify>,
}

impl SnapshotBody {
    pub(super) fn new(head: Bytes, database: Database, all_left: Rc<Notify>) -> Self {
        let left = head.len() as u64 + database.bytes;
        SnapshotBody { head: Some(head), left, chunks: database.chunks, all_left }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(head) = self.head.take() {
            self.left -= head.len() as u64;
            return Poll::Ready(Some(Ok(head)));
        }
        if self.left == 0 {
            self.all_left.notify_one();
            return Poll::Ready(None);
        }
        self.chunks.poll_recv(cx).map(|chunk| {
            let chunk = chunk.unwrap_or_else(|| Err(io::Error::other("the database ended too early")));
            Some(chunk.and_then(|chunk| {
                let left = self.left.checked_sub(chunk.len() as u64);
                self.left =
                    left.ok_or_else(|| io::Error::other("the database is longer than it was said"))?;
                Ok(chunk)
            }))
        })
    }
}
