//! Compaction in the background: what a compaction made dead is hashed, then dropped from the index in small steps.
//!
//! Two numbers for the past (rule 11). The *compacted* revision is replicated and counts at once: reads below it are
//! refused. What the index still holds of the time before trails behind, and never shows.
//!
//! Whoever reads for longer than one hold of the index's lock pins the compacted revision of that moment, and with it
//! all above; nothing that is visible there is dropped meanwhile. Later reads pin the new one, so old pins run out.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::ReadError;
use crate::mvcc::{DropCursor, Hasher, KvHash, Version, lock_write};
use crate::store::Shared;

/// Hashes made at compactions that are kept, as in etcd.
const HASHES_MAX: usize = 10;

/// Compactions that may wait to be worked on.
const WAITING_MAX: usize = 16;

/// Keys looked at under one hold of the index's lock.
const KEYS_PER_HOLD: usize = 256;

/// Bytes of records hashed in one step.
const HASH_STEP_BYTES: usize = 1 << 20;

/// A compaction that was applied, and whose work in the background is still to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The new compacted revision.
    pub revision: i64,
    /// The one before; -1 for the first.
    pub previous: i64,
    /// Whether its hash is to be made and kept. Not for compactions that a start finds in the log: etcd forgets
    /// such hashes too.
    pub wants_hash: bool,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionStep {
    /// Nothing is to be done.
    Idle,
    /// There is more to do.
    Working,
    /// A reader still needs what is to be dropped next; try again a little later.
    Waiting,
    /// A compaction is finished.
    Finished(FinishedCompaction),
}

/// What a finished compaction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishedCompaction {
    /// Its revision.
    pub revision: i64,
    /// Its hash, if one was asked for and could be made.
    pub hash: Option<KvHash>,
    /// Versions that were dropped from the index.
    pub dropped: u64,
}

/// Does the background work of compactions, one after the other. Owned by a thread for long work.
pub struct Compactor {
    shared: Arc<Shared>,
    queue: VecDeque<Compaction>,
    job: Option<Job>,
    /// Versions dropped in one step (`--compaction-batch-limit`).
    batch_limit: usize,
}

struct Job {
    compaction: Compaction,
    hash: HashState,
    cursor: DropCursor,
    dropped: u64,
}

enum HashState {
    /// Not begun.
    Due,
    /// All records below this revision are in.
    Running(Hasher, i64),
    Done(Option<KvHash>),
}

/// Revisions that are being read at, and how often.
#[derive(Debug, Default)]
pub(crate) struct Pins(BTreeMap<i64, usize>);

/// Keeps every revision readable that can be read when it is taken, until it is dropped itself.
pub(crate) struct Pin {
    shared: Arc<Shared>,
    /// The compacted revision.
    pub at: i64,
}

impl Pin {
    pub(crate) fn take(shared: &Arc<Shared>) -> Pin {
        // Under the lock, as the look at the pins before something is dropped: either the compacted revision seen here
        // is the new one, or this pin is seen there.
        let mut pins = lock(&shared.pins);
        let at = shared.compacted.load(Ordering::Acquire);
        *pins.0.entry(at).or_default() += 1;
        Pin { shared: Arc::clone(shared), at }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = lock(&self.shared.pins);
        if let Some(count) = pins.0.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                pins.0.remove(&self.at);
            }
        }
    }
}

/// The newest hashes made at compactions.
#[derive(Debug, Default)]
pub(crate) struct KeptHashes(Vec<KvHash>);

impl KeptHashes {
    pub(crate) fn get(&self, revision: i64) -> Option<KvHash> {
        self.0.iter().find(|hash| hash.hash_revision == revision).copied()
    }

