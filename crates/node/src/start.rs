//! Start: read and check everything, write nothing until all checks hold, then take up where the last run ended
//! (rules 5 and 6). A member that has no log yet begins one as etcd does (rule 20).

pub(crate) mod database;
pub(crate) mod together;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use disk::revlog::{self, RecordHeader, Replay, ReplayError};
use disk::wal::{self, Wal};
use disk::{DirLock, Fs, snap};
use prost::Message;
use raft::{ConfState, Entry, EntryKind, HardState, Index, NodeId, Position, Raft, Restored, Term, Time};
use store::watch::Tail;
use store::{CompactionStep, Compactor, FinishedCompaction, Location, Reader, Store};
use wire::etcdserverpb::{AlarmType, Metadata};
use wire::raftpb::{ConfChange, ConfChangeType};

use crate::auto_compaction::{AutoCompaction, AutoCompactor};
use crate::cluster_version::{Agreed, ClusterVersion};
use crate::consensus::{Consensus, OwnAttributes, Past};
use crate::fates::Fates;
use crate::forced::{self, Forced};
use crate::held::HeldRequests;
use crate::identity::{Identity, InitialMember, cluster_id, member_id};
use crate::ids::RequestIds;
use crate::interchange::{self, Imported, Occupied};
use crate::lease::keeper::Keeper;
use crate::lease::{Lessor, LessorSettings, SharedLessor};
use crate::merge::{CompactionFrames, Merger};
use crate::quota::{Quota, SpaceKeeper};
use crate::reconfigure::Context;
use crate::records::{FrameState, LogSource, parse};
use crate::snapshot::SnapshotSchedule;
use crate::{Applier, Error, LogWriter, ReceiveError, RevisionWriter, Rot, SnapshotReceiver, SnapshotWriter};

use together::{StoreOf, check_cluster_version, check_together, may_make_anew, missing_snapshot};

/// Versions that a compaction drops in one step while nobody waits for the index.
const COMPACTION_BATCH: usize = 10_000;

/// How long a request may take beside two election timeouts (etcd: config.go, `ReqTimeout`).
const REQUEST_TIMEOUT_MS: u64 = 5_000;

/// What a member is configured with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory; the member's files are under `member/`.
    pub data_dir: PathBuf,
    /// The write-ahead log's folder, if it is not `member/wal`.
    pub wal_dir: Option<PathBuf>,
    /// This member's name.
    pub name: String,
    /// This member's peer URLs.
    pub peer_urls: Vec<String>,
    /// The client URLs that it advertises.
    pub client_urls: Vec<String>,
    /// The first members of a new cluster, this one among them. Not looked at where a log exists, or to join one.
    pub initial_cluster: Vec<InitialMember>,
    /// `--initial-cluster-state`.
    pub cluster_state: ClusterState,
    /// Mixed into the ids of a new cluster.
    pub token: String,
    /// Whether a member that has a log goes on alone, and all others are removed (`--force-new-cluster`).
    pub force_new_cluster: bool,
    /// Election timeout.
    pub election_timeout_ms: u64,
    /// Heartbeat interval.
    pub heartbeat_interval_ms: u64,
    /// Whether a member asks before it stands for election (`--pre-vote`).
    pub pre_vote: bool,
    /// How often the leader looks whether a downgrade is over, 0 for never (`--downgrade-check-time`).
    pub downgrade_check_ms: u64,
    /// Most learners that the cluster may have, the same on all members (`--max-learners`).
    pub learners_max: usize,
    /// Compaction without being asked.
    pub auto_compaction: AutoCompaction,
    /// Whether the leader notes in the log what is left of long leases (gate LeaseCheckpoint).
    pub lease_checkpoints: bool,
    /// Versions dropped in one step of a compaction's background work (`--compaction-batch-limit`).
    pub compaction_batch_limit: usize,
    /// A snapshot is taken, and the log given back, when more entries than this were applied since the last one
    /// (`--snapshot-count`).
    pub snapshot_count: u64,
    /// Segments of the write-ahead log that stay (`--max-wals`), 0 for all.
    pub wals_max: usize,
    /// `.snap` files that stay (`--max-snapshots`), 0 for all.
    pub snapshots_max: usize,
    /// Whether a database of etcd's stays when it is taken over, as `member/imported-<index>.db`
    /// (`--quorate-keep-imported-db`).
    pub keep_imported: bool,
    /// How much the store may take (`--quota-backend-bytes`).
    pub quota: Quota,
    /// How long there must have been room for this member's NOSPACE to end by itself; `None`: it does not.
    pub no_space_clears_ms: Option<u64>,
    /// How much may pile up.
    pub limits: Limits,
}

