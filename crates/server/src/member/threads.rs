//! The threads themselves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use disk::boltfile::schema::Version;
use disk::{revlog, wal};
use node::interchange::Cut;
use node::lease::SharedLessor;
use node::{
    Applied, Applier, AutoCompactionEvent, Batch, Completions, Consensus, ForwardRefused, Input, Leadership,
    LogWriter, LostProposals, Merger, Outputs, PersistRequest, Persisted, Pressure, RequestId, RequestIds,
    RevisionWriter, Rot, SnapshotOrder, SnapshotReceiver, SnapshotWriter, Submission, Written,
};
use raft::{Entry, Index, Message, NodeId, Snapshot, Term};
use store::{Alarms, Compaction, Compactor, LeaseChange, Ops};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use wire::ApiError;
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{AlarmRequest, AlarmType};

use super::compact::CompactThread;
use super::files::{FileMail, FileThread};
use super::host::Inbox;
use super::mailbox::{Receiver, Sender, holding_mailbox, mailbox};
use super::merge::{Budget, MergeMail, MergeThread};
use super::peers::Peers;
use super::slow::SlowApplies;
use super::snapshots::SnapshotSender;
use super::times::WalTimes;
use crate::auth::Access;
use crate::clock::Clock;
use crate::grpc::SharedStatus;
use crate::grpc::hashes::{CheckCounters, HashBudget};
use crate::grpc::snapshot::Cuts;
use crate::lane::{AppliedGate, MemberPort};
use crate::log;
use crate::metrics::Metrics;
use crate::peer::{Handle, PeerThread};
use crate::process::Events;

/// Submissions that may wait for the raft thread; beyond it callers get TooManyRequests.
const SUBMISSIONS_MAX: u64 = 20_000;
/// What was written to the revision log is synced within this time. Nobody waits for it, and until then a power cut
/// only makes the next start replay more of the write-ahead log; each sync competes with the log's own on one disk.
const REVLOG_SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// A snapshot waits for such a sync, and gets one sooner, but not more often than this: at full speed it comes due ten
/// times a second.
const SNAPSHOT_SYNC_INTERVAL: Duration = Duration::from_millis(500);
/// How soon a full disk is asked again whether there is room.
pub(super) const ROOM_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is said at most that proposals of others were not taken.
const FORWARDS_SAID_INTERVAL: Duration = Duration::from_secs(1);
/// How soon completions are offered again to a lane whose queue was full.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// For the raft thread.
pub(super) enum RaftMail {
    Submissions(Vec<Submission>),
    Persisted(Persisted),
    Applied(Applied),
    Room(Writer, bool),
    SnapshotSaved(wal::SnapshotRecord),
    DataLost(String),
    /// From one peer, in order; counted by the inbox.
    Messages(Vec<Message>),
    Unreachable(NodeId),
    /// What was asked for to send it to a member is pinned.
    SnapshotReady(NodeId, Box<(Snapshot, Cut)>),
    /// To whom, and which sending: its term and index.
    SnapshotReported(NodeId, (Term, Index), bool),
    Versions(BTreeMap<u64, Version>),
    TransferLeader(u64),
    Hurry,
    OthersAreOurs(bool),
}

/// Who says whether it has room.
#[derive(Clone, Copy)]
pub(super) enum Writer {
    Wal,
    Revlog,
}

pub(super) enum WalMail {
    Persist(Vec<PersistRequest>),
    Prepared(Result<wal::Prepared, wal::Error>),
}

pub(super) enum ApplyMail {
    Entries(Vec<Entry>),
    SnapshotTaken(u64),
    Cut(oneshot::Sender<Cut>),
    /// A cut for a member that lags behind.
    CutFor(NodeId),
    Lost(LostProposals),
}

enum RevisionMail {
    Frame(revlog::Frame),
    Snapshot(SnapshotOrder),
}

/// The parts that the threads own.
pub(super) struct Parts {
    pub consensus: Consensus,
    pub log_writer: LogWriter,
    pub applier: Applier,
    pub access: Arc<Access>,
    pub lessor: SharedLessor,
    pub revision_writer: RevisionWriter,
    pub snapshot_writer: SnapshotWriter,
    pub snapshot_receiver: SnapshotReceiver,
    /// The newest snapshot that the write-ahead log names.
    pub snapshot_index: u64,
    /// What the log says of a snapshot, beside its indexes.
    pub snapshot_count: u64,
    pub member_id: u64,
    pub compactor: Compactor,
    pub merger: Merger,
    pub rot: Rot,
    pub merges: (Sender<MergeMail>, Receiver<MergeMail>),
    pub compaction_finished: watch::Sender<i64>,
    pub compaction_sleep_interval: Duration,
    pub hash_budget: Arc<HashBudget>,
    pub check_counters: Arc<CheckCounters>,
    pub unwritten_bytes_max: u64,
    pub warning_apply_duration: Duration,
    pub inbox: Inbox,
    pub peers: Peers,
    pub heartbeat_interval: Duration,
    pub metrics: Arc<Metrics>,
}

