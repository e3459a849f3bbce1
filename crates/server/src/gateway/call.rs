//! One call: JSON in, the call itself, JSON out.

use std::future::pending;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use wire::{Code, Status};

use super::answer::{Out, Piece, error_line};
use super::head::Metadata;
use super::json::read::read;
use super::json::scan::{Broken, Values};
use super::json::write::{Texts, Writer};
use super::link::{Call, Link, Receiver, Requested, Sender};
use super::schema::Method;
use super::source::Source;

/// About as long a piece of an answer is.
const PIECE_BYTES: usize = 64 << 10;
/// Fields of an answer that are looked at before others have their turn.
const STEPS_MAX: usize = 16 << 10;

/// Makes a call and puts what comes of it into `out`.
pub(crate) async fn run(
    link: Rc<Link>,
    method: &'static Method,
    metadata: Metadata,
    source: Source,
    out: Out,
) {
    let mut requests = Requests::new(&link, method, source);
    let first = match method.client_streams {
        true => None,
        false => match requests.only().await {
            Ok(first) => Some(first),
            Err(status) => return out.fail(&status),
        },
    };
    let Call { sender, receiver } = match link.call(method.path, metadata).await {
        Ok(call) => call,
        Err(status) => return out.fail(&status),
    };
    let sent = async {
        match first {
            Some(first) => send_only(first, sender).await,
            None => requests.send_all(sender).await,
        }
    };
    let answered = async {
        match method.server_streams {
            true => answer_stream(method, receiver, &out).await,
            false => answer_once(method, receiver, &out).await,
        }
    };
    // The sending side ends only with the client.
    tokio::select! {
        biased;
        () = sent => {}
        () = answered => {}
    }
}

/// The messages of a client, as they come.
struct Requests {
    values: Values,
    source: Source,
    method: &'static Method,
    message_bytes_max: usize,
    requested: Requested,
}

/// Why there is no message.
enum End {
    /// The client has said all.
    Over,
    /// It is gone.
    Gone,
    /// It is refused.
    Refused(Status),
}

impl Requests {
    fn new(link: &Rc<Link>, method: &'static Method, source: Source) -> Self {
        let (message_bytes_max, json_bytes_max) = link.gateway().limits();
        let (values, requested) = (Values::new(json_bytes_max), Requested::new(link));
        Requests { values, source, method, message_bytes_max, requested }
    }

    /// The message of a call that has one; without any it is empty. What comes behind it does not matter.
    async fn only(&mut self) -> Result<Bytes, Status> {
        let message = match self.next().await {
            Ok(message) => message,
            Err(End::Over) => return self.read(b"{}"),
            Err(End::Gone) => return Err(Status::new(Code::InvalidArgument, "unexpected EOF")),
            Err(End::Refused(status)) => return Err(status),
        };
        let drained = self.source.drain().await;
        drained.map_err(|_| Status::new(Code::Canceled, "context canceled"))?;
        // What has come behind it is not kept.
        self.values = Values::new(0);
        self.requested.set(message.len())?;
        Ok(message)
    }

    async fn next(&mut self) -> Result<Bytes, End> {
        loop {
            match self.values.value() {
                Ok(Some(value)) => {
                    let message = self.read(&value).map_err(End::Refused)?;
                    self.requested.set(self.values.bytes() + message.len()).map_err(End::Refused)?;
                    return Ok(message);
                }
                Ok(None) => {}
                Err(broken) => return Err(End::Refused(self.broken(&broken))),
            }
            match self.source.next().await {
                Ok(Some(chunk)) => {
                    self.values.push(&chunk);
                    self.requested.set(self.values.bytes()).map_err(End::Refused)?;
                }
                Err(_) => return Err(End::Gone),
                Ok(None) => {
                    return match self.values.end() {
                        Ok(Some(value)) => self.read(&value).map_err(End::Refused),
                        Ok(None) => Err(End::Over),
                        Err(broken) => Err(End::Refused(self.broken(&broken))),
                    };
                }
            }
        }
    }

