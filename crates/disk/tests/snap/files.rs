//! How files come and go: operation by operation, with crashes at each, on a full disk, and by number.

use disk::{Fault, FaultFs, Operation};

use super::*;

#[test]
fn a_file_is_written_synced_renamed_and_its_name_synced() {
    let fs = machine();
    fs.start_trace();
    folder(&fs).write(&snapshot(2, 300)).unwrap().unwrap();
    expect_test::expect![[r#"
        create /member/snap/tmp-0000000000000002-000000000000012c
        allocate /member/snap/tmp-0000000000000002-000000000000012c 48
        write /member/snap/tmp-0000000000000002-000000000000012c @0 +48
        sync /member/snap/tmp-0000000000000002-000000000000012c
        rename /member/snap/tmp-0000000000000002-000000000000012c -> /member/snap/0000000000000002-000000000000012c.snap
        sync-dir /member/snap
    "#]]
    .assert_eq(&fs.take_trace());
}

/// A kill or a power cut at every operation: the file is there whole or not at all, an older one stays, and what is left
/// over goes.
#[test]
fn a_crash_at_every_operation() {
    for operations in 0.. {
        let fs = machine();
        folder(&fs).write(&snapshot(1, 100)).unwrap().unwrap();
        fs.halt_after(Some(operations));
        let written = folder(&fs).write(&snapshot(2, 300));
        let killed = fs.copy();
        for cut in 0..40 {
            let fs = if cut == 0 { killed.copy() } else { fs.crashed(cut) };
            let folder = folder(&fs);
            let found = indexes(&folder);
            let may_miss = written.is_err();
            assert!(found == [100, 300] || may_miss && found == [100], "{operations} operations: {found:?}");
            assert_eq!(folder.check().unwrap(), [], "{operations} operations, cut {cut}");
            folder.tidy().unwrap();
            assert_eq!(fs.files().len(), found.len(), "{operations} operations left something over");
            // And again.
            folder.write(&snapshot(2, 300)).unwrap().unwrap();
            assert_eq!(read(&folder, Name { term: 2, index: 300 }), snapshot(2, 300));
        }
        if written.is_ok() {
            assert_eq!(operations, 6);
            break;
        }
    }
}

#[test]
fn a_full_disk_leaves_nothing_and_is_no_failure() {
    let fs = machine();
    let folder = folder(&fs);
    folder.write(&snapshot(2, 300)).unwrap().unwrap();
    fs.set_capacity(Some(fs.used() + 20));
    assert_eq!(folder.write(&snapshot(2, 400)).unwrap(), None);
    assert_eq!(indexes(&folder), [300]);
    assert_eq!(fs.files().len(), 1);
    fs.set_capacity(None);
    assert!(folder.write(&snapshot(2, 400)).unwrap().is_some());
}

#[test]
fn any_other_failure_names_the_file() {
    for operation in [
        Operation::Create,
        Operation::Allocate,
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
        Operation::SyncDir,
    ] {
        let faults = FaultFs::new(Arc::new(machine()));
        let folder = Folder::new(Arc::new(faults.clone()), Path::new(DIR));
        faults.add(Fault::once(operation));
        let error = folder.write(&snapshot(2, 300)).unwrap_err().to_string();
        assert!(error.contains("/member/snap"), "{operation:?}: {error}");
    }
}

#[test]
fn the_oldest_go_but_none_that_the_log_may_name() {
    let fs = machine();
    let folder = folder(&fs);
    for index in [100, 200, 300, 400, 500] {
        folder.write(&snapshot(index / 200 + 1, index)).unwrap().unwrap();
    }
    for other in
        ["db", "0000000000000001-0000000000000064.snap.broken", "1-1.snap", "00000000000000c8.snap.db"]
    {
        fs.put(Path::new(DIR).join(other), b"x").unwrap();
    }
    assert_eq!(folder.purge(0, 500).unwrap().len(), 0, "0 keeps all");
    assert_eq!(folder.purge(5, 500).unwrap().len(), 0);
    let removed = folder.purge(3, 500).unwrap();
    assert_eq!(
        removed,
        [folder.path(Name { term: 1, index: 100 }), folder.path(Name { term: 2, index: 200 })]
    );
    assert_eq!(folder.purge(1, 400).unwrap().len(), 1, "the log names 400 still");
    assert_eq!(indexes(&folder), [400, 500]);
    assert_eq!(fs.files().len(), 6, "only snapshots count, and only they go");
}
