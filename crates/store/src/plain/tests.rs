//! Every request with everything in it that Go's decoders skip.

use bytes::Bytes as Shared;
use prost::Message as _;
use wire::authpb::{Permission, UserAddOptions};
use wire::etcdserverpb as pb;
use wire::etcdserverpb::compare::TargetUnion;
use wire::etcdserverpb::request_op::Request as Op;
use wire::membershippb;

use super::*;
use crate::apply::{Fatal, with_request};
use crate::request::{self, DeleteRange, Put, Range, Request, Txn};

fn bytes(text: &'static str) -> Shared {
    Shared::from_static(text.as_bytes())
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn range() -> pb::RangeRequest {
    pb::RangeRequest {
        key: bytes("a"),
        range_end: bytes("b"),
        limit: 1,
        revision: 2,
        sort_order: 1,
        sort_target: 4,
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 3,
        max_mod_revision: 4,
        min_create_revision: 5,
        max_create_revision: -6,
    }
}

fn put() -> pb::PutRequest {
    let (key, value) = (bytes("key"), bytes("value"));
    pb::PutRequest { key, value, lease: 7, prev_kv: true, ignore_value: true, ignore_lease: true }
}

fn delete_range() -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: bytes("c"), range_end: bytes("d"), prev_kv: true }
}

fn txn() -> pb::TxnRequest {
    let unions = [
        TargetUnion::Version(1),
        TargetUnion::CreateRevision(2),
        TargetUnion::ModRevision(3),
        TargetUnion::Value(bytes("v")),
        TargetUnion::Lease(5),
    ];
    let compare = |union: TargetUnion| pb::Compare {
        result: 3,
        target: 1,
        key: bytes("k"),
        range_end: bytes("l"),
        target_union: Some(union),
    };
    let compare = unions.map(compare).to_vec();
    let op = |request| pb::RequestOp { request: Some(request) };
    let within = pb::TxnRequest {
        compare: compare[..1].to_vec(),
        success: vec![op(Op::RequestPut(put()))],
        failure: vec![op(Op::RequestTxn(pb::TxnRequest::default()))],
    };
    pb::TxnRequest {
        compare,
        success: vec![op(Op::RequestRange(range())), op(Op::RequestTxn(within))],
        failure: vec![op(Op::RequestPut(put())), op(Op::RequestDeleteRange(delete_range()))],
    }
}

/// A message with every field that there is: nothing is left to a default.
fn all_requests() -> pb::InternalRaftRequest {
    let name = || text("name");
    pb::InternalRaftRequest {
        header: Some(pb::RequestHeader { id: 1, username: name(), auth_revision: 2 }),
        id: 3,
        range: Some(range()),
        put: Some(put()),
        delete_range: Some(delete_range()),
        txn: Some(txn()),
        compaction: Some(pb::CompactionRequest { revision: 1, physical: true }),
        lease_grant: Some(pb::LeaseGrantRequest { ttl: 60, id: 5 }),
        lease_revoke: Some(pb::LeaseRevokeRequest { id: 5 }),
        alarm: Some(pb::AlarmRequest { action: 1, member_id: 2, alarm: 1 }),
        lease_checkpoint: Some(pb::LeaseCheckpointRequest {
            checkpoints: vec![pb::LeaseCheckpoint { id: 5, remaining_ttl: 6 }; 2],
        }),
        auth_enable: Some(pb::AuthEnableRequest {}),
        auth_disable: Some(pb::AuthDisableRequest {}),
        auth_status: Some(pb::AuthStatusRequest {}),
        authenticate: Some(pb::InternalAuthenticateRequest {
            name: name(),
            password: text("password"),
            simple_token: text("token"),
        }),
        auth_user_add: Some(pb::AuthUserAddRequest {
            name: name(),
            password: text("password"),
            options: Some(UserAddOptions { no_password: true }),
            hashed_password: text("hashed"),
        }),
        auth_user_delete: Some(pb::AuthUserDeleteRequest { name: name() }),
        auth_user_get: Some(pb::AuthUserGetRequest { name: name() }),
        auth_user_change_password: Some(pb::AuthUserChangePasswordRequest {
            name: name(),
            password: text("password"),
            hashed_password: text("hashed"),
        }),
        auth_user_grant_role: Some(pb::AuthUserGrantRoleRequest { user: name(), role: text("role") }),
        auth_user_revoke_role: Some(pb::AuthUserRevokeRoleRequest { name: name(), role: text("role") }),
        auth_user_list: Some(pb::AuthUserListRequest {}),
        auth_role_list: Some(pb::AuthRoleListRequest {}),
        auth_role_add: Some(pb::AuthRoleAddRequest { name: name() }),
        auth_role_delete: Some(pb::AuthRoleDeleteRequest { role: text("role") }),
        auth_role_get: Some(pb::AuthRoleGetRequest { role: text("role") }),
        auth_role_grant_permission: Some(pb::AuthRoleGrantPermissionRequest {
            name: name(),
            perm: Some(Permission { perm_type: 2, key: bytes("e"), range_end: bytes("f") }),
        }),
        auth_role_revoke_permission: Some(pb::AuthRoleRevokePermissionRequest {
            role: text("role"),
            key: bytes("e"),
            range_end: bytes("f"),
        }),
        cluster_version_set: Some(membershippb::ClusterVersionSetRequest { ver: text("3.7.0") }),
        cluster_member_attr_set: Some(membershippb::ClusterMemberAttrSetRequest {
            member_id: 1,
            member_attributes: Some(membershippb::Attributes {
                name: name(),
                client_urls: vec![text("http://a"), text("http://b")],
            }),
        }),
        downgrade_info_set: Some(membershippb::DowngradeInfoSetRequest { enabled: true, ver: text("3.6.0") }),
        downgrade_version_test: Some(pb::DowngradeVersionTestRequest { ver: text("3.6.0") }),
    }
}

