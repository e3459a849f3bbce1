//! Alarms: how they are turned on and off, what they refuse, and that they stay.

mod support;

use prost::Message as _;
use store::admission;
use store::request::{Put, Txn};
use support::{Member, bytes};
use wire::ApiError;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::alarm_request::AlarmAction::{Activate, Deactivate, Get};
use wire::etcdserverpb::request_op::Request;

const NOSPACE: i32 = pb::AlarmType::Nospace as i32;
const CORRUPT: i32 = pb::AlarmType::Corrupt as i32;

fn alarm(member: &mut Member, action: i32, member_id: u64, kind: i32) -> Vec<(u64, i32)> {
    let alarm = Some(pb::AlarmRequest { action, member_id, alarm: kind });
    let applied = member.apply(pb::InternalRaftRequest { alarm, ..Default::default() }, true);
    assert!(!applied.grew);
    let answer =
        pb::AlarmResponse::decode(&applied.result.expect("an alarm is never refused").body[..]).unwrap();
    answer.alarms.into_iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect()
}

fn shown(member: &Member) -> Vec<(u64, i32)> {
    member.reader.alarms().iter().map(|alarm| (alarm.member_id, alarm.alarm)).collect()
}

#[test]
fn alarms_are_turned_on_and_off_one_by_one() {
    let mut member = Member::new();
    let mut does = |action, id, kind| alarm(&mut member, action, id, kind);
    let (get, on, off) = (Get as i32, Activate as i32, Deactivate as i32);
    assert_eq!(does(get, 0, 0), []);
    assert_eq!(does(on, 7, 0), [], "NONE is no alarm");
    assert_eq!(does(get, 0, 0), []);
    assert_eq!(does(on, 7, NOSPACE), [(7, NOSPACE)]);
    assert_eq!(does(on, 7, NOSPACE), [(7, NOSPACE)], "it is told again");
    assert_eq!(does(on, 0xbeef, NOSPACE), [(0xbeef, NOSPACE)]);
    assert_eq!(does(on, 0, CORRUPT), [(0, CORRUPT)]);
    assert_eq!(does(on, 9, 5), [(9, 5)], "a kind of a later version");
    assert_eq!(does(get, 99, 0), [(7, NOSPACE), (0xbeef, NOSPACE), (0, CORRUPT), (9, 5)]);
    assert_eq!(does(get, 99, CORRUPT), [(0, CORRUPT)]);
    assert_eq!(does(off, 0xabc, NOSPACE), [], "of another member");
    assert_eq!(does(off, 0xbeef, CORRUPT), [], "of another kind");
    assert_eq!(does(off, 0xbeef, 0), [], "NONE is not all");
    assert_eq!(does(3, 0xbeef, NOSPACE), [], "an action that nobody knows");
    assert_eq!(does(off, 0xbeef, NOSPACE), [(0xbeef, NOSPACE)]);
    assert_eq!(does(off, 0xbeef, NOSPACE), [], "it is off");
    assert_eq!(does(get, 0, NOSPACE), [(7, NOSPACE)]);
}

#[test]
fn alarms_are_seen_when_they_are_published_and_survive_restarts() {
    let mut member = Member::new();
    alarm(&mut member, Activate as i32, 7, NOSPACE);
    assert_eq!(shown(&member), [], "nothing is published yet");
    member.publish();
    assert_eq!(shown(&member), [(7, NOSPACE)]);
    for (id, kind) in [(8, CORRUPT), (7, CORRUPT), (1 << 63, NOSPACE)] {
        alarm(&mut member, Activate as i32, id, kind);
        member.publish();
        member.restart();
        assert!(shown(&member).contains(&(id, kind)), "{id} {kind}");
    }
    alarm(&mut member, Deactivate as i32, 7, NOSPACE);
    member.publish();
    assert!(member.store.take_tables(false).is_none(), "nothing has changed since");
    let all = shown(&member);
    assert_eq!(all, [(1 << 63, NOSPACE), (7, CORRUPT), (8, CORRUPT)]);
    member.restart();
    assert_eq!(shown(&member), all);
    assert_eq!(member.store.alarms(), &*member.reader.alarms());
    // The same, where a segment begins with the whole tables alone.
    member.tables = vec![(member.store.tables(), true)];
    member.restart();
    assert_eq!(shown(&member), all);
    for (id, kind) in all {
        alarm(&mut member, Deactivate as i32, id, kind);
    }
    member.publish();
    member.restart();
    assert_eq!(shown(&member), []);
}

