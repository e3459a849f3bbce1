//! How the process's descriptors are shared out, so that the member's own files find some whatever connects.
//!
//! The system gives each new file the lowest number that is free. So the number of a connection that was just accepted
//! tells how many descriptors are in use, by whomever: it is served only below a number that leaves the rest to others.
//! Nothing has to be counted, and nothing that the process opens can be forgotten.

use std::fs;
use std::os::fd::RawFd;

use disk::revlog;

use super::bind::{Listener, Role};

/// What comes and goes: logs, snapshots, names that are looked up, connections to other members. etcd's number, without which
/// it does not start.
pub const SUNDRY: u64 = 150;
/// Most connections to all peer listeners. A member has some ten to each other, and few others connect there.
const PEERS_MAX: u64 = 1024;
/// Most connections to all listeners of probes and metrics, whom clients' idle ones must not starve.
const METRICS_MAX: u64 = 128;
/// Descriptors of one runtime: it waits for events, is woken, and hears of signals.
const RUNTIME: u64 = 3;
/// What the revision log's files may take beyond twice what lives, bytes (rule 18).
const REVLOG_SLACK_BYTES: u64 = 1 << 30;

/// What connections of one listener may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The number below which a connection's descriptor has to be.
    pub below: RawFd,
    /// Connections at the same time, where their number is bounded besides.
    pub connections_max: usize,
}

impl Room {
    /// Of a listener whose process shares nothing out.
    pub(super) fn whole(role: Role) -> Room {
        let most = if role == Role::Peer { PEERS_MAX } else { METRICS_MAX };
        Room { below: RawFd::MAX, connections_max: number(most) }
    }
}

/// Who gets what of the process's descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    limit: u64,
    /// What the member is left, as far as it goes.
    files: u64,
    /// What it may want.
    files_wanted: u64,
    peers: u64,
    metrics: u64,
}

impl Shares {
    /// Shares out what this process may open, now that it has all but its runtimes and the member's files.
    /// `runtimes`: how many of them are still to come. `quota_bytes`: the quota, if there is one.
    pub fn of_process(runtimes: usize, quota_bytes: Option<u64>) -> Shares {
        let open = open_descriptors().unwrap_or(SUNDRY) + RUNTIME * runtimes as u64;
        Shares::new(super::descriptors(), open, quota_bytes)
    }

    /// Shares out `limit` descriptors, of which so many are open. Where there are few, the member's files get half of what
    /// is left, and clients a quarter at least.
    fn new(limit: u64, open: u64, quota_bytes: Option<u64>) -> Shares {
        let left = limit.saturating_sub(open);
        let segment_bytes = u64::from(revlog::Limits::DEFAULT.segment_bytes);
        // Twice what lives, and once more where a leader's snapshot is made a log beside it.
        let log_bytes = quota_bytes.map(|quota| quota.saturating_mul(3).saturating_add(REVLOG_SLACK_BYTES));
        let files_wanted = log_bytes.map_or(u64::MAX, |bytes| SUNDRY + bytes / segment_bytes);
        Shares {
            limit,
            files: files_wanted.min(left / 2),
            files_wanted,
            peers: PEERS_MAX.min(left / 8).max(1),
            metrics: METRICS_MAX.min(left / 8).max(1),
        }
    }

    /// The limit that a member with this quota needs, if it is more than there is.
    pub fn limit_missed(&self) -> Option<u64> {
        let is_missed = self.files < self.files_wanted && self.files_wanted < u64::MAX;
        is_missed.then(|| self.limit.saturating_add(2 * (self.files_wanted - self.files)))
    }

    /// Gives listeners of one kind their share, the same to each.
    pub fn give(&self, listeners: Vec<Listener>) -> Vec<Listener> {
        let count = listeners.len() as u64;
        listeners
            .into_iter()
            .map(|listener| {
                let room = self.room(listener.role(), count);
                listener.within(room)
            })
            .collect()
    }

    fn room(&self, role: Role, listeners: u64) -> Room {
        let (others, connections_max) = match role {
            Role::Client | Role::Grpc | Role::Http => (self.peers + self.metrics, u64::MAX),
            Role::Metrics => (0, self.metrics),
            Role::Peer => (0, (self.peers / listeners.max(1)).max(1)),
        };
        let below = self.limit.saturating_sub(self.files + others);
        Room { below: RawFd::try_from(below).unwrap_or(RawFd::MAX), connections_max: number(connections_max) }
    }
}

fn number(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// How many descriptors are open. Newer kernels tell their number at once.
pub(crate) fn open_descriptors() -> Option<u64> {
    match fs::metadata("/proc/self/fd").map(|folder| folder.len()) {
        Ok(0) | Err(_) => fs::read_dir("/proc/self/fd").ok().map(|names| names.count() as u64),
        Ok(count) => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// What stays for the member beside connections of all kinds, and what clients may take.
    fn left(limit: u64, open: u64, quota_bytes: Option<u64>) -> (u64, u64) {
        let shares = Shares::new(limit, open, quota_bytes);
        let below = |role| u64::try_from(shares.room(role, 1).below).unwrap();
        assert_eq!(below(Role::Peer), below(Role::Metrics));
        // Clients leave room for as many others as there may be.
        let others =
            shares.room(Role::Peer, 1).connections_max + shares.room(Role::Metrics, 1).connections_max;
        assert_eq!(below(Role::Peer) - below(Role::Client), others as u64);
        (limit - below(Role::Peer), below(Role::Client).saturating_sub(open))
    }

    #[test]
    fn files_of_the_member_are_left_what_the_quota_may_make_them() {
        assert_eq!(left(65_536, 50, Some(2 * GIB)), (150 + 112, 65_536 - 262 - 1_152 - 50));
        assert_eq!(
            left(65_536, 450, Some(8 * GIB)),
            (150 + 400, 65_536 - 550 - 1_152 - 450),
            "64 processors"
        );
        assert_eq!(left(65_536, 50, None).0, (65_536 - 50) / 2, "files without an end");
        assert_eq!(left(1_024, 64, Some(2 * GIB)), (262, 1_024 - 262 - 120 - 120 - 64));
    }

    #[test]
    fn where_there_are_few_everybody_has_some() {
        for limit in [151, 256, 320, 1_024] {
            for open in [30, 60, 120] {
                let (files, clients) = left(limit, open, Some(8 * GIB));
                let free = limit - open;
                assert!(
                    files >= free / 2 - 1 && clients >= free / 4 - 1,
                    "{limit} {open}: {files} {clients}"
                );
            }
        }
        assert_eq!(Shares::new(65_536, 50, Some(8 * GIB)).limit_missed(), None);
        assert_eq!(Shares::new(65_536, 50, None).limit_missed(), None);
        let missed = Shares::new(1_024, 24, Some(8 * GIB)).limit_missed().unwrap();
        assert_eq!(missed, 1_024 + 2 * (550 - 500));
        assert_eq!(Shares::new(missed, 24, Some(8 * GIB)).limit_missed(), None);
    }

    #[test]
    fn peer_listeners_share() {
        let shares = Shares::new(65_536, 50, Some(GIB));
        assert_eq!(shares.room(Role::Peer, 4).connections_max, 256);
        assert_eq!(shares.room(Role::Metrics, 4).connections_max, 128, "of all of them together");
    }

    #[test]
    fn open_descriptors_are_counted() {
        assert!(open_descriptors().unwrap() >= 3);
    }
}
