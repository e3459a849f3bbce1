//! `Lease.LeaseKeepAlive`: one task a stream, between the client's renewals and the member's lessor.
//!
//! What has come is handled together: one confirmation that this member leads, shared with everything else on the
//! thread that waits for one, then all renewals, then all answers in one piece (rule 14). No disk is involved. A client
//! that does not take its answers is not heard further, so one turn's answers are all that is ever kept for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::Message as _;
use store::{Caller, admission};
use tokio::task::JoinSet;
use tokio::time::Instant;
use wire::etcdserverpb as pb;
use wire::{ApiError, Code, Status};

use super::Shared;
use super::answer;
use super::forward::{self, Asked};
use super::incoming::Incoming;
use super::lease::{KeysFor, check_keys, check_revision};
use super::member::Renewed;
use super::stream::Outgoing;
use super::task::{self, StreamCall};
use super::turns::Reads;
use crate::auth::Credentials;
use crate::lane::{Lane, Outcome, Reply};

/// Renewals that are handled together. The answers to so many take some 40 KiB.
const TURN_MAX: usize = 1024;
/// Renewals that the leader is asked for at the same time, for one stream.
const FORWARDED_MAX: usize = 16;

/// Serves a stream to its end.
pub(super) async fn run(call: StreamCall, front: Rc<Shared>) {
    let limit = front.config.limits.message_bytes_max();
    let receiver = call.counted.receiver();
    let mut out = Outgoing::new(call.respond, call.deadline, call.held, call.counted);
    if out.wait(front.lane.token_known(&call.credentials, call.deadline)).await.is_none() {
        return;
    }
    let mut renewals = Renewals {
        lane: front.lane.clone(),
        credentials: call.credentials,
        reads: None,
        incoming: Incoming::new(call.body, limit, call.head.gzip, receiver),
        header: pb::ResponseHeader::default(),
        turn: VecDeque::new(),
        patient_until: Instant::now(),
        end: None,
    };
    let cut = task::cut(&front, call.head.leader_required);
    tokio::pin!(cut);
    loop {
        let turn = tokio::select! {
            biased;
            turn = out.wait(renewals.serve()) => turn,
            error = &mut cut => return out.finish(Err(error.into())),
        };
        match turn {
            // The client is gone, or was told that its time is over.
            None => return,
            Some(Ok(bytes)) => tokio::select! {
                sent = out.send(Bytes::from(bytes)) => if sent.is_none() { return },
                // In the middle of a message the stream can only be reset.
                _ = &mut cut => return,
            },
            Some(Err(end)) => return out.finish(end),
        }
    }
}

/// Renews one lease, if this member leads: its time to live in seconds, 0 if it is gone. Another member has asked for it,
/// and asks again if this one does not lead.
///
/// # Errors
/// Why it is not renewed, `NotPrimaryLessor` where another member leads.
pub async fn renew_here(lane: &Lane, id: i64) -> Result<i64, Status> {
    loop {
        confirm_here(lane).await?;
        match lane.renew(id) {
            (Renewed::Ttl(ttl_s), _) => return Ok(ttl_s),
            (Renewed::NotFound, _) => return Ok(0),
            (Renewed::Checkpointed, _) => forget_checkpoints(lane, vec![id]).await?,
            (Renewed::NotPrimary, _) => return Err(ApiError::NotPrimaryLessor.into()),
            (Renewed::TooMany, _) => return Err(ApiError::TooManyRequests.into()),
            (Renewed::Waiting, reply) => match reply.expect("with Waiting").await {
                Outcome::Failed(status) if status == ApiError::LeaseNotFound.into() => return Ok(0),
                Outcome::Failed(status) => return Err(status),
                _ => {}
            },
        }
    }
}

/// Confirms that this member leads.
async fn confirm_here(lane: &Lane) -> Result<(), Status> {
    let refused = Err(ApiError::NotPrimaryLessor.into());
    let member = lane.member();
    if member.status.leader() != member.member_id {
        return refused;
    }
    match lane.linearizable().await {
        Ok(()) => Ok(()),
        Err(status)
            if [ApiError::NoLeader, ApiError::LeaderChanged, ApiError::Timeout]
                .into_iter()
                .any(|error| status == error.into()) =>
        {
            refused
        }
        Err(status) => Err(status),
    }
}