fn put_op(key: &str) -> pb::RequestOp {
    let put = pb::PutRequest { key: bytes(key), ..Default::default() };
    pb::RequestOp { request: Some(Request::RequestPut(put)) }
}

/// Requests of every kind, whether NOSPACE refuses them, and whether CORRUPT does.
fn requests() -> Vec<(&'static str, pb::InternalRaftRequest, bool, bool)> {
    let none = pb::InternalRaftRequest::default;
    let put = Some(pb::PutRequest { key: bytes("a"), ..Default::default() });
    let delete_range = Some(pb::DeleteRangeRequest { key: bytes("z"), ..Default::default() });
    let range = Some(pb::RangeRequest { key: bytes("a"), ..Default::default() });
    let txn = |request: pb::TxnRequest| pb::InternalRaftRequest { txn: Some(request), ..none() };
    let within = |op| {
        let inner = pb::TxnRequest { failure: vec![op], ..Default::default() };
        pb::RequestOp { request: Some(Request::RequestTxn(inner)) }
    };
    let get = pb::RequestOp { request: Some(Request::RequestRange(range.clone().unwrap())) };
    let delete = pb::RequestOp { request: Some(Request::RequestDeleteRange(delete_range.clone().unwrap())) };
    let lease_grant = Some(pb::LeaseGrantRequest { id: 5, ttl: 60 });
    let lease_revoke = Some(pb::LeaseRevokeRequest { id: 1 });
    let lease_checkpoint = Some(pb::LeaseCheckpointRequest::default());
    let compaction = Some(pb::CompactionRequest { revision: 2, physical: false });
    let cluster_version_set = Some(wire::membershippb::ClusterVersionSetRequest { ver: "3.7.0".into() });
    vec![
        ("put", pb::InternalRaftRequest { put, ..none() }, true, true),
        ("grant", pb::InternalRaftRequest { lease_grant, ..none() }, true, true),
        (
            "put in a branch",
            txn(pb::TxnRequest { success: vec![put_op("a")], ..Default::default() }),
            true,
            true,
        ),
        (
            "put in the other",
            txn(pb::TxnRequest { failure: vec![put_op("a")], ..Default::default() }),
            true,
            true,
        ),
        (
            "put within",
            txn(pb::TxnRequest { success: vec![within(put_op("a"))], ..Default::default() }),
            true,
            true,
        ),
        ("delete in a txn", txn(pb::TxnRequest { success: vec![delete], ..Default::default() }), false, true),
        (
            "range within",
            txn(pb::TxnRequest { success: vec![within(get)], ..Default::default() }),
            false,
            true,
        ),
        ("delete", pb::InternalRaftRequest { delete_range, ..none() }, false, true),
        ("range", pb::InternalRaftRequest { range, ..none() }, false, true),
        ("compaction", pb::InternalRaftRequest { compaction, ..none() }, false, true),
        ("revoke", pb::InternalRaftRequest { lease_revoke, ..none() }, false, true),
        ("checkpoint", pb::InternalRaftRequest { lease_checkpoint, ..none() }, false, false),
        ("version", pb::InternalRaftRequest { cluster_version_set, ..none() }, false, false),
    ]
}

