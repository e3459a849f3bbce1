//! The timers of all leases.

use std::collections::{BTreeMap, BTreeSet};

use raft::Time;
use store::{LeaseChange, LeaseTimes};

use super::checkpoints::{self, Checkpoints};
use super::clock::LeaseClock;
use super::spread::Spread;
use crate::RequestId;

const SECOND_US: u64 = 1_000_000;
/// A member that runs ticks once a heartbeat; a gap longer than so many is a pause.
const GAP_HEARTBEATS: u64 = 3;
/// Leases whose time begins anew in one step of a promotion: less than a millisecond.
const REFRESH_MAX: usize = 500;
/// From so many leases on those that would end together are spread out at a promotion (etcd: lessor.go).
const SPREAD_MIN: usize = 1_000;
/// Renewals that may wait for leases to be gone.
const WAITING_MAX: usize = 65_536;

/// What a lessor is told once.
#[derive(Clone, Copy, Debug)]
pub struct LessorSettings {
    /// Heartbeat interval: how often time is looked at while there are leases.
    pub heartbeat_interval_ms: u64,
    /// Election timeout: what each lease gets on top when a new leader begins to count.
    pub election_timeout_ms: u64,
    /// Whether what is left of long leases is noted in the log (gate LeaseCheckpoint).
    pub checkpoints: bool,
}

/// What came of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It lives for so long from now on.
    Renewed {
        /// Seconds, as granted.
        ttl_s: i64,
    },
    /// There is no such lease.
    NotFound,
    /// Its time is over, and it is about to be revoked: see [`Lessor::wait_for_end`].
    Ended,
    /// A shorter time was noted for it, or is about to be: to be taken back first, by a checkpoint of 0 in the log. When
    /// that is applied the renewal is to be asked for again.
    Checkpointed,
    /// This member does not lead, or does not count time yet: the leader is to be asked.
    NotPrimary,
}

/// What came of the wish to wait for a lease to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The request is named when the lease is gone, or when this member stops leading.
    Waiting,
    /// It is gone.
    Gone,
    /// This member does not lead.
    NotPrimary,
    /// Too many wait.
    Full,
}

/// What is left of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// So much.
    Left {
        /// Whole seconds, rounded down; 0 too for one that has ended and is not revoked yet.
        ttl_s: i64,
        /// What was granted, seconds.
        granted_ttl_s: i64,
    },
    /// There is no such lease.
    NotFound,
    /// This member does not lead, or does not count time yet.
    NotPrimary,
}

/// A lease, and the time of the lease clock at which it ended: names one end, whatever becomes of the lease's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseEnd {
    /// Microseconds of the lease clock.
    pub at_us: u64,
    /// The lease.
    pub id: i64,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    times: LeaseTimes,
    /// Meaningful in the current epoch only.
    ends_us: u64,
    /// In which epoch it was started. In an earlier one than the current: its time has not begun under this leader.
    epoch: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// In the queue.
    Running,
    /// Handed out by [`Lessor::take_ended`].
    Ended,
    /// Its revoke is proposed.
    Revoking,
}

/// That this member counts time.
#[derive(Debug)]
struct Primary {
    /// Since when, by the lease clock.
    since_us: u64,
    /// What of the promotion is still to do: all leases from this id on.
    refresh_from: Option<i64>,
    spread: Option<Spread>,
}

/// The timers of all leases. See the module's documentation; each call costs O(log leases) for each lease it touches,
/// but for [`Lessor::restore`].
#[derive(Debug)]
pub struct Lessor {
    settings: LessorSettings,
    clock: LeaseClock,
    timers: BTreeMap<i64, Timer>,
    /// Every running lease of the current epoch, by its end.
    queue: BTreeSet<LeaseEnd>,
    /// One more with each change of leadership.
    epoch: u32,
    /// The term in which this member leads.
    leads_in: Option<u64>,
    /// The term of the last applied entry.
    applied_term: u64,
    primary: Option<Primary>,
    /// Renewals that wait for a lease to be gone.
    waiting: BTreeMap<i64, Vec<RequestId>>,
    waiting_count: usize,
    checkpoints: Checkpoints,
}

impl Lessor {
    /// A lessor of a member that starts, with the leases that it has found. It counts nothing before it leads.
    pub fn new(
        settings: LessorSettings,
        now: Time,
        leases: impl IntoIterator<Item = (i64, LeaseTimes)>,
    ) -> Self {
        let gap_max_us = GAP_HEARTBEATS * settings.heartbeat_interval_ms * 1000;
        let mut lessor = Lessor {
            settings,
            clock: LeaseClock::new(now, gap_max_us),
            timers: BTreeMap::new(),
            queue: BTreeSet::new(),
            epoch: 1,
            leads_in: None,
            applied_term: 0,
            primary: None,
            waiting: BTreeMap::new(),
            waiting_count: 0,
            checkpoints: Checkpoints::default(),
        };
        let _nobody = lessor.restore(leases);
        lessor
    }

