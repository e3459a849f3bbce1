//! `del`: removes one key, an interval, a prefix, or all keys from one on.

use std::io::Write;
use std::time::Duration;

use wire::etcdserverpb::DeleteRangeRequest;

use super::range_end::{key_range, one_of_prefix_and_from_key};
use super::session::{Session, call_failed, deadline};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Flags, Kind};
use crate::gotext;

pub(super) const COMMAND: Command = Command::new(
    "del",
    "del [options] <key> [range_end]",
    "Removes the key, or the keys in [key, range_end)",
    run,
)
.with_flags(FLAGS);

static FLAGS: &[Flag] = &[
    Flag::new("prefix", Kind::Bool, "all keys that begin with the key"),
    Flag::new("prev-kv", Kind::Bool, "return the pairs that were removed"),
    Flag::new("from-key", Kind::Bool, "all keys that are equal to the key or above it"),
    Flag::new("range", Kind::Bool, "a range_end is meant: do not wait before removing"),
];

/// Between the warning about an interval and the request.
pub(super) const REGRET: Duration = Duration::from_secs(2);

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let request = request(&call.flags, &call.args)?;
    warn_of_interval(&call.flags, &call.args, call.world.err, REGRET)?;
    let session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    let answer = session.wait(client.delete_range(request, deadline)).map_err(call_failed)?;
    session.printer.delete_range(call.world.out, &answer)
}

/// Warns and waits when an interval is given without `--range`: it may be a mistake for two keys.
pub(super) fn warn_of_interval(
    flags: &Flags,
    args: &[Vec<u8>],
    err: &mut dyn Write,
    regret: Duration,
) -> Result<(), Failure> {
    if let [key, end] = args
        && !flags.bool("range")
    {
        let (key, end) = (gotext::quote(key), gotext::quote(end));
        writeln!(
            err,
            "Warning: Keys between {key} and {end} will be deleted. Please interrupt the command within next \
             {} seconds to cancel. You can provide `--range` flag to avoid the delay.",
            regret.as_secs(),
        )?;
        err.flush()?;
        std::thread::sleep(regret);
    }
    Ok(())
}

/// # Errors
/// [`exit::BAD_ARGS`], as etcdctl.
pub(super) fn request(flags: &Flags, args: &[Vec<u8>]) -> Result<DeleteRangeRequest, Failure> {
    let (key, end) = match args {
        [key] => (key, None),
        [key, end] => (key, Some(end.as_slice())),
        _ => {
            let text = "del command needs one argument as key and an optional argument as range_end";
            return Err(Failure::new(exit::BAD_ARGS, text));
        }
    };
    one_of_prefix_and_from_key(flags)?;
    let (key, range_end) = key_range(flags, key, end)?;
    Ok(DeleteRangeRequest { key, range_end, prev_kv: flags.bool("prev-kv") })
}
