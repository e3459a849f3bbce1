//! Handing leadership over (Raft thesis, 3.10): on request, when the leader's own disk answers nothing any more, and when
//! the leader has lost its vote.

use std::cmp::Reverse;

use crate::election::Campaign;
use crate::{Body, Index, Message, NodeId, Raft, Role, Time};

/// A hand-over that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: NodeId,
    /// If it is not over by then, it is given up.
    pub(crate) until: Time,
}

/// A time without an answer of the disk: since the last one, or since it was asked after a rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    since: Time,
    /// Entries after this came while it was silent: it is the log's end at the last answer, or what was durable before
    /// its rest ended.
    after: Index,
    /// Since when a leader knows that another's disk has got further than that.
    pub(crate) outrun_since: Option<Time>,
}

impl Silence {
    pub(crate) fn new(since: Time, after: Index) -> Self {
        Silence { since, after, outrun_since: None }
    }
}

/// So many election timeouts without anything being applied are a standstill. Far more than a slow request takes: that
/// comes to the next leader too.
const STANDSTILL_TIMEOUTS: u64 = 5;

/// How long a leader's state machine has been no further than this, or had nothing to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standstill {
    applied: Index,
    since: Time,
}

impl Standstill {
    pub(crate) fn new(since: Time, applied: Index) -> Self {
        Standstill { applied, since }
    }
}

impl Raft {
    /// This member's shell wants `to` to lead.
    pub(crate) fn transfer_leader(&mut self, to: NodeId) {
        match (self.role, self.leader) {
            (Role::Leader, _) => self.begin_transfer(to),
            (_, Some(leader)) => {
                // As in etcd, the sender is named nowhere.
                let message = Message { from: to, to: leader, term: self.term, body: Body::TransferLeader };
                self.send_message(message);
            }
            (_, None) => {}
        }
    }

    /// Starts to hand leadership to `to`. To whom it is handed already, or to who cannot have it, nothing is done; a
    /// hand-over to another ends, so that naming the leader itself is a way to end one.
    pub(crate) fn begin_transfer(&mut self, to: NodeId) {
        let is_own = to == self.id;
        let goes_on = self.transfer.is_some_and(|transfer| transfer.to == to);
        if self.role != Role::Leader || !self.conf.is_voter(to) || goes_on {
            return;
        }
        self.transfer = None;
        if is_own {
            return;
        }
        self.transfer = Some(Transfer { to, until: self.now.plus_ms(self.election_timeout_ms) });
        let place = self.peer(to);
        if !self.hand_over_if_level(place) {
            self.send_append(place, true);
        }
    }

    /// Asks who is to lead to stand, if it has everything. Whether it was asked.
    pub(crate) fn hand_over_if_level(&mut self, place: usize) -> bool {
        let peer = &self.peers[place];
        let (id, matched) = (peer.id, peer.matched);
        let is_due =
            self.transfer.is_some_and(|transfer| transfer.to == id) && matched == self.log.last_index();
        if is_due {
            self.send(id, Body::TimeoutNow);
        }
        is_due
    }

    /// The leader asks this member to stand.
    pub(crate) fn timeout_now(&mut self) {
        self.stand(Campaign::Transfer);
    }

    /// Gives up a hand-over that takes too long, and begins one if the own disk or state machine hangs: others could go
    /// on, and this member cannot even give back memory (design rule 4). Heartbeats never wait for either, so nobody else
    /// would notice.
    pub(crate) fn tick_transfer(&mut self) {
        let hangs = self.disk_hangs();
        let stands_still = self.stands_still();
        match self.transfer {
            Some(transfer) if self.now < transfer.until => {}
            // Nobody could take over what this member has; perhaps somebody can do without.
            Some(_) if hangs || !self.conf.is_voter(self.id) => self.become_follower(self.term, None),
            Some(_) => self.transfer = None,
            None if hangs => self.hand_over(),
            None if stands_still => {
                // Where that changes nothing, it is tried again as late.
                self.standstill.since = self.now;
                self.hand_over();
            }
            None => {}
        }
    }

    /// Hands leadership to the voter with the longest log, unless it is being handed over; or to nobody in particular.
    pub(crate) fn hand_over(&mut self) {
        if self.transfer.is_some() {
            return;
        }
        match self.most_caught_up() {
            Some((id, _)) => self.begin_transfer(id),
            None => self.become_follower(self.term, None),
        }
    }

    /// Whether the disk has answered nothing for an election timeout, though asked, and others could lead. Where the
    /// disks of the others are no faster, nothing would be won: one of them has to have written an entry that came while
    /// ours was silent, and that half a timeout ago. To have more than is durable here proves nothing: of disks that are
    /// equally slow, the one that began later has more.
    fn disk_hangs(&mut self) -> bool {
        let waits = self.durable_seq < self.last_seq;
        let has_others = self.conf.voters.iter().any(|id| *id != self.id);
        let is_outrun = self.most_caught_up().is_none_or(|(_, matched)| matched > self.silence.after);
        if !(waits && has_others && is_outrun) {
            self.silence.outrun_since = None;
            return false;
        }
        let since = *self.silence.outrun_since.get_or_insert(self.now);
        self.now >= self.silence.since.plus_ms(self.election_timeout_ms)
            && self.now >= since.plus_ms(self.election_timeout_ms / 2)
    }

    /// Whether the state machine has applied nothing for long, though something is committed, and others could lead.
    fn stands_still(&mut self) -> bool {
        let applied = self.log.applied();
        if applied == self.log.committed() || applied != self.standstill.applied {
            self.standstill = Standstill::new(self.now, applied);
        }
        self.now >= self.standstill.since.plus_ms(STANDSTILL_TIMEOUTS * self.election_timeout_ms)
            && self.most_caught_up().is_some()
    }

    /// The voter with the longest log among those that are there, and how far that is on its disk.
    fn most_caught_up(&self) -> Option<(NodeId, Index)> {
        let is_there = |heard_at: Time| self.now < heard_at.plus_ms(self.election_timeout_ms);
        let candidates =
            self.peers.iter().filter(|peer| self.conf.is_voter(peer.id) && is_there(peer.heard_at));
        let best: Option<(Index, Reverse<NodeId>)> =
            candidates.map(|peer| (peer.matched, Reverse(peer.id))).max();
        best.map(|(matched, Reverse(id))| (id, matched))
    }
}
