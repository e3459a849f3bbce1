//! Leases that are kept alive, locks and elections, through our client against our server.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use blackbox::{Member, patience, run};
use bytes::Bytes;
use client::concurrency::{Election, Mutex, Session};
use client::{Client, Error, prefix_range};
use wire::ApiError;
use wire::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest, WatchCreateRequest,
};
use wire::mvccpb::event::EventType;
use wire::v3electionpb::{CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest};
use wire::v3lockpb::{LockRequest, UnlockRequest};

async fn grant(client: &Client, ttl: i64) -> i64 {
    let request = LeaseGrantRequest { ttl, id: 0 };
    client.grant(request, patience()).await.expect("a lease").id
}

async fn count(client: &Client, prefix: &str) -> i64 {
    let (key, range_end) = prefix_range(prefix.as_bytes());
    let request = RangeRequest { key, range_end, count_only: true, ..RangeRequest::default() };
    client.range(request, patience()).await.expect("a count").count
}

/// Waits until there are so many keys below a prefix.
async fn until_count(client: &Client, prefix: &str, wanted: i64) {
    let (key, range_end) = prefix_range(prefix.as_bytes());
    let mut watcher = client.watcher(false);
    watcher.watch(WatchCreateRequest { key, range_end, ..Default::default() }).expect("a watch");
    while count(client, prefix).await != wanted {
        watcher.next().await.expect("a change");
    }
}

fn lock(lease: i64) -> LockRequest {
    LockRequest { name: "l".into(), lease }
}

async fn unlock(client: &Client, key: Bytes) {
    client.unlock(UnlockRequest { key }, patience()).await.expect("an unlock");
}

/// Lets a call begin; it must not end by that.
async fn begin<T>(mut call: std::pin::Pin<&mut impl Future<Output = T>>, came: impl Future<Output = ()>) {
    let mut came = pin!(came);
    std::future::poll_fn(|cx| {
        assert!(call.as_mut().poll(cx).is_pending(), "it did not wait");
        came.as_mut().poll(cx)
    })
    .await;
}

#[test]
fn a_lease_lives_as_long_as_it_is_kept_alive() {
    let member = Member::start(&[]);
    run(async {
        let client = member.client();
        let lease = grant(&client, 2).await;
        let put = PutRequest { key: "k".into(), lease, ..PutRequest::default() };
        client.put(put, patience()).await.expect("a put");
        let mut watcher = client.watcher(false);
        watcher.watch(WatchCreateRequest { key: "k".into(), ..Default::default() }).expect("a watch");
        let mut kept = client.keep_alive(lease);
        // One each third of its time.
        for _ in 0..6 {
            assert_eq!(kept.next().await.expect("it lives").ttl, 2);
        }
        assert_eq!(count(&client, "k").await, 1);
        drop(kept);
        loop {
            let watched = watcher.next().await.expect("the end of the key");
            if watched.response.events.iter().any(|event| event.r#type() == EventType::Delete) {
                break;
            }
        }
        let mut stream = client.keep_alive_stream();
        stream.send(LeaseKeepAliveRequest { id: lease }).await.expect("it is sent");
        let answer = stream.next().await.expect("an answer").expect("one more");
        assert_eq!((answer.id, answer.ttl), (lease, 0));
    });
}

#[test]
fn leases_are_renewed_through_a_restart() {
    let mut member = Member::start(&[]);
    run(async {
        let client = member.client();
        let lease = grant(&client, 5).await;
        let mut kept = client.keep_alive(lease);
        kept.next().await.expect("it lives");
        member.restart();
        for _ in 0..2 {
            assert_eq!(kept.next().await.expect("it lives").ttl, 5);
        }
    });
}

