//! Who takes part: changes one at a time, effective when applied (design rule 16; Raft thesis, 4.1 to 4.3).

use crate::progress::Progress;
use crate::{ConfState, NodeId, Raft, Role};

impl Raft {
    /// The state machine has applied a change.
    pub(crate) fn conf_applied(&mut self, conf: ConfState) {
        assert!(conf.is_valid(), "invalid membership applied: {conf:?}");
        if self.log.awaits_state() {
            // From before the snapshot that was taken over meanwhile, which has brought its own.
            return;
        }
        let was_voter = self.conf.is_voter(self.id);
        self.set_conf(conf);
        let is_voter = self.conf.is_voter(self.id);
        if self.role == Role::Leader && !is_voter {
            self.leave();
        } else if self.role == Role::Leader {
            self.quorum_changed();
        } else if is_voter && !was_voter {
            // Its timer ran while it did not matter.
            self.rearm_election();
        }
    }

    /// A leader that has no vote any more hands leadership over. Did it only step down, nobody else might know that the
    /// change is committed, and they would need its vote, which it does not give to a shorter log.
    fn leave(&mut self) {
        self.quorum_changed();
        self.hand_over();
    }

    /// Entries and reads that waited for who is not counted any more may be done; who is new hears of the log.
    fn quorum_changed(&mut self) {
        if self.transfer.is_some_and(|transfer| !self.conf.is_voter(transfer.to)) {
            self.transfer = None;
        }
        if !self.commit_by_quorum() {
            self.broadcast_append(false);
        }
        self.answer_confirmed_reads();
    }

    /// Members that stay keep what is known of them; new ones count as just heard, to get a chance to answer.
    pub(crate) fn set_conf(&mut self, conf: ConfState) {
        let mut ids: Vec<NodeId> = conf.voters.iter().chain(&conf.learners).copied().collect();
        ids.sort_unstable();
        let mut old = std::mem::take(&mut self.peers);
        for id in ids.into_iter().filter(|id| *id != self.id) {
            let peer = match old.iter().position(|peer| peer.id == id) {
                Some(place) => old.swap_remove(place),
                None => {
                    // One entry back, so that there is something to send at once.
                    let last = self.log.last_index().prev();
                    let mut peer = Progress::new(id, last, self.now, &self.limits);
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

    /// The place of a member in `peers`.
    pub(crate) fn find_peer(&self, id: NodeId) -> Option<usize> {
        self.peers.binary_search_by_key(&id, |peer| peer.id).ok()
    }

    pub(crate) fn peer(&self, id: NodeId) -> usize {
        self.find_peer(id).expect("a voter that is not this member is a peer")
    }
}
