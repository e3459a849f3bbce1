//! Rule 5: what is torn is cut, what is rotten is refused with file and offset, and nothing is changed then.

use super::*;

/// A log of several segments, with no sector of zeros inside a record.
fn log() -> MemFs {
    let fs = machine();
    let mut wal = create(&fs, b"metadata");
    let mut random = Random(1);
    let mut data = |len: usize| -> Vec<u8> { (0..len).map(|_| random.next() as u8 | 1).collect() };
    append(&mut wal, &[entry(1, 1, data(40)), entry(1, 2, "")], Some(state(1, 1)));
    append(&mut wal, &[entry(2, 3, data(900))], Some(state(2, 2)));
    append(&mut wal, &[entry(2, 4, data(600)), entry(2, 5, data(9))], Some(state(2, 3)));
    wal.append_snapshot(&snapshot(2, 3), None).unwrap();
    append(&mut wal, &[entry(3, 5, data(300))], Some(state(3, 4)));
    append(&mut wal, &[entry(3, 6, data(1200))], Some(state(3, 6)));
    append(&mut wal, &[entry(3, 7, data(700)), entry(3, 8, "")], Some(state(3, 8)));
    drop(wal);
    assert_eq!(fs.files().len(), 3, "{fs:?}");
    fs
}

/// Where the frames of a segment begin, and where the last one ends.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut all = vec![0];
    loop {
        let at = *all.last().unwrap();
        let field = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        if field == 0 {
            return all;
        }
        let len = field & 0x00ff_ffff_ffff_ffff;
        all.push(at + 8 + (len as usize).next_multiple_of(8));
    }
}

#[test]
fn any_byte_of_any_segment_flipped() {
    let pristine = log();
    let whole = read(&pristine.copy()).unwrap();
    let mut random = Random(5);
    let (mut refusals, mut harmless) = (0, 0);
    for file in pristine.files() {
        let len = pristine.read(&file).unwrap().len() as u64;
        for offset in 0..len {
            let masks =
                [1, 2, 4, 8, 16, 32, 64, 128, 255, random.below(255) as u8 + 1, random.below(255) as u8 + 1];
            for mask in masks {
                let what = format!("{} @{offset} ^{mask:#x}", file.display());
                let fs = pristine.copy();
                fs.flip(&file, offset, mask).unwrap();
                let before: Vec<Vec<u8>> = fs.files().iter().map(|file| fs.read(file).unwrap()).collect();
                let opened = match open(&fs) {
                    Ok(opened) => opened,
                    Err(Error::Damaged { file: named, offset: at, .. }) => {
                        // What a changed record breaks may show only later: a term, for one.
                        assert!(named > file || named == file && at <= len, "{what} named {named:?} @{at}");
                        let after: Vec<Vec<u8>> =
                            fs.files().iter().map(|file| fs.read(file).unwrap()).collect();
                        assert_eq!(before, after, "{what}: refused, but changed");
                        refusals += 1;
                        continue;
                    }
                    Err(error) => panic!("{what}: {error}"),
                };
                assert_eq!(contents(&opened).unwrap(), whole, "{what} made a difference");
                drop(opened.into_writer().unwrap());
                let opened = open(&fs).unwrap();
                assert_eq!(contents(&opened).unwrap(), whole, "{what} made a difference after the repair");
                assert_eq!(opened.torn(), None, "{what}: torn after the repair");
                harmless += 1;
            }
        }
    }
    assert!(refusals > 30_000 && harmless > 100, "{refusals} refused, {harmless} harmless");
}

/// The newest segment of [`log`], and where its frames begin.
fn newest(fs: &MemFs) -> (std::path::PathBuf, Vec<u8>, Vec<usize>) {
    let path = fs.files().pop().unwrap();
    let bytes = fs.read(&path).unwrap();
    let frames = frames(&bytes);
    (path, bytes, frames)
}

#[test]
fn a_group_with_an_unwritten_sector_is_torn() {
    let fs = log();
    let (path, bytes, frames) = newest(&fs);
    // The last group: an entry of 700 bytes, an empty one, a hard state.
    let group = frames[frames.len() - 4];
    let first_sector = group.next_multiple_of(512);
    for lost in (first_sector..bytes.len()).step_by(512).chain([group]) {
        let mut torn = bytes.clone();
        let end = if lost == group { first_sector } else { lost + 512 };
        if torn[lost..end].iter().all(|&byte| byte == 0) {
            continue;
        }
        torn[lost..end].fill(0);
        let fs = fs.copy();
        fs.put(&path, &torn).unwrap();
        let opened = open(&fs).unwrap();
        let last = opened.last().index;
        assert!(last == 6 || (last >= 7 && lost > first_sector), "last entry {last} with {lost} lost");
        drop(opened.into_writer().unwrap());
        let repaired = fs.read(&path).unwrap();
        assert_eq!(repaired.len(), bytes.len());
        assert_eq!(repaired[..group], bytes[..group]);
        assert_eq!(open(&fs).unwrap().last().index, last);
    }
}

#[test]
fn a_bad_record_without_an_unwritten_sector_is_damage() {
    let fs = log();
    let (path, _, frames) = newest(&fs);
    let entry = frames[frames.len() - 4];
    fs.flip(&path, entry as u64 + 100, 1).unwrap();
    let (file, offset, reason) = refused(&fs);
    assert_eq!((file.as_str(), offset), (path.file_name().unwrap().to_str().unwrap(), entry as u64));
    assert_eq!(reason, "the record does not verify");
}

