//! Transports on pipes, on a clock that only moves when nothing else can, with hosts that note what they are told.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use raft::{Body, Entry, EntryKind, Index, Message, NodeId, Term};
use server::LocalFuture;
use server::config::Url;
use server::http::Versions;
use server::listen::closing;
use server::log;
use server::peer::{
    Chunk, Dial, Handle, Hash, HashError, Host, Identity, IncomingSnapshot, Io, LeaseError, LeaseTimes,
    Limits, PeerStats, PromoteError, Settings, Transport,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

pub const CLUSTER: u64 = 0xc1;

/// What a connection's buffer holds in each direction.
pub const PIPE_BYTES: usize = 64 << 10;

pub fn on_paused_clock(test: impl Future<Output = ()>) {
    log::set(log::Level::Fatal, log::Format::Json);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Waits for something that comes by itself; an hour of the test's clock is for ever.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..3_600_000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}

/// Holds a connection in the test's hand.
#[derive(Default)]
pub struct Tap {
    is_cut: Cell<bool>,
    /// Nothing is read any more.
    is_shut: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Tap {
    pub fn cut(&self) {
        self.is_cut.set(true);
        self.wake();
    }

    pub fn shut(&self, is_shut: bool) {
        self.is_shut.set(is_shut);
        self.wake();
    }

    fn wake(&self) {
        self.wakers.take().into_iter().for_each(Waker::wake);
    }

    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        self.wakers.borrow_mut().push(cx.waker().clone());
        match self.is_cut.get() {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }
}

struct Tapped(DuplexStream, Rc<Tap>);

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.1.check(cx)?;
        if self.1.is_shut.get() {
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.check(cx)?;
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// All that listen, by host name, and the connections to them.
#[derive(Default)]
pub struct Net {
    listening: RefCell<BTreeMap<String, Transport>>,
    taps: RefCell<Vec<(String, Rc<Tap>)>>,
}

impl Net {
    /// All connections made to this one.
    pub fn taps(&self, to: &str) -> Vec<Rc<Tap>> {
        self.taps.borrow().iter().filter(|(name, _)| name == to).map(|(_, tap)| tap.clone()).collect()
    }

    pub fn forget(&self, to: &str) {
        self.taps.borrow_mut().retain(|(name, _)| name != to);
    }

    pub fn cut_all(&self) {
        self.taps.take().iter().for_each(|(_, tap)| tap.cut());
    }

    /// Nobody is there any more, or somebody.
    pub fn listen(&self, name: &str, transport: Option<Transport>) {
        let mut listening = self.listening.borrow_mut();
        match transport {
            Some(transport) => drop(listening.insert(name.to_owned(), transport)),
            None => drop(listening.remove(name)),
        }
    }

    pub fn connect(&self, name: &str) -> io::Result<impl Io + use<>> {
        let transport = self.listening.borrow().get(name).cloned();
        let transport = transport.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let tap = Rc::<Tap>::default();
        self.taps.borrow_mut().push((name.to_owned(), tap.clone()));
        let served = Tapped(theirs, tap.clone());
        spawn_local(async move { transport.serve(served, closing_never()).await });
        Ok(Tapped(ours, tap))
    }

    /// Says something to a port and answers all that it says until it is done.
    pub async fn say(&self, name: &str, request: &str) -> String {
        self.say_bytes(name, request.as_bytes()).await
    }

    pub async fn say_bytes(&self, name: &str, request: &[u8]) -> String {
        let mut stream = self.connect(name).unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn closing_never() -> server::listen::Closing {
    let (sender, closing) = closing();
    // A sender that is gone would mean the end.
    std::mem::forget(sender);
    closing
}

pub struct NetDial(pub Rc<Net>);

impl Dial for NetDial {
    fn dial<'a>(&'a self, url: &'a Url) -> LocalFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async move { self.0.connect(url.host()).map(|stream| Box::new(stream) as Box<dyn Io>) })
    }
}

/// What a host was told.
#[derive(Default)]
pub struct Told {
    pub messages: Vec<Message>,
    pub batches: usize,
    pub unreachable: Vec<NodeId>,
    pub snapshots: Vec<(NodeId, u64, bool)>,
    pub removed: usize,
    pub databases: Vec<(u64, Option<u64>, Result<u64, &'static str>)>,
}

#[derive(Default)]
pub struct FakeHost {
    told: Mutex<Told>,
    /// More was told.
    news: Condvar,
    /// How many messages the queue takes still.
    pub room: Mutex<Option<usize>>,
    pub gone: Mutex<BTreeSet<NodeId>>,
    /// Nothing of a database is read while this is held.
    pub disk: tokio::sync::Mutex<()>,
    pub behind: Mutex<bool>,
}

impl FakeHost {
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    pub fn messages(&self) -> Vec<Message> {
        self.told().messages.clone()
    }

    /// Waits, on the real clock, until enough was told.
    pub fn wait(&self, condition: impl Fn(&Told) -> bool) {
        drop(self.news.wait_while(self.told(), |told| !condition(told)).unwrap());
    }
}

pub fn members() -> Vec<store::Member> {
    let urls = |url: &str| vec![url.to_owned()];
    let first = store::Member {
        id: 7,
        name: "a&b".into(),
        peer_urls: urls("http://a:1"),
        client_urls: urls("http://a:2"),
        is_learner: false,
    };
    let second =
        store::Member { id: 9, peer_urls: urls("http://b:1"), is_learner: true, ..Default::default() };
    vec![first, second]
}

impl Host for FakeHost {
    fn receive(&self, messages: Vec<Message>) -> usize {
        let mut room = self.room.lock().unwrap();
        let taken = room.unwrap_or(usize::MAX).min(messages.len());
        if let Some(room) = &mut *room {
            *room -= taken;
        }
        let dropped = messages.len() - taken;
        let mut told = self.told();
        told.batches += 1;
        told.messages.extend(messages.into_iter().take(taken));
        self.news.notify_all();
        dropped
    }

    fn unreachable(&self, id: NodeId) {
        self.told().unreachable.push(id);
    }

    fn snapshot_reported(&self, to: NodeId, (_, index): (Term, Index), ok: bool) {
        self.told().snapshots.push((to, index.0, ok));
    }

    fn removed(&self) {
        self.told().removed += 1;
    }

    fn is_removed(&self, id: NodeId) -> bool {
        self.gone.lock().unwrap().contains(&id)
    }

    fn versions(&self) -> Versions {
        Versions { cluster: Some("3.7.0".into()), storage: None }
    }

    fn members(&self) -> Vec<store::Member> {
        members()
    }

    fn receive_snapshot(&self, mut snapshot: IncomingSnapshot) -> LocalFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let (mut bytes, mut ended) = (0, false);
            let _disk = self.disk.lock().await;
            while let Some(chunk) = snapshot.chunks.recv().await {
                match chunk {
                    Chunk::Bytes(chunk) => bytes += chunk.len() as u64,
                    Chunk::End => ended = true,
                }
            }
            let index = snapshot.snapshot.index.0;
            let result = if ended { Ok(bytes) } else { Err("cut") };
            self.told().databases.push((index, snapshot.database_bytes, result));
            result.map(drop).map_err(str::to_owned)
        })
    }

    fn promote(
        &self,
        id: u64,
        token: Option<String>,
    ) -> LocalFuture<'_, Result<Vec<store::Member>, PromoteError>> {
        Box::pin(async move {
            match id {
                1 => Err(PromoteError::NotFound),
                2 => Err(PromoteError::NotLearner),
                3 => Err(PromoteError::NotReady),
                4 => Err(PromoteError::Other("etcdserver: request timed out".into())),
                _ if token.as_deref() == Some("token") => Ok(members()),
                _ => Err(PromoteError::Other("no token".into())),
            }
        })
    }

    fn caught_up(&self) -> LocalFuture<'_, ()> {
        let behind = *self.behind.lock().unwrap();
        Box::pin(async move {
            if behind {
                std::future::pending::<()>().await;
            }
        })
    }

    fn renew_lease(&self, id: i64) -> LocalFuture<'_, Result<i64, LeaseError>> {
        Box::pin(async move {
            match id {
                1 => Ok(60),
                2 => Err(LeaseError::NotPrimary),
                _ => Err(LeaseError::NotFound),
            }
        })
    }

    fn lease_time_to_live(&self, id: i64, keys: bool) -> LocalFuture<'_, Result<LeaseTimes, LeaseError>> {
        Box::pin(async move {
            let keys = if keys { vec!["k".into()] } else { vec![] };
            match id {
                1 => Ok(LeaseTimes { ttl_s: 59, granted_ttl_s: 60, keys }),
                2 => Err(LeaseError::NotPrimary),
                _ => Err(LeaseError::NotFound),
            }
        })
    }

    fn hash_kv(&self, revision: i64) -> LocalFuture<'_, Result<Hash, HashError>> {
        Box::pin(async move {
            match revision {
                0 => Ok(Hash { hash: 77, hash_revision: 12, compact_revision: 0, revision: 12 }),
                1..=4 => Err(HashError::Compacted),
                5..=12 => Ok(Hash { hash: 78, hash_revision: revision, compact_revision: 4, revision: 12 }),
                _ => Err(HashError::Future),
            }
        })
    }

    fn downgrade_enabled(&self) -> LocalFuture<'_, Result<bool, String>> {
        let behind = *self.behind.lock().unwrap();
        Box::pin(async move { if behind { Err("etcdserver: request timed out".into()) } else { Ok(false) } })
    }
}

