//! The log in memory: the tail that is not yet durable and applied, and what is kept of older entries for slow
//! followers. Five marks run over it:
//!
//! ```text
//! before <= min(durable, applied)      what is released is on disk and in the state machine
//! durable <= persisting <= last        on this member's disk | handed to Persist
//! applied <= applying <= committed <= last
//! ```
//!
//! `applied` may run ahead of `durable`: a quorum without this member's disk commits too.
//!
//! A snapshot from the leader stands for everything up to `before`, while disk and state machine are still on their way
//! there: until both have said so, the log [is restoring](Log::is_restoring), and the first line does not hold.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{Entry, EntryKind, Index, Limits, Position, Term};

#[derive(Debug)]
pub(crate) struct Log {
    /// The entry just before the first of `entries`.
    before: Position,
    /// The last snapshot from a leader in this run.
    snapshot: Index,
    entries: VecDeque<Entry>,
    /// Which of them are changes of membership.
    changes: VecDeque<Index>,
    persisting: Index,
    durable: Index,
    committed: Index,
    applying: Index,
    applied: Index,
    /// Size of the entries above `floor()`: not yet both durable and applied.
    waiting_bytes: usize,
    /// Size of the entries in `applied..=applying`.
    applying_bytes: usize,
    /// Size of all entries.
    total_bytes: usize,
}

impl Log {
    /// A log of which everything is durable. The shell's input was checked before.
    pub(crate) fn new(before: Position, entries: Vec<Entry>, committed: Index, applied: Index) -> Self {
        let last = entries.last().map_or(before.0, |entry| entry.index);
        // A leader proposes a change of membership only when it has applied the one before, so this one is committed,
        // whatever was written of that. It must be applied before the member stands for election: two changes apart,
        // majorities need not meet (design rule 16).
        let changes: VecDeque<Index> =
            entries.iter().filter(|entry| entry.kind.is_conf_change()).map(|entry| entry.index).collect();
        let committed = changes.iter().rev().nth(1).map_or(committed, |index| committed.max(*index));
        let total_bytes = entries.iter().map(Entry::size).sum();
        let waiting_bytes = entries.iter().filter(|entry| entry.index > applied).map(Entry::size).sum();
        Self {
            before,
            snapshot: Index::ZERO,
            entries: entries.into(),
            changes,
            persisting: last,
            durable: last,
            committed,
            applying: applied,
            applied,
            waiting_bytes,
            applying_bytes: 0,
            total_bytes,
        }
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.back().map_or(self.before, |entry| (entry.index, entry.term))
    }

    pub(crate) fn last_index(&self) -> Index {
        self.last().0
    }

    /// The first entry that is still here, or the next one.
    pub(crate) fn first_index(&self) -> Index {
        self.before.0.next()
    }

    pub(crate) fn durable(&self) -> Index {
        self.durable
    }

    pub(crate) fn committed(&self) -> Index {
        self.committed
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    /// Everything up to here is both durable and applied, or will never come here any more.
    pub(crate) fn floor(&self) -> Index {
        self.durable.min(self.applied).max(self.before.0)
    }

    /// Whether disk or state machine have not yet taken over the leader's snapshot.
    pub(crate) fn is_restoring(&self) -> bool {
        self.durable.min(self.applied) < self.before.0
    }

    /// Whether the state machine has not.
    pub(crate) fn awaits_state(&self) -> bool {
        self.applied < self.before.0
    }

    /// Goes on from a snapshot of committed entries, which is handed to disk and state machine now.
    pub(crate) fn restore(&mut self, (index, term): Position) {
        assert!(index > self.committed, "snapshot {index} though {} is committed", self.committed);
        self.before = (index, term);
        self.snapshot = index;
        self.entries.clear();
        self.changes.clear();
        // Beyond what was committed, the disk has entries that may be none of this log.
        self.durable = self.durable.min(self.committed);
        self.persisting = index;
        self.committed = index;
        self.applying = index;
        self.waiting_bytes = 0;
        self.applying_bytes = 0;
        self.total_bytes = 0;
    }

    /// How many entries are not yet both durable and applied.
    pub(crate) fn waiting_entries(&self) -> usize {
        (self.last_index().0 - self.floor().0) as usize
    }

    /// Their size.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    fn slot(&self, index: Index) -> usize {
        (index.0 - self.before.0.0 - 1) as usize
    }

