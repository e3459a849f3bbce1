//! `check datascale`: how much memory does a server take for so many keys?

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use client::{Client, Deadline, http_get};
use tokio::time::interval;

use super::super::session::{Session, call_failed};
use super::load::{Load, Shape, Work};
use super::progress::Progress;
use super::report::Outcome;
use super::{after, check_unused, chosen, clients};
use crate::app::{Failure, Invocation, World, exit};

pub(super) const LONG: &str = "Puts keys of 512 bytes with values of 512 bytes, as fast as they go, prints by how much the server's memory has
grown (process_resident_memory_bytes of its /metrics), and deletes them again. If several endpoints are given, it looks
at the first.

Loads, with keys and clients: s (10000, 50), m (100000, 200), l (1000000, 500), xl (3000000, 1000).";

/// How much is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatascaleLoad {
    /// Pairs.
    pub pairs: u64,
    /// Connections, each of which waits for one answer at a time.
    pub clients: usize,
}

/// etcdctl's.
const LOADS: [DatascaleLoad; 4] = [
    DatascaleLoad { pairs: 10_000, clients: 50 },
    DatascaleLoad { pairs: 100_000, clients: 200 },
    DatascaleLoad { pairs: 1_000_000, clients: 500 },
    DatascaleLoad { pairs: 3_000_000, clients: 1000 },
];

const KEY_BYTES: usize = 512;
const VALUE_BYTES: usize = 512;

/// What is looked for among a server's metrics.
const MEMORY: &str = "process_resident_memory_bytes";

/// Longest page of metrics that is read, and longest wait for it.
const METRICS_BYTES_MAX: usize = 64 << 20;
const METRICS_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks at how far it is.
const SHOWN_EVERY: Duration = Duration::from_millis(250);

pub(super) fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let load = *chosen(call, &LOADS)?;
    measure(call, &load)
}

/// The command with a load of one's own.
///
/// # Errors
/// What kept the memory from being measured.
pub fn measure(call: &mut Invocation<'_>, load: &DatascaleLoad) -> Result<(), Failure> {
    let DatascaleLoad { pairs, clients: count } = *load;
    let prefix = call.flags.text("prefix").to_owned();
    let session = Session::open(call)?;
    let clients = clients(&session, count)?;
    let command = format!("etcdctl del --prefix {prefix}");
    check_unused(&session, &clients[0], &prefix, &command, Deadline::NEVER)?;

    let before = memory(call, &session, "before")?;
    writeln!(
        call.world.out,
        "Start data scale check for work load [{pairs} key-value pairs, {} bytes per key-value, {count} concurrent \
         clients].",
        KEY_BYTES + VALUE_BYTES
    )?;
    call.world.out.flush()?;
    let timeout = call.flags.duration("command-timeout");
    let shape = Shape { prefix: prefix.clone(), key_bytes: KEY_BYTES, value_bytes: VALUE_BYTES, timeout };
    let outcome = session.wait(put_all(&mut call.world, &clients, shape, pairs))?;
    let after = memory(call, &session, "after")?;

    let deleted = after::delete(&session, &clients[0], &prefix, Deadline::NEVER).map_err(call_failed)?;
    if call.flags.bool("auto-compact") {
        after::compact(call, &session, &clients[0], deleted)?;
    }
    if call.flags.bool("auto-defrag") {
        after::defragment(call, &session)?;
    }
    for line in outcome.error_lines() {
        writeln!(call.world.out, "{line}")?;
    }
    if !outcome.errors.is_empty() {
        return Err(Failure::silent(exit::ERROR));
    }
    let used_mib = (after - before) / f64::from(1 << 20);
    Ok(writeln!(call.world.out, "PASS: Approximate system memory used : {used_mib:.2} MB.")?)
}

async fn put_all(
    world: &mut World<'_>,
    clients: &[Client],
    shape: Shape,
    pairs: u64,
) -> Result<Outcome, Failure> {
    let progress = Progress::new(world.err_is_terminal, pairs);
    let mut load = Load::begin(clients, shape, Work::Left(AtomicU64::new(pairs)));
    let mut show = interval(SHOWN_EVERY);
    loop {
        tokio::select! {
            outcome = load.end() => {
                progress.end(world.err, load.done())?;
                return Ok(outcome);
            }
            _ = show.tick() => progress.show(world.err, load.done())?,
        }
    }
}

/// What the first endpoint says that it has in memory, bytes.
fn memory(call: &mut Invocation<'_>, session: &Session, when: &str) -> Result<f64, Failure> {
    let config = &session.config;
    let deadline = Deadline::after(METRICS_TIMEOUT);
    let answer =
        session.wait(http_get(config, &config.endpoints[0], "/metrics", METRICS_BYTES_MAX, deadline));
    let found = answer
        .map_err(|error| format!("fetch error: {error}"))
        .and_then(|page| memory_in(&String::from_utf8_lossy(&page)));
    match found {
        Ok(bytes) if bytes != 0.0 => return Ok(bytes),
        Ok(_) => {}
        Err(reason) => writeln!(call.world.out, "{reason}")?,
    }
    writeln!(call.world.out, "FAIL: Could not read {MEMORY} {when} the put operations.")?;
    Err(Failure::silent(exit::ERROR))
}

fn memory_in(metrics: &str) -> Result<f64, String> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(MEMORY)).unwrap_or_default().trim();
    if value.is_empty() {
        return Err(format!("could not find: {MEMORY}"));
    }
    value.parse().map_err(|_| {
        let quoted = crate::gotext::quote(value.as_bytes());
        format!("parse error: strconv.ParseFloat: parsing {quoted}: invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found_among_metrics() {
        let page =
            "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 2.4862720e+07\nx 1\n";
        assert_eq!(memory_in(page), Ok(24_862_720.0));
        assert_eq!(memory_in("x 1\n"), Err("could not find: process_resident_memory_bytes".to_owned()));
        let text = "parse error: strconv.ParseFloat: parsing \"many\": invalid syntax";
        assert_eq!(memory_in("process_resident_memory_bytes many\n"), Err(text.to_owned()));
    }
}
