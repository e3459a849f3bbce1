//! Clusters with a slow or hanging disk, and with members that were started with the wrong settings: the others go on, nothing
//! is lost, and who is wrong is told so in etcd's words.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use blackbox::{Cluster, Member, PATIENCE, patience, run};
use client::Deadline;
use tokio::task::JoinSet;
use wire::etcdserverpb::{PutRequest, RangeRequest};

/// Longer than an election, shorter than the server waits.
const BRIEF: Duration = Duration::from_secs(3);
/// Syncs that a slow disk is to have done before a test is content.
const SYNCS: u64 = 4;
const PUTS_AT_ONCE: usize = 16;

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

fn put(key: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() }
}

/// The term in which every member is, once all know of one leader.
async fn term(cluster: &Cluster) -> u64 {
    cluster.leader().await;
    let mut terms = Vec::new();
    for place in cluster.running() {
        let status = cluster.members[place].client().status(patience()).await.expect("a status");
        terms.push(status.raft_term);
    }
    assert!(terms.iter().all(|term| *term == terms[0]), "{terms:?}");
    terms[0]
}

/// Puts by every member, many at a time, until `is_enough`; each is acknowledged.
async fn put_until(cluster: &Cluster, is_enough: impl Fn() -> bool) -> usize {
    let mut round = 0;
    while !is_enough() {
        let mut under_way = JoinSet::new();
        for place in cluster.running() {
            for n in 0..PUTS_AT_ONCE {
                let (client, key) = (cluster.members[place].client(), format!("{place}.{round}.{n}"));
                under_way.spawn_local(async move { client.put(put(&key), patience()).await });
            }
        }
        for done in under_way.join_all().await {
            done.expect("a put");
        }
        round += 1;
    }
    round
}

/// Puts go on, and nobody stands for election.
fn a_slow_disk_is_borne(of_the_leader: bool, delay: Duration) {
    let cluster = Cluster::start(3, &[]);
    run(async {
        let (before, leader) = (term(&cluster).await, cluster.leader().await);
        let place = if of_the_leader { leader } else { (leader + 1) % 3 };
        let disk = cluster.members[place].slow_disk(Some(delay));
        put_until(&cluster, || disk.held() >= SYNCS).await;
        assert_eq!(term(&cluster).await, before, "a slow disk is no reason for an election");
        drop(disk);
        cluster.check_hashes().await;
    });
}

#[test]
fn a_follower_whose_sync_takes_a_second_causes_no_election() {
    a_slow_disk_is_borne(false, Duration::from_secs(1));
}

#[test]
fn a_leader_whose_sync_takes_half_a_second_causes_no_election() {
    a_slow_disk_is_borne(true, Duration::from_millis(500));
}

/// Rule 4: it hands leadership over, since nobody can know how long it takes.
#[test]
fn a_leader_whose_disk_hangs_for_ever_lets_another_lead() {
    let mut cluster = Cluster::start(3, &[]);
    run(async {
        let leader = cluster.leader().await;
        cluster.put(leader, "before", "v").await;
        let disk = cluster.members[leader].slow_disk(None);
        // All three go on: two disks are enough, and the third member takes what they have.
        for place in 0..3 {
            cluster.put(place, &format!("hangs {place}"), "v").await;
        }
        let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
        loop {
            // Until its disk was asked for something it is as good a leader as any.
            cluster.put(leader, "more", "v").await;
            if cluster.leader_among(&others).await != leader {
                break;
            }
        }
        assert!(disk.held() > 0);
        // What it has not written is on the others' disks.
        cluster.members[leader].kill();
        drop(disk);
        cluster.put(others[0], "after", "v").await;
        cluster.restart(&[leader]);
        for key in ["before", "hangs 0", "hangs 1", "hangs 2", "more", "after"] {
            let found = cluster.members[leader].client().range(get(key), patience()).await.expect("a read");
            assert_eq!(found.count, 1, "{key} was acknowledged");
        }
        cluster.check_hashes().await;
    });
}

