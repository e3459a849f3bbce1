//! Request ids: never reused, and each tells which lane it came from.

use crate::RequestId;

/// Ids of one run are counted from entropy in steps, one residue a lane. More than this many from the start are
/// not ours; so entries of earlier runs and of other members are told apart (by chance of 2^-24 not, in which
/// case the lane finds no waiter and ignores them).
const ISSUED_MAX: u64 = 1 << 40;

/// Deals out the generators of one run: one for each lane, that is for each thread that makes requests.
///
/// All ids of a run come from one 64-bit counter started from entropy (rule 19), so that no id of an earlier run
/// or of another member can be taken for one of this run.
#[derive(Clone, Copy, Debug)]
pub struct RequestIds {
    base: u64,
    lanes: u64,
}

impl RequestIds {
    /// Ids for `lanes` lanes. `entropy` must come from the system's random source, never from a constant.
    ///
    /// # Panics
    /// If there is no lane.
    pub fn new(entropy: u64, lanes: usize) -> Self {
        assert!(lanes > 0, "at least one lane");
        RequestIds { base: entropy, lanes: lanes as u64 }
    }

    /// The generator of one lane.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn lane(&self, lane: usize) -> LaneIds {
        assert!((lane as u64) < self.lanes, "lane {lane} of {}", self.lanes);
        LaneIds { next: self.base.wrapping_add(lane as u64), step: self.lanes }
    }

    /// Whether an id of a lane was made before another of the same lane, or is the same.
    pub(crate) fn is_at_or_before(&self, id: RequestId, other: RequestId) -> bool {
        id.0.wrapping_sub(self.base) <= other.0.wrapping_sub(self.base)
    }

    /// The lane that made this id; `None` if this run did not make it.
    pub fn origin(&self, id: RequestId) -> Option<usize> {
        let offset = id.0.wrapping_sub(self.base);
        (offset / self.lanes < ISSUED_MAX).then_some((offset % self.lanes) as usize)
    }
}

/// The ids of one lane.
#[derive(Clone, Debug)]
pub struct LaneIds {
    next: u64,
    step: u64,
}

impl LaneIds {
    /// The next id; never 0, which etcd reads as "no id".
    #[expect(clippy::should_implement_trait, reason = "it never ends, and needs no Option")]
    pub fn next(&mut self) -> RequestId {
        loop {
            let id = self.next;
            self.next = self.next.wrapping_add(self.step);
            if id != 0 {
                return RequestId(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_19_ids_are_distinct_and_name_their_lane() {
        for base in [0, 1, 77, u64::MAX - 5] {
            let ids = RequestIds::new(base, 3);
            let mut seen = std::collections::BTreeSet::new();
            for lane in 0..3 {
                let mut generator = ids.lane(lane);
                for _ in 0..10 {
                    let id = generator.next();
                    assert_ne!(id.0, 0);
                    assert!(seen.insert(id), "{id:?} twice");
                    // Where the counter wraps, the residue shifts: ids stay distinct, their origin need not be right.
                    if base < u64::MAX / 2 {
                        assert_eq!(ids.origin(id), Some(lane));
                    }
                }
            }
        }
    }

    #[test]
    fn an_id_of_another_run_is_not_ours() {
        let ids = RequestIds::new(1 << 50, 2);
        assert_eq!(ids.origin(RequestId((1 << 50) - 1)), None);
        assert_eq!(ids.origin(RequestId(7)), None);
    }
}
