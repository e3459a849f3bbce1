//! `-w simple`: a line a value, keys and values on lines of their own.

use std::io::{Result, Write};

use client::prefix_end;
use wire::authpb::Permission;
use wire::authpb::permission::Type;
use wire::etcdserverpb::response_op::Response;
use wire::etcdserverpb::{
    AlarmMember, AlarmResponse, AuthRoleGetResponse, AuthUserGetResponse, DeleteRangeResponse,
    LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseTimeToLiveResponse,
    MemberAddResponse, PutResponse, RangeResponse, ResponseHeader, TxnResponse, WatchResponse,
};
use wire::mvccpb::KeyValue;

use super::{EndpointHealth, Printer, alarm_name};
use crate::gotext::hex16;

type Out<'a> = &'a mut dyn Write;

pub(super) fn range(out: Out<'_>, answer: &RangeResponse, how: &Printer) -> Result<()> {
    answer.kvs.iter().try_for_each(|kv| pair(out, kv, how))
}

pub(super) fn put(out: Out<'_>, answer: &PutResponse, how: &Printer) -> Result<()> {
    writeln!(out, "OK")?;
    answer.prev_kv.iter().try_for_each(|kv| pair(out, kv, how))
}

pub(super) fn delete_range(out: Out<'_>, answer: &DeleteRangeResponse, how: &Printer) -> Result<()> {
    writeln!(out, "{}", answer.deleted)?;
    answer.prev_kvs.iter().try_for_each(|kv| pair(out, kv, how))
}

pub(super) fn txn(out: Out<'_>, answer: &TxnResponse, how: &Printer) -> Result<()> {
    writeln!(out, "{}", if answer.succeeded { "SUCCESS" } else { "FAILURE" })?;
    for op in &answer.responses {
        writeln!(out)?;
        match &op.response {
            Some(Response::ResponseRange(answer)) => range(out, answer, how)?,
            Some(Response::ResponsePut(answer)) => put(out, answer, how)?,
            Some(Response::ResponseDeleteRange(answer)) => delete_range(out, answer, how)?,
            // etcdctl cannot ask for these.
            other @ (Some(Response::ResponseTxn(_)) | None) => {
                writeln!(out, "unexpected response {other:?}")?
            }
        }
    }
    Ok(())
}

pub(super) fn watch(out: Out<'_>, answer: &WatchResponse, how: &Printer) -> Result<()> {
    for event in &answer.events {
        writeln!(out, "{}", event.r#type().as_str_name())?;
        event.prev_kv.iter().try_for_each(|kv| pair(out, kv, how))?;
        pair(out, event.kv.as_ref().unwrap_or(&KeyValue::default()), how)?;
    }
    Ok(())
}

/// As protobuf's text format has it: what is 0 is left out.
pub(super) fn alarms(out: Out<'_>, answer: &AlarmResponse) -> Result<()> {
    for AlarmMember { member_id, alarm } in &answer.alarms {
        let member = (*member_id != 0).then(|| format!("memberID:{member_id}"));
        let kind = (*alarm != 0).then(|| format!("alarm:{}", alarm_name(*alarm)));
        writeln!(out, "{}", [member, kind].into_iter().flatten().collect::<Vec<_>>().join(" "))?;
    }
    Ok(())
}

pub(super) fn lease_keep_alive(out: Out<'_>, answer: &LeaseKeepAliveResponse) -> Result<()> {
    writeln!(out, "lease {} keepalived with TTL({})", hex16(answer.id), answer.ttl)
}

pub(super) fn lease_over(out: Out<'_>, id: i64) -> Result<()> {
    writeln!(out, "lease {} expired or revoked.", hex16(id))
}

pub(super) fn lease_grant(out: Out<'_>, answer: &LeaseGrantResponse) -> Result<()> {
    writeln!(out, "lease {} granted with TTL({}s)", hex16(answer.id), answer.ttl)
}

pub(super) fn lease_revoke(out: Out<'_>, id: i64) -> Result<()> {
    writeln!(out, "lease {} revoked", hex16(id))
}

/// `keys`: whether they were asked for.
pub(super) fn lease_time_to_live(out: Out<'_>, answer: &LeaseTimeToLiveResponse, keys: bool) -> Result<()> {
    let LeaseTimeToLiveResponse { id, ttl, granted_ttl, .. } = answer;
    if (*granted_ttl, *ttl) == (0, -1) {
        return writeln!(out, "lease {} already expired", hex16(*id));
    }
    write!(out, "lease {} granted with TTL({granted_ttl}s), remaining({ttl}s)", hex16(*id))?;
    if keys {
        write!(out, ", attached keys([")?;
        out.write_all(&answer.keys.join(&b' '))?;
        write!(out, "])")?;
    }
    writeln!(out)
}

pub(super) fn leases(out: Out<'_>, answer: &LeaseLeasesResponse) -> Result<()> {
    writeln!(out, "found {} leases", answer.leases.len())?;
    answer.leases.iter().try_for_each(|lease| writeln!(out, "{}", hex16(lease.id)))
}

// Ids are padded with spaces there, not with zeros.

pub(super) fn member_add(out: Out<'_>, answer: &MemberAddResponse) -> Result<()> {
    let (id, is_learner) = answer.member.as_ref().map_or((0, false), |m| (m.id, m.is_learner));
    let how = if is_learner { "added as learner to" } else { "added to" };
    member_changed(out, (id, how), answer.header)
}

pub(super) fn member_changed(
    out: Out<'_>,
    (id, how): (u64, &str),
    header: Option<ResponseHeader>,
) -> Result<()> {
    let cluster_id = header.map_or(0, |header| header.cluster_id);
    writeln!(out, "Member {id:16x} {how} cluster {cluster_id:16x}")
}

pub(super) fn user_get(out: Out<'_>, user: &str, answer: &AuthUserGetResponse) -> Result<()> {
    write!(out, "User: {user}\nRoles:")?;
    answer.roles.iter().try_for_each(|role| write!(out, " {role}"))?;
    writeln!(out)
}

/// Users or roles.
pub(super) fn names(out: Out<'_>, names: &[String]) -> Result<()> {
    names.iter().try_for_each(|name| writeln!(out, "{name}"))
}

pub(super) fn role_get(out: Out<'_>, role: &str, answer: &AuthRoleGetResponse) -> Result<()> {
    writeln!(out, "Role {role}")?;
    // A server may say nothing of what root may, which is everything.
    let all = [Permission {
        perm_type: Type::Readwrite.into(),
        key: Default::default(),
        range_end: b"\0"[..].into(),
    }];
    let permissions = if role == "root" && answer.perm.is_empty() { &all[..] } else { &answer.perm };
    for (head, kind) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
        writeln!(out, "{head}")?;
        let allowed =
            permissions.iter().filter(|p| [kind as i32, Type::Readwrite as i32].contains(&p.perm_type));
        allowed.into_iter().try_for_each(|permission| permitted(out, permission))?;
    }
    Ok(())
}

