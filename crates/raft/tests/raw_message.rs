//! Messages and etcd's fields of them, both ways.

use bytes::Bytes;
use raft::*;

const ONE: Index = Index(1);

fn entry(index: u64, term: u64, data: &'static str) -> Entry {
    Entry { term: Term(term), index: Index(index), kind: EntryKind::Normal, data: data.into() }
}

fn snapshot() -> Snapshot {
    let conf = ConfState { voters: vec![NodeId(1), NodeId(2)], learners: vec![NodeId(3)] };
    Snapshot { index: Index(9), term: Term(4), conf, data: "{}".into() }
}

/// One of each kind, with no field left at its default.
fn bodies() -> Vec<(MessageType, Body)> {
    let place = (Index(8), Term(3));
    vec![
        (
            MessageType::Prop,
            Body::Propose {
                entries: vec![(EntryKind::Normal, "a".into()), (EntryKind::ConfChange, "b".into())],
            },
        ),
        (
            MessageType::App,
            Body::Append {
                prev: place,
                entries: vec![entry(9, 4, "a"), entry(10, 5, "b")],
                commit: Index(7),
            },
        ),
        (MessageType::AppResp, Body::AppendResponse { index: Index(10), reject: None }),
        (MessageType::AppResp, Body::AppendResponse { index: Index(10), reject: Some(place) }),
        (MessageType::Vote, Body::Vote { last: place, transfer: false }),
        (MessageType::Vote, Body::Vote { last: place, transfer: true }),
        (MessageType::VoteResp, Body::VoteResponse { reject: false }),
        (MessageType::VoteResp, Body::VoteResponse { reject: true }),
        (MessageType::Snap, Body::Snapshot { snapshot: snapshot() }),
        (MessageType::Heartbeat, Body::Heartbeat { commit: Index(7), context: None }),
        (MessageType::Heartbeat, Body::Heartbeat { commit: Index(7), context: Some(258) }),
        (MessageType::HeartbeatResp, Body::HeartbeatResponse { context: None }),
        (MessageType::HeartbeatResp, Body::HeartbeatResponse { context: Some(258) }),
        (MessageType::TransferLeader, Body::TransferLeader),
        (MessageType::TimeoutNow, Body::TimeoutNow),
        (MessageType::ReadIndex, Body::ReadIndex { context: 258 }),
        (MessageType::ReadIndexResp, Body::ReadIndexResponse { index: Index(7), context: 258 }),
        (MessageType::PreVote, Body::PreVote { last: place }),
        (MessageType::PreVoteResp, Body::PreVoteResponse { reject: false }),
        (MessageType::PreVoteResp, Body::PreVoteResponse { reject: true }),
    ]
}

fn message(body: Body) -> Message {
    Message { from: NodeId(1), to: NodeId(2), term: Term(5), body }
}

#[test]
fn nothing_is_lost_on_the_way() {
    for (kind, body) in bodies() {
        let message = message(body);
        let raw = RawMessage::from(message.clone());
        assert_eq!((raw.kind, raw.from, raw.to, raw.term), (kind, message.from, message.to, message.term));
        assert_eq!(Message::try_from(raw), Ok(message));
    }
}

/// Every type is either one that we make and take, or refused by name.
#[test]
fn every_type_has_a_meaning_or_is_refused() {
    let ours: Vec<MessageType> = bodies().into_iter().map(|(kind, _)| kind).collect();
    for (number, kind) in MessageType::ALL.into_iter().enumerate() {
        assert_eq!(MessageType::from_number(number as u64), Some(kind));
        assert_eq!(kind as usize, number);
        let raw = RawMessage { kind, ..RawMessage::from(message(Body::TimeoutNow)) };
        let refused = Message::try_from(raw).err();
        match (ours.contains(&kind), kind.is_local()) {
            (true, false) => assert!(!matches!(refused, Some(MeaninglessMessage::Local(_)))),
            (false, true) => assert_eq!(refused, Some(MeaninglessMessage::Local(kind))),
            (false, false) => {
                assert_eq!(kind, MessageType::ForgetLeader);
                assert_eq!(refused, Some(MeaninglessMessage::Unsupported(kind)));
            }
            (true, true) => panic!("{kind:?} is ours and local"),
        }
    }
    assert_eq!(MessageType::from_number(24), None);
    assert_eq!(MessageType::from_number(u64::MAX), None);
}

/// The places that are easily taken for each other, as etcd has them.
#[test]
fn fields_are_where_etcd_has_them() {
    let raw = |body| RawMessage::from(message(body));
    let refusal = raw(Body::AppendResponse { index: Index(10), reject: Some((Index(8), Term(3))) });
    assert_eq!((refusal.index, refusal.reject_hint, refusal.log_term), (Index(10), Index(8), Term(3)));
    assert!(refusal.reject);
    let append = raw(Body::Append { prev: (Index(8), Term(3)), entries: vec![], commit: Index(7) });
    assert_eq!((append.index, append.log_term, append.commit), (Index(8), Term(3), Index(7)));
    let forced = raw(Body::Vote { last: (ONE, Term(1)), transfer: true });
    assert_eq!(forced.context, "CampaignTransfer");
    // A heartbeat's context is a number of the leader's, little endian; a read's is of the asker's, big endian.
    let heartbeat = raw(Body::Heartbeat { commit: ONE, context: Some(258) });
    assert_eq!(heartbeat.context[..], [2, 1, 0, 0, 0, 0, 0, 0]);
    let read = raw(Body::ReadIndex { context: 258 });
    assert_eq!(read.entries.len(), 1);
    assert_eq!(read.entries[0].data[..], [0, 0, 0, 0, 0, 0, 1, 2]);
}

#[test]
fn senseless_fields_are_refused_by_name() {
    let raw = |body| RawMessage::from(message(body));
    let (context, index) = (258, Index(7));
    let text = |raw: RawMessage| Message::try_from(raw).expect_err("it means nothing").to_string();
    let short = RawMessage {
        context: Bytes::from_static(b"1234567"),
        ..raw(Body::Heartbeat { commit: ONE, context: None })
    };
    assert_eq!(text(short), "Heartbeat has a context of 7 bytes, not 8");
    let none = RawMessage { entries: vec![], ..raw(Body::ReadIndex { context }) };
    assert_eq!(text(none), "ReadIndex has 0 entries, not 1");
    let two = vec![entry(0, 0, "12345678"), entry(0, 0, "12345678")];
    let two = RawMessage { entries: two, ..raw(Body::ReadIndexResponse { index, context }) };
    assert_eq!(text(two), "ReadIndexResp has 2 entries, not 1");
    let long = RawMessage { entries: vec![entry(0, 0, "123456789")], ..raw(Body::ReadIndex { context }) };
    assert_eq!(text(long), "ReadIndex has a context of 9 bytes, not 8");
    let nothing = RawMessage { snapshot: None, ..raw(Body::Snapshot { snapshot: snapshot() }) };
    assert_eq!(text(nothing), "a snapshot is missing");
}
