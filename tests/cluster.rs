//! Clusters of our members as processes over loopback.

use std::time::{Duration, Instant};

use blackbox::{Cluster, Member, patience, run};
use client::{Client, Deadline, Error};
use nix::sys::signal::{Signal, kill};
use tokio::task::JoinSet;
use wire::ApiError;
use wire::etcdserverpb::watch_request::RequestUnion;
use wire::etcdserverpb::{
    MemberAddRequest, MemberUpdateRequest, PutRequest, RangeRequest, WatchCreateRequest, WatchRequest,
};

/// Entries that a leader is to keep for followers.
const KEPT_ENTRIES: usize = 100;
const PUTS_AT_ONCE: usize = 256;
/// Values of 64 KiB: more than the 64 MiB that a leader keeps for followers, and the 32 MiB that are under way to one.
const LARGE_PUTS: usize = 2_000;
/// Bytes of messages that wait for one member (docs/operating/limits.md).
const QUEUED_BYTES_MAX: u64 = 40 << 20;

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

/// A member reads a key that is there, as soon as it has it.
async fn wait_for(client: &Client, key: &str) {
    loop {
        // While the member is opened anew its clients lose their connections.
        match client.range(get(key), patience()).await {
            Ok(found) => return assert_eq!(found.count, 1, "{key}"),
            Err(error) => assert!(error.code().is_some(), "{error}"),
        }
    }
}

/// As in etcd, which puts only those of MemberAdd in order, and into its own words.
#[test]
fn peer_urls_of_an_update_stay_as_they_are_given() {
    let member = Member::start(&[]);
    run(async {
        let client = member.client();
        let id = client.members(patience()).await.expect("the members").members[0].id;
        let given = ["http://localhost:2380".to_owned(), "HTTP://127.0.0.1:2380".to_owned()];
        let request = MemberUpdateRequest { id, peer_ur_ls: given.to_vec() };
        client.member_update(request, patience()).await.expect("a change");
        let told = client.members(patience()).await.expect("the members");
        assert_eq!(told.members[0].peer_ur_ls, given);
    });
}

