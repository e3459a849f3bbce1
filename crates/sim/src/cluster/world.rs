//! The world of one run: hosts, network, clients, and what happens when.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use disk::boltfile::schema::Version;
use node::lease::Renewal;
use node::{Change, Input, NewMember, RequestId, Situation, Submission};
use prost::Message as _;
use raft::{Entry, EntryKind, Message, RawMessage, Time};
use store::Membership;

use super::host::{Host, Purpose, peer_urls};
use super::leases::{CLOCK_ERROR, Leases};
use super::network::Network;
use super::{ClusterOptions, ClusterReport};
use crate::checker::{Checker, Fate};
use crate::member::{Told, proposal};
use crate::random::Random;
use crate::workload;

/// Machines beside those of the first members, on which members may join.
const SPARE_HOSTS: usize = 2;
/// Within this time after the last disturbance somebody leads, and everybody knows: an election timeout and up to another
/// one until somebody stands, once more if two stand at once, and some to spare.
const ELECTION_BOUND_MS: u64 = 8_000;
/// Within this time a cluster that is well answers everything and all members are level.
const SETTLE_BOUND_MS: u64 = 30_000;

/// What happens at some time.
enum Event {
    /// Part of a host's member is to run, if it is still that run.
    Part { host: usize, part: usize, run: u64 },
    /// Consensus of a host's member is due.
    Tick { host: usize },
    /// A message arrives at a host.
    Deliver { host: usize, from: usize, message: Message },
    /// A snapshot arrives at a host, perhaps not whole.
    Snapshot { host: usize, from: usize, message: Message, bytes: Vec<u8>, is_whole: bool },
    /// A client has something to ask.
    Client,
    /// Something is disturbed.
    Disturb,
    /// A host's member is started.
    Start { host: usize },
}

const CONSENSUS: usize = 0;
const REVISION_SYNC: usize = 4;

/// The cluster and all that is around it.
pub struct World {
    random: Random,
    options: ClusterOptions,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    hosts: Vec<Host>,
    network: Network,
    checker: Checker,
    leases: Leases,
    /// The membership behind each entry at which a batch ended and that somebody has applied.
    memberships: BTreeMap<u64, Membership>,
    /// Terms in which somebody led, and who.
    leaders: BTreeMap<u64, u64>,
    cluster_id: u64,
    /// How many members the cluster began with.
    began_with: usize,
    is_calm: bool,
    report: ClusterReport,
}

impl World {
    /// A cluster of one to seven members that are about to start.
    pub fn new(seed: u64, options: ClusterOptions) -> Self {
        let mut random = Random::new(seed);
        let members = [1, 2, 3, 3, 3, 4, 5, 7][random.below(8) as usize];
        let has_limits = random.one_in(3);
        let pre_vote = !random.one_in(4);
        let (keeps_little, gives_back) = (random.one_in(2), random.below(3) > 0);
        let mut hosts: Vec<Host> = (0..members + SPARE_HOSTS)
            .map(|place| Host::new(place, members, CLOCK_ERROR, &mut random))
            .collect();
        for host in &mut hosts {
            host.settings.pre_vote = pre_vote;
            let raft = &mut host.settings.limits.raft;
            if keeps_little {
                (raft.kept_entries_max, raft.kept_bytes_max) = (4, 1_000);
                raft.snapshot_kept_bytes_max = 20_000;
            }
            if gives_back {
                host.settings.snapshot_count = 1 + random.below(20);
                host.settings.wals_max = random.below(4) as usize;
                host.settings.snapshots_max = random.below(4) as usize;
            }
            let raft = &mut host.settings.limits.raft;
            if has_limits {
                (raft.uncommitted_entries_max, raft.uncommitted_bytes_max) = (20, 20_000);
                (raft.inflight_messages_max, raft.inflight_bytes_max) = (3, 3_000);
                (raft.append_bytes_max, raft.applying_bytes_max) = (1_000, 1_000);
            }
        }
        let ids: Vec<u64> = hosts[..members].iter().map(|host| host.id).collect();
        let mut world = World {
            random,
            options,
            now: 0,
            events: BTreeMap::new(),
            next_event: 0,
            hosts,
            network: Network::default(),
            checker: Checker::default(),
            leases: Leases::default(),
            memberships: BTreeMap::new(),
            leaders: BTreeMap::new(),
            cluster_id: node::cluster_id(&ids),
            began_with: members,
            is_calm: false,
            report: ClusterReport::default(),
        };
        for host in 0..members {
            let after_us = world.random.below(500_000);
            world.plan(after_us, Event::Start { host });
        }
        world.plan(0, Event::Client);
        world.plan(1_500_000, Event::Disturb);
        world
    }

