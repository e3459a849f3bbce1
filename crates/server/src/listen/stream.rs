//! One connection's bytes, whatever they travel on, and the look at the first of them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::bind::Accepted;
use super::canonical;

/// What an HTTP/2 client sends first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 without TLS, known by its preface.
    Http2,
    /// A client that begins a TLS handshake.
    Tls,
    /// Anything else is taken for HTTP/1, which answers what it does not understand with 400.
    Http1,
    /// It ended before its first byte.
    Nothing,
}

/// What a TLS client sends first: a handshake's record.
const HANDSHAKE_RECORD: u8 = 22;

/// A connection. Bytes that were looked at are read again.
///
/// One that was just accepted, or that has to change its thread, is on no runtime: [`Stream::attach`] puts it there, and
/// until then nothing of it can be read or written.
#[derive(Debug)]
pub struct Stream {
    seen: [u8; PREFACE.len()],
    /// How many bytes of `seen` came.
    seen_len: usize,
    /// How many of them were read again.
    replayed: usize,
    socket: Socket,
    certified: Option<Arc<str>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<Stream>>),
    /// On no runtime.
    Idle(Accepted),
    /// On its way from one state to another; stays so only when that failed.
    Lost,
}

impl Stream {
    /// An accepted connection, on no runtime.
    pub(crate) fn idle(accepted: Accepted) -> Stream {
        Stream::over(Socket::Idle(accepted))
    }

    /// A connection whose handshake is done. `certified`: the name in the other side's certificate, where users have theirs
    /// from there.
    pub(super) fn secured(stream: TlsStream<Stream>, certified: Option<Arc<str>>) -> Stream {
        Stream { certified, ..Stream::over(Socket::Tls(Box::new(stream))) }
    }

    /// Puts it on the runtime of this thread.
    ///
    /// # Errors
    /// When the system refuses; it is lost then.
    pub(crate) fn attach(&mut self) -> io::Result<()> {
        self.socket = match std::mem::replace(&mut self.socket, Socket::Lost) {
            Socket::Idle(Accepted::Tcp(stream)) => Socket::Tcp(TcpStream::from_std(stream)?),
            Socket::Idle(Accepted::Unix(stream)) => Socket::Unix(UnixStream::from_std(stream)?),
            Socket::Tls(mut stream) => {
                stream.get_mut().0.attach()?;
                Socket::Tls(stream)
            }
            other => other,
        };
        Ok(())
    }

    /// Takes it off the runtime of this thread.
    ///
    /// # Errors
    /// When the system refuses; it is lost then.
    pub(crate) fn detach(&mut self) -> io::Result<()> {
        self.socket = match std::mem::replace(&mut self.socket, Socket::Lost) {
            Socket::Tcp(stream) => Socket::Idle(Accepted::Tcp(stream.into_std()?)),
            Socket::Unix(stream) => Socket::Idle(Accepted::Unix(stream.into_std()?)),
            Socket::Tls(mut stream) => {
                stream.get_mut().0.detach()?;
                Socket::Tls(stream)
            }
            other => other,
        };
        Ok(())
    }

    /// The other side's address as Go prints it, if it has one and is there.
    pub fn remote(&self) -> Option<SocketAddr> {
        let address = match &self.socket {
            Socket::Tcp(stream) => stream.peer_addr().ok(),
            Socket::Tls(stream) => stream.get_ref().0.remote(),
            Socket::Idle(Accepted::Tcp(stream)) => stream.peer_addr().ok(),
            Socket::Unix(_) | Socket::Idle(Accepted::Unix(_)) | Socket::Lost => None,
        };
        address.map(canonical)
    }

    /// The name in the certificate of the other side, verified, if that says who asks.
    pub fn certified(&self) -> Option<Arc<str>> {
        self.certified.clone()
    }

    /// Whether it is encrypted.
    pub fn is_secure(&self) -> bool {
        matches!(self.socket, Socket::Tls(_))
    }

    fn over(socket: Socket) -> Stream {
        Stream { seen: [0; PREFACE.len()], seen_len: 0, replayed: 0, socket, certified: None }
    }

    /// One connection's two ends, on a socket pair; for tests of what is served.
    ///
    /// # Errors
    /// When the system gives no sockets.
    pub fn pair() -> io::Result<(Stream, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Stream::over(Socket::Unix(ours)), theirs))
    }

    /// Looks at the first byte: whether it can be a TLS client's. It stays to be read. `None` if there is none.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) async fn sniff_tls(&mut self) -> io::Result<Option<bool>> {
        if self.seen_len == 0 {
            let mut first = [0];
            if self.socket.read(&mut first).await? == 0 {
                return Ok(None);
            }
            (self.seen[0], self.seen_len) = (first[0], 1);
        }
        Ok(Some(self.seen[0] == HANDSHAKE_RECORD))
    }

    /// Looks at the first bytes, as many as it takes to tell what they are. They stay to be read.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn sniff(&mut self) -> io::Result<Protocol> {
        while self.seen_len < PREFACE.len() {
            let came = self.socket.read(&mut self.seen[self.seen_len..]).await?;
            self.seen_len += came;
            if came == 0 {
                return Ok(if self.seen_len == 0 { Protocol::Nothing } else { Protocol::Http1 });
            }
            if self.seen[0] == HANDSHAKE_RECORD {
                return Ok(Protocol::Tls);
            }
            if self.seen[..self.seen_len] != PREFACE[..self.seen_len] {
                return Ok(Protocol::Http1);
            }
        }
        Ok(Protocol::Http2)
    }
}

macro_rules! on_socket {
    ($socket:expr, $method:ident($($argument:expr),*)) => {
        match $socket {
            Socket::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Socket::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
            Socket::Idle(_) | Socket::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_socket!(&mut *self, poll_read(cx, buf))
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
        on_socket!(&mut this.socket, poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_socket!(&mut self.socket, poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(&mut self.socket, poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(&mut self.socket, poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_socket!(&mut self.socket, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
