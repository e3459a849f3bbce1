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
    let mut index = Index::default();
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
    let mut index = Index::default();
    assert!(index.ends_nothing(b"k", &tombstone(2)), "nothing to delete");
    index.insert(b"k", put(3, 3, 1));
    assert!(!index.accepts(b"k", &put(3, 3, 1)), "not above");
    index.insert(b"k", tombstone(4));
    assert!(index.ends_nothing(b"k", &tombstone(5)), "deleted twice");
    assert!(!index.ends_nothing(b"k", &put(5, 5, 1)));
}

#[test]
fn spans_are_walked_in_chunks_without_a_gap_or_a_repeat() {
    let mut index = Index::default();
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
    let mut index = Index::default();
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

fn count(index: &Index, key: &[u8], end: &[u8], at: i64) -> (u64, usize) {
    let mut cursor = Cursor::new(Span::of(key, end));
    let (mut count, mut steps) = (0, 0);
    while !cursor.is_done() {
        count += index.count(&mut cursor, at);
        steps += 1;
    }
    (count, steps)
}

fn number(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

/// Drops to the end, so many steps at a time, and returns how many versions went.
fn drop_below(index: &mut Index, horizon: i64, steps_max: usize) -> usize {
    let (mut cursor, mut dropped) = (DropCursor::default(), 0);
    while !cursor.is_done() {
        let before = dropped;
        index.drop_below(&mut cursor, horizon, steps_max, |_, _| dropped += 1);
        assert!(dropped - before <= steps_max);
    }
    dropped
}

#[test]
fn a_count_takes_what_has_nothing_newer_as_a_whole() {
    const KEYS: u32 = 50_000;
    let mut index = Index::default();
    for n in 0..KEYS {
        index.insert(&number(n), put(i64::from(n) + 2, i64::from(n) + 2, 1));
    }
    let now = i64::from(KEYS) + 1;
    assert_eq!(count(&index, b"\0", b"\0", now), (u64::from(KEYS), 1), "in one step");
    assert_eq!(count(&index, &number(77), &number(40_077), now), (40_000, 1));
    // What is newer here and there is looked at, and does not count.
    for n in (0..KEYS).step_by(1000) {
        index.insert(&number(n), tombstone(now + 1));
    }
    assert_eq!(count(&index, b"\0", b"\0", now + 1).0, u64::from(KEYS - 50));
    let (keys, steps) = count(&index, b"\0", b"\0", now);
    assert_eq!(keys, u64::from(KEYS));
    assert!(steps <= 50 * NODE_KEYS / KEYS_PER_CHUNK + 2, "{steps} steps for 50 keys that changed");
    assert_eq!(count(&index, b"\0", b"\0", i64::from(KEYS / 2) + 1).0, u64::from(KEYS / 2));
    index.check(now + 1);
}

#[test]
fn a_drop_looks_only_where_something_is_dead() {
    const KEYS: u32 = 50_000;
    let mut index = Index::default();
    for n in 0..KEYS {
        index.insert(&number(n), put(2, 2, 1));
    }
    for n in (0..KEYS).step_by(5000) {
        index.insert(&number(n), put(3, 2, 2));
    }
    // The step is smaller than the tree by far, and yet enough.
    let (mut cursor, mut dropped) = (DropCursor::default(), Vec::new());
    index.drop_below(&mut cursor, 3, 10 * NODE_KEYS + 10, |key, version| {
        dropped.push((key.to_vec(), version.mod_revision));
    });
    assert!(cursor.is_done());
    let want: Vec<_> = (0..KEYS).step_by(5000).map(|n| (number(n).to_vec(), 2)).collect();
    assert_eq!(dropped, want);
    index.check(3);
    // Once more there is nothing, and nothing is looked at.
    let mut cursor = DropCursor::default();
    index.drop_below(&mut cursor, 3, 1, |key, version| panic!("{key:?}: {version:?}"));
    assert!(cursor.is_done());
}

#[test]
fn a_key_with_many_versions_is_dropped_in_steps() {
    const VERSIONS: i64 = 10_000;
    let mut index = Index::default();
    for n in 1..=VERSIONS {
        index.insert(b"k", put(n + 1, 2, n));
    }
    assert_eq!(index.get(b"k", 5001).map(|version| version.version), Some(5000));
    assert_eq!(drop_below(&mut index, VERSIONS / 2 + 1, 100) as i64, VERSIONS / 2 - 1);
    assert_eq!(index.get(b"k", 5001).map(|version| version.version), Some(5000));
    assert_eq!(index.at(b"k", 5000), None);
    index.check(VERSIONS + 1);
    index.insert(b"k", tombstone(VERSIONS + 2));
    assert_eq!(drop_below(&mut index, VERSIONS + 2, 100) as i64, VERSIONS / 2 + 1);
    assert_eq!(
        index.at(b"k", VERSIONS + 2),
        Some(tombstone(VERSIONS + 2)),
        "exactly at the horizon it stays"
    );
    assert_eq!(drop_below(&mut index, VERSIONS + 3, 100), 1);
    assert_eq!(index.at(b"k", VERSIONS + 3), None);
    index.check(VERSIONS + 3);
}

#[test]
fn a_key_deleted_and_put_in_one_revision_keeps_the_put() {
    let mut index = Index::default();
    index.insert(b"k", put(2, 2, 1));
    index.insert(b"k", tombstone(3));
    let again = Version { sub: 1, ..put(3, 3, 1) };
    index.insert(b"k", again);
    assert_eq!(drop_below(&mut index, 3, 10), 2);
    assert_eq!(index.get(b"k", 3), Some(again));
    index.check(3);
}

#[test]
fn a_tree_that_shrinks_gives_its_nodes_back() {
    const KEYS: u32 = 50_000;
    let mut index = Index::default();
    for n in 0..KEYS {
        index.insert(&number(n.reverse_bits()), put(2, 2, 1));
    }
    for n in (0..KEYS).filter(|n| n % 100 != 0) {
        index.insert(&number(n.reverse_bits()), tombstone(3));
    }
    let kept = KEYS as usize / 100;
    assert_eq!(drop_below(&mut index, 4, 1000), 2 * (KEYS as usize - kept));
    index.check(4);
    assert_eq!(keys(&index, b"\0", b"\0", 4).len(), kept);
    let leaves = index.root.leaves();
    assert!(leaves <= kept / (NODE_KEYS * 3 / 8) + 2, "{leaves} leaves for {kept} keys");
}

#[test]
fn ascending_keys_fill_their_leaves() {
    let mut index = Index::default();
    // Two rows by turns, as two kinds of objects are that are named by time.
    for n in 0..10_000 {
        index.insert(format!("/a/{n:05}").as_bytes(), put(2, 2, 1));
        index.insert(format!("/b/{n:05}").as_bytes(), put(2, 2, 1));
    }
    index.check(2);
    let leaves = index.root.leaves();
    assert!(leaves <= 20_000 / NODE_KEYS + 4, "{leaves} leaves");
}

#[test]
fn versions_that_are_there_are_moved() {
    let mut index = Index::default();
    let at = |location| Version { location: Location(location), ..put(2, 2, 1) };
    index.insert(b"k", at(10));
    index.insert(b"k", Version { location: Location(11), lease: 5, ..put(3, 2, 2) });
    index.insert(b"k", Version { location: Location(12), ..put(4, 2, 3) });
    let revision = |main| Revision { main, sub: 0 };
    assert!(!index.relocate(b"k", revision(5), Location(20)), "no such version");
    assert!(!index.relocate(b"l", revision(2), Location(20)), "no such key");
    for (main, from) in [(2, 10), (3, 11), (4, 12)] {
        assert!(index.relocate(b"k", revision(main), Location(from + 10)));
        assert_eq!(index.get(b"k", main).map(|version| version.location), Some(Location(from + 10)));
    }
    assert_eq!(index.get(b"k", 3).map(|version| version.lease), Some(5), "an older version keeps its lease");
}

#[test]
fn the_bench_runs() {
    super::bench::run(2000);
}
