//! Who leads: timers, votes, and the changes of term and role (Raft thesis, 3.4; 6.2 for the check of the quorum and
//! for votes that are ignored while a leader is heard; 9.6 for the question before an election).

use crate::quorum::{self, Tally};
use crate::transfer::Standstill;
use crate::{Body, EntryKind, Index, NodeId, PersistSeq, Position, Raft, Role, Term, Time};

/// How a member stands for election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Campaign {
    /// Because no leader is heard; with a question first, if so configured.
    Timeout,
    /// Because the leader asks for it. It is alive, so nobody needs to be asked first.
    Transfer,
}

impl Raft {
    /// Draws a new time to campaign, between one and one and a half election timeouts from now, in whole milliseconds.
    ///
    /// etcd's spread is a whole timeout, in steps of a tenth. Half of it ends an outage sooner. With the question before a
    /// campaign they hardly collide, since who says yes to it holds its own back.
    pub(crate) fn rearm_election(&mut self) {
        let extra = self.random.below(self.election_timeout_ms.div_ceil(2));
        self.election_at = self.now.plus_ms(self.election_timeout_ms + extra);
    }

    pub(crate) fn hurry(&mut self) {
        if self.role == Role::Follower && self.leader.is_none() {
            let over_ms = self.election_timeout_ms.saturating_sub(2 * self.heartbeat_interval_ms);
            self.election_at = self.election_at.minus_ms(over_ms).max(self.now);
        }
    }

    pub(crate) fn tick_election(&mut self) {
        if self.now < self.election_at {
            return;
        }
        self.rearm_election();
        // Its requests have not even left. A new campaign would only wait for the same disk, with a new term, and a disk
        // slower than the timeout would keep a sole voter from ever winning.
        if self.own_vote.is_none() {
            self.stand(Campaign::Timeout);
        }
    }

    pub(crate) fn tick_leader(&mut self) {
        if self.now >= self.quorum_check_at {
            self.quorum_check_at = self.now.plus_ms(self.election_timeout_ms);
            if self.check_quorum && !self.hears_quorum() {
                self.become_follower(self.term, None);
                return;
            }
            self.peers.iter_mut().for_each(|peer| peer.active = false);
        }
        self.tick_transfer();
        if self.role == Role::Leader && self.now >= self.heartbeat_at {
            self.heartbeat_at = self.now.plus_ms(self.heartbeat_interval_ms);
            self.broadcast_heartbeat();
        }
    }

    fn hears_quorum(&self) -> bool {
        let active = self.peers.iter().filter(|peer| peer.active && self.conf.is_voter(peer.id)).count();
        let own = usize::from(self.conf.is_voter(self.id));
        active + own >= quorum::majority(self.conf.voters.len())
    }

    /// Stands for election, unless that makes no sense or is forbidden.
    pub(crate) fn stand(&mut self, why: Campaign) {
        let may =
            self.conf.is_voter(self.id) && !self.log.has_unapplied_conf_change() && !self.log.is_restoring();
        if self.role == Role::Leader || !may {
            return;
        }
        if self.pre_vote && why == Campaign::Timeout && !self.is_sole_voter() {
            self.ask_before();
        } else {
            self.campaign(why);
        }
    }

    /// Asks the others whether they would vote for this member. Its term stays: whoever cannot win disturbs nobody.
    fn ask_before(&mut self) {
        self.role = Role::PreCandidate;
        self.leader = None;
        self.votes.clear();
        self.refuse_reads();
        // Nothing is promised, but whose disk hangs could not win either, and must not ask.
        let last = self.log.last();
        self.ask_voters(self.term.next(), &Body::PreVote { last });
        self.own_vote = (self.durable_seq < self.last_seq).then_some(self.last_seq);
        if self.own_vote.is_none() {
            self.count_vote(self.id, true);
        }
    }