    fn read(&self, json: &[u8]) -> Result<Bytes, Status> {
        let read = read(json, self.method.request, self.message_bytes_max);
        read.map(Bytes::from).map_err(|text| Status::new(Code::InvalidArgument, text))
    }

    fn broken(&self, broken: &Broken) -> Status {
        match broken {
            Broken::Syntax(text) => Status::new(Code::InvalidArgument, text.clone()),
            // What is in it nobody knows; it is more than a message may have.
            Broken::TooLong => {
                Status::message_too_large(self.values.bytes() as u64, self.message_bytes_max as u64)
            }
        }
    }

    /// Sends what the client says. As in etcd what is no message ends what is heard of it, and the service goes on.
    async fn send_all(&mut self, mut sender: Sender) {
        loop {
            match self.next().await {
                Ok(message) => {
                    if !sender.send(message).await {
                        break;
                    }
                }
                Err(End::Over | End::Refused(_)) => break,
                Err(End::Gone) => return,
            }
        }
        sender.finish();
        // What is not heard any more still says, by its end, that the client is gone.
        self.values = Values::new(0);
        self.requested.clear();
        if self.source.drain().await.is_ok() {
            pending::<()>().await;
        }
    }
}

async fn send_only(message: Bytes, mut sender: Sender) {
    sender.send(message).await;
    sender.finish();
    pending::<()>().await;
}

async fn answer_once(method: &Method, mut receiver: Receiver, out: &Out) {
    let answered = match receiver.next().await {
        // The status comes behind the message.
        Ok(Some(message)) => receiver.next().await.map(|_| Some(message)),
        other => other,
    };
    match answered {
        Ok(Some((message, charge))) => {
            out.count(charge);
            let mut json = Vec::with_capacity(256);
            let mut writer = Writer::begin(message, method.response, Texts::Plain, &mut json);
            if fill(&mut writer, &mut json).await {
                return out.begin(Some(json));
            }
            out.begin(None);
            write_rest(writer, json, b"", out).await;
        }
        Ok(None) => out.fail(&Status::new(Code::Internal, "the service answered nothing")),
        Err(status) => out.fail(&status),
    }
}

async fn answer_stream(method: &Method, mut receiver: Receiver, out: &Out) {
    let mut is_begun = false;
    loop {
        let next = pin!(receiver.next());
        match next.await {
            Ok(Some((message, charge))) => {
                out.count(charge);
                if !std::mem::replace(&mut is_begun, true) {
                    out.begin(None);
                }
                let mut json = b"{\"result\":".to_vec();
                let writer = Writer::begin(message, method.response, Texts::ForHtml, &mut json);
                write_rest(writer, json, b"}\n", out).await;
            }
            Ok(None) => {
                if !is_begun {
                    out.begin_end(None);
                }
                return;
            }
            Err(error) => {
                if !is_begun {
                    out.begin_end(Some(&error));
                }
                return out.put(error_line(&error)).await;
            }
        }
    }
}

/// Writes in pieces, with `end` behind the last one.
async fn write_rest(mut writer: Writer, mut json: Vec<u8>, end: &[u8], out: &Out) {
    loop {
        let is_last = fill(&mut writer, &mut json).await;
        if is_last {
            json.extend_from_slice(end);
        }
        out.put(Piece { bytes: std::mem::take(&mut json).into(), is_last }).await;
        if is_last {
            return;
        }
    }
}

/// Writes the next piece; true if it is the last.
async fn fill(writer: &mut Writer, json: &mut Vec<u8>) -> bool {
    loop {
        if writer.write(json, PIECE_BYTES, STEPS_MAX) {
            return true;
        }
        if json.len() >= PIECE_BYTES {
            return false;
        }
        tokio::task::yield_now().await;
    }
}
