//! The front end over in-memory pipes, spoken to in plain HTTP/2, on a clock that only moves when nothing else
//! can. Behind it is the real store.
#![allow(missing_docs, reason = "tests")]

mod support;

use std::future::poll_fn;
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::GzEncoder;
use node::{Completions, Submission};
use prost::Message;
use server::grpc::GrpcConfig;
use support::bed::{Bed, Client, PIPE_BYTES, bed, bed_with, ended, frame, header, settle};
use support::{Mood, REQUEST_TIMEOUT, id_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::spawn_local;
use tokio::time::Instant;
use wire::etcdserverpb as pb;
use wire::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use wire::{ApiError, Code, RequestLimits, Status};

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..pb::PutRequest::default() }
}

fn range(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..pb::RangeRequest::default() }
}

fn local_range(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { serializable: true, ..range(key) }
}

#[test]
fn hot_calls() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let done: pb::PutResponse = client.call(PUT, &put("name", "john")).await.decoded();
        assert_eq!(done.header, header(2));
        for request in [range("name"), local_range("name")] {
            let got: pb::RangeResponse = client.call(RANGE, &request).await.decoded();
            assert_eq!((got.header, got.count), (header(2), 1));
            assert_eq!((&got.kvs[0].key[..], &got.kvs[0].value[..]), (&b"name"[..], &b"john"[..]));
        }
        let write = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put("a", "b"))) };
        let txn = pb::TxnRequest { success: vec![write], ..pb::TxnRequest::default() };
        let done: pb::TxnResponse = client.call(TXN, &txn).await.decoded();
        assert_eq!((done.header, done.succeeded), (header(3), true));
        let read = pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(range("a"))) };
        let txn = pb::TxnRequest { success: vec![read], ..pb::TxnRequest::default() };
        let done: pb::TxnResponse = client.call(TXN, &txn).await.decoded();
        assert_eq!(done.header, header(3), "a read-only transaction writes nothing");
        let delete = pb::DeleteRangeRequest { key: "name".into(), ..pb::DeleteRangeRequest::default() };
        let done: pb::DeleteRangeResponse = client.call(DELETE, &delete).await.decoded();
        assert_eq!((done.header, done.deleted), (header(4), 1));
        assert_eq!(bed.lane.waiting(), 0);
    });
}

#[test]
fn services_beside_the_hot_calls() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let status: pb::StatusResponse =
            client.call("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await.decoded();
        assert_eq!((status.header, &*status.version, status.leader), (header(1), "3.7.1", 7));
        assert_eq!((status.raft_index, status.raft_applied_index, status.raft_term), (4, 4, 2));
        let hash: pb::HashKvResponse =
            client.call("/etcdserverpb.Maintenance/HashKV", &pb::HashKvRequest::default()).await.decoded();
        assert_eq!((hash.header, hash.hash_revision, hash.compact_revision), (header(1), 1, -1));
        client
            .call("/etcdserverpb.Maintenance/HashKV", &pb::HashKvRequest { revision: 9 })
            .await
            .refused(ApiError::FutureRev);
        let alarms: pb::AlarmResponse =
            client.call("/etcdserverpb.Maintenance/Alarm", &pb::AlarmRequest::default()).await.decoded();
        assert_eq!((alarms.header, alarms.alarms), (header(1), vec![]));
        let none = pb::AlarmMember { member_id: 3, alarm: 0 };
        let [no_space, corrupt] =
            [1, 2].map(|alarm| pb::AlarmMember { member_id: (2 - alarm as u64) * 7, alarm });
        for (action, alarm, expected, errors) in [
            (1, none, vec![], vec![]),
            (1, no_space, vec![no_space], vec!["memberID:7 alarm:NOSPACE"]),
            (1, corrupt, vec![corrupt], vec!["memberID:7 alarm:NOSPACE", "alarm:CORRUPT"]),
            (0, none, vec![no_space, corrupt], vec!["memberID:7 alarm:NOSPACE", "alarm:CORRUPT"]),
            (0, corrupt, vec![corrupt], vec!["memberID:7 alarm:NOSPACE", "alarm:CORRUPT"]),
            (2, no_space, vec![no_space], vec!["alarm:CORRUPT"]),
            (2, no_space, vec![], vec!["alarm:CORRUPT"]),
            (2, corrupt, vec![corrupt], vec![]),
        ] {
            let pb::AlarmMember { member_id, alarm } = alarm;
            let request = pb::AlarmRequest { action, member_id, alarm };
            let answer: pb::AlarmResponse =
                client.call("/etcdserverpb.Maintenance/Alarm", &request).await.decoded();
            assert_eq!((answer.header, answer.alarms), (header(1), expected), "{request:?}");
            let status: pb::StatusResponse =
                client.call("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await.decoded();
            assert_eq!(status.errors, errors);
        }
        for linearizable in [false, true] {
            let list = pb::MemberListRequest { linearizable };
            let list: pb::MemberListResponse =
                client.call("/etcdserverpb.Cluster/MemberList", &list).await.decoded();
            assert_eq!((list.header, &*list.members[0].name), (header(0), "fake"));
            assert_eq!(bed.member.rounds(), 3 + usize::from(linearizable));
        }
        let check = HealthCheckRequest::default();
        let health: HealthCheckResponse = client.call("/grpc.health.v1.Health/Check", &check).await.decoded();
        assert_eq!(health.status, 1);
        let other = HealthCheckRequest { service: "other".into() };
        client.call("/grpc.health.v1.Health/Check", &other).await.refused(ApiError::UnknownHealthService);
        let list: HealthListResponse =
            client.call("/grpc.health.v1.Health/List", &HealthListRequest {}).await.decoded();
        assert_eq!(list.statuses[""].status, 1);
    });
}

