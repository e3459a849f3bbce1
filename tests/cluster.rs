//! Clusters of our members as processes over loopback.

use std::time::Duration;

use blackbox::{Cluster, patience, run};
use client::{Client, Deadline};
use tokio::task::JoinSet;
use wire::etcdserverpb::watch_request::RequestUnion;
use wire::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};

/// Entries that a leader keeps for followers.
const KEPT_ENTRIES: usize = 5_000;
const PUTS_AT_ONCE: usize = 256;
/// Values of 64 KiB: more than the 64 MiB that a leader keeps for followers, and the 32 MiB that are under way to one.
const LARGE_PUTS: usize = 2_000;

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

#[test]
fn a_dead_leader_is_replaced_and_comes_back_with_the_same_data() {
    let mut cluster = Cluster::start(3, &[]);
    run(async {
        for writer in 0..3 {
            let key = format!("k{writer}");
            let client = cluster.members[writer].client();
            client.put(put(&key, "v"), patience()).await.expect("a put on any member");
            for reader in 0..3 {
                let client = cluster.members[reader].client();
                let found = client.range(get(&key), patience()).await.expect("a read on any member");
                assert_eq!(found.kvs[0].value, "v", "what was acknowledged by {writer} is seen at {reader}");
            }
        }
        cluster.check_hashes().await;

        for round in 0..2 {
            let leader = cluster.leader().await;
            cluster.members[leader].kill();
            let others = cluster.running();
            for place in &others {
                cluster.put(*place, &format!("round {round}"), &format!("{place}")).await;
            }
            assert_ne!(cluster.leader().await, leader);
            cluster.restart(&[leader]);
            let client = cluster.members[leader].client();
            let found = client.range(get(&format!("round {round}")), patience()).await.expect("a read");
            assert_eq!(found.kvs[0].value, format!("{}", others[1]));
            cluster.check_hashes().await;
        }
    });
}

/// Puts so many keys, many at a time.
async fn put_many(client: &Client, prefix: &str, count: usize, value: &str) {
    let mut under_way = JoinSet::new();
    for n in 0..count {
        if under_way.len() == PUTS_AT_ONCE {
            under_way.join_next().await.expect("some").expect("it ends");
        }
        let (client, put) = (client.clone(), put(&format!("{prefix}{n}"), value));
        under_way.spawn_local(async move {
            client.put(put, patience()).await.expect("a put");
        });
    }
    while let Some(ended) = under_way.join_next().await {
        ended.expect("it ends");
    }
}

#[test]
fn a_follower_behind_the_log_gets_a_snapshot_and_goes_on() {
    let mut cluster = Cluster::start(3, &[]);
    run(async {
        let leader = cluster.leader().await;
        let behind = (leader + 1) % 3;
        cluster.put(behind, "before", "v").await;
        cluster.members[behind].kill();
        put_many(&cluster.members[leader].client(), "k", KEPT_ENTRIES + 500, "v").await;
        cluster.restart(&[behind]);

        let client = cluster.members[behind].client();
        let last = format!("k{}", KEPT_ENTRIES + 499);
        loop {
            // While the member is opened anew its clients lose their connections.
            match client.range(get(&last), patience()).await {
                Ok(found) => break assert_eq!(found.kvs[0].value, "v"),
                Err(error) => assert!(error.code().is_some(), "{error}"),
            }
        }
        assert!(cluster.members[behind].log().contains("opening the member anew"), "by a snapshot");
        cluster.check_hashes().await;
        // What both count goes on where one was opened anew.
        let status = client.status(patience()).await.expect("a status");
        let (id, from) = (status.header.expect("a header").member_id, status.leader);
        let received = cluster.members[behind].http_get("/metrics");
        let sent = cluster.members[leader].http_get("/metrics");
        for (page, sample) in [
            (&received, format!("etcd_network_snapshot_receive_success{{From=\"{from:x}\"}} 1\n")),
            (&received, format!("etcd_network_active_peers{{Local=\"{id:x}\",Remote=\"{from:x}\"}} 1\n")),
            (&received, format!("etcd_network_peer_round_trip_time_seconds_count{{To=\"{from:x}\"}} ")),
            (&sent, format!("etcd_network_snapshot_send_success{{To=\"{id:x}\"}} 1\n")),
            (&sent, format!("etcd_network_snapshot_send_inflights_total{{To=\"{id:x}\"}} 0\n")),
        ] {
            assert!(page.contains(&sample), "{sample} is not in:\n{page}");
        }

        // It acknowledges, restarts on what it has, and may lead.
        let third = 3 - leader - behind;
        cluster.members[third].kill();
        cluster.put(behind, "after", "w").await;
        cluster.restart(&[behind, third]);
        cluster.put(behind, "after", "x").await;
        cluster.check_hashes().await;
    });
}

