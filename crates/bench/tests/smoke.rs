//! The load generator against a small server in this process, which speaks HTTP/2 with a library that the load
//! generator does not use. Nothing here depends on how fast anything is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bench::args::Invocation;
use bench::measure::{Measurement, fill, measure};
use bench::report::Figures;
use bench::run::{Load, Outcome, Target};
use bench::schedule::Stop;
use bench::servers::Server;
use bench::workload::{Kind, Order, Shape, Workload};
use bytes::Bytes;
use prost::Message;
use wire::etcdserverpb::{PutRequest, RangeRequest, RangeResponse};
use wire::mvccpb::KeyValue;

/// How the server behaves.
#[derive(Clone, Debug, Default)]
struct Manner {
    /// Calls with this key fail with this text.
    refused: Option<(&'static str, &'static str)>,
    /// The first call of all is answered so much later, and nothing else is answered before.
    stall: Duration,
    /// Calls that one connection may have open.
    streams_max: Option<u32>,
    /// The server keeps no table of headers.
    no_table: bool,
    /// The connection is closed after so many calls.
    calls_max: Option<usize>,
    /// Bytes of the value that a range finds.
    value_bytes: usize,
}

/// A server with what it was asked: a count by path and key.
struct Fake {
    address: SocketAddr,
    seen: Arc<Mutex<BTreeMap<(String, String), u64>>>,
}

impl Fake {
    fn start(manner: Manner) -> Fake {
        let (tell, told) = mpsc::channel();
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let shared = Arc::clone(&seen);
        // Ends with the test's process.
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
                tell.send(listener.local_addr().expect("an address")).expect("the test waits");
                let turn = Arc::new(tokio::sync::Mutex::new(manner.stall));
                loop {
                    let (socket, _) = listener.accept().await.expect("a connection");
                    tokio::spawn(serve(socket, manner.clone(), Arc::clone(&shared), Arc::clone(&turn)));
                }
            });
        });
        Fake { address: told.recv().expect("an address"), seen }
    }

    fn target(&self, connections: usize, in_flight: usize) -> Target {
        let answer_timeout = Duration::from_secs(60);
        Target { endpoints: vec![self.address], connections, in_flight, answer_timeout }
    }

    fn calls(&self) -> u64 {
        self.seen.lock().expect("no panic").values().sum()
    }
}

async fn serve(
    socket: tokio::net::TcpStream,
    manner: Manner,
    seen: Arc<Mutex<BTreeMap<(String, String), u64>>>,
    turn: Arc<tokio::sync::Mutex<Duration>>,
) {
    let mut builder = h2::server::Builder::new();
    if let Some(streams_max) = manner.streams_max {
        builder.max_concurrent_streams(streams_max);
    }
    if manner.no_table {
        builder.header_table_size(0);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
    let mut calls = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        if manner.calls_max.is_some_and(|calls_max| calls == calls_max) {
            return;
        }
        calls += 1;
        tokio::spawn(answer(request, respond, manner.clone(), Arc::clone(&seen), Arc::clone(&turn)));
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    manner: Manner,
    seen: Arc<Mutex<BTreeMap<(String, String), u64>>>,
    turn: Arc<tokio::sync::Mutex<Duration>>,
) {
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).expect("what was received");
        bytes.extend_from_slice(&data);
    }
    let range = path == "/etcdserverpb.KV/Range";
    let key = if range {
        RangeRequest::decode(&bytes[5..]).expect("a range").key
    } else {
        PutRequest::decode(&bytes[5..]).expect("a put").key
    };
    let key = String::from_utf8(key.to_vec()).expect("a text");
    *seen.lock().expect("no panic").entry((path, key.clone())).or_insert(0) += 1;
    {
        // The first one holds the turn while it stalls.
        let mut stall = turn.lock().await;
        tokio::time::sleep(std::mem::take(&mut *stall)).await;
    }
    let head = http::Response::builder().header("content-type", "application/grpc");
    if let Some((refused, text)) = manner.refused
        && refused == key
    {
        let head = head.header("grpc-status", "14").header("grpc-message", text).body(()).expect("a head");
        let _ = respond.send_response(head, true);
        return;
    }
    let message = if range {
        let found = KeyValue { value: vec![7; manner.value_bytes].into(), ..KeyValue::default() };
        RangeResponse { kvs: vec![found], count: 1, ..RangeResponse::default() }.encode_to_vec()
    } else {
        Vec::new()
    };
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    let Ok(mut stream) = respond.send_response(head.body(()).expect("a head"), false) else { return };
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    if stream.send_data(framed.into(), false).is_ok() {
        let _ = stream.send_trailers(trailers);
    }
}

