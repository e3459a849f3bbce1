//! `snapshot restore` and `snapshot status`: what a saved snapshot becomes, and what it holds.

use std::collections::{BTreeMap, HashSet};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::boltfile::Reader;
use disk::boltfile::schema::{self, RevisionKey};
use disk::{Fs, RealFs, wal};
use node::InitialMember;
use node::interchange::{Restore, Restored, restore as restore_member};
use prost::Message as _;
use wire::mvccpb::KeyValue;
use wire::url::Url;

use super::{log, node_failure, stat};
use crate::app::{Failure, Invocation, exit};
use crate::gotext;
use crate::print::{Format, Printer, SnapshotStatus};

/// `snapshot status`.
pub(super) fn status(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let [path] = call.args.as_slice() else {
        return Err(Failure::new(exit::BAD_ARGS, "snapshot status requires exactly one argument"));
    };
    let path = PathBuf::from(String::from_utf8_lossy(path).into_owned());
    stat(&path)?;
    let format = Format::parse(call.flags.text("write-out"))?;
    let found = read_status(&path).map_err(|text| Failure::new(exit::ERROR, text))?;
    Printer { format, hex: false, value_only: false }.snapshot_status(call.world.out, &found)
}

/// Reads a whole file twice: its pages, then its pairs. Memory: the keys that are there, as in etcd.
fn read_status(path: &Path) -> Result<SnapshotStatus, String> {
    let text = |error: disk::boltfile::Error| error.to_string();
    let reader = Reader::open(&RealFs, path).map_err(text)?;
    reader
        .check()
        .map_err(|error| format!("snapshot file integrity check failed. 1 errors found.\n{error}"))?;
    let version = reader.get(schema::BUCKET_META, schema::META_STORAGE_VERSION).map_err(text)?;
    let mut status = SnapshotStatus {
        total_size: reader.pages() * u64::from(reader.page_size()),
        version: version.map(|version| String::from_utf8_lossy(&version).into_owned()).unwrap_or_default(),
        ..SnapshotStatus::default()
    };
    let mut keys: HashSet<Vec<u8>> = HashSet::new();
    let root = reader.root();
    let mut buckets = root.cursor();
    while let Some(item) = buckets.next().map_err(text)? {
        let name = item.key.to_vec();
        if item.value.is_some() {
            return Err(format!("nil bucket: {}", gotext::quote(&name)));
        }
        let bucket = buckets.bucket().map_err(text)?;
        status.hash = crc32c::crc32c_append(status.hash, &name);
        let mut pairs = bucket.cursor();
        while let Some(pair) = pairs.next().map_err(text)? {
            let value = pair.value.unwrap_or_default();
            status.hash = crc32c::crc32c_append(status.hash, pair.key);
            status.hash = crc32c::crc32c_append(status.hash, value);
            if name == schema::BUCKET_KEY {
                let quoted = gotext::quote(pair.key);
                let revision = RevisionKey::decode(pair.key)
                    .map_err(|error| format!("cannot parse revision key: {quoted} err: {error}"))?;
                let stored = KeyValue::decode(value)
                    .map_err(|error| format!("cannot unmarshal value, key: {quoted} err: {error}"))?;
                status.revision = revision.main;
                if revision.tombstone {
                    keys.remove(&stored.key[..]);
                } else if !keys.contains(&stored.key[..]) {
                    keys.insert(stored.key.to_vec());
                }
            }
        }
    }
    status.total_key = keys.len() as u64;
    Ok(status)
}

