//! `downgrade`: validate, enable and cancel.

use wire::etcdserverpb::downgrade_request::DowngradeAction;

use super::session::{Session, call_failed, deadline};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;

pub(super) const COMMAND: Command = Command::group_of(
    "downgrade",
    "downgrade <TARGET_VERSION>",
    "Downgrade related commands",
    "Downgrade related commands",
    &[
        Command::new(
            "validate",
            "validate <TARGET_VERSION>",
            "Checks whether a downgrade is possible",
            validate,
        ),
        Command::new("enable", "enable <TARGET_VERSION>", "Begins a downgrade", enable),
        Command::new("cancel", "cancel", "Ends a downgrade", cancel),
    ],
);

fn validate(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let version = target_version(call)?;
    run(call, DowngradeAction::Validate, version)
}

fn enable(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let version = target_version(call)?;
    run(call, DowngradeAction::Enable, version)
}

fn cancel(call: &mut Invocation<'_>) -> Result<(), Failure> {
    run(call, DowngradeAction::Cancel, String::new())
}

fn run(call: &mut Invocation<'_>, action: DowngradeAction, version: String) -> Result<(), Failure> {
    let session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    let answer = session.wait(client.downgrade(action, version, deadline)).map_err(call_failed)?;
    session.printer.downgrade(call.world.out, action, &answer)
}

fn target_version(call: &Invocation<'_>) -> Result<String, Failure> {
    let bad = |text| Err(Failure::new(exit::BAD_ARGS, text));
    match call.args.as_slice() {
        [] => bad("TARGET_VERSION not provided"),
        [version] if version.is_empty() => bad("target version not provided"),
        [version] => Ok(String::from_utf8_lossy(version).into_owned()),
        _ => bad("too many arguments"),
    }
}
