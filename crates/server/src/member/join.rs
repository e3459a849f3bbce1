//! What a member without data asks of others before it begins: who it is in the cluster that it joins, or whether the
//! cluster that it is to begin with others has it already (etcd: bootstrap.go, cluster_util.go).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use disk::boltfile::schema::Version;
use node::Identity;
use raft::NodeId;
use tokio::task::LocalSet;

use crate::config::peer_urls::{self, Names, SystemNames, same};
use crate::config::{Bootstrap, Config, Url, quote};
use crate::log;
use crate::peer::{self, Dial, NetDial, Question, Reply, Told, version_told};

/// How long one member may take to tell of its cluster.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);
/// And one that is about to begin it with this one.
const NEW_PATIENCE: Duration = Duration::from_secs(1);

/// Why a member cannot begin. The texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the text is the documentation")]
pub enum JoinError {
    #[error("cannot fetch cluster info from peer urls: {0}")]
    Fetch(&'static str),
    #[error("error validating peerURLs {cluster}: {reason}")]
    Validate { cluster: String, reason: String },
    #[error("incompatible with current running cluster")]
    Incompatible,
    #[error("membership: too many learner members in cluster")]
    TooManyLearners,
    #[error("member {0:x} has already been bootstrapped")]
    Bootstrapped(u64),
    #[error("{0}")]
    Runtime(String),
}

/// A cluster as one of its members has told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Existing {
    cluster_id: u64,
    /// In ascending order of id.
    members: Vec<Told>,
}

impl Told {
    fn peer_urls(&self) -> &[String] {
        self.peer_urls.as_deref().unwrap_or_default()
    }

    fn client_urls(&self) -> &[String] {
        self.client_urls.as_deref().unwrap_or_default()
    }
}

/// What a member is told that joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Who it is.
    pub identity: Identity,
    /// The others, and their peer URLs.
    pub others: BTreeMap<u64, Vec<String>>,
}

/// Asks the cluster that `bootstrap` names who this member is there.
///
/// # Errors
/// See [`JoinError`].
pub fn join(config: &Config, bootstrap: &Bootstrap) -> Result<Joined, JoinError> {
    on_runtime(async {
        let asker = Asker::new(config);
        let urls = other_urls(bootstrap, &config.name);
        let existing = asker.cluster(&urls, JOIN_PATIENCE, true).await.map_err(JoinError::Fetch)?;
        // Nothing else happens in this runtime meanwhile.
        let ids = assign(bootstrap, &existing, &SystemNames::within(peer_urls::PATIENCE))
            .map_err(|reason| JoinError::Validate { cluster: describe(&existing), reason })?;
        let own = ids[&config.name];
        if !asker.is_compatible(&existing, own, config.request_timeout()).await {
            return Err(JoinError::Incompatible);
        }
        if existing.members.iter().filter(|member| member.is_learner).count() > config.learners_max {
            return Err(JoinError::TooManyLearners);
        }
        let others = existing.members.iter().filter(|member| member.id != own);
        let others = others.map(|member| (member.id, member.peer_urls().to_vec())).collect();
        Ok(Joined { identity: Identity { cluster_id: existing.cluster_id, member_id: own }, others })
    })
}

/// Asks those that a cluster is to begin with whether it has begun, and with this member.
///
/// # Errors
/// If it has; see [`JoinError`].
pub fn check_new(config: &Config, bootstrap: &Bootstrap) -> Result<(), JoinError> {
    let urls = other_urls(bootstrap, &config.name);
    if urls.is_empty() {
        return Ok(());
    }
    on_runtime(async {
        let own: Vec<String> =
            bootstrap.members.get(&config.name).into_iter().flatten().map(ToString::to_string).collect();
        let own = node::member_id(&own, &bootstrap.token);
        let Ok(existing) = Asker::new(config).cluster(&urls, NEW_PATIENCE, false).await else {
            return Ok(());
        };
        let told = existing.members.iter().find(|member| member.id == own);
        match told.is_some_and(|member| !member.client_urls().is_empty()) {
            true => Err(JoinError::Bootstrapped(own)),
            false => Ok(()),
        }
    })
}

fn on_runtime<T>(work: impl Future<Output = Result<T, JoinError>>) -> Result<T, JoinError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| JoinError::Runtime(error.to_string()))?;
    let done = LocalSet::new().block_on(&runtime, work);
    // Names that are still being looked up are waited for no longer than the work was patient.
    runtime.shutdown_background();
    done
}

/// The peer URLs of all but this member, in order.
fn other_urls(bootstrap: &Bootstrap, own: &str) -> Vec<Url> {
    let others = bootstrap.members.iter().filter(|(name, _)| *name != own);
    let mut urls: Vec<Url> = others.flat_map(|(_, urls)| urls.clone()).collect();
    urls.sort();
    urls
}

struct Asker {
    dial: Rc<dyn Dial>,
    settings: peer::Settings,
}

