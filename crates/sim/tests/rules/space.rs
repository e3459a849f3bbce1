//! The quota and the alarm that goes with it: rule 18, and what rule 15 says of a write beyond the quota.

use node::{Change, Input, NewMember, Outputs, Quota};
use wire::Status;
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{AlarmRequest, AlarmType, CompactionRequest};

use super::*;

/// An empty store takes 56 KiB.
const QUOTA: i64 = 80_000;
const SECOND_US: u64 = 1_000_000;

fn small() -> Settings {
    Settings { quota: Quota::of_setting(QUOTA), ..settings() }
}

fn ready_with(fs: &Arc<dyn Fs>, settings: &Settings) -> Running {
    let mut member = start_with(fs, settings, 7).expect("a member starts");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    member
}

/// What came of a request, once everything is at rest.
fn result(member: &mut Running, now: Time, submission: Submission) -> Result<(), Status> {
    let mut told = Told::default();
    member.submit(vec![submission]);
    member.settle(now, &mut told).expect("a healthy disk");
    let (_, result) = told.completions.answers.pop().expect("an answer");
    result.map(|_| ())
}

fn request(ids: &mut LaneIds, request: InternalRaftRequest) -> Submission {
    let id = ids.next();
    let header = Some(RequestHeader { id: id.0, ..Default::default() });
    proposal(id, InternalRaftRequest { header, ..request }.encode_to_vec(), false)
}

fn alarm(ids: &mut LaneIds, action: AlarmAction, member_id: u64) -> Submission {
    let (action, alarm) = (action as i32, AlarmType::Nospace as i32);
    let alarm = Some(AlarmRequest { action, member_id, alarm });
    request(ids, InternalRaftRequest { alarm, ..Default::default() })
}

fn alarms(member: &Running) -> Vec<u64> {
    member.parts.reader.alarms().iter().map(|alarm| alarm.member_id).collect()
}

/// Puts until one is refused; how many went through.
fn fill(member: &mut Running, ids: &mut LaneIds) -> usize {
    for n in 0..100 {
        match result(member, NOW, put(ids, &format!("k{n:03}"), &"x".repeat(1000))) {
            Ok(()) => {}
            Err(status) => {
                assert_eq!(status, ApiError::NoSpace.into());
                return n;
            }
        }
    }
    panic!("the quota is not kept");
}

/// Deletes everything that [`fill`] has put, and drops it.
fn make_room(member: &mut Running, ids: &mut LaneIds, now: Time) {
    for n in 0..100 {
        result(member, now, delete(ids, &format!("k{n:03}"))).expect("deletes go on");
    }
    let revision = member.parts.reader.revision();
    let compaction = Some(CompactionRequest { revision, physical: false });
    let compact = request(ids, InternalRaftRequest { compaction, ..Default::default() });
    result(member, now, compact).expect("compactions go on");
}

/// Seconds that pass, tick by tick, until no alarm is on; `None` if one still is after so many.
fn cleared_after(member: &mut Running, now: &mut Time, seconds: u64) -> Option<u64> {
    (1..=seconds).find(|_| {
        *now = Time(now.0 + SECOND_US);
        member.inputs.push_back(Input::Tick);
        member.settle(*now, &mut Told::default()).expect("a healthy disk");
        alarms(member).is_empty()
    })
}

#[test]
fn rule_15_what_goes_beyond_the_quota_at_apply_is_done_and_the_alarm_is_raised() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready_with(&fs, &small());
    let mut ids = member.lane();
    let done = fill(&mut member, &mut ids);
    // The one that went beyond it is done; the one behind it is refused.
    let size = member.parts.reader.size_bytes();
    assert!(size >= QUOTA as u64 && size < QUOTA as u64 + 2000, "{size} bytes");
    assert!(value_of(&member, format!("k{:03}", done - 1).as_bytes(), 0).is_some());
    assert_eq!(value_of(&member, format!("k{done:03}").as_bytes(), 0), None);
    assert_eq!(alarms(&member), [member.parts.identity.member_id]);
    // It stays, and is raised once.
    drop(member);
    memory.power_cut(1);
    let mut member = ready_with(&fs, &small());
    let mut ids = member.lane();
    assert_eq!(alarms(&member), [member.parts.identity.member_id]);
    let index = member.parts.consensus.status().last.0;
    let refused = result(&mut member, NOW, put(&mut ids, "small", "1"));
    assert_eq!(refused, Err(ApiError::NoSpace.into()));
    assert_eq!(member.parts.consensus.status().last.0.0, index.0 + 1, "nothing but the put");
    // Taken away without making room it comes back with the next put.
    let id = member.parts.identity.member_id;
    result(&mut member, NOW, alarm(&mut ids, AlarmAction::Deactivate, id)).expect("it is off");
    result(&mut member, NOW, put(&mut ids, "small", "1")).expect("as in etcd it is done");
    assert_eq!(alarms(&member), [id]);
}

#[test]
fn rule_18_the_alarm_ends_by_itself_once_there_was_room_for_a_minute() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready_with(&fs, &small());
    let mut ids = member.lane();
    let mut now = NOW;
    fill(&mut member, &mut ids);
    assert_eq!(cleared_after(&mut member, &mut now, 100), None, "there is no room");
    make_room(&mut member, &mut ids, now);
    assert!(member.parts.reader.size_bytes() < QUOTA as u64 / 10 * 9);
    let after = cleared_after(&mut member, &mut now, 100);
    assert!(matches!(after, Some(60..=62)), "{after:?}");
    result(&mut member, now, put(&mut ids, "k", "v")).expect("there is room");
}

