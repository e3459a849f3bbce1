//! How long entries take to apply; those that take long are told of in the log, in etcd's words (etcd: txn/util.go).
//!
//! The apply thread looks at a coarse clock once an entry, and at a fine one twice a batch: an entry that is not slow counts
//! with its share of its batch. The line is written by the thread for files: nothing of apply waits for where the log goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use node::ApplyWatch;
use store::{Answer, RequestKind};
use wire::ApiError;

use super::files::FileMail;
use super::mailbox::Sender;
use crate::grpc::slow::{of_store, too_long};
use crate::log::{self, Level};
use crate::loggable;
use crate::metrics::{Metrics, nanoseconds};

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
    metrics: Arc<Metrics>,
    batch: Batch,
}

/// The batch that is being applied.
struct Batch {
    begun: Instant,
    /// What was slow in it, by the coarse clock, and is counted.
    apart: Duration,
    /// The others, by their kinds: how many failed, and how many did not.
    requests: [[u32; 2]; RequestKind::ALL.len()],
    count: u32,
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
    pub(super) fn new(expected: Duration, files: Sender<FileMail>, metrics: Arc<Metrics>) -> SlowApplies {
        let clock =
            if expected >= COARSE { ClockId::CLOCK_MONOTONIC_COARSE } else { ClockId::CLOCK_MONOTONIC };
        let requests = [[0; 2]; RequestKind::ALL.len()];
        let batch = Batch { begun: Instant::now(), apart: Duration::ZERO, requests, count: 0 };
        SlowApplies { expected, clock, last: Duration::ZERO, files, waiting: Arc::default(), metrics, batch }
    }

    /// Counts one request.
    fn count(&mut self, took: Duration, data: &[u8], result: &Result<Answer, ApiError>) {
        // As in etcd what is compacted already is no failure.
        let is_success = matches!(result, Ok(_) | Err(ApiError::Compacted));
        let kind = RequestKind::of(data).number();
        if took >= COARSE {
            self.batch.apart += took;
            let applies = &self.metrics.member.applies[kind];
            applies[usize::from(is_success)].observe_alone(nanoseconds(took), 1);
        } else {
            self.batch.requests[kind][usize::from(is_success)] += 1;
            self.batch.count += 1;
        }
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
        self.batch.begun = Instant::now();
    }

    fn applied(&mut self, data: &[u8], result: &Result<Answer, ApiError>) {
        let now = self.now();
        let took = now.saturating_sub(self.last);
        self.last = now;
        self.count(took, data, result);
        if took > self.expected {
            self.metrics.member.slow_applies.add(1);
            self.tell(took, data, result);
        }
    }

    fn end(&mut self) {
        let Batch { begun, apart, requests, count } = &mut self.batch;
        let (apart, count) = (std::mem::take(apart), std::mem::take(count));
        if count == 0 {
            return;
        }
        let share = nanoseconds(begun.elapsed().saturating_sub(apart) / count);
        for (kind, ends) in requests.iter_mut().enumerate().filter(|(_, ends)| **ends != [0; 2]) {
            for (end, times) in std::mem::take(ends).into_iter().enumerate().filter(|(_, times)| *times > 0) {
                self.metrics.member.applies[kind][end].observe_alone(share, u64::from(times));
            }
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
