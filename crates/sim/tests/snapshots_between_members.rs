//! A leader's snapshot on its way to a member that lags behind: rule 17.

use std::path::PathBuf;
use std::sync::Arc;

use disk::boltfile::schema;
use disk::{Fault, FaultFs, Fs, MemFs, Operation};
use node::interchange::Cut;
use node::offline::{DataDir, check};
use node::{Change, ClusterState, Entropy, Identity, Input, NewMember, ReceiveError, Settings};
use prost::Message as _;
use raft::{Body, Message, NodeId, Time};
use sim::member::{Running, Told, proposal, settings};
use wire::etcdserverpb::alarm_request::AlarmAction;
use wire::etcdserverpb::{
    AlarmRequest, AuthEnableRequest, AuthRoleAddRequest, AuthUserAddRequest, AuthUserGrantRoleRequest,
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, LeaseGrantRequest, PutRequest, RequestHeader,
};

const NOW: Time = Time(1);
/// Whoever is to get a snapshot.
const LEARNER: u64 = 77;

fn propose(member: &mut Running, ids: &mut node::LaneIds, request: InternalRaftRequest) {
    let id = ids.next();
    let auth = member.parts.reader.auth();
    let (username, auth_revision) =
        if auth.is_enabled() { ("root".to_owned(), auth.revision()) } else { (String::new(), 0) };
    let header = Some(RequestHeader { id: id.0, username, auth_revision });
    member.submit(vec![proposal(id, InternalRaftRequest { header, ..request }.encode_to_vec(), true)]);
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
}

/// The user root, who may do everything, and from then on nobody else may do anything.
fn give_users(member: &mut Running, ids: &mut node::LaneIds) {
    let mut ask = |request| propose(member, ids, request);
    let root = || "root".to_owned();
    let user = AuthUserAddRequest { name: root(), hashed_password: "JDJhJA==".into(), ..Default::default() };
    ask(InternalRaftRequest { auth_user_add: Some(user), ..Default::default() });
    let role = AuthRoleAddRequest { name: root() };
    ask(InternalRaftRequest { auth_role_add: Some(role), ..Default::default() });
    let granted = AuthUserGrantRoleRequest { user: root(), role: root() };
    ask(InternalRaftRequest { auth_user_grant_role: Some(granted), ..Default::default() });
    ask(InternalRaftRequest { auth_enable: Some(AuthEnableRequest::default()), ..Default::default() });
    assert!(member.parts.reader.auth().is_enabled());
}

/// A leader that is alone but for a learner, and has some of everything.
fn leader(puts: u32) -> Running {
    // At exactly the deletion.
    leader_compacted_at(puts, i64::from(puts) + 2)
}

fn compact(revision: i64) -> InternalRaftRequest {
    let compaction = CompactionRequest { revision, physical: false };
    InternalRaftRequest { compaction: Some(compaction), ..Default::default() }
}

fn leader_compacted_at(puts: u32, revision: i64) -> Running {
    let fs: Arc<dyn Fs> = Arc::new(MemFs::new());
    let mut member =
        Running::open(&fs, &settings(), Entropy { ids: 7 << 32, log: 7, raft: 7 }, NOW).expect("a start");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    let mut ids = member.lane();
    let id = ids.next();
    let peer_urls = vec!["http://learner:2380".to_owned()];
    let change = Change::Add { member: NewMember { id: LEARNER, peer_urls, is_learner: true } };
    let data = change.encode(id).into();
    member.submit(vec![node::Submission::Reconfigure { id, data, promotes: None }]);
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    let lease = LeaseGrantRequest { id: -5, ttl: 60 };
    give_users(&mut member, &mut ids);
    let mut ask = |request| propose(&mut member, &mut ids, request);
    ask(InternalRaftRequest { lease_grant: Some(lease), ..Default::default() });
    // A kind that refuses nothing.
    let alarm = AlarmRequest { action: AlarmAction::Activate as i32, member_id: 3, alarm: 9 };
    ask(InternalRaftRequest { alarm: Some(alarm), ..Default::default() });
    for n in 0..puts {
        let (key, value) = (format!("k{}", n % 5).into(), format!("{n:0100}").into());
        let put = PutRequest { key, value, lease: if n % 3 == 0 { -5 } else { 0 }, ..Default::default() };
        ask(InternalRaftRequest { put: Some(put), ..Default::default() });
    }
    let delete = DeleteRangeRequest { key: "k1".into(), ..Default::default() };
    ask(InternalRaftRequest { delete_range: Some(delete), ..Default::default() });
    ask(compact(revision));
    let put = PutRequest { key: "last".into(), value: "1".into(), ..Default::default() };
    ask(InternalRaftRequest { put: Some(put), ..Default::default() });
    member
}

