//! One run: a random order of everything that can happen, from a seed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::{Fault, FaultFs, Fs, MemFs, Operation};
use node::lease::{Renewal, Wait};
use node::{LaneIds, Settings, Submission};
use prost::Message;
use raft::Time;

use crate::checker::{Checker, Fate};
use crate::leases::LeaseChecker;
use crate::member::{Running, Told, proposal, settings};
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
        Options { steps: 2000, print_trace: false }
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
    /// Snapshots that the log came to name.
    pub snapshots: u64,
    /// Files given back: segments of the log and `.snap` files.
    pub removed: u64,
    /// Merges of the revision log that came to their end.
    pub merges: u64,
    /// Bytes that they gave back.
    pub merged_away_bytes: u64,
    /// Starts that made the revision log anew from a log with snapshots.
    pub made_anew: u64,
    /// Leases that ended by themselves.
    pub leases_ended: u64,
    /// Renewals of leases that were acknowledged.
    pub renewals: u64,
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
    (world.report.leases_ended, world.report.renewals) = (world.leases.ended, world.leases.renewed);
    world.report
}

/// What a read index is asked for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    /// A read, when clients had seen this revision.
    Read { seen_before: i64 },
    /// The renewal of a lease.
    Renew { lease: i64 },
}

struct World {
    random: Random,
    options: Options,
    memory: MemFs,
    faults: FaultFs,
    fs: Arc<dyn Fs>,
    now: Time,
    /// Of that, time in which the process was stopped.
    paused_us: u64,
    member: Option<(Running, LaneIds)>,
    checker: Checker,
    leases: LeaseChecker,
    /// Reads under way: context → (what for, index to wait for once known).
    reads: BTreeMap<u64, (Purpose, Option<u64>)>,
    applied_index: u64,
    settings: Settings,
    full: bool,
    /// Nothing is disturbed any more.
    is_calm: bool,
    /// Strikes of faults that belong to earlier runs of the member.
    strikes_before: u64,
    report: Report,
}

impl World {
    fn new(seed: u64, options: Options) -> Self {
        let memory = MemFs::new();
        let faults = FaultFs::new(Arc::new(memory.clone()));
        let mut random = Random::new(seed);
        let mut settings = settings();
        if random.one_in(3) {
            // So little that requests are refused, and entries wait in the log for their turn to be applied.
            let raft = &mut settings.limits.raft;
            (raft.uncommitted_entries_max, raft.uncommitted_bytes_max) = (6, 2000);
            raft.applying_bytes_max = 300;
        }
        // The smaller half of the runs gives nothing back, or hardly anything, as a member with the defaults would.
        if random.below(3) > 0 {
            settings.snapshot_count = 1 + random.below(20);
            settings.wals_max = random.below(4) as usize;
            settings.snapshots_max = random.below(4) as usize;
        }
        World {
            random,
            options,
            settings,
            fs: Arc::new(faults.clone()),
            memory,
            faults,
            now: Time(0),
            paused_us: 0,
            member: None,
            checker: Checker::default(),
            leases: LeaseChecker::default(),
            reads: BTreeMap::new(),
            applied_index: 0,
            full: false,
            is_calm: false,
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
            150..180 => self.read_index(),
            180..200 => self.renew(),
            200..204 => self.let_time_pass(),
            204 => self.pause(),
            _ => self.run_part(),
        }
    }

    /// Microseconds in which the process was not stopped.
    fn ran_us(&self) -> u64 {
        self.now.0 - self.paused_us
    }

    /// Some seconds in which nothing comes from clients. The raft thread looks whenever it has to; the others may sleep
    /// all the while.
    fn let_time_pass(&mut self) {
        let end = Time(self.now.0 + self.random.below(3_000_000));
        self.trace(format_args!("until {}", end.0));
        while self.now < end {
            let Some((running, _)) = &self.member else { return };
            self.now = running.parts.consensus.deadline().max(Time(self.now.0 + 1)).min(end);
            match self.random.below(6) {
                0 => self.run_part(),
                _ => self.run_consensus(),
            }
        }
    }

    /// The process is stopped, and goes on.
    fn pause(&mut self) {
        let pause_us = 300_001 + self.random.below(10_000_000);
        self.trace(format_args!("paused for {pause_us}"));
        self.now = Time(self.now.0 + pause_us);
        self.paused_us += pause_us;
        // What may find it out first is anybody's guess.
        if self.random.one_in(2) {
            self.run_consensus();
        }
    }

    fn run_consensus(&mut self) {
        let Some((running, _)) = &mut self.member else { return };
        let mut told = Told::default();
        running.consensus(self.now, &mut told);
        self.hear(0, told);
    }

