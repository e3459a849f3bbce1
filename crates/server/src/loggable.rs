//! Requests as etcd's log shows them: keys, numbers and options, and of a value only its size.
//!
//! Values may be secrets. A text is bounded however many operations a transaction has, and nothing here recurses.

use std::fmt::Write as _;

use prost::Message as _;
use store::request::{Compare, DecodeError, DeleteRange, Op, Operand, Put, Range, Txn, canonical_txn};
use wire::etcdserverpb::InternalRaftRequest;
use wire::etcdserverpb::compare::{CompareResult, CompareTarget};
use wire::etcdserverpb::range_request::{SortOrder, SortTarget};

/// Longest text, bytes, before what says that there was more.
const BYTES_MAX: usize = 16 << 10;

/// A `RangeRequest`; empty if it is none.
pub fn range(message: &[u8]) -> String {
    written(Range::decode(message), write_range)
}

/// A `PutRequest`; empty if it is none.
pub fn put(message: &[u8]) -> String {
    written(Put::decode(message), write_put)
}

/// A `DeleteRangeRequest`; empty if it is none.
pub fn delete_range(message: &[u8]) -> String {
    written(DeleteRange::decode(message), write_delete)
}

/// A `TxnRequest`; empty if it is none.
pub fn txn(message: &[u8]) -> String {
    let canonical;
    let message = match Txn::decode(message) {
        Err(DecodeError::Repeated) => {
            canonical = canonical_txn(message).unwrap_or_default();
            &canonical
        }
        _ => message,
    };
    written(Txn::decode(message), write_txn)
}

/// What an entry of the log asks for, with the id that it is answered by.
pub fn raft_request(data: &[u8]) -> String {
    let Ok(request) = InternalRaftRequest::decode(data) else { return String::new() };
    let header = request.header.clone().unwrap_or_default();
    let id = if header.id == 0 { request.id } else { header.id };
    let body = if let Some(request) = &request.put {
        format!("put:<{}>", put(&request.encode_to_vec()))
    } else if let Some(request) = &request.txn {
        format!("txn:<{}>", txn(&request.encode_to_vec()))
    } else if let Some(request) = &request.delete_range {
        format!("delete_range:{{{}}}", delete_range(&request.encode_to_vec()))
    } else if let Some(request) = &request.range {
        format!("range:{{{}}}", range(&request.encode_to_vec()))
    } else if let Some(grant) = &request.lease_grant {
        format!("lease_grant:<ttl:{}-second id:{:016x}>", grant.ttl, grant.id)
    } else if let Some(revoke) = &request.lease_revoke {
        format!("lease_revoke:<id:{:016x}>", revoke.id)
    } else if let Some(compaction) = &request.compaction {
        let physical = if compaction.physical { " physical:true" } else { "" };
        format!("compaction:{{revision:{}{physical}}}", compaction.revision)
    } else if let Some(login) = &request.authenticate {
        // Its token is good for whoever has it.
        format!("authenticate:<name:{}>", login.name)
    } else if let Some(add) = &request.auth_user_add {
        format!("auth_user_add:<name:{}>", add.name)
    } else if let Some(change) = &request.auth_user_change_password {
        format!("auth_user_change_password:<name:{}>", change.name)
    } else {
        other(&request).to_owned()
    };
    let user = match header.username.is_empty() {
        true => String::new(),
        false => {
            format!(" username:{} auth_revision:{}", Quoted(header.username.as_bytes()), header.auth_revision)
        }
    };
    bounded(format!("header:<ID:{id}{user}> {body}"))
}

fn other(request: &InternalRaftRequest) -> &'static str {
    let kinds = [
        (request.lease_checkpoint.is_some(), "lease_checkpoint:{}"),
        (request.alarm.is_some(), "alarm:{}"),
        (request.auth_enable.is_some(), "auth_enable:{}"),
        (request.auth_disable.is_some(), "auth_disable:{}"),
        (request.auth_status.is_some(), "auth_status:{}"),
        (request.auth_user_delete.is_some(), "auth_user_delete:{}"),
        (request.auth_user_get.is_some(), "auth_user_get:{}"),
        (request.auth_user_grant_role.is_some(), "auth_user_grant_role:{}"),
        (request.auth_user_revoke_role.is_some(), "auth_user_revoke_role:{}"),
        (request.auth_user_list.is_some(), "auth_user_list:{}"),
        (request.auth_role_add.is_some(), "auth_role_add:{}"),
        (request.auth_role_delete.is_some(), "auth_role_delete:{}"),
        (request.auth_role_get.is_some(), "auth_role_get:{}"),
        (request.auth_role_list.is_some(), "auth_role_list:{}"),
        (request.auth_role_grant_permission.is_some(), "auth_role_grant_permission:{}"),
        (request.auth_role_revoke_permission.is_some(), "auth_role_revoke_permission:{}"),
        (request.cluster_version_set.is_some(), "cluster_version_set:{}"),
        (request.cluster_member_attr_set.is_some(), "cluster_member_attr_set:{}"),
        (request.downgrade_info_set.is_some(), "downgrade_info_set:{}"),
    ];
    kinds.iter().find(|(is_set, _)| *is_set).map_or("", |(_, name)| name)
}

