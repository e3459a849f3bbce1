//! Writes good inputs to begin with, `corpus/TARGET/seed-N`: a fuzzer finds a checksum or HPACK slowly by itself.

use std::path::Path;
use std::sync::Arc;

use disk::boltfile::{Planner, Writer};
use disk::revlog::{self, Applied, RecordHeader};
use disk::snap::Snapshot;
use disk::wal::{ConfState, Entry, EntryKind, HardState, Wal};
use disk::{Fs, MemFs};
use prost::Message;
use wire::etcdserverpb::{self as pb, request_op::Request};

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let requests = requests();
    let entries = requests.iter().enumerate().map(|(at, request)| {
        let field = [4, 4, 5, 6, 6][at] << 3 | 2;
        [&[field, request.len() as u8][..], request, &[0xa2, 0x06, 2, 8, 7]].concat()
    });
    let targets: [(&str, Vec<Vec<u8>>); 16] = [
        ("wal", wal()),
        ("wal_records", wal_records()),
        ("snap", snap()),
        ("v2_store", v2_store()),
        ("revlog", revlog()),
        ("boltfile", vec![boltfile()]),
        ("boltfile_pairs", vec![boltfile_pairs()]),
        ("database", vec![database(), [&[1][..], &boltfile()[1..]].concat()]),
        ("entry", entries.collect()),
        ("http2", http2(&requests)),
        ("requests", requests),
        ("port", port()),
        ("peer_stream", peer("stream_")),
        ("peer_message", peer("")),
        ("client", vec![server_bytes()]),
        ("bench", vec![[&[0][..], &server_bytes()].concat(), [&[255][..], &server_bytes()].concat()]),
    ];
    for (target, seeds) in targets {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder).expect("make the corpus's folder");
        for (at, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{at}")), seed).expect("write a seed");
        }
    }
}

/// Puts, a delete, a lease and a compaction.
fn database() -> Vec<u8> {
    let puts = (2..9).flat_map(|main| [0, main, main % 3, 0x10]);
    [0].into_iter().chain(puts).chain([1, 9, 1, 0, 2, 60, 0, 3, 3, 5, 0, 0]).collect()
}

fn wal() -> Vec<Vec<u8>> {
    let fs = MemFs::new();
    fs.create_dir_all(Path::new("/data"), 0o700).expect("a folder in memory");
    let dir = Path::new("/data/wal");
    let mut wal = Wal::create(Arc::new(fs.clone()), dir, b"meta", disk::wal::Limits::tiny()).expect("create");
    for index in 1..8 {
        let data = vec![index as u8; 400];
        let entry = Entry { term: 1, index, kind: EntryKind::Normal, data: data.into() };
        let state = HardState { term: 1, vote: 7, commit: index - 1 };
        wal.append([entry.as_ref()], Some(state)).expect("append");
        wal.sync().expect("sync");
    }
    drop(wal);
    let segments: Vec<_> = fs
        .files()
        .iter()
        .filter(|file| file.to_string_lossy().ends_with(".wal"))
        .map(|file| fs.read(file).expect("a segment"))
        .collect();
    let one = [&[255][..], &segments[0]].concat();
    let two = [&[127][..], &segments[0], &segments[1]].concat();
    vec![one, two]
}

fn wal_records() -> Vec<Vec<u8>> {
    let head = [4, 1, 1, b'm', 5, 4, 8, 0, 16, 0];
    let entry = |index: u8, term: u8| vec![2, 6, 16, term, 24, index, 34, 0];
    let state = |term: u8, commit: u8| vec![3, 6, 8, term, 16, 0, 24, commit];
    vec![
        [&head[..], &entry(1, 1), &entry(2, 1), &state(1, 1), &entry(2, 2), &state(2, 2)].concat(),
        [&head[..], &entry(1, 1), &state(1, 1), &[0, 4, 1, 1, b'm'], &state(1, 1), &entry(2, 1)].concat(),
        [&head[..], &state(3, 9), &[5, 4, 8, 9, 16, 3], &entry(10, 3)].concat(),
    ]
}

