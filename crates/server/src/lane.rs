//! A network thread's side of the member.
//!
//! Requests of all connections of a thread gather in one outbox, which leaves for the member once per turn of
//! the runtime; answers come back in whole batches and are handed to their connections by one task, the
//! [`LaneDriver`], which wakes each connection once (one wake a request costs more than the request).
//!
//! Linearizable reads share rounds: all that arrive while a round is in flight go into the next one. A round
//! is retried with a new context, since contexts are never reused (rule 19).

mod calls;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use node::{Completions, LaneIds, Promotion, RequestId, Submission};
use rustc_hash::FxHashMap;
use store::{Answer, RequestKind};
use tokio::sync::{Notify, mpsc, oneshot, watch as watch_channel};
use tokio::time::{Instant, Sleep};
use wire::{ApiError, Status};

use crate::grpc::MemberView;
use crate::metrics::{Own, Timed};
use watch::Watches;

pub use calls::Reply;
pub use watch::{WatchParts, WatchStream};

/// How long a confirmation of leadership may take before it is asked for again.
const READ_RETRY: Duration = Duration::from_millis(500);

/// Calls from outside the lane's thread-local world that may wait for the driver.
const COLD_CALLS_MAX: usize = 1024;

/// Takes what a network thread asks of the member.
pub trait MemberPort {
    /// Hands over a batch, in order. What the member has no room for is given back and was not taken.
    fn submit(&self, batch: Vec<Submission>) -> Result<(), Vec<Submission>>;
}

/// How the apply thread learns whether a lane waits for an index to be applied, or for events, without a message to
/// every lane for every batch.
#[derive(Debug)]
pub struct AppliedGate {
    index: AtomicU64,
    watches: AtomicBool,
}

impl Default for AppliedGate {
    fn default() -> Self {
        AppliedGate { index: AtomicU64::new(u64::MAX), watches: AtomicBool::new(false) }
    }
}

impl AppliedGate {
    /// The lane wants to hear of the next change. It looks at the revision once more after this.
    fn watch(&self) {
        self.watches.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Whether the lane wants to hear of a change; it is told once, until it wants it again. To be asked after the change
    /// was published.
    pub fn take_watch(&self) -> bool {
        fence(Ordering::SeqCst);
        self.watches.swap(false, Ordering::SeqCst)
    }

    /// Whether the lane wants to hear that everything through `applied` is applied.
    pub fn wants(&self, applied: u64) -> bool {
        self.index.load(Ordering::SeqCst) <= applied
    }

    /// As [`AppliedGate::wants`], for the one who tells it: it is told once, until it waits again. A lane whose thread
    /// is busy for long must not be sent a message for every batch, for then apply would come to wait for it. To be
    /// asked after [`crate::grpc::SharedStatus::set_applied`] of the same index: then no wait is missed.
    pub fn take(&self, applied: u64) -> bool {
        self.wants(applied)
            && self
                .index
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |index| {
                    (index <= applied).then_some(u64::MAX)
                })
                .is_ok()
    }

    fn wait_for(&self, index: u64) {
        self.index.store(index, Ordering::SeqCst);
    }
}

/// The place of a call on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where the connection keeps the call.
    pub index: usize,
    /// The call's HTTP/2 stream, so that an answer for a call that is gone reaches no other.
    pub stream: u32,
}

/// What a waiting call is told.
#[derive(Debug)]
pub enum Outcome {
    /// The proposal was applied.
    Applied(Answer),
    /// The read may run now: everything that was acknowledged before it arrived is visible.
    Readable,
    /// The call failed.
    Failed(Status),
}

/// Where a connection's outcomes are put until it is polled.
#[derive(Debug, Default)]
pub struct Mailbox {
    outcomes: RefCell<Vec<(Slot, Outcome)>>,
    waker: RefCell<Option<Waker>>,
    draining: Cell<bool>,
}

impl Mailbox {
    fn push(&self, slot: Slot, outcome: Outcome) {
        let mut outcomes = self.outcomes.borrow_mut();
        outcomes.push((slot, outcome));
        if outcomes.len() == 1 {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Registers the connection's task, to be woken by the next outcome.
    pub fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match waker.as_ref() {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
    }

    /// Swaps the outcomes into `into`, which must be empty.
    pub fn take(&self, into: &mut Vec<(Slot, Outcome)>) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut *self.outcomes.borrow_mut(), into);
    }

