//! The clock by which leases end.

use raft::Time;

/// Counts only time in which the process ran: a gap between two looks that is longer than it ever is between two ticks
/// of a member that runs is a pause, and not counted at all (rule 14). So it falls behind the shell's clock, and is
/// never ahead of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseClock {
    counted_us: u64,
    seen: Time,
    gap_max_us: u64,
}

impl LeaseClock {
    pub(super) fn new(now: Time, gap_max_us: u64) -> Self {
        LeaseClock { counted_us: 0, seen: now, gap_max_us }
    }

    /// Takes in the shell's time. Threads read it before they take turns here, so it may step back a little.
    pub(super) fn observe(&mut self, now: Time) {
        let gap_us = now.0.saturating_sub(self.seen.0);
        if gap_us <= self.gap_max_us {
            self.counted_us += gap_us;
        }
        self.seen = self.seen.max(now);
    }

    /// Microseconds counted so far.
    pub(super) fn now_us(&self) -> u64 {
        self.counted_us
    }

    /// The last time taken in.
    pub(super) fn seen(&self) -> Time {
        self.seen
    }

    /// When `at_us` is reached if no pause comes between; not before the last time taken in.
    pub(super) fn when(&self, at_us: u64) -> Time {
        Time(self.seen.0.saturating_add(at_us.saturating_sub(self.counted_us)))
    }
}
