//! What a leader knows of one follower, and how much it may send it: etcd's flow control with its three states.
//! All transitions are here.

use std::collections::VecDeque;

use crate::{Index, Limits, NodeId, Time};

/// How long a follower that has got a snapshot may be away, since it opens itself anew with it, and still find the log kept
/// for it: as long as etcd keeps its log after a snapshot is sent (`releaseDelayAfterSnapshot`), or so many times what the
/// sending took, since a store that is larger takes longer to open, too.
const TAKE_OVER_MS: u64 = 30_000;
const TAKE_OVER_SENDINGS: u64 = 2;
/// How often the bound on the log that is kept for a snapshot's receiver is doubled at most.
const KEPT_DOUBLINGS_MAX: u32 = 2;
/// How often the pause after a snapshot that failed is doubled, and how long it is at most.
const SNAPSHOT_PAUSE_DOUBLINGS_MAX: u32 = 6;
const SNAPSHOT_PAUSE_MAX_MS: u64 = 10_000;

/// How the leader talks to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerState {
    /// Where the logs part is not known: one append at a time, and after it none until an answer or, should it be
    /// lost, the next heartbeat's.
    Probe,
    /// The follower keeps up: appends go out without waiting for answers, within the window.
    Replicate,
    /// The follower needs entries that were given back, and a snapshot is made or under way. It gets heartbeats only,
    /// until it reports a log that ours continues, or the shell reports how the sending ended.
    Snapshot,
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
    /// When it was last heard.
    pub(crate) heard_at: Time,
    /// The latest round of reads that the follower has confirmed.
    pub(crate) read_acked: u64,
    /// Sending stops until an answer.
    paused: bool,
    /// The highest commit index that is on its way.
    sent_commit: Index,
    inflight: Window,
    /// The snapshot that it gets, or has got and not yet confirmed.
    snapshot: Option<Sending>,
    /// Snapshots in a row that arrived too late: the log behind them was given back before the follower had taken them over.
    late_snapshots: u32,
    /// Snapshots in a row that failed, and until when there is no next one: to make one costs a read of the whole store.
    failed_snapshots: u32,
    no_snapshot_until: Time,
}

/// Appends with entries that are on their way.
#[derive(Debug)]
struct Window {
    /// The last index of each, ascending, and the size of its entries.
    appends: VecDeque<(Index, usize)>,
    /// Their sum.
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

/// A snapshot for one follower.
#[derive(Clone, Copy, Debug)]
struct Sending {
    /// Its index, once it is made.
    at: Option<Index>,
    /// No snapshot that is being made is older than this.
    keep_from: Index,
    /// When it was wanted.
    since: Time,
    /// When the sending is known to have ended well, and until when the follower may take over what it got.
    takes_over_until: Option<Time>,
}

impl Window {
    fn push(&mut self, last: Index, bytes: usize) {
        self.appends.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn free_to(&mut self, index: Index) {
        while self.appends.front().is_some_and(|(last, _)| *last <= index) {
            let (_, bytes) = self.appends.pop_front().expect("there is a first one");
            self.bytes -= bytes;
        }
    }

    fn clear(&mut self) {
        self.appends.clear();
        self.bytes = 0;
    }

    fn is_full(&self) -> bool {
        self.appends.len() >= self.messages_max || self.bytes >= self.bytes_max
    }
}

impl Progress {
    /// A follower of whom nothing is known, tried first behind the `last` entry.
    pub(crate) fn new(id: NodeId, last: Index, now: Time, limits: &Limits) -> Self {
        let Limits { inflight_messages_max: messages_max, inflight_bytes_max: bytes_max, .. } = *limits;
        Self {
            id,
            matched: Index::ZERO,
            next: last.next(),
            state: FollowerState::Probe,
            active: false,
            heard_at: now,
            read_acked: 0,
            paused: false,
            sent_commit: Index::ZERO,
            inflight: Window { appends: VecDeque::new(), bytes: 0, messages_max, bytes_max },
            snapshot: None,
            late_snapshots: 0,
            failed_snapshots: 0,
            no_snapshot_until: Time(0),
        }
    }

    /// A new leader knows nothing: not even what an earlier term acknowledged.
    pub(crate) fn reset(&mut self, last: Index, now: Time) {
        self.matched = Index::ZERO;
        self.next = last.next();
        self.active = false;
        self.heard_at = now;
        self.read_acked = 0;
        self.sent_commit = Index::ZERO;
        self.snapshot = None;
        self.late_snapshots = 0;
        (self.failed_snapshots, self.no_snapshot_until) = (0, Time(0));
        self.state = FollowerState::Probe;
        self.paused = false;
        self.inflight.clear();
    }

