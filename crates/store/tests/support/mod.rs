//! A revision log in memory, and shorthands, for the store's tests.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod fuzz;
pub mod model;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, RwLock};

use prost::Message as _;
use store::{
    Answer, Applied, Compaction, Compactor, Location, ReadError, ReadFailure, ReadMode, Reader, RecordKind,
    RecordSink, RecordSource, RecordVisitor, Revision, Settings, Store, request,
};
use wire::etcdserverpb as pb;

pub type Record = (RecordKind, Revision, Vec<u8>);

/// What is durable. A location is a record's place, times a stride so that no test takes it for one.
#[derive(Default)]
pub struct Log {
    pub records: RwLock<Vec<Record>>,
    /// Nothing is in memory: reads that must not wait give up.
    pub is_cold: AtomicBool,
    /// Every read fails.
    pub is_broken: AtomicBool,
    /// Scans find nothing below this revision.
    pub scans_from: AtomicI64,
}

const STRIDE: u64 = 1000;

fn copy(records: &[Record], at: Location, base: usize, out: &mut [u8]) -> Result<(), ReadError> {
    let place = (at.0 / STRIDE) as usize - base;
    let (_, _, bytes) = records.get(place).ok_or_else(|| ReadError(format!("nothing at {at:?}")))?;
    assert_eq!(bytes.len(), out.len(), "the length asked for at {at:?}");
    out.copy_from_slice(bytes);
    Ok(())
}

impl RecordSource for Log {
    fn read(&self, at: Location, out: &mut [u8]) -> Result<(), ReadError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(ReadError("broken".into()));
        }
        copy(&self.records.read().unwrap(), at, 0, out)
    }

    fn read_nowait(&self, at: Location, out: &mut [u8]) -> Result<bool, ReadError> {
        if self.is_cold.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.read(at, out).map(|()| true)
    }

    fn scan(&self, from: i64, visitor: &mut RecordVisitor<'_>) -> Result<(), ReadError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(ReadError("broken".into()));
        }
        for (kind, revision, bytes) in self.records.read().unwrap().iter() {
            if revision.main < from.max(self.scans_from.load(Ordering::Relaxed)) {
                continue;
            }
            if let ControlFlow::Break(()) = visitor(*kind, *revision, bytes) {
                break;
            }
        }
        Ok(())
    }
}

/// The records of the batch being applied.
pub struct Batch {
    pub log: Arc<Log>,
    base: usize,
    pub pending: Vec<Record>,
}

impl Batch {
    pub fn new(log: &Arc<Log>) -> Self {
        Batch { log: Arc::clone(log), base: log.records.read().unwrap().len(), pending: Vec::new() }
    }
}

impl RecordSink for Batch {
    fn push(&mut self, kind: RecordKind, revision: Revision, encoded: &[u8]) -> Location {
        let place = self.base + self.pending.len();
        self.pending.push((kind, revision, encoded.to_vec()));
        Location(place as u64 * STRIDE)
    }

    fn read(&self, at: Location, out: &mut [u8]) -> Result<(), ReadError> {
        if at.0 / STRIDE < self.base as u64 {
            self.log.read(at, out)
        } else {
            copy(&self.pending, at, self.base, out)
        }
    }
}

/// Versions that a compaction drops in one step.
const BATCH_LIMIT: usize = 20;

/// A store on a log in memory.
pub struct Member {
    pub log: Arc<Log>,
    pub store: Store,
    pub reader: Reader,
    pub batch: Batch,
    pub compactor: Compactor,
    /// What the frames hold of the small tables.
    pub tables: Vec<(Vec<u8>, bool)>,
    /// Applied, and not published yet.
    compactions: Vec<Compaction>,
    next_id: u64,
}

impl Member {
    pub fn new() -> Self {
        let log = Arc::new(Log::default());
        let store = Store::new(Arc::clone(&log) as Arc<dyn RecordSource>, Settings::default());
        let (reader, batch) = (store.reader(), Batch::new(&log));
        let compactor = store.compactor(BATCH_LIMIT);
        Member {
            log,
            store,
            reader,
            batch,
            compactor,
            tables: Vec::new(),
            compactions: Vec::new(),
            next_id: 1,
        }
    }

