//! Files that real etcds wrote: they are read, and what is read is written as the same bytes again.

use store_json::names;

use super::*;

/// As much of the payload as this crate can tell.
mod store_json {
    /// The members' names, from the JSON inside the JSON.
    pub fn names(data: &[u8]) -> Vec<String> {
        let json: serde_json::Value = serde_json::from_slice(data).unwrap();
        let members = json["Root"]["Children"]["0"]["Children"]["members"]["Children"].as_object().unwrap();
        let attributes =
            members.values().filter_map(|member| member["Children"]["attributes"]["Value"].as_str());
        let parsed = attributes.map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
        parsed.map(|json| json["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn check(bytes: &[u8], index: u64, voters: usize, learners: usize) {
    let fs = machine();
    let name = Name { term: 2, index };
    fs.put(Path::new(DIR).join(name.to_string()), bytes).unwrap();
    let snapshot = read(&folder(&fs), name);
    assert_eq!((snapshot.conf_state.voters.len(), snapshot.conf_state.learners.len()), (voters, learners));
    assert_eq!(names(&snapshot.data), ["gold"]);
    assert_eq!(snapshot.encode(), bytes, "written otherwise");
}

/// A new member of one, `--snapshot-count=5`, nine puts.
#[test]
fn of_etcd_3_4_to_3_7() {
    check(include_bytes!("../golden/snap/etcd-3.4.23.snap"), 12, 1, 0);
    check(include_bytes!("../golden/snap/etcd-3.6.9.snap"), 12, 1, 0);
    check(include_bytes!("../golden/snap/etcd-3.7.1.snap"), 12, 1, 0);
}

/// A learner that never started, and one that was removed.
#[test]
fn of_etcd_3_7_with_a_learner_and_a_removed_member() {
    check(include_bytes!("../golden/snap/etcd-3.7.1-members.snap"), 30, 1, 1);
}

/// What version 0.1 wrote opens in every later one, and is still written so. Made by `UPDATE_EXPECT=1`.
#[test]
fn of_version_0_1() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snap/quorate-0.1.snap");
    let fresh = snapshot(3, 0x1234).encode();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    assert_eq!(std::fs::read(path).unwrap(), fresh);
}
