//! Mixed clusters whose members are killed, stopped and parted under load, and whose space is used up.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use blackbox::{Cluster, Network, Random, patience, run};
use client::Deadline;
use nix::sys::signal::{Signal, kill};
use wire::ApiError;
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, PutRequest};

use crate::load::Load;
use crate::swap::pause;
use crate::{all_write, check_logs, get, go, kind, kinds, others, ours, put, say, value};

const FLAGS: [&str; 2] = ["--snapshot-count=500", "--snapshot-catchup-entries=200"];
/// Longer than an election, shorter than the server waits.
const BRIEF: Duration = Duration::from_secs(3);

/// Members that hear nobody, or whom nobody hears, with this leader among them.
async fn part(cluster: &Cluster, network: &Network, leader: usize) {
    let all = others(cluster, &[]);
    cluster.let_lead(leader).await;
    let most = others(cluster, &[leader]);
    network.part(&[leader], &most);
    all_write(cluster, &most).await;
    let refused = cluster.members[leader].client().range(get("k"), Deadline::after(BRIEF)).await;
    assert!(refused.is_err(), "a deposed leader answers: {refused:?}");
    network.mend();
    all_write(cluster, &all).await;

    cluster.let_lead(leader).await;
    for other in &most {
        network.cut(leader, *other);
    }
    all_write(cluster, &most).await;
    network.mend();
    all_write(cluster, &all).await;

    // It is still heard, so nobody stands for election until it gives up by itself.
    cluster.let_lead(leader).await;
    for other in &most {
        network.cut(*other, leader);
    }
    all_write(cluster, &most).await;
    network.mend();
    all_write(cluster, &all).await;
}

async fn kill_leader(cluster: &mut Cluster, leader: usize) {
    cluster.let_lead(leader).await;
    cluster.members[leader].kill();
    all_write(cluster, &others(cluster, &[leader])).await;
    cluster.restart(&[leader]);
    all_write(cluster, &others(cluster, &[])).await;
}

async fn stop(cluster: &Cluster, stopped: usize) {
    let pid = cluster.members[stopped].pid();
    kill(pid, Signal::SIGSTOP).expect("it runs");
    let awake = others(cluster, &[stopped]);
    all_write(cluster, &awake).await;
    kill(pid, Signal::SIGCONT).expect("it runs");
    all_write(cluster, &others(cluster, &[])).await;
}

/// Each member of these leads once and is parted, killed and stopped. Returns what their logs have that is worse than
/// a warning.
fn disturb(programs: &[PathBuf]) -> Cluster {
    let mut cluster = Cluster::of(programs, &FLAGS);
    let network = cluster.start_with_network();
    run(async {
        let load = Load::start(&cluster, false);
        for leader in 0..programs.len() {
            part(&cluster, &network, leader).await;
            kill_leader(&mut cluster, leader).await;
            cluster.let_lead(leader).await;
            stop(&cluster, leader).await;
            load.check_hashes(&cluster).await;
        }
        load.go_on(pause()).await;
        load.check(&cluster).await;
    });
    cluster
}

/// The text of each line, without what differs from run to run.
pub fn texts(cluster: &Cluster) -> BTreeSet<String> {
    let errors = cluster.members.iter().flat_map(|member| member.errors());
    let text = |line: String| {
        let rest = line.split_once("\"msg\":\"")?.1;
        rest.split_once('"').map(|(text, _)| format!("\"msg\":\"{text}\""))
    };
    errors.filter_map(text).collect()
}

#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn disturbed() {
    // What members of Go's say among themselves they may say to ours.
    let allowed: Vec<String> = texts(&disturb(&[go(), go(), go()])).into_iter().collect();
    say(format!("[Go's, Go's, Go's]: errors in the logs: {allowed:?}"));
    for programs in [[go(), ours(), go()], [ours(), go(), ours()]] {
        let cluster = disturb(&programs);
        check_logs(&cluster, &allowed);
        say(format!("[{}]: each led, and was parted, killed and stopped", kinds(&programs)));
    }
}

/// A member of each kind has little room, under a leader of each kind: its alarm is everybody's.
#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn space_used_up() {
    const VALUE_BYTES: usize = 100 << 10;
    let programs = [go(), ours(), go()];
    for (leader, full) in [(0, 1), (1, 0), (2, 0), (1, 1)] {
        let mut cluster = Cluster::of(&programs, &[]);
        cluster.members[full].add_flags(&["--quota-backend-bytes=8000000"]);
        cluster.restart(&[0, 1, 2]);
        let mut random = Random::new(3);
        run(async {
            cluster.let_lead(leader).await;
            let client = cluster.members[full].client();
            let mut last = 0;
            for n in 0.. {
                let value = value(&mut random, VALUE_BYTES).into();
                let put = PutRequest { key: format!("k{n}").into(), value, ..Default::default() };
                match client.put(put, patience()).await {
                    Ok(answer) => last = answer.header.expect("a header").revision,
                    Err(error) => {
                        assert!(error.is(ApiError::NoSpace), "{error}");
                        break;
                    }
                }
                assert!(n < 1_000, "no quota");
            }
            let id = cluster.id(full).await;
            for member in &cluster.members {
                let client = member.client();
                client.range(get("k"), patience()).await.expect("a linearizable read");
                let alarms = client.alarms(patience()).await.expect("the alarms").alarms;
                assert_eq!(alarms.len(), 1);
                assert_eq!((alarms[0].member_id, alarms[0].alarm), (id, AlarmType::Nospace.into()));
                let refused = client.put(put("k", "v"), patience()).await;
                assert!(refused.is_err_and(|error| error.is(ApiError::NoSpace)), "through {}", member.name());
            }
            let all = DeleteRangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
            client.delete_range(all, patience()).await.expect("deletes go on");
            let compaction = CompactionRequest { revision: last, physical: true };
            client.compact(compaction, patience()).await.expect("compactions go on");
            for member in &cluster.members {
                member.client().defragment(patience()).await.expect("defragmented");
            }
            let other = cluster.members[(full + 1) % 3].client();
            let (action, alarm) = (AlarmAction::Deactivate.into(), AlarmType::Nospace.into());
            other.alarm(AlarmRequest { action, member_id: id, alarm }, patience()).await.expect("disarmed");
            all_write(&cluster, &[0, 1, 2]).await;
            cluster.check_hashes().await;
        });
        check_logs(&cluster, &[]);
        say(format!(
            "NOSPACE of a member ({}) under a leader ({}): refused everywhere, and over once it is disarmed",
            kind(&programs[full]),
            kind(&programs[leader])
        ));
    }
}
