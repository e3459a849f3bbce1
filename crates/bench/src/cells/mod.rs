//! Scenarios beyond calls of one kind: what a member does while something large goes on, and its streams.
//!
//! Each runs on a fresh server of its own, and checks what it is told: every event, every pair, every lease is counted,
//! and a wrong number fails the cell.

mod compact;
mod failover;
mod hash;
mod large_range;
mod lease;
mod merge;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::compare::{Comparison, Scenario};
use crate::process::{Observed, own_cpu};
use crate::run::{Load, Outcome, Target};
use crate::schedule::Stop;
use crate::servers::Server;
use crate::workload::{Kind, Order, Shape, Workload};

/// Calls a second that go on beside what is measured: far from what loads a server.
const BESIDE_RATE: f64 = 1000.0;
/// Longest that what goes on beside them may take.
const BESIDE_MAX: Duration = Duration::from_secs(900);
/// Keys of the calls that go on beside; they are put before.
const BESIDE_KEYS: u64 = 1000;

/// One scenario on one fresh server.
pub(crate) struct Cell<'a> {
    pub comparison: &'a Comparison,
    pub server: &'a Server,
    /// What is measured: metrics, units last, in the order of the report.
    pub metrics: Vec<(String, f64)>,
}

/// Runs one scenario, and returns its metrics.
///
/// # Errors
/// When a call fails, or something is not as it must be.
pub(crate) fn run(
    comparison: &Comparison,
    scenario: Scenario,
    server: &mut Server,
) -> anyhow::Result<Vec<(String, f64)>> {
    if scenario == Scenario::Failover {
        return failover::run(comparison, server);
    }
    let mut cell = Cell { comparison, server, metrics: Vec::new() };
    match scenario {
        Scenario::Compact => compact::run(&mut cell)?,
        Scenario::Merge => merge::run(&mut cell)?,
        Scenario::Hash => hash::run(&mut cell)?,
        Scenario::LargeRange => large_range::run(&mut cell)?,
        Scenario::WatchFanout => watch::fan_out(&mut cell)?,
        Scenario::WatchLag => watch::lag(&mut cell)?,
        Scenario::Keepalive => lease::keepalive(&mut cell)?,
        Scenario::LeaseExpiry => lease::expiry(&mut cell)?,
        Scenario::Idle => idle(&mut cell)?,
        _ => unreachable!("{} is a load", scenario.name()),
    }
    Ok(cell.metrics)
}

/// What it costs to do nothing, from a second after the first put on.
fn idle(cell: &mut Cell<'_>) -> anyhow::Result<()> {
    std::thread::sleep(Duration::from_secs(1));
    let spent = cell.spent()?;
    std::thread::sleep(cell.comparison.duration);
    let (server_us, _) = spent.us()?;
    cell.push("server CPU, ms/s", server_us / 1e3 / cell.comparison.duration.as_secs_f64());
    Ok(())
}

/// CPU time that was spent since it was made.
pub(crate) struct Spent {
    server: Observed,
    server_before: Duration,
    own_before: Duration,
}

impl Spent {
    /// Server and own, microseconds.
    pub(crate) fn us(&self) -> anyhow::Result<(f64, f64)> {
        let server = self.server.cpu()?.saturating_sub(self.server_before);
        let own = own_cpu()?.saturating_sub(self.own_before);
        Ok((server.as_secs_f64() * 1e6, own.as_secs_f64() * 1e6))
    }
}

/// Calls at `BESIDE_RATE`: alone, and beside something.
pub(crate) struct Beside<T> {
    pub alone: Outcome,
    pub beside: Outcome,
    /// What came of it.
    pub result: T,
}