/// The ways out towards network threads, and what all threads share.
#[derive(Clone)]
pub(super) struct Channels {
    pub completions: Vec<mpsc::Sender<Completions>>,
    pub gates: Vec<Arc<AppliedGate>>,
    pub status: Arc<SharedStatus>,
    pub leadership: watch::Sender<Leadership>,
    /// Whether this member's NOSPACE is on.
    pub no_space: watch::Sender<bool>,
    pub ids: RequestIds,
    pub clock: Clock,
    pub peers: Handle,
}

/// The running threads, in the order in which they have to end.
pub(super) struct Threads {
    raft: Sender<RaftMail>,
    apply: Sender<ApplyMail>,
    revisions: Sender<RevisionMail>,
    running: Vec<Running>,
}

/// One of them, and how its queue is closed.
struct Running {
    handle: JoinHandle<()>,
    close: Box<dyn FnOnce() + Send>,
}

impl Threads {
    pub(super) fn start(parts: Parts, channels: Channels, events: &Events) -> anyhow::Result<Self> {
        let (raft, raft_mail) = mailbox(SUBMISSIONS_MAX);
        let (wal, wal_mail) = mailbox::<WalMail>(u64::MAX);
        let (apply, apply_mail) = mailbox::<ApplyMail>(u64::MAX);
        let (revisions, revision_mail) = holding_mailbox::<RevisionMail>(parts.unwritten_bytes_max);
        let (files, file_mail) = mailbox::<FileMail>(u64::MAX);
        let (compactions, compaction_mail) = mailbox::<Compaction>(u64::MAX);
        let durable = Arc::new(AtomicU64::new(parts.consensus.durable_index()));
        let metrics = parts.metrics;

        let raft_thread = RaftThread {
            consensus: parts.consensus,
            mail: raft_mail,
            wal: wal.clone(),
            apply: apply.clone(),
            durable: durable.clone(),
            outbox: Outbox::new(&channels),
            channels: channels.clone(),
            events: events.clone(),
            room: [true; 2],
            lost: None,
            inbox: parts.inbox,
            member_id: parts.member_id,
            raft: raft.clone(),
            files: files.clone(),
            cuts: BTreeMap::new(),
            snapshots: SnapshotSender::new(channels.peers.clone(), raft.clone(), metrics.clone()),
            forwards: Forwards::default(),
            heartbeat_interval: parts.heartbeat_interval,
            metrics: metrics.clone(),
        };
        let mut log_writer = parts.log_writer;
        log_writer.watch(Box::new(WalTimes::new(metrics.clone())));
        let wal_thread = WalThread {
            writer: log_writer,
            mail: wal_mail,
            raft: raft.clone(),
            files: files.clone(),
            preparing: false,
            retry_at: None,
            had_room: true,
            events: events.clone(),
        };
        let mut applier = parts.applier;
        let slow = SlowApplies::new(parts.warning_apply_duration, files.clone(), metrics.clone());
        applier.watch(Box::new(slow));
        let apply_thread = ApplyThread {
            applier,
            lessor: parts.lessor,
            mail: apply_mail,
            raft: raft.clone(),
            revisions: revisions.clone(),
            compactions: compactions.clone(),
            durable: durable.clone(),
            channels: channels.clone(),
            peers: parts.peers,
            pressure: parts.merger.pressure(),
            access: parts.access,
            ops: Ops::default(),
            metrics: metrics.clone(),
        };
        let compact_thread = CompactThread {
            compactor: parts.compactor,
            mail: compaction_mail,
            finished: parts.compaction_finished,
            sleep_interval: parts.compaction_sleep_interval,
            budget: parts.hash_budget,
            counters: parts.check_counters,
            merges: parts.merges.0.clone(),
            metrics: metrics.clone(),
        };
        let (merges, merge_mail) = parts.merges;
        let merge_thread = MergeThread {
            merger: parts.merger,
            mail: merge_mail,
            status: channels.status.clone(),
            budget: Budget::new(),
            asked: None,
            metrics: metrics.clone(),
        };
        let revision_thread = RevisionThread {
            writer: parts.revision_writer,
            mail: revision_mail,
            raft: raft.clone(),
            files: files.clone(),
            durable,
            member_id: parts.member_id,
            snapshot_count: parts.snapshot_count,
            had_room: true,
            metrics: metrics.clone(),
        };
        let file_thread = FileThread {
            snapshots: parts.snapshot_writer,
            receiver: parts.snapshot_receiver,
            mail: file_mail,
            raft: raft.clone(),
            wal: wal.clone(),
            apply: apply.clone(),
            waiting: None,
            metrics,
        };
        files.send(FileMail::Purge(parts.snapshot_index));
        let lost = raft.clone();
        parts.rot.listen(move |place| lost.send(RaftMail::DataLost(place.to_owned())));
        let running = Vec::new();
        let mut threads =
            Threads { raft: raft.clone(), apply: apply.clone(), revisions: revisions.clone(), running };
        let close_raft = raft.clone();
        threads.spawn("raft", events, move || close_raft.close(), move || raft_thread.run())?;
        threads.spawn("wal", events, move || wal.close(), move || wal_thread.run())?;
        threads.spawn("apply", events, move || apply.close(), move || apply_thread.run())?;
        threads.spawn("revlog", events, move || revisions.close(), move || revision_thread.run())?;
        threads.spawn("compact", events, move || compactions.close(), move || compact_thread.run())?;
        threads.spawn("merge", events, move || merges.close(), move || merge_thread.run())?;
        threads.spawn("files", events, move || files.close(), move || file_thread.run())?;
        Ok(threads)
    }