    /// Whether the thread is about to end, and the connection should finish what it has and close.
    pub fn draining(&self) -> bool {
        self.draining.get()
    }
}

enum Target {
    Stream(Rc<Mailbox>, Slot),
    Cold(oneshot::Sender<Outcome>),
}

impl Target {
    /// Whether nobody waits any more, as far as can be told without being told.
    fn is_gone(&self) -> bool {
        matches!(self, Target::Cold(sender) if sender.is_closed())
    }

    fn deliver(self, outcome: Outcome) {
        match self {
            Target::Stream(mailbox, slot) => mailbox.push(slot, outcome),
            Target::Cold(sender) => drop(sender.send(outcome)),
        }
    }
}

struct Waiter {
    target: Target,
    /// Whether it waits for something that may happen without its being told.
    is_proposal: bool,
    /// If it is counted.
    counted: Option<Proposal>,
    deadline: Instant,
    on_expiry: ApiError,
}

/// A proposal that has no answer yet, as it is counted. A change of membership is not, as in etcd.
struct Proposal {
    counts: Own,
    timed: Timed,
    begun: Instant,
}

impl Proposal {
    fn new(counts: &Own, timed: Timed, begun: Instant) -> Proposal {
        counts.proposals_pending.add_alone(1);
        Proposal { counts: counts.clone(), timed, begun }
    }

    /// It was applied, whatever came of it.
    fn applied(self, now: Instant) {
        self.time(true, now);
    }

    /// It has no answer, or was not taken.
    fn failed(self, now: Instant) {
        self.counts.proposals_failed.add_alone(1);
        self.time(false, now);
    }

    fn time(&self, is_success: bool, now: Instant) {
        self.counts.time_request(self.timed, is_success, now.saturating_duration_since(self.begun));
    }
}

impl Drop for Proposal {
    fn drop(&mut self) {
        self.counts.proposals_pending.sub_alone(1);
    }
}

/// One confirmation of leadership and the reads that wait for it.
struct Round {
    /// All contexts that it was asked with; any of them answers it.
    contexts: Vec<RequestId>,
    readers: Vec<RequestId>,
    retry_at: Instant,
    /// When it has had no answer for so long that it counts as slow. That goes on where nobody waits any more, and with the
    /// round that takes its place: clients that give up early must not hide a member that has no answer.
    slow_at: Instant,
}

#[derive(Default)]
struct Reads {
    next: Vec<RequestId>,
    in_flight: Option<Round>,
    /// Confirmed, but not yet applied as far as they must see.
    behind: Vec<(u64, Vec<RequestId>)>,
    applied: u64,
}

/// What a lane is built from.
pub struct LaneParts {
    /// The member, as far as reads and headers need it.
    pub member: Arc<MemberView>,
    /// Where submissions go.
    pub port: Box<dyn MemberPort>,
    /// This lane's ids.
    pub ids: LaneIds,
    /// Shared with the apply thread.
    pub gate: Arc<AppliedGate>,
    /// For watches.
    pub watches: WatchParts,
    /// What this thread counts, for whichever member.
    pub counts: Own,
    /// Longest wait for the member: 5 s + 2 election timeouts in etcd.
    pub request_timeout: Duration,
}

struct Inner {
    parts: RefCell<Rc<LaneParts>>,
    ids: RefCell<LaneIds>,
    outbox: RefCell<Vec<Submission>>,
    waiters: RefCell<FxHashMap<u64, Waiter>>,
    reads: RefCell<Reads>,
    /// No waiter's deadline is before this.
    earliest: Cell<Option<Instant>>,
    driver: RefCell<Option<Waker>>,
    driver_woken: Cell<bool>,
    stopped: Cell<bool>,
    /// The member is gone, and opened anew.
    suspended: Cell<bool>,
    /// That has come to its end, by a new member or none.
    resumed: Notify,
    /// Counts the members there have been, and the times between them.
    generation: Cell<u64>,
    mailboxes: RefCell<Vec<std::rc::Weak<Mailbox>>>,
    /// Whether the thread is about to end.
    draining: watch_channel::Sender<bool>,
    watches: Watches,
    counts: Own,
    /// Held by each call that waits for its token to be known here.
    token_waiters: Rc<()>,
    cold: mpsc::Sender<ColdCall>,
}