impl Settings {
    /// What all members must agree on for the store: shorter leases are raised to one and a half election timeouts, as
    /// in etcd counted in whole heartbeats.
    fn store(&self) -> store::Settings {
        let ticks = self.election_timeout_ms / self.heartbeat_interval_ms.max(1);
        let lease_ttl_min_ms = 3 * ticks / 2 * self.heartbeat_interval_ms;
        store::Settings {
            lease_ttl_min_s: lease_ttl_min_ms.div_ceil(1000) as i64,
            learners_max: self.learners_max,
        }
    }

    fn lessor(&self) -> LessorSettings {
        LessorSettings {
            heartbeat_interval_ms: self.heartbeat_interval_ms,
            election_timeout_ms: self.election_timeout_ms,
            checkpoints: self.lease_checkpoints,
        }
    }
}

/// What a member without a log does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// It begins a cluster, with the others that the settings name.
    #[default]
    New,
    /// It joins a cluster, whose leader tells it everything. The ids are those that the cluster has for it; to be asked
    /// of its members if there is no log yet.
    Existing(Option<Identity>),
}

/// The limits of one member's parts.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of consensus.
    pub raft: raft::Limits,
    /// Of the write-ahead log.
    pub wal: wal::Limits,
    /// Of the revision log.
    pub revlog: revlog::Limits,
    /// Bytes of finished frames that may wait to be written; beyond it apply pauses.
    pub unwritten_bytes_max: u64,
    /// Bytes of the newest changes that are kept for watches, while there are any.
    pub watch_tail_bytes_max: usize,
    /// Bytes of records that hashes of compactions and for comparison with other members may read, a second, all together.
    pub hash_bytes_per_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            raft: raft::Limits::default(),
            wal: wal::Limits::default(),
            revlog: revlog::Limits::default(),
            unwritten_bytes_max: 64 << 20,
            watch_tail_bytes_max: 64 << 20,
            hash_bytes_per_s: 256 << 20,
        }
    }
}

impl Limits {
    /// Bounds so small that simulations meet every one of them, but for raft's: clients there wait for answers.
    pub fn tiny() -> Self {
        Limits {
            raft: raft::Limits::default(),
            wal: wal::Limits::tiny(),
            revlog: revlog::Limits::tiny(),
            unwritten_bytes_max: 4096,
            watch_tail_bytes_max: 4096,
            hash_bytes_per_s: 1 << 20,
        }
    }
}

/// Numbers from the system's random source. The core draws none by itself.
#[derive(Clone, Copy, Debug)]
pub struct Entropy {
    /// Where request ids begin (rule 19).
    pub ids: u64,
    /// The id of a revision log that begins now; not 0.
    pub log: u64,
    /// The seed of raft's timers.
    pub raft: u64,
}

/// A member that is open: its parts, each for a thread of the shell.
pub struct Member {
    /// Its ids.
    pub identity: Identity,
    /// Request ids of this run; the last lane is the member's own.
    pub ids: RequestIds,
    /// The raft thread's part.
    pub consensus: Consensus,
    /// The WAL thread's part.
    pub log_writer: LogWriter,
    /// The apply thread's part.
    pub applier: Applier,
    /// The revision log thread's part.
    pub revision_writer: RevisionWriter,
    /// The part that writes `.snap` files, for a thread of long work.
    pub snapshot_writer: SnapshotWriter,
    /// The part that takes in snapshots of a leader, for a thread of long work.
    pub snapshot_receiver: SnapshotReceiver,
    /// Does the background work of compactions.
    pub compactor: Compactor,
    /// Gives back what compactions have dropped, for a thread of long work.
    pub merger: Merger,
    /// What network threads read through.
    pub reader: Reader,
    /// The newest changes, for watches.
    pub tail: Arc<Tail>,
    /// The time of leases: network threads renew, and the apply thread tells of changes.
    pub lessor: SharedLessor,
    /// What of the revision log cannot be read; to be listened to.
    pub rot: Rot,
    /// Bytes of the revision log, for Status.
    pub log_reader: revlog::Reader,
    /// What was found.
    pub found: Found,
    /// Held as long as the member runs.
    pub lock: DirLock,
}

