//! A network between members that a test may cut: each member is reached by its peers through a port of ours, which holds
//! back the bytes of those that must not hear each other.
//!
//! Who connects is told by etcd's header `X-Server-From`, so that each direction between each two can be cut by itself.
//! What is held back is not lost: it waits, as it would in the queues of the system, until the network is mended or one
//! side gives the connection up.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::spawn_local;

/// A request's head is not longer.
const HEAD_BYTES_MAX: usize = 16 << 10;
const PIECE_BYTES: usize = 64 << 10;

/// Which directions are cut, by the places of sender and receiver.
type Cuts = BTreeSet<(usize, usize)>;

/// What is told to all connections.
#[derive(Clone)]
struct State {
    cuts: watch::Sender<Cuts>,
    /// Places by member id.
    known: Arc<Mutex<BTreeMap<u64, usize>>>,
    tearing: Arc<Mutex<Tearing>>,
    /// Whether streams get no connection.
    no_streams: watch::Sender<bool>,
}

/// Snapshots that break off.
#[derive(Default)]
struct Tearing {
    /// After so many bytes.
    after_bytes: u64,
    /// How many are still to break.
    left: usize,
    /// How many did.
    torn: usize,
}

/// The network of one cluster.
pub struct Network {
    state: State,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Forwards what comes to each listener to the port at its place.
    ///
    /// # Panics
    /// If no thread or runtime can be made.
    pub fn start(ports: Vec<(std::net::TcpListener, u16)>) -> Network {
        let state = State {
            cuts: watch::channel(Cuts::new()).0,
            known: Arc::default(),
            tearing: Arc::default(),
            no_streams: watch::channel(false).0,
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let told = state.clone();
        let thread = std::thread::spawn(move || {
            crate::run(async move {
                for (place, (listener, port)) in ports.into_iter().enumerate() {
                    listener.set_nonblocking(true).expect("a listener");
                    let listener = TcpListener::from_std(listener).expect("a listener");
                    spawn_local(accept(listener, (place, port), told.clone()));
                }
                let _ = stopped.await;
            });
        });
        Network { state, stop: Some(stop), thread: Some(thread) }
    }

    /// Says whose requests are those of this member id. Before that they pass.
    pub fn name(&self, id: u64, place: usize) {
        locked(&self.state.known).insert(id, place);
    }

    /// What one sends does not reach the other any more.
    pub fn cut(&self, from: usize, to: usize) {
        self.state.cuts.send_modify(|cuts| {
            cuts.insert((from, to));
        });
    }

    /// Parts these from all others, in both directions.
    pub fn part(&self, some: &[usize], others: &[usize]) {
        for (a, b) in some.iter().flat_map(|a| others.iter().map(move |b| (*a, *b))) {
            self.cut(a, b);
            self.cut(b, a);
        }
    }

    /// The next so many snapshots break off after so many bytes.
    pub fn tear_snapshots(&self, count: usize, after_bytes: u64) {
        *locked(&self.state.tearing) = Tearing { after_bytes, left: count, torn: 0 };
    }

    /// How many snapshots have broken off since they are torn.
    pub fn torn_snapshots(&self) -> usize {
        locked(&self.state.tearing).torn
    }

    /// Whether members have no streams, those that they have included: then they post each message.
    pub fn refuse_streams(&self, refused: bool) {
        self.state.no_streams.send_replace(refused);
    }

    /// All hear each other again.
    pub fn mend(&self) {
        self.state.cuts.send_modify(Cuts::clear);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, to: (usize, u16), state: State) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        // A connection that breaks is its two ends' affair.
        spawn_local(async move { drop(forward(stream, to, state).await) });
    }
}

async fn forward(mut stream: TcpStream, (to, port): (usize, u16), state: State) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let id = sender(&head);
    let State { cuts, known, .. } = &state;
    let from = || id.and_then(|id| locked(known).get(&id).copied());
    let mut open = cuts.subscribe();
    let passes = |cuts: &Cuts| from().is_none_or(|from| !cuts.contains(&(from, to)));
    if open.wait_for(passes).await.is_err() {
        return Ok(());
    }
    let mut no_streams = state.no_streams.subscribe();
    let is_stream = head.starts_with(b"GET /raft/stream/");
    // Whom it was meant for must not take it for one that is there.
    if is_stream && *no_streams.borrow() {
        return Ok(());
    }
    let refused = async {
        if !is_stream || no_streams.wait_for(|refused| *refused).await.is_err() {
            std::future::pending().await
        }
    };
    let target = TcpStream::connect(("127.0.0.1", port)).await?;
    target.set_nodelay(true)?;
    stream.set_nodelay(true)?;
    let (from_there, mut to_there) = target.into_split();
    let (from_here, to_here) = stream.into_split();
    let first = tear_after(&head, &state);
    to_there.write_all(&head).await?;
    let tears = |piece: &[u8]| tear_after(piece, &state);
    let there = pump((from_here, to_there), (first, tears), cuts.subscribe(), |cuts| {
        from().is_none_or(|from| !cuts.contains(&(from, to)))
    });
    let back = pump((from_there, to_here), (None, |_: &[u8]| None), cuts.subscribe(), |cuts| {
        from().is_none_or(|from| !cuts.contains(&(to, from)))
    });
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
        () = refused => Ok(()),
    }
}

/// After how many bytes a connection breaks off that goes on with this: never, if that does not begin a snapshot.
fn tear_after(piece: &[u8], state: &State) -> Option<u64> {
    let mut tearing = locked(&state.tearing);
    if tearing.left == 0 || !piece.starts_with(b"POST /raft/snapshot") {
        return None;
    }
    tearing.left -= 1;
    tearing.torn += 1;
    Some(tearing.after_bytes)
}

/// Moves bytes until one side ends it, or it is torn: after the bytes that were said before, or as a piece says.
async fn pump(
    (mut from, mut to): (OwnedReadHalf, OwnedWriteHalf),
    (mut left, tears): (Option<u64>, impl Fn(&[u8]) -> Option<u64>),
    mut cuts: watch::Receiver<Cuts>,
    passes: impl Fn(&Cuts) -> bool,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    while left != Some(0) {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        if cuts.wait_for(&passes).await.is_err() {
            return Ok(());
        }
        to.write_all(&piece[..read]).await?;
        left = left.map(|left| left.saturating_sub(read as u64)).or_else(|| tears(&piece[..read]));
    }
    Ok(())
}

/// Whose request it is.
fn sender(head: &[u8]) -> Option<u64> {
    let head = String::from_utf8_lossy(head);
    let value = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-server-from").then_some(value.trim())
    })?;
    u64::from_str_radix(value, 16).ok()
}
