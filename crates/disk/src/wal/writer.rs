//! Appending: records gather in one buffer, one write and one fdatasync make them durable.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::encode::{
    HEAD_BYTES_MAX, Head, frame_bytes_max, message_bytes, push_plain, push_record, snapshot,
};
use super::error::Context;
use super::frame::RecordKind;
use super::opened::Opened;
use super::segment::{self, Preparation, Prepared, Release, SegmentName, UNFINISHED};
use super::{EntryRef, Error, HardState, Limits, Position, Result, SnapshotRecord};
use crate::{Access, File, Fs};

/// Mode of the log's folder, as etcd's.
const DIR_MODE: u32 = 0o700;

/// Hears of the steps by which a group of records becomes durable. The clock is its own.
pub trait WriteWatch: Send {
    /// The group is about to be written.
    fn begin(&mut self);

    /// So many bytes were written.
    fn written(&mut self, bytes: u64);

    /// They were synced.
    fn synced(&mut self);
}

/// A log that is written to. It belongs to one thread.
///
/// What is appended counts for nothing before [`Wal::sync`] has returned. After an error of `append`,
/// `append_snapshot` or `sync` every further call fails: the member must end (rule 7).
pub struct Wal {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    limits: Limits,
    metadata: Vec<u8>,
    /// The segment that is written to.
    file: Arc<dyn File>,
    path: PathBuf,
    /// Length that the segment is allocated to, bytes.
    segment_bytes: u64,
    /// Where `buf` goes in the segment.
    offset: u64,
    /// Records appended and not yet written; its memory is used again and again.
    buf: Vec<u8>,
    /// The running sum after the last record in `buf`.
    sum: u32,
    state: HardState,
    last: Position,
    durable: Position,
    prepared: Option<Prepared>,
    /// The name of the segment that is written to.
    name: SegmentName,
    /// Older segments, the oldest first; open for their locks, as long as they are needed.
    older: VecDeque<(SegmentName, Option<Arc<dyn File>>)>,
    failed: Option<String>,
    watch: Option<Box<dyn WriteWatch>>,
}

impl Wal {
    /// Makes a new log with this metadata, durably: after a crash it is there whole or not at all. What an
    /// earlier, interrupted creation left is removed. The folder above must exist.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is a log; a failed operation.
    pub fn create(fs: Arc<dyn Fs>, dir: &Path, metadata: &[u8], limits: Limits) -> Result<Wal> {
        if Wal::exists(&*fs, dir)? {
            return Err(Error::Exists(dir.to_owned()));
        }
        let name = SegmentName { seq: 0, index: 0 };
        let mut unfinished = dir.as_os_str().to_owned();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        if fs.exists(&unfinished).context("look for unfinished wal", &unfinished)? {
            for name in fs.list(&unfinished).context("list unfinished wal", &unfinished)? {
                let path = unfinished.join(name);
                fs.remove(&path).context("remove unfinished wal", &path)?;
            }
        }
        if fs.exists(dir).context("look for wal folder", dir)? {
            segment::remove_unfinished(&*fs, dir)?;
        }
        fs.create_dir_all(&unfinished, DIR_MODE).context("create wal folder", &unfinished)?;

        let path = unfinished.join(name.to_string());
        let file = fs.open(&path, Access::CreateNew).context("create wal segment", &path)?;
        let mut buf = Vec::new();
        let sum = push_plain(&mut buf, RecordKind::Crc, 0, &[]);
        let sum = push_plain(&mut buf, RecordKind::Metadata, sum, metadata);
        let first = snapshot(&SnapshotRecord::default());
        let sum = push_plain(&mut buf, RecordKind::Snapshot, sum, &first);
        let offset = buf.len() as u64;
        let segment_bytes = limits.segment_bytes.max(offset);
        segment::allocate(&*file, &path, segment_bytes)?;
        file.write_all_at(&buf, 0).context("write wal segment", &path)?;
        file.sync_data().context("sync wal segment", &path)?;
        fs.sync_dir(&unfinished).context("sync wal folder", &unfinished)?;
        fs.rename(&unfinished, dir).context("rename wal folder", dir)?;
        let above = folder_above(dir);
        fs.sync_dir(above).context("sync folder of the wal", above)?;

        buf.clear();
        Ok(Wal {
            fs,
            path: dir.join(name.to_string()),
            dir: dir.to_owned(),
            limits,
            metadata: metadata.to_vec(),
            file,
            segment_bytes,
            offset,
            buf,
            sum,
            state: HardState::default(),
            last: Position::default(),
            durable: Position::default(),
            prepared: None,
            name,
            older: VecDeque::new(),
            failed: None,
            watch: None,
        })
    }

