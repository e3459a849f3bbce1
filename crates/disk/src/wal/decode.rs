//! The messages inside records, read strictly: known fields only, in order, at most once, with the wire type
//! that they are written with. A changed record type shows only here, since the sum does not cover it.

use super::window::varint;
use super::{ConfState, EntryKind, EntryRef, HardState, SnapshotRecord};

/// Why a message is refused.
pub(crate) type Refusal = &'static str;

/// `raftpb.Entry`.
pub(super) fn entry(data: &[u8]) -> Result<EntryRef<'_>, Refusal> {
    let mut fields = Fields::new(data);
    let kind = match fields.number(1)?.unwrap_or(0) {
        0 => EntryKind::Normal,
        1 => EntryKind::ConfChange,
        2 => EntryKind::ConfChangeV2,
        _ => return Err("unknown entry type"),
    };
    let term = fields.number(2)?.unwrap_or(0);
    let index = fields.number(3)?.unwrap_or(0);
    let data = fields.bytes(4)?.unwrap_or(&[]);
    fields.end()?;
    if term == 0 || index == 0 {
        return Err("an entry without a term or an index");
    }
    followed(index)?;
    if kind != EntryKind::Normal && data.is_empty() {
        return Err("a configuration change without data");
    }
    Ok(EntryRef { term, index, kind, data })
}

/// `raftpb.HardState`.
pub(super) fn state(data: &[u8]) -> Result<HardState, Refusal> {
    let mut fields = Fields::new(data);
    let term = fields.number(1)?.unwrap_or(0);
    let vote = fields.number(2)?.unwrap_or(0);
    let commit = fields.number(3)?.unwrap_or(0);
    fields.end()?;
    if term == 0 {
        return Err("a hard state without a term");
    }
    followed(commit)?;
    Ok(HardState { term, vote, commit })
}

/// `walpb.Snapshot`.
pub(super) fn snapshot(data: &[u8]) -> Result<SnapshotRecord, Refusal> {
    let mut fields = Fields::new(data);
    let index = fields.number(1)?.ok_or("a snapshot without an index")?;
    let term = fields.number(2)?.ok_or("a snapshot without a term")?;
    let conf_state = fields.bytes(3)?.map(conf_state).transpose()?;
    fields.end()?;
    if (index == 0) != (term == 0) {
        return Err("a snapshot with an index and no term, or a term and no index");
    }
    followed(index)?;
    Ok(SnapshotRecord { index, term, conf_state })
}

/// The rest of the log counts on an index after each that it has.
pub(crate) fn followed(index: u64) -> Result<(), Refusal> {
    if index == u64::MAX { Err("an index that none can follow") } else { Ok(()) }
}

pub(crate) fn conf_state(data: &[u8]) -> Result<ConfState, Refusal> {
    let mut fields = Fields::new(data);
    let conf_state = ConfState {
        voters: fields.numbers(1)?,
        learners: fields.numbers(2)?,
        voters_outgoing: fields.numbers(3)?,
        learners_next: fields.numbers(4)?,
        auto_leave: match fields.number(5)?.unwrap_or(0) {
            0 => false,
            1 => true,
            _ => return Err("a flag that is neither 0 nor 1"),
        },
    };
    fields.end()?;
    Ok(conf_state)
}

/// A message's fields, taken in ascending order.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Fields(data)
    }

    pub(crate) fn number(&mut self, field: u8) -> Result<Option<u64>, Refusal> {
        match self.0.split_first() {
            Some((&tag, rest)) if tag == field << 3 => {
                let (value, used) = varint(rest).ok_or("a number that does not end")?;
                self.0 = &rest[used..];
                Ok(Some(value))
            }
            _ => Ok(None),
        }
    }

    fn numbers(&mut self, field: u8) -> Result<Vec<u64>, Refusal> {
        let mut all = Vec::new();
        while let Some(value) = self.number(field)? {
            all.push(value);
        }
        Ok(all)
    }

    pub(crate) fn bytes(&mut self, field: u8) -> Result<Option<&'a [u8]>, Refusal> {
        match self.0.split_first() {
            Some((&tag, rest)) if tag == field << 3 | 2 => {
                let (len, used) = varint(rest).ok_or("a length that does not end")?;
                let rest = &rest[used..];
                let len = usize::try_from(len).map_err(|_| "a length beyond the message")?;
                let (value, rest) = rest.split_at_checked(len).ok_or("a length beyond the message")?;
                self.0 = rest;
                Ok(Some(value))
            }
            _ => Ok(None),
        }
    }

    pub(crate) fn end(&self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err("an unknown field, or one out of order") }
    }
}
