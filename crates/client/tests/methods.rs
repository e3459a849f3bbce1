//! Which RPC each method calls and what it makes of the answer: against a server that answers by a script.

use std::fmt::Debug;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use client::{Client, Config, Deadline, Error};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wire::Code;
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, HashKvRequest, HashKvResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, MemberListRequest, MemberListResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader, StatusRequest,
    StatusResponse, TxnRequest, TxnResponse,
};
use wire::mvccpb::KeyValue;

/// Long enough for a busy machine; nothing waits for it.
const LONG: Duration = Duration::from_secs(60);

/// What the server does with a call, in this order.
#[derive(Clone)]
enum Step {
    /// Sends a message.
    Say(Vec<u8>),
    /// Ends the call with this code and text.
    End(Code, &'static str),
    /// Leaves the call open.
    Wait,
    /// Breaks the connection.
    Break,
}

fn say(message: impl Message) -> Step {
    Step::Say(message.encode_to_vec())
}

const DONE: Step = Step::End(Code::Ok, "");

/// A call as the server heard it.
struct Heard {
    path: String,
    /// Whether it came with a deadline.
    timed: bool,
    message: Bytes,
}

/// A client of a server that answers every call by these steps, and the calls.
async fn server(steps: &[Step]) -> (Client, UnboundedReceiver<Heard>) {
    let (config, heard) = listen(steps).await;
    (Client::new(config).unwrap(), heard)
}

async fn listen(steps: &[Step]) -> (Config, UnboundedReceiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    let (calls, heard) = unbounded_channel();
    let steps = steps.to_vec();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, steps.clone(), calls.clone()));
        }
    });
    (Config::new(vec![endpoint]), heard)
}

async fn serve(stream: TcpStream, steps: Vec<Step>, calls: UnboundedSender<Heard>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (broken, mut breaks) = unbounded_channel();
    loop {
        tokio::select! {
            call = connection.accept() => match call {
                Some(Ok((request, respond))) => {
                    tokio::spawn(answer(request, respond, steps.clone(), calls.clone(), broken.clone()));
                }
                _ => return,
            },
            _ = breaks.recv() => return,
        }
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    steps: Vec<Step>,
    calls: UnboundedSender<Heard>,
    broken: UnboundedSender<()>,
) {
    let (head, mut body) = request.into_parts();
    let mut frames = BytesMut::new();
    while let Some(data) = body.data().await {
        frames.extend_from_slice(&data.unwrap());
    }
    // A flag and a length stand before the message.
    let message = frames.freeze().slice(5..);
    let timed = head.headers.contains_key("grpc-timeout");
    // A test that has ended does not listen any more.
    let _ = calls.send(Heard { path: head.uri.path().to_owned(), timed, message });

    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    for step in steps {
        match step {
            Step::Say(message) => {
                let mut frame = BytesMut::new();
                frame.put_u8(0);
                frame.put_u32(message.len().try_into().unwrap());
                frame.put_slice(&message);
                stream.send_data(frame.freeze(), false).unwrap();
            }
            Step::End(code, text) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", (code as u32).into());
                trailers.insert("grpc-message", text.parse().unwrap());
                stream.send_trailers(trailers).unwrap();
            }
            Step::Wait => std::future::pending().await,
            Step::Break => {
                broken.send(()).unwrap();
                // A stream that is dropped is reset, which would be the server's word and not a broken connection.
                std::future::pending().await
            }
        }
    }
}

/// The call reaches this RPC with this request, and gives back the answer.
async fn check<Q, A>(
    path: &str,
    request: Q,
    answer: A,
    call: impl AsyncFnOnce(&Client, Q, Deadline) -> Result<A, Error>,
) where
    Q: Message + Default + Clone + PartialEq + Debug,
    A: Message + Clone + PartialEq + Debug,
{
    let (client, mut heard) = server(&[say(answer.clone()), DONE]).await;
    let given = call(&client, request.clone(), Deadline::after(LONG)).await;
    assert_eq!(given.unwrap(), answer, "{path}");
    let heard = heard.recv().await.unwrap();
    assert_eq!(heard.path, path);
    assert!(heard.timed, "{path}");
    assert_eq!(Q::decode(heard.message).unwrap(), request, "{path}");
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: 1, member_id: 2, revision, raft_term: 3 })
}

