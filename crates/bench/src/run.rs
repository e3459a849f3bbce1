//! Moves the bytes: one thread, all connections on one epoll, closed or open loop.
//!
//! One thread is enough, since a call costs it a few microseconds; a second one would take the server's core. All
//! calls that fall due together on a connection leave in one write.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;

use crate::http2::{Answer, Connection, Inspect, Received};
use crate::schedule::{Schedule, Stop};
use crate::workload::{Kind, Requests};

/// Longest wait without looking at the clock.
const WAIT_MS_MAX: u8 = 100;
/// Different error texts that are told apart; a server that puts a number into each must not fill our memory.
const ERROR_TEXTS_MAX: usize = 100;
/// The longest latency that the histogram tells apart from longer ones: an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// Whom to load, over what.
#[derive(Clone, Debug)]
pub struct Target {
    /// Connections go to them in turn; loopback only.
    pub endpoints: Vec<SocketAddr>,
    /// How many.
    pub connections: usize,
    /// Calls without an answer, all connections together; in an open loop later ones wait, their latency counting.
    pub in_flight: usize,
    /// Without any answer for so long, a run gives up.
    pub answer_timeout: Duration,
}

/// How one run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Calls answered without an error.
    pub answered: u64,
    /// Of these, the ones whose answer held what was asked for.
    pub hits: u64,
    /// Calls that failed, by text.
    pub errors: BTreeMap<String, u64>,
    /// Calls of an open loop that were due and could not be sent before the run gave up.
    pub not_sent: u64,
    /// Nanoseconds of the answered calls; in an open loop from the moment that each was meant for.
    pub latencies_ns: Histogram<u64>,
    /// From the first call to the last answer.
    pub elapsed: Duration,
}

