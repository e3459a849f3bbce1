//! The replicated state machine: keys and revisions, membership, and what applies entries to them.
//!
//! Apply is a function of state and entry (rule 8): no clock, no randomness, no files. Where the bytes of a
//! stored pair lie is the business of whoever implements [`RecordSource`] and [`RecordSink`]; the store only
//! keeps [`Location`]s.
#![forbid(unsafe_code)]

mod answer;
mod record;

pub use answer::Answer;
pub use record::{Location, ReadError, RecordKind, RecordSink, RecordSource, RecordVisitor, Revision};
