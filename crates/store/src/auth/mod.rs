//! Users, roles and what they may do: replicated, so a function of the log (etcd: server/auth/store.go).
//!
//! Passwords are hashed before they enter the log, and are compared by whoever serves clients; tokens are that one's
//! business too. Here is what every member must agree on: who there is, and whether an entry's caller may do what it asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message as _;
use wire::authpb::{Role, User};

mod apply;
mod check;
mod order;
mod permission;
mod request;
mod tree;

pub use check::Caller;
pub use request::AuthRequest;

use permission::Rights;

/// The user, and the role, that may do everything.
pub const ROOT: &str = "root";

/// Users, roles, and whether they count, at one applied index. Cheap to clone where there are few of them.
#[derive(Clone, Debug)]
pub struct Auth {
    is_enabled: bool,
    revision: u64,
    users: BTreeMap<Bytes, Arc<KnownUser>>,
    roles: BTreeMap<Bytes, Arc<Role>>,
}

/// A user, and what all its roles together let it do.
#[derive(Debug)]
struct KnownUser {
    stored: User,
    /// Worked out when it is asked for first. Where a role changes, those who have it get a new one.
    rights: OnceLock<Rights>,
}

impl KnownUser {
    fn new(stored: User) -> Arc<KnownUser> {
        Arc::new(KnownUser { stored, rights: OnceLock::new() })
    }

    fn has_role(&self, role: &str) -> bool {
        self.stored.roles.iter().any(|has| has == role)
    }
}

/// What an entry did that ends tokens, or makes one; for whoever keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthChange {
    /// A user has logged in. `node` adds the entry's index to the token, behind a dot.
    LoggedIn {
        /// Who.
        user: String,
        /// The random part of the token.
        token: String,
    },
    /// The user is gone, or has another password: its tokens end.
    UserChanged {
        /// Who.
        user: String,
    },
    /// Authentication is on from now on.
    Enabled,
    /// Authentication is off from now on: all tokens end.
    Disabled,
}

impl Default for Auth {
    /// That of a new store: off, nobody known, at revision 1.
    fn default() -> Self {
        Auth { is_enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

impl PartialEq for Auth {
    fn eq(&self, other: &Self) -> bool {
        self.is_enabled == other.is_enabled
            && self.revision == other.revision
            && self.users().eq(other.users())
            && self.roles().eq(other.roles())
    }
}

impl Eq for Auth {}

impl Auth {
    /// Takes up what was stored, in any order. A revision of 0 counts as 1, as in etcd.
    pub fn restore(is_enabled: bool, revision: u64, users: Vec<User>, roles: Vec<Role>) -> Auth {
        Auth {
            is_enabled,
            revision: revision.max(1),
            users: users.into_iter().map(|user| (user.name.clone(), KnownUser::new(user))).collect(),
            roles: roles.into_iter().map(|role| (role.name.clone(), Arc::new(role))).collect(),
        }
    }

    /// Whether authentication is on. While it is off all checks let everything pass.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Grows with every change of users, roles and rights, and when authentication is turned off. From 1.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The same where authentication is on, else `None`.
    pub fn revision_if_enabled(&self) -> Option<u64> {
        self.is_enabled.then_some(self.revision)
    }

    /// The user of this name, as it is stored: its password is a hash.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name.as_bytes()).map(|user| &user.stored)
    }

    /// The role of this name, as it is stored.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name.as_bytes()).map(|role| &**role)
    }

    /// All users as they are stored, by name.
    pub fn users(&self) -> impl ExactSizeIterator<Item = &User> {
        self.users.values().map(|user| &user.stored)
    }

    /// All roles as they are stored, by name.
    pub fn roles(&self) -> impl ExactSizeIterator<Item = &Role> {
        self.roles.values().map(|role| &**role)
    }

    /// What users and roles take as stored pairs, bytes.
    fn stored_bytes(&self) -> u64 {
        let users = self
            .users
            .iter()
            .map(|(name, user)| crate::size::pair_bytes(name.len(), user.stored.encoded_len()));
        let roles =
            self.roles.iter().map(|(name, role)| crate::size::pair_bytes(name.len(), role.encoded_len()));
        users.chain(roles).sum()
    }

    fn known(&self, name: &str) -> Option<&KnownUser> {
        self.users.get(name.as_bytes()).map(|user| &**user)
    }

    fn rights<'a>(&'a self, user: &'a KnownUser) -> &'a Rights {
        user.rights.get_or_init(|| {
            let roles = user.stored.roles.iter().filter_map(|role| self.role(role));
            Rights::new(roles.flat_map(|role| &role.key_permission))
        })
    }

    /// Checks every invariant. Panics if one does not hold.
    pub(crate) fn check(&self) {
        assert!(self.revision >= 1);
        assert!(self.users.iter().all(|(name, user)| *name == user.stored.name), "a user under another name");
        assert!(self.roles.iter().all(|(name, role)| *name == role.name), "a role under another name");
    }
}

/// The state of the thread that applies, and what of it no frame has yet.
#[derive(Debug, Default)]
pub(crate) struct AuthState {
    now: Auth,
    /// Something has changed since it was last published.
    is_unpublished: bool,
    /// Whether anything has changed since it was last written to a frame; of these users and roles it is known which.
    is_unwritten: bool,
    unwritten_users: BTreeSet<Bytes>,
    unwritten_roles: BTreeSet<Bytes>,
}

/// Users and roles as they are kept in frames (see [`crate::encode_tables`]).
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AuthTable {
    #[prost(bool, tag = "1")]
    pub is_enabled: bool,
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// Those that are new or have changed; all of them if the tables are whole.
    #[prost(message, repeated, tag = "3")]
    pub users: Vec<User>,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub users_gone: Vec<Bytes>,
    /// As with users.
    #[prost(message, repeated, tag = "5")]
    pub roles: Vec<Role>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub roles_gone: Vec<Bytes>,
}

impl AuthTable {
    /// All of it; `None` if it is that of a new store.
    pub(crate) fn whole(auth: &Auth) -> Option<AuthTable> {
        (*auth != Auth::default()).then(|| AuthTable {
            is_enabled: auth.is_enabled,
            revision: auth.revision,
            users: auth.users().cloned().collect(),
            roles: auth.roles().cloned().collect(),
            ..AuthTable::default()
        })
    }
}

impl AuthState {
    /// As of everything applied.
    pub(crate) fn now(&self) -> &Auth {
        &self.now
    }

