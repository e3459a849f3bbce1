//! One HTTP/2 connection to whichever endpoint answers, as the service that tonic's stubs call.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet};
use tonic::Status;
use tonic::body::Body;

use crate::body::{AnswerBody, status_of};
use crate::endpoint::Target;
use crate::heard::Heard;
use crate::identity::Identity;
use crate::security::{Security, secure};
use crate::{Endpoint, Error};

/// The windows that we grant, bytes: a large range shall not wait for our updates.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Where a call carries its token.
const TOKEN: HeaderName = HeaderName::from_static("token");

/// How long an endpoint may take before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(100);

/// The first and the longest pause after every endpoint has failed.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A connection that is made with the first call, to the first endpoint where an HTTP/2 server answers, and made
/// again when it broke, to the endpoints after that one first. Clones share it.
///
/// A call waits until some endpoint answers, as etcd's own client does: bound it by a deadline. A call that was sent
/// is never sent again. It carries the token of the last login, if there is one.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

struct Shared {
    endpoints: Vec<Endpoint>,
    dial_timeout: Duration,
    security: Security,
    identity: Option<Identity>,
    keepalive: Option<Keepalive>,
    answer_bytes_max: u32,
    slot: Mutex<Slot>,
    /// What came of the last attempt to connect, if it failed: the endpoint's place and the cause.
    failure: std::sync::Mutex<Option<(usize, String)>>,
}

#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    /// The endpoint to which the next connection is tried first.
    first: usize,
}

#[derive(Clone)]
struct Connection {
    requests: SendRequest<Bytes>,
    /// The endpoint's, in the list.
    place: usize,
    scheme: Scheme,
    authority: http::uri::Authority,
    driver: DriverGuard,
}

/// When a server is asked whether it is still there: only while calls wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Between two questions.
    pub time: Duration,
    /// Longest wait for the answer; then the connection is given up, and its calls end with `Unavailable`.
    pub timeout: Duration,
}

/// The task that moves a connection's frames; it ends with the last user of the connection.
#[derive(Clone)]
pub(crate) struct DriverGuard(#[allow(dead_code, reason = "held for its drop")] Arc<Driver>);

/// Ends a task with its owner.
pub(crate) struct TaskGuard(pub(crate) AbortHandle);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Default)]
struct Driver(OnceLock<AbortHandle>);

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

/// Ends when the server did not answer in time. `users`: the connection's, the one that is kept for later calls
/// among them.
async fn keepalive(mut pings: PingPong, users: Weak<Driver>, settings: Keepalive) {
    loop {
        tokio::time::sleep(settings.time).await;
        if users.strong_count() < 2 {
            continue;
        }
        let answered = tokio::time::timeout(settings.timeout, pings.ping(Ping::opaque())).await;
        if !matches!(answered, Ok(Ok(_))) {
            return;
        }
    }
}

impl Channel {
    /// A channel to these endpoints, tried in this order, round and round. `dial_timeout` bounds each attempt; answers with messages
    /// above `answer_bytes_max` are refused with `ResourceExhausted`.
    pub(crate) fn new(
        endpoints: Vec<Endpoint>,
        dial_timeout: Duration,
        security: Security,
        identity: Option<Identity>,
        keepalive: Option<Keepalive>,
        answer_bytes_max: u32,
    ) -> Self {
        Channel {
            shared: Arc::new(Shared {
                endpoints,
                dial_timeout,
                security,
                identity,
                keepalive,
                answer_bytes_max,
                slot: Mutex::default(),
                failure: std::sync::Mutex::new(None),
            }),
        }
    }

