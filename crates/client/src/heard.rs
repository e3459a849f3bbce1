//! A stream that tells when the server has spoken.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// A frame's head, bytes, and its fourth byte if it is of SETTINGS, which a server sends first.
const HEAD_BYTES: usize = 9;
const SETTINGS: u8 = 4;

/// Passes everything through, and looks at the first bytes that come.
pub(crate) struct Heard<S> {
    stream: S,
    head: [u8; HEAD_BYTES],
    len: usize,
    /// Gone once the head has come.
    tell: Option<oneshot::Sender<()>>,
}

impl<S> Heard<S> {
    /// The receiver gets its message with the first frame of an HTTP/2 server, and fails when anything else comes or
    /// the stream is dropped.
    pub(crate) fn new(stream: S) -> (Self, oneshot::Receiver<()>) {
        let (tell, heard) = oneshot::channel();
        (Heard { stream, head: [0; HEAD_BYTES], len: 0, tell: Some(tell) }, heard)
    }

    fn look(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(HEAD_BYTES - self.len);
        self.head[self.len..self.len + taken].copy_from_slice(&bytes[..taken]);
        self.len += taken;
        if self.len == HEAD_BYTES
            && let Some(tell) = self.tell.take()
            && self.head[3] == SETTINGS
        {
            // Nobody waits any more when the attempt was given up.
            let _ = tell.send(());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.tell.is_some() {
            self.look(&buf.filled()[before..]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