    fn keep(&mut self, hash: KvHash) {
        self.0.push(hash);
        if self.0.len() > HASHES_MAX {
            self.0.remove(0);
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this lock")
}

impl Compactor {
    pub(crate) fn new(shared: Arc<Shared>, batch_limit: usize) -> Self {
        Compactor { shared, queue: VecDeque::new(), job: None, batch_limit: batch_limit.max(1) }
    }

    /// Takes on a compaction. They come in the order in which they were applied, each once it is published.
    ///
    /// Beyond [`WAITING_MAX`] the last ones become one, whose hashes are given up: false then.
    pub fn push(&mut self, compaction: Compaction) -> bool {
        if self.queue.len() < WAITING_MAX {
            self.queue.push_back(compaction);
            return true;
        }
        if let Some(last) = self.queue.back_mut() {
            *last = Compaction { previous: last.previous, wants_hash: false, ..compaction };
        }
        false
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.job.is_none() && self.queue.is_empty()
    }

    /// Does a bounded piece of work.
    ///
    /// # Errors
    /// A record that could not be read: this compaction's hash is given up. To be logged; the next step goes on.
    pub fn step(&mut self) -> Result<CompactionStep, ReadError> {
        let Some(job) = &mut self.job else {
            let Some(compaction) = self.queue.pop_front() else { return Ok(CompactionStep::Idle) };
            let hash = if compaction.wants_hash { HashState::Due } else { HashState::Done(None) };
            self.job = Some(Job { compaction, hash, cursor: DropCursor::default(), dropped: 0 });
            return Ok(CompactionStep::Working);
        };
        if let HashState::Due | HashState::Running(..) = &job.hash {
            if let Err(error) = job.hash_step(&self.shared) {
                job.hash = HashState::Done(None);
                return Err(error);
            }
            return Ok(CompactionStep::Working);
        }
        let revision = job.compaction.revision;
        if !may_drop(&self.shared, revision) {
            return Ok(CompactionStep::Waiting);
        }
        job.drop_step(&self.shared, self.batch_limit);
        if !job.cursor.is_done() {
            return Ok(CompactionStep::Working);
        }
        let HashState::Done(hash) = job.hash else {
            unreachable!("nothing is dropped before the hash is made")
        };
        let finished = FinishedCompaction { revision, hash, dropped: job.dropped };
        self.job = None;
        if let Some(hash) = hash {
            lock(&self.shared.hashes).keep(hash);
        }
        self.shared.finished.fetch_max(revision, Ordering::AcqRel);
        Ok(CompactionStep::Finished(finished))
    }
}

/// Whether nobody reads below `horizon`. From then on nobody will.
fn may_drop(shared: &Shared, horizon: i64) -> bool {
    let pins = lock(&shared.pins);
    if pins.0.first_key_value().is_some_and(|(lowest, _)| *lowest < horizon) {
        return false;
    }
    // Before the first key changes: a reader that holds the index's lock and does not see this sees all that it
    // needs.
    shared.dropped.fetch_max(horizon, Ordering::AcqRel);
    true
}

impl Job {
    fn hash_step(&mut self, shared: &Shared) -> Result<(), ReadError> {
        let Compaction { revision, previous, .. } = self.compaction;
        let (mut hasher, from) = match std::mem::replace(&mut self.hash, HashState::Due) {
            HashState::Running(hasher, from) => (hasher, from),
            _ => (Hasher::new(shared, previous, revision, true)?, 0),
        };
        let (mut bytes, mut last, mut stopped) = (0, from, false);
        shared.source.scan(from, &mut |kind, at, encoded| {
            // Whole main revisions only, so that the next step can go on by their number.
            if at.main > revision || (bytes >= HASH_STEP_BYTES && at.main > last) {
                stopped = at.main <= revision;
                return ControlFlow::Break(());
            }
            bytes += encoded.len();
            last = at.main;
            hasher.record(shared, kind, at, encoded);
            ControlFlow::Continue(())
        })?;
        self.hash = match stopped {
            true => HashState::Running(hasher, last + 1),
            false => HashState::Done(Some(hasher.finish(revision))),
        };
        Ok(())
    }

    fn drop_step(&mut self, shared: &Shared, batch_limit: usize) {
        let before = self.dropped;
        while !self.cursor.is_done() && self.dropped - before < batch_limit as u64 {
            let mut index = lock_write(&shared.index);
            let mut count = |_: &[u8], _: &Version| self.dropped += 1;
            index.drop_below(&mut self.cursor, self.compaction.revision, KEYS_PER_HOLD, &mut count);
        }
    }
}
