//! A running member: the node's parts, and the queues that the shell would put between them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use disk::{Fs, wal};
use node::{
    AutoCompaction, ClusterState, Completions, Entropy, Error, InitialMember, Input, Leadership, Limits,
    LostProposals, Member, MergeStep, Merged, Outputs, PersistRequest, Quota, RequestId, Settings,
    SnapshotOrder, Submission,
};
use raft::{Entry, Time};
use store::{Answer, Membership};
use wire::Status;

use crate::random::Random;

/// As [`Running`]'s `save_waits`: a full disk is not the place for most of a run's work.
const SAVE_WAITS: u32 = 32;

/// The member and what is under way between its parts.
pub struct Running {
    /// The node's parts.
    pub parts: Member,
    /// For consensus.
    pub inputs: VecDeque<Input>,
    /// For the log writer.
    pub persist: Vec<PersistRequest>,
    /// For the applier.
    pub entries: VecDeque<Entry>,
    /// Whether its own attributes, proposed in this run, are applied.
    pub is_ready: bool,
    /// What the allocation of a log segment came to, which the WAL thread has not heard of.
    prepared: Option<Result<wal::Prepared, wal::Error>>,
    /// What consensus was last told.
    has_room: bool,
    /// For the thread of file work.
    files: VecDeque<FileWork>,
    /// The log names a leader's snapshot: the member has to be opened anew.
    pub is_restored: bool,
    /// The last step of a merge found that somebody has to leave first.
    merge_waits: bool,
    /// Calls until a snapshot is tried again that the disk had no room for.
    save_waits: u32,
}

/// What the thread of file work has to do.
enum FileWork {
    /// The revision log has what the snapshot covers: its file is to be written.
    Save(SnapshotOrder),
    /// The write-ahead log names the snapshot: the next one may be taken, and what is too many goes.
    Named(u64),
    /// Files of snapshots older than this go.
    Purge(u64),
    /// Segments go.
    Release(wal::Release),
    /// What was received of a leader's snapshot goes.
    Discard,
}

/// What one step of one part told the outside.
#[derive(Default)]
pub struct Told {
    /// Ends of proposals and reads, as network threads get them.
    pub completions: Completions,
    /// Entries that the applier was handed, in order.
    pub applied: Vec<Entry>,
    /// Snapshots that the log names, in order.
    pub snapshots: Vec<u64>,
    /// Files that were given back: segments of the log and `.snap` files.
    pub removed: Vec<PathBuf>,
    /// Entries that consensus wants to be durable.
    pub proposed: Vec<Entry>,
    /// Renewals whose lease is gone.
    pub ended: Vec<RequestId>,
    /// Merges of the revision log that came to their end.
    pub merges: Vec<Merged>,
    /// A merge met something that could not be read.
    pub unreadable: bool,
    /// For other members.
    pub sent: Vec<raft::Message>,
    /// Who needs a snapshot.
    pub snapshots_wanted: Vec<u64>,
    /// For whom consensus was handed one; it is among what is sent, or is not wanted any more.
    pub snapshot_for: Option<u64>,
    /// Proposals that are without an answer and get none.
    pub lost: Option<LostProposals>,
    /// Requests that consensus has taken in, in order.
    pub taken: Vec<RequestId>,
    /// Consensus has heard that an entry of this term is applied.
    pub applied_term: Option<u64>,
    /// Who leads now, if that changed.
    pub leadership: Option<Leadership>,
    /// The members, if they changed.
    pub membership: Option<Arc<Membership>>,
}

/// The settings of the one member of a cluster of one.
pub fn settings() -> Settings {
    let peer_urls = vec!["http://localhost:2380".to_owned()];
    Settings {
        data_dir: PathBuf::from("/data"),
        wal_dir: None,
        name: "sim".into(),
        peer_urls: peer_urls.clone(),
        client_urls: vec!["http://localhost:2379".into()],
        initial_cluster: vec![InitialMember { name: "sim".into(), peer_urls }],
        cluster_state: ClusterState::New,
        token: "sim".into(),
        force_new_cluster: false,
        election_timeout_ms: 1000,
        heartbeat_interval_ms: 100,
        pre_vote: true,
        downgrade_check_ms: 5_000,
        learners_max: 1,
        auto_compaction: AutoCompaction::Off,
        lease_checkpoints: false,
        compaction_batch_limit: 3,
        snapshot_count: 10_000,
        wals_max: 5,
        snapshots_max: 5,
        keep_imported: false,
        quota: Quota::OFF,
        no_space_clears_ms: Some(60_000),
        limits: Limits::tiny(),
    }
}

