//! The raft thread's part: leases that have ended are revoked, and what is left of long ones is noted.
//!
//! Revokes are entries of the member's own, proposed only while it leads, so none is ever forwarded. What it proposed
//! in a term is in its log or was refused; only a change of leadership leaves a fate unknown, and then everything here
//! begins anew, with all leases. So nothing needs a timeout of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message as _;
use raft::{EntryKind, Proposal, Raft, Role, Time};
use store::{Caller, ROOT, admission};
use wire::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};

use super::{LeaseEnd, Lessor, SharedLessor};
use crate::RequestId;
use crate::consensus::Leadership;
use crate::ids::LaneIds;

/// Revokes that are proposed at once, and how soon the next ones may be: at most 3,200 a second, so that many leases
/// that end together leave the member to its clients.
const BATCH_MAX: usize = 32;
const BATCH_INTERVAL_MS: u64 = 10;
/// Revokes under way. A disk that takes 50 ms for a sync still gets more than 1,000 a second done.
const REVOKING_MAX: usize = 64;
/// Leases that have ended and wait for one confirmation of leadership.
const SEEN_MAX: usize = 256;
/// How long a confirmation of leadership may take before it is asked for again.
const CONFIRM_RETRY_MS: u64 = 500;
/// How soon it is tried again what was refused.
const REFUSED_RETRY_MS: u64 = 100;
/// Leases in one checkpoint (etcd: lessor.go).
const CHECKPOINTS_MAX: usize = 1_000;

/// What consensus is to do.
#[derive(Debug)]
pub(crate) enum Work {
    /// Begin a round of reads.
    Confirm(RequestId),
    /// Append these.
    Propose(Vec<Proposal>),
}

/// Revokes what has ended. Asked for work after each step of consensus.
#[derive(Debug)]
pub(crate) struct Keeper {
    lessor: SharedLessor,
    leads: bool,
    /// Apply refuses every revoke: none is proposed.
    is_held: bool,
    /// The revision of users and roles while authentication is on, else 0.
    auth_revision: u64,
    /// When there may be work without anything having happened.
    due: Time,
    /// Something has happened since `due` was worked out.
    stale: bool,
    /// Ended, and leadership is not confirmed since.
    seen: Vec<LeaseEnd>,
    round: Option<Round>,
    /// Ended, and leadership was confirmed since, in this term.
    confirmed: VecDeque<LeaseEnd>,
    revoking: BTreeMap<RequestId, LeaseEnd>,
    next_batch_at: Time,
    checkpointing: Option<(RequestId, Vec<i64>)>,
    checkpoint_retry_at: Time,
}

/// A confirmation of leadership that is under way.
#[derive(Debug)]
struct Round {
    /// All that it was asked with; any of them answers it.
    contexts: Vec<RequestId>,
    retry_at: Time,
}

impl Keeper {
    pub(crate) fn new(lessor: SharedLessor) -> Self {
        Keeper {
            lessor,
            leads: false,
            is_held: false,
            auth_revision: 0,
            due: Time::NEVER,
            stale: true,
            seen: Vec::new(),
            round: None,
            confirmed: VecDeque::new(),
            revoking: BTreeMap::new(),
            next_batch_at: Time(0),
            checkpointing: None,
            checkpoint_retry_at: Time(0),
        }
    }

    /// When there may be work at the latest, unless something happens before.
    pub(crate) fn deadline(&self) -> Time {
        self.due
    }

    /// Term or leader changed. Returned are the renewals that waited for a lease to be gone.
    pub(crate) fn leadership(&mut self, leadership: Leadership) -> Vec<RequestId> {
        self.stale = true;
        self.leads = leadership.is_leader;
        self.seen.clear();
        self.round = None;
        self.confirmed.clear();
        self.revoking.clear();
        self.checkpointing = None;
        let mut lessor = self.lessor.lock();
        if leadership.is_leader { lessor.lead(leadership.term) } else { lessor.follow() }
    }

