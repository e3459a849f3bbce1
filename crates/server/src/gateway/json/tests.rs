//! What is read and written; texts and values are what etcd 3.7.1 gave for the same requests.

use bytes::Bytes;
use prost::Message as _;
use wire::etcdserverpb as pb;

use super::read::read;
use super::scan::Values;
use super::write::{Texts, Writer};
use crate::gateway::schema::Message;
use crate::gateway::schema::tables::METHODS;

const BYTES_MAX: usize = 1 << 20;

fn request(path: &str) -> &'static Message {
    METHODS.iter().find(|method| method.path == path).unwrap().request
}

fn response(path: &str) -> &'static Message {
    METHODS.iter().find(|method| method.path == path).unwrap().response
}

fn range(json: &str) -> Result<pb::RangeRequest, String> {
    let message = read(json.as_bytes(), request("/etcdserverpb.KV/Range"), BYTES_MAX)?;
    assert_eq!(message[1..5], (message.len() as u32 - 5).to_be_bytes());
    Ok(pb::RangeRequest::decode(&message[5..]).unwrap())
}

fn txn(json: &str) -> Result<pb::TxnRequest, String> {
    let message = read(json.as_bytes(), request("/etcdserverpb.KV/Txn"), BYTES_MAX)?;
    Ok(pb::TxnRequest::decode(&message[5..]).unwrap())
}

fn written(message: &impl prost::Message, schema: &'static Message, texts: Texts, piece: usize) -> String {
    let mut json = Vec::new();
    let mut writer = Writer::begin(Bytes::from(message.encode_to_vec()), schema, texts, &mut json);
    let mut all = Vec::new();
    loop {
        let is_all = writer.write(&mut json, piece, usize::MAX);
        all.append(&mut json);
        if is_all {
            return String::from_utf8(all).unwrap();
        }
    }
}

