//! Between the socket and the codec.
//!
//! What the codec writes is gathered here and leaves in one write once the connection's turn is over; the
//! codec's own flushes do nothing. It also watches frame headers for the keepalive policy, which the codec
//! cannot keep: see [`PingPolicy`].

use std::cell::{Ref, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::{FrameScanner, Seen, relabel_authority, too_many_pings};

/// Bytes that are gathered before they are written without waiting for the end of the turn.
const GATHER_BYTES: usize = 64 * 1024;
/// A piece of this size is not worth copying into an empty gathering buffer.
const DIRECT_BYTES: usize = 16 * 1024;
/// Bytes read in one turn before other connections get theirs.
const READ_BYTES_PER_TURN: usize = 256 * 1024;
/// Violations that a client is forgiven.
const PING_STRIKES_MAX: u32 = 2;
/// Without a call in progress, pings may not come more often than this.
const PING_INTERVAL_WITHOUT_CALLS: Duration = Duration::from_secs(2 * 60 * 60);

/// How often a client may ping (gRPC's enforcement policy, as its Go server keeps it).
#[derive(Clone, Copy, Debug)]
pub struct PingPolicy {
    /// `--grpc-keepalive-min-time`: with a call in progress, pings may come this often.
    pub interval_min: Duration,
}

/// What the connection learns from the frames that came in.
///
/// Frames are seen when they are read. The codec may come to them later, if it can't go on before something is written:
/// streams are to stay here until [`IoControl::is_caught_up`].
#[derive(Debug, Default)]
pub struct Turn {
    /// Streams that the client has reset.
    pub resets: Vec<u32>,
    /// Streams that other frames came for.
    pub touched: Vec<u32>,
    /// Whether anything came in during this turn.
    pub read: bool,
    /// Whether the client has sent trailers.
    pub trailers: bool,
    pings: u32,
}

impl Turn {
    fn touch(&mut self, stream: u32) {
        // Large messages come in rows of frames.
        if self.touched.last() != Some(&stream) {
            self.touched.push(stream);
        }
    }
}

#[derive(Debug)]
struct State<S> {
    inner: S,
    out: Vec<u8>,
    /// Of `out`, what the socket has taken.
    sent: usize,
    outbound: FrameScanner,
    inbound: FrameScanner,
    turn: Turn,
    /// The codec has asked for bytes when there were none, so it has decoded all that came.
    caught_up: bool,
    /// The first request has come.
    requested: bool,
    turn_bytes: usize,
    strikes: u32,
    last_ping: Option<Instant>,
    /// Something was sent since the last ping: it is forgiven, and so are those before.
    answered: bool,
    kicked: bool,
    goaway_queued: bool,
}

/// The codec's end: reads and gathered writes.
#[derive(Debug)]
pub struct GatherIo<S>(Rc<RefCell<State<S>>>);

/// The connection's end: turns, flushes and the ping policy.
#[derive(Debug)]
pub struct IoControl<S>(Rc<RefCell<State<S>>>);

/// Wraps a socket into the codec's and the connection's end.
pub fn gather<S: AsyncRead + AsyncWrite + Unpin>(inner: S) -> (GatherIo<S>, IoControl<S>) {
    let state = Rc::new(RefCell::new(State {
        inner,
        out: Vec::new(),
        sent: 0,
        outbound: FrameScanner::outbound(),
        inbound: FrameScanner::inbound(),
        turn: Turn::default(),
        caught_up: true,
        requested: false,
        turn_bytes: 0,
        strikes: 0,
        last_ping: None,
        answered: false,
        kicked: false,
        goaway_queued: false,
    }));
    (GatherIo(Rc::clone(&state)), IoControl(state))
}

impl<S: AsyncRead + AsyncWrite + Unpin> State<S> {
    /// Ready once the socket has everything that was gathered.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.out[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Queues the last frame of a connection that is cut, once no other frame is half written.
    fn queue_goaway(&mut self) {
        if self.kicked && !self.goaway_queued && self.outbound.at_boundary() {
            self.goaway_queued = true;
            self.out.extend_from_slice(&too_many_pings());
        }
    }

    fn take_written(&mut self, bytes: &[u8]) {
        let answered = &mut self.answered;
        self.outbound.scan(bytes, |seen| *answered |= matches!(seen, Seen::Whole { .. }));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for GatherIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        state.caught_up = true;
        if state.turn_bytes >= READ_BYTES_PER_TURN {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut state.inner).poll_read(cx, buf))?;
        let bytes = &mut buf.filled_mut()[before..];
        state.turn_bytes += bytes.len();
        state.caught_up = bytes.is_empty();
        let turn = &mut state.turn;
        turn.read |= !bytes.is_empty();
        let mut first_headers = None;
        state.inbound.scan(bytes, |seen| match seen {
            Seen::Reset { stream } => turn.resets.push(stream),
            Seen::Ping => turn.pings += 1,
            Seen::Whole { stream } => turn.touch(stream),
            Seen::Trailers => turn.trailers = true,
            Seen::Headers { at, length, flags } => {
                first_headers.get_or_insert((at, length, flags));
            }
        });
        if let Some((at, length, flags)) =
            first_headers.filter(|_| !std::mem::replace(&mut state.requested, true))
        {
            let end = (at + length).min(bytes.len());
            relabel_authority(&mut bytes[at..end], flags);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GatherIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.borrow_mut();
        if state.kicked && state.outbound.at_boundary() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.out.len() - state.sent + buf.len() > GATHER_BYTES {
            ready!(state.drain(cx))?;
            if buf.len() >= DIRECT_BYTES {
                let n = ready!(Pin::new(&mut state.inner).poll_write(cx, buf))?;
                state.take_written(&buf[..n]);
                return Poll::Ready(Ok(n));
            }
        }
        state.out.extend_from_slice(buf);
        state.take_written(buf);
        Poll::Ready(Ok(buf.len()))
    }

    /// Does nothing: the connection flushes at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.borrow_mut();
        ready!(state.drain(cx))?;
        Pin::new(&mut state.inner).poll_shutdown(cx)
    }

    /// Vectored, the codec would write each answer in a call of its own.
    fn is_write_vectored(&self) -> bool {
        false
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> IoControl<S> {
    /// Begins a turn: the connection may read again.
    pub fn begin_turn(&self) {
        let mut state = self.0.borrow_mut();
        state.turn_bytes = 0;
    }

    /// Takes what was seen since the last call; streams are added to those that are there.
    pub fn take_turn(&self, into: &mut Turn) {
        let mut state = self.0.borrow_mut();
        into.resets.append(&mut state.turn.resets);
        into.touched.append(&mut state.turn.touched);
        into.read = std::mem::take(&mut state.turn.read);
        into.trailers |= std::mem::take(&mut state.turn.trailers);
        into.pings = std::mem::take(&mut state.turn.pings);
    }

    /// Whether the codec has decoded everything that was read.
    pub fn is_caught_up(&self) -> bool {
        self.0.borrow().caught_up
    }

    /// Judges the pings of a turn; true if the connection has to be cut. `calls`: whether one is in progress.
    pub fn judge_pings(&self, turn: &Turn, calls: bool, policy: PingPolicy) -> bool {
        let mut state = self.0.borrow_mut();
        for _ in 0..turn.pings {
            let now = Instant::now();
            let last = state.last_ping.replace(now);
            if std::mem::take(&mut state.answered) {
                state.strikes = 0;
                continue;
            }
            let interval_min = if calls { policy.interval_min } else { PING_INTERVAL_WITHOUT_CALLS };
            if last.is_some_and(|last| now < last + interval_min) {
                state.strikes += 1;
            }
        }
        if state.strikes > PING_STRIKES_MAX {
            state.kicked = true;
        }
        state.kicked
    }

    /// Writes what was gathered; ready once the socket has all of it.
    pub fn flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        state.queue_goaway();
        ready!(state.drain(cx))?;
        Pin::new(&mut state.inner).poll_flush(cx)
    }

    /// Whether the codec is in the middle of a frame.
    pub fn mid_frame(&self) -> bool {
        !Ref::map(self.0.borrow(), |state| &state.outbound).at_boundary()
    }

    /// Reads and drops what still comes in, after the socket's write side was shut: closing a socket with
    /// unread bytes would take the last frame away from the client. Ready at the end of the stream.
    pub fn linger(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.0.borrow_mut();
        if ready!(Pin::new(&mut state.inner).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        let mut scratch = [std::mem::MaybeUninit::uninit(); 4096];
        loop {
            let mut buf = ReadBuf::uninit(&mut scratch);
            match ready!(Pin::new(&mut state.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}
