//! The state machine itself, owned by the apply thread, and its readers.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, RwLock};

use wire::{ApiError, raftpb};

use crate::apply::{self, Fatal, Kind, Request};
use crate::membership::{ConfChangeOutcome, Membership};
use crate::mvcc::{
    Bytes, Index, KeyValue, KvHash, NOT_COMPACTED, ReadFailure, ReadMode, Version, View, Write, hash_kv,
    lock_read, lock_write, range, run_read, run_write,
};
use crate::record::{Location, RecordKind, RecordSink, RecordSource, Revision};
use crate::request::{Range, Txn};
use crate::{Answer, ReadError};

/// The revision of a store in which nothing was ever written.
const FIRST_REVISION: i64 = 1;

/// What must be equal on all members beside the log (rule 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most learners that a cluster may have (`--max-learners`).
    pub learners_max: usize,
}

impl Default for Settings {
    /// etcd's defaults.
    fn default() -> Self {
        Settings { learners_max: 1 }
    }
}

/// Why a store could not be rebuilt from its log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A record is not what this version, or any, would have written there.
    #[error("record of revision {}.{}: {reason}", revision.main, revision.sub)]
    Record {
        /// The record's revision.
        revision: Revision,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The small tables cannot be decoded.
    #[error("small tables: {0}")]
    Tables(String),
}

/// What came of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The request's id, by which whoever proposed it waits.
    pub id: u64,
    /// What to answer, if somebody waits. An error changed nothing.
    pub result: Result<Answer, ApiError>,
}

/// What the apply thread and the readers share.
struct Shared {
    index: RwLock<Index>,
    source: Arc<dyn RecordSource>,
    /// The published revision. Stored after the index has all its changes (rule 9).
    current: AtomicI64,
    membership: RwLock<Arc<Membership>>,
}

/// The replicated state machine. One thread owns it and applies; others read through [`Reader`]s.
///
/// Entries are applied in batches: [`Store::apply`] and [`Store::apply_conf_change`] for each entry, then, once the
/// [`RecordSource`] can read what the [`RecordSink`] took, one [`Store::publish`]. Readers see nothing of a batch
/// before. What an apply does to the state depends on the state and the entry alone (rule 8).
pub struct Store {
    shared: Arc<Shared>,
    settings: Settings,
    /// The revision with everything applied, published or not.
    revision: i64,
    membership: Membership,
    membership_changed: bool,
    membership_published: bool,
    /// Holds one record while it is encoded.
    scratch: Vec<u8>,
}

impl Store {
    /// An empty store at revision 1, whose stored bytes come from `source`.
    pub fn new(source: Arc<dyn RecordSource>, settings: Settings) -> Store {
        let shared = Shared {
            index: RwLock::default(),
            source,
            current: AtomicI64::new(FIRST_REVISION),
            membership: RwLock::default(),
        };
        Store {
            shared: Arc::new(shared),
            settings,
            revision: FIRST_REVISION,
            membership: Membership::default(),
            membership_changed: false,
            membership_published: true,
            scratch: Vec::new(),
        }
    }

