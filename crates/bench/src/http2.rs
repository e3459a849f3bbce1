//! One HTTP/2 connection of a gRPC client: unary calls of one method, and beside them a few streams of any; bytes in,
//! answers out.
//!
//! Written by hand because the load generator shares two cores with the server that it measures: what it costs
//! itself must stay far below what the server costs. It has no socket and no clock; `run` moves the bytes.
//!
//! Invariants: stream `oldest + 2 i` is `streams[i]`; the front of `streams` is always unanswered; `open` counts the
//! unanswered ones; the peer's connection window is never overdrawn, and a message always fits a fresh stream's window.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use crate::hpack::{Decoder, RequestHeaders, TABLE_BYTES_DEFAULT};
use crate::protobuf::{Counted, Counter};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// The largest frame payload that either side may send before SETTINGS raise it; we never raise ours.
const FRAME_BYTES_DEFAULT: usize = 16_384;
const WINDOW_DEFAULT: i64 = 65_535;
const WINDOW_MAX: u32 = i32::MAX as u32;
/// Received DATA is credited back in steps of this size, so that it costs a server nothing.
const CREDIT_STEP_BYTES: u32 = 1 << 29;
/// Streams between the oldest unanswered and the newest: bounds memory when one call is never answered.
const SPAN_STREAMS_MAX: usize = 1 << 20;
/// Longest header block that we take, all its frames together.
const HEADER_BLOCK_BYTES_MAX: usize = 1 << 16;
/// gRPC's prefix of a message: a flag, and the length.
const PREFIX_BYTES: usize = 5;
/// Longest message that we keep.
const ANSWER_BYTES_MAX: usize = 1 << 26;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const SETTINGS_HEADER_TABLE_SIZE: u16 = 1;
const SETTINGS_ENABLE_PUSH: u16 = 2;
const SETTINGS_MAX_CONCURRENT_STREAMS: u16 = 3;
const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
const SETTINGS_MAX_FRAME_SIZE: u16 = 5;

/// Why a connection can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A header block that can't be read.
    #[error("hpack: {0}")]
    Hpack(&'static str),
    /// A frame that the server must not send, or that is cut short.
    #[error("http2: {0}")]
    Frame(&'static str),
}

/// Looks at one whole answer, an encoded protobuf message, and tells whether it holds what was asked for.
pub type Inspect = fn(&[u8]) -> bool;

/// One answered call.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// What `send` was given.
    pub sent_at_ns: u64,
    /// Whether `Inspect` approved of the answer, or the error's text as in "14: etcdserver: no leader".
    pub outcome: Result<bool, String>,
}

/// What becomes of the messages of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// Each is told.
    Messages,
    /// They are counted as they come, and not kept, however long they are.
    Count,
    /// The same, of messages whose field 1 holds what is to be counted.
    CountInside,
}

/// What came.
#[derive(Debug)]
pub enum Received<'a> {
    /// A call made with `send` is answered.
    Answer(Answer),
    /// A whole message of a stream, without gRPC's prefix.
    Message {
        /// What `open_stream` returned.
        stream: u32,
        /// The encoded message.
        message: &'a [u8],
    },
    /// A stream has ended.
    Ended {
        /// What `open_stream` returned.
        stream: u32,
        /// What was counted, if anything was to be.
        counted: Counted,
        /// Nothing, or the error's text.
        outcome: Result<(), String>,
    },
}

/// The state of one connection; see the file's head.
#[derive(Debug)]
pub struct Connection {
    authority: String,
    headers: RequestHeaders,
    table: PeerTable,
    inspect: Inspect,
    decoder: Decoder,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Bytes of `input` that hold data.
    filled: usize,
    streams: VecDeque<Stream>,
    oldest: u32,
    open: usize,
    send_window: i64,
    peer_initial_window: i64,
    peer_streams_max: usize,
    peer_frame_bytes_max: usize,
    uncredited_bytes: u32,
    block: Option<Block>,
    settled: bool,
    goaway: Option<String>,
}

