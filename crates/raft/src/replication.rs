//! How the log grows, travels to the followers, and is committed (Raft thesis, 3.5 and 3.6).

use bytes::Bytes;

use crate::progress::FollowerState;
use crate::{Body, Effect, Entry, EntryKind, Index, NodeId, Position, Proposal, Raft, Refusal, Role, quorum};

impl Raft {
    /// Proposals of this member's own clients.
    pub(crate) fn propose(&mut self, proposals: Vec<Proposal>) {
        match (self.role, self.leader) {
            (Role::Leader, _) => {
                for Proposal { token, kind, data } in proposals {
                    if let Err(reason) = self.push_proposal(kind, data) {
                        self.out.push(Effect::ProposalRefused { token, reason });
                    }
                }
                self.broadcast_append(false);
            }
            (_, Some(leader)) => {
                let entries: Vec<_> =
                    proposals.into_iter().map(|proposal| (proposal.kind, proposal.data)).collect();
                if !entries.is_empty() {
                    self.send(leader, Body::Propose { entries });
                }
            }
            (_, None) => {
                let refuse =
                    |Proposal { token, .. }| Effect::ProposalRefused { token, reason: Refusal::NoLeader };
                self.out.extend(proposals.into_iter().map(refuse));
            }
        }
    }

    /// Proposals that a follower hands on. Whoever is not the leader (any more) forgets them, lest two members that
    /// take each other for the leader play ball.
    pub(crate) fn propose_for(&mut self, entries: Vec<(EntryKind, Bytes)>) {
        if self.role == Role::Leader {
            for (kind, data) in entries {
                let _ = self.push_proposal(kind, data); // Whoever asked is told by nobody, as in etcd.
            }
            self.broadcast_append(false);
        }
    }

    fn push_proposal(&mut self, kind: EntryKind, data: Bytes) -> Result<(), Refusal> {
        if !self.has_room(1, Entry::size_of(&data)) {
            return Err(Refusal::TooMany);
        }
        if kind != EntryKind::Normal {
            if self.pending_conf > self.log.applied() || !self.has_committed_in_term() {
                self.log.push(self.term, EntryKind::Normal, Bytes::new());
                return Err(Refusal::ConfChangePending);
            }
            self.pending_conf = self.log.last_index().next();
        }
        self.log.push(self.term, kind, data);
        Ok(())
    }

    /// Whether so much more may wait for disk and state machine. With nothing waiting, one entry of any size may.
    fn has_room(&self, entries: usize, bytes: usize) -> bool {
        let waiting = self.log.waiting_entries();
        waiting == 0
            || waiting + entries <= self.limits.uncommitted_entries_max
                && self.log.waiting_bytes() + bytes <= self.limits.uncommitted_bytes_max
    }

    pub(crate) fn has_committed_in_term(&self) -> bool {
        self.log.term(self.log.committed()) == Some(self.term)
    }

    /// Sends every follower what it may get; `news`: even if that is nothing but a commit index.
    pub(crate) fn broadcast_append(&mut self, news: bool) {
        for place in 0..self.peers.len() {
            self.send_append(place, news);
        }
    }

    /// Sends one follower its next entries, within the bounds on what is under way; without entries only if `news`.
    /// Whether anything was sent.
    fn send_append(&mut self, place: usize, news: bool) -> bool {
        let peer = &mut self.peers[place];
        if peer.is_paused() {
            return false;
        }
        let prev = peer.next.prev();
        let Some(prev_term) = self.log.term(prev) else {
            // Who does not answer at all needs no snapshot yet.
            if peer.active {
                peer.lost_touch();
            }
            return false;
        };
        // To a follower with a full window goes an append without entries, after a heartbeat: should the whole window
        // be lost, its answer opens it again.
        let bytes_max = self.limits.append_bytes_max;
        let entries = if peer.is_window_full() { Vec::new() } else { self.log.slice(peer.next, bytes_max) };
        if entries.is_empty() && !news {
            return false;
        }
        let commit = self.log.committed();
        peer.sent(entries.len(), commit);
        let to = peer.id;
        self.send(to, Body::Append { prev: (prev, prev_term), entries, commit });
        true
    }

    pub(crate) fn broadcast_heartbeat(&mut self) {
        let context = self.reads.heartbeat_context();
        for place in 0..self.peers.len() {
            let peer = &mut self.peers[place];
            // No more than the follower is known to have: its log may end in other entries beyond.
            let commit = self.log.committed().min(peer.matched);
            peer.sent_heartbeat(commit);
            let to = peer.id;
            self.send(to, Body::Heartbeat { commit, context });
        }
    }