/// The parts of a message, by number.
fn parts(message: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut fields = Fields::new(message);
    let mut parts = Vec::new();
    while let Some((number, field)) = fields.next().unwrap() {
        if let Field::Bytes(bytes) = field {
            parts.push((number, bytes.to_vec()));
        }
    }
    parts
}

const HEADER: u32 = 100;

/// An entry for each kind of request.
fn entries() -> Vec<Vec<u8>> {
    let parts = parts(&all_requests().encode_to_vec());
    let (_, header) = parts.iter().find(|(number, _)| *number == HEADER).unwrap();
    let requests = parts.iter().filter(|(number, _)| *number != HEADER);
    let entries: Vec<_> = requests
        .map(|(number, request)| {
            let mut entry = Vec::new();
            for (number, part) in [(*number, request), (HEADER, header)] {
                put_length(&mut entry, number, part.len());
                entry.extend_from_slice(part);
            }
            entry
        })
        .collect();
    assert_eq!(entries.len(), 30);
    entries
}

fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

/// Groups one within the other, as many as `depth`, with a field of each type in the last.
fn groups(number: u32, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    (0..depth).for_each(|_| put_tag(&mut out, number, 3));
    out.extend([0x08, 0x05, 0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x12, 1, b'x', 0x1d, 1, 2, 3, 4]);
    (0..depth).for_each(|_| put_tag(&mut out, number, 4));
    out
}

/// A field that the message does not have: a known one with another type, or one that nobody knows.
fn odd_field(shape: &Shape, choice: usize) -> Vec<u8> {
    let mut choices = Vec::new();
    let unknown = [30, 2047, (1 << 29) - 1].map(|number| (number, None));
    for (number, is) in shape.0.iter().map(|(number, is)| (*number, Some(*is))).chain(unknown) {
        for wire_type in [0u8, 1, 2, 3, 5] {
            let is_right = match is {
                Some(Number) => wire_type == 0,
                Some(_) => wire_type == 2,
                None => false,
            };
            if !is_right {
                choices.push((number, wire_type));
            }
        }
    }
    let Some((number, wire_type)) = choices.get(choice % (choices.len() + 1)).copied() else {
        return groups(30, 10_001);
    };
    if wire_type == 3 {
        // prost ends at the 101st.
        return groups(number, 101);
    }
    let mut out = Vec::new();
    put_tag(&mut out, number, wire_type);
    match wire_type {
        0 => put_varint(&mut out, 300),
        1 => out.extend([0xff; 8]),
        2 => out.extend([3, 0xff, 0x08, 0x01]),
        _ => out.extend([0xff; 4]),
    }
    out
}

