//! The messages of a client that sends more than one, as they come.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use prost::Message;
use wire::{Code, Status};

use super::answer::PREFIX_BYTES;
use super::counted::Receiver;
use super::stream::{frame_bytes, inflated};

/// The client's side of a call. Of what has come and is not asked for yet no more than one stream's window is kept.
pub struct Incoming {
    body: RecvStream,
    /// What has come of the next messages.
    parts: BytesMut,
    bytes_max: u32,
    gzip: bool,
    is_over: bool,
    counts: Receiver,
}

impl Incoming {
    /// `bytes_max`: longest message, without its prefix. `gzip`: messages may be compressed. `counts`: what hears of each.
    pub fn new(body: RecvStream, bytes_max: u32, gzip: bool, counts: Receiver) -> Self {
        Incoming { body, parts: BytesMut::new(), bytes_max, gzip, is_over: false, counts }
    }

    /// The next message; `None` once the client has ended its side in order.
    ///
    /// # Errors
    /// As gRPC's Go server tells them to a handler. Nothing comes after one.
    pub async fn next<T: Message + Default>(&mut self) -> Option<Result<T, Status>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Incoming::next`], which it is a step of.
    pub fn poll_next<T: Message + Default>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<T, Status>>> {
        let frame = match ready!(self.poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.counts.received(frame.len() - PREFIX_BYTES);
                frame
            }
            Some(Err(status)) => return Poll::Ready(Some(Err(status))),
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(T::decode(frame.slice(PREFIX_BYTES..)).map_err(|error| {
            self.is_over = true;
            let text = format!("grpc: failed to unmarshal the received message: {error}");
            Status::new(Code::Internal, text)
        })))
    }

    /// As [`Incoming::next`], before decoding.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            if self.is_over {
                return Poll::Ready(None);
            }
            match frame_bytes(&self.parts, self.bytes_max, self.gzip) {
                Err(status) => return self.fail(status),
                Ok(Some(bytes)) if bytes <= self.parts.len() => {
                    let frame = self.parts.split_to(bytes).freeze();
                    return match inflated(frame, self.bytes_max) {
                        Ok(frame) => Poll::Ready(Some(Ok(frame))),
                        Err(status) => self.fail(status),
                    };
                }
                Ok(_) => {}
            }
            match self.body.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(chunk))) => {
                    let _ = self.body.flow_control().release_capacity(chunk.len());
                    self.parts.extend_from_slice(&chunk);
                }
                Poll::Ready(Some(Err(error))) => {
                    return self.fail(Status::new(Code::Canceled, error.to_string()));
                }
                Poll::Ready(None) if self.parts.is_empty() => self.is_over = true,
                Poll::Ready(None) => return self.fail(Status::new(Code::Internal, "unexpected EOF")),
            }
        }
    }

    fn fail(&mut self, status: Status) -> Poll<Option<Result<Bytes, Status>>> {
        self.is_over = true;
        Poll::Ready(Some(Err(status)))
    }
}
