//! `etcdutl snapshot restore`: a saved snapshot becomes the data directory of a member of a new cluster.
//!
//! What is made is etcd's own: `snap/db`, a `.snap` file and a write-ahead log that begins as a new cluster's does. A
//! member's first start takes the database over (`crate::start`). All of it is made under another name and gets its own
//! in one step at the end, so that a restore that was interrupted is never taken for a member.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::boltfile::schema::{self, RevisionKey, Version};
use disk::boltfile::{DEFAULT_PAGE_SIZE, Planner, Reader};
use disk::wal::{self, Wal};
use disk::{Access, File, Fs, snap};
use prost::Message;
use sha2::{Digest, Sha256};
use store::{Member, Membership};
use wire::etcdserverpb::Metadata;

use super::file::{self, Contents};
use super::import::{each, refuse};
use super::{Pairs, export};
use crate::identity::{Identity, InitialMember, member_id};
use crate::{Error, start};

/// What the member's folder is called until it is whole.
pub const RESTORING: &str = "member.restoring";

/// Bytes of the sum behind a saved snapshot.
const SUM_LEN: u64 = 32;
/// What the length of a database is a multiple of: by what is left a sum behind it is told.
const SECTOR: u64 = 512;
/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
/// A store in which nothing was written.
const FIRST_REVISION: i64 = 1;
/// The first etcd whose files say which version they are of; the cluster version of older ones is left out, and the new
/// cluster agrees on its own.
const VERSION_KEPT_MIN: Version = Version { major: 3, minor: 6, patch: 0 };

/// What is to be restored, and to what.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The saved snapshot, or a database file.
    pub snapshot: PathBuf,
    /// The data directory to make. It is missing or empty.
    pub data_dir: PathBuf,
    /// The folder of the write-ahead log, if it is not in the data directory. It does not exist.
    pub wal_dir: Option<PathBuf>,
    /// This member's name, one of the cluster's.
    pub name: String,
    /// The members of the new cluster.
    pub initial_cluster: Vec<InitialMember>,
    /// Mixed into the ids of the new cluster.
    pub token: String,
    /// Do without the sum behind the snapshot: what is a copy of a database has none.
    pub skip_hash_check: bool,
    /// How much the revision is raised, with everything before compacted; 0 leaves both.
    pub bump_revision: u64,
    /// Of the write-ahead log.
    pub wal_limits: wal::Limits,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The new ids.
    pub identity: Identity,
    /// The newest revision; 0 if there is none.
    pub revision: i64,
}

/// Restores. Memory is bounded, whatever the snapshot's size.
///
/// # Errors
/// What is wrong with the snapshot, by file and page, or in etcd's words; a folder that is in use; a failed operation.
/// After the last, what was made is left, under a name that nothing takes for a member's.
pub fn restore(fs: &Arc<dyn Fs>, settings: &Restore) -> Result<Restored, Error> {
    let Restore { snapshot, data_dir, wal_dir, .. } = settings;
    let identity = start::identity_of(&settings.initial_cluster, &settings.name, &settings.token)?;
    check_places(&**fs, settings)?;
    let file = fs.open(snapshot, Access::Read).map_err(io("open", snapshot))?;
    check_sum(&*file, snapshot, settings.skip_hash_check)?;
    let reader = Reader::of(file, snapshot)?;
    file::check_meta(&reader, snapshot)?;
    reader.check()?;
    let rewrite = Rewrite::new(&reader, settings);
    let revision = rewrite.hand_over(&mut Planner::new(DEFAULT_PAGE_SIZE)?)?;

    // The snapshot is sound: from here on the disk changes.
    let member = data_dir.join(RESTORING);
    let snap_dir = member.join("snap");
    make_dir(&**fs, &snap_dir)?;
    file::write(&**fs, &rewrite, &snap_dir.join("db"))?;
    let written = snap::Folder::new(fs.clone(), &snap_dir).write(&rewrite.snapshot())?;
    if written.is_none() {
        return Err(io("write snapshot file", &snap_dir)(std::io::ErrorKind::StorageFull.into()));
    }
    let wal = match wal_dir {
        None => member.join("wal"),
        Some(wal) => {
            // In the folder that gets its own name at the end.
            let wal = match wal.strip_prefix(data_dir.join("member")) {
                Ok(inside) => member.join(inside),
                Err(_) => wal.clone(),
            };
            if let Some(above) = start::parent_of(&wal) {
                make_dir(&**fs, above)?;
            }
            wal
        }
    };
    rewrite.write_log(fs, &wal, identity)?;
    let whole = data_dir.join("member");
    fs.rename(&member, &whole).map_err(io("rename folder", &member))?;
    fs.sync_dir(data_dir).map_err(io("sync folder", data_dir))?;
    Ok(Restored { identity, revision })
}

