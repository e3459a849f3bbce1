//! Snapshots between members of both kinds: to followers that lack what is gone, to learners, and after a cut.

use std::path::Path;

use blackbox::{Cluster, Network, Random, patience, run};
use client::Client;
use tokio::task::JoinSet;
use wire::etcdserverpb::{CompactionRequest, MemberAddRequest, PutRequest};

use crate::{all_write, check_logs, client_of_all, go, kind, others, ours, say, until, value};

const FLAGS: [&str; 2] = ["--snapshot-count=100", "--snapshot-catchup-entries=50"];
const PUTS: usize = 600;
const PUTS_AT_ONCE: usize = 32;
const VALUE_BYTES: usize = 40 << 10;
/// Of some 20 MB.
const TORN_AFTER_BYTES: u64 = 5 << 20;
const TORN: usize = 2;

async fn fill(client: &Client, random: &mut Random) {
    let mut under_way = JoinSet::new();
    let mut revision = 0;
    let mut ended = |answer: Result<i64, tokio::task::JoinError>| revision = answer.expect("it ends");
    for n in 0..PUTS {
        if under_way.len() == PUTS_AT_ONCE {
            ended(under_way.join_next().await.expect("some"));
        }
        let key = format!("k{}", n % (PUTS - 100)).into();
        let put = PutRequest { key, value: value(random, VALUE_BYTES).into(), ..Default::default() };
        let client = client.clone();
        under_way.spawn_local(async move {
            let answer = client.put(put, patience()).await.expect("a put");
            answer.header.expect("a header").revision
        });
    }
    while let Some(answer) = under_way.join_next().await {
        ended(answer);
    }
    let compaction = CompactionRequest { revision: revision - 10, physical: true };
    client.compact(compaction, patience()).await.expect("a compaction");
}

/// What each kind says that has taken a snapshot over.
pub fn took_one(program: &Path, log: &str) -> bool {
    log.contains(if *program == ours() { "opening the member anew" } else { "applied snapshot" })
}

/// A leader and a follower of these programs, and one more of the leader's that has all.
fn members(leader: &Path, follower: &Path) -> (Cluster, Network) {
    let programs = [leader, follower, leader].map(Path::to_path_buf);
    let mut cluster = Cluster::of(&programs, &FLAGS);
    let network = cluster.start_with_network();
    (cluster, network)
}

#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn snapshots_to_followers() {
    let mut random = Random::new(1);
    for (leader, follower) in [(go(), ours()), (ours(), go())] {
        for torn in [0, TORN] {
            let (mut cluster, network) = members(&leader, &follower);
            run(async {
                cluster.let_lead(0).await;
                cluster.members[1].kill();
                fill(&cluster.members[0].client(), &mut random).await;
                network.tear_snapshots(torn, TORN_AFTER_BYTES);
                cluster.restart(&[1]);
                let client = cluster.members[1].client();
                let level = || async { client.range(crate::get("k"), patience()).await.is_ok() };
                until("the follower is level", level).await;
                assert_eq!(network.torn_snapshots(), torn, "snapshots that broke off");
                assert!(took_one(&follower, &cluster.members[1].log()), "{}", cluster.members[1].log());
                all_write(&cluster, &[0, 1, 2]).await;
                cluster.check_hashes().await;
                // It goes on alone on what it got.
                cluster.members[1].terminate();
                cluster.restart(&[1]);
                all_write(&cluster, &[1]).await;
                cluster.let_lead(1).await;
                all_write(&cluster, &[0, 1, 2]).await;
                cluster.check_hashes().await;
            });
            check_logs(&cluster, &[]);
            say(format!(
                "a follower ({}) behind what its leader ({}) keeps got a snapshot{}, started again on it, and led",
                kind(&follower),
                kind(&leader),
                if torn > 0 { format!(" after {torn} had been cut") } else { String::new() },
            ));
        }
    }
}

#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn snapshots_to_learners() {
    let mut random = Random::new(2);
    for (leader, learner) in [(go(), ours()), (ours(), go())] {
        let programs = [leader.clone(), leader.clone(), leader.clone()];
        let mut cluster = Cluster::of(&programs, &FLAGS);
        cluster.restart(&[0, 1, 2]);
        run(async {
            let client = client_of_all(&cluster, 0);
            fill(&client, &mut random).await;
            let place = cluster.joining_by(&learner);
            let url = cluster.members[place].peer_endpoint();
            let added = || async {
                let request = MemberAddRequest { peer_ur_ls: vec![url.clone()], is_learner: true };
                client.member_add(request, patience()).await.is_ok()
            };
            until("a learner may be added", added).await;
            cluster.restart(&[place]);
            let id = cluster.id(place).await;
            let promoted = || async { client.member_promote(id, patience()).await.is_ok() };
            until("the learner is ready", promoted).await;
            assert!(took_one(&learner, &cluster.members[place].log()), "{}", cluster.members[place].log());
            let all = others(&cluster, &[]);
            all_write(&cluster, &all).await;
            cluster.check_hashes().await;
            cluster.let_lead(place).await;
            all_write(&cluster, &all).await;
            cluster.check_hashes().await;
        });
        check_logs(&cluster, &[]);
        say(format!(
            "a learner ({}) got a snapshot of its leader ({}), was promoted, and led",
            kind(&learner),
            kind(&leader)
        ));
    }
}
