use std::sync::Arc;

use disk::Fs;
use disk::boltfile::Reader;
use disk::boltfile::schema::{self, Version};
use disk::wal::{self, Wal};
use prost::Message;
use wire::etcdserverpb::InternalRaftRequest;

use super::{DataDir, Held, Kind};
use crate::Error;
use crate::interchange::{self, StorageVersion};
use crate::start::replay_revlog;

/// The first version whose files say which one they are of; older ones are taken for the one before it.
const VERSIONED_SINCE: Version = Version { major: 3, minor: 6, patch: 0 };
const UNVERSIONED: Version = Version { major: 3, minor: 5, patch: 0 };
/// The newest version that this one knows the changes of.
const KNOWN_MAX: Version = Version { major: 3, minor: 7, patch: 0 };

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The version to come to; its third number is 0.
    pub target: Version,
    /// Write the version though the checks refuse it.
    pub force: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Migrated {
    /// It had the version already.
    UpToDate,
    /// It went through these versions, the last of which is the target.
    Through(Vec<Version>),
    /// All checks hold, and there is nothing to change: a data directory of ours is the same for all versions.
    Same,
    /// The version was written (or cleared, if that is older than versions are written) in spite of this.
    Forced(String),
}

/// Changes a data directory for another version of etcd, with the checks and texts of etcdutl.
///
/// # Errors
/// A member runs; no store; damage; a migration that etcd refuses, in its words. Nothing was changed then.
pub fn migrate(fs: &Arc<dyn Fs>, data_dir: &DataDir, migration: Migration) -> Result<Migrated, Error> {
    let Migration { target, force } = migration;
    let held = Held::take(fs, data_dir)?;
    let database = held.folders.database();
    let current = match held.kind {
        Kind::Database => stored_version(&Reader::open(&**fs, &database)?)?,
        Kind::Ours => {
            let limits = data_dir.revlog_limits.clone();
            let settings = store::Settings::default();
            let (_, replayed) = replay_revlog(fs, &held.folders.rev, limits, settings, 1, &mut |_, _| {})?;
            let version: Option<Version> =
                replayed.store.membership().cluster_version().and_then(|version| version.parse().ok());
            let version = version.map(|version| Version { patch: 0, ..version });
            version.ok_or_else(|| Error::Refused("missing cluster version information".to_owned()))?
        }
    };
    if current == target {
        return Ok(Migrated::UpToDate);
    }
    let log = Wal::open(fs.clone(), &held.folders.wal, data_dir.wal_limits)
        .map_err(|error| Error::Refused(format!("failed to open wal: {error}")))?;
    let (outcome, version) =
        match plan(current, target).and_then(|steps| check_log(&log, current, target, steps)) {
            Ok(steps) => (Migrated::Through(steps), target),
            Err(Error::Refused(why)) if force => (Migrated::Forced(why), target),
            Err(error) => return Err(error),
        };
    match (held.kind, &outcome) {
        (Kind::Ours, Migrated::Forced(why)) => Err(Error::Refused(format!(
            "{why}; a data directory of Quorate has no version that could be forced"
        ))),
        (Kind::Ours, _) => Ok(Migrated::Same),
        (Kind::Database, _) => {
            let version = match version {
                version if version < VERSIONED_SINCE => StorageVersion::Cleared,
                version => StorageVersion::Set(version),
            };
            interchange::rewrite(&**fs, &database, &version)?;
            Ok(outcome)
        }
    }
}

/// The version of a file, as etcd detects it.
fn stored_version(reader: &Reader) -> Result<Version, Error> {
    let malformed = |error: schema::Malformed| Error::Refused(error.to_string());
    if let Some(version) = reader.get(schema::BUCKET_META, schema::META_STORAGE_VERSION)? {
        let version = Version::decode(&version).map_err(malformed)?;
        return Ok(Version { patch: 0, ..version });
    }
    let term = reader.get(schema::BUCKET_META, schema::META_TERM)?;
    match term.map(|term| schema::decode_u64(&term)).transpose().map_err(malformed)? {
        None | Some(0) => Err(Error::Refused("missing term information".to_owned())),
        Some(_) => Ok(UNVERSIONED),
    }
}

/// The versions on the way, one minor after the other.
fn plan(current: Version, target: Version) -> Result<Vec<Version>, Error> {
    let refused = |what: &str| Error::Refused(format!("cannot create migration plan: {what}"));
    if current.major != target.major {
        return Err(refused("changing major storage version is not supported"));
    }
    let mut steps = Vec::new();
    let mut at = current;
    while at.minor != target.minor {
        let is_upgrade = at.minor < target.minor;
        // What changes between two versions is known under the higher one.
        let higher = if is_upgrade { Version { minor: at.minor + 1, ..at } } else { at };
        if !(VERSIONED_SINCE..=KNOWN_MAX).contains(&higher) {
            return Err(refused(&format!("version \"{higher}\" is not supported")));
        }
        at.minor = if is_upgrade { at.minor + 1 } else { at.minor - 1 };
        steps.push(at);
    }
    Ok(steps)
}

/// Refuses to go below what the entries of the log need.
fn check_log(
    log: &wal::Opened,
    current: Version,
    target: Version,
    steps: Vec<Version>,
) -> Result<Vec<Version>, Error> {
    if target > current {
        return Ok(steps);
    }
    for entry in log.entries(log.newest_snapshot().index) {
        let entry = entry?;
        if let Some(needed) = needed_version(&entry)
            && target < needed
        {
            return Err(Error::Refused(format!(
                "cannot downgrade storage, WAL contains newer entries, as the target version ({target}) is lower than \
                 the version ({needed}) detected from WAL logs"
            )));
        }
    }
    Ok(steps)
}

/// The version that an entry needs, if that is later than 3.5: of all that may be in a log, the test of downgrades alone.
fn needed_version(entry: &wal::Entry) -> Option<Version> {
    if entry.kind != wal::EntryKind::Normal {
        return None;
    }
    let request = InternalRaftRequest::decode(entry.data.clone()).ok()?;
    let version: Version = request.downgrade_version_test?.ver.parse().ok()?;
    Some(version.max(VERSIONED_SINCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(minor: u64) -> Version {
        Version { major: 3, minor, patch: 0 }
    }

    #[test]
    fn a_plan_goes_one_minor_version_at_a_time() {
        assert_eq!(plan(version(5), version(7)).unwrap(), [version(6), version(7)]);
        assert_eq!(plan(version(7), version(5)).unwrap(), [version(6), version(5)]);
        for (from, to, text) in [
            (version(7), version(8), "version \"3.8.0\" is not supported"),
            (version(8), version(7), "version \"3.8.0\" is not supported"),
            (version(5), version(4), "version \"3.5.0\" is not supported"),
            (
                version(7),
                Version { major: 4, ..version(0) },
                "changing major storage version is not supported",
            ),
        ] {
            let error = plan(from, to).unwrap_err().to_string();
            assert_eq!(error, format!("cannot create migration plan: {text}"));
        }
    }

    #[test]
    fn entries_need_the_version_that_they_test_for() {
        let entry = |request: &InternalRaftRequest| wal::Entry {
            data: request.encode_to_vec().into(),
            ..wal::Entry::default()
        };
        let mut request = InternalRaftRequest::default();
        assert_eq!(needed_version(&entry(&request)), None);
        for (ver, needed) in [("3.5.0", version(6)), ("3.7.0", version(7))] {
            request.downgrade_version_test =
                Some(wire::etcdserverpb::DowngradeVersionTestRequest { ver: ver.to_owned() });
            assert_eq!(needed_version(&entry(&request)), Some(needed));
        }
    }
}