/// The member as a lane sees it now.
#[derive(Clone)]
pub struct CurrentMember(Rc<LaneParts>);

impl Deref for CurrentMember {
    type Target = Arc<MemberView>;

    fn deref(&self) -> &Arc<MemberView> {
        &self.0.member
    }
}

/// Makes, on its network thread, what that thread's lane is built from and what the member sends it.
pub type LaneSeed = Box<dyn FnOnce() -> (LaneParts, mpsc::Receiver<Completions>) + Send>;

/// A network thread's side of the member; cheap to clone, and bound to its thread.
#[derive(Clone)]
pub struct Lane(Rc<Inner>);

/// Asks something of the lane from a task that must be `Send`.
struct ColdCall {
    ask: Ask,
    deadline: Option<Instant>,
    generation: u64,
    reply: oneshot::Sender<Outcome>,
}

enum Ask {
    /// A linearizable read.
    Read,
    /// A proposal: made from the lane's ids, the first of which is its header's.
    Propose(Box<Encode>),
    /// A change of membership: made from an id of the lane's.
    Reconfigure(Box<EncodeChange>),
}

/// Encodes an `InternalRaftRequest` whose header has the id given; says too whether it grows what is stored. Further ids
/// are to be had.
type Encode = dyn FnOnce(RequestId, &mut dyn FnMut() -> RequestId) -> (Vec<u8>, bool) + Send;

/// Encodes a `ConfChange` that has the id given; says too whether it promotes a learner.
type EncodeChange = dyn FnOnce(RequestId) -> (Vec<u8>, Option<Promotion>) + Send;

/// The part of a lane that tasks which must be `Send` can hold: the calls off the hot path. It is of the member that the lane
/// has just now: whoever holds that one too must not take what the next one confirms for its own.
#[derive(Clone, Debug)]
pub struct LaneHandle {
    calls: mpsc::Sender<ColdCall>,
    generation: u64,
}

impl LaneHandle {
    /// Waits until a read at this moment would be linearizable. `deadline`: the client's own.
    pub async fn linearizable(&self, deadline: Option<Instant>) -> Result<(), Status> {
        match self.ask(Ask::Read, deadline).await? {
            Outcome::Failed(status) => Err(status),
            _ => Ok(()),
        }
    }

    /// Proposes what `encode` makes of a fresh id and waits until it is applied.
    pub async fn propose(
        &self,
        deadline: Option<Instant>,
        encode: impl FnOnce(RequestId, &mut dyn FnMut() -> RequestId) -> (Vec<u8>, bool) + Send + 'static,
    ) -> Result<Answer, Status> {
        match self.ask(Ask::Propose(Box::new(encode)), deadline).await? {
            Outcome::Applied(answer) => Ok(answer),
            Outcome::Failed(status) => Err(status),
            Outcome::Readable => Err(ApiError::Stopped.into()),
        }
    }

    /// Proposes the change of membership that `encode` makes of a fresh id ([`node::Change::encode`]), and waits until it
    /// is applied here: [`store::Reader::membership`] has it then.
    pub async fn reconfigure(
        &self,
        deadline: Option<Instant>,
        encode: impl FnOnce(RequestId) -> (Vec<u8>, Option<Promotion>) + Send + 'static,
    ) -> Result<(), Status> {
        match self.ask(Ask::Reconfigure(Box::new(encode)), deadline).await? {
            Outcome::Applied(_) => Ok(()),
            Outcome::Failed(status) => Err(status),
            Outcome::Readable => Err(ApiError::Stopped.into()),
        }
    }

