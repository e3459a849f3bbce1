//! Alarms as replicated state: which are on, for which members, and what each of them refuses.

use std::collections::BTreeSet;

use wire::ApiError;
use wire::etcdserverpb::{AlarmMember, AlarmType};

use crate::apply::Kind;

/// The alarms that are on. Kinds are kept as numbers: a later version may know more of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms(BTreeSet<(i32, u64)>);

impl Alarms {
    /// Those of a kind, of any member; with [`AlarmType::None`] all. In ascending order of kind and member.
    pub fn of(&self, kind: i32) -> impl Iterator<Item = AlarmMember> + '_ {
        let is_wanted = move |alarm: &&(i32, u64)| kind == AlarmType::None as i32 || alarm.0 == kind;
        self.0
            .iter()
            .filter(is_wanted)
            .map(|(alarm, member_id)| AlarmMember { member_id: *member_id, alarm: *alarm })
    }

    /// All of them, as [`Alarms::of`].
    pub fn iter(&self) -> impl Iterator<Item = AlarmMember> + '_ {
        self.of(AlarmType::None as i32)
    }

    /// Whether one of this kind is on, of any member.
    pub fn has(&self, kind: AlarmType) -> bool {
        self.0.range((kind as i32, 0)..=(kind as i32, u64::MAX)).next().is_some()
    }

    /// Whether this very one is on.
    pub fn contains(&self, kind: AlarmType, member_id: u64) -> bool {
        self.0.contains(&(kind as i32, member_id))
    }

    /// Whether none is on.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Turns one on; whether it was off. [`AlarmType::None`] is none.
    pub(crate) fn activate(&mut self, alarm: AlarmMember) -> bool {
        alarm.alarm != AlarmType::None as i32 && self.0.insert((alarm.alarm, alarm.member_id))
    }

    /// Turns this very one off; whether it was on.
    pub(crate) fn deactivate(&mut self, alarm: AlarmMember) -> bool {
        self.0.remove(&(alarm.alarm, alarm.member_id))
    }

    /// Why a request is refused while these are on, whichever members they name: CORRUPT before NOSPACE, and both before
    /// anything else is looked at (etcd: apply/corrupt.go, apply/capped.go).
    pub(crate) fn refusal(&self, request: &Kind<'_>) -> Option<ApiError> {
        if self.is_empty() {
            return None;
        }
        let is_refused = match request {
            Kind::Range(_)
            | Kind::Put(_)
            | Kind::DeleteRange(_)
            | Kind::Txn(_)
            | Kind::Compaction(_)
            | Kind::LeaseGrant(_)
            | Kind::LeaseRevoke(_) => true,
            Kind::ClusterVersionSet(_)
            | Kind::DowngradeInfoSet(_)
            | Kind::ClusterMemberAttrSet(_)
            | Kind::LeaseCheckpoint(_)
            | Kind::DowngradeVersionTest
            | Kind::Alarm(_)
            | Kind::Auth(_) => false,
        };
        if is_refused && self.has(AlarmType::Corrupt) {
            return Some(ApiError::Corrupt);
        }
        (request.grows() && self.has(AlarmType::Nospace)).then_some(ApiError::NoSpace)
    }
}

impl FromIterator<AlarmMember> for Alarms {
    fn from_iter<I: IntoIterator<Item = AlarmMember>>(alarms: I) -> Self {
        let mut all = Alarms::default();
        for alarm in alarms {
            all.activate(alarm);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_listed_by_kind() {
        let alarm = |kind: i32, member_id| AlarmMember { member_id, alarm: kind };
        let alarms: Alarms =
            [alarm(2, 0), alarm(1, u64::MAX), alarm(1, 7), alarm(0, 7), alarm(9, 1)].into_iter().collect();
        let list = |kind| alarms.of(kind).collect::<Vec<_>>();
        assert_eq!(list(0), [alarm(1, 7), alarm(1, u64::MAX), alarm(2, 0), alarm(9, 1)]);
        assert_eq!(list(1), [alarm(1, 7), alarm(1, u64::MAX)]);
        assert_eq!(list(9), [alarm(9, 1)]);
        assert!(alarms.has(AlarmType::Nospace) && alarms.has(AlarmType::Corrupt));
        assert!(alarms.contains(AlarmType::Corrupt, 0) && !alarms.contains(AlarmType::Corrupt, 7));
    }
}
