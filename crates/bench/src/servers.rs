//! Servers that we start ourselves: fresh directories, free ports, and none of them outlives us.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::process::Observed;
use crate::run::{Load, Target};
use crate::schedule::Stop;
use crate::workload::{Kind, Order, Shape, Workload};

/// Longest that a server may take to answer its first call.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest that it may take to end in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts of the first call: the resolution of a restart's time.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(1);

/// Processes to kill when we are told to stop.
static RUNNING: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// One server; dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    binary: PathBuf,
    /// Holds its data directory and its output.
    dir: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// Starts `binary` as a new cluster of one member below `dir`, and waits until it takes a put.
    ///
    /// # Errors
    /// When it can't be started, exits, or takes no put for two minutes.
    pub fn start(binary: &Path, dir: &Path) -> anyhow::Result<Server> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let (client, peer) = free_ports()?;
        let mut server = Server { binary: binary.to_owned(), dir: dir.to_owned(), client, peer, child: None };
        server.spawn()?;
        server.wait_for(Kind::Put, Instant::now())?;
        Ok(server)
    }

    /// Kills it (SIGKILL) and starts it again on the same directory; returns the time from the start of the process
    /// to its first answer to a linearizable range.
    ///
    /// # Errors
    /// As `start`.
    pub fn restart(&mut self) -> anyhow::Result<Duration> {
        self.kill();
        let started = Instant::now();
        self.spawn()?;
        self.wait_for(Kind::Range, started)
    }

    /// Lets it end in order (SIGTERM); `restart` starts it again.
    ///
    /// # Errors
    /// When it is gone already, or does not end in time: it is killed then.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let child = self.child.as_mut().context("server is not running")?;
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).context("stop the server")?;
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
        ensure!(ended, "{} does not end when it is told to", self.binary.display());
        Ok(())
    }

    /// Where clients reach it.
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// Its process.
    ///
    /// # Errors
    /// When it is gone.
    pub fn observed(&self) -> anyhow::Result<Observed> {
        Observed::new(self.child.as_ref().context("server is not running")?.id())
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.join("log"))?;
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        let mut command = Command::new(&self.binary);
        command
            .args(["--name", "bench", "--log-level", "error", "--initial-cluster"])
            .arg(format!("bench={peer}"))
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
        let child = spawned.with_context(|| format!("start {}", self.binary.display()))?;
        running.push(child.id() as i32);
        self.child = Some(child);
        Ok(())
    }

    /// Tries one call again and again; returns the time from `started` to its answer.
    fn wait_for(&mut self, kind: Kind, started: Instant) -> anyhow::Result<Duration> {
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
                Ok(outcome) if outcome.answered == 1 => return Ok(started.elapsed()),
                Ok(outcome) => format!("{:?}", outcome.errors),
                Err(error) => format!("{error:#}"),
            };
            let exited = self.child.as_mut().context("server is not running")?.try_wait()?;
            if let Some(status) = exited {
                bail!(
                    "{} exited ({status}), its output: {}",
                    self.binary.display(),
                    self.dir.join("log").display()
                );
            }
            if started.elapsed() > START_TIMEOUT {
                bail!("{} does not answer: {failure}", self.binary.display());
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

impl Drop for Server {
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

/// Two ports that nobody listens on now.
fn free_ports() -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port");
    // Both held at once, so that they differ.
    let (client, peer) = (listen()?, listen()?);
    Ok((client.local_addr()?, peer.local_addr()?))
}
