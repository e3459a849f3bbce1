use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::format::{FRAME_ALIGN, FRAME_HEADER_LEN, FrameHeader, Records, SEGMENT_HEADER_LEN, push_record};
use super::format::{RECORD_HEADER_LEN, RecordHeader};
use super::tail::{FrameBuf, OpenFrame, Shared};
use super::{Applied, Error, Limits, Location};

/// Builds frames in memory; the apply thread's.
///
/// There is always one frame being built. [`FrameBuilder::push`] adds records to it,
/// [`FrameBuilder::finish`] closes it and begins the next. A record can be read through any
/// [`Reader`](super::Reader) as soon as `push` has returned.
pub struct FrameBuilder {
    shared: Arc<Shared>,
    limits: Limits,
    next: NextFrame,
    /// What the frame before this one reached.
    applied: Applied,
    record_count: u32,
    /// Main and sub revision of the last record.
    last_revision: (i64, i64),
    /// A record did not fit the segment's 4 GiB: the frame can't be finished.
    overflow: bool,
}

/// Where the frame being built will stand.
#[derive(Clone, Copy)]
pub(super) struct NextFrame {
    pub start: Location,
    pub number: u64,
    /// Where the first frame of its segment ends; 0 if it is that.
    pub opening_end: u64,
}

/// A segment that is longer than this, bytes, takes no more frames, however long its first one is: offsets have 32 bits.
const GROWN_BYTES_MAX: u64 = 1 << 31;

impl NextFrame {
    /// The frame behind `end`, in a segment whose first one ends at `opening_end`: in the same segment if a frame of the
    /// usual size still fits there. A segment takes at least as much behind its first frame as that takes: its whole state
    /// may be longer than a segment, and would else be written with every frame.
    pub fn after(end: Location, number: u64, opening_end: u64, limits: &Limits) -> NextFrame {
        let whole = u64::from(limits.segment_bytes).max((2 * opening_end).min(GROWN_BYTES_MAX));
        let room = whole.saturating_sub(u64::from(end.offset()));
        if room >= u64::from(limits.frame_bytes_target) {
            return NextFrame { start: end, number, opening_end };
        }
        let segment = end.segment().checked_add(1).expect("fewer than 2^32 segments");
        NextFrame { start: Location::new(segment, SEGMENT_HEADER_LEN as u32), number, opening_end: 0 }
    }

    fn opens_segment(&self) -> bool {
        self.start.offset() == SEGMENT_HEADER_LEN as u32
    }
}

impl OpenFrame {
    pub fn new(start: Location, mut bytes: Vec<u8>, last_revision: (i64, i64)) -> OpenFrame {
        bytes.resize(FRAME_HEADER_LEN, 0);
        OpenFrame { start, bytes, last_revision }
    }
}

/// A finished frame on its way to the [`Writer`](super::Writer).
pub struct Frame {
    pub(super) buf: Arc<FrameBuf>,
    pub(super) applied: Applied,
}

impl Frame {
    /// The last entry whose changes are in this frame. The frame may be given to the writer once the
    /// write-ahead log has synced this entry (rule 2).
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// Its number: all frames of the log are counted, from 1 on.
    pub fn number(&self) -> u64 {
        self.buf.number
    }

    /// Bytes that the frame takes in its segment.
    pub fn len(&self) -> u64 {
        self.buf.bytes.len() as u64
    }

    /// Never: a frame has at least its header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The frame's records in order, to be kept for as long as one likes: they share the frame's memory, or a copy of it
    /// where its buffer is much larger than they are.
    pub fn records(&self) -> impl Iterator<Item = (RecordHeader, Bytes)> {
        let end = FRAME_HEADER_LEN + self.buf.records_len;
        let records = &self.buf.bytes[FRAME_HEADER_LEN..end];
        let shared = if self.buf.bytes.capacity() <= 2 * end {
            Bytes::from_owner(FrameBytes(self.buf.clone())).slice(FRAME_HEADER_LEN..end)
        } else {
            Bytes::copy_from_slice(records)
        };
        // What was just built is whole.
        Records::new(records).map_while(Result::ok).map(move |record| {
            let payload = record.payload_at..record.payload_at + record.payload.len();
            (record.header, shared.slice(payload))
        })
    }
}

/// Keeps a frame as long as any of its records is kept.
struct FrameBytes(Arc<FrameBuf>);

impl AsRef<[u8]> for FrameBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl FrameBuilder {
    pub(super) fn new(
        shared: Arc<Shared>,
        limits: Limits,
        next: NextFrame,
        applied: Applied,
        last_revision: (i64, i64),
    ) -> FrameBuilder {
        FrameBuilder { shared, limits, next, applied, record_count: 0, last_revision, overflow: false }
    }

    /// Whether the frame being built is its segment's first. Its state must then be the whole small state
    /// (not only what changed), so that older segments can be merged away.
    pub fn starts_segment(&self) -> bool {
        self.next.opens_segment()
    }

