use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::boltfile::{self, Reader};
use disk::wal::{self, Wal};
use disk::{DirLock, Fs, revlog, snap};
use prost::Message;
use raft::{ConfState, Index, Restored};
use wire::raftpb::ConfChange;

use super::DataDir;
use crate::identity::Identity;
use crate::interchange::Database;
use crate::start::database::{check_import, has_segments, lock, reached, received};
use crate::start::together::{
    StoreOf, check_cluster_version, check_together, check_unbegun, has_all, is_to_go_over, may_make_anew,
    missing_snapshot,
};
use crate::start::{Folders, Replayed, hard_state, io, read_entries, recorded_identity, replay_revlog};
use crate::{Error, applier, interchange};

const RESTORE: &str = "copy the whole directory away; then restore the newest snapshot, or, with other members sound, remove \
                       this member from the cluster and add it anew";
const REMAKE: &str = "copy the whole directory away; the write-ahead log still has every entry: move the folder member/rev \
                      away and start the member, and it is made anew (but not with --force-new-cluster: the last entries \
                      may be known as committed by the revision log alone, and would be dropped)";
const GO_OVER: &str = "copy the whole directory away; the leader's snapshot beside it, member/rev.next, has all that is \
                       needed: move the folder member/rev away and start the member, and it goes over to that";
const TAKE_OVER: &str = "copy the whole directory away; etcd's database in member/snap and the write-ahead log have all that \
                         is needed: move the folder member/rev away and start the member, and the database is taken over";
const BRING_BACK: &str = "bring the folder member/rev back, whole, as it was when the member last ran; if it is gone, restore \
                          the newest snapshot, or, with other members sound, remove this member from the cluster and add \
                          it anew";
const LOOK_AT_DISK: &str =
    "nothing depends on this file: the next start sets it aside and a new one is made; look at the disk";
const KEPT: &str =
    "nothing depends on this file: it was kept when it was taken over, and is of no use any more";
const TAKEN_OVER: &str = "nothing depends on this file: it was taken over, and the next start removes it";
const TOGETHER: &str = "give the member its directory whole, as it was at one time";
const LOG_ELSEWHERE: &str = "if the write-ahead log is elsewhere, say so with --wal-dir; else give the member its directory \
                             whole, as it was at one time";
const NOT_OURS: &str = "it is sound, but not for this version: nothing has to be repaired. Run the etcd on it that wrote it; \
                        the fault says what is in the way";

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

impl Fault {
    /// Whether the member does not start because of it.
    pub fn stops_a_start(&self) -> bool {
        ![LOOK_AT_DISK, KEPT, TAKEN_OVER].contains(&self.advice)
    }
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
/// snapshot file, and whether they belong together, as a start would see it.
///
/// # Errors
/// A member runs; there is nothing; a disk that cannot be read, which says nothing about what is on it. Damage is no error
/// but in the report.
pub fn check(fs: &Arc<dyn Fs>, data_dir: &DataDir) -> Result<Report, Error> {
    let folders = &data_dir.folders();
    let mut checking = Checking { fs, folders, limits: &data_dir.revlog_limits, report: Report::default() };
    if let Err(error) = folders.check_restored(&**fs) {
        checking.report.fault(&error, "remove the directory, and --wal-dir, and restore the snapshot again");
        return Ok(checking.report);
    }
    if !fs.exists(&folders.member).map_err(io("stat", &folders.member))? {
        return Err(io("stat", &folders.member)(std::io::ErrorKind::NotFound.into()));
    }
    let _lock = folders.lock(&**fs)?;
    checking.kept()?;
    if Wal::exists(&**fs, &folders.wal)? {
        let database_lock = checking.lock_database()?;
        let log = checking.log(data_dir.wal_limits)?;
        checking.snapshots(log.as_ref().map(|(log, _)| log))?;
        checking.store(log.as_ref())?;
        drop(database_lock);
    } else {
        checking.snapshots(None)?;
        checking.without_log()?;
    }
    Ok(checking.report)
}

/// A disk that cannot be read ends a check; everything else is what it found.
fn sort(error: Error) -> Result<Error, Error> {
    match error {
        Error::Io { .. }
        | Error::Wal(wal::Error::Io { .. } | wal::Error::Locked(_))
        | Error::Revlog(revlog::Error::Io { .. })
        | Error::Boltfile(boltfile::Error::Io { .. })
        | Error::Snap(_)
        | Error::Locked(_)
        | Error::DatabaseLocked(_) => Err(error),
        found => Ok(found),
    }
}

/// What can be done where a part by itself, or all of them together, would be refused. `otherwise`: for what is no matter
/// of versions.
fn advice(error: &Error, otherwise: &'static str) -> &'static str {
    match error {
        Error::NotTakenOver { .. }
        | Error::Downgrade { .. }
        | Error::Apply { .. }
        | Error::Revlog(revlog::Error::Unsupported { .. }) => NOT_OURS,
        _ => otherwise,
    }
}

/// A directory that is being read.
struct Checking<'a> {
    fs: &'a Arc<dyn Fs>,
    folders: &'a Folders,
    limits: &'a revlog::Limits,
    report: Report,
}

impl Checking<'_> {
    /// Databases that were taken over, and that nothing reads.
    fn kept(&mut self) -> Result<(), Error> {
        let (fs, folders) = (self.fs, self.folders);
        let kept = fs.list(&folders.member).map_err(io("list", &folders.member))?;
        for path in kept.iter().filter(|name| is_kept(name)).map(|name| folders.member.join(name)) {
            match Reader::open(&**fs, &path).and_then(|reader| reader.check()) {
                Ok(summary) => {
                    let pairs = summary.pairs;
                    self.report.sound(&path, format!("{pairs} pairs, kept when it was taken over"));
                }
                Err(error) => self.report.fault(&sort(error.into())?, KEPT),
            }
        }
        Ok(())
    }