    /// A way to read, for any number of threads.
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared) }
    }

    /// Takes up one record of the log at start. Records come in revision order; [`Store::publish`] ends the restart.
    ///
    /// Errors: [`RestoreError::Record`] if the record does not follow from those before it.
    pub fn replay(
        &mut self,
        kind: RecordKind,
        revision: Revision,
        location: Location,
        encoded: &[u8],
    ) -> Result<(), RestoreError> {
        let refuse = |reason| Err(RestoreError::Record { revision, reason });
        let Ok(pair) = KeyValue::decode(encoded) else { return refuse("not an encoded pair") };
        let (Ok(length), Ok(sub)) = (u32::try_from(encoded.len()), u32::try_from(revision.sub)) else {
            return refuse("out of range");
        };
        if revision.main < self.revision || revision.main <= FIRST_REVISION {
            return refuse("its revision is below the one before it");
        }
        let is_put = kind == RecordKind::Put;
        if is_put && (pair.mod_revision != revision.main || pair.version < 1) {
            return refuse("the pair is of another revision");
        }
        let version = Version {
            mod_revision: revision.main,
            create_revision: if is_put { pair.create_revision } else { 0 },
            version: if is_put { pair.version } else { 0 },
            lease: if is_put { pair.lease } else { 0 },
            location,
            sub,
            length,
        };
        let mut index = lock_write(&self.shared.index);
        if !index.accepts(pair.key, &version) {
            return refuse("it does not follow the key's last one");
        }
        index.insert(pair.key, version);
        self.revision = revision.main;
        Ok(())
    }

    /// Takes up the small tables at start, as [`Store::tables`] gave them.
    pub fn restore_tables(&mut self, tables: &[u8]) -> Result<(), RestoreError> {
        self.membership =
            Membership::decode(tables).map_err(|error| RestoreError::Tables(error.to_string()))?;
        self.membership_published = false;
        Ok(())
    }

    /// The small tables (members, removed ids, cluster version), encoded.
    pub fn tables(&self) -> Vec<u8> {
        self.membership.encode()
    }

    /// As [`Store::tables`], if they have changed since this was last asked: what goes into a batch's frame.
    pub fn take_changed_tables(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.membership_changed).then(|| self.tables())
    }

    /// The revision with everything applied, published or not.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The membership with everything applied, published or not.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Applies the data of one entry, an encoded `InternalRaftRequest`. A new leader's empty entry is not for here.
    ///
    /// Without `want_answer` the state changes just as with it, and [`Answer::body`] stays empty.
    ///
    /// Errors: the member has to stop, and nothing of the batch may become durable (rules 7 and 20).
    pub fn apply(
        &mut self,
        entry_data: &[u8],
        want_answer: bool,
        sink: &mut dyn RecordSink,
    ) -> Result<Applied, Fatal> {
        apply::with_request(entry_data, |request| self.apply_request(request, want_answer, sink))
    }

    fn apply_request(
        &mut self,
        request: Request<'_>,
        want_answer: bool,
        sink: &mut dyn RecordSink,
    ) -> Result<Applied, Fatal> {
        let mut body = Vec::new();
        let answer = want_answer.then_some(&mut body);
        let result = match request.kind {
            Kind::Put(put) => self.write(sink, |write| write.checked_put(&put, answer)),
            Kind::Txn(txn) => self.write(sink, |write| run_write(write, &txn, answer)),
            Kind::DeleteRange(delete) => self.write(sink, |write| write.delete_range(&delete, answer)),
            Kind::Range(request) => self.write(sink, |write| match answer {
                Some(body) => range(&write.view(), &request, body),
                None => Ok(()),
            }),
            Kind::ClusterVersionSet(set) => {
                self.membership.set_cluster_version(set.ver)?;
                self.membership_has_changed();
                Ok(())
            }
            Kind::ClusterMemberAttrSet(set) => {
                self.membership.set_attributes(set)?;
                self.membership_has_changed();
                Ok(())
            }
            Kind::DowngradeVersionTest | Kind::AlarmGet => Ok(()),
        };
        let result = match result {
            Ok(()) => Ok(Answer { revision: self.revision, body }),
            Err(ReadFailure::Api(error)) => Err(error),
            Err(ReadFailure::Source(error)) => return Err(Fatal::Read(error)),
            Err(ReadFailure::WouldBlock) => {
                return Err(Fatal::Read(ReadError("an apply was told to come back later".into())));
            }
        };
        Ok(Applied { id: request.id, result })
    }

    fn write(
        &mut self,
        sink: &mut dyn RecordSink,
        run: impl FnOnce(&mut Write<'_>) -> Result<(), ReadFailure>,
    ) -> Result<(), ReadFailure> {
        let mut write = Write {
            index: &self.shared.index,
            sink,
            scratch: &mut self.scratch,
            before: self.revision,
            compacted: NOT_COMPACTED,
            changes: 0,
        };
        let result = run(&mut write);
        self.revision = write.current();
        result
    }

    /// Applies a configuration change to the membership. What comes of it decides what raft is to apply.
    ///
    /// Errors: a change that no etcd proposes; the member has to stop.
    pub fn apply_conf_change(&mut self, change: &raftpb::ConfChange) -> Result<ConfChangeOutcome, Fatal> {
        let outcome = self.membership.apply_conf_change(change, self.settings.learners_max)?;
        if outcome == ConfChangeOutcome::Applied {
            self.membership_has_changed();
        }
        Ok(outcome)
    }

    fn membership_has_changed(&mut self) {
        self.membership_changed = true;
        self.membership_published = false;
    }

    /// Makes everything applied so far visible to readers. The [`RecordSource`] must be able to read it by now.
    pub fn publish(&mut self) {
        if !self.membership_published {
            let next = Arc::new(self.membership.clone());
            *self.shared.membership.write().expect("no thread panics while it holds this lock") = next;
            self.membership_published = true;
        }
        self.shared.current.store(self.revision, Ordering::Release);
    }

    /// Checks every invariant; walks the whole index. Panics if one does not hold.
    pub fn check(&self) {
        let published = self.shared.current.load(Ordering::Acquire);
        assert!(published <= self.revision, "published {published}, applied {}", self.revision);
        lock_read(&self.shared.index).check(self.revision);
        self.membership.check();
    }
}

