//! One HTTP connection's way to the services: a gRPC connection of its own, through memory, on the same thread.
//!
//! A call by JSON is so a call like any other: the same checks, limits, deadlines, turns and counters, and nothing of one
//! client's waits behind another's. It is opened with the first call.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::{Method as HttpMethod, Request};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;
use wire::{ApiError, Code, Status};

use super::Gateway;
use super::head::{Metadata, grpc_timeout};
use super::status::percent_decode;
use crate::grpc::answer::{Charge, Held, PREFIX_BYTES};
use crate::grpc::turns::Length;
use crate::grpc::{self, Client};

/// Bytes that the pipe holds in either direction.
const PIPE_BYTES: usize = 64 << 10;
/// Bytes of an answer that the service may send ahead.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// All calls' together never matter: each has its own.
const CONNECTION_WINDOW_BYTES: u32 = i32::MAX as u32;
/// Bytes of requests that are being read or made on one connection; above, those that come are refused, all but one. By
/// HTTP/1 there is one at a time.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// An answer shorter than this is not counted.
const COUNTED_BYTES: usize = 2 << 10;

/// The way, for all calls of one HTTP connection.
pub struct Link {
    gateway: Gateway,
    remote: Option<SocketAddr>,
    /// Answers that are being written.
    held: Held,
    /// Bytes of requests.
    requested: Cell<usize>,
    open: RefCell<Option<Open>>,
}

/// Bytes of one call's request, counted until this is dropped.
pub struct Requested {
    link: Rc<Link>,
    bytes: usize,
}

impl Requested {
    /// None yet.
    pub fn new(link: &Rc<Link>) -> Self {
        Requested { link: link.clone(), bytes: 0 }
    }

    /// How many there are now.
    ///
    /// # Errors
    /// The text of `TooManyRequests`; its code would be HTTP's 500, which says that something is broken.
    pub fn set(&mut self, bytes: usize) -> Result<(), Status> {
        let others = self.link.requested.get() - self.bytes;
        self.link.requested.set(others + bytes);
        self.bytes = bytes;
        match others > 0 && others + bytes > REQUEST_BYTES_MAX {
            true => {
                Err(Status::new(Code::ResourceExhausted, Status::from(ApiError::TooManyRequests).message))
            }
            false => Ok(()),
        }
    }

    /// There are none any more.
    pub fn clear(&mut self) {
        self.link.requested.set(self.link.requested.get() - std::mem::take(&mut self.bytes));
    }
}

impl Drop for Requested {
    fn drop(&mut self) {
        self.clear();
    }
}

struct Open {
    calls: SendRequest<Bytes>,
    /// Which of this link's it is.
    number: u64,
    _tasks: [Ending; 2],
}

/// A task that ends with this.
struct Ending(AbortHandle);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// Nothing is opened yet. `remote` is for the log.
    pub fn new(gateway: Gateway, remote: Option<SocketAddr>) -> Rc<Self> {
        let (held, requested) = (Held::default(), Cell::new(0));
        Rc::new(Link { gateway, remote, held, requested, open: RefCell::default() })
    }

    /// What this leads to.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Begins a call.
    ///
    /// # Errors
    /// If there is nobody to be asked, or the client's deadline passes first.
    pub async fn call(&self, path: &'static str, metadata: Metadata) -> Result<Call, Status> {
        let deadline = metadata.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let opened = before(deadline, async {
            let permits = self.gateway.calls.clone();
            let permit = permits.acquire_owned().await.map_err(|_| Status::from(ApiError::Stopped))?;
            let calls = self.opened().await?;
            Ok::<_, Status>((permit, calls))
        });
        let (permit, mut calls) = opened.await??;
        let mut request = Request::new(());
        *request.method_mut() = HttpMethod::POST;
        *request.uri_mut() = http::Uri::builder()
            .scheme("http")
            .authority("localhost")
            .path_and_query(path)
            .build()
            .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        *request.headers_mut() = metadata.headers;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(ApiError::ContextDeadlineExceeded.into());
            }
            headers.insert("grpc-timeout", grpc_timeout(left));
        }
        let (answer, sender) = calls.send_request(request, false).map_err(|error| lost(&error))?;
        Ok(Call {
            sender: Sender(Some(sender)),
            receiver: Receiver {
                answer: Some(answer),
                body: None,
                parts: BytesMut::new(),
                held: self.held.clone(),
                deadline,
                _permit: permit,
            },
        })
    }

    /// The connection, opened if it is not, or not any more.
    async fn opened(&self) -> Result<SendRequest<Bytes>, Status> {
        loop {
            let known = self.open.borrow().as_ref().map(|open| (open.calls.clone(), open.number));
            if let Some((calls, _)) = known.clone()
                && let Ok(calls) = calls.ready().await
            {
                return Ok(calls);
            }
            let number = known.map_or(0, |(_, number)| number + 1);
            let opened = self.open(number).await?;
            let mut open = self.open.borrow_mut();
            // Of two calls that have opened one at the same time the first one's counts.
            if open.as_ref().is_none_or(|open| open.number < number) {
                *open = Some(opened);
            }
        }
    }

    async fn open(&self, number: u64) -> Result<Open, Status> {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let client = Client { address: self.remote, certified: None };
        let served = spawn_local(grpc::serve_client(theirs, client, self.gateway.front.clone(), None));
        let served = Ending(served.abort_handle());
        let (calls, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(ours)
            .await
            .map_err(|error| lost(&error))?;
        let driven = spawn_local(async move { drop(connection.await) });
        Ok(Open { calls, number, _tasks: [served, Ending(driven.abort_handle())] })
    }
}

