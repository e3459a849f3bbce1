//! Listeners, connections and the network threads that serve them.
//!
//! Each network thread has a current-thread runtime; accepted connections are handed to them in turn and stay there
//! (evidence: one multi-threaded runtime costs more). A client connection's first bytes decide: HTTP/2's preface goes
//! to the [`ThreadService`]'s gRPC, anything else to HTTP/1. What is below a [`Stream`] may be TLS: then a handshake on
//! another thread comes before ([`Handshakes`]).

mod bind;
mod handshake;
mod sans;
mod shares;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use crate::gateway::Gateway;
use crate::http::{self, Health, Parties, Site};
use crate::{LocalFuture, log};

pub(crate) use bind::Accepted;
pub use bind::{BindError, Listener, Role};
pub use handshake::{Endpoint, Handshakes, Security};
pub(crate) use shares::open_descriptors;
pub use shares::{Room, SUNDRY, Shares};
pub use stream::{Protocol, Stream};

/// Accepted connections that may wait for one network thread.
const HANDOVER_MAX: usize = 256;
/// A connection that sends nothing for this long before its first request is closed.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(300);
/// A probe has something to say at once.
const FIRST_BYTES_TIMEOUT_METRICS: Duration = Duration::from_secs(10);

/// The service, as far as all network threads share it: makes each thread's part.
pub trait Service: Send + Sync + 'static {
    /// Called once on each network thread, inside its runtime and `LocalSet`: it may spawn local tasks.
    fn on_thread(&self, thread: usize, closing: Closing) -> Rc<dyn ThreadService>;
}

/// One network thread's part of the service.
pub trait ThreadService: Health {
    /// Serves one HTTP/2 connection until it ends. The preface is still to be read from `stream`. Once the server
    /// is closing, the connection should finish what it began and end; it is dropped some seconds later. `web` answers
    /// requests that are none of gRPC, or all; without it the former are refused.
    fn grpc(self: Rc<Self>, stream: Stream, web: Option<http::Web>) -> LocalFuture<'static, ()>;

    /// The JSON gateway, where there is one.
    fn gateway(&self) -> Option<Gateway> {
        None
    }
}

/// Tells that the server is about to stop.
#[derive(Clone, Debug)]
pub struct Closing(watch::Receiver<bool>);

impl Closing {
    /// Waits until the server is about to stop. Cancel safe.
    pub async fn wait(&mut self) {
        // A sender that is gone means the same.
        let _ = self.0.wait_for(|closing| *closing).await;
    }

    /// Whether the server is about to stop.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }
}

/// The pair of a [`Closing`] and what sets it; for tests of what is served.
pub fn closing() -> (watch::Sender<bool>, Closing) {
    let (sender, receiver) = watch::channel(false);
    (sender, Closing(receiver))
}

struct Connection {
    /// On no runtime.
    stream: Stream,
    role: Role,
    /// Given back when it ends, where connections are counted.
    permit: Option<OwnedSemaphorePermit>,
}

/// The network threads, and the one that accepts connections.
pub struct Network {
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    listeners: mpsc::UnboundedSender<Listener>,
}

impl Network {
    /// Starts `threads` network threads and the accepting one. Nothing is accepted before [`Network::accept`].
    /// After [`Network::stop`] connections get `grace` to end.
    ///
    /// # Errors
    /// When threads or their runtimes can't be made.
    pub fn start(
        threads: usize,
        service: &Arc<dyn Service>,
        grace: Duration,
        site: &Arc<Site>,
    ) -> io::Result<Network> {
        let (stop, closing) = closing();
        let (listeners, accepting) = mpsc::unbounded_channel();
        let mut network = Network { stop, threads: Vec::new(), listeners };
        let mut handovers = Vec::new();
        for thread in 0..threads.max(1) {
            let (handover, connections) = mpsc::channel(HANDOVER_MAX);
            handovers.push(handover);
            let (service, closing, site) = (service.clone(), closing.clone(), site.clone());
            network.spawn(&format!("network-{thread}"), move |runtime, local| {
                local.block_on(runtime, async move {
                    let served = Served { service: service.on_thread(thread, closing.clone()), site };
                    serve(served, connections, closing, grace).await;
                });
            })?;
        }
        network.spawn("accept", move |runtime, local| {
            local.block_on(runtime, accept_all(accepting, handovers, closing));
        })?;
        Ok(network)
    }

    fn spawn(
        &mut self,
        name: &str,
        body: impl FnOnce(&tokio::runtime::Runtime, LocalSet) + Send + 'static,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = std::thread::Builder::new().name(name.into()).spawn(move || {
            body(&runtime, LocalSet::new());
            // What still reads, hashes or looks a name up does so for nobody, and it may take minutes.
            runtime.shutdown_background();
        })?;
        self.threads.push(handle);
        Ok(())
    }

    /// Begins to accept connections there.
    pub fn accept(&self, listener: Listener) {
        // The accepting thread ends only after `stop`; a listener that comes later is dropped, as all are then.
        let _ = self.listeners.send(listener);
    }

    /// Closes the listeners, lets connections end within the grace, and returns when all threads are gone.
    pub fn stop(self) {
        let _ = self.stop.send(true);
        for thread in self.threads {
            // A panic has ended the process already.
            let _ = thread.join();
        }
    }
}

