//! The page `/metrics` from outside: etcd's families with their kinds, labels and buckets, and numbers that move with what
//! is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use blackbox::{Member, PATIENCE, patience, run};
use client::Client;
use wire::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, request_op,
};

/// What etcd 3.7.1 shows, with every family that it registers.
const ETCD: &str = include_str!("metrics.tsv");

/// What there is not here, with everything that begins so; `docs/operating/metrics.md` says why.
const MISSING: [&str; 4] = ["go_", "etcd_server_go_version", "etcd_grpc_proxy_", "etcd_debugging_store_"];

/// What a member that is alone and well never shows, nor etcd.
const RARE: [&str; 20] = [
    "etcd_debugging_server_alarms",
    "etcd_network_active_peers",
    "etcd_network_disconnected_peers_total",
    "etcd_network_peer_received_bytes_total",
    "etcd_network_peer_received_failures_total",
    "etcd_network_peer_round_trip_time_seconds",
    "etcd_network_peer_sent_bytes_total",
    "etcd_network_peer_sent_failures_total",
    "etcd_network_server_stream_failures_total",
    "etcd_network_snapshot_receive_failures",
    "etcd_network_snapshot_receive_inflights_total",
    "etcd_network_snapshot_receive_success",
    "etcd_network_snapshot_receive_total_duration_seconds",
    "etcd_network_snapshot_send_failures",
    "etcd_network_snapshot_send_inflights_total",
    "etcd_network_snapshot_send_success",
    "etcd_network_snapshot_send_total_duration_seconds",
    "etcd_server_learner_promote_failures",
    "grpc_server_handling_seconds",
    "go_threads",
];

/// A page: the kind of each family, and the value of each sample, with its labels as they are written.
struct Page {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Page {
    fn of(member: &Member) -> Page {
        let text = member.http_get("/metrics");
        let (mut kinds, mut samples) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a kind");
                assert_eq!(kinds.insert(name.to_owned(), kind.to_owned()), None, "{name} is there twice");
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').expect("a name and a value");
                let known = samples.insert(name.to_owned(), value.parse().expect("a number"));
                assert_eq!(known, None, "{name} is there twice");
            }
        }
        Page { kinds, samples }
    }

    fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("no sample {sample}"))
    }

    /// The names of labels that a family's samples have, and of a histogram the bounds of one.
    fn shape(&self, family: &str, is_histogram: bool) -> (BTreeSet<String>, Vec<f64>) {
        let (mut labels, mut bounds) = (BTreeSet::new(), Vec::new());
        let name = if is_histogram { format!("{family}_bucket") } else { family.to_owned() };
        let mut first: Option<String> = None;
        for sample in self.samples.keys() {
            let Some(rest) = sample.strip_prefix(&name) else { continue };
            let inside = match rest.strip_prefix('{') {
                Some(inside) => inside.trim_end_matches('}'),
                None if rest.is_empty() => "",
                None => continue,
            };
            // No value on these pages has a comma or an escape.
            let pairs = inside.split(',').filter(|pair| !pair.is_empty());
            let (le, others): (Vec<&str>, Vec<&str>) = pairs.partition(|pair| pair.starts_with("le="));
            let names: Vec<&str> = others.iter().filter_map(|pair| Some(pair.split_once('=')?.0)).collect();
            labels.insert(names.join(","));
            let series = others.join(",");
            if *first.get_or_insert_with(|| series.clone()) == series {
                let bound = le.first().and_then(|bound| bound.strip_prefix("le=\"")?.strip_suffix('"'));
                bounds.extend(bound.and_then(|bound| bound.parse::<f64>().ok()));
            }
        }
        bounds.sort_by(f64::total_cmp);
        (labels, bounds)
    }
}

/// The bounds that etcd's source gives as `first,factor,count`.
fn bounds_of(text: &str) -> Vec<f64> {
    if text == "default" {
        return vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, f64::INFINITY];
    }
    let numbers: Vec<f64> = text.split(',').map(|number| number.parse().expect("a number")).collect();
    let [first, factor, count] = numbers[..] else { panic!("{text}") };
    let bounds = (0..count as i32).map(|place| first * factor.powi(place));
    bounds.chain([f64::INFINITY]).collect()
}

