//! Connections on which nothing is ever said leave room for those on which something is, and for the member's files.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::place::{Place, get};

/// More than a peer port keeps at the same time.
const PEERS: usize = 1_100;
/// What the server is left of descriptors, and more clients than fit into them.
const DESCRIPTORS: usize = 320;
const CLIENTS: usize = 320;
/// What stays for the member's own files then, at least; more where there are few processors.
const FILES: usize = 30;
/// Longest wait for an answer; only a hang takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

fn silent(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

fn answers(address: SocketAddr, path: &'static str) -> bool {
    let (told, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || told.send(get(address, path)));
    answer.recv_timeout(PATIENCE).is_ok_and(|answer| answer.contains(" 200 OK\r\n"))
}

#[test]
fn at_the_peer_port_the_oldest_go() {
    let place = Place::new();
    let server = place.serve(&[]);
    let mut all = silent(server.peer(), PEERS);
    assert!(answers(server.peer(), "/version"), "a peer gets through");
    // Half a head is silence too.
    for stream in &mut all {
        let _ = stream.write_all(b"GET /version HTTP/1.1\r\n");
    }
    all.extend(silent(server.peer(), PEERS));
    assert!(answers(server.peer(), "/version"), "a peer gets through");
}

/// A server that may have so many descriptors.
fn limited(place: &Place, descriptors: usize, more: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")]);
    command.arg(env!("CARGO_BIN_EXE_etcd")).args(place.args(more));
    command.current_dir(place.dir.path()).env_remove("NOTIFY_SOCKET");
    command
}

/// Nor do they leave the member without descriptors for its own files, wherever they connect.
#[test]
fn clients_that_say_nothing_starve_no_probe() {
    let place = Place::new();
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{metrics}");
    let mut server = place.serve_with(&mut limited(&place, DESCRIPTORS, &["--listen-metrics-urls", &url]));
    let mut all = silent(server.client(), CLIENTS);
    for _ in 0..3 {
        assert!(answers(metrics, "/health"), "a probe gets through");
    }
    server.until("too many open files for another connection; it waits");
    all.extend(silent(server.peer(), CLIENTS));
    assert!(answers(server.peer(), "/version"), "a peer gets through");
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    assert!(open + FILES <= DESCRIPTORS, "{open} descriptors are open");
    // Each as soon as there is room for it.
    drop(all);
    assert!(answers(server.client(), "/health"), "a client gets through");
}

#[test]
fn too_few_descriptors_are_refused_as_in_etcd() {
    let place = Place::new();
    let refused = limited(&place, 150, &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let log = String::from_utf8(refused.stderr).unwrap();
    let line = r#""msg":"file descriptor limit of etcd process is too low; please set higher","limit":150,"#;
    assert!(log.contains(line), "{log}");
}

/// Handshakes under way on all threads together, at most, and some that wait for a thread.
const UNDER_WAY: usize = 4_096;
/// What ten thousand half-open handshakes may make the server grow by, bytes; measured: 20 MiB, with two threads for handshakes.
const GROWTH_MAX: u64 = 64 << 20;

/// A number of `/proc/PID/status`, bytes.
fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// As many descriptors as this process may have.
fn descriptors() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap()
}

#[test]
fn ten_thousand_half_open_handshakes_cost_bounded_memory() {
    let count = 10_000.min(descriptors().saturating_sub(1_000));
    assert!(count > UNDER_WAY, "too few descriptors for this test: {count}");
    let place = Place::new();
    let server = place.serve(&["--listen-client-urls", "https://127.0.0.1:0", "--auto-tls"]);
    let pid = server.child.id();
    let before = memory(pid, "VmRSS");
    let mut half_open = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(server.client()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The head of a record, and the beginning of a hello that never ends.
        let _ = stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
        half_open.push(stream);
    }
    // All but the last are cut, to make room or since their time is over.
    for mut stream in half_open.drain(..count - UNDER_WAY) {
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    }
    let client = tls::Info { insecure_skip_verify: true, ..tls::Info::default() };
    let dialing = tls::Client::new(&client, &["http/1.1"]).unwrap().begin("127.0.0.1").unwrap();
    let shaken = rustls::ClientConnection::new(dialing.config, dialing.name).unwrap();
    let mut stream = rustls::StreamOwned::new(shaken, TcpStream::connect(server.client()).unwrap());
    stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.0 200 OK", "one that is meant gets through");
    let growth = memory(pid, "VmHWM").saturating_sub(before);
    println!("{count} half-open handshakes: {} KiB more at the most", growth / 1024);
    assert!(growth < GROWTH_MAX, "it grew by {growth} bytes");
}
