//! What etcd checks before a change of membership is proposed, each check on both sides of its edge.

use node::{Change, NewMember, RequestId, Situation, added_member_id};
use prost::Message as _;
use raft::Time;
use store::Membership;
use wire::ApiError;
use wire::raftpb::{ConfChange, ConfChangeType};

const OWN: u64 = 1;
/// Later than anybody has to be connected.
const NOW: Time = Time(60_000_000);
const LONG_AGO: Time = Time(0);

/// So many voters, of whom the first have started, and a learner if that is wanted.
fn membership(voters: u64, started: u64, learner: Option<u64>) -> Membership {
    let member = |id: u64, is_learner: bool| {
        let (mut raft, mut attributes) = (serde_json::Map::new(), serde_json::Map::new());
        raft.insert("peerURLs".into(), vec![format!("http://m{id}:2380")].into());
        if is_learner {
            raft.insert("isLearner".into(), true.into());
        }
        if id <= started && !is_learner {
            attributes.insert("name".into(), format!("m{id}").into());
        }
        (id, raft, attributes)
    };
    let members: Vec<_> = (1..=voters)
        .map(|id| member(id, false))
        .chain(learner.map(|id| member(id, true)))
        .map(|(id, raft, attributes)| {
            let text = |map| serde_json::Value::Object(map).to_string();
            let node = |name: &str, value: String| {
                serde_json::json!({"Path": format!("/0/members/{id:x}/{name}"), "Value": value})
            };
            let children = serde_json::json!({
                "attributes": node("attributes", text(attributes)),
                "raftAttributes": node("raftAttributes", text(raft)),
            });
            (format!("{id:x}"), serde_json::json!({"Path": format!("/0/members/{id:x}"), "Children": children}))
        })
        .collect();
    let members: serde_json::Map<String, serde_json::Value> = members.into_iter().collect();
    let root = serde_json::json!({"Root": {"Path": "/", "Children": {"0": {"Path": "/0", "Children": {
        "members": {"Path": "/0/members", "Children": members},
    }}}}});
    Membership::from_v2_store(root.to_string().as_bytes()).expect("a v2 store")
}

fn situation<'a>(
    membership: &'a Membership,
    connected_since: &'a dyn Fn(u64) -> Option<Time>,
) -> Situation<'a> {
    Situation { membership, own: OWN, strict: true, now: NOW, connected_since }
}

fn all_connected(_: u64) -> Option<Time> {
    Some(LONG_AGO)
}

fn nobody_connected(_: u64) -> Option<Time> {
    None
}

#[test]
fn a_voter_is_added_only_where_enough_have_started() {
    for (voters, started, allowed) in
        [(1, 1, true), (1, 0, false), (2, 1, false), (2, 2, true), (3, 2, false), (3, 3, true), (4, 3, true)]
    {
        let members = membership(voters, started, None);
        let expected = if allowed { Ok(()) } else { Err(ApiError::MemberNotEnoughStarted) };
        assert_eq!(situation(&members, &all_connected).may_add(false), expected, "{started} of {voters}");
        assert_eq!(situation(&members, &all_connected).may_add(true), Ok(()), "a learner takes no part");
    }
}

#[test]
fn a_member_is_added_only_by_who_is_connected_to_a_quorum_for_long_enough() {
    let alone = membership(1, 1, None);
    assert_eq!(situation(&alone, &nobody_connected).may_add(false), Ok(()), "a cluster of one is exempt");
    let three = membership(3, 3, None);
    // A quorum of four is three.
    let one_is_there = |id: u64| (id == 2).then_some(LONG_AGO);
    for is_learner in [false, true] {
        assert_eq!(situation(&three, &one_is_there).may_add(is_learner), Err(ApiError::Unhealthy));
        assert_eq!(situation(&three, &all_connected).may_add(is_learner), Ok(()));
        let lately = |_: u64| Some(NOW.minus_ms(5_000));
        assert_eq!(situation(&three, &lately).may_add(is_learner), Err(ApiError::Unhealthy));
        let just_long_enough = |_: u64| Some(NOW.minus_ms(5_001));
        assert_eq!(situation(&three, &just_long_enough).may_add(is_learner), Ok(()));
        let lax = Situation { strict: false, ..situation(&three, &nobody_connected) };
        assert_eq!(lax.may_add(is_learner), Ok(()), "without --strict-reconfig-check");
    }
}

