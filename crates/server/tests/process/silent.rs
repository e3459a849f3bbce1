//! Connections on which nothing is ever said leave room for those on which something is.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::place::{Place, get};

/// More than a peer port keeps at the same time.
const PEERS: usize = 1_100;
/// What the server is left of descriptors, and more clients than fit into them.
const DESCRIPTORS: usize = 320;
const CLIENTS: usize = 320;
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
        let _ = std::io::Write::write_all(stream, b"GET /version HTTP/1.1\r\n");
    }
    all.extend(silent(server.peer(), PEERS));
    assert!(answers(server.peer(), "/version"), "a peer gets through");
}

#[test]
fn clients_that_say_nothing_starve_no_probe() {
    let place = Place::new();
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\"")]);
    command
        .arg(env!("CARGO_BIN_EXE_etcd"))
        .args(place.args(&["--listen-metrics-urls", &format!("http://{metrics}")]));
    command.current_dir(place.dir.path()).env_remove("NOTIFY_SOCKET");
    let server = place.serve_with(&mut command);
    let _all = silent(server.client(), CLIENTS);
    assert!(answers(metrics, "/health"), "a probe gets through");
}