/// What the peer's dynamic table holds of our request headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerTable {
    Empty,
    Filled,
    /// The peer allows less than we want: the next block says that we use none.
    Refused,
    Unused,
}

#[derive(Debug)]
struct Stream {
    sent_at_ns: u64,
    answered: bool,
    hit: bool,
    grpc_status: Option<u32>,
    failure: Option<String>,
    /// The answer's bytes, only when they come in more than one frame.
    body: Vec<u8>,
    /// Of what `open_stream` made.
    long: Option<Box<Long>>,
}

/// A stream that is more than a call.
#[derive(Debug)]
struct Long {
    /// What the peer takes on this stream; the initial window may shrink, so it may be below zero.
    send_window: i64,
    /// Where nothing is kept.
    counter: Option<Counter>,
}

impl Stream {
    fn new(sent_at_ns: u64) -> Stream {
        Stream {
            sent_at_ns,
            answered: false,
            hit: false,
            grpc_status: None,
            failure: None,
            body: Vec::new(),
            long: None,
        }
    }
}

/// A header block whose last frame has not come yet.
#[derive(Debug)]
struct Block {
    stream: u32,
    end_stream: bool,
    bytes: Vec<u8>,
}

impl Connection {
    /// A connection whose calls are of `path`; the preface is already in its output.
    pub fn new(path: &str, authority: &str, inspect: Inspect) -> Connection {
        let mut connection = Connection {
            authority: authority.to_owned(),
            headers: RequestHeaders::new(path, authority),
            table: PeerTable::Empty,
            inspect,
            decoder: Decoder::default(),
            output: Vec::with_capacity(64 << 10),
            input: vec![0; 4 * (FRAME_BYTES_DEFAULT + FRAME_HEADER_BYTES)],
            filled: 0,
            streams: VecDeque::new(),
            oldest: 1,
            open: 0,
            send_window: WINDOW_DEFAULT,
            peer_initial_window: WINDOW_DEFAULT,
            peer_streams_max: usize::MAX,
            peer_frame_bytes_max: FRAME_BYTES_DEFAULT,
            uncredited_bytes: 0,
            block: None,
            settled: false,
            goaway: None,
        };
        connection.output.extend_from_slice(PREFACE);
        let settings = [(SETTINGS_ENABLE_PUSH, 0), (SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_MAX)];
        put_frame_header(&mut connection.output, settings.len() * 6, SETTINGS, 0, 0);
        for (name, value) in settings {
            connection.output.extend_from_slice(&name.to_be_bytes());
            connection.output.extend_from_slice(&value.to_be_bytes());
        }
        connection.put_window_update(WINDOW_MAX - WINDOW_DEFAULT as u32);
        connection
    }

    /// Whether the server's SETTINGS have come; before, nothing may be sent, its limits being unknown.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Calls without an answer so far.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Why the server wants no more calls on this connection, if it said so.
    pub fn goaway(&self) -> Option<&str> {
        self.goaway.as_deref()
    }

    /// Whether a call of `message_bytes` may be sent now, beside the ones that are open.
    pub fn can_send(&self, message_bytes: usize) -> bool {
        self.settled
            && self.goaway.is_none()
            && self.open < self.peer_streams_max
            && self.send_window >= message_bytes as i64
            && self.peer_initial_window >= message_bytes as i64
            && self.streams.len() < SPAN_STREAMS_MAX
            && self.next_stream() <= WINDOW_MAX - 2
    }

    /// Queues one call; `message` is gRPC's five-byte prefix and the protobuf message. The answer carries
    /// `sent_at_ns` back.
    ///
    /// # Panics
    /// When `can_send` is false for it.
    pub fn send(&mut self, sent_at_ns: u64, message: &[u8]) {
        assert!(self.can_send(message.len()), "a call beyond the peer's limits");
        let id = self.next_stream();
        self.streams.push_back(Stream::new(sent_at_ns));
        self.open += 1;
        self.send_window -= message.len() as i64;
        self.put_headers(id);
        self.put_data(id, message, true);
    }

