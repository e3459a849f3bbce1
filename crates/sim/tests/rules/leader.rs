//! What a leader alone decides: whom it lets vote, and which leases it ends.

use node::{Change, Input, NewMember, Promotion};
use prost::Message as _;
use raft::{Body, Message, NodeId};
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{AlarmRequest, AlarmType, LeaseGrantRequest};

use super::*;

const LEARNER: u64 = 5;

fn reconfigure(ids: &mut LaneIds, change: &Change, promotes: Option<Promotion>) -> Submission {
    let id = ids.next();
    Submission::Reconfigure { id, data: change.encode(id).into(), promotes }
}

/// What the one request of these came to.
fn refusal(told: Told) -> Option<String> {
    let [(_, result)] = &told.completions.answers[..] else { panic!("{:?}", told.completions.answers) };
    result.as_ref().err().map(|status| status.message.clone().into_owned())
}

/// Its vote counts from then on: one that is far behind would only hold the others up (etcd: server.go,
/// `isLearnerReady`).
#[test]
fn rule_16_a_learner_is_promoted_from_nine_tenths_of_the_log_on() {
    const LAST: u64 = 100;
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let mut member = ready(&fs);
    let mut ids = member.lane();
    let joining =
        NewMember { id: LEARNER, peer_urls: vec!["http://learner:2380".to_owned()], is_learner: true };
    member.submit(vec![reconfigure(&mut ids, &Change::Add { member: joining }, None)]);
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    while member.parts.consensus.status().last.0.0 < LAST {
        member.submit(vec![put(&mut ids, "k", "v")]);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    }
    for (matched, expected) in [
        (LAST / 10, Some(ApiError::LearnerNotReady)),
        (LAST * 9 / 10 - 1, Some(ApiError::LearnerNotReady)),
        (LAST * 9 / 10, None),
    ] {
        let status = member.parts.consensus.status();
        assert_eq!(status.last.0, Index(LAST), "a refusal is not in the log");
        member.inputs.push_back(Input::Messages(vec![Message {
            from: NodeId(LEARNER),
            to: status.id,
            term: status.term,
            body: Body::AppendResponse { index: Index(matched), reject: None },
        }]));
        let promotes = Some(Promotion { member: LEARNER, may: Ok(()) });
        member.submit(vec![reconfigure(&mut ids, &Change::Promote { id: LEARNER }, promotes)]);
        let mut told = Told::default();
        // Two voters: it waits for the second one's disk.
        (0..10).for_each(|_| turn(&mut member, &mut told));
        match expected {
            Some(error) => assert_eq!(refusal(told).as_deref(), Some(error.text()), "at {matched}"),
            None => assert_eq!(refusal(told), None, "at {matched}"),
        }
    }
    let membership = member.parts.reader.membership();
    assert!(membership.members().all(|member| !member.is_learner), "it votes");
}

/// A request of somebody's, applied.
fn ask(member: &mut Running, request: InternalRaftRequest, now: Time) {
    let id = member.lane().next();
    let header = Some(RequestHeader { id: id.0, ..Default::default() });
    let request = InternalRaftRequest { header, ..request };
    member.submit(vec![proposal(id, request.encode_to_vec(), false)]);
    member.settle(now, &mut Told::default()).expect("a healthy disk");
}

fn alarm(member: &mut Running, action: AlarmAction, now: Time) {
    let alarm = AlarmRequest {
        action: action as i32,
        member_id: member.parts.identity.member_id,
        alarm: AlarmType::Corrupt as i32,
    };
    ask(member, InternalRaftRequest { alarm: Some(alarm), ..Default::default() }, now);
}

/// Apply refuses revokes while data is known to be corrupt, so a leader that went on proposing them would fill the log.
#[test]
fn rule_14_while_data_is_corrupt_leases_do_not_end_and_the_log_is_still() {
    const TTL_S: u64 = 2;
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let mut member = ready(&fs);
    let grant = LeaseGrantRequest { id: 7, ttl: TTL_S as i64 };
    ask(&mut member, InternalRaftRequest { lease_grant: Some(grant), ..Default::default() }, NOW);
    alarm(&mut member, AlarmAction::Activate, NOW);
    let last = member.parts.consensus.status().last;
    let passes = |member: &mut Running, from_ms: u64, to_ms: u64| {
        for ms in (from_ms..to_ms).step_by(20) {
            member.inputs.push_back(Input::Tick);
            member.settle(NOW.plus_ms(ms), &mut Told::default()).expect("a healthy disk");
        }
    };
    passes(&mut member, 0, 20_000);
    assert_eq!(member.parts.consensus.status().last, last, "a revoke that is refused is in the log");
    assert_eq!(member.parts.reader.leases().len(), 1);
    alarm(&mut member, AlarmAction::Deactivate, NOW.plus_ms(20_000));
    // Time in which nobody looked is not counted.
    passes(&mut member, 20_000, 25_000);
    assert!(member.parts.reader.leases().is_empty(), "it ends once that may be");
}
