//! Members in memory: a network that holds, loses, repeats and reorders, disks that finish when told and forget what
//! they had not finished, and time that only moves on request. Every step is followed by the checks of `safety.rs`.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod changes;
pub mod journal;
mod safety;
mod show;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raft::*;

use journal::Journal;
use safety::Safety;

pub struct Cluster {
    pub now: Time,
    pub members: BTreeMap<NodeId, Member>,
    /// Under way, in order of departure.
    pub network: Vec<Message>,
    /// From whom to whom nothing arrives.
    pub cuts: BTreeSet<(NodeId, NodeId)>,
    pub safety: Safety,
    /// What happened, a line each; `None` where nobody reads it.
    pub trace: Option<String>,
    /// Whether the transcript leaves out heartbeats that carry no read, and their answers.
    pub hide_heartbeats: bool,
    /// What every snapshot ever made holds; a snapshot's data is its place here.
    pub snapshots: Vec<Vec<Entry>>,
    next_token: u64,
}

pub struct Member {
    pub config: Config,
    /// `None` while crashed.
    pub raft: Option<Raft>,
    pub disk: Disk,
    /// Handed to the disk, not finished.
    pub writes: VecDeque<Write>,
    /// Waits for the disk.
    held: Vec<(PersistSeq, Message)>,
    /// Handed to the state machine, not finished.
    pub applying: VecDeque<Work>,
    /// The state machine: everything that it was given, from the first entry on.
    pub state: Vec<Entry>,
    /// Who takes part, as of `state`.
    pub conf: ConfState,
    /// The log as this member believes it to be, whether or not its disk has it.
    pub view: Journal,
    /// Who waits for a snapshot of this member.
    pub wanted: VecDeque<NodeId>,
    /// How the sending of snapshots ended, not yet reported.
    pub reports: VecDeque<(NodeId, (Term, Index), bool)>,
    pub disk_runs: bool,
    pub apply_runs: bool,
    pub snapshots_run: bool,
    /// How fast its clock runs, in hundredths.
    pub clock: u64,
    /// The membership before the first entry, which no entry has made.
    first_conf: ConfState,
    /// Whether it came later, and has to learn of that.
    joined: bool,
    runs: u64,
}

#[derive(Default)]
pub struct Disk {
    pub state: HardState,
    pub log: Journal,
    /// What the snapshot before the log holds.
    pub snapshot: Vec<Entry>,
}

pub struct Write {
    pub seq: PersistSeq,
    term: Term,
    last: Position,
    hard_state: Option<HardState>,
    pub entries: Vec<Entry>,
    snapshot: Option<Snapshot>,
}

pub enum Work {
    Entry(Entry),
    /// To go over to a snapshot.
    Switch(Snapshot),
}

pub fn node(id: u64) -> NodeId {
    NodeId(id)
}

impl Member {
    pub fn restored(&self, offset: Index) -> Restored {
        let log = &self.disk.log;
        let knows = !self.joined || !self.state.is_empty();
        Restored {
            hard_state: self.disk.state,
            conf: if knows { self.conf.clone() } else { ConfState::default() },
            offset: (offset, log.term(offset).expect("the offset is in the log")),
            entries: log.after(offset),
            applied: Index(self.state.len() as u64),
        }
    }

    /// The member's own time.
    fn local(&self, now: Time) -> Time {
        Time(now.0 * self.clock / 100)
    }

    fn deadline(&self) -> Option<Time> {
        let deadline = self.raft.as_ref()?.deadline();
        let global = deadline.0.checked_mul(100).map(|time| time.div_ceil(self.clock));
        Some(global.map_or(Time::NEVER, Time))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
    }
}

impl Cluster {
    /// `count` voters, all known to each other; settings for all.
    pub fn new(count: u64, seed: u64, settings: &Config) -> Self {
        let conf = ConfState { voters: (1..=count).map(NodeId).collect(), learners: Vec::new() };
        let mut cluster = Self {
            now: Time::from_ms(0),
            members: BTreeMap::new(),
            network: Vec::new(),
            cuts: BTreeSet::new(),
            safety: Safety::default(),
            trace: None,
            hide_heartbeats: false,
            snapshots: Vec::new(),
            next_token: 0,
        };
        for id in 1..=count {
            cluster.add(id, seed, settings, Disk::default(), conf.clone());
        }
        cluster
    }

    /// The settings of all tests: pre-vote is asked for where it is the subject.
    pub fn settings(limits: Limits) -> Config {
        Config {
            id: NodeId(0),
            election_timeout_ms: 1000,
            heartbeat_interval_ms: 100,
            pre_vote: false,
            check_quorum: true,
            seed: 0,
            limits,
        }
    }

