//! Requests of the service Auth, and logins.

use blackbox::{Random, patience};
use bytes::Bytes;
use client::{Client, Error};
use wire::authpb::{Permission, UserAddOptions, permission};
use wire::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest, AuthenticateRequest,
};

use crate::requests::{Answer, answer};

/// A request of the service Auth.
#[derive(Clone, Debug)]
pub enum Auth {
    Enable,
    Disable,
    Status,
    /// Its token is no part of the answer: no two are the same.
    Login(AuthenticateRequest),
    UserAdd(AuthUserAddRequest),
    UserGet(String),
    UserList,
    UserDelete(String),
    ChangePassword(AuthUserChangePasswordRequest),
    GrantRole {
        user: String,
        role: String,
    },
    RevokeRole {
        user: String,
        role: String,
    },
    RoleAdd(String),
    RoleGet(String),
    RoleList,
    RoleDelete(String),
    GrantPermission(AuthRoleGrantPermissionRequest),
    RevokePermission(AuthRoleRevokePermissionRequest),
}

impl Auth {
    /// Sends it as this client's user.
    pub async fn send(self, client: &Client) -> Result<Answer, Error> {
        let at = patience();
        Ok(match self {
            Auth::Enable => answer!(client.auth_enable(at)),
            Auth::Disable => answer!(client.auth_disable(at)),
            Auth::Status => answer!(client.auth_status(at)),
            Auth::Login(request) => {
                let mut answer = client.authenticate(request, at).await?;
                answer.token.clear();
                Answer::new(answer.header.take(), answer)
            }
            Auth::UserAdd(request) => answer!(client.user_add(request, at)),
            Auth::UserGet(name) => answer!(client.user_get(name, at)),
            Auth::UserList => answer!(client.user_list(at)),
            Auth::UserDelete(name) => answer!(client.user_delete(name, at)),
            Auth::ChangePassword(request) => answer!(client.user_change_password(request, at)),
            Auth::GrantRole { user, role } => {
                answer!(client.user_grant_role(AuthUserGrantRoleRequest { user, role }, at))
            }
            Auth::RevokeRole { user: name, role } => {
                answer!(client.user_revoke_role(AuthUserRevokeRoleRequest { name, role }, at))
            }
            Auth::RoleAdd(name) => answer!(client.role_add(name, at)),
            Auth::RoleGet(role) => answer!(client.role_get(role, at)),
            Auth::RoleList => answer!(client.role_list(at)),
            Auth::RoleDelete(role) => answer!(client.role_delete(role, at)),
            Auth::GrantPermission(request) => answer!(client.role_grant_permission(request, at)),
            Auth::RevokePermission(request) => answer!(client.role_revoke_permission(request, at)),
        })
    }
}

/// The token that a login gives.
pub async fn log_in(client: &Client, name: &str, password: &str) -> Result<String, Error> {
    let request = AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
    Ok(client.authenticate(request, patience()).await?.token)
}

pub fn login(name: &str, password: &str) -> Auth {
    Auth::Login(AuthenticateRequest { name: name.to_owned(), password: password.to_owned() })
}

/// A user with this password.
pub fn user(name: &str, password: &str) -> Auth {
    Auth::UserAdd(AuthUserAddRequest {
        name: name.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    })
}

/// A user without one.
pub fn user_without_password(name: &str) -> Auth {
    let options = Some(UserAddOptions { no_password: true });
    Auth::UserAdd(AuthUserAddRequest { name: name.to_owned(), options, ..Default::default() })
}

pub fn change_password(name: &str, password: &str) -> Auth {
    Auth::ChangePassword(AuthUserChangePasswordRequest {
        name: name.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    })
}

pub fn grant_role(user: &str, role: &str) -> Auth {
    Auth::GrantRole { user: user.to_owned(), role: role.to_owned() }
}

pub fn revoke_role(user: &str, role: &str) -> Auth {
    Auth::RevokeRole { user: user.to_owned(), role: role.to_owned() }
}

/// A permission of this kind for keys from `key` on, up to `range_end` if there is one.
pub fn grant_permission(role: &str, kind: permission::Type, key: &str, range_end: &str) -> Auth {
    let perm = Permission {
        perm_type: kind.into(),
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
    };
    Auth::GrantPermission(AuthRoleGrantPermissionRequest { name: role.to_owned(), perm: Some(perm) })
}

pub fn revoke_permission(role: &str, key: &str, range_end: &str) -> Auth {
    Auth::RevokePermission(AuthRoleRevokePermissionRequest {
        role: role.to_owned(),
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
    })
}