    fn spawn(
        &mut self,
        name: &str,
        events: &Events,
        close: impl FnOnce() + Send + 'static,
        body: impl FnOnce() -> Result<(), node::Error> + Send + 'static,
    ) -> std::io::Result<()> {
        let events = events.clone();
        let handle = std::thread::Builder::new().name(name.into()).spawn(move || {
            if let Err(error) = body() {
                events.failed(&error.into());
            }
        })?;
        self.running.push(Running { handle, close: Box::new(close) });
        Ok(())
    }

    /// Where snapshots are had from.
    pub(super) fn cuts(&self) -> Cuts {
        let apply = self.apply.clone();
        Cuts::new(move |reply| apply.send(ApplyMail::Cut(reply)))
    }

    /// Tells the raft thread who is to lead.
    pub(super) fn transfer(&self) -> impl Fn(u64) + Send + Sync + 'static {
        let raft = self.raft.clone();
        move |to| raft.send(RaftMail::TransferLeader(to))
    }

    /// Where lanes put their submissions.
    pub(super) fn port(&self) -> Port {
        Port(self.raft.clone())
    }

    /// Ends one thread after the other, each once its queue is empty, so that what one produced the next still sees.
    /// What waits for room on a full disk is not waited for. The transport ends by `peers`.
    pub(super) fn stop(self, peers: PeerThread) {
        self.revisions.admit_all();
        for Running { handle, close } in self.running {
            close();
            // A panic has ended the process already.
            let _ = handle.join();
        }
        peers.stop();
    }

    /// The raft thread's queue.
    pub(super) fn raft(&self) -> Sender<RaftMail> {
        self.raft.clone()
    }
}

/// Where a lane's submissions go.
#[derive(Clone)]
pub(super) struct Port(Sender<RaftMail>);

impl MemberPort for Port {
    fn submit(&self, batch: Vec<Submission>) -> Result<(), Vec<Submission>> {
        let weight = batch.len() as u64;
        self.0.try_send(RaftMail::Submissions(batch), weight).map_err(|refused| match refused {
            RaftMail::Submissions(batch) => batch,
            _ => Vec::new(),
        })
    }
}

/// Completions for the lanes. The raft thread never waits: what a lane's queue does not take is kept and joined
/// with what comes after; its amount is bounded by the requests in flight.
struct Outbox {
    lanes: Vec<Option<Completions>>,
}

impl Outbox {
    fn new(channels: &Channels) -> Self {
        Outbox { lanes: channels.completions.iter().map(|_| None).collect() }
    }

    fn lane(&mut self, id: RequestId, channels: &Channels) -> Option<&mut Completions> {
        let lane = channels.ids.origin(id)?;
        Some(self.lanes.get_mut(lane)?.get_or_insert_default())
    }

