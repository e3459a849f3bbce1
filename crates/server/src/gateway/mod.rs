//! The JSON gateway: etcd's calls by plain HTTP, under `/v3/`, as grpc-gateway makes them.
//!
//! A request's JSON becomes a gRPC message ([`json::read`]), goes to the services by the HTTP connection's own [`link`],
//! and what they answer becomes JSON again ([`json::write`]) in pieces, as the client takes it. What is kept for a client
//! is one request and one answer at a time, and the pieces on their way. A client that goes away ends its call.

pub mod answer;
mod call;
pub mod head;
pub mod json;
pub mod link;
pub mod routes;
pub mod schema;
pub mod source;
pub mod status;
pub mod websocket;

pub(crate) use call::run as call;

use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::Semaphore;

use crate::grpc::Front;

/// Calls in progress at a time, of all clients, whatever the flag allows.
const CALLS_MAX: u32 = 1 << 16;

/// JSON may be so many times as long as the longest message.
const JSON_FACTOR: usize = 4;

/// A buffer that something longer was cut out of is not kept for the next.
const KEPT_BYTES: usize = 16 << 10;

/// What all connections of a network thread share; cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    front: Front,
    calls: Arc<Semaphore>,
}

/// How many calls all threads' gateways may have in progress: in etcd all share one connection, and so its limit
/// (`--max-concurrent-streams`).
pub fn permits(concurrent_streams_max: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(concurrent_streams_max.min(CALLS_MAX) as usize))
}

impl Gateway {
    /// A way to the services of `front`; `calls` is shared by all of them.
    pub fn new(front: Front, calls: Arc<Semaphore>) -> Self {
        Gateway { front, calls }
    }

    /// Whether it matters who asks. Nobody is who a certificate names here: it is that of the connection, and the call goes
    /// on without.
    pub fn is_guarded(&self) -> bool {
        self.front.is_guarded()
    }

    /// Longest message, and longest JSON of one, bytes.
    pub(crate) fn limits(&self) -> (usize, usize) {
        let message = self.front.message_bytes_max() as usize;
        (message, message.saturating_mul(JSON_FACTOR))
    }
}

/// Cuts the first `length` bytes out of what a client has sent. Where they are long, the buffer that has grown goes with
/// them.
fn cut(bytes: &mut BytesMut, length: usize) -> BytesMut {
    let piece = bytes.split_to(length);
    if length > KEPT_BYTES && bytes.len() <= length {
        *bytes = BytesMut::from(&bytes[..]);
    }
    piece
}
