//! Connections as a client meets them: the keepalive policy and the limit on streams, by their flags; and a call whose
//! write fails.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::task::Poll;

use blackbox::{Member, PATIENCE, binary, run};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use nix::sys::signal::{Signal, kill};
use prost::Message;
use wire::etcdserverpb::PutRequest;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

/// A frame's type, flags and payload.
struct Frame(u8, u8, Vec<u8>);

impl Frame {
    fn is_ping_answer(&self) -> bool {
        (self.0, self.1) == (6, 1)
    }
}

/// A connection in plain frames.
struct Wire(TcpStream);

impl Wire {
    fn open(member: &Member) -> Self {
        let stream = TcpStream::connect(member.endpoint().trim_start_matches("http://")).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut wire = Wire(stream);
        wire.send(&[PREFACE, SETTINGS].concat());
        wire
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("it reads");
    }

    /// The next frame; `None` at the end of the connection.
    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let [l0, l1, l2, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        self.0.read_exact(&mut payload).expect("a whole frame");
        Some(Frame(kind, flags, payload))
    }

    /// Pings and waits for the answer.
    fn ping(&mut self) {
        self.send(PING);
        while !self.next().expect("the connection goes on").is_ping_answer() {}
    }
}

#[test]
fn a_client_that_pings_too_often_is_told_and_cut() {
    let member = Member::start(&["--grpc-keepalive-min-time", "1h"]);
    let mut wire = Wire::open(&member);
    // The first ping is free, two violations are forgiven.
    for _ in 0..3 {
        wire.ping();
    }
    wire.send(PING);
    let goaway = loop {
        match wire.next().expect("a GOAWAY before the end") {
            Frame(7, _, payload) => break payload,
            _ => continue,
        }
    };
    // Last stream, ENHANCE_YOUR_CALM, text.
    assert_eq!((&goaway[4..8], &goaway[8..]), (&[0, 0, 0, 0xb][..], &b"too_many_pings"[..]));
    assert!(wire.next().is_none(), "the connection goes on after its GOAWAY");
}

#[test]
fn the_limit_on_streams_is_announced() {
    // Not more than 65,536, whatever the flag says: docs/compat.md.
    for (flags, expected) in [(&["--max-concurrent-streams", "7"][..], Some(7)), (&[], Some(65_536))] {
        let member = Member::start(flags);
        let mut wire = Wire::open(&member);
        let settings = loop {
            match wire.next().expect("settings") {
                Frame(4, 0, payload) => break payload,
                _ => continue,
            }
        };
        let limit = settings
            .chunks_exact(6)
            .find(|setting| setting[..2] == [0, 3])
            .map(|setting| u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]));
        assert_eq!(limit, expected);
    }
}

/// Opens a health watch, which stays open.
fn watch(requests: &mut SendRequest<Bytes>) -> (ResponseFuture, h2::SendStream<Bytes>) {
    let request = http::Request::post("http://m/grpc.health.v1.Health/Watch")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (response, mut stream) =
        requests.send_request(request.body(()).expect("a request"), false).expect("an open connection");
    stream.send_data(Bytes::from_static(&[0; 5]), true).expect("an open stream");
    (response, stream)
}

#[test]
fn a_stream_above_the_limit_waits_until_one_ends() {
    let member = Member::start(&["--max-concurrent-streams", "2"]);
    run(async {
        let address = member.endpoint();
        let stream = tokio::net::TcpStream::connect(address.trim_start_matches("http://")).await;
        let handshake = h2::client::handshake(stream.expect("it listens")).await;
        let (mut requests, mut connection) = handshake.expect("HTTP/2");
        let mut pings = connection.ping_pong().expect("the first to ask");
        tokio::task::spawn_local(async move { drop(connection.await) });
        // The server's settings are there before its answer to a ping.
        pings.ping(h2::Ping::opaque()).await.expect("an answer");
        let mut open = Vec::new();
        for _ in 0..2 {
            let (response, stream) = watch(&mut requests);
            open.push((response.await.expect("an answer"), stream));
        }
        let (mut third, _stream) = watch(&mut requests);
        let early = poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut third).poll(cx).is_ready())).await;
        assert!(!early, "a third stream of two");
        drop(open.pop());
        assert_eq!(third.await.expect("an answer").status(), 200);
    });
}

/// The head of a call of Put on stream 1, its fields plain.
fn put_head() -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Put"),
        (":authority", "m"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    [&[0, 0, block.len() as u8, 1, 4, 0, 0, 0, 1][..], &block].concat()
}

/// Rule 7: the process ends where the failure is found. Here the main thread is busy with an orderly end, and waits
/// for the very call that the failure leaves without an answer.
#[test]
fn a_failed_write_ends_the_process_at_once_even_while_it_closes() {
    // A write beyond the limit on the size of files then fails, and sends no signal that kills.
    let folder = tempfile::tempdir().expect("a temporary directory");
    let program = folder.path().join("etcd");
    let script = format!("#!/bin/sh\ntrap '' XFSZ\nexec {} \"$@\"\n", binary("etcd").display());
    std::fs::write(&program, script).expect("a script");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("a mode");
    let mut member = Member::of(&program, &[]);
    member.restart();
    let mut wire = Wire::open(&member);
    wire.send(&put_head());
    // Its answer comes after the head was read.
    wire.ping();
    kill(member.pid(), Signal::SIGTERM).expect("it can be signalled");
    while !matches!(wire.next(), Some(Frame(7, ..))) {}

    let limit = Command::new("prlimit").args(["--fsize=1", "--pid", &member.pid().to_string()]).status();
    assert!(limit.expect("prlimit runs").success());
    let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() }.encode_to_vec();
    let message = [&[0, 0, 0, 0, put.len() as u8][..], &put].concat();
    wire.send(&[&[0, 0, message.len() as u8, 0, 1, 0, 0, 0, 1][..], &message].concat());
    let answered = std::iter::from_fn(|| wire.next()).any(|Frame(kind, ..)| kind == 1);
    assert!(!answered, "acknowledged or refused, though it may have happened");

    let status = member.end();
    let log = member.log();
    let last = log.lines().last().expect("a log");
    assert_eq!(status.code(), Some(1), "{last}");
    assert!(last.contains("the member can't go on") && last.contains(".wal"), "{last}");
}
