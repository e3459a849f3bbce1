//! The version that all members of a cluster agree on: decided by the leader, the lowest that any of them has, and raised
//! as they are (etcd: version/monitor.go).

use std::collections::BTreeMap;

use disk::boltfile::schema::Version;
use raft::{NodeId, Time};

/// How long a new leader waits to hear of all members' versions before it begins with the lowest there is.
const PATIENCE_MS: u64 = 5_000;

/// What a leader decides the version by.
#[derive(Debug)]
pub(crate) struct ClusterVersion {
    /// As applied.
    current: Option<Version>,
    /// The versions of other members' servers, as far as known.
    members: BTreeMap<u64, Version>,
    /// Until when a leader waits to hear of all of them.
    decide_at: Time,
}

impl ClusterVersion {
    pub(crate) fn new(current: Option<Version>) -> Self {
        ClusterVersion { current, members: BTreeMap::new(), decide_at: Time::NEVER }
    }

    pub(crate) fn applied(&mut self, version: Option<Version>) {
        self.current = version;
    }

    pub(crate) fn heard(&mut self, members: BTreeMap<u64, Version>) {
        self.members = members;
    }

    /// This member begins to lead, or ceases to.
    pub(crate) fn leads(&mut self, now: Time, is_leader: bool) {
        self.decide_at = if is_leader { now.plus_ms(PATIENCE_MS) } else { Time::NEVER };
    }

    /// When [`ClusterVersion::decide`] may have more to say though nothing was heard.
    pub(crate) fn deadline(&self) -> Time {
        if self.current.is_none() { self.decide_at } else { Time::NEVER }
    }

    /// What a leader of these members is to propose, if that is another version than the present one.
    pub(crate) fn decide<'a>(
        &mut self,
        now: Time,
        own: NodeId,
        mut all: impl Iterator<Item = &'a NodeId>,
    ) -> Option<String> {
        let own_version = parse(wire::version::CLUSTER).expect("ours is a version");
        let lowest = all.try_fold(own_version, |lowest, id| {
            let version = if *id == own { Some(&own_version) } else { self.members.get(&id.0) };
            version.map(|version| lowest.min(Version { patch: 0, ..*version }))
        });
        let chosen = match (self.current, lowest) {
            (None, Some(lowest)) => lowest,
            (None, None) if self.decide_at <= now => {
                self.decide_at = Time::NEVER;
                parse(wire::version::CLUSTER_MIN).expect("ours is a version")
            }
            (Some(current), Some(lowest)) if current < lowest && current.major == lowest.major => lowest,
            _ => return None,
        };
        Some(chosen.to_string())
    }
}

/// A cluster's version without what follows the second number.
pub(crate) fn parse(text: &str) -> Option<Version> {
    text.parse().ok().map(|version: Version| Version { patch: 0, ..version })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().expect("a version")
    }

    #[test]
    fn the_lowest_version_that_any_member_has() {
        let members = [NodeId(1), NodeId(2)];
        let mut cluster = ClusterVersion::new(None);
        cluster.leads(Time(0), true);
        assert_eq!(cluster.decide(Time(1), NodeId(1), members.iter()), None, "member 2 is unknown");
        assert_eq!(cluster.decide(cluster.deadline(), NodeId(1), members.iter()).as_deref(), Some("3.0.0"));
        cluster.applied(Some(version("3.0.0")));
        cluster.heard(BTreeMap::from([(2, version("3.6.9"))]));
        assert_eq!(cluster.decide(Time(2), NodeId(1), members.iter()).as_deref(), Some("3.6.0"));
        cluster.applied(Some(version("3.6.0")));
        assert_eq!(cluster.decide(Time(3), NodeId(1), members.iter()), None, "nothing has changed");
        cluster.heard(BTreeMap::from([(2, version("3.7.2"))]));
        assert_eq!(cluster.decide(Time(4), NodeId(1), members.iter()).as_deref(), Some("3.7.0"));
        cluster.applied(Some(version("3.7.0")));
        cluster.heard(BTreeMap::from([(2, version("3.6.9"))]));
        assert_eq!(cluster.decide(Time(5), NodeId(1), members.iter()), None, "only a downgrade lowers it");
    }

    #[test]
    fn a_member_that_is_alone_decides_at_once() {
        let mut cluster = ClusterVersion::new(None);
        cluster.leads(Time(0), true);
        let decided = cluster.decide(Time(0), NodeId(1), [NodeId(1)].iter());
        assert_eq!(decided.as_deref(), Some(wire::version::CLUSTER));
    }
}
