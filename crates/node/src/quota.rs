//! The quota: how much a member's store may take, and the alarm that says when it does (rule 18).
//!
//! What would go beyond it is refused before it is proposed (etcd: v3rpc/quota.go). What goes beyond it all the same, since
//! another member has proposed it, is done, and the alarm is raised behind it (rule 15).

use raft::Time;
use store::{Alarms, Reader};
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{AlarmRequest, AlarmType};

use crate::RequestId;

/// What `--quota-backend-bytes` is when it is 0.
pub const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;

/// How soon a proposal that was refused, or whose fate is unknown, is looked at again, and how often the size is.
const LOOK_INTERVAL_MS: u64 = 1_000;
/// When a proposal counts as lost.
const LOST_MS: u64 = 7_000;
/// How much of the quota a store may take to be small.
const SMALL_PERCENT: u128 = 90;

/// How much a store may take, if that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota(Option<u64>);

impl Quota {
    /// No limit.
    pub const OFF: Quota = Quota(None);

    /// As `--quota-backend-bytes` says it: 0 is [`QUOTA_BYTES_DEFAULT`], and less is no limit.
    pub fn of_setting(bytes: i64) -> Quota {
        match u64::try_from(bytes) {
            Ok(0) => Quota(Some(QUOTA_BYTES_DEFAULT)),
            bytes => Quota(bytes.ok()),
        }
    }

    /// The limit, bytes.
    pub fn bytes(&self) -> Option<u64> {
        self.0
    }

    /// Whether a request of this cost may be added to a store of this size. What costs nothing always may.
    pub fn has_room(&self, size_bytes: u64, cost: u64) -> bool {
        cost == 0 || self.0.is_none_or(|quota| size_bytes.saturating_add(cost) < quota)
    }

    /// Whether a store of this size is so small that the alarm may end by itself.
    fn is_small(&self, size_bytes: u64) -> bool {
        let is_below = |quota: u64| u128::from(size_bytes) * 100 < u128::from(quota) * SMALL_PERCENT;
        self.0.is_none_or(is_below)
    }
}

/// Raises this member's CORRUPT when something stored cannot be read and nobody else has it; its NOSPACE when apply went
/// beyond the quota, and ends it when there has been room for long enough.
pub(crate) struct SpaceKeeper {
    member_id: u64,
    quota: Quota,
    /// How long the store must have been small for its own alarm to end by itself; `None`: it does not.
    clears_ms: Option<u64>,
    reader: Reader,
    /// Whether this member's alarm is on, and whether any member's is.
    is_on: bool,
    is_any_on: bool,
    /// Apply went beyond the quota while no alarm was on.
    is_wanted: bool,
    /// Something stored cannot be read.
    has_lost_data: bool,
    /// Whether this member's CORRUPT is on.
    is_corrupt: bool,
    under_way: Option<(RequestId, Time)>,
    small_since: Option<Time>,
    look_at: Time,
}

impl std::fmt::Debug for SpaceKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpaceKeeper").field("is_on", &self.is_on).field("is_wanted", &self.is_wanted).finish()
    }
}

impl SpaceKeeper {
    pub(crate) fn new(member_id: u64, quota: Quota, clears_ms: Option<u64>, reader: Reader) -> Self {
        let mut keeper = SpaceKeeper {
            member_id,
            quota,
            clears_ms,
            is_on: false,
            is_any_on: false,
            is_wanted: false,
            has_lost_data: false,
            is_corrupt: false,
            under_way: None,
            small_since: None,
            look_at: Time(0),
            reader,
        };
        let alarms = keeper.reader.alarms();
        keeper.alarms(&alarms);
        keeper
    }

    /// The alarms are these from now on.
    pub(crate) fn alarms(&mut self, alarms: &Alarms) {
        self.is_on = alarms.contains(AlarmType::Nospace, self.member_id);
        self.is_any_on = alarms.has(AlarmType::Nospace);
        self.is_corrupt = alarms.contains(AlarmType::Corrupt, self.member_id);
        // Turned off by hand it stays off, until something else cannot be read.
        self.has_lost_data &= !self.is_corrupt;
        self.is_wanted &= !self.is_any_on;
        self.small_since = None;
    }

