//! Every operation on the file system, as a transcript that a reviewer reads. `UPDATE_EXPECT=1` rewrites it.

use expect_test::expect_file;

use super::*;

struct Story {
    fs: MemFs,
    text: String,
}

impl Story {
    fn new() -> Self {
        let fs = machine();
        fs.start_trace();
        Story { fs, text: String::new() }
    }

    /// Runs one step and writes down what it did to the disk.
    fn step<T>(&mut self, title: &str, step: impl FnOnce(&MemFs) -> T) -> T {
        let answer = step(&self.fs);
        let trace = self.fs.take_trace();
        self.text += &format!("{title}\n----\n{trace}\n");
        answer
    }
}

#[test]
fn a_life() {
    let mut story = Story::new();
    let mut wal = story.step("create", |fs| create(fs, b"metadata"));
    story.step("append 1..2 and a hard state: nothing yet", |_| {
        let entries = [entry(1, 1, "one"), entry(1, 2, "two")];
        wal.append(entries.iter().map(Entry::as_ref), Some(state(1, 1))).unwrap();
    });
    story.step("sync: one write, one sync", |_| wal.sync().unwrap());
    story.step("sync again: nothing to do", |_| wal.sync().unwrap());
    story.step("prepare the next segment", |_| wal.prepare_next().unwrap());
    story.step("append 3 and 4: 4 does not fit, so the group goes on in the next segment", |_| {
        append(&mut wal, &[entry(1, 3, vec![3; 1000]), entry(1, 4, vec![4; 1000])], Some(state(1, 3)));
    });
    story.step("append 5, longer than a segment; nothing is prepared", |_| {
        append(&mut wal, &[entry(1, 5, vec![5; 3000])], Some(state(1, 4)));
    });
    story.step("a snapshot at 4", |_| {
        wal.append_snapshot(&snapshot(1, 4), None).unwrap();
        wal.sync().unwrap();
    });
    drop(wal);
    let opened = story.step("open: reads only", |fs| open(fs).unwrap());
    let mut wal = story.step("take over a whole log: syncs only", |_| opened.into_writer().unwrap());
    story.step("append 6", |_| append(&mut wal, &[entry(1, 6, "six")], None));
    expect_file!["operations/life.txt"].assert_eq(&story.text);
}

#[test]
fn a_repair() {
    let mut story = Story::new();
    let mut wal = create(&story.fs, b"metadata");
    append(&mut wal, &[entry(1, 1, vec![1; 300])], Some(state(1, 1)));
    let whole = story.fs.read(FIRST).unwrap();
    append(&mut wal, &[entry(1, 2, vec![2; 900])], None);
    drop(wal);
    let mut bytes = story.fs.read(FIRST).unwrap();
    bytes[1024..1536].fill(0);
    story.fs.put(FIRST, &bytes).unwrap();
    story.fs.put(Path::new(DIR).join("next.tmp"), b"half").unwrap();
    story.fs.take_trace();
    let opened = story.step("open a log whose last group has an unwritten sector", |fs| open(fs).unwrap());
    let torn = opened.torn().unwrap();
    story.text += &format!("torn at {} of {}\n\n", torn.offset, torn.file.display());
    let mut wal = story
        .step("take it over: zero the tail, drop the unfinished segment", |_| opened.into_writer().unwrap());
    assert_eq!(story.fs.read(FIRST).unwrap(), whole);
    story.step("append 2 anew", |_| append(&mut wal, &[entry(2, 2, "two")], None));
    expect_file!["operations/repair.txt"].assert_eq(&story.text);
}

#[test]
fn a_creation_that_was_interrupted_before() {
    let mut story = Story::new();
    story.fs.halt_after(Some(5));
    assert!(Wal::create(Arc::new(story.fs.clone()), Path::new(DIR), b"m", Limits::tiny()).is_err());
    story.fs.kill();
    story.fs.take_trace();
    story.step("create over the remains of an interrupted creation", |fs| drop(create(fs, b"metadata")));
    expect_file!["operations/create_again.txt"].assert_eq(&story.text);
}