    fn peer(&self, id: NodeId) -> usize {
        self.peers.binary_search_by_key(&id, |peer| peer.id).expect("responses of strangers are dropped")
    }

    /// A follower took an append, or could not.
    pub(crate) fn append_answered(&mut self, from: NodeId, index: Index, reject: Option<Position>) {
        if self.role != Role::Leader {
            return;
        }
        let place = self.peer(from);
        let first = self.log.first_index();
        let peer = &mut self.peers[place];
        peer.active = true;
        if let Some((hint, hint_term)) = reject {
            let hint = if hint_term.0 > 0 { self.log.possible_match(hint, hint_term).0 } else { hint };
            if peer.rejected(index, hint) {
                self.send_append(place, true);
            }
            return;
        }
        if index > self.log.last_index() {
            self.reject();
            return;
        }
        if peer.acknowledged(index, first) {
            let behind = |raft: &Self| raft.peers[place].can_bump_commit(raft.log.committed());
            if !self.commit_by_quorum() && behind(self) {
                self.send_append(place, true);
            }
            while self.send_append(place, false) {}
        }
    }

    pub(crate) fn heartbeat_answered(&mut self, from: NodeId, context: Option<u64>) {
        if self.role != Role::Leader {
            return;
        }
        let place = self.peer(from);
        let last = self.log.last_index();
        let peer = &mut self.peers[place];
        peer.heard_heartbeat();
        if peer.matched < last || peer.state == FollowerState::Probe {
            self.send_append(place, true);
        }
        if let Some(context) = context {
            self.read_confirmed(place, context);
        }
    }

    /// Commits what a quorum of disks has, if it is of this term: an entry of an older one may still be replaced,
    /// however many have it (thesis, figure 3.7; the paper's figure 8). Whether anything was.
    pub(crate) fn commit_by_quorum(&mut self) -> bool {
        let durable = self.log.durable();
        let index = if self.is_sole_voter() {
            Some(durable)
        } else {
            let of_voter =
                |id: &NodeId| if *id == self.id { durable } else { self.peers[self.peer(*id)].matched };
            let mut durable: Vec<Index> = self.conf.voters.iter().map(of_voter).collect();
            quorum::agreed(&mut durable)
        };
        let Some(index) = index.filter(|index| *index > self.log.committed()) else { return false };
        if self.log.term(index) != Some(self.term) {
            return false;
        }
        self.log.commit_to(index);
        self.release_early_reads();
        self.broadcast_append(true);
        true
    }

    /// Entries of the leader that we follow.
    pub(crate) fn append(&mut self, from: NodeId, prev: Position, mut entries: Vec<Entry>, commit: Index) {
        if prev.0 < self.log.committed() {
            let index = self.log.committed();
            self.send_durable(from, Body::AppendResponse { index, reject: None });
            return;
        }
        if self.log.term(prev.0) != Some(prev.1) {
            // Not only that it does not fit, but where it may: else the leader would have to try each index in turn.
            let hint = self.log.possible_match(prev.0, prev.1);
            self.send_durable(from, Body::AppendResponse { index: prev.0, reject: Some(hint) });
            return;
        }
        let sent = entries.len();
        let replaces = self.log.keep_common(&mut entries);
        let bytes = entries.iter().map(Entry::size).sum();
        let index = prev.0.plus(sent);
        if !replaces && self.log.has_backlog() && !self.has_room(entries.len(), bytes) {
            // As if lost on the way, so that the leader's window stays shut; it tries again with each heartbeat. Only
            // while this member has work that needs no further entry: to be applied, older entries may need newer
            // ones, above all a new leader's first.
            let index = prev.0.plus(sent - entries.len());
            self.log.commit_to(commit.min(index));
            if index > prev.0 {
                self.send_durable(from, Body::AppendResponse { index, reject: None });
            }
            return;
        }
        self.log.extend(entries);
        self.log.commit_to(commit.min(index));
        self.send_durable(from, Body::AppendResponse { index, reject: None });
    }

    /// The leader that we follow is there.
    pub(crate) fn heartbeat(&mut self, from: NodeId, commit: Index, context: Option<u64>) {
        if commit > self.log.last_index() {
            // The leader believes that we have what we have not: one of us lost data.
            self.reject();
        } else {
            self.log.commit_to(commit);
        }
        self.send(from, Body::HeartbeatResponse { context });
    }
}
