//! What takes long is told of in the log, in etcd's words; here everything does.

use blackbox::{Member, patience, run};
use wire::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request};

const APPLY: &str = r#""msg":"apply request took too long""#;
const STATS: &str = r#""msg":"request stats""#;

/// The lines of the log that have all of these.
fn lines<'a>(log: &'a str, texts: &[&str]) -> Vec<&'a str> {
    log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).collect()
}

#[test]
fn what_is_slow_is_told_of_without_values() {
    let mut member = Member::start(&["--warning-apply-duration=1ns", "--warning-unary-request-duration=1ns"]);
    run(async {
        let client = member.client();
        let put = PutRequest { key: "a\"b".into(), value: "secret".into(), ..Default::default() };
        client.put(put.clone(), patience()).await.expect("a put");
        let range = RangeRequest { key: "a".into(), range_end: "b".into(), limit: 3, ..Default::default() };
        client.range(range.clone(), patience()).await.expect("a range");
        let at = RangeRequest { revision: 100, ..range.clone() };
        client.range(at, patience()).await.expect_err("a revision of the future");
        let op = |request| RequestOp { request: Some(request) };
        let reads =
            TxnRequest { success: vec![op(Request::RequestRange(range.clone()))], ..Default::default() };
        client.txn(reads, patience()).await.expect("a transaction that reads");
        let writes = vec![
            op(Request::RequestPut(put)),
            op(Request::RequestRange(RangeRequest { revision: 0, ..range })),
        ];
        let writes = TxnRequest { success: writes, ..Default::default() };
        client.txn(writes, patience()).await.expect("a transaction that writes");
    });
    assert!(member.etcdctl(&["lease", "grant", "60"]).status.success());
    assert!(member.etcdctl(&["compaction", "2"]).status.success());
    member.terminate();

    let log = member.log();
    let range = r#"key:\"a\" range_end:\"b\" limit:3"#;
    let put = r#"key:\"a\\\"b\" value_size:6 "#;
    // Recorded from etcd 3.7.1, but for the ids and the sizes of answers.
    for (texts, count) in [
        (
            vec![
                APPLY,
                r#""level":"warn""#,
                r#""expected-duration":"1ns","prefix":"","request":"header:<ID:"#,
                &format!("> put:<{put}>\",\"response\":\"size:4\"}}"),
            ],
            1,
        ),
        (
            vec![
                APPLY,
                &format!(
                    r#""prefix":"read-only range ","request":"{range}","response":"range_response_count:1 size:"#
                ),
            ],
            1,
        ),
        (
            vec![
                APPLY,
                r#" revision:100","response":"","error":"mvcc: required revision is a future revision""#,
            ],
            1,
        ),
        (
            vec![
                APPLY,
                &format!(
                    r#""prefix":"read-only txn ","request":"compare:<> success:<request_range:{{{range}}}> failure:<>","response":"responses:<range_response_count:1> size:"#
                ),
            ],
            1,
        ),
        (
            vec![
                APPLY,
                &format!(
                    r#"> txn:<compare:<> success:<request_put:<{put}> request_range:{{{range}}}> failure:<>>""#
                ),
            ],
            1,
        ),
        (vec![APPLY, r#"> lease_grant:<ttl:60-second id:"#], 1),
        (vec![APPLY, r#"> compaction:{revision:2}""#], 1),
        (
            vec![
                STATS,
                r#""level":"warn""#,
                r#""start time":"20"#,
                r#""time spent":""#,
                r#""remote":"127.0.0.1:"#,
                r#""response type":"/etcdserverpb.KV/Put","request count":1,"request size":13,"response count":0,"response size":2"#,
                &format!(r#""request content":"{put}""#),
            ],
            1,
        ),
        (
            vec![
                STATS,
                r#""response type":"/etcdserverpb.KV/Range","request count":0,"request size":8,"response count":1,"#,
                range,
            ],
            1,
        ),
        (
            vec![
                STATS,
                r#""response type":"/etcdserverpb.KV/Range","request count":0,"request size":10,"response count":0,"response size":0"#,
            ],
            1,
        ),
        (vec![STATS, r#""response type":"/etcdserverpb.KV/Txn","request count":1,"request size":10,"#], 1),
        (vec![STATS, r#""response type":"/etcdserverpb.KV/Txn","request count":2,"request size":25,"#], 1),
        (
            vec![
                STATS,
                r#""response type":"/etcdserverpb.Lease/LeaseGrant","request count":-1,"request size":-1,"response count":-1,"response size":-1,"request content":"""#,
            ],
            1,
        ),
        (vec![STATS, r#""response type":"/etcdserverpb.KV/Compact","request count":-1,"#], 1),
    ] {
        assert_eq!(lines(&log, &texts).len(), count, "{texts:?}:\n{log}");
    }
    assert!(!log.contains("secret"));
}

#[test]
fn what_is_not_slow_is_not_told_of() {
    let mut member = Member::start(&["--warning-apply-duration=1h", "--warning-unary-request-duration=1h"]);
    assert!(member.etcdctl(&["put", "a", "b"]).status.success());
    assert!(member.etcdctl(&["get", "a"]).status.success());
    member.terminate();
    assert!(lines(&member.log(), &["took too long"]).is_empty() && lines(&member.log(), &[STATS]).is_empty());
}

/// Who asks for debug lines gets those of all calls, as in etcd.
#[test]
fn with_debug_all_calls_are_told_of() {
    let mut member = Member::start(&["--log-level=debug"]);
    assert!(member.etcdctl(&["put", "a", "b"]).status.success());
    member.terminate();
    let log = member.log();
    let told = lines(&log, &[STATS, r#""level":"debug""#, r#""response type":"/etcdserverpb.KV/Put""#]);
    assert_eq!(told.len(), 1, "{log}");
}