#[test]
fn a_health_watch_stays_open_and_ends_with_its_client() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        for (service, want) in [("", 1), ("other", 3)] {
            let watch = HealthCheckRequest { service: service.into() };
            let response = client.start("/grpc.health.v1.Health/Watch", &[], frame(&watch)).await.unwrap();
            let mut body = response.into_body();
            let first = body.data().await.unwrap().unwrap();
            assert_eq!(HealthCheckResponse::decode(&first[5..]).unwrap().status, want);
            tokio::time::timeout(Duration::from_secs(60), body.data()).await.unwrap_err();
        }
        // A deadline ends it from our side.
        let watch = frame(&HealthCheckRequest::default());
        let ended = client.raw("/grpc.health.v1.Health/Watch", &[("grpc-timeout", b"3S")], watch).await;
        assert_eq!(ended.status, ApiError::ContextDeadlineExceeded.into());
    });
}

#[test]
fn each_call_is_there_and_no_other() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        assert_eq!(server::grpc::method::paths().count(), 52);
        for path in server::grpc::method::paths() {
            let ended = client.raw(&path, &[("grpc-timeout", b"1S")], frame(&pb::StatusRequest {})).await;
            assert_ne!(ended.status.code, Code::Unimplemented, "{path}");
        }
        let raise = pb::AlarmRequest { action: 9, ..pb::AlarmRequest::default() };
        let ended = client.call("/etcdserverpb.Maintenance/Alarm", &raise).await;
        assert_eq!(ended.status.code, Code::InvalidArgument, "in the log it would end a Go member");
        client
            .call("/etcdserverpb.KV/Nothing", &raise)
            .await
            .refused(Status::unknown_method("Nothing", "etcdserverpb.KV"));
        client
            .call("/etcdserverpb.Nothing/Range", &raise)
            .await
            .refused(Status::unknown_service("etcdserverpb.Nothing"));
        let queried = client.raw("/etcdserverpb.KV/Range?a=b", &[], frame(&local_range("a"))).await;
        queried.refused(Status::unknown_method("Range?a=b", "etcdserverpb.KV"));
    });
}

#[test]
fn headers_are_judged_before_messages() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let got = frame(&local_range("a"));
        let ended = client.raw(RANGE, &[("content-type", b"text/plain")], got.clone()).await;
        assert_eq!((ended.http, ended.status.code), (415, Code::InvalidArgument));
        let ended = client.raw(RANGE, &[("grpc-timeout", b"soon")], got.clone()).await;
        assert_eq!((ended.http, ended.status.code), (400, Code::Internal));
        let ended = client.raw(RANGE, &[("grpc-encoding", b"deflate")], got.clone()).await;
        assert_eq!(ended.status.message, "grpc: Decompressor is not installed for grpc-encoding \"deflate\"");
        assert_eq!(ended.status.code, Code::Unimplemented);
        let bad = client.raw(RANGE, &[("client-api-version", b"3.7.\xc3")], got.clone()).await;
        bad.refused(ApiError::InvalidClientApiVersion);
        client.raw(RANGE, &[("x-other", b"\xff")], got.clone()).await.decoded::<pb::RangeResponse>();
        client.raw(RANGE, &[("hasleader", b"true")], got.clone()).await.decoded::<pb::RangeResponse>();
        bed.member.status.set_leader(0);
        client.raw(RANGE, &[("hasleader", b"true")], got.clone()).await.refused(ApiError::NoLeader);
        client.raw(RANGE, &[("hasleader", b"maybe")], got.clone()).await.decoded::<pb::RangeResponse>();
        // Without a leader a read of this member still works.
        client.raw(RANGE, &[], got).await.decoded::<pb::RangeResponse>();
    });
}

#[test]
fn a_learner_serves_status_and_its_own_reads() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.status.set_learner(true);
        client.call(RANGE, &local_range("a")).await.decoded::<pb::RangeResponse>();
        let status = client.call("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await;
        assert!(status.decoded::<pb::StatusResponse>().is_learner);
        client.call(RANGE, &range("a")).await.refused(ApiError::NotSupportedForLearner);
        client.call(PUT, &put("a", "b")).await.refused(ApiError::NotSupportedForLearner);
        let list = client.call("/etcdserverpb.Cluster/MemberList", &pb::MemberListRequest::default()).await;
        list.refused(ApiError::NotSupportedForLearner);
    });
}