impl Running {
    /// Starts a member on what the disk holds.
    pub fn start(
        fs: &Arc<dyn Fs>,
        settings: &Settings,
        random: &mut Random,
        now: Time,
    ) -> Result<Self, Error> {
        let entropy = Entropy { ids: random.draw(), log: random.draw(), raft: random.draw() };
        Running::open(fs, settings, entropy, now)
    }

    /// Starts a member with settings and entropy of the caller's choice.
    pub fn open(fs: &Arc<dyn Fs>, settings: &Settings, entropy: Entropy, now: Time) -> Result<Self, Error> {
        let parts = node::open(fs, settings, entropy, 1, now, &mut |_, _, _| {})?;
        let inputs = VecDeque::from([Input::Tick]);
        // The last run may have ended before it gave back what it could.
        let files = VecDeque::from([FileWork::Purge(parts.found.snapshot_index)]);
        let mut running = Running {
            parts,
            inputs,
            persist: Vec::new(),
            entries: VecDeque::new(),
            is_ready: false,
            prepared: None,
            has_room: true,
            files,
            is_restored: false,
            merge_waits: false,
            save_waits: 0,
        };
        running.files.extend(running.parts.log_writer.release().map(FileWork::Release));
        Ok(running)
    }

    /// Hands requests to consensus.
    pub fn submit(&mut self, batch: Vec<Submission>) {
        self.inputs.push_back(Input::Submissions(batch));
    }

    /// Runs every part until nothing is left to do, as a healthy member would.
    ///
    /// # Errors
    /// The first failed disk operation.
    ///
    /// # Panics
    /// If it does not come to rest.
    pub fn settle(&mut self, now: Time, told: &mut Told) -> Result<(), Error> {
        self.merge_waits = false;
        for _ in 0..10_000 {
            if self.is_idle() {
                return Ok(());
            }
            self.consensus(now, told);
            self.write_log(usize::MAX)?;
            self.apply(now, told)?;
            self.write_revisions()?;
            self.sync_revisions()?;
            self.work_on_files(told)?;
            self.compact();
            self.merge(told)?;
        }
        panic!("the member does not come to rest");
    }

    /// The raft thread takes its next input.
    pub fn consensus(&mut self, now: Time, told: &mut Told) {
        let is_due = self.parts.consensus.deadline() <= now;
        let Some(input) = self.inputs.pop_front().or(is_due.then_some(Input::Tick)) else { return };
        match &input {
            Input::SnapshotReady { to, .. } => told.snapshot_for = Some(*to),
            Input::Submissions(batch) => told.taken.extend(batch.iter().filter_map(id_of)),
            Input::Applied(applied) => told.applied_term = Some(applied.term),
            _ => {}
        }
        let mut out = Outputs::default();
        self.parts.consensus.step(now, input, &mut out);
        self.parts.consensus.check();
        if out.discard_received {
            self.files.push_back(FileWork::Discard);
        }
        told.sent.extend(out.send);
        told.snapshots_wanted.extend(out.snapshots_wanted);
        told.lost = out.lost.or(told.lost.take());
        told.leadership = out.leadership.or(told.leadership);
        let durable_index = self.parts.consensus.durable_index();
        self.parts.revision_writer.wal_durable(durable_index);
        told.proposed.extend(out.persist.iter().flat_map(|persist| &persist.entries).cloned());
        self.persist.extend(out.persist);
        self.entries.extend(out.apply);
        self.is_ready |= out.ready;
        let refused = out.refused.into_iter().map(|(id, status)| (id, Err::<Answer, Status>(status)));
        told.completions.answers.extend(refused);
        told.completions.reads.extend(out.reads);
    }

