//! Applying the requests about users and roles (etcd: apply/auth.go, auth/store.go).

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost::Message as _;
use wire::ApiError;
use wire::authpb::permission::Type;
use wire::authpb::{Permission, Role, User, UserAddOptions};
use wire::etcdserverpb as pb;

use super::{Auth, AuthChange, AuthRequest, AuthState, Caller, KnownUser, ROOT, order};

/// As Go's `StdEncoding`.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(true),
);

impl AuthState {
    /// Applies a request. Its response goes to `answer`, whoever waits for it; a login's lacks the token. An error changes
    /// nothing.
    pub(crate) fn apply(
        &mut self,
        caller: Caller<'_>,
        request: &AuthRequest,
        answer: Option<&mut Vec<u8>>,
    ) -> Result<Option<AuthChange>, ApiError> {
        if needs_admin(request) {
            self.now.check_admin(caller)?;
        }
        let mut change = None;
        let body = match request {
            AuthRequest::Authenticate(login) => {
                change = Some(self.log_in(login)?);
                Vec::new()
            }
            AuthRequest::Enable(_) => {
                change = self.enable()?;
                Vec::new()
            }
            AuthRequest::Disable(_) => {
                change = self.disable();
                Vec::new()
            }
            AuthRequest::Status(_) => status(&self.now),
            AuthRequest::UserAdd(add) => self.add_user(add)?,
            AuthRequest::UserDelete(delete) => {
                change = Some(self.delete_user(&delete.name)?);
                Vec::new()
            }
            AuthRequest::UserChangePassword(other) => {
                change = Some(self.change_password(other)?);
                Vec::new()
            }
            AuthRequest::UserGrantRole(grant) => self.grant_role(&grant.user, &grant.role)?,
            AuthRequest::UserGet(get) => user_get(&self.now, caller, &get.name)?,
            AuthRequest::UserRevokeRole(revoke) => self.revoke_role(&revoke.name, &revoke.role)?,
            AuthRequest::UserList(_) => {
                let users = self.now.users().map(|user| text(&user.name)).collect();
                pb::AuthUserListResponse { header: None, users }.encode_to_vec()
            }
            AuthRequest::RoleAdd(add) => self.add_role(&add.name)?,
            AuthRequest::RoleGrantPermission(grant) => {
                self.grant_permission(&grant.name, grant.perm.as_ref())?
            }
            AuthRequest::RoleGet(get) => role_get(&self.now, caller, &get.role)?,
            AuthRequest::RoleRevokePermission(revoke) => {
                self.revoke_permission(&revoke.role, &revoke.key, &revoke.range_end)?
            }
            AuthRequest::RoleDelete(delete) => self.delete_role(&delete.role)?,
            AuthRequest::RoleList(_) => {
                let roles = self.now.roles().map(|role| text(&role.name)).collect();
                pb::AuthRoleListResponse { header: None, roles }.encode_to_vec()
            }
        };
        if let Some(answer) = answer {
            *answer = body;
        }
        Ok(change)
    }

    fn log_in(&self, login: &pb::InternalAuthenticateRequest) -> Result<AuthChange, ApiError> {
        if !self.now.is_enabled {
            return Err(ApiError::AuthNotEnabled);
        }
        let user = self.now.user(&login.name).ok_or(ApiError::AuthFailed)?;
        if has_no_password(user) {
            return Err(ApiError::AuthFailed);
        }
        Ok(AuthChange::LoggedIn { user: login.name.clone(), token: login.simple_token.clone() })
    }

    fn enable(&mut self) -> Result<Option<AuthChange>, ApiError> {
        if self.now.is_enabled {
            return Ok(None);
        }
        let root = self.now.known(ROOT).ok_or(ApiError::RootUserNotExist)?;
        if !root.has_role(ROOT) {
            return Err(ApiError::RootRoleNotExist);
        }
        self.now.is_enabled = true;
        self.has_changed();
        Ok(Some(AuthChange::Enabled))
    }

    fn disable(&mut self) -> Option<AuthChange> {
        if !self.now.is_enabled {
            return None;
        }
        self.now.is_enabled = false;
        self.next_revision();
        Some(AuthChange::Disabled)
    }

