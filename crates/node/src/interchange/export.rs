use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use disk::boltfile::schema::{self, RevisionKey};
use disk::boltfile::{self, DEFAULT_PAGE_SIZE, Plan, Planner, Writer};
use disk::{revlog, wal};
use prost::Message;
use raft::{ConfState, Index, NodeId, Snapshot, Term};
use store::{Membership, RecordKind};
use wire::leasepb::Lease;

use super::Pairs;
use super::file::Contents;
use crate::Error;

/// The first etcd whose files say which version they are of.
const VERSIONED_SINCE: schema::Version = schema::Version { major: 3, minor: 6, patch: 0 };

/// Everything that is replicated, as of one applied entry: what a snapshot is made of (rule 17).
///
/// It is taken between two batches ([`Applier::cut`](crate::Applier::cut)), and read by any thread, twice: once for the
/// file's length ([`Cut::plan`]), once for its bytes ([`Cut::write`]). Apply and merges go on meanwhile; what compactions
/// leave to be done waits until the cut is dropped, so whoever writes to a slow receiver has to bound the time.
pub struct Cut {
    store: store::Cut,
    /// The store's, but for the version if the file is to be of another one.
    membership: Arc<Membership>,
    applied: revlog::Applied,
    conf: ConfState,
}

impl Cut {
    pub(crate) fn new(store: store::Cut, applied: revlog::Applied, conf: ConfState) -> Cut {
        Cut { membership: store.membership().clone(), store, applied, conf }
    }

    /// The same as a cluster of another version would have it, for the way back to an older etcd.
    pub(crate) fn at_version(mut self, version: schema::Version) -> Cut {
        let (members, removed) = (self.membership.members().cloned(), self.membership.removed());
        self.membership = Arc::new(Membership::new(members, removed, version.to_string()));
        self
    }

    /// The last entry whose effects it has.
    pub fn applied(&self) -> revlog::Applied {
        self.applied
    }

    /// The membership of consensus there.
    pub fn conf(&self) -> &ConfState {
        &self.conf
    }

    /// What the message says that goes before the file to a member that lags behind.
    pub fn message(&self) -> Snapshot {
        Snapshot {
            index: Index(self.applied.index),
            term: Term(self.applied.term),
            conf: self.conf.clone(),
            data: self.membership.to_v2_store().into(),
        }
    }

    /// The state of the store there.
    pub fn store(&self) -> &store::Cut {
        &self.store
    }

    /// The version that the file is of, as `3.7.0`; `None` while the cluster has none, or an older one than files tell.
    pub fn storage_version(&self) -> Option<String> {
        let version: schema::Version = self.membership.cluster_version()?.parse().ok()?;
        (version >= VERSIONED_SINCE).then(|| schema::Version { patch: 0, ..version }.to_string())
    }

