//! Reads that wait for their index (Raft thesis, 6.4). On a leader each read gets a number when it arrives, in order,
//! and the commit index of that moment. A heartbeat carries the number of the last read then known; who answers it
//! confirms that no later leader was known to it after all those reads had begun. The numbers that a quorum has
//! confirmed are answered. One round is under way at a time, and all that arrive meanwhile share the next.
//!
//! On a follower only the contexts are kept that the leader was asked for: an answer to any other is not for this run.

use std::collections::VecDeque;

use crate::{Index, NodeId};

/// One read on the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) from: NodeId,
    pub(crate) context: u64,
    pub(crate) index: Index,
}

#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Arrived before the leader knew what is committed.
    early: Vec<(NodeId, u64)>,
    /// Numbered `confirmed + 1` and on.
    unconfirmed: VecDeque<Read>,
    confirmed: u64,
    /// The highest number that went out in a heartbeat.
    sent: u64,
    /// On a follower: asked, not answered, oldest first.
    forwarded: VecDeque<u64>,
}

impl Reads {
    /// How many are waiting, of all kinds.
    pub(crate) fn len(&self) -> usize {
        self.early.len() + self.unconfirmed.len() + self.forwarded.len()
    }

    /// Whether this very read is already waiting on this leader, so that asking again adds nothing.
    pub(crate) fn is_known(&self, from: NodeId, context: u64) -> bool {
        self.early.contains(&(from, context))
            || self.unconfirmed.iter().any(|read| read.from == from && read.context == context)
    }

    pub(crate) fn add_early(&mut self, from: NodeId, context: u64) {
        self.early.push((from, context));
    }

    pub(crate) fn take_early(&mut self) -> Vec<(NodeId, u64)> {
        std::mem::take(&mut self.early)
    }

    pub(crate) fn add(&mut self, read: Read) {
        self.unconfirmed.push_back(read);
    }

    /// Whether reads wait and none of them is in a round.
    pub(crate) fn wants_round(&self) -> bool {
        !self.unconfirmed.is_empty() && self.sent <= self.confirmed
    }

    /// What a heartbeat that leaves now is to carry.
    pub(crate) fn heartbeat_context(&mut self) -> Option<u64> {
        if self.unconfirmed.is_empty() {
            return None;
        }
        self.sent = self.confirmed + self.unconfirmed.len() as u64;
        Some(self.sent)
    }

    /// Whether a heartbeat with this context was ever sent in this term.
    pub(crate) fn was_sent(&self, context: u64) -> bool {
        context <= self.sent
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// A quorum has confirmed all numbers up to `number`: those reads, in order of arrival.
    pub(crate) fn confirm(&mut self, number: u64) -> Vec<Read> {
        if number <= self.confirmed {
            return Vec::new();
        }
        assert!(number <= self.sent, "round {number} confirmed, only {} sent", self.sent);
        let count = (number - self.confirmed) as usize;
        self.confirmed = number;
        self.unconfirmed.drain(..count).collect()
    }

    /// Notes that the leader is asked. With the bound reached, the oldest one gives way and is returned.
    pub(crate) fn forward(&mut self, context: u64, reads_max: usize) -> Option<u64> {
        if self.forwarded.contains(&context) {
            return None;
        }
        let oldest = if self.forwarded.len() >= reads_max { self.forwarded.pop_front() } else { None };
        self.forwarded.push_back(context);
        oldest
    }

    /// The leader answered: whether it was asked.
    pub(crate) fn answered(&mut self, context: u64) -> bool {
        let place = self.forwarded.iter().position(|asked| *asked == context);
        place.is_some_and(|place| self.forwarded.remove(place).is_some())
    }

    /// Leadership is lost or gained: everything starts anew. The contexts of member `id` that stay without an answer.
    pub(crate) fn reset(&mut self, id: NodeId) -> Vec<u64> {
        if self.len() == 0 {
            *self = Self::default();
            return Vec::new();
        }
        let old = std::mem::take(self);
        let early = old.early.into_iter().filter(|(from, _)| *from == id).map(|(_, context)| context);
        let unconfirmed = old.unconfirmed.into_iter().filter(|read| read.from == id).map(|read| read.context);
        early.chain(unconfirmed).chain(old.forwarded).collect()
    }

    /// Every invariant of the waiting reads.
    pub(crate) fn check(&self, reads_max: usize) {
        assert!(self.len() <= reads_max, "{} reads, {reads_max} allowed", self.len());
        assert!(self.sent <= self.confirmed + self.unconfirmed.len() as u64, "{self:?}");
        assert!(self.unconfirmed.iter().is_sorted_by_key(|read| read.index), "{self:?}");
        assert!(
            self.forwarded.is_empty() || self.early.is_empty() && self.unconfirmed.is_empty(),
            "{self:?}"
        );
    }
}