pub fn limits() -> Limits {
    Limits { queue_bytes_max: 1 << 20, ..Limits::default() }
}

/// A member as far as its peers see it. Its host name is `m` and its id.
pub struct Member {
    pub id: NodeId,
    pub handle: Handle,
    pub host: Arc<FakeHost>,
    pub transport: Transport,
}

impl Member {
    pub fn start(net: &Rc<Net>, id: u64, limits: Limits) -> Member {
        let handle = Handle::new(64 << 20);
        let host = Arc::new(FakeHost::default());
        let identity = Identity { member_id: NodeId(id), cluster_id: CLUSTER, peer_urls: vec![url(id)] };
        let dial = Rc::new(NetDial(net.clone()));
        let transport = Transport::start(
            &handle,
            Settings { identity, limits, security: tls::Info::default() },
            host.clone(),
            dial,
            id,
        );
        spawn_local(transport.clone().run());
        net.listen(&format!("m{id:x}"), Some(transport.clone()));
        Member { id: NodeId(id), handle, host, transport }
    }

    pub fn stats(&self, of: &Member) -> Arc<PeerStats> {
        self.handle.stats().get(&of.id).cloned().unwrap_or_default()
    }

    pub fn meet(&self, other: &Member) {
        self.handle.add_peer(other.id, vec![url(other.id.0)]);
    }

