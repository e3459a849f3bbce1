//! Rules 5 and 6: a crash at every operation, then a power cut drawn by a seed, then the log opens with
//! everything that was synced, in whole frames, and goes on.

use disk::MemFs;
use disk::revlog::{Error, Limits};

use crate::harness::{Batch, Log, Rng, image, seeds};

/// A fixed workload; says how many frames the last successful sync covered.
fn work(fs: &MemFs, seed: u64) -> (Vec<Batch>, u64, Result<(), Error>) {
    let mut log = match Log::open(fs.clone(), &Limits::tiny()) {
        Ok(log) => log,
        Err(error) => return (Vec::new(), 0, Err(error)),
    };
    let mut rng = Rng(seed);
    let mut durable = log.model.len() as u64;
    for _ in 0..14 {
        log.random_frame(&mut rng);
        if rng.below(3) > 0 {
            let result = log.write_all();
            durable = durable.max(log.writer.durable().frame);
            if let Err(error) = result {
                return (log.model, durable, Err(error));
            }
        }
        if rng.below(4) == 0 {
            match log.sync() {
                Ok(reached) => durable = reached.frame,
                Err(error) => return (log.model, durable, Err(error)),
            }
        }
    }
    (log.model, durable, Ok(()))
}

fn reopen(fs: &MemFs, model: &[Batch], durable: u64, context: &str) -> Log {
    let log = Log::open(fs.clone(), &Limits::tiny()).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(log.model.len() as u64 >= durable, "{context}: {} of {durable} frames", log.model.len());
    assert!(log.model.len() <= model.len(), "{context}: frames that nobody wrote");
    assert_eq!(log.model[..], model[..log.model.len()], "{context}: whole frames, unchanged");
    log.check();
    log
}

#[test]
fn power_cut_at_every_operation() {
    for seed in seeds(12) {
        let operations = {
            let fs = MemFs::new();
            work(&fs, seed).2.unwrap();
            fs.operations()
        };
        for halt in 0..operations {
            let fs = MemFs::new();
            fs.halt_after(Some(halt));
            let (model, durable, result) = work(&fs, seed);
            assert!(result.is_err(), "seed {seed}, halt {halt}: a failure does not go unnoticed");
            for cut in 0..3 {
                let context = format!("seed {seed}, halt {halt}, cut {cut}");
                let fs = fs.crashed(cut);
                let mut log = reopen(&fs, &model, durable, &context);
                // It goes on from there, and a kill (no power cut) loses nothing that was written.
                let mut rng = Rng(cut);
                for _ in 0..3 {
                    log.random_frame(&mut rng);
                }
                log.write_all().unwrap();
                let model = log.model.clone();
                drop(log);
                fs.kill();
                reopen(&fs, &model, model.len() as u64, &context);
            }
        }
    }
}

/// The cut of a torn tail is itself cut off at every operation.
#[test]
fn power_cut_during_repair() {
    for seed in seeds(60) {
        let fs = MemFs::new();
        let (model, durable, result) = work(&fs, seed);
        result.unwrap();
        let fs = fs.crashed(seed);
        for halt in 0.. {
            let fs = fs.copy();
            fs.halt_after(Some(halt));
            let whole = Log::open(fs.clone(), &Limits::tiny()).is_ok();
            let context = format!("seed {seed}, halt {halt}");
            let log = reopen(&fs.crashed(seed + 1), &model, durable, &context);
            drop(log);
            if whole {
                break;
            }
        }
    }
}

/// A killed process leaves frames that no sync covered; the next start makes them durable before it writes a
/// frame that vouches for them, or a power cut would look like damage.
#[test]
fn kill_then_power_cut() {
    for seed in seeds(200) {
        let fs = MemFs::new();
        let (_, _, result) = work(&fs, seed);
        result.unwrap();
        fs.kill();
        let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
        let durable = log.model.len() as u64;
        let mut rng = Rng(seed);
        for _ in 0..2 {
            log.push(&rng.bytes(10));
            log.finish(b"");
        }
        log.write_all().unwrap();
        reopen(&fs.crashed(seed), &log.model, durable, &format!("seed {seed}"));
    }
}