    /// Offers everything; false if something is left.
    fn flush(&mut self, channels: &Channels) -> bool {
        let mut all = true;
        for (kept, lane) in self.lanes.iter_mut().zip(&channels.completions) {
            let Some(batch) = kept.take() else { continue };
            if let Err(TrySendError::Full(batch)) = lane.try_send(batch) {
                *kept = Some(batch);
                all = false;
            }
        }
        all
    }
}

struct RaftThread {
    consensus: Consensus,
    mail: Receiver<RaftMail>,
    wal: Sender<WalMail>,
    apply: Sender<ApplyMail>,
    /// [`Consensus::durable_index`], for the applier and the revision writer.
    durable: Arc<AtomicU64>,
    outbox: Outbox,
    channels: Channels,
    events: Events,
    /// Whether the WAL and the revision log have room.
    room: [bool; 2],
    /// What could not be read last.
    lost: Option<String>,
    /// Counts what waits of others' messages.
    inbox: Inbox,
    member_id: u64,
    /// Its own queue, for what could not be begun.
    raft: Sender<RaftMail>,
    files: Sender<FileMail>,
    /// Pinned in this step for members that lag behind.
    cuts: BTreeMap<NodeId, Cut>,
    snapshots: SnapshotSender,
    forwards: Forwards,
    /// Between two messages of a leader's to each of the others.
    heartbeat_interval: Duration,
    metrics: Arc<Metrics>,
}

impl RaftThread {
    fn run(mut self) -> Result<(), node::Error> {
        let clock = self.channels.clock;
        let mut mail = Vec::new();
        let mut out = Outputs::default();
        let mut deadline = clock.instant(self.consensus.deadline());
        while self.mail.receive(&mut mail, deadline) {
            let now = clock.now();
            self.take(&mut mail, now, &mut out);
            // What has arrived counts before the time that passed until it was read.
            let due = self.consensus.deadline();
            if due <= now {
                self.judge_lateness(now.0 - due.0);
                self.consensus.step(now, Input::Tick, &mut out);
            }
            let flushed = self.hand_out(&mut out);
            deadline = clock.instant(self.consensus.deadline());
            if !flushed {
                let retry = Instant::now() + RETRY_INTERVAL;
                deadline = Some(deadline.map_or(retry, |deadline| deadline.min(retry)));
            }
        }
        self.snapshots.stop();
        Ok(())
    }

    fn take(&mut self, mail: &mut Vec<RaftMail>, now: raft::Time, out: &mut Outputs) {
        // Submissions of all lanes become one batch, and so one write.
        let mut submissions = Vec::new();
        for item in mail.drain(..) {
            let input = match item {
                RaftMail::Submissions(batch) if submissions.is_empty() => {
                    submissions = batch;
                    continue;
                }
                RaftMail::Submissions(batch) => {
                    submissions.extend(batch);
                    continue;
                }
                RaftMail::Persisted(persisted) => Input::Persisted(persisted),
                RaftMail::Applied(applied) => {
                    if let Some(alarms) = applied.alarms.as_deref() {
                        describe_alarms(alarms);
                        let is_on = alarms.contains(AlarmType::Nospace, self.member_id);
                        self.channels.no_space.send_replace(is_on);
                    }
                    Input::Applied(applied)
                }
                RaftMail::SnapshotSaved(record) => Input::SnapshotSaved(record),
                RaftMail::DataLost(place) => {
                    log::error!("stored data cannot be read", "error" => place);
                    self.lost = Some(place);
                    Input::DataLost
                }
                RaftMail::Messages(messages) => {
                    self.inbox.taken(&messages);
                    Input::Messages(messages)
                }
                RaftMail::Unreachable(id) => Input::Unreachable(id.0),
                RaftMail::SnapshotReady(to, pinned) => {
                    let (snapshot, cut) = *pinned;
                    self.cuts.insert(to, cut);
                    Input::SnapshotReady { to: to.0, snapshot }
                }
                RaftMail::SnapshotReported(to, sent, ok) => {
                    Input::SnapshotReported { to: to.0, sent: Some(sent), ok }
                }
                RaftMail::Versions(versions) => Input::Versions(versions),
                RaftMail::TransferLeader(to) => Input::TransferLeader(to),
                RaftMail::Hurry => Input::Hurry,
                RaftMail::OthersAreOurs(ours) => Input::OthersAreOurs(ours),
                RaftMail::Room(writer, has_room) => {
                    self.room[writer as usize] = has_room;
                    let file = match writer {
                        Writer::Wal => "write-ahead log",
                        Writer::Revlog => "revision log",
                    };
                    if has_room {
                        log::info!("there is room again to allocate ahead", "for" => file);
                    } else {
                        log::warn!(
                            "disk is full: puts are refused, reads and deletes go on in the reserve until there is room",
                            "for" => file,
                        );
                    }
                    Input::Room(self.room == [true; 2])
                }
            };
            self.consensus.step(now, input, out);
        }
        if !submissions.is_empty() {
            self.consensus.step(now, Input::Submissions(submissions), out);
        }
    }

