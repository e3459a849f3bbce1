//! Proposals whose fate nobody will ever tell, since the leader that had them is not the leader any more.
//!
//! What a member hands to a leader is in that leader's log or lost with it, and only time tells. Once an entry of a later
//! leader is applied here, all that it has taken over from earlier terms is applied too: what has had no answer by then
//! gets none, and its caller is told at once that it is unknown (rule 15). Ids of a lane ascend, so the last one that was
//! handed over says which.

use std::collections::VecDeque;

use raft::Term;

use crate::RequestId;
use crate::ids::RequestIds;

/// Changes of leader that are told apart while nothing is applied; of more, the oldest are told later.
const MARKS_MAX: usize = 8;

/// Of each lane, the last proposal whose fate is unknown unless it was answered. So are all before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostProposals(Vec<Option<RequestId>>);

impl LostProposals {
    /// The last one of a lane.
    pub fn last(&self, lane: usize) -> Option<RequestId> {
        self.0.get(lane).copied().flatten()
    }

    /// Whether the proposal, which `ids` have made, is one of them.
    pub fn covers(&self, ids: &RequestIds, id: RequestId) -> bool {
        let last = ids.origin(id).and_then(|lane| self.last(lane));
        last.is_some_and(|last| ids.is_at_or_before(id, last))
    }
}

/// Which proposals are at risk.
#[derive(Debug)]
pub(crate) struct Fates {
    ids: RequestIds,
    handed: LostProposals,
    /// Whether anything was handed over since the last mark.
    is_new: bool,
    /// The last term in which the marked proposals may have been handed over, and which; the oldest first.
    marks: VecDeque<(Term, LostProposals)>,
}

impl Fates {
    pub(crate) fn new(ids: RequestIds) -> Self {
        Fates { ids, handed: LostProposals::default(), is_new: false, marks: VecDeque::new() }
    }

    /// The proposal is handed to whoever leads.
    pub(crate) fn handed(&mut self, id: RequestId) {
        let Some(lane) = self.ids.origin(id) else { return };
        if self.handed.0.len() <= lane {
            self.handed.0.resize(lane + 1, None);
        }
        self.handed.0[lane] = Some(id);
        self.is_new = true;
    }

    /// Another term than `term` has begun, in which everything was handed over that is not marked.
    pub(crate) fn term_ended(&mut self, term: Term) {
        if !std::mem::take(&mut self.is_new) {
            return;
        }
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back((term, self.handed.clone()));
    }

    /// An entry of `term` is applied: what is lost by it.
    pub(crate) fn applied(&mut self, term: Term) -> Option<LostProposals> {
        let mut lost = None;
        while self.marks.front().is_some_and(|(handed_in, _)| *handed_in < term) {
            lost = self.marks.pop_front().map(|(_, marked)| marked);
        }
        lost
    }

    /// Entries were passed over, any of which may have been handed over here.
    pub(crate) fn all(&mut self) -> Option<LostProposals> {
        self.marks.clear();
        self.is_new = false;
        (!self.handed.0.is_empty()).then(|| self.handed.clone())
    }

    pub(crate) fn check(&self) {
        assert!(self.marks.len() <= MARKS_MAX, "{} marks", self.marks.len());
        assert!(self.marks.iter().is_sorted_by_key(|(term, _)| *term), "marks out of order");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_leader_had_is_lost_when_a_later_one_has_something_applied() {
        let ids = RequestIds::new(u64::MAX - 3, 2);
        let (mut first, mut second) = (ids.lane(0), ids.lane(1));
        let mut fates = Fates::new(ids);
        let old = [first.next(), second.next(), first.next(), second.next()];
        old.iter().for_each(|id| fates.handed(*id));
        fates.term_ended(Term(2));
        let new = first.next();
        fates.handed(new);
        assert_eq!(fates.applied(Term(2)), None, "its own leader may still have it");
        let lost = fates.applied(Term(3)).expect("a later leader has none of it");
        for id in old {
            assert!(lost.covers(&ids, id), "{id:?}");
        }
        assert!(!lost.covers(&ids, new), "it was handed to the new leader");
        assert!(!lost.covers(&ids, second.next()), "it was handed to nobody yet");
        assert_eq!(fates.applied(Term(4)), None, "it is said once");
        fates.check();
    }

    #[test]
    fn of_too_many_changes_the_oldest_is_told_with_the_next() {
        let ids = RequestIds::new(7, 1);
        let mut lane = ids.lane(0);
        let mut fates = Fates::new(ids);
        let first = lane.next();
        fates.handed(first);
        fates.term_ended(Term(1));
        for term in 2..20 {
            fates.handed(lane.next());
            fates.term_ended(Term(term));
            fates.check();
        }
        assert_eq!(fates.applied(Term(2)), None);
        assert!(fates.applied(Term(20)).expect("all are lost").covers(&ids, first));
    }
}
