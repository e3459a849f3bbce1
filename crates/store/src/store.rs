//! The state machine itself, owned by the apply thread, and its readers.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use prost::Message as _;
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{AlarmMember, AlarmRequest, AlarmResponse};
use wire::{ApiError, raftpb};

use crate::alarm::Alarms;
use crate::apply::{self, Fatal, Kind, Request};
use crate::auth::{Auth, AuthChange, AuthState, AuthTable, Caller};
use crate::compaction::{Compaction, Compactor, KeptHashes, Pin, Pins, lock};
use crate::cut::Cut;
use crate::encoding::put_number;
use crate::lease::{LeaseChange, LeaseTimes, Leases};
use crate::membership::{ConfChangeOutcome, Membership};
use crate::mvcc::{
    Bytes, Chunk, Cursor, End, Hasher, Index, KEYS_PER_CHUNK, KeyValue, KvHash, NOT_COMPACTED, Pace,
    ReadFailure, ReadMode, Span, Version, View, Write, chunk, count, lock_read, lock_write, range, run_read,
    run_write,
};
use crate::ops::Ops;
use crate::record::{Location, RecordKind, RecordSink, RecordSource, RecordVisitor, Revision};
use crate::relocate::Relocator;
use crate::request::{Range, Txn};
use crate::size::{snapshot_bytes, stored_bytes};
use crate::stream::Piece;
use crate::tables::{AlarmTable, Changed, Tables, encode_tables};
use crate::{Answer, ReadError};

/// The revision of a store in which nothing was ever written.
const FIRST_REVISION: i64 = 1;
/// After so many bytes of records a hash asks whether to go on.
const HASH_PIECE_BYTES: usize = 256 << 10;

/// What must be equal on all members beside the log (rule 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most learners that a cluster may have (`--max-learners`).
    pub learners_max: usize,
    /// Shortest TTL of a lease, seconds; shorter ones are raised to it. In etcd one and a half election timeouts.
    pub lease_ttl_min_s: i64,
}

impl Default for Settings {
    /// etcd's defaults.
    fn default() -> Self {
        Settings { learners_max: 1, lease_ttl_min_s: 2 }
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
    /// Work for the [`Compactor`], once the batch is published.
    pub compaction: Option<Compaction>,
    /// What became of leases, for whoever counts their time.
    pub leases: Vec<LeaseChange>,
    /// What became of a user's tokens, for whoever keeps them.
    pub auth: Option<AuthChange>,
    /// Whether it has added to what is stored, as a quota counts it (etcd: quota.go).
    pub grew: bool,
}

/// What the apply thread, the readers and the compactor share.
pub(crate) struct Shared {
    pub index: RwLock<Index>,
    pub source: Arc<dyn RecordSource>,
    /// The published revision. Stored after the index has all its changes (rule 9).
    current: AtomicI64,
    /// The published compacted revision. Stored after `current`, so never above it.
    pub compacted: AtomicI64,
    /// Below this the index has gaps. Stored before the first of them is made.
    pub dropped: AtomicI64,
    /// The last compaction whose work in the background is done.
    pub finished: AtomicI64,
    pub pins: Mutex<Pins>,
    /// The epoch of `pins`, for reads that take none.
    pub epoch: AtomicU64,
    /// What all versions in the index take in a snapshot.
    pub stored_bytes: AtomicU64,
    pub hashes: Mutex<KeptHashes>,
    leases: RwLock<Leases>,
    membership: RwLock<Arc<Membership>>,
    alarms: RwLock<Arc<Alarms>>,
    auth: RwLock<Arc<Auth>>,
    /// The published revision of `auth` where it is on, else 0: asked for by each request.
    auth_revision: AtomicU64,
    /// What users and roles take in a snapshot.
    auth_bytes: AtomicU64,
    /// How many leases there are, as of the last batch.
    lease_count: AtomicU64,
}

impl Shared {
    /// What everything takes in a snapshot, bytes. Takes no lock: each put asks for it.
    fn size_bytes(&self) -> u64 {
        let leases = self.lease_count.load(Ordering::Relaxed);
        let auth_bytes = self.auth_bytes.load(Ordering::Relaxed);
        snapshot_bytes(self.stored_bytes.load(Ordering::Relaxed), leases, auth_bytes)
    }