fn file(cut: &Cut) -> Vec<u8> {
    let plan = cut.plan().expect("a healthy disk");
    let (length, mut bytes) = (plan.file_len(), Vec::new());
    cut.write(plan, |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })
    .expect("a healthy disk");
    assert_eq!(bytes.len() as u64, length, "what was planned");
    bytes
}

fn learner(memory: &MemFs, leader: &Running) -> Running {
    learner_on(Arc::new(memory.clone()), leader)
}

fn learner_on(fs: Arc<dyn Fs>, leader: &Running) -> Running {
    let cluster_id = leader.parts.identity.cluster_id;
    let identity = Identity { cluster_id, member_id: LEARNER };
    let settings = Settings {
        data_dir: PathBuf::from("/data"),
        name: "learner".into(),
        cluster_state: ClusterState::Existing(Some(identity)),
        ..settings()
    };
    Running::open(&fs, &settings, Entropy { ids: 9 << 32, log: 9, raft: 9 }, NOW).expect("a learner starts")
}

fn message(cut: &Cut, leader: &Running) -> Message {
    Message {
        from: NodeId(leader.parts.identity.member_id),
        to: NodeId(LEARNER),
        term: leader.parts.consensus.status().term,
        body: Body::Snapshot { snapshot: cut.message() },
    }
}

/// Takes a snapshot in, as far as the disk lets it; whether the member is to be opened anew.
fn receive(member: &mut Running, message: Message, bytes: &[u8]) -> Result<bool, ReceiveError> {
    let Body::Snapshot { snapshot } = &message.body else { panic!("a snapshot's message") };
    let receiver = member.parts.snapshot_receiver.clone();
    let mut incoming = receiver.begin(None)?;
    bytes.chunks(1000).try_for_each(|piece| incoming.write(piece))?;
    receiver.finish(incoming, snapshot, 5)?;
    member.inputs.push_back(Input::Messages(vec![message]));
    member.settle(NOW, &mut Told::default())?;
    Ok(member.is_restored)
}

/// What a check finds of a directory that a start takes: what each part holds.
fn checked(memory: &MemFs, what: &str) -> Vec<String> {
    let before = memory.files();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let node::Limits { wal, revlog, .. } = settings().limits;
    let data_dir = DataDir { path: "/data".into(), wal_dir: None, wal_limits: wal, revlog_limits: revlog };
    let report = check(&fs, &data_dir).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(report.faults, [], "{what}");
    assert_eq!(memory.files(), before, "{what}: a check changed something");
    report.sound.into_iter().map(|part| part.holds).collect()
}

/// Stopped at every operation, by a kill and by power cuts: the learner has nothing of the snapshot or all of it, starts
/// in any case, and can be given it again.
#[test]
fn rule_17_a_snapshot_is_there_whole_or_not_at_all() {
    let leader = leader(40);
    let cut = leader.parts.applier.cut();
    let (bytes, message) = (file(&cut), message(&cut, &leader));
    let index = leader.parts.applier.applied_index();
    let expected = leader.parts.reader.hash().expect("a healthy disk");
    let (mut without, mut with) = (0, 0);
    for operations in 0.. {
        let memory = MemFs::new();
        let mut member = learner(&memory, &leader);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        memory.halt_after(Some(operations));
        let is_done = receive(&mut member, message.clone(), &bytes).is_ok_and(|restored| restored);
        drop(member);
        for cut in 0..4 {
            let left = if cut == 0 { memory.copy() } else { memory.crashed(cut) };
            left.halt_after(None);
            let what = format!("{operations} operations, cut {cut}");
            let report = checked(&left, &what);
            // Twice is as once.
            drop(learner(&left, &leader));
            let mut member = learner(&left, &leader);
            let applied = member.parts.found.applied_index;
            let has_it = report.iter().any(|holds| holds.ends_with(&format!("entries up to {index}")));
            assert_eq!(has_it, applied == index, "{what}: a check says {report:?}");
            assert!(applied == 0 || applied == index, "{what}: {applied} is applied");
            assert!(!is_done || applied == index, "{what}: the log names it");
            if applied == 0 {
                without += 1;
                assert!(receive(&mut member, message.clone(), &bytes).expect("a healthy disk"), "{what}");
                drop(member);
                member = learner(&left, &leader);
            } else {
                with += 1;
            }
            assert_eq!(member.parts.found.applied_index, index, "{what}");
            assert_eq!(member.parts.reader.hash().expect("a healthy disk"), expected, "{what}");
            assert!(!member.parts.reader.alarms().is_empty(), "{what}");
            assert_eq!(member.parts.reader.alarms(), leader.parts.reader.alarms(), "{what}");
            assert!(member.parts.reader.auth().is_enabled(), "{what}");
            assert_eq!(member.parts.reader.auth(), leader.parts.reader.auth(), "{what}");
            assert_eq!(member.parts.reader.leases(), leader.parts.reader.leases(), "{what}");
            assert_eq!(member.parts.reader.lease_keys(-5), leader.parts.reader.lease_keys(-5), "{what}");
            assert_eq!(member.parts.reader.membership(), leader.parts.reader.membership(), "{what}");
            let leftovers: Vec<_> = left
                .files()
                .into_iter()
                .filter(|path| path.to_string_lossy().contains("rev.") || path.ends_with("received.db.tmp"))
                .collect();
            assert!(leftovers.is_empty(), "{what}: {leftovers:?}");
        }
        if is_done {
            break;
        }
    }
    assert!(without > 20 && with > 4, "{without} starts without it, {with} with it");
}

