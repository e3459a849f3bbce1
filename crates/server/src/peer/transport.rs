//! The transport on the peer thread, and the handle that the member's threads have of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raft::{Body, Message, NodeId};
use tokio::sync::{Notify, oneshot};
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::body::Database;
use super::codec::Encoder;
use super::dial::Dial;
use super::host::Host;
use super::link::Link;
use super::stats::{AllStats, PeerStats};
use super::{Question, Reply, Settings, ask, post};
use crate::config::Url;
use crate::log;

/// How soon it is looked again whether all has left.
const FLUSH_INTERVAL: Duration = Duration::from_millis(1);

/// For the peer thread.
enum Mail {
    Send(Vec<Message>),
    Snapshot(Message, Database),
    AddPeer(NodeId, Vec<String>),
    AddRemote(NodeId, Vec<String>),
    Update(NodeId, Vec<String>),
    Remove(NodeId),
    Ask(Asked),
    Stop,
}

/// A question to another member, and who waits for its answer.
struct Asked {
    url: Url,
    question: Question,
    timeout: Duration,
    reply: oneshot::Sender<Result<Reply, String>>,
}

#[derive(Default)]
struct Mailbox {
    mail: Vec<Mail>,
    /// Bytes of messages in it.
    bytes: usize,
    /// Messages that were dropped because it was full, for each receiver.
    dropped: BTreeMap<NodeId, u64>,
    /// Nobody empties it any more: what is put into it is dropped, so that whoever waits for it hears of that.
    is_stopped: bool,
}

struct Shelf {
    mailbox: Mutex<Mailbox>,
    arrived: Notify,
    bytes_max: usize,
    /// Of those who are members now.
    stats: Mutex<BTreeMap<NodeId, Arc<PeerStats>>>,
    all_stats: AllStats,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic anywhere ends the process; a half-made change cannot be seen.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands work to the peer thread. No method waits for anything but another's hold of a short lock.
#[derive(Clone)]
pub struct Handle(Arc<Shelf>);

impl Handle {
    /// A handle; [`Transport::start`] takes up its other end. `handed_bytes_max` bounds the bytes of messages that the
    /// peer thread has not taken yet; beyond it messages are dropped, and their receivers reported as unreachable.
    pub fn new(handed_bytes_max: usize) -> Handle {
        Handle::counting(handed_bytes_max, AllStats::default())
    }

    /// As [`Handle::new`], going on with numbers that there are.
    pub fn counting(handed_bytes_max: usize, all_stats: AllStats) -> Handle {
        Handle(Arc::new(Shelf {
            mailbox: Mutex::default(),
            arrived: Notify::new(),
            bytes_max: handed_bytes_max,
            stats: Mutex::default(),
            all_stats,
        }))
    }

    fn put(&self, mail: Mail) {
        let mut mailbox = lock(&self.0.mailbox);
        if mailbox.is_stopped {
            return;
        }
        mailbox.mail.push(mail);
        self.wake(mailbox);
    }

    /// A peer thread that has not yet taken what came before is not woken again.
    fn wake(&self, mailbox: MutexGuard<'_, Mailbox>) {
        let was_empty = mailbox.mail.len() == 1;
        drop(mailbox);
        if was_empty {
            self.0.arrived.notify_one();
        }
    }

    /// Sends messages, each at most once: those of one step of consensus in one call, when what they wait for is durable.
    /// Those to members that nobody has told of are dropped. A snapshot goes by [`Handle::send_snapshot`].
    pub fn send(&self, mut messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let mut mailbox = lock(&self.0.mailbox);
        if mailbox.is_stopped {
            return;
        }
        messages.retain(|message| {
            let bytes = mailbox.bytes + size(message);
            let fits = mailbox.bytes == 0 || bytes <= self.0.bytes_max;
            match fits {
                true => mailbox.bytes = bytes,
                false => *mailbox.dropped.entry(message.to).or_default() += 1,
            }
            fits
        });
        mailbox.mail.push(Mail::Send(messages));
        self.wake(mailbox);
    }

    /// Sends a snapshot, `raft::Body::Snapshot`, and the database that it stands for. How that ended is told by
    /// [`Host::snapshot_reported`], always.
    pub fn send_snapshot(&self, message: Message, database: Database) {
        self.put(Mail::Snapshot(message, database));
    }

    /// A member of the cluster, other than this one: streams to it are kept from now on. One that is there already is
    /// left as it is.
    pub fn add_peer(&self, id: NodeId, urls: Vec<String>) {
        self.put(Mail::AddPeer(id, urls));
    }

    /// Somebody who can only be answered, by POST: a member that is known to others, and not yet here. For a member that
    /// joins, all those that it was told of.
    pub fn add_remote(&self, id: NodeId, urls: Vec<String>) {
        self.put(Mail::AddRemote(id, urls));
    }

    /// A member's URLs are others now.
    pub fn update_peer(&self, id: NodeId, urls: Vec<String>) {
        self.put(Mail::Update(id, urls));
    }

