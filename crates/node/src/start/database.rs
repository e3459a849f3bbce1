//! etcd's database in a data directory: taking it over, and what becomes of the file.
//!
//! It becomes a new revision log under another name, which gets its own in one step. The file stays until everything that
//! stands on the new log is durable; then it goes, or is kept under another name. Interrupted before that, the next start
//! begins anew or goes on, whichever is due.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::revlog::{self, RecordHeader, Replay, ReplayError};
use disk::wal::{self, Wal};
use disk::{DirLock, Fs, snap};
use raft::{ConfState, HardState};
use store::Membership;

use super::{Folders, Settings, io};
use crate::Error;
use crate::identity::Identity;
use crate::interchange::{self, Database, Imported, check_beside, wal_conf};

/// A database that stands in a data directory, locked as bbolt locks it: nobody else has it open.
pub(super) struct Found {
    path: PathBuf,
    /// The last entry whose effects it has.
    applied: revlog::Applied,
    _lock: DirLock,
}

impl Found {
    /// Looks for one and locks it, before anything else of the directory is read.
    pub(super) fn lock(fs: &dyn Fs, folders: &Folders) -> Result<Option<Found>, Error> {
        let path = folders.database();
        if !fs.exists(&path).map_err(io("look for", &path))? {
            return Ok(None);
        }
        let lock = lock(fs, &path)?;
        let applied = interchange::applied(fs, &path)?;
        Ok(Some(Found { path, applied, _lock: lock }))
    }

    /// Takes it over, unless the revision log beside it has all that it has. A log that has less is of the time before
    /// Go's etcd ran here again: what it has counts no more.
    pub(super) fn import(
        &self,
        fs: &Arc<dyn Fs>,
        settings: &Settings,
        folders: &Folders,
        (log, identity): (&wal::Opened, Identity),
        log_id: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Option<Imported>, Error> {
        let limits = &settings.limits.revlog;
        if has_segments(&**fs, &folders.rev)?
            && reached(fs, &folders.rev, limits)?.index >= self.applied.index
        {
            return Ok(None);
        }
        let database = Database::open(&**fs, &self.path)?;
        check_beside(log, identity, &database)?;
        let unfinished = folders.member.join("rev.importing");
        // Of an earlier import that was interrupted.
        interchange::clear(&**fs, &unfinished)?;
        let imported = database.import(fs, &unfinished, limits.clone(), log_id, progress)?;
        replace(&**fs, folders, &unfinished)?;
        Ok(Some(imported))
    }

    /// Whether the revision log is this file's, and the write-ahead log ends before it: Go's etcd keeps what is committed
    /// without waiting for its own log. Then the log goes on from there as after a leader's snapshot.
    pub(super) fn is_ahead_of(&self, log: &wal::Opened, opened: &revlog::Opened) -> bool {
        opened.applied() == self.applied && self.applied.index > log.last().index
    }

    /// Removes it, or keeps it under another name. It is the last step: everything that it held is durable elsewhere. What
    /// Go's etcd has left beside it goes before, while a start still looks here.
    pub(super) fn finish(self, fs: &dyn Fs, settings: &Settings, folders: &Folders) -> Result<(), Error> {
        for name in fs.list(&folders.snap).map_err(io("list folder", &folders.snap))? {
            if is_leftover(&name, self.applied.index) {
                let path = folders.snap.join(name);
                fs.remove(&path).map_err(io("remove", &path))?;
            }
        }
        fs.sync_dir(&folders.snap).map_err(io("sync folder", &folders.snap))?;
        if settings.keep_imported {
            let kept = folders.member.join(format!("imported-{:016x}.db", self.applied.index));
            fs.rename(&self.path, &kept).map_err(io("rename", &self.path))?;
            fs.sync_dir(&folders.member).map_err(io("sync folder", &folders.member))?;
        } else {
            fs.remove(&self.path).map_err(io("remove", &self.path))?;
        }
        fs.sync_dir(&folders.snap).map_err(io("sync folder", &folders.snap))
    }
}

/// Whether a file beside a database, which has all entries up to `applied`, is what Go's etcd removes at a start: unfinished
/// `.snap` files and copies of the database (`etcdutl` makes them here too), and databases of a leader's that it was ahead of.
fn is_leftover(name: &str, applied: u64) -> bool {
    let received = name.strip_suffix(".snap.db").filter(|index| index.len() == 16);
    let received = received.and_then(|index| u64::from_str_radix(index, 16).ok());
    name.starts_with("tmp") || name.starts_with("db.tmp") || received.is_some_and(|index| index <= applied)
}

/// Locks a database file as bbolt does.
pub(crate) fn lock(fs: &dyn Fs, path: &Path) -> Result<DirLock, Error> {
    fs.lock_dir(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::DatabaseLocked(path.to_owned()),
        _ => io("lock", path)(error),
    })
}

