//! What the member's threads count, and the probes: numbers that go on where a member is opened anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use store::RequestKind;

use super::cells::{Counter, Durations, Histogram, MS, US};
use super::lane::Outcomes;

/// Reasons that are told apart; each is the text of an error, so there are few.
const REASONS_MAX: usize = 32;

/// The numbers of the member's threads. Each is changed by the thread that its name says, if it says one.
#[derive(Debug)]
pub struct MemberCounts {
    /// Raft: leaders that took the place of another one or of none.
    pub leader_changes: Counter,
    /// Raft: the leader that was told of last, 0 if that there is none. A member that is opened anew has to hear of its leader
    /// again, which is no change.
    pub leader: Counter,
    /// Raft: turns of a leader that came more than a heartbeat interval too late.
    pub late_heartbeats: Counter,
    /// Apply: what the store has done.
    pub ops: OpCounts,
    /// Apply: how long entries took, each its share of its batch.
    pub applies: [Outcomes<{ 100 * US }, 20>; RequestKind::ALL.len()],
    /// Entries and reads that took longer than `--warning-apply-duration`.
    pub slow_applies: Counter,
    /// Apply: leases granted.
    pub leases_granted: Counter,
    /// Apply: their times to live, seconds.
    pub lease_ttls: Histogram<1, 24>,
    /// Apply: leases revoked, for whatever reason.
    pub leases_revoked: Counter,
    /// Apply: of these, since this member as the leader had found them at their end.
    pub leases_expired: Counter,
    /// Renewals while this member led.
    pub leases_renewed: Counter,
    /// Learners promoted while this member led.
    pub promotions: Counter,
    /// Why others were not.
    pub promote_failures: Reasons,
    /// The write-ahead log.
    pub wal: WalCounts,
    /// Revlog: syncs of what was written.
    pub revlog_syncs: Durations<MS, 14>,
    /// Revlog: writes of what was waiting.
    pub revlog_writes: Durations<MS, 14>,
    /// Merge: how long what a client has asked for took.
    pub defrags: Durations<{ 100 * MS }, 13>,
    /// Gauge: whether it is under way.
    pub defrags_in_flight: Counter,
    /// How long snapshots took, to clients and to members.
    pub snapshots: Durations<{ 10 * MS }, 17>,
    /// Files: `.snap` files from the order to the last sync.
    pub snap_saves: Durations<MS, 14>,
    /// Files: of that, until there are bytes to write.
    pub snap_marshalling: Durations<MS, 14>,
    /// Files: the rest.
    pub snap_fsyncs: Durations<MS, 14>,
    /// Databases of a leader's snapshot, from the first byte until they are taken in.
    pub database_saves: Durations<{ 100 * MS }, 10>,
    /// Of that, what comes after the last byte.
    pub database_fsyncs: Durations<MS, 14>,
    /// Gauge: whether the member is opened anew on a leader's snapshot.
    pub snapshot_applying: Counter,
    /// Hashes of everything.
    pub hashes: Durations<{ 10 * MS }, 15>,
    /// Hashes of the revisions up to one.
    pub revision_hashes: Durations<{ 10 * MS }, 15>,
    /// Compactions.
    pub compactions: CompactionCounts,
    /// Probes.
    pub probes: ProbeCounts,
    /// Gauge: pages that are being made.
    pub scrapes_in_flight: Counter,
    /// Pages that were made.
    pub scrapes: Counter,
}

impl MemberCounts {
    /// Raft tells of a leader, 0 for none; `before`: of which the member as it is opened now has known.
    pub fn led_by(&self, leader: u64, before: u64) {
        if leader != 0 && leader != self.leader.get() {
            self.leader_changes.add(1);
        }
        // One that is opened anew begins without a leader, and has lost none.
        if leader != 0 || before != 0 {
            self.leader.set(leader);
        }
    }
}

impl Default for MemberCounts {
    fn default() -> Self {
        MemberCounts {
            leader_changes: Counter::default(),
            leader: Counter::default(),
            late_heartbeats: Counter::default(),
            ops: OpCounts::default(),
            applies: std::array::from_fn(|_| Outcomes::default()),
            slow_applies: Counter::default(),
            leases_granted: Counter::default(),
            lease_ttls: Histogram::default(),
            leases_revoked: Counter::default(),
            leases_expired: Counter::default(),
            leases_renewed: Counter::default(),
            promotions: Counter::default(),
            promote_failures: Reasons::default(),
            wal: WalCounts::default(),
            revlog_syncs: Durations::default(),
            revlog_writes: Durations::default(),
            defrags: Durations::default(),
            defrags_in_flight: Counter::default(),
            snapshots: Durations::default(),
            snap_saves: Durations::default(),
            snap_marshalling: Durations::default(),
            snap_fsyncs: Durations::default(),
            database_saves: Durations::default(),
            database_fsyncs: Durations::default(),
            snapshot_applying: Counter::default(),
            hashes: Durations::default(),
            revision_hashes: Durations::default(),
            compactions: CompactionCounts::default(),
            probes: ProbeCounts::default(),
            scrapes_in_flight: Counter::default(),
            scrapes: Counter::default(),
        }
    }
}

