//! Every path between members, crossed from Go's to ours and back, with leadership on either side.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use blackbox::{Cluster, Network, patience, run};
use client::Deadline;
use wire::ApiError;
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::downgrade_request::DowngradeAction;
use wire::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, LeaseGrantRequest, MemberAddRequest, MemberUpdateRequest,
    PutRequest,
};
use wire::v3lockpb::LockRequest;

use crate::{all_write, check_logs, get, go, kind, kinds, others, ours, put, say, until};

/// Members compare hashes with each other: at each start, after compactions, and now and then.
const COMPARES: [&str; 3] = [
    "--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true",
    "--corrupt-check-time=2s",
    "--compact-hash-check-time=2s",
];
const TTL_S: i64 = 120;
const BRIEF_TTL_S: i64 = 2;

#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn mixes_of_three() {
    cross(&[go(), go(), ours()]);
    cross(&[ours(), go(), ours()]);
}

#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn mixes_of_five() {
    cross(&[go(), ours(), go(), ours(), go()]);
    cross(&[ours(), go(), ours(), go(), ours()]);
}

/// The first member of each kind.
pub fn one_of_each(programs: &[PathBuf]) -> [usize; 2] {
    [go(), ours()].map(|program| programs.iter().position(|other| *other == program).expect("both kinds"))
}

fn cross(programs: &[PathBuf]) {
    let mut cluster = Cluster::of(programs, &COMPARES);
    let network = cluster.start_with_network();
    run(async {
        for leader in one_of_each(programs) {
            cluster.let_lead(leader).await;
            let leads = kind(&programs[leader]);
            say(format!("[{}], {leads} leads:", kinds(programs)));
            reads_and_writes(&cluster).await;
            say("  writes and reads through each member");
            leases(&cluster).await;
            say("  leases renewed, asked for, revoked and ended through each");
            questions(&cluster).await;
            say("  peer paths asked by hand, Status");
            alarms(&cluster).await;
            locks(&cluster).await;
            say("  alarms, locks");
            downgrade(&cluster).await;
            say("  a downgrade, taken back");
            update(&cluster, leader).await;
            say("  other peer URLs");
            for program in [go(), ours()] {
                learner(&mut cluster, leader, &program).await;
                say(format!("  a learner ({}) added, promoted, removed", kind(&program)));
            }
            assert_eq!(cluster.leader().await, leader, "nobody else came to lead");
            cluster.check_hashes().await;
            compared(&cluster).await;
            say("  hashes compared by the leader, after a compaction too");
            without_streams(&cluster, &network).await;
            cluster.check_hashes().await;
            say("  posts in place of streams; HashKV equal");
        }
        // Who starts asks the others for their hashes, and is asked.
        for place in 0..programs.len() {
            cluster.members[place].terminate();
            cluster.restart(&[place]);
            cluster.put(place, "again", "v").await;
        }
        cluster.check_hashes().await;
    });
    // Each start with the check says so.
    for member in &cluster.members {
        let log = member.log();
        assert!(
            log.contains("initial corruption checking passed; no corruption"),
            "{}: {log}",
            member.name()
        );
    }
    check_logs(&cluster, &[]);
}

pub async fn reads_and_writes(cluster: &Cluster) {
    let all = others(cluster, &[]);
    for writer in &all {
        let client = cluster.members[*writer].client();
        let key = format!("rw{writer}");
        let value = format!("{:?}", Instant::now());
        client.put(put(&key, &value), patience()).await.expect("a put through any member");
        for reader in &all {
            let client = cluster.members[*reader].client();
            let found = client.range(get(&key), patience()).await.expect("a read through any member");
            assert_eq!(found.kvs[0].value, value, "written through {writer}, read through {reader}");
        }
    }
}

pub async fn leases(cluster: &Cluster) {
    let all = others(cluster, &[]);
    for granter in &all {
        let client = cluster.members[*granter].client();
        let grant = LeaseGrantRequest { ttl: TTL_S, id: 0 };
        let id = client.grant(grant, patience()).await.expect("a lease").id;
        let key = format!("leased{granter}");
        client.put(PutRequest { lease: id, ..put(&key, "v") }, patience()).await.expect("a put");
        let asked = Instant::now();
        let brief = LeaseGrantRequest { ttl: BRIEF_TTL_S, id: 0 };
        let brief_id = client.grant(brief, patience()).await.expect("a lease").id;
        let brief_key = format!("brief{granter}");
        let request = PutRequest { lease: brief_id, ..put(&brief_key, "v") };
        client.put(request, patience()).await.expect("a put");
        for other in &all {
            let client = cluster.members[*other].client();
            client.range(get("k"), patience()).await.expect("a linearizable read");
            let listed = client.leases(patience()).await.expect("the leases");
            assert!(listed.leases.iter().any(|lease| lease.id == id), "{other} lists it");
            let renewed = client.keep_alive_once(id, patience()).await.expect("renewed through any member");
            assert_eq!(renewed.ttl, TTL_S);
            let left = client.time_to_live(id, true, patience()).await.expect("the time through any member");
            assert!((TTL_S - 5..=TTL_S).contains(&left.ttl) && left.granted_ttl == TTL_S, "{left:?}");
            assert_eq!(left.keys, [key.as_bytes()]);
            let none = client.keep_alive_once(id + 1, patience()).await;
            assert!(none.is_err_and(|error| error.is(ApiError::LeaseNotFound)), "there is no such lease");
            let none = client.time_to_live(id + 1, false, patience()).await.expect("an answer");
            assert_eq!((none.ttl, none.granted_ttl), (-1, 0), "there is no such lease");
        }
        let ended = || async {
            let found = client.range(get(&brief_key), patience()).await.expect("a read");
            found.kvs.is_empty()
        };
        until("the end of a lease", ended).await;
        let ttl = Duration::from_secs(BRIEF_TTL_S as u64);
        assert!(asked.elapsed() >= ttl, "a lease of {ttl:?} ended after {:?}", asked.elapsed());
        let revoker = &cluster.members[(granter + 1) % all.len()];
        revoker.client().revoke(id, patience()).await.expect("revoked through any member");
        let found = client.range(get(&key), patience()).await.expect("a read");
        assert!(found.kvs.is_empty(), "a revoked lease's key");
    }
}