/// What a start found, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether the member begins now.
    pub is_new: bool,
    /// The last entry of the write-ahead log.
    pub last_index: u64,
    /// The last entry that the revision log holds.
    pub applied_index: u64,
    /// Torn ends that were cut: file and offset. What they held was never acknowledged.
    pub torn: Vec<(PathBuf, u64)>,
    /// The newest snapshot that the write-ahead log names, 0 if it names none.
    pub snapshot_index: u64,
    /// `.snap` files that did not verify, and what they are called now. Nothing depends on them.
    pub broken: Vec<(snap::Broken, PathBuf)>,
    /// The `.snap` file that the log names, if it is not there, or broken: another is made as soon as can be.
    pub missing: Option<PathBuf>,
    /// The database of etcd's that was taken over; it is gone.
    pub imported: Option<Imported>,
    /// What was done so that the member goes on alone.
    pub forced: Option<Forced>,
    /// The compaction whose background work was done at once, if there was any.
    pub compaction: Option<FinishedCompaction>,
}

/// What a start that takes long is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It takes over etcd's database; counted in pairs.
    TakingOver,
    /// It reads the revision log; counted in bytes.
    Reading,
}

/// Opens or begins a member whose network threads make requests on `lanes` lanes. `progress` hears how much of how much
/// of a stage is done.
///
/// # Errors
/// Anything that does not verify or fit together, with file and offset; nothing is changed then.
pub fn open(
    fs: &Arc<dyn Fs>,
    settings: &Settings,
    entropy: Entropy,
    lanes: usize,
    now: Time,
    progress: &mut dyn FnMut(Stage, u64, u64),
) -> Result<Member, Error> {
    let folders = Folders::new(&settings.data_dir, settings.wal_dir.as_deref());
    let lock = folders.prepare(&**fs)?;
    let (recovered, mut found) = if Wal::exists(&**fs, &folders.wal)? {
        recover(fs, settings, &folders, entropy, progress)?
    } else {
        begin(fs, settings, &folders, entropy)?
    };
    let Recovered { identity, wal, opened, replay, hard_state, offset, entries } = recovered;
    let Replayed { mut store, conf, source } = replay;
    let applied = opened.applied();
    // While the revision log is made anew from the other one, all of that is needed.
    let releasable = if applied.index >= found.snapshot_index { found.snapshot_index } else { 0 };
    let (builder, writer, log_reader) = opened.into_parts()?;
    source.fill(log_reader.clone());
    let rot = source.rot().clone();
    let compaction_frames = CompactionFrames::default();
    let merger = Merger::new(
        writer.merger(),
        log_reader.clone(),
        store.relocator(),
        (compaction_frames.clone(), rot.clone()),
    );
    found.compaction = end_restore(&mut store)?;
    let compactor = store.compactor(settings.compaction_batch_limit);
    let reader = store.reader();
    let lessor = SharedLessor::new(Lessor::new(settings.lessor(), now, reader.leases()));

    let ids = RequestIds::new(entropy.ids, lanes + 1);
    let config = raft::Config {
        id: NodeId(identity.member_id),
        election_timeout_ms: settings.election_timeout_ms,
        heartbeat_interval_ms: settings.heartbeat_interval_ms,
        pre_vote: settings.pre_vote,
        check_quorum: true,
        seed: entropy.raft,
        limits: settings.limits.raft,
    };
    let restored =
        Restored { hard_state, conf: conf.clone(), offset, entries, applied: Index(applied.index) };
    let attributes = OwnAttributes {
        member_id: identity.member_id,
        name: settings.name.clone(),
        client_urls: settings.client_urls.clone(),
    };
    let raft = Raft::new(config, restored, now)?;
    let agreed = Agreed::from(store.membership());
    let patience_ms = REQUEST_TIMEOUT_MS + 2 * settings.election_timeout_ms;
    let snapshot_receiver = folders.receiver(fs, settings);
    let mut keeper = Keeper::new(lessor.clone());
    keeper.hold(reader.alarms().has(AlarmType::Corrupt));
    keeper.auth_revision(reader.auth_revision().unwrap_or(0));
    let past = Past {
        cluster_version: ClusterVersion::new(agreed, settings.downgrade_check_ms),
        held: HeldRequests::new(patience_ms, &settings.limits.raft),
        fates: Fates::new(ids),
        publish_again_ms: settings.election_timeout_ms,
        revision: store.revision(),
        auto_compaction: AutoCompactor::new(settings.auto_compaction, now, store.revision()),
        leases: keeper,
        space: SpaceKeeper::new(
            identity.member_id,
            settings.quota,
            settings.no_space_clears_ms,
            reader.clone(),
        ),
    };
    let consensus = Consensus::new(raft, ids.lane(lanes), attributes, past);
    let durable_index = consensus.durable_index();
    let tail = Arc::new(Tail::new(reader.revision(), settings.limits.watch_tail_bytes_max));
    let snapshots = SnapshotSchedule {
        count: settings.snapshot_count,
        last_index: found.snapshot_index,
        is_forced: found.missing.is_some(),
        is_under_way: false,
    };
    let applier = Applier::new(
        store,
        builder,
        (log_reader.clone(), tail.clone()),
        (conf, applied),
        (ids, lanes),
        found.last_index,
        (snapshots, compaction_frames, settings.quota),
    );
    Ok(Member {
        identity,
        ids,
        consensus,
        log_writer: LogWriter::new(wal, settings.wals_max, releasable),
        applier,
        revision_writer: RevisionWriter::new(writer, durable_index),
        snapshot_writer: SnapshotWriter::new(folders.snap(fs), settings.snapshots_max),
        snapshot_receiver,
        compactor,
        merger,
        reader,
        tail,
        lessor,
        rot,
        log_reader,
        found,
        lock,
    })
}

