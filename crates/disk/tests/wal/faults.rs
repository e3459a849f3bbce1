//! Rule 7: after a failed write or sync nothing more is acknowledged; a full disk is seen ahead.

use std::io::ErrorKind;

use disk::{Fault, FaultFs, Operation};

use super::*;

fn faulty() -> (MemFs, FaultFs, Wal) {
    let memory = machine();
    let fs = FaultFs::new(Arc::new(memory.clone()));
    let wal = Wal::create(Arc::new(fs.clone()), Path::new(DIR), b"m", Limits::tiny()).unwrap();
    (memory, fs, wal)
}

#[test]
fn a_failed_sync_or_write_latches() {
    for operation in [Operation::Sync, Operation::Write] {
        let (memory, fs, mut wal) = faulty();
        append(&mut wal, &[entry(1, 1, "a")], None);
        fs.add(Fault { partial_bytes: 11, ..Fault::once(operation) });
        wal.append([entry(1, 2, "b").as_ref()], None).unwrap();
        let error = wal.sync().unwrap_err();
        assert!(error.to_string().contains("0000000000000000-0000000000000000.wal"), "{error}");
        assert_eq!(wal.durable(), Position { term: 1, index: 1 });
        // The disk works again, but what it did in between is not known.
        assert!(matches!(wal.sync(), Err(Error::Failed(_))));
        assert!(matches!(wal.append([entry(1, 3, "c").as_ref()], None), Err(Error::Failed(_))));
        assert!(matches!(wal.append_snapshot(&snapshot(1, 0), None), Err(Error::Failed(_))));
        assert_eq!(wal.durable(), Position { term: 1, index: 1 });
        drop(wal);
        let _ = memory;
    }
}

#[test]
fn every_failing_operation_of_a_roll_latches() {
    let operations = [
        Operation::Create,
        Operation::Allocate,
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
        Operation::SyncDir,
    ];
    for operation in operations {
        let (memory, fs, mut wal) = faulty();
        append(&mut wal, &[entry(1, 1, vec![1; 1500])], Some(state(1, 1)));
        fs.add(Fault::once(operation));
        let error = wal.append([entry(1, 2, vec![2; 1500]).as_ref()], None).unwrap_err();
        assert!(!matches!(error, Error::Failed(_)), "{operation:?}");
        assert!(matches!(wal.sync(), Err(Error::Failed(_))), "{operation:?}");
        drop(wal);
        memory.power_cut(3);
        let contents = read(&memory).unwrap();
        assert_eq!(contents.entries, [entry(1, 1, vec![1; 1500])], "{operation:?}");
    }
}

#[test]
fn a_full_disk_is_seen_ahead() {
    let (memory, _, mut wal) = faulty();
    memory.set_capacity(Some(memory.used() + 100));
    let error = wal.prepare_next().unwrap_err();
    assert!(error.is_storage_full(), "{error}");
    assert_eq!(memory.files().len(), 1, "a segment that has no room leaves nothing behind");
    // Within the room that is left the log works on.
    let room = wal.room_bytes();
    append(&mut wal, &[entry(1, 1, vec![1; room as usize - 100])], Some(state(1, 1)));
    assert!(wal.room_bytes() < 100);
    memory.set_capacity(None);
    wal.prepare_next().unwrap();
    wal.prepare_next().unwrap();
    assert!(wal.next_room_bytes() > 1000 && wal.next_room_bytes() < Limits::tiny().segment_bytes);
    append(&mut wal, &[entry(1, 2, vec![2; 1000])], None);
    assert_eq!(memory.files().len(), 2);
}

#[test]
fn a_segment_can_be_prepared_on_another_thread() {
    let (memory, _, mut wal) = faulty();
    let preparation = wal.preparation(0).unwrap();
    let prepared = std::thread::spawn(move || preparation.run()).join().unwrap().unwrap();
    wal.adopt(prepared);
    assert!(wal.preparation(0).is_none());
    append(&mut wal, &[entry(1, 1, vec![1; 1500]), entry(1, 2, vec![1; 1500])], None);
    drop(wal);
    assert_eq!(read(&memory).unwrap().entries.len(), 2);
}

#[test]
fn a_failed_read_is_no_damage() {
    let (_, fs, wal) = faulty();
    drop(wal);
    fs.add(Fault { error: ErrorKind::Other, ..Fault::once(Operation::Read) });
    let opened = Wal::open(Arc::new(fs), Path::new(DIR), Limits::tiny());
    assert!(matches!(opened, Err(Error::Io { operation: "read wal segment", .. })));
}

#[test]
fn what_a_crash_left_unfinished_goes() {
    let fs = machine();
    drop(create(&fs, b"m"));
    for name in ["next.tmp", "0.tmp"] {
        fs.put(Path::new(DIR).join(name), b"leftover").unwrap();
    }
    let opened = open(&fs).unwrap();
    assert_eq!(fs.files().len(), 3, "opening changed something");
    drop(opened.into_writer().unwrap());
    assert_eq!(fs.files().len(), 1);
}

/// What a failed sync has not brought to the disk may still be in the cache, clean, and no later sync writes it.
#[test]
fn a_start_does_not_believe_what_only_the_cache_has() {
    let mut kept = 0;
    for seed in 0..60 {
        let fs = machine();
        let mut wal = create(&fs, b"m");
        append(&mut wal, &[entry(1, 1, vec![1; 300])], Some(state(1, 1)));
        wal.append([entry(1, 2, vec![2; 900]).as_ref()], None).unwrap();
        fs.fail_sync(seed);
        wal.sync().unwrap_err();
        drop(wal);
        fs.kill();
        let opened = open(&fs).unwrap();
        let found = contents(&opened).unwrap();
        kept += found.entries.len() - 1;
        drop(opened.into_writer().unwrap());
        fs.power_cut(seed);
        assert_eq!(read(&fs).unwrap(), found, "seed {seed}");
    }
    assert!(kept > 0 && kept < 60, "{kept} of 60 reached the disk");
}
