//! One HTTP/2 stream: a request message in, a response out.

use std::future::poll_fn;
use std::io::Read as _;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use wire::{ApiError, Code, Status};

use super::answer::{Charge, Held, PREFIX_BYTES, Payload, percent_encode};
use super::counted::Counted;
use crate::http::Body;

/// The flag in the prefix of a compressed message.
const COMPRESSED: u8 = 1;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Puts the one message of a call together from what has arrived.
#[derive(Debug, Default)]
pub struct Assembly {
    parts: BytesMut,
}

/// How far a message has come.
#[derive(Debug)]
pub enum Arrival {
    /// More has to come; the task is woken when it does.
    Partial,
    /// The message, with its prefix.
    Whole(Bytes),
    /// It is refused.
    Refused(Status),
    /// The client is gone.
    Gone,
}

impl Assembly {
    /// Bytes kept so far.
    pub fn bytes(&self) -> usize {
        self.parts.len()
    }

    /// Takes what has arrived. `bytes_max`: longest message, without its prefix. `gzip`: it may be compressed, and
    /// [`inflated`] comes next.
    pub fn poll(
        &mut self,
        body: &mut RecvStream,
        cx: &mut Context<'_>,
        bytes_max: u32,
        gzip: bool,
    ) -> Arrival {
        loop {
            match body.poll_data(cx) {
                Poll::Pending => return Arrival::Partial,
                Poll::Ready(Some(Ok(chunk))) => {
                    let _ = body.flow_control().release_capacity(chunk.len());
                    if let Some(arrival) = self.push(chunk, bytes_max, gzip) {
                        return arrival;
                    }
                }
                Poll::Ready(Some(Err(_))) => return Arrival::Gone,
                Poll::Ready(None) => {
                    let text = if self.parts.len() < PREFIX_BYTES { "EOF" } else { "unexpected EOF" };
                    return Arrival::Refused(Status::new(Code::Unknown, text));
                }
            }
        }
    }

    fn push(&mut self, chunk: Bytes, bytes_max: u32, gzip: bool) -> Option<Arrival> {
        if self.parts.is_empty() {
            match frame_bytes(&chunk, bytes_max, gzip) {
                Err(status) => return Some(Arrival::Refused(status)),
                // The whole message in one piece is the common case, and is not copied.
                Ok(Some(bytes)) if bytes <= chunk.len() => return Some(Arrival::Whole(chunk.slice(..bytes))),
                Ok(_) => {}
            }
        }
        self.parts.extend_from_slice(&chunk);
        match frame_bytes(&self.parts, bytes_max, gzip) {
            Err(status) => Some(Arrival::Refused(status)),
            Ok(Some(bytes)) if bytes <= self.parts.len() => {
                Some(Arrival::Whole(self.parts.split_to(bytes).freeze()))
            }
            Ok(_) => None,
        }
    }
}

/// The length of a message with its prefix, once the prefix is there. The one place where the size of a
/// received message is judged.
pub(super) fn frame_bytes(bytes: &[u8], bytes_max: u32, gzip: bool) -> Result<Option<usize>, Status> {
    let Some(&[flag, l0, l1, l2, l3]) = bytes.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    if length > bytes_max {
        return Err(Status::message_too_large(u64::from(length), u64::from(bytes_max)));
    }
    match flag {
        0 => Ok(Some(PREFIX_BYTES + length as usize)),
        COMPRESSED if gzip => Ok(Some(PREFIX_BYTES + length as usize)),
        // A call that names another compression was refused before.
        COMPRESSED => {
            Err(Status::new(Code::Internal, "grpc: compressed flag set with identity or empty encoding"))
        }
        other => {
            Err(Status::new(Code::Internal, format!("grpc: received unexpected payload format {other}")))
        }
    }
}

/// A message as it would have come uncompressed; `bytes_max` as for [`Assembly::poll`]. `frame` has its prefix.
pub fn inflated(frame: Bytes, bytes_max: u32) -> Result<Bytes, Status> {
    if frame.first() != Some(&COMPRESSED) {
        return Ok(frame);
    }
    let mut plain = vec![0; PREFIX_BYTES];
    let mut source = MultiGzDecoder::new(&frame[PREFIX_BYTES..]).take(u64::from(bytes_max) + 1);
    if let Err(error) = source.read_to_end(&mut plain) {
        let text = format!("grpc: failed to decompress the message: {error}");
        return Err(Status::new(Code::Internal, text));
    }
    let length = u32::try_from(plain.len() - PREFIX_BYTES).ok().filter(|length| *length <= bytes_max);
    let Some(length) = length else {
        let text = format!("grpc: received message after decompression larger than max {bytes_max}");
        return Err(Status::new(Code::ResourceExhausted, text));
    };
    plain[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(plain.into())
}

/// The headers that every good answer has in common.
#[derive(Debug)]
pub struct Templates {
    headers: HeaderMap,
    trailers: HeaderMap,
}

impl Default for Templates {
    fn default() -> Self {
        let mut headers = HeaderMap::with_capacity(1);
        headers.insert(CONTENT_TYPE, GRPC);
        let mut trailers = HeaderMap::with_capacity(2);
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(""));
        Templates { headers, trailers }
    }
}

