//! Logs that the real etcd wrote, without their zero tail, and what is in them.

use super::*;

/// Written by etcd 3.7.1: a new member of one, five puts, kill -9.
const ETCD_3_7: &[u8] = include_bytes!("../golden/etcd-3.7.1-puts.wal");

#[test]
fn etcd_3_7_record_for_record() {
    let fs = machine();
    fs.create_dir_all(Path::new(DIR), 0o700).unwrap();
    fs.put(FIRST, ETCD_3_7).unwrap();
    let contents = read(&fs).unwrap();
    assert_eq!(contents.metadata.len(), 21);
    assert_eq!(contents.state, Some(HardState { term: 2, vote: 443_629_905_751_424_238, commit: 8 }));
    assert_eq!(contents.last, Position { term: 2, index: 9 });
    let kinds: Vec<EntryKind> = contents.entries.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds[0], EntryKind::ConfChange);
    assert!(kinds[1..].iter().all(|kind| *kind == EntryKind::Normal));
    assert!(contents.entries[1].data.is_empty());
    assert!(contents.entries[8].data.windows(4).any(|part| part == b"k5\x12\x02"));
}

fn read_bytes(bytes: &[u8]) -> Contents {
    let fs = machine();
    fs.create_dir_all(Path::new(DIR), 0o700).unwrap();
    fs.put(FIRST, bytes).unwrap();
    read(&fs).unwrap()
}

/// Written by Debian's etcd 3.4: twelve puts, a snapshot each five. It says nothing of the membership.
#[test]
fn etcd_3_4_with_snapshots() {
    let contents = read_bytes(include_bytes!("../golden/etcd-3.4-snapshots.wal"));
    assert!(contents.snapshots.len() > 1);
    assert!(contents.snapshots.iter().all(|snapshot| snapshot.conf_state.is_none()));
    assert!(contents.entries.last().unwrap().data.windows(5).any(|part| part == b"k12\x12\x03"));
}

/// Written by etcd 3.7.1: twelve puts, a snapshot each five, kill -9, --force-new-cluster, two more puts.
#[test]
fn etcd_3_7_with_snapshots_and_a_forced_new_cluster() {
    let contents = read_bytes(include_bytes!("../golden/etcd-3.7.1-snapshots-force-new-cluster.wal"));
    let newest = contents.snapshots.last().unwrap();
    assert_eq!((newest.index, newest.term), (18, 3));
    assert_eq!(newest.conf_state.as_ref().unwrap().voters, [443_629_905_751_424_238]);
    assert!(contents.last.index > 18);
}

/// Written by etcdutl 3.7.1: a snapshot restored as a new member.
#[test]
fn etcdutl_restore() {
    let contents = read_bytes(include_bytes!("../golden/etcdutl-3.7.1-restore.wal"));
    assert_eq!(contents.snapshots.len(), 2);
    assert_eq!(contents.snapshots[1].index, contents.last.index);
}

#[test]
fn etcd_3_7_goes_on_here() {
    let fs = machine();
    fs.create_dir_all(Path::new(DIR), 0o700).unwrap();
    fs.put(FIRST, ETCD_3_7).unwrap();
    let mut wal = open(&fs).unwrap().into_writer().unwrap();
    append(
        &mut wal,
        &[entry(2, 10, "ours")],
        Some(HardState { term: 2, vote: 443_629_905_751_424_238, commit: 10 }),
    );
    drop(wal);
    let contents = read(&fs).unwrap();
    assert_eq!((contents.entries.len(), contents.last.index), (10, 10));
    assert_eq!(fs.read(FIRST).unwrap()[..ETCD_3_7.len()], *ETCD_3_7);
}

/// The same records, encoded by us, are the same bytes.
#[test]
fn our_encoding_is_etcds() {
    let etcds = machine();
    etcds.create_dir_all(Path::new(DIR), 0o700).unwrap();
    etcds.put(FIRST, ETCD_3_7).unwrap();
    let theirs = read(&etcds).unwrap();
    let vote = theirs.state.unwrap().vote;
    let ours = machine();
    let mut wal = create(&ours, &theirs.metadata);
    let at = |index: usize| std::slice::from_ref(&theirs.entries[index - 1]);
    append(&mut wal, at(1), Some(HardState { term: 1, vote: 0, commit: 1 }));
    append(&mut wal, &[], Some(HardState { term: 2, vote, commit: 1 }));
    append(&mut wal, at(2), None);
    append(&mut wal, at(3), Some(HardState { term: 2, vote, commit: 3 }));
    for index in 4..=8 {
        append(&mut wal, at(index), Some(HardState { term: 2, vote, commit: index as u64 }));
    }
    append(&mut wal, at(9), None);
    drop(wal);
    assert_eq!(ours.read(FIRST).unwrap()[..ETCD_3_7.len()], *ETCD_3_7);
}
