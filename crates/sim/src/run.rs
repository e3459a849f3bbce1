//! One run: a random order of everything that can happen, from a seed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use disk::{Fault, FaultFs, Fs, MemFs, Operation};
use node::{LaneIds, Submission};
use prost::Message;
use raft::Time;

use crate::checker::{Checker, Fate};
use crate::member::{Running, Told, proposal};
use crate::random::Random;
use crate::workload;

/// How long and how rough a run is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Steps: each runs one part, or makes something happen.
    pub steps: u64,
    /// Whether to print each line of the trace as it happens; its digest is always made.
    pub print_trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { steps: 1500, print_trace: false }
    }
}

/// What a run did. A run that finds a fault panics, naming it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Answers that clients got, each checked.
    pub answers: u64,
    /// Kills, power cuts and failed disk operations that ended the member.
    pub crashes: u64,
    /// Requests refused because the disk was full.
    pub no_space: u64,
    /// A sum over the trace: equal for equal runs.
    pub digest: u64,
}

/// Runs a member from `seed`.
///
/// # Panics
/// On any fault found; the message does not repeat the seed, the caller prints it.
pub fn run(seed: u64, options: Options) -> Report {
    let mut world = World::new(seed, options);
    for _ in 0..options.steps {
        world.step();
    }
    world.finish();
    world.report.answers = world.checker.answers;
    world.report
}

struct World {
    random: Random,
    options: Options,
    memory: MemFs,
    faults: FaultFs,
    fs: Arc<dyn Fs>,
    now: Time,
    member: Option<(Running, LaneIds)>,
    checker: Checker,
    /// Reads under way: context → (revision seen before, index to wait for once known).
    reads: BTreeMap<u64, (i64, Option<u64>)>,
    applied_index: u64,
    full: bool,
    /// Strikes of faults that belong to earlier runs of the member.
    strikes_before: u64,
    report: Report,
}

impl World {
    fn new(seed: u64, options: Options) -> Self {
        let memory = MemFs::new();
        let faults = FaultFs::new(Arc::new(memory.clone()));
        World {
            random: Random::new(seed),
            options,
            fs: Arc::new(faults.clone()),
            memory,
            faults,
            now: Time(0),
            member: None,
            checker: Checker::default(),
            reads: BTreeMap::new(),
            applied_index: 0,
            full: false,
            strikes_before: 0,
            report: Report::default(),
        }
    }

