//! Merging of the revision log's segments, so that what compactions have dropped gives its space back (rules 12 and 18).
//!
//! A merge leaves a record out if the index has dropped it, which a compaction does once its hash is made; and it counts
//! only when the compacted revision that allowed this is durable in the revision log. Then the index learns the new
//! places, a few at a time, and the old files go when everybody has left who may have found an old place.
//!
//! A tombstone is left out only where nothing that it hides is stored any more: when it was dropped before the merge
//! began, and nothing was dead in any segment before. A start would else find what was deleted, and not that it was.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::revlog::{self, Fate, Keeper, MergeProgress, Space, Stored, Worth};
use store::{Location, RecordKind, Relocated, Relocator, Revision};

use crate::records::parse;
use crate::{Error, Rot};

/// A segment is merged when this part of it would be gained: so at most as much is dead as two thirds of what lives.
const SHARE_PERCENT: u64 = 40;
/// When somebody asks for it, less is worth it too.
const ASKED_SHARE_PERCENT: u64 = 10;
/// Compactions whose frames are remembered one by one.
const NOTES_MAX: usize = 64;
/// Files beyond one and a half times what lives, and this much more, make merges urgent.
const URGENT_BYTES: u64 = 512 << 20;

/// Files beyond one and three quarters of what lives, and this much more, make who writes wait.
const BRAKE_BYTES: u64 = 768 << 20;
/// How much may be added a second where waiting begins; the closer to the bound, the less.
const BRAKED_BYTES_PER_SECOND: u64 = 32 << 20;
/// How much may be added a second at the bound, and beyond it. Merging, whose budget is large then, gains much more.
const BRAKED_BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// One batch waits no longer.
const BRAKE_US_MAX: u64 = 100_000;

/// How long to wait for bytes that are added to a log that takes so much: nothing as long as merging keeps up, then as
/// long as makes a rate that falls to the least where the files take twice what lives and 1 GiB.
fn brake_us((bytes, live_bytes): (u64, u64), added_bytes: u64) -> u64 {
    let begins = live_bytes + live_bytes / 4 * 3 + BRAKE_BYTES;
    let bound = 2 * live_bytes + (1 << 30);
    let Some(beyond) = bytes.checked_sub(begins) else { return 0 };
    let left = (bound - begins).saturating_sub(beyond);
    let rate = u128::from(BRAKED_BYTES_PER_SECOND) * u128::from(left) / u128::from(bound - begins);
    let rate = rate.max(u128::from(BRAKED_BYTES_PER_SECOND_MIN));
    let wait_us = u128::from(added_bytes) * 1_000_000 / rate;
    u64::try_from(wait_us).unwrap_or(u64::MAX).min(BRAKE_US_MAX)
}

/// What the log takes and what of it lives: from who merges to who applies.
#[derive(Clone, Debug, Default)]
pub struct Pressure(Arc<[AtomicU64; 2]>);

impl Pressure {
    fn set(&self, space: Space) {
        let [bytes, live_bytes] = &*self.0;
        bytes.store(space.bytes, Ordering::Relaxed);
        live_bytes.store(space.record_bytes.saturating_sub(space.dead_bytes), Ordering::Relaxed);
    }

    /// How long, microseconds, whoever has added so many bytes has to wait before more is added, so that the files stay
    /// within twice what lives and 1 GiB (rule 18).
    pub fn brake_us(&self, added_bytes: u64) -> u64 {
        let [bytes, live_bytes] = &*self.0;
        brake_us((bytes.load(Ordering::Relaxed), live_bytes.load(Ordering::Relaxed)), added_bytes)
    }
}

/// In which frame of the revision log a compacted revision becomes durable: from who applies to who merges.
#[derive(Clone, Debug, Default)]
pub(crate) struct CompactionFrames(Arc<Mutex<Vec<(i64, u64)>>>);

impl CompactionFrames {
    fn lock(&self) -> MutexGuard<'_, Vec<(i64, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A compaction is in a frame. Both numbers only grow.
    pub(crate) fn note(&self, revision: i64, frame: u64) {
        let mut notes = self.lock();
        notes.push((revision, frame));
        if notes.len() > NOTES_MAX {
            // The first counts as if it were in the frame of the second: later, which is on the safe side.
            let (revision, _) = notes.remove(0);
            notes[0].0 = revision;
        }
    }

