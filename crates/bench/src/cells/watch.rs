//! Watches: many of one key, many of one prefix, and how late an event is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;
use wire::etcdserverpb::watch_request::RequestUnion;
use wire::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};

use super::Cell;
use crate::http2::{Received, Taking};
use crate::measure::fill;
use crate::protobuf::{Value, fields, framed, header_revision};
use crate::schedule::{Schedule, Stop};
use crate::station::{Station, StreamName};
use crate::workload::{Order, Shape};

const WATCH: &str = "/etcdserverpb.Watch/Watch";
const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";

/// Puts whose events not every watch has yet.
const PUTS_UNDER_WAY_MAX: usize = 4;
/// Longest that an event may be on its way.
const EVENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Puts a second, where the lag of their events is measured.
const LAG_RATE: f64 = 500.0;
const LAG_NS_MAX: u64 = 3_600_000_000_000;
/// The ranges beside a watch: so many at a time, of so many values of so many bytes.
const RANGES: usize = 10;
const RANGE_VALUES: u64 = 200;
const RANGE_VALUE_BYTES: usize = 50_000;

/// Watches on one stream of each of a few connections, and what they were told. All want the same events.
struct Watchers {
    /// The one stream of each connection.
    streams: Vec<StreamName>,
    a_stream: u64,
    /// Of each watch, stream by stream: how many events it had, and the revision of the last.
    told: Vec<(u64, i64)>,
    created: u64,
    /// What must not have come.
    wrong: Option<String>,
}

