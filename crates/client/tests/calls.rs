//! The client against servers made for the case: a real socket each, one thread, no server of ours.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use client::{Client, Config, Deadline, Endpoint, Error, Keepalive};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use wire::Code;
use wire::etcdserverpb::{PutRequest, RangeRequest, RangeResponse};
use wire::mvccpb::KeyValue;

/// Long enough for a busy machine; nothing waits for it.
const LONG: Duration = Duration::from_secs(60);

/// Long enough to be refused a connection, also on a busy machine; waited for in full.
const ENOUGH: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum Server {
    /// Answers a range with one pair; a put with an error.
    Answers,
    /// Takes requests and says nothing.
    Silent,
    /// Takes one request and hangs.
    Hung,
}

async fn listen(server: Server) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, server));
        }
    });
    endpoint
}

async fn serve(stream: TcpStream, server: Server) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut open = Vec::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        match server {
            Server::Answers => answer(&request, respond),
            Server::Silent => open.push((request, respond)),
            Server::Hung => std::future::pending().await,
        }
    }
}

fn answer(request: &Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.headers()["client-api-version"], "3.7");
    assert!(request.headers().contains_key("grpc-timeout"));
    let head = Response::builder().header("content-type", "application/grpc");
    if request.uri().path() == "/etcdserverpb.KV/Put" {
        let head = head.header("grpc-status", "3").header("grpc-message", "etcdserver: key is not provided");
        respond.send_response(head.body(()).unwrap(), true).unwrap();
        return;
    }
    let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
    let message = pair().encode_to_vec();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len().try_into().unwrap());
    frame.put_slice(&message);
    stream.send_data(frame.freeze(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers).unwrap();
}

fn pair() -> RangeResponse {
    let kv = KeyValue { key: "a".into(), value: vec![b'x'; 100].into(), ..KeyValue::default() };
    RangeResponse { kvs: vec![kv], count: 1, ..RangeResponse::default() }
}

/// An endpoint that takes connections and is no server: it says this, or nothing at all.
async fn impostor(says: Option<&'static [u8]>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            match says {
                Some(text) => stream.write_all(text).await.unwrap(),
                None => silent.push(stream),
            }
        }
    });
    endpoint
}

/// An endpoint where nobody listens.
async fn nobody() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string().parse().unwrap()
}

fn get() -> RangeRequest {
    RangeRequest { key: "a".into(), ..RangeRequest::default() }
}

#[tokio::test]
async fn the_next_endpoint_answers_for_one_that_is_gone() {
    let endpoints = vec![nobody().await, listen(Server::Answers).await];
    let client = Client::new(Config::new(endpoints)).unwrap();
    for _ in 0..2 {
        assert_eq!(client.range(get(), Deadline::after(LONG)).await.unwrap(), pair());
    }
}

#[tokio::test]
async fn a_port_that_is_no_server_is_passed_over() {
    for says in [None, Some(&b""[..]), Some(b"HTTP/1.1 400 Bad Request\r\n\r\n")] {
        let endpoints = vec![impostor(says).await, listen(Server::Answers).await];
        let client = Client::new(Config::new(endpoints)).unwrap();
        assert_eq!(client.range(get(), Deadline::after(LONG)).await.unwrap(), pair());

        let client = Client::new(Config::new(vec![impostor(says).await])).unwrap();
        let error = client.range(get(), Deadline::after(Duration::from_millis(50))).await.unwrap_err();
        assert_eq!(error.to_string(), "context deadline exceeded");
    }
}

#[tokio::test]
async fn a_refusal_has_the_servers_code_and_text() {
    let client = Client::new(Config::new(vec![listen(Server::Answers).await])).unwrap();
    let error = client.put(PutRequest::default(), Deadline::after(LONG)).await.unwrap_err();
    assert_eq!(error.to_string(), "etcdserver: key is not provided");
    assert_eq!(error.code(), Some(Code::InvalidArgument));
    // The connection goes on.
    client.range(get(), Deadline::after(LONG)).await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_a_call_that_nobody_answers() {
    let client = Client::new(Config::new(vec![listen(Server::Silent).await])).unwrap();
    let error = client.range(get(), Deadline::after(Duration::from_millis(50))).await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded), "{error:?}");
    assert_eq!(error.to_string(), "context deadline exceeded");
}

#[tokio::test]
async fn a_call_without_a_connection_knows_why() {
    let refused = nobody().await;
    let socket: Endpoint = "unix:///nonexistent/socket".parse().unwrap();
    for (endpoint, cause) in [
        (refused.clone(), format!("dial tcp {refused}: connect: connection refused")),
        (socket, "dial unix /nonexistent/socket: connect: no such file or directory".to_owned()),
    ] {
        let client = Client::new(Config::new(vec![endpoint.clone()])).unwrap();
        let error = client.range(get(), Deadline::after(ENOUGH)).await.unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.code()),
            ("context deadline exceeded", Some(Code::DeadlineExceeded))
        );
        let Error::Unreachable { endpoint: tried, cause: found } = error else { panic!("{error:?}") };
        assert_eq!((tried, found), (endpoint.to_string(), cause));
    }
    // Once one has answered, a deadline is no matter of connections any more.
    let endpoints = vec![refused, listen(Server::Silent).await];
    let client = Client::new(Config::new(endpoints)).unwrap();
    let error = client.range(get(), Deadline::after(ENOUGH)).await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded), "{error:?}");
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_and_one_that_is_slow_is_not() {
    let short = Duration::from_millis(20);
    let keepalive = Some(Keepalive { time: short, timeout: LONG });
    let client =
        Client::new(Config { keepalive, ..Config::new(vec![listen(Server::Silent).await]) }).unwrap();
    let call = client.range(get(), Deadline::after(short * 10));
    assert!(matches!(call.await, Err(Error::DeadlineExceeded)), "its pings are answered");

    let keepalive = Some(Keepalive { time: short, timeout: short });
    let client = Client::new(Config { keepalive, ..Config::new(vec![listen(Server::Hung).await]) }).unwrap();
    let call = tokio::time::timeout(LONG, client.range(get(), Deadline::NEVER)).await;
    let error = call.expect("the call ends").unwrap_err();
    assert_eq!(error.code(), Some(Code::Unavailable), "{error}");
}

#[tokio::test]
async fn messages_above_the_limits_are_refused() {
    let config = Config::new(vec![listen(Server::Answers).await]);
    let client = Client::new(Config { answer_bytes_max: 50, ..config.clone() }).unwrap();
    let error = client.range(get(), Deadline::after(LONG)).await.unwrap_err();
    let bytes = pair().encoded_len();
    let text = format!(
        "rpc error: code = ResourceExhausted desc = grpc: received message larger than max ({bytes} vs. 50)"
    );
    assert_eq!(error.to_string(), text);

    let client = Client::new(Config { request_bytes_max: 2, ..config }).unwrap();
    let error = client.range(get(), Deadline::after(LONG)).await.unwrap_err();
    let text = "rpc error: code = ResourceExhausted desc = trying to send message larger than max (3 vs. 2)";
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_client_needs_an_endpoint() {
    let error = Client::new(Config::new(Vec::new())).err().unwrap();
    assert_eq!(error.to_string(), "etcdclient: no available endpoints");
}