    async fn ask(&self, ask: Ask, deadline: Option<Instant>) -> Result<Outcome, Status> {
        let (reply, outcome) = oneshot::channel();
        let stopped = || Status::from(ApiError::Stopped);
        let generation = self.generation;
        self.calls.send(ColdCall { ask, deadline, generation, reply }).await.map_err(|_| stopped())?;
        outcome.await.map_err(|_| stopped())
    }
}

impl Lane {
    /// A lane and its driver, which must be run on the lane's thread for anything to happen. `completions` is
    /// what the member sends to this lane.
    pub fn new(parts: LaneParts, completions: mpsc::Receiver<Completions>) -> (Lane, LaneDriver) {
        let (cold, cold_calls) = mpsc::channel(COLD_CALLS_MAX);
        let ids = parts.ids.clone();
        let watches = Watches::new(&parts.member, &parts.watches);
        let counts = parts.counts.clone();
        let lane = Lane(Rc::new(Inner {
            parts: RefCell::new(Rc::new(parts)),
            ids: RefCell::new(ids),
            outbox: RefCell::default(),
            waiters: RefCell::default(),
            reads: RefCell::default(),
            earliest: Cell::new(None),
            driver: RefCell::default(),
            driver_woken: Cell::new(false),
            stopped: Cell::new(false),
            suspended: Cell::new(false),
            resumed: Notify::new(),
            generation: Cell::new(0),
            mailboxes: RefCell::default(),
            draining: watch_channel::Sender::new(false),
            watches,
            counts,
            token_waiters: Rc::default(),
            cold,
        }));
        let driver = LaneDriver { lane: lane.clone(), completions, renewals: None, cold_calls, timer: None };
        (lane, driver)
    }

    /// The member that this lane speaks to, as of now: it may be opened anew.
    pub fn member(&self) -> CurrentMember {
        CurrentMember(self.parts())
    }

    /// What this thread counts.
    pub fn counts(&self) -> &Own {
        &self.0.counts
    }

    fn parts(&self) -> Rc<LaneParts> {
        Rc::clone(&self.0.parts.borrow())
    }

    /// The member is gone, and is being opened anew. What was proposed gets no answer, and who waits for anything else than
    /// a read of a connection's has to ask again: those alone look at the member only once they may.
    fn suspend(&self) {
        if self.0.suspended.replace(true) {
            return;
        }
        self.0.generation.set(self.0.generation.get() + 1);
        // Whoever waits for what is still in it is answered below.
        self.0.outbox.borrow_mut().clear();
        let mut reads = self.0.reads.borrow_mut();
        let Reads { next, in_flight, behind, .. } = std::mem::take(&mut *reads);
        let behind = behind.into_iter().flat_map(|(_, readers)| readers);
        let readers = in_flight.into_iter().flat_map(|round| round.readers).chain(behind).chain(next);
        let mut waiters = self.0.waiters.borrow_mut();
        reads.next = readers
            .filter(|id| waiters.get(&id.0).is_some_and(|waiter| matches!(waiter.target, Target::Stream(..))))
            .collect();
        let waiting: HashSet<u64> = reads.next.iter().map(|id| id.0).collect();
        let ended: Vec<_> = waiters.extract_if(|id, _| !waiting.contains(id)).collect();
        drop(waiters);
        drop(reads);
        for (_, waiter) in ended {
            waiter.target.deliver(Outcome::Failed(ApiError::Stopped.into()));
        }
    }

    /// The member is there again, with all that its leader has.
    fn go_on_with(&self, parts: LaneParts) {
        self.0.ids.replace(parts.ids.clone());
        self.0.watches.renew(&parts.member, &parts.watches);
        self.0.parts.replace(Rc::new(parts));
        self.0.generation.set(self.0.generation.get() + 1);
        self.0.suspended.set(false);
        self.0.resumed.notify_waiters();
        self.wake_driver();
    }

    /// For tasks that must be `Send`.
    pub fn handle(&self) -> LaneHandle {
        LaneHandle { calls: self.0.cold.clone(), generation: self.0.generation.get() }
    }

    /// A mailbox for a new connection.
    pub fn mailbox(&self) -> Rc<Mailbox> {
        let mailbox = Rc::new(Mailbox::default());
        mailbox.draining.set(self.0.stopped.get());
        let mut all = self.0.mailboxes.borrow_mut();
        if all.len() == all.capacity() {
            all.retain(|known| known.strong_count() > 0);
        }
        all.push(Rc::downgrade(&mailbox));
        mailbox
    }

