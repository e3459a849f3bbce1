//! The replicated state machine: keys and revisions, leases, alarms, membership, users, and what applies entries to them.
//!
//! Apply is a function of state and entry (rule 8): no clock, no randomness, no files. Where the bytes of a
//! stored pair lie is the business of whoever implements [`RecordSource`] and [`RecordSink`]; the store only
//! keeps [`Location`]s.
#![forbid(unsafe_code)]

pub mod admission;
mod alarm;
mod answer;
mod apply;
mod auth;
mod compaction;
mod cut;
mod encoding;
mod lease;
mod membership;
mod mvcc;
mod ops;
mod plain;
mod record;
mod relocate;
pub mod request;
mod request_kind;
mod size;
mod store;
mod stream;
mod tables;
pub mod watch;

pub use alarm::Alarms;
pub use answer::Answer;
pub use apply::{Fatal, check_request, fuzz_apply};
pub use auth::{Auth, AuthChange, AuthRequest, Caller, ROOT};
pub use compaction::{Compaction, CompactionStep, Compactor, FinishedCompaction};
pub use cut::Cut;
pub use lease::{LeaseChange, LeaseTimes, TTL_MAX_S};
pub use membership::{ConfChangeOutcome, Member, Membership, V2StoreError, fuzz_v2_store};
pub use mvcc::{KvHash, Pace, ReadFailure, ReadMode};
pub use ops::Ops;
pub use record::{Location, ReadError, RecordKind, RecordSink, RecordSource, RecordVisitor, Revision};
pub use relocate::{Relocated, Relocator};
pub use request_kind::RequestKind;
pub use store::{Applied, Reader, RestoreError, Settings, Store};
pub use stream::{RangeStream, StreamChunk};
pub use tables::encode_tables;
