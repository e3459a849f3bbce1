//! The Lock and Election services: who gets what in which order, what a place costs while it waits, and that nobody's
//! place outlives its call.
#![allow(missing_docs, reason = "tests")]

mod support;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, SendStream};
use support::Mood;
use support::bed::{Bed, Client, Stream, bed, ended, frame, header, settle};
use wire::etcdserverpb as pb;
use wire::mvccpb::KeyValue;
use wire::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use wire::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use wire::{ApiError, Code, Status};

const LOCK: &str = "/v3lockpb.Lock/Lock";
const UNLOCK: &str = "/v3lockpb.Lock/Unlock";
const CAMPAIGN: &str = "/v3electionpb.Election/Campaign";
const PROCLAIM: &str = "/v3electionpb.Election/Proclaim";
const LEADER: &str = "/v3electionpb.Election/Leader";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const RESIGN: &str = "/v3electionpb.Election/Resign";

async fn grant(client: &mut Client, id: i64) {
    let request = pb::LeaseGrantRequest { id, ttl: 600 };
    let granted = client.call("/etcdserverpb.Lease/LeaseGrant", &request).await;
    assert_eq!(granted.decoded::<pb::LeaseGrantResponse>().id, id);
}

async fn revoke(client: &mut Client, id: i64) {
    let request = pb::LeaseRevokeRequest { id };
    let revoked = client.call("/etcdserverpb.Lease/LeaseRevoke", &request).await;
    revoked.decoded::<pb::LeaseRevokeResponse>();
}

/// All that is stored.
async fn keys(client: &mut Client) -> Vec<KeyValue> {
    let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    client.call("/etcdserverpb.KV/Range", &all).await.decoded::<pb::RangeResponse>().kvs
}

async fn names(client: &mut Client) -> Vec<Bytes> {
    keys(client).await.into_iter().map(|kv| kv.key).collect()
}

/// A call that may wait.
struct Call {
    response: ResponseFuture,
    requests: SendStream<Bytes>,
}

impl Call {
    /// Asks, and lets it come as far as it can.
    async fn begin(client: &mut Client, path: &str, extra: &[(&str, &[u8])], message: Bytes) -> Call {
        poll_fn(|cx| client.requests.poll_ready(cx)).await.unwrap();
        let (response, mut requests) = client.open(path, extra);
        requests.send_data(message, true).unwrap();
        settle().await;
        Call { response, requests }
    }

    async fn lock(client: &mut Client, name: &str, lease: i64) -> Call {
        Call::begin(client, LOCK, &[], lock(name, lease)).await
    }

    async fn end(self) -> support::bed::Ended {
        ended(self.response).await
    }

    async fn key(self) -> Bytes {
        self.end().await.decoded::<LockResponse>().key
    }

    async fn cancel(mut self) {
        self.requests.send_reset(Reason::CANCEL);
        settle().await;
    }
}

fn lock(name: &str, lease: i64) -> Bytes {
    frame(&LockRequest { name: name.to_owned().into(), lease })
}

async fn unlock(client: &mut Client, key: &'static str) {
    let ended = client.call(UNLOCK, &UnlockRequest { key: key.into() }).await;
    ended.decoded::<UnlockResponse>();
    settle().await;
}

fn unknown(error: ApiError) -> Status {
    Status::new(Code::Unknown, error.text())
}

#[test]
fn a_free_lock_is_taken_at_once() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 0x1f).await;
        let rounds = bed.member.rounds();
        let taken = client.raw(LOCK, &[], lock("free", 0x1f)).await.decoded::<LockResponse>();
        assert_eq!(taken, LockResponse { header: header(2), key: "free/1f".into() });
        assert_eq!(bed.member.rounds(), rounds, "one write is all it takes");
        let again = client.raw(LOCK, &[], lock("free", 0x1f)).await.decoded::<LockResponse>();
        assert_eq!(again, taken);
        let stored = keys(&mut client).await;
        let place = KeyValue {
            key: "free/1f".into(),
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            lease: 0x1f,
            ..Default::default()
        };
        assert_eq!(stored, [place]);
        let ended = client.call(UNLOCK, &UnlockRequest { key: "free/1f".into() }).await;
        assert_eq!(ended.decoded::<UnlockResponse>().header, header(3));
        // One that is not there is unlocked all the same.
        let ended = client.call(UNLOCK, &UnlockRequest { key: "free/1f".into() }).await;
        assert_eq!(ended.decoded::<UnlockResponse>().header, header(3));
    });
}