    /// Tells every connection of the thread to finish the calls that it has and to close.
    pub fn drain(&self) {
        self.0.draining.send_if_modified(|draining| !std::mem::replace(draining, true));
        for mailbox in self.0.mailboxes.borrow().iter().filter_map(std::rc::Weak::upgrade) {
            mailbox.draining.set(true);
            mailbox.wake();
        }
    }

    /// Ends when the thread is about to end: for calls that have no end of their own.
    pub fn drained(&self) -> impl Future<Output = ()> + use<> {
        let mut draining = self.0.draining.subscribe();
        async move { drop(draining.wait_for(|draining| *draining).await) }
    }

    /// Calls that wait for the member.
    pub fn waiting(&self) -> usize {
        self.0.waiters.borrow().len()
    }

    /// A fresh id.
    pub fn next_id(&self) -> RequestId {
        self.0.ids.borrow_mut().next()
    }

    /// Proposes `data`, whose header carries `id`, and says whether it `grows` what is stored; the outcome goes to
    /// `slot` of `mailbox`. `client_deadline`: when the client stops waiting.
    pub fn propose(
        &self,
        id: RequestId,
        (data, grows): (Bytes, bool),
        to: (&Rc<Mailbox>, Slot),
        now: Instant,
        client_deadline: Option<Instant>,
    ) {
        let target = Target::Stream(Rc::clone(to.0), to.1);
        self.propose_for(id, (data, grows), target, now, client_deadline);
    }

    fn propose_for(
        &self,
        id: RequestId,
        (data, grows): (Bytes, bool),
        target: Target,
        now: Instant,
        client_deadline: Option<Instant>,
    ) {
        self.submit_for(id, Submission::Propose { id, data, grows }, target, now, client_deadline);
    }

    fn submit_for(
        &self,
        id: RequestId,
        submission: Submission,
        target: Target,
        now: Instant,
        client_deadline: Option<Instant>,
    ) {
        // As in etcd: a proposal that no leader can take ends as its context does, not as a timeout.
        let on_timeout = match self.parts().member.status.leader() {
            0 => ApiError::ContextDeadlineExceeded,
            _ => ApiError::Timeout,
        };
        let timed = match &submission {
            Submission::Propose { data, .. } => Some(Timed::Kind(RequestKind::of(data))),
            Submission::Reconfigure { .. } | Submission::ReadIndex { .. } | Submission::GiveUp { .. } => None,
        };
        self.wait(id, target, now, client_deadline, (true, timed, on_timeout));
        self.0.outbox.borrow_mut().push(submission);
        self.wake_driver();
    }

    /// Asks for a linearizable read: `slot` of `mailbox` gets [`Outcome::Readable`]. The id cancels it.
    pub fn read(
        &self,
        to: (&Rc<Mailbox>, Slot),
        now: Instant,
        client_deadline: Option<Instant>,
    ) -> RequestId {
        self.read_for(Target::Stream(Rc::clone(to.0), to.1), now, client_deadline)
    }

    fn read_for(&self, target: Target, now: Instant, client_deadline: Option<Instant>) -> RequestId {
        let id = self.next_id();
        self.wait(id, target, now, client_deadline, (false, None, ApiError::Timeout));
        self.0.reads.borrow_mut().next.push(id);
        self.wake_driver();
        id
    }

    fn answer_cold(&self, call: ColdCall, now: Instant) {
        let target = Target::Cold(call.reply);
        if call.generation != self.0.generation.get() {
            return target.deliver(Outcome::Failed(ApiError::Stopped.into()));
        }
        match call.ask {
            Ask::Read => drop(self.read_for(target, now, call.deadline)),
            Ask::Propose(encode) => {
                let id = self.next_id();
                let (data, grows) = encode(id, &mut || self.next_id());
                self.propose_for(id, (Bytes::from(data), grows), target, now, call.deadline);
            }
            Ask::Reconfigure(encode) => {
                let id = self.next_id();
                let (data, promotes) = encode(id);
                let submission = Submission::Reconfigure { id, data: Bytes::from(data), promotes };
                self.submit_for(id, submission, target, now, call.deadline);
            }
        }
    }