pub(crate) struct Folders {
    pub(crate) data: PathBuf,
    pub(crate) member: PathBuf,
    pub(crate) wal: PathBuf,
    pub(crate) snap: PathBuf,
    pub(crate) rev: PathBuf,
    /// The revision log of a leader's snapshot, until the member goes over to it; and the one before, until it is gone.
    pub(crate) rev_next: PathBuf,
    rev_old: PathBuf,
}

impl Folders {
    /// `wal`: where the write-ahead log is, if it is not in the data directory.
    pub(crate) fn new(data: &Path, wal: Option<&Path>) -> Self {
        let member = data.join("member");
        Folders {
            data: data.to_owned(),
            wal: wal.map_or_else(|| member.join("wal"), Path::to_owned),
            snap: member.join("snap"),
            rev: member.join("rev"),
            rev_next: member.join("rev.next"),
            rev_old: member.join("rev.old"),
            member,
        }
    }

    /// The database of etcd's, in a data directory that it wrote or that a snapshot was restored to.
    pub(crate) fn database(&self) -> PathBuf {
        self.snap.join("db")
    }

    /// The `.snap` files.
    pub(crate) fn snap(&self, fs: &Arc<dyn Fs>) -> snap::Folder {
        snap::Folder::new(fs.clone(), &self.snap)
    }

    fn receiver(&self, fs: &Arc<dyn Fs>, settings: &Settings) -> SnapshotReceiver {
        SnapshotReceiver {
            fs: fs.clone(),
            member: self.member.clone(),
            next: self.rev_next.clone(),
            snap: self.snap.clone(),
            limits: settings.limits.revlog.clone(),
            occupied: Occupied::default(),
        }
    }

