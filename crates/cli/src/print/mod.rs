//! Answers as text: pure functions of an answer and a writer, byte for byte as etcdctl prints them.
//!
//! A format is a file; [`Printer`] picks it. A format that lacks an answer refuses it with
//! [`exit::BAD_FEATURE`](crate::app::exit::BAD_FEATURE).

mod fields;
mod file;
mod json;
mod json_text;
mod protobuf;
mod simple;
mod table;

use std::io::Write;

use wire::etcdserverpb::downgrade_request::DowngradeAction;
use wire::etcdserverpb::{
    AlarmResponse, AlarmType, AuthRoleGetResponse, AuthRoleListResponse, AuthRoleRevokePermissionResponse,
    AuthStatusResponse, AuthUserGetResponse, AuthUserListResponse, DeleteRangeResponse, DowngradeResponse,
    HashKvResponse, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse,
    LeaseTimeToLiveResponse, Member, MemberAddResponse, MemberListResponse, MemberPromoteResponse,
    MemberRemoveResponse, MemberUpdateResponse, MoveLeaderResponse, PutResponse, RangeResponse,
    ResponseHeader, StatusResponse, TxnResponse, WatchResponse,
};

use crate::app::{Failure, exit};
use crate::gotext;

/// What `-w` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people and pipes.
    Simple,
    /// A line a field.
    Fields,
    /// As Go marshals the messages.
    Json,
    /// The message's bytes.
    Protobuf,
    /// Box lines.
    Table,
}

impl Format {
    /// # Errors
    /// [`exit::BAD_FEATURE`] for a name that is none.
    pub fn parse(name: &str) -> Result<Format, Failure> {
        match name {
            "simple" => Ok(Format::Simple),
            "fields" => Ok(Format::Fields),
            "json" => Ok(Format::Json),
            "protobuf" => Ok(Format::Protobuf),
            "table" => Ok(Format::Table),
            _ => Err(Failure::new(exit::BAD_FEATURE, "unsupported output format")),
        }
    }

    fn unsupported(self) -> Failure {
        let name = match self {
            Format::Simple => "simple",
            Format::Fields => "fields",
            Format::Json => "json",
            Format::Protobuf => "protobuf",
            Format::Table => "table",
        };
        Failure::new(exit::BAD_FEATURE, format!("{name} not supported as output format"))
    }
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printer {
    /// The format.
    pub format: Format,
    /// Bytes (simple) and ids (fields) in hex.
    pub hex: bool,
    /// Values without keys (simple).
    pub value_only: bool,
}

/// The health of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealth {
    /// As the user wrote it.
    pub endpoint: String,
    /// Whether a read went through and no alarm is on.
    pub health: bool,
    /// How long the read took, in Go's form; empty if none was made.
    pub took: String,
    /// Why it is not healthy; empty if it is.
    pub error: String,
}

/// The status of one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointStatus {
    /// As the user wrote it.
    pub endpoint: String,
    /// Its answer.
    pub status: StatusResponse,
}

/// The hash of one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointHash {
    /// As the user wrote it.
    pub endpoint: String,
    /// Its answer.
    pub hash: HashKvResponse,
}

/// What a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// CRC-32C over the names of buckets, and their keys and values.
    pub hash: u32,
    /// The newest revision.
    pub revision: i64,
    /// Keys that are there at that revision.
    pub total_key: u64,
    /// Length of the database, bytes.
    pub total_size: u64,
    /// Its storage version; empty if it says none.
    pub version: String,
}

/// HashKV of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHash {
    /// CRC-32C.
    pub hash: u32,
    /// The last revision in it.
    pub hash_revision: i64,
    /// The compacted revision; -1 if nothing is compacted.
    pub compact_revision: i64,
}

type Out<'a> = &'a mut dyn Write;

