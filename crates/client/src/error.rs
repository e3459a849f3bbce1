//! What a call can end with.

use std::fmt;

use wire::{ApiError, Code, Status};

/// Why a client could not be made, or a call failed. The texts are those of etcd's own client: scripts match them.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No endpoint was given.
    #[error("etcdclient: no available endpoints")]
    NoEndpoints,
    /// An endpoint that cannot be read.
    #[error("parse {endpoint:?}: {reason}")]
    BadEndpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A peer URL that no member can have, in etcd's words.
    #[error("{0}")]
    PeerUrl(String),
    /// Certificates or keys that cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The call's deadline passed here, or the server found that it had.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// The call's deadline passed before any endpoint took a connection.
    #[error("context deadline exceeded")]
    Unreachable {
        /// The endpoint that was tried last, as it was given.
        endpoint: String,
        /// What came of it, in Go's words: `dial tcp 127.0.0.1:2379: connect: connection refused`.
        cause: String,
    },
    /// The call ended with a gRPC status; also a connection that broke meanwhile (`Unavailable`).
    #[error("{}", Shown(.0))]
    Status(Status),
    /// A question by HTTP/1 that was not answered.
    #[error("{0}")]
    Http(String),
    /// The server did not make a watch, or ended it, for this reason.
    #[error("{0}")]
    WatchCanceled(String),
    /// A watch that was waited on ended without a reason.
    #[error("lost watcher waiting for delete")]
    WatchLost,
    /// The session's lease, and the key of its lock with it, was gone when the lock was to be had.
    #[error("{}", ApiError::SessionExpired)]
    SessionExpired,
    /// An unlock of what is not locked.
    #[error("mutex: lock has already been released")]
    NotLocked,
    /// A proclamation by one who does not lead.
    #[error("election: not leader")]
    NotElected,
    /// Nobody leads.
    #[error("{}", ApiError::ElectionNoLeader)]
    NobodyElected,
}

impl Error {
    /// The gRPC code of a call that failed, if it came to a call.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::DeadlineExceeded | Error::Unreachable { .. } => Some(Code::DeadlineExceeded),
            Error::Status(status) => Some(status.code),
            _ => None,
        }
    }

    /// Whether a stream that ended so is opened again, as etcd's own client does: the server will be back, or another
    /// one serves.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self.code(), Some(Code::Unavailable | Code::Internal))
    }

    /// Whether the call failed with this error of etcd's.
    pub fn is(&self, error: ApiError) -> bool {
        matches!(self, Error::Status(status) if status.message == error.text())
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        let code = Code::from_number(status.code() as u32);
        Error::Status(Status::new(code, status.message().to_owned()))
    }
}

/// etcd's own errors are shown by their text alone, all others in the form of Go's gRPC library.
struct Shown<'a>(&'a Status);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { code, message } = self.0;
        let known = ApiError::ALL.iter().any(|e| !e.etcd_name().is_empty() && e.text() == message);
        if known { f.write_str(message) } else { write!(f, "rpc error: code = {code:?} desc = {message}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_etcd_are_shown_by_their_text() {
        let known = Error::from(tonic::Status::invalid_argument("etcdserver: key is not provided"));
        assert_eq!(known.to_string(), "etcdserver: key is not provided");
        assert_eq!(known.code(), Some(Code::InvalidArgument));
        assert!(known.is(ApiError::EmptyKey));
        let other =
            Error::from(tonic::Status::unimplemented("RangeStream does not support custom sort orders"));
        assert_eq!(
            other.to_string(),
            "rpc error: code = Unimplemented desc = RangeStream does not support custom sort orders"
        );
    }
}
