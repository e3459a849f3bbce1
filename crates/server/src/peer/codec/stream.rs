//! The `message` stream: length, message, length, message.

use bytes::Bytes;

use super::gather::{Gather, Number};
use super::message::{Decoded, Outgoing, decode};
use super::{DecodeError, MESSAGE_BYTES_MAX, Output};

/// `raftpb.Message{Type: MsgHeartbeat}`, and nothing else.
const LINK_HEARTBEAT: [u8; 2] = [0x08, 0x08];

/// Appends a message's frame.
pub fn encode_message(message: &Outgoing, out: &mut Output) {
    out.number(message.encoded_len() as u64);
    message.write(out);
}

/// Appends the frame that says only that the stream lives.
pub fn encode_heartbeat(out: &mut Output) {
    out.number(LINK_HEARTBEAT.len() as u64);
    out.push(&LINK_HEARTBEAT);
}

/// Reads a stream of messages.
#[derive(Debug)]
pub struct MessageDecoder {
    limit: u64,
    number: Number,
    gather: Gather,
    in_message: bool,
}

impl MessageDecoder {
    /// For a stream from its beginning.
    pub fn new() -> Self {
        Self::with_limit(MESSAGE_BYTES_MAX)
    }

    /// With another bound for a message.
    pub fn with_limit(limit: u64) -> Self {
        MessageDecoder { limit, number: Number::default(), gather: Gather::default(), in_message: false }
    }

    /// Takes bytes away from `input` until a frame is complete; `None` once all are taken.
    ///
    /// # Errors
    /// See [`DecodeError`]. The stream cannot be read further.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Decoded>, DecodeError> {
        match self.next_bytes(input)? {
            Some(bytes) => decode(&bytes).map(Some),
            None => Ok(None),
        }
    }

    fn next_bytes(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, DecodeError> {
        if !self.in_message {
            let Some(length) = self.number.take(input) else { return Ok(None) };
            let limit = self.limit;
            if length > limit {
                return Err(DecodeError::TooLong { length, limit });
            }
            self.gather.expect(length as usize);
            self.in_message = true;
        }
        if !self.gather.fill(input) {
            return Ok(None);
        }
        self.in_message = false;
        Ok(Some(self.gather.take()))
    }

    /// Whether the stream may end here.
    pub fn is_between_frames(&self) -> bool {
        !self.in_message && self.number.is_empty()
    }
}

impl Default for MessageDecoder {
    fn default() -> Self {
        Self::new()
    }
}
