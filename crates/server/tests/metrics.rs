//! Calls as they are counted, and the list of metrics that operators read.

#![allow(missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use server::grpc::method::route;
use server::metrics::{FAMILIES, Format, MethodCounts};
use store::RequestKind;
use support::Mood;
use support::bed::{Bed, Stream, bed, ended, frame, settle};
use tokio::time::Instant;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::watch_request::RequestUnion;
use wire::{ApiError, Code};

const MS: Duration = Duration::from_millis(1);
const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// The page for operators, which has the same list.
const PAGE: &str = include_str!("../../../docs/operating/metrics.md");

#[test]
fn the_page_for_operators_lists_every_family_with_its_kind_and_labels() {
    let rows = PAGE.lines().filter_map(|line| {
        let [name, kind, labels, meaning] =
            line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ").collect::<Vec<_>>()[..]
        else {
            return None;
        };
        assert!(!meaning.is_empty(), "{name}");
        Some((name.trim_end_matches('`'), (kind.to_owned(), labels.replace(['`', ' '], ""))))
    });
    let listed: BTreeMap<&str, _> = rows.collect();
    let labels = |labels: &[&str]| if labels.is_empty() { "-".to_owned() } else { labels.join(",") };
    let families = FAMILIES.iter();
    let families: BTreeMap<&str, _> = families
        .map(|family| (family.name, (family.kind.name().to_owned(), labels(family.labels))))
        .collect();
    assert_eq!(listed, families);
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), ..pb::PutRequest::default() }
}

fn counts<'a>(bed: &'a Bed, path: &str) -> &'a MethodCounts {
    bed.lane.counts().method(route(path).unwrap().0)
}

/// How many calls of a method have begun, ended with a code, and ended at all.
fn calls(bed: &Bed, path: &str, code: Code) -> (u64, u64, u64) {
    let counts = counts(bed, path);
    let handled = counts.handled.iter().map(|handled| handled.get()).sum();
    (counts.started.get(), counts.handled[usize::from(code.number())].get(), handled)
}

fn messages(bed: &Bed, path: &str) -> (u64, u64) {
    (counts(bed, path).received.get(), counts(bed, path).sent.get())
}

#[test]
fn a_call_counts_once_under_the_code_that_it_ends_with() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        assert_eq!(client.call(PUT, &put("a")).await.status.code, Code::Ok);
        assert_eq!(calls(&bed, PUT, Code::Ok), (1, 1, 1));
        client.call(PUT, &put("")).await.refused(ApiError::EmptyKey);
        assert_eq!(calls(&bed, PUT, Code::InvalidArgument), (2, 1, 2));
        assert_eq!(messages(&bed, PUT), (2, 2), "an error counts as a message, as in etcd");
        assert_eq!(client.call("/etcdserverpb.KV/Nothing", &put("a")).await.status.code, Code::Unimplemented);
        assert_eq!(calls(&bed, PUT, Code::Unimplemented), (2, 0, 2), "there is no such method");

        let status = pb::StatusRequest {};
        assert_eq!(client.call(STATUS, &status).await.status.code, Code::Ok);
        assert_eq!((calls(&bed, STATUS, Code::Ok), messages(&bed, STATUS)), ((1, 1, 1), (1, 1)));

        // Without an answer it is pending, and canceled when its client resets it.
        bed.member.set_mood(Mood::Holds);
        let (response, mut stream) = client.open(PUT, &[]);
        stream.send_data(frame(&put("b")), true).unwrap();
        settle().await;
        assert_eq!(bed.lane.counts().proposals_pending.get(), 1);
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        settle().await;
        assert_eq!(calls(&bed, PUT, Code::Canceled), (3, 1, 3));
        let counts = bed.lane.counts();
        assert_eq!((counts.proposals_pending.get(), counts.proposals_failed.get()), (0, 1));
        // One that is late ends with that.
        let late = client.raw(PUT, &[("grpc-timeout", b"50m")], frame(&put("c"))).await;
        assert_eq!(late.status.code, Code::DeadlineExceeded);
        assert_eq!(calls(&bed, PUT, Code::DeadlineExceeded), (4, 1, 4));
        let timed = counts.requests(server::metrics::Timed::Kind(RequestKind::Put));
        let took = timed.each_ref().map(|durations| durations.read(1.0).count);
        assert_eq!(took, [2, 1], "two without an answer");
    });
}

