//! `options`: the flags that every command takes.

use super::globals;
use crate::app::{Failure, Invocation};
use crate::command::Command;
use crate::help;

pub(super) const COMMAND: Command =
    Command::new("options", "options", "Lists the flags that every command takes", run);

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let list = help::flag_list(globals::FLAGS, None);
    Ok(write!(call.world.out, "The following options can be passed to any command:\n\n{list}")?)
}
