//! What a member without data begins with: the initial cluster, checked as etcd checks it.
//!
//! A member that has a log ignores these settings, so the checks are made only when there is none.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};

use thiserror::Error;

use super::{ClusterState, Config, Url, quote};

/// The members that a new cluster begins with, or that the one has that is joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Peer URLs by member name, each list sorted: ids are made of them in this order.
    pub members: BTreeMap<String, Vec<Url>>,
    /// What ids are made of, beside the URLs.
    pub token: String,
}

/// Why no cluster can be begun with these settings. The texts are etcd's where etcd has one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the text is the documentation")]
pub enum BootstrapError {
    #[error("error setting up initial cluster: {0}")]
    Cluster(String),
    #[error("couldn't find local name {} in the initial cluster configuration", quote(.0))]
    LocalName(String),
    #[error(
        "--initial-cluster has {missing} but missing from --initial-advertise-peer-urls={advertised} ({why})"
    )]
    NotAdvertised { missing: String, advertised: String, why: String },
    #[error("--initial-advertise-peer-urls has {missing} but missing from --initial-cluster={cluster}")]
    NotInCluster { missing: String, cluster: String },
    #[error("initial cluster {0} has duplicate url")]
    DuplicateUrl(String),
    #[error("initial cluster unset and no discovery endpoints found")]
    Unset,
}

impl Config {
    /// The cluster that a member without data begins or joins, after etcd's checks. May ask the resolver for host names.
    ///
    /// # Errors
    /// See [`BootstrapError`].
    pub fn bootstrap(&self) -> Result<Bootstrap, BootstrapError> {
        let members = members(&self.initial_cluster).map_err(BootstrapError::Cluster)?;
        let text = describe(&members);
        let Some(own) = members.get(&self.name) else {
            return Err(BootstrapError::LocalName(self.name.clone()));
        };
        if self.initial_cluster_state == ClusterState::New {
            self.check_advertised(own)?;
        }
        let mut urls: Vec<&Url> = members.values().flatten().collect();
        let count = urls.len();
        urls.sort();
        urls.dedup();
        if urls.len() != count {
            return Err(BootstrapError::DuplicateUrl(text));
        }
        Ok(Bootstrap { members, token: self.initial_cluster_token.clone() })
    }

    /// The URLs must be the advertised ones, as text or by the addresses that their names stand for.
    fn check_advertised(&self, own: &[Url]) -> Result<(), BootstrapError> {
        let mut advertised = self.initial_advertise_peer_urls.clone();
        advertised.sort();
        let Err(why) = same(&advertised, own) else {
            return Ok(());
        };
        let join = |urls: &[&Url], name: &str| {
            urls.iter().map(|url| format!("{name}{url}")).collect::<Vec<_>>().join(",")
        };
        let lacking = |of: &[Url], urls: &[Url]| -> Vec<Url> {
            urls.iter().filter(|url| !of.contains(url)).cloned().collect()
        };
        let all: Vec<&Url> = advertised.iter().collect();
        let missing = lacking(&advertised, own);
        if !missing.is_empty() {
            return Err(BootstrapError::NotAdvertised {
                missing: join(&missing.iter().collect::<Vec<_>>(), &format!("{}=", self.name)),
                advertised: join(&all, ""),
                why,
            });
        }
        Err(BootstrapError::NotInCluster {
            missing: join(&lacking(own, &advertised).iter().collect::<Vec<_>>(), ""),
            cluster: join(&all, &format!("{}=", self.name)),
        })
    }
}

/// Reads `name=url,name=url`; a name may come several times.
fn members(text: &str) -> Result<BTreeMap<String, Vec<Url>>, String> {
    let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, url) = pair.split_once('=').unwrap_or((pair, ""));
        members.entry(name.to_owned()).or_default().push(Url::parse(url)?);
    }
    members.values_mut().for_each(|urls| urls.sort());
    Ok(members)
}

fn describe(members: &BTreeMap<String, Vec<Url>>) -> String {
    let mut pairs: Vec<String> =
        members.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}"))).collect();
    pairs.sort();
    pairs.join(",")
}

/// Whether two sorted lists of URLs lead to the same addresses; why not, in etcd's words.
pub(crate) fn same(a: &[Url], b: &[Url]) -> Result<(), String> {
    let list = |urls: &[Url]| {
        format!("[{}]", urls.iter().map(|url| quote(url.as_str())).collect::<Vec<_>>().join(" "))
    };
    if a == b {
        return Ok(());
    }
    if a.len() != b.len() {
        return Err(format!("len({}) != len({})", list(a), list(b)));
    }
    let resolve = |urls: &[Url]| -> Result<Vec<String>, String> {
        let mut all = urls.iter().map(resolved).collect::<Result<Vec<_>, _>>()?;
        all.sort();
        Ok(all)
    };
    let (left, right) = (resolve(a)?, resolve(b)?);
    match left.iter().zip(&right).position(|(l, r)| l != r) {
        None => Ok(()),
        Some(at) => Err(format!("resolved urls: {} != {}", quote(a[at].as_str()), quote(b[at].as_str()))),
    }
}

fn resolved(url: &Url) -> Result<String, String> {
    if url.is_unix() {
        return Ok(url.to_string());
    }
    let addresses: Vec<SocketAddr> = url
        .authority()
        .to_socket_addrs()
        .map_err(|error| format!("failed to resolve {url}: {error}"))?
        .collect();
    let chosen = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    chosen.map(SocketAddr::to_string).ok_or_else(|| format!("failed to resolve {url}"))
}
