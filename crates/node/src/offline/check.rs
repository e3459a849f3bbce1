use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::boltfile::Reader;
use disk::wal::{self, Wal};
use disk::{Fs, revlog};
use prost::Message;
use wire::etcdserverpb::InternalRaftRequest;
use wire::raftpb::ConfChange;

use super::DataDir;
use crate::interchange::Database;
use crate::start::database::{has_segments, lock};
use crate::start::{self, Folders, io, recorded_identity, replay_revlog};
use crate::{Error, interchange};

const RESTORE: &str = "copy the whole directory away; then restore the newest snapshot, or, with other members sound, remove \
                       this member from the cluster and add it anew";
const REMAKE: &str = "copy the whole directory away; the write-ahead log still has every entry: move the folder member/rev \
                      away and start the member, and it is made anew";
const LOOK_AT_DISK: &str =
    "nothing depends on this file: the next start sets it aside and a new one is made; look at the disk";
const KEPT: &str =
    "nothing depends on this file: it was kept when it was taken over, and is of no use any more";
const TOGETHER: &str = "give the member its directory whole, as it was at one time";

/// A part of a directory that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The file or folder.
    pub path: PathBuf,
    /// What it holds, in words.
    pub holds: String,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, with file and offset where it is damage.
    pub what: String,
    /// What can be done.
    pub advice: &'static str,
}

/// What a whole directory holds, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What was read to its end and is sound.
    pub sound: Vec<Part>,
    /// What a start will do, that is no fault: a torn end that it cuts.
    pub notes: Vec<String>,
    /// Of each log the first fault, of all other files each.
    pub faults: Vec<Fault>,
}

impl Report {
    fn sound(&mut self, path: &Path, holds: String) {
        self.sound.push(Part { path: path.to_owned(), holds });
    }

    fn fault(&mut self, what: &impl ToString, advice: &'static str) {
        self.faults.push(Fault { what: what.to_string(), advice });
    }
}

/// Reads everything in a data directory and changes nothing: every page of a database, every record of the logs, every
/// snapshot file, and whether they belong together.
///
/// # Errors
/// A member runs; there is nothing; a disk that cannot be read, which says nothing about what is on it. Damage is no error
/// but in the report.
pub fn check(fs: &Arc<dyn Fs>, data_dir: &DataDir) -> Result<Report, Error> {
    let folders = data_dir.folders();
    let mut report = Report::default();
    if let Err(error) = folders.check_restored(&**fs) {
        report.fault(&error, "remove the directory, and --wal-dir, and restore the snapshot again");
        return Ok(report);
    }
    if !fs.exists(&folders.member).map_err(io("stat", &folders.member))? {
        return Err(io("stat", &folders.member)(std::io::ErrorKind::NotFound.into()));
    }
    let _lock = folders.lock(&**fs)?;
    let database = check_database(fs, &folders, &mut report)?;
    let log = check_log(fs, data_dir, &folders, &mut report)?;
    check_snapshots(fs, &folders, log.as_ref(), &mut report)?;
    let opened = check_revisions(fs, data_dir, &folders, log.as_ref(), &mut report)?;
    let Some(log) = log else { return Ok(report) };
    match (database, opened) {
        // A start takes it over, or has it decide.
        (Some(database), opened) => {
            let is_behind = opened.is_none_or(|opened| opened.applied().index < database.applied().index);
            let identity = recorded_identity(log.metadata());
            let fits = identity.and_then(|identity| interchange::check_beside(&log, identity, &database));
            match fits {
                Err(error) if is_behind => report.fault(&sort(error)?, TOGETHER),
                _ => {}
            }
        }
        (None, Some(opened)) => {
            let makes_anew = start::may_make_anew(&**fs, &folders, &log, &opened)?;
            if let Err(error) = start::check_together(&log, &opened, makes_anew) {
                report.fault(&sort(error)?, TOGETHER);
            }
        }
        (None, None) => {}
    }
    Ok(report)
}

/// A disk that cannot be read ends a check; everything else is what it found.
fn sort(error: Error) -> Result<Error, Error> {
    match error {
        Error::Io { .. }
        | Error::Wal(wal::Error::Io { .. } | wal::Error::Locked(_))
        | Error::Revlog(revlog::Error::Io { .. })
        | Error::Boltfile(disk::boltfile::Error::Io { .. })
        | Error::Snap(_)
        | Error::Locked(_)
        | Error::DatabaseLocked(_) => Err(error),
        found => Ok(found),
    }
}

fn check_database(
    fs: &Arc<dyn Fs>,
    folders: &Folders,
    report: &mut Report,
) -> Result<Option<Database>, Error> {
    let kept = fs.list(&folders.member).map_err(io("list", &folders.member))?;
    for path in kept.iter().filter(|name| is_kept(name)).map(|name| folders.member.join(name)) {
        match Reader::open(&**fs, &path).and_then(|reader| reader.check()) {
            Ok(summary) => {
                report.sound(&path, format!("{} pairs, kept when it was taken over", summary.pairs))
            }
            Err(error) => report.fault(&sort(error.into())?, KEPT),
        }
    }
    let path = folders.database();
    if !fs.exists(&path).map_err(io("look for", &path))? {
        return Ok(None);
    }
    let _lock = lock(&**fs, &path)?;
    match Database::open(&**fs, &path).and_then(|database| database.read().map(|read| (database, read))) {
        Ok((database, (pairs, revision))) => {
            if let Some(lost) = database.lost_meta() {
                report.notes.push(format!(
                    "{}: {lost}, as a power cut may leave it; what is read is what was there before",
                    path.display()
                ));
            }
            let index = database.applied().index;
            report.sound(&path, format!("{pairs} pairs, revision {revision}, entries up to {index}"));
            Ok(Some(database))
        }
        Err(error) => {
            report.fault(&sort(error)?, RESTORE);
            Ok(None)
        }
    }
}

