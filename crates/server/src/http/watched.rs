//! A connection that is watched while nothing of it is wanted: whether its client is still there.
//!
//! hyper does not read while it answers, since a client may end its side once it has asked. Who waits long for an answer,
//! at the gateway, is taken at its word in Go's way: one that has ended its side is gone.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head_timer::Heard;

/// What is read ahead, to see whether there is an end; a client may have asked for more already.
const AHEAD_BYTES: usize = 64;

/// Both sides of the connection, shared.
pub struct Watched<S>(Rc<RefCell<Inner<S>>>);

struct Inner<S> {
    stream: S,
    ahead: [u8; AHEAD_BYTES],
    /// What of it has come and is not read again.
    came: std::ops::Range<usize>,
    is_over: bool,
    heard: Heard,
}

impl<S> Clone for Watched<S> {
    fn clone(&self) -> Self {
        Watched(self.0.clone())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    /// Nothing has come yet.
    pub fn new(stream: S) -> Self {
        let (ahead, heard) = ([0; AHEAD_BYTES], Heard::default());
        Watched(Rc::new(RefCell::new(Inner { stream, ahead, came: 0..0, is_over: false, heard })))
    }

    /// What is set when anything is read.
    pub fn heard(&self) -> Heard {
        self.0.borrow().heard.clone()
    }

    /// Ready once the client has ended its side. To be polled on the connection's own task, where nobody else waits for it
    /// to send.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let inner = &mut *self.0.borrow_mut();
        if inner.is_over {
            return Poll::Ready(());
        }
        if !inner.came.is_empty() {
            return Poll::Pending;
        }
        let mut buf = ReadBuf::new(&mut inner.ahead);
        let read = Pin::new(&mut inner.stream).poll_read(cx, &mut buf);
        let length = buf.filled().len();
        match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if length > 0 => {
                inner.came = 0..length;
                // Whoever reads was not told.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(_) => {
                inner.is_over = true;
                Poll::Ready(())
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        if !inner.came.is_empty() {
            let again = &inner.ahead[inner.came.clone()];
            let fits = again.len().min(buf.remaining());
            buf.put_slice(&again[..fits]);
            inner.came.start += fits;
            inner.heard.set(true);
            return Poll::Ready(Ok(()));
        }
        if inner.is_over {
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(&mut inner.stream).poll_read(cx, buf);
        if read.is_ready() {
            inner.heard.set(true);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn an_end_is_seen_and_nothing_is_lost() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            let watched = Watched::new(ours);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(watched.poll_gone(&mut cx).is_pending());
            theirs.write_all(&[b'x'; 100]).await.unwrap();
            assert!(watched.poll_gone(&mut cx).is_pending());
            theirs.shutdown().await.unwrap();
            assert!(watched.poll_gone(&mut cx).is_pending(), "there is more to be read first");
            let mut got = [0; 100];
            watched.clone().read_exact(&mut got).await.unwrap();
            assert_eq!(got, [b'x'; 100]);
            poll_fn(|cx| watched.poll_gone(cx)).await;
            assert_eq!(watched.clone().read(&mut got).await.unwrap(), 0);
        });
    }
}
