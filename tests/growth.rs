//! A cluster that grows as kubeadm lets it: with the flags of its static pod's manifest, each new member is added as a
//! learner, started, and made a voter as soon as it is level.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use blackbox::{PATIENCE, binary};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;

/// How soon kubeadm tries again.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The folder `pki/etcd` of a node: one authority, and certificates of each name.
struct Certificates {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Certificates {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "etcd-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = params.self_signed(&key).expect("a certificate");
        std::fs::write(dir.path().join("ca.crt"), made.pem()).expect("a file");
        let issuer = Issuer::new(params, key);
        let certificates = Certificates { dir, issuer };
        for name in ["server", "peer", "healthcheck-client"] {
            certificates.issue(name);
        }
        certificates
    }

    fn issue(&self, name: &str) {
        let sans = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(sans).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.path(&format!("{name}.crt")), made.pem()).expect("a file");
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("a file");
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn flag(&self, name: &str, file: &str) -> String {
        format!("--{name}={}", self.path(file).display())
    }
}

/// One node: its place on the loopback address, and its member while that runs.
struct Node {
    name: String,
    client: u16,
    peer: u16,
    metrics: u16,
    dir: tempfile::TempDir,
    running: Option<(Child, JoinHandle<()>)>,
}

impl Node {
    fn new(name: &str) -> Node {
        let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [client, peer, metrics] = held.map(|listener| listener.local_addr().expect("an address").port());
        let dir = tempfile::tempdir().expect("a temporary directory");
        Node { name: name.to_owned(), client, peer, metrics, dir, running: None }
    }

    fn client_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.client)
    }

    fn peer_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.peer)
    }

    /// Starts the static pod. `joins`: with `--initial-cluster-state=existing`.
    fn start(&mut self, certificates: &Certificates, initial_cluster: &str, joins: bool) {
        let mut command = Command::new(binary("etcd"));
        command.arg(format!("--advertise-client-urls={}", self.client_url()));
        command.arg(certificates.flag("cert-file", "server.crt"));
        command.arg("--client-cert-auth=true");
        command.arg("--feature-gates=InitialCorruptCheck=true");
        command.arg(format!("--data-dir={}", self.dir.path().join("etcd").display()));
        command.arg(format!("--initial-advertise-peer-urls={}", self.peer_url()));
        command.arg(format!("--initial-cluster={initial_cluster}"));
        if joins {
            command.arg("--initial-cluster-state=existing");
        }
        command.arg(certificates.flag("key-file", "server.key"));
        command.arg(format!("--listen-client-urls={}", self.client_url()));
        command.arg(format!("--listen-metrics-urls=http://127.0.0.1:{}", self.metrics));
        command.arg(format!("--listen-peer-urls={}", self.peer_url()));
        command.arg(format!("--name={}", self.name));
        command.arg(certificates.flag("peer-cert-file", "peer.crt"));
        command.arg("--peer-client-cert-auth=true");
        command.arg(certificates.flag("peer-key-file", "peer.key"));
        command.arg(certificates.flag("peer-trusted-ca-file", "ca.crt"));
        command.arg("--snapshot-count=10000");
        command.arg(certificates.flag("trusted-ca-file", "ca.crt"));
        command.arg("--watch-progress-notify-interval=5s");
        let ready = self.run(command);
        ready.recv_timeout(PATIENCE).expect("it becomes ready");
    }

    /// Tells when it is ready.
    fn run(&mut self, mut command: Command) -> Receiver<()> {
        let mut process = command.stderr(Stdio::piped()).spawn().expect("etcd starts");
        let stderr = process.stderr.take().expect("its standard error");
        let (ready, wait) = std::sync::mpsc::channel();
        let reading = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("ready to serve client requests") {
                    let _ = ready.send(());
                }
                // Shown where the test fails.
                println!("{line}");
            }
        });
        self.running = Some((process, reading));
        wait
    }

    fn etcdctl(&self, certificates: &Certificates, args: &[&str]) -> Output {
        let mut command = Command::new(binary("etcdctl"));
        command.arg(format!("--endpoints={}", self.client_url()));
        command.arg(certificates.flag("cacert", "ca.crt"));
        command.arg(certificates.flag("cert", "healthcheck-client.crt"));
        command.arg(certificates.flag("key", "healthcheck-client.key"));
        command.args(args).stdin(Stdio::null()).output().expect("etcdctl runs")
    }

    /// What a command that succeeds prints as JSON.
    fn json(&self, certificates: &Certificates, args: &[&str]) -> Value {
        let done = self.etcdctl(certificates, &[args, &["-w", "json"]].concat());
        assert!(done.status.success(), "{args:?}: {done:?}");
        serde_json::from_slice(&done.stdout).expect("JSON")
    }

    /// The probe of the static pod.
    fn probe(&self, path: &str) -> String {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.metrics)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((mut process, reading)) = self.running.take() {
            let _ = process.kill();
            let _ = process.wait();
            let _ = reading.join();
        }
    }
}

