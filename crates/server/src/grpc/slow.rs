//! Calls that take long are told of in the log, in etcd's words (etcd: interceptor.go, txn/util.go).
//!
//! Nothing is measured beyond the turn's time, of which a call is given the first and compared with the last; what a call
//! asks for is kept as it came, and put into words only if it was slow.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes};
use jiff::ZonedDateTime;
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use tokio::time::Instant;
use wire::Status;
use wire::etcdserverpb::response_op::Response;
use wire::etcdserverpb::{TxnRequest, TxnResponse};

use super::answer::PREFIX_BYTES;
use super::method::Hot;
use crate::log::{self, Level, Value};
use crate::loggable;

/// A longer message is put into words at once, so that it need not be kept beside what is made of it.
const KEPT_BYTES_MAX: usize = 16 << 10;
/// Below this the time of a turn is too coarse.
const FINE: Duration = Duration::from_millis(1);

/// From when on a call is slow.
#[derive(Clone, Copy, Debug)]
pub struct Slow {
    /// `--warning-apply-duration`: a read of the store, with the wait for the quorum.
    apply: Duration,
    /// `--warning-unary-request-duration`: any call with one answer.
    unary: Duration,
}

impl Default for Slow {
    fn default() -> Self {
        Slow::new(Duration::from_millis(100), Duration::from_millis(300))
    }
}

/// What a hot call asks for, should it turn out slow.
#[derive(Debug)]
pub struct Asked {
    call: Hot,
    begun: Instant,
    bytes: usize,
    content: Content,
    /// It is answered from the store, without an entry of the log.
    pub is_read: bool,
}

#[derive(Debug)]
enum Content {
    Message(Bytes),
    Text(String),
}

impl Asked {
    /// A call whose message is whole.
    pub fn new(call: Hot, message: &Bytes, begun: Instant) -> Asked {
        let content = match message.len() {
            ..=KEPT_BYTES_MAX => Content::Message(message.clone()),
            _ => Content::Text(in_words(call, message)),
        };
        Asked { call, begun, bytes: message.len(), content, is_read: false }
    }

    /// The call waits with this message, which is the same. What is kept beside it, bytes.
    pub fn waits_with(&mut self, message: &Bytes) -> usize {
        match &mut self.content {
            Content::Message(kept) => {
                *kept = message.clone();
                0
            }
            Content::Text(text) => text.len(),
        }
    }

    /// Of a transaction: how many operations the branch has that was taken, and their bytes.
    fn chosen(&self, answer: &Answer) -> (i64, i64) {
        let Content::Message(message) = &self.content else { return (answer.results, self.bytes as i64) };
        let Ok(txn) = TxnRequest::decode(message.clone()) else { return (answer.results, self.bytes as i64) };
        let ops = if answer.second == 0 { txn.failure } else { txn.success };
        (ops.len() as i64, ops.iter().map(|op| op.encoded_len() as i64).sum())
    }

    fn text(&self) -> String {
        match &self.content {
            Content::Message(message) => in_words(self.call, message),
            Content::Text(text) => text.clone(),
        }
    }
}

fn in_words(call: Hot, message: &[u8]) -> String {
    match call {
        Hot::Range => loggable::range(message),
        Hot::Put => loggable::put(message),
        Hot::DeleteRange => loggable::delete_range(message),
        Hot::Txn => loggable::txn(message),
    }
}

/// The answer's pieces, with gRPC's prefix, or why there is none.
pub type Told<'a> = Result<&'a (Bytes, Option<Bytes>), &'a Status>;

impl Slow {
    /// With these thresholds.
    pub fn new(apply: Duration, unary: Duration) -> Slow {
        Slow { apply, unary }
    }

    /// The time at which a call has ended, given that of the turn.
    pub fn end(&self, turn: impl FnOnce() -> Instant) -> Instant {
        if self.apply.min(self.unary) < FINE { Instant::now() } else { turn() }
    }

    /// Whether a hot call read the store for too long.
    #[inline]
    pub fn is_slow_read(&self, took: Duration) -> bool {
        took > self.apply
    }