    /// Takes up the leases of a snapshot instead of all that there were; what is returned are the renewals that waited.
    pub fn restore(&mut self, leases: impl IntoIterator<Item = (i64, LeaseTimes)>) -> Vec<RequestId> {
        let waited = self.demote();
        self.timers = leases.into_iter().map(|(id, times)| (id, Timer::new(times))).collect();
        waited
    }

    /// The raft thread has heard that this member leads in `term`. Time counts once an entry of that term is applied:
    /// then everything that earlier leaders did to leases is.
    pub fn lead(&mut self, term: u64) -> Vec<RequestId> {
        if self.leads_in == Some(term) {
            return Vec::new();
        }
        let waited = self.demote();
        self.leads_in = Some(term);
        waited
    }

    /// The raft thread has heard that this member does not lead any more. Returned are the renewals that waited: they
    /// have to ask the new leader.
    pub fn follow(&mut self) -> Vec<RequestId> {
        self.demote()
    }

    fn demote(&mut self) -> Vec<RequestId> {
        self.leads_in = None;
        self.primary = None;
        self.epoch += 1;
        self.queue.clear();
        self.checkpoints = Checkpoints::default();
        self.waiting_count = 0;
        std::mem::take(&mut self.waiting).into_values().flatten().collect()
    }

    /// The apply thread has applied a batch that ends with an entry of `term`, and this is what it did to leases. To be
    /// called before the batch counts as applied. Returned are the renewals whose lease is gone.
    pub fn applied(&mut self, now: Time, term: u64, changes: &[LeaseChange]) -> Vec<RequestId> {
        self.clock.observe(now);
        let mut gone = Vec::new();
        for change in changes {
            match *change {
                LeaseChange::Granted { id, ttl_s } => self.granted(id, ttl_s),
                LeaseChange::Revoked { id } => self.revoked(id, &mut gone),
                LeaseChange::Checkpointed { id, remaining_ttl_s } => self.checkpointed(id, remaining_ttl_s),
            }
        }
        self.applied_term = self.applied_term.max(term);
        if self.primary.is_none() && self.leads_in == Some(self.applied_term) {
            self.promote();
        }
        gone
    }

    fn granted(&mut self, id: i64, ttl_s: i64) {
        let times = LeaseTimes { granted_ttl_s: ttl_s, remaining_ttl_s: 0 };
        self.timers.insert(id, Timer::new(times));
        if self.primary.is_some() {
            self.start(id, self.clock.now_us() + span_us(ttl_s));
            self.schedule_checkpoint(id);
        }
    }

    fn revoked(&mut self, id: i64, gone: &mut Vec<RequestId>) {
        if let Some(timer) = self.timers.remove(&id) {
            self.queue.remove(&LeaseEnd { at_us: timer.ends_us, id });
        }
        self.checkpoints.forget(id);
        if let Some(waited) = self.waiting.remove(&id) {
            self.waiting_count -= waited.len();
            gone.extend(waited);
        }
    }

    fn checkpointed(&mut self, id: i64, remaining_ttl_s: i64) {
        if let Some(timer) = self.timers.get_mut(&id) {
            timer.times.remaining_ttl_s = remaining_ttl_s;
            self.schedule_checkpoint(id);
        }
    }

    fn promote(&mut self) {
        let spread = (self.timers.len() >= SPREAD_MIN).then(Spread::default);
        self.primary = Some(Primary { since_us: self.clock.now_us(), refresh_from: Some(i64::MIN), spread });
        self.refresh();
    }

    /// Begins the time of some more leases after a promotion: with a million of them that takes long, and nothing may
    /// hold up the raft thread.
    fn refresh(&mut self) {
        let Some(Primary { since_us, refresh_from: Some(from), .. }) = self.primary else { return };
        let mut last = None;
        let ids: Vec<(i64, i64)> = self
            .timers
            .range(from..)
            .take(REFRESH_MAX)
            .inspect(|(id, _)| last = Some(**id))
            .filter(|(_, timer)| timer.epoch != self.epoch)
            .map(|(id, timer)| (*id, timer.times.ttl_s()))
            .collect();
        for (id, ttl_s) in ids {
            let mut ends_us = self.first_end_us(since_us, ttl_s);
            if let Some(Primary { spread: Some(spread), .. }) = &mut self.primary {
                ends_us = spread.place(ends_us);
            }
            self.start(id, ends_us);
            self.schedule_checkpoint(id);
        }
        if let Some(primary) = &mut self.primary {
            primary.refresh_from = last.and_then(|last| last.checked_add(1));
            if primary.refresh_from.is_none() {
                primary.spread = None;
            }
        }
    }

