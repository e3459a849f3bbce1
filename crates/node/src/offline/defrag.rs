use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use disk::Fs;
use disk::revlog;
use disk::wal::Wal;

use super::{DataDir, Held, Kind};
use crate::Error;
use crate::interchange::{self, StorageVersion};
use crate::merge::{MergeStep, Merger};
use crate::start::together::{StoreOf, check_together, may_make_anew};
use crate::start::{Replayed, end_restore, io, replay_revlog};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defragmented {
    /// The file or folder.
    pub path: PathBuf,
    /// Its bytes before.
    pub before: u64,
    /// Its bytes now.
    pub after: u64,
    /// Bytes of what lives in it.
    pub in_use: u64,
}

/// Gives back the space that nobody uses: merges everything that is worth it, after what compactions had left to do; or
/// writes a database of etcd's anew.
///
/// # Errors
/// A member runs; the directory is damaged or has no store, and nothing was changed; a failed operation, a full disk among
/// them, after which the store is as it was.
pub fn defrag(fs: &Arc<dyn Fs>, data_dir: &DataDir) -> Result<Defragmented, Error> {
    let held = Held::take(fs, data_dir)?;
    match held.kind {
        Kind::Database => {
            let path = held.folders.database();
            let file = fs.open(&path, disk::Access::Read).map_err(io("open", &path))?;
            let before = file.len().map_err(io("measure", &path))?;
            let after = interchange::rewrite(&**fs, &path, &StorageVersion::Kept)?;
            Ok(Defragmented { path, before, after, in_use: after })
        }
        Kind::Ours => merge(fs, data_dir, &held),
    }
}

fn merge(fs: &Arc<dyn Fs>, data_dir: &DataDir, held: &Held) -> Result<Defragmented, Error> {
    let folders = &held.folders;
    // Held as long as this goes on. Without it, nothing says whether a torn end may be cut.
    let log = Wal::open(fs.clone(), &folders.wal, data_dir.wal_limits)?;
    let limits = data_dir.revlog_limits.clone();
    let (opened, replayed) =
        replay_revlog(fs, &folders.rev, limits, store::Settings::default(), 1, &mut |_, _| {})?;
    let makes_anew = may_make_anew(&**fs, folders, &log, &opened)?;
    check_together(&log, StoreOf::Log(&opened), makes_anew)?;
    let (_builder, writer, reader) = opened.into_parts()?;
    let Replayed { mut store, source, .. } = replayed;
    source.fill(reader.clone());
    let before = reader.space().bytes;
    // What compactions have dropped is in no frame of this run.
    let mut merger = Merger::new(writer.merger(), reader.clone(), store.relocator(), Default::default());
    let _finished = end_restore(&mut store)?;
    merger.ask();
    let merged = loop {
        match merger.step() {
            Ok(MergeStep::Idle) => break Ok(()),
            // Nobody reads, and nothing is to be synced: it waits for room only, and the next try takes less.
            Ok(MergeStep::Working(_) | MergeStep::Finished(_) | MergeStep::Waiting) => {}
            Ok(MergeStep::Damaged(error)) | Err(error) => break Err(error),
        }
    };
    // Whoever runs this need not be who runs the member.
    for name in fs.list(&folders.rev).map_err(io("list", &folders.rev))? {
        let path = folders.rev.join(name);
        fs.take_owner(&path, &folders.rev).map_err(io("change the owner of", &path))?;
    }
    merged?;
    let counters = merger.counters();
    if counters.merges.load(Ordering::Relaxed) == 0 && counters.given_up.load(Ordering::Relaxed) > 0 {
        return Err(io("merge", &folders.rev)(std::io::ErrorKind::StorageFull.into()));
    }
    let revlog::Space { bytes, record_bytes, dead_bytes, .. } = reader.space();
    Ok(Defragmented { path: folders.rev.clone(), before, after: bytes, in_use: record_bytes - dead_bytes })
}
