//! The world of one run: hosts, network, clients, and what happens when.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use disk::boltfile::schema::Version;
use node::Input;
use raft::{Entry, EntryKind, Message, RawMessage};
use store::{Membership, Reader};

use super::host::{Host, peer_urls};
use super::leases::{CLOCK_ERROR, Leases};
use super::network::Network;
use super::watches::WatchClient;
use super::{ClusterOptions, ClusterReport};
use crate::checker::{Checker, Fate};
use crate::member::Told;
use crate::random::Random;

/// Machines beside those of the first members, on which members may join.
const SPARE_HOSTS: usize = 2;
/// What happens at some time.
pub(super) enum Event {
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
    /// A host's member was removed, and stops.
    End { host: usize },
    /// A host's member is started.
    Start { host: usize },
}

const CONSENSUS: usize = 0;
const REVISION_SYNC: usize = 4;

/// Longest that a process is stopped.
pub(super) const STOP_MAX_US: u64 = 6_000_000;

/// The cluster and all that is around it.
pub struct World {
    pub(super) random: Random,
    pub(super) options: ClusterOptions,
    pub(super) now: u64,
    pub(super) events: BTreeMap<(u64, u64), Event>,
    pub(super) next_event: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) network: Network,
    pub(super) checker: Checker,
    pub(super) leases: Leases,
    pub(super) watches: Vec<WatchClient>,
    /// The membership behind each entry at which a batch ended and that somebody has applied.
    pub(super) memberships: BTreeMap<u64, Membership>,
    /// Terms in which somebody led, and who.
    pub(super) leaders: BTreeMap<u64, u64>,
    pub(super) cluster_id: u64,
    /// How many members the cluster began with.
    pub(super) began_with: usize,
    pub(super) is_calm: bool,
    pub(super) report: ClusterReport,
}

/// How long a write waits at most for room on a full disk, microseconds.
const ROOM_RETRY_US: u64 = 200_000;

impl World {
    /// A cluster of one to seven members that are about to start.
    pub fn new(seed: u64, options: ClusterOptions) -> Self {
        let mut random = Random::new(seed);
        let members = [1, 2, 3, 3, 3, 4, 5, 7][random.below(8) as usize];
        Self::with(members, random, options)
    }

