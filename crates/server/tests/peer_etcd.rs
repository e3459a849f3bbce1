//! A real etcd on the other side: it leads and we follow, and we lead and it follows, through real sockets.
//!
//! `cargo xtask peers --etcd PATH` runs it.
#![allow(missing_docs, reason = "tests")]

#[path = "peer/bed.rs"]
#[allow(dead_code, reason = "each user takes its part")]
mod bed;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft::{Body, Entry, EntryKind, Index, Message, NodeId, Term};
use server::config::Url;
use server::listen::{Listener, Role};
use server::peer::{Handle, Identity, Limits, PeerThread, Settings};

use bed::FakeHost;

const TOKEN: &str = "peers";
const PATIENCE: Duration = Duration::from_secs(20);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An etcd `r` and a transport `q` that have a cluster of two.
struct Pair {
    etcd: Child,
    _dir: tempfile::TempDir,
    client_port: u16,
    peer_port: u16,
    theirs: NodeId,
    ours: NodeId,
    host: Arc<FakeHost>,
    handle: Handle,
    thread: Option<PeerThread>,
    /// What was received and already looked at.
    seen: usize,
}

impl Pair {
    fn start() -> Pair {
        let program = std::env::var_os("QUORATE_ETCD").expect("QUORATE_ETCD is the path of an etcd");
        let (peer_port, client_port) = (free_port(), free_port());
        let listener = Listener::bind(&Url::parse("http://127.0.0.1:0").unwrap(), Role::Peer, false).unwrap();
        let url = |port| format!("http://127.0.0.1:{port}");
        let (their_url, our_url) = (url(peer_port), url(listener.local_addr().unwrap().port()));
        let id = |url: &String| node::member_id(std::slice::from_ref(url), TOKEN);
        let (theirs, ours) = (id(&their_url), id(&our_url));
        let identity = Identity {
            member_id: NodeId(ours),
            cluster_id: node::cluster_id(&[ours, theirs]),
            peer_urls: vec![our_url.clone()],
        };
        let (host, handle) = (Arc::new(FakeHost::default()), Handle::new(64 << 20));
        let settings = Settings { identity, limits: Limits::default(), security: tls::Info::default() };
        let thread = {
            let host = host.clone();
            PeerThread::start(handle.clone(), settings, move || host, vec![listener], 7).unwrap()
        };
        handle.add_peer(NodeId(theirs), vec![their_url.clone()]);
        let dir = tempfile::tempdir().unwrap();
        let etcd = Command::new(program)
            .args(["--name", "r", "--initial-cluster-token", TOKEN, "--log-level", "warn"])
            .args(["--initial-cluster", &format!("r={their_url},q={our_url}")])
            .args(["--initial-advertise-peer-urls", &their_url, "--listen-peer-urls", &their_url])
            .args(["--listen-client-urls", &url(client_port), "--advertise-client-urls", &url(client_port)])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (theirs, ours, thread) = (NodeId(theirs), NodeId(ours), Some(thread));
        Pair { etcd, _dir: dir, client_port, peer_port, theirs, ours, host, handle, thread, seen: 0 }
    }

    fn send(&self, term: u64, body: Body) {
        self.handle.send(vec![Message { from: self.ours, to: self.theirs, term: Term(term), body }]);
    }

    /// What has come since the last call.
    fn news(&mut self) -> Vec<Message> {
        let news = self.host.told().messages[self.seen..].to_vec();
        self.seen += news.len();
        news
    }

    fn has_streams(&self) -> bool {
        let stats = self.handle.stats();
        stats.get(&self.theirs).is_some_and(|stats| {
            stats.active_since().is_some() && stats.received_bytes.get() > 0 && stats.probes.get() > 0
        })
    }

    fn get(&self, port: u16, line: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{line} HTTP/1.1\r\nHost: e\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
        if let Some(thread) = self.thread.take() {
            thread.stop();
        }
    }
}

