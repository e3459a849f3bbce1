//! Who this member is to others, and the check that both ends of every exchange make of each other: etcd's headers.

use http::request::Builder;
use http::{HeaderMap, HeaderName, HeaderValue};
use raft::NodeId;
use wire::version;

pub(super) const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(super) const SERVER_FROM: HeaderName = HeaderName::from_static("x-server-from");
pub(super) const SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
pub(super) const MIN_CLUSTER_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
pub(super) const RAFT_TO: HeaderName = HeaderName::from_static("x-raft-to");
pub(super) const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");

/// What etcd takes for the version of a member that says none.
const OLDEST: &str = "2.0.0";

/// Who this member is. None of it changes while it runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The member's id.
    pub member_id: NodeId,
    /// The cluster's id.
    pub cluster_id: u64,
    /// Where this member is reached by its peers: told to them, so that one that has not heard of us yet can answer.
    pub peer_urls: Vec<String>,
}

/// Why a request is refused with 412. The texts are etcd's, and are read by the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    /// One of the two is too old for the other.
    #[error("incompatible version")]
    Version,
    /// It is for another cluster.
    #[error("cluster ID mismatch")]
    Cluster,
}

impl Identity {
    /// The headers of every request.
    pub(super) fn sign(&self, request: Builder) -> Builder {
        request
            .header(SERVER_FROM, self.member_id.to_string())
            .header(SERVER_VERSION, version::ETCD)
            .header(MIN_CLUSTER_VERSION, version::CLUSTER_MIN)
            .header(CLUSTER_ID, self.cluster())
            .header(PEER_URLS, self.peer_urls.join(","))
    }

    /// The cluster's id as headers have it.
    pub(super) fn cluster(&self) -> HeaderValue {
        header(self.cluster_id)
    }

    /// Whether a request is one of this cluster, from a version that can work with ours.
    ///
    /// # Errors
    /// What the sender is to be told.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Incompatible> {
        let stated = |name: HeaderName| {
            major_minor(text(headers, &name).filter(|text| !text.is_empty()).unwrap_or(OLDEST))
        };
        let ours = |text| major_minor(text).expect("our own versions are versions");
        // Go's etcd cuts the connection at a version that is none.
        let server = stated(SERVER_VERSION).ok_or(Incompatible::Version)?;
        let cluster_min = stated(MIN_CLUSTER_VERSION).ok_or(Incompatible::Version)?;
        if server < ours(version::CLUSTER_MIN) || cluster_min > ours(version::ETCD) {
            return Err(Incompatible::Version);
        }
        match text(headers, &CLUSTER_ID) == Some(&format!("{:x}", self.cluster_id)) {
            true => Ok(()),
            false => Err(Incompatible::Cluster),
        }
    }
}

/// A header's text; none if it is no text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// An id as headers have it.
pub(super) fn header(id: u64) -> HeaderValue {
    HeaderValue::try_from(format!("{id:x}")).expect("digits make a header")
}

/// An id as etcd writes it, in hexadecimal.
pub(super) fn id(text: &str) -> Option<NodeId> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_plain).map(NodeId)
}

/// The sender and where it says that it is reached.
pub(super) fn sender(headers: &HeaderMap) -> Option<(NodeId, Vec<String>)> {
    let urls = peer_urls(headers)?;
    Some((text(headers, &SERVER_FROM).and_then(id)?, urls))
}

/// Where the sender says that it is reached.
pub(super) fn peer_urls(headers: &HeaderMap) -> Option<Vec<String>> {
    let urls = text(headers, &PEER_URLS).filter(|urls| !urls.is_empty())?;
    Some(urls.split(',').map(str::to_owned).collect())
}

/// The first two numbers of `X.Y.Z`, with anything behind a `-` or `+`.
fn major_minor(text: &str) -> Option<(u64, u64)> {
    let core = text.split(['-', '+']).next()?;
    let mut numbers = core.split('.').map(|number| number.parse::<u64>().ok());
    let (major, minor, patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let _ = patch;
    numbers.next().is_none().then_some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(server: &str, min: &str, cluster: &str) -> HeaderMap {
        let pairs = [(SERVER_VERSION, server), (MIN_CLUSTER_VERSION, min), (CLUSTER_ID, cluster)];
        let set = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        set.map(|(name, value)| (name, HeaderValue::try_from(value).unwrap())).collect()
    }

    #[test]
    fn who_may_talk_to_us() {
        let us = Identity { member_id: NodeId(1), cluster_id: 0xabc, peer_urls: vec![] };
        let check = |server, min, cluster| us.check(&headers(server, min, cluster));
        assert_eq!(check("3.7.1", "3.0.0", "abc"), Ok(()));
        assert_eq!(check("3.4.0-rc.1", "3.0.0", "abc"), Ok(()));
        assert_eq!(check("4.0.0", "3.7.9", "abc"), Ok(()));
        assert_eq!(check("4.0.0", "3.8.0", "abc"), Err(Incompatible::Version), "we are too old");
        assert_eq!(check("2.3.7", "3.0.0", "abc"), Err(Incompatible::Version), "it is too old");
        assert_eq!(check("", "", "abc"), Err(Incompatible::Version), "etcd 2.0 said nothing");
        assert_eq!(check("3.7", "3.0.0", "abc"), Err(Incompatible::Version), "no version");
        assert_eq!(check("3.7.1", "", "ABC"), Err(Incompatible::Cluster));
        assert_eq!(check("3.7.1", "", ""), Err(Incompatible::Cluster));
    }

    #[test]
    fn ids_are_hexadecimal() {
        assert_eq!(id("8e9e05c52164694d"), Some(NodeId(0x8e9e_05c5_2164_694d)));
        for bad in ["", "+1", "x", "8e9e05c52164694d0"] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }
}
