//! What a member without data begins with: the initial cluster, checked as etcd checks it.
//!
//! A member that has a log ignores these settings, so the checks are made only when there is none.

use std::collections::BTreeMap;

use thiserror::Error;

use super::peer_urls::{Names, same};
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
    #[error("failed to resolve {advertised} to match --initial-cluster={cluster} ({why})")]
    Unlike { advertised: String, cluster: String, why: String },
    #[error("initial cluster {0} has duplicate url")]
    DuplicateUrl(String),
    #[error("initial cluster unset and no discovery endpoints found")]
    Unset,
}

impl Config {
    /// The cluster that a member without data begins or joins, after etcd's checks. May ask for host names, again and again
    /// until their time is over.
    ///
    /// # Errors
    /// See [`BootstrapError`].
    pub fn bootstrap(&self, names: &dyn Names) -> Result<Bootstrap, BootstrapError> {
        let members = members(&self.initial_cluster).map_err(BootstrapError::Cluster)?;
        let text = describe(&members);
        let Some(own) = members.get(&self.name) else {
            return Err(BootstrapError::LocalName(self.name.clone()));
        };
        if self.initial_cluster_state == ClusterState::New {
            self.check_advertised(own, names)?;
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

    /// The members of `--initial-cluster` as they are written, none if they can't be read. Nothing is checked, and no name
    /// looked up.
    pub fn initial_members(&self) -> BTreeMap<String, Vec<Url>> {
        members(&self.initial_cluster).unwrap_or_default()
    }

    /// The URLs must be the advertised ones, as text or by the addresses that their names stand for.
    fn check_advertised(&self, own: &[Url], names: &dyn Names) -> Result<(), BootstrapError> {
        let mut advertised = self.initial_advertise_peer_urls.clone();
        advertised.sort();
        let Err(why) = same(&advertised, own, names) else {
            return Ok(());
        };
        let join = |urls: &[&Url], name: &str| {
            urls.iter().map(|url| format!("{name}{url}")).collect::<Vec<_>>().join(",")
        };
        let lacking = |of: &[Url], urls: &[Url]| -> Vec<Url> {
            let mut missing: Vec<Url> = urls.iter().filter(|url| !of.contains(url)).cloned().collect();
            missing.dedup();
            missing
        };
        let all: Vec<&Url> = advertised.iter().collect();
        let (advertised_text, cluster) = (join(&all, ""), join(&all, &format!("{}=", self.name)));
        let missing = lacking(&advertised, own);
        if !missing.is_empty() {
            let missing = join(&missing.iter().collect::<Vec<_>>(), &format!("{}=", self.name));
            return Err(BootstrapError::NotAdvertised { missing, advertised: advertised_text, why });
        }
        let missing = lacking(own, &advertised);
        if !missing.is_empty() {
            let missing = join(&missing.iter().collect::<Vec<_>>(), "");
            return Err(BootstrapError::NotInCluster { missing, cluster });
        }
        Err(BootstrapError::Unlike { advertised: advertised_text, cluster, why })
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
