//! The index, with tiny nodes, against a map of lists.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::keys::SHORT_MAX;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Puts these keys. `is_one`: all in one revision, else each in its own.
    Put { keys: Vec<Vec<u8>>, is_one: bool },
    /// Puts this many keys of a row, each in its own revision.
    PutRow { first: u16, count: u16, is_ascending: bool },
    /// Deletes this many keys that live, from this one on, and puts the first again, in one revision.
    Delete { from: Vec<u8>, count: usize, again: bool },
    /// Compacts, this many revisions before the newest.
    Compact { before: i64 },
    /// Drops a piece.
    Drop { steps_max: usize },
    /// Begins a read, this many revisions before the newest.
    Read { from: Vec<u8>, to: Vec<u8>, before: i64, is_count: bool },
    /// Takes the reads that are under way one step on.
    Advance { keys_max: usize },
    /// Moves the record of the newest version at or below a revision.
    Relocate { key: Vec<u8>, before: i64 },
}

/// Keys that share prefixes of many lengths, some with zeros, some too long to lie with the others.
fn key() -> impl Strategy<Value = Vec<u8>> + Clone {
    let byte = prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(b'b'), Just(255)];
    let prefix = prop_oneof![
        4 => Just(Vec::new()),
        3 => Just(b"/registry/pods/".to_vec()),
        1 => Just(vec![b'x'; SHORT_MAX - 2]),
        1 => Just(vec![b'x'; SHORT_MAX + 40]),
    ];
    (prefix, vec(byte, 1..6)).prop_map(|(prefix, rest)| [prefix, rest].concat())
}

fn step(row_max: u16) -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (vec(key(), 1..6), any::<bool>()).prop_map(|(keys, is_one)| Step::Put { keys, is_one }),
        2 => (0u16..300, 1u16..row_max, any::<bool>())
            .prop_map(|(first, count, is_ascending)| Step::PutRow { first, count, is_ascending }),
        4 => (key(), 1usize..20, prop::bool::weighted(0.2))
            .prop_map(|(from, count, again)| Step::Delete { from, count, again }),
        2 => (0i64..20).prop_map(|before| Step::Compact { before }),
        4 => (1usize..12).prop_map(|steps_max| Step::Drop { steps_max }),
        3 => (key(), key(), 0i64..20, any::<bool>())
            .prop_map(|(from, to, before, is_count)| Step::Read { from, to, before, is_count }),
        4 => (1usize..9).prop_map(|keys_max| Step::Advance { keys_max }),
        1 => (key(), 0i64..20).prop_map(|(key, before)| Step::Relocate { key, before }),
    ]
}

type Row = (Vec<u8>, Version);

/// A read that is under way, and what it has to find.
struct Read {
    cursor: Cursor<'static>,
    at: i64,
    want: Vec<Row>,
    rows: Vec<Row>,
    count: Option<u64>,
}

#[derive(Default)]
struct Twin<const N: usize> {
    index: IndexOf<N>,
    model: BTreeMap<Vec<u8>, Vec<Version>>,
    revision: i64,
    sub: u32,
    horizon: i64,
    cursor: Option<DropCursor>,
    /// What the compaction that is under way still has to drop.
    doomed: Vec<Row>,
    reads: Vec<Read>,
}

/// A span's bounds have to live as long as the read.
fn leak(key: Vec<u8>) -> &'static [u8] {
    Vec::leak(key)
}

fn at(versions: &[Version], at: i64) -> Option<Version> {
    versions.iter().rev().find(|version| version.mod_revision <= at).copied()
}

impl<const N: usize> Twin<N> {
    fn step(&mut self, step: Step) {
        match step {
            Step::Put { keys, is_one } => {
                self.next_revision();
                for key in keys {
                    self.put(&key);
                    if !is_one {
                        self.next_revision();
                    }
                }
            }
            Step::PutRow { first, count, is_ascending } => {
                for n in 0..count {
                    let n = if is_ascending { first + n } else { first + count - n };
                    self.next_revision();
                    self.put(format!("row/{n:05}").as_bytes());
                }
            }
            Step::Delete { from, count, again } => self.delete(&from, count, again),
            Step::Compact { before } => self.compact(self.revision - before),
            Step::Drop { steps_max } => self.drop_step(steps_max),
            Step::Read { from, to, before, is_count } => {
                self.read(from, to, self.revision - before, is_count);
            }
            Step::Advance { keys_max } => self.advance(keys_max),
            Step::Relocate { key, before } => self.relocate(&key, self.revision - before),
        }
        self.index.check(self.revision);
    }

