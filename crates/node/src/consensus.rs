//! The raft thread's part: consensus, and what the member itself proposes. No disk, no store, and no work that
//! grows with an entry's effect (rule 1).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use disk::boltfile::schema::Version;
use disk::wal::SnapshotRecord;
use prost::Message as _;
use raft::{
    Body, ConfState, Effect, Entry, EntryKind, Event, Index, Message, NodeId, PersistSeq, Proposal, Raft,
    ReadRefusal, Refusal, Role, Snapshot, Term, Time,
};
use store::Alarms;
use wire::etcdserverpb::{AlarmRequest, AlarmType, CompactionRequest, InternalRaftRequest, RequestHeader};
use wire::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use wire::{ApiError, Status};

use crate::auto_compaction::AutoCompactor;
use crate::cluster_version::{Agreed, ClusterVersion};
use crate::fates::{Fates, LostProposals};
use crate::held::{Held, HeldRequests};
use crate::ids::LaneIds;
use crate::interchange::wal_conf;
use crate::lease::keeper::{Keeper, Work};
use crate::log_writer::{PersistRequest, Persisted};
use crate::quota::SpaceKeeper;
use crate::{Promotion, RequestId, Submission};

/// How many messages wait for the disk at most: beyond it the oldest is lost, as messages may be. A disk that works has far
/// fewer: what members send each other at once is bounded.
const UNSENT_MAX: usize = 4_096;

/// Something that happened outside.
#[derive(Debug)]
pub enum Input {
    /// Time passed; due at [`Consensus::deadline`].
    Tick,
    /// Requests of network threads, in order.
    Submissions(Vec<Submission>),
    /// The log writer synced.
    Persisted(Persisted),
    /// The applier finished a batch.
    Applied(Applied),
    /// Whether write-ahead log and revision log could allocate ahead (rule 7).
    Room(bool),
    /// The file of a snapshot is durable: the log is to name it.
    SnapshotSaved(SnapshotRecord),
    /// Other members sent these, in order. A [`raft::Body::Snapshot`] comes by itself, and only once all that it stands
    /// for is durable here (rule 17).
    Messages(Vec<Message>),
    /// A message to this member could not be sent.
    Unreachable(u64),
    /// What [`Outputs::snapshots_wanted`] has asked for is pinned and can be sent. If no snapshot to `to` is among what is
    /// to be sent after this very step, it is not wanted any more.
    SnapshotReady {
        /// Who is to get it.
        to: u64,
        /// What its message says.
        snapshot: Snapshot,
    },
    /// How the making or the sending of a snapshot ended.
    SnapshotReported {
        /// Who was to get it.
        to: u64,
        /// Which sending that was, as [`Message::sent_snapshot`] names it; `None`: none could be made.
        sent: Option<(Term, Index)>,
        /// Whether it has it.
        ok: bool,
    },
    /// The versions of other members' servers, as far as they are known: what the leader decides the cluster's by.
    Versions(BTreeMap<u64, Version>),
    /// The connections to the others are there: the first election may come sooner.
    Hurry,
    /// Whether all other members run this program, and so know that alarms may end by themselves.
    OthersAreOurs(bool),
    /// Something that is stored here cannot be read.
    DataLost,
    /// Let this member lead. Nothing tells but [`Outputs::leadership`].
    TransferLeader(u64),
}

/// What the applier reports of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last entry of the batch.
    pub index: u64,
    /// The membership, if the batch changed it.
    pub conf: Option<ConfState>,
    /// Ids of the batch's requests that this member itself proposed (its own lane).
    pub own: Vec<RequestId>,
    /// The cluster's version, and a downgrade that is under way, as of the end of the batch.
    pub agreed: Agreed,
    /// The store's revision at the end of the batch.
    pub revision: i64,
    /// The term of the batch's last entry.
    pub term: u64,
    /// The alarms, if the batch changed them.
    pub alarms: Option<Arc<Alarms>>,
    /// The revision of users and roles at the end of the batch while authentication is on, else 0.
    pub auth_revision: u64,
    /// Whether the batch added something, and the store takes more than its quota now.
    pub exceeds_quota: bool,
}

