//! What the index costs in time, beside a `BTreeMap` of the standard library. Not in CI:
//!
//! `cargo test --release -p quorate-store --lib index::bench -- --ignored --nocapture`
//!
//! Both take turns of a hundred operations, since the machine is never quiet; the median of the turns is printed.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "time is what is measured")]

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::super::key::Key;
use super::*;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Operations in a turn: shorter than a time slice.
const TURN: usize = 100;

/// Keys of a step that drops, and versions that go.
const STEP: usize = 1000;

#[test]
#[ignore = "takes long, and says nothing of right or wrong"]
fn a_million_keys() {
    run(1_000_000);
}

/// The plain way, which the index was before: keys in place, older versions in a queue.
#[derive(Default)]
struct Plain(BTreeMap<Key, Entry>);

/// A key's newest version, and those before.
type Entry = (Version, Option<Box<VecDeque<Version>>>);

impl Plain {
    fn insert(&mut self, key: &[u8], version: Version) {
        match self.0.get_mut(key) {
            Some((newest, older)) => {
                older.get_or_insert_default().push_back(*newest);
                *newest = version;
            }
            None => drop(self.0.insert(key.into(), (version, None))),
        }
    }

    fn get(&self, key: &[u8]) -> Option<Version> {
        self.0.get(key).map(|(newest, _)| *newest).filter(|version| !version.is_tombstone())
    }

    /// Keeps each key's newest version, a thousand keys at a time.
    fn drop_older(&mut self, mut each_step: impl FnMut(Duration)) {
        let mut last: Option<Key> = None;
        loop {
            let start = Instant::now();
            let from = last.as_ref().map_or(Bound::Unbounded, |last| Bound::Excluded(last.as_slice()));
            let mut next = None;
            for (key, (_, older)) in self.0.range_mut::<[u8], _>((from, Bound::Unbounded)).take(STEP) {
                *older = None;
                next = Some(key.clone());
            }
            each_step(start.elapsed());
            if next.is_none() {
                return;
            }
            last = next;
        }
    }
}

fn put(revision: i64, version: i64) -> Version {
    Version {
        mod_revision: revision,
        create_revision: if version == 1 { revision } else { 1 },
        version,
        lease: 0,
        location: Location(revision as u64),
        sub: 0,
        length: 100,
    }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// All keys, one behind the other, in the order in which they are put.
fn keys(kind: &str, count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let key = |n: usize| match kind {
        "random, 16 bytes" => [random(&mut state).to_be_bytes(), random(&mut state).to_be_bytes()].concat(),
        "/registry/, 60 bytes" => {
            let (namespace, app) = (random(&mut state) % 500, random(&mut state) % 4000);
            let pod = random(&mut state) & 0xff_ffff_ffff;
            let key =
                format!("/registry/pods/namespace-{namespace:04}/application-{app:05}-{pod:010x}-xxxxx");
            key.into_bytes()[..60].to_vec()
        }
        _ => format!("key-{n:012}").into_bytes(),
    };
    (0..count).flat_map(key).collect()
}

fn shuffled(keys: &[u8], len: usize) -> Vec<u8> {
    let mut order: Vec<usize> = (0..keys.len() / len).collect();
    let mut state = 12345;
    for n in (1..order.len()).rev() {
        order.swap(n, random(&mut state) as usize % (n + 1));
    }
    order.iter().flat_map(|n| keys[n * len..(n + 1) * len].iter().copied()).collect()
}

/// Turns of one kind of work, for both.
struct Turns<'a> {
    what: &'a str,
    /// Operations in a turn.
    size: usize,
    index: Vec<Duration>,
    plain: Vec<Duration>,
}

impl<'a> Turns<'a> {
    fn new(what: &'a str, size: usize) -> Self {
        Turns { what, size, index: Vec::new(), plain: Vec::new() }
    }

    fn print(mut self) {
        let at = |turns: &mut Vec<Duration>, percent: usize| {
            turns.sort();
            let turn = turns.get(turns.len().saturating_sub(1) * percent / 100);
            turn.map_or(f64::NAN, |turn| turn.as_nanos() as f64 / self.size as f64)
        };
        let (index, plain) = (at(&mut self.index, 50), at(&mut self.plain, 50));
        println!("  {:30} {index:9.1} ns, plain {plain:9.1} ns: {:.2}", self.what, index / plain);
    }
}