impl Watchers {
    /// Opens a stream on each of the first `connections`, and creates the watches.
    fn create(
        station: &mut Station,
        (connections, a_stream): (u64, u64),
        request: &WatchCreateRequest,
    ) -> anyhow::Result<Watchers> {
        let told = vec![(0, 0); (connections * a_stream) as usize];
        let mut watchers = Watchers { streams: Vec::new(), a_stream, told, created: 0, wrong: None };
        for place in 0..connections as usize {
            watchers.streams.push(station.open(place, WATCH, Taking::Messages)?);
        }
        let mut deadline = Instant::now() + EVENT_TIMEOUT;
        // A few at a time on each stream, so that every window has room.
        for id in 1..=a_stream {
            let create = WatchCreateRequest { watch_id: id as i64, ..request.clone() };
            let message = framed(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
            for place in 0..connections as usize {
                ensure!(station.write(watchers.streams[place], &message, false), "no room for a watch");
            }
            let wanted = id * connections;
            while watchers.created < wanted {
                ensure!(Instant::now() < deadline, "{} of {wanted} watches were created", watchers.created);
                let before = watchers.created;
                station.turn(Duration::from_millis(100), |peer, _, received| {
                    watchers.hear(peer, received, &mut |_| {});
                })?;
                if watchers.created > before {
                    deadline = Instant::now() + EVENT_TIMEOUT;
                }
                watchers.check()?;
            }
        }
        Ok(watchers)
    }

    /// Takes what came on a connection, and tells the revision of each event. False if it was nothing of the watches'.
    fn hear(&mut self, peer: usize, received: Received<'_>, event: &mut dyn FnMut(i64)) -> bool {
        match received {
            Received::Message { stream, message } if self.streams.get(peer) == Some(&(peer, stream)) => {
                self.response(peer, message, event);
            }
            Received::Ended { stream, outcome, .. } if self.streams.get(peer) == Some(&(peer, stream)) => {
                self.wrong = Some(format!("a stream of watches has ended: {outcome:?}"));
            }
            _ => return false,
        }
        true
    }

    fn response(&mut self, peer: usize, message: &[u8], event: &mut dyn FnMut(i64)) {
        let (mut id, mut created, mut canceled, mut ascends) = (0, false, false, true);
        // WatchResponse: the id comes before the events.
        let is_whole = fields(message, |field, value| match (field, value) {
            (2, Value::Number(number)) => id = number,
            (3, Value::Number(number)) => created = number > 0,
            (4, Value::Number(number)) => canceled = number > 0,
            (11, Value::Bytes(bytes)) => {
                let is_known = (1..=self.a_stream).contains(&id);
                let place = is_known.then(|| (peer as u64 * self.a_stream + id - 1) as usize);
                let revision = event_revision(bytes);
                match place.and_then(|place| self.told.get_mut(place)) {
                    Some(told) => {
                        ascends &= revision > told.1;
                        *told = (told.0 + 1, revision);
                    }
                    None => ascends = false,
                }
                event(revision);
            }
            _ => {}
        });
        self.created += u64::from(created && !canceled);
        if !is_whole || canceled || !ascends {
            self.wrong = Some(format!("watch {id}: canceled {canceled}, known and in order {ascends}"));
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        match &self.wrong {
            Some(text) => bail!("{text}"),
            None => Ok(()),
        }
    }

    /// Checks that each watch had as many events as there were puts.
    fn check_all_had(&self, puts: u64) -> anyhow::Result<()> {
        let wrong = self.told.iter().filter(|told| told.0 != puts).count();
        ensure!(wrong == 0 && puts > 0, "{wrong} of {} watches had not {puts} events", self.told.len());
        Ok(())
    }
}

/// `Event.kv.mod_revision`.
fn event_revision(event: &[u8]) -> i64 {
    let mut revision = 0;
    fields(event, |field, value| {
        if let (2, Value::Bytes(kv)) = (field, value) {
            fields(kv, |field, value| {
                if let (3, Value::Number(number)) = (field, value) {
                    revision = number as i64;
                }
            });
        }
    });
    revision
}

/// A put and its events.
#[derive(Debug, Default)]
struct Delivery {
    answered_at_ns: Option<u64>,
    events: u64,
}

/// Puts under way, by their revisions, and how late their events were.
struct Deliveries {
    by_revision: BTreeMap<i64, Delivery>,
    watches: u64,
    /// Puts that all watches had the event of.
    done: u64,
    events: u64,
    lags_ns: Histogram<u64>,
    failed: Option<String>,
}

impl Deliveries {
    fn new(watches: u64) -> anyhow::Result<Deliveries> {
        Ok(Deliveries {
            by_revision: BTreeMap::new(),
            watches,
            done: 0,
            events: 0,
            lags_ns: Histogram::new_with_max(LAG_NS_MAX, 3)?,
            failed: None,
        })
    }

    /// An event that comes before its put's answer is not late at all.
    fn event(&mut self, revision: i64, now_ns: u64) {
        let delivery = self.by_revision.entry(revision).or_default();
        delivery.events += 1;
        let lag_ns = delivery.answered_at_ns.map_or(0, |answered| now_ns.saturating_sub(answered));
        self.events += 1;
        self.lags_ns.saturating_record(lag_ns);
        self.settle(revision);
    }

    fn answer(&mut self, message: &[u8], now_ns: u64) {
        let revision = header_revision(message);
        self.by_revision.entry(revision).or_default().answered_at_ns = Some(now_ns);
        self.settle(revision);
    }

    fn settle(&mut self, revision: i64) {
        let delivery = &self.by_revision[&revision];
        if delivery.answered_at_ns.is_some() && delivery.events == self.watches {
            self.by_revision.remove(&revision);
            self.done += 1;
        }
    }

    fn lag_us(&self, quantile: f64) -> f64 {
        self.lags_ns.value_at_quantile(quantile) as f64 / 1e3
    }
}

pub(super) fn fan_out(cell: &mut Cell<'_>) -> anyhow::Result<()> {
    let one_key = WatchCreateRequest { key: "watched/key".into(), ..WatchCreateRequest::default() };
    let prefix =
        WatchCreateRequest { key: "watched/".into(), range_end: "watched0".into(), ..one_key.clone() };
    let a_stream = cell.scaled(100);
    for (name, request, connections) in [("1 key", one_key, 10), ("prefix", prefix, 100)] {
        fan_out_of(cell, name, &request, (connections, a_stream))?;
    }
    Ok(())
}

fn fan_out_of(
    cell: &mut Cell<'_>,
    name: &str,
    request: &WatchCreateRequest,
    (connections, a_stream): (u64, u64),
) -> anyhow::Result<()> {
    let watches = connections * a_stream;
    // The last connection is for puts.
    let mut station = Station::connect(cell.server.client(), connections as usize + 1)?;
    let before = cell.resident_bytes()?;
    let mut watchers = Watchers::create(&mut station, (connections, a_stream), request)?;
    let after = cell.resident_bytes()?;

    let put = put_of("watched/key", cell.comparison.shape.value_bytes);
    let mut deliveries = Deliveries::new(watches)?;
    let spent = cell.spent()?;
    let began = Instant::now();
    let (mut puts, mut last_event) = (0, Instant::now());
    loop {
        let is_over = began.elapsed() >= cell.comparison.duration;
        while !is_over && ((puts - deliveries.done) as usize) < PUTS_UNDER_WAY_MAX {
            station.begin(connections as usize, PUT, &put, Taking::Messages)?;
            puts += 1;
        }
        if is_over && deliveries.done == puts {
            break;
        }
        let before = deliveries.events;
        turn(&mut station, &mut watchers, &mut deliveries, Duration::from_millis(100))?;
        if deliveries.events > before {
            last_event = Instant::now();
        }
        ensure!(
            last_event.elapsed() < EVENT_TIMEOUT,
            "interrupted: {} events of {puts} puts to {watches} watches",
            deliveries.events
        );
    }
    let elapsed = began.elapsed();
    let (server_us, own_us) = spent.us()?;
    watchers.check_all_had(puts)?;
    let events = deliveries.events as f64;
    cell.push(&format!("{name}: events/s"), events / elapsed.as_secs_f64());
    cell.push(&format!("{name}: server CPU, us/event"), server_us / events);
    cell.push(&format!("{name}: own CPU, us/event"), own_us / events);
    cell.push(&format!("{name}: lag p50, us"), deliveries.lag_us(0.5));
    cell.push(&format!("{name}: lag p99, us"), deliveries.lag_us(0.99));
    let grown = after.saturating_sub(before) as f64;
    cell.push(&format!("{name}: RSS growth, bytes/watch"), grown / watches as f64);
    Ok(())
}

fn put_of(key: &'static str, value_bytes: usize) -> Vec<u8> {
    framed(&PutRequest { key: key.into(), value: vec![b'v'; value_bytes].into(), ..PutRequest::default() })
}

/// A turn of a station whose streams are those of watches and of puts.
fn turn(
    station: &mut Station,
    watchers: &mut Watchers,
    deliveries: &mut Deliveries,
    pause: Duration,
) -> anyhow::Result<()> {
    station.turn(pause, |peer, now_ns, received| {
        if let Received::Message { message, .. } = &received
            && peer == watchers.streams.len()
        {
            return deliveries.answer(message, now_ns);
        }
        if let Received::Ended { outcome: Err(text), .. } = &received {
            deliveries.failed = Some(text.clone());
        }
        watchers.hear(peer, received, &mut |revision| deliveries.event(revision, now_ns));
    })?;
    watchers.check()?;
    match &deliveries.failed {
        Some(text) => bail!("{text}"),
        None => Ok(()),
    }
}

pub(super) fn lag(cell: &mut Cell<'_>) -> anyhow::Result<()> {
    let values = cell.scaled(RANGE_VALUES);
    let shape = Shape {
        value_bytes: RANGE_VALUE_BYTES,
        keys: values,
        order: Order::Sequential,
        ..cell.comparison.shape.clone()
    };
    let mut target = cell.target();
    target.in_flight = target.connections;
    fill(&shape, &target)?;
    let range = RangeRequest { key: "0".into(), range_end: "1".into(), ..RangeRequest::default() };
    lag_beside(cell, "idle", None)?;
    lag_beside(cell, "10 ranges of 10 MB", Some((&framed(&range), values)))
}

/// The lag of one watch, with ranges of so many values on its connection.
fn lag_beside(cell: &mut Cell<'_>, name: &str, ranges: Option<(&[u8], u64)>) -> anyhow::Result<()> {
    let request = WatchCreateRequest { key: "watched/key".into(), ..WatchCreateRequest::default() };
    let mut station = Station::connect(cell.server.client(), 2)?;
    let mut watchers = Watchers::create(&mut station, (1, 1), &request)?;
    let put = put_of("watched/key", cell.comparison.shape.value_bytes);
    let mut deliveries = Deliveries::new(1)?;
    let mut schedule =
        Schedule::new(Some(LAG_RATE), Stop { requests: None, duration: Some(cell.comparison.duration) });
    let spent = cell.spent()?;
    let (began_ns, mut open_ranges, mut done_ranges, mut bytes) = (station.now_ns(), 0, 0, 0);
    let mut last_event = Instant::now();
    loop {
        let now_ns = station.now_ns() - began_ns;
        // A server that is busy elsewhere may leave its window closed: what is due waits, and is not lost.
        while station.has_room(1, put.len()) && schedule.take(now_ns).is_some() {
            station.begin(1, PUT, &put, Taking::Messages)?;
        }
        let next = schedule.next_due(now_ns);
        if next.is_none() && deliveries.done == schedule.issued() && open_ranges == 0 {
            break;
        }
        if let Some((request, _)) = ranges {
            while next.is_some() && open_ranges < RANGES {
                station.begin(0, RANGE, request, Taking::Count)?;
                open_ranges += 1;
            }
        }
        let due_in = |due: u64| due.saturating_sub(now_ns).max(100_000);
        let pause = Duration::from_nanos(next.map_or(100_000_000, due_in));
        let (mut failed, before) = (None, deliveries.events + done_ranges);
        station.turn(pause, |peer, now_ns, received| match received {
            Received::Message { message, .. } if peer == 1 => deliveries.answer(message, now_ns),
            Received::Ended { outcome: Err(text), .. } => failed = Some(text),
            Received::Ended { counted, .. } if peer == 0 && counted.messages > 0 => {
                open_ranges -= 1;
                done_ranges += 1;
                bytes += counted.bytes;
                let values = ranges.map_or(0, |(_, values)| values);
                if counted.is_bad || counted.pairs != values {
                    failed = Some(format!("{counted:?} of {values}"));
                }
            }
            received => {
                watchers.hear(peer, received, &mut |revision| deliveries.event(revision, now_ns));
            }
        })?;
        watchers.check()?;
        failed.map_or(Ok(()), |text| Err(anyhow::anyhow!(text)))?;
        if deliveries.events + done_ranges > before {
            last_event = Instant::now();
        }
        ensure!(last_event.elapsed() < EVENT_TIMEOUT, "interrupted: {} events came", deliveries.events);
    }
    let elapsed_s = (station.now_ns() - began_ns) as f64 / 1e9;
    let (server_us, own_us) = spent.us().context("after the run")?;
    watchers.check_all_had(schedule.issued())?;
    ensure!(ranges.is_none() || done_ranges > 0, "no range was answered");
    cell.push(&format!("{name}: lag p50, us"), deliveries.lag_us(0.5));
    cell.push(&format!("{name}: lag p99, us"), deliveries.lag_us(0.99));
    cell.push(&format!("{name}: lag longest, ms"), deliveries.lags_ns.max() as f64 / 1e6);
    if ranges.is_some() {
        cell.push(&format!("{name}: MB/s"), bytes as f64 / 1e6 / elapsed_s);
    }
    cell.push(&format!("{name}: server CPU, share"), server_us / 1e6 / elapsed_s);
    cell.push(&format!("{name}: own CPU, share"), own_us / 1e6 / elapsed_s);
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use wire::etcdserverpb::WatchResponse;
    use wire::mvccpb::{Event, KeyValue};

    use super::*;

    fn watchers() -> Watchers {
        let (streams, told) = (vec![(0, 1), (1, 1)], vec![(0, 0); 4]);
        Watchers { streams, a_stream: 2, told, created: 0, wrong: None }
    }

    fn response(watch_id: i64, revisions: &[i64]) -> WatchResponse {
        let event = |revision: &i64| Event {
            kv: Some(KeyValue { mod_revision: *revision, ..KeyValue::default() }),
            ..Event::default()
        };
        WatchResponse { watch_id, events: revisions.iter().map(event).collect(), ..WatchResponse::default() }
    }

    fn hear(watchers: &mut Watchers, peer: usize, response: &WatchResponse) -> Vec<i64> {
        let mut told = Vec::new();
        let message = response.encode_to_vec();
        let received = Received::Message { stream: 1, message: &message };
        assert!(watchers.hear(peer, received, &mut |revision| told.push(revision)));
        told
    }

    #[test]
    fn every_event_is_counted() {
        let mut all = watchers();
        for peer in [0, 1] {
            for id in [1, 2] {
                assert_eq!(hear(&mut all, peer, &response(id, &[5])), [5]);
                assert!(all.check_all_had(2).is_err(), "one is missing");
                assert_eq!(hear(&mut all, peer, &response(id, &[6])), [6]);
            }
        }
        all.check().expect("nothing was wrong");
        all.check_all_had(2).expect("each had both");
        assert!(all.check_all_had(3).is_err() && all.check_all_had(1).is_err());
    }

    #[test]
    fn what_a_watch_must_not_be_told_is_noticed() {
        let canceled = WatchResponse { canceled: true, ..response(1, &[]) };
        for wrong in
            [response(1, &[5, 5]), response(1, &[6, 5]), response(3, &[5]), response(0, &[5]), canceled]
        {
            let mut watchers = watchers();
            hear(&mut watchers, 1, &wrong);
            assert!(watchers.check().is_err(), "{wrong:?}");
        }
        let mut watchers = watchers();
        let ended = Received::Ended { stream: 1, counted: Default::default(), outcome: Ok(()) };
        assert!(watchers.hear(0, ended, &mut |_| {}) && watchers.check().is_err());
    }

    #[test]
    fn a_put_is_done_when_it_is_answered_and_all_have_its_event() {
        let mut deliveries = Deliveries::new(2).expect("bounds");
        deliveries.event(7, 100);
        let header = Some(wire::etcdserverpb::ResponseHeader { revision: 7, ..Default::default() });
        let put = wire::etcdserverpb::PutResponse { header, ..Default::default() };
        deliveries.answer(&put.encode_to_vec(), 200);
        assert_eq!(deliveries.done, 0);
        deliveries.event(7, 1_200);
        assert_eq!((deliveries.done, deliveries.lags_ns.max(), deliveries.lags_ns.min()), (1, 1_000, 0));
    }
}