    fn lock_database(&self) -> Result<Option<DirLock>, Error> {
        let path = self.folders.database();
        let is_there = self.fs.exists(&path).map_err(io("look for", &path))?;
        is_there.then(|| lock(&**self.fs, &path)).transpose()
    }

    fn log(&mut self, limits: wal::Limits) -> Result<Option<(wal::Opened, Identity)>, Error> {
        let wal = &self.folders.wal;
        let read = Wal::open(self.fs.clone(), wal, limits).map_err(Error::from);
        let read = read.and_then(|log| {
            let identity = recorded_identity(log.metadata())?;
            let mut count = 0_u64;
            for entry in log.entries(0) {
                check_entry(&entry?)?;
                count += 1;
            }
            Ok((log, identity, count))
        });
        let (log, identity, count) = match read {
            Ok(read) => read,
            Err(error) => {
                self.report.fault(&sort(error)?, RESTORE);
                return Ok(None);
            }
        };
        let commit = log.hard_state().unwrap_or_default().commit;
        let (first, last) = (log.first_index().unwrap_or_default(), log.last().index);
        let holds = match count {
            0 => format!("no entries, commit index {commit}"),
            _ => format!("{count} entries, {first} to {last}, commit index {commit}"),
        };
        self.report.sound(wal, holds);
        if let Some(torn) = log.torn() {
            self.report.notes.push(format!(
                "{}: the end from offset {} on is torn, as a power cut leaves it; nothing of it was acknowledged, and a \
                 start cuts it off",
                torn.file.display(),
                torn.offset
            ));
        }
        Ok(Some((log, identity)))
    }

    fn snapshots(&mut self, log: Option<&wal::Opened>) -> Result<(), Error> {
        let (fs, folders) = (self.fs, self.folders);
        if !fs.exists(&folders.snap).map_err(io("look for", &folders.snap))? {
            return Ok(());
        }
        let snap: snap::Folder = folders.snap(fs);
        let broken = snap.check()?;
        for broken in &broken {
            let (path, offset, reason) = (broken.file.display(), broken.offset, broken.reason);
            self.report.fault(&format!("{path} is damaged at offset {offset}: {reason}"), LOOK_AT_DISK);
        }
        let files = snap.list()?;
        if files.len() > broken.len() {
            self.report.sound(&folders.snap, format!("{} snapshot files", files.len() - broken.len()));
        }
        if let Some(log) = log
            && let Some(missing) = missing_snapshot(&snap, log.newest_snapshot(), &broken)?
            && !broken.iter().any(|broken| broken.file == missing)
        {
            let path = missing.display();
            self.report
                .notes
                .push(format!("{path} is missing; nothing depends on it, and a new one is made"));
        }
        Ok(())
    }

