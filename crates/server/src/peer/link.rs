//! One remote member: the queues towards it, and the tasks that keep its connections.
//!
//! A message goes by the stream for its kind if the remote has dialled one, else by the other stream if that is for all
//! kinds, else by a POST. What waits is bounded in number and bytes; what is beyond the bound is dropped, and consensus
//! is told, once, that the member is unreachable.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use raft::{MessageType, NodeId};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;

use super::codec::Outgoing;
use super::stats::PeerStats;
use super::transport::Shared;
use super::{Limits, post, probe, reader};
use crate::config::Url;
use crate::log;

/// etcd's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamKind {
    /// `msgapp`: appends.
    Append,
    /// `message`: everything else, and appends as long as there is no stream for them.
    Message,
}

impl StreamKind {
    pub(super) const ALL: [StreamKind; 2] = [StreamKind::Append, StreamKind::Message];

    /// The last folder of its path.
    pub(super) fn path(self) -> &'static str {
        match self {
            StreamKind::Append => "msgapp",
            StreamKind::Message => "message",
        }
    }

    /// etcd's name for it in its log.
    pub(super) fn name(self) -> &'static str {
        match self {
            StreamKind::Append => "stream MsgApp v2",
            StreamKind::Message => "stream Message",
        }
    }
}

/// What waits for one stream.
#[derive(Default)]
struct Queue {
    messages: VecDeque<Outgoing>,
    /// Counts the streams there have been.
    generation: u64,
    is_attached: bool,
    /// Of the stream, when it has nothing to do.
    waker: Option<Waker>,
}

/// The URLs of a member, one of which is used until it fails.
struct Urls {
    urls: Vec<Url>,
    picked: usize,
}

pub(super) struct Link {
    id: NodeId,
    /// A member, with streams, and not merely somebody who can be answered.
    is_peer: bool,
    shared: Rc<Shared>,
    stats: Arc<PeerStats>,
    urls: RefCell<Urls>,
    queues: [RefCell<Queue>; 2],
    posts: RefCell<VecDeque<Outgoing>>,
    posting: Cell<usize>,
    queued_bytes: Cell<usize>,
    /// Messages were dropped since the last look.
    overflowed: Cell<bool>,
    /// When somebody last said that he is this one.
    heard_at: Cell<Instant>,
    /// Something has shown that the remote is there: dials need not wait.
    pub(super) alive: [Notify; 2],
    tasks: RefCell<Vec<AbortHandle>>,
}

impl Link {
    /// Starts the tasks of a link. Must be called inside a `LocalSet`.
    pub(super) fn start(shared: &Rc<Shared>, id: NodeId, urls: &[String], is_peer: bool) -> Rc<Link> {
        let link = Rc::new(Link {
            id,
            is_peer,
            shared: shared.clone(),
            stats: shared.register(id, is_peer),
            urls: RefCell::new(Urls { urls: parse(id, urls), picked: 0 }),
            queues: Default::default(),
            posts: RefCell::default(),
            posting: Cell::new(0),
            queued_bytes: Cell::new(0),
            overflowed: Cell::new(false),
            heard_at: Cell::new(Instant::now()),
            alive: Default::default(),
            tasks: RefCell::default(),
        });
        if is_peer {
            log::info!("starting remote peer", "remote-peer-id" => id.to_string());
            for kind in StreamKind::ALL {
                link.spawn(reader::run(link.clone(), kind));
            }
            link.spawn(probe::run(link.clone()));
        }
        link
    }

