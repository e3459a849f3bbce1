//! The apply thread's part: committed entries go into the store, their changes into one frame a batch.

use std::collections::VecDeque;
use std::sync::Arc;

use disk::revlog::{self, Frame, FrameBuilder};
use prost::Message;
use raft::{ConfState, Entry, EntryKind, Index, NodeId};
use store::watch::{self, Event, Tail};
use store::{Alarms, Answer, AuthChange, Compaction, ConfChangeOutcome, LeaseChange, Membership, Store};
use wire::etcdserverpb::AuthenticateResponse;
use wire::raftpb::{ConfChange, ConfChangeType};
use wire::{ApiError, Status};

use crate::cluster_version::Agreed;
use crate::consensus::Applied;
use crate::ids::RequestIds;
use crate::interchange::Cut;
use crate::merge::CompactionFrames;
use crate::quota::Quota;
use crate::records::{FrameState, LogSink, parse};
use crate::snapshot::SnapshotSchedule;
use crate::{Error, RequestId, SnapshotOrder};

/// Why an entry of raft's second kind of change is not applied.
pub(crate) const JOINT_FORM: &str = "the joint form of membership changes is not supported";

/// What one batch gave. To be handed on in this order: changes of leases to the lessor, the frame to the revision
/// writer and the snapshot after it, the report to consensus, the answers to their callers (rule 9: the revision is
/// current already).
pub struct Batch {
    /// The batch's changes, for the revision log.
    pub frame: Frame,
    /// For consensus.
    pub report: Applied,
    /// Ends of proposals that other lanes of this run made, on whatever member led.
    pub answers: Vec<(RequestId, Result<Answer, Status>)>,
    /// For the compactor, in order.
    pub compactions: Vec<Compaction>,
    /// The snapshot that is due at the batch's end, for the revision writer.
    pub snapshot: Option<SnapshotOrder>,
    /// For the lessor, in order.
    pub leases: Vec<LeaseChange>,
    /// How many leases were revoked since this member had found them at their end.
    pub expired: usize,
    /// For whoever keeps tokens, in order; before the answers.
    pub auth: Vec<AuthChange>,
    /// The membership at the batch's end, if the batch may have changed it: for the transport.
    pub membership: Option<Arc<Membership>>,
}

/// What the requests of a batch gave.
#[derive(Default)]
struct Gave {
    answers: Vec<(RequestId, Result<Answer, Status>)>,
    compactions: Vec<Compaction>,
    leases: Vec<LeaseChange>,
    expired: usize,
    auth: Vec<AuthChange>,
    /// Whether anything has added to what is stored.
    grew: bool,
}

/// Hears of each request as it is applied: the shell's clock is behind it, and nothing of the state depends on it (rule 8).
pub trait ApplyWatch: Send {
    /// A batch begins.
    fn begin(&mut self);

    /// A request was applied: its entry's data, and what came of it. The answer has a body only where somebody waits for it.
    fn applied(&mut self, data: &[u8], result: &Result<Answer, ApiError>);

    /// The batch has no more requests.
    fn end(&mut self);
}

/// Applies entries. Owns the store.
pub struct Applier {
    store: Store,
    watch: Option<Box<dyn ApplyWatch>>,
    builder: FrameBuilder,
    reader: revlog::Reader,
    /// The newest changes, for watches.
    tail: Arc<Tail>,
    conf: ConfState,
    applied: revlog::Applied,
    ids: RequestIds,
    own_lane: usize,
    /// Entries up to here were in the log when this run began.
    found_index: u64,
    snapshots: SnapshotSchedule,
    compaction_frames: CompactionFrames,
    quota: Quota,
    /// As of the membership that was published last.
    agreed: Agreed,
    published_membership: Arc<Membership>,
    published_alarms: Arc<Alarms>,
}

impl Applier {
    pub(crate) fn new(
        store: Store,
        builder: FrameBuilder,
        (reader, tail): (revlog::Reader, Arc<Tail>),
        state: (ConfState, revlog::Applied),
        (ids, own_lane): (RequestIds, usize),
        found_index: u64,
        (snapshots, compaction_frames, quota): (SnapshotSchedule, CompactionFrames, Quota),
    ) -> Self {
        let (conf, applied) = state;
        let published_membership = store.reader().membership();
        Applier {
            agreed: Agreed::from(&*published_membership),
            published_membership,
            published_alarms: store.reader().alarms(),
            store,
            watch: None,
            builder,
            reader,
            tail,
            conf,
            applied,
            ids,
            own_lane,
            found_index,
            snapshots,
            compaction_frames,
            quota,
        }
    }

    /// Has somebody hear of all that is applied from now on.
    pub fn watch(&mut self, watch: Box<dyn ApplyWatch>) {
        self.watch = Some(watch);
    }

    /// Hears that a snapshot is in the log; the next one, if that is due already.
    pub fn snapshot_taken(&mut self, index: u64) -> Option<SnapshotOrder> {
        self.snapshots.taken(index);
        self.snapshot()
    }