    /// Starts the member; the start itself may be hit by a crash or a failing disk.
    fn start(&mut self) {
        match self.random.below(if self.is_calm { 1 } else { 12 }) {
            1 | 2 => {
                let operations = self.random.below(12);
                self.memory.halt_after(Some(operations));
            }
            3 => self.fail_soon(),
            _ => {}
        }
        match Running::start(&self.fs, &self.settings, &mut self.random, self.now) {
            Ok(running) => {
                let found = running.parts.found.clone();
                self.trace(format_args!("start {found:?}"));
                // Rule 3: a crash leaves no log that names a file which is not there whole.
                assert_eq!((&found.broken[..], &found.missing), (&[][..], &None));
                self.report.made_anew += u64::from(found.applied_index < found.snapshot_index);
                let same =
                    self.checker.restarted(&running.parts.reader, found.applied_index, found.last_index);
                assert!(same || self.is_faulty(), "a read failed on a healthy disk");
                self.applied_index = found.applied_index;
                self.leases.started(self.ran_us());
                let lane = running.lane();
                self.member = Some((running, lane));
            }
            Err(error) => {
                // Only a member's very first start needs room.
                let full_explains = self.full && self.checker.is_new();
                assert!(self.is_faulty() || full_explains, "start of a member: {error}");
                self.trace(format_args!("start failed: {error}"));
                self.crash("at start");
            }
        }
    }

    /// Whether the disk has failed, other than by being full.
    fn is_faulty(&self) -> bool {
        self.memory.has_halted()
            || self.memory.has_failed_sync()
            || self.faults.strikes() > self.strikes_before
    }

    fn crash(&mut self, when: &str) {
        self.report.crashes += 1;
        self.member = None;
        self.reads.clear();
        self.checker.died();
        self.faults.clear();
        self.strikes_before = self.faults.strikes();
        self.memory.halt_after(None);
        // Others have filled the disk, or there is room again.
        if self.is_calm || self.random.one_in(2) {
            self.memory.set_capacity(None);
            self.full = false;
        }
        if self.random.one_in(3) {
            self.trace(format_args!("kill {when}"));
            self.memory.kill();
        } else {
            let seed = self.random.draw();
            self.trace(format_args!("power cut {when}"));
            self.memory.power_cut(seed);
        }
        if self.random.one_in(20) {
            self.lose_revision_log();
        }
    }

    /// What an operator may do with a damaged one: it is made anew from the write-ahead log, as long as that has not
    /// been given back; after that the start is refused, and the operator takes it back.
    fn lose_revision_log(&mut self) {
        let files = self.contents(|path| path.starts_with("/data/member/rev"));
        self.trace(format_args!("without the revision log's {} files", files.len()));
        for (file, _) in &files {
            self.memory.remove(file).expect("a file");
        }
        if files.is_empty() {
            return;
        }
        self.memory.sync_dir(Path::new("/data/member/rev")).expect("a folder");
        let segments = self.contents(|path| path.extension().is_some_and(|end| end == "wal"));
        if segments.first().is_none_or(|(first, _)| first.ends_with("0000000000000000-0000000000000000.wal"))
        {
            return;
        }
        // The first start may forget what the cache has and the disk has not.
        let mut left = Vec::new();
        for _ in 0..2 {
            let error = Running::start(&self.fs, &self.settings, &mut self.random, self.now).err();
            let error = error.expect("made anew from a log without its beginning").to_string();
            assert!(error.contains("/data/member/rev"), "{error}");
            self.trace(format_args!("refused: {error}"));
            self.memory.kill();
            left.push(self.contents(|_| true));
        }
        assert!(left[0] == left[1], "a refusal changed something");
        for (file, bytes) in &files {
            self.memory.put(file, bytes).expect("a file");
        }
    }