/// What members answer each other, asked by hand, is the same of both kinds.
async fn questions(cluster: &Cluster) {
    let revision = cluster.put(0, "asked", "v").await;
    let mut answers = Vec::new();
    for member in &cluster.members {
        member.client().range(get("k"), patience()).await.expect("a linearizable read");
        let hash = member.peer_get("/members/hashkv", &format!("{{\"revision\":{revision}}}"));
        let future = member.peer_get("/members/hashkv", "{\"revision\":1000000}");
        let status = member.client().status(patience()).await.expect("a status");
        answers.push((
            (member.peer_get("/members", ""), hash, future),
            (member.peer_get("/version", ""), member.peer_get("/downgrade/enabled", "")),
            (status.version, status.storage_version, status.leader, status.raft_term),
        ));
    }
    for answer in &answers {
        assert_eq!(*answer, answers[0], "what each answers its peers");
    }
}

pub async fn alarms(cluster: &Cluster) {
    let all = others(cluster, &[]);
    for raiser in &all {
        let lowerer = (raiser + 1) % all.len();
        let (member_id, alarm) = (cluster.id(*raiser).await, AlarmType::Nospace.into());
        let request = |action: AlarmAction| AlarmRequest { action: action.into(), member_id, alarm };
        let client = cluster.members[*raiser].client();
        client.alarm(request(AlarmAction::Activate), patience()).await.expect("an alarm");
        for place in &all {
            let client = cluster.members[*place].client();
            let listed = client.alarms(patience()).await.expect("the alarms").alarms;
            assert_eq!(listed.len(), 1, "{listed:?}");
            client.range(get("k"), patience()).await.expect("a linearizable read");
            let refused = client.put(put("k", "v"), patience()).await;
            assert!(refused.is_err_and(|error| error.is(ApiError::NoSpace)), "a put through {place}");
        }
        let client = cluster.members[lowerer].client();
        client.alarm(request(AlarmAction::Deactivate), patience()).await.expect("disarmed");
        for place in &all {
            let client = cluster.members[*place].client();
            client.range(get("k"), patience()).await.expect("a linearizable read");
            client.put(put("k", "v"), patience()).await.expect("a put when the alarm is off");
        }
    }
}

/// A lock that is held through one is waited for through the other.
pub async fn locks(cluster: &Cluster) {
    for holder in 0..cluster.members.len() {
        let waiter = (holder + 1) % cluster.members.len();
        let (holder, waiter) = (cluster.members[holder].client(), cluster.members[waiter].client());
        let request = LockRequest { name: "lock".into(), lease: 0 };
        let held = holder.lock(request.clone(), patience()).await.expect("the lock");
        let waiting = tokio::task::spawn_local(async move { waiter.lock(request, patience()).await });
        let places = || async {
            let prefix = wire::etcdserverpb::RangeRequest { range_end: "lock0".into(), ..get("lock/") };
            holder.range(prefix, patience()).await.expect("a read").count == 2
        };
        until("somebody who waits", places).await;
        assert!(!waiting.is_finished(), "it is held");
        let unlock = |key| wire::v3lockpb::UnlockRequest { key };
        holder.unlock(unlock(held.key), patience()).await.expect("unlocked");
        let next = waiting.await.expect("it ends").expect("the lock");
        holder.unlock(unlock(next.key), patience()).await.expect("unlocked");
    }
}

