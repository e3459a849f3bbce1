//! The store's records on the revision log: the two traits of the store, and what a frame says beside them.

use std::ops::ControlFlow;
use std::sync::OnceLock;

use disk::revlog::{FrameBuilder, Location as LogLocation, Reader, RecordHeader};
use prost::Message;
use store::{Location, ReadError, RecordKind, RecordSink, RecordSource, RecordVisitor, Revision};

use crate::Rot;

const PUT: u8 = 1;
const TOMBSTONE: u8 = 2;

/// Reads records for the store, from any thread. Empty while the log is being opened: replay reads nothing.
#[derive(Default)]
pub(crate) struct LogSource {
    reader: OnceLock<Reader>,
    /// Hears of what cannot be read.
    rot: Rot,
}

impl LogSource {
    /// Gives it the log, once.
    pub(crate) fn fill(&self, reader: Reader) {
        let filled = self.reader.set(reader).is_ok();
        assert!(filled, "a log is opened once");
    }

    /// What is told of what cannot be read.
    pub(crate) fn rot(&self) -> &Rot {
        &self.rot
    }

    fn failed(&self, error: disk::revlog::Error, at: Option<LogLocation>) -> ReadError {
        self.rot.note(&error, at);
        read_error(error)
    }

    fn reader(&self) -> Result<&Reader, ReadError> {
        self.reader.get().ok_or_else(|| ReadError("the revision log is not open yet".into()))
    }
}

impl RecordSource for LogSource {
    fn read(&self, at: Location, out: &mut [u8]) -> Result<(), ReadError> {
        let at = LogLocation(at.0);
        self.reader()?.read(at, out).map_err(|error| self.failed(error, Some(at)))
    }

    fn read_nowait(&self, at: Location, out: &mut [u8]) -> Result<bool, ReadError> {
        let at = LogLocation(at.0);
        self.reader()?.read_nowait(at, out).map_err(|error| self.failed(error, Some(at)))
    }

    fn forget(&self, records: &[(Location, u32, RecordKind)]) {
        // A log that is not open yet gives nothing back either.
        let Some(reader) = self.reader.get() else { return };
        let records = records.iter();
        reader
            .forget(records.map(|(at, len, kind)| (LogLocation(at.0), *len, *kind == RecordKind::Tombstone)));
    }

    fn scan(&self, from: i64, visitor: &mut RecordVisitor<'_>) -> Result<(), ReadError> {
        let mut unknown = None;
        let scanned = self.reader()?.scan(from, |header, _, payload| match parse(header) {
            Some((kind, revision)) => visitor(kind, revision, payload),
            None => {
                unknown = Some(header.kind);
                ControlFlow::Break(())
            }
        });
        scanned.map_err(|error| self.failed(error, None))?;
        match unknown {
            Some(kind) => Err(ReadError(format!("unknown record kind {kind}"))),
            None => Ok(()),
        }
    }
}

/// Takes the records of the batch that is being applied.
pub(crate) struct LogSink<'a> {
    pub(crate) builder: &'a mut FrameBuilder,
    pub(crate) reader: &'a Reader,
}

impl RecordSink for LogSink<'_> {
    fn push(&mut self, kind: RecordKind, revision: Revision, encoded: &[u8]) -> Location {
        let header = record_header(kind, revision.main, revision.sub);
        Location(self.builder.push(header, encoded).0)
    }

    fn read(&self, at: Location, out: &mut [u8]) -> Result<(), ReadError> {
        self.reader.read(LogLocation(at.0), out).map_err(read_error)
    }
}

fn read_error(error: disk::revlog::Error) -> ReadError {
    ReadError(error.to_string())
}

/// How the log names a kind.
pub(crate) fn record_kind(kind: RecordKind) -> u8 {
    match kind {
        RecordKind::Put => PUT,
        RecordKind::Tombstone => TOMBSTONE,
    }
}

/// How a record of this kind and revision is stored.
pub(crate) fn record_header(kind: RecordKind, main: i64, sub: i64) -> RecordHeader {
    RecordHeader { kind: record_kind(kind), main, sub }
}

/// The kind and revision of a stored record; `None` for a kind that this version does not know.
pub(crate) fn parse(header: RecordHeader) -> Option<(RecordKind, Revision)> {
    let kind = match header.kind {
        PUT => RecordKind::Put,
        TOMBSTONE => RecordKind::Tombstone,
        _ => return None,
    };
    Some((kind, Revision { main: header.main, sub: header.sub }))
}

/// A frame's state beside its records, as a protobuf message of our own.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FrameState {
    /// The membership of consensus as of the frame's applied index (rule 16); in each frame.
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) learners: Vec<u64>,
    /// The store's small tables, if they changed, or if the frame opens a segment.
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(crate) tables: Option<Vec<u8>>,
}
