//! The peer port, path by path: what etcd answers, and what it refuses.
#![allow(missing_docs, reason = "tests")]

#[path = "peer/bed.rs"]
#[allow(dead_code, reason = "each user takes its part")]
mod bed;

use std::rc::Rc;

use prost::Message as _;
use raft::{Body, Index, NodeId};
use server::peer::codec::Encoder;
use wire::{etcdserverpb as pb, leasepb};

use bed::{FakeHost, Member, Net, limits, on_paused_clock, until};

const HEADERS: &str = "X-Server-From: 2\r\nX-Server-Version: 3.7.1\r\nX-Min-Cluster-Version: 3.0.0\r\n\
    X-Etcd-Cluster-ID: c1\r\nX-Raft-To: 1a\r\n";

/// A member 1a that knows member 2, which is not there.
struct Port {
    net: Rc<Net>,
    member: Member,
}

impl Port {
    fn start() -> Port {
        let net = Rc::<Net>::default();
        let member = Member::start(&net, 0x1a, limits());
        member.handle.add_peer(NodeId(2), vec![bed::url(2)]);
        Port { net, member }
    }

    fn host(&self) -> &FakeHost {
        &self.member.host
    }

    async fn say(&self, line: &str, headers: &str, body: &[u8]) -> String {
        let head = format!(
            "{line} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.net.say_bytes("m1a", &[head.as_bytes(), body].concat()).await
    }

    /// Status and body.
    async fn ask(&self, line: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let answer = self.say(line, headers, body).await;
        let status = answer.get(9..12).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status.unwrap_or_else(|| panic!("{answer}")), body.unwrap_or_default())
    }
}

fn on_port<F: Future<Output = ()>>(test: impl FnOnce(Port) -> F) {
    on_paused_clock(async {
        let port = Port::start();
        tokio::task::yield_now().await;
        test(port).await;
    });
}

fn without(name: &str) -> String {
    HEADERS.split_inclusive("\r\n").filter(|line| !line.starts_with(name)).collect()
}

fn with(name: &str, value: &str) -> String {
    without(name) + &format!("{name}: {value}\r\n")
}