    /// Runs a part of the link's work until it ends or the link does.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.retain(|task| !task.is_finished());
        tasks.push(spawn_local(task).abort_handle());
    }

    /// Ends all that is under way.
    pub(super) fn stop(&self) {
        for task in self.tasks.borrow_mut().drain(..) {
            task.abort();
        }
        for kind in StreamKind::ALL {
            let mut queue = self.queue(kind).borrow_mut();
            queue.generation += 1;
            queue.is_attached = false;
            queue.messages.clear();
            if let Some(waker) = queue.waker.take() {
                waker.wake();
            }
        }
        self.posts.borrow_mut().clear();
        self.queued_bytes.set(0);
        self.stats.set_queued(0);
        if !self.is_peer {
            // Its next link, if it has become a member, finds out by itself.
            self.stats.forget_activity();
        } else {
            self.stats.deactivate();
            log::info!("stopped remote peer", "remote-peer-id" => self.id.to_string());
        }
    }

    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    pub(super) fn is_peer(&self) -> bool {
        self.is_peer
    }

    /// Somebody has said again that he is this one.
    pub(super) fn heard(&self) {
        self.heard_at.set(Instant::now());
    }

    pub(super) fn heard_at(&self) -> Instant {
        self.heard_at.get()
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.shared.settings.limits
    }

    pub(super) fn stats(&self) -> &PeerStats {
        &self.stats
    }

    /// Where to try next.
    pub(super) fn url(&self) -> Option<Url> {
        let urls = self.urls.borrow();
        urls.urls.get(urls.picked).cloned()
    }

    /// It did not work there: the next one, if the member has several.
    pub(super) fn url_failed(&self, url: &Url) {
        let mut urls = self.urls.borrow_mut();
        if urls.urls.get(urls.picked) == Some(url) {
            urls.picked = (urls.picked + 1) % urls.urls.len();
        }
    }

    /// The member is reached elsewhere now. Streams that stand go on; what is dialled from now on is the new place.
    pub(super) fn update(&self, urls: &[String]) {
        *self.urls.borrow_mut() = Urls { urls: parse(self.id, urls), picked: 0 };
        self.alive.iter().for_each(Notify::notify_one);
    }

    /// Messages reach it.
    pub(super) fn activate(&self) {
        if self.stats.activate() && self.is_peer {
            log::info!("peer became active", "peer-id" => self.id.to_string());
        }
    }

    /// They do not; `what` was tried, and failed for this reason.
    pub(super) fn deactivate(&self, what: &str, error: &str) {
        let text = format!("failed to {what} {} ({error})", self.id);
        let id = self.id.to_string();
        if self.stats.deactivate() && self.is_peer {
            log::warn!("peer became inactive (message send to peer failed)", "peer-id" => id, "error" => text);
        } else {
            log::debug!("peer deactivated again", "peer-id" => id, "error" => text);
        }
    }

    fn queue(&self, kind: StreamKind) -> &RefCell<Queue> {
        &self.queues[kind as usize]
    }

    /// Sends a message by the best way there is, or drops it.
    pub(super) fn send(self: &Rc<Self>, message: Outgoing) {
        let kind = match message.kind {
            MessageType::App if self.queue(StreamKind::Append).borrow().is_attached => StreamKind::Append,
            _ => StreamKind::Message,
        };
        let mut queue = self.queue(kind).borrow_mut();
        if !queue.is_attached {
            drop(queue);
            return self.post(message);
        }
        if queue.messages.len() >= self.limits().queue_messages_max || !self.admits(&message) {
            return self.overflow(&message);
        }
        self.queued(message.size() as isize);
        queue.messages.push_back(message);
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    fn post(self: &Rc<Self>, message: Outgoing) {
        if self.posts.borrow().len() >= self.limits().posts_max || !self.admits(&message) {
            return self.overflow(&message);
        }
        self.queued(message.size() as isize);
        self.posts.borrow_mut().push_back(message);
        if self.posting.get() < self.limits().posts_at_once {
            self.posting.set(self.posting.get() + 1);
            self.spawn(post::run(self.clone()));
        }
    }

    /// The next message to be posted; without one, the caller ends.
    pub(super) fn next_post(&self) -> Option<Outgoing> {
        let Some(message) = self.posts.borrow_mut().pop_front() else {
            self.posting.set(self.posting.get() - 1);
            return None;
        };
        self.queued(-(message.size() as isize));
        Some(message)
    }

    /// Whether there is room; one message of any size has it when nothing waits.
    fn admits(&self, message: &Outgoing) -> bool {
        let queued = self.queued_bytes.get();
        queued == 0 || queued + message.size() <= self.limits().queue_bytes_max
    }

    fn queued(&self, bytes: isize) {
        self.queued_bytes.set(self.queued_bytes.get().saturating_add_signed(bytes));
        self.stats.set_queued(self.queued_bytes.get());
    }

    fn overflow(&self, message: &Outgoing) {
        self.stats.dropped.add(1);
        self.stats.sent_failures.add(1);
        if !self.overflowed.replace(true) {
            log::warn!(
                "dropped internal Raft message since sending buffer is full",
                "message-type" => format!("{:?}", message.kind),
                "local-member-id" => self.shared.settings.identity.member_id.to_string(),
                "remote-peer-id" => self.id.to_string(),
                "remote-peer-active" => self.stats.active_since().is_some(),
            );
        }
    }

    /// A message was dropped before it came here.
    pub(super) fn overflowed_outside(&self, count: u64) {
        self.stats.dropped.add(count);
        self.stats.sent_failures.add(count);
        self.overflowed.set(true);
    }

    /// Whether something waits to be sent.
    pub(super) fn has_waiting(&self) -> bool {
        self.queued_bytes.get() > 0
    }

    /// Tells consensus of what was dropped since the last time.
    pub(super) fn report_overflow(&self) {
        if self.overflowed.take() {
            self.shared.host.unreachable(self.id);
        }
    }

    /// A message could not be sent.
    pub(super) fn send_failed(&self) {
        self.stats.sent_failures.add(1);
        self.shared.host.unreachable(self.id);
    }

    /// The remote has dialled a stream: it takes the place of the one before it, which ends. Answers its number.
    pub(super) fn attach(&self, kind: StreamKind) -> u64 {
        let mut queue = self.queue(kind).borrow_mut();
        queue.generation += 1;
        queue.is_attached = true;
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
        let generation = queue.generation;
        drop(queue);
        log::info!(
            "established TCP streaming connection with remote peer",
            "stream-writer-type" => kind.name(),
            "local-member-id" => self.shared.settings.identity.member_id.to_string(),
            "remote-peer-id" => self.id.to_string(),
        );
        self.activate();
        self.alive.iter().for_each(Notify::notify_one);
        generation
    }

    pub(super) fn is_attached(&self, kind: StreamKind, generation: u64) -> bool {
        let queue = self.queue(kind).borrow();
        queue.is_attached && queue.generation == generation
    }

    /// The stream is gone, and with it what was in it.
    pub(super) fn detach(&self, kind: StreamKind, generation: u64) {
        if !self.is_attached(kind, generation) {
            return;
        }
        let mut queue = self.queue(kind).borrow_mut();
        queue.is_attached = false;
        let lost = std::mem::take(&mut queue.messages);
        drop(queue);
        let bytes: usize = lost.iter().map(Outgoing::size).sum();
        self.queued(-(bytes as isize));
        self.stats.sent_failures.add(lost.len() as u64);
        log::warn!(
            "lost TCP streaming connection with remote peer",
            "stream-writer-type" => kind.name(),
            "local-member-id" => self.shared.settings.identity.member_id.to_string(),
            "remote-peer-id" => self.id.to_string(),
        );
        self.deactivate("write to", kind.name());
        self.shared.host.unreachable(self.id);
    }

    pub(super) fn pop(&self, kind: StreamKind) -> Option<Outgoing> {
        let message = self.queue(kind).borrow_mut().messages.pop_front()?;
        self.queued(-(message.size() as isize));
        Some(message)
    }

    /// Wakes the stream when there is something for it.
    pub(super) fn wait(&self, kind: StreamKind, waker: &Waker) {
        self.queue(kind).borrow_mut().waker = Some(waker.clone());
    }
}

/// The URLs that are some; others cannot be dialled, and are said.
fn parse(id: NodeId, urls: &[String]) -> Vec<Url> {
    let parsed = urls.iter().filter_map(|url| match Url::parse(url) {
        Ok(url) => Some(url),
        Err(error) => {
            log::warn!("failed to parse a peer URL", "remote-peer-id" => id.to_string(), "error" => error);
            None
        }
    });
    parsed.collect()
}
