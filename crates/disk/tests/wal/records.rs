//! Rows of records that verify one by one, made by hand: which are a log, and which are refused.

use super::*;

/// A segment in the making; an encoder of its own, so that the crate's is not its own judge.
struct Raw {
    bytes: Vec<u8>,
    sum: u32,
}

impl Raw {
    /// The first segment up to its snapshot record.
    fn new() -> Self {
        Raw { bytes: Vec::new(), sum: 0 }
            .sum_record(0)
            .record(1, b"meta")
            .record(5, &fields(&[(1, 0), (2, 0)]))
    }

    fn record(mut self, kind: u8, data: &[u8]) -> Self {
        self.sum = crc32c::crc32c_append(self.sum, data);
        let mut record = vec![8, kind, 16];
        record.extend(varint(u64::from(self.sum)));
        record.push(26);
        record.extend(varint(data.len() as u64));
        record.extend_from_slice(data);
        self.frame(&record)
    }

    fn sum_record(mut self, sum: u32) -> Self {
        self.sum = sum;
        let mut record = vec![8, 4, 16];
        record.extend(varint(u64::from(sum)));
        self.frame(&record)
    }

    fn frame(mut self, record: &[u8]) -> Self {
        let pad = (8 - record.len() % 8) % 8;
        let top = if pad == 0 { 0 } else { 0x80 | pad as u64 };
        self.bytes.extend((record.len() as u64 | top << 56).to_le_bytes());
        self.bytes.extend_from_slice(record);
        self.bytes.extend(vec![0; pad]);
        self
    }

    fn entry(self, term: u64, index: u64) -> Self {
        let mut data = fields(&[(2, term), (3, index)]);
        data.extend_from_slice(b"\x22\x01x");
        self.record(2, &data)
    }

    fn state(self, term: u64, commit: u64) -> Self {
        self.record(3, &fields(&[(1, term), (2, 7), (3, commit)]))
    }

    fn snapshot(self, term: u64, index: u64) -> Self {
        let mut data = fields(&[(1, index), (2, term)]);
        data.extend_from_slice(b"\x1a\x02\x08\x07");
        self.record(5, &data)
    }