fn is_kept(name: &str) -> bool {
    name.starts_with("imported-") && name.ends_with(".db")
}

fn check_log(
    fs: &Arc<dyn Fs>,
    data_dir: &DataDir,
    folders: &Folders,
    report: &mut Report,
) -> Result<Option<wal::Opened>, Error> {
    let read = Wal::open(fs.clone(), &folders.wal, data_dir.wal_limits).map_err(Error::from);
    let read = read.and_then(|log| {
        recorded_identity(log.metadata())?;
        let mut count = 0_u64;
        for entry in log.entries(0) {
            check_entry(&entry?)?;
            count += 1;
        }
        Ok((log, count))
    });
    match read {
        Ok((log, count)) => {
            let commit = log.hard_state().unwrap_or_default().commit;
            let (first, last) = (log.first_index().unwrap_or_default(), log.last().index);
            let holds = match count {
                0 => format!("no entries, commit index {commit}"),
                _ => format!("{count} entries, {first} to {last}, commit index {commit}"),
            };
            report.sound(&folders.wal, holds);
            if let Some(torn) = log.torn() {
                report.notes.push(format!(
                    "{}: the end from offset {} on is torn, as a power cut leaves it; nothing of it was acknowledged, and a \
                     start cuts it off",
                    torn.file.display(),
                    torn.offset
                ));
            }
            Ok(Some(log))
        }
        Err(error) => {
            report.fault(&sort(error)?, RESTORE);
            Ok(None)
        }
    }
}

/// Whether an entry can be read at all; what it asks for is for the store to judge.
fn check_entry(entry: &wal::Entry) -> Result<(), Error> {
    let read = match entry.kind {
        wal::EntryKind::Normal => InternalRaftRequest::decode(entry.data.clone()).map(drop),
        wal::EntryKind::ConfChange => ConfChange::decode(entry.data.clone()).map(drop),
        wal::EntryKind::ConfChangeV2 => Ok(()),
    };
    read.map_err(|error| Error::Apply { index: entry.index, reason: error.to_string() })
}

fn check_snapshots(
    fs: &Arc<dyn Fs>,
    folders: &Folders,
    log: Option<&wal::Opened>,
    report: &mut Report,
) -> Result<(), Error> {
    if !fs.exists(&folders.snap).map_err(io("look for", &folders.snap))? {
        return Ok(());
    }
    let snap = folders.snap(fs);
    let broken = snap.check()?;
    for broken in &broken {
        let (path, offset, reason) = (broken.file.display(), broken.offset, broken.reason);
        report.fault(&format!("{path} is damaged at offset {offset}: {reason}"), LOOK_AT_DISK);
    }
    let files = snap.list()?;
    if files.len() > broken.len() {
        report.sound(&folders.snap, format!("{} snapshot files", files.len() - broken.len()));
    }
    if let Some(log) = log
        && let Some(missing) = start::missing_snapshot(&snap, log.newest_snapshot(), &broken)?
        && !broken.iter().any(|broken| broken.file == missing)
    {
        let path = missing.display();
        report.notes.push(format!("{path} is missing; nothing depends on it, and a new one is made"));
    }
    Ok(())
}

fn check_revisions(
    fs: &Arc<dyn Fs>,
    data_dir: &DataDir,
    folders: &Folders,
    log: Option<&wal::Opened>,
    report: &mut Report,
) -> Result<Option<revlog::Opened>, Error> {
    if has_segments(&**fs, &folders.rev_next)? {
        let next = folders.rev_next.display();
        report.notes.push(format!("{next} is of a leader's snapshot; a start takes it or removes it"));
    }
    if !has_segments(&**fs, &folders.rev)? {
        return Ok(None);
    }
    let limits = data_dir.revlog_limits.clone();
    match replay_revlog(fs, &folders.rev, limits, store::Settings::default(), 1, &mut |_, _| {}) {
        Ok((opened, replayed)) => {
            let revision = replayed.store.revision();
            let index = opened.applied().index;
            report.sound(&folders.rev, format!("revision {revision}, entries up to {index}"));
            if let Some(torn) = opened.torn() {
                report.notes.push(format!(
                    "{}: the end from offset {} on is torn ({}); the write-ahead log has what it held, and a start cuts it \
                     off",
                    torn.file.display(),
                    torn.offset,
                    torn.what
                ));
            }
            Ok(Some(opened))
        }
        Err(error) => {
            let remakes = match log {
                Some(log) => start::has_all(&**fs, folders, log)?,
                None => false,
            };
            report.fault(&sort(error)?, if remakes { REMAKE } else { RESTORE });
            Ok(None)
        }
    }
}
