//! Calls in which the server, or both sides, send messages as they please.

use std::collections::VecDeque;

use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Streaming};
use wire::Status;

use crate::Error;
use crate::channel::TaskGuard;

/// How many requests of a [`Duplex`] wait, at most, for the server's window; then sending waits.
pub const REQUESTS_WAITING_MAX: usize = 16;

/// A call in which both sides send.
///
/// Requests wait in a queue of [`REQUESTS_WAITING_MAX`]. Answers are not gathered: those that nobody takes fill the
/// stream's window of 1 MiB, and then the server has to wait. (They also fill the connection's window of 4 MiB, so
/// several streams whose answers nobody takes hold up their connection.) Dropping it resets the stream.
pub struct Duplex<Q, A> {
    requests: mpsc::Sender<Q>,
    request_bytes_max: u32,
    answers: Answers<A>,
}

impl<Q: Message + 'static, A: Send + 'static> Duplex<Q, A> {
    /// `call` gets the stream of requests.
    pub(crate) fn open<F>(request_bytes_max: u32, call: impl FnOnce(ReceiverStream<Q>) -> F) -> Self
    where
        F: Future<Output = Result<Response<Streaming<A>>, Error>> + Send + 'static,
    {
        let (requests, waiting) = mpsc::channel(REQUESTS_WAITING_MAX);
        let answers = Answers::open(call(ReceiverStream::new(waiting)));
        Duplex { requests, request_bytes_max, answers }
    }

    /// Sends a request once the stream has room for it. Nothing happens when the call is over: [`Duplex::next`] says
    /// how it ended. Cancel safe: the request is sent or it is not.
    ///
    /// # Errors
    /// `ResourceExhausted` for a request above the client's limit.
    pub async fn send(&self, request: Q) -> Result<(), Error> {
        check_size(&request, self.request_bytes_max)?;
        // The receiver is gone with the call.
        let _ = self.requests.send(request).await;
        Ok(())
    }

    /// The next answer; nothing when the call is over. Waits for a connection, if there is none, for as long as it takes.
    /// Cancel safe.
    ///
    /// # Errors
    /// How the call ended; after that it is over.
    pub async fn next(&mut self) -> Result<Option<A>, Error> {
        self.answers.next().await
    }

    /// The next answer, and meanwhile sends what is in the outbox. Cancel safe: what was sent is no longer there.
    pub(crate) async fn exchange(&mut self, outbox: &mut VecDeque<Q>) -> Result<Option<A>, Error> {
        while !outbox.is_empty() {
            tokio::select! {
                biased;
                room = self.requests.reserve() => match (room, outbox.pop_front()) {
                    (Ok(room), Some(request)) => room.send(request),
                    // The call is over: its answers say how.
                    _ => break,
                },
                answer = self.answers.next() => return answer,
            }
        }
        self.answers.next().await
    }
}

/// The answers to a call whose server sends as it pleases. Dropping it resets the stream.
pub struct Answers<A>(State<A>);

enum State<A> {
    /// gRPC has no stream before the server has said something.
    Opening { opened: JoinHandle<Result<Response<Streaming<A>>, Error>>, _task: TaskGuard },
    /// Open.
    Open(Box<Streaming<A>>),
    /// Over.
    Over,
}

impl<A: Send + 'static> Answers<A> {
    pub(crate) fn open(
        call: impl Future<Output = Result<Response<Streaming<A>>, Error>> + Send + 'static,
    ) -> Self {
        let opened = tokio::spawn(call);
        let task = TaskGuard(opened.abort_handle());
        Answers(State::Opening { opened, _task: task })
    }

    /// The next answer; nothing when the call is over. Cancel safe.
    ///
    /// # Errors
    /// How the call ended; after that it is over.
    pub async fn next(&mut self) -> Result<Option<A>, Error> {
        if let State::Opening { opened, .. } = &mut self.0 {
            // It ends by itself, and is aborted only when this is dropped.
            let opened = opened.await.unwrap_or_else(|error| match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(tonic::Status::cancelled(error.to_string()).into()),
            });
            self.0 = State::Over;
            self.0 = State::Open(Box::new(opened?.into_inner()));
        }
        let State::Open(stream) = &mut self.0 else { return Ok(None) };
        let result = stream.message().await;
        if !matches!(result, Ok(Some(_))) {
            self.0 = State::Over;
        }
        Ok(result?)
    }
}

/// # Errors
/// `ResourceExhausted` with gRPC's text for a request above the limit.
pub(crate) fn check_size(request: &impl Message, bytes_max: u32) -> Result<(), Error> {
    let bytes = request.encoded_len();
    if bytes <= bytes_max as usize {
        return Ok(());
    }
    let text = format!("trying to send message larger than max ({bytes} vs. {bytes_max})");
    Err(Error::Status(Status::new(wire::Code::ResourceExhausted, text)))
}
