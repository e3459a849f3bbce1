//! When calls are due. Time is nanoseconds since the run's start, handed in.
//!
//! In an open loop call `i` is meant for `i / rate`, whatever the server does (above `BURSTS_PER_S_MAX` calls a second
//! a few of them for one moment); its latency counts from there, so that
//! a stall is charged to every call that it delayed, not to the few that were in flight (coordinated omission). What
//! is late waits as a mere number: a backlog costs no memory.

use std::time::Duration;

/// Nanoseconds in a second.
const SECOND_NS: f64 = 1e9;

/// Moments a second for which calls are meant. Waking for each call would cost more than the calls do, on a machine
/// that the server shares, so quicker rates offer small bursts: at 10,000 a second five calls every half millisecond.
const BURSTS_PER_S_MAX: f64 = 2000.0;

/// When a run stops issuing: at whichever of the two comes first.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// Calls to issue.
    pub requests: Option<u64>,
    /// How long to issue calls.
    pub duration: Option<Duration>,
}

/// Hands out calls as they fall due.
#[derive(Debug)]
pub struct Schedule {
    offered: Option<Offered>,
    requests_max: u64,
    end_ns: u64,
    issued: u64,
}

/// What an open loop offers.
#[derive(Clone, Copy, Debug)]
struct Offered {
    /// Calls that are meant for one moment.
    burst: u64,
    /// From one such moment to the next.
    period_ns: f64,
}

impl Schedule {
    /// An open loop with `rate` calls a second, or, with `None`, a closed loop in which calls are always due.
    ///
    /// # Panics
    /// When neither bound of `stop` is given, or the rate is not above zero.
    pub fn new(rate: Option<f64>, stop: Stop) -> Schedule {
        assert!(stop.requests.is_some() || stop.duration.is_some(), "a run without end");
        assert!(rate.is_none_or(|rate| rate > 0.0), "a rate of nothing");
        let offered = rate.map(|rate| {
            let burst = (rate / BURSTS_PER_S_MAX).ceil() as u64;
            Offered { burst, period_ns: burst as f64 * SECOND_NS / rate }
        });
        let end_ns = stop.duration.map_or(u64::MAX, |duration| duration.as_nanos() as u64);
        Schedule { offered, requests_max: stop.requests.unwrap_or(u64::MAX), end_ns, issued: 0 }
    }

    /// The next call's moment, from which its latency counts, if it is due at `now_ns`; it is then issued.
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due_ns = self.next_due(now_ns)?;
        (due_ns <= now_ns).then(|| {
            self.issued += 1;
            due_ns
        })
    }

    /// The moment of the next call; `None` when no more will come. In an open loop it may be long past.
    pub fn next_due(&self, now_ns: u64) -> Option<u64> {
        let due_ns = match self.offered {
            Some(offered) => ((self.issued / offered.burst) as f64 * offered.period_ns) as u64,
            None => now_ns,
        };
        (self.issued < self.requests_max && due_ns < self.end_ns).then_some(due_ns)
    }

    /// Nothing falls due any more from `now_ns` on.
    pub fn end(&mut self, now_ns: u64) {
        self.end_ns = self.end_ns.min(now_ns);
    }

    /// Calls that were due by `now_ns`, or by the end, and were not issued; zero in a closed loop.
    pub fn backlog(&self, now_ns: u64) -> u64 {
        let Some(offered) = self.offered else { return 0 };
        let until_ns = now_ns.min(self.end_ns);
        let bursts = (until_ns as f64 / offered.period_ns).ceil() as u64;
        (bursts * offered.burst).min(self.requests_max).saturating_sub(self.issued)
    }

    /// Calls issued so far.
    pub fn issued(&self) -> u64 {
        self.issued
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn open(requests: Option<u64>, duration_ms: Option<u64>) -> Schedule {
        Schedule::new(Some(1000.0), Stop { requests, duration: duration_ms.map(Duration::from_millis) })
    }

    #[test]
    fn a_stall_is_charged_to_every_call_it_delayed() {
        let mut schedule = open(None, Some(10));
        assert_eq!(schedule.take(0), Some(0));
        assert_eq!(schedule.take(0), None, "the second is due after a millisecond");
        // The caller could not send until 6.5 ms: six calls are late, each from its own moment on.
        let stalled_until = 13 * MS / 2;
        assert_eq!(schedule.backlog(stalled_until), 6);
        let late: Vec<u64> = std::iter::from_fn(|| schedule.take(stalled_until)).collect();
        assert_eq!(late, [MS, 2 * MS, 3 * MS, 4 * MS, 5 * MS, 6 * MS]);
        assert_eq!(schedule.backlog(stalled_until), 0);
        assert_eq!(schedule.next_due(stalled_until), Some(7 * MS));
        // What was due before the end is still issued after it, and nothing more.
        let rest: Vec<u64> = std::iter::from_fn(|| schedule.take(99 * MS)).collect();
        assert_eq!(rest, [7 * MS, 8 * MS, 9 * MS]);
        assert_eq!((schedule.next_due(99 * MS), schedule.issued()), (None, 10));
    }

    #[test]
    fn what_was_never_issued_is_counted() {
        let mut schedule = open(None, Some(10));
        schedule.take(0);
        assert_eq!(schedule.backlog(99 * MS), 9);
        let mut schedule = open(Some(4), Some(10));
        schedule.take(0);
        assert_eq!(schedule.backlog(99 * MS), 3);
    }

    #[test]
    fn what_was_due_before_an_early_end_is_still_issued() {
        let mut schedule = open(None, Some(100));
        schedule.take(0);
        schedule.end(3 * MS);
        schedule.end(50 * MS);
        let rest: Vec<u64> = std::iter::from_fn(|| schedule.take(60 * MS)).collect();
        assert_eq!((rest, schedule.backlog(60 * MS)), (vec![MS, 2 * MS], 0));
    }

    #[test]
    fn a_quick_rate_offers_small_bursts() {
        let mut schedule =
            Schedule::new(Some(10_000.0), Stop { requests: None, duration: Some(Duration::from_millis(2)) });
        let mut due = Vec::new();
        for now in [0, MS / 2 - 1, MS / 2, 9 * MS] {
            due.extend(std::iter::from_fn(|| schedule.take(now)).map(|due| (now, due)));
        }
        let expected = [(0, 0), (MS / 2, MS / 2), (9 * MS, MS), (9 * MS, 3 * MS / 2)];
        assert_eq!(due, expected.map(|call| [call; 5]).concat());
        assert_eq!(schedule.issued(), 20, "ten a millisecond");
    }

    #[test]
    fn a_closed_loop_is_always_due_until_its_end() {
        let mut schedule = Schedule::new(None, Stop { requests: Some(2), duration: None });
        assert_eq!((schedule.take(5), schedule.take(9), schedule.take(10)), (Some(5), Some(9), None));
        let mut schedule =
            Schedule::new(None, Stop { requests: None, duration: Some(Duration::from_millis(1)) });
        assert_eq!((schedule.take(MS - 1), schedule.take(MS)), (Some(MS - 1), None));
    }
}
