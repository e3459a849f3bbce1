//! The bytes of a `.snap` file and its name.

use std::fmt;

use super::ConfState;
use crate::wal::decode::{Fields, Refusal, conf_state, followed};
use crate::wal::encode::{conf_state_bytes, push_field};

/// A `.snap` file's name; they ascend as raft's log does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The term of the entry at `index`.
    pub term: u64,
    /// The last index that the snapshot covers.
    pub index: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.snap", self.term, self.index)
    }
}

impl Name {
    /// Reads a name; `None` for what is no name of such a file.
    pub fn parse(name: &str) -> Option<Self> {
        let (term, index) = name.strip_suffix(".snap")?.split_once('-')?;
        let parsed =
            Name { term: u64::from_str_radix(term, 16).ok()?, index: u64::from_str_radix(index, 16).ok()? };
        (parsed.to_string() == name).then_some(parsed)
    }
}

/// What a `.snap` file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The last index that it covers, from 1.
    pub index: u64,
    /// The term of the entry there, from 1.
    pub term: u64,
    /// The membership of raft there.
    pub conf_state: ConfState,
    /// The state there; in etcd the membership as JSON.
    pub data: Vec<u8>,
}

/// What does not hold, and where the part begins that it does not hold of, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub offset: u64,
    pub reason: Refusal,
}

impl Snapshot {
    /// The file's name.
    pub fn name(&self) -> Name {
        Name { term: self.term, index: self.index }
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut metadata = Vec::new();
        push_bytes(&mut metadata, 0x0a, &conf_state_bytes(&self.conf_state));
        push_field(&mut metadata, 0x10, self.index);
        push_field(&mut metadata, 0x18, self.term);
        let mut message = Vec::with_capacity(self.data.len() + metadata.len() + 24);
        if !self.data.is_empty() {
            push_bytes(&mut message, 0x0a, &self.data);
        }
        push_bytes(&mut message, 0x12, &metadata);
        let mut file = envelope(crc32c::crc32c(&message), message.len());
        file.extend_from_slice(&message);
        file
    }

    /// Reads a file's bytes, strictly: known fields only, in order, at most once; what the sum does not cover only as
    /// etcd and we write it.
    pub(super) fn decode(file: &[u8]) -> Result<Snapshot, Fault> {
        let whole = |reason| Fault { offset: 0, reason };
        let (crc, message) = read_envelope(file).map_err(whole)?;
        if crc32c::crc32c(message) != crc {
            return Err(whole("the sum does not match"));
        }
        let offset = (file.len() - message.len()) as u64;
        if envelope(crc, message.len()) != file[..offset as usize] {
            return Err(whole("a number that is longer than need be"));
        }
        read_message(message).map_err(|reason| Fault { offset, reason })
    }
}

/// `snappb.Snapshot` up to its data.
fn envelope(crc: u32, message_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_field(&mut bytes, 0x08, crc.into());
    push_field(&mut bytes, 0x12, message_bytes as u64);
    bytes
}

fn push_bytes(bytes: &mut Vec<u8>, tag: u8, value: &[u8]) {
    push_field(bytes, tag, value.len() as u64);
    bytes.extend_from_slice(value);
}

fn read_envelope(file: &[u8]) -> Result<(u32, &[u8]), Refusal> {
    let mut fields = Fields::new(file);
    let crc = fields.number(1)?.ok_or("a snapshot file without a sum")?;
    let message = fields.bytes(2)?.ok_or("a snapshot file without data")?;
    fields.end()?;
    Ok((u32::try_from(crc).map_err(|_| "a sum of more than 32 bits")?, message))
}

fn read_message(message: &[u8]) -> Result<Snapshot, Refusal> {
    let mut fields = Fields::new(message);
    let data = fields.bytes(1)?.unwrap_or_default().to_vec();
    let mut metadata = Fields::new(fields.bytes(2)?.ok_or("a snapshot without metadata")?);
    fields.end()?;
    let conf_state = conf_state(metadata.bytes(1)?.ok_or("a snapshot without ConfState")?)?;
    let index = metadata.number(2)?.unwrap_or(0);
    let term = metadata.number(3)?.unwrap_or(0);
    metadata.end()?;
    if index == 0 || term == 0 {
        return Err("a snapshot without a term or an index");
    }
    followed(index)?;
    Ok(Snapshot { index, term, conf_state, data })
}