impl Asker {
    /// Nobody knows yet who it is that asks.
    fn new(config: &Config) -> Self {
        let identity = peer::Identity { member_id: NodeId(0), cluster_id: 0, peer_urls: Vec::new() };
        let limits = super::peer_limits(config);
        let security = config.security.peer.clone();
        let dial = Rc::new(NetDial::new(security.clone()));
        Asker { dial, settings: peer::Settings { identity, limits, security } }
    }

    async fn get(&self, url: &Url, path: &str, patience: Duration) -> Result<Reply, String> {
        peer::ask(&self.dial, url, &self.settings, Question::get(path), patience).await
    }

    /// The cluster as the first one that answers tells of it.
    async fn cluster(&self, urls: &[Url], patience: Duration, says: bool) -> Result<Existing, &'static str> {
        for url in urls {
            match self.get(url, "/members", patience).await.and_then(|reply| existing(&reply)) {
                Ok(existing) if existing.members.is_empty() => {
                    return Err("failed to get raft cluster member(s) from the given URLs");
                }
                Ok(existing) => return Ok(existing),
                Err(error) if says => log::warn!(
                    "failed to get cluster response",
                    "address" => format!("{url}/members"),
                    "error" => error,
                ),
                Err(_) => {}
            }
        }
        Err("could not retrieve cluster information from the given URLs")
    }

    /// Whether somebody has said that the cluster is of a version that this member can work at, and nobody another.
    async fn is_compatible(&self, existing: &Existing, own: u64, patience: Duration) -> bool {
        let others = || existing.members.iter().filter(|member| member.id != own);
        let mut versions = Vec::new();
        for member in others() {
            if let Some(reply) = self.ask_member(member, "/version", patience).await {
                versions.push((member.id, version_told(&reply, "etcdcluster")));
            }
        }
        let mut is_downgrading = false;
        for member in others() {
            if let Some(reply) = self.ask_member(member, "/downgrade/enabled", patience).await
                && reply.status == 200
            {
                is_downgrading = reply.body == "true";
                break;
            }
        }
        let lowest: Version = wire::version::CLUSTER_MIN.parse().expect("ours is a version");
        let highest: Version = wire::version::CLUSTER.parse().expect("ours is a version");
        let above = Version { minor: highest.minor + 1, ..highest };
        let (lowest, highest) = if is_downgrading { (above, above) } else { (lowest, highest) };
        let mut is_known = false;
        for (id, version) in versions {
            let Some(version) = version else { continue };
            if version < lowest || version > highest {
                log::warn!(
                    "cluster version of remote member is not compatible",
                    "remote-member-id" => format!("{id:x}"),
                    "remote-member-cluster-version" => version.to_string(),
                );
                return false;
            }
            is_known = true;
        }
        is_known
    }

    async fn ask_member(&self, member: &Told, path: &str, patience: Duration) -> Option<Reply> {
        for url in member.peer_urls().iter().filter_map(|url| Url::parse(url).ok()) {
            match self.get(&url, path, patience).await {
                Ok(reply) => return Some(reply),
                Err(error) => log::warn!(
                    "failed to reach the peer URL",
                    "address" => format!("{url}{path}"),
                    "remote-member-id" => format!("{:x}", member.id),
                    "error" => error,
                ),
            }
        }
        None
    }
}

