//! One member as pure state machines: consensus, apply and the two log writers, joined by events and effects.
//!
//! The shell (`server`) gives each its thread, the simulator (`sim`) interleaves them on virtual time; both run
//! exactly this code. Nothing here knows sockets, clocks, threads or files other than through `disk::Fs`.
#![forbid(unsafe_code)]

mod exchange;

pub use exchange::{Completions, RequestId, Submission};