    /// A cluster of so many members that are about to start.
    pub(super) fn with(members: usize, mut random: Random, options: ClusterOptions) -> Self {
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
            watches: vec![WatchClient::default(), WatchClient::default()],
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
            events: self.watches.iter().map(|client| client.events).sum(),
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

    pub(super) fn plan(&mut self, after_us: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + after_us, self.next_event), event);
    }

    pub(super) fn trace(&mut self, line: std::fmt::Arguments<'_>) {
        let mut text = String::new();
        let _ = write!(text, "{:>10} {line}", self.now);
        for byte in text.bytes().chain([b'\n']) {
            self.report.digest = (self.report.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.options.print_trace {
            println!("{text}");
        }
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> u64 {
        self.events.first_key_value().map_or(u64::MAX, |((at, _), _)| *at)
    }

    pub(super) fn step(&mut self) {
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
                    self.hear_watches();
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
            Event::End { host } if self.hosts[host].member.is_some() => {
                self.trace(format_args!("host {host}: ends"));
                let open = self.hosts[host].crash(true, &mut self.random);
                for id in open {
                    self.checker.requests.insert(id, Fate::Unknown);
                }
            }
            Event::End { .. } => {}
        }
    }

    /// Plans what a host's member has to do.
    pub(super) fn schedule(&mut self, host: usize) {
        let Some((running, _)) = &self.hosts[host].member else { return };
        let (busy, deadline) = (running.busy(), running.parts.consensus.deadline());
        let (waiting, has_room) = (running.persist.len(), running.has_room());
        let run = self.hosts[host].run;
        for (part, is_busy) in busy.into_iter().enumerate() {
            if !is_busy || std::mem::replace(&mut self.hosts[host].scheduled[part], true) {
                continue;
            }
            let most_us = match part {
                CONSENSUS => 200,
                REVISION_SYNC => 1_000_000,
                1 => self.hosts[host].disk_us,
                _ => 3_000,
            };
            let mut least_us = 0;
            if part == 1 {
                self.hosts[host].log_group = waiting;
                least_us = self.hosts[host].disk_least_us;
                if !has_room {
                    // A full disk is not asked again at once.
                    least_us += self.random.below(ROOM_RETRY_US);
                }
            }
            let after_us = 10 + least_us + self.random.below(most_us);
            self.plan(after_us, Event::Part { host, part, run });
        }
        let tick_at = self.hosts[host].when(deadline).max(self.now + 1);
        if tick_at != self.hosts[host].tick_at && tick_at < u64::MAX / 2 {
            self.hosts[host].tick_at = tick_at;
            self.plan(tick_at - self.now, Event::Tick { host });
        }
    }

    /// Whether the process of a host is stopped; then the event comes when it goes on.
    pub(super) fn is_stopped(&mut self, host: usize, event: impl FnOnce() -> Event) -> bool {
        let until = self.hosts[host].stopped_until;
        if until <= self.now {
            return false;
        }
        let after_us = until - self.now + self.random.below(100);
        self.plan(after_us, event());
        true
    }

    pub(super) fn tick(&mut self, host: usize) {
        if self.is_stopped(host, || Event::Tick { host }) || self.now < self.hosts[host].tick_at {
            return;
        }
        self.hosts[host].tick_at = u64::MAX;
        self.run_part(host, CONSENSUS);
    }

    pub(super) fn part(&mut self, host: usize, part: usize, run: u64) {
        if self.hosts[host].run != run || self.is_stopped(host, || Event::Part { host, part, run }) {
            return;
        }
        self.hosts[host].scheduled[part] = false;
        self.run_part(host, part);
    }

    pub(super) fn run_part(&mut self, host: usize, part: usize) {
        let mut group = 1 + self.random.below(8) as usize;
        if self.hosts[host].disk_least_us > 0 {
            // What came while this was being written is not among it.
            group = self.hosts[host].log_group;
        }
        let now = self.hosts[host].local(self.now);
        let Some((running, _)) = &mut self.hosts[host].member else { return };
        let mut told = Told::default();
        let result = match part {
            CONSENSUS => {
                running.consensus(now, &mut told);
                Ok(())
            }
            1 => running.write_log(group),
            2 => running.apply(now, &mut told),
            3 => running.write_revisions(),
            REVISION_SYNC => running.sync_revisions(),
            5 => running.work_on_files(&mut told),
            6 => {
                running.compact();
                Ok(())
            }
            _ => running.merge(&mut told),
        };
        let (taken, applied_term) = (std::mem::take(&mut told.taken), told.applied_term);
        self.hear(host, told);
        self.follow_fates(host, taken, applied_term);
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

    pub(super) fn start(&mut self, host: usize) {
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
                self.compare_membership(&reader, found.applied_index);
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
    pub(super) fn crash(&mut self, host: usize) {
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

    pub(super) fn deliver(&mut self, host: usize, from: usize, message: Message) {
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

    pub(super) fn send(&mut self, from: usize, message: Message) {
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

    pub(super) fn hear(&mut self, host: usize, told: Told) {
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

    pub(super) fn applied(&mut self, host: usize, entry: &Entry) {
        if self.checker.applied(entry) {
            self.leases.applied(entry, self.now, &self.checker.leases());
            let is_change = entry.kind == EntryKind::ConfChange;
            self.report.changes += u64::from(is_change && entry.index.0 > self.began_with as u64);
        }
        self.hosts[host].applied_index = entry.index.0;
    }

    /// The transport knows what others run.
    pub(super) fn tell_versions(&mut self, host: usize) {
        let version = Version { major: 3, minor: 7, patch: 1 };
        let versions = self.hosts.iter().map(|host| (host.id, version)).collect();
        if let Some((running, _)) = &mut self.hosts[host].member {
            running.inputs.push_back(Input::Versions(versions));
        }
    }

    /// What a member takes for the members, with everything applied up to this entry, is what others have had there.
    pub(super) fn compare_membership(&self, reader: &Reader, applied_index: u64) {
        let known = self.memberships.range(..=applied_index).next_back();
        if let Some((index, known)) = known {
            assert_eq!(*reader.membership(), *known, "members at entry {applied_index}, of entry {index}");
        }
    }

    pub(super) fn membership_changed(&mut self, host: usize, membership: &Membership) {
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
        // Who is removed and hears of it stops a little later, as in etcd: others may not know yet that it is committed.
        if self.hosts[host].is_removed && self.hosts[host].member.is_some() {
            self.plan(1_000_000, Event::End { host });
        }
    }

    pub(super) fn disturb_something(&mut self) {
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
                let most_us = if self.random.one_in(2) { 400_000 } else { STOP_MAX_US };
                let stop_us = self.random.below(most_us);
                self.trace(format_args!("host {host}: stopped for {stop_us}"));
                self.hosts[host].stopped_until = self.now + stop_us;
            }
            16 => {
                // Longer than what may be time in which a busy process did not run.
                let jump_us = [1_000_000, 10_000_000, 4_000_000_000][self.random.below(3) as usize];
                let jump_us = jump_us + self.random.below(jump_us);
                self.trace(format_args!("host {host}: its clock jumps by {jump_us}"));
                self.hosts[host].jump(jump_us);
                self.schedule(host);
            }
            _ => {
                let most_us = [500, 1_000, 10_000, 1_500_000][self.random.below(4) as usize];
                self.hosts[host].disk_us = most_us;
            }
        }
    }

    /// Everything that is under way from or to a host is lost.
    pub(super) fn reset_connections(&mut self, host: usize) {
        self.trace(format_args!("host {host}: connections reset"));
        self.events.retain(
            |_, event| !matches!(event, Event::Deliver { host: to, from, .. } if *to == host || *from == host),
        );
    }
}
