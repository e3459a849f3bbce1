//! From the end of a lease to its revoke: what has to happen in between, and what may come between.

use super::*;
use crate::RequestIds;
use crate::lease::LessorSettings;
use prost::Message;
use raft::{ConfState, Config, Effect, Event, NodeId, Restored};
use store::{Caller, LeaseChange};
use wire::etcdserverpb::InternalRaftRequest;

/// A keeper, its lessor, and the raft core of a sole voter, which leads and takes whatever is proposed.
struct World {
    keeper: Keeper,
    lessor: SharedLessor,
    raft: Raft,
    ids: LaneIds,
    now: Time,
    term: u64,
}

impl World {
    fn new(checkpoints: bool) -> World {
        let now = Time::from_ms(1);
        let settings = LessorSettings { heartbeat_interval_ms: 100, election_timeout_ms: 1000, checkpoints };
        let lessor = SharedLessor::new(Lessor::new(settings, now, []));
        let config = Config {
            id: NodeId(1),
            election_timeout_ms: 1000,
            heartbeat_interval_ms: 100,
            seed: 1,
            pre_vote: true,
            check_quorum: true,
            limits: raft::Limits::default(),
        };
        let conf = ConfState { voters: vec![NodeId(1)], learners: Vec::new() };
        let raft = Raft::new(config, Restored { conf, ..Restored::default() }, now).expect("a raft core");
        let keeper = Keeper::new(lessor.clone());
        let ids = RequestIds::new(100, 1).lane(0);
        let mut world = World { keeper, lessor, raft, ids, now, term: 0 };
        world.step(Event::Tick);
        assert_eq!(world.raft.status().role, Role::Leader);
        world.lead();
        world
    }

    /// Consensus takes a step, and whatever it writes is on disk at once.
    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.raft.step(self.now, event, &mut effects);
        while let Some(Effect::Persist { seq, term, last, .. }) =
            effects.iter().find(|effect| matches!(effect, Effect::Persist { .. })).cloned()
        {
            effects.clear();
            self.raft.step(self.now, Event::Persisted { seq, term, last }, &mut effects);
        }
    }

    fn leadership(&mut self, is_leader: bool) -> Vec<RequestId> {
        self.term += 1;
        self.keeper.leadership(Leadership { term: self.term, leader: 1, is_leader })
    }

    fn lead(&mut self) {
        self.leadership(true);
        self.apply(&[], &[]);
    }

    fn apply(&mut self, changes: &[LeaseChange], own: &[RequestId]) {
        self.lessor.lock().applied(self.now, self.term, changes);
        self.keeper.applied(own);
    }

    fn grant(&mut self, ids: impl Iterator<Item = i64>, ttl_s: i64) {
        let changes: Vec<LeaseChange> = ids.map(|id| LeaseChange::Granted { id, ttl_s }).collect();
        self.apply(&changes, &[]);
    }

    fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now = self.now.plus_ms(100);
            self.lessor.lock().tick(self.now);
        }
        self.now = self.now.plus_ms(ms % 100);
    }

    fn work(&mut self) -> Option<Work> {
        let work = self.keeper.next(self.now, &self.raft, &mut self.ids);
        self.keeper.check();
        work
    }

    fn round(&mut self) -> RequestId {
        match self.work() {
            Some(Work::Confirm(context)) => context,
            other => panic!("{other:?} in place of a round"),
        }
    }

    /// The revokes that are proposed: request and lease.
    fn revokes(&mut self) -> Vec<(RequestId, i64)> {
        match self.work() {
            Some(Work::Propose(entries)) => {
                entries.iter().map(|entry| (request(entry).0, lease(entry))).collect()
            }
            None => Vec::new(),
            other => panic!("{other:?} in place of revokes"),
        }
    }

    fn confirm(&mut self) {
        let context = self.round();
        assert!(self.keeper.confirmed(context, true));
    }
}

fn request(entry: &Proposal) -> (RequestId, InternalRaftRequest) {
    let request = InternalRaftRequest::decode(entry.data.clone()).expect("a request");
    let id = request.header.as_ref().expect("each of our own has a header (rule 20)").id;
    assert_eq!(id, entry.token);
    (RequestId(id), request)
}

fn lease(entry: &Proposal) -> i64 {
    request(entry).1.lease_revoke.expect("a revoke").id
}

