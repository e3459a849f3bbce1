//! One connection's requests: those that the gateway answers, and all others.

use std::borrow::Cow;
use std::rc::Rc;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use tokio::sync::mpsc;
use wire::{Code, Status};

use super::redirect::{encode, redirect};
use super::{Body, Parties, answer, error};
use crate::gateway::answer::{Answer, Gone};
use crate::gateway::head::Metadata;
use crate::gateway::link::Link;
use crate::gateway::source::Source;
use crate::gateway::{routes, schema, websocket};
use crate::grpc::answer::Held;
use crate::grpc::turns::Length;
use crate::listen::Role;

/// etcd's words for a client whose certificate has a name, while users count: that name would say nothing.
const NAMED: &str =
    "CommonName of client sending a request against gateway will be ignored and not used as expected";
/// Where the gateway is.
const ROOT: &str = "/v3";
/// What a page is taken for before it is there.
const PAGE_BYTES: usize = 256 << 10;
/// Where an old prefix leads.
const BETA_PREFIX: &str = "/v3beta/";

/// What all requests of a connection share.
pub(super) struct Session {
    parties: Parties,
    is_secure: bool,
    link: Option<Rc<Link>>,
}

impl Session {
    pub(super) fn new(mut parties: Parties, is_secure: bool) -> Rc<Self> {
        let gateway = parties.gateway.take().filter(|_| matches!(parties.role, Role::Client | Role::Http));
        let link = gateway.map(|gateway| Link::new(gateway, parties.remote));
        Rc::new(Session { parties, is_secure, link })
    }

    /// Answers one request. `held` is where a page waits for room, if many may be asked for at once; `gone` tells when its client is, once all of the request has come; `agreed` takes a socket
    /// that is to follow.
    pub(super) async fn answer(
        self: Rc<Self>,
        request: Request<impl Into<Source>>,
        held: Option<Held>,
        gone: Option<Gone>,
        agreed: Option<websocket::Agreed>,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Parties { role, health, site, certified, .. } = &self.parties;
        let path = super::decode(head.uri.path(), false).unwrap_or_default();
        let path = match path.strip_prefix(BETA_PREFIX) {
            Some(rest) => format!("{}{rest}", routes::PREFIX),
            None => path,
        };
        let link = self.link.as_ref().filter(|_| path.starts_with(routes::PREFIX) || path == ROOT);
        let Some(link) = link else {
            let charge = match &held {
                Some(held) => Some(held.reserve(Length::Long, PAGE_BYTES).await),
                None => None,
            };
            let page = answer(*role, self.is_secure, &head, &**health, site).await;
            return page.map(|page| Body::Counted(page, charge));
        };
        if !self.is_secure
            && let Some(refusal) = site.refuse_host(&head)
        {
            return refusal.map(Body::Whole);
        }
        if path != ROOT
            && certified.as_ref().is_some_and(|name| !name.is_empty())
            && link.gateway().is_guarded()
        {
            return error(StatusCode::BAD_REQUEST, NAMED).map(Body::Whole);
        }
        let origin = head.headers.get(http::header::ORIGIN).cloned();
        let written = written(&head, &path);
        let mut response = match (&head.method, redirect(&head, &written, Some(ROOT))) {
            (&Method::OPTIONS, _) => super::plain(StatusCode::OK, "").map(Body::Whole),
            (_, Some(elsewhere)) => elsewhere.map(Body::Whole),
            // A slash that is encoded parts no names.
            _ if !written.strip_prefix('/').is_some_and(is_ours) => {
                error(StatusCode::NOT_FOUND, "404 page not found").map(Body::Whole)
            }
            _ => match agreed.filter(|_| websocket::is_wanted(&head.headers)) {
                Some(agreed) => open_socket(link, &path, &head, &agreed),
                None => call(link, &path, &head, body.into(), gone).await,
            },
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            site.allow_origin(origin.as_ref(), response.headers_mut());
        }
        response
    }
}

/// The path as it was written, but for an old prefix: that is changed where it is decoded.
fn written<'a>(head: &'a Parts, path: &str) -> Cow<'a, str> {
    let raw = head.uri.path();
    match super::decode(raw, false).is_some_and(|decoded| decoded == path) {
        true => raw.into(),
        false => encode(path).into(),
    }
}

/// Whether a path, without its first slash, leads into the gateway.
fn is_ours(path: &str) -> bool {
    let first = path.split_once('/').and_then(|(first, _)| super::decode(first, false));
    first.is_some_and(|first| Some(&*first) == ROOT.strip_prefix('/'))
}

/// Makes a call.
async fn call(
    link: &Rc<Link>,
    path: &str,
    head: &Parts,
    source: Source,
    gone: Option<Gone>,
) -> Response<Body> {
    let method = method(path, overridden(head));
    let is_stream = method.as_ref().is_ok_and(|method| method.server_streams);
    let asked = method.and_then(|method| Ok((method, Metadata::of(&head.headers)?)));
    let mut answer = begin(link, asked, source, (gone, is_stream));
    let Some(head) = answer.head().await else {
        // Nobody reads it.
        return super::plain(StatusCode::INTERNAL_SERVER_ERROR, "").map(Body::Whole);
    };
    let mut response = Response::new(match head.whole {
        Some(body) => Body::Counted(body.into(), answer.take_charge()),
        None => Body::Call(Box::new(answer)),
    });
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// Begins a call, or the answer that says why there is none. `gone` and `is_stream`: as in [`Answer::new`].
fn begin(
    link: &Rc<Link>,
    asked: Result<(&'static schema::Method, Metadata), Status>,
    source: Source,
    (gone, is_stream): (Option<Gone>, bool),
) -> Answer {
    let (link, heard_all) = (link.clone(), source.heard_all());
    let run = |out| async move {
        match asked {
            Ok((method, metadata)) => crate::gateway::call(link, method, metadata, source, out).await,
            Err(status) => out.fail(&status),
        }
    };
    Answer::new(run, heard_all, gone, is_stream)
}

/// The method, which a form's sender may override.
fn overridden(head: &Parts) -> &Method {
    let is_form =
        head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/x-www-form-urlencoded");
    let other = head.headers.get("x-http-method-override").filter(|other| !other.is_empty());
    match other {
        // Whatever it is: there is no other here.
        Some(other) if is_form && !other.as_bytes().eq_ignore_ascii_case(b"POST") => &Method::GET,
        _ => &head.method,
    }
}

/// The call of a path, or grpc-gateway's words for there being none.
fn method(path: &str, method: &Method) -> Result<&'static schema::Method, Status> {
    match routes::find(path) {
        None => Err(Status::new(Code::NotFound, "Not Found")),
        Some(_) if method != Method::POST => Err(Status::new(Code::Unimplemented, "Method Not Allowed")),
        Some(found) => Ok(found),
    }
}

/// Agrees on a WebSocket, whose call begins behind it; like all of them it is a POST.
fn open_socket(link: &Rc<Link>, path: &str, head: &Parts, agreed: &websocket::Agreed) -> Response<Body> {
    let response = websocket::agree(head);
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return response.map(Body::Whole);
    }
    let (messages, received) = mpsc::channel(1);
    let asked = method(path, &Method::POST).map(|method| (method, Metadata::of_socket(&head.headers)));
    let answer = begin(link, asked, Source::from(received), (None, false));
    let bytes_max = link.gateway().limits().1;
    *agreed.borrow_mut() = Some(websocket::Socket { answer, messages, bytes_max });
    response.map(Body::Whole)
}
