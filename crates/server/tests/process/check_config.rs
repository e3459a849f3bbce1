//! `etcd --check-config`: what it finds wrong is what a start ends with, and it changes nothing.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::place::{Ended, Place, etcd, run};

fn check(place: &Place, more: &[&str]) -> Ended {
    run_in(place.dir.path(), &[&place.args(more)[..], &["--check-config"]].concat())
}

fn run_in(dir: &Path, args: &[&str]) -> Ended {
    let ended = etcd(dir, args, &[]).output().unwrap();
    Ended {
        code: ended.status.code(),
        out: String::from_utf8(ended.stdout).unwrap(),
        err: String::from_utf8(ended.stderr).unwrap(),
    }
}

/// Every file and folder under a folder, with its bytes and when it was changed.
fn everything(dir: &Path) -> Vec<(String, Option<Vec<u8>>, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        found.push((dir.display().to_string(), None, fs::metadata(&dir).unwrap().modified().unwrap()));
        for entry in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                left.push(entry);
            } else {
                let changed = fs::metadata(&entry).unwrap().modified().unwrap();
                found.push((entry.display().to_string(), Some(fs::read(&entry).unwrap()), changed));
            }
        }
    }
    found.sort();
    found
}

/// Writes a certificate for the host and its key, valid from one year to another.
fn certificate(dir: &Path, name: &str, host: &str, years: (i32, i32)) {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    fs::write(dir.join(format!("{name}.crt")), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[test]
fn a_new_member_is_told_what_it_would_begin() {
    let place = Place::new();
    let before = everything(place.dir.path());
    let log = place.dir.path().join("logs/etcd.log");
    let file = ["--enable-log-rotation", "--log-outputs", log.to_str().unwrap()];
    let found = check(&place, &[&file[..], &["--auto-tls"]].concat());
    assert_eq!((found.code, found.err.as_str()), (Some(0), ""), "{}", found.out);
    for line in [
        "ok    settings: of flags and variables\n",
        "ok    data-dir: data holds nothing yet\n",
        "ok    listen-peer-urls: http://127.0.0.1:0\n",
        "ok    peer TLS: none\n",
        "/data/fixtures/client\n",
        "would begin the cluster ",
        " as the member default (",
        "\netcd would start\n",
    ] {
        assert!(found.out.contains(line), "{line}: {}", found.out);
    }
    assert_eq!(everything(place.dir.path()), before, "nothing is made");

    let joins = check(
        &place,
        &[
            "--initial-cluster-state=existing",
            "--initial-cluster=default=http://127.0.0.1:2380,other=http://127.0.0.1:1",
        ],
    );
    assert_eq!(joins.code, Some(0), "{}", joins.out);
    assert!(joins.out.contains("would ask the others of --initial-cluster who default is"), "{}", joins.out);
}

/// Certificates of clients count where a URL is https alone, as for a start.
#[test]
fn what_a_start_passes_over_is_no_fault() {
    let found = check(&Place::new(), &["--cert-file", "none.crt", "--key-file", "none.key"]);
    assert_eq!(found.code, Some(0), "{}", found.out);
    let note = "note  client TLS: open none.crt: no such file or directory; no URL is https";
    assert!(found.out.contains(note), "{}", found.out);
}

/// Each of these keeps a member from starting, with the words that the check has for it.
#[test]
fn what_is_wrong_is_what_a_start_ends_with() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("http://{}", taken.local_addr().unwrap());
    let place = Place::new();
    let dir = place.dir.path();
    certificate(dir, "a", "localhost", (2020, 2099));
    certificate(dir, "b", "localhost", (2020, 2099));
    fs::write(dir.join("file"), "x").unwrap();
    fs::write(dir.join("broken.yaml"), "name: [unclosed").unwrap();
    let leftover = dir.join("leftover/member/snap");
    fs::create_dir_all(&leftover).unwrap();
    fs::write(leftover.join("db"), "x").unwrap();
    let secure = ["--listen-client-urls", "https://127.0.0.1:0"];
    let with = |more: &[&'static str]| [&secure[..], more].concat();
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["--heartbeat-interval", "0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (
            vec!["--enable-distributed-tracing"],
            "--enable-distributed-tracing is not yet supported by Quorate",
        ),
        (vec!["--config-file", "none.yaml"], "open none.yaml: no such file or directory"),
        (vec!["--config-file", "broken.yaml"], "error converting YAML to JSON: yaml: "),
        (vec!["--name", "other"], "couldn't find local name"),
        (vec!["--listen-client-urls", &taken], "bind: address already in use"),
        (vec!["--listen-metrics-urls", "http://192.0.2.1:999"], "bind: cannot assign requested address"),
        (
            vec!["--listen-client-urls", "unix:///nonexistent/x"],
            "listen unix /nonexistent/x: bind: no such file",
        ),
        (vec!["--log-outputs", "nowhere/etcd.log"], "open sink \"nowhere/etcd.log\""),
        (
            with(&[]),
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:0",
        ),
        (with(&["--cert-file", "a.crt", "--key-file", "none"]), "open none: no such file or directory"),
        (
            with(&["--cert-file", "a.crt", "--key-file", "b.key"]),
            "tls: private key does not match public key",
        ),
        (with(&["--auto-tls", "--self-signed-cert-validity", "0"]), "selfSignedCertValidity is invalid"),
        (vec!["--data-dir", "file"], "readdirent file: not a directory"),
        (
            vec!["--data-dir", "leftover"],
            "leftover/member/snap holds a database, but leftover/member/wal holds no log",
        ),
    ];
    for (args, text) in cases {
        let found = check(&place, &args);
        assert_eq!(found.code, Some(1), "{args:?}: {}", found.out);
        let wrong = |line: &str| line.starts_with("wrong ") && line.contains(text);
        assert!(found.out.lines().any(wrong), "{args:?}: {}", found.out);
        assert!(found.out.ends_with("etcd would not start: 1 thing is wrong\n"), "{args:?}: {}", found.out);

        let refused = place.refused(&args);
        let text = text.replace('"', "\\\"");
        assert!(refused.contains(&text), "{args:?}: {refused}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let place = Place::new();
    let url = "http://127.0.0.1:1";
    let found = check(
        &place,
        &[
            "--listen-client-urls=http://192.0.2.1:1",
            "--log-outputs=nowhere/log",
            "--name=other",
            &format!("--listen-peer-urls={url}"),
            &format!("--listen-metrics-urls={url}"),
        ],
    );
    assert_eq!(found.code, Some(1));
    assert!(found.out.ends_with("etcd would not start: 4 things are wrong\n"), "{}", found.out);
    assert!(
        found.out.contains("http://127.0.0.1:1 is the address of --listen-peer-urls too"),
        "{}",
        found.out
    );
}

/// They stop no start; but whoever asks wants to know.
#[test]
fn certificates_are_looked_at() {
    let place = Place::new();
    certificate(place.dir.path(), "old", "localhost", (2020, 2021));
    certificate(place.dir.path(), "good", "localhost", (2020, 2099));
    let of = |name: &str| {
        let args = [
            "--listen-client-urls=https://127.0.0.1:0".to_owned(),
            format!("--cert-file={name}.crt"),
            format!("--key-file={name}.key"),
            "--advertise-client-urls=https://elsewhere:2379".to_owned(),
        ];
        check(&place, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let old = of("old");
    assert_eq!(old.code, Some(0), "as in etcd: {}", old.out);
    assert!(old.out.contains("nobody will accept old.crt: x509: certificate has expired"), "{}", old.out);
    let good = of("good");
    assert!(good.out.contains(", for [localhost], until 2099-01-01T00:00:00Z\n"), "{}", good.out);
    assert!(good.out.contains("good.crt does not fit the advertised https://elsewhere:2379"), "{}", good.out);
}

#[test]
fn a_members_directory_is_read_and_left_as_it_is() {
    let place = Place::new();
    let mut server = place.serve(&[]);
    let running = check(&place, &[]);
    assert_eq!(running.code, Some(1), "{}", running.out);
    assert!(running.out.contains("wrong data-dir: "), "{}", running.out);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(server.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    server.child.wait().unwrap();

    let data = place.dir.path().join("data");
    let before = everything(&data);
    let found = check(&place, &["--initial-cluster-token", "another"]);
    assert_eq!(found.code, Some(0), "{}", found.out);
    assert!(found.out.contains("would go on as the member that is there"), "{}", found.out);
    assert!(found.out.contains("ok    data-dir: data/member/rev: revision 1, "), "{}", found.out);
    assert_eq!(everything(&data), before);

    let wal = fs::read_dir(data.join("member/wal")).unwrap().map(|file| file.unwrap().path());
    let segment = wal.filter(|file| file.extension().is_some_and(|ending| ending == "wal")).min().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[40] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let damaged = check(&place, &[]);
    assert_eq!(damaged.code, Some(1), "{}", damaged.out);
    assert!(
        damaged.out.contains(&format!(
            "wrong data-dir: wal segment {}",
            segment.strip_prefix(place.dir.path()).unwrap().display()
        )),
        "{}",
        damaged.out
    );
    let refused = place.refused(&[]);
    assert!(refused.contains("data/member/wal/"), "{refused}");
}

/// The flag counts beside a file, which says all else; the variable of its name does not.
#[test]
fn it_is_of_the_command_line_alone() {
    let place = Place::new();
    fs::write(
        place.dir.path().join("etcd.yaml"),
        "name: filed\ndata-dir: d\nlisten-client-urls: http://127.0.0.1:0\nlisten-peer-urls: http://127.0.0.1:0\n",
    )
    .unwrap();
    let found = run_in(place.dir.path(), &["--config-file", "etcd.yaml", "--check-config"]);
    assert_eq!(found.code, Some(0), "{}{}", found.out, found.err);
    assert!(found.out.contains("ok    settings: of the file etcd.yaml"), "{}", found.out);
    assert!(found.out.contains(" as the member filed ("), "{}", found.out);

    let started = run(&["--heartbeat-interval=0"], &[("ETCD_CHECK_CONFIG", "true")]);
    assert!(started.err.contains("failed to verify flags"), "{}", started.err);
    assert!(started.err.contains(r#""environment-variable":"ETCD_CHECK_CONFIG=true""#), "{}", started.err);
}