/// Tries again and again, as kubeadm does.
fn retry<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(RETRY_INTERVAL);
    }
}

#[test]
fn kubeadm_adds_control_planes() {
    let certificates = Certificates::new();
    let mut first = Node::new("control-plane-1");
    let alone = format!("{}={}", first.name, first.peer_url());
    first.start(&certificates, &alone, false);
    for n in 0..10 {
        let done = first.etcdctl(&certificates, &["put", &format!("/registry/{n}"), "v"]);
        assert!(done.status.success(), "{done:?}");
    }
    let mut nodes = vec![first];
    for number in 2..=3 {
        let mut node = Node::new(&format!("control-plane-{number}"));
        let urls = format!("--peer-urls={}", node.peer_url());
        // Refused as long as the one before has not been connected for a while; whatever it is, kubeadm tries again.
        let add = ["member", "add", &node.name, &urls, "--learner", "-w", "json"];
        let done = retry("it is never added", || {
            let done = nodes[0].etcdctl(&certificates, &add);
            let why = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success() || why.contains("etcdserver: unhealthy cluster"), "{why}");
            done.status.success().then_some(done)
        });
        let added: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        let id = added["member"]["ID"].as_u64().expect("an id");
        // As kubeadm makes it: of the members as they are told, the new one by its node's name.
        let members = added["members"].as_array().expect("members");
        let pairs = members.iter().map(|member| {
            let name = member["name"].as_str().filter(|name| !name.is_empty()).unwrap_or(&node.name);
            format!("{name}={}", member["peerURLs"][0].as_str().expect("a URL"))
        });
        let initial_cluster = pairs.collect::<Vec<_>>().join(",");
        assert_eq!(initial_cluster.split(',').count(), number);

        // It is not level before it has started.
        let refused = nodes[0].etcdctl(&certificates, &["member", "promote", &format!("{id:x}")]);
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success());
        assert!(why.contains("can only promote a learner member which is in sync with leader"), "{why}");
        node.start(&certificates, &initial_cluster, true);
        retry("it is never level", || {
            let done = nodes[0].etcdctl(&certificates, &["member", "promote", &format!("{id:x}")]);
            let why = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success() || why.contains("in sync with leader"), "{why}");
            done.status.success().then_some(())
        });
        nodes.push(node);
        // Then it waits until each endpoint tells its status, and takes the list of members for its own.
        for node in &nodes {
            let status = node.json(&certificates, &["endpoint", "status"]);
            assert_ne!(status[0]["Status"]["leader"].as_u64(), Some(0), "{status}");
            let list = node.json(&certificates, &["member", "list"]);
            let members = list["members"].as_array().expect("members");
            assert_eq!(members.len(), number, "{list}");
            assert!(members.iter().all(|member| member["isLearner"].as_bool() != Some(true)), "{list}");
            assert!(members.iter().all(|member| member["clientURLs"].is_array()), "all have started: {list}");
        }
    }
    // Each of them serves, and is well by the manifest's probes: startup and readiness, and liveness.
    for node in &nodes {
        let done = node.etcdctl(&certificates, &["get", "/registry/9", "--print-value-only"]);
        assert_eq!(String::from_utf8_lossy(&done.stdout), "v\n", "{done:?}");
        for probe in ["/readyz", "/livez"] {
            let answer = node.probe(probe);
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{probe}: {answer}");
        }
    }
    // Two of three go on without the first.
    drop(nodes.remove(0));
    retry("nobody leads", || {
        nodes[0].etcdctl(&certificates, &["put", "/registry/after", "v"]).status.success().then_some(())
    });
}
