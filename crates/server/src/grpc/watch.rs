//! `Watch.Watch`: one task a stream, between the client's requests and the lane's hub.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use wire::ApiError;
use wire::Status;
use wire::etcdserverpb::WatchRequest;
use wire::etcdserverpb::watch_request::RequestUnion;

use super::Shared;
use super::incoming::Incoming;
use super::member::MemberView;
use super::stream::Outgoing;
use super::task::StreamCall;
use crate::lane::WatchStream;

/// Looks at a member without a leader, one election timeout apart, after which streams that ask for one end (etcd:
/// interceptor.go).
const NO_LEADER_LOOKS: u32 = 3;

/// Serves a stream to its end.
pub(super) async fn run(call: StreamCall, front: Rc<Shared>) {
    let limit = front.config.limits.message_bytes_max();
    let mut incoming = Incoming::new(call.body, limit, call.head.gzip);
    let mut out = Outgoing::new(call.respond, call.deadline, call.held);
    let watches = front.lane.watch();
    let end = {
        let needs_leader = call.head.leader_required;
        let member = front.lane.member().clone();
        let drained = front.lane.drained();
        let election_timeout = front.config.election_timeout;
        async move {
            tokio::select! {
                () = drained => ApiError::Stopped,
                () = leader_lost(&member, election_timeout), if needs_leader => ApiError::NoLeader,
            }
        }
    };
    tokio::pin!(end);
    let mut progress = Progress::new(front.config.watch_progress_interval);
    let mut is_open = true;
    loop {
        let turn = async {
            tokio::select! {
                // Requests first: a client that is told much may still cancel. Its own answers hold it back.
                biased;
                request = incoming.next(), if is_open && !watches.is_full() => Turn::Request(request),
                bytes = poll_fn(|cx| watches.poll_take(cx)) => Turn::Send(bytes),
                () = progress.due() => Turn::Progress,
            }
        };
        let turn = tokio::select! {
            biased;
            turn = out.wait(turn) => turn,
            error = &mut end => return out.finish(Err(error.into())),
        };
        match turn {
            // The client is gone, or was told that its time is over.
            None => return,
            Some(Turn::Send(bytes)) => tokio::select! {
                sent = out.send(Bytes::from(bytes)) => if sent.is_none() { return },
                // In the middle of a message the stream can only be reset.
                _ = &mut end => return,
            },
            Some(Turn::Request(Some(Ok(request)))) => {
                answer(request, &watches);
                progress.is_wanted(watches.wants_progress());
            }
            Some(Turn::Request(Some(Err(status)))) => return out.finish(Err(status)),
            // A client that has said all that it wants still listens.
            Some(Turn::Request(None)) => is_open = false,
            Some(Turn::Progress) => watches.notify_progress(),
        }
    }
}

/// What a stream has to do next.
enum Turn {
    Send(Vec<u8>),
    Request(Option<Result<WatchRequest, Status>>),
    Progress,
}

fn answer(request: WatchRequest, watches: &WatchStream) {
    match request.request_union {
        Some(RequestUnion::CreateRequest(create)) => watches.create(&create),
        Some(RequestUnion::CancelRequest(cancel)) => watches.cancel(cancel.watch_id),
        Some(RequestUnion::ProgressRequest(_)) => watches.progress(),
        // As in etcd what one does not know ends no stream.
        None => {}
    }
}

/// Ends when the member has had no leader for so long.
async fn leader_lost(member: &MemberView, election_timeout: Duration) {
    let mut missing = 0;
    while missing < NO_LEADER_LOOKS {
        tokio::time::sleep(election_timeout).await;
        missing = if member.status.leader() == 0 { missing + 1 } else { 0 };
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
