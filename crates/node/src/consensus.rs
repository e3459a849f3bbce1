//! The raft thread's part: consensus, and what the member itself proposes. No disk, no store, and no work that
//! grows with an entry's effect (rule 1).

use bytes::Bytes;
use disk::wal::SnapshotRecord;
use prost::Message as _;
use raft::{
    ConfState, Effect, Entry, EntryKind, Event, NodeId, PersistSeq, Proposal, Raft, ReadRefusal, Refusal,
    Role, Time,
};
use wire::etcdserverpb::{CompactionRequest, InternalRaftRequest, RequestHeader};
use wire::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};
use wire::{ApiError, Status};

use crate::auto_compaction::AutoCompactor;
use crate::ids::LaneIds;
use crate::lease::keeper::{Keeper, Work};
use crate::log_writer::{PersistRequest, Persisted};
use crate::{RequestId, Submission};

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
    /// Whether a cluster version is set, as of the end of the batch.
    pub has_cluster_version: bool,
    /// The store's revision at the end of the batch.
    pub revision: i64,
    /// The term of the batch's last entry.
    pub term: u64,
}

/// What is to be done. Filled by [`Consensus::step`], emptied by the shell.
#[derive(Debug, Default)]
pub struct Outputs {
    /// For the log writer, in order.
    pub persist: Vec<PersistRequest>,
    /// For the applier, in order.
    pub apply: Vec<Entry>,
    /// For the peers: a message, and what must be durable before it leaves.
    pub send: Vec<(raft::Message, Option<raft::PersistSeq>)>,
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

impl Outputs {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.persist.is_empty()
            && self.apply.is_empty()
            && self.send.is_empty()
            && self.reads.is_empty()
            && self.refused.is_empty()
            && self.leadership.is_none()
            && !self.ready
            && self.auto_compaction.is_empty()
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
    /// The proposal of the attributes that is under way; none before the first and after the last.
    publishing: Option<RequestId>,
    published: bool,
    /// The proposal of the cluster version that is under way.
    deciding_version: Option<RequestId>,
    has_cluster_version: bool,
    /// The store's revision as far as this thread has heard.
    revision: i64,
    auto_compaction: AutoCompactor,
    /// The proposal of a compaction that is under way, its revision, and since when.
    compacting: Option<(RequestId, i64, Time)>,
    leases: Keeper,
    leadership: Leadership,
    has_room: bool,
    /// The last request to the log writer that raft asked for.
    persisting: PersistSeq,
    effects: Vec<Effect>,
}

/// What consensus has to know of the state that the last run left.
#[derive(Debug)]
pub(crate) struct Past {
    pub has_cluster_version: bool,
    pub revision: i64,
    pub auto_compaction: AutoCompactor,
    pub leases: Keeper,
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
            deciding_version: None,
            has_cluster_version: past.has_cluster_version,
            revision: past.revision,
            auto_compaction: past.auto_compaction,
            compacting: None,
            leases: past.leases,
            leadership: Leadership::default(),
            has_room: true,
            persisting: PersistSeq(0),
            effects: Vec::new(),
        }
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn deadline(&self) -> Time {
        self.raft.deadline().min(self.auto_compaction.deadline()).min(self.leases.deadline())
    }

    /// How consensus stands.
    pub fn status(&self) -> raft::Status {
        self.raft.status()
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
        assert!(!(self.published && self.publishing.is_some()), "published and publishing at once");
    }

