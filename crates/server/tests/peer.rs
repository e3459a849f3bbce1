//! Two transports and more over pipes: messages by every way, cuts, stops, bounds, snapshots.
#![allow(missing_docs, reason = "tests")]

#[path = "peer/bed.rs"]
#[allow(dead_code, reason = "each user takes its part")]
mod bed;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft::{Body, ConfState, Index, Message, NodeId, Snapshot, Term};
use server::config::Url;
use server::listen::{Listener, Role};
use server::peer::{Database, Handle, Identity, Limits, PeerThread, Question, Settings, ask, is_ours};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use bed::{FakeHost, Member, Net, connected, limits, on_paused_clock, pair, until, url};

fn heartbeat(commit: u64) -> Body {
    Body::Heartbeat { commit: Index(commit), context: None }
}

#[test]
fn messages_go_by_both_streams_in_order() {
    on_paused_clock(async {
        let (net, one, two) = pair(limits()).await;
        assert_eq!(net.taps("m2").len(), 3, "two streams and a probe");
        let mut expected = Vec::new();
        for round in 0..50_u64 {
            let append = one.append(&two, round * 3, &[10, 0, 3000]);
            let beat = one.message(&two, heartbeat(round));
            expected.push((append.clone(), beat.clone()));
            one.handle.send(vec![append, beat]);
        }
        // One that is copied into no buffer.
        let large = one.append(&two, 150, &[500_000]);
        one.handle.send(vec![large.clone()]);
        two.handle.send(vec![two.message(&one, Body::AppendResponse { index: Index(3), reject: None })]);
        until("all messages", || {
            two.host.told().messages.len() == 101 && one.host.told().messages.len() == 1
        })
        .await;
        let (appends, beats): (Vec<Message>, Vec<Message>) =
            two.host.messages().into_iter().partition(|message| matches!(message.body, Body::Append { .. }));
        let (mut sent_appends, sent_beats): (Vec<Message>, Vec<Message>) = expected.into_iter().unzip();
        sent_appends.push(large);
        assert!(appends == sent_appends, "{} appends", appends.len());
        assert_eq!(beats, sent_beats);
        assert!(two.host.told().batches < 50, "what comes together is handed on together");
        assert_eq!(net.taps("m2").len(), 3, "nothing was posted");
        let stats = one.stats(&two);
        assert_eq!(stats.queued_bytes.get(), 0);
        // What follows on is sent without a head of its own: lengths and fields make some 55 bytes of each append.
        let payload = 50 * 3010 + 500_000;
        assert!((payload..payload + 50 * 100 + 2000).contains(&stats.sent_bytes.get()), "{stats:?}");
    });
}

#[test]
fn an_idle_stream_lives_and_a_mute_one_is_cut() {
    on_paused_clock(async {
        let (net, one, two) = pair(limits()).await;
        sleep(Duration::from_secs(600)).await;
        assert_eq!(one.stats(&two).dials.get(), 2, "nothing was dialled again");
        assert_eq!(one.stats(&two).disconnects.get(), 0);
        assert!(one.stats(&two).probes.get() > 100);
        assert_eq!(one.stats(&two).probes_lost.get(), 0);
        for tap in net.taps("m2").iter().chain(&net.taps("m1a")) {
            tap.shut(true);
        }
        let started = Instant::now();
        until("cut", || one.stats(&two).active_since().is_none()).await;
        let took = started.elapsed();
        assert!(took <= Duration::from_millis(5001), "{took:?}");
        connected(&one, &two).await;
    });
}

#[test]
fn without_a_stream_messages_are_posted_and_answered_by_who_knows_no_peer() {
    on_paused_clock(async {
        let net = Rc::<Net>::default();
        let (one, two) = (Member::start(&net, 0x1a, limits()), Member::start(&net, 2, limits()));
        // Two has never heard of one, so it dials no streams.
        one.meet(&two);
        let vote = one.message(&two, Body::Vote { last: (Index(3), Term(1)), transfer: false });
        one.handle.send(vec![vote.clone(), one.message(&two, heartbeat(1))]);
        until("both posted", || two.host.told().messages.len() == 2).await;
        assert!(two.host.messages().contains(&vote));
        // But it was told where one is.
        let answer = two.message(&one, Body::VoteResponse { reject: false });
        two.handle.send(vec![answer.clone()]);
        until("the answer", || one.host.messages() == [answer.clone()]).await;
        assert!(two.handle.stats().is_empty(), "a stranger is no peer");
        // Once it is a member, streams are dialled.
        two.meet(&one);
        connected(&one, &two).await;
    });
}

