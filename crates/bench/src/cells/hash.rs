//! What members compare to find corruption: the hash of a million keys, and of a compaction that has nothing to drop.
//!
//! A check of the newest data is two such hashes on the leader, and one on each other member; a check after a compaction
//! is the one that the compaction has made on each.

use std::time::Instant;

use anyhow::ensure;
use wire::etcdserverpb::{CompactionRequest, HashKvRequest};

use super::Cell;
use crate::measure::fill;
use crate::protobuf::{framed, header_revision, number_field};
use crate::station::Station;
use crate::workload::{Order, Shape};

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 256;
/// Hashes in one run.
const HASHES: u32 = 5;

pub(super) fn run(cell: &mut Cell<'_>) -> anyhow::Result<()> {
    let shape = Shape {
        keys: cell.scaled(KEYS),
        value_bytes: VALUE_BYTES,
        order: Order::Sequential,
        ..cell.comparison.shape.clone()
    };
    fill(&shape, &cell.target())?;
    let mut station = Station::connect(cell.server.client(), 1)?;

    let request = framed(&HashKvRequest { revision: 0 });
    let (spent, asked) = (cell.spent()?, Instant::now());
    let (mut sums, mut revision) = (Vec::new(), 0);
    for _ in 0..HASHES {
        let answer = station.call(0, "/etcdserverpb.Maintenance/HashKV", &request)?;
        sums.push(number_field(&answer, 2));
        revision = header_revision(&answer);
    }
    let (took, (server_us, _)) = (asked.elapsed(), spent.us()?);
    ensure!(revision as u64 > shape.keys, "{revision} revisions of {} keys", shape.keys);
    ensure!(sums[0] != 0 && sums.iter().all(|sum| *sum == sums[0]), "hashes of the same: {sums:?}");
    cell.push("hash: server CPU, s", server_us / 1e6 / f64::from(HASHES));
    cell.push("hash took, s", took.as_secs_f64() / f64::from(HASHES));

    let request = framed(&CompactionRequest { revision, physical: true });
    let (spent, asked) = (cell.spent()?, Instant::now());
    station.call(0, "/etcdserverpb.KV/Compact", &request)?;
    let (took, (server_us, _)) = (asked.elapsed(), spent.us()?);
    cell.push("compaction without anything to drop: server CPU, s", server_us / 1e6);
    cell.push("compaction without anything to drop took, s", took.as_secs_f64());
    let peak = cell.peak_mib()?;
    cell.push("RSS peak, MiB", peak);
    Ok(())
}
