use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::boltfile::schema::Version;
use disk::wal::{self, Wal};
use disk::{Fs, revlog, snap};

use super::{DataDir, Held, Kind};
use crate::Error;
use crate::identity::Identity;
use crate::interchange::{self, Cut, wal_conf};
use crate::start::together::{StoreOf, check_together};
use crate::start::{Replayed, database, io, recorded_identity, replay_revlog};

/// What the member's folder is called until it is whole.
const EXPORTING: &str = "member.exporting";

/// Entries written at a time, bytes.
const GROUP_BYTES: usize = 1 << 20;

/// What is to be written, and where.
#[derive(Clone, Debug)]
pub struct Export {
    /// The member's directory. It is left as it is.
    pub data_dir: DataDir,
    /// The directory to make. It is missing or empty.
    pub out: PathBuf,
    /// The version of the cluster and its storage, if it is to be another than the cluster's own.
    pub version: Option<Version>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The member's ids, which stay.
    pub identity: Identity,
    /// The last entry whose effects the database has.
    pub applied: revlog::Applied,
    /// The last entry of the write-ahead log.
    pub last_index: u64,
    /// The newest revision.
    pub revision: i64,
    /// The storage version of the database.
    pub version: Option<String>,
}

/// Writes the data directory that Go's etcd starts from in this member's stead: a database of everything that the revision
/// log has, a `.snap` file of the same entry, and a write-ahead log that begins there and has the entries behind it, with
/// the member's term, vote and commit index. Memory: the key index.
///
/// # Errors
/// A member runs; the directory is damaged, or is etcd's already; a place that is in use; a failed operation, after which
/// `out` has what no etcd takes for a member.
pub fn export(fs: &Arc<dyn Fs>, export: &Export) -> Result<Exported, Error> {
    let Export { data_dir, out, version } = export;
    let held = Held::take(fs, data_dir)?;
    if held.kind == Kind::Database {
        let text = "it is etcd's own already: Go's etcd starts from it as it is";
        return Err(Error::Refused(format!("{}: {text}", data_dir.path.display())));
    }
    interchange::check_empty(&**fs, out)?;
    let folders = &held.folders;
    let log = Wal::open(fs.clone(), &folders.wal, data_dir.wal_limits)?;
    let identity = recorded_identity(log.metadata())?;
    if database::has_segments(&**fs, &folders.rev_next)? {
        let next = folders.rev_next.display();
        return Err(Error::Refused(format!("{next} is of a leader's snapshot: start the member first")));
    }
    let limits = data_dir.revlog_limits.clone();
    let (opened, replayed) =
        replay_revlog(fs, &folders.rev, limits, store::Settings::default(), 1, &mut |_, _| {})?;
    // One that is to be made anew has only a part of the store.
    check_together(&log, StoreOf::Log(&opened), false)?;
    let applied = opened.applied();
    let Replayed { mut store, conf, source } = replayed;
    source.fill(opened.into_reader());
    let _unfinished = store.end_restore();
    let mut cut = Cut::new(store.cut(), applied, conf);
    if let Some(version) = version {
        cut = cut.at_version(*version);
    }

    let member = out.join(EXPORTING);
    let snap_dir = member.join("snap");
    disk::make_dir(&**fs, &snap_dir, 0o700).map_err(io("create folder", &snap_dir))?;
    interchange::write(&**fs, &cut, &snap_dir.join("db"))?;
    let message = cut.message();
    let file = snap::Snapshot {
        index: applied.index,
        term: applied.term,
        conf_state: wal_conf(&message.conf),
        data: message.data.to_vec(),
    };
    if snap::Folder::new(fs.clone(), &snap_dir).write(&file)?.is_none() {
        return Err(io("write snapshot file", &snap_dir)(std::io::ErrorKind::StorageFull.into()));
    }
    let last_index = write_log(fs, &member.join("wal"), &log, file, data_dir.wal_limits)?;
    let whole = out.join("member");
    fs.rename(&member, &whole).map_err(io("rename folder", &member))?;
    fs.sync_dir(out).map_err(io("sync folder", out))?;
    let (revision, version) = (cut.store().revision(), cut.storage_version());
    Ok(Exported { identity, applied, last_index, revision, version })
}

/// The log begins with the snapshot; what it has to remember of the time before is the term, the vote and the commit index.
fn write_log(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    from: &wal::Opened,
    snapshot: snap::Snapshot,
    limits: wal::Limits,
) -> Result<u64, Error> {
    let snap::Snapshot { index, term, conf_state, .. } = snapshot;
    let mut to = Wal::create(fs.clone(), dir, from.metadata(), limits)?;
    let state = from.hard_state().unwrap_or_default();
    let first = wal::HardState { term: state.term.max(term), commit: index, ..state };
    to.append_snapshot(&wal::SnapshotRecord { index, term, conf_state: Some(conf_state) }, Some(first))?;
    to.sync()?;
    let (mut last, mut group_bytes) = (index, 0);
    for entry in from.entries(index) {
        let entry = entry?;
        to.append([entry.as_ref()], None)?;
        last = entry.index;
        group_bytes += entry.data.len();
        if group_bytes > GROUP_BYTES {
            to.sync()?;
            group_bytes = 0;
        }
    }
    to.append([], Some(wal::HardState { commit: state.commit.max(index), ..first }))?;
    to.sync()?;
    Ok(last)
}
