//! What is counted of one remote member, for metrics, and for the checks before a change of membership.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Numbers of one remote member; all but the gauges only grow. Any thread may read them.
        #[derive(Debug, Default)]
        pub struct PeerStats {
            $($(#[$doc])* pub $name: Counter,)*
            active_since: Mutex<Option<Instant>>,
        }
    };
}

counters! {
    /// Bytes of messages put on the wire; etcd's `peer_sent_bytes_total`.
    sent_bytes,
    /// Bytes of messages read; etcd's `peer_received_bytes_total`.
    received_bytes,
    /// Messages that could not be sent; etcd's `peer_sent_failures_total`.
    sent_failures,
    /// Messages that arrived and were not taken; etcd's `peer_received_failures_total`.
    received_failures,
    /// Messages dropped because the queue was full. Among `sent_failures`.
    dropped,
    /// Times that the connection was lost; etcd's `disconnected_peers_total`.
    disconnects,
    /// Dials of streams.
    dials,
    /// Requests for a read index that were sent: at most one a round.
    read_indexes_sent,
    /// Requests for a read index that came.
    read_indexes_received,
    /// Gauge: bytes that wait to be sent.
    queued_bytes,
    /// The most that `queued_bytes` has been.
    queued_bytes_peak,
    /// Snapshots sent whole; etcd's `snapshot_send_success`.
    snapshots_sent,
    /// Snapshots that did not arrive; etcd's `snapshot_send_failures`.
    snapshots_failed,
    /// Gauge: snapshots on their way.
    snapshots_in_flight,
    /// Snapshots received whole.
    snapshots_received,
    /// Snapshots that came in part.
    snapshots_cut,
    /// Round trips measured.
    probes,
    /// Probes without an answer.
    probes_lost,
    /// Gauge: round-trip time, smoothed as etcd does (an eighth of each new one), microseconds.
    round_trip_us,
    /// Gauge: how far the other's clock is behind ours, or ahead, milliseconds.
    clock_difference_ms,
}

/// A number that one thread changes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl PeerStats {
    /// Since when messages reach the member; none while they do not.
    pub fn active_since(&self) -> Option<Instant> {
        *self.active_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that is news.
    pub(super) fn activate(&self) -> bool {
        let mut since = self.active_since.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = since.is_none();
        since.get_or_insert_with(Instant::now);
        is_news
    }

    /// Whether that is news.
    pub(super) fn deactivate(&self) -> bool {
        let was_active = self.active_since.lock().unwrap_or_else(PoisonError::into_inner).take().is_some();
        if was_active {
            self.disconnects.add(1);
        }
        was_active
    }

    pub(super) fn observe_round_trip(&self, us: u64) {
        let before = self.round_trip_us.get();
        self.round_trip_us.set(if self.probes.get() == 0 { us } else { (before * 7 + us) / 8 });
        self.probes.add(1);
    }

    pub(super) fn set_queued(&self, bytes: usize) {
        self.queued_bytes.set(bytes as u64);
        if bytes as u64 > self.queued_bytes_peak.get() {
            self.queued_bytes_peak.set(bytes as u64);
        }
    }
}