#[test]
fn a_lock_is_passed_on_in_order_and_a_waiter_may_give_up() {
    let member = Member::start(&[]);
    run(async {
        let client = member.client();
        let held = client.lock(lock(grant(&client, 60).await), patience()).await.expect("the lock");
        let leases = [grant(&client, 60).await, grant(&client, 60).await];
        {
            let given_up = grant(&client, 60).await;
            let mut call = pin!(client.lock(lock(given_up), patience()));
            begin(call.as_mut(), until_count(&client, "l/", 2)).await;
        }
        until_count(&client, "l/", 1).await;
        let mut first = pin!(client.lock(lock(leases[0]), patience()));
        begin(first.as_mut(), until_count(&client, "l/", 2)).await;
        let mut second = pin!(client.lock(lock(leases[1]), patience()));
        begin(second.as_mut(), until_count(&client, "l/", 3)).await;
        unlock(&client, held.key).await;
        let first = first.await.expect("the lock");
        assert_eq!(first.key, format!("l/{:x}", leases[0]));
        std::future::poll_fn(|cx| {
            assert!(second.as_mut().poll(cx).is_pending(), "two hold the lock");
            Poll::Ready(())
        })
        .await;
        unlock(&client, first.key).await;
        assert_eq!(second.await.expect("the lock").key, format!("l/{:x}", leases[1]));
    });
}

#[test]
fn the_service_and_a_client_of_its_own_stand_in_one_queue() {
    let member = Member::start(&[]);
    run(async {
        let client = member.client();
        let session = Session::new(&client, 60).await.expect("a session");
        let mut mutex = Mutex::new(&session, b"l");
        mutex.lock().await.expect("the lock");
        let mut call = pin!(client.lock(lock(0), patience()));
        begin(call.as_mut(), until_count(&client, "l/", 2)).await;
        mutex.unlock().await.expect("an unlock");
        let held = call.await.expect("the lock");
        {
            let mut again = pin!(mutex.lock());
            begin(again.as_mut(), until_count(&client, "l/", 2)).await;
            unlock(&client, held.key).await;
            again.await.expect("the lock");
        }
        session.close().await.expect("the end");
        assert_eq!(count(&client, "l/").await, 0);
    });
}

#[test]
fn a_waiter_whose_lease_is_revoked_is_told() {
    let member = Member::start(&[]);
    run(async {
        let client = member.client();
        let held = client.lock(lock(0), patience()).await.expect("the lock");
        let lease = grant(&client, 60).await;
        let mut call = pin!(client.lock(lock(lease), patience()));
        begin(call.as_mut(), until_count(&client, "l/", 2)).await;
        client.revoke(lease, patience()).await.expect("a revoke");
        unlock(&client, held.key).await;
        let Err(Error::Status(status)) = call.await else { panic!("it has the lock") };
        assert_eq!(status, ApiError::SessionExpired.into());
    });
}

#[test]
fn an_election_is_observed_by_its_service_and_by_a_client() {
    let member = Member::start(&[]);
    run(async {
        let client = member.client();
        let session = Session::new(&client, 60).await.expect("a session");
        let name = || Bytes::from_static(b"e");
        let mut answers = client.observe(LeaderRequest { name: name() });
        let other = Election::new(&session, b"e");
        let mut observer = other.observe();
        let campaign = |value: &'static str| CampaignRequest { name: name(), lease: 0, value: value.into() };
        let won = client.campaign(campaign("a"), patience()).await.expect("the election");
        let leader = won.leader.expect("a key");
        let proclaim = ProclaimRequest { leader: Some(leader.clone()), value: "b".into() };
        for value in ["a", "b", "c"] {
            let told = answers.next().await.expect("an answer").expect("one more");
            let seen = observer.next().await.expect("a leader");
            assert_eq!(told.kv.expect("a leader").value, value);
            assert_eq!(seen.kvs[0].value, value);
            match value {
                "a" => drop(client.proclaim(proclaim.clone(), patience()).await.expect("it leads")),
                "b" => {
                    let mut next = pin!(client.campaign(campaign("c"), patience()));
                    begin(next.as_mut(), until_count(&client, "e/", 2)).await;
                    let resign = ResignRequest { leader: Some(leader.clone()) };
                    client.resign(resign, patience()).await.expect("it has led");
                    next.await.expect("the election");
                }
                _ => {}
            }
        }
        let refused = client.proclaim(proclaim, patience()).await.expect_err("it led");
        assert!(refused.is(ApiError::ElectionNotLeader), "{refused}");
    });
}
