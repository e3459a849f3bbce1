//! Members in memory: a network that holds, loses, repeats and reorders, disks that finish when told and forget what
//! they had not finished, and time that only moves on request. Every step is followed by the checks of `safety.rs`.
#![allow(dead_code, reason = "each test binary uses its own part")]

mod safety;
mod show;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raft::*;

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
    pub applying: VecDeque<Entry>,
    /// The state machine: everything that it was given.
    pub state: Vec<Entry>,
    /// The log as this member believes it to be, whether or not its disk has it.
    pub view: Vec<Entry>,
    pub disk_runs: bool,
    pub apply_runs: bool,
    /// The membership that a new member begins with.
    first_conf: ConfState,
    runs: u64,
}

#[derive(Default)]
pub struct Disk {
    pub state: HardState,
    pub entries: Vec<Entry>,
}

pub struct Write {
    pub seq: PersistSeq,
    term: Term,
    last: Position,
    hard_state: Option<HardState>,
    pub entries: Vec<Entry>,
}

pub fn node(id: u64) -> NodeId {
    NodeId(id)
}

/// Puts `new` into `log`, which begins at index 1; each entry replaces its index and all after it.
fn write_into(log: &mut Vec<Entry>, new: &[Entry]) {
    for entry in new {
        assert!(entry.index.0 as usize <= log.len() + 1, "a gap in what is written");
        log.truncate(entry.index.0 as usize - 1);
        log.push(entry.clone());
    }
}

/// The membership that a change's payload names: "conf 1 2 3".
pub fn conf_of(entry: &Entry) -> Option<ConfState> {
    if entry.kind == EntryKind::Normal {
        return None;
    }
    let text = std::str::from_utf8(&entry.data).ok()?;
    let voters = text.strip_prefix("conf ")?.split(' ').map(|id| NodeId(id.parse().unwrap())).collect();
    Some(ConfState { voters, learners: Vec::new() })
}

