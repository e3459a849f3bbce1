//! What members tell of themselves and each other at `/version`, `/members` and `/members/promote/`.

use disk::boltfile::schema::Version;
use http::{HeaderMap, HeaderName, HeaderValue};
use raft::NodeId;
use serde::Deserialize;

use super::identity::{self, CLUSTER_ID};
use super::{Identity, Reply};

/// A version in the answer of `/version`: `etcdserver`, `etcdcluster`. `None` if it is not known there.
pub fn version_told(reply: &Reply, of: &str) -> Option<Version> {
    let versions: serde_json::Value = serde_json::from_slice(&reply.body).ok()?;
    versions[of].as_str()?.parse().ok()
}

/// By this header of `/version` members that run this program know each other. Those of Go's etcd pay no heed to it.
const PROGRAM: HeaderName = HeaderName::from_static("x-quorate-version");
/// And by this one, in hexadecimal, which of them answers.
const MEMBER_ID: HeaderName = HeaderName::from_static("x-quorate-member-id");

/// Marks an answer as one of this program's, of this member.
pub(super) fn mark_as_ours(headers: &mut HeaderMap, identity: &Identity) {
    headers.insert(PROGRAM, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    headers.insert(MEMBER_ID, identity::header(identity.member_id.0));
    headers.insert(CLUSTER_ID, identity.cluster());
}

/// Whether the member that was asked at `/version` has answered, not another one in its place, and runs this program.
pub fn is_ours(reply: &Reply, cluster_id: u64, member_id: u64) -> bool {
    let says = |name, id| identity::text(&reply.headers, &name).and_then(identity::id) == Some(NodeId(id));
    reply.headers.contains_key(PROGRAM) && says(CLUSTER_ID, cluster_id) && says(MEMBER_ID, member_id)
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
