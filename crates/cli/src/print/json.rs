//! `-w json`: the messages as Go marshals them, on one line.

use std::io::{Result, Write};

use wire::etcdserverpb::response_op::Response;
use wire::etcdserverpb::{
    AlarmResponse, AuthRoleGetResponse, AuthStatusResponse, DeleteRangeResponse, DowngradeResponse,
    HashKvResponse, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse,
    LeaseTimeToLiveResponse, Member, MemberAddResponse, MoveLeaderResponse, PutResponse, RangeResponse,
    ResponseHeader, ResponseOp, StatusResponse, TxnResponse, WatchResponse,
};
use wire::mvccpb::{Event, KeyValue};

use super::json_text::{Object, array, base64, object, string};
use super::{EndpointHash, EndpointHealth, EndpointStatus};

type Out<'a> = &'a mut dyn Write;

pub(super) fn range(out: Out<'_>, answer: &RangeResponse) -> Result<()> {
    line(out, |text| object(text, |o| range_fields(o, answer)))
}

pub(super) fn put(out: Out<'_>, answer: &PutResponse) -> Result<()> {
    line(out, |text| object(text, |o| put_fields(o, answer)))
}

pub(super) fn delete_range(out: Out<'_>, answer: &DeleteRangeResponse) -> Result<()> {
    line(out, |text| object(text, |o| delete_range_fields(o, answer)))
}

pub(super) fn txn(out: Out<'_>, answer: &TxnResponse) -> Result<()> {
    line(out, |text| object(text, |o| txn_fields(o, answer)))
}

pub(super) fn alarms(out: Out<'_>, answer: &AlarmResponse) -> Result<()> {
    line(out, |text| {
        object(text, |o| {
            o.object("header", answer.header.as_ref(), header_fields);
            if !answer.alarms.is_empty() {
                array(o.name("alarms"), &answer.alarms, |text, alarm| {
                    object(text, |o| {
                        o.number("memberID", alarm.member_id);
                        o.number("alarm", alarm.alarm);
                    });
                });
            }
        });
    })
}

// Where the Go client has its own types in place of the messages, the header's fields stand among the others, and empty
// fields are written.

pub(super) fn watch(out: Out<'_>, answer: &WatchResponse) -> Result<()> {
    let truth = |value: bool| if value { "true" } else { "false" };
    line(out, |text| {
        object(text, |o| {
            o.object("Header", Some(&answer.header.unwrap_or_default()), header_fields);
            match answer.events.as_slice() {
                [] => o.name("Events").push_str("null"),
                events => {
                    array(o.name("Events"), events, |text, event| object(text, |o| event_fields(o, event)))
                }
            }
            o.number_always("CompactRevision", answer.compact_revision);
            o.name("Canceled").push_str(truth(answer.canceled));
            o.name("Created").push_str(truth(answer.created));
            string(o.name("CancelReason"), &answer.cancel_reason);
        });
    })
}

pub(super) fn lease_keep_alive(out: Out<'_>, answer: &LeaseKeepAliveResponse) -> Result<()> {
    embedding(out, answer.header.as_ref(), |o| {
        o.number_always("ID", answer.id);
        o.number_always("TTL", answer.ttl);
    })
}

pub(super) fn lease_grant(out: Out<'_>, answer: &LeaseGrantResponse) -> Result<()> {
    embedding(out, answer.header.as_ref(), |o| {
        o.number_always("ID", answer.id);
        o.number_always("TTL", answer.ttl);
        string(o.name("Error"), &answer.error);
    })
}

pub(super) fn lease_revoke(out: Out<'_>, answer: &LeaseRevokeResponse) -> Result<()> {
    line(out, |text| object(text, |o| o.object("header", answer.header.as_ref(), header_fields)))
}

pub(super) fn lease_time_to_live(out: Out<'_>, answer: &LeaseTimeToLiveResponse) -> Result<()> {
    embedding(out, answer.header.as_ref(), |o| {
        o.number_always("id", answer.id);
        o.number_always("ttl", answer.ttl);
        o.number_always("granted-ttl", answer.granted_ttl);
        match answer.keys.as_slice() {
            [] => o.name("keys").push_str("null"),
            keys => array(o.name("keys"), keys, |text, key| base64(text, key)),
        }
    })
}

pub(super) fn leases(out: Out<'_>, answer: &LeaseLeasesResponse) -> Result<()> {
    embedding(out, answer.header.as_ref(), |o| {
        array(o.name("leases"), &answer.leases, |text, lease| {
            object(text, |o| o.number_always("id", lease.id));
        });
    })
}