    /// The end of a lease whose time began anew with a promotion.
    fn first_end_us(&self, since_us: u64, ttl_s: i64) -> u64 {
        since_us + span_us(ttl_s) + self.settings.election_timeout_ms * 1000
    }

    /// Lets a lease run until `ends_us`.
    fn start(&mut self, id: i64, ends_us: u64) {
        let epoch = self.epoch;
        let Some(timer) = self.timers.get_mut(&id) else { return };
        if timer.epoch == epoch && timer.phase == Phase::Running {
            self.queue.remove(&LeaseEnd { at_us: timer.ends_us, id });
        }
        (timer.ends_us, timer.epoch, timer.phase) = (ends_us, epoch, Phase::Running);
        self.queue.insert(LeaseEnd { at_us: ends_us, id });
    }

    fn schedule_checkpoint(&mut self, id: i64) {
        let Some(timer) = self.timers.get(&id) else { return };
        let is_long = span_us(timer.times.ttl_s()) > checkpoints::INTERVAL_US;
        if self.settings.checkpoints && self.primary.is_some() && is_long {
            self.checkpoints.schedule(id, self.clock.now_us() + checkpoints::INTERVAL_US);
        }
    }

    /// When a lease ends; `None` if this member counts no time.
    fn ends_us(&self, timer: &Timer) -> Option<u64> {
        let primary = self.primary.as_ref()?;
        Some(match timer.epoch == self.epoch {
            true => timer.ends_us,
            false => self.first_end_us(primary.since_us, timer.times.ttl_s()),
        })
    }

    /// Lets a lease live for its whole time from `now` on. The caller has confirmed, since it was asked, that this
    /// member leads.
    pub fn renew(&mut self, now: Time, id: i64) -> Renewal {
        self.clock.observe(now);
        if self.primary.is_none() {
            return Renewal::NotPrimary;
        }
        let Some(timer) = self.timers.get(&id) else { return Renewal::NotFound };
        if self.ends_us(timer).is_some_and(|ends_us| ends_us <= self.clock.now_us()) {
            return Renewal::Ended;
        }
        if timer.times.remaining_ttl_s > 0 || self.checkpoints.is_proposed(id) {
            return Renewal::Checkpointed;
        }
        let ttl_s = timer.times.granted_ttl_s;
        self.start(id, self.clock.now_us() + span_us(ttl_s));
        Renewal::Renewed { ttl_s }
    }

    /// Lets `waiter` wait until a lease that has ended is gone ([`Lessor::applied`] names it then), or until this member
    /// stops leading ([`Lessor::follow`]).
    pub fn wait_for_end(&mut self, id: i64, waiter: RequestId) -> Wait {
        if self.primary.is_none() {
            return Wait::NotPrimary;
        }
        if !self.timers.contains_key(&id) {
            return Wait::Gone;
        }
        if self.waiting_count >= WAITING_MAX {
            return Wait::Full;
        }
        self.waiting_count += 1;
        self.waiting.entry(id).or_default().push(waiter);
        Wait::Waiting
    }

    /// What is left of a lease.
    pub fn remaining(&mut self, now: Time, id: i64) -> Remaining {
        self.clock.observe(now);
        match self.timers.get(&id) {
            _ if self.primary.is_none() => Remaining::NotPrimary,
            None => Remaining::NotFound,
            Some(timer) => {
                let ends_us = self.ends_us(timer).unwrap_or_default();
                let left_s = ends_us.saturating_sub(self.clock.now_us()) / SECOND_US;
                Remaining::Left { ttl_s: left_s as i64, granted_ttl_s: timer.times.granted_ttl_s }
            }
        }
    }

