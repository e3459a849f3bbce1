//! Reads that wait for their index (Raft thesis, 6.4). On a leader each read gets a number when it arrives, in order,
//! and the commit index of that moment. A heartbeat carries the number of the last read then known; who answers it
//! confirms that no later leader was known to it after all those reads had begun. The numbers that a quorum has
//! confirmed are answered. One round is under way at a time, and all that arrive meanwhile share the next.
//!
//! A follower asks the leader for one index at a time, in the name of all reads that it knew then; those that arrive
//! meanwhile share the next question. So a leader hears one request a round and follower, however many read. An answer
//! to any other context is not for this run, or comes too late.

use std::collections::VecDeque;

use crate::{Index, NodeId, Time};

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
    /// On a follower, what the leader was asked; its context is that of the first read which shares it.
    question: Option<Question>,
    /// On a follower, reads that wait for it, in order of arrival: first those that share the question,
    waiting: VecDeque<u64>,
    /// which are so many, then those that will share the next.
    asked: usize,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    context: u64,
    at: Time,
}

impl Reads {
    /// How many are waiting, of all kinds.
    pub(crate) fn len(&self) -> usize {
        self.early.len() + self.unconfirmed.len() + self.waiting.len()
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

    /// A quorum has confirmed all numbers up to `number`: the oldest of those reads that is not answered yet.
    pub(crate) fn take_confirmed(&mut self, number: u64) -> Option<Read> {
        assert!(number <= self.sent, "round {number} confirmed, only {} sent", self.sent);
        if number <= self.confirmed {
            return None;
        }
        self.confirmed += 1;
        Some(self.unconfirmed.pop_front().expect("what was sent is waiting"))
    }

    /// On a follower, a read arrives. With the bound reached, the oldest one gives way and is returned: whoever asked it
    /// has probably asked again since.
    pub(crate) fn wait(&mut self, context: u64, reads_max: usize) -> Option<u64> {
        if self.waiting.contains(&context) {
            return None;
        }
        let oldest = if self.waiting.len() >= reads_max { self.waiting.pop_front() } else { None };
        if oldest.is_some() {
            self.asked = self.asked.saturating_sub(1);
        }
        self.waiting.push_back(context);
        oldest
    }

    /// The question that is to go to the leader now, if reads wait and none is under way.
    pub(crate) fn ask(&mut self, now: Time) -> Option<u64> {
        if self.question.is_some() {
            return None;
        }
        let context = *self.waiting.front()?;
        self.question = Some(Question { context, at: now });
        self.asked = self.waiting.len();
        Some(context)
    }

    /// The question that is to go to the leader again, since it has had no answer for `patience_ms`. The context stays:
    /// all that share it began before it was asked the first time, so any answer to it is right for them.
    pub(crate) fn ask_again(&mut self, now: Time, patience_ms: u64) -> Option<u64> {
        let question = self.question.as_mut().filter(|question| now >= question.at.plus_ms(patience_ms))?;
        question.at = now;
        Some(question.context)
    }

    /// The leader answered: whether it was asked. Then [`Self::take_answered`] has the reads.
    pub(crate) fn answered(&mut self, context: u64) -> bool {
        self.question.take_if(|question| question.context == context).is_some()
    }

    /// After an answer, the next of the reads that it is for.
    pub(crate) fn take_answered(&mut self) -> Option<u64> {
        self.asked = self.asked.checked_sub(1)?;
        self.waiting.pop_front()
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
        early.chain(unconfirmed).chain(old.waiting).collect()
    }

    /// Every invariant of the waiting reads.
    pub(crate) fn check(&self, reads_max: usize) {
        assert!(self.len() <= reads_max, "{} reads, {reads_max} allowed", self.len());
        assert!(self.sent <= self.confirmed + self.unconfirmed.len() as u64, "{self:?}");
        assert!(self.unconfirmed.iter().is_sorted_by_key(|read| read.index), "{self:?}");
        assert!(self.waiting.is_empty() || self.early.is_empty() && self.unconfirmed.is_empty(), "{self:?}");
        assert!(self.asked <= self.waiting.len(), "{self:?}");
        assert!(self.asked == 0 || self.question.is_some(), "{self:?}");
    }
}