    fn add_user(&mut self, add: &pb::AuthUserAddRequest) -> Result<Vec<u8>, ApiError> {
        if add.name.is_empty() {
            return Err(ApiError::UserEmpty);
        }
        if self.now.user(&add.name).is_some() {
            return Err(ApiError::UserAlreadyExist);
        }
        let options = add.options.unwrap_or(UserAddOptions { no_password: false });
        let password = if options.no_password { Bytes::new() } else { decoded(&add.hashed_password)? };
        self.put_user(User {
            name: Bytes::copy_from_slice(add.name.as_bytes()),
            password,
            roles: Vec::new(),
            options: Some(options),
        });
        self.next_revision();
        Ok(Vec::new())
    }

    fn delete_user(&mut self, name: &str) -> Result<AuthChange, ApiError> {
        if self.now.is_enabled && name == ROOT {
            return Err(ApiError::InvalidAuthMgmt);
        }
        let (name_bytes, _) = self.now.users.remove_entry(name.as_bytes()).ok_or(ApiError::UserNotFound)?;
        self.unwritten_users.insert(name_bytes);
        self.next_revision();
        Ok(AuthChange::UserChanged { user: name.to_owned() })
    }

    fn change_password(
        &mut self,
        change: &pb::AuthUserChangePasswordRequest,
    ) -> Result<AuthChange, ApiError> {
        let user = self.now.user(&change.name).ok_or(ApiError::UserNotFound)?;
        let password = if has_no_password(user) { Bytes::new() } else { decoded(&change.hashed_password)? };
        let changed = User { password, ..user.clone() };
        self.put_user(changed);
        self.next_revision();
        Ok(AuthChange::UserChanged { user: change.name.clone() })
    }

