//! The body of an answer: DATA frames, flow control, trailers, and the limit on a message's size.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::Frame;
use tonic::Status;

use crate::channel::{DriverGuard, TaskGuard};

/// The body of one answer. Ends the request's side of the stream when it is dropped.
pub struct AnswerBody {
    frames: RecvStream,
    sizes: SizeCheck,
    data_done: bool,
    /// What still sends the request, if anything does.
    _sender: Option<TaskGuard>,
    /// Keeps the connection's task alive while the answer is read.
    _connection: DriverGuard,
}

impl AnswerBody {
    pub(crate) fn new(
        frames: RecvStream,
        message_bytes_max: u32,
        sender: Option<TaskGuard>,
        connection: DriverGuard,
    ) -> Self {
        let sizes = SizeCheck { bytes_max: message_bytes_max, prefix: [0; 5], prefix_len: 0, left: 0 };
        AnswerBody { frames, sizes, data_done: false, _sender: sender, _connection: connection }
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if !this.data_done {
            match ready!(this.frames.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only on a stream that is gone, which the next poll reports.
                    let _ = this.frames.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(this.sizes.pass(&data).map(|()| Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(status_of(&error)))),
                None => this.data_done = true,
            }
        }
        match ready!(this.frames.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t)))),
            Err(error) => Poll::Ready(Some(Err(status_of(&error)))),
        }
    }
}

/// Follows gRPC's length prefixes through the frames and refuses a message above the limit before it is read,
/// with the code and text of Go's client; tonic's own check has others.
struct SizeCheck {
    bytes_max: u32,
    prefix: [u8; 5],
    prefix_len: usize,
    /// Bytes of the current message that are still to come.
    left: usize,
}

impl SizeCheck {
    fn pass(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            let skip = self.left.min(data.len());
            self.left -= skip;
            data = &data[skip..];
            let take = (self.prefix.len() - self.prefix_len).min(data.len());
            self.prefix[self.prefix_len..][..take].copy_from_slice(&data[..take]);
            self.prefix_len += take;
            data = &data[take..];
            if self.prefix_len == self.prefix.len() {
                let [_, length @ ..] = self.prefix;
                let length = u32::from_be_bytes(length);
                if length > self.bytes_max {
                    let refusal = wire::Status::message_too_large(length.into(), self.bytes_max.into());
                    return Err(Status::resource_exhausted(refusal.message.into_owned()));
                }
                self.left = length as usize;
                self.prefix_len = 0;
            }
        }
        Ok(())
    }
}

/// The status that gRPC prescribes for a stream or connection that ended without one.
pub(crate) fn status_of(error: &h2::Error) -> Status {
    let text = error.to_string();
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => Status::unavailable(text),
        Some(Reason::CANCEL) if error.is_reset() => Status::cancelled(text),
        Some(Reason::ENHANCE_YOUR_CALM) => Status::resource_exhausted(text),
        Some(Reason::INADEQUATE_SECURITY) => Status::permission_denied(text),
        Some(_) if error.is_reset() => Status::internal(text),
        _ => Status::unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes_max: u32) -> SizeCheck {
        SizeCheck { bytes_max, prefix: [0; 5], prefix_len: 0, left: 0 }
    }

    #[test]
    fn sizes_are_found_however_frames_are_cut() {
        // Two messages of 3 and 0 bytes, then one of 5, with a limit of 4.
        let stream = [0, 0, 0, 0, 3, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        for cut in 1..=stream.len() {
            let mut sizes = check(4);
            let results: Vec<_> = stream.chunks(cut).map(|c| sizes.pass(c)).collect();
            let (last, before) = results.split_last().unwrap();
            assert!(before.iter().all(Result::is_ok), "cut {cut}");
            let status = last.as_ref().unwrap_err();
            assert_eq!(status.code(), tonic::Code::ResourceExhausted);
            assert_eq!(status.message(), "grpc: received message larger than max (5 vs. 4)");
        }
        assert!(check(5).pass(&stream).is_ok());
    }
}
