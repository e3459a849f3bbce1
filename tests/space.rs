//! The quota and alarms, from outside: what is refused with what, what goes on, and what makes it write again.

use blackbox::{Cluster, Member, patience, run};
use client::Client;
use wire::ApiError;
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest,
    RangeRequest,
};

const QUOTA_BYTES: i64 = 1_000_000;

fn put_of(bytes: usize) -> PutRequest {
    PutRequest { key: "k".into(), value: vec![b'v'; bytes].into(), ..Default::default() }
}

async fn put(client: &Client, bytes: usize) -> Result<(), ApiError> {
    let result = client.put(put_of(bytes), patience()).await;
    result.map(|_| ()).map_err(|error| known(&error))
}

fn known(error: &client::Error) -> ApiError {
    let all = [ApiError::NoSpace, ApiError::Corrupt];
    all.into_iter().find(|known| error.is(*known)).unwrap_or_else(|| panic!("{error}"))
}

#[test]
fn a_quota_refuses_before_anything_is_written_and_ends_when_there_is_room() {
    let mut member = Member::new(&[&format!("--quota-backend-bytes={QUOTA_BYTES}")]);
    member.announce("alarms are on");
    member.announce("/health error");
    member.restart();
    run(async {
        let client = member.client();
        put(&client, 1000).await.expect("there is room");
        let revision = client.status(patience()).await.expect("a status").header.expect("a header").revision;
        assert_eq!(put(&client, QUOTA_BYTES as usize).await, Err(ApiError::NoSpace), "it can never fit");
        let status = client.status(patience()).await.expect("a status");
        let header = status.header.expect("a header");
        assert_eq!(header.revision, revision, "nothing was written");
        assert_eq!(status.db_size_quota, QUOTA_BYTES);
        assert_eq!(status.errors, [format!("memberID:{} alarm:NOSPACE", header.member_id)]);
        // What is small enough is refused too, as long as the alarm is on; reads and deletes go on.
        assert_eq!(put(&client, 1).await, Err(ApiError::NoSpace));
        let grant = client.grant(LeaseGrantRequest { id: 0, ttl: 60 }, patience()).await;
        assert_eq!(known(&grant.expect_err("the alarm is on")), ApiError::NoSpace);
        let range = RangeRequest { key: "k".into(), ..Default::default() };
        assert_eq!(client.range(range, patience()).await.expect("reads go on").count, 1);
        let delete = DeleteRangeRequest { key: "k".into(), ..Default::default() };
        client.delete_range(delete, patience()).await.expect("deletes go on");
        let compaction = CompactionRequest { revision: revision + 1, physical: true };
        client.compact(compaction, patience()).await.expect("compactions go on");
    });
    let health = member.http_get("/health");
    assert_eq!(health.trim_end(), r#"{"health":"false","reason":"ALARM NOSPACE"}"#);
    let page = member.http_get("/metrics");
    let metric = |name: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {page}")).parse::<f64>().expect("a number")
    };
    assert_eq!(metric("etcd_server_quota_backend_bytes"), QUOTA_BYTES as f64);
    assert_eq!((metric("etcd_server_has_leader"), metric("etcd_server_is_leader")), (1.0, 1.0));
    let size = metric("etcd_mvcc_db_total_size_in_bytes");
    assert!(size > 50_000.0 && size < QUOTA_BYTES as f64, "{size}");
    assert!(metric("quorate_revlog_bytes") > 0.0);
    let healthy = r#"{"health":"true","reason":""}"#;
    assert_eq!(member.http_get("/health?exclude=NOSPACE"), healthy);
    let listed = member.etcdctl(&["alarm", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).ends_with("alarm:NOSPACE\n"), "{listed:?}");
    let unhealthy = member.etcdctl(&["endpoint", "health"]);
    assert!(String::from_utf8_lossy(&unhealthy.stderr).contains("Active Alarm(s): NOSPACE"), "{unhealthy:?}");
    // It is there after a restart, and goes when it is told to.
    member.restart();
    run(async { assert_eq!(put(&member.client(), 1).await, Err(ApiError::NoSpace)) });
    let disarmed = member.etcdctl(&["alarm", "disarm"]);
    assert_eq!(disarmed.stdout, listed.stdout);
    run(async { put(&member.client(), 1).await.expect("there is room") });
    assert!(member.etcdctl(&["alarm", "list"]).stdout.is_empty());
    assert_eq!(member.http_get("/health"), healthy);
}

/// Asks for alarms until there are some, or none.
async fn until_alarms(client: &Client, wanted: bool) {
    let deadline = patience();
    loop {
        let is_on = client.alarms(deadline).await.is_ok_and(|told| !told.alarms.is_empty());
        if is_on == wanted {
            return;
        }
        assert!(deadline.remaining().is_some_and(|left| !left.is_zero()), "alarms: {is_on}");
    }
}

/// An alarm that ends by itself would surprise members of Go's etcd: so it ends where all are known to be ours.
#[test]
fn an_alarm_ends_by_itself_where_all_members_are_ours() {
    let mut cluster = Cluster::start(
        3,
        &[&format!("--quota-backend-bytes={QUOTA_BYTES}"), "--quorate-nospace-clears-after=100ms"],
    );
    run(async {
        let leader = cluster.leader().await;
        let (follower, third) = ((leader + 1) % 3, (leader + 2) % 3);
        for member in [leader, follower] {
            let client = cluster.members[member].client();
            assert_eq!(put(&client, QUOTA_BYTES as usize).await, Err(ApiError::NoSpace));
            until_alarms(&client, false).await;
            put(&client, 1).await.expect("no alarm is on");
        }

        // Whoever does not answer may be anybody.
        cluster.members[third].kill();
        let client = cluster.members[follower].client();
        assert_eq!(put(&client, QUOTA_BYTES as usize).await, Err(ApiError::NoSpace));
        let stays = "alarm of this member does not end by itself";
        while !cluster.members[follower].log().contains(stays) {
            until_alarms(&client, true).await;
        }
        until_alarms(&client, true).await;
        cluster.restart(&[third]);
        until_alarms(&client, false).await;
        put(&client, 1).await.expect("no alarm is on");
    });
}

#[test]
fn corrupt_data_is_read_and_not_written() {
    let mut member = Member::start(&[]);
    member.announce("alarms are on");
    run(async {
        let client = member.client();
        put(&client, 1).await.expect("no alarm is on");
        let alarm = |action: AlarmAction| AlarmRequest {
            action: action.into(),
            // Whichever member it is.
            member_id: 0xabc,
            alarm: AlarmType::Corrupt.into(),
        };
        client.alarm(alarm(AlarmAction::Activate), patience()).await.expect("an answer");
        assert_eq!(put(&client, 1).await, Err(ApiError::Corrupt));
        let delete = DeleteRangeRequest { key: "k".into(), ..Default::default() };
        let delete = client.delete_range(delete, patience()).await;
        assert_eq!(known(&delete.expect_err("the alarm is on")), ApiError::Corrupt);
        let range = RangeRequest { key: "k".into(), ..Default::default() };
        assert_eq!(client.range(range, patience()).await.expect("reads go on").count, 1);
        client.alarm(alarm(AlarmAction::Deactivate), patience()).await.expect("an answer");
        put(&client, 1).await.expect("no alarm is on");
    });
}
