//! `auth`: enable, disable and status.

use client::{Client, Deadline, Error};
use wire::ApiError;
use wire::etcdserverpb::AuthUserGrantRoleRequest;

use super::session::{Session, call_failed, deadline};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;

pub(super) const COMMAND: Command = Command::group_of(
    "auth",
    "auth <enable or disable>",
    "Authentication related commands",
    "Enable or disable authentication",
    &[
        Command::new("enable", "enable", "Turns authentication on", enable).with_long(ENABLE),
        Command::new("disable", "disable", "Turns authentication off", disable),
        Command::new("status", "status", "Prints whether authentication is on", status),
    ],
);

const ENABLE: &str = "Turns authentication on.

There has to be a user root. The role root is added and granted to it, if that is what is missing.";

/// The user, and the role, that may do everything.
pub(super) const ROOT: &str = "root";

fn enable(call: &mut Invocation<'_>) -> Result<(), Failure> {
    without_arguments(call, "enable")?;
    let session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    session.wait(enable_with_role(&client, deadline)).map_err(call_failed)?;
    Ok(writeln!(call.world.out, "Authentication Enabled")?)
}

async fn enable_with_role(client: &Client, deadline: Deadline) -> Result<(), Error> {
    loop {
        match client.auth_enable(deadline).await {
            Err(error) if error.is(ApiError::RootRoleNotExist) => {
                client.role_add(ROOT.to_owned(), deadline).await?;
                let grant = AuthUserGrantRoleRequest { user: ROOT.to_owned(), role: ROOT.to_owned() };
                client.user_grant_role(grant, deadline).await?;
            }
            enabled => return enabled.map(drop),
        }
    }
}

fn disable(call: &mut Invocation<'_>) -> Result<(), Failure> {
    without_arguments(call, "disable")?;
    let session = Session::open(call)?;
    session.wait(session.client()?.auth_disable(deadline(call))).map_err(call_failed)?;
    Ok(writeln!(call.world.out, "Authentication Disabled")?)
}

fn status(call: &mut Invocation<'_>) -> Result<(), Failure> {
    without_arguments(call, "status")?;
    let session = Session::open(call)?;
    let answer = session.wait(session.client()?.auth_status(deadline(call))).map_err(call_failed)?;
    session.printer.auth_status(call.world.out, &answer)
}

fn without_arguments(call: &Invocation<'_>, command: &str) -> Result<(), Failure> {
    match call.args.as_slice() {
        [] => Ok(()),
        _ => {
            let text = format!("auth {command} command does not accept any arguments");
            Err(Failure::new(exit::BAD_ARGS, text))
        }
    }
}
