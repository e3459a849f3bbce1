//! Starts our `etcd` as a process on free ports of the loopback address, and runs our tools against it.
//!
//! Nothing here knows how the server is built; tests speak to it through its ports, its files and its exit.

mod disk;
mod network;
mod random;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use client::{Client, Config, Credentials, Deadline};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wire::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest};

pub use disk::SlowDisk;
pub use network::Network;
pub use random::Random;

/// Longest wait for an answer; only a hang takes that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Lines about what took long: how fast a machine is says nothing about what is right.
const OF_THE_MACHINE: [&str; 2] = ["apply request took too long", r#""msg":"request stats""#];

/// A watch of every key from a revision on.
pub fn everything_since(start_revision: i64) -> WatchCreateRequest {
    let all = b"\0".as_slice();
    WatchCreateRequest {
        key: all.into(),
        range_end: all.into(),
        start_revision,
        ..WatchCreateRequest::default()
    }
}

/// The path of one of our binaries, built if need be.
///
/// # Panics
/// If it does not build.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let folder = test.ancestors().nth(2).expect("target/PROFILE/deps/test").to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "quorate-server", "-p", "quorate-cli"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the root"));
        assert!(build.status().expect("cargo runs").success(), "the binaries do not build");
        folder
    });
    folder.join(name)
}

/// One member: its directory, its ports, and its process while it runs.
pub struct Member {
    program: PathBuf,
    /// Whether a warning in its log that nobody has announced is a failure.
    is_judged: bool,
    name: String,
    /// As the flag has it.
    initial_cluster: String,
    dir: tempfile::TempDir,
    ports: (u16, u16),
    /// Where its peers reach it, if that is not where it listens.
    advertised: Option<u16>,
    flags: Vec<String>,
    /// What its clients carry.
    token: Option<String>,
    process: Option<(Child, JoinHandle<()>)>,
    announced: Vec<&'static str>,
    /// What the logs of its ended runs have that is worse than a warning.
    errors: Vec<String>,
}

impl Member {
    /// A member that is not started yet, with extra flags.
    ///
    /// # Panics
    /// Without free ports or a temporary directory.
    pub fn new(flags: &[&str]) -> Self {
        Member::of(&binary("etcd"), flags)
    }

