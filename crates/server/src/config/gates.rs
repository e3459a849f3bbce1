//! etcd's feature gates: switches that stand in one flag.

/// One feature gate.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// Whether it is on by default.
    pub default: bool,
    /// Which of the gates for all switches it too, if it is not named itself.
    pub stage: Stage,
    /// Whether it may be given another value than its default: either it works, or it changes nothing that can be seen.
    pub works: bool,
}

/// How settled a feature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Switched by `AllAlpha`.
    Alpha,
    /// Switched by `AllBeta`.
    Beta,
    /// Switches all of a stage.
    All,
}

const fn gate(name: &'static str, default: bool, stage: Stage, works: bool) -> Gate {
    Gate { name, default, stage, works }
}

use Stage::{All, Alpha, Beta};

/// The feature gates of etcd 3.7.1, with its defaults but for one.
pub const GATES: &[Gate] = &[
    gate("AllAlpha", false, All, true),
    gate("AllBeta", false, All, true),
    // Off in etcd: here a check costs what a compaction reads anyway.
    gate("CompactHashCheck", true, Alpha, true),
    // How a leader finds out that a lease is not there: nothing that a client sees.
    gate("FastLeaseKeepAlive", true, Beta, true),
    gate("InitialCorruptCheck", false, Alpha, true),
    gate("LeaseCheckpoint", false, Alpha, true),
    // Without effect since 3.6: what is noted is always stored.
    gate("LeaseCheckpointPersist", false, Alpha, true),
    gate("PriorityRequest", false, Alpha, false),
    gate("SetMemberLocalAddr", false, Alpha, false),
    gate("StopGRPCServiceOnDefrag", false, Alpha, false),
    // Of etcd's storage, which is not ours.
    gate("TxnModeWriteWithSharedBuffer", true, Beta, true),
];

/// What each gate switches.
pub const MEANINGS: &[(&str, &str)] = &[
    ("AllAlpha", "all gates of stage alpha that are not named themselves"),
    ("AllBeta", "all gates of stage beta that are not named themselves"),
    ("CompactHashCheck", "the leader compares the hashes that members make at compactions"),
    ("FastLeaseKeepAlive", "a renewal does not wait for what is applied; here it never does"),
    ("InitialCorruptCheck", "a member compares its hash with others before it serves"),
    ("LeaseCheckpoint", "the leader notes in the log what is left of long leases"),
    ("LeaseCheckpointPersist", "no effect since 3.6: what is noted is always stored; needs LeaseCheckpoint"),
    ("PriorityRequest", "LeaseRevoke is taken with twice as many entries waiting to be applied"),
    ("SetMemberLocalAddr", "peers are dialled from the first address of --initial-advertise-peer-urls"),
    ("StopGRPCServiceOnDefrag", "gRPC's health is NOT_SERVING during a defragmentation"),
    ("TxnModeWriteWithSharedBuffer", "of etcd's storage; no effect here"),
];

/// Whether the gate is on, where `given` is what the flag says, as `name=true` or `name=false`; the last one counts.
///
/// # Panics
/// If there is no such gate.
pub fn is_on(given: &[String], name: &str) -> bool {
    let said = |name: &str| {
        let value = |gate: &str| gate.strip_prefix(name)?.strip_prefix('=').map(|value| value == "true");
        given.iter().rev().find_map(|gate| value(gate))
    };
    let gate = GATES.iter().find(|gate| gate.name == name).unwrap_or_else(|| panic!("no gate {name}"));
    let of_all = match gate.stage {
        All => None,
        Alpha => said("AllAlpha"),
        Beta => said("AllBeta"),
    };
    said(name).or(of_all).unwrap_or(gate.default)
}

/// The gates that do not work yet and are not at their defaults.
pub fn unsupported(given: &[String]) -> Vec<&'static str> {
    let refused = GATES.iter().filter(|gate| !gate.works && is_on(given, gate.name) != gate.default);
    refused.map(|gate| gate.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_is_named_counts_and_then_that_for_all() {
        let on = |given: &str, name| {
            let given: Vec<String> = given.split(',').map(str::to_owned).collect();
            is_on(&given, name)
        };
        assert!(!on("", "LeaseCheckpoint"));
        assert!(on("", "FastLeaseKeepAlive"));
        assert!(on("", "CompactHashCheck"));
        assert!(!on("AllAlpha=false", "CompactHashCheck"));
        assert!(on("LeaseCheckpoint=true", "LeaseCheckpoint"));
        assert!(!on("LeaseCheckpointPersist=true", "LeaseCheckpoint"));
        assert!(!on("LeaseCheckpoint=true,LeaseCheckpoint=false", "LeaseCheckpoint"));
        assert!(on("AllAlpha=true", "LeaseCheckpoint"));
        assert!(!on("LeaseCheckpoint=false,AllAlpha=true", "LeaseCheckpoint"));
        assert!(!on("AllBeta=false", "FastLeaseKeepAlive"));
        assert!(!on("AllBeta=true", "LeaseCheckpoint"));
    }

    #[test]
    fn every_gate_has_a_meaning() {
        let names: Vec<&str> = GATES.iter().map(|gate| gate.name).collect();
        assert_eq!(MEANINGS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
    }

    #[test]
    fn what_does_not_work_yet_is_refused_by_name() {
        let refused = |given: &str| unsupported(&[given.to_owned()]);
        assert!(refused("LeaseCheckpoint=true").is_empty());
        assert!(refused("AllBeta=true").is_empty());
        assert!(refused("InitialCorruptCheck=true,CompactHashCheck=false").is_empty());
        assert!(refused("PriorityRequest=false").is_empty());
        assert_eq!(refused("PriorityRequest=true"), ["PriorityRequest"]);
        assert!(refused("AllAlpha=true").contains(&"PriorityRequest"));
    }
}