    /// Makes the folders that are missing, and takes the member's lock.
    fn prepare(&self, fs: &dyn Fs) -> Result<DirLock, Error> {
        make_folder(fs, &self.data)?;
        self.check_restored(fs)?;
        make_folder(fs, &self.member)?;
        make_folder(fs, &self.snap)?;
        if let Some(parent) = parent_of(&self.wal) {
            make_folder(fs, parent)?;
        }
        self.lock(fs)
    }

    /// A restore that did not come to its end has left nothing to start from.
    pub(crate) fn check_restored(&self, fs: &dyn Fs) -> Result<(), Error> {
        let restoring = self.data.join(interchange::RESTORING);
        if fs.exists(&restoring).map_err(io("look for", &restoring))? {
            return Err(Error::Contradiction(format!(
                "{} is what an interrupted restore of a snapshot has left: remove it, and restore again",
                restoring.display()
            )));
        }
        Ok(())
    }

    /// Takes the member's lock.
    pub(crate) fn lock(&self, fs: &dyn Fs) -> Result<DirLock, Error> {
        fs.lock_dir(&self.member).map_err(|e| match e.kind() {
            std::io::ErrorKind::WouldBlock => Error::Locked(self.data.clone()),
            _ => io("lock folder", &self.member)(e),
        })
    }
}

fn make_folder(fs: &dyn Fs, folder: &Path) -> Result<(), Error> {
    disk::make_dir(fs, folder, 0o700).map_err(io("create folder", folder))
}

pub(crate) fn parent_of(path: &Path) -> Option<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
        parent => parent,
    }
}

pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { operation, path, source }
}

struct Recovered {
    identity: Identity,
    wal: Wal,
    opened: revlog::Opened,
    replay: Replayed,
    hard_state: HardState,
    /// The entry before the first of the entries.
    offset: Position,
    entries: Vec<Entry>,
}

/// A member's first start.
fn begin(
    fs: &Arc<dyn Fs>,
    settings: &Settings,
    folders: &Folders,
    entropy: Entropy,
) -> Result<(Recovered, Found), Error> {
    let (opened, replay) = open_revlog(fs, settings, folders, entropy, &mut |_, _| {})?;
    together::check_unbegun(fs, folders, &opened)?;
    let identity = match settings.cluster_state {
        ClusterState::New => configured_identity(settings)?,
        ClusterState::Existing(Some(identity)) => identity,
        ClusterState::Existing(None) => {
            return Err(Error::Identity("the cluster to join has not said who this member is".to_owned()));
        }
    };
    let metadata = Metadata { node_id: Some(identity.member_id), cluster_id: Some(identity.cluster_id) };
    let wal = Wal::create(fs.clone(), &folders.wal, &metadata.encode_to_vec(), settings.limits.wal)?;
    let (wal, hard_state, entries) = match settings.cluster_state {
        ClusterState::New => write_first_entries(wal, &settings.initial_cluster, &settings.token)?,
        ClusterState::Existing(_) => (wal, HardState::default(), Vec::new()),
    };
    let found = Found { is_new: true, last_index: entries.len() as u64, ..Found::default() };
    let offset = Position::default();
    Ok((Recovered { identity, wal, opened, replay, hard_state, offset, entries }, found))
}

/// The ids that a new cluster gets from its configuration.
fn configured_identity(settings: &Settings) -> Result<Identity, Error> {
    identity_of(&settings.initial_cluster, &settings.name, &settings.token)
}

/// The ids of the member `name` of a new cluster.
pub(crate) fn identity_of(
    initial_cluster: &[InitialMember],
    name: &str,
    token: &str,
) -> Result<Identity, Error> {
    let ids: Vec<u64> = initial_cluster.iter().map(|member| member_id(&member.peer_urls, token)).collect();
    let own = initial_cluster.iter().position(|member| member.name == name);
    let own = own.ok_or_else(|| {
        Error::Identity(format!("couldn't find local name {name:?} in the initial cluster configuration"))
    })?;
    Ok(Identity { cluster_id: cluster_id(&ids), member_id: ids[own] })
}