#[test]
fn leases_have_their_numbers_as_go_writes_them() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        for (id, key) in [(-0x1f, "n/-1f"), (i64::MIN, "n/-8000000000000000"), (10, "n/a")] {
            grant(&mut client, id).await;
            let taken = client.raw(LOCK, &[], lock("n", id)).await.decoded::<LockResponse>();
            assert_eq!(taken.key, key);
            client.call(UNLOCK, &UnlockRequest { key: taken.key }).await.decoded::<UnlockResponse>();
        }
        let taken = client.raw(LOCK, &[], lock("own", 0)).await.decoded::<LockResponse>();
        let lease = keys(&mut client).await[0].lease;
        assert!(lease > 0);
        assert_eq!(taken.key, format!("own/{lease:x}"));
        let request = pb::LeaseTimeToLiveRequest { id: lease, keys: false };
        let left = client.call("/etcdserverpb.Lease/LeaseTimeToLive", &request).await;
        assert_eq!(left.decoded::<pb::LeaseTimeToLiveResponse>().granted_ttl, 60);
    });
}

#[test]
fn a_lock_goes_from_one_to_the_next_and_wakes_nobody_else() {
    const WAITERS: i64 = 100;
    bed(|bed| async move {
        let mut client = bed.client().await;
        for id in 1..=WAITERS + 1 {
            grant(&mut client, id).await;
        }
        let mut held = client.raw(LOCK, &[], lock("q", 1)).await.decoded::<LockResponse>().key;
        let mut waiters = Vec::new();
        for id in 2..=WAITERS + 1 {
            waiters.push(Call::lock(&mut client, "q", id).await);
        }
        // Others do not matter, also where their names begin alike.
        for name in ["q/x", "qq", ""] {
            client.raw(LOCK, &[], lock(name, 1)).await.decoded::<LockResponse>();
        }
        assert_eq!(bed.lane.watches(), WAITERS as usize, "one a waiter");
        for (n, waiter) in waiters.into_iter().enumerate() {
            let (rounds, proposals) = (bed.member.rounds(), bed.member.proposals());
            client.call(UNLOCK, &UnlockRequest { key: held }).await.decoded::<UnlockResponse>();
            held = waiter.key().await;
            assert_eq!(held, format!("q/{:x}", n + 2));
            settle().await;
            assert_eq!(bed.member.rounds(), rounds + 1, "one waiter was woken");
            assert_eq!(bed.member.proposals(), proposals + 1, "nothing was written but the unlock");
        }
        assert_eq!(bed.lane.watches(), 0);
    });
}

/// One holds the lock, two wait.
async fn three(bed: &Bed) -> (Client, Call, Call) {
    let mut client = bed.client().await;
    for id in 1..=3 {
        grant(&mut client, id).await;
    }
    client.raw(LOCK, &[], lock("q", 1)).await.decoded::<LockResponse>();
    let second = Call::lock(&mut client, "q", 2).await;
    let third = Call::lock(&mut client, "q", 3).await;
    assert_eq!(names(&mut client).await, ["q/1", "q/2", "q/3"]);
    (client, second, third)
}

#[test]
fn a_waiter_that_gives_up_leaves_the_queue() {
    bed(|bed| async move {
        let (mut client, second, third) = three(&bed).await;
        second.cancel().await;
        assert_eq!(names(&mut client).await, ["q/1", "q/3"]);
        assert_eq!(bed.lane.watches(), 1);
        unlock(&mut client, "q/1").await;
        assert_eq!(third.key().await, "q/3");
        assert_eq!(bed.lane.waiting(), 0);
    });
}

#[test]
fn a_deadline_ends_the_wait_and_the_place() {
    bed(|bed| async move {
        let (mut client, _second, _third) = three(&bed).await;
        grant(&mut client, 4).await;
        let late = client.raw(LOCK, &[("grpc-timeout", b"2S")], lock("q", 4)).await;
        late.refused(ApiError::ContextDeadlineExceeded);
        settle().await;
        assert_eq!(names(&mut client).await, ["q/1", "q/2", "q/3"]);
    });
}

#[test]
fn a_connection_that_breaks_ends_the_wait_and_the_place() {
    bed(|bed| async move {
        let (mut client, _second, third) = three(&bed).await;
        let mut other = bed.client().await;
        grant(&mut client, 4).await;
        let fourth = Call::lock(&mut other, "q", 4).await;
        assert_eq!(names(&mut client).await.len(), 4);
        drop((fourth, other.requests, other.pings));
        other.driver.abort();
        settle().await;
        assert_eq!(names(&mut client).await, ["q/1", "q/2", "q/3"]);
        drop(third);
        settle().await;
        assert_eq!(names(&mut client).await, ["q/1", "q/2"]);
    });
}

