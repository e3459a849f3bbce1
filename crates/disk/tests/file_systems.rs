//! The file systems behind the seam: the real and the in-memory one agree; power cuts lose what they may, and
//! nothing else; faults strike by rule.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::sync::Arc;

use disk::{Access, Fault, FaultFs, Fs, MemFs, Operation, RealFs};

/// The same story on any file system; what it sees is returned for comparison.
fn story(fs: &dyn Fs, dir: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    let path = |name: &str| dir.join(name);
    fs.create_dir_all(&path("a/b"), 0o700).unwrap();
    seen.push(format!("mode {:o}", fs.mode(&path("a/b")).unwrap()));
    let file = fs.open(&path("a/f"), Access::CreateNew).unwrap();
    seen.push(format!("again {:?}", fs.open(&path("a/f"), Access::CreateNew).err().unwrap().kind()));
    seen.push(format!("absent {:?}", fs.open(&path("a/g"), Access::Read).err().unwrap().kind()));
    file.write_all_at(&[7; 1000], 300).unwrap();
    file.allocate(4096).unwrap();
    file.allocate(100).unwrap();
    seen.push(format!("len {}", file.len().unwrap()));
    let mut bytes = vec![1; 1400];
    file.read_exact_at(&mut bytes, 0).unwrap();
    seen.push(format!("sum {}", bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>()));
    file.set_len(700).unwrap();
    file.set_len(1400).unwrap();
    file.read_exact_at(&mut bytes, 0).unwrap();
    seen.push(format!("sum {}", bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>()));
    seen.push(format!("past {:?}", file.read_exact_at(&mut bytes, 1).err().unwrap().kind()));
    file.sync_data().unwrap();
    file.forget_cached().unwrap();
    file.read_exact_at(&mut bytes, 0).unwrap();
    seen.push(format!("sum {}", bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>()));
    file.lock().unwrap();
    let second = fs.open(&path("a/f"), Access::ReadWrite).unwrap();
    seen.push(format!("locked {:?}", second.lock().err().unwrap().kind()));
    seen.push(format!("mode {:o}", fs.mode(&path("a/f")).unwrap()));
    fs.set_mode(&path("a/f"), 0o640).unwrap();
    fs.take_owner(&path("a/f"), &path("a")).unwrap();
    seen.push(format!("no owner {:?}", fs.take_owner(&path("a/f"), &path("a/g")).err().unwrap().kind()));
    seen.push(format!("mode {:o}", fs.mode(&path("a/f")).unwrap()));
    fs.rename(&path("a/f"), &path("a/b/f")).unwrap();
    fs.sync_dir(&path("a/b")).unwrap();
    seen.push(format!("list {:?} {:?}", fs.list(&path("a")).unwrap(), fs.list(&path("a/b")).unwrap()));
    drop(file);
    seen.push(format!("free {:?}", second.lock().is_ok()));
    fs.remove(&path("a/b/f")).unwrap();
    seen.push(format!("open after removal {}", second.len().unwrap()));
    seen.push(format!("exists {} {}", fs.exists(&path("a/b/f")).unwrap(), fs.exists(&path("a/b")).unwrap()));
    let held = fs.lock_dir(&path("a")).unwrap();
    seen.push(format!("folder locked {:?}", fs.lock_dir(&path("a")).err().unwrap().kind()));
    drop(held);
    seen.push(format!("folder free {}", fs.lock_dir(&path("a")).is_ok()));
    seen
}

#[test]
fn memory_and_real_agree() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(story(&RealFs, dir.path()), story(&MemFs::new(), Path::new("/")));
}

/// Only root may give a file away; whoever else asks for it keeps theirs.
#[test]
fn a_file_takes_the_owner_of_another() {
    const OTHER: (u32, u32) = (4321, 1234);
    let dir = tempfile::tempdir().unwrap();
    let [own, other] = ["own", "other"].map(|name| dir.path().join(name));
    RealFs.open(&own, Access::CreateNew).unwrap();
    RealFs.open(&other, Access::CreateNew).unwrap();
    let owner = |path: &Path| {
        let metadata = std::fs::metadata(path).unwrap();
        (metadata.uid(), metadata.gid())
    };
    let is_root = chown(&other, Some(OTHER.0), Some(OTHER.1)).is_ok();
    let before = owner(&own);
    RealFs.take_owner(&own, &other).unwrap();
    assert_eq!(owner(&own), if is_root { OTHER } else { before });
    RealFs.take_owner(&own, &other).unwrap();
    if is_root {
        RealFs.take_owner(&own, dir.path()).unwrap();
        assert_eq!(owner(&own), owner(dir.path()));
    }
}

