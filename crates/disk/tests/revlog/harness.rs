//! A log beside a model of what it must hold.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use disk::revlog::{
    self, Applied, Durable, Error, Frame, FrameBuilder, Limits, Location, Opened, Reader, RecordHeader,
    Replay, ReplayError, Writer,
};
use disk::{Fs, MemFs};

pub const DIR: &str = "member/rev";
pub const LOG_ID: u64 = 0x5eed_1dea_0bad_cafe;

pub type Record = (RecordHeader, Location, Vec<u8>);

/// One frame as the model has it, and as a replay hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub applied: Applied,
    pub state: Vec<u8>,
    pub full: bool,
    pub records: Vec<Record>,
}

#[derive(Default)]
pub struct Collect {
    pub batches: Vec<Batch>,
    pending: Vec<Record>,
    pub progress: Vec<(u64, u64)>,
}

impl Replay for Collect {
    fn record(&mut self, header: RecordHeader, at: Location, payload: &[u8]) -> Result<(), ReplayError> {
        self.pending.push((header, at, payload.to_vec()));
        Ok(())
    }

    fn frame(&mut self, applied: Applied, state: &[u8], full: bool) -> Result<(), ReplayError> {
        let records = std::mem::take(&mut self.pending);
        self.batches.push(Batch { applied, state: state.to_vec(), full, records });
        Ok(())
    }

    fn progress(&mut self, done: u64, total: u64) {
        self.progress.push((done, total));
    }
}

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        // Never a zero byte, so that a sector of a payload can't be mistaken for one never written.
        (0..len).map(|_| (self.next() % 255) as u8 + 1).collect()
    }
}

/// The seeds of a test: `REVLOG_SEEDS=from..to`, or the first `count`. Each is printed as it begins, so the last
/// one that a failed test shows is the one to run again.
pub fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let given = std::env::var("REVLOG_SEEDS").unwrap_or_else(|_| format!("0..{count}"));
    let (from, to) = given.split_once("..").expect("REVLOG_SEEDS=from..to");
    let seeds = from.parse().expect("a number")..to.parse().expect("a number");
    seeds.inspect(|seed: &u64| println!("REVLOG_SEEDS={seed}..{}", seed + 1))
}

pub fn open(fs: &Arc<dyn Fs>, limits: &Limits) -> Result<(Opened, Collect), Error> {
    open_in(fs, DIR.as_ref(), limits)
}

pub fn open_in(fs: &Arc<dyn Fs>, dir: &Path, limits: &Limits) -> Result<(Opened, Collect), Error> {
    let mut collect = Collect::default();
    let opened = revlog::open(fs.clone(), dir, limits.clone(), LOG_ID, &mut collect)?;
    Ok((opened, collect))
}

pub struct Log {
    pub builder: FrameBuilder,
    pub writer: Writer,
    pub reader: Reader,
    /// Finished, not written.
    pub queue: VecDeque<Frame>,
    /// Every frame finished, in order.
    pub model: Vec<Batch>,
    /// Records pushed to the frame that is being built.
    pub pending: Vec<Record>,
    pub main: i64,
}

impl Log {
    pub fn open(fs: impl Fs, limits: &Limits) -> Result<Log, Error> {
        let fs: Arc<dyn Fs> = Arc::new(fs);
        let (opened, collect) = open(&fs, limits)?;
        let (builder, writer, reader) = opened.into_parts()?;
        let main = collect.batches.iter().flat_map(|batch| &batch.records).map(|record| record.0.main).max();
        Ok(Log {
            builder,
            writer,
            reader,
            queue: VecDeque::new(),
            model: collect.batches,
            pending: Vec::new(),
            main: main.unwrap_or(1),
        })
    }

    pub fn push(&mut self, payload: &[u8]) -> Location {
        self.main += 1;
        let header = RecordHeader { kind: 1, main: self.main, sub: 0 };
        let at = self.builder.push(header, payload);
        self.pending.push((header, at, payload.to_vec()));
        at
    }

    pub fn finish(&mut self, state: &[u8]) {
        let index = self.model.last().map_or(0, |batch| batch.applied.index) + 2;
        let applied = Applied { index, term: 1 + index / 10 };
        let full = self.builder.starts_segment();
        let frame = self.builder.finish(applied, state, index + 1).expect("finish");
        assert_eq!(frame.applied(), applied);
        self.queue.push_back(frame);
        let records = std::mem::take(&mut self.pending);
        self.model.push(Batch { applied, state: state.to_vec(), full, records });
    }

    /// Writes the oldest finished frame.
    pub fn write(&mut self) -> Result<(), Error> {
        match self.queue.pop_front() {
            Some(frame) => self.writer.write(frame),
            None => Ok(()),
        }
    }

    pub fn write_all(&mut self) -> Result<(), Error> {
        while !self.queue.is_empty() {
            self.write()?;
        }
        Ok(())
    }

    pub fn sync(&mut self) -> Result<Durable, Error> {
        self.writer.sync()
    }

    /// A frame of random records and state.
    pub fn random_frame(&mut self, rng: &mut Rng) {
        for _ in 0..rng.below(5) {
            let len = match rng.below(20) {
                0 => 2500,
                1 => 0,
                _ => rng.below(150) as usize,
            };
            let payload = rng.bytes(len);
            self.push(&payload);
        }
        let state = {
            let len = rng.below(20) as usize;
            rng.bytes(len)
        };
        self.finish(&state);
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.model.iter().flat_map(|batch| &batch.records).chain(&self.pending)
    }

    /// Compares every read and a scan with the model.
    pub fn check(&self) {
        self.reader.check();
        for (_, at, payload) in self.records() {
            let mut out = vec![0; payload.len()];
            self.reader.read(*at, &mut out).expect("read");
            assert_eq!(&out, payload, "payload at {at}");
        }
        let scanned = scan(&self.reader, 0);
        assert!(scanned.iter().eq(self.records()), "a scan shows all records in order");
    }
}

pub fn scan(reader: &Reader, from: i64) -> Vec<Record> {
    let mut scanned = Vec::new();
    reader
        .scan(from, |header, at, payload| {
            scanned.push((header, at, payload.to_vec()));
            ControlFlow::Continue(())
        })
        .expect("scan");
    scanned
}

/// The bytes of every file, to see whether anything was changed.
pub fn image(fs: &MemFs) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    fs.files().into_iter().map(|path| (path.clone(), fs.read(&path).expect("a file"))).collect()
}