async fn accept_all(
    mut listeners: mpsc::UnboundedReceiver<Listener>,
    handovers: Vec<mpsc::Sender<Connection>>,
    mut closing: Closing,
) {
    // One row for all listeners of probes and metrics.
    let mut for_metrics: Option<Arc<Semaphore>> = None;
    let next = Rc::new(std::cell::Cell::new(0));
    let mut accepting = JoinSet::new();
    loop {
        tokio::select! {
            () = closing.wait() => break,
            Some(listener) = listeners.recv() => {
                let most = listener.room().connections_max;
                let permits = (listener.role() == Role::Metrics)
                    .then(|| for_metrics.get_or_insert_with(|| Arc::new(Semaphore::new(most))).clone());
                accepting.spawn_local(accept(listener, permits, handovers.clone(), next.clone()));
            }
        }
    }
    // Dropping the tasks drops the listeners: nobody connects any more.
}

async fn accept(
    listener: Listener,
    permits: Option<Arc<Semaphore>>,
    handovers: Vec<mpsc::Sender<Connection>>,
    next: Rc<std::cell::Cell<usize>>,
) {
    let listener = match listener.into_async() {
        Ok(listener) => listener,
        Err(error) => {
            log::error!("listener failed", "error" => crate::go_error(&error));
            return;
        }
    };
    let mut handshakes = JoinSet::new();
    loop {
        let permit = match permits.clone() {
            None => None,
            // Nobody closes it.
            Some(permits) => permits.acquire_owned().await.ok(),
        };
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                Some(_) = handshakes.join_next() => {}
            }
        };
        let turn = next.replace(next.get().wrapping_add(1));
        let handover = &handovers[turn % handovers.len()];
        match accepted {
            Ok(socket) => {
                let role = listener.role();
                let Some(security) = listener.security() else {
                    let connection = Connection { stream: Stream::idle(socket), role, permit };
                    if handover.send(connection).await.is_err() {
                        return;
                    }
                    continue;
                };
                let (security, handover) = (security.clone(), handover.clone());
                handshakes.spawn_local(async move {
                    if let Some(stream) = security.handshake(socket).await {
                        // The thread is gone only when all is to end.
                        let _ = handover.send(Connection { stream, role, permit }).await;
                    }
                });
            }
            Err(error) => {
                // Out of descriptors or memory, most likely: the others' connections go on, and some will end.
                log::warn!("accept failed", "address" => listener.address(), "error" => crate::go_error(&error));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// An address as Go prints it: one of IPv4 as such, also where one socket serves both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// How many network threads there are: one for each processor that the process may use.
pub fn network_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many descriptors the process may have.
pub(crate) fn descriptors() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

/// Raises the limit of descriptors to what the process is allowed, as Go's runtime does at start.
pub fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// What connections of one thread need.
#[derive(Clone)]
struct Served {
    service: Rc<dyn ThreadService>,
    site: Arc<Site>,
}

async fn serve(
    served: Served,
    mut connections: mpsc::Receiver<Connection>,
    mut closing: Closing,
    grace: Duration,
) {
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            () = closing.wait() => break,
            Some(connection) = connections.recv() => {
                serving.spawn_local(connect(served.clone(), connection, closing.clone()));
            }
            Some(_) = serving.join_next() => {}
        }
    }
    let _ = tokio::time::timeout(grace, async { while serving.join_next().await.is_some() {} }).await;
}

async fn connect(served: Served, connection: Connection, mut closing: Closing) {
    let Connection { mut stream, role, permit } = connection;
    if stream.attach().is_err() {
        return;
    }
    let patience = if role == Role::Metrics { FIRST_BYTES_TIMEOUT_METRICS } else { FIRST_BYTES_TIMEOUT };
    let first = tokio::select! {
        first = tokio::time::timeout(patience, stream.sniff()) => first,
        () = closing.wait() => return,
    };
    let Served { service, site } = served;
    let parties = |stream: &Stream| Parties {
        role,
        health: service.clone(),
        site,
        gateway: service.gateway(),
        remote: stream.remote(),
        certified: stream.certified(),
    };
    let speaks_http2 = match role {
        Role::Client | Role::Grpc => true,
        // It is agreed on, or not spoken.
        Role::Http | Role::Metrics => stream.is_secure(),
        Role::Peer => false,
    };
    match (first, role) {
        (Ok(Ok(Protocol::Http2)), _) if speaks_http2 => {
            // Who has agreed on HTTP/2 may ask for anything; without TLS, HTTP/2 is gRPC.
            let web = (role != Role::Grpc && stream.is_secure()).then(|| http::web(parties(&stream)));
            service.grpc(stream, web).await;
        }
        (
            Ok(Ok(Protocol::Http1 | Protocol::Http2)),
            Role::Client | Role::Http | Role::Metrics | Role::Peer,
        ) => {
            let parties = parties(&stream);
            http::serve(stream, parties, closing).await;
        }
        (Ok(Ok(Protocol::Tls)), _) => {
            log::debug!("a TLS client at a listener without TLS, or within TLS; closed");
        }
        // Closed before it said anything, silent for too long, or broken, or HTTP where there is only gRPC.
        (Ok(Ok(Protocol::Nothing | Protocol::Http1 | Protocol::Http2) | Err(_)) | Err(_), _) => {}
    }
    drop(permit);
}

#[cfg(test)]
mod tests;