/// Sends a whole good answer, whose bytes `charge` counts already if it is there. A stream that is gone takes nothing;
/// nobody waits for it.
pub fn send_message(
    respond: &mut SendResponse<Payload>,
    templates: &Templates,
    pieces: (Bytes, Option<Bytes>),
    (held, charge): (&Held, Option<Charge>),
) {
    let mut response = Response::new(());
    *response.headers_mut() = templates.headers.clone();
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    let (first, second) = pieces;
    let first = match charge {
        Some(mut charge) => Payload::charged(first, &mut charge),
        None => Payload::new(first, held),
    };
    let mut sent = stream.send_data(first, false);
    if let (Ok(()), Some(second)) = (&sent, second) {
        sent = stream.send_data(Payload::new(second, held), false);
    }
    match sent {
        Ok(()) => drop(stream.send_trailers(templates.trailers.clone())),
        Err(_) => stream.send_reset(h2::Reason::INTERNAL_ERROR),
    }
}

/// Ends a call with a status and no message.
pub fn send_status(respond: &mut SendResponse<Payload>, http: StatusCode, status: &Status) {
    let mut response = Response::new(());
    *response.status_mut() = http;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    insert_status(headers, status);
    let _ = respond.send_response(response, true);
}

/// Waits for an answer that is none of gRPC and sends it, until the client resets the stream. It is counted from when it
/// is there.
pub async fn send_web_response(
    answer: impl Future<Output = Response<Body>>,
    mut respond: SendResponse<Payload>,
    held: Held,
) {
    let response = tokio::select! {
        biased;
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
        response = answer => response,
    };
    let (mut head, mut body) = response.into_parts();
    let mut reserved = body.take_charge();
    if let Some(length) = http_body::Body::size_hint(&body).exact() {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let ended = http_body::Body::is_end_stream(&body);
    let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), ended) else { return };
    if ended {
        return;
    }
    loop {
        let frame = tokio::select! {
            biased;
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
            frame = body.frame() => frame,
        };
        match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
            None => return drop(stream.send_data(Payload::new(Bytes::new(), &held), true)),
            Some(Ok(Ok(data))) => {
                let charge = Charge::of(data.len(), reserved.take(), &held);
                if send_data(&mut stream, data, &held, Some(charge)).await.is_none() {
                    return;
                }
            }
            // There are no trailers.
            Some(Ok(Err(_))) => {}
            Some(Err(_)) => return stream.send_reset(h2::Reason::INTERNAL_ERROR),
        }
    }
}

fn insert_status(headers: &mut HeaderMap, status: &Status) {
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status.code.number())));
    let text = HeaderValue::try_from(percent_encode(&status.message));
    headers.insert(GRPC_MESSAGE, text.unwrap_or(HeaderValue::from_static("")));
}

/// Waits for a service's answer, and what was reserved for it, and sends it, until the client resets the stream or its
/// deadline passes. It is counted from when it is there.
pub async fn send_service_response(
    call: impl Future<Output = (http::Response<tonic::body::Body>, Option<Charge>)>,
    mut respond: SendResponse<Payload>,
    deadline: Option<Instant>,
    (held, mut counted): (Held, Counted),
) {
    let deadline = passed(deadline);
    tokio::pin!(deadline);
    let expired = Status::from(ApiError::ContextDeadlineExceeded);
    let (response, mut reserved) = tokio::select! {
        biased;
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
        answered = call => answered,
        () = &mut deadline => {
            counted.end(expired.code);
            return send_status(&mut respond, StatusCode::OK, &expired);
        }
    };
    let (parts, mut body) = response.into_parts();
    let ended = http_body::Body::is_end_stream(&body);
    let early = code_of(&parts.headers);
    let Ok(mut stream) = respond.send_response(Response::from_parts(parts, ()), ended) else { return };
    if ended {
        return counted.end(early.unwrap_or(Code::Ok));
    }
    loop {
        let frame = tokio::select! {
            biased;
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return,
            frame = body.frame() => frame,
            () = &mut deadline => {
                let mut trailers = HeaderMap::new();
                insert_status(&mut trailers, &expired);
                drop(stream.send_trailers(trailers));
                return counted.end(expired.code);
            }
        };
        let Some(Ok(frame)) = frame else { return stream.send_reset(h2::Reason::INTERNAL_ERROR) };
        match frame.into_data() {
            Ok(data) => {
                counted.sent(&data);
                let charge = Charge::of(data.len(), reserved.take(), &held);
                if send_data(&mut stream, data, &held, Some(charge)).await.is_none() {
                    return;
                }
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                counted.end(code_of(&trailers).unwrap_or(Code::Unknown));
                drop(stream.send_trailers(trailers));
                return;
            }
        }
    }
}

