//! `-w protobuf`: the bytes of the message, without an end of line.

use std::io::{Result, Write};

use prost::Message;
use wire::etcdserverpb::ResponseHeader;

pub(super) fn message(out: &mut dyn Write, answer: &impl Message) -> Result<()> {
    out.write_all(&answer.encode_to_vec())
}

/// All that etcdctl writes of an answer for which the Go client has its own type.
pub(super) fn header(out: &mut dyn Write, header: Option<ResponseHeader>) -> Result<()> {
    message(out, &header.unwrap_or_default())
}
