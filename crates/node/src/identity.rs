//! Who this member is: ids derived from addresses, as etcd derives them.

use sha1::{Digest, Sha1};

/// One member as `--initial-cluster` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Its peer URLs; order does not matter.
    pub peer_urls: Vec<String>,
}

/// The ids of a member and of its cluster. They never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster_id: u64,
    /// This member's id.
    pub member_id: u64,
}

/// A member's id at bootstrap: the first 8 bytes, big endian, of SHA-1 over its sorted peer URLs and the cluster
/// token (etcd: membership/member.go).
pub fn member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut hash = Sha1::new();
    hash_urls(&mut hash, peer_urls);
    hash.update(token);
    first_eight(hash)
}

pub(crate) fn hash_urls(hash: &mut Sha1, peer_urls: &[String]) {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    urls.into_iter().for_each(|url| hash.update(url));
}

/// A cluster's id: the same over the sorted ids of its first members (etcd: membership/cluster.go).
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut ids = member_ids.to_vec();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.to_be_bytes());
    }
    first_eight(hash)
}

pub(crate) fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("SHA-1 has 20 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What etcd 3.7.1 logs for `--name default` with its default URLs and token.
    #[test]
    fn the_default_member_has_etcds_ids() {
        let id = member_id(&["http://localhost:2380".into()], "etcd-cluster");
        assert_eq!(format!("{id:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id(&[id])), "cdf818194e3a8c32");
    }

    #[test]
    fn order_does_not_matter() {
        let (a, b) = ("http://a:1".to_owned(), "http://b:1".to_owned());
        assert_eq!(member_id(&[a.clone(), b.clone()], "t"), member_id(&[b, a], "t"));
        assert_eq!(cluster_id(&[1, 2]), cluster_id(&[2, 1]));
    }
}