    fn grant_role(&mut self, user: &str, role: &str) -> Result<Vec<u8>, ApiError> {
        let mut user = self.now.user(user).ok_or(ApiError::UserNotFound)?.clone();
        if role != ROOT && self.now.role(role).is_none() {
            return Err(ApiError::RoleNotFound);
        }
        // Granted before: accepted, and nothing changes.
        if let Err(at) = user.roles.binary_search_by(|known| known.as_str().cmp(role)) {
            user.roles.insert(at, role.to_owned());
            self.put_user(user);
            self.next_revision();
        }
        Ok(Vec::new())
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<Vec<u8>, ApiError> {
        if self.now.is_enabled && name == ROOT && role == ROOT {
            return Err(ApiError::InvalidAuthMgmt);
        }
        let user = self.now.user(name).ok_or(ApiError::UserNotFound)?;
        let changed = without_role(user, role).ok_or(ApiError::RoleNotGranted)?;
        self.put_user(changed);
        self.next_revision();
        Ok(Vec::new())
    }

    fn add_role(&mut self, name: &str) -> Result<Vec<u8>, ApiError> {
        if name.is_empty() {
            return Err(ApiError::RoleEmpty);
        }
        if self.now.role(name).is_some() {
            return Err(ApiError::RoleAlreadyExist);
        }
        let name = Bytes::copy_from_slice(name.as_bytes());
        self.put_role(Role { name, key_permission: Vec::new() });
        self.next_revision();
        Ok(Vec::new())
    }

    fn grant_permission(&mut self, role: &str, granted: Option<&Permission>) -> Result<Vec<u8>, ApiError> {
        let granted = granted.ok_or(ApiError::PermissionNotGiven)?;
        if !is_range(&granted.key, &granted.range_end) {
            return Err(ApiError::InvalidAuthMgmt);
        }
        let mut role = self.now.role(role).ok_or(ApiError::RoleNotFound)?.clone();
        let permissions = &mut role.key_permission;
        let at = permissions.partition_point(|known| known.key < granted.key);
        match permissions.get_mut(at) {
            // Of several with the key only the first is looked at, as in etcd: which it is, their order decides.
            Some(known) if known.key == granted.key && known.range_end == granted.range_end => {
                known.perm_type = granted.perm_type;
            }
            _ => {
                permissions.push(granted.clone());
                order::sort(permissions, |a, b| a.key < b.key);
            }
        }
        self.put_role(role);
        self.next_revision();
        Ok(Vec::new())
    }

    fn revoke_permission(&mut self, role: &str, key: &[u8], range_end: &[u8]) -> Result<Vec<u8>, ApiError> {
        let mut role = self.now.role(role).ok_or(ApiError::RoleNotFound)?.clone();
        let before = role.key_permission.len();
        role.key_permission.retain(|known| known.key != key || known.range_end != range_end);
        if role.key_permission.len() == before {
            return Err(ApiError::PermissionNotGranted);
        }
        self.put_role(role);
        self.next_revision();
        Ok(Vec::new())
    }

    fn delete_role(&mut self, name: &str) -> Result<Vec<u8>, ApiError> {
        if self.now.is_enabled && name == ROOT {
            return Err(ApiError::InvalidAuthMgmt);
        }
        let (name_bytes, _) = self.now.roles.remove_entry(name.as_bytes()).ok_or(ApiError::RoleNotFound)?;
        self.unwritten_roles.insert(name_bytes);
        let changed: Vec<User> = self.now.users().filter_map(|user| without_role(user, name)).collect();
        changed.into_iter().for_each(|user| self.put_user(user));
        self.next_revision();
        Ok(Vec::new())
    }

    fn put_user(&mut self, user: User) {
        self.unwritten_users.insert(user.name.clone());
        self.now.users.insert(user.name.clone(), KnownUser::new(user));
    }

    fn put_role(&mut self, role: Role) {
        self.unwritten_roles.insert(role.name.clone());
        let name = text(&role.name);
        self.now.roles.insert(role.name.clone(), Arc::new(role));
        // What they may do is to be worked out anew.
        for user in self.now.users.values_mut().filter(|user| user.has_role(&name)) {
            *user = KnownUser::new(user.stored.clone());
        }
    }

    fn next_revision(&mut self) {
        self.now.revision += 1;
        self.has_changed();
    }

    fn has_changed(&mut self) {
        self.is_unpublished = true;
        self.is_unwritten = true;
    }
}

fn needs_admin(request: &AuthRequest) -> bool {
    match request {
        AuthRequest::Authenticate(_)
        | AuthRequest::Status(_)
        // These have rules of their own.
        | AuthRequest::UserGet(_)
        | AuthRequest::RoleGet(_) => false,
        AuthRequest::Enable(_)
        | AuthRequest::Disable(_)
        | AuthRequest::UserAdd(_)
        | AuthRequest::UserDelete(_)
        | AuthRequest::UserChangePassword(_)
        | AuthRequest::UserGrantRole(_)
        | AuthRequest::UserRevokeRole(_)
        | AuthRequest::UserList(_)
        | AuthRequest::RoleAdd(_)
        | AuthRequest::RoleGrantPermission(_)
        | AuthRequest::RoleRevokePermission(_)
        | AuthRequest::RoleDelete(_)
        | AuthRequest::RoleList(_) => true,
    }
}

fn status(auth: &Auth) -> Vec<u8> {
    let (enabled, auth_revision) = (auth.is_enabled, auth.revision);
    pb::AuthStatusResponse { header: None, enabled, auth_revision }.encode_to_vec()
}

/// A user may look at itself.
fn user_get(auth: &Auth, caller: Caller<'_>, name: &str) -> Result<Vec<u8>, ApiError> {
    auth.check_admin(caller).or_else(|error| if name == caller.name { Ok(()) } else { Err(error) })?;
    let roles = auth.user(name).ok_or(ApiError::UserNotFound)?.roles.clone();
    Ok(pb::AuthUserGetResponse { header: None, roles }.encode_to_vec())
}

/// A user may look at the roles that it has.
fn role_get(auth: &Auth, caller: Caller<'_>, name: &str) -> Result<Vec<u8>, ApiError> {
    auth.check_admin(caller)
        .or_else(|error| if auth.has_role(caller, name) { Ok(()) } else { Err(error) })?;
    let role = auth.role(name).ok_or(ApiError::RoleNotFound)?;
    let perm = if name == ROOT {
        let (key, range_end) = (Bytes::new(), Bytes::from_static(&[0]));
        vec![Permission { perm_type: Type::Readwrite.into(), key, range_end }]
    } else {
        role.key_permission.clone()
    };
    Ok(pb::AuthRoleGetResponse { header: None, perm }.encode_to_vec())
}

fn has_no_password(user: &User) -> bool {
    user.options.is_some_and(|options| options.no_password)
}

fn without_role(user: &User, role: &str) -> Option<User> {
    let roles: Vec<String> = user.roles.iter().filter(|known| *known != role).cloned().collect();
    (roles.len() < user.roles.len()).then(|| User { roles, ..user.clone() })
}

/// A key, or a range that has a key.
fn is_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || key < range_end || range_end == [0])
}

/// A password's hash. As Go's decoder, which passes over line ends.
fn decoded(hashed: &str) -> Result<Bytes, ApiError> {
    let hashed: String = hashed.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    BASE64.decode(hashed).map(Bytes::from).map_err(|_| ApiError::NoPasswordUser)
}

/// Names come from requests, whose texts are UTF-8.
fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
