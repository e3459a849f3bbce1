use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::boltfile::schema::{self, Downgrade, RevisionKey, Version};
use disk::boltfile::{Bucket, Reader};
use disk::revlog::{self, FrameBuilder, RecordHeader, Replay, ReplayError, Writer};
use disk::{Fs, wal};
use prost::Message;
use raft::{ConfState, NodeId};
use store::{Alarms, Auth, Location, Member, Membership, RecordKind, Revision, Store};
use wire::leasepb::Lease;

use super::export::wal_conf;
use super::file;
use crate::Error;
use crate::identity::Identity;
use crate::records::{FrameState, LogSource, record_header};

/// The oldest etcd whose files are taken over.
const VERSION_MIN: Version = Version { major: 3, minor: 6, patch: 0 };
/// The first that is not.
const VERSION_END: Version = Version { major: 3, minor: 8, patch: 0 };

/// Pairs between two words about the progress.
const PROGRESS_PAIRS: u64 = 4096;

/// Sees one record after the other.
pub(super) type RecordVisitor<'a> = dyn FnMut(RevisionKey, &[u8]) -> Result<(), Error> + 'a;

/// A database file that was opened, checked page by page, and understood: what a store's state is taken over from.
pub struct Database {
    reader: Reader,
    path: PathBuf,
    tables: Tables,
    pairs: u64,
}

/// Everything but the revisions.
struct Tables {
    applied: revlog::Applied,
    membership: Membership,
    leases: Vec<Lease>,
    alarms: Alarms,
    auth: Auth,
    /// -1 if nothing is compacted.
    compacted: i64,
}

/// What was taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// From where.
    pub file: PathBuf,
    /// The last entry whose effects it has.
    pub applied: revlog::Applied,
    /// The newest revision.
    pub revision: i64,
    /// The compacted revision; -1 if nothing is compacted.
    pub compacted: i64,
}

impl Database {
    /// Opens a file and reads all of it, to check it; nothing is changed. It has all buckets: etcd makes them at its start,
    /// so one that is not there is lost, and not empty.
    ///
    /// # Errors
    /// The file, and what is wrong with it where; or the failed operation.
    pub fn open(fs: &dyn Fs, path: &Path) -> Result<Database, Error> {
        Database::of(Reader::open(fs, path)?, path, &schema::BUCKETS)
    }

    /// As [`Database::open`], of a file that is open already, and has these buckets; `path` is what errors name.
    pub(super) fn of(reader: Reader, path: &Path, required: &[&[u8]]) -> Result<Database, Error> {
        let summary = reader.check()?;
        file::check_buckets(&reader, path, required)?;
        let tables = Tables::read(&reader, path)?;
        Ok(Database { reader, path: path.to_owned(), tables, pairs: summary.pairs })
    }

    /// Why a meta page does not count, if one does not: what was read may be the state before the newest transaction.
    pub(crate) fn lost_meta(&self) -> Option<&str> {
        self.reader.lost_meta()
    }

    /// The file, page by page.
    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The last entry whose effects it has.
    pub fn applied(&self) -> revlog::Applied {
        self.tables.applied
    }

    /// The membership.
    pub fn membership(&self) -> &Membership {
        &self.tables.membership
    }

    /// Users and roles, and whether they count.
    pub fn auth(&self) -> &Auth {
        &self.tables.auth
    }

    /// The membership of consensus that goes with the members. (What the file says of that itself is older in one that
    /// etcd restored.)
    pub fn conf(&self) -> ConfState {
        let ids = |learners: bool| {
            let members = self.tables.membership.members().filter(|member| member.is_learner == learners);
            members.map(|member| NodeId(member.id)).collect()
        };
        ConfState { voters: ids(false), learners: ids(true) }
    }

