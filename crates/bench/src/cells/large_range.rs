//! Ranges of 300 MB, whole and in a stream, while small ones go on.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use wire::etcdserverpb::RangeRequest;

use super::Cell;
use crate::http2::{Received, Taking};
use crate::measure::fill;
use crate::protobuf::{Counted, framed};
use crate::station::Station;
use crate::workload::{Kind, Order, Shape};

const VALUE_BYTES: usize = 50_000;
const VALUES: u64 = 6_000;
/// Fewest ranges that a run makes.
const RANGES_MIN: u32 = 3;
/// Longest that one may take.
const RANGE_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn run(cell: &mut Cell<'_>) -> anyhow::Result<()> {
    let values = cell.scaled(VALUES);
    // Longer keys than those of the small ranges, so that the two are apart.
    let shape = Shape {
        key_bytes: cell.comparison.shape.key_bytes + 8,
        value_bytes: VALUE_BYTES,
        keys: values,
        order: Order::Sequential,
        serializable: false,
    };
    let mut target = cell.target();
    target.in_flight = target.connections;
    fill(&shape, &target)?;
    let first = format!("{:0width$}", 0, width = shape.key_bytes);
    let end = format!("{:0width$}", values, width = shape.key_bytes);
    // Nothing that is put beside lies between: a shorter key of nothing but zeros is below the first.
    let request = RangeRequest { key: first.into(), range_end: end.into(), ..RangeRequest::default() };
    let request = framed(&request);
    for (name, path, taking) in [
        ("range", "/etcdserverpb.KV/Range", Taking::Count),
        ("stream", "/etcdserverpb.KV/RangeStream", Taking::CountInside),
    ] {
        match measure(cell, (name, path, taking), &request, values) {
            // etcd before 3.7 has no streams of ranges.
            Err(error) if name == "stream" && format!("{error:#}").contains("12: ") => {}
            done => done?,
        }
    }
    Ok(())
}

fn measure(
    cell: &mut Cell<'_>,
    (name, path, taking): (&'static str, &'static str, Taking),
    request: &[u8],
    values: u64,
) -> anyhow::Result<()> {
    let endpoint = cell.server.client();
    let at_least = cell.comparison.duration;
    let before = cell.resident_bytes()?;
    cell.server.observed()?.reset_peak();
    let spent = cell.spent()?;
    let beside = cell.beside(Kind::Range, Instant::now(), move || {
        let mut station = Station::connect(endpoint, 1)?;
        let began = Instant::now();
        let (mut ranges, mut bytes) = (0, 0);
        while ranges < RANGES_MIN || began.elapsed() < at_least {
            let counted = range(&mut station, path, request, taking)?;
            // The count of a stream comes with some chunk, as its server pleases.
            let right = !counted.is_bad && counted.pairs == values && counted.count <= values;
            ensure!(
                right && (counted.count == values || taking == Taking::CountInside),
                "{counted:?} of {values}"
            );
            ensure!(counted.bytes >= values * VALUE_BYTES as u64, "{counted:?} where more was put");
            ranges += 1;
            bytes += counted.bytes;
        }
        Ok((ranges, bytes as f64 / 1e6 / began.elapsed().as_secs_f64()))
    })?;
    let (server_us, own_us) = spent.us()?;
    let (ranges, mb_per_s) = beside.result;
    cell.push_beside(&format!("{name}: small"), "beside", &beside);
    cell.push(&format!("{name}: MB/s"), mb_per_s);
    cell.push(&format!("{name}: server CPU, s/range, small ones too"), server_us / 1e6 / f64::from(ranges));
    cell.push(&format!("{name}: own CPU, s/range"), own_us / 1e6 / f64::from(ranges));
    cell.push(&format!("{name}: RSS before, MiB"), before as f64 / f64::from(1 << 20));
    let peak = cell.peak_mib()?;
    cell.push(&format!("{name}: RSS peak, MiB"), peak);
    Ok(())
}

/// One range to its end, and what came.
fn range(station: &mut Station, path: &str, request: &[u8], taking: Taking) -> anyhow::Result<Counted> {
    let (_, call) = station.begin(0, path, request, taking)?;
    let deadline = Instant::now() + RANGE_TIMEOUT;
    let mut ended = None;
    while ended.is_none() {
        ensure!(Instant::now() < deadline, "interrupted: no whole answer within {RANGE_TIMEOUT:?}");
        station.turn(Duration::from_millis(100), |_, _, received| {
            if let Received::Ended { stream, counted, outcome } = received
                && stream == call
            {
                ended = Some((counted, outcome));
            }
        })?;
    }
    match ended {
        Some((counted, Ok(()))) => Ok(counted),
        Some((_, Err(text))) => bail!("{path}: {text}"),
        None => unreachable!("the loop has ended"),
    }
}
