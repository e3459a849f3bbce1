//! TLS handshakes, on threads of their own: a signature costs as much as some hundred requests, and nobody else's request
//! shall wait for it.
//!
//! A connection is here from its first byte until it is agreed on, for ten seconds at most, and then goes to the thread
//! that serves it. Only so many are under way at a time; one more, and the oldest is cut: one that is meant takes
//! milliseconds, so those that hang make room and not those that come. Until its first byte has come a connection costs no
//! more than its socket.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::server::Acceptor;
use tls::{Alpn, Certificate, Seen};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, LocalSet};
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;

use super::bind::Accepted;
use super::sans;
use super::stream::Stream;
use crate::log;

/// How long a handshake may take; etcd's.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way on one thread.
const UNDER_WAY_MAX: usize = 512;
/// Connections that wait for one of the threads.
const WAITING_MAX: usize = 64;
/// How often it is said that handshakes are cut.
const CUT_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The threads. They end when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Handshakes {
    threads: Arc<[mpsc::Sender<Job>]>,
    next: Arc<AtomicUsize>,
}

/// How connections of one listener are secured.
#[derive(Clone, Debug)]
pub struct Security {
    /// Certificates and whom to trust.
    pub server: Arc<tls::Server>,
    /// Where it is done.
    pub handshakes: Handshakes,
    /// What is said in the log about connections that are refused.
    pub endpoint: Endpoint,
    /// Whether HTTP/2 may be agreed on.
    pub http2: bool,
    /// Whether the certificate of the other side must be one of its address.
    pub verify_address: bool,
    /// Whether connections without TLS are taken beside: one port for both.
    pub also_plain: bool,
    /// Whether the name in the other side's certificate says who asks (`--client-cert-auth`).
    pub names_users: bool,
}

/// Whose connections these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Clients'.
    Client,
    /// Other members'.
    Peer,
}

#[derive(Debug)]
struct Job {
    socket: Accepted,
    security: Security,
    done: oneshot::Sender<Stream>,
}

impl Handshakes {
    /// Starts the threads.
    ///
    /// # Errors
    /// When threads or their runtimes can't be made.
    pub fn start(threads: usize) -> io::Result<Handshakes> {
        let mut senders = Vec::new();
        for thread in 0..threads.max(1) {
            let (sender, jobs) = mpsc::channel(WAITING_MAX);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new().name(format!("tls-{thread}")).spawn(move || {
                LocalSet::new().block_on(&runtime, run(jobs));
            })?;
            senders.push(sender);
        }
        Ok(Handshakes { threads: senders.into(), next: Arc::default() })
    }
}

impl Security {
    /// Does the handshake of a connection. `None` if it failed, which is in the log. What is returned is on no runtime.
    pub(crate) async fn handshake(&self, socket: Accepted) -> Option<Stream> {
        let Handshakes { threads, next } = &self.handshakes;
        let thread = &threads[next.fetch_add(1, Ordering::Relaxed) % threads.len()];
        let (done, secured) = oneshot::channel();
        thread.send(Job { socket, security: self.clone(), done }).await.ok()?;
        secured.await.ok()
    }
}

/// One thread's work.
async fn run(mut jobs: mpsc::Receiver<Job>) {
    let mut under_way: VecDeque<AbortHandle> = VecDeque::new();
    let mut cuts = Cuts { count: 0, said: None };
    while let Some(job) = jobs.recv().await {
        // Most end in the order in which they began.
        while under_way.front().is_some_and(AbortHandle::is_finished) {
            under_way.pop_front();
        }
        if under_way.len() >= UNDER_WAY_MAX {
            under_way.retain(|handshake| !handshake.is_finished());
        }
        if under_way.len() >= UNDER_WAY_MAX
            && let Some(oldest) = under_way.pop_front()
        {
            oldest.abort();
            cuts.count();
        }
        under_way.push_back(tokio::task::spawn_local(one(job)).abort_handle());
    }
}

/// Handshakes that were cut to make room.
struct Cuts {
    count: u64,
    said: Option<Instant>,
}

impl Cuts {
    fn count(&mut self) {
        self.count += 1;
        let now = Instant::now();
        if self.said.is_none_or(|said| now >= said + CUT_LOG_INTERVAL) {
            self.said = Some(now);
            log::warn!(
                "too many TLS handshakes under way; the oldest are cut",
                "limit" => UNDER_WAY_MAX,
                "cut" => std::mem::take(&mut self.count),
            );
        }
    }
}

