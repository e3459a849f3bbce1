//! What clients do meanwhile: puts, transactions, deletes, leases, watches and compactions at every member; and what all
//! of it must have come to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use blackbox::{Cluster, patience, run};
use bytes::Bytes;
use client::{Client, Deadline};
use tokio::task::JoinSet;
use wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use wire::etcdserverpb::request_op::Request;
use wire::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest,
};
use wire::mvccpb::{Event, KeyValue};

use crate::{client_of_all, everything, get, others, put, say};

/// Writers at each member.
const WRITERS: usize = 2;
/// Between two writes of one.
const PACE: Duration = Duration::from_millis(10);
/// Longer than an election, shorter than the server waits.
const BRIEF: Duration = Duration::from_secs(3);
const COMPACTION_EVERY: Duration = Duration::from_secs(2);
/// Revisions behind the slowest watcher that compactions leave.
const KEPT_REVISIONS: i64 = 300;
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// The lease that is kept alive. Longer than two elections and a member's restart.
const KEPT_TTL_S: i64 = 15;
/// Those that are not.
const BRIEF_TTL_S: i64 = 2;
const LAST_KEY: &str = "last";
const KEPT_KEY: &str = "kept";

/// A write that was acknowledged.
#[derive(Debug)]
struct Done {
    key: Bytes,
    revision: i64,
    is_delete: bool,
}

/// What ran, for what is said.
#[derive(Debug, Default)]
struct Counts {
    writes: usize,
    refused: usize,
    expired: usize,
    compactions: usize,
}

pub struct Load {
    stop: Arc<AtomicBool>,
    working: JoinHandle<(Vec<Done>, Counts)>,
    watching: Vec<JoinHandle<Vec<Event>>>,
}

impl Load {
    /// `keeps_leases`: whether a lease that is kept alive has to stay. (Go's etcd ends one where a stopped leader wakes.)
    pub fn start(cluster: &Cluster, keeps_leases: bool) -> Load {
        let stop = Arc::<AtomicBool>::default();
        let count = cluster.members.len();
        let seen: Arc<[AtomicI64]> = (0..count).map(|_| AtomicI64::new(0)).collect();
        let watching = (0..count).map(|place| {
            let (client, seen) = (client_of_all(cluster, place), seen.clone());
            std::thread::spawn(move || run(watch(client, &seen[place])))
        });
        let watching = watching.collect();
        let clients: Vec<Client> = cluster.members.iter().map(|member| member.client()).collect();
        let any: Vec<Client> = (0..3).map(|place| client_of_all(cluster, place)).collect();
        let stopped = stop.clone();
        let working = std::thread::spawn(move || run(work(clients, any, keeps_leases, seen, stopped)));
        Load { stop, working, watching }
    }

    /// Lets it go on for a while.
    pub async fn go_on(&self, time: Duration) {
        assert!(!self.working.is_finished(), "the load goes on");
        tokio::time::sleep(time).await;
        assert!(!self.working.is_finished(), "the load goes on");
    }

    /// Checks while it goes on that the members that run have the same data.
    pub async fn check_hashes(&self, cluster: &Cluster) {
        let places = cluster.running();
        let deadline = patience();
        loop {
            let mut hashes = Vec::new();
            let mut revision = 0;
            for place in &places {
                let client = cluster.members[*place].client();
                let Ok(read) = client.range(get("k"), patience()).await else { continue };
                if revision == 0 {
                    revision = read.header.expect("a header").revision;
                }
                let hash = client.hash_kv(revision, patience()).await.expect("a hash");
                hashes.push((hash.compact_revision, hash.hash_revision, hash.hash));
            }
            // A compaction may come between two of them.
            if hashes.len() == places.len() && hashes.iter().all(|hash| hash.0 == hashes[0].0) {
                assert!(hashes.iter().all(|hash| *hash == hashes[0]), "different data: {hashes:?}");
                return;
            }
            assert!(
                deadline.remaining().is_some_and(|left| !left.is_zero()),
                "no common revision: {hashes:?}"
            );
        }
    }

