//! The front end over in-memory pipes, and a client that speaks plain HTTP/2 to it, on a clock that only moves when
//! nothing else can.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message;
use server::grpc::{Front, GrpcConfig, serve, serve_client};
use server::lane::{Lane, LaneSeed};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use wire::etcdserverpb as pb;
use wire::{Code, Status};

use super::FakeMember;

pub const PIPE_BYTES: usize = 64 << 20;

/// Counts the writes that reach the pipe.
struct Counted(DuplexStream, Rc<Cell<usize>>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.set(self.1.get() + 1);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

pub struct Bed {
    pub member: FakeMember,
    pub lane: Lane,
    pub front: Front,
    pub writes: Rc<Cell<usize>>,
}

impl Bed {
    pub fn pipe(&self, bytes: usize) -> (DuplexStream, JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(bytes);
        (ours, spawn_local(serve(Counted(theirs, self.writes.clone()), self.front.clone(), None)))
    }

    pub async fn client(&self) -> Client {
        let (ours, served) = self.pipe(PIPE_BYTES);
        self.connect(ours, served).await
    }

    /// A client with a certificate of this name, on a listener where that says who asks.
    pub async fn client_certified(&self, name: &str) -> Client {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let client = server::grpc::Client { address: None, certified: Some(name.into()) };
        let counted = Counted(theirs, self.writes.clone());
        let served = spawn_local(serve_client(counted, client, self.front.clone(), None));
        self.connect(ours, served).await
    }

    async fn connect(&self, ours: DuplexStream, served: JoinHandle<()>) -> Client {
        let (requests, mut connection) = h2::client::handshake(ours).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        let driver = spawn_local(async move { drop(connection.await) });
        Client { requests, pings, driver, served }
    }
}

fn on_paused_clock(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Runs `test` against a front end of its own.
pub fn bed_with<F: Future<Output = ()>>(config: GrpcConfig, test: impl FnOnce(Bed) -> F) {
    on_paused_clock(async {
        let (member, lane, driver) = FakeMember::new();
        spawn_local(driver);
        let front = Front::new(lane.clone(), config);
        test(Bed { member, lane, front, writes: Rc::default() }).await;
    });
}

/// As [`bed`], with a way to give the lane another member once this one is gone.
pub fn bed_opened_anew<F: Future<Output = ()>>(test: impl FnOnce(Bed, mpsc::UnboundedSender<LaneSeed>) -> F) {
    on_paused_clock(async {
        let (member, lane, driver) = FakeMember::new();
        let (renewals, renewed) = mpsc::unbounded_channel();
        spawn_local(driver.renewed_by(renewed));
        let front = Front::new(lane.clone(), GrpcConfig::default());
        test(Bed { member, lane, front, writes: Rc::default() }, renewals).await;
    });
}

pub fn bed<F: Future<Output = ()>>(test: impl FnOnce(Bed) -> F) {
    bed_with(GrpcConfig::default(), test);
}

pub struct Client {
    pub requests: SendRequest<Bytes>,
    pub pings: h2::PingPong,
    pub driver: JoinHandle<()>,
    pub served: JoinHandle<()>,
}

/// What a call ended with.
#[derive(Debug)]
pub struct Ended {
    pub http: u16,
    pub status: Status,
    pub message: Option<Bytes>,
}

impl Ended {
    pub fn decoded<M: Message + Default>(self) -> M {
        assert_eq!(self.status.code, Code::Ok, "{}", self.status);
        M::decode(self.message.expect("a message")).unwrap()
    }

    pub fn refused(self, error: impl Into<Status>) {
        assert_eq!(self.status, error.into());
        assert_eq!(self.message, None);
    }
}

pub fn frame(message: &impl Message) -> Bytes {
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    frame.extend_from_slice(&message.encode_to_vec());
    frame.into()
}

pub fn status_of(headers: &HeaderMap) -> Option<Status> {
    let code = headers.get("grpc-status")?.to_str().unwrap().parse().unwrap();
    let text = headers.get("grpc-message").map_or(&b""[..], |text| text.as_bytes());
    Some(Status::new(Code::from_number(code), percent_decode(text)))
}

/// Tonic encodes more than gRPC's Go server does; a client sees the same.
pub fn percent_decode(text: &[u8]) -> String {
    let mut decoded = Vec::new();
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [*rest.next().unwrap(), *rest.next().unwrap()];
                decoded.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            byte => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).unwrap()
}

pub async fn ended(response: ResponseFuture) -> Ended {
    let (parts, mut body) = response.await.unwrap().into_parts();
    let http = parts.status.as_u16();
    if let Some(status) = status_of(&parts.headers) {
        return Ended { http, status, message: None };
    }
    let mut data = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
        data.extend_from_slice(&chunk);
    }
    let status = status_of(&body.trailers().await.unwrap().expect("trailers")).expect("a status");
    assert_eq!(data[1..5], (data.len() as u32 - 5).to_be_bytes());
    Ended { http, status, message: Some(data.freeze().slice(5..)) }
}

