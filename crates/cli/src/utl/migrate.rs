//! `migrate`: changes a data directory for another version of etcd.

use std::sync::Arc;

use disk::boltfile::schema::Version;
use disk::{Fs, RealFs};
use node::offline::{Migrated, Migration};

use super::held::{data_dir, require, when_free};
use super::{Value, line, node_failure};
use crate::app::{Failure, Invocation, exit};
use crate::gotext;

/// The oldest version that can be asked for.
const TARGET_MIN: Version = Version { major: 3, minor: 5, patch: 0 };
/// Files of older ones have no version.
const VERSIONED_SINCE: Version = Version { major: 3, minor: 6, patch: 0 };

pub(super) fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    require(call, &["data-dir", "target-version"])?;
    let target =
        parse_target(call.flags.text("target-version")).map_err(|text| Failure::new(exit::BAD_ARGS, text))?;
    let migration = Migration { target, force: call.flags.bool("force") };
    let place = data_dir(call);
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let done = when_free(call, || node::offline::migrate(&fs, &place, migration))
        .map_err(|error| node_failure(&error))?;
    let short = |version: &Version| Value::Text(format!("{}.{}", version.major, version.minor));
    match done {
        Migrated::UpToDate => {
            line(call, "info", "storage version up-to-date", &[("storage-version", short(&target))])
        }
        Migrated::Through(steps) => steps.iter().try_for_each(|version| {
            let fields = [("new-storage-version", Value::Text(version.to_string()))];
            line(call, "info", "updated storage version", &fields)
        }),
        Migrated::Same => line(
            call,
            "info",
            "nothing to change: a data directory of Quorate is the same for all versions; for the way to Go's etcd see \
             etcdutl export-go --help",
            &[("storage-version", short(&target))],
        ),
        Migrated::Forced(why) => {
            line(call, "info", "normal migrate failed, trying with force", &[("error", Value::Text(why))])?;
            match target < VERSIONED_SINCE {
                true => line(call, "warn", "forcefully cleared storage version", &[]),
                false => {
                    let fields = [("storage-version", short(&target))];
                    line(call, "warn", "forcefully set storage version", &fields)
                }
            }
        }
    }
}

/// `X.Y`, in Go's words if it is not.
pub(super) fn parse_target(text: &str) -> Result<Version, String> {
    let [major, minor] = text.split('.').collect::<Vec<_>>()[..] else {
        let quoted = gotext::quote(text.as_bytes());
        return Err(format!("wrong target version format, expected \"X.Y\", got {quoted}"));
    };
    let number = |part: &str| -> Result<u64, String> {
        part.parse().map_err(|error| {
            format!("failed to parse target version: {}", gotext::number_error("ParseInt", part, &error))
        })
    };
    let target = Version { major: number(major)?, minor: number(minor)?, patch: 0 };
    if target < TARGET_MIN {
        return Err(format!("target version \"{text}\" not supported. Minimal \"3.5\""));
    }
    Ok(target)
}
