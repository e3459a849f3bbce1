//! Reads that are long, or wait for a disk: what they cost others, and what ends them. Counted, not timed: each read of a
//! record that may wait is held until the test lets it go on.
#![allow(missing_docs, reason = "tests")]

mod support;

use std::future::poll_fn;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use prost::Message;
use server::grpc::turns::Length;
use support::bed::{Bed, Client, bed, ended, frame, settle, status_of};
use tokio::task::spawn_local;
use wire::ApiError;
use wire::etcdserverpb as pb;

const RANGE: &str = "/etcdserverpb.KV/Range";
const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
const MIB: usize = 1 << 20;
/// After this nothing more is believed to begin. Waited for only where a test fails, or as a proof that nothing does.
const NEVER: Duration = Duration::from_secs(5);

fn local(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), serializable: true, ..Default::default() }
}

/// All keys below `prefix`, which ends with a slash.
fn below(prefix: &str) -> pb::RangeRequest {
    let end = format!("{}0", &prefix[..prefix.len() - 1]);
    pb::RangeRequest { range_end: end.into(), ..local(prefix) }
}

/// Puts so many values of a MiB.
fn put_large(bed: &Bed, prefix: &str, count: usize) {
    (0..count).for_each(|i| bed.member.put_direct(format!("{prefix}{i:03}").as_bytes(), vec![7; MIB]));
}

async fn start(client: &mut Client, path: &str, request: &pb::RangeRequest) -> ResponseFuture {
    poll_fn(|cx| client.requests.poll_ready(cx)).await.unwrap();
    client.start(path, &[], frame(request))
}

/// Waits until a read of this record has begun; how many others have before. `Err`: it never does.
async fn begins(begun: Receiver<u64>, record: u64) -> (Receiver<u64>, Result<usize, usize>) {
    let wait = move || {
        let mut others = 0;
        loop {
            match begun.recv_timeout(NEVER) {
                Ok(known) if known == record => return (begun, Ok(others)),
                Ok(_) => others += 1,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return (begun, Err(others));
                }
            }
        }
    };
    tokio::task::spawn_blocking(wait).await.unwrap()
}

/// Waits until so many reads of record 0 have begun.
async fn all_begin(mut begun: Receiver<u64>, count: usize) -> Receiver<u64> {
    for _ in 0..count {
        let others;
        (begun, others) = begins(begun, 0).await;
        assert_eq!(others, Ok(0));
    }
    begun
}

#[test]
fn one_connections_cold_reads_leave_turns_to_others() {
    bed(|bed| async move {
        bed.member.put_direct(b"many", b"v".to_vec());
        bed.member.put_direct(b"one", b"v".to_vec());
        bed.member.set_cold(true);
        let (begun, permit) = bed.member.hold_reads();
        let (mut greedy, mut other) = (bed.client().await, bed.client().await);
        let mut calls = Vec::new();
        for _ in 0..50 {
            calls.push(start(&mut greedy, RANGE, &local("many")).await);
        }
        greedy.ping().await;
        let one = start(&mut other, RANGE, &local("one")).await;
        let (_begun, others) = begins(begun, 1).await;
        assert_eq!(others, Ok(8), "of twelve turns one connection has at most eight");
        drop(permit);
        for call in calls.into_iter().chain([one]) {
            assert_eq!(ended(call).await.decoded::<pb::RangeResponse>().count, 1);
        }
    });
}

