//! `Watch.Watch`: one task a stream, between the client's requests and the lane's hub.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use wire::etcdserverpb::watch_request::RequestUnion;
use wire::etcdserverpb::{WatchCreateRequest, WatchRequest};
use wire::{Code, Status};

use super::Shared;
use super::incoming::Incoming;
use super::stream::Outgoing;
use super::task::{self, StreamCall};
use crate::auth::Credentials;
use crate::lane::{Lane, WatchStream};
use crate::metrics::{WatchCounts, nanoseconds};

/// Requests of a stream that are answered before the thread's other tasks have their turn.
const REQUESTS_PER_TURN: u32 = 32;

/// Serves a stream to its end.
pub(super) async fn run(call: StreamCall, front: Rc<Shared>) {
    let limit = front.config.limits.message_bytes_max();
    let receiver = call.counted.receiver();
    let mut out = Outgoing::new(call.respond, call.deadline, call.held, call.counted);
    if out.wait(front.lane.token_known(&call.credentials, call.deadline)).await.is_none() {
        return;
    }
    let mut requests = Requests {
        lane: front.lane.clone(),
        credentials: call.credentials,
        incoming: Incoming::new(call.body, limit, call.head.gzip, receiver),
        watches: front.lane.watch(),
        progress: Progress::new(front.config.watch_progress_interval),
        is_open: true,
        refused: None,
        answered: 0,
    };
    let end = task::cut(&front, call.head.leader_required);
    tokio::pin!(end);
    loop {
        let turn = tokio::select! {
            biased;
            turn = out.wait(requests.serve()) => turn,
            error = &mut end => return out.finish(Err(error.into())),
        };
        match turn {
            // The client is gone, or was told that its time is over.
            None => return,
            Some(Ok((bytes, events))) => {
                let begun = Instant::now();
                tokio::select! {
                    sent = requests.serve_while(out.send(Bytes::from(bytes))) => if sent.is_none() { return },
                    // In the middle of a message the stream can only be reset.
                    _ = &mut end => return,
                }
                count_sent(&requests.lane.counts().watches, events, begun.elapsed());
            }
            Some(Err(status)) => return out.finish(Err(status)),
        }
    }
}

/// Counts how long it took to send responses with so many events.
fn count_sent(counts: &WatchCounts, events: u64, took: Duration) {
    match took.checked_div(u32::try_from(events).unwrap_or(u32::MAX)) {
        Some(share) => {
            counts.event_sends.observe_alone(nanoseconds(took), 1);
            counts.event_shares.observe_alone(nanoseconds(share), 1);
        }
        None => counts.control_sends.observe_alone(nanoseconds(took), 1),
    }
}

/// What a client asks for, and what there is to tell it.
struct Requests {
    lane: Lane,
    credentials: Credentials,
    incoming: Incoming,
    watches: WatchStream,
    progress: Progress,
    /// False once the client has said all that it wants. It still listens.
    is_open: bool,
    /// What the stream ends with once it can.
    refused: Option<Status>,
    /// Requests answered in this turn.
    answered: u32,
}

impl Requests {
    /// Answers requests until there is something to send, or an end. Tells too how many events that is.
    async fn serve(&mut self) -> Result<(Vec<u8>, u64), Status> {
        loop {
            self.let_others().await;
            if let Some(status) = self.refused.take() {
                return Err(status);
            }
            let is_heard = self.is_heard();
            tokio::select! {
                biased;
                request = self.incoming.next(), if is_heard => self.answer(request),
                taken = poll_fn(|cx| self.watches.poll_take(cx)) => return Ok(taken),
                () = self.progress.due() => {
                    let begun = Instant::now();
                    self.watches.notify_progress();
                    let turns = &self.lane.counts().watches.progress_turns;
                    turns.observe_alone(nanoseconds(begun.elapsed()), 1);
                }
            }
        }
    }

    /// Answers requests while `sent` goes on: a client that does not read what it is told may still cancel.
    async fn serve_while<T>(&mut self, sent: impl Future<Output = T>) -> T {
        tokio::pin!(sent);
        loop {
            self.let_others().await;
            let is_heard = self.is_heard();
            tokio::select! {
                biased;
                sent = &mut sent => return sent,
                request = self.incoming.next(), if is_heard => self.answer(request),
            }
        }
    }

    /// After enough requests the thread's other tasks have their turn.
    async fn let_others(&mut self) {
        if self.answered >= REQUESTS_PER_TURN {
            self.answered = 0;
            tokio::task::yield_now().await;
        }
    }

    /// Whether to listen: a client is held back by what it does not read of its own answers.
    fn is_heard(&self) -> bool {
        self.is_open && !self.watches.is_full()
    }

    fn answer(&mut self, request: Option<Result<WatchRequest, Status>>) {
        self.answered += 1;
        match request {
            None => self.is_open = false,
            Some(Err(status)) => {
                // One that is gone is no failure.
                if status.code != Code::Canceled {
                    self.lane.counts().stream_failures[0].add_alone(1);
                }
                self.is_open = false;
                self.refused = Some(status);
            }
            Some(Ok(request)) => match request.request_union {
                Some(RequestUnion::CreateRequest(create)) => self.create(&create),
                Some(RequestUnion::CancelRequest(cancel)) => self.watches.cancel(cancel.watch_id),
                Some(RequestUnion::ProgressRequest(_)) => self.watches.progress(),
                // As in etcd what one does not know ends no stream.
                None => {}
            },
        }
        self.progress.is_wanted(self.watches.wants_progress());
    }

    /// Creates a watch of what may be read; it stays then, whatever becomes of its user (etcd: watch.go).
    fn create(&self, request: &WatchCreateRequest) {
        let member = self.lane.member();
        // What begins before everything is told so first.
        if member.is_guarded() && request.start_revision >= 0 {
            // As in etcd no key is the first one.
            let key = if request.key.is_empty() { &[0][..] } else { &request.key };
            let who = member.who(&self.credentials);
            if let Err(error) = who.and_then(|who| who.check_range(key, &request.range_end)) {
                let status = Status::from(error);
                let reason = format!("rpc error: code = {:?} desc = {}", status.code, status.message);
                return self.watches.refuse(&reason);
            }
        }
        self.watches.create(request);
    }
}

/// When watches are told of progress; never while none asks for it.
struct Progress {
    interval: Duration,
    next: Option<Instant>,
}

impl Progress {
    fn new(interval: Duration) -> Self {
        Progress { interval, next: None }
    }

    fn is_wanted(&mut self, is_wanted: bool) {
        if !is_wanted {
            self.next = None;
        } else if self.next.is_none() {
            self.next = Some(Instant::now() + self.interval + jitter(self.interval));
        }
    }

    async fn due(&mut self) {
        match self.next {
            None => std::future::pending().await,
            Some(at) => {
                sleep_until(at).await;
                self.next = Some(at + self.interval);
            }
        }
    }
}

/// Up to a tenth, so that streams opened together are not told together.
fn jitter(interval: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(0);
    (interval / 10).mul_f64(f64::from(random) / f64::from(u32::MAX))
}