    /// Ends it, all members being well, and checks all that was promised.
    pub async fn check(self, cluster: &Cluster) {
        self.stop.store(true, Ordering::Relaxed);
        let (done, counts) = self.working.join().expect("the load ends");
        let last = cluster.put(0, LAST_KEY, "v").await;
        cluster.check_hashes_among(&others(cluster, &[])).await;
        let histories: Vec<Vec<Event>> =
            self.watching.into_iter().map(|watching| watching.join().expect("the watcher ends")).collect();
        let history = &histories[0];
        for other in &histories[1..] {
            let difference = history.iter().zip(other).find(|(one, other)| one != other);
            assert_eq!(difference, None, "watchers have seen different events");
            assert_eq!(history.len(), other.len(), "watchers have seen different events");
        }
        check_history(history, last);
        check_acknowledged(history, &done);
        let expected: Vec<KeyValue> = fold(history).into_values().collect();
        for member in &cluster.members {
            // Leases of puts that were not answered may end just now.
            let range = RangeRequest { revision: last, ..everything() };
            let found = member.client().range(range, patience()).await.expect("a read");
            let difference = found.kvs.iter().zip(&expected).find(|(found, expected)| found != expected);
            assert_eq!(difference, None, "{} has other pairs than the events made", member.name());
            assert_eq!(
                found.kvs.len(),
                expected.len(),
                "{} has other pairs than the events made",
                member.name()
            );
        }
        assert!(counts.writes > 0 && counts.expired > 0 && counts.compactions > 0, "{counts:?}");
        say(format!(
            "{} writes acknowledged and there ({} not answered), {} leases ended and none early, {} compactions; {} \
             watchers have seen each of {} events once and in order; HashKV is equal at revision {last}",
            counts.writes,
            counts.refused,
            counts.expired,
            counts.compactions,
            histories.len(),
            history.len(),
        ));
    }
}

fn key_of(event: &Event) -> &KeyValue {
    event.kv.as_ref().expect("a pair")
}

fn is_delete(event: &Event) -> bool {
    event.r#type == wire::mvccpb::event::EventType::Delete as i32
}

/// Each revision is there, in order.
fn check_history(history: &[Event], last: i64) {
    let mut next = 2;
    for event in history {
        let revision = key_of(event).mod_revision;
        assert!(revision == next || revision + 1 == next, "revision {revision} comes where {next} is due");
        next = revision + 1;
    }
    assert_eq!(next, last + 1, "up to the last");
}

/// Each write that was acknowledged happened at its revision, and each write once at most.
fn check_acknowledged(history: &[Event], done: &[Done]) {
    let mut puts = BTreeMap::new();
    let mut all = BTreeMap::new();
    for event in history {
        let kv = key_of(event);
        if !is_delete(event) && kv.key.starts_with(b"w/") {
            assert_eq!(puts.insert(&kv.key, kv.mod_revision), None, "{:?} was put once", kv.key);
        }
        all.insert((&kv.key, kv.mod_revision), is_delete(event));
    }
    for Done { key, revision, is_delete } in done {
        assert_eq!(all.get(&(key, *revision)), Some(is_delete), "{key:?} was acknowledged at {revision}");
    }
}

/// The pairs that these events make.
fn fold(history: &[Event]) -> BTreeMap<Bytes, KeyValue> {
    let mut pairs = BTreeMap::new();
    for event in history {
        let kv = key_of(event);
        if is_delete(event) {
            pairs.remove(&kv.key);
        } else {
            pairs.insert(kv.key.clone(), kv.clone());
        }
    }
    pairs
}