/// A whole file, and the message in one.
fn snap() -> Vec<Vec<u8>> {
    let conf_state = ConfState { voters: vec![7, u64::MAX], learners: vec![9], ..ConfState::default() };
    let file = Snapshot { index: 300, term: 2, conf_state, data: b"data".to_vec() }.encode();
    let message = file.iter().position(|byte| *byte == 0x0a).expect("data");
    vec![[&[0][..], &file].concat(), [&[1][..], &file[message..]].concat()]
}

fn v2_store() -> Vec<Vec<u8>> {
    let member = r#"{"Children":{"raftAttributes":{"Value":"{\"peerURLs\":[\"http://a:1\"],\"isLearner\":true}"},
        "attributes":{"Value":"{\"name\":\"<a>\",\"clientURLs\":[\"http://a:2\"]}"}}}"#;
    let cluster = format!(
        r#"{{"members":{{"Children":{{"ff":{member}}}}},"removed_members":{{"Children":{{"11":{{}}}}}},
        "version":{{"Value":"3.7.0"}}}}"#
    );
    let small = format!(r#"{{"Root":{{"Children":{{"0":{{"Children":{cluster}}}}}}}}}"#);
    let whole = store::Membership::from_v2_store(small.as_bytes()).expect("a store").to_v2_store();
    vec![small.into_bytes(), whole]
}

struct Nothing;

impl revlog::Replay for Nothing {
    fn record(&mut self, _: RecordHeader, _: revlog::Location, _: &[u8]) -> Result<(), revlog::ReplayError> {
        Ok(())
    }

    fn frame(&mut self, _: Applied, _: &[u8], _: bool) -> Result<(), revlog::ReplayError> {
        Ok(())
    }
}

fn revlog() -> Vec<Vec<u8>> {
    let fs = MemFs::new();
    let limits = revlog::Limits::tiny();
    let opened =
        revlog::open(Arc::new(fs.clone()), Path::new("rev"), limits, 5, &mut Nothing).expect("an empty log");
    let (mut builder, mut writer, _reader) = opened.into_parts().expect("nothing fails in memory");
    for index in 1..6 {
        builder.push(RecordHeader { kind: 1, main: index as i64, sub: 0 }, b"payload");
        let frame = builder.finish(Applied { index, term: 1 }, b"state", index).expect("a frame");
        writer.write(frame).expect("write");
        writer.sync().expect("sync");
    }
    let segment = fs.read("rev/00000001.seg").expect("a segment");
    vec![[&[0][..], &segment].concat(), [&[1][..], &segment].concat()]
}

/// A file of small pages: two levels of branches, an overflow, an empty bucket.
fn boltfile() -> Vec<u8> {
    let pairs: Vec<_> = (0..60_u8).map(|n| ([n; 60], vec![n; if n == 30 { 900 } else { 20 }])).collect();
    let mut planner = Planner::new(512).expect("a page size");
    planner.bucket(b"empty").expect("a name");
    planner.bucket(b"key").expect("a later name");
    for (key, value) in &pairs {
        planner.pair(key.len(), value.len()).expect("a short pair");
    }
    // The meta pages are to be set right, and pages have 512 bytes.
    let mut bytes = vec![1];
    let mut writer = Writer::new(planner.finish(), |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    })
    .expect("memory takes all");
    writer.bucket(b"empty").expect("as planned");
    writer.bucket(b"key").expect("as planned");
    for (key, value) in &pairs {
        writer.pair(key, value).expect("as planned");
    }
    let _sink = writer.finish().expect("as planned");
    bytes
}

fn boltfile_pairs() -> Vec<u8> {
    let pair = |key: &[u8], value: u16| {
        let [low, high] = value.to_le_bytes();
        [&[key.len() as u8, low, high, b'v'][..], key].concat()
    };
    [pair(b"k", 0), pair(b"l", 3000), pair(b"", 1), pair(&[b'm'; 250], 20), pair(&[b'n'; 250], 20)].concat()
}

