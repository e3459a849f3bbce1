//! What goes to consensus: single messages, streams, snapshots.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use raft::{Body, Message, NodeId, Snapshot};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::Instant;
use wire::version;

use super::body::{PeerBody, StreamBody};
use super::codec::{Decoded, MessageDecoder, decode};
use super::host::{Chunk, IncomingSnapshot};
use super::identity::{self, RAFT_TO, SERVER_VERSION};
use super::link::StreamKind;
use super::serve::{content, error, json_error, not_allowed, read_body};
use super::stats::PeerStats;
use super::transport::Transport;
use crate::log;

/// Pieces of a database that wait to be written.
const CHUNKS_MAX: usize = 4;

impl Transport {
    /// Refuses a request of another cluster or of an incompatible version.
    fn check(&self, head: &Parts) -> Result<(), Box<Response<PeerBody>>> {
        self.shared.settings.identity.check(&head.headers).map_err(|refusal| {
            log::warn!(
                "refused a request of a peer",
                "local-member-id" => self.shared.settings.identity.member_id.to_string(),
                "remote-peer-server-name" => identity::text(&head.headers, &identity::SERVER_FROM).unwrap_or(""),
                "remote-peer-server-version" => identity::text(&head.headers, &SERVER_VERSION).unwrap_or(""),
                "remote-peer-cluster-id" => identity::text(&head.headers, &identity::CLUSTER_ID).unwrap_or(""),
                "error" => log::Text(refusal),
            );
            Box::new(error(StatusCode::PRECONDITION_FAILED, &refusal.to_string()))
        })
    }

    /// A member that is known to others and not yet here says where it can be answered.
    fn remember_sender(&self, head: &Parts) {
        if let Some((from, urls)) = identity::sender(&head.headers) {
            self.add(from, &urls, false);
        }
    }

    /// Answers a post by `take`, if it is from this cluster.
    async fn posted(
        &self,
        head: &Parts,
        take: impl Future<Output = Response<PeerBody>>,
    ) -> Response<PeerBody> {
        if head.method != Method::POST {
            return not_allowed("POST");
        }
        let response = match self.check(head) {
            Err(refused) => *refused,
            Ok(()) => {
                self.remember_sender(head);
                take.await
            }
        };
        self.of_cluster(response)
    }

    /// `POST /raft`: one message.
    pub(super) async fn message(&self, head: &Parts, body: Incoming) -> Response<PeerBody> {
        self.posted(head, self.take_message(body)).await
    }

    async fn take_message(&self, body: Incoming) -> Response<PeerBody> {
        let limits = &self.shared.settings.limits;
        let mut counted = Counted { all: &self.shared.posted_bytes, mine: 0 };
        let count = |bytes| counted.count(bytes, limits.message_bytes_max);
        let Ok(bytes) = read_body(body, count, limits.stall_timeout).await else {
            return error(StatusCode::BAD_REQUEST, "error reading raft message");
        };
        let length = bytes.len() as u64;
        let message = match decode(&bytes) {
            Ok(Decoded::Message(message)) if !matches!(message.body, Body::Snapshot { .. }) => message,
            // etcd takes these too, and then does nothing with them.
            Ok(Decoded::LinkHeartbeat | Decoded::Dropped(_)) => return no_content(),
            Ok(Decoded::Message(_)) | Err(_) => {
                return error(StatusCode::BAD_REQUEST, "error unmarshalling raft message");
            }
        };
        if let Err(refused) = self.admit(&message) {
            return *refused;
        }
        let from = message.from;
        let link = self.link(from);
        let unknown = PeerStats::default();
        let stats = link.as_ref().map_or(&unknown, |link| link.stats());
        stats.received_bytes.add(length);
        if matches!(message.body, Body::ReadIndex { .. }) {
            stats.read_indexes_received.add(1);
        }
        self.shared.deliver(stats, from, vec![message]);
        no_content()
    }

    /// Whether a message is for this member, and not from one that was removed.
    fn admit(&self, message: &Message) -> Result<(), Box<Response<PeerBody>>> {
        let refuse = |text: &str| {
            log::warn!(
                "rejected a Raft message",
                "local-member-id" => self.shared.settings.identity.member_id.to_string(),
                "from" => message.from.to_string(),
                "to" => message.to.to_string(),
                "error" => text,
            );
            Err(Box::new(json_error(StatusCode::FORBIDDEN, text)))
        };
        if self.shared.host.is_removed(message.from) {
            return refuse("cannot process message from removed member");
        }
        if message.to != self.shared.settings.identity.member_id {
            return refuse("cannot process message to mismatch member");
        }
        Ok(())
    }

    /// `GET /raft/stream/KIND/ID`: the sender wants what we have for it.
    pub(super) fn stream(&self, path: &str, head: &Parts) -> Response<PeerBody> {
        if head.method != Method::GET {
            return not_allowed("GET");
        }
        let response = match self.check(head) {
            Err(refused) => *refused,
            Ok(()) => self.attach(path, head),
        };
        let mut response = self.of_cluster(response);
        response.headers_mut().insert(SERVER_VERSION, http::HeaderValue::from_static(version::ETCD));
        response
    }