/// A call in progress. Dropping both of its sides ends it.
pub struct Call {
    /// What the client says.
    pub sender: Sender,
    /// What it is told.
    pub receiver: Receiver,
}

/// The client's side of a call.
pub struct Sender(Option<SendStream<Bytes>>);

impl Sender {
    /// Sends a message with its prefix, as the service makes room for it; false if it hears no more.
    pub async fn send(&mut self, mut message: Bytes) -> bool {
        let Some(stream) = &mut self.0 else { return false };
        while !message.is_empty() {
            stream.reserve_capacity(message.len());
            let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return false };
            let piece = message.split_to(room.min(message.len()));
            if stream.send_data(piece, false).is_err() {
                return false;
            }
        }
        true
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        if let Some(mut stream) = self.0.take() {
            // Who is gone needs not be told.
            let _ = stream.send_data(Bytes::new(), true);
        }
    }
}

/// The service's side of a call.
pub struct Receiver {
    /// Until there is a beginning.
    answer: Option<ResponseFuture>,
    body: Option<RecvStream>,
    parts: BytesMut,
    held: Held,
    deadline: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

/// A message without its prefix, and what counts its bytes.
pub type Message = (Bytes, Option<Charge>);

impl Receiver {
    /// The next message, `None` at a good end. Cancel safe, but for the wait for room of a long one.
    ///
    /// # Errors
    /// The status that the call ended with.
    pub async fn next(&mut self) -> Result<Option<Message>, Status> {
        let deadline = self.deadline;
        before(deadline, self.take()).await?
    }

    async fn take(&mut self) -> Result<Option<Message>, Status> {
        if let Some(answer) = &mut self.answer {
            let response = answer.await.map_err(|error| lost(&error))?;
            self.answer = None;
            let (head, body) = response.into_parts();
            if head.headers.contains_key("grpc-status") {
                return status(&head.headers).map(|()| None);
            }
            self.body = Some(body);
        }
        let Some(body) = &mut self.body else { return Ok(None) };
        let mut charge = None;
        loop {
            if let Some(&[_, l0, l1, l2, l3]) = self.parts.first_chunk::<PREFIX_BYTES>() {
                let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
                if length > COUNTED_BYTES && charge.is_none() {
                    let mut counted = self.held.reserve(Length::Long, length).await;
                    counted.settle(length);
                    self.parts.reserve(PREFIX_BYTES + length - self.parts.len().min(PREFIX_BYTES + length));
                    charge = Some(counted);
                }
                if self.parts.len() >= PREFIX_BYTES + length {
                    self.parts.advance(PREFIX_BYTES);
                    let message = self.parts.split_to(length).freeze();
                    return Ok(Some((message, charge)));
                }
            }
            match body.data().await {
                Some(Ok(data)) => {
                    let _ = body.flow_control().release_capacity(data.len());
                    self.parts.extend_from_slice(&data);
                }
                Some(Err(error)) => return Err(lost(&error)),
                None => break,
            }
        }
        let trailers = body.trailers().await.map_err(|error| lost(&error))?.unwrap_or_default();
        self.body = None;
        status(&trailers).map(|()| None)
    }
}

/// The status that trailers tell.
fn status(headers: &HeaderMap) -> Result<(), Status> {
    let number = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok());
    match number.map_or(Code::Unknown, Code::from_number) {
        Code::Ok => Ok(()),
        code => {
            let text = headers.get("grpc-message").map_or(&b""[..], |value| value.as_bytes());
            Err(Status::new(code, percent_decode(text)))
        }
    }
}

/// A call that was cut, or could not begin: the member is about to end, or the call was given up.
fn lost(error: &h2::Error) -> Status {
    match error.reason() {
        Some(h2::Reason::CANCEL) => Status::new(Code::Canceled, "context canceled"),
        _ => Status::new(Code::Unavailable, "transport is closing"),
    }
}

async fn before<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Result<T, Status> {
    match deadline {
        None => Ok(future.await),
        Some(deadline) => tokio::time::timeout_at(deadline, future)
            .await
            .map_err(|_| ApiError::ContextDeadlineExceeded.into()),
    }
}