    /// Forgets a call whose client has gone. What was proposed may still happen, unless it waits for a leader (rule 15).
    pub fn cancel(&self, id: RequestId) {
        let Some(waiter) = self.0.waiters.borrow_mut().remove(&id.0) else { return };
        if waiter.is_proposal {
            self.0.outbox.borrow_mut().push(Submission::GiveUp { id });
            self.wake_driver();
        }
        if let Some(proposal) = waiter.counted {
            proposal.failed(Instant::now());
        }
    }

    /// `timed`: as what it is counted, if it is.
    fn wait(
        &self,
        id: RequestId,
        target: Target,
        now: Instant,
        client_deadline: Option<Instant>,
        (is_proposal, timed, on_timeout): (bool, Option<Timed>, ApiError),
    ) {
        let is_refused = self.0.suspended.get() && (is_proposal || matches!(target, Target::Cold(_)));
        if self.0.stopped.get() || is_refused {
            return target.deliver(Outcome::Failed(ApiError::Stopped.into()));
        }
        let timeout = now + self.request_timeout();
        let (deadline, on_expiry) = match client_deadline {
            Some(client) if client < timeout => (client, ApiError::ContextDeadlineExceeded),
            _ => (timeout, on_timeout),
        };
        let counted = timed.map(|timed| Proposal::new(&self.0.counts, timed, now));
        self.0
            .waiters
            .borrow_mut()
            .insert(id.0, Waiter { target, is_proposal, counted, deadline, on_expiry });
        if self.0.earliest.get().is_none_or(|earliest| deadline < earliest) {
            self.0.earliest.set(Some(deadline));
        }
    }