    /// Judges every record as an import would, and keeps none: how many pairs the file has, and its newest revision.
    pub(crate) fn read(&self) -> Result<(u64, i64), Error> {
        check_version(&self.reader, &self.path)?;
        let mut store = Store::new(Arc::new(LogSource::default()), store::Settings::default());
        store.restore_tables(&self.encoded_tables(), true).map_err(|error| self.refuse(error))?;
        self.records(&mut |key, value| {
            let at = Revision { main: key.main, sub: key.sub };
            let kind = if key.tombstone { RecordKind::Tombstone } else { RecordKind::Put };
            store.replay(kind, at, Location(0), value).map_err(|error| self.refuse(error))
        })?;
        store.check_restored().map_err(|error| self.refuse(error))?;
        Ok((self.pairs, store.revision().max(self.tables.compacted)))
    }

    /// Writes everything into a new revision log in the folder `to`, which holds none, and makes it durable. `log_id` is
    /// random and not 0. `progress` hears how many pairs of how many are done. A file that etcd 3.5 or older wrote is
    /// refused.
    ///
    /// # Errors
    /// A record that makes no sense, by file and revision; a failed operation, a full disk among them. What was written
    /// is to be thrown away.
    pub fn import(
        &self,
        fs: &Arc<dyn Fs>,
        to: &Path,
        limits: revlog::Limits,
        log_id: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Imported, Error> {
        check_version(&self.reader, &self.path)?;
        let Tables { applied, compacted, .. } = self.tables;
        let mut out = self.revision_log(fs, to, (limits, log_id), &self.conf())?;
        out.applied = applied;
        // Judges every record as the start will; nothing is read through it.
        let mut store = Store::new(Arc::new(LogSource::default()), store::Settings::default());
        store.restore_tables(&out.tables, true).map_err(|error| self.refuse(error))?;
        // Alone, so that every record is read with the compacted revision known.
        out.frame()?;
        let mut done = 0;
        self.records(&mut |key, value| {
            let at = Revision { main: key.main, sub: key.sub };
            let (kind, location) = out.push(key, value);
            store.replay(kind, at, Location(location.0), value).map_err(|error| self.refuse(error))?;
            done += 1;
            if done % PROGRESS_PAIRS == 0 {
                progress(done, self.pairs);
            }
            if out.builder.is_full() { out.frame() } else { Ok(()) }
        })?;
        store.check_restored().map_err(|error| self.refuse(error))?;
        if out.builder.records() > 0 {
            out.frame()?;
        }
        out.writer.sync()?;
        Ok(Imported {
            file: self.path.clone(),
            applied,
            revision: store.revision().max(compacted),
            compacted,
        })
    }

    /// Begins a revision log of this file in the folder `to`, which holds none.
    pub(super) fn revision_log(
        &self,
        fs: &Arc<dyn Fs>,
        to: &Path,
        (limits, log_id): (revlog::Limits, u64),
        conf: &ConfState,
    ) -> Result<Out, Error> {
        let opened = revlog::open(fs.clone(), to, limits, log_id, &mut Nothing)?;
        if !opened.is_empty() {
            return Err(self.refuse(format!("{} holds a revision log already", to.display())));
        }
        let (builder, writer, _) = opened.into_parts()?;
        let conf = wal_conf(conf);
        let state = FrameState { voters: conf.voters, learners: conf.learners, tables: None };
        let (applied, folder) = (revlog::Applied::default(), to.to_owned());
        Ok(Out { builder, writer, applied, state, tables: self.encoded_tables(), folder })
    }

    /// Visits the bucket of revisions in order.
    pub(super) fn records(&self, visit: &mut RecordVisitor<'_>) -> Result<(), Error> {
        let bucket = self.revisions()?;
        let mut last = None;
        each(&bucket, &self.path, |key, value| {
            let key = RevisionKey::decode(key).map_err(|error| self.refuse(error))?;
            let at = (key.main, key.sub);
            // Keys ascend, but a put and a tombstone may say that they are the same change.
            if last.replace(at) == Some(at) {
                let text = format!("revision {}.{} is there twice, as a put and as a tombstone", at.0, at.1);
                return Err(self.refuse(text));
            }
            visit(key, value)
        })
    }

    /// The same from a main revision on, until the visitor breaks.
    pub(super) fn records_from(
        &self,
        from: i64,
        visit: &mut dyn FnMut(RevisionKey, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut cursor = self.revisions()?.cursor();
        let first = RevisionKey { main: from.max(0), sub: 0, tombstone: false };
        cursor.seek(first.encode(&mut [0; RevisionKey::LEN_MAX]))?;
        while let Some(item) = cursor.next()? {
            let key = RevisionKey::decode(item.key).map_err(|error| self.refuse(error))?;
            if visit(key, item.value.unwrap_or_default()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn revisions(&self) -> Result<Bucket<'_>, Error> {
        self.reader.bucket(schema::BUCKET_KEY)?.ok_or_else(|| file::lacks(&self.path, schema::BUCKET_KEY))
    }

    /// The tables as frames have them.
    pub(super) fn encoded_tables(&self) -> Vec<u8> {
        let Tables { membership, leases, alarms, auth, compacted, .. } = &self.tables;
        store::encode_tables(membership, *compacted, leases.clone(), alarms, auth)
    }

    pub(super) fn refuse(&self, what: impl std::fmt::Display) -> Error {
        refuse(&self.path, what)
    }
}

/// The last entry whose effects a file has; reads little of it.
pub(crate) fn applied(fs: &dyn Fs, path: &Path) -> Result<revlog::Applied, Error> {
    read_applied(&Reader::open(fs, path)?, path)
}

fn read_applied(reader: &Reader, path: &Path) -> Result<revlog::Applied, Error> {
    // Without it the file would seem to be of the time before anything was applied.
    file::check_buckets(reader, path, &[schema::BUCKET_META])?;
    let number = |key: &[u8]| -> Result<u64, Error> {
        let value = reader.get(schema::BUCKET_META, key)?;
        value.map_or(Ok(0), |value| schema::decode_u64(&value).map_err(|error| refuse(path, error)))
    };
    Ok(revlog::Applied { index: number(schema::META_CONSISTENT_INDEX)?, term: number(schema::META_TERM)? })
}

pub(super) fn refuse(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::Database { file: path.to_owned(), what: what.to_string() }
}

/// It is sound, and not for this version.
fn refuse_sound(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::NotTakenOver { file: path.to_owned(), what: what.to_string() }
}

/// Visits the pairs of a bucket in order. A bucket in it is nothing that etcd writes.
pub(super) fn each(
    bucket: &Bucket<'_>,
    path: &Path,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut cursor = bucket.cursor();
    while let Some(item) = cursor.next()? {
        let Some(value) = item.value else {
            return Err(refuse(path, format_args!("a bucket inside a bucket, {:?}", text(item.key))));
        };
        visit(item.key, value)?;
    }
    Ok(())
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Tables {
    fn read(reader: &Reader, path: &Path) -> Result<Tables, Error> {
        let refused = |error: schema::Malformed| refuse(path, error);
        let meta = |key: &[u8]| reader.get(schema::BUCKET_META, key);
        let revision = |key: &[u8]| match meta(key)? {
            Some(value) => schema::decode_compact_revision(&value).map_err(refused),
            None => Ok(-1),
        };
        let applied = read_applied(reader, path)?;
        let compacted =
            revision(schema::META_SCHEDULED_COMPACT)?.max(revision(schema::META_FINISHED_COMPACT)?);
        if let Some(value) = meta(schema::META_CONF_STATE)? {
            let conf = schema::decode_conf_state(&value).map_err(refused)?;
            if !conf.voters_outgoing.is_empty() || !conf.learners_next.is_empty() {
                return Err(refuse(path, "it was written in the midst of a joint change of membership"));
            }
        }
        let mut leases = Vec::new();
        if let Some(bucket) = reader.bucket(schema::BUCKET_LEASE)? {
            each(&bucket, path, |key, value| {
                leases.push(schema::decode_lease(key, value).map_err(refused)?);
                Ok(())
            })?;
        }
        let mut alarms = Vec::new();
        if let Some(bucket) = reader.bucket(schema::BUCKET_ALARM)? {
            each(&bucket, path, |key, _| {
                alarms.push(schema::decode_alarm(key).map_err(refused)?);
                Ok(())
            })?;
        }
        let alarms = alarms.into_iter().collect();
        let (membership, auth) = (membership(reader, path)?, auth(reader, path)?);
        Ok(Tables { applied, membership, leases, alarms, auth, compacted })
    }
}

fn auth(reader: &Reader, path: &Path) -> Result<Auth, Error> {
    let refused = |error: schema::Malformed| refuse(path, error);
    // It is not there until authentication is turned on for the first time.
    let is_enabled = reader.get(schema::BUCKET_AUTH, schema::AUTH_ENABLED)?;
    let is_enabled = is_enabled.is_some_and(|value| schema::decode_auth_enabled(&value));
    let revision = match reader.get(schema::BUCKET_AUTH, schema::AUTH_REVISION)? {
        Some(value) => schema::decode_u64(&value).map_err(refused)?,
        None => 0,
    };
    let (mut users, mut roles) = (Vec::new(), Vec::new());
    if let Some(bucket) = reader.bucket(schema::BUCKET_AUTH_USERS)? {
        each(&bucket, path, |name, value| {
            users.push(schema::decode_user(name, value).map_err(refused)?);
            Ok(())
        })?;
    }
    if let Some(bucket) = reader.bucket(schema::BUCKET_AUTH_ROLES)? {
        each(&bucket, path, |name, value| {
            roles.push(schema::decode_role(name, value).map_err(refused)?);
            Ok(())
        })?;
    }
    Ok(Auth::restore(is_enabled, revision, users, roles))
}

fn membership(reader: &Reader, path: &Path) -> Result<Membership, Error> {
    let refused = |error: schema::Malformed| refuse(path, error);
    let (mut members, mut removed) = (Vec::new(), Vec::new());
    if let Some(bucket) = reader.bucket(schema::BUCKET_MEMBERS)? {
        each(&bucket, path, |key, value| {
            let id = schema::decode_member_key(key).map_err(refused)?;
            let member = schema::Member::decode(value).map_err(refused)?;
            if member.id != id {
                return Err(refuse(path, format_args!("member {:x} under the key {id:x}", member.id)));
            }
            let schema::Member { id, peer_urls, is_learner, name, client_urls } = member;
            members.push(Member { id, name, peer_urls, client_urls, is_learner });
            Ok(())
        })?;
    }
    if let Some(bucket) = reader.bucket(schema::BUCKET_MEMBERS_REMOVED)? {
        each(&bucket, path, |key, _| {
            removed.push(schema::decode_member_key(key).map_err(refused)?);
            Ok(())
        })?;
    }
    if let Some(member) = members.iter().find(|member| removed.contains(&member.id)) {
        return Err(refuse(path, format_args!("member {:x} is there and removed", member.id)));
    }
    let version = reader.get(schema::BUCKET_CLUSTER, schema::CLUSTER_VERSION)?;
    let version = match version {
        Some(version) => Version::decode(&version).map_err(refused)?.to_string(),
        None => String::new(),
    };
    let downgrade = match reader.get(schema::BUCKET_CLUSTER, schema::CLUSTER_DOWNGRADE)? {
        Some(value) => Downgrade::decode(&value).map_err(refused)?,
        None => Downgrade::default(),
    };
    let target = if downgrade.enabled { downgrade.target_version } else { String::new() };
    Ok(Membership::new(members, removed, version).with_downgrade(target))
}

/// Refuses files of versions whose contents may mean something else.
fn check_version(reader: &Reader, path: &Path) -> Result<(), Error> {
    let decode = |value: Vec<u8>| Version::decode(&value).map_err(|error| refuse(path, error));
    let storage = reader.get(schema::BUCKET_META, schema::META_STORAGE_VERSION)?.map(decode).transpose()?;
    let cluster = reader.get(schema::BUCKET_CLUSTER, schema::CLUSTER_VERSION)?.map(decode).transpose()?;
    match storage.or(cluster) {
        // Of a cluster so young that it has agreed on no version.
        None => Ok(()),
        Some(version) if version >= VERSION_END => {
            let text = format!("it is of etcd {version}, which is newer than this version knows");
            Err(refuse_sound(path, text))
        }
        Some(version) if version >= VERSION_MIN => Ok(()),
        Some(version) => Err(refuse_sound(
            path,
            format_args!(
                "it is of etcd {version}: upgrade to etcd 3.6 first, or restore a snapshot with etcdutl of etcd 3.6 \
                 or later and start etcd 3.6 with it"
            ),
        )),
    }
}

/// A revision log that is being written.
pub(super) struct Out {
    pub(super) builder: FrameBuilder,
    pub(super) writer: Writer,
    /// What frames say that they have.
    pub(super) applied: revlog::Applied,
    /// Of each frame; the tables are added where a segment begins.
    state: FrameState,
    tables: Vec<u8>,
    folder: PathBuf,
}

impl Out {
    /// Adds a record to the frame.
    pub(super) fn push(&mut self, key: RevisionKey, value: &[u8]) -> (RecordKind, revlog::Location) {
        let kind = if key.tombstone { RecordKind::Tombstone } else { RecordKind::Put };
        (kind, self.builder.push(record_header(kind, key.main, key.sub), value))
    }

    /// Writes the frame, with the tables where a segment begins.
    pub(super) fn frame(&mut self) -> Result<(), Error> {
        self.frame_with(self.builder.starts_segment())
    }

    /// Writes the frame, with the tables or without.
    pub(super) fn frame_with(&mut self, tables: bool) -> Result<(), Error> {
        self.state.tables = tables.then(|| self.tables.clone());
        // Nothing of it depends on the other log: that may end anywhere at or above the applied entry.
        let frame = self.builder.finish(self.applied, &self.state.encode_to_vec(), 0)?;
        if !self.writer.make_room(&frame)? {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(Error::Io { operation: "import into", path: self.folder.clone(), source });
        }
        Ok(self.writer.write(frame)?)
    }
}

/// The log in a new folder holds nothing.
struct Nothing;

impl Replay for Nothing {
    fn record(&mut self, _: RecordHeader, _: revlog::Location, _: &[u8]) -> Result<(), ReplayError> {
        Ok(())
    }

    fn frame(&mut self, _: revlog::Applied, _: &[u8], _: bool) -> Result<(), ReplayError> {
        Ok(())
    }
}

/// Whether a database fits the log beside it (rule 5): with the entries behind it the log must go on. It may be ahead of
/// the log, since Go's etcd applies what is committed without waiting for its own disk.
pub(crate) fn check_beside(log: &wal::Opened, identity: Identity, database: &Database) -> Result<(), Error> {
    check_version(&database.reader, &database.path)?;
    let applied = database.applied();
    let snapshot = log.newest_snapshot();
    let (first, last) = (log.first_index().unwrap_or(snapshot.index + 1), log.last());
    let (membership, own) = (database.membership(), identity.member_id);
    let fault = if applied.index < snapshot.index {
        format!("it ends at entry {}, and the newest snapshot is at {}", applied.index, snapshot.index)
    } else if applied.index + 1 < first {
        format!("it ends at entry {}, and the first entry kept is {first}", applied.index)
    } else if applied.index > last.index && applied.term < snapshot.term.max(1) {
        let term = applied.term;
        format!(
            "it has entry {} of term {term}, and the newest snapshot is of term {}",
            applied.index, snapshot.term
        )
    } else if applied.index > last.index && membership.member(own).is_none() && !membership.is_removed(own) {
        format!("it has entry {} and no member {own:x}, whose log ends at {}", applied.index, last.index)
    } else {
        return Ok(());
    };
    Err(database.refuse(format_args!("it does not fit the write-ahead log: {fault}")))
}