#[test]
fn the_page_has_the_families_of_etcd() {
    let member = Member::start(&["--metrics=extensive"]);
    run(async {
        let client = member.client();
        client.put(put("a"), patience()).await.expect("a put");
        client.range(range("a"), patience()).await.expect("a range");
    });
    member.http_get("/readyz");
    let page = Page::of(&member);
    let mut known = BTreeSet::new();
    for row in ETCD.lines().skip(1) {
        let [name, kind, labels, buckets] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        known.insert(name);
        if MISSING.iter().any(|missing| name.starts_with(missing)) && name != "go_threads" {
            assert!(!page.kinds.contains_key(name), "{name} is there by now");
            continue;
        }
        let Some(found) = page.kinds.get(name) else {
            assert!(RARE.contains(&name), "{name} is not on the page");
            continue;
        };
        assert_eq!(found, kind, "{name}");
        let (shapes, bounds) = page.shape(name, kind == "histogram");
        assert_eq!(shapes, BTreeSet::from([labels.to_owned()]), "{name}");
        if kind == "histogram" {
            assert_eq!(bounds, bounds_of(buckets), "{name}");
        }
    }
    let ours = page.kinds.keys().filter(|name| !known.contains(name.as_str()));
    for name in ours {
        assert!(name.starts_with("quorate_"), "etcd has no {name}");
    }
    // Every method and code is there before the first call, but for the services that etcd adds later.
    let handled = page.samples.keys().filter(|name| name.starts_with("grpc_server_handled_total{"));
    assert_eq!(handled.count(), 45 * 17);
    let unused = r#"{grpc_method="RangeStream",grpc_service="etcdserverpb.KV",grpc_type="server_stream"}"#;
    assert_eq!(page.value(&format!("grpc_server_started_total{unused}")), 0.0);
    assert_eq!(page.value(&format!("grpc_server_handling_seconds_count{unused}")), 0.0);
}

fn put(key: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: "0123456789".into(), ..PutRequest::default() }
}

fn range(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

fn delete(key: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() }
}

fn calls(what: &str, method: &str) -> String {
    format!(
        r#"grpc_server_{what}{{grpc_method="{method}",grpc_service="etcdserverpb.KV",grpc_type="unary"}}"#
    )
}

fn handled(code: &str, service: &str, method: &str) -> String {
    format!(
        r#"grpc_server_handled_total{{grpc_code="{code}",grpc_method="{method}",grpc_service="etcdserverpb.{service}",grpc_type="unary"}}"#
    )
}

/// By how much is not said.
const RISES: f64 = f64::INFINITY;

/// A member that has written all that it writes by itself.
fn settled() -> Member {
    let member = Member::start(&[]);
    let begun = Instant::now();
    while !Page::of(&member).samples.contains_key("etcd_cluster_version{cluster_version=\"3.7\"}") {
        assert!(begun.elapsed() < PATIENCE, "no version is agreed on");
    }
    member
}

/// Some samples rise by as much as is said while `act` does something.
fn moves<F: Future<Output = ()>>(member: &Member, deltas: &[(&str, f64)], act: impl FnOnce(Client) -> F) {
    let before = Page::of(member);
    run(async { act(member.client()).await });
    let after = Page::of(member);
    let value = |page: &Page, sample: &str| page.samples.get(sample).copied().unwrap_or(0.0);
    for (sample, delta) in deltas {
        let moved = value(&after, sample) - value(&before, sample);
        assert!(moved == *delta || *delta == RISES && moved > 0.0, "{sample} has moved by {moved}");
    }
}

