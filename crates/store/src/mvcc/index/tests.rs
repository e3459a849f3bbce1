//! The index by example.

use super::*;

fn put(mod_revision: i64, create_revision: i64, version: i64) -> Version {
    Version { mod_revision, create_revision, version, lease: 0, location: Location(0), sub: 0, length: 0 }
}

fn tombstone(mod_revision: i64) -> Version {
    put(mod_revision, 0, 0)
}

fn keys(index: &Index, key: &[u8], end: &[u8], at: i64) -> Vec<Vec<u8>> {
    let mut cursor = Cursor::new(Span::of(key, end));
    let mut seen = Vec::new();
    while !cursor.is_done() {
        index.advance(&mut cursor, at, |key, _| seen.push(key.to_vec()));
    }
    seen
}

#[test]
fn a_key_is_what_it_was_at_each_revision() {
    let mut index: Index = Index::default();
    for version in [put(2, 2, 1), put(4, 2, 2), tombstone(5), put(7, 7, 1)] {
        assert!(index.accepts(b"k", &version));
        index.insert(b"k", version);
    }
    index.check(7);
    let versions = [(1, None), (2, Some(1)), (3, Some(1)), (4, Some(2)), (5, None), (6, None), (7, Some(1))];
    for (at, version) in versions {
        assert_eq!(index.get(b"k", at).map(|v| v.version), version, "at {at}");
    }
    assert_eq!(index.get(b"k", 9).map(|v| v.create_revision), Some(7));
    assert_eq!(index.get(b"l", 9), None);
}

#[test]
fn replay_refuses_what_no_member_wrote() {
    let mut index: Index = Index::default();
    assert!(!index.accepts(b"k", &tombstone(2)), "nothing to delete");
    index.insert(b"k", put(3, 3, 1));
    assert!(!index.accepts(b"k", &put(3, 3, 1)), "not above");
    index.insert(b"k", tombstone(4));
    assert!(!index.accepts(b"k", &tombstone(5)), "deleted twice");
}

#[test]
fn spans_are_walked_in_chunks_without_a_gap_or_a_repeat() {
    let mut index: Index = Index::default();
    let all: Vec<Vec<u8>> = (0..1000u32).map(|n| n.to_be_bytes().to_vec()).collect();
    for (n, key) in all.iter().enumerate() {
        index.insert(key, put(n as i64 + 2, n as i64 + 2, 1));
    }
    assert_eq!(keys(&index, &[0], &[0], 2000), all);
    assert_eq!(keys(&index, &all[3], &[0], 2000), all[3..]);
    assert_eq!(keys(&index, &all[3], &all[700], 2000), all[3..700]);
    assert_eq!(keys(&index, &all[3], &[], 2000), all[3..4]);
    assert_eq!(keys(&index, &[0], &[0], 512), all[..511], "keys above the revision are not there yet");
    assert_eq!(keys(&index, &all[9], &all[9], 2000), Vec::<Vec<u8>>::new());
    assert_eq!(keys(&index, &all[9], &all[3], 2000), Vec::<Vec<u8>>::new());
}

#[test]
fn a_walk_ends_at_a_bound_that_it_has_reached() {
    let mut index: Index = Index::default();
    for n in 0..KEYS_PER_CHUNK as u16 + 1 {
        index.insert(&n.to_be_bytes(), put(2, 2, 1));
    }
    let end = (KEYS_PER_CHUNK as u16 - 1).to_be_bytes();
    assert_eq!(keys(&index, &[0], &end, 2).len(), KEYS_PER_CHUNK - 1);
    // The last key visited, then the key right after it as the end: bounds that touch.
    let mut end = end.to_vec();
    end.push(0);
    assert_eq!(keys(&index, &[0], &end, 2).len(), KEYS_PER_CHUNK);
}