impl Outcome {
    /// All failed calls.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Connections that calls of one kind can be sent over; one run after another.
#[derive(Debug)]
pub struct Load {
    epoll: Epoll,
    peers: Vec<Peer>,
    /// The connection whose turn it is.
    turn: usize,
    answer_timeout: Duration,
}

#[derive(Debug)]
struct Peer {
    socket: TcpStream,
    codec: Connection,
    /// Its share of the calls in flight.
    quota: usize,
    /// Whether epoll is to tell when the socket takes bytes again.
    blocked: bool,
    alive: bool,
}

/// What a run waits for.
enum Next {
    /// The next call's moment.
    At(u64),
    /// Answers, before anything can be sent.
    Answers,
}

impl Load {
    /// Connects and waits for the servers' settings.
    ///
    /// # Errors
    /// When an endpoint is not on the loopback interface, can't be reached, or speaks another protocol.
    pub fn connect(target: &Target, kind: Kind) -> anyhow::Result<Load> {
        ensure!(!target.endpoints.is_empty() && target.connections > 0, "no endpoint or no connection");
        ensure!(target.in_flight >= target.connections, "--in-flight below --connections leaves some idle");
        for endpoint in &target.endpoints {
            ensure!(
                endpoint.ip().is_loopback(),
                "{endpoint} is not on this machine: only loopback is loaded"
            );
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut peers = Vec::with_capacity(target.connections);
        for place in 0..target.connections {
            let endpoint = target.endpoints[place % target.endpoints.len()];
            let spare = usize::from(place < target.in_flight % target.connections);
            let quota = target.in_flight / target.connections + spare;
            let peer = Peer::connect(endpoint, kind, quota, target.answer_timeout)
                .with_context(|| format!("connect to {endpoint}"))?;
            epoll.add(&peer.socket, EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
            peers.push(peer);
        }
        Ok(Load { epoll, peers, turn: 0, answer_timeout: target.answer_timeout })
    }

    /// Issues the workload's calls as `rate` and `stop` say and waits for all answers.
    ///
    /// # Errors
    /// When the kernel refuses to wait. Failed calls and connections are in the outcome.
    pub fn run(
        &mut self,
        workload: &mut impl Requests,
        rate: Option<f64>,
        stop: Stop,
    ) -> anyhow::Result<Outcome> {
        self.run_until(workload, rate, stop, &AtomicBool::new(false))
    }

    /// The same, that stops early once `over` is set.
    ///
    /// # Errors
    /// As `run`.
    pub fn run_until(
        &mut self,
        workload: &mut impl Requests,
        rate: Option<f64>,
        stop: Stop,
        over: &AtomicBool,
    ) -> anyhow::Result<Outcome> {
        if rate.is_some() {
            // The default, 50 us late, would be most of a quick server's latency. Another thread's is not touched.
            nix::sys::prctl::set_timerslack(1)?;
        }
        let mut schedule = Schedule::new(rate, stop);
        let mut outcome = Outcome {
            answered: 0,
            hits: 0,
            errors: BTreeMap::new(),
            not_sent: 0,
            latencies_ns: Histogram::new_with_max(LATENCY_NS_MAX, 3)?,
            elapsed: Duration::ZERO,
        };
        let clock = Instant::now();
        let mut events = [EpollEvent::empty(); 64];
        let mut answered_at_ns = 0;
        loop {
            if over.load(Ordering::Acquire) {
                schedule.end(now_ns(clock));
            }
            let next = self.issue(&mut schedule, workload, now_ns(clock), &mut outcome);
            let now = now_ns(clock);
            let open = self.open();
            let finished = schedule.next_due(now).is_none() && open == 0;
            if finished || self.peers.iter().all(|peer| !peer.alive) {
                break;
            }
            let waiting = open > 0 || matches!(next, Next::Answers);
            let silent = now.saturating_sub(answered_at_ns) > self.answer_timeout.as_nanos() as u64;
            if waiting && silent {
                self.give_up(&mut outcome);
                break;
            }
            if !waiting {
                answered_at_ns = now;
            }
            let ready = self.wait(&mut events, &next, now)?;
            for event in &events[..ready] {
                let done = outcome.answered;
                let peer = &mut self.peers[event.data() as usize];
                peer.read(clock, &mut outcome);
                if !peer.alive {
                    // Or its end would be reported for ever; it may have gone before, when it failed elsewhere.
                    let _ = self.epoll.delete(&peer.socket);
                }
                if outcome.answered > done {
                    answered_at_ns = now_ns(clock);
                }
            }
        }
        outcome.elapsed = clock.elapsed();
        outcome.not_sent = schedule.backlog(now_ns(clock));
        Ok(outcome)
    }

    fn open(&self) -> usize {
        self.peers.iter().map(|peer| if peer.alive { peer.codec.open() } else { 0 }).sum()
    }

    /// Sends what is due, to one connection after the other, and writes it out.
    fn issue(
        &mut self,
        schedule: &mut Schedule,
        workload: &mut impl Requests,
        now: u64,
        outcome: &mut Outcome,
    ) -> Next {
        let mut passed_over = 0;
        let next = loop {
            match schedule.next_due(now) {
                None => break Next::Answers,
                Some(due) if due > now => break Next::At(due),
                Some(_) if passed_over == self.peers.len() => break Next::Answers,
                Some(_) => {}
            }
            let place = self.turn;
            self.turn = (place + 1) % self.peers.len();
            let peer = &mut self.peers[place];
            if peer.can_send(workload.message_bytes())
                && let Some(sent_at_ns) = schedule.take(now)
            {
                peer.codec.send(sent_at_ns, workload.next_message());
                passed_over = 0;
            } else {
                passed_over += 1;
            }
        };
        for (place, peer) in self.peers.iter_mut().enumerate() {
            peer.write(&self.epoll, place, outcome);
        }
        next
    }

    fn wait(&self, events: &mut [EpollEvent], next: &Next, now: u64) -> anyhow::Result<usize> {
        match next {
            Next::Answers => wait(&self.epoll, events, None),
            Next::At(due) => wait(&self.epoll, events, Some(Duration::from_nanos(due.saturating_sub(now)))),
        }
    }

    fn give_up(&mut self, outcome: &mut Outcome) {
        let text = format!("no answer within {:?}", self.answer_timeout);
        for peer in self.peers.iter_mut().filter(|peer| peer.alive) {
            peer.fail(&text, outcome);
        }
    }
}

/// Waits until a socket is ready, `pause` is over, or the clock is to be looked at; returns how many are.
pub(crate) fn wait(
    epoll: &Epoll,
    events: &mut [EpollEvent],
    pause: Option<Duration>,
) -> anyhow::Result<usize> {
    let waited = match pause {
        None => epoll.wait(events, EpollTimeout::from(WAIT_MS_MAX)),
        Some(pause) => {
            // epoll counts in milliseconds, calls fall due within microseconds.
            let pause = pause.min(Duration::from_millis(u64::from(WAIT_MS_MAX)));
            let mut fds = [PollFd::new(epoll.0.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut fds, Some(TimeSpec::from_duration(pause)), None) {
                Ok(0) => Ok(0),
                Ok(_) => epoll.wait(events, EpollTimeout::ZERO),
                Err(error) => Err(error),
            }
        }
    };
    match waited {
        Err(Errno::EINTR) => Ok(0),
        waited => waited.context("wait for sockets"),
    }
}

/// Connects, and waits for the server's settings. The socket does not block.
///
/// # Errors
/// When the endpoint is not on the loopback interface, can't be reached, or speaks another protocol.
pub(crate) fn settled(
    endpoint: SocketAddr,
    (path, inspect): (&str, Inspect),
    timeout: Duration,
) -> anyhow::Result<(TcpStream, Connection)> {
    ensure!(endpoint.ip().is_loopback(), "{endpoint} is not on this machine: only loopback is loaded");
    let mut socket = TcpStream::connect_timeout(&endpoint, timeout)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(timeout))?;
    let mut codec = Connection::new(path, &endpoint.to_string(), inspect);
    codec.flush(&mut socket)?;
    while !codec.is_settled() {
        ensure!(codec.fill(&mut socket)? > 0, "closed before its settings came");
        codec.receive(|_| {})?;
    }
    codec.flush(&mut socket)?;
    socket.set_nonblocking(true)?;
    Ok((socket, codec))
}

impl Peer {
    fn connect(endpoint: SocketAddr, kind: Kind, quota: usize, timeout: Duration) -> anyhow::Result<Peer> {
        let (socket, codec) = settled(endpoint, (kind.path(), kind.inspect()), timeout)?;
        Ok(Peer { socket, codec, quota, blocked: false, alive: true })
    }

    fn can_send(&self, message_bytes: usize) -> bool {
        self.alive && self.codec.open() < self.quota && self.codec.can_send(message_bytes)
    }

    fn read(&mut self, clock: Instant, outcome: &mut Outcome) {
        if !self.alive {
            return;
        }
        match self.codec.fill(&mut self.socket) {
            Ok(0) => return self.fail("closed by the server", outcome),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => return,
            Err(error) => return self.fail(&error.to_string(), outcome),
        }
        let now = now_ns(clock);
        let received = self.codec.receive(|received| {
            if let Received::Answer(answer) = received {
                record(outcome, answer, now);
            }
        });
        if let Err(error) = received {
            self.fail(&error.to_string(), outcome);
        } else if let Some(reason) = self.codec.goaway().map(str::to_owned)
            && self.codec.open() == 0
        {
            self.fail(&reason, outcome);
        }
    }

    fn write(&mut self, epoll: &Epoll, place: usize, outcome: &mut Outcome) {
        if !self.alive || !self.codec.has_output() {
            return;
        }
        let flushed = match self.codec.flush(&mut self.socket) {
            Ok(flushed) => flushed,
            Err(error) => return self.fail(&error.to_string(), outcome),
        };
        if self.blocked == flushed {
            self.blocked = !flushed;
            let out = if flushed { EpollFlags::empty() } else { EpollFlags::EPOLLOUT };
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN | out, place as u64);
            if let Err(error) = epoll.modify(&self.socket, &mut event) {
                self.fail(&error.to_string(), outcome);
            }
        }
    }

    /// The connection is lost; so are its open calls, and a lost connection without any counts as one failure.
    fn fail(&mut self, reason: &str, outcome: &mut Outcome) {
        let lost = self.codec.open().max(1) as u64;
        count_error(outcome, format!("connection: {reason}"), lost);
        self.alive = false;
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

fn now_ns(clock: Instant) -> u64 {
    clock.elapsed().as_nanos() as u64
}

fn record(outcome: &mut Outcome, answer: Answer, now: u64) {
    match answer.outcome {
        Ok(hit) => {
            outcome.answered += 1;
            outcome.hits += u64::from(hit);
            outcome.latencies_ns.saturating_record(now.saturating_sub(answer.sent_at_ns));
        }
        Err(text) => count_error(outcome, text, 1),
    }
}

fn count_error(outcome: &mut Outcome, text: String, count: u64) {
    let full = outcome.errors.len() >= ERROR_TEXTS_MAX && !outcome.errors.contains_key(&text);
    let text = if full { "other errors".to_owned() } else { text };
    *outcome.errors.entry(text).or_insert(0) += count;
}