#[test]
fn fields_are_read_in_every_form() {
    let want = pb::RangeRequest { key: "a".into(), limit: 20, sort_order: 2, ..Default::default() };
    for json in [
        r#"{"key":"YQ==","limit":20,"sort_order":2}"#,
        r#" { "limit" : "20" , "sortOrder" : "DESCEND" , "key" : "YQ" } "#,
        r#"{"key":"YQ==","limit":20.0,"sort_order":2.0}"#,
        r#"{"key":"YQ==","limit":2e1,"sort_order":"DESCEND"}"#,
        r#"{"key":"YQ==","limit":"2.0E+1","sort_order":20e-1}"#,
        r#"{"k\u0065y":"\u0059Q==","limit":0.2e2,"sort_order":2}"#,
        r#"{"key":"YQ==","limit":200e-1,"sort_order":2,"range_end":null,"revision":null}"#,
        r#"{"key":"YQ==","limit":20,"sort_order":2,"nonsense":[{"a":"}]\""},null,1],"serializable":false}"#,
        r#"{"key":"YR==","limit":20,"sort_order":2,"revision":-0,"sort_target":"NONSENSE","range_end":""}"#,
    ] {
        assert_eq!(range(json), Ok(want.clone()), "{json}");
    }
    for (json, bytes) in [
        (r#"{"key":"/wD+"}"#, &b"\xff\0\xfe"[..]),
        (r#"{"key":"_wD-"}"#, b"\xff\0\xfe"),
        (r#"{"key":"c-_="}"#, b"s\xef"),
        (r#"{"key":"c-_"}"#, b"s\xef"),
        (r#"{"key":"YW\nJj"}"#, b"abc"),
        (r#"{"key":""}"#, b""),
    ] {
        assert_eq!(range(json).unwrap().key, bytes, "{json}");
    }
    assert_eq!(range("{}"), Ok(pb::RangeRequest::default()));
    let numbers = r#"{"limit":-9223372036854775808,"revision":"9223372036854775807","sort_order":9}"#;
    let numbers = range(numbers).unwrap();
    assert_eq!((numbers.limit, numbers.revision, numbers.sort_order), (i64::MIN, i64::MAX, 9));
}

#[test]
fn what_is_refused_and_in_which_words() {
    for (json, text) in [
        ("[]", "syntax error (line 1:1): unexpected token ["),
        ("null", "syntax error (line 1:1): unexpected token null"),
        ("\"x\"", "syntax error (line 1:1): unexpected token \"x\""),
        (r#"{"key":"!!!"}"#, r#"(line 1:8): invalid value for bytes field key: "!!!""#),
        (r#"{"key":"YQ="}"#, r#"(line 1:8): invalid value for bytes field key: "YQ=""#),
        (r#"{"key":"-_+="}"#, r#"(line 1:8): invalid value for bytes field key: "-_+=""#),
        (r#"{"key":5}"#, "(line 1:8): invalid value for bytes field key: 5"),
        (r#"{"key":{}}"#, "(line 1:8): invalid value for bytes field key: {"),
        (r#"{"key":"YQ==","limit":"x"}"#, r#"(line 1:23): invalid value for int64 field limit: "x""#),
        (r#"{"key":"YQ==","limit":1.5}"#, "(line 1:23): invalid value for int64 field limit: 1.5"),
        (r#"{"key":"YQ==","limit":" 1"}"#, r#"(line 1:23): invalid value for int64 field limit: " 1""#),
        (r#"{"limit":"01"}"#, r#"(line 1:10): invalid value for int64 field limit: "01""#),
        (r#"{"limit":"1e"}"#, r#"(line 1:10): invalid value for int64 field limit: "1e""#),
        (r#"{"limit":1e99}"#, "(line 1:10): invalid value for int64 field limit: 1e99"),
        (r#"{"limit":15e-1}"#, "(line 1:10): invalid value for int64 field limit: 15e-1"),
        (
            r#"{"limit":9223372036854775808}"#,
            "(line 1:10): invalid value for int64 field limit: 9223372036854775808",
        ),
        (r#"{"limit":true}"#, "(line 1:10): invalid value for int64 field limit: true"),
        (r#"{"key":"YQ==","key":"Yg=="}"#, r#"(line 1:15): duplicate field "key""#),
        (r#"{"sort_order":0,"sortOrder":0}"#, r#"(line 1:17): duplicate field "sortOrder""#),
        (r#"{"serializable":"true"}"#, r#"(line 1:17): invalid value for bool field serializable: "true""#),
        (r#"{"sort_order":true}"#, "(line 1:15): invalid value for enum field sortOrder: true"),
        (r#"{"sort_order":2147483648}"#, "(line 1:15): invalid value for enum field sortOrder: 2147483648"),
        ("{\n  \"\u{e9}\": 1,\t\"limit\": []}", "(line 2:20): invalid value for int64 field limit: ["),
        (r#"{"x":"\ud800"}"#, "unexpected EOF"),
        (r#"{"\udc00":1}"#, "unexpected EOF"),
        (r#"{"x":"\ud800aaaaaa"}"#, r#"syntax error (line 1:6): invalid escape code "aaaaaa" in string"#),
        (r#"{"x":"a\ud800\u00e9"}"#, r#"syntax error (line 1:6): invalid escape code "\\u00e9" in string"#),
        (
            "{\"x\":\"\\ud800\"\n\n\n\t\n}",
            r#"syntax error (line 1:6): invalid escape code "\"\n\n\n\t\n" in string"#,
        ),
        (
            "{\"x\":\"\\ud800zzzzz\u{e9}\"}",
            r#"syntax error (line 1:6): invalid escape code "zzzzz\xc3" in string"#,
        ),
    ] {
        assert_eq!(range(json), Err(format!("proto: {text}")), "{json}");
    }
    let invalid = read(b"{\"x\":[\"\xff\"]}", request("/etcdserverpb.KV/Range"), BYTES_MAX);
    assert_eq!(invalid, Err("proto: syntax error (line 1:7): invalid UTF-8 in string".into()));
    for (json, text) in [
        (
            r#"{"success":[{"request_put":{"key":"YQ=="},"request_range":{"key":"YQ=="}}]}"#,
            "(line 1:43): error parsing \"request_range\", oneof etcdserverpb.RequestOp.request is already set",
        ),
        (r#"{"success":{}}"#, "syntax error (line 1:12): unexpected token {"),
        (r#"{"success":[null]}"#, "syntax error (line 1:13): unexpected token null"),
    ] {
        assert_eq!(txn(json), Err(format!("proto: {text}")), "{json}");
    }
    for (json, is_read) in
        [(r#"{"ID":18446744073709551615}"#, true), (r#"{"ID":"-1"}"#, false), (r#"{"ID":-0}"#, true)]
    {
        let schema = request("/etcdserverpb.Cluster/MemberRemove");
        assert_eq!(read(json.as_bytes(), schema, BYTES_MAX).is_ok(), is_read, "{json}");
    }
    // What is repeated in an error is no longer than a text should be.
    let long = format!("{{\"limit\":\"{}\"}}", "x".repeat(1 << 20));
    assert!(range(&long).unwrap_err().len() < 2000);
}

/// However little a message within a message takes, what is made of them is no more than is sent.
#[test]
fn parts_count_too() {
    let schema = request("/etcdserverpb.KV/Txn");
    let parts = |count: usize| {
        let json = format!("{{\"success\":[{}]}}", vec!["{}"; count].join(","));
        read(json.as_bytes(), schema, 1000).unwrap().len() - 5
    };
    assert_eq!(parts(500), 1000);
    assert!((1001..=1010).contains(&parts(100_000)), "it ends once it is too long");
}

/// Everything that a transaction can hold, in protobuf and in JSON.
#[test]
fn messages_within_messages() {
    use pb::compare::TargetUnion;
    use pb::request_op::Request;
    let op = |request| pb::RequestOp { request: Some(request) };
    let put = pb::PutRequest { key: "a".into(), value: vec![7; 300].into(), ..Default::default() };
    let compare = pb::Compare {
        result: 3,
        target: 4,
        key: "k".into(),
        target_union: Some(TargetUnion::Lease(0)),
        ..Default::default()
    };
    let mut nested = pb::TxnRequest { compare: vec![compare], ..Default::default() };
    nested.success =
        vec![op(Request::RequestPut(put)), op(Request::RequestRange(pb::RangeRequest::default()))];
    for _ in 0..40 {
        nested = pb::TxnRequest { failure: vec![op(Request::RequestTxn(nested))], ..Default::default() };
    }
    for piece in [1, 100, 1 << 20] {
        let json = written(&nested, request("/etcdserverpb.KV/Txn"), Texts::Plain, piece);
        assert_eq!(txn(&json), Ok(nested.clone()), "a lease of 0 that was set stays set");
    }
    // Its bytes are those that protobuf's own writer makes: no longer than they have to be.
    let json = written(&nested, request("/etcdserverpb.KV/Txn"), Texts::Plain, 1 << 20);
    let read = read(json.as_bytes(), request("/etcdserverpb.KV/Txn"), BYTES_MAX).unwrap();
    assert_eq!(read[5..], nested.encode_to_vec());
}

#[test]
fn lists_are_written_and_read() {
    use pb::watch_request::RequestUnion;
    let schema = request("/etcdserverpb.Watch/Watch");
    let watch = |filters: Vec<i32>| {
        let create = pb::WatchCreateRequest { key: "a".into(), filters, ..Default::default() };
        pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    };
    for (list, filters) in [
        (r#"["NOPUT","NODELETE",7]"#, vec![0, 1, 7]),
        (r#"["NONSENSE",1]"#, vec![1]),
        ("[]", vec![]),
        ("null", vec![]),
    ] {
        let json = format!(r#"{{"create_request":{{"key":"YQ==","filters":{list}}}}}"#);
        let message = read(json.as_bytes(), schema, BYTES_MAX).unwrap();
        assert_eq!(message[5..], watch(filters).encode_to_vec(), "{list}");
    }
    let json = written(&watch(vec![0, 1, 7]), schema, Texts::Plain, 1 << 20);
    assert_eq!(json, r#"{"create_request":{"key":"YQ==","filters":["NOPUT","NODELETE",7]}}"#);
    let empty = read(br#"{"progress_request":{}}"#, schema, BYTES_MAX).unwrap();
    let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
    assert_eq!(empty[5..], pb::WatchRequest { request_union: Some(progress) }.encode_to_vec());
}

#[test]
fn answers_leave_out_what_is_unset() {
    let header = pb::ResponseHeader { cluster_id: u64::MAX, member_id: 0, revision: -1, raft_term: 2 };
    let kv = wire::mvccpb::KeyValue {
        key: vec![0xff].into(),
        create_revision: 2,
        mod_revision: 3,
        version: 1,
        value: "<\u{e9}".into(),
        lease: 0,
    };
    let range = pb::RangeResponse { header: Some(header), kvs: vec![kv.clone(), kv], more: true, count: 2 };
    let pair = r#"{"key":"/w==","create_revision":"2","mod_revision":"3","version":"1","value":"PMOp"}"#;
    let want = format!(
        r#"{{"header":{{"cluster_id":"18446744073709551615","revision":"-1","raft_term":"2"}},"kvs":[{pair},{pair}],"more":true,"count":"2"}}"#
    );
    for piece in [1, 50, 1 << 20] {
        assert_eq!(written(&range, response("/etcdserverpb.KV/Range"), Texts::Plain, piece), want);
    }
    let hash = pb::HashResponse { header: Some(pb::ResponseHeader::default()), hash: u32::MAX };
    let schema = response("/etcdserverpb.Maintenance/Hash");
    assert_eq!(written(&hash, schema, Texts::Plain, 1), r#"{"header":{},"hash":4294967295}"#);

    let users = pb::AuthUserListResponse {
        header: None,
        users: vec![String::new(), "<\u{e9}&\u{2028}\"\n\u{1}".into()],
    };
    let schema = response("/etcdserverpb.Auth/UserList");
    let plain = written(&users, schema, Texts::Plain, 1);
    assert_eq!(plain, "{\"users\":[\"\",\"<\u{e9}&\u{2028}\\\"\\n\\u0001\"]}");
    let escaped = written(&users, schema, Texts::ForHtml, 1);
    assert_eq!(escaped, "{\"users\":[\"\",\"\\u003c\u{e9}\\u0026\\u2028\\\"\\n\\u0001\"]}");

    let alarms = pb::AlarmResponse {
        header: None,
        alarms: vec![pb::AlarmMember { member_id: 1, alarm: 1 }, pb::AlarmMember { member_id: 2, alarm: 9 }],
    };
    assert_eq!(
        written(&alarms, response("/etcdserverpb.Maintenance/Alarm"), Texts::Plain, 1),
        r#"{"alarms":[{"memberID":"1","alarm":"NOSPACE"},{"memberID":"2","alarm":9}]}"#
    );
}

/// A field that comes behind a long list is looked for in steps, and so is one that does not come.
#[test]
fn writing_takes_turns() {
    let kvs = vec![wire::mvccpb::KeyValue::default(); 1000];
    let range = pb::RangeResponse { kvs, more: true, ..Default::default() };
    let schema = response("/etcdserverpb.KV/Range");
    let mut json = Vec::new();
    let mut writer = Writer::begin(Bytes::from(range.encode_to_vec()), schema, Texts::Plain, &mut json);
    let mut turns = 1;
    while !writer.write(&mut json, usize::MAX, 100) {
        turns += 1;
    }
    let list = vec!["{}"; 1000].join(",");
    assert_eq!(String::from_utf8(json).unwrap(), format!("{{\"kvs\":[{list}],\"more\":true}}"));
    // The header, the list, what follows it, the count.
    assert!(turns >= 40, "{turns} turns");
}

/// Whatever the bytes are, they are a value or none, and what is a value is a message or none.
#[test]
fn no_bytes_make_it_panic() {
    const WORDS: [&str; 22] = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"key\"",
        "\"success\"",
        "\"request_put\"",
        "\"request_txn\"",
        "\"limit\"",
        "\"YQ==\"",
        "\"\\u00e9\"",
        "\"\\ud800\"",
        "null",
        "true",
        "-1.5e3",
        "\"1e+2\"",
        " ",
        "\\",
        "\"",
        "\u{e9}",
    ];
    let mut state = 1_u64;
    let mut next = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mut whole = 0;
    for _ in 0..20_000 {
        let mut text = Vec::new();
        for _ in 0..next(14) {
            text.extend_from_slice(WORDS[next(WORDS.len())].as_bytes());
        }
        if !text.is_empty() && next(4) == 0 {
            let at = next(text.len());
            text[at] = next(256) as u8;
        }
        let mut values = Values::new(BYTES_MAX);
        values.push(&text);
        while let Ok(Some(value)) = values.value() {
            whole += 1;
            for path in ["/etcdserverpb.KV/Range", "/etcdserverpb.KV/Txn"] {
                if let Ok(message) = read(&value, request(path), BYTES_MAX) {
                    let message = Bytes::from(message).slice(5..);
                    let mut json = Vec::new();
                    let mut writer = Writer::begin(message, request(path), Texts::Plain, &mut json);
                    assert!(writer.write(&mut json, usize::MAX, usize::MAX));
                    serde_json::from_slice::<serde_json::Value>(&json).unwrap();
                }
            }
        }
    }
    assert!(whole > 1000, "{whole} values");
}