    /// Something that is stored cannot be read.
    pub(crate) fn data_lost(&mut self) {
        self.has_lost_data = !self.is_corrupt;
        self.look_at = Time(0);
    }

    /// Whether something that is stored cannot be read, and no alarm says so yet.
    pub(crate) fn has_lost_data(&self) -> bool {
        self.has_lost_data
    }

    /// A batch is applied, which went beyond the quota or not, and in which this member's own proposals were these.
    pub(crate) fn applied(&mut self, now: Time, is_exceeded: bool, own: &[RequestId]) {
        self.under_way.take_if(|(id, _)| own.contains(id));
        if is_exceeded && !self.is_any_on && !self.is_wanted {
            self.is_wanted = true;
            self.look_at = now;
        }
    }

    /// Whether the refused proposal was one of these. It comes again.
    pub(crate) fn refused(&mut self, id: RequestId) -> bool {
        self.under_way.take_if(|(proposed, _)| *proposed == id).is_some()
    }

    /// Leadership changed: what is under way may be lost.
    pub(crate) fn leadership(&mut self) {
        self.under_way = None;
    }

    /// When [`SpaceKeeper::next`] may have something to do.
    pub(crate) fn deadline(&self) -> Time {
        if self.is_wanted || self.has_lost_data || (self.is_on && self.clears_ms.is_some()) {
            self.look_at
        } else {
            Time::NEVER
        }
    }

    /// What is to be proposed now, if anything. `may_clear`: all other members know that alarms may end by themselves, and
    /// the disk has room.
    pub(crate) fn next(&mut self, now: Time, may_clear: bool) -> Option<AlarmRequest> {
        if now < self.deadline() {
            return None;
        }
        self.look_at = now.plus_ms(LOOK_INTERVAL_MS);
        self.under_way.take_if(|(_, lost_at)| *lost_at <= now);
        let mut kind = AlarmType::Nospace;
        // Also where it may not clear: how long it has been small is counted on.
        let is_small = self.is_small_for_long(now);
        let action = if self.under_way.is_some() {
            return None;
        } else if self.has_lost_data {
            kind = AlarmType::Corrupt;
            AlarmAction::Activate
        } else if self.is_wanted {
            AlarmAction::Activate
        } else if may_clear && is_small {
            AlarmAction::Deactivate
        } else {
            return None;
        };
        let (action, alarm) = (action as i32, kind as i32);
        Some(AlarmRequest { action, member_id: self.member_id, alarm })
    }

    /// What [`SpaceKeeper::next`] has asked for is proposed.
    pub(crate) fn proposed(&mut self, now: Time, id: RequestId) {
        self.under_way = Some((id, now.plus_ms(LOST_MS)));
    }

    fn is_small_for_long(&mut self, now: Time) -> bool {
        if !self.quota.is_small(self.reader.size_bytes()) {
            self.small_since = None;
            return false;
        }
        let since = *self.small_since.get_or_insert(now);
        self.clears_ms.is_some_and(|clears_ms| now >= since.plus_ms(clears_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_read_as_etcd_reads_it() {
        assert_eq!(Quota::of_setting(0).bytes(), Some(2 << 30));
        assert_eq!(Quota::of_setting(16).bytes(), Some(16));
        assert_eq!(Quota::of_setting(-1), Quota::OFF);
        assert_eq!(Quota::of_setting(i64::MIN), Quota::OFF);
    }

    #[test]
    fn there_is_room_up_to_one_byte_below_the_quota() {
        let quota = Quota::of_setting(1000);
        assert!(quota.has_room(900, 99) && !quota.has_room(900, 100));
        assert!(quota.has_room(5000, 0), "a delete costs nothing");
        assert!(!quota.has_room(u64::MAX, u64::MAX));
        assert!(Quota::OFF.has_room(u64::MAX, u64::MAX));
    }
}