#[test]
fn a_change_of_membership_is_no_proposal_that_counts() {
    bed(|bed| async move {
        bed.member.set_mood(Mood::Holds);
        let handle = bed.lane.handle();
        let change = tokio::spawn(async move { handle.reconfigure(None, |_| (Vec::new(), None)).await });
        settle().await;
        assert_eq!(bed.member.held().len(), 1);
        let counts = bed.lane.counts();
        assert_eq!((counts.proposals_pending.get(), counts.proposals_failed.get()), (0, 0));
        tokio::time::sleep(bed.lane.request_timeout() * 2).await;
        change.await.unwrap().unwrap_err();
        assert_eq!((counts.proposals_pending.get(), counts.proposals_failed.get()), (0, 0));
    });
}

#[test]
fn a_round_of_reads_without_an_answer_is_slow_once_whoever_waits() {
    bed(|bed| async move {
        bed.member.set_mood(Mood::Holds);
        let counts = bed.lane.counts();
        let timeout = bed.lane.request_timeout();
        let read = |after, deadline: Option<Duration>| {
            let handle = bed.lane.handle();
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                handle.linearizable(deadline.map(|deadline| Instant::now() + deadline)).await
            })
        };
        let second = Duration::from_secs(1);
        // Their clients have given up long before; the others' times end one after another.
        let impatient = read(Duration::ZERO, Some(second));
        let patient: Vec<_> = (1..4).map(|number| read(second * 2 + number * MS, None)).collect();
        tokio::time::sleep(timeout - second / 10).await;
        impatient.await.unwrap().unwrap_err();
        assert_eq!(counts.slow_read_indexes.get(), 0);
        tokio::time::sleep(second / 5).await;
        assert_eq!(counts.slow_read_indexes.get(), 1);
        for read in patient {
            read.await.unwrap().unwrap_err();
        }
        assert_eq!(counts.slow_read_indexes.get(), 1);
    });
}

#[test]
fn the_versions_of_clients_are_told_apart() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let version: &[(&str, &[u8])] = &[("client-api-version", b"3.7.1")];
        client.raw(PUT, version, frame(&put("a"))).await;
        client.raw(RANGE, version, frame(&pb::RangeRequest { key: "a".into(), ..Default::default() })).await;
        client.call(PUT, &put("a")).await;
        let broken = client.raw(PUT, &[("client-api-version", b"\xff")], frame(&put("a"))).await;
        broken.refused(ApiError::InvalidClientApiVersion);
        let page = page(&bed);
        for (version, calls) in [("3.7.1", 2), ("unknown", 1)] {
            let labels = format!("{{client_api_version=\"{version}\",type=\"unary\"}}");
            assert!(page.contains(&format!("etcd_server_client_requests_total{labels} {calls}\n")), "{page}");
        }
    });
}

/// The page as text.
fn page(bed: &Bed) -> String {
    let member = bed.lane.member();
    let page = member.metrics.page(&member, Format::of(&http::HeaderMap::new()));
    String::from_utf8(page.bytes).unwrap()
}

#[test]
fn watches_and_their_events_are_counted_until_they_end() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let mut stream = Stream::open(&mut client, WATCH, &[]);
        let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
        stream.send(&pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        let created: pb::WatchResponse = stream.next().await;
        assert!(created.created);
        let watches = &bed.lane.counts().watches;
        assert_eq!((watches.streams.get(), watches.watches.get(), watches.events.get()), (1, 1, 0));
        client.call(PUT, &put("a")).await;
        client.call(PUT, &put("b")).await;
        let told: pb::WatchResponse = stream.next().await;
        assert_eq!(told.events.len(), 1);
        settle().await;
        assert_eq!((watches.events.get(), watches.events_waiting.get()), (1, 0));
        assert_eq!(watches.event_sends.read(1.0).count, 1);
        assert_eq!((messages(&bed, WATCH), calls(&bed, WATCH, Code::Ok)), ((1, 2), (1, 0, 0)));
        drop(stream);
        settle().await;
        assert_eq!((watches.streams.get(), watches.watches.get()), (0, 0));
        assert_eq!(calls(&bed, WATCH, Code::Canceled), (1, 1, 1));
    });
}

#[test]
fn a_call_that_is_not_whole_yet_has_not_begun() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let (response, mut stream) = client.open(PUT, &[("grpc-timeout", b"1S")]);
        stream.send_data(frame(&put("a")).slice(..3), false).unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(ended(response).await.status.code, Code::DeadlineExceeded);
        assert_eq!(calls(&bed, PUT, Code::DeadlineExceeded), (0, 0, 0));
    });
}