    pub(crate) fn leases(&self) -> RwLockReadGuard<'_, Leases> {
        self.leases.read().expect("no thread panics while it holds this lock")
    }

    fn leases_mut(&self) -> RwLockWriteGuard<'_, Leases> {
        self.leases.write().expect("no thread panics while it holds this lock")
    }
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
    /// The compacted revision with everything applied, published or not.
    compacted: i64,
    membership: Membership,
    alarms: Alarms,
    auth: AuthState,
    /// What was changed since it was last written to a frame.
    changed: Changed,
    membership_published: bool,
    alarms_published: bool,
    /// Holds one record while it is encoded.
    scratch: Vec<u8>,
    /// Keeps the places that a batch reads at, until it is published.
    reading: Option<Pin>,
    /// The newest record found at start that ends what is not there.
    ends_nothing: Revision,
    ops: Ops,
}

impl Store {
    /// An empty store at revision 1, whose stored bytes come from `source`.
    pub fn new(source: Arc<dyn RecordSource>, settings: Settings) -> Store {
        let shared = Shared {
            index: RwLock::default(),
            source,
            current: AtomicI64::new(FIRST_REVISION),
            compacted: AtomicI64::new(NOT_COMPACTED),
            dropped: AtomicI64::new(NOT_COMPACTED),
            finished: AtomicI64::new(NOT_COMPACTED),
            pins: Mutex::default(),
            epoch: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
            hashes: Mutex::default(),
            leases: RwLock::default(),
            membership: RwLock::default(),
            alarms: RwLock::default(),
            auth: RwLock::default(),
            auth_revision: AtomicU64::new(0),
            auth_bytes: AtomicU64::new(0),
            lease_count: AtomicU64::new(0),
        };
        Store {
            shared: Arc::new(shared),
            settings,
            revision: FIRST_REVISION,
            compacted: NOT_COMPACTED,
            membership: Membership::default(),
            alarms: Alarms::default(),
            auth: AuthState::default(),
            changed: Changed::default(),
            membership_published: true,
            alarms_published: true,
            scratch: Vec::new(),
            reading: None,
            ends_nothing: Revision::default(),
            ops: Ops::default(),
        }
    }

