//! The same watches at several members, and what they have seen.

use std::time::Duration;

use blackbox::{PATIENCE, Random};
use client::{Client, Watcher};
use wire::etcdserverpb::WatchCreateRequest;

/// Between two questions how far a watch is.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Random watches, each at every one of some members.
pub struct Histories(Vec<(WatchCreateRequest, Vec<History>)>);

/// What one watch at one member has seen.
struct History {
    watcher: Watcher,
    events: Vec<String>,
    /// Why it is over, if it is.
    end: Option<String>,
}

impl Histories {
    /// So many, from revisions up to the newest one on; all members have that one, and no other one comes meanwhile. They
    /// have caught up then.
    pub async fn start(clients: &[Client], count: usize, random: &mut Random, revision: i64) -> Self {
        let mut histories = Histories(Vec::new());
        for _ in 0..count {
            let request = random_watch(random, revision);
            let start = |client: &Client| {
                let mut watcher = client.watcher(false);
                watcher.watch(request.clone()).expect("a small request");
                History { watcher, events: Vec::new(), end: None }
            };
            histories.0.push((request.clone(), clients.iter().map(start).collect()));
        }
        histories.catch_up(revision).await;
        histories
    }

    /// Waits until each has seen all up to this revision, or is over: a compaction does not come in between then.
    pub async fn catch_up(&mut self, revision: i64) {
        for (request, members) in &mut self.0 {
            for (place, history) in members.iter_mut().enumerate() {
                let caught_up = tokio::time::timeout(PATIENCE, history.catch_up(revision)).await;
                assert!(caught_up.is_ok(), "at member {place}: not up to {revision}: {request:?}");
            }
        }
    }

    /// Compares what each has seen up to this revision, the newest one; returns how many events that is at one member.
    pub async fn compare(mut self, sequence: u64, revision: i64) -> usize {
        self.catch_up(revision).await;
        let mut count = 0;
        for (request, members) in &self.0 {
            let first = &members[0];
            for (place, other) in members.iter().enumerate().skip(1) {
                let at = format!("sequence {sequence}, member {place}: {request:?}");
                let difference = first.events.iter().zip(&other.events).find(|(one, other)| one != other);
                assert_eq!(difference, None, "different events: {at}");
                assert_eq!(first.events.len(), other.events.len(), "more events: {at}");
                assert_eq!(first.end, other.end, "another end: {at}");
            }
            count += first.events.len();
        }
        count
    }
}

impl History {
    async fn catch_up(&mut self, revision: i64) {
        let mut asking = tokio::time::interval(ASK_EVERY);
        while self.end.is_none() {
            let watched = tokio::select! {
                watched = self.watcher.next() => watched.expect("a watch"),
                _ = asking.tick() => {
                    self.watcher.request_progress();
                    continue;
                }
            };
            let response = watched.response;
            self.events.extend(response.events.iter().map(|event| format!("{event:?}")));
            self.end =
                watched.end.map(|error| format!("{error}, compacted at {}", response.compact_revision));
            let is_progress = response.events.is_empty() && !response.created;
            if is_progress && response.header.is_some_and(|header| header.revision >= revision) {
                return;
            }
        }
    }
}

fn random_watch(random: &mut Random, revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: random.key(),
        range_end: if random.one_in(2) { b"\0".as_slice().into() } else { random.range_end() },
        start_revision: if random.one_in(2) { random.below(revision as u64 + 1) as i64 } else { 0 },
        filters: if random.one_in(4) { vec![random.below(2) as i32] } else { Vec::new() },
        prev_kv: random.one_in(2),
        ..Default::default()
    }
}
