//! The `etcd` binary as a process: exit codes, streams, folders, signals. Texts are those of etcd 3.7.1.

mod bad_values;
mod check_config;
mod gateway;
mod place;
mod secure;
mod silent;

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use nix::sys::signal::Signal;

use place::{Place, get, run};

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
fn the_other_commands_have_their_help() {
    for command in ["gateway", "grpc-proxy"] {
        for args in [&[command][..], &[command, "--help"], &[command, "nonsense"]] {
            let help = run(args, &[]);
            assert_eq!((help.code, help.err.as_str()), (Some(0), ""), "as etcd's: {args:?}");
            assert!(help.out.contains("\n  start       start the g"), "{}", help.out);
        }
        let start = run(&[command, "start", "--help"], &[]);
        assert_eq!(start.code, Some(0));
        assert!(start.out.contains("\n      --endpoints strings"), "{}", start.out);
    }
    let refused = run(&["grpc-proxy", "start", "--listen-addr", "127.0.0.1:0"], &[]);
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    assert!(refused.err.starts_with("etcd grpc-proxy is not yet supported by Quorate "), "{}", refused.err);
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
        (&["gateway", "start", "--discovery-srv", "x"], &[], "--discovery-srv is not yet supported"),
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

/// Others may take minutes to answer, or a store to be read; etcd ends at once there, without a line.
#[test]
fn a_start_ends_by_the_signal() {
    let place = Place::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let cluster = format!("default=http://127.0.0.1:2380,other=http://{}", silent.local_addr().unwrap());
    let joins = ["--initial-cluster", &cluster, "--initial-cluster-state", "existing"];
    let mut command = place.command(&joins);
    let mut starting = command.stderr(Stdio::piped()).spawn().unwrap();
    // It is asked for the cluster that is to be joined, and does not answer.
    let _asked = silent.accept().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(starting.id()).unwrap());
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(starting.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
    let mut log = String::new();
    starting.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(!log.contains("received signal"), "{log}");
    place.serve(&[]);
}

/// `etcd --help | head`: who read is gone.
#[test]
fn nobody_has_to_read_what_is_printed() {
    let place = Place::new();
    let check = place.args(&["--check-config"]);
    let wrong = place.args(&["--check-config", "--name", "other"]);
    let endpoint = ["gateway", "start", "--endpoints", "a:b"];
    for (args, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["gateway", "--help"], 0),
        (&["--nonsense"], 2),
        (&["grpc-proxy", "start"], 1),
        (&endpoint, 1),
        (&check, 0),
        (&wrong, 1),
    ] {
        for streams in ["out", "err"] {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut command = place::etcd(place.dir.path(), args, &[]);
            match streams {
                "out" => command.stdout(writer),
                _ => command.stderr(writer),
            };
            let ended = command.output().unwrap();
            let err = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(code), "{args:?}, std{streams}: {err}");
            assert!(!err.contains("panic"), "{args:?}, std{streams}: {err}");
        }
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
