//! Members whose data differs: found after a compaction, by the periodic check, and by a member that starts.

use std::path::{Path, PathBuf};

use blackbox::{Cluster, patience, run};
use client::Client;
use wire::ApiError;
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, MemberAddRequest,
    PutRequest, RangeRequest,
};

const KEY: &str = "account";
const VALUE: &str = "balance=1000";
const ALTERED: &str = "balance=9000";
/// Of a segment of the revision log, and of each of its frames (`crates/disk/src/revlog`).
const SEGMENT_HEADER_LEN: usize = 64;
const FRAME_HEADER_LEN: usize = 72;
const FRAME_ALIGN: usize = 8;

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Changes a value in a segment of a revision log, so that every checksum is right; whether it was there.
fn alter(bytes: &mut [u8]) -> bool {
    let mut at = SEGMENT_HEADER_LEN;
    while at + FRAME_HEADER_LEN <= bytes.len() {
        let (header, body) = bytes[at..].split_at_mut(FRAME_HEADER_LEN);
        if number(header, 68) != crc32c::crc32c(&header[..68]) {
            // Allocated ahead.
            return false;
        }
        let len = (number(header, 48) as usize + number(header, 52) as usize).next_multiple_of(FRAME_ALIGN);
        let body = &mut body[..len];
        if let Some(place) = body.windows(VALUE.len()).position(|bytes| bytes == VALUE.as_bytes()) {
            assert_eq!(number(header, 64), crc32c::crc32c(body), "the format is as it is told here");
            body[place..place + VALUE.len()].copy_from_slice(ALTERED.as_bytes());
            header[64..68].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
            let sum = crc32c::crc32c(&header[..68]);
            header[68..72].copy_from_slice(&sum.to_le_bytes());
            return true;
        }
        at += FRAME_HEADER_LEN + len;
    }
    false
}

/// Changes the value in the data of a member that does not run.
fn alter_member(data_dir: &Path) {
    let entries = std::fs::read_dir(data_dir.join("member/rev")).expect("a revision log");
    let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    let mut altered = 0;
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "seg")) {
        let mut bytes = std::fs::read(path).expect("a segment");
        if alter(&mut bytes) {
            std::fs::write(path, bytes).expect("a segment");
            altered += 1;
        }
    }
    assert_eq!(altered, 1, "the value is stored once: {paths:?}");
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

/// What a member has for the key, as far as it knows by itself.
async fn value_at(client: &Client) -> String {
    let read = RangeRequest { key: KEY.into(), serializable: true, ..RangeRequest::default() };
    let found = client.range(read, patience()).await.expect("a serializable read");
    String::from_utf8(found.kvs[0].value.to_vec()).expect("a text")
}

async fn id(client: &Client) -> u64 {
    client.status(patience()).await.expect("a status").header.expect("a header").member_id
}

/// Puts the value and some more; then a member has another value than the others. Its place is told, and the leader's.
async fn with_an_altered_member(cluster: &mut Cluster, is_leader: bool) -> (usize, usize) {
    cluster.put(0, KEY, VALUE).await;
    for n in 0..20 {
        cluster.put(0, &format!("k{n}"), "v").await;
    }
    let leader = cluster.leader().await;
    let altered = if is_leader { leader } else { (leader + 1) % cluster.members.len() };
    cluster.members[altered].terminate();
    alter_member(&cluster.members[altered].data_dir());
    (altered, leader)
}

/// Waits for alarms; all that there are.
async fn alarms(client: &Client) -> Vec<AlarmMember> {
    let deadline = patience();
    loop {
        let alarms = client.alarms(deadline).await.expect("alarms").alarms;
        if !alarms.is_empty() {
            return alarms;
        }
    }
}

