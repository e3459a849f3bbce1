//! Linearizable reads without the log (Raft thesis, 6.4): the commit index of the moment a read begins, once a quorum
//! has confirmed that no later leader could have committed more. Never by a lease: clocks prove nothing.

use crate::read::Read;
use crate::{Body, Effect, Index, NodeId, Raft, ReadRefusal, Role};

impl Raft {
    /// A read of this member's own clients.
    pub(crate) fn read_index(&mut self, context: u64) {
        let refuse = |reason| Effect::ReadRefused { context, reason };
        match (self.role, self.leader) {
            (Role::Leader, _) => {
                if !self.lead_read(self.id, context) {
                    self.out.push(refuse(ReadRefusal::TooMany));
                }
            }
            (_, Some(leader)) => {
                if let Some(oldest) = self.reads.wait(context, self.limits.reads_max) {
                    self.out.push(Effect::ReadRefused { context: oldest, reason: ReadRefusal::TooMany });
                }
                self.ask_leader(leader);
            }
            (_, None) => self.out.push(refuse(ReadRefusal::NoLeader)),
        }
    }

    /// Asks the leader in the name of all reads that wait, unless a question is under way.
    fn ask_leader(&mut self, leader: NodeId) {
        if let Some(context) = self.reads.ask(self.now) {
            self.send(leader, Body::ReadIndex { context });
        }
    }

    /// Question or answer may be lost. The leader was just heard, so another question has a chance.
    pub(crate) fn ask_again(&mut self, leader: NodeId) {
        if let Some(context) = self.reads.ask_again(self.now, self.election_timeout_ms / 2) {
            self.send(leader, Body::ReadIndex { context });
        }
    }

    /// A read that a follower asks for. Whoever does not lead forgets it: the follower learns of the leader's end by
    /// itself, or asks again.
    pub(crate) fn read_index_for(&mut self, from: NodeId, context: u64) {
        if self.role == Role::Leader {
            self.lead_read(from, context);
        }
    }

    /// Whether there was room for the read.
    fn lead_read(&mut self, from: NodeId, context: u64) -> bool {
        if self.is_sole_voter() && self.has_committed_in_term() {
            self.answer_read(Read { from, context, index: self.log.committed() });
            return true;
        }
        if self.reads.is_known(from, context) {
            return true;
        }
        if self.reads.len() >= self.limits.reads_max {
            return false;
        }
        // Before its first commit a new leader does not know what the old ones have committed.
        if self.has_committed_in_term() {
            self.reads.add(Read { from, context, index: self.log.committed() });
            self.begin_round();
        } else {
            self.reads.add_early(from, context);
        }
        true
    }

    fn begin_round(&mut self) {
        if self.reads.wants_round() {
            self.broadcast_heartbeat();
        }
    }

    /// Something was committed: from now on this leader knows what is.
    pub(crate) fn release_early_reads(&mut self) {
        let index = self.log.committed();
        for (from, context) in self.reads.take_early() {
            let read = Read { from, context, index };
            if self.is_sole_voter() {
                self.answer_read(read);
            } else {
                self.reads.add(read);
            }
        }
        self.begin_round();
    }

    /// A follower has confirmed all reads up to this number.
    pub(crate) fn read_confirmed(&mut self, place: usize, number: u64) {
        if !self.reads.was_sent(number) {
            self.reject();
            return;
        }
        let peer = &mut self.peers[place];
        peer.read_acked = peer.read_acked.max(number);
        self.answer_confirmed_reads();
    }

    /// Answers what a quorum has confirmed.
    pub(crate) fn answer_confirmed_reads(&mut self) {
        let Some(confirmed) = self.agreed(self.reads.sent(), |peer| peer.read_acked) else { return };
        while let Some(read) = self.reads.take_confirmed(confirmed) {
            self.answer_read(read);
        }
        // Who became the sole voter has nobody to ask.
        if self.is_sole_voter() {
            self.reads.heartbeat_context();
            while let Some(read) = self.reads.take_confirmed(self.reads.sent()) {
                self.answer_read(read);
            }
        }
        self.begin_round();
    }

    fn answer_read(&mut self, read: Read) {
        let Read { from, context, index } = read;
        if from == self.id {
            self.out.push(Effect::ReadReady { context, index });
        } else {
            self.send(from, Body::ReadIndexResponse { index, context });
        }
    }

    /// The leader answered. An answer to what was not asked in this run, or asked before the leader changed, is
    /// nobody's.
    pub(crate) fn read_answered(&mut self, context: u64, index: Index) {
        if !self.reads.answered(context) {
            return;
        }
        while let Some(context) = self.reads.take_answered() {
            self.out.push(Effect::ReadReady { context, index });
        }
        if let Some(leader) = self.leader {
            self.ask_leader(leader);
        }
    }
}