    /// Where no write-ahead log is, nothing may be that belongs to one.
    fn without_log(&mut self) -> Result<(), Error> {
        let Some((opened, _)) = self.revisions(&self.folders.rev, |_| Ok(RESTORE))? else { return Ok(()) };
        match check_unbegun(self.fs, self.folders, &opened) {
            Ok(()) => self.report.notes.push(format!(
                "{} holds no write-ahead log, and nothing that would belong to one: a start begins a new member",
                self.folders.wal.display()
            )),
            Err(error) => self.report.fault(&sort(error)?, LOG_ELSEWHERE),
        }
        Ok(())
    }

    /// The store, in whichever form it counts, and whether it fits the write-ahead log. Without a log that can be read,
    /// each form by itself.
    fn store(&mut self, log: Option<&(wal::Opened, Identity)>) -> Result<(), Error> {
        let Some(rev) = self.revision_log(log.map(|(log, _)| log))? else { return Ok(()) };
        let database = self.database(log.map(|(log, _)| log))?;
        let opened =
            self.revisions(&rev, |checking| checking.advice_for_revisions(log, database.as_deref()))?;
        let has_revisions = has_segments(&**self.fs, &rev)?;
        let Some(path) = database else {
            if let (Some((log, _)), Some((opened, replayed))) = (log, &opened) {
                self.together(log, opened, replayed, None)?;
            }
            return Ok(());
        };
        let in_database = interchange::applied(&**self.fs, &path).ok();
        let is_taken_over = match (&opened, in_database) {
            (Some((opened, _)), Some(applied)) => has_revisions && opened.applied().index >= applied.index,
            _ => false,
        };
        let database = self.read_database(&path, is_taken_over)?;
        let Some((log, identity)) = log else { return Ok(()) };
        match (database, opened) {
            (_, Some((opened, replayed))) if is_taken_over => {
                self.together(log, &opened, &replayed, in_database)
            }
            (Some(database), _) => self.beside(log, *identity, &database),
            (None, _) => Ok(()),
        }
    }

    /// A database, read to its end. None if it is damaged or refused, and the report says so.
    fn read_database(&mut self, path: &Path, is_taken_over: bool) -> Result<Option<Database>, Error> {
        let read = Database::open(&**self.fs, path)
            .and_then(|database| database.read().map(|counted| (database, counted)));
        match read {
            Ok((database, (pairs, revision))) => {
                let index = database.applied().index;
                self.report.sound(path, format!("{pairs} pairs, revision {revision}, entries up to {index}"));
                if let Some(lost) = database.lost_meta() {
                    self.report.notes.push(format!(
                        "{}: {lost}, as a power cut may leave it; what is read is what was there before",
                        path.display()
                    ));
                }
                if is_taken_over {
                    let (path, rev) = (path.display(), self.folders.rev.display());
                    let note =
                        format!("{path} was taken over: {rev} has all of it, and a start removes the file");
                    self.report.notes.push(note);
                }
                Ok(Some(database))
            }
            Err(error) => {
                let error = sort(error)?;
                let advice = if is_taken_over { TAKEN_OVER } else { advice(&error, RESTORE) };
                self.report.fault(&error, advice);
                Ok(None)
            }
        }
    }

    /// The folder of the revision log that a start takes. None if it takes none, and the report says so.
    fn revision_log(&mut self, log: Option<&wal::Opened>) -> Result<Option<PathBuf>, Error> {
        let Folders { rev, rev_next, .. } = self.folders;
        let (Some(log), true) = (log, has_segments(&**self.fs, rev_next)?) else {
            return Ok(Some(rev.clone()));
        };
        let next = rev_next.display();
        match is_to_go_over(self.fs, self.folders, self.limits, log) {
            Ok(true) => {
                self.report.notes.push(format!(
                    "{next} is of a leader's snapshot that the write-ahead log names; a start goes over to it"
                ));
                Ok(Some(rev_next.clone()))
            }
            Ok(false) => {
                let text =
                    "is of a leader's snapshot that the write-ahead log does not name; a start removes it";
                self.report.notes.push(format!("{next} {text}"));
                Ok(Some(rev.clone()))
            }
            // One of the two is damaged. The present one is read again, and then named.
            Err(error) if reached(self.fs, rev, self.limits).is_err() => {
                sort(error)?;
                Ok(Some(rev.clone()))
            }
            Err(error) => {
                let error = sort(error)?;
                self.report.fault(&error, advice(&error, RESTORE));
                Ok(None)
            }
        }
    }