pub(super) fn member_add(out: Out<'_>, answer: &MemberAddResponse, hex: bool) -> Result<()> {
    let MemberAddResponse { header, member, members } = answer;
    line(out, |text| {
        object(text, |o| {
            o.object("header", header.as_ref(), |o, header| member_header_fields(o, header, hex));
            o.object("member", member.as_ref(), |o, member| member_fields(o, member, hex));
            member_list(o, members, hex);
        });
    })
}

/// All other answers of the service Cluster.
pub(super) fn members(
    out: Out<'_>,
    header: Option<&ResponseHeader>,
    members: &[Member],
    hex: bool,
) -> Result<()> {
    line(out, |text| {
        object(text, |o| {
            o.object("header", header, |o, header| member_header_fields(o, header, hex));
            member_list(o, members, hex);
        });
    })
}

fn member_list(o: &mut Object<'_>, members: &[Member], hex: bool) {
    // In hex the list is one of etcdctl's own, which it writes empty too.
    if hex || !members.is_empty() {
        let out = o.name("members");
        array(out, members, |text, member| object(text, |o| member_fields(o, member, hex)));
    }
}

fn member_fields(o: &mut Object<'_>, member: &Member, hex: bool) {
    if hex {
        string(o.name("ID"), &format!("{:x}", member.id));
    } else {
        o.number("ID", member.id);
    }
    o.text("name", &member.name);
    for (name, urls) in [("peerURLs", &member.peer_ur_ls), ("clientURLs", &member.client_ur_ls)] {
        if !urls.is_empty() {
            array(o.name(name), urls, |text, url| string(text, url));
        }
    }
    o.flag("isLearner", member.is_learner);
}

fn member_header_fields(o: &mut Object<'_>, header: &ResponseHeader, hex: bool) {
    if !hex {
        return header_fields(o, header);
    }
    string(o.name("cluster_id"), &format!("{:x}", header.cluster_id));
    string(o.name("member_id"), &format!("{:x}", header.member_id));
    o.number("revision", header.revision);
    o.number("raft_term", header.raft_term);
}

pub(super) fn move_leader(out: Out<'_>, answer: &MoveLeaderResponse) -> Result<()> {
    line(out, |text| object(text, |o| o.object("header", answer.header.as_ref(), header_fields)))
}

pub(super) fn downgrade(out: Out<'_>, answer: &DowngradeResponse) -> Result<()> {
    line(out, |text| {
        object(text, |o| {
            o.object("header", answer.header.as_ref(), header_fields);
            o.text("version", &answer.version);
        });
    })
}

pub(super) fn auth_status(out: Out<'_>, answer: &AuthStatusResponse) -> Result<()> {
    line(out, |text| {
        object(text, |o| {
            o.object("header", answer.header.as_ref(), header_fields);
            o.flag("enabled", answer.enabled);
            o.number("authRevision", answer.auth_revision);
        });
    })
}

pub(super) fn auth_changed(out: Out<'_>, header: Option<ResponseHeader>) -> Result<()> {
    line(out, |text| object(text, |o| o.object("header", header.as_ref(), header_fields)))
}

/// Users or roles.
pub(super) fn names(
    out: Out<'_>,
    header: Option<&ResponseHeader>,
    field: &str,
    names: &[String],
) -> Result<()> {
    line(out, |text| {
        object(text, |o| {
            o.object("header", header, header_fields);
            if !names.is_empty() {
                array(o.name(field), names, |text, name| string(text, name));
            }
        });
    })
}

pub(super) fn role_get(out: Out<'_>, answer: &AuthRoleGetResponse) -> Result<()> {
    line(out, |text| {
        object(text, |o| {
            o.object("header", answer.header.as_ref(), header_fields);
            o.objects("perm", &answer.perm, |o, permission| {
                o.number("permType", permission.perm_type);
                o.bytes("key", &permission.key);
                o.bytes("range_end", &permission.range_end);
            });
        });
    })
}

pub(super) fn endpoint_health(out: Out<'_>, list: &[EndpointHealth]) -> Result<()> {
    endpoints(out, list, |o, health| {
        string(o.name("endpoint"), &health.endpoint);
        o.name("health").push_str(if health.health { "true" } else { "false" });
        string(o.name("took"), &health.took);
        o.text("error", &health.error);
    })
}

pub(super) fn endpoint_status(out: Out<'_>, list: &[EndpointStatus]) -> Result<()> {
    endpoints(out, list, |o, EndpointStatus { endpoint, status }| {
        string(o.name("Endpoint"), endpoint);
        o.object("Status", Some(status), status_fields);
    })
}

pub(super) fn endpoint_hash(out: Out<'_>, list: &[EndpointHash]) -> Result<()> {
    endpoints(out, list, |o, EndpointHash { endpoint, hash }| {
        string(o.name("Endpoint"), endpoint);
        o.object("HashKV", Some(hash), hash_fields);
    })
}