impl Cell<'_> {
    pub(crate) fn push(&mut self, metric: &str, value: f64) {
        self.metrics.push((metric.to_owned(), value));
    }

    /// So many, at the comparison's scale; at least one.
    pub(crate) fn scaled(&self, count: u64) -> u64 {
        ((count as f64 * self.comparison.scale).round() as u64).max(1)
    }

    pub(crate) fn target(&self) -> Target {
        Target { endpoints: vec![self.server.client()], ..self.comparison.target.clone() }
    }

    pub(crate) fn spent(&self) -> anyhow::Result<Spent> {
        let server = self.server.observed()?;
        let server_before = server.cpu()?;
        Ok(Spent { server, server_before, own_before: own_cpu()? })
    }

    /// Calls of `kind` go on, alone at first, and then, from `not_before` on, beside `action`, which runs on a thread
    /// of its own.
    ///
    /// # Errors
    /// When `action` fails or takes too long, or a call fails.
    pub(crate) fn beside<T: Send>(
        &self,
        kind: Kind,
        not_before: Instant,
        action: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<Beside<T>> {
        let shape = Shape { keys: BESIDE_KEYS, order: Order::Random(1), ..self.comparison.shape.clone() };
        let target = self.target();
        crate::measure::fill(&shape, &target)?;
        let mut load = Load::connect(&target, kind)?;
        let mut workload = Workload::new(kind, shape);
        let stop = |duration| Stop { requests: None, duration: Some(duration) };
        if let Some(warm_up) = self.comparison.warm_up {
            load.run(&mut workload, Some(BESIDE_RATE), warm_up)?;
        }
        let alone = load.run(&mut workload, Some(BESIDE_RATE), stop(self.comparison.duration))?;
        std::thread::sleep(not_before.saturating_duration_since(Instant::now()));
        let over = AtomicBool::new(false);
        let (beside, result) = std::thread::scope(|scope| {
            let over = &over;
            let action = scope.spawn(move || {
                let _over = SetAtEnd(over);
                action()
            });
            let beside = load.run_until(&mut workload, Some(BESIDE_RATE), stop(BESIDE_MAX), over);
            (beside, action.join().expect("its panic has ended us"))
        });
        let (beside, result) = (beside?, result?);
        for (outcome, when) in [(&alone, "alone"), (&beside, "beside")] {
            let all = outcome.hits == outcome.answered && outcome.not_sent == 0 && outcome.errors.is_empty();
            ensure!(
                all && outcome.answered > 0,
                "calls {when}: {} answered, {} of them with what was asked, {} never sent, errors {:?}",
                outcome.answered,
                outcome.hits,
                outcome.not_sent,
                outcome.errors
            );
        }
        ensure!(beside.elapsed < BESIDE_MAX, "interrupted: not over after {BESIDE_MAX:?}");
        Ok(Beside { alone, beside, result })
    }

    /// The latencies of calls alone and beside something: `what`, as it is called in the report.
    pub(crate) fn push_beside<T>(&mut self, what: &str, during: &str, beside: &Beside<T>) {
        let p99_us = |outcome: &Outcome| outcome.latencies_ns.value_at_quantile(0.99) as f64 / 1e3;
        let longest_ms = |outcome: &Outcome| outcome.latencies_ns.max() as f64 / 1e6;
        let (alone, busy) = (&beside.alone, &beside.beside);
        self.push(&format!("{what} p99 idle, us"), p99_us(alone));
        self.push(&format!("{what} p99 {during}, us"), p99_us(busy));
        self.push(&format!("{what} p99 {during} / idle"), p99_us(busy) / p99_us(alone));
        self.push(&format!("{what} longest idle, ms"), longest_ms(alone));
        self.push(&format!("{what} longest {during}, ms"), longest_ms(busy));
    }

    /// The most that was resident since `reset_peak`, MiB.
    pub(crate) fn peak_mib(&self) -> anyhow::Result<f64> {
        Ok(self.server.observed()?.memory()?.peak_bytes as f64 / f64::from(1 << 20))
    }

    /// What is resident now, bytes.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        Ok(self.server.observed().context("after the run")?.memory()?.resident_bytes)
    }
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