/// What is to be done. Filled by [`Consensus::step`], emptied by the shell.
#[derive(Debug, Default)]
pub struct Outputs {
    /// For the log writer, in order.
    pub persist: Vec<PersistRequest>,
    /// For the applier, in order.
    pub apply: Vec<Entry>,
    /// For the peers, each to be delivered at most once. What must be durable before is.
    pub send: Vec<Message>,
    /// Members that need a snapshot, made of what is applied by now: to be answered with [`Input::SnapshotReady`] or
    /// [`Input::SnapshotReported`].
    pub snapshots_wanted: Vec<u64>,
    /// Proposals that others have handed on and that were not taken: to be counted and logged.
    pub forwards_refused: Vec<ForwardRefused>,
    /// Proposals whose fate is unknown if they have no answer yet. To be told behind the answers of all that was handed
    /// out to apply before.
    pub lost: Option<LostProposals>,
    /// Ends of read-index rounds.
    pub reads: Vec<(RequestId, Result<u64, Status>)>,
    /// Proposals that were not taken.
    pub refused: Vec<(RequestId, Status)>,
    /// Who leads now, if that changed.
    pub leadership: Option<Leadership>,
    /// This member's own attributes, proposed in this run, are applied: clients may be served (rule 6).
    pub ready: bool,
    /// What became of compactions that nobody asked for; to be logged.
    pub auto_compaction: Vec<AutoCompactionEvent>,
    /// Alarms that this member asks for by itself; to be logged.
    pub alarms: Vec<AlarmRequest>,
    /// What is stored here cannot be read, and other members have it: this one must stop.
    pub must_stop: bool,
    /// A snapshot was received for nothing: a thread of long work is to call [`crate::SnapshotReceiver::discard`].
    pub discard_received: bool,
}

/// A step of a compaction that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompactionEvent {
    /// It is proposed at this revision.
    Started(i64),
    /// It is applied.
    Completed {
        /// At this revision.
        revision: i64,
        /// Since it was proposed.
        took_us: u64,
    },
    /// It was not taken, or its fate is unknown; it is tried again.
    Failed(i64),
}

/// Proposals of another member that this one, its leader, did not take. Nobody else hears of it, as in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardRefused {
    /// Who handed them on.
    pub from: u64,
    /// How many.
    pub count: usize,
    /// Why the first of them was not taken.
    pub reason: Refusal,
}

impl Outputs {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.persist.is_empty()
            && self.apply.is_empty()
            && self.send.is_empty()
            && self.snapshots_wanted.is_empty()
            && self.forwards_refused.is_empty()
            && self.lost.is_none()
            && self.reads.is_empty()
            && self.refused.is_empty()
            && self.leadership.is_none()
            && !self.ready
            && self.auto_compaction.is_empty()
            && self.alarms.is_empty()
            && !self.must_stop
            && !self.discard_received
    }
}

/// Term, leader and role, for Status and headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// The leader's id, 0 if unknown.
    pub leader: u64,
    /// Whether this member leads.
    pub is_leader: bool,
}

/// What this member says of itself in the log at each start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAttributes {
    /// Its id.
    pub member_id: u64,
    /// Its name.
    pub name: String,
    /// Its advertised client URLs.
    pub client_urls: Vec<String>,
}

