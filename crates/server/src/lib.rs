//! The shell around one member, and what the `etcd` binary runs: settings, log, listeners, threads, gRPC, HTTP.
//!
//! Everything that touches sockets, clocks, signals and the environment is here; what a request means, and what is
//! committed, is decided in `node` and below. [`process::main`] is the whole program in order, [`listen`] accepts
//! connections and spreads them over the network threads, [`grpc`] and [`http`] speak to those who connect, [`gateway`]
//! turns JSON into calls, [`front`] and [`lane`] are a network thread's side of the member, [`member`] has the member's
//! own threads.
#![deny(unsafe_code)]

pub mod auth;
pub mod check_config;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod front;
pub mod gateway;
pub mod grpc;
pub mod http;
pub mod lane;
pub mod listen;
pub mod log;
pub mod loggable;
pub mod member;
pub mod metrics;
pub mod notify;
pub mod peer;
pub mod process;
pub mod security;
pub mod signals;
mod streams;
pub mod tcp_proxy;

/// A future that stays on the network thread it was made on.
pub type LocalFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + 'a>>;

/// An I/O error in the words of Go's system call errors: `address already in use`.
pub(crate) fn go_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    // "I/O error" and the like keep their capitals.
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            format!("{}{}", first.to_lowercase(), &text[first.len_utf8()..])
        }
        _ => text.to_owned(),
    }
}

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