/// Does `step` until it says that it is done.
fn until(what: &str, mut step: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !step() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Answers as a follower that accepts everything; the entries that came.
fn follow(pair: &mut Pair, entries: &mut Vec<Entry>) {
    for message in pair.news() {
        let term = message.term.0;
        match message.body {
            Body::PreVote { .. } => pair.send(term, Body::PreVoteResponse { reject: false }),
            Body::Vote { .. } => pair.send(term, Body::VoteResponse { reject: false }),
            Body::Append { prev, entries: more, .. } => {
                let index = prev.0.plus(more.len());
                entries.extend(more);
                pair.send(term, Body::AppendResponse { index, reject: None });
            }
            Body::Heartbeat { context, .. } => pair.send(term, Body::HeartbeatResponse { context }),
            _ => {}
        }
    }
}

#[test]
#[ignore = "needs a real etcd: cargo xtask peers --etcd PATH"]
fn a_real_etcd_leads_and_we_follow() {
    let mut pair = Pair::start();
    let mut entries = Vec::new();
    until("it leads", || {
        follow(&mut pair, &mut entries);
        !entries.is_empty() && pair.has_streams()
    });
    // A put through its client port, which needs our acknowledgement.
    let port = pair.client_port;
    let putting = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let body = r#"{"key":"bmFtZQ==","value":"am9obg=="}"#;
        let length = body.len();
        write!(
            stream,
            "POST /v3/kv/put HTTP/1.1\r\nHost: e\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    until("the put is answered", || {
        follow(&mut pair, &mut entries);
        putting.is_finished()
    });
    let answer = putting.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let put = entries.iter().find(|entry| entry.data.windows(4).any(|part| part == b"john"));
    let put = put.expect("the put is among the entries");
    assert!(entries.windows(2).all(|pair| pair[0].index.next() == pair[1].index), "no gaps");
    println!("etcd led in term {}, and sent {} entries, the put at {}", put.term, entries.len(), put.index);
    let stats = pair.handle.stats().remove(&pair.theirs).unwrap();
    println!("{stats:#?}");
    assert_eq!(stats.received_failures.get(), 0);
    assert_eq!(stats.disconnects.get(), 0);

    let version = pair.get(pair.peer_port, "GET /version", "", "");
    assert!(version.contains(r#""etcdserver":"3."#), "{version}");
    let members = pair.get(pair.peer_port, "GET /members", "", "");
    assert!(members.contains(&pair.ours.0.to_string()), "{members}");
    println!("{members}");
}

#[test]
#[ignore = "needs a real etcd: cargo xtask peers --etcd PATH"]
fn we_lead_and_a_real_etcd_follows() {
    let mut pair = Pair::start();
    // Both logs begin with the two members, committed, in term 1.
    let mut last = (Index(2), Term(1));
    let term = 50;
    until("it votes", || {
        if pair.handle.stats().get(&pair.theirs).is_none_or(|stats| stats.active_since().is_none()) {
            return false;
        }
        pair.send(term, Body::Vote { last, transfer: true });
        std::thread::sleep(Duration::from_millis(50));
        pair.news()
            .iter()
            .any(|message| message.term == Term(term) && message.body == Body::VoteResponse { reject: false })
    });
    // The first append of a stream is a whole message, those that follow on are not.
    for round in 0..20 {
        let count = [1, 3, 0, 2][round % 4];
        let entries: Vec<Entry> = (1..=count)
            .map(|at| Entry {
                term: Term(term),
                index: Index(last.0.0 + at),
                kind: EntryKind::Normal,
                // Anything else would have to be a request that etcd knows.
                data: Vec::new().into(),
            })
            .collect();
        let prev = last;
        if let Some(entry) = entries.last() {
            last = (entry.index, entry.term);
        }
        let (index, commit) = (last.0, prev.0);
        pair.send(term, Body::Append { prev, entries, commit });
        until("it acknowledges", || {
            pair.send(term, Body::Heartbeat { commit: Index(2), context: Some(7) });
            pair.news().iter().any(|message| message.body == Body::AppendResponse { index, reject: None })
        });
    }
    until("it answers heartbeats", || {
        pair.send(term, Body::Heartbeat { commit: Index(2), context: Some(0x0102_0304) });
        pair.news()
            .iter()
            .any(|message| message.body == Body::HeartbeatResponse { context: Some(0x0102_0304) })
    });
    let stats = pair.handle.stats().remove(&pair.theirs).unwrap();
    println!("{stats:#?}");
    assert_eq!(stats.disconnects.get(), 0, "it understood all that came");
    assert_eq!(stats.dropped.get(), 0);
}
