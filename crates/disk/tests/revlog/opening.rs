//! What opening reports and refuses.

use std::path::Path;
use std::sync::Arc;

use disk::revlog::{self, Applied, Error, Limits, Location, RecordHeader, Replay, ReplayError};
use disk::{Fs, MemFs};

use crate::harness::{DIR, LOG_ID, Log, Rng, image, open, scan};

#[test]
fn an_empty_log() {
    let fs = MemFs::new();
    let shared: Arc<dyn Fs> = Arc::new(fs.clone());
    let (opened, seen) = open(&shared, &Limits::tiny()).unwrap();
    assert!(opened.is_empty() && seen.batches.is_empty());
    assert_eq!(opened.applied(), Applied::default());
    opened.require_applied(0).unwrap();
    let error = opened.require_applied(1).unwrap_err().to_string();
    assert!(error.contains(DIR), "{error}");
    assert_eq!(image(&fs), [], "opening writes nothing");
}

#[test]
fn progress_reaches_its_total() {
    let fs = MemFs::new();
    let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    let mut rng = Rng(3);
    for _ in 0..40 {
        log.random_frame(&mut rng);
    }
    log.write_all().unwrap();
    let shared: Arc<dyn Fs> = Arc::new(fs.clone());
    let (_, seen) = open(&shared, &Limits::tiny()).unwrap();
    let total: u64 = image(&fs)
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|extension| extension == "seg"))
        .map(|(_, bytes)| bytes.len() as u64)
        .sum();
    assert!(seen.progress.len() > 10);
    assert!(seen.progress.is_sorted(), "{:?}", seen.progress);
    assert!(seen.progress.iter().all(|step| step.1 == total));
    assert_eq!(seen.progress.last(), Some(&(total, total)));
}

/// `found-bugs.md`, 5: what is made of a database file cuts its frames where they are full.
#[test]
fn a_revision_whose_changes_are_in_several_frames_is_scanned_whole() {
    let fs = MemFs::new();
    let mut log = Log::open(fs.clone(), &Limits { mark_interval_bytes: 1, ..Limits::tiny() }).unwrap();
    for (main, sub) in (0..60).map(|change| (2 + change / 5, change % 5)) {
        log.builder.push(RecordHeader { kind: 1, main, sub }, b"payload");
        if (main + sub) % 3 == 0 {
            log.finish(b"");
        }
    }
    log.finish(b"");
    log.write_all().unwrap();
    let check = |log: &Log| {
        for from in 2..14 {
            let shown: Vec<_> =
                scan(&log.reader, from).iter().map(|(header, ..)| (header.main, header.sub)).collect();
            let expected: Vec<_> = (0..60).map(|change| (2 + change / 5, change % 5)).collect();
            assert_eq!(shown, expected[5 * (from as usize - 2)..], "from {from}");
        }
    };
    check(&log);
    drop(log);
    check(&Log::open(fs, &Limits { mark_interval_bytes: 1, ..Limits::tiny() }).unwrap());
}

/// A frame that begins a segment has the whole state. However long that is, others follow it in the segment.
#[test]
fn a_state_longer_than_a_segment_is_not_written_with_every_frame() {
    let fs = MemFs::new();
    let limits = Limits::tiny();
    let whole = vec![7; 3 * limits.segment_bytes as usize];
    let mut log = Log::open(fs.clone(), &limits).unwrap();
    for frame in 0..60 {
        if frame % 17 == 16 {
            drop(log);
            fs.kill();
            log = Log::open(fs.clone(), &limits).unwrap();
        }
        log.push(&[1; 60]);
        let state = if log.builder.starts_segment() { &whole[..] } else { b"little" };
        log.finish(state);
        log.write_all().unwrap();
        log.sync().unwrap();
    }
    log.check();
    let full = log.model.iter().filter(|batch| batch.full).count();
    assert!((2..6).contains(&full), "{full} of 60 frames have the whole state");
    let bytes = log.reader.space().bytes;
    let states = (full * whole.len()) as u64;
    assert!(bytes < 2 * states + u64::from(limits.segment_bytes), "{bytes} bytes, {states} of them state");
}

struct Refuse {
    record: Option<i64>,
    applied: Option<u64>,
}

impl Replay for Refuse {
    fn record(&mut self, header: RecordHeader, _: Location, _: &[u8]) -> Result<(), ReplayError> {
        if self.record == Some(header.main) { Err("no such kind".into()) } else { Ok(()) }
    }

    fn frame(&mut self, applied: Applied, _: &[u8], _: bool) -> Result<(), ReplayError> {
        if self.applied == Some(applied.index) { Err("no such state".into()) } else { Ok(()) }
    }
}

/// The owner of the payloads may refuse what it does not understand; the place is named.
#[test]
fn replay_refuses() {
    let fs = MemFs::new();
    let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    log.push(b"one");
    log.finish(b"");
    let at = log.push(b"two");
    log.finish(b"");
    log.write_all().unwrap();
    let before = image(&fs);
    let refusal = |mut refuse: Refuse| {
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        match revlog::open(shared, Path::new(DIR), Limits::tiny(), LOG_ID, &mut refuse) {
            Err(error @ Error::Replay { .. }) => error.to_string(),
            other => panic!("{:?}", other.map(drop)),
        }
    };
    let error = refusal(Refuse { record: Some(3), applied: None });
    assert_eq!(error, format!("member/rev/00000001.seg at offset {}: no such kind", at.offset()));
    let error = refusal(Refuse { record: None, applied: Some(4) });
    assert_eq!(error, "member/rev/00000001.seg at offset 160: no such state");
    assert_eq!(before, image(&fs));
}

/// A format that this version does not know is refused by name, not taken for damage.
#[test]
fn later_formats_are_refused() {
    for (field, what) in [(8, "format version 2, this program reads 1"), (12, "segment kind 2")] {
        let fs = MemFs::new();
        let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
        log.finish(b"");
        log.write_all().unwrap();
        let path = "member/rev/00000001.seg";
        let mut bytes = fs.read(path).unwrap();
        bytes[field] = 2;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        fs.put(path, &bytes).unwrap();
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        let error = open(&shared, &Limits::tiny()).map(drop).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert_eq!(error.to_string(), format!("{path}: offset {field}: {what}"));
    }
}

/// The caller ends its batch when the frame is long enough, and sees what the writer still has to do.
#[test]
fn the_builder_says_when_a_frame_is_full() {
    let fs = MemFs::new();
    let mut log = Log::open(fs, &Limits::tiny()).unwrap();
    assert!(!log.builder.is_full());
    log.push(&[1; 200]);
    assert!(log.builder.is_full());
    assert_eq!(log.builder.records(), 1);
    log.finish(b"");
    assert!(!log.builder.is_full());
    assert_eq!(log.builder.records(), 0);
    assert_eq!(log.builder.unwritten_bytes(), 296);
    assert_eq!(log.reader.unwritten_bytes(), 296);
    log.write_all().unwrap();
    assert_eq!(log.builder.unwritten_bytes(), 0);
    assert_eq!(log.reader.written_bytes(), 64 + 296);
}

/// A frame that a later start would refuse is never built: rule 8, the applied index only grows.
#[test]
#[should_panic(expected = "applied index 1 after 2")]
fn applied_never_steps_back() {
    let fs = MemFs::new();
    let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    log.finish(b"");
    log.write_all().unwrap();
    fs.kill();
    let mut log = Log::open(fs, &Limits::tiny()).unwrap();
    let _ = log.builder.finish(Applied { index: 1, term: 1 }, b"", 1);
}
