//! An answer on its way: the call runs as the connection asks for the next piece, and only then.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use wire::{Code, Status};

use super::json::write::Texts;
use super::status;
use crate::LocalFuture;
use crate::grpc::answer::Charge;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Of the services' own headers there is one, which grpc-gateway passes on like any other.
const SERVICE_TYPE: HeaderName = HeaderName::from_static("grpc-metadata-content-type");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Becomes ready when the client is gone.
pub type Gone = Box<dyn FnMut(&mut Context<'_>) -> Poll<()>>;

/// What an answer begins with.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// All of the body, if that is known.
    pub whole: Option<Bytes>,
}

/// A piece of an answer.
#[derive(Debug)]
pub struct Piece {
    /// The bytes.
    pub bytes: Bytes,
    /// A line, or all, ends with it.
    pub is_last: bool,
}

/// The line that ends a stream.
pub fn error_line(error: &Status) -> Piece {
    let mut line = b"{\"error\":".to_vec();
    line.extend_from_slice(&status::json(error, Texts::ForHtml));
    line.extend_from_slice(b"}\n");
    Piece { bytes: line.into(), is_last: true }
}

/// Where a call puts its answer.
#[derive(Clone)]
pub struct Out(Rc<Slot>);

#[derive(Default)]
struct Slot {
    head: RefCell<Option<Head>>,
    piece: RefCell<Option<Piece>>,
    /// What counts the message that it is made of, until the next one or the end.
    charge: RefCell<Option<Charge>>,
    is_begun: Cell<bool>,
    /// The last piece was not the last of its line.
    is_in_line: Cell<bool>,
}

impl Out {
    /// A good answer: all of it, or its head alone, if its pieces follow.
    pub fn begin(&self, whole: Option<Vec<u8>>) {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON), (SERVICE_TYPE, GRPC)]);
        self.put_head(StatusCode::OK, headers, whole);
    }

    /// A stream that ends before its first message: with nothing, or with an error, which follows.
    pub fn begin_end(&self, error: Option<&Status>) {
        let status = error.map_or(StatusCode::OK, |error| status::http(error.code));
        let headers = error.map(|_| (CONTENT_TYPE, JSON)).into_iter().collect();
        self.put_head(status, headers, None);
    }

    /// An error in place of an answer.
    pub fn fail(&self, error: &Status) {
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON)]);
        if error.code == Code::Unauthenticated
            && let Ok(text) = HeaderValue::try_from(&*error.message)
        {
            headers.insert(WWW_AUTHENTICATE, text);
        }
        self.put_head(status::http(error.code), headers, Some(status::json(error, Texts::Plain)));
    }

    fn put_head(&self, status: StatusCode, headers: HeaderMap, whole: Option<Vec<u8>>) {
        self.0.is_begun.set(true);
        *self.0.head.borrow_mut() = Some(Head { status, headers, whole: whole.map(Bytes::from) });
    }

    /// Ends what is not ended, and is not in a line, with an error; the piece goes behind what waits.
    fn cancel(&self, is_stream: bool) -> Option<Piece> {
        let error = Status::new(Code::Canceled, "context canceled");
        match (self.0.is_begun.get(), is_stream) {
            (false, false) => {
                self.fail(&error);
                return None;
            }
            (false, true) => self.begin_end(Some(&error)),
            (true, _) => {}
        }
        Some(error_line(&error))
    }

    /// What follows is made of a message that this counts.
    pub fn count(&self, charge: Option<Charge>) {
        self.0.charge.replace(charge);
    }

    /// A piece; waits until those before it are taken.
    pub async fn put(&self, piece: Piece) {
        let mut piece = Some(piece);
        poll_fn(|_| {
            let mut place = self.0.piece.borrow_mut();
            if place.is_some() {
                // Who takes it lets the call go on.
                return Poll::Pending;
            }
            *place = piece.take();
            self.0.is_in_line.set(place.as_ref().is_some_and(|piece| !piece.is_last));
            Poll::Ready(())
        })
        .await;
    }
}

/// A call and its answer. Dropping it ends the call.
pub struct Answer {
    run: Option<LocalFuture<'static, ()>>,
    out: Out,
    heard_all: Rc<Cell<bool>>,
    gone: Option<Gone>,
    is_stream: bool,
    /// What a client is told that has ended its side.
    farewell: Option<Piece>,
    is_cut: bool,
}

impl Answer {
    /// `run` makes the call. The client is watched by `gone` from when it has said all (`heard_all`); it may have ended
    /// its side alone, and is told how the call, which may be one with many answers (`is_stream`), ends then.
    pub fn new<R: Future<Output = ()> + 'static>(
        run: impl FnOnce(Out) -> R,
        heard_all: Rc<Cell<bool>>,
        gone: Option<Gone>,
        is_stream: bool,
    ) -> Answer {
        let out = Out(Rc::default());
        let run: LocalFuture<'static, ()> = Box::pin(run(out.clone()));
        Answer { run: Some(run), out, heard_all, gone, is_stream, farewell: None, is_cut: false }
    }

    /// What it begins with; `None` if the client is gone before.
    pub async fn head(&mut self) -> Option<Head> {
        poll_fn(|cx| {
            let is_over = self.poll_run(cx);
            match self.out.0.head.borrow_mut().take() {
                None if !is_over => Poll::Pending,
                head => Poll::Ready(head),
            }
        })
        .await
    }

    /// What counts the bytes, of an answer that is all there.
    pub fn take_charge(&self) -> Option<Charge> {
        self.out.0.charge.take()
    }

    /// The next piece, `None` at the end. Of a head that nobody has asked for the body is one.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        let waiting = self.take();
        if waiting.is_some() {
            return Poll::Ready(waiting);
        }
        let is_over = self.poll_run(cx);
        match self.take() {
            None if !is_over => Poll::Pending,
            piece => Poll::Ready(piece),
        }
    }

    fn take(&mut self) -> Option<Piece> {
        let whole = self.out.0.head.borrow_mut().take().and_then(|head| head.whole);
        let whole = whole.map(|bytes| Piece { bytes, is_last: true });
        whole.or_else(|| self.out.0.piece.borrow_mut().take()).or_else(|| self.farewell.take())
    }

    /// Lets the call go on; true if it is over.
    fn poll_run(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(run) = &mut self.run
            && run.as_mut().poll(cx).is_ready()
        {
            self.run = None;
        }
        if self.run.is_some()
            && self.heard_all.get()
            && let Some(gone) = &mut self.gone
            && gone(cx).is_ready()
        {
            self.run = None;
            let Slot { is_begun, is_in_line, .. } = &*self.out.0;
            self.is_cut = is_begun.get() && (!self.is_stream || is_in_line.get());
            if !self.is_cut {
                self.farewell = self.out.cancel(self.is_stream);
            }
        }
        self.run.is_none()
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.poll_piece(cx).map(|piece| match piece {
            Some(piece) => Some(Ok(Frame::data(piece.bytes))),
            None if self.is_cut => Some(Err(io::ErrorKind::ConnectionAborted.into())),
            None => None,
        })
    }
}
