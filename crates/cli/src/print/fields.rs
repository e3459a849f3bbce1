//! `-w fields`: a line a field, `"Name" : value`.

use std::io::{Result, Write};

use wire::authpb::permission::Type;
use wire::etcdserverpb::response_op::Response;
use wire::etcdserverpb::{
    AlarmMember, AlarmResponse, AuthRoleGetResponse, AuthRoleListResponse, DeleteRangeResponse,
    LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse,
    LeaseTimeToLiveResponse, MemberListResponse, PutResponse, RangeResponse, ResponseHeader, TxnResponse,
    WatchResponse,
};
use wire::mvccpb::KeyValue;

use super::{EndpointHash, EndpointHealth, EndpointStatus, alarm_name};
use crate::gotext::{hex16, quote};

type Out<'a> = &'a mut dyn Write;

pub(super) fn range(out: Out<'_>, answer: &RangeResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    answer.kvs.iter().try_for_each(|kv| pair(out, "", kv, hex))?;
    writeln!(out, "\"More\" : {}", answer.more)?;
    writeln!(out, "\"Count\" : {}", answer.count)
}

pub(super) fn put(out: Out<'_>, answer: &PutResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    answer.prev_kv.iter().try_for_each(|kv| pair(out, "Prev", kv, hex))
}

pub(super) fn delete_range(out: Out<'_>, answer: &DeleteRangeResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    writeln!(out, "\"Deleted\" : {}", answer.deleted)?;
    answer.prev_kvs.iter().try_for_each(|kv| pair(out, "Prev", kv, hex))
}

pub(super) fn txn(out: Out<'_>, answer: &TxnResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    writeln!(out, "\"Succeeded\" : {}", answer.succeeded)?;
    for op in &answer.responses {
        match &op.response {
            Some(Response::ResponseRange(answer)) => range(out, answer, hex)?,
            Some(Response::ResponsePut(answer)) => put(out, answer, hex)?,
            Some(Response::ResponseDeleteRange(answer)) => delete_range(out, answer, hex)?,
            // etcdctl cannot ask for these.
            other @ (Some(Response::ResponseTxn(_)) | None) => {
                writeln!(out, "\"Unknown\" : {}", quote(format!("{other:?}").as_bytes()))?;
            }
        }
    }
    Ok(())
}

pub(super) fn watch(out: Out<'_>, answer: &WatchResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    for event in &answer.events {
        writeln!(out, "\"Type\" : {}", event.r#type().as_str_name())?;
        event.prev_kv.iter().try_for_each(|kv| pair(out, "Prev", kv, hex))?;
        pair(out, "", event.kv.as_ref().unwrap_or(&KeyValue::default()), hex)?;
    }
    Ok(())
}

pub(super) fn alarms(out: Out<'_>, answer: &AlarmResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    for AlarmMember { member_id, alarm } in &answer.alarms {
        match hex {
            true => writeln!(out, "\"MemberID\" : {member_id:x}")?,
            false => writeln!(out, "\"MemberID\" : {member_id}")?,
        }
        writeln!(out, "\"AlarmType\" : {}\n", alarm_name(*alarm))?;
    }
    Ok(())
}

pub(super) fn lease_keep_alive(out: Out<'_>, answer: &LeaseKeepAliveResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    writeln!(out, "\"ID\" : {}\n\"TTL\" : {}", lease_id(answer.id, hex), answer.ttl)
}

pub(super) fn lease_grant(out: Out<'_>, answer: &LeaseGrantResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    writeln!(out, "\"ID\" : {}\n\"TTL\" : {}", lease_id(answer.id, hex), answer.ttl)
}

pub(super) fn lease_revoke(out: Out<'_>, answer: &LeaseRevokeResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)
}

pub(super) fn lease_time_to_live(out: Out<'_>, answer: &LeaseTimeToLiveResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    writeln!(out, "\"ID\" : {}\n\"TTL\" : {}", lease_id(answer.id, hex), answer.ttl)?;
    writeln!(out, "\"GrantedTTL\" : {}", answer.granted_ttl)?;
    answer.keys.iter().try_for_each(|key| writeln!(out, "\"Key\" : {}", quote(key)))
}

pub(super) fn leases(out: Out<'_>, answer: &LeaseLeasesResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    answer.leases.iter().try_for_each(|lease| writeln!(out, "\"ID\" : {}", lease_id(lease.id, hex)))
}

pub(super) fn members(out: Out<'_>, answer: &MemberListResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    for member in &answer.members {
        if hex {
            writeln!(out, "\"ID\" : {:x}", member.id)?;
        } else {
            writeln!(out, "\"ID\" : {}", member.id)?;
        }
        writeln!(out, "\"Name\" : {}", quote(member.name.as_bytes()))?;
        for url in &member.peer_ur_ls {
            writeln!(out, "\"PeerURL\" : {}", quote(url.as_bytes()))?;
        }
        for url in &member.client_ur_ls {
            writeln!(out, "\"ClientURL\" : {}", quote(url.as_bytes()))?;
        }
        writeln!(out, "\"IsLearner\" : {}\n", member.is_learner)?;
    }
    Ok(())
}

