//! The `etcd` binary as a process: exit codes, streams, folders, signals. Texts are those of etcd 3.7.1.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

fn etcd(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcd"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD")) {
        command.env_remove(name);
    }
    command.env_remove("NOTIFY_SOCKET").args(args).current_dir(dir).envs(variables.iter().copied());
    command
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(args: &[&str], variables: &[(&str, &str)]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let Output { status, stdout, stderr } = etcd(dir.path(), args, variables).output().unwrap();
    Ended {
        code: status.code(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

#[test]
fn versions_go_to_stdout() {
    for args in [&["--version"][..], &["-version"], &["--version=T"], &["--name", "x", "--version"]] {
        let ended = run(args, &[]);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{args:?}");
        let lines: Vec<&str> = ended.out.lines().collect();
        assert_eq!(lines[0], "etcd Version: 3.7.1");
        assert!(lines[1].starts_with("Git SHA: ") && lines[1].contains("Quorate "), "{lines:?}");
        assert!(
            lines[2].starts_with("Go Version: ") && lines[3].starts_with("Go OS/Arch: linux/"),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 4, "tools match exactly etcd's four lines");
    }
}

#[test]
fn help_goes_to_stdout_and_usage_to_stderr() {
    let help = run(&["--help"], &[]);
    assert_eq!(help.code, Some(0));
    assert!(help.out.contains("\n  --listen-client-urls 'http://localhost:2379'\n"), "{}", help.out);
    assert!(help.err.starts_with("Usage:\n"), "{}", help.err);
    for arg in ["-h", "-help"] {
        assert_eq!(run(&[arg], &[]).out, help.out);
    }
}

#[test]
fn a_command_line_that_does_not_parse_ends_with_2() {
    for (args, text) in [
        (&["--nonsense"][..], "flag provided but not defined: -nonsense\nUsage:"),
        (&["--name"], "flag needs an argument: -name\nUsage:"),
        (&["--max-txn-ops", "x"], "invalid value \"x\" for flag -max-txn-ops: parse error\nUsage:"),
    ] {
        let ended = run(args, &[]);
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{args:?}");
        assert!(ended.err.starts_with(text), "{}", ended.err);
    }
}

#[test]
fn settings_that_make_no_sense_end_with_1() {
    for (args, variables, text) in [
        (&["start"][..], &[][..], r#""error":"\"start\" is not a valid flag""#),
        (
            &["--log-format", "xml"],
            &[],
            r#""error":"unknown log format: xml, supported values json, console""#,
        ),
        (&["--log-level", "loud"], &[], "loud"),
        (&["--enable-distributed-tracing"], &[], "--enable-distributed-tracing is not yet supported"),
        (&["--config-file", "x"], &[], r#""error":"open x: no such file or directory""#),
        (&[], &[("ETCD_CONFIG_FILE", "x")], r#""error":"open x: no such file or directory""#),
        (&["gateway"], &[], "etcd gateway is not yet supported"),
        (&["grpc-proxy", "start"], &[], "etcd grpc-proxy is not yet supported"),
        (&[], &[("ETCD_MAX_TXN_OPS", "many")], r#"invalid value \"many\" for ETCD_MAX_TXN_OPS: parse error"#),
        (&["--name", "a"], &[("ETCD_NAME", "a")], r#""environment-variable":"ETCD_NAME""#),
        (
            &["--heartbeat-interval", "0"],
            &[("ETCD_ROOT_PASSWORD", "x")],
            r#""ETCD_ROOT_PASSWORD=<redacted>""#,
        ),
        (
            &["--log-level", "fatal", "--heartbeat-interval", "0"],
            &[],
            "--heartbeat-interval must be >0 (set to 0ms)",
        ),
        (
            &["--listen-client-urls", "http://127.0.0.1:1"],
            &[],
            r#""msg":"advertise client URLs are not set""#,
        ),
    ] {
        let ended = run(args, variables);
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{args:?}: {}", ended.err);
        assert!(ended.err.contains(text), "{args:?}: {}", ended.err);
    }
}

/// Flags and variables beside a file do not count, be they ever so wrong.
#[test]
fn where_there_is_a_file_nothing_else_counts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("etcd.yaml");
    std::fs::write(&file, "heartbeat-interval: 0\n").unwrap();
    let ended = run(
        &[
            "--config-file",
            file.to_str().unwrap(),
            "--heartbeat-interval",
            "100",
            "--enable-distributed-tracing",
        ],
        &[("ETCD_HEARTBEAT_INTERVAL", "x"), ("ETCD_NONSENSE", "1")],
    );
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("--heartbeat-interval must be >0 (set to 0ms)"), "{}", ended.err);
    assert!(!ended.err.contains("NONSENSE"), "{}", ended.err);
}

/// A folder for one server, which lets the system choose its ports.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    fn args<'a>(&self, more: &[&'a str]) -> Vec<&'a str> {
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

    fn command(&self, more: &[&str]) -> Command {
        etcd(self.dir.path(), &self.args(more), &[])
    }

    fn refused(&self, more: &[&str]) -> String {
        let ended = self.command(more).output().unwrap();
        assert_eq!(ended.status.code(), Some(1));
        String::from_utf8(ended.stderr).unwrap()
    }

    fn serve(&self, more: &[&str]) -> Server {
        self.serve_with(&mut self.command(more))
    }

    fn serve_with(&self, command: &mut Command) -> Server {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut server = Server { child, log, seen: String::new() };
        server.until("successfully notified init daemon");
        server
    }
}

struct Server {
    child: Child,
    log: BufReader<ChildStderr>,
    seen: String,
}

impl Server {
    /// The address in the line of the log that serving it left.
    fn address(&self, serving: &str) -> SocketAddr {
        let line = self.seen.lines().find(|line| line.contains(serving)).expect("it serves");
        let after = line.split(r#""address":""#).nth(1).expect("with an address");
        after.split('"').next().unwrap().parse().unwrap()
    }

    fn client(&self) -> SocketAddr {
        self.address("serving client traffic")
    }

    fn peer(&self) -> SocketAddr {
        self.address("serving peer traffic")
    }

    /// Reads the log up to a line that contains the text.
    fn until(&mut self, text: &str) {
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

fn get(address: SocketAddr, path: &str) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    write!(client, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_start_that_fails_ends_with_1_and_says_why() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    let listen = place.refused(&["--listen-client-urls", &url]);
    assert!(listen.contains("bind: address already in use"), "{listen}");

    let name = place.refused(&["--name", "other"]);
    assert!(
        name.contains(r#"couldn't find local name \"other\" in the initial cluster configuration"#),
        "{name}"
    );

    std::fs::write(place.dir.path().join("file"), "x").unwrap();
    let wal = place.refused(&["--wal-dir", "file"]);
    assert_eq!(wal.matches("ot a directory").count(), 1, "{wal}");
    assert_eq!(std::fs::read(place.dir.path().join("file")).unwrap(), b"x", "it is not ours");
    let wal = place.refused(&["--wal-dir", "/proc/wal"]);
    assert_eq!(wal.matches("No such file or directory").count(), 1, "the cause is told once: {wal}");

    std::fs::remove_dir_all(place.dir.path().join("data")).unwrap();
    std::fs::write(place.dir.path().join("data"), "x").unwrap();
    let file = place.refused(&[]);
    assert!(file.contains("failed to list data directory") && file.contains("not a directory"), "{file}");
    assert!(file.lines().all(|line| line.starts_with(r#"{"level":""#) && line.ends_with('}')), "{file}");
}

#[test]
fn it_serves_and_ends_by_the_signal() {
    for (signal, name) in [(Signal::SIGTERM, "terminated"), (Signal::SIGINT, "interrupt")] {
        let place = Place::new();
        let mut server = place.serve(&[]);
        assert!(server.seen.contains(r#""msg":"ready to serve client requests""#));
        assert!(get(server.client(), "/health").contains(" 200 OK\r\n"));
        assert!(get(server.peer(), "/version").contains(r#"{"etcdserver":"3.7.1","#));
        assert!(get(server.peer(), "/health").ends_with("\r\n\r\n404 page not found\n"));
        let mode = std::fs::metadata(place.dir.path().join("data/member")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);

        let pid = nix::unistd::Pid::from_raw(i32::try_from(server.child.id()).unwrap());
        for meaningless in [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM] {
            nix::sys::signal::kill(pid, meaningless).unwrap();
        }
        nix::sys::signal::kill(pid, signal).unwrap();
        server.until(&format!(r#""msg":"received signal; shutting down","signal":"{name}""#));
        server.until("closed etcd server");
        assert_eq!(server.child.wait().unwrap().signal(), Some(signal as i32));
        let mut out = String::new();
        server.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert_eq!(out, "", "the log goes to stderr alone");
    }
}

#[test]
fn a_wider_folder_gets_etcds_warning() {
    let place = Place::new();
    let data = place.dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = place.serve(&["--log-format", "console"]);
    let warning = "check file permission\t{\"error\": \"directory \\\"data\\\" exist, but the permission is \
                   \\\"drwxr-xr-x\\\". The recommended permission is \\\"-rwx------\\\" to prevent possible \
                   unprivileged access to the data\"}\n";
    assert!(server.seen.contains(warning), "{}", server.seen);
    assert!(server.seen.contains("\tinfo\tsrc/process.rs:"), "{}", server.seen);
}

#[test]
fn systemd_is_told() {
    let place = Place::new();
    let path = place.dir.path().join("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let server = place.serve_with(place.command(&[]).env("NOTIFY_SOCKET", &path));
    let mut told = [0; 64];
    let length = socket.recv(&mut told).unwrap();
    assert_eq!(&told[..length], b"READY=1");
    assert!(get(server.client(), "/health").contains(" 200 OK\r\n"));
}