#[test]
fn a_stopped_reader_costs_a_bounded_number_of_bytes() {
    on_paused_clock(async {
        let bounds = limits();
        let (net, one, two) = pair(bounds.clone()).await;
        one.host.told().unreachable.clear();
        for tap in net.taps("m1a") {
            tap.shut(true);
        }
        let mut rounds = 0;
        while one.stats(&two).dropped.get() < 100 {
            let appends = (0..10).map(|n| one.append(&two, (rounds * 10 + n) * 2, &[20_000, 20_000]));
            one.handle.send(appends.collect());
            rounds += 1;
            tokio::task::yield_now().await;
            assert!(rounds < 1000, "nothing is dropped");
        }
        let stats = one.stats(&two);
        assert!(stats.queued_bytes_peak.get() <= bounds.queue_bytes_max as u64, "{stats:?}");
        // Beside the queue there are two pieces in the connection's buffers.
        let under_way = stats.sent_bytes.get();
        assert!(under_way <= 1 << 20, "{under_way} bytes are under way");
        let reports = one.host.told().unreachable.len();
        assert!((1..=rounds as usize).contains(&reports), "{reports} reports in {rounds} rounds");
        // It is given up after a while, and all that waited is gone.
        until("detached", || one.stats(&two).queued_bytes.get() == 0).await;
        assert!(
            one.host.told().unreachable.len() > reports,
            "consensus is told that what was under way is lost"
        );
        net.forget("m1a");
        connected(&one, &two).await;
    });
}

#[test]
fn messages_that_the_peer_thread_has_not_taken_are_bounded_too() {
    on_paused_clock(async {
        let (_net, one, two) = pair(limits()).await;
        let message = one.append(&two, 0, &[1 << 20]);
        // No turn of the peer thread comes between.
        for _ in 0..100 {
            one.handle.send(vec![message.clone()]);
        }
        until("reported", || !one.host.told().unreachable.is_empty()).await;
        let stats = one.stats(&two);
        assert!(stats.dropped.get() >= 37, "{stats:?}");
        assert_eq!(one.host.told().unreachable, [two.id], "once");
    });
}

#[test]
fn what_consensus_has_no_room_for_is_dropped_and_counted() {
    on_paused_clock(async {
        let (_net, one, two) = pair(limits()).await;
        *two.host.room.lock().unwrap() = Some(3);
        one.handle.send((0..10).map(|n| one.message(&two, heartbeat(n))).collect());
        until("dropped", || two.stats(&one).received_failures.get() == 7).await;
        assert_eq!(two.host.messages().len(), 3);
        *two.host.room.lock().unwrap() = None;
        one.handle.send(vec![one.message(&two, heartbeat(11))]);
        until("more", || two.host.messages().len() == 4).await;
        assert_eq!(two.stats(&one).disconnects.get(), 0, "the stream goes on");
    });
}

#[test]
fn a_connection_that_is_cut_comes_back() {
    on_paused_clock(async {
        let (net, one, two) = pair(limits()).await;
        for round in 1..=5 {
            net.cut_all();
            until("reported", || one.host.told().unreachable.contains(&two.id)).await;
            let before = one.stats(&two).dials.get();
            until("dialled", || one.stats(&two).dials.get() >= before + 2).await;
            until("streams", || net.taps("m2").len() >= 3 && net.taps("m1a").len() >= 3).await;
            one.host.told().unreachable.clear();
            one.handle.send(vec![one.message(&two, heartbeat(round)), one.append(&two, round, &[5])]);
            until("messages", || two.host.messages().len() as u64 == 2 * round).await;
        }
        assert!(one.stats(&two).disconnects.get() >= 5);
    });
}

