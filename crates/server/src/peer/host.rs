//! What the transport asks of the member that it serves, and tells it. All calls are made on the peer thread.

use bytes::Bytes;
use raft::{Index, Message, NodeId, Term};
use tokio::sync::mpsc;

use crate::LocalFuture;
use crate::http::Versions;

/// The member, as its peers' connections see it. No method may block: what takes time is a future, and works elsewhere.
pub trait Host: 'static {
    /// Messages for consensus, in the order in which one peer sent them. What does not fit its queue is dropped, as etcd
    /// does; answers how many messages that were.
    fn receive(&self, messages: Vec<Message>) -> usize;

    /// What was on its way to this member is probably lost: `raft::Event::Unreachable`.
    fn unreachable(&self, id: NodeId);

    /// How the sending of a snapshot ended, which `Message::sent_snapshot` names: `raft::Event::SnapshotReported`. Told once
    /// for each [`super::Handle::send_snapshot`].
    fn snapshot_reported(&self, to: NodeId, sent: (Term, Index), ok: bool);

    /// Another member says that this one was removed from the cluster: it must stop.
    fn removed(&self);

    /// Whether a member was removed from the cluster, as far as is applied here.
    fn is_removed(&self, id: NodeId) -> bool;

    /// What `/version` shows.
    fn versions(&self) -> Versions;

    /// All members as of now, in ascending order of id.
    fn members(&self) -> Vec<store::Member>;

    /// Takes over a snapshot's database: reads all of it, makes it durable, and checks it. Its message goes to
    /// [`Host::receive`] only after that. If the last chunk is not [`Chunk::End`], nothing of it counts: the sender's
    /// connection was cut.
    fn receive_snapshot(&self, snapshot: IncomingSnapshot) -> LocalFuture<'_, Result<(), String>>;

    /// Makes a voter of a learner, if this member leads; `token` is the caller's, of etcd's authentication. Answers all
    /// members.
    fn promote(
        &self,
        id: u64,
        token: Option<String>,
    ) -> LocalFuture<'_, Result<Vec<store::Member>, PromoteError>>;

    /// Waits until what is committed now is applied here. The transport gives up after a second.
    fn caught_up(&self) -> LocalFuture<'_, ()>;

    /// Renews a lease, if this member leads; its time to live, in seconds.
    fn renew_lease(&self, id: i64) -> LocalFuture<'_, Result<i64, LeaseError>>;

    /// How a lease stands, with its keys if asked for.
    fn lease_time_to_live(&self, id: i64, keys: bool) -> LocalFuture<'_, Result<LeaseTimes, LeaseError>>;

    /// The hash of all pairs at a revision, 0 for the newest.
    fn hash_kv(&self, revision: i64) -> LocalFuture<'_, Result<Hash, HashError>>;

    /// Whether a downgrade is under way, as a linearizable read within the member's own request timeout.
    ///
    /// # Errors
    /// Why the read failed, in etcd's words.
    fn downgrade_enabled(&self) -> LocalFuture<'_, Result<bool, String>>;
}

/// A snapshot that comes.
#[derive(Debug)]
pub struct IncomingSnapshot {
    /// Who sends it.
    pub from: NodeId,
    /// What it is of.
    pub snapshot: raft::Snapshot,
    /// The length of the database, if the sender has told it.
    pub database_bytes: Option<u64>,
    /// The database. The sender waits while this is full.
    pub chunks: mpsc::Receiver<Chunk>,
}

/// A part of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Bytes of it.
    Bytes(Bytes),
    /// There are no more.
    End,
}

/// Why a learner is not promoted. The texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromoteError {
    /// There is no such member.
    #[error("membership: ID not found")]
    NotFound,
    /// It votes already.
    #[error("membership: can only promote a learner member")]
    NotLearner,
    /// It lags too far behind.
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    NotReady,
    /// Anything else; the other member hears only of an internal error.
    #[error("{0}")]
    Other(String),
}

/// Why a lease is not renewed or shown. The texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// There is no such lease.
    #[error("lease not found")]
    NotFound,
    /// This member does not lead.
    #[error("not a primary lessor")]
    NotPrimary,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// How a lease stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseTimes {
    /// Seconds left.
    pub ttl_s: i64,
    /// Seconds as granted.
    pub granted_ttl_s: i64,
    /// The keys that hang on it, if asked for.
    pub keys: Vec<Bytes>,
}

/// A hash of all pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// The hash.
    pub hash: u32,
    /// At this revision.
    pub hash_revision: i64,
    /// Compacted up to here when it was made.
    pub compact_revision: i64,
    /// The member's newest revision.
    pub revision: i64,
}

/// Why there is no hash. The texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The revision is gone.
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    /// The revision is still to come.
    #[error("mvcc: required revision is a future revision")]
    Future,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}
