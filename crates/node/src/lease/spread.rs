//! Leases whose time begins anew together end one after the other.

use std::collections::BTreeMap;

const SECOND_US: u64 = 1_000_000;
/// How many may end in one second: fewer than are revoked in one, so that those that end at that time anyway do not
/// wait for them (etcd: lessor.go, three quarters of 1,000).
const PER_SECOND_MAX: u64 = 750;

/// Gives out the seconds after a promotion, each to a bounded number of leases. What it gives is never before what was
/// asked for.
///
/// etcd sorts all leases by their ends and delays those that stand too close; here each takes the first place that is
/// free, so that leases can be taken in any order, a few at a time.
#[derive(Debug, Default)]
pub(super) struct Spread {
    seconds: BTreeMap<u64, Second>,
}

#[derive(Debug)]
struct Second {
    given: u64,
    /// All seconds from this one to before that one are full.
    next: u64,
}

impl Spread {
    /// The end of a lease that would end at `at_us`.
    pub(super) fn place(&mut self, at_us: u64) -> u64 {
        let wanted = at_us / SECOND_US;
        let second = self.first_with_room(wanted);
        let taken = self.seconds.entry(second).or_insert(Second { given: 0, next: second });
        let place_us = second * SECOND_US + taken.given * (SECOND_US / PER_SECOND_MAX);
        taken.given += 1;
        if taken.given == PER_SECOND_MAX {
            taken.next = second + 1;
        }
        // Within its own second a lease stays where it is.
        at_us.max(place_us)
    }

    fn first_with_room(&mut self, wanted: u64) -> u64 {
        let mut found = wanted;
        while let Some(next) = self.seconds.get(&found).map(|second| second.next).filter(|next| *next > found)
        {
            found = next;
        }
        // Whoever comes this way again goes straight there.
        let mut at = wanted;
        while at < found
            && let Some(second) = self.seconds.get_mut(&at)
        {
            at = std::mem::replace(&mut second.next, found);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_gets_more_than_its_share_and_nobody_ends_before_its_time() {
        let mut spread = Spread::default();
        let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
        let mut furthest = 0;
        for n in 0..10_000_u64 {
            let at_us = SECOND_US * (60 + n % 3) + 7 * n;
            let end_us = spread.place(at_us);
            assert!(end_us >= at_us);
            *ends.entry(end_us / SECOND_US).or_default() += 1;
            furthest = furthest.max(end_us);
        }
        assert!(ends.values().all(|count| *count <= PER_SECOND_MAX), "{ends:?}");
        // As close together as that allows.
        assert!(furthest < SECOND_US * (60 + 10_000_u64.div_ceil(PER_SECOND_MAX)), "{furthest}");
    }

    #[test]
    fn those_that_stand_apart_stay_where_they_are() {
        let mut spread = Spread::default();
        for n in 0..5_000_u64 {
            let at_us = SECOND_US * n + n;
            assert_eq!(spread.place(at_us), at_us);
        }
    }
}
