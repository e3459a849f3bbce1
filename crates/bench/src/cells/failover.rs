//! The leader is killed, again and again: how long no write succeeds.
//!
//! Puts begin at the members that are left, one a member every `PUT_INTERVAL`, and nobody waits for their answers: what
//! counts is the first success of a put that began after the kill. One that waits for a leader, or whose outcome is
//! unknown, is no success and keeps no other from being one.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use wire::etcdserverpb::PutRequest;

use crate::compare::Comparison;
use crate::http2::{Received, Taking};
use crate::protobuf::framed;
use crate::servers::Server;
use crate::station::Station;

/// Kills at full scale.
const KILLS: f64 = 20.0;
/// Between two puts at one member: the resolution.
const PUT_INTERVAL: Duration = Duration::from_millis(5);
/// No write for so long interrupts the scenario.
const OUTAGE_MAX: Duration = Duration::from_secs(60);

/// Runs it, and returns its metrics.
///
/// # Errors
/// When no write succeeds for a minute, or a member can't be started again.
pub(super) fn run(comparison: &Comparison, server: &mut Server) -> anyhow::Result<Vec<(String, f64)>> {
    let kills = ((KILLS * comparison.scale).round() as usize).max(1);
    let mut outages_ms = Vec::with_capacity(kills);
    for _ in 0..kills {
        outages_ms.push(outage(server)?.as_secs_f64() * 1e3);
    }
    outages_ms.sort_by(f64::total_cmp);
    let nine_of_ten = outages_ms[(outages_ms.len() * 9).div_ceil(10) - 1];
    let median = (outages_ms[(kills - 1) / 2] + outages_ms[kills / 2]) / 2.0;
    let worst = *outages_ms.last().context("one kill at least")?;
    Ok(vec![
        ("no write, median, ms".to_owned(), median),
        ("no write, 9 of 10 within, ms".to_owned(), nine_of_ten),
        ("no write, longest, ms".to_owned(), worst),
    ])
}

/// One kill, until a write succeeds; the killed member is back afterwards.
fn outage(server: &mut Server) -> anyhow::Result<Duration> {
    server.find_leader(Instant::now())?;
    let mut stations = Vec::new();
    for follower in server.followers() {
        stations.push(Station::connect(follower, 1)?);
    }
    let message = framed(&PutRequest { key: "failover".into(), value: "x".into(), ..PutRequest::default() });
    let killed = server.kill_leader()?;
    let began = Instant::now();
    let (mut next, mut succeeded) = (began, None);
    while succeeded.is_none() {
        ensure!(began.elapsed() < OUTAGE_MAX, "no write for {OUTAGE_MAX:?} after the leader was killed");
        let due = Instant::now() >= next;
        if due {
            next += PUT_INTERVAL;
        }
        for station in &mut stations {
            if due && station.has_room(0, message.len()) {
                station.begin(0, "/etcdserverpb.KV/Put", &message, Taking::Messages)?;
            }
            station.turn(Duration::from_millis(1), |_, _, received| {
                if let Received::Ended { outcome: Ok(()), .. } = received {
                    succeeded.get_or_insert_with(|| began.elapsed());
                }
            })?;
        }
    }
    server.revive(killed)?;
    succeeded.context("the loop ends with it")
}
