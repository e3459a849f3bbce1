//! What a client sends, whatever it comes by.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;

/// A request's body.
pub struct Source {
    body: Kind,
    heard_all: Rc<Cell<bool>>,
}

enum Kind {
    Http1(Incoming),
    Http2(RecvStream),
    Socket(mpsc::Receiver<Bytes>),
}

/// The client is gone, or sends what is no HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl From<Incoming> for Source {
    fn from(body: Incoming) -> Self {
        Source::over(Kind::Http1(body))
    }
}

impl From<RecvStream> for Source {
    fn from(body: RecvStream) -> Self {
        Source::over(Kind::Http2(body))
    }
}

impl From<mpsc::Receiver<Bytes>> for Source {
    fn from(messages: mpsc::Receiver<Bytes>) -> Self {
        Source::over(Kind::Socket(messages))
    }
}

impl Source {
    fn over(body: Kind) -> Self {
        Source { body, heard_all: Rc::default() }
    }

    /// Is set when all of it has come: from then on the connection is not read for its sake.
    pub fn heard_all(&self) -> Rc<Cell<bool>> {
        self.heard_all.clone()
    }

    /// What comes next, `None` at the end.
    ///
    /// # Errors
    /// If it is cut.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        let next = match &mut self.body {
            Kind::Http1(body) => loop {
                match body.frame().await {
                    None => break None,
                    Some(Err(_)) => return Err(Broken),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            break Some(data);
                        }
                    }
                }
            },
            Kind::Http2(body) => match body.data().await {
                None => None,
                Some(Err(_)) => return Err(Broken),
                Some(Ok(data)) => {
                    let _ = body.flow_control().release_capacity(data.len());
                    Some(data)
                }
            },
            Kind::Socket(messages) => messages.recv().await,
        };
        if next.is_none() {
            self.heard_all.set(true);
        }
        Ok(next)
    }

    /// Passes over the rest: a call with one request begins when its body is over. A socket has no end, and is not waited
    /// for: whoever reads it is told that nothing more is wanted.
    ///
    /// # Errors
    /// If it is cut.
    pub async fn drain(&mut self) -> Result<(), Broken> {
        if let Kind::Socket(messages) = &mut self.body {
            messages.close();
            return Ok(());
        }
        while !self.heard_all.get() && self.next().await?.is_some() {}
        Ok(())
    }
}
