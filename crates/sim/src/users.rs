//! Users, roles and rights as they must be, worked out the slow and obvious way.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use wire::ApiError;
use wire::etcdserverpb::InternalRaftRequest;
use wire::etcdserverpb::request_op::Request;

use crate::model::Pairs;

const ROOT: &str = "root";

/// Users, roles, and whether they count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// Whether authentication is on.
    pub is_enabled: bool,
    /// Of users and roles.
    pub revision: u64,
    /// The roles of each user.
    pub users: BTreeMap<String, BTreeSet<String>>,
    /// The kind of permission on each key of each role.
    pub roles: BTreeMap<String, BTreeMap<Bytes, i32>>,
}

impl Default for Users {
    fn default() -> Self {
        Users { is_enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

impl Users {
    /// What a member has.
    pub fn shown(auth: &store::Auth) -> Users {
        let text = |name: &Bytes| String::from_utf8(name.to_vec()).expect("names of the workload's");
        Users {
            is_enabled: auth.is_enabled(),
            revision: auth.revision(),
            users: auth
                .users()
                .map(|user| (text(&user.name), user.roles.iter().cloned().collect()))
                .collect(),
            roles: auth
                .roles()
                .map(|role| {
                    let permissions = role.key_permission.iter().map(|p| (p.key.clone(), p.perm_type));
                    (text(&role.name), permissions.collect())
                })
                .collect(),
        }
    }

    /// Whether whoever asks may not do it. The workload's requests come from root, who may do everything, or from nobody.
    pub fn refuse(&self, request: &InternalRaftRequest, pairs: &Pairs) -> bool {
        let by_root = request.header.as_ref().is_some_and(|header| header.username == ROOT);
        if !self.is_enabled || by_root {
            return false;
        }
        let touches = |op: &wire::etcdserverpb::RequestOp| match &op.request {
            Some(Request::RequestTxn(within)) => !within.compare.is_empty() || !within.success.is_empty(),
            _ => true,
        };
        let has_keys = |lease| pairs.values().any(|pair| pair.lease == lease);
        request.put.is_some()
            || request.delete_range.is_some()
            || request.lease_revoke.as_ref().is_some_and(|revoke| has_keys(revoke.id))
            || request.txn.as_ref().is_some_and(|txn| {
                !txn.compare.is_empty() || txn.success.iter().chain(&txn.failure).any(touches)
            })
            || (changes(request) && request.auth_status.is_none())
    }

    /// Applies a request about users; `None` if it is of another kind.
    pub fn apply(&mut self, request: &InternalRaftRequest) -> Option<Result<(), ApiError>> {
        let known = self.revision;
        let result = self.change(request)?;
        if result.is_err() {
            assert_eq!(self.revision, known);
        }
        Some(result)
    }

    fn change(&mut self, request: &InternalRaftRequest) -> Option<Result<(), ApiError>> {
        if request.auth_status.is_some() {
            return Some(Ok(()));
        }
        if request.auth_enable.is_some() {
            return Some(self.enable());
        }
        if request.auth_disable.is_some() {
            self.revision += u64::from(std::mem::take(&mut self.is_enabled));
            return Some(Ok(()));
        }
        let result = if let Some(add) = &request.auth_user_add {
            match self.users.contains_key(&add.name) {
                true => Err(ApiError::UserAlreadyExist),
                false => {
                    self.users.insert(add.name.clone(), BTreeSet::new());
                    Ok(())
                }
            }
        } else if let Some(delete) = &request.auth_user_delete {
            match self.is_enabled && delete.name == ROOT {
                true => Err(ApiError::InvalidAuthMgmt),
                false => self.users.remove(&delete.name).map(drop).ok_or(ApiError::UserNotFound),
            }
        } else if let Some(grant) = &request.auth_user_grant_role {
            let has_role = grant.role == ROOT || self.roles.contains_key(&grant.role);
            match self.users.get_mut(&grant.user) {
                None => Err(ApiError::UserNotFound),
                Some(_) if !has_role => Err(ApiError::RoleNotFound),
                Some(roles) if roles.contains(&grant.role) => return Some(Ok(())),
                Some(roles) => {
                    roles.insert(grant.role.clone());
                    Ok(())
                }
            }
        } else if let Some(revoke) = &request.auth_user_revoke_role {
            match self.users.get_mut(&revoke.name) {
                _ if self.is_enabled && revoke.name == ROOT && revoke.role == ROOT => {
                    Err(ApiError::InvalidAuthMgmt)
                }
                None => Err(ApiError::UserNotFound),
                Some(roles) => roles.remove(&revoke.role).then_some(()).ok_or(ApiError::RoleNotGranted),
            }
        } else if let Some(add) = &request.auth_role_add {
            match self.roles.contains_key(&add.name) {
                true => Err(ApiError::RoleAlreadyExist),
                false => {
                    self.roles.insert(add.name.clone(), BTreeMap::new());
                    Ok(())
                }
            }
        } else if let Some(delete) = &request.auth_role_delete {
            let result = match self.is_enabled && delete.role == ROOT {
                true => Err(ApiError::InvalidAuthMgmt),
                false => self.roles.remove(&delete.role).map(drop).ok_or(ApiError::RoleNotFound),
            };
            if result.is_ok() {
                self.users.values_mut().for_each(|roles| {
                    roles.remove(&delete.role);
                });
            }
            result
        } else if let Some(grant) = &request.auth_role_grant_permission {
            let permission = grant.perm.clone().unwrap_or_default();
            let role = self.roles.get_mut(&grant.name);
            role.map(|role| role.insert(permission.key, permission.perm_type))
                .map(drop)
                .ok_or(ApiError::RoleNotFound)
        } else {
            return None;
        };
        self.revision += u64::from(result.is_ok());
        Some(result)
    }

    fn enable(&mut self) -> Result<(), ApiError> {
        if self.is_enabled {
            return Ok(());
        }
        let roles = self.users.get(ROOT).ok_or(ApiError::RootUserNotExist)?;
        self.is_enabled = roles.contains(ROOT);
        if self.is_enabled { Ok(()) } else { Err(ApiError::RootRoleNotExist) }
    }
}

/// Whether it is a request about users.
fn changes(request: &InternalRaftRequest) -> bool {
    Users::default().change(request).is_some()
}
