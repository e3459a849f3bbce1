//! The peer port: one HTTP/1.1 connection, and which path is whose.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::PeerBody;
use super::identity::CLUSTER_ID;
use super::timed::Timed;
use super::told;
use super::transport::Transport;
use crate::http as plain_http;
use crate::listen::Closing;

/// A request other than a raft message has a body of at most this; etcd's bound for leases.
pub(super) const REQUEST_BYTES_MAX: usize = 64 << 10;

impl Transport {
    /// Serves one connection until it ends, or until the request in flight is answered after `closing`. Must be called
    /// inside the transport's `LocalSet`.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin, closing: Closing) {
        self.serve_telling(stream, closing, || {}).await;
    }

    /// As [`Transport::serve`]; `asked` is called with each request whose head is whole.
    pub(super) async fn serve_telling(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        mut closing: Closing,
        asked: impl Fn(),
    ) {
        let service = hyper::service::service_fn(|request: Request<Incoming>| {
            asked();
            let transport = self.clone();
            async move {
                let (head, body) = request.into_parts();
                Ok::<_, Infallible>(match plain_http::check_host(&head) {
                    Ok(()) => transport.answer(&head, body).await,
                    Err(text) => plain_http::bad_request(text).map(PeerBody::Full),
                })
            }
        });
        // A peer that does not take what it asked for costs a buffer, for so long.
        let stream = Timed::new(stream, None, Some(self.shared.settings.limits.stall_timeout));
        let connection = http1::Builder::new()
            .title_case_headers(true)
            .timer(TokioTimer::new())
            .header_read_timeout(plain_http::HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // What goes wrong on one connection is seen where its stream is written or read.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = closing.wait() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    async fn answer(&self, head: &Parts, body: Incoming) -> Response<PeerBody> {
        let path = plain_http::decode(head.uri.path(), false).unwrap_or_default();
        match path.as_str() {
            "/raft" => self.message(head, body).await,
            "/raft/snapshot" => self.snapshot(head, body).await,
            "/raft/probing" => probing(),
            "/version" if head.method == Method::GET => {
                let mut response = plain_http::version(&self.shared.host.versions());
                told::mark_as_ours(response.headers_mut(), &self.shared.settings.identity);
                response.map(PeerBody::Full)
            }
            "/version" => not_allowed("GET"),
            "/members" => self.members(head),
            "/members/hashkv" => self.hash_kv(head, body).await,
            "/leases" | "/leases/internal" => self.leases(&path, head, body).await,
            "/downgrade/enabled" => self.downgrade_enabled(head).await,
            _ => match path.strip_prefix("/members/promote/") {
                Some(id) => self.promote(id, head).await,
                None if path.starts_with("/raft/stream/") => self.stream(&path, head),
                None => error(StatusCode::NOT_FOUND, "404 page not found"),
            },
        }
    }

    /// With the header by which a peer knows whose answer it is.
    pub(super) fn of_cluster(&self, mut response: Response<PeerBody>) -> Response<PeerBody> {
        response.headers_mut().insert(CLUSTER_ID, self.shared.settings.identity.cluster());
        response
    }
}

/// As the prober of etcd's peers expects it.
#[expect(clippy::disallowed_methods, reason = "how far clocks differ is told, and nothing follows from it")]
fn probing() -> Response<PeerBody> {
    let body = format!("{{\"OK\":true,\"Now\":\"{}\"}}\n", jiff::Timestamp::now());
    content("text/plain; charset=utf-8", body.into())
}

pub(super) fn content(kind: &'static str, body: Bytes) -> Response<PeerBody> {
    let mut response = Response::new(PeerBody::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(super) fn error(status: StatusCode, text: &str) -> Response<PeerBody> {
    plain_http::error(status, text).map(PeerBody::Full)
}

/// An error as etcd's `HTTPError` writes it.
pub(super) fn json_error(status: StatusCode, text: &str) -> Response<PeerBody> {
    let body = format!("{{\"message\":{}}}", plain_http::json_text(text));
    let mut response = content("application/json", body.into());
    *response.status_mut() = status;
    response
}

pub(super) fn not_allowed(method: &'static str) -> Response<PeerBody> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

/// Why a body was not read.
pub(super) enum BodyError {
    TooLarge,
    Cut,
}

/// At most `bytes_max` of one body.
pub(super) fn at_most(bytes_max: usize) -> impl FnMut(usize) -> bool {
    let mut left = bytes_max;
    move |bytes| {
        let rest = left.checked_sub(bytes);
        left = rest.unwrap_or(left);
        rest.is_some()
    }
}

/// A body, in memory of its own size. `has_room` is asked for each part that comes.
pub(super) async fn read_body(
    mut body: Incoming,
    mut has_room: impl FnMut(usize) -> bool,
    stall: std::time::Duration,
) -> Result<Bytes, BodyError> {
    let mut all = Vec::new();
    while let Some(frame) = tokio::time::timeout(stall, body.frame()).await.map_err(|_| BodyError::Cut)? {
        let Ok(data) = frame.map_err(|_| BodyError::Cut)?.into_data() else { continue };
        if !has_room(data.len()) {
            return Err(BodyError::TooLarge);
        }
        all.extend_from_slice(&data);
    }
    all.shrink_to_fit();
    Ok(all.into())
}