    /// Adds a member that has this much on its disk, without starting it.
    pub fn add(&mut self, id: u64, seed: u64, settings: &Config, disk: Disk, first_conf: ConfState) {
        let seed = seed.wrapping_mul(31).wrapping_add(id);
        let config = Config { id: NodeId(id), seed, ..settings.clone() };
        let view = disk.log.clone();
        let member = Member {
            config,
            raft: None,
            disk,
            writes: VecDeque::new(),
            held: Vec::new(),
            applying: VecDeque::new(),
            state: Vec::new(),
            conf: first_conf.clone(),
            view,
            wanted: VecDeque::new(),
            reports: VecDeque::new(),
            disk_runs: true,
            apply_runs: true,
            snapshots_run: true,
            clock: 100,
            first_conf,
            joined: false,
            runs: 0,
        };
        self.members.insert(NodeId(id), member);
    }

    /// Adds a member that knows nothing, and starts it.
    pub fn join(&mut self, id: u64, seed: u64, settings: &Config) {
        let first_conf = self.members.first_key_value().expect("there are others").1.first_conf.clone();
        self.add(id, seed, settings, Disk::default(), first_conf);
        self.members.get_mut(&NodeId(id)).expect("just added").joined = true;
        self.start(NodeId(id), Index::ZERO);
    }

    /// Prints what happened so far, for a test that fails.
    fn tell(&self) {
        if let Some(trace) = &self.trace {
            eprintln!("{trace}");
        }
    }