#[test]
fn messages_that_are_none() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let garbage = Bytes::from_static(&[0, 0, 0, 0, 2, 0x0a, 0xff]);
        for path in [RANGE, PUT, DELETE, TXN, "/etcdserverpb.Cluster/MemberList"] {
            assert_eq!(client.raw(path, &[], garbage.clone()).await.status.code, Code::Internal, "{path}");
        }
        for (frame, code, text) in [
            (&b""[..], Code::Unknown, "EOF"),
            (b"\0\0\0", Code::Unknown, "EOF"),
            (b"\0\0\0\0\x02a", Code::Unknown, "unexpected EOF"),
            (b"\x01\0\0\0\0", Code::Internal, "grpc: compressed flag set with identity or empty encoding"),
            (b"\x07\0\0\0\0", Code::Internal, "grpc: received unexpected payload format 7"),
        ] {
            client.raw(PUT, &[], Bytes::from_static(frame)).await.refused(Status::new(code, text));
        }
        client.call(PUT, &put("", "b")).await.refused(ApiError::EmptyKey);
        assert_eq!(bed.member.revision_now(), 1);
    });
}

fn gzipped(message: &[u8]) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(message).unwrap();
    writer.finish().unwrap()
}

/// With the flag of a compressed message, whatever is in it.
fn compressed(message: &[u8]) -> Bytes {
    let mut frame = vec![1];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

/// etcd's server takes it; answers need not be compressed then.
#[test]
fn a_request_may_be_compressed_with_gzip() {
    let limits = RequestLimits { request_bytes_max: 10_000, ..RequestLimits::DEFAULT };
    bed_with(GrpcConfig { limits, ..GrpcConfig::default() }, |bed| async move {
        let mut client = bed.client().await;
        let gzip = [("grpc-encoding", &b"gzip"[..])];
        let put = put("name", &"x".repeat(5000)).encode_to_vec();
        let done = client.raw(PUT, &gzip, compressed(&gzipped(&put))).await;
        assert_eq!(done.decoded::<pb::PutResponse>().header, header(2));
        // A message of such a call may also come as it is, and a compressed one in several members.
        let range = local_range("name").encode_to_vec();
        let halves = [gzipped(&range[..3]), gzipped(&range[3..])].concat();
        for message in [frame(&local_range("name")), compressed(&halves)] {
            let got: pb::RangeResponse = client.raw(RANGE, &gzip, message).await.decoded();
            assert_eq!(got.kvs[0].value.len(), 5000);
        }
        for path in ["/etcdserverpb.Maintenance/Status", "/etcdserverpb.Cluster/MemberList"] {
            let ended = client.raw(path, &gzip, compressed(&gzipped(&[]))).await;
            assert_eq!(ended.status.code, Code::Ok, "{path}");
        }
        let max = 10_000 + (512 << 10);
        for (message, code, text) in [
            (
                gzipped(&vec![0; max + 1]),
                Code::ResourceExhausted,
                "message after decompression larger than max 534288",
            ),
            (gzipped(&put)[..40].to_vec(), Code::Internal, "failed to decompress the message"),
            ([&gzipped(&put)[..], b"xy"].concat(), Code::Internal, "failed to decompress the message"),
            (Vec::new(), Code::Internal, "failed to decompress the message"),
            (b"no such thing".to_vec(), Code::Internal, "failed to decompress the message"),
            (gzipped(b"\x0a\xff"), Code::Internal, "grpc: error unmarshalling request"),
        ] {
            let ended = client.raw(PUT, &gzip, compressed(&message)).await;
            assert_eq!(ended.status.code, code, "{}", ended.status);
            assert!(ended.status.message.contains(text), "{}", ended.status);
        }
        assert_eq!(bed.member.revision_now(), 2);
    });
}

/// Put requests that are exactly `bytes` long.
fn put_of(bytes: usize) -> pb::PutRequest {
    let mut request = put("size", "");
    request.value = vec![0; bytes].into();
    let over = request.encoded_len() - bytes;
    request.value = vec![0; bytes - over].into();
    assert_eq!(request.encoded_len(), bytes);
    request
}

#[test]
fn sizes() {
    let limits = RequestLimits { request_bytes_max: 10_000, ..RequestLimits::DEFAULT };
    bed_with(GrpcConfig { limits, ..GrpcConfig::default() }, |bed| async move {
        let mut client = bed.client().await;
        let max = 10_000 + (512 << 10);
        client.call(PUT, &put_of(9_900)).await.decoded::<pb::PutResponse>();
        for bytes in [10_000, 10_001, max] {
            client.call(PUT, &put_of(bytes)).await.refused(ApiError::RequestTooLarge);
        }
        let too_long = || Status::message_too_large(max as u64 + 1, max as u64);
        client.call(PUT, &put_of(max + 1)).await.refused(too_long());
        client.call("/etcdserverpb.Cluster/MemberList", &put_of(max + 1)).await.refused(too_long());
        client.call(PUT, &put("", &"v".repeat(10_000))).await.refused(ApiError::EmptyKey);
        client.call(RANGE, &range(&"k".repeat(10_001))).await.decoded::<pb::RangeResponse>();
        assert_eq!(bed.member.revision_now(), 2);
        // The length alone decides: nothing of the message is waited for.
        let (response, mut stream) = client.requests.send_request(Client::request(PUT, &[]), false).unwrap();
        stream.send_data(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]), false).unwrap();
        ended(response).await.refused(Status::message_too_large(u64::from(u32::MAX), max as u64));
    });
}

