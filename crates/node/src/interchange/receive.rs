//! A leader's snapshot on its way in, for a member that lags behind (rule 17): received into a file, verified, and turned
//! into a revision log that the next start takes in the place of the present one.
//!
//! ```text
//! leader    Applier ─ Cut ─► plan: the length ─► write: pieces, in order
//!                                                  │ transport
//! follower  SnapshotReceiver: a file ─► checked ─► revision log beside the present one, durable ─► `.snap`, durable
//!             ─► Consensus hears the message ─► LogWriter: snapshot record and hard state, one fdatasync
//!             ─► the member is opened anew, and goes over to it
//! ```
//!
//! A crash anywhere on this way leaves a log that does not name the snapshot, and the leftovers go; or one that does, and
//! then all of it is there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use disk::boltfile::{self, Reader, schema};
use disk::{Access, File, Fs, revlog, snap};
use raft::Snapshot;

use super::export::wal_conf;
use super::import::Database;
use crate::Error;

/// What a file has, be it empty. A leader makes those of users at its start, whether or not it has any.
const BUCKETS: [&[u8]; 9] = [
    schema::BUCKET_AUTH,
    schema::BUCKET_AUTH_ROLES,
    schema::BUCKET_AUTH_USERS,
    schema::BUCKET_CLUSTER,
    schema::BUCKET_KEY,
    schema::BUCKET_LEASE,
    schema::BUCKET_MEMBERS,
    schema::BUCKET_MEMBERS_REMOVED,
    schema::BUCKET_META,
];

/// Room that is made ahead of what has come of a file.
const ALLOCATED_AHEAD_BYTES: u64 = 64 << 20;

/// Why a snapshot was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It is not what its message says, or not whole: to be logged, and told to the sender.
    #[error("{0}")]
    Refused(String),
    /// Another one is being received or taken over: to be told to the sender, who tries again.
    #[error("another snapshot is being taken over")]
    Busy,
    /// The disk has no room for it: to be told to the sender, who tries again.
    #[error("no room for a snapshot")]
    NoRoom,
    /// The disk failed; the member must stop (rule 7).
    #[error(transparent)]
    Failed(Error),
}

impl From<Error> for ReceiveError {
    fn from(error: Error) -> Self {
        match error {
            Error::Boltfile(error) => error.into(),
            Error::Database { what, .. } | Error::NotTakenOver { what, .. } => ReceiveError::Refused(what),
            Error::Io { ref source, .. } if is_full(source) => ReceiveError::NoRoom,
            other => ReceiveError::Failed(other),
        }
    }
}

impl From<boltfile::Error> for ReceiveError {
    fn from(error: boltfile::Error) -> Self {
        match error {
            boltfile::Error::Io { .. } => ReceiveError::Failed(error.into()),
            other => ReceiveError::Refused(other.to_string()),
        }
    }
}

/// Takes in snapshots, one at a time; for a thread of long work.
#[derive(Clone)]
pub struct SnapshotReceiver {
    pub(crate) fs: Arc<dyn Fs>,
    /// The member's folder.
    pub(crate) member: PathBuf,
    /// Where the new revision log is made.
    pub(crate) next: PathBuf,
    /// Where the `.snap` files are.
    pub(crate) snap: PathBuf,
    pub(crate) limits: revlog::Limits,
    /// Whether one is on its way, from its first byte until consensus has no use for it or the member is opened anew.
    pub(crate) occupied: Occupied,
}

/// Whether a snapshot is being received or taken over: what was made of it must not be replaced by the next one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Occupied(Arc<AtomicBool>);

impl Occupied {
    fn take(&self) -> Option<Turn> {
        (!self.0.swap(true, Ordering::AcqRel)).then(|| Turn(Some(self.clone())))
    }

    /// Nothing is left of what was received.
    fn release(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Given back when it is dropped, unless it is kept for consensus.
struct Turn(Option<Occupied>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.iter().for_each(Occupied::release);
    }
}

/// A database file that is being received. Nothing is left of it where it is dropped before it is taken in.
pub struct Incoming {
    receiver: SnapshotReceiver,
    file: Arc<dyn File>,
    path: PathBuf,
    len: u64,
    /// As long as the sender tells, and how much room there is already.
    told: u64,
    allocated: u64,
    turn: Turn,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Before the turn is given back. What cannot be removed now is removed before the next one, or by the next start.
        if self.turn.0.is_some() {
            let _left = self.receiver.clear();
        }
    }
}

