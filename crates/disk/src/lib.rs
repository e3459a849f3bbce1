//! Disk access, and the structures that live on it.
//!
//! Everything that touches a file goes through the one seam [`Fs`], which has a real, an in-memory and a
//! faulty implementation; production, simulation and tests run the same code above it. On the seam stand the
//! write-ahead log ([`wal`]) and the snapshot files ([`snap`]) in etcd's own format, and the revision log ([`revlog`]);
//! etcd's database file ([`boltfile`]) is read and written whole, as the way in and out.
//!
//! This crate knows nothing of consensus or of keys: the WAL carries records, the revision log carries opaque
//! payloads in checksummed frames. It has no threads and no clock.

pub mod boltfile;
mod fs;
pub mod revlog;
pub mod snap;
pub mod wal;

pub use fs::{Access, DirLock, Fault, FaultFs, File, Fs, MemFs, Operation, RealFs, make_dir};