/// What a store has done, of all stores that the process has opened.
#[derive(Debug, Default)]
pub struct OpCounts {
    /// Ranges read by what was applied.
    pub ranges: Counter,
    /// Puts.
    pub puts: Counter,
    /// Deletes of a range.
    pub deletes: Counter,
    /// What had more than one of these.
    pub txns: Counter,
    /// Keys and values of puts, bytes.
    pub put_bytes: Counter,
}

impl OpCounts {
    /// Adds what a store has done since `before`; the apply thread alone does.
    pub fn add(&self, before: store::Ops, now: store::Ops) {
        self.ranges.add_alone(now.ranges - before.ranges);
        self.puts.add_alone(now.puts - before.puts);
        self.deletes.add_alone(now.deletes - before.deletes);
        self.txns.add_alone(now.txns - before.txns);
        self.put_bytes.add_alone(now.put_bytes - before.put_bytes);
    }
}

/// Groups of the write-ahead log.
#[derive(Debug, Default)]
pub struct WalCounts {
    /// Bytes written.
    pub bytes: Counter,
    /// Writes.
    pub writes: Durations<MS, 14>,
    /// Syncs.
    pub fsyncs: Durations<MS, 14>,
}

/// What compactions leave to be done.
#[derive(Debug, Default)]
pub struct CompactionCounts {
    /// How long steps took that drop versions from the index.
    pub index_pauses: Durations<{ 500 * US }, 14>,
    /// How long steps took.
    pub pauses: Durations<MS, 13>,
    /// How long all of one took, with the pauses between its steps.
    pub totals: Durations<{ 100 * MS }, 14>,
    /// Versions dropped.
    pub keys: Counter,
    /// When the last one was done, seconds since 1970.
    pub last: Counter,
}

/// The probes.
#[derive(Debug, Default)]
pub struct ProbeCounts {
    /// `/health` that was true.
    pub successes: Counter,
    /// `/health` that was not.
    pub failures: Counter,
    /// Each check of `/livez` and `/readyz`: their names, and how often it failed and did not; and whether it did last.
    checks: Mutex<BTreeMap<(&'static str, &'static str), CheckCounts>>,
}

/// One check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckCounts {
    /// How often it failed, and how often not.
    pub ended: [u64; 2],
    /// Whether all was well the last time.
    pub is_well: bool,
}

impl ProbeCounts {
    /// A check of a probe has ended.
    pub fn ended(&self, probe: &'static str, check: &'static str, is_well: bool) {
        let mut checks = lock(&self.checks);
        let counts = checks.entry((probe, check)).or_default();
        counts.ended[usize::from(is_well)] += 1;
        counts.is_well = is_well;
    }

    /// All checks there were, by the names of the probe and the check.
    pub fn checks(&self) -> BTreeMap<(&'static str, &'static str), CheckCounts> {
        lock(&self.checks).clone()
    }
}

/// How often something failed for each reason.
#[derive(Debug, Default)]
pub struct Reasons(Mutex<BTreeMap<String, u64>>);

impl Reasons {
    /// Counts one; what comes beyond so many reasons counts for none.
    pub fn add(&self, reason: &str) {
        let mut reasons = lock(&self.0);
        if let Some(count) = reasons.get_mut(reason) {
            *count += 1;
        } else if reasons.len() < REASONS_MAX {
            reasons.insert(reason.to_owned(), 1);
        }
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<String, u64> {
        lock(&self.0).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic anywhere ends the process; a half-made change cannot be seen.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_has_what_it_came_to_last() {
        let probes = ProbeCounts::default();
        for is_well in [true, false, true] {
            probes.ended("readyz", "linearizable_read", is_well);
        }
        let counts = CheckCounts { ended: [1, 2], is_well: true };
        assert_eq!(probes.checks(), BTreeMap::from([(("readyz", "linearizable_read"), counts)]));
    }

    #[test]
    fn a_leader_that_is_heard_of_again_by_a_member_opened_anew_is_no_change() {
        let counts = MemberCounts::default();
        let mut before = 0;
        let mut changes = |leader| {
            counts.led_by(leader, std::mem::replace(&mut before, leader));
            counts.leader_changes.get()
        };
        assert_eq!([0, 1, 1, 2, 0, 2].map(&mut changes), [0, 1, 1, 2, 2, 3]);
        // Opened anew.
        before = 0;
        let mut changes = |leader| {
            counts.led_by(leader, std::mem::replace(&mut before, leader));
            counts.leader_changes.get()
        };
        assert_eq!([0, 2, 3, 0, 3].map(&mut changes), [3, 3, 4, 4, 5]);
    }

    #[test]
    fn reasons_are_bounded() {
        let reasons = Reasons::default();
        for number in 0..2 * REASONS_MAX {
            reasons.add(&number.to_string());
            reasons.add("0");
        }
        assert_eq!(reasons.all().len(), REASONS_MAX);
        assert_eq!(reasons.all()["0"], 2 * REASONS_MAX as u64 + 1);
    }
}