/// Asked of every member; taken back before anything follows from it, or after.
async fn downgrade(cluster: &Cluster) {
    for asked in 0..cluster.members.len() {
        let client = cluster.members[asked].client();
        let call = |action, version: &str| client.downgrade(action, version.to_owned(), patience());
        let answer = call(DowngradeAction::Validate, "3.6").await.expect("it may be");
        assert_eq!(answer.version, "3.7");
        let refused = call(DowngradeAction::Validate, "3.5").await;
        assert!(refused.is_err_and(|error| error.is(ApiError::InvalidDowngradeTargetVersion)));
        call(DowngradeAction::Enable, "3.6").await.expect("it begins");
        for member in &cluster.members {
            member.client().range(get("k"), patience()).await.expect("a linearizable read");
            assert_eq!(member.peer_get("/downgrade/enabled", ""), "true", "{}", member.name());
            let twice =
                member.client().downgrade(DowngradeAction::Validate, "3.6".to_owned(), patience()).await;
            let expected = [ApiError::DowngradeInProcess, ApiError::InvalidDowngradeTargetVersion];
            assert!(twice.is_err_and(|error| expected.into_iter().any(|expected| error.is(expected))));
        }
        let other = cluster.members[(asked + 1) % cluster.members.len()].client();
        other.downgrade(DowngradeAction::Cancel, String::new(), patience()).await.expect("it ends");
        for member in &cluster.members {
            let risen = || async {
                let version = member.peer_get("/version", "");
                version.contains("\"etcdcluster\":\"3.7.0\"") && version.contains("\"storage\":\"3.7.0\"")
            };
            until("the cluster's version rises again", risen).await;
            member.client().range(get("k"), patience()).await.expect("a linearizable read");
            assert_eq!(member.peer_get("/downgrade/enabled", ""), "false", "{}", member.name());
        }
    }
}

/// Another peer URL of a follower, asked for through it and through the leader.
async fn update(cluster: &Cluster, leader: usize) {
    let moved = (leader + 1) % cluster.members.len();
    let id = cluster.id(moved).await;
    let before = cluster.members[moved].peer_endpoint();
    let after = before.replace("127.0.0.1", "localhost");
    for (through, url) in [(moved, &after), (leader, &before)] {
        let request = MemberUpdateRequest { id, peer_ur_ls: vec![url.clone()] };
        let client = cluster.members[through].client();
        client.member_update(request, patience()).await.expect("other URLs");
        for member in &cluster.members {
            let list = member.client().members(patience()).await.expect("the members");
            let told = list.members.iter().find(|member| member.id == id).expect("it is there");
            assert_eq!(told.peer_ur_ls, *std::slice::from_ref(url), "as {} knows it", member.name());
        }
        all_write(cluster, &others(cluster, &[])).await;
    }
}

/// A learner of this program is added, promoted through a follower, and removed through another member.
pub async fn learner(cluster: &mut Cluster, leader: usize, program: &std::path::Path) {
    let place = cluster.joining_by(program);
    let follower = (leader + 1) % place;
    let request =
        MemberAddRequest { peer_ur_ls: vec![cluster.members[place].peer_endpoint()], is_learner: true };
    let client = cluster.members[follower].client();
    let id = loop {
        match client.member_add(request.clone(), patience()).await {
            Ok(added) => break added.member.expect("the member").id,
            // Members have to have been connected for five seconds.
            Err(error) => assert!(error.is(ApiError::Unhealthy), "{error}"),
        }
    };
    cluster.restart(&[place]);
    let learner = cluster.members[place].client();
    let refused = learner.put(put("k", "v"), patience()).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("rpc not supported for learner")));
    let promoted = || async {
        match client.member_promote(id, patience()).await {
            Ok(_) => true,
            Err(error) => {
                assert!(error.is(ApiError::LearnerNotReady), "{error}");
                false
            }
        }
    };
    until("a learner that is ready", promoted).await;
    cluster.put(place, "promoted", "v").await;
    cluster.check_hashes().await;
    let remover = cluster.members[(leader + 2) % place].client();
    let removed = || async {
        match remover.member_remove(id, Deadline::after(Duration::from_secs(5))).await {
            Ok(_) => true,
            Err(error) => {
                assert!(error.is(ApiError::Unhealthy), "{error}");
                false
            }
        }
    };
    until("it may be removed", removed).await;
    let mut gone = cluster.members.pop().expect("it was added");
    let status = gone.end();
    assert!(status.success(), "a removed member ends by itself: {status}");
    all_write(cluster, &others(cluster, &[])).await;
}

/// The leader compares its hashes with the others' and finds nothing.
async fn compared(cluster: &Cluster) {
    let leader = cluster.leader().await;
    let rounds = || {
        let log = cluster.members[leader].log();
        let checks = log.lines().filter(|line| line.contains("finished compaction hash check"));
        checks.filter(|line| !line.contains("\"number-of-hashes-checked\":0")).count()
    };
    let before = rounds();
    let revision = cluster.put(0, "compared", "v").await;
    let client = cluster.members[1].client();
    client.compact(CompactionRequest { revision, physical: true }, patience()).await.expect("a compaction");
    until("the leader compares", || async { rounds() > before }).await;
    let alarms = client.alarms(patience()).await.expect("the alarms").alarms;
    assert!(alarms.is_empty(), "{alarms:?}");
    all_write(cluster, &others(cluster, &[])).await;
}

/// Members that get no streams post each message.
async fn without_streams(cluster: &Cluster, network: &Network) {
    network.refuse_streams(true);
    let all = others(cluster, &[]);
    all_write(cluster, &all).await;
    reads_and_writes(cluster).await;
    network.refuse_streams(false);
    all_write(cluster, &all).await;
}