#[test]
fn nowait_reads_what_is_cached() {
    let dir = tempfile::tempdir().unwrap();
    let file = RealFs.open(&dir.path().join("f"), Access::CreateNew).unwrap();
    file.write_all_at(b"hello", 0).unwrap();
    let mut bytes = [0; 5];
    // A file system that cannot tell answers false; one that can has just cached these bytes.
    if file.read_exact_at_nowait(&mut bytes, 0).unwrap() {
        assert_eq!(&bytes, b"hello");
        assert_eq!(file.read_exact_at_nowait(&mut bytes, 1).err().unwrap().kind(), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn a_power_cut_tears_at_sectors_and_keeps_what_was_synced() {
    let fs = MemFs::new();
    let file = fs.open(Path::new("f"), Access::CreateNew).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(&[1; 1024], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[2; 1024], 0).unwrap();
    file.write_all_at(&[3; 512], 512).unwrap();
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let bytes = fs.crashed(seed).read("f").unwrap();
        assert_eq!(bytes, fs.crashed(seed).read("f").unwrap(), "seed {seed} is not repeatable");
        for sector in bytes.chunks(512) {
            assert!(sector.iter().all(|byte| byte == &sector[0]), "seed {seed} tore inside a sector");
        }
        outcomes.insert((bytes[0], bytes[512]));
    }
    let expected = BTreeSet::from([(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]);
    assert_eq!(outcomes, expected);
    assert_eq!(fs.read("f").unwrap()[0], 2, "a crash of a copy must not touch the original");
    fs.kill();
    assert_eq!(fs.read("f").unwrap()[512], 3, "a killed process loses nothing that was written");
    assert!(file.len().is_err(), "a handle must die with its process");
}

#[test]
fn a_power_cut_loses_unsynced_lengths() {
    let fs = MemFs::new();
    let file = fs.open(Path::new("f"), Access::CreateNew).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(&[1; 600], 0).unwrap();
    file.sync_data().unwrap();
    file.set_len(100).unwrap();
    let lens: BTreeSet<usize> = (0..100).map(|seed| fs.crashed(seed).read("f").unwrap().len()).collect();
    assert_eq!(lens, BTreeSet::from([100, 600]));
    file.sync_data().unwrap();
    assert!((0..100).all(|seed| fs.crashed(seed).read("f").unwrap() == vec![1; 100]));
}

#[test]
fn a_power_cut_loses_unsynced_names_but_never_splits_a_rename() {
    let fs = MemFs::new();
    let root = Path::new("/");
    drop(fs.open(Path::new("/old"), Access::CreateNew).unwrap());
    fs.sync_dir(root).unwrap();
    drop(fs.open(Path::new("/new"), Access::CreateNew).unwrap());
    fs.rename(Path::new("/old"), Path::new("/moved")).unwrap();
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        outcomes.insert(fs.crashed(seed).list(root).unwrap().join(" "));
    }
    assert_eq!(outcomes, BTreeSet::from(["moved", "moved new", "new old", "old"].map(String::from)));
    fs.sync_dir(root).unwrap();
    assert!((0..100).all(|seed| fs.crashed(seed).list(root).unwrap() == ["moved", "new"]));
}

#[test]
fn a_renamed_folder_keeps_its_files() {
    let fs = MemFs::new();
    fs.create_dir_all(Path::new("/w.tmp"), 0o700).unwrap();
    let file = fs.open(Path::new("/w.tmp/f"), Access::CreateNew).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir(Path::new("/w.tmp")).unwrap();
    fs.rename(Path::new("/w.tmp"), Path::new("/w")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    for seed in 0..20 {
        assert_eq!(fs.crashed(seed).read("/w/f").unwrap(), b"x");
    }
}

#[test]
fn capacity_and_halting() {
    let fs = MemFs::new();
    fs.set_capacity(Some(1000));
    let file = fs.open(Path::new("f"), Access::CreateNew).unwrap();
    file.allocate(900).unwrap();
    assert_eq!(file.write_all_at(&[1; 101], 900).err().unwrap().kind(), ErrorKind::StorageFull);
    assert_eq!(file.allocate(1001).err().unwrap().kind(), ErrorKind::StorageFull);
    file.write_all_at(&[1; 100], 900).unwrap();
    fs.remove(Path::new("f")).unwrap();
    assert_eq!(fs.used(), 0);
    fs.halt_after(Some(1));
    fs.create_dir_all(Path::new("d"), 0o700).unwrap();
    assert!(fs.sync_dir(Path::new("d")).is_err());
    assert!(fs.sync_dir(Path::new("d")).is_err());
}

#[test]
fn faults_strike_by_operation_path_and_count() {
    let memory = MemFs::new();
    let fs = FaultFs::new(Arc::new(memory.clone()));
    let file = fs.open(Path::new("f"), Access::CreateNew).unwrap();
    fs.add(Fault { skip: 1, ..Fault::once(Operation::Sync) });
    fs.add(Fault { path_contains: "g".into(), ..Fault::once(Operation::Write) });
    fs.add(Fault {
        forever: true,
        error: ErrorKind::StorageFull,
        partial_bytes: 2,
        ..Fault::once(Operation::Write)
    });
    file.sync_data().unwrap();
    assert_eq!(file.sync_data().err().unwrap().raw_os_error(), Some(5));
    file.sync_data().unwrap();
    for _ in 0..2 {
        assert_eq!(file.write_all_at(b"abc", 0).err().unwrap().kind(), ErrorKind::StorageFull);
    }
    assert_eq!(memory.read("f").unwrap(), b"ab");
    fs.clear();
    file.write_all_at(b"abc", 0).unwrap();
}

#[test]
fn a_folder_that_was_made_survives_with_all_above_it() {
    let fs = MemFs::new();
    disk::make_dir(&fs, Path::new("/a/b/c"), 0o700).unwrap();
    for seed in 0..50 {
        assert!(fs.crashed(seed).exists(Path::new("/a/b/c")).unwrap(), "seed {seed}");
    }
    // Killed before the name was synced: the next run, which finds the folder, sees to it.
    fs.create_dir_all(Path::new("/a/b/d"), 0o700).unwrap();
    fs.kill();
    disk::make_dir(&fs, Path::new("/a/b/d"), 0o700).unwrap();
    for seed in 0..50 {
        assert!(fs.crashed(seed).exists(Path::new("/a/b/d")).unwrap(), "seed {seed}");
    }
}

/// A sync that fails leaves what only the cache has: read until it is forgotten, kept by a kill, written by no sync.
#[test]
fn a_failed_sync_loses_what_the_cache_still_shows() {
    let mut lost = 0;
    for seed in 0..20 {
        let fs = MemFs::new();
        let file = fs.open(Path::new("f"), Access::CreateNew).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(&[1; 512], 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&[2; 512], 0).unwrap();
        fs.fail_sync(seed);
        assert_eq!(file.sync_data().err().unwrap().raw_os_error(), Some(5));
        assert!(fs.has_failed_sync());
        file.sync_data().unwrap();
        fs.kill();
        assert_eq!(fs.read("f").unwrap(), [2; 512]);
        let cut = fs.crashed(seed);
        let file = fs.open(Path::new("f"), Access::ReadWrite).unwrap();
        file.forget_cached().unwrap();
        assert_eq!(fs.read("f").unwrap(), cut.read("f").unwrap(), "both show the disk");
        lost += u32::from(cut.read("f").unwrap() == [1; 512]);
        // What is written again is written.
        file.write_all_at(&[3; 512], 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(fs.crashed(seed).read("f").unwrap(), [3; 512]);
    }
    assert!(lost > 0 && lost < 20, "{lost} of 20 lost");
}
