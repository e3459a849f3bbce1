//! The cases are those of etcd's own tests (corrupt_test.go), and a few more.

use super::*;

const OWN: u64 = 1;

fn hash(hash: u32, compact_revision: i64, hash_revision: i64) -> KvHash {
    KvHash { hash, compact_revision, hash_revision }
}

fn told(id: u64, hash: KvHash, revision: i64) -> PeerHash {
    PeerHash { id, answer: Ok(Hashed { hash, revision }) }
}

fn silent(id: u64, why: NoHash) -> PeerHash {
    PeerHash { id, answer: Err(why) }
}

#[test]
fn only_another_hash_at_the_same_compacted_revision_keeps_a_member_from_starting() {
    let own = hash(1, 5, 10);
    let answer = |hash| Ok(Hashed { hash, revision: 12 });
    for (told, found) in [
        (answer(hash(1, 5, 10)), Initial::Same),
        (answer(hash(1, 7, 10)), Initial::Same),
        (answer(hash(2, 5, 10)), Initial::OtherHash),
        (answer(hash(2, 7, 10)), Initial::OtherCompaction),
        (Err(NoHash::FutureRevision), Initial::PeerBehind),
        (Err(NoHash::Compacted), Initial::Behind),
        (Err(NoHash::OtherCluster), Initial::OtherCluster),
        (Err(NoHash::TooOld), Initial::NoAnswer),
        (Err(NoHash::NoAnswer), Initial::NoAnswer),
    ] {
        assert_eq!(initial(own, &told), found, "{told:?}");
    }
}

#[test]
fn a_periodic_check_finds_what_cannot_be() {
    let leader = |first, second, revision| LeaderHashes { first, second: Hashed { hash: second, revision } };
    let quiet = leader(hash(1, 1, 1), hash(1, 1, 1), 1);
    let moved = leader(hash(1, 1, 1), hash(2, 2, 2), 2);
    let own = |fault| vec![(OWN, fault)];
    for (case, leader, peers, found) in [
        ("nobody else", quiet, vec![], vec![]),
        ("another revision since", leader(hash(1, 0, 1), hash(2, 0, 2), 2), vec![], vec![]),
        ("another compaction since", leader(hash(1, 1, 1), hash(2, 2, 1), 1), vec![], vec![]),
        ("another hash of the same", leader(hash(1, 1, 1), hash(2, 1, 1), 1), vec![], own(Fault::Unstable)),
        ("no answer", quiet, vec![silent(2, NoHash::NoAnswer)], vec![]),
        ("another cluster", quiet, vec![silent(2, NoHash::OtherCluster)], vec![]),
        ("an old version", quiet, vec![silent(2, NoHash::TooOld)], vec![]),
        ("the same", quiet, vec![told(2, hash(1, 1, 1), 1)], vec![]),
        ("a newer revision", quiet, vec![told(2, hash(1, 1, 1), 2)], vec![(2, Fault::Revision { told: 2 })]),
        ("a newer revision that the leader has since", moved, vec![told(2, hash(1, 1, 1), 2)], vec![]),
        (
            "a newer compaction",
            quiet,
            vec![told(2, hash(2, 3, 1), 1)],
            vec![(2, Fault::CompactRevision { told: 3 })],
        ),
        ("a newer compaction that the leader has since", moved, vec![told(2, hash(7, 2, 1), 1)], vec![]),
        (
            "another hash",
            moved,
            vec![told(2, hash(2, 1, 1), 1)],
            vec![(2, Fault::Hash { told: hash(2, 1, 1) })],
        ),
        (
            "several, each with all that is wrong with it",
            quiet,
            vec![told(3, hash(9, 1, 1), 4), told(2, hash(1, 1, 1), 1), told(4, hash(1, 5, 1), 1)],
            vec![
                (3, Fault::Revision { told: 4 }),
                (3, Fault::Hash { told: hash(9, 1, 1) }),
                (4, Fault::CompactRevision { told: 5 }),
            ],
        ),
    ] {
        assert_eq!(periodic(OWN, &leader, &peers), found, "{case}");
    }
}

#[test]
fn those_outside_the_majority_are_named_and_without_one_all_are_meant() {
    let of = |hashes: &[Option<u32>]| -> Vec<PeerHash> {
        let peer = |(place, told_hash): (usize, &Option<u32>)| match told_hash {
            Some(value) => told(place as u64 + 42, hash(*value, 1, 2), 9),
            None => silent(place as u64 + 42, NoHash::NoAnswer),
        };
        hashes.iter().enumerate().map(peer).collect()
    };
    for (case, peers, alarms, is_final) in [
        ("all the same", of(&[Some(2), Some(2)]), vec![], true),
        ("one is silent, the rest the same", of(&[None, Some(2)]), vec![], false),
        ("all are silent", of(&[None, None]), vec![], false),
        ("one of three", of(&[Some(2), Some(3)]), vec![43], true),
        ("the leader of three", of(&[Some(3), Some(3)]), vec![OWN], true),
        ("two of three differ", of(&[Some(3), Some(4)]), vec![0], true),
        ("one of two", of(&[Some(3)]), vec![0], true),
        ("one of three is silent, one other", of(&[None, Some(3)]), vec![0], true),
        ("one of five", of(&[Some(2), Some(2), Some(3), Some(2)]), vec![44], true),
        ("two of five, with one hash", of(&[Some(2), Some(2), Some(7), Some(7)]), vec![44, 45], true),
        ("two of five, with one each", of(&[Some(8), Some(2), Some(7), Some(2)]), vec![44, 42], true),
        ("one of five, one is silent", of(&[Some(2), None, Some(3), Some(2)]), vec![44], true),
        ("one of four, two and two", of(&[Some(2), Some(3), Some(3)]), vec![0], true),
        (
            "none of seven has a majority",
            of(&[Some(2), Some(3), Some(3), Some(3), Some(4), Some(2)]),
            vec![0],
            true,
        ),
    ] {
        let mut checks = CompactionChecks::default();
        let first = checks.judge(OWN, hash(2, 1, 2), &peers).outcome;
        assert!(first.alarms().is_empty(), "{case}: what differs is looked at once more");
        let verdict = checks.judge(OWN, hash(2, 1, 2), &peers);
        assert_eq!(verdict.outcome.alarms(), alarms, "{case}");
        assert_eq!(verdict.outcome.is_final(), is_final, "{case}");
        assert_eq!(verdict.compared + verdict.skipped.len(), peers.len(), "{case}");
    }
}

