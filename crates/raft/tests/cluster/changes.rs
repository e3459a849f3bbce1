//! Changes of membership as the tests' state machine knows them.

use raft::*;

/// What the membership is after this entry; `None` if the entry changes nothing, or asks for what makes no sense, which
/// is a no-op on all members. `conf 1 2 / 3` sets voters and learners; `add`, `learner` and `remove` are the steps
/// that etcd makes, and adding a learner as a voter promotes it. `remove` leaves at least two voters, `strip` one.
pub fn after(entry: &Entry, now: &ConfState) -> Option<ConfState> {
    if entry.kind == EntryKind::Normal {
        return None;
    }
    let text = std::str::from_utf8(&entry.data).ok()?;
    let (verb, rest) = text.split_once(' ')?;
    let ids = |text: &str| -> Vec<NodeId> {
        text.split_whitespace().map(|id| NodeId(id.parse().expect("an id"))).collect()
    };
    if verb == "conf" {
        let (voters, learners) = rest.split_once('/').unwrap_or((rest, ""));
        return Some(ConfState { voters: ids(voters), learners: ids(learners) });
    }
    let id = *ids(rest).first()?;
    let mut next = now.clone();
    let had_vote = next.is_voter(id);
    next.voters.retain(|voter| *voter != id);
    next.learners.retain(|learner| *learner != id);
    match verb {
        "add" if !had_vote => next.voters.push(id),
        "learner" if !had_vote => next.learners.push(id),
        "remove" if next.voters.len() > 1 || !had_vote => {}
        "strip" => {}
        _ => return None,
    }
    next.voters.sort_unstable();
    next.learners.sort_unstable();
    (!next.voters.is_empty() && next != *now).then_some(next)
}

/// What the membership is after all of these.
pub fn after_all(entries: &[Entry], first: &ConfState) -> ConfState {
    entries.iter().fold(first.clone(), |conf, entry| after(entry, &conf).unwrap_or(conf))
}

pub fn is_change(payload: &str) -> bool {
    ["conf ", "add ", "learner ", "remove ", "strip "].iter().any(|verb| payload.starts_with(verb))
}