#[test]
fn a_call_that_is_given_up_before_it_has_a_place_leaves_none_if_the_lease_is_its_own() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        bed.member.set_mood(Mood::Holds);
        let call = Call::lock(&mut client, "q", 0).await;
        // The lease; the place is held in its turn.
        bed.member.answer_held();
        settle().await;
        call.cancel().await;
        bed.member.set_mood(Mood::Answers);
        bed.member.answer_held();
        settle().await;
        assert_eq!(names(&mut client).await, [""; 0]);
        assert_eq!(bed.member.revision_now(), 3, "taken, and given up");
    });
}

/// Behind others its place would hold up all that come after it until the lease ends.
#[test]
fn a_call_that_is_given_up_before_it_has_a_place_leaves_none_behind_others() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 1).await;
        grant(&mut client, 2).await;
        let held = Call::lock(&mut client, "q", 1).await.end().await;
        assert_eq!(held.status.code, Code::Ok);
        bed.member.set_mood(Mood::Holds);
        let call = Call::lock(&mut client, "q", 2).await;
        call.cancel().await;
        bed.member.set_mood(Mood::Answers);
        bed.member.answer_held();
        settle().await;
        assert_eq!(names(&mut client).await, ["q/1"]);
    });
}

/// Or there would be two owners: the second call finds the place of the first and is told that it is its own.
#[test]
fn whoever_asks_again_with_its_lease_after_a_cancel_keeps_the_place() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 1).await;
        grant(&mut client, 2).await;
        for (method, name, message) in [(LOCK, "q", lock("q", 1)), (CAMPAIGN, "e", frame(&campaign(1, "v")))]
        {
            bed.member.set_mood(Mood::Holds);
            let first = Call::begin(&mut client, method, &[], message.clone()).await;
            first.cancel().await;
            let again = Call::begin(&mut client, method, &[], message).await;
            bed.member.set_mood(Mood::Answers);
            bed.member.answer_held();
            settle().await;
            assert_eq!(again.end().await.status.code, Code::Ok);
            settle().await;
            let mut other = Call::lock(&mut client, name, 2).await;
            let answered = poll_fn(|cx| Poll::Ready(Pin::new(&mut other.response).poll(cx).is_ready())).await;
            assert!(!answered, "two have {name}");
            other.cancel().await;
        }
    });
}

#[test]
fn whoever_asks_again_for_what_it_has_does_not_lose_it() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 1).await;
        client.raw(LOCK, &[], lock("q", 1)).await.decoded::<LockResponse>();
        bed.member.set_mood(Mood::Holds);
        let call = Call::lock(&mut client, "q", 1).await;
        call.cancel().await;
        bed.member.set_mood(Mood::Answers);
        bed.member.answer_held();
        settle().await;
        assert_eq!(names(&mut client).await, ["q/1"]);
    });
}

#[test]
fn a_place_is_given_up_once_the_member_takes_it() {
    bed(|bed| async move {
        let (mut client, second, third) = three(&bed).await;
        bed.member.set_mood(Mood::Refuses);
        second.cancel().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(bed.member.revision_now(), 4);
        bed.member.set_mood(Mood::Answers);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(names(&mut client).await, ["q/1", "q/3"]);
        unlock(&mut client, "q/1").await;
        assert_eq!(third.key().await, "q/3");
        let proposals = bed.member.proposals();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(bed.member.proposals(), proposals, "it was done once");
    });
}

#[test]
fn a_place_that_is_given_up_is_not_taken_from_who_has_it_next() {
    bed(|bed| async move {
        let (mut client, second, _third) = three(&bed).await;
        bed.member.set_mood(Mood::Refuses);
        second.cancel().await;
        // The lease has a new place by the time that the old one is given up.
        bed.member.delete_direct(b"q/2");
        bed.member.put_direct(b"q/2", b"new".to_vec());
        bed.member.set_mood(Mood::Answers);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(names(&mut client).await, ["q/1", "q/2", "q/3"]);
    });
}

#[test]
fn a_waiter_whose_lease_ends_is_skipped_and_told() {
    bed(|bed| async move {
        let (mut client, second, third) = three(&bed).await;
        revoke(&mut client, 2).await;
        settle().await;
        unlock(&mut client, "q/1").await;
        assert_eq!(third.key().await, "q/3");
        second.end().await.refused(ApiError::SessionExpired);
    });
}

#[test]
fn a_holder_whose_lease_ends_passes_the_lock_on() {
    bed(|bed| async move {
        let (mut client, second, _third) = three(&bed).await;
        revoke(&mut client, 1).await;
        assert_eq!(second.key().await, "q/2");
    });
}