#[test]
fn a_member_is_removed_only_where_a_quorum_is_left() {
    let three = membership(3, 2, None);
    assert_eq!(
        situation(&three, &all_connected).may_remove(2),
        Err(ApiError::MemberNotEnoughStarted),
        "of the two that are left one has not started"
    );
    assert_eq!(situation(&three, &all_connected).may_remove(3), Ok(()));
    let three = membership(3, 3, None);
    assert_eq!(situation(&three, &nobody_connected).may_remove(2), Ok(()), "who is down may go");
    let one_is_there = |id: u64| (id == 2).then_some(LONG_AGO);
    assert_eq!(situation(&three, &one_is_there).may_remove(2), Err(ApiError::Unhealthy));
    assert_eq!(situation(&three, &one_is_there).may_remove(OWN), Err(ApiError::Unhealthy));
    assert_eq!(situation(&three, &all_connected).may_remove(2), Ok(()));
    let with_learner = membership(3, 1, Some(9));
    assert_eq!(situation(&with_learner, &nobody_connected).may_remove(9), Ok(()), "a learner always");
}

#[test]
fn a_learner_is_promoted_only_where_enough_have_started() {
    for (voters, started, allowed) in [(1, 1, true), (3, 2, true), (3, 1, false)] {
        let members = membership(voters, started, Some(9));
        let expected = if allowed { Ok(()) } else { Err(ApiError::MemberNotEnoughStarted) };
        assert_eq!(situation(&members, &all_connected).may_promote(), expected, "{started} of {voters}");
    }
}

#[test]
fn leadership_goes_to_voters_and_at_a_stop_to_who_is_connected_longest() {
    let members = membership(3, 3, Some(9));
    let here = situation(&members, &all_connected);
    assert_eq!((here.may_lead(2), here.may_lead(OWN)), (Ok(()), Ok(())));
    assert_eq!(here.may_lead(9), Err(ApiError::BadLeaderTransferee), "a learner");
    assert_eq!(here.may_lead(77), Err(ApiError::BadLeaderTransferee), "nobody");
    let since = |id: u64| [None, None, Some(Time(50)), Some(Time(20))].get(id as usize).copied().flatten();
    assert_eq!(situation(&members, &since).heir(), Some(3));
    assert_eq!(situation(&members, &nobody_connected).heir(), None);
    // The learner is connected, and gets nothing.
    let only_learner = |id: u64| (id == 9).then_some(LONG_AGO);
    assert_eq!(situation(&members, &only_learner).heir(), None);
}

#[test]
fn who_is_connected_to_half_of_the_others_has_a_quorum() {
    let (three, four) = (membership(3, 3, Some(9)), membership(4, 4, None));
    let one_is_there = |id: u64| (id == 2).then_some(NOW);
    assert!(situation(&three, &one_is_there).has_quorum());
    assert!(!situation(&four, &one_is_there).has_quorum());
    let only_learner = |id: u64| (id == 9).then_some(NOW);
    assert!(!situation(&three, &only_learner).has_quorum());
    assert!(situation(&membership(1, 1, None), &nobody_connected).has_quorum());
}

/// As Go's etcd encodes them.
#[test]
fn changes_are_etcds() {
    let decode = |change: Change| ConfChange::decode(&change.encode(RequestId(7))[..]).expect("a change");
    let json = |change: &ConfChange| String::from_utf8(change.context().to_vec()).expect("text");
    let peer_urls = vec!["http://m:2380".to_owned()];
    let learner = NewMember { id: 5, peer_urls: peer_urls.clone(), is_learner: true };
    let change = decode(Change::Add { member: learner });
    assert_eq!((change.id(), change.node_id()), (7, 5));
    assert_eq!(change.r#type(), ConfChangeType::ConfChangeAddLearnerNode);
    assert_eq!(json(&change), r#"{"id":5,"peerURLs":["http://m:2380"],"isLearner":true}"#);
    let change = decode(Change::Promote { id: 5 });
    assert_eq!(change.r#type(), ConfChangeType::ConfChangeAddNode);
    assert_eq!(json(&change), r#"{"id":5,"peerURLs":null,"isPromote":true}"#);
    let change = decode(Change::Update { id: 5, peer_urls });
    assert_eq!(change.r#type(), ConfChangeType::ConfChangeUpdateNode);
    assert_eq!(json(&change), r#"{"id":5,"peerURLs":["http://m:2380"]}"#);
    let change = decode(Change::Remove { id: 5 });
    assert_eq!((change.r#type(), change.context), (ConfChangeType::ConfChangeRemoveNode, None));
}

#[test]
fn the_id_of_an_added_member_depends_on_urls_and_time() {
    let urls = ["http://b:1".to_owned(), "http://a:1".to_owned()];
    let turned = [urls[1].clone(), urls[0].clone()];
    assert_eq!(added_member_id(&urls, 100), added_member_id(&turned, 100));
    assert_ne!(added_member_id(&urls, 100), added_member_id(&urls, 101));
    assert_ne!(added_member_id(&urls, 100), added_member_id(&urls[..1], 100));
}
