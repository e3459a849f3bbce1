//! A member's whole state as etcd's database file, for members that lag behind (rule 17): made of a cut in two passes, so
//! that its length is known before its first byte; received into a file, verified, and turned into a revision log that
//! the next start takes in the place of the present one.
//!
//! ```text
//! leader    Applier ─ SnapshotCut ─► plan: the length ─► write: pieces, in order
//!                                                          │ transport
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

use disk::boltfile::{self, schema};
use disk::revlog::{self, FrameBuilder, RecordHeader, Replay, ReplayError, Writer};
use disk::{Access, File, Fs, snap, wal};
use prost::Message as _;
use raft::{ConfState, NodeId, Snapshot};
use store::{RecordKind, SmallTables};
use wire::membershippb;

use crate::Error;
use crate::records::{FrameState, record_header};

/// The same in the words of the write-ahead log.
pub(crate) fn wal_conf_state(conf: &ConfState) -> wal::ConfState {
    let ids = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect();
    wal::ConfState { voters: ids(&conf.voters), learners: ids(&conf.learners), ..Default::default() }
}

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
    Failed(#[from] Error),
}

impl From<boltfile::Error> for ReceiveError {
    fn from(error: boltfile::Error) -> Self {
        match error {
            boltfile::Error::Io { .. } => ReceiveError::Failed(error.into()),
            other => ReceiveError::Refused(other.to_string()),
        }
    }
}

impl From<schema::Malformed> for ReceiveError {
    fn from(error: schema::Malformed) -> Self {
        ReceiveError::Refused(error.to_string())
    }
}

impl From<revlog::Error> for ReceiveError {
    fn from(error: revlog::Error) -> Self {
        ReceiveError::Failed(error.into())
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

    /// Consensus has no use for what was received.
    pub(crate) fn release(&self) {
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

/// A database file that is being received.
pub struct Incoming {
    file: Arc<dyn File>,
    path: PathBuf,
    len: u64,
    turn: Turn,
}

impl Incoming {
    /// Takes the next piece of the file.
    ///
    /// # Errors
    /// [`ReceiveError::NoRoom`] and [`ReceiveError::Failed`]; the snapshot is to be given up.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ReceiveError> {
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
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ReceiveError::NoRoom,
        _ => ReceiveError::Failed(Error::Io { operation, path, source }),
    }
}

/// A log that has just been made holds nothing.
struct Nothing;

impl Replay for Nothing {
    fn record(&mut self, _: RecordHeader, _: revlog::Location, _: &[u8]) -> Result<(), ReplayError> {
        Err("the folder was empty".into())
    }

    fn frame(&mut self, _: revlog::Applied, _: &[u8], _: bool) -> Result<(), ReplayError> {
        Err("the folder was empty".into())
    }
}

impl SnapshotReceiver {
    /// Begins to receive a file.
    ///
    /// # Errors
    /// [`ReceiveError::Busy`], [`ReceiveError::NoRoom`] and [`ReceiveError::Failed`].
    pub fn begin(&self) -> Result<Incoming, ReceiveError> {
        let turn = self.occupied.take().ok_or(ReceiveError::Busy)?;
        self.clear()?;
        let path = self.database();
        let file = self.fs.open(&path, Access::CreateNew).map_err(failed("create", &path))?;
        Ok(Incoming { file, path, len: 0, turn })
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
        let reader = boltfile::Reader::of(incoming.file.clone(), &incoming.path)?;
        if let Some(lost) = reader.lost_meta() {
            return Err(ReceiveError::Refused(lost.to_owned()));
        }
        reader.check()?;
        check_meta(&reader, snapshot)?;
        self.write_log(&reader, snapshot, log_id.max(1))?;
        let file = snap::Snapshot {
            index: snapshot.index.0,
            term: snapshot.term.0,
            conf_state: wal_conf_state(&snapshot.conf),
            data: snapshot.data.to_vec(),
        };
        let folder = snap::Folder::new(self.fs.clone(), &self.snap);
        let Some(_path) = folder.write(&file).map_err(Error::from)? else { return Err(ReceiveError::NoRoom) };
        self.fs.remove(&incoming.path).map_err(failed("remove", &incoming.path))?;
        incoming.turn.0 = None;
        Ok(())
    }

    /// Makes a revision log of a file. Only its last frame says that anything is applied, so one that is torn is seen.
    fn write_log(
        &self,
        reader: &boltfile::Reader,
        snapshot: &Snapshot,
        log_id: u64,
    ) -> Result<(), ReceiveError> {
        let tables = tables(reader)?;
        let compacted = tables.compacted.unwrap_or(0);
        let state = |tables| FrameState {
            voters: snapshot.conf.voters.iter().map(|id| id.0).collect(),
            learners: snapshot.conf.learners.iter().map(|id| id.0).collect(),
            tables,
        };
        let tables = tables.encode();
        let whole = state(Some(tables)).encode_to_vec();
        let bare = state(None).encode_to_vec();
        disk::make_dir(&*self.fs, &self.next, 0o700).map_err(failed("create folder", &self.next))?;
        let opened = revlog::open(self.fs.clone(), &self.next, self.limits.clone(), log_id, &mut Nothing)?;
        let (mut builder, mut writer, _) = opened.into_parts()?;
        let nothing = revlog::Applied::default();
        let mut cursor = bucket(reader, schema::BUCKET_KEY)?.cursor();
        while let Some(item) = cursor.next()? {
            let key = schema::RevisionKey::decode(item.key)?;
            let Some(value) = item.value else { return refuse("a bucket among the revisions") };
            // What it has ended is not in the file.
            if key.tombstone && key.main <= compacted {
                continue;
            }
            let kind = if key.tombstone { RecordKind::Tombstone } else { RecordKind::Put };
            builder.push(record_header(kind, key.main, key.sub), value);
            if builder.is_full() {
                let state = if builder.starts_segment() { &whole } else { &bare };
                write_frame(&mut builder, &mut writer, nothing, state)?;
            }
        }
        let applied = revlog::Applied { index: snapshot.index.0, term: snapshot.term.0 };
        write_frame(&mut builder, &mut writer, applied, &whole)?;
        writer.sync()?;
        self.fs.sync_dir(&self.next).map_err(failed("sync folder", &self.next))?;
        self.fs.sync_dir(&self.member).map_err(failed("sync folder", &self.member))
    }
}

fn write_frame(
    builder: &mut FrameBuilder,
    writer: &mut Writer,
    applied: revlog::Applied,
    state: &[u8],
) -> Result<(), ReceiveError> {
    let frame = builder.finish(applied, state, 0)?;
    if !writer.make_room(&frame)? {
        return Err(ReceiveError::NoRoom);
    }
    Ok(writer.write(frame)?)
}

fn refuse<T>(what: impl Into<String>) -> Result<T, ReceiveError> {
    Err(ReceiveError::Refused(what.into()))
}

fn bucket<'r>(reader: &'r boltfile::Reader, name: &[u8]) -> Result<boltfile::Bucket<'r>, ReceiveError> {
    match reader.bucket(name)? {
        Some(bucket) => Ok(bucket),
        None => refuse(format!("the bucket {} is missing", String::from_utf8_lossy(name))),
    }
}

