//! `etcd gateway start`: connections are handed on to members that answer.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::{Place, Server, get, run};

fn start(place: &Place, args: &[&str]) -> (Server, SocketAddr) {
    let words = [&["gateway", "start", "--listen-addr", "127.0.0.1:0"][..], args].concat();
    let mut server = place.serve_with(&mut super::place::etcd(place.dir.path(), &words, &[]));
    server.until("ready to proxy client requests");
    let after = server.seen.split(r#""listen-addr":""#).nth(1).expect("it says where it listens");
    let address = after.split('"').next().unwrap().parse().unwrap();
    (server, address)
}

/// What a backend says to whoever comes.
fn greeting(address: SocketAddr) -> String {
    let mut said = String::new();
    TcpStream::connect(address).unwrap().read_to_string(&mut said).unwrap();
    said
}

/// Greets so many that connect, one after the other.
fn greet(listener: TcpListener, text: &'static str, count: usize) -> std::thread::JoinHandle<TcpListener> {
    std::thread::spawn(move || {
        for _ in 0..count {
            listener.accept().unwrap().0.write_all(text.as_bytes()).unwrap();
        }
        listener
    })
}

#[test]
fn a_member_is_reached_through_a_gateway() {
    let place = Place::new();
    let member = place.serve(&[]);
    let endpoint = format!("http://{}", member.client());
    let (mut gateway, address) = start(&place, &["--endpoints", &endpoint]);
    assert!(get(address, "/version").contains("\"etcdserver\":\"3.7.1\""));
    kill(Pid::from_raw(gateway.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(gateway.child.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
}

#[test]
fn members_take_turns_and_one_that_does_not_answer_is_left_out_for_a_while() {
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (first, second) = (bind(), bind());
    let [first_at, second_at] = [&first, &second].map(|listener| listener.local_addr().unwrap());
    let endpoints = format!("{first_at},{second_at}");
    let place = Place::new();
    let (mut gateway, address) = start(&place, &["--endpoints", &endpoints, "--retry-delay", "100ms"]);

    let (one, two) = (greet(first, "one", 2), greet(second, "two", 2));
    let mut said: Vec<String> = (0..4).map(|_| greeting(address)).collect();
    said.sort();
    assert_eq!(said, ["one", "one", "two", "two"]);

    for listener in [one, two] {
        // Closing is not enough: a process that another test is starting just now may have the socket too.
        socket2::SockRef::from(&listener.join().unwrap()).shutdown(Shutdown::Both).unwrap();
    }
    assert_eq!(greeting(address), "", "nobody answers: closed at once");
    gateway.until("deactivated endpoint");
    gateway.until("deactivated endpoint");
    gateway.until("failed to activate endpoint (stay inactive for another interval)");
    let refused = "connect: connection refused";
    assert!(
        gateway.seen.contains(refused) && gateway.seen.contains(r#""interval":"100ms""#),
        "{}",
        gateway.seen
    );

    // The retry is a connection too.
    let back = greet(TcpListener::bind(second_at).unwrap(), "two", 2);
    gateway.until(r#""msg":"activated""#);
    assert_eq!(greeting(address), "two");
    drop(back.join().unwrap());
}

#[test]
fn a_half_that_is_closed_leaves_the_other_open() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let (_gateway, address) = start(&Place::new(), &["--endpoints", &endpoint]);
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut question = String::new();
        stream.read_to_string(&mut question).unwrap();
        stream.write_all(format!("{question} heard").as_bytes()).unwrap();
    });
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"all").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "all heard");
    answering.join().unwrap();
}

#[test]
fn what_a_gateway_cannot_start_with_is_said_as_by_etcd() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let own = "SRV or endpoint (localhost:1->127.0.0.1:1) should not resolve to the gateway listen addr (127.0.0.1:1)";
    let bound = format!("listen tcp {taken}: bind: address already in use\n");
    for (args, out, err) in [
        (&["--endpoints", "nonsense"][..], "error parsing endpoint \"nonsense\"", ""),
        (&["--endpoints", "a:x"], "error parsing endpoint \"a:x\"", ""),
        (&["--endpoints="], "no endpoints found", ""),
        (&["--listen-addr", "nonsense"], "failed to validate listen address: nonsense", ""),
        (&["--listen-addr", ":23790"], "failed to resolve listen host: ", ""),
        (&["--endpoints", ":1"], "failed to resolve endpoint host: ", ""),
        (&["--listen-addr", "127.0.0.1:1", "--endpoints", "localhost:1"], own, ""),
        (&["--listen-addr", &taken], "", &bound),
        (&["--discovery-srv", "example.org"], "", "--discovery-srv is not yet supported by Quorate "),
        (&["--nonsense"], "", "Error: unknown flag: --nonsense\nUsage:\n  etcd gateway start [flags]\n"),
    ] {
        let ended = run(&[&["gateway", "start"][..], args].concat(), &[]);
        assert_eq!((ended.code, ended.out.trim_end_matches('\n')), (Some(1), out), "{args:?}: {}", ended.err);
        assert!(ended.err.contains(err), "{args:?}: {}", ended.err);
    }
}
