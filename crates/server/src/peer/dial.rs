//! Connections to others, and one HTTP/1.1 exchange on one.

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::TcpKeepalive;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::body::PeerBody;
use super::timed::Timed;
use crate::LocalFuture;
use crate::config::Url;

/// How often the system asks whether the other side is still there, and first after which silence; Go's default.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// An answer that is no stream is read no further than this.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A byte stream of any kind: TCP, a socket file, TLS, a pipe of a test.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// Makes connections to peers.
pub trait Dial: 'static {
    /// Connects to a peer's URL. The future may be dropped.
    fn dial<'a>(&'a self, url: &'a Url) -> LocalFuture<'a, io::Result<Box<dyn Io>>>;
}

/// Connects by TCP and to socket files, with TLS where the URL asks for it.
#[derive(Debug, Default)]
pub struct NetDial {
    info: tls::Info,
    /// Made with the first connection that needs it: a cluster without TLS needs no authorities.
    client: OnceCell<Result<tls::Client, tls::Error>>,
}

impl NetDial {
    /// With this member's certificates and whom it trusts.
    pub fn new(info: tls::Info) -> NetDial {
        NetDial { info, client: OnceCell::new() }
    }

    async fn secure(&self, url: &Url, stream: impl Io + 'static) -> io::Result<Box<dyn Io>> {
        let client = self.client.get_or_init(|| tls::Client::new(&self.info, &[]));
        let client = client.as_ref().map_err(|error| io::Error::other(error.clone()))?;
        let host = if url.is_unix() { "localhost" } else { url.host() };
        let dialing = client.begin(host).map_err(io::Error::other)?;
        let connected = TlsConnector::from(dialing.config).connect(dialing.name, stream).await;
        let stream = connected.map_err(|error| io::Error::other(dialing.seen.reason(&error)))?;
        Ok(Box::new(stream))
    }
}

impl Dial for NetDial {
    fn dial<'a>(&'a self, url: &'a Url) -> LocalFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            if url.is_unix() {
                let stream = UnixStream::connect(url.authority()).await?;
                return match url.is_secure() {
                    true => self.secure(url, stream).await,
                    false => Ok(Box::new(stream) as Box<dyn Io>),
                };
            }
            let stream = connect::tcp(url.authority()).await?;
            stream.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
            socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            match url.is_secure() {
                true => self.secure(url, stream).await,
                false => Ok(Box::new(stream) as Box<dyn Io>),
            }
        })
    }
}

/// How long each part of an exchange may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until there is a connection.
    pub dial: Duration,
    /// Without a byte of what is awaited.
    pub read: Option<Duration>,
    /// Without the other side's taking a byte.
    pub write: Option<Duration>,
}

/// Why an exchange failed before it was answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("dial {url}: {error}")]
    Dial { url: String, error: String },
    #[error("{}", with_cause(.0))]
    Http(#[from] hyper::Error),
}

/// hyper's errors name their cause beside their text.
pub(super) fn with_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// An open connection; it ends when this is dropped.
pub(super) struct Connection {
    requests: SendRequest<PeerBody>,
    host: HeaderValue,
    _driver: AbortOnDrop,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Connects. Must be called inside a `LocalSet`.
    pub(super) async fn open(
        dial: &Rc<dyn Dial>,
        url: &Url,
        patience: Patience,
    ) -> Result<Connection, ExchangeError> {
        let failed = |error: String| ExchangeError::Dial { url: url.to_string(), error };
        let stream = match tokio::time::timeout(patience.dial, dial.dial(url)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed(crate::go_error(&error))),
            Err(_) => return Err(failed("i/o timeout".to_owned())),
        };
        let stream = TokioIo::new(Timed::new(stream, patience.read, patience.write));
        let (requests, connection) = http1::Builder::new().title_case_headers(true).handshake(stream).await?;
        let driver = tokio::task::spawn_local(async move { drop(connection.await) });
        let host = HeaderValue::try_from(url.authority()).map_err(|error| failed(error.to_string()))?;
        Ok(Connection { requests, host, _driver: AbortOnDrop(driver.abort_handle()) })
    }

    /// Whether another request may be sent on it.
    pub(super) async fn is_ready(&mut self) -> bool {
        !self.requests.is_closed() && self.requests.ready().await.is_ok()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &mut self,
        mut request: Request<PeerBody>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        request.headers_mut().insert(HOST, self.host.clone());
        Ok(self.requests.send_request(request).await?)
    }
}

/// The text of an answer that is no stream.
pub(super) async fn answer_text(body: Incoming) -> Result<String, String> {
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).trim_end_matches('\n').to_owned())
}
