//! Bytes on disk: segment headers, frames and records. The table is in the parent module's documentation.
//!
//! Decoding never trusts a length before its checksum and its bound were checked, and never panics on input.

use std::io;

use crate::fs::File;

/// First bytes of every segment.
pub(super) const MAGIC: [u8; 8] = *b"QRTEREVL";
/// The only version that this code reads and writes.
pub(super) const VERSION: u32 = 1;
/// Bytes before a segment's first frame.
pub(super) const SEGMENT_HEADER_LEN: usize = 64;
/// Bytes of a frame before its records.
pub(super) const FRAME_HEADER_LEN: usize = 72;
/// Bytes of a record before its payload.
pub(super) const RECORD_HEADER_LEN: usize = 21;
/// Frames begin at multiples of this, so that a later frame can be found behind a bad one.
pub(super) const FRAME_ALIGN: u64 = 8;

/// The frame opens its segment and repeats the whole small state.
const FLAG_FULL_STATE: u32 = 1;
/// A segment that frames were appended to.
const KIND_APPENDED: u32 = 0;
/// A segment that a merge wrote.
const KIND_MERGED: u32 = 1;
/// Numbers of merged segments begin here, so that a location in one is never one in what it was made of.
pub(super) const FIRST_MERGED: u32 = 1 << 31;

const _: () = assert!((SEGMENT_HEADER_LEN as u64).is_multiple_of(FRAME_ALIGN));
const _: () = assert!((FRAME_HEADER_LEN as u64).is_multiple_of(FRAME_ALIGN));

/// The header of one segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub log_id: u64,
    pub number: u32,
    /// 0 for an appended one; for a merged one higher than those of all that it was made of.
    pub generation: u32,
    /// The appended segments that it stands for, first and last.
    pub covers: (u32, u32),
    /// Number of the first frame that it stands for.
    pub first_frame: u64,
}

/// Why a segment's header was refused, with the offset of the offending field.
pub(super) enum HeaderFault {
    Damaged(u64, String),
    Unsupported(u64, String),
}

impl SegmentHeader {
    pub fn appended(log_id: u64, number: u32, first_frame: u64) -> SegmentHeader {
        SegmentHeader { log_id, number, generation: 0, covers: (number, number), first_frame }
    }

    pub fn is_merged(&self) -> bool {
        self.number >= FIRST_MERGED
    }

    /// Whether the fields are what this program would write.
    fn is_sound(&self) -> bool {
        let (first, last) = self.covers;
        let covers_appended = 1 <= first && first <= last && last < FIRST_MERGED;
        let fits_kind = match self.is_merged() {
            true => self.generation > 0,
            false => self.generation == 0 && self.covers == (self.number, self.number),
        };
        self.log_id != 0 && covers_appended && fits_kind
    }

    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut out = [0; SEGMENT_HEADER_LEN];
        out[0..8].copy_from_slice(&MAGIC);
        put_u32(&mut out, 8, VERSION);
        put_u32(&mut out, 12, if self.is_merged() { KIND_MERGED } else { KIND_APPENDED });
        put_u64(&mut out, 16, self.log_id);
        put_u32(&mut out, 24, self.number);
        put_u32(&mut out, 28, self.generation);
        put_u32(&mut out, 32, self.covers.0);
        put_u32(&mut out, 36, self.covers.1);
        put_u64(&mut out, 40, self.first_frame);
        let crc = crc32c::crc32c(&out[..60]);
        put_u32(&mut out, 60, crc);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        let damaged = |offset, what: &str| Err(HeaderFault::Damaged(offset, what.to_owned()));
        if bytes.len() < SEGMENT_HEADER_LEN {
            return damaged(0, "the segment header is cut short");
        }
        if bytes[..8] != MAGIC {
            return damaged(0, "not a revision log segment: wrong magic");
        }
        let version = get_u32(bytes, 8);
        if version != VERSION {
            let what = format!("format version {version}, this program reads {VERSION}");
            return Err(HeaderFault::Unsupported(8, what));
        }
        if get_u32(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return damaged(0, "the segment header's checksum does not match");
        }
        let kind = get_u32(bytes, 12);
        if kind > KIND_MERGED {
            return Err(HeaderFault::Unsupported(12, format!("segment kind {kind}")));
        }
        let header = SegmentHeader {
            log_id: get_u64(bytes, 16),
            number: get_u32(bytes, 24),
            generation: get_u32(bytes, 28),
            covers: (get_u32(bytes, 32), get_u32(bytes, 36)),
            first_frame: get_u64(bytes, 40),
        };
        if !header.is_sound() || header.encode() != bytes[..SEGMENT_HEADER_LEN] {
            return damaged(0, "the segment header contradicts itself");
        }
        Ok(header)
    }
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub log_id: u64,
    pub number: u64,
    pub applied_index: u64,
    pub applied_term: u64,
    pub wal_durable: u64,
    pub log_durable: u64,
    pub records_len: u32,
    pub state_len: u32,
    pub record_count: u32,
    pub full_state: bool,
    pub body_crc: u32,
}

