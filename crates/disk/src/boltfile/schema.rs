//! What etcd 3.6 and 3.7 keep in their database file: buckets, keys and how values are encoded.
//!
//! | bucket | key | value |
//! |---|---|---|
//! | `key` | [`RevisionKey`] | `mvccpb.KeyValue`; of a tombstone, the key alone |
//! | `meta` | [`META_CONSISTENT_INDEX`], [`META_TERM`] | [`encode_u64`] |
//! | | [`META_CONF_STATE`] | [`encode_conf_state`] |
//! | | [`META_STORAGE_VERSION`] | [`Version`] as text, with patch 0 |
//! | | [`META_SCHEDULED_COMPACT`], [`META_FINISHED_COMPACT`] | [`encode_compact_revision`] |
//! | `lease` | [`lease_key`] | `leasepb.Lease` |
//! | `alarm` | an `etcdserverpb.AlarmMember` | empty |
//! | `cluster` | [`CLUSTER_VERSION`] | [`Version`] as text |
//! | | [`CLUSTER_DOWNGRADE`] | [`Downgrade`] |
//! | `members` | [`member_key`] | [`Member`] |
//! | `members_removed` | [`member_key`] | [`MEMBER_REMOVED`] |
//! | `auth` | [`AUTH_ENABLED`] | a byte, 1 or 0 |
//! | | [`AUTH_REVISION`] | [`encode_u64`] |
//! | `authUsers` | the name | `authpb.User` |
//! | `authRoles` | the name | `authpb.Role` |
//!
//! Source: etcd's packages `server/storage/schema` and `server/storage/mvcc`. Encodings are those of 3.7.1, byte for
//! byte; decoding is strict where etcd would panic, and as lenient as it elsewhere.

use std::fmt;
use std::str::FromStr;

use prost::Message as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use wire::authpb::{Role, User};
use wire::etcdserverpb::AlarmMember;
use wire::leasepb::Lease;

use crate::wal::ConfState;

/// The bucket of alarms.
pub const BUCKET_ALARM: &[u8] = b"alarm";
/// The bucket of the state of authentication.
pub const BUCKET_AUTH: &[u8] = b"auth";
/// The bucket of roles.
pub const BUCKET_AUTH_ROLES: &[u8] = b"authRoles";
/// The bucket of users.
pub const BUCKET_AUTH_USERS: &[u8] = b"authUsers";
/// The bucket of the cluster's version and downgrade.
pub const BUCKET_CLUSTER: &[u8] = b"cluster";
/// The bucket of all revisions.
pub const BUCKET_KEY: &[u8] = b"key";
/// The bucket of leases.
pub const BUCKET_LEASE: &[u8] = b"lease";
/// The bucket of members.
pub const BUCKET_MEMBERS: &[u8] = b"members";
/// The bucket of ids of members that were removed.
pub const BUCKET_MEMBERS_REMOVED: &[u8] = b"members_removed";
/// The bucket of what is there once.
pub const BUCKET_META: &[u8] = b"meta";

/// All buckets, in the order in which a file has them. etcd makes each of them, empty or not.
pub const BUCKETS: [&[u8]; 10] = [
    BUCKET_ALARM,
    BUCKET_AUTH,
    BUCKET_AUTH_ROLES,
    BUCKET_AUTH_USERS,
    BUCKET_CLUSTER,
    BUCKET_KEY,
    BUCKET_LEASE,
    BUCKET_MEMBERS,
    BUCKET_MEMBERS_REMOVED,
    BUCKET_META,
];

/// In `meta`: the index of the last entry whose effects the file holds.
pub const META_CONSISTENT_INDEX: &[u8] = b"consistent_index";
/// In `meta`: the term of that entry.
pub const META_TERM: &[u8] = b"term";
/// In `meta`: the configuration at that entry.
pub const META_CONF_STATE: &[u8] = b"confState";
/// In `meta`: the version of this schema.
pub const META_STORAGE_VERSION: &[u8] = b"storageVersion";
/// In `meta`: the revision of the last compaction that was asked for.
pub const META_SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
/// In `meta`: the revision of the last compaction that was carried out.
pub const META_FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
/// In `cluster`: the version that all members agree on.
pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";
/// In `cluster`: a downgrade that is under way.
pub const CLUSTER_DOWNGRADE: &[u8] = b"downgrade";
/// In `auth`: whether authentication is on.
pub const AUTH_ENABLED: &[u8] = b"authEnabled";
/// In `auth`: the revision of users and roles.
pub const AUTH_REVISION: &[u8] = b"authRevision";
/// The value of every key in `members_removed`.
pub const MEMBER_REMOVED: &[u8] = b"removed";

const REVISION_LEN: usize = 17;
const SEPARATOR: u8 = b'_';
const TOMBSTONE: u8 = b't';

/// A key or value that etcd could not have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Malformed {
    /// What it should be.
    pub what: &'static str,
    /// What it is instead.
    pub why: String,
}

fn malformed<T>(what: &'static str, why: impl fmt::Display) -> Result<T, Malformed> {
    Err(Malformed { what, why: why.to_string() })
}

