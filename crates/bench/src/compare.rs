//! Servers against each other in one run: round after round, workload after workload, server after server.
//!
//! All servers stay up while one is loaded; an idle one costs next to nothing. The scenarios of `cells` have a fresh one
//! each, alone. What drifts on the machine meets all of them alike, and ratios are taken round by round.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::cells;
use crate::measure::{Measurement, fill, measure};
use crate::report::Figures;
use crate::run::Target;
use crate::schedule::Stop;
use crate::servers::Server;
use crate::workload::{Kind, Order, Shape};

/// A server program and its name in the report.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// As it is called in the report.
    pub name: String,
    /// Takes etcd's flags.
    pub binary: PathBuf,
}

/// One workload of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Puts, closed loop.
    Put,
    /// Transactions, closed loop.
    Txn,
    /// Linearizable ranges of one key, closed loop.
    Range,
    /// The same, at a follower.
    RangeFollower,
    /// Puts, open loop.
    PutRate,
    /// One client, one put after the other.
    PutOne,
    /// Kill and start again on a full store.
    Restart,
    /// Puts while two million revisions are compacted.
    Compact,
    /// Puts while a gigabyte of overwritten values gives its space back.
    Merge,
    /// What members compare: hashes of a million keys.
    Hash,
    /// Small ranges while large ones go on.
    LargeRange,
    /// Many watches of one key, and of one prefix.
    WatchFanout,
    /// How late an event is, alone and beside large ranges on its connection.
    WatchLag,
    /// Renewals of many leases.
    Keepalive,
    /// Puts while many leases end together.
    LeaseExpiry,
    /// Nothing at all.
    Idle,
    /// Puts at the other members while the leader is killed, again and again.
    Failover,
}

impl Scenario {
    /// In the order in which they are run.
    pub const ALL: [Scenario; 17] = [
        Scenario::Put,
        Scenario::Txn,
        Scenario::Range,
        Scenario::RangeFollower,
        Scenario::PutRate,
        Scenario::PutOne,
        Scenario::Restart,
        Scenario::Compact,
        Scenario::Merge,
        Scenario::Hash,
        Scenario::LargeRange,
        Scenario::WatchFanout,
        Scenario::WatchLag,
        Scenario::Keepalive,
        Scenario::LeaseExpiry,
        Scenario::Idle,
        Scenario::Failover,
    ];

    /// Those that are run when none is asked for.
    pub const DEFAULT: [Scenario; 6] = [
        Scenario::Put,
        Scenario::Txn,
        Scenario::Range,
        Scenario::PutRate,
        Scenario::PutOne,
        Scenario::Restart,
    ];

    /// As it is called on the command line and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Put => "put",
            Scenario::Txn => "txn",
            Scenario::Range => "range",
            Scenario::RangeFollower => "range-follower",
            Scenario::PutRate => "put-rate",
            Scenario::PutOne => "put-one",
            Scenario::Restart => "restart",
            Scenario::Compact => "compact",
            Scenario::Merge => "merge",
            Scenario::Hash => "hash",
            Scenario::LargeRange => "large-range",
            Scenario::WatchFanout => "watch-fanout",
            Scenario::WatchLag => "watch-lag",
            Scenario::Keepalive => "keepalive",
            Scenario::LeaseExpiry => "lease-expiry",
            Scenario::Idle => "idle",
            Scenario::Failover => "failover",
        }
    }

    /// Whether it is calls of one kind on servers that stay up.
    fn is_load(self) -> bool {
        use Scenario::{Put, PutOne, PutRate, Txn};
        self.is_range() || matches!(self, Put | Txn | PutRate | PutOne)
    }

    fn is_range(self) -> bool {
        matches!(self, Scenario::Range | Scenario::RangeFollower)
    }

    /// # Errors
    /// When there is none of this name.
    pub fn by_name(name: &str) -> anyhow::Result<Scenario> {
        let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
        found.with_context(|| format!("no workload is named {name}"))
    }
}

/// What to compare.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Two or more.
    pub candidates: Vec<Candidate>,
    /// Of each server.
    pub members: usize,
    /// What to run.
    pub scenarios: Vec<Scenario>,
    /// Times that each is run on each candidate.
    pub rounds: usize,
    /// Of each run.
    pub duration: Duration,
    /// Before each run.
    pub warm_up: Option<Stop>,
    /// Of `PutRate`, calls a second.
    pub rate: f64,
    /// Keys in the store that is restarted.
    pub restart_keys: u64,
    /// Of the sizes of all scenarios behind `Restart`: below one to try them out.
    pub scale: f64,
    /// Keys and values.
    pub shape: Shape,
    /// Connections and calls in flight; the endpoints are the servers' own.
    pub target: Target,
    /// Where data directories are made.
    pub dir: Option<PathBuf>,
}

