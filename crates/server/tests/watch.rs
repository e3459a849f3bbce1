//! The stream of watches: what a client sends and gets, and what one costs that does not read.
#![allow(missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use node::Completions;
use server::grpc::GrpcConfig;
use support::bed::{Bed, Client, Stream, bed, bed_with, frame, header, settle};
use wire::etcdserverpb as pb;
use wire::etcdserverpb::watch_request::RequestUnion;
use wire::{ApiError, Code, Status};

const WATCH: &str = "/etcdserverpb.Watch/Watch";

fn create(key: &str, end: &str) -> pb::WatchCreateRequest {
    let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
    pb::WatchCreateRequest { key, range_end, ..Default::default() }
}

/// A stream as its client has it.
struct Watch(Stream);

impl Watch {
    fn open(client: &mut Client, extra: &[(&str, &[u8])]) -> Watch {
        Watch(Stream::open(client, WATCH, extra))
    }

    fn ask(&mut self, union: RequestUnion) {
        self.0.send(&pb::WatchRequest { request_union: Some(union) });
    }

    async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.ask(RequestUnion::CreateRequest(request));
        let created = self.next().await;
        assert!(created.created, "{created:?}");
        created
    }

    async fn next(&mut self) -> pb::WatchResponse {
        self.0.next().await
    }

    async fn end(self) -> Status {
        self.0.end().await
    }
}

fn keys(response: &pb::WatchResponse) -> Vec<&[u8]> {
    response.events.iter().map(|event| &event.kv.as_ref().unwrap().key[..]).collect()
}

#[test]
fn the_first_answer_has_the_term_of_this_moment() {
    bed(|bed| async move {
        bed.member.status.set_term(5);
        let mut client = bed.client().await;
        let created = Watch::open(&mut client, &[]).create(create("a", "")).await;
        assert_eq!(created.header.unwrap().raft_term, 5);
    });
}

#[test]
fn many_watches_on_one_stream() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let mut watch = Watch::open(&mut client, &[]);
        let created = watch.create(create("a", "")).await;
        assert_eq!((created.header, created.watch_id), (header(1), 0));
        assert_eq!(watch.create(create("a", "c")).await.watch_id, 1);
        bed.member.put_direct(b"a", b"1".to_vec());
        for id in [0, 1] {
            let got = watch.next().await;
            assert_eq!((got.header, got.watch_id, keys(&got)), (header(2), id, vec![&b"a"[..]]));
        }
        watch.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 }));
        let canceled = watch.next().await;
        assert!(canceled.canceled && canceled.watch_id == 0);
        bed.member.put_direct(b"b", b"1".to_vec());
        bed.member.put_direct(b"a", b"2".to_vec());
        assert_eq!(keys(&watch.next().await), [b"b"]);
        assert_eq!(keys(&watch.next().await), [b"a"]);
        watch.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
        let told = watch.next().await;
        assert_eq!((told.header, told.watch_id, told.events.len()), (header(4), -1, 0));
        // One that has said all still listens.
        watch.0.requests.send_data(Bytes::new(), true).unwrap();
        bed.member.put_direct(b"bb", b"".to_vec());
        assert_eq!(keys(&watch.next().await), [b"bb"]);
    });
}

#[test]
fn history_is_read_off_the_thread() {
    bed(|bed| async move {
        for i in 0..100u8 {
            bed.member.put_direct(&[b'k', i], vec![i]);
        }
        bed.member.set_cold(true);
        let mut client = bed.client().await;
        let mut watch = Watch::open(&mut client, &[]);
        watch.create(pb::WatchCreateRequest { start_revision: 2, prev_kv: true, ..create("k", "l") }).await;
        let got = watch.next().await;
        assert_eq!(got.events.len(), 100);
        assert_eq!(got.header, header(101));
    });
}

