//! etcd's protocol between members, as a transport of its own: streams, POSTs, snapshots, probes, and the other paths of
//! the peer port. `docs/internals/peer.md` describes the protocol as it is spoken here.
//!
//! # How to wire this
//!
//! There is one peer thread, with a current-thread runtime; [`PeerThread`] is it. What belongs to whom:
//!
//! - **Before the member's threads start**: [`Handle::new`]. The handle is what they hold; it may be cloned, and none of
//!   its calls waits for a peer.
//! - **The raft thread**, once a step, after it has looked at what each message waits for: [`Handle::send`] with all
//!   messages that may leave. For a `Body::Snapshot`: [`Handle::send_snapshot`] with the database made from the pinned
//!   snapshot; another thread puts the bytes into [`Database::chunks`] (`blocking_send`), and gives up when that fails.
//! - **The apply thread**, for each change of membership it applies, and at the start for all members as of then (this
//!   member itself is ignored): [`Handle::add_peer`], [`Handle::update_peer`], [`Handle::remove_peer`]; for a member that
//!   joins, [`Handle::add_remote`] for all that it was told of, until the log has named them.
//! - **The member implements [`Host`]**, called on the peer thread. [`Host::receive`] puts messages into the raft
//!   thread's queue if there is room and else says how many were dropped; [`Host::unreachable`] and
//!   [`Host::snapshot_reported`] become `raft::Event`s; [`Host::removed`] stops the member. The rest answers requests: from
//!   what is shared, or with a future that works on another thread.
//! - **A snapshot that comes** is [`Host::receive_snapshot`]: its future drains [`IncomingSnapshot::chunks`] on a thread
//!   that may block (`blocking_recv`) and ends when the database is durable and checked; only then does its message come
//!   to [`Host::receive`]. A channel that closes without [`Chunk::End`] was cut.
//! - **Start**: [`PeerThread::start`] with the bound peer listeners. Peers are served from then on, as in etcd, before
//!   clients are. **Stop**: [`PeerThread::stop`], after the raft thread has said its last.
//!
//! - **Questions to other members** (their version, members and hashes; a lease renewed or a learner promoted by the
//!   leader) are [`ask`], from any thread with a `LocalSet`.
//!
//! Tests drive [`Transport`] directly, on a paused clock and pipes ([`Dial`] and [`Transport::serve`] take any byte stream,
//! TLS among them).

mod ask;
mod body;
pub mod codec;
mod dial;
mod host;
mod identity;
mod link;
mod member_paths;
mod post;
mod probe;
mod raft_paths;
mod reader;
mod serve;
mod stats;
mod thread;
mod timed;
mod told;
mod transport;

use std::time::Duration;

pub use ask::{Question, Reply, ask};
pub use body::Database;
pub use dial::{Dial, Io, NetDial};
pub use host::{Chunk, Hash, HashError, Host, IncomingSnapshot, LeaseError, LeaseTimes, PromoteError};
pub use identity::{Identity, Incompatible};
pub use stats::{AllStats, PeerStats};
pub use thread::PeerThread;
pub use told::{Told, is_ours, version_told};
pub(crate) use transport::size;
pub use transport::{Handle, Transport};

/// What a transport is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who this member is.
    pub identity: Identity,
    /// Its bounds.
    pub limits: Limits,
    /// How it reaches URLs with TLS.
    pub security: tls::Info,
}

/// Times and bounds.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A stream on which nothing comes, or which takes nothing, for this long is cut; also how long a POST of a message
    /// may take. etcd's `ConnReadTimeout`.
    pub stall_timeout: Duration,
    /// How long a connection may take to be made. etcd's is a second and an election timeout.
    pub dial_timeout: Duration,
    /// Shortest and longest pause between two dials of a stream. etcd's is 100 ms always.
    pub dial_pause: Duration,
    /// See there.
    pub dial_pause_max: Duration,
    /// Between two probes; shorter than `stall_timeout`, or the other side closes the connection in between.
    pub probe_interval: Duration,
    /// A snapshot of which nothing is taken, or nothing comes, for this long is cut.
    pub snapshot_stall_timeout: Duration,
    /// So many bytes of one have to come a second, on average over `snapshot_stall_timeout` of waiting for them: nobody
    /// keeps out other snapshots with one that never ends. etcd waits for as long as something comes.
    pub snapshot_bytes_per_s_min: u64,
    /// How long the receiver may take to make a snapshot durable and check it.
    pub snapshot_answer_timeout: Duration,
    /// Messages that wait for one stream.
    pub queue_messages_max: usize,
    /// Bytes of messages that wait for one member, by whatever way; one message of any size when nothing waits.
    pub queue_bytes_max: usize,
    /// Messages to one member that wait to be posted.
    pub posts_max: usize,
    /// POSTs to one member at the same time.
    pub posts_at_once: usize,
    /// Those who are answered although they are no members, as far as known: those that spoke last.
    pub remotes_max: usize,
    /// Longest message that is read, with 64 bytes for each of its entries; also all messages that are being posted to
    /// this member, together.
    pub message_bytes_max: u64,
    /// Longest message before the database of a snapshot, which etcd bounds so; also all of them that are here, together.
    pub snapshot_message_bytes_max: u64,
    /// Snapshots that are received at the same time. A leader sends one.
    pub snapshots_incoming_max: usize,
    /// How long what was handed over last may take to leave when the transport stops.
    pub flush_timeout: Duration,
}

impl Limits {
    /// A sign of life on a stream, if there is nothing else. At most two intervals pass between two signs.
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        self.stall_timeout / 3
    }
}

impl Default for Limits {
    /// etcd's where it has one. What waits for a follower holds all that consensus has under way to it, and a quarter
    /// more.
    fn default() -> Self {
        Limits {
            stall_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(2),
            dial_pause: Duration::from_millis(100),
            dial_pause_max: Duration::from_secs(1),
            probe_interval: Duration::from_secs(4),
            snapshot_stall_timeout: Duration::from_secs(30),
            snapshot_bytes_per_s_min: 16 << 10,
            snapshot_answer_timeout: Duration::from_secs(600),
            queue_messages_max: 4096,
            queue_bytes_max: 40 << 20,
            posts_max: 64,
            posts_at_once: 4,
            remotes_max: 16,
            message_bytes_max: codec::MESSAGE_BYTES_MAX,
            snapshot_message_bytes_max: 64 << 20,
            snapshots_incoming_max: 4,
            flush_timeout: Duration::from_millis(200),
        }
    }
}