    /// The database of etcd's that a start looks at, if there is one.
    fn database(&self, log: Option<&wal::Opened>) -> Result<Option<PathBuf>, Error> {
        let path = self.folders.database();
        let is_there = self.fs.exists(&path).map_err(io("look for", &path))?;
        let Some(log) = log else { return Ok(is_there.then_some(path)) };
        let named = log.newest_snapshot().index;
        let is_behind = || interchange::applied(&**self.fs, &path).is_ok_and(|applied| applied.index < named);
        match received(&**self.fs, self.folders, log)? {
            Some(received) if !is_there || is_behind() => Ok(Some(received)),
            _ => Ok(is_there.then_some(path)),
        }
    }

    /// A revision log, read to its end. None if it is damaged, which the report says with the advice that is asked for then.
    fn revisions(
        &mut self,
        rev: &Path,
        otherwise: impl FnOnce(&Self) -> Result<&'static str, Error>,
    ) -> Result<Option<(revlog::Opened, Replayed)>, Error> {
        let limits = self.limits.clone();
        let replayed = replay_revlog(self.fs, rev, limits, store::Settings::default(), 1, &mut |_, _| {});
        let (opened, replayed) = match replayed {
            Ok(read) => read,
            Err(error) => {
                let error = sort(error)?;
                let otherwise = otherwise(self)?;
                self.report.fault(&error, advice(&error, otherwise));
                return Ok(None);
            }
        };
        if !opened.is_empty() {
            let (revision, index) = (replayed.store.revision(), opened.applied().index);
            self.report.sound(rev, format!("revision {revision}, entries up to {index}"));
        }
        if let Some(torn) = opened.torn() {
            self.report.notes.push(format!(
                "{}: the end from offset {} on is torn ({}); the write-ahead log has what it held, and a start cuts it off",
                torn.file.display(),
                torn.offset,
                torn.what
            ));
        }
        Ok(Some((opened, replayed)))
    }

    /// What can be done where the revision log in its place is damaged.
    fn advice_for_revisions(
        &self,
        log: Option<&(wal::Opened, Identity)>,
        database: Option<&Path>,
    ) -> Result<&'static str, Error> {
        let Some((log, identity)) = log else { return Ok(RESTORE) };
        let named = log.newest_snapshot().index;
        let next = &self.folders.rev_next;
        if named > 0
            && has_segments(&**self.fs, next)?
            && reached(self.fs, next, self.limits).is_ok_and(|next| next.index >= named)
        {
            return Ok(GO_OVER);
        }
        if let Some(path) = database {
            let fits = Database::open(&**self.fs, path).and_then(|database| {
                database.read()?;
                check_import(log, *identity, &database)
            });
            return Ok(if fits.is_ok() { TAKE_OVER } else { RESTORE });
        }
        Ok(if has_all(&**self.fs, self.folders, log)? { REMAKE } else { RESTORE })
    }

    /// A revision log and the write-ahead log. `in_database`: what the database has of which it was made, if that is still
    /// there. Then it may be ahead, and a start has the log go on behind it.
    fn together(
        &mut self,
        log: &wal::Opened,
        opened: &revlog::Opened,
        replayed: &Replayed,
        in_database: Option<revlog::Applied>,
    ) -> Result<(), Error> {
        let applied = opened.applied();
        let is_ahead = in_database == Some(applied) && applied.index > log.last().index;
        let makes_anew = may_make_anew(&**self.fs, self.folders, log, opened)?;
        if makes_anew {
            let rev = self.folders.rev.display();
            self.report.notes.push(format!(
                "{rev} does not have the store; a start makes it anew from the write-ahead log"
            ));
        }
        let version = || check_cluster_version(replayed.store.membership());
        let checked = match is_ahead {
            true => version(),
            false => check_together(log, StoreOf::Log(opened), makes_anew)
                .and_then(|()| version())
                .and_then(|()| check_consensus(log, applied, replayed.conf.clone()))
                .and_then(|()| check_requests(log, applied.index)),
        };
        if let Err(error) = checked {
            let is_gone = opened.is_empty() && log.newest_snapshot().index > 0 && !makes_anew;
            let error = sort(error)?;
            self.report.fault(&error, advice(&error, if is_gone { BRING_BACK } else { TOGETHER }));
        }
        Ok(())
    }

    /// A database that a start takes over, and the write-ahead log.
    fn beside(&mut self, log: &wal::Opened, identity: Identity, database: &Database) -> Result<(), Error> {
        let applied = database.applied();
        let is_ahead = applied.index > log.last().index;
        let checked = check_import(log, identity, database).and_then(|()| match is_ahead {
            true => Ok(()),
            false => check_consensus(log, applied, database.conf())
                .and_then(|()| check_requests(log, applied.index)),
        });
        if let Err(error) = checked {
            let error = sort(error)?;
            self.report.fault(&error, advice(&error, TOGETHER));
        }
        Ok(())
    }
}