    /// The frame that has to be durable for a compacted revision to be; 0 if it was when this run began. What is below is
    /// not asked for again.
    fn needed(&self, revision: i64) -> u64 {
        let mut notes = self.lock();
        let count = notes.partition_point(|(noted, _)| *noted <= revision);
        notes.drain(..count.saturating_sub(1));
        if count > 0 { notes[0].1 } else { 0 }
    }
}

/// What merges have done in this run; for whoever shows it.
#[derive(Debug, Default)]
pub struct MergeCounters {
    /// Merges that came to their end.
    pub merges: AtomicU64,
    /// Bytes of segments that were merged away.
    pub source_bytes: AtomicU64,
    /// Bytes of the segments that they became.
    pub merged_bytes: AtomicU64,
    /// Merges that were given up for want of room.
    pub given_up: AtomicU64,
}

/// A merge that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Segments that are gone.
    pub segments: u64,
    /// Their bytes.
    pub source_bytes: u64,
    /// Bytes of what they became.
    pub merged_bytes: u64,
}

/// What one step came to.
#[derive(Debug)]
pub enum MergeStep {
    /// Nothing is worth a merge now.
    Idle,
    /// So many bytes were read and written; there is more to do.
    Working(u64),
    /// Something has to happen elsewhere first: a sync of the log, the end of a read, room on the disk.
    Waiting,
    /// A merge came to its end.
    Finished(Merged),
    /// A segment can't be read, or does not verify. To be logged; nothing is merged any more in this run.
    Damaged(Error),
}

enum Stage {
    Idle,
    Copying,
    Copied,
    Moving,
    /// Those who began to read before this epoch may hold places in the sources.
    Leaving(u64),
    /// Something could not be read: nothing is done any more.
    Ended,
}

/// Merges segments, a small step at a time. Owned by a thread for long work.
pub struct Merger {
    log: revlog::Merger,
    reader: revlog::Reader,
    store: Relocator,
    frames: CompactionFrames,
    rot: Rot,
    pressure: Pressure,
    counters: Arc<MergeCounters>,
    stage: Stage,
    /// The merge under way.
    merge: Merged,
    tombstones_below: i64,
    /// Longest output that is tried, bytes: less after the disk has had no room.
    output_bytes_max: u64,
    /// Whether the writer had allocated ahead when the merge began.
    had_room: bool,
    is_asked: bool,
}

impl Merger {
    pub(crate) fn new(
        log: revlog::Merger,
        reader: revlog::Reader,
        store: Relocator,
        (frames, rot): (CompactionFrames, Rot),
    ) -> Self {
        Merger {
            log,
            reader,
            store,
            frames,
            rot,
            pressure: Pressure::default(),
            counters: Arc::default(),
            stage: Stage::Idle,
            merge: Merged { segments: 0, source_bytes: 0, merged_bytes: 0 },
            tombstones_below: i64::MIN,
            output_bytes_max: u64::MAX,
            had_room: true,
            is_asked: false,
        }
    }

    /// What merges have done.
    pub fn counters(&self) -> Arc<MergeCounters> {
        self.counters.clone()
    }

    /// What the log takes.
    pub fn space(&self) -> Space {
        self.reader.space()
    }

    /// Somebody asks for a merge of everything that is worth it (Defragment).
    pub fn ask(&mut self) {
        self.is_asked = true;
    }

    /// Whether a step would find nothing to do.
    pub fn is_idle(&self) -> bool {
        match self.stage {
            Stage::Idle => self.log.plan(self.worth()).is_none(),
            Stage::Ended => true,
            _ => false,
        }
    }

    /// How much there is to merge, as of the last step.
    pub fn pressure(&self) -> Pressure {
        self.pressure.clone()
    }

    /// Whether the files come close to what they may take at most, so that nothing else is more important (rule 18).
    pub fn is_urgent(&self) -> bool {
        let space = self.reader.space();
        let live_bytes = space.record_bytes.saturating_sub(space.dead_bytes);
        space.bytes > live_bytes + live_bytes / 2 + URGENT_BYTES
    }

    /// Does a bounded piece of work.
    ///
    /// # Errors
    /// A failed write, sync or other change of the disk; the member must stop (rule 7).
    pub fn step(&mut self) -> Result<MergeStep, Error> {
        self.pressure.set(self.reader.space());
        match self.stage {
            Stage::Idle => self.begin(),
            Stage::Copying => self.copy(),
            Stage::Copied => self.publish(),
            Stage::Moving => self.relocate(),
            Stage::Leaving(epoch) => self.retire(epoch),
            Stage::Ended => Ok(MergeStep::Idle),
        }
    }

