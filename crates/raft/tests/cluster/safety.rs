//! What must hold in every run (Raft paper, figure 3), checked from outside: by what leaves a member and what lies on
//! its disk, not by what it says of itself.

use std::collections::BTreeMap;

use raft::*;

#[derive(Default)]
pub struct Safety {
    leaders: BTreeMap<Term, NodeId>,
    /// What any member has applied or is about to.
    committed: BTreeMap<Index, Entry>,
    /// Each entry ever made, with the term of the one before it.
    entries: BTreeMap<Position, (Entry, Term)>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// The highest commit index of any member so far.
    commit: Index,
    /// For each read under way, that index when it began.
    reads: BTreeMap<u64, Index>,
    pub reads_ready: usize,
}

impl Safety {
    /// Election safety, and leader completeness: the new leader has all that is committed.
    pub fn elected(&mut self, id: NodeId, term: Term, log: &[Entry]) {
        let leader = *self.leaders.entry(term).or_insert(id);
        assert_eq!(leader, id, "two leaders in term {term}");
        for (index, entry) in &self.committed {
            let own = log.get(index.0 as usize - 1);
            assert_eq!(own, Some(entry), "leader {id} of term {term} lacks a committed entry");
        }
    }

    /// Log matching: index and term name an entry, and the one before it. `log` already holds `new`.
    pub fn wrote(&mut self, log: &[Entry], new: &[Entry]) {
        for entry in new {
            let place = entry.index.0 as usize - 1;
            let before = place.checked_sub(1).map_or(Term(0), |before| log[before].term);
            let known =
                self.entries.entry((entry.index, entry.term)).or_insert_with(|| (entry.clone(), before));
            assert_eq!(known, &(entry.clone(), before), "two entries of one index and term");
        }
    }

    /// State machine safety, and durability: when an entry is first known to be committed, a majority's disks have it.
    pub fn committed<'a>(&mut self, entry: &Entry, disks: impl Iterator<Item = &'a [Entry]>) {
        if let Some(known) = self.committed.get(&entry.index) {
            assert_eq!(known, entry, "two entries applied at one index");
            return;
        }
        let (mut with, mut all) = (0, 0);
        for disk in disks {
            all += 1;
            with += usize::from(disk.get(entry.index.0 as usize - 1) == Some(entry));
        }
        assert!(2 * with > all, "entry {} is committed, but on {with} of {all} disks", entry.index);
        self.committed.insert(entry.index, entry.clone());
    }

    pub fn committed_to(&mut self, commit: Index) {
        self.commit = self.commit.max(commit);
    }

    /// One vote a term, crash or not.
    pub fn left(&mut self, message: &Message) {
        if let Body::VoteResponse { reject: false } = message.body {
            let candidate = *self.votes.entry((message.from, message.term)).or_insert(message.to);
            assert_eq!(candidate, message.to, "{} votes twice in term {}", message.from, message.term);
        }
    }

    pub fn read_begins(&mut self, context: u64) {
        self.reads.entry(context).or_insert(self.commit);
    }

    /// A read sees all that was committed when it began.
    pub fn read_ready(&mut self, context: u64, index: Index) {
        let begun = self.reads.remove(&context).expect("a read is answered once, and only if asked for");
        assert!(index >= begun, "stale read: {index} answered, {begun} was committed when it began");
        self.reads_ready += 1;
    }

    pub fn read_refused(&mut self, context: u64) {
        self.reads.remove(&context).expect("a read is answered once, and only if asked for");
    }
}
