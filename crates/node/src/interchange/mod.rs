//! Between a member's state and etcd's database file: the way out ([`Cut`]), the way in ([`Database`], and
//! [`SnapshotReceiver`] for what a leader sends), and a data directory made from a saved snapshot ([`restore`]).
//!
//! A database file (`disk::boltfile`) is how a store leaves and enters this program: Maintenance.Snapshot, what etcdutl
//! restores, `snap/db` of a data directory, snapshots between members. `docs/internals/boltfile.md` has the file itself,
//! the documentation of `disk::boltfile::schema` what etcd keeps in it. All of it works in bounded memory: nothing here
//! grows with the file but, on the way in, the key index that the member needs anyway.

mod export;
mod file;
mod fuzz;
mod hash;
mod import;
mod receive;
mod restore;

use disk::boltfile::{self, Planner, Writer};

pub use export::Cut;
pub(crate) use export::wal_conf;
pub(crate) use file::{StorageVersion, rewrite, write};
pub use fuzz::fuzz_database;
pub use hash::hash_kv;
pub use import::{Database, Imported};
pub(crate) use import::{applied, check_beside};
pub use receive::{Incoming, ReceiveError, SnapshotReceiver};
pub(crate) use receive::{Occupied, clear};
pub(crate) use restore::check_empty;
pub use restore::{RESTORING, Restore, Restored, restore};

/// What takes the pairs of a database, in order: the planner takes their lengths, the writer their bytes.
pub(crate) trait Pairs {
    /// Begins a bucket.
    fn bucket(&mut self, name: &[u8]) -> Result<(), boltfile::Error>;
    /// A pair of the bucket.
    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), boltfile::Error>;
}

impl Pairs for Planner {
    fn bucket(&mut self, name: &[u8]) -> Result<(), boltfile::Error> {
        Planner::bucket(self, name)
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), boltfile::Error> {
        Planner::pair(self, key.len(), value.len())
    }
}

impl<S: FnMut(&[u8]) -> std::io::Result<()>> Pairs for Writer<S> {
    fn bucket(&mut self, name: &[u8]) -> Result<(), boltfile::Error> {
        Writer::bucket(self, name)
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), boltfile::Error> {
        Writer::pair(self, key, value)
    }
}