fn is_kept(name: &str) -> bool {
    name.starts_with("imported-") && name.ends_with(".db")
}

/// Whether an entry can be read at all; what it asks for is judged once it is known which are to be applied.
fn check_entry(entry: &wal::Entry) -> Result<(), Error> {
    let read = match entry.kind {
        wal::EntryKind::Normal => match store::check_request(&entry.data) {
            Err(store::Fatal::Undecodable(reason)) => Err(reason),
            _ => Ok(()),
        },
        wal::EntryKind::ConfChange => {
            ConfChange::decode(entry.data.clone()).map(drop).map_err(|error| error.to_string())
        }
        wal::EntryKind::ConfChangeV2 => Ok(()),
    };
    read.map_err(|reason| Error::Apply { index: entry.index, reason })
}

/// Whether what is applied first of all can be applied by this version.
fn check_requests(log: &wal::Opened, applied: u64) -> Result<(), Error> {
    for entry in log.entries(applied) {
        let entry = entry?;
        let checked = match entry.kind {
            wal::EntryKind::Normal if entry.data.is_empty() => Ok(()),
            wal::EntryKind::Normal => store::check_request(&entry.data).map_err(|error| error.to_string()),
            wal::EntryKind::ConfChange => Ok(()),
            wal::EntryKind::ConfChangeV2 => Err(applier::JOINT_FORM.to_owned()),
        };
        checked.map_err(|reason| Error::Apply { index: entry.index, reason })?;
    }
    Ok(())
}

/// Whether consensus takes what the logs have.
fn check_consensus(log: &wal::Opened, applied: revlog::Applied, conf: ConfState) -> Result<(), Error> {
    let (offset, entries) = read_entries(log, applied, (0, 0))?;
    let hard_state = hard_state(log);
    let restored = Restored { hard_state, conf, offset, entries, applied: Index(applied.index) };
    Ok(restored.check()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(data: Vec<u8>) -> Result<(), Error> {
        check_entry(&wal::Entry { term: 1, index: 2, kind: wal::EntryKind::Normal, data: data.into() })
    }

    /// etcd's members leave in an entry what nobody knows; each member applies it without.
    #[test]
    fn what_can_be_applied_is_no_fault() {
        // A header, and a put with 101 groups, one within the other.
        let header = [0xa2, 0x06, 2, 0x08, 1];
        let groups = [vec![0x1b; 101], vec![0x1c; 101]].concat();
        let put = [&[0x22, 0xca, 0x01][..], &groups].concat();
        assert!(check([&header[..], &put].concat()).is_ok());
        // A lease whose TTL has a wrong wire type; prost decodes those.
        assert!(check([&header[..], &[0x42, 2, 0x0a, 0]].concat()).is_ok());
        assert!(check(Vec::new()).is_ok());
        let refused = check([&header[..], &[0x42, 9]].concat()).unwrap_err();
        assert!(matches!(refused, Error::Apply { index: 2, .. }), "{refused}");
    }
}