impl Client {
    pub fn request(path: &str, extra: &[(&str, &[u8])]) -> Request<()> {
        let mut request = Request::post(format!("http://member{path}")).header("te", "trailers");
        if !extra.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    /// Begins a call; its message is the caller's.
    pub fn open(&mut self, path: &str, extra: &[(&str, &[u8])]) -> (ResponseFuture, h2::SendStream<Bytes>) {
        self.requests.send_request(Self::request(path, extra), false).unwrap()
    }

    /// Sends a call whole; nothing is waited for.
    pub fn start(&mut self, path: &str, extra: &[(&str, &[u8])], frame: Bytes) -> ResponseFuture {
        let (response, mut stream) = self.requests.send_request(Self::request(path, extra), false).unwrap();
        stream.send_data(frame, true).unwrap();
        response
    }

    pub async fn raw(&mut self, path: &str, extra: &[(&str, &[u8])], frame: Bytes) -> Ended {
        poll_fn(|cx| self.requests.poll_ready(cx)).await.unwrap();
        ended(self.start(path, extra, frame)).await
    }

    pub async fn ping(&mut self) {
        self.pings.ping(h2::Ping::opaque()).await.unwrap();
    }

    pub async fn call(&mut self, path: &str, message: &impl Message) -> Ended {
        self.raw(path, &[], frame(message)).await
    }
}

pub const HEADER: pb::ResponseHeader =
    pb::ResponseHeader { cluster_id: 9, member_id: 7, revision: 0, raft_term: 2 };

pub fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..HEADER })
}

/// Lets every task run until nothing is left to do but to wait for time.
pub async fn settle() {
    tokio::time::sleep(Duration::from_nanos(1)).await;
}

/// A call whose client may send messages without an end, as its client has it.
pub struct Stream {
    pub requests: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    parts: BytesMut,
}

impl Stream {
    pub fn open(client: &mut Client, path: &str, extra: &[(&str, &[u8])]) -> Stream {
        let (response, requests) = client.open(path, extra);
        Stream { requests, response: Some(response), body: None, parts: BytesMut::new() }
    }

    pub fn send(&mut self, message: &impl Message) {
        self.requests.send_data(frame(message), false).unwrap();
    }

    /// The client has said all that it wants.
    pub fn close(&mut self) {
        self.requests.send_data(Bytes::new(), true).unwrap();
    }

    /// The next response. Takes as much as it needs and makes room for as much.
    pub async fn next<M: Message + Default>(&mut self) -> M {
        loop {
            if let Some(length) = self.parts.get(1..5) {
                let length = 5 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
                if self.parts.len() >= length {
                    let message = self.parts.split_to(length);
                    return M::decode(&message[5..]).unwrap();
                }
            }
            let body = self.body().await;
            let chunk = body.data().await.expect("a response").unwrap();
            body.flow_control().release_capacity(chunk.len()).unwrap();
            self.parts.extend_from_slice(&chunk);
        }
    }

    async fn body(&mut self) -> &mut RecvStream {
        if let Some(response) = self.response.take() {
            self.body = Some(response.await.unwrap().into_body());
        }
        self.body.as_mut().unwrap()
    }

    /// How the stream ends, after nothing more.
    pub async fn end(mut self) -> Status {
        assert!(self.parts.is_empty());
        if let Some(response) = self.response.take() {
            let response = response.await.unwrap();
            if let Some(status) = status_of(response.headers()) {
                return status;
            }
            self.body = Some(response.into_body());
        }
        let body = self.body.as_mut().unwrap();
        assert!(body.data().await.is_none(), "no more responses");
        status_of(&body.trailers().await.unwrap().expect("trailers")).expect("a status")
    }
}