/// Long ranges in a loop, and many streams of large values: a brief read that waits for a disk, and another's long one,
/// begin all the same.
#[test]
fn long_reads_leave_turns_to_others() {
    for path in [RANGE, RANGE_STREAM] {
        bed(|bed| async move {
            put_large(&bed, "large/", 4);
            put_large(&bed, "other/", 1);
            bed.member.put_direct(b"brief", b"v".to_vec());
            let (mut greedy, mut other) = (bed.client().await, bed.client().await);
            let (begun, permit) = bed.member.hold_reads();
            let mut calls = Vec::new();
            for _ in 0..50 {
                calls.push(start(&mut greedy, path, &below("large/")).await);
            }
            greedy.ping().await;
            let long = start(&mut other, RANGE, &below("other/")).await;
            let (begun, others) = begins(begun, 4).await;
            assert!(others.is_ok(), "a long read waits behind {others:?} of another connection");
            bed.member.set_cold(true);
            let brief = start(&mut other, RANGE, &local("brief")).await;
            let (_begun, others) = begins(begun, 5).await;
            assert!(others.is_ok(), "a brief read waits for long ones");
            drop(permit);
            drop(calls);
            // Both at once: an answer that is not read keeps the connection's window from the other.
            for call in [brief, long].map(|call| spawn_local(ended(call))) {
                assert_eq!(call.await.unwrap().decoded::<pb::RangeResponse>().count, 1);
            }
        });
    }
}

#[test]
fn a_read_whose_client_is_gone_is_not_run() {
    bed(|bed| async move {
        bed.member.put_direct(b"k", b"v".to_vec());
        bed.member.set_cold(true);
        let (begun, permit) = bed.member.hold_reads();
        let mut client = bed.client().await;
        let mut calls = Vec::new();
        for _ in 0..100 {
            calls.push(start(&mut client, RANGE, &local("k")).await);
        }
        client.ping().await;
        let reads = bed.lane.member().reads.clone();
        let begun = all_begin(begun, 8).await;
        // There is room for 32 answers of a brief read's estimate; the others wait for room before they wait for turns.
        assert_eq!(reads.waiting(Length::Brief), 32 - 8);
        drop(calls);
        client.ping().await;
        assert_eq!(reads.waiting(Length::Brief), 0, "what is reset is forgotten");
        drop(permit);
        settle().await;
        assert_eq!(begun.try_iter().count(), 0, "only what had begun goes on");
        ended(start(&mut client, RANGE, &local("k")).await).await.decoded::<pb::RangeResponse>();
    });
}

#[test]
fn a_long_read_ends_with_its_client() {
    for path in [RANGE, RANGE_STREAM] {
        bed(|bed| async move {
            put_large(&bed, "large/", 5);
            let (begun, permit) = bed.member.hold_reads();
            let mut client = bed.client().await;
            let call = start(&mut client, path, &below("large/")).await;
            client.ping().await;
            let (begun, others) = begins(begun, 0).await;
            assert_eq!(others, Ok(0));
            drop(call);
            client.ping().await;
            drop(permit);
            settle().await;
            assert_eq!(begun.try_iter().count(), 0, "records are read for nobody");
        });
    }
}

#[test]
fn a_read_whose_deadline_passes_is_not_run() {
    bed(|bed| async move {
        bed.member.put_direct(b"k", b"v".to_vec());
        bed.member.set_cold(true);
        let (begun, permit) = bed.member.hold_reads();
        let mut client = bed.client().await;
        let mut calls = Vec::new();
        for _ in 0..20 {
            poll_fn(|cx| client.requests.poll_ready(cx)).await.unwrap();
            calls.push(client.start(RANGE, &[("grpc-timeout", b"1S")], frame(&local("k"))));
        }
        client.ping().await;
        let begun = all_begin(begun, 8).await;
        tokio::time::advance(Duration::from_secs(2)).await;
        for call in calls {
            ended(call).await.refused(ApiError::ContextDeadlineExceeded);
        }
        assert_eq!(bed.lane.member().reads.waiting(Length::Brief), 0);
        drop(permit);
        settle().await;
        assert_eq!(begun.try_iter().count(), 0);
    });
}

/// A client that takes nothing of a stream's window at first.
async fn lazy_client(bed: &Bed) -> SendRequest<Bytes> {
    let (ours, _) = bed.pipe(1 << 16);
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 16).initial_connection_window_size(1 << 30);
    let (requests, connection) = builder.handshake::<_, Bytes>(ours).await.unwrap();
    spawn_local(async move { drop(connection.await) });
    requests
}