    /// Opens a stream of `path`, on which nothing is said yet. It counts as a call that is open.
    ///
    /// # Panics
    /// When `can_send` is false for an empty message.
    pub fn open_stream(&mut self, path: &str, taking: Taking) -> u32 {
        assert!(self.can_send(0), "a stream beyond the peer's limits");
        let id = self.next_stream();
        let counter = match taking {
            Taking::Messages => None,
            Taking::Count => Some(Counter::new(false)),
            Taking::CountInside => Some(Counter::new(true)),
        };
        let long = Long { send_window: self.peer_initial_window, counter };
        self.streams.push_back(Stream { long: Some(Box::new(long)), ..Stream::new(0) });
        self.open += 1;
        // Streams are few: their headers leave the table to the calls.
        let block = RequestHeaders::new(path, &self.authority).plain;
        self.put_header_block(id, &block);
        id
    }

    /// Queues a message with gRPC's prefix on a stream, the `last` one or not; false if the peer's windows have no
    /// room for it, or the stream has ended.
    pub fn write(&mut self, stream: u32, message: &[u8], last: bool) -> bool {
        let length = message.len() as i64;
        let has_room = self.send_window >= length;
        let Some(long) = self.stream(stream).and_then(|stream| stream.long.as_deref_mut()) else {
            return false;
        };
        if !has_room || long.send_window < length {
            return false;
        }
        long.send_window -= length;
        self.send_window -= length;
        self.put_data(stream, message, last);
        true
    }

    fn put_data(&mut self, id: u32, message: &[u8], last: bool) {
        let mut rest = message;
        loop {
            let (payload, later) = rest.split_at(rest.len().min(self.peer_frame_bytes_max));
            let flags = if later.is_empty() && last { END_STREAM } else { 0 };
            put_frame_header(&mut self.output, payload.len(), DATA, flags, id);
            self.output.extend_from_slice(payload);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
    }

    /// Reads once from `source`; returns how many bytes came, zero at its end.
    ///
    /// # Errors
    /// As the source's, `WouldBlock` included.
    pub fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        debug_assert!(self.filled < self.input.len(), "a frame always fits");
        let count = source.read(&mut self.input[self.filled..])?;
        self.filled += count;
        Ok(count)
    }

