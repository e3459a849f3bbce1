//! The encodings between members: etcd's own bytes, bytes in pieces, bytes of any kind, and what a decoder holds.
#![allow(missing_docs, reason = "tests")]

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::{Body, ConfState, Entry, EntryKind, Index, Message, NodeId, Snapshot, Term};
use server::peer::codec::fuzz::{fuzz_peer_message, fuzz_peer_stream};
use server::peer::codec::{
    AppendDecoder, AppendEncoder, DecodeError, Decoded, Dropped, Encoder, MessageDecoder, Output, decode,
    encode_heartbeat, encode_message,
};

const LOCAL: NodeId = NodeId(0x8e9e_05c5_2164_694d);
const REMOTE: NodeId = NodeId(2);
const CONTEXT: u64 = 0x0102_0304_0506_0708;

fn golden() -> BTreeMap<&'static str, Bytes> {
    let lines = include_str!("peer/golden.txt").lines().filter(|line| !line.starts_with('#'));
    let entries = lines.map(|line| line.split_once(' ').expect("a name and bytes"));
    entries.map(|(name, hex)| (name, bytes(hex))).collect()
}

fn bytes(hex: &str) -> Bytes {
    let digit = |digit: u8| (digit as char).to_digit(16).expect("a digit") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn entry(term: u64, index: u64, kind: EntryKind, data: &'static str) -> Entry {
    Entry { term: Term(term), index: Index(index), kind, data: Bytes::from_static(data.as_bytes()) }
}

fn normal(term: u64, index: u64, data: &'static str) -> Entry {
    entry(term, index, EntryKind::Normal, data)
}

fn message(term: u64, body: Body) -> Message {
    Message { from: REMOTE, to: LOCAL, term: Term(term), body }
}

fn append(term: u64, prev: (u64, u64), commit: u64, entries: Vec<Entry>) -> Message {
    message(term, Body::Append { prev: (Index(prev.0), Term(prev.1)), entries, commit: Index(commit) })
}

/// What etcd's bytes stand for, in their order.
fn messages() -> Vec<(&'static str, Message)> {
    let last = (Index(13), Term(5));
    let proposals = vec![
        (EntryKind::Normal, Bytes::from_static(b"put")),
        (EntryKind::ConfChange, Bytes::from_static(b"change")),
    ];
    let entries =
        vec![normal(4, 11, ""), entry(5, 12, EntryKind::ConfChange, "change"), normal(5, 13, "data")];
    let conf = ConfState { voters: vec![REMOTE, LOCAL], learners: vec![NodeId(3)] };
    let snapshot = Snapshot { index: Index(300), term: Term(5), conf, data: Bytes::from_static(b"{}") };
    let (index, commit) = (Index(300), Index(300));
    let rejected = Some((Index(7), Term(3)));
    // etcd's raft takes a heartbeat's context little endian, and etcd's server a read's big endian.
    let heartbeat_context = Some(CONTEXT.swap_bytes());
    vec![
        ("propose", message(0, Body::Propose { entries: proposals })),
        ("append", append(5, (10, 4), 9, entries)),
        ("append_none", append(5, (0, 0), 0, vec![])),
        ("append_response", message(5, Body::AppendResponse { index: last.0, reject: None })),
        ("append_reject", message(5, Body::AppendResponse { index: last.0, reject: rejected })),
        ("vote", message(6, Body::Vote { last, transfer: false })),
        ("vote_transfer", message(6, Body::Vote { last, transfer: true })),
        ("vote_response", message(6, Body::VoteResponse { reject: false })),
        ("vote_reject", message(6, Body::VoteResponse { reject: true })),
        ("pre_vote", message(6, Body::PreVote { last })),
        ("pre_vote_response", message(6, Body::PreVoteResponse { reject: false })),
        ("pre_vote_reject", message(6, Body::PreVoteResponse { reject: true })),
        ("snapshot", message(6, Body::Snapshot { snapshot })),
        ("heartbeat", message(6, Body::Heartbeat { commit, context: None })),
        ("heartbeat_context", message(6, Body::Heartbeat { commit, context: heartbeat_context })),
        ("heartbeat_response", message(6, Body::HeartbeatResponse { context: None })),
        ("heartbeat_response_context", message(6, Body::HeartbeatResponse { context: heartbeat_context })),
        ("read_index", message(0, Body::ReadIndex { context: CONTEXT })),
        ("read_index_response", message(6, Body::ReadIndexResponse { index, context: CONTEXT })),
        ("transfer_leader", message(6, Body::TransferLeader)),
        ("timeout_now", message(6, Body::TimeoutNow)),
    ]
}

fn taken(out: &mut Output) -> Bytes {
    let mut all = Vec::new();
    while let Some(piece) = out.pop() {
        assert!(!piece.is_empty());
        all.extend_from_slice(&piece);
    }
    assert!(out.is_empty());
    all.into()
}

fn read_messages(mut bytes: Bytes) -> Vec<Decoded> {
    let mut decoder = MessageDecoder::new();
    let frames = std::iter::from_fn(|| decoder.next(&mut bytes).expect("a stream")).collect();
    assert!(decoder.is_between_frames());
    frames
}

fn read_appends(mut bytes: Bytes) -> Vec<Decoded> {
    let mut decoder = AppendDecoder::new(LOCAL, REMOTE);
    let frames = std::iter::from_fn(|| decoder.next(&mut bytes).expect("a stream")).collect();
    assert!(decoder.is_between_frames());
    frames
}

#[test]
fn each_message_is_etcds_byte_for_byte() {
    let golden = golden();
    for (name, message) in messages() {
        let bytes = &golden[name];
        assert_eq!(decode(bytes).unwrap(), Decoded::Message(message.clone()), "{name}");
        let encoded = Encoder::default().encode(message).to_bytes();
        assert_eq!(encoded, bytes, "{name}");
    }
}

#[test]
fn a_message_stream_is_etcds_byte_for_byte() {
    let mut out = Output::default();
    for (_, message) in messages() {
        encode_message(&Encoder::default().encode(message), &mut out);
    }
    encode_heartbeat(&mut out);
    let bytes = taken(&mut out);
    assert_eq!(bytes, golden()["stream_message"]);
    let mut expected: Vec<_> = messages().into_iter().map(|(_, message)| Decoded::Message(message)).collect();
    expected.push(Decoded::LinkHeartbeat);
    assert_eq!(read_messages(bytes), expected);
}

#[test]
fn an_append_stream_is_etcds_byte_for_byte() {
    let (_, first) = messages().swap_remove(1);
    let frames = [
        None,
        Some(first),
        Some(append(5, (13, 5), 11, vec![normal(5, 14, "more"), normal(5, 15, "")])),
        Some(append(5, (15, 5), 15, vec![])),
        None,
        // A step back is written in full, as is a new term's first.
        Some(append(5, (13, 5), 15, vec![normal(5, 14, "more")])),
        Some(append(5, (14, 5), 15, vec![normal(5, 15, "again")])),
        Some(append(6, (15, 5), 15, vec![normal(6, 16, "")])),
        Some(append(6, (16, 6), 16, vec![])),
        Some(append(6, (3, 6), 16, vec![])),
        Some(append(6, (3, 6), 16, vec![])),
    ];
    let (mut out, mut appends) = (Output::default(), AppendEncoder::default());
    for frame in &frames {
        match frame {
            None => appends.heartbeat(&mut out),
            Some(message) => {
                let outgoing = Encoder::default().encode(message.clone());
                appends.encode(outgoing.as_append().unwrap(), &mut out);
            }
        }
    }
    let bytes = taken(&mut out);
    assert_eq!(bytes, golden()["stream_append"]);
    let expected: Vec<_> =
        frames.into_iter().map(|frame| frame.map_or(Decoded::LinkHeartbeat, Decoded::Message)).collect();
    assert_eq!(read_appends(bytes), expected);
}

/// etcd up to 3.6 writes every field, and an empty snapshot in each message.
#[test]
fn streams_of_older_members_read_the_same() {
    let golden = golden();
    let rejected = Some((Index(7), Term(3)));
    let expected = [
        Decoded::Message(message(6, Body::Heartbeat { commit: Index(300), context: None })),
        Decoded::Message(message(5, Body::AppendResponse { index: Index(13), reject: rejected })),
        Decoded::Message(message(
            0,
            Body::Propose { entries: vec![(EntryKind::Normal, Bytes::from_static(b"put"))] },
        )),
        Decoded::LinkHeartbeat,
    ];
    assert_eq!(read_messages(golden["stream_message_3_6"].clone()), expected);
    let expected = [
        Decoded::Message(append(5, (10, 4), 9, vec![normal(4, 11, ""), normal(5, 12, "data")])),
        Decoded::Message(append(5, (12, 5), 11, vec![normal(5, 13, "more")])),
    ];
    assert_eq!(read_appends(golden["stream_append_3_6"].clone()), expected);
}

#[test]
fn the_entries_for_all_followers_are_encoded_once_and_not_copied() {
    let entries: Vec<Entry> = (1..=200)
        .map(|index| normal(3, index, "some data of a small entry .........."))
        .chain([Entry { data: vec![7; 100_000].into(), ..normal(3, 201, "") }])
        .collect();
    let mut encoder = Encoder::default();
    let to = |id| Message { to: NodeId(id), ..append(3, (0, 3), 0, entries.clone()) };
    let (first, second) = (encoder.encode(to(5)), encoder.encode(to(6)));
    let mut streams = Vec::new();
    for outgoing in [&first, &second] {
        let (mut out, mut appends) = (Output::default(), AppendEncoder::default());
        let append = outgoing.as_append().unwrap();
        // The first frame of a stream is a whole message, with other lengths in it.
        appends.encode(append, &mut out);
        let _ = taken(&mut out);
        let mut same = AppendEncoder::default();
        let before = encoder.encode(Message { to: outgoing.to, ..self::append(3, (0, 3), 0, vec![]) });
        same.encode(before.as_append().unwrap(), &mut out);
        let _ = taken(&mut out);
        same.encode(append, &mut out);
        let pieces: Vec<Bytes> = std::iter::from_fn(|| out.pop()).collect();
        assert_eq!(pieces.len(), 3, "head, entries, commit index");
        streams.push(pieces[1].clone());
    }
    assert_eq!(streams[0].as_ptr(), streams[1].as_ptr(), "both followers get the same memory");
    // Other entries are other bytes.
    let other = encoder.encode(append(3, (0, 3), 0, entries[..3].to_vec()));
    assert_ne!(decode(&other.to_bytes()).unwrap(), decode(&first.to_bytes()).unwrap());
}

#[test]
fn what_means_nothing_is_dropped_and_the_stream_goes_on() {
    let frame = |hex: &str| {
        let bytes = bytes(hex);
        [&(bytes.len() as u64).to_be_bytes()[..], &bytes].concat()
    };
    let stream: Vec<u8> = [
        frame("0800"),         // MsgHup
        frame("0863"),         // a type that nobody knows
        frame("080f10021801"), // MsgReadIndex without its entry
        frame("080e100218012006"),
    ]
    .concat();
    let frames = read_messages(stream.into());
    assert_eq!(frames.len(), 4);
    assert!(matches!(frames[0], Decoded::Dropped(Dropped::Meaningless(_))), "{frames:?}");
    assert_eq!(frames[1], Decoded::Dropped(Dropped::Unknown(0x63)));
    assert!(matches!(frames[2], Decoded::Dropped(Dropped::Meaningless(_))), "{frames:?}");
    assert!(
        matches!(&frames[3], Decoded::Message(message) if message.body == Body::TimeoutNow),
        "{frames:?}"
    );
}

#[test]
fn what_no_etcd_sends_ends_the_stream() {
    let message = |hex: &str| decode(&bytes(hex)).unwrap_err();
    assert!(matches!(message("08033a02080a"), DecodeError::EntryKind(10)));
    assert!(matches!(
        message("08074a061204 0a021807".replace(' ', "").as_str()),
        DecodeError::JointConfiguration
    ));
    for malformed in ["08", "0a", "0a05aa", "0b", "00", "10ffffffffffffffffff7f", "0a0101", "3805"] {
        assert!(matches!(message(malformed), DecodeError::Malformed(_)), "{malformed}");
    }
    let mut appends = AppendDecoder::new(LOCAL, REMOTE);
    assert!(matches!(appends.next(&mut bytes("03")), Err(DecodeError::UnknownFrame(3))));
    let mut appends = AppendDecoder::new(LOCAL, REMOTE);
    let heartbeat = bytes("02000000000000000a08081002180120064005");
    assert!(matches!(appends.next(&mut heartbeat.clone()), Err(DecodeError::Malformed(_))));
}

/// A length is a promise, and nothing is set aside for it; beyond the limit it is not even waited for.
#[test]
fn a_length_beyond_the_limit_is_refused_when_it_is_read() {
    let long = |length: u64| Bytes::copy_from_slice(&length.to_be_bytes());
    for length in [(512 << 20) + 1, u64::MAX] {
        let mut decoder = MessageDecoder::new();
        assert!(matches!(decoder.next(&mut long(length)), Err(DecodeError::TooLong { .. })));
    }
    let frame = |kind: u8, numbers: &[u64]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        Bytes::from([&[kind][..], &numbers].concat())
    };
    // Eight million empty entries and one more would cost the limit in memory.
    for bad in [frame(2, &[u64::MAX]), frame(1, &[(8 << 20) + 1]), frame(1, &[1, 512 << 20])] {
        let mut decoder = AppendDecoder::new(LOCAL, REMOTE);
        assert!(matches!(decoder.next(&mut bad.clone()), Err(DecodeError::TooLong { .. })), "{bad:?}");
    }
    let mut decoder = AppendDecoder::new(LOCAL, REMOTE);
    assert!(decoder.next(&mut frame(1, &[1, 511 << 20])).unwrap().is_none(), "within it, it waits");
}

