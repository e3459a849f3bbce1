//! What the commands on a data directory share: required flags, and the wait for whoever holds it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use node::Error;
use node::offline::DataDir;

use crate::app::{Failure, Invocation, usage_error};
use crate::flag::{Flag, Kind};

/// Between two tries to take a lock, as bbolt does.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// The folder of a write-ahead log that is elsewhere; etcd's commands have no such flag.
pub(super) const WAL_DIR: Flag =
    Flag::new("wal-dir", Kind::Text, "the member's WAL directory, if it is not in the data directory");

/// Refuses a command line without one of these flags, in cobra's words.
pub(super) fn require(call: &Invocation<'_>, names: &[&str]) -> Result<(), Failure> {
    let missing: Vec<String> =
        names.iter().filter(|name| !call.flags.changed(name)).map(|name| format!("\"{name}\"")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!("required flag(s) {} not set", missing.join(", "));
    Err(usage_error(call.app, &call.path, &text))
}

/// The directory that the flags name.
pub(super) fn data_dir(call: &Invocation<'_>) -> DataDir {
    let wal_dir = Some(call.flags.text("wal-dir")).filter(|given| !given.is_empty()).map(PathBuf::from);
    DataDir::new(PathBuf::from(call.flags.text("data-dir")), wal_dir)
}

/// Does something with a directory, waiting as long as `--timeout` says for a process that holds it.
pub(super) fn when_free<T>(
    call: &Invocation<'_>,
    mut work: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let timeout = call.flags.duration("timeout");
    let began = Instant::now();
    loop {
        match work() {
            Err(Error::Locked(_) | Error::DatabaseLocked(_) | Error::Wal(disk::wal::Error::Locked(_)))
                if timeout.is_zero() || began.elapsed() < timeout =>
            {
                std::thread::sleep(TRY_AGAIN)
            }
            done => return done,
        }
    }
}
