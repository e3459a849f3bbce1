//! The shell around a member: sockets, threads and clocks.
//!
//! [`grpc`] speaks to clients, [`lane`] is a network thread's side of the member. Nothing here decides what a
//! request means: consensus and state are the member's.
#![deny(unsafe_code)]

pub mod grpc;
pub mod lane;

/// Service stubs, generated over the messages of `wire`.
#[allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms, reason = "generated")]
pub mod stubs {
    pub mod etcdserverpb {
        include!("gen/etcdserverpb.rs");
    }
    pub mod health {
        include!("gen/grpc.health.v1.rs");
    }
}