    /// A leader that comes to its turn so many microseconds too late may have sent its heartbeats too late.
    fn judge_lateness(&self, late_us: u64) {
        let is_late = u128::from(late_us) > self.heartbeat_interval.as_micros();
        if is_late && self.consensus.followers().next().is_some() {
            self.metrics.member.late_heartbeats.add(1);
        }
    }

    /// What others are to get leaves now, whatever it has to wait for is durable. A snapshot goes by itself, with what was
    /// pinned for it; what was pinned and is not wanted any more is let go.
    fn send(&mut self, out: &mut Outputs) {
        if !self.cuts.is_empty() {
            for message in out.send.extract_if(.., |message| message.sent_snapshot().is_some()) {
                let Some(sent) = message.sent_snapshot() else { continue };
                // Two may have been pinned for one member, of which consensus has taken the first.
                let is_of = |cut: &Cut| sent.1.0 == cut.applied().index;
                match self.cuts.remove(&message.to).filter(is_of) {
                    Some(cut) => self.snapshots.begin(message, sent, cut),
                    None => self.raft.send(RaftMail::SnapshotReported(message.to, sent, false)),
                }
            }
            self.cuts.clear();
        }
        if !out.send.is_empty() {
            self.channels.peers.send(std::mem::take(&mut out.send));
        }
    }

    fn hand_out(&mut self, out: &mut Outputs) -> bool {
        let status = &self.channels.status;
        if let Some(leadership) = out.leadership.take() {
            status.set_term(leadership.term);
            if leadership.leader != 0 && leadership.leader != status.leader() {
                status.set_elected(self.channels.clock.now().0);
            }
            self.metrics.member.led_by(leadership.leader, status.leader());
            status.set_leader(leadership.leader);
            self.snapshots.leads_in(leadership.is_leader.then_some(leadership.term));
            self.channels.leadership.send_replace(leadership);
            let leader = format!("{:x}", leadership.leader);
            log::info!("raft leadership changed", "raft-term" => leadership.term, "leader-member-id" => leader);
        }
        // Before the answers: a client that has one may ask for the index that it stands for.
        let commit = self.consensus.status().commit.0;
        if status.committed() != commit {
            status.set_committed(commit);
        }
        if !out.persist.is_empty() {
            self.wal.send(WalMail::Persist(std::mem::take(&mut out.persist)));
        }
        // Before the entries: their frame goes by it.
        self.durable.store(self.consensus.durable_index(), Ordering::Release);
        if !out.apply.is_empty() {
            self.apply.send(ApplyMail::Entries(std::mem::take(&mut out.apply)));
        }
        if let Some(lost) = out.lost.take() {
            self.apply.send(ApplyMail::Lost(lost));
        }
        self.send(out);
        for to in out.snapshots_wanted.drain(..) {
            self.apply.send(ApplyMail::CutFor(NodeId(to)));
        }
        for refused in out.forwards_refused.drain(..) {
            self.channels.peers.count_refused(NodeId(refused.from), refused.count as u64);
            self.forwards.refused(&refused);
        }
        for (context, result) in out.reads.drain(..) {
            if let Some(lane) = self.outbox.lane(context, &self.channels) {
                lane.reads.push((context, result));
            }
        }
        for (id, refusal) in out.refused.drain(..) {
            if let Some(lane) = self.outbox.lane(id, &self.channels) {
                lane.refused.push((id, refusal));
            }
        }
        if std::mem::take(&mut out.ready) {
            self.events.ready();
        }
        if std::mem::take(&mut out.discard_received) {
            self.files.send(FileMail::Discard);
        }
        out.auto_compaction.drain(..).for_each(describe);
        out.alarms.drain(..).for_each(describe_alarm);
        if std::mem::take(&mut out.must_stop) {
            let place = self.lost.take().unwrap_or_default();
            self.events
                .failed(&anyhow::anyhow!("stored data cannot be read, and other members have it: {place}"));
        }
        self.outbox.flush(&self.channels)
    }
}

