//! Single questions to another member: its members, version, hashes; a lease renewed or a learner promoted by the leader.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Limited};

use super::Settings;
use super::body::PeerBody;
use super::dial::{Connection, Dial, Patience};
use crate::config::Url;

/// Longest answer: one lease may have many keys. etcd's bound for these.
const ANSWER_BYTES_MAX: usize = 100 << 20;

/// A question.
#[derive(Clone, Debug)]
pub struct Question {
    /// `GET` or `POST`.
    pub method: Method,
    /// The path on the peer port, as `/members`.
    pub path: String,
    /// Of the body; empty for none.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
    /// The caller's, of etcd's authentication.
    pub token: Option<String>,
}

impl Question {
    /// A `GET` without a body.
    pub fn get(path: impl Into<String>) -> Question {
        let (body, path) = (Bytes::new(), path.into());
        Question { method: Method::GET, path, content_type: "", body, token: None }
    }

    /// A `POST` of protobuf.
    pub fn post(path: impl Into<String>, body: Bytes) -> Question {
        let content_type = "application/protobuf";
        Question { method: Method::POST, path: path.into(), content_type, body, token: None }
    }
}

/// What was answered, whatever the status.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Asks a member at one of its URLs, within `timeout`. Must be called inside a `LocalSet`; the future may be dropped.
///
/// # Errors
/// Why there is no answer; whether the question arrived is not known then.
pub async fn ask(
    dial: &Rc<dyn Dial>,
    url: &Url,
    settings: &Settings,
    question: Question,
    timeout: Duration,
) -> Result<Reply, String> {
    let asked = tokio::time::timeout(timeout, ask_at(dial, url, settings, question)).await;
    asked.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
}

async fn ask_at(
    dial: &Rc<dyn Dial>,
    url: &Url,
    settings: &Settings,
    question: Question,
) -> Result<Reply, String> {
    let mut request = settings.identity.sign(Request::builder().method(question.method).uri(question.path));
    if !question.content_type.is_empty() {
        request = request.header(CONTENT_TYPE, question.content_type);
    }
    if let Some(token) = question.token {
        request = request.header(AUTHORIZATION, token);
    }
    let request = request.body(PeerBody::from(question.body)).map_err(|error| error.to_string())?;
    let patience = Patience { dial: settings.limits.dial_timeout, read: None, write: None };
    let mut connection = Connection::open(dial, url, patience).await.map_err(|error| error.to_string())?;
    let answer = connection.send(request).await.map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
}