/// A lease that is renewed lives for its whole time again, also under the next leader.
async fn forget_checkpoints(lane: &Lane, leases: Vec<i64>) -> Result<(), Status> {
    let checkpoints =
        leases.into_iter().map(|id| pb::LeaseCheckpoint { id, remaining_ttl: 0 }).collect::<Vec<_>>();
    let request = pb::LeaseCheckpointRequest { checkpoints }.encode_to_vec();
    let id = lane.next_id();
    lane.apply(id, admission::encode_lease_checkpoint(id.0, Caller::NOBODY, &request), false)
        .await
        .map(|_| ())
}

/// What a stream's client asks for, and how far that is.
struct Renewals {
    lane: Lane,
    credentials: Credentials,
    /// Turns for looking at many keys, once that was needed.
    reads: Option<Reads>,
    incoming: Incoming,
    /// Of this turn's answers: taken before anything is renewed, so that no answer claims that a lease lived at a revision
    /// at which it was gone (etcd: lease.go).
    header: pb::ResponseHeader,
    /// The requests that are handled now, in the order in which they came; that is the order of the answers too.
    turn: VecDeque<(i64, State)>,
    /// When a turn for which no leader is found fails.
    patient_until: Instant,
    /// What the stream ends with after the turn.
    end: Option<Result<(), Status>>,
}

/// How far a renewal is.
enum State {
    /// Leadership has to be confirmed first.
    Asked,
    /// The lease has so many seconds, or is not there and has none.
    Answered(i64),
    /// The lease has ended, and is about to be gone.
    Ending(Reply),
}

impl Renewals {
    /// Goes on until there are answers to be sent, or the stream is at its end.
    async fn serve(&mut self) -> Result<Vec<u8>, Result<(), Status>> {
        loop {
            if self.turn.is_empty() {
                if let Some(end) = self.end.take() {
                    return Err(end);
                }
                poll_fn(|cx| self.poll_turn(cx)).await;
            }
            if self.turn.iter().any(|(_, state)| matches!(state, State::Asked))
                && let Err(status) = self.renew().await
            {
                // It is opened anew, and asked anew for all that has no answer yet; or there is none any more.
                if status != ApiError::Stopped.into() || !self.lane.goes_on().await {
                    self.fail(status);
                }
                self.patient_until = Instant::now() + self.lane.request_timeout();
            }
            let answers = self.take_answers();
            if !answers.is_empty() {
                return Ok(answers);
            }
            if let Some((_, state)) = self.turn.front_mut()
                && let State::Ending(reply) = state
            {
                *state = match reply.await {
                    Outcome::Failed(status) if status == ApiError::LeaseNotFound.into() => State::Answered(0),
                    // Another member leads by now, or this one again.
                    Outcome::Failed(status) if status == ApiError::NotPrimaryLessor.into() => {
                        self.patient_until = Instant::now() + self.lane.request_timeout();
                        State::Asked
                    }
                    // The member is opened anew, and asked anew.
                    Outcome::Failed(status) if status == ApiError::Stopped.into() => {
                        if !self.lane.goes_on().await {
                            self.fail(status);
                            continue;
                        }
                        self.patient_until = Instant::now() + self.lane.request_timeout();
                        State::Asked
                    }
                    Outcome::Failed(status) => {
                        self.fail(status);
                        continue;
                    }
                    _ => State::Asked,
                };
            }
        }
    }