    /// Builds the store anew from log and tables, as a start does. What is not published yet is lost.
    pub fn restart(&mut self) {
        let mut store = Store::new(Arc::clone(&self.log) as Arc<dyn RecordSource>, Settings::default());
        for (place, (kind, revision, bytes)) in self.log.records.read().unwrap().iter().enumerate() {
            store.replay(*kind, *revision, Location(place as u64 * STRIDE), bytes).unwrap();
        }
        for (tables, whole) in &self.tables {
            store.restore_tables(tables, *whole).unwrap();
        }
        self.compactor = store.compactor(BATCH_LIMIT);
        if let Some(compaction) = store.end_restore() {
            self.compactor.push(compaction);
        }
        store.check();
        self.reader = store.reader();
        self.store = store;
        self.batch = Batch::new(&self.log);
    }

    /// Does the background work of compactions, to the end.
    pub fn finish_compactions(&mut self) {
        while !self.compactor.is_idle() {
            self.compactor.step().unwrap();
            self.store.check();
        }
    }

    /// Applies an `InternalRaftRequest` that is given an id; its header may name a caller.
    pub fn apply(&mut self, mut request: pb::InternalRaftRequest, want_answer: bool) -> Applied {
        request.header = Some(pb::RequestHeader { id: self.next_id, ..request.header.unwrap_or_default() });
        let data = request.encode_to_vec();
        let applied = self.store.apply(&data, want_answer, &mut self.batch).unwrap();
        assert_eq!(applied.id, self.next_id);
        self.next_id += 1;
        self.compactions.extend(applied.compaction);
        self.store.check();
        applied
    }

    /// Ends a batch; now and then with whole tables, as where a segment begins.
    pub fn publish(&mut self) {
        let whole = self.next_id.is_multiple_of(5);
        self.tables.extend(self.store.take_tables(whole).map(|tables| (tables, whole)));
        self.log.records.write().unwrap().append(&mut self.batch.pending);
        self.batch = Batch::new(&self.log);
        self.store.publish();
        for compaction in self.compactions.drain(..) {
            let _keeps_hash = self.compactor.push(compaction);
        }
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), wire::ApiError> {
        let compaction = Some(pb::CompactionRequest { revision, physical: false });
        let applied = self.apply(pb::InternalRaftRequest { compaction, ..Default::default() }, true);
        self.publish();
        applied.result.map(|_| ())
    }

    pub fn put(&mut self, key: &str, value: &str) -> i64 {
        let put = pb::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() };
        let applied = self.apply(pb::InternalRaftRequest { put: Some(put), ..Default::default() }, true);
        self.publish();
        applied.result.unwrap().revision
    }

    pub fn delete(&mut self, key: &str, end: &str) -> i64 {
        let delete = pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(end), prev_kv: false };
        let request = pb::InternalRaftRequest { delete_range: Some(delete), ..Default::default() };
        let applied = self.apply(request, true);
        self.publish();
        applied.result.unwrap().revision
    }

    pub fn txn(&mut self, txn: &pb::TxnRequest) -> Result<pb::TxnResponse, wire::ApiError> {
        let request = pb::InternalRaftRequest { txn: Some(txn.clone()), ..Default::default() };
        let applied = self.apply(request, true);
        self.publish();
        applied.result.map(|answer| response(&answer))
    }

    pub fn range(&self, range: &pb::RangeRequest) -> Result<pb::RangeResponse, ReadFailure> {
        let mut body = Vec::new();
        let revision = self.reader.range(&request::Range::from(range), ReadMode::NoWait, &mut body)?;
        Ok(response(&Answer { revision, body }))
    }
}

pub fn bytes(text: &str) -> prost::bytes::Bytes {
    prost::bytes::Bytes::copy_from_slice(text.as_bytes())
}

/// The response as a client decodes it: the header, then the body.
pub fn response<T: prost::Message + Default>(answer: &Answer) -> T {
    let header = pb::ResponseHeader { revision: answer.revision, ..Default::default() };
    let mut message = pb::PutResponse { header: Some(header), prev_kv: None }.encode_to_vec();
    message.extend_from_slice(&answer.body);
    T::decode(&message[..]).unwrap()
}
