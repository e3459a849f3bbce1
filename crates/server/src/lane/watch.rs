//! The watches of a network thread's streams: the lane's hub, and what makes it go on.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use store::watch::{Answerer, HistoryJob, Hub, HubLimits, StreamId, Tail};
use tokio::task::spawn_local;
use wire::etcdserverpb::WatchCreateRequest;

use super::Lane;
use crate::grpc::MemberView;
use crate::metrics::Own;

/// Reads of history that are under way for one thread. The hub has three groups that read.
const JOBS_MAX: usize = 3;

/// What the watches of a lane are made of.
pub struct WatchParts {
    /// The member's newest events.
    pub tail: Arc<Tail>,
    /// How much is held and done.
    pub limits: HubLimits,
}

/// The lane's hub and who waits for it.
pub(super) struct Watches {
    hub: RefCell<Hub>,
    /// The tasks that serve the streams, by their numbers.
    wakers: RefCell<Vec<Option<Waker>>>,
    noted: RefCell<Vec<StreamId>>,
    jobs: Cell<usize>,
}

impl Watches {
    pub(super) fn new(member: &MemberView, parts: &WatchParts) -> Self {
        let answerer = Answerer {
            cluster_id: member.cluster_id,
            member_id: member.member_id,
            raft_term: member.status.term(),
        };
        let hub = Hub::new(member.reader.clone(), Arc::clone(&parts.tail), answerer, parts.limits);
        Watches {
            hub: RefCell::new(hub),
            wakers: RefCell::default(),
            noted: RefCell::default(),
            jobs: Cell::new(0),
        }
    }

    /// The member was opened anew.
    pub(super) fn renew(&self, member: &MemberView, parts: &WatchParts) {
        self.hub.borrow_mut().renew(member.reader.clone(), Arc::clone(&parts.tail));
    }

    /// Shows how the streams and watches are.
    fn show(&self, counts: &Own) {
        let (hub, counts) = (self.hub.borrow(), &counts.watches);
        counts.streams.set(hub.streams() as u64);
        counts.watches.set(hub.watches() as u64);
        counts.behind.set(hub.watches_behind() as u64);
        counts.events.set(hub.taken_events());
        counts.events_waiting.set(hub.waiting_events());
    }

    fn wake(&self, stream: StreamId) {
        if let Some(waker) = self.wakers.borrow_mut().get_mut(stream.0).and_then(Option::take) {
            waker.wake();
        }
    }

    fn wake_noted(&self) {
        let mut noted = self.noted.borrow_mut();
        self.hub.borrow_mut().take_noted(&mut noted);
        noted.drain(..).for_each(|stream| self.wake(stream));
    }
}

impl Lane {
    /// Opens a stream of watches.
    pub fn watch(&self) -> WatchStream {
        let id = self.0.watches.hub.borrow_mut().open();
        self.0.watches.show(&self.0.counts);
        WatchStream { lane: self.clone(), id }
    }

    /// How many watches there are.
    pub fn watches(&self) -> usize {
        self.0.watches.hub.borrow().watches()
    }

    /// What waits for the clients of all streams of watches, bytes.
    pub fn watch_bytes(&self) -> usize {
        self.0.watches.hub.borrow().waiting_bytes()
    }

    /// Tells the streams what is new, a bounded amount of it. True if there is more to do at once.
    pub(super) fn pump_watches(&self) -> bool {
        let watches = &self.0.watches;
        let mut hub = watches.hub.borrow_mut();
        if !hub.is_subscribed() {
            return false;
        }
        let parts = self.parts();
        let member = &parts.member;
        hub.set_term(member.status.term());
        let mut more = hub.pump();
        while watches.jobs.get() < JOBS_MAX
            && let Some(job) = hub.next_job()
        {
            watches.jobs.set(watches.jobs.get() + 1);
            spawn_local(self.clone().run_history(job));
        }
        if !more {
            // First the gate, then another look: either we see what is new, or the apply thread sees us.
            parts.gate.watch();
            more = hub.has_news();
        }
        drop(hub);
        watches.wake_noted();
        watches.show(&self.0.counts);
        more
    }

    async fn run_history(self, job: HistoryJob) {
        let member = Arc::clone(&self.parts().member);
        let reader = member.reader.clone();
        let result = member.history.run(move || job.run(&reader)).await;
        let watches = &self.0.watches;
        watches.jobs.set(watches.jobs.get() - 1);
        // Without one the process is about to end.
        if let Some(result) = result {
            watches.hub.borrow_mut().finish(result);
            watches.wake_noted();
            watches.show(&self.0.counts);
            self.wake_driver();
        }
    }
}

/// One stream of watches; its watches end with it.
pub struct WatchStream {
    lane: Lane,
    id: StreamId,
}

impl WatchStream {
    fn with<T>(&self, act: impl FnOnce(&mut Hub, StreamId) -> T) -> T {
        let mut hub = self.lane.0.watches.hub.borrow_mut();
        // As long as nobody watches the hub hears of no new term.
        hub.set_term(self.lane.member().status.term());
        let done = act(&mut hub, self.id);
        drop(hub);
        self.lane.0.watches.show(&self.lane.0.counts);
        self.lane.wake_driver();
        done
    }

    /// Creates a watch, or tells the client why not.
    pub fn create(&self, request: &WatchCreateRequest) {
        self.with(|hub, id| hub.create(id, request));
    }

    /// Tells the client why a watch is not created.
    pub fn refuse(&self, reason: &str) {
        self.with(|hub, id| hub.refuse(id, reason));
    }

    /// Cancels a watch.
    pub fn cancel(&self, watch_id: i64) {
        self.with(|hub, id| hub.cancel(id, watch_id));
    }

    /// Answers a request for progress.
    pub fn progress(&self) {
        self.with(|hub, id| hub.progress(id));
    }

    /// Tells the watches that asked for it how far they are.
    pub fn notify_progress(&self) {
        self.with(|hub, id| hub.notify_progress(id));
    }

    /// Whether any watch asked to be told of progress.
    pub fn wants_progress(&self) -> bool {
        self.lane.0.watches.hub.borrow().wants_progress(self.id)
    }

    /// Whether the client has to take answers before it may ask for more.
    pub fn is_full(&self) -> bool {
        self.lane.0.watches.hub.borrow().is_full(self.id)
    }

    /// Takes all that is to be sent, and tells how many events that is; the task is woken when there is something.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<(Vec<u8>, u64)> {
        let watches = &self.lane.0.watches;
        let mut hub = watches.hub.borrow_mut();
        if !hub.has_response(self.id) {
            let mut wakers = watches.wakers.borrow_mut();
            if wakers.len() <= self.id.0 {
                wakers.resize_with(self.id.0 + 1, || None);
            }
            let waker = &mut wakers[self.id.0];
            match waker {
                Some(known) if known.will_wake(cx.waker()) => {}
                _ => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        if hub.has_parked(self.id) {
            self.lane.wake_driver();
        }
        let events = hub.events_of(self.id);
        let bytes = hub.take(self.id);
        drop(hub);
        watches.show(&self.lane.0.counts);
        Poll::Ready((bytes, events))
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let watches = &self.lane.0.watches;
        watches.hub.borrow_mut().close(self.id);
        watches.show(&self.lane.0.counts);
        if let Some(waker) = watches.wakers.borrow_mut().get_mut(self.id.0) {
            *waker = None;
        }
    }
}