#[test]
fn rule_14_nothing_is_revoked_before_leadership_is_confirmed() {
    let mut world = World::new(false);
    world.grant(1..=2, 2);
    world.run_ms(1_999);
    assert!(world.work().is_none(), "nothing has ended");
    world.run_ms(1);
    let context = world.round();
    assert!(world.work().is_none(), "one round at a time");
    // What ends after the round began waits for another one.
    world.grant(3..=3, 0);
    assert!(!world.keeper.confirmed(RequestId(1), true), "somebody else's round");
    assert!(world.keeper.confirmed(context, true));
    assert_eq!(world.keeper.confirmed.len(), 2);
    let context = world.round();
    let revokes = world.revokes();
    assert_eq!(revokes.iter().map(|(_, lease)| *lease).collect::<Vec<_>>(), [1, 2]);
    assert!(world.keeper.confirmed(context, true));
    world.run_ms(BATCH_INTERVAL_MS);
    assert_eq!(world.revokes().len(), 1);
}

#[test]
fn rule_14_leadership_lost_between_the_end_and_the_confirmation_revokes_nothing() {
    let mut world = World::new(false);
    world.grant(1..=1, 2);
    world.run_ms(2_000);
    let context = world.round();
    world.leadership(false);
    assert!(!world.keeper.confirmed(context, true), "an answer that comes late is nobody's");
    assert!(world.work().is_none());
    // Leading again, everything begins anew.
    world.lead();
    assert!(!world.keeper.confirmed(context, true));
    assert!(world.work().is_none());
    world.run_ms(2_999);
    assert!(world.work().is_none());
    world.run_ms(1);
    world.confirm();
    assert_eq!(world.revokes().len(), 1);
}

#[test]
fn rule_14_leadership_lost_after_the_confirmation_revokes_nothing() {
    let mut world = World::new(false);
    world.grant(1..=1, 2);
    world.run_ms(2_000);
    world.confirm();
    world.leadership(false);
    assert!(world.work().is_none());
    world.lead();
    assert!(world.work().is_none());
}

#[test]
fn a_revoke_whose_fate_is_unknown_comes_again_under_the_next_leadership() {
    let mut world = World::new(false);
    world.grant(1..=1, 2);
    world.run_ms(2_000);
    world.confirm();
    let [(first, _)] = world.revokes()[..] else { panic!("one revoke") };
    world.run_ms(3_600_000);
    assert!(world.work().is_none(), "in this term it is in the log");
    world.leadership(false);
    world.lead();
    world.run_ms(3_000);
    world.confirm();
    let [(second, lease)] = world.revokes()[..] else { panic!("one revoke") };
    assert_ne!(first, second);
    world.apply(&[LeaseChange::Revoked { id: lease }], &[second]);
    assert!(world.work().is_none());
    assert!(world.lessor.lock().is_empty());
}

#[test]
fn a_refused_revoke_and_one_that_changed_nothing_come_again() {
    let mut world = World::new(false);
    world.grant(1..=1, 2);
    world.run_ms(2_000);
    world.confirm();
    let [(first, _)] = world.revokes()[..] else { panic!("one revoke") };
    assert!(world.keeper.refused(world.now, first));
    assert!(!world.keeper.refused(world.now, first));
    // Since it was proposed, leadership may have been lost: it is confirmed again.
    world.confirm();
    assert!(world.work().is_none(), "not at once");
    assert_eq!(world.keeper.deadline(), world.now.plus_ms(REFUSED_RETRY_MS));
    world.run_ms(REFUSED_RETRY_MS);
    let [(second, _)] = world.revokes()[..] else { panic!("one revoke") };
    world.apply(&[], &[second]);
    world.confirm();
    world.run_ms(BATCH_INTERVAL_MS);
    assert_eq!(world.revokes().len(), 1);
}

#[test]
fn a_round_without_an_answer_is_asked_for_again() {
    let mut world = World::new(false);
    world.grant(1..=1, 2);
    world.run_ms(2_000);
    let first = world.round();
    world.run_ms(CONFIRM_RETRY_MS - 1);
    assert!(world.work().is_none());
    world.run_ms(1);
    let second = world.round();
    assert_ne!(first, second, "contexts are never reused (rule 19)");
    assert!(world.keeper.confirmed(second, false), "refused");
    assert!(world.work().is_none());
    // Any of them answers it.
    assert!(world.keeper.confirmed(first, true));
    assert_eq!(world.revokes().len(), 1);
}