/// A data directory that is to be made is missing or empty.
pub(crate) fn check_empty(fs: &dyn Fs, data_dir: &Path) -> Result<(), Error> {
    let exists = fs.exists(data_dir).map_err(io("look for", data_dir))?;
    if exists && fs.list(data_dir).map_or(true, |names| !names.is_empty()) {
        let name = data_dir.display().to_string();
        return Err(Error::Snapshot(format!("data-dir {name:?} not empty or could not be read")));
    }
    Ok(())
}

fn check_places(fs: &dyn Fs, settings: &Restore) -> Result<(), Error> {
    let Restore { data_dir, wal_dir, .. } = settings;
    check_empty(fs, data_dir)?;
    if let Some(wal) = wal_dir
        && fs.exists(wal).map_err(io("look for", wal))?
    {
        return Err(Error::Snapshot(format!("wal-dir {:?} exists", wal.display().to_string())));
    }
    Ok(())
}

/// Holds a saved snapshot against the SHA-256 behind it.
fn check_sum(file: &dyn File, path: &Path, skip: bool) -> Result<(), Error> {
    let len = file.len().map_err(io("measure", path))?;
    let Some(data_len) = len.checked_sub(SUM_LEN) else {
        // The system's words, to whom etcd leaves it.
        return Err(Error::Snapshot(format!("seek {}: invalid argument", path.display())));
    };
    let mut expected = [0; SUM_LEN as usize];
    file.read_exact_at(&mut expected, data_len).map_err(io("read", path))?;
    if len % SECTOR != SUM_LEN {
        return match skip {
            true => Ok(()),
            false => Err(Error::Snapshot("snapshot missing hash but --skip-hash-check=false".into())),
        };
    }
    if skip {
        return Ok(());
    }
    let mut hash = Sha256::new();
    let mut buf = vec![0; CHUNK];
    let mut at = 0;
    while at < data_len {
        let piece = &mut buf[..usize::try_from(data_len - at).unwrap_or(CHUNK).min(CHUNK)];
        file.read_exact_at(piece, at).map_err(io("read", path))?;
        hash.update(&*piece);
        at += piece.len() as u64;
    }
    let got: [u8; SUM_LEN as usize] = hash.finalize().into();
    if got != expected {
        let list = |sum: &[u8]| sum.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
        let (expected, got) = (list(&expected), list(&got));
        return Err(Error::Snapshot(format!("expected sha256 [{expected}], got [{got}]")));
    }
    Ok(())
}

fn make_dir(fs: &dyn Fs, path: &Path) -> Result<(), Error> {
    disk::make_dir(fs, path, 0o700).map_err(io("create folder", path))
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    start::io(operation, path)
}

/// The old database and what is new of it.
struct Rewrite<'a> {
    reader: &'a Reader,
    path: &'a Path,
    initial_cluster: &'a [InitialMember],
    token: &'a str,
    membership: Membership,
    conf: wal::ConfState,
    bump_revision: u64,
    limits: wal::Limits,
}

impl<'a> Rewrite<'a> {
    fn new(reader: &'a Reader, settings: &'a Restore) -> Self {
        let members: Vec<Member> = settings
            .initial_cluster
            .iter()
            .map(|InitialMember { name, peer_urls }| Member {
                id: member_id(peer_urls, &settings.token),
                name: name.clone(),
                peer_urls: peer_urls.clone(),
                ..Member::default()
            })
            .collect();
        let membership = Membership::new(members, [], String::new());
        let voters = membership.members().map(|member| member.id).collect();
        Rewrite {
            reader,
            path: &settings.snapshot,
            initial_cluster: &settings.initial_cluster,
            token: &settings.token,
            membership,
            conf: wal::ConfState { voters, ..wal::ConfState::default() },
            bump_revision: settings.bump_revision,
            limits: settings.wal_limits,
        }
    }