    /// The term of an entry; `None` if it was released or is not there yet.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index == self.before.0 {
            return Some(self.before.1);
        }
        (index > self.before.0).then(|| self.entries.get(self.slot(index))).flatten().map(|entry| entry.term)
    }

    /// Puts a new entry at the end.
    pub(crate) fn push(&mut self, term: Term, kind: EntryKind, data: Bytes) {
        let (last, last_term) = self.last();
        assert!(term >= last_term, "an entry of term {term} after one of term {last_term}");
        self.push_entry(Entry { term, index: last.next(), kind, data });
    }

    fn push_entry(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last_index().next(), "a gap in the log");
        self.waiting_bytes += entry.size();
        self.total_bytes += entry.size();
        if entry.kind.is_conf_change() {
            self.changes.push_back(entry.index);
        }
        self.entries.push_back(entry);
    }

    /// Takes off the front of a leader's entries, which follow an entry that is the same here, what is already here,
    /// and drops what is here and contradicts the rest. What is already here stays, with all behind it: an old append
    /// must not cut off what a newer one brought (Raft thesis, 3.5). Whether anything was dropped: then the rest must be
    /// taken, lest the disk keeps what the log has not.
    pub(crate) fn keep_common(&mut self, entries: &mut Vec<Entry>) -> bool {
        let is_new = |entry: &Entry| self.term(entry.index) != Some(entry.term);
        let known = entries.iter().position(is_new).unwrap_or(entries.len());
        entries.drain(..known);
        let conflict = entries.first().map(|entry| entry.index).filter(|index| *index <= self.last_index());
        if let Some(index) = conflict {
            self.cut(index);
        }
        conflict.is_some()
    }

    /// Puts a leader's entries at the end, of which none is here.
    pub(crate) fn extend(&mut self, entries: Vec<Entry>) {
        entries.into_iter().for_each(|entry| self.push_entry(entry));
    }

    /// Whether disk or state machine are behind with what they could do now: entries that are not yet durable, or
    /// committed and not applied.
    pub(crate) fn has_backlog(&self) -> bool {
        self.durable < self.last_index() || self.applied < self.committed
    }

    /// Drops everything from `from` on.
    fn cut(&mut self, from: Index) {
        assert!(from > self.committed, "cut at {from} though {} is committed", self.committed);
        while self.last_index() >= from {
            let entry = self.entries.pop_back().expect("what is not committed is not released");
            self.total_bytes -= entry.size();
            // Above `floor()`, since that is at most `committed`.
            self.waiting_bytes -= entry.size();
        }
        while self.changes.back().is_some_and(|index| *index >= from) {
            self.changes.pop_back();
        }
        self.persisting = self.persisting.min(from.prev());
        self.durable = self.durable.min(from.prev());
    }

    /// The highest index at or below `index` whose entry could be the same in another log that has an entry of `term`
    /// there: one of a later term could not, since terms only grow along a log. Returned with its term, or zero where
    /// that is not known any more.
    pub(crate) fn possible_match(&self, index: Index, term: Term) -> Position {
        let mut guess = index.min(self.last_index());
        while guess > Index::ZERO {
            match self.term(guess) {
                Some(own) if own > term => guess = guess.prev(),
                Some(own) => return (guess, own),
                None => return (guess, Term(0)),
            }
        }
        (guess, Term(0))
    }

    /// Entries from `from` on, at least one if there is one, up to `bytes_max`.
    pub(crate) fn slice(&self, from: Index, bytes_max: usize) -> Vec<Entry> {
        self.bounded(from, self.last_index(), bytes_max)
    }

    fn bounded(&self, from: Index, through: Index, bytes_max: usize) -> Vec<Entry> {
        if from > through {
            return Vec::new();
        }
        let candidates = self.entries.range(self.slot(from)..=self.slot(through));
        let mut bytes = 0;
        let mut count = 0;
        for entry in candidates.clone() {
            bytes += entry.size();
            if bytes > bytes_max && count > 0 {
                break;
            }
            count += 1;
        }
        candidates.take(count).cloned().collect()
    }

    /// What is to be written now: everything that was not handed out before.
    pub(crate) fn take_unwritten(&mut self) -> Vec<Entry> {
        let from = self.persisting.next();
        self.persisting = self.last_index();
        if from > self.persisting {
            return Vec::new();
        }
        self.entries.range(self.slot(from)..).cloned().collect()
    }

    pub(crate) fn has_unwritten(&self) -> bool {
        self.persisting < self.last_index()
    }

    /// The disk has everything up to `last`, unless that was replaced meanwhile. Whether that is news.
    pub(crate) fn persisted(&mut self, last: Position) -> bool {
        // An equal position means equal logs up to there, so whatever of it was on its way is on disk. An index that
        // was released is older than `durable`, hence no news.
        if last.0 <= self.durable || self.term(last.0) != Some(last.1) {
            return false;
        }
        assert!(last.0 <= self.persisting, "{} was never handed out, only {}", last.0, self.persisting);
        let floor = self.floor();
        self.durable = last.0;
        self.lower_waiting(floor);
        true
    }

    /// Commits up to `index`, which is in the log.
    pub(crate) fn commit_to(&mut self, index: Index) {
        assert!(index <= self.last_index(), "commit {index} beyond the last entry {}", self.last_index());
        self.committed = self.committed.max(index);
    }

    /// What is to be applied now, in order: committed, not handed out before, and within `bytes_max` together with
    /// what is still being applied.
    pub(crate) fn take_applicable(&mut self, bytes_max: usize) -> Vec<Entry> {
        let blocked = self.applying > self.applied && self.applying_bytes >= bytes_max;
        if self.applying == self.committed || blocked || self.awaits_state() {
            return Vec::new();
        }
        let room = bytes_max.saturating_sub(self.applying_bytes);
        let mut entries = self.bounded(self.applying.next(), self.committed, room);
        let first_does_not_fit = entries.first().is_some_and(|entry| entry.size() > room);
        if first_does_not_fit && self.applying > self.applied {
            entries.clear();
        }
        if let Some(entry) = entries.last() {
            self.applying = entry.index;
            self.applying_bytes += entries.iter().map(Entry::size).sum::<usize>();
        }
        entries
    }

    /// The state machine has applied everything up to `index`.
    pub(crate) fn applied_to(&mut self, index: Index) {
        assert!(index <= self.applying, "{index} applied, but only {} was handed out", self.applying);
        if index <= self.applied {
            return;
        }
        if self.awaits_state() {
            // Of the log before the snapshot, or the snapshot itself: none of it is counted.
            self.applied = index;
            return;
        }
        let newly = self.slot(self.applied.next())..=self.slot(index);
        self.applying_bytes -= self.entries.range(newly).map(Entry::size).sum::<usize>();
        let floor = self.floor();
        self.applied = index;
        self.lower_waiting(floor);
    }

    fn lower_waiting(&mut self, old_floor: Index) {
        let floor = self.floor();
        if floor > old_floor {
            let newly = self.slot(old_floor.next())..=self.slot(floor);
            self.waiting_bytes -= self.entries.range(newly).map(Entry::size).sum::<usize>();
        }
    }

    /// Whether a change of membership is committed and not yet applied.
    pub(crate) fn has_unapplied_conf_change(&self) -> bool {
        self.has_conf_change(self.applied, self.committed)
    }

    /// Whether there is a change of membership after `after`, up to `through`.
    pub(crate) fn has_conf_change(&self, after: Index, through: Index) -> bool {
        self.changes.iter().rev().any(|index| *index > after && *index <= through)
    }

    /// The entries that are not reported applied, committed or not.
    pub(crate) fn unapplied(&self) -> impl Iterator<Item = &Entry> {
        self.entries.range(self.slot(self.applied.next())..)
    }

    /// Gives back what is durable, applied, and needed by nobody: all up to `needed`, and beyond that whatever exceeds
    /// the bounds on what is kept. What is after `pinned` has a bound of its own, in bytes: a follower will need it when it has the
    /// snapshot of there.
    pub(crate) fn release(&mut self, needed: Index, pinned: Option<(Index, usize)>, limits: &Limits) {
        let floor = self.floor();
        while self.before.0 < floor {
            let kept_entries = (floor.0 - self.before.0.0) as usize;
            let kept_bytes = self.total_bytes - self.waiting_bytes;
            let is_needed = self.before.0 >= needed;
            let is_pinned =
                pinned.is_some_and(|(pinned, bytes_max)| self.before.0 >= pinned && kept_bytes <= bytes_max);
            let fits = kept_entries <= limits.kept_entries_max && kept_bytes <= limits.kept_bytes_max;
            if is_needed && (fits || is_pinned) {
                break;
            }
            let entry = self.entries.pop_front().expect("the floor is within the log");
            self.total_bytes -= entry.size();
            self.before = (entry.index, entry.term);
        }
        while self.changes.front().is_some_and(|index| *index <= self.before.0) {
            self.changes.pop_front();
        }
    }

    /// Every invariant of the log.
    pub(crate) fn check(&self) {
        let last = self.last_index();
        let (released, restored) = (self.before.0, self.snapshot);
        assert!(!self.is_restoring() || released == restored, "{released} released, {restored} restored");
        assert!(self.durable <= self.persisting, "durable {} written {}", self.durable, self.persisting);
        assert!(self.persisting <= last, "written {} last {last}", self.persisting);
        assert!(self.applied <= self.applying, "applied {} applying {}", self.applied, self.applying);
        assert!(self.applying <= self.committed, "applying {} committed {}", self.applying, self.committed);
        assert!(self.committed <= last, "committed {} last {last}", self.committed);
        let (mut index, mut term) = self.before;
        for entry in &self.entries {
            assert_eq!(entry.index, index.next(), "a gap in the log");
            assert!(entry.term >= term, "term {} after term {term} at {}", entry.term, entry.index);
            (index, term) = (entry.index, entry.term);
        }
        let changes =
            self.entries.iter().filter(|entry| entry.kind.is_conf_change()).map(|entry| entry.index);
        assert!(changes.eq(self.changes.iter().copied()), "changes of membership: {:?}", self.changes);
        let sum = |keep: &dyn Fn(&Entry) -> bool| {
            self.entries.iter().filter(|entry| keep(entry)).map(Entry::size).sum::<usize>()
        };
        assert_eq!(self.total_bytes, sum(&|_| true), "size of all entries");
        assert_eq!(self.waiting_bytes, sum(&|entry| entry.index > self.floor()), "size of waiting entries");
        assert!(!self.awaits_state() || self.applying == self.before.0, "applying beside a snapshot");
        let applying = |entry: &Entry| entry.index > self.applied && entry.index <= self.applying;
        assert_eq!(self.applying_bytes, sum(&applying), "size of entries being applied");
    }
}