    fn wake_driver(&self) {
        if !self.0.driver_woken.replace(true)
            && let Some(waker) = self.0.driver.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    fn finish(&self, id: RequestId, outcome: Outcome) {
        let waiter = self.0.waiters.borrow_mut().remove(&id.0);
        if let Some(waiter) = waiter {
            waiter.target.deliver(outcome);
        }
    }

    /// A proposal was applied, whatever came of it, or was not taken.
    fn end(&self, id: RequestId, end: Result<Outcome, Status>, now: Instant) {
        let Some(Waiter { target, counted, .. }) = self.0.waiters.borrow_mut().remove(&id.0) else { return };
        match (&end, counted) {
            (Ok(_), Some(proposal)) => proposal.applied(now),
            // As in etcd what comes at the wrong moment is none of those that failed.
            (Err(status), Some(_)) if *status == ApiError::TooManyRequests.into() => {}
            (Err(_), Some(proposal)) => proposal.failed(now),
            (_, None) => {}
        }
        target.deliver(end.unwrap_or_else(Outcome::Failed));
    }

    fn complete(&self, batch: Completions, now: Instant) {
        for (id, result) in batch.answers {
            self.end(id, Ok(result.map_or_else(Outcome::Failed, Outcome::Applied)), now);
        }
        for (id, refusal) in batch.refused {
            self.end(id, Err(refusal), now);
        }
        if let Some(last) = batch.lost_upto {
            self.lose(last, now);
        }
        for (context, result) in batch.reads {
            self.end_round(context, result);
        }
        self.release_reads(batch.applied_index);
    }

    /// Proposals up to this one went to a leader that is gone, and will never be answered.
    fn lose(&self, last: RequestId, now: Instant) {
        let is_lost =
            |id: &u64, waiter: &mut Waiter| waiter.is_proposal && RequestId(*id).is_at_or_before(last);
        let lost: Vec<_> = self.0.waiters.borrow_mut().extract_if(is_lost).collect();
        for (_, waiter) in lost {
            waiter.counted.into_iter().for_each(|proposal| proposal.failed(now));
            waiter.target.deliver(Outcome::Failed(ApiError::TimeoutDueToLeaderFail.into()));
        }
    }

    fn end_round(&self, context: RequestId, result: Result<u64, Status>) {
        let mut reads = self.0.reads.borrow_mut();
        let Some(round) = reads.in_flight.take_if(|round| round.contexts.contains(&context)) else { return };
        match result {
            Ok(index) => reads.behind.push((index, round.readers)),
            // As in etcd nobody is told that the leader is gone before there is another: then it is asked, anew.
            Err(status) if status == ApiError::LeaderChanged.into() && self.member().status.leader() == 0 => {
                reads.in_flight = Some(Round { retry_at: Instant::now(), ..round });
                drop(reads);
                self.wake_driver();
            }
            Err(status) => {
                drop(reads);
                self.0.counts.failed_read_indexes.add_alone(1);
                for id in round.readers {
                    self.finish(id, Outcome::Failed(status.clone()));
                }
            }
        }
    }

    /// Lets every confirmed read go whose index is applied, and tells the apply thread about the others.
    fn release_reads(&self, applied: u64) {
        let parts = self.parts();
        let mut reads = self.0.reads.borrow_mut();
        reads.applied = reads.applied.max(applied);
        while !reads.behind.is_empty() {
            reads.applied = reads.applied.max(parts.member.status.applied());
            let applied = reads.applied;
            let (ready, behind) =
                std::mem::take(&mut reads.behind).into_iter().partition(|(i, _)| *i <= applied);
            reads.behind = behind;
            for (_, readers) in ready {
                for id in readers {
                    self.finish(id, Outcome::Readable);
                }
            }
            let Some(lowest) = reads.behind.iter().map(|(index, _)| *index).min() else { break };
            parts.gate.wait_for(lowest);
            // The gate is shut before the index is looked at again: either we see it, or the apply thread sees us.
            if parts.member.status.applied() < lowest {
                return;
            }
        }
        parts.gate.wait_for(u64::MAX);
    }

    /// Starts the next round of reads if none is in flight, or repeats one that got no answer.
    fn start_round(&self, now: Instant) {
        if self.0.suspended.get() {
            return;
        }
        let mut reads = self.0.reads.borrow_mut();
        let mut slow_at = now + self.request_timeout();
        if let Some(round) = &mut reads.in_flight {
            if now < round.retry_at {
                return;
            }
            let is_slow = round.slow_at <= now;
            if is_slow {
                self.0.counts.slow_read_indexes.add_alone(1);
                round.slow_at = slow_at;
            }
            let waiters = self.0.waiters.borrow();
            round.readers.retain(|id| waiters.contains_key(&id.0));
            round.retry_at = round.slow_at.min(now + READ_RETRY);
            if !round.readers.is_empty() {
                let context = self.next_id();
                round.contexts.push(context);
                self.0.outbox.borrow_mut().push(Submission::ReadIndex { context });
                return;
            }
            slow_at = round.slow_at;
            if is_slow {
                reads.in_flight = None;
            }
        }
        if reads.next.is_empty() {
            return;
        }
        let context = self.next_id();
        let readers = std::mem::take(&mut reads.next);
        let retry_at = slow_at.min(now + READ_RETRY);
        reads.in_flight = Some(Round { contexts: vec![context], readers, retry_at, slow_at });
        self.0.outbox.borrow_mut().push(Submission::ReadIndex { context });
    }

    fn flush(&self) {
        let batch = std::mem::take(&mut *self.0.outbox.borrow_mut());
        // What was to be proposed to a member that is gone has its answer.
        if batch.is_empty() || self.0.suspended.get() {
            return;
        }
        if let Err(refused) = self.parts().port.submit(batch) {
            for submission in refused {
                // A refused round is asked for again with the retry.
                if let Submission::Propose { id, .. } | Submission::Reconfigure { id, .. } = submission {
                    self.end(id, Err(ApiError::TooManyRequests.into()), Instant::now());
                }
            }
        }
    }

    fn expire(&self, now: Instant) {
        if self.0.earliest.get().is_none_or(|earliest| now < earliest) {
            return;
        }
        let mut earliest = None;
        let expired: Vec<_> = self
            .0
            .waiters
            .borrow_mut()
            .extract_if(|_, waiter| {
                let over = waiter.deadline <= now || waiter.target.is_gone();
                if !over {
                    earliest = Some(earliest.map_or(waiter.deadline, |e: Instant| e.min(waiter.deadline)));
                }
                over
            })
            .collect();
        self.0.earliest.set(earliest);
        for (id, waiter) in expired {
            if waiter.is_proposal {
                self.0.outbox.borrow_mut().push(Submission::GiveUp { id: RequestId(id) });
            }
            waiter.counted.into_iter().for_each(|proposal| proposal.failed(now));
            let error = match waiter.on_expiry {
                ApiError::Timeout if waiter.is_proposal => {
                    self.member().proposal_timeout(self.request_timeout())
                }
                error => error,
            };
            waiter.target.deliver(Outcome::Failed(error.into()));
        }
    }

    fn stop(&self) {
        self.0.stopped.set(true);
        self.0.resumed.notify_waiters();
        let waiters = std::mem::take(&mut *self.0.waiters.borrow_mut());
        for waiter in waiters.into_values() {
            waiter.target.deliver(Outcome::Failed(ApiError::Stopped.into()));
        }
        *self.0.reads.borrow_mut() = Reads::default();
        self.drain();
    }

    fn next_timer(&self) -> Option<Instant> {
        let retry = self.0.reads.borrow().in_flight.as_ref().map(|round| round.retry_at);
        match (self.0.earliest.get(), retry) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// The one task of a lane: hands out answers, sends the outbox, ends what takes too long.
///
/// It is woken by the first submission of a turn and so runs after the connections that were ready before it.
/// Ends when the member is gone; every call then gets `Stopped`.
pub struct LaneDriver {
    lane: Lane,
    completions: mpsc::Receiver<Completions>,
    /// Where the next one comes from, if the member is opened anew.
    renewals: Option<mpsc::UnboundedReceiver<LaneSeed>>,
    cold_calls: mpsc::Receiver<ColdCall>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl LaneDriver {
    /// Goes on with the members that come by `renewals`, each when the one before it is gone.
    #[must_use]
    pub fn renewed_by(self, renewals: mpsc::UnboundedReceiver<LaneSeed>) -> Self {
        LaneDriver { renewals: Some(renewals), ..self }
    }
}

impl Future for LaneDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let inner = &this.lane.0;
        {
            let mut waker = inner.driver.borrow_mut();
            if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        inner.driver_woken.set(false);
        let mut now = Instant::now();
        while let Poll::Ready(batch) = this.completions.poll_recv(cx) {
            match batch {
                Some(batch) => this.lane.complete(batch, now),
                None => match this.renewals.as_mut().map(|renewals| renewals.poll_recv(cx)) {
                    Some(Poll::Pending) => {
                        this.lane.suspend();
                        break;
                    }
                    Some(Poll::Ready(Some(seed))) => {
                        // Also where it was gone for no longer than a moment.
                        this.lane.suspend();
                        let (parts, completions) = seed();
                        this.completions = completions;
                        this.lane.go_on_with(parts);
                    }
                    Some(Poll::Ready(None)) | None => {
                        this.lane.stop();
                        return Poll::Ready(());
                    }
                },
            }
        }
        while let Poll::Ready(Some(call)) = this.cold_calls.poll_recv(cx) {
            this.lane.answer_cold(call, now);
        }
        if this.lane.pump_watches() {
            // The others of this thread have their turn first.
            cx.waker().wake_by_ref();
        }
        loop {
            this.lane.expire(now);
            this.lane.start_round(now);
            this.lane.flush();
            let Some(at) = this.lane.next_timer() else { return Poll::Pending };
            let timer = match &mut this.timer {
                Some(timer) => {
                    if timer.deadline() != at {
                        timer.as_mut().reset(at);
                    }
                    timer
                }
                none => none.insert(Box::pin(tokio::time::sleep_until(at))),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            now = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_told_once_until_it_waits_again() {
        let gate = AppliedGate::default();
        assert!(!gate.take(u64::MAX - 1), "nobody waits");
        gate.wait_for(5);
        assert!(!gate.take(4));
        assert!(gate.take(6));
        assert!(!gate.take(7), "it knows");
        gate.wait_for(7);
        assert!(gate.take(7));
    }
}
