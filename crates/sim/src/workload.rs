//! Random requests over few keys, so that they meet each other.

use bytes::Bytes;
use wire::authpb::Permission;
use wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcdserverpb::request_op::Request;
use wire::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest, AuthStatusRequest, AuthUserAddRequest, AuthUserDeleteRequest,
    AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest, CompactionRequest, Compare, DeleteRangeRequest,
    InternalRaftRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestHeader,
    RequestOp, TxnRequest,
};

use crate::random::Random;

const KEYS: u64 = 12;
const LEASES: u64 = 4;
/// No lease lives longer without a renewal.
pub const TTL_MAX_S: u64 = 4;

/// A request, and whether it adds data. `seen`: a revision that a client has seen.
pub fn request(random: &mut Random, id: u64, seen: i64) -> (InternalRaftRequest, bool) {
    let mut request = InternalRaftRequest { header: Some(header(random, id)), ..Default::default() };
    let grows = match random.below(24) {
        0..12 => {
            request.put = Some(put(random, id));
            true
        }
        12..16 => {
            request.delete_range = Some(delete(random));
            false
        }
        16 => {
            // Mostly close to what is new, so that there is something left to compact.
            let revision = seen - random.below(6) as i64 + i64::from(random.one_in(4));
            request.compaction = Some(CompactionRequest { revision, physical: false });
            false
        }
        17 => {
            request.lease_grant =
                Some(LeaseGrantRequest { id: lease(random), ttl: random.below(TTL_MAX_S + 1) as i64 });
            true
        }
        18 => {
            request.lease_revoke = Some(LeaseRevokeRequest { id: lease(random) });
            false
        }
        19..21 => {
            about_users(random, &mut request);
            false
        }
        _ => {
            let txn = txn(random, id, 0);
            let grows = has_put(&txn);
            request.txn = Some(txn);
            grows
        }
    };
    (request, grows)
}

/// Mostly of root, who has logged in after every change, so that it may do everything; else of nobody.
fn header(random: &mut Random, id: u64) -> RequestHeader {
    match random.one_in(4) {
        true => RequestHeader { id, ..Default::default() },
        false => RequestHeader { id, username: "root".into(), auth_revision: u64::MAX },
    }
}

/// Few users and roles, so that most of it concerns one that is there; and one permission a key, of which a role may have
/// one only.
fn about_users(random: &mut Random, request: &mut InternalRaftRequest) {
    let name = |random: &mut Random| ["root", "u", "v"][random.below(3) as usize].to_owned();
    let (user, role) = (name(random), name(random));
    match random.below(12) {
        0 | 1 => {
            let hashed_password = "aGFzaA==".to_owned();
            request.auth_user_add =
                Some(AuthUserAddRequest { name: user, hashed_password, ..Default::default() });
        }
        2 => request.auth_user_delete = Some(AuthUserDeleteRequest { name: user }),
        3 | 4 => request.auth_user_grant_role = Some(AuthUserGrantRoleRequest { user, role }),
        5 => request.auth_user_revoke_role = Some(AuthUserRevokeRoleRequest { name: user, role }),
        6 => request.auth_role_add = Some(AuthRoleAddRequest { name: role }),
        7 => request.auth_role_delete = Some(AuthRoleDeleteRequest { role }),
        8 => {
            let perm_type = random.below(3) as i32;
            let perm = Permission { perm_type, key: key(random), range_end: Bytes::from_static(b"\0") };
            request.auth_role_grant_permission =
                Some(AuthRoleGrantPermissionRequest { name: role, perm: Some(perm) });
        }
        9 => request.auth_enable = Some(AuthEnableRequest {}),
        10 => request.auth_disable = Some(AuthDisableRequest {}),
        _ => request.auth_status = Some(AuthStatusRequest {}),
    }
}

/// A lease's id.
pub fn lease(random: &mut Random) -> i64 {
    1 + random.below(LEASES) as i64
}

fn key(random: &mut Random) -> Bytes {
    Bytes::from(format!("k{:02}", random.below(KEYS)))
}

fn put(random: &mut Random, id: u64) -> PutRequest {
    // Some values span several sectors, so that power cuts tear them.
    let padding = if random.one_in(8) { random.below(1500) as usize } else { random.below(40) as usize };
    let mut value = format!("{id:x}.{:x}:", random.below(1 << 16)).into_bytes();
    // Some hold sectors of zeros, as a place that was never written does.
    if random.one_in(16) {
        value.resize(value.len() + 600 + padding, 0);
    }
    value.extend((0..padding).map(|at| b'a' + (at % 23) as u8));
    let lease = if random.one_in(8) { lease(random) } else { 0 };
    PutRequest {
        key: key(random),
        value: value.into(),
        lease,
        prev_kv: random.one_in(4),
        ..Default::default()
    }
}

fn delete(random: &mut Random) -> DeleteRangeRequest {
    let range_end = match random.below(4) {
        0 => key(random),
        _ => Bytes::new(),
    };
    DeleteRangeRequest { key: key(random), range_end, prev_kv: random.one_in(2) }
}

fn range(random: &mut Random) -> RangeRequest {
    let range_end = match random.below(3) {
        0 => key(random),
        1 => Bytes::from_static(b"\0"),
        _ => Bytes::new(),
    };
    RangeRequest { key: key(random), range_end, limit: random.below(4) as i64, ..Default::default() }
}

fn txn(random: &mut Random, id: u64, depth: u32) -> TxnRequest {
    let compare = (0..random.below(3)).map(|_| compare(random)).collect();
    TxnRequest { compare, success: ops(random, id, depth), failure: ops(random, id, depth) }
}

/// Operations that etcd's duplicate-key check lets through: puts on distinct keys, and deletes only beside reads.
fn ops(random: &mut Random, id: u64, depth: u32) -> Vec<RequestOp> {
    let mut put_keys: Vec<Bytes> = Vec::new();
    let only_deletes = random.one_in(3);
    let mut ops = Vec::new();
    for _ in 0..random.below(4) {
        let request = match random.below(4) {
            0 => Request::RequestRange(range(random)),
            1 if depth == 0 && !only_deletes && put_keys.is_empty() && random.one_in(3) => {
                let nested = TxnRequest {
                    compare: vec![compare(random)],
                    success: vec![RequestOp { request: Some(Request::RequestRange(range(random))) }],
                    failure: Vec::new(),
                };
                Request::RequestTxn(nested)
            }
            _ if only_deletes => Request::RequestDeleteRange(delete(random)),
            _ => {
                let put = put(random, id);
                if put_keys.contains(&put.key) {
                    continue;
                }
                put_keys.push(put.key.clone());
                Request::RequestPut(put)
            }
        };
        ops.push(RequestOp { request: Some(request) });
    }
    ops
}

fn has_put(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| matches!(op.request, Some(Request::RequestPut(_))))
}

fn compare(random: &mut Random) -> Compare {
    let number = random.below(4) as i64;
    let (target, operand) = match random.below(4) {
        0 => (CompareTarget::Version, TargetUnion::Version(number)),
        1 => (CompareTarget::Create, TargetUnion::CreateRevision(number)),
        2 => (CompareTarget::Mod, TargetUnion::ModRevision(number)),
        _ => (CompareTarget::Value, TargetUnion::Value(Bytes::from_static(b"8"))),
    };
    let result = match random.below(4) {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        _ => CompareResult::NotEqual,
    };
    Compare {
        result: result.into(),
        target: target.into(),
        key: key(random),
        target_union: Some(operand),
        ..Default::default()
    }
}
