//! The newest events, shared by all threads that serve watches. Bounded in bytes: a thread that falls behind it reads
//! the store's history.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::record::{RecordKind, Revision};

/// One change, as watches see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// A put or a delete.
    pub kind: RecordKind,
    /// The change's revision.
    pub revision: Revision,
    /// The stored record: an encoded `mvccpb.KeyValue`, of a delete with its key alone.
    pub record: Bytes,
}

/// What an event counts beside its record's bytes.
const EVENT_BYTES: usize = size_of::<Event>();

/// The events of whole revisions, in order.
#[derive(Debug)]
pub struct Batch {
    /// The revision of the first.
    pub first: i64,
    /// The revision of the last.
    pub last: i64,
    /// All of them; never none.
    pub events: Vec<Event>,
}

/// The newest events. Written by the apply thread before it publishes them: whoever sees a revision published finds its
/// events here, or finds that they are not here.
#[derive(Debug)]
pub struct Tail {
    subscribers: AtomicUsize,
    kept: Mutex<Kept>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Kept {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// The lowest revision from which on all events are here.
    from: i64,
    /// Behind the last event that was, or would have been, put here.
    next: i64,
}

impl Tail {
    /// A tail that begins behind `revision`, and keeps events of so many bytes at most, but always the last batch.
    pub fn new(revision: i64, bytes_max: usize) -> Tail {
        let kept = Kept { batches: VecDeque::new(), bytes: 0, from: revision + 1, next: revision + 1 };
        Tail { subscribers: AtomicUsize::new(0), kept: Mutex::new(kept), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Each change is whole before anything can panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on events are kept for one more thread: those that were being applied just now may be left out yet.
    pub fn subscribe(&self) {
        self.subscribers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// One thread has no watches any more.
    pub fn unsubscribe(&self) {
        self.subscribers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether anybody wants events. If not, [`Tail::skip`] is due before they are published.
    pub fn is_wanted(&self) -> bool {
        fence(Ordering::SeqCst);
        self.subscribers.load(Ordering::SeqCst) > 0
    }

    /// Adds a batch of events, about to be published. Panics if it is not above the last one.
    pub fn push(&self, batch: Batch) {
        let mut kept = self.lock();
        assert!(batch.first >= kept.next, "events at {} below {}", batch.first, kept.next);
        kept.next = batch.last + 1;
        kept.bytes += bytes_of(&batch);
        kept.batches.push_back(Arc::new(batch));
        while kept.bytes > self.bytes_max && kept.batches.len() > 1 {
            let oldest = kept.batches.pop_front().expect("more than one");
            kept.bytes -= bytes_of(&oldest);
            kept.from = oldest.last + 1;
        }
    }

    /// Notes that everything up to `revision` is about to be published and nobody wanted it.
    pub fn skip(&self, revision: i64) {
        let mut kept = self.lock();
        if kept.next <= revision {
            (kept.batches, kept.bytes) = (VecDeque::new(), 0);
            (kept.from, kept.next) = (revision + 1, revision + 1);
        }
    }

    /// The batches with all events at or above `revision`, at most `batches_max` of them and perhaps with some below it;
    /// `None` if some are no longer here.
    pub fn since(&self, revision: i64, batches_max: usize) -> Option<Vec<Arc<Batch>>> {
        let kept = self.lock();
        if revision < kept.from {
            return None;
        }
        let first = kept.batches.partition_point(|batch| batch.last < revision);
        Some(kept.batches.range(first..).take(batches_max).cloned().collect())
    }

    /// The lowest revision from which on all events are here.
    pub fn from(&self) -> i64 {
        self.lock().from
    }
}

fn bytes_of(batch: &Batch) -> usize {
    batch.events.iter().map(|event| event.record.len() + EVENT_BYTES).sum()
}