async fn send(requests: &mut SendRequest<Bytes>, path: &str, request: &impl Message) -> ResponseFuture {
    poll_fn(|cx| requests.poll_ready(cx)).await.unwrap();
    let (response, mut stream) = requests.send_request(Client::request(path, &[]), false).unwrap();
    stream.send_data(frame(request), true).unwrap();
    response
}

/// All of an answer, messages and all.
async fn bytes_of(response: ResponseFuture) -> usize {
    body_bytes(response.await.unwrap().into_body()).await
}

async fn body_bytes(mut body: RecvStream) -> usize {
    let mut bytes = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        bytes += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    bytes
}

/// The answers of a client that reads nothing are made as far as there is room, also where their reads take long; and a
/// brief read does not wait for long answers to be taken.
#[test]
fn long_answers_that_are_not_read_are_bounded() {
    // A range of 8 MiB is made until more than 16 MiB are there; a chunk is of at most 3 MiB.
    for (path, records_max) in [(RANGE, 24), (RANGE_STREAM, 18)] {
        bed(|bed| async move {
            put_large(&bed, "large/", 8);
            bed.member.put_direct(b"brief", b"v".to_vec());
            let mut client = lazy_client(&bed).await;
            let mut calls = Vec::new();
            for _ in 0..20 {
                calls.push(send(&mut client, path, &below("large/")).await);
            }
            settle().await;
            let records = bed.member.reads();
            assert!((2..=records_max).contains(&records), "{records} records of 1 MiB were read for {path}");
            let brief: pb::RangeResponse =
                ended(send(&mut client, RANGE, &local("brief")).await).await.decoded();
            assert_eq!(brief.count, 1);
            let readers: Vec<_> = calls.into_iter().map(|call| spawn_local(bytes_of(call))).collect();
            for reader in readers {
                assert!(reader.await.unwrap() > 8 * MIB);
            }
            assert_eq!(bed.member.reads(), 20 * 8 + 1, "each record is read once for each answer");
        });
    }
}

/// So are answers that are no reads, where they grow with what is stored.
#[test]
fn lists_that_are_not_read_are_bounded() {
    const CALLS: usize = 40;
    bed(|bed| async move {
        let mut client = bed.client().await;
        let grant = pb::LeaseGrantRequest { id: 5, ttl: 1000 };
        client.call("/etcdserverpb.Lease/LeaseGrant", &grant).await.decoded::<pb::LeaseGrantResponse>();
        let put = pb::PutRequest { key: vec![b'k'; MIB].into(), lease: 5, ..Default::default() };
        client.call("/etcdserverpb.KV/Put", &put).await.decoded::<pb::PutResponse>();
        let mut lazy = lazy_client(&bed).await;
        let ask = pb::LeaseTimeToLiveRequest { id: 5, keys: true };
        let mut heads = Vec::new();
        for _ in 0..CALLS {
            let call = send(&mut lazy, "/etcdserverpb.Lease/LeaseTimeToLive", &ask).await;
            heads.push(spawn_local(async move { call.await.unwrap() }));
        }
        settle().await;
        let made = heads.iter().filter(|head| head.is_finished()).count();
        // Of each the first 64 KiB are taken.
        assert!((2..=19).contains(&made), "{made} of {CALLS} answers of 1 MiB were made");
        let readers: Vec<_> = heads
            .into_iter()
            .map(|head| spawn_local(async move { body_bytes(head.await.unwrap().into_body()).await }))
            .collect();
        for reader in readers {
            assert!(reader.await.unwrap() > MIB);
        }
    });
}

