//! Readers in threads while frames are built, written and synced: every location that was published reads
//! back, wherever its record is at that moment.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, RwLock};
use std::thread;

use disk::revlog::{Applied, Frame, Limits, Location, RecordHeader};
use disk::{Fs, MemFs, RealFs};

use crate::harness::{DIR, Rng, open_in, scan};

/// The payload of a record follows from its number.
fn payload(number: u64) -> Vec<u8> {
    Rng(number).bytes(8 + (number % 300) as usize)
}

fn run(fs: Arc<dyn Fs>, dir: &Path, limits: &Limits, batches: u64) {
    let (opened, _) = open_in(&fs, dir, limits).unwrap();
    let (mut builder, mut writer, reader) = opened.into_parts().unwrap();
    let published: Arc<RwLock<Vec<Location>>> = Arc::default();
    let done = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));

    let readers: Vec<_> = (0..3)
        .map(|seed| {
            let (reader, published, done, reads) =
                (reader.clone(), published.clone(), done.clone(), reads.clone());
            thread::spawn(move || {
                let mut rng = Rng(seed);
                loop {
                    let last = done.load(Ordering::Acquire);
                    let count = published.read().unwrap().len() as u64;
                    for _ in 0..if count > 0 { 100 } else { 0 } {
                        // Half of the reads go to the newest records, which are on the move.
                        let number = match rng.below(2) {
                            0 => rng.below(count),
                            _ => count - 1 - rng.below(count.min(20)),
                        };
                        let at = published.read().unwrap()[number as usize];
                        let expected = payload(number);
                        let mut out = vec![0; expected.len()];
                        reader.read(at, &mut out).unwrap();
                        assert_eq!(out, expected, "record {number} at {at}");
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                    if rng.below(20) == 0 {
                        let seen = scan(&reader, 0);
                        assert!(seen.len() as u64 >= count, "{} of {count}", seen.len());
                        let ascend = seen.iter().enumerate().all(|(at, record)| record.0.main == at as i64);
                        assert!(ascend, "each record once, in order");
                    }
                    if last {
                        return;
                    }
                }
            })
        })
        .collect();

    let (frames, written) = sync_channel::<Frame>(8);
    let log = thread::spawn(move || {
        for frame in written {
            writer.write(frame).unwrap();
            if writer.written().frame % 5 == 0 {
                writer.sync().unwrap();
            }
        }
        writer.sync().unwrap()
    });
    let mut number = 0;
    for batch in 1..=batches {
        for _ in 0..batch % 4 {
            let header = RecordHeader { kind: 0, main: number as i64, sub: 0 };
            let at = builder.push(header, &payload(number));
            published.write().unwrap().push(at);
            number += 1;
        }
        frames.send(builder.finish(Applied { index: batch, term: 1 }, b"", batch).unwrap()).unwrap();
    }
    drop(frames);
    let durable = log.join().unwrap();
    done.store(true, Ordering::Release);
    for reader in readers {
        reader.join().unwrap();
    }
    assert_eq!((durable.frame, durable.applied.index), (batches, batches));
    assert!(reads.load(Ordering::Relaxed) > 0);
    reader.check();
}

#[test]
fn in_memory() {
    run(Arc::new(MemFs::new()), DIR.as_ref(), &Limits::tiny(), 1500);
}

#[test]
fn on_a_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("rev");
    let limits = Limits { segment_bytes: 64 << 10, frame_bytes_target: 4096, ..Limits::tiny() };
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    run(fs.clone(), &dir, &limits, 800);
    let (opened, seen) = open_in(&fs, &dir, &limits).unwrap();
    assert_eq!(opened.applied().index, 800);
    let records: Vec<_> = seen.batches.iter().flat_map(|batch| &batch.records).collect();
    assert!(records.iter().enumerate().all(|(number, record)| record.2 == payload(number as u64)));
}