#[test]
fn a_stream_that_is_cut_is_forgotten() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let mut watches: Vec<Watch> = (0..3).map(|_| Watch::open(&mut client, &[])).collect();
        for watch in &mut watches {
            watch.create(create("a", "")).await;
        }
        assert_eq!(bed.lane.watches(), 3);
        drop(watches.pop());
        settle().await;
        assert_eq!(bed.lane.watches(), 2);
        watches[0].0.requests.send_reset(h2::Reason::CANCEL);
        settle().await;
        assert_eq!(bed.lane.watches(), 1);
        drop((watches, client));
        settle().await;
        assert_eq!(bed.lane.watches(), 0);
    });
}

#[test]
fn faults_end_the_stream() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let mut watch = Watch::open(&mut client, &[]);
        watch.0.requests.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 0x0a, 0x7f]), false).unwrap();
        let status = watch.end().await;
        assert_eq!(status.code, Code::Internal);
        assert!(status.message.starts_with("grpc: failed to unmarshal the received message: "), "{status}");
        let mut watch = Watch::open(&mut client, &[]);
        watch.0.requests.send_data(Bytes::from_static(&[0, 0, 0]), true).unwrap();
        assert_eq!(watch.end().await, Status::new(Code::Internal, "unexpected EOF"));
        let mut watch = Watch::open(&mut client, &[]);
        watch.0.requests.send_data(Bytes::from_static(&[0, 0x7f, 0, 0, 0]), false).unwrap();
        assert_eq!(watch.end().await.code, Code::ResourceExhausted);
        // One that means nothing ends nothing.
        let mut watch = Watch::open(&mut client, &[]);
        watch.0.requests.send_data(frame(&pb::WatchRequest::default()), false).unwrap();
        watch.create(create("a", "")).await;
        let mut late = Watch::open(&mut client, &[("grpc-timeout", b"1S")]);
        late.create(create("a", "")).await;
        assert_eq!(late.end().await, ApiError::ContextDeadlineExceeded.into());
        assert_eq!(bed.lane.watches(), 1);
    });
}

#[test]
fn a_stream_that_needs_a_leader_ends_without_one() {
    bed(|bed| async move {
        let needs: &[(&str, &[u8])] = &[("hasleader", b"true")];
        let mut client = bed.client().await;
        let mut watch = Watch::open(&mut client, needs);
        watch.create(create("a", "")).await;
        let mut patient = Watch::open(&mut client, &[]);
        patient.create(create("a", "")).await;
        bed.member.status.set_leader(0);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        bed.member.status.set_leader(7);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(bed.lane.watches(), 2, "it was not long enough");
        bed.member.status.set_leader(0);
        assert_eq!(watch.end().await, ApiError::NoLeader.into());
        assert_eq!(bed.lane.watches(), 1);
        assert_eq!(Watch::open(&mut client, needs).end().await, ApiError::NoLeader.into());
    });
}

#[test]
fn progress_is_told_at_an_interval() {
    let interval = Duration::from_secs(10);
    bed_with(GrpcConfig { watch_progress_interval: interval, ..GrpcConfig::default() }, |bed| async move {
        let mut client = bed.client().await;
        let mut watch = Watch::open(&mut client, &[]);
        watch.create(create("a", "")).await;
        watch.create(pb::WatchCreateRequest { progress_notify: true, ..create("b", "") }).await;
        let began = tokio::time::Instant::now();
        let told = watch.next().await;
        assert_eq!((told.header, told.watch_id, told.events.len()), (header(1), 1, 0));
        let first = began.elapsed();
        assert!(first >= interval && first <= interval * 11 / 10, "{first:?}");
        bed.member.put_direct(b"b", b"1".to_vec());
        assert_eq!(keys(&watch.next().await), [b"b"]);
        // An event was as good as being told.
        let told = watch.next().await;
        assert_eq!((told.header, told.events.len()), (header(2), 0));
        assert_eq!(began.elapsed() - first, 2 * interval);
    });
}