/// Whole requests that wait for room for their answers are kept up to a bound.
#[test]
fn long_requests_that_wait_are_bounded() {
    bed(|bed| async move {
        bed.member.put_direct(b"large", vec![7; 8 * MIB]);
        let mut client = lazy_client(&bed).await;
        let mut large = Vec::new();
        for _ in 0..3 {
            large.push(send(&mut client, RANGE, &local("large")).await);
        }
        settle().await;
        let long = local(&"k".repeat(2 * MIB - 64));
        let mut waiting = Vec::new();
        let refused = loop {
            assert!(waiting.len() < 150, "150 requests of 2 MiB are kept");
            let call = spawn_local(ended(send(&mut client, RANGE, &long).await));
            settle().await;
            if call.is_finished() {
                break call.await.unwrap();
            }
            waiting.push(call);
        };
        refused.refused(ApiError::TooManyRequests);
        assert!(waiting.len() > 50, "{} are kept", waiting.len());
        // A short one has room again as soon as a long one is given up.
        waiting.pop().unwrap().abort();
        settle().await;
        let short = spawn_local(ended(send(&mut client, RANGE, &local("k")).await));
        settle().await;
        assert!(!short.is_finished());
        drop(large);
        for call in waiting.into_iter().chain([short]) {
            assert_eq!(call.await.unwrap().decoded::<pb::RangeResponse>().count, 0);
        }
    });
}

/// How long the answers to writes are nobody knows before.
#[test]
fn writes_whose_answers_are_not_read_are_bounded() {
    const TXN: &str = "/etcdserverpb.KV/Txn";
    let op = |request| pb::RequestOp { request: Some(request) };
    bed(|bed| async move {
        bed.member.put_direct(b"large", vec![7; 8 * MIB]);
        let put = pb::PutRequest { key: "k".into(), ..Default::default() };
        let put = op(pb::request_op::Request::RequestPut(put));
        let range = op(pb::request_op::Request::RequestRange(local("large")));
        let txn = pb::TxnRequest { success: vec![put.clone(), range], ..Default::default() };
        let mut client = lazy_client(&bed).await;
        let mut calls = Vec::new();
        let refused = loop {
            assert!(calls.len() < 50, "50 answers of 8 MiB are held");
            let call = send(&mut client, TXN, &txn).await;
            let head = spawn_local(async move { call.await.unwrap() });
            settle().await;
            let head = head.await.unwrap();
            if let Some(status) = status_of(head.headers()) {
                break status;
            }
            calls.push(head);
        };
        assert_eq!(refused, ApiError::TooManyRequests.into());
        assert_eq!(bed.member.proposals(), calls.len(), "what is refused is not done");
        for head in calls.drain(..calls.len() / 2) {
            body_bytes(head.into_body()).await;
        }
        let again = pb::TxnRequest { success: vec![put], ..Default::default() };
        ended(send(&mut client, TXN, &again).await).await.decoded::<pb::TxnResponse>();
    });
}

/// The keys of a lease with many are put together off the network thread, when there is a turn.
#[test]
fn the_keys_of_a_lease_are_listed_elsewhere() {
    const KEYS: usize = 1_000;
    bed(|bed| async move {
        let mut client = bed.client().await;
        let grant = pb::LeaseGrantRequest { id: 5, ttl: 1000 };
        client.call("/etcdserverpb.Lease/LeaseGrant", &grant).await.decoded::<pb::LeaseGrantResponse>();
        for i in 0..KEYS {
            let key = format!("k{i:04}").into();
            let put = pb::PutRequest { key, lease: 5, ..Default::default() };
            client.call("/etcdserverpb.KV/Put", &put).await.decoded::<pb::PutResponse>();
        }
        put_large(&bed, "large/", 4);
        let (_begun, permit) = bed.member.hold_reads();
        let mut streams = Vec::new();
        for _ in 0..4 {
            streams.push(start(&mut client, RANGE_STREAM, &below("large/")).await);
        }
        client.ping().await;
        let reads = bed.lane.member().reads.clone();
        let waiting = reads.waiting(Length::Long);
        let ask = frame(&pb::LeaseTimeToLiveRequest { id: 5, keys: true });
        let asked = client.start("/etcdserverpb.Lease/LeaseTimeToLive", &[], ask);
        client.ping().await;
        client.ping().await;
        assert_eq!(reads.waiting(Length::Long), waiting + 1);
        drop((streams, permit));
        let times: pb::LeaseTimeToLiveResponse = ended(asked).await.decoded();
        let want: Vec<Bytes> = (0..KEYS).map(|i| format!("k{i:04}").into()).collect();
        assert_eq!(times.keys, want);
    });
}
