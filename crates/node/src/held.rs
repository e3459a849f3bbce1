//! What cannot be handed to consensus now, since nobody is known to lead or leadership is being handed over. As in etcd
//! it waits for a leader; nothing of it is in any log, so what has waited too long is refused for good (rule 15).

use std::collections::{BTreeMap, VecDeque};

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
    /// None for those that were given up; the first one never was.
    queue: VecDeque<(Time, Option<Held>)>,
    /// How many have left the queue.
    left: u64,
    /// Where each proposal stands: its place in the queue and `left`.
    places: BTreeMap<u64, u64>,
    /// Bytes of the proposals.
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
            left: 0,
            places: BTreeMap::new(),
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
        if let Held::Propose(proposal) = &request {
            self.places.insert(proposal.token, self.left + self.queue.len() as u64);
        }
        self.queue.push_back((now.plus_ms(self.patience_ms), Some(request)));
        Ok(())
    }

    /// The oldest request.
    pub(crate) fn pop(&mut self) -> Option<Held> {
        let (_, request) = self.queue.pop_front()?;
        self.left += 1;
        let request = request.expect("the first one was not given up");
        self.bytes -= request.bytes();
        if let Held::Propose(proposal) = &request {
            self.places.remove(&proposal.token);
        }
        self.drop_given_up();
        Some(request)
    }

    /// The oldest request, if it has waited too long.
    pub(crate) fn pop_expired(&mut self, now: Time) -> Option<Held> {
        self.queue.front().is_some_and(|(until, _)| *until <= now).then(|| self.pop()).flatten()
    }

    /// Nobody waits any more for this proposal, if it is here.
    pub(crate) fn give_up(&mut self, token: u64) {
        let Some(place) = self.places.remove(&token) else { return };
        let request = self.queue[(place - self.left) as usize].1.take();
        self.bytes -= request.expect("it waits").bytes();
        self.drop_given_up();
    }

    fn drop_given_up(&mut self) {
        while self.queue.front().is_some_and(|(_, request)| request.is_none()) {
            self.queue.pop_front();
            self.left += 1;
        }
    }

    /// When the oldest has waited too long.
    pub(crate) fn deadline(&self) -> Time {
        self.queue.front().map_or(Time::NEVER, |(until, _)| *until)
    }

    pub(crate) fn check(&self) {
        let bytes: usize = self.queue.iter().flat_map(|(_, request)| request).map(Held::bytes).sum();
        assert_eq!(self.bytes, bytes, "bytes of what waits for a leader");
        assert!(self.queue.iter().is_sorted_by_key(|(until, _)| *until), "what waits is out of order");
        assert!(self.queue.front().is_none_or(|(_, first)| first.is_some()), "the first one was given up");
        let proposals = self.queue.iter().filter(|(_, request)| matches!(request, Some(Held::Propose(_))));
        assert_eq!(self.places.len(), proposals.count(), "places of what waits");
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft::EntryKind;

    use super::*;

    fn held(count_max: usize, bytes_max: usize) -> HeldRequests {
        let limits = raft::Limits {
            uncommitted_entries_max: count_max,
            uncommitted_bytes_max: bytes_max,
            ..raft::Limits::default()
        };
        HeldRequests::new(100, &limits)
    }

    fn proposal(token: u64, bytes: usize) -> Held {
        Held::Propose(Proposal { token, kind: EntryKind::Normal, data: Bytes::from(vec![0; bytes]) })
    }

    fn token(held: Option<Held>) -> Option<u64> {
        held.map(|held| match held {
            Held::Propose(proposal) => proposal.token,
            Held::Read(context) => context,
        })
    }

    #[test]
    fn what_waits_for_a_leader_is_bounded_in_number_and_bytes() {
        let now = Time::from_ms(5);
        let mut requests = held(3, 1_000);
        assert!(requests.push(now, proposal(1, 0)).is_ok() && requests.push(now, Held::Read(2)).is_ok());
        assert!(requests.push(now, proposal(3, 0)).is_ok());
        assert_eq!(token(requests.push(now, proposal(4, 0)).err()), Some(4), "it is given back");
        assert_eq!(token(requests.push(now, Held::Read(5)).err()), Some(5));
        assert_eq!(token(requests.pop()), Some(1));
        assert!(requests.push(now, proposal(6, 0)).is_ok());
        requests.check();
        for expected in [2, 3, 6] {
            assert_eq!(token(requests.pop()), Some(expected), "in order");
        }

        let mut requests = held(100, 1_000);
        assert!(requests.push(now, proposal(1, 600)).is_ok());
        assert!(requests.push(now, proposal(2, 401)).is_err());
        assert!(requests.push(now, proposal(3, 400)).is_ok());
        assert!(requests.push(now, proposal(4, 1)).is_err());
        assert!(requests.push(now, Held::Read(5)).is_ok(), "a read takes none");
        requests.check();
        assert_eq!(
            (token(requests.pop()), token(requests.pop()), token(requests.pop())),
            (Some(1), Some(3), Some(5))
        );
        // One of any size may wait alone, or it could never be asked for.
        assert!(requests.push(now, proposal(6, 5_000)).is_ok());
        assert!(requests.push(now, proposal(7, 1)).is_err());
        requests.check();
    }

    #[test]
    fn what_has_waited_too_long_goes_and_no_sooner() {
        let mut requests = held(100, 1_000);
        assert_eq!(requests.deadline(), Time::NEVER);
        let pushed = requests.push(Time::from_ms(5), proposal(1, 0)).is_ok()
            && requests.push(Time::from_ms(6), Held::Read(2)).is_ok();
        assert!(pushed);
        assert_eq!(requests.deadline(), Time::from_ms(105));
        assert_eq!(token(requests.pop_expired(Time::from_ms(104))), None);
        assert_eq!(token(requests.pop_expired(Time::from_ms(105))), Some(1));
        assert_eq!(token(requests.pop_expired(Time::from_ms(105))), None);
        assert_eq!(token(requests.pop_expired(Time::from_ms(106))), Some(2));
        assert!(requests.is_empty());
    }

    #[test]
    fn what_is_given_up_is_gone_and_makes_room() {
        let now = Time::from_ms(5);
        let mut requests = held(4, 1_000);
        let pushed = [proposal(1, 300), proposal(2, 300), Held::Read(3), proposal(4, 300)];
        assert!(pushed.into_iter().all(|request| requests.push(now, request).is_ok()));
        requests.give_up(2);
        requests.give_up(2);
        requests.give_up(3);
        requests.check();
        requests.give_up(1);
        requests.check();
        // Those before the read have left.
        assert!(requests.push(now, proposal(5, 700)).is_ok());
        requests.give_up(4);
        requests.check();
        assert_eq!(
            [token(requests.pop()), token(requests.pop()), token(requests.pop())],
            [Some(3), Some(5), None]
        );
        requests.check();
        assert!(requests.is_empty());
        assert!(requests.push(now, proposal(6, 1)).is_ok());
        requests.give_up(6);
        assert!(requests.is_empty());
        assert_eq!(requests.deadline(), Time::NEVER);
    }
}