/// What etcd 3.6 takes as an unknown field, and 3.7 refuses.
fn refused_fields() -> [Vec<u8>; 5] {
    let tag = |number, wire_type| {
        let mut out = Vec::new();
        put_tag(&mut out, number, wire_type);
        out
    };
    [
        groups(30, 10_002),
        [tag(30, 3), tag(31, 4)].concat(),
        [tag(30, 3), vec![0, 0], tag(30, 4)].concat(),
        [tag(1 << 28, 3), tag(1 << 28, 4), vec![0x80, 0x80, 0x80, 0x80, 0x10, 0]].concat(),
        [tag(30, 0), vec![0xff; 9], vec![0x7f]].concat(),
    ]
}

/// The message with something odd before and behind the fields of it, and of each one within.
fn spoiled(message: &[u8], shape: &Shape, odd: &mut impl FnMut(&Shape) -> Vec<u8>) -> Vec<u8> {
    let mut out = odd(shape);
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next().unwrap() {
        match (shape.field(number), field) {
            (_, Field::Number(value)) => {
                put_tag(&mut out, number, 0);
                put_varint(&mut out, value);
            }
            (Some(Message(inner)), Field::Bytes(bytes)) => {
                let bytes = spoiled(bytes, inner, odd);
                put_length(&mut out, number, bytes.len());
                out.extend(bytes);
            }
            (_, Field::Bytes(bytes)) => {
                put_length(&mut out, number, bytes.len());
                out.extend_from_slice(bytes);
            }
        }
    }
    out.extend(odd(shape));
    out
}

/// Holds if both entries ask for the same.
fn same(entry: &[u8], odd: &[u8]) {
    let compared = with_request(entry, |want| {
        with_request(odd, |got| {
            assert_eq!(got, want);
            Ok(())
        })
    });
    assert_eq!(compared, Ok(()), "{:x?}", &odd[..odd.len().min(200)]);
}

#[test]
fn every_field_is_known() {
    let encoded = all_requests().encode_to_vec();
    assert_eq!(plain(&encoded, &INTERNAL_RAFT_REQUEST), Ok((encoded, Form::Plain)));
}

#[test]
fn an_entry_asks_for_the_same_with_fields_that_nobody_knows() {
    let entries = entries();
    for choice in 0..70 {
        for entry in &entries {
            let odd = spoiled(entry, &INTERNAL_RAFT_REQUEST, &mut |shape| odd_field(shape, choice));
            assert_eq!(plain(&odd, &INTERNAL_RAFT_REQUEST), Ok((entry.clone(), Form::Odd)));
            same(entry, &odd);
        }
    }
    for refused in refused_fields() {
        for entry in &entries {
            let odd = spoiled(entry, &INTERNAL_RAFT_REQUEST, &mut |_| refused.clone());
            assert_eq!(plain(&odd, &INTERNAL_RAFT_REQUEST), Ok((entry.clone(), Form::Refused)));
            same(entry, &odd);
        }
    }
}

#[test]
fn an_entry_asks_for_the_same_whatever_is_in_it_where() {
    // A generator of numbers (Knuth's MMIX) is all that this needs.
    let mut state = 11u64;
    let mut draw = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let entries = entries();
    for _ in 0..2000 {
        let entry = &entries[draw(entries.len())];
        let odd = spoiled(entry, &INTERNAL_RAFT_REQUEST, &mut |shape| match draw(3) {
            0 => [odd_field(shape, draw(500)), odd_field(shape, draw(500))].concat(),
            1 => odd_field(shape, draw(500)),
            _ => Vec::new(),
        });
        same(entry, &odd);
    }
}

/// A client's message is proposed in a form that every member reads, or refused as etcd 3.7 refuses it.
#[test]
fn a_client_s_message_is_proposed_without_what_nobody_knows() {
    let is_plain = |request, message: &[u8]| match request {
        Request::Range => Range::decode_plain(message).map(drop),
        Request::Put => Put::decode_plain(message).map(drop),
        Request::DeleteRange => DeleteRange::decode_plain(message).map(drop),
        Request::Txn => Txn::decode_plain(message).map(drop),
    };
    for (request, shape, message) in [
        (Request::Range, &RANGE, range().encode_to_vec()),
        (Request::Put, &PUT, put().encode_to_vec()),
        (Request::DeleteRange, &DELETE_RANGE, delete_range().encode_to_vec()),
        (Request::Txn, &TXN, txn().encode_to_vec()),
    ] {
        assert_eq!(is_plain(request, &message), Ok(()));
        for choice in 0..70 {
            let odd = spoiled(&message, shape, &mut |shape| odd_field(shape, choice));
            assert_eq!(is_plain(request, &odd), Err(DecodeError::NotPlain), "{request:?} {choice}");
            assert_eq!(request::plain(request, &odd).as_ref(), Ok(&message), "{request:?} {choice}");
        }
        for refused in refused_fields() {
            let odd = spoiled(&message, shape, &mut |_| refused.clone());
            assert_eq!(is_plain(request, &odd), Err(DecodeError::Malformed), "{request:?}");
            assert_eq!(request::plain(request, &odd), Err(DecodeError::Malformed), "{request:?}");
        }
        for depth in 0..3 {
            // In one of the messages alone.
            let mut left = depth;
            let mut once = |shape: &Shape| {
                left -= 1;
                if left == -1 { odd_field(shape, 1) } else { Vec::new() }
            };
            let odd = spoiled(&message, shape, &mut once);
            if odd != message {
                assert_eq!(is_plain(request, &odd), Err(DecodeError::NotPlain), "{request:?} {depth}");
            }
        }
    }
}