#[test]
fn a_message_may_come_in_any_pieces() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let whole = frame(&put("name", "john"));
        for piece in 1..whole.len() {
            let (response, mut stream) =
                client.requests.send_request(Client::request(PUT, &[]), false).unwrap();
            let mut rest = whole.clone();
            while !rest.is_empty() {
                stream.send_data(rest.split_to(piece.min(rest.len())), false).unwrap();
                settle().await;
            }
            // Answered although the client has not ended its side.
            ended(response).await.decoded::<pb::PutResponse>();
        }
    });
}

#[test]
fn a_deadline_holds_for_a_message_that_never_comes_whole() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let message = frame(&put("a", "b"));
        let began = Instant::now();
        let mut late = Vec::new();
        for (path, timeout, part) in [(RANGE, "1S", 0), ("/etcdserverpb.KV/Compact", "3S", 3), (PUT, "5S", 7)]
        {
            let (response, mut body) = client.open(path, &[("grpc-timeout", timeout.as_bytes())]);
            body.send_data(message.slice(..part), false).unwrap();
            late.push((response, body));
        }
        // One without a deadline goes on, and one that is whole in time is served.
        let (_, mut patient) = client.open(PUT, &[]);
        patient.send_data(message.slice(..7), false).unwrap();
        let (quick, mut body) = client.open(PUT, &[("grpc-timeout", b"2S")]);
        body.send_data(message.slice(..7), false).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        body.send_data(message.slice(7..), true).unwrap();
        assert_eq!(ended(quick).await.decoded::<pb::PutResponse>().header, header(2));
        let mut ends = Vec::new();
        for (response, _body) in late {
            let end = tokio::time::timeout(Duration::from_secs(60), ended(response)).await;
            end.expect("it ends").refused(ApiError::ContextDeadlineExceeded);
            ends.push(began.elapsed().as_secs());
        }
        assert_eq!(ends, [1, 3, 5]);
        patient.send_data(message.slice(7..), true).unwrap();
        settle().await;
        assert_eq!(bed.member.revision_now(), 3);
    });
}

/// Deadlines of many calls, in any order, each at its time, and none of a call that has gone on or was reset.
#[test]
fn each_of_many_deadlines_is_kept() {
    const CALLS: u64 = 600;
    bed(|bed| async move {
        let mut client = bed.client().await;
        let message = frame(&put("a", "b"));
        let began = Instant::now();
        let mut late = Vec::new();
        for call in 0..CALLS {
            poll_fn(|cx| client.requests.poll_ready(cx)).await.unwrap();
            let timeout_ms = 1000 + 10 * (call * 7919 % CALLS);
            let timeout = format!("{timeout_ms}m");
            let (response, mut body) = client.open(PUT, &[("grpc-timeout", timeout.as_bytes())]);
            body.send_data(message.slice(..6), false).unwrap();
            late.push((timeout_ms, response, body));
        }
        settle().await;
        let late = late.into_iter().filter(|(timeout_ms, ..)| timeout_ms % 30 != 0);
        let mut late: Vec<_> = late
            .map(|(timeout_ms, response, body)| (timeout_ms, spawn_local(ended(response)), body))
            .collect();
        settle().await;
        let (mut done, mut expired) = (0, 0);
        late.sort_by_key(|(timeout_ms, ..)| *timeout_ms);
        for (timeout_ms, response, mut body) in late {
            if timeout_ms % 20 == 0 {
                body.send_data(message.slice(6..), true).unwrap();
                response.await.unwrap().decoded::<pb::PutResponse>();
                done += 1;
            } else {
                response.await.unwrap().refused(ApiError::ContextDeadlineExceeded);
                let took = began.elapsed().as_millis() as u64;
                assert!((timeout_ms..=timeout_ms + 2).contains(&took), "{timeout_ms} ms took {took}");
                expired += 1;
            }
        }
        assert_eq!((done, expired), (CALLS / 3, CALLS / 3));
        assert_eq!(bed.member.revision_now(), 1 + done as i64);
    });
}

#[test]
fn what_arrives_together_is_asked_and_answered_together() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        client.call(PUT, &put("warm", "up")).await.decoded::<pb::PutResponse>();
        settle().await;
        let (batches, writes) = (bed.member.batches().len(), bed.writes.get());
        let calls: Vec<_> = (0..100)
            .map(|i| match i % 2 {
                0 => client.start(PUT, &[], frame(&put("k", &"v".repeat(300)))),
                _ => client.start(RANGE, &[], frame(&range("k"))),
            })
            .collect();
        for call in calls {
            assert_eq!(ended(call).await.status.code, Code::Ok);
        }
        assert_eq!(bed.member.batches()[batches..], [51], "50 puts and one round of reads, in one batch");
        assert_eq!(bed.writes.get() - writes, 1, "all answers in one write");
    });
}

