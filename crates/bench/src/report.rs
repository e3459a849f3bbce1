//! The figures of one run, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::process::Memory;
use crate::run::Outcome;

/// One run in figures; units are in the names.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Calls answered without an error.
    pub answered: u64,
    /// Of these, the ones whose answer held what was asked for.
    pub hits: u64,
    /// Failed calls by text.
    pub errors: BTreeMap<String, u64>,
    /// Due in the open loop, never sent.
    pub not_sent: u64,
    /// From the first call to the last answer.
    pub elapsed_s: f64,
    /// Answered calls a second.
    pub ops_per_s: f64,
    /// Median latency.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// The slowest call.
    pub max_us: f64,
    /// Our own user and system time per answered call.
    pub own_cpu_us_per_op: f64,
    /// What the server's process cost, where it is known.
    pub server: Option<ServerFigures>,
}

/// What the server's process cost.
#[derive(Clone, Debug, Serialize)]
pub struct ServerFigures {
    /// User and system time per answered call.
    pub cpu_us_per_op: f64,
    /// Resident memory after the run.
    pub rss_end_mib: f64,
    /// The most that was resident: of its life, in `compare` of the run.
    pub rss_peak_mib: f64,
}

/// CPU time and memory of a server over a run.
#[derive(Clone, Copy, Debug)]
pub struct ServerCost {
    /// User and system time.
    pub cpu: Duration,
    /// At the end.
    pub memory: Memory,
}

impl Figures {
    /// The figures of `outcome`, which cost us `own_cpu`.
    pub fn new(outcome: &Outcome, own_cpu: Duration, server: Option<ServerCost>) -> Figures {
        let answered = outcome.answered;
        let per_op = |cpu: Duration| cpu.as_secs_f64() * 1e6 / answered.max(1) as f64;
        let quantile = |q| outcome.latencies_ns.value_at_quantile(q) as f64 / 1e3;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Figures {
            answered,
            hits: outcome.hits,
            errors: outcome.errors.clone(),
            not_sent: outcome.not_sent,
            elapsed_s: outcome.elapsed.as_secs_f64(),
            ops_per_s: answered as f64 / outcome.elapsed.as_secs_f64().max(1e-9),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: outcome.latencies_ns.max() as f64 / 1e3,
            own_cpu_us_per_op: per_op(own_cpu),
            server: server.map(|cost| ServerFigures {
                cpu_us_per_op: per_op(cost.cpu),
                rss_end_mib: mib(cost.memory.resident_bytes),
                rss_peak_mib: mib(cost.memory.peak_bytes),
            }),
        }
    }

    /// Calls that failed or were never sent.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum::<u64>() + self.not_sent
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: String| writeln!(out, "{name:<24}{value:>14}");
        line("answered", self.answered.to_string())?;
        line("with what was asked", self.hits.to_string())?;
        line("failed", self.failed().to_string())?;
        line("elapsed, s", format!("{:.3}", self.elapsed_s))?;
        line("ops/s", format!("{:.0}", self.ops_per_s))?;
        line("p50, us", format!("{:.1}", self.p50_us))?;
        line("p99, us", format!("{:.1}", self.p99_us))?;
        line("p99.9, us", format!("{:.1}", self.p999_us))?;
        line("max, us", format!("{:.1}", self.max_us))?;
        if let Some(server) = &self.server {
            line("server CPU, us/op", format!("{:.2}", server.cpu_us_per_op))?;
            line("server RSS end, MiB", format!("{:.1}", server.rss_end_mib))?;
            line("server RSS peak, MiB", format!("{:.1}", server.rss_peak_mib))?;
        }
        line("own CPU, us/op", format!("{:.2}", self.own_cpu_us_per_op))?;
        for (text, count) in &self.errors {
            writeln!(out, "error x{count}: {text}")?;
        }
        if self.not_sent > 0 {
            writeln!(out, "error x{}: due, but never sent", self.not_sent)?;
        }
        Ok(())
    }
}