/// Values of one metric, by workload and metric name, then by candidate, one a round.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Results {
    /// The candidates' names, in their order.
    pub names: Vec<String>,
    /// In the order of the report.
    pub rows: Vec<Row>,
    /// Failed calls and interrupted runs by candidate and text, all runs together. When there are any, figures mean
    /// little.
    pub errors: BTreeMap<String, u64>,
}

/// One metric of one workload.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The workload.
    pub scenario: String,
    /// The metric, its unit last.
    pub metric: String,
    /// By candidate, in their order: one value a round, none where it could not be had.
    pub values: Vec<Vec<Option<f64>>>,
}

/// Median, smallest and largest of a few values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of those that there are; `None` if there is none.
    pub fn of(values: &[Option<f64>]) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.iter().copied().flatten().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        Some(Spread { median, min, max })
    }

    /// As it stands in a table.
    fn cell(values: &[Option<f64>]) -> String {
        Spread::of(values).map_or("-".to_owned(), |spread| spread.to_string())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({}-{})", short(self.median), short(self.min), short(self.max))
    }
}

/// Runs everything; `dir` gets one directory a server. Tells `progress` before each step.
///
/// # Errors
/// When a server can't be started or dies. Failed calls are in the results.
pub fn compare(
    comparison: &Comparison,
    dir: &Path,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Results> {
    let names: Vec<String> = comparison.candidates.iter().map(|candidate| candidate.name.clone()).collect();
    let mut results = Results { names, ..Results::default() };
    // Ranges have servers of their own, with no put before them since their start: after a burst of puts etcd 3.4
    // copies a large empty buffer for each range, for as long as it lives. So each server is measured at its best.
    let of = |wanted: fn(&Scenario) -> bool| -> Vec<Scenario> {
        comparison.scenarios.iter().copied().filter(wanted).collect()
    };
    let writes = of(|scenario| scenario.is_load() && !scenario.is_range());
    if !writes.is_empty() {
        run_loads(comparison, &writes, &dir.join("writes"), &mut results, progress)?;
    }
    let ranges = of(|scenario| scenario.is_range());
    if !ranges.is_empty() {
        run_loads(comparison, &ranges, &dir.join("ranges"), &mut results, progress)?;
    }
    if comparison.scenarios.contains(&Scenario::Restart) {
        run_restarts(comparison, dir, &mut results, progress)?;
    }
    let cells = of(|scenario| !scenario.is_load() && *scenario != Scenario::Restart);
    run_cells(comparison, &cells, &dir.join("cells"), &mut results, progress)?;
    Ok(results)
}

/// Each on a fresh server of its own, that is there alone. One that fails is in the results as interrupted, and the
/// others go on.
fn run_cells(
    comparison: &Comparison,
    scenarios: &[Scenario],
    dir: &Path,
    results: &mut Results,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    for round in 0..comparison.rounds {
        for &scenario in scenarios {
            for (place, candidate) in comparison.candidates.iter().enumerate() {
                let name = &candidate.name;
                let text =
                    format!("round {} of {}: {} {name}", round + 1, comparison.rounds, scenario.name());
                progress(&text);
                let dir = dir.join(format!("{name}-{}-{round}", scenario.name()));
                let mut server = Server::start(&candidate.binary, &dir, comparison.members)?;
                match cells::run(comparison, scenario, &mut server) {
                    Ok(metrics) => {
                        metrics
                            .iter()
                            .for_each(|(metric, value)| results.push(scenario, place, metric, *value));
                        drop(server);
                        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
                    }
                    Err(error) => {
                        progress(&format!("{text} INTERRUPTED: {error:#}"));
                        let text = format!("{} on {name}: interrupted: {error:#}", scenario.name());
                        *results.errors.entry(text).or_insert(0) += 1;
                    }
                }
            }
            results.end_round(scenario, round + 1);
        }
    }
    Ok(())
}

fn run_loads(
    comparison: &Comparison,
    scenarios: &[Scenario],
    dir: &Path,
    results: &mut Results,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let mut servers = Vec::new();
    for candidate in &comparison.candidates {
        progress(&format!("{}: start, put {} keys", candidate.name, comparison.shape.keys));
        let mut server = Server::start(&candidate.binary, &dir.join(&candidate.name), comparison.members)?;
        fill(&comparison.shape, &at(&comparison.target, &server))?;
        if scenarios.iter().all(|scenario| scenario.is_range()) {
            server.stop()?;
            server.restart()?;
        }
        servers.push(server);
    }
    for round in 0..comparison.rounds {
        for &scenario in scenarios {
            for (place, server) in servers.iter().enumerate() {
                let name = &comparison.candidates[place].name;
                progress(&format!(
                    "round {} of {}: {} {name}",
                    round + 1,
                    comparison.rounds,
                    scenario.name()
                ));
                let figures = run_load(comparison, scenario, round, server)
                    .with_context(|| format!("{} on {name}", scenario.name()))?;
                results.add(scenario, place, &figures);
            }
        }
    }
    Ok(())
}

fn run_load(
    comparison: &Comparison,
    scenario: Scenario,
    round: usize,
    server: &Server,
) -> anyhow::Result<Figures> {
    let mut target = at(&comparison.target, server);
    let (kind, rate) = match scenario {
        Scenario::Put => (Kind::Put, None),
        Scenario::Txn => (Kind::Txn, None),
        Scenario::Range => (Kind::Range, None),
        Scenario::RangeFollower => {
            target.endpoints = server.followers();
            target.endpoints.truncate(1);
            (Kind::Range, None)
        }
        Scenario::PutRate => (Kind::Put, Some(comparison.rate)),
        Scenario::PutOne => {
            (target.connections, target.in_flight) = (1, 1);
            (Kind::Put, None)
        }
        _ => bail!("{} is no load", scenario.name()),
    };
    let mut shape = comparison.shape.clone();
    if let Order::Random(seed) = &mut shape.order {
        // The same keys for all servers of a round, others in each round.
        *seed = seed.wrapping_add(round as u64);
    }
    let stop = Stop { requests: None, duration: Some(comparison.duration) };
    let measurement = Measurement { kind, shape, rate, stop, warm_up: comparison.warm_up };
    let observed = server.observed()?;
    observed.reset_peak();
    measure(&measurement, &target, Some(observed))
}

fn run_restarts(
    comparison: &Comparison,
    dir: &Path,
    results: &mut Results,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let shape = Shape { keys: comparison.restart_keys, ..comparison.shape.clone() };
    shape.check().context("--restart-keys")?;
    let mut servers = Vec::new();
    for candidate in &comparison.candidates {
        progress(&format!("{}: start, put {} keys for restarts", candidate.name, shape.keys));
        let dir = dir.join("restarts").join(&candidate.name);
        let server = Server::start(&candidate.binary, &dir, comparison.members)?;
        fill(&shape, &at(&comparison.target, &server))?;
        servers.push(server);
    }
    for round in 0..comparison.rounds {
        for (place, server) in servers.iter_mut().enumerate() {
            let name = &comparison.candidates[place].name;
            progress(&format!("round {} of {}: restart {name}", round + 1, comparison.rounds));
            let took = server.restart().with_context(|| format!("restart {name}"))?;
            let memory = server.observed()?.memory()?;
            results.push(Scenario::Restart, place, "healthy after, ms", took.as_secs_f64() * 1e3);
            results.push(
                Scenario::Restart,
                place,
                "RSS, MiB",
                memory.resident_bytes as f64 / f64::from(1 << 20),
            );
        }
    }
    Ok(())
}

fn at(target: &Target, server: &Server) -> Target {
    Target { endpoints: vec![server.client()], ..target.clone() }
}

impl Results {
    fn add(&mut self, scenario: Scenario, place: usize, figures: &Figures) {
        if let Some(server) = &figures.server {
            self.push(scenario, place, "server CPU, us/op", server.cpu_us_per_op);
        }
        self.push(scenario, place, "ops/s", figures.ops_per_s);
        self.push(scenario, place, "p50, us", figures.p50_us);
        self.push(scenario, place, "p99, us", figures.p99_us);
        self.push(scenario, place, "p99.9, us", figures.p999_us);
        self.push(scenario, place, "max, us", figures.max_us);
        if let Some(server) = &figures.server {
            self.push(scenario, place, "RSS end, MiB", server.rss_end_mib);
            self.push(scenario, place, "RSS peak, MiB", server.rss_peak_mib);
        }
        self.push(scenario, place, "own CPU, us/op", figures.own_cpu_us_per_op);
        let name = &self.names[place];
        for (text, count) in &figures.errors {
            *self.errors.entry(format!("{} on {name}: {text}", scenario.name())).or_insert(0) += count;
        }
        if figures.not_sent > 0 {
            let text = format!("{} on {name}: due, but never sent", scenario.name());
            *self.errors.entry(text).or_insert(0) += figures.not_sent;
        }
        if figures.hits < figures.answered {
            let text = format!("{} on {name}: answered without what was asked", scenario.name());
            *self.errors.entry(text).or_insert(0) += figures.answered - figures.hits;
        }
    }

    fn push(&mut self, scenario: Scenario, place: usize, metric: &str, value: f64) {
        let known = self.rows.iter().position(|row| row.scenario == scenario.name() && row.metric == metric);
        let known = known.unwrap_or_else(|| {
            let values = vec![Vec::new(); self.names.len()];
            self.rows.push(Row { scenario: scenario.name().to_owned(), metric: metric.to_owned(), values });
            self.rows.len() - 1
        });
        self.rows[known].values[place].push(Some(value));
    }

    /// Fills up what could not be had in so many rounds.
    fn end_round(&mut self, scenario: Scenario, rounds: usize) {
        for row in self.rows.iter_mut().filter(|row| row.scenario == scenario.name()) {
            row.values.iter_mut().for_each(|values| values.resize(rounds, None));
        }
    }

    /// The table for people: medians, spreads, and the first candidate's ratio to each other one.
    pub fn table(&self) -> String {
        let mut heads = vec!["workload".to_owned(), "metric".to_owned()];
        heads.extend(self.names.iter().cloned());
        let (first, others) = self.names.split_first().expect("two candidates");
        heads.extend(others.iter().map(|other| format!("{first} / {other}")));
        let mut lines = vec![heads];
        for row in &self.rows {
            let mut cells = vec![row.scenario.clone(), row.metric.clone()];
            cells.extend(row.values.iter().map(|values| Spread::cell(values)));
            cells.extend((1..self.names.len()).map(|other| Spread::cell(&row.ratios(0, other))));
            lines.push(cells);
        }
        let mut text = aligned(&lines);
        for (error, count) in &self.errors {
            let _ = writeln!(text, "error x{count}: {error}");
        }
        text
    }

    /// As JSON: every value of every round.
    ///
    /// # Panics
    /// Never: there is nothing in it that JSON can't say.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data")
    }
}