    /// Enters the next term as a candidate.
    fn campaign(&mut self, why: Campaign) {
        self.enter_term(self.term.next());
        self.vote = Some(self.id);
        self.role = Role::Candidate;
        // This step ends with a `Persist`, since the term is new.
        self.own_vote = Some(PersistSeq(self.last_seq.0 + 1));
        let last = self.log.last();
        // The requests wait for the disk too, unlike etcd's: a request that is answered after a crash, and after a
        // second campaign in the same forgotten term, would let the vote count for a log that is shorter than the one
        // it was given for.
        self.ask_voters(self.term, &Body::Vote { last, transfer: why == Campaign::Transfer });
    }

    fn ask_voters(&mut self, term: Term, question: &Body) {
        for place in 0..self.peers.len() {
            let id = self.peers[place].id;
            if self.conf.is_voter(id) {
                self.send_durable_in(term, id, question.clone());
            }
        }
    }

    /// Compares a message's term with ours: follows a later one, turns away an earlier one. Whether the message is
    /// still of interest.
    pub(crate) fn enter_term_of(&mut self, from: NodeId, term: Term, body: &Body) -> bool {
        if term > self.term {
            match body {
                Body::Vote { transfer: false, .. } | Body::PreVote { .. } if self.hears_leader() => {
                    return false;
                }
                // A term to come, of which only the question is here: entered once a majority says yes.
                Body::PreVote { .. } | Body::PreVoteResponse { reject: false } => {}
                // Whoever will be refused postpones nobody (Raft, figure 2; unlike etcd's): of two, the one whose log is
                // behind could else keep the other from standing, again and again.
                Body::Vote { last, .. } if self.role != Role::Leader && !self.is_up_to_date(*last) => {
                    let election_at = self.election_at;
                    self.become_follower(term, None);
                    self.election_at = election_at;
                }
                _ => self.become_follower(term, body.is_leaders().then_some(from)),
            }
        } else if term < self.term {
            self.turn_away(from, body);
            return false;
        }
        true
    }

    fn turn_away(&mut self, from: NodeId, body: &Body) {
        match body {
            // A leader that we left behind (because nobody heard our campaign) must learn of our term, or we could
            // never follow anybody again: its quorum ignores our requests for votes while it hears it.
            Body::Append { .. } | Body::Heartbeat { .. } if self.check_quorum || self.pre_vote => {
                self.send_durable(from, Body::AppendResponse { index: Index::ZERO, reject: None });
            }
            // Whoever asks could be the only one with the longest log, and must learn which term it has to go beyond.
            Body::PreVote { .. } => self.send_durable(from, Body::PreVoteResponse { reject: true }),
            _ => {}
        }
    }

    /// Whether a leader was heard within an election timeout: no vote is given then, so that a member which was cut
    /// off, or removed, cannot disturb the others.
    fn hears_leader(&self) -> bool {
        let heard = self.now < self.heard_at.plus_ms(self.election_timeout_ms);
        self.check_quorum && (self.role == Role::Leader || self.leader.is_some() && heard)
    }

    /// A leader of our term speaks. Whether we follow it: there can be no two, so a second one is turned away.
    pub(crate) fn follow(&mut self, leader: NodeId) -> bool {
        if self.role == Role::Leader || self.leader.is_some_and(|known| known != leader) {
            self.reject();
            return false;
        }
        if self.role != Role::Follower {
            self.become_follower(self.term, Some(leader));
        }
        self.leader = Some(leader);
        self.heard_at = self.now;
        self.rearm_election();
        true
    }

    /// Follows nobody until the leader is heard again.
    pub(crate) fn forget_leader(&mut self) {
        if self.role == Role::Follower && self.leader.is_some() {
            self.leader = None;
            self.refuse_reads();
        }
    }

    /// Gives a vote or refuses it, for good: at most one a term, and only to whose log is not behind ours. Whoever
    /// asks may be unknown here, if we have not yet applied the change that added it; and we may be a learner that a
    /// change, which we have not applied, made a voter.
    pub(crate) fn answer_vote(&mut self, from: NodeId, last: Position) {
        let grant = self.vote_is_free(from) && self.is_up_to_date(last);
        if grant {
            self.vote = Some(from);
            self.rearm_election();
        }
        self.send_durable(from, Body::VoteResponse { reject: !grant });
    }