    /// Reads everything once, and tells what the file will be.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn plan(&self) -> Result<Plan, Error> {
        let mut planner = Planner::new(DEFAULT_PAGE_SIZE)?;
        self.pairs(&mut planner)?;
        Ok(planner.finish())
    }

    /// Hands the file to `sink`, front to back, exactly [`Plan::file_len`] bytes in parts of any length. `sink` may block.
    ///
    /// # Errors
    /// A record that cannot be read, or what `sink` said. The file is not whole then, and the receiver has to be told.
    pub fn write(&self, plan: Plan, sink: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), Error> {
        let mut writer = Writer::new(plan, sink)?;
        self.pairs(&mut writer)?;
        let _sink = writer.finish()?;
        Ok(())
    }

    fn records(&self, out: &mut impl Pairs) -> Result<(), Error> {
        let mut result: Result<(), boltfile::Error> = Ok(());
        self.store.records(&mut |kind, at, encoded| {
            let tombstone = kind == RecordKind::Tombstone;
            let key = RevisionKey { main: at.main, sub: at.sub, tombstone };
            result = out.pair(key.encode(&mut [0; RevisionKey::LEN_MAX]), encoded);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(result?)
    }

    fn alarms(&self, out: &mut impl Pairs) -> Result<(), Error> {
        let mut keys: Vec<Vec<u8>> = self.store.alarms().iter().map(|alarm| alarm.encode_to_vec()).collect();
        keys.sort();
        for key in keys {
            out.pair(&key, &[])?;
        }
        Ok(())
    }

    /// Off is as good as never turned on.
    fn auth(&self, out: &mut impl Pairs) -> Result<(), Error> {
        let auth = self.store.auth();
        if auth.is_enabled() {
            out.pair(schema::AUTH_ENABLED, &schema::encode_auth_enabled(true))?;
        }
        Ok(out.pair(schema::AUTH_REVISION, &schema::encode_u64(auth.revision()))?)
    }

    fn users(&self, out: &mut impl Pairs) -> Result<(), Error> {
        for user in self.store.auth().users() {
            out.pair(&user.name, &user.encode_to_vec())?;
        }
        Ok(())
    }

    fn roles(&self, out: &mut impl Pairs) -> Result<(), Error> {
        for role in self.store.auth().roles() {
            out.pair(&role.name, &role.encode_to_vec())?;
        }
        Ok(())
    }

    /// Ids count as numbers without a sign there: negative ones come last.
    fn leases(&self, out: &mut impl Pairs) -> Result<(), Error> {
        let (negative, positive): (Vec<&Lease>, Vec<&Lease>) =
            self.store.leases().iter().partition(|lease| lease.id < 0);
        for lease in positive.into_iter().chain(negative) {
            out.pair(&schema::lease_key(lease.id), &lease.encode_to_vec())?;
        }
        Ok(())
    }

    fn meta(&self, out: &mut impl Pairs) -> Result<(), Error> {
        let conf = schema::encode_conf_state(&wal_conf(&self.conf));
        let compacted = self.store.compacted().map(schema::encode_compact_revision);
        let (index, term) = (schema::encode_u64(self.applied.index), schema::encode_u64(self.applied.term));
        out.pair(schema::META_CONF_STATE, &conf)?;
        out.pair(schema::META_CONSISTENT_INDEX, &index)?;
        if let Some(compacted) = &compacted {
            out.pair(schema::META_FINISHED_COMPACT, compacted)?;
            out.pair(schema::META_SCHEDULED_COMPACT, compacted)?;
        }
        if let Some(version) = self.storage_version() {
            out.pair(schema::META_STORAGE_VERSION, version.as_bytes())?;
        }
        Ok(out.pair(schema::META_TERM, &term)?)
    }
}

impl Contents for Cut {
    fn pairs(&self, out: &mut impl Pairs) -> Result<(), Error> {
        for bucket in schema::BUCKETS {
            out.bucket(bucket)?;
            match bucket {
                schema::BUCKET_ALARM => self.alarms(out)?,
                schema::BUCKET_AUTH => self.auth(out)?,
                schema::BUCKET_AUTH_ROLES => self.roles(out)?,
                schema::BUCKET_AUTH_USERS => self.users(out)?,
                schema::BUCKET_CLUSTER => {
                    if let Some(version) = self.membership.cluster_version() {
                        out.pair(schema::CLUSTER_VERSION, version.as_bytes())?;
                    }
                    if let Some(target) = self.membership.downgrade_target() {
                        let target_version = target.to_owned();
                        let downgrade = schema::Downgrade { target_version, enabled: true };
                        out.pair(schema::CLUSTER_DOWNGRADE, &downgrade.encode())?;
                    }
                }
                schema::BUCKET_KEY => self.records(out)?,
                schema::BUCKET_LEASE => self.leases(out)?,
                schema::BUCKET_MEMBERS => members(&self.membership, out)?,
                schema::BUCKET_MEMBERS_REMOVED => {
                    for key in sorted(self.membership.removed()) {
                        out.pair(key.as_bytes(), schema::MEMBER_REMOVED)?;
                    }
                }
                schema::BUCKET_META => self.meta(out)?,
                other => unreachable!("{other:?} is none of the buckets"),
            }
        }
        Ok(())
    }
}

/// Writes the bucket of members.
pub(super) fn members(membership: &store::Membership, out: &mut impl Pairs) -> Result<(), Error> {
    let mut pairs: Vec<(String, Vec<u8>)> = membership
        .members()
        .map(|member| {
            let stored = schema::Member {
                id: member.id,
                peer_urls: member.peer_urls.clone(),
                is_learner: member.is_learner,
                name: member.name.clone(),
                client_urls: member.client_urls.clone(),
            };
            (schema::member_key(member.id), stored.encode())
        })
        .collect();
    // Keys are of different lengths: their order is not that of the ids.
    pairs.sort();
    for (key, value) in pairs {
        out.pair(key.as_bytes(), &value)?;
    }
    Ok(())
}

/// Keys of ids, in the order of a file.
fn sorted(ids: impl Iterator<Item = u64>) -> Vec<String> {
    let mut keys: Vec<String> = ids.map(schema::member_key).collect();
    keys.sort();
    keys
}

/// As the write-ahead log and the file have it.
pub(crate) fn wal_conf(conf: &ConfState) -> wal::ConfState {
    let ids = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect();
    wal::ConfState { voters: ids(&conf.voters), learners: ids(&conf.learners), ..wal::ConfState::default() }
}
