//! The JSON gateway over in-memory pipes and a member without disk: paths, limits, ends, WebSockets, HTTP/2.

mod support;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use server::LocalFuture;
use server::gateway::{Gateway, permits, routes};
use server::grpc::{Front, GrpcConfig, serve};
use server::http::{self as web, Alarm, Allowed, Health, Parties, Site, Versions};
use server::listen::{Role, Stream, closing};
use support::FakeMember;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};

struct Well;

impl Health for Well {
    fn alarms(&self) -> Vec<Alarm> {
        Vec::new()
    }

    fn has_leader(&self) -> bool {
        true
    }

    fn read(&self, _linearizable: bool) -> LocalFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn is_learner(&self) -> bool {
        false
    }

    fn versions(&self) -> Versions {
        Versions::default()
    }
}

/// A member, and its gateway with so many permits.
struct Bed {
    member: FakeMember,
    front: Front,
    permits: Arc<Semaphore>,
    stop: tokio::sync::watch::Sender<bool>,
    closing: server::listen::Closing,
}

const CALLS: u32 = 8;

impl Bed {
    fn parties(&self) -> Parties {
        let site = Site {
            request_timeout: Duration::from_secs(7),
            origins: Allowed::Any,
            hosts: Allowed::Any,
            profiles: false,
        };
        Parties {
            role: Role::Client,
            health: Rc::new(Well),
            site: Arc::new(site),
            gateway: Some(Gateway::new(self.front.clone(), self.permits.clone())),
            remote: None,
            certified: None,
        }
    }

    fn connect(&self) -> Client {
        let (stream, io) = Stream::pair().unwrap();
        spawn_local(web::serve(stream, self.parties(), self.closing.clone()));
        Client { io, came: Vec::new() }
    }

    /// Waits until no call is in progress.
    async fn idle(&self) {
        let all = self.permits.acquire_many(CALLS).await.unwrap();
        drop(all);
    }
}

fn on_bed<F: Future<Output = ()>>(test: impl FnOnce(Bed) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (member, lane, driver) = FakeMember::new();
        spawn_local(driver);
        let (stop, closing) = closing();
        let front = Front::new(lane, GrpcConfig::default());
        let bed = Bed { member, front, permits: permits(CALLS), stop, closing };
        // What waits for ever is a failure.
        tokio::time::timeout(Duration::from_secs(120), test(bed)).await.expect("it waits for something");
    });
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

struct Client {
    io: UnixStream,
    came: Vec<u8>,
}

impl Client {
    async fn write(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    async fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
        self.write(&head).await;
    }

    async fn ask(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        self.send(method, path, headers, body).await;
        self.answer(method == "HEAD").await
    }

    /// Reads until `enough` says how much of it that is.
    async fn read(&mut self, enough: impl Fn(&[u8]) -> Option<usize>) -> Vec<u8> {
        loop {
            if let Some(length) = enough(&self.came) {
                return self.came.drain(..length).collect();
            }
            assert!(self.io.read_buf(&mut self.came).await.unwrap() > 0, "ended after {:?}", self.came);
        }
    }

    async fn head(&mut self) -> Answer {
        let head =
            self.read(|came| came.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)).await;
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap()[9..12].parse().unwrap();
        let pairs = lines.map(|line| line.split_once(": ").unwrap());
        let headers = pairs.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Answer { status, headers, body: String::new() }
    }

    async fn answer(&mut self, is_without_body: bool) -> Answer {
        let mut answer = self.head().await;
        if is_without_body {
            return answer;
        }
        match answer.headers.get("content-length") {
            Some(length) => {
                let length: usize = length.to_str().unwrap().parse().unwrap();
                let body = self.read(|came| (came.len() >= length).then_some(length)).await;
                answer.body = String::from_utf8(body).unwrap();
            }
            None => {
                while let Some(chunk) = self.chunk().await {
                    answer.body.push_str(&chunk);
                }
            }
        }
        answer
    }

    async fn chunk(&mut self) -> Option<String> {
        let line = self.read(|came| came.windows(2).position(|two| two == b"\r\n").map(|at| at + 2)).await;
        let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim_end(), 16).unwrap();
        let chunk = self.read(|came| (came.len() >= length + 2).then_some(length + 2)).await;
        (length > 0).then(|| String::from_utf8(chunk[..length].to_vec()).unwrap())
    }
}