    /// Says whether `from` would get our vote in `term`, and promises nothing. A campaign is to follow at once: ours does
    /// not begin beside it.
    pub(crate) fn answer_pre_vote(&mut self, from: NodeId, term: Term, last: Position) {
        let grant = (term > self.term || self.vote_is_free(from)) && self.is_up_to_date(last);
        if grant {
            self.election_at = self.election_at.max(self.now.plus_ms(self.heartbeat_interval_ms));
        }
        let term = if grant { term } else { self.term };
        self.send_durable_in(term, from, Body::PreVoteResponse { reject: !grant });
    }

    fn vote_is_free(&self, candidate: NodeId) -> bool {
        self.vote == Some(candidate) || self.vote.is_none() && self.leader.is_none()
    }

    fn is_up_to_date(&self, last: Position) -> bool {
        let (own_index, own_term) = self.log.last();
        (last.1, last.0) >= (own_term, own_index)
    }

    /// An answer to our question before a campaign; to an older question, it counts for nothing.
    pub(crate) fn pre_vote_answered(&mut self, from: NodeId, term: Term, reject: bool) {
        let is_current = reject || term == self.term.next();
        if self.role == Role::PreCandidate && is_current {
            self.count_vote(from, !reject);
        }
    }

    /// Counts an answer to our campaign, or to our question; the first one of each voter is the one that counts.
    pub(crate) fn count_vote(&mut self, from: NodeId, granted: bool) {
        self.votes.entry(from).or_insert(granted);
        let of_voters = |value: bool| {
            self.conf.voters.iter().filter(|voter| self.votes.get(voter) == Some(&value)).count()
        };
        match quorum::tally(self.conf.voters.len(), of_voters(true), of_voters(false)) {
            Tally::Won if self.role == Role::PreCandidate => self.campaign(Campaign::Timeout),
            Tally::Won => self.become_leader(),
            Tally::Lost => self.become_follower(self.term, None),
            Tally::Open => {}
        }
    }

    fn enter_term(&mut self, term: Term) {
        assert!(term >= self.term, "term steps back from {} to {term}", self.term);
        if term > self.term {
            self.term = term;
            self.vote = None;
        }
        self.leader = None;
        self.transfer = None;
        self.silence.outrun_since = None;
        self.votes.clear();
        self.own_vote = None;
        self.heartbeat_at = Time::NEVER;
        self.quorum_check_at = Time::NEVER;
        self.rearm_election();
        self.refuse_reads();
    }

    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        self.enter_term(term);
        self.role = Role::Follower;
        self.leader = leader;
        self.heard_at = self.now;
    }

    fn become_leader(&mut self) {
        assert!(self.role == Role::Candidate, "only a candidate is elected");
        // The requests for votes left after our own vote was durable, so nobody can have elected us before.
        assert!(self.own_vote.is_none(), "elected before the own vote is durable");
        self.enter_term(self.term);
        self.role = Role::Leader;
        self.leader = Some(self.id);
        self.election_at = Time::NEVER;
        self.heartbeat_at = self.now.plus_ms(self.heartbeat_interval_ms);
        self.quorum_check_at = self.now.plus_ms(self.election_timeout_ms);
        let (last, now) = (self.log.last_index(), self.now);
        self.peers.iter_mut().for_each(|peer| peer.reset(last, now));
        self.standstill = Standstill::new(now, self.log.applied());
        // There may be an uncommitted change of membership anywhere in the log; it is cheaper to wait than to look.
        self.pending_conf = last;
        // Older terms' entries are committed only together with one of this term (thesis, figure 3.7).
        self.log.push(self.term, EntryKind::Normal, bytes::Bytes::new());
        self.broadcast_append(true);
    }
}
