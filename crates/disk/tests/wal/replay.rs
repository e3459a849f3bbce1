//! What was appended is what is read: replacements, snapshots, rolls, odd sizes, locks, refusals.

use super::*;

#[test]
fn a_new_log_is_empty() {
    let fs = machine();
    drop(create(&fs, b"meta"));
    let contents = read(&fs).unwrap();
    assert_eq!(contents.metadata, b"meta");
    assert_eq!(contents.state, None);
    assert_eq!(contents.snapshots, [SnapshotRecord::default()]);
    assert!(contents.entries.is_empty());
    assert!(matches!(
        Wal::create(Arc::new(fs.clone()), Path::new(DIR), b"x", Limits::tiny()),
        Err(Error::Exists(_))
    ));
    assert!(matches!(
        Wal::open(Arc::new(fs), Path::new("/elsewhere"), Limits::tiny()),
        Err(Error::Missing(_))
    ));
}

#[test]
fn every_kind_and_size_comes_back() {
    let fs = machine();
    let mut wal = create(&fs, b"");
    let mut entries = Vec::new();
    for (at, len) in
        [0, 1, 7, 8, 9, 100, 127, 128, 500, 1024, 1900, 5000, 0, 20_000, 3].into_iter().enumerate()
    {
        let mut next = entry(1 + at as u64 / 4, at as u64 + 1, vec![at as u8; len]);
        if len > 0 {
            next.kind = [EntryKind::Normal, EntryKind::ConfChange, EntryKind::ConfChangeV2][at % 3];
        }
        append(&mut wal, std::slice::from_ref(&next), None);
        entries.push(next);
    }
    append(&mut wal, &[], Some(HardState { term: 4, vote: u64::MAX, commit: 3 }));
    assert_eq!(wal.durable(), Position { term: 4, index: 15 });
    drop(wal);
    let opened = open(&fs).unwrap();
    assert_eq!(contents(&opened).unwrap().entries, entries);
    assert_eq!(opened.hard_state(), Some(HardState { term: 4, vote: u64::MAX, commit: 3 }));
    for after in 0..=15 {
        let rest: Vec<Entry> = opened.entries(after).collect::<Result<_>>().unwrap();
        assert_eq!(rest, entries[after as usize..], "after {after}");
    }
    assert!(fs.files().len() > 4, "nothing rolled");
}

#[test]
fn the_first_record_may_be_longer_than_a_segment() {
    let fs = machine();
    let mut wal = create(&fs, &[b'm'; 3000]);
    append(&mut wal, &[entry(1, 1, vec![1; 9000])], Some(state(1, 1)));
    fs.power_cut(1);
    let contents = read(&fs).unwrap();
    assert_eq!((contents.metadata.len(), contents.entries[0].data.len()), (3000, 9000));
}

#[test]
fn appending_goes_on_after_each_reopening() {
    let fs = machine();
    drop(create(&fs, b"m"));
    let mut entries = Vec::new();
    for index in 1..60 {
        let mut wal = open(&fs).unwrap().into_writer().unwrap();
        entries.push(entry(1, index, vec![index as u8; 50]));
        append(&mut wal, &entries[index as usize - 1..], Some(state(1, index)));
        drop(wal);
        let before = fs.read(FIRST).unwrap();
        assert_eq!(read(&fs).unwrap().entries, entries);
        drop(open(&fs).unwrap().into_writer().unwrap());
        assert_eq!(fs.read(FIRST).unwrap(), before, "starting twice changed something");
    }
    assert!(fs.files().len() > 2, "nothing rolled");
}

#[test]
fn later_entries_replace_conflicting_ones() {
    let fs = machine();
    let mut wal = create(&fs, b"m");
    append(
        &mut wal,
        &[entry(1, 1, "a"), entry(1, 2, "b"), entry(3, 3, "c"), entry(3, 4, "d")],
        Some(state(3, 1)),
    );
    // A leader of term 4 whose log is older at 3 (figure 8 of the Raft paper): its entry has a lower term.
    append(&mut wal, &[entry(2, 3, "C")], Some(state(4, 1)));
    append(&mut wal, &[entry(4, 4, "D")], None);
    append(&mut wal, &[entry(4, 4, "E"), entry(4, 5, "F")], None);
    drop(wal);
    let texts = |after| -> Vec<Bytes> {
        open(&fs).unwrap().entries(after).map(|entry| entry.unwrap().data).collect()
    };
    assert_eq!(texts(0), ["a", "b", "C", "E", "F"]);
    assert_eq!(texts(3), ["E", "F"]);
}