#[test]
fn an_unwritten_sector_in_an_older_segment_is_damage() {
    let fs = log();
    let older = fs.files()[0].clone();
    let mut bytes = fs.read(&older).unwrap();
    bytes[512..1024].fill(0);
    fs.put(&older, &bytes).unwrap();
    let (file, offset, reason) = refused(&fs);
    assert_eq!(file, older.file_name().unwrap().to_str().unwrap());
    assert!(offset < 512, "{offset}");
    assert_eq!(reason, "the record does not verify");
}

#[test]
fn anything_behind_an_older_segments_end_is_damage() {
    let fs = machine();
    append(&mut create(&fs, b"m"), &[entry(1, 1, "short"), entry(1, 2, vec![1; 2000])], None);
    let older = fs.files()[0].clone();
    let bytes = fs.read(&older).unwrap();
    let end = *frames(&bytes).last().unwrap() as u64;
    assert!(end < bytes.len() as u64 - 520);
    fs.flip(&older, bytes.len() as u64 - 1, 1).unwrap();
    let (file, offset, reason) = refused(&fs);
    assert_eq!((file.as_str(), offset), (older.file_name().unwrap().to_str().unwrap(), end));
    assert_eq!(reason, "a length of zero, but the rest of an older segment is not zero");
}

#[test]
fn an_older_segment_cut_short_is_damage() {
    let fs = log();
    let older = fs.files()[0].clone();
    let bytes = fs.read(&older).unwrap();
    let frames = frames(&bytes);
    fs.put(&older, &bytes[..frames[frames.len() - 2]]).unwrap();
    let (file, offset, _) = refused(&fs);
    // It shows where the next segment's sum does not continue.
    assert_eq!((file.as_str(), offset), (fs.files()[1].file_name().unwrap().to_str().unwrap(), 0));
}

#[test]
fn a_missing_segment_is_damage() {
    let fs = log();
    let middle = fs.files()[1].clone();
    fs.remove(&middle).unwrap();
    assert!(refused(&fs).2.contains("missing"));
    let fs = log();
    fs.remove(&fs.files()[0]).unwrap();
    // The oldest, which no snapshot record covers.
    assert_eq!(refused(&fs).2, "no snapshot record at or below the commit index");
}

#[test]
fn a_length_that_disagrees_is_damage_even_before_zeros() {
    let fs = log();
    let (path, _, frames) = newest(&fs);
    // The last record claims to reach far into the zeros behind it.
    let last = frames[frames.len() - 2] as u64;
    fs.flip(&path, last + 1, 4).unwrap();
    let (_, offset, reason) = refused(&fs);
    assert_eq!((offset, reason.as_str()), (last, "the length field disagrees with the record behind it"));
}

#[test]
fn a_lost_length_is_kept_and_written_again() {
    let pristine = log();
    let whole = read(&pristine.copy()).unwrap();
    for path in pristine.files() {
        let bytes = pristine.read(&path).unwrap();
        for at in frames(&bytes) {
            let fs = pristine.copy();
            let mut lost = bytes.clone();
            lost[at..at + 8].fill(0);
            fs.put(&path, &lost).unwrap();
            assert_eq!(read(&fs).unwrap(), whole, "length at {at}");
            drop(open(&fs).unwrap().into_writer().unwrap());
            assert_eq!(fs.read(&path).unwrap(), bytes, "length at {at}");
        }
    }
}

#[test]
fn zero_length_before_bytes_in_the_same_sector_is_damage() {
    let fs = log();
    let (path, bytes, frames) = newest(&fs);
    let end = *frames.last().unwrap();
    assert!(end % 512 < 500);
    fs.flip(&path, end as u64 + 8, 1).unwrap();
    let (_, offset, reason) = refused(&fs);
    assert_eq!(
        (offset as usize, reason.as_str()),
        (end, "a length of zero, but the rest of the sector is not zero")
    );

    // In a later sector it is a part of a group that was never acknowledged.
    let fs = log();
    let later = end.next_multiple_of(512);
    assert!(later < bytes.len());
    fs.flip(&path, later as u64, 1).unwrap();
    drop(open(&fs).unwrap().into_writer().unwrap());
    assert_eq!(fs.read(&path).unwrap(), bytes);
}

#[test]
fn a_segments_first_records_are_never_torn() {
    let fs = log();
    let (path, mut bytes, _) = newest(&fs);
    bytes.fill(0);
    fs.put(&path, &bytes).unwrap();
    assert_eq!(refused(&fs).2, "the segment's first records are missing");
    fs.put(&path, &[]).unwrap();
    assert_eq!(refused(&fs).2, "the segment's first records are missing");
}

/// The sum does not cover a record's type; only strict decoding finds a changed one.
#[test]
fn no_record_passes_for_another_type() {
    let pristine = log();
    for path in pristine.files() {
        let bytes = pristine.read(&path).unwrap();
        let frames = frames(&bytes);
        for at in &frames[..frames.len() - 1] {
            let kind_at = at + 9;
            for kind in 0..=255 {
                if kind == bytes[kind_at] {
                    continue;
                }
                let fs = pristine.copy();
                fs.flip(&path, kind_at as u64, kind ^ bytes[kind_at]).unwrap();
                refused(&fs);
            }
        }
    }
}