    /// Who its calls come from, if from anybody.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.shared.identity.as_ref()
    }

    /// Why there is no connection, if the last attempt to make one has failed.
    pub(crate) fn failure(&self) -> Option<Error> {
        let (place, cause) = self.shared.failure().clone()?;
        Some(Error::Unreachable { endpoint: self.shared.endpoints[place].to_string(), cause })
    }

    /// Has the next call try the next endpoint, since this one did not serve. Calls under way stay where they are.
    pub(crate) fn leave(&self) {
        if self.shared.endpoints.len() < 2 {
            return;
        }
        // Who holds the lock is connecting anyway.
        if let Ok(mut slot) = self.shared.slot.try_lock()
            && let Some(connection) = slot.connection.take()
        {
            slot.first = connection.place + 1;
        }
    }
}

impl tonic::codegen::Service<Request<Body>> for Channel {
    type Response = Response<AnswerBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.call(request).await })
    }
}

impl Shared {
    async fn call(&self, request: Request<Body>) -> Result<Response<AnswerBody>, Status> {
        let mut connection = self.connected().await;
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(connection.scheme.clone());
        uri.authority = Some(connection.authority.clone());
        uri.path_and_query = Some(path);
        head.uri = Uri::from_parts(uri).map_err(|e| Status::internal(e.to_string()))?;
        head.version = http::Version::HTTP_2;
        head.headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("quorate-client/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(token) = self.identity.as_ref().and_then(Identity::token) {
            head.headers.insert(TOKEN, token);
        }

        let head = Request::from_parts(head, ());
        let (answer, stream) = connection.requests.send_request(head, false).map_err(|e| status_of(&e))?;
        // One message is there at once; only a stream of messages needs a task to send the rest. It ends with the
        // answer, or with the call if nobody waits for that any more: h2 resets the stream when both are gone.
        let mut sending = Box::pin(send(body, stream));
        let sent = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx).is_ready())).await;
        let sender = (!sent).then(|| TaskGuard(tokio::spawn(sending).abort_handle()));
        let answer = answer.await.map_err(|e| status_of(&e))?;
        Ok(answer.map(|frames| AnswerBody::new(frames, self.answer_bytes_max, sender, connection.driver)))
    }

    fn failure(&self) -> MutexGuard<'_, Option<(usize, String)>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, ready to take a request; made if need be.
    async fn connected(&self) -> Connection {
        let mut slot = self.slot.lock().await;
        if let Some(connection) = slot.connection.take() {
            if let Ok(requests) = connection.requests.clone().ready().await {
                return slot.connection.insert(Connection { requests, ..connection }).clone();
            }
            slot.first = connection.place + 1;
        }
        let mut pause = PAUSE_FIRST;
        loop {
            if let Some(connection) = self.try_all(slot.first).await {
                *self.failure() = None;
                return slot.connection.insert(connection).clone();
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Tries every endpoint once, in their order from `first` on; the next one when the last has failed or takes long.
    /// The first that answers is taken, and the other attempts are given up.
    async fn try_all(&self, first: usize) -> Option<Connection> {
        let mut attempts = JoinSet::new();
        let count = self.endpoints.len();
        let mut waiting = (first..first + count).map(|place| place % count).peekable();
        loop {
            if let Some(place) = waiting.next() {
                let (endpoint, dial_timeout, keepalive) =
                    (self.endpoints[place].clone(), self.dial_timeout, self.keepalive);
                let security = self.security.clone();
                attempts.spawn(async move {
                    let attempt = connect(place, &endpoint, &security, keepalive);
                    let attempt = tokio::time::timeout(dial_timeout, attempt).await;
                    (place, attempt.unwrap_or_else(|_| Err(format!("{}: i/o timeout", endpoint.target()))))
                });
            }
            let patience = waiting.peek().map_or(Duration::MAX, |_| HEAD_START);
            match tokio::time::timeout(patience, attempts.join_next()).await {
                Ok(Some(Ok((_, Ok(connection))))) => return Some(connection),
                Ok(Some(Ok((place, Err(cause))))) => *self.failure() = Some((place, cause)),
                // A panic, which is reported where it happens, or a slow one.
                Ok(Some(Err(_))) | Err(_) => {}
                Ok(None) => return None,
            }
        }
    }
}

/// # Errors
/// Why the endpoint did not take a connection. It stops nobody: the next one is tried, and in the end the caller's
/// deadline passes.
async fn connect(
    place: usize,
    endpoint: &Endpoint,
    security: &Security,
    keepalive: Option<Keepalive>,
) -> Result<Connection, String> {
    let target = endpoint.target();
    let refused = |error: io::Error| format!("{target}: connect: {}", in_gos_words(&error));
    match target {
        Target::Tcp(host) => {
            let found = tokio::net::lookup_host(host).await;
            let found =
                found.map_err(|error| format!("dial tcp: lookup {host}: {}", in_gos_words(&error)))?;
            let stream = connect::to_any(found.collect()).await.map_err(refused)?;
            stream.set_nodelay(true).map_err(refused)?;
            secure_and_greet(stream, place, endpoint, security, keepalive).await
        }
        Target::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(refused)?;
            secure_and_greet(stream, place, endpoint, security, keepalive).await
        }
    }
}

async fn secure_and_greet<S>(
    stream: S,
    place: usize,
    endpoint: &Endpoint,
    security: &Security,
    keepalive: Option<Keepalive>,
) -> Result<Connection, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match security.of(endpoint) {
        Some(client) => {
            let stream = secure(client, endpoint.server_name(), stream).await?;
            handshake(stream, place, endpoint, Scheme::HTTPS, keepalive).await
        }
        None => handshake(stream, place, endpoint, Scheme::HTTP, keepalive).await,
    }
}

