//! The member's clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use raft::Time;

/// Monotonic, counted from the member's start. The time of a suspended machine is not in it; that of a stopped process
/// is.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Clock(Instant::now())
    }

    /// The time.
    pub fn now(self) -> Time {
        Time(self.0.elapsed().as_micros() as u64)
    }

    /// The time of an instant; the beginning for one before it.
    pub fn time(self, instant: Instant) -> Time {
        Time(instant.saturating_duration_since(self.0).as_micros() as u64)
    }

    /// The instant of a time; `None` for one that never comes.
    pub fn instant(self, time: Time) -> Option<Instant> {
        self.0.checked_add(Duration::from_micros(time.0)).filter(|_| time != Time::NEVER)
    }
}

/// Nanoseconds since 1970, by the wall clock.
#[expect(clippy::disallowed_methods, reason = "tokens that others can check too are good by the wall clock")]
pub(crate) fn unix_ns() -> i128 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}
