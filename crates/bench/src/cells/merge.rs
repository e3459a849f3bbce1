//! Puts while a gigabyte of overwritten values gives its space back: compaction, and then Defragment, which lets etcd
//! copy its file and us merge what is worth it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use wire::etcdserverpb::DefragmentRequest;

use super::Cell;
use super::compact::{compact_all, overwrite};
use crate::protobuf::framed;
use crate::station::Station;
use crate::workload::{Kind, Shape};

/// Of a kilobyte each: a gigabyte, of which nearly nothing stays.
const REVISIONS: u64 = 1_000_000;
const VALUE_BYTES: usize = 1024;
const KEYS: u64 = 1000;
/// Less says nothing: files have room ahead.
const STORED_BYTES_MIN: u64 = 256 << 20;
/// Between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Longest that it may take until half is given back.
const WAIT_MAX: Duration = Duration::from_secs(600);

pub(super) fn run(cell: &mut Cell<'_>) -> anyhow::Result<()> {
    let revisions = cell.scaled(REVISIONS).max(KEYS);
    let shape = Shape { keys: KEYS, value_bytes: VALUE_BYTES, ..cell.comparison.shape.clone() };
    overwrite(cell, revisions, shape)?;
    let (server, endpoint) = (cell.server, cell.server.client());
    let before = server.stored_bytes()?;
    ensure!(before >= STORED_BYTES_MIN, "{before} bytes are too few: --scale must be larger");
    let spent = cell.spent()?;
    let beside = cell.beside(Kind::Put, Instant::now(), move || {
        let mut station = Station::connect(endpoint, 1)?;
        compact_all(&mut station, revisions)?;
        let began = Instant::now();
        station.call(0, "/etcdserverpb.Maintenance/Defragment", &framed(&DefragmentRequest {}))?;
        loop {
            let now = server.stored_bytes()?;
            if now <= before / 2 {
                return Ok((began.elapsed(), now));
            }
            ensure!(began.elapsed() < WAIT_MAX, "{now} of {before} bytes are still there after {WAIT_MAX:?}");
            std::thread::sleep(LOOK_INTERVAL);
        }
    })?;
    let (server_us, _) = spent.us()?;
    let (took, after) = beside.result;
    cell.push_beside("put", "merging", &beside);
    cell.push("half was back after, s", took.as_secs_f64());
    cell.push("stored before, MiB", before as f64 / f64::from(1 << 20));
    cell.push("stored then, MiB", after as f64 / f64::from(1 << 20));
    cell.push("server CPU, idle puts too, s", server_us / 1e6);
    Ok(())
}