/// `connection refused`, not `Connection refused (os error 111)`.
pub(crate) fn in_gos_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    first.to_lowercase() + rest
}

async fn handshake<S>(
    stream: S,
    place: usize,
    endpoint: &Endpoint,
    scheme: Scheme,
    settings: Option<Keepalive>,
) -> Result<Connection, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: h2::Error| format!("{}: handshake: {error}", endpoint.target());
    let (stream, heard) = Heard::new(stream);
    let (requests, mut connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(failed)?;
    let pings = connection.ping_pong().zip(settings);
    let driver = Arc::<Driver>::default();
    let users = Arc::downgrade(&driver);
    let task = tokio::spawn(async move {
        let alive = async {
            match pings {
                Some((pings, settings)) => keepalive(pings, users, settings).await,
                None => std::future::pending().await,
            }
        };
        // Its error, and its end, also end every stream, which is where it is reported.
        tokio::select! {
            _ = connection => {}
            () = alive => {}
        }
    });
    let _ = driver.0.set(task.abort_handle());
    let driver = DriverGuard(driver);
    // A port may accept and say nothing, or belong to something else: then another endpoint shall be tried.
    if heard.await.is_err() {
        return Err(format!("{}: error reading server preface", endpoint.target()));
    }
    Ok(Connection {
        requests: requests.ready().await.map_err(failed)?,
        place,
        scheme,
        authority: endpoint.authority().clone(),
        driver,
    })
}

/// Sends a request's body. A message is taken from it when the server's windows have let the one before it through:
/// h2 would keep any number of them.
async fn send(body: Body, mut stream: h2::SendStream<Bytes>) {
    let mut body = pin!(body);
    let mut first = true;
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(frame) = frame else {
            stream.send_reset(h2::Reason::CANCEL);
            return;
        };
        let Ok(data) = frame.into_data() else { continue };
        // When the stream has ended, its answer says how.
        if !first && !has_room(&mut stream).await || stream.send_data(data, false).is_err() {
            return;
        }
        first = false;
    }
    // Fails only when the stream has ended.
    let _ = stream.send_data(Bytes::new(), true);
}

/// Waits until the windows admit more than what was sent already; false if the stream ends first.
async fn has_room(stream: &mut h2::SendStream<Bytes>) -> bool {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        if !matches!(poll_fn(|cx| stream.poll_capacity(cx)).await, Some(Ok(_))) {
            return false;
        }
    }
    true
}