#[test]
fn watches_stay_while_their_member_goes_over_to_a_snapshot() {
    let (cluster, network) = Cluster::with_network(3, &[]);
    run(async {
        let leader = cluster.leader().await;
        let behind = (leader + 1) % 3;
        let client = cluster.members[behind].client();
        let mut stream = client.watch_stream(false);
        let create =
            WatchCreateRequest { key: "k".into(), range_end: "l".into(), ..WatchCreateRequest::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        stream.send(create).await.expect("a small request");
        let created = stream.next().await.expect("an answer").expect("an answer");
        assert!(created.created);

        network.part(&[behind], &[leader, 3 - leader - behind]);
        // More than what waits in connections and what a leader keeps.
        put_many(&cluster.members[leader].client(), "k", LARGE_PUTS, &"v".repeat(64 << 10)).await;
        network.mend();
        let mut seen = Vec::new();
        while seen.len() < LARGE_PUTS {
            // The same stream all the time: our client does not open it again.
            let told = stream.next().await.expect("the stream goes on").expect("the stream goes on");
            assert!(!told.canceled);
            seen.extend(told.events.into_iter().map(|event| event.kv.expect("a pair").mod_revision));
        }
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "each event once, in order");
        assert!(cluster.members[behind].log().contains("opening the member anew"), "by a snapshot");
        let revision = cluster.put(behind, "k", "live again").await;
        let told = stream.next().await.expect("the stream goes on").expect("the stream goes on");
        assert_eq!(told.events[0].kv.as_ref().map(|kv| kv.mod_revision), Some(revision));
        cluster.check_hashes().await;
    });
}

#[test]
fn a_leader_that_is_asked_to_end_hands_over_first() {
    let mut cluster = Cluster::start(3, &[]);
    run(async {
        let leader = cluster.leader().await;
        cluster.members[leader].terminate();
        let log = cluster.members[leader].log();
        assert!(log.contains("leadership transfer finished"), "{log}");
        let others = cluster.running();
        // Nobody waits for an election: the others have a leader as soon as the process is gone.
        for place in others {
            let client = cluster.members[place].client();
            client.put(put("k", "v"), patience()).await.expect("a put at the first try");
        }
        cluster.check_hashes().await;
    });
}

#[test]
fn one_of_two_refuses_writes_and_answers_serializable_reads() {
    let mut cluster = Cluster::start(2, &[]);
    run(async {
        cluster.put(0, "k", "v").await;
        let client = cluster.members[1].client();
        assert_eq!(client.range(get("k"), patience()).await.expect("a read").kvs[0].value, "v");
        cluster.members[0].kill();

        // Longer than a lease of leadership would be, shorter than the server waits.
        let brief = || Deadline::after(Duration::from_secs(3));
        let refused = client.put(put("k", "w"), brief()).await;
        assert!(refused.is_err(), "a write by one of two: {refused:?}");
        let refused = client.range(get("k"), brief()).await;
        assert!(refused.is_err(), "a linearizable read by one of two: {refused:?}");
        let local = RangeRequest { serializable: true, ..get("k") };
        let found = client.range(local, patience()).await.expect("a serializable read");
        assert_eq!(found.kvs[0].value, "v");

        // What was asked for may happen yet; nothing else does.
        cluster.restart(&[0]);
        let revision = cluster.put(1, "k", "x").await;
        let found = cluster.members[0].client().range(get("k"), patience()).await.expect("a read");
        assert_eq!((found.kvs[0].value.clone(), found.kvs[0].mod_revision), ("x".into(), revision));
        cluster.check_hashes().await;
    });
}

/// How often a member has compacted by itself in this run.
fn compactions(cluster: &Cluster, place: usize) -> usize {
    cluster.members[place].log().matches("starting auto compaction").count()
}

#[test]
fn only_the_leader_compacts_by_itself_through_changes_of_leader() {
    let flags = ["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1s"];
    let cluster = Cluster::start(3, &flags);
    run(async {
        let mut leader = cluster.leader().await;
        for round in 0..3 {
            let before: Vec<usize> = (0..3).map(|place| compactions(&cluster, place)).collect();
            let mut n = 0;
            while compactions(&cluster, leader) < before[leader] + 2 {
                // Only what has changed is compacted.
                cluster.put(n % 3, "k", &format!("{round} {n}")).await;
                n += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            for other in (0..3).filter(|place| *place != leader) {
                assert_eq!(
                    compactions(&cluster, other),
                    before[other],
                    "round {round}: {other} does not lead"
                );
            }
            let next = (leader + 1) % 3;
            let status = cluster.members[next].client().status(patience()).await.expect("a status");
            let id = status.header.expect("a header").member_id;
            cluster.members[leader].client().move_leader(id, patience()).await.expect("it may lead");
            assert_eq!(cluster.leader().await, next);
            leader = next;
        }
        cluster.check_hashes().await;
    });
}

/// The value of a sample on a member's page of metrics.
fn metric(cluster: &Cluster, place: usize, sample: &str) -> u64 {
    let page = cluster.members[place].http_get("/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(sample));
    line.map_or(0, |value| value.trim().parse::<f64>().expect("a number") as u64)
}

#[test]
fn reads_at_a_follower_share_the_requests_that_it_sends_to_the_leader() {
    const READS: u64 = 1_000;
    let cluster = Cluster::start(3, &[]);
    run(async {
        let leader = cluster.leader().await;
        let follower = (leader + 1) % 3;
        let client = cluster.members[follower].client();
        let status = client.status(patience()).await.expect("a status");
        let (own, other) = (status.header.expect("a header").member_id, status.leader);
        let sent = format!("quorate_peer_read_indexes_sent_total{{To=\"{other:x}\"}}");
        let received = format!("quorate_peer_read_indexes_received_total{{From=\"{own:x}\"}}");
        let before = metric(&cluster, follower, &sent);
        let mut reads = JoinSet::new();
        for _ in 0..READS {
            let client = client.clone();
            reads.spawn_local(async move { client.range(get("k"), patience()).await.expect("a read") });
        }
        reads.join_all().await;
        let rounds = metric(&cluster, follower, &sent) - before;
        assert!((1..READS / 4).contains(&rounds), "{rounds} requests for {READS} reads");
        assert_eq!(metric(&cluster, leader, &received), metric(&cluster, follower, &sent));
    });
}