#[test]
fn who_is_not_there_is_dialled_less_and_less_and_at_once_when_it_shows_itself() {
    on_paused_clock(async {
        let (net, one, two) = pair(limits()).await;
        net.listen("m2", None);
        net.cut_all();
        sleep(Duration::from_secs(10)).await;
        let before = one.stats(&two).dials.get();
        sleep(Duration::from_secs(100)).await;
        let dials = one.stats(&two).dials.get() - before;
        // Two streams, each between half a second and a second; and two's own dials of one kick it on the way.
        assert!((200..=420).contains(&dials), "{dials} dials");
        assert!(one.stats(&two).probes_lost.get() > 10);
        net.listen("m2", Some(two.transport.clone()));
        connected(&one, &two).await;
    });
}

#[test]
fn members_come_move_and_go() {
    on_paused_clock(async {
        let (net, one, two) = pair(limits()).await;
        // It moves to a place where it is reached under another name.
        net.listen("elsewhere", Some(two.transport.clone()));
        net.listen("m2", None);
        one.handle.update_peer(two.id, vec!["http://elsewhere:1".into()]);
        net.cut_all();
        until("dialled there", || net.taps("elsewhere").len() >= 2).await;
        one.handle.send(vec![one.message(&two, heartbeat(1))]);
        until("a message", || two.host.messages().len() == 1).await;

        // A third one joins.
        let three = Member::start(&net, 3, limits());
        for member in [&one, &two] {
            member.meet(&three);
            three.meet(member);
        }
        connected(&one, &three).await;
        three.handle.send(vec![three.message(&one, heartbeat(1))]);
        until("a message", || one.host.messages().len() == 1).await;

        // And leaves: it is told so where it dials, and where it posts.
        one.host.gone.lock().unwrap().insert(three.id);
        one.handle.remove_peer(three.id);
        until("told", || three.host.told().removed > 0).await;
        assert!(!one.handle.stats().contains_key(&three.id));
        let told = three.host.told().removed;
        three.handle.send(vec![three.message(&one, heartbeat(2))]);
        until("told again", || three.host.told().removed > told).await;
        assert_eq!(one.host.messages().len(), 1, "nothing of it is taken");
    });
}

#[test]
fn each_url_of_a_member_is_tried() {
    on_paused_clock(async {
        let net = Rc::<Net>::default();
        let (one, two) = (Member::start(&net, 0x1a, limits()), Member::start(&net, 2, limits()));
        two.meet(&one);
        one.handle.add_peer(two.id, vec!["no url".into(), "http://nobody:1".into(), url(2)]);
        connected(&one, &two).await;
    });
}

#[test]
fn read_indexes_are_counted() {
    on_paused_clock(async {
        let (_net, one, two) = pair(limits()).await;
        for context in 1..=3 {
            let question = Message { term: Term(0), ..one.message(&two, Body::ReadIndex { context }) };
            one.handle.send(vec![question]);
        }
        until("questions", || two.host.messages().len() == 3).await;
        assert_eq!(one.stats(&two).read_indexes_sent.get(), 3);
        assert_eq!(two.stats(&one).read_indexes_received.get(), 3);
    });
}

const CHUNK: usize = 64 << 10;

fn snapshot(from: &Member, to: &Member) -> Message {
    let conf = ConfState { voters: vec![NodeId(2), NodeId(0x1a)], learners: vec![] };
    let snapshot = Snapshot { index: Index(300), term: Term(2), conf, data: Bytes::from_static(b"{}") };
    from.message(to, Body::Snapshot { snapshot })
}

/// A database of so many chunks, and how many of them have been taken.
fn database(chunks: u64) -> (Database, Rc<std::cell::Cell<u64>>) {
    let (sender, receiver) = mpsc::channel(1);
    let made = Rc::<std::cell::Cell<u64>>::default();
    let counter = made.clone();
    spawn_local(async move {
        for _ in 0..chunks {
            if sender.send(Ok(Bytes::from(vec![7; CHUNK]))).await.is_err() {
                return;
            }
            counter.set(counter.get() + 1);
        }
    });
    (Database { bytes: chunks * CHUNK as u64, chunks: receiver }, made)
}