impl Incoming {
    /// Takes the next piece of the file.
    ///
    /// # Errors
    /// [`ReceiveError::NoRoom`] and [`ReceiveError::Failed`]; the snapshot is to be given up.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ReceiveError> {
        let end = self.len + bytes.len() as u64;
        // What is told may be wrong, and only what has come is worth room: a little more is made at a time.
        if end > self.allocated && self.allocated < self.told {
            let to = self.told.min(end + ALLOCATED_AHEAD_BYTES);
            self.file.allocate(to).map_err(failed("allocate", &self.path))?;
            self.allocated = to;
        }
        self.file.write_all_at(bytes, self.len).map_err(failed("write", &self.path))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// How much of it has come.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has come.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReceiveError {
    let path = path.to_owned();
    move |source| Error::Io { operation, path, source }.into()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl SnapshotReceiver {
    /// Begins to receive a file, of so many bytes if that is known: room is made for them, some ahead of what comes.
    ///
    /// # Errors
    /// [`ReceiveError::Busy`], [`ReceiveError::NoRoom`] and [`ReceiveError::Failed`].
    pub fn begin(&self, len: Option<u64>) -> Result<Incoming, ReceiveError> {
        let turn = self.occupied.take().ok_or(ReceiveError::Busy)?;
        self.clear()?;
        let path = self.database();
        let file = self.fs.open(&path, Access::CreateNew).map_err(failed("create", &path))?;
        let told = len.unwrap_or_default();
        Ok(Incoming { receiver: self.clone(), file, path, len: 0, told, allocated: 0, turn })
    }

    /// Removes what is left of a snapshot that was not taken over.
    ///
    /// # Errors
    /// [`ReceiveError::Failed`].
    pub fn clear(&self) -> Result<(), ReceiveError> {
        clear(&*self.fs, &self.next)?;
        let path = self.database();
        if self.fs.exists(&path).map_err(failed("look for", &path))? {
            self.fs.remove(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }

    /// Removes what was received and consensus has no use for ([`crate::Outputs::discard_received`]), and takes the next.
    ///
    /// # Errors
    /// [`ReceiveError::Failed`].
    pub fn discard(&self) -> Result<(), ReceiveError> {
        let cleared = self.clear();
        self.occupied.release();
        cleared
    }

    fn database(&self) -> PathBuf {
        self.member.join("received.db.tmp")
    }

    /// Verifies the file that came with `snapshot`, and makes everything durable that a member needs to go over to it; then
    /// consensus is to hear the message, and no other snapshot is received until it has. `log_id`: random, not 0.
    ///
    /// # Errors
    /// [`ReceiveError`]; of the snapshot nothing counts then.
    pub fn finish(
        &self,
        mut incoming: Incoming,
        snapshot: &Snapshot,
        log_id: u64,
    ) -> Result<(), ReceiveError> {
        // What was allocated for more than came is no part of it.
        incoming.file.set_len(incoming.len).map_err(failed("cut", &incoming.path))?;
        let reader = Reader::of(incoming.file.clone(), &incoming.path)?;
        if let Some(lost) = reader.lost_meta() {
            return Err(ReceiveError::Refused(lost.to_owned()));
        }
        let database = Database::of(reader, &incoming.path, &BUCKETS)?;
        check_fits(&database, snapshot)?;
        self.write_log(&database, snapshot, log_id.max(1))?;
        let file = snap::Snapshot {
            index: snapshot.index.0,
            term: snapshot.term.0,
            conf_state: wal_conf(&snapshot.conf),
            data: snapshot.data.to_vec(),
        };
        let folder = snap::Folder::new(self.fs.clone(), &self.snap);
        let Some(_path) = folder.write(&file).map_err(Error::from)? else { return Err(ReceiveError::NoRoom) };
        self.fs.remove(&incoming.path).map_err(failed("remove", &incoming.path))?;
        incoming.turn.0 = None;
        Ok(())
    }

    /// Makes a revision log of a file. Only its last frame says that anything is applied, so one that is torn is seen.
    fn write_log(&self, database: &Database, snapshot: &Snapshot, log_id: u64) -> Result<(), ReceiveError> {
        let limits = (self.limits.clone(), log_id);
        let mut out = database.revision_log(&self.fs, &self.next, limits, &snapshot.conf)?;
        // Alone, so that every record is read with the compacted revision known: a compaction of the sender's may have
        // more to drop, and a tombstone be the first that is left of its key.
        out.frame()?;
        database.records(&mut |key, value| {
            out.push(key, value);
            if out.builder.is_full() { out.frame() } else { Ok(()) }
        })?;
        out.applied = database.applied();
        out.frame_with(true)?;
        out.writer.sync().map_err(Error::from)?;
        self.fs.sync_dir(&self.next).map_err(failed("sync folder", &self.next))?;
        self.fs.sync_dir(&self.member).map_err(failed("sync folder", &self.member))
    }
}

/// Whether the file is whole, and of the index and the members that its message names.
fn check_fits(database: &Database, snapshot: &Snapshot) -> Result<(), ReceiveError> {
    let refuse = |what: String| Err(ReceiveError::Refused(what));
    let revlog::Applied { index, term } = database.applied();
    if (index, term) != (snapshot.index.0, snapshot.term.0) {
        let (named, named_term) = (snapshot.index, snapshot.term);
        return refuse(format!("of entry {index} in term {term}, not {named} in {named_term}"));
    }
    if let Some(conf) = database.reader().get(schema::BUCKET_META, schema::META_CONF_STATE)? {
        let conf = schema::decode_conf_state(&conf).map_err(|error| database.refuse(error))?;
        if conf != wal_conf(&snapshot.conf) {
            return refuse(format!("its members are {conf:?}, not {:?}", snapshot.conf));
        }
    }
    Ok(())
}

/// Removes the files in a folder, if that is there.
pub(crate) fn clear(fs: &dyn Fs, folder: &Path) -> Result<(), Error> {
    let fail = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { operation, path, source }
    };
    if !fs.exists(folder).map_err(fail("look for", folder))? {
        return Ok(());
    }
    let names = fs.list(folder).map_err(fail("list", folder))?;
    for path in names.iter().map(|name| folder.join(name)) {
        fs.remove(&path).map_err(fail("remove", &path))?;
    }
    fs.sync_dir(folder).map_err(fail("sync folder", folder))
}
