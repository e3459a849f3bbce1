//! The gRPC front end: connections in, questions to the member and answers out.
//!
//! [`serve`] owns one connection. The hot calls (Range, Put, DeleteRange, Txn) are answered inside the
//! connection's task, without a task or an allocation of their own; everything else goes to generated stubs on
//! the same connection. HTTP/2 itself is the `h2` crate's, and stays in [`connection`] and [`stream`].
//!
//! A turn of a connection: hand out what the member has answered, accept until there is nothing more to accept,
//! handle everything that was accepted, and only then write, once.

pub mod answer;
pub mod auth;
pub mod calls;
pub mod cluster;
pub mod connection;
pub mod counted;
mod downgrade;
mod election;
pub mod elsewhere;
pub(crate) mod forward;
pub mod frames;
pub mod hashes;
pub mod head;
pub mod health;
pub mod incoming;
pub mod io;
pub mod keep_alive;
pub mod kv;
pub mod lease;
mod lock;
pub mod maintenance;
pub mod member;
pub mod method;
pub mod others;
mod queue;
pub mod service;
pub mod slow;
pub mod snapshot;
pub mod stream;
pub mod task;
pub mod turns;
pub mod watch;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use wire::RequestLimits;

pub use member::{MemberView, SharedStatus};
pub use slow::Slow;

use crate::http::Web;
use crate::lane::Lane;

/// How connections are treated.
#[derive(Clone, Copy, Debug)]
pub struct GrpcConfig {
    /// Sizes and counts.
    pub limits: RequestLimits,
    /// `--grpc-keepalive-min-time`: clients may ping this often while a call is in progress.
    pub ping_interval_min: Duration,
    /// `--grpc-keepalive-interval`: a client that has been silent for so long is pinged.
    pub keepalive_interval: Duration,
    /// `--grpc-keepalive-timeout`: a pinged client must show itself within this.
    pub keepalive_timeout: Duration,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// `--watch-progress-notify-interval`.
    pub watch_progress_interval: Duration,
    /// From when on calls are told of in the log.
    pub slow: Slow,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        GrpcConfig {
            limits: RequestLimits::DEFAULT,
            ping_interval_min: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(2 * 60 * 60),
            keepalive_timeout: Duration::from_secs(20),
            election_timeout: Duration::from_secs(1),
            watch_progress_interval: Duration::from_secs(10 * 60),
            slow: Slow::default(),
        }
    }
}

/// What all connections of a network thread share; cheap to clone.
#[derive(Clone)]
pub struct Front(Rc<Shared>);

struct Shared {
    lane: Lane,
    config: GrpcConfig,
    templates: stream::Templates,
}

impl Front {
    /// The front end of one network thread.
    pub fn new(lane: Lane, config: GrpcConfig) -> Self {
        Front(Rc::new(Shared { lane, config, templates: stream::Templates::default() }))
    }

    /// Whether it matters who asks.
    pub fn is_guarded(&self) -> bool {
        self.0.lane.member().is_guarded()
    }

    /// Longest message, bytes.
    pub fn message_bytes_max(&self) -> u32 {
        self.0.config.limits.message_bytes_max()
    }
}

impl Shared {
    /// The services of the present member. They are not kept: one that is gone must not hold on to its store.
    fn services(&self) -> service::Services {
        service::Services::new(Arc::clone(&self.lane.member()), self.lane.handle(), self.config.limits)
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The address, for the log.
    pub address: Option<SocketAddr>,
    /// The name in its certificate, where that says who asks.
    pub certified: Option<Arc<str>>,
}

/// Serves one connection until either side ends it; `io` begins with the client's HTTP/2 preface.
///
/// Runs inside a `LocalSet`, since calls off the hot path are local tasks; they end with the connection.
/// Dropping the future closes the connection. `web` answers requests that are none of gRPC; without it they are refused.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(io: S, front: Front, web: Option<Web>) {
    serve_client(io, Client::default(), front, web).await;
}

/// As [`serve`], with what is known of the client.
pub async fn serve_client<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    io: S,
    client: Client,
    front: Front,
    web: Option<Web>,
) {
    connection::serve(io, client, front, web).await;
}
