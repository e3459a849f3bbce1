//! `.snap` files at their boundary: bytes on a simulated disk in, snapshots out.

mod damage;
mod files;
mod fuzz;
mod golden;

use std::path::Path;
use std::sync::Arc;

use disk::MemFs;
use disk::snap::{Folder, Name, Snapshot};
use disk::wal::ConfState;

const DIR: &str = "/member/snap";

/// A file system with the folder.
fn machine() -> MemFs {
    let fs = MemFs::new();
    disk::make_dir(&fs, Path::new(DIR), 0o700).unwrap();
    fs
}

fn folder(fs: &MemFs) -> Folder {
    Folder::new(Arc::new(fs.clone()), Path::new(DIR))
}

fn snapshot(term: u64, index: u64) -> Snapshot {
    let conf_state = ConfState { voters: vec![7, u64::MAX], learners: vec![9], ..ConfState::default() };
    Snapshot { index, term, conf_state, data: format!("state at {index}").into_bytes() }
}

/// What a file must say.
#[track_caller]
fn read(folder: &Folder, name: Name) -> Snapshot {
    folder.read(name).unwrap().unwrap_or_else(|broken| panic!("{broken:?}"))
}

fn indexes(folder: &Folder) -> Vec<u64> {
    folder.list().unwrap().into_iter().map(|name| name.index).collect()
}
