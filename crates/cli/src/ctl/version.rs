//! `version`: asks no server.

use crate::app::{Failure, Invocation};
use crate::command::Command;

pub(super) const COMMAND: Command = Command::new("version", "version", "Prints the version of etcdctl", run);

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    crate::app::print_version(call)
}
