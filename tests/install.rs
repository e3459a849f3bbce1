//! `docs/operating/install.md`, followed: every command of the page, in its order, for three machines on one.
//!
//! What one machine can't have is replaced in the text ([`Machine::here`]): addresses and ports, folders of the system, the
//! user and group `etcd`. `sudo`, `useradd`, `systemctl`, `journalctl` and the build are programs of this test in front of
//! the path; what systemd would start is started from the unit, with its variables, its limits aside, and told its socket.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use blackbox::{PATIENCE, binary};

const PAGE: &str = include_str!("../docs/operating/install.md");

/// Where a block of commands is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// On one machine, once.
    Once,
    /// The other way to do what the one before does.
    Instead,
    /// On each machine.
    Each,
    /// On the first machine.
    First,
    /// Where a client is.
    Client,
    /// By the reader, when something is wrong.
    Probe,
}

/// Every block of commands of the page, by a text in it.
const BLOCKS: &[(&str, Where)] = &[
    ("cargo build --release --workspace", Where::Each),
    ("openssl req -x509", Where::Once),
    ("cfssl gencert -initca", Where::Instead),
    ("sudo install -m 640 -g etcd ca.crt", Where::Each),
    ("sudo tee /etc/etcd/etcd.env", Where::Each),
    ("/usr/local/bin/etcd --check-config", Where::Each),
    ("sudo systemctl enable --now etcd", Where::Each),
    ("etcdctl put name john", Where::Client),
    ("sudo systemctl kill --signal=SIGKILL etcd", Where::First),
    ("etcdctl put name jane", Where::Client),
    ("etcdctl endpoint health", Where::Client),
    ("curl -fsS", Where::Probe),
];

/// The blocks of this language, in order.
fn blocks(language: &str) -> Vec<&'static str> {
    let begins = format!("```{language}\n");
    PAGE.split(&begins).skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

/// A folder that stands for a machine.
struct Machine {
    number: usize,
    root: PathBuf,
    /// Ports of clients, peers and metrics, of each machine.
    ports: Vec<[u16; 3]>,
    running: Option<Child>,
}