    /// Whether a folder holds a log.
    ///
    /// # Errors
    /// A failed operation.
    pub fn exists(fs: &dyn Fs, dir: &Path) -> Result<bool> {
        Ok(fs.exists(dir).context("look for wal folder", dir)? && !segment::list(fs, dir)?.is_empty())
    }

    /// Locks, reads and checks a log from its first record to its last, and writes nothing.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is none, [`Error::Locked`] if it is in use, [`Error::Damaged`] with file and
    /// offset if it is not whole; a failed operation.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path, limits: Limits) -> Result<Opened> {
        Opened::read(fs, dir, limits)
    }

    /// See [`Opened::into_writer`].
    pub(super) fn take_over(opened: Opened) -> Result<Wal> {
        let Opened { fs, dir, limits, mut segments, tail, sum, offset, dirty, lost_lengths, .. } = opened;
        for lost in &lost_lengths {
            let segment = &segments[lost.segment];
            let field = lost.field.to_le_bytes();
            segment.file.write_all_at(&field, lost.offset).context("repair wal segment", &segment.path)?;
            segment.file.sync_data().context("sync wal segment", &segment.path)?;
        }
        let Some(newest) = segments.pop() else { return Err(Error::Missing(dir)) };
        if dirty {
            newest.file.set_len(offset).context("repair wal segment", &newest.path)?;
        }
        let mut segment_bytes = newest.len.max(limits.segment_bytes);
        if dirty || newest.len < segment_bytes {
            match newest.file.allocate(segment_bytes).context("allocate wal segment", &newest.path) {
                // A full disk ends nothing (rule 7): the log goes on in the next segment, once there is room for it.
                Err(error) if error.is_storage_full() => {
                    segment_bytes = if dirty { offset } else { newest.len }
                }
                allocated => allocated?,
            }
        }
        // What was read may be in the page cache only, and a name may be in memory only; from here on both count.
        newest.file.sync_data().context("sync wal segment", &newest.path)?;
        segment::remove_unfinished(&*fs, &dir)?;
        fs.sync_dir(&dir).context("sync wal folder", &dir)?;
        let above = folder_above(&dir);
        fs.sync_dir(above).context("sync folder of the wal", above)?;
        Ok(Wal {
            metadata: tail.metadata().to_vec(),
            state: tail.state().unwrap_or_default(),
            last: tail.last(),
            durable: tail.last(),
            fs,
            dir,
            limits,
            file: newest.file,
            path: newest.path,
            name: newest.name,
            segment_bytes,
            offset,
            buf: Vec::new(),
            sum,
            prepared: None,
            older: segments.into_iter().map(|segment| (segment.name, Some(segment.file))).collect(),
            failed: None,
            watch: None,
        })
    }

    /// Has somebody hear of each group that is written from now on.
    pub fn watch(&mut self, watch: Box<dyn WriteWatch>) {
        self.watch = Some(watch);
    }

    /// Appends entries and then the hard state, if it is given, to the group. When the segment is full the
    /// group goes on in the next one; what is in the full one is synced first.
    ///
    /// Entries come before the hard state, so that no torn group has a commit index without its entries; it
    /// may have entries of a term that the hard state does not know yet.
    ///
    /// # Errors
    /// A failed operation, and every call after one.
    ///
    /// # Panics
    /// If an entry leaves a gap or replaces a committed one, or the hard state's term or commit steps back or
    /// the commit is beyond the last entry: such a log would not be opened again.
    pub fn append<'a>(
        &mut self,
        entries: impl IntoIterator<Item = EntryRef<'a>>,
        state: Option<HardState>,
    ) -> Result<()> {
        self.latched(|wal| {
            for entry in entries {
                wal.append_entry(&entry)?;
            }
            if let Some(state) = state {
                wal.append_state(state)?;
            }
            Ok(())
        })
    }

    /// Appends a snapshot record and then, if it is given, the hard state to the group.
    ///
    /// A snapshot at or below the commit index is this member's own and changes nothing of the log. One above
    /// it is a leader's: the log goes on after it, and the hard state has to commit it. The record comes first
    /// since a torn group may then have a snapshot above its commit index, which readers ignore, but never a
    /// commit index that covers what the snapshot was to replace.
    ///
    /// # Errors
    /// A failed operation, and every call after one.
    ///
    /// # Panics
    /// If the commit index is below the snapshot (rule 3), the snapshot has no ConfState, or the hard state
    /// steps back.
    pub fn append_snapshot(&mut self, record: &SnapshotRecord, state: Option<HardState>) -> Result<()> {
        let commit = state.unwrap_or(self.state).commit;
        assert!(record.index <= commit, "snapshot {} above commit {commit}", record.index);
        assert!(record.conf_state.is_some(), "snapshot {} without ConfState", record.index);
        self.latched(|wal| {
            let data = snapshot(record);
            wal.make_room(frame_bytes_max(data.len()))?;
            wal.sum = push_plain(&mut wal.buf, RecordKind::Snapshot, wal.sum, &data);
            if record.index > wal.state.commit {
                wal.last = Position { term: record.term, index: record.index };
            }
            if let Some(state) = state {
                wal.append_state(state)?;
            }
            Ok(())
        })
    }

    /// Writes the group and makes it durable: one write, one fdatasync. An empty group costs nothing.
    ///
    /// # Errors
    /// A failed operation, and every call after one. It is unknown then what of the group is on the disk.
    pub fn sync(&mut self) -> Result<()> {
        self.latched(Wal::write_group)
    }

    /// The last entry (or snapshot beyond it) that is known to be on the disk.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// The last hard state appended.
    pub fn hard_state(&self) -> HardState {
        self.state
    }

    /// Bytes of frames that still go into the segment that is written to.
    pub fn room_bytes(&self) -> u64 {
        self.segment_bytes.saturating_sub(self.offset + self.buf.len() as u64)
    }

    /// Bytes of frames that go into the segment that is allocated for later; 0 if there is none. A frame is not
    /// divided: what does not fit here any more goes there, and the rest of this one stays empty.
    pub fn next_room_bytes(&self) -> u64 {
        self.prepared.as_ref().map_or(0, |prepared| prepared.bytes.saturating_sub(self.head_bytes_max()))
    }

    /// The work of allocating the next segment, long enough for a frame of `frame_bytes`, if that is not done yet: run
    /// it on any thread, and hand the outcome to [`Wal::adopt`]. At most one may be under way; while one is, nothing
    /// may be rolled without it. A segment that is allocated already and too short is given up for the longer one.
    pub fn preparation(&mut self, frame_bytes: u64) -> Option<Preparation> {
        let needed = self.head_bytes_max() + frame_bytes;
        if self.prepared.as_ref().is_some_and(|prepared| prepared.bytes >= needed) {
            return None;
        }
        self.prepared = None;
        let bytes = self.limits.segment_bytes.max(needed);
        Some(Preparation { fs: self.fs.clone(), dir: self.dir.clone(), bytes })
    }

    /// What a segment begins with takes no more than this, bytes.
    fn head_bytes_max(&self) -> u64 {
        frame_bytes_max(0) + frame_bytes_max(self.metadata.len()) + frame_bytes_max(HEAD_BYTES_MAX)
    }

    /// Takes a segment that was prepared elsewhere.
    pub fn adopt(&mut self, prepared: Prepared) {
        self.prepared = Some(prepared);
    }

    /// Allocates the next segment here and now, unless that is done.
    ///
    /// # Errors
    /// [`Error::is_storage_full`] if there is no room: the log still works up to [`Wal::room_bytes`], and
    /// NOSPACE is due (rule 7). Any other error ends the member, as if it came from `sync`.
    pub fn prepare_next(&mut self) -> Result<()> {
        self.prepare_for(0)
    }

    fn prepare_for(&mut self, frame_bytes: u64) -> Result<()> {
        if let Some(preparation) = self.preparation(frame_bytes) {
            self.prepared = Some(preparation.run()?);
        }
        Ok(())
    }

    /// The work of giving back the segments that a member needs no more which has all up to `index` elsewhere, and whose
    /// snapshot record there is durable (rule 3); none if there is nothing to give. At least `keep` segments stay
    /// (`--max-wals`), the one that is written to among them; 0 keeps all.
    ///
    /// What is not needed and stays nevertheless is not kept open: with `--max-wals=0` that may be any number of files.
    ///
    /// The segment with the entry at `index` stays, as in etcd, and so does all behind it. A segment's name says where
    /// it was to begin; what it replaced of older ones was not committed then, so no later entry that counts is in them.
    pub fn release(&mut self, index: u64, keep: usize) -> Option<Release> {
        let names = self.older.iter().map(|(name, _)| name.index).chain([self.name.index]);
        let unneeded = names.take_while(|first| *first < index).count().saturating_sub(1);
        let beyond = (self.older.len() + 1).saturating_sub(keep);
        let count = unneeded.min(if keep == 0 { 0 } else { beyond });
        let released = self.older.drain(..count);
        let segments: Vec<_> = released.map(|(name, file)| (self.dir.join(name.to_string()), file)).collect();
        self.older.iter_mut().take(unneeded - count).for_each(|(_, file)| *file = None);
        (!segments.is_empty()).then(|| Release { fs: self.fs.clone(), dir: self.dir.clone(), segments })
    }

    fn append_entry(&mut self, entry: &EntryRef<'_>) -> Result<()> {
        let EntryRef { term, index, .. } = *entry;
        assert!(term > 0 && index > 0, "entry {index} of term {term}");
        assert!(index > self.state.commit, "entry {index} replaces a committed one ({})", self.state.commit);
        assert!(index <= self.last.index + 1, "entry {index} leaves a gap after {}", self.last.index);
        let follows = index == self.last.index + 1;
        assert!(!follows || term >= self.last.term, "term {term} after {}", self.last.term);
        let head = Head::entry(entry);
        self.make_room(frame_bytes_max(message_bytes(&head, entry.data)))?;
        self.sum = push_record(&mut self.buf, RecordKind::Entry, self.sum, &head, entry.data);
        self.last = Position { term, index };
        Ok(())
    }

    fn append_state(&mut self, state: HardState) -> Result<()> {
        let before = self.state;
        assert!(state.term > 0 && state.term >= before.term, "term {} after {}", state.term, before.term);
        assert!(state.commit >= before.commit, "commit {} after {}", state.commit, before.commit);
        assert!(state.commit <= self.last.index, "commit {} beyond {}", state.commit, self.last.index);
        let head = Head::state(&state);
        self.make_room(frame_bytes_max(message_bytes(&head, &[])))?;
        self.sum = push_record(&mut self.buf, RecordKind::State, self.sum, &head, &[]);
        self.state = state;
        Ok(())
    }

    /// Goes on in the next segment if a frame does not fit into this one.
    fn make_room(&mut self, frame_bytes: u64) -> Result<()> {
        let end = self.offset + self.buf.len() as u64;
        if end + frame_bytes > self.segment_bytes {
            self.write_group()?;
            self.roll(frame_bytes)?;
        }
        Ok(())
    }

    fn write_group(&mut self) -> Result<()> {
        if !self.buf.is_empty() {
            let bytes = self.buf.len() as u64;
            self.tell(|watch| watch.begin());
            self.file.write_all_at(&self.buf, self.offset).context("write wal segment", &self.path)?;
            self.tell(|watch| watch.written(bytes));
            self.file.sync_data().context("sync wal segment", &self.path)?;
            self.tell(|watch| watch.synced());
            self.offset += bytes;
            self.buf.clear();
        }
        self.durable = self.last;
        Ok(())
    }

    fn tell(&mut self, tell: impl FnOnce(&mut dyn WriteWatch)) {
        if let Some(watch) = &mut self.watch {
            tell(&mut **watch);
        }
    }

    /// Begins the next segment, with room for `frame_bytes` more. The full one is whole and synced.
    fn roll(&mut self, frame_bytes: u64) -> Result<()> {
        self.prepare_for(frame_bytes)?;
        let Some(prepared) = self.prepared.take() else { return Ok(()) };
        let Prepared { file, path: unfinished, bytes } = prepared;
        // The group's buffer is empty here and serves for the header.
        let mut header = std::mem::take(&mut self.buf);
        let sum = push_plain(&mut header, RecordKind::Crc, self.sum, &[]);
        let mut sum = push_plain(&mut header, RecordKind::Metadata, sum, &self.metadata);
        if self.state.term > 0 {
            let head = Head::state(&self.state);
            sum = push_record(&mut header, RecordKind::State, sum, &head, &[]);
        }
        let header_bytes = header.len() as u64;
        assert!(header_bytes + frame_bytes <= bytes, "{header_bytes} and {frame_bytes} bytes in {bytes}");
        file.write_all_at(&header, 0).context("write wal segment", &unfinished)?;
        file.sync_data().context("sync wal segment", &unfinished)?;
        let name = SegmentName { seq: self.name.seq + 1, index: self.last.index + 1 };
        let path = self.dir.join(name.to_string());
        self.fs.rename(&unfinished, &path).context("rename wal segment", &path)?;
        self.fs.sync_dir(&self.dir).context("sync wal folder", &self.dir)?;

        header.clear();
        self.buf = header;
        self.sum = sum;
        self.segment_bytes = bytes;
        self.offset = header_bytes;
        let full = std::mem::replace(&mut self.file, file);
        self.older.push_back((std::mem::replace(&mut self.name, name), Some(full)));
        self.path = path;
        Ok(())
    }

    fn latched(&mut self, f: impl FnOnce(&mut Wal) -> Result<()>) -> Result<()> {
        if let Some(failed) = &self.failed {
            return Err(Error::Failed(failed.clone()));
        }
        let outcome = f(self);
        if let Err(error) = &outcome {
            self.failed = Some(error.to_string());
        }
        outcome
    }
}

/// The folder that holds the log's folder.
fn folder_above(dir: &Path) -> &Path {
    match dir.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    }
}