/// A key of the bucket `key`: the revision of one change. Their order in the file is that of the revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevisionKey {
    /// The revision of the transaction.
    pub main: i64,
    /// Which change of the transaction it is, from 0.
    pub sub: i64,
    /// Whether it is a deletion.
    pub tombstone: bool,
}

impl RevisionKey {
    /// The longest key, bytes.
    pub const LEN_MAX: usize = REVISION_LEN + 1;

    /// The length of the key, bytes.
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        REVISION_LEN + usize::from(self.tombstone)
    }

    /// The key's bytes, in `buf`.
    pub fn encode<'a>(&self, buf: &'a mut [u8; Self::LEN_MAX]) -> &'a [u8] {
        buf[..8].copy_from_slice(&self.main.to_be_bytes());
        buf[8] = SEPARATOR;
        buf[9..REVISION_LEN].copy_from_slice(&self.sub.to_be_bytes());
        buf[REVISION_LEN] = TOMBSTONE;
        &buf[..self.len()]
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`Malformed`] where etcd would panic, and if the byte behind the revision is another than a tombstone's.
    pub fn decode(key: &[u8]) -> Result<RevisionKey, Malformed> {
        const WHAT: &str = "revision key";
        let (revision, tombstone) = match key {
            [revision @ .., TOMBSTONE] if key.len() == Self::LEN_MAX => (revision, true),
            _ if key.len() == REVISION_LEN => (key, false),
            _ => return malformed(WHAT, format_args!("{key:02x?}")),
        };
        let main = i64::from_be_bytes(revision[..8].try_into().expect("eight bytes"));
        let sub = i64::from_be_bytes(revision[9..].try_into().expect("eight bytes"));
        if revision[8] != SEPARATOR || main < 0 || sub < 0 {
            return malformed(WHAT, format_args!("{key:02x?}"));
        }
        Ok(RevisionKey { main, sub, tombstone })
    }
}

/// An index, a term or a revision of users and roles: 8 bytes, big-endian.
pub fn encode_u64(value: u64) -> [u8; 8] {
    value.to_be_bytes()
}

/// Reads what [`encode_u64`] made.
///
/// # Errors
/// [`Malformed`] unless it is 8 bytes long.
pub fn decode_u64(value: &[u8]) -> Result<u64, Malformed> {
    match value.try_into() {
        Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
        Err(_) => malformed("number of 8 bytes", format_args!("{value:02x?}")),
    }
}

/// The revision of a compaction: the key that a change 0 of it would have.
pub fn encode_compact_revision(revision: i64) -> [u8; 17] {
    let mut buf = [0; RevisionKey::LEN_MAX];
    let key = RevisionKey { main: revision, sub: 0, tombstone: false };
    key.encode(&mut buf).try_into().expect("it is no tombstone")
}

/// Reads what [`encode_compact_revision`] made.
///
/// # Errors
/// [`Malformed`] if it is no revision.
pub fn decode_compact_revision(value: &[u8]) -> Result<i64, Malformed> {
    RevisionKey::decode(value).map(|key| key.main)
}

/// A version of the storage or the cluster. Its text is `3.7.0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u64,
    /// The second number.
    pub minor: u64,
    /// The third number; 0 in a file.
    pub patch: u64,
}

impl Version {
    /// Reads a value.
    ///
    /// # Errors
    /// [`Malformed`] if it is no version.
    pub fn decode(value: &[u8]) -> Result<Version, Malformed> {
        let version = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        version.map_or_else(|| malformed("version", String::from_utf8_lossy(value)), Ok)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = Malformed;

    /// What follows the third number, as in `3.7.0-rc.1`, is passed over.
    fn from_str(text: &str) -> Result<Version, Malformed> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if digits { part.parse().ok() } else { None }
        };
        let numbers = text.split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(number);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => {
                Ok(Version { major, minor, patch })
            }
            _ => malformed("version", text),
        }
    }
}

/// The key of a lease: its id, 8 bytes, big-endian.
pub fn lease_key(id: i64) -> [u8; 8] {
    id.to_be_bytes()
}

/// Reads a pair of the bucket `lease`. Its value is `lease.encode_to_vec()`.
///
/// # Errors
/// [`Malformed`] if it is no lease, or another's.
pub fn decode_lease(key: &[u8], value: &[u8]) -> Result<Lease, Malformed> {
    const WHAT: &str = "lease";
    let Ok(id) = key.try_into().map(i64::from_be_bytes) else {
        return malformed(WHAT, format_args!("the key {key:02x?}"));
    };
    match Lease::decode(value) {
        Ok(lease) if lease.id == id => Ok(lease),
        Ok(lease) => malformed(WHAT, format_args!("id {:x} under the key {id:x}", lease.id)),
        Err(error) => malformed(WHAT, format_args!("{id:x}: {error}")),
    }
}

/// Reads a key of the bucket `alarm`, which is `alarm.encode_to_vec()`; its value is empty.
///
/// # Errors
/// [`Malformed`] if it is none.
pub fn decode_alarm(key: &[u8]) -> Result<AlarmMember, Malformed> {
    AlarmMember::decode(key).or_else(|error| malformed("alarm", error))
}