    /// How long a hot call that reads the store took, and what of; `None` of others.
    #[inline]
    pub fn read_time(asked: &Asked, end: Instant) -> Option<(Hot, Duration)> {
        asked.is_read.then(|| (asked.call, end.saturating_duration_since(asked.begun)))
    }

    /// Tells of a hot call, if it was slow.
    #[inline]
    pub fn judge(&self, asked: &Asked, end: Instant, remote: Option<SocketAddr>, told: Told<'_>) {
        let took = end.saturating_duration_since(asked.begun);
        if took > self.apply.min(self.unary) || log::enabled(Level::Debug) {
            self.tell(asked, took, remote, told);
        }
    }

    /// Tells of another call with one answer, if it was slow.
    pub fn judge_other(&self, path: &str, begun: Instant, remote: Option<SocketAddr>) {
        let took = begun.elapsed();
        if took > self.unary || log::enabled(Level::Debug) {
            let counts = Counts { requests: -1, request_bytes: -1, answers: -1, answer_bytes: -1 };
            self.stats(path, took, remote, &counts, "");
        }
    }

    #[cold]
    fn tell(&self, asked: &Asked, took: Duration, remote: Option<SocketAddr>, told: Told<'_>) {
        let text = asked.text();
        let answer = told.ok().map(Answer::read);
        if asked.is_read && took > self.apply {
            let prefix = if asked.call == Hot::Range { "read-only range " } else { "read-only txn " };
            let response = match (told, answer.as_ref()) {
                (Ok(pieces), Some(answer)) if asked.call == Hot::Txn => txn_in_words(pieces, answer.bytes),
                (_, Some(answer)) => {
                    format!("range_response_count:{} size:{}", answer.results, answer.bytes)
                }
                (_, None) => String::new(),
            };
            let error = told.err().map(|status| of_store(&status.message));
            too_long(took, self.apply, (prefix, &text), &response, error);
        }
        if took <= self.unary && !log::enabled(Level::Debug) {
            return;
        }
        let mut counts =
            Counts { requests: 0, request_bytes: asked.bytes as i64, answers: 0, answer_bytes: 0 };
        if let Some(answer) = &answer {
            counts.answer_bytes = answer.bytes as i64;
        }
        let path = match asked.call {
            Hot::Range => {
                counts.answers = answer.map_or(0, |answer| answer.count);
                "/etcdserverpb.KV/Range"
            }
            Hot::Put => {
                counts.requests = 1;
                "/etcdserverpb.KV/Put"
            }
            Hot::DeleteRange => {
                counts.answers = answer.map_or(0, |answer| answer.second as i64);
                "/etcdserverpb.KV/DeleteRange"
            }
            Hot::Txn => {
                (counts.requests, counts.request_bytes) =
                    answer.map_or((0, 0), |answer| asked.chosen(&answer));
                "/etcdserverpb.KV/Txn"
            }
        };
        self.stats(path, took, remote, &counts, &text);
    }

    #[cold]
    #[expect(clippy::disallowed_methods, reason = "a log is for people")]
    fn stats(&self, path: &str, took: Duration, remote: Option<SocketAddr>, counts: &Counts, content: &str) {
        // etcd's choice: who asks for all of them gets them at one level.
        let level = if log::enabled(Level::Debug) { Level::Debug } else { Level::Warn };
        let begun = ZonedDateTime::now().checked_sub(took).map(|begun| log::time(&begun)).unwrap_or_default();
        let remote = remote.map_or_else(|| "@".to_owned(), |remote| remote.to_string());
        crate::event!(level, "request stats",
            "start time" => begun,
            "time spent" => took,
            "remote" => remote,
            "response type" => path,
            "request count" => counts.requests,
            "request size" => counts.request_bytes,
            "response count" => counts.answers,
            "response size" => counts.answer_bytes,
            "request content" => content,
        );
    }
}

/// A text as the store has it, which is told to clients with a word before it.
pub(crate) fn of_store(text: &str) -> &str {
    text.strip_prefix("etcdserver: ").filter(|text| text.starts_with("mvcc: ")).unwrap_or(text)
}

