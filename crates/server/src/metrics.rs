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
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
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
    /// Held by whoever makes a page: one at a time, for each takes a thread.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Versions that the cluster has had, as far as somebody looked.
    cluster_versions: Mutex<BTreeSet<String>>,
    merges: Mutex<Merges>,
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

    /// A member is opened, and its merges count by `counters`: those of the one before it are at their end.
    pub fn opened(&self, counters: Arc<MergeCounters>) {
        let mut merges = lock(&self.merges);
        merges.before = merges.numbers();
        merges.now = counters;
    }

    fn lanes(&self) -> Vec<Arc<LaneCounts>> {
        lock(&self.lanes).values().cloned().collect()
    }

    fn all_versions(&self) -> Vec<(HeaderValue, ClientVersion)> {
        lock(&self.versions).headers()
    }

    fn version_number(&self, text: &str) -> ClientVersion {
        lock(&self.versions).number(text)
    }

    /// As [`Metrics::page`], on a thread that may wait, and behind the pages that others have asked for. Who goes away before
    /// its turn asks for none. `None` if the process ends.
    pub async fn page_in_turn(member: Arc<MemberView>, format: Format) -> Option<Encoded> {
        let turn = Arc::clone(&member.metrics.turn).lock_owned().await;
        let make = move || {
            // Until it is made, whether or not anybody still waits for it.
            let _turn = turn;
            member.metrics.page(&member, format)
        };
        tokio::task::spawn_blocking(make).await.ok()
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

/// What merges have done. Each member counts for itself, from nothing on.
#[derive(Debug, Default)]
struct Merges {
    /// For members that are gone.
    before: [u64; 4],
    /// For the present one, or the last.
    now: Arc<MergeCounters>,
}

impl Merges {
    /// Merges, bytes read and written by them, and merges that were given up, for all members together.
    fn numbers(&self) -> [u64; 4] {
        let MergeCounters { merges, source_bytes, merged_bytes, given_up } = &*self.now;
        let now = [merges, source_bytes, merged_bytes, given_up];
        std::array::from_fn(|place| self.before[place] + now[place].load(Ordering::Relaxed))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic anywhere ends the process; a half-made change cannot be seen.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_only_grow_where_a_member_is_opened_anew() {
        let metrics = Metrics::default();
        let merged = || lock(&metrics.merges).numbers();
        let first = Arc::new(MergeCounters::default());
        metrics.opened(first.clone());
        first.merges.fetch_add(2, Ordering::Relaxed);
        first.given_up.fetch_add(1, Ordering::Relaxed);
        assert_eq!(merged(), [2, 0, 0, 1]);
        let second = Arc::new(MergeCounters::default());
        metrics.opened(second.clone());
        assert_eq!(merged(), [2, 0, 0, 1]);
        second.merges.fetch_add(1, Ordering::Relaxed);
        assert_eq!(merged(), [3, 0, 0, 1]);
    }
}
