//! One member's consensus: its state, the one entry into it, and what every step ends with. Elections are in
//! `election.rs`, the log's way to the followers in `replication.rs`, snapshots in `snapshot.rs`, who takes part in
//! `membership.rs`, handing leadership over in `transfer.rs`, reads in `read_index.rs`.

use std::collections::BTreeMap;

use crate::election::Campaign;
use crate::log::Log;
use crate::progress::{FollowerState, Progress};
use crate::random::Random;
use crate::read::Reads;
use crate::transfer::{Silence, Standstill, Transfer};
use crate::{
    Body, ConfState, Config, Effect, Entry, Error, Event, HardState, Index, Limits, Message, NodeId,
    PersistSeq, Position, ReadRefusal, Restored, Role, Snapshot, Term, Time,
};

/// One member's consensus. See the crate's documentation for the contract.
#[derive(Debug)]
pub struct Raft {
    pub(crate) id: NodeId,
    pub(crate) limits: Limits,
    pub(crate) election_timeout_ms: u64,
    pub(crate) heartbeat_interval_ms: u64,
    pub(crate) pre_vote: bool,
    pub(crate) check_quorum: bool,
    pub(crate) random: Random,
    pub(crate) now: Time,

    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) role: Role,
    pub(crate) leader: Option<NodeId>,
    pub(crate) log: Log,
    pub(crate) conf: ConfState,
    /// All members but this one, ascending by id. Meaningful on a leader only.
    pub(crate) peers: Vec<Progress>,

    /// A candidate's answers, or those to its question before, its own among them once that is durable.
    pub(crate) votes: BTreeMap<NodeId, bool>,
    /// What must be durable before the candidate's own answer counts, and before the others are asked.
    pub(crate) own_vote: Option<PersistSeq>,
    /// When a follower or candidate stands for election.
    pub(crate) election_at: Time,
    /// When the leader was last heard, on a follower.
    pub(crate) heard_at: Time,
    /// When a leader reports to its followers.
    pub(crate) heartbeat_at: Time,
    /// When a leader asks itself whether a quorum still hears it.
    pub(crate) quorum_check_at: Time,
    /// A change of membership may be in the log up to here.
    pub(crate) pending_conf: Index,
    /// On a leader, to whom leadership is being handed.
    pub(crate) transfer: Option<Transfer>,
    pub(crate) reads: Reads,
    /// What voters have reached, to be sorted; kept for its memory.
    pub(crate) reached: Vec<u64>,
    /// Taken from the leader in this step.
    pub(crate) restored: Option<Snapshot>,

    /// The number of the last `Persist` or `Restore`.
    pub(crate) last_seq: PersistSeq,
    /// Everything up to this one is durable.
    pub(crate) durable_seq: PersistSeq,
    /// Since when the disk has not answered.
    pub(crate) silence: Silence,
    /// Since when a leader's state machine has done nothing.
    pub(crate) standstill: Standstill,
    /// The last answer to an append that waits for the disk: to whom, in which term, of what, where not, and until when.
    held_answer: (NodeId, Term, Index, Option<Position>, PersistSeq),
    /// What the last `Persist` with a state said.
    written: HardState,
    /// What the last `Leadership` said.
    announced: (Term, Option<NodeId>, Role),
    started: bool,
    rejected_messages: u64,
    pub(crate) refused_forwards: u64,

    /// The effects of this step: those that wait for nothing,
    pub(crate) out: Vec<Effect>,
    /// and the messages that wait for all that is to be durable.
    pub(crate) out_durable: Vec<Message>,
}