/// Of two members that are left of three, one does not get to write anything: nothing is acknowledged.
#[test]
fn what_a_disk_does_not_write_is_not_counted() {
    let mut cluster = Cluster::start(3, &[]);
    run(async {
        let leader = cluster.leader().await;
        let (dead, other) = ((leader + 1) % 3, (leader + 2) % 3);
        cluster.put(leader, "k", "v").await;
        cluster.members[dead].kill();
        let disk = cluster.members[leader].slow_disk(None);
        for place in [leader, other] {
            let client = cluster.members[place].client();
            let refused = client.put(put(&format!("refused {place}")), Deadline::after(BRIEF)).await;
            assert!(refused.is_err(), "one disk of three: {refused:?}");
        }
        assert!(disk.held() > 0);
        drop(disk);
        cluster.put(leader, "again", "v").await;
        cluster.restart(&[dead]);
        cluster.put(dead, "again", "w").await;
        cluster.check_hashes().await;
    });
}

/// Runs a member with further flags, the last of which count; it is to end by itself.
fn refused(member: &Member, flags: &[&str]) -> String {
    let mut command = member.command();
    let ended: Output = command.args(flags).stdin(Stdio::null()).output().expect("etcd runs");
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{log}");
    log
}

/// Runs a member with further flags until it has logged `text`, then kills it; its log.
fn logs(member: &Member, flags: &[&str], text: &str) -> String {
    use std::io::{BufRead as _, BufReader};
    let mut command: Command = member.command();
    let mut process = command.args(flags).stderr(Stdio::piped()).spawn().expect("etcd starts");
    let stderr = process.stderr.take().expect("its standard error");
    let (found, wait) = std::sync::mpsc::channel();
    let wanted = text.to_owned();
    let reading = std::thread::spawn(move || {
        let mut log = String::new();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            log.push_str(&line);
            log.push('\n');
            if line.contains(&wanted) {
                let _ = found.send(());
            }
        }
        log
    });
    let told = wait.recv_timeout(PATIENCE);
    process.kill().expect("it runs");
    process.wait().expect("it ends");
    let log = reading.join().expect("its log is read");
    assert_eq!(told, Ok(()), "{text} is not in:\n{log}");
    log
}

/// What two of three members have is theirs, whatever the third was told.
#[test]
fn a_member_with_the_wrong_settings_is_told_so_and_harms_nobody() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.restart(&[0, 1]);
    run(async {
        cluster.put(0, "k", "v").await;
        let urls: Vec<String> = cluster.members.iter().map(Member::peer_endpoint).collect();
        let [first, second, third] = [&urls[0], &urls[1], &urls[2]];
        let nowhere = "http://127.0.0.1:1";
        let empty = tempfile::tempdir().expect("a temporary directory");
        let dir = empty.path().join("data");
        let dir = dir.to_str().expect("a path");

        // One peer URL twice.
        let twice = format!("m0={first},m1={first},m2={third}");
        let log = refused(&cluster.members[2], &["--data-dir", dir, "--initial-cluster", &twice]);
        assert!(log.contains(&format!("initial cluster {twice} has duplicate url")), "{log}");
        // Another URL for a member than the others have, one member more, another token: it is another cluster.
        let wrong = format!("m0={first},m1={nowhere},m2={third}");
        let more = format!("m0={first},m1={second},m2={third},m3={nowhere}");
        for flags in [
            ["--initial-cluster", &wrong],
            ["--initial-cluster", &more],
            ["--initial-cluster-token", "another"],
        ] {
            let flags = ["--data-dir", dir, flags[0], flags[1]];
            let log = logs(&cluster.members[2], &flags, "cluster ID mismatch");
            assert!(!log.contains("ready to serve client requests"), "{log}");
            std::fs::remove_dir_all(dir).expect("it was made");
        }
        // With the right ones it comes in.
        cluster.restart(&[2]);
        cluster.put(2, "k", "w").await;
        cluster.members[2].kill();

        // Its directory is gone: it was a member, and must not begin again under the same id.
        let log = refused(&cluster.members[2], &["--data-dir", dir]);
        assert!(log.contains("has already been bootstrapped"), "{log}");
        // A directory of another cluster's member: that goes on as what it was, and is none of ours.
        let mut other = Member::start(&[]);
        other.terminate();
        let others = other.data_dir();
        let others = others.to_str().expect("a path");
        logs(&cluster.members[2], &["--data-dir", others], "cluster ID mismatch");

        // None of it has changed anything.
        cluster.restart(&[2]);
        let found = cluster.members[2].client().range(get("k"), patience()).await.expect("a read");
        assert_eq!(found.kvs[0].value, "w");
        cluster.check_hashes().await;
        let list = cluster.members[0].client().members(patience()).await.expect("members");
        assert_eq!(list.members.len(), 3);
    });
}