async fn work(
    clients: Vec<Client>,
    any: Vec<Client>,
    keeps_leases: bool,
    seen: Arc<[AtomicI64]>,
    stop: Arc<AtomicBool>,
) -> (Vec<Done>, Counts) {
    let mut writers = JoinSet::new();
    for (place, client) in clients.into_iter().enumerate() {
        for writer in 0..WRITERS {
            let (client, stop) = (client.clone(), stop.clone());
            writers.spawn_local(write(client, format!("{place}.{writer}"), stop));
        }
    }
    let [leases, keeper, compacting] = any.try_into().unwrap_or_else(|_| panic!("three clients"));
    let expiring = tokio::task::spawn_local(expire(leases, stop.clone()));
    let keeping = tokio::task::spawn_local(keep(keeper, keeps_leases, stop.clone()));
    let compactions = compact(compacting, seen, stop).await;
    let mut counts = Counts { compactions, expired: expiring.await.expect("it ends"), ..Counts::default() };
    keeping.await.expect("it ends");
    let mut all = Vec::new();
    while let Some(ended) = writers.join_next().await {
        let (done, refused) = ended.expect("it ends");
        counts.refused += refused;
        all.extend(done);
    }
    counts.writes = all.len();
    (all, counts)
}

/// Writes key after key, each once; what gets no answer may have happened, and is not tried again.
async fn write(client: Client, name: String, stop: Arc<AtomicBool>) -> (Vec<Done>, usize) {
    let (mut done, mut refused, mut n) = (Vec::new(), 0, 0_u64);
    let mut pace = tokio::time::interval(PACE);
    let mut last: Option<Bytes> = None;
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        n += 1;
        let key = Bytes::from(format!("w/{name}/{n}"));
        let deadline = Deadline::after(BRIEF);
        let (key, is_delete, revision) = match (n % 5, last.take()) {
            (0, Some(before)) => {
                let delete = DeleteRangeRequest { key: before.clone(), ..DeleteRangeRequest::default() };
                let answer = client.delete_range(delete, deadline).await;
                (before, true, answer.map(|answer| (answer.header, answer.deleted == 1)))
            }
            (1 | 3, _) => {
                let answer = client.txn(put_once(&key, &name, n), deadline).await;
                (key, false, answer.map(|answer| (answer.header, answer.succeeded)))
            }
            _ => {
                let put = PutRequest { key: key.clone(), value: n.to_string().into(), ..Default::default() };
                let answer = client.put(put, deadline).await;
                (key, false, answer.map(|answer| (answer.header, true)))
            }
        };
        match revision {
            Ok((header, is_done)) => {
                assert!(is_done, "{key:?}: it was {}", if is_delete { "there" } else { "not there" });
                let revision = header.expect("a header").revision;
                last = (!is_delete).then(|| key.clone());
                done.push(Done { key, revision, is_delete });
            }
            // Whoever is down refuses at once.
            Err(_) => {
                refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    (done, refused)
}

/// Puts a key that must not be there, and counts in another.
fn put_once(key: &Bytes, name: &str, n: u64) -> TxnRequest {
    let compare = Compare {
        key: key.clone(),
        target: CompareTarget::Version.into(),
        result: CompareResult::Equal.into(),
        target_union: Some(TargetUnion::Version(0)),
        ..Compare::default()
    };
    let op = |put| RequestOp { request: Some(Request::RequestPut(put)) };
    let counter = put(&format!("counter/{name}"), &n.to_string());
    let put = PutRequest { key: key.clone(), value: n.to_string().into(), ..Default::default() };
    let range = RequestOp { request: Some(Request::RequestRange(get("kept"))) };
    TxnRequest { compare: vec![compare], success: vec![op(put), op(counter)], failure: vec![range] }
}

/// Leases that nobody renews: none ends early, and each ends.
async fn expire(client: Client, stop: Arc<AtomicBool>) -> usize {
    let mut ended = 0;
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let grant = LeaseGrantRequest { ttl: BRIEF_TTL_S, id: 0 };
        let Ok(lease) = client.grant(grant, Deadline::after(BRIEF)).await else { continue };
        let ttl = Duration::from_secs(u64::try_from(lease.ttl).expect("a time"));
        let key = format!("brief/{ended}/{:x}", lease.id);
        let put = PutRequest { lease: lease.id, ..put(&key, "v") };
        if client.put(put, Deadline::after(BRIEF)).await.is_err() {
            continue;
        }
        let deadline = patience();
        loop {
            let found = client.range(get(&key), Deadline::after(BRIEF)).await;
            if found.as_ref().is_ok_and(|found| found.kvs.is_empty()) {
                break;
            }
            let in_time = deadline.remaining().is_some_and(|left| !left.is_zero());
            assert!(in_time, "{key} never ends: {found:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let lived = asked.elapsed();
        assert!(lived >= ttl, "{key} ended after {lived:?} of {ttl:?}");
        ended += 1;
    }
    ended
}

/// A lease that is renewed all the time lives.
async fn keep(client: Client, must_stay: bool, stop: Arc<AtomicBool>) {
    // The disturbance may have begun already.
    let lease = loop {
        let grant = LeaseGrantRequest { ttl: KEPT_TTL_S, id: 0 };
        let Ok(granted) = client.grant(grant, Deadline::after(BRIEF)).await else { continue };
        let leased = PutRequest { lease: granted.id, ..put(KEPT_KEY, "v") };
        if client.put(leased, Deadline::after(BRIEF)).await.is_ok() {
            break granted.id;
        }
    };
    let mut kept = client.keep_alive(lease);
    while !stop.load(Ordering::Relaxed) {
        let renewed = kept.next().await;
        if !must_stay && renewed.is_none() {
            // It has ended.
            return;
        }
        let Some(renewed) = renewed else {
            let left = client.time_to_live(lease, true, patience()).await;
            panic!("a lease that is kept alive is not renewed: {left:?}");
        };
        assert_eq!(renewed.ttl, KEPT_TTL_S);
    }
    let found = client.range(get(KEPT_KEY), patience()).await.expect("a read");
    assert!(!must_stay || found.count == 1, "the key of a lease that is kept alive");
}

/// Compacts what all watchers have seen.
async fn compact(client: Client, seen: Arc<[AtomicI64]>, stop: Arc<AtomicBool>) -> usize {
    let (mut compacted, mut count) = (0, 0);
    let mut pace = tokio::time::interval(COMPACTION_EVERY);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let slowest = seen.iter().map(|seen| seen.load(Ordering::Relaxed)).min().unwrap_or_default();
        let revision = slowest - KEPT_REVISIONS;
        if revision > compacted {
            let request = CompactionRequest { revision, physical: count % 2 == 1 };
            if client.compact(request, Deadline::after(BRIEF)).await.is_ok() {
                count += 1;
            }
            compacted = revision;
        }
    }
    count
}

/// Every event from the beginning on, up to the last key.
async fn watch(client: Client, seen: &AtomicI64) -> Vec<Event> {
    let mut watcher = client.watcher(false);
    watcher.watch(blackbox::everything_since(1)).expect("a watch");
    let mut events: Vec<Event> = Vec::new();
    // No event comes any more up to here.
    let mut complete = 0;
    let mut asking = tokio::time::interval(PROGRESS_EVERY);
    loop {
        let watched = tokio::select! {
            watched = watcher.next() => watched.expect("the watch goes on"),
            _ = asking.tick() => {
                watcher.request_progress();
                continue;
            }
        };
        assert!(watched.end.is_none(), "the watch ended: {:?}", watched.end);
        let response = watched.response;
        if response.events.is_empty() && !response.created {
            complete = complete.max(response.header.expect("a header").revision);
        }
        for event in response.events {
            let (revision, is_last) = (key_of(&event).mod_revision, key_of(&event).key == LAST_KEY);
            assert!(revision > complete, "an event of {revision} after progress at {complete}");
            seen.store(revision, Ordering::Relaxed);
            events.push(event);
            if is_last {
                return events;
            }
        }
    }
}