/// Consensus and the member's own proposals, as one state machine.
#[derive(Debug)]
pub struct Consensus {
    raft: Raft,
    ids: LaneIds,
    attributes: OwnAttributes,
    /// The proposal of the attributes that is under way, none before the first and after the last; and when it counts as
    /// lost, since what is handed on to a leader may be.
    publishing: Option<(RequestId, Time)>,
    published: bool,
    publish_again_ms: u64,
    /// The proposal of the cluster version that is under way.
    deciding_version: Option<RequestId>,
    /// The end of a downgrade that is proposed.
    ending_downgrade: Option<RequestId>,
    cluster_version: ClusterVersion,
    /// The store's revision as far as this thread has heard.
    revision: i64,
    auto_compaction: AutoCompactor,
    /// The proposal of a compaction that is under way, its revision, and since when.
    compacting: Option<(RequestId, i64, Time)>,
    leases: Keeper,
    space: SpaceKeeper,
    others_are_ours: bool,
    leadership: Leadership,
    has_room: bool,
    /// Requests that wait for a leader.
    held: HeldRequests,
    fates: Fates,
    /// The last request to the log writer that raft asked for.
    persisting: PersistSeq,
    /// The last one that is durable.
    durable: PersistSeq,
    /// Messages that wait for a request to be durable, in its order.
    unsent: VecDeque<(PersistSeq, Message)>,
    effects: Vec<Effect>,
}

/// What consensus has to know of the state that the last run left.
#[derive(Debug)]
pub(crate) struct Past {
    pub cluster_version: ClusterVersion,
    pub held: HeldRequests,
    pub fates: Fates,
    pub publish_again_ms: u64,
    pub revision: i64,
    pub auto_compaction: AutoCompactor,
    pub leases: Keeper,
    pub space: SpaceKeeper,
}

impl Consensus {
    /// Joins a raft core, not stepped yet, and the generator of the member's own request ids.
    pub(crate) fn new(raft: Raft, ids: LaneIds, attributes: OwnAttributes, past: Past) -> Self {
        Consensus {
            raft,
            ids,
            attributes,
            publishing: None,
            published: false,
            publish_again_ms: past.publish_again_ms,
            deciding_version: None,
            ending_downgrade: None,
            cluster_version: past.cluster_version,
            revision: past.revision,
            auto_compaction: past.auto_compaction,
            compacting: None,
            leases: past.leases,
            space: past.space,
            others_are_ours: false,
            leadership: Leadership::default(),
            has_room: true,
            held: past.held,
            fates: past.fates,
            persisting: PersistSeq(0),
            durable: PersistSeq(0),
            unsent: VecDeque::new(),
            effects: Vec::new(),
        }
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn deadline(&self) -> Time {
        let publish = self.publishing.map_or(Time::NEVER, |(_, lost_at)| lost_at);
        // Nothing is proposed without a leader; that there is one is an event of its own.
        let space = if self.proposes_nothing() { Time::NEVER } else { self.space.deadline() };
        self.raft
            .deadline()
            .min(self.auto_compaction.deadline())
            .min(self.leases.deadline())
            .min(space)
            .min(self.held.deadline())
            .min(self.cluster_version.deadline())
            .min(publish)
    }

    /// How consensus stands.
    pub fn status(&self) -> raft::Status {
        self.raft.status()
    }

    /// On a leader, how each of the others stands; on others nothing.
    pub fn followers(&self) -> impl Iterator<Item = raft::Follower> + '_ {
        self.raft.followers()
    }

    /// Every entry up to here is committed and on this member's own disk, so no leader will ever replace it: what the
    /// revision log may follow to (rule 2). Never steps back. To be asked after each step, and told to the applier and
    /// the revision writer before the entries of that step.
    ///
    /// Consensus says this and not the log writer: what the writer has synced may be about to be replaced, and an index
    /// alone does not tell the new entry from the old one.
    pub fn durable_index(&self) -> u64 {
        let status = self.raft.status();
        status.durable.min(status.commit).0
    }