#[test]
fn a_snapshot_waits_for_its_receiver_and_arrives_before_its_message() {
    on_paused_clock(async {
        let (_net, one, two) = pair(limits()).await;
        let disk = two.host.disk.lock().await;
        let chunks = 1000;
        let (database, made) = database(chunks);
        one.handle.send_snapshot(snapshot(&one, &two), database);
        sleep(Duration::from_secs(20)).await;
        let ahead = made.get() * CHUNK as u64;
        assert!((CHUNK as u64..4 << 20).contains(&ahead), "{ahead} bytes are made before anybody reads them");
        assert_eq!(one.stats(&two).snapshots_in_flight.get(), 1);
        assert!(two.host.messages().is_empty());
        drop(disk);
        until("reported", || !one.host.told().snapshots.is_empty()).await;
        assert_eq!(one.host.told().snapshots, [(two.id, 300, true)]);
        let bytes = chunks * CHUNK as u64;
        assert_eq!(two.host.told().databases, [(300, Some(bytes), Ok(bytes))]);
        assert_eq!(two.host.messages(), [snapshot(&one, &two)]);
        assert_eq!(one.stats(&two).snapshots_sent.get(), 1);
        assert_eq!(one.stats(&two).snapshots_in_flight.get(), 0);
        assert_eq!(two.stats(&one).snapshots_received.get(), 1);
    });
}

/// A leader that dies while the last of its database is made durable: consensus still hears of what is there.
#[test]
fn a_snapshot_is_taken_though_its_sender_has_gone() {
    on_paused_clock(async {
        let (_net, one, two) = pair(limits()).await;
        let disk = two.host.disk.lock().await;
        // Few enough to be under way as a whole.
        let (database, made) = database(2);
        one.handle.send_snapshot(snapshot(&one, &two), database);
        until("sent", || made.get() == 2).await;
        sleep(Duration::from_secs(1)).await;
        one.handle.stop();
        sleep(Duration::from_secs(1)).await;
        assert!(two.host.messages().is_empty());
        drop(disk);
        until("the message", || two.host.messages() == [snapshot(&one, &two)]).await;
        assert_eq!(two.stats(&one).snapshots_received.get(), 1);
    });
}

#[test]
fn a_snapshot_that_is_cut_never_looks_whole() {
    on_paused_clock(async {
        let (net, one, two) = pair(limits()).await;
        // The connection breaks in the middle.
        let (whole, _) = database(1000);
        let disk = two.host.disk.lock().await;
        let connections = net.taps("m2").len();
        one.handle.send_snapshot(snapshot(&one, &two), whole);
        until("under way", || two.stats(&one).received_bytes.get() > 100_000).await;
        net.taps("m2")[connections].cut();
        drop(disk);
        until("reported", || one.host.told().snapshots.len() == 1).await;
        // The sender fails in the middle, says so or just ends, or has less or more than it has said.
        let faulty = |fault: Option<io::Result<usize>>| {
            let (sender, receiver) = mpsc::channel(8);
            spawn_local(async move {
                sender.send(Ok(vec![1; 300_000].into())).await.unwrap();
                sleep(Duration::from_secs(1)).await;
                if let Some(fault) = fault {
                    sender.send(fault.map(|size| vec![1; size].into())).await.unwrap();
                }
            });
            Database { bytes: 500_000, chunks: receiver }
        };
        for fault in [Some(Err(io::Error::other("broken disk"))), None, Some(Ok(199_999)), Some(Ok(200_001))]
        {
            let reports = one.host.told().snapshots.len();
            one.handle.send_snapshot(snapshot(&one, &two), faulty(fault));
            until("reported", || one.host.told().snapshots.len() == reports + 1).await;
        }
        until("seen", || two.host.told().databases.len() == 5).await;
        assert!(one.host.told().snapshots.iter().all(|report| *report == (two.id, 300, false)));
        assert!(two.host.told().databases.iter().all(|(_, _, result)| *result == Err("cut")));
        assert!(two.host.messages().is_empty(), "no message without its database");
        assert_eq!(one.stats(&two).snapshots_failed.get(), 5);
        assert_eq!(two.stats(&one).snapshots_cut.get(), 5);
    });
}

