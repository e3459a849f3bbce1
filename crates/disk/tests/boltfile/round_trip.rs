//! What is written is read.

use disk::boltfile::Planner;

use crate::harness::{Buckets, Pairs, Rng, open, pages, random_buckets, read, seeds, small_buckets, write};

const BRANCH: u16 = 1;

/// Writes, reads, and holds the file against what any of ours must be.
fn round_trip(page_size: u32, buckets: &Buckets) -> Vec<u8> {
    let file = write(page_size, buckets);
    let reader = open(&file).unwrap();
    let summary = reader.check().unwrap();
    assert_eq!(&read(&reader).unwrap(), buckets);
    assert_eq!((reader.page_size(), reader.lost_meta()), (page_size, None));
    assert_eq!(reader.pages() * u64::from(page_size), file.len() as u64);
    assert_eq!(summary.pairs, buckets.values().map(|pairs| pairs.len() as u64).sum::<u64>());
    assert_eq!((summary.buckets, summary.inline_buckets), (buckets.len() as u64, 0));
    assert_eq!((summary.freelist_pages, summary.free_pages), (1, 0));
    for (number, flags, count, _) in pages(&file, page_size as usize) {
        assert!(flags != BRANCH || count >= 2, "branch page {number} has {count} children");
    }
    file
}

#[test]
fn random() {
    for seed in seeds(120) {
        let mut rng = Rng(seed);
        let page_size = 512 << rng.below(8);
        let buckets = random_buckets(&mut rng, page_size);
        let file = round_trip(page_size, &buckets);
        let reader = open(&file).unwrap();
        for (name, pairs) in &buckets {
            for (key, value) in pairs.iter().step_by(1 + rng.below(20) as usize) {
                assert_eq!(reader.get(name, key).unwrap().as_ref(), Some(value));
                let beside = [key, &b"\0"[..]].concat();
                assert_eq!(reader.get(name, &beside).unwrap().as_ref(), pairs.get(&beside));
            }
        }
    }
}

#[test]
fn empty() {
    let file = round_trip(4096, &Buckets::new());
    assert_eq!(file.len(), 4 * 4096, "two meta pages, a freelist, the root");
    let file = round_trip(4096, &Buckets::from([(b"alone".to_vec(), Pairs::new())]));
    assert_eq!(file.len(), 5 * 4096);
}

/// Trees of every number of leaves up to three levels of branches: the last branch of a level never has one child.
#[test]
fn every_number_of_leaves() {
    let mut pairs = Pairs::new();
    let mut depths = Vec::new();
    for n in 0..300_u16 {
        // Three pairs a leaf, at most five children a branch.
        pairs.insert([&n.to_be_bytes()[..], &[b'k'; 70]].concat(), vec![1; 70]);
        let file = round_trip(512, &Buckets::from([(b"b".to_vec(), pairs.clone())]));
        depths.push(open(&file).unwrap().check().unwrap().depth);
    }
    assert!(depths.is_sorted());
    assert_eq!((depths[0], depths[299]), (1, 4));
}

/// Keys longer than a page, so that branches overflow too; and the longest key there is.
#[test]
fn long_keys() {
    let mut pairs = Pairs::new();
    for n in 0..40_u8 {
        pairs.insert([&[n][..], &vec![b'k'; 300 * usize::from(n)]].concat(), vec![n]);
    }
    pairs.insert(vec![0xff; 32_768], b"longest".to_vec());
    let file = round_trip(512, &Buckets::from([(b"b".to_vec(), pairs)]));
    assert!(pages(&file, 512).iter().any(|(_, flags, _, overflow)| *flags == BRANCH && *overflow > 0));
}

/// Pairs that end with their page, one byte before, and one behind.
#[test]
fn edges_of_pages() {
    for len in (4096 - 16 - 16 - 3..4096 - 16 - 16 + 3).chain(2 * 4096 - 16 - 16 - 3..2 * 4096 - 16 - 16 + 3)
    {
        for pairs in 1..4_u8 {
            let pairs: Pairs = (0..pairs).map(|n| (vec![n, n], vec![n; len - 2])).collect();
            round_trip(4096, &Buckets::from([(b"b".to_vec(), pairs)]));
        }
    }
}

#[test]
fn the_small_file_has_every_form() {
    let file = round_trip(512, &small_buckets());
    let summary = open(&file).unwrap().check().unwrap();
    assert!(summary.depth == 3 && summary.branch_pages > 2 && summary.overflow_pages > 2, "{summary:?}");
}

/// Whatever the pairs' size, at most a sixteenth of the leaves is unused: a length is told within that from the sizes
/// of the pairs alone (rule 18).
#[test]
fn little_room_is_left_empty() {
    for value_len in (0..600).step_by(7).chain((600..9000).step_by(211)).chain([100_000]) {
        let mut planner = Planner::new(4096).unwrap();
        planner.bucket(b"key").unwrap();
        let count = 2_000_000 / (value_len + 50);
        for _ in 0..count {
            planner.pair(17, value_len).unwrap();
        }
        let len = planner.finish().file_len();
        let pairs = (count * (16 + 17 + value_len)) as u64;
        // Beside the leaves: the meta pages, the freelist, the root, the last leaf, and a branch for 120 leaves.
        let all = len / 4096;
        let leaves = len - (5 + 2 + all / 120) * 4096;
        assert!(leaves * 15 / 16 <= pairs + 16 * all, "{count} values of {value_len}: {pairs} in {len}");
    }
}

/// Lengths beyond 32 bits are planned without writing anything.
#[test]
fn a_plan_of_many_gigabytes() {
    let mut planner = Planner::new(4096).unwrap();
    planner.bucket(b"key").unwrap();
    for _ in 0..20_000 {
        planner.pair(17, 1_500_000).unwrap();
    }
    planner.pair(17, (1 << 31) - 2).unwrap();
    planner.pair(17, 1).unwrap();
    let len = planner.finish().file_len();
    let pairs = 20_000 * 1_500_033 + (1 << 31);
    assert!((pairs..pairs + pairs / 300).contains(&len), "{len} of {pairs}");
}
