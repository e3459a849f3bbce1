//! The limits of the client interface, with etcd's defaults.

/// What one request may ask for. Set by flags; the same on every member by convention, not by protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Longest raft proposal, bytes (`--max-request-bytes`). Longer ones get `RequestTooLarge`.
    pub request_bytes_max: u32,
    /// Most compares, then-ops or else-ops of a transaction (`--max-txn-ops`).
    pub txn_ops_max: u32,
    /// Most streams that a client may have open on one connection (`--max-concurrent-streams`).
    pub concurrent_streams_max: u32,
}

/// What gRPC accepts above [`RequestLimits::request_bytes_max`] before it refuses a message unread.
pub const GRPC_OVERHEAD_BYTES: u32 = 512 * 1024;

impl RequestLimits {
    /// etcd's defaults.
    pub const DEFAULT: RequestLimits =
        RequestLimits { request_bytes_max: 1536 * 1024, txn_ops_max: 128, concurrent_streams_max: u32::MAX };

    /// Longest gRPC message that is received at all, bytes.
    pub fn message_bytes_max(&self) -> u32 {
        self.request_bytes_max.saturating_add(GRPC_OVERHEAD_BYTES)
    }
}

impl Default for RequestLimits {
    fn default() -> Self {
        RequestLimits::DEFAULT
    }
}

const _: () = assert!(RequestLimits::DEFAULT.request_bytes_max == 1_572_864);
