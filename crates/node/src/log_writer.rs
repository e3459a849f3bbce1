//! The WAL thread's part: everything that is queued goes out in one group, with one fdatasync.

use disk::wal;
use raft::{Entry, EntryKind, HardState, PersistSeq, Position, Term};

use crate::Error;

/// More than a record's frame adds to an entry's data.
const FRAME_OVERHEAD_BYTES: usize = 64;
/// More than what a new segment begins with.
const SEGMENT_HEAD_BYTES: u64 = 1024;

/// What consensus asks to be made durable: raft's `Persist`.
#[derive(Clone, Debug)]
pub struct PersistRequest {
    /// Names the request in the answer.
    pub seq: PersistSeq,
    /// The term in which it was issued.
    pub term: Term,
    /// The last entry of the log when it was issued.
    pub last: Position,
    /// The state to write behind the entries, if it changed.
    pub hard_state: Option<HardState>,
    /// Entries without gaps.
    pub entries: Vec<Entry>,
}

/// Says that a request, and all before it, is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persisted {
    /// The last request of the group.
    pub seq: PersistSeq,
    /// Its term.
    pub term: Term,
    /// Its last entry.
    pub last: Position,
}

/// What one group's write made true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupWritten {
    /// For consensus.
    pub persisted: Persisted,
    /// Every entry up to here is durable: what the revision log may follow to (rule 2).
    pub durable_index: u64,
    /// Bytes of entry payloads in the group.
    pub payload_bytes: u64,
}

/// Writes groups to the write-ahead log.
pub struct LogWriter {
    wal: wal::Wal,
    durable_index: u64,
    has_room: bool,
}

impl LogWriter {
    /// Takes over an open log whose last durable entry is `durable_index`.
    pub fn new(wal: wal::Wal, durable_index: u64) -> Self {
        LogWriter { wal, durable_index, has_room: true }
    }

    /// Writes and syncs all requests as one group; `None` if there is none.
    ///
    /// # Errors
    /// The failed write or sync. Nothing may be acknowledged any more, and the member must stop (rule 7).
    pub fn write(&mut self, group: &[PersistRequest]) -> Result<Option<GroupWritten>, Error> {
        let Some(last) = group.last() else { return Ok(None) };
        let mut payload_bytes = 0;
        for request in group {
            payload_bytes += request.entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
            self.wal.append(request.entries.iter().map(entry), request.hard_state.map(hard_state))?;
        }
        self.wal.sync()?;
        // Entries of a later term replace those from their first index on; the log then ends with the last request.
        self.durable_index = last.last.0.0;
        let persisted = Persisted { seq: last.seq, term: last.term, last: last.last };
        Ok(Some(GroupWritten { persisted, durable_index: self.durable_index, payload_bytes }))
    }

    /// The allocation of the next segment, if that is due: to be run where it delays no group, on any thread, its
    /// outcome handed to [`LogWriter::prepared`]. At most one may be under way.
    pub fn preparation(&self) -> Option<wal::Preparation> {
        self.wal.preparation()
    }

    /// Takes the outcome of a preparation.
    ///
    /// # Errors
    /// Any failure but a full disk; that one shows in [`LogWriter::has_room`].
    pub fn prepared(&mut self, outcome: Result<wal::Prepared, wal::Error>) -> Result<(), Error> {
        match outcome {
            Ok(prepared) => {
                self.wal.adopt(prepared);
                self.has_room = true;
            }
            Err(error) if error.is_storage_full() => self.has_room = false,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Whether a group has to wait for the next segment: none is allocated, and it does not surely fit into what is
    /// left of the present one. To write it all the same would allocate in its midst, where a full disk ends the
    /// member (rule 7).
    pub fn must_wait(&self, group: &[PersistRequest]) -> bool {
        self.wal.preparation().is_some() && !self.has_room_for(group)
    }

    /// Whether a group surely needs no other segment than those that are allocated.
    pub fn has_room_for(&self, group: &[PersistRequest]) -> bool {
        let entries = || group.iter().flat_map(|request| &request.entries);
        let bytes: usize = entries().map(|entry| entry.data.len() + FRAME_OVERHEAD_BYTES).sum();
        let bytes = (bytes + group.len() * FRAME_OVERHEAD_BYTES) as u64;
        let next = self.wal.prepared_bytes();
        let here = self.wal.room_bytes() - next;
        // What does not fit here any more goes on in the next one, and the rest of this one stays empty.
        bytes < here || bytes + SEGMENT_HEAD_BYTES < next
    }

    /// Whether the next segment is allocated, or is not due yet. While it is not, requests that add data are
    /// refused, and the rest goes on in what is left of the present segment (rule 7).
    pub fn has_room(&self) -> bool {
        self.has_room
    }

    /// Every entry up to here is durable.
    pub fn durable_index(&self) -> u64 {
        self.durable_index
    }
}

fn entry(entry: &Entry) -> wal::EntryRef<'_> {
    let kind = match entry.kind {
        EntryKind::Normal => wal::EntryKind::Normal,
        EntryKind::ConfChange => wal::EntryKind::ConfChange,
        EntryKind::ConfChangeV2 => wal::EntryKind::ConfChangeV2,
    };
    wal::EntryRef { term: entry.term.0, index: entry.index.0, kind, data: &entry.data }
}

fn hard_state(state: HardState) -> wal::HardState {
    wal::HardState { term: state.term.0, vote: state.vote.map_or(0, |id| id.0), commit: state.commit.0 }
}
