//! etcd's encodings between members, as pure functions of bytes: one `raftpb.Message`, and the two streams of them.
//!
//! - [`Encoder`] turns what consensus sends into an [`Outgoing`], whose entries are encoded once for all followers and
//!   all ways that it may leave by.
//! - `message` streams ([`MessageDecoder`], [`encode_message`]): 8 bytes of length, big endian, and a message. Also how a
//!   snapshot's message stands before its database.
//! - `msgapp` streams ([`AppendDecoder`], [`AppendEncoder`]), etcd's msgappv2: an append whose place follows from the one
//!   before it is entries and a commit index only.
//!
//! Decoders take bytes in pieces of any size, and hold what has come, never more: a length is checked against a limit
//! when it is read, and no memory is set aside for what it promises. What no etcd sends is an error, after which the
//! stream is cut; what means nothing to us is [`Decoded::Dropped`], and the stream goes on.

mod append;
#[doc(hidden)]
pub mod fuzz;
mod gather;
mod message;
mod output;
mod protobuf;
mod stream;

pub use append::{AppendDecoder, AppendEncoder};
pub use message::{Append, Decoded, Dropped, Encoder, Entries, Outgoing, decode};
pub use output::Output;
pub use stream::{MessageDecoder, encode_heartbeat, encode_message};

/// Longest message that is read, with 64 bytes for each entry in it: etcd's limit for message streams (it has none for
/// msgapp streams).
pub const MESSAGE_BYTES_MAX: u64 = 512 << 20;

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Longer than anybody sends.
    #[error("rafthttp: error limit exceeded: {length} bytes, {limit} at most")]
    TooLong {
        /// What the stream says, with the cost of the entries.
        length: u64,
        /// What is read at most.
        limit: u64,
    },
    /// A msgapp stream has three kinds of frames.
    #[error("failed to parse type {0} in msgappv2 stream")]
    UnknownFrame(u8),
    /// Not protobuf, or not these fields.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// An entry of a kind that is none: it must not be skipped (design rule 20).
    #[error("unknown entry type {0}")]
    EntryKind(u64),
    /// The joint form of a configuration, which etcd never proposes.
    #[error("a joint configuration")]
    JointConfiguration,
}