fn written<T>(decoded: Result<T, DecodeError>, write: fn(&mut String, &T)) -> String {
    let mut out = String::new();
    if let Ok(request) = decoded {
        write(&mut out, &request);
    }
    bounded(out)
}

/// Cut where it is too long.
fn bounded(mut text: String) -> String {
    if text.len() > BYTES_MAX {
        let more = text.len() - BYTES_MAX;
        let end = (0..=BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        let _ = write!(text, "... and {more} bytes more");
    }
    text
}

/// One field of a message, if it has another value than its default.
fn field(out: &mut String, name: &str, is_set: bool, value: impl std::fmt::Display) {
    if is_set {
        let space = if out.is_empty() || out.ends_with(['<', '{', ' ']) { "" } else { " " };
        let _ = write!(out, "{space}{name}:{value}");
    }
}

fn bytes_field(out: &mut String, name: &str, bytes: &[u8]) {
    field(out, name, !bytes.is_empty(), Quoted(bytes));
}

fn number(out: &mut String, name: &str, number: i64) {
    field(out, name, number != 0, number);
}

fn flag(out: &mut String, name: &str, is_set: bool) {
    field(out, name, is_set, true);
}

/// As Go's text form of a message has bytes.
struct Quoted<'a>(&'a [u8]);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_char('"')?;
        // A key of megabytes shows its beginning.
        for chunk in self.0[..self.0.len().min(BYTES_MAX)].utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' | '\\' => write!(f, "\\{c}")?,
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(f, "\\x{:02x}", c as u32)?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_char('"')
    }
}

fn write_range(out: &mut String, request: &Range<'_>) {
    let order = SortOrder::try_from(request.sort_order).map(|order| order.as_str_name());
    let target = SortTarget::try_from(request.sort_target).map(|target| target.as_str_name());
    bytes_field(out, "key", request.key);
    bytes_field(out, "range_end", request.range_end);
    number(out, "limit", request.limit);
    number(out, "revision", request.revision);
    field(out, "sort_order", request.sort_order != 0, order.unwrap_or("?"));
    field(out, "sort_target", request.sort_target != 0, target.unwrap_or("?"));
    flag(out, "serializable", request.serializable);
    flag(out, "keys_only", request.keys_only);
    flag(out, "count_only", request.count_only);
    number(out, "min_mod_revision", request.min_mod_revision);
    number(out, "max_mod_revision", request.max_mod_revision);
    number(out, "min_create_revision", request.min_create_revision);
    number(out, "max_create_revision", request.max_create_revision);
}

fn write_put(out: &mut String, request: &Put<'_>) {
    bytes_field(out, "key", request.key);
    number(out, "value_size", request.value.len() as i64);
    number(out, "lease", request.lease);
    flag(out, "prev_kv", request.prev_kv);
    flag(out, "ignore_value", request.ignore_value);
    flag(out, "ignore_lease", request.ignore_lease);
    // Where etcd has put sizes in the place of values, its text form has this space.
    out.push(' ');
}

fn write_delete(out: &mut String, request: &DeleteRange<'_>) {
    bytes_field(out, "key", request.key);
    bytes_field(out, "range_end", request.range_end);
    flag(out, "prev_kv", request.prev_kv);
}

fn write_compare(out: &mut String, compare: &Compare<'_>) {
    let result = CompareResult::try_from(compare.result).map(|result| result.as_str_name());
    let target = CompareTarget::try_from(compare.target).map(|target| target.as_str_name());
    field(out, "result", compare.result != 0, result.unwrap_or("?"));
    field(out, "target", compare.target != 0, target.unwrap_or("?"));
    bytes_field(out, "key", compare.key);
    match compare.operand {
        Operand::None => {}
        Operand::Version(version) => field(out, "version", true, version),
        Operand::CreateRevision(revision) => field(out, "create_revision", true, revision),
        Operand::ModRevision(revision) => field(out, "mod_revision", true, revision),
        Operand::Value(value) => number(out, "value_size", value.len() as i64),
        Operand::Lease(lease) => field(out, "lease", true, lease),
    }
    bytes_field(out, "range_end", compare.range_end);
    if matches!(compare.operand, Operand::Value(_)) {
        out.push(' ');
    }
}

