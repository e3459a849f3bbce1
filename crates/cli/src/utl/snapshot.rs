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
    if let Err(why) = same(&advertised, own) {
        let lacks = |of: &[Url], urls: &[Url], prefix: &str| {
            let missing = urls.iter().filter(|url| !of.contains(url));
            missing.map(|url| format!("{prefix}{url}")).collect::<Vec<_>>().join(",")
        };
        let all = |prefix: &str| lacks(&[], &advertised, prefix);
        let (given, cluster) = (all(""), all(&format!("{name}=")));
        let missing = lacks(&advertised, own, &format!("{name}="));
        let beyond = lacks(own, &advertised, "");
        return Err(match (missing.as_str(), beyond.as_str()) {
            ("", "") => format!("failed to resolve {given} to match --initial-cluster={cluster} ({why})"),
            ("", beyond) => format!(
                "--initial-advertise-peer-urls has {beyond} but missing from --initial-cluster={cluster}"
            ),
            (missing, _) => format!(
                "--initial-cluster has {missing} but missing from --initial-advertise-peer-urls={given} ({why})"
            ),
        });
    }
    let mut all: Vec<&Url> = members.values().flatten().collect();
    let count = all.len();
    all.sort();
    all.dedup();
    if all.len() != count {
        return Err(format!("initial cluster {cluster} has duplicate url"));
    }
    let texts = |urls: Vec<Url>| urls.iter().map(ToString::to_string).collect();
    Ok(members.into_iter().map(|(name, urls)| InitialMember { name, peer_urls: texts(urls) }).collect())
}

/// Whether two sorted lists lead to the same addresses; in etcd's words why not.
fn same(one: &[Url], other: &[Url]) -> Result<(), String> {
    if one.len() != other.len() {
        let list = |urls: &[Url]| {
            let quoted = urls.iter().map(|url| gotext::quote(url.to_string().as_bytes()));
            quoted.collect::<Vec<_>>().join(" ")
        };
        return Err(format!("len([{}]) != len([{}])", list(one), list(other)));
    }
    if one == other {
        return Ok(());
    }
    let resolve = |urls: &[Url]| -> Result<Vec<String>, String> {
        let mut all = urls.iter().map(resolved).collect::<Result<Vec<_>, _>>()?;
        all.sort();
        Ok(all)
    };
    let (one, other) = (resolve(one)?, resolve(other)?);
    match one.iter().zip(&other).find(|(one, other)| one != other) {
        Some((one, other)) => Err(format!("resolved urls: \"{one}\" != \"{other}\"")),
        None => Ok(()),
    }
}

/// A URL with its host's address in the place of the name.
fn resolved(url: &Url) -> Result<String, String> {
    let text = url.to_string();
    let authority = url.authority();
    if url.is_unix() || authority.starts_with("localhost:") {
        return Ok(text);
    }
    let found: Vec<SocketAddr> = match authority.to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(_) => Vec::new(),
    };
    match found.iter().find(|address| address.is_ipv4()).or(found.first()) {
        Some(address) => Ok(text.replacen(authority, &address.to_string(), 1)),
        None => {
            let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
            Err(format!("failed to resolve \"{text}\" (lookup {host}: no such host)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of etcdutl 3.7.1.
    #[test]
    fn members_that_do_not_fit() {
        for (name, cluster, advertised, text) in [
            (
                "x",
                "m=http://10.0.0.1:2380",
                "http://10.0.0.1:2380",
                "couldn't find local name \"x\" in the initial cluster configuration",
            ),
            (
                "m",
                "m=http://10.0.0.1:2380,n=http://10.0.0.1:2380",
                "http://10.0.0.1:2380",
                "initial cluster m=http://10.0.0.1:2380,n=http://10.0.0.1:2380 has duplicate url",
            ),
            (
                "m",
                "m=http://10.0.0.1:2380,n=http://10.0.0.1:2380",
                "http://10.0.0.1:2380,http://10.0.0.2:2380",
                "--initial-advertise-peer-urls has http://10.0.0.2:2380 but missing from \
                 --initial-cluster=m=http://10.0.0.1:2380,m=http://10.0.0.2:2380",
            ),
            (
                "m",
                "m=http://10.0.0.1:2380",
                "http://10.0.0.9:2380",
                "--initial-cluster has m=http://10.0.0.1:2380 but missing from \
                 --initial-advertise-peer-urls=http://10.0.0.9:2380 (resolved urls: \"http://10.0.0.9:2380\" != \
                 \"http://10.0.0.1:2380\")",
            ),
            (
                "m",
                "m=http://10.0.0.1:2380,m=http://10.0.0.2:2380",
                "http://10.0.0.1:2380",
                "--initial-cluster has m=http://10.0.0.2:2380 but missing from \
                 --initial-advertise-peer-urls=http://10.0.0.1:2380 (len([\"http://10.0.0.1:2380\"]) != \
                 len([\"http://10.0.0.1:2380\" \"http://10.0.0.2:2380\"]))",
            ),
            (
                "m",
                "m=http://10.0.0.1:2380",
                "http://10.0.0.1:2380,http://10.0.0.2:2380",
                "--initial-advertise-peer-urls has http://10.0.0.2:2380 but missing from \
                 --initial-cluster=m=http://10.0.0.1:2380,m=http://10.0.0.2:2380",
            ),
        ] {
            assert_eq!(first_members(name, cluster, advertised).unwrap_err(), text);
        }
        let members =
            first_members("m", "n=http://10.0.0.2:2380,m=http://127.0.0.1:2380", "http://127.0.0.1:2380");
        let names: Vec<String> = members.unwrap().into_iter().map(|member| member.name).collect();
        assert_eq!(names, ["m", "n"]);
    }
}
