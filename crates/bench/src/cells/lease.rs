//! Leases: renewed, many of them, and ended, all together.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use hdrhistogram::Histogram;
use wire::etcdserverpb::watch_create_request::FilterType;
use wire::etcdserverpb::watch_request::RequestUnion;
use wire::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest, WatchCreateRequest, WatchRequest,
};

use super::Cell;
use crate::http2::{Received, Taking};
use crate::protobuf::{Value, bytes_field, fields, framed, number_field};
use crate::run::Load;
use crate::schedule::Stop;
use crate::station::Station;
use crate::workload::{Kind, Requests};

const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const RANGE: &str = "/etcdserverpb.KV/Range";
/// Leases that are renewed in turn, on one stream of each of so many connections, with so many renewals under way.
const RENEWED: u64 = 10_000;
const STREAMS: usize = 10;
const RENEWALS_UNDER_WAY: usize = 256;
const RENEWED_TTL_S: i64 = 3600;
/// Longest silence.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Leases that end together, each with a key.
const ENDING: u64 = 100_000;
/// Time to grant them all, to put their keys, and to measure calls alone.
const ENDING_TTL_S: u64 = 60;
/// The same at the smallest scale.
const ENDING_TTL_S_MIN: u64 = 6;
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// Requests that are made one by one.
struct Each<F> {
    make: F,
    number: u64,
    message: Vec<u8>,
    message_bytes_max: usize,
}

impl<F: FnMut(u64) -> Vec<u8>> Requests for Each<F> {
    fn message_bytes(&self) -> usize {
        self.message_bytes_max
    }

    fn next_message(&mut self) -> &[u8] {
        self.message = (self.make)(self.number);
        assert!(self.message.len() <= self.message_bytes_max, "a request of {} bytes", self.message.len());
        self.number += 1;
        &self.message
    }
}

/// Makes `count` calls, and checks that each is answered with what was asked.
fn all(cell: &Cell<'_>, kind: Kind, count: u64, make: impl FnMut(u64) -> Vec<u8>) -> anyhow::Result<()> {
    let mut requests = Each { make, number: 0, message: Vec::new(), message_bytes_max: 200 };
    let stop = Stop { requests: Some(count), duration: None };
    let outcome = Load::connect(&cell.target(), kind)?.run(&mut requests, None, stop)?;
    ensure!(outcome.hits == count, "{count} calls of {}: {:?}", kind.path(), outcome.errors);
    Ok(())
}

/// Ids of our own begin at one.
fn grant(cell: &Cell<'_>, count: u64, ttl: i64) -> anyhow::Result<()> {
    all(cell, Kind::LeaseGrant, count, |number| framed(&LeaseGrantRequest { ttl, id: number as i64 + 1 }))
}

pub(super) fn keepalive(cell: &mut Cell<'_>) -> anyhow::Result<()> {
    let leases = cell.scaled(RENEWED);
    grant(cell, leases, RENEWED_TTL_S)?;
    let mut station = Station::connect(cell.server.client(), STREAMS)?;
    let streams: Vec<_> = (0..STREAMS)
        .map(|place| station.open(place, KEEP_ALIVE, Taking::Messages))
        .collect::<anyhow::Result<_>>()?;
    // Of each stream: the leases whose renewals are under way, and since when.
    let mut under_way: Vec<VecDeque<(i64, u64)>> = vec![VecDeque::new(); STREAMS];
    let mut latencies_ns = Histogram::<u64>::new_with_max(LATENCY_NS_MAX, 3)?;
    let (mut next, mut renewed, mut wrong) = (0, 0, None);
    let spent = cell.spent()?;
    let (began, mut heard) = (Instant::now(), Instant::now());
    loop {
        let is_over = began.elapsed() >= cell.comparison.duration;
        if is_over && under_way.iter().all(VecDeque::is_empty) {
            break;
        }
        for (place, under_way) in under_way.iter_mut().enumerate() {
            while !is_over && under_way.len() < RENEWALS_UNDER_WAY / STREAMS {
                let id = (next % leases) as i64 + 1;
                let now_ns = station.now_ns();
                if !station.write(streams[place], &framed(&LeaseKeepAliveRequest { id }), false) {
                    break;
                }
                under_way.push_back((id, now_ns));
                next += 1;
            }
        }
        station.turn(Duration::from_millis(100), |peer, now_ns, received| match received {
            Received::Message { message, .. } => {
                // LeaseKeepAliveResponse: in the order in which they were asked for.
                let told = (number_field(message, 2) as i64, number_field(message, 3) as i64);
                match under_way[peer].pop_front() {
                    Some((id, since_ns)) if told == (id, RENEWED_TTL_S) => {
                        latencies_ns.saturating_record(now_ns.saturating_sub(since_ns));
                        renewed += 1;
                    }
                    asked => wrong = Some(format!("asked for {asked:?}, told {told:?}")),
                }
                heard = Instant::now();
            }
            Received::Ended { outcome, .. } => wrong = Some(format!("a stream has ended: {outcome:?}")),
            Received::Answer(_) => unreachable!("no calls are made"),
        })?;
        if let Some(text) = wrong {
            bail!("{text}");
        }
        ensure!(heard.elapsed() < SILENCE_MAX, "interrupted: {renewed} of {next} renewals answered");
    }
    let elapsed = began.elapsed();
    let (server_us, own_us) = spent.us()?;
    ensure!(renewed == next && renewed > 0, "{renewed} of {next} renewals answered");
    let renewals = renewed as f64;
    cell.push("renewals/s", renewals / elapsed.as_secs_f64());
    cell.push("server CPU, us/renewal", server_us / renewals);
    cell.push("own CPU, us/renewal", own_us / renewals);
    cell.push("p50, us", latencies_ns.value_at_quantile(0.5) as f64 / 1e3);
    cell.push("p99, us", latencies_ns.value_at_quantile(0.99) as f64 / 1e3);
    Ok(())
}

