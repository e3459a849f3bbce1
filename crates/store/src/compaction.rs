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
use crate::record::RecordKind;
use crate::size::stored_bytes;
use crate::store::Shared;

/// Hashes made at compactions that are kept, as in etcd.
const HASHES_MAX: usize = 10;

/// Compactions that may wait to be worked on.
const WAITING_MAX: usize = 16;

/// Keys looked at under one hold of the index's lock.
const KEYS_PER_HOLD: usize = 256;

/// Bytes of records hashed in one step.
const HASH_STEP_BYTES: usize = 1 << 20;

/// So much is hashed although the next compaction is there already: of a small store every hash is made.
const HASH_ANYWAY_BYTES: usize = 16 << 20;

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
    /// Records of so many bytes were read for a hash; there is more to do.
    Hashed(usize),
    /// The hash of the compaction at this revision is given up: another compaction is there before it was made. There is
    /// more to do.
    HashGivenUp(i64),
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
    /// Bytes that were read for it.
    hashed_bytes: usize,
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

/// Who is reading: at which revisions, and since when.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    by_revision: BTreeMap<i64, usize>,
    /// Grows when the places of records before it are to be given up.
    epoch: u64,
    by_epoch: BTreeMap<u64, usize>,
}

impl Pins {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_revision.values().sum()
    }
}

impl Pins {
    /// Begins an epoch: whoever reads from now on finds no place that is to be given up.
    pub(crate) fn begin_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// Whether everybody is gone who began to read before an epoch.
    pub(crate) fn have_left(&self, epoch: u64) -> bool {
        self.by_epoch.first_key_value().is_none_or(|(oldest, _)| *oldest >= epoch)
    }
}

/// Keeps every revision readable that can be read when it is taken, and every place of a record that is found meanwhile,
/// until it is dropped itself.
pub(crate) struct Pin {
    shared: Arc<Shared>,
    /// The compacted revision.
    pub at: i64,
    epoch: u64,
}

impl Pin {
    pub(crate) fn take(shared: &Arc<Shared>) -> Pin {
        // Under the lock, as the look at the pins before something is dropped: either the compacted revision seen here
        // is the new one, or this pin is seen there.
        let mut pins = lock(&shared.pins);
        let at = shared.compacted.load(Ordering::Acquire);
        *pins.by_revision.entry(at).or_default() += 1;
        let epoch = pins.epoch;
        *pins.by_epoch.entry(epoch).or_default() += 1;
        Pin { shared: Arc::clone(shared), at, epoch }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = lock(&self.shared.pins);
        leave(&mut pins.by_revision, self.at);
        leave(&mut pins.by_epoch, self.epoch);
    }
}

fn leave<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
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

    pub(crate) fn all(&self) -> Vec<KvHash> {
        self.0.clone()
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
            let cursor = DropCursor::default();
            self.job = Some(Job { compaction, hash, hashed_bytes: 0, cursor, dropped: 0 });
            return Ok(CompactionStep::Working);
        };
        let revision = job.compaction.revision;
        if let HashState::Due | HashState::Running(..) = &job.hash {
            // Members that cannot keep up all go on with the newest: that is the one which they can compare.
            if !self.queue.is_empty() && job.hashed_bytes >= HASH_ANYWAY_BYTES {
                job.hash = HashState::Done(None);
                return Ok(CompactionStep::HashGivenUp(revision));
            }
            let hashed = job.hash_step(&self.shared);
            if hashed.is_err() {
                job.hash = HashState::Done(None);
            }
            return hashed.map(CompactionStep::Hashed);
        }
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
    if pins.by_revision.first_key_value().is_some_and(|(lowest, _)| *lowest < horizon) {
        return false;
    }
    // Before the first key changes: a reader that holds the index's lock and does not see this sees all that it
    // needs.
    shared.dropped.fetch_max(horizon, Ordering::AcqRel);
    true
}

impl Job {
    /// Reads on for the hash; says how many bytes of records.
    fn hash_step(&mut self, shared: &Shared) -> Result<usize, ReadError> {
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
        self.hashed_bytes += bytes;
        Ok(bytes)
    }

    fn drop_step(&mut self, shared: &Shared, batch_limit: usize) {
        let before = self.dropped;
        while !self.cursor.is_done() && self.dropped - before < batch_limit as u64 {
            let mut gone = Vec::new();
            let mut take = |_: &[u8], version: &Version| {
                let kind = if version.is_tombstone() { RecordKind::Tombstone } else { RecordKind::Put };
                gone.push((version.location, version.length, kind));
            };
            lock_write(&shared.index).drop_below(
                &mut self.cursor,
                self.compaction.revision,
                KEYS_PER_HOLD,
                &mut take,
            );
            self.dropped += gone.len() as u64;
            shared.source.forget(&gone);
            let bytes: u64 = gone.iter().map(|(_, length, kind)| stored_bytes(*length, *kind)).sum();
            shared.stored_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}