/// A new cluster's log begins as etcd's (rule 20): one ConfChangeAddNode a member, ascending by id, at term 1, all
/// committed.
pub(crate) fn write_first_entries(
    mut wal: Wal,
    initial_cluster: &[InitialMember],
    token: &str,
) -> Result<(Wal, HardState, Vec<Entry>), Error> {
    let mut members: Vec<(u64, &InitialMember)> =
        initial_cluster.iter().map(|member| (member_id(&member.peer_urls, token), member)).collect();
    members.sort_by_key(|(id, _)| *id);
    let entries: Vec<Entry> = members
        .into_iter()
        .enumerate()
        .map(|(at, (id, member))| {
            let peer_urls = Some(&member.peer_urls[..]);
            let context = Context { id, peer_urls, name: &member.name, ..Context::default() };
            let change = ConfChange {
                r#type: Some(ConfChangeType::ConfChangeAddNode.into()),
                node_id: Some(id),
                context: Some(context.encode().into()),
                id: None,
            };
            Entry {
                term: Term(1),
                index: Index(at as u64 + 1),
                kind: EntryKind::ConfChange,
                data: Bytes::from(change.encode_to_vec()),
            }
        })
        .collect();
    let hard_state = HardState { term: Term(1), vote: None, commit: Index(entries.len() as u64) };
    let written: Vec<wal::EntryRef<'_>> = entries
        .iter()
        .map(|entry| wal::EntryRef {
            term: entry.term.0,
            index: entry.index.0,
            kind: wal::EntryKind::ConfChange,
            data: &entry.data,
        })
        .collect();
    let state = wal::HardState { term: 1, vote: 0, commit: entries.len() as u64 };
    wal.append(written, Some(state))?;
    wal.sync()?;
    Ok((wal, hard_state, entries))
}

/// A later start.
fn recover(
    fs: &Arc<dyn Fs>,
    settings: &Settings,
    folders: &Folders,
    entropy: Entropy,
    progress: &mut dyn FnMut(Stage, u64, u64),
) -> Result<(Recovered, Found), Error> {
    // Go's etcd takes the locks in this order too.
    let database = database::Found::lock(&**fs, folders)?;
    let log = Wal::open(fs.clone(), &folders.wal, settings.limits.wal)?;
    let identity = recorded_identity(log.metadata())?;
    let database = database::Found::that_counts(&**fs, folders, &log, database)?;
    if together::is_to_go_over(fs, folders, &settings.limits.revlog, &log)? {
        // Twice is as once.
        database::replace(&**fs, folders, &folders.rev_next)?;
    }
    let imported = match &database {
        Some(database) => {
            let log_id = entropy.log.max(1);
            let mut progress = |done, total| progress(Stage::TakingOver, done, total);
            database.import(fs, settings, folders, (&log, identity), log_id, &mut progress)?
        }
        None => None,
    };
    let mut reading = |done, total| progress(Stage::Reading, done, total);
    let (opened, replay) = open_revlog(fs, settings, folders, entropy, &mut reading)?;
    let is_ahead = database.as_ref().is_some_and(|database| database.is_ahead_of(&log, &opened));
    if !is_ahead {
        let makes_anew = may_make_anew(&**fs, folders, &log, &opened)?;
        check_together(&log, StoreOf::Log(&opened), makes_anew)?;
    }
    let snap = folders.snap(fs);
    let broken = snap.check()?;
    let missing = missing_snapshot(&snap, log.newest_snapshot(), &broken)?;

    let applied = opened.applied();
    let (offset, mut entries) = match is_ahead {
        true => ((Index(applied.index), Term(applied.term)), Vec::new()),
        false => read_entries(&log, applied, kept_entries(settings, &replay.conf))?,
    };
    let mut hard_state = hard_state(&log);
    let mut found = Found {
        last_index: log.last().index,
        applied_index: applied.index,
        snapshot_index: log.newest_snapshot().index,
        missing,
        imported,
        ..Found::default()
    };
    found.torn.extend(log.torn().map(|torn| (torn.file, torn.offset)));
    found.torn.extend(opened.torn().map(|torn| (torn.file.clone(), torn.offset)));

    // The first start may have ended between the log's creation and the sync of its first entries: the hard state is
    // written behind them, so without one there is at most a torn part of them. The log of a member that joins begins
    // empty, and what it has before its leader's first word is on disk says nothing either.
    check_cluster_version(replay.store.membership())?;
    if replay.store.membership().members().filter(|member| member.is_learner).count() > settings.learners_max
    {
        return Err(Error::TooManyLearners);
    }
    let is_unborn = log.hard_state().is_none() && opened.is_empty();
    let is_unborn = is_unborn && settings.cluster_state == ClusterState::New;
    if is_unborn && configured_identity(settings)? != identity {
        let wal = folders.wal.display();
        return Err(Error::Identity(format!("the empty log in {wal} belongs to another member or cluster")));
    }

    // All checks hold: from here on the disk may change.
    folders.receiver(fs, settings).clear().map_err(|error| match error {
        ReceiveError::Failed(error) => error,
        other => Error::Contradiction(other.to_string()),
    })?;
    interchange::clear(&**fs, &folders.rev_old)?;
    let mut wal = log.into_writer()?;
    snap.tidy()?;
    if is_ahead {
        let membership = replay.store.membership();
        hard_state = database::follow(&snap, &mut wal, applied, &replay.conf, membership)?;
        (found.last_index, found.snapshot_index, found.missing) = (applied.index, applied.index, None);
    }
    if let Some(database) = database {
        database.finish(&**fs, settings, folders)?;
    }
    database::remove_leftovers(&**fs, folders)?;
    for broken in broken {
        let aside = snap.set_aside(&broken)?;
        found.broken.push((broken, aside));
    }
    if is_unborn {
        (wal, hard_state, entries) = write_first_entries(wal, &settings.initial_cluster, &settings.token)?;
        found.last_index = entries.len() as u64;
    } else if settings.force_new_cluster {
        let at = (&replay.conf, Index(applied.index));
        let forced = forced::force(&mut wal, identity.member_id, at, &mut hard_state, &mut entries)?;
        found.last_index = hard_state.commit.0;
        found.forced = Some(forced);
    }
    Ok((Recovered { identity, wal, opened, replay, hard_state, offset, entries }, found))
}

