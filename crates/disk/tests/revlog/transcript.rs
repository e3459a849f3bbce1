use disk::MemFs;
use disk::revlog::Limits;
use expect_test::expect;

use crate::harness::Log;

/// Which operation makes what durable, in the order in which it happens.
#[test]
fn file_operations() {
    let fs = MemFs::new();
    fs.start_trace();
    let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    expect![[r#"
        mkdir member
        sync-dir .
        mkdir member/rev
        sync-dir member
        sync-dir member/rev
        create member/rev/spare-1.tmp
        allocate member/rev/spare-1.tmp 2048
        create member/rev/spare-2.tmp
        allocate member/rev/spare-2.tmp 2048
    "#]]
    .assert_eq(&fs.take_trace());

    // The first frame begins the first segment; a segment has its name only when its header is durable.
    log.push(&[1; 100]);
    log.finish(b"all of the state");
    log.write_all().unwrap();
    expect![[r#"
        write member/rev/spare-1.tmp @0 +64
        sync member/rev/spare-1.tmp
        rename member/rev/spare-1.tmp -> member/rev/00000001.seg
        sync-dir member/rev
        create member/rev/spare-3.tmp
        allocate member/rev/spare-3.tmp 2048
        write member/rev/00000001.seg @64 +216
    "#]]
    .assert_eq(&fs.take_trace());

    // Small frames are appended and wait for the sync.
    for _ in 0..2 {
        log.push(&[2; 100]);
        log.finish(b"");
    }
    log.write_all().unwrap();
    log.sync().unwrap();
    // Nothing to do, nothing done.
    log.sync().unwrap();
    expect![[r#"
        write member/rev/00000001.seg @280 +200
        write member/rev/00000001.seg @480 +200
        sync member/rev/00000001.seg
    "#]]
    .assert_eq(&fs.take_trace());

    // Too much that is dirty is synced without being asked.
    for _ in 0..2 {
        log.push(&[3; 500]);
        log.finish(b"");
    }
    log.write_all().unwrap();
    expect![[r#"
        write member/rev/00000001.seg @680 +600
        sync member/rev/00000001.seg
        write member/rev/00000001.seg @1280 +600
    "#]]
    .assert_eq(&fs.take_trace());

    // The roll: the old segment is whole and durable before the next one exists.
    log.push(&[4; 100]);
    assert!(log.builder.starts_segment());
    log.finish(b"all of the state");
    log.write_all().unwrap();
    expect![[r#"
        set-len member/rev/00000001.seg 1880
        sync member/rev/00000001.seg
        write member/rev/spare-2.tmp @0 +64
        sync member/rev/spare-2.tmp
        rename member/rev/spare-2.tmp -> member/rev/00000002.seg
        sync-dir member/rev
        create member/rev/spare-4.tmp
        allocate member/rev/spare-4.tmp 2048
        write member/rev/00000002.seg @64 +216
    "#]]
    .assert_eq(&fs.take_trace());

    // A frame that outgrows its segment gets its space before it is written.
    log.push(&[5; 3000]);
    log.finish(b"");
    log.write_all().unwrap();
    expect![[r#"
        allocate member/rev/00000002.seg 3376
        sync member/rev/00000002.seg
        write member/rev/00000002.seg @280 +3096
    "#]]
    .assert_eq(&fs.take_trace());

    // A start after a kill: leftovers go, what was only written is synced before anything vouches for it.
    fs.kill();
    let log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    assert_eq!(log.model.len(), 7);
    expect![[r#"
        sync-dir member
        allocate member/rev/00000002.seg 3376
        sync member/rev/00000002.seg
        sync-dir member/rev
        allocate member/rev/spare-3.tmp 2048
        allocate member/rev/spare-4.tmp 2048
    "#]]
    .assert_eq(&fs.take_trace());
}

/// A torn tail is cut and the cut made durable before the first append.
#[test]
fn torn_tail_operations() {
    let fs = MemFs::new();
    let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    for _ in 0..2 {
        log.push(&[1; 100]);
        log.finish(b"");
    }
    log.write_all().unwrap();
    log.sync().unwrap();
    fs.flip("member/rev/00000001.seg", 64 + 208 + 100, 1).unwrap();
    fs.kill();
    fs.start_trace();
    let log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    assert_eq!(log.model.len(), 1);
    expect![[r#"
        sync-dir member
        set-len member/rev/00000001.seg 264
        allocate member/rev/00000001.seg 2048
        sync member/rev/00000001.seg
        sync-dir member/rev
        allocate member/rev/spare-2.tmp 2048
        allocate member/rev/spare-3.tmp 2048
    "#]]
    .assert_eq(&fs.take_trace());
}