    /// The WAL thread writes the first `group` requests as one group, as far as they fit; what does not asks for the next
    /// segment.
    ///
    /// # Errors
    /// A failed disk operation; the member must stop.
    pub fn write_log(&mut self, group: usize) -> Result<(), Error> {
        let rest = self.persist.split_off(group.min(self.persist.len()));
        let mut group = std::mem::replace(&mut self.persist, rest);
        let written = self.parts.log_writer.write(&mut group)?;
        self.is_restored |= written.restored;
        self.inputs.extend(written.persisted.map(Input::Persisted));
        self.files.extend(written.snapshot_index.map(FileWork::Named));
        self.files.extend(self.parts.log_writer.release().map(FileWork::Release));
        if group.is_empty() {
            return Ok(());
        }
        self.persist.splice(..0, group);
        self.prepare_log()
    }

    /// The next log segment is allocated, and the WAL thread hears of it.
    pub fn prepare_log(&mut self) -> Result<(), Error> {
        self.begin_preparing();
        self.end_preparing()
    }

    /// The next log segment is allocated, on a thread of its own: the WAL thread goes on, and hears of it later.
    pub fn begin_preparing(&mut self) {
        if self.prepared.is_none() {
            self.prepared = self.parts.log_writer.preparation().map(wal::Preparation::run);
        }
    }

    /// The WAL thread hears of the segment that was allocated.
    pub fn end_preparing(&mut self) -> Result<(), Error> {
        if let Some(outcome) = self.prepared.take() {
            self.parts.log_writer.prepared(outcome)?;
        }
        self.report_room();
        Ok(())
    }

    /// Whether there was room on the disk when the member last looked.
    pub fn has_room(&self) -> bool {
        self.has_room
    }

    fn report_room(&mut self) {
        let room = self.parts.log_writer.has_room() && self.parts.revision_writer.has_room();
        if std::mem::replace(&mut self.has_room, room) != room {
            self.inputs.push_back(Input::Room(room));
        }
    }

    /// The apply thread applies one batch of what has arrived.
    pub fn apply(&mut self, now: Time, told: &mut Told) -> Result<(), Error> {
        let arrived: Vec<Entry> = self.entries.iter().cloned().collect();
        let durable_index = self.parts.consensus.durable_index();
        let applied = self.parts.applier.apply(&mut self.entries, durable_index)?;
        let Some(batch) = applied else { return Ok(()) };
        let taken = arrived.len() - self.entries.len();
        told.applied.extend(arrived.into_iter().take(taken));
        self.parts.revision_writer.offer(batch.frame);
        if let Some(snapshot) = batch.snapshot {
            self.parts.revision_writer.order(snapshot);
        }
        let gone = self.parts.lessor.lock().applied(now, batch.report.term, &batch.leases);
        told.ended.extend(gone);
        told.completions.applied_index = batch.report.index;
        self.inputs.push_back(Input::Applied(batch.report));
        told.completions.answers.extend(batch.answers);
        told.membership = batch.membership.or(told.membership.take());
        for compaction in batch.compactions {
            let _keeps_hash = self.parts.compactor.push(compaction);
        }
        self.parts.applier.store().check();
        Ok(())
    }

    /// The revision log's thread writes what it may.
    pub fn write_revisions(&mut self) -> Result<(), Error> {
        self.parts.revision_writer.write()?;
        self.files.extend(self.parts.revision_writer.take_snapshot().map(FileWork::Save));
        self.report_room();
        Ok(())
    }

    /// The revision log's thread syncs.
    pub fn sync_revisions(&mut self) -> Result<(), Error> {
        self.parts.revision_writer.sync()?;
        self.files.extend(self.parts.revision_writer.take_snapshot().map(FileWork::Save));
        self.report_room();
        Ok(())
    }

