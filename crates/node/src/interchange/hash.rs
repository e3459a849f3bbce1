use std::path::Path;
use std::sync::Arc;

use disk::Fs;
use disk::boltfile::{Reader, schema};
use store::{KvHash, Location, ReadError, RecordKind, RecordSource, RecordVisitor, Revision, Store};

use super::import::{Database, refuse};
use crate::Error;

/// HashKV of a database file at a revision (0: the newest), as the server that serves from it answers.
///
/// Memory: the key index, as in etcd.
///
/// # Errors
/// What is wrong with the file; a revision that it does not have, in etcd's words ([`Error::Api`]).
pub fn hash_kv(fs: &dyn Fs, path: &Path, revision: i64) -> Result<KvHash, Error> {
    let required = [schema::BUCKET_KEY, schema::BUCKET_META];
    let database = Arc::new(Database::of(Reader::open(fs, path)?, path, &required)?);
    let mut store = Store::new(Arc::new(FileSource(database.clone())), store::Settings::default());
    store.restore_tables(&database.encoded_tables(), true).map_err(|error| database.refuse(error))?;
    database.records(&mut |key, value| {
        let at = Revision { main: key.main, sub: key.sub };
        let kind = if key.tombstone { RecordKind::Tombstone } else { RecordKind::Put };
        store.replay(kind, at, Location(0), value).map_err(|error| database.refuse(error))
    })?;
    let _compaction = store.end_restore();
    match store.reader().hash_kv(revision) {
        Ok((hash, _)) => Ok(hash),
        Err(store::ReadFailure::Api(error)) => Err(Error::Api(error)),
        Err(other) => Err(refuse(path, other)),
    }
}

/// The records of a file, for hashes: they are only ever read in order.
struct FileSource(Arc<Database>);

impl RecordSource for FileSource {
    fn read(&self, _: Location, _: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError("records of a database file are read in order only".into()))
    }

    fn read_nowait(&self, at: Location, out: &mut [u8]) -> Result<bool, ReadError> {
        self.read(at, out).map(|()| true)
    }

    fn scan(&self, from: i64, visitor: &mut RecordVisitor<'_>) -> Result<(), ReadError> {
        self.0
            .records_from(from, &mut |key, value| {
                let kind = if key.tombstone { RecordKind::Tombstone } else { RecordKind::Put };
                visitor(kind, Revision { main: key.main, sub: key.sub }, value)
            })
            .map_err(|error| ReadError(error.to_string()))
    }
}