impl Member {
    pub fn restored(&self, offset: Index) -> Restored {
        let applied = Index(self.state.len() as u64);
        let offset_term =
            self.disk.entries.get(offset.0.wrapping_sub(1) as usize).map_or(Term(0), |entry| entry.term);
        let conf = self.state.iter().rev().find_map(conf_of).unwrap_or_else(|| self.first_conf.clone());
        Restored {
            hard_state: self.disk.state,
            conf,
            offset: (offset, offset_term),
            entries: self.disk.entries[offset.0 as usize..].to_vec(),
            applied,
        }
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
    /// `count` voters, all known to each other; `limits` for all.
    pub fn new(count: u64, seed: u64, limits: Limits) -> Self {
        let conf = ConfState { voters: (1..=count).map(NodeId).collect(), learners: Vec::new() };
        let mut cluster = Self {
            now: Time::from_ms(0),
            members: BTreeMap::new(),
            network: Vec::new(),
            cuts: BTreeSet::new(),
            safety: Safety::default(),
            trace: None,
            hide_heartbeats: false,
            next_token: 0,
        };
        for id in 1..=count {
            cluster.add(id, seed, limits, Disk::default(), conf.clone());
        }
        cluster
    }

    /// Adds a member that has this much on its disk, without starting it.
    pub fn add(&mut self, id: u64, seed: u64, limits: Limits, disk: Disk, first_conf: ConfState) {
        let config = Config {
            id: NodeId(id),
            election_timeout_ms: 1000,
            heartbeat_interval_ms: 100,
            seed: seed.wrapping_mul(31).wrapping_add(id),
            limits,
        };
        let view = disk.entries.clone();
        let member = Member {
            config,
            raft: None,
            disk,
            writes: VecDeque::new(),
            held: Vec::new(),
            applying: VecDeque::new(),
            state: Vec::new(),
            view,
            disk_runs: true,
            apply_runs: true,
            first_conf,
            runs: 0,
        };
        self.members.insert(NodeId(id), member);
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
        self.members[&id].raft.is_some()
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
        let now = self.now;
        let member = self.members.get_mut(&id).unwrap();
        assert!(member.raft.is_none(), "{id} runs already");
        let mut config = member.config.clone();
        config.seed = config.seed.wrapping_add(member.runs << 32);
        member.runs += 1;
        member.raft = Some(Raft::new(config, member.restored(offset), now).expect("the disk is sound"));
    }

    /// Ends a member: of what its disk had not finished, the first `kept` records are there and the rest is lost,
    /// messages that waited for it never leave, and its state machine falls back to what the log on disk covers, or to
    /// `applied`.
    pub fn crash(&mut self, id: NodeId, applied: Option<usize>, mut kept: usize) {
        let member = self.members.get_mut(&id).unwrap();
        member.raft = None;
        for Write { hard_state, entries, .. } in member.writes.drain(..) {
            let part = entries.len().min(kept);
            write_into(&mut member.disk.entries, &entries[..part]);
            kept -= part;
            if kept > 0
                && let Some(state) = hard_state
            {
                member.disk.state = state;
                kept -= 1;
            }
        }
        member.held.clear();
        member.applying.clear();
        member.view.clone_from(&member.disk.entries);
        // Only what the disk's log covers may outlive the crash (design rule 2). An equal length would not do: the disk
        // may still have old entries where others were committed and applied.
        let covered =
            member.state.iter().zip(&member.disk.entries).take_while(|(own, disk)| own == disk).count();
        member.state.truncate(applied.unwrap_or(usize::MAX).min(covered));
    }

    /// One event into one member, and its effects into the world.
    pub fn step(&mut self, id: NodeId, event: Event) {
        let Some(raft) = self.members.get_mut(&id).unwrap().raft.as_mut() else { return };
        let mut effects = Vec::new();
        raft.step(self.now, event, &mut effects);
        raft.check();
        for effect in effects {
            self.say_effect(id, &effect);
            self.carry_out(id, effect);
        }
        let status = self.raft(id).status();
        self.safety.committed_to(status.commit);
        // What a shell may count on: not only are there as many entries on the disk, they are these.
        let covered = status.durable.min(status.commit);
        if covered > Index::ZERO {
            let Member { disk, view, .. } = &self.members[&id];
            let (place, term) = (covered.0 as usize - 1, |entry: &Entry| entry.term);
            let on_disk = disk.entries.get(place).map(term);
            assert_eq!(
                on_disk,
                view.get(place).map(term),
                "{id}: entry {covered} on its disk and in its log"
            );
        }
    }

    fn carry_out(&mut self, id: NodeId, effect: Effect) {
        let member = self.members.get_mut(&id).unwrap();
        match effect {
            Effect::Persist { seq, term, last, hard_state, entries } => {
                write_into(&mut member.view, &entries);
                assert_eq!(member.view.len() as u64, last.0.0, "last entry and entries handed out differ");
                self.safety.wrote(&member.view, &entries);
                member.writes.push_back(Write { seq, term, last, hard_state, entries });
            }
            Effect::Send { message, after: Some(seq) } => member.held.push((seq, message)),
            Effect::Send { message, after: None } => self.depart(message),
            Effect::Apply { entries } => member.applying.extend(entries),
            Effect::ReadReady { context, index } => self.safety.read_ready(context, index),
            Effect::ReadRefused { context, .. } => self.safety.read_refused(context),
            Effect::ProposalRefused { .. } => {}
            Effect::Leadership { term, role, .. } => {
                if role == Role::Leader {
                    let view = self.members[&id].view.clone();
                    self.safety.elected(id, term, &view);
                }
            }
        }
        let applying: Vec<Entry> = self.members[&id].applying.iter().cloned().collect();
        for entry in applying {
            self.safety.committed(&entry, self.members.values().map(|member| &member.disk.entries[..]));
        }
    }

    fn depart(&mut self, message: Message) {
        self.safety.left(&message);
        self.network.push(message);
    }

    /// The disk finishes its oldest write; whether there was one.
    pub fn finish_write(&mut self, id: NodeId) -> bool {
        let member = self.members.get_mut(&id).unwrap();
        let Some(Write { seq, term, last, hard_state, entries }) = member.writes.pop_front() else {
            return false;
        };
        write_into(&mut member.disk.entries, &entries);
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

    /// The state machine takes one entry; whether there was one.
    pub fn finish_apply(&mut self, id: NodeId) -> bool {
        let member = self.members.get_mut(&id).unwrap();
        let Some(entry) = member.applying.pop_front() else { return false };
        let index = entry.index;
        assert_eq!(index.0 as usize, member.state.len() + 1, "applied out of order, or twice");
        let conf = conf_of(&entry);
        member.state.push(entry);
        if let Some(conf) = conf {
            self.step(id, Event::ConfApplied { conf });
        }
        self.step(id, Event::Applied { index });
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
        if !lost {
            self.step(message.to, Event::Receive(message));
        }
    }

    pub fn propose(&mut self, id: NodeId, payloads: &[String]) {
        let mut entries = Vec::new();
        for payload in payloads {
            self.next_token += 1;
            let kind = if payload.starts_with("conf ") { EntryKind::ConfChange } else { EntryKind::Normal };
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
        let deadlines = self.members.values().filter_map(|member| member.raft.as_ref()).map(Raft::deadline);
        let Some(next) = deadlines.min().filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        for id in self.ids() {
            if self.is_up(id) && self.raft(id).deadline() <= self.now {
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
