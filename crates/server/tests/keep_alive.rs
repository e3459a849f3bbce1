//! The stream of renewals: what a client sends and gets, what a renewal waits for, and what one costs that does not read.
#![allow(missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use server::grpc::keep_alive::renew_here;
use support::bed::{Bed, Client, Stream, bed, bed_opened_anew, frame, header, settle};
use support::{FakeMember, Mood};
use wire::etcdserverpb as pb;
use wire::{ApiError, Code, Status};

const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

async fn grant(client: &mut Client, id: i64, ttl: i64) {
    let granted = client.call("/etcdserverpb.Lease/LeaseGrant", &pb::LeaseGrantRequest { id, ttl }).await;
    assert_eq!(granted.decoded::<pb::LeaseGrantResponse>().id, id);
}

fn open(client: &mut Client, extra: &[(&str, &[u8])]) -> Stream {
    Stream::open(client, KEEP_ALIVE, extra)
}

fn ask(stream: &mut Stream, id: i64) {
    stream.send(&pb::LeaseKeepAliveRequest { id });
}

async fn next(stream: &mut Stream) -> (i64, i64) {
    let answer = stream.next::<pb::LeaseKeepAliveResponse>().await;
    (answer.id, answer.ttl)
}

async fn renew(stream: &mut Stream, id: i64) -> i64 {
    ask(stream, id);
    let (answered, ttl) = next(stream).await;
    assert_eq!(answered, id);
    ttl
}

async fn left(client: &mut Client, id: i64) -> i64 {
    let request = pb::LeaseTimeToLiveRequest { id, keys: false };
    let left = client.call("/etcdserverpb.Lease/LeaseTimeToLive", &request).await;
    left.decoded::<pb::LeaseTimeToLiveResponse>().ttl
}

#[test]
fn a_renewal_gives_a_lease_its_whole_time_again() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 5, 60).await;
        bed.member.put_direct(b"a", b"1".to_vec());
        let mut stream = open(&mut client, &[]);
        bed.member.pass(Duration::from_millis(50_500));
        assert_eq!(left(&mut client, 5).await, 9);
        ask(&mut stream, 5);
        let answer: pb::LeaseKeepAliveResponse = stream.next().await;
        assert_eq!(answer, pb::LeaseKeepAliveResponse { header: header(2), id: 5, ttl: 60 });
        bed.member.pass(Duration::from_millis(500));
        assert_eq!(left(&mut client, 5).await, 59);
        // What is not there answers 0, and the stream goes on.
        assert_eq!(renew(&mut stream, 31415).await, 0);
        assert_eq!(renew(&mut stream, 0).await, 0);
        assert_eq!(renew(&mut stream, 5).await, 60);
        stream.close();
        assert_eq!(stream.end().await, Status::new(Code::Ok, ""));
    });
}

#[test]
fn a_stream_that_asks_for_nothing_ends_well() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let mut stream = open(&mut client, &[]);
        stream.close();
        assert_eq!(stream.end().await, Status::new(Code::Ok, ""));
        assert_eq!(bed.member.rounds(), 0);
    });
}

#[test]
fn all_that_has_come_shares_one_round_and_is_answered_in_order() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        for id in 1..=500 {
            grant(&mut client, id, 60 + id).await;
        }
        let mut streams: Vec<Stream> = (0..4).map(|_| open(&mut client, &[])).collect();
        settle().await;
        let proposals = bed.member.batches().len();
        bed.member.set_mood(Mood::Holds);
        let began = bed.member.rounds();
        // The first round is under way when the others come: they share the next one.
        ask(&mut streams[0], 1);
        settle().await;
        for stream in &mut streams[1..] {
            for id in (1..=500).rev() {
                ask(stream, id);
            }
        }
        settle().await;
        assert_eq!(bed.member.rounds(), began + 1);
        bed.member.answer_held();
        settle().await;
        bed.member.answer_held();
        settle().await;
        assert_eq!(bed.member.rounds(), began + 2);
        assert_eq!(bed.member.batches().len(), proposals + 2, "nothing but the rounds was asked for");
        assert_eq!(next(&mut streams[0]).await, (1, 61));
        bed.member.set_mood(Mood::Answers);
        for stream in &mut streams[1..] {
            for id in (1..=500).rev() {
                assert_eq!(next(stream).await, (id, 60 + id));
            }
        }
    });
}

