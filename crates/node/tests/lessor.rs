//! The time of leases, on a simulated clock: what is left, in which order they end, and what a new leader makes of them.
#![allow(missing_docs, reason = "tests")]

use node::RequestId;
use node::lease::{LeaseEnd, Lessor, LessorSettings, Remaining, Renewal, Wait};
use raft::Time;
use store::{LeaseChange, LeaseTimes};

const HEARTBEAT_MS: u64 = 100;
const ELECTION_MS: u64 = 1_000;
const NONE: [i64; 0] = [];

/// A lessor, and the clock that it is driven by.
struct World {
    lessor: Lessor,
    now: Time,
}

impl World {
    /// A member with these leases, which does not lead.
    fn new(leases: &[(i64, i64)], checkpoints: bool) -> World {
        let settings = LessorSettings {
            heartbeat_interval_ms: HEARTBEAT_MS,
            election_timeout_ms: ELECTION_MS,
            checkpoints,
        };
        let now = Time::from_ms(5_000);
        let times = |ttl_s| LeaseTimes { granted_ttl_s: ttl_s, remaining_ttl_s: 0 };
        let leases = leases.iter().map(|(id, ttl_s)| (*id, times(*ttl_s)));
        World { lessor: Lessor::new(settings, now, leases), now }
    }

    /// A member that leads, without leases.
    fn leading() -> World {
        let mut world = World::new(&[], false);
        world.lead(2);
        world
    }

    fn lead(&mut self, term: u64) {
        assert_eq!(self.lessor.lead(term), []);
        self.apply(term, &[]);
    }

    fn apply(&mut self, term: u64, changes: &[LeaseChange]) -> Vec<RequestId> {
        let gone = self.lessor.applied(self.now, term, changes);
        self.lessor.check();
        gone
    }

    fn grant(&mut self, id: i64, ttl_s: i64) {
        self.apply(0, &[LeaseChange::Granted { id, ttl_s }]);
    }

    fn revoke(&mut self, id: i64) -> Vec<RequestId> {
        self.apply(0, &[LeaseChange::Revoked { id }])
    }

    fn checkpoint(&mut self, id: i64, remaining_ttl_s: i64) {
        self.apply(0, &[LeaseChange::Checkpointed { id, remaining_ttl_s }]);
    }

    /// Time passes for a process that runs.
    fn run_ms(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        while self.now < end {
            self.now = self.now.plus_ms(HEARTBEAT_MS).min(end);
            self.lessor.tick(self.now);
        }
        self.lessor.check();
    }