    /// A batch is applied, and the lessor has heard of it. `own`: what of it this member itself has proposed.
    pub(crate) fn applied(&mut self, own: &[RequestId]) {
        self.stale = true;
        for id in own {
            if let Some(end) = self.revoking.remove(id) {
                // Gone by now, unless apply has refused the revoke.
                self.lessor.lock().put_back(end);
            }
            if let Some((_, ids)) = self.checkpointing.take_if(|(proposed, _)| proposed == id) {
                self.lessor.lock().checkpoints_settled(&ids, false);
            }
        }
    }

    /// Whether apply refuses revokes from now on: while data is known to be corrupt.
    pub(crate) fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
        self.stale = true;
    }

    /// At which revision of users and roles revokes are proposed; 0 while authentication is off.
    pub(crate) fn auth_revision(&mut self, revision: u64) {
        self.auth_revision = revision;
    }

    /// Whether the round was one of leases; then it has ended, with leadership confirmed or not.
    pub(crate) fn confirmed(&mut self, context: RequestId, is_confirmed: bool) -> bool {
        let is_own = |round: &Round| round.contexts.contains(&context);
        if !self.round.as_ref().is_some_and(is_own) {
            return false;
        }
        if is_confirmed {
            self.round = None;
            self.confirmed.extend(self.seen.drain(..));
            self.stale = true;
        }
        true
    }

    /// Whether the refused proposal was one of leases.
    pub(crate) fn refused(&mut self, now: Time, id: RequestId) -> bool {
        if let Some(end) = self.revoking.remove(&id) {
            self.lessor.lock().put_back(end);
            self.next_batch_at = now.plus_ms(REFUSED_RETRY_MS);
            return true;
        }
        if let Some((_, ids)) = self.checkpointing.take_if(|(proposed, _)| *proposed == id) {
            self.lessor.lock().checkpoints_settled(&ids, true);
            self.checkpoint_retry_at = now.plus_ms(REFUSED_RETRY_MS);
            return true;
        }
        false
    }

    /// Whether [`Keeper::next`] may have something to do.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.stale || self.due <= now
    }

    /// The next thing to do; `None` if there is nothing until [`Keeper::deadline`].
    pub(crate) fn next(&mut self, now: Time, raft: &Raft, ids: &mut LaneIds) -> Option<Work> {
        self.stale = false;
        // Never forwarded: asked of raft itself, at the very moment.
        if self.is_held || !self.leads || raft.status().role != Role::Leader {
            self.due = Time::NEVER;
            return None;
        }
        let pending = self.pending_grants(now, raft);
        let lessor = self.lessor.clone();
        let mut lessor = lessor.lock();
        lessor.tick(now);
        if self.has_room() {
            lessor.take_ended(SEEN_MAX, &mut self.seen);
        }
        let work = self
            .confirm(now, ids)
            .or_else(|| self.revoke(now, &mut lessor, &pending, ids))
            .or_else(|| self.checkpoint(now, &mut lessor, ids));
        self.due = [
            lessor.tick_at(),
            if self.has_room() { lessor.ends_at() } else { Time::NEVER },
            self.round.as_ref().map_or(Time::NEVER, |round| round.retry_at),
            if self.may_revoke() { self.next_batch_at } else { Time::NEVER },
            self.next_checkpoint_at(lessor.checkpoint_at()),
        ]
        .into_iter()
        .min()
        .expect("some");
        self.stale |= work.is_some();
        work
    }

    /// Whether more that has ended can be taken in.
    fn has_room(&self) -> bool {
        self.seen.is_empty() && self.confirmed.len() < BATCH_MAX
    }

    fn may_revoke(&self) -> bool {
        !self.confirmed.is_empty() && self.revoking.len() < REVOKING_MAX
    }

    fn next_checkpoint_at(&self, due: Time) -> Time {
        match self.checkpointing {
            Some(_) => Time::NEVER,
            None => due.max(self.checkpoint_retry_at),
        }
    }

    /// Asks whether this member still leads, after the leases have ended.
    fn confirm(&mut self, now: Time, ids: &mut LaneIds) -> Option<Work> {
        if self.seen.is_empty() || self.round.as_ref().is_some_and(|round| now < round.retry_at) {
            return None;
        }
        let context = ids.next();
        let retry_at = now.plus_ms(CONFIRM_RETRY_MS);
        let round = self.round.get_or_insert(Round { contexts: Vec::new(), retry_at });
        round.contexts.push(context);
        round.retry_at = retry_at;
        Some(Work::Confirm(context))
    }

    /// A client may end a lease and grant another of the same id. While that is in the log and not applied, a revoke
    /// behind it would hit the new one.
    fn pending_grants(&self, now: Time, raft: &Raft) -> BTreeSet<i64> {
        if !self.may_revoke() || now < self.next_batch_at {
            return BTreeSet::new();
        }
        raft.unapplied().filter_map(|entry| admission::granted_lease(&entry.data)).collect()
    }

    fn revoke(
        &mut self,
        now: Time,
        lessor: &mut Lessor,
        pending_grants: &BTreeSet<i64>,
        ids: &mut LaneIds,
    ) -> Option<Work> {
        if !self.may_revoke() || now < self.next_batch_at {
            return None;
        }
        let room = BATCH_MAX.min(REVOKING_MAX - self.revoking.len());
        let caller = self.caller();
        let mut kept = Vec::new();
        let mut entries = Vec::new();
        while entries.len() < room
            && let Some(end) = self.confirmed.pop_front()
        {
            if pending_grants.contains(&end.id) {
                kept.push(end);
            } else if lessor.begin_revoke(end) {
                let id = ids.next();
                let request = LeaseRevokeRequest { id: end.id }.encode_to_vec();
                entries.push(proposal(id, admission::encode_lease_revoke(id.0, caller, &request)));
                self.revoking.insert(id, end);
            }
        }
        self.confirmed.extend(kept);
        self.next_batch_at = now.plus_ms(BATCH_INTERVAL_MS);
        (!entries.is_empty()).then_some(Work::Propose(entries))
    }

    /// As whom the member itself ends leases (etcd: WithRoot).
    fn caller(&self) -> Caller<'static> {
        match self.auth_revision {
            0 => Caller::NOBODY,
            revision => Caller { name: ROOT, revision },
        }
    }

    fn checkpoint(&mut self, now: Time, lessor: &mut Lessor, ids: &mut LaneIds) -> Option<Work> {
        if now < self.next_checkpoint_at(lessor.checkpoint_at()) {
            return None;
        }
        let taken = lessor.take_checkpoints(CHECKPOINTS_MAX);
        if taken.is_empty() {
            return None;
        }
        let checkpoints =
            taken.iter().map(|(id, left_s)| LeaseCheckpoint { id: *id, remaining_ttl: *left_s }).collect();
        let request = LeaseCheckpointRequest { checkpoints }.encode_to_vec();
        let id = ids.next();
        self.checkpointing = Some((id, taken.into_iter().map(|(lease, _)| lease).collect()));
        Some(Work::Propose(vec![proposal(
            id,
            admission::encode_lease_checkpoint(id.0, Caller::NOBODY, &request),
        )]))
    }

    /// Checks every invariant.
    ///
    /// # Panics
    /// If one does not hold.
    pub(crate) fn check(&self) {
        assert!(self.round.is_none() || !self.seen.is_empty(), "a round for nothing");
        assert!(self.revoking.len() <= REVOKING_MAX, "{} revokes under way", self.revoking.len());
        self.lessor.lock().check();
    }
}

/// As every entry of a member's own, with a header (rule 20).
fn proposal(id: RequestId, data: Vec<u8>) -> Proposal {
    Proposal { token: id.0, kind: EntryKind::Normal, data: data.into() }
}

#[cfg(test)]
mod tests;