/// `found-bugs.md`, 2: the second one took away what the log was about to name.
#[test]
fn rule_17_while_a_snapshot_is_being_taken_over_no_other_is_received() {
    let leader = leader(10);
    let cut = leader.parts.applier.cut();
    let (bytes, message) = (file(&cut), message(&cut, &leader));
    let fs = MemFs::new();
    let mut member = learner(&fs, &leader);
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    let receiver = member.parts.snapshot_receiver.clone();
    let Body::Snapshot { snapshot } = &message.body else { panic!("a snapshot's message") };

    let given_up = receiver.begin(None).expect("nothing is under way");
    assert!(matches!(receiver.begin(None), Err(ReceiveError::Busy)), "one is being received");
    drop(given_up);

    let mut incoming = receiver.begin(None).expect("the other was given up");
    incoming.write(&bytes).expect("room");
    receiver.finish(incoming, snapshot, 5).expect("a whole file");
    assert!(matches!(receiver.begin(None), Err(ReceiveError::Busy)), "consensus has not heard of it");
    // From who leads no more: consensus has no use for it.
    let stale = Message { term: raft::Term(1), ..message.clone() };
    let newer = Message {
        term: raft::Term(9),
        body: Body::Heartbeat { commit: raft::Index::ZERO, context: None },
        ..message.clone()
    };
    member.inputs.push_back(Input::Messages(vec![newer, stale]));
    member.consensus(NOW, &mut Told::default());
    let is_left = || fs.files().iter().any(|path| path.to_string_lossy().contains("rev.next"));
    assert!(is_left(), "a thread of long work has to remove it");
    member.work_on_files(&mut Told::default()).expect("a healthy disk");
    assert!(!is_left(), "it takes as much as the store");
    let mut incoming = receiver.begin(None).expect("what was received is of no use");
    incoming.write(&bytes).expect("room");
    receiver.finish(incoming, snapshot, 5).expect("a whole file");
    member.inputs.push_back(Input::Messages(vec![Message { term: raft::Term(9), ..message.clone() }]));
    member.consensus(NOW, &mut Told::default());
    assert!(matches!(receiver.begin(None), Err(ReceiveError::Busy)), "it is being taken over");
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    assert!(member.is_restored);
}