#[test]
fn paths_and_methods_are_etcds() {
    on_port(|port| async move {
        for (line, status, text) in [
            ("GET /", 404, "404 page not found\n"),
            ("GET /raft/other", 404, "404 page not found\n"),
            ("GET /members/", 404, "404 page not found\n"),
            ("GET /health", 404, "404 page not found\n"),
            ("GET /raft", 405, "Method Not Allowed\n"),
            ("GET /raft/snapshot", 405, "Method Not Allowed\n"),
            ("POST /raft/stream/message/2", 405, "Method Not Allowed\n"),
            ("POST /members", 405, "Method Not Allowed\n"),
            ("GET /members/promote/5", 405, "Method Not Allowed\n"),
            ("POST /members/hashkv", 405, "Method Not Allowed\n"),
            ("POST /downgrade/enabled", 405, "Method Not Allowed\n"),
            ("GET /leases", 405, "Method Not Allowed\n"),
            ("PUT /leases/internal", 405, "Method Not Allowed\n"),
            ("POST /version", 405, "Method Not Allowed\n"),
            ("GET /version", 200, r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"unknown"}"#),
            ("GET /downgrade/enabled", 200, "false"),
        ] {
            assert_eq!(port.ask(line, "", b"").await, (status, text.to_owned()), "{line}");
        }
        let (status, body) = port.ask("GET /raft/probing", "", b"").await;
        let health: serde_json::Value = serde_json::from_str(&body).expect(&body);
        assert_eq!((status, &health["OK"]), (200, &true.into()));
        health["Now"].as_str().and_then(|now| now.parse::<jiff::Timestamp>().ok()).expect(&body);
        let answer = port.say("GET /raft", HEADERS, b"").await;
        assert!(answer.contains("\r\nAllow: POST\r\n"), "{answer}");
        let answer = port.net.say("m1a", "GET /version HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        assert!(answer.contains("400 Bad Request: missing required Host header"), "{answer}");
    });
}

#[test]
fn members_are_listed_as_etcd_does() {
    on_port(|port| async move {
        let answer = port.say("GET /members", "", b"").await;
        assert!(answer.contains("\r\nX-Etcd-Cluster-Id: c1\r\n"), "{answer}");
        let json = concat!(
            r#"[{"id":7,"peerURLs":["http://a:1"],"name":"a\u0026b","clientURLs":["http://a:2"]},"#,
            r#"{"id":9,"peerURLs":["http://b:1"],"isLearner":true}]"#,
            "\n"
        );
        assert!(answer.ends_with(&format!("\r\n\r\n{json}")), "{answer}");
        assert_eq!(
            port.ask("POST /members/promote/5", "Authorization: token\r\n", b"").await,
            (200, json.into())
        );
        for (id, status, text) in [
            ("1", 404, "membership: ID not found\n"),
            ("2", 412, "membership: can only promote a learner member\n"),
            ("3", 412, "etcdserver: can only promote a learner member which is in sync with leader\n"),
            ("4", 500, r#"{"message":"Internal Server Error"}"#),
            ("5", 500, r#"{"message":"Internal Server Error"}"#),
            ("+5", 404, "member +5 not found in cluster\n"),
            ("x", 404, "member x not found in cluster\n"),
        ] {
            let line = format!("POST /members/promote/{id}");
            assert_eq!(port.ask(&line, "", b"").await, (status, text.to_owned()), "{line}");
        }
    });
}

#[test]
fn hashes_are_etcds() {
    on_port(|port| async move {
        let newest = r#"{"header":{"revision":12},"hash":77,"hash_revision":12}"#;
        let older = r#"{"header":{"revision":12},"hash":78,"compact_revision":4,"hash_revision":6}"#;
        for (body, status, text) in [
            (r#"{"revision":0}"#, 200, newest),
            ("{}", 200, newest),
            (r#"{"revision":6}"#, 200, older),
            (r#"{"revision":2}"#, 400, "mvcc: required revision has been compacted\n"),
            (r#"{"revision":13}"#, 400, "mvcc: required revision is a future revision\n"),
            (r#"{"revision":"6"}"#, 400, "error unmarshalling request\n"),
            ("[]", 400, "error unmarshalling request\n"),
            ("", 400, "error unmarshalling request\n"),
        ] {
            let asked = port.ask("GET /members/hashkv", "X-Etcd-Cluster-ID: c1\r\n", body.as_bytes()).await;
            assert_eq!(asked, (status, text.to_owned()), "{body}");
        }
        let other = port.ask("GET /members/hashkv", "X-Etcd-Cluster-ID: c2\r\n", b"{}").await;
        assert_eq!(other, (412, "cluster ID mismatch\n".to_owned()));
        assert_eq!(port.ask("GET /members/hashkv", "", b"{}").await.0, 200, "the header may be left out");
        let long = vec![b' '; (64 << 10) + 1];
        assert_eq!(port.ask("GET /members/hashkv", "", &long).await.0, 400);
    });
}

#[test]
fn leases_are_renewed_and_shown() {
    on_port(|port| async move {
        let renew = |id| pb::LeaseKeepAliveRequest { id }.encode_to_vec();
        let show = |id, keys| {
            let request = Some(pb::LeaseTimeToLiveRequest { id, keys });
            leasepb::LeaseInternalRequest { lease_time_to_live_request: request }.encode_to_vec()
        };
        let answer = port.say("POST /leases", "", &renew(1)).await;
        assert!(answer.contains("\r\nContent-Type: application/protobuf\r\n"), "{answer}");
        let renewed = pb::LeaseKeepAliveResponse { header: None, id: 1, ttl: 60 }.encode_to_vec();
        assert!(answer.as_bytes().ends_with(&renewed), "{answer:?}");
        let shown = pb::LeaseTimeToLiveResponse {
            header: Some(pb::ResponseHeader::default()),
            id: 1,
            ttl: 59,
            granted_ttl: 60,
            keys: vec!["k".into()],
        };
        let shown =
            leasepb::LeaseInternalResponse { lease_time_to_live_response: Some(shown) }.encode_to_vec();
        let answer = port.say("POST /leases/internal", "", &show(1, true)).await;
        assert!(answer.as_bytes().ends_with(&shown), "{answer:?}");
        for (path, body, status, text) in [
            ("/leases", renew(9), 404, "lease not found\n"),
            ("/leases", renew(2), 400, "not a primary lessor\n"),
            ("/leases", b"\xff".to_vec(), 400, "error unmarshalling request\n"),
            ("/leases", vec![0; (64 << 10) + 1], 413, "request body too large\n"),
            ("/leases/internal", show(9, false), 404, "lease not found\n"),
            ("/leases/internal", show(2, false), 500, "not a primary lessor\n"),
            ("/leases/internal", vec![], 400, "error unmarshalling request\n"),
        ] {
            let line = format!("POST {path}");
            assert_eq!(port.ask(&line, "", &body).await, (status, text.to_owned()), "{line}");
        }
        *port.host().behind.lock().unwrap() = true;
        let text = "waiting for node to catch up its applied index has timed out\n";
        for (path, body) in [("/leases", renew(1)), ("/leases/internal", show(1, false))] {
            assert_eq!(port.ask(&format!("POST {path}"), "", &body).await, (408, text.to_owned()));
        }
        let text = "failed linearized read: etcdserver: request timed out\n";
        assert_eq!(port.ask("GET /downgrade/enabled", "", b"").await, (500, text.to_owned()));
    });
}

#[test]
fn streams_are_refused_as_etcd_does() {
    on_port(|port| async move {
        port.host().gone.lock().unwrap().insert(NodeId(3));
        for (path, headers, status, text) in [
            ("message/2", with("X-Etcd-Cluster-ID", "c2"), 412, "cluster ID mismatch\n"),
            ("message/2", without("X-Etcd-Cluster-ID"), 412, "cluster ID mismatch\n"),
            ("message/2", with("X-Server-Version", "2.3.0"), 412, "incompatible version\n"),
            ("message/2", with("X-Min-Cluster-Version", "3.8.0"), 412, "incompatible version\n"),
            ("message/2", with("X-Server-Version", "new"), 412, "incompatible version\n"),
            ("message/2", with("X-Raft-To", "1b"), 412, "to field mismatch\n"),
            ("message/2", without("X-Raft-To"), 412, "to field mismatch\n"),
            ("msgapp/3", HEADERS.into(), 410, "removed member\n"),
            ("msgapp/4", HEADERS.into(), 404, "error sender not found\n"),
            ("msgapp/x", HEADERS.into(), 404, "invalid from\n"),
            ("msgappv2/2", HEADERS.into(), 404, "invalid path\n"),
            ("2", HEADERS.into(), 404, "invalid path\n"),
            ("msgapp/x/2", HEADERS.into(), 404, "invalid path\n"),
        ] {
            let line = format!("GET /raft/stream/{path}");
            assert_eq!(port.ask(&line, &headers, b"").await, (status, text.to_owned()), "{line} {headers}");
        }
        let answer = port.say("GET /raft/stream/message/2", &without("X-Raft-To"), b"").await;
        assert!(answer.contains("\r\nX-Server-Version: 3.7.1\r\n"), "{answer}");
        assert!(answer.contains("\r\nX-Etcd-Cluster-Id: c1\r\n"), "{answer}");
    });
}

/// The second stream of a kind takes the place of the first, which ends in good order.
#[test]
fn a_stream_is_chunked_begins_with_a_sign_of_life_and_gives_way_to_the_next() {
    on_port(|port| async move {
        let net = port.net.clone();
        let first = tokio::task::spawn_local(async move {
            let line = "GET /raft/stream/msgapp/2 HTTP/1.1\r\nHost: m\r\n";
            net.say("m1a", &format!("{line}Connection: close\r\n{HEADERS}\r\n")).await
        });
        until("attached", || {
            port.member.handle.stats().get(&NodeId(2)).is_some_and(|stats| stats.active_since().is_some())
        })
        .await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let net = port.net.clone();
        let second = tokio::task::spawn_local(async move {
            net.say("m1a", &format!("GET /raft/stream/msgapp/2 HTTP/1.1\r\nHost: m\r\n{HEADERS}\r\n")).await
        });
        let answer = first.await.unwrap();
        second.abort();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\nTransfer-Encoding: chunked\r\n"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "1\r\n\0\r\n1\r\n\0\r\n0\r\n\r\n", "two signs of life and an end");
    });
}

#[test]
fn a_posted_message_is_taken_or_refused() {
    on_port(|port| async move {
        let message = |from, to| {
            let body = Body::Heartbeat { commit: Index(1), context: None };
            raft::Message { from: NodeId(from), to: NodeId(to), term: raft::Term(1), body }
        };
        let bytes = |message| Encoder::default().encode(message).to_bytes();
        let post = async |headers: &str, body: &[u8]| port.ask("POST /raft", headers, body).await;
        assert_eq!(post(HEADERS, &bytes(message(2, 0x1a))).await, (204, String::new()));
        assert_eq!(port.host().messages(), [message(2, 0x1a)]);
        port.host().gone.lock().unwrap().insert(NodeId(3));
        let removed = r#"{"message":"cannot process message from removed member"}"#;
        let mismatch = r#"{"message":"cannot process message to mismatch member"}"#;
        assert_eq!(post(HEADERS, &bytes(message(3, 0x1a))).await, (403, removed.to_owned()));
        assert_eq!(post(HEADERS, &bytes(message(2, 0x1b))).await, (403, mismatch.to_owned()));
        let unreadable = (400, "error unmarshalling raft message\n".to_owned());
        assert_eq!(post(HEADERS, b"\xff").await, unreadable);
        // A snapshot without its database must not reach consensus.
        assert_eq!(post(HEADERS, &bytes(snapshot(2, 0x1a))).await, unreadable);
        // A local message is taken and dropped, as in etcd.
        assert_eq!(post(HEADERS, b"\x08\x00\x10\x1a\x18\x02").await, (204, String::new()));
        let foreign = with("X-Etcd-Cluster-ID", "c2");
        let refused = (412, "cluster ID mismatch\n".to_owned());
        assert_eq!(post(&foreign, &bytes(message(2, 0x1a))).await, refused);
        assert_eq!(port.host().messages().len(), 1);
    });
}

fn snapshot(from: u64, to: u64) -> raft::Message {
    let conf = raft::ConfState { voters: vec![NodeId(2), NodeId(0x1a)], learners: vec![] };
    let snapshot = raft::Snapshot { index: Index(9), term: raft::Term(1), conf, data: "{}".into() };
    raft::Message {
        from: NodeId(from),
        to: NodeId(to),
        term: raft::Term(1),
        body: Body::Snapshot { snapshot },
    }
}

#[test]
fn a_posted_snapshot_is_taken_or_refused() {
    on_port(|port| async move {
        let framed = |message| {
            let bytes = Encoder::default().encode(message).to_bytes();
            [&(bytes.len() as u64).to_be_bytes()[..], &bytes].concat()
        };
        let post = async |body: &[u8]| port.ask("POST /raft/snapshot", HEADERS, body).await;
        let body = [&framed(snapshot(2, 0x1a))[..], &[7; 5000]].concat();
        assert_eq!(post(&body).await, (204, String::new()));
        assert_eq!(port.host().told().databases, [(9, Some(5000), Ok(5000))]);
        assert_eq!(port.host().messages(), [snapshot(2, 0x1a)]);

        let beat = Body::Heartbeat { commit: Index(1), context: None };
        let beat = raft::Message { body: beat, ..snapshot(2, 0x1a) };
        assert_eq!(post(&framed(beat)).await, (400, "wrong raft message type\n".to_owned()));
        let (status, text) = post(&[0xff; 20]).await;
        assert!(status == 400 && text.starts_with("failed to decode raft message (rafthttp: "), "{text}");
        assert_eq!(post(b"\0\0").await, (400, "failed to decode raft message (unexpected EOF)\n".to_owned()));
        // What is for another member, or of one that is gone, is refused before its database is read.
        assert_eq!(post(&framed(snapshot(2, 0x1b))).await.0, 403);
        port.host().gone.lock().unwrap().insert(NodeId(3));
        assert_eq!(post(&framed(snapshot(3, 0x1a))).await.0, 403);
        let answer = port.ask("POST /raft/snapshot", &with("X-Server-Version", "2.0.0"), &body).await;
        assert_eq!(answer, (412, "incompatible version\n".to_owned()));
        assert_eq!(port.host().told().databases.len(), 1);
        assert_eq!(port.host().messages().len(), 1);
    });
}

/// Anybody may say that he is somebody, but only some are kept.
#[test]
fn strangers_are_remembered_up_to_a_bound() {
    on_port(|port| async move {
        for id in 100..200 {
            let headers = with("X-Server-From", &format!("{id:x}")) + "X-PeerURLs: http://nobody:1\r\n";
            let line = format!("GET /raft/stream/message/{id:x}");
            assert_eq!(port.ask(&line, &headers, b"").await.0, 404);
        }
        let messages = (100..200).map(|id| {
            let body = Body::VoteResponse { reject: false };
            raft::Message { from: NodeId(0x1a), to: NodeId(id), term: raft::Term(1), body }
        });
        port.member.handle.send(messages.collect());
        until("failures", || port.host().told().unreachable.len() >= 16).await;
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        let strangers = port.host().told().unreachable.iter().filter(|id| id.0 >= 100).count();
        assert_eq!(strangers, 16);
        // Those that spoke last are kept, so no stranger keeps out a member that is not known here yet.
        let unreachable = port.host().told().unreachable.clone();
        assert_eq!(unreachable.iter().map(|id| id.0).filter(|id| *id >= 100).min(), Some(184));
    });
}

/// Who speaks goes on being answered, however many others come in between.
#[test]
fn a_stranger_that_speaks_again_keeps_its_place() {
    on_port(|port| async move {
        let say = async |id: u64| {
            let headers = with("X-Server-From", &format!("{id:x}")) + "X-PeerURLs: http://nobody:1\r\n";
            let line = format!("GET /raft/stream/message/{id:x}");
            assert_eq!(port.ask(&line, &headers, b"").await.0, 404);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        for id in 101..200 {
            say(id).await;
            say(100).await;
        }
        let body = Body::VoteResponse { reject: false };
        let answer = raft::Message { from: NodeId(0x1a), to: NodeId(100), term: raft::Term(1), body };
        port.member.handle.send(vec![answer]);
        until("it is tried", || port.host().told().unreachable.contains(&NodeId(100))).await;
    });
}

#[test]
fn no_more_snapshots_are_received_at_once_than_there_may_be() {
    on_port(|port| async move {
        let disk = port.host().disk.lock().await;
        let bytes = Encoder::default().encode(snapshot(2, 0x1a)).to_bytes();
        let body = [&(bytes.len() as u64).to_be_bytes()[..], &bytes, &[7; 1000]].concat();
        let head = format!(
            "POST /raft/snapshot HTTP/1.1\r\nHost: m\r\nConnection: close\r\n{HEADERS}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), &body].concat();
        let mut waiting = Vec::new();
        for _ in 0..4 {
            let (net, request) = (port.net.clone(), request.clone());
            waiting.push(tokio::task::spawn_local(async move { net.say_bytes("m1a", &request).await }));
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let (status, text) = port.ask("POST /raft/snapshot", HEADERS, &body).await;
        assert_eq!((status, text.as_str()), (500, "failed to save KV snapshot (too many are received)\n"));
        drop(disk);
        for answer in waiting {
            assert!(answer.await.unwrap().starts_with("HTTP/1.1 204 "));
        }
        assert_eq!(port.ask("POST /raft/snapshot", HEADERS, &body).await.0, 204);
    });
}

/// What comes before the databases has the room of one, together; and that is given back.
#[test]
fn messages_of_snapshots_are_bounded_together() {
    on_paused_clock(async {
        let net = Rc::<Net>::default();
        let bounds = server::peer::Limits { snapshot_message_bytes_max: 100_000, ..limits() };
        let member = Member::start(&net, 0x1a, bounds);
        let request = |promised: u64, bytes: usize| {
            let length = 8 + bytes;
            let head = format!(
                "POST /raft/snapshot HTTP/1.1\r\nHost: m\r\nConnection: close\r\n{HEADERS}Content-Length: {length}\r\n\r\n"
            );
            [head.as_bytes(), &promised.to_be_bytes(), &vec![0; bytes]].concat()
        };
        let mut slow = net.connect("m1a").unwrap();
        let unfinished = request(80_000, 60_000);
        tokio::io::AsyncWriteExt::write_all(&mut slow, &unfinished[..unfinished.len() - 1]).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let answer = net.say_bytes("m1a", &request(50_000, 50_000)).await;
        assert!(answer.contains("failed to decode raft message (too many are received)"), "{answer}");
        // Nobody waits for the slow one for ever.
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        let answer = net.say_bytes("m1a", &request(50_000, 50_000)).await;
        assert!(answer.contains("failed to decode raft message (malformed message"), "{answer}");
        drop(member);
    });
}

/// All posted messages together have the room of one.
#[test]
fn posted_messages_are_bounded_together() {
    on_paused_clock(async {
        let net = Rc::<Net>::default();
        let bounds = server::peer::Limits { message_bytes_max: 100_000, ..limits() };
        let member = Member::start(&net, 0x1a, bounds);
        let head = |bytes: usize| {
            format!(
                "POST /raft HTTP/1.1\r\nHost: m\r\nConnection: close\r\n{HEADERS}Content-Length: {bytes}\r\n\r\n"
            )
        };
        let mut slow = net.connect("m1a").unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut slow, head(80_000).as_bytes()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut slow, &[0; 60_000]).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let other = [head(50_000).as_bytes(), &[0; 50_000]].concat();
        let answer = net.say_bytes("m1a", &other).await;
        assert!(answer.contains("error reading raft message"), "{answer}");
        // The slow one is given up after a while, and its room is free again.
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        let answer = net.say_bytes("m1a", &other).await;
        assert!(answer.contains("error unmarshalling raft message"), "{answer}");
        drop(member);
    });
}
