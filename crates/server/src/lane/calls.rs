//! What the tasks of a lane's own thread ask of the member, one thing at a time.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use node::RequestId;
use store::Answer;
use tokio::sync::oneshot;
use tokio::time::Instant;
use wire::{ApiError, Status};

use super::{Lane, Outcome, Target, Waiter};
use crate::auth::Credentials;
use crate::grpc::member::Renewed;

/// The wait for the end of a lease has none of its own: leases that end together wait for one another.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// How soon, and at last how often, it is looked whether a token is known by now. Who makes one up names any index, so nothing
/// is kept here that an index has to come for.
const TOKEN_INTERVAL_MIN: Duration = Duration::from_millis(1);
const TOKEN_INTERVAL_MAX: Duration = Duration::from_millis(50);
/// Calls that wait for their tokens on one thread; for more, only what is known counts.
const TOKEN_WAITERS_MAX: usize = 1024;

/// An answer to come. Who drops it does not wait any more; what was proposed may still happen (rule 15).
pub struct Reply {
    lane: Lane,
    id: RequestId,
    outcome: oneshot::Receiver<Outcome>,
}

impl Future for Reply {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        // A lane that is gone is one whose member is.
        let stopped = || Outcome::Failed(ApiError::Stopped.into());
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| outcome.unwrap_or_else(|_| stopped()))
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.lane.cancel(self.id);
    }
}

impl Lane {
    /// How long an answer of the member is waited for.
    pub fn request_timeout(&self) -> Duration {
        self.parts().request_timeout
    }

    /// Waits, where the member is gone, for the one that follows it; false if there is none. For who was told that the member
    /// has stopped, and can ask again.
    pub async fn goes_on(&self) -> bool {
        while self.0.suspended.get() && !self.0.stopped.get() {
            self.0.resumed.notified().await;
        }
        !self.0.stopped.get()
    }

    /// Waits until a read at this moment would be linearizable; shares its round with all that wait on this thread.
    pub async fn linearizable(&self) -> Result<(), Status> {
        let (reply, outcome) = oneshot::channel();
        let id = self.read_for(Target::Cold(reply), Instant::now(), None);
        match (Reply { lane: self.clone(), id, outcome }).await {
            Outcome::Failed(status) => Err(status),
            _ => Ok(()),
        }
    }

    /// Waits until everything through `index` is applied, however long that takes.
    pub fn applied(&self, index: u64) -> impl Future<Output = ()> + use<> {
        let (reply, outcome) = oneshot::channel();
        let id = self.next_id();
        let deadline = Instant::now() + FOR_EVER;
        let target = Target::Cold(reply);
        let waiter =
            Waiter { target, is_proposal: false, counted: None, deadline, on_expiry: ApiError::Timeout };
        self.0.waiters.borrow_mut().insert(id.0, waiter);
        self.0.reads.borrow_mut().behind.push((index, vec![id]));
        self.release_reads(0);
        let reply = Reply { lane: self.clone(), id, outcome };
        async move { drop(reply.await) }
    }

    /// The index that has to be applied here before a call's token is known; 0 where no such token counts.
    pub fn awaited_index(&self, credentials: &Credentials) -> u64 {
        let member = self.member();
        let counts = member.is_guarded() && member.access.has_simple_tokens();
        if counts { credentials.awaited_index() } else { 0 }
    }

    /// Waits until the index at which a token was given out is applied here, but no longer than for the call itself; what is
    /// not known then is no token (etcd: simple_token.go).
    pub async fn token_known(&self, credentials: &Credentials, deadline: Option<Instant>) {
        let index = self.awaited_index(credentials);
        let is_known = || self.member().status.applied() >= index;
        if is_known() || Rc::strong_count(&self.0.token_waiters) > TOKEN_WAITERS_MAX {
            return;
        }
        let _waiter = Rc::clone(&self.0.token_waiters);
        let until = Instant::now() + self.request_timeout();
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        let mut interval = TOKEN_INTERVAL_MIN;
        while !is_known() && Instant::now() < until {
            tokio::time::sleep_until(until.min(Instant::now() + interval)).await;
            interval = TOKEN_INTERVAL_MAX.min(2 * interval);
        }
    }

    /// Proposes `data`, whose header has `id`, and waits until it is applied. `grows`: as for [`Lane::propose`].
    pub async fn apply(&self, id: RequestId, data: Vec<u8>, grows: bool) -> Result<Answer, Status> {
        let (reply, outcome) = oneshot::channel();
        self.propose_for(id, (Bytes::from(data), grows), Target::Cold(reply), Instant::now(), None);
        match (Reply { lane: self.clone(), id, outcome }).await {
            Outcome::Applied(answer) => Ok(answer),
            Outcome::Failed(status) => Err(status),
            Outcome::Readable => Err(ApiError::Stopped.into()),
        }
    }

    /// Renews a lease, for who has waited for [`Lane::linearizable`] since it was asked to (rule 14). The reply, which is
    /// there with [`Renewed::Waiting`] alone, is a failure that says why the wait is over: LeaseNotFound, since the lease
    /// is gone, or NotPrimaryLessor, since another member may lead now.
    pub fn renew(&self, lease: i64) -> (Renewed, Option<Reply>) {
        let mut waiter = None;
        let renewed = self.member().leases.renew(lease, || *waiter.insert(self.next_id()));
        if let Renewed::Ttl(_) = renewed {
            self.member().metrics.member.leases_renewed.add(1);
        }
        let (Some(id), Renewed::Waiting) = (waiter, renewed) else { return (renewed, None) };
        let (reply, outcome) = oneshot::channel();
        let target = Target::Cold(reply);
        if self.0.stopped.get() {
            target.deliver(Outcome::Failed(ApiError::Stopped.into()));
        } else {
            let deadline = Instant::now() + FOR_EVER;
            let waiter =
                Waiter { target, is_proposal: false, counted: None, deadline, on_expiry: ApiError::Timeout };
            self.0.waiters.borrow_mut().insert(id.0, waiter);
        }
        (renewed, Some(Reply { lane: self.clone(), id, outcome }))
    }
}