/// Many leases that end together leave the log to others, and still more than 1,000 a second go.
#[test]
fn revokes_come_in_small_batches() {
    let mut world = World::new(false);
    world.grant(1..=5_000, 2);
    world.run_ms(2_000);
    let (mut under_way, mut gone) = (Vec::new(), 0);
    let end = world.now.plus_ms(1_000);
    // A disk that takes 50 ms for a sync.
    let mut synced_at = world.now.plus_ms(50);
    while world.now < end {
        while let Some(work) = world.work() {
            match work {
                Work::Confirm(context) => assert!(world.keeper.confirmed(context, true)),
                Work::Propose(entries) => {
                    assert!(entries.len() <= BATCH_MAX);
                    under_way.extend(entries.iter().map(|entry| (request(entry).0, lease(entry))));
                    assert!(under_way.len() <= REVOKING_MAX);
                }
            }
        }
        world.now = world.keeper.deadline().min(synced_at);
        if world.now == synced_at {
            synced_at = world.now.plus_ms(50);
            gone += under_way.len();
            for (id, lease) in std::mem::take(&mut under_way) {
                world.apply(&[LeaseChange::Revoked { id: lease }], &[id]);
            }
        }
    }
    assert!((1_000..=3_300).contains(&gone), "{gone} in a second");
}

/// A client ends a lease and grants another of the same id, and neither is applied yet.
#[test]
fn a_revoke_does_not_go_behind_a_grant_of_the_same_id() {
    let mut world = World::new(false);
    world.grant(1..=2, 2);
    world.run_ms(2_000);
    world.confirm();
    let grant = wire::etcdserverpb::LeaseGrantRequest { id: 1, ttl: 60 };
    let data = admission::encode_lease_grant(7, Caller::NOBODY, &grant.encode_to_vec());
    let entries = vec![proposal(RequestId(7), data)];
    world.step(Event::Propose { entries });
    assert_eq!(world.revokes().iter().map(|(_, lease)| *lease).collect::<Vec<_>>(), [2]);
    world.run_ms(BATCH_INTERVAL_MS);
    assert_eq!(world.revokes(), []);
    // It was refused: the old one is still there.
    let index = world.raft.status().last.0;
    world.step(Event::Applied { index });
    world.run_ms(BATCH_INTERVAL_MS);
    assert_eq!(world.revokes().iter().map(|(_, lease)| *lease).collect::<Vec<_>>(), [1]);
}

#[test]
fn checkpoints_go_one_request_at_a_time() {
    let mut world = World::new(true);
    world.grant(1..=1_500, 900);
    world.run_ms(300_000);
    let checkpoint = |work: Option<Work>| match work {
        Some(Work::Propose(entries)) => {
            let [entry] = &entries[..] else { panic!("one entry") };
            let (id, request) = request(entry);
            (id, request.lease_checkpoint.expect("a checkpoint").checkpoints)
        }
        other => panic!("{other:?} in place of a checkpoint"),
    };
    let (first, noted) = checkpoint(world.work());
    assert_eq!(noted.len(), CHECKPOINTS_MAX);
    assert!(noted.iter().all(|noted| noted.remaining_ttl == 600));
    assert!(world.work().is_none());
    world.apply(&[], &[first]);
    let (second, noted) = checkpoint(world.work());
    assert_eq!(noted.len(), 500);
    assert!(world.keeper.refused(world.now, second));
    assert!(world.work().is_none());
    world.run_ms(REFUSED_RETRY_MS);
    let (third, noted) = checkpoint(world.work());
    assert_eq!((noted.len(), noted[0].remaining_ttl), (500, 600));
    world.apply(&[], &[third]);
    assert!(world.work().is_none());
}

#[test]
fn who_does_not_lead_has_nothing_to_do() {
    let mut world = World::new(true);
    world.grant(1..=1, 2);
    world.leadership(false);
    world.run_ms(10_000);
    assert!(world.work().is_none());
    assert_eq!(world.keeper.deadline(), Time::NEVER);
}