#[test]
fn each_alarm_refuses_what_it_is_about_and_changes_nothing() {
    let members = |alarms: &[i32]| {
        let mut member = Member::new();
        for key in ["a", "b", "c"] {
            member.put(key, "1");
        }
        let lease_grant = Some(pb::LeaseGrantRequest { id: 1, ttl: 60 });
        member.apply(pb::InternalRaftRequest { lease_grant, ..Default::default() }, true).result.unwrap();
        for kind in alarms {
            // Of a member that need not be this one.
            alarm(&mut member, Activate as i32, 0xabc, *kind);
        }
        member.publish();
        member
    };
    for (alarms, error) in [
        (&[NOSPACE][..], ApiError::NoSpace),
        (&[CORRUPT], ApiError::Corrupt),
        (&[NOSPACE, CORRUPT], ApiError::Corrupt),
    ] {
        for (name, request, no_space, corrupt) in requests() {
            let mut member = members(alarms);
            let before = (member.store.revision(), member.store.compacted(), member.store.size_bytes());
            let applied = member.apply(request, true);
            let refuses = if error == ApiError::NoSpace { no_space } else { corrupt };
            if !refuses {
                assert!(applied.result.is_ok(), "{name} under {alarms:?}: {:?}", applied.result);
                continue;
            }
            assert_eq!(applied.result, Err(error), "{name} under {alarms:?}");
            assert!(applied.compaction.is_none() && applied.leases.is_empty() && !applied.grew, "{name}");
            let after = (member.store.revision(), member.store.compacted(), member.store.size_bytes());
            assert_eq!(after, before, "{name}");
            assert!(member.store.take_tables(false).is_none(), "{name}");
        }
    }
    // Kinds that nobody knows refuse nothing.
    for (name, request, ..) in requests() {
        assert!(members(&[9]).apply(request, true).result.is_ok(), "{name}");
    }
}

/// What is wrong with a request is not looked at: as in etcd, where the alarm comes first.
#[test]
fn an_alarm_comes_before_what_else_may_be_wrong() {
    let mut member = Member::new();
    alarm(&mut member, Activate as i32, 1, NOSPACE);
    let lease = 404;
    let put = Some(pb::PutRequest { key: bytes("a"), lease, ..Default::default() });
    let request = pb::InternalRaftRequest { put, ..Default::default() };
    assert_eq!(member.apply(request.clone(), true).result, Err(ApiError::NoSpace));
    alarm(&mut member, Deactivate as i32, 1, NOSPACE);
    assert_eq!(member.apply(request, true).result, Err(ApiError::LeaseNotFound));
}

#[test]
fn what_has_grown_is_told() {
    let mut member = Member::new();
    for (name, request, grows, _) in requests() {
        let applied = member.apply(request, false);
        assert_eq!(applied.grew, grows && applied.result.is_ok(), "{name}");
    }
}

/// etcd: storage/quota.go.
#[test]
fn costs_are_etcds() {
    let put = |key, value| Put { key, value, ..Put::default() };
    assert_eq!(admission::put_cost(&put(b"abc", b"12345")), 256 + 3 + 5);
    assert_eq!(admission::LEASE_GRANT_COST, 64);
    let cost = |txn: &pb::TxnRequest| admission::txn_cost(&Txn::decode(&txn.encode_to_vec()).unwrap());
    let txn = |success, failure| pb::TxnRequest { success, failure, ..Default::default() };
    let within = |success, failure| {
        let inner = txn(success, failure);
        pb::RequestOp { request: Some(Request::RequestTxn(inner)) }
    };
    let one = || put_op("k");
    assert_eq!(cost(&txn(vec![], vec![])), 0);
    assert_eq!(cost(&txn(vec![one(), one()], vec![])), 2 * 257);
    assert_eq!(cost(&txn(vec![one()], vec![one(), one(), one()])), 3 * 257, "the larger branch");
    assert_eq!(cost(&txn(vec![one(), within(vec![one()], vec![one(), one()])], vec![one()])), 3 * 257);
    assert_eq!(cost(&txn(vec![within(vec![within(vec![], vec![one()])], vec![])], vec![])), 257);
}