    /// A way to read, for any number of threads.
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared), pace: None }
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
        // What etcd's tools write to raise the revision of a restored store: a put of no key, with nothing in it.
        let raises = is_put && encoded.is_empty();
        if is_put && !raises && (pair.mod_revision != revision.main || pair.version < 1) {
            return refuse("the pair is of another revision");
        }
        let mut version = Version {
            mod_revision: revision.main,
            create_revision: if is_put { pair.create_revision } else { 0 },
            version: if is_put { pair.version } else { 0 },
            lease: if is_put { pair.lease } else { 0 },
            location,
            sub,
            length,
        };
        let mut index = lock_write(&self.shared.index);
        if raises {
            let before = index.at(pair.key, i64::MAX);
            version.create_revision = before.map_or(revision.main, |before| before.create_revision);
            version.version = before.map_or(1, |before| before.version + 1);
        }
        if !index.accepts(pair.key, &version) {
            return refuse("it does not follow the key's last one");
        }
        if index.ends_nothing(pair.key, &version) {
            self.ends_nothing = revision;
        }
        index.insert(pair.key, version);
        self.shared.stored_bytes.fetch_add(stored_bytes(length, kind), Ordering::Relaxed);
        self.revision = revision.main;
        Ok(())
    }

    /// Checks what can only be known when all records and tables have been taken up. Changes nothing.
    ///
    /// Errors: [`RestoreError::Record`] if a key is deleted that is not there, in a revision that is not compacted.
    pub fn check_restored(&self) -> Result<(), RestoreError> {
        let revision = self.ends_nothing;
        if revision.main > self.compacted.max(0) {
            let reason = "it deletes a key that is not there";
            return Err(RestoreError::Record { revision, reason });
        }
        Ok(())
    }

    /// Takes up the small tables of one frame at start, as [`Store::take_tables`] gave them; `whole` as it was then.
    pub fn restore_tables(&mut self, tables: &[u8], whole: bool) -> Result<(), RestoreError> {
        let tables = Tables::decode(tables).map_err(|error| RestoreError::Tables(error.to_string()))?;
        if !tables.keeps_membership {
            let versions = (tables.cluster_version, tables.downgrade_target);
            self.membership = Membership::restore(tables.members, tables.removed, versions);
            self.membership_published = false;
        }
        if let Some(compacted) = tables.compacted {
            if compacted < self.compacted {
                let text = format!("the compacted revision falls from {} to {compacted}", self.compacted);
                return Err(RestoreError::Tables(text));
            }
            self.compacted = compacted;
        }
        if whole || tables.alarms.is_some() {
            self.alarms = tables.alarms.unwrap_or_default().alarms.into_iter().collect();
            self.alarms_published = false;
        }
        self.auth.restore(tables.auth, whole);
        let mut leases = self.shared.leases_mut();
        if whole {
            leases.clear();
        }
        for lease in &tables.leases {
            leases.restore(lease, self.settings.lease_ttl_min_s);
        }
        for id in &tables.leases_gone {
            leases.remove(*id);
        }
        Ok(())
    }

    /// Ends the restart: everything that was replayed becomes visible. Returns the compaction whose background work has
    /// to be taken up again.
    pub fn end_restore(&mut self) -> Option<Compaction> {
        // A compaction may have taken the newest records away; etcd never lets the revision fall below it either.
        self.revision = self.revision.max(self.compacted);
        lock_write(&self.shared.index).set_horizon(self.compacted);
        self.attach_keys();
        let _ = self.shared.leases_mut().take_changes();
        self.publish();
        let revision = self.compacted;
        (revision > NOT_COMPACTED).then_some(Compaction { revision, previous: revision, wants_hash: false })
    }

    /// Attaches every key to the lease that its newest version names, if that lease is there.
    fn attach_keys(&self) {
        let index = lock_read(&self.shared.index);
        let mut leases = self.shared.leases_mut();
        let mut cursor = Cursor::new(Span { from: &[], to: End::Open });
        while !cursor.is_done() {
            index.advance(&mut cursor, self.revision, |key, version| {
                if version.lease != 0 {
                    leases.attach(version.lease, key);
                }
            });
        }
    }

    /// The small tables (members, compacted revision, leases, alarms, users and roles) that have changed since this was last asked, encoded: what
    /// goes into a batch's frame. `whole`: all of them, for a frame that begins a segment.
    pub fn take_tables(&mut self, whole: bool) -> Option<Vec<u8>> {
        let changed = std::mem::take(&mut self.changed);
        let (leases, leases_gone) = self.shared.leases_mut().take_changes();
        let auth = self.auth.take_changes();
        if whole {
            return Some(self.tables());
        }
        if changed == Changed::default() && leases.is_empty() && leases_gone.is_empty() && auth.is_none() {
            return None;
        }
        let keeps_membership = !changed.membership;
        let mut tables = Tables { keeps_membership, leases, leases_gone, auth, ..Tables::default() };
        if changed.membership {
            tables.set_membership(&self.membership);
        }
        tables.compacted = changed.compacted.then_some(self.compacted);
        tables.alarms = changed.alarms.then(|| AlarmTable::from(&self.alarms));
        Some(tables.encode_to_vec())
    }

    /// All small tables, encoded.
    pub fn tables(&self) -> Vec<u8> {
        let leases = self.shared.leases().all();
        encode_tables(&self.membership, self.compacted, leases, &self.alarms, self.auth.now())
    }

    /// Everything as it is now, for a snapshot. To be taken between batches; takes time with many leases, of which it makes
    /// a copy.
    ///
    /// # Panics
    /// If something that was applied is not published.
    pub fn cut(&self) -> Cut {
        assert_eq!(self.shared.current.load(Ordering::Acquire), self.revision, "in the midst of a batch");
        let reader = self.reader();
        Cut::new(&self.shared, self.revision, (reader.membership(), reader.alarms(), reader.auth()))
    }

    /// Does the background work of compactions; there is to be one for a store. `batch_limit`: versions dropped in one
    /// step (`--compaction-batch-limit`).
    pub fn compactor(&self, batch_limit: usize) -> Compactor {
        Compactor::new(Arc::clone(&self.shared), batch_limit)
    }

    /// What a merge of the stored records needs to know.
    pub fn relocator(&self) -> Relocator {
        Relocator::new(Arc::clone(&self.shared))
    }

    /// The revision with everything applied, published or not.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The compacted revision with everything applied, published or not; -1 before the first compaction.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The alarms with everything applied, published or not.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Users and roles with everything applied, published or not.
    pub fn auth(&self) -> &Auth {
        self.auth.now()
    }

    /// What a snapshot of everything applied would take, bytes, within 5 % (rule 18).
    pub fn size_bytes(&self) -> u64 {
        self.shared.size_bytes()
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
        self.apply_for(entry_data, |_| want_answer, sink)
    }

    /// As [`Store::apply`]; `wants_answer` is asked with the request's id.
    pub fn apply_for(
        &mut self,
        entry_data: &[u8],
        wants_answer: impl FnOnce(u64) -> bool,
        sink: &mut dyn RecordSink,
    ) -> Result<Applied, Fatal> {
        apply::with_request(entry_data, |request| {
            let want_answer = wants_answer(request.id);
            self.apply_request(request, want_answer, sink)
        })
    }

    fn apply_request(
        &mut self,
        request: Request<'_>,
        want_answer: bool,
        sink: &mut dyn RecordSink,
    ) -> Result<Applied, Fatal> {
        if self.reading.is_none() {
            self.reading = Some(Pin::take(&self.shared));
        }
        let mut body = Vec::new();
        let answer = want_answer.then_some(&mut body);
        let mut compaction = None;
        let mut changes = Vec::new();
        let mut auth = None;
        let grows = request.kind.grows();
        let result = match request.kind {
            kind if let Some(refusal) = self.refusal(request.caller, &kind) => Err(refusal.into()),
            Kind::Put(put) => self.write(sink, |write| write.checked_put(&put, answer)),
            Kind::Txn(txn) => self.write(sink, |write| run_write(write, &txn, answer)),
            Kind::DeleteRange(delete) => self.write(sink, |write| write.delete_range(&delete, answer)),
            Kind::Range(request) => self.write(sink, |write| {
                write.ops.ranges += 1;
                match answer {
                    Some(body) => range(&write.view(), &request, body),
                    None => Ok(()),
                }
            }),
            Kind::Compaction(request) => self.compact(request.revision).map(|accepted| {
                compaction = Some(accepted);
            }),
            Kind::LeaseGrant(request) => self.grant(request.id, request.ttl, answer, &mut changes),
            Kind::LeaseRevoke(request) => self.revoke(request.id, sink, &mut changes),
            Kind::LeaseCheckpoint(request) => {
                let mut leases = self.shared.leases_mut();
                for checkpoint in &request.checkpoints {
                    let (id, remaining_ttl_s) = (checkpoint.id, checkpoint.remaining_ttl);
                    if leases.checkpoint(id, remaining_ttl_s) {
                        changes.push(LeaseChange::Checkpointed { id, remaining_ttl_s });
                    }
                }
                Ok(())
            }
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
            Kind::DowngradeInfoSet(set) => {
                self.membership.set_downgrade(set)?;
                self.membership_has_changed();
                Ok(())
            }
            Kind::DowngradeVersionTest => Ok(()),
            Kind::Alarm(request) => {
                self.alarm(request, answer);
                Ok(())
            }
            Kind::Auth(asked) => match self.auth.apply(request.caller, &asked, answer) {
                Ok(change) => {
                    auth = change;
                    Ok(())
                }
                Err(error) => Err(error.into()),
            },
        };
        let result = match result {
            Ok(()) => Ok(Answer { revision: self.revision, body }),
            Err(ReadFailure::Api(error)) => Err(error),
            Err(ReadFailure::Source(error)) => return Err(Fatal::Read(error)),
            Err(ReadFailure::WouldBlock | ReadFailure::Long | ReadFailure::Gone) => {
                return Err(Fatal::Read(ReadError("an apply was told to come back later".into())));
            }
        };
        let grew = grows && result.is_ok();
        Ok(Applied { id: request.id, result, compaction, leases: changes, auth, grew })
    }

    /// Why a request is not applied: alarms come before rights, as in etcd.
    fn refusal(&self, caller: Caller<'_>, request: &Kind<'_>) -> Option<ApiError> {
        if let Some(refusal) = self.alarms.refusal(request) {
            return Some(refusal);
        }
        let auth = self.auth.now();
        if !auth.is_enabled() {
            return None;
        }
        auth.check_request(caller, request, &self.shared.leases()).err()
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
            compacted: self.compacted,
            changes: 0,
            bytes: 0,
            leases: &self.shared.leases,
            ops: Ops::default(),
            compares: 0,
        };
        let result = run(&mut write);
        self.revision = write.current();
        self.ops.add(write.ops, write.compares);
        self.shared.stored_bytes.fetch_add(write.bytes, Ordering::Relaxed);
        result
    }

    fn compact(&mut self, revision: i64) -> Result<Compaction, ReadFailure> {
        if revision <= self.compacted {
            return Err(ApiError::Compacted.into());
        }
        if revision > self.revision {
            return Err(ApiError::FutureRev.into());
        }
        let previous = std::mem::replace(&mut self.compacted, revision);
        self.changed.compacted = true;
        Ok(Compaction { revision, previous, wants_hash: true })
    }

    /// Turns an alarm on or off, or lists them; the answer is an `AlarmResponse`. An action that nobody knows is none, as in
    /// etcd (apply/backend.go).
    fn alarm(&mut self, request: AlarmRequest, answer: Option<&mut Vec<u8>>) {
        let alarm = AlarmMember { member_id: request.member_id, alarm: request.alarm };
        let alarms: Vec<AlarmMember> = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => self.alarms.of(request.alarm).collect(),
            Ok(AlarmAction::Activate) => {
                self.alarms_have_changed(|alarms| alarms.activate(alarm));
                self.alarms.of(request.alarm).filter(|known| *known == alarm).collect()
            }
            Ok(AlarmAction::Deactivate) => {
                let was_on = self.alarms_have_changed(|alarms| alarms.deactivate(alarm));
                was_on.then_some(alarm).into_iter().collect()
            }
            Err(_) => Vec::new(),
        };
        if let Some(body) = answer {
            *body = AlarmResponse { header: None, alarms }.encode_to_vec();
        }
    }

    /// Makes a change of the alarms, and whether it was one.
    fn alarms_have_changed(&mut self, change: impl FnOnce(&mut Alarms) -> bool) -> bool {
        let has_changed = change(&mut self.alarms);
        self.changed.alarms |= has_changed;
        self.alarms_published &= !has_changed;
        has_changed
    }

    /// Grants a lease; the answer is a `LeaseGrantResponse`.
    fn grant(
        &mut self,
        id: i64,
        ttl_s: i64,
        body: Option<&mut Vec<u8>>,
        changes: &mut Vec<LeaseChange>,
    ) -> Result<(), ReadFailure> {
        let granted_ttl_s = self.shared.leases_mut().grant(id, ttl_s, self.settings.lease_ttl_min_s)?;
        changes.push(LeaseChange::Granted { id, ttl_s: granted_ttl_s });
        if let Some(body) = body {
            put_number(body, 2, id);
            put_number(body, 3, granted_ttl_s);
        }
        Ok(())
    }

    /// Ends a lease and deletes its keys, in key order and in one revision.
    fn revoke(
        &mut self,
        id: i64,
        sink: &mut dyn RecordSink,
        changes: &mut Vec<LeaseChange>,
    ) -> Result<(), ReadFailure> {
        let keys: Vec<Vec<u8>> = {
            let leases = self.shared.leases();
            if !leases.contains(id) {
                return Err(ApiError::LeaseNotFound.into());
            }
            leases.keys(id).map(<[u8]>::to_vec).collect()
        };
        self.write(sink, |write| write.delete_keys(&keys))?;
        self.shared.leases_mut().remove(id);
        changes.push(LeaseChange::Revoked { id });
        Ok(())
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
        self.changed.membership = true;
        self.membership_published = false;
    }

    /// What was done in this run.
    pub fn ops(&self) -> Ops {
        self.ops
    }

    /// Makes everything applied so far visible to readers. The [`RecordSource`] must be able to read it by now.
    pub fn publish(&mut self) {
        if !self.membership_published {
            let next = Arc::new(self.membership.clone());
            *self.shared.membership.write().expect("no thread panics while it holds this lock") = next;
            self.membership_published = true;
        }
        if !self.alarms_published {
            let next = Arc::new(self.alarms.clone());
            *self.shared.alarms.write().expect("no thread panics while it holds this lock") = next;
            self.alarms_published = true;
        }
        if let Some((next, bytes)) = self.auth.publish() {
            let revision = next.revision_if_enabled().unwrap_or(0);
            *self.shared.auth.write().expect("no thread panics while it holds this lock") = next;
            self.shared.auth_revision.store(revision, Ordering::Release);
            self.shared.auth_bytes.store(bytes, Ordering::Relaxed);
        }
        self.shared.lease_count.store(self.shared.leases().len() as u64, Ordering::Relaxed);
        self.shared.current.store(self.revision, Ordering::Release);
        self.shared.compacted.store(self.compacted, Ordering::Release);
        self.reading = None;
    }

    /// Checks every invariant; walks the whole index. Panics if one does not hold.
    pub fn check(&self) {
        let published = self.shared.current.load(Ordering::Acquire);
        assert!(published <= self.revision, "published {published}, applied {}", self.revision);
        assert!(self.compacted <= self.revision, "compacted {}, applied {}", self.compacted, self.revision);
        let index = lock_read(&self.shared.index);
        index.check(self.revision);
        self.shared.leases().check(|key| index.get(key, self.revision).map_or(0, |version| version.lease));
        self.membership.check();
        self.auth.now().check();
    }
}

