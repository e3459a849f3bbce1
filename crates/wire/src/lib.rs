//! etcd's API as Rust types, its error table and its limits.
//!
//! The messages are generated from `proto/` by `cargo xtask gen` and checked in. This crate has no gRPC runtime
//! and no logic: service stubs are generated into `server` and `client` over these types.
#![forbid(unsafe_code)]

pub mod error;
pub mod limits;
pub mod url;
pub mod version;

pub use error::{ApiError, Code, Status};
pub use limits::RequestLimits;

macro_rules! generated {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {$(
        $(#[$doc])*
        #[allow(missing_docs, clippy::all, reason = "generated")]
        pub mod $name { include!(concat!("gen/", $file, ".rs")); }
    )*};
}

generated! {
    /// Users, roles and permissions as they are stored.
    authpb = "authpb";
    /// The client API, and the requests inside raft entries.
    etcdserverpb = "etcdserverpb";
    /// The standard gRPC health protocol.
    health = "grpc.health.v1";
    /// Leases as they are stored, and the calls between members about them.
    leasepb = "leasepb";
    /// Membership requests inside raft entries.
    membershippb = "membershippb";
    /// Key-value pairs and events.
    mvccpb = "mvccpb";
    /// Raft entries, states and messages.
    raftpb = "raftpb";
    /// The envelope of `.snap` files.
    snappb = "snappb";
    /// The Election service.
    v3electionpb = "v3electionpb";
    /// The Lock service.
    v3lockpb = "v3lockpb";
    /// Records of the write-ahead log.
    walpb = "walpb";
}