    /// As [`Member::new`], run by another program: a real etcd.
    ///
    /// # Panics
    /// Without free ports or a temporary directory.
    pub fn of(program: &Path, flags: &[&str]) -> Self {
        let (client, peer) = (free_port(), free_port());
        Member {
            // Another program's log is its own business.
            is_judged: program == binary("etcd"),
            program: program.to_owned(),
            name: "m".to_owned(),
            initial_cluster: format!("m=http://127.0.0.1:{peer}"),
            dir: tempfile::tempdir().expect("a temporary directory"),
            ports: (client, peer),
            advertised: None,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            token: None,
            process: None,
            announced: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// The same member, to be run by another program on a directory of its own, while this one does not run.
    ///
    /// # Panics
    /// Without a temporary directory.
    pub fn run_by(&self, program: &Path) -> Self {
        let mut member = Member::of(program, &[]);
        member.ports = self.ports;
        member
    }

    /// From its next start on it is run by this program, on the same directory.
    pub fn set_program(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    /// More flags, from its next start on.
    pub fn add_flags(&mut self, flags: &[&str]) {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    }

    /// Its name, as its cluster has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lines of its logs that are worse than a warning, and a Go program's last words, of all its runs.
    ///
    /// # Panics
    /// If the log cannot be read.
    pub fn errors(&self) -> Vec<String> {
        let mut errors = self.errors.clone();
        if self.is_running() {
            errors.extend(errors_in(&self.log()));
        }
        errors
    }

    /// A member that is ready to serve.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start(flags: &[&str]) -> Self {
        let mut member = Member::new(flags);
        member.restart();
        member
    }

    /// Says that its log may hold warnings or errors with this text. Any other of ours fails the test when the run ends.
    pub fn announce(&mut self, text: &'static str) {
        self.announced.push(text);
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where clients reach it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.0)
    }

    /// Where its peers reach it.
    pub fn peer_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.advertised.unwrap_or(self.ports.1))
    }

    /// Moves a member that does not run: from its next start on its peers reach it at another port, whose URL is returned.
    ///
    /// # Panics
    /// Without a free port.
    pub fn move_peer(&mut self) -> String {
        let before = self.peer_endpoint();
        self.ports.1 = free_port();
        let url = self.peer_endpoint();
        self.initial_cluster = self.initial_cluster.replace(&before, &url);
        url
    }

    /// Everything that it has logged in its last run.
    ///
    /// # Panics
    /// If the log cannot be read.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).expect("a log")
    }

    /// The command that starts it, its log not redirected.
    pub fn command(&self) -> Command {
        let (client, peer) = (self.endpoint(), self.peer_endpoint());
        let mut command = Command::new(&self.program);
        command.args(["--name", &self.name, "--data-dir"]).arg(self.data_dir());
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &format!("http://127.0.0.1:{}", self.ports.1)]);
        command.args(["--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &self.initial_cluster]).args(&self.flags);
        command
    }

    /// Starts it, killing it first if it runs, and waits for its line "ready to serve client requests".
    ///
    /// # Panics
    /// If it ends instead.
    pub fn restart(&mut self) {
        let ready = self.spawn();
        self.wait_until_ready(&ready);
    }

    /// Waits for what [`Member::spawn`] tells.
    fn wait_until_ready(&self, ready: &Receiver<()>) {
        ready
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("not ready; its log:\n{}", ends_of(&self.log())));
    }

    /// Starts it, killing it first if it runs; tells when it is ready.
    fn spawn(&mut self) -> Receiver<()> {
        self.kill();
        let path = self.dir.path().join("log");
        let mut process = self.command().stderr(Stdio::piped()).spawn().expect("etcd starts");
        let stderr = process.stderr.take().expect("its standard error");
        let (ready, wait) = std::sync::mpsc::channel();
        let copy = std::thread::spawn(move || {
            let mut log = File::create(path).expect("a log file");
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = writeln!(log, "{line}");
                if line.contains("ready to serve client requests") {
                    let _ = ready.send(());
                }
            }
        });
        self.process = Some((process, copy));
        wait
    }

    /// Whether it was started and nobody has ended it.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> Pid {
        let (process, _) = self.process.as_ref().expect("it runs");
        Pid::from_raw(i32::try_from(process.id()).expect("a process id"))
    }

    /// Lets each sync of its disk take so much longer, or for ever without a `delay`, as long as the answer is kept.
    ///
    /// # Panics
    /// If it does not run, or its threads cannot be traced.
    pub fn slow_disk(&self, delay: Option<Duration>) -> SlowDisk {
        SlowDisk::start(self.pid(), delay)
    }

    /// Ends it with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// If its log holds a warning or an error that was not announced.
    pub fn kill(&mut self) {
        if let Some((process, _)) = &mut self.process {
            let _ = process.kill();
        }
        self.wait();
    }

    /// Waits until it ends by itself; says how it ended.
    ///
    /// # Panics
    /// If it does not run, or its log holds a warning or an error that was not announced.
    pub fn end(&mut self) -> ExitStatus {
        self.wait().expect("it runs")
    }

    /// Ends it with SIGTERM and waits; says how it ended.
    ///
    /// # Panics
    /// If it does not run, or its log holds a warning or an error that was not announced.
    pub fn terminate(&mut self) -> ExitStatus {
        kill(self.pid(), Signal::SIGTERM).expect("it can be signalled");
        self.wait().expect("it runs")
    }

    /// Waits for its end and judges its log.
    fn wait(&mut self) -> Option<ExitStatus> {
        let (mut process, copy) = self.process.take()?;
        let status = process.wait().expect("it ends");
        copy.join().expect("its log is read");
        let log = self.log();
        self.errors.extend(errors_in(&log));
        let serious =
            |line: &&str| !line.contains("\"level\":\"info\"") && !line.contains("\"level\":\"debug\"");
        let announced =
            |line: &&str| self.announced.iter().chain(&OF_THE_MACHINE).any(|text| line.contains(text));
        let unannounced: Vec<&str> = log.lines().filter(serious).filter(|line| !announced(line)).collect();
        // One failure a test is enough.
        if self.is_judged && !std::thread::panicking() {
            assert!(unannounced.is_empty(), "not announced:\n{}", unannounced.join("\n"));
        }
        Some(status)
    }

    /// A client of it, with the token that was given by [`Cluster::set_token`].
    ///
    /// # Panics
    /// Never: the endpoint is well-formed.
    pub fn client(&self) -> Client {
        self.client_with(self.token.as_deref())
    }

    /// A client of it, with this token or none.
    ///
    /// # Panics
    /// For a token that cannot be sent.
    pub fn client_with(&self, token: Option<&str>) -> Client {
        client_of(&[self.endpoint()], token)
    }

    /// The body of what it answers to a plain HTTP GET on its client port.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn http_get(&self, path: &str) -> String {
        self.http_get_at(self.ports.0, path, "")
    }

    /// The body of what it answers to a plain HTTP GET on its peer port, with a body.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn peer_get(&self, path: &str, body: &str) -> String {
        self.http_get_at(self.ports.1, path, body)
    }

    fn http_get_at(&self, port: u16, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let length = body.len();
        let head = format!("GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Length: {length}");
        write!(stream, "{head}\r\n\r\n{body}").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
    }

    /// Runs our etcdctl against it, with nothing on its standard input.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn etcdctl(&self, args: &[&str]) -> Output {
        self.etcdctl_reading("", args)
    }

    /// Runs our etcdctl against it, with this on its standard input.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn etcdctl_reading(&self, input: &str, args: &[&str]) -> Output {
        let mut command = Command::new(binary("etcdctl"));
        command.args(["--endpoints", &self.endpoint()]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = command.spawn().expect("etcdctl runs");
        // What is refused by name ends without reading.
        let _ = running.stdin.take().expect("its standard input").write_all(input.as_bytes());
        running.wait_with_output().expect("etcdctl ends")
    }
}

