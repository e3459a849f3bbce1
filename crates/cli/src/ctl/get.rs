//! `get`: one key, an interval, a prefix, or all keys from one on.

use wire::etcdserverpb::RangeRequest;
use wire::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::range_end::{key_range, one_of_prefix_and_from_key};
use super::session::{Session, call_failed, deadline};
use crate::app::{Failure, Invocation, exit};
use crate::command::Command;
use crate::flag::{Flag, Flags, Kind};
use crate::gotext;
use crate::print::Format;

pub(super) const COMMAND: Command =
    Command::new("get", "get [options] <key> [range_end]", "Gets the key or a range of keys", run)
        .with_flags(FLAGS);

static FLAGS: &[Flag] = &[
    Flag::new("consistency", Kind::Text, "l for linearizable, s for serializable").default("l"),
    Flag::new("order", Kind::Text, "ASCEND or DESCEND"),
    Flag::new("sort-by", Kind::Text, "CREATE, KEY, MODIFY, VALUE or VERSION"),
    Flag::new("limit", Kind::Int, "most keys that are returned"),
    Flag::new("prefix", Kind::Bool, "all keys that begin with the key"),
    Flag::new("from-key", Kind::Bool, "all keys that are equal to the key or above it"),
    Flag::new("rev", Kind::Int, "the store as it was at this revision"),
    Flag::new("keys-only", Kind::Bool, "keys without values"),
    Flag::new("count-only", Kind::Bool, "only the number of keys (with -w fields)"),
    Flag::new("print-value-only", Kind::Bool, "print values without keys (with -w simple)"),
    Flag::new("min-create-rev", Kind::Int, "leave out keys created before this revision"),
    Flag::new("max-create-rev", Kind::Int, "leave out keys created after this revision"),
    Flag::new("min-mod-rev", Kind::Int, "leave out keys changed last before this revision"),
    Flag::new("max-mod-rev", Kind::Int, "leave out keys changed last after this revision"),
    Flag::new("stream", Kind::Bool, "ask in a stream of answers, for large ranges"),
];

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let request = request(&call.flags, &call.args)?;
    let mut session = Session::open(call)?;
    let (client, deadline) = (session.client()?, deadline(call));
    let answer = session
        .wait(async {
            if call.flags.bool("stream") {
                client.range_stream(request, deadline).await
            } else {
                client.range(request, deadline).await
            }
        })
        .map_err(call_failed)?;

    // After the call, as in etcdctl.
    let printer = &mut session.printer;
    if call.flags.bool("count-only") && printer.format != Format::Fields {
        return Err(Failure::new(exit::BAD_ARGS, "--count-only is only for `--write-out=fields`"));
    }
    printer.value_only = call.flags.bool("print-value-only");
    if printer.value_only && printer.format != Format::Simple {
        return Err(Failure::new(exit::BAD_ARGS, "print-value-only is only for `--write-out=simple`"));
    }
    printer.range(call.world.out, &answer)
}

/// # Errors
/// [`exit::BAD_ARGS`] and [`exit::BAD_FEATURE`], as etcdctl.
pub(super) fn request(flags: &Flags, args: &[Vec<u8>]) -> Result<RangeRequest, Failure> {
    let Some((key, others)) = args.split_first() else {
        let text = "get command needs one argument as key and an optional argument as range_end";
        return Err(Failure::new(exit::BAD_ARGS, text));
    };
    one_of_prefix_and_from_key(flags)?;
    let (keys_only, count_only) = (flags.bool("keys-only"), flags.bool("count-only"));
    if keys_only && count_only {
        let text = "`--keys-only` and `--count-only` cannot be set at the same time, choose one";
        return Err(Failure::new(exit::BAD_ARGS, text));
    }
    let serializable = match flags.text("consistency") {
        "s" => true,
        "l" => false,
        other => {
            let text = format!("unknown consistency flag {}", gotext::quote(other.as_bytes()));
            return Err(Failure::new(exit::BAD_FEATURE, text));
        }
    };
    let (key, range_end) = key_range(flags, key, others.first().map(Vec::as_slice))?;
    let (order, target) = sorting(flags)?;
    let (min_create, max_create) = revisions(flags, "min-create-rev", "max-create-rev", "CreateRev")?;
    let (min_mod, max_mod) = revisions(flags, "min-mod-rev", "max-mod-rev", "ModRev")?;
    Ok(RangeRequest {
        key,
        range_end,
        limit: flags.int("limit"),
        revision: flags.int("rev").max(0),
        sort_order: order.into(),
        sort_target: target.into(),
        serializable,
        keys_only,
        count_only,
        min_mod_revision: min_mod,
        max_mod_revision: max_mod,
        min_create_revision: min_create,
        max_create_revision: max_create,
    })
}

fn sorting(flags: &Flags) -> Result<(SortOrder, SortTarget), Failure> {
    let given = flags.text("order");
    let order = match given.to_uppercase().as_str() {
        "" => SortOrder::None,
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => return Err(Failure::new(exit::BAD_FEATURE, format!("bad sort order {given}"))),
    };
    let given = flags.text("sort-by");
    let target = match given.to_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(Failure::new(exit::BAD_FEATURE, format!("bad sort target {given}"))),
    };
    // Keys come in this order anyway: the server need not sort.
    let natural = (order, target) == (SortOrder::Ascend, SortTarget::Key);
    Ok((if natural { SortOrder::None } else { order }, target))
}

/// The bounds on one of the revisions; what is below zero counts as not given.
fn revisions(flags: &Flags, min: &str, max: &str, name: &str) -> Result<(i64, i64), Failure> {
    let (low, high) = (flags.int(min), flags.int(max));
    if high > 0 && low > high {
        let text = format!("getMin{name}(={low}) > getMax{name}(={high})");
        return Err(Failure::new(exit::BAD_FEATURE, text));
    }
    Ok((low.max(0), high.max(0)))
}