    /// Takes what has come, if it is anything.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.turn.len() < TURN_MAX {
            match self.incoming.poll_next::<pb::LeaseKeepAliveRequest>(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(request))) => self.turn.push_back((request.id, State::Asked)),
                Poll::Ready(Some(Err(status))) => {
                    if status.code != Code::Canceled {
                        self.lane.counts().stream_failures[1].add_alone(1);
                    }
                    self.end = Some(Err(status));
                    break;
                }
                Poll::Ready(None) => {
                    self.end = Some(Ok(()));
                    break;
                }
            }
        }
        if self.turn.is_empty() && self.end.is_none() {
            return Poll::Pending;
        }
        let member = self.lane.member();
        self.header = member.header(member.reader.revision());
        self.patient_until = Instant::now() + self.lane.request_timeout();
        Poll::Ready(())
    }

    /// The stream ends with `status`, in the place of every answer that is not there yet.
    fn fail(&mut self, status: Status) {
        let answered = self.turn.iter().take_while(|(_, state)| matches!(state, State::Answered(_))).count();
        self.turn.truncate(answered);
        self.end = Some(Err(status));
    }

    /// Renews all leases of the turn for which that is still to be done.
    async fn renew(&mut self) -> Result<(), Status> {
        loop {
            if !self.leads() {
                self.check_allowed().await;
                self.forward().await?;
                if self.turn.iter().all(|(_, state)| matches!(state, State::Answered(_))) {
                    return Ok(());
                }
            }
            confirm_here(&self.lane).await?;
            self.check_allowed().await;
            let mut moved = false;
            let mut checkpointed = Vec::new();
            loop {
                for (id, state) in self.turn.iter_mut().filter(|(_, state)| matches!(state, State::Asked)) {
                    match self.lane.renew(*id) {
                        (Renewed::Ttl(ttl_s), _) => *state = State::Answered(ttl_s),
                        (Renewed::NotFound, _) => *state = State::Answered(0),
                        (Renewed::Checkpointed, _) => checkpointed.push(*id),
                        (Renewed::NotPrimary, _) => moved = true,
                        (Renewed::TooMany, _) => return Err(ApiError::TooManyRequests.into()),
                        (Renewed::Waiting, reply) => *state = State::Ending(reply.expect("with Waiting")),
                    }
                }
                if checkpointed.is_empty() {
                    break;
                }
                forget_checkpoints(&self.lane, std::mem::take(&mut checkpointed)).await?;
            }
            if !moved {
                return Ok(());
            }
            if Instant::now() >= self.patient_until {
                return Err(ApiError::NotPrimaryLessor.into());
            }
        }
    }

    /// Looks whether the caller may let these leases live longer, where it matters who asks. The stream ends in the place of
    /// the first that it may not.
    async fn check_allowed(&mut self) {
        if !self.lane.member().is_guarded() {
            return;
        }
        for place in 0..self.turn.len() {
            let (id, State::Asked) = &self.turn[place] else { continue };
            let id = *id;
            if let Err(status) = self.check_one(id).await {
                self.turn.truncate(place);
                self.end = Some(Err(status));
                return;
            }
        }
    }

    async fn check_one(&mut self, id: i64) -> Result<(), Status> {
        let member = Arc::clone(&self.lane.member());
        let who = member.who(&self.credentials)?;
        let reads = self.reads.get_or_insert_with(|| member.reads.connection());
        check_keys(&member, &who, &[id], KeysFor::Writing, reads).await?;
        check_revision(&member, &who)
    }

    /// Whether this member leads, as far as it knows.
    fn leads(&self) -> bool {
        let member = self.lane.member();
        member.status.leader() == member.member_id
    }

    /// Lets the leader renew what is to be renewed, some at a time; what is left is to be done here, since this member leads
    /// by now.
    async fn forward(&mut self) -> Result<(), Status> {
        let asked = self.turn.iter().enumerate().filter(|(_, (_, state))| matches!(state, State::Asked));
        let mut left = asked.map(|(place, (id, _))| (place, *id)).collect::<Vec<_>>().into_iter();
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < FORWARDED_MAX
                && let Some((place, id)) = left.next()
            {
                let (lane, until) = (self.lane.clone(), self.patient_until);
                asking.spawn_local(async move { (place, forward::renew(&lane, id, until).await) });
            }
            let Some(answer) = asking.join_next().await else { return Ok(()) };
            let Ok((place, renewed)) = answer else { continue };
            match renewed? {
                Asked::There(ttl_s) => self.turn[place].1 = State::Answered(ttl_s),
                Asked::Here => {}
            }
        }
    }

    /// The answers that are there, up to the first that is not.
    fn take_answers(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some((id, State::Answered(ttl))) = self.turn.front() {
            let answer = pb::LeaseKeepAliveResponse { header: Some(self.header), id: *id, ttl: *ttl };
            answer::push(&answer, &mut bytes);
            self.turn.pop_front();
        }
        bytes
    }
}
