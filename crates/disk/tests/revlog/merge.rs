//! Rule 12: what is wanted can be read before, during and after a merge, also where a crash ends it; the rest goes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use disk::revlog::{Error, Fate, Keeper, Limits, Location, MergeProgress, Merger, Reader, Stored, Worth};
use disk::{Fs, MemFs};
use expect_test::expect;

use crate::harness::{Log, Rng, image, open, scan, seeds};

type Revision = (i64, i64);

/// Everything that is worth anything.
const ALL: Worth = Worth { share_percent: 1, output_bytes_max: u64::MAX };

/// The owner of the records: where each is that is wanted.
#[derive(Clone, Default)]
struct Owner {
    wanted: BTreeMap<Revision, (Location, Vec<u8>)>,
    /// Every payload that there ever was.
    all: BTreeMap<Revision, Vec<u8>>,
}

fn revision(record: &Stored<'_>) -> Revision {
    (record.header.main, record.header.sub)
}

impl Keeper for Owner {
    fn wanted(&mut self, records: &[Stored<'_>], wanted: &mut Vec<bool>) {
        for record in records {
            assert_eq!(self.all[&revision(record)], record.payload, "a merge sees what was written");
            wanted.push(self.wanted.contains_key(&revision(record)));
        }
    }

    fn moved(&mut self, records: &[Stored<'_>], fates: &mut Vec<Fate>) {
        for record in records {
            let known = self.wanted.get_mut(&revision(record));
            fates.push(if known.is_some() { Fate::Wanted } else { Fate::Dead });
            known.into_iter().for_each(|known| known.0 = record.at);
        }
    }
}

impl Owner {
    /// As a start finds it: everything that is there.
    fn found(reader: &Reader) -> Owner {
        let records = scan(reader, 0);
        let wanted =
            records.iter().map(|(header, at, payload)| ((header.main, header.sub), (*at, payload.clone())));
        let wanted: BTreeMap<_, _> = wanted.collect();
        assert_eq!(wanted.len(), records.len(), "no revision twice");
        let all = wanted.iter().map(|(revision, (_, payload))| (*revision, payload.clone())).collect();
        Owner { wanted, all }
    }

    /// Whether it has everything that `other` wants, and nothing that never was.
    fn assert_has(&self, other: &Owner, context: &str) {
        for (revision, (_, payload)) in &other.wanted {
            let found = self.wanted.get(revision).map(|(_, payload)| payload);
            assert_eq!(found, Some(payload), "{context}: {revision:?}");
        }
        for (revision, payload) in &self.all {
            assert_eq!(Some(payload), other.all.get(revision), "{context}: {revision:?}");
        }
    }

    fn check(&self, reader: &Reader) {
        reader.check();
        for (revision, (at, payload)) in &self.wanted {
            let mut out = vec![0; payload.len()];
            reader.read(*at, &mut out).unwrap_or_else(|error| panic!("{revision:?}: {error}"));
            assert_eq!(&out, payload, "{revision:?} at {at}");
        }
        for from in [0, self.all.len() as i64 / 2, self.all.len() as i64] {
            self.check_scan(&scan(reader, from), from);
        }
    }

    fn check_scan(&self, records: &[crate::harness::Record], from: i64) {
        let shown: Vec<Revision> = records.iter().map(|(header, ..)| (header.main, header.sub)).collect();
        assert!(shown.is_sorted_by(|a, b| a < b), "revisions ascend");
        assert!(shown.first().is_none_or(|first| first.0 >= from));
        for (revision, (_, _, payload)) in shown.iter().zip(records) {
            assert_eq!(&self.all[revision], payload);
        }
        let missing =
            self.wanted.keys().filter(|wanted| wanted.0 >= from).find(|wanted| !shown.contains(wanted));
        assert_eq!(missing, None, "a scan shows all that is wanted");
    }
}

struct World {
    log: Log,
    merger: Merger,
    owner: Owner,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    Copying,
    Copied,
    Moving,
    Moved,
}

impl World {
    /// A log of so many random frames, all of them durable.
    fn filled(fs: &MemFs, rng: &mut Rng, frames: u32) -> World {
        let mut world = World::open(fs).unwrap();
        for _ in 0..frames {
            world.write(rng).unwrap();
            world.log.sync().unwrap();
        }
        world
    }

    fn open(fs: &MemFs) -> Result<World, Error> {
        let log = Log::open(fs.clone(), &Limits::tiny())?;
        let owner = Owner::found(&log.reader);
        let merger = log.writer.merger();
        Ok(World { log, merger, owner, stage: Stage::Idle })
    }

    fn write(&mut self, rng: &mut Rng) -> Result<(), Error> {
        self.log.random_frame(rng);
        for (header, at, payload) in &self.log.model.last().unwrap().records {
            let revision = (header.main, header.sub);
            self.owner.wanted.insert(revision, (*at, payload.clone()));
            self.owner.all.insert(revision, payload.clone());
        }
        // Some stay in memory for a while.
        if rng.below(3) > 0 { self.log.write_all() } else { Ok(()) }
    }

    /// Some records are not wanted any more.
    fn forget(&mut self, rng: &mut Rng, one_in: u64) {
        let gone: Vec<Revision> =
            self.owner.wanted.keys().copied().filter(|_| rng.below(one_in) == 0).collect();
        for revision in gone {
            let (at, payload) = self.owner.wanted.remove(&revision).unwrap();
            self.log.reader.forget([(at, payload.len() as u32, false)]);
        }
    }

    /// One step of a merge; whether there was one.
    fn merge_step(&mut self, worth: Worth) -> Result<bool, Error> {
        match self.stage {
            Stage::Idle => {
                let Some(plan) = self.merger.plan(worth) else { return Ok(false) };
                let begun = self.merger.begin(plan)?;
                if begun == MergeProgress::NoRoom {
                    return Ok(false);
                }
                self.stage = Stage::Copying;
            }
            Stage::Copying => match self.merger.copy(&mut self.owner)? {
                MergeProgress::Working(_) => {}
                MergeProgress::Done(_) => self.stage = Stage::Copied,
                MergeProgress::NoRoom => self.stage = Stage::Idle,
            },
            Stage::Copied => {
                self.merger.publish()?;
                self.stage = Stage::Moving;
            }
            Stage::Moving => {
                if let MergeProgress::Done(_) = self.merger.relocate(&mut self.owner)? {
                    self.stage = Stage::Moved;
                }
            }
            Stage::Moved => {
                self.merger.retire()?;
                self.stage = Stage::Idle;
            }
        }
        Ok(true)
    }

    fn merge_all(&mut self, worth: Worth) -> Result<(), Error> {
        for _ in 0..10_000 {
            if !self.merge_step(worth)? {
                return Ok(());
            }
        }
        panic!("merges do not come to an end");
    }
}

/// A workload with merges in it, that ends with one.
fn work(fs: &MemFs, seed: u64, check: bool) -> (Owner, Result<(), Error>) {
    let mut world = match World::open(fs) {
        Ok(world) => world,
        Err(error) => return (Owner::default(), Err(error)),
    };
    let mut rng = Rng(seed);
    let result = (|| {
        for _ in 0..120 {
            match rng.below(5) {
                0 | 1 => world.write(&mut rng)?,
                2 => drop(world.log.sync()?),
                3 => world.forget(&mut rng, 4),
                _ => {}
            }
            world.merge_step(Worth { share_percent: 20, ..ALL })?;
            if check {
                world.owner.check(&world.log.reader);
            }
        }
        world.log.write_all()?;
        world.log.sync()?;
        world.merge_all(ALL)
    })();
    if check {
        world.owner.check(&world.log.reader);
    }
    (world.owner, result)
}

#[test]
fn everything_wanted_is_there_at_every_step() {
    let mut merged = 0;
    for seed in seeds(40) {
        let fs = MemFs::new();
        let (owner, result) = work(&fs, seed, true);
        result.unwrap();
        merged += image(&fs).iter().filter(|(path, _)| path.to_string_lossy().contains("/8000")).count();
        fs.kill();
        let mut again = World::open(&fs).unwrap();
        again.owner.assert_has(&owner, "opened again");
        // What was given up is gone, but for what the newest segments hold; and the log goes on.
        let mut rng = Rng(seed);
        for _ in 0..5 {
            again.write(&mut rng).unwrap();
            again.owner.check(&again.log.reader);
        }
    }
    assert!(merged > 20, "{merged} merged segments");
}

/// A power cut after every operation of the file system, and a kill: what is wanted stays, what is torn is of the tail.
#[test]
fn crash_at_every_operation() {
    for seed in seeds(6) {
        let operations = {
            let fs = MemFs::new();
            work(&fs, seed, false).1.unwrap();
            fs.operations()
        };
        for halt in 0..operations {
            let fs = MemFs::new();
            fs.halt_after(Some(halt));
            let (owner, result) = work(&fs, seed, false);
            assert!(result.is_err(), "seed {seed}, halt {halt}");
            for cut in 0..3 {
                let context = format!("seed {seed}, halt {halt}, cut {cut}");
                let fs = if cut == 0 { fs.copy() } else { fs.crashed(cut) };
                reopen(&fs, &owner, &context);
                // Twice is as once.
                let before = image(&fs);
                fs.kill();
                reopen(&fs, &owner, &context);
                assert_eq!(before, image(&fs), "{context}");
            }
        }
    }
}

/// Opens what a crash has left: everything wanted is there but the end that was not durable.
fn reopen(fs: &MemFs, owner: &Owner, context: &str) {
    let world = World::open(fs).unwrap_or_else(|error| panic!("{context}: {error}"));
    let last = world.owner.all.last_key_value().map_or((0, 0), |(revision, _)| *revision);
    // Nothing is torn out of the middle: up to the last record that is there, all that is wanted is.
    let mut until = owner.clone();
    until.wanted.retain(|revision, _| *revision <= last);
    world.owner.assert_has(&until, context);
    world.owner.check(&world.log.reader);
}

/// A log with a merged segment, an appended one behind it, and the owner of its records.
fn merged_log() -> (MemFs, Owner) {
    let fs = MemFs::new();
    let mut rng = Rng(5);
    let mut world = World::filled(&fs, &mut rng, 40);
    world.forget(&mut rng, 2);
    world.merge_all(ALL).unwrap();
    let owner = world.owner.clone();
    drop(world);
    fs.kill();
    (fs, owner)
}

/// Any byte of a merged segment changed is refused by file and offset, and nothing is changed on disk.
#[test]
fn every_flipped_byte_is_found() {
    let (fs, _) = merged_log();
    let files: Vec<_> =
        image(&fs).into_iter().filter(|(path, _)| path.to_string_lossy().contains("/8000")).collect();
    assert!(!files.is_empty());
    for (path, bytes) in files {
        for offset in 0..bytes.len() as u64 {
            let copy = fs.copy();
            copy.flip(&path, offset, 1 << (offset % 8)).unwrap();
            let before = image(&copy);
            let shared: Arc<dyn Fs> = Arc::new(copy.clone());
            match open(&shared, &Limits::tiny()) {
                Err(
                    Error::Damaged { file, offset: at, .. } | Error::Unsupported { file, offset: at, .. },
                ) => {
                    assert_eq!(std::path::Path::new("/").join(file), path, "flip at {offset}");
                    assert!(at <= offset, "flip at {offset}, refused at {at}");
                }
                other => panic!("flip at {offset} of {}: {:?}", path.display(), other.map(drop)),
            }
            assert_eq!(before, image(&copy), "opening writes nothing");
        }
    }
}

/// The newest segment's first frame has the whole state, which no merged segment has: it was durable before what is before
/// it was merged, so without it the log is damaged and does not merely end.
#[test]
fn a_first_frame_that_is_lost_behind_a_merged_segment_is_missed() {
    let fs = MemFs::new();
    let mut world = World::open(&fs).unwrap();
    let mut rng = Rng(5);
    let mut frames = 0;
    while frames < 40 || !world.log.model.last().unwrap().full {
        world.write(&mut rng).unwrap();
        world.log.write_all().unwrap();
        world.log.sync().unwrap();
        frames += 1;
    }
    world.forget(&mut rng, 1);
    world.merge_all(ALL).unwrap();
    drop(world);
    fs.kill();
    let mut appended: Vec<_> =
        image(&fs).into_iter().filter(|(path, _)| path.to_string_lossy().contains("/0000")).collect();
    let (path, bytes) = &appended.pop().unwrap();
    let names = format!("{appended:?}");
    let number = u32::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
    assert!(!names.contains(&format!("{:08x}", number - 1)), "the one before it is merged");
    let begin = 64;
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(end > begin + 40, "it has a frame");
    let refuse = |copy: &MemFs, what: &str| {
        let before = image(copy);
        let shared: Arc<dyn Fs> = Arc::new(copy.clone());
        match open(&shared, &Limits::tiny()) {
            Err(Error::Damaged { file, offset, .. }) => {
                assert_eq!((&std::path::Path::new("/").join(file), offset), (path, begin as u64), "{what}");
            }
            other => panic!("{what}: {:?}", other.map(drop)),
        }
        assert_eq!(before, image(copy), "opening writes nothing");
    };
    for offset in begin..end {
        let copy = fs.copy();
        copy.flip(path, offset as u64, 1 << (offset % 8)).unwrap();
        refuse(&copy, &format!("flip at {offset}"));
    }
    for len in [begin, end] {
        // Zeros, or nothing at all.
        let copy = fs.copy();
        let mut lost = bytes.clone();
        lost[begin..].fill(0);
        lost.truncate(if len == begin { begin } else { lost.len() });
        copy.put(path, &lost).unwrap();
        refuse(&copy, &format!("{len} bytes"));
    }
}

/// Between its rename and the removal of its sources, a merged segment is not all that there is.
#[test]
fn damage_in_a_merged_segment_says_that_its_sources_are_there() {
    let fs = MemFs::new();
    let mut rng = Rng(5);
    let mut world = World::filled(&fs, &mut rng, 40);
    world.forget(&mut rng, 2);
    while world.stage != Stage::Moved {
        assert!(world.merge_step(ALL).unwrap());
    }
    let owner = world.owner.clone();
    drop(world);
    fs.kill();
    let merged = fs.files().into_iter().find(|path| path.to_string_lossy().contains("/8000")).unwrap();
    let damaged = fs.copy();
    damaged.flip(&merged, 100, 1).unwrap();
    let shared: Arc<dyn Fs> = Arc::new(damaged.clone());
    let error = open(&shared, &Limits::tiny()).map(drop).unwrap_err().to_string();
    assert!(error.contains("what it was merged from is still there"), "{error}");
    assert!(error.contains("00000001.seg"), "{error}");
    // What that says is so.
    damaged.remove(&merged).unwrap();
    reopen(&damaged, &owner, "without the merged one");
    // Where they are gone, nothing of the kind is said.
    let (fs, _) = merged_log();
    let merged = fs.files().into_iter().find(|path| path.to_string_lossy().contains("/8000")).unwrap();
    fs.flip(&merged, 100, 1).unwrap();
    let shared: Arc<dyn Fs> = Arc::new(fs);
    let error = open(&shared, &Limits::tiny()).map(drop).unwrap_err().to_string();
    assert!(error.contains("is damaged") && !error.contains("still there"), "{error}");
}

/// A merged segment that vanishes, or is cut short, is missed.
#[test]
fn a_missing_merged_segment_is_missed() {
    let (fs, _) = merged_log();
    let path = fs.files().into_iter().find(|path| path.to_string_lossy().contains("/8000")).unwrap();
    let refusal = |fs: &MemFs| {
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        open(&shared, &Limits::tiny()).map(drop).unwrap_err().to_string()
    };
    let copy = fs.copy();
    copy.remove(&path).unwrap();
    assert!(refusal(&copy).contains("missing"), "{}", refusal(&copy));
    let copy = fs.copy();
    let bytes = copy.read(&path).unwrap();
    copy.put(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(refusal(&copy).contains("is damaged"), "{}", refusal(&copy));
    // The newest segment is never a merged one.
    let newest =
        fs.files().into_iter().filter(|path| path.to_string_lossy().contains("/0000")).max().unwrap();
    let copy = fs.copy();
    copy.remove(&newest).unwrap();
    assert!(refusal(&copy).contains("missing"), "{}", refusal(&copy));
}

/// A source that rots is named, and the merge is given up without a trace.
#[test]
fn damage_in_a_source_is_named() {
    let fs = MemFs::new();
    let mut world = World::open(&fs).unwrap();
    let mut rng = Rng(8);
    while world.log.model.iter().filter(|batch| batch.full).count() < 3 {
        world.write(&mut rng).unwrap();
    }
    world.log.sync().unwrap();
    world.forget(&mut rng, 2);
    fs.flip("member/rev/00000001.seg", 64 + 80, 1).unwrap();
    let before = image(&fs);
    let error = world.merge_all(ALL).unwrap_err();
    assert!(error.is_read_failure(), "{error}");
    assert!(error.to_string().contains("00000001.seg is damaged at offset 64"), "{error}");
    world.merger.give_up().unwrap();
    assert_eq!(before, image(&fs));
}

/// A full disk: what is allocated ahead is left alone, and what needs hardly any room is done.
#[test]
fn a_full_disk() {
    let fs = MemFs::new();
    let mut rng = Rng(3);
    let mut world = World::filled(&fs, &mut rng, 60);
    // Of the first segments nothing is wanted, of the others half.
    let mains: Vec<i64> = world.owner.wanted.keys().map(|revision| revision.0).collect();
    let half = mains[mains.len() / 2];
    let gone: Vec<Revision> =
        world.owner.wanted.keys().copied().filter(|r| r.0 < half || r.0 % 2 == 0).collect();
    for revision in gone {
        let (at, payload) = world.owner.wanted.remove(&revision).unwrap();
        world.log.reader.forget([(at, payload.len() as u32, false)]);
    }
    let room = 300;
    fs.set_capacity(Some(fs.used() + room));
    assert!(world.log.writer.has_room());
    let (before, spares) = (fs.used(), spares(&fs));
    world.merge_all(ALL).unwrap();
    assert_eq!(self::spares(&fs), spares, "the reserve is left alone");
    assert_eq!(fs.used(), before, "the disk has no room for the first segments' merge");
    world.merge_all(Worth { output_bytes_max: room, ..ALL }).unwrap();
    assert!(fs.used() < before, "{} and {before}", fs.used());
    world.merge_all(ALL).unwrap();
    world.owner.check(&world.log.reader);
    assert_eq!(self::spares(&fs), spares);
}

fn spares(fs: &MemFs) -> Vec<std::path::PathBuf> {
    fs.files().into_iter().filter(|path| path.to_string_lossy().contains("spare-")).collect()
}

/// Which operation makes what durable.
#[test]
fn file_operations() {
    let fs = MemFs::new();
    let mut world = World::open(&fs).unwrap();
    let mut frame = |payload: &[u8]| {
        let at = world.log.push(payload);
        let revision = (world.log.main, 0);
        world.owner.wanted.insert(revision, (at, payload.to_vec()));
        world.owner.all.insert(revision, payload.to_vec());
        world.log.finish(b"state");
        world.log.write_all().unwrap();
    };
    for number in 0..20 {
        frame(&[number; 150]);
    }
    world.log.sync().unwrap();
    world.owner.wanted.retain(|revision, (at, _)| {
        let stays = revision.0 % 4 == 0;
        if !stays {
            world.log.reader.forget([(*at, 150, false)]);
        }
        stays
    });
    fs.start_trace();
    world.merge_all(ALL).unwrap();
    expect![[r#"
        create member/rev/merge-80000000.tmp
        allocate member/rev/merge-80000000.tmp 1116
        write member/rev/merge-80000000.tmp @0 +64
        write member/rev/merge-80000000.tmp @64 +592
        write member/rev/merge-80000000.tmp @656 +248
        sync member/rev/merge-80000000.tmp
        set-len member/rev/merge-80000000.tmp 904
        sync member/rev/merge-80000000.tmp
        rename member/rev/merge-80000000.tmp -> member/rev/80000000.seg
        sync-dir member/rev
        remove member/rev/00000001.seg
        remove member/rev/00000002.seg
        remove member/rev/00000003.seg
    "#]]
    .assert_eq(&fs.take_trace());
    world.owner.check(&world.log.reader);
}

/// A scan that is under way when its segments are merged shows everything that is wanted, once and in order.
#[test]
fn a_scan_across_a_merge() {
    for seed in seeds(30) {
        let fs = MemFs::new();
        let mut rng = Rng(seed);
        let mut world = World::filled(&fs, &mut rng, 60);
        world.forget(&mut rng, 2);
        let wanted = world.owner.clone();
        let stop_at = rng.below(wanted.all.len() as u64);
        let reader = world.log.reader.clone();
        let mut shown = Vec::new();
        let scanned = reader.scan(0, |header, at, payload| {
            if shown.len() as u64 == stop_at {
                world.merge_all(ALL).unwrap();
                world.write(&mut rng).unwrap();
            }
            shown.push((header, at, payload.to_vec()));
            ControlFlow::Continue(())
        });
        scanned.unwrap();
        wanted.check_scan(&shown, 0);
        world.owner.check(&world.log.reader);
    }
}

/// Markers stay as long as something before them is dead.
#[test]
fn markers_wait_for_what_they_hide() {
    let mut log = Log::open(MemFs::new(), &Limits::tiny()).unwrap();
    let merger = log.writer.merger();
    for _ in 0..40 {
        log.push(&[1; 300]);
        log.finish(b"");
        log.write_all().unwrap();
    }
    log.sync().unwrap();
    let worth = Worth { share_percent: 90, ..ALL };
    assert!(merger.plan(worth).is_none(), "nothing is dead");
    // Everything of the second segment is dead, and the first record of the first one.
    let records: Vec<_> = log.records().cloned().collect();
    let second = records.iter().filter(|(_, at, _)| at.segment() == 2);
    log.reader.forget(second.map(|(_, at, payload)| (*at, payload.len() as u32, true)));
    let plan = merger.plan(worth).expect("nothing is hidden by the markers");
    assert!(plan.may_drop_markers());
    log.reader.forget([(records[0].1, 300, false)]);
    assert!(merger.plan(worth).is_none(), "the markers of the second segment are no gain yet");
    let plan = merger.plan(ALL).unwrap();
    assert!(plan.may_drop_markers(), "the first segment goes first");
}