fn pair(key: &'static str) -> KeyValue {
    KeyValue { key: key.into(), value: "v".into(), ..KeyValue::default() }
}

#[tokio::test]
async fn methods_of_keys() {
    check(
        "/etcdserverpb.KV/Range",
        RangeRequest { key: "a".into(), limit: 3, ..RangeRequest::default() },
        RangeResponse { header: header(4), kvs: vec![pair("a")], more: true, count: 9 },
        async |client, request, deadline| client.range(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.KV/Put",
        PutRequest { key: "a".into(), lease: 7, ignore_value: true, ..PutRequest::default() },
        PutResponse { header: header(4), prev_kv: Some(pair("a")) },
        async |client, request, deadline| client.put(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.KV/DeleteRange",
        DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true },
        DeleteRangeResponse { header: header(4), deleted: 1, prev_kvs: vec![pair("a")] },
        async |client, request, deadline| client.delete_range(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.KV/Txn",
        TxnRequest { compare: vec![Default::default()], ..TxnRequest::default() },
        TxnResponse { header: header(4), succeeded: true, responses: Vec::new() },
        async |client, request, deadline| client.txn(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.KV/Compact",
        CompactionRequest { revision: 5, physical: true },
        CompactionResponse { header: header(8) },
        async |client, request, deadline| client.compact(request, deadline).await,
    )
    .await;
}

#[tokio::test]
async fn methods_of_leases() {
    check(
        "/etcdserverpb.Lease/LeaseGrant",
        LeaseGrantRequest { ttl: 10, id: 7 },
        LeaseGrantResponse { header: header(4), id: 7, ttl: 10, error: String::new() },
        async |client, request, deadline| client.grant(request, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Lease/LeaseRevoke",
        LeaseRevokeRequest { id: -7 },
        LeaseRevokeResponse { header: header(4) },
        async |client, request, deadline| client.revoke(request.id, deadline).await,
    )
    .await;
    for keys in [false, true] {
        check(
            "/etcdserverpb.Lease/LeaseTimeToLive",
            LeaseTimeToLiveRequest { id: 7, keys },
            LeaseTimeToLiveResponse {
                header: header(4),
                id: 7,
                ttl: -1,
                granted_ttl: 10,
                keys: vec!["a".into()],
            },
            async |client, request, deadline| client.time_to_live(request.id, request.keys, deadline).await,
        )
        .await;
    }
    check(
        "/etcdserverpb.Lease/LeaseLeases",
        LeaseLeasesRequest::default(),
        LeaseLeasesResponse { header: header(4), leases: vec![LeaseStatus { id: 7 }] },
        async |client, _, deadline| client.leases(deadline).await,
    )
    .await;
}

#[tokio::test]
async fn methods_of_maintenance_and_cluster() {
    check(
        "/etcdserverpb.Maintenance/Status",
        StatusRequest::default(),
        StatusResponse { header: header(4), version: "3.7.1".to_owned(), ..StatusResponse::default() },
        async |client, _, deadline| client.status(deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Maintenance/HashKV",
        HashKvRequest { revision: 3 },
        HashKvResponse { header: header(4), hash: 5, compact_revision: -1, hash_revision: 3 },
        async |client, request, deadline| client.hash_kv(request.revision, deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Maintenance/Alarm",
        AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() },
        AlarmResponse { header: header(4), alarms: vec![Default::default()] },
        async |client, _, deadline| client.alarms(deadline).await,
    )
    .await;
    check(
        "/etcdserverpb.Cluster/MemberList",
        MemberListRequest { linearizable: true },
        MemberListResponse { header: header(0), members: vec![Default::default()] },
        async |client, _, deadline| client.members(deadline).await,
    )
    .await;
}

#[tokio::test]
async fn a_call_without_a_deadline_says_none() {
    let (client, mut heard) = server(&[say(LeaseLeasesResponse::default()), DONE]).await;
    client.leases(Deadline::NEVER).await.unwrap();
    assert!(!heard.recv().await.unwrap().timed);
    // The server's own deadline is not this call's.
    let (client, _heard) =
        server(&[Step::End(Code::DeadlineExceeded, "etcdserver: request timed out")]).await;
    let error = client.leases(Deadline::NEVER).await.unwrap_err();
    assert!(matches!(error, Error::Status(_)), "{error:?}");
}

fn all() -> RangeRequest {
    RangeRequest { key: "a".into(), range_end: "\0".into(), limit: 3, ..RangeRequest::default() }
}

fn chunk(response: RangeResponse) -> Step {
    say(RangeStreamResponse { range_response: Some(response) })
}

fn pairs(keys: &[&'static str]) -> Step {
    chunk(RangeResponse { kvs: keys.iter().copied().map(pair).collect(), ..RangeResponse::default() })
}

#[tokio::test]
async fn a_stream_of_chunks_becomes_one_answer() {
    let last = RangeResponse { header: header(4), kvs: vec![pair("c")], more: true, count: 9 };
    let nothing = say(RangeStreamResponse { range_response: None });
    let (client, mut heard) =
        server(&[pairs(&["a"]), nothing, pairs(&["b"]), chunk(last.clone()), DONE]).await;
    let answer = client.range_stream(all(), Deadline::after(LONG)).await.unwrap();
    assert_eq!(answer, RangeResponse { kvs: vec![pair("a"), pair("b"), pair("c")], ..last });
    let heard = heard.recv().await.unwrap();
    assert_eq!(heard.path, "/etcdserverpb.KV/RangeStream");
    assert_eq!(RangeRequest::decode(heard.message).unwrap(), all());

    let (client, _heard) = server(&[DONE]).await;
    let answer = client.range_stream(all(), Deadline::after(LONG)).await.unwrap();
    assert_eq!(answer, RangeResponse::default());
}

/// What came before is not given out: it is not the range.
#[tokio::test]
async fn a_stream_that_fails_is_no_answer() {
    let text = "etcdserver: mvcc: required revision has been compacted";
    let compacted = Step::End(Code::OutOfRange, text);
    for steps in [vec![compacted.clone()], vec![pairs(&["a", "b"]), compacted]] {
        let (client, _heard) = server(&steps).await;
        let error = client.range_stream(all(), Deadline::after(LONG)).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.code()), (text, Some(Code::OutOfRange)));
    }

    let (client, _heard) = server(&[pairs(&["a"]), Step::Wait]).await;
    let error = client.range_stream(all(), Deadline::after(Duration::from_millis(50))).await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded), "{error:?}");

    let (client, _heard) = server(&[pairs(&["a"]), Step::Break]).await;
    let error = client.range_stream(all(), Deadline::after(LONG)).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unavailable), "{error}");
}

#[tokio::test]
async fn the_limit_of_an_answer_holds_for_each_chunk() {
    let (a, b) = (pairs(&["a"]), pairs(&["b", "c"]));
    let (Step::Say(small), Step::Say(large)) = (&a, &b) else { unreachable!("chunks are messages") };
    let (small, large) = (small.len(), large.len());
    let (config, _heard) = listen(&[a.clone(), b, a, DONE]).await;
    let limited = |bytes: usize| {
        Client::new(Config { answer_bytes_max: bytes.try_into().unwrap(), ..config.clone() }).unwrap()
    };
    let answer = limited(large).range_stream(all(), Deadline::after(LONG)).await.unwrap();
    assert_eq!(answer.kvs.len(), 4);
    let error = limited(small).range_stream(all(), Deadline::after(LONG)).await.unwrap_err();
    let text = format!("grpc: received message larger than max ({large} vs. {small})");
    assert_eq!(error.to_string(), format!("rpc error: code = ResourceExhausted desc = {text}"));
}
