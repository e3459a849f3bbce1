//! The same random requests to Go's etcd and to ours: what each member of one cluster shows at each revision is compared
//! field by field, and so is what a single member of each kind answers, and what watches of each see.

use std::path::Path;

use blackbox::{Cluster, Member, Random, patience, run};
use client::Client;
use wire::etcdserverpb::RangeRequest;
use wire::etcdserverpb::range_request::{SortOrder, SortTarget};

use crate::histories::Histories;
use crate::requests::Request;
use crate::{everything, get, go, number, ours, say};

const REQUESTS: u64 = 40;
/// At each member, in each sequence.
const WATCHES: usize = 3;

/// Differences that are meant: `docs/compat.md` has each of them.
pub fn is_meant(request: &Request) -> bool {
    match request {
        // With another target, etcd's stream leaves pairs out where it comes to a second chunk, and has others twice.
        Request::RangeStream(range) => {
            range.sort_target != SortTarget::Key as i32 || range.sort_order == SortOrder::Descend as i32
        }
        _ => false,
    }
}

/// The generator of the seed that was asked for, which is said.
pub fn seeded() -> Random {
    let seed = number("QUORATE_SEED", 1);
    println!("  seed {seed}");
    Random::new(seed)
}

/// How many sequences are asked for.
pub fn sequences() -> u64 {
    number("QUORATE_SEQUENCES", 50)
}

/// A member of each kind, alone.
pub fn one_of_each(flags: &[&str]) -> [Member; 2] {
    let start = |program: &Path| {
        let mut member = Member::of(program, flags);
        member.restart();
        member
    };
    [start(&go()), start(&ours())]
}

/// One after the other to a single member of each kind.
#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn differential_answers() {
    let mut random = seeded();
    let members = one_of_each(&[]);
    let clients = members.each_ref().map(Member::client);
    let (mut compared, mut refused, mut seen) = (0, 0, 0);
    run(async {
        let mut revision = 1;
        for sequence in 0..sequences() {
            let mut histories = Histories::start(&clients, WATCHES, &mut random, revision).await;
            for n in 0..REQUESTS {
                let request = Request::random(&mut random, revision);
                if is_meant(&request) {
                    continue;
                }
                if matches!(request, Request::Compact(_)) {
                    histories.catch_up(revision).await;
                }
                let [theirs, ours] = [&clients[0], &clients[1]];
                let (theirs, ours) = (request.outcome(theirs).await, request.outcome(ours).await);
                assert_eq!(theirs, ours, "sequence {sequence}, request {n}: Go's, ours: {request:?}");
                compared += 1;
                match theirs {
                    Ok(answer) => revision = revision.max(answer.revision),
                    Err(_) => refused += 1,
                }
            }
            seen += histories.compare(sequence, revision).await;
        }
    });
    say(format!("{compared} requests had the same answers, {refused} of them refusals"));
    say(format!("watches of both have seen the same {seen} events"));
}

/// To random members of a cluster of both kinds; then both are read at each revision.
#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn differential_reads() {
    let mut random = seeded();
    let mut cluster = Cluster::of(&[go(), ours(), go()], &["--snapshot-count=1000"]);
    cluster.restart(&[0, 1, 2]);
    run(async {
        let clients: Vec<Client> = cluster.members.iter().map(|member| member.client()).collect();
        let (mut revision, mut compared, mut seen) = (1, 0, 0);
        for sequence in 0..sequences() {
            cluster.let_lead((sequence / 10) as usize % 3).await;
            let first = revision;
            let mut histories = Histories::start(&clients, WATCHES, &mut random, revision).await;
            for _ in 0..REQUESTS {
                let request = Request::random(&mut random, revision);
                if matches!(request, Request::Compact(_)) {
                    histories.catch_up(revision).await;
                }
                let client = &clients[random.below(3) as usize];
                // The members that hear of it later would refuse what was just made.
                if let Ok(answer) = request.outcome(client).await {
                    revision = revision.max(answer.revision);
                }
            }
            for client in &clients {
                client.range(get("k"), patience()).await.expect("a linearizable read");
            }
            seen += histories.compare(sequence, revision).await;
            for at in first..=revision {
                let some = RangeRequest { serializable: true, revision: at, ..random.range(revision) };
                let all = RangeRequest { serializable: true, revision: at, ..everything() };
                for request in [Request::Range(all), Request::Range(some), Request::HashKv(at)] {
                    let expected = request.outcome(&clients[0]).await;
                    for (place, client) in clients.iter().enumerate().skip(1) {
                        let found = request.outcome(client).await;
                        assert_eq!(found, expected, "sequence {sequence}, member {place}: {request:?}");
                        compared += 1;
                    }
                }
            }
        }
        cluster.check_hashes().await;
        say(format!("{compared} reads and hashes at {revision} revisions were the same on all members"));
        say(format!("watches of all have seen the same {seen} events"));
    });
}