    /// Checks every invariant.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&self) {
        self.raft.check();
        self.leases.check();
        self.held.check();
        self.fates.check();
        assert!(self.unsent.iter().is_sorted_by_key(|(after, _)| *after), "messages out of order");
        assert!(self.unsent.iter().all(|(after, _)| *after > self.durable), "a message was not sent");
        assert!(!(self.published && self.publishing.is_some()), "published and publishing at once");
    }

    /// Takes in one input and adds to `out` what is to be done about it.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Outputs) {
        match input {
            Input::Tick => self.raft(now, Event::Tick),
            Input::Submissions(batch) => self.submissions(now, batch, out),
            Input::Persisted(Persisted { seq, term, last }) => {
                self.raft(now, Event::Persisted { seq, term, last });
                self.durable = self.durable.max(seq);
                self.send_durable(out);
            }
            Input::Applied(applied) => self.applied(now, applied, out),
            Input::Room(has_room) => self.has_room = has_room,
            Input::SnapshotSaved(record) => self.persist_snapshot(record, out),
            Input::Messages(messages) => {
                for message in messages {
                    let is_snapshot = matches!(message.body, Body::Snapshot { .. });
                    self.raft(now, Event::Receive(message));
                    if is_snapshot && !self.raft.status().restoring {
                        out.discard_received = true;
                    }
                }
            }
            Input::Unreachable(id) => self.raft(now, Event::Unreachable { id: NodeId(id) }),
            Input::SnapshotReady { to, snapshot } => {
                self.raft(now, Event::SnapshotReady { to: NodeId(to), snapshot });
            }
            Input::SnapshotReported { to, sent, ok } => {
                self.raft(now, Event::SnapshotReported { to: NodeId(to), sent, ok });
            }
            Input::Versions(versions) => self.cluster_version.heard(versions),
            Input::Hurry => self.raft(now, Event::Hurry),
            Input::OthersAreOurs(ours) => self.others_are_ours = ours,
            Input::DataLost => self.space.data_lost(),
            Input::TransferLeader(to) => self.raft(now, Event::TransferLeader { to: NodeId(to) }),
        }
        self.collect(now, out);
        self.release_held(now, out);
        self.propose_own(now, out);
        self.compact(now, out);
        self.keep_leases(now, out);
        self.keep_space(now, out);
    }

    fn raft(&mut self, now: Time, event: Event) {
        self.raft.step(now, event, &mut self.effects);
    }

    fn submissions(&mut self, now: Time, batch: Vec<Submission>, out: &mut Outputs) {
        let mut entries = Vec::with_capacity(batch.len());
        for submission in batch {
            match submission {
                Submission::Propose { id, grows: true, .. } if !self.has_room => {
                    out.refused.push((id, ApiError::NoSpace.into()));
                }
                Submission::Propose { id, data, .. } => {
                    entries.push(Proposal { token: id.0, kind: EntryKind::Normal, data });
                }
                Submission::Reconfigure { id, data, promotes } => {
                    match promotes.map_or(Ok(()), |promotion| self.may_promote(promotion)) {
                        Ok(()) => {
                            entries.push(Proposal { token: id.0, kind: EntryKind::ConfChange, data });
                        }
                        Err(refusal) => out.refused.push((id, refusal.into())),
                    }
                }
                Submission::ReadIndex { context } => {
                    // Where nothing waits, a read sees what its own thread proposed before it.
                    self.propose_or_hold(now, &mut entries, out);
                    self.read_or_hold(now, context.0);
                }
                Submission::GiveUp { id } => {
                    // It may have come with the same batch.
                    if !self.held.is_empty() || self.must_hold() {
                        self.propose_or_hold(now, &mut entries, out);
                        self.held.give_up(id.0);
                    }
                }
            }
        }
        self.propose_or_hold(now, &mut entries, out);
    }

    /// Only the leader knows whether a learner has caught up: nine tenths of the log will do (etcd: server.go,
    /// `isLearnerReady`).
    fn may_promote(&self, promotion: Promotion) -> Result<(), ApiError> {
        if !self.leadership.is_leader {
            return Err(ApiError::NotLeader);
        }
        let mut followers = self.raft.followers();
        let learner = followers.find(|follower| follower.id.0 == promotion.member);
        let own = self.raft.status().last.0;
        match learner {
            // That it has a vote is found out when the change is applied, as in etcd.
            None if promotion.member == self.attributes.member_id => promotion.may,
            None => Err(ApiError::MemberNotFound),
            Some(learner) if u128::from(learner.matched.0) * 10 < u128::from(own.0) * 9 => {
                Err(ApiError::LearnerNotReady)
            }
            Some(_) => promotion.may,
        }
    }

    /// Whether there is nobody to hand requests to.
    fn must_hold(&self) -> bool {
        let status = self.raft.status();
        status.leader.is_none() || status.transferee.is_some()
    }

    /// Hands requests of clients to the leader, or lets them wait for one.
    fn propose_or_hold(&mut self, now: Time, entries: &mut Vec<Proposal>, out: &mut Outputs) {
        if entries.is_empty() {
            return;
        }
        if !self.held.is_empty() || self.must_hold() {
            for proposal in entries.drain(..) {
                if let Err(Held::Propose(Proposal { token, .. })) =
                    self.held.push(now, Held::Propose(proposal))
                {
                    out.refused.push((RequestId(token), ApiError::TooManyRequests.into()));
                }
            }
            return;
        }
        // Who is alone hands nothing over.
        let conf = self.raft.conf();
        if conf.voters.len() + conf.learners.len() > 1 {
            entries.iter().for_each(|entry| self.fates.handed(RequestId(entry.token)));
        }
        self.propose(now, entries);
    }

    /// A read for which there is no room is asked for again. While leadership is handed over, requests wait and reads are
    /// served, as in etcd: nobody has been told yet of what waits.
    fn read_or_hold(&mut self, now: Time, context: u64) {
        let status = self.raft.status();
        if status.leader.is_none() || !self.held.is_empty() && status.transferee.is_none() {
            let _is_asked_again = self.held.push(now, Held::Read(context));
        } else {
            self.raft(now, Event::ReadIndex { context });
        }
    }

    /// Hands over what has waited for a leader, and refuses what has waited too long.
    fn release_held(&mut self, now: Time, out: &mut Outputs) {
        while let Some(expired) = self.held.pop_expired(now) {
            // A read is given up by who asked for it.
            if let Held::Propose(Proposal { token, .. }) = expired {
                out.refused.push((RequestId(token), ApiError::ContextDeadlineExceeded.into()));
            }
        }
        if self.held.is_empty() || self.must_hold() {
            return;
        }
        let mut entries = Vec::new();
        while let Some(held) = self.held.pop() {
            match held {
                Held::Propose(proposal) => {
                    self.fates.handed(RequestId(proposal.token));
                    entries.push(proposal);
                }
                Held::Read(context) => {
                    self.propose(now, &mut entries);
                    self.raft(now, Event::ReadIndex { context });
                }
            }
        }
        self.propose(now, &mut entries);
        self.collect(now, out);
    }

    fn propose(&mut self, now: Time, entries: &mut Vec<Proposal>) {
        if !entries.is_empty() {
            self.raft(now, Event::Propose { entries: std::mem::take(entries) });
        }
    }

    fn send_durable(&mut self, out: &mut Outputs) {
        while self.unsent.front().is_some_and(|(after, _)| *after <= self.durable) {
            out.send.extend(self.unsent.pop_front().map(|(_, message)| message));
        }
    }

    fn applied(&mut self, now: Time, applied: Applied, out: &mut Outputs) {
        if let Some(conf) = applied.conf {
            self.raft(now, Event::ConfApplied { conf });
        }
        self.raft(now, Event::Applied { index: raft::Index(applied.index) });
        self.cluster_version.applied(now, applied.agreed);
        out.lost = self.fates.applied(Term(applied.term)).or(out.lost.take());
        self.revision = applied.revision;
        self.leases.applied(&applied.own);
        self.leases.auth_revision(applied.auth_revision);
        if let Some(alarms) = &applied.alarms {
            self.space.alarms(alarms);
            self.leases.hold(alarms.has(AlarmType::Corrupt));
        }
        self.space.applied(now, applied.exceeds_quota, &applied.own);
        for id in applied.own {
            if self.publishing.take_if(|(publishing, _)| *publishing == id).is_some() {
                self.published = true;
                out.ready = true;
            }
            self.deciding_version.take_if(|deciding| *deciding == id);
            self.ending_downgrade.take_if(|ending| *ending == id);
            if let Some((_, revision, since)) = self.compacting.take_if(|(compacting, ..)| *compacting == id)
            {
                // Refused because it is compacted already is as good.
                self.auto_compaction.succeeded(now, revision);
                out.auto_compaction
                    .push(AutoCompactionEvent::Completed { revision, took_us: now.0 - since.0 });
            }
        }
    }

    /// A snapshot record counts only at or below the commit index that the log has (rule 3), and raft does not write that
    /// for its own sake: so it goes along. What is durable with this request is what raft's last one made durable.
    fn persist_snapshot(&mut self, record: SnapshotRecord, out: &mut Outputs) {
        let hard_state = self.raft.hard_state();
        assert!(record.index <= hard_state.commit.0, "a snapshot of what is not committed");
        out.persist.push(PersistRequest {
            seq: self.persisting,
            term: hard_state.term,
            last: self.raft.status().last,
            hard_state: Some(hard_state),
            entries: Vec::new(),
            snapshot: Some(record),
            restores: false,
        });
    }

    fn collect(&mut self, now: Time, out: &mut Outputs) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist { seq, term, last, hard_state, entries } => {
                    self.persisting = seq;
                    out.persist.push(PersistRequest {
                        seq,
                        term,
                        last,
                        hard_state,
                        entries,
                        snapshot: None,
                        restores: false,
                    });
                }
                Effect::Restore { seq, term, hard_state, snapshot } => {
                    self.persisting = seq;
                    out.lost = self.fates.all().or(out.lost.take());
                    out.persist.push(PersistRequest {
                        seq,
                        term,
                        last: (snapshot.index, snapshot.term),
                        hard_state: Some(hard_state),
                        entries: Vec::new(),
                        snapshot: Some(snapshot_record(&snapshot)),
                        restores: true,
                    });
                }
                Effect::Send { message, after: None } => out.send.push(message),
                Effect::Send { message, after: Some(after) } if after <= self.durable => {
                    out.send.push(message);
                }
                Effect::Send { message, after: Some(after) } => {
                    if self.unsent.len() >= UNSENT_MAX {
                        self.unsent.pop_front();
                    }
                    self.unsent.push_back((after, message));
                }
                Effect::Apply { entries } => out.apply.extend(entries),
                Effect::ReadReady { context, index } => {
                    if !self.leases.confirmed(RequestId(context), true) {
                        out.reads.push((RequestId(context), Ok(index.0)));
                    }
                }
                Effect::ReadRefused { context, reason } => {
                    if !self.leases.confirmed(RequestId(context), false) {
                        out.reads.push((RequestId(context), Err(read_refusal(reason).into())));
                    }
                }
                Effect::ProposalRefused { token, reason } => {
                    self.refused(now, RequestId(token), reason, out);
                }
                Effect::SnapshotWanted { to } => out.snapshots_wanted.push(to.0),
                Effect::ForwardRefused { from, count, reason } => {
                    out.forwards_refused.push(ForwardRefused { from: from.0, count, reason });
                }
                Effect::Leadership { term, leader, role } => {
                    if term.0 != self.leadership.term {
                        self.fates.term_ended(Term(self.leadership.term));
                    }
                    let was_leader = self.leadership.is_leader;
                    // What was proposed under another leader may never be committed; it is proposed anew.
                    self.publishing = None;
                    self.deciding_version = None;
                    self.ending_downgrade = None;
                    if let Some((_, revision, _)) = self.compacting.take() {
                        out.auto_compaction.push(AutoCompactionEvent::Failed(revision));
                    }
                    self.leadership = Leadership {
                        term: term.0,
                        leader: leader.map_or(0, |NodeId(id)| id),
                        is_leader: role == Role::Leader,
                    };
                    out.leadership = Some(self.leadership);
                    if was_leader != self.leadership.is_leader {
                        self.cluster_version.leads(now, self.leadership.is_leader);
                    }
                    self.space.leadership();
                    let waited = self.leases.leadership(self.leadership);
                    let moved = |id| (id, ApiError::NotPrimaryLessor.into());
                    out.refused.extend(waited.into_iter().map(moved));
                }
            }
        }
        self.effects = effects;
    }

    fn refused(&mut self, now: Time, id: RequestId, reason: Refusal, out: &mut Outputs) {
        if self.publishing.take_if(|(publishing, _)| *publishing == id).is_some() {
            // It comes again by itself.
        } else if self.deciding_version.take_if(|deciding| *deciding == id).is_some()
            || self.ending_downgrade.take_if(|ending| *ending == id).is_some()
        {
            // As above.
        } else if let Some((_, revision, _)) = self.compacting.take_if(|(compacting, ..)| *compacting == id) {
            out.auto_compaction.push(AutoCompactionEvent::Failed(revision));
        } else if self.leases.refused(now, id) || self.space.refused(id) {
            // It comes again by itself.
        } else {
            out.refused.push((id, refusal(reason)));
        }
    }

    /// At each start a member proposes its attributes, and the leader the cluster's version, if that is to be another.
    /// After that an idle log stays still.
    fn propose_own(&mut self, now: Time, out: &mut Outputs) {
        if self.leadership.leader == 0 {
            return;
        }
        let mut entries = Vec::new();
        self.publishing.take_if(|(_, lost_at)| *lost_at <= now);
        if !self.published && self.publishing.is_none() && !self.must_hold() {
            let attributes = Attributes {
                name: self.attributes.name.clone(),
                client_urls: self.attributes.client_urls.clone(),
            };
            let (id, data) = self.request(InternalRaftRequest {
                cluster_member_attr_set: Some(ClusterMemberAttrSetRequest {
                    member_id: self.attributes.member_id,
                    member_attributes: Some(attributes),
                }),
                ..Default::default()
            });
            self.publishing = Some((id, now.plus_ms(self.publish_again_ms)));
            entries.push(Proposal { token: id.0, kind: EntryKind::Normal, data });
        }
        if let Some(ver) = self.decided_version(now) {
            let (id, data) = self.request(InternalRaftRequest {
                cluster_version_set: Some(ClusterVersionSetRequest { ver }),
                ..Default::default()
            });
            self.deciding_version = Some(id);
            entries.push(Proposal { token: id.0, kind: EntryKind::Normal, data });
        }
        entries.extend(self.downgrade_end(now));
        if !entries.is_empty() {
            self.propose(now, &mut entries);
            self.collect(now, out);
        }
    }

    /// The cluster's version that is to be proposed. A leader looks even where one is under way, so that its deadline is
    /// behind it.
    fn decided_version(&mut self, now: Time) -> Option<String> {
        if !self.leadership.is_leader {
            return None;
        }
        let (own, conf) = (NodeId(self.attributes.member_id), self.raft.conf());
        let all = conf.voters.iter().chain(&conf.learners);
        self.cluster_version.decide(now, own, all).filter(|_| self.deciding_version.is_none())
    }

    /// The end of a downgrade, if all members run its version; likewise.
    fn downgrade_end(&mut self, now: Time) -> Option<Proposal> {
        if !self.leadership.is_leader {
            return None;
        }
        let (own, conf) = (NodeId(self.attributes.member_id), self.raft.conf());
        let all = conf.voters.iter().chain(&conf.learners);
        if !self.cluster_version.downgrade_is_over(now, own, all) || self.ending_downgrade.is_some() {
            return None;
        }
        let (id, data) = self.request(InternalRaftRequest {
            downgrade_info_set: Some(DowngradeInfoSetRequest { enabled: false, ver: String::new() }),
            ..Default::default()
        });
        self.ending_downgrade = Some(id);
        Some(Proposal { token: id.0, kind: EntryKind::Normal, data })
    }

    /// Compacts without being asked, if that is due and the last time is over.
    fn compact(&mut self, now: Time, out: &mut Outputs) {
        let leads = self.leadership.is_leader && self.compacting.is_none();
        let Some(revision) = self.auto_compaction.step(now, self.revision, leads) else { return };
        let compaction = Some(CompactionRequest { revision, physical: false });
        let (id, data) = self.request(InternalRaftRequest { compaction, ..Default::default() });
        self.compacting = Some((id, revision, now));
        out.auto_compaction.push(AutoCompactionEvent::Started(revision));
        self.propose(now, &mut vec![Proposal { token: id.0, kind: EntryKind::Normal, data }]);
        self.collect(now, out);
    }

    /// Revokes leases that have ended.
    fn keep_leases(&mut self, now: Time, out: &mut Outputs) {
        while self.leases.is_due(now)
            && let Some(work) = self.leases.next(now, &self.raft, &mut self.ids)
        {
            match work {
                Work::Confirm(context) => self.raft(now, Event::ReadIndex { context: context.0 }),
                Work::Propose(mut entries) => self.propose(now, &mut entries),
            }
            self.collect(now, out);
        }
    }

    fn proposes_nothing(&self) -> bool {
        self.leadership.leader == 0 || self.must_hold()
    }

    /// Raises or ends this member's alarm of space.
    fn keep_space(&mut self, now: Time, out: &mut Outputs) {
        if self.proposes_nothing() {
            return;
        }
        let me = NodeId(self.attributes.member_id);
        let conf = self.raft.conf();
        let is_alone = conf.voters.iter().chain(&conf.learners).all(|id| *id == me);
        if self.space.has_lost_data() && conf.voters.iter().any(|id| *id != me) {
            // CORRUPT would stop the whole cluster for what the others have.
            out.must_stop = true;
            return;
        }
        let may_clear = self.has_room && (is_alone || self.others_are_ours);
        let Some(alarm) = self.space.next(now, may_clear) else { return };
        out.alarms.push(alarm);
        let (id, data) = self.request(InternalRaftRequest { alarm: Some(alarm), ..Default::default() });
        self.space.proposed(now, id);
        self.propose(now, &mut vec![Proposal { token: id.0, kind: EntryKind::Normal, data }]);
        self.collect(now, out);
    }

    fn request(&mut self, request: InternalRaftRequest) -> (RequestId, Bytes) {
        let id = self.ids.next();
        let header = RequestHeader { id: id.0, ..Default::default() };
        let request = InternalRaftRequest { header: Some(header), ..request };
        (id, request.encode_to_vec().into())
    }
}

/// The record of a leader's snapshot.
fn snapshot_record(snapshot: &Snapshot) -> SnapshotRecord {
    let Snapshot { index, term, conf, .. } = snapshot;
    SnapshotRecord { index: index.0, term: term.0, conf_state: Some(wal_conf(conf)) }
}

fn refusal(reason: Refusal) -> Status {
    match reason {
        // Without a leader, and while another is to lead, they wait; this is what it came to just now.
        Refusal::NoLeader | Refusal::NotLeader => ApiError::NoLeader.into(),
        Refusal::TooMany => ApiError::TooManyRequests.into(),
        Refusal::ConfChangePending | Refusal::LeaderTransfer => ApiError::ProposalDropped.into(),
    }
}

fn read_refusal(reason: ReadRefusal) -> ApiError {
    match reason {
        ReadRefusal::NoLeader => ApiError::NoLeader,
        ReadRefusal::LeaderLost => ApiError::LeaderChanged,
        ReadRefusal::TooMany => ApiError::TooManyRequests,
    }
}
