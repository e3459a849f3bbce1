//! Rule 7: a full disk is seen while there is still room, and goes away again.

use disk::MemFs;
use disk::revlog::Limits;

use crate::harness::Log;

#[test]
fn full_disk_is_seen_ahead() {
    let limits = Limits::tiny();
    let segment = u64::from(limits.segment_bytes);
    let fs = MemFs::new();
    // One segment to write, two ahead, one more, and not the one after.
    fs.set_capacity(Some(4 * segment));
    let mut log = Log::open(fs.clone(), &limits).unwrap();
    let mut after = 0;
    while after < 10 {
        assert_eq!(log.writer.has_room(), after == 0, "frame {}", log.model.len());
        log.push(&[1; 300]);
        log.finish(b"");
        log.write_all().unwrap();
        log.sync().unwrap();
        after += u32::from(!log.writer.has_room());
    }
    log.check();
    fs.set_capacity(None);
    log.sync().unwrap();
    assert!(log.writer.has_room());

    // On to a segment that was allocated whole.
    for _ in 0..5 {
        log.push(&[1; 300]);
        log.finish(b"");
        log.write_all().unwrap();
        log.sync().unwrap();
    }

    // Started again on a disk that others have filled, the reserve is still there.
    let model = log.model.clone();
    drop(log);
    fs.kill();
    fs.set_capacity(Some(fs.used()));
    let mut log = Log::open(fs.clone(), &limits).unwrap();
    assert_eq!(log.model, model);
    assert!(log.writer.has_room());
    for _ in 0..8 {
        log.push(&[1; 300]);
        log.finish(b"");
        log.write_all().unwrap();
        log.sync().unwrap();
    }
    assert!(!log.writer.has_room());
    log.check();
}

/// A frame larger than its segment takes the spares rather than fail.
#[test]
fn large_frame_takes_the_reserve() {
    let limits = Limits::tiny();
    let segment = u64::from(limits.segment_bytes);
    let fs = MemFs::new();
    fs.set_capacity(Some(3 * segment));
    let mut log = Log::open(fs.clone(), &limits).unwrap();
    log.push(&[1; 100]);
    log.finish(b"");
    log.write_all().unwrap();
    assert!(log.writer.has_room());
    log.push(&[1; 3000]);
    log.finish(b"");
    log.write_all().unwrap();
    log.sync().unwrap();
    assert!(!log.writer.has_room());
    log.check();
}
