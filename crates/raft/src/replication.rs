//! How the log grows, travels to the followers, and is committed (Raft thesis, 3.5 and 3.6).

use bytes::Bytes;

use crate::progress::{FollowerState, Progress};
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
            (_, Some(leader)) => self.forward(leader, proposals),
            (_, None) => {
                let refuse =
                    |Proposal { token, .. }| Effect::ProposalRefused { token, reason: Refusal::NoLeader };
                self.out.extend(proposals.into_iter().map(refuse));
            }
        }
    }

    /// Hands proposals on to the leader, in messages of about the size of an append.
    fn forward(&mut self, leader: NodeId, proposals: Vec<Proposal>) {
        let mut entries = Vec::with_capacity(proposals.len());
        let mut bytes = 0;
        for Proposal { kind, data, .. } in proposals {
            let size = Entry::size_of(&data);
            if !entries.is_empty() && bytes + size > self.limits.append_bytes_max {
                self.send(leader, Body::Propose { entries: std::mem::take(&mut entries) });
                bytes = 0;
            }
            bytes += size;
            entries.push((kind, data));
        }
        if !entries.is_empty() {
            self.send(leader, Body::Propose { entries });
        }
    }

    /// Proposals that a follower hands on. Whoever is not the leader (any more) refuses them, lest two members that
    /// take each other for the leader play ball. Whoever asked is told by nobody, as in etcd; what is refused is
    /// counted.
    pub(crate) fn propose_for(&mut self, from: NodeId, entries: Vec<(EntryKind, Bytes)>) {
        let (mut count, mut first) = (0, None);
        let leads = self.role == Role::Leader;
        for (kind, data) in entries {
            let pushed = if leads { self.push_proposal(kind, data) } else { Err(Refusal::NotLeader) };
            if let Err(reason) = pushed {
                count += 1;
                first = first.or(Some(reason));
            }
        }
        if let Some(reason) = first {
            self.refused_forwards += count as u64;
            self.out.push(Effect::ForwardRefused { from, count, reason });
        }
        if leads {
            self.broadcast_append(false);
        }
    }

    fn push_proposal(&mut self, kind: EntryKind, data: Bytes) -> Result<(), Refusal> {
        if self.transfer.is_some() {
            return Err(Refusal::LeaderTransfer);
        }
        if !self.has_room(1, Entry::size_of(&data)) {
            return Err(Refusal::TooMany);
        }
        if kind.is_conf_change() {
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
    pub(crate) fn send_append(&mut self, place: usize, news: bool) -> bool {
        let peer = &mut self.peers[place];
        if peer.is_paused() {
            return false;
        }
        let prev = peer.next.prev();
        let Some(prev_term) = self.log.term(prev) else {
            self.want_snapshot(place);
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
        peer.sent(entries.len(), entries.iter().map(Entry::size).sum(), commit);
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

    /// A follower took an append, or could not.
    pub(crate) fn append_answered(&mut self, from: NodeId, index: Index, reject: Option<Position>) {
        if self.role != Role::Leader {
            return;
        }
        let place = self.peer(from);
        let first = self.log.first_index();
        let peer = &mut self.peers[place];
        peer.heard(self.now);
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
            self.hand_over_if_level(place);
        }
    }

    pub(crate) fn heartbeat_answered(&mut self, from: NodeId, context: Option<u64>) {
        if self.role != Role::Leader {
            return;
        }
        let place = self.peer(from);
        let last = self.log.last_index();
        let peer = &mut self.peers[place];
        peer.heard_heartbeat(self.now);
        if peer.matched < last || peer.state == FollowerState::Probe {
            self.send_append(place, true);
        }
        // The first request may be lost, or have come while it had a change of membership still to apply.
        self.hand_over_if_level(place);
        if let Some(context) = context {
            self.read_confirmed(place, context);
        }
    }

    /// What a majority of the voters has reached, of whom this leader has reached `own`.
    pub(crate) fn agreed(&mut self, own: u64, reached: impl Fn(&Progress) -> u64) -> Option<u64> {
        self.reached.clear();
        for id in &self.conf.voters {
            let other = || reached(&self.peers[self.peer(*id)]);
            self.reached.push(if *id == self.id { own } else { other() });
        }
        quorum::agreed(&mut self.reached)
    }

    /// Commits what a quorum of disks has, if it is of this term: an entry of an older one may still be replaced,
    /// however many have it (thesis, figure 3.7; the paper's figure 8). Whether anything was.
    pub(crate) fn commit_by_quorum(&mut self) -> bool {
        let index = self.agreed(self.log.durable().0, |peer| peer.matched.0).map(Index);
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
        self.ask_again(from);
    }
}