fn permitted(out: Out<'_>, Permission { key, range_end, .. }: &Permission) -> Result<()> {
    if range_end.is_empty() {
        out.write_all(&[b"\t", &key[..], b"\n"].concat())?;
        return Ok(());
    }
    write!(out, "\t")?;
    interval(out, key, range_end)?;
    if !key.is_empty() && prefix_end(key) == range_end {
        out.write_all(&[b" (prefix ", &key[..], b")"].concat())?;
    }
    writeln!(out)
}

fn interval(out: Out<'_>, key: &[u8], end: &[u8]) -> Result<()> {
    match end {
        b"\0" => out.write_all(&[b"[", key, b", <open ended>"].concat()),
        end => out.write_all(&[b"[", key, b", ", end, b")"].concat()),
    }
}

pub(super) fn role_revoke_permission(out: Out<'_>, role: &str, key: &[u8], end: &[u8]) -> Result<()> {
    if end.is_empty() {
        out.write_all(&[b"Permission of key ", key].concat())?;
    } else {
        write!(out, "Permission of range ")?;
        interval(out, key, end)?;
    }
    writeln!(out, " is revoked from role {role}")
}

pub(super) fn endpoint_health(out: Out<'_>, err: Out<'_>, list: &[EndpointHealth]) -> Result<()> {
    for EndpointHealth { endpoint, took, error, .. } in list {
        if error.is_empty() {
            writeln!(out, "{endpoint} is healthy: successfully committed proposal: took = {took}")?;
        } else {
            writeln!(err, "{endpoint} is unhealthy: failed to commit proposal: {error}")?;
        }
    }
    Ok(())
}

/// The rows of a table, with commas.
pub(super) fn rows<const N: usize>(out: Out<'_>, rows: &[[String; N]]) -> Result<()> {
    rows.iter().try_for_each(|row| writeln!(out, "{}", row.join(", ")))
}

fn pair(out: Out<'_>, kv: &KeyValue, how: &Printer) -> Result<()> {
    if !how.value_only {
        line(out, &kv.key, how.hex)?;
    }
    line(out, &kv.value, how.hex)
}

fn line(out: Out<'_>, bytes: &[u8], hex: bool) -> Result<()> {
    if hex {
        bytes.iter().try_for_each(|byte| write!(out, "\\x{byte:02x}"))?;
    } else {
        out.write_all(bytes)?;
    }
    writeln!(out)
}
