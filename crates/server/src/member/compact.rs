//! The thread for the background work of compactions. It has time: between two steps it pauses, so that neither
//! readers nor the disk feel it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use store::{Compaction, CompactionStep, Compactor, FinishedCompaction};
use tokio::sync::watch;

use super::mailbox::{Receiver, Sender};
use super::merge::MergeMail;
use crate::clock::unix_ns;
use crate::grpc::hashes::{CheckCounters, HashBudget};
use crate::log;
use crate::metrics::Metrics;

/// How soon it is tried again to drop what a reader still needs.
const WAIT_INTERVAL: Duration = Duration::from_millis(5);

/// Does what compactions leave to be done.
pub(super) struct CompactThread {
    pub compactor: Compactor,
    pub mail: Receiver<Compaction>,
    /// The last compaction whose work is done; whoever asked for a physical one waits for it.
    pub finished: watch::Sender<i64>,
    /// What was dropped may be worth a merge.
    pub merges: Sender<MergeMail>,
    /// The pause between two steps (`--compaction-sleep-interval`).
    pub sleep_interval: Duration,
    /// What hashes may read.
    pub budget: Arc<HashBudget>,
    /// Where hashes that are given up are counted.
    pub counters: Arc<CheckCounters>,
    pub metrics: Arc<Metrics>,
}

impl CompactThread {
    /// Works until the queue is closed. What is unfinished then is taken up by the next start.
    pub(super) fn run(mut self) -> Result<(), node::Error> {
        let mut mail = Vec::new();
        let mut next = (!self.compactor.is_idle()).then(Instant::now);
        let mut begun = Instant::now();
        while self.mail.receive(&mut mail, next) {
            if next.is_none() {
                begun = Instant::now();
            }
            for compaction in mail.drain(..) {
                if !self.compactor.push(compaction) {
                    self.counters.hashes_given_up.fetch_add(1, Ordering::Relaxed);
                    log::warn!(
                        "compactions come faster than they are worked on; some are joined, without hashes",
                        "compact-revision" => compaction.revision,
                    );
                }
            }
            if next.is_some_and(|at| Instant::now() < at) {
                continue;
            }
            let counts = &self.metrics.member.compactions;
            let step_begun = Instant::now();
            let step = self.compactor.step();
            let took = step_begun.elapsed();
            let pause = match step {
                Ok(CompactionStep::Idle) => {
                    next = None;
                    continue;
                }
                Ok(CompactionStep::Working) => {
                    counts.index_pauses.observe_time(took);
                    counts.pauses.observe_time(took);
                    self.sleep_interval
                }
                Ok(CompactionStep::Hashed(bytes)) => {
                    counts.pauses.observe_time(took);
                    self.sleep_interval.max(self.budget.spend(bytes, Instant::now()))
                }
                Ok(CompactionStep::HashGivenUp(revision)) => {
                    self.counters.hashes_given_up.fetch_add(1, Ordering::Relaxed);
                    log::warn!(
                        "gave up the hash of a compaction: the next compaction came before it was made; members are not \
                         compared at this one",
                        "compact-revision" => revision,
                    );
                    Duration::ZERO
                }
                Ok(CompactionStep::Waiting) => WAIT_INTERVAL,
                Ok(CompactionStep::Finished(finished)) => {
                    counts.index_pauses.observe_time(took);
                    counts.pauses.observe_time(took);
                    counts.totals.observe_time(begun.elapsed());
                    counts.keys.add(finished.dropped);
                    counts.last.set(u64::try_from(unix_ns() / 1_000_000_000).unwrap_or(0));
                    describe(finished, begun.elapsed());
                    begun = Instant::now();
                    self.finished.send_replace(finished.revision);
                    // One that is refused would say what has been said.
                    let _ = self.merges.try_send(MergeMail::Compacted, 1);
                    Duration::ZERO
                }
                Err(error) => {
                    log::warn!("the hash of a compaction is given up", "error" => error.to_string());
                    Duration::ZERO
                }
            };
            next = Some(Instant::now() + pause);
        }
        Ok(())
    }
}

fn describe(finished: FinishedCompaction, took: Duration) {
    let revision = finished.revision;
    match finished.hash {
        Some(hash) => log::info!(
            "finished scheduled compaction",
            "compact-revision" => revision,
            "took" => format!("{took:?}"),
            "number-of-keys-compacted" => finished.dropped,
            "hash" => hash.hash,
        ),
        None => log::info!(
            "finished scheduled compaction",
            "compact-revision" => revision,
            "took" => format!("{took:?}"),
            "number-of-keys-compacted" => finished.dropped,
        ),
    }
}
