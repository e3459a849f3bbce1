//! HTTP: the probes, `/metrics` and `/version` for clients, the former two for listeners of metrics, etcd's 404 for the
//! rest.
//!
//! Answers are made by a function of the request's parts, so that they are tested without a socket; the connection
//! around it is hyper's, or of gRPC's own where a client has agreed on HTTP/2 and asks for something else.

mod access;
mod body;
mod debug;
mod head_timer;
mod health;
mod query;
mod redirect;
mod session;
mod watched;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::header::{
    ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use wire::Status;

use crate::LocalFuture;
use crate::gateway::{Gateway, websocket};
use crate::grpc::answer::Held;
use crate::listen::{Closing, Role, Stream};
use crate::metrics::{Encoded, Format};

pub use access::{Allowed, Site};
pub use body::Body;
pub use debug::RaftStatus;
use head_timer::{HeadTimer, Heard};
pub use health::{Alarm, Health, Versions};
use query::Query;
pub(crate) use query::decode;
use session::Session;
use watched::Watched;

/// etcd waits this long for a request's head.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(300);

/// Answers a request. What the connection holds is where there has to be room for a page before it is made.
type WebAnswer = dyn Fn(Request<RecvStream>, Held) -> LocalFuture<'static, Response<Body>>;

/// Who answers what came by HTTP/2 and is none of gRPC.
#[derive(Clone)]
pub struct Web {
    /// Answers a request.
    pub answer: Rc<WebAnswer>,
    /// Whether calls of gRPC are answered as anything else: the listener has no services.
    pub takes_calls: bool,
}

/// Who answers on one connection, and who asks.
pub struct Parties {
    /// What listens.
    pub role: Role,
    /// How the member is.
    pub health: Rc<dyn Health>,
    /// What all connections share.
    pub site: Arc<Site>,
    /// The JSON gateway, where there is one.
    pub gateway: Option<Gateway>,
    /// The client's address, for the log.
    pub remote: Option<SocketAddr>,
    /// The name in the client's certificate, where that says who asks.
    pub certified: Option<Arc<str>>,
}

/// What answers them, on a connection with TLS.
pub fn web(parties: Parties) -> Web {
    let takes_calls = parties.role != Role::Client;
    let session = Session::new(parties, true);
    let answer = Rc::new(move |request, held| -> LocalFuture<'static, Response<Body>> {
        let session = session.clone();
        Box::pin(async move { session.answer(request, Some(held), None, None).await })
    });
    Web { answer, takes_calls }
}

/// Serves one HTTP/1 connection until it ends, or until the request in flight is answered after `closing`.
pub async fn serve(stream: Stream, parties: Parties, mut closing: Closing) {
    // There are few places where metrics are.
    let may_rest = matches!(parties.role, Role::Client | Role::Http);
    let session = Session::new(parties, stream.is_secure());
    let stream = Watched::new(stream);
    let agreed = websocket::Agreed::default();
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let (session, watched, agreed) = (session.clone(), stream.clone(), agreed.clone());
        async move {
            let (head, body) = request.into_parts();
            let answer = match check_host(&head) {
                Ok(()) => {
                    let gone = Box::new(move |cx: &mut std::task::Context<'_>| watched.poll_gone(cx));
                    session.answer(Request::from_parts(head, body), None, Some(gone), Some(agreed)).await
                }
                Err(text) => bad_request(text).map(Body::Whole),
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection =
        builder(stream.heard(), may_rest).serve_connection(TokioIo::new(stream.clone()), service);
    // What goes wrong on one connection is its client's affair; etcd logs none of it either.
    let is_well = tokio::select! {
        ended = &mut connection => ended.is_ok(),
        () = closing.wait() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await.is_ok()
        }
    };
    if let Some(socket) = agreed.take().filter(|_| is_well) {
        let early = connection.into_parts().read_buf;
        websocket::serve(stream, early, socket, closing).await;
    }
}

/// How HTTP/1 is spoken on a connection that says what it has heard. `may_rest`: as long as its client likes.
fn builder(heard: Heard, may_rest: bool) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .title_case_headers(true)
        // A client that has said all may end its side before it is answered.
        .half_close(true)
        .timer(HeadTimer { heard, may_rest })
        .header_read_timeout(HEAD_TIMEOUT);
    builder
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

/// The answer to one request. `is_secure`: it came by TLS.
pub async fn answer(
    role: Role,
    is_secure: bool,
    head: &Parts,
    health: &dyn Health,
    site: &Site,
) -> Response<Full<Bytes>> {
    let is_for_clients = matches!(role, Role::Client | Role::Http);
    if !is_for_clients {
        return route(role, head, health, site).await;
    }
    if !is_secure && let Some(refusal) = site.refuse_host(head) {
        return refusal;
    }
    let mut response = match head.method {
        Method::OPTIONS => plain(StatusCode::OK, ""),
        _ => route(role, head, health, site).await,
    };
    site.allow_origin(head.headers.get(ORIGIN), response.headers_mut());
    response
}

async fn route(role: Role, head: &Parts, health: &dyn Health, site: &Site) -> Response<Full<Bytes>> {
    if let Some(elsewhere) = redirect::redirect(head, head.uri.path(), None) {
        return elsewhere;
    }
    let path = decode(head.uri.path(), false).unwrap_or_default();
    let query = || Query::new(head.uri.query().unwrap_or_default());
    if path == "/version" && role != Role::Metrics {
        return match head.method {
            Method::GET => version(&health.versions()),
            _ => not_allowed(),
        };
    }
    // Whatever the method, as in etcd.
    if path == "/metrics" && role != Role::Peer {
        return match health.metrics(Format::of(&head.headers)) {
            Some(page) => metrics(page.await),
            None => error(StatusCode::NOT_FOUND, "404 page not found"),
        };
    }
    if matches!(role, Role::Client | Role::Http)
        && let Some(page) = debug::answer(&path, &head.method, health, site)
    {
        return page;
    }
    let probe = if role == Role::Peer { None } else { health::probe(&path) };
    match probe {
        Some(probe) => probe.answer(&head.method, &query(), health, site.request_timeout).await,
        None => error(StatusCode::NOT_FOUND, "404 page not found"),
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

fn metrics(page: Option<Encoded>) -> Response<Full<Bytes>> {
    let Some(page) = page else { return error(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping") };
    let mut response = Response::new(Full::from(page.bytes));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_str(&page.content_type);
    headers.insert(CONTENT_TYPE, kind.expect("a content type is printable ASCII"));
    if page.is_compressed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
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

/// For a connection whose requests keep too much.
pub(crate) fn too_many_requests(status: &Status) -> Response<Body> {
    error(StatusCode::TOO_MANY_REQUESTS, &status.message).map(Body::Whole)
}

fn not_allowed() -> Response<Full<Bytes>> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

#[cfg(test)]
mod tests;
