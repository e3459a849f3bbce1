//! What cannot be handed to consensus now, since nobody is known to lead or leadership is being handed over. As in etcd
//! it waits for a leader; nothing of it is in any log, so what has waited too long is refused for good (rule 15).

use std::collections::VecDeque;

use raft::{Proposal, Time};

/// One request that waits.
#[derive(Debug)]
pub(crate) enum Held {
    /// A proposal.
    Propose(Proposal),
    /// A read that wants an index.
    Read(u64),
}

/// The requests that wait, in order.
#[derive(Debug)]
pub(crate) struct HeldRequests {
    queue: VecDeque<(Time, Held)>,
    /// Bytes of the proposals among them.
    bytes: usize,
    patience_ms: u64,
    count_max: usize,
    bytes_max: usize,
}

impl HeldRequests {
    /// `patience_ms`: how long a request may wait. What may wait is bounded as what may be in the log and not applied.
    pub(crate) fn new(patience_ms: u64, limits: &raft::Limits) -> Self {
        HeldRequests {
            queue: VecDeque::new(),
            bytes: 0,
            patience_ms,
            count_max: limits.uncommitted_entries_max,
            bytes_max: limits.uncommitted_bytes_max,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Lets a request wait; it is given back if there is no room.
    pub(crate) fn push(&mut self, now: Time, request: Held) -> Result<(), Held> {
        let bytes = self.bytes + request.bytes();
        if self.queue.len() >= self.count_max || bytes > self.bytes_max && self.bytes > 0 {
            return Err(request);
        }
        self.bytes = bytes;
        self.queue.push_back((now.plus_ms(self.patience_ms), request));
        Ok(())
    }

    /// The oldest request.
    pub(crate) fn pop(&mut self) -> Option<Held> {
        let (_, request) = self.queue.pop_front()?;
        self.bytes -= request.bytes();
        Some(request)
    }

    /// The oldest request, if it has waited too long.
    pub(crate) fn pop_expired(&mut self, now: Time) -> Option<Held> {
        self.queue.front().is_some_and(|(until, _)| *until <= now).then(|| self.pop()).flatten()
    }

    /// When the oldest has waited too long.
    pub(crate) fn deadline(&self) -> Time {
        self.queue.front().map_or(Time::NEVER, |(until, _)| *until)
    }

    pub(crate) fn check(&self) {
        let bytes: usize = self.queue.iter().map(|(_, request)| request.bytes()).sum();
        assert_eq!(self.bytes, bytes, "bytes of what waits for a leader");
        assert!(self.queue.iter().is_sorted_by_key(|(until, _)| *until), "what waits is out of order");
    }
}

impl Held {
    fn bytes(&self) -> usize {
        match self {
            Held::Propose(proposal) => proposal.data.len(),
            Held::Read(_) => 0,
        }
    }
}
