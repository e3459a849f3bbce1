//! Clusters of our members as processes over loopback.

use std::time::Duration;

use blackbox::{Cluster, patience, run};
use client::Deadline;
use wire::etcdserverpb::{PutRequest, RangeRequest};

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
