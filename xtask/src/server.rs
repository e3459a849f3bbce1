//! A server process for checks against other programs: ours, or a real etcd.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// A running server; killed when dropped.
pub(crate) struct Server {
    command: Command,
    process: Child,
    /// Where clients reach it.
    pub(crate) endpoint: String,
    /// The same over a unix socket.
    pub(crate) unix_endpoint: String,
}

impl Server {
    /// Starts `binary` as a member named `default` on free ports, and waits until it is ready.
    pub(crate) fn start(binary: &Path, data_dir: &Path) -> Result<Self> {
        let held = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [client, peer] =
            [&held[0], &held[1]].map(|listener| listener.local_addr().map(|at| format!("http://{at}")));
        let (client, peer) = (client?, peer?);
        drop(held);
        let unix = format!("unix://{}.sock", data_dir.display());
        let mut command = Command::new(binary);
        command
            .args(["--listen-client-urls", &format!("{client},{unix}"), "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--data-dir"])
            .arg(data_dir)
            .stderr(Stdio::piped());
        let process = ready(&mut command)?;
        Ok(Server { command, process, endpoint: client, unix_endpoint: unix })
    }

    /// Ends it as a power switch would, and starts it again on its data and ports.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        self.process = ready(&mut self.command)?;
        Ok(())
    }
}

/// Starts a server and waits until it serves.
fn ready(command: &mut Command) -> Result<Child> {
    let mut process = command.spawn().with_context(|| format!("start {command:?}"))?;
    let mut lines = BufReader::new(process.stderr.take().context("its standard error")?).lines();
    let mut log = String::new();
    let ready = lines.by_ref().map_while(std::io::Result::ok).any(|line| {
        log.push_str(&line);
        log.push('\n');
        line.contains("ready to serve client requests")
    });
    // Nobody reads on, but the pipe must not fill.
    std::thread::spawn(move || lines.for_each(drop));
    if !ready {
        let _ = process.wait();
        bail!("{command:?} is not ready:\n{log}");
    }
    Ok(process)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A fresh folder below `target`, so that it goes with it.
pub(crate) fn scratch(name: &str) -> Result<PathBuf> {
    let dir = crate::root().join("target/xtask").join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Builds our binaries; the folder where they are.
pub(crate) fn build() -> Result<PathBuf> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "quorate-server", "-p", "quorate-cli"])
        .current_dir(crate::root())
        .status()
        .context("run cargo build")?;
    if !status.success() {
        bail!("the binaries do not build");
    }
    Ok(crate::root().join("target/debug"))
}

/// Runs a program and gives what it printed; its failure is an error that shows what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("run {command:?}"))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        bail!("{command:?} failed: {text}{}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(text)
}