#[test]
fn answers_leave_together() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        for id in 1..=100 {
            grant(&mut client, id, 60).await;
        }
        let mut stream = open(&mut client, &[]);
        assert_eq!(renew(&mut stream, 1).await, 60);
        let before = bed.writes.get();
        for id in 1..=100 {
            ask(&mut stream, id);
        }
        for id in 1..=100 {
            assert_eq!(next(&mut stream).await, (id, 60));
        }
        // Window updates among them.
        assert!(bed.writes.get() - before <= 6, "{} writes", bed.writes.get() - before);
    });
}

#[test]
fn a_lease_that_has_ended_is_answered_when_it_is_gone() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 5, 10).await;
        grant(&mut client, 6, 100).await;
        let mut stream = open(&mut client, &[]);
        bed.member.pass(Duration::from_secs(11));
        for id in [6, 5, 6] {
            ask(&mut stream, id);
        }
        assert_eq!(next(&mut stream).await, (6, 100), "it does not wait for the one behind it");
        settle().await;
        // Longer than any answer of the member is waited for.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(bed.lane.waiting(), 1);
        let revoked = client.call("/etcdserverpb.Lease/LeaseRevoke", &pb::LeaseRevokeRequest { id: 5 }).await;
        revoked.decoded::<pb::LeaseRevokeResponse>();
        assert_eq!(next(&mut stream).await, (5, 0));
        assert_eq!(next(&mut stream).await, (6, 100));
        assert_eq!(bed.lane.waiting(), 0);
    });
}

#[test]
fn a_stream_that_is_cut_waits_for_nothing() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 5, 10).await;
        bed.member.pass(Duration::from_secs(11));
        let mut streams: Vec<Stream> = (0..3).map(|_| open(&mut client, &[])).collect();
        for stream in &mut streams {
            ask(stream, 5);
        }
        settle().await;
        assert_eq!(bed.lane.waiting(), 3);
        streams[0].requests.send_reset(h2::Reason::CANCEL);
        settle().await;
        assert_eq!(bed.lane.waiting(), 2);
        drop(streams.pop());
        settle().await;
        assert_eq!(bed.lane.waiting(), 1);
        drop((streams, client));
        settle().await;
        assert_eq!(bed.lane.waiting(), 0);
    });
}

#[test]
fn a_member_that_cannot_confirm_that_it_leads_renews_nothing() {
    for failure in [ApiError::NoLeader, ApiError::LeaderChanged] {
        bed(|bed| async move {
            let mut client = bed.client().await;
            grant(&mut client, 5, 60).await;
            bed.member.pass(Duration::from_millis(50_500));
            let mut stream = open(&mut client, &[]);
            bed.member.fail_reads(Some(failure));
            ask(&mut stream, 5);
            assert_eq!(stream.end().await, ApiError::NotPrimaryLessor.into());
            bed.member.fail_reads(None);
            assert_eq!(left(&mut client, 5).await, 9);
        });
    }
    // Nor does one that is not heard.
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 5, 60).await;
        bed.member.pass(Duration::from_millis(50_500));
        let mut stream = open(&mut client, &[]);
        bed.member.set_mood(Mood::Holds);
        ask(&mut stream, 5);
        assert_eq!(stream.end().await, ApiError::NotPrimaryLessor.into());
        bed.member.set_mood(Mood::Answers);
        bed.member.answer_held();
        assert_eq!(left(&mut client, 5).await, 9);
    });
}

/// Rule 14, of what other members ask in their clients' names: one that was deposed and has not heard of it must not tell
/// them that a lease lives which its successor is about to end.
#[test]
fn nor_does_it_renew_what_other_members_ask_for() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 5, 60).await;
        bed.member.pass(Duration::from_millis(50_500));
        for failure in [ApiError::NoLeader, ApiError::LeaderChanged] {
            bed.member.fail_reads(Some(failure));
            assert_eq!(renew_here(&bed.lane, 5).await, Err(ApiError::NotPrimaryLessor.into()));
        }
        bed.member.fail_reads(None);
        bed.member.set_mood(Mood::Holds);
        assert_eq!(renew_here(&bed.lane, 5).await, Err(ApiError::NotPrimaryLessor.into()));
        bed.member.set_mood(Mood::Answers);
        bed.member.answer_held();
        assert_eq!(left(&mut client, 5).await, 9, "nothing was renewed");
        assert_eq!(renew_here(&bed.lane, 5).await, Ok(60));
        assert_eq!(left(&mut client, 5).await, 60);
    });
}