#[test]
fn streams_end_with_the_thread() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let mut watch = Watch::open(&mut client, &[]);
        watch.create(create("a", "")).await;
        bed.lane.drain();
        assert_eq!(watch.end().await, ApiError::Stopped.into());
    });
    bed(|bed| async move {
        let mut client = bed.client().await;
        let mut watch = Watch::open(&mut client, &[]);
        watch.create(create("a", "")).await;
        bed.member.stop();
        assert_eq!(watch.end().await, ApiError::Stopped.into());
    });
}

/// Puts values of `bytes` bytes, and lets everything run after each.
async fn put_many(bed: &Bed, count: usize, bytes: usize) {
    for _ in 0..count {
        bed.member.put_direct(b"a", vec![b'x'; bytes]);
        settle().await;
    }
}

#[test]
fn a_client_that_does_not_read_costs_a_bounded_amount() {
    const VALUE_BYTES: usize = 32 << 10;
    const PUTS: usize = 400;
    bed(|bed| async move {
        let mut reader = bed.client().await;
        let mut quick = Watch::open(&mut reader, &[]);
        quick.create(create("a", "")).await;
        let mut stopped = bed.client().await;
        let mut slow = Watch::open(&mut stopped, &[]);
        slow.create(create("a", "")).await;
        let mut most = 0;
        for _ in 0..PUTS {
            put_many(&bed, 1, VALUE_BYTES).await;
            assert_eq!(quick.next().await.events.len(), 1, "nobody waits for the slow one");
            most = most.max(bed.lane.watch_bytes());
        }
        // What waits for a stream, and one response more.
        assert!(most >= 1 << 20, "{most}: it was not slow");
        assert!(most <= (1 << 20) + VALUE_BYTES + 100, "{most} bytes wait");
        // It missed nothing.
        let (mut events, mut revision) = (0, 1);
        while events < PUTS {
            for event in slow.next().await.events {
                events += 1;
                revision += 1;
                assert_eq!(event.kv.unwrap().mod_revision, revision);
            }
        }
        settle().await;
        assert_eq!(bed.lane.watch_bytes(), 0);
    });
}

#[test]
fn a_client_that_only_asks_is_not_heard_further() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let mut watch = Watch::open(&mut client, &[]);
        watch.create(create("a", "")).await;
        // Each request would be answered; the answers are not read.
        let mut ask = async |count: usize| {
            for _ in 0..count {
                watch.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
            }
            settle().await;
            bed.lane.watch_bytes()
        };
        let mut asked = 0;
        while ask(5_000).await < 1 << 20 {
            asked += 5_000;
            assert!(asked < 1_000_000, "each is answered at once");
        }
        let waiting = ask(5_000).await;
        assert!((1 << 20..(1 << 20) + 100).contains(&waiting), "{waiting} bytes wait");
        assert_eq!(ask(5_000).await, waiting, "it is not heard any more");
    });
}

#[test]
fn a_client_may_cancel_while_it_does_not_read() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let mut watch = Watch::open(&mut client, &[]);
        watch.create(create("a", "")).await;
        put_many(&bed, 20, 32 << 10).await;
        watch.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 }));
        settle().await;
        assert_eq!(bed.lane.watches(), 0);
        let mut got = watch.next().await;
        while !got.canceled {
            got = watch.next().await;
        }
    });
}

#[test]
fn a_lane_is_told_of_news_only_when_it_waits_for_it() {
    bed(|bed| async move {
        bed.member.put_direct(b"a", Vec::new());
        assert!(!bed.member.gate.take_watch(), "there are no watches");
        let mut client = bed.client().await;
        let mut watch = Watch::open(&mut client, &[]);
        watch.create(create("a", "")).await;
        settle().await;
        assert!(bed.member.gate.take_watch());
        assert!(!bed.member.gate.take_watch(), "it knows");
        bed.member.send(Completions::default());
        settle().await;
        assert!(bed.member.gate.take_watch());
    });
}
