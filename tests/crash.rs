//! kill -9 under load, again and again: what was acknowledged is there, once. `QUORATE_KILL_ROUNDS` sets how often.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::rc::Rc;

use blackbox::{Member, PATIENCE, patience, run};
use client::Client;
use wire::etcdserverpb::{PutRequest, RangeRequest};

const WRITERS: usize = 8;
/// Puts that are acknowledged before the member is killed in the middle of others.
const PUTS_BEFORE_KILL: usize = 300;

/// What one key's writer knows: the last value acknowledged with its revision, and the one under way, if any.
#[derive(Clone, Debug, Default)]
struct Known {
    acknowledged: Option<(String, i64)>,
    under_way: Option<String>,
    puts: u64,
}

type Knowledge = Rc<RefCell<BTreeMap<String, Known>>>;

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

fn everything() -> RangeRequest {
    RangeRequest { key: b"\0".as_slice().into(), range_end: b"\0".as_slice().into(), ..Default::default() }
}

/// Puts until the member is gone; `enough` is told once all writers together have been answered often enough.
async fn write(client: Client, key: String, round: usize, known: Knowledge, enough: Rc<dyn Fn() -> bool>) {
    for n in 0.. {
        let value = format!("{round}.{n}");
        known.borrow_mut().entry(key.clone()).or_default().under_way = Some(value.clone());
        let Ok(answer) = client.put(put(&key, &value), patience()).await else { return };
        let revision = answer.header.expect("a header").revision;
        let mut all = known.borrow_mut();
        let known = all.get_mut(&key).expect("this writer's key");
        known.acknowledged = Some((value, revision));
        known.under_way = None;
        known.puts += 1;
        drop(all);
        if enough() {
            return;
        }
    }
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let rounds = std::env::var("QUORATE_KILL_ROUNDS").map_or(6, |text| text.parse().expect("a number"));
    // Snapshots all the time: a kill meets each step of one.
    let mut member = Member::start(&["--snapshot-count", "7"]);
    let known = Knowledge::default();
    let mut history = Vec::new();
    for round in 0..rounds {
        let pid = member.pid();
        run(async {
            let answered = Rc::new(RefCell::new(0));
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let answered = answered.clone();
                    let enough = move || {
                        *answered.borrow_mut() += 1;
                        // The kill comes while the other writers' puts are under way.
                        if *answered.borrow() == PUTS_BEFORE_KILL {
                            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it runs");
                        }
                        // A put that began now would wait for a member that does not come.
                        *answered.borrow() >= PUTS_BEFORE_KILL
                    };
                    let (client, known) = (member.client(), known.clone());
                    tokio::task::spawn_local(write(
                        client,
                        format!("k{writer}"),
                        round,
                        known,
                        Rc::new(enough),
                    ))
                })
                .collect();
            for writer in writers {
                // The kill may come between a writer's call and its connection: the call then lasts for its whole patience.
                tokio::time::timeout(2 * PATIENCE, writer)
                    .await
                    .expect("writers end with the member")
                    .expect("no panic");
            }
        });
        member.restart();
        run(check(&member.client(), &known, &mut history));
    }
    assert!(member.terminate().signal() == Some(15), "SIGTERM ends it by the signal");
    member.restart();
    run(check(&member.client(), &known, &mut history));
}

/// Every key holds its last acknowledged value, or the one that was under way, and the past is what it was: `history`
/// has revisions of earlier rounds with their hashes, and gets this one.
async fn check(client: &Client, known: &Knowledge, history: &mut Vec<(i64, u32)>) {
    let highest = history.last().map_or(1, |(revision, _)| *revision);
    let answer = client.range(everything(), patience()).await.expect("a range");
    let revision = answer.header.expect("a header").revision;
    assert!(revision >= highest, "the store went back from {highest} to {revision}");
    let mut versions = 0;
    for pair in &answer.kvs {
        let key = String::from_utf8(pair.key.to_vec()).expect("a key of ours");
        let value = String::from_utf8(pair.value.to_vec()).expect("a value of ours");
        let mut all = known.borrow_mut();
        let known = all.get_mut(&key).expect("a key of ours");
        match &known.acknowledged {
            Some((acknowledged, at)) if *acknowledged == value => assert_eq!(pair.mod_revision, *at, "{key}"),
            _ => {
                assert_eq!(
                    known.under_way.as_ref(),
                    Some(&value),
                    "{key} was acknowledged as {:?}",
                    known.acknowledged
                );
                known.acknowledged = Some((value, pair.mod_revision));
                known.puts += 1;
            }
        }
        known.under_way = None;
        // A put that happened twice would count twice; one that was lost would be missing.
        assert_eq!(pair.version, i64::try_from(known.puts).expect("few puts"), "{key}");
        versions += pair.version;
    }
    assert_eq!(answer.kvs.len(), WRITERS);
    assert_eq!(revision, 1 + versions, "each put is one revision");
    let hash = client.hash_kv(0, patience()).await.expect("a hash");
    assert_eq!(hash.hash_revision, revision);
    for (at, expected) in history.iter() {
        let hash = client.hash_kv(*at, patience()).await.expect("a hash of the past");
        assert_eq!(hash.hash, *expected, "the past at revision {at} is another one");
    }
    history.push((revision, hash.hash));
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let member = Member::start(&[]);
    let other = Member::new(&[]);
    let mut command = other.command();
    let output = command.arg("--data-dir").arg(member.data_dir()).output().expect("etcd runs");
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("in use by another process"), "{log}");
    run(async { member.client().put(put("k", "v"), patience()).await.expect("the first one goes on") });
}

#[test]
fn a_new_data_directory_is_closed_to_others_and_a_wider_one_is_warned_about() {
    let mut member = Member::start(&[]);
    let mode = |member: &Member| {
        std::fs::metadata(member.data_dir()).expect("a folder").permissions().mode() & 0o777
    };
    assert_eq!(mode(&member), 0o700);
    assert!(!member.log().contains("check file permission"), "{}", member.log());
    member.kill();
    member.announce("check file permission");
    let wide = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(member.data_dir(), wide).expect("a folder of ours");
    member.restart();
    assert!(member.log().contains("check file permission"), "{}", member.log());
    assert_eq!(mode(&member), 0o755, "it is the operator's");
}

#[test]
fn an_idle_log_stays_still_and_a_start_adds_two_entries() {
    let mut member = Member::start(&[]);
    let index = |member: &Member| {
        run(async {
            let client = member.client();
            // The first put waits for everything that the start proposed.
            client.put(put("k", "v"), patience()).await.expect("a put");
            let before = client.status(patience()).await.expect("a status").raft_applied_index;
            for _ in 0..50 {
                client.range(everything(), patience()).await.expect("a range");
            }
            let after = client.status(patience()).await.expect("a status").raft_applied_index;
            assert_eq!(before, after, "reading, or nothing, made log entries");
            after
        })
    };
    let first = index(&member);
    member.restart();
    // The leader's empty entry, this member's attributes, and the put.
    assert_eq!(index(&member), first + 3);
}