/// Reads a pair of the bucket `authUsers`, which is `user.encode_to_vec()` under the user's name.
///
/// # Errors
/// [`Malformed`] if it is none, or another's: who is found under a name has that name's rights.
pub fn decode_user(key: &[u8], value: &[u8]) -> Result<User, Malformed> {
    let user = User::decode(value).or_else(|error| malformed("user", error))?;
    check_name("user", key, &user.name)?;
    Ok(user)
}

/// Reads a pair of the bucket `authRoles`, which is `role.encode_to_vec()` under the role's name.
///
/// # Errors
/// [`Malformed`] if it is none, or another's.
pub fn decode_role(key: &[u8], value: &[u8]) -> Result<Role, Malformed> {
    let role = Role::decode(value).or_else(|error| malformed("role", error))?;
    check_name("role", key, &role.name)?;
    Ok(role)
}

fn check_name(what: &'static str, key: &[u8], name: &[u8]) -> Result<(), Malformed> {
    let text = String::from_utf8_lossy;
    match key == name {
        true => Ok(()),
        false => malformed(what, format_args!("{:?} under the key {:?}", text(name), text(key))),
    }
}

/// The value under [`AUTH_ENABLED`].
pub fn encode_auth_enabled(enabled: bool) -> [u8; 1] {
    [enabled.into()]
}

/// Reads the value under [`AUTH_ENABLED`]; as in etcd, whatever is not the byte 1 is off.
pub fn decode_auth_enabled(value: &[u8]) -> bool {
    value == [1]
}

/// The key of a member in `members` and `members_removed`: its id in hexadecimal, without zeros in front.
pub fn member_key(id: u64) -> String {
    format!("{id:x}")
}

/// Reads what [`member_key`] made.
///
/// # Errors
/// [`Malformed`] if it is no id.
pub fn decode_member_key(key: &[u8]) -> Result<u64, Malformed> {
    let digits = std::str::from_utf8(key).ok().filter(|text| !text.starts_with('+'));
    let id = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    id.map_or_else(|| malformed("member id", String::from_utf8_lossy(key)), Ok)
}

/// A value of the bucket `members`, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    #[serde(default)]
    pub id: u64,
    /// Where its peers reach it.
    #[serde(rename = "peerURLs", default, deserialize_with = "null_is_default")]
    pub peer_urls: Vec<String>,
    /// Whether it has no vote.
    #[serde(rename = "isLearner", default, skip_serializing_if = "is_default")]
    pub is_learner: bool,
    /// Its name; empty until it has started and said so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub name: String,
    /// Where its clients reach it; empty until it has started and said so.
    #[serde(
        rename = "clientURLs",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "is_default"
    )]
    pub client_urls: Vec<String>,
}

impl Member {
    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`Malformed`] if it is none.
    pub fn decode(value: &[u8]) -> Result<Member, Malformed> {
        from_json("member", value)
    }
}

/// The value under [`CLUSTER_DOWNGRADE`], as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downgrade {
    /// The version to go to; empty while none is under way.
    #[serde(rename = "target-version", default)]
    pub target_version: String,
    /// Whether one is under way.
    #[serde(default)]
    pub enabled: bool,
}

impl Downgrade {
    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`Malformed`] if it is none, or one is under way to what is no version.
    pub fn decode(value: &[u8]) -> Result<Downgrade, Malformed> {
        let downgrade: Downgrade = from_json("downgrade", value)?;
        if downgrade.enabled {
            let _version: Version = downgrade.target_version.parse()?;
        }
        Ok(downgrade)
    }
}

/// `raftpb.ConfState` as JSON.
#[derive(Serialize, Deserialize)]
struct ConfStateJson {
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    voters: Vec<u64>,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    learners: Vec<u64>,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    voters_outgoing: Vec<u64>,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    learners_next: Vec<u64>,
    #[serde(default, deserialize_with = "null_is_default")]
    auto_leave: bool,
}

/// The value under [`META_CONF_STATE`].
pub fn encode_conf_state(state: &ConfState) -> Vec<u8> {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = state.clone();
    to_json(&ConfStateJson { voters, learners, voters_outgoing, learners_next, auto_leave })
}

/// Reads the value under [`META_CONF_STATE`].
///
/// # Errors
/// [`Malformed`] if it is none.
pub fn decode_conf_state(value: &[u8]) -> Result<ConfState, Malformed> {
    let ConfStateJson { voters, learners, voters_outgoing, learners_next, auto_leave } =
        from_json("conf state", value)?;
    Ok(ConfState { voters, learners, voters_outgoing, learners_next, auto_leave })
}

fn from_json<T: DeserializeOwned>(what: &'static str, value: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(value).or_else(|error| malformed(what, error))
}

/// JSON as Go writes it, which escapes five more characters. They stand in texts only.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_string(value).expect("texts and numbers become JSON");
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => out.push(other),
        }
    }
    out.into_bytes()
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
