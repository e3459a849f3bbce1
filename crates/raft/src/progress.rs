//! What a leader knows of one follower, and how much it may send it: etcd's flow control with its three states.
//! All transitions are here.

use std::collections::VecDeque;

use crate::{Index, NodeId};

/// How the leader talks to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerState {
    /// Where the logs part is not known: one append at a time, and after it none until an answer or, should it be
    /// lost, the next heartbeat's.
    Probe,
    /// The follower keeps up: appends go out without waiting for answers, within the window.
    Replicate,
    /// The follower needs entries that were given back. It gets heartbeats only, until it reports a log that ours
    /// continues. (Snapshots come with the cluster: this is where they begin.)
    NeedsSnapshot,
}

#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) id: NodeId,
    /// The follower's disk has our log up to here.
    pub(crate) matched: Index,
    /// What to send next: everything between is on its way. Above `matched`.
    pub(crate) next: Index,
    pub(crate) state: FollowerState,
    /// Heard from since the last check of the quorum.
    pub(crate) active: bool,
    /// The latest round of reads that the follower has confirmed.
    pub(crate) read_acked: u64,
    /// Sending stops until an answer.
    paused: bool,
    /// The highest commit index that is on its way.
    sent_commit: Index,
    /// The last index of each append with entries that is on its way, ascending.
    inflight: VecDeque<Index>,
    inflight_max: usize,
}

impl Progress {
    /// A follower of whom nothing is known, tried first behind the `last` entry.
    pub(crate) fn new(id: NodeId, last: Index, inflight_max: usize) -> Self {
        Self {
            id,
            matched: Index::ZERO,
            next: last.next(),
            state: FollowerState::Probe,
            active: false,
            read_acked: 0,
            paused: false,
            sent_commit: Index::ZERO,
            inflight: VecDeque::new(),
            inflight_max,
        }
    }

    /// A new leader knows nothing: not even what an earlier term acknowledged.
    pub(crate) fn reset(&mut self, last: Index) {
        *self = Self::new(self.id, last, self.inflight_max);
    }

    fn enter(&mut self, state: FollowerState) {
        self.state = state;
        self.paused = false;
        self.inflight.clear();
        if state != FollowerState::NeedsSnapshot {
            self.next = self.matched.next();
        }
        self.sent_commit = self.sent_commit.min(self.next.prev());
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused || self.state == FollowerState::NeedsSnapshot
    }

    pub(crate) fn is_window_full(&self) -> bool {
        self.state == FollowerState::Replicate && self.inflight.len() >= self.inflight_max
    }

    /// The next append's predecessor is gone.
    pub(crate) fn lost_touch(&mut self) {
        self.enter(FollowerState::NeedsSnapshot);
    }

    /// An append with `entries` entries from `next` on, and this commit index, is on its way.
    pub(crate) fn sent(&mut self, entries: usize, commit: Index) {
        match self.state {
            FollowerState::Probe => self.paused |= entries > 0,
            FollowerState::Replicate => {
                if entries > 0 {
                    self.next = self.next.plus(entries);
                    self.inflight.push_back(self.next.prev());
                }
                self.paused = self.is_window_full();
            }
            FollowerState::NeedsSnapshot => {
                unreachable!("nothing is sent to a follower that needs a snapshot")
            }
        }
        self.sent_commit = commit;
    }

    pub(crate) fn sent_heartbeat(&mut self, commit: Index) {
        self.sent_commit = commit;
    }

    /// Whether telling the follower of this commit index could move its own.
    pub(crate) fn can_bump_commit(&self, commit: Index) -> bool {
        commit > self.sent_commit && self.sent_commit < self.next.prev()
    }

    /// The follower is alive: a probe that got lost may be repeated.
    pub(crate) fn heard_heartbeat(&mut self) {
        self.active = true;
        self.paused = false;
    }

    /// The follower's disk has our log up to `index`. `first` is the first entry that we still have. Whether that is
    /// news, of its log or of its ability to follow.
    pub(crate) fn acknowledged(&mut self, index: Index, first: Index) -> bool {
        let advanced = index > self.matched;
        if advanced {
            self.matched = index;
            self.next = self.next.max(index.next());
            self.paused = false;
        }
        match self.state {
            FollowerState::Probe if index == self.matched => {
                self.enter(FollowerState::Replicate);
                true
            }
            FollowerState::NeedsSnapshot if advanced && self.matched.next() >= first => {
                self.enter(FollowerState::Replicate);
                true
            }
            FollowerState::Replicate => {
                while self.inflight.front().is_some_and(|last| *last <= index) {
                    self.inflight.pop_front();
                }
                advanced
            }
            FollowerState::Probe | FollowerState::NeedsSnapshot => advanced,
        }
    }

    /// The follower has no entry that fits at `rejected`; `hint` is the highest place where the logs may agree.
    /// Whether another attempt is due: an old answer changes nothing.
    pub(crate) fn rejected(&mut self, rejected: Index, hint: Index) -> bool {
        match self.state {
            FollowerState::Replicate => {
                if rejected <= self.matched {
                    return false;
                }
                self.enter(FollowerState::Probe);
                true
            }
            FollowerState::Probe => {
                if self.next.prev() != rejected {
                    return false;
                }
                self.next = rejected.min(hint.next()).max(self.matched.next());
                self.sent_commit = self.sent_commit.min(self.next.prev());
                self.paused = false;
                true
            }
            FollowerState::NeedsSnapshot => false,
        }
    }

    /// Every invariant of one follower. `last` is the leader's last entry.
    pub(crate) fn check(&self, last: Index) {
        assert!(self.matched < self.next, "{}: matched {} next {}", self.id, self.matched, self.next);
        assert!(self.next <= last.next(), "{}: next {} beyond the log's end {last}", self.id, self.next);
        assert!(self.inflight.len() <= self.inflight_max, "{}: {:?}", self.id, self.inflight);
        assert!(self.inflight.is_empty() || self.state == FollowerState::Replicate, "{self:?}");
        assert!(self.inflight.iter().is_sorted(), "{}: {:?}", self.id, self.inflight);
        assert!(self.inflight.back().is_none_or(|sent| *sent < self.next), "{self:?}");
    }
}