/// Reads the published state. Cheap to clone; shared by the threads that serve clients.
///
/// Each read pins the newest published revision, holds the index's lock for a bounded chunk of keys at a time and
/// reads bytes outside it (rule 10).
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
    pace: Option<Arc<dyn Pace>>,
}

impl Reader {
    /// The same, whose ranges and transactions ask `pace` whether to go on.
    pub fn paced(&self, pace: Arc<dyn Pace>) -> Reader {
        Reader { shared: Arc::clone(&self.shared), pace: Some(pace) }
    }

    /// The newest published revision.
    pub fn revision(&self) -> i64 {
        self.shared.current.load(Ordering::Acquire)
    }

    /// The published compacted revision; -1 before the first compaction.
    pub fn compacted(&self) -> i64 {
        self.shared.compacted.load(Ordering::Acquire)
    }

    /// The last compaction whose background work is done in this run; -1 before the first.
    pub fn finished_compaction(&self) -> i64 {
        self.shared.finished.load(Ordering::Acquire)
    }

    /// Appends all fields of the `RangeResponse` but its header to `body`, and returns the revision for the header.
    ///
    /// The request has passed [`crate::admission::check_range`]. On an error `body` is as it was.
    pub fn range(&self, request: &Range<'_>, mode: ReadMode, body: &mut Vec<u8>) -> Result<i64, ReadFailure> {
        if request.range_end.is_empty() {
            return self.point(request, mode, body);
        }
        self.read(mode, body, |view, body| range(view, request, body))
    }

