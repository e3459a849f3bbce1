//! The fuzz target of the way in: any database, sound as a file, taken over.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use disk::boltfile::schema::{self, RevisionKey};
use disk::boltfile::{Planner, Writer};
use disk::{Fs, MemFs, revlog};
use prost::Message;
use wire::authpb::{Permission, Role, User, UserAddOptions};
use wire::leasepb::Lease;
use wire::mvccpb::KeyValue;

use super::{Database, hash_kv};
use crate::start::{Replayed, replay_revlog};

const PATH: &str = "/db";
const FOLDER: &str = "/rev";

/// Takes a database file over: with the low bit of the first byte, `data` is the file; else it is a row of pairs, some of
/// which make sense, that are added to a small one. Whether it was taken over.
///
/// # Panics
/// If what was taken over is no revision log that a start takes, or has another hash than the file.
pub fn fuzz_database(data: &[u8]) -> bool {
    let Some((&how, data)) = data.split_first() else { return false };
    let file = if how & 1 == 1 { data.to_vec() } else { written(&pairs(data)) };
    let memory = MemFs::new();
    memory.put(PATH, &file).expect("a file in memory");
    let fs: Arc<dyn Fs> = Arc::new(memory);
    let Ok(database) = Database::open(&*fs, Path::new(PATH)) else { return false };
    let read = database.read();
    let limits = revlog::Limits::tiny();
    let imported = database.import(&fs, Path::new(FOLDER), limits.clone(), 1, &mut |_, _| {});
    assert_eq!(read.is_ok(), imported.is_ok(), "a check and an import say the same: {read:?}, {imported:?}");
    let Ok(imported) = imported else { return false };
    let (opened, Replayed { mut store, source, .. }) =
        replay_revlog(&fs, Path::new(FOLDER), limits, store::Settings::default(), 1, &mut |_, _| {})
            .unwrap_or_else(|error| panic!("what was taken over is refused: {error}"));
    assert_eq!(opened.applied(), imported.applied);
    assert_eq!(store.auth(), database.auth());
    source.fill(opened.into_reader());
    let _unfinished = store.end_restore();
    // What a pair says of itself is not held against its history, by no etcd: the store's own checks would do that.
    assert_eq!(store.revision(), imported.revision.max(store.revision().min(1)));
    let of_log = store.reader().hash_kv(0).map(|(hash, _)| hash).map_err(|error| format!("{error:?}"));
    let of_file = hash_kv(&*fs, Path::new(PATH), 0).expect("what was taken over can be read");
    assert_eq!(of_log, Ok(of_file));
    true
}