    fn enter(&mut self, state: FollowerState) {
        self.state = state;
        self.paused = false;
        self.inflight.clear();
        self.next = self.matched.next();
        self.sent_commit = self.sent_commit.min(self.next.prev());
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused || self.state == FollowerState::Snapshot
    }

    pub(crate) fn is_window_full(&self) -> bool {
        self.state == FollowerState::Replicate && self.inflight.is_full()
    }

    /// Appends with entries under way, and the size of these.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        (self.inflight.appends.len(), self.inflight.bytes)
    }

    /// The index of the snapshot under way, once that is known.
    pub(crate) fn snapshot_index(&self) -> Option<Index> {
        self.snapshot.filter(|_| self.state == FollowerState::Snapshot).and_then(|snapshot| snapshot.at)
    }

    /// From where on the follower will need the log once it has the snapshot that it gets, if it was heard after `since`, or
    /// takes over now what has arrived.
    pub(crate) fn kept_from(&self, now: Time, since: Time) -> Option<Index> {
        let snapshot = self.snapshot?;
        let takes_over = snapshot.takes_over_until.is_some_and(|until| now < until);
        (takes_over || self.heard_at > since).then(|| snapshot.at.unwrap_or(snapshot.keep_from))
    }

    /// How often the bound on what is kept for it is doubled: once for each snapshot that came too late, so that under
    /// whatever load there is one comes in time, or the bound is what memory can bear.
    pub(crate) fn kept_doublings(&self) -> u32 {
        self.late_snapshots.min(KEPT_DOUBLINGS_MAX)
    }

    /// The next append's predecessor is gone: a snapshot is to be made, of `applied` or later.
    pub(crate) fn needs_snapshot(&mut self, applied: Index, now: Time) {
        let is_late = self.snapshot.is_some_and(|snapshot| snapshot.takes_over_until.is_some());
        self.late_snapshots = self.late_snapshots.saturating_add(u32::from(is_late));
        self.enter(FollowerState::Snapshot);
        self.snapshot = Some(Sending { at: None, keep_from: applied, since: now, takes_over_until: None });
    }

    /// Whether a snapshot failed a moment ago.
    pub(crate) fn waits_after_failure(&self, now: Time) -> bool {
        now < self.no_snapshot_until
    }

    /// Whether a snapshot is being made for it.
    pub(crate) fn awaits_snapshot(&self) -> bool {
        self.state == FollowerState::Snapshot && self.snapshot_index().is_none()
    }

    /// A snapshot of this index is on its way.
    pub(crate) fn sent_snapshot(&mut self, index: Index) {
        assert!(self.awaits_snapshot(), "{}: a snapshot that nobody asked for", self.id);
        self.snapshot =
            self.snapshot.map(|snapshot| Sending { at: Some(index), keep_from: index, ..snapshot });
        self.next = index.next().max(self.matched.next());
        self.sent_commit = index;
    }

    /// The sending ended. The follower says itself when it has taken the snapshot over; should that get lost, or the
    /// sending have failed, the next heartbeat's answer starts the next attempt, but not before `pause_ms` after a failure,
    /// twice that after the next one, and so on. An end of another sending than the one under way, named by its index, says
    /// nothing.
    pub(crate) fn snapshot_reported(&mut self, sent: Option<Index>, ok: bool, now: Time, pause_ms: u64) {
        if self.state != FollowerState::Snapshot || self.snapshot_index() != sent {
            return;
        }
        let arrived = self.snapshot_index().filter(|_| ok);
        self.enter(FollowerState::Probe);
        match arrived {
            Some(index) => {
                self.next = self.next.max(index.next());
                self.snapshot = self.snapshot.map(|snapshot| {
                    let sending_ms = now.0.saturating_sub(snapshot.since.0) / 1000;
                    let until = now.plus_ms(TAKE_OVER_MS.max(TAKE_OVER_SENDINGS * sending_ms));
                    Sending { takes_over_until: Some(until), ..snapshot }
                });
            }
            None => self.snapshot = None,
        }
        match ok {
            true => self.failed_snapshots = 0,
            false => {
                let pause_ms = (pause_ms << self.failed_snapshots.min(SNAPSHOT_PAUSE_DOUBLINGS_MAX))
                    .min(SNAPSHOT_PAUSE_MAX_MS);
                self.no_snapshot_until = now.plus_ms(pause_ms);
                self.failed_snapshots = self.failed_snapshots.saturating_add(1);
            }
        }
        self.paused = true;
    }

