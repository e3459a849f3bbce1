//! Whether the parts of a data directory fit together, and which of them count: what a start goes by, and what
//! `etcdutl check` names of it (rule 5). Nothing here changes anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::{Fs, revlog, snap, wal};
use store::Membership;

use super::{Folders, database, io};
use crate::Error;
use crate::cluster_version::{self, Agreed};
use crate::interchange::Database;

/// What has the store.
#[derive(Clone, Copy)]
pub(crate) enum StoreOf<'a> {
    /// A revision log.
    Log(&'a revlog::Opened),
    /// A database of etcd's, of which one is to be made.
    Database(&'a Database),
}

impl StoreOf<'_> {
    /// The last entry whose effects it has.
    pub(crate) fn applied(&self) -> revlog::Applied {
        match self {
            StoreOf::Log(opened) => opened.applied(),
            StoreOf::Database(database) => database.applied(),
        }
    }

    /// How far it knows the write-ahead log to have been durable. A database says nothing of that.
    fn wal_durable(&self) -> u64 {
        match self {
            StoreOf::Log(opened) => opened.wal_durable(),
            StoreOf::Database(_) => 0,
        }
    }

    fn end(&self) -> (&Path, u64) {
        match self {
            StoreOf::Log(opened) => opened.end(),
            StoreOf::Database(database) => (database.path(), 0),
        }
    }
}

/// Rule 5: what must hold between the write-ahead log and the store after either was cut.
pub(crate) fn check_together(log: &wal::Opened, store: StoreOf<'_>, makes_anew: bool) -> Result<(), Error> {
    let applied = store.applied();
    let last = log.last();
    let wal::SnapshotRecord { index: snapshot, term: snapshot_term, .. } = *log.newest_snapshot();
    let first = log.first_index().unwrap_or(snapshot + 1);
    let state = log.hard_state().unwrap_or_default();
    let (fault, (file, offset)) = if last.index < applied.index {
        let applied = applied.index;
        (format!("the revision log has applied entry {applied}, the other ends at {}", last.index), log.end())
    } else if last.index < store.wal_durable() {
        // What looks torn there had been acknowledged.
        let durable = store.wal_durable();
        (format!("entry {durable} was in the write-ahead log, which ends at {}", last.index), log.end())
    } else if applied.index < snapshot && !makes_anew {
        if let StoreOf::Log(opened) = store
            && !opened.is_empty()
        {
            // Its frames up to there were durable before the record was written (rule 3).
            return Ok(opened.require_applied(snapshot)?);
        }
        let fault = format!(
            "the revision log holds nothing, the newest snapshot record is at {snapshot}, and the entries from {first} \
             on do not make it anew"
        );
        (fault, store.end())
    } else if applied.index == snapshot && applied.term != snapshot_term {
        let applied = applied.term;
        (
            format!("the snapshot at {snapshot} is of term {snapshot_term}, and {applied} is applied"),
            log.end(),
        )
    } else if applied.index + 1 < first {
        let applied = applied.index;
        (format!("the first entry kept is {first}, and only {applied} is applied"), store.end())
    } else if state.commit > last.index.max(snapshot) {
        (format!("the commit index is {}, the last entry is {}", state.commit, last.index), log.end())
    } else {
        return Ok(());
    };
    Err(Error::Contradiction(format!("{fault}: {} at offset {offset}", file.display())))
}

/// Without a write-ahead log there may be nothing that one would belong to.
pub(crate) fn check_unbegun(
    fs: &Arc<dyn Fs>,
    folders: &Folders,
    opened: &revlog::Opened,
) -> Result<(), Error> {
    let wal = folders.wal.display();
    let without = |folder: &Path, what: &str| {
        let folder = folder.display();
        Err(Error::Contradiction(format!("{folder} holds {what}, but {wal} holds no log")))
    };
    if !opened.is_empty() {
        return without(&folders.rev, "revisions");
    }
    let has_snap = fs.exists(&folders.snap).map_err(io("look for", &folders.snap))?;
    if has_snap && !folders.snap(fs).list()?.is_empty() {
        return without(&folders.snap, "snapshots");
    }
    let database = folders.database();
    if fs.exists(&database).map_err(io("look for", &database))? {
        return without(&folders.snap, "a database");
    }
    Ok(())
}