    fn next_revision(&mut self) {
        self.revision += 1;
        self.sub = 0;
    }

    fn add(&mut self, key: &[u8], create_revision: i64, version: i64) {
        let version = Version {
            mod_revision: self.revision,
            create_revision,
            version,
            lease: if version % 3 == 2 { version } else { 0 },
            location: Location(self.revision as u64 * 1000 + u64::from(self.sub)),
            sub: self.sub,
            length: key.len() as u32,
        };
        self.sub += 1;
        assert!(self.index.accepts(key, &version));
        self.index.insert(key, version);
        self.model.entry(key.to_vec()).or_default().push(version);
    }

    fn live(&self, key: &[u8]) -> Option<Version> {
        let newest = self.model.get(key)?.last().copied();
        newest.filter(|version| !version.is_tombstone())
    }

    fn put(&mut self, key: &[u8]) {
        let old = self.live(key);
        let (create, version) = old.map_or((self.revision, 1), |old| (old.create_revision, old.version + 1));
        self.add(key, create, version);
    }

    fn delete(&mut self, from: &[u8], count: usize, again: bool) {
        let keys = self.model.range(from.to_vec()..).map(|(key, _)| key.clone());
        let keys: Vec<_> = keys.filter(|key| self.live(key).is_some()).take(count).collect();
        self.next_revision();
        for key in &keys {
            self.add(key, 0, 0);
        }
        if let (Some(first), true) = (keys.first(), again) {
            self.put(first);
        }
    }

    /// The whole drop at once in the model; the index follows in steps, which nobody may see.
    fn compact(&mut self, horizon: i64) {
        let oldest_read = self.reads.iter().map(|read| read.at).min().unwrap_or(i64::MAX);
        if self.cursor.is_some() || horizon <= self.horizon || horizon > oldest_read {
            return;
        }
        self.horizon = horizon;
        self.cursor = Some(DropCursor::default());
        let doomed = &mut self.doomed;
        self.model.retain(|key, versions| {
            let kept = versions.iter().rposition(|version| version.mod_revision <= horizon);
            let is_kept = |place: usize, version: &Version| match kept {
                Some(kept) if place == kept => !version.is_tombstone() || version.mod_revision == horizon,
                Some(kept) => place > kept,
                None => true,
            };
            let mut place = 0;
            versions.retain(|version| {
                let keep = is_kept(place, version);
                if !keep {
                    doomed.push((key.clone(), *version));
                }
                place += 1;
                keep
            });
            !versions.is_empty()
        });
    }

    fn drop_step(&mut self, steps_max: usize) {
        let Some(cursor) = &mut self.cursor else { return };
        let mut rows = Vec::new();
        self.index.drop_below(cursor, self.horizon, steps_max, |key, version| {
            rows.push((key.to_vec(), *version));
        });
        assert!(rows.len() <= steps_max, "{} dropped in {steps_max} steps", rows.len());
        // In order of keys, and each key's oldest first.
        assert_eq!(rows, self.doomed.drain(..rows.len()).collect::<Vec<_>>());
        if !cursor.is_done() {
            return;
        }
        assert_eq!(self.doomed, [], "not dropped");
        self.cursor = None;
        for (key, versions) in &self.model {
            for revision in 0..=self.revision {
                assert_eq!(self.index.at(key, revision), at(versions, revision), "{key:?} at {revision}");
            }
        }
        self.compare_all(self.revision);
    }

    fn read(&mut self, from: Vec<u8>, to: Vec<u8>, revision: i64, is_count: bool) {
        if revision < self.horizon || self.reads.len() > 3 {
            return;
        }
        let (from, to) = (leak(from), leak(to));
        let span = Span::of(from, to);
        let read = Read {
            cursor: Cursor::new(span),
            at: revision,
            want: self.rows(span, revision),
            rows: Vec::new(),
            count: is_count.then_some(0),
        };
        self.reads.push(read);
    }

