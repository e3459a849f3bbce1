//! Compaction without being asked: by time, or by number of revisions (etcd: v3compactor).
//!
//! Runs on every member and counts on every one, so that a new leader knows the past; only the leader proposes.

use std::collections::VecDeque;

use raft::Time;

const HOUR_US: u64 = 3_600_000_000;
/// How often a period's revision is noted in the time after which it is compacted.
const NOTES_PER_STEP: u64 = 10;
/// How often revisions are counted.
const REVISION_INTERVAL_US: u64 = 300_000_000;

/// `--auto-compaction-mode` and `--auto-compaction-retention`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoCompaction {
    /// None.
    #[default]
    Off,
    /// Keep what was there this long ago.
    Periodic {
        /// Microseconds, not 0.
        period_us: u64,
    },
    /// Keep the last revisions.
    Revision {
        /// How many.
        retention: i64,
    },
}

/// Decides when to compact, and at what revision.
#[derive(Debug)]
pub(crate) struct AutoCompactor {
    mode: AutoCompaction,
    /// When it looks next.
    next_at: Time,
    /// Periodic: the revisions at the last looks, the oldest first; that one is a period old once there are enough.
    noted: VecDeque<i64>,
    /// The revision of the last compaction that came through.
    last_revision: i64,
    last_success: Time,
    /// How long after the last success the next may be: at first a whole period.
    wait_us: u64,
}

impl AutoCompactor {
    pub(crate) fn new(mode: AutoCompaction, now: Time, revision: i64) -> Self {
        let mut compactor = AutoCompactor {
            mode,
            next_at: Time::NEVER,
            noted: VecDeque::new(),
            last_revision: 0,
            last_success: now,
            wait_us: 0,
        };
        if let AutoCompaction::Periodic { period_us } = mode {
            compactor.wait_us = period_us;
            compactor.noted.push_back(revision);
        }
        compactor.next_at = compactor.look_after(now);
        compactor
    }

    /// When [`AutoCompactor::step`] is due.
    pub(crate) fn deadline(&self) -> Time {
        self.next_at
    }

    fn look_after(&self, now: Time) -> Time {
        match self.mode {
            AutoCompaction::Off => Time::NEVER,
            AutoCompaction::Periodic { period_us } => Time(now.0.saturating_add(note_interval_us(period_us))),
            AutoCompaction::Revision { .. } => Time(now.0.saturating_add(REVISION_INTERVAL_US)),
        }
    }

    /// Looks, if that is due: the revision to propose a compaction at, which the caller reports the end of.
    pub(crate) fn step(&mut self, now: Time, revision: i64, leads: bool) -> Option<i64> {
        if now < self.next_at {
            return None;
        }
        self.next_at = self.look_after(now);
        let due = match self.mode {
            AutoCompaction::Off => None,
            AutoCompaction::Periodic { period_us } => {
                let oldest = self.noted.front().copied();
                self.noted.push_back(revision);
                if self.noted.len() as u64 > period_us / note_interval_us(period_us) + 1 {
                    self.noted.pop_front();
                }
                oldest.filter(|_| now.0 - self.last_success.0 >= self.wait_us)
            }
            AutoCompaction::Revision { retention } => Some(revision - retention).filter(|due| *due > 0),
        };
        due.filter(|due| leads && *due != self.last_revision)
    }

    /// The proposal of a compaction at `revision` came through, or was not needed any more.
    pub(crate) fn succeeded(&mut self, now: Time, revision: i64) {
        self.last_revision = revision;
        self.last_success = now;
        if let AutoCompaction::Periodic { period_us } = self.mode {
            self.wait_us = period_us.min(HOUR_US);
        }
    }
}

/// How far apart revisions are noted: a tenth of a period, or of an hour if that is shorter.
fn note_interval_us(period_us: u64) -> u64 {
    (period_us.min(HOUR_US) / NOTES_PER_STEP).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: u64 = 60_000_000;

    /// Runs for `minutes` from revision 1 on, one revision a minute; says when compactions were due, in minutes, and at
    /// what revision.
    fn run(mode: AutoCompaction, minutes: u64, leads: impl Fn(u64) -> bool) -> Vec<(u64, i64)> {
        let mut compactor = AutoCompactor::new(mode, Time(0), 1);
        let mut due = Vec::new();
        while compactor.deadline() <= Time(minutes * MINUTE_US) {
            let now = compactor.deadline();
            let minute = now.0 / MINUTE_US;
            if let Some(revision) = compactor.step(now, minute as i64 + 1, leads(minute)) {
                due.push((minute, revision));
                compactor.succeeded(now, revision);
            }
        }
        due
    }

    /// etcd's own example: nothing in the first hour, then each hour what was an hour old when a revision was noted last.
    #[test]
    fn a_period_of_an_hour() {
        let mode = AutoCompaction::Periodic { period_us: 60 * MINUTE_US };
        assert_eq!(run(mode, 200, |_| true), [(60, 1), (120, 55), (180, 115)]);
    }

    #[test]
    fn a_long_period_is_looked_at_each_hour() {
        let mode = AutoCompaction::Periodic { period_us: 24 * 60 * MINUTE_US };
        let due = run(mode, 27 * 60, |_| true);
        assert_eq!(due, [(1440, 1), (1500, 55), (1560, 115), (1620, 175)]);
    }

    #[test]
    fn a_short_period_is_looked_at_each_period() {
        let mode = AutoCompaction::Periodic { period_us: 10 * MINUTE_US };
        assert_eq!(run(mode, 35, |_| true), [(10, 1), (20, 10), (30, 20)]);
    }

    /// What was noted while another led counts.
    #[test]
    fn a_new_leader_knows_the_past() {
        let mode = AutoCompaction::Periodic { period_us: 60 * MINUTE_US };
        assert_eq!(run(mode, 150, |minute| minute > 100), [(102, 37)]);
    }

    #[test]
    fn a_number_of_revisions() {
        let mode = AutoCompaction::Revision { retention: 7 };
        assert_eq!(run(mode, 20, |_| true), [(10, 4), (15, 9), (20, 14)]);
        assert_eq!(run(AutoCompaction::Off, 1000, |_| true), []);
    }

    /// As it is looked at what is there now, a new leader misses nothing.
    #[test]
    fn a_number_of_revisions_through_changes_of_leader() {
        let mode = AutoCompaction::Revision { retention: 7 };
        let leads = |minute| !(12..=27).contains(&minute);
        assert_eq!(run(mode, 40, leads), [(10, 4), (30, 24), (35, 29), (40, 34)]);
    }

    #[test]
    fn what_failed_is_tried_again_and_what_stands_still_is_left_alone() {
        let mut compactor =
            AutoCompactor::new(AutoCompaction::Periodic { period_us: 10 * MINUTE_US }, Time(0), 5);
        let mut due = Vec::new();
        for minute in 1..=22 {
            if let Some(revision) = compactor.step(Time(minute * MINUTE_US), 5, true) {
                due.push((minute, revision));
                if minute == 12 {
                    compactor.succeeded(Time(minute * MINUTE_US), revision);
                }
            }
        }
        assert_eq!(due, [(10, 5), (11, 5), (12, 5)]);
    }
}