    /// The entries that a new cluster's log begins with, each of which adds a member.
    fn last_index(&self) -> u64 {
        self.conf.voters.len() as u64
    }

    fn snapshot(&self) -> snap::Snapshot {
        snap::Snapshot {
            index: self.last_index(),
            term: 1,
            conf_state: self.conf.clone(),
            data: self.membership.to_v2_store(),
        }
    }

    /// Hands over the pairs of the new database; the newest revision in it.
    fn hand_over(&self, out: &mut impl Pairs) -> Result<i64, Error> {
        let file = (self.reader, self.path);
        let mut revision = 0;
        for name in &file::buckets(self.reader, self.path)? {
            out.bucket(name)?;
            match name.as_slice() {
                schema::BUCKET_MEMBERS => export::members(&self.membership, out)?,
                schema::BUCKET_MEMBERS_REMOVED => {}
                schema::BUCKET_KEY => revision = self.records(out)?,
                // After the revisions, by name.
                schema::BUCKET_META => self.meta(revision, out)?,
                schema::BUCKET_CLUSTER => file::copy(file, name, out, |key, value| {
                    let version = Version::decode(value).ok();
                    key != schema::CLUSTER_VERSION
                        || version.is_some_and(|version| version >= VERSION_KEPT_MIN)
                })?,
                _ => file::copy(file, name, out, |_, _| true)?,
            }
        }
        Ok(revision)
    }

    fn records(&self, out: &mut impl Pairs) -> Result<i64, Error> {
        let mut newest = 0;
        if let Some(bucket) = self.reader.bucket(schema::BUCKET_KEY)? {
            each(&bucket, self.path, |key, value| {
                newest = RevisionKey::decode(key).map_err(|error| refuse(self.path, error))?.main;
                Ok(out.pair(key, value)?)
            })?;
        }
        if self.bump_revision == 0 {
            return Ok(newest);
        }
        let bump = i64::try_from(self.bump_revision).ok();
        let raised = bump.and_then(|bump| newest.max(FIRST_REVISION).checked_add(bump));
        let raised = raised.ok_or_else(|| {
            Error::Snapshot(format!("revision {newest} cannot be raised by {}", self.bump_revision))
        })?;
        let key = RevisionKey { main: raised, sub: 0, tombstone: false };
        out.pair(key.encode(&mut [0; RevisionKey::LEN_MAX]), &[])?;
        Ok(raised)
    }

    fn meta(&self, revision: i64, out: &mut impl Pairs) -> Result<(), Error> {
        let mut pairs = file::meta(self.reader, self.path)?;
        let mut set = |key: &[u8], value: &[u8]| pairs.insert(key.to_vec(), value.to_vec());
        set(schema::META_CONSISTENT_INDEX, &schema::encode_u64(self.last_index()));
        set(schema::META_TERM, &schema::encode_u64(1));
        set(schema::META_CONF_STATE, &schema::encode_conf_state(&self.conf));
        if self.bump_revision > 0 {
            set(schema::META_SCHEDULED_COMPACT, &schema::encode_compact_revision(revision));
        }
        for (key, value) in &pairs {
            out.pair(key, value)?;
        }
        Ok(())
    }

    fn write_log(&self, fs: &Arc<dyn Fs>, dir: &Path, identity: Identity) -> Result<(), Error> {
        let Identity { cluster_id, member_id } = identity;
        let metadata = Metadata { node_id: Some(member_id), cluster_id: Some(cluster_id) };
        let log = Wal::create(fs.clone(), dir, &metadata.encode_to_vec(), self.limits)?;
        let (mut log, _, _) = start::write_first_entries(log, self.initial_cluster, self.token)?;
        let conf_state = Some(self.conf.clone());
        log.append_snapshot(&wal::SnapshotRecord { index: self.last_index(), term: 1, conf_state }, None)?;
        Ok(log.sync()?)
    }
}

impl Contents for Rewrite<'_> {
    fn pairs(&self, out: &mut impl Pairs) -> Result<(), Error> {
        self.hand_over(out).map(drop)
    }
}