/// Waits until a member has logged this; the line.
async fn logged(cluster: &Cluster, place: usize, text: &str) -> String {
    let deadline = patience();
    loop {
        let log = cluster.members[place].log();
        if let Some(line) = log.lines().find(|line| line.contains(text)) {
            return line.to_owned();
        }
        assert!(deadline.remaining().is_some_and(|left| !left.is_zero()), "no {text} in\n{log}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// CORRUPT is on for one member, and does what it does in etcd.
async fn check_corrupt(cluster: &Cluster, altered: usize) {
    let own = id(&cluster.members[altered].client()).await;
    check_corrupt_of(cluster, (altered + 1) % 3, own).await;
    assert!(cluster.members[altered].http_get("/health").contains(r#""reason":"ALARM CORRUPT""#));
}

/// The alarm names this member, as another one tells, and nobody takes writes.
async fn check_corrupt_of(cluster: &Cluster, teller: usize, member_id: u64) {
    let corrupt = AlarmMember { member_id, alarm: AlarmType::Corrupt as i32 };
    assert_eq!(alarms(&cluster.members[teller].client()).await, [corrupt], "it names the member");
    for place in 0..cluster.members.len() {
        let client = cluster.members[place].client();
        let refused = client.put(put("k", "v"), patience()).await.expect_err("a put");
        assert!(refused.is(ApiError::Corrupt), "{refused}");
        let delete = DeleteRangeRequest { key: KEY.into(), ..DeleteRangeRequest::default() };
        let refused = client.delete_range(delete, patience()).await.expect_err("a delete");
        assert!(refused.is(ApiError::Corrupt), "{refused}");
        let read = RangeRequest { key: "k1".into(), ..RangeRequest::default() };
        assert_eq!(client.range(read, patience()).await.expect("a read").count, 1, "reads go on");
    }
}

/// Replaces a member as `docs/operating/data-directory.md` says it, and turns the alarm off.
async fn replace(cluster: &mut Cluster, altered: usize) {
    let own = id(&cluster.members[altered].client()).await;
    let url = cluster.members[altered].peer_endpoint();
    cluster.members[altered].terminate();
    let other = cluster.members[(altered + 1) % 3].client();
    other.member_remove(own, patience()).await.expect("it is removed");
    let add = MemberAddRequest { peer_ur_ls: vec![url], is_learner: false };
    other.member_add(add, patience()).await.expect("it is added");
    cluster.forget(altered);
    cluster.restart(&[altered]);
    let disarm = AlarmRequest {
        action: AlarmAction::Deactivate.into(),
        member_id: own,
        alarm: AlarmType::Corrupt.into(),
    };
    other.alarm(disarm, patience()).await.expect("an answer");
    cluster.put(altered, "k", "after").await;
    assert_eq!(value_at(&cluster.members[altered].client()).await, VALUE);
    cluster.check_hashes().await;
}

#[test]
fn a_member_that_differs_is_found_after_a_compaction() {
    // The gate is on by default, unlike in etcd.
    let mut cluster = Cluster::start(3, &["--compact-hash-check-time=1s"]);
    run(async {
        let (altered, _) = with_an_altered_member(&mut cluster, false).await;
        cluster.restart(&[altered]);
        assert_eq!(value_at(&cluster.members[altered].client()).await, ALTERED);
        let leader = cluster.leader().await;
        assert_ne!(leader, altered);
        let revision = cluster.put(leader, "k0", "w").await;
        let client = cluster.members[leader].client();
        assert!(client.alarms(patience()).await.expect("alarms").alarms.is_empty(), "nobody knows yet");

        let compact = CompactionRequest { revision, physical: false };
        client.compact(compact, patience()).await.expect("a compaction");
        check_corrupt(&cluster, altered).await;
        let own = id(&cluster.members[altered].client()).await;
        let line = logged(&cluster, leader, r#""Detected compaction hash mismatch""#).await;
        assert!(line.contains(&format!(r#""peer-ids":"{own:x}","quorum-exist":true"#)), "{line}");
        let metrics = cluster.members[leader].http_get("/metrics");
        let checks = metrics.lines().find_map(|line| line.strip_prefix("quorate_corruption_checks_total "));
        assert!(checks.expect("a counter").parse::<f64>().expect("a number") >= 1.0);
        replace(&mut cluster, altered).await;
    });
}

/// Of two nobody can say which is wrong: the alarm stands for the whole cluster.
#[test]
fn where_no_majority_agrees_the_alarm_names_no_member() {
    let mut cluster = Cluster::start(2, &["--compact-hash-check-time=1s"]);
    run(async {
        let (altered, _) = with_an_altered_member(&mut cluster, false).await;
        cluster.restart(&[altered]);
        let leader = cluster.leader().await;
        let revision = cluster.put(leader, "k0", "w").await;
        let compact = CompactionRequest { revision, physical: false };
        cluster.members[leader].client().compact(compact, patience()).await.expect("a compaction");
        for teller in 0..2 {
            check_corrupt_of(&cluster, teller, 0).await;
            let health = cluster.members[teller].http_get("/health");
            assert!(health.contains(r#""reason":"ALARM CORRUPT""#), "{health}");
        }
        let text = "Detected compaction hash mismatch but cannot identify the corrupted members";
        logged(&cluster, leader, text).await;
    });
}

#[test]
fn a_leader_that_differs_names_itself_after_a_compaction() {
    let mut cluster = Cluster::start(3, &["--compact-hash-check-time=1s"]);
    run(async {
        let (altered, _) = with_an_altered_member(&mut cluster, true).await;
        cluster.restart(&[altered]);
        let own = id(&cluster.members[altered].client()).await;
        while cluster.leader().await != altered {
            // It fails where another election comes between.
            let leader = cluster.leader().await;
            let _ = cluster.members[leader].client().move_leader(own, patience()).await;
        }
        let revision = cluster.put(altered, "k0", "w").await;
        let compact = CompactionRequest { revision, physical: false };
        cluster.members[altered].client().compact(compact, patience()).await.expect("a compaction");
        check_corrupt(&cluster, altered).await;
    });
}

#[test]
fn a_member_that_differs_is_found_by_the_periodic_check() {
    let gate = "--feature-gates=CompactHashCheck=false";
    let mut cluster = Cluster::start(3, &["--corrupt-check-time=100ms", gate]);
    run(async {
        let (altered, _) = with_an_altered_member(&mut cluster, false).await;
        let leader = cluster.leader().await;
        logged(&cluster, leader, "finished peer corruption check").await;
        let client = cluster.members[leader].client();
        assert!(client.alarms(patience()).await.expect("alarms").alarms.is_empty(), "nobody differs");
        cluster.restart(&[altered]);
        check_corrupt(&cluster, altered).await;
        let own = id(&cluster.members[altered].client()).await;
        let line = logged(&cluster, leader, "same compact revision then hashes must match").await;
        assert!(line.contains(&format!(r#""follower-peer-id":"{own:x}""#)), "{line}");
    });
}

#[test]
fn a_member_that_differs_does_not_start_where_it_is_to_look_first() {
    let mut cluster = Cluster::start(3, &["--feature-gates=InitialCorruptCheck=true"]);
    run(async {
        let (altered, _) = with_an_altered_member(&mut cluster, false).await;
        let own = id_of(&cluster, altered).await;
        let ended = cluster.members[altered].command().output().expect("etcd runs");
        let log = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{log}");
        for text in [
            r#""msg":"starting initial corruption check""#.to_owned(),
            r#""msg":"found different hash values from remote peer""#.to_owned(),
            format!(
                r#""msg":"checkInitialHashKV failed","error":"{own:x} found data inconsistency with peers""#
            ),
            r#""level":"fatal""#.to_owned(),
        ] {
            assert!(log.contains(&text), "no {text} in\n{log}");
        }
        assert!(!log.contains("ready to serve client requests"));
        // Nobody else is concerned.
        cluster.put((altered + 1) % 3, "k", "v").await;
        // One that is as the others are starts, with what it was away for.
        let third = (altered + 1) % 3;
        cluster.members[third].terminate();
        let log = |cluster: &Cluster| cluster.members[third].log();
        cluster.restart(&[third]);
        assert!(
            log(&cluster).contains("initial corruption checking passed; no corruption"),
            "{}",
            log(&cluster)
        );
        cluster.put(third, "k", "w").await;
    });
}

/// The id of a member that does not run, as the others know it.
async fn id_of(cluster: &Cluster, place: usize) -> u64 {
    let other = cluster.running()[0];
    let list = cluster.members[other].client().members(patience()).await.expect("members");
    let endpoint = cluster.members[place].peer_endpoint();
    list.members.iter().find(|member| member.peer_ur_ls == [endpoint.clone()]).expect("it is one of them").id
}
