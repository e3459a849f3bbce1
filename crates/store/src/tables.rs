//! The small tables (members, compacted revision, leases, alarms, users and roles) as they are kept in the revision log's frames.
//!
//! The first frame of a segment has them whole, so that all before it can be merged away; a later one has what its
//! batch changed: the membership, the compacted revision and the alarms whole, of the leases, users and roles those that
//! changed.

use wire::etcdserverpb::AlarmMember;
use wire::{leasepb, membershippb};

use crate::alarm::Alarms;
use crate::auth::{Auth, AuthTable};
use crate::membership::Membership;
use crate::mvcc::NOT_COMPACTED;

/// Fields 1 to 3 and 8 are the membership. The first three were all there was in the first version, so a message without
/// `keeps_membership` sets it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Tables {
    #[prost(message, repeated, tag = "1")]
    pub members: Vec<membershippb::Member>,
    #[prost(uint64, repeated, tag = "2")]
    pub removed: Vec<u64>,
    #[prost(string, tag = "3")]
    pub cluster_version: String,
    /// The membership is as it was: its fields say nothing.
    #[prost(bool, tag = "4")]
    pub keeps_membership: bool,
    /// The compacted revision, if it changed, or if the tables are whole and there is one.
    #[prost(sint64, optional, tag = "5")]
    pub compacted: Option<i64>,
    /// Leases that are new or have other times; all of them if the tables are whole.
    #[prost(message, repeated, tag = "6")]
    pub leases: Vec<leasepb::Lease>,
    /// Leases that are gone.
    #[prost(sint64, repeated, tag = "7")]
    pub leases_gone: Vec<i64>,
    /// The version that the cluster is to be downgraded to; empty while no downgrade is under way.
    #[prost(string, tag = "8")]
    pub downgrade_target: String,
    /// The alarms, if they changed, or if the tables are whole and one is on.
    #[prost(message, optional, tag = "9")]
    pub alarms: Option<AlarmTable>,
    /// Users and roles, if they changed, or if the tables are whole and there was ever one.
    #[prost(message, optional, tag = "10")]
    pub auth: Option<AuthTable>,
}

/// All alarms that are on.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AlarmTable {
    #[prost(message, repeated, tag = "1")]
    pub alarms: Vec<AlarmMember>,
}

impl From<&Alarms> for AlarmTable {
    fn from(alarms: &Alarms) -> Self {
        AlarmTable { alarms: alarms.iter().collect() }
    }
}

/// The small tables whole, as [`crate::Store::restore_tables`] takes them up. `compacted` is -1 if nothing is compacted.
pub fn encode_tables(
    membership: &Membership,
    compacted: i64,
    leases: Vec<leasepb::Lease>,
    alarms: &Alarms,
    auth: &Auth,
) -> Vec<u8> {
    let compacted = (compacted > NOT_COMPACTED).then_some(compacted);
    let alarms = (!alarms.is_empty()).then(|| AlarmTable::from(alarms));
    let auth = AuthTable::whole(auth);
    let mut tables = Tables { compacted, leases, alarms, auth, ..Tables::default() };
    tables.set_membership(membership);
    prost::Message::encode_to_vec(&tables)
}

impl Tables {
    /// Sets the fields of the membership.
    pub(crate) fn set_membership(&mut self, membership: &Membership) {
        self.members = membership.stored_members();
        self.removed = membership.removed().collect();
        self.cluster_version = membership.cluster_version().unwrap_or_default().to_owned();
        self.downgrade_target = membership.downgrade_target().unwrap_or_default().to_owned();
    }
}

/// Which tables have changed since they were last written to a frame; leases keep their own account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub membership: bool,
    pub compacted: bool,
    pub alarms: bool,
}