    fn machine(&self) -> MemFs {
        let fs = machine();
        fs.create_dir_all(Path::new(DIR), 0o700).unwrap();
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len().max(4096), 0);
        fs.put(FIRST, &bytes).unwrap();
        fs
    }

    /// The entries as `term@index`.
    #[track_caller]
    fn entries(&self) -> String {
        let contents = read(&self.machine()).unwrap();
        let entries: Vec<String> =
            contents.entries.iter().map(|entry| format!("{}@{}", entry.term, entry.index)).collect();
        entries.join(" ")
    }

    #[track_caller]
    fn refused(&self) -> String {
        refused(&self.machine()).2
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn fields(fields: &[(u8, u64)]) -> Vec<u8> {
    fields.iter().flat_map(|&(field, value)| [vec![field << 3], varint(value)].concat()).collect()
}

#[test]
fn entries_in_order() {
    assert_eq!(Raw::new().entry(1, 1).entry(1, 2).state(1, 2).entry(5, 3).entries(), "1@1 1@2 5@3");
    assert_eq!(Raw::new().entry(1, 2).refused(), "entries are missing before this one");
    assert_eq!(Raw::new().entry(1, 1).entry(1, 3).refused(), "entries are missing before this one");
    assert_eq!(Raw::new().entry(2, 1).entry(1, 2).refused(), "the term steps back");
    assert_eq!(Raw::new().entry(0, 1).refused(), "an entry without a term or an index");
}

#[test]
fn entries_replaced() {
    assert_eq!(Raw::new().entry(1, 1).entry(1, 2).entry(1, 3).entry(2, 2).entries(), "1@1 2@2");
    assert_eq!(Raw::new().entry(1, 1).entry(3, 2).entry(2, 2).entry(4, 3).entries(), "1@1 2@2 4@3");
    assert_eq!(Raw::new().entry(2, 1).entry(2, 2).entry(1, 2).refused(), "the term steps back");
    let replaced = || Raw::new().entry(1, 1).entry(2, 2).entry(3, 3).entry(4, 2);
    assert_eq!(replaced().entry(3, 3).refused(), "the term steps back");
    assert_eq!(replaced().entry(4, 3).entries(), "1@1 4@2 4@3");
    assert_eq!(
        Raw::new().entry(1, 1).entry(1, 2).state(2, 1).entry(2, 1).refused(),
        "an entry replaces a committed one"
    );
}

#[test]
fn hard_states() {
    assert_eq!(Raw::new().entry(1, 1).state(2, 0).state(1, 0).refused(), "the term steps back");
    assert_eq!(Raw::new().entry(1, 1).state(1, 1).state(1, 0).refused(), "the commit index steps back");
    assert_eq!(
        Raw::new().entry(1, 1).state(1, 2).refused(),
        "the commit index is above the last entry and the newest snapshot"
    );
    assert_eq!(Raw::new().record(3, &fields(&[(2, 7), (3, 1)])).refused(), "a hard state without a term");
}

#[test]
fn snapshots() {
    let ahead = || Raw::new().entry(1, 1).state(1, 1).snapshot(2, 5).state(2, 5);
    assert_eq!(ahead().entries(), "");
    assert_eq!(ahead().entry(2, 6).entries(), "2@6");
    assert_eq!(ahead().entry(2, 7).refused(), "entries are missing before this one");
    assert_eq!(ahead().entry(1, 6).refused(), "the term steps back");
    assert_eq!(ahead().entry(2, 6).entry(2, 7).entry(3, 6).entries(), "3@6");

    let agreeing = || Raw::new().entry(1, 1).entry(2, 2).entry(2, 3).state(2, 1).snapshot(2, 2);
    assert_eq!(agreeing().entries(), "1@1 2@2 2@3", "not committed, so ignored");
    assert_eq!(agreeing().state(2, 2).entries(), "1@1 2@2 2@3");
    let conflicting = || Raw::new().entry(1, 1).entry(4, 2).entry(4, 3).state(4, 1).snapshot(3, 2);
    assert_eq!(conflicting().entries(), "1@1 4@2 4@3", "not committed, so ignored");
    assert_eq!(conflicting().state(5, 2).entries(), "");
    assert_eq!(conflicting().state(5, 2).entry(3, 3).entry(5, 4).entries(), "3@3 5@4");

    let wrong_term = Raw::new().entry(1, 1).state(1, 1).snapshot(2, 1);
    assert_eq!(wrong_term.refused(), "the snapshot's term is not that of the committed entry");
    let uncommitted = Raw::new().entry(1, 1).state(1, 1).snapshot(2, 5).entry(2, 6);
    assert_eq!(uncommitted.refused(), "entries are missing between the newest snapshot and the first entry");
    let below = Raw::new().entry(1, 1).state(1, 1).snapshot(2, 5).entry(2, 6).entry(2, 5).state(2, 5);
    assert_eq!(below.refused(), "an entry replaces one in a snapshot");
}

#[test]
fn the_first_records() {
    let begun = || Raw { bytes: Vec::new(), sum: 0 };
    let belongs_not = "a record of this type does not belong here";
    assert_eq!(begun().sum_record(5).refused(), "the first sum is not zero");
    assert_eq!(begun().record(1, b"meta").refused(), "the record does not verify");
    assert_eq!(begun().sum_record(0).state(1, 0).refused(), belongs_not);
    assert_eq!(begun().sum_record(0).record(1, b"meta").entry(1, 1).refused(), belongs_not);
    assert_eq!(begun().sum_record(0).record(1, b"meta").refused(), "the segment's first records are missing");
    assert_eq!(Raw::new().record(1, b"meta").refused(), belongs_not);
    let sum = Raw::new().sum;
    assert_eq!(Raw::new().sum_record(sum).refused(), belongs_not);
    // Metadata may be absent or empty.
    let bare = begun().sum_record(0).frame(&[8, 1, 16, 0]).record(5, &fields(&[(1, 0), (2, 0)]));
    assert_eq!(bare.entry(1, 1).entries(), "1@1");
}

#[test]
fn messages_are_read_strictly() {
    let order = "an unknown field, or one out of order";
    assert_eq!(Raw::new().record(2, &fields(&[(3, 1), (2, 1)])).refused(), order);
    assert_eq!(Raw::new().record(2, &fields(&[(2, 1), (3, 1), (3, 1)])).refused(), order);
    assert_eq!(Raw::new().record(2, &fields(&[(2, 1), (3, 1), (5, 1)])).refused(), order);
    assert_eq!(Raw::new().record(2, &fields(&[(1, 3), (2, 1), (3, 1)])).refused(), "unknown entry type");
    assert_eq!(
        Raw::new().record(2, &fields(&[(1, 1), (2, 1), (3, 1)])).refused(),
        "a configuration change without data"
    );
    assert_eq!(Raw::new().record(2, b"\x10\x01\x18\x01\x22\x05x").refused(), "a length beyond the message");
    assert_eq!(Raw::new().record(3, b"\x08\xff").refused(), "a number that does not end");
    assert_eq!(Raw::new().record(6, b"").refused(), "unknown record type 6");
    // What etcd before 3.7 wrote: zeros are not left out.
    assert_eq!(Raw::new().record(2, &fields(&[(1, 0), (2, 1), (3, 1)])).entries(), "1@1");
}

#[test]
fn frames_are_read_strictly() {
    let mut raw = Raw::new().entry(1, 1);
    let end = raw.bytes.len();
    assert_eq!(raw.bytes[end - 1], 0, "there is padding");
    raw.bytes[end - 1] = 1;
    assert_eq!(raw.refused(), "the padding is not zero");
    let mut raw = Raw::new();
    let at = raw.bytes.len();
    raw = raw.entry(1, 1);
    // Padding that etcd's reader would ignore.
    raw.bytes[at + 7] |= 8;
    assert_eq!(raw.refused(), "the length field disagrees with the record behind it");
    // A number that is longer than it need be.
    let begun = Raw { bytes: Vec::new(), sum: 0 }.sum_record(0).frame(&[8, 0x81, 0, 16, 0]);
    assert_eq!(begun.refused(), "the record does not verify");
    // A length beyond the file, before a record that does not verify either: only zeros would make it torn.
    let mut raw = Raw::new();
    let at = raw.bytes.len();
    raw = raw.entry(1, 1);
    raw.bytes[at + 12] ^= 1;
    assert_eq!(raw.refused(), "the record does not verify");
}