    pub fn raft(&self, id: NodeId) -> &Raft {
        self.members[&id].raft.as_ref().expect("the member runs")
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.members.get(&id).is_some_and(|member| member.raft.is_some())
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push_str(&line());
            trace.push('\n');
        }
    }

    /// Starts a member with what its disk has, from `offset` on (what is before is applied).
    pub fn start(&mut self, id: NodeId, offset: Index) {
        let member = self.members.get_mut(&id).unwrap();
        assert!(member.raft.is_none(), "{id} runs already");
        let now = member.local(self.now);
        let mut config = member.config.clone();
        config.seed = config.seed.wrapping_add(member.runs << 32);
        member.runs += 1;
        let offset = offset.max(member.disk.log.start.0);
        member.raft = Some(Raft::new(config, member.restored(offset), now).expect("the disk is sound"));
    }

    /// Ends a member: of what its disk had not finished, the first `kept` records are there and the rest is lost,
    /// messages that waited for it never leave, and its state machine falls back to what the log on disk covers, or to
    /// `applied`.
    pub fn crash(&mut self, id: NodeId, applied: Option<usize>, mut kept: usize) {
        let snapshots = &self.snapshots;
        let member = self.members.get_mut(&id).unwrap();
        member.raft = None;
        let disk = &mut member.disk;
        for Write { hard_state, entries, snapshot, .. } in member.writes.drain(..) {
            if let Some(snapshot) = snapshot.filter(|_| kept > 0) {
                disk.log.restore((snapshot.index, snapshot.term));
                disk.snapshot = contents(snapshots, &snapshot).to_vec();
            }
            let part = entries.len().min(kept);
            if part > 0 {
                disk.log.write(&entries[..part]);
            }
            kept -= part;
            if kept > 0
                && let Some(state) = hard_state
            {
                disk.state = state;
                kept -= 1;
            }
        }
        member.held.clear();
        member.applying.clear();
        member.wanted.clear();
        member.reports.clear();
        member.view.clone_from(&disk.log);
        // Only what the disk's log covers may outlive the crash (design rule 2). An equal length would not do: the disk
        // may still have old entries where others were committed and applied.
        let start = disk.log.start.0.0 as usize;
        if member.state.len() < start {
            member.state.clone_from(&disk.snapshot);
        }
        let rest = member.state[start..].iter().zip(&disk.log.entries);
        let covered = start + rest.take_while(|(own, disk)| own == disk).count();
        member.state.truncate(applied.unwrap_or(usize::MAX).clamp(start, covered));
        member.conf = changes::after_all(&member.state, &member.first_conf);
    }

    /// One event into one member, and its effects into the world.
    pub fn step(&mut self, id: NodeId, event: Event) {
        let member = self.members.get_mut(&id).unwrap();
        let now = member.local(self.now);
        let Some(raft) = member.raft.as_mut() else { return };
        let mut effects = Vec::new();
        let commit = raft.status().commit;
        raft.step(now, event, &mut effects);
        raft.check();
        for effect in effects {
            self.say_effect(id, &effect);
            self.carry_out(id, effect);
        }
        let status = self.raft(id).status();
        self.safety.committed_to(status.commit);
        if status.role == Role::Leader && status.commit > commit {
            let Member { raft, view, .. } = &self.members[&id];
            let last = (status.commit, view.term(status.commit).expect("a leader commits what it has"));
            let voters = &raft.as_ref().expect("it runs").conf().voters;
            self.safety.leader_commits(last, voters, |id| Some(&self.members.get(&id)?.disk.log));
        }
        // What a shell may count on: not only are there as many entries on the disk, they are these.
        let covered = status.durable.min(status.commit);
        let Member { disk, view, .. } = &self.members[&id];
        if covered > view.start.0 {
            assert_eq!(
                disk.log.term(covered),
                view.term(covered),
                "{id}: entry {covered} on its disk and in its log"
            );
        }
    }

    fn carry_out(&mut self, id: NodeId, effect: Effect) {
        let member = self.members.get_mut(&id).unwrap();
        match effect {
            Effect::Persist { seq, term, last, hard_state, entries } => {
                member.view.write(&entries);
                assert_eq!(member.view.last(), last.0, "last entry and entries handed out differ");
                self.safety.wrote(&member.view, &entries);
                member.writes.push_back(Write { seq, term, last, hard_state, entries, snapshot: None });
            }
            Effect::Restore { seq, term, hard_state, snapshot } => {
                let last = (snapshot.index, snapshot.term);
                member.view.restore(last);
                self.safety.restored(snapshot.index, contents(&self.snapshots, &snapshot));
                let (hard_state, snapshot) = (Some(hard_state), Some(snapshot));
                member.writes.push_back(Write { seq, term, last, hard_state, entries: Vec::new(), snapshot });
            }
            Effect::Send { message, after: Some(seq) } => member.held.push((seq, message)),
            Effect::Send { message, after: None } => self.depart(message),
            Effect::Apply { entries } => {
                entries.iter().for_each(|entry| self.safety.committed(entry));
                member.applying.extend(entries.into_iter().map(Work::Entry));
            }
            Effect::SnapshotWanted { to } => member.wanted.push_back(to),
            Effect::ReadReady { context, index } => self.safety.read_ready(context, index),
            Effect::ReadRefused { context, .. } => self.safety.read_refused(context),
            Effect::ProposalRefused { .. } | Effect::ForwardRefused { .. } => {}
            Effect::Leadership { term, role, .. } => {
                if role == Role::Leader {
                    self.safety.elected(id, term, &self.members[&id].view);
                }
            }
        }
    }

    fn depart(&mut self, message: Message) {
        let disk = &self.members[&message.from].disk;
        self.safety.left(&message, &disk.state, &disk.log);
        self.network.push(message);
    }

    /// The disk finishes its oldest write; whether there was one.
    pub fn finish_write(&mut self, id: NodeId) -> bool {
        let member = self.members.get_mut(&id).unwrap();
        let Some(Write { seq, term, last, hard_state, entries, snapshot }) = member.writes.pop_front() else {
            return false;
        };
        if let Some(snapshot) = snapshot {
            member.disk.log.restore(last);
            member.disk.snapshot = contents(&self.snapshots, &snapshot).to_vec();
            member.applying.push_back(Work::Switch(snapshot));
        }
        member.disk.log.write(&entries);
        member.disk.state = hard_state.unwrap_or(member.disk.state);
        let (leaving, held) =
            std::mem::take(&mut member.held).into_iter().partition(|(after, _)| *after <= seq);
        member.held = held;
        self.say(|| format!("{id}       disk has #{seq}"));
        for (_, message) in leaving as Vec<(PersistSeq, Message)> {
            self.depart(message);
        }
        self.step(id, Event::Persisted { seq, term, last });
        true
    }

    /// The state machine takes one entry, or goes over to a snapshot; whether there was one.
    pub fn finish_apply(&mut self, id: NodeId) -> bool {
        let member = self.members.get_mut(&id).unwrap();
        match member.applying.pop_front() {
            None => return false,
            Some(Work::Entry(entry)) => {
                let index = entry.index;
                assert_eq!(index.0 as usize, member.state.len() + 1, "applied out of order, or twice");
                // The first entry stands for those with which a log begins, and which bring the first members.
                let first = (member.joined && member.state.is_empty()).then(|| member.conf.clone());
                let conf = changes::after(&entry, &member.conf).or(first);
                member.state.push(entry);
                if let Some(conf) = conf {
                    member.conf = conf.clone();
                    self.step(id, Event::ConfApplied { conf });
                }
                self.step(id, Event::Applied { index });
            }
            Some(Work::Switch(snapshot)) => {
                member.state = contents(&self.snapshots, &snapshot).to_vec();
                member.conf = snapshot.conf;
                self.step(id, Event::Applied { index: snapshot.index });
            }
        }
        let Member { raft, conf, .. } = &self.members[&id];
        let raft = raft.as_ref().expect("it runs");
        if !raft.status().restoring {
            assert_eq!(raft.conf(), conf, "{id}: the members that consensus and the state machine know");
        }
        true
    }

    /// The shell makes the oldest snapshot that is wanted; whether there was one.
    pub fn make_snapshot(&mut self, id: NodeId) -> bool {
        let member = self.members.get_mut(&id).unwrap();
        let Some(to) = member.wanted.pop_front() else { return false };
        let Some(last) = member.state.last() else { return true };
        let data = Bytes::from(self.snapshots.len().to_string());
        let snapshot = Snapshot { index: last.index, term: last.term, conf: member.conf.clone(), data };
        self.snapshots.push(member.state.clone());
        self.step(id, Event::SnapshotReady { to, snapshot });
        true
    }

    /// The shell reports how the oldest sending of a snapshot ended; whether there was one.
    pub fn report_snapshot(&mut self, id: NodeId) -> bool {
        let reports = &mut self.members.get_mut(&id).unwrap().reports;
        let Some((to, sent, ok)) = reports.pop_front() else { return false };
        let how = if ok { "arrived" } else { "is lost" };
        self.say(|| format!("{id}       snapshot to {to} {how}"));
        self.step(id, Event::SnapshotReported { to, sent: Some(sent), ok });
        true
    }

    /// Delivers the message at this place of the network, or loses it where the link is cut.
    pub fn deliver(&mut self, place: usize) {
        let message = self.network.remove(place);
        let lost = self.cuts.contains(&(message.from, message.to)) || !self.is_up(message.to);
        let plain = matches!(
            message.body,
            Body::Heartbeat { context: None, .. } | Body::HeartbeatResponse { context: None }
        );
        if !(plain && self.hide_heartbeats) {
            self.say(|| show::message(&message, if lost { "-x" } else { "->" }));
        }
        if let (Some(sent), Some(sender)) = (message.sent_snapshot(), self.members.get_mut(&message.from)) {
            sender.reports.push_back((message.to, sent, !lost));
        }
        if !lost {
            self.step(message.to, Event::Receive(message));
        }
    }

    /// Loses the message at this place of the network.
    pub fn lose(&mut self, place: usize) {
        let message = self.network.remove(place);
        if let (Some(sent), Some(sender)) = (message.sent_snapshot(), self.members.get_mut(&message.from)) {
            sender.reports.push_back((message.to, sent, false));
        }
    }

    pub fn propose(&mut self, id: NodeId, payloads: &[String]) {
        let mut entries = Vec::new();
        for payload in payloads {
            self.next_token += 1;
            let kind = if changes::is_change(payload) { EntryKind::ConfChange } else { EntryKind::Normal };
            entries.push(Proposal { token: self.next_token, kind, data: Bytes::from(payload.clone()) });
        }
        self.step(id, Event::Propose { entries });
    }

    pub fn read(&mut self, id: NodeId, context: u64) {
        self.safety.read_begins(context);
        self.step(id, Event::ReadIndex { context });
    }

    /// Lets disks, state machines and network run until nothing is left to do; time stands still.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut busy = false;
            for id in self.ids() {
                while self.members[&id].disk_runs && self.finish_write(id) {
                    busy = true;
                }
                while self.members[&id].apply_runs && self.finish_apply(id) {
                    busy = true;
                }
                while self.members[&id].snapshots_run && (self.report_snapshot(id) || self.make_snapshot(id))
                {
                    busy = true;
                }
            }
            for _ in 0..self.network.len() {
                self.deliver(0);
                busy = true;
            }
            if !busy {
                return;
            }
        }
        panic!("the cluster never comes to rest");
    }

    /// Lets time pass to a deadline of some member at or before `until`, and ticks whose deadline it is.
    pub fn tick_next(&mut self, until: Time) -> bool {
        let deadlines = self.members.values().filter_map(Member::deadline);
        let Some(next) = deadlines.min().filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        for id in self.ids() {
            if self.members[&id].deadline().is_some_and(|deadline| deadline <= self.now) {
                self.step(id, Event::Tick);
            }
        }
        true
    }

    /// Lets `ms` pass on a network without delay.
    pub fn advance(&mut self, ms: u64) {
        let until = self.now.plus_ms(ms);
        while self.tick_next(until) {
            self.settle();
        }
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = |id: &NodeId| self.is_up(*id) && self.raft(*id).status().role == Role::Leader;
        self.ids().into_iter().filter(leads).max_by_key(|id| self.raft(*id).status().term)
    }
}

/// The state machine that a snapshot stands for.
fn contents<'a>(snapshots: &'a [Vec<Entry>], snapshot: &Snapshot) -> &'a [Entry] {
    let text = std::str::from_utf8(&snapshot.data).expect("a number");
    &snapshots[text.parse::<usize>().expect("a number")]
}
