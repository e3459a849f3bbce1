//! `put`: sets a key, to an argument or to what is on standard input.

use std::io::Read;

use bytes::Bytes;
use wire::etcdserverpb::PutRequest;

use super::session::{Session, call_failed, deadline};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Flags, Kind};
use crate::gotext;

pub(super) const COMMAND: Command = Command::new(
    "put",
    "put [options] <key> <value> (<value> can also be given from stdin)",
    "Puts the given key into the store",
    run,
)
.with_long(LONG)
.with_flags(FLAGS);

const LONG: &str = "
Puts the given key into the store.

When <value> begins with '-', <value> is interpreted as a flag.
Insert '--' for workaround:

$ put <key> -- <value>
$ put -- <key> <value>

Without a <value> (and without --ignore-value) the value is read from standard input to its end,
a last line end included.";

static FLAGS: &[Flag] = &[
    Flag::new("lease", Kind::Text, "id of the lease to attach the key to, in hex").default("0"),
    Flag::new("prev-kv", Kind::Bool, "return the pair as it was before"),
    Flag::new("ignore-value", Kind::Bool, "keep the key's value"),
    Flag::new("ignore-lease", Kind::Bool, "keep the key's lease"),
];

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let request = request(&call.flags, &call.args, call.world.input)?;
    let session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    let answer = session.wait(client.put(request, deadline)).map_err(call_failed)?;
    session.printer.put(call.world.out, &answer)
}

/// # Errors
/// [`exit::BAD_ARGS`], as etcdctl.
pub(super) fn request(flags: &Flags, args: &[Vec<u8>], input: &mut dyn Read) -> Result<PutRequest, Failure> {
    let too_few =
        || Failure::new(exit::BAD_ARGS, "put command needs 1 argument and input from stdin or 2 arguments");
    let (key, others) = args.split_first().ok_or_else(too_few)?;
    let ignore_value = flags.bool("ignore-value");
    let value = match (ignore_value, others.first()) {
        (true, Some(_)) => {
            let text = "put command needs only 1 argument when 'ignore-value' is set";
            return Err(Failure::new(exit::BAD_ARGS, text));
        }
        (true, None) => Bytes::new(),
        (false, Some(value)) => Bytes::copy_from_slice(value),
        (false, None) => {
            let mut value = Vec::new();
            input.read_to_end(&mut value).map_err(|_| too_few())?;
            if value.is_empty() {
                return Err(too_few());
            }
            value.into()
        }
    };
    let lease = gotext::parse_int(flags.text("lease").as_bytes(), 16).map_err(|reason| {
        Failure::new(exit::BAD_ARGS, format!("bad lease ID ({reason}), expecting ID in Hex"))
    })?;
    Ok(PutRequest {
        key: Bytes::copy_from_slice(key),
        value,
        lease,
        prev_kv: flags.bool("prev-kv"),
        ignore_value,
        ignore_lease: flags.bool("ignore-lease"),
    })
}
