//! What must hold in every run (Raft paper, figure 3), checked from outside: by what leaves a member and what lies on
//! its disk, not by what it says of itself.

use std::collections::BTreeMap;

use raft::*;

use super::journal::Journal;

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
    /// How often the membership was changed.
    pub changes: usize,
}

impl Safety {
    /// Election safety, and leader completeness: the new leader has all that is committed.
    pub fn elected(&mut self, id: NodeId, term: Term, log: &Journal) {
        let leader = *self.leaders.entry(term).or_insert(id);
        assert_eq!(leader, id, "two leaders in term {term}");
        for (index, entry) in self.committed.range(log.start.0.next()..) {
            assert_eq!(log.get(*index), Some(entry), "leader {id} of term {term} lacks a committed entry");
        }
    }

    /// Log matching: index and term name an entry, and the one before it. `log` already holds `new`. And one change of
    /// membership at a time: before the next one is in any log, the last one is known to be committed.
    pub fn wrote(&mut self, log: &Journal, new: &[Entry]) {
        for entry in new {
            let before = log.term(entry.index.prev()).expect("there is no gap");
            let known =
                self.entries.entry((entry.index, entry.term)).or_insert_with(|| (entry.clone(), before));
            assert_eq!(known, &(entry.clone(), before), "two entries of one index and term");
        }
        if new.iter().any(|entry| entry.kind.is_conf_change()) {
            let open = log.entries.iter().rev().take_while(|entry| entry.index > self.commit);
            let changes = open.filter(|entry| entry.kind.is_conf_change()).count();
            assert!(changes <= 1, "{changes} changes of membership under way in one log");
        }
    }

    /// State machine safety: what is handed out to apply is the same everywhere.
    pub fn committed(&mut self, entry: &Entry) {
        if let Some(known) = self.committed.get(&entry.index) {
            assert_eq!(known, entry, "two entries applied at one index");
            return;
        }
        self.changes += usize::from(entry.kind.is_conf_change());
        self.committed.insert(entry.index, entry.clone());
    }

    /// Durability: when a leader says that an entry is committed, a majority of those who vote in its eyes has it on disk.
    pub fn leader_commits<'a>(
        &self,
        last: Position,
        voters: &[NodeId],
        disk: impl Fn(NodeId) -> Option<&'a Journal>,
    ) {
        let has = |id: &&NodeId| disk(**id).is_some_and(|disk| disk.has(last));
        let (with, all) = (voters.iter().filter(has).count(), voters.len());
        assert!(2 * with > all, "entry {} is committed, but on {with} of {all} disks", last.0);
    }

    /// A snapshot stands for what is committed, and nothing else.
    pub fn restored(&self, index: Index, state: &[Entry]) {
        assert_eq!(state.len() as u64, index.0, "a snapshot of {index} holds something else");
        let known = self.committed.range(..=index).map(|(_, entry)| entry);
        assert!(state.iter().eq(known), "the snapshot of {index} is not what was committed");
    }

    pub fn committed_to(&mut self, commit: Index) {
        self.commit = self.commit.max(commit);
    }

    /// What a message promises is on its sender's disk when it leaves (design rule 1). And one vote a term, crash or not.
    pub fn left(&mut self, message: &Message, state: &HardState, log: &Journal) {
        let Message { from, to, term, .. } = *message;
        match message.body {
            Body::AppendResponse { index, reject: None } => {
                assert!(log.last() >= index, "{from} accepts {index}, but its disk ends at {}", log.last());
            }
            Body::Vote { .. } => {
                assert!(state.term >= term, "{from} asks for votes in a term that it may forget")
            }
            Body::VoteResponse { reject: false } => {
                assert!(
                    state.term > term || state.term == term && state.vote == Some(to),
                    "{from} may forget its vote"
                );
                let candidate = *self.votes.entry((from, term)).or_insert(to);
                assert_eq!(candidate, to, "{from} votes twice in term {term}");
            }
            _ => {}
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