    /// What readers are to see from now on, and its size as stored pairs; `None` if they see it already.
    pub(crate) fn publish(&mut self) -> Option<(Arc<Auth>, u64)> {
        let is_unpublished = std::mem::take(&mut self.is_unpublished);
        is_unpublished.then(|| (Arc::new(self.now.clone()), self.now.stored_bytes()))
    }

    /// What has changed since this was last asked; `None` if nothing has.
    pub(crate) fn take_changes(&mut self) -> Option<AuthTable> {
        if !std::mem::take(&mut self.is_unwritten) {
            return None;
        }
        let mut table = AuthTable {
            is_enabled: self.now.is_enabled,
            revision: self.now.revision,
            ..AuthTable::default()
        };
        for name in std::mem::take(&mut self.unwritten_users) {
            match self.now.users.get(&name) {
                Some(user) => table.users.push(user.stored.clone()),
                None => table.users_gone.push(name),
            }
        }
        for name in std::mem::take(&mut self.unwritten_roles) {
            match self.now.roles.get(&name) {
                Some(role) => table.roles.push((**role).clone()),
                None => table.roles_gone.push(name),
            }
        }
        Some(table)
    }

    /// Takes up the table of one frame; `whole`: nothing of the frames before it counts.
    pub(crate) fn restore(&mut self, table: Option<AuthTable>, whole: bool) {
        if table.is_none() && !whole {
            return;
        }
        self.is_unpublished = true;
        if whole {
            self.now = Auth::default();
        }
        let Some(table) = table else { return };
        self.now.is_enabled = table.is_enabled;
        self.now.revision = table.revision.max(1);
        for name in &table.users_gone {
            self.now.users.remove(name);
        }
        for name in &table.roles_gone {
            self.now.roles.remove(name);
        }
        self.now.users.extend(table.users.into_iter().map(|user| (user.name.clone(), KnownUser::new(user))));
        self.now.roles.extend(table.roles.into_iter().map(|role| (role.name.clone(), Arc::new(role))));
        // Rights that were worked out before may be those of older roles.
        for user in self.now.users.values_mut().filter(|user| user.rights.get().is_some()) {
            *user = KnownUser::new(user.stored.clone());
        }
    }
}