    fn worth(&self) -> Worth {
        let share_percent = if self.is_asked { ASKED_SHARE_PERCENT } else { SHARE_PERCENT };
        Worth { share_percent, output_bytes_max: self.output_bytes_max }
    }

    fn begin(&mut self) -> Result<MergeStep, Error> {
        // Before the look at what is dead: whatever was dropped below it is counted there.
        let horizon = self.store.finished();
        let Some(plan) = self.log.plan(self.worth()) else {
            if self.output_bytes_max == u64::MAX {
                self.is_asked = false;
            }
            // What was too long for the disk is tried again the next time.
            self.output_bytes_max = u64::MAX;
            return Ok(MergeStep::Idle);
        };
        // What could not be published is not begun: on a full disk it would be written for nothing.
        if self.log.durable_frame() < self.frames.needed(self.store.dropped()) {
            return Ok(MergeStep::Waiting);
        }
        self.tombstones_below = if plan.may_drop_markers() { horizon } else { i64::MIN };
        self.merge = Merged {
            segments: plan.source_count(),
            source_bytes: plan.source_bytes(),
            merged_bytes: plan.output_bytes(),
        };
        self.had_room = !self.log.lacks_room();
        match self.log.begin(plan)? {
            MergeProgress::NoRoom => Ok(self.has_no_room()),
            MergeProgress::Working(_) | MergeProgress::Done(_) => {
                self.stage = Stage::Copying;
                Ok(MergeStep::Working(0))
            }
        }
    }

    /// A merge was given up; the next one takes less.
    fn has_no_room(&mut self) -> MergeStep {
        self.output_bytes_max = self.merge.merged_bytes / 2;
        self.stage = Stage::Idle;
        self.counters.given_up.fetch_add(1, Ordering::Relaxed);
        MergeStep::Waiting
    }

    /// Whether the writer needs the room that this merge takes: what is allocated ahead comes first (rule 7).
    fn must_yield(&self) -> bool {
        self.had_room && self.log.lacks_room()
    }