/// `snapshot restore`.
pub(super) fn restore(call: &mut Invocation<'_>) -> Result<(), Failure> {
    let [path] = call.args.as_slice() else {
        return Err(Failure::new(exit::BAD_ARGS, "snapshot restore requires exactly one argument"));
    };
    let path = PathBuf::from(String::from_utf8_lossy(path).into_owned());
    let flags = &call.flags;
    let (bump_revision, mark_compacted) = (flags.uint("bump-revision"), flags.bool("mark-compacted"));
    if (bump_revision > 0) != mark_compacted {
        return Err(Failure::new(exit::BAD_ARGS, "--mark-compacted required if --revision-bump > 0"));
    }
    let name = flags.text("name").to_owned();
    let initial_cluster =
        first_members(&name, flags.text("initial-cluster"), flags.text("initial-advertise-peer-urls"))
            .map_err(|text| Failure::new(exit::ERROR, text))?;
    let data_dir = match flags.text("data-dir") {
        "" => PathBuf::from(format!("{name}.etcd")),
        given => PathBuf::from(given),
    };
    let wal_dir = match flags.text("wal-dir") {
        "" => None,
        // The place that it has anyway.
        given if Path::new(given) == data_dir.join("member/wal") => None,
        given => Some(PathBuf::from(given)),
    };
    let settings = Restore {
        snapshot: path,
        data_dir,
        wal_dir,
        name,
        initial_cluster,
        token: flags.text("initial-cluster-token").to_owned(),
        skip_hash_check: flags.bool("skip-hash-check"),
        bump_revision,
        wal_limits: wal::Limits::default(),
    };
    let shown = settings.snapshot.display().to_string();
    let data_dir = settings.data_dir.display().to_string();
    let fields = [("path", shown.as_str()), ("data-dir", &data_dir)];
    log(call, "restoring snapshot", &fields)?;
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let Restored { identity, revision } =
        restore_member(&fs, &settings).map_err(|error| node_failure(&error))?;
    let (cluster, member) = (format!("{:x}", identity.cluster_id), format!("{:x}", identity.member_id));
    let revision = revision.to_string();
    let ids = [("cluster-id", cluster.as_str()), ("local-member-id", &member), ("revision", &revision)];
    log(call, "restored snapshot", &[&fields[..], &ids].concat())
}

/// The members of the new cluster, after etcd's checks. May ask the resolver for host names.
fn first_members(name: &str, cluster: &str, advertised: &str) -> Result<Vec<InitialMember>, String> {
    let advertised = Url::parse_list(advertised)?;
    let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for pair in cluster.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        members.entry(name.to_owned()).or_default().push(Url::parse(url)?);
    }
    members.values_mut().for_each(|urls| urls.sort());
    let Some(own) = members.get(name) else {
        let quoted = gotext::quote(name.as_bytes());
        return Err(format!("couldn't find local name {quoted} in the initial cluster configuration"));
    };
    let mut all: Vec<&Url> = members.values().flatten().collect();
    let count = all.len();
    all.sort();
    all.dedup();
    if all.len() != count {
        return Err(format!("initial cluster {cluster} has duplicate url"));
    }
    if !same(&advertised, own) {
        let lacks = |of: &[Url], urls: &[Url], prefix: &str| {
            let missing = urls.iter().filter(|url| !of.contains(url));
            missing.map(|url| format!("{prefix}{url}")).collect::<Vec<_>>().join(",")
        };
        let given = advertised.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let missing = lacks(&advertised, own, &format!("{name}="));
        return Err(match missing.is_empty() {
            false => format!(
                "--initial-cluster has {missing} but missing from --initial-advertise-peer-urls={given}"
            ),
            true => format!(
                "--initial-advertise-peer-urls has {} but missing from --initial-cluster={name}={given}",
                lacks(own, &advertised, "")
            ),
        });
    }
    let texts = |urls: Vec<Url>| urls.iter().map(ToString::to_string).collect();
    Ok(members.into_iter().map(|(name, urls)| InitialMember { name, peer_urls: texts(urls) }).collect())
}

/// Whether two sorted lists lead to the same addresses.
fn same(one: &[Url], other: &[Url]) -> bool {
    let resolve = |urls: &[Url]| -> Option<Vec<String>> {
        let mut all = urls.iter().map(resolved).collect::<Option<Vec<_>>>()?;
        all.sort();
        Some(all)
    };
    one == other
        || one.len() == other.len() && resolve(one).is_some_and(|found| Some(found) == resolve(other))
}

fn resolved(url: &Url) -> Option<String> {
    if url.is_unix() {
        return Some(url.to_string());
    }
    let found: Vec<SocketAddr> = url.authority().to_socket_addrs().ok()?.collect();
    found.iter().find(|address| address.is_ipv4()).or(found.first()).map(SocketAddr::to_string)
}
