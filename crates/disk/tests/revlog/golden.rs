//! Logs that earlier versions wrote open in every later one. `REVLOG_GOLDEN=write` writes the file of the
//! current version, if there is none yet: an existing one is never replaced.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::revlog::{Applied, Limits, Location};
use disk::{Fs, MemFs};

use crate::harness::{Log, open};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/revlog-1")
}

fn names() -> [&'static str; 2] {
    ["00000001.seg", "00000002.seg"]
}

/// Twelve frames of version 1 in two segments: what they hold is written out here, not computed by the code
/// under test.
#[test]
fn version_1() {
    if std::env::var("REVLOG_GOLDEN").is_ok_and(|value| value == "write") && !folder().exists() {
        write();
    }
    let fs = MemFs::new();
    fs.create_dir_all(Path::new("member/rev"), 0o700).unwrap();
    for name in names() {
        let bytes = std::fs::read(folder().join(name)).unwrap();
        fs.put(format!("member/rev/{name}"), &bytes).unwrap();
    }
    let shared: Arc<dyn Fs> = Arc::new(fs.clone());
    let (opened, seen) = open(&shared, &Limits::tiny()).unwrap();
    assert_eq!(opened.applied(), Applied { index: 24, term: 3 });
    assert_eq!(opened.first_applied(), Applied { index: 2, term: 1 });
    assert_eq!(opened.wal_durable(), 25);
    assert_eq!(opened.log_durable(), 11);
    assert_eq!(opened.torn(), None);
    assert_eq!(seen.batches.len(), 12);
    let first = &seen.batches[0];
    assert_eq!((first.full, &first.state[..]), (true, &b"state 1"[..]));
    assert_eq!(first.records[0].1, Location::new(1, 64 + 72 + 21));
    assert_eq!(first.records[1].1, Location::new(1, 64 + 72 + 21 + 80 + 21));
    for (at, batch) in seen.batches.iter().enumerate() {
        let number = at as u8 + 1;
        assert_eq!(batch.state, format!("state {number}").as_bytes());
        let mains: Vec<i64> = batch.records.iter().map(|record| record.0.main).collect();
        assert_eq!(mains, [i64::from(number) * 2, i64::from(number) * 2 + 1]);
        assert_eq!(batch.records[0].2, [number; 80]);
        assert!(batch.records[1].2.is_empty());
        assert!(batch.records.iter().all(|record| record.0.kind == 1 && record.0.sub == 0));
    }
    // And it goes on.
    let mut log = Log::open(fs, &Limits::tiny()).unwrap();
    log.push(b"more");
    log.finish(b"");
    log.write_all().unwrap();
    log.sync().unwrap();
    log.check();
}

fn write() {
    let fs = MemFs::new();
    let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    for number in 1..=12_u8 {
        log.push(&[number; 80]);
        log.push(&[]);
        log.finish(format!("state {number}").as_bytes());
        log.write_all().unwrap();
        log.sync().unwrap();
    }
    std::fs::create_dir_all(folder()).unwrap();
    for name in names() {
        std::fs::write(folder().join(name), fs.read(format!("member/rev/{name}")).unwrap()).unwrap();
    }
}