/// Reads the published state. Cheap to clone; shared by the threads that serve clients.
///
/// Each read pins the newest published revision, holds the index's lock for a bounded chunk of keys at a time and
/// reads bytes outside it (rule 10).
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    /// The newest published revision.
    pub fn revision(&self) -> i64 {
        self.shared.current.load(Ordering::Acquire)
    }

    /// Appends all fields of the `RangeResponse` but its header to `body`, and returns the revision for the header.
    ///
    /// The request has passed [`crate::admission::check_range`]. On an error `body` is as it was.
    pub fn range(&self, request: &Range<'_>, mode: ReadMode, body: &mut Vec<u8>) -> Result<i64, ReadFailure> {
        self.read(mode, body, |view, body| range(view, request, body))
    }

    /// As [`Reader::range`], with a transaction that only reads ([`Txn::is_read_only`]; panics otherwise).
    pub fn txn(&self, request: &Txn<'_>, mode: ReadMode, body: &mut Vec<u8>) -> Result<i64, ReadFailure> {
        assert!(request.is_read_only(), "a transaction that writes has to be proposed");
        self.read(mode, body, |view, body| run_read(view, request, body))
    }

    fn read(
        &self,
        mode: ReadMode,
        body: &mut Vec<u8>,
        run: impl FnOnce(&View<'_>, &mut Vec<u8>) -> Result<(), ReadFailure>,
    ) -> Result<i64, ReadFailure> {
        let view = View {
            index: &self.shared.index,
            bytes: Bytes::Source(&*self.shared.source, mode),
            current: self.revision(),
            compacted: NOT_COMPACTED,
        };
        let start = body.len();
        match run(&view, body) {
            Ok(()) => Ok(view.current),
            Err(failure) => {
                body.truncate(start);
                Err(failure)
            }
        }
    }

    /// Hashes all revisions up to `revision` (0: the newest) by etcd's algorithm. Reads everything that is stored,
    /// and waits for disks: only for a thread made for long work.
    pub fn hash_kv(&self, revision: i64) -> Result<KvHash, ReadFailure> {
        hash_kv(&*self.shared.source, revision, self.revision())
    }

    /// The published membership.
    pub fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.shared.membership.read().expect("no thread panics while it holds this lock"))
    }
}