/// Go writes a list that was never made as null.
fn endpoints<T>(out: Out<'_>, list: &[T], mut fill: impl FnMut(&mut Object<'_>, &T)) -> Result<()> {
    line(out, |text| match list {
        [] => text.push_str("null"),
        _ => array(text, list, |text, item| object(text, |o| fill(o, item))),
    })
}

fn embedding(
    out: Out<'_>,
    header: Option<&ResponseHeader>,
    fill: impl FnOnce(&mut Object<'_>),
) -> Result<()> {
    line(out, |text| {
        object(text, |o| {
            header.into_iter().for_each(|header| header_fields(o, header));
            fill(o);
        });
    })
}

fn line(out: Out<'_>, fill: impl FnOnce(&mut String)) -> Result<()> {
    let mut text = String::new();
    fill(&mut text);
    text.push('\n');
    out.write_all(text.as_bytes())
}

fn header_fields(o: &mut Object<'_>, header: &ResponseHeader) {
    o.number("cluster_id", header.cluster_id);
    o.number("member_id", header.member_id);
    o.number("revision", header.revision);
    o.number("raft_term", header.raft_term);
}

fn pair_fields(o: &mut Object<'_>, kv: &KeyValue) {
    o.bytes("key", &kv.key);
    o.number("create_revision", kv.create_revision);
    o.number("mod_revision", kv.mod_revision);
    o.number("version", kv.version);
    o.bytes("value", &kv.value);
    o.number("lease", kv.lease);
}

fn event_fields(o: &mut Object<'_>, event: &Event) {
    o.number("type", event.r#type);
    o.object("kv", event.kv.as_ref(), pair_fields);
    o.object("prev_kv", event.prev_kv.as_ref(), pair_fields);
}

fn range_fields(o: &mut Object<'_>, answer: &RangeResponse) {
    o.object("header", answer.header.as_ref(), header_fields);
    o.objects("kvs", &answer.kvs, pair_fields);
    o.flag("more", answer.more);
    o.number("count", answer.count);
}

fn put_fields(o: &mut Object<'_>, answer: &PutResponse) {
    o.object("header", answer.header.as_ref(), header_fields);
    o.object("prev_kv", answer.prev_kv.as_ref(), pair_fields);
}

fn delete_range_fields(o: &mut Object<'_>, answer: &DeleteRangeResponse) {
    o.object("header", answer.header.as_ref(), header_fields);
    o.number("deleted", answer.deleted);
    o.objects("prev_kvs", &answer.prev_kvs, pair_fields);
}

fn txn_fields(o: &mut Object<'_>, answer: &TxnResponse) {
    o.object("header", answer.header.as_ref(), header_fields);
    o.flag("succeeded", answer.succeeded);
    o.objects("responses", &answer.responses, |o, op| o.object("Response", Some(op), op_fields));
}

fn op_fields(o: &mut Object<'_>, op: &ResponseOp) {
    match &op.response {
        Some(Response::ResponseRange(answer)) => o.object("response_range", Some(answer), range_fields),
        Some(Response::ResponsePut(answer)) => o.object("response_put", Some(answer), put_fields),
        Some(Response::ResponseDeleteRange(answer)) => {
            o.object("response_delete_range", Some(answer), delete_range_fields);
        }
        Some(Response::ResponseTxn(answer)) => o.object("response_txn", Some(answer), txn_fields),
        None => {}
    }
}

fn status_fields(o: &mut Object<'_>, s: &StatusResponse) {
    o.object("header", s.header.as_ref(), header_fields);
    o.text("version", &s.version);
    o.number("dbSize", s.db_size);
    o.number("leader", s.leader);
    o.number("raftIndex", s.raft_index);
    o.number("raftTerm", s.raft_term);
    o.number("raftAppliedIndex", s.raft_applied_index);
    if !s.errors.is_empty() {
        array(o.name("errors"), &s.errors, |text, error| string(text, error));
    }
    o.number("dbSizeInUse", s.db_size_in_use);
    o.flag("isLearner", s.is_learner);
    o.text("storageVersion", &s.storage_version);
    o.number("dbSizeQuota", s.db_size_quota);
    o.object("downgradeInfo", s.downgrade_info.as_ref(), |o, downgrade| {
        o.flag("enabled", downgrade.enabled);
        o.text("targetVersion", &downgrade.target_version);
    });
}

fn hash_fields(o: &mut Object<'_>, hash: &HashKvResponse) {
    o.object("header", hash.header.as_ref(), header_fields);
    o.number("hash", hash.hash);
    o.number("compact_revision", hash.compact_revision);
    o.number("hash_revision", hash.hash_revision);
}