/// A client of these endpoints, tried in their order, with this token or none.
///
/// # Panics
/// If there is no endpoint, one is not well-formed, or the token cannot be sent.
pub fn client_of(endpoints: &[String], token: Option<&str>) -> Client {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse().expect("an endpoint"));
    let credentials = token.map(|token| Credentials::Token(token.to_owned()));
    Client::new(Config { credentials, ..Config::new(endpoints.collect()) }).expect("an endpoint, and a token")
}

/// Members of one cluster. In their logs warnings are expected: others come and go.
pub struct Cluster {
    /// In the order in which they came.
    pub members: Vec<Member>,
    flags: Vec<String>,
    token: Option<String>,
}

impl Cluster {
    /// So many members that are about to begin a cluster.
    ///
    /// # Panics
    /// Without free ports or temporary directories.
    pub fn new(count: usize, flags: &[&str]) -> Self {
        Cluster::of(&vec![binary("etcd"); count], flags)
    }

    /// As [`Cluster::new`], each member run by the program at its place.
    ///
    /// # Panics
    /// Without free ports or temporary directories.
    pub fn of(programs: &[PathBuf], flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut cluster = Cluster { members: Vec::new(), flags, token: None };
        for program in programs {
            cluster.add(program);
        }
        let initial = cluster.initial();
        cluster.members.iter_mut().for_each(|member| member.initial_cluster.clone_from(&initial));
        cluster
    }

    /// As [`Cluster::start`], with a network that can be cut.
    ///
    /// # Panics
    /// If a member does not become ready.
    pub fn with_network(count: usize, flags: &[&str]) -> (Self, Network) {
        let mut cluster = Cluster::new(count, flags);
        let network = cluster.start_with_network();
        (cluster, network)
    }

    /// Puts a network between the members, of which none has been started yet, and starts all.
    ///
    /// # Panics
    /// If a member does not become ready.
    pub fn start_with_network(&mut self) -> Network {
        let mut ports = Vec::new();
        for member in &mut self.members {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            member.advertised = Some(listener.local_addr().expect("an address").port());
            ports.push((listener, member.ports.1));
        }
        let network = Network::start(ports);
        let initial = self.initial();
        self.members.iter_mut().for_each(|member| member.initial_cluster.clone_from(&initial));
        let all: Vec<usize> = (0..self.members.len()).collect();
        self.restart(&all);
        run(async {
            for place in all {
                network.name(self.id(place).await, place);
            }
        });
        network
    }

    fn add(&mut self, program: &Path) -> &mut Member {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let mut member = Member::of(program, &flags);
        member.is_judged = false;
        member.token.clone_from(&self.token);
        member.name = format!("m{}", self.members.len());
        self.members.push(member);
        self.members.last_mut().expect("it was added")
    }