/// Refuses what a later version has written.
pub(crate) fn check_cluster_version(membership: &Membership) -> Result<(), Error> {
    let own = wire::version::CLUSTER;
    if let (Some(cluster), Some(own)) = (Agreed::from(membership).version, cluster_version::parse(own))
        && own < cluster
    {
        return Err(Error::Downgrade { own: own.to_string(), cluster: cluster.to_string() });
    }
    Ok(())
}

/// Whether the revision log of a leader's snapshot is to take the place of the present one: the write-ahead log has come to
/// name that snapshot, and the present one does not reach it.
pub(crate) fn is_to_go_over(
    fs: &Arc<dyn Fs>,
    folders: &Folders,
    limits: &revlog::Limits,
    log: &wal::Opened,
) -> Result<bool, Error> {
    let named = log.newest_snapshot();
    let next = &folders.rev_next;
    let is_there = fs.exists(next).map_err(io("look for", next))?
        && !fs.list(next).map_err(io("list", next))?.is_empty();
    let reached = |folder: &Path| -> Result<bool, Error> {
        Ok(database::reached(fs, folder, limits)?.index >= named.index)
    };
    Ok(named.index > 0 && is_there && !reached(&folders.rev)? && reached(next)?)
}

/// The file of the snapshot that the log names, if nothing can be read from it.
pub(crate) fn missing_snapshot(
    snap: &snap::Folder,
    named: &wal::SnapshotRecord,
    broken: &[snap::Broken],
) -> Result<Option<PathBuf>, Error> {
    let name = snap::Name { term: named.term, index: named.index };
    let path = snap.path(name);
    let is_whole = snap.list()?.contains(&name) && !broken.iter().any(|broken| broken.file == path);
    Ok((named.index > 0 && !is_whole).then_some(path))
}

/// Whether a revision log that does not reach the newest snapshot is about to be made anew from the write-ahead log:
/// whether an operator has taken it away, and that log still has every entry that there ever was.
///
/// It is so if it is empty, or if its first frame was made when the write-ahead log had the snapshot already: then it was
/// empty, and this is not the first start since. What a log's entries do not say, since the member began with a restored
/// snapshot (then its first record covers nothing but the configuration changes that etcd makes up for it) or since Go's
/// etcd has it in its own file, they cannot bring back.
pub(crate) fn may_make_anew(
    fs: &dyn Fs,
    folders: &Folders,
    log: &wal::Opened,
    opened: &revlog::Opened,
) -> Result<bool, Error> {
    let snapshot = log.newest_snapshot().index;
    let is_begun_anew = opened.is_empty() || opened.first_wal_durable() >= snapshot;
    if snapshot == 0 || opened.applied().index >= snapshot || !is_begun_anew {
        return Ok(false);
    }
    has_all(fs, folders, log)
}

/// Whether a write-ahead log still has every entry that made the store, so that a revision log can be made anew from it.
pub(crate) fn has_all(fs: &dyn Fs, folders: &Folders, log: &wal::Opened) -> Result<bool, Error> {
    if log.first_index() != Some(1) || log.snapshots().iter().all(|record| record.index != 0) {
        return Ok(false);
    }
    let first = log.snapshots().iter().find(|record| record.index > 0);
    let last = first.map_or(log.last().index, |first| first.index);
    for entry in log.entries(0).take(usize::try_from(last).unwrap_or(usize::MAX)) {
        let entry = entry?;
        let is_made_up = entry.term == 1 && entry.kind == wal::EntryKind::ConfChange;
        if !is_made_up {
            let db = folders.database();
            return Ok(!fs.exists(&db).map_err(io("look for database", &db))?);
        }
    }
    Ok(false)
}
