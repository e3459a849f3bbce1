//! Entries that take long to apply are told of in the log, in etcd's words (etcd: txn/util.go).
//!
//! The apply thread looks at a coarse clock once an entry. The line is written by the thread for files: nothing of apply waits
//! for where the log goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use node::ApplyWatch;
use store::Answer;
use wire::ApiError;

use super::files::FileMail;
use super::mailbox::Sender;
use crate::grpc::slow::{of_store, too_long};
use crate::log::{self, Level};
use crate::loggable;

/// Lines that may wait to be written; what is slow beyond them is not told of.
const WAITING_MAX: usize = 256;
/// The coarse clock's steps are some milliseconds.
const COARSE: Duration = Duration::from_millis(20);

/// Watches the apply thread.
pub(super) struct SlowApplies {
    expected: Duration,
    clock: ClockId,
    /// When the entry before had been applied.
    last: Duration,
    files: Sender<FileMail>,
    waiting: Arc<AtomicUsize>,
}

/// A line that is to be written.
pub(super) struct Line {
    took: Duration,
    expected: Duration,
    request: String,
    response: String,
    error: Option<&'static str>,
    waiting: Arc<AtomicUsize>,
}

impl SlowApplies {
    /// Tells of what takes longer than expected.
    pub(super) fn new(expected: Duration, files: Sender<FileMail>) -> SlowApplies {
        let clock =
            if expected >= COARSE { ClockId::CLOCK_MONOTONIC_COARSE } else { ClockId::CLOCK_MONOTONIC };
        SlowApplies { expected, clock, last: Duration::ZERO, files, waiting: Arc::default() }
    }

    fn now(&self) -> Duration {
        clock_gettime(self.clock).map_or(self.last, Duration::from)
    }

    #[cold]
    fn tell(&self, took: Duration, data: &[u8], result: &Result<Answer, ApiError>) {
        if !log::enabled(Level::Warn) || self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        self.files.send(FileMail::SlowApply(Line {
            took,
            expected: self.expected,
            request: loggable::raft_request(data),
            response: result.as_ref().map(response).unwrap_or_default(),
            error: result.as_ref().err().map(|error| of_store(error.text())),
            waiting: self.waiting.clone(),
        }));
    }
}

impl ApplyWatch for SlowApplies {
    fn begin(&mut self) {
        self.last = self.now();
    }

    fn applied(&mut self, data: &[u8], result: &Result<Answer, ApiError>) {
        let now = self.now();
        let took = now.saturating_sub(self.last);
        self.last = now;
        if took > self.expected {
            self.tell(took, data, result);
        }
    }
}

/// The size of the answer, with a header that has nothing but the revision.
fn response(answer: &Answer) -> String {
    let header = wire::etcdserverpb::ResponseHeader { revision: answer.revision, ..Default::default() };
    let header = 2 + prost::Message::encoded_len(&header);
    format!("size:{}", header + answer.body.len())
}

impl Line {
    /// Writes it.
    pub(super) fn write(self) {
        too_long(self.took, self.expected, ("", &self.request), &self.response, self.error);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
