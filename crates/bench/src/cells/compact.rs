//! Puts while two million revisions are compacted.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use wire::etcdserverpb::{CompactionRequest, RangeRequest};

use super::Cell;
use crate::measure::fill;
use crate::protobuf::{framed, header_revision};
use crate::run::Load;
use crate::schedule::Stop;
use crate::station::Station;
use crate::workload::{Kind, Order, Shape, Workload};

const REVISIONS: u64 = 2_000_000;
/// Of each key, when all are put.
const REVISIONS_A_KEY: u64 = 20;

pub(super) fn run(cell: &mut Cell<'_>) -> anyhow::Result<()> {
    let revisions = cell.scaled(REVISIONS);
    let shape = Shape { keys: (revisions / REVISIONS_A_KEY).max(1), ..cell.comparison.shape.clone() };
    overwrite(cell, revisions, shape)?;

    let observed = cell.server.observed()?;
    observed.reset_peak();
    let spent = cell.spent()?;
    let endpoint = cell.server.client();
    let beside = cell.beside(Kind::Put, Instant::now(), move || {
        let mut station = Station::connect(endpoint, 1)?;
        compact_all(&mut station, revisions)
    })?;
    let (server_us, own_us) = spent.us()?;
    cell.push_beside("put", "compacting", &beside);
    cell.push("compaction took, s", beside.result.as_secs_f64());
    cell.push("server CPU, idle puts too, s", server_us / 1e6);
    cell.push("own CPU, s", own_us / 1e6);
    let peak = cell.peak_mib()?;
    cell.push("RSS peak, MiB", peak);
    Ok(())
}

/// Puts the keys of `shape` in their order, again and again, until so many revisions are made.
pub(super) fn overwrite(cell: &Cell<'_>, revisions: u64, shape: Shape) -> anyhow::Result<()> {
    let shape = Shape { order: Order::Sequential, ..shape };
    let target = cell.target();
    fill(&shape, &target)?;
    let mut load = Load::connect(&target, Kind::Put)?;
    let stop = Stop { requests: Some(revisions - shape.keys), duration: None };
    let filled = load.run(&mut Workload::new(Kind::Put, shape), None, stop)?;
    ensure!(filled.errors.is_empty(), "fill {revisions} revisions: {:?}", filled.errors);
    Ok(())
}

/// Compacts at the newest revision, of which there are so many at least, and checks that it counts; how long it took.
pub(super) fn compact_all(station: &mut Station, revisions: u64) -> anyhow::Result<Duration> {
    let newest = RangeRequest { key: "0".into(), ..RangeRequest::default() };
    let revision = header_revision(&station.call(0, "/etcdserverpb.KV/Range", &framed(&newest))?);
    ensure!(revision as u64 >= revisions, "{revision} revisions where {revisions} were made");
    let request = framed(&CompactionRequest { revision, physical: true });
    let asked = Instant::now();
    station.call(0, "/etcdserverpb.KV/Compact", &request)?;
    let took = asked.elapsed();
    let past = RangeRequest { key: "0".into(), revision: revision - 1, ..RangeRequest::default() };
    let refused = station.call(0, "/etcdserverpb.KV/Range", &framed(&past));
    let refused = refused.err().context("a compacted revision is still read")?;
    ensure!(format!("{refused:#}").contains("has been compacted"), "{refused:#}");
    Ok(took)
}
