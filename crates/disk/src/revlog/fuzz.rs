//! The fuzz target: any bytes as a log.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::fs::{Fs, MemFs};

use super::format::{FRAME_HEADER_LEN, FrameHeader, MAGIC, RecordHeader, SEGMENT_HEADER_LEN, VERSION};
use super::{Applied, Error, Limits, Location, Replay, ReplayError, open, segment_name};

/// Opens arbitrary bytes as a log and, if they pass, goes on writing to it and opens it again.
///
/// The first byte says how to take the rest: its low bit, whether magic, version and checksums are set right
/// first (so that what lies behind them is reached); the next two bits, into how many equal segments it is
/// cut, less one.
///
/// # Panics
/// If the log contradicts itself; never because of what `data` is.
pub fn fuzz_revlog(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else { return };
    let segments = usize::from(how >> 1 & 3) + 1;
    let fs = MemFs::new();
    let dir = Path::new("rev");
    fs.create_dir_all(dir, 0o700).expect("a folder in memory");
    for (at, part) in data.chunks(data.len().div_ceil(segments).max(1)).enumerate() {
        let mut part = part.to_vec();
        if how & 1 == 1 {
            seal(&mut part);
        }
        fs.put(dir.join(segment_name(at as u32 + 1)), &part).expect("a file in memory");
    }

    let Ok((before, frames)) = go_on(&fs, dir, true) else { return };
    let (after, frames_after) = go_on(&fs, dir, false).expect("what was opened and written opens again");
    assert_eq!(frames_after, frames + 1, "the frame written is there");
    assert_eq!(&after[..before.len()], before, "records stay");
    assert_eq!(after.len(), before.len() + 1, "the record written is there");
}

type Seen = Vec<(RecordHeader, Location, Vec<u8>)>;

/// What the log holds; `append`: one frame is added.
fn go_on(fs: &MemFs, dir: &Path, append: bool) -> Result<(Seen, u64), Error> {
    let mut seen = Collect::default();
    let opened = open(Arc::new(fs.clone()), dir, Limits::tiny(), 1, &mut seen)?;
    let (applied, frames) = (opened.applied(), opened.last_frame());
    let (mut builder, mut writer, reader) = opened.into_parts()?;
    let mut scanned = Vec::new();
    reader.scan(0, |header, at, payload| {
        scanned.push((header, at, payload.to_vec()));
        ControlFlow::Continue(())
    })?;
    assert_eq!(scanned, seen.records, "a scan shows what opening showed");
    for (_, at, payload) in &scanned {
        let mut out = vec![0; payload.len()];
        reader.read(*at, &mut out)?;
        assert_eq!(&out, payload, "payload at {at}");
    }
    if append {
        let last = seen.records.last().map_or(0, |(header, ..)| header.main);
        let Some(main) = last.checked_add(1) else {
            return Err(Error::Stopped { cause: "no number is left".into() });
        };
        builder.push(RecordHeader { kind: 1, main, sub: 0 }, b"appended");
        let frame = builder.finish(applied, b"state", applied.index)?;
        writer.write(frame)?;
        writer.sync()?;
    }
    reader.check();
    Ok((seen.records, frames))
}

#[derive(Default)]
struct Collect {
    records: Seen,
}

impl Replay for Collect {
    fn record(&mut self, header: RecordHeader, at: Location, payload: &[u8]) -> Result<(), ReplayError> {
        self.records.push((header, at, payload.to_vec()));
        Ok(())
    }

    fn frame(&mut self, _: Applied, _: &[u8], _: bool) -> Result<(), ReplayError> {
        Ok(())
    }
}

/// Makes magic, version, ids and checksums right as far as the lengths in the bytes lead.
fn seal(bytes: &mut [u8]) {
    if bytes.len() < SEGMENT_HEADER_LEN {
        return;
    }
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    let log_id: [u8; 8] = bytes[16..24].try_into().expect("eight bytes");
    let mut at = SEGMENT_HEADER_LEN;
    while bytes.len() - at >= FRAME_HEADER_LEN {
        let frame = &mut bytes[at..];
        frame[..8].copy_from_slice(&log_id);
        let header_crc = |frame: &[u8]| crc32c::crc32c(&frame[..68]).to_le_bytes();
        let crc = header_crc(frame);
        frame[68..72].copy_from_slice(&crc);
        let Some(header) = FrameHeader::decode(frame, u64::from_le_bytes(log_id)) else { return };
        if header.frame_len() > frame.len() as u64 {
            return;
        }
        let len = header.frame_len() as usize;
        let body_crc = crc32c::crc32c(&frame[FRAME_HEADER_LEN..len]).to_le_bytes();
        frame[64..68].copy_from_slice(&body_crc);
        let crc = header_crc(frame);
        frame[68..72].copy_from_slice(&crc);
        at += len;
    }
}