/// What the log says of term, vote and commit index.
pub(crate) fn hard_state(log: &wal::Opened) -> HardState {
    let state = log.hard_state().unwrap_or_default();
    let vote = (state.vote != 0).then_some(NodeId(state.vote));
    HardState { term: Term(state.term), vote, commit: Index(state.commit) }
}

/// How many applied entries are read back for followers that lag behind, and how many bytes of them: none by who has
/// none.
fn kept_entries(settings: &Settings, conf: &ConfState) -> (u64, usize) {
    let limits = &settings.limits.raft;
    match conf.voters.len() + conf.learners.len() {
        0 | 1 => (0, 0),
        _ => (limits.kept_entries_max as u64, limits.kept_bytes_max),
    }
}

/// The entries behind `applied`, and at most so many before it; and the position before the first of them.
pub(crate) fn read_entries(
    log: &wal::Opened,
    applied: revlog::Applied,
    (count_max, bytes_max): (u64, usize),
) -> Result<(Position, Vec<Entry>), Error> {
    let mut kept: VecDeque<Entry> = VecDeque::new();
    let mut kept_bytes = 0;
    let mut entries = Vec::new();
    for entry in log.entries(applied.index.saturating_sub(count_max + 1)) {
        let entry = raft_entry(entry?);
        if entry.index.0 > applied.index {
            entries.push(entry);
            continue;
        }
        if entry.index.0 == applied.index && entry.term.0 != applied.term {
            // Equal length is not enough: the entry that was applied must be the one that the log holds.
            return Err(Error::Contradiction(format!(
                "entry {} has term {} in the write-ahead log and {} in the revision log",
                entry.index, entry.term, applied.term
            )));
        }
        kept_bytes += entry.size();
        kept.push_back(entry);
        while kept_bytes > bytes_max
            && let Some(oldest) = kept.pop_front()
        {
            kept_bytes -= oldest.size();
        }
    }
    let before = match kept.front() {
        Some(first) if first.index == Index(1) => Position::default(),
        // Its term is known, what comes before is not.
        Some(_) => kept.pop_front().map(|first| (first.index, first.term)).unwrap_or_default(),
        None => (Index(applied.index), Term(applied.term)),
    };
    let kept = Vec::from(kept);
    Ok((before, if kept.is_empty() { entries } else { [kept, entries].concat() }))
}

