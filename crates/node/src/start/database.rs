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

use super::together::{StoreOf, check_cluster_version, check_together};
use super::{Folders, Settings, io, read_entries};
use crate::Error;
use crate::identity::Identity;
use crate::interchange::{self, Database, Imported, check_beside, wal_conf};

/// Ends the names of databases that Go's etcd receives from a leader; before it stands the index, in 16 hexadecimal digits.
const RECEIVED: &str = ".snap.db";

/// So begin the names of what is not finished: downloads of Go's etcd, and databases that `etcdutl` or a defragmentation
/// was writing anew.
const UNFINISHED: [&str; 2] = ["tmp", "db.tmp"];

/// A database that stands in a data directory, locked as bbolt locks it: nobody else has it open.
pub(super) struct Found {
    path: PathBuf,
    /// The last entry whose effects it has.
    applied: revlog::Applied,
    /// The one that it takes the place of, and the last entry that that one has.
    replaced: Option<(PathBuf, revlog::Applied)>,
    /// Held until it is gone.
    locks: Vec<DirLock>,
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
        Ok(Some(Found { path, applied, replaced: None, locks: vec![lock] }))
    }

    /// The one that counts. Go's etcd keeps a leader's snapshot under another name until its log names it, and then puts it
    /// in the place of its database; where it ended in between, its next start does so (etcd: `RecoverSnapshotBackend`).
    pub(super) fn that_counts(
        fs: &dyn Fs,
        folders: &Folders,
        log: &wal::Opened,
        found: Option<Found>,
    ) -> Result<Option<Found>, Error> {
        let Some(path) = received(fs, folders, log)? else { return Ok(found) };
        let named = log.newest_snapshot().index;
        if found.as_ref().is_some_and(|found| found.applied.index >= named) {
            return Ok(found);
        }
        let applied = interchange::applied(fs, &path)?;
        let mut locks = vec![lock(fs, &path)?];
        let replaced = found.map(|found| {
            locks.extend(found.locks);
            (found.path, found.applied)
        });
        Ok(Some(Found { path, applied, replaced, locks }))
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
        if has_all_of(fs, folders, limits, self.applied)? {
            return Ok(None);
        }
        let database = Database::open(&**fs, &self.path)?;
        check_import(log, identity, &database)?;
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

    /// Removes it, or keeps it under another name, and before it the one whose place it takes. It is the last step:
    /// everything that it held is durable elsewhere.
    pub(super) fn finish(self, fs: &dyn Fs, settings: &Settings, folders: &Folders) -> Result<(), Error> {
        // The older one first, and durably: what it has is less.
        for (path, applied) in self.replaced.iter().chain([&(self.path, self.applied)]) {
            if settings.keep_imported {
                let kept = folders.member.join(format!("imported-{:016x}.db", applied.index));
                fs.rename(path, &kept).map_err(io("rename", path))?;
                fs.sync_dir(&folders.member).map_err(io("sync folder", &folders.member))?;
            } else {
                fs.remove(path).map_err(io("remove", path))?;
            }
            fs.sync_dir(&folders.snap).map_err(io("sync folder", &folders.snap))?;
        }
        Ok(())
    }
}

/// Whether the revision log has all that a database has, and so counts in its stead.
pub(crate) fn has_all_of(
    fs: &Arc<dyn Fs>,
    folders: &Folders,
    limits: &revlog::Limits,
    applied: revlog::Applied,
) -> Result<bool, Error> {
    Ok(has_segments(&**fs, &folders.rev)? && reached(fs, &folders.rev, limits)?.index >= applied.index)
}

/// Whether a database can be taken over beside its log: all that a start checks once that is done.
pub(crate) fn check_import(log: &wal::Opened, identity: Identity, database: &Database) -> Result<(), Error> {
    check_beside(log, identity, database)?;
    let applied = database.applied();
    if applied.index <= log.last().index {
        check_together(log, StoreOf::Database(database), false)?;
        read_entries(log, applied, (0, 0))?;
    }
    check_cluster_version(database.membership())
}

/// The database of the snapshot that the log names, if Go's etcd has received it from a leader and not put in its place.
pub(crate) fn received(fs: &dyn Fs, folders: &Folders, log: &wal::Opened) -> Result<Option<PathBuf>, Error> {
    let path = folders.snap.join(format!("{:016x}{RECEIVED}", log.newest_snapshot().index));
    Ok(fs.exists(&path).map_err(io("look for", &path))?.then_some(path))
}

/// Removes what Go's etcd has left: databases that it has received from leaders and had no use for any more, or never came
/// to use; unfinished files of its and of ours, as it does at a start.
pub(super) fn remove_leftovers(fs: &dyn Fs, folders: &Folders) -> Result<(), Error> {
    for name in fs.list(&folders.snap).map_err(io("list folder", &folders.snap))? {
        if name.ends_with(RECEIVED) || UNFINISHED.iter().any(|begin| name.starts_with(begin)) {
            let path = folders.snap.join(name);
            fs.remove(&path).map_err(io("remove", &path))?;
        }
    }
    Ok(())
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
pub(crate) fn reached(
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