fn existing(reply: &Reply) -> Result<Existing, String> {
    let mut members: Vec<Told> = serde_json::from_slice(&reply.body).map_err(|error| error.to_string())?;
    members.sort_by_key(|member| member.id);
    let id = reply.headers.get("x-etcd-cluster-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let cluster_id = u64::from_str_radix(id, 16).map_err(|error| error.to_string())?;
    Ok(Existing { cluster_id, members })
}

/// Finds the ids that the cluster has for the members that the settings name: by their peer URLs.
fn assign(
    bootstrap: &Bootstrap,
    existing: &Existing,
    names: &dyn Names,
) -> Result<BTreeMap<String, u64>, String> {
    if existing.members.len() != bootstrap.members.len() {
        return Err("member count is unequal".to_owned());
    }
    // etcd goes through them in the order of the ids that they would have in a new cluster.
    let mut named: Vec<(u64, &String, &Vec<Url>)> = bootstrap
        .members
        .iter()
        .map(|(name, urls)| {
            let texts: Vec<String> = urls.iter().map(ToString::to_string).collect();
            (node::member_id(&texts, &bootstrap.token), name, urls)
        })
        .collect();
    named.sort_unstable();
    let mut ids = BTreeMap::new();
    for member in &existing.members {
        let mut error = "%!w(<nil>)".to_owned();
        // etcd looks up all that it compares before it comes to the right one, and waits for the name of a member that is down.
        // Who is found as it is written needs neither.
        let unasked = SystemNames::within(Duration::ZERO);
        let written =
            named.iter().find(|(_, _, urls)| same_texts(member.peer_urls(), urls, &unasked).is_ok());
        let found = written.or_else(|| {
            named.iter().find(|(_, _, urls)| match same_texts(member.peer_urls(), urls, names) {
                Ok(()) => true,
                Err(why) => {
                    error = why;
                    false
                }
            })
        });
        let Some((_, name, _)) = found else {
            let (id, urls) = (member.id, member.peer_urls().join(" "));
            return Err(format!(
                "PeerURLs: no match found for existing member ({id:x}, [{urls}]), last resolver error ({error})"
            ));
        };
        ids.insert((*name).clone(), member.id);
    }
    // Two of the cluster's may be the same here, and this one none of them.
    match ids.len() == named.len() {
        true => Ok(ids),
        false => Err("member count is unequal".to_owned()),
    }
}

fn same_texts(texts: &[String], urls: &[Url], names: &dyn Names) -> Result<(), String> {
    if texts.len() != urls.len() {
        let quoted = |texts: &[String]| texts.iter().map(|text| quote(text)).collect::<Vec<_>>().join(" ");
        let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        return Err(format!("len([{}]) != len([{}])", quoted(texts), quoted(&urls)));
    }
    let mut parsed = texts.iter().map(|text| Url::parse(text)).collect::<Result<Vec<Url>, String>>()?;
    parsed.sort();
    same(&parsed, urls, names)
}

/// As Go prints it.
fn describe(existing: &Existing) -> String {
    let list = |texts: &[String]| texts.join(" ");
    let members = existing.members.iter().map(|member| {
        format!(
            "&{{ID:{:x} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} Attributes:{{Name:{} ClientURLs:[{}]}}}}",
            member.id,
            list(member.peer_urls()),
            member.is_learner,
            member.name,
            list(member.client_urls()),
        )
    });
    let members = members.collect::<Vec<_>>().join(" ");
    format!("{{ClusterID:{:x} Members:[{members}] RemovedMemberIDs:[]}}", existing.cluster_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::peer_urls::tests::Known;

    fn bootstrap(members: &[(&str, &[&str])]) -> Bootstrap {
        let members = members.iter().map(|(name, urls)| {
            let mut urls: Vec<Url> = urls.iter().map(|url| Url::parse(url).unwrap()).collect();
            urls.sort();
            ((*name).to_owned(), urls)
        });
        Bootstrap { members: members.collect(), token: "t".to_owned() }
    }

    fn told(id: u64, urls: &[&str]) -> Told {
        let peer_urls = Some(urls.iter().map(|url| (*url).to_owned()).collect());
        Told { id, peer_urls, is_learner: false, name: String::new(), client_urls: None }
    }

    #[test]
    fn a_cluster_names_its_members_by_their_urls() {
        let (a, b) = ("http://127.0.0.1:1", "http://127.0.0.1:2");
        let existing = Existing { cluster_id: 9, members: vec![told(7, &[b]), told(8, &[a])] };
        let names = Known::new(&[("b.example", "127.0.0.1", 20)], peer_urls::PATIENCE);
        let assigned =
            |members: &[(&str, &[&str])], existing: &Existing| assign(&bootstrap(members), existing, &names);
        let ids = assigned(&[("a", &[a]), ("b", &["http://b.example:2"])], &existing).unwrap();
        assert_eq!(ids, BTreeMap::from([("a".to_owned(), 8), ("b".to_owned(), 7)]));

        let few = assigned(&[("a", &[a])], &existing);
        assert_eq!(few.unwrap_err(), "member count is unequal");
        for other in ["http://127.0.0.1:3", "https://b.example:2"] {
            let other = assigned(&[("a", &[a]), ("b", &[other])], &existing).unwrap_err();
            let beginning = "PeerURLs: no match found for existing member (7, [http://127.0.0.1:2]), last resolver \
                             error (";
            assert!(other.starts_with(beginning) && other.contains("resolved urls: "), "{other}");
        }
        let same = Existing { cluster_id: 9, members: vec![told(7, &[a]), told(8, &[a])] };
        assert!(assigned(&[("a", &[a]), ("b", &[b])], &same).is_err(), "b is nobody");
    }

    /// The name of a member that is down may be gone as well.
    #[test]
    fn members_that_are_written_as_they_are_told_are_not_looked_up() {
        let (a, b) = ("http://a.example:1", "http://b.example:1");
        let existing = Existing { cluster_id: 9, members: vec![told(7, &[b]), told(8, &[a])] };
        let names = Known::new(&[], peer_urls::PATIENCE);
        let ids = assign(&bootstrap(&[("a", &[a]), ("b", &[b])]), &existing, &names).unwrap();
        assert_eq!(ids, BTreeMap::from([("a".to_owned(), 8), ("b".to_owned(), 7)]));
        assert_eq!(*names.asked.borrow(), Vec::<String>::new());
    }

    #[test]
    fn a_cluster_is_described_as_go_does_it() {
        let member = Told { client_urls: Some(vec!["http://c:1".to_owned()]), ..told(0xab, &["http://a:1"]) };
        let member = Told { name: "n".to_owned(), ..member };
        let text = describe(&Existing { cluster_id: 0xcd, members: vec![member] });
        assert_eq!(
            text,
            "{ClusterID:cd Members:[&{ID:ab RaftAttributes:{PeerURLs:[http://a:1] IsLearner:false} \
             Attributes:{Name:n ClientURLs:[http://c:1]}}] RemovedMemberIDs:[]}"
        );
    }
}
