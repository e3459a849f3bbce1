//! What is stored rots while the member runs (rule 7, and what a single member does about it).

use std::sync::Mutex;

use node::{Change, Input, NewMember, Outputs};
use store::ReadFailure;
use wire::etcdserverpb::AlarmType;

use super::*;

/// A member with some sealed segments, and what it has been told of rot.
fn member(fs: &Arc<dyn Fs>) -> (Running, Arc<Mutex<Vec<String>>>) {
    let mut member = ready(fs);
    let mut ids = member.lane();
    for n in 0..60 {
        member.submit(vec![put(&mut ids, &format!("k{n:02}"), &format!("{n:0200}"))]);
        member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = told.clone();
    member.parts.rot.listen(move |place| tells.lock().expect("no panic").push(place.to_owned()));
    (member, told)
}

fn segments(memory: &MemFs) -> Vec<std::path::PathBuf> {
    memory.files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "seg")).collect()
}

#[test]
fn rule_7_rot_is_told_once_by_file_and_offset_and_a_single_member_raises_corrupt() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let (mut member, told) = member(&fs);
    let oldest = segments(&memory).into_iter().min().expect("a segment");
    memory.flip(&oldest, 300, 1).expect("a file");
    for _ in 0..3 {
        let failure = member.parts.reader.hash_kv(0).expect_err("it does not verify");
        assert!(matches!(failure, ReadFailure::Source(_)), "{failure:?}");
    }
    let places = told.lock().expect("no panic").clone();
    assert_eq!(places.len(), 1, "{places:?}");
    assert!(places[0].contains(&oldest.display().to_string()) && places[0].contains("offset"), "{places:?}");
    // Nobody else has it: the alarm says so, and what is sound is served.
    member.inputs.push_back(Input::DataLost);
    member.settle(NOW, &mut Told::default()).expect("a healthy disk");
    let alarms = member.parts.reader.alarms();
    assert!(alarms.contains(AlarmType::Corrupt, member.parts.identity.member_id));
    assert_eq!(value_of(&member, b"k59", 0).as_deref(), Some(format!("{:0200}", 59).as_bytes()));
    let mut told = Told::default();
    member.submit(vec![put(&mut member.lane(), "k", "v")]);
    member.settle(NOW, &mut told).expect("a healthy disk");
    assert_eq!(told.completions.answers[0].1, Err(ApiError::Corrupt.into()));
}

#[test]
fn rule_7_a_read_that_fails_says_where_and_changes_nothing() {
    let memory = MemFs::new();
    let faults = FaultFs::new(Arc::new(memory.clone()));
    let fs: Arc<dyn Fs> = Arc::new(faults.clone());
    let (member, told) = member(&fs);
    let error = std::io::ErrorKind::Other;
    // A segment is opened under the name that it had when it was allocated.
    faults.add(Fault { path_contains: "/rev/".into(), error, ..Fault::once(Operation::Read) });
    let request = Range { key: b"k00", ..Default::default() };
    let read = |body: &mut Vec<u8>| member.parts.reader.range(&request, ReadMode::MayBlock, body);
    let mut body = Vec::new();
    assert!(matches!(read(&mut body), Err(ReadFailure::Source(_))));
    assert!(body.is_empty());
    let places = told.lock().expect("no panic").clone();
    assert!(places.len() == 1 && places[0].contains(".seg at offset "), "{places:?}");
    assert!(read(&mut body).is_ok(), "it was once");
}

/// With another voter there is nothing to raise: that one has the data, and this one stops.
#[test]
fn rule_7_with_other_voters_a_member_with_rot_stops_and_raises_nothing() {
    let memory = MemFs::new();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let (mut member, _told) = member(&fs);
    let id = member.lane().next();
    let peer_urls = vec!["http://other:2380".to_owned()];
    let change = Change::Add { member: NewMember { id: 99, peer_urls, is_learner: false } };
    member.submit(vec![Submission::Reconfigure { id, data: change.encode(id).into(), promotes: None }]);
    settle_without_merges(&mut member, &mut Told::default());
    assert_eq!(member.parts.consensus.status().role, raft::Role::Leader);
    let mut out = Outputs::default();
    member.parts.consensus.step(NOW, Input::DataLost, &mut out);
    assert!(out.must_stop && out.alarms.is_empty());
}
