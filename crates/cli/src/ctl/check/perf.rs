//! `check perf`: puts at a steady rate; did the cluster keep up, and was it even?

use std::time::Duration;

use client::{Client, Deadline};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::super::session::Session;
use super::super::signals::Signals;
use super::load::{Load, Shape, Work};
use super::progress::Progress;
use super::report::Outcome;
use super::{after, check_unused, chosen, clients};
use crate::app::{Failure, Invocation, World, exit};

pub(super) const LONG: &str = "Puts keys of 256 bytes with values of 1 KiB for a minute, and deletes them again.

It passes if 90 % of the writes are done that the load asks for, none takes longer than 0.5 s, and their standard
deviation is at most 0.1 s. Loads, with writes a second and clients: s (150, 50), m (1000, 200), l (8000, 500),
xl (15000, 1000).";

/// How much is asked of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerfLoad {
    /// Puts a second.
    pub per_s: u32,
    /// Connections, each of which waits for one answer at a time.
    pub clients: usize,
    /// How long.
    pub duration: Duration,
}

const fn minute(per_s: u32, clients: usize) -> PerfLoad {
    PerfLoad { per_s, clients, duration: Duration::from_secs(60) }
}

/// etcdctl's.
const LOADS: [PerfLoad; 4] = [minute(150, 50), minute(1000, 200), minute(8000, 500), minute(15000, 1000)];

const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;

/// Between two hand-outs of work: as finely as timers go.
const TURN: Duration = Duration::from_millis(1);
/// What was not handed out in this time is not made up for, but for two puts: to have kept up means to have been steady.
const MADE_UP: Duration = Duration::from_millis(10);
const MADE_UP_MIN: u64 = 2;
/// Between two looks at how far it is.
const SHOWN_EVERY: Duration = Duration::from_millis(250);

const SLOWEST_S_MAX: f64 = 0.5;
const DEVIATION_S_MAX: f64 = 0.1;
const SHARE_MIN: f64 = 0.9;

pub(super) fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let load = *chosen(call, &LOADS)?;
    measure(call, &load)
}

/// The command with a load of one's own.
///
/// # Errors
/// [`exit::ERROR`] with nothing more to say if the cluster has not passed; else what kept it from being measured.
pub fn measure(call: &mut Invocation<'_>, load: &PerfLoad) -> Result<(), Failure> {
    let prefix = call.flags.text("prefix").to_owned();
    let session = Session::open(call)?;
    let clients = clients(&session, load.clients)?;
    let command = format!("'etcdctl del --prefix {prefix}'");
    check_unused(&session, &clients[0], &prefix, &command, Deadline::after(load.duration))?;

    let timeout = call.flags.duration("command-timeout");
    let shape = Shape { prefix: prefix.clone(), key_bytes: KEY_BYTES, value_bytes: VALUE_BYTES, timeout };
    let outcome = session.wait(put_steadily(&mut call.world, &clients, shape, load))?;

    clean_up(call, &session, &clients[0], &prefix)?;
    if call.flags.bool("auto-defrag") {
        after::defragment(call, &session)?;
    }
    let (lines, passed) = judge(&outcome, load.per_s);
    for line in lines {
        writeln!(call.world.out, "{line}")?;
    }
    if passed { Ok(()) } else { Err(Failure::silent(exit::ERROR)) }
}

/// Until the time is over, or a signal says that it is enough: what was done is judged then.
async fn put_steadily(
    world: &mut World<'_>,
    clients: &[Client],
    shape: Shape,
    load: &PerfLoad,
) -> Result<Outcome, Failure> {
    let mut signals = Signals::take()?;
    let progress = Progress::new(world.err_is_terminal, load.duration.as_secs());
    let mut running = Load::begin(clients, shape, Work::Rationed(Semaphore::new(0)));
    let mut ration = Ration::new(load.per_s);
    let begun = Instant::now();
    let (mut turn, mut show) = (interval(TURN), interval(SHOWN_EVERY));
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while begun.elapsed() < load.duration {
        tokio::select! {
            () = signals.next() => break,
            _ = show.tick() => progress.show(world.err, begun.elapsed().as_secs())?,
            _ = turn.tick() => {
                let Work::Rationed(permits) = &*running.work else { break };
                let room = load.clients.saturating_sub(permits.available_permits());
                permits.add_permits(ration.due(begun.elapsed()).min(room));
            }
        }
    }
    if let Work::Rationed(permits) = &*running.work {
        permits.close();
    }
    let outcome = running.end().await;
    progress.end(world.err, begun.elapsed().as_secs())?;
    Ok(outcome)
}

/// How many puts are due.
struct Ration {
    per_s: u32,
    /// Up to here they were.
    given: u64,
}

