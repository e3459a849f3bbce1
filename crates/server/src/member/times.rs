//! How long the member's threads take for what others wait for.

use std::sync::Arc;
use std::time::Instant;

use disk::wal::WriteWatch;

use crate::metrics::Metrics;

/// Hears of the groups of the write-ahead log.
pub(super) struct WalTimes {
    metrics: Arc<Metrics>,
    begun: Instant,
}

impl WalTimes {
    pub(super) fn new(metrics: Arc<Metrics>) -> WalTimes {
        WalTimes { metrics, begun: Instant::now() }
    }
}

impl WriteWatch for WalTimes {
    fn begin(&mut self) {
        self.begun = Instant::now();
    }

    fn written(&mut self, bytes: u64) {
        let now = Instant::now();
        let counts = &self.metrics.member.wal;
        counts.bytes.add_alone(bytes);
        counts.writes.observe_time(now - self.begun);
        self.begun = now;
    }

    fn synced(&mut self) {
        self.metrics.member.wal.fsyncs.observe_time(self.begun.elapsed());
    }
}