/// What is still to be written of a transaction, the next one last.
enum Todo {
    Text(&'static str),
    Op(usize),
    Node(usize),
}

fn write_txn(out: &mut String, txn: &Txn<'_>) {
    let mut todo = vec![Todo::Node(0)];
    while let Some(next) = todo.pop() {
        // All that is behind it would be cut.
        if out.len() > BYTES_MAX {
            return out.push_str(" ...");
        }
        match next {
            Todo::Text(text) => out.push_str(text),
            Todo::Op(place) => {
                if !out.ends_with('<') {
                    out.push(' ');
                }
                match &txn.ops[place] {
                    Op::Empty => {}
                    Op::Range(request) => {
                        out.push_str("request_range:{");
                        write_range(out, request);
                        out.push('}');
                    }
                    Op::Put(request) => {
                        out.push_str("request_put:<");
                        write_put(out, request);
                        out.push('>');
                    }
                    Op::DeleteRange(request) => {
                        out.push_str("request_delete_range:{");
                        write_delete(out, request);
                        out.push('}');
                    }
                    Op::Txn(node) => {
                        out.push_str("request_txn:<");
                        todo.push(Todo::Text(">"));
                        todo.push(Todo::Node(*node));
                    }
                }
            }
            Todo::Node(place) => {
                let node = &txn.nodes[place];
                out.push_str("compare:<");
                for compare in &txn.compares[node.compares.clone()] {
                    write_compare(out, compare);
                }
                out.push('>');
                todo.push(Todo::Text(">"));
                todo.extend(node.failure.clone().rev().map(Todo::Op));
                todo.push(Todo::Text("> failure:<"));
                todo.extend(node.success.clone().rev().map(Todo::Op));
                todo.push(Todo::Text(" success:<"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::etcdserverpb as pb;
    use wire::etcdserverpb::compare::TargetUnion;
    use wire::etcdserverpb::request_op::Request;

    use super::*;

    fn op(request: Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    #[test]
    fn values_are_sizes() {
        let request = pb::PutRequest {
            key: "a\"\n\u{e4}".into(),
            value: "secret".into(),
            lease: 7,
            prev_kv: true,
            ..Default::default()
        };
        let text = put(&request.encode_to_vec());
        assert_eq!(text, "key:\"a\\\"\\nä\" value_size:6 lease:7 prev_kv:true ");
        let inner = pb::TxnRequest { success: vec![op(Request::RequestPut(request))], ..Default::default() };
        let compare = pb::Compare {
            target: CompareTarget::Value as i32,
            key: vec![0xff].into(),
            target_union: Some(TargetUnion::Value("secret".into())),
            ..Default::default()
        };
        let range = pb::RangeRequest { key: "b".into(), limit: 1, ..Default::default() };
        let outer = pb::TxnRequest {
            compare: vec![compare],
            success: vec![op(Request::RequestTxn(inner)), op(Request::RequestRange(range))],
            failure: Vec::new(),
        };
        assert_eq!(
            txn(&outer.encode_to_vec()),
            "compare:<target:VALUE key:\"\\xff\" value_size:6 > success:<request_txn:<compare:<> \
             success:<request_put:<key:\"a\\\"\\nä\" value_size:6 lease:7 prev_kv:true >> failure:<>> \
             request_range:{key:\"b\" limit:1}> failure:<>"
        );
        let request = InternalRaftRequest {
            header: Some(pb::RequestHeader { id: 5, ..Default::default() }),
            txn: Some(outer),
            ..Default::default()
        };
        let text = raft_request(&request.encode_to_vec());
        assert!(text.starts_with("header:<ID:5> txn:<compare:<") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn a_text_is_bounded() {
        let long = pb::PutRequest { key: vec![b'k'; 1 << 20].into(), ..Default::default() };
        assert!(put(&long.encode_to_vec()).len() < BYTES_MAX + 64);
        let mut request = pb::TxnRequest::default();
        for _ in 0..2_000 {
            let range = pb::RangeRequest { key: "0123456789".into(), ..Default::default() };
            request.success.push(op(Request::RequestRange(range)));
        }
        let text = txn(&request.encode_to_vec());
        assert!(text.len() < BYTES_MAX + 64 && text.ends_with("bytes more"), "{}", text.len());
        assert_eq!(put(b"\xff"), "", "and what is none has none");
    }
}