/// It would keep out the leader's next one for as long as it likes: never silent for long, and never done.
#[test]
fn a_snapshot_that_hardly_comes_is_cut() {
    on_paused_clock(async {
        let (_net, one, two) = pair(limits()).await;
        const PIECES: u64 = 10;
        let Limits { snapshot_stall_timeout: stall, snapshot_bytes_per_s_min: rate, .. } = limits();
        let trickle = |seconds: u32, bytes: u64| {
            let (sender, receiver) = mpsc::channel(1);
            let feeding = spawn_local(async move {
                for _ in 0..PIECES {
                    sleep(stall * seconds / 10).await;
                    if sender.send(Ok(vec![7; bytes as usize].into())).await.is_err() {
                        return;
                    }
                }
            });
            (Database { bytes: PIECES * bytes, chunks: receiver }, feeding)
        };
        // However much has come before: what counts is how it comes now.
        let enough = rate * stall.as_secs();
        let (slow, _) = trickle(9, enough);
        one.handle.send_snapshot(snapshot(&one, &two), slow);
        until("taken", || one.host.told().snapshots == [(two.id, 300, true)]).await;

        let before = tokio::time::Instant::now();
        let (slow, feeding) = trickle(9, 1);
        one.handle.send_snapshot(snapshot(&one, &two), slow);
        until("cut", || one.host.told().snapshots.len() == 2).await;
        assert_eq!(one.host.told().snapshots[1], (two.id, 300, false));
        assert!(before.elapsed() < 2 * stall, "{:?}", before.elapsed());
        until("seen", || two.host.told().databases.len() == 2).await;
        assert_eq!(two.host.told().databases[1].2, Err("cut"));
        assert_eq!(two.stats(&one).snapshots_cut.get(), 1);
        feeding.await.expect("it ends");
    });
}

#[test]
fn every_snapshot_is_reported() {
    on_paused_clock(async {
        let (net, one, two) = pair(limits()).await;
        let message = snapshot(&one, &two);
        // To nobody; as a plain message, without its database; to a member that is removed on the way, or before.
        let stranger = NodeId(99);
        one.handle.send_snapshot(Message { to: stranger, ..message.clone() }, database(1).0);
        one.handle.send(vec![message.clone()]);
        until("two reports", || one.host.told().snapshots.len() == 2).await;
        let disk = two.host.disk.lock().await;
        one.handle.send_snapshot(message.clone(), database(1000).0);
        until("under way", || two.stats(&one).received_bytes.get() > 100_000).await;
        one.handle.send_snapshot(message.clone(), database(1).0);
        one.handle.remove_peer(two.id);
        until("four reports", || one.host.told().snapshots.len() == 4).await;
        drop(disk);
        assert!(
            one.host.told().snapshots.iter().all(|(_, index, ok)| *index == 300 && !ok),
            "{:?}",
            one.host.told().snapshots
        );
        // To one that takes nothing: after a while.
        one.meet(&two);
        connected(&one, &two).await;
        let connections = net.taps("m2").len();
        let _disk = two.host.disk.lock().await;
        one.handle.send_snapshot(message, database(1000).0);
        until("begun", || net.taps("m2").len() > connections).await;
        net.taps("m2")[connections].shut(true);
        until("five reports", || one.host.told().snapshots.len() == 5).await;
        assert_eq!(one.host.told().snapshots[4], (two.id, 300, false));
    });
}

/// With etcd's bounds all that consensus may have under way fits.
#[test]
fn the_queue_holds_what_consensus_sends() {
    let (ours, raft) = (Limits::default(), raft::Limits::default());
    assert!(ours.queue_bytes_max >= raft.inflight_bytes_max + 2 * raft.append_bytes_max);
    assert!(ours.queue_messages_max >= 2 * raft.inflight_messages_max);
}

/// A leader's last message names its successor.
#[test]
fn what_was_handed_over_before_the_stop_leaves() {
    on_paused_clock(async {
        let (_net, one, two) = pair(limits()).await;
        one.handle.send(vec![one.message(&two, Body::TimeoutNow)]);
        one.handle.stop();
        until("the message", || two.host.messages().len() == 1).await;
        until("cut", || two.stats(&one).active_since().is_none()).await;
        assert!(one.handle.stats().is_empty());
    });
}

