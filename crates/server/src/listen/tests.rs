//! Listeners and network threads on real sockets of this machine.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::config::Url;
use crate::http::{Alarm, Allowed, Versions};

/// Answers a gRPC connection with its thread's number and the bytes that came first.
struct Echo {
    threads: mpsc::Sender<String>,
}

struct EchoThread {
    thread: usize,
    closing: Closing,
}

impl Service for Echo {
    fn on_thread(&self, thread: usize, closing: Closing) -> Rc<dyn ThreadService> {
        let _ = self.threads.send(std::thread::current().name().unwrap_or_default().to_owned());
        Rc::new(EchoThread { thread, closing })
    }
}

impl ThreadService for EchoThread {
    fn grpc(self: Rc<Self>, mut stream: Stream, _: Option<http::Web>) -> LocalFuture<'static, ()> {
        Box::pin(async move {
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            stream.write_all(&[b'0' + u8::try_from(self.thread).unwrap()]).await.unwrap();
            stream.write_all(&preface).await.unwrap();
            self.closing.clone().wait().await;
            stream.write_all(b"bye").await.unwrap();
        })
    }
}

impl Health for EchoThread {
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

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn site() -> Arc<Site> {
    let request_timeout = Duration::from_secs(7);
    Arc::new(Site { request_timeout, origins: Allowed::Any, hosts: Allowed::Any, profiles: false })
}

fn network(threads: usize) -> Network {
    let (names, started) = mpsc::channel();
    let service: Arc<dyn Service> = Arc::new(Echo { threads: names });
    let network = Network::start(threads, &service, Duration::from_secs(5), &site()).unwrap();
    for _ in 0..threads {
        assert!(started.recv().unwrap().starts_with("network-"));
    }
    network
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[test]
fn the_first_bytes_decide_and_connections_go_round() {
    let network = network(2);
    let listener = Listener::bind(&url("http://127.0.0.1:0"), Role::Client, false).unwrap();
    let address = listener.local_addr().unwrap();
    network.accept(listener);
    let mut open = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(address).unwrap();
        // Byte by byte, as slow networks deliver it.
        for byte in PREFACE {
            client.write_all(&[*byte]).unwrap();
        }
        let mut got = [0; 25];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got[1..], PREFACE, "the preface is still there to be read");
        threads.push(got[0]);
        open.push(client);
    }
    threads.sort_unstable();
    assert_eq!(threads, b"01");

    let mut plain = TcpStream::connect(address).unwrap();
    plain.write_all(b"PRI /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut got = String::new();
    plain.read_to_string(&mut got).unwrap();
    assert!(got.starts_with("HTTP/1.1 405"), "{got}");

    network.stop();
    for mut client in open {
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "bye", "open connections are told and may finish");
    }
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn a_peers_port_has_no_grpc() {
    let network = network(1);
    let listener = Listener::bind(&url("http://localhost:0"), Role::Peer, false).unwrap();
    let address = listener.local_addr().unwrap();
    network.accept(listener);
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET /version HTTP/1.0\r\n\r\n").unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert!(
        got.ends_with(r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown"}"#),
        "{got}"
    );
    network.stop();
}

#[test]
fn a_socket_file_is_replaced_and_removed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("client.sock");
    std::fs::write(&path, "left behind").unwrap();
    let network = network(1);
    network.accept(Listener::bind(&url(&format!("unix://{}", path.display())), Role::Client, false).unwrap());
    let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    client.write_all(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert!(got.ends_with(r#"{"health":"true","reason":""}"#), "{got}");
    network.stop();
    assert!(!path.exists());
}

/// Begins work on each network thread that ends only with this.
struct Stuck(std::sync::Mutex<Option<mpsc::Receiver<()>>>);

impl Service for Stuck {
    fn on_thread(&self, thread: usize, closing: Closing) -> Rc<dyn ThreadService> {
        let until = self.0.lock().unwrap().take().unwrap();
        tokio::task::spawn_blocking(move || until.recv());
        Rc::new(EchoThread { thread, closing })
    }
}

/// A name that is being looked up, a hash, a password: some take minutes.
#[test]
fn the_end_waits_for_nothing_that_blocks() {
    let (end, until) = mpsc::channel();
    let service: Arc<dyn Service> = Arc::new(Stuck(std::sync::Mutex::new(Some(until))));
    let network = Network::start(1, &service, Duration::ZERO, &site()).unwrap();
    let (stopped, has_stopped) = mpsc::channel();
    std::thread::spawn(move || {
        network.stop();
        stopped.send(())
    });
    let has_stopped = has_stopped.recv_timeout(Duration::from_secs(60));
    drop(end);
    has_stopped.expect("it stops");
}

/// One socket serves both families there.
#[tokio::test]
async fn addresses_are_shown_as_go_shows_them() {
    let listener = Listener::bind(&url("http://0.0.0.0:0"), Role::Client, false).unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let accepted = listener.into_async().unwrap().accept().await.unwrap();
    let expected = client.local_addr().unwrap();
    assert_eq!(accepted.addresses(), (format!("127.0.0.1:{port}"), expected.to_string()));
    let mut stream = Stream::idle(accepted);
    assert_eq!(stream.remote(), Some(expected));
    stream.attach().unwrap();
    assert_eq!(stream.remote(), Some(expected));
}

/// Texts recorded from etcd 3.7.1.
#[test]
fn refusals_are_gos() {
    let taken = Listener::bind(&url("http://127.0.0.1:0"), Role::Client, false).unwrap();
    let address = taken.local_addr().unwrap();
    let refusal = |text: &str| Listener::bind(&url(text), Role::Client, false).unwrap_err().to_string();
    assert_eq!(
        refusal(&format!("http://{address}")),
        format!("listen tcp {address}: bind: address already in use")
    );
    assert_eq!(
        refusal("http://192.0.2.1:999"),
        "listen tcp 192.0.2.1:999: bind: cannot assign requested address"
    );
    assert_eq!(refusal("http://127.0.0.1:70000"), "listen tcp: address 70000: invalid port");
    assert_eq!(
        refusal("unix:///nonexistent/x"),
        "listen unix /nonexistent/x: bind: no such file or directory"
    );
}
