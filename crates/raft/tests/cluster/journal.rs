//! What is on a disk, or believed to be: entries behind a snapshot.

use raft::*;

#[derive(Clone, Default)]
pub struct Journal {
    /// The snapshot's place, or before the first entry.
    pub start: Position,
    pub entries: Vec<Entry>,
}

impl Journal {
    fn place(&self, index: Index) -> Option<usize> {
        index.0.checked_sub(self.start.0.0 + 1).map(|place| place as usize)
    }

    pub fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get(self.place(index)?)
    }

    pub fn term(&self, index: Index) -> Option<Term> {
        if index == self.start.0 { Some(self.start.1) } else { self.get(index).map(|entry| entry.term) }
    }

    /// Whether this entry is here, or in the snapshot, which stands for what is committed.
    pub fn has(&self, (index, term): Position) -> bool {
        index < self.start.0 || self.term(index) == Some(term)
    }

    pub fn last(&self) -> Index {
        self.start.0.plus(self.entries.len())
    }

    /// Each entry replaces its index and all after it.
    pub fn write(&mut self, new: &[Entry]) {
        for entry in new {
            let place = self.place(entry.index).expect("nothing is written before the snapshot");
            assert!(place <= self.entries.len(), "a gap in what is written");
            self.entries.truncate(place);
            self.entries.push(entry.clone());
        }
    }

    pub fn restore(&mut self, start: Position) {
        self.start = start;
        self.entries.clear();
    }

    /// Everything behind this place.
    pub fn after(&self, offset: Index) -> Vec<Entry> {
        self.entries[(offset.0 - self.start.0.0) as usize..].to_vec()
    }
}