#[test]
fn what_is_kept_of_a_frame_keeps_nothing_else() {
    let data = vec![1; 1000];
    let entry = Entry { data: data.into(), ..normal(1, 1, "") };
    let mut out = Output::default();
    for _ in 0..50 {
        encode_message(&Encoder::default().encode(append(1, (0, 0), 0, vec![entry.clone()])), &mut out);
    }
    let mut whole = taken(&mut out);
    let (start, length) = (whole.as_ptr() as usize, whole.len());
    let mut decoder = MessageDecoder::new();
    let Some(Decoded::Message(message)) = decoder.next(&mut whole).unwrap() else { panic!("no message") };
    let Body::Append { entries, .. } = message.body else { panic!("no append") };
    let at = entries[0].data.as_ptr() as usize;
    assert!(!(start..start + length).contains(&at), "an entry keeps what was read with it");
}

/// A small generator, so that a seed means the same run for years.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn no_bytes_break_a_decoder() {
    let seed = std::env::var("QUORATE_SEED").map_or(0x5eed, |seed| seed.parse().expect("QUORATE_SEED"));
    println!("QUORATE_SEED={seed}");
    let mut random = Random(seed);
    let golden = golden();
    let (mut frames, mut whole) = (0, 0);
    for round in 0..20_000 {
        let (name, bytes) = golden.iter().nth(random.below(golden.len())).unwrap();
        let mut input = bytes.to_vec();
        for _ in 0..if round < 100 { 0 } else { random.below(4) } {
            let at = random.below(input.len());
            match random.below(4) {
                0 => input.truncate(at.max(1)),
                1 => input[at] = random.below(256) as u8,
                2 => input.insert(at, random.below(256) as u8),
                _ => {
                    let again = input[at..(at + 1 + random.below(30)).min(input.len())].to_vec();
                    input.extend(again);
                }
            }
        }
        match name.strip_prefix("stream_") {
            Some(stream) => {
                let how = (random.below(128) as u8) << 1 | u8::from(stream.starts_with("append"));
                frames += fuzz_peer_stream(&[&[how][..], &input].concat());
            }
            None => whole += u32::from(fuzz_peer_message(&input)),
        }
    }
    assert!(frames > 1000 && whole > 1000, "{frames} frames, {whole} messages");
}