/// How a member stands, for `Status` calls, metrics and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub id: NodeId,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// Who leads in that term, as far as known.
    pub leader: Option<NodeId>,
    /// What it does.
    pub role: Role,
    /// Every entry up to here is committed.
    pub commit: Index,
    /// Every entry up to here is reported applied.
    pub applied: Index,
    /// The last entry of the log.
    pub last: Position,
    /// Every entry up to here is on this member's disk.
    pub durable: Index,
    /// The first entry that is still in memory, or the next one to come.
    pub first: Index,
    /// Entries not yet both durable and applied; bounded by [`Limits::uncommitted_entries_max`].
    pub waiting_entries: usize,
    /// Their size; bounded by [`Limits::uncommitted_bytes_max`].
    pub waiting_bytes: usize,
    /// Reads that wait for their index; bounded by [`Limits::reads_max`].
    pub reads: usize,
    /// To whom this leader is handing leadership over.
    pub transferee: Option<NodeId>,
    /// Whether a snapshot of the leader is being taken over: disk or state machine have not reported it yet.
    pub restoring: bool,
    /// Messages dropped since the start because no correct member could have sent them.
    pub rejected_messages: u64,
    /// Requests that others handed on and that were not put into the log, since the start
    /// ([`Effect::ForwardRefused`]).
    pub refused_forwards: u64,
}

/// How one follower stands, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    /// The follower.
    pub id: NodeId,
    /// Its disk has the leader's log up to here.
    pub matched: Index,
    /// What it is sent next.
    pub next: Index,
    /// How it is spoken to.
    pub state: FollowerState,
    /// Whether it was heard since the last check of the quorum.
    pub active: bool,
    /// Whether it has no vote.
    pub learner: bool,
    /// Whether it gets no entries until it answers something, or a snapshot's sending ends.
    pub paused: bool,
    /// Appends with entries on their way to it; bounded by [`Limits::inflight_messages_max`].
    pub inflight_messages: usize,
    /// The size of those entries; below [`Limits::inflight_bytes_max`] before the last append.
    pub inflight_bytes: usize,
    /// The index of the snapshot on its way to it.
    pub snapshot: Option<Index>,
}

impl Raft {
    /// A member that starts anew, or from what an earlier run left behind. It is a follower; its first step applies
    /// what is known to be committed, and a sole voter stands for election there.
    ///
    /// # Errors
    /// If settings or the restored state make no sense; nothing is changed then.
    pub fn new(config: Config, restored: Restored, now: Time) -> Result<Self, Error> {
        config.check()?;
        restored.check()?;
        let Restored { hard_state, conf, offset, entries, applied } = restored;
        let log = Log::new(offset, entries, hard_state.commit.max(applied), applied);
        // A crash may keep a new term's entries and lose the state written behind them; no vote was given then.
        let term = hard_state.term.max(log.last().1);
        let vote = hard_state.vote.filter(|_| term == hard_state.term);
        let mut raft = Self {
            id: config.id,
            limits: config.limits,
            election_timeout_ms: config.election_timeout_ms,
            heartbeat_interval_ms: config.heartbeat_interval_ms,
            pre_vote: config.pre_vote,
            check_quorum: config.check_quorum,
            random: Random::new(config.seed),
            now,
            term,
            vote,
            role: Role::Follower,
            leader: None,
            log,
            conf: ConfState::default(),
            peers: Vec::new(),
            votes: BTreeMap::new(),
            own_vote: None,
            election_at: Time::NEVER,
            heard_at: now,
            heartbeat_at: Time::NEVER,
            quorum_check_at: Time::NEVER,
            pending_conf: Index::ZERO,
            transfer: None,
            reads: Reads::default(),
            reached: Vec::new(),
            restored: None,
            last_seq: PersistSeq(0),
            durable_seq: PersistSeq(0),
            silence: Silence::new(now, Index::ZERO),
            standstill: Standstill::new(now, Index::ZERO),
            held_answer: (NodeId(0), Term(0), Index::ZERO, None, PersistSeq(0)),
            written: hard_state,
            announced: (term, None, Role::Follower),
            started: false,
            rejected_messages: 0,
            refused_forwards: 0,
            out: Vec::new(),
            out_durable: Vec::new(),
        };
        raft.set_conf(conf);
        raft.rearm_election();
        Ok(raft)
    }

