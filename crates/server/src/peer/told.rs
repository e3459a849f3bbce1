//! A member as others tell of it at `/members` and `/members/promote/`.

use serde::Deserialize;

/// etcd's JSON of a member.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Told {
    /// Its id.
    pub id: u64,
    /// Where other members reach it.
    #[serde(rename = "peerURLs", default)]
    pub peer_urls: Option<Vec<String>>,
    /// Whether it has no vote.
    #[serde(rename = "isLearner", default)]
    pub is_learner: bool,
    /// Empty until it has started.
    #[serde(default)]
    pub name: String,
    /// Where clients reach it; none until it has started.
    #[serde(rename = "clientURLs", default)]
    pub client_urls: Option<Vec<String>>,
}
