//! Does what a script says with our members, and compares. Time is in etcd's ticks: a heartbeat is one, an election timeout
//! three. A member's effects wait until the script lets it hand them out (its Ready), and then go to the network, and to
//! disk and state machine: at once, or where the script says so when it says so.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::Bytes;
use raft::*;

use crate::published::{self, Fact, Line};
use crate::script::Step;

const TICK_MS: u64 = 100;
const ELECTION_TICKS: u64 = 3;

pub struct Env {
    nodes: BTreeMap<u64, Node>,
    network: Vec<Envelope>,
    /// How many entries are kept for followers, if a script takes any away.
    kept: Option<usize>,
    pub counts: Counts,
}

/// What was compared.
#[derive(Default)]
pub struct Counts {
    states: usize,
    entries: usize,
    roles: usize,
    progress: usize,
}

/// What is on its way to a member.
enum Envelope {
    Message(Message),
    /// Of its own disk or state machine.
    Report(u64, Vec<Event>),
}

struct Node {
    raft: Raft,
    now: Time,
    /// Whether disk and state machine work only when told.
    threads: bool,
    /// Not handed out yet.
    effects: Vec<Effect>,
    appends: VecDeque<Append>,
    applies: VecDeque<Vec<Entry>>,
    /// The log on disk, from `first` on.
    disk: Vec<Entry>,
    first: u64,
    /// All snapshots that could be made, the newest last.
    history: Vec<Snapshot>,
    conf: ConfState,
    /// Ticks since a leader was heard, and after how many the member stands, if the script says so.
    elapsed: u64,
    timeout: Option<u64>,
    /// How it stood when it last handed something out, and what that was.
    ready: Option<Ready>,
    /// The last entry handed out to apply.
    handed_out: u64,
}

struct Append {
    entries: Vec<Entry>,
    snapshot: Option<Snapshot>,
    held: Vec<Message>,
    events: Vec<Event>,
}

struct Ready {
    status: Status,
    hard: HardState,
    entries: Vec<Entry>,
    committed: Vec<Entry>,
    snapshot: Option<Snapshot>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, entries, roles, progress } = self;
        write!(f, "{states} states, {entries} entries, {roles} roles, {progress} followers")
    }
}

impl Counts {
    pub fn total(&self) -> usize {
        self.states + self.entries + self.roles + self.progress
    }
}

type Outcome = Result<(), String>;

fn same<T: PartialEq + fmt::Debug>(what: &str, ours: T, expected: T) -> Outcome {
    if ours == expected { Ok(()) } else { Err(format!("{what}: {ours:?}, expected {expected:?}")) }
}

fn state_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "StateFollower",
        Role::PreCandidate => "StatePreCandidate",
        Role::Candidate => "StateCandidate",
        Role::Leader => "StateLeader",
    }
}

fn line(entry: &Entry) -> Line {
    let data = String::from_utf8_lossy(&entry.data);
    let text = match entry.kind {
        EntryKind::Normal => format!("EntryNormal {data:?}"),
        EntryKind::ConfChange => format!("EntryConfChange {data}"),
        EntryKind::ConfChangeV2 => format!("EntryConfChangeV2 {data}"),
    };
    Line { term: entry.term.0, index: entry.index.0, text }
}

fn id_of(node: Option<NodeId>) -> u64 {
    node.map_or(0, |NodeId(id)| id)
}

/// The membership after a change, given as etcd's scripts write it: `v4`, `l4`, `r4` or `u4`.
fn changed(conf: &ConfState, change: &str) -> ConfState {
    let (verb, id) = change.split_at(1);
    let id = NodeId(id.parse().expect("a member"));
    let mut next = conf.clone();
    if verb != "u" {
        next.voters.retain(|voter| *voter != id);
        next.learners.retain(|learner| *learner != id);
    }
    match verb {
        "v" => next.voters.push(id),
        "l" => next.learners.push(id),
        _ => {}
    }
    next.voters.sort_unstable();
    next.learners.sort_unstable();
    next
}

impl Node {
    fn step(&mut self, event: Event) {
        self.raft.step(self.now, event, &mut self.effects);
        self.raft.check();
        self.make_snapshots();
    }

