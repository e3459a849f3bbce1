//! `role`: add, delete, get, list, grant-permission and revoke-permission.

use bytes::Bytes;
use client::{Deadline, prefix_end};
use wire::authpb::Permission;
use wire::authpb::permission::Type;
use wire::etcdserverpb::{AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest};

use super::session::{Session, call_failed};
use super::user::{name, only_name};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Flags, Kind};

const RANGE_FLAGS: &[Flag] = &[
    Flag::new("prefix", Kind::Bool, "all keys that begin with the key"),
    Flag::new("from-key", Kind::Bool, "all keys that are equal to the key or above it"),
];

pub(super) const COMMAND: Command = Command::group_of(
    "role",
    "role <subcommand>",
    "Role related commands",
    "Role related commands",
    &[
        Command::new("add", "add <role name>", "Adds a role", add),
        Command::new("delete", "delete <role name>", "Removes a role", delete),
        Command::new("get", "get <role name>", "Prints a role's permissions", get),
        Command::new("list", "list", "Lists the roles", list),
        Command::new(
            "grant-permission",
            "grant-permission [options] <role name> <permission type> <key> [endkey]",
            "Gives a permission on keys to a role",
            grant_permission,
        )
        .with_long(GRANT)
        .with_flags(RANGE_FLAGS),
        Command::new(
            "revoke-permission",
            "revoke-permission <role name> <key> [endkey]",
            "Takes a permission on keys from a role",
            revoke_permission,
        )
        .with_flags(RANGE_FLAGS),
    ],
);

const GRANT: &str = "Gives a permission on keys to a role.

The permission type is read, write or readwrite.";

/// Every key is above it, and the end of an interval that has none.
const LOWEST: Bytes = Bytes::from_static(b"\0");

// As in etcdctl, these calls have no deadline.

fn add(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let role = only_name(call, "role add command requires role name as its argument")?;
    let session = Session::open(call)?;
    let client = session.client()?;
    let answer = session.wait(client.role_add(role.clone(), Deadline::NEVER)).map_err(call_failed)?;
    session.printer.auth_changed(call.world.out, &format!("Role {role} created"), answer.header)
}

fn delete(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let role = only_name(call, "role delete command requires role name as its argument")?;
    let session = Session::open(call)?;
    let client = session.client()?;
    let answer = session.wait(client.role_delete(role.clone(), Deadline::NEVER)).map_err(call_failed)?;
    session.printer.auth_changed(call.world.out, &format!("Role {role} deleted"), answer.header)
}

fn get(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let role = only_name(call, "role get command requires role name as its argument")?;
    let session = Session::open(call)?;
    let client = session.client()?;
    let answer = session.wait(client.role_get(role.clone(), Deadline::NEVER)).map_err(call_failed)?;
    session.printer.role_get(call.world.out, &role, &answer)
}

fn list(call: &mut Invocation<'_>) -> Result<(), Failure> {
    if !call.args.is_empty() {
        return Err(Failure::new(exit::BAD_ARGS, "role list command requires no arguments"));
    }
    let session = Session::open(call)?;
    let answer = session.wait(session.client()?.role_list(Deadline::NEVER)).map_err(call_failed)?;
    session.printer.role_list(call.world.out, &answer)
}

fn grant_permission(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let [role, kind, key, rest @ ..] = call.args.as_slice() else {
        let text = "role grant command requires role name, permission type, and key [endkey] as its argument";
        return Err(Failure::new(exit::BAD_ARGS, text));
    };
    let kind = String::from_utf8_lossy(kind);
    let perm_type = Type::from_str_name(&kind.to_uppercase())
        .ok_or_else(|| Failure::new(exit::BAD_ARGS, format!("invalid permission type: {kind}")))?;
    let (key, range_end) = key_range(&call.flags, key, rest)?;
    let role = name(role)?;
    let perm = Permission { perm_type: perm_type.into(), key, range_end };
    let request = AuthRoleGrantPermissionRequest { name: role.clone(), perm: Some(perm) };
    let session = Session::open(call)?;
    let client = session.client()?;
    let answer = session.wait(client.role_grant_permission(request, Deadline::NEVER)).map_err(call_failed)?;
    session.printer.auth_changed(call.world.out, &format!("Role {role} updated"), answer.header)
}

fn revoke_permission(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let [role, given, rest @ ..] = call.args.as_slice() else {
        let text = "role revoke-permission command requires role name and key [endkey] as its argument";
        return Err(Failure::new(exit::BAD_ARGS, text));
    };
    let (key, range_end) = key_range(&call.flags, given, rest)?;
    let (role, given) = (name(role)?, given.clone());
    let request = AuthRoleRevokePermissionRequest { role: role.clone(), key, range_end: range_end.clone() };
    let session = Session::open(call)?;
    let client = session.client()?;
    let answer =
        session.wait(client.role_revoke_permission(request, Deadline::NEVER)).map_err(call_failed)?;
    session.printer.role_revoke_permission(call.world.out, &role, (&given, &range_end), &answer)
}

/// The keys of a permission. An empty key stands for the lowest one there is, since a permission on the empty key is
/// none.
///
/// # Errors
/// [`exit::BAD_ARGS`] for combinations that mean nothing.
fn key_range(flags: &Flags, key: &[u8], rest: &[Vec<u8>]) -> Result<(Bytes, Bytes), Failure> {
    let bad = |text| Err(Failure::new(exit::BAD_ARGS, text));
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    let exclusive = "--from-key and --prefix flags are mutually exclusive";
    if key.is_empty() {
        // An end is not looked at, as in etcdctl.
        return match (prefix, from_key) {
            (true, true) => bad(exclusive),
            (false, false) => Ok((LOWEST, Bytes::new())),
            _ => Ok((LOWEST, LOWEST)),
        };
    }
    let end = match (rest.first(), prefix, from_key) {
        (None, true, true) => return bad(exclusive),
        (None, true, false) => prefix_end(key),
        (None, false, true) => LOWEST,
        (None, false, false) => Bytes::new(),
        (Some(_), true, _) => return bad("unexpected endkey argument with --prefix flag"),
        (Some(_), false, true) => return bad("unexpected endkey argument with --from-key flag"),
        (Some(end), false, false) => Bytes::copy_from_slice(end),
    };
    Ok((Bytes::copy_from_slice(key), end))
}
