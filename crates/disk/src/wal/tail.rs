//! What a row of records means: the log's entries after all replacements, the hard state, the snapshots; and
//! which rows mean nothing, since a term, a commit index or an index steps back.
//!
//! Entries are not kept, only where they are: a run for each stretch of one term in one segment, so a log of
//! any length is checked in memory that grows with segments, terms and replacements only.

use super::decode::{self, Refusal};
use super::frame::RecordKind;
use super::{EntryRef, HardState, Position, SnapshotRecord};

/// Where a frame begins, and the running sum before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Which of the segments that were opened.
    pub segment: usize,
    pub offset: u64,
    pub sum: u32,
}

/// Entries `first..` of one term that stand in this order in one segment, up to where the next run begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub first: u64,
    pub term: u64,
    pub place: Place,
}

/// The log as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Tail {
    metadata: Option<Vec<u8>>,
    state: Option<HardState>,
    snapshots: Vec<SnapshotRecord>,
    /// What the entries follow; unknown while older segments are missing and nothing has told.
    base: Option<Position>,
    runs: Vec<Run>,
    /// Index of the last entry, if there are runs.
    last: u64,
    /// Records since the segment's beginning.
    records: u64,
    /// Whether the segment is the first that the log ever had.
    in_first: bool,
}

impl Tail {
    /// A segment begins; `first_ever` if it is number 0.
    pub(super) fn begin_segment(&mut self, first_ever: bool) {
        self.records = 0;
        self.in_first = first_ever;
        if first_ever {
            self.base = Some(Position::default());
        }
    }

    /// Whether what is written before a segment gets its name has been read.
    pub(super) fn header_is_complete(&self) -> bool {
        self.records >= if self.in_first { 3 } else { 2 }
    }

    /// Takes the next record. `sum` is the record's own.
    ///
    /// # Errors
    /// What is wrong with a record that verifies.
    pub(super) fn push(
        &mut self,
        kind: RecordKind,
        data: &[u8],
        place: Place,
        sum: u32,
    ) -> Result<(), Refusal> {
        let position = self.records;
        self.records += 1;
        let expected = match position {
            0 => Some(RecordKind::Crc),
            1 => Some(RecordKind::Metadata),
            2 if self.in_first => Some(RecordKind::Snapshot),
            _ => None,
        };
        let is_head = matches!(kind, RecordKind::Crc | RecordKind::Metadata);
        if expected.is_some_and(|expected| expected != kind) || (expected.is_none() && is_head) {
            return Err("a record of this type does not belong here");
        }
        match kind {
            RecordKind::Crc if self.in_first && sum != 0 => Err("the first sum is not zero"),
            RecordKind::Crc => Ok(()),
            RecordKind::Metadata => self.push_metadata(data),
            RecordKind::State => self.push_state(decode::state(data)?),
            RecordKind::Snapshot => self.push_snapshot(decode::snapshot(data)?),
            RecordKind::Entry => self.push_entry(&decode::entry(data)?, place),
        }
    }

    fn push_metadata(&mut self, data: &[u8]) -> Result<(), Refusal> {
        match &self.metadata {
            Some(metadata) if metadata != data => Err("the metadata differs from the older segments'"),
            Some(_) => Ok(()),
            None => {
                self.metadata = Some(data.to_vec());
                Ok(())
            }
        }
    }

    fn push_state(&mut self, state: HardState) -> Result<(), Refusal> {
        let before = self.state.unwrap_or_default();
        if state.term < before.term {
            return Err("the term steps back");
        }
        if state.commit < before.commit {
            return Err("the commit index steps back");
        }
        self.state = Some(state);
        Ok(())
    }

    fn push_snapshot(&mut self, snapshot: SnapshotRecord) -> Result<(), Refusal> {
        // Above the commit index, a leader's snapshot may well contradict what a follower had.
        let contradicts = self.term_at(snapshot.index).is_some_and(|term| term != snapshot.term);
        if contradicts && snapshot.index <= self.commit() {
            return Err("the snapshot's term is not that of the committed entry");
        }
        self.snapshots.push(snapshot);
        Ok(())
    }