fn shape(keys: u64, order: Order) -> Shape {
    Shape { key_bytes: 8, value_bytes: 256, keys, order, serializable: false }
}

fn requests(count: u64) -> Stop {
    Stop { requests: Some(count), duration: None }
}

fn run(target: &Target, kind: Kind, rate: Option<f64>, count: u64) -> Outcome {
    let mut workload = Workload::new(kind, shape(10, Order::Sequential));
    let mut load = Load::connect(target, kind).expect("a connection");
    load.run(&mut workload, rate, requests(count)).expect("a run")
}

#[test]
fn a_closed_loop_counts_answers_and_errors() {
    let refused = Some(("00000007", "etcdserver: no leader, 50%25"));
    let server = Fake::start(Manner { refused, ..Manner::default() });
    let outcome = run(&server.target(4, 30), Kind::Put, None, 500);
    assert_eq!((outcome.answered, outcome.hits, outcome.not_sent), (450, 450, 0));
    assert_eq!(outcome.errors, BTreeMap::from([("14: etcdserver: no leader, 50%".to_owned(), 50)]));
    assert_eq!(outcome.latencies_ns.len(), 450);
    assert!(outcome.latencies_ns.min() > 0);
    let seen = server.seen.lock().expect("no panic");
    assert_eq!(seen.len(), 10);
    assert!(seen.values().all(|count| *count == 50), "{seen:?}");
}

#[test]
fn an_open_loop_charges_a_stall_to_all_that_it_delayed() {
    let stall = Duration::from_millis(200);
    let server = Fake::start(Manner { stall, ..Manner::default() });
    // One in flight: call i is meant for i ms, and can't be sent before the first is answered.
    let outcome = run(&server.target(1, 1), Kind::Put, Some(1000.0), 100);
    assert_eq!((outcome.answered, outcome.failed(), outcome.not_sent), (100, 0, 0));
    // Counted from the moment of sending, ninety-nine of them would take next to nothing.
    assert!(outcome.latencies_ns.min() >= 100_000_000, "{}", outcome.latencies_ns.min());
    assert!(outcome.latencies_ns.max() >= 199_000_000, "{}", outcome.latencies_ns.max());
    assert!(outcome.elapsed >= stall);
}

#[test]
fn the_servers_limit_of_streams_is_kept() {
    let server = Fake::start(Manner { streams_max: Some(2), ..Manner::default() });
    let outcome = run(&server.target(2, 64), Kind::Put, None, 300);
    assert_eq!((outcome.answered, outcome.failed()), (300, 0));
}

#[test]
fn a_server_without_a_table_of_headers_is_served() {
    let server = Fake::start(Manner { no_table: true, ..Manner::default() });
    let outcome = run(&server.target(2, 8), Kind::Put, None, 100);
    assert_eq!((outcome.answered, outcome.failed()), (100, 0));
}

#[test]
fn answers_of_many_frames_are_put_together() {
    let server = Fake::start(Manner { value_bytes: 100_000, ..Manner::default() });
    let outcome = run(&server.target(2, 8), Kind::Range, None, 60);
    assert_eq!((outcome.answered, outcome.hits, outcome.failed()), (60, 60, 0));
}

#[test]
fn a_lost_connection_is_an_error_and_the_run_ends() {
    let server = Fake::start(Manner { calls_max: Some(20), ..Manner::default() });
    let outcome = run(&server.target(2, 8), Kind::Put, None, 1000);
    assert!(outcome.answered <= 40, "{outcome:?}");
    assert!(outcome.failed() > 0 && outcome.errors.keys().all(|text| text.starts_with("connection: ")));
}