pub(super) fn expiry(cell: &mut Cell<'_>) -> anyhow::Result<()> {
    let leases = cell.scaled(ENDING);
    let ttl_s = (ENDING_TTL_S as f64 * cell.comparison.scale).ceil().max(ENDING_TTL_S_MIN as f64) as u64;
    let ttl = Duration::from_secs(ttl_s);
    let granted = Instant::now();
    grant(cell, leases, ttl_s as i64)?;
    all(cell, Kind::Put, leases, |number| {
        let key = format!("leased/{number:08}");
        framed(&PutRequest { key: key.into(), lease: number as i64 + 1, ..PutRequest::default() })
    })?;
    let endpoint = cell.server.client();
    let mut station = Station::connect(endpoint, 1)?;
    let all_there = RangeRequest {
        key: "leased/".into(),
        range_end: "leased0".into(),
        count_only: true,
        ..RangeRequest::default()
    };
    let there = number_field(&station.call(0, RANGE, &framed(&all_there))?, 4);
    ensure!(there == leases, "{there} of {leases} keys are there: the first ones have ended already");
    let spent = cell.spent()?;
    let server = cell.server.observed()?;
    // Calls alone are over before the first lease ends, which is checked; a second later they count again.
    let just_before = granted + ttl - Duration::from_secs(1);
    let beside = cell.beside(Kind::Put, just_before, move || {
        ensure!(granted.elapsed() < ttl, "the first leases ended while only puts were to go on");
        let cpu_before = server.cpu()?;
        let deletes = ended(&mut station, leases)?;
        let after = deletes.first - granted;
        ensure!(after >= ttl, "the first lease ended early, after {after:?}");
        let there = number_field(&station.call(0, RANGE, &framed(&all_there))?, 4);
        ensure!(there == 0, "{there} keys are still there");
        let server_us = server.cpu()?.saturating_sub(cpu_before).as_secs_f64() * 1e6;
        Ok((deletes, server_us))
    })?;
    let (_, own_us) = spent.us()?;
    let (deletes, server_us) = &beside.result;
    let took = deletes.last - deletes.first;
    cell.push("revokes/s", (leases - 1) as f64 / took.as_secs_f64().max(1e-3));
    cell.push_beside("put", "revoking", &beside);
    cell.push("server CPU, us/revoke, puts too", server_us / leases as f64);
    cell.push("own CPU, s", own_us / 1e6);
    Ok(())
}

struct Deletes {
    first: Instant,
    last: Instant,
}

/// Waits until the keys of all leases are deleted, by a watch that wants deletes only.
fn ended(station: &mut Station, leases: u64) -> anyhow::Result<Deletes> {
    let stream = station.open(0, WATCH, Taking::Messages)?;
    let create = WatchCreateRequest {
        key: "leased/".into(),
        range_end: "leased0".into(),
        filters: vec![FilterType::Noput.into()],
        ..WatchCreateRequest::default()
    };
    let create = framed(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
    ensure!(station.write(stream, &create, false), "no room for a watch");
    let (mut seen, mut deletes, mut wrong) = (vec![false; leases as usize], 0, None);
    let (mut first, mut heard) = (None, Instant::now());
    while deletes < leases {
        station.turn(Duration::from_millis(100), |_, _, received| match received {
            Received::Message { message, .. } => {
                let before = deletes;
                fields(message, |field, value| match (field, value) {
                    (4, Value::Number(1)) => wrong = Some("the watch was canceled".to_owned()),
                    (11, Value::Bytes(event)) => match deleted(event).and_then(|place| seen.get_mut(place)) {
                        Some(seen) if !*seen => {
                            *seen = true;
                            deletes += 1;
                        }
                        _ => wrong = Some(format!("an event that is no delete, or a second one: {event:?}")),
                    },
                    _ => {}
                });
                if deletes > before {
                    heard = Instant::now();
                    first.get_or_insert(heard);
                }
            }
            Received::Ended { outcome, .. } => wrong = Some(format!("the stream has ended: {outcome:?}")),
            Received::Answer(_) => unreachable!("no calls are made"),
        })?;
        if let Some(text) = wrong {
            bail!("{text}");
        }
        ensure!(heard.elapsed() < SILENCE_MAX, "interrupted: {deletes} of {leases} leases have ended");
    }
    Ok(Deletes { first: first.unwrap_or(heard), last: heard })
}

/// The number of the lease whose key was deleted.
fn deleted(event: &[u8]) -> Option<usize> {
    let is_delete = number_field(event, 1) == 1;
    let key = bytes_field(bytes_field(event, 2), 1).strip_prefix(b"leased/")?;
    std::str::from_utf8(key).ok()?.parse().ok().filter(|_| is_delete)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use wire::mvccpb::event::EventType;
    use wire::mvccpb::{Event, KeyValue};

    use super::*;

    #[test]
    fn only_a_delete_of_a_leased_key_counts() {
        let event = |kind: EventType, key: &'static str| {
            let kv = KeyValue { key: key.into(), mod_revision: 9, ..KeyValue::default() };
            Event { r#type: kind.into(), kv: Some(kv), prev_kv: None }.encode_to_vec()
        };
        assert_eq!(deleted(&event(EventType::Delete, "leased/00000042")), Some(42));
        assert_eq!(deleted(&event(EventType::Put, "leased/00000042")), None);
        assert_eq!(deleted(&event(EventType::Delete, "other/00000042")), None);
        assert_eq!(deleted(&event(EventType::Delete, "leased/x")), None);
    }
}
