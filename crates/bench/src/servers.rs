//! Servers that we start ourselves, of one member or several: fresh directories, free ports, and no process outlives us.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use prost::Message;
use wire::etcdserverpb::{StatusRequest, StatusResponse};

use crate::process::Observed;
use crate::protobuf::framed;
use crate::run::{Load, Target};
use crate::schedule::Stop;
use crate::station::Station;
use crate::workload::{Kind, Order, Shape, Workload};

/// Longest that a server may take to answer its first call.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest that it may take to end in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Of `MetadataExt::blocks`.
const BLOCK_BYTES: u64 = 512;
/// Between two attempts of the first call: the resolution of a restart's time.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(1);

/// Processes to kill when we are told to stop.
static RUNNING: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// One server, of one member or several; dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    binary: PathBuf,
    members: Vec<Member>,
    /// The place of the leader, as of the last time that it was asked for.
    leader: usize,
}

#[derive(Debug)]
struct Member {
    name: String,
    /// Holds its data directory and its output.
    dir: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// Starts `binary` as a new cluster of so many members below `dir`, and waits until each takes a put.
    ///
    /// # Errors
    /// When it can't be started, exits, or takes no put for two minutes.
    pub fn start(binary: &Path, dir: &Path, members: usize) -> anyhow::Result<Server> {
        let ports = free_ports(2 * members)?;
        let members = ports.chunks_exact(2).enumerate().map(|(place, ports)| Member {
            name: format!("bench-{place}"),
            dir: dir.join(format!("member-{place}")),
            client: ports[0],
            peer: ports[1],
            child: None,
        });
        let mut server = Server { binary: binary.to_owned(), members: members.collect(), leader: 0 };
        for member in &server.members {
            fs::create_dir_all(&member.dir).with_context(|| format!("create {}", member.dir.display()))?;
        }
        server.spawn_all()?;
        server.wait_for_all(Kind::Put, Instant::now())?;
        Ok(server)
    }

    /// Kills it (SIGKILL) and starts it again on the same directories; returns the time from the start of the
    /// processes until each has answered a linearizable range.
    ///
    /// # Errors
    /// As `start`.
    pub fn restart(&mut self) -> anyhow::Result<Duration> {
        self.members.iter_mut().for_each(Member::kill);
        let started = Instant::now();
        self.spawn_all()?;
        self.wait_for_all(Kind::Range, started)
    }

    /// Lets it end in order (SIGTERM), all members at once; `restart` starts it again.
    ///
    /// # Errors
    /// When a member is gone already, or does not end in time: it is killed then.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        for member in &self.members {
            let child = member.child.as_ref().context("server is not running")?;
            kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).context("stop the server")?;
        }
        self.members.iter_mut().try_for_each(|member| member.end(&self.binary))
    }

    /// Kills the leader (SIGKILL), and returns its place; `revive` starts it again.
    ///
    /// # Errors
    /// When there is no leader.
    pub fn kill_leader(&mut self) -> anyhow::Result<usize> {
        self.find_leader(Instant::now())?;
        self.members[self.leader].kill();
        Ok(self.leader)
    }

    /// Starts a killed member again, and waits until it takes a put.
    ///
    /// # Errors
    /// As `start`.
    pub fn revive(&mut self, place: usize) -> anyhow::Result<()> {
        let started = Instant::now();
        let cluster = self.cluster();
        let member = &mut self.members[place];
        member.spawn(&self.binary, &cluster)?;
        member.wait_for(&self.binary, Kind::Put, started)
    }

    /// Where clients reach the leader.
    pub fn client(&self) -> SocketAddr {
        self.members[self.leader].client
    }

    /// Where clients reach the other members.
    pub fn followers(&self) -> Vec<SocketAddr> {
        let others = self.members.iter().enumerate().filter(|(place, _)| *place != self.leader);
        others.map(|(_, member)| member.client).collect()
    }

    /// The processes of all members.
    ///
    /// # Errors
    /// When one is gone.
    pub fn observed(&self) -> anyhow::Result<Observed> {
        let pids = self.members.iter().map(|member| Some(member.child.as_ref()?.id()));
        Observed::all(pids.collect::<Option<_>>().context("server is not running")?)
    }

    /// Bytes of the leader's files on disk, without its write-ahead log.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn stored_bytes(&self) -> anyhow::Result<u64> {
        let member = self.members[self.leader].dir.join("data").join("member");
        let mut bytes = 0;
        for folder in fs::read_dir(&member).with_context(|| format!("read {}", member.display()))? {
            let folder = folder?;
            if folder.file_name() == "wal" || !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                // One that goes meanwhile counts for nothing.
                bytes += file?.metadata().map_or(0, |metadata| metadata.blocks() * BLOCK_BYTES);
            }
        }
        Ok(bytes)
    }

    fn cluster(&self) -> String {
        let members = self.members.iter().map(|member| format!("{}=http://{}", member.name, member.peer));
        members.collect::<Vec<_>>().join(",")
    }

    fn spawn_all(&mut self) -> anyhow::Result<()> {
        let cluster = self.cluster();
        self.members.iter_mut().try_for_each(|member| member.spawn(&self.binary, &cluster))
    }

    fn wait_for_all(&mut self, kind: Kind, started: Instant) -> anyhow::Result<Duration> {
        self.members.iter_mut().try_for_each(|member| member.wait_for(&self.binary, kind, started))?;
        let took = started.elapsed();
        self.find_leader(started)?;
        Ok(took)
    }

    /// Asks the members until one of them says that it leads.
    ///
    /// # Errors
    /// When none does for two minutes.
    pub fn find_leader(&mut self, started: Instant) -> anyhow::Result<()> {
        loop {
            for (place, member) in self.members.iter().enumerate() {
                if member.child.is_some() && member.leads().unwrap_or(false) {
                    self.leader = place;
                    return Ok(());
                }
            }
            ensure!(started.elapsed() < START_TIMEOUT, "{} has no leader", self.binary.display());
            std::thread::sleep(ATTEMPT_PAUSE);
        }
    }
}