#[test]
fn a_snapshot_of_our_own_keeps_the_entries_before_it() {
    let fs = machine();
    let mut wal = create(&fs, b"m");
    append(&mut wal, &[entry(1, 1, "a"), entry(1, 2, "b"), entry(1, 3, "c")], None);
    append(&mut wal, &[], Some(state(1, 3)));
    wal.append_snapshot(&snapshot(1, 2), None).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let opened = open(&fs).unwrap();
    assert_eq!(opened.newest_snapshot(), &snapshot(1, 2));
    assert_eq!((opened.first_index(), opened.last()), (Some(1), Position { term: 1, index: 3 }));
}

#[test]
fn a_leaders_snapshot_overtakes_the_log() {
    let fs = machine();
    let mut wal = create(&fs, b"m");
    append(&mut wal, &[entry(1, 1, "a"), entry(2, 2, "b")], Some(state(2, 1)));
    wal.append_snapshot(&snapshot(3, 9), Some(state(3, 9))).unwrap();
    wal.sync().unwrap();
    assert_eq!(wal.durable(), Position { term: 3, index: 9 });
    let contents = read(&fs.copy()).unwrap();
    assert_eq!((contents.entries, contents.last), (vec![], Position { term: 3, index: 9 }));
    append(&mut wal, &[entry(3, 10, "j")], None);
    drop(wal);
    assert_eq!(read(&fs).unwrap().entries, [entry(3, 10, "j")]);
}

#[test]
fn a_leaders_snapshot_replaces_a_conflicting_log() {
    let fs = machine();
    let mut wal = create(&fs, b"m");
    append(&mut wal, &(1..=9).map(|index| entry(2, index, "old")).collect::<Vec<_>>(), Some(state(2, 1)));
    // The log reaches beyond the snapshot but disagrees there, so that nothing of it is left.
    wal.append_snapshot(&snapshot(3, 5), Some(state(3, 5))).unwrap();
    wal.sync().unwrap();
    let contents = read(&fs.copy()).unwrap();
    assert_eq!((contents.entries, contents.last), (vec![], Position { term: 3, index: 5 }));
    append(&mut wal, &[entry(3, 6, "new")], None);
    drop(wal);
    assert_eq!(read(&fs).unwrap().entries, [entry(3, 6, "new")]);
}

#[test]
fn a_snapshot_above_the_commit_index_is_ignored() {
    let fs = machine();
    let mut wal = create(&fs, b"m");
    append(&mut wal, &[entry(1, 1, "a")], Some(state(1, 1)));
    let offset = fs.read(FIRST).unwrap().iter().rposition(|&byte| byte != 0).unwrap() as u64;
    wal.append_snapshot(&snapshot(3, 9), Some(state(3, 9))).unwrap();
    wal.sync().unwrap();
    drop(wal);
    // Take the hard state away: the last 32 bytes that are not zero.
    let mut bytes = fs.read(FIRST).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap().next_multiple_of(8);
    assert!(end as u64 - 32 > offset);
    bytes[end - 32..].fill(0);
    fs.put(FIRST, &bytes).unwrap();
    let contents = read(&fs).unwrap();
    assert_eq!(contents.snapshots, [SnapshotRecord::default()]);
    assert_eq!(contents.entries, [entry(1, 1, "a")]);
}

#[test]
fn two_cannot_have_it() {
    let fs = machine();
    let wal = create(&fs, b"m");
    assert!(matches!(open(&fs), Err(Error::Locked(_))));
    drop(wal);
    let opened = open(&fs).unwrap();
    assert!(matches!(open(&fs), Err(Error::Locked(_))));
    drop(opened);
    assert!(open(&fs).is_ok());
}

#[test]
#[should_panic(expected = "leaves a gap")]
fn a_gap_is_a_bug_of_the_caller() {
    append(&mut create(&machine(), b"m"), &[entry(1, 2, "b")], None);
}

#[test]
#[should_panic(expected = "replaces a committed one")]
fn replacing_what_is_committed_is_a_bug_of_the_caller() {
    let mut wal = create(&machine(), b"m");
    append(&mut wal, &[entry(1, 1, "a")], Some(state(1, 1)));
    append(&mut wal, &[entry(2, 1, "b")], None);
}
