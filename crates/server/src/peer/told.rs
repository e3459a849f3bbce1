//! What members tell of themselves and each other at `/version`, `/members` and `/members/promote/`.

use disk::boltfile::schema::Version;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::Reply;

/// A version in the answer of `/version`: `etcdserver`, `etcdcluster`. `None` if it is not known there.
pub fn version_told(reply: &Reply, of: &str) -> Option<Version> {
    let versions: serde_json::Value = serde_json::from_slice(&reply.body).ok()?;
    versions[of].as_str()?.parse().ok()
}

/// By this header of `/version` members that run this program know each other. Those of Go's etcd pay no heed to it.
const PROGRAM: HeaderName = HeaderName::from_static("x-quorate-version");

/// Marks an answer as one of this program's.
pub(super) fn mark_as_ours(headers: &mut http::HeaderMap) {
    headers.insert(PROGRAM, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
}

/// Whether whoever answered at `/version` runs this program.
pub fn is_ours(reply: &Reply) -> bool {
    reply.headers.contains_key(PROGRAM)
}

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