type Pairs = BTreeMap<(&'static [u8], Vec<u8>), Vec<u8>>;

/// A small store, and what `data` adds to it or puts in its place.
fn pairs(mut data: &[u8]) -> Pairs {
    let mut pairs = Pairs::new();
    let mut put = |bucket, key: &[u8], value: Vec<u8>| drop(pairs.insert((bucket, key.to_vec()), value));
    put(schema::BUCKET_META, schema::META_CONSISTENT_INDEX, schema::encode_u64(5).to_vec());
    put(schema::BUCKET_META, schema::META_TERM, schema::encode_u64(2).to_vec());
    put(schema::BUCKET_META, schema::META_STORAGE_VERSION, b"3.7.0".to_vec());
    let member = schema::Member { id: 7, name: "m".to_owned(), ..schema::Member::default() };
    put(schema::BUCKET_MEMBERS, schema::member_key(7).as_bytes(), member.encode());
    while let [kind, a, b, c, rest @ ..] = data {
        data = rest;
        let (small, main) = (i64::from(c & 7), i64::from(*a));
        match kind % 7 {
            0 | 1 => {
                let tombstone = kind % 7 == 1;
                let key = RevisionKey { main, sub: small, tombstone };
                let mod_revision = if c & 8 == 0 { main } else { small };
                let pair = KeyValue {
                    key: vec![b'a' + b % 5].into(),
                    create_revision: if tombstone { 0 } else { i64::from(b >> 3) },
                    mod_revision: if tombstone { 0 } else { mod_revision },
                    version: if tombstone { 0 } else { i64::from(c >> 4) },
                    lease: if b % 3 == 0 { small } else { 0 },
                    ..KeyValue::default()
                };
                put(schema::BUCKET_KEY, key.encode(&mut [0; RevisionKey::LEN_MAX]), pair.encode_to_vec());
            }
            2 => {
                let lease = Lease { id: small, ttl: main, remaining_ttl: i64::from(*b) };
                put(schema::BUCKET_LEASE, &schema::lease_key(small), lease.encode_to_vec());
            }
            3 => {
                let key = [schema::META_SCHEDULED_COMPACT, schema::META_FINISHED_COMPACT][usize::from(b % 2)];
                put(schema::BUCKET_META, key, schema::encode_compact_revision(main).to_vec());
            }
            4 => {
                let id = u64::from(*a);
                let is_learner = b % 2 == 1;
                let member = schema::Member { id, is_learner, ..schema::Member::default() };
                let bucket = [schema::BUCKET_MEMBERS, schema::BUCKET_MEMBERS_REMOVED][usize::from(c % 2)];
                put(bucket, schema::member_key(id).as_bytes(), member.encode());
            }
            5 => {
                let name = Bytes::from(vec![b'u' + b % 3]);
                let stored_name = if c & 1 == 0 { name.clone() } else { Bytes::from_static(b"u") };
                match c % 4 {
                    0 | 1 => {
                        let options = (c & 8 != 0).then_some(UserAddOptions { no_password: c & 16 != 0 });
                        let roles = vec![char::from(b'u' + a % 3).to_string(); usize::from(a % 2)];
                        let user = User { name: stored_name, roles, options, ..User::default() };
                        put(schema::BUCKET_AUTH_USERS, &name, user.encode_to_vec());
                    }
                    2 => {
                        let (key, range_end) = (vec![b'a' + a % 5].into(), vec![*a].into());
                        let permission = Permission { perm_type: small as i32, key, range_end };
                        let role = Role { name: stored_name, key_permission: vec![permission] };
                        put(schema::BUCKET_AUTH_ROLES, &name, role.encode_to_vec());
                    }
                    _ => {
                        put(schema::BUCKET_AUTH, schema::AUTH_ENABLED, vec![b % 3]);
                        put(
                            schema::BUCKET_AUTH,
                            schema::AUTH_REVISION,
                            schema::encode_u64(main as u64).to_vec(),
                        );
                    }
                }
            }
            _ => {
                // Anything at all, anywhere: a is the bucket, b and c are lengths.
                let bucket = schema::BUCKETS[usize::from(*a) % schema::BUCKETS.len()];
                let (key, rest) = data.split_at(data.len().min(usize::from(b % 32)));
                let (value, rest) = rest.split_at(rest.len().min(usize::from(c % 64)));
                data = rest;
                if !key.is_empty() {
                    put(bucket, key, value.to_vec());
                }
            }
        }
    }
    pairs
}

fn written(pairs: &Pairs) -> Vec<u8> {
    const WELL_FORMED: &str = "keys are short, not empty and in order";
    let mut planner = Planner::new(512).expect("a page size");
    for bucket in schema::BUCKETS {
        planner.bucket(bucket).expect(WELL_FORMED);
        for ((_, key), value) in pairs.iter().filter(|((of, _), _)| *of == bucket) {
            planner.pair(key.len(), value.len()).expect(WELL_FORMED);
        }
    }
    let mut file = Vec::new();
    let mut writer = Writer::new(planner.finish(), |bytes: &[u8]| {
        file.extend_from_slice(bytes);
        Ok(())
    })
    .expect("a plan");
    for bucket in schema::BUCKETS {
        writer.bucket(bucket).expect(WELL_FORMED);
        for ((_, key), value) in pairs.iter().filter(|((of, _), _)| *of == bucket) {
            writer.pair(key, value).expect(WELL_FORMED);
        }
    }
    let _sink = writer.finish().expect("as planned");
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: u64 = 3_000;

    /// The same numbers for the same seed, everywhere (splitmix64).
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) % bound
        }
    }

    #[test]
    fn seeded_inputs() {
        assert!(fuzz_database(&[0]), "the small one");
        // A put and a tombstone of one change.
        assert!(!fuzz_database(&[0, 0, 5, 0, 0x10, 1, 5, 0, 0]));
        assert!(fuzz_database(&[&[1][..], &written(&pairs(&[]))].concat()), "as a file");
        let mut taken = 0;
        for seed in 0..SEEDS {
            let mut random = Random(seed);
            let mut input = vec![0];
            for _ in 0..random.below(12) {
                // Mostly puts of ascending revisions, as they are found.
                let is_put = random.below(4) > 0;
                let kind = if is_put { 0 } else { random.below(7) as u8 };
                let main = if is_put { input.len() as u64 / 4 + 2 } else { random.below(40) };
                let last = if is_put { 0x10 } else { random.below(256) };
                input.extend([kind, main as u8, random.below(256) as u8, last as u8]);
            }
            taken += u64::from(fuzz_database(&input));
        }
        assert!(taken > SEEDS / 3, "only {taken} inputs were taken over");
    }
}
