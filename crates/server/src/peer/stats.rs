//! What is counted of one remote member, for metrics, and for the checks before a change of membership.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raft::NodeId;
use tokio::time::Instant;

use crate::metrics::{Counter, Durations, MS, US};

/// Members of which anything is counted: all that a cluster had while the process runs, and some that only claimed to be.
const COUNTED_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Counted {
    stats: Arc<PeerStats>,
    /// Whether it is or was a member as far as was known here, and not just an id that somebody said was his.
    was_member: bool,
}

/// The numbers of all others with whom this process has had to do, also when they are no members any more: they go on where
/// the member is opened anew. Cloning gives another name for the same.
#[derive(Clone, Debug, Default)]
pub struct AllStats(Arc<Mutex<BTreeMap<NodeId, Counted>>>);

impl AllStats {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of a member, or of somebody who may become one. Where there are too many, a stranger that is gone makes room;
    /// of one too many nobody hears.
    pub fn of(&self, id: NodeId, is_member: bool) -> Arc<PeerStats> {
        let mut all = self.lock();
        if all.len() >= COUNTED_MAX && !all.contains_key(&id) {
            let is_gone = |counted: &Counted| !counted.was_member && Arc::strong_count(&counted.stats) == 1;
            let Some(gone) = all.iter().find(|(_, counted)| is_gone(counted)).map(|(id, _)| *id) else {
                return Arc::default();
            };
            all.remove(&gone);
        }
        let counted = all.entry(id).or_default();
        counted.was_member |= is_member;
        counted.stats.clone()
    }

    /// Those of somebody of whom anything is counted.
    pub fn known(&self, id: NodeId) -> Option<Arc<PeerStats>> {
        self.lock().get(&id).map(|counted| counted.stats.clone())
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<NodeId, Arc<PeerStats>> {
        self.lock().iter().map(|(id, counted)| (*id, counted.stats.clone())).collect()
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Numbers of one remote member; all but the gauges only grow. Any thread may read them.
        #[derive(Debug, Default)]
        pub struct PeerStats {
            $($(#[$doc])* pub $name: Counter,)*
            /// Round trips; etcd's `peer_round_trip_time_seconds`, which has the smoothed time every 30 s.
            pub round_trips: Durations<{ 100 * US }, 16>,
            /// How long it took to send snapshots that arrived; etcd's `snapshot_send_total_duration_seconds`.
            pub snapshot_sends: Durations<{ 100 * MS }, 10>,
            /// How long it took to receive whole snapshots; etcd's `snapshot_receive_total_duration_seconds`.
            pub snapshot_receives: Durations<{ 100 * MS }, 10>,
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
    /// Times that messages came to reach the member.
    connects,
    /// Times that the connection was lost; etcd's `disconnected_peers_total`.
    disconnects,
    /// Dials of streams.
    dials,
    /// Requests for a read index that were sent: at most one a round.
    read_indexes_sent,
    /// Requests for a read index that came.
    read_indexes_received,
    /// Proposals that the member has handed on and that were not taken here. Nobody answers them.
    proposals_refused,
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
    /// Snapshots received whole; etcd's `snapshot_receive_success`.
    snapshots_received,
    /// Snapshots that came in part, or were not taken; etcd's `snapshot_receive_failures`.
    snapshots_cut,
    /// Gauge: snapshots that are being received.
    snapshots_incoming,
    /// Round trips measured.
    probes,
    /// Probes without an answer.
    probes_lost,
    /// Gauge: round-trip time, smoothed as etcd does (an eighth of each new one), microseconds.
    round_trip_us,
    /// Gauge: how far the other's clock is behind ours, or ahead, milliseconds.
    clock_difference_ms,
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
        if is_news {
            self.connects.add(1);
        }
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

    /// Whether messages reach it is open from now on; nothing was lost.
    pub(super) fn forget_activity(&self) {
        *self.active_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn observe_round_trip(&self, took: Duration) {
        self.round_trips.observe_time(took);
        let us = took.as_micros() as u64;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_and_are_not_of_too_many() {
        let all = AllStats::default();
        all.of(NodeId(1), true).disconnects.add(2);
        assert_eq!(all.clone().of(NodeId(1), true).disconnects.get(), 2);
        for id in 0..2 * COUNTED_MAX as u64 {
            all.of(NodeId(id), true).disconnects.add(1);
        }
        assert_eq!(all.all().len(), COUNTED_MAX);
        assert_eq!(all.known(NodeId(1)).expect("it is counted").disconnects.get(), 3);
        assert!(all.known(NodeId(u64::MAX)).is_none());
    }

    #[test]
    fn strangers_that_are_gone_make_room_for_a_new_member() {
        let all = AllStats::default();
        all.of(NodeId(1), true).disconnects.add(1);
        let held = all.of(NodeId(2), false);
        held.disconnects.add(2);
        for id in 3..3 * COUNTED_MAX as u64 {
            all.of(NodeId(id), false);
        }
        let newest = NodeId(u64::MAX);
        all.of(newest, true).disconnects.add(3);
        assert_eq!(all.all().len(), COUNTED_MAX);
        let counts =
            [NodeId(1), NodeId(2), newest].map(|id| all.known(id).map(|stats| stats.disconnects.get()));
        assert_eq!(counts, [Some(1), Some(2), Some(3)]);
    }
}