    /// A member was removed: its connections are cut.
    pub fn remove_peer(&self, id: NodeId) {
        self.put(Mail::Remove(id));
    }

    /// As [`ask`], from any thread: the peer thread asks. The question is dropped with the future.
    ///
    /// # Errors
    /// Why there is no answer; whether the question arrived is not known then.
    pub fn ask(
        &self,
        url: Url,
        question: Question,
        timeout: Duration,
    ) -> impl Future<Output = Result<Reply, String>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        self.put(Mail::Ask(Asked { url, question, timeout, reply }));
        async move { answer.await.unwrap_or_else(|_| Err("the member is stopping".to_owned())) }
    }

    /// Whether nobody asks anything for this handle any more.
    pub fn is_stopped(&self) -> bool {
        lock(&self.0.mailbox).is_stopped
    }

    /// Ends [`Transport::run`], and cuts all connections.
    pub fn stop(&self) {
        self.put(Mail::Stop);
    }

    /// The numbers of all peers.
    pub fn stats(&self) -> BTreeMap<NodeId, Arc<PeerStats>> {
        lock(&self.0.stats).clone()
    }

    /// The numbers of all that are or were peers, or came as such.
    pub fn all_stats(&self) -> &AllStats {
        &self.0.all_stats
    }

    /// Counts proposals that a member has handed on, and that were not taken.
    pub fn count_refused(&self, from: NodeId, proposals: u64) {
        if let Some(stats) = self.0.all_stats.known(from) {
            stats.proposals_refused.add(proposals);
        }
    }
}

/// Bytes that a message holds in memory, about.
pub(crate) fn size(message: &Message) -> usize {
    let payload: usize = match &message.body {
        Body::Append { entries, .. } => entries.iter().map(raft::Entry::size).sum(),
        Body::Propose { entries } => entries.iter().map(|(_, data)| 64 + data.len()).sum(),
        Body::Snapshot { snapshot } => snapshot.data.len(),
        _ => 0,
    };
    size_of::<Message>() + payload
}

/// What all links share.
pub(super) struct Shared {
    pub settings: Settings,
    pub host: Arc<dyn Host>,
    pub dial: Rc<dyn Dial>,
    /// Bytes of messages that are being posted to this member.
    pub posted_bytes: Cell<u64>,
    /// Bytes of the messages before the databases of snapshots, of those that are being received.
    pub snapshot_heads_bytes: Cell<u64>,
    /// Snapshots that are being received.
    pub snapshots_incoming: Cell<usize>,
    shelf: Arc<Shelf>,
    random: Cell<u64>,
}

impl Shared {
    /// The numbers of a peer, or of somebody who may become one.
    pub(super) fn register(&self, id: NodeId, is_peer: bool) -> Arc<PeerStats> {
        let stats = self.shelf.all_stats.of(id, is_peer);
        if is_peer {
            lock(&self.shelf.stats).insert(id, stats.clone());
        }
        stats
    }

    /// How long to wait before the next dial: longer with each failure in a row, and never quite the same, so that
    /// members that lost each other at the same moment do not meet again and again.
    pub(super) fn backoff(&self, failures: u32) -> Duration {
        let limits = &self.settings.limits;
        let pause = limits.dial_pause * (1 << failures.saturating_sub(1).min(8));
        let pause = pause.min(limits.dial_pause_max);
        let mut random = self.random.get();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.set(random);
        // Between a half and the whole.
        pause / 2 + pause.mul_f64((random % 1024) as f64 / 2048.0)
    }

    /// Hands messages to consensus.
    pub(super) fn deliver(&self, stats: &PeerStats, from: NodeId, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let dropped = self.host.receive(messages);
        if dropped > 0 {
            stats.received_failures.add(dropped as u64);
            log::warn!(
                "dropped internal Raft message since receiving buffer is full (overloaded network)",
                "local-member-id" => self.settings.identity.member_id.to_string(),
                "from" => from.to_string(),
                "messages" => dropped,
            );
        }
    }
}

/// The transport. Lives on the peer thread, inside a `LocalSet`; cloning gives another name for the same.
#[derive(Clone)]
pub struct Transport {
    pub(super) shared: Rc<Shared>,
    links: Rc<RefCell<BTreeMap<NodeId, Rc<Link>>>>,
}

impl Transport {
    /// Takes up the other end of a handle. `seed` is entropy, for the jitter.
    pub fn start(
        handle: &Handle,
        settings: Settings,
        host: Arc<dyn Host>,
        dial: Rc<dyn Dial>,
        seed: u64,
    ) -> Transport {
        let random = Cell::new(seed | 1);
        let shared = Rc::new(Shared {
            settings,
            host,
            dial,
            posted_bytes: Cell::new(0),
            snapshot_heads_bytes: Cell::new(0),
            snapshots_incoming: Cell::new(0),
            shelf: handle.0.clone(),
            random,
        });
        Transport { shared, links: Rc::default() }
    }

