//! Entries beside those of the key-value service: what they change, what they answer, and what stops a member.

mod support;

use prost::Message as _;
use store::{Caller, ConfChangeOutcome, Fatal, Store, admission};
use support::Member;
use wire::ApiError;
use wire::etcdserverpb as pb;
use wire::raftpb::{ConfChange, ConfChangeType};

fn change(kind: ConfChangeType, id: u64, context: &str) -> ConfChange {
    let context = (!context.is_empty()).then(|| support::bytes(context));
    ConfChange { r#type: Some(kind as i32), node_id: Some(id), context, id: Some(1) }
}

fn add(id: u64, url: &str) -> ConfChange {
    let json = format!(r#"{{"id":{id},"peerURLs":["{url}"],"name":"m{id}"}}"#);
    change(ConfChangeType::ConfChangeAddNode, id, &json)
}

fn learner(id: u64) -> ConfChange {
    let json = format!(r#"{{"id":{id},"peerURLs":["http://l{id}"],"isLearner":true}}"#);
    change(ConfChangeType::ConfChangeAddLearnerNode, id, &json)
}

fn promote(id: u64) -> ConfChange {
    let json = format!(r#"{{"id":{id},"peerURLs":null,"isPromote":true}}"#);
    change(ConfChangeType::ConfChangeAddNode, id, &json)
}

fn update(id: u64, url: &str) -> ConfChange {
    change(ConfChangeType::ConfChangeUpdateNode, id, &format!(r#"{{"id":{id},"peerURLs":["{url}"]}}"#))
}

fn remove(id: u64) -> ConfChange {
    change(ConfChangeType::ConfChangeRemoveNode, id, "")
}

#[test]
fn members_come_change_and_go() {
    use ConfChangeOutcome::{Applied, Refused};
    let mut member = Member::new();
    let steps = [
        (add(1, "http://a"), Applied),
        (add(1, "http://b"), Refused(ApiError::MemberExist)),
        (add(2, "http://a"), Refused(ApiError::PeerUrlExist)),
        (add(2, "http://b"), Applied),
        (update(2, "http://a"), Refused(ApiError::PeerUrlExist)),
        (update(2, "http://b"), Applied),
        (update(2, "http://c"), Applied),
        (update(3, "http://d"), Refused(ApiError::MemberNotFound)),
        (promote(3), Refused(ApiError::MemberNotFound)),
        (promote(2), Refused(ApiError::MemberNotLearner)),
        (learner(3), Applied),
        (learner(4), Refused(ApiError::TooManyLearners)),
        (promote(3), Applied),
        (learner(4), Applied),
        (remove(5), Refused(ApiError::MemberNotFound)),
        (remove(2), Applied),
        (remove(2), Refused(ApiError::MemberNotFound)),
        (add(2, "http://z"), Refused(ApiError::MemberNotFound)),
    ];
    for (change, want) in steps {
        let before = member.store.membership().clone();
        assert_eq!(member.store.apply_conf_change(&change), Ok(want), "{change:?}");
        member.store.check();
        let changed = member.store.take_tables(false).is_some();
        assert_eq!(changed, want == Applied);
        if !changed {
            assert_eq!(*member.store.membership(), before, "a refused change changes nothing");
        }
    }
    assert_eq!(member.reader.membership().members().len(), 0, "nothing is published yet");
    member.publish();
    let membership = member.reader.membership();
    let shown: Vec<_> =
        membership.members().map(|m| (m.id, &m.name[..], &m.peer_urls[0][..], m.is_learner)).collect();
    assert_eq!(
        shown,
        [(1, "m1", "http://a", false), (3, "", "http://l3", false), (4, "", "http://l4", true)]
    );
    assert!(membership.is_removed(2));
    member.tables = vec![(member.store.take_tables(true).unwrap(), true)];
    member.restart();
    assert_eq!(member.reader.membership(), membership);
}

#[test]
fn a_started_member_and_the_cluster_version_are_known() {
    let mut member = Member::new();
    member.store.apply_conf_change(&add(7, "http://a")).unwrap();
    member.store.apply_conf_change(&add(8, "http://b")).unwrap();
    member.store.apply_conf_change(&remove(8)).unwrap();
    let urls = ["http://c".to_owned()];
    for (id, entry) in [
        (1, admission::encode_member_attributes(1, 7, "seven", &urls)),
        (2, admission::encode_member_attributes(2, 8, "removed", &urls)),
        (3, admission::encode_cluster_version_set(3, "3.7.0")),
    ] {
        let applied = member.store.apply(&entry, true, &mut member.batch).unwrap();
        assert_eq!(applied.id, id);
        assert!(applied.result.unwrap().body.is_empty());
    }
    assert_eq!(member.reader.membership().cluster_version(), None);
    member.publish();
    let membership = member.reader.membership();
    assert_eq!(membership.cluster_version(), Some("3.7.0"));
    let started = membership.member(7).unwrap();
    assert_eq!((&started.name[..], &started.client_urls[..]), ("seven", &urls[..]));
    assert_eq!(membership.member(8), None);
    assert_eq!(member.store.revision(), 1, "none of this is a revision");
}

fn stops(member: &mut Store, batch: &mut support::Batch, request: pb::InternalRaftRequest) -> Fatal {
    member.apply(&request.encode_to_vec(), true, batch).unwrap_err()
}

/// Rule 20: what is unknown, or not ours to apply yet, is never skipped.
#[test]
fn what_cannot_be_applied_stops_the_member() {
    let mut member = Member::new();
    let header = Some(pb::RequestHeader { id: 5, ..Default::default() });
    let with_header = pb::InternalRaftRequest { header: header.clone(), ..Default::default() };
    let put = Some(pb::PutRequest { key: support::bytes("k"), ..Default::default() });
    let mut stop = |request| stops(&mut member.store, &mut member.batch, request);
    assert_eq!(stop(pb::InternalRaftRequest { put: put.clone(), ..Default::default() }), Fatal::NoHeader);
    assert_eq!(stop(with_header.clone()), Fatal::UnknownRequest);
    // Each member would hash it with a salt of its own.
    let plain = pb::AuthUserAddRequest { name: "u".into(), password: "p".into(), ..Default::default() };
    let user = pb::InternalRaftRequest { auth_user_add: Some(plain), ..with_header.clone() };
    assert!(matches!(stop(user), Fatal::UnsupportedRequest(_)));
    let version =
        pb::InternalRaftRequest { cluster_version_set: Some(Default::default()), ..with_header.clone() };
    assert!(matches!(stop(version), Fatal::InvalidRequest(_)));
    let to_nothing = wire::membershippb::DowngradeInfoSetRequest { enabled: true, ver: "3".into() };
    let downgrade = pb::InternalRaftRequest { downgrade_info_set: Some(to_nothing), ..with_header.clone() };
    assert!(matches!(stop(downgrade), Fatal::InvalidRequest(_)));
    let attributes =
        pb::InternalRaftRequest { cluster_member_attr_set: Some(Default::default()), ..with_header.clone() };
    assert!(matches!(stop(attributes), Fatal::InvalidRequest(_)));
    assert!(matches!(member.store.apply(&[0xff], true, &mut member.batch), Err(Fatal::Undecodable(_))));
    // A request of a later version: a field that nobody knows yet.
    let mut unknown = with_header.encode_to_vec();
    unknown.extend([0x8a, 0x7d, 0]);
    let stopped = member.store.apply(&unknown, true, &mut member.batch);
    assert_eq!(stopped, Err(Fatal::UnknownRequest));
    let alarms = pb::InternalRaftRequest { alarm: Some(Default::default()), ..with_header.clone() };
    let test = pb::InternalRaftRequest { downgrade_version_test: Some(Default::default()), ..with_header };
    for request in [alarms, test] {
        let applied = member.store.apply(&request.encode_to_vec(), true, &mut member.batch).unwrap();
        assert_eq!((applied.id, applied.result.unwrap().revision), (5, 1));
    }
    // The id of old entries stands outside the header.
    let old = pb::InternalRaftRequest { id: 6, put, header: None, ..Default::default() };
    assert_eq!(member.store.apply(&old.encode_to_vec(), true, &mut member.batch).unwrap().id, 6);
    let unknown_type = ConfChange { r#type: Some(9), ..Default::default() };
    assert_eq!(member.store.apply_conf_change(&unknown_type), Err(Fatal::UnknownConfChange(9)));
    let other = change(ConfChangeType::ConfChangeAddNode, 4, r#"{"id":5,"peerURLs":[]}"#);
    assert!(matches!(member.store.apply_conf_change(&other), Err(Fatal::InvalidConfChange(_))));
}

/// A member of etcd's puts a client's message into the log as it came, with what its decoder skips.
#[test]
fn what_a_client_of_etcd_s_members_adds_stops_nobody() {
    let mut member = Member::new();
    let mut id = 0;
    let mut apply = |number: u32, request: &[u8]| {
        id += 1;
        let mut entry = Vec::new();
        for (number, part) in [(number, request), (100, &[0x08, id][..])] {
            prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut entry);
            prost::encoding::encode_varint(part.len() as u64, &mut entry);
            entry.extend_from_slice(part);
        }
        assert_eq!(store::check_request(&entry), Ok(()));
        let applied = member.store.apply(&entry, true, &mut member.batch).unwrap();
        assert_eq!(applied.id, u64::from(id));
        applied.result.map(|answer| answer.body)
    };
    // An unknown field of nested groups in AuthStatus, which anybody may ask for.
    let groups = [[0x7b].repeat(101), [0x7c].repeat(101)].concat();
    let status = pb::AuthStatusResponse::decode(&apply(1013, &groups).unwrap()[..]).unwrap();
    assert_eq!((status.enabled, status.auth_revision), (false, 1));
    // The time to live of a lease as bytes: it has none, so the least there is.
    let granted = apply(8, &[0x0a, 0x00, 0x10, 0x05]).unwrap();
    assert_eq!(pb::LeaseGrantResponse::decode(&granted[..]).unwrap().id, 5);
    assert_eq!(apply(8, &[0x10, 0x05]), Err(ApiError::LeaseExist));
    // Two roles whose names are no UTF-8: 3.6 takes them for two.
    for name in [0xff, 0xfe] {
        apply(1200, &[0x0a, 1, name]).unwrap();
        assert_eq!(apply(1200, &[0x0a, 1, name]), Err(ApiError::RoleAlreadyExist));
    }
    assert_eq!(member.store.auth().revision(), 3);
    member.store.check();
}

#[test]
fn a_read_error_inside_apply_stops_the_member() {
    let mut member = Member::new();
    member.put("k", "v");
    member.log.is_broken.store(true, std::sync::atomic::Ordering::Relaxed);
    let put = pb::PutRequest { key: support::bytes("k"), ignore_value: true, ..Default::default() };
    let entry = admission::encode_put(1, Caller::NOBODY, &put.encode_to_vec());
    let stopped = member.store.apply(&entry, false, &mut member.batch);
    assert!(matches!(stopped, Err(Fatal::Read(_))), "{stopped:?}");
    assert!(member.batch.pending.is_empty());
}

#[test]
fn replay_refuses_records_that_do_not_follow() {
    use store::{Location, RecordKind, RestoreError, Revision};
    let mut member = Member::new();
    let at = |main| Revision { main, sub: 0 };
    let record = [0x0a, 1, b'k', 0x10, 2, 0x18, 2, 0x20, 1];
    let mut replay = |kind, main, bytes: &[u8]| member.store.replay(kind, at(main), Location(0), bytes);
    assert!(
        matches!(replay(RecordKind::Put, 1, &record), Err(RestoreError::Record { .. })),
        "below the first"
    );
    assert!(
        matches!(replay(RecordKind::Put, 3, &record), Err(RestoreError::Record { .. })),
        "of another revision"
    );
    assert_eq!(replay(RecordKind::Put, 2, &record), Ok(()));
    assert!(matches!(replay(RecordKind::Put, 2, &record), Err(RestoreError::Record { .. })), "twice");
    assert_eq!(replay(RecordKind::Tombstone, 4, &record[..3]), Ok(()));
    assert!(
        matches!(replay(RecordKind::Tombstone, 3, &record[..3]), Err(RestoreError::Record { .. })),
        "back"
    );
    assert!(matches!(replay(RecordKind::Put, 5, &[0x0a]), Err(RestoreError::Record { .. })), "no pair");
    assert_eq!(member.store.check_restored(), Ok(()));
    // What a compaction has left may delete nothing that is there; anything else may not.
    let mut member = Member::new();
    assert_eq!(member.store.replay(RecordKind::Tombstone, at(2), Location(0), &record[..3]), Ok(()));
    assert!(matches!(member.store.check_restored(), Err(RestoreError::Record { .. })));
}

#[test]
fn a_downgrade_is_replicated_and_kept() {
    let mut member = Member::new();
    for (enabled, ver, target) in
        [(true, "3.6.0", Some("3.6.0")), (false, "", None), (true, "3.5.0", Some("3.5.0"))]
    {
        let set = wire::membershippb::DowngradeInfoSetRequest { enabled, ver: ver.into() };
        let request = pb::InternalRaftRequest { downgrade_info_set: Some(set), ..Default::default() };
        member.apply(request, true).result.unwrap();
        member.publish();
        assert_eq!(member.reader.membership().downgrade_target(), target);
        member.restart();
        assert_eq!(member.reader.membership().downgrade_target(), target);
    }
}