impl Printer {
    /// The answer to `get`.
    pub fn range(&self, out: Out<'_>, answer: &RangeResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::range(out, answer, self),
            Format::Fields => fields::range(out, answer, self.hex),
            Format::Json => json::range(out, answer),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `put`.
    pub fn put(&self, out: Out<'_>, answer: &PutResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::put(out, answer, self),
            Format::Fields => fields::put(out, answer, self.hex),
            Format::Json => json::put(out, answer),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `del`.
    pub fn delete_range(&self, out: Out<'_>, answer: &DeleteRangeResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::delete_range(out, answer, self),
            Format::Fields => fields::delete_range(out, answer, self.hex),
            Format::Json => json::delete_range(out, answer),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `txn`.
    pub fn txn(&self, out: Out<'_>, answer: &TxnResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::txn(out, answer, self),
            Format::Fields => fields::txn(out, answer, self.hex),
            Format::Json => json::txn(out, answer),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// An answer to `watch`: events, a progress, or the end.
    pub fn watch(&self, out: Out<'_>, answer: &WatchResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::watch(out, answer, self),
            Format::Fields => fields::watch(out, answer, self.hex),
            Format::Json => json::watch(out, answer),
            Format::Protobuf => protobuf::watch(out, answer),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `lease grant`.
    pub fn lease_grant(&self, out: Out<'_>, answer: &LeaseGrantResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::lease_grant(out, answer),
            Format::Fields => fields::lease_grant(out, answer, self.hex),
            Format::Json => json::lease_grant(out, answer),
            Format::Protobuf => protobuf::header(out, answer.header),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `lease revoke` of this lease.
    pub fn lease_revoke(&self, out: Out<'_>, id: i64, answer: &LeaseRevokeResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::lease_revoke(out, id),
            Format::Fields => fields::lease_revoke(out, answer, self.hex),
            Format::Json => json::lease_revoke(out, answer),
            // The text goes on in etcdctl, with an address that is another each time.
            Format::Protobuf => {
                let text = "marshal unsupported for type *clientv3.LeaseRevokeResponse";
                return Err(Failure::new(exit::BAD_FEATURE, text));
            }
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `lease timetolive`; `keys` says whether they were asked for.
    pub fn lease_time_to_live(
        &self,
        out: Out<'_>,
        answer: &LeaseTimeToLiveResponse,
        keys: bool,
    ) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::lease_time_to_live(out, answer, keys),
            Format::Fields => fields::lease_time_to_live(out, answer, self.hex),
            Format::Json => json::lease_time_to_live(out, answer),
            Format::Protobuf => protobuf::header(out, answer.header),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `alarm list` and `alarm disarm`.
    pub fn alarms(&self, out: Out<'_>, answer: &AlarmResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::alarms(out, answer),
            Format::Fields => fields::alarms(out, answer, self.hex),
            Format::Json => json::alarms(out, answer),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `lease list`.
    pub fn leases(&self, out: Out<'_>, answer: &LeaseLeasesResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::leases(out, answer),
            Format::Fields => fields::leases(out, answer, self.hex),
            Format::Json => json::leases(out, answer),
            Format::Protobuf => protobuf::header(out, answer.header),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// An answer to `lease keep-alive`.
    pub fn lease_keep_alive(&self, out: Out<'_>, answer: &LeaseKeepAliveResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::lease_keep_alive(out, answer),
            Format::Fields => fields::lease_keep_alive(out, answer, self.hex),
            Format::Json => json::lease_keep_alive(out, answer),
            Format::Protobuf => protobuf::header(out, answer.header),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The end of `lease keep-alive`, which simple alone tells.
    pub fn lease_over(&self, out: Out<'_>, id: i64) -> Result<(), Failure> {
        match self.format {
            Format::Simple => Ok(simple::lease_over(out, id)?),
            _ => Ok(()),
        }
    }

    /// The answer to `member add`.
    pub fn member_add(&self, out: Out<'_>, answer: &MemberAddResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::member_add(out, answer),
            Format::Json => json::member_add(out, answer, self.hex),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Fields | Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `member remove` of this one.
    pub fn member_remove(&self, out: Out<'_>, id: u64, answer: &MemberRemoveResponse) -> Result<(), Failure> {
        self.member_changed(out, (id, "removed from"), answer, (answer.header, &answer.members))
    }

    /// The answer to `member update` of this one.
    pub fn member_update(&self, out: Out<'_>, id: u64, answer: &MemberUpdateResponse) -> Result<(), Failure> {
        self.member_changed(out, (id, "updated in"), answer, (answer.header, &answer.members))
    }

    /// The answer to `member promote` of this one.
    pub fn member_promote(
        &self,
        out: Out<'_>,
        id: u64,
        answer: &MemberPromoteResponse,
    ) -> Result<(), Failure> {
        self.member_changed(out, (id, "promoted in"), answer, (answer.header, &answer.members))
    }

    fn member_changed(
        &self,
        out: Out<'_>,
        what: (u64, &str),
        answer: &impl prost::Message,
        (header, members): (Option<ResponseHeader>, &[Member]),
    ) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::member_changed(out, what, header),
            Format::Json => json::members(out, header.as_ref(), members, self.hex),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Fields | Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `member list`.
    pub fn members(&self, out: Out<'_>, answer: &MemberListResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::rows(out, &member_rows(answer)),
            Format::Fields => fields::members(out, answer, self.hex),
            Format::Json => json::members(out, answer.header.as_ref(), &answer.members, self.hex),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Table => table::write(out, &MEMBER_HEADS, &member_rows(answer)),
        };
        Ok(printed?)
    }

    /// The answer to `move-leader`, from and to these.
    pub fn move_leader(
        &self,
        out: Out<'_>,
        (from, to): (u64, u64),
        answer: &MoveLeaderResponse,
    ) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => writeln!(out, "Leadership transferred from {from:x} to {to:x}"),
            Format::Json => json::move_leader(out, answer),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Fields | Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `downgrade` with this action.
    pub fn downgrade(
        &self,
        out: Out<'_>,
        action: DowngradeAction,
        answer: &DowngradeResponse,
    ) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => {
                let action = action.as_str_name().to_lowercase();
                writeln!(out, "Downgrade {action} success, cluster version {}", answer.version)
            }
            Format::Json => json::downgrade(out, answer),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Fields | Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `auth status`.
    pub fn auth_status(&self, out: Out<'_>, answer: &AuthStatusResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => {
                let AuthStatusResponse { enabled, auth_revision, .. } = answer;
                writeln!(out, "Authentication Status: {enabled}\nAuthRevision: {auth_revision}")
            }
            Format::Json => json::auth_status(out, answer),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Fields | Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to a command that changes users or roles, which has nothing but a header; `said` in simple.
    pub fn auth_changed(
        &self,
        out: Out<'_>,
        said: &str,
        header: Option<ResponseHeader>,
    ) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => writeln!(out, "{said}"),
            Format::Fields => fields::auth_changed(out, header, self.hex),
            Format::Json => json::auth_changed(out, header),
            // All these answers are alike.
            Format::Protobuf => protobuf::message(out, &AuthRoleRevokePermissionResponse { header }),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `role revoke-permission`, of a key as it was given and an end.
    pub fn role_revoke_permission(
        &self,
        out: Out<'_>,
        role: &str,
        (key, end): (&[u8], &[u8]),
        answer: &AuthRoleRevokePermissionResponse,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Simple => Ok(simple::role_revoke_permission(out, role, key, end)?),
            _ => self.auth_changed(out, "", answer.header),
        }
    }

    /// The answer to `user get` of this one.
    pub fn user_get(&self, out: Out<'_>, user: &str, answer: &AuthUserGetResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::user_get(out, user, answer),
            Format::Json => json::names(out, answer.header.as_ref(), "roles", &answer.roles),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Fields | Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `user list`.
    pub fn user_list(&self, out: Out<'_>, answer: &AuthUserListResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::names(out, &answer.users),
            Format::Json => json::names(out, answer.header.as_ref(), "users", &answer.users),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Fields | Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `role get` of this one.
    pub fn role_get(&self, out: Out<'_>, role: &str, answer: &AuthRoleGetResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::role_get(out, role, answer),
            Format::Fields => fields::role_get(out, answer, self.hex),
            Format::Json => json::role_get(out, answer),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// The answer to `role list`.
    pub fn role_list(&self, out: Out<'_>, answer: &AuthRoleListResponse) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::names(out, &answer.roles),
            Format::Fields => fields::role_list(out, answer, self.hex),
            Format::Json => json::names(out, answer.header.as_ref(), "roles", &answer.roles),
            Format::Protobuf => protobuf::message(out, answer),
            Format::Table => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// `endpoint health`; in simple, what is not healthy goes to `err`.
    pub fn endpoint_health(
        &self,
        out: Out<'_>,
        err: Out<'_>,
        list: &[EndpointHealth],
    ) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::endpoint_health(out, err, list),
            Format::Fields => fields::endpoint_health(out, list),
            Format::Json => json::endpoint_health(out, list),
            Format::Table => table::write(out, &HEALTH_HEADS, &health_rows(list)),
            Format::Protobuf => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// `endpoint status`.
    pub fn endpoint_status(&self, out: Out<'_>, list: &[EndpointStatus]) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::rows(out, &status_rows(list)),
            Format::Fields => fields::endpoint_status(out, list, self.hex),
            Format::Json => json::endpoint_status(out, list),
            Format::Table => table::write(out, &STATUS_HEADS, &status_rows(list)),
            Format::Protobuf => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }

    /// `snapshot status` of etcdutl.
    pub fn snapshot_status(&self, out: Out<'_>, status: &SnapshotStatus) -> Result<(), Failure> {
        match self.format {
            Format::Protobuf => Err(self.format.unsupported()),
            format => Ok(file::status(out, format, status)?),
        }
    }

    /// `hashkv` of etcdutl.
    pub fn file_hash(&self, out: Out<'_>, hash: &FileHash) -> Result<(), Failure> {
        match self.format {
            Format::Protobuf => Err(self.format.unsupported()),
            format => Ok(file::hash(out, format, hash)?),
        }
    }

    /// `endpoint hashkv`.
    pub fn endpoint_hash(&self, out: Out<'_>, list: &[EndpointHash]) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Simple => simple::rows(out, &hash_rows(list)),
            Format::Fields => fields::endpoint_hash(out, list, self.hex),
            Format::Json => json::endpoint_hash(out, list),
            Format::Table => table::write(out, &HASH_HEADS, &hash_rows(list)),
            Format::Protobuf => return Err(self.format.unsupported()),
        };
        Ok(printed?)
    }
}

/// The name of a kind of alarm; one that nobody knows is a number.
fn alarm_name(kind: i32) -> String {
    AlarmType::try_from(kind).map_or_else(|_| kind.to_string(), |kind| kind.as_str_name().to_owned())
}

type Rows<const N: usize> = Vec<[String; N]>;

const HEALTH_HEADS: [&str; 4] = ["endpoint", "health", "took", "error"];

fn health_rows(list: &[EndpointHealth]) -> Rows<4> {
    list.iter().map(|h| [h.endpoint.clone(), h.health.to_string(), h.took.clone(), h.error.clone()]).collect()
}

const STATUS_HEADS: [&str; 16] = [
    "endpoint",
    "ID",
    "version",
    "storage version",
    "db size",
    "in use",
    "percentage not in use",
    "quota",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
    "downgrade target version",
    "downgrade enabled",
];

fn status_rows(list: &[EndpointStatus]) -> Rows<16> {
    let row = |EndpointStatus { endpoint, status: s }: &EndpointStatus| {
        let member_id = s.header.as_ref().map_or(0, |h| h.member_id);
        let downgrade = s.downgrade_info.clone().unwrap_or_default();
        let size = |bytes: i64| gotext::size(bytes as u64);
        // A size of zero would be a division by zero, which etcdctl dies of.
        let used_percent = (s.db_size_in_use * 100).checked_div(s.db_size).unwrap_or(100);
        [
            endpoint.clone(),
            format!("{member_id:x}"),
            s.version.clone(),
            s.storage_version.clone(),
            size(s.db_size),
            size(s.db_size_in_use),
            format!("{}%", 100 - used_percent),
            size(s.db_size_quota),
            (s.leader == member_id).to_string(),
            s.is_learner.to_string(),
            s.raft_term.to_string(),
            s.raft_index.to_string(),
            s.raft_applied_index.to_string(),
            s.errors.join(", "),
            downgrade.target_version,
            downgrade.enabled.to_string(),
        ]
    };
    list.iter().map(row).collect()
}

const MEMBER_HEADS: [&str; 6] = ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];

fn member_rows(answer: &MemberListResponse) -> Rows<6> {
    let row = |member: &Member| {
        [
            format!("{:x}", member.id),
            if member.name.is_empty() { "unstarted" } else { "started" }.to_owned(),
            member.name.clone(),
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner.to_string(),
        ]
    };
    answer.members.iter().map(row).collect()
}

const HASH_HEADS: [&str; 3] = ["endpoint", "hash", "hash_revision"];

fn hash_rows(list: &[EndpointHash]) -> Rows<3> {
    let row = |EndpointHash { endpoint, hash }: &EndpointHash| {
        [endpoint.clone(), hash.hash.to_string(), hash.hash_revision.to_string()]
    };
    list.iter().map(row).collect()
}

#[cfg(test)]
mod tests;
