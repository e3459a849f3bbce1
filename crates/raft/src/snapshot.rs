//! Snapshots: asked for on a leader when a follower needs what is not kept any more, taken over on a follower (Raft
//! thesis, 5; design rules 1 and 17). The store's contents pass by this crate.

use crate::progress::Progress;
use crate::{Body, Effect, Index, NodeId, Raft, Role, Snapshot, Term};

impl Raft {
    /// The shell has made what it was asked for. Whoever does not need it any more gets none.
    pub(crate) fn snapshot_ready(&mut self, to: NodeId, snapshot: Snapshot) {
        let Snapshot { index, term, .. } = snapshot;
        assert!(
            index <= self.log.applied(),
            "a snapshot of {index}, but only {} is applied",
            self.log.applied()
        );
        let own = self.log.term(index);
        assert!(
            own.is_none_or(|own| own == term),
            "a snapshot of {index} in term {term}, which is of {own:?}"
        );
        let Some(place) = self.find_peer(to).filter(|_| self.role == Role::Leader) else { return };
        if !self.peers[place].awaits_snapshot() {
            return;
        }
        // Made for an earlier leadership of this member, or too slowly: it would not reach to what is kept.
        if index.next() < self.log.first_index() {
            self.peers[place].snapshot_reported(None, false, self.now, self.heartbeat_interval_ms);
            return;
        }
        self.peers[place].sent_snapshot(index);
        self.send(to, Body::Snapshot { snapshot });
    }

    /// The sending ended, or the attempt to make one.
    pub(crate) fn snapshot_reported(&mut self, to: NodeId, sent: Option<(Term, Index)>, ok: bool) {
        let is_of_now = self.role == Role::Leader && sent.is_none_or(|(term, _)| term == self.term);
        if let Some(place) = self.find_peer(to).filter(|_| is_of_now) {
            let index = sent.map(|(_, index)| index);
            self.peers[place].snapshot_reported(index, ok, self.now, self.heartbeat_interval_ms);
        }
    }

    /// A message could not be sent.
    pub(crate) fn unreachable(&mut self, id: NodeId) {
        if let Some(place) = self.find_peer(id).filter(|_| self.role == Role::Leader) {
            self.peers[place].unreachable();
        }
    }

    /// The leader that we follow sends a snapshot. Accepted only when disk has it, like entries; refused as something
    /// that is known already, which tells the leader where we are.
    pub(crate) fn take_snapshot(&mut self, from: NodeId, snapshot: Snapshot) {
        let Snapshot { index, term, .. } = snapshot;
        let concerns_us = index > self.log.committed() && snapshot.conf.contains(self.id);
        if concerns_us && self.log.term(index) == Some(term) {
            // The entries are here; there is only more of them committed than we knew.
            self.log.commit_to(index);
        } else if concerns_us {
            self.log.restore((index, term));
            self.set_conf(snapshot.conf.clone());
            self.restored = Some(snapshot);
        }
        let index = self.log.committed();
        self.send_durable(from, Body::AppendResponse { index, reject: None });
    }

    /// What a follower gets whose next entry is not kept any more.
    pub(crate) fn want_snapshot(&mut self, place: usize) {
        let applied = self.log.applied();
        let peer = &mut self.peers[place];
        // Who does not answer at all needs none yet.
        if peer.active && !peer.waits_after_failure(self.now) {
            peer.needs_snapshot(applied, self.now);
            let to = peer.id;
            self.out.push(Effect::SnapshotWanted { to });
        }
    }

    /// From where on the log is kept for followers that get a snapshot and are there, or take one over; and how many bytes
    /// of it at most.
    pub(crate) fn kept_for_snapshots(&self) -> Option<(Index, usize)> {
        let since = self.now.minus_ms(2 * self.election_timeout_ms);
        let kept_from = self.peers.iter().filter_map(|peer| peer.kept_from(self.now, since)).min()?;
        let doublings = self.peers.iter().map(Progress::kept_doublings).max().unwrap_or(0);
        Some((kept_from, self.limits.snapshot_kept_bytes_max << doublings))
    }
}