    fn rows(&self, span: Span<'_>, revision: i64) -> Vec<Row> {
        let is_in = |key: &[u8]| match span.to {
            End::One => key == span.from,
            End::Open => key >= span.from,
            End::Before(end) => key >= span.from && key < end,
        };
        let keys = self.model.iter().filter(|(key, _)| is_in(key));
        keys.filter_map(|(key, versions)| {
            let version = at(versions, revision).filter(|version| !version.is_tombstone())?;
            Some((key.clone(), version))
        })
        .collect()
    }

    fn advance(&mut self, keys_max: usize) {
        let index = &self.index;
        self.reads.retain_mut(|read| {
            match &mut read.count {
                Some(count) => *count += index.count_by(keys_max, &mut read.cursor, read.at),
                None => {
                    let before = read.rows.len();
                    index.advance_by(keys_max, &mut read.cursor, read.at, |key, version| {
                        read.rows.push((key.to_vec(), *version));
                    });
                    assert!(read.rows.len() - before <= keys_max);
                }
            }
            if !read.cursor.is_done() {
                return true;
            }
            match read.count {
                Some(count) => assert_eq!(count, read.want.len() as u64, "at {}", read.at),
                None => assert_eq!(read.rows, read.want),
            }
            false
        });
    }

    /// Everything, at one revision.
    fn compare_all(&mut self, revision: i64) {
        let all = Span::of(b"\0", b"\0");
        let want = self.rows(all, revision);
        let (mut cursor, mut rows) = (Cursor::new(all), Vec::new());
        while !cursor.is_done() {
            self.index
                .advance_by(3, &mut cursor, revision, |key, version| rows.push((key.to_vec(), *version)));
        }
        assert_eq!(rows, want);
        let (mut cursor, mut count) = (Cursor::new(all), 0);
        while !cursor.is_done() {
            count += self.index.count_by(3, &mut cursor, revision);
        }
        assert_eq!(count, want.len() as u64);
        for (key, version) in &want {
            assert_eq!(self.index.get(key, revision), Some(*version));
        }
    }

    fn relocate(&mut self, key: &[u8], revision: i64) {
        let version = self
            .model
            .get_mut(key)
            .and_then(|versions| versions.iter_mut().rev().find(|version| version.mod_revision <= revision));
        let Some(version) = version else {
            // What a compaction is yet to drop is still there, so no revision that ever was will do.
            let nowhere = Revision { main: revision, sub: i64::MAX };
            assert!(!self.index.has(key, nowhere) && !self.index.relocate(key, nowhere, Location(1)));
            return;
        };
        let to = Location(version.location.0 + 7);
        assert!(self.index.has(key, version.revision()));
        assert!(self.index.relocate(key, version.revision(), to));
        version.location = to;
        self.reads.clear();
    }
}

fn run<const N: usize>(steps: Vec<Step>) {
    let mut twin = Twin::<N>::default();
    for step in steps {
        twin.step(step);
    }
    twin.compare_all(twin.revision);
    twin.compare_all((twin.revision - 5).max(twin.horizon));
    while !twin.reads.is_empty() {
        twin.advance(2);
    }
    while twin.cursor.is_some() {
        twin.drop_step(5);
    }
    // All is deleted and dropped: nothing remains.
    twin.delete(b"", usize::MAX, false);
    twin.next_revision();
    twin.compact(twin.revision);
    while twin.cursor.is_some() {
        twin.drop_step(5);
        twin.index.check(twin.revision);
    }
    assert!(twin.model.is_empty());
    assert_eq!(twin.index.root.len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A hundred keys make a high tree.
    #[test]
    fn the_index_is_a_map_of_lists(steps in vec(step(30), 1..120)) {
        run::<4>(steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn so_it_is_with_nodes_as_large_as_they_are(steps in vec(step(250), 1..80)) {
        run::<NODE_KEYS>(steps);
    }
}
