//! One member's consensus: its state, the one entry into it, and what every step ends with. Elections are in
//! `election.rs`, the log's way to the followers in `replication.rs`, reads in `read_index.rs`.

use std::collections::BTreeMap;

use crate::log::Log;
use crate::progress::{FollowerState, Progress};
use crate::random::Random;
use crate::read::Reads;
use crate::{
    Body, ConfState, Config, Effect, Entry, Error, Event, HardState, Index, Limits, Message, NodeId,
    PersistSeq, Position, ReadRefusal, Restored, Role, Term, Time,
};

/// One member's consensus. See the crate's documentation for the contract.
#[derive(Debug)]
pub struct Raft {
    pub(crate) id: NodeId,
    pub(crate) limits: Limits,
    pub(crate) election_timeout_ms: u64,
    pub(crate) heartbeat_interval_ms: u64,
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

    /// A candidate's answers, its own among them once that is durable.
    pub(crate) votes: BTreeMap<NodeId, bool>,
    /// What must be durable before a candidate's own vote counts.
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
    pub(crate) reads: Reads,

    /// The number of the last `Persist`.
    pub(crate) last_seq: PersistSeq,
    /// Everything up to this `Persist` is durable.
    durable_seq: PersistSeq,
    /// What the last `Persist` with a state said.
    written: HardState,
    /// What the last `Leadership` said.
    announced: (Term, Option<NodeId>, Role),
    started: bool,
    rejected_messages: u64,

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
    /// Messages dropped since the start because no correct member could have sent them.
    pub rejected_messages: u64,
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
            reads: Reads::default(),
            last_seq: PersistSeq(0),
            durable_seq: PersistSeq(0),
            written: hard_state,
            announced: (term, None, Role::Follower),
            started: false,
            rejected_messages: 0,
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
    /// On a local contract that is broken: more reported applied or durable than was handed out, or an invalid
    /// `ConfApplied`. Never because of a message.
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
            Event::Campaign => self.campaign(),
        }
        if self.role == Role::Follower && self.is_sole_voter() {
            self.campaign();
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
            Role::Follower | Role::Candidate if self.conf.is_voter(self.id) => self.election_at,
            Role::Follower | Role::Candidate => Time::NEVER,
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
            rejected_messages: self.rejected_messages,
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

    /// The members as of the last applied change.
    #[must_use]
    pub fn conf(&self) -> &ConfState {
        &self.conf
    }

    /// On a leader, how each of its followers stands; on others nothing.
    pub fn followers(&self) -> impl Iterator<Item = Follower> + '_ {
        let peers = if self.role == Role::Leader { &self.peers[..] } else { &[] };
        peers.iter().map(|peer| Follower {
            id: peer.id,
            matched: peer.matched,
            next: peer.next,
            state: peer.state,
            active: peer.active,
        })
    }

    fn tick(&mut self) {
        match self.role {
            Role::Leader => self.tick_leader(),
            Role::Follower | Role::Candidate => self.tick_election(),
        }
    }

    fn receive(&mut self, message: Message) {
        let known = |id| self.peers.binary_search_by_key(&id, |peer| peer.id).is_ok();
        if !message.is_sane(self.id) || message.body.is_response() && !known(message.from) {
            self.reject();
            return;
        }
        let Message { from, term, body, .. } = message;
        if !body.is_forwarded() && !self.enter_term_of(from, term, &body) {
            return;
        }
        match body {
            Body::Propose { entries } => self.propose_for(entries),
            Body::ReadIndex { context } => self.read_index_for(from, context),
            Body::Vote { last } => self.answer_vote(from, last),
            Body::VoteResponse { reject } => self.count_vote(from, !reject),
            Body::AppendResponse { index, reject } => self.append_answered(from, index, reject),
            Body::HeartbeatResponse { context } => self.heartbeat_answered(from, context),
            Body::Append { .. } | Body::Heartbeat { .. } | Body::ReadIndexResponse { .. } => {
                if self.follow(from) {
                    match body {
                        Body::Append { prev, entries, commit } => self.append(from, prev, entries, commit),
                        Body::Heartbeat { commit, context } => self.heartbeat(from, commit, context),
                        Body::ReadIndexResponse { index, context } => self.read_answered(context, index),
                        _ => unreachable!("only a leader's messages come here"),
                    }
                }
            }
        }
    }

    /// Counts a message that no correct member could have sent.
    pub(crate) fn reject(&mut self) {
        self.rejected_messages += 1;
    }

    fn persisted(&mut self, seq: PersistSeq, term: Term, last: Position) {
        assert!(seq <= self.last_seq, "persist {seq} was never issued, only {}", self.last_seq);
        self.durable_seq = self.durable_seq.max(seq);
        if term != self.term {
            return;
        }
        let news = self.log.persisted(last);
        if self.role == Role::Candidate && self.own_vote.is_some_and(|vote| vote <= seq) {
            self.own_vote = None;
            self.count_vote(self.id, true);
        } else if self.role == Role::Leader && news {
            self.commit_by_quorum();
        }
    }

    fn conf_applied(&mut self, conf: ConfState) {
        assert!(conf.is_valid(), "invalid membership applied: {conf:?}");
        self.set_conf(conf);
        if self.role == Role::Leader && !self.conf.is_voter(self.id) {
            self.become_follower(self.term, None);
        } else if self.role == Role::Leader && !self.commit_by_quorum() {
            self.broadcast_append(false);
        }
    }

    /// Members that stay keep what is known of them; new ones count as just heard, to get a chance to answer.
    fn set_conf(&mut self, conf: ConfState) {
        let mut ids: Vec<NodeId> = conf.voters.iter().chain(&conf.learners).copied().collect();
        ids.sort_unstable();
        let mut old = std::mem::take(&mut self.peers);
        for id in ids.into_iter().filter(|id| *id != self.id) {
            let peer = match old.iter().position(|peer| peer.id == id) {
                Some(place) => old.swap_remove(place),
                None => {
                    let window = self.limits.inflight_messages_max;
                    let mut peer = Progress::new(id, self.log.last_index(), window);
                    peer.active = true;
                    peer
                }
            };
            self.peers.push(peer);
        }
        self.conf = conf;
    }

    pub(crate) fn is_sole_voter(&self) -> bool {
        self.conf.voters.len() == 1 && self.conf.voters[0] == self.id
    }

    /// Queues a message that may leave at once.
    pub(crate) fn send(&mut self, to: NodeId, body: Body) {
        let term = if body.is_forwarded() { Term(0) } else { self.term };
        let message = Message { from: self.id, to, term, body };
        self.out.push(Effect::Send { message, after: None });
    }

    /// Queues a message that promises something: it leaves after all that this step, and earlier ones, wrote.
    pub(crate) fn send_durable(&mut self, to: NodeId, body: Body) {
        self.out_durable.push(Message { from: self.id, to, term: self.term, body });
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
        self.log.release(needed, self.limits.kept_entries_max, self.limits.kept_bytes_max);
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
        if voted || self.log.has_unwritten() {
            self.last_seq = PersistSeq(self.last_seq.0 + 1);
            effects.push(Effect::Persist {
                seq: self.last_seq,
                term: self.term,
                last: self.log.last(),
                hard_state: (state != self.written).then_some(state),
                entries: self.log.take_unwritten(),
            });
            self.written = state;
        }
        let after = (self.durable_seq < self.last_seq).then_some(self.last_seq);
        effects.extend(self.out_durable.drain(..).map(|message| Effect::Send { message, after }));
        let entries = self.log.take_applicable(self.limits.applying_bytes_max);
        if !entries.is_empty() {
            effects.push(Effect::Apply { entries });
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
        assert_eq!(
            self.own_vote.is_some(),
            self.role == Role::Candidate && !self.votes.contains_key(&self.id)
        );
        match self.role {
            Role::Leader => {
                assert_eq!(self.leader, Some(self.id), "a leader follows itself");
                assert_eq!(self.vote, Some(self.id), "a leader has voted for itself");
                self.peers.iter().for_each(|peer| peer.check(self.log.last_index()));
            }
            Role::Candidate => {
                assert_eq!(self.leader, None, "a candidate knows no leader");
                assert_eq!(self.vote, Some(self.id), "a candidate votes for itself");
            }
            Role::Follower => assert_ne!(self.leader, Some(self.id), "a follower does not lead"),
        }
    }
}
