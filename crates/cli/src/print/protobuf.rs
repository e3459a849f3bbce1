//! `-w protobuf`: the bytes of the message, without an end of line.

use std::io::{Result, Write};

use prost::Message;

pub(super) fn message(out: &mut dyn Write, answer: &impl Message) -> Result<()> {
    out.write_all(&answer.encode_to_vec())
}
