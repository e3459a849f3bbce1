//! Streams of the gateway by WebSocket (RFC 6455), as etcd's grpc-websocket-proxy has them: each message that comes is one
//! request, each line of the answer is a text message. Browsers can do no other stream in both directions.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::answer::{Answer, Piece};
use super::cut;
use crate::http::error;
use crate::listen::Closing;

/// What RFC 6455 puts behind a client's key.
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;
const TOO_LONG: u16 = 1009;
/// Bytes that are read at a time.
const READ_BYTES: usize = 4 << 10;

/// A socket that was agreed on, until its connection is free of HTTP.
pub type Agreed = Rc<RefCell<Option<Socket>>>;

/// A call by WebSocket.
pub struct Socket {
    /// What the client is told.
    pub answer: Answer,
    /// Where its messages go.
    pub messages: mpsc::Sender<Bytes>,
    /// Longest message.
    pub bytes_max: usize,
}

/// Whether a request asks for a WebSocket.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    has_token(headers, CONNECTION, "upgrade") && has_token(headers, UPGRADE, "websocket")
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// The answer to a request for a WebSocket: that it is one now (101), or why not.
pub fn agree(head: &Parts) -> Response<Full<Bytes>> {
    let refuse = |status: StatusCode| {
        let mut response = error(status, status.canonical_reason().unwrap_or_default());
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        response
    };
    if head.method != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED);
    }
    let key = head.headers.get(SEC_WEBSOCKET_KEY).map_or(&b""[..], |key| key.as_bytes());
    let is_key = STANDARD.decode(key).is_ok_and(|key| key.len() == 16);
    if !is_key || !has_token(&head.headers, SEC_WEBSOCKET_VERSION, "13") {
        return refuse(StatusCode::BAD_REQUEST);
    }
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_SUFFIX.as_bytes()].concat());
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::try_from(STANDARD.encode(hash)) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let protocol = head.headers.get(SEC_WEBSOCKET_PROTOCOL);
    if protocol.is_some_and(|protocol| protocol.as_bytes().starts_with(b"Bearer")) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Serves a socket to its end. `early`: bytes that came with the request.
pub async fn serve(io: impl AsyncRead + AsyncWrite, early: Bytes, socket: Socket, mut closing: Closing) {
    let Socket { mut answer, messages, bytes_max } = socket;
    let (mut reading, mut writing) = tokio::io::split(io);
    let mut frames = Frames::new(early, bytes_max);
    // What has come and the call has not taken; nothing is read before it has.
    let mut waiting: Option<Bytes> = None;
    let mut is_line_begun = false;
    let code = loop {
        // Heads are of no use here; the call goes on behind them. Whatever is ready has its turn by chance, so that
        // neither a client that never stops asking nor an answer without an end keeps the other waiting.
        let told = tokio::select! {
            piece = poll_fn(|cx| answer.poll_piece(cx)) => match piece {
                None => break NORMAL,
                Some(Piece { bytes, is_last }) => {
                    let mut line = &bytes[..];
                    if is_last && line.last() == Some(&b'\n') {
                        line = &line[..line.len() - 1];
                    }
                    let kind = if is_line_begun { Kind::Continuation } else { Kind::Text };
                    is_line_begun = !is_last;
                    frame(kind, is_last, line)
                }
            },
            permit = messages.reserve(), if waiting.is_some() => {
                // What a call does not hear any more is passed over: the socket is still read, to see its end.
                if let (Ok(permit), Some(message)) = (permit, waiting.take()) {
                    permit.send(message);
                }
                continue;
            }
            next = frames.next(&mut reading), if waiting.is_none() => match next {
                Ok(Came::Message(message)) => {
                    waiting = Some(message);
                    continue;
                }
                Ok(Came::Ping(payload)) => frame(Kind::Pong, true, &payload),
                Ok(Came::Close) => break NORMAL,
                Err(Bad::Gone) => return,
                Err(Bad::Protocol) => break PROTOCOL_ERROR,
                Err(Bad::TooLong) => break TOO_LONG,
            },
            () = closing.wait() => break GOING_AWAY,
        };
        if writing.write_all(&told).await.is_err() || writing.flush().await.is_err() {
            return;
        }
    };
    // A client that is gone hears no farewell.
    let _ = writing.write_all(&frame(Kind::Close, true, &code.to_be_bytes())).await;
    let _ = writing.shutdown().await;
}