impl FrameHeader {
    pub fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        let mut out = [0; FRAME_HEADER_LEN];
        put_u64(&mut out, 0, self.log_id);
        put_u64(&mut out, 8, self.number);
        put_u64(&mut out, 16, self.applied_index);
        put_u64(&mut out, 24, self.applied_term);
        put_u64(&mut out, 32, self.wal_durable);
        put_u64(&mut out, 40, self.log_durable);
        put_u32(&mut out, 48, self.records_len);
        put_u32(&mut out, 52, self.state_len);
        put_u32(&mut out, 56, self.record_count);
        put_u32(&mut out, 60, if self.full_state { FLAG_FULL_STATE } else { 0 });
        put_u32(&mut out, 64, self.body_crc);
        let crc = crc32c::crc32c(&out[..68]);
        put_u32(&mut out, 68, crc);
        out
    }

    /// `None` unless the bytes are a frame header of this log, by its id and its own checksum.
    pub fn decode(bytes: &[u8], log_id: u64) -> Option<FrameHeader> {
        let bytes = bytes.get(..FRAME_HEADER_LEN)?;
        if get_u64(bytes, 0) != log_id || get_u32(bytes, 68) != crc32c::crc32c(&bytes[..68]) {
            return None;
        }
        let flags = get_u32(bytes, 60);
        if flags & !FLAG_FULL_STATE != 0 {
            return None;
        }
        Some(FrameHeader {
            log_id,
            number: get_u64(bytes, 8),
            applied_index: get_u64(bytes, 16),
            applied_term: get_u64(bytes, 24),
            wal_durable: get_u64(bytes, 32),
            log_durable: get_u64(bytes, 40),
            records_len: get_u32(bytes, 48),
            state_len: get_u32(bytes, 52),
            record_count: get_u32(bytes, 56),
            full_state: flags & FLAG_FULL_STATE != 0,
            body_crc: get_u32(bytes, 64),
        })
    }

    /// The whole frame in the file: header, records, state and padding, bytes.
    pub fn frame_len(&self) -> u64 {
        let body = u64::from(self.records_len) + u64::from(self.state_len);
        FRAME_HEADER_LEN as u64 + body.next_multiple_of(FRAME_ALIGN)
    }
}

/// What a record says of its payload. The log keeps it and gives it back; its meaning is the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The store's kind of record (a put, a tombstone, …).
    pub kind: u8,
    /// The revision's main number.
    pub main: i64,
    /// The revision's sub number.
    pub sub: i64,
}

/// Appends a record; its payload begins [`RECORD_HEADER_LEN`] bytes after the old end of `out`.
///
/// The caller has checked that the payload's length fits 32 bits.
pub(super) fn push_record(out: &mut Vec<u8>, header: RecordHeader, payload: &[u8]) {
    let mut bytes = [0; RECORD_HEADER_LEN];
    put_u32(&mut bytes, 0, payload.len() as u32);
    bytes[4] = header.kind;
    bytes[5..13].copy_from_slice(&header.main.to_le_bytes());
    bytes[13..21].copy_from_slice(&header.sub.to_le_bytes());
    out.reserve(RECORD_HEADER_LEN + payload.len());
    out.extend_from_slice(&bytes);
    out.extend_from_slice(payload);
}

/// Takes a frame's records apart.
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// One record inside a frame; `payload_at` counts from the first record's first byte.
pub(super) struct Record<'a> {
    pub header: RecordHeader,
    pub payload_at: usize,
    pub payload: &'a [u8],
}

impl<'a> Records<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Records { bytes, at: 0 }
    }
}

impl<'a> Iterator for Records<'a> {
    /// `Err` holds where a record begins that runs past the end; nothing comes after it.
    type Item = Result<Record<'a>, usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return None;
        }
        let start = self.at;
        let whole =
            rest.len() >= RECORD_HEADER_LEN && rest.len() - RECORD_HEADER_LEN >= get_u32(rest, 0) as usize;
        if !whole {
            self.at = self.bytes.len();
            return Some(Err(start));
        }
        let payload = &rest[RECORD_HEADER_LEN..RECORD_HEADER_LEN + get_u32(rest, 0) as usize];
        let header =
            RecordHeader { kind: rest[4], main: get_u64(rest, 5) as i64, sub: get_u64(rest, 13) as i64 };
        let payload_at = start + RECORD_HEADER_LEN;
        self.at = payload_at + payload.len();
        Some(Ok(Record { header, payload_at, payload }))
    }
}

