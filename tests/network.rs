//! A network between members that a test may cut: each member is reached by its peers through a port of ours, which holds
//! back the bytes of those that must not hear each other.
//!
//! Who connects is told by etcd's header `X-Server-From`, so that each direction between each two can be cut by itself.
//! What is held back is not lost: it waits, as it would in the queues of the system, until the network is mended or one
//! side gives the connection up.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
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

/// The network of one cluster.
pub struct Network {
    cuts: watch::Sender<Cuts>,
    /// Places by member id.
    known: Arc<Mutex<BTreeMap<u64, usize>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Forwards what comes to each listener to the port at its place.
    ///
    /// # Panics
    /// If no thread or runtime can be made.
    pub fn start(ports: Vec<(std::net::TcpListener, u16)>) -> Network {
        let (cuts, _) = watch::channel(Cuts::new());
        let known = Arc::<Mutex<BTreeMap<u64, usize>>>::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (cut, names) = (cuts.clone(), known.clone());
        let thread = std::thread::spawn(move || {
            crate::run(async move {
                for (place, (listener, port)) in ports.into_iter().enumerate() {
                    listener.set_nonblocking(true).expect("a listener");
                    let listener = TcpListener::from_std(listener).expect("a listener");
                    spawn_local(accept(listener, (place, port), cut.clone(), names.clone()));
                }
                let _ = stopped.await;
            });
        });
        Network { cuts, known, stop: Some(stop), thread: Some(thread) }
    }

    /// Says whose requests are those of this member id. Before that they pass.
    pub fn name(&self, id: u64, place: usize) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(id, place);
    }

    /// What one sends does not reach the other any more.
    pub fn cut(&self, from: usize, to: usize) {
        self.cuts.send_modify(|cuts| {
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

    /// All hear each other again.
    pub fn mend(&self) {
        self.cuts.send_modify(Cuts::clear);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn accept(
    listener: TcpListener,
    to: (usize, u16),
    cuts: watch::Sender<Cuts>,
    known: Arc<Mutex<BTreeMap<u64, usize>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (cuts, known) = (cuts.clone(), known.clone());
        // A connection that breaks is its two ends' affair.
        spawn_local(async move { drop(forward(stream, to, cuts, known).await) });
    }
}

async fn forward(
    mut stream: TcpStream,
    (to, port): (usize, u16),
    cuts: watch::Sender<Cuts>,
    known: Arc<Mutex<BTreeMap<u64, usize>>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let id = sender(&head);
    let from =
        move || id.and_then(|id| known.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied());
    let mut open = cuts.subscribe();
    let passes = |cuts: &Cuts| from().is_none_or(|from| !cuts.contains(&(from, to)));
    if open.wait_for(passes).await.is_err() {
        return Ok(());
    }
    let target = TcpStream::connect(("127.0.0.1", port)).await?;
    target.set_nodelay(true)?;
    stream.set_nodelay(true)?;
    let (from_there, mut to_there) = target.into_split();
    let (from_here, to_here) = stream.into_split();
    to_there.write_all(&head).await?;
    let there = pump(from_here, to_there, cuts.subscribe(), {
        let from = from.clone();
        move |cuts| from().is_none_or(|from| !cuts.contains(&(from, to)))
    });
    let back = pump(from_there, to_here, cuts.subscribe(), move |cuts| {
        from().is_none_or(|from| !cuts.contains(&(to, from)))
    });
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut cuts: watch::Receiver<Cuts>,
    passes: impl Fn(&Cuts) -> bool,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        if cuts.wait_for(&passes).await.is_err() {
            return Ok(());
        }
        to.write_all(&piece[..read]).await?;
    }
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
