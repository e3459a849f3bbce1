//! A log that version 0.1 wrote opens in every later one, and the same records are still the same bytes.
//!
//! The files are written by `UPDATE_EXPECT=1`; a later version keeps them and adds its own beside them.

use super::*;

fn write() -> MemFs {
    let fs = machine();
    let mut wal = create(&fs, b"\x08\x01\x10\x02");
    let change = Entry { kind: EntryKind::ConfChange, ..entry(1, 1, "\x10\x00\x18\x01") };
    append(&mut wal, &[change], Some(HardState { term: 1, vote: 0, commit: 1 }));
    append(&mut wal, &[entry(2, 2, "")], Some(HardState { term: 2, vote: 1, commit: 1 }));
    append(&mut wal, &[entry(2, 3, vec![b'x'; 1200]), entry(2, 4, vec![b'y'; 700])], Some(state(2, 4)));
    append(&mut wal, &[entry(2, 5, "replaced")], None);
    append(&mut wal, &[entry(3, 5, "replacing"), entry(3, 6, vec![b'z'; 127])], Some(state(3, 5)));
    wal.append_snapshot(&snapshot(2, 4), None).unwrap();
    append(&mut wal, &[], Some(state(3, 6)));
    fs
}

fn describe(contents: &Contents) -> String {
    let mut text = format!("metadata {:?}\n{:?}\n", contents.metadata, contents.state);
    for snapshot in &contents.snapshots {
        text += &format!("{snapshot:?}\n");
    }
    for Entry { term, index, kind, data } in &contents.entries {
        let start = String::from_utf8_lossy(&data[..data.len().min(16)]);
        text += &format!("entry {index} term {term} {kind:?} {} bytes {start:?}\n", data.len());
    }
    text
}

#[test]
fn version_0_1() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/quorate-0.1");
    let fresh = write();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        for file in fresh.files() {
            std::fs::write(dir.join(file.file_name().unwrap()), fresh.read(&file).unwrap()).unwrap();
        }
    }
    let golden = machine();
    golden.create_dir_all(Path::new(DIR), 0o700).unwrap();
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            let bytes = std::fs::read(&path).unwrap();
            golden.put(Path::new(DIR).join(path.file_name().unwrap()), &bytes).unwrap();
        }
    }
    assert_eq!(golden.files(), fresh.files());
    for file in golden.files() {
        assert!(
            golden.read(&file).unwrap() == fresh.read(&file).unwrap(),
            "{} is written otherwise now",
            file.display()
        );
    }
    let contents = read(&golden).unwrap();
    expect_test::expect_file!["../golden/quorate-0.1/contents.txt"].assert_eq(&describe(&contents));
}
