//! Bodies of answers.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::Full;

use crate::gateway::answer::Answer;
use crate::grpc::answer::Charge;

/// A body.
pub enum Body {
    /// One that is there.
    Whole(Full<Bytes>),
    /// The same, with what counts its bytes.
    Counted(Full<Bytes>, Option<Charge>),
    /// One that is made as the client takes it.
    Call(Box<Answer>),
}

impl Body {
    /// What counts the bytes of one that is there, if anything does.
    pub fn take_charge(&mut self) -> Option<Charge> {
        match self {
            Body::Counted(_, charge) => charge.take(),
            Body::Whole(_) | Body::Call(_) => None,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Body::Whole(body) | Body::Counted(body, _) => {
                Pin::new(body).poll_frame(cx).map_err(|never| match never {})
            }
            Body::Call(answer) => Pin::new(answer.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(body) | Body::Counted(body, _) => body.is_end_stream(),
            Body::Call(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(body) | Body::Counted(body, _) => body.size_hint(),
            Body::Call(_) => SizeHint::default(),
        }
    }
}