fn timed(turns: &mut Vec<Duration>, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    turns.push(start.elapsed());
}

pub(super) fn run(count: usize) {
    for kind in ["random, 16 bytes", "/registry/, 60 bytes", "ascending, 16 bytes"] {
        println!("{count} keys: {kind}");
        let keys = keys(kind, count);
        run_on(&keys, keys.len() / count);
    }
}

fn run_on(keys: &[u8], len: usize) {
    let (mut index, mut plain) = (Index::default(), Plain::default());
    let mut revision = 1;
    let mut insert = |what: &str, keys: &[u8], version: i64, index: &mut Index, plain: &mut Plain| {
        let mut turns = Turns::new(what, TURN);
        for turn in keys.chunks(len * TURN) {
            let first = revision;
            let versions = move || (first + 1..).map(move |revision| put(revision, version));
            timed(&mut turns.index, || {
                turn.chunks(len).zip(versions()).for_each(|(key, version)| index.insert(key, version));
            });
            timed(&mut turns.plain, || {
                turn.chunks(len).zip(versions()).for_each(|(key, version)| plain.insert(key, version));
            });
            revision += TURN as i64;
        }
        turns.print();
        revision
    };
    let random_order = shuffled(keys, len);
    insert("insert", keys, 1, &mut index, &mut plain);
    get(&index, &plain, &random_order, len);
    advance(&index, &plain, keys.len() / len);
    let last = insert("insert a second version", &random_order, 2, &mut index, &mut plain);
    count(&index, keys.len() / len, last);
    drop_below(&mut index, &mut plain, last);
}

fn get(index: &Index, plain: &Plain, keys: &[u8], len: usize) {
    let mut turns = Turns::new("get, in random order", TURN);
    for turn in keys.chunks(len * TURN) {
        timed(&mut turns.index, || turn.chunks(len).for_each(|key| _ = black_box(index.get(key, i64::MAX))));
        timed(&mut turns.plain, || turn.chunks(len).for_each(|key| _ = black_box(plain.get(key))));
    }
    turns.print();
}

fn advance(index: &Index, plain: &Plain, count: usize) {
    let mut turns = Turns::new("advance, a key", KEYS_PER_CHUNK);
    let mut cursor = Cursor::new(Span::of(b"\0", b"\0"));
    let mut last: Option<Key> = None;
    for _ in 0..count / KEYS_PER_CHUNK {
        timed(&mut turns.index, || {
            index.advance(&mut cursor, i64::MAX, |key, version| _ = black_box((key, *version)));
        });
        timed(&mut turns.plain, || {
            let from = last.as_ref().map_or(Bound::Unbounded, |last| Bound::Excluded(last.as_slice()));
            let mut next = None;
            for (key, (newest, _)) in plain.0.range::<[u8], _>((from, Bound::Unbounded)).take(KEYS_PER_CHUNK)
            {
                black_box((key.as_slice(), *newest));
                next = Some(key.clone());
            }
            last = next;
        });
    }
    turns.print();
}

fn count(index: &Index, keys: usize, last: i64) {
    for (what, at) in [("all", last), ("all, half of it has changed since", last - keys as i64 / 2)] {
        let mut cursor = Cursor::new(Span::of(b"\0", b"\0"));
        let (start, mut count, mut steps, mut longest) = (Instant::now(), 0, 0, Duration::ZERO);
        while !cursor.is_done() {
            let step = Instant::now();
            count += index.count(&mut cursor, at);
            longest = longest.max(step.elapsed());
            steps += 1;
        }
        assert_eq!(count, keys as u64);
        println!("  count {what}: {:?}, {steps} steps, the longest {longest:?}", start.elapsed());
    }
}

fn drop_below(index: &mut Index, plain: &mut Plain, last: i64) {
    let mut turns = Turns::new("drop_below, a step of 1000", 1);
    let (mut cursor, mut dropped) = (DropCursor::default(), 0);
    while !cursor.is_done() {
        timed(&mut turns.index, || index.drop_below(&mut cursor, last, STEP, |_, _| dropped += 1));
    }
    let steps = turns.index.len();
    plain.drop_older(|step| turns.plain.push(step));
    let (ours, plains): (Duration, Duration) = (turns.index.iter().sum(), turns.plain.iter().sum());
    turns.print();
    println!("  drop_below all: {dropped} versions, {steps} steps, {ours:?}, plain {plains:?}");
}