/// It comes back at another address, where the snapshot has to find it.
#[test]
fn a_follower_behind_the_log_gets_a_snapshot_and_goes_on() {
    let kept = KEPT_ENTRIES.to_string();
    let mut cluster = Cluster::start(3, &["--snapshot-catchup-entries", &kept]);
    run(async {
        let leader = cluster.leader().await;
        let behind = (leader + 1) % 3;
        let id = cluster.id(behind).await;
        let leading = cluster.members[leader].client();
        // What is kept is enough.
        cluster.put(behind, "before", "v").await;
        cluster.members[behind].kill();
        put_many(&leading, "few", KEPT_ENTRIES / 2, "v").await;
        cluster.restart(&[behind]);
        wait_for(&cluster.members[behind].client(), &format!("few{}", KEPT_ENTRIES / 2 - 1)).await;
        assert!(!cluster.members[behind].log().contains("opening the member anew"), "by the log");

        cluster.members[behind].kill();
        put_many(&leading, "k", 2 * KEPT_ENTRIES, "v").await;
        let another = MemberAddRequest { peer_ur_ls: vec!["http://127.0.0.1:1".into()], is_learner: false };
        let added = leading.member_add(another, patience()).await;
        assert_eq!(refusal(added), ApiError::Unhealthy.into(), "one is down");
        let url = cluster.members[behind].move_peer();
        let moved = MemberUpdateRequest { id, peer_ur_ls: vec![url] };
        leading.member_update(moved, patience()).await.expect("a change");
        cluster.restart(&[behind]);
        let client = cluster.members[behind].client();
        wait_for(&client, &format!("k{}", 2 * KEPT_ENTRIES - 1)).await;
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

        let id = cluster.id(behind).await;
        network.part(&[behind], &[leader, 3 - leader - behind]);
        // More than what waits in connections and what a leader keeps.
        put_many(&cluster.members[leader].client(), "k", LARGE_PUTS, &"v".repeat(64 << 10)).await;
        // What a follower does not take costs no more than this, however much is written.
        let queued = metric(&cluster, leader, &format!("quorate_peer_queued_bytes{{To=\"{id:x}\"}}"));
        assert!(queued <= QUEUED_BYTES_MAX, "{queued} bytes wait");
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
    // One for those that came first, one for all that came meanwhile; some for reads that the client sends late.
    const REQUESTS_MAX: u64 = 10;
    // Each network thread asks again for what has no answer.
    const RETRY_MS: u64 = 500;
    let flags = ["--heartbeat-interval", "1000", "--election-timeout", "10000"];
    let (cluster, network) = Cluster::with_network(3, &flags);
    run(async {
        let leader = cluster.leader().await;
        let follower = (leader + 1) % 3;
        let client = cluster.members[follower].client();
        let status = client.status(patience()).await.expect("a status");
        let (own, other) = (status.header.expect("a header").member_id, status.leader);
        let sent = format!("quorate_peer_read_indexes_sent_total{{To=\"{other:x}\"}}");
        let received = format!("quorate_peer_read_indexes_received_total{{From=\"{own:x}\"}}");
        let before = metric(&cluster, follower, &sent);
        let begun = Instant::now();
        // The leader's answer waits until all of them are there.
        network.cut(leader, follower);
        let mut reads = JoinSet::new();
        for _ in 0..READS {
            let client = client.clone();
            reads.spawn_local(async move { client.range(get("k"), patience()).await.expect("a read") });
        }
        while metric(&cluster, follower, &sent) == before {
            tokio::task::yield_now().await;
        }
        // On the same connection, behind all of them.
        let local = RangeRequest { serializable: true, ..get("k") };
        client.range(local, patience()).await.expect("a read");
        network.mend();
        reads.join_all().await;
        let requests = metric(&cluster, follower, &sent) - before;
        let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let retries = threads * (begun.elapsed().as_millis() as u64 / RETRY_MS);
        let most = (REQUESTS_MAX + retries).min(READS / 4);
        assert!((1..=most).contains(&requests), "{requests} requests for {READS} reads");
        assert_eq!(metric(&cluster, leader, &received), metric(&cluster, follower, &sent));
    });
}

/// What a call was refused with.
fn refusal<T: std::fmt::Debug>(ended: Result<T, Error>) -> wire::Status {
    match ended {
        Err(Error::Status(status)) => status,
        other => panic!("{other:?}"),
    }
}

/// Rule 15. Whoever asked a follower is told as soon as the next leader's first entry is applied there, and not when it has
/// waited for as long as for any answer.
#[test]
fn writes_that_a_dead_leader_took_along_are_said_to_be_unknown_when_the_next_one_leads() {
    const WRITES: usize = 20;
    let mut cluster = Cluster::start(3, &[]);
    run(async {
        let leader = cluster.leader().await;
        let client = cluster.members[(leader + 1) % 3].client();
        client.put(put("before", "v"), patience()).await.expect("a put");
        // It takes them, and does nothing about them.
        kill(cluster.members[leader].pid(), Signal::SIGSTOP).expect("it runs");
        let mut asked = JoinSet::new();
        for n in 0..WRITES {
            let client = client.clone();
            asked.spawn_local(async move { client.put(put(&format!("lost{n}"), "v"), patience()).await });
        }
        // The follower has them: an answer on the same connection says so.
        let local = RangeRequest { serializable: true, ..get("before") };
        client.range(local, patience()).await.expect("a read");
        cluster.members[leader].kill();
        // These wait for the next leader. The second is handed to it when the first is applied, so behind what tells of its
        // first entry; the third has its answer behind what the connection had for the others. Before its death is known, the
        // dead one is handed what is asked too.
        let mut applied = 0;
        while applied < 3 {
            match client.put(put("next", "v"), patience()).await {
                Ok(_) => applied += 1,
                ended => {
                    assert_eq!(refusal(ended), ApiError::TimeoutDueToLeaderFail.into());
                    assert_eq!(applied, 0, "the next leader is there");
                }
            }
        }
        let mut told = Vec::new();
        while let Some(ended) = asked.try_join_next() {
            told.push(ended.expect("it ends"));
        }
        assert_eq!(told.len(), WRITES, "some still wait for an answer");
        for ended in told {
            assert_eq!(refusal(ended), ApiError::TimeoutDueToLeaderFail.into());
        }
        let lost = client.range(RangeRequest { range_end: "losu".into(), ..get("lost") }, patience()).await;
        assert_eq!(lost.expect("a read").count, 0, "they died with it");
        cluster.restart(&[leader]);
        cluster.check_hashes().await;
    });
}

/// A leader that hands over takes nothing meanwhile, and what others have handed on is lost, as in etcd: nobody but the
/// operator hears of it.
#[test]
fn a_leader_that_hands_over_says_what_it_did_not_take_and_that_it_took_too_long() {
    let cluster = Cluster::start(3, &[]);
    run(async {
        let leader = cluster.leader().await;
        let (stopped, asked) = ((leader + 1) % 3, (leader + 2) % 3);
        let (stopped_id, asked_id) = (cluster.id(stopped).await, cluster.id(asked).await);
        let refused = format!("quorate_peer_proposals_refused_total{{From=\"{asked_id:x}\"}}");
        assert_eq!(metric(&cluster, leader, &refused), 0);
        let pid = cluster.members[stopped].pid();
        kill(pid, Signal::SIGSTOP).expect("it runs");
        let elsewhere = cluster.members[asked].client().move_leader(asked_id, patience()).await;
        assert_eq!(refusal(elsewhere), ApiError::NotLeader.into());
        let moving = {
            let client = cluster.members[leader].client();
            tokio::task::spawn_local(async move { client.move_leader(stopped_id, patience()).await })
        };
        let client = cluster.members[asked].client();
        let mut puts = JoinSet::new();
        while metric(&cluster, leader, &refused) == 0 {
            assert!(!moving.is_finished(), "nothing was refused");
            let client = client.clone();
            puts.spawn_local(async move { client.put(put("k", "v"), patience()).await });
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let log = cluster.members[leader].log();
        assert!(log.contains("did not take proposals that another member has handed on"), "{log}");
        assert!(
            log.contains(&format!("\"from\":\"{asked_id:x}\"")) && log.contains("LeaderTransfer"),
            "{log}"
        );
        assert_eq!(refusal(moving.await.expect("it ends")), ApiError::TimeoutLeaderTransfer.into());
        kill(pid, Signal::SIGCONT).expect("it runs");
        let ended = puts.join_all().await;
        assert!(ended.iter().any(Result::is_err), "what was not taken is nowhere");
        cluster.put(stopped, "after", "v").await;
        cluster.check_hashes().await;
    });
}