    fn attach(&self, path: &str, head: &Parts) -> Response<PeerBody> {
        let rest = path.strip_prefix("/raft/stream/").and_then(|rest| rest.rsplit_once('/'));
        let kind = rest.and_then(|(kind, _)| StreamKind::ALL.into_iter().find(|known| known.path() == kind));
        let (Some(kind), Some((_, from))) = (kind, rest) else {
            return error(StatusCode::NOT_FOUND, "invalid path");
        };
        let Some(from) = identity::id(from) else {
            return error(StatusCode::NOT_FOUND, "invalid from");
        };
        let local = self.shared.settings.identity.member_id.to_string();
        if self.shared.host.is_removed(from) {
            log::warn!(
                "rejected stream from remote peer because it was removed",
                "local-member-id" => local,
                "remote-peer-id-from" => from.to_string(),
            );
            return error(StatusCode::GONE, "removed member");
        }
        let Some(link) = self.link(from).filter(|link| link.is_peer()) else {
            self.remember(from, head);
            log::warn!(
                "failed to find remote peer in cluster",
                "local-member-id" => local,
                "remote-peer-id-from" => from.to_string(),
                "cluster-id" => format!("{:x}", self.shared.settings.identity.cluster_id),
            );
            return error(StatusCode::NOT_FOUND, "error sender not found");
        };
        let to = identity::text(&head.headers, &RAFT_TO).unwrap_or_default();
        if to != local {
            log::warn!(
                "ignored streaming request; ID mismatch",
                "local-member-id" => local,
                "remote-peer-id-header" => to,
                "remote-peer-id-from" => from.to_string(),
            );
            return error(StatusCode::PRECONDITION_FAILED, "to field mismatch");
        }
        Response::new(PeerBody::Stream(Box::new(StreamBody::new(link, kind))))
    }

    /// As [`Transport::remember_sender`], of the member that the path names.
    fn remember(&self, from: NodeId, head: &Parts) {
        if let Some(urls) = identity::peer_urls(&head.headers) {
            self.add(from, &urls, false);
        }
    }

    /// `POST /raft/snapshot`: a message and the database behind it.
    pub(super) async fn snapshot(&self, head: &Parts, body: Incoming) -> Response<PeerBody> {
        let transport = self.clone();
        // A task of its own: once the database is there, consensus has to hear of it, also if the sender has gone meanwhile.
        let take = async move {
            let taken = spawn_local(async move { transport.take_snapshot(body).await }).await;
            let stopping =
                |_| error(StatusCode::INTERNAL_SERVER_ERROR, "failed to save KV snapshot (stopping)");
            taken.unwrap_or_else(stopping)
        };
        self.posted(head, take).await
    }