    /// Takes in one event at time `now`, and appends to `effects` what is to be done about it.
    ///
    /// # Panics
    /// On a local contract that is broken: more reported applied or durable than was handed out, an invalid
    /// `ConfApplied`, or a snapshot of what is not applied. Never because of a message.
    pub fn step(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        self.started = true;
        match event {
            Event::Tick => self.tick(),
            Event::Receive(message) => self.receive(message),
            Event::Propose { entries } => self.propose(entries),
            Event::ReadIndex { context } => self.read_index(context),
            Event::Persisted { seq, term, last } => self.persisted(seq, term, last),
            Event::Applied { index } => self.log.applied_to(index),
            Event::ConfApplied { conf } => self.conf_applied(conf),
            Event::Campaign => self.stand(Campaign::Timeout),
            Event::Hurry => self.hurry(),
            Event::TransferLeader { to } => self.transfer_leader(to),
            Event::Unreachable { id } => self.unreachable(id),
            Event::SnapshotReady { to, snapshot } => self.snapshot_ready(to, snapshot),
            Event::SnapshotReported { to, sent, ok } => self.snapshot_reported(to, sent, ok),
            Event::ForgetLeader => self.forget_leader(),
        }
        if self.role == Role::Follower && self.is_sole_voter() {
            self.stand(Campaign::Timeout);
        }
        self.release();
        self.finish(effects);
    }

    /// When [`Event::Tick`] is due at the latest. A sole voter that leads has nothing to do until it is asked.
    #[must_use]
    pub fn deadline(&self) -> Time {
        match self.role {
            _ if !self.started => self.now,
            Role::Leader if self.peers.is_empty() => Time::NEVER,
            Role::Leader => self.heartbeat_at.min(self.quorum_check_at),
            _ if self.conf.is_voter(self.id) => self.election_at,
            _ => Time::NEVER,
        }
    }