#[test]
fn answers_before_a_failure_are_sent() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 5, 10).await;
        grant(&mut client, 6, 100).await;
        bed.member.pass(Duration::from_secs(11));
        let mut stream = open(&mut client, &[]);
        for id in [6, 5, 6] {
            ask(&mut stream, id);
        }
        assert_eq!(next(&mut stream).await, (6, 100));
        settle().await;
        bed.member.lose_leader();
        // It waits for a leader, as long as for any answer.
        assert_eq!(stream.end().await, ApiError::NoLeader.into());
    });
}

#[test]
fn a_renewal_outlives_a_change_of_leader() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 5, 10).await;
        bed.member.pass(Duration::from_secs(11));
        let mut stream = open(&mut client, &[]);
        ask(&mut stream, 5);
        settle().await;
        bed.member.lose_leader();
        tokio::time::sleep(Duration::from_secs(3)).await;
        // Its time begins anew under the new leader, and so it has not ended.
        bed.member.lead();
        assert_eq!(next(&mut stream).await, (5, 10));
    });
}

#[test]
fn a_stream_that_needs_a_leader_ends_without_one() {
    let needs: &[(&str, &[u8])] = &[("hasleader", b"true")];
    bed(|bed| async move {
        let mut client = bed.client().await;
        let stream = open(&mut client, needs);
        let idle = open(&mut client, &[]);
        settle().await;
        bed.member.lose_leader();
        let began = tokio::time::Instant::now();
        assert_eq!(stream.end().await, ApiError::NoLeader.into());
        assert_eq!((began.elapsed() + Duration::from_millis(1)).as_secs(), 3);
        assert_eq!(open(&mut client, needs).end().await, ApiError::NoLeader.into());
        bed.member.stop();
        assert_eq!(idle.end().await, ApiError::Stopped.into());
    });
}

#[test]
fn a_checkpoint_is_taken_back_before_the_renewal_counts() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        for id in [5, 6, 7] {
            grant(&mut client, id, 1000).await;
        }
        for id in [5, 7] {
            bed.member.checkpoint(id, 400);
        }
        let mut stream = open(&mut client, &[]);
        settle().await;
        let proposals = bed.member.proposals();
        for id in [5, 6, 7] {
            ask(&mut stream, id);
        }
        for id in [5, 6, 7] {
            assert_eq!(next(&mut stream).await, (id, 1000));
        }
        assert_eq!(bed.member.proposals(), proposals + 1, "one for both");
        assert_eq!(renew(&mut stream, 5).await, 1000);
        assert_eq!(bed.member.proposals(), proposals + 1);
    });
}

#[test]
fn faults_end_the_stream_after_what_came_before() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        grant(&mut client, 5, 60).await;
        let mut stream = open(&mut client, &[]);
        ask(&mut stream, 5);
        stream.requests.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 0x0a, 0x7f]), false).unwrap();
        assert_eq!(next(&mut stream).await, (5, 60));
        let status = stream.end().await;
        assert_eq!(status.code, Code::Internal);
        assert!(status.message.starts_with("grpc: failed to unmarshal the received message: "), "{status}");
        let mut stream = open(&mut client, &[]);
        stream.requests.send_data(Bytes::from_static(&[0, 0, 0]), true).unwrap();
        assert_eq!(stream.end().await, Status::new(Code::Internal, "unexpected EOF"));
        let late = open(&mut client, &[("grpc-timeout", b"1S")]);
        assert_eq!(late.end().await, ApiError::ContextDeadlineExceeded.into());
    });
}

#[test]
fn streams_end_with_the_thread() {
    bed(|bed| async move {
        let mut client = bed.client().await;
        let stream = open(&mut client, &[]);
        settle().await;
        bed.lane.drain();
        assert_eq!(stream.end().await, ApiError::Stopped.into());
    });
}

