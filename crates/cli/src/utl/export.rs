//! `export-go`: the way back, a data directory that Go's etcd starts from.

use std::path::PathBuf;
use std::sync::Arc;

use disk::boltfile::schema::Version;
use disk::{Fs, RealFs};
use node::offline::Export;

use super::held::{data_dir, require, when_free};
use super::migrate::parse_target;
use super::{Value, line, node_failure};
use crate::app::{Failure, Invocation, exit};

/// The versions of Go's etcd that a directory can be written for.
const TARGETS: [Version; 2] =
    [Version { major: 3, minor: 6, patch: 0 }, Version { major: 3, minor: 7, patch: 0 }];

pub(super) fn run(call: &mut Invocation<'_>) -> Result<(), Failure> {
    require(call, &["data-dir", "out"])?;
    let version = match call.flags.text("target-version") {
        "" => None,
        text => Some(parse_target(text).map_err(|text| Failure::new(exit::BAD_ARGS, text))?),
    };
    if let Some(version) = version.filter(|version| !TARGETS.contains(version)) {
        let text =
            format!("target version \"{}.{}\" not supported: 3.6 or 3.7", version.major, version.minor);
        return Err(Failure::new(exit::BAD_ARGS, text));
    }
    let export = Export { data_dir: data_dir(call), out: PathBuf::from(call.flags.text("out")), version };
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let done =
        when_free(call, || node::offline::export(&fs, &export)).map_err(|error| node_failure(&error))?;
    let fields = [
        ("path", Value::Text(export.out.display().to_string())),
        ("cluster-id", Value::Text(format!("{:x}", done.identity.cluster_id))),
        ("local-member-id", Value::Text(format!("{:x}", done.identity.member_id))),
        ("revision", Value::Number(done.revision.unsigned_abs())),
        ("consistent-index", Value::Number(done.applied.index)),
        ("last-index", Value::Number(done.last_index)),
        ("storage-version", Value::Text(done.version.unwrap_or_default())),
    ];
    line(call, "info", "wrote a data directory for Go's etcd", &fields)
}