/// What etcd counts of a call; -1 where it counts nothing.
struct Counts {
    requests: i64,
    request_bytes: i64,
    answers: i64,
    answer_bytes: i64,
}

/// The line about what the store took too long for.
pub fn too_long(
    took: Duration,
    expected: Duration,
    (prefix, request): (&str, &str),
    response: &str,
    error: Option<&str>,
) {
    let mut fields: Vec<(&str, &dyn Value)> = vec![
        ("took", &took),
        ("expected-duration", &expected),
        ("prefix", &prefix),
        ("request", &request),
        ("response", &response),
    ];
    if let Some(error) = &error {
        fields.push(("error", error));
    }
    if log::enabled(Level::Warn) {
        log::write(Level::Warn, file!(), line!(), "apply request took too long", &fields);
    }
}

/// The parts of an answer that are counted, of whichever call it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answer {
    bytes: usize,
    /// Pairs, of a range; results, of a transaction.
    results: i64,
    /// `RangeResponse.count`.
    count: i64,
    /// `DeleteRangeResponse.deleted`, `TxnResponse.succeeded`.
    second: u64,
}

impl Answer {
    /// Looks at the fields of an answer, without reading what is in them.
    fn read((first, second): &(Bytes, Option<Bytes>)) -> Answer {
        let mut message = first.clone().chain(second.clone().unwrap_or_default());
        message.advance(PREFIX_BYTES.min(message.remaining()));
        let mut answer = Answer { bytes: message.remaining(), ..Answer::default() };
        while let Ok((number, wire_type)) = decode_key(&mut message) {
            let Ok(value) = decode_varint(&mut message) else { break };
            match (number, wire_type) {
                (2, WireType::Varint) => answer.second = value,
                (4, WireType::Varint) => answer.count = value as i64,
                // `RangeResponse.kvs`, `TxnResponse.responses`.
                (2 | 3, WireType::LengthDelimited) => answer.results += 1,
                _ => {}
            }
            if wire_type == WireType::LengthDelimited {
                let Some(bytes) = usize::try_from(value).ok().filter(|bytes| *bytes <= message.remaining())
                else {
                    break;
                };
                message.advance(bytes);
            }
        }
        answer
    }
}

/// What the reads of a transaction have found.
fn txn_in_words((first, second): &(Bytes, Option<Bytes>), bytes: usize) -> String {
    let mut message = first.clone().chain(second.clone().unwrap_or_default());
    message.advance(PREFIX_BYTES.min(message.remaining()));
    let responses = TxnResponse::decode(message).map(|txn| txn.responses).unwrap_or_default();
    let counts = responses.into_iter().filter_map(|response| match response.response? {
        Response::ResponseRange(range) => Some(format!("range_response_count:{}", range.kvs.len())),
        _ => None,
    });
    format!("responses:<{}> size:{bytes}", counts.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use wire::etcdserverpb as pb;

    use super::*;

    fn read(message: &impl prost::Message) -> Answer {
        let mut bytes = vec![0; PREFIX_BYTES];
        message.encode(&mut bytes).unwrap();
        let (first, second) = bytes.split_at(bytes.len() / 2);
        Answer::read(&(Bytes::copy_from_slice(first), Some(Bytes::copy_from_slice(second))))
    }

    #[test]
    fn answers_are_counted_in_pieces_too() {
        let header = Some(pb::ResponseHeader { revision: 9, ..Default::default() });
        let pair = wire::mvccpb::KeyValue { key: "k".into(), value: "v".into(), ..Default::default() };
        let range = pb::RangeResponse { header, kvs: vec![pair; 3], more: true, count: 12 };
        let got = read(&range);
        assert_eq!((got.bytes, got.results, got.count), (range.encoded_len(), 3, 12));
        let deleted = pb::DeleteRangeResponse { header, deleted: 4, prev_kvs: Vec::new() };
        assert_eq!(read(&deleted).second, 4);
        let txn = pb::TxnResponse { header, succeeded: true, responses: vec![pb::ResponseOp::default(); 2] };
        assert_eq!(read(&txn).results, 2);
    }
}