    /// More flags of all members, those to come too, from their next start on.
    pub fn add_flags(&mut self, flags: &[&str]) {
        self.members.iter_mut().for_each(|member| member.add_flags(flags));
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    }

    /// Clients of the members carry this token from now on, those of members to come too.
    pub fn set_token(&mut self, token: Option<String>) {
        self.members.iter_mut().for_each(|member| member.token.clone_from(&token));
        self.token = token;
    }

    /// The token that clients of the members carry.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    fn initial(&self) -> String {
        let pairs = self.members.iter().map(|member| format!("{}={}", member.name, member.peer_endpoint()));
        pairs.collect::<Vec<_>>().join(",")
    }

    /// A cluster of so many members, all of which are ready to serve.
    ///
    /// # Panics
    /// If one does not become ready.
    pub fn start(count: usize, flags: &[&str]) -> Self {
        let mut cluster = Cluster::new(count, flags);
        let all: Vec<usize> = (0..count).collect();
        cluster.restart(&all);
        cluster
    }

    /// Starts members together, and waits until they are ready.
    ///
    /// # Panics
    /// If one does not become ready.
    pub fn restart(&mut self, members: &[usize]) {
        let ready: Vec<_> = members.iter().map(|member| self.members[*member].spawn()).collect();
        for (member, ready) in members.iter().zip(ready) {
            self.members[*member].wait_until_ready(&ready);
        }
    }

    /// One more member, to be started when the cluster has been told of it: it joins.
    ///
    /// # Panics
    /// Without a free port or a temporary directory.
    pub fn joining(&mut self) -> usize {
        self.joining_by(&binary("etcd"))
    }

    /// As [`Cluster::joining`], run by this program.
    ///
    /// # Panics
    /// Without a free port or a temporary directory.
    pub fn joining_by(&mut self, program: &Path) -> usize {
        self.add(program);
        let place = self.members.len() - 1;
        self.join_at(place);
        place
    }

    /// Another member in the stead of one that was removed and has ended: run by this program, on the same ports, with
    /// nothing. To be started when the cluster has been told of it.
    ///
    /// # Panics
    /// If the directory of the one before cannot be removed.
    pub fn replace(&mut self, place: usize, program: &Path) {
        let member = &mut self.members[place];
        assert!(!member.is_running(), "it has ended");
        std::fs::remove_dir_all(member.data_dir()).expect("it had a directory");
        member.set_program(program);
        self.join_at(place);
    }

    fn join_at(&mut self, place: usize) {
        let initial = self.initial();
        let member = &mut self.members[place];
        member.initial_cluster = initial;
        if !member.flags.iter().any(|flag| flag == "existing") {
            member.add_flags(&["--initial-cluster-state", "existing"]);
        }
    }

    /// Takes away the data of a member that does not run, which the cluster has been told of anew: it joins when it is started.
    ///
    /// # Panics
    /// If its data cannot be removed.
    pub fn forget(&mut self, place: usize) {
        let member = &mut self.members[place];
        std::fs::remove_dir_all(member.data_dir()).expect("its data");
        member.flags.extend(["--initial-cluster-state", "existing"].map(str::to_owned));
    }

    /// The places of those that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|place| self.members[*place].is_running()).collect()
    }

    /// The id of a member that runs.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn id(&self, place: usize) -> u64 {
        let status = self.members[place].client().status(patience()).await.expect("a status");
        status.header.expect("a header").member_id
    }

    /// Lets a member lead.
    ///
    /// # Panics
    /// If it never does.
    pub async fn let_lead(&self, place: usize) {
        let id = self.id(place).await;
        let deadline = patience();
        loop {
            let leader = self.leader().await;
            if leader == place {
                return;
            }
            // Another may lead by now, or this one be too far behind: then it is asked again.
            if let Err(error) = self.members[leader].client().move_leader(id, deadline).await {
                assert!(deadline.remaining().is_some_and(|left| !left.is_zero()), "{place} leads: {error}");
            }
        }
    }

    /// The place of the member that all who run take for the leader.
    ///
    /// # Panics
    /// If nobody leads.
    pub async fn leader(&self) -> usize {
        self.leader_among(&self.running()).await
    }

    /// As [`Cluster::leader`], where only some can be asked.
    ///
    /// # Panics
    /// If nobody of them leads.
    pub async fn leader_among(&self, places: &[usize]) -> usize {
        loop {
            let mut told = Vec::new();
            for place in places.iter().copied() {
                let client = self.members[place].client();
                // Answered once there is one.
                let read = RangeRequest { key: "k".into(), ..RangeRequest::default() };
                while client.range(read.clone(), patience()).await.is_err() {}
                let status = client.status(patience()).await.expect("a status");
                told.push((status.header.expect("a header").member_id, status.leader, place));
            }
            let leader = told[0].1;
            let found = told.iter().find(|(id, _, _)| *id == leader);
            if let Some((_, _, place)) = found
                && told.iter().all(|(_, known, _)| *known == leader)
            {
                return *place;
            }
        }
    }

    /// Puts by one member until that is answered as done, as a client would that may do it twice; its revision.
    ///
    /// # Panics
    /// If it never is.
    pub async fn put(&self, place: usize, key: &str, value: &str) -> i64 {
        let client = self.members[place].client();
        let put =
            PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
        let deadline = patience();
        loop {
            match client.put(put.clone(), deadline).await {
                Ok(answer) => return answer.header.expect("a header").revision,
                Err(error) => {
                    assert!(deadline.remaining().is_some_and(|left| !left.is_zero()), "put {key}: {error}");
                }
            }
        }
    }

    /// Waits until all members that run have all that is committed by now, and checks that their data is the same.
    ///
    /// # Panics
    /// If it is not.
    pub async fn check_hashes(&self) {
        self.check_hashes_among(&self.running()).await;
    }

    /// As [`Cluster::check_hashes`], of some members.
    ///
    /// A hash is of what lives since the last compaction, and a compaction may come by itself meanwhile: it waits until
    /// all have the same one.
    ///
    /// # Panics
    /// If it is not, if they never have the same compaction, or for none.
    pub async fn check_hashes_among(&self, places: &[usize]) {
        let deadline = patience();
        loop {
            let hashes = self.hashes(places).await;
            assert!(!hashes.is_empty(), "no member to ask");
            if hashes.iter().all(|(_, _, compacted)| *compacted == hashes[0].2) {
                assert!(hashes.iter().all(|hash| *hash == hashes[0]), "different data: {hashes:?}");
                return;
            }
            let left = deadline.remaining().is_none_or(|left| !left.is_zero());
            assert!(left, "compacted up to different revisions: {hashes:?}");
        }
    }

    /// Of each member, at the revision that the first one has: hash, its revision, and that of the last compaction.
    async fn hashes(&self, places: &[usize]) -> Vec<(u32, i64, i64)> {
        let mut hashes = Vec::new();
        let mut revision = 0;
        for place in places {
            let client = self.members[*place].client();
            let read = RangeRequest { key: "k".into(), ..RangeRequest::default() };
            let answer = client.range(read, patience()).await.expect("a linearizable read");
            // Nobody writes any more; the first one tells up to where.
            if revision == 0 {
                revision = answer.header.expect("a header").revision;
            }
            let hash = client.hash_kv(revision, patience()).await.expect("a hash");
            hashes.push((hash.hash, hash.hash_revision, hash.compact_revision));
        }
        hashes
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("QUORATE_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            println!("kept: {} ({}, {})", self.dir.path().display(), self.name, self.program.display());
        }
        self.kill();
    }
}

/// A port that nobody listens at. No two are the same: members of a cluster are made before any of them starts.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return port;
        }
    }
}

/// The last lines of a log, and of each its beginning.
fn ends_of(log: &str) -> String {
    const LINES: usize = 30;
    const CHARACTERS: usize = 400;
    let lines: Vec<&str> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    last.iter().map(|line| line.chars().take(CHARACTERS).chain(['\n']).collect::<String>()).collect()
}

/// Lines of a log that are worse than a warning, and all that is no line of a log.
pub fn errors_in(log: &str) -> Vec<String> {
    let bad = |line: &&str| {
        let is_line = line.starts_with('{');
        let level = line.split("\"level\":\"").nth(1).and_then(|rest| rest.split('"').next());
        !is_line || !matches!(level, Some("debug" | "info" | "warn"))
    };
    log.lines().filter(bad).map(str::to_owned).collect()
}

/// A deadline that only a hang reaches.
pub fn patience() -> Deadline {
    Deadline::after(PATIENCE)
}

/// Runs a future to its end on this thread.
///
/// # Panics
/// If no runtime can be made.
pub fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, future)
}