#[test]
fn rule_18_the_alarm_stays_where_it_is_another_members_or_may_not_end() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready_with(&fs, &small());
    let mut ids = member.lane();
    let mut now = NOW;
    result(&mut member, now, alarm(&mut ids, AlarmAction::Activate, 0xbeef)).expect("it is on");
    assert_eq!(cleared_after(&mut member, &mut now, 100), None, "another member's");
    let id = member.parts.identity.member_id;
    result(&mut member, now, alarm(&mut ids, AlarmAction::Deactivate, 0xbeef)).expect("it is off");
    result(&mut member, now, alarm(&mut ids, AlarmAction::Activate, id)).expect("it is on");
    drop(member);
    let keeps = Settings { no_space_clears_ms: None, ..small() };
    let mut member = ready_with(&fs, &keeps);
    assert_eq!(cleared_after(&mut member, &mut now, 100), None, "the flag says so");
    drop(member);
    let mut member = ready_with(&fs, &small());
    let mut now = NOW;
    assert!(cleared_after(&mut member, &mut now, 100).is_some(), "its own, and small enough");
}

/// A member with a learner, which knows of no such thing unless it is said to be one of ours.
#[test]
fn rule_18_the_alarm_ends_beside_others_only_where_all_of_them_are_ours() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready_with(&fs, &small());
    let mut ids = member.lane();
    let mut now = NOW;
    let learner = NewMember { id: 77, peer_urls: vec!["http://learner:2380".to_owned()], is_learner: true };
    let id = ids.next();
    let data = Change::Add { member: learner }.encode(id).into();
    result(&mut member, now, Submission::Reconfigure { id, data, promotes: None }).expect("it is added");
    let own = member.parts.identity.member_id;
    result(&mut member, now, alarm(&mut ids, AlarmAction::Activate, own)).expect("it is on");
    assert_eq!(cleared_after(&mut member, &mut now, 100), None, "nobody has said who they are");
    member.inputs.push_back(Input::OthersAreOurs(false));
    assert_eq!(cleared_after(&mut member, &mut now, 100), None, "one is not, or is silent");
    member.inputs.push_back(Input::OthersAreOurs(true));
    let after = cleared_after(&mut member, &mut now, 100);
    assert!(matches!(after, Some(0..=2)), "all are, and it has been small for long: {after:?}");
}

/// What cannot be done without a leader was due all the time, and the raft thread spun.
#[test]
fn without_a_leader_an_alarm_that_is_due_is_no_reason_to_wake() {
    for corrupt in [false, true] {
        let memory = MemFs::new();
        let fs: Arc<dyn Fs> = Arc::new(memory.clone());
        let mut member = ready_with(&fs, &small());
        let mut ids = member.lane();
        fill(&mut member, &mut ids);
        drop(member);
        let mut member = start_with(&fs, &small(), 7).expect("a member starts");
        if corrupt {
            member.parts.consensus.step(NOW, Input::DataLost, &mut Outputs::default());
        }
        // Its clock is ahead of everything that was due, and nobody has been elected. Each round is what the raft thread
        // does: it sleeps until the deadline, and takes a tick.
        let mut now = Time(NOW.0 + 100 * SECOND_US);
        for round in 0..50 {
            member.parts.consensus.step(now, Input::Tick, &mut Outputs::default());
            let deadline = member.parts.consensus.deadline();
            assert!(deadline > now, "round {round}: due at {deadline:?}, and it is {now:?}");
            now = deadline;
        }
    }
}

/// Runs a member without the thread for compactions, which a busy machine may keep from its work for long.
fn settle_without_compactions(member: &mut Running, told: &mut Told) {
    for _ in 0..30 {
        turn(member, told);
    }
}

#[test]
fn rule_18_what_is_compacted_away_does_not_count_after_a_restart() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready_with(&fs, &small());
    let mut ids = member.lane();
    for n in 0..40 {
        member.submit(vec![put(&mut ids, "k", &format!("{n:01000}"))]);
        if n % 10 == 9 {
            let compaction = Some(CompactionRequest { revision: 2 + n, physical: false });
            let compact = InternalRaftRequest { compaction, ..Default::default() };
            member.submit(vec![request(&mut ids, compact)]);
        }
        settle_without_merges(&mut member, &mut Told::default());
    }
    let counted = member.parts.reader.size_bytes();
    assert!(counted + 10_000 < QUOTA as u64, "{counted} bytes");
    assert!(member.parts.log_reader.space().dead_bytes > 30_000, "nothing is merged yet");
    assert!(alarms(&member).is_empty());

    drop(member);
    memory.power_cut(1);
    let mut member = start_with(&fs, &small(), 7).expect("a member starts");
    assert_eq!(member.parts.reader.size_bytes(), counted);
    assert_eq!(member.parts.reader.finished_compaction(), member.parts.reader.compacted());
    settle_without_compactions(&mut member, &mut Told::default());
    let mut ids = member.lane();
    let mut told = Told::default();
    member.submit(vec![put(&mut ids, "k", "v")]);
    settle_without_compactions(&mut member, &mut told);
    let (_, result) = told.completions.answers.pop().expect("an answer");
    result.expect("there is room");
    assert!(alarms(&member).is_empty());
}

#[test]
fn without_a_quota_there_is_no_alarm() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready_with(&fs, &settings());
    let mut ids = member.lane();
    for n in 0..100 {
        result(&mut member, NOW, put(&mut ids, &format!("k{n:03}"), &"x".repeat(1000))).expect("no quota");
    }
    assert!(alarms(&member).is_empty());
}