/// What lay behind a torn frame never comes back, not even where new frames end exactly before it.
#[test]
fn cut_frames_stay_gone() {
    let fs = MemFs::new();
    let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    for number in 1..=4 {
        log.push(&[number; 100]);
        log.finish(b"");
    }
    log.write_all().unwrap();
    drop(log);
    fs.kill();
    let second = 64 + 200;
    fs.flip("member/rev/00000001.seg", second + 150, 1).unwrap();
    let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    assert_eq!(log.model.len(), 1);
    log.push(&[5; 100]);
    log.finish(b"");
    log.write_all().unwrap();
    log.sync().unwrap();
    let model = log.model.clone();
    drop(log);
    fs.kill();
    reopen(&fs, &model, 2, "after the cut");
}

/// Starting twice changes nothing.
#[test]
fn second_start_changes_nothing() {
    for seed in seeds(60) {
        let fs = MemFs::new();
        let (model, durable, _) = work(&fs, seed);
        let fs = fs.crashed(seed);
        let first = reopen(&fs, &model, durable, "first").model;
        let before = image(&fs);
        fs.kill();
        let second = reopen(&fs, &model, durable, "second").model;
        assert_eq!(first, second, "seed {seed}");
        assert_eq!(before, image(&fs), "seed {seed}");
    }
}

/// Rule 7: after one failure nothing is tried again, and the failure names file and cause.
#[test]
fn failures_stop_the_log() {
    use disk::{Fault, FaultFs, Operation};
    use std::sync::Arc;
    for operation in [Operation::Sync, Operation::Write, Operation::SyncDir, Operation::Rename] {
        let memory = MemFs::new();
        let fs = FaultFs::new(Arc::new(memory.clone()));
        let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
        log.push(b"before");
        if matches!(operation, Operation::Sync | Operation::Write) {
            log.finish(b"");
            log.write_all().unwrap();
            log.push(b"after");
        }
        log.finish(b"");
        let before = log.model.len() as u64 - 1;
        fs.add(Fault { partial_bytes: 50, ..Fault::once(operation) });
        let failed = log.write_all().and_then(|()| log.sync().map(drop)).unwrap_err();
        assert!(failed.to_string().contains("member/rev"), "{operation:?}: {failed}");
        memory.start_trace();
        let stopped = log.sync().unwrap_err();
        assert!(matches!(stopped, Error::Stopped { .. }), "{operation:?}: {stopped}");
        assert!(stopped.to_string().contains(&failed.to_string()), "{operation:?}: {stopped}");
        log.push(b"more");
        log.finish(b"");
        assert!(matches!(log.write_all(), Err(Error::Stopped { .. })), "{operation:?}");
        assert_eq!(memory.take_trace(), "", "{operation:?}: nothing was tried again");
        // The next start finds whole frames, also behind a write that stopped half-way.
        let model = log.model.clone();
        drop(log);
        memory.kill();
        reopen(&memory, &model, before, &format!("{operation:?}"));
    }
}

/// What a failed sync has not brought to the disk may still be in the cache, clean, and no later sync writes it: the
/// next frame must not vouch for it.
#[test]
fn a_start_does_not_believe_what_only_the_cache_has() {
    for seed in seeds(60) {
        let fs = MemFs::new();
        let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
        for payload in [[1; 300], [2; 300]] {
            log.push(&payload);
            log.finish(b"");
        }
        log.write_all().unwrap();
        fs.fail_sync(seed);
        log.sync().unwrap_err();
        drop(log);
        fs.kill();
        let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
        let durable = log.model.len() as u64;
        log.push(&[3; 300]);
        log.finish(b"");
        log.write_all().unwrap();
        reopen(&fs.crashed(seed), &log.model, durable, &format!("seed {seed}"));
    }
}