/// Whoever still holds a handle is told, and does not wait for a thread that is gone.
#[test]
fn what_is_handed_over_after_the_stop_is_dropped() {
    on_paused_clock(async {
        let (_net, one, two) = pair(limits()).await;
        one.handle.stop();
        until("cut", || two.stats(&one).active_since().is_none()).await;
        let (sender, chunks) = mpsc::channel(1);
        one.handle.send_snapshot(snapshot(&one, &two), Database { bytes: 1, chunks });
        assert!(sender.send(Ok(Bytes::from_static(b"x"))).await.is_err());
        let before = tokio::time::Instant::now();
        let there = Url::parse(&url(2)).unwrap();
        let asked = one.handle.ask(there, Question::get("/version"), Duration::from_secs(60)).await;
        assert_eq!(asked.unwrap_err(), "the member is stopping");
        assert_eq!(before.elapsed(), Duration::ZERO);
    });
}

#[test]
fn a_member_is_asked() {
    on_paused_clock(async {
        let (net, one, _two) = pair(limits()).await;
        let dial: Rc<dyn server::peer::Dial> = Rc::new(bed::NetDial(net.clone()));
        let identity =
            Identity { member_id: one.id, cluster_id: bed::CLUSTER, peer_urls: vec![url(one.id.0)] };
        let settings = Settings { identity, limits: limits(), security: tls::Info::default() };
        let there = Url::parse(&url(2)).unwrap();
        let second = Duration::from_secs(1);
        let reply = ask(&dial, &there, &settings, Question::get("/members"), second).await.unwrap();
        assert_eq!((reply.status, &reply.headers["x-etcd-cluster-id"]), (200, &"c1".parse().unwrap()));
        assert!(reply.body.starts_with(b"[{\"id\":7,"), "{reply:?}");
        let promote = Question {
            token: Some("token".into()),
            content_type: "",
            ..Question::post("/members/promote/5", Bytes::new())
        };
        assert_eq!(ask(&dial, &there, &settings, promote, second).await.unwrap().status, 200);
        // By its answer a member is known; one that has another's place is another.
        let version = ask(&dial, &there, &settings, Question::get("/version"), second).await.unwrap();
        assert!(is_ours(&version, bed::CLUSTER, 2));
        assert!(!is_ours(&version, bed::CLUSTER, 3) && !is_ours(&version, bed::CLUSTER + 1, 2));
        for header in ["x-quorate-version", "x-quorate-member-id", "x-etcd-cluster-id"] {
            let mut unmarked = version.clone();
            unmarked.headers.remove(header).expect("it was there");
            assert!(!is_ours(&unmarked, bed::CLUSTER, 2), "without {header}");
        }
        let nobody = Url::parse("http://nobody:1").unwrap();
        let failed = ask(&dial, &nobody, &settings, Question::get("/version"), second).await;
        assert_eq!(failed.unwrap_err(), "dial http://nobody:1: connection refused");
    });
}

/// On threads of their own, through real sockets.
#[test]
fn two_peer_threads_exchange_messages() {
    server::log::set(server::log::Level::Fatal, server::log::Format::Json);
    let member = |id: u64| {
        let here = Url::parse("http://127.0.0.1:0").unwrap();
        let listener = Listener::bind(&here, Role::Peer, false).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let identity =
            Identity { member_id: NodeId(id), cluster_id: bed::CLUSTER, peer_urls: vec![url.clone()] };
        let (handle, host) = (Handle::new(64 << 20), Arc::new(FakeHost::default()));
        let settings = Settings { identity, limits: Limits::default(), security: tls::Info::default() };
        let thread = {
            let host = host.clone();
            PeerThread::start(handle.clone(), settings, move || host, vec![listener], id)
        }
        .unwrap();
        (NodeId(id), url, handle, host, thread)
    };
    let (one, two) = (member(1), member(2));
    one.2.add_peer(two.0, vec![two.1.clone()]);
    two.2.add_peer(one.0, vec![one.1.clone()]);
    let message = |from, to| Message { from, to, term: Term(2), body: heartbeat(1) };
    one.2.send(vec![message(one.0, two.0)]);
    two.2.send(vec![message(two.0, one.0)]);
    two.3.wait(|told| told.messages == [message(one.0, two.0)]);
    one.3.wait(|told| told.messages == [message(two.0, one.0)]);
    one.4.stop();
    two.4.stop();
}
