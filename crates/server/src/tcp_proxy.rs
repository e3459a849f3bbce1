//! `etcd gateway start`: hands TCP connections on to members, in turn, and leaves those out that do not answer.
//!
//! It reads nothing of what it carries. What it holds is bounded: so many connections (further ones wait to be
//! accepted), and for each direction of one at most what was read and not yet taken, [`forward::PIECE_BYTES`].

mod address;
mod forward;
mod remotes;

use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{LocalSet, spawn_local};

use self::forward::Forwarder;
use self::remotes::Remotes;
use crate::config::Url;
use crate::listen::{self, Accepted, Listener, Role};
use crate::log::{self, Level};
use crate::{notify, streams};

/// Descriptors kept for what is no connection: log, resolver, the runtimes' own.
const RESERVED_DESCRIPTORS: u64 = 128;

/// What stands in for a retry delay of 0, as in etcd.
const RETRY_DELAY_UNSET: Duration = Duration::from_secs(5 * 60);

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Host and port.
    pub listen_addr: String,
    /// The members' client addresses, with or without a scheme.
    pub endpoints: Vec<String>,
    /// How long a member that did not answer is left out.
    pub retry_delay: Duration,
}

/// Runs until a signal ends the process. `args`: the whole command line.
pub fn run(args: &[String], settings: &Settings) -> ExitCode {
    log::write(Level::Info, file!(), line!(), "Running: ", &[("args", &args)]);
    let prepared = prepare(settings);
    let (listener, remotes) = match prepared {
        Ok(prepared) => prepared,
        Err(Refused::Out(text)) => {
            // Where etcd prints them, which logs nothing of it.
            streams::out(format_args!("{text}\n"));
            return ExitCode::FAILURE;
        }
        Err(Refused::Err(text)) => {
            streams::err(format_args!("{text}\n"));
            return ExitCode::FAILURE;
        }
    };
    listen::raise_descriptors();
    notify::ready();
    let address = listener.address().to_owned();
    log::info!(
        "ready to proxy client requests",
        "endpoints" => remotes.addresses(),
        "listen-addr" => address,
    );
    match serve(&listener, &Arc::new(remotes)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            streams::err(format_args!("{error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Why it cannot start.
enum Refused {
    /// To stdout, where etcd has it.
    Out(String),
    /// To stderr.
    Err(String),
}

/// Checks everything, and binds.
fn prepare(settings: &Settings) -> Result<(Listener, Remotes), Refused> {
    let out = |text: String| Refused::Out(text);
    let mut targets = Vec::new();
    for endpoint in &settings.endpoints {
        let parsed = address::split(address::without_scheme(endpoint));
        let Some((host, port)) = parsed.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
        else {
            return Err(out(format!("error parsing endpoint {endpoint:?}")));
        };
        targets.push((host, port));
    }
    let listen_addr = &settings.listen_addr;
    let Some((host, port)) = address::split(listen_addr) else {
        return Err(out(format!("failed to validate listen address: {listen_addr}")));
    };
    let own = address::look_up(host).ok_or_else(|| out(format!("failed to resolve listen host: {host}")))?;
    for (host, target_port) in &targets {
        let Some(found) = address::look_up(host) else {
            return Err(out(format!("failed to resolve endpoint host: {host}")));
        };
        let same = found.iter().find(|address| own.contains(address));
        if let Some(address) = same.filter(|_| target_port.to_string() == port) {
            return Err(out(format!(
                "SRV or endpoint ({host}:{port}->{address}:{port}) should not resolve to the gateway listen addr \
                 ({listen_addr})"
            )));
        }
    }
    if targets.is_empty() {
        return Err(out("no endpoints found".to_owned()));
    }
    let url = Url::parse(&format!("http://{listen_addr}")).map_err(Refused::Err)?;
    let listener =
        Listener::bind(&url, Role::Client, false).map_err(|error| Refused::Err(error.to_string()))?;
    let retry_delay = match settings.retry_delay {
        Duration::ZERO => RETRY_DELAY_UNSET,
        given => given,
    };
    let addresses = targets.into_iter().map(|(host, port)| address::join(host, port)).collect();
    Ok((listener, Remotes::new(addresses, retry_delay)))
}

/// Serves on as many threads as there are processors; ends when a thread cannot be made.
fn serve(listener: &Listener, remotes: &Arc<Remotes>) -> std::io::Result<()> {
    // Two descriptors each.
    let most = (listen::descriptors().saturating_sub(RESERVED_DESCRIPTORS) / 2).max(1);
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    let room = Arc::new(Semaphore::new(most));
    let mut threads = Vec::new();
    for thread in 0..listen::network_threads().min(most) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (listener, remotes, room) = (listener.share()?, remotes.clone(), room.clone());
        let body = move || {
            LocalSet::new().block_on(&runtime, async move {
                if thread == 0 {
                    spawn_local(remotes.clone().revive());
                }
                accept(listener, remotes, room).await;
            });
        };
        threads.push(std::thread::Builder::new().name(format!("gateway-{thread}")).spawn(body)?);
    }
    for thread in threads {
        // A panic ends the process before this.
        let _ = thread.join();
    }
    Ok(())
}

async fn accept(listener: Listener, remotes: Arc<Remotes>, room: Arc<Semaphore>) {
    let forwarder = Rc::new(Forwarder::default());
    let accepting = match listener.into_async() {
        Ok(accepting) => accepting,
        Err(error) => return log::error!("accept failed", "error" => crate::go_error(&error)),
    };
    while let Ok(permit) = room.clone().acquire_owned().await {
        match accepting.accept().await {
            Ok(Accepted::Tcp(client)) => {
                // What fails for one connection alone is its client's affair.
                let Ok(client) = TcpStream::from_std(client) else { continue };
                spawn_local(carry(client, remotes.clone(), forwarder.clone(), permit));
            }
            Ok(Accepted::Unix(_)) => {}
            Err(error) => {
                log::warn!("accept failed", "address" => accepting.address(), "error" => crate::go_error(&error));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Carries one connection until it ends. Without a member that answers it is closed at once.
async fn carry(
    client: TcpStream,
    remotes: Arc<Remotes>,
    forwarder: Rc<Forwarder>,
    _room: OwnedSemaphorePermit,
) {
    if let Some(member) = remotes.connect().await {
        forwarder.run(&client, &member).await;
    }
}