    /// The process is stopped.
    fn pause_ms(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    fn renew(&mut self, id: i64) -> Renewal {
        let renewal = self.lessor.renew(self.now, id);
        self.lessor.check();
        renewal
    }

    fn left(&mut self, id: i64) -> Option<i64> {
        match self.lessor.remaining(self.now, id) {
            Remaining::Left { ttl_s, .. } => Some(ttl_s),
            Remaining::NotFound => None,
            Remaining::NotPrimary => panic!("no time is counted"),
        }
    }

    fn take_ended(&mut self) -> Vec<LeaseEnd> {
        let mut ended = Vec::new();
        self.lessor.take_ended(usize::MAX, &mut ended);
        self.lessor.check();
        ended
    }

    fn ended(&mut self) -> Vec<i64> {
        self.take_ended().into_iter().map(|end| end.id).collect()
    }
}

#[test]
fn what_is_left_is_rounded_down_and_ends_at_exactly_the_ttl() {
    let mut world = World::leading();
    world.grant(1, 10);
    assert_eq!(world.left(1), Some(10));
    world.run_ms(1);
    assert_eq!(world.left(1), Some(9));
    world.run_ms(9_998);
    assert_eq!((world.left(1), world.ended()), (Some(0), vec![]));
    assert_eq!(world.lessor.ends_at(), world.now.plus_ms(1));
    world.run_ms(1);
    assert_eq!(world.lessor.remaining(world.now, 1), Remaining::Left { ttl_s: 0, granted_ttl_s: 10 });
    assert_eq!(world.ended(), [1]);
    assert_eq!(world.ended(), NONE, "handed out once");
    assert_eq!(world.left(1), Some(0), "it is there until it is revoked");
    world.revoke(1);
    assert_eq!(world.left(1), None);
}

#[test]
fn the_longest_ttl_does_not_overflow() {
    let mut world = World::leading();
    world.grant(-7, store::TTL_MAX_S);
    assert_eq!(world.renew(-7), Renewal::Renewed { ttl_s: store::TTL_MAX_S });
    assert_eq!(world.left(-7), Some(store::TTL_MAX_S));
    assert!(world.lessor.ends_at() > world.now && world.lessor.ends_at() < Time::NEVER);
}

#[test]
fn leases_end_in_the_order_of_their_ends() {
    let mut world = World::leading();
    for (id, ttl_s) in [(1, 9), (2, 3), (3, 5), (4, 3)] {
        world.grant(id, ttl_s);
    }
    world.run_ms(2_000);
    assert_eq!(world.renew(2), Renewal::Renewed { ttl_s: 3 });
    let mut list = Vec::new();
    assert_eq!(world.lessor.list(i64::MIN, 3, &mut list), Some(4));
    assert_eq!(world.lessor.list(4, 3, &mut list), None);
    list.sort_unstable();
    assert_eq!(list.iter().map(|end| end.id).collect::<Vec<_>>(), [4, 2, 3, 1]);
    world.run_ms(8_000);
    assert_eq!(world.ended(), [4, 2, 3, 1]);
}

/// Rule 14: a renewed lease is not revoked, and one that has ended is not renewed.
#[test]
fn a_renewal_comes_in_time_or_waits_for_the_end() {
    let mut world = World::leading();
    world.grant(1, 3);
    world.run_ms(2_999);
    assert_eq!(world.renew(1), Renewal::Renewed { ttl_s: 3 });
    world.run_ms(2_999);
    assert_eq!(world.ended(), NONE);
    world.run_ms(1);
    // By the clock, whether or not anybody has looked.
    assert_eq!(world.renew(1), Renewal::Ended);
    assert_eq!(world.lessor.wait_for_end(1, RequestId(7)), Wait::Waiting);
    let [end] = world.take_ended()[..] else { panic!("it has ended") };
    assert_eq!(world.renew(1), Renewal::Ended);
    assert!(world.lessor.begin_revoke(end));
    assert!(!world.lessor.begin_revoke(end), "proposed once");
    assert_eq!(world.renew(1), Renewal::Ended);
    assert_eq!(world.lessor.wait_for_end(1, RequestId(8)), Wait::Waiting);
    assert_eq!(world.revoke(1), [RequestId(7), RequestId(8)]);
    assert_eq!(world.renew(1), Renewal::NotFound);
    assert_eq!(world.lessor.wait_for_end(1, RequestId(9)), Wait::Gone);
}

#[test]
fn a_lease_granted_again_under_its_id_is_not_hit_by_the_end_of_the_old_one() {
    let mut world = World::leading();
    world.grant(1, 2);
    world.run_ms(2_000);
    let [end] = world.take_ended()[..] else { panic!("it has ended") };
    world.revoke(1);
    world.grant(1, 2);
    assert!(!world.lessor.begin_revoke(end));
    world.run_ms(2_000);
    let [again] = world.take_ended()[..] else { panic!("it has ended again") };
    assert!(!world.lessor.begin_revoke(end), "of the first");
    assert!(world.lessor.begin_revoke(again));
}

#[test]
fn a_revoke_that_was_not_taken_is_tried_again() {
    let mut world = World::leading();
    world.grant(1, 2);
    world.run_ms(2_500);
    let [end] = world.take_ended()[..] else { panic!("it has ended") };
    assert!(world.lessor.begin_revoke(end));
    world.lessor.put_back(end);
    assert_eq!(world.renew(1), Renewal::Ended);
    assert_eq!(world.take_ended(), [end]);
    assert!(world.lessor.begin_revoke(end));
    world.revoke(1);
    world.lessor.put_back(end);
    assert_eq!(world.take_ended(), [], "it is gone");
}

/// Rule 14: time in which the process did not run is not counted.
#[test]
fn a_pause_ends_no_lease() {
    let mut world = World::leading();
    world.grant(1, 3);
    world.run_ms(1_000);
    // Three heartbeats late is only late.
    world.pause_ms(3 * HEARTBEAT_MS);
    world.lessor.tick(world.now);
    assert_eq!(world.lessor.ends_at(), world.now.plus_ms(1_700));
    world.pause_ms(3 * HEARTBEAT_MS + 1);
    world.lessor.tick(world.now);
    assert_eq!(world.lessor.ends_at(), world.now.plus_ms(1_700));
    // An hour, noticed by a renewal of another lease, by a question, or by a tick.
    world.pause_ms(3_600_000);
    assert_eq!(world.renew(2), Renewal::NotFound);
    world.pause_ms(3_600_000);
    assert_eq!(world.left(1), Some(1));
    world.pause_ms(3_600_000);
    world.lessor.tick(world.now);
    assert_eq!((world.ended(), world.left(1)), (vec![], Some(1)));
    world.run_ms(1_700);
    assert_eq!(world.ended(), [1]);
}

#[test]
fn a_clock_that_steps_back_changes_nothing() {
    let mut world = World::leading();
    world.grant(1, 3);
    world.run_ms(1_000);
    let later = world.now;
    world.now = Time::from_ms(0);
    assert_eq!(world.left(1), Some(2));
    assert_eq!(world.renew(1), Renewal::Renewed { ttl_s: 3 });
    world.now = later;
    assert_eq!(world.lessor.ends_at(), later.plus_ms(3_000));
}

#[test]
fn time_is_looked_at_once_a_heartbeat_while_there_are_leases() {
    let mut world = World::leading();
    assert_eq!(world.lessor.tick_at(), Time::NEVER, "an idle member stays still");
    world.grant(1, 3);
    assert_eq!(world.lessor.tick_at(), world.now.plus_ms(HEARTBEAT_MS));
    world.lessor.follow();
    assert_eq!(world.lessor.tick_at(), Time::NEVER);
}

#[test]
fn only_a_leader_that_has_applied_its_own_term_counts() {
    let mut world = World::new(&[(1, 5)], false);
    assert_eq!(world.renew(1), Renewal::NotPrimary);
    assert_eq!(world.lessor.wait_for_end(1, RequestId(1)), Wait::NotPrimary);
    assert_eq!(world.lessor.lead(4), []);
    world.apply(3, &[LeaseChange::Granted { id: 2, ttl_s: 5 }]);
    assert_eq!(world.renew(1), Renewal::NotPrimary, "an older leader may have done something to it");
    world.run_ms(60_000);
    world.apply(4, &[]);
    assert_eq!((world.left(1), world.left(2)), (Some(6), Some(6)), "a whole TTL and an election timeout");
    assert_eq!(world.renew(1), Renewal::Renewed { ttl_s: 5 });
    assert_eq!(world.left(1), Some(5));
}

/// A restart is a promotion: whatever was left before, the whole time begins anew, or what was noted of it.
#[test]
fn a_new_leader_begins_anew() {
    let mut world = World::leading();
    world.grant(1, 10);
    world.grant(2, 600);
    world.run_ms(9_000);
    world.checkpoint(2, 500);
    assert_eq!(world.left(2), Some(591), "a note changes nothing under this leader");
    assert_eq!(world.lessor.follow(), []);
    assert_eq!(world.lessor.remaining(world.now, 1), Remaining::NotPrimary);
    world.run_ms(60_000);
    assert_eq!(world.ended(), NONE);
    world.lead(3);
    assert_eq!((world.left(1), world.left(2)), (Some(11), Some(501)));
    world.run_ms(10_999);
    assert_eq!(world.ended(), NONE);
    world.run_ms(1);
    assert_eq!(world.ended(), [1]);
}

#[test]
fn leadership_that_is_lost_frees_what_has_ended() {
    let mut world = World::leading();
    world.grant(1, 2);
    world.grant(2, 2);
    world.run_ms(2_000);
    let [first, second] = world.take_ended()[..] else { panic!("both have ended") };
    assert!(world.lessor.begin_revoke(first));
    assert_eq!(world.lessor.wait_for_end(1, RequestId(5)), Wait::Waiting);
    assert_eq!(world.lessor.follow(), [RequestId(5)], "it has to ask the new leader");
    world.lessor.check();
    assert!(!world.lessor.begin_revoke(second), "confirmed in no term of this leader");
    world.lead(3);
    assert!(!world.lessor.begin_revoke(second));
    world.lessor.put_back(first);
    world.lessor.check();
    assert_eq!(world.renew(1), Renewal::Renewed { ttl_s: 2 });
    assert_eq!(world.left(2), Some(3));
}

/// The same member leads again without anybody in between: still a new term, and all begins anew.
#[test]
fn a_new_term_of_the_same_leader_is_a_new_leader() {
    let mut world = World::leading();
    world.grant(1, 2);
    world.run_ms(1_900);
    assert_eq!(world.lessor.lead(2), [], "nothing new");
    assert_eq!(world.left(1), Some(0));
    world.lead(3);
    assert_eq!(world.left(1), Some(3));
}

#[test]
fn many_leases_of_a_new_leader_end_one_after_the_other() {
    let leases: Vec<(i64, i64)> = (1..=10_000).map(|id| (id, 20)).collect();
    let mut world = World::new(&leases, false);
    world.lead(2);
    while world.lessor.tick_at() == world.now {
        world.lessor.tick(world.now);
        world.lessor.check();
    }
    world.run_ms(20_999);
    assert_eq!(world.ended(), NONE, "none is early");
    let mut ended = 0;
    for second in 1..20 {
        world.run_ms(1_000);
        let count = world.ended().len();
        assert!(count <= 751, "{count} ended in second {second}");
        ended += count;
    }
    assert_eq!(ended, 10_000, "and none is late by more than it takes");

    // Few stay together.
    let mut world = World::new(&leases[..999], false);
    world.lead(2);
    world.run_ms(21_000);
    assert_eq!(world.ended().len(), 999);
}

/// What happens to leases in the midst of a promotion that takes many steps.
#[test]
fn a_promotion_in_steps_looks_like_one() {
    let leases: Vec<(i64, i64)> = (1..=5_000).map(|id| (id, 20)).collect();
    let mut world = World::new(&leases, false);
    world.lead(2);
    assert_eq!(world.lessor.tick_at(), world.now, "there is more to do");
    assert_eq!(world.left(5_000), Some(21), "its time has begun");
    assert_eq!(world.renew(4_999), Renewal::Renewed { ttl_s: 20 });
    world.grant(6_000, 5);
    world.revoke(4_998);
    world.run_ms(3_000);
    assert_eq!(world.left(4_999), Some(17));
    assert_eq!(world.left(6_000), Some(2));
    assert_eq!(world.left(4_998), None);
    assert_eq!(world.lessor.len(), 5_000);
}

#[test]
fn long_leases_are_noted_every_five_minutes() {
    let mut world = World::new(&[], true);
    world.lead(2);
    world.grant(1, 900);
    world.grant(2, 300);
    world.grant(3, 901);
    world.run_ms(299_999);
    assert_eq!(world.lessor.take_checkpoints(10), []);
    assert_eq!(world.lessor.checkpoint_at(), world.now.plus_ms(1));
    world.run_ms(1);
    assert_eq!(world.lessor.take_checkpoints(1), [(1, 600)], "as many as one request takes");
    assert_eq!(world.renew(3), Renewal::Renewed { ttl_s: 901 });
    assert_eq!(world.lessor.take_checkpoints(10), [], "nothing to note of one just renewed");
    // The note is on its way: a renewal must not be overtaken by it.
    assert_eq!(world.renew(1), Renewal::Checkpointed);
    world.checkpoint(1, 600);
    assert_eq!(world.renew(1), Renewal::Checkpointed);
    world.lessor.checkpoints_settled(&[1], false);
    world.checkpoint(1, 0);
    assert_eq!(world.renew(1), Renewal::Renewed { ttl_s: 900 });
    world.run_ms(300_000);
    assert_eq!(world.lessor.take_checkpoints(10), [(1, 600), (3, 601)], "the renewed one is not forgotten");
    // Refused: due again at once.
    world.lessor.checkpoints_settled(&[1, 3], true);
    assert_eq!(world.lessor.take_checkpoints(10), [(1, 600), (3, 601)]);
    world.checkpoint(1, 600);
    world.checkpoint(3, 601);
    world.lessor.checkpoints_settled(&[1, 3], false);
    world.run_ms(300_000);
    assert_eq!(world.lessor.take_checkpoints(10), [(1, 300), (3, 301)]);
    world.checkpoint(1, 300);
    world.checkpoint(3, 301);
    world.lessor.checkpoints_settled(&[1, 3], false);
    world.run_ms(299_999);
    assert_eq!(world.lessor.checkpoint_at(), world.now.plus_ms(1), "of the one with more than five minutes");
    world.lessor.follow();
    assert_eq!(world.lessor.checkpoint_at(), Time::NEVER);
    world.lead(3);
    assert_eq!((world.left(1), world.left(3)), (Some(301), Some(302)));
}

#[test]
fn without_the_gate_nothing_is_noted_but_a_note_is_heeded() {
    let mut world = World::leading();
    world.grant(1, 900);
    world.run_ms(600_000);
    assert_eq!(world.lessor.take_checkpoints(10), []);
    world.checkpoint(1, 300);
    assert_eq!(world.renew(1), Renewal::Checkpointed, "or the next leader would end it early");
}

#[test]
fn a_snapshot_takes_the_place_of_what_was_there() {
    let mut world = World::leading();
    world.grant(1, 10);
    world.run_ms(10_000);
    assert_eq!(world.lessor.wait_for_end(1, RequestId(3)), Wait::Waiting);
    let times = LeaseTimes { granted_ttl_s: 40, remaining_ttl_s: 4 };
    assert_eq!(world.lessor.restore([(2, times)]), [RequestId(3)]);
    world.lessor.check();
    world.lead(3);
    assert_eq!((world.left(1), world.left(2)), (None, Some(5)));
}