/// What frames are; by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Continuation = 0,
    Text = 1,
    Close = 8,
    Pong = 10,
}

/// A frame of ours.
fn frame(kind: Kind, is_last: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(10 + payload.len());
    frame.push(kind as u8 | if is_last { 0x80 } else { 0 });
    match payload.len() {
        length @ ..126 => frame.push(length as u8),
        length @ 126..65536 => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    /// A whole message, and a line end.
    Message(Bytes),
    Ping(Bytes),
    Close,
}

/// Why nothing more is read.
#[derive(Debug, PartialEq, Eq)]
enum Bad {
    Gone,
    Protocol,
    TooLong,
}

/// Puts a client's messages together.
struct Frames {
    bytes: BytesMut,
    message: BytesMut,
    is_in_message: bool,
    bytes_max: usize,
}

impl Frames {
    fn new(early: Bytes, bytes_max: usize) -> Self {
        Frames { bytes: early.into(), message: BytesMut::new(), is_in_message: false, bytes_max }
    }

    /// The next thing that comes. Cancel safe.
    async fn next(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Result<Came, Bad> {
        loop {
            if let Some(came) = self.take()? {
                return Ok(came);
            }
            self.bytes.reserve(READ_BYTES);
            if io.read_buf(&mut self.bytes).await.map_err(|_| Bad::Gone)? == 0 {
                return Err(Bad::Gone);
            }
        }
    }

    /// What has come whole.
    fn take(&mut self) -> Result<Option<Came>, Bad> {
        loop {
            let Some(&[first, second]) = self.bytes.first_chunk::<2>() else { return Ok(None) };
            let (is_last, reserved, kind) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
            let is_control = kind & 8 != 0;
            let (long, head) = match second & 0x7f {
                126 => (self.bytes.get(2..4), 4),
                127 => (self.bytes.get(2..10), 10),
                _ => (Some(&[][..]), 2),
            };
            let Some(long) = long else { return Ok(None) };
            let length = match long {
                [] => u64::from(second & 0x7f),
                long => long.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
            };
            let is_masked = second & 0x80 != 0;
            let is_whole = is_last && length < 126;
            if reserved != 0 || !is_masked || (is_control && !is_whole) {
                return Err(Bad::Protocol);
            }
            let room = self.bytes_max.saturating_sub(self.message.len());
            let Some(length) = usize::try_from(length).ok().filter(|length| is_control || *length <= room)
            else {
                return Err(Bad::TooLong);
            };
            if self.bytes.len() < head + 4 + length {
                return Ok(None);
            }
            self.bytes.advance(head);
            let mask = self.bytes.split_to(4);
            let mut payload = cut(&mut self.bytes, length);
            for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
                *byte ^= mask;
            }
            match (kind, self.is_in_message) {
                (0, true) | (1 | 2, false) => {
                    self.message.extend_from_slice(&payload);
                    self.is_in_message = !is_last;
                    if is_last {
                        self.message.extend_from_slice(b"\n");
                        return Ok(Some(Came::Message(std::mem::take(&mut self.message).freeze())));
                    }
                }
                (8, _) => return Ok(Some(Came::Close)),
                (9, _) => return Ok(Some(Came::Ping(payload.freeze()))),
                (10, _) => {}
                _ => return Err(Bad::Protocol),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::DuplexStream;

    use super::*;
    use crate::gateway::answer::Out;
    use crate::listen::closing;

    /// A client's frame.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let plain = frame(Kind::Continuation, false, payload);
        let head = plain.len() - payload.len();
        let mask = [7, 0, 0x80, 0xff];
        let mut frame = plain[..head].to_vec();
        (frame[0], frame[1]) = (first, frame[1] | 0x80);
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    fn all(bytes: &[u8], piece: usize) -> (Vec<Came>, Option<Bad>) {
        let mut frames = Frames::new(Bytes::new(), 70_000);
        let mut came = Vec::new();
        for piece in bytes.chunks(piece) {
            frames.bytes.extend_from_slice(piece);
            loop {
                match frames.take() {
                    Ok(Some(one)) => came.push(one),
                    Ok(None) => break,
                    Err(bad) => return (came, Some(bad)),
                }
            }
        }
        (came, None)
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let long = vec![b'x'; 66_000];
        let sent = [
            masked(0x81, b"{}"),
            masked(0x01, b"a"),
            masked(0x89, b"ping"),
            masked(0x8a, b""),
            masked(0x80, b"b"),
            masked(0x82, &long),
            masked(0x88, &[3, 0xe8]),
        ];
        let line = |text: &[u8]| Came::Message([text, b"\n"].concat().into());
        let want =
            [line(b"{}"), Came::Ping(Bytes::from_static(b"ping")), line(b"ab"), line(&long), Came::Close];
        for piece in [1, 3, 1000, 1 << 20] {
            assert_eq!(all(&sent.concat(), piece), (want.iter().map(same).collect(), None));
        }
    }

    fn same(came: &Came) -> Came {
        match came {
            Came::Message(bytes) => Came::Message(bytes.clone()),
            Came::Ping(bytes) => Came::Ping(bytes.clone()),
            Came::Close => Came::Close,
        }
    }

    /// Serves a socket with this call until it ends; `client` has the other end, and has to see to that.
    fn served<R, C>(run: impl FnOnce(Out, mpsc::Receiver<Bytes>) -> R, client: impl FnOnce(DuplexStream) -> C)
    where
        R: Future<Output = ()> + 'static,
        C: Future<Output = ()> + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (messages, received) = mpsc::channel(1);
            let answer = Answer::new(|out| run(out, received), Rc::default(), None, false);
            let socket = Socket { answer, messages, bytes_max: 1024 };
            let (ours, theirs) = tokio::io::duplex(256);
            let client = tokio::task::spawn_local(client(theirs));
            let (_stop, closing) = closing();
            let ends = serve(ours, Bytes::new(), socket, closing);
            tokio::time::timeout(Duration::from_secs(60), ends).await.expect("it goes on");
            client.await.unwrap();
        });
    }

    #[test]
    fn an_answer_without_end_lets_its_client_speak() {
        let run = |out: Out, received| async move {
            let _received: mpsc::Receiver<Bytes> = received;
            loop {
                out.put(Piece { bytes: Bytes::from_static(b"on and on\n"), is_last: true }).await;
            }
        };
        served(run, |io| async move {
            let (mut reading, mut writing) = tokio::io::split(io);
            writing.write_all(&masked(0x88, &[3, 0xe8])).await.unwrap();
            let mut got = vec![0; 4096];
            while reading.read(&mut got).await.unwrap() > 0 {}
        });
    }

    #[test]
    fn a_client_that_is_not_heard_is_seen_to_leave() {
        for is_closed in [false, true] {
            // The call takes one message, and then no more.
            let run = move |_out, mut received: mpsc::Receiver<Bytes>| async move {
                received.recv().await;
                if is_closed {
                    drop(received);
                }
                std::future::pending::<()>().await;
            };
            served(run, move |mut io| async move {
                for _ in 0..if is_closed { 10 } else { 2 } {
                    io.write_all(&masked(0x81, b"{}")).await.unwrap();
                }
            });
        }
    }

    #[test]
    fn what_is_no_frame_ends_it() {
        for (bytes, bad) in [
            (vec![0x81, 0x00], Bad::Protocol),
            (masked(0xc1, b""), Bad::Protocol),
            (masked(0x80, b""), Bad::Protocol),
            ([masked(0x01, b""), masked(0x81, b"")].concat(), Bad::Protocol),
            (masked(0x09, b""), Bad::Protocol),
            (masked(0x89, &[0; 126]), Bad::Protocol),
            (masked(0x83, b""), Bad::Protocol),
            (masked(0x82, &vec![0; 70_001]), Bad::TooLong),
            ([masked(0x01, &vec![0; 69_999]), masked(0x80, &[0; 2])].concat(), Bad::TooLong),
        ] {
            assert_eq!(all(&bytes, 1 << 20), (Vec::new(), Some(bad)), "{:x?}", &bytes[..2]);
        }
        let huge = [0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(all(&huge, 20).1, Some(Bad::TooLong));
    }
}
