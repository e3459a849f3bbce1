//! The version that all members of a cluster agree on: decided by the leader, the lowest that any of them has, and raised
//! as they are; lowered by one where a downgrade is asked for, which ends once all members run that version (etcd:
//! version/monitor.go).

use std::collections::BTreeMap;

use disk::boltfile::schema::Version;
use raft::{NodeId, Time};
use store::Membership;

/// How long a new leader waits to hear of all members' versions before it begins with the lowest there is.
const PATIENCE_MS: u64 = 5_000;

/// What a leader decides the version by.
#[derive(Debug)]
pub(crate) struct ClusterVersion {
    /// As applied.
    current: Option<Version>,
    /// The version of a downgrade that is under way, as applied.
    downgrade: Option<Version>,
    /// A downgrade began or ended, and what follows from it is not decided before this: who asked for it is told of the
    /// version before, and may yet take it back.
    settled_at: Time,
    /// How often a leader looks whether a downgrade is over; 0 for never.
    downgrade_check_ms: u64,
    /// When it looks next; never while none is under way.
    check_at: Time,
    is_leader: bool,
    /// The versions of other members' servers, as far as known.
    members: BTreeMap<u64, Version>,
    /// Until when a leader waits to hear of all of them.
    decide_at: Time,
}

impl ClusterVersion {
    pub(crate) fn new(agreed: Agreed, downgrade_check_ms: u64) -> Self {
        ClusterVersion {
            current: agreed.version,
            downgrade: agreed.downgrade,
            settled_at: Time(0),
            downgrade_check_ms,
            check_at: Time::NEVER,
            is_leader: false,
            members: BTreeMap::new(),
            decide_at: Time::NEVER,
        }
    }

    pub(crate) fn applied(&mut self, now: Time, agreed: Agreed) {
        self.current = agreed.version;
        if self.downgrade != agreed.downgrade {
            self.downgrade = agreed.downgrade;
            self.settled_at = now.plus_ms(PATIENCE_MS);
            self.await_check(now);
        }
    }

    fn await_check(&mut self, now: Time) {
        let checks = self.is_leader && self.downgrade.is_some() && self.downgrade_check_ms > 0;
        self.check_at = if checks { now.plus_ms(self.downgrade_check_ms) } else { Time::NEVER };
    }

    pub(crate) fn heard(&mut self, members: BTreeMap<u64, Version>) {
        self.members = members;
    }

    /// This member begins to lead, or ceases to.
    pub(crate) fn leads(&mut self, now: Time, is_leader: bool) {
        self.is_leader = is_leader;
        // What was heard in an earlier leadership may have changed since.
        self.members.clear();
        self.decide_at = if is_leader { now.plus_ms(PATIENCE_MS) } else { Time::NEVER };
        self.await_check(now);
    }

    /// When [`ClusterVersion::decide`] may have more to say though nothing was heard.
    pub(crate) fn deadline(&self) -> Time {
        let decide_at = if self.current.is_none() { self.decide_at } else { Time::NEVER };
        let settled_at = match self.is_leader && self.settled_at > Time(0) {
            true => self.settled_at,
            false => Time::NEVER,
        };
        decide_at.min(settled_at).min(self.check_at)
    }

    /// Whether a leader of these members is to end the downgrade: all of them run its version.
    pub(crate) fn downgrade_is_over<'a>(
        &mut self,
        now: Time,
        own: NodeId,
        mut all: impl Iterator<Item = &'a NodeId>,
    ) -> bool {
        let Some(target) = self.downgrade.filter(|_| self.check_at <= now) else { return false };
        self.await_check(now);
        let own_version = own_version();
        all.all(|id| {
            let version = if *id == own { Some(&own_version) } else { self.members.get(&id.0) };
            version.is_some_and(|version| (version.major, version.minor) == (target.major, target.minor))
        })
    }

    /// What a leader of these members is to propose, if that is another version than the present one.
    pub(crate) fn decide<'a>(
        &mut self,
        now: Time,
        own: NodeId,
        mut all: impl Iterator<Item = &'a NodeId>,
    ) -> Option<String> {
        if self.settled_at > now && self.current.is_some() {
            return None;
        }
        self.settled_at = Time(0);
        let own_version = own_version();
        let lowest = all.try_fold(own_version, |lowest, id| {
            let version = if *id == own { Some(&own_version) } else { self.members.get(&id.0) };
            version.map(|version| lowest.min(Version { patch: 0, ..*version }))
        });
        let is_overdue = self.decide_at <= now;
        if is_overdue {
            self.decide_at = Time::NEVER;
        }
        let chosen = match (self.current, lowest) {
            (None, Some(lowest)) => lowest,
            (None, None) if is_overdue => parse(wire::version::CLUSTER_MIN).expect("ours is a version"),
            (Some(current), Some(lowest)) => match self.downgrade {
                Some(target) if is_one_below(target, current) && is_one_below(target, lowest) => target,
                None if current < lowest && current.major == lowest.major => lowest,
                _ => return None,
            },
            _ => return None,
        };
        Some(chosen.to_string())
    }
}

