//! Giving the log back from its beginning, and what is left then.

use disk::Access;

use super::*;

/// A log of entries 1 to `last`, some four to a segment, with a snapshot record at `at` behind them.
fn log(fs: &MemFs, last: u64, at: u64) -> Wal {
    let mut wal = create(fs, b"meta");
    for index in 1..=last {
        append(&mut wal, &[entry(1, index, vec![index as u8; 400])], Some(state(1, index)));
    }
    wal.append_snapshot(&snapshot(1, at), None).unwrap();
    wal.sync().unwrap();
    wal
}

/// The indexes in the names of the segments.
fn segments(fs: &MemFs) -> Vec<u64> {
    let names = fs.list(Path::new(DIR)).unwrap();
    let index = |name: &String| u64::from_str_radix(name.strip_suffix(".wal")?.split_once('-')?.1, 16).ok();
    names.iter().filter_map(index).collect()
}

#[test]
fn the_segment_with_the_entry_stays_and_all_behind_it() {
    let whole = machine();
    drop(log(&whole, 24, 24));
    let all = segments(&whole);
    assert_eq!(all, [0, 5, 9, 13, 17, 21]);
    for (index, keep, left) in [
        (24, 1, &all[5..]),
        (22, 1, &all[5..]),
        // As in etcd: the first entry of a segment is released with the next one.
        (21, 1, &all[4..]),
        (20, 1, &all[4..]),
        (24, 3, &all[3..]),
        (24, 5, &all[1..]),
        (24, 6, &all[..]),
        (24, 0, &all[..]),
        (6, 1, &all[1..]),
        (5, 1, &all[..]),
        (0, 1, &all[..]),
    ] {
        let fs = whole.copy();
        let mut wal = open(&fs).unwrap().into_writer().unwrap();
        let removed = wal.release(index, keep).map(|release| release.run().unwrap()).unwrap_or_default();
        assert_eq!(removed.len(), all.len() - left.len());
        assert_eq!(segments(&fs), left, "released to {index}, keeping {keep}");
        assert!(wal.release(index, keep).is_none(), "it is done once");
        // What was released is another's to lock.
        append(&mut wal, &[entry(1, 25, "next")], Some(state(1, 25)));
        drop(wal);
        let opened = open(&fs).unwrap();
        assert!(opened.first_index().unwrap() <= index.max(1), "released to {index}");
        assert_eq!(opened.last(), Position { term: 1, index: 25 });
        let after: Vec<u64> = opened.entries(index).map(|entry| entry.unwrap().index).collect();
        assert_eq!(after, (index + 1..=25).collect::<Vec<_>>());
    }
}

/// Whether a segment is locked, and with that open.
fn is_locked(fs: &MemFs, index: u64) -> bool {
    let name = fs
        .list(Path::new(DIR))
        .unwrap()
        .into_iter()
        .find(|name| name.ends_with(&format!("-{index:016x}.wal")));
    let file = fs.open(&Path::new(DIR).join(name.unwrap()), Access::ReadWrite).unwrap();
    file.lock().is_err()
}

#[test]
fn what_is_kept_and_not_needed_is_not_kept_open() {
    for keep in [0, 5, 100] {
        let fs = machine();
        let mut wal = log(&fs, 24, 24);
        let left: Vec<u64> = if keep == 5 { vec![5, 9, 13, 17, 21] } else { vec![0, 5, 9, 13, 17, 21] };
        drop(wal.release(14, keep).map(|release| release.run().unwrap()));
        assert_eq!(segments(&fs), left);
        let locked: Vec<u64> = left.iter().copied().filter(|index| is_locked(&fs, *index)).collect();
        assert_eq!(locked, [13, 17, 21], "keeping {keep}");
        // Removed later, without a lock of its own.
        drop(wal.release(22, 1).map(|release| release.run().unwrap()));
        assert_eq!(segments(&fs), [21]);
    }
}

/// Everything that a start asks of a log is there without its first segments, and writing goes on.
#[test]
fn a_log_without_its_beginning() {
    let fs = machine();
    let mut wal = log(&fs, 24, 22);
    wal.release(22, 1).unwrap().run().unwrap();
    drop(wal);
    for _ in 0..2 {
        let opened = open(&fs).unwrap();
        assert_eq!(opened.metadata(), b"meta");
        assert_eq!(opened.hard_state(), Some(state(1, 24)));
        assert_eq!(opened.snapshots(), [snapshot(1, 22)]);
        assert_eq!((opened.first_index(), opened.last().index), (Some(21), 24));
        drop(opened.into_writer().unwrap());
    }
}

#[test]
fn segments_are_removed_one_by_one_and_each_durably() {
    let fs = machine();
    let mut wal = log(&fs, 13, 13);
    fs.start_trace();
    wal.release(13, 1).unwrap().run().unwrap();
    expect_test::expect![[r#"
        remove /data/wal/0000000000000000-0000000000000000.wal
        sync-dir /data/wal
        remove /data/wal/0000000000000001-0000000000000005.wal
        sync-dir /data/wal
    "#]]
    .assert_eq(&fs.take_trace());
}

/// Killed or without power at any operation, what is left is a log that reaches as far, while writing goes on.
#[test]
fn a_crash_at_every_operation() {
    for operations in 0.. {
        let fs = machine();
        let mut wal = log(&fs, 24, 22);
        let release = wal.release(22, 2).unwrap();
        fs.halt_after(Some(operations));
        let released = release.run();
        fs.halt_after(None);
        for cut in 0..40 {
            let fs = if cut == 0 { fs.copy() } else { fs.crashed(cut) };
            let opened =
                open(&fs).unwrap_or_else(|error| panic!("{operations} operations, cut {cut}: {error}"));
            assert!(opened.first_index().unwrap() <= 22);
            assert_eq!((opened.last().index, opened.newest_snapshot().index), (24, 22));
            let mut wal = opened.into_writer().unwrap();
            drop(wal.release(22, 2).map(|release| release.run().unwrap()));
            assert_eq!(segments(&fs), [17, 21], "taken up again after {operations} operations");
        }
        if released.is_ok() {
            assert_eq!(operations, 8);
            break;
        }
    }
}

/// A segment in the middle is no beginning that was released.
#[test]
fn a_gap_is_damage() {
    let fs = machine();
    drop(log(&fs, 24, 22));
    let middle = Path::new(DIR).join("0000000000000002-0000000000000009.wal");
    fs.remove(&middle).unwrap();
    let (file, _, reason) = refused(&fs);
    assert_eq!(file, "0000000000000003-000000000000000d.wal");
    assert!(reason.contains("missing between"), "{reason}");
}

/// More was released than the log's own snapshot record allows.
#[test]
fn entries_that_no_snapshot_covers_are_missed() {
    let fs = machine();
    drop(log(&fs, 24, 10));
    for path in fs.files().into_iter().filter(|path| path.starts_with(DIR)).take(4) {
        fs.remove(&path).unwrap();
    }
    let (_, _, reason) = refused(&fs);
    assert_eq!(reason, "entries are missing between the newest snapshot and the first entry");
}
