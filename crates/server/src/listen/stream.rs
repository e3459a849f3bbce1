//! One connection's bytes, whatever they travel on, and the look at the first of them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::bind::Accepted;

/// What an HTTP/2 client sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 without TLS, known by its preface.
    Http2,
    /// Anything else is taken for HTTP/1, which answers what it does not understand with 400.
    Http1,
    /// It ended before its first byte.
    Nothing,
}

/// A connection. Bytes that were looked at are read again.
#[derive(Debug)]
pub struct Stream {
    seen: [u8; PREFACE.len()],
    /// How many bytes of `seen` came.
    seen_len: usize,
    /// How many of them were read again.
    replayed: usize,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Puts an accepted connection on the runtime of this thread.
    pub(crate) fn new(accepted: Accepted) -> io::Result<Stream> {
        Ok(Stream::over(match accepted {
            Accepted::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream)?),
            Accepted::Unix(stream) => Socket::Unix(UnixStream::from_std(stream)?),
        }))
    }

    fn over(socket: Socket) -> Stream {
        Stream { seen: [0; PREFACE.len()], seen_len: 0, replayed: 0, socket }
    }

    /// One connection's two ends, on a socket pair; for tests of what is served.
    ///
    /// # Errors
    /// When the system gives no sockets.
    pub fn pair() -> io::Result<(Stream, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Stream::over(Socket::Unix(ours)), theirs))
    }

    /// Looks at the first bytes, as many as it takes to tell what they are. They stay to be read.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn sniff(&mut self) -> io::Result<Protocol> {
        while self.seen_len < PREFACE.len() {
            let room = &mut self.seen[self.seen_len..];
            let came = match &mut self.socket {
                Socket::Tcp(stream) => stream.read(room).await?,
                Socket::Unix(stream) => stream.read(room).await?,
            };
            self.seen_len += came;
            if came == 0 {
                return Ok(if self.seen_len == 0 { Protocol::Nothing } else { Protocol::Http1 });
            }
            if self.seen[..self.seen_len] != PREFACE[..self.seen_len] {
                return Ok(Protocol::Http1);
            }
        }
        Ok(Protocol::Http2)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.replayed < this.seen_len {
            let again = &this.seen[this.replayed..this.seen_len];
            let fits = again.len().min(buf.remaining());
            buf.put_slice(&again[..fits]);
            this.replayed += fits;
            return Poll::Ready(Ok(()));
        }
        match &mut this.socket {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

macro_rules! on_socket {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match &mut $self.socket {
            Socket::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Socket::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_socket!(self, poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_socket!(self, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