pub(super) fn auth_changed(out: Out<'_>, answered: Option<ResponseHeader>, hex: bool) -> Result<()> {
    header(out, answered.as_ref(), hex)
}

pub(super) fn role_get(out: Out<'_>, answer: &AuthRoleGetResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    for permission in &answer.perm {
        let kind = Type::try_from(permission.perm_type);
        let kind =
            kind.map_or_else(|_| permission.perm_type.to_string(), |kind| kind.as_str_name().to_owned());
        writeln!(out, "\"PermType\" :  {kind}\n\"Key\" : {}", quote(&permission.key))?;
        writeln!(out, "\"RangeEnd\" : {}", quote(&permission.range_end))?;
    }
    Ok(())
}

pub(super) fn role_list(out: Out<'_>, answer: &AuthRoleListResponse, hex: bool) -> Result<()> {
    header(out, answer.header.as_ref(), hex)?;
    write!(out, "\"Roles\" :")?;
    answer.roles.iter().try_for_each(|role| write!(out, " {}", quote(role.as_bytes())))?;
    writeln!(out)
}

pub(super) fn endpoint_health(out: Out<'_>, list: &[EndpointHealth]) -> Result<()> {
    for EndpointHealth { endpoint, health, took, error } in list {
        writeln!(out, "\"Endpoint\" : {}", quote(endpoint.as_bytes()))?;
        writeln!(out, "\"Health\" : {health}\n\"Took\" : {took}\n\"Error\" : {error}\n")?;
    }
    Ok(())
}

pub(super) fn endpoint_status(out: Out<'_>, list: &[EndpointStatus], hex: bool) -> Result<()> {
    for EndpointStatus { endpoint, status: s } in list {
        header(out, s.header.as_ref(), hex)?;
        writeln!(out, "\"Version\" : {}", quote(s.version.as_bytes()))?;
        writeln!(out, "\"StorageVersion\" : {}", quote(s.storage_version.as_bytes()))?;
        writeln!(out, "\"DBSize\" : {}", s.db_size)?;
        writeln!(out, "\"DBSizeInUse\" : {}", s.db_size_in_use)?;
        writeln!(out, "\"DBSizeQuota\" : {}", s.db_size_quota)?;
        writeln!(out, "\"Leader\" : {}", s.leader)?;
        writeln!(out, "\"IsLearner\" : {}", s.is_learner)?;
        writeln!(out, "\"RaftIndex\" : {}", s.raft_index)?;
        writeln!(out, "\"RaftTerm\" : {}", s.raft_term)?;
        writeln!(out, "\"RaftAppliedIndex\" : {}", s.raft_applied_index)?;
        writeln!(out, "\"Errors\" : [{}]", s.errors.join(" "))?;
        writeln!(out, "\"Endpoint\" : {}", quote(endpoint.as_bytes()))?;
        let downgrade = s.downgrade_info.clone().unwrap_or_default();
        writeln!(out, "\"DowngradeTargetVersion\" : {}", quote(downgrade.target_version.as_bytes()))?;
        writeln!(out, "\"DowngradeEnabled\" : {}\n", downgrade.enabled)?;
    }
    Ok(())
}

pub(super) fn endpoint_hash(out: Out<'_>, list: &[EndpointHash], hex: bool) -> Result<()> {
    for EndpointHash { endpoint, hash } in list {
        header(out, hash.header.as_ref(), hex)?;
        writeln!(out, "\"Endpoint\" : {}", quote(endpoint.as_bytes()))?;
        writeln!(out, "\"Hash\" : {}\n\"HashRevision\" : {}\n", hash.hash, hash.hash_revision)?;
    }
    Ok(())
}

fn header(out: Out<'_>, header: Option<&ResponseHeader>, hex: bool) -> Result<()> {
    let ResponseHeader { cluster_id, member_id, revision, raft_term } = header.cloned().unwrap_or_default();
    if hex {
        writeln!(out, "\"ClusterID\" : {cluster_id:x}\n\"MemberID\" : {member_id:x}")?;
    } else {
        writeln!(out, "\"ClusterID\" : {cluster_id}\n\"MemberID\" : {member_id}")?;
    }
    // Only answers about keys have one.
    if revision > 0 {
        writeln!(out, "\"Revision\" : {revision}")?;
    }
    writeln!(out, "\"RaftTerm\" : {raft_term}")
}

fn pair(out: Out<'_>, prefix: &str, kv: &KeyValue, hex: bool) -> Result<()> {
    writeln!(out, "\"{prefix}Key\" : {}", quote(&kv.key))?;
    writeln!(out, "\"{prefix}CreateRevision\" : {}", kv.create_revision)?;
    writeln!(out, "\"{prefix}ModRevision\" : {}", kv.mod_revision)?;
    writeln!(out, "\"{prefix}Version\" : {}", kv.version)?;
    writeln!(out, "\"{prefix}Value\" : {}", quote(&kv.value))?;
    writeln!(out, "\"{prefix}Lease\" : {}", lease_id(kv.lease, hex))
}

fn lease_id(id: i64, hex: bool) -> String {
    if hex { hex16(id) } else { id.to_string() }
}
