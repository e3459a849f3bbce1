//! The same log on the machine's own file system, and what appending costs in allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use disk::RealFs;

use super::*;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of its own making.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above, that is, from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn on_a_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("wal");
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let limits = Limits { segment_bytes: 8192 };
    let mut wal = Wal::create(fs.clone(), &dir, b"m", limits).unwrap();
    assert_eq!(fs.mode(&dir).unwrap(), 0o700);
    let entries: Vec<Entry> = (1..100).map(|index| entry(1, index, vec![index as u8; 300])).collect();
    for group in entries.chunks(7) {
        append(&mut wal, group, Some(state(1, group[0].index)));
    }
    assert!(matches!(Wal::open(fs.clone(), &dir, limits), Err(Error::Locked(_))), "etcd's lock is not taken");
    drop(wal);
    drop(Wal::open(fs.clone(), &dir, limits).unwrap().into_writer().unwrap());
    let opened = Wal::open(fs.clone(), &dir, limits).unwrap();
    assert_eq!(contents(&opened).unwrap().entries, entries);
    let segments = fs.list(&dir).unwrap();
    assert!(segments.len() > 3, "{segments:?}");
    for name in segments {
        assert_eq!(std::fs::metadata(dir.join(name)).unwrap().len(), 8192);
    }
}

#[test]
fn appending_allocates_nothing_once_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("wal");
    let mut wal = Wal::create(Arc::new(RealFs), &dir, b"m", Limits { segment_bytes: 1 << 20 }).unwrap();
    let data = [7; 256];
    let mut group = |first: u64| {
        let entries = (first..first + 100).map(|index| EntryRef {
            term: 1,
            index,
            kind: EntryKind::Normal,
            data: &data,
        });
        wal.append(entries, Some(state(1, first - 1))).unwrap();
        wal.sync().unwrap();
    };
    group(1);
    let before = ALLOCATIONS.with(Cell::get);
    for round in 1..20 {
        group(1 + round * 100);
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
}