/// The alarms have changed to these.
fn describe_alarms(alarms: &Alarms) {
    if alarms.is_empty() {
        return log::info!("no alarm is on any more");
    }
    let alarms: Vec<String> = alarms
        .iter()
        .map(|alarm| format!("{} of {:x}", alarm.alarm().as_str_name(), alarm.member_id))
        .collect();
    log::warn!("alarms are on", "alarms" => alarms);
}

/// An alarm that the member turns on or off by itself.
fn describe_alarm(alarm: AlarmRequest) {
    if alarm.alarm == AlarmType::Corrupt as i32 {
        log::error!("stored data cannot be read, and no other member has it; raising alarm", "alarm" => "CORRUPT");
    } else if alarm.action == AlarmAction::Activate as i32 {
        log::warn!("message exceeded backend quota; raising alarm");
    } else {
        log::info!("there was room below the quota for a minute; the alarm of this member ends", "alarm" => "NOSPACE");
    }
}

/// Proposals of other members that were not taken. Nobody else hears of them, so they are said; but not each one.
#[derive(Default)]
struct Forwards {
    refused: u64,
    said_at: Option<Instant>,
}

impl Forwards {
    fn refused(&mut self, refused: &ForwardRefused) {
        self.refused += refused.count as u64;
        let now = Instant::now();
        if self.said_at.is_some_and(|at| now < at + FORWARDS_SAID_INTERVAL) {
            return;
        }
        self.said_at = Some(now);
        log::warn!(
            "did not take proposals that another member has handed on",
            "from" => format!("{:x}", refused.from),
            "reason" => format!("{:?}", refused.reason),
            "refused-so-far" => self.refused,
        );
    }
}

fn describe(event: AutoCompactionEvent) {
    match event {
        AutoCompactionEvent::Started(revision) => {
            log::info!("starting auto compaction", "revision" => revision);
        }
        AutoCompactionEvent::Completed { revision, took_us } => {
            let took = format!("{:?}", Duration::from_micros(took_us));
            log::info!("completed auto compaction", "revision" => revision, "took" => took);
        }
        AutoCompactionEvent::Failed(revision) => {
            log::warn!("failed auto compaction; it is tried again", "revision" => revision);
        }
    }
}

struct WalThread {
    writer: LogWriter,
    mail: Receiver<WalMail>,
    raft: Sender<RaftMail>,
    files: Sender<FileMail>,
    preparing: bool,
    /// When the next segment may be asked for again, after the disk was full.
    retry_at: Option<Instant>,
    had_room: bool,
    events: Events,
}

impl WalThread {
    fn run(mut self) -> Result<(), node::Error> {
        let mut mail = Vec::new();
        let mut group: Vec<PersistRequest> = Vec::new();
        self.prepare();
        self.release();
        while self.mail.receive(&mut mail, self.retry_at) {
            self.prepare();
            for item in mail.drain(..) {
                match item {
                    WalMail::Persist(requests) => group.extend(requests),
                    WalMail::Prepared(outcome) => self.prepared(outcome)?,
                }
            }
            // What needs the segment that is being allocated, or that a full disk refuses, stays in the group.
            let Written { persisted, snapshot_index, restored } = self.writer.write(&mut group)?;
            if restored {
                // The log names a leader's snapshot. Nothing of this run is to be heard of any more: the member is opened
                // anew, and takes up from there.
                self.events.restored();
                return Ok(());
            }
            if let Some(persisted) = persisted {
                self.raft.send(RaftMail::Persisted(persisted));
            }
            if let Some(index) = snapshot_index {
                self.files.send(FileMail::Named(index));
                self.release();
            }
            self.prepare();
        }
        Ok(())
    }

    fn release(&mut self) {
        if let Some(release) = self.writer.release() {
            self.files.send(FileMail::Release(release));
        }
    }

    fn prepare(&mut self) {
        if !self.preparing
            && self.retry_at.is_none_or(|at| at <= Instant::now())
            && let Some(preparation) = self.writer.preparation()
        {
            self.preparing = true;
            self.retry_at = None;
            self.files.send(FileMail::Prepare(preparation));
        }
    }