    /// What is on its way is probably lost.
    pub(crate) fn unreachable(&mut self) {
        if self.state == FollowerState::Replicate {
            self.enter(FollowerState::Probe);
        }
    }

    /// An append with `entries` entries from `next` on, of so many bytes, and this commit index, is on its way.
    pub(crate) fn sent(&mut self, entries: usize, bytes: usize, commit: Index) {
        match self.state {
            FollowerState::Probe => self.paused |= entries > 0,
            FollowerState::Replicate => {
                if entries > 0 {
                    self.next = self.next.plus(entries);
                    self.inflight.push(self.next.prev(), bytes);
                }
                self.paused = self.is_window_full();
            }
            FollowerState::Snapshot => unreachable!("nothing is sent to a follower that gets a snapshot"),
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

    /// The follower answered something.
    pub(crate) fn heard(&mut self, now: Time) {
        self.active = true;
        self.heard_at = now;
    }

    /// The follower is alive: a probe that got lost may be repeated.
    pub(crate) fn heard_heartbeat(&mut self, now: Time) {
        self.heard(now);
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
                self.follows();
                true
            }
            // Whatever index a snapshot was of: what counts is that our log continues the follower's.
            FollowerState::Snapshot if advanced && self.matched.next() >= first => {
                self.follows();
                true
            }
            FollowerState::Replicate => {
                self.inflight.free_to(index);
                advanced
            }
            FollowerState::Probe | FollowerState::Snapshot => advanced,
        }
    }

    /// Its log is continued by ours.
    fn follows(&mut self) {
        self.enter(FollowerState::Replicate);
        self.snapshot = None;
        self.late_snapshots = 0;
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
            FollowerState::Snapshot => false,
        }
    }

    /// Every invariant of one follower. `last` is the leader's last entry.
    pub(crate) fn check(&self, last: Index) {
        assert!(self.matched < self.next, "{}: matched {} next {}", self.id, self.matched, self.next);
        assert!(self.next <= last.next(), "{}: next {} beyond the log's end {last}", self.id, self.next);
        let Window { appends, bytes, messages_max, .. } = &self.inflight;
        assert!(appends.len() <= *messages_max, "{}: {appends:?}", self.id);
        assert_eq!(*bytes, appends.iter().map(|(_, bytes)| bytes).sum::<usize>(), "{}: {appends:?}", self.id);
        assert!(appends.is_empty() || self.state == FollowerState::Replicate, "{self:?}");
        assert!(appends.iter().is_sorted_by_key(|(last, _)| last), "{}: {appends:?}", self.id);
        assert!(appends.back().is_none_or(|(sent, _)| *sent < self.next), "{self:?}");
        match self.state {
            FollowerState::Probe => {}
            FollowerState::Replicate => assert!(self.snapshot.is_none(), "{self:?}"),
            FollowerState::Snapshot => {
                let snapshot = self.snapshot.expect("a snapshot is made or under way");
                assert!(snapshot.at.is_none_or(|at| self.next >= at.next()), "{self:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn snapshot(progress: &mut Progress, index: u64, (since_s, arrived_s): (u64, u64)) {
        progress.needs_snapshot(Index(index), Time(since_s * SECOND));
        progress.sent_snapshot(Index(index));
        progress.snapshot_reported(Some(Index(index)), true, Time(arrived_s * SECOND), 100);
    }

    fn new() -> Progress {
        Progress::new(NodeId(2), Index(0), Time(0), &Limits::default())
    }

    #[test]
    fn more_is_kept_for_whom_snapshots_reach_too_late() {
        let mut progress = new();
        for (index, doublings) in [(100, 0), (200, 1), (300, 2), (400, 2)] {
            snapshot(&mut progress, index, (index, index + 1));
            assert_eq!(progress.kept_doublings(), doublings, "snapshot of {index}");
        }
        assert!(progress.acknowledged(Index(400), Index(400)));
        assert_eq!(progress.kept_doublings(), 0, "it follows");
    }

    #[test]
    fn a_snapshot_that_was_sent_for_long_may_be_taken_over_for_longer() {
        for (sending_s, kept_s) in [(5, 30), (80, 160)] {
            let mut progress = new();
            snapshot(&mut progress, 7, (1, 1 + sending_s));
            let kept = |at_s: u64| {
                let now = Time((1 + sending_s + at_s) * SECOND);
                progress.kept_from(now, now)
            };
            assert_eq!(kept(kept_s - 1), Some(Index(7)), "sent for {sending_s} s");
            assert_eq!(kept(kept_s), None, "sent for {sending_s} s");
        }
    }
}
