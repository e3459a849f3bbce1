//! Fixed answers; what is expected was recorded from etcdctl 3.7.1.

use bytes::Bytes;
use expect_test::{Expect, expect};
use prost::Message;
use wire::authpb::Permission;
use wire::etcdserverpb::response_op::Response;
use wire::etcdserverpb::{AuthUserAddResponse, DowngradeInfo, LeaseStatus, ResponseOp};
use wire::mvccpb::KeyValue;

use super::*;

const CLUSTER_ID: u64 = 324952591200643719;
const MEMBER_ID: u64 = 3319814642761637952;

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: CLUSTER_ID, member_id: MEMBER_ID, revision, raft_term: 2 })
}

fn pair(key: &'static [u8], value: &'static [u8]) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: 3,
        mod_revision: 6,
        version: 2,
        lease: 0,
    }
}

fn range() -> RangeResponse {
    RangeResponse { header: header(8), kvs: vec![pair(b"b", b"b-2")], more: false, count: 1 }
}

fn printer(format: Format) -> Printer {
    Printer { format, hex: false, value_only: false }
}

fn check(printed: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>, expected: Expect) {
    let mut out = Vec::new();
    printed(&mut out).unwrap();
    expected.assert_eq(str::from_utf8(&out).unwrap());
}

#[test]
fn range_in_every_format() {
    check(
        |out| printer(Format::Simple).range(out, &range()),
        expect![[r#"
        b
        b-2
    "#]],
    );
    let hex = Printer { hex: true, ..printer(Format::Simple) };
    check(
        |out| hex.range(out, &range()),
        expect![[r#"
        \x62
        \x62\x2d\x32
    "#]],
    );
    let value_only = Printer { value_only: true, ..printer(Format::Simple) };
    check(
        |out| value_only.range(out, &range()),
        expect![[r#"
        b-2
    "#]],
    );
    check(
        |out| printer(Format::Json).range(out, &range()),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":8,"raft_term":2},"kvs":[{"key":"Yg==","create_revision":3,"mod_revision":6,"version":2,"value":"Yi0y"}],"count":1}
        "#]],
    );
    check(
        |out| printer(Format::Fields).range(out, &range()),
        expect![[r#"
        "ClusterID" : 324952591200643719
        "MemberID" : 3319814642761637952
        "Revision" : 8
        "RaftTerm" : 2
        "Key" : "b"
        "CreateRevision" : 3
        "ModRevision" : 6
        "Version" : 2
        "Value" : "b-2"
        "Lease" : 0
        "More" : false
        "Count" : 1
    "#]],
    );
    let hex = Printer { hex: true, ..printer(Format::Fields) };
    check(
        |out| hex.range(out, &range()),
        expect![[r#"
        "ClusterID" : 48276a8f75b6a87
        "MemberID" : 2e1259d415f2a040
        "Revision" : 8
        "RaftTerm" : 2
        "Key" : "b"
        "CreateRevision" : 3
        "ModRevision" : 6
        "Version" : 2
        "Value" : "b-2"
        "Lease" : 0000000000000000
        "More" : false
        "Count" : 1
    "#]],
    );

    let mut out = Vec::new();
    printer(Format::Protobuf).range(&mut out, &range()).unwrap();
    assert_eq!(RangeResponse::decode(out.as_slice()).unwrap(), range());
    let refused = printer(Format::Table).range(&mut Vec::new(), &range()).unwrap_err();
    assert_eq!(refused, Failure::new(4, "table not supported as output format"));
}

#[test]
fn bytes_that_are_no_text() {
    let answer =
        RangeResponse { header: None, kvs: vec![pair("é\"\\".as_bytes(), b"\x01\xff\0")], ..range() };
    check(
        |out| printer(Format::Fields).range(out, &answer),
        expect![[r#"
        "ClusterID" : 0
        "MemberID" : 0
        "RaftTerm" : 0
        "Key" : "é\"\\"
        "CreateRevision" : 3
        "ModRevision" : 6
        "Version" : 2
        "Value" : "\x01\xff\x00"
        "Lease" : 0
        "More" : false
        "Count" : 1
    "#]],
    );
    let mut out = Vec::new();
    printer(Format::Simple).range(&mut out, &answer).unwrap();
    assert_eq!(out, b"\xc3\xa9\"\\\n\x01\xff\0\n");
}

#[test]
fn put_and_delete() {
    let put = PutResponse { header: header(11), prev_kv: Some(pair(b"a", b"4")) };
    check(
        |out| printer(Format::Simple).put(out, &put),
        expect![[r#"
        OK
        a
        4
    "#]],
    );
    check(
        |out| printer(Format::Json).put(out, &put),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":11,"raft_term":2},"prev_kv":{"key":"YQ==","create_revision":3,"mod_revision":6,"version":2,"value":"NA=="}}
        "#]],
    );
    let delete = DeleteRangeResponse { header: header(25), deleted: 1, prev_kvs: vec![pair(b"x", b"1")] };
    check(
        |out| printer(Format::Simple).delete_range(out, &delete),
        expect![[r#"
        1
        x
        1
    "#]],
    );
    check(
        |out| printer(Format::Json).delete_range(out, &delete),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":25,"raft_term":2},"deleted":1,"prev_kvs":[{"key":"eA==","create_revision":3,"mod_revision":6,"version":2,"value":"MQ=="}]}
        "#]],
    );
    check(
        |out| printer(Format::Fields).delete_range(out, &delete),
        expect![[r#"
        "ClusterID" : 324952591200643719
        "MemberID" : 3319814642761637952
        "Revision" : 25
        "RaftTerm" : 2
        "Deleted" : 1
        "PrevKey" : "x"
        "PrevCreateRevision" : 3
        "PrevModRevision" : 6
        "PrevVersion" : 2
        "PrevValue" : "1"
        "PrevLease" : 0
    "#]],
    );
}

#[test]
fn txn() {
    let inner = Some(ResponseHeader { revision: 8, ..ResponseHeader::default() });
    let op = |response| ResponseOp { response: Some(response) };
    let answer = TxnResponse {
        header: header(8),
        succeeded: true,
        responses: vec![
            op(Response::ResponsePut(PutResponse { header: inner, prev_kv: None })),
            op(Response::ResponseRange(RangeResponse { header: inner, ..range() })),
            op(Response::ResponseDeleteRange(DeleteRangeResponse { header: inner, ..Default::default() })),
        ],
    };
    check(
        |out| printer(Format::Simple).txn(out, &answer),
        expect![[r#"
        SUCCESS

        OK

        b
        b-2

        0
    "#]],
    );
    check(
        |out| printer(Format::Json).txn(out, &answer),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":8,"raft_term":2},"succeeded":true,"responses":[{"Response":{"response_put":{"header":{"revision":8}}}},{"Response":{"response_range":{"header":{"revision":8},"kvs":[{"key":"Yg==","create_revision":3,"mod_revision":6,"version":2,"value":"Yi0y"}],"count":1}}},{"Response":{"response_delete_range":{"header":{"revision":8}}}}]}
        "#]],
    );
    let failed = TxnResponse { succeeded: false, responses: vec![], ..answer };
    check(
        |out| printer(Format::Simple).txn(out, &failed),
        expect![[r#"
        FAILURE
    "#]],
    );
}

fn status() -> [EndpointStatus; 1] {
    let status = StatusResponse {
        header: header(3),
        version: "3.7.1".to_owned(),
        db_size: 20480,
        leader: MEMBER_ID,
        raft_index: 9,
        raft_term: 2,
        raft_applied_index: 9,
        db_size_in_use: 16384,
        storage_version: "3.7.0".to_owned(),
        db_size_quota: 2147483648,
        downgrade_info: Some(DowngradeInfo::default()),
        ..StatusResponse::default()
    };
    [EndpointStatus { endpoint: "127.0.0.1:23790".to_owned(), status }]
}

#[test]
fn endpoint_status() {
    check(
        |out| printer(Format::Simple).endpoint_status(out, &status()),
        expect![[r#"
        127.0.0.1:23790, 2e1259d415f2a040, 3.7.1, 3.7.0, 20 kB, 16 kB, 20%, 2.1 GB, true, false, 2, 9, 9, , , false
    "#]],
    );
    check(
        |out| printer(Format::Json).endpoint_status(out, &status()),
        expect![[r#"
            [{"Endpoint":"127.0.0.1:23790","Status":{"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":3,"raft_term":2},"version":"3.7.1","dbSize":20480,"leader":3319814642761637952,"raftIndex":9,"raftTerm":2,"raftAppliedIndex":9,"dbSizeInUse":16384,"storageVersion":"3.7.0","dbSizeQuota":2147483648,"downgradeInfo":{}}}]
        "#]],
    );
    check(
        |out| printer(Format::Table).endpoint_status(out, &status()),
        expect![[r#"
            ┌─────────────────┬──────────────────┬─────────┬─────────────────┬─────────┬────────┬───────────────────────┬────────┬───────────┬────────────┬───────────┬────────────┬────────────────────┬────────┬──────────────────────────┬───────────────────┐
            │    ENDPOINT     │        ID        │ VERSION │ STORAGE VERSION │ DB SIZE │ IN USE │ PERCENTAGE NOT IN USE │ QUOTA  │ IS LEADER │ IS LEARNER │ RAFT TERM │ RAFT INDEX │ RAFT APPLIED INDEX │ ERRORS │ DOWNGRADE TARGET VERSION │ DOWNGRADE ENABLED │
            ├─────────────────┼──────────────────┼─────────┼─────────────────┼─────────┼────────┼───────────────────────┼────────┼───────────┼────────────┼───────────┼────────────┼────────────────────┼────────┼──────────────────────────┼───────────────────┤
            │ 127.0.0.1:23790 │ 2e1259d415f2a040 │   3.7.1 │           3.7.0 │   20 kB │  16 kB │                   20% │ 2.1 GB │      true │      false │         2 │          9 │                  9 │        │                          │             false │
            └─────────────────┴──────────────────┴─────────┴─────────────────┴─────────┴────────┴───────────────────────┴────────┴───────────┴────────────┴───────────┴────────────┴────────────────────┴────────┴──────────────────────────┴───────────────────┘
        "#]],
    );
    check(
        |out| printer(Format::Fields).endpoint_status(out, &status()),
        expect![[r#"
        "ClusterID" : 324952591200643719
        "MemberID" : 3319814642761637952
        "Revision" : 3
        "RaftTerm" : 2
        "Version" : "3.7.1"
        "StorageVersion" : "3.7.0"
        "DBSize" : 20480
        "DBSizeInUse" : 16384
        "DBSizeQuota" : 2147483648
        "Leader" : 3319814642761637952
        "IsLearner" : false
        "RaftIndex" : 9
        "RaftTerm" : 2
        "RaftAppliedIndex" : 9
        "Errors" : []
        "Endpoint" : "127.0.0.1:23790"
        "DowngradeTargetVersion" : ""
        "DowngradeEnabled" : false

    "#]],
    );
}

const LEASE_ID: i64 = 0x4ee7a229ebe29152;

#[test]
fn a_lease_granted_and_revoked() {
    let granted = LeaseGrantResponse { header: header(1), id: LEASE_ID, ttl: 100, error: String::new() };
    check(
        |out| printer(Format::Simple).lease_grant(out, &granted),
        expect![[r#"
        lease 4ee7a229ebe29152 granted with TTL(100s)
    "#]],
    );
    check(
        |out| printer(Format::Json).lease_grant(out, &granted),
        expect![[r#"
            {"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":1,"raft_term":2,"ID":5685691355513393490,"TTL":100,"Error":""}
        "#]],
    );
    check(
        |out| printer(Format::Fields).lease_grant(out, &granted),
        expect![[r#"
        "ClusterID" : 324952591200643719
        "MemberID" : 3319814642761637952
        "Revision" : 1
        "RaftTerm" : 2
        "ID" : 5685691355513393490
        "TTL" : 100
    "#]],
    );
    let hex = Printer { hex: true, ..printer(Format::Fields) };
    check(
        |out| hex.lease_grant(out, &granted),
        expect![[r#"
        "ClusterID" : 48276a8f75b6a87
        "MemberID" : 2e1259d415f2a040
        "Revision" : 1
        "RaftTerm" : 2
        "ID" : 4ee7a229ebe29152
        "TTL" : 100
    "#]],
    );

    let revoked = LeaseRevokeResponse { header: header(1) };
    check(
        |out| printer(Format::Simple).lease_revoke(out, 0x1234, &revoked),
        expect![[r#"
        lease 0000000000001234 revoked
    "#]],
    );
    check(
        |out| printer(Format::Json).lease_revoke(out, LEASE_ID, &revoked),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":1,"raft_term":2}}
        "#]],
    );
    check(
        |out| printer(Format::Fields).lease_revoke(out, LEASE_ID, &revoked),
        expect![[r#"
        "ClusterID" : 324952591200643719
        "MemberID" : 3319814642761637952
        "Revision" : 1
        "RaftTerm" : 2
    "#]],
    );
}

#[test]
fn what_is_left_of_a_lease() {
    let keys = vec!["k z".into(), Bytes::from_static(b"\xff\n")];
    let left = LeaseTimeToLiveResponse { header: header(4), id: LEASE_ID, ttl: 99, granted_ttl: 100, keys };
    check(
        |out| printer(Format::Simple).lease_time_to_live(out, &left, false),
        expect![[r#"
        lease 4ee7a229ebe29152 granted with TTL(100s), remaining(99s)
    "#]],
    );
    let mut out = Vec::new();
    printer(Format::Simple).lease_time_to_live(&mut out, &left, true).unwrap();
    let text =
        b"lease 4ee7a229ebe29152 granted with TTL(100s), remaining(99s), attached keys([k z \xff\n])\n";
    assert_eq!(out, text);
    check(
        |out| printer(Format::Json).lease_time_to_live(out, &left, true),
        expect![[r#"
            {"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":4,"raft_term":2,"id":5685691355513393490,"ttl":99,"granted-ttl":100,"keys":["ayB6","/wo="]}
        "#]],
    );
    check(
        |out| printer(Format::Fields).lease_time_to_live(out, &left, true),
        expect![[r#"
        "ClusterID" : 324952591200643719
        "MemberID" : 3319814642761637952
        "Revision" : 4
        "RaftTerm" : 2
        "ID" : 5685691355513393490
        "TTL" : 99
        "GrantedTTL" : 100
        "Key" : "k z"
        "Key" : "\xff\n"
    "#]],
    );

    let bare = LeaseTimeToLiveResponse { keys: Vec::new(), ..left };
    check(
        |out| printer(Format::Simple).lease_time_to_live(out, &bare, true),
        expect![[r#"
        lease 4ee7a229ebe29152 granted with TTL(100s), remaining(99s), attached keys([])
    "#]],
    );
    let gone = LeaseTimeToLiveResponse { id: -5, ttl: -1, granted_ttl: 0, ..bare };
    check(
        |out| printer(Format::Simple).lease_time_to_live(out, &gone, true),
        expect![[r#"
        lease -000000000000005 already expired
    "#]],
    );
    check(
        |out| printer(Format::Json).lease_time_to_live(out, &gone, false),
        expect![[r#"
            {"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":4,"raft_term":2,"id":-5,"ttl":-1,"granted-ttl":0,"keys":null}
        "#]],
    );
    let hex = Printer { hex: true, ..printer(Format::Fields) };
    check(
        |out| hex.lease_time_to_live(out, &gone, false),
        expect![[r#"
        "ClusterID" : 48276a8f75b6a87
        "MemberID" : 2e1259d415f2a040
        "Revision" : 4
        "RaftTerm" : 2
        "ID" : -000000000000005
        "TTL" : -1
        "GrantedTTL" : 0
    "#]],
    );
}

#[test]
fn a_list_of_leases() {
    let list = [LEASE_ID, 7].map(|id| LeaseStatus { id }).to_vec();
    let answer = LeaseLeasesResponse { header: header(1), leases: list };
    check(
        |out| printer(Format::Simple).leases(out, &answer),
        expect![[r#"
        found 2 leases
        4ee7a229ebe29152
        0000000000000007
    "#]],
    );
    check(
        |out| printer(Format::Json).leases(out, &answer),
        expect![[r#"
            {"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":1,"raft_term":2,"leases":[{"id":5685691355513393490},{"id":7}]}
        "#]],
    );
    let hex = Printer { hex: true, ..printer(Format::Fields) };
    check(
        |out| hex.leases(out, &answer),
        expect![[r#"
        "ClusterID" : 48276a8f75b6a87
        "MemberID" : 2e1259d415f2a040
        "Revision" : 1
        "RaftTerm" : 2
        "ID" : 4ee7a229ebe29152
        "ID" : 0000000000000007
    "#]],
    );

    let none = LeaseLeasesResponse { header: header(1), leases: Vec::new() };
    check(
        |out| printer(Format::Simple).leases(out, &none),
        expect![[r#"
        found 0 leases
    "#]],
    );
    check(
        |out| printer(Format::Json).leases(out, &none),
        expect![[r#"
            {"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":1,"raft_term":2,"leases":[]}
        "#]],
    );
}

/// Of most answers about leases the header alone is written, of one not even that.
#[test]
fn leases_in_protobuf_and_table() {
    let grant = LeaseGrantResponse { header: header(1), id: LEASE_ID, ttl: 100, error: String::new() };
    let left = LeaseTimeToLiveResponse { header: header(1), id: LEASE_ID, ..Default::default() };
    let list = LeaseLeasesResponse { header: header(1), leases: vec![LeaseStatus { id: LEASE_ID }] };
    let revoked = LeaseRevokeResponse { header: header(1) };
    let print = |format: Format| {
        let printer = printer(format);
        let mut outs: [Vec<u8>; 4] = Default::default();
        let [one, two, three, four] = &mut outs;
        let results = [
            printer.lease_grant(one, &grant),
            printer.lease_time_to_live(two, &left, true),
            printer.leases(three, &list),
            printer.lease_revoke(four, LEASE_ID, &revoked),
        ];
        (outs, results)
    };
    let (outs, results) = print(Format::Protobuf);
    for out in &outs[..3] {
        assert_eq!(ResponseHeader::decode(out.as_slice()).ok(), header(1));
    }
    let text = "marshal unsupported for type *clientv3.LeaseRevokeResponse";
    assert_eq!(results, [Ok(()), Ok(()), Ok(()), Err(Failure::new(4, text))]);

    let (outs, results) = print(Format::Table);
    let refused = Failure::new(4, "table not supported as output format");
    assert!(results.iter().all(|result| *result == Err(refused.clone())), "{results:?}");
    assert!(outs.iter().all(Vec::is_empty));
}

#[test]
fn no_endpoint_has_answered() {
    check(|out| printer(Format::Simple).endpoint_hash(out, &[]), expect![[""]]);
    check(
        |out| printer(Format::Json).endpoint_hash(out, &[]),
        expect![[r#"
        null
    "#]],
    );
    check(
        |out| printer(Format::Table).endpoint_hash(out, &[]),
        expect![[r#"
        ┌──────────┬──────┬───────────────┐
        │ ENDPOINT │ HASH │ HASH REVISION │
        └──────────┴──────┴───────────────┘
    "#]],
    );
}

#[test]
fn endpoint_health_and_hash() {
    let list = [
        EndpointHealth {
            endpoint: "127.0.0.1:1".to_owned(),
            health: false,
            took: "1.000871039s".to_owned(),
            error: "context deadline exceeded".to_owned(),
        },
        EndpointHealth {
            endpoint: "127.0.0.1:23790".to_owned(),
            health: true,
            took: "5.807518ms".to_owned(),
            error: String::new(),
        },
    ];
    let mut err = Vec::new();
    check(
        |out| printer(Format::Simple).endpoint_health(out, &mut err, &list),
        expect![[r#"
            127.0.0.1:23790 is healthy: successfully committed proposal: took = 5.807518ms
        "#]],
    );
    let err = String::from_utf8(err).unwrap();
    assert_eq!(err, "127.0.0.1:1 is unhealthy: failed to commit proposal: context deadline exceeded\n");
    check(
        |out| printer(Format::Json).endpoint_health(out, &mut Vec::new(), &list),
        expect![[r#"
            [{"endpoint":"127.0.0.1:1","health":false,"took":"1.000871039s","error":"context deadline exceeded"},{"endpoint":"127.0.0.1:23790","health":true,"took":"5.807518ms"}]
        "#]],
    );

    let hash = HashKvResponse { header: header(3), hash: 535221974, compact_revision: -1, hash_revision: 3 };
    let list = [EndpointHash { endpoint: "127.0.0.1:23790".to_owned(), hash }];
    check(
        |out| printer(Format::Simple).endpoint_hash(out, &list),
        expect![[r#"
        127.0.0.1:23790, 535221974, 3
    "#]],
    );
    check(
        |out| printer(Format::Json).endpoint_hash(out, &list),
        expect![[r#"
            [{"Endpoint":"127.0.0.1:23790","HashKV":{"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":3,"raft_term":2},"hash":535221974,"compact_revision":-1,"hash_revision":3}}]
        "#]],
    );
}

#[test]
fn a_reader_that_went_away_is_told_nothing_and_is_no_success() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let ended = printer(Format::Simple).range(&mut Closed, &range()).unwrap_err();
    assert_eq!(ended, Failure::silent(141));
}

fn learner() -> Member {
    Member {
        id: 0xabc_def0_1234_5678,
        name: String::new(),
        peer_ur_ls: vec!["http://b:2380".into(), "http://b:2381".into()],
        client_ur_ls: Vec::new(),
        is_learner: true,
    }
}

fn member_list() -> MemberListResponse {
    let first = Member {
        id: MEMBER_ID,
        name: "m1".into(),
        peer_ur_ls: vec!["http://a:2380".into()],
        client_ur_ls: vec!["http://a:2379".into()],
        is_learner: false,
    };
    MemberListResponse { header: header(0), members: vec![learner(), first] }
}

#[test]
fn members_in_every_format() {
    let members = member_list();
    let printed = |how: Printer| move |out: &mut Vec<u8>| how.members(out, &member_list());
    let hex = |format| Printer { hex: true, ..printer(format) };
    check(
        printed(printer(Format::Simple)),
        expect![[r#"
            abcdef012345678, unstarted, , http://b:2380,http://b:2381, , true
            2e1259d415f2a040, started, m1, http://a:2380, http://a:2379, false
        "#]],
    );
    check(
        printed(printer(Format::Json)),
        expect![[r#"
        {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"raft_term":2},"members":[{"ID":773738358679819896,"peerURLs":["http://b:2380","http://b:2381"],"isLearner":true},{"ID":3319814642761637952,"name":"m1","peerURLs":["http://a:2380"],"clientURLs":["http://a:2379"]}]}
    "#]],
    );
    check(
        printed(hex(Format::Json)),
        expect![[r#"
        {"header":{"cluster_id":"48276a8f75b6a87","member_id":"2e1259d415f2a040","raft_term":2},"members":[{"ID":"abcdef012345678","peerURLs":["http://b:2380","http://b:2381"],"isLearner":true},{"ID":"2e1259d415f2a040","name":"m1","peerURLs":["http://a:2380"],"clientURLs":["http://a:2379"]}]}
    "#]],
    );
    check(
        printed(printer(Format::Fields)),
        expect![[r#"
        "ClusterID" : 324952591200643719
        "MemberID" : 3319814642761637952
        "RaftTerm" : 2
        "ID" : 773738358679819896
        "Name" : ""
        "PeerURL" : "http://b:2380"
        "PeerURL" : "http://b:2381"
        "IsLearner" : true

        "ID" : 3319814642761637952
        "Name" : "m1"
        "PeerURL" : "http://a:2380"
        "ClientURL" : "http://a:2379"
        "IsLearner" : false

    "#]],
    );
    check(
        printed(hex(Format::Fields)),
        expect![[r#"
        "ClusterID" : 48276a8f75b6a87
        "MemberID" : 2e1259d415f2a040
        "RaftTerm" : 2
        "ID" : abcdef012345678
        "Name" : ""
        "PeerURL" : "http://b:2380"
        "PeerURL" : "http://b:2381"
        "IsLearner" : true

        "ID" : 2e1259d415f2a040
        "Name" : "m1"
        "PeerURL" : "http://a:2380"
        "ClientURL" : "http://a:2379"
        "IsLearner" : false

    "#]],
    );
    check(
        printed(printer(Format::Table)),
        expect![[r#"
        ┌──────────────────┬───────────┬──────┬─────────────────────────────┬───────────────┬────────────┐
        │        ID        │  STATUS   │ NAME │         PEER ADDRS          │ CLIENT ADDRS  │ IS LEARNER │
        ├──────────────────┼───────────┼──────┼─────────────────────────────┼───────────────┼────────────┤
        │  abcdef012345678 │ unstarted │      │ http://b:2380,http://b:2381 │               │       true │
        │ 2e1259d415f2a040 │   started │   m1 │               http://a:2380 │ http://a:2379 │      false │
        └──────────────────┴───────────┴──────┴─────────────────────────────┴───────────────┴────────────┘
    "#]],
    );
    let mut out = Vec::new();
    printer(Format::Protobuf).members(&mut out, &members).unwrap();
    assert_eq!(MemberListResponse::decode(&out[..]).unwrap(), members);
}

#[test]
fn changes_of_membership() {
    let MemberListResponse { header, members } = member_list();
    let added = MemberAddResponse { header, member: Some(learner()), members: members.clone() };
    let hex = Printer { hex: true, ..printer(Format::Json) };
    check(
        |out| printer(Format::Simple).member_add(out, &added),
        expect![[r#"
        Member  abcdef012345678 added as learner to cluster  48276a8f75b6a87
    "#]],
    );
    check(
        |out| printer(Format::Json).member_add(out, &added),
        expect![[r#"
        {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"raft_term":2},"member":{"ID":773738358679819896,"peerURLs":["http://b:2380","http://b:2381"],"isLearner":true},"members":[{"ID":773738358679819896,"peerURLs":["http://b:2380","http://b:2381"],"isLearner":true},{"ID":3319814642761637952,"name":"m1","peerURLs":["http://a:2380"],"clientURLs":["http://a:2379"]}]}
    "#]],
    );
    check(
        |out| hex.member_add(out, &added),
        expect![[r#"
        {"header":{"cluster_id":"48276a8f75b6a87","member_id":"2e1259d415f2a040","raft_term":2},"member":{"ID":"abcdef012345678","peerURLs":["http://b:2380","http://b:2381"],"isLearner":true},"members":[{"ID":"abcdef012345678","peerURLs":["http://b:2380","http://b:2381"],"isLearner":true},{"ID":"2e1259d415f2a040","name":"m1","peerURLs":["http://a:2380"],"clientURLs":["http://a:2379"]}]}
    "#]],
    );
    let removed = MemberRemoveResponse { header, members: members.clone() };
    check(
        |out| printer(Format::Simple).member_remove(out, 0x1234, &removed),
        expect![[r#"
        Member             1234 removed from cluster  48276a8f75b6a87
    "#]],
    );
    let updated = MemberUpdateResponse { header, members: members.clone() };
    check(
        |out| printer(Format::Simple).member_update(out, MEMBER_ID, &updated),
        expect![[r#"
        Member 2e1259d415f2a040 updated in cluster  48276a8f75b6a87
    "#]],
    );
    let promoted = MemberPromoteResponse { header, members: Vec::new() };
    check(
        |out| printer(Format::Simple).member_promote(out, MEMBER_ID, &promoted),
        expect![[r#"
        Member 2e1259d415f2a040 promoted in cluster  48276a8f75b6a87
    "#]],
    );
    check(
        |out| printer(Format::Json).member_promote(out, MEMBER_ID, &promoted),
        expect![[r#"
        {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"raft_term":2}}
    "#]],
    );
    check(
        |out| hex.member_promote(out, MEMBER_ID, &promoted),
        expect![[r#"
        {"header":{"cluster_id":"48276a8f75b6a87","member_id":"2e1259d415f2a040","raft_term":2},"members":[]}
    "#]],
    );
    for format in [Format::Fields, Format::Table] {
        let failure = printer(format).member_add(&mut Vec::new(), &added).unwrap_err();
        assert_eq!(failure.code, exit::BAD_FEATURE);
    }
}

#[test]
fn leadership_and_downgrades() {
    let moved = MoveLeaderResponse::default();
    check(
        |out| printer(Format::Simple).move_leader(out, (MEMBER_ID, 0x12), &moved),
        expect![[r#"
        Leadership transferred from 2e1259d415f2a040 to 12
    "#]],
    );
    check(
        |out| printer(Format::Json).move_leader(out, (MEMBER_ID, 0x12), &moved),
        expect![[r#"
        {}
    "#]],
    );
    let answer = DowngradeResponse { header: header(2), version: "3.7".into() };
    let action = DowngradeAction::Validate;
    check(
        |out| printer(Format::Simple).downgrade(out, action, &answer),
        expect![[r#"
        Downgrade validate success, cluster version 3.7
    "#]],
    );
    check(
        |out| printer(Format::Json).downgrade(out, action, &answer),
        expect![[r#"
        {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":2,"raft_term":2},"version":"3.7"}
    "#]],
    );
}

fn permission(perm_type: i32, key: &'static [u8], range_end: &'static [u8]) -> Permission {
    Permission { perm_type, key: key.into(), range_end: range_end.into() }
}

#[test]
fn permissions_of_a_role() {
    let perm = vec![
        permission(2, b"\0", b"\0"),
        permission(0, b"a", b"c"),
        permission(0, b"a\"\xff", b"a#"),
        permission(1, b"k", b""),
        permission(1, b"m", b"\0"),
        permission(2, b"p/", b"p0"),
        permission(0, b"\xff", b"\0"),
    ];
    let answer = AuthRoleGetResponse { header: header(8), perm };
    let mut out = Vec::new();
    printer(Format::Simple).role_get(&mut out, "reader", &answer).unwrap();
    expect![[r#"
        Role reader
        KV Read:
        	[\x00, <open ended>
        	[a, c)
        	[a"\xff, a#) (prefix a"\xff)
        	[p/, p0) (prefix p/)
        	[\xff, <open ended> (prefix \xff)
        KV Write:
        	[\x00, <open ended>
        	k
        	[m, <open ended>
        	[p/, p0) (prefix p/)
    "#]]
    .assert_eq(&out.utf8_chunks().fold(String::new(), |text, chunk| {
        let invalid: String = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")).collect();
        text + &chunk.valid().replace('\0', "\\x00") + &invalid
    }));
    check(
        |out| printer(Format::Fields).role_get(out, "reader", &answer),
        expect![[r#"
            "ClusterID" : 324952591200643719
            "MemberID" : 3319814642761637952
            "Revision" : 8
            "RaftTerm" : 2
            "PermType" :  READWRITE
            "Key" : "\x00"
            "RangeEnd" : "\x00"
            "PermType" :  READ
            "Key" : "a"
            "RangeEnd" : "c"
            "PermType" :  READ
            "Key" : "a\"\xff"
            "RangeEnd" : "a#"
            "PermType" :  WRITE
            "Key" : "k"
            "RangeEnd" : ""
            "PermType" :  WRITE
            "Key" : "m"
            "RangeEnd" : "\x00"
            "PermType" :  READWRITE
            "Key" : "p/"
            "RangeEnd" : "p0"
            "PermType" :  READ
            "Key" : "\xff"
            "RangeEnd" : "\x00"
        "#]],
    );
    let few = AuthRoleGetResponse {
        perm: vec![permission(0, b"a", b"c"), permission(2, b"k", b"")],
        ..answer.clone()
    };
    check(
        |out| printer(Format::Json).role_get(out, "reader", &few),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":8,"raft_term":2},"perm":[{"key":"YQ==","range_end":"Yw=="},{"permType":2,"key":"aw=="}]}
        "#]],
    );
    let mut out = Vec::new();
    printer(Format::Protobuf).role_get(&mut out, "reader", &answer).unwrap();
    assert_eq!(AuthRoleGetResponse::decode(out.as_slice()).unwrap(), answer);
    let refused = printer(Format::Table).role_get(&mut Vec::new(), "reader", &answer).unwrap_err();
    assert_eq!(refused, Failure::new(4, "table not supported as output format"));
}

#[test]
fn root_may_do_everything() {
    for perm in [vec![], vec![permission(2, b"", b"\0")]] {
        let answer = AuthRoleGetResponse { header: header(8), perm };
        check(
            |out| printer(Format::Simple).role_get(out, "root", &answer),
            expect![[r#"
                Role root
                KV Read:
                	[, <open ended>
                KV Write:
                	[, <open ended>
            "#]],
        );
    }
    let nothing = AuthRoleGetResponse { header: header(8), perm: vec![] };
    check(
        |out| printer(Format::Simple).role_get(out, "reader", &nothing),
        expect![[r#"
            Role reader
            KV Read:
            KV Write:
        "#]],
    );
}

#[test]
fn a_permission_taken_back() {
    let answer = AuthRoleRevokePermissionResponse { header: header(8) };
    let revoke = |format: Format, key: &'static [u8], end: &'static [u8]| {
        let answer = &answer;
        move |out: &mut Vec<u8>| printer(format).role_revoke_permission(out, "reader", (key, end), answer)
    };
    check(
        revoke(Format::Simple, b"k", b""),
        expect![[r#"
            Permission of key k is revoked from role reader
        "#]],
    );
    check(
        revoke(Format::Simple, b"p/", b"p0"),
        expect![[r#"
            Permission of range [p/, p0) is revoked from role reader
        "#]],
    );
    check(
        revoke(Format::Simple, b"", b"\0"),
        expect![[r#"
            Permission of range [, <open ended> is revoked from role reader
        "#]],
    );
    check(
        revoke(Format::Json, b"k", b""),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":8,"raft_term":2}}
        "#]],
    );
    let mut out = Vec::new();
    revoke(Format::Protobuf, b"k", b"")(&mut out).unwrap();
    assert_eq!(AuthRoleRevokePermissionResponse::decode(out.as_slice()).unwrap(), answer);
}

#[test]
fn changes_of_users_and_roles() {
    let change =
        |format| move |out: &mut Vec<u8>| printer(format).auth_changed(out, "User alice created", header(8));
    check(
        change(Format::Simple),
        expect![[r#"
            User alice created
        "#]],
    );
    check(
        change(Format::Fields),
        expect![[r#"
            "ClusterID" : 324952591200643719
            "MemberID" : 3319814642761637952
            "Revision" : 8
            "RaftTerm" : 2
        "#]],
    );
    check(
        change(Format::Json),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":8,"raft_term":2}}
        "#]],
    );
    let mut out = Vec::new();
    change(Format::Protobuf)(&mut out).unwrap();
    assert_eq!(AuthUserAddResponse::decode(out.as_slice()).unwrap().header, header(8));
    let refused = change(Format::Table)(&mut Vec::new()).unwrap_err();
    assert_eq!(refused, Failure::new(4, "table not supported as output format"));
}

#[test]
fn users_and_roles() {
    let names = vec!["alice".to_owned(), "bob \"b\" <b>".to_owned()];
    let user = AuthUserGetResponse { header: header(8), roles: names.clone() };
    check(
        |out| printer(Format::Simple).user_get(out, "carol", &user),
        expect![[r#"
            User: carol
            Roles: alice bob "b" <b>
        "#]],
    );
    check(
        |out| printer(Format::Json).user_get(out, "carol", &user),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":8,"raft_term":2},"roles":["alice","bob \"b\" \u003cb\u003e"]}
        "#]],
    );
    let none = AuthUserGetResponse { header: header(8), roles: vec![] };
    check(
        |out| printer(Format::Simple).user_get(out, "carol", &none),
        expect![[r#"
            User: carol
            Roles:
        "#]],
    );
    let users = AuthUserListResponse { header: header(8), users: names.clone() };
    check(
        |out| printer(Format::Simple).user_list(out, &users),
        expect![[r#"
            alice
            bob "b" <b>
        "#]],
    );
    check(
        |out| printer(Format::Json).user_list(out, &users),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":8,"raft_term":2},"users":["alice","bob \"b\" \u003cb\u003e"]}
        "#]],
    );
    let roles = AuthRoleListResponse { header: header(8), roles: names };
    check(
        |out| printer(Format::Fields).role_list(out, &roles),
        expect![[r#"
            "ClusterID" : 324952591200643719
            "MemberID" : 3319814642761637952
            "Revision" : 8
            "RaftTerm" : 2
            "Roles" : "alice" "bob \"b\" <b>"
        "#]],
    );
    check(
        |out| printer(Format::Json).role_list(out, &AuthRoleListResponse { roles: vec![], ..roles.clone() }),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":8,"raft_term":2}}
        "#]],
    );
    for format in [Format::Fields, Format::Table] {
        let name = if format == Format::Fields { "fields" } else { "table" };
        let refused = Failure::new(4, format!("{name} not supported as output format"));
        let out = &mut Vec::new();
        assert_eq!(printer(format).user_get(out, "carol", &user).unwrap_err(), refused);
        assert_eq!(printer(format).user_list(out, &users).unwrap_err(), refused);
        assert_eq!(printer(format).auth_status(out, &AuthStatusResponse::default()).unwrap_err(), refused);
    }
}

#[test]
fn whether_authentication_is_on() {
    let on = AuthStatusResponse { header: header(8), enabled: true, auth_revision: 30 };
    check(
        |out| printer(Format::Simple).auth_status(out, &on),
        expect![[r#"
            Authentication Status: true
            AuthRevision: 30
        "#]],
    );
    check(
        |out| printer(Format::Json).auth_status(out, &on),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":8,"raft_term":2},"enabled":true,"authRevision":30}
        "#]],
    );
    let off = AuthStatusResponse { enabled: false, auth_revision: 1, ..on };
    check(
        |out| printer(Format::Json).auth_status(out, &off),
        expect![[r#"
            {"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":8,"raft_term":2},"authRevision":1}
        "#]],
    );
    let mut out = Vec::new();
    printer(Format::Protobuf).auth_status(&mut out, &on).unwrap();
    assert_eq!(AuthStatusResponse::decode(out.as_slice()).unwrap(), on);
}