#[test]
fn a_measurement_fills_warms_up_and_counts_only_its_own() {
    let server = Fake::start(Manner::default());
    let target = server.target(2, 16);
    fill(&shape(200, Order::Random(3)), &target).expect("a fill");
    assert_eq!((server.calls(), server.seen.lock().expect("no panic").len()), (200, 200));
    let measurement = Measurement {
        kind: Kind::Range,
        shape: shape(200, Order::Random(3)),
        rate: None,
        stop: requests(300),
        warm_up: Some(requests(50)),
    };
    let own = bench::process::Observed::new(std::process::id()).expect("this process");
    let figures = measure(&measurement, &target, Some(own)).expect("a measurement");
    assert_eq!((figures.answered, figures.hits, figures.failed()), (300, 300, 0));
    assert_eq!(server.calls(), 200 + 50 + 300);
    assert!(figures.own_cpu_us_per_op > 0.0 && figures.server.is_some_and(|server| server.rss_end_mib > 0.0));
}

#[test]
fn only_this_machine_is_loaded() {
    for line in [
        "bench put --endpoints 192.0.2.1:2379",
        "bench put --endpoints 127.0.0.1:2379,example.org:2379",
        "bench range --endpoints http://[2001:db8::1]:2379",
        "bench put --endpoints 0.0.0.0:2379",
        "bench txn --key-bytes 4 --keys 10001",
        "bench put --rate 0",
        "bench put --duration 0",
        "bench compare a=/bin/true",
        "bench compare a=/bin/true a=/bin/true",
        "bench compare ../a=/bin/true b=/bin/true",
        "bench compare a=/bin/true b=/bin/true --workload nothing",
        "bench compare a=/bin/true b=/bin/true --workload range-follower",
        "bench compare a=/bin/true b=/bin/true --workload failover --members 2",
        "bench compare a=/bin/true b=/bin/true --members 8",
    ] {
        assert!(Invocation::parse(line.split(' ')).is_err(), "{line}");
    }
    let line = "bench put --endpoints http://127.0.0.1:2379,localhost:2380,[::1]:2381 --in-flight 1";
    let Ok(Invocation::Measure { target, .. }) = Invocation::parse(line.split(' ')) else { panic!("{line}") };
    assert_eq!((target.endpoints.len(), target.connections), (3, 1));

    let elsewhere = Target {
        endpoints: vec!["192.0.2.1:2379".parse().expect("an address")],
        connections: 1,
        in_flight: 1,
        answer_timeout: Duration::from_secs(1),
    };
    let error = Load::connect(&elsewhere, Kind::Put).expect_err("not this machine");
    assert!(format!("{error}").contains("only loopback"), "{error}");
}

#[test]
fn a_server_that_exits_is_named_with_its_output() {
    let dir = tempfile::tempdir().expect("a folder");
    let error = Server::start(Path::new("/bin/false"), dir.path(), 1).expect_err("it exits");
    let text = format!("{error:#}");
    assert!(text.contains("/bin/false exited") && text.contains("log"), "{text}");
}

#[test]
fn figures_are_printed_with_their_units() {
    let mut outcome = Outcome {
        answered: 1000,
        hits: 990,
        errors: BTreeMap::from([("14: etcdserver: no leader".to_owned(), 3)]),
        not_sent: 2,
        latencies_ns: hdrhistogram::Histogram::new_with_max(3_600_000_000_000, 3).expect("bounds"),
        elapsed: Duration::from_millis(500),
    };
    for micros in 1..=1000 {
        outcome.latencies_ns.record(micros * 1000).expect("in bounds");
    }
    let memory = bench::process::Memory { resident_bytes: 10 << 20, peak_bytes: 12 << 20 };
    let cost = bench::report::ServerCost { cpu: Duration::from_millis(25), memory };
    let figures = Figures::new(&outcome, Duration::from_millis(2), Some(cost));
    expect_test::expect![[r#"
        answered                          1000
        with what was asked                990
        failed                               5
        elapsed, s                       0.500
        ops/s                             2000
        p50, us                          500.2
        p99, us                          990.2
        p99.9, us                        999.4
        max, us                         1000.4
        server CPU, us/op                25.00
        server RSS end, MiB               10.0
        server RSS peak, MiB              12.0
        own CPU, us/op                    2.00
        error x3: 14: etcdserver: no leader
        error x2: due, but never sent
    "#]]
    .assert_eq(&figures.to_string());
    let json = serde_json::to_value(&figures).expect("plain data");
    assert_eq!(json["server"]["cpu_us_per_op"], 25.0);
    assert_eq!(json["errors"]["14: etcdserver: no leader"], 3);
}