    fn contents(&self, which: impl Fn(&Path) -> bool) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.memory.files().into_iter().filter(|path| which(path));
        files.map(|path| (path.clone(), self.memory.read(&path).expect("a file"))).collect()
    }

    /// The disk stops in the middle of what comes next.
    fn halt_soon(&mut self) {
        if self.memory.has_halted() {
            return;
        }
        let operations = self.random.below(6);
        self.trace(format_args!("halt after {operations} operations"));
        self.memory.halt_after(Some(operations));
    }

    fn fail_soon(&mut self) {
        if self.random.one_in(3) {
            let seed = self.random.draw();
            self.trace(format_args!("the next sync fails and loses a part"));
            return self.memory.fail_sync(seed);
        }
        let operation = match self.random.below(12) {
            0..3 => Operation::Write,
            3..6 => Operation::Sync,
            6 => Operation::Rename,
            7 => Operation::SyncDir,
            8 => Operation::Create,
            9 => Operation::Allocate,
            10 => Operation::SetLen,
            _ => Operation::Read,
        };
        let (skip, partial_bytes) = (self.random.below(3), self.random.below(3000) as usize);
        self.trace(format_args!("{operation:?} fails, but for {skip}"));
        // A failed read of a client's ends nothing, so those come back.
        self.faults.add(Fault {
            skip,
            partial_bytes,
            whole_sectors: true,
            forever: operation != Operation::Read,
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
            let (request, grows) = workload::request(&mut self.random, id.0, self.checker.seen_revision());
            self.checker.submitted(id.0);
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
            let seen_before = self.checker.seen_revision();
            self.reads.insert(context.0, (Purpose::Read { seen_before }, None));
            running.submit(vec![Submission::ReadIndex { context }]);
        }
    }

    fn renew(&mut self) {
        let lease = workload::lease(&mut self.random);
        let Some((running, lane)) = &mut self.member else { return };
        if running.is_ready {
            let context = lane.next();
            self.reads.insert(context.0, (Purpose::Renew { lease }, None));
            running.submit(vec![Submission::ReadIndex { context }]);
        }
    }

    fn run_part(&mut self) {
        let part = self.random.below(9);
        if self.random.one_in(200)
            && let Some((running, _)) = &mut self.member
        {
            running.parts.merger.ask();
        }
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
            2 if sync => running.end_preparing(),
            2 => {
                running.begin_preparing();
                Ok(())
            }
            3 if !running.is_apply_paused() => running.apply(self.now, &mut told),
            4 => running.write_revisions(),
            5 if sync => running.sync_revisions(),
            6 => {
                running.compact();
                Ok(())
            }
            7 => running.work_on_files(&mut told),
            8 => running.merge(&mut told),
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
        assert!(told.sent.is_empty(), "a cluster of one sends nothing");
        assert_eq!(told.lost, None, "what a member has taken by itself is not lost");
        let ran_us = self.ran_us();
        self.leases.proposed(&told.proposed, ran_us, |id| self.checker.requests.contains_key(&id));
        for entry in &told.applied {
            if self.checker.applied(entry) {
                self.leases.applied(entry, ran_us, &self.checker.leases());
            }
            self.applied_index = entry.index.0;
        }
        told.ended.iter().for_each(|waiter| self.leases.told_gone(waiter.0));
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
        assert!(!told.unreadable || self.is_faulty(), "a merge could not read on a healthy disk");
        for merged in told.merges {
            self.report.merges += 1;
            self.report.merged_away_bytes += merged.source_bytes - merged.merged_bytes;
            self.trace(format_args!("{merged:?}"));
        }
        self.report.removed += told.removed.len() as u64;
        for index in told.snapshots {
            self.report.snapshots += 1;
            self.trace(format_args!("snapshot {index}"));
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
            match self.reads.remove(&context) {
                Some((Purpose::Read { seen_before }, _)) => {
                    let same = self.checker.read(&running.parts.reader, seen_before);
                    let is_faulty = self.faults.strikes() > self.strikes_before;
                    assert!(same || is_faulty, "a read failed on a healthy disk");
                }
                Some((Purpose::Renew { lease }, _)) => {
                    let ran_us = self.now.0 - self.paused_us;
                    renew_now(running, self.now, lease, (context, ran_us), &mut self.leases);
                }
                None => {}
            }
        }
    }

    /// Lets the member settle on a healthy disk: everything submitted must be answered, and a last restart must
    /// find it all.
    fn finish(&mut self) {
        self.is_calm = true;
        self.crash("at the end");
        self.start_undisturbed();
        self.settle();
        self.submit();
        self.read_index();
        self.renew();
        self.settle();
        assert!(self.reads.is_empty(), "reads without an answer on a healthy member");
        assert!(
            self.checker.requests.values().all(|fate| *fate != Fate::Open),
            "requests without an answer on a healthy member"
        );
        self.crash("after the end");
        self.start_undisturbed();
        self.settle();
        self.outlive_leases();
        if let Some((running, _)) = &self.member {
            assert!(self.checker.compare(&running.parts.reader), "a read failed on a healthy disk");
        }
    }

    /// Nobody renews anything: every lease ends.
    fn outlive_leases(&mut self) {
        let end = self.now.plus_ms(1000 * (workload::TTL_MAX_S + 3));
        while self.now < end {
            let Some((running, _)) = &self.member else { panic!("a healthy member died") };
            self.now = running.parts.consensus.deadline().max(Time(self.now.0 + 1)).min(end);
            self.settle();
            self.run_consensus();
        }
        self.settle();
        self.leases.finish();
        assert_eq!(self.checker.leases(), BTreeMap::new(), "leases that never end");
    }

    fn start_undisturbed(&mut self) {
        self.start();
        assert!(self.member.is_some(), "no start on a healthy disk");
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

/// Leadership is confirmed: the lease is renewed, unless it has ended.
fn renew_now(
    running: &Running,
    now: Time,
    lease: i64,
    (context, ran_us): (u64, u64),
    checker: &mut LeaseChecker,
) {
    let mut lessor = running.parts.lessor.lock();
    match lessor.renew(now, lease) {
        Renewal::Renewed { ttl_s } => checker.renewed(lease, ttl_s, ran_us),
        Renewal::NotFound => checker.not_found(lease),
        Renewal::Ended => match lessor.wait_for_end(lease, node::RequestId(context)) {
            Wait::Waiting => checker.waits(context, lease),
            other => panic!("a renewal of lease {lease} that has ended: {other:?}"),
        },
        other => panic!("a confirmed renewal of lease {lease}: {other:?}"),
    }
}
