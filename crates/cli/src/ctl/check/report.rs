//! What came of many writes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Most texts of errors that are counted by themselves.
const TEXTS_MAX: usize = 100;

/// Gathers what came of writes, in a bounded space.
#[derive(Debug)]
pub(super) struct Report {
    begun: Instant,
    count: u64,
    slowest_s: f64,
    mean_s: f64,
    /// Sum of the squares of what lies between each duration and the mean.
    squares: f64,
    errors: BTreeMap<String, u64>,
}

/// What it comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    /// Writes a second that succeeded.
    pub per_s: f64,
    /// Of those that succeeded; 0 if none has.
    pub slowest_s: f64,
    /// Of those that succeeded; not a number if none has.
    pub deviation_s: f64,
    /// How often each text.
    pub errors: BTreeMap<String, u64>,
}

impl Report {
    /// Begins now.
    pub(super) fn new() -> Report {
        let begun = Instant::now();
        Report { begun, count: 0, slowest_s: 0.0, mean_s: 0.0, squares: 0.0, errors: BTreeMap::new() }
    }

    /// A write that took so long.
    pub(super) fn add(&mut self, took: Duration) {
        let took_s = took.as_secs_f64();
        self.count += 1;
        self.slowest_s = self.slowest_s.max(took_s);
        let from_mean = took_s - self.mean_s;
        self.mean_s += from_mean / self.count as f64;
        self.squares += from_mean * (took_s - self.mean_s);
    }

    /// A write that failed.
    pub(super) fn add_error(&mut self, text: String) {
        let text = if self.errors.len() < TEXTS_MAX || self.errors.contains_key(&text) {
            text
        } else {
            "others".to_owned()
        };
        *self.errors.entry(text).or_default() += 1;
    }

    /// Writes so far, the failed ones too.
    pub(super) fn done(&self) -> u64 {
        self.count + self.errors.values().sum::<u64>()
    }

    /// Ends now.
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome_after(self.begun.elapsed())
    }

    fn outcome_after(&self, took: Duration) -> Outcome {
        Outcome {
            per_s: self.count as f64 / took.as_secs_f64(),
            slowest_s: self.slowest_s,
            deviation_s: (self.squares / self.count as f64).sqrt(),
            errors: self.errors.clone(),
        }
    }
}

impl Outcome {
    /// The lines that tell of errors, none if there are none.
    pub(super) fn error_lines(&self) -> Vec<String> {
        if self.errors.is_empty() {
            return Vec::new();
        }
        let counted = self.errors.iter().map(|(text, count)| format!("FAIL: ERROR({text}) -> {count}"));
        ["FAIL: too many errors".to_owned()].into_iter().chain(counted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_come_to_their_deviation() {
        let mut report = Report::new();
        for ms in [2, 4, 4, 4, 5, 5, 7, 9] {
            report.add(Duration::from_millis(ms));
        }
        report.add_error("x".to_owned());
        let outcome = report.outcome_after(Duration::from_secs(4));
        assert_eq!((report.done(), outcome.per_s, outcome.slowest_s), (9, 2.0, 0.009));
        assert!((outcome.deviation_s - 0.002).abs() < 1e-12, "{}", outcome.deviation_s);
        assert_eq!(outcome.error_lines(), ["FAIL: too many errors", "FAIL: ERROR(x) -> 1"]);
    }

    #[test]
    fn errors_of_any_number_of_texts_are_bounded() {
        let mut report = Report::new();
        for text in 0..3 * TEXTS_MAX {
            report.add_error(text.to_string());
        }
        let outcome = report.outcome_after(Duration::from_secs(1));
        assert_eq!(outcome.errors.len(), TEXTS_MAX + 1);
        assert_eq!(outcome.errors["others"], 2 * TEXTS_MAX as u64);
        assert!(outcome.deviation_s.is_nan() && outcome.per_s == 0.0);
    }
}
