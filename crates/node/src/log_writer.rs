//! The WAL thread's part: everything that is queued goes out in one group, with one fdatasync.

use disk::wal;
use raft::{Entry, EntryKind, HardState, PersistSeq, Position, Term};

use crate::Error;

/// More than a record's frame adds to an entry's data, and more than the frame of a hard state takes.
const FRAME_OVERHEAD_BYTES: usize = 64;

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
    /// The record of a snapshot whose file is durable, to write behind the state.
    pub snapshot: Option<wal::SnapshotRecord>,
    /// Whether it is a leader's, which stands for the log so far: then it is written before the state that commits it.
    pub restores: bool,
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

/// What one group came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The last request that is done; `None` if none is.
    pub persisted: Option<Persisted>,
    /// The snapshot that the log names now: the next may be taken, and what it covers given back.
    pub snapshot_index: Option<u64>,
    /// Whether that is a leader's: the member has to go over to it.
    pub restored: bool,
}

/// Writes groups to the write-ahead log.
pub struct LogWriter {
    wal: wal::Wal,
    /// How many segments stay; 0 for all.
    keep: usize,
    /// The snapshot up to which segments may be released, and up to which they were.
    snapshot_index: u64,
    released_index: u64,
    has_room: bool,
    /// Bytes of the frame that waits for the next segment; 0 if none does.
    waiting_frame_bytes: u64,
}

impl LogWriter {
    /// Takes over an open log, of which at least `keep` segments stay (`--max-wals`), or all if that is 0. Entries up to
    /// `snapshot_index` are needed no more.
    pub(crate) fn new(wal: wal::Wal, keep: usize, snapshot_index: u64) -> Self {
        LogWriter { wal, keep, snapshot_index, released_index: 0, has_room: true, waiting_frame_bytes: 0 }
    }

    /// Has somebody hear of each group that is written from now on.
    pub fn watch(&mut self, watch: Box<dyn wal::WriteWatch>) {
        self.wal.watch(watch);
    }

    /// Writes and syncs requests as one group, as many as surely fit into what is allocated, and takes them out of
    /// `group`: of the last one perhaps only the first entries. What stays has to wait for the next segment. To write
    /// it all the same would allocate in the group's midst, where a full disk ends the member (rule 7).
    ///
    /// # Errors
    /// The failed write or sync. Nothing may be acknowledged any more, and the member must stop (rule 7).
    pub fn write(&mut self, group: &mut Vec<PersistRequest>) -> Result<Written, Error> {
        let (whole, entries) = self.fitting(group);
        let mut done = Written::default();
        for request in group.drain(..whole) {
            let PersistRequest { seq, term, last, hard_state: state, entries, snapshot, restores } = request;
            let mut state = state.map(hard_state).filter(|state| *state != self.wal.hard_state());
            let committing = if restores { state.take() } else { None };
            self.wal.append(entries.iter().map(entry), state)?;
            if let Some(record) = snapshot {
                self.wal.append_snapshot(&record, committing)?;
                done.snapshot_index = Some(record.index);
            }
            done.restored |= restores;
            done.persisted = Some(Persisted { seq, term, last });
        }
        if let Some(first) = group.first_mut().filter(|_| entries > 0) {
            let part: Vec<Entry> = first.entries.drain(..entries).collect();
            self.wal.append(part.iter().map(entry), None)?;
        }
        self.wal.sync()?;
        self.snapshot_index = done.snapshot_index.unwrap_or(self.snapshot_index);
        Ok(done)
    }

    /// The giving back of segments, if that is due: to be run where it delays no group, on any thread, before the next
    /// one.
    pub fn release(&mut self) -> Option<wal::Release> {
        if self.released_index == self.snapshot_index {
            return None;
        }
        self.released_index = self.snapshot_index;
        self.wal.release(self.snapshot_index, self.keep)
    }

    /// How many requests fit whole, and how many entries of the one behind them.
    fn fitting(&mut self, group: &[PersistRequest]) -> (usize, usize) {
        self.waiting_frame_bytes = 0;
        let mut here = self.wal.room_bytes();
        // The usual case, without a look at each entry.
        let entry_bytes = |entry: &Entry| (entry.data.len() + FRAME_OVERHEAD_BYTES) as u64;
        let entries = group.iter().flat_map(|request| &request.entries);
        let snapshot_bytes =
            |request: &PersistRequest| request.snapshot.as_ref().map(|record| record.frame_bytes());
        let overhead = (group.len() * FRAME_OVERHEAD_BYTES) as u64
            + group.iter().filter_map(snapshot_bytes).sum::<u64>();
        if entries.map(entry_bytes).sum::<u64>() + overhead <= here {
            return (group.len(), 0);
        }
        let mut next = self.wal.next_room_bytes();
        let mut fits = |bytes: u64| {
            if bytes > here {
                if bytes > next {
                    self.waiting_frame_bytes = bytes;
                    return false;
                }
                here = std::mem::take(&mut next);
            }
            here -= bytes;
            true
        };
        for (whole, request) in group.iter().enumerate() {
            let entries = request.entries.iter().take_while(|entry| fits(entry_bytes(entry))).count();
            let is_whole = entries == request.entries.len()
                && (request.hard_state.is_none() || fits(FRAME_OVERHEAD_BYTES as u64))
                && snapshot_bytes(request).is_none_or(&mut fits);
            if !is_whole {
                return (whole, entries);
            }
        }
        (group.len(), 0)
    }

    /// The allocation of the next segment, if that is due: to be run where it delays no group, on any thread, its
    /// outcome handed to [`LogWriter::prepared`]. At most one may be under way.
    pub fn preparation(&mut self) -> Option<wal::Preparation> {
        self.wal.preparation(self.waiting_frame_bytes)
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

    /// Whether the next segment is allocated, or is not due yet. While it is not, requests that add data are
    /// refused, and the rest goes on in what is left of the present segment (rule 7).
    pub fn has_room(&self) -> bool {
        self.has_room
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