#[test]
fn a_wait_outlives_a_change_of_leader() {
    bed(|bed| async move {
        let (mut client, second, _third) = three(&bed).await;
        bed.member.fail_reads(Some(ApiError::LeaderChanged));
        unlock(&mut client, "q/1").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        bed.member.fail_reads(None);
        assert_eq!(second.key().await, "q/2");
    });
}

#[test]
fn a_wait_ends_with_the_thread() {
    bed(|bed| async move {
        let (_client, second, third) = three(&bed).await;
        bed.lane.drain();
        second.end().await.refused(ApiError::Stopped);
        third.end().await.refused(ApiError::Stopped);
    });
    bed(|bed| async move {
        let (_client, second, _third) = three(&bed).await;
        bed.member.stop();
        second.end().await.refused(ApiError::Stopped);
    });
}

#[test]
fn errors_have_their_texts_and_no_codes() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        client.raw(LOCK, &[], lock("q", 4242)).await.refused(unknown(ApiError::LeaseNotFound));
        client.call(UNLOCK, &UnlockRequest::default()).await.refused(unknown(ApiError::EmptyKey));
        let request = CampaignRequest { name: "e".into(), lease: 4242, value: "v".into() };
        client.call(CAMPAIGN, &request).await.refused(unknown(ApiError::LeaseNotFound));
        let long = CampaignRequest { value: vec![b'v'; (1 << 21) - 100].into(), ..request };
        client.call(CAMPAIGN, &long).await.refused(unknown(ApiError::RequestTooLarge));
        client.call(PROCLAIM, &ProclaimRequest::default()).await.refused(ApiError::MissingLeaderKey);
        client.call(RESIGN, &ResignRequest::default()).await.refused(ApiError::MissingLeaderKey);
        let nobody = LeaderKey { lease: 4242, ..LeaderKey::default() };
        let request = ResignRequest { leader: Some(nobody) };
        client.call(RESIGN, &request).await.refused(unknown(ApiError::EmptyKey));
        let request = LeaderRequest { name: "e".into() };
        client.call(LEADER, &request).await.refused(ApiError::ElectionNoLeader);
        bed.member.set_mood(Mood::Refuses);
        client.raw(LOCK, &[], lock("q", 4242)).await.refused(unknown(ApiError::TooManyRequests));
        bed.member.status.set_learner(true);
        client.raw(LOCK, &[], lock("q", 4242)).await.refused(ApiError::NotSupportedForLearner);
        assert_eq!(bed.member.revision_now(), 1);
    });
}

fn campaign(lease: i64, value: &str) -> CampaignRequest {
    CampaignRequest { name: "e".into(), lease, value: value.to_owned().into() }
}

async fn elect(client: &mut Client, lease: i64, value: &str) -> LeaderKey {
    let ended = client.call(CAMPAIGN, &campaign(lease, value)).await;
    ended.decoded::<CampaignResponse>().leader.unwrap()
}

async fn led(client: &mut Client) -> String {
    let ended = client.call(LEADER, &LeaderRequest { name: "e".into() }).await;
    let value = ended.decoded::<LeaderResponse>().kv.unwrap().value;
    String::from_utf8(value.to_vec()).unwrap()
}

#[test]
fn candidates_are_elected_in_their_order() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        for id in 1..=3 {
            grant(&mut client, id).await;
        }
        let won = client.call(CAMPAIGN, &campaign(1, "a")).await.decoded::<CampaignResponse>();
        let key = LeaderKey { name: "e".into(), key: "e/1".into(), rev: 2, lease: 1 };
        assert_eq!(won, CampaignResponse { header: header(2), leader: Some(key.clone()) });
        assert_eq!(led(&mut client).await, "a");
        // Again, with the same value and another.
        assert_eq!(elect(&mut client, 1, "a").await, key);
        assert_eq!(bed.member.revision_now(), 2);
        assert_eq!(elect(&mut client, 1, "b").await, key);
        assert_eq!(led(&mut client).await, "b");
        let second = Call::begin(&mut client, CAMPAIGN, &[], frame(&campaign(2, "c"))).await;
        let third = Call::begin(&mut client, CAMPAIGN, &[], frame(&campaign(3, "d"))).await;
        assert_eq!(led(&mut client).await, "b");
        // A candidate may resign as well.
        second.cancel().await;
        let proclaim = ProclaimRequest { leader: Some(key.clone()), value: "z".into() };
        let proclaimed = client.call(PROCLAIM, &proclaim).await.decoded::<ProclaimResponse>();
        assert_eq!(proclaimed.header, header(bed.member.revision_now()));
        assert_eq!(led(&mut client).await, "z");
        let stale = LeaderKey { rev: 1, ..key.clone() };
        let resigned = client.call(RESIGN, &ResignRequest { leader: Some(stale) }).await;
        resigned.decoded::<ResignResponse>();
        assert_eq!(led(&mut client).await, "z");
        client.call(RESIGN, &ResignRequest { leader: Some(key) }).await.decoded::<ResignResponse>();
        let elected = third.end().await.decoded::<CampaignResponse>().leader.unwrap();
        assert_eq!(elected.key, "e/3");
        assert_eq!(led(&mut client).await, "d");
        client.call(PROCLAIM, &proclaim).await.refused(ApiError::ElectionNotLeader);
    });
}