    /// Adds a record and says where its payload is; log order is the order of the calls.
    ///
    /// # Panics
    /// If the payload is 4 GiB or longer, or if the revision is not above that of the record before.
    pub fn push(&mut self, header: RecordHeader, payload: &[u8]) -> Location {
        assert!(payload.len() <= u32::MAX as usize, "payload of {} bytes", payload.len());
        let (revision, last) = ((header.main, header.sub), self.last_revision);
        assert!(revision > last, "a record of revision {revision:?} after {last:?}");
        self.last_revision = revision;
        let mut open = self.shared.open_mut();
        let offset = u64::from(open.start.offset()) + (open.bytes.len() + RECORD_HEADER_LEN) as u64;
        // Room for the state is part of the bound, so that it can't be what breaks it in the end.
        if self.overflow || offset + payload.len() as u64 > u64::from(u32::MAX) {
            self.overflow = true;
            return Location(u64::MAX);
        }
        push_record(&mut open.bytes, header, payload);
        open.last_revision = revision;
        self.record_count += 1;
        Location::new(open.start.segment(), offset as u32)
    }

    /// Records in the frame being built.
    pub fn records(&self) -> u32 {
        self.record_count
    }

    /// Whether the frame being built is long enough: the caller ends its batch at the next entry. A longer one
    /// works, but outgrows what was allocated ahead.
    pub fn is_full(&self) -> bool {
        self.shared.open().bytes.len() >= self.limits.frame_bytes_target as usize / 2
    }

    /// Bytes of finished frames that the writer has not written yet; what back-pressure goes by.
    pub fn unwritten_bytes(&self) -> u64 {
        self.shared.tail().frame_bytes
    }

    /// Closes the frame: all of it is one transaction, after which `applied` is the last entry applied.
    /// `wal_durable` is the last index that the write-ahead log is known to have synced. `state` is the
    /// caller's own: the ConfState and what else changed, or all of it if [`FrameBuilder::starts_segment`].
    ///
    /// # Errors
    /// [`Error::FrameTooLarge`] if the frame runs past 4 GiB of its segment; the log can't go on then.
    ///
    /// # Panics
    /// If `applied` is behind what the frame before it reached, in index or term.
    pub fn finish(&mut self, applied: Applied, state: &[u8], wal_durable: u64) -> Result<Frame, Error> {
        let last = self.applied;
        assert!(applied.index >= last.index, "applied index {} after {}", applied.index, last.index);
        assert!(applied.term >= last.term, "applied term {} after {}", applied.term, last.term);
        // Readers may use the open frame meanwhile; only this thread changes it.
        let (records_crc, records_len) = {
            let open = self.shared.open();
            let records = &open.bytes[FRAME_HEADER_LEN..];
            (crc32c::crc32c(records), records.len())
        };
        let body_len = (records_len + state.len()).next_multiple_of(FRAME_ALIGN as usize);
        let end = u64::from(self.next.start.offset()) + (FRAME_HEADER_LEN + body_len) as u64;
        if self.overflow || end > u64::from(u32::MAX) {
            return Err(Error::FrameTooLarge { bytes: (FRAME_HEADER_LEN + body_len) as u64 });
        }
        let frame_end = Location::new(self.next.start.segment(), end as u32);
        let opening_end = if self.next.opens_segment() { end } else { self.next.opening_end };
        let following = NextFrame::after(frame_end, self.next.number + 1, opening_end, &self.limits);
        let spare = self.shared.take_buffer();

        let mut open = self.shared.open_mut();
        open.bytes.extend_from_slice(state);
        open.bytes.resize(FRAME_HEADER_LEN + body_len, 0);
        let header = FrameHeader {
            log_id: self.shared.log_id,
            number: self.next.number,
            applied_index: applied.index,
            applied_term: applied.term,
            wal_durable,
            log_durable: self.shared.durable.load(Ordering::Acquire),
            records_len: records_len as u32,
            state_len: state.len() as u32,
            record_count: self.record_count,
            full_state: self.next.opens_segment(),
            body_crc: crc32c::crc32c_append(records_crc, &open.bytes[FRAME_HEADER_LEN + records_len..]),
        };
        open.bytes[..FRAME_HEADER_LEN].copy_from_slice(&header.encode());

        let mut tail = self.shared.tail_mut();
        let finished =
            std::mem::replace(&mut *open, OpenFrame::new(following.start, spare, self.last_revision));
        let buf = Arc::new(FrameBuf {
            start: finished.start,
            number: self.next.number,
            records_len,
            bytes: finished.bytes,
        });
        tail.frame_bytes += buf.bytes.len() as u64;
        tail.frames.push_back(buf.clone());
        drop(tail);
        drop(open);

        self.next = following;
        self.applied = applied;
        self.record_count = 0;
        Ok(Frame { buf, applied })
    }
}