    /// As [`Reader::range`], with a transaction that only reads ([`Txn::is_read_only`]; panics otherwise). Tells too how many
    /// ranges it has read, those of compares among them.
    pub fn txn(
        &self,
        request: &Txn<'_>,
        mode: ReadMode,
        body: &mut Vec<u8>,
    ) -> Result<(i64, u64), ReadFailure> {
        assert!(request.is_read_only(), "a transaction that writes has to be proposed");
        let mut ranges = 0;
        let revision = self.read(mode, body, |view, body| {
            ranges = run_read(view, request, body)?;
            Ok(())
        })?;
        Ok((revision, ranges))
    }

    /// How many reads pin a revision now, and so hold up compactions.
    pub fn open_reads(&self) -> usize {
        lock(&self.shared.pins).len()
    }

    /// How many keys there are, those of a batch that is being applied too.
    pub fn key_count(&self) -> u64 {
        lock_read(&self.shared.index).live()
    }

    /// One chunk of a stream, of at most so many rows and bytes; `sent` rows have left before it, `left` may still leave.
    pub(crate) fn stream_chunk(
        &self,
        request: &Range<'_>,
        chunk_max: (i64, usize),
        (sent, left): (i64, i64),
        mode: ReadMode,
        body: &mut Vec<u8>,
    ) -> Result<Piece, ReadFailure> {
        const MORE: u32 = 3;
        const COUNT: u32 = 4;
        let mut made = Chunk { rows: 0, more_after: None };
        let current = self.read(mode, body, |view, body| {
            let at = view.revision(request.revision)?;
            made = chunk(view, request, at, chunk_max, body)?;
            let mut counted = sent + made.rows;
            match &made.more_after {
                Some(_) if made.rows < left => return Ok(()),
                Some(last) => {
                    put_number(body, MORE, 1);
                    let behind = [&last[..], &[0]].concat();
                    counted += count(view, Span::of(&behind, request.range_end), at)?;
                }
                None => {}
            }
            put_number(body, COUNT, counted);
            Ok(())
        })?;
        Ok(Piece { current, rows: made.rows, more_after: made.more_after })
    }