    /// How this member stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            id: self.id,
            term: self.term,
            vote: self.vote,
            leader: self.leader,
            role: self.role,
            commit: self.log.committed(),
            applied: self.log.applied(),
            last: self.log.last(),
            durable: self.log.durable(),
            first: self.log.first_index(),
            waiting_entries: self.log.waiting_entries(),
            waiting_bytes: self.log.waiting_bytes(),
            reads: self.reads.len(),
            transferee: self.transfer.map(|transfer| transfer.to),
            restoring: self.log.is_restoring(),
            rejected_messages: self.rejected_messages,
            refused_forwards: self.refused_forwards,
        }
    }

    /// What a `Persist` of now would say of the state: see [`Effect::Persist`] for who needs it.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.committed() }
    }

    /// The entries of this member's log that are not reported applied, committed or not. On a leader: all that will
    /// come before what it proposes next, and is not in the state machine yet.
    pub fn unapplied(&self) -> impl Iterator<Item = &Entry> {
        self.log.unapplied()
    }

    /// The members as of the last applied change, or of the snapshot that is being taken over.
    #[must_use]
    pub fn conf(&self) -> &ConfState {
        &self.conf
    }

    /// On a leader, how each of its followers stands; on others nothing.
    pub fn followers(&self) -> impl Iterator<Item = Follower> + '_ {
        let peers = if self.role == Role::Leader { &self.peers[..] } else { &[] };
        peers.iter().map(|peer| {
            let (inflight_messages, inflight_bytes) = peer.in_flight();
            Follower {
                id: peer.id,
                matched: peer.matched,
                next: peer.next,
                state: peer.state,
                active: peer.active,
                learner: !self.conf.is_voter(peer.id),
                paused: peer.is_paused(),
                inflight_messages,
                inflight_bytes,
                snapshot: peer.snapshot_index(),
            }
        })
    }

    fn tick(&mut self) {
        match self.role {
            Role::Leader => self.tick_leader(),
            _ => self.tick_election(),
        }
    }

    fn receive(&mut self, message: Message) {
        let is_strange = message.body.is_response() && self.find_peer(message.from).is_none();
        if !message.is_sane(self.id) || is_strange {
            self.reject();
            return;
        }
        let Message { from, term, body, .. } = message;
        if !body.is_forwarded() && !self.enter_term_of(from, term, &body) {
            return;
        }
        match body {
            Body::Propose { entries } => self.propose_for(from, entries),
            Body::ReadIndex { context } => self.read_index_for(from, context),
            Body::Vote { last, .. } => self.answer_vote(from, last),
            // Nobody was asked yet: the requests wait for the disk too.
            Body::VoteResponse { .. } if self.role == Role::Candidate && self.own_vote.is_some() => {
                self.reject()
            }
            Body::VoteResponse { reject } if self.role == Role::Candidate => self.count_vote(from, !reject),
            Body::VoteResponse { .. } => {}
            Body::PreVote { last } => self.answer_pre_vote(from, term, last),
            Body::PreVoteResponse { reject } => self.pre_vote_answered(from, term, reject),
            Body::AppendResponse { index, reject } => self.append_answered(from, index, reject),
            Body::HeartbeatResponse { context } => self.heartbeat_answered(from, context),
            Body::TransferLeader => self.begin_transfer(from),
            _ if !self.follow(from) => {}
            Body::Append { prev, entries, commit } => self.append(from, prev, entries, commit),
            Body::Heartbeat { commit, context } => self.heartbeat(from, commit, context),
            Body::Snapshot { snapshot } => self.take_snapshot(from, snapshot),
            Body::ReadIndexResponse { index, context } => self.read_answered(context, index),
            Body::TimeoutNow => self.timeout_now(),
        }
    }

    /// Counts a message that no correct member could have sent.
    pub(crate) fn reject(&mut self) {
        self.rejected_messages += 1;
    }

    fn persisted(&mut self, seq: PersistSeq, term: Term, last: Position) {
        assert!(seq <= self.last_seq, "persist {seq} was never issued, only {}", self.last_seq);
        self.durable_seq = self.durable_seq.max(seq);
        self.silence = Silence::new(self.now, self.log.last_index());
        if term != self.term {
            return;
        }
        let news = self.log.persisted(last);
        if self.own_vote.is_some_and(|vote| vote <= seq) {
            self.own_vote = None;
            self.count_vote(self.id, true);
        } else if self.role == Role::Leader && news {
            self.commit_by_quorum();
        }
    }

    /// Queues a message that may leave at once.
    pub(crate) fn send(&mut self, to: NodeId, body: Body) {
        let term = if body.is_forwarded() { Term(0) } else { self.term };
        self.send_message(Message { from: self.id, to, term, body });
    }

    pub(crate) fn send_message(&mut self, message: Message) {
        self.out.push(Effect::Send { message, after: None });
    }

    /// Queues a message that promises something: it leaves after all that this step, and earlier ones, wrote.
    pub(crate) fn send_durable(&mut self, to: NodeId, body: Body) {
        self.send_durable_in(self.term, to, body);
    }

    pub(crate) fn send_durable_in(&mut self, term: Term, to: NodeId, body: Body) {
        self.out_durable.push(Message { from: self.id, to, term, body });
    }

    /// Everybody who waits for a read gets a definite answer when its leader goes.
    pub(crate) fn refuse_reads(&mut self) {
        for context in self.reads.reset(self.id) {
            self.out.push(Effect::ReadRefused { context, reason: ReadRefusal::LeaderLost });
        }
    }

    fn release(&mut self) {
        // An entry that every follower has is needed by none. A follower cannot know, and keeps for the case that it
        // leads one day.
        let needed = match self.role {
            Role::Leader => self.peers.iter().map(|peer| peer.matched).min().unwrap_or(Index(u64::MAX)),
            _ if self.peers.is_empty() => Index(u64::MAX),
            _ => Index::ZERO,
        };
        let pinned = if self.role == Role::Leader { self.kept_for_snapshots() } else { None };
        self.log.release(needed, pinned, &self.limits);
    }

    /// Turns what a step has changed into effects, in the order in which [`Effect`] promises them.
    fn finish(&mut self, effects: &mut Vec<Effect>) {
        let current = (self.term, self.leader, self.role);
        if current != self.announced {
            let (term, leader, role) = current;
            self.announced = current;
            effects.push(Effect::Leadership { term, leader, role });
        }
        effects.append(&mut self.out);
        let state = self.hard_state();
        let voted = (state.term, state.vote) != (self.written.term, self.written.vote);
        if let Some(snapshot) = self.restored.take() {
            let seq = self.next_seq();
            self.written = state;
            effects.push(Effect::Restore { seq, term: self.term, hard_state: state, snapshot });
        } else if voted || self.log.has_unwritten() || self.commits_change(state.commit) {
            effects.push(Effect::Persist {
                seq: self.next_seq(),
                term: self.term,
                last: self.log.last(),
                hard_state: (state != self.written).then_some(state),
                entries: self.log.take_unwritten(),
            });
            self.written = state;
        }
        self.release_messages(effects);
        let entries = self.log.take_applicable(self.limits.applying_bytes_max);
        if !entries.is_empty() {
            effects.push(Effect::Apply { entries });
        }
    }

    /// Whether a change of membership is known to be committed since the last write. A member that forgot this in a crash
    /// would count the votes of the old members: the last one of two could wait for ever for the one that is gone.
    fn commits_change(&self, commit: Index) -> bool {
        self.log.has_conf_change(self.written.commit, commit)
    }

    fn next_seq(&mut self) -> PersistSeq {
        if self.durable_seq == self.last_seq {
            self.silence = Silence::new(self.now, self.log.durable());
        }
        self.last_seq = PersistSeq(self.last_seq.0 + 1);
        self.last_seq
    }

    /// Lets go what waited for this step's write to have a number.
    fn release_messages(&mut self, effects: &mut Vec<Effect>) {
        let waits = self.durable_seq < self.last_seq;
        let after = waits.then_some(self.last_seq);
        for message in self.out_durable.drain(..) {
            if let (Body::AppendResponse { index, reject }, true) = (&message.body, waits) {
                // While the disk hangs, each heartbeat of the leader makes it ask anew. One answer is enough, and what
                // waits stays bounded.
                let (to, term, held, rejection, until) = self.held_answer;
                let same = (to, term, held, rejection) == (message.to, message.term, *index, *reject);
                if same && until > self.durable_seq {
                    continue;
                }
                self.held_answer = (message.to, message.term, *index, *reject, self.last_seq);
            }
            effects.push(Effect::Send { message, after });
        }
    }

    /// Every invariant of this member.
    ///
    /// # Panics
    /// If one is broken.
    pub fn check(&self) {
        self.log.check();
        self.reads.check(self.limits.reads_max);
        assert!(self.durable_seq <= self.last_seq, "{} durable, {} issued", self.durable_seq, self.last_seq);
        assert!(
            self.log.last().1 <= self.term,
            "last entry {:?} is ahead of term {}",
            self.log.last(),
            self.term
        );
        assert!(self.written.commit <= self.log.committed(), "commit stepped back");
        assert!(!self.log.has_unwritten(), "entries were not handed out");
        assert!(self.out.is_empty() && self.out_durable.is_empty(), "effects were not handed out");
        assert!(self.conf.is_valid(), "{:?}", self.conf);
        assert!(self.peers.is_sorted_by(|a, b| a.id < b.id), "followers out of order");
        let stands = matches!(self.role, Role::Candidate | Role::PreCandidate);
        assert_eq!(self.own_vote.is_some(), stands && !self.votes.contains_key(&self.id));
        assert!(self.votes.is_empty() || stands, "votes without an election: {:?}", self.votes);
        assert!(self.restored.is_none(), "a snapshot was not handed out");
        if let Some(Transfer { to, .. }) = self.transfer {
            assert_eq!(self.role, Role::Leader, "leadership is handed over by who has none");
            assert!(to != self.id && self.conf.is_voter(to), "leadership is handed to {to}");
        }
        match self.role {
            Role::Leader => {
                assert_eq!(self.leader, Some(self.id), "a leader follows itself");
                assert_eq!(self.vote, Some(self.id), "a leader has voted for itself");
                assert!(self.conf.is_voter(self.id) || self.transfer.is_some(), "who is removed hands over");
                assert!(!self.log.is_restoring(), "a leader has its own log");
                self.peers.iter().for_each(|peer| peer.check(self.log.last_index()));
            }
            Role::Candidate => {
                assert_eq!(self.leader, None, "a candidate knows no leader");
                assert_eq!(self.vote, Some(self.id), "a candidate votes for itself");
            }
            Role::PreCandidate => assert_eq!(self.leader, None, "who would stand knows no leader"),
            Role::Follower => assert_ne!(self.leader, Some(self.id), "a follower does not lead"),
        }
    }
}