/// Reads the frames of one file in order through a window of bounded size (or of one frame, if larger).
pub(super) struct FrameScan<'a> {
    file: &'a dyn File,
    log_id: u64,
    /// Nothing at or past this offset is read.
    end: u64,
    chunk_bytes: usize,
    window: Vec<u8>,
    window_at: u64,
}

/// What lies behind the last frame that verifies.
pub(super) enum Rest {
    /// Nothing was ever written there.
    Zero,
    /// Bytes that no frame vouches for.
    Unvouched,
    /// A frame at this offset says that what should be there was durable.
    Vouched { by: u64 },
}

/// A whole and verified frame.
pub(super) struct FrameView<'a> {
    pub header: FrameHeader,
    pub records: &'a [u8],
    pub state: &'a [u8],
}

impl<'a> FrameScan<'a> {
    pub fn new(file: &'a dyn File, log_id: u64, end: u64, chunk_bytes: usize) -> Self {
        FrameScan { file, log_id, end, chunk_bytes, window: Vec::new(), window_at: 0 }
    }

    /// The frame that begins at `at`, checked; `Ok(Err(_))` says what does not hold.
    pub fn frame(&mut self, at: u64, number: u64) -> io::Result<Result<FrameView<'_>, &'static str>> {
        let header = match self.header(at)? {
            Ok(header) => header,
            Err(what) => return Ok(Err(what)),
        };
        if header.number != number {
            return Ok(Err("the frame is not the one that follows"));
        }
        let Some(body) = self.body(at, &header)? else {
            return Ok(Err("the frame's checksum does not match"));
        };
        let (records, rest) = body.split_at(header.records_len as usize);
        Ok(Ok(FrameView { header, records, state: &rest[..header.state_len as usize] }))
    }

    /// The header at `at`, if it verifies and its frame lies within the file.
    pub fn header(&mut self, at: u64) -> io::Result<Result<FrameHeader, &'static str>> {
        let log_id = self.log_id;
        let Some(bytes) = self.bytes(at, FRAME_HEADER_LEN as u64)? else {
            return Ok(Err("the frame header is cut short"));
        };
        let Some(header) = FrameHeader::decode(bytes, log_id) else {
            return Ok(Err("no frame header verifies here"));
        };
        if header.frame_len() > self.end - at {
            return Ok(Err("the frame runs past the end of the file"));
        }
        Ok(Ok(header))
    }

    /// What follows from `from` on, where frame `number` should be and is not. Stops at the first whole frame
    /// that vouches for `number`, that is a later one which was written when `number` was known durable.
    pub fn survey(&mut self, from: u64, number: u64) -> io::Result<Rest> {
        let mut rest = Rest::Zero;
        let mut at = from;
        while at < self.end {
            let (log_id, len) = (self.log_id, (self.end - at).min(self.chunk_bytes as u64));
            let Some(bytes) = self.bytes(at, len)? else { break };
            if is_zero(bytes) {
                at += len;
                continue;
            }
            rest = Rest::Unvouched;
            // A candidate's first eight bytes are the log's id, which nobody outside knows.
            let hit = bytes
                .chunks_exact(FRAME_ALIGN as usize)
                .position(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")) == log_id);
            let Some(hit) = hit else {
                at += len;
                continue;
            };
            at += hit as u64 * FRAME_ALIGN;
            if let Ok(header) = self.header(at)?
                && header.number > number
                && header.log_durable >= number
                && self.body(at, &header)?.is_some()
            {
                return Ok(Rest::Vouched { by: at });
            }
            at += FRAME_ALIGN;
        }
        Ok(rest)
    }

    fn body(&mut self, at: u64, header: &FrameHeader) -> io::Result<Option<&[u8]>> {
        let (body_at, body_len) =
            (at + FRAME_HEADER_LEN as u64, header.frame_len() - FRAME_HEADER_LEN as u64);
        let body = self.bytes(body_at, body_len)?;
        Ok(body.filter(|body| crc32c::crc32c(body) == header.body_crc))
    }

    /// `len` bytes at `at`, or `None` where the file ends before them.
    fn bytes(&mut self, at: u64, len: u64) -> io::Result<Option<&[u8]>> {
        if at > self.end || len > self.end - at {
            return Ok(None);
        }
        let held = self.window_at..self.window_at + self.window.len() as u64;
        if at < held.start || at + len > held.end {
            let fill = (self.end - at).min(len.max(self.chunk_bytes as u64));
            self.window.resize(fill as usize, 0);
            self.window_at = at;
            if let Err(error) = self.file.read_exact_at(&mut self.window, at) {
                self.window.clear();
                return Err(error);
            }
        }
        let from = (at - self.window_at) as usize;
        Ok(Some(&self.window[from..from + len as usize]))
    }
}

/// As fast as memory is read: a newest segment is mostly zeros, allocated ahead.
fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

fn put_u32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut [u8], at: usize, value: u64) {
    out[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