    fn push_entry(&mut self, entry: &EntryRef<'_>, place: Place) -> Result<(), Refusal> {
        if entry.index <= self.commit() {
            return Err("an entry replaces a committed one");
        }
        self.restart_at_snapshot(entry.index - 1);
        if let Some(last) = self.last_index()
            && entry.index > last + 1
        {
            return Err("entries are missing before this one");
        }
        if self.base.is_some_and(|base| entry.index <= base.index) {
            return Err("an entry replaces one in a snapshot");
        }
        if self.term_at(entry.index - 1).is_some_and(|term| entry.term < term) {
            return Err("the term steps back");
        }
        let continues = self.runs.last().is_some_and(|run| {
            entry.index == self.last + 1 && run.term == entry.term && run.place.segment == place.segment
        });
        if !continues {
            self.runs.retain(|run| run.first < entry.index);
            self.runs.push(Run { first: entry.index, term: entry.term, place });
        }
        self.last = entry.index;
        Ok(())
    }

    /// If the log does not hold what a snapshot at `index` says, raft went on from the snapshot instead.
    fn restart_at_snapshot(&mut self, index: u64) {
        let Some(snapshot) = self.snapshots.iter().rev().find(|snapshot| snapshot.index == index) else {
            return;
        };
        if self.term_at(index) != Some(snapshot.term) {
            self.restart(Position { term: snapshot.term, index });
        }
    }

    fn restart(&mut self, base: Position) {
        self.runs.clear();
        self.base = Some(base);
    }

    /// All records were read: settles which snapshots count and checks the whole.
    ///
    /// # Errors
    /// What is missing or contradicts.
    pub(super) fn finish(&mut self) -> Result<(), Refusal> {
        let commit = self.commit();
        self.snapshots.retain(|snapshot| snapshot.index <= commit);
        let Some(newest) = self.snapshots.iter().max_by_key(|snapshot| snapshot.index) else {
            return Err("no snapshot record at or below the commit index");
        };
        let newest = Position { term: newest.term, index: newest.index };
        let first = self.first_index();
        if first.is_some_and(|first| first > newest.index + 1) {
            return Err("entries are missing between the newest snapshot and the first entry");
        }
        // What the snapshot has overtaken or contradicts is no part of the log any more.
        let contradicts = self.term_at(newest.index).is_some_and(|term| term != newest.term);
        if contradicts || self.last_index().is_none_or(|last| last < newest.index) {
            self.restart(newest);
        }
        if self.last_index().is_none_or(|last| commit > last) {
            return Err("the commit index is above the last entry and the newest snapshot");
        }
        Ok(())
    }

    fn commit(&self) -> u64 {
        self.state.map_or(0, |state| state.commit)
    }

    /// The metadata of the log; empty before the first segment's was read.
    pub(super) fn metadata(&self) -> &[u8] {
        self.metadata.as_deref().unwrap_or_default()
    }

    pub(super) fn state(&self) -> Option<HardState> {
        self.state
    }

    pub(super) fn snapshots(&self) -> &[SnapshotRecord] {
        &self.snapshots
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Index of the first entry that is still there.
    pub(super) fn first_index(&self) -> Option<u64> {
        self.runs.first().map(|run| run.first)
    }

    /// Index of the last entry, or of what the entries would follow.
    fn last_index(&self) -> Option<u64> {
        if self.runs.is_empty() { self.base.map(|base| base.index) } else { Some(self.last) }
    }

    /// The last entry, or what the entries would follow.
    pub(super) fn last(&self) -> Position {
        match self.runs.last() {
            Some(run) => Position { term: run.term, index: self.last },
            None => self.base.unwrap_or_default(),
        }
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        if let Some(base) = self.base.filter(|base| base.index == index) {
            return Some(base.term);
        }
        if self.runs.is_empty() || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|run| run.first <= index);
        self.runs[..after].last().map(|run| run.term)
    }
}
