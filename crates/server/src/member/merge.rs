//! The thread that merges segments of the revision log. It works in small steps and has a budget of bytes a second, so
//! that neither clients nor the disk feel it; what it may spend depends on whether anybody else is busy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use node::{MergeStep, Merger};

use super::mailbox::Receiver;
use crate::grpc::SharedStatus;
use crate::log;
use crate::metrics::{Metrics, nanoseconds};

/// Bytes read and written a second while entries are applied.
const BUSY_BYTES_PER_SECOND: u64 = 24 << 20;
/// Bytes read and written a second while nothing happens.
const IDLE_BYTES_PER_SECOND: u64 = 128 << 20;
/// Bytes read and written a second where the files outgrow what lives. A quarter of it is gained at least (a merge gains two
/// fifths of what it reads, and writes the others): who has to wait is let in as much somewhere on the way to the bound.
/// More would be felt by who writes: the disk is shared.
const URGENT_BYTES_PER_SECOND: u64 = 96 << 20;
/// How often it looks whether anything is worth a merge, or anybody is busy.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How soon it tries again what has to wait for something else.
const WAIT_INTERVAL: Duration = Duration::from_millis(20);
/// Shorter pauses are saved up: a sleep is not exact.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// What the thread is told.
pub enum MergeMail {
    /// A compaction is done: something may be worth it now.
    Compacted,
    /// Somebody asks for a merge of everything that is worth it.
    Asked,
}

/// Merges segments.
pub(super) struct MergeThread {
    pub merger: Merger,
    pub mail: Receiver<MergeMail>,
    pub status: Arc<SharedStatus>,
    /// What it may spend now.
    pub budget: Budget,
    /// When a client first asked for what is not done yet, and how often that was asked for since: one merge is for all.
    pub asked: Option<(Instant, u64)>,
    pub metrics: Arc<Metrics>,
}

/// How many bytes a second may be spent.
pub(super) struct Budget {
    looked_at: Instant,
    applied: u64,
    bytes_per_second: u64,
    /// How long what was spent takes at that rate, and was not slept for.
    owed: Duration,
}

impl Budget {
    pub(super) fn new() -> Self {
        Budget {
            looked_at: Instant::now(),
            applied: 0,
            bytes_per_second: BUSY_BYTES_PER_SECOND,
            owed: Duration::ZERO,
        }
    }

    /// Looks whether anybody was busy since the last look.
    fn look(&mut self, now: Instant, applied: u64, is_urgent: bool) {
        if now.duration_since(self.looked_at) < LOOK_INTERVAL {
            return;
        }
        self.looked_at = now;
        let is_busy = std::mem::replace(&mut self.applied, applied) != applied;
        self.bytes_per_second = match (is_urgent, is_busy) {
            (true, _) => URGENT_BYTES_PER_SECOND,
            (false, true) => BUSY_BYTES_PER_SECOND,
            (false, false) => IDLE_BYTES_PER_SECOND,
        };
    }

    /// So many bytes were spent: the pause that is due now.
    fn spend(&mut self, bytes: u64) -> Duration {
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_second);
        self.owed += Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        if self.owed < PAUSE_MIN { Duration::ZERO } else { std::mem::take(&mut self.owed) }
    }
}

impl MergeThread {
    /// Works until the queue is closed. A merge that is under way then is begun anew by the next start.
    pub(super) fn run(mut self) -> Result<(), node::Error> {
        let mut mail = Vec::new();
        let mut next = Instant::now() + LOOK_INTERVAL;
        let mut begun = Instant::now();
        let mut is_idle = true;
        while self.mail.receive(&mut mail, Some(next)) {
            for item in mail.drain(..) {
                if let MergeMail::Asked = item {
                    self.merger.ask();
                    self.asked.get_or_insert_with(|| (Instant::now(), 0)).1 += 1;
                    self.metrics.member.defrags_in_flight.set(1);
                }
                if is_idle {
                    next = Instant::now();
                }
            }
            let now = Instant::now();
            if now < next {
                continue;
            }
            self.budget.look(now, self.status.applied(), self.merger.is_urgent());
            if std::mem::replace(&mut is_idle, false) {
                begun = now;
            }
            let pause = match self.merger.step()? {
                MergeStep::Idle => {
                    is_idle = true;
                    self.answer_asked();
                    LOOK_INTERVAL
                }
                MergeStep::Working(bytes) => self.budget.spend(bytes),
                MergeStep::Waiting => WAIT_INTERVAL,
                MergeStep::Finished(merged) => {
                    log::info!(
                        "merged segments of the revision log",
                        "segments" => merged.segments,
                        "bytes-before" => merged.source_bytes,
                        "bytes-after" => merged.merged_bytes,
                        "took" => format!("{:?}", begun.elapsed()),
                    );
                    begun = Instant::now();
                    Duration::ZERO
                }
                MergeStep::Damaged(error) => {
                    log::error!(
                        "a segment of the revision log cannot be read: nothing is merged any more",
                        "error" => error.to_string(),
                    );
                    self.answer_asked();
                    LOOK_INTERVAL
                }
            };
            next = Instant::now() + pause;
        }
        self.metrics.member.defrags_in_flight.set(0);
        Ok(())
    }

    /// Nothing is left of what clients have asked for.
    fn answer_asked(&mut self) {
        if let Some((first, times)) = self.asked.take() {
            self.metrics.member.defrags.observe_alone(nanoseconds(first.elapsed()), times);
        }
        self.metrics.member.defrags_in_flight.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_kept_and_yields_to_others() {
        let mut budget = Budget::new();
        let start = budget.looked_at;
        let mut now = start;
        let mut second = |budget: &mut Budget, applied, is_urgent| {
            now += LOOK_INTERVAL;
            budget.look(now, applied, is_urgent);
            budget.bytes_per_second
        };
        assert_eq!(second(&mut budget, 5, false), BUSY_BYTES_PER_SECOND);
        assert_eq!(second(&mut budget, 5, false), IDLE_BYTES_PER_SECOND);
        let pauses: Duration = (0..1024).map(|_| budget.spend(IDLE_BYTES_PER_SECOND / 1024)).sum();
        assert!(pauses > Duration::from_millis(990) && pauses <= Duration::from_secs(1), "{pauses:?}");
        assert_eq!(second(&mut budget, 6, false), BUSY_BYTES_PER_SECOND);
        assert_eq!(second(&mut budget, 7, true), URGENT_BYTES_PER_SECOND);
    }
}