#[test]
fn a_candidate_that_has_lost_its_lease_is_not_elected() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        for id in 1..=2 {
            grant(&mut client, id).await;
        }
        let key = elect(&mut client, 1, "a").await;
        let second = Call::begin(&mut client, CAMPAIGN, &[], frame(&campaign(2, "b"))).await;
        revoke(&mut client, 2).await;
        client.call(RESIGN, &ResignRequest { leader: Some(key) }).await.decoded::<ResignResponse>();
        second.end().await.refused(ApiError::ElectionNotLeader);
    });
}

async fn observe(client: &mut Client, extra: &[(&str, &[u8])]) -> Stream {
    let mut stream = Stream::open(client, OBSERVE, extra);
    stream.send(&LeaderRequest { name: "e".into() });
    settle().await;
    stream
}

async fn seen(stream: &mut Stream) -> (i64, String) {
    let response = stream.next::<LeaderResponse>().await;
    let value = response.kv.unwrap().value.to_vec();
    (response.header.unwrap().revision, String::from_utf8(value).unwrap())
}

#[test]
fn an_observer_sees_each_leader_and_what_it_proclaims() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        for id in 1..=2 {
            grant(&mut client, id).await;
        }
        let mut early = observe(&mut client, &[]).await;
        let key = elect(&mut client, 1, "a").await;
        let second = Call::begin(&mut client, CAMPAIGN, &[], frame(&campaign(2, "x"))).await;
        let mut late = observe(&mut client, &[]).await;
        assert_eq!(seen(&mut early).await, (2, "a".to_owned()));
        assert_eq!(seen(&mut late).await, (3, "a".to_owned()));
        for (n, value) in ["b", "c"].into_iter().enumerate() {
            let request = ProclaimRequest { leader: Some(key.clone()), value: value.into() };
            client.call(PROCLAIM, &request).await.decoded::<ProclaimResponse>();
            for stream in [&mut early, &mut late] {
                assert_eq!(seen(stream).await, (4 + n as i64, value.to_owned()));
            }
        }
        client.call(RESIGN, &ResignRequest { leader: Some(key) }).await.decoded::<ResignResponse>();
        second.end().await.decoded::<CampaignResponse>();
        for stream in [&mut early, &mut late] {
            assert_eq!(seen(stream).await, (6, "x".to_owned()));
        }
        assert_eq!(bed.lane.watches(), 2);
        drop(late);
        settle().await;
        assert_eq!(bed.lane.watches(), 1);
        bed.lane.drain();
        assert_eq!(early.end().await, ApiError::Stopped.into());
    });
}

#[test]
fn an_observer_that_needs_a_leader_of_the_member_ends_without_one() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let stream = observe(&mut client, &[("hasleader", b"true")]).await;
        bed.member.lose_leader();
        assert_eq!(stream.end().await, ApiError::NoLeader.into());
    });
}

#[test]
fn an_observer_that_does_not_read_costs_a_bounded_amount() {
    const VALUE_BYTES: usize = 32 << 10;
    const PROCLAIMED: i64 = 300;
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 1).await;
        let key = elect(&mut client, 1, "a").await;
        let mut other = bed.client().await;
        let mut slow = observe(&mut other, &[]).await;
        let mut most = 0;
        for _ in 0..PROCLAIMED {
            let request =
                ProclaimRequest { leader: Some(key.clone()), value: vec![b'v'; VALUE_BYTES].into() };
            client.call(PROCLAIM, &request).await.decoded::<ProclaimResponse>();
            settle().await;
            most = most.max(bed.lane.watch_bytes());
        }
        assert!(most >= 1 << 20, "{most}: it was not slow");
        assert!(most <= (1 << 20) + VALUE_BYTES + 200, "{most} bytes wait");
        while seen(&mut slow).await.0 < PROCLAIMED + 2 {}
    });
}