#[test]
fn reads_that_come_during_a_round_share_the_next() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Holds);
        let first = client.start(RANGE, &[], frame(&range("k")));
        settle().await;
        let next: Vec<_> = (0..10).map(|_| client.start(RANGE, &[], frame(&range("k")))).collect();
        settle().await;
        assert_eq!(bed.member.rounds(), 1);
        bed.member.answer_held();
        ended(first).await.decoded::<pb::RangeResponse>();
        settle().await;
        assert_eq!(bed.member.rounds(), 2);
        bed.member.answer_held();
        for call in next {
            ended(call).await.decoded::<pb::RangeResponse>();
        }
        assert_eq!(bed.member.rounds(), 2);
    });
}

#[test]
fn a_confirmed_read_waits_for_its_index() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Holds);
        let call = client.start(RANGE, &[], frame(&range("k")));
        settle().await;
        let context = id_of(&bed.member.held()[0]);
        let reads = vec![(context, Ok(6))];
        bed.member.send(Completions { applied_index: 4, reads, ..Completions::default() });
        settle().await;
        assert!(!bed.member.gate.wants(5) && bed.member.gate.wants(6));
        bed.member.put_direct(b"k", b"seen".to_vec());
        bed.member.send(Completions { applied_index: 6, ..Completions::default() });
        let got: pb::RangeResponse = ended(call).await.decoded();
        assert_eq!(got.kvs[0].value, "seen");
        assert!(!bed.member.gate.wants(u64::MAX - 1));
    });
}

#[test]
fn a_round_without_an_answer_is_asked_again_with_a_new_context() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Holds);
        let began = Instant::now();
        let call = client.start(RANGE, &[], frame(&range("k")));
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let contexts: Vec<_> = bed.member.held().iter().map(id_of).collect();
        assert_eq!(contexts.len(), 3);
        assert!(contexts[0] != contexts[1] && contexts[1] != contexts[2] && contexts[0] != contexts[2]);
        ended(call).await.refused(ApiError::Timeout);
        assert_eq!(began.elapsed().as_secs(), REQUEST_TIMEOUT.as_secs());
        // Nobody waits any more, so nobody asks.
        let asked = bed.member.held().len();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(bed.member.held().len(), asked);
    });
}

#[test]
fn a_failed_round_fails_its_reads() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Holds);
        let call = client.start(RANGE, &[], frame(&range("k")));
        settle().await;
        let reads = vec![(id_of(&bed.member.held()[0]), Err(ApiError::LeaderChanged.into()))];
        bed.member.send(Completions { reads, ..Completions::default() });
        ended(call).await.refused(ApiError::LeaderChanged);
    });
}

/// As in etcd, reads wait for the next leader; and no context is used twice (rule 19).
#[test]
fn a_round_whose_leader_is_lost_is_asked_for_anew() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Holds);
        let call = client.start(RANGE, &[], frame(&range("k")));
        settle().await;
        bed.member.status.set_leader(0);
        let lost = vec![(id_of(&bed.member.held()[0]), Err(ApiError::LeaderChanged.into()))];
        bed.member.send(Completions { reads: lost, ..Completions::default() });
        settle().await;
        let held = bed.member.held();
        assert_eq!(held.len(), 2, "at once, and once");
        assert_ne!(id_of(&held[0]), id_of(&held[1]));
        bed.member.status.set_leader(8);
        let reads = vec![(id_of(&held[1]), Ok(bed.member.status.applied()))];
        bed.member.send(Completions { reads, ..Completions::default() });
        assert_eq!(ended(call).await.decoded::<pb::RangeResponse>().count, 0);
    });
}

/// A proposal that went to a leader that is gone ends when that is known, and not after the whole timeout; a later one does
/// not.
#[test]
fn rule_15_what_was_lost_with_a_leader_is_said_to_be_unknown() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Holds);
        let [first, second, third] = ["a", "b", "c"].map(|key| client.start(PUT, &[], frame(&put(key, "v"))));
        let read = client.start(RANGE, &[], frame(&range("k")));
        settle().await;
        let held = bed.member.held();
        let puts: Vec<_> =
            held.iter().filter(|held| matches!(held, Submission::Propose { .. })).map(id_of).collect();
        let lost_upto = Some(puts[1]);
        bed.member.send(Completions { lost_upto, ..Completions::default() });
        ended(first).await.refused(ApiError::TimeoutDueToLeaderFail);
        ended(second).await.refused(ApiError::TimeoutDueToLeaderFail);
        settle().await;
        assert_eq!(bed.lane.waiting(), 2, "the third put, and the read");
        bed.member.answer_held();
        ended(third).await.decoded::<pb::PutResponse>();
        ended(read).await.decoded::<pb::RangeResponse>();
    });
}