    fn prepared(&mut self, outcome: Result<wal::Prepared, wal::Error>) -> Result<(), node::Error> {
        self.preparing = false;
        self.writer.prepared(outcome)?;
        let has_room = self.writer.has_room();
        self.retry_at = (!has_room).then(|| Instant::now() + ROOM_RETRY_INTERVAL);
        if std::mem::replace(&mut self.had_room, has_room) != has_room {
            self.raft.send(RaftMail::Room(Writer::Wal, has_room));
        }
        Ok(())
    }
}

struct ApplyThread {
    applier: Applier,
    mail: Receiver<ApplyMail>,
    lessor: SharedLessor,
    raft: Sender<RaftMail>,
    revisions: Sender<RevisionMail>,
    compactions: Sender<Compaction>,
    durable: Arc<AtomicU64>,
    channels: Channels,
    peers: Peers,
    pressure: Pressure,
    access: Arc<Access>,
    /// What the store had done when it was last counted.
    ops: Ops,
    metrics: Arc<Metrics>,
}

impl ApplyThread {
    fn run(mut self) -> Result<(), node::Error> {
        self.peers.follow(&self.applier.store().reader().membership());
        let mut mail = Vec::new();
        let mut queue = VecDeque::new();
        while self.mail.receive(&mut mail, None) {
            for item in mail.drain(..) {
                match item {
                    ApplyMail::Entries(entries) => queue.extend(entries),
                    ApplyMail::SnapshotTaken(index) => {
                        let next = self.applier.snapshot_taken(index);
                        next.into_iter().for_each(|next| self.revisions.send(RevisionMail::Snapshot(next)));
                    }
                    // Between two batches; whoever asked may be gone.
                    ApplyMail::Cut(reply) => drop(reply.send(self.applier.cut())),
                    ApplyMail::CutFor(to) => {
                        let cut = self.applier.cut();
                        self.raft.send(RaftMail::SnapshotReady(to, Box::new((cut.message(), cut))));
                    }
                    // Behind the answers to what was handed out before.
                    ApplyMail::Lost(proposals) => {
                        self.apply(&mut queue)?;
                        self.tell_lost(&proposals);
                    }
                }
            }
            self.apply(&mut queue)?;
        }
        Ok(())
    }

    fn apply(&mut self, queue: &mut VecDeque<Entry>) -> Result<(), node::Error> {
        while let Some(batch) = self.applier.apply(queue, self.durable.load(Ordering::Acquire))? {
            self.hand_out(batch);
        }
        Ok(())
    }

    fn hand_out(&mut self, batch: Batch) {
        let Batch { frame, report, mut answers, compactions, snapshot, leases, expired, membership, auth } =
            batch;
        let applied = report.index;
        self.count(&leases, expired);
        // Before anybody can know of it: who has a token may show it at once.
        self.access.applied(&auth);
        // Before anybody can know of it: who knows of a lease may renew it.
        let gone = self.lessor.lock().applied(self.channels.clock.now(), report.term, &leases);
        answers.extend(gone.into_iter().map(|id| (id, Err(ApiError::LeaseNotFound.into()))));
        // Before consensus sends them anything.
        membership.iter().for_each(|membership| self.peers.follow(membership));
        self.channels.status.set_applied(applied);
        let bytes = frame.len();
        self.raft.send(RaftMail::Applied(report));
        self.answer(applied, answers);
        compactions.into_iter().for_each(|compaction| self.compactions.send(compaction));
        // Here apply waits if the revision log's file cannot keep up; the answers have left.
        self.revisions.send_waiting(RevisionMail::Frame(frame), bytes);
        snapshot.into_iter().for_each(|snapshot| self.revisions.send(RevisionMail::Snapshot(snapshot)));
        // And here if merging cannot: what is added then is little enough for it to catch up (rule 18).
        match self.pressure.brake_us(bytes) {
            0 => {}
            wait_us => std::thread::sleep(Duration::from_micros(wait_us)),
        }
    }

    /// Counts what a batch has done, before anybody has an answer.
    fn count(&mut self, leases: &[LeaseChange], expired: usize) {
        let counts = &self.metrics.member;
        let ops = self.applier.store().ops();
        counts.ops.add(std::mem::replace(&mut self.ops, ops), ops);
        for change in leases {
            match change {
                LeaseChange::Granted { ttl_s, .. } => {
                    counts.leases_granted.add(1);
                    counts.lease_ttls.observe(u64::try_from(*ttl_s).unwrap_or(0));
                }
                LeaseChange::Revoked { .. } => counts.leases_revoked.add(1),
                LeaseChange::Checkpointed { .. } => {}
            }
        }
        counts.leases_expired.add_alone(expired as u64);
    }