    /// Takes in all whole frames that were read and calls `visit` with what they hold.
    ///
    /// # Errors
    /// When the server broke the protocol; the connection can't go on.
    pub fn receive(&mut self, mut visit: impl FnMut(Received<'_>)) -> Result<(), ProtocolError> {
        // Taken out, so that frames can be handled while their bytes are borrowed.
        let mut input = std::mem::take(&mut self.input);
        let result = self.receive_from(&input[..self.filled], &mut visit);
        if let Ok(consumed) = result {
            input.copy_within(consumed..self.filled, 0);
            self.filled -= consumed;
        }
        self.input = input;
        result.map(|_| ())
    }

    /// Writes what is queued; true when all of it is written, false when the sink takes no more for now.
    ///
    /// # Errors
    /// As the sink's, without `WouldBlock`.
    pub fn flush(&mut self, sink: &mut impl Write) -> io::Result<bool> {
        let mut written = 0;
        let result = loop {
            if written == self.output.len() {
                break Ok(true);
            }
            match sink.write(&self.output[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(false),
                Err(error) => break Err(error),
            }
        };
        self.output.drain(..written);
        result
    }

    /// Whether there is something to flush.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    fn next_stream(&self) -> u32 {
        self.oldest + 2 * self.streams.len() as u32
    }

    fn put_headers(&mut self, id: u32) {
        let no_table = [0x20];
        let (update, block): (&[u8], &[u8]) = match self.table {
            PeerTable::Empty => (&[], &self.headers.first),
            PeerTable::Filled => (&[], &self.headers.later),
            PeerTable::Refused => (&no_table, &self.headers.plain),
            PeerTable::Unused => (&[], &self.headers.plain),
        };
        put_frame_header(&mut self.output, update.len() + block.len(), HEADERS, END_HEADERS, id);
        self.output.extend_from_slice(update);
        self.output.extend_from_slice(block);
        self.table = match self.table {
            PeerTable::Empty | PeerTable::Filled => PeerTable::Filled,
            PeerTable::Refused | PeerTable::Unused => PeerTable::Unused,
        };
    }

    /// A header block that uses no table.
    fn put_header_block(&mut self, id: u32, block: &[u8]) {
        let update: &[u8] = if self.table == PeerTable::Refused { &[0x20] } else { &[] };
        put_frame_header(&mut self.output, update.len() + block.len(), HEADERS, END_HEADERS, id);
        self.output.extend_from_slice(update);
        self.output.extend_from_slice(block);
        if self.table == PeerTable::Refused {
            self.table = PeerTable::Unused;
        }
    }

    fn put_window_update(&mut self, bytes: u32) {
        put_frame_header(&mut self.output, 4, WINDOW_UPDATE, 0, 0);
        self.output.extend_from_slice(&bytes.to_be_bytes());
    }

    /// Handles whole frames at the start of `input`; returns their length.
    fn receive_from(
        &mut self,
        input: &[u8],
        visit: &mut impl FnMut(Received<'_>),
    ) -> Result<usize, ProtocolError> {
        let mut consumed = 0;
        while let Some(head) = input[consumed..].first_chunk::<FRAME_HEADER_BYTES>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if length > FRAME_BYTES_DEFAULT {
                return Err(ProtocolError::Frame("frame larger than announced"));
            }
            let start = consumed + FRAME_HEADER_BYTES;
            let Some(payload) = input.get(start..start + length) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & WINDOW_MAX;
            self.frame(head[3], head[4], stream, payload, visit)?;
            consumed = start + length;
        }
        Ok(consumed)
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        visit: &mut impl FnMut(Received<'_>),
    ) -> Result<(), ProtocolError> {
        if self.block.is_some() && kind != CONTINUATION {
            return Err(ProtocolError::Frame("header block interrupted"));
        }
        match kind {
            DATA => self.data(flags, stream, payload, visit),
            HEADERS => self.headers(flags, stream, payload, visit),
            CONTINUATION => self.continuation(flags, stream, payload, visit),
            RST_STREAM => {
                let code = word(payload, 0)?;
                if let Some(open) = self.stream(stream) {
                    open.failure = Some(format!("stream reset by the server, code {code}"));
                    self.answer(stream, visit);
                }
                Ok(())
            }
            SETTINGS if flags & ACK == 0 => self.settings(payload),
            PING if flags & ACK == 0 => {
                if payload.len() != 8 {
                    return Err(ProtocolError::Frame("ping of a wrong size"));
                }
                put_frame_header(&mut self.output, 8, PING, ACK, 0);
                self.output.extend_from_slice(payload);
                Ok(())
            }
            GOAWAY => {
                let code = word(payload, 4)?;
                let text = String::from_utf8_lossy(payload.get(8..).unwrap_or_default());
                self.goaway =
                    Some(format!("goaway from the server, code {code} {text}").trim_end().to_owned());
                Ok(())
            }
            WINDOW_UPDATE => {
                let more = i64::from(word(payload, 0)? & WINDOW_MAX);
                if stream == 0 {
                    self.send_window += more;
                } else if let Some(long) = self.stream(stream).and_then(|stream| stream.long.as_deref_mut()) {
                    long.send_window += more;
                }
                Ok(())
            }
            PUSH_PROMISE => Err(ProtocolError::Frame("push although it is switched off")),
            // Acknowledgements, and what is not known.
            _ => Ok(()),
        }
    }

    fn settings(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        for setting in payload.chunks(6) {
            let &[a, b, ..] = setting else { return Err(ProtocolError::Frame("settings cut short")) };
            let value = word(setting, 2)?;
            match u16::from_be_bytes([a, b]) {
                SETTINGS_HEADER_TABLE_SIZE if (value as usize) < TABLE_BYTES_DEFAULT => {
                    self.table = PeerTable::Refused;
                }
                SETTINGS_MAX_CONCURRENT_STREAMS => self.peer_streams_max = value as usize,
                SETTINGS_INITIAL_WINDOW_SIZE => {
                    let more = i64::from(value) - self.peer_initial_window;
                    self.peer_initial_window = i64::from(value);
                    for long in self.streams.iter_mut().filter_map(|stream| stream.long.as_deref_mut()) {
                        long.send_window += more;
                    }
                }
                // A server may raise it only (RFC 9113, 6.5.2); below, a message would go out in pieces of nothing.
                SETTINGS_MAX_FRAME_SIZE if (value as usize) < FRAME_BYTES_DEFAULT => {
                    return Err(ProtocolError::Frame("a frame size below the smallest allowed"));
                }
                SETTINGS_MAX_FRAME_SIZE => self.peer_frame_bytes_max = value as usize,
                _ => {}
            }
        }
        self.settled = true;
        put_frame_header(&mut self.output, 0, SETTINGS, ACK, 0);
        Ok(())
    }

    fn data(
        &mut self,
        flags: u8,
        id: u32,
        payload: &[u8],
        visit: &mut impl FnMut(Received<'_>),
    ) -> Result<(), ProtocolError> {
        self.uncredited_bytes += payload.len() as u32;
        if self.uncredited_bytes >= CREDIT_STEP_BYTES {
            let credit = std::mem::take(&mut self.uncredited_bytes);
            self.put_window_update(credit);
        }
        let payload = unpadded(flags, payload)?;
        let inspect = self.inspect;
        let Some(stream) = self.stream(id) else { return Ok(()) };
        if stream.long.is_some() {
            long_data(id, stream, payload, visit)?;
        } else if stream.body.is_empty()
            && let Some(message) = whole_message(payload)
        {
            stream.hit = inspect(message);
        } else {
            if stream.body.len() + payload.len() > ANSWER_BYTES_MAX {
                return Err(ProtocolError::Frame("answer too large"));
            }
            stream.body.extend_from_slice(payload);
            if let Some(message) = whole_message(&stream.body) {
                stream.hit = inspect(message);
            }
        }
        if flags & END_STREAM != 0 {
            self.answer(id, visit);
        }
        Ok(())
    }

    fn headers(
        &mut self,
        flags: u8,
        stream: u32,
        payload: &[u8],
        visit: &mut impl FnMut(Received<'_>),
    ) -> Result<(), ProtocolError> {
        let mut fragment = unpadded(flags, payload)?;
        if flags & PRIORITY != 0 {
            fragment = fragment.get(5..).ok_or(ProtocolError::Frame("priority cut short"))?;
        }
        let end_stream = flags & END_STREAM != 0;
        if flags & END_HEADERS != 0 {
            return self.header_block(stream, end_stream, fragment, visit);
        }
        self.block = Some(Block { stream, end_stream, bytes: fragment.to_vec() });
        Ok(())
    }

    fn continuation(
        &mut self,
        flags: u8,
        stream: u32,
        payload: &[u8],
        visit: &mut impl FnMut(Received<'_>),
    ) -> Result<(), ProtocolError> {
        let mut block = self.block.take().ok_or(ProtocolError::Frame("continuation of nothing"))?;
        if block.stream != stream || block.bytes.len() + payload.len() > HEADER_BLOCK_BYTES_MAX {
            return Err(ProtocolError::Frame("continuation of another stream, or too long"));
        }
        block.bytes.extend_from_slice(payload);
        if flags & END_HEADERS != 0 {
            return self.header_block(stream, block.end_stream, &block.bytes, visit);
        }
        self.block = Some(block);
        Ok(())
    }

    fn header_block(
        &mut self,
        id: u32,
        end_stream: bool,
        block: &[u8],
        visit: &mut impl FnMut(Received<'_>),
    ) -> Result<(), ProtocolError> {
        let (mut status, mut message, mut http_failure) = (None, None, None);
        self.decoder.decode(block, |name, value| match name {
            b"grpc-status" => status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
            // Only an error's text is worth an allocation.
            b"grpc-message" if !value.is_empty() => message = Some(percent_decoded(value)),
            b":status" if value != b"200" => {
                http_failure = Some(format!("http status {}", String::from_utf8_lossy(value)));
            }
            _ => {}
        })?;
        let Some(stream) = self.stream(id) else { return Ok(()) };
        stream.grpc_status = status.or(stream.grpc_status);
        stream.failure = http_failure.or(message).or(stream.failure.take());
        if end_stream {
            self.answer(id, visit);
        }
        Ok(())
    }

    /// The open stream with this id.
    fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        let place = id.checked_sub(self.oldest)? / 2;
        self.streams.get_mut(place as usize).filter(|stream| !stream.answered && id & 1 == 1)
    }

    fn answer(&mut self, id: u32, visit: &mut impl FnMut(Received<'_>)) {
        let Some(stream) = self.stream(id) else { return };
        stream.answered = true;
        stream.body = Vec::new();
        let long = stream.long.take();
        let outcome = match (stream.grpc_status, stream.failure.take()) {
            (Some(0), _) => Ok(stream.hit),
            (Some(code), text) => Err(format!("{code}: {}", text.unwrap_or_default())),
            (None, Some(text)) => Err(text),
            (None, None) => Err("no grpc-status".to_owned()),
        };
        let sent_at_ns = stream.sent_at_ns;
        self.open -= 1;
        while self.streams.front().is_some_and(|stream| stream.answered) {
            self.streams.pop_front();
            self.oldest += 2;
        }
        match long {
            None => visit(Received::Answer(Answer { sent_at_ns, outcome })),
            Some(long) => {
                let counted = long.counter.map(|counter| counter.counted()).unwrap_or_default();
                visit(Received::Ended { stream: id, counted, outcome: outcome.map(|_| ()) });
            }
        }
    }
}

/// Takes a piece of a stream's messages.
fn long_data(
    id: u32,
    stream: &mut Stream,
    payload: &[u8],
    visit: &mut impl FnMut(Received<'_>),
) -> Result<(), ProtocolError> {
    if let Some(counter) = stream.long.as_deref_mut().and_then(|long| long.counter.as_mut()) {
        counter.push(payload);
        return Ok(());
    }
    if stream.body.len() + payload.len() > ANSWER_BYTES_MAX {
        return Err(ProtocolError::Frame("answer too large"));
    }
    // Most frames hold whole messages, which are told where they lie.
    if stream.body.is_empty() {
        let told = tell_messages(id, payload, visit);
        stream.body.extend_from_slice(&payload[told..]);
    } else {
        stream.body.extend_from_slice(payload);
        let told = tell_messages(id, &stream.body, visit);
        stream.body.drain(..told);
    }
    Ok(())
}

/// Tells all whole messages, and returns how many bytes they have.
fn tell_messages(id: u32, bytes: &[u8], visit: &mut impl FnMut(Received<'_>)) -> usize {
    let mut told = 0;
    while let Some(message) = whole_message(&bytes[told..]) {
        visit(Received::Message { stream: id, message });
        told += PREFIX_BYTES + message.len();
    }
    told
}

fn put_frame_header(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags, d, e, f, g]);
}

fn word(payload: &[u8], at: usize) -> Result<u32, ProtocolError> {
    let bytes = payload.get(at..).and_then(|rest| rest.first_chunk::<4>());
    bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or(ProtocolError::Frame("frame cut short"))
}

fn unpadded(flags: u8, payload: &[u8]) -> Result<&[u8], ProtocolError> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(ProtocolError::Frame("padding cut short"))?;
    let length =
        rest.len().checked_sub(usize::from(padding)).ok_or(ProtocolError::Frame("padding too long"))?;
    Ok(&rest[..length])
}

/// The message behind gRPC's prefix, once all of it is there.
fn whole_message(body: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(*body.get(1..)?.first_chunk()?) as usize;
    body.get(5..)?.get(..length)
}

/// grpc-message's text: bytes outside printable ASCII come as `%XX`.
fn percent_decoded(value: &[u8]) -> String {
    let mut text = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        text.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}
