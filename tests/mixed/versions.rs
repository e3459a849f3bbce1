//! Clusters with Go's etcd of the version before: at its version, raised by swapping ours in, and lowered again.

use std::time::Duration;

use blackbox::{Cluster, patience, run};
use wire::ApiError;
use wire::etcdserverpb::downgrade_request::DowngradeAction;

use crate::load::Load;
use crate::swap::{by_export, by_replacing, in_place, pause};
use crate::{all_write, check_logs, get, go_36, ours, paths, say, until};

const FLAGS: [&str; 2] = ["--snapshot-count=500", "--snapshot-catchup-entries=200"];

fn shows(cluster: &Cluster, place: usize, version: &str) -> bool {
    let told = cluster.members[place].http_get("/version");
    let (cluster, storage) = (format!("\"etcdcluster\":\"{version}\""), format!("\"storage\":\"{version}\""));
    told.contains(&cluster) && told.contains(&storage)
}

/// All members agree on the cluster's version, and their storage follows.
async fn agree_on(cluster: &Cluster, version: &str) {
    for place in cluster.running() {
        until(&format!("member {place} shows {version}"), || async { shows(cluster, place, version) }).await;
    }
}

#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn with_3_6() {
    for (programs, place) in [([go_36(), ours(), go_36()], 1), ([ours(), go_36(), ours()], 0)] {
        let mut cluster = Cluster::of(&programs, &FLAGS);
        cluster.restart(&[0, 1, 2]);
        run(async {
            agree_on(&cluster, "3.6.0").await;
            for leader in [place, place + 1] {
                cluster.let_lead(leader).await;
                paths::reads_and_writes(&cluster).await;
                paths::leases(&cluster).await;
                paths::alarms(&cluster).await;
                paths::locks(&cluster).await;
                for program in [go_36(), ours()] {
                    paths::learner(&mut cluster, leader, &program).await;
                }
                cluster.check_hashes().await;
            }
            for place in 0..3 {
                cluster.members[place].terminate();
                cluster.restart(&[place]);
                all_write(&cluster, &[place]).await;
            }
            agree_on(&cluster, "3.6.0").await;
            cluster.check_hashes().await;
        });
        check_logs(&cluster, &[]);
        say("with 3.6 at version 3.6: all paths, under leaders of both kinds, and after restarts");
    }
}

/// Swapped at version 3.6, back and in again, until the last one raises it; then lowered, and back to 3.6.
#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn up_from_3_6_and_down_again() {
    let mut cluster = Cluster::of(&[go_36(), go_36(), go_36()], &FLAGS);
    cluster.restart(&[0, 1, 2]);
    run(async {
        let load = Load::start(&cluster, true);
        agree_on(&cluster, "3.6.0").await;
        in_place(&mut cluster, 0, &ours());
        load.check_hashes(&cluster).await;
        by_replacing(&mut cluster, 1, &ours()).await;
        load.check_hashes(&cluster).await;
        agree_on(&cluster, "3.6.0").await;
        by_export(&mut cluster, 0, &go_36());
        load.check_hashes(&cluster).await;
        in_place(&mut cluster, 0, &ours());
        load.check_hashes(&cluster).await;
        agree_on(&cluster, "3.6.0").await;
        in_place(&mut cluster, 2, &ours());
        agree_on(&cluster, "3.7.0").await;
        load.check_hashes(&cluster).await;
        say("swapped in at version 3.6, one there and back; with the last one the version is 3.7");
        load.go_on(pause()).await;

        let client = cluster.members[0].client();
        let downgrade = |action, version: &str| client.downgrade(action, version.to_owned(), patience());
        downgrade(DowngradeAction::Validate, "3.6").await.expect("it may be");
        downgrade(DowngradeAction::Enable, "3.6").await.expect("it begins");
        agree_on(&cluster, "3.6.0").await;
        for place in [1, 2, 0] {
            by_export(&mut cluster, place, &go_36());
            load.check_hashes(&cluster).await;
            load.go_on(pause()).await;
        }
        // It ends when all members run that version.
        let over = || async {
            let client = cluster.members[0].client();
            let validated = client.downgrade(DowngradeAction::Validate, "3.5".to_owned(), patience()).await;
            !validated.is_err_and(|error| error.is(ApiError::DowngradeInProcess))
        };
        until("the downgrade is over", over).await;
        agree_on(&cluster, "3.6.0").await;
        cluster.members[0].client().range(get("k"), patience()).await.expect("a linearizable read");
        load.go_on(Duration::from_secs(1)).await;
        load.check(&cluster).await;
        say("lowered to 3.6 and back to Go's 3.6 by export");
    });
    check_logs(&cluster, &[]);
}

/// Members of 3.6 and ours together, lowered and raised while both lead.
#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn downgrade_with_a_member_of_3_6() {
    let mut cluster = Cluster::of(&[ours(), ours(), ours()], &FLAGS);
    cluster.restart(&[0, 1, 2]);
    run(async {
        agree_on(&cluster, "3.7.0").await;
        let client = cluster.members[0].client();
        client.downgrade(DowngradeAction::Enable, "3.6".to_owned(), patience()).await.expect("it begins");
        agree_on(&cluster, "3.6.0").await;
        by_export(&mut cluster, 1, &go_36());
        all_write(&cluster, &[0, 1, 2]).await;
        for leader in [1, 0] {
            cluster.let_lead(leader).await;
            paths::reads_and_writes(&cluster).await;
            paths::leases(&cluster).await;
            assert!(shows(&cluster, leader, "3.6.0"));
        }
        // Taken back: the version stays where the lowest member is, and rises when that one goes.
        cluster.let_lead(1).await;
        let client = cluster.members[0].client();
        client.downgrade(DowngradeAction::Cancel, String::new(), patience()).await.expect("it ends");
        all_write(&cluster, &[0, 1, 2]).await;
        assert!(shows(&cluster, 0, "3.6.0"));
        in_place(&mut cluster, 1, &ours());
        agree_on(&cluster, "3.7.0").await;
        all_write(&cluster, &[0, 1, 2]).await;
        cluster.check_hashes().await;
        say("lowered with a member of 3.6 that led, taken back, and raised when it was swapped");
    });
    check_logs(&cluster, &[]);
}