    /// A snapshot that is wanted is there at once, as in etcd's storage.
    fn make_snapshots(&mut self) {
        let wanted = |effect: &Effect| matches!(effect, Effect::SnapshotWanted { .. });
        while let Some(place) = self.effects.iter().position(wanted) {
            let Effect::SnapshotWanted { to } = self.effects.remove(place) else { continue };
            let applied = self.raft.status().applied;
            let snapshot = self.history.iter().rev().find(|snapshot| snapshot.index <= applied);
            let event = match snapshot {
                Some(snapshot) => Event::SnapshotReady { to, snapshot: snapshot.clone() },
                None => Event::SnapshotReported { to, sent: None, ok: false },
            };
            self.raft.step(self.now, event, &mut self.effects);
        }
    }

    /// What waits to be handed out, in one piece.
    fn take_ready(&mut self) -> (Append, Vec<Entry>, Vec<Message>) {
        let mut append = Append { entries: Vec::new(), snapshot: None, held: Vec::new(), events: Vec::new() };
        let (mut committed, mut messages) = (Vec::new(), Vec::new());
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Persist { seq, term, last, entries, .. } => {
                    append.entries.extend(entries);
                    append.events = vec![Event::Persisted { seq, term, last }];
                }
                Effect::Restore { seq, term, snapshot, .. } => {
                    let last = (snapshot.index, snapshot.term);
                    append.events = vec![Event::Persisted { seq, term, last }];
                    append.snapshot = Some(snapshot);
                }
                Effect::Send { message, after: Some(_) } => append.held.push(message),
                Effect::Send { message, after: None } => messages.push(message),
                Effect::Apply { entries } => committed.extend(entries),
                _ => {}
            }
        }
        if let Some(snapshot) = &append.snapshot {
            append.events.push(Event::Applied { index: snapshot.index });
        }
        self.handed_out = committed.last().map_or(self.handed_out, |entry: &Entry| entry.index.0);
        self.ready = Some(Ready {
            status: self.raft.status(),
            hard: self.raft.hard_state(),
            entries: append.entries.clone(),
            committed: committed.clone(),
            snapshot: append.snapshot.clone(),
        });
        (append, committed, messages)
    }

    fn write(&mut self, append: &Append) {
        if let Some(snapshot) = &append.snapshot {
            self.disk.clear();
            self.first = snapshot.index.0 + 1;
            self.conf = snapshot.conf.clone();
            self.history.push(snapshot.clone());
        }
        for entry in &append.entries {
            self.disk.truncate((entry.index.0 - self.first) as usize);
            self.disk.push(entry.clone());
        }
    }

    fn apply(&mut self, entries: &[Entry]) {
        for entry in entries {
            if entry.kind != EntryKind::Normal {
                self.conf = changed(&self.conf, std::str::from_utf8(&entry.data).expect("a change"));
                self.step(Event::ConfApplied { conf: self.conf.clone() });
            }
            let conf = self.conf.clone();
            let snapshot = Snapshot { index: entry.index, term: entry.term, conf, data: Bytes::new() };
            self.history.push(snapshot);
        }
    }

    fn tick(&mut self) {
        self.now = self.now.plus_ms(TICK_MS);
        self.elapsed += 1;
        if self.raft.status().role == Role::Leader {
            self.step(Event::Tick);
        } else if self.timeout.is_some_and(|timeout| self.elapsed >= timeout) {
            self.timeout = None;
            self.step(Event::Campaign);
        }
    }
}