impl Machine {
    /// The page's commands as they are for this machine.
    fn here(&self, commands: &str) -> String {
        let place = |path: &str| format!("{}{path}", self.root.display());
        let [client, peer, metrics] = self.ports[self.number - 1];
        let mut replaced = vec![
            (" -o etcd -g etcd".to_owned(), String::new()),
            (" -g etcd".to_owned(), String::new()),
            ("NAME=peer-1\n".to_owned(), format!("NAME=peer-{}\n", self.number)),
            ("https://0.0.0.0:2379".to_owned(), format!("https://127.0.0.1:{client}")),
            ("https://0.0.0.0:2380".to_owned(), format!("https://127.0.0.1:{peer}")),
            ("https://$NAME:2379".to_owned(), format!("https://localhost:{client}")),
            ("https://$NAME:2380".to_owned(), format!("https://localhost:{peer}")),
            ("http://127.0.0.1:2381".to_owned(), format!("http://127.0.0.1:{metrics}")),
        ];
        for (number, [client, peer, _]) in (1..).zip(&self.ports) {
            replaced.push((format!("https://peer-{number}:2379"), format!("https://localhost:{client}")));
            replaced.push((format!("https://peer-{number}:2380"), format!("https://localhost:{peer}")));
        }
        for folder in ["/usr/local/bin", "/etc/etcd", "/var/lib/etcd", "/etc/systemd/system"] {
            replaced.push((folder.to_owned(), place(folder)));
        }
        replaced.iter().fold(commands.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// What its systemd was asked for since this was asked last.
    fn asked_of_systemd(&self) -> Vec<String> {
        let path = self.root.join("systemctl");
        let asked = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(&path);
        asked.lines().map(str::to_owned).collect()
    }

    /// Starts what the unit says, as systemd would; waits until it has said that it is up.
    fn start(&mut self) -> Notify {
        let unit = fs::read_to_string(self.root.join("etc/systemd/system/etcd.service")).expect("a unit");
        let of = |key: &str| -> String {
            let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
            line.unwrap_or_else(|| panic!("no {key} in the unit")).to_owned()
        };
        assert_eq!((of("Type"), of("User")), ("notify".to_owned(), "etcd".to_owned()));
        let variables = fs::read_to_string(of("EnvironmentFile")).expect("its variables");
        let variables: BTreeMap<&str, &str> =
            variables.lines().map(|line| line.split_once('=').expect("NAME=value")).collect();
        let exec = of("ExecStart");
        let mut words = exec.split(' ');
        let notify = Notify::new(&self.root.join("notify"));
        let log = File::options().append(true).create(true).open(self.root.join("journal")).expect("a log");
        let child = Command::new(words.next().expect("a program"))
            .args(words)
            .env_clear()
            .envs(variables)
            .env("NOTIFY_SOCKET", &notify.path)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn();
        self.running = Some(child.expect("it starts"));
        notify
    }

    fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
    }

    fn journal(&self) -> String {
        fs::read_to_string(self.root.join("journal")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// systemd's end of the socket that a service tells of itself by.
struct Notify {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Notify {
    fn new(path: &Path) -> Notify {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE * 4)).expect("a timeout");
        Notify { path: path.to_owned(), socket }
    }

    fn wait(&self, machine: &Machine) {
        let mut told = [0; 64];
        let length = self.socket.recv(&mut told);
        let length =
            length.unwrap_or_else(|error| panic!("not ready, {error}; its log:\n{}", machine.journal()));
        assert_eq!(&told[..length], b"READY=1");
    }
}

/// A run through the page.
struct Reader {
    dir: tempfile::TempDir,
    machines: Vec<Machine>,
    /// What the reader's shell has exported.
    exported: String,
}

impl Reader {
    fn new() -> Reader {
        let dir = tempfile::tempdir().expect("a folder");
        let shims = dir.path().join("shims");
        fs::create_dir(&shims).expect("a folder");
        for (name, script) in [
            ("sudo", "exec \"$@\""),
            ("cargo", "test -x target/release/etcd"),
            ("useradd", "test \"$1\" = --system"),
            ("systemctl", "echo \"$@\" >> \"$MACHINE/systemctl\""),
            ("journalctl", "cat \"$MACHINE/journal\" 2>/dev/null || true"),
        ] {
            let path = shims.join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        // What the build makes.
        let release = dir.path().join("desk/target/release");
        fs::create_dir_all(&release).expect("a folder");
        for name in ["etcd", "etcdctl", "etcdutl"] {
            std::os::unix::fs::symlink(binary(name), release.join(name)).expect("a link");
        }
        let held: Vec<[TcpListener; 3]> =
            (0..3).map(|_| [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"))).collect();
        let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
        let ports: Vec<[u16; 3]> = held.iter().map(|three| [0, 1, 2].map(|at| port(&three[at]))).collect();
        let machines = (1..=3).map(|number| {
            let root = dir.path().join(format!("machine-{number}"));
            for folder in ["usr/local/bin", "var/lib", "etc/systemd/system"] {
                fs::create_dir_all(root.join(folder)).expect("a folder");
            }
            Machine { number, root, ports: ports.clone(), running: None }
        });
        let machines = machines.collect();
        Reader { dir, machines, exported: String::new() }
    }

    /// Runs commands as this machine has them; what they print.
    fn run(&self, machine: usize, commands: &str) -> String {
        let machine = &self.machines[machine];
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = machine.root.join("usr/local/bin");
        let ended = Command::new("sh")
            .args(["-e", "-c", &format!("{}{}", self.exported, machine.here(commands))])
            .current_dir(self.dir.path().join("desk"))
            .env("PATH", format!("{}:{}:{path}", self.dir.path().join("shims").display(), bin.display()))
            .env("MACHINE", &machine.root)
            .output()
            .expect("sh runs");
        let out = String::from_utf8_lossy(&ended.stdout).into_owned();
        let err = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{commands}\n{out}{err}\n{}", machine.journal());
        out
    }

    /// Runs commands of a client, whose exports stay.
    fn run_as_client(&mut self, commands: &str) -> String {
        let out = self.run(0, commands);
        let exports = commands.lines().filter(|line| line.starts_with("export "));
        let exports = exports.map(|line| self.machines[0].here(line) + "\n").collect::<String>();
        self.exported.push_str(&exports);
        out
    }

    /// Writes the unit to where the page says, and has systemd's own program look at it, if it is there.
    fn write_units(&self) {
        let [unit] = blocks("ini").try_into().expect("one unit on the page");
        assert!(PAGE.contains("`/etc/systemd/system/etcd.service`:\n\n```ini\n"), "and its place before it");
        for machine in &self.machines {
            let path = machine.root.join("etc/systemd/system/etcd.service");
            fs::write(&path, machine.here(unit)).expect("a unit");
            match Command::new("systemd-analyze").arg("verify").arg(&path).output() {
                Ok(looked) => {
                    let said = String::from_utf8_lossy(&looked.stderr).into_owned();
                    assert!(looked.status.success() && said.is_empty(), "systemd-analyze verify: {said}");
                }
                Err(_) => println!("not looked at by systemd-analyze, which is not here"),
            }
        }
    }

    /// What each machine's systemd is to do now, done.
    fn obey(&mut self) {
        let mut starting = Vec::new();
        for machine in &mut self.machines {
            for asked in machine.asked_of_systemd() {
                match asked.as_str() {
                    "daemon-reload" => {}
                    "enable --now etcd" => starting.push((machine.start(), machine.number)),
                    "kill --signal=SIGKILL etcd" => machine.kill(),
                    other => panic!("systemctl {other}"),
                }
            }
        }
        // The first waits for a second one.
        for (notify, number) in starting {
            notify.wait(&self.machines[number - 1]);
        }
    }
}

/// The page with one way to make certificates.
fn follow(certificates: Where) {
    let commands = blocks("sh");
    let known = commands.iter().zip(BLOCKS).filter(|(block, (text, _))| block.contains(text)).count();
    assert_eq!(
        (known, commands.len()),
        (BLOCKS.len(), BLOCKS.len()),
        "each block of the page has its line here"
    );
    let mut reader = Reader::new();
    let mut told = BTreeMap::new();
    for (block, (text, place)) in commands.iter().zip(BLOCKS) {
        if *text == "sudo systemctl enable --now etcd" {
            reader.write_units();
        }
        let out = match place {
            Where::Once | Where::Instead if *place != certificates => continue,
            Where::Once | Where::Instead | Where::First => reader.run(0, block),
            Where::Each => (0..3).map(|machine| reader.run(machine, block)).collect(),
            Where::Client => reader.run_as_client(block),
            Where::Probe => {
                let [.., metrics] = reader.machines[0].ports[0];
                assert!(block.contains("http://127.0.0.1:2381/readyz?verbose"), "{block}");
                probe(metrics, "/readyz?verbose")
            }
        };
        reader.obey();
        if *place == Where::First {
            // A read that needs a leader is answered once there is one again.
            let [.., metrics] = reader.machines[1].ports[1];
            let began = std::time::Instant::now();
            while !probe(metrics, "/readyz/linearizable_read").starts_with("HTTP/1.1 200 ") {
                assert!(
                    began.elapsed() < PATIENCE,
                    "nobody leads; the log:\n{}",
                    reader.machines[1].journal()
                );
            }
        }
        if *text == "etcdctl put name jane" {
            // Five seconds are over.
            let notify = reader.machines[0].start();
            notify.wait(&reader.machines[0]);
        }
        told.insert(*text, out);
    }
    assert_eq!(told["/usr/local/bin/etcd --check-config"].matches("\netcd would start\n").count(), 3);
    assert!(told["etcdctl put name john"].starts_with("OK\nname\njohn\n"), "{told:?}");
    assert!(told["etcdctl put name jane"].starts_with("OK\nname\njane\n"), "{told:?}");
    let health = &told["etcdctl endpoint health"];
    assert_eq!(health.matches(" is healthy: ").count(), 3, "{health}");
    assert!(told["curl -fsS"].starts_with("HTTP/1.1 200 "), "{told:?}");
    assert!(told["curl -fsS"].contains("[+]serializable_read ok\n"), "{told:?}");

    let mode = |path: &str| {
        let found = fs::metadata(reader.machines[0].root.join(path)).expect("it is there");
        found.permissions().mode() & 0o777
    };
    assert_eq!(
        (mode("var/lib/etcd"), mode("etc/etcd/tls"), mode("etc/etcd/tls/member.key")),
        (0o700, 0o750, 0o640)
    );
}

/// A whole answer.
fn probe(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok()
}

#[test]
fn the_page_leads_to_three_members_that_survive_a_kill() {
    if !is_there("openssl") {
        println!("not followed: openssl is not here; .ci/run sees to it");
        return;
    }
    follow(Where::Once);
}

/// The same with cfssl, where it is to be had.
#[test]
fn the_page_leads_there_with_cfssl_too() {
    if !is_there("cfssl") || !is_there("cfssljson") {
        println!("not followed: cfssl is not here");
        return;
    }
    follow(Where::Instead);
}