    fn copy(&mut self) -> Result<MergeStep, Error> {
        if self.must_yield() {
            self.log.give_up()?;
            return Ok(self.has_no_room());
        }
        let mut keeper = StoreKeeper { store: &self.store, tombstones_below: self.tombstones_below };
        match self.log.copy(&mut keeper) {
            Ok(MergeProgress::Working(bytes)) => Ok(MergeStep::Working(bytes)),
            Ok(MergeProgress::Done(bytes)) => {
                self.stage = Stage::Copied;
                Ok(MergeStep::Working(bytes))
            }
            Ok(MergeProgress::NoRoom) => Ok(self.has_no_room()),
            Err(error) if error.is_read_failure() => {
                self.rot.note(&error, None);
                self.log.give_up()?;
                self.stage = Stage::Ended;
                Ok(MergeStep::Damaged(error.into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn publish(&mut self) -> Result<MergeStep, Error> {
        let needed = self.frames.needed(self.store.dropped());
        if self.log.durable_frame() < needed {
            // The frame that is needed may itself be waiting for the room.
            if self.log.lacks_room() {
                self.log.give_up()?;
                return Ok(self.has_no_room());
            }
            return Ok(MergeStep::Waiting);
        }
        self.merge.merged_bytes = self.log.publish()?;
        self.stage = Stage::Moving;
        Ok(MergeStep::Working(0))
    }

    fn relocate(&mut self) -> Result<MergeStep, Error> {
        let mut keeper = StoreKeeper { store: &self.store, tombstones_below: self.tombstones_below };
        match self.log.relocate(&mut keeper) {
            Ok(MergeProgress::Working(bytes)) => Ok(MergeStep::Working(bytes)),
            Ok(MergeProgress::Done(_) | MergeProgress::NoRoom) => {
                self.stage = Stage::Leaving(self.store.end_move());
                Ok(MergeStep::Working(0))
            }
            Err(error) if error.is_read_failure() => {
                self.rot.note(&error, None);
                self.stage = Stage::Ended;
                Ok(MergeStep::Damaged(error.into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn retire(&mut self, epoch: u64) -> Result<MergeStep, Error> {
        if !self.store.have_left(epoch) {
            return Ok(MergeStep::Waiting);
        }
        self.log.retire()?;
        self.stage = Stage::Idle;
        self.output_bytes_max = u64::MAX;
        let Merged { source_bytes, merged_bytes, .. } = self.merge;
        self.counters.merges.fetch_add(1, Ordering::Relaxed);
        self.counters.source_bytes.fetch_add(source_bytes, Ordering::Relaxed);
        self.counters.merged_bytes.fetch_add(merged_bytes, Ordering::Relaxed);
        Ok(MergeStep::Finished(self.merge))
    }
}

/// The store, as the log's merges see it.
struct StoreKeeper<'a> {
    store: &'a Relocator,
    tombstones_below: i64,
}

/// The start has refused every other kind.
fn parsed(record: &Stored<'_>) -> (RecordKind, Revision) {
    parse(record.header).expect("a record that was replayed, or written, is of a kind that is known")
}

impl Keeper for StoreKeeper<'_> {
    fn wanted(&mut self, records: &[Stored<'_>], wanted: &mut Vec<bool>) {
        let records = records.iter().map(|record| {
            let (kind, revision) = parsed(record);
            (kind, revision, record.payload)
        });
        self.store.wanted(records, self.tombstones_below, wanted);
    }

    fn moved(&mut self, records: &[Stored<'_>], fates: &mut Vec<Fate>) {
        let records = records.iter().map(|record| {
            let (kind, revision) = parsed(record);
            (kind, revision, Location(record.at.0), record.payload)
        });
        self.store.relocate(records, |relocated| {
            fates.push(match relocated {
                Relocated::Moved => Fate::Wanted,
                Relocated::Gone(RecordKind::Put) => Fate::Dead,
                Relocated::Gone(RecordKind::Tombstone) => Fate::DeadMarker,
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_needs_the_frame_that_it_is_in() {
        let frames = CompactionFrames::default();
        assert_eq!(frames.needed(100), 0, "nothing was compacted in this run");
        frames.note(5, 10);
        frames.note(9, 11);
        frames.note(20, 15);
        assert_eq!(frames.needed(4), 0);
        assert_eq!(frames.needed(5), 10);
        assert_eq!(frames.needed(19), 11);
        assert_eq!(frames.needed(20), 15);
        assert_eq!(frames.needed(30), 15);
    }

    #[test]
    fn many_compactions_are_remembered_on_the_safe_side() {
        let frames = CompactionFrames::default();
        for n in 1..=NOTES_MAX as i64 + 10 {
            frames.note(n, 100 + n as u64);
        }
        assert_eq!(frames.needed(1), 111);
        assert_eq!(frames.needed(12), 112);
        assert_eq!(frames.needed(1000), 100 + NOTES_MAX as u64 + 10);
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn rule_18_nobody_waits_while_merging_keeps_up_and_everybody_near_the_bound() {
        for live in [0, GIB, 50 * GIB] {
            assert_eq!(brake_us((live, live), 1 << 20), 0);
            // Where merging is urgent it comes first.
            assert_eq!(brake_us((live + live / 2 + URGENT_BYTES, live), 1 << 20), 0);
            let begins = live + live / 4 * 3 + BRAKE_BYTES;
            let mut before = 0;
            for eighth in 0..=8 {
                let bytes = begins + (2 * live + GIB - begins) / 8 * eighth;
                let wait_us = brake_us((bytes, live), 64 << 10);
                assert!(
                    wait_us >= before && wait_us > 0,
                    "{live}, {eighth} eighths: {wait_us} after {before}"
                );
                before = wait_us;
            }
            assert_eq!(before, (64 << 10) * 1_000_000 / BRAKED_BYTES_PER_SECOND_MIN);
            assert_eq!(brake_us((10 * live + 5 * GIB, live), GIB), BRAKE_US_MAX, "no batch waits longer");
        }
    }

    /// By counting: a writer that overwrites without end, and a merge that gains 8 MiB a second.
    #[test]
    fn rule_18_what_is_added_beside_a_slow_merge_stays_within_the_bound() {
        const BATCH: u64 = 64 << 10;
        let live = GIB;
        let (mut bytes, mut time_us, mut most) = (live, 0, 0);
        while time_us < 600_000_000 {
            // A batch takes at least 200 us, and what it waits; the merge goes on all that time.
            let took_us = 200 + brake_us((bytes, live), BATCH);
            time_us += took_us;
            bytes = (bytes + BATCH).saturating_sub(took_us * (8 << 20) / 1_000_000).max(live);
            most = most.max(bytes);
        }
        assert!(most > live + live / 4 * 3 + BRAKE_BYTES, "{most}: nobody had to wait");
        assert!(most <= 2 * live + GIB, "{most}");
    }
}