/// Rule 15: what may still happen ends with errors that clients take as unknown.
#[test]
fn rule_15_waiting_too_long_is_unknown_not_failed() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Holds);
        for (leader, timeout, want, after) in [
            (7, &b"60S"[..], ApiError::Timeout, REQUEST_TIMEOUT),
            (0, b"60S", ApiError::ContextDeadlineExceeded, REQUEST_TIMEOUT),
            (7, b"2S", ApiError::ContextDeadlineExceeded, Duration::from_secs(2)),
        ] {
            bed.member.status.set_leader(leader);
            let began = Instant::now();
            let ended = client.raw(PUT, &[("grpc-timeout", timeout)], frame(&put("a", "b"))).await;
            ended.refused(want);
            assert_eq!(began.elapsed().as_millis(), after.as_millis());
            assert_eq!(bed.lane.waiting(), 0);
        }
        // What happens after all reaches nobody, and breaks nothing.
        bed.member.set_mood(Mood::Answers);
        bed.member.answer_held();
        assert_eq!(bed.member.revision_now(), 4);
        client.call(PUT, &put("a", "b")).await.decoded::<pb::PutResponse>();
    });
}

#[test]
fn a_client_that_goes_is_forgotten() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Holds);
        let kept = client.start(PUT, &[], frame(&put("a", "1")));
        let cancelled = client.start(PUT, &[], frame(&put("a", "2")));
        let read = client.start(RANGE, &[], frame(&range("a")));
        settle().await;
        assert_eq!(bed.lane.waiting(), 3);
        drop((cancelled, read));
        settle().await;
        assert_eq!(bed.lane.waiting(), 1);
        // It may wait for a leader; a read changes nothing.
        let held = bed.member.held();
        let gave_up: Vec<_> =
            held.iter().filter(|held| matches!(held, Submission::GiveUp { .. })).map(id_of).collect();
        assert_eq!(gave_up, [id_of(&held[1])]);
        bed.member.answer_held();
        ended(kept).await.decoded::<pb::PutResponse>();
        let left = client.start(PUT, &[], frame(&put("a", "3")));
        settle().await;
        assert_eq!(bed.lane.waiting(), 1);
        client.driver.abort();
        drop(left);
        client.served.await.unwrap();
        assert_eq!(bed.lane.waiting(), 0);
    });
}

#[test]
fn a_member_without_room_refuses_proposals() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Refuses);
        client.call(PUT, &put("a", "b")).await.refused(ApiError::TooManyRequests);
        // A read is asked for again.
        let read = client.start(RANGE, &[], frame(&range("a")));
        settle().await;
        bed.member.set_mood(Mood::Answers);
        ended(read).await.decoded::<pb::RangeResponse>();
        assert_eq!(bed.member.rounds(), 2);
    });
}

#[test]
fn a_member_that_ends_stops_its_calls() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Holds);
        let calls =
            [client.start(PUT, &[], frame(&put("a", "b"))), client.start(RANGE, &[], frame(&range("a")))];
        settle().await;
        bed.member.stop();
        for call in calls {
            ended(call).await.refused(ApiError::Stopped);
        }
        client.served.await.unwrap();
    });
}

#[test]
fn a_drained_thread_finishes_what_it_has() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Holds);
        let call = client.start(PUT, &[], frame(&put("a", "b")));
        settle().await;
        bed.lane.drain();
        settle().await;
        assert!(!client.served.is_finished());
        bed.member.answer_held();
        ended(call).await.decoded::<pb::PutResponse>();
        client.served.await.unwrap();
    });
}

#[test]
fn a_read_from_a_cold_disk_is_run_elsewhere() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_cold(true);
        for request in [range("k"), local_range("k")] {
            client.call(RANGE, &request).await.decoded::<pb::RangeResponse>();
        }
    });
}

/// Each reads all that is stored, and clients that ask and go must not have them made all at once.
#[test]
fn hashes_are_made_a_few_at_a_time() {
    const CALLS: usize = 8;
    bed(|bed| async move {
        let (begun, permit) = bed.member.hold_scans();
        let mut client = bed.client().await;
        let mut calls: Vec<_> = (0..CALLS)
            .map(|_| {
                client.start("/etcdserverpb.Maintenance/HashKV", &[], frame(&pb::HashKvRequest::default()))
            })
            .collect();
        // One that waits for its turn is gone with its client.
        drop(calls.pop());
        let begun = tokio::task::spawn_blocking(move || {
            begun.recv().unwrap();
            begun.recv().unwrap();
            begun.recv_timeout(Duration::from_millis(300)).expect_err("a third one");
            begun
        });
        let begun = begun.await.unwrap();
        (0..CALLS).for_each(|_| permit.send(()).unwrap());
        for call in calls {
            ended(call).await.decoded::<pb::HashKvResponse>();
        }
        assert_eq!(begun.try_iter().count(), CALLS - 1 - 2);
    });
}

#[test]
fn a_large_answer_arrives_whole() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let value: Vec<u8> = (0..40 << 20).map(|i: u32| (i >> 8) as u8).collect();
        bed.member.put_direct(b"large", value.clone());
        let got: pb::RangeResponse = client.call(RANGE, &range("large")).await.decoded();
        assert!(got.kvs[0].value == value);
    });
}

