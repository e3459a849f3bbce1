//! What is counted with: plain numbers that any thread may read at any time, and nobody waits for.
//!
//! A number that one thread alone changes is changed without a locked instruction: the methods with `alone` in their names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Microseconds and milliseconds in nanoseconds, the unit of [`Durations`].
pub const US: u64 = 1_000;
/// See [`US`].
pub const MS: u64 = 1_000 * US;
/// What durations are divided by to be seconds, and milliseconds.
pub const SECONDS: f64 = 1e9;
/// See [`SECONDS`].
pub const MILLISECONDS: f64 = 1e6;

/// A number that is counted, or measured.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts less, of what is there now.
    pub fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    /// Replaces the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// As [`Counter::add`], where no other thread changes it.
    #[inline]
    pub fn add_alone(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    /// As [`Counter::sub`], where no other thread changes it.
    #[inline]
    pub fn sub_alone(&self, less: u64) {
        self.set(self.get().wrapping_sub(less));
    }
}

/// How many values were no greater than each of some bounds, and their sum.
#[derive(Debug)]
struct Buckets<const N: usize> {
    counts: [Counter; N],
    /// Greater than the last bound.
    over: Counter,
    sum: Counter,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Buckets {
            counts: [const { Counter(AtomicU64::new(0)) }; N],
            over: Counter::default(),
            sum: Counter::default(),
        }
    }
}

impl<const N: usize> Buckets<N> {
    fn place(&self, place: usize) -> &Counter {
        self.counts.get(place).unwrap_or(&self.over)
    }

    fn read(&self, bound: impl Fn(usize) -> u64, per: f64) -> Reading {
        let mut below = 0;
        let buckets = self.counts.iter().enumerate().map(|(place, count)| {
            below += count.get();
            (bound(place) as f64 / per, below)
        });
        let buckets = buckets.collect();
        Reading { buckets, count: below + self.over.get(), sum: self.sum.get() as f64 / per }
    }
}

/// Values in `N` buckets: the first up to `FIRST`, each of the others up to twice the bound of the one before it.
#[derive(Debug, Default)]
pub struct Histogram<const FIRST: u64, const N: usize>(Buckets<N>);

/// A histogram of durations, in nanoseconds.
pub type Durations<const FIRST_NS: u64, const N: usize> = Histogram<FIRST_NS, N>;

impl<const FIRST: u64, const N: usize> Histogram<FIRST, N> {
    fn place(value: u64) -> usize {
        let firsts = value.saturating_sub(1) / FIRST;
        (u64::BITS - firsts.leading_zeros()) as usize
    }

    /// Counts a value.
    pub fn observe(&self, value: u64) {
        self.0.place(Self::place(value)).add(1);
        self.0.sum.add(value);
    }

    /// Counts a duration, in nanoseconds.
    pub fn observe_time(&self, took: Duration) {
        self.observe(nanoseconds(took));
    }

    /// Counts a value so many times, where no other thread does.
    #[inline]
    pub fn observe_alone(&self, value: u64, times: u64) {
        self.0.place(Self::place(value)).add_alone(times);
        self.0.sum.add_alone(value.wrapping_mul(times));
    }

    /// What was counted, with everything divided by `per`.
    pub fn read(&self, per: f64) -> Reading {
        self.0.read(|place| FIRST << place, per)
    }
}

/// A histogram of durations with the bounds that Prometheus' client library takes where none are given.
#[derive(Debug, Default)]
pub struct CallDurations(Buckets<11>);

/// In milliseconds.
const CALL_BOUNDS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];

impl CallDurations {
    /// Counts a duration, where no other thread does.
    pub fn observe_alone(&self, took: Duration) {
        let ns = nanoseconds(took);
        self.0.place(CALL_BOUNDS.partition_point(|bound| bound * MS < ns)).add_alone(1);
        self.0.sum.add_alone(ns);
    }

    /// What was counted, in seconds.
    pub fn read(&self) -> Reading {
        self.0.read(|place| CALL_BOUNDS[place] * MS, SECONDS)
    }
}

/// A duration in nanoseconds.
pub fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// What a histogram had at a moment; of several threads', what they had together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Each bound, and how many values were no greater.
    pub buckets: Vec<(f64, u64)>,
    /// How many values there were.
    pub count: u64,
    /// What they are together.
    pub sum: f64,
}

impl Reading {
    /// Adds those of another histogram with the same bounds.
    #[must_use]
    pub fn and(mut self, other: Reading) -> Reading {
        if self.buckets.is_empty() {
            return other;
        }
        for (bucket, (_, more)) in self.buckets.iter_mut().zip(other.buckets) {
            bucket.1 += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_buckets_that_are_no_smaller() {
        let durations = Durations::<{ 100 * US }, 4>::default();
        for us in [0, 100, 101, 200, 201, 800, 801] {
            durations.observe_time(Duration::from_micros(us));
        }
        let read = durations.read(SECONDS);
        assert_eq!(read.buckets, [(0.0001, 2), (0.0002, 4), (0.0004, 5), (0.0008, 6)]);
        assert_eq!((read.count, read.sum), (7, 0.002_203));
    }

    #[test]
    fn every_value_has_the_place_that_its_bounds_say() {
        for value in (0..5_000).chain([u64::MAX / 2, u64::MAX]) {
            let place = (0..24).find(|place| value <= 3 << place);
            let found = Histogram::<3, 24>::place(value);
            assert_eq!(place.unwrap_or(24), found.min(24), "{value}");
        }
    }

    #[test]
    fn times_and_threads_add_up() {
        let (one, other) = (Histogram::<1, 2>::default(), Histogram::<1, 2>::default());
        one.observe_alone(2, 3);
        other.observe(5);
        let both = Reading::default().and(one.read(1.0)).and(other.read(1.0));
        assert_eq!(both, Reading { buckets: vec![(1.0, 0), (2.0, 3)], count: 4, sum: 11.0 });
    }

    #[test]
    fn the_bounds_of_calls_are_those_of_the_library() {
        let calls = CallDurations::default();
        for ms in [5, 6, 10_000, 10_001] {
            calls.observe_alone(Duration::from_millis(ms));
        }
        let read = calls.read();
        let bounds: Vec<f64> = read.buckets.iter().map(|(bound, _)| *bound).collect();
        assert_eq!(bounds, [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        assert_eq!((read.buckets[0].1, read.buckets[1].1, read.buckets[10].1, read.count), (1, 2, 3, 4));
    }
}
