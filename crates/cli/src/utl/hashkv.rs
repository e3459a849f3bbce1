//! `hashkv`: what a server that serves from a file would answer.

use std::path::PathBuf;

use disk::RealFs;
use node::Error;

use super::{node_failure, stat};
use crate::app::exit;
use crate::app::{Failure, Invocation, usage_error};
use crate::print::{FileHash, Format, Printer};

pub(super) fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let [path] = call.args.as_slice() else {
        let text = format!("accepts 1 arg(s), received {}", call.args.len());
        return Err(usage_error(call.app, &call.path, &text));
    };
    let path = PathBuf::from(String::from_utf8_lossy(path).into_owned());
    let format = Format::parse(call.flags.text("write-out"))?;
    stat(&path)?;
    let hash =
        node::interchange::hash_kv(&RealFs, &path, call.flags.int("rev")).map_err(|error| match error {
            // The library's word, which the server puts its name before.
            Error::Api(error) => Failure::new(exit::ERROR, error.text().trim_start_matches("etcdserver: ")),
            other => node_failure(&other),
        })?;
    let hash = FileHash {
        hash: hash.hash,
        hash_revision: hash.hash_revision,
        compact_revision: hash.compact_revision,
    };
    Printer { format, hex: false, value_only: false }.file_hash(call.world.out, &hash)
}
