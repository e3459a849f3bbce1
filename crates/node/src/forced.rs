//! `--force-new-cluster`: a member of a cluster that is lost for good goes on alone, with its data and its ids.
//!
//! As in etcd (server/etcdserver/bootstrap.go) nothing is replaced: entries that were not committed as far as this
//! member's own disk tells are dropped, and behind the others come changes of membership by which everybody else is
//! removed, as if all of them had been committed.

use std::collections::BTreeMap;

use bytes::Bytes;
use disk::wal::{self, Wal};
use prost::Message as _;
use raft::{ConfState, Entry, EntryKind, HardState, Index};
use wire::raftpb::{ConfChange, ConfChangeType};

use crate::reconfigure::Context;
use crate::{Change, Error, RequestId};

/// The peer URL of a member that its cluster does not know; etcd's.
const PEER_URL: &str = "http://localhost:2380";

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forced {
    /// Entries that were dropped, since they were not committed as far as known here.
    pub discarded: u64,
    /// Members that were removed.
    pub removed: Vec<u64>,
}

/// Drops what is not committed of `entries`, and appends to them, and to the log, what leaves `own` alone. `conf` is the
/// membership of consensus at `applied`.
///
/// # Errors
/// A failed operation, or a change of membership that cannot be read; the member must stop.
pub(crate) fn force(
    wal: &mut Wal,
    own: u64,
    (conf, applied): (&ConfState, Index),
    hard_state: &mut HardState,
    entries: &mut Vec<Entry>,
) -> Result<Forced, Error> {
    // What was applied was committed, whether the hard state has come to say so or not.
    let commit = hard_state.commit.max(applied);
    let kept = entries.partition_point(|entry| entry.index <= commit);
    let discarded = (entries.len() - kept) as u64;
    entries.truncate(kept);
    let members = effective(conf, entries.iter().filter(|entry| entry.index > applied))?;
    let changes = changes(own, &members);
    let first = commit.0 + 1;
    let appended = changes.into_iter().enumerate().map(|(at, data)| Entry {
        term: hard_state.term,
        index: Index(first + at as u64),
        kind: EntryKind::ConfChange,
        data: Bytes::from(data),
    });
    entries.extend(appended);
    let last = entries.last().map_or(commit, |entry| entry.index.max(commit));
    hard_state.commit = last;
    let new = entries.iter().skip(kept).map(|entry| wal::EntryRef {
        term: entry.term.0,
        index: entry.index.0,
        kind: wal::EntryKind::ConfChange,
        data: &entry.data,
    });
    let vote = hard_state.vote.map_or(0, |id| id.0);
    let state = wal::HardState { term: hard_state.term.0, vote, commit: last.0 };
    wal.append(new.collect::<Vec<_>>(), Some(state))?;
    wal.sync()?;
    let removed = members.into_keys().filter(|id| *id != own).collect();
    Ok(Forced { discarded, removed })
}

/// The members after these entries, and whether each is a learner.
fn effective<'a>(
    conf: &ConfState,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<BTreeMap<u64, bool>, Error> {
    let voters = conf.voters.iter().map(|id| (id.0, false));
    let learners = conf.learners.iter().map(|id| (id.0, true));
    let mut members: BTreeMap<u64, bool> = voters.chain(learners).collect();
    for entry in entries.filter(|entry| entry.kind == EntryKind::ConfChange) {
        let unreadable = |reason: String| Error::Apply { index: entry.index.0, reason };
        let change = ConfChange::decode(entry.data.clone()).map_err(|error| unreadable(error.to_string()))?;
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode => drop(members.insert(change.node_id(), false)),
            ConfChangeType::ConfChangeAddLearnerNode => drop(members.insert(change.node_id(), true)),
            ConfChangeType::ConfChangeRemoveNode => drop(members.remove(&change.node_id())),
            ConfChangeType::ConfChangeUpdateNode => {}
        }
    }
    Ok(members)
}

/// The changes that leave `own` alone, with a vote: that comes first, lest nobody has one in between.
fn changes(own: u64, members: &BTreeMap<u64, bool>) -> Vec<Vec<u8>> {
    // Nobody waits for them.
    let nobody = RequestId(0);
    let joins = match members.get(&own) {
        None => {
            let peer_urls = [PEER_URL.to_owned()];
            let context = Context { id: own, peer_urls: Some(&peer_urls), ..Context::default() };
            let add = ConfChange {
                id: None,
                r#type: Some(ConfChangeType::ConfChangeAddNode.into()),
                node_id: Some(own),
                context: Some(context.encode().into()),
            };
            Some(add.encode_to_vec())
        }
        // etcd ends on a cluster in which nobody votes.
        Some(true) => Some(Change::Promote { id: own }.encode(nobody)),
        Some(false) => None,
    };
    let others = members.keys().filter(|id| **id != own);
    joins.into_iter().chain(others.map(|id| Change::Remove { id: *id }.encode(nobody))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(own: u64, members: &[(u64, bool)]) -> Vec<(ConfChangeType, u64)> {
        let members = members.iter().copied().collect();
        let decode = |data: Vec<u8>| {
            let change = ConfChange::decode(&data[..]).expect("a change");
            (change.r#type(), change.node_id())
        };
        changes(own, &members).into_iter().map(decode).collect()
    }

    #[test]
    fn everybody_else_is_removed_once_this_member_votes() {
        use ConfChangeType::{ConfChangeAddNode as Add, ConfChangeRemoveNode as Remove};
        assert_eq!(described(2, &[(2, false)]), []);
        assert_eq!(
            described(2, &[(1, false), (2, false), (3, true)]),
            [(Remove, 1), (Remove, 3)],
            "learners too"
        );
        assert_eq!(described(2, &[(1, false), (2, true)]), [(Add, 2), (Remove, 1)]);
        assert_eq!(described(2, &[(1, false)]), [(Add, 2), (Remove, 1)]);
    }
}