    /// The snapshot that is due now. To be asked between batches only: it is of the end of one.
    fn snapshot(&mut self) -> Option<SnapshotOrder> {
        let revlog::Applied { index, term } = self.applied;
        let (previous_index, is_forced) = (self.snapshots.last_index, self.snapshots.is_forced);
        self.snapshots.begin(index).then(|| SnapshotOrder {
            index,
            previous_index,
            is_forced,
            term,
            conf: self.conf.clone(),
            membership: self.store.reader().membership(),
        })
    }

    /// Bytes of finished frames that are not in a file yet: what back-pressure goes by.
    pub fn unwritten_bytes(&self) -> u64 {
        self.builder.unwritten_bytes()
    }

    /// The last applied entry.
    pub fn applied_index(&self) -> u64 {
        self.applied.index
    }

    /// Everything as of the last batch, for a snapshot.
    pub fn cut(&self) -> Cut {
        Cut::new(self.store.cut(), self.applied, self.conf.clone())
    }

    /// The store, for checks and reads of the shell.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Applies entries from the front of the queue, as many as one frame takes; `None` if there is none. `wal_durable`: up
    /// to where the write-ahead log has all committed entries ([`Consensus::durable_index`](crate::Consensus)); the frame
    /// says so, and a log that ends before that has lost some (rule 5).
    ///
    /// # Errors
    /// An entry that cannot be applied, a failed read, or a log that cannot go on. No frame of the batch exists
    /// then, and the member must stop.
    ///
    /// # Panics
    /// If an entry does not follow the last one applied.
    pub fn apply(&mut self, entries: &mut VecDeque<Entry>, wal_durable: u64) -> Result<Option<Batch>, Error> {
        if entries.is_empty() {
            return Ok(None);
        }
        if let Some(watch) = &mut self.watch {
            watch.begin();
        }
        let starts_segment = self.builder.starts_segment();
        let mut report = Applied::default();
        let mut gave = Gave { answers: Vec::with_capacity(entries.len()), ..Gave::default() };
        while let Some(entry) = entries.pop_front() {
            assert_eq!(entry.index.0, self.applied.index + 1, "entries are applied in order, each once");
            match entry.kind {
                EntryKind::Normal if entry.data.is_empty() => {}
                EntryKind::Normal => self.request(&entry, &mut report, &mut gave)?,
                EntryKind::ConfChange => self.conf_change(&entry, &mut report, &mut gave)?,
                EntryKind::ConfChangeV2 => {
                    return Err(apply_error(&entry, JOINT_FORM));
                }
            }
            self.applied = revlog::Applied { index: entry.index.0, term: entry.term.0 };
            if self.builder.is_full() {
                break;
            }
        }
        if let Some(watch) = &mut self.watch {
            watch.end();
        }
        let frame = self.finish(starts_segment, wal_durable)?;
        for compaction in &gave.compactions {
            self.compaction_frames.note(compaction.revision, frame.number());
        }
        self.tell(&frame);
        self.store.publish();
        report.index = self.applied.index;
        report.term = self.applied.term;
        report.revision = self.store.revision();
        report.exceeds_quota = gave.grew && !self.quota.has_room(self.store.size_bytes(), 1);
        report.alarms = self.alarms_if_changed();
        report.auth_revision = self.store.auth().revision_if_enabled().unwrap_or(0);
        let membership = self.membership_if_changed();
        report.agreed = self.agreed;
        let snapshot = self.snapshot();
        let Gave { answers, compactions, leases, expired, auth, grew: _ } = gave;
        Ok(Some(Batch { frame, report, answers, compactions, snapshot, leases, expired, auth, membership }))
    }

    fn alarms_if_changed(&mut self) -> Option<Arc<Alarms>> {
        let alarms = self.store.reader().alarms();
        if Arc::ptr_eq(&alarms, &self.published_alarms) {
            return None;
        }
        self.published_alarms = alarms.clone();
        Some(alarms)
    }

    fn membership_if_changed(&mut self) -> Option<Arc<Membership>> {
        let membership = self.store.reader().membership();
        if Arc::ptr_eq(&membership, &self.published_membership) {
            return None;
        }
        let before = std::mem::replace(&mut self.agreed, Agreed::from(&*membership)).version;
        // As in etcd: whatever goes on from here with an older version finds a snapshot that it understands.
        self.snapshots.is_forced |= before.is_some() && self.agreed.version < before;
        self.published_membership = membership.clone();
        Some(membership)
    }