#[test]
fn rule_17_what_is_not_whole_or_of_another_index_is_refused() {
    let leader = leader(10);
    let cut = leader.parts.applier.cut();
    let (bytes, message) = (file(&cut), message(&cut, &leader));
    let mut member = learner(&MemFs::new(), &leader);
    let Body::Snapshot { snapshot } = message.body else { panic!("a snapshot's message") };
    let receiver = member.parts.snapshot_receiver.clone();
    let refusal = |bytes: &[u8], snapshot: &raft::Snapshot| {
        let mut incoming = receiver.begin(None).expect("nothing is under way");
        incoming.write(bytes).expect("room");
        match receiver.finish(incoming, snapshot, 5) {
            Err(ReceiveError::Refused(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    for length in [0, 1, 4096, bytes.len() / 2, bytes.len() - 4096, bytes.len() - 1] {
        refusal(&bytes[..length], &snapshot);
    }
    let mut other = snapshot.clone();
    other.index = raft::Index(snapshot.index.0 + 1);
    assert!(refusal(&bytes, &other).contains("of entry"));
    let mut other = snapshot.clone();
    other.conf.learners.clear();
    assert!(refusal(&bytes, &other).contains("its members are"));
    assert!(member.inputs.pop_front().is_some(), "the member goes on");
}

/// `found-bugs.md`, 4: Go's etcd sends what a compaction is still to drop, puts and the tombstones that end them.
#[test]
fn rule_17_what_a_compaction_of_the_sender_is_yet_to_drop_does_not_come_back() {
    const PUTS: u32 = 40;
    let deleted_at = i64::from(PUTS) + 2;
    for revision in [deleted_at - 1, deleted_at] {
        let mut leader = leader_compacted_at(PUTS, 2);
        let cut = leader.parts.applier.cut();
        let (mut bytes, message) = (file(&cut), message(&cut, &leader));
        drop(cut);
        // As if a compaction had been scheduled since.
        let name = schema::META_SCHEDULED_COMPACT;
        let at = bytes.windows(name.len()).position(|part| part == name).expect("a compaction") + name.len();
        let scheduled = schema::encode_compact_revision(revision);
        assert_eq!(bytes[at..at + scheduled.len()], schema::encode_compact_revision(2));
        bytes[at..at + scheduled.len()].copy_from_slice(&scheduled);

        let memory = MemFs::new();
        let mut member = learner(&memory, &leader);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        assert!(receive(&mut member, message, &bytes).expect("a healthy disk"));
        drop(member);
        let member = learner(&memory, &leader);
        let mut ids = leader.lane();
        propose(&mut leader, &mut ids, compact(revision));
        let hash = |member: &Running| member.parts.reader.hash_kv(deleted_at + 1).expect("a healthy disk");
        assert_eq!(hash(&member), hash(&leader), "compacted at {revision}");
        assert_eq!(member.parts.reader.lease_keys(-5), leader.parts.reader.lease_keys(-5));
    }
}

/// A full disk, or a sender that goes away: what came is not left to take what room there is.
#[test]
fn rule_17_a_snapshot_that_is_given_up_leaves_nothing() {
    let leader = leader(40);
    let cut = leader.parts.applier.cut();
    let (bytes, message) = (file(&cut), message(&cut, &leader));
    let full = |operation, path: &str, skip| Fault {
        path_contains: path.to_owned(),
        skip,
        error: std::io::ErrorKind::StorageFull,
        forever: true,
        ..Fault::once(operation)
    };
    let faults = [
        None,
        Some(full(Operation::Allocate, "received.db.tmp", 0)),
        Some(full(Operation::Write, "received.db.tmp", 0)),
        Some(full(Operation::Write, "received.db.tmp", 9)),
        Some(full(Operation::Allocate, "rev.next", 0)),
        Some(full(Operation::Create, "rev.next", 0)),
        Some(full(Operation::Allocate, "member/snap", 0)),
    ];
    for fault in faults {
        let what = format!("{fault:?}");
        let memory = MemFs::new();
        let faulty = FaultFs::new(Arc::new(memory.clone()));
        let mut member = learner_on(Arc::new(faulty.clone()), &leader);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        let before = memory.files();
        let receiver = member.parts.snapshot_receiver.clone();
        let Body::Snapshot { snapshot } = &message.body else { panic!("a snapshot's message") };
        match fault {
            Some(fault) => {
                faulty.add(fault);
                let received = receiver.begin(Some(bytes.len() as u64)).and_then(|mut incoming| {
                    bytes.chunks(1000).try_for_each(|piece| incoming.write(piece))?;
                    receiver.finish(incoming, snapshot, 5)
                });
                assert!(matches!(received, Err(ReceiveError::NoRoom)), "{what}: {received:?}");
                assert!(faulty.strikes() > 0, "{what}");
                faulty.clear();
            }
            None => {
                let mut incoming = receiver.begin(Some(bytes.len() as u64)).expect("room");
                incoming.write(&bytes[..5000]).expect("room");
                assert!(memory.files() != before, "something has come");
                drop(incoming);
            }
        }
        assert_eq!(memory.files(), before, "{what}");
        assert!(receive(&mut member, message.clone(), &bytes).expect("a healthy disk"), "{what}");
    }
}

/// A sender may tell another length than it sends: room is made for what comes, and a little ahead of it.
#[test]
fn rule_17_room_is_made_ahead_of_what_comes_whatever_is_told() {
    let leader = leader(10);
    let cut = leader.parts.applier.cut();
    let (bytes, message) = (file(&cut), message(&cut, &leader));
    let Body::Snapshot { snapshot } = &message.body else { panic!("a snapshot's message") };
    for told in [1, bytes.len() as u64, 3 * bytes.len() as u64, u64::MAX - 2] {
        let memory = MemFs::new();
        let mut member = learner(&memory, &leader);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        let receiver = member.parts.snapshot_receiver.clone();
        let used = memory.used();
        let mut incoming = receiver.begin(Some(told)).expect("room");
        assert_eq!(memory.used(), used, "nothing has come");
        let (first, rest) = bytes.split_at(1000);
        incoming.write(first).expect("room");
        assert!(memory.used() - used <= told.clamp(1000, 1000 + (64 << 20)), "{told} were told");
        incoming.write(rest).expect("room");
        receiver.finish(incoming, snapshot, 5).expect("a whole file");
        member.inputs.push_back(Input::Messages(vec![message.clone()]));
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
        assert!(member.is_restored);
    }
}