/// The password of root, which no random request changes.
pub const ROOT_PASSWORD: &str = "of root";
/// Of users that random requests are about.
pub const NAMES: [&str; 4] = ["root", "u0", "u1", "u2"];
/// Of roles that random requests are about.
pub const ROLES: [&str; 4] = ["root", "r0", "r1", "r2"];
/// Of users but root.
pub const PASSWORDS: [&str; 2] = ["p0", "p1"];

/// Longer than bcrypt takes, bytes.
const TOO_LONG: usize = 73;

fn random_name(random: &mut Random, names: &[&str; 4]) -> String {
    match random.below(30) {
        0 => String::new(),
        1 => "nobody's".to_owned(),
        2..5 => names[0].to_owned(),
        _ => names[1 + random.below(3) as usize].to_owned(),
    }
}

fn random_password(random: &mut Random, name: &str) -> String {
    match random.below(30) {
        _ if name == NAMES[0] => ROOT_PASSWORD.to_owned(),
        0 => "x".repeat(TOO_LONG),
        1 => "x".repeat(TOO_LONG - 1),
        2 | 3 => String::new(),
        _ => PASSWORDS[random.below(2) as usize].to_owned(),
    }
}

/// A hash that the client says it has: of no password, or none at all. Mostly nothing.
fn random_hash(random: &mut Random, name: &str) -> String {
    match random.below(20) {
        _ if name == NAMES[0] => String::new(),
        0 => "bm8gaGFzaA==".to_owned(),
        1 => "no base64".to_owned(),
        _ => String::new(),
    }
}

impl Auth {
    /// One about a few users and roles.
    pub fn random(random: &mut Random) -> Self {
        match random.below(32) {
            0..3 => {
                let name = random_name(random, &NAMES);
                let password = random_password(random, &name);
                let no_password = name != NAMES[0] && random.one_in(8);
                let options = random.one_in(2).then_some(UserAddOptions { no_password });
                let hashed_password = random_hash(random, &name);
                Auth::UserAdd(AuthUserAddRequest { name, password, options, hashed_password })
            }
            3 => Auth::UserDelete(random_name(random, &NAMES)),
            4 | 5 => {
                let name = random_name(random, &NAMES);
                let password = random_password(random, &name);
                let hashed_password = random_hash(random, &name);
                Auth::ChangePassword(AuthUserChangePasswordRequest { name, password, hashed_password })
            }
            6..9 => Auth::GrantRole { user: random_name(random, &NAMES), role: random_name(random, &ROLES) },
            9 => Auth::RevokeRole { user: random_name(random, &NAMES), role: random_name(random, &ROLES) },
            10..12 => Auth::RoleAdd(random_name(random, &ROLES)),
            12 => Auth::RoleDelete(random_name(random, &ROLES)),
            13..18 => {
                let (key, range_end) = random_range(random);
                let perm = Permission { perm_type: random.below(3) as i32, key, range_end };
                let perm = (!random.one_in(30)).then_some(perm);
                let name = random_name(random, &ROLES);
                Auth::GrantPermission(AuthRoleGrantPermissionRequest { name, perm })
            }
            18..20 => {
                let (key, range_end) = random_range(random);
                let role = random_name(random, &ROLES);
                Auth::RevokePermission(AuthRoleRevokePermissionRequest { role, key, range_end })
            }
            20 | 21 => Auth::UserGet(random_name(random, &NAMES)),
            22 | 23 => Auth::RoleGet(random_name(random, &ROLES)),
            24 => Auth::UserList,
            25 => Auth::RoleList,
            26 => Auth::Status,
            27 => Auth::Enable,
            28 if random.one_in(3) => Auth::Disable,
            _ => {
                let name = random_name(random, &NAMES);
                let password = random_password(random, &name);
                Auth::Login(AuthenticateRequest { name, password })
            }
        }
    }
}

/// Few enough that one is revoked as it was granted.
fn random_range(random: &mut Random) -> (Bytes, Bytes) {
    match random.below(12) {
        0 => (random.key(), random.range_end()),
        1 => (Bytes::new(), Bytes::from_static(b"\0")),
        2 => (Bytes::new(), Bytes::new()),
        3 => (Bytes::from_static(b"k20"), Bytes::from_static(b"k10")),
        4 => (Bytes::from_static(b"k20"), Bytes::from_static(b"\0")),
        5 | 6 => (Bytes::from_static(b"k10"), Bytes::from_static(b"k20")),
        7 | 8 => (Bytes::from_static(b"k00"), Bytes::from_static(b"k10")),
        9 => (Bytes::from_static(b"k"), Bytes::from_static(b"l")),
        _ => (Bytes::from_static(b"k15"), Bytes::new()),
    }
}