    /// A read of one key takes one look at the index: it pins nothing, and begins anew in the rare case that what it
    /// reads is being dropped, or the place where it was is given up.
    fn point(&self, request: &Range<'_>, mode: ReadMode, body: &mut Vec<u8>) -> Result<i64, ReadFailure> {
        loop {
            let epoch = self.shared.epoch.load(Ordering::Acquire);
            // The current revision was published before the compacted one: it is never below it here.
            let compacted = self.compacted();
            let view = self.view(mode, compacted, Some(&self.shared.dropped));
            let start = body.len();
            match range(&view, request, body) {
                Ok(()) => return Ok(view.current),
                Err(ReadFailure::Api(ApiError::Compacted)) if request.revision <= 0 => body.truncate(start),
                Err(ReadFailure::Source(_)) if self.has_moved_since(epoch) => body.truncate(start),
                Err(failure) => {
                    body.truncate(start);
                    return Err(failure);
                }
            }
        }
    }

    fn read(
        &self,
        mode: ReadMode,
        body: &mut Vec<u8>,
        run: impl FnOnce(&View<'_>, &mut Vec<u8>) -> Result<(), ReadFailure>,
    ) -> Result<i64, ReadFailure> {
        let pin = Pin::take(&self.shared);
        let view = self.view(mode, pin.at, None);
        let start = body.len();
        match run(&view, body) {
            Ok(()) => Ok(view.current),
            Err(failure) => {
                body.truncate(start);
                Err(failure)
            }
        }
    }

    fn view<'a>(&'a self, mode: ReadMode, compacted: i64, dropped: Option<&'a AtomicI64>) -> View<'a> {
        View {
            index: &self.shared.index,
            bytes: Bytes::Source(&*self.shared.source, mode, self.pace.as_deref()),
            current: self.revision(),
            compacted,
            leases: &self.shared.leases,
            dropped,
        }
    }

    /// Appends the stored pair that a key had at a revision; false if it had none, or if that is compacted.
    pub(crate) fn pair_at(
        &self,
        key: &[u8],
        revision: i64,
        mode: ReadMode,
        out: &mut Vec<u8>,
    ) -> Result<bool, ReadFailure> {
        let start = out.len();
        loop {
            let epoch = self.shared.epoch.load(Ordering::Acquire);
            let view = self.view(mode, self.compacted(), Some(&self.shared.dropped));
            if revision < view.compacted {
                return Ok(false);
            }
            let Ok(Some(row)) = view.point(key, revision) else { return Ok(false) };
            match view.bytes.append(row.location, row.length, out) {
                Err(ReadFailure::Source(_)) if self.has_moved_since(epoch) => out.truncate(start),
                result => return result.map(|()| true),
            }
        }
    }

    /// Whether places of records may have been given up that could be found at an epoch.
    fn has_moved_since(&self, epoch: u64) -> bool {
        self.shared.epoch.load(Ordering::Acquire) != epoch
    }

    /// What a snapshot taken now would take, bytes, within 5 % (rule 18).
    pub fn size_bytes(&self) -> u64 {
        self.shared.size_bytes()
    }

    /// Visits every record whose main revision is `from` or above, in revision order, until the visitor breaks; records
    /// that no reader may see yet too.
    pub(crate) fn scan(&self, from: i64, visitor: &mut RecordVisitor<'_>) -> Result<(), ReadError> {
        self.shared.source.scan(from, visitor)
    }

    /// Hashes all revisions up to `revision` (0: the newest) by etcd's algorithm, and returns the newest revision for the
    /// header too. The hashes of the last compactions are kept, and answered for their revisions.
    ///
    /// Reads everything that is stored, and waits for disks: only for a thread made for long work. A reader with a
    /// [`Pace`] asks it after each piece.
    pub fn hash_kv(&self, revision: i64) -> Result<(KvHash, i64), ReadFailure> {
        if let Some(kept) = lock(&self.shared.hashes).get(revision)
            && revision != 0
        {
            return Ok((kept, self.revision()));
        }
        let pin = Pin::take(&self.shared);
        let current = self.revision();
        if revision > 0 && revision < pin.at {
            return Err(ApiError::Compacted.into());
        }
        if revision > current {
            return Err(ApiError::FutureRev.into());
        }
        let wanted = if revision == 0 { current } else { revision };
        let mut hasher = Hasher::new(&self.shared, pin.at, wanted, false)?;
        let (mut bytes, mut is_wanted) = (0, true);
        if wanted > 0 {
            self.shared.source.scan(0, &mut |kind, at, encoded| {
                if at.main > wanted {
                    return ControlFlow::Break(());
                }
                hasher.record(&self.shared, kind, at, encoded);
                bytes += encoded.len();
                if bytes >= HASH_PIECE_BYTES {
                    is_wanted = self.pace.as_ref().is_none_or(|pace| pace.go_on(bytes));
                    bytes = 0;
                }
                if is_wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        match is_wanted {
            true => Ok((hasher.finish(wanted), current)),
            false => Err(ReadFailure::Gone),
        }
    }

    /// The hashes of the last compactions, as far as they are made and kept; in the order in which they were made.
    pub fn compaction_hashes(&self) -> Vec<KvHash> {
        lock(&self.shared.hashes).all()
    }

    /// Hashes everything that is replicated: keys, leases, alarms, users, members; and returns the newest revision for the header. Equal
    /// on members of ours that have applied the same; not etcd's own sum, which is one of the names, keys and values in
    /// its backend's buckets.
    pub fn hash(&self) -> Result<(u32, i64), ReadFailure> {
        let (keys, current) = self.hash_kv(0)?;
        let (compacted, leases) = (Some(keys.compact_revision), self.shared.leases().all());
        let alarms = self.alarms();
        let alarms = (!alarms.is_empty()).then(|| AlarmTable::from(&*alarms));
        let auth = AuthTable::whole(&self.auth());
        let mut tables = Tables { compacted, leases, alarms, auth, ..Tables::default() };
        tables.set_membership(&self.membership());
        Ok((crc32c::crc32c_append(keys.hash, &tables.encode_to_vec()), current))
    }

    /// A lease's times; `None` if there is no such lease.
    pub fn lease(&self, id: i64) -> Option<LeaseTimes> {
        self.shared.leases().times(id)
    }

    /// How many keys are attached to a lease.
    pub fn lease_key_count(&self, id: i64) -> usize {
        self.shared.leases().key_count(id)
    }

    /// The keys attached to a lease, in order. With many it takes long; applies may come between: each key is there that
    /// was attached from the beginning to the end.
    pub fn lease_keys(&self, id: i64) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let known = keys.len();
            // Under the lock only what is bounded is done: apply waits for it.
            let mut chunk: Vec<Vec<u8>> = Vec::with_capacity(KEYS_PER_CHUNK);
            let after = keys.last().map(Vec::as_slice);
            chunk.extend(self.shared.leases().keys_after(id, after).take(KEYS_PER_CHUNK).map(<[u8]>::to_vec));
            keys.append(&mut chunk);
            if keys.len() < known + KEYS_PER_CHUNK {
                return keys;
            }
        }
    }

    /// All leases, in ascending order of id.
    pub fn leases(&self) -> Vec<(i64, LeaseTimes)> {
        self.shared.leases().iter().collect()
    }

    /// The published membership.
    pub fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.shared.membership.read().expect("no thread panics while it holds this lock"))
    }

    /// The published alarms.
    pub fn alarms(&self) -> Arc<Alarms> {
        Arc::clone(&self.shared.alarms.read().expect("no thread panics while it holds this lock"))
    }

    /// The published users and roles, and whether they count.
    pub fn auth(&self) -> Arc<Auth> {
        Arc::clone(&self.shared.auth.read().expect("no thread panics while it holds this lock"))
    }

    /// As [`Auth::revision_if_enabled`] of [`Reader::auth`]. Takes no lock.
    pub fn auth_revision(&self) -> Option<u64> {
        let revision = self.shared.auth_revision.load(Ordering::Acquire);
        (revision != 0).then_some(revision)
    }
}
