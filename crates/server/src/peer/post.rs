//! Single messages by POST, as long as there is no stream; and snapshots.

use std::rc::Rc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use raft::{Index, Message, MessageType, Term};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::body::{Database, PeerBody, SnapshotBody};
use super::codec::{Encoder, Outgoing};
use super::dial::{Connection, ExchangeError, Patience, answer_text};
use super::link::Link;
use crate::config::Url;
use crate::log;

/// Why a POST did not arrive.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error("the peer has no URL that can be dialled")]
    NoUrl,
    #[error("context deadline exceeded")]
    Timeout,
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    #[error("{0}")]
    Refused(String),
}

/// Posts what waits, and ends when nothing does.
pub(super) async fn run(link: Rc<Link>) {
    while let Some(message) = link.next_post() {
        let kind = message.kind;
        let bytes = message.to_bytes();
        let posted = tokio::time::timeout(link.limits().stall_timeout, post_message(&link, bytes)).await;
        match posted.unwrap_or(Err(PostError::Timeout)) {
            Ok(()) => {
                link.activate();
                sent(&link, &message);
            }
            Err(error) => {
                link.deactivate("write pipeline to", &error.to_string());
                log::debug!(
                    "failed to post a Raft message",
                    "message-type" => format!("{kind:?}"),
                    "remote-peer-id" => link.id().to_string(),
                    "error" => log::Text(&error),
                );
                link.send_failed();
                if matches!(error, PostError::Removed) {
                    link.shared().host.removed();
                }
            }
        }
    }
}

fn sent(link: &Link, message: &Outgoing) {
    link.stats().sent_bytes.add(message.size() as u64);
    if message.kind == MessageType::ReadIndex {
        link.stats().read_indexes_sent.add(1);
    }
}

async fn post_message(link: &Link, bytes: Bytes) -> Result<(), PostError> {
    let patience = Patience { dial: link.limits().dial_timeout, read: None, write: None };
    post(link, "/raft", "application/protobuf", bytes.into(), patience).await
}

/// Sends a snapshot: its message, framed as in a stream, and the database. Says to consensus how the sending of this name
/// ended, even if it is never begun.
pub(super) fn snapshot(
    link: Rc<Link>,
    message: Message,
    sent: (Term, Index),
    database: Database,
) -> impl Future<Output = ()> {
    link.stats().snapshots_in_flight.add(1);
    let report = Report { link, sent, ok: false };
    async move {
        let (mut report, began) = (report, Instant::now());
        let link = report.link.clone();
        let (index, to, bytes) = (sent.1.0, link.id().to_string(), database.bytes);
        log::info!(
            "sending database snapshot",
            "snapshot-index" => index, "remote-peer-id" => to, "bytes" => bytes,
        );
        match post_snapshot(&link, message, database).await {
            Ok(()) => {
                report.ok = true;
                link.stats().snapshot_sends.observe_time(began.elapsed());
                link.activate();
                log::info!(
                    "sent database snapshot",
                    "snapshot-index" => index, "remote-peer-id" => to, "bytes" => bytes,
                );
            }
            Err(error) => {
                log::warn!(
                    "failed to send database snapshot",
                    "snapshot-index" => index,
                    "remote-peer-id" => to,
                    "bytes" => bytes,
                    "error" => log::Text(&error),
                );
                // Who says no is there.
                if !matches!(error, PostError::Refused(_)) {
                    link.deactivate("post sendMsgSnap to", &error.to_string());
                }
                link.send_failed();
                if matches!(error, PostError::Removed) {
                    link.shared().host.removed();
                }
            }
        }
    }
}

async fn post_snapshot(link: &Link, message: Message, database: Database) -> Result<(), PostError> {
    let message = Encoder::default().encode(message).to_bytes();
    let mut head = BytesMut::with_capacity(8 + message.len());
    head.put_u64(message.len() as u64);
    head.extend_from_slice(&message);
    let total = head.len() as u64 + database.bytes;
    let limits = link.limits();
    let stall = Some(limits.snapshot_stall_timeout);
    let patience = Patience { dial: limits.dial_timeout, read: None, write: stall };
    let all_left = Rc::new(Notify::new());
    let body = SnapshotBody::new(head.freeze(), database, all_left.clone());
    let body = PeerBody::Snapshot(Box::new(body));
    let posting = post(link, "/raft/snapshot", "application/octet-stream", body, patience);
    // The receiver syncs and checks all of it before it answers.
    let silence = async {
        all_left.notified().await;
        tokio::time::sleep(limits.snapshot_answer_timeout).await;
    };
    tokio::select! {
        posted = posting => posted?,
        () = silence => return Err(PostError::Timeout),
    }
    link.stats().sent_bytes.add(total);
    Ok(())
}

struct Report {
    link: Rc<Link>,
    sent: (Term, Index),
    ok: bool,
}

impl Drop for Report {
    fn drop(&mut self) {
        let stats = self.link.stats();
        stats.snapshots_in_flight.sub(1);
        if self.ok { &stats.snapshots_sent } else { &stats.snapshots_failed }.add(1);
        self.link.shared().host.snapshot_reported(self.link.id(), self.sent, self.ok);
    }
}

async fn post(
    link: &Link,
    path: &'static str,
    content_type: &'static str,
    body: PeerBody,
    patience: Patience,
) -> Result<(), PostError> {
    let url = link.url().ok_or(PostError::NoUrl)?;
    let posted = post_at(link, &url, path, content_type, body, patience).await;
    if posted.is_err() {
        link.url_failed(&url);
    }
    posted
}

async fn post_at(
    link: &Link,
    url: &Url,
    path: &'static str,
    content_type: &'static str,
    body: PeerBody,
    patience: Patience,
) -> Result<(), PostError> {
    let shared = link.shared();
    let request = shared.settings.identity.sign(Request::builder().method(Method::POST).uri(path));
    let request = request.header(CONTENT_TYPE, content_type).body(body);
    let request = request.map_err(|error| PostError::Refused(error.to_string()))?;
    let mut connection = Connection::open(&shared.dial, url, patience).await?;
    let (head, body) = connection.send(request).await?.into_parts();
    match head.status {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::FORBIDDEN | StatusCode::PRECONDITION_FAILED => {
            let text = tokio::time::timeout(link.limits().stall_timeout, answer_text(body));
            let text = text.await.map_err(|_| PostError::Timeout)?.map_err(PostError::Refused)?;
            // Another member may have this one's place by now, and says no as well: that removes nobody.
            Err(match head.status == StatusCode::FORBIDDEN && !text.contains("mismatch member") {
                true => PostError::Removed,
                false => PostError::Refused(text),
            })
        }
        status => {
            Err(PostError::Refused(format!("unexpected http status {status} while posting to {url}{path}")))
        }
    }
}