fn requests() -> Vec<Vec<u8>> {
    let put = pb::PutRequest { key: "a".into(), value: "v".into(), ..Default::default() };
    let keep = pb::PutRequest { key: "b".into(), ignore_value: true, prev_kv: true, ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: "a".into(), range_end: "c".into(), prev_kv: true };
    let range =
        pb::RangeRequest { key: "a".into(), range_end: vec![0].into(), limit: 1, ..Default::default() };
    let op = |request| pb::RequestOp { request: Some(request) };
    let compare = pb::Compare {
        key: "a".into(),
        target: 3,
        target_union: Some(pb::compare::TargetUnion::Value("before".into())),
        ..Default::default()
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestPut(put.clone())), op(Request::RequestRange(range.clone()))],
        failure: vec![op(Request::RequestDeleteRange(delete.clone()))],
    };
    let nested = pb::TxnRequest { success: vec![op(Request::RequestTxn(txn.clone()))], ..Default::default() };
    let mut all = vec![put.encode_to_vec(), keep.encode_to_vec(), delete.encode_to_vec()];
    all.extend([txn.encode_to_vec(), nested.encode_to_vec()]);
    all
}

fn http2(requests: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let call = |method: u8, stream: u8, message: &[u8]| {
        [&[16 + method, 1, stream, message.len() as u8][..], message].concat()
    };
    let ping = [6, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    let reset = [3, 0, 3, 4, 0, 0, 0, 8];
    let [put, _, delete, txn, _] = requests else { return Vec::new() };
    let hot = [call(1, 1, put), call(3, 3, txn), call(2, 5, delete), call(0, 7, &put[..3])].concat();
    let cold = [call(4, 1, &[]), call(5, 3, &[]), call(6, 5, &[]), call(7, 7, &[])].concat();
    vec![
        [&[1][..], &hot].concat(),
        [&[1][..], &cold, &ping, &reset].concat(),
        [&[9][..], &hot, &reset].concat(),
        // The same compressed.
        [&[1][..], &call(9, 1, put), &call(11, 3, txn), &call(12, 5, &[])].concat(),
    ]
}

fn port() -> Vec<Vec<u8>> {
    [
        "\0GET /health?serializable=true&exclude=NOSPACE HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{1}GET /version HTTP/1.0\r\n\r\n",
        "\0POST /v3/kv/put HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "\0PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// etcd's own bytes: the streams, each behind the byte that says of which kind it is, or single messages.
fn peer(kind: &str) -> Vec<Vec<u8>> {
    let golden = include_str!("../crates/server/tests/peer/golden.txt").lines();
    let golden = golden.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    let wanted = golden.filter(|(name, _)| name.starts_with("stream_") != kind.is_empty());
    let seeds = wanted.map(|(name, hex)| {
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
        let bytes = digits.map(|pair| u8::from_str_radix(pair, 16).expect("a byte"));
        let how = (!kind.is_empty()).then_some(u8::from(name.starts_with("stream_append")));
        how.into_iter().chain(bytes).collect()
    });
    seeds.collect()
}

/// SETTINGS, then the answer of the first call: headers, a message, trailers.
fn server_bytes() -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = payload.len() as u8;
        [&[0, 0, length, kind, flags, 0, 0, 0, stream][..], payload].concat()
    };
    let head = [&[0x88, 0x5f, 16][..], b"application/grpc"].concat();
    let message = [0, 0, 0, 0, 8, 0x12, 6, 0x0a, 1, b'a', 0x2a, 1, b'x'];
    let trailers = [&[0x40, 11][..], b"grpc-status", &[1, b'0']].concat();
    [frame(4, 0, 0, &[]), frame(1, 4, 1, &head), frame(0, 0, 1, &message), frame(1, 5, 1, &trailers)].concat()
}