/// Has the write-ahead log go on behind a database that is ahead of it: `.snap` first, then the record with the hard state
/// that commits it (rule 3). What the log has beyond its commit index was never acknowledged by more than this member, or
/// is in the database.
pub(super) fn follow(
    snap: &snap::Folder,
    log: &mut Wal,
    applied: revlog::Applied,
    conf: &ConfState,
    membership: &Membership,
) -> Result<HardState, Error> {
    let revlog::Applied { index, term } = applied;
    let conf_state = wal_conf(conf);
    let file = snap::Snapshot { index, term, conf_state, data: membership.to_v2_store() };
    if snap.write(&file)?.is_none() {
        let path = snap.path(file.name());
        return Err(io("write snapshot file", &path)(std::io::ErrorKind::StorageFull.into()));
    }
    let before = log.hard_state();
    // A vote is of its term; one that was given in this term would be in the log.
    let vote = if before.term >= term { before.vote } else { 0 };
    let state = wal::HardState { term: before.term.max(term), vote, commit: before.commit.max(index) };
    let record = wal::SnapshotRecord { index, term, conf_state: Some(file.conf_state) };
    log.append_snapshot(&record, Some(state))?;
    log.sync()?;
    Ok(HardState {
        term: raft::Term(state.term),
        vote: (vote != 0).then_some(raft::NodeId(vote)),
        commit: raft::Index(state.commit),
    })
}

/// Puts the revision log in the folder `new` in the place of the present one, which goes aside. Each step is durable
/// before the next: whatever a crash leaves, one of the folders has what counts.
pub(super) fn replace(fs: &dyn Fs, folders: &Folders, new: &Path) -> Result<(), Error> {
    let step = |from: &Path, to: &Path| {
        fs.rename(from, to).map_err(io("rename", from))?;
        fs.sync_dir(&folders.member).map_err(io("sync folder", &folders.member))
    };
    if fs.exists(&folders.rev).map_err(io("look for", &folders.rev))? {
        interchange::clear(fs, &folders.rev_old)?;
        step(&folders.rev, &folders.rev_old)?;
    }
    step(new, &folders.rev)
}

/// The last entry that a revision log has; reads and checks all of it.
pub(super) fn reached(
    fs: &Arc<dyn Fs>,
    folder: &Path,
    limits: &revlog::Limits,
) -> Result<revlog::Applied, Error> {
    Ok(revlog::open(fs.clone(), folder, limits.clone(), 1, &mut Unread)?.applied())
}

pub(crate) fn has_segments(fs: &dyn Fs, rev: &Path) -> Result<bool, Error> {
    if !fs.exists(rev).map_err(io("look for", rev))? {
        return Ok(false);
    }
    Ok(fs.list(rev).map_err(io("list folder", rev))?.iter().any(|name| name.ends_with(".seg")))
}

/// Only how far a revision log goes is of interest.
struct Unread;

impl Replay for Unread {
    fn record(&mut self, _: RecordHeader, _: revlog::Location, _: &[u8]) -> Result<(), ReplayError> {
        Ok(())
    }

    fn frame(&mut self, _: revlog::Applied, _: &[u8], _: bool) -> Result<(), ReplayError> {
        Ok(())
    }
}