/// A client that reads nothing gets a bounded number of answers prepared; the other calls wait unread.
#[test]
fn a_client_that_does_not_read_holds_a_bounded_amount() {
    bed(|bed| async move {
        let (ours, served) = bed.pipe(1 << 16);
        let (mut requests, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .handshake::<_, Bytes>(ours)
            .await
            .unwrap();
        spawn_local(async move { drop(connection.await) });
        bed.member.put_direct(b"large", vec![7; 8 << 20]);
        let mut calls = Vec::new();
        for _ in 0..20 {
            poll_fn(|cx| requests.poll_ready(cx)).await.unwrap();
            let (response, mut stream) = requests.send_request(Client::request(RANGE, &[]), false).unwrap();
            stream.send_data(frame(&local_range("large")), true).unwrap();
            calls.push(response);
        }
        settle().await;
        assert!(bed.member.reads() <= 3, "{} of 20 answers of 8 MiB were made", bed.member.reads());
        // All at once: an answer that is not read keeps the connection's window from the others.
        let readers: Vec<_> = calls.into_iter().map(|call| spawn_local(ended(call))).collect();
        for reader in readers {
            let got: pb::RangeResponse = reader.await.unwrap().decoded();
            assert_eq!(got.kvs[0].value.len(), 8 << 20);
        }
        assert_eq!(bed.member.reads(), 20);
        assert!(!served.is_finished());
    });
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

/// Everything that the server sends until it closes.
async fn read_to_end(mut pipe: DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes).await;
    bytes
}

fn ends_with_goaway(bytes: &[u8]) -> bool {
    let tail = b"\0\0\x16\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0btoo_many_pings";
    bytes.ends_with(tail)
}

#[test]
fn too_many_pings_end_the_connection() {
    bed(|bed| async move {
        let (mut pipe, served) = bed.pipe(PIPE_BYTES);
        pipe.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
        // The first ping is free, two violations are forgiven.
        for _ in 0..3 {
            pipe.write_all(PING).await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert!(!served.is_finished());
        pipe.write_all(PING).await.unwrap();
        assert!(ends_with_goaway(&read_to_end(pipe).await));
        served.await.unwrap();
    });
}

#[test]
fn pings_at_the_allowed_pace_are_answered() {
    bed(|bed| async move {
        let (mut pipe, served) = bed.pipe(PIPE_BYTES);
        pipe.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
        for _ in 0..10 {
            pipe.write_all(PING).await.unwrap();
            tokio::time::sleep(Duration::from_secs(2 * 60 * 60 + 1)).await;
        }
        assert!(!served.is_finished());
        // With a call in progress, five seconds will do.
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Holds);
        let watch = frame(&HealthCheckRequest::default());
        let open = client.start("/grpc.health.v1.Health/Watch", &[], watch).await.unwrap();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(6)).await;
            client.ping().await;
        }
        assert!(!client.served.is_finished());
        drop(open);
    });
}

#[test]
fn a_silent_client_is_pinged_and_then_dropped() {
    bed(|bed| async move {
        let (mut pipe, served) = bed.pipe(PIPE_BYTES);
        pipe.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
        let began = Instant::now();
        served.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 2 * 60 * 60 + 20);
        let bytes = read_to_end(pipe).await;
        assert!(bytes.windows(5).any(|w| w == [0, 0, 8, 6, 0]), "a ping was sent");
        // One that answers pings, as every HTTP/2 library does, stays.
        let client = bed.client().await;
        tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
        assert!(!client.served.is_finished());
    });
}

/// A frame; its length must fit two bytes.
fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The headers of a call to `path`, as literals that are not remembered.
fn head_block(path: &str) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "member"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        head.push(0);
        for text in [name, value] {
            head.push(text.len() as u8);
            head.extend_from_slice(text.as_bytes());
        }
    }
    head
}

/// A ping must be answered before the codec goes on, and it can't be while the client reads nothing. What was read
/// from the socket by then is decoded later, without any further read.
#[test]
fn a_message_that_was_read_before_it_was_decoded_is_not_forgotten() {
    bed(|bed| async move {
        bed.member.put_direct(b"large", vec![7; 4 << 20]);
        let (pipe, _served) = bed.pipe(1 << 16);
        let (mut from, mut to) = tokio::io::split(pipe);
        let window = http2_frame(4, 0, 0, &[&[0, 4][..], &(1_u32 << 30).to_be_bytes()].concat());
        let whole_window = http2_frame(8, 0, 0, &(1_u32 << 30).to_be_bytes());
        let large =
            [http2_frame(1, 4, 1, &head_block(RANGE)), http2_frame(0, 1, 1, &frame(&local_range("large")))];
        to.write_all(&[PREFACE, &window, &whole_window, &large.concat()].concat()).await.unwrap();
        settle().await;
        to.write_all(&http2_frame(1, 4, 3, &head_block(RANGE))).await.unwrap();
        settle().await;
        to.write_all(&[PING, &http2_frame(0, 1, 3, &frame(&local_range("a")))].concat()).await.unwrap();
        settle().await;
        // Only now the client reads; it sends nothing more.
        let ends_of_streams = async {
            let mut ended = Vec::new();
            while ended.len() < 2 {
                let mut head = [0; 9];
                from.read_exact(&mut head).await.unwrap();
                let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                from.read_exact(&mut payload).await.unwrap();
                if head[3] <= 1 && head[4] & 1 != 0 {
                    ended.push(head[8]);
                }
            }
            ended
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), ends_of_streams).await;
        let mut ended = ended.expect("both calls are answered");
        ended.sort_unstable();
        assert_eq!(ended, [1, 3]);
    });
}