    /// The thread of file work does what is next. What a full disk has no room for is tried again later.
    ///
    /// # Errors
    /// A failed disk operation; the member must stop.
    pub fn work_on_files(&mut self, told: &mut Told) -> Result<(), Error> {
        let writer = &self.parts.snapshot_writer;
        self.save_waits = self.save_waits.saturating_sub(1);
        match self.files.pop_front() {
            Some(FileWork::Save(snapshot)) if self.save_waits > 0 => {
                self.files.push_back(FileWork::Save(snapshot));
            }
            Some(FileWork::Save(snapshot)) => match writer.write(writer.make(&snapshot))? {
                Some(record) => self.inputs.push_back(Input::SnapshotSaved(record)),
                None => {
                    self.save_waits = SAVE_WAITS;
                    self.files.push_back(FileWork::Save(snapshot));
                }
            },
            Some(FileWork::Named(index)) => {
                told.snapshots.push(index);
                told.removed.extend(writer.purge(index)?);
                if let Some(snapshot) = self.parts.applier.snapshot_taken(index) {
                    self.parts.revision_writer.order(snapshot);
                    self.files.extend(self.parts.revision_writer.take_snapshot().map(FileWork::Save));
                }
            }
            Some(FileWork::Purge(index)) => told.removed.extend(writer.purge(index)?),
            Some(FileWork::Release(release)) => told.removed.extend(release.run()?),
            Some(FileWork::Discard) => {
                if let Err(node::ReceiveError::Failed(error)) = self.parts.snapshot_receiver.discard() {
                    return Err(error);
                }
            }
            None => {}
        }
        Ok(())
    }

    /// The thread for long work takes a step.
    pub fn compact(&mut self) {
        // A read that fails costs a hash, and nothing else.
        let _given_up = self.parts.compactor.step();
        self.parts.applier.store().check();
    }

    /// The thread that merges segments takes a step.
    ///
    /// # Errors
    /// A failed disk operation; the member must stop.
    pub fn merge(&mut self, told: &mut Told) -> Result<(), Error> {
        let step = self.parts.merger.step()?;
        self.merge_waits = matches!(step, MergeStep::Waiting);
        match step {
            MergeStep::Finished(merged) => told.merges.push(merged),
            // A read that fails ends the merging, and nothing else.
            MergeStep::Damaged(_) => told.unreadable = true,
            MergeStep::Idle | MergeStep::Working(_) | MergeStep::Waiting => {}
        }
        self.parts.log_reader.check();
        self.parts.applier.store().check();
        Ok(())
    }

    /// Whether each part has something to do now: consensus but for the time, the log's writer, the applier, the revision
    /// log's writer, its sync, the files, the compactor, and the merger.
    pub fn busy(&self) -> [bool; 8] {
        [
            !self.inputs.is_empty(),
            !self.persist.is_empty(),
            !self.entries.is_empty() && !self.is_apply_paused(),
            self.parts.revision_writer.can_write(),
            self.parts.revision_writer.needs_sync() || self.parts.revision_writer.has_waiting(),
            !self.files.is_empty(),
            !self.parts.compactor.is_idle(),
            !self.parts.merger.is_idle(),
        ]
    }

    /// Whether apply would pause in the shell.
    pub fn is_apply_paused(&self) -> bool {
        self.parts.applier.unwritten_bytes() > settings().limits.unwritten_bytes_max
    }

    /// Request ids of the one network thread.
    pub fn lane(&self) -> node::LaneIds {
        self.parts.ids.lane(0)
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.inputs.is_empty()
            && self.persist.is_empty()
            && self.entries.is_empty()
            && self.files.is_empty()
            && self.parts.compactor.is_idle()
            && (self.parts.merger.is_idle() || self.merge_waits)
            && !self.parts.revision_writer.can_write()
            && !self.parts.revision_writer.needs_sync()
    }
}

/// The id of what is to come into the log.
fn id_of(submission: &Submission) -> Option<RequestId> {
    match submission {
        Submission::Propose { id, .. } | Submission::Reconfigure { id, .. } => Some(*id),
        Submission::ReadIndex { .. } | Submission::GiveUp { .. } => None,
    }
}

/// A submission of an encoded request.
pub fn proposal(id: RequestId, data: Vec<u8>, grows: bool) -> Submission {
    Submission::Propose { id, data: data.into(), grows }
}