    fn trace(&mut self, line: std::fmt::Arguments<'_>) {
        let mut text = String::new();
        let _ = write!(text, "{line}");
        for byte in text.bytes().chain([b'\n']) {
            self.report.digest = (self.report.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.options.print_trace {
            println!("{text}");
        }
    }

    fn step(&mut self) {
        self.now = Time(self.now.0 + self.random.below(2000));
        if self.member.is_none() {
            return self.start();
        }
        match self.random.below(1000) {
            0..3 => self.crash("at rest"),
            3..6 => self.halt_soon(),
            6..9 => self.fail_soon(),
            9..12 => self.toggle_full_disk(),
            12..150 => self.submit(),
            150..200 => self.read_index(),
            _ => self.run_part(),
        }
    }

    /// Starts the member; the start itself may be hit by a crash.
    fn start(&mut self) {
        if self.random.one_in(6) {
            let operations = self.random.below(12);
            self.memory.halt_after(Some(operations));
        }
        match Running::start(&self.fs, &mut self.random, self.now) {
            Ok(running) => {
                let found = running.parts.found.clone();
                self.trace(format_args!("start {found:?}"));
                self.checker.restarted(&running.parts.reader, found.applied_index, found.last_index);
                self.applied_index = found.applied_index;
                let lane = running.lane();
                self.member = Some((running, lane));
            }
            Err(error) => {
                assert!(self.is_disturbed(), "start of a member: {error}");
                self.trace(format_args!("start failed: {error}"));
                self.crash("at start");
            }
        }
    }

    /// Whether a fault that we made explains a failure.
    fn is_disturbed(&self) -> bool {
        self.is_faulty() || self.full
    }

    /// Whether the disk has failed, other than by being full.
    fn is_faulty(&self) -> bool {
        self.memory.has_halted() || self.faults.strikes() > self.strikes_before
    }

    fn crash(&mut self, when: &str) {
        self.report.crashes += 1;
        self.member = None;
        self.reads.clear();
        self.checker.died();
        self.faults.clear();
        self.strikes_before = self.faults.strikes();
        self.memory.halt_after(None);
        self.memory.set_capacity(None);
        self.full = false;
        if self.random.one_in(3) {
            self.trace(format_args!("kill {when}"));
            self.memory.kill();
        } else {
            let seed = self.random.draw();
            self.trace(format_args!("power cut {when}"));
            self.memory.power_cut(seed);
        }
    }

    /// The disk stops in the middle of what comes next.
    fn halt_soon(&mut self) {
        let operations = self.random.below(6);
        self.trace(format_args!("halt after {operations} operations"));
        self.memory.halt_after(Some(operations));
    }

    fn fail_soon(&mut self) {
        let operation = match self.random.below(3) {
            0 => Operation::Write,
            1 => Operation::Rename,
            _ => Operation::Sync,
        };
        let partial_bytes = self.random.below(3000) as usize;
        self.trace(format_args!("next {operation:?} fails"));
        self.faults.add(Fault {
            partial_bytes,
            whole_sectors: true,
            forever: true,
            ..Fault::once(operation)
        });
    }

    fn toggle_full_disk(&mut self) {
        self.full = !self.full;
        let capacity = self.full.then(|| self.memory.used() + self.random.below(4096));
        let full = self.full;
        self.trace(format_args!("disk full: {full}"));
        self.memory.set_capacity(capacity);
    }

    fn submit(&mut self) {
        let Some((running, lane)) = &mut self.member else { return };
        if !running.is_ready {
            return;
        }
        let mut batch = Vec::new();
        let mut lines = Vec::new();
        for _ in 0..=self.random.below(4) {
            let id = lane.next();
            let (request, grows) = workload::request(&mut self.random, id.0);
            self.checker.requests.insert(id.0, Fate::Open);
            lines.push(id.0);
            batch.push(proposal(id, request.encode_to_vec(), grows));
        }
        running.submit(batch);
        self.trace(format_args!("submit {lines:x?}"));
    }

    fn read_index(&mut self) {
        let Some((running, lane)) = &mut self.member else { return };
        if running.is_ready {
            let context = lane.next();
            self.reads.insert(context.0, (self.checker.seen_revision(), None));
            running.submit(vec![Submission::ReadIndex { context }]);
        }
    }

    fn run_part(&mut self) {
        let part = self.random.below(6);
        let group = 1 + self.random.below(4) as usize;
        let sync = self.random.one_in(4);
        let Some((running, _)) = &mut self.member else { return };
        let mut told = Told::default();
        let result = match part {
            0 => {
                running.consensus(self.now, &mut told);
                Ok(())
            }
            1 => running.write_log(group),
            2 if running.persist.is_empty() => running.prepare_log(),
            3 if !running.is_apply_paused() => running.apply(&mut told),
            4 => running.write_revisions(),
            5 if sync => running.sync_revisions(),
            _ => Ok(()),
        };
        self.hear(part, told);
        if let Err(error) = result {
            // A full disk ends nothing (rule 7).
            assert!(self.is_faulty(), "part {part} failed: {error}");
            self.trace(format_args!("part {part} failed: {error}"));
            self.crash("after a failed operation");
        }
    }

    fn hear(&mut self, part: u64, told: Told) {
        for entry in &told.applied {
            self.checker.applied(entry);
            self.applied_index = entry.index.0;
        }
        for (id, result) in &told.completions.answers {
            if result.as_ref().is_err_and(|status| status.message == wire::ApiError::NoSpace.text()) {
                self.report.no_space += 1;
            }
            self.checker.answered(id.0, result);
            self.trace(format_args!("part {part} answers {:x} {}", id.0, result.is_ok()));
        }
        for (context, result) in &told.completions.reads {
            match (self.reads.get_mut(&context.0), result) {
                (Some(read), Ok(index)) => read.1 = Some(*index),
                (Some(_), Err(_)) => drop(self.reads.remove(&context.0)),
                (None, _) => panic!("a read index for {:x}, which nobody asked", context.0),
            }
        }
        self.serve_reads();
    }

    fn serve_reads(&mut self) {
        let Some((running, _)) = &self.member else { return };
        let applied = self.applied_index;
        let due: Vec<u64> = self
            .reads
            .iter()
            .filter(|(_, (_, index))| index.is_some_and(|index| index <= applied))
            .map(|(context, _)| *context)
            .collect();
        for context in due {
            if let Some((seen_before, _)) = self.reads.remove(&context) {
                self.checker.read(&running.parts.reader, seen_before);
            }
        }
    }

    /// Lets the member settle on a healthy disk: everything submitted must be answered, and a last restart must
    /// find it all.
    fn finish(&mut self) {
        self.crash("at the end");
        self.start_undisturbed();
        self.settle();
        self.submit();
        self.settle();
        assert!(
            self.checker.requests.values().all(|fate| *fate != Fate::Open),
            "requests without an answer on a healthy member"
        );
        self.crash("after the end");
        self.start_undisturbed();
        self.settle();
        if let Some((running, _)) = &self.member {
            self.checker.compare(&running.parts.reader);
        }
    }

    fn start_undisturbed(&mut self) {
        while self.member.is_none() {
            self.memory.halt_after(None);
            self.start();
        }
        self.memory.halt_after(None);
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            let Some((running, _)) = &self.member else { panic!("a healthy member died") };
            if running.is_idle() && running.is_ready {
                return;
            }
            self.now = Time(self.now.0 + 400);
            self.run_part();
        }
        panic!("the member does not settle");
    }
}