    fn request(&mut self, entry: &Entry, report: &mut Applied, gave: &mut Gave) -> Result<(), Error> {
        let mut sink = LogSink { builder: &mut self.builder, reader: &self.reader };
        // An answer is built for whoever may wait here; the state does not depend on it (rule 8).
        let (ids, own_lane) = (&self.ids, self.own_lane);
        let is_awaited = |id| ids.origin(RequestId(id)).is_some_and(|lane| lane != own_lane);
        let applied = self.store.apply_for(&entry.data, is_awaited, &mut sink);
        let mut applied = applied.map_err(|fatal| apply_error(entry, fatal))?;
        if let Some(AuthChange::LoggedIn { token, .. }) = &mut applied.auth {
            complete_token(token, entry.index, &mut applied.result);
        }
        if let Some(watch) = &mut self.watch {
            watch.applied(&entry.data, &applied.result);
        }
        // Hashes made at compactions end with the run, as in etcd: those of entries that it began with are not made.
        let wants_hash = entry.index.0 > self.found_index;
        gave.grew |= applied.grew;
        let is_own = self.ids.origin(RequestId(applied.id)) == Some(self.own_lane);
        let revoked = applied.leases.iter().filter(|change| matches!(change, LeaseChange::Revoked { .. }));
        gave.expired += if is_own { revoked.count() } else { 0 };
        gave.leases.extend(applied.leases);
        gave.auth.extend(applied.auth);
        gave.compactions.extend(applied.compaction.map(|compaction| Compaction { wants_hash, ..compaction }));
        let id = RequestId(applied.id);
        match self.ids.origin(id) {
            Some(lane) if lane == self.own_lane => report.own.push(id),
            Some(_) => gave.answers.push((id, applied.result.map_err(Status::from))),
            None => {}
        }
        Ok(())
    }

    fn conf_change(&mut self, entry: &Entry, report: &mut Applied, gave: &mut Gave) -> Result<(), Error> {
        let change = ConfChange::decode(entry.data.clone()).map_err(|e| apply_error(entry, e))?;
        let id = NodeId(change.node_id());
        let outcome = self.store.apply_conf_change(&change).map_err(|fatal| apply_error(entry, fatal))?;
        let request = RequestId(change.id());
        let result = match outcome {
            // Member calls leave the header's revision at 0.
            ConfChangeOutcome::Applied => Ok(Answer::default()),
            ConfChangeOutcome::Refused(error) => Err(error.into()),
        };
        if self.ids.origin(request).is_some() && request.0 != 0 {
            gave.answers.push((request, result));
        }
        if let ConfChangeOutcome::Refused(_) = outcome {
            // Invalid at apply: a no-op, on all members alike (rule 16).
            return Ok(());
        }
        let ConfState { voters, learners } = &mut self.conf;
        let remove = |ids: &mut Vec<NodeId>| ids.retain(|known| *known != id);
        let insert = |ids: &mut Vec<NodeId>| {
            if let Err(at) = ids.binary_search(&id) {
                ids.insert(at, id);
            }
        };
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode => {
                remove(learners);
                insert(voters);
            }
            ConfChangeType::ConfChangeAddLearnerNode => {
                remove(voters);
                insert(learners);
            }
            ConfChangeType::ConfChangeRemoveNode => {
                remove(voters);
                remove(learners);
            }
            ConfChangeType::ConfChangeUpdateNode => return Ok(()),
        }
        report.conf = Some(self.conf.clone());
        Ok(())
    }

    /// Puts the frame's changes where watches find them. Whoever sees their revision published finds them there.
    fn tell(&self, frame: &Frame) {
        if !self.tail.is_wanted() {
            return self.tail.skip(self.store.revision());
        }
        let events = frame.records().filter_map(|(header, record)| {
            let (kind, revision) = parse(header)?;
            Some(Event { kind, revision, record })
        });
        let events: Vec<Event> = events.collect();
        if let (Some(first), Some(last)) = (events.first(), events.last()) {
            let (first, last) = (first.revision.main, last.revision.main);
            self.tail.push(watch::Batch { first, last, events });
        }
    }

    fn finish(&mut self, starts_segment: bool, wal_durable: u64) -> Result<Frame, Error> {
        let tables = self.store.take_tables(starts_segment);
        let state = FrameState {
            voters: self.conf.voters.iter().map(|id| id.0).collect(),
            learners: self.conf.learners.iter().map(|id| id.0).collect(),
            tables,
        };
        Ok(self.builder.finish(self.applied, &state.encode_to_vec(), wal_durable)?)
    }
}

/// A token says at which index its user has logged in, so that another member knows what it has to wait for. As etcd
/// has it, which each member makes for itself: that is the index of the entry before the login (etcd: simple_token.go,
/// apply/backend.go).
fn complete_token(token: &mut String, login: Index, result: &mut Result<Answer, ApiError>) {
    token.push_str(&format!(".{}", login.0 - 1));
    if let Ok(answer) = result {
        answer.body = AuthenticateResponse { header: None, token: token.clone() }.encode_to_vec();
    }
}

fn apply_error(entry: &Entry, reason: impl std::fmt::Display) -> Error {
    Error::Apply { index: entry.index.0, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_the_entry_before_its_login() {
        // etcd 3.7.1: the login was entry 9.
        let mut token = "iUrvmPzNuWQpzfrz".to_owned();
        let mut result = Ok(Answer::default());
        complete_token(&mut token, Index(9), &mut result);
        assert_eq!(token, "iUrvmPzNuWQpzfrz.8");
        let body = result.expect("an answer").body;
        assert_eq!(AuthenticateResponse { header: None, token }.encode_to_vec(), body);
    }
}
