//! Commands that later versions get: known with their flags, so that the help is whole, and refused by name.

use crate::app::{Failure, Invocation};
use crate::command::Command;
use crate::flag::{Flag, Kind};

fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    Err(Failure::not_yet(&format!("{} {}", call.app.name, call.path.name())))
}

/// A command that is refused.
const fn planned(name: &'static str, usage: &'static str, short: &'static str) -> Command {
    Command::new(name, usage, short, run).planned()
}

pub(super) const MAKE_MIRROR: Command = planned(
    "make-mirror",
    "make-mirror [options] <destination>",
    "Copies keys to another cluster, and their changes",
)
.with_flags(&[
    Flag::new("prefix", Kind::Text, "prefix of the keys to copy"),
    Flag::new("rev", Kind::Int, "revision to begin at"),
    Flag::new("max-txn-ops", Kind::Uint, "most requests in a transaction").default("128"),
    Flag::new("dest-prefix", Kind::Text, "prefix at the destination"),
    Flag::new("no-dest-prefix", Kind::Bool, "leave the prefix out at the destination"),
    Flag::new("dest-cert", Kind::Text, "certificate for the destination"),
    Flag::new("dest-key", Kind::Text, "key of that certificate"),
    Flag::new("dest-cacert", Kind::Text, "authorities of the destination's certificates"),
    Flag::new("dest-insecure-transport", Kind::Bool, "connect to the destination without TLS")
        .default("true"),
    Flag::new("dest-user", Kind::Text, "user at the destination"),
    Flag::new("dest-password", Kind::Text, "password at the destination, if --user has none"),
]);

pub(super) const CHECK: Command = Command::group_of(
    "check",
    "check <subcommand>",
    "Commands that measure a cluster",
    "Commands that measure a cluster",
    &[
        planned("perf", "perf [options]", "Measures the speed of a cluster").with_flags(&[
            Flag::new("load", Kind::Text, "size of the load: s, m, l or xl").default("s"),
            Flag::new("prefix", Kind::Text, "prefix of the keys that are written")
                .default("/etcdctl-check-perf/"),
            Flag::new("auto-compact", Kind::Bool, "compact when done"),
            Flag::new("auto-defrag", Kind::Bool, "defragment when done"),
        ]),
        planned("datascale", "datascale [options]", "Measures the memory that keys take").with_flags(&[
            Flag::new("load", Kind::Text, "size of the load: s, m, l or xl").default("s"),
            Flag::new("prefix", Kind::Text, "prefix of the keys that are written")
                .default("/etcdctl-check-datascale/"),
            Flag::new("auto-compact", Kind::Bool, "compact when done"),
            Flag::new("auto-defrag", Kind::Bool, "defragment when done"),
        ]),
    ],
);
