//! Random runs against the model: pushes, batches, late writes, syncs, kills; after each step every read and
//! scan agrees.

use disk::MemFs;
use disk::revlog::{Error, Limits, Location};

use crate::harness::{Log, Rng, scan, seeds};

#[test]
fn random_runs() {
    for seed in seeds(60) {
        let fs = MemFs::new();
        let mut rng = Rng(seed);
        let limits = Limits {
            segment_bytes: 600 + rng.below(8) as u32 * 512,
            frame_bytes_target: 160 + rng.below(300) as u32,
            spare_segments: rng.below(3) as u32,
            dirty_bytes_max: rng.below(4000),
            read_chunk_bytes: 128 + rng.below(40) as u32 * 8,
            mark_interval_bytes: 1 + rng.below(1000) as u32,
            ..Limits::tiny()
        };
        let mut log = Log::open(fs.clone(), &limits).unwrap();
        for step in 0..80 {
            match rng.below(10) {
                0..=3 => log.random_frame(&mut rng),
                4 => {
                    let len = rng.below(100) as usize;
                    let payload = rng.bytes(len);
                    log.push(&payload);
                }
                5..=7 => log.write().unwrap(),
                8 => drop(log.sync().unwrap()),
                _ => {
                    // A kill: what was not written is gone, all else is there.
                    let written = log.writer.written().frame as usize;
                    let mut model = log.model.clone();
                    model.truncate(written);
                    drop(log);
                    fs.kill();
                    log = Log::open(fs.clone(), &limits).unwrap();
                    assert_eq!(log.model, model, "seed {seed}, step {step}");
                }
            }
            log.check();
        }
        check_ranges(&log, &mut rng);
    }
}

fn check_ranges(log: &Log, rng: &mut Rng) {
    let records: Vec<_> = log.records().cloned().collect();
    if records.is_empty() {
        return;
    }
    for _ in 0..20 {
        let main = records[rng.below(records.len() as u64) as usize].0.main;
        // Also where no record has the revision.
        let from = main + rng.below(3) as i64 - 1;
        let expected: Vec<_> = records.iter().filter(|record| record.0.main >= from).cloned().collect();
        assert_eq!(scan(&log.reader, from), expected, "from {from}");
    }
}

#[test]
fn reads_of_what_is_not_there() {
    let fs = MemFs::new();
    let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    let at = log.push(b"0123456789");
    let missing = |log: &Log, at: Location, len| {
        let error = log.reader.read(at, &mut vec![0; len]).unwrap_err();
        assert!(matches!(error, Error::NoSuchRecord { .. }), "{at} +{len}: {error}");
    };
    let everywhere = |log: &Log| {
        missing(log, at, 2000);
        missing(log, Location(0), 1);
        missing(log, Location(u64::MAX), 1);
        missing(log, Location::new(1, 64), 1 << 20);
        missing(log, Location::new(1, 1000), 1);
        missing(log, Location::new(2, 100), 1);
    };
    everywhere(&log);
    log.finish(b"");
    everywhere(&log);
    log.write_all().unwrap();
    everywhere(&log);

    // A cold file is said to be cold; what is in memory never is.
    fs.set_cold(true);
    let in_memory = log.push(b"abc");
    let mut out = [0; 10];
    assert!(!log.reader.read_nowait(at, &mut out).unwrap());
    assert!(log.reader.read_nowait(in_memory, &mut out[..3]).unwrap());
    assert_eq!(&out[..3], b"abc");
    fs.set_cold(false);
    assert!(log.reader.read_nowait(at, &mut out).unwrap());
    assert_eq!(&out, b"0123456789");
}

/// An empty record that ends its frame is located where the next frame begins (found by seed 1195).
#[test]
fn empty_record_at_the_end_of_a_frame() {
    let fs = MemFs::new();
    let mut log = Log::open(fs, &Limits::tiny()).unwrap();
    log.push(&[1; 6]);
    let at = log.push(b"");
    log.finish(b"");
    assert_eq!(at, Location::new(1, 64 + log.queue[0].len() as u32));
    log.push(b"next");
    log.finish(b"");
    for _ in 0..3 {
        log.check();
        assert_eq!(scan(&log.reader, log.main).len(), 1);
        log.write().unwrap();
    }
}
