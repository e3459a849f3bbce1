//! `user`: add, delete, get, list, passwd, grant-role and revoke-role.

use client::Deadline;
use wire::authpb::UserAddOptions;
use wire::etcdserverpb::{
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest,
};

use super::password;
use super::session::{Session, call_failed};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Kind};

const INTERACTIVE: Flag =
    Flag::new("interactive", Kind::Bool, "ask for the password; else it is the first word of standard input")
        .default("true");

pub(super) const COMMAND: Command = Command::group_of(
    "user",
    "user <subcommand>",
    "User related commands",
    "User related commands",
    &[
        Command::new("add", "add <user name or user:password> [options]", "Adds a user", add).with_flags(&[
            INTERACTIVE,
            Flag::new("new-user-password", Kind::Text, "password of the new user"),
            Flag::new(
                "no-password",
                Kind::Bool,
                "make a user without a password, whose name is in its certificate",
            ),
        ]),
        Command::new("delete", "delete <user name>", "Removes a user", delete),
        Command::new("get", "get <user name> [options]", "Prints a user's roles", get)
            .with_flags(&[Flag::new("detail", Kind::Bool, "also the permissions of the roles")]),
        Command::new("list", "list", "Lists the users", list),
        Command::new("passwd", "passwd <user name> [options]", "Changes a user's password", passwd)
            .with_flags(&[INTERACTIVE]),
        Command::new(
            "grant-role",
            "grant-role <user name> <role name>",
            "Gives a role to a user",
            grant_role,
        ),
        Command::new(
            "revoke-role",
            "revoke-role <user name> <role name>",
            "Takes a role from a user",
            revoke_role,
        ),
    ],
);

// As in etcdctl, these calls have no deadline.

fn add(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let name = only_name(call, "user add command requires user name as its argument")?;
    let no_password = call.flags.bool("no-password");
    let given = call.flags.text("new-user-password").to_owned();
    let (name, password) = if no_password {
        (name, String::new())
    } else if !given.is_empty() {
        (name, given)
    } else if let Some((name, password)) = name.split_once(':') {
        if name.is_empty() {
            return Err(Failure::new(exit::BAD_ARGS, "empty user name is not allowed"));
        }
        (name.to_owned(), password.to_owned())
    } else {
        let password = new_password(call, &name)?;
        (name, password)
    };
    let request = AuthUserAddRequest {
        name: name.clone(),
        password,
        options: Some(UserAddOptions { no_password }),
        hashed_password: String::new(),
    };
    let session = Session::open(call)?;
    let answer = session.wait(session.client()?.user_add(request, Deadline::NEVER)).map_err(call_failed)?;
    session.printer.auth_changed(call.world.out, &format!("User {name} created"), answer.header)
}

fn delete(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let name = only_name(call, "user delete command requires user name as its argument")?;
    let session = Session::open(call)?;
    let client = session.client()?;
    let answer = session.wait(client.user_delete(name.clone(), Deadline::NEVER)).map_err(call_failed)?;
    session.printer.auth_changed(call.world.out, &format!("User {name} deleted"), answer.header)
}

fn get(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let name = only_name(call, "user get command requires user name as its argument")?;
    let session = Session::open(call)?;
    let client = session.client()?;
    let answer = session.wait(client.user_get(name.clone(), Deadline::NEVER)).map_err(call_failed)?;
    if !call.flags.bool("detail") {
        return session.printer.user_get(call.world.out, &name, &answer);
    }
    // Whatever the format, as in etcdctl.
    writeln!(call.world.out, "User: {name}")?;
    for role in answer.roles {
        writeln!(call.world.out)?;
        let answer = session.wait(client.role_get(role.clone(), Deadline::NEVER)).map_err(call_failed)?;
        session.printer.role_get(call.world.out, &role, &answer)?;
    }
    Ok(())
}

fn list(call: &mut Invocation<'_>) -> Result<(), Failure> {
    if !call.args.is_empty() {
        return Err(Failure::new(exit::BAD_ARGS, "user list command requires no arguments"));
    }
    let session = Session::open(call)?;
    let answer = session.wait(session.client()?.user_list(Deadline::NEVER)).map_err(call_failed)?;
    session.printer.user_list(call.world.out, &answer)
}

fn passwd(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let name = only_name(call, "user passwd command requires user name as its argument")?;
    let password = new_password(call, &name)?;
    let request = AuthUserChangePasswordRequest { name, password, hashed_password: String::new() };
    let session = Session::open(call)?;
    let client = session.client()?;
    let answer = session.wait(client.user_change_password(request, Deadline::NEVER)).map_err(call_failed)?;
    session.printer.auth_changed(call.world.out, "Password updated", answer.header)
}

fn grant_role(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let text = "user grant command requires user name and role name as its argument";
    let (user, role) = user_and_role(call, text)?;
    let request = AuthUserGrantRoleRequest { user: user.clone(), role: role.clone() };
    let session = Session::open(call)?;
    let client = session.client()?;
    let answer = session.wait(client.user_grant_role(request, Deadline::NEVER)).map_err(call_failed)?;
    let said = format!("Role {role} is granted to user {user}");
    session.printer.auth_changed(call.world.out, &said, answer.header)
}

fn revoke_role(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let text = "user revoke-role requires user name and role name as its argument";
    let (name, role) = user_and_role(call, text)?;
    let request = AuthUserRevokeRoleRequest { name: name.clone(), role: role.clone() };
    let session = Session::open(call)?;
    let client = session.client()?;
    let answer = session.wait(client.user_revoke_role(request, Deadline::NEVER)).map_err(call_failed)?;
    let said = format!("Role {role} is revoked from user {name}");
    session.printer.auth_changed(call.world.out, &said, answer.header)
}

fn new_password(call: &mut Invocation<'_>, user: &str) -> Result<String, Failure> {
    match call.flags.bool("interactive") {
        true => password::ask_new(call, user),
        false => Ok(password::scan(&mut call.world.input)),
    }
}

fn user_and_role(call: &Invocation<'_>, otherwise: &str) -> Result<(String, String), Failure> {
    match call.args.as_slice() {
        [user, role] => Ok((name(user)?, name(role)?)),
        _ => Err(Failure::new(exit::BAD_ARGS, otherwise)),
    }
}

/// The name that is the only argument.
///
/// # Errors
/// [`exit::BAD_ARGS`] with this text if it is not.
pub(super) fn only_name(call: &Invocation<'_>, otherwise: &str) -> Result<String, Failure> {
    match call.args.as_slice() {
        [only] => name(only),
        _ => Err(Failure::new(exit::BAD_ARGS, otherwise)),
    }
}

/// The name of a user or role.
///
/// # Errors
/// As gRPC refuses to send what is no text.
pub(super) fn name(text: &[u8]) -> Result<String, Failure> {
    String::from_utf8(text.to_vec()).map_err(|_| {
        let text = "rpc error: code = Internal desc = grpc: error while marshaling: string field contains \
                    invalid UTF-8";
        Failure::new(exit::ERROR, text)
    })
}
