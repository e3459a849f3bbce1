//! Who leads: timers, votes, and the changes of term and role (Raft thesis, 3.4; 6.2 for the check of the quorum and
//! for votes that are ignored while a leader is heard).

use crate::quorum::{self, Tally};
use crate::{Body, EntryKind, NodeId, PersistSeq, Position, Raft, Role, Term, Time};

impl Raft {
    /// Draws a new time to campaign, between one and two election timeouts from now, in whole milliseconds.
    pub(crate) fn rearm_election(&mut self) {
        let extra = self.random.below(self.election_timeout_ms);
        self.election_at = self.now.plus_ms(self.election_timeout_ms + extra);
    }

    pub(crate) fn tick_election(&mut self) {
        if self.now < self.election_at {
            return;
        }
        self.rearm_election();
        // Its requests for votes have not even left. A new election would only wait for the same disk, with a new
        // term, and a disk slower than the timeout would keep a sole voter from ever winning.
        if self.own_vote.is_none() {
            self.campaign();
        }
    }

    pub(crate) fn tick_leader(&mut self) {
        if self.now >= self.quorum_check_at {
            self.quorum_check_at = self.now.plus_ms(self.election_timeout_ms);
            if !self.hears_quorum() {
                self.become_follower(self.term, None);
                return;
            }
            self.peers.iter_mut().for_each(|peer| peer.active = false);
        }
        if self.now >= self.heartbeat_at {
            self.heartbeat_at = self.now.plus_ms(self.heartbeat_interval_ms);
            self.broadcast_heartbeat();
        }
    }

    fn hears_quorum(&self) -> bool {
        let active = self.peers.iter().filter(|peer| peer.active && self.conf.is_voter(peer.id)).count();
        active + 1 >= quorum::majority(self.conf.voters.len())
    }

    /// Stands for election in the next term, unless that makes no sense or is forbidden.
    pub(crate) fn campaign(&mut self) {
        let may = self.conf.is_voter(self.id) && !self.log.has_unapplied_conf_change();
        if self.role == Role::Leader || !may {
            return;
        }
        self.enter_term(self.term.next());
        self.vote = Some(self.id);
        self.role = Role::Candidate;
        // This step ends with a `Persist`, since the term is new.
        self.own_vote = Some(PersistSeq(self.last_seq.0 + 1));
        let last = self.log.last();
        // The requests wait for the disk too, unlike etcd's: a request that is answered after a crash, and after a
        // second campaign in the same forgotten term, would let the vote count for a log that is shorter than the one
        // it was given for.
        for place in 0..self.peers.len() {
            let id = self.peers[place].id;
            if self.conf.is_voter(id) {
                self.send_durable(id, Body::Vote { last });
            }
        }
    }

    /// Compares a message's term with ours: follows a later one, turns away an earlier one. Whether the message is
    /// still of interest.
    pub(crate) fn enter_term_of(&mut self, from: NodeId, term: Term, body: &Body) -> bool {
        if term > self.term {
            if matches!(body, Body::Vote { .. }) && self.hears_leader() {
                return false;
            }
            let leader = body.is_leaders().then_some(from);
            self.become_follower(term, leader);
        } else if term < self.term {
            // A leader that we left behind (because nobody heard our campaign) must learn of our term, or we could
            // never follow anybody again: its quorum ignores our requests for votes while it hears it.
            if matches!(body, Body::Append { .. } | Body::Heartbeat { .. }) {
                self.send_durable(from, Body::AppendResponse { index: crate::Index::ZERO, reject: None });
            }
            return false;
        }
        true
    }

    /// Whether a leader was heard within an election timeout: no vote is given then, so that a member which was cut
    /// off, or removed, cannot disturb the others.
    fn hears_leader(&self) -> bool {
        let heard = self.now < self.heard_at.plus_ms(self.election_timeout_ms);
        self.role == Role::Leader || self.leader.is_some() && heard
    }

    /// A leader of our term speaks. Whether we follow it: there can be no two, so a second one is turned away.
    pub(crate) fn follow(&mut self, leader: NodeId) -> bool {
        if self.role == Role::Leader || self.leader.is_some_and(|known| known != leader) {
            self.reject();
            return false;
        }
        if self.role == Role::Candidate {
            self.become_follower(self.term, Some(leader));
        }
        self.leader = Some(leader);
        self.heard_at = self.now;
        self.rearm_election();
        true
    }

    /// Gives a vote or refuses it, for good: at most one a term, and only to whose log is not behind ours. Whoever
    /// asks may be unknown here, if we have not yet applied the change that added it.
    pub(crate) fn answer_vote(&mut self, from: NodeId, last: Position) {
        let free = self.vote == Some(from) || self.vote.is_none() && self.leader.is_none();
        let (own_index, own_term) = self.log.last();
        let up_to_date = (last.1, last.0) >= (own_term, own_index);
        let grant = free && up_to_date;
        if grant {
            self.vote = Some(from);
            self.rearm_election();
        }
        self.send_durable(from, Body::VoteResponse { reject: !grant });
    }

    /// Counts an answer to our campaign; the first one of each voter is the one that counts.
    pub(crate) fn count_vote(&mut self, from: NodeId, granted: bool) {
        if self.role != Role::Candidate {
            return;
        }
        self.votes.entry(from).or_insert(granted);
        let of_voters = |value: bool| {
            self.conf.voters.iter().filter(|voter| self.votes.get(voter) == Some(&value)).count()
        };
        match quorum::tally(self.conf.voters.len(), of_voters(true), of_voters(false)) {
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
        let last = self.log.last_index();
        self.peers.iter_mut().for_each(|peer| peer.reset(last));
        // There may be an uncommitted change of membership anywhere in the log; it is cheaper to wait than to look.
        self.pending_conf = last;
        // Older terms' entries are committed only together with one of this term (thesis, figure 3.7).
        self.log.push(self.term, EntryKind::Normal, bytes::Bytes::new());
        self.broadcast_append(true);
    }
}