/// Whether the file is of the index that its message names.
fn check_meta(reader: &boltfile::Reader, snapshot: &Snapshot) -> Result<(), ReceiveError> {
    let meta = bucket(reader, schema::BUCKET_META)?;
    let number = |key: &[u8]| -> Result<u64, ReceiveError> {
        match meta.get(key)? {
            Some(value) => Ok(schema::decode_u64(&value)?),
            None => refuse(format!("{} is missing", String::from_utf8_lossy(key))),
        }
    };
    let (index, term) = (number(schema::META_CONSISTENT_INDEX)?, number(schema::META_TERM)?);
    if (index, term) != (snapshot.index.0, snapshot.term.0) {
        let (named, named_term) = (snapshot.index, snapshot.term);
        return refuse(format!("of entry {index} in term {term}, not {named} in {named_term}"));
    }
    if let Some(conf) = meta.get(schema::META_CONF_STATE)? {
        let conf = schema::decode_conf_state(&conf)?;
        if conf != wal_conf_state(&snapshot.conf) {
            return refuse(format!("its members are {conf:?}, not {:?}", snapshot.conf));
        }
    }
    for unsupported in [schema::BUCKET_ALARM, schema::BUCKET_AUTH_USERS, schema::BUCKET_AUTH_ROLES] {
        if let Some(bucket) = reader.bucket(unsupported)?
            && bucket.cursor().next()?.is_some()
        {
            let name = String::from_utf8_lossy(unsupported);
            return refuse(format!("it has entries in {name}, which this version does not support yet"));
        }
    }
    Ok(())
}

/// The small tables in a file.
fn tables(reader: &boltfile::Reader) -> Result<SmallTables, ReceiveError> {
    let meta = bucket(reader, schema::BUCKET_META)?;
    let mut tables = SmallTables::default();
    if let Some(compacted) = meta.get(schema::META_SCHEDULED_COMPACT)? {
        tables.compacted = Some(schema::decode_compact_revision(&compacted)?);
    }
    let mut leases = bucket(reader, schema::BUCKET_LEASE)?.cursor();
    while let Some(item) = leases.next()? {
        tables.leases.push(schema::decode_lease(item.key, item.value.unwrap_or_default())?);
    }
    let mut members = bucket(reader, schema::BUCKET_MEMBERS)?.cursor();
    while let Some(item) = members.next()? {
        let member = schema::Member::decode(item.value.unwrap_or_default())?;
        tables.members.push(membershippb::Member {
            id: member.id,
            raft_attributes: Some(membershippb::RaftAttributes {
                peer_urls: member.peer_urls,
                is_learner: member.is_learner,
            }),
            member_attributes: Some(membershippb::Attributes {
                name: member.name,
                client_urls: member.client_urls,
            }),
        });
    }
    let mut removed = bucket(reader, schema::BUCKET_MEMBERS_REMOVED)?.cursor();
    while let Some(item) = removed.next()? {
        tables.removed.push(schema::decode_member_key(item.key)?);
    }
    if let Some(version) = bucket(reader, schema::BUCKET_CLUSTER)?.get(schema::CLUSTER_VERSION)? {
        tables.cluster_version = schema::Version::decode(&version)?.to_string();
    }
    Ok(tables)
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
