//! One machine of the simulated cluster: its disk, its clock, and the member that runs on it, if it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use disk::{Fault, FaultFs, Fs, MemFs, Operation};
use node::interchange::Cut;
use node::{ClusterState, Identity, InitialMember, LaneIds, Settings};
use raft::Time;

use super::fates::Fates;
use crate::member::{Running, settings};
use crate::random::Random;

/// What an index is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// A read, when clients had seen this entry.
    Read {
        /// Its index.
        seen_before: u64,
    },
    /// A renewal of a lease.
    Renew {
        /// Which.
        lease: i64,
        /// When it was asked for, in true time.
        asked_at: u64,
    },
}

/// A machine.
pub struct Host {
    /// Its place, which is also its name.
    pub place: usize,
    /// Its member's id.
    pub id: u64,
    /// What its member is started with.
    pub settings: Settings,
    /// Its disk.
    pub memory: MemFs,
    /// What fails of it.
    pub faults: FaultFs,
    fs: Arc<dyn Fs>,
    /// The member that runs, and the ids of its one network thread.
    pub member: Option<(Running, LaneIds)>,
    /// Whether a member may ever run here; and none may any more.
    pub is_member: bool,
    /// It was removed from the cluster.
    pub is_removed: bool,
    /// One more with each start.
    pub run: u64,
    /// The process is stopped until then, in true time.
    pub stopped_until: u64,
    /// How long a write to its disk takes at most, microseconds.
    pub disk_us: u64,
    /// What is added to that, microseconds.
    pub disk_least_us: u64,
    /// How many requests waited for the log when its write was planned.
    pub log_group: usize,
    /// Which parts are due, so that none is twice; the last one is the time.
    pub scheduled: [bool; 8],
    /// When consensus is due, in true time, and nothing else is.
    pub tick_at: u64,
    /// What the member has applied.
    pub applied_index: u64,
    /// Reads under way: context → what for, and the index to wait for once known.
    pub reads: BTreeMap<u64, (Purpose, Option<u64>)>,
    /// Requests of its clients without an answer.
    pub open: BTreeSet<u64>,
    /// Changes of membership of its clients without an answer.
    pub changes: BTreeSet<u64>,
    /// Snapshots that are to be sent, by who is to get them.
    pub cuts: BTreeMap<u64, Cut>,
    /// To whom the requests of its clients were handed.
    pub fates: Fates,
    offset_us: u64,
    /// Microseconds that its clock shows for a thousand true ones.
    rate: u64,
    strikes_before: u64,
    /// Whether its disk is full.
    pub is_full: bool,
}

/// The URLs of a host's member.
pub fn peer_urls(place: usize) -> Vec<String> {
    vec![format!("http://host-{place}:2380")]
}

impl Host {
    /// A machine for a member of a new cluster of so many; or one to come, if its place is beyond.
    pub fn new(place: usize, members: usize, error: u64, random: &mut Random) -> Self {
        let memory = MemFs::new();
        let faults = FaultFs::new(Arc::new(memory.clone()));
        let initial_cluster = (0..members)
            .map(|place| InitialMember { name: format!("host-{place}"), peer_urls: peer_urls(place) })
            .collect();
        let settings = Settings {
            name: format!("host-{place}"),
            peer_urls: peer_urls(place),
            initial_cluster,
            ..settings()
        };
        Host {
            place,
            id: node::member_id(&settings.peer_urls, &settings.token),
            settings,
            fs: Arc::new(faults.clone()),
            memory,
            faults,
            member: None,
            is_member: place < members,
            is_removed: false,
            run: 0,
            stopped_until: 0,
            disk_us: 1_000,
            disk_least_us: 0,
            log_group: 0,
            scheduled: [false; 8],
            tick_at: u64::MAX,
            applied_index: 0,
            reads: BTreeMap::new(),
            open: BTreeSet::new(),
            changes: BTreeSet::new(),
            cuts: BTreeMap::new(),
            fates: Fates::default(),
            offset_us: random.below(1_000_000_000),
            rate: 1000 - error + random.below(2 * error + 1),
            strikes_before: 0,
            is_full: false,
        }
    }

    /// What its clock shows.
    pub fn local(&self, now: u64) -> Time {
        Time(self.offset_us + (u128::from(now) * u128::from(self.rate) / 1000) as u64)
    }

    /// When its clock shows this.
    pub fn when(&self, local: Time) -> u64 {
        let us = u128::from(local.0.saturating_sub(self.offset_us)) * 1000;
        u64::try_from(us.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX)
    }

    /// Its clock jumps ahead, as that of a machine may which was put aside. A monotonic clock never steps back, and no other
    /// is read by a member.
    pub fn jump(&mut self, us: u64) {
        self.offset_us += us;
    }

    /// It is to join a cluster as this member.
    pub fn joins(&mut self, cluster_id: u64, id: u64) {
        self.id = id;
        self.is_member = true;
        let identity = Identity { cluster_id, member_id: id };
        self.settings.cluster_state = ClusterState::Existing(Some(identity));
    }

    /// Starts the member on what the disk holds.
    pub fn start(&mut self, now: u64, random: &mut Random) -> Result<(), node::Error> {
        let local = self.local(now);
        let running = Running::start(&self.fs, &self.settings, random, local)?;
        assert_eq!(running.parts.identity.member_id, self.id, "who host {} is", self.place);
        self.run += 1;
        self.scheduled = [false; 8];
        self.tick_at = u64::MAX;
        self.applied_index = running.parts.found.applied_index;
        let lane = running.lane();
        self.member = Some((running, lane));
        Ok(())
    }

    /// Whether the disk has failed, other than by being full.
    pub fn is_faulty(&self) -> bool {
        self.memory.has_halted()
            || self.memory.has_failed_sync()
            || self.faults.strikes() > self.strikes_before
    }

    /// The member ends; its files are as they are.
    pub fn stop(&mut self) {
        self.member = None;
        self.reads.clear();
        self.changes.clear();
        self.cuts.clear();
        self.fates = Fates::default();
    }

    /// The process or the machine is gone; which requests are without an answer now.
    pub fn crash(&mut self, is_calm: bool, random: &mut Random) -> BTreeSet<u64> {
        self.stop();
        self.faults.clear();
        self.strikes_before = self.faults.strikes();
        self.memory.halt_after(None);
        if is_calm || random.one_in(2) {
            self.empty_disk();
        }
        if random.one_in(3) {
            self.memory.kill();
        } else {
            self.memory.power_cut(random.draw());
        }
        std::mem::take(&mut self.open)
    }

    /// There is room on the disk.
    pub fn empty_disk(&mut self) {
        self.memory.set_capacity(None);
        self.is_full = false;
    }

    /// The disk fills up, or there is room again.
    pub fn toggle_full_disk(&mut self, random: &mut Random) {
        self.is_full = !self.is_full;
        let capacity = self.is_full.then(|| self.memory.used() + random.below(4096));
        self.memory.set_capacity(capacity);
    }

    /// The disk stops in the middle of what comes next, or fails.
    pub fn fail_soon(&mut self, random: &mut Random) {
        match random.below(3) {
            0 if !self.memory.has_halted() => self.memory.halt_after(Some(random.below(6))),
            1 => self.memory.fail_sync(random.draw()),
            _ => {
                let operation = match random.below(6) {
                    0 | 1 => Operation::Write,
                    2 | 3 => Operation::Sync,
                    4 => Operation::Rename,
                    _ => Operation::Create,
                };
                let fault = Fault::once(operation);
                self.faults.add(Fault { skip: random.below(3), forever: true, ..fault });
            }
        }
    }
}