    /// Appends the ends of at most `count` leases, those from id `from` on, in order of their ids; answers from where to
    /// go on. On a member that counts no time all ends are 0.
    pub fn list(&self, from: i64, count: usize, out: &mut Vec<LeaseEnd>) -> Option<i64> {
        let mut leases = self.timers.range(from..);
        let some = leases.by_ref().take(count);
        out.extend(some.map(|(id, timer)| LeaseEnd { at_us: self.ends_us(timer).unwrap_or(0), id: *id }));
        leases.next().map(|(id, _)| *id)
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// Takes in the time, and goes on with a promotion; due at [`Lessor::tick_at`].
    pub fn tick(&mut self, now: Time) {
        self.clock.observe(now);
        self.refresh();
    }

    /// When [`Lessor::tick`] is due, for no time to be lost; never, if no time is counted.
    pub fn tick_at(&self) -> Time {
        match &self.primary {
            Some(Primary { refresh_from: Some(_), .. }) => self.clock.seen(),
            Some(_) if !self.timers.is_empty() => {
                self.clock.seen().plus_ms(self.settings.heartbeat_interval_ms)
            }
            _ => Time::NEVER,
        }
    }

    /// When the next lease ends.
    pub fn ends_at(&self) -> Time {
        self.queue.first().map_or(Time::NEVER, |end| self.clock.when(end.at_us))
    }

    /// When the next checkpoint is due.
    pub fn checkpoint_at(&self) -> Time {
        self.checkpoints.next_us().map_or(Time::NEVER, |at_us| self.clock.when(at_us))
    }

    /// Appends leases that have ended, in the order in which they did, at most `count`. Each is handed out once, until
    /// [`Lessor::put_back`].
    pub fn take_ended(&mut self, count: usize, out: &mut Vec<LeaseEnd>) {
        for _ in 0..count {
            let Some(end) = self.queue.first().copied().filter(|end| end.at_us <= self.clock.now_us()) else {
                return;
            };
            self.queue.remove(&end);
            self.timer_of(end, Phase::Running).expect("every lease in the queue runs").phase = Phase::Ended;
            out.push(end);
        }
    }

    /// Whether the revoke of a lease that was handed out may be proposed now, in the term in which leadership was
    /// confirmed since. It is being revoked then.
    pub fn begin_revoke(&mut self, end: LeaseEnd) -> bool {
        let timer = self.timer_of(end, Phase::Ended);
        timer.map(|timer| timer.phase = Phase::Revoking).is_some()
    }

    /// The revoke was not taken, or changed nothing: it is to be tried again.
    pub fn put_back(&mut self, end: LeaseEnd) {
        if let Some(timer) = self.timer_of(end, Phase::Revoking) {
            timer.phase = Phase::Running;
            self.queue.insert(end);
        }
    }

    /// The timer of exactly this end of a lease, if that is how far it is.
    fn timer_of(&mut self, end: LeaseEnd, phase: Phase) -> Option<&mut Timer> {
        let epoch = self.epoch;
        self.timers
            .get_mut(&end.id)
            .filter(|timer| timer.epoch == epoch && timer.ends_us == end.at_us && timer.phase == phase)
    }

    /// Takes out leases whose checkpoint is due, at most `count`: what is left of each, seconds, rounded up. They are
    /// to be reported by [`Lessor::checkpoints_settled`].
    pub fn take_checkpoints(&mut self, count: usize) -> Vec<(i64, i64)> {
        let now_us = self.clock.now_us();
        let mut taken = Vec::new();
        while taken.len() < count
            && let Some(id) = self.checkpoints.pop(now_us)
        {
            let Some(timer) = self.timers.get(&id) else { continue };
            let left_s = timer.ends_us.saturating_sub(now_us).div_ceil(SECOND_US) as i64;
            if timer.phase != Phase::Running || left_s == 0 {
                continue;
            }
            if left_s < timer.times.granted_ttl_s {
                self.checkpoints.proposed(id);
                taken.push((id, left_s));
            } else {
                self.schedule_checkpoint(id);
            }
        }
        taken
    }

    /// Checkpoints that were proposed are applied, or never will be (`refused`): then they are due again.
    pub fn checkpoints_settled(&mut self, ids: &[i64], refused: bool) {
        self.checkpoints.settled(ids);
        for id in ids.iter().filter(|id| refused && self.timers.contains_key(id)) {
            self.checkpoints.schedule(*id, self.clock.now_us());
        }
    }

    /// Checks every invariant.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&self) {
        let running = |timer: &&Timer| timer.epoch == self.epoch && timer.phase == Phase::Running;
        assert_eq!(self.queue.len(), self.timers.values().filter(running).count(), "leases in the queue");
        for end in &self.queue {
            let timer = self.timers.get(&end.id).filter(running);
            assert_eq!(timer.map(|timer| timer.ends_us), Some(end.at_us), "the end of lease {}", end.id);
        }
        assert!(self.primary.is_some() || self.queue.is_empty(), "time is counted without a leader");
        assert!(self.primary.is_none() || self.leads_in == Some(self.applied_term), "of another term");
        let waiting: usize = self.waiting.values().map(Vec::len).sum();
        assert_eq!(self.waiting_count, waiting, "renewals that wait");
        assert!(self.waiting.keys().all(|id| self.timers.contains_key(id)), "a renewal waits for nothing");
        self.checkpoints.check();
    }
}

impl Timer {
    /// Of a lease whose time has not begun.
    fn new(times: LeaseTimes) -> Self {
        Timer { times, ends_us: 0, epoch: 0, phase: Phase::Running }
    }
}

/// A TTL is above 0, and at most 9,000,000,000.
fn span_us(ttl_s: i64) -> u64 {
    ttl_s.unsigned_abs().saturating_mul(SECOND_US)
}
