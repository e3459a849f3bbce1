//! What the hashes of a cluster's members say of their data (etcd: corrupt.go). Asking for them is the shell's business.
//!
//! Three checks: a member that starts compares its newest hash with everybody's; a leader does, now and then; and a leader
//! compares the hashes that all members make at the same compactions. Only hashes made at one compacted revision say
//! anything of one another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use disk::boltfile::schema::Version;
use store::KvHash;

/// etcd's members before this version keep no tombstone at the compacted revision, so that their hashes are others.
pub const COMPARED_FROM: Version = Version { major: 3, minor: 5, patch: 16 };

/// A member's hash, with its newest revision when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The hash.
    pub hash: KvHash,
    /// The newest revision.
    pub revision: i64,
}

/// Why a member has told no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHash {
    /// It has not come to the revision yet.
    FutureRevision,
    /// It has compacted it.
    Compacted,
    /// It is of another cluster.
    OtherCluster,
    /// It is older than [`COMPARED_FROM`], and was not asked.
    TooOld,
    /// It does not answer, or something else.
    NoAnswer,
}

/// What another member has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHash {
    /// The member's id.
    pub id: u64,
    /// Its hash, or why there is none.
    pub answer: Result<Hashed, NoHash>,
}

/// What a member that starts finds in another one's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// The same hash.
    Same,
    /// Another hash at the same compacted revision: the data differs, and this member must not serve.
    OtherHash,
    /// A hash at another compacted revision, which says nothing.
    OtherCompaction,
    /// The other one is behind.
    PeerBehind,
    /// This one is behind.
    Behind,
    /// The other one is of another cluster.
    OtherCluster,
    /// There is no answer, which says nothing either.
    NoAnswer,
}

/// Compares a member's newest hash, `own`, with what another one has told of that revision.
pub fn initial(own: KvHash, answer: &Result<Hashed, NoHash>) -> Initial {
    match answer {
        Ok(Hashed { hash, .. }) if hash.hash == own.hash => Initial::Same,
        Ok(Hashed { hash, .. }) if hash.compact_revision == own.compact_revision => Initial::OtherHash,
        Ok(_) => Initial::OtherCompaction,
        Err(NoHash::FutureRevision) => Initial::PeerBehind,
        Err(NoHash::Compacted) => Initial::Behind,
        Err(NoHash::OtherCluster) => Initial::OtherCluster,
        Err(NoHash::TooOld | NoHash::NoAnswer) => Initial::NoAnswer,
    }
}

/// The leader's part of a periodic check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderHashes {
    /// Of its newest revision, at the beginning; the others are asked for theirs of that revision.
    pub first: KvHash,
    /// Of its newest revision, after a linearizable read that began when the others had answered.
    pub second: Hashed,
}

/// What is wrong with a member, as a periodic check finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The leader's own hash has changed though nothing else has.
    Unstable,
    /// A member's revision is beyond the leader's.
    Revision {
        /// It.
        told: i64,
    },
    /// A member's compacted revision is beyond the leader's.
    CompactRevision {
        /// It.
        told: i64,
    },
    /// A member's hash is another than the leader's at the same compacted revision.
    Hash {
        /// It.
        told: KvHash,
    },
}

/// What a periodic check has found: member and fault, in etcd's order. The first one's member gets the alarm, and no other
/// one: the leader itself may be the one that is wrong.
pub fn periodic(own: u64, leader: &LeaderHashes, peers: &[PeerHash]) -> Vec<(u64, Fault)> {
    let LeaderHashes { first, second } = leader;
    let mut found = Vec::new();
    if second.hash.hash != first.hash
        && second.hash.hash_revision == first.hash_revision
        && second.hash.compact_revision == first.compact_revision
    {
        found.push((own, Fault::Unstable));
    }
    for (id, told) in peers.iter().filter_map(|peer| Some((peer.id, peer.answer.ok()?))) {
        if told.revision > second.revision {
            found.push((id, Fault::Revision { told: told.revision }));
        }
        if told.hash.compact_revision > second.hash.compact_revision {
            found.push((id, Fault::CompactRevision { told: told.hash.compact_revision }));
        }
        if told.hash.compact_revision == first.compact_revision && told.hash.hash != first.hash {
            found.push((id, Fault::Hash { told: told.hash }));
        }
    }
    found
}

/// Which compactions' hashes this leader has found to be the same everywhere.
#[derive(Clone, Debug, Default)]
pub struct CompactionChecks {
    /// The newest one's revision.
    checked: i64,
    /// Those that were [`Outcome::Undecided`], of the hashes that are kept.
    undecided: BTreeSet<i64>,
}