#[test]
fn what_cannot_be_compared_is_told_and_counts_for_nobody() {
    let peers = [
        silent(2, NoHash::NoAnswer),
        silent(3, NoHash::Compacted),
        silent(4, NoHash::TooOld),
        told(5, hash(77, 3, 2), 9),
    ];
    let verdict = CompactionChecks::default().judge(OWN, hash(2, 1, 2), &peers);
    assert_eq!((verdict.compared, &verdict.outcome), (0, &Outcome::SameOfSome));
    let reasons: Vec<_> = verdict.skipped.iter().map(|(id, why)| (*id, why.to_string())).collect();
    let expected = [
        (2, "no response"),
        (3, "no response"),
        (4, "the peer's version is below 3.5.16"),
        (5, "the peer's CompactRevision 3 doesn't match leader's CompactRevision 1"),
    ];
    assert_eq!(reasons, expected.map(|(id, why)| (id, why.to_owned())));
}

#[test]
fn a_member_that_is_late_with_its_hash_is_waited_for_once() {
    let mut checks = CompactionChecks::default();
    let leader = hash(2, 1, 2);
    let (other, late) = (told(2, hash(3, 1, 2), 9), told(3, hash(77, 2, 2), 9));
    assert_eq!(checks.unchecked(vec![leader]), [leader]);
    let verdict = checks.judge(OWN, leader, &[other, late]);
    assert_eq!((&verdict.outcome, verdict.outcome.is_final()), (&Outcome::Undecided, false));
    assert!(verdict.outcome.alarms().is_empty());
    // It has its hash by then.
    let named = checks.clone().judge(OWN, leader, &[other, told(3, leader, 9)]);
    assert_eq!(named.outcome.alarms(), [2]);
    // It has given it up.
    assert_eq!(checks.unchecked(vec![leader]), [leader]);
    assert_eq!(checks.judge(OWN, leader, &[other, late]).outcome.alarms(), [0]);
}

/// A key is put, everything is compacted, the key is deleted, and everything is compacted again. Who has applied all but the
/// last tells another hash of that revision than who keeps the compaction's, as etcd does, and nobody's data is wrong.
#[test]
fn a_member_that_is_about_to_compact_where_nothing_lives_is_not_accused() {
    let mut checks = CompactionChecks::default();
    let leader = hash(7, 2, 3);
    let (behind, level) = (told(2, hash(8, 2, 3), 3), told(3, leader, 3));
    assert!(checks.judge(OWN, leader, &[behind, level]).outcome.alarms().is_empty());
    assert_eq!(checks.judge(OWN, leader, &[told(2, leader, 3), level]).outcome, Outcome::Same);
}

#[test]
fn hashes_are_compared_newest_first_until_one_is_the_same_everywhere() {
    let mut checks = CompactionChecks::default();
    let kept: Vec<KvHash> = [2, 4, 1, 3].map(|revision| hash(7, 0, revision)).into();
    let revisions = |checks: &mut CompactionChecks| -> Vec<i64> {
        checks.unchecked(kept.clone()).iter().map(|hash| hash.hash_revision).collect()
    };
    assert_eq!(revisions(&mut checks), [4, 3, 2, 1]);
    // Neither what not all have told, nor a difference, ends the matter.
    let silent = [told(2, hash(7, 0, 4), 9), silent(3, NoHash::NoAnswer)];
    assert!(!checks.judge(OWN, hash(7, 0, 4), &silent).outcome.is_final());
    assert!(!checks.judge(OWN, hash(7, 0, 4), &[told(2, hash(8, 0, 4), 9)]).outcome.is_final());
    assert!(checks.judge(OWN, hash(7, 0, 4), &[told(2, hash(8, 0, 4), 9)]).outcome.is_final());
    assert_eq!(revisions(&mut checks), [4, 3, 2, 1]);
    assert_eq!(checks.judge(OWN, hash(7, 0, 3), &[told(2, hash(7, 0, 3), 9)]).outcome, Outcome::Same);
    assert_eq!(revisions(&mut checks), [4]);
    assert_eq!(checks.judge(OWN, hash(7, 0, 2), &[told(2, hash(7, 0, 2), 9)]).outcome, Outcome::Same);
    assert_eq!(revisions(&mut checks), [4], "an older one takes nothing back");
}

#[test]
fn etcds_hashes_are_comparable_from_3_5_16_on() {
    let compared = |text: &str| text.parse::<Version>().expect("a version") >= COMPARED_FROM;
    for (version, is_compared) in
        [("3.4.33", false), ("3.5.15", false), ("3.5.16", true), ("3.5.17", true), ("3.6.0", true)]
    {
        assert_eq!(compared(version), is_compared, "{version}");
    }
}