    pub fn append(&self, to: &Member, prev: u64, data: &[usize]) -> Message {
        let entries = data.iter().zip(prev + 1..).map(|(&size, index)| Entry {
            term: Term(2),
            index: Index(index),
            kind: EntryKind::Normal,
            data: vec![index as u8; size].into(),
        });
        let prev = (Index(prev), Term(2));
        self.message(to, Body::Append { prev, entries: entries.collect(), commit: Index(0) })
    }

    pub fn message(&self, to: &Member, body: Body) -> Message {
        Message { from: self.id, to: to.id, term: Term(2), body }
    }
}

pub fn url(id: u64) -> String {
    format!("http://m{id:x}:2380")
}

/// Two members that know each other and have all four streams.
pub async fn pair(limits: Limits) -> (Rc<Net>, Member, Member) {
    let net = Rc::<Net>::default();
    let (one, two) = (Member::start(&net, 0x1a, limits.clone()), Member::start(&net, 2, limits));
    one.meet(&two);
    two.meet(&one);
    connected(&one, &two).await;
    (net, one, two)
}

/// Waits until messages of both go by streams.
pub async fn connected(one: &Member, two: &Member) {
    for (from, to) in [(one, two), (two, one)] {
        until("streams", || {
            // Both streams' first sign of life is a heartbeat; only what comes by a stream is counted in bytes read.
            from.stats(to).active_since().is_some() && from.stats(to).received_bytes.get() >= 11
        })
        .await;
    }
}