/// What the members have agreed on, as applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// The cluster's version.
    pub version: Option<Version>,
    /// The version of a downgrade that is under way.
    pub downgrade: Option<Version>,
}

impl From<&Membership> for Agreed {
    fn from(membership: &Membership) -> Self {
        Agreed {
            version: membership.cluster_version().and_then(parse),
            downgrade: membership.downgrade_target().and_then(parse),
        }
    }
}

fn own_version() -> Version {
    parse(wire::version::CLUSTER).expect("ours is a version")
}

/// Whether a cluster may be lowered to `target` from this version.
fn is_one_below(target: Version, version: Version) -> bool {
    (target.major, Some(target.minor)) == (version.major, version.minor.checked_sub(1))
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
        let mut cluster = ClusterVersion::new(Agreed::default(), 0);
        let agree = |cluster: &mut ClusterVersion, text: &str| {
            cluster.applied(Time(1), Agreed { version: Some(version(text)), downgrade: None });
        };
        cluster.leads(Time(0), true);
        assert_eq!(cluster.decide(Time(1), NodeId(1), members.iter()), None, "member 2 is unknown");
        assert_eq!(cluster.decide(cluster.deadline(), NodeId(1), members.iter()).as_deref(), Some("3.0.0"));
        agree(&mut cluster, "3.0.0");
        cluster.heard(BTreeMap::from([(2, version("3.6.9"))]));
        assert_eq!(cluster.decide(Time(2), NodeId(1), members.iter()).as_deref(), Some("3.6.0"));
        agree(&mut cluster, "3.6.0");
        assert_eq!(cluster.decide(Time(3), NodeId(1), members.iter()), None, "nothing has changed");
        cluster.heard(BTreeMap::from([(2, version("3.7.2"))]));
        assert_eq!(cluster.decide(Time(4), NodeId(1), members.iter()).as_deref(), Some("3.7.0"));
        agree(&mut cluster, "3.7.0");
        cluster.heard(BTreeMap::from([(2, version("3.6.9"))]));
        assert_eq!(cluster.decide(Time(5), NodeId(1), members.iter()), None, "only a downgrade lowers it");
    }

    #[test]
    fn what_was_heard_in_an_earlier_leadership_decides_nothing() {
        let members = [NodeId(1), NodeId(2)];
        let agreed = Agreed { version: Some(version("3.6.0")), downgrade: None };
        let mut cluster = ClusterVersion::new(agreed, 0);
        cluster.leads(Time(0), true);
        cluster.heard(BTreeMap::from([(2, version("3.7.1"))]));
        cluster.leads(Time(1), false);
        cluster.leads(Time(2), true);
        assert_eq!(
            cluster.decide(Time(2), NodeId(1), members.iter()),
            None,
            "member 2 may be another one now"
        );
        cluster.heard(BTreeMap::from([(2, version("3.7.1"))]));
        assert_eq!(cluster.decide(Time(3), NodeId(1), members.iter()).as_deref(), Some("3.7.0"));
    }

    #[test]
    fn a_version_that_is_slow_to_be_agreed_on_leaves_no_deadline_behind() {
        let mut cluster = ClusterVersion::new(Agreed::default(), 0);
        cluster.leads(Time(0), true);
        let later = cluster.deadline();
        assert!(cluster.decide(later, NodeId(1), [NodeId(1)].iter()).is_some());
        assert!(cluster.deadline() > later, "it is proposed, and the disk may take its time");
    }

    #[test]
    fn a_member_that_is_alone_decides_at_once() {
        let mut cluster = ClusterVersion::new(Agreed::default(), 0);
        cluster.leads(Time(0), true);
        let decided = cluster.decide(Time(0), NodeId(1), [NodeId(1)].iter());
        assert_eq!(decided.as_deref(), Some(wire::version::CLUSTER));
    }

    #[test]
    fn a_downgrade_lowers_the_version_by_one_and_its_end_raises_it_again() {
        let members = [NodeId(1), NodeId(2)];
        let agreed = |text: &str, downgrade: Option<&str>| Agreed {
            version: Some(version(text)),
            downgrade: downgrade.map(version),
        };
        let mut cluster = ClusterVersion::new(agreed("3.7.0", None), 1_000);
        cluster.leads(Time(0), true);
        cluster.heard(BTreeMap::from([(2, version("3.7.1"))]));
        cluster.applied(Time(0), agreed("3.7.0", Some("3.6.0")));
        assert_eq!(cluster.decide(Time(1), NodeId(1), members.iter()), None, "it may yet be taken back");
        let check_at = cluster.deadline();
        assert_eq!(check_at, Time(0).plus_ms(1_000));
        assert!(!cluster.downgrade_is_over(check_at, NodeId(1), members.iter()), "nobody has gone down");
        let settled_at = Time(0).plus_ms(PATIENCE_MS);
        assert_eq!(cluster.decide(settled_at, NodeId(1), members.iter()).as_deref(), Some("3.6.0"));
        cluster.applied(settled_at, agreed("3.6.0", Some("3.6.0")));
        assert_eq!(cluster.decide(settled_at, NodeId(1), members.iter()), None, "it is there");
        cluster.applied(settled_at, agreed("3.6.0", None));
        assert_eq!(cluster.deadline(), settled_at.plus_ms(PATIENCE_MS), "nothing is left to look for");
        assert_eq!(cluster.decide(settled_at, NodeId(1), members.iter()), None);
        let later = cluster.deadline();
        assert_eq!(cluster.decide(later, NodeId(1), members.iter()).as_deref(), Some("3.7.0"));
        assert_eq!(cluster.deadline(), Time::NEVER);
    }

    #[test]
    fn the_version_falls_by_one_at_most_and_not_below_where_a_member_could_follow() {
        let members = [NodeId(1), NodeId(2)];
        for (current, lowest, target) in [("3.7.0", "3.7.1", "3.5.0"), ("3.7.0", "3.6.9", "3.6.0")] {
            let downgrade = Some(version(target));
            let agreed = Agreed { version: Some(version(current)), downgrade };
            let mut cluster = ClusterVersion::new(agreed, 1_000);
            cluster.leads(Time(0), true);
            cluster.heard(BTreeMap::from([(2, version(lowest))]));
            assert_eq!(cluster.decide(Time(1), NodeId(1), members.iter()), None, "{current} to {target}");
        }
    }

    /// A cluster of a later version that is downgraded to ours.
    #[test]
    fn a_downgrade_is_over_when_all_members_run_its_version() {
        let members = [NodeId(1), NodeId(2)];
        let own = Some(own_version());
        let mut cluster = ClusterVersion::new(Agreed { version: own, downgrade: own }, 1_000);
        cluster.leads(Time(0), true);
        let check_at = cluster.deadline();
        assert!(!cluster.downgrade_is_over(check_at, NodeId(1), members.iter()), "member 2 is unknown");
        cluster.heard(BTreeMap::from([(2, version("3.8.0"))]));
        let check_at = cluster.deadline();
        assert!(!cluster.downgrade_is_over(check_at, NodeId(1), members.iter()), "member 2 is above");
        cluster.heard(BTreeMap::from([(2, version("3.7.5"))]));
        assert!(!cluster.downgrade_is_over(check_at, NodeId(1), members.iter()), "not looked again");
        let check_at = cluster.deadline();
        assert!(cluster.downgrade_is_over(check_at, NodeId(1), members.iter()));
        cluster.leads(check_at, false);
        assert_eq!(cluster.deadline(), Time::NEVER, "who does not lead looks for nothing");
    }
}