/// As after a snapshot of the leader's: what was on its way to the member that is gone is asked of the next one.
#[test]
fn a_renewal_that_waits_where_the_member_is_opened_anew_is_asked_again() {
    bed_opened_anew(|bed, renewals| async move {
        let mut client = bed.client().await;
        grant(&mut client, 5, 60).await;
        grant(&mut client, 6, 60).await;
        let mut waits_for_a_round = open(&mut client, &[]);
        let mut waits_for_an_end = open(&mut client, &[]);
        // Both have what they wait for from the member that goes.
        bed.member.pass(Duration::from_secs(61));
        ask(&mut waits_for_an_end, 5);
        settle().await;
        bed.member.set_mood(Mood::Holds);
        ask(&mut waits_for_a_round, 6);
        settle().await;
        bed.member.stop();
        settle().await;
        let (next_member, seed) = FakeMember::next();
        for id in [5, 6] {
            next_member.grant_direct(id, 30);
        }
        renewals.send(seed).unwrap();
        assert_eq!(next(&mut waits_for_an_end).await, (5, 30));
        assert_eq!(next(&mut waits_for_a_round).await, (6, 30));
        // And the streams go on.
        assert_eq!(renew(&mut waits_for_an_end, 6).await, 30);
    });
}

#[test]
fn a_renewal_that_the_leader_is_asked_for_goes_on_at_the_next_member() {
    bed_opened_anew(|bed, renewals| async move {
        let mut client = bed.client().await;
        let mut stream = open(&mut client, &[]);
        bed.member.lose_leader();
        ask(&mut stream, 5);
        settle().await;
        bed.member.stop();
        settle().await;
        let (next_member, seed) = FakeMember::next();
        next_member.grant_direct(5, 30);
        renewals.send(seed).unwrap();
        assert_eq!(next(&mut stream).await, (5, 30));
    });
}

/// It would hold its store in memory, and the space of files that were removed.
#[test]
fn a_member_that_is_gone_is_let_go_at_once() {
    bed_opened_anew(|bed, renewals| async move {
        let mut client = bed.client().await;
        // By a stub, by a stream, and by the connection itself.
        grant(&mut client, 5, 60).await;
        let mut stream = open(&mut client, &[]);
        assert_eq!(renew(&mut stream, 5).await, 60);
        let range = pb::RangeRequest { key: "k".into(), ..Default::default() };
        client.call("/etcdserverpb.KV/Range", &range).await.decoded::<pb::RangeResponse>();
        let gone = std::sync::Arc::downgrade(&bed.lane.member());
        bed.member.stop();
        let (_next_member, seed) = FakeMember::next();
        renewals.send(seed).unwrap();
        settle().await;
        assert_eq!(gone.strong_count(), 0);
    });
}

/// Asks for more than fits, in whole windows; says how many were taken.
async fn ask_without_reading(bed: &Bed, stream: &mut Stream, count: usize) {
    let request = frame(&pb::LeaseKeepAliveRequest { id: 5 });
    let many = request.repeat(1000);
    for _ in 0..count / 1000 {
        stream.requests.send_data(many.clone().into(), false).unwrap();
        settle().await;
    }
    assert_eq!(bed.member.proposals(), 1, "nothing but the grant");
}

#[test]
fn a_client_that_does_not_read_is_not_heard_further() {
    const ASKED: usize = 200_000;
    bed(|bed| async move {
        let mut quick = bed.client().await;
        grant(&mut quick, 5, 60).await;
        let mut reader = open(&mut quick, &[]);
        let mut stopped = bed.client().await;
        let mut slow = open(&mut stopped, &[]);
        ask_without_reading(&bed, &mut slow, ASKED).await;
        let rounds = bed.member.rounds();
        // What the client's window holds of answers, and one turn more, is all that was renewed for it.
        assert!(rounds <= (65_535 / 30) / 1000 + 3, "{rounds} rounds");
        assert_eq!(renew(&mut reader, 5).await, 60, "nobody waits for it");
        for _ in 0..ASKED {
            assert_eq!(next(&mut slow).await, (5, 60));
        }
    });
}
