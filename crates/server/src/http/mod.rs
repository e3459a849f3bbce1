//! HTTP/1: `/health` and `/version` for clients, `/version` for peers, etcd's 404 for the rest.
//!
//! Answers are made by a function of the request's parts, so that they are tested without a socket; the connection
//! around it is hyper's.

mod query;

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::listen::{Closing, Role, Stream};
use crate::{LocalFuture, log};

use query::Query;
pub(crate) use query::decode;

/// etcd waits this long for a request's head.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(300);

/// What is asked of the member to say how it is.
pub trait Health: 'static {
    /// The alarms that are on, of any member.
    fn alarms(&self) -> Vec<Alarm>;

    /// Whether this member knows of a leader.
    fn has_leader(&self) -> bool;

    /// Reads one key, as user root where there are users: from the local store, or, if `linearizable`, through
    /// consensus.
    ///
    /// # Errors
    /// The error's text as etcd gives it.
    fn read(&self, linearizable: bool) -> LocalFuture<'_, Result<(), String>>;

    /// The page `/metrics`, where there is one.
    fn metrics(&self) -> Option<String> {
        None
    }

    /// What `/version` shows.
    fn versions(&self) -> Versions;
}

/// An alarm, as far as `/health` tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A member's space is used up.
    NoSpace,
    /// A member's data differs.
    Corrupt,
    /// Of a later version.
    Unknown,
}

impl Alarm {
    /// The name in `exclude=` and in the reason.
    fn name(self) -> &'static str {
        match self {
            Alarm::NoSpace => "NOSPACE",
            Alarm::Corrupt => "CORRUPT",
            Alarm::Unknown => "UNKNOWN",
        }
    }
}

/// The versions that a member knows, as `X.Y.Z`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// The cluster's, once it is decided.
    pub cluster: Option<String>,
    /// The storage's, once it is known.
    pub storage: Option<String>,
}

/// Serves one HTTP/1 connection until it ends, or until the request in flight is answered after `closing`.
pub async fn serve(
    stream: Stream,
    role: Role,
    health: Rc<dyn Health>,
    request_timeout: Duration,
    mut closing: Closing,
) {
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let health = health.clone();
        async move {
            let head = request.into_parts().0;
            let answer = match check_host(&head) {
                Ok(()) => answer(role, &head.method, &head.uri, &*health, request_timeout).await,
                Err(text) => bad_request(text),
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .title_case_headers(true)
        // A client that has said all may end its side before it is answered.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // What goes wrong on one connection is its client's affair; etcd logs none of it either.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = closing.wait() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// A request of HTTP/1.1 says once whom it is for; otherwise two of those on its way may read it differently.
///
/// # Errors
/// What Go's server says then.
pub(crate) fn check_host(head: &Parts) -> Result<(), &'static str> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"!$%&()*+,-.:;=[']_~".contains(byte);
    match (hosts.next(), hosts.next()) {
        (None, _) if head.version == Version::HTTP_11 => Err("400 Bad Request: missing required Host header"),
        (Some(_), Some(_)) => Err("400 Bad Request"),
        (Some(host), _) if !host.as_bytes().iter().all(valid) => {
            Err("400 Bad Request: malformed Host header")
        }
        _ => Ok(()),
    }
}

pub(crate) fn bad_request(text: &str) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::BAD_REQUEST, text);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The answer to one request.
pub async fn answer(
    role: Role,
    method: &Method,
    uri: &Uri,
    health: &dyn Health,
    request_timeout: Duration,
) -> Response<Full<Bytes>> {
    let mut response = match role {
        Role::Client if *method == Method::OPTIONS => plain(StatusCode::OK, ""),
        _ => route(role, method, uri, health, request_timeout).await,
    };
    if role == Role::Client {
        // Browsers of any origin: etcd's default of --cors, which is the only value so far.
        for (name, value) in [
            ("access-control-allow-headers", "accept, content-type, authorization"),
            ("access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE"),
            ("access-control-allow-origin", "*"),
        ] {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
    }
    response
}

async fn route(
    role: Role,
    method: &Method,
    uri: &Uri,
    health: &dyn Health,
    request_timeout: Duration,
) -> Response<Full<Bytes>> {
    match (role, decode(uri.path(), false).as_deref()) {
        (_, Some("/version")) if method == Method::GET => version(&health.versions()),
        (Role::Client, Some("/health")) if method == Method::GET => {
            check(Query::new(uri.query().unwrap_or_default()), health, request_timeout).await
        }
        (Role::Client, Some("/health")) => {
            log::warn!("/health error", "status-code" => 405);
            not_allowed()
        }
        // Whatever the method, as in etcd.
        (Role::Client, Some("/metrics")) => match health.metrics() {
            Some(page) => metrics(page),
            None => error(StatusCode::NOT_FOUND, "404 page not found"),
        },
        (_, Some("/version")) => not_allowed(),
        _ => error(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

pub(crate) fn version(versions: &Versions) -> Response<Full<Bytes>> {
    let body = format!(
        r#"{{"etcdserver":"{}","etcdcluster":"{}","storage":"{}"}}"#,
        wire::version::ETCD,
        versions.cluster.as_deref().unwrap_or("not_decided"),
        versions.storage.as_deref().unwrap_or("unknown"),
    );
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Alarms, then a leader, then a read; the first that is wrong is the reason.
async fn check(query: Query, health: &dyn Health, request_timeout: Duration) -> Response<Full<Bytes>> {
    let excluded = query.all("exclude");
    let serializable = query.first("serializable") == Some("true");
    let reason =
        if let Some(alarm) = health.alarms().into_iter().find(|alarm| !excluded.contains(&alarm.name())) {
            Some(format!("ALARM {}", alarm.name()))
        } else if !serializable && !health.has_leader() {
            Some("RAFT NO LEADER".to_owned())
        } else {
            let read = tokio::time::timeout(request_timeout, health.read(!serializable)).await;
            let read = read.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
            read.err().map(|error| format!("RANGE ERROR:{error}"))
        };
    let Some(reason) = reason else {
        log::debug!("/health OK", "status-code" => 200);
        return plain(StatusCode::OK, r#"{"health":"true","reason":""}"#);
    };
    let body = format!(r#"{{"health":"false","reason":{}}}"#, json_text(&reason));
    log::warn!("/health error", "output" => body, "status-code" => 503);
    error(StatusCode::SERVICE_UNAVAILABLE, &body)
}

fn metrics(page: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(page));
    let kind = HeaderValue::from_static(crate::metrics::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A text as Go's encoder writes it, with the characters that HTML minds escaped.
pub(crate) fn json_text(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn plain(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = status;
    if !body.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    response
}

/// An error as Go's `http.Error` writes it, with a line end.
pub(crate) fn error(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = plain(status, &format!("{body}\n"));
    let name = HeaderName::from_static("x-content-type-options");
    response.headers_mut().insert(name, HeaderValue::from_static("nosniff"));
    response
}

fn not_allowed() -> Response<Full<Bytes>> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

#[cfg(test)]
mod tests;