async fn one(job: Job) {
    let Job { socket, security, done } = job;
    let ((local, remote), ip) = (socket.addresses(), socket.remote());
    let mut met = Met::default();
    let secured = tokio::time::timeout(TIMEOUT, secure(socket, ip, &security, &mut met)).await;
    let secured = secured.unwrap_or_else(|_| {
        Err(Refusal { why: format!("read tcp {local}->{remote}: i/o timeout"), is_quiet: false })
    });
    match secured {
        // Nobody waits for it where the listener is closing.
        Ok(stream) => drop(done.send(stream)),
        Err(refusal) => met.tell(&refusal, security.endpoint, &remote),
    }
}

/// Why a handshake failed.
struct Refusal {
    why: String,
    /// It was only a connection that came and went, as load balancers' probes do.
    is_quiet: bool,
}

impl Refusal {
    fn new(why: String) -> Refusal {
        Refusal { is_quiet: why == "EOF", why }
    }
}

/// What is known of the other side.
#[derive(Default)]
struct Met {
    server_name: String,
    certificate: Option<Certificate>,
}

async fn secure(
    socket: Accepted,
    remote: Option<IpAddr>,
    security: &Security,
    met: &mut Met,
) -> Result<Stream, Refusal> {
    let system = |error: &io::Error| Refusal::new(crate::go_error(error));
    let mut stream = Stream::idle(socket);
    stream.attach().map_err(|error| system(&error))?;
    match stream.sniff_tls().await.map_err(|error| system(&error))? {
        None => return Err(Refusal::new("EOF".to_owned())),
        Some(false) if security.also_plain => {
            stream.detach().map_err(|error| system(&error))?;
            return Ok(stream);
        }
        Some(false) => {
            return Err(Refusal::new("tls: first record does not look like a TLS handshake".to_owned()));
        }
        Some(true) => {}
    }
    let mut hello = std::pin::pin!(LazyConfigAcceptor::new(Acceptor::default(), stream));
    let hello = hello.as_mut().await.map_err(|error| Refusal::new(Seen::default().reason(&error)))?;
    met.server_name = hello.client_hello().server_name().unwrap_or_default().to_owned();
    let alpn = if security.http2 { Alpn::for_hello(&hello.client_hello()) } else { Alpn::Silent };
    let accepting = security.server.begin(alpn);
    let failure = accepting.failure.map(|error| error.to_string());
    let agreed = hello.into_stream(accepting.config).await;
    met.certificate = accepting.seen.certificate();
    let stream = agreed.map_err(|error| match failure {
        Some(why) => Refusal::new(format!("failed to create peer certificate: {why}")),
        None => Refusal::new(accepting.seen.reason(&error)),
    })?;
    if security.verify_address
        && let Some(certificate) = &met.certificate
    {
        sans::verify(certificate, remote).await.map_err(Refusal::new)?;
    }
    // It was verified: where certificates are not asked for, none is seen.
    let certified = met.certificate.as_ref().filter(|_| security.names_users);
    let mut stream =
        Stream::secured(stream, certified.map(|certificate| certificate.common_name.as_str().into()));
    stream.detach().map_err(|error| system(&error))?;
    Ok(stream)
}

impl Met {
    fn tell(&self, refusal: &Refusal, endpoint: Endpoint, remote: &str) {
        let message = match endpoint {
            Endpoint::Client => "rejected connection on client endpoint",
            Endpoint::Peer => "rejected connection on peer endpoint",
        };
        let level = if refusal.is_quiet { log::Level::Debug } else { log::Level::Warn };
        let Some(certificate) = &self.certificate else {
            crate::event!(level, message,
                "remote-addr" => remote,
                "server-name" => self.server_name,
                "error" => refusal.why,
            );
            return;
        };
        let addresses: Vec<String> = certificate.ip_addresses.iter().map(ToString::to_string).collect();
        crate::event!(level, message,
            "remote-addr" => remote,
            "server-name" => self.server_name,
            "subject" => certificate.subject,
            "ip-addresses" => addresses,
            "dns-names" => certificate.dns_names,
            "not-before" => certificate.valid_from(),
            "not-after" => certificate.valid_until(),
            "error" => refusal.why,
        );
    }
}