pub(crate) fn recorded_identity(metadata: &[u8]) -> Result<Identity, Error> {
    let metadata = Metadata::decode(metadata)
        .map_err(|e| Error::Identity(format!("the write-ahead log's metadata cannot be read: {e}")))?;
    Ok(Identity { cluster_id: metadata.cluster_id(), member_id: metadata.node_id() })
}

fn raft_entry(entry: wal::Entry) -> Entry {
    let kind = match entry.kind {
        wal::EntryKind::Normal => EntryKind::Normal,
        wal::EntryKind::ConfChange => EntryKind::ConfChange,
        wal::EntryKind::ConfChangeV2 => EntryKind::ConfChangeV2,
    };
    Entry { term: Term(entry.term), index: Index(entry.index), kind, data: entry.data }
}

fn open_revlog(
    fs: &Arc<dyn Fs>,
    settings: &Settings,
    folders: &Folders,
    entropy: Entropy,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(revlog::Opened, Replayed), Error> {
    let limits = settings.limits.revlog.clone();
    replay_revlog(fs, &folders.rev, limits, settings.store(), entropy.log.max(1), progress)
}

/// Opens a revision log, and makes a store of what it holds.
pub(crate) fn replay_revlog(
    fs: &Arc<dyn Fs>,
    rev: &Path,
    limits: revlog::Limits,
    settings: store::Settings,
    log_id: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(revlog::Opened, Replayed), Error> {
    // The store reads through the log that is being opened: its source is filled in when there is one.
    let source = Arc::new(LogSource::default());
    let store = Store::new(source.clone(), settings);
    let mut replay = Replaying { replayed: Replayed { store, conf: ConfState::default(), source }, progress };
    let opened = revlog::open(fs.clone(), rev, limits, log_id, &mut replay)?;
    replay.replayed.store.check_restored().map_err(|error| {
        let rev = rev.display();
        Error::Contradiction(format!("{rev} contradicts itself: {error}"))
    })?;
    Ok((opened, replay.replayed))
}

/// Ends a store's restart, and drops what compactions have left in the log, while nobody reads. It is not left for later:
/// what is dead would count against the quota until then (rule 18). The source must be filled.
pub(crate) fn end_restore(store: &mut Store) -> Result<Option<FinishedCompaction>, Error> {
    let Some(unfinished) = store.end_restore() else { return Ok(None) };
    let mut compactor = store.compactor(COMPACTION_BATCH);
    let _is_first = compactor.push(unfinished);
    loop {
        if let CompactionStep::Finished(finished) = compactor.step()? {
            return Ok(Some(finished).filter(|finished| finished.dropped > 0));
        }
    }
}

/// What a revision log holds.
pub(crate) struct Replayed {
    pub(crate) store: Store,
    pub(crate) conf: ConfState,
    /// What the store reads through; to be filled.
    pub(crate) source: Arc<LogSource>,
}

struct Replaying<'a> {
    replayed: Replayed,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Replay for Replaying<'_> {
    fn record(
        &mut self,
        header: RecordHeader,
        at: revlog::Location,
        payload: &[u8],
    ) -> Result<(), ReplayError> {
        let (kind, revision) = parse(header).ok_or_else(|| format!("unknown record kind {}", header.kind))?;
        Ok(self.replayed.store.replay(kind, revision, Location(at.0), payload)?)
    }

    fn frame(&mut self, _: revlog::Applied, state: &[u8], full: bool) -> Result<(), ReplayError> {
        // A merged frame has none: a whole one comes after it.
        if state.is_empty() {
            return Ok(());
        }
        let state = FrameState::decode(state)?;
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        self.replayed.conf = ConfState { voters: ids(&state.voters), learners: ids(&state.learners) };
        if let Some(tables) = &state.tables {
            self.replayed.store.restore_tables(tables, full)?;
        }
        Ok(())
    }

    fn progress(&mut self, done: u64, total: u64) {
        (self.progress)(done, total);
    }
}
