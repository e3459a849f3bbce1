//! `-w protobuf`: the bytes of the message, without an end of line.

use std::io::{Result, Write};

use prost::Message;
use wire::etcdserverpb::{ResponseHeader, WatchResponse};

pub(super) fn message(out: &mut dyn Write, answer: &impl Message) -> Result<()> {
    out.write_all(&answer.encode_to_vec())
}

/// etcdctl leaves out the watch's id and the reason of an end.
pub(super) fn watch(out: &mut dyn Write, answer: &WatchResponse) -> Result<()> {
    let WatchResponse { header, events, compact_revision, canceled, created, .. } = answer.clone();
    let header = Some(header.unwrap_or_default());
    let printed = WatchResponse { header, events, compact_revision, canceled, created, ..Default::default() };
    message(out, &printed)
}

/// All that etcdctl writes of an answer for which the Go client has its own type.
pub(super) fn header(out: &mut dyn Write, header: Option<ResponseHeader>) -> Result<()> {
    message(out, &header.unwrap_or_default())
}
