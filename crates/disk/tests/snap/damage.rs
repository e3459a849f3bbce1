//! Anything but what was written is refused by file and offset.

use super::*;

#[test]
fn every_flipped_bit_is_seen() {
    let fs = machine();
    let folder = folder(&fs);
    let written = snapshot(2, 300);
    let path = folder.write(&written).unwrap().unwrap();
    for offset in 0..fs.read(&path).unwrap().len() as u64 {
        for bit in 0..8 {
            fs.flip(&path, offset, 1 << bit).unwrap();
            let broken = folder.check().unwrap();
            assert_eq!(broken.len(), 1, "byte {offset} bit {bit} goes unnoticed");
            assert_eq!(broken[0].file, path);
            fs.flip(&path, offset, 1 << bit).unwrap();
        }
    }
    assert_eq!(folder.check().unwrap(), []);
}

#[test]
fn every_shorter_or_longer_file_is_seen() {
    let fs = machine();
    let folder = folder(&fs);
    let path = folder.write(&snapshot(2, 300)).unwrap().unwrap();
    let whole = fs.read(&path).unwrap();
    for len in 0..whole.len() {
        fs.put(&path, &whole[..len]).unwrap();
        assert_eq!(folder.check().unwrap().len(), 1, "{len} bytes");
    }
    fs.put(&path, &[&whole[..], &[0]].concat()).unwrap();
    assert_eq!(folder.check().unwrap().len(), 1);
}

/// Sums that are right, and what is wrong behind them.
#[test]
fn a_message_that_means_nothing_is_refused_where_it_begins() {
    let envelope = |message: &[u8]| {
        let mut file = vec![0x08];
        let mut push = |mut value: u64| {
            while value >= 0x80 {
                file.push(value as u8 | 0x80);
                value >>= 7;
            }
            file.push(value as u8);
        };
        push(crc32c::crc32c(message).into());
        file.push(0x12);
        file.push(u8::try_from(message.len()).unwrap());
        file.extend_from_slice(message);
        (file.len() - message.len(), file)
    };
    let metadata = |fields: &[u8]| [&[0x12, fields.len() as u8][..], fields].concat();
    let fs = machine();
    let folder = folder(&fs);
    let name = Name { term: 1, index: 5 };
    for (message, reason) in [
        (vec![], "a snapshot without metadata"),
        (vec![0x0a, 1, b'x'], "a snapshot without metadata"),
        (metadata(&[0x10, 5, 0x18, 1]), "a snapshot without ConfState"),
        (metadata(&[0x0a, 0, 0x18, 1]), "a snapshot without a term or an index"),
        (metadata(&[0x0a, 0, 0x10, 5, 0x18, 0]), "a snapshot without a term or an index"),
        (metadata(&[0x0a, 0, 0x10, 5, 0x18, 1, 0x20, 1]), "an unknown field, or one out of order"),
        (metadata(&[0x0a, 0, 0x18, 1, 0x10, 5]), "an unknown field, or one out of order"),
        (metadata(&[0x0a, 2, 0x28, 2, 0x10, 5, 0x18, 1]), "a flag that is neither 0 nor 1"),
        (metadata(&[0x0a, 0, 0x10, 6, 0x18, 1]), "its name is of another snapshot"),
    ] {
        let (offset, file) = envelope(&message);
        fs.put(folder.path(name), &file).unwrap();
        let broken = folder.read(name).unwrap().unwrap_err();
        assert_eq!(broken.reason, reason);
        let expected = if reason.starts_with("its name") { 0 } else { offset as u64 };
        assert_eq!((broken.file, broken.offset), (folder.path(name), expected), "{reason}");
    }
    let (_, file) = envelope(&metadata(&[0x0a, 0, 0x10, 5, 0x18, 1]));
    fs.put(folder.path(name), &file).unwrap();
    assert_eq!(read(&folder, name).name(), name);
}

#[test]
fn a_broken_file_is_set_aside_and_no_snapshot_any_more() {
    let fs = machine();
    let folder = folder(&fs);
    let path = folder.write(&snapshot(2, 300)).unwrap().unwrap();
    folder.write(&snapshot(2, 200)).unwrap().unwrap();
    fs.flip(&path, 20, 4).unwrap();
    let broken = folder.check().unwrap();
    let bytes = fs.read(&path).unwrap();
    let aside = folder.set_aside(&broken[0]).unwrap();
    assert_eq!(aside.file_name().unwrap(), "0000000000000002-000000000000012c.snap.broken");
    assert_eq!(fs.read(aside).unwrap(), bytes);
    assert_eq!(indexes(&folder), [200]);
    assert_eq!(folder.check().unwrap(), []);
}