#[test]
fn numbers_move_with_what_is_asked_and_begin_anew_with_the_process() {
    let mut member = settled();
    let apply = |op: &str, success| {
        format!(r#"etcd_server_apply_duration_seconds_count{{op="{op}",success="{success}",version="v3"}}"#)
    };
    moves(
        &member,
        &[
            ("etcd_mvcc_put_total", 1.0),
            ("etcd_debugging_mvcc_keys_total", 1.0),
            ("etcd_debugging_mvcc_total_put_size_in_bytes", 11.0),
            ("etcd_debugging_mvcc_current_revision", 1.0),
            ("etcd_server_proposals_applied_total", 1.0),
            ("etcd_disk_wal_fsync_duration_seconds_count", RISES),
            ("etcd_disk_wal_write_duration_seconds_count", RISES),
            ("etcd_disk_wal_write_bytes_total", RISES),
            (&calls("started_total", "Put"), 1.0),
            (&calls("msg_received_total", "Put"), 1.0),
            (&calls("msg_sent_total", "Put"), 1.0),
            (&handled("OK", "KV", "Put"), 1.0),
            // A key, a value, and what is before each.
            ("etcd_network_client_grpc_received_bytes_total", 15.0),
            (r#"etcd_server_request_duration_seconds_count{success="true",type="Put"}"#, 1.0),
            (&apply("Put", true), 1.0),
        ],
        async |client| drop(client.put(put("a"), patience()).await.expect("a put")),
    );
    moves(
        &member,
        &[
            ("etcd_mvcc_range_total", 1.0),
            (r#"etcd_server_range_duration_seconds_count{success="true"}"#, 1.0),
            (r#"etcd_server_request_duration_seconds_count{success="true",type="Range"}"#, 1.0),
            (&handled("OK", "KV", "Range"), 1.0),
        ],
        async |client| drop(client.range(range("a"), patience()).await.expect("a range")),
    );
    moves(
        &member,
        &[
            ("etcd_mvcc_txn_total", 1.0),
            ("etcd_mvcc_put_total", 1.0),
            ("etcd_mvcc_delete_total", 1.0),
            ("etcd_debugging_mvcc_current_revision", 1.0),
            (&handled("OK", "KV", "Txn"), 1.0),
        ],
        async |client| {
            let op = |request| RequestOp { request: Some(request) };
            let success = vec![
                op(request_op::Request::RequestPut(put("b"))),
                op(request_op::Request::RequestDeleteRange(delete("a"))),
            ];
            let txn = TxnRequest { success, ..TxnRequest::default() };
            client.txn(txn, patience()).await.expect("a transaction");
        },
    );
    moves(
        &member,
        &[
            ("etcd_debugging_mvcc_compact_revision", 4.0),
            ("etcd_debugging_mvcc_db_compaction_keys_total", 1.0),
            ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count", 1.0),
        ],
        async |client| {
            let compaction = CompactionRequest { revision: 3, physical: true };
            client.compact(compaction, patience()).await.expect("a compaction");
        },
    );
    moves(
        &member,
        &[(&handled("InvalidArgument", "KV", "Put"), 1.0), ("etcd_mvcc_put_total", 0.0)],
        async |client| drop(client.put(put(""), patience()).await.expect_err("no key")),
    );
    moves(
        &member,
        &[(&handled("NotFound", "Lease", "LeaseRevoke"), 1.0), (&apply("LeaseRevoke", false), 1.0)],
        async |client| drop(client.revoke(404, patience()).await.expect_err("no lease")),
    );
    moves(
        &member,
        &[
            ("etcd_debugging_lease_granted_total", 1.0),
            ("etcd_debugging_lease_ttl_total_sum", 100.0),
            ("etcd_debugging_lease_revoked_total", 1.0),
            ("etcd_mvcc_hash_rev_duration_seconds_count", 1.0),
            (&handled("OK", "Maintenance", "HashKV"), 1.0),
            ("etcd_debugging_server_lease_expired_total", 0.0),
        ],
        async |client| {
            let granted =
                client.grant(LeaseGrantRequest { id: 0, ttl: 100 }, patience()).await.expect("a lease");
            client.revoke(granted.id, patience()).await.expect("it is there");
            client.hash_kv(0, patience()).await.expect("a hash");
        },
    );
    let page = Page::of(&member);
    assert_eq!(page.value("etcd_server_proposals_pending"), 0.0);
    assert_eq!(page.value("etcd_server_leader_changes_seen_total"), 1.0);
    member.restart();
    let page = Page::of(&member);
    assert_eq!(page.value("etcd_mvcc_put_total"), 0.0, "a counter of the process");
    assert_eq!(page.value("etcd_debugging_mvcc_keys_total"), 1.0, "a fact about the store");
    assert_eq!(page.value(&handled("OK", "KV", "Put")), 0.0);
}

/// The head and the body of the page, asked for with this header.
fn asked_with(member: &Member, header: &str) -> (String, Vec<u8>) {
    let address = member.endpoint().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n{header}\r\n\r\n")
        .expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").expect("a head");
    let body = answer.split_off(end + 4);
    (String::from_utf8(answer).expect("text").to_lowercase(), body)
}

#[test]
fn the_page_is_compressed_and_in_messages_for_who_asks() {
    let member = Member::start(&[]);
    let (head, plain) = asked_with(&member, "Accept: */*");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4; charset=utf-8; escaping=underscores\r\n"),
        "{head}"
    );
    let (head, small) = asked_with(&member, "Accept-Encoding: gzip");
    assert!(head.contains("content-encoding: gzip\r\n"), "{head}");
    assert_eq!(small[..2], [0x1f, 0x8b], "what gzip begins with");
    assert!(small.len() * 4 < plain.len(), "{} bytes of {}", small.len(), plain.len());
    let wanted = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let (head, messages) = asked_with(&member, &format!("Accept: {wanted}"));
    let kind = "application/vnd.google.protobuf; proto=io.prometheus.client.metricfamily; encoding=delimited";
    assert!(head.contains(&format!("content-type: {kind}; escaping=underscores\r\n")), "{head}");
    let text = String::from_utf8_lossy(&messages);
    assert!(text.contains("etcd_mvcc_put_total") && !text.contains("# TYPE"));
}
