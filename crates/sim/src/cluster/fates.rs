//! What becomes of requests whose leader goes (rule 15): as soon as a later leader's entry is applied where they were
//! asked, all that came of them is applied too, and whoever has no answer then is told that it gets none.
//!
//! This is worked out from outside: when consensus took a request in, and in which term it next knew whom to hand it to.

use std::collections::BTreeMap;

use node::RequestId;

use super::host::Host;
use super::world::World;

/// Terms of which a member keeps apart what it handed over in them, while nothing is applied; of more, the oldest are told
/// with the next.
const TERMS_MAX: usize = 8;

/// Where the requests of one run of a member went.
#[derive(Debug, Default)]
pub struct Fates {
    /// Taken in, while nobody was known to lead or leadership was being handed over.
    held: Vec<u64>,
    /// Handed over, by the term.
    handed: BTreeMap<u64, Vec<u64>>,
}

impl World {
    /// Consensus of a host's member has made a step: it has taken these requests in, and perhaps heard that an entry of
    /// this term is applied.
    pub(super) fn follow_fates(&mut self, host: usize, taken: Vec<RequestId>, applied_term: Option<u64>) {
        let Some((running, _)) = &self.hosts[host].member else { return };
        let status = running.parts.consensus.status();
        let fates = &mut self.hosts[host].fates;
        fates.held.extend(taken.into_iter().map(|id| id.0));
        if !fates.held.is_empty() && status.leader.is_some() && status.transferee.is_none() {
            fates.handed.entry(status.term.0).or_default().append(&mut fates.held);
        }
        let Some(term) = applied_term else { return };
        let later = fates.handed.split_off(&term);
        let earlier = std::mem::replace(&mut fates.handed, later);
        if earlier.len() + fates.handed.len() > TERMS_MAX {
            return;
        }
        let Host { open, changes, .. } = &self.hosts[host];
        for (handed_in, id) in earlier.iter().flat_map(|(term, ids)| ids.iter().map(move |id| (term, id))) {
            assert!(
                !open.contains(id) && !changes.contains(id),
                "request {id:x} of host {host} was handed over in term {handed_in}, an entry of term {term} is applied, \
                 and nobody is told"
            );
        }
    }

    /// Somebody leads, and everything is applied: only what is lost on the way to this very leader may have no answer.
    pub(super) fn check_fates(&self, host: usize) {
        let Some((running, _)) = &self.hosts[host].member else { return };
        // Who was removed hears nothing any more, and stops.
        if self.hosts[host].is_removed {
            return;
        }
        let term = running.parts.consensus.status().term.0;
        let handed_now = self.hosts[host].fates.handed.get(&term);
        for id in &self.hosts[host].open {
            let is_handed_now = handed_now.is_some_and(|handed| handed.contains(id));
            assert!(is_handed_now, "request {id:x} of host {host} has no answer, and none in term {term}");
        }
    }
}
