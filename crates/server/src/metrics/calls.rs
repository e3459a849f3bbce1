//! What network threads count, all of them together: calls, requests, reads and watches.

use std::sync::Arc;

use wire::Code;

use super::Metrics;
use super::cells::{Counter, Durations, Reading, SECONDS};
use super::families::Id;
use super::lane::{CODES, LaneCounts, Timed};
use super::page::Page;
use crate::grpc::method::Method;

/// Services whose methods are on the page only once they are called: etcd adds them when it has listed the others.
const ADDED_LATER: [&str; 2] = ["v3lockpb.Lock", "v3electionpb.Election"];

/// `true` and `false` as a label, by number.
const SUCCESS: [&str; 2] = ["false", "true"];

/// Adds them.
pub(super) fn add(page: &mut Page, metrics: &Metrics) {
    let lanes = Lanes(metrics.lanes());
    calls(page, &lanes);
    clients(page, metrics, &lanes);
    requests(page, metrics, &lanes);
    watches(page, &lanes);
    let stream_failures = ["watch", "lease-keepalive"].into_iter().enumerate();
    for (place, api) in stream_failures {
        let failures = lanes.sum(|lane| &lane.stream_failures[place]);
        if failures > 0.0 {
            page.sample(Id::StreamFailures, [api.into(), "receive".into()], failures);
        }
    }
}

struct Lanes(Vec<Arc<LaneCounts>>);

impl Lanes {
    fn sum(&self, counter: impl Fn(&LaneCounts) -> &Counter) -> f64 {
        self.0.iter().map(|lane| counter(lane).get()).sum::<u64>() as f64
    }

    fn joined<const FIRST: u64, const N: usize>(
        &self,
        durations: impl Fn(&LaneCounts) -> &Durations<FIRST, N>,
    ) -> Reading {
        let readings = self.0.iter().map(|lane| durations(lane).read(SECONDS));
        readings.fold(Reading::default(), Reading::and)
    }
}

fn calls(page: &mut Page, lanes: &Lanes) {
    for method in Method::all() {
        let (service, name) = method.names();
        let shape = method.shape().name();
        let labels = || [name.into(), service.into(), shape.into()];
        let started = lanes.sum(|lane| &lane.method(method).started);
        if started == 0.0 && ADDED_LATER.contains(&service) {
            continue;
        }
        page.sample(Id::GrpcStarted, labels(), started);
        page.sample(Id::GrpcMessagesReceived, labels(), lanes.sum(|lane| &lane.method(method).received));
        page.sample(Id::GrpcMessagesSent, labels(), lanes.sum(|lane| &lane.method(method).sent));
        for number in 0..CODES {
            let handled = lanes.sum(|lane| &lane.method(method).handled[number]);
            // What is added later has no code before the first call that comes to it.
            if handled > 0.0 || !ADDED_LATER.contains(&service) {
                let code = format!("{:?}", Code::from_number(number as u32));
                let code = if number == 0 { "OK".to_owned() } else { code };
                page.sample(
                    Id::GrpcHandled,
                    [code.into(), name.into(), service.into(), shape.into()],
                    handled,
                );
            }
        }
        let handling = lanes.0.iter().filter_map(|lane| lane.handling(method)).map(|calls| calls.read());
        let handling = handling.fold(Reading::default(), Reading::and);
        if !handling.buckets.is_empty() {
            page.histogram(Id::GrpcHandling, labels(), handling);
        }
    }
    page.number(Id::GrpcSent, lanes.sum(|lane| &lane.sent_bytes));
    page.number(Id::GrpcReceived, lanes.sum(|lane| &lane.received_bytes));
}

fn clients(page: &mut Page, metrics: &Metrics, lanes: &Lanes) {
    // Not while the sums are made: a call of a version that its thread has not met waits for them.
    let versions = super::lock(&metrics.versions).clone();
    for (number, version) in versions.names() {
        for (is_stream, kind) in [(false, "unary"), (true, "stream")] {
            let calls = lanes.sum(|lane| lane.clients(is_stream, number));
            if calls > 0.0 {
                page.sample(Id::ClientRequests, [version.to_owned().into(), kind.into()], calls);
            }
        }
    }
}

fn requests(page: &mut Page, metrics: &Metrics, lanes: &Lanes) {
    for (timed, name) in Timed::all() {
        for (place, success) in SUCCESS.into_iter().enumerate() {
            let reading = lanes.joined(|lane| &lane.requests(timed)[place]);
            if reading.count > 0 {
                page.histogram(Id::RequestTimes, [success.into(), name.into()], reading);
            }
        }
    }
    for (place, success) in SUCCESS.into_iter().enumerate() {
        let reading = lanes.joined(|lane| &lane.ranges[place]);
        if reading.count > 0 {
            page.histogram(Id::RangeTimes, [success.into()], reading);
        }
    }
    let member = &metrics.member;
    page.number(Id::Ranges, lanes.sum(|lane| &lane.ranges_read) + member.ops.ranges.get() as f64);
    page.number(Id::Txns, lanes.sum(|lane| &lane.txns_read) + member.ops.txns.get() as f64);
    page.number(Id::ProposalsPending, lanes.sum(|lane| &lane.proposals_pending));
    page.number(Id::ProposalsFailed, lanes.sum(|lane| &lane.proposals_failed));
    page.number(Id::SlowReadIndexes, lanes.sum(|lane| &lane.slow_read_indexes));
    page.number(Id::FailedReadIndexes, lanes.sum(|lane| &lane.failed_read_indexes));
}

fn watches(page: &mut Page, lanes: &Lanes) {
    page.number(Id::WatchStreams, lanes.sum(|lane| &lane.watches.streams));
    page.number(Id::Watchers, lanes.sum(|lane| &lane.watches.watches));
    page.number(Id::WatchersBehind, lanes.sum(|lane| &lane.watches.behind));
    page.number(Id::EventsTotal, lanes.sum(|lane| &lane.watches.events));
    page.number(Id::EventsPending, lanes.sum(|lane| &lane.watches.events_waiting));
    page.histogram(Id::EventSends, [], lanes.joined(|lane| &lane.watches.event_sends));
    page.histogram(Id::EventShares, [], lanes.joined(|lane| &lane.watches.event_shares));
    page.histogram(Id::ControlSends, [], lanes.joined(|lane| &lane.watches.control_sends));
    page.histogram(Id::ProgressTurns, [], lanes.joined(|lane| &lane.watches.progress_turns));
}