impl Member {
    fn leads(&self) -> anyhow::Result<bool> {
        let mut station = Station::connect(self.client, 1)?;
        let answer = station.call(0, "/etcdserverpb.Maintenance/Status", &framed(&StatusRequest {}))?;
        let status = StatusResponse::decode(answer.as_slice())?;
        Ok(status.header.is_some_and(|header| header.member_id == status.leader))
    }

    /// Waits for the end of what was told to end.
    fn end(&mut self, binary: &Path) -> anyhow::Result<()> {
        let child = self.child.as_mut().context("server is not running")?;
        let asked = Instant::now();
        let ended = loop {
            if child.try_wait()?.is_some() {
                break true;
            }
            if asked.elapsed() > STOP_TIMEOUT {
                break false;
            }
            std::thread::sleep(ATTEMPT_PAUSE);
        };
        self.kill();
        ensure!(ended, "{} does not end when it is told to", binary.display());
        Ok(())
    }

    fn spawn(&mut self, binary: &Path, cluster: &str) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.join("log"))?;
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        let mut command = Command::new(binary);
        command
            .args(["--name", &self.name, "--log-level", "error", "--initial-cluster", cluster])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .arg("--data-dir")
            .arg(self.dir.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // Held while it starts, so that a signal finds every process listed.
        let mut running = RUNNING.lock().expect("no panic while it is held");
        // A child inherits the mask: blocked, it could not be told to end.
        let mask = SigSet::thread_get_mask()?;
        stop_signals().thread_unblock()?;
        let spawned = command.spawn();
        mask.thread_set_mask()?;
        let child = spawned.with_context(|| format!("start {}", binary.display()))?;
        running.push(child.id() as i32);
        self.child = Some(child);
        Ok(())
    }

    /// Tries one call again and again until it is answered.
    fn wait_for(&mut self, binary: &Path, kind: Kind, started: Instant) -> anyhow::Result<()> {
        let target = Target {
            endpoints: vec![self.client],
            connections: 1,
            in_flight: 1,
            answer_timeout: START_TIMEOUT,
        };
        let shape =
            Shape { key_bytes: 8, value_bytes: 1, keys: 1, order: Order::Sequential, serializable: false };
        let mut workload = Workload::new(kind, shape);
        let stop = Stop { requests: Some(1), duration: None };
        loop {
            let answered =
                Load::connect(&target, kind).and_then(|mut load| load.run(&mut workload, None, stop));
            let failure = match answered {
                Ok(outcome) if outcome.answered == 1 => return Ok(()),
                Ok(outcome) => format!("{:?}", outcome.errors),
                Err(error) => format!("{error:#}"),
            };
            let exited = self.child.as_mut().context("server is not running")?.try_wait()?;
            if let Some(status) = exited {
                bail!(
                    "{} exited ({status}), its output: {}",
                    binary.display(),
                    self.dir.join("log").display()
                );
            }
            if started.elapsed() > START_TIMEOUT {
                bail!("{} does not answer: {failure}", binary.display());
            }
            std::thread::sleep(ATTEMPT_PAUSE);
        }
    }

    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let mut running = RUNNING.lock().expect("no panic while it is held");
        // Both fail only when it has exited by itself.
        let _ = child.kill();
        let _ = child.wait();
        running.retain(|pid| *pid != child.id() as i32);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP kill the servers, remove `dir` if given, and exit with 130. Call it before
/// any other thread is there.
///
/// # Errors
/// When the kernel refuses to block signals.
pub fn kill_on_signal(remove: Option<PathBuf>) -> anyhow::Result<()> {
    let signals = stop_signals();
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.wait().is_err() {
            return;
        }
        eprintln!("bench: interrupted; there is no report");
        // Kept locked: nothing may be started any more.
        let running = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for pid in running.iter() {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if let Some(dir) = remove {
            let _ = fs::remove_dir_all(dir);
        }
        std::process::exit(130);
    })?;
    Ok(())
}

fn stop_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Ports that nobody listens on now.
fn free_ports(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let listen = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port");
    // All held at once, so that they differ.
    let listeners: Vec<TcpListener> = (0..count).map(listen).collect::<anyhow::Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?)).collect()
}