    /// What happened.
    pub fn report(&self) -> ClusterReport {
        ClusterReport {
            answers: self.checker.answers,
            elections: self.leaders.len() as u64,
            leases_ended: self.leases.ended,
            renewals: self.leases.renewed,
            ..self.report.clone()
        }
    }

    /// Lets things happen, and be disturbed.
    pub fn disturb(&mut self) {
        let end = self.options.disturbed_ms * 1000;
        while self.now < end {
            self.step();
        }
    }

    fn plan(&mut self, after_us: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + after_us, self.next_event), event);
    }

    fn trace(&mut self, line: std::fmt::Arguments<'_>) {
        let mut text = String::new();
        let _ = write!(text, "{:>10} {line}", self.now);
        for byte in text.bytes().chain([b'\n']) {
            self.report.digest = (self.report.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.options.print_trace {
            println!("{text}");
        }
    }

    fn step(&mut self) {
        let Some(((at, _), event)) = self.events.pop_first() else { panic!("nothing happens any more") };
        self.now = self.now.max(at);
        match event {
            Event::Part { host, part, run } => self.part(host, part, run),
            Event::Tick { host } => self.tick(host),
            Event::Deliver { host, from, message } => self.deliver(host, from, message),
            Event::Snapshot { host, from, message, bytes, is_whole } => {
                self.receive_snapshot(host, from, message, (bytes, is_whole));
            }
            Event::Client => {
                if !self.is_calm {
                    self.client();
                    let after_us = 1_000 + self.random.below(40_000);
                    self.plan(after_us, Event::Client);
                }
            }
            Event::Disturb => {
                if !self.is_calm {
                    self.disturb_something();
                    let after_us = 20_000 + self.random.below(600_000);
                    self.plan(after_us, Event::Disturb);
                }
            }
            Event::Start { host } => self.start(host),
        }
    }

    /// Plans what a host's member has to do.
    fn schedule(&mut self, host: usize) {
        let Some((running, _)) = &self.hosts[host].member else { return };
        let (busy, deadline) = (running.busy(), running.parts.consensus.deadline());
        let run = self.hosts[host].run;
        for part in 0..busy.len() {
            if !busy[part] || std::mem::replace(&mut self.hosts[host].scheduled[part], true) {
                continue;
            }
            let most_us = match part {
                CONSENSUS => 200,
                REVISION_SYNC => 1_000_000,
                1 => self.hosts[host].disk_us,
                _ => 3_000,
            };
            let after_us = 10 + self.random.below(most_us);
            self.plan(after_us, Event::Part { host, part, run });
        }
        let tick_at = self.hosts[host].when(deadline).max(self.now + 1);
        if tick_at != self.hosts[host].tick_at && tick_at < u64::MAX / 2 {
            self.hosts[host].tick_at = tick_at;
            self.plan(tick_at - self.now, Event::Tick { host });
        }
    }

    /// Whether the process of a host is stopped; then the event comes when it goes on.
    fn is_stopped(&mut self, host: usize, event: impl FnOnce() -> Event) -> bool {
        let until = self.hosts[host].stopped_until;
        if until <= self.now {
            return false;
        }
        let after_us = until - self.now + self.random.below(100);
        self.plan(after_us, event());
        true
    }

    fn tick(&mut self, host: usize) {
        if self.is_stopped(host, || Event::Tick { host }) || self.now < self.hosts[host].tick_at {
            return;
        }
        self.hosts[host].tick_at = u64::MAX;
        self.run_part(host, CONSENSUS);
    }

    fn part(&mut self, host: usize, part: usize, run: u64) {
        if self.hosts[host].run != run || self.is_stopped(host, || Event::Part { host, part, run }) {
            return;
        }
        self.hosts[host].scheduled[part] = false;
        self.run_part(host, part);
    }

    fn run_part(&mut self, host: usize, part: usize) {
        let group = 1 + self.random.below(8) as usize;
        let now = self.hosts[host].local(self.now);
        let Some((running, _)) = &mut self.hosts[host].member else { return };
        let mut told = Told::default();
        let result = match part {
            CONSENSUS => {
                running.consensus(now, &mut told);
                Ok(())
            }
            1 => running.write_log(group).and_then(|()| running.prepare_log()),
            2 => running.apply(now, &mut told),
            3 => running.write_revisions(),
            REVISION_SYNC => running.sync_revisions(),
            5 => running.work_on_files(&mut told),
            _ => {
                running.compact();
                Ok(())
            }
        };
        self.hear(host, told);
        if let Err(error) = result {
            // A full disk ends nothing (rule 7).
            assert!(self.hosts[host].is_faulty(), "part {part} of host {host} failed: {error}");
            self.trace(format_args!("host {host}: part {part} failed: {error}"));
            self.crash(host);
        }
        if self.hosts[host].member.as_ref().is_some_and(|(running, _)| running.is_restored) {
            self.go_over(host);
        }
        self.schedule(host);
    }

    fn start(&mut self, host: usize) {
        let Host { is_member, is_removed, member, .. } = &self.hosts[host];
        if !is_member || *is_removed || member.is_some() {
            return;
        }
        let now = self.now;
        match self.hosts[host].start(now, &mut self.random) {
            Ok(()) => {
                let Some((running, _)) = &self.hosts[host].member else { return };
                let (found, reader) = (running.parts.found.clone(), running.parts.reader.clone());
                assert_eq!((&found.broken[..], &found.missing), (&[][..], &None));
                self.trace(format_args!("host {host}: start {found:?}"));
                let same = self.checker.shows(&reader, found.applied_index);
                assert!(same || self.hosts[host].is_faulty(), "a read failed on a healthy disk");
                self.schedule(host);
            }
            Err(error) => {
                let full_explains = self.hosts[host].is_full && self.hosts[host].run == 0;
                assert!(self.hosts[host].is_faulty() || full_explains, "start of host {host}: {error}");
                self.trace(format_args!("host {host}: start failed: {error}"));
                self.crash(host);
            }
        }
    }

    /// A host's member is gone, and comes again.
    fn crash(&mut self, host: usize) {
        self.report.crashes += 1;
        let is_calm = self.is_calm;
        let open = self.hosts[host].crash(is_calm, &mut self.random);
        for id in open {
            self.checker.requests.insert(id, Fate::Unknown);
        }
        let most_us = if is_calm || self.random.one_in(2) { 200_000 } else { 4_000_000 };
        let after_us = 1_000 + self.random.below(most_us);
        self.plan(after_us, Event::Start { host });
    }

    fn deliver(&mut self, host: usize, from: usize, message: Message) {
        let until = self.hosts[host].stopped_until;
        if until > self.now {
            // It waits in the connection.
            let after_us = until - self.now + self.random.below(100);
            return self.plan(after_us, Event::Deliver { host, from, message });
        }
        let sender = self.hosts[from].id;
        let Some((running, _)) = &mut self.hosts[host].member else { return };
        // A transport refuses who was removed.
        if running.parts.reader.membership().is_removed(sender) {
            return;
        }
        running.inputs.push_back(Input::Messages(vec![message]));
        self.schedule(host);
    }

    fn send(&mut self, from: usize, message: Message) {
        let raw = RawMessage::from(message.clone());
        assert_eq!(Message::try_from(raw).ok().as_ref(), Some(&message), "a message on the wire");
        let Some(to) = self.hosts.iter().position(|host| host.is_member && host.id == message.to.0) else {
            return;
        };
        // A proposal that came twice would happen twice.
        let once = matches!(message.body, raft::Body::Propose { .. });
        let arrivals = self.network.send(from, to, once, &mut self.random);
        if arrivals.is_empty()
            && self.random.one_in(4)
            && let Some((running, _)) = &mut self.hosts[from].member
        {
            running.inputs.push_back(Input::Unreachable(message.to.0));
        }
        for after_us in arrivals {
            self.plan(after_us, Event::Deliver { host: to, from, message: message.clone() });
        }
    }

    fn hear(&mut self, host: usize, told: Told) {
        let now = self.now;
        self.leases.proposed(&told.proposed, now, |id| self.checker.requests.contains_key(&id));
        for entry in &told.applied {
            self.applied(host, entry);
        }
        if let Some(leadership) = told.leadership.filter(|leadership| leadership.is_leader) {
            let id = self.hosts[host].id;
            let earlier = self.leaders.insert(leadership.term, id);
            assert!(earlier.is_none_or(|earlier| earlier == id), "two leaders in term {}", leadership.term);
            self.trace(format_args!("host {host}: leads in term {}", leadership.term));
            self.tell_versions(host);
        }
        let mut snapshot_for = told.snapshot_for;
        for message in told.sent {
            if matches!(message.body, raft::Body::Snapshot { .. }) {
                snapshot_for.take_if(|to| *to == message.to.0);
                self.send_snapshot(host, message);
            } else {
                self.send(host, message);
            }
        }
        if let Some(unwanted) = snapshot_for {
            self.hosts[host].cuts.remove(&unwanted);
        }
        for id in told.snapshots_wanted {
            self.snapshot_wanted(host, id);
        }
        for (id, result) in told.completions.answers {
            self.answered(host, id, &result);
        }
        if let Some(lost) = told.lost {
            self.lost(host, &lost);
        }
        let reads = &mut self.hosts[host].reads;
        for (context, result) in told.completions.reads {
            match (reads.get_mut(&context.0), result) {
                (Some(read), Ok(index)) => read.1 = Some(index),
                (_, Err(_)) => drop(reads.remove(&context.0)),
                // It was asked for again meanwhile, or given up.
                (None, Ok(_)) => {}
            }
        }
        self.serve_reads(host);
        if let Some(membership) = told.membership {
            self.membership_changed(host, &membership);
        }
    }

    fn applied(&mut self, host: usize, entry: &Entry) {
        if self.checker.applied(entry) {
            self.leases.applied(entry, self.now, &self.checker.leases());
            let is_change = entry.kind == EntryKind::ConfChange;
            self.report.changes += u64::from(is_change && entry.index.0 > self.began_with as u64);
        }
        self.hosts[host].applied_index = entry.index.0;
    }

    fn answered(&mut self, host: usize, id: RequestId, result: &Result<store::Answer, wire::Status>) {
        if self.hosts[host].changes.remove(&id.0) {
            let is_done = result.is_ok();
            return self.trace(format_args!("host {host}: change {:x} done: {is_done}", id.0));
        }
        if !self.hosts[host].open.remove(&id.0) {
            // Its caller was told before that it may happen.
            let fate = self.checker.requests.get(&id.0);
            return assert_eq!(fate, Some(&Fate::Unknown), "an answer to {:x}", id.0);
        }
        let leads = self.hosts[host]
            .member
            .as_ref()
            .is_some_and(|(running, _)| running.parts.consensus.status().role == raft::Role::Leader);
        self.report.forwarded += u64::from(result.is_ok() && !leads);
        self.trace(format_args!("host {host}: answer {:x} {}", id.0, result.is_ok()));
        self.checker.answered(id.0, result);
    }

    fn lost(&mut self, host: usize, lost: &node::LostProposals) {
        let Some((running, _)) = &self.hosts[host].member else { return };
        let ids = running.parts.ids;
        let gone: Vec<u64> =
            self.hosts[host].open.iter().copied().filter(|id| lost.covers(&ids, RequestId(*id))).collect();
        for id in gone {
            self.trace(format_args!("host {host}: lost {id:x}"));
            self.report.lost += 1;
            self.hosts[host].open.remove(&id);
            self.checker.requests.insert(id, Fate::Unknown);
        }
    }

    fn serve_reads(&mut self, host: usize) {
        let Host { reads, applied_index, member, .. } = &mut self.hosts[host];
        let Some((running, _)) = member else { return };
        let applied = *applied_index;
        let is_due = |index: &Option<u64>| index.is_some_and(|index| index <= applied);
        let due: Vec<u64> =
            reads.iter().filter(|(_, (_, index))| is_due(index)).map(|(context, _)| *context).collect();
        let due: Vec<Purpose> =
            due.iter().filter_map(|context| reads.remove(context)).map(|(purpose, _)| purpose).collect();
        let (reader, lessor) = (running.parts.reader.clone(), running.parts.lessor.clone());
        for purpose in due {
            match purpose {
                Purpose::Read { seen_before } => {
                    assert!(
                        applied >= seen_before,
                        "host {host}: a read at {applied} after {seen_before} was seen"
                    );
                    let same = self.checker.shows(&reader, applied);
                    assert!(same || self.hosts[host].is_faulty(), "a read failed on a healthy disk");
                    self.checker.seen(applied);
                    self.report.reads += 1;
                }
                Purpose::Renew { lease, asked_at } => {
                    let local = self.hosts[host].local(self.now);
                    // Another member may lead by now; a lease may be gone.
                    if let Renewal::Renewed { .. } = lessor.lock().renew(local, lease) {
                        self.leases.renewed(lease, asked_at);
                    }
                }
            }
        }
    }

    /// The transport knows what others run.
    fn tell_versions(&mut self, host: usize) {
        let version = Version { major: 3, minor: 7, patch: 1 };
        let versions = self.hosts.iter().map(|host| (host.id, version)).collect();
        if let Some((running, _)) = &mut self.hosts[host].member {
            running.inputs.push_back(Input::Versions(versions));
        }
    }

    fn membership_changed(&mut self, host: usize, membership: &Membership) {
        let index = self.hosts[host].applied_index;
        let known = self.memberships.entry(index).or_insert_with(|| membership.clone());
        assert_eq!(known, membership, "members at entry {index}");
        for place in 0..self.hosts.len() {
            let id = self.hosts[place].id;
            if membership.is_removed(id) && self.hosts[place].is_member {
                self.trace(format_args!("host {place}: removed"));
                self.hosts[place].is_removed = true;
            }
            let joins = membership.members().find(|member| member.peer_urls == peer_urls(place));
            if let Some(joining) = joins.filter(|_| !self.hosts[place].is_member) {
                self.trace(format_args!("host {place}: joins as {:x}", joining.id));
                let (cluster_id, id) = (self.cluster_id, joining.id);
                self.hosts[place].joins(cluster_id, id);
                let after_us = self.random.below(300_000);
                self.plan(after_us, Event::Start { host: place });
            }
        }
        // Who is removed and hears of it stops.
        if self.hosts[host].is_removed {
            self.trace(format_args!("host {host}: ends"));
            let open = self.hosts[host].crash(true, &mut self.random);
            for id in open {
                self.checker.requests.insert(id, Fate::Unknown);
            }
        }
    }

    fn snapshot_wanted(&mut self, host: usize, to: u64) {
        let Some((running, _)) = &mut self.hosts[host].member else { return };
        let cut = running.parts.applier.cut();
        running.inputs.push_back(Input::SnapshotReady { to, snapshot: cut.message() });
        self.hosts[host].cuts.insert(to, cut);
    }

    fn send_snapshot(&mut self, from: usize, message: Message) {
        let cut = self.hosts[from].cuts.remove(&message.to.0).expect("what is sent is pinned");
        let plan = match cut.plan() {
            Ok(plan) => plan,
            Err(error) => {
                assert!(self.hosts[from].is_faulty(), "plan a snapshot: {error}");
                return self.snapshot_reported(from, message.to.0, false);
            }
        };
        let (length, mut bytes) = (plan.file_len(), Vec::new());
        let written = cut.write(plan, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        if let Err(error) = written {
            assert!(self.hosts[from].is_faulty(), "write a snapshot: {error}");
            return self.snapshot_reported(from, message.to.0, false);
        }
        assert_eq!(bytes.len() as u64, length, "the length of a snapshot");
        let to = self.hosts.iter().position(|host| host.is_member && host.id == message.to.0);
        let arrival = to.map(|to| (to, self.network.send(from, to, true, &mut self.random)));
        let Some((host, arrivals)) = arrival.filter(|(_, arrivals)| !arrivals.is_empty()) else {
            return self.snapshot_reported(from, message.to.0, false);
        };
        let is_whole = self.is_calm || !self.random.one_in(6);
        if !is_whole {
            bytes.truncate(self.random.below(length) as usize);
        }
        self.trace(format_args!("host {from}: sends a snapshot of {length} bytes to host {host}"));
        self.plan(arrivals[0] * 10, Event::Snapshot { host, from, message, bytes, is_whole });
    }

    fn snapshot_reported(&mut self, host: usize, to: u64, ok: bool) {
        if let Some((running, _)) = &mut self.hosts[host].member {
            running.inputs.push_back(Input::SnapshotReported { to, ok });
            self.schedule(host);
        }
    }

    fn receive_snapshot(
        &mut self,
        host: usize,
        from: usize,
        message: Message,
        (bytes, is_whole): (Vec<u8>, bool),
    ) {
        let to = message.to.0;
        let is_running = self.hosts[host].member.is_some() && self.hosts[host].stopped_until <= self.now;
        if !is_running || self.network.is_cut(from, host) {
            return self.snapshot_reported(from, to, false);
        }
        let Some((running, _)) = &mut self.hosts[host].member else { return };
        let receiver = running.parts.snapshot_receiver.clone();
        let raft::Body::Snapshot { snapshot } = &message.body else { panic!("a snapshot's message") };
        let received = receiver.begin().and_then(|mut incoming| {
            bytes.chunks(700).try_for_each(|piece| incoming.write(piece))?;
            receiver.finish(incoming, snapshot, self.random.draw())
        });
        let ok = received.is_ok();
        let index = snapshot.index;
        self.trace(format_args!("host {host}: received a snapshot of {index} from host {from}: {ok}"));
        match received {
            Ok(()) => {
                assert!(is_whole, "a snapshot that is not whole was taken");
                let Some((running, _)) = &mut self.hosts[host].member else { return };
                running.inputs.push_back(Input::Messages(vec![message]));
                self.schedule(host);
            }
            Err(node::ReceiveError::Refused(reason)) => {
                assert!(!is_whole || self.hosts[host].is_faulty(), "a snapshot was refused: {reason}");
            }
            Err(node::ReceiveError::Busy) => {}
            Err(node::ReceiveError::NoRoom) => assert!(self.hosts[host].is_full, "there was room"),
            Err(node::ReceiveError::Failed(error)) => {
                // A file that is too short is read beyond its end.
                assert!(!is_whole || self.hosts[host].is_faulty(), "a snapshot failed: {error}");
                if self.hosts[host].is_faulty() {
                    self.crash(host);
                }
            }
        }
        self.snapshot_reported(from, to, ok);
    }

    /// The log names a leader's snapshot: the member goes over to it.
    fn go_over(&mut self, host: usize) {
        self.report.restored += 1;
        self.trace(format_args!("host {host}: goes over to a snapshot"));
        self.hosts[host].stop();
        for id in std::mem::take(&mut self.hosts[host].open) {
            self.checker.requests.insert(id, Fate::Unknown);
        }
        self.start(host);
    }

    /// A host whose member serves clients.
    fn serving_host(&mut self) -> Option<usize> {
        let host = self.random.below(self.hosts.len() as u64) as usize;
        self.serves(host).then_some(host)
    }

    fn serves(&self, host: usize) -> bool {
        let Host { member, stopped_until, .. } = &self.hosts[host];
        *stopped_until <= self.now && member.as_ref().is_some_and(|(running, _)| running.is_ready)
    }

    fn client(&mut self) {
        let Some(host) = self.serving_host() else { return };
        match self.random.below(100) {
            0..60 => self.submit(host),
            60..80 => self.read(host),
            80..97 => self.renew(),
            _ => self.reconfigure(host),
        }
    }

    fn submit(&mut self, host: usize) {
        let seen = self.checker.seen_revision();
        let Some((running, lane)) = &mut self.hosts[host].member else { return };
        let mut batch = Vec::new();
        let mut ids = Vec::new();
        for _ in 0..=self.random.below(3) {
            let id = lane.next();
            let (request, grows) = workload::request(&mut self.random, id.0, seen);
            self.checker.submitted(id.0);
            ids.push(id.0);
            batch.push(proposal(id, request.encode_to_vec(), grows));
        }
        running.submit(batch);
        self.hosts[host].open.extend(&ids);
        self.trace(format_args!("host {host}: submit {ids:x?}"));
        self.schedule(host);
    }

    fn read(&mut self, host: usize) {
        let seen_before = self.checker.seen_index();
        self.ask(host, Purpose::Read { seen_before });
    }

    /// Asks whoever takes itself for the leader.
    fn renew(&mut self) {
        let lease = workload::lease(&mut self.random);
        let asked_at = self.now;
        for host in 0..self.hosts.len() {
            let leads = self.hosts[host]
                .member
                .as_ref()
                .is_some_and(|(running, _)| running.parts.consensus.status().role == raft::Role::Leader);
            if leads && self.serves(host) {
                self.ask(host, Purpose::Renew { lease, asked_at });
            }
        }
    }

    fn ask(&mut self, host: usize, purpose: Purpose) {
        let Some((running, lane)) = &mut self.hosts[host].member else { return };
        let context = lane.next();
        running.submit(vec![Submission::ReadIndex { context }]);
        self.hosts[host].reads.insert(context.0, (purpose, None));
        self.schedule(host);
    }

    /// Asks for a change of membership, if the member that is asked sees nothing against it.
    fn reconfigure(&mut self, host: usize) {
        let Some((running, _)) = &self.hosts[host].member else { return };
        let membership = running.parts.reader.membership();
        let connected_since = |id: u64| {
            let other = self.hosts.iter().find(|other| other.id == id)?;
            let is_there = other.member.is_some()
                && !self.network.is_cut(host, other.place)
                && !self.network.is_cut(other.place, host);
            is_there.then_some(Time(0))
        };
        let situation = Situation {
            membership: &membership,
            own: self.hosts[host].id,
            strict: true,
            now: Time(10_000_000),
            connected_since: &connected_since,
        };
        let members: Vec<(u64, bool)> =
            membership.members().map(|member| (member.id, member.is_learner)).collect();
        let Some((any, _)) = members.get(self.random.below(members.len() as u64) as usize).copied() else {
            return;
        };
        let mut promotes = None;
        let change = match self.random.below(4) {
            0 => {
                let Some(place) = self.hosts.iter().position(|host| !host.is_member) else { return };
                let is_learner = self.random.one_in(2);
                if situation.may_add(is_learner).is_err() {
                    return;
                }
                let peer_urls = peer_urls(place);
                let id = node::added_member_id(&peer_urls, self.now as i64);
                Change::Add { member: NewMember { id, peer_urls, is_learner } }
            }
            1 => {
                if situation.may_remove(any).is_err() || members.len() < 3 {
                    return;
                }
                Change::Remove { id: any }
            }
            2 => {
                let Some((id, _)) = members.iter().find(|(_, is_learner)| *is_learner).copied() else {
                    return;
                };
                promotes = Some(node::Promotion { member: id, may: situation.may_promote() });
                Change::Promote { id }
            }
            _ => {
                let to = self.hosts.iter().find(|host| host.id == any && situation.may_lead(any).is_ok());
                if let Some(to) = to.map(|host| host.id)
                    && let Some((running, _)) = &mut self.hosts[host].member
                {
                    running.inputs.push_back(Input::TransferLeader(to));
                    self.trace(format_args!("host {host}: let {to:x} lead"));
                    self.schedule(host);
                }
                return;
            }
        };
        let Some((running, lane)) = &mut self.hosts[host].member else { return };
        let id = lane.next();
        running.submit(vec![Submission::Reconfigure { id, data: change.encode(id).into(), promotes }]);
        self.hosts[host].changes.insert(id.0);
        self.trace(format_args!("host {host}: change {:x}: {change:?}", id.0));
        self.schedule(host);
    }

    fn disturb_something(&mut self) {
        let count = self.hosts.len() as u64;
        let host = self.random.below(count) as usize;
        match self.random.below(20) {
            0 | 1 => {
                self.trace(format_args!("parted"));
                self.network.part(count as usize, &mut self.random);
            }
            2 => {
                let to = self.random.below(count) as usize;
                self.trace(format_args!("cut {host} -> {to}"));
                self.network.cut(host, to);
            }
            3..6 => {
                self.trace(format_args!("mended"));
                self.network.mend();
            }
            6..8 => self.network.change(&mut self.random),
            8 => self.reset_connections(host),
            9 | 10 => {
                if self.hosts[host].member.is_some() {
                    self.trace(format_args!("host {host}: crash"));
                    self.crash(host);
                }
            }
            11 => {
                self.trace(format_args!("host {host}: a disk fails soon"));
                self.hosts[host].fail_soon(&mut self.random);
            }
            12 => {
                self.hosts[host].toggle_full_disk(&mut self.random);
                let is_full = self.hosts[host].is_full;
                self.trace(format_args!("host {host}: disk full: {is_full}"));
            }
            13..16 => {
                let most_us = if self.random.one_in(2) { 400_000 } else { 6_000_000 };
                let stop_us = self.random.below(most_us);
                self.trace(format_args!("host {host}: stopped for {stop_us}"));
                self.hosts[host].stopped_until = self.now + stop_us;
            }
            _ => {
                let most_us = [500, 1_000, 10_000, 1_500_000][self.random.below(4) as usize];
                self.hosts[host].disk_us = most_us;
            }
        }
    }

    /// Everything that is under way from or to a host is lost.
    fn reset_connections(&mut self, host: usize) {
        self.trace(format_args!("host {host}: connections reset"));
        self.events.retain(
            |_, event| !matches!(event, Event::Deliver { host: to, from, .. } if *to == host || *from == host),
        );
    }

    /// Ends all disturbances: somebody leads soon, everything is answered, all members become level, and leases end.
    pub fn finish(&mut self) {
        self.calm_down();
        self.wait("somebody leads, and everybody knows", ELECTION_BOUND_MS, Self::has_leader);
        self.wait("all members serve", SETTLE_BOUND_MS, |world| {
            world.live().all(|host| world.serves(host.place))
        });
        self.wait("all members are level", SETTLE_BOUND_MS, Self::is_level);
        // What was lost on the way to a leader that lives ends by its client's own patience.
        for host in 0..self.hosts.len() {
            for id in std::mem::take(&mut self.hosts[host].open) {
                self.checker.requests.insert(id, Fate::Unknown);
            }
            self.hosts[host].reads.clear();
        }
        let live: Vec<usize> = self.live().map(|host| host.place).collect();
        // One after the other: of what others hand on together, a leader with small bounds refuses some.
        for host in live {
            self.submit(host);
            self.read(host);
            self.wait("everything is answered", SETTLE_BOUND_MS, |world| {
                world.hosts[host].open.is_empty() && world.hosts[host].reads.is_empty()
            });
        }
        self.wait("all members are level", SETTLE_BOUND_MS, Self::is_level);
        self.compare();
        let ttl_ms = 1000 * workload::TTL_MAX_S;
        self.wait("all leases end", ttl_ms + SETTLE_BOUND_MS, |world| world.checker.leases().is_empty());
        self.wait("all members are level", SETTLE_BOUND_MS, Self::is_level);
        self.compare();
    }

    fn calm_down(&mut self) {
        self.trace(format_args!("calm"));
        self.is_calm = true;
        self.network.calm();
        for host in 0..self.hosts.len() {
            self.hosts[host].empty_disk();
            self.hosts[host].faults.clear();
            self.hosts[host].stopped_until = 0;
            self.hosts[host].disk_us = 1_000;
            // What has begun to fail ends in any case.
            if self.hosts[host].is_faulty() || self.hosts[host].member.is_none() {
                self.crash(host);
            } else {
                self.hosts[host].memory.halt_after(None);
            }
        }
    }

    fn wait(&mut self, what: &str, bound_ms: u64, until: impl Fn(&Self) -> bool) {
        let end = self.now + bound_ms * 1000;
        while !until(self) {
            assert!(self.now < end, "not within {bound_ms} ms: {what}; {}", self.describe());
            self.step();
        }
        self.trace(format_args!("{what}"));
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for host in &self.hosts {
            let _ = write!(text, "\nhost {} {:x}: ", host.place, host.id);
            let _ = match &host.member {
                Some((running, _)) => write!(
                    text,
                    "{:?} {:?} ready {} open {} reads {:?}",
                    running.parts.consensus.status(),
                    running.busy(),
                    running.is_ready,
                    host.open.len(),
                    host.reads
                ),
                None => write!(text, "member {} removed {}", host.is_member, host.is_removed),
            };
        }
        text
    }

    /// Hosts whose members are in the cluster.
    fn live(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(|host| host.is_member && !host.is_removed)
    }

    fn has_leader(&self) -> bool {
        let leader = |host: &Host| {
            host.member.as_ref().and_then(|(running, _)| {
                let status = running.parts.consensus.status();
                status.leader.map(|leader| (status.term, leader))
            })
        };
        let known: BTreeSet<_> = self.live().map(leader).collect();
        known.len() == 1 && known.iter().all(Option::is_some)
    }

    fn is_level(&self) -> bool {
        let last = self.checker.last_index();
        let is_level = |host: &Host| {
            host.applied_index == last
                && host.member.as_ref().is_some_and(|(running, _)| {
                    let status = running.parts.consensus.status();
                    status.commit.0 == last && status.last.0.0 == last && running.is_idle()
                })
        };
        self.live().all(is_level)
    }

    /// All members show the same, and what the model shows.
    fn compare(&mut self) {
        let last = self.checker.last_index();
        let members: Vec<(usize, store::Reader)> = self
            .live()
            .filter_map(|host| {
                host.member.as_ref().map(|(running, _)| (host.place, running.parts.reader.clone()))
            })
            .collect();
        let mut hash = None;
        for (place, reader) in members {
            assert!(self.checker.shows(&reader, last), "a read failed on a healthy disk");
            let (own, _) = reader.hash().expect("a healthy disk");
            let known = *hash.get_or_insert(own);
            assert_eq!(own, known, "the hash of host {place}");
        }
    }
}
