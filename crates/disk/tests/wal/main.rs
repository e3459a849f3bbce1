//! The write-ahead log at its boundary: bytes on a simulated disk in, entries out.

mod crashes;
mod damage;
mod etcd;
mod faults;
mod fuzz;
mod golden;
mod operations;
mod real;
mod records;
mod release;
mod replay;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use disk::wal::{
    ConfState, Entry, EntryKind, EntryRef, Error, HardState, Limits, Opened, Position, Result,
    SnapshotRecord, Wal,
};
use disk::{Fs, MemFs};

const DIR: &str = "/data/wal";
const FIRST: &str = "/data/wal/0000000000000000-0000000000000000.wal";

/// A file system with the folder that the log's folder goes into.
fn machine() -> MemFs {
    let fs = MemFs::new();
    fs.create_dir_all(Path::new("/data"), 0o700).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

fn create(fs: &MemFs, metadata: &[u8]) -> Wal {
    Wal::create(Arc::new(fs.clone()), Path::new(DIR), metadata, Limits::tiny()).unwrap()
}

fn open(fs: &MemFs) -> Result<Opened> {
    Wal::open(Arc::new(fs.clone()), Path::new(DIR), Limits::tiny())
}

fn entry(term: u64, index: u64, data: impl Into<Bytes>) -> Entry {
    Entry { term, index, kind: EntryKind::Normal, data: data.into() }
}

fn state(term: u64, commit: u64) -> HardState {
    HardState { term, vote: 7, commit }
}

fn snapshot(term: u64, index: u64) -> SnapshotRecord {
    let conf_state = ConfState { voters: vec![7, u64::MAX], learners: vec![9], ..ConfState::default() };
    SnapshotRecord { index, term, conf_state: Some(conf_state) }
}

fn append(wal: &mut Wal, entries: &[Entry], state: Option<HardState>) {
    wal.append(entries.iter().map(Entry::as_ref), state).unwrap();
    wal.sync().unwrap();
}

/// Everything a reader gets from a log.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    metadata: Vec<u8>,
    state: Option<HardState>,
    snapshots: Vec<SnapshotRecord>,
    entries: Vec<Entry>,
    last: Position,
}

fn contents(opened: &Opened) -> Result<Contents> {
    Ok(Contents {
        metadata: opened.metadata().to_vec(),
        state: opened.hard_state(),
        snapshots: opened.snapshots().to_vec(),
        entries: opened.entries(0).collect::<Result<_>>()?,
        last: opened.last(),
    })
}

fn read(fs: &MemFs) -> Result<Contents> {
    contents(&open(fs)?)
}

/// Asserts that opening is refused as damage, and answers file name, offset and reason.
#[track_caller]
fn refused(fs: &MemFs) -> (String, u64, String) {
    match read(fs) {
        Err(Error::Damaged { file, offset, reason }) => {
            (file.file_name().unwrap().to_str().unwrap().to_owned(), offset, reason)
        }
        Err(other) => panic!("not refused as damage: {other}"),
        Ok(contents) => panic!("not refused: {contents:?}"),
    }
}

/// The same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
