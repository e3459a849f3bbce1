//! Whether a caller may do what it asks (etcd: apply/auth.go, auth/store.go).

use wire::ApiError;

use super::permission::Access;
use super::{Auth, KnownUser, ROOT};
use crate::apply::Kind;
use crate::lease::Leases;
use crate::request::{DeleteRange, Op, Put, Txn};

/// Who asks: by a token, by a certificate, or by what an entry's header says. Nothing of it matters while authentication
/// is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller<'a> {
    /// The user's name; empty for nobody.
    pub name: &'a str,
    /// The revision of [`Auth`] that the caller has logged in at; 0 for nobody.
    pub revision: u64,
}

impl Caller<'_> {
    /// Who has not logged in.
    pub const NOBODY: Caller<'static> = Caller { name: "", revision: 0 };
}

impl Auth {
    /// Whether the caller may read a key, or, if there is an end, a range.
    ///
    /// # Errors
    /// `UserEmpty` for nobody, `AuthOldRevision` if users or roles have changed since the caller has logged in, else
    /// `PermissionDenied`. So do those below.
    pub fn check_range(&self, caller: Caller<'_>, key: &[u8], range_end: &[u8]) -> Result<(), ApiError> {
        self.check_keys(caller, Access::Read, key, range_end)
    }

    /// Whether the caller may write a key.
    ///
    /// # Errors
    /// As [`Auth::check_range`].
    pub fn check_put(&self, caller: Caller<'_>, key: &[u8]) -> Result<(), ApiError> {
        self.check_keys(caller, Access::Write, key, &[])
    }

    /// Whether the caller may delete a key, or, if there is an end, a range.
    ///
    /// # Errors
    /// As [`Auth::check_range`].
    pub fn check_delete_range(
        &self,
        caller: Caller<'_>,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), ApiError> {
        self.check_keys(caller, Access::Write, key, range_end)
    }

    /// Whether the caller may do all that a transaction which only reads may come to.
    ///
    /// # Errors
    /// As [`Auth::check_range`].
    ///
    /// # Panics
    /// If the transaction writes.
    pub fn check_read_txn(&self, caller: Caller<'_>, txn: &Txn<'_>) -> Result<(), ApiError> {
        assert!(txn.is_read_only(), "a transaction that writes is checked when it is applied");
        self.check_txn(caller, txn, None)
    }

    /// Whether the caller has the role root.
    ///
    /// # Errors
    /// `UserEmpty`, `UserNotFound` or `PermissionDenied`.
    pub fn check_admin(&self, caller: Caller<'_>) -> Result<(), ApiError> {
        if !self.is_enabled {
            return Ok(());
        }
        if caller.name.is_empty() {
            return Err(ApiError::UserEmpty);
        }
        let user = self.known(caller.name).ok_or(ApiError::UserNotFound)?;
        if user.has_role(ROOT) { Ok(()) } else { Err(ApiError::PermissionDenied) }
    }

    /// Whether the caller has a role.
    pub fn has_role(&self, caller: Caller<'_>, role: &str) -> bool {
        self.known(caller.name).is_some_and(|user| user.has_role(role))
    }

    /// Whether the caller may do what an entry asks for. What the requests about users and roles need is checked where they
    /// are applied.
    pub(crate) fn check_request(
        &self,
        caller: Caller<'_>,
        request: &Kind<'_>,
        leases: &Leases,
    ) -> Result<(), ApiError> {
        if !self.is_enabled {
            return Ok(());
        }
        match request {
            Kind::Range(range) => self.check_range(caller, range.key, range.range_end),
            Kind::Put(put) => self.check_whole_put(caller, put, Some(leases)),
            Kind::DeleteRange(delete) => self.check_whole_delete(caller, delete),
            Kind::Txn(txn) => self.check_txn(caller, txn, Some(leases)),
            Kind::LeaseRevoke(revoke) => self.check_lease(caller, revoke.id, leases),
            Kind::ClusterVersionSet(_)
            | Kind::ClusterMemberAttrSet(_)
            | Kind::DowngradeInfoSet(_)
            | Kind::DowngradeVersionTest
            | Kind::Compaction(_)
            | Kind::LeaseGrant(_)
            | Kind::LeaseCheckpoint(_)
            | Kind::Alarm(_)
            | Kind::Auth(_) => Ok(()),
        }
    }

    fn check_whole_put(
        &self,
        caller: Caller<'_>,
        put: &Put<'_>,
        leases: Option<&Leases>,
    ) -> Result<(), ApiError> {
        self.check_put(caller, put.key)?;
        // Who may not write all keys of a lease may not end it, and so may not add a key that would end with it.
        if let Some(leases) = leases {
            self.check_lease(caller, put.lease, leases)?;
        }
        if put.prev_kv { self.check_range(caller, put.key, &[]) } else { Ok(()) }
    }

    fn check_whole_delete(&self, caller: Caller<'_>, delete: &DeleteRange<'_>) -> Result<(), ApiError> {
        self.check_delete_range(caller, delete.key, delete.range_end)?;
        if delete.prev_kv { self.check_range(caller, delete.key, delete.range_end) } else { Ok(()) }
    }

    /// Both branches are checked, whichever runs.
    fn check_txn(&self, caller: Caller<'_>, txn: &Txn<'_>, leases: Option<&Leases>) -> Result<(), ApiError> {
        for compare in &txn.compares {
            self.check_range(caller, compare.key, compare.range_end)?;
        }
        for op in &txn.ops {
            match op {
                Op::Range(range) => self.check_range(caller, range.key, range.range_end)?,
                Op::Put(put) => self.check_whole_put(caller, put, leases)?,
                Op::DeleteRange(delete) => self.check_whole_delete(caller, delete)?,
                Op::Empty | Op::Txn(_) => {}
            }
        }
        Ok(())
    }

    /// Whether the caller may write all keys of a lease; one that is not there has none.
    fn check_lease(&self, caller: Caller<'_>, id: i64, leases: &Leases) -> Result<(), ApiError> {
        if self.check_admin(caller).is_ok() {
            return Ok(());
        }
        leases.keys(id).try_for_each(|key| self.check_put(caller, key))
    }

    fn check_keys(
        &self,
        caller: Caller<'_>,
        access: Access,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), ApiError> {
        if !self.is_enabled {
            return Ok(());
        }
        let user = self.known_at(caller)?;
        if user.has_role(ROOT) || self.rights(user).cover(access, key, range_end) {
            Ok(())
        } else {
            Err(ApiError::PermissionDenied)
        }
    }

    fn known_at(&self, caller: Caller<'_>) -> Result<&KnownUser, ApiError> {
        if caller.revision == 0 {
            return Err(ApiError::UserEmpty);
        }
        if caller.revision < self.revision {
            return Err(ApiError::AuthOldRevision);
        }
        self.known(caller.name).ok_or(ApiError::PermissionDenied)
    }
}
