//! A running cluster goes over from Go's etcd to ours and back, one member at a time, while clients read and write.

use std::path::Path;
use std::time::Duration;

use blackbox::{Cluster, run};
use client::Deadline;
use wire::ApiError;
use wire::etcdserverpb::MemberAddRequest;

use crate::load::Load;
use crate::{check_logs, get, go, kind, number, others, ours, path_text, say, tool, until};

/// Both programs give the log back and let followers fall behind early.
const FLAGS: [&str; 2] = ["--snapshot-count=500", "--snapshot-catchup-entries=200"];

/// How long the load goes on between two members.
pub fn pause() -> Duration {
    Duration::from_secs(number("QUORATE_SECONDS", 3))
}

#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn swap_in_place_and_back_by_export() {
    let mut cluster = Cluster::of(&[go(), go(), go()], &FLAGS);
    cluster.restart(&[0, 1, 2]);
    run(async {
        let load = Load::start(&cluster, true);
        load.go_on(pause()).await;
        for place in 0..3 {
            in_place(&mut cluster, place, &ours());
            settled(&cluster, place, &load).await;
        }
        load.go_on(pause()).await;
        for place in 0..3 {
            by_export(&mut cluster, place, &go());
            settled(&cluster, place, &load).await;
        }
        load.check(&cluster).await;
    });
    check_logs(&cluster, &[]);
}

#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn swap_by_replacing_and_back() {
    let mut cluster = Cluster::of(&[go(), go(), go()], &FLAGS);
    cluster.restart(&[0, 1, 2]);
    run(async {
        let load = Load::start(&cluster, true);
        load.go_on(pause()).await;
        for program in [ours(), go()] {
            for place in 0..3 {
                by_replacing(&mut cluster, place, &program).await;
                settled(&cluster, place, &load).await;
            }
            load.go_on(pause()).await;
        }
        load.check(&cluster).await;
    });
    check_logs(&cluster, &[]);
}

/// The way in by replacing members, the way back by export, and the way in again in place.
#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn swap_by_replacing_back_by_export_and_in_again() {
    let mut cluster = Cluster::of(&[go(), go(), go()], &FLAGS);
    cluster.restart(&[0, 1, 2]);
    run(async {
        let load = Load::start(&cluster, true);
        for place in 0..3 {
            by_replacing(&mut cluster, place, &ours()).await;
            settled(&cluster, place, &load).await;
        }
        for place in [2, 0, 1] {
            by_export(&mut cluster, place, &go());
            settled(&cluster, place, &load).await;
        }
        for place in [1, 2, 0] {
            in_place(&mut cluster, place, &ours());
            settled(&cluster, place, &load).await;
        }
        load.check(&cluster).await;
    });
    check_logs(&cluster, &[]);
}

/// The member is back, has what the others have, and the load goes on.
async fn settled(cluster: &Cluster, place: usize, load: &Load) {
    cluster.put(place, "settled", "v").await;
    load.check_hashes(cluster).await;
    load.go_on(pause()).await;
}

/// Another program goes on with a member's directory.
pub fn in_place(cluster: &mut Cluster, place: usize, program: &Path) {
    let member = &mut cluster.members[place];
    member.terminate();
    member.set_program(program);
    cluster.restart(&[place]);
    let log = cluster.members[place].log();
    assert!(*program != ours() || log.contains("took over etcd's database"), "{log}");
    say(format!("member {place} is {} now, on the directory of before", kind(program)));
}

/// Go's program goes on with what is written for it of a member's directory.
pub fn by_export(cluster: &mut Cluster, place: usize, program: &Path) {
    let member = &mut cluster.members[place];
    member.terminate();
    let (data, out) = (member.data_dir(), member.data_dir().with_extension("go"));
    tool("etcdutl", &["export-go", "--data-dir", path_text(&data), "--out", path_text(&out)]);
    std::fs::remove_dir_all(&data).expect("its directory");
    std::fs::rename(out, data).expect("the new directory");
    member.set_program(program);
    cluster.restart(&[place]);
    say(format!("member {place} is {} now, on what was exported", kind(program)));
}

/// A member is removed, and another one added in its stead: a learner first, then with a vote.
pub async fn by_replacing(cluster: &mut Cluster, place: usize, program: &Path) {
    let id = cluster.id(place).await;
    let rest = others(cluster, &[place]);
    let client = cluster.members[rest[0]].client();
    let brief = || Deadline::after(Duration::from_secs(8));
    let removed = || async {
        let list = client.members(brief()).await;
        if list.is_ok_and(|list| list.members.iter().all(|member| member.id != id)) {
            return true;
        }
        let removed = client.member_remove(id, brief()).await;
        // Members have to have been connected for some time; or the leader that was asked is the one that goes.
        removed.is_ok()
    };
    until("it may be removed", removed).await;
    let status = cluster.members[place].end();
    assert!(status.success(), "a removed member ends by itself: {status}");
    let url = cluster.members[place].peer_endpoint();
    cluster.replace(place, program);
    let added = || async {
        let list = client.members(brief()).await;
        if list.is_ok_and(|list| list.members.iter().any(|member| member.peer_ur_ls.contains(&url))) {
            return true;
        }
        let request = MemberAddRequest { peer_ur_ls: vec![url.clone()], is_learner: true };
        client.member_add(request, brief()).await.is_ok()
    };
    until("another may be added", added).await;
    cluster.restart(&[place]);
    let id = cluster.id(place).await;
    let promoted = || async {
        match client.member_promote(id, brief()).await {
            Ok(_) => true,
            Err(error) => error.is(ApiError::MemberNotLearner),
        }
    };
    until("the learner is ready", promoted).await;
    let voter = cluster.members[place].client();
    let serves = || async { voter.range(get("k"), brief()).await.is_ok() };
    until("the new member serves", serves).await;
    say(format!("member {place} was replaced, and is {} now", kind(program)));
}
