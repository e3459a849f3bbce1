//! The reading end of a stream: this member dials, the remote writes.

use std::rc::Rc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use raft::{Body, Message};

use super::body::PeerBody;
use super::codec::{AppendDecoder, DecodeError, Decoded, MessageDecoder};
use super::dial::{Connection, ExchangeError, Patience, answer_text, with_cause};
use super::identity::RAFT_TO;
use super::link::{Link, StreamKind};
use crate::config::Url;
use crate::log;

/// Why there is no stream, or none any more.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("the peer has no URL that can be dialled")]
    NoUrl,
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    #[error("peer {0} failed to find local node")]
    NotFound(String),
    #[error("{0}")]
    Refused(String),
    #[error("unhandled http status {0}")]
    Status(u16),
    #[error("{0}")]
    Read(String),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Dials and reads, again and again.
pub(super) async fn run(link: Rc<Link>, kind: StreamKind) {
    let mut failures = 0;
    loop {
        match dial(&link, kind).await {
            Ok((connection, body)) => {
                failures = 0;
                link.activate();
                log::info!(
                    "established TCP streaming connection with remote peer",
                    "stream-reader-type" => kind.name(),
                    "local-member-id" => link.shared().settings.identity.member_id.to_string(),
                    "remote-peer-id" => link.id().to_string(),
                );
                let ended = read(&link, kind, body).await;
                drop(connection);
                log::warn!(
                    "lost TCP streaming connection with remote peer",
                    "stream-reader-type" => kind.name(),
                    "local-member-id" => link.shared().settings.identity.member_id.to_string(),
                    "remote-peer-id" => link.id().to_string(),
                    "error" => ended.as_ref().err().map_or("EOF".to_owned(), ToString::to_string),
                );
                // A stream that was ended by the other side in good order says nothing of its health.
                if let Err(error) = ended {
                    link.deactivate(&format!("read {} from", kind.name()), &error.to_string());
                }
            }
            Err(error) => {
                failures += 1;
                link.deactivate(&format!("dial {} of", kind.name()), &error.to_string());
                if matches!(error, StreamError::Removed) {
                    link.shared().host.removed();
                }
            }
        }
        let pause = link.shared().backoff(failures);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = link.alive[kind as usize].notified() => {
                // Whatever it was, it may still be the first of several attempts.
                tokio::time::sleep(link.shared().backoff(0)).await;
            }
        }
    }
}

async fn dial(link: &Link, kind: StreamKind) -> Result<(Connection, Incoming), StreamError> {
    let url = link.url().ok_or(StreamError::NoUrl)?;
    let dialled = dial_at(link, kind, &url).await;
    if dialled.is_err() {
        link.url_failed(&url);
    }
    dialled
}

async fn dial_at(link: &Link, kind: StreamKind, url: &Url) -> Result<(Connection, Incoming), StreamError> {
    let shared = link.shared();
    let limits = link.limits();
    link.stats().dials.add(1);
    let path = format!("/raft/stream/{}/{}", kind.path(), shared.settings.identity.member_id);
    let request = shared.settings.identity.sign(Request::builder().method(Method::GET).uri(path));
    let request = request.header(RAFT_TO, link.id().to_string()).body(PeerBody::from(Bytes::new()));
    let request = request.map_err(|error| StreamError::Refused(error.to_string()))?;
    let stall = Some(limits.stall_timeout);
    let patience = Patience { dial: limits.dial_timeout, read: stall, write: stall };
    let mut connection = Connection::open(&shared.dial, url, patience).await?;
    let (head, body) = connection.send(request).await?.into_parts();
    match head.status {
        StatusCode::OK => Ok((connection, body)),
        StatusCode::GONE => Err(StreamError::Removed),
        StatusCode::NOT_FOUND => Err(StreamError::NotFound(link.id().to_string())),
        StatusCode::PRECONDITION_FAILED => {
            let text = answer_text(body).await.map_err(StreamError::Read)?;
            if link.stats().active_since().is_some() {
                log::warn!(
                    "request sent was ignored by remote peer",
                    "remote-peer-id" => link.id().to_string(),
                    "local-member-id" => shared.settings.identity.member_id.to_string(),
                    "error" => text,
                );
            }
            Err(StreamError::Refused(text))
        }
        status => Err(StreamError::Status(status.as_u16())),
    }
}

enum Decoder {
    Append(AppendDecoder),
    Message(MessageDecoder),
}

impl Decoder {
    fn new(link: &Link, kind: StreamKind) -> Self {
        let local = link.shared().settings.identity.member_id;
        let limit = link.limits().message_bytes_max;
        match kind {
            StreamKind::Append => Decoder::Append(AppendDecoder::with_limit(local, link.id(), limit)),
            StreamKind::Message => Decoder::Message(MessageDecoder::with_limit(limit)),
        }
    }

    fn next(&mut self, input: &mut Bytes) -> Result<Option<Decoded>, DecodeError> {
        match self {
            Decoder::Append(decoder) => decoder.next(input),
            Decoder::Message(decoder) => decoder.next(input),
        }
    }
}

/// Reads until the stream ends. What comes with one read goes to consensus at once.
async fn read(link: &Link, kind: StreamKind, mut body: Incoming) -> Result<(), StreamError> {
    let mut decoder = Decoder::new(link, kind);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| StreamError::Read(with_cause(&error)))?;
        let Ok(mut input) = frame.into_data() else { continue };
        link.stats().received_bytes.add(input.len() as u64);
        let mut messages = Vec::new();
        let mut ended: Result<(), StreamError> = Ok(());
        loop {
            match decoder.next(&mut input) {
                Ok(Some(decoded)) => keep(link, decoded, &mut messages),
                Ok(None) => break,
                Err(error) => {
                    ended = Err(error.into());
                    break;
                }
            }
        }
        link.shared().deliver(link.stats(), link.id(), messages);
        ended?;
    }
    Ok(())
}

fn keep(link: &Link, decoded: Decoded, messages: &mut Vec<Message>) {
    let local = link.shared().settings.identity.member_id;
    match decoded {
        Decoded::LinkHeartbeat => {}
        // A snapshot without its database is none.
        Decoded::Message(message)
            if message.to == local && !matches!(message.body, Body::Snapshot { .. }) =>
        {
            if matches!(message.body, Body::ReadIndex { .. }) {
                link.stats().read_indexes_received.add(1);
            }
            messages.push(message);
        }
        Decoded::Message(_) | Decoded::Dropped(_) => link.stats().received_failures.add(1),
    }
}