    fn tell_lost(&self, proposals: &LostProposals) {
        for (lane, completions) in self.channels.completions.iter().enumerate() {
            if let Some(last) = proposals.last(lane) {
                let applied_index = self.applier.applied_index();
                let batch = Completions { applied_index, lost_upto: Some(last), ..Completions::default() };
                let _ = completions.blocking_send(batch);
            }
        }
    }

    fn answer(&mut self, applied: u64, answers: Vec<(RequestId, Result<store::Answer, wire::Status>)>) {
        let lanes = self.channels.completions.len();
        let mut batches: Vec<Completions> = Vec::with_capacity(lanes);
        batches.resize_with(lanes, Completions::default);
        for (id, result) in answers {
            if let Some(lane) = self.channels.ids.origin(id)
                && let Some(batch) = batches.get_mut(lane)
            {
                batch.answers.push((id, result));
            }
        }
        for (lane, mut batch) in batches.into_iter().enumerate() {
            // Any message says how far apply is and that there may be events, so the gate is taken in any case.
            let gate = &self.channels.gates[lane];
            let is_awaited = [gate.take(applied), gate.take_watch()].contains(&true);
            if !is_awaited && batch.answers.is_empty() {
                continue;
            }
            batch.applied_index = applied;
            // A lane that is gone has nobody left who waits.
            let _ = self.channels.completions[lane].blocking_send(batch);
        }
    }
}

struct RevisionThread {
    writer: RevisionWriter,
    mail: Receiver<RevisionMail>,
    raft: Sender<RaftMail>,
    files: Sender<FileMail>,
    durable: Arc<AtomicU64>,
    member_id: u64,
    snapshot_count: u64,
    had_room: bool,
    metrics: Arc<Metrics>,
}

impl RevisionThread {
    fn run(mut self) -> Result<(), node::Error> {
        let mut mail = Vec::new();
        let mut sync_at: Option<Instant> = None;
        let mut synced_at: Option<Instant> = None;
        while self.mail.receive(&mut mail, sync_at) {
            for item in mail.drain(..) {
                match item {
                    RevisionMail::Frame(frame) => self.writer.offer(frame),
                    RevisionMail::Snapshot(order) => self.order(order),
                }
            }
            self.writer.wal_durable(self.durable.load(Ordering::Acquire));
            let now = Instant::now();
            if sync_at.is_some_and(|at| at <= now) {
                let is_commit = self.writer.needs_sync();
                self.writer.sync()?;
                if is_commit {
                    self.metrics.member.revlog_syncs.observe_time(now.elapsed());
                }
                (sync_at, synced_at) = (None, Some(now));
            }
            let begun = Instant::now();
            let written = self.writer.write()?;
            if written > 0 {
                self.metrics.member.revlog_writes.observe_time(begun.elapsed());
            }
            self.mail.release(written);
            if let Some(snapshot) = self.writer.take_snapshot() {
                self.files.send(FileMail::Save(snapshot));
            }
            self.report_room();
            if sync_at.is_none() && (self.writer.needs_sync() || self.writer.has_waiting()) {
                sync_at = Some(now + REVLOG_SYNC_INTERVAL);
            }
            if self.writer.snapshot_wants_sync() {
                let soon = synced_at.map_or(now, |at| now.max(at + SNAPSHOT_SYNC_INTERVAL));
                sync_at = Some(sync_at.map_or(soon, |at| at.min(soon)));
            }
            if sync_at.is_none() && !self.had_room {
                sync_at = Some(now + ROOM_RETRY_INTERVAL);
            }
        }
        self.writer.sync()?;
        Ok(())
    }

    /// The line is written here, so that neither apply nor a group commit waits for stderr.
    fn order(&mut self, order: SnapshotOrder) {
        log::info!(
            "triggering snapshot",
            "local-member-id" => format!("{:x}", self.member_id),
            "local-member-applied-index" => order.index,
            "local-member-snapshot-index" => order.previous_index,
            "local-member-snapshot-count" => self.snapshot_count,
            "snapshot-forced" => order.is_forced,
        );
        self.writer.order(order);
    }

    fn report_room(&mut self) {
        let has_room = self.writer.has_room();
        if std::mem::replace(&mut self.had_room, has_room) != has_room {
            self.raft.send(RaftMail::Room(Writer::Revlog, has_room));
        }
    }
}