    /// Does what the handle asks for, until it is stopped.
    pub async fn run(self) {
        let mut encoder = Encoder::default();
        loop {
            self.shared.shelf.arrived.notified().await;
            let Mailbox { mail, dropped, .. } = std::mem::take(&mut *lock(&self.shared.shelf.mailbox));
            for mail in mail {
                match mail {
                    Mail::Send(messages) => {
                        messages.into_iter().for_each(|message| self.send(&mut encoder, message))
                    }
                    Mail::Snapshot(message, database) => self.send_snapshot(message, database),
                    Mail::AddPeer(id, urls) => self.add(id, &urls, true),
                    Mail::AddRemote(id, urls) => self.add(id, &urls, false),
                    Mail::Update(id, urls) => drop(self.link(id).map(|link| link.update(&urls))),
                    Mail::Remove(id) => self.remove(id),
                    Mail::Ask(asked) => self.ask(asked),
                    Mail::Stop => {
                        let stopped = Mailbox { is_stopped: true, ..Mailbox::default() };
                        drop(std::mem::replace(&mut *lock(&self.shared.shelf.mailbox), stopped));
                        self.flush().await;
                        return self.stop();
                    }
                }
            }
            encoder.clear();
            for (id, count) in dropped {
                if let Some(link) = self.link(id) {
                    link.overflowed_outside(count);
                }
            }
            self.links.borrow().values().for_each(|link| link.report_overflow());
        }
    }

    pub(super) fn link(&self, id: NodeId) -> Option<Rc<Link>> {
        self.links.borrow().get(&id).cloned()
    }

    fn send(&self, encoder: &mut Encoder, message: Message) {
        let Some(link) = self.link(message.to) else {
            log::debug!(
                "ignored message send request; unknown remote peer target",
                "unknown-target-peer-id" => message.to.to_string(),
            );
            return;
        };
        if let Some(sent) = message.sent_snapshot() {
            // Without its database it would be acknowledged for nothing.
            return self.shared.host.snapshot_reported(message.to, sent, false);
        }
        link.send(encoder.encode(message));
    }

    fn ask(&self, asked: Asked) {
        let Asked { url, question, timeout, mut reply } = asked;
        let shared = self.shared.clone();
        spawn_local(async move {
            tokio::select! {
                answer = ask(&shared.dial, &url, &shared.settings, question, timeout) => drop(reply.send(answer)),
                () = reply.closed() => {}
            }
        });
    }

    fn send_snapshot(&self, message: Message, database: Database) {
        let Some(sent) = message.sent_snapshot() else { return };
        match self.link(message.to).filter(|link| link.is_peer()) {
            Some(link) => link.spawn(post::snapshot(link.clone(), message, sent, database)),
            None => self.shared.host.snapshot_reported(message.to, sent, false),
        }
    }

    /// Adds a link. Of those who are no members only some are kept: whoever was silent the longest makes room.
    pub(super) fn add(&self, id: NodeId, urls: &[String], is_peer: bool) {
        if id == self.shared.settings.identity.member_id || !is_peer && self.shared.host.is_removed(id) {
            return;
        }
        let mut links = self.links.borrow_mut();
        if let Some(link) = links.get(&id).filter(|link| link.is_peer() || !is_peer) {
            return link.heard();
        }
        let gives_way = if is_peer { Some(id) } else { self.silent_remote(&links) };
        if let Some(remote) = gives_way.and_then(|id| links.remove(&id)) {
            remote.stop();
        }
        links.insert(id, Link::start(&self.shared, id, urls, is_peer));
        log::info!(
            if is_peer { "added remote peer" } else { "added new remote peer" },
            "local-member-id" => self.shared.settings.identity.member_id.to_string(),
            "remote-peer-id" => id.to_string(),
            "remote-peer-urls" => urls,
        );
    }

    /// Of those who are no members, if they are as many as there may be, the one that was silent the longest.
    fn silent_remote(&self, links: &BTreeMap<NodeId, Rc<Link>>) -> Option<NodeId> {
        let remotes = || links.values().filter(|link| !link.is_peer());
        if remotes().count() < self.shared.settings.limits.remotes_max {
            return None;
        }
        remotes().min_by_key(|link| link.heard_at()).map(|link| link.id())
    }

    fn remove(&self, id: NodeId) {
        let Some(link) = self.links.borrow_mut().remove(&id) else { return };
        link.stop();
        lock(&self.shared.shelf.stats).remove(&id);
        log::info!(
            "removed remote peer",
            "local-member-id" => self.shared.settings.identity.member_id.to_string(),
            "removed-remote-peer-id" => id.to_string(),
        );
    }

    /// Lets streams take what waits for them, for a little while: a leader's last message names its successor.
    async fn flush(&self) {
        let deadline = Instant::now() + self.shared.settings.limits.flush_timeout;
        while self.links.borrow().values().any(|link| link.has_waiting()) && Instant::now() < deadline {
            tokio::time::sleep(FLUSH_INTERVAL).await;
        }
    }

    fn stop(&self) {
        for link in std::mem::take(&mut *self.links.borrow_mut()).into_values() {
            link.stop();
        }
        lock(&self.shared.shelf.stats).clear();
    }
}
