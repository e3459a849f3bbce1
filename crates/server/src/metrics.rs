//! The page `/metrics`: what is counted, and how it is shown.
//!
//! What a network thread counts is in `lane.rs`: each has numbers of its own, so that counting a call costs a few plain
//! additions. What the member's threads count is in `member.rs`. Both live as long as the process, and go on where a member
//! is opened anew; the rest is asked of the member when the page is made. `families.rs` is the list of all families.

mod calls;
mod cells;
mod families;
mod format;
mod lane;
mod member;
mod messages;
mod page;
mod peers;
mod process;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use node::MergeCounters;

use crate::config::gates::{self, GATES, Stage};
use crate::grpc::MemberView;
use crate::grpc::hashes::CheckCounters;

pub use cells::{Counter, Durations, Histogram, MS, SECONDS, US, nanoseconds};
pub use families::{FAMILIES, Family, Kind};
pub use format::{Encoded, Format};
pub use lane::{ClientVersion, LaneCounts, MethodCounts, Own, Timed, WatchCounts};
pub use member::MemberCounts;

use lane::Versions;
use page::Page;

/// Versions of the cluster that are remembered.
const CLUSTER_VERSIONS_MAX: usize = 16;

/// Everything that is counted as long as the process runs.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Whether it is measured how long calls take (`--metrics`).
    is_extensive: bool,
    /// The feature gates: name, stage, and whether each is on.
    gates: Vec<(&'static str, &'static str, bool)>,
    /// Of each lane, by its number.
    lanes: Mutex<BTreeMap<usize, Arc<LaneCounts>>>,
    versions: Mutex<Versions>,
    /// Versions that the cluster has had, as far as somebody looked.
    cluster_versions: Mutex<BTreeSet<String>>,
    /// What merges had done for members that are gone: each counts for itself.
    merges_before: MergeCounters,
    /// What checks for corruption came to.
    pub checks: Arc<CheckCounters>,
    /// What the member's threads count.
    pub member: MemberCounts,
}

impl Metrics {
    /// Nothing is counted yet. `gates`: what `--feature-gates` says.
    pub fn new(is_extensive: bool, given: &[String]) -> Metrics {
        let stage = |stage, name| match (stage, name) {
            (Stage::Alpha, _) | (Stage::All, "AllAlpha") => "ALPHA",
            (Stage::Beta | Stage::All, _) => "BETA",
        };
        let gates = GATES
            .iter()
            .map(|gate| (gate.name, stage(gate.stage, gate.name), gates::is_on(given, gate.name)));
        Metrics { is_extensive, gates: gates.collect(), ..Metrics::default() }
    }

    /// The numbers of a lane, for its thread. Those of one that took its place go on.
    pub fn lane(self: &Arc<Self>, number: usize) -> Own {
        let new = || Arc::new(LaneCounts::new(self.is_extensive));
        let counts = lock(&self.lanes).entry(number).or_insert_with(new).clone();
        Own::new(counts, self.clone())
    }

    /// A member is gone, and may be opened anew.
    pub fn retire(&self, merges: &MergeCounters) {
        for (kept, counter) in numbers(&self.merges_before).into_iter().zip(numbers(merges)) {
            kept.fetch_add(counter.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn lanes(&self) -> Vec<Arc<LaneCounts>> {
        lock(&self.lanes).values().cloned().collect()
    }

    fn version_number(&self, text: &str) -> ClientVersion {
        lock(&self.versions).number(text)
    }

    /// The page of a member, in one of the formats. Takes some time: for a thread that may.
    pub fn page(&self, member: &MemberView, format: Format) -> Encoded {
        self.member.scrapes_in_flight.add(1);
        let mut page = Page::default();
        state::add(&mut page, self, member);
        calls::add(&mut page, self);
        peers::add(&mut page, member);
        process::add(&mut page);
        let encoded = format.encode(page);
        self.member.scrapes_in_flight.sub(1);
        self.member.scrapes.add(1);
        encoded
    }

    /// Versions of the cluster, and whether each is the present one.
    fn cluster_versions(&self, now: Option<&str>) -> Vec<(String, bool)> {
        let mut known = lock(&self.cluster_versions);
        if let Some(now) = now
            && known.len() < CLUSTER_VERSIONS_MAX
        {
            known.insert(now.to_owned());
        }
        known.iter().map(|version| (version.clone(), Some(&**version) == now)).collect()
    }
}

/// All that merges count.
fn numbers(merges: &MergeCounters) -> [&AtomicU64; 4] {
    let MergeCounters { merges, source_bytes, merged_bytes, given_up } = merges;
    [merges, source_bytes, merged_bytes, given_up]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic anywhere ends the process; a half-made change cannot be seen.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