/// Clients whose half-close is a frame of its own send it when the answer may already be on its way.
#[test]
fn a_client_may_end_its_calls_after_their_answers() {
    const CALLS: u32 = 3000;
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    bed(|bed| async move {
        let (pipe, served) = bed.pipe(PIPE_BYTES);
        let (mut from, mut to) = tokio::io::split(pipe);
        let reader = spawn_local(async move {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes).await;
            bytes
        });
        let head = head_block(RANGE);
        let window = http2_frame(8, 0, 0, &(1_u32 << 30).to_be_bytes());
        to.write_all(&[PREFACE, SETTINGS, &window].concat()).await.unwrap();
        let message = frame(&local_range("a"));
        let streams = |range: std::ops::Range<u32>| range.map(|n| 2 * n + 1);
        for calls in [0..CALLS, CALLS..2 * CALLS] {
            for stream in streams(calls.clone()) {
                to.write_all(&http2_frame(HEADERS, END_HEADERS, stream, &head)).await.unwrap();
                to.write_all(&http2_frame(DATA, 0, stream, &message)).await.unwrap();
            }
            settle().await;
            // The second time they are as late as can be.
            if calls.start > 0 {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            for stream in streams(calls) {
                to.write_all(&http2_frame(DATA, END_STREAM, stream, &[]))
                    .await
                    .expect("the connection is there");
            }
            settle().await;
            assert!(!served.is_finished());
        }
        to.shutdown().await.unwrap();
        drop(to);
        let bytes = reader.await.unwrap();
        assert!(!bytes.windows(10).any(|w| w == b"too_many_i"), "the connection was cut");
    });
}

#[test]
fn a_connection_without_a_preface_is_dropped() {
    bed(|bed| async move {
        let (pipe, served) = bed.pipe(PIPE_BYTES);
        let began = Instant::now();
        served.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 120);
        drop(pipe);
    });
}

/// A small generator, so that a seed means the same run for years.
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// Feeds bytes to a connection in pieces; whatever they are, it answers or closes, and never panics.
async fn feed(bed: &Bed, bytes: &[u8], piece: usize) {
    let (mut pipe, served) = bed.pipe(PIPE_BYTES);
    for part in bytes.chunks(piece.max(1)) {
        if pipe.write_all(part).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let _ = pipe.shutdown().await;
    read_to_end(pipe).await;
    served.await.expect("the connection panicked");
}

/// The bytes that a client sends for a few good calls.
async fn good_bytes() -> Vec<u8> {
    let (ours, mut theirs) = tokio::io::duplex(PIPE_BYTES);
    let (mut requests, connection) = h2::client::handshake(ours).await.unwrap();
    let driver = spawn_local(async move { drop(connection.await) });
    let mut open = Vec::new();
    for (path, frame) in [
        (PUT, frame(&put("a", "b"))),
        (RANGE, frame(&range("a"))),
        ("/etcdserverpb.Maintenance/Status", frame(&pb::StatusRequest {})),
        ("/etcdserverpb.Watch/Watch", frame(&pb::StatusRequest {})),
    ] {
        let (response, mut stream) = requests.send_request(Client::request(path, &[]), false).unwrap();
        stream.send_data(frame, true).unwrap();
        open.push(response);
    }
    settle().await;
    driver.abort();
    let _ = driver.await;
    drop(open);
    let mut bytes = Vec::new();
    drop(requests);
    theirs.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[test]
fn no_bytes_break_the_connection() {
    let seed = std::env::var("QUORATE_SEED").map_or(0x5eed, |seed| seed.parse().expect("QUORATE_SEED"));
    println!("QUORATE_SEED={seed}");
    bed(|bed| async move {
        let mut seed = seed;
        let good = good_bytes().await;
        assert!(good.starts_with(PREFACE));
        for _ in 0..1500 {
            let mut bytes = good.clone();
            for _ in 0..=next(&mut seed) % 4 {
                let at = PREFACE.len() + next(&mut seed) as usize % (bytes.len() - PREFACE.len());
                match next(&mut seed) % 4 {
                    0 => bytes.truncate(at.max(PREFACE.len() + 1)),
                    1 => drop(bytes.splice(at..at, (0..9).map(|_| next(&mut seed) as u8))),
                    _ => bytes[at] = next(&mut seed) as u8,
                }
            }
            let piece = 1 + next(&mut seed) as usize % 200;
            feed(&bed, &bytes, piece).await;
        }
        // And it goes on serving.
        let mut client = bed.client().await;
        client.call(PUT, &put("still", "there")).await.decoded::<pb::PutResponse>();
    });
}
