//! The Rust client of etcd's v3 API, over TCP or a Unix socket, with TLS or without.
//!
//! [`Client`] has a call for each request that our commands make; under it lies [`Channel`], an HTTP/2 connection
//! that fails over from endpoint to endpoint and carries the generated stubs ([`stubs`]). On top of its calls stand
//! [`Watcher`], whose watches outlive connections, [`LeaseKeepAlive`], and [`concurrency`]: sessions, locks and
//! elections as etcd's Go client has them. Runs on any tokio runtime, a current-thread one included. It never prints,
//! never exits, knows nothing of flags or output formats. Not here yet: retries of calls that were sent, balancing.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod concurrency;

mod api;
mod auth;
mod body;
mod channel;
mod deadline;
mod endpoint;
mod error;
mod heard;
mod identity;
mod keep_alive;
mod plain_http;
mod prefix;
mod security;
mod stream;
mod watch;

pub use api::{Client, Config};
pub use channel::{Channel, Keepalive};
pub use deadline::Deadline;
pub use endpoint::Endpoint;
pub use error::Error;
pub use identity::Credentials;
pub use keep_alive::LeaseKeepAlive;
pub use plain_http::http_get;
pub use prefix::{prefix_end, prefix_range};
pub use security::Security;
pub use stream::{Answers, Duplex, REQUESTS_WAITING_MAX};
pub use watch::{WatchKey, Watched, Watcher};

/// The generated stubs, one module a service; each is generic over the channel.
pub mod stubs {
    #![allow(missing_docs, clippy::all, rust_2018_idioms, reason = "generated")]

    pub use etcdserverpb::{
        auth_client, cluster_client, kv_client, lease_client, maintenance_client, watch_client,
    };

    mod etcdserverpb {
        include!("gen/etcdserverpb.rs");
    }
    /// The standard health service.
    pub mod health {
        include!("gen/grpc.health.v1.rs");
    }
    /// The Election service.
    pub mod election {
        include!("gen/v3electionpb.rs");
    }
    /// The Lock service.
    pub mod lock {
        include!("gen/v3lockpb.rs");
    }
}