impl Env {
    pub fn new(kept: Option<usize>) -> Self {
        Self { nodes: BTreeMap::new(), network: Vec::new(), kept, counts: Counts::default() }
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).expect("a member of that id")
    }

    pub fn run(&mut self, step: &Step) -> Outcome {
        let ids = step.ids();
        self.nodes.values_mut().for_each(|node| node.ready = None);
        match step.command.as_str() {
            "log-level" => {}
            "add-nodes" => self.add_nodes(step)?,
            "campaign" => self.node(ids[0]).step(Event::Campaign),
            "compact" => self.compact(ids[0], ids[1]),
            "deliver-msgs" => self.deliver(step),
            "process-ready" => ids.iter().for_each(|id| self.process_ready(*id)),
            "process-append-thread" => {
                for id in ids {
                    self.process_append(id);
                }
            }
            "process-apply-thread" => {
                for id in ids {
                    self.process_apply(id);
                }
            }
            "stabilize" => {
                let all: Vec<u64> = self.nodes.keys().copied().collect();
                self.stabilize(if ids.is_empty() { &all } else { &ids });
            }
            "tick-heartbeat" => self.node(ids[0]).tick(),
            "tick-election" => (0..ELECTION_TICKS).for_each(|_| self.node(ids[0]).tick()),
            "set-randomized-election-timeout" => {
                self.node(ids[0]).timeout = step.value("timeout").and_then(|ticks| ticks.parse().ok());
            }
            "transfer-leadership" => {
                let id = |key| step.value(key).and_then(|id| id.parse().ok()).expect("a member");
                self.node(id("from")).step(Event::TransferLeader { to: NodeId(id("to")) });
            }
            "forget-leader" => self.node(ids[0]).step(Event::ForgetLeader),
            "report-unreachable" => self.node(ids[0]).step(Event::Unreachable { id: NodeId(ids[1]) }),
            "send-snapshot" => self.send_snapshot(ids[0], ids[1]),
            "propose" => self.propose(ids[0], EntryKind::Normal, &step.args[1].key),
            "propose-conf-change" => {
                let kind = match step.value("v1") {
                    Some("true") => EntryKind::ConfChange,
                    _ => EntryKind::ConfChangeV2,
                };
                self.propose(ids[0], kind, &step.input);
            }
            "raft-log" | "raft-state" | "status" => {}
            other => return Err(format!("unknown command {other}")),
        }
        self.compare(step)
    }

    fn add_nodes(&mut self, step: &Step) -> Outcome {
        let numbers = |key: &str| -> Vec<NodeId> {
            step.values(key).iter().map(|id| NodeId(id.parse().expect("a number"))).collect()
        };
        let flag = |key| step.value(key) == Some("true");
        if step.value("read-only") == Some("lease-based") {
            return Err("reads by lease".into());
        }
        let conf = ConfState { voters: numbers("voters"), learners: numbers("learners") };
        let index = numbers("index").first().map_or(Index::ZERO, |index| Index(index.0));
        // What etcd's members begin with is of term 1, while they are in term 0; a member of ours would begin in term 1.
        let offset = (index, Term(0));
        for _ in 0..step.ids()[0] {
            let id = self.nodes.len() as u64 + 1;
            let messages_max = numbers("inflight").first().map_or(usize::MAX, |max| max.0 as usize);
            let config = Config {
                id: NodeId(id),
                election_timeout_ms: ELECTION_TICKS * TICK_MS,
                heartbeat_interval_ms: TICK_MS,
                pre_vote: flag("prevote"),
                check_quorum: flag("checkquorum"),
                seed: id,
                limits: self.limits(messages_max),
            };
            let hard_state = HardState { commit: index, ..HardState::default() };
            let restored =
                Restored { hard_state, conf: conf.clone(), offset, entries: Vec::new(), applied: index };
            let raft = Raft::new(config, restored, Time::from_ms(0)).expect("sound settings");
            let history = vec![Snapshot { index, term: offset.1, conf: conf.clone(), data: Bytes::new() }];
            let node = Node {
                raft,
                now: Time::from_ms(0),
                threads: flag("async-storage-writes"),
                effects: Vec::new(),
                appends: VecDeque::new(),
                applies: VecDeque::new(),
                disk: Vec::new(),
                first: index.0 + 1,
                history,
                conf: conf.clone(),
                elapsed: 0,
                timeout: None,
                ready: None,
                handed_out: index.0,
            };
            self.nodes.insert(id, node);
        }
        Ok(())
    }

    /// As good as none, as in etcd's scripts.
    fn limits(&self, inflight_messages_max: usize) -> Limits {
        let all = usize::MAX / 2;
        Limits {
            uncommitted_bytes_max: all,
            uncommitted_entries_max: all,
            applying_bytes_max: all,
            append_bytes_max: all,
            inflight_messages_max,
            inflight_bytes_max: all,
            kept_bytes_max: all,
            kept_entries_max: self.kept.unwrap_or(all),
            snapshot_kept_bytes_max: all,
            reads_max: 100,
        }
    }

    fn compact(&mut self, id: u64, first: u64) {
        let node = self.node(id);
        node.disk.retain(|entry| entry.index.0 > first);
        node.first = first + 1;
    }

    fn propose(&mut self, id: u64, kind: EntryKind, data: &str) {
        let data = Bytes::from(data.to_owned());
        self.node(id).step(Event::Propose { entries: vec![Proposal { token: 0, kind, data }] });
    }

    fn send_snapshot(&mut self, from: u64, to: u64) {
        let node = self.node(from);
        let snapshot = node.history.last().expect("there is always one").clone();
        let term = node.raft.status().term;
        let message = Message { from: NodeId(from), to: NodeId(to), term, body: Body::Snapshot { snapshot } };
        self.network.push(Envelope::Message(message));
    }

    fn process_ready(&mut self, id: u64) {
        let node = self.node(id);
        let (append, committed, mut messages) = node.take_ready();
        if node.threads {
            let idle = append.entries.is_empty() && append.snapshot.is_none() && append.events.is_empty();
            if !idle || !append.held.is_empty() {
                node.appends.push_back(append);
            }
            if !committed.is_empty() {
                node.applies.push_back(committed);
            }
        } else {
            node.write(&append);
            node.apply(&committed);
            messages.extend(append.held);
            append.events.into_iter().for_each(|event| node.step(event));
            if let Some(entry) = committed.last() {
                node.step(Event::Applied { index: entry.index });
            }
        }
        self.network.extend(messages.into_iter().map(Envelope::Message));
    }

    fn process_append(&mut self, id: u64) -> bool {
        let node = self.node(id);
        let Some(append) = node.appends.pop_front() else { return false };
        node.write(&append);
        self.network.extend(append.held.into_iter().map(Envelope::Message));
        self.network.push(Envelope::Report(id, append.events));
        true
    }

    fn process_apply(&mut self, id: u64) -> bool {
        let node = self.node(id);
        let Some(entries) = node.applies.pop_front() else { return false };
        node.apply(&entries);
        let index = entries.last().expect("something to apply").index;
        self.network.push(Envelope::Report(id, vec![Event::Applied { index }]));
        true
    }

    fn deliver(&mut self, step: &Step) {
        for id in step.ids() {
            self.deliver_to(id, step.value("type"));
        }
        let dropped: Vec<u64> = step.values("drop").iter().map(|id| id.parse().expect("a member")).collect();
        self.network.retain(|envelope| match envelope {
            Envelope::Message(message) => {
                !dropped.contains(&message.to.0) || !is_of(message, step.value("type"))
            }
            Envelope::Report(..) => true,
        });
    }

    /// Whether anything was delivered.
    fn deliver_to(&mut self, id: u64, kind: Option<&str>) -> bool {
        let is_due = |envelope: &Envelope| match envelope {
            Envelope::Message(message) => message.to.0 == id && is_of(message, kind),
            Envelope::Report(to, _) => *to == id && kind.is_none(),
        };
        let (due, rest) = std::mem::take(&mut self.network).into_iter().partition(is_due);
        self.network = rest;
        let due: Vec<Envelope> = due;
        let node = self.node(id);
        let any = !due.is_empty();
        for envelope in due {
            match envelope {
                Envelope::Message(message) => {
                    let leaders = matches!(
                        message.body,
                        Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot { .. }
                    );
                    if leaders {
                        node.elapsed = 0;
                    }
                    node.step(Event::Receive(message));
                }
                Envelope::Report(_, events) => events.into_iter().for_each(|event| node.step(event)),
            }
        }
        any
    }

    fn stabilize(&mut self, ids: &[u64]) {
        for _ in 0..1000 {
            let mut busy = false;
            for id in ids {
                if !self.nodes[id].effects.is_empty() {
                    let earlier = self.node(*id).ready.take();
                    self.process_ready(*id);
                    self.node(*id).join(earlier);
                    busy = true;
                }
            }
            for id in ids {
                busy |= self.deliver_to(*id, None);
            }
            for id in ids {
                while self.process_append(*id) {
                    busy = true;
                }
            }
            for id in ids {
                while self.process_apply(*id) {
                    busy = true;
                }
            }
            if !busy {
                return;
            }
        }
        panic!("the members never come to rest");
    }

    fn compare(&mut self, step: &Step) -> Outcome {
        let alone = step.ids().first().copied().filter(|_| step.command == "process-ready");
        for (id, facts) in published::rounds(&step.expected, alone) {
            self.compare_rounds(id, &facts).map_err(|difference| format!("member {id}, {difference}"))?;
        }
        match step.command.as_str() {
            "raft-state" => step.expected.iter().try_for_each(|line| self.compare_role(line)),
            "status" => step.expected.iter().try_for_each(|line| self.compare_progress(step.ids()[0], line)),
            "raft-log" | "compact" => self.compare_log(step.ids()[0], &step.expected),
            _ => Ok(()),
        }
    }

    /// Of all rounds of one command, the last word on each thing counts: etcd may have taken more or fewer.
    fn compare_rounds(&mut self, id: u64, facts: &[Fact]) -> Outcome {
        let node = &self.nodes[&id];
        let Some(ready) = &node.ready else { return Err("nothing was handed out".into()) };
        let mut counts = Counts::default();
        let leads = facts.iter().rev().find(|fact| matches!(fact, Fact::Leads { .. }));
        if let Some(Fact::Leads { lead, state }) = leads {
            same("leader", id_of(ready.status.leader), *lead)?;
            same("state", state_name(ready.status.role), state.as_str())?;
            counts.states += 1;
        }
        let hard = facts.iter().rev().find(|fact| matches!(fact, Fact::Hard { .. }));
        if let Some(Fact::Hard { term, vote, commit }) = hard {
            let ours = (ready.hard.term.0, id_of(ready.hard.vote), ready.hard.commit.0);
            same("term, vote and commit", ours, (*term, *vote, *commit))?;
            counts.states += 1;
        }
        for fact in facts {
            match fact {
                Fact::Entry(expected) => {
                    let ours: Vec<Line> = ready.entries.iter().map(line).collect();
                    if !ours.contains(expected) {
                        return Err(format!("{expected:?} is not among what is written: {ours:?}"));
                    }
                    counts.entries += 1;
                }
                Fact::Committed(expected) => {
                    let ours = ready.committed.iter().map(line).find(|ours| ours.index == expected.index);
                    same("committed", ours.as_ref(), Some(expected))?;
                    counts.entries += 1;
                }
                Fact::Snapshot { index, term } => {
                    let ours = ready.snapshot.as_ref().map(|snapshot| (snapshot.index.0, snapshot.term.0));
                    same("snapshot", ours, Some((*index, *term)))?;
                    counts.states += 1;
                }
                Fact::Leads { .. } | Fact::Hard { .. } => {}
            }
        }
        self.counts.states += counts.states;
        self.counts.entries += counts.entries;
        Ok(())
    }

    fn compare_role(&mut self, line: &str) -> Outcome {
        let (id, state, votes, term, lead) = published::role(line).ok_or(format!("what is {line}?"))?;
        let raft = &self.nodes[&id].raft;
        let status = raft.status();
        let ours =
            (state_name(status.role), raft.conf().is_voter(NodeId(id)), status.term.0, id_of(status.leader));
        same(&format!("role of {id}"), ours, (state.as_str(), votes, term, lead))?;
        self.counts.roles += 1;
        Ok(())
    }

    fn compare_progress(&mut self, leader: u64, line: &str) -> Outcome {
        let (id, state, matched) = published::progress(line).ok_or(format!("what is {line}?"))?;
        let raft = &self.nodes[&leader].raft;
        let ours = if id == leader {
            ("StateReplicate", raft.status().durable.0)
        } else {
            let follower = raft.followers().find(|follower| follower.id.0 == id);
            let Follower { state, matched, .. } = follower.ok_or(format!("no follower {id}"))?;
            let state = match state {
                FollowerState::Probe => "StateProbe",
                FollowerState::Replicate => "StateReplicate",
                FollowerState::Snapshot => "StateSnapshot",
            };
            (state, matched.0)
        };
        same(&format!("progress of {id}"), ours, (state.as_str(), matched))?;
        self.counts.progress += 1;
        Ok(())
    }

    fn compare_log(&mut self, id: u64, expected: &[String]) -> Outcome {
        let disk: Vec<Line> = self.nodes[&id].disk.iter().map(line).collect();
        if expected.iter().any(|line| line == "ok") {
            return Ok(());
        }
        let expected: Vec<Line> = expected.iter().filter_map(|line| Line::parse(line)).collect();
        self.counts.entries += expected.len();
        same(&format!("log of {id}"), disk, expected)
    }
}

impl Node {
    /// Several rounds of one command count as one.
    fn join(&mut self, earlier: Option<Ready>) {
        let (Some(earlier), Some(ready)) = (earlier, &mut self.ready) else { return };
        ready.entries.splice(0..0, earlier.entries);
        ready.committed.splice(0..0, earlier.committed);
        ready.snapshot = ready.snapshot.take().or(earlier.snapshot);
    }
}

fn is_of(message: &Message, kind: Option<&str>) -> bool {
    let Some(kind) = kind else { return true };
    let name = format!("Msg{:?}", RawMessage::from(message.clone()).kind);
    name == kind
}