const WATCH: &str = r#"{"create_request":{"key":"YQ=="}}"#;

#[test]
fn every_path_is_a_call_by_post_alone() {
    on_bed(|bed| async move {
        let mut client = bed.connect();
        for path in routes::paths() {
            // What a stream in both directions is told is not answered: it may be told more.
            if path != "/v3/watch" {
                let answer = client.ask("POST", &path, "", "{bad").await;
                assert_eq!(
                    answer.status,
                    if path.ends_with("/keepalive") { 200 } else { 400 },
                    "{path}: {answer:?}"
                );
            }
            let answer = client.ask("PUT", &path, "", "{}").await;
            assert_eq!(answer.status, 501, "{path}");
            assert_eq!(answer.body, r#"{"code":12,"message":"Method Not Allowed"}"#);
        }
        for path in ["/v3/", "/v3/kv/rangestream", "/v3/kv/range/", "/v3/KV/range", "/v3beta/nothing"] {
            let answer = client.ask("POST", path, "", "{}").await;
            assert_eq!((answer.status, answer.body.as_str()), (404, r#"{"code":5,"message":"Not Found"}"#));
        }
        let answer = client.ask("POST", "/v3//kv/range?a=b", "", "{}").await;
        assert_eq!((answer.status, &answer.headers["location"]), (307, &"/v3/kv/range?a=b".parse().unwrap()));
        let form = "X-HTTP-Method-Override: put\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        assert_eq!(client.ask("POST", "/v3/kv/range", form, "{}").await.status, 501);
        assert_eq!(client.ask("HEAD", "/v3/kv/range", "", "").await.status, 501);
        bed.idle().await;
    });
}

#[test]
fn calls_are_answered_and_refused() {
    on_bed(|bed| async move {
        let mut client = bed.connect();
        let put = client.ask("POST", "/v3/kv/put", "", r#"{"key":"YQ==","value":"Yg=="}"#).await;
        assert_eq!(put.status, 200, "{put:?}");
        assert_eq!(put.headers["content-type"], "application/json");
        assert_eq!(put.headers["grpc-metadata-content-type"], "application/grpc");
        assert_eq!(put.headers["access-control-allow-origin"], "*");
        let range = client.ask("POST", "/v3beta/kv/range", "", r#"{"key":"YQ=="} and more"#).await;
        assert!(range.body.ends_with(r#""value":"Yg=="}],"count":"1"}"#), "{range:?}");
        for (headers, body, status, text) in [
            ("", "{bad", 400, "invalid character 'b' looking for beginning of object key string"),
            ("", "{\"key\"", 400, "unexpected EOF"),
            ("", "", 400, "etcdserver: key is not provided"),
            ("Grpc-Timeout: 1x\r\n", "{}", 400, "invalid grpc-timeout: 1x"),
            ("Grpc-Timeout: -1S\r\n", "{}", 504, "context deadline exceeded"),
        ] {
            let answer = client.ask("POST", "/v3/kv/range", headers, body).await;
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(answer.body.contains(&format!("\"message\":\"{text}\"")), "{answer:?}");
            assert!(!answer.headers.contains_key("grpc-metadata-content-type"));
        }
        bed.member.status.set_leader(0);
        let answer = client
            .ask("POST", "/v3/kv/range", "Grpc-Metadata-hasleader: true\r\n", r#"{"key":"YQ=="}"#)
            .await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (503, r#"{"code":14,"message":"etcdserver: no leader"}"#)
        );
    });
}

/// A long answer comes in pieces, whole.
#[test]
fn a_long_answer_is_whole() {
    on_bed(|bed| async move {
        let value = "eHh4".repeat(400_000);
        let mut client = bed.connect();
        let put =
            client.ask("POST", "/v3/kv/put", "", &format!(r#"{{"key":"YQ==","value":"{value}"}}"#)).await;
        assert_eq!(put.status, 200, "{}", put.body);
        let range = client.ask("POST", "/v3/kv/range", "", r#"{"key":"YQ=="}"#).await;
        assert_eq!(range.headers["transfer-encoding"], "chunked");
        assert!(range.body.contains(&value) && range.body.ends_with(r#""}],"count":"1"}"#));
        bed.idle().await;
    });
}

#[test]
fn json_beyond_every_message_is_refused_as_it_comes() {
    on_bed(|bed| async move {
        let mut client = bed.connect();
        // It never ends.
        client
            .write("POST /v3/kv/put HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000000\r\n\r\n{\"key\":\"")
            .await;
        let Client { io, came } = client;
        let (reading, mut writing) = io.into_split();
        let flood = spawn_local(async move {
            let piece = "YWFh".repeat(4096);
            while writing.write_all(piece.as_bytes()).await.is_ok() {}
        });
        let mut reading = tokio::io::BufReader::new(reading);
        let mut got = came;
        while !got.ends_with(b"}") {
            assert!(reading.read_buf(&mut got).await.unwrap() > 0, "{}", String::from_utf8_lossy(&got));
        }
        let got = String::from_utf8(got).unwrap();
        assert!(got.starts_with("HTTP/1.1 429"), "{got}");
        assert!(got.contains("grpc: received message larger than max ("), "{got}");
        flood.abort();
        bed.idle().await;
    });
}

#[test]
fn who_goes_away_ends_the_call() {
    on_bed(|bed| async move {
        // A body that has come whole, and one that is still open.
        for open in [false, true] {
            for ends_one_side in [false, true] {
                let mut client = bed.connect();
                match open {
                    false => client.send("POST", "/v3/watch", "", WATCH).await,
                    true => {
                        let (length, head) = (WATCH.len(), "POST /v3/watch HTTP/1.1\r\nHost: h\r\n");
                        let chunk =
                            format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{WATCH}\r\n");
                        client.write(&chunk).await;
                    }
                }
                client.head().await;
                assert!(client.chunk().await.unwrap().contains("\"created\":true"));
                assert_eq!(bed.permits.available_permits(), CALLS as usize - 1);
                match ends_one_side {
                    false => drop(client),
                    true => client.io.shutdown().await.unwrap(),
                }
                bed.idle().await;
            }
        }
        // One that has no answer yet.
        let mut client = bed.connect();
        client.send("POST", "/v3/election/observe", "", r#"{"name":"ZQ=="}"#).await;
        while bed.permits.available_permits() == CALLS as usize {
            tokio::task::yield_now().await;
        }
        drop(client);
        bed.idle().await;
        // One that is not heard any more, since it said what is no message.
        for ends_one_side in [false, true] {
            let mut client = bed.connect();
            let said = "{bad}, and more";
            let (length, head) = (said.len(), "POST /v3/watch HTTP/1.1\r\nHost: h\r\n");
            client.write(&format!("{head}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{said}\r\n")).await;
            while bed.permits.available_permits() == CALLS as usize {
                tokio::task::yield_now().await;
            }
            // It is passed over, however much it is.
            for _ in 0..200 {
                client.write(&format!("1000\r\n{}\r\n", "x".repeat(4096))).await;
            }
            match ends_one_side {
                false => drop(client),
                true => client.io.shutdown().await.unwrap(),
            }
            bed.idle().await;
        }
    });
}

/// `--host-whitelist` and `--cors` count for calls as for everything else.
#[test]
fn hosts_and_origins_are_checked() {
    on_bed(|bed| async move {
        let mut parties = bed.parties();
        let these = |name: &str| Allowed::from_list([name.to_owned()]);
        parties.site = Arc::new(Site {
            request_timeout: Duration::from_secs(7),
            origins: these("http://page"),
            hosts: these("h"),
            profiles: false,
        });
        let (stream, io) = Stream::pair().unwrap();
        spawn_local(web::serve(stream, parties, bed.closing.clone()));
        let mut client = Client { io, came: Vec::new() };
        for (origin, allowed) in [("http://page", Some("http://page")), ("http://other", None)] {
            let headers = format!("Origin: {origin}\r\n");
            let answer = client.ask("POST", "/v3/kv/range", &headers, r#"{"key":"YQ=="}"#).await;
            let told = answer.headers.get("access-control-allow-origin").map(|told| told.to_str().unwrap());
            assert_eq!((answer.status, told), (200, allowed));
        }
        client.write("POST /v3/kv/range HTTP/1.1\r\nHost: other:1\r\nContent-Length: 2\r\n\r\n{}").await;
        assert_eq!(client.answer(false).await.status, 421);
    });
}

/// As in etcd: who only ends one side is told that the call is over.
#[test]
fn who_ends_one_side_is_told() {
    on_bed(|bed| async move {
        let error = r#"{"code":1,"message":"context canceled"}"#;
        let line = format!("{{\"error\":{error}}}\n");
        let mut holder = bed.connect();
        holder.ask("POST", "/v3/lock/lock", "", r#"{"name":"bG9jaw==","lease":0}"#).await;
        for (path, body, status, told) in [
            ("/v3/watch", WATCH, 200, &line),
            ("/v3/election/observe", r#"{"name":"ZQ=="}"#, 499, &line),
            ("/v3/lock/lock", r#"{"name":"bG9jaw=="}"#, 499, &error.to_owned()),
        ] {
            let mut client = bed.connect();
            client.send("POST", path, "", body).await;
            let mut answer = None;
            if status == 200 {
                answer = Some(client.head().await);
                client.chunk().await.unwrap();
            } else {
                while bed.permits.available_permits() == CALLS as usize {
                    tokio::task::yield_now().await;
                }
            }
            client.io.shutdown().await.unwrap();
            let got = match answer {
                Some(_) => (200, client.chunk().await.unwrap()),
                None => {
                    let answer = client.answer(false).await;
                    (answer.status, answer.body)
                }
            };
            assert_eq!(got, (status, told.clone()), "{path}");
            bed.idle().await;
        }
    });
}

#[test]
fn calls_beyond_the_limit_wait() {
    on_bed(|bed| async move {
        let mut watches = Vec::new();
        for _ in 0..CALLS {
            let mut client = bed.connect();
            client.send("POST", "/v3/watch", "", WATCH).await;
            client.head().await;
            watches.push(client);
        }
        let mut client = bed.connect();
        let answer = client.ask("POST", "/v3/kv/range", "Grpc-Timeout: 50m\r\n", r#"{"key":"YQ=="}"#).await;
        assert_eq!(answer.status, 504, "{answer:?}");
        client.send("POST", "/v3/kv/range", "", r#"{"key":"YQ=="}"#).await;
        watches.pop();
        assert_eq!(client.answer(false).await.status, 200);
    });
}

#[test]
fn a_stream_hears_more_and_says_what_ends_it() {
    on_bed(|bed| async move {
        let mut client = bed.connect();
        client.send("POST", "/v3/lease/keepalive", "", "{\"ID\":\"77\"}\n{\"ID\":78}").await;
        let answer = client.answer(false).await;
        let lines: Vec<&str> = answer.body.lines().collect();
        assert_eq!(lines.len(), 2, "{answer:?}");
        assert!(lines[0].starts_with("{\"result\":{\"header\":{") && lines[0].ends_with("\"ID\":\"77\"}}"));
        // What is no message ends what is heard, as in etcd.
        let answer = client.ask("POST", "/v3/lease/keepalive", "", "{\"ID\":\"x\"}").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
        assert!(!answer.headers.contains_key("content-type"));
        bed.member.status.set_leader(0);
        let headers = "Grpc-Metadata-hasleader: true\r\n";
        let answer = client.ask("POST", "/v3/watch", headers, WATCH).await;
        let error = "{\"error\":{\"code\":14,\"message\":\"etcdserver: no leader\"}}\n";
        assert_eq!((answer.status, answer.body.as_str()), (503, error));
        bed.idle().await;
    });
}

const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: Bearer, a.1\r\n";

/// A client's frame, masked with zeros.
fn frame(kind: u8, text: &str) -> Vec<u8> {
    assert!(text.len() < 126);
    [&[0x80 | kind, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat()
}

impl Client {
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.read(|came| (came.len() >= 2).then_some(2)).await;
        let mut length = usize::from(head[1]);
        if length == 126 {
            let long = self.read(|came| (came.len() >= 2).then_some(2)).await;
            length = usize::from(u16::from_be_bytes([long[0], long[1]]));
        }
        (head[0], self.read(|came| (came.len() >= length).then_some(length)).await)
    }

    async fn upgrade(&mut self, path: &str) {
        self.write(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n{UPGRADE}\r\n")).await;
        let answer = self.head().await;
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "RFC 6455's");
        assert_eq!(answer.headers["sec-websocket-protocol"], "Bearer");
    }
}

#[test]
fn websockets_carry_streams() {
    on_bed(|bed| async move {
        let mut client = bed.connect();
        client.upgrade("/v3/watch").await;
        client.io.write_all(&frame(1, WATCH)).await.unwrap();
        client.io.write_all(&frame(9, "are you there")).await.unwrap();
        let mut frames = [client.frame().await, client.frame().await];
        frames.sort();
        assert!(String::from_utf8_lossy(&frames[0].1).ends_with("\"created\":true}}"), "{frames:?}");
        assert_eq!((frames[0].0, &frames[1]), (0x81, &(0x8a, b"are you there".to_vec())));
        client.io.write_all(&frame(8, "")).await.unwrap();
        assert_eq!(client.frame().await, (0x88, 1000_u16.to_be_bytes().to_vec()));
        bed.idle().await;

        // What ends by itself, what is no path, and what is no frame.
        for (path, sent, said, code) in [
            ("/v3/lease/keepalive", frame(1, "{\"ID\":\"x\"}"), None, 1000_u16),
            ("/v3/nothing", Vec::new(), Some(r#"{"code":5,"message":"Not Found"}"#), 1000),
            (
                "/v3/kv/range",
                frame(1, "{}"),
                Some(r#"{"code":3,"message":"etcdserver: key is not provided"}"#),
                1000,
            ),
            ("/v3/watch", vec![0x81, 0], None, 1002),
        ] {
            let mut client = bed.connect();
            client.upgrade(path).await;
            client.io.write_all(&sent).await.unwrap();
            if let Some(said) = said {
                assert_eq!(client.frame().await, (0x81, said.as_bytes().to_vec()), "{path}");
            }
            assert_eq!(client.frame().await, (0x88, code.to_be_bytes().to_vec()), "{path}");
            bed.idle().await;
        }
        // Messages that no call takes any more do not hide that the client is gone.
        for (path, first) in
            [("/v3/election/observe", "{\"name\":\"ZQ==\"}"), ("/v3/watch", "{bad"), ("/v3/watch", WATCH)]
        {
            let mut client = bed.connect();
            client.upgrade(path).await;
            client.io.write_all(&frame(1, first)).await.unwrap();
            for _ in 0..5 {
                client.io.write_all(&frame(1, "{}")).await.unwrap();
            }
            while bed.permits.available_permits() == CALLS as usize {
                tokio::task::yield_now().await;
            }
            drop(client);
            bed.idle().await;
        }
        let mut client = bed.connect();
        client.upgrade("/v3/watch").await;
        bed.stop.send(true).unwrap();
        assert_eq!(client.frame().await, (0x88, 1001_u16.to_be_bytes().to_vec()));
        bed.idle().await;
    });
}

/// The same by HTTP/2, as clients with TLS may ask.
#[test]
fn http2_carries_calls_too() {
    on_bed(|bed| async move {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        spawn_local(serve(theirs, bed.front.clone(), Some(web::web(bed.parties()))));
        let (mut calls, connection) = h2::client::handshake(ours).await.unwrap();
        spawn_local(async move { drop(connection.await) });
        let mut ask = |path: &str, body: &str| {
            let request = Request::post(format!("https://h{path}")).body(()).unwrap();
            let (answer, mut sender) = calls.send_request(request, false).unwrap();
            sender.send_data(Bytes::from(body.to_owned()), true).unwrap();
            answer
        };
        let answer = ask("/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        let mut body = answer.into_body();
        let mut got = Vec::new();
        while let Some(data) = body.data().await {
            got.extend_from_slice(&data.unwrap());
        }
        assert!(got.starts_with(b"{\"header\":{"), "{}", String::from_utf8_lossy(&got));
        let mut watch = ask("/v3/watch", WATCH).await.unwrap().into_body();
        let line = watch.data().await.unwrap().unwrap();
        assert!(line.ends_with(b"\"created\":true}}\n"), "{}", String::from_utf8_lossy(&line));
        assert_eq!(bed.permits.available_permits(), CALLS as usize - 1);
        drop(watch);
        bed.idle().await;
    });
}

/// Requests that are begun and not ended cost a connection a bounded amount, however many streams they are.
#[test]
fn requests_in_part_are_bounded() {
    on_bed(|bed| async move {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        spawn_local(serve(theirs, bed.front.clone(), Some(web::web(bed.parties()))));
        let (mut calls, connection) = h2::client::handshake(ours).await.unwrap();
        spawn_local(async move { drop(connection.await) });
        let mut begun = Vec::new();
        let refused = loop {
            assert!(begun.len() < 12, "nothing was refused");
            let request = Request::post("https://h/v3/kv/put").body(()).unwrap();
            let (mut answer, mut sender) = calls.send_request(request, false).unwrap();
            sender.send_data(Bytes::from_static(b"{\"key\":\""), false).unwrap();
            let mut left = vec![b'a'; 15 << 19];
            let early = loop {
                sender.reserve_capacity(left.len());
                tokio::select! {
                    biased;
                    early = &mut answer => break Some(early.unwrap()),
                    room = std::future::poll_fn(|cx| sender.poll_capacity(cx)) => {
                        let room = room.unwrap().unwrap().min(left.len());
                        let piece = left.split_off(left.len() - room);
                        sender.send_data(piece.into(), false).unwrap();
                    }
                }
                if left.is_empty() {
                    break None;
                }
            };
            begun.push((answer, sender));
            if let Some(early) = early {
                break early;
            }
        };
        assert_eq!(refused.status().as_u16(), 429, "nothing is broken");
        let body = refused.into_body().data().await.unwrap().unwrap();
        assert_eq!(body, r#"{"code":8,"message":"etcdserver: too many requests"}"#);
        assert!(begun.len() > 8, "eight of them fit");
        drop(begun);
        let request = Request::post("https://h/v3/kv/put").body(()).unwrap();
        let (answer, mut sender) = calls.send_request(request, false).unwrap();
        sender.send_data(Bytes::from_static(b"{\"key\":\"YQ==\"}"), true).unwrap();
        assert_eq!(answer.await.unwrap().status().as_u16(), 200);
    });
}
