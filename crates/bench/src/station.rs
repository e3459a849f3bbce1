//! A client with streams: connections on one epoll, whose calls and streams a scenario drives step by step.
//!
//! Unlike `run`, which loads with calls of one kind and forgives what fails, whatever goes wrong here ends the scenario:
//! a watch that lost its connection has nothing more to say.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::http2::{Connection, Received, Taking};
use crate::run::{settled, wait};

/// Longest wait for a connection, and for the answer to a call of its own.
const CALL_TIMEOUT: Duration = Duration::from_secs(600);

/// Names a stream: its connection, and its number there.
pub type StreamName = (usize, u32);

/// Connections and their streams.
#[derive(Debug)]
pub struct Station {
    epoll: Epoll,
    peers: Vec<Peer>,
    clock: Instant,
}

#[derive(Debug)]
struct Peer {
    socket: TcpStream,
    codec: Connection,
    /// Whether epoll is to tell when the socket takes bytes again.
    blocked: bool,
}

impl Station {
    /// A station with so many connections.
    ///
    /// # Errors
    /// When the endpoint is not on the loopback interface, can't be reached, or speaks another protocol.
    pub fn connect(endpoint: SocketAddr, connections: usize) -> anyhow::Result<Station> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut station = Station { epoll, peers: Vec::new(), clock: Instant::now() };
        for place in 0..connections {
            let (socket, codec) = settled(endpoint, ("/", |_| true), CALL_TIMEOUT)?;
            station.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
            station.peers.push(Peer { socket, codec, blocked: false });
        }
        Ok(station)
    }

    /// Nanoseconds since the station began.
    pub fn now_ns(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// Opens a stream of `path` on a connection, which must have room for one more.
    ///
    /// # Errors
    /// When it has none.
    pub fn open(&mut self, peer: usize, path: &str, taking: Taking) -> anyhow::Result<StreamName> {
        let codec = &mut self.peers[peer].codec;
        ensure!(codec.can_send(0), "the server takes no more streams: {:?}", codec.goaway());
        Ok((peer, codec.open_stream(path, taking)))
    }

    /// Whether a connection takes one more call with a message of so many bytes now.
    pub fn has_room(&self, peer: usize, message_bytes: usize) -> bool {
        self.peers[peer].codec.can_send(message_bytes)
    }

    /// Queues a message with gRPC's prefix; false if there is no room for it yet.
    pub fn write(&mut self, (peer, stream): StreamName, message: &[u8], last: bool) -> bool {
        self.peers[peer].codec.write(stream, message, last)
    }

    /// Begins a call of its own: opens a stream, and says all there is to say.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn begin(
        &mut self,
        peer: usize,
        path: &str,
        message: &[u8],
        taking: Taking,
    ) -> anyhow::Result<StreamName> {
        let stream = self.open(peer, path, taking)?;
        ensure!(self.write(stream, message, true), "no room for a request of {} bytes", message.len());
        Ok(stream)
    }

    /// Writes what is queued, waits for something to come, at most for `pause`, and tells all that came, and when.
    ///
    /// # Errors
    /// When a connection is lost.
    pub fn turn(
        &mut self,
        pause: Duration,
        mut visit: impl FnMut(usize, u64, Received<'_>),
    ) -> anyhow::Result<()> {
        for (place, peer) in self.peers.iter_mut().enumerate() {
            peer.write(&self.epoll, place)?;
        }
        let mut events = [EpollEvent::empty(); 128];
        let ready = wait(&self.epoll, &mut events, Some(pause))?;
        for event in &events[..ready] {
            let place = event.data() as usize;
            let peer = &mut self.peers[place];
            match peer.codec.fill(&mut peer.socket) {
                Ok(0) => bail!("closed by the server {}", peer.codec.goaway().unwrap_or_default()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error).context("read"),
            }
            let now = self.clock.elapsed().as_nanos() as u64;
            peer.codec.receive(|received| visit(place, now, received))?;
        }
        Ok(())
    }

    /// Makes one call and returns its answer.
    ///
    /// # Errors
    /// When it fails, with its text, or is not answered in ten minutes.
    pub fn call(&mut self, peer: usize, path: &str, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (_, call) = self.begin(peer, path, message, Taking::Messages)?;
        let deadline = Instant::now() + CALL_TIMEOUT;
        let (mut answer, mut ended) = (Vec::new(), None);
        while ended.is_none() {
            ensure!(Instant::now() < deadline, "{path}: no answer within {CALL_TIMEOUT:?}");
            self.turn(Duration::from_millis(100), |_, _, received| match received {
                Received::Message { stream, message } if stream == call => answer = message.to_vec(),
                Received::Ended { stream, outcome, .. } if stream == call => ended = Some(outcome),
                _ => {}
            })?;
        }
        match ended {
            Some(Err(text)) => bail!("{path}: {text}"),
            _ => Ok(answer),
        }
    }
}

impl Peer {
    fn write(&mut self, epoll: &Epoll, place: usize) -> anyhow::Result<()> {
        if !self.codec.has_output() {
            return Ok(());
        }
        let flushed = self.codec.flush(&mut self.socket).context("write")?;
        if self.blocked == flushed {
            self.blocked = !flushed;
            let out = if flushed { EpollFlags::empty() } else { EpollFlags::EPOLLOUT };
            epoll.modify(&self.socket, &mut EpollEvent::new(EpollFlags::EPOLLIN | out, place as u64))?;
        }
        Ok(())
    }
}
