//! The requests about users and roles, as they stand in the log.

use std::fmt;

use prost::Message as _;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::{InternalRaftRequest, RequestHeader};

use super::Caller;
use crate::apply::Fatal;

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident($message:ident) = $field:ident;)*) => {
        /// A request about users and roles. Passwords are hashed already.
        #[derive(Clone, PartialEq)]
        pub enum AuthRequest {
            $($(#[$doc])* $name(pb::$message),)*
        }

        impl AuthRequest {
            fn name(&self) -> &'static str {
                match self {
                    $(AuthRequest::$name(_) => stringify!($name),)*
                }
            }

            fn put_into(self, message: &mut InternalRaftRequest) {
                match self {
                    $(AuthRequest::$name(request) => message.$field = Some(request),)*
                }
            }

            /// The one in an entry, in the order in which Go's etcd looks for them.
            fn of(message: &InternalRaftRequest) -> Option<AuthRequest> {
                $(if let Some(request) = &message.$field {
                    return Some(AuthRequest::$name(request.clone()));
                })*
                None
            }
        }
    };
}

requests! {
    /// Makes a token; the password was compared before.
    Authenticate(InternalAuthenticateRequest) = authenticate;
    /// Turns authentication on.
    Enable(AuthEnableRequest) = auth_enable;
    /// Turns authentication off.
    Disable(AuthDisableRequest) = auth_disable;
    /// Whether it is on.
    Status(AuthStatusRequest) = auth_status;
    /// Adds a user.
    UserAdd(AuthUserAddRequest) = auth_user_add;
    /// Deletes a user.
    UserDelete(AuthUserDeleteRequest) = auth_user_delete;
    /// Gives a user another password.
    UserChangePassword(AuthUserChangePasswordRequest) = auth_user_change_password;
    /// Gives a user a role.
    UserGrantRole(AuthUserGrantRoleRequest) = auth_user_grant_role;
    /// Tells a user's roles.
    UserGet(AuthUserGetRequest) = auth_user_get;
    /// Takes a role from a user.
    UserRevokeRole(AuthUserRevokeRoleRequest) = auth_user_revoke_role;
    /// Adds a role.
    RoleAdd(AuthRoleAddRequest) = auth_role_add;
    /// Gives a role a permission.
    RoleGrantPermission(AuthRoleGrantPermissionRequest) = auth_role_grant_permission;
    /// Tells a role's permissions.
    RoleGet(AuthRoleGetRequest) = auth_role_get;
    /// Takes a permission from a role.
    RoleRevokePermission(AuthRoleRevokePermissionRequest) = auth_role_revoke_permission;
    /// Deletes a role, and takes it from all users.
    RoleDelete(AuthRoleDeleteRequest) = auth_role_delete;
    /// Tells all users.
    UserList(AuthUserListRequest) = auth_user_list;
    /// Tells all roles.
    RoleList(AuthRoleListRequest) = auth_role_list;
}

/// The name alone: passwords, their hashes and tokens belong into no log.
impl fmt::Debug for AuthRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl AuthRequest {
    /// Encodes an `InternalRaftRequest` around it (rule 20).
    ///
    /// # Panics
    /// If the id is 0.
    pub fn encode(self, id: u64, caller: Caller<'_>) -> Vec<u8> {
        assert_ne!(id, 0, "a request without an id cannot be answered");
        let header = RequestHeader { id, username: caller.name.to_owned(), auth_revision: caller.revision };
        let mut message = InternalRaftRequest { header: Some(header), ..Default::default() };
        self.put_into(&mut message);
        message.encode_to_vec()
    }

    /// The one in an entry, if it is there.
    ///
    /// # Errors
    /// A request that comes from a newer version, or that cannot be applied alike on all members: the member stops.
    pub(crate) fn in_entry(message: &InternalRaftRequest) -> Result<Option<AuthRequest>, Fatal> {
        let request = AuthRequest::of(message);
        match &request {
            // Members before 3.5 hashed when they applied, each with a salt of its own.
            Some(AuthRequest::UserAdd(add))
                if is_plain(&add.password, &add.hashed_password)
                    && !add.options.is_some_and(|options| options.no_password) =>
            {
                return Err(Fatal::UnsupportedRequest("auth_user_add with a password that is not hashed"));
            }
            Some(AuthRequest::UserChangePassword(change))
                if is_plain(&change.password, &change.hashed_password) =>
            {
                let name = "auth_user_change_password with a password that is not hashed";
                return Err(Fatal::UnsupportedRequest(name));
            }
            _ => {}
        }
        Ok(request)
    }
}

fn is_plain(password: &str, hashed: &str) -> bool {
    !password.is_empty() && hashed.is_empty()
}