    async fn take_snapshot(&self, body: Incoming) -> Response<PeerBody> {
        let limits = &self.shared.settings.limits;
        let mut heads = Counted { all: &self.shared.snapshot_heads_bytes, mine: 0 };
        let mut body = Rest {
            length: hyper::body::Body::size_hint(&body).exact(),
            body,
            left: Bytes::new(),
            patience: limits.snapshot_stall_timeout,
            patience_max: limits.snapshot_stall_timeout,
            bytes_per_s_min: limits.snapshot_bytes_per_s_min,
        };
        let message = match body.message(&mut heads, limits.snapshot_message_bytes_max).await {
            Ok(Decoded::Message(message)) => message,
            Ok(_) => return error(StatusCode::BAD_REQUEST, "wrong raft message type"),
            Err(text) => {
                return error(StatusCode::BAD_REQUEST, &format!("failed to decode raft message ({text})"));
            }
        };
        let Body::Snapshot { snapshot } = &message.body else {
            return error(StatusCode::BAD_REQUEST, "wrong raft message type");
        };
        // Before the database: it may be large, and would be for nothing.
        if let Err(refused) = self.admit(&message) {
            return *refused;
        }
        let began = Instant::now();
        let (from, index, snapshot) = (message.from, snapshot.index.0, snapshot.clone());
        let link = self.link(from);
        let unknown = PeerStats::default();
        let stats = link.as_ref().map_or(&unknown, |link| link.stats());
        let incoming = &self.shared.snapshots_incoming;
        if incoming.get() >= self.shared.settings.limits.snapshots_incoming_max {
            stats.snapshots_cut.add(1);
            let text = "failed to save KV snapshot (too many are received)";
            return error(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
        let _turn = Turn::take(incoming, stats);
        let local = self.shared.settings.identity.member_id.to_string();
        log::info!(
            "receiving database snapshot",
            "local-member-id" => local,
            "remote-snapshot-sender-id" => from.to_string(),
            "incoming-snapshot-index" => index,
        );
        match self.save(from, snapshot, body, stats).await {
            Ok(()) => {
                stats.snapshots_received.add(1);
                stats.snapshot_receives.observe_time(began.elapsed());
                log::info!(
                    "received and saved database snapshot",
                    "local-member-id" => local,
                    "remote-snapshot-sender-id" => from.to_string(),
                    "incoming-snapshot-index" => index,
                );
                self.shared.deliver(stats, from, vec![message]);
                no_content()
            }
            Err(text) => {
                stats.snapshots_cut.add(1);
                log::warn!(
                    "failed to save incoming database snapshot",
                    "local-member-id" => local,
                    "remote-snapshot-sender-id" => from.to_string(),
                    "incoming-snapshot-index" => index,
                    "error" => text,
                );
                error(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed to save KV snapshot ({text})"))
            }
        }
    }

    /// Hands the database to the member as it comes. Only an end that is one is told as such.
    async fn save(
        &self,
        from: NodeId,
        snapshot: Snapshot,
        mut body: Rest,
        stats: &PeerStats,
    ) -> Result<(), String> {
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        let incoming = IncomingSnapshot { from, snapshot, database_bytes: body.length, chunks };
        let mut saving = self.shared.host.receive_snapshot(incoming);
        let feeding = async move {
            while let Some(bytes) = body.next().await? {
                stats.received_bytes.add(bytes.len() as u64);
                if sender.send(Chunk::Bytes(bytes)).await.is_err() {
                    return Ok(());
                }
            }
            // If nobody listens any more, the member has said why.
            let _ = sender.send(Chunk::End).await;
            Ok(())
        };
        tokio::select! {
            biased;
            saved = &mut saving => return saved,
            fed = feeding => {
                if let Err(cut) = fed {
                    // It sees that no end came, and gives up.
                    let _ = saving.await;
                    return Err(cut);
                }
            }
        }
        saving.await
    }
}

/// Bytes of one message among those of all of its kind that are coming in.
struct Counted<'a> {
    all: &'a Cell<u64>,
    mine: u64,
}

impl Counted<'_> {
    /// Whether there is room for so many more.
    fn count(&mut self, bytes: usize, bytes_max: u64) -> bool {
        let all = self.all.get() + bytes as u64;
        if all > bytes_max {
            return false;
        }
        self.all.set(all);
        self.mine += bytes as u64;
        true
    }

    fn give_back(&mut self, bytes: usize) {
        self.all.set(self.all.get() - bytes as u64);
        self.mine -= bytes as u64;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.mine);
    }
}

/// One of the snapshots that are being received.
struct Turn<'a>(&'a Cell<usize>, &'a PeerStats);

impl<'a> Turn<'a> {
    fn take(count: &'a Cell<usize>, stats: &'a PeerStats) -> Self {
        count.set(count.get() + 1);
        stats.snapshots_incoming.add(1);
        Turn(count, stats)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        self.1.snapshots_incoming.sub(1);
    }
}

fn no_content() -> Response<PeerBody> {
    let mut response = content("text/plain; charset=utf-8", Bytes::new());
    response.headers_mut().clear();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A snapshot's body, of which the beginning may have been read.
struct Rest {
    body: Incoming,
    /// What is still to come, if the sender has told.
    length: Option<u64>,
    /// Read, and not yet looked at.
    left: Bytes,
    /// How long it is still waited for, and how long at most. Waiting takes of it, and each byte that comes adds to it.
    patience: Duration,
    patience_max: Duration,
    bytes_per_s_min: u64,
}

impl Rest {
    /// The message at the beginning, whose bytes count among those of all `heads`.
    async fn message(&mut self, heads: &mut Counted<'_>, bytes_max: u64) -> Result<Decoded, String> {
        let mut decoder = MessageDecoder::with_limit(bytes_max);
        loop {
            let Some(mut bytes) = self.next().await? else { return Err("unexpected EOF".to_owned()) };
            let before = bytes.len();
            if !heads.count(before, bytes_max) {
                return Err("too many are received".to_owned());
            }
            let decoded = decoder.next(&mut bytes).map_err(|error| error.to_string())?;
            // What is behind the message is the database's.
            heads.give_back(bytes.len());
            let taken = before - bytes.len();
            self.length = self.length.map(|length| length.saturating_sub(taken as u64));
            if let Some(decoded) = decoded {
                self.left = bytes;
                return Ok(decoded);
            }
        }
    }

    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        if !self.left.is_empty() {
            return Ok(Some(std::mem::take(&mut self.left)));
        }
        loop {
            let began = Instant::now();
            let frame = tokio::time::timeout(self.patience, self.body.frame()).await;
            match frame.map_err(|_| "i/o timeout".to_owned())? {
                None => return Ok(None),
                Some(Err(error)) => return Err(super::dial::with_cause(&error)),
                Some(Ok(frame)) => {
                    let bytes = frame.into_data().unwrap_or_default();
                    self.came(bytes.len(), began.elapsed());
                    if !bytes.is_empty() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// So many bytes have come after so long.
    fn came(&mut self, bytes: usize, after: Duration) {
        let worth = Duration::from_nanos(1_000_000_000 * bytes as u64 / self.bytes_per_s_min.max(1));
        self.patience = (self.patience.saturating_sub(after) + worth).min(self.patience_max);
    }
}