impl Ration {
    fn new(per_s: u32) -> Ration {
        Ration { per_s, given: 0 }
    }

    fn due(&mut self, elapsed: Duration) -> usize {
        let by = |time: Duration| (time.as_nanos() * u128::from(self.per_s) / 1_000_000_000) as u64;
        let due = by(elapsed).saturating_sub(self.given).min(by(MADE_UP).max(MADE_UP_MIN));
        self.given = by(elapsed);
        usize::try_from(due).unwrap_or(usize::MAX)
    }
}

/// What cannot be deleted is said, and no more: the cluster is judged by the puts.
fn clean_up(
    call: &mut Invocation<'_>,
    session: &Session,
    client: &Client,
    prefix: &str,
) -> Result<(), Failure> {
    match after::delete(session, client, prefix, Deadline::after(after::TIMEOUT)) {
        Ok(revision) if call.flags.bool("auto-compact") => after::compact(call, session, client, revision),
        Ok(_) => Ok(()),
        Err(error) => {
            Ok(writeln!(call.world.out, "FAIL: Cleanup failed during key deletion: ERROR({error})")?)
        }
    }
}

/// etcdctl's lines, and whether the cluster has passed.
fn judge(outcome: &Outcome, per_s: u32) -> (Vec<String>, bool) {
    let Outcome { per_s: reached, slowest_s, deviation_s, .. } = outcome;
    let mut lines = outcome.error_lines();
    let mut passed = lines.is_empty();
    let mut say = |fails: bool, failure: String, success: String| {
        passed &= !fails;
        lines.push(if fails { failure } else { success });
    };
    let writes = *reached as u64 + 1;
    say(
        reached / f64::from(per_s) <= SHARE_MIN,
        format!("FAIL: Throughput too low: {writes} writes/s"),
        format!("PASS: Throughput is {writes} writes/s"),
    );
    say(
        *slowest_s > SLOWEST_S_MAX,
        format!("Slowest request took too long: {slowest_s:.6}s"),
        format!("PASS: Slowest request took {slowest_s:.6}s"),
    );
    say(
        *deviation_s > DEVIATION_S_MAX,
        format!("Stddev too high: {deviation_s:.6}s"),
        format!("PASS: Stddev is {deviation_s:.6}s"),
    );
    lines.push(if passed { "PASS" } else { "FAIL" }.to_owned());
    (lines, passed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn outcome(per_s: f64, slowest_s: f64, deviation_s: f64) -> Outcome {
        Outcome { per_s, slowest_s, deviation_s, errors: BTreeMap::new() }
    }

    #[test]
    fn a_cluster_passes_or_fails_in_etcdctls_words() {
        let passed = ["PASS: Throughput is 151 writes/s", "PASS: Slowest request took 0.500000s"];
        let (lines, is_passed) = judge(&outcome(150.2, 0.5, 0.1), 150);
        assert_eq!(lines, [passed[0], passed[1], "PASS: Stddev is 0.100000s", "PASS"]);
        assert!(is_passed);

        let (lines, is_passed) = judge(&outcome(135.0, 0.6, 0.2), 150);
        let slow = ["FAIL: Throughput too low: 136 writes/s", "Slowest request took too long: 0.600000s"];
        assert_eq!(lines, [slow[0], slow[1], "Stddev too high: 0.200000s", "FAIL"]);
        assert!(!is_passed);

        let errors = BTreeMap::from([("etcdserver: too many requests".to_owned(), 3)]);
        let (lines, is_passed) = judge(&Outcome { errors, ..outcome(0.0, 0.0, f64::NAN) }, 150);
        let errors = ["FAIL: too many errors", "FAIL: ERROR(etcdserver: too many requests) -> 3"];
        assert_eq!(lines[..2], errors);
        let rest = ["FAIL: Throughput too low: 1 writes/s", "PASS: Slowest request took 0.000000s"];
        assert_eq!(lines[2..], [rest[0], rest[1], "PASS: Stddev is NaNs", "FAIL"]);
        assert!(!is_passed);
    }

    #[test]
    fn puts_are_due_at_their_rate_and_not_made_up_for() {
        let at = |ration: &mut Ration, ms| ration.due(Duration::from_millis(ms));
        let mut ration = Ration::new(2000);
        assert_eq!([1, 2, 4, 4].map(|ms| at(&mut ration, ms)), [2, 2, 4, 0]);
        assert_eq!(at(&mut ration, 500), 20, "half a second is lost, but for the last of it");
        let mut slow = Ration::new(10);
        let given: usize = (1..=1000).map(|ms| at(&mut slow, ms)).sum();
        assert_eq!(given, 10);
    }
}