/// Why a member is left out of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It has told no hash.
    NoAnswer,
    /// It is older than [`COMPARED_FROM`].
    TooOld,
    /// Its hash was made at another compacted revision: its compaction is not finished, or its hash was given up.
    CompactRevision {
        /// Its.
        told: i64,
        /// The leader's.
        own: i64,
    },
}

impl fmt::Display for Skipped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skipped::NoAnswer => out.write_str("no response"),
            Skipped::TooOld => write!(out, "the peer's version is below {COMPARED_FROM}"),
            Skipped::CompactRevision { told, own } => {
                write!(out, "the peer's CompactRevision {told} doesn't match leader's CompactRevision {own}")
            }
        }
    }
}

/// What the hashes of one compaction say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The other members whose hashes were compared.
    pub compared: usize,
    /// Those that were not, in the order in which they were given.
    pub skipped: Vec<(u64, Skipped)>,
    /// What the comparison came to.
    pub outcome: Outcome,
}

/// What a comparison came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All members have the same hash: older ones need not be looked at.
    Same,
    /// Those that could be compared have: an older one may be had of all.
    SameOfSome,
    /// There are several, for the first time. A member that is about to apply the compaction answers with the hash of what
    /// it has, which differs where nothing lives at that revision; one that answers may not have made its hash. The next
    /// check looks again, and then it counts. etcd does not wait for it.
    Undecided,
    /// There are several.
    Different {
        /// Whether more than half of all members have one of them. If not, nobody can say who is wrong.
        has_quorum: bool,
        /// The members with each hash, but for those of the majority.
        others: BTreeMap<u32, Vec<u64>>,
    },
}

impl Outcome {
    /// Whether nothing is to be learned from older compactions.
    pub fn is_final(&self) -> bool {
        !matches!(self, Outcome::SameOfSome | Outcome::Undecided)
    }

    /// The members that get CORRUPT; 0 stands for the whole cluster.
    pub fn alarms(&self) -> Vec<u64> {
        match self {
            Outcome::Same | Outcome::SameOfSome | Outcome::Undecided => Vec::new(),
            Outcome::Different { has_quorum: true, others } => others.values().flatten().copied().collect(),
            Outcome::Different { has_quorum: false, .. } => vec![0],
        }
    }
}

impl CompactionChecks {
    /// Those of a leader's hashes that are still to be compared, the newest first.
    pub fn unchecked(&mut self, mut kept: Vec<KvHash>) -> Vec<KvHash> {
        kept.retain(|hash| hash.hash_revision > self.checked);
        kept.sort_unstable_by_key(|hash| std::cmp::Reverse(hash.hash_revision));
        self.undecided.retain(|revision| kept.iter().any(|hash| hash.hash_revision == *revision));
        kept
    }

    /// Compares the hash `leader`, of this member, with what all the others have told of the same revision.
    pub fn judge(&mut self, own: u64, leader: KvHash, peers: &[PeerHash]) -> Verdict {
        let mut members: BTreeMap<u32, Vec<u64>> = BTreeMap::from([(leader.hash, vec![own])]);
        let mut skipped = Vec::new();
        for peer in peers {
            let reason = match peer.answer {
                Ok(Hashed { hash, .. }) if hash.compact_revision == leader.compact_revision => {
                    members.entry(hash.hash).or_default().push(peer.id);
                    continue;
                }
                Ok(Hashed { hash, .. }) => {
                    Skipped::CompactRevision { told: hash.compact_revision, own: leader.compact_revision }
                }
                Err(NoHash::TooOld) => Skipped::TooOld,
                Err(_) => Skipped::NoAnswer,
            };
            skipped.push((peer.id, reason));
        }
        let compared = peers.len() - skipped.len();
        let outcome = match members.len() {
            1 if skipped.is_empty() => {
                self.checked = self.checked.max(leader.hash_revision);
                Outcome::Same
            }
            1 => Outcome::SameOfSome,
            _ if self.undecided.insert(leader.hash_revision) => Outcome::Undecided,
            _ => {
                // Of all members, also of those that did not answer.
                let count = peers.len() + 1;
                let quorum = count / 2 + 1;
                let majority = members.iter().find(|(_, ids)| ids.len() >= quorum).map(|(hash, _)| *hash);
                if let Some(hash) = majority {
                    members.remove(&hash);
                }
                Outcome::Different { has_quorum: majority.is_some(), others: members }
            }
        };
        Verdict { compared, skipped, outcome }
    }
}

#[cfg(test)]
mod tests;