impl Row {
    /// The ratios of two candidates' values, round by round; none to nothing.
    pub fn ratios(&self, one: usize, other: usize) -> Vec<Option<f64>> {
        let rounds = self.values[one].iter().zip(&self.values[other]);
        rounds.map(|(one, other)| Some((*one)? / other.filter(|other| *other != 0.0)?)).collect()
    }
}

/// A Markdown table, its columns aligned.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines[0].len();
    let widths: Vec<usize> =
        (0..columns).map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Three digits that mean something, or the whole number.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_spreads_and_ratios() {
        let names = ["ours", "etcd"].map(str::to_owned).to_vec();
        let mut results = Results { names, ..Results::default() };
        for (ours, etcd) in [(10.0, 40.0), (12.0, 40.0), (11.0, 55.0)] {
            results.push(Scenario::Put, 0, "server CPU, us/op", ours);
            results.push(Scenario::Put, 1, "server CPU, us/op", etcd);
        }
        results.push(Scenario::Restart, 0, "healthy after, ms", 1234.5);
        results.push(Scenario::Restart, 1, "healthy after, ms", 2469.0);
        results.push(Scenario::Compact, 0, "took, s", 3.0);
        results.end_round(Scenario::Compact, 1);
        results.push(Scenario::Compact, 1, "took, s", 5.0);
        results.push(Scenario::Compact, 0, "took, s", 3.0);
        results.push(Scenario::Compact, 0, "of ours alone", 3.0);
        results.end_round(Scenario::Compact, 2);
        results.errors.insert("compact on etcd: interrupted: why".to_owned(), 1);
        results.errors.insert("put on etcd: 14: no leader".to_owned(), 2);
        expect_test::expect![[r#"
            | workload | metric            | ours             | etcd             | ours / etcd      |
            |----------|-------------------|------------------|------------------|------------------|
            | put      | server CPU, us/op | 11.0 (10.0-12.0) | 40.0 (40.0-55.0) | 0.25 (0.20-0.30) |
            | restart  | healthy after, ms | 1234 (1234-1234) | 2469 (2469-2469) | 0.50 (0.50-0.50) |
            | compact  | took, s           | 3.00 (3.00-3.00) | 5.00 (5.00-5.00) | 0.60 (0.60-0.60) |
            | compact  | of ours alone     | 3.00 (3.00-3.00) | -                | -                |
            error x1: compact on etcd: interrupted: why
            error x2: put on etcd: 14: no leader
        "#]]
        .assert_eq(&results.table());
    }

    #[test]
    fn a_spread_of_an_even_number_has_a_middle() {
        let values = [4.0, 1.0, 2.0, 9.0].map(Some);
        assert_eq!(Spread::of(&values), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
        assert_eq!(Spread::of(&[None]), None);
    }
}