/// How a call ended, if these headers say it.
fn code_of(headers: &HeaderMap) -> Option<Code> {
    let number = headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()?;
    Some(Code::from_number(number))
}

/// The answer of a call that runs in a task: headers with the first message, trailers behind the last. Everything that
/// waits ends when the client resets the stream.
pub struct Outgoing {
    respond: SendResponse<Payload>,
    /// Once the headers are sent.
    stream: Option<SendStream<Payload>>,
    deadline: Option<Instant>,
    held: Held,
    /// Until the call has ended.
    counted: Option<Counted>,
}

impl Outgoing {
    /// Nothing is sent yet.
    pub fn new(
        respond: SendResponse<Payload>,
        deadline: Option<Instant>,
        held: Held,
        counted: Counted,
    ) -> Self {
        Outgoing { respond, stream: None, deadline, held, counted: Some(counted) }
    }

    /// Waits for `future`; `None` if the client is gone first, or was told that its deadline has passed.
    pub async fn wait<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let late = passed(self.deadline);
        tokio::select! {
            biased;
            () = self.gone() => None,
            value = future => Some(value),
            () = late => {
                self.finish(Err(ApiError::ContextDeadlineExceeded.into()));
                None
            }
        }
    }

    async fn gone(&mut self) {
        // Either way the stream is over.
        let _ = poll_fn(|cx| match &mut self.stream {
            Some(stream) => stream.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        })
        .await;
    }

    /// Sends a piece of a message as the client makes room for it; `None` if it is gone.
    pub async fn send(&mut self, data: Bytes) -> Option<()> {
        self.send_charged(data, None).await
    }

    /// As [`Outgoing::send`], with bytes that are counted already, from before the client has room for them.
    pub async fn send_charged(&mut self, data: Bytes, charge: Option<Charge>) -> Option<()> {
        if self.stream.is_none() {
            let mut response = Response::new(());
            response.headers_mut().insert(CONTENT_TYPE, GRPC);
            self.stream = Some(self.respond.send_response(response, false).ok()?);
        }
        let mut stream = self.stream.take()?;
        self.counted.iter_mut().for_each(|counted| counted.sent(&data));
        let sent = tokio::select! {
            biased;
            sent = send_data(&mut stream, data, &self.held, charge) => sent,
            // A message in pieces cannot be ended in order: dropping the stream resets it.
            () = passed(self.deadline) => None,
        };
        self.stream = Some(stream);
        sent
    }

    /// Ends the call.
    pub fn finish(&mut self, result: Result<(), Status>) {
        if let Some(counted) = self.counted.take() {
            counted.end(result.as_ref().map_or_else(|status| status.code, |()| Code::Ok));
        }
        match (&mut self.stream, result) {
            (None, Err(status)) => send_status(&mut self.respond, StatusCode::OK, &status),
            (None, Ok(())) => send_status(&mut self.respond, StatusCode::OK, &Status::new(Code::Ok, "")),
            (Some(stream), result) => {
                let mut trailers = HeaderMap::new();
                match result {
                    Ok(()) => {
                        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
                        trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(""));
                    }
                    Err(status) => insert_status(&mut trailers, &status),
                }
                drop(stream.send_trailers(trailers));
            }
        }
    }
}

/// Ends when a deadline has passed.
pub(super) async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Sends as much at a time as the client has room for; `None` when it is gone.
async fn send_data(
    stream: &mut SendStream<Payload>,
    mut data: Bytes,
    held: &Held,
    mut charge: Option<Charge>,
) -> Option<()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        let piece = data.split_to(room.min(data.len()));
        let piece = match &mut charge {
            Some(charge) => Payload::charged(piece, charge),
            None => Payload::new(piece, held),
        };
        stream.send_data(piece, false).ok()?;
    }
    Some(())
}
