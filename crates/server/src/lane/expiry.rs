//! When a lane looks which of the calls that wait are out of time.
//!
//! Deadlines are in no order, since keeping one would cost each call something: all calls are looked at when the first
//! deadline has passed. The more there are, the longer it is before all are looked at again, however close together their
//! clients have put their deadlines.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// How much longer one more call makes it until the next look: some ten times what looking at it costs.
const PAUSE_PER_CALL: Duration = Duration::from_nanos(300);

/// The time of the next look.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// No deadline is before this.
    earliest: Cell<Option<Instant>>,
    /// Nothing is looked at before this.
    resting_until: Cell<Option<Instant>>,
}

impl Expiry {
    /// One more call waits.
    pub(super) fn add(&self, deadline: Instant) {
        if self.earliest.get().is_none_or(|earliest| deadline < earliest) {
            self.earliest.set(Some(deadline));
        }
    }

    /// When all calls are to be looked at.
    pub(super) fn next(&self) -> Option<Instant> {
        let earliest = self.earliest.get()?;
        Some(self.resting_until.get().map_or(earliest, |until| until.max(earliest)))
    }

    /// All were looked at: how many are left, and the first of their deadlines.
    pub(super) fn looked(&self, now: Instant, left: usize, earliest: Option<Instant>) {
        let calls = u32::try_from(left).unwrap_or(u32::MAX);
        self.earliest.set(earliest);
        self.resting_until.set(Some(now + PAUSE_PER_CALL.saturating_mul(calls)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_deadline_of_many_costs_no_look_at_all_of_them() {
        const CALLS: usize = 60_000;
        let start = Instant::now();
        let deadlines: Vec<_> =
            (0..CALLS).map(|call| start + Duration::from_micros(20 * call as u64)).collect();
        let expiry = Expiry::default();
        deadlines.iter().for_each(|deadline| expiry.add(*deadline));
        let (mut first, mut looked_at) = (0, 0);
        while let Some(now) = expiry.next() {
            looked_at += CALLS - first;
            let late = deadlines
                .get(first)
                .map_or(Duration::ZERO, |deadline| now.saturating_duration_since(*deadline));
            assert!(late <= PAUSE_PER_CALL * CALLS as u32, "{late:?} late");
            first = deadlines.partition_point(|deadline| *deadline <= now);
            expiry.looked(now, CALLS - first, deadlines.get(first).copied());
            // A call that comes meanwhile makes it no sooner.
            if first < CALLS {
                expiry.add(now);
                assert_eq!(expiry.next(), Some(now + PAUSE_PER_CALL * (CALLS - first) as u32));
            }
        }
        assert_eq!(first, CALLS);
        assert!(looked_at < 100 * CALLS, "{looked_at} calls were looked at");
    }
}
