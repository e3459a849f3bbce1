//! The binary in a folder of its own, run to its end or served from.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use tempfile::TempDir;

pub(crate) fn etcd(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcd"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD")) {
        command.env_remove(name);
    }
    command.env_remove("NOTIFY_SOCKET").args(args).current_dir(dir).envs(variables.iter().copied());
    command
}

pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn run(args: &[&str], variables: &[(&str, &str)]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let Output { status, stdout, stderr } = etcd(dir.path(), args, variables).output().unwrap();
    Ended {
        code: status.code(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// A folder for one server, which lets the system choose its ports.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn args<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
        let base = [
            ["--data-dir", "data"],
            ["--listen-client-urls", "http://127.0.0.1:0"],
            ["--advertise-client-urls", "http://127.0.0.1:2379"],
            ["--listen-peer-urls", "http://127.0.0.1:0"],
            ["--initial-advertise-peer-urls", "http://127.0.0.1:2380"],
            ["--initial-cluster", "default=http://127.0.0.1:2380"],
        ];
        base.concat().into_iter().chain(more.iter().copied()).collect()
    }

    pub(crate) fn command(&self, more: &[&str]) -> Command {
        etcd(self.dir.path(), &self.args(more), &[])
    }

    pub(crate) fn refused(&self, more: &[&str]) -> String {
        let ended = self.command(more).output().unwrap();
        assert_eq!(ended.status.code(), Some(1));
        String::from_utf8(ended.stderr).unwrap()
    }

    pub(crate) fn serve(&self, more: &[&str]) -> Server {
        self.serve_with(&mut self.command(more))
    }

    pub(crate) fn serve_with(&self, command: &mut Command) -> Server {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut server = Server { child, log, seen: String::new() };
        server.until("successfully notified init daemon");
        server
    }
}

pub(crate) struct Server {
    pub(crate) child: Child,
    log: BufReader<ChildStderr>,
    pub(crate) seen: String,
}

impl Server {
    /// The address in the line of the log that serving it left.
    fn address(&self, serving: &str) -> SocketAddr {
        let line = self.seen.lines().find(|line| line.contains(serving)).expect("it serves");
        let after = line.split(r#""address":""#).nth(1).expect("with an address");
        after.split('"').next().unwrap().parse().unwrap()
    }

    pub(crate) fn client(&self) -> SocketAddr {
        self.address("serving client traffic")
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.address("serving peer traffic")
    }

    /// Reads the log up to a line that contains the text.
    pub(crate) fn until(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "ended without {text}: {}", self.seen);
            self.seen.push_str(&line);
            if line.contains(text) {
                return;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    write!(client, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}