/// Pieces of a request are joined, and looked at even where another request has replaced them.
#[test]
fn a_transaction_in_pieces_has_nothing_odd_in_it_either() {
    let field = |number, content: &[u8]| {
        let mut out = Vec::new();
        put_length(&mut out, number, content.len());
        out.extend_from_slice(content);
        out
    };
    let op = |pieces: &[Vec<u8>]| field(2, &pieces.concat());
    let (key, value) = (field(1, b"k"), field(2, b"v"));
    let odd = odd_field(&PUT, 0);
    let pieces = op(&[field(2, &[key.clone(), odd].concat()), field(2, &value)]);
    let whole = op(&[field(2, &[key.clone(), value].concat())]);
    assert_eq!(Txn::decode_plain(&pieces), Err(DecodeError::Repeated));
    assert_eq!(request::plain(Request::Txn, &pieces), Ok(whole));
    let replaced = op(&[field(1, &groups(30, 10_002)), field(2, &key)]);
    assert_eq!(request::plain(Request::Txn, &replaced), Err(DecodeError::Malformed));
}

/// protobuf-go goes 10,000 messages deep, the entry's own among them.
#[test]
fn a_transaction_is_no_deeper_than_an_entry_may_be() {
    let mut message = txn().encode_to_vec();
    // It has three of its own.
    for levels in 4..=5_001 {
        let op = [&[4 << 3 | 2][..], &length(message.len()), &message].concat();
        message = [&[2 << 3 | 2][..], &length(op.len()), &op].concat();
        if levels > 4_995 || levels == 100 {
            let want = if levels < 5_000 { Ok(()) } else { Err(DecodeError::Malformed) };
            assert_eq!(Txn::decode_plain(&message).map(drop), want, "{levels}");
        }
    }
}

fn length(bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, bytes as u64);
    out
}

/// Which etcd 3.6 lets into the log.
#[test]
fn names_that_are_no_text_stay_apart() {
    let add = |name: &[u8]| {
        let request = [&[0x0a, name.len() as u8][..], name].concat();
        let mut entry = Vec::new();
        put_length(&mut entry, 1200, request.len());
        entry.extend(request);
        // The header names somebody who is no text either.
        entry.extend([0xa2, 0x06, 5, 0x08, 9, 0x12, 1, 0xe4]);
        entry
    };
    let read = |name: &[u8]| {
        with_request(&add(name), |request| {
            assert_eq!((request.id, request.caller.name), (9, "\u{10ffe4}"));
            Ok(format!("{:?}", plain(&add(name), &INTERNAL_RAFT_REQUEST)))
        })
    };
    let names: [&[u8]; 5] = [b"\xff", b"\xfe", b"a\xff", b"\xc3", "é".as_bytes()];
    let read: Result<std::collections::BTreeSet<_>, Fatal> = names.into_iter().map(read).collect();
    assert_eq!(read.map(|names| names.len()), Ok(names.len()));
    assert_eq!(super::text(b"a\xffb\xc3"), "a\u{10ffff}b\u{10ffc3}".as_bytes());
    // A put's entry is read without prost, and its header too.
    let put = [&[0x22, 3, 0x0a, 1, b'k'][..], &[0xa2, 0x06, 5, 0x08, 9, 0x12, 1, 0xe4]].concat();
    let caller = with_request(&put, |request| Ok(request.caller.name.to_owned()));
    assert_eq!(caller, Ok("\u{10ffe4}".to_owned()));
}