    /// Takes in one input and adds to `out` what is to be done about it.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Outputs) {
        match input {
            Input::Tick => self.raft(now, Event::Tick),
            Input::Submissions(batch) => self.submissions(now, batch, out),
            Input::Persisted(Persisted { seq, term, last }) => {
                self.raft(now, Event::Persisted { seq, term, last });
            }
            Input::Applied(applied) => self.applied(now, applied, out),
            Input::Room(has_room) => self.has_room = has_room,
            Input::SnapshotSaved(record) => self.persist_snapshot(record, out),
        }
        self.collect(now, out);
        self.propose_own(now, out);
        self.compact(now, out);
        self.keep_leases(now, out);
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
                Submission::ReadIndex { context } => {
                    // A read must see what its own thread proposed before it, so order is kept.
                    self.propose(now, &mut entries);
                    self.raft(now, Event::ReadIndex { context: context.0 });
                }
            }
        }
        self.propose(now, &mut entries);
    }

    fn propose(&mut self, now: Time, entries: &mut Vec<Proposal>) {
        if !entries.is_empty() {
            self.raft(now, Event::Propose { entries: std::mem::take(entries) });
        }
    }

    fn applied(&mut self, now: Time, applied: Applied, out: &mut Outputs) {
        if let Some(conf) = applied.conf {
            self.raft(now, Event::ConfApplied { conf });
        }
        self.raft(now, Event::Applied { index: raft::Index(applied.index) });
        self.has_cluster_version = applied.has_cluster_version;
        self.revision = applied.revision;
        self.leases.applied(&applied.own);
        for id in applied.own {
            if self.publishing == Some(id) {
                self.publishing = None;
                self.published = true;
                out.ready = true;
            }
            if self.deciding_version == Some(id) {
                self.deciding_version = None;
            }
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
        });
    }

    fn collect(&mut self, now: Time, out: &mut Outputs) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Persist { seq, term, last, hard_state, entries } => {
                    self.persisting = seq;
                    let snapshot = None;
                    out.persist.push(PersistRequest { seq, term, last, hard_state, entries, snapshot });
                }
                Effect::Send { message, after } => out.send.push((message, after)),
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
                // A member without others sends no snapshots, gets none, and nobody hands anything on to it.
                Effect::SnapshotWanted { .. } | Effect::Restore { .. } | Effect::ForwardRefused { .. } => {
                    unreachable!("members that are alone hear nobody");
                }
                Effect::Leadership { term, leader, role } => {
                    // What was proposed under another leader may never be committed; it is proposed anew.
                    self.publishing = None;
                    self.deciding_version = None;
                    if let Some((_, revision, _)) = self.compacting.take() {
                        out.auto_compaction.push(AutoCompactionEvent::Failed(revision));
                    }
                    self.leadership = Leadership {
                        term: term.0,
                        leader: leader.map_or(0, |NodeId(id)| id),
                        is_leader: role == Role::Leader,
                    };
                    out.leadership = Some(self.leadership);
                    let waited = self.leases.leadership(self.leadership);
                    let moved = |id| (id, ApiError::NotPrimaryLessor.into());
                    out.refused.extend(waited.into_iter().map(moved));
                }
            }
        }
        self.effects = effects;
    }

    fn refused(&mut self, now: Time, id: RequestId, reason: Refusal, out: &mut Outputs) {
        if self.publishing == Some(id) {
            self.publishing = None;
        } else if self.deciding_version == Some(id) {
            self.deciding_version = None;
        } else if let Some((_, revision, _)) = self.compacting.take_if(|(compacting, ..)| *compacting == id) {
            out.auto_compaction.push(AutoCompactionEvent::Failed(revision));
        } else if self.leases.refused(now, id) {
            // It comes again by itself.
        } else {
            out.refused.push((id, refusal(reason)));
        }
    }

    /// At each start a member proposes its attributes, and the leader of a new cluster its version. After that
    /// an idle log stays still.
    fn propose_own(&mut self, now: Time, out: &mut Outputs) {
        if self.leadership.leader == 0 {
            return;
        }
        let mut entries = Vec::new();
        if !self.published && self.publishing.is_none() {
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
            self.publishing = Some(id);
            entries.push(Proposal { token: id.0, kind: EntryKind::Normal, data });
        }
        if self.leadership.is_leader && !self.has_cluster_version && self.deciding_version.is_none() {
            let (id, data) = self.request(InternalRaftRequest {
                cluster_version_set: Some(ClusterVersionSetRequest {
                    ver: wire::version::CLUSTER.to_owned(),
                }),
                ..Default::default()
            });
            self.deciding_version = Some(id);
            entries.push(Proposal { token: id.0, kind: EntryKind::Normal, data });
        }
        if !entries.is_empty() {
            self.propose(now, &mut entries);
            self.collect(now, out);
        }
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

    fn request(&mut self, request: InternalRaftRequest) -> (RequestId, Bytes) {
        let id = self.ids.next();
        let header = RequestHeader { id: id.0, ..Default::default() };
        let request = InternalRaftRequest { header: Some(header), ..request };
        (id, request.encode_to_vec().into())
    }
}

fn refusal(reason: Refusal) -> Status {
    match reason {
        // etcd lets such a proposal wait for a leader until its own timeout; it is not in any log (rule 15).
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
